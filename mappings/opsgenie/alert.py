"""Opsgenie's alert: its wire structs, its value tables, and the rows between them and the canonical alert.

Sources: https://docs.opsgenie.com/docs/alert-api and, for limits, https://docs.opsgenie.com/docs/alerts-and-alert-fields.
It must not know who calls, nor what is sent when.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Extension, Row, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import TIME, Pair, Scale, cut_key

NAME = "opsgenie"
TAGS, RESPONDERS = f"extensions.{NAME}.tags", f"extensions.{NAME}.responders"
VISIBLE_TO = f"extensions.{NAME}.visibleTo"
LONGEST_KEY, LONGEST_MESSAGE, LONGEST_DESCRIPTION, LONGEST_NOTE = 512, 130, 15_000, 25_000
MOST_DETAILS = 8_000
"""Characters that all keys and values of the details may have together."""
CUT = "…"

# --- wire structs ------------------------------------------------------------------------------------------


class AlertFields(Struct, kw_only=True):
    """An alert as created, with the fields that the service adds: those that both of the vendor's APIs have."""

    message: Annotated[str, Meta(min_length=1)]
    alias: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    responders: list[dict[str, Any]] | UnsetType = UNSET
    visibleTo: list[dict[str, Any]] | UnsetType = UNSET
    actions: list[str] | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    entity: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    priority: Literal["P1", "P2", "P3", "P4", "P5"] | UnsetType = UNSET
    user: str | UnsetType = UNSET
    note: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    tinyId: str | UnsetType = UNSET
    status: Literal["open", "closed"] | UnsetType = UNSET
    acknowledged: bool | UnsetType = UNSET
    seen: bool | UnsetType = UNSET
    snoozed: bool | UnsetType = UNSET
    snoozedUntil: str | UnsetType = UNSET
    count: int | UnsetType = UNSET
    lastOccurredAt: str | UnsetType = UNSET
    createdAt: str | UnsetType = UNSET
    updatedAt: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET


class Alert(AlertFields, kw_only=True):
    """An alert of this API."""

    details: dict[str, Any] | UnsetType = UNSET
    isSeen: bool | UnsetType = UNSET
    ownerTeamId: str | UnsetType = UNSET
    integration: dict[str, Any] | UnsetType = UNSET
    report: dict[str, Any] | UnsetType = UNSET


# --- value tables ------------------------------------------------------------------------------------------

PRIORITY = Scale(("P1", "P1", "P2", "P2", "P3", "P4", "P5", "P5"), {"P1": 1, "P2": 3, "P3": 4, "P4": 5, "P5": 6})
USUAL_PRIORITY = "P3"


def fitted_key(key: str) -> str:
    """Returns an alias that Opsgenie accepts: a longer one is cut, and so is one that cannot stand in a path, where it
    would be a step (`.`, `..`)."""
    return key if len(key) <= LONGEST_KEY and key not in (".", "..") else cut_key(key, LONGEST_KEY)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _texts(held: dict[str, Any]) -> dict[str, str]:
    """Returns details as texts, all that they may be; any other value becomes its JSON."""
    return {name: _as_text(value) for name, value in held.items()}


TEXTS = Pair(_texts, _texts)


def fitted_details(held: Any) -> Any:
    """Returns details within the limit: the longest values are cut first, then what comes last is left out."""
    if not isinstance(held, dict):
        return held
    texts = _texts(held)
    excess = sum(len(name) + len(text) for name, text in texts.items()) - MOST_DETAILS
    for name in sorted(texts, key=lambda name: len(texts[name]), reverse=True):
        whole = len(texts[name])
        if excess <= 0 or whole <= len(CUT):
            break
        texts[name] = texts[name][: max(0, whole - excess - len(CUT))] + CUT
        excess -= whole - len(texts[name])
    while excess > 0:
        excess -= sum(map(len, texts.popitem()))
    return texts


def _short(most: int, longest: int) -> Any:
    """Returns a fit that keeps at most `most` texts of at most `longest` characters each."""

    def fit(listed: Any) -> Any:
        return [text[:longest] if isinstance(text, str) else text for text in listed[:most]]

    return fit


def _read_status(status: Any, acknowledged: Any) -> tuple[Any, Any]:
    if status is UNSET:
        return UNSET, UNSET
    if status == "closed":
        return "resolved", acknowledged
    return ("acknowledged" if acknowledged is True else "firing"), UNSET


def _write_status(writing: Writing, status: Any, acknowledged: Any) -> tuple[Any, Any]:
    if status in (UNSET, None):
        return UNSET, UNSET
    if status == "resolved":
        return "closed", acknowledged if isinstance(acknowledged, bool) else False
    return "open", status == "acknowledged"


# --- rows --------------------------------------------------------------------------------------------------


def rows(details: str, responders: Row, visible_to: Row) -> tuple[Row | Extension | Dropped, ...]:
    """Returns the rows that both of the vendor's APIs share: `details` is the field of the free-form texts; the other
    two rows say how people are named."""
    return (
        Dropped("id", why="identifies the alert; not part of its content", control=True),
        row(
            "message",
            "summary",
            required=True,
            fallback=headline,
            limit=LONGEST_MESSAGE,
            why="at most 130 characters; where absent, taken from details, category or key",
        ),
        row("alias", "dedup_key", fit=fitted_key),
        row("description", "details", limit=LONGEST_DESCRIPTION, why="at most 15,000 characters"),
        responders,
        visible_to,
        row("actions", f"extensions.{NAME}.actions", fit=_short(10, 50), why="at most 10 of 50 characters"),
        row("tags", TAGS, fit=_short(20, 50), why="at most 20 of 50 characters"),
        row(
            details,
            "custom",
            TEXTS,
            fit=fitted_details,
            why="texts only, at most 8,000 characters; other values as JSON",
        ),
        row("entity", "resource", limit=512, why="at most 512 characters"),
        row("source", "source", limit=100, why="at most 100 characters"),
        row("priority", "severity", PRIORITY, why="five priorities"),
        row("user", f"extensions.{NAME}.user", side="request", limit=100, why="at most 100 characters"),
        row("note", f"extensions.{NAME}.note", side="request", limit=LONGEST_NOTE, why="at most 25,000 characters"),
        joint(
            ["status", "acknowledged"],
            ["status", f"extensions.{NAME}.acknowledged"],
            read=_read_status,
            write=_write_status,
            side="reply",
        ),
        row("snoozedUntil", "snoozed_until", TIME, side="reply"),
        row("count", "occurrences", side="reply"),
        row("lastOccurredAt", "occurred_at", TIME, side="reply"),
        row("createdAt", "created_at", TIME, side="reply"),
        row("updatedAt", "updated_at", TIME, side="reply"),
        row("owner", "assignee", side="reply"),
        Extension("tinyId", side="reply"),
        Extension("seen", side="reply"),
        Extension("snoozed", side="reply"),
    )


ALERT = Mapping(
    NAME,
    "occurrence",
    Alert,
    rows=(
        *rows("details", row("responders", RESPONDERS), row("visibleTo", VISIBLE_TO, side="request")),
        Extension("isSeen", side="reply"),
        Extension("ownerTeamId", side="reply"),
        Extension("integration", side="reply"),
        Extension("report", side="reply"),
    ),
    container="details",
    details="description",
    holds_text=True,
    room=MOST_DETAILS,
)
