"""An IBM Cloud Monitoring alert: its wire structs, its value tables, and the rows to the canonical alert.

Source: https://cloud.ibm.com/docs/monitoring?topic=monitoring-alert_api, sections "Alerts schema" and "Body
parameters". It must not know how it is sent or received.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.canonical import Channel, Flat
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Extension, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import EXACT, MICROSECONDS, MILLIS, MINUTES, Pair, Scale

PAGE = "https://cloud.ibm.com/docs/monitoring?topic=monitoring-alert_api"
NAME = "ibm_monitoring"
MINUTE_US = 60_000_000
LONGEST_US = EXACT // MINUTE_US * MINUTE_US
Whole = Annotated[int, Meta(ge=-EXACT, le=EXACT)]
Filled = Annotated[str, Meta(min_length=1)]

# --- wire structs ------------------------------------------------------------------------------------------


class SegmentCondition(Struct, kw_only=True):
    """When a segmented alert fires. The page's heading calls it a string; its samples and clients use the object."""

    type: Literal["ANY", "ALL"]


class Alert(Struct, kw_only=True):
    """The alert as created, updated and shown. `timespan` is in microseconds, `createdOn` and `modifiedOn` in ms."""

    type: Filled
    name: Filled
    id: int | str | UnsetType | None = UNSET
    version: Whole | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    filter: str | UnsetType | None = UNSET
    severity: Annotated[int, Meta(ge=0, le=7)] | UnsetType | None = UNSET
    severityLabel: Literal["HIGH", "MEDIUM", "LOW", "INFO"] | UnsetType | None = UNSET
    timespan: Annotated[int, Meta(ge=0, le=LONGEST_US)] | UnsetType | None = UNSET
    condition: str | UnsetType | None = UNSET
    segmentBy: list[str] | UnsetType | None = UNSET
    segmentCondition: SegmentCondition | Literal["ANY", "ALL"] | UnsetType | None = UNSET
    notificationChannelIds: list[Whole | str] | UnsetType | None = UNSET
    reNotify: bool | UnsetType | None = UNSET
    reNotifyMinutes: Whole | UnsetType | None = UNSET
    teamId: Whole | str | UnsetType | None = UNSET
    annotations: dict[str, Any] | UnsetType | None = UNSET
    autoCreated: bool | UnsetType | None = UNSET
    rateOfChange: bool | UnsetType | None = UNSET
    notificationCount: int | UnsetType | None = UNSET
    createdOn: int | UnsetType | None = UNSET
    modifiedOn: int | UnsetType | None = UNSET
    customerId: int | str | UnsetType | None = UNSET


class Envelope(Struct, kw_only=True):
    """An alert as requests and answers have it, both ways."""

    alert: Alert


class Alerts(Struct, kw_only=True):
    """The answer to a list: flat, as the service's own conventions have it."""

    alerts: list[Alert]


class Channels(Struct, kw_only=True):
    """The notification channels that alerts can name."""

    notificationChannels: list[dict[str, Any]]


class OneChannel(Struct, kw_only=True):
    """One notification channel in its envelope."""

    notificationChannel: dict[str, Any]


# --- value tables ------------------------------------------------------------------------------------------

LABEL = Scale(
    ("HIGH", "HIGH", "MEDIUM", "MEDIUM", "LOW", "LOW", "INFO", "INFO"), {"HIGH": 1, "MEDIUM": 3, "LOW": 5, "INFO": 6}
)
CHANNEL_TYPES = {
    "EMAIL": "email",
    "PAGER_DUTY": "pagerduty",
    "WEBHOOK": "webhook",
    "VICTOROPS": "victorops",
    "SLACK": "slack",
    "SNS": "sns",
    "OPSGENIE": "opsgenie",
}
CHANNEL_WORDS = {kind: word for word, kind in CHANNEL_TYPES.items()}
TEAM = Pair(str, lambda team: int(team) if re.fullmatch(r"[0-9]{1,16}", team) else team)


def _read_quantifier(value: Any) -> str:
    return str(value["type"] if isinstance(value, dict) else value).lower()


QUANTIFIER = Pair(_read_quantifier, lambda quantifier: {"type": quantifier.upper()})
GROUPS = Pair(tuple, list)


def whole_minutes(value: Any) -> Any:
    """Returns a timespan that the service takes: rounded up to a whole minute, at least one, cut to the longest."""
    return math.ceil(max(1, min(value, LONGEST_US)) / MINUTE_US) * MINUTE_US if value is not None else None


def _whole(value: Any) -> Any:
    return math.ceil(max(-EXACT, min(value, EXACT))) if value is not None else None


