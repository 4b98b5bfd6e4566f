"""A command on its way to being accepted: who asks, everything that stays the same over its upstreams, what was
committed in the end, and what a request came to. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from msgspec import Struct, field

from gateway.asked import Answer, Command, Reply
from gateway.canonical import Flat, Operation
from gateway.dialect import Dialect
from gateway.store import AlertRow, DeliveryRow, Tx
from gateway.translation import Fate

Via = tuple[str, ...]
"""The gateways that a command came through, by their own names."""


class Caller(Struct, frozen=True):
    """Who asks: the dialect it speaks, its name, and the scope its alerts belong to."""

    dialect: Dialect
    name: str
    scope: str


class Accepted(Struct, kw_only=True):
    """What was committed for one command: the alert as it is now, the deliveries on their way, and per upstream
    the report; `dead` names the deliveries that can never be sent, with the problem code, `routes` the routes that it
    took, and why, `anew` the fallbacks whose turn begins anew, as they stand by for more than before, and the seconds
    until it comes."""

    command: int
    alert: AlertRow | None
    primary: str | None = None
    deliveries: list[DeliveryRow] = field(default_factory=list)
    reports: dict[str, tuple[Fate, ...]] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    anew: dict[str, float] = field(default_factory=dict)
    is_new: bool = False
    fanout: int = 0
    queued_behind: bool = False


class Order(Struct, frozen=True, kw_only=True):
    """A command as it came in: who gives it, at what time (milliseconds), and the gateways that it came through.
    `command` is its own id, `request` that of what it was asked with."""

    asked: Command
    caller: Caller
    request: int
    command: int
    now: int
    via: Via = ()


class Step(Order, frozen=True, kw_only=True):
    """An order being carried out in a transaction: everything that stays the same over its upstreams. It tells `anew`
    what a silence had acknowledged: only those are told that were told so."""

    tx: Tx
    operation: Operation
    row: AlertRow
    flat: Flat
    changed: tuple[str, ...] | None
    accepted: Accepted
    muted: str = ""
    anew: bool = False

    @property
    def is_repeat(self) -> bool:
        """Whether it says again what is known already, as senders do that know nothing of keys."""
        return self.asked.operation is Operation.CREATE and self.operation is Operation.UPDATE and not self.changed


class Answered(Struct, frozen=True):
    """What came of a request: the answer for the dialect to word, the id it is about, and the report's lines."""

    answer: Answer
    id: int
    reports: tuple[str, ...] = ()
    is_stale: bool = False
    relayed: Reply | None = None
