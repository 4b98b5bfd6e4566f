"""The canonical alert: the one form every vendor's alert is turned into, and every request is built from.

It must not know any vendor, nor HTTP, nor the store. Times are UTC; durations are seconds. `UNSET`, `None`
and a value are three things: left out, explicitly cleared, and said.

A canonical *path* names a leaf of the alert, such as ``condition.window`` or ``extensions.acme.colour``. An alert
taken apart by path is a *flat* alert (`flatten`, `unflatten`): it is what mappings, patches and reports work on.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import UNSET, Meta, Struct, UnsetType, convert, to_builtins

Severity = Annotated[int, Meta(ge=0, le=7, description="RFC 5424 code, 0 is the worst")]


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of the canonical alert; a field that is unset is left out of its JSON."""


class Trigger(Part, frozen=True):
    """One thing that makes a rule fire: a kind (a word, or the number a vendor gives it) and its value."""

    kind: int | str | UnsetType | None = UNSET
    value: str | UnsetType | None = UNSET


class Condition(Part, frozen=True):
    """When a rule fires. `expression` is the vendor's own and opaque; `window` is in seconds."""

    method: str | UnsetType | None = UNSET
    """How the rule watches, in its vendor's word."""
    expression: str | UnsetType | None = UNSET
    """The vendor's own expression; opaque to the gateway."""
    operator: str | UnsetType | None = UNSET
    """How the measured value is compared with the threshold."""
    threshold: int | float | UnsetType | None = UNSET
    """The value at which it fires."""
    window: int | float | UnsetType | None = UNSET
    """How many seconds it must hold."""
    scope: str | UnsetType | None = UNSET
    """Which sources it watches."""
    group_by: tuple[str, ...] | UnsetType | None = UNSET
    """The labels by which sources are grouped."""
    quantifier: Literal["any", "all"] | UnsetType | None = UNSET
    """Whether it fires for any source that meets it, or only if all do."""
    triggers: tuple[Trigger, ...] | UnsetType | None = UNSET
    """The things that make it fire: `kind` and `value`."""


class Channel(Part, frozen=True):
    """Where notifications go. An `id` means something only in the dialect it names."""

    kind: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    dialect: str | UnsetType = UNSET


class Renotify(Part, frozen=True):
    """Whether an unresolved alert is notified again, and after how many seconds."""

    enabled: bool | UnsetType | None = UNSET
    """Whether notifications are repeated while it lasts."""
    interval: int | float | UnsetType | None = UNSET
    """The seconds between them."""


class Link(Part, frozen=True):
    """A link a responder can follow. The gateway never fetches it."""

    href: str
    text: str | UnsetType | None = UNSET


class Image(Part, frozen=True):
    """An image a responder can look at. The gateway never fetches it."""

    src: str
    href: str | UnsetType | None = UNSET
    alt: str | UnsetType | None = UNSET


class Notification(Part, frozen=True):
    """One notification that was sent: over what, when, and with what outcome."""

    channel: str
    sent_at: datetime | UnsetType = UNSET
    outcome: str | UnsetType = UNSET


Kind = Literal["rule", "occurrence"]
Status = Literal["firing", "acknowledged", "resolved"]
Urgency = Literal["high", "low"]
QUIET_CATEGORY = "up"  # good news: an alert of this category wakes nobody at any upstream
LOWEST_SEVERITY = 7


