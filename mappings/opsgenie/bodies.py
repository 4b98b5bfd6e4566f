"""The bodies of Opsgenie's requests and answers, as they are on the wire.

Source: https://docs.opsgenie.com/docs/alert-api. They describe and check; `asked` reads what they mean.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from mappings.opsgenie.alert import Alert

Text = Annotated[str, Meta(min_length=1)]


class Common(Struct, kw_only=True):
    """Who acts, through what, and why."""

    user: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    note: str | UnsetType = UNSET


class Noted(Struct, kw_only=True):
    """A note to be added."""

    note: Text
    user: str | UnsetType = UNSET
    source: str | UnsetType = UNSET


class Snoozed(Common, kw_only=True):
    """The end of a snooze, in ISO 8601."""

    endTime: str


class Escalated(Common, kw_only=True):
    """The escalation to escalate to, by id or name."""

    escalation: dict[str, Any]


class Assigned(Common, kw_only=True):
    """The user to assign to, by id or username."""

    owner: dict[str, Any]


class Teamed(Common, kw_only=True):
    """The team to be added, by id or name."""

    team: dict[str, Any]


class Responding(Common, kw_only=True):
    """The responder to be added: a type, and an id, name or username."""

    responder: dict[str, Any]


class Tagged(Common, kw_only=True):
    """Tags to be added."""

    tags: Annotated[list[str], Meta(min_length=1)]


class Detailed(Common, kw_only=True):
    """Details to be added."""

    details: dict[str, Any]


class Worded(Struct, kw_only=True):
    """A message."""

    message: Text


class Described(Struct, kw_only=True):
    """A description."""

    description: Text


class Prioritised(Struct, kw_only=True):
    """A priority."""

    priority: Literal["P1", "P2", "P3", "P4", "P5"]


class Receipt(Struct, kw_only=True):
    """The answer to every command."""

    result: str
    took: float
    requestId: str


class Done(Struct, kw_only=True):
    """The state of a request."""

    success: bool
    isSuccess: bool
    action: str
    processedAt: str
    integrationId: str
    status: str
    alertId: str
    alias: str


class RequestStatus(Struct, kw_only=True):
    """The envelope of the state of a request."""

    data: Done
    took: float
    requestId: str


class One(Struct, kw_only=True):
    """The envelope of one alert."""

    data: Alert
    took: float
    requestId: str


class Many(Struct, kw_only=True):
    """The envelope of a list of alerts."""

    data: list[Alert]
    paging: dict[str, str]
    took: float
    requestId: str


class Counted(Struct, kw_only=True):
    """The envelope of a number of alerts."""

    data: dict[str, int]
    took: float
    requestId: str


class Entries(Struct, kw_only=True):
    """The envelope of notes, log entries or recipients."""

    data: list[dict[str, Any]]
    took: float
    requestId: str
    paging: dict[str, str] | UnsetType = UNSET
