"""An ilert event and alert on the wire, and the canonical alert: structs, value tables and rows.

Source: https://docs.ilert.com/developer-docs/rest-api/client-examples/creating-alerts-through-events and
https://api.ilert.com/api-docs/. It must not know who calls, nor what is sent when.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.canonical import Image, Link, Operation
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Extension, Row, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import TIME, Pair, Scale, Words, each

NAME = "ilert"

# --- wire structs ------------------------------------------------------------------------------------------


class ImageLink(Struct, kw_only=True):
    """An image shown beside the alert."""

    src: str
    href: str | UnsetType | None = UNSET
    alt: str | UnsetType | None = UNSET


class WebLink(Struct, kw_only=True):
    """A link into another tool."""

    href: str
    text: str | UnsetType | None = UNSET


class Said(Struct, kw_only=True):
    """The fields that an event and an alert share."""

    summary: str | UnsetType = UNSET
    details: str | UnsetType = UNSET
    alertKey: str | UnsetType = UNSET
    priority: str | UnsetType = UNSET
    severity: Annotated[int, Meta(ge=1, le=5)] | UnsetType = UNSET
    images: list[ImageLink] | UnsetType = UNSET
    links: list[WebLink] | UnsetType = UNSET
    customDetails: dict[str, Any] | UnsetType = UNSET
    routingKey: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class Event(Said, kw_only=True):
    """One event, as posted. `integrationKey` is the newer name of `apiKey`, `incidentKey` the older of `alertKey`."""

    eventType: str
    apiKey: str | UnsetType = UNSET
    integrationKey: str | UnsetType = UNSET
    services: list[dict[str, Any]] | UnsetType = UNSET
    comments: list[dict[str, Any]] | UnsetType = UNSET
    logs: list[dict[str, Any]] | UnsetType = UNSET


class Alert(Said, kw_only=True):
    """An alert, as the synchronous API shows it."""

    id: int | UnsetType = UNSET
    status: Literal["PENDING", "ACCEPTED", "RESOLVED"] | UnsetType = UNSET
    reportTime: str | UnsetType = UNSET
    resolvedOn: str | UnsetType | None = UNSET
    mergeState: Literal["NONE", "MAIN", "MERGED"] | UnsetType = UNSET


class Raised(Struct, kw_only=True):
    """An alert that a person raises by hand, not a monitoring tool by an event."""

    summary: Annotated[str, Meta(min_length=1)]
    alertSource: dict[str, Any] | UnsetType = UNSET
    details: str | UnsetType = UNSET
    priority: str | UnsetType = UNSET
    images: list[ImageLink] | UnsetType = UNSET
    links: list[WebLink] | UnsetType = UNSET


class Counted(Struct, kw_only=True):
    """The number of alerts."""

    count: int


class Taken(Struct, kw_only=True):
    """The answer to an event: accepted, not yet processed. Clients require an object, though it is empty."""


# --- value tables ------------------------------------------------------------------------------------------

SEVERITY = Scale((1, 1, 2, 2, 3, 4, 5, 5), {1: 1, 2: 3, 3: 4, 4: 5, 5: 6})
PRIORITY = Words({"HIGH": "high", "LOW": "low"}, fold=True)
PRIORITY_AS_SEVERITY = Scale(("HIGH",) * 5 + ("LOW",) * 3, {"HIGH": 1, "LOW": 5}, fold=True)
STATUS = Words({"PENDING": "firing", "ACCEPTED": "acknowledged", "RESOLVED": "resolved"}, fold=True)
KEY = Pair(str.strip, str)
EVENTS = {
    "ALERT": Operation.CREATE,
    "ACCEPT": Operation.ACKNOWLEDGE,
    "RESOLVE": Operation.RESOLVE,
    "COMMENT": Operation.COMMENT,
}

# --- rows --------------------------------------------------------------------------------------------------

SHARED: tuple[Row, ...] = (
    row("summary", "summary", required=True, fallback=headline, why="taken from details, category or key"),
    row("details", "details"),
    row("alertKey", "dedup_key", KEY),
    row("priority", "urgency", PRIORITY),
    row("priority", "severity", PRIORITY_AS_SEVERITY, derived=True),
    row("severity", "severity", SEVERITY),
    row("images", "images", each(Image)),
    row("links", "links", each(Link)),
    row("customDetails", "custom"),
    row("routingKey", "routing_key"),
    row("labels", "labels"),
)
EVENT = Mapping(
    NAME,
    "occurrence",
    Event,
    rows=(
        Dropped("apiKey", why="a credential", control=True),
        Dropped("integrationKey", why="a credential", control=True),
        Dropped("eventType", why="selects the operation; not part of the alert", control=True),
        *SHARED,
        Extension("services"),
        Extension("comments"),
        Extension("logs"),
    ),
    container="customDetails",
    details="details",
)
ALERT = Mapping(
    NAME,
    "occurrence",
    Alert,
    rows=(
        Dropped("id", why="identifies the alert; not part of its content", control=True),
        *SHARED,
        row("status", "status", STATUS, side="reply"),
        row("reportTime", "created_at", TIME, side="reply"),
        row("resolvedOn", "resolved_at", TIME, side="reply"),
        Dropped("mergeState", why="the gateway merges no alerts"),
    ),
)
