"""Whether an upstream has taken what a caller said ("landed"): where the store is lost with its container, success is
not answered before that.

Plain functions of a transaction. They must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from gateway.asked import Command
from gateway.errors import Problem, ProblemKind
from gateway.road.accepted import Accepted, Caller
from gateway.road.terms import ENDING
from gateway.store import DeliveryFilter, DeliveryRow, FirstAnswer, Tx

AGAIN_AFTER = 5
"""Seconds after which a caller is told to ask again."""
JUST_NOW_MS = 120_000
"""Milliseconds after the delivery of an end within which a repeat of it only asks whether it has landed."""


def has_landed(tx: Tx, asked: Command, caller: Caller, accepted: Accepted) -> bool:
    """Whether an upstream has taken a command or everything there is of its alert, or no upstream is owed anything:
    what is kept by the gateway alone, thrown away on purpose or void need not land anywhere."""
    own = tx.deliveries_of(accepted.command)
    if any(row.state == "delivered" for row in own):
        return True
    if accepted.alert is not None:
        return all_has_landed(tx, accepted.alert.id)
    waiting = [row for row in own if row.state == "waiting"]
    if waiting and not _repeats_an_end(tx, asked, caller, waiting[0]):
        return False
    return _earlier_has_landed(tx, asked, caller, accepted.command)


def first_has_landed(tx: Tx, first: FirstAnswer) -> bool:
    """Whether an upstream has by now taken the first request under an idempotency key."""
    own = tx.deliveries_of(first.command)
    if any(row.state == "delivered" for row in own):
        return True
    if first.alert is not None:
        return all_has_landed(tx, first.alert)
    return all(row.state != "waiting" for row in own)


def all_has_landed(tx: Tx, alert: int | None) -> bool:
    """Whether an upstream has everything there is of an alert, or nothing waits for any."""
    targets = tx.targets(alert) if alert is not None else []
    owed = {target.upstream for target in targets if tx.is_waiting(target.alert, target.upstream)}
    return not owed or any(one.state in ("present", "gone") and one.upstream not in owed for one in targets)


def _repeats_an_end(tx: Tx, asked: Command, caller: Caller, again: DeliveryRow) -> bool:
    """Whether a waiting command repeats an end that was delivered just now. A caller that asks again whether it has
    landed must not wait for the repeat to land, which may take as long every time."""
    if asked.operation not in ENDING or asked.ref is None or asked.ref.key is None:
        return False
    earlier = tx.last_alert_by_key(caller.scope, caller.dialect.same_key(asked.ref.key), again.command)
    told = tx.deliveries(DeliveryFilter(state="delivered", alert=earlier.id)) if earlier else []
    since = again.created_at - JUST_NOW_MS
    return any(row.operation in ENDING and row.finished_at is not None and row.finished_at >= since for row in told)


def _earlier_has_landed(tx: Tx, asked: Command, caller: Caller, command: int) -> bool:
    """Whether the last alert of the key has landed: a command that finds no open alert may repeat the end of one that
    has ended here and is still to be delivered."""
    if asked.ref is None or asked.ref.key is None:
        return True
    earlier = tx.last_alert_by_key(caller.scope, caller.dialect.same_key(asked.ref.key), command)
    return all_has_landed(tx, earlier.id if earlier else None)


def not_landed() -> Problem:
    """The problem for a caller whose command has not landed yet."""
    return Problem(
        ProblemKind.OVERLOADED,
        "no upstream has accepted this yet; it is stored and delivery goes on, but only as long as this container "
        "lives; repeat the request with the same key",
        retry_after=AGAIN_AFTER,
    )