class Alert(Part, frozen=True):
    """Both things that vendors call an alert: a rule that says when to tell somebody, and an occurrence."""

    kind: Kind | UnsetType = UNSET
    """Whether it is a rule that says when to tell somebody, or an occurrence: something that happened."""
    dedup_key: str | UnsetType | None = UNSET
    """The sender's key: requests with the same key are about the same alert while that is open."""
    summary: str | UnsetType | None = UNSET
    """What is wrong, in one line."""
    details: str | UnsetType | None = UNSET
    """What is wrong, at length."""
    severity: Severity | UnsetType | None = UNSET
    """How bad it is: the codes of syslog, 0 is the worst and 7 the least."""
    urgency: Urgency | UnsetType | None = UNSET
    """Whether somebody is to be woken, where a vendor says so apart from the severity."""
    status: Status | UnsetType = UNSET
    """Its state."""
    enabled: bool | UnsetType | None = UNSET
    """Of a rule: whether it is switched on."""
    category: str | UnsetType | None = UNSET
    """What kind of trouble it is, such as `down` or `slow`."""
    resource: str | UnsetType | None = UNSET
    """What is in trouble: a host, a monitor, a service."""
    source: str | UnsetType | None = UNSET
    """Who or what noticed it."""
    condition: Condition | UnsetType = UNSET
    """When a rule fires."""
    channels: tuple[Channel, ...] | UnsetType | None = UNSET
    """Where notifications go: `kind`, `id` and `dialect`."""
    renotify: Renotify | UnsetType = UNSET
    """Whether somebody is told again."""
    team: str | UnsetType | None = UNSET
    """The team it belongs to."""
    routing_key: str | UnsetType | None = UNSET
    """The service or escalation that it is for, where the vendor has one."""
    links: tuple[Link, ...] | UnsetType | None = UNSET
    """Links for responders: `href` and `text`."""
    images: tuple[Image, ...] | UnsetType | None = UNSET
    """Images for responders: `src`, `href` and `alt`."""
    labels: dict[str, str] | UnsetType | None = UNSET
    """Names and texts; a condition asks for one of them as `labels.NAME`."""
    custom: dict[str, Any] | UnsetType | None = UNSET
    """Anything else that the sender says."""
    notifications: tuple[Notification, ...] | UnsetType = UNSET
    """What was sent by the vendor: to whom, when, and with what outcome."""
    created_at: datetime | UnsetType = UNSET
    """When the gateway first heard of it."""
    updated_at: datetime | UnsetType = UNSET
    """When it was last changed."""
    acknowledged_at: datetime | UnsetType | None = UNSET
    """When it was acknowledged."""
    resolved_at: datetime | UnsetType | None = UNSET
    """When it was resolved."""
    occurrences: int | UnsetType = UNSET
    """How often it was reported."""
    occurred_at: datetime | UnsetType = UNSET
    """When it was last reported."""
    snoozed_until: datetime | UnsetType | None = UNSET
    """Until when nobody is to be notified."""
    ends_at: datetime | UnsetType | None = UNSET
    """When it lapses unless it is reported again."""
    assignee: str | UnsetType | None = UNSET
    """Who has taken it on."""
    extensions: dict[str, dict[str, Any]] | UnsetType = UNSET
    """Fields that only one vendor has, as `extensions.DIALECT.NAME`."""


class Operation(StrEnum):
    """What can be asked of an alert."""

    CREATE = "create"
    READ = "read"
    LIST = "list"
    UPDATE = "update"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"
    REOPEN = "reopen"
    DELETE = "delete"
    COMMENT = "comment"


Flat = dict[str, Any]
"""An alert by canonical path. A path that is missing was left out, a `None` was cleared."""

_GROUPS: dict[str, type[Part]] = {"condition": Condition, "renotify": Renotify}
SERVER_OWNED = frozenset(
    {
        *("status", "notifications", "created_at", "updated_at", "acknowledged_at", "resolved_at"),
        *("occurrences", "occurred_at", "snoozed_until", "ends_at", "assignee"),
    }
)
"""Paths that the gateway maintains itself: the alert's state, not its content. They are never carried, and a change of
them alone is not delivered."""


def _leaves() -> tuple[str, ...]:
    paths: list[str] = []
    for name in Alert.__struct_fields__:
        group = _GROUPS.get(name)
        paths += [f"{name}.{leaf}" for leaf in group.__struct_fields__] if group else [name]
    return tuple(paths)