_NUMBER = re.compile(r"-?[0-9]{1,16}")


def _read_channels(listed: list[int | str] | None) -> tuple[Any]:
    return (None if listed is None else tuple(_channel(item) for item in listed),)


def _channel(item: int | str) -> Channel:
    if isinstance(item, int) or _NUMBER.fullmatch(item):
        return Channel(id=str(item), dialect=NAME)
    if item not in CHANNEL_TYPES:
        raise ValueError(f"{item!r} is neither an id nor one of {', '.join(CHANNEL_TYPES)}")
    return Channel(kind=CHANNEL_TYPES[item], dialect=NAME)


def _write_channels(writing: Writing, channels: tuple[Channel, ...] | None) -> tuple[Any]:
    if channels is None:
        return (None,)
    own = [channel for channel in channels if channel.dialect == NAME]
    written = [
        int(channel.id) if channel.id and _NUMBER.fullmatch(channel.id) else CHANNEL_WORDS.get(channel.kind or "")
        for channel in own
    ]
    return ([item for item in written if item is not None] if own or not channels else UNSET,)


_COMPARISON = re.compile(r"^.*?(<=|>=|==|!=|=|<|>)\s*(-?\d+(?:\.\d+)?)\s*$", re.DOTALL)


def _read_condition(expression: str | None) -> tuple[Any, ...]:
    """Reads the expression as it is, with the operator and the threshold at its end, if it has them."""
    found = _COMPARISON.match(expression or "")
    if not found:
        return expression, None, None, UNSET
    number = float(found[2])
    if not abs(number) <= EXACT:  # it stays in the expression; as a number of its own few could read it
        return expression, None, None, UNSET
    return expression, found[1], int(number) if number.is_integer() else number, UNSET


def _write_condition(writing: Writing, expression: Any, operator: Any, threshold: Any, category: Any) -> tuple[Any]:
    """Writes the expression, or one made of the metric that the upstream's configuration names for the category."""
    if expression is not UNSET:
        return (expression,)
    metric = writing.metrics.get(category) if category else None
    if not metric or not operator or threshold in (UNSET, None):
        return (UNSET,)
    return (f"{metric if '(' in metric else f'avg(avg({metric}))'} {operator} {threshold}",)


def _manual(flat: Flat, writing: Writing) -> tuple[str]:
    return ("MANUAL",)


def _one_minute(flat: Flat, writing: Writing) -> tuple[int]:
    return (MINUTE_US,)


def _any(flat: Flat, writing: Writing) -> tuple[dict[str, str]]:
    return ({"type": "ANY"},)


# --- rows --------------------------------------------------------------------------------------------------

RULE = Mapping(
    NAME,
    "rule",
    Alert,
    rows=(
        Dropped("id", why="identifies the alert; not part of its content", control=True),
        Dropped("version", why="selects the version; not part of the alert's content", control=True),
        row("type", "condition.method", required=True, fallback=_manual, why="the kind of rule with a plain threshold"),
        row("name", "summary", required=True, fallback=headline, why="taken from details, category or key"),
        row("description", "details"),
        row("enabled", "enabled"),
        row("filter", "condition.scope"),
        row("severity", "severity"),
        row("severityLabel", "severity", LABEL, derived=True),
        row(
            "timespan",
            "condition.window",
            MICROSECONDS,
            required=True,
            fallback=_one_minute,
            fit=whole_minutes,
            why="whole minutes, at least one",
        ),
        joint(
            ["condition"],
            ["condition.expression", "condition.operator", "condition.threshold", "category"],
            read=_read_condition,
            write=_write_condition,
            required=True,
        ),
        row("segmentBy", "condition.group_by", GROUPS),
        row("segmentCondition", "condition.quantifier", QUANTIFIER, required=True, fallback=_any, why="ANY by default"),
        joint(["notificationChannelIds"], ["channels"], read=_read_channels, write=_write_channels),
        row("reNotify", "renotify.enabled"),
        row("reNotifyMinutes", "renotify.interval", MINUTES, fit=_whole, why="whole minutes"),
        row("teamId", "team", TEAM),
        Extension("annotations"),
        Extension("autoCreated", side="reply"),
        Extension("rateOfChange", side="reply"),
        Extension("notificationCount", side="reply"),
        row("createdOn", "created_at", MILLIS, side="reply"),
        row("modifiedOn", "updated_at", MILLIS, side="reply"),
        Dropped("customerId", why="names the vendor's account, not the alert"),
    ),
    container="annotations",
    implied={"enabled": True, "renotify.enabled": False},
)
