"""The road of a command, second half: whether a delivery has to be sent at all once its turn comes.

Plain functions of a transaction, which answer with the reason why it has not: others have taken the alert, it is over,
or its key is another alert's by now. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.canonical import Operation
from gateway.codes import Code, Why
from gateway.config.config import Upstream
from gateway.road.terms import ENDING, INSTEAD_OF, TELLING, TRIED_AT, TURN, TURNS, what_to_send
from gateway.store import AlertRow, DeliveryFilter, DeliveryRow, TargetRow, Tx

FOLDED_AFTER_MS = 600_000
"""Milliseconds after which a waiting page wakes nobody any more once its alert is over."""


class Turn(Struct, frozen=True, kw_only=True):
    """A delivery whose turn it may be: with its alert, the alert's target at this upstream and at all of them, and the
    time in milliseconds."""

    tx: Tx
    delivery: DeliveryRow
    row: AlertRow
    target: TargetRow
    targets: list[TargetRow]
    upstream: Upstream
    now: int


def needless(tx: Tx, delivery: DeliveryRow, row: AlertRow, target: TargetRow, targets: list[TargetRow]) -> Why | None:
    """Why a fallback need not be told: the alert is over, or others have taken it; None where it has to be told."""
    if target.state != "standby":
        return None
    if not row.is_open:
        return Why(Code.NOT_NEEDED, "the alert ended before this fallback's turn")
    by = taken_by(tx, delivery, row, target, targets)
    return Why(Code.NOT_NEEDED, f"{min(by[0])} has taken the alert") if by and all(by) else None


def turns_of(target: TargetRow, delivery: DeliveryRow) -> list[tuple[float, int]]:
    """The turns of a fallback by the clock of now, while this delivery waits for one of them: for each of its routes
    after how many seconds, and when, in milliseconds. Where the clock is set, what waits is moved and notes are not."""
    moved = delivery.created_at - target.seen.get(TURN, delivery.created_at)
    return [(after, int(due) + moved) for after, due in target.seen.get(TURNS, ())]


def await_turn(target: TargetRow, delivery: DeliveryRow, due: int) -> None:
    """Has a fallback's delivery wait for the turn at this time."""
    turns = [list(turn) for turn in turns_of(target, delivery)]
    target.seen = {**target.seen, TURN: due, **({TURNS: turns} if turns else {})}
    delivery.due = delivery.created_at = due


def taken_by(
    tx: Tx, delivery: DeliveryRow, row: AlertRow, target: TargetRow, targets: list[TargetRow]
) -> list[set[str]]:
    """For each route that a fallback stands by for, those of its upstreams that have taken the alert."""
    told = tx.deliveries_of(delivery.command)
    delivered = {one.upstream for one in told if one.state == "delivered"}
    refused = {one.upstream for one in told if one.state == "dead"}  # the alert may be there, but not with this change
    taken = {
        other.upstream
        for other in targets
        if other.state != "standby" and (other.upstream in delivered or _has_it(tx, row, other, refused))
    }
    return [taken.intersection(route) for route in target.seen.get(INSTEAD_OF, ())]


def _has_it(tx: Tx, row: AlertRow, other: TargetRow, refused: set[str]) -> bool:
    """Whether an upstream has the alert as it is now: nothing of it waits for the upstream, or was refused there."""
    return other.state == "present" and other.upstream not in refused and not tx.is_waiting(row.id, other.upstream)


def may_be_there(turn: Turn) -> bool:
    """Whether an earlier attempt may have made the alert where it can be ended only once it is found."""
    by_key = turn.upstream.dialect.outbound.addressed_by == "key"
    return bool(turn.delivery.seen) or (turn.target.seen.get(TRIED_AT) is not None and not by_key)


def folded(turn: Turn) -> Why | None:
    """Why a late page need not be sent: its alert is over, and the end waits behind it. A page that is not as late need
    not be sent either where an earlier one of the same alert was left out for this reason."""
    delivery, target, upstream = turn.delivery, turn.target, turn.upstream
    if upstream.on_backlog != "fold" or delivery.operation not in TELLING or target.state == "present":
        return None
    same = turn.tx.deliveries(DeliveryFilter(upstream=upstream.name, alert=delivery.alert))
    if not any(_is_owed(other) and other.id > delivery.id and other.operation in ENDING for other in same):
        return None
    is_old = turn.now - delivery.created_at > FOLDED_AFTER_MS
    if not is_old and not any(other.code == Code.FOLDED and other.id < delivery.id for other in same):
        return None
    return Why(Code.FOLDED, "the alert ended before it could be sent")


def superseded(turn: Turn, operation: Operation) -> Why | None:
    """Why an operation is not sent, whatever the upstream has; None where it is."""
    is_change = operation is Operation.UPDATE and turn.delivery.operation == Operation.UPDATE
    if is_change and not turn.upstream.dialect.outbound.tells_changes:
        return Why(Code.NOT_OFFERED, "changes of an alert are not sent to this upstream")
    if (operation not in TELLING or not turn.row.is_open) and _passed_on(turn):
        return Why(Code.PASSED_ON, "another alert has its key there by now")
    if operation in (Operation.CREATE, Operation.REOPEN) and _is_over(turn):
        return Why(Code.NOT_NEEDED, "the alert has ended")
    return None


def _passed_on(turn: Turn) -> bool:
    """Whether the alert's key had passed to a newer alert when the command came, or has passed to one that came back
    and that the upstream was told of last: the delivery would end or alter that one. This can be so where the upstream
    refused the end of this alert."""
    tx, row, target, delivery = turn.tx, turn.row, turn.target, turn.delivery
    if target.key is None:
        return False
    others = [holder for holder in tx.lane_holders(target.upstream, target.lane) if holder != row.id]
    if turn.upstream.dialect.outbound.addressed_by == "id":
        return any(_is_same(turn, other) for holder in others for other in tx.targets(holder))
    is_newer = any(row.id < one < delivery.command and not _came_after(tx, one, delivery) for one in others)
    return is_newer or (bool(others) and tx.told_last(target.upstream, target.lane) in others)


def _is_same(turn: Turn, other: TargetRow) -> bool:
    """Whether a vendor that gives out ids took another alert for this one, as both were told with one key."""
    return other.upstream == turn.target.upstream and bool(other.ids) and other.ids == turn.target.ids


def _came_after(tx: Tx, holder: int, delivery: DeliveryRow) -> bool:
    """Whether an alert is created behind this delivery in its lane, whatever its id, as another replica's clock made
    that."""
    first = tx.deliveries(DeliveryFilter(upstream=delivery.upstream, alert=holder, after=0, limit=1))
    return any(one.lane == delivery.lane and one.operation == "create" and one.id > delivery.id for one in first)


def _is_over(turn: Turn) -> bool:
    """Whether an alert is over, and no later delivery would end it at the upstream: so it is where a dead letter is
    sent again, or the end was dropped. Where ends are never sent, an alert without one is as configured."""
    if turn.row.is_open or what_to_send(turn.upstream, Operation.RESOLVE)[0] not in ENDING:
        return False
    later = DeliveryFilter(upstream=turn.upstream.name, alert=turn.row.id, after=turn.delivery.id)
    same = turn.tx.deliveries(later)
    return not any(_is_owed(other) and other.operation in ENDING for other in same)


def _is_owed(delivery: DeliveryRow) -> bool:
    """Whether a delivery is still to be sent: it waits, or died only as its upstream was not in the configuration."""
    return delivery.state == "waiting" or (delivery.state == "dead" and delivery.code == Code.NO_UPSTREAM)