PATHS: tuple[str, ...] = tuple(path for path in _leaves() if path != "extensions")
"""Every canonical path in order, but for the open-ended ``extensions.<dialect>.<name>``."""


class _Places(dict[str, int]):
    """The place of each canonical path; all others come last."""

    def __missing__(self, path: str) -> int:
        return len(self)


_PLACES = _Places((path, place) for place, path in enumerate(PATHS))


def type_of(path: str) -> Any:
    """The type of a leaf of the canonical alert; an extension may be anything."""
    holder = holder_of(path)
    return get_type_hints(holder).get(path.rpartition(".")[2]) if holder else Any


@functools.cache
def item_types(path: str) -> tuple[type, ...]:
    """The types of the items where a leaf of the canonical alert is a list; none where it is not."""
    options = (type_of(path), *get_args(type_of(path)))
    return tuple(item for one in options if get_origin(one) is tuple for item in get_args(one) if item is not Ellipsis)


def holder_of(path: str) -> type[Part] | None:
    """The struct that has this leaf as a field; None for an extension."""
    group, dot, _ = path.rpartition(".")
    return _GROUPS.get(group) if dot else Alert


def is_path(path: str) -> bool:
    """Whether `path` names a leaf of the canonical alert."""
    parts = path.split(".", 2)
    return path in PATHS or (parts[0] == "extensions" and len(parts) == 3 and all(parts))


def flatten(alert: Alert) -> Flat:
    """The alert by path, in canonical order; unset fields are left out."""
    flat: Flat = {}
    for name in Alert.__struct_fields__:
        value = getattr(alert, name)
        if value is UNSET:
            continue
        if name in _GROUPS:
            for leaf in value.__struct_fields__:
                inner = getattr(value, leaf)
                if inner is not UNSET:
                    flat[f"{name}.{leaf}"] = inner
        elif name == "extensions":
            for dialect, fields in value.items():
                for key, inner in fields.items():
                    flat[f"extensions.{dialect}.{key}"] = inner
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Alert:
    """Builds an alert from a flat alert. The values are trusted: see `checked` for those that are not."""
    return Alert(**_grouped(flat))


def _grouped(flat: Mapping[str, Any], build: bool = True) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    extensions: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for path, value in flat.items():
        head, dot, rest = path.partition(".")
        if not dot:
            fields[head] = value
        elif head == "extensions":
            dialect, _, key = rest.partition(".")
            extensions.setdefault(dialect, {})[key] = value
        else:
            groups.setdefault(head, {})[rest] = value
    for name, inner in groups.items():
        fields[name] = _GROUPS[name](**inner) if build else inner
    if extensions:
        fields["extensions"] = extensions
    return fields


def checked(flat: Mapping[str, Any]) -> Flat:
    """The same paths with their canonical types, from plain JSON or TOML values.

    Raises `msgspec.ValidationError`, or `KeyError` for a path that the canonical alert does not have.
    """
    for path in flat:
        if not is_path(path):
            raise KeyError(path)
    return flatten(convert(_grouped(flat, build=False), Alert))


def plain(value: Any) -> Any:
    """A canonical value as plain JSON types."""
    return to_builtins(value)


def lay_over(record: Mapping[str, Any], patch: Mapping[str, Any]) -> tuple[Flat, tuple[str, ...]]:
    """Lays a patch over a flat alert; returns the new flat alert and the paths that really changed."""
    after = dict(record)
    changed = []
    for path, value in patch.items():
        if path not in record or record[path] != value:
            after[path] = value
            changed.append(path)
    return in_order(after), tuple(changed)


def in_order(flat: Mapping[str, Any]) -> Flat:
    """The same flat alert in canonical order, extensions last, so that equal alerts give equal bytes."""
    return {path: flat[path] for path in sorted(flat, key=_PLACES.__getitem__)}
