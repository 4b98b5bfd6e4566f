"""Grafana's alert: its wire structs, and the rows between them and the canonical alert, shared with Alertmanager's
wherever both mean the same.

Source: https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/.
Its fingerprint is computed before private labels (`__x__`) are removed, so it is taken as it is given. It must not know
who calls, nor what is sent when.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Map
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from gateway.canonical import Image, Link
from gateway.mapping.rows import Dropped, Extension, Row, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import Pair, Scale
from mappings.alertmanager.alert import (
    KEY,
    LABELLED,
    PLACE,
    SEVERITY,
    STARTED,
    fingerprint,
    is_address,
    nameless,
    reader,
    writer,
)
from mappings.alertmanager.webhook import GROUP, KEPT

NAME = "grafana"
BESIDES = {
    **dict.fromkeys(("title", "message", "state"), "describes the group, not this alert"),
    "orgId": "the sender's organisation",
    "appVersion": "the sender's version",
}
"""The fields of Grafana's notification beside its alerts that Alertmanager's does not have."""
_MARK = re.compile(r"[0-9a-f]{16}")
_PRIVATE = re.compile(r"__.*__")

# --- wire structs ------------------------------------------------------------------------------------------


class Alert(Struct, kw_only=True):
    """One alert of the group."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] | UnsetType = UNSET
    startsAt: str | UnsetType = UNSET
    endsAt: str | UnsetType = UNSET
    generatorURL: str | UnsetType = UNSET
    fingerprint: str | UnsetType = UNSET
    silenceURL: str | UnsetType = UNSET
    dashboardURL: str | UnsetType = UNSET
    panelURL: str | UnsetType = UNSET
    values: dict[str, Any] | UnsetType = UNSET
    valueString: str | UnsetType = UNSET
    imageURL: str | UnsetType = UNSET
    embeddedImage: str | UnsetType = UNSET
    ruleUID: str | UnsetType = UNSET
    orgId: int | UnsetType = UNSET
    enrichments: Any = UNSET


class Kept(Alert, kw_only=True):
    """The same as kept among a caller's own words: with what its notification said besides, for upstreams of the same
    dialect."""

    group: dict[str, Any] | UnsetType = field(default=UNSET, name=GROUP)


class Notification(Struct, kw_only=True):
    """What a contact point posts: a group of alerts, firing and resolved ones together."""

    alerts: list[Alert]
    version: Literal["1"] | UnsetType = UNSET
    groupKey: str | UnsetType = UNSET
    truncatedAlerts: int | UnsetType = UNSET
    status: Literal["firing", "resolved"] | UnsetType = UNSET
    state: Literal["alerting", "ok"] | UnsetType = UNSET
    receiver: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    orgId: int | UnsetType = UNSET
    groupLabels: dict[str, str] | UnsetType = UNSET
    commonLabels: dict[str, str] | UnsetType = UNSET
    commonAnnotations: dict[str, str] | UnsetType = UNSET
    externalURL: str | UnsetType = UNSET
    appVersion: str | UnsetType = UNSET


# --- labels, annotations and what tells alerts apart -------------------------------------------------------


def without_private(named: Map[str, Any]) -> dict[str, Any]:
    """Returns labels or annotations without the vendor's private ones: `__x__`."""
    return {name: value for name, value in named.items() if not _PRIVATE.fullmatch(name)}


def _reader(scale: Scale) -> Any:
    base = reader(scale)

    def read(labels: Any, annotations: Any, given: Any) -> tuple[Any, ...]:
        public = without_private(labels or {})
        said, severity, key, *rest = base(public, without_private(annotations or {}))
        if KEY not in public and given not in (UNSET, ""):
            key = given
        return said, severity, key, *rest

    return read


