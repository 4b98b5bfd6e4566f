"""The data passed along while a command is accepted: the caller, the order, one step of its processing, what was
committed, and the result of the request. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from msgspec import Struct, field

from gateway.asked import Answer, Command, Reply
from gateway.canonical import Flat, Operation
from gateway.dialect import Dialect
from gateway.mapping.report import Fate
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryRow, Tx

Via = tuple[str, ...]
"""The names of the gateways that a command came through."""


class Caller(Struct, frozen=True):
    """A caller: the dialect it speaks, its name, and the scope its alerts belong to."""

    dialect: Dialect
    name: str
    scope: str


class Accepted(Struct, kw_only=True):
    """What was committed for one command: the alert as it is now, its deliveries, and the report per upstream.

    `dead` maps upstreams whose delivery can never be sent to the problem code; `routes` maps the routes taken to the
    reason; `anew` maps fallbacks whose turn is counted anew, because they now stand by for further upstreams, to the
    seconds until it comes."""

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
    """A command as it came in: its caller, the time (milliseconds), the gateways that it came through, and its trace
    (see `CommandBody`). `command` is its own id, `request` the id of the request that contained it."""

    asked: Command
    caller: Caller
    request: int
    command: int
    now: int
    via: Via = ()
    trace: str = ""


class Step(Order, frozen=True, kw_only=True):
    """An order being carried out in a transaction: everything that is the same for all of its upstreams.

    `muted` is the id of the silence that mutes the alert. `anew` marks the end and the reopening of an alert that a
    silence had acknowledged: only upstreams that were told of the acknowledgement are told."""

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
        """Whether it is a create that repeats what an open alert says already, as senders without keys send it."""
        return self.asked.operation is Operation.CREATE and self.operation is Operation.UPDATE and not self.changed


class Answered(Struct, frozen=True):
    """The result of a request: the answer for the dialect to word, the id it is about, and the report's lines."""

    answer: Answer
    id: int
    reports: tuple[str, ...] = ()
    is_stale: bool = False
    relayed: Reply | None = None


def command_row(
    order: Order, operation: Operation, alert: AlertRow | None, body: CommandBody, fanout: int
) -> CommandRow:
    """The row of an accepted command."""
    return CommandRow(
        id=order.command,
        request=order.request,
        alert=alert.id if alert else None,
        operation=operation,
        scope=order.caller.scope,
        dialect=order.caller.dialect.name,
        caller=order.caller.name,
        at=order.now,
        body=body,
        fanout=fanout,
    )
