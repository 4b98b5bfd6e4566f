"""Alertmanager's alert: its wire structs, its value tables, and the rows between them and the canonical alert.

An alert's labels are its identity, and its fingerprint is computed from them. Sources:
https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml for the fields, and
https://prometheus.io/docs/alerting/latest/clients/ for what they mean. It must not know who calls, nor what is sent
when.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping as Map
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.canonical import Flat, Link
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Row, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import TIME, Pair, Scale, iso, read_time

NAME = "alertmanager"
KEY = "alert_gateway_key"
"""The label with the key of an alert whose key is not the fingerprint of its labels."""
STARTS = f"extensions.{NAME}.startsAt"
PLACE = f"extensions.{NAME}.generatorURL"
"""Where an alert came from, if that is no address."""
LABELLED = ("alertmanager", "alertmanager_webhook", "grafana")
"""The dialects whose alerts are identified by their labels alone."""
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ODD = re.compile(r"[^a-zA-Z0-9_]")
_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]*:"
_ADDRESS = re.compile(_SCHEME)
_PATH = r"/(?:[^?%]|%[0-9a-fA-F]{2})*"
_NAME = r"[\w.~!$&'()*+,;=\x80-\U0010ffff-]*"
_HOST = rf"(?:[\w.~!$&'()*+,;=:%-]*@)?(?:\[[^\[\]/?]*\]|{_NAME})(?::[0-9]*)?"
_URI = re.compile(rf"\*|{_SCHEME}(?!/).*|(?:{_SCHEME}(?!//))?{_PATH}(?:\?.*)?|{_SCHEME}//{_HOST}(?:{_PATH})?(?:\?.*)?")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")

# --- wire structs ------------------------------------------------------------------------------------------


class AlertStatus(Struct, kw_only=True):
    """The state of an alert, as it is shown."""

    state: Literal["active", "suppressed", "unprocessed"]
    silencedBy: list[str] | UnsetType = UNSET
    inhibitedBy: list[str] | UnsetType = UNSET
    mutedBy: list[str] | UnsetType = UNSET


class Receiver(Struct, kw_only=True):
    """A receiver of notifications."""

    name: str


class Alert(Struct, kw_only=True):
    """An alert as posted, with the fields that are only shown."""

    labels: dict[str, str]
    annotations: dict[str, str] | UnsetType = UNSET
    startsAt: str | UnsetType = UNSET
    endsAt: str | UnsetType = UNSET
    generatorURL: str | UnsetType = UNSET
    fingerprint: str | UnsetType = UNSET
    updatedAt: str | UnsetType = UNSET
    receivers: list[Receiver] | UnsetType = UNSET
    status: AlertStatus | UnsetType = UNSET


# --- value tables ------------------------------------------------------------------------------------------

SEVERITY = Scale(
    ("critical", "critical", "error", "error", "warning", "warning", "info", "info"),
    {"critical": 1, "error": 3, "warning": 4, "info": 6},
)
ALSO = {"page": "critical"}
"""Words for a severity that are not in the scale, but that many rules are written with."""


def fingerprint(labels: Map[str, str]) -> str:
    """The fingerprint of a label set: 64 bits of FNV-1a over the sorted pairs, each name and value followed by 0xFF."""
    return _fingerprint(tuple(sorted(labels.items())))


@functools.lru_cache(maxsize=1024)
def _fingerprint(pairs: tuple[tuple[str, str], ...]) -> str:
    """The same, cached: it is needed several times for an alert, and takes a byte at a time."""
    found = 0xCBF29CE484222325
    for byte in b"".join(text.encode("utf8", "surrogatepass") + b"\xff" for pair in pairs for text in pair):
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def without_blank(labels: Map[str, str]) -> dict[str, str]:
    """Labels without those that have an empty value, which count as absent."""
    return {name: value for name, value in labels.items() if value != ""}


def as_text(labels: Map[str, str]) -> str:
    """Labels as people write them: `{alertname="HighLoad", cluster="eu"}`."""
    return "{" + ", ".join(f"{name}={msgspec.json.encode(labels[name]).decode()}" for name in sorted(labels)) + "}"


def named_by(labels: Map[str, str]) -> str:
    """The summary of an alert that has nothing but its labels."""
    return labels.get("alertname") or as_text(labels)


def read_moment(value: Any) -> datetime | None:
    """Returns a time, or None where there is none, for which the year 1 stands too."""
    return None if not value or str(value).startswith("0001-") else read_time(value)


# --- labels and annotations --------------------------------------------------------------------------------


def _read_severity(scale: Scale, labels: Map[str, str]) -> Any:
    """The severity in the label `severity`; an unknown word stays a label and nothing else."""
    word = labels.get("severity", "")
    known = next((one for one in scale.codes if str(one).lower() == word.lower()), ALSO.get(word.lower()))
    return scale.codes.get(known, UNSET) if known is not None else UNSET


def reader(scale: Scale) -> Any:
    """Returns the read function of a row: from labels and annotations to labels, severity, key, summary, details and
    custom."""

    def read(labels: Any, annotations: Any) -> tuple[Any, ...]:
        said = without_blank(labels or {})
        key = said.pop(KEY, None) or (fingerprint(said) if said else UNSET)
        notes = dict(annotations or {})
        summary = notes.pop("summary", "") or notes.pop("message", "") or named_by(said)
        details = notes.pop("description", UNSET)
        return said, _read_severity(scale, said), key, summary, details, notes or UNSET

    return read


def writer(scale: Scale) -> Any:
    """Returns the write function of that row."""

    def write(
        writing: Writing, labels: Any, severity: Any, key: Any, summary: Any, details: Any, custom: Any
    ) -> tuple[Any, Any]:
        said = _labels(writing, labels, summary, key)
        if severity not in (UNSET, None) and _read_severity(scale, said) not in scale.same_as(severity):
            said["severity"] = str(scale.write(severity))
        own = None if _is_foreign(writing) else fingerprint(said)
        if key not in (UNSET, None, own):
            said[KEY] = key
        name_of = fitted_name if _is_foreign(writing) else str
        notes = {name_of(name): _note(value) for name, value in (custom or {}).items() if value is not None}
        own_notes = (("summary", summary or None), ("description", details))
        notes |= {name: text for name, text in own_notes if text not in (UNSET, None)}
        return said, notes or UNSET

    return write


def _labels(writing: Writing, labels: Any, summary: Any, key: Any) -> dict[str, str]:
    """Returns the labels with an `alertname`, under names that every release takes."""
    held = without_blank(labels or {})
    is_foreign = _is_foreign(writing)
    if is_foreign:
        held = {fitted_name(name): value for name, value in held.items()}
    if "alertname" not in held and (is_foreign or not held):
        name = summary or " ".join(part for part in (writing.origin, key or "") if part)
        held = {"alertname": str(name) or "alert", **held}
    return held


def _is_foreign(writing: Writing) -> bool:
    return writing.origin not in ("", *LABELLED)


def fitted_name(name: str) -> str:
    """Returns a label's or annotation's name in characters that every release takes: older ones refuse the whole alert
    for another."""
    plain = _ODD.sub("_", name)
    return plain if _LABEL.fullmatch(plain) else f"_{plain}"


def _note(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def nameless(flat: Flat, writing: Writing) -> tuple[Any, ...]:
    """The fallback for an alert without labels: its headline as `alertname`."""
    return ({"alertname": str(headline(flat, writing)[0])}, UNSET)


def said_by(scale: Scale) -> Row:
    """Returns the row of labels and annotations, for a scale of severities."""
    return joint(
        ["labels", "annotations"],
        ["labels", "severity", "dedup_key", "summary", "details", "custom"],
        read=reader(scale),
        write=writer(scale),
        required=True,
        fallback=nameless,
        scale=scale,
        rescale=said_by,
        homes={
            "severity": ("labels.severity",),
            "dedup_key": (f"labels.{KEY}",),
            "summary": ("annotations.summary", "annotations.message", "labels.alertname"),
            "details": ("annotations.description",),
        },
        why="labels identify the alert; annotations are texts only, under plain names",
    )


# --- times and links ---------------------------------------------------------------------------------------


def _read_start(value: Any) -> tuple[Any, Any]:
    read_moment(value)
    return (UNSET if str(value).startswith("0001-") else value), UNSET


def _write_start(writing: Writing, own: Any, created: Any) -> tuple[Any]:
    if own not in (UNSET, None) or writing.origin in LABELLED:
        return (own,)
    return (iso(created) if created not in (UNSET, None) else UNSET,)


STARTED = joint(["startsAt"], [STARTS, "created_at"], read=_read_start, write=_write_start)
"""When the alert began, spelled as its sender does."""


def _read_source(url: Any) -> tuple[Any, Any]:
    """Reads a link, unless it leads nowhere: rulers that were not told their own address give a path alone (Loki's)."""
    if not url:
        return UNSET, UNSET
    return ((Link(href=url),), UNSET) if is_address(url) else (UNSET, url)


def _write_source(writing: Writing, links: Any, own: Any) -> tuple[Any]:
    found = next((link.href for link in links or () if is_uri(link.href)), UNSET)
    return (found if found is not UNSET or own is None else own,)


SOURCE = joint(
    ["generatorURL"],
    ["links", PLACE],
    read=_read_source,
    write=_write_source,
    why="one link, to the source of the alert",
)


def is_uri(text: str) -> bool:
    """Whether the vendor takes this for a URI, as Go's `url.ParseRequestURI` does: a path alone is one, and blanks may
    be in it, but no incomplete escape."""
    return bool(_URI.fullmatch(text)) and not _CONTROL.search(text)


def is_address(text: str) -> bool:
    """Whether a link to this leads anywhere: it has a scheme."""
    return bool(_ADDRESS.match(text))


def _read_state(state: str) -> str:
    return "acknowledged" if state == "suppressed" else "firing"


def _write_state(status: str) -> str:
    return "suppressed" if status == "acknowledged" else "active"


# --- rows --------------------------------------------------------------------------------------------------

ALERT = Mapping(
    NAME,
    "occurrence",
    Alert,
    rows=(
        said_by(SEVERITY),
        STARTED,
        row("endsAt", "ends_at", TIME, side="reply"),
        SOURCE,
        Dropped("fingerprint", why="computed from the labels", control=True),
        row("updatedAt", "updated_at", TIME, side="reply"),
        Dropped("receivers", why="recipients are decided by the gateway's routes", control=True),
        row("status.state", "status", Pair(_read_state, _write_state), side="reply"),
        Dropped("status.silencedBy", why="depends on the vendor's own configuration", control=True),
        Dropped("status.inhibitedBy", why="depends on the vendor's own configuration", control=True),
        Dropped("status.mutedBy", why="depends on the vendor's own configuration", control=True),
    ),
    container="annotations",
    free="custom",
    details="annotations.description",
    holds_text=True,
)