def _writer(scale: Scale) -> Any:
    base = writer(scale)

    def write(
        writing: Writing, labels: Any, severity: Any, key: Any, summary: Any, details: Any, custom: Any
    ) -> tuple[Any, Any, Any]:
        is_mark = writing.origin in ("", *LABELLED) and isinstance(key, str) and bool(_MARK.fullmatch(key))
        said, notes = base(writing, labels, severity, UNSET if is_mark else key, summary, details, custom)
        return said, notes, key if is_mark else fingerprint(said)

    return write


def _said_by(scale: Scale) -> Row:
    """Returns the row of labels, annotations and fingerprint, for a scale of severities."""
    return joint(
        ["labels", "annotations", "fingerprint"],
        ["labels", "severity", "dedup_key", "summary", "details", "custom"],
        read=_reader(scale),
        write=_writer(scale),
        required=True,
        fallback=nameless,
        scale=scale,
        rescale=_said_by,
        homes={
            "severity": ("labels.severity",),
            "dedup_key": (f"labels.{KEY}", "fingerprint"),
            "summary": ("annotations.summary", "annotations.message", "labels.alertname"),
            "details": ("annotations.description",),
            "custom": ("annotations",),
        },
        why="labels and annotations are texts only, under plain names",
    )


def _unless_blank(text: Any) -> Any:
    return text if text != "" else UNSET


BLANK = Pair(_unless_blank, str)
"""A text that the vendor leaves empty where there is nothing to say."""

# --- links and images --------------------------------------------------------------------------------------

TEXTS = ("", "dashboard", "panel", "silence")
"""The text of a link, by the field that it stands in; the first, without one, is where the alert came from."""


def _read_links(source: Any, *urls: Any) -> tuple[Any, Any]:
    """Reads the links; an alert of another's may have only a path for where it came from, as in `SOURCE`."""
    leads = source in (UNSET, "") or is_address(source)
    said = [(url, text) for url, text in zip((source, *urls), TEXTS, strict=True) if url not in (UNSET, "")]
    found = tuple(Link(href=url, text=text or UNSET) for url, text in said if text or leads)
    return found or UNSET, UNSET if leads else source


def _write_links(writing: Writing, links: Any, own: Any) -> tuple[Any, ...]:
    named = {link.text: link.href for link in reversed(links or ()) if link.text in TEXTS[1:]}
    others = (link.href for link in links or () if link.text not in TEXTS[1:])
    other = next(filter(is_address, others), UNSET)
    return (other if other is not UNSET or own is None else own, *(named.get(text, UNSET) for text in TEXTS[1:]))


def _is_address(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _read_image(url: str) -> tuple[Any, Any]:
    return ((Image(src=url),), UNSET) if _is_address(url) else (UNSET, url)


def _write_image(writing: Writing, images: Any, own: Any) -> tuple[Any]:
    """Writes the first image that has an address; one without would be read as the vendor's own word."""
    shown = next((image.src for image in images or () if _is_address(image.src)), UNSET)
    return (shown if shown is not UNSET or own is None else own,)


# --- rows --------------------------------------------------------------------------------------------------

ALERT = Mapping(
    NAME,
    "occurrence",
    Kept,
    rows=(
        Dropped("status", why="selects the operation; not part of the alert", control=True),
        _said_by(SEVERITY),
        STARTED,
        Dropped("endsAt", why="only says whether the alert has ended"),
        joint(
            ["generatorURL", "dashboardURL", "panelURL", "silenceURL"],
            ["links", PLACE],
            read=_read_links,
            write=_write_links,
            why="one link of each kind, and one other",
        ),
        Extension("values"),
        row("valueString", f"extensions.{NAME}.valueString", BLANK),
        joint(
            ["imageURL"],
            ["images", f"extensions.{NAME}.imageURL"],
            read=_read_image,
            write=_write_image,
            why="one image",
        ),
        Extension("embeddedImage"),
        Extension("ruleUID"),
        Extension("orgId"),
        Extension("enrichments"),
        KEPT,
    ),
    container="annotations",
    free="custom",
    details="annotations.description",
    holds_text=True,
)
