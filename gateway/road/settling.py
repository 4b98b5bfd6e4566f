"""The road of a command, its end: what became of a delivery.

A plain function of a transaction: `settle` records an outcome. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Raw, Struct, json, structs

from gateway.canonical import Operation
from gateway.codes import MEANINGS, Code
from gateway.config.choosing import key_entry
from gateway.config.config import Upstream
from gateway.errors import ProblemKind
from gateway.mapping.report import Fate, forms
from gateway.outcome import Again, Changed, Delivered, Found, Missing, Outcome, Pending, Rejected, code_of
from gateway.road.needed import await_turn
from gateway.road.preparing import Shipment, target_of
from gateway.road.terms import (
    ENDING,
    INSTEAD_OF,
    MUTED,
    SPOKEN,
    STOOD_BY,
    TELLING,
    TRIED_AT,
    TRIED_FIRST,
    TRIED_WITH,
    TURN,
    TURNS,
    is_anothers,
    may_look,
)
from gateway.store import AlertRow, DeliveryFilter, DeliveryRow, TargetRow, Tx

KINDS = frozenset(ProblemKind)
"""Problem codes that are kinds of problem too."""
UNTIL_TAKEN = frozenset({TRIED_AT, TRIED_FIRST, TRIED_WITH, INSTEAD_OF, TURNS, TURN, STOOD_BY})
"""The keys of `TargetRow.seen` that mean nothing any more once the upstream has taken the alert."""
FIRST_KNOWN = 16
"""An alert that was adopted from a list is looked for among this many of the oldest that have its id."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a delivery came to, for whoever waits for it: `again` means not yet. `is_recorded` says that the attempt is
    to be kept: not one of a renewal, nor one of a delivery that is recorded already or is another's by now."""

    state: Literal["delivered", "dead", "void", "again"]
    reason: str = ""
    code: str = ""
    kind: ProblemKind = ProblemKind.REFUSED
    due: int = 0
    changed: Changed | None = None
    is_recorded: bool = True


class _Attempt(Struct, frozen=True, kw_only=True):
    """An attempt to be recorded, with its transaction and the time in milliseconds."""

    tx: Tx
    shipment: Shipment
    upstream: Upstream
    now: int
    show: bool


def settle(
    tx: Tx,
    shipment: Shipment,
    outcome: Outcome | None,
    upstream: Upstream,
    now: int,
    due: int,
    show: bool = False,
    *,
    looked_up: bool = False,
    in_vain: bool = False,
) -> Verdict:
    """Records the outcome of an attempt. `due` is when the next one may be made if it has to be repeated; `show`
    makes the upstream's own id the one that the caller knows the alert by; `looked_up` says that an earlier attempt was
    found to have succeeded, `in_vain` that this could not be found out."""
    attempt = _Attempt(tx=tx, shipment=shipment, upstream=upstream, now=now, show=show)
    delivery = _still_ours(attempt, outcome)
    if isinstance(delivery, Verdict):
        return delivery
    delivery.attempts = shipment.delivery.attempts
    delivery.status = shipment.delivery.status
    target = target_of(tx, delivery)
    if outcome is None:
        return _without_sending(attempt, delivery, target)
    if target is not None and target.seen.get(TRIED_AT) != shipment.tried_at:
        _note_doubt(target, shipment)
        tx.put_target(target)
    if isinstance(outcome, Pending):
        seen = {**delivery.seen, **outcome.seen}
        delivery.keep({name: value for name, value in seen.items() if value is not None})
    if isinstance(outcome, Again | Pending):
        reason = outcome.reason if isinstance(outcome, Again) else MEANINGS[Code.UNCONFIRMED]
        again = Verdict(state="again", reason=reason, code=code_of(outcome), due=due)
        return _again_or_never(attempt, delivery, target, again)
    if isinstance(outcome, Missing):
        return _missing(attempt, delivery, target)
    if isinstance(outcome, Rejected | Changed):
        refused = Verdict(
            state="dead",
            reason=outcome.reason,
            code=code_of(outcome),
            kind=outcome.kind if isinstance(outcome, Rejected) else ProblemKind.CONFLICT,
            changed=outcome if isinstance(outcome, Changed) else None,
        )
        return _dead(attempt, delivery, target, refused)
    if shipment.tried_at is not None or looked_up:
        may_be_found = shipment.operation is Operation.CREATE and may_look(upstream)
        doubt = _after_doubt(may_be_found, looked_up=looked_up, in_vain=in_vain)
        _report_more(delivery, [doubt])
    return _delivered(attempt, delivery, target, outcome)


def cut_off(tx: Tx, shipment: Shipment) -> None:
    """Notes that an attempt may have created the alert there, where the gateway stopped before it heard: the alert is
    looked for before the next attempt."""
    if shipment.delivery.alert is not None:
        tx.lock(f"alert {shipment.delivery.alert}")
    delivery, target = tx.delivery(shipment.delivery.id), target_of(tx, shipment.delivery)
    if delivery is None or target is None or target.seen.get(TRIED_AT) == shipment.tried_at:
        return
    is_known = delivery.state == "waiting" or _is_taken_out(delivery)
    if is_known and delivery.fence == shipment.delivery.fence:
        _note_doubt(target, shipment)
        tx.put_target(target)


def _still_ours(attempt: _Attempt, outcome: Outcome | None) -> DeliveryRow | Verdict:
    """The delivery as it is now, where this attempt may settle it; else the verdict that it has without it."""
    tx, shipment = attempt.tx, attempt.shipment
    if shipment.delivery.alert is not None:
        tx.lock(f"alert {shipment.delivery.alert}")
    delivery = tx.delivery(shipment.delivery.id)
    if delivery is not None and delivery.state != "waiting" and _is_recorded(delivery, shipment.delivery):
        return Verdict(state=delivery.state, reason=delivery.reason, code=delivery.code, is_recorded=False)  # type: ignore[arg-type]
    if delivery is None or delivery.state != "waiting":
        _learn(attempt, delivery, outcome)
        return _not_ours("the delivery was taken out of the outbox meanwhile")
    if delivery.fence != shipment.delivery.fence:
        return _not_ours("another replica has taken over the delivery")
    return delivery


def _learn(attempt: _Attempt, delivery: DeliveryRow | None, outcome: Outcome | None) -> None:
    """Records what an attempt shows of the alert's state at the upstream although its delivery was merged into a newer
    update meanwhile, or dropped: what comes after it needs the id that was issued, must not make a second alert where
    there may be one, and must end what is there."""
    tx, shipment = attempt.tx, attempt.shipment
    if delivery is None or not _is_taken_out(delivery) or delivery.fence != shipment.delivery.fence:
        return
    row, target = tx.alert(delivery.alert) if delivery.alert is not None else None, target_of(tx, delivery)
    if row is None or target is None or outcome is None:
        return
    if isinstance(outcome, Delivered | Found):
        _stands(structs.replace(attempt, show=False), delivery, row, target, outcome)
        return
    if isinstance(outcome, Missing):
        target.state, target.ids, target.seen, target.revives = "absent" if row.is_open else "gone", {}, {}, None
    else:
        _note_doubt(target, shipment)
    tx.put_target(target)


def _is_taken_out(delivery: DeliveryRow) -> bool:
    """Whether a delivery was merged or dropped, perhaps while it was under way."""
    return delivery.state == "merged" or (delivery.state == "void" and delivery.code == Code.DROPPED)


def _note_doubt(target: TargetRow, shipment: Shipment) -> None:
    """Notes when an attempt was made that may have created the alert there, and which state of it was sent."""
    if target.seen.get(TRIED_AT) is None:
        target.seen[TRIED_FIRST] = shipment.delivery.command if shipment.as_of is None else shipment.as_of
    target.seen[TRIED_AT] = shipment.tried_at
    if shipment.as_of is not None:
        target.seen[TRIED_WITH] = [shipment.delivery.id, shipment.as_of]


def _not_ours(reason: str) -> Verdict:
    return Verdict(state="void", reason=reason, code=Code.TAKEN_OVER, is_recorded=False)


def _is_recorded(now: DeliveryRow, then: DeliveryRow) -> bool:
    """Whether this very attempt is recorded already: the store committed it, but could not confirm it."""
    return now.state in ("delivered", "dead") and (now.attempts, now.fence) == (then.attempts, then.fence)


def _after_doubt(may_be_found: bool, *, looked_up: bool, in_vain: bool) -> Fate:
    """What the report says was done about an alert that an earlier attempt may have made: one whose answer was lost or
    a fault, or one that only a killed gateway would know of, if there was any."""
    if looked_up:
        did = "was found there and not sent again"
    elif not may_be_found:
        did = "was sent with the same key"
    else:
        did = "could not be looked up and was sent" if in_vain else "was not found there and was sent"
    return Fate("id", "mapped", "", f"the alert may have been made before: it {did}")


def told_elsewhere(tx: Tx, command: int) -> dict[str, Verdict]:
    """The verdicts on a command by upstream, as another replica recorded them."""
    return {
        row.upstream: Verdict(state=row.state, reason=row.reason, code=row.code, kind=_kind_of(row.code))
        for row in tx.deliveries_of(command)
        if row.state in ("delivered", "dead", "void")
    }


def _kind_of(code: str) -> ProblemKind:
    """The kind of problem for a refusal, from the code that it was recorded with."""
    return ProblemKind(code) if code in KINDS else ProblemKind.REFUSED


def _end(
    tx: Tx, delivery: DeliveryRow, state: Literal["delivered", "dead", "void"], reason: str, now: int, code: str = ""
) -> None:
    delivery.state, delivery.reason, delivery.finished_at, delivery.code = state, reason, now, code
    delivery.keep({})  # if it is ever sent again, its call starts from the beginning
    tx.update_delivery(delivery)


def _without_sending(attempt: _Attempt, delivery: DeliveryRow, target: TargetRow | None) -> Verdict:
    tx, shipment, now = attempt.tx, attempt.shipment, attempt.now
    if shipment.later is not None:
        if target is not None:
            await_turn(target, delivery, shipment.later)
            tx.put_target(target)
        tx.update_delivery(delivery)
        return Verdict(state="again", due=shipment.later)
    if shipment.dead:
        unmet = Verdict(state="dead", reason=shipment.dead, code=shipment.code, kind=ProblemKind.UNMET)
        return _dead(attempt, delivery, target, unmet)
    _end(tx, delivery, "void", shipment.void, now, shipment.code)
    if shipment.renews:
        tx.remove_command(delivery.command)
        return Verdict(state="void", reason=shipment.void, is_recorded=False)
    if target and target.state == "gone" and shipment.code == Code.ENDED_THERE and shipment.operation in ENDING:
        _void_dead(tx, delivery, now)  # a refused reopen, for one, is not owed any more
    if target and target.state in ("dead", "absent", "waiting"):
        if shipment.operation is not Operation.COMMENT:  # a comment does not replace a page that is still owed
            _void_dead(tx, delivery, now)
        target.state = "gone" if shipment.operation in ENDING else target.state
        tx.put_target(target)
    return Verdict(state="void", reason=shipment.void, code=shipment.code)


def _void_dead(tx: Tx, delivery: DeliveryRow, now: int) -> None:
    """Voids the alert's earlier dead letters at the upstream: a later command says the same, or ended the alert."""
    dead = tx.deliveries(DeliveryFilter(state="dead", upstream=delivery.upstream, alert=delivery.alert))
    for other in dead:
        if other.id < delivery.id:
            _end(tx, other, "void", "superseded by a later command", now, Code.SUPERSEDED)


def _again_or_never(attempt: _Attempt, delivery: DeliveryRow, target: TargetRow | None, again: Verdict) -> Verdict:
    if attempt.now - delivery.created_at > attempt.upstream.retry.max_age * 1000:
        tries = f" after {delivery.attempts} attempts" if delivery.attempts else ""
        given_up = Verdict(state="dead", reason=f"given up{tries}: {again.reason}", code=Code.GIVEN_UP)
        return _dead(attempt, delivery, target, given_up)
    delivery.due, delivery.reason, delivery.code = again.due, again.reason, again.code
    attempt.tx.update_delivery(delivery)
    return again


def _missing(attempt: _Attempt, delivery: DeliveryRow, target: TargetRow | None) -> Verdict:
    tx, now = attempt.tx, attempt.now
    row = tx.alert(delivery.alert) if delivery.alert is not None else None
    if target is not None:
        target.state, target.ids, target.seen, target.revives = "gone", {}, {}, None
    if attempt.shipment.operation in ENDING or row is None or not row.is_open or target is None:
        _end(tx, delivery, "delivered", "the upstream no longer had the alert", now)
        if target is not None:
            tx.put_target(target)
        return Verdict(state="delivered")
    target.state = "absent"
    tx.put_target(target)
    delivery.keep({})  # a receipt for the update means nothing to a create
    delivery.due, delivery.reason, delivery.code = now, "no longer at the upstream, so created again", Code.GONE_THERE
    tx.update_delivery(delivery)
    return Verdict(state="again", reason=delivery.reason, code=delivery.code, due=now)


def _dead(attempt: _Attempt, delivery: DeliveryRow, target: TargetRow | None, verdict: Verdict) -> Verdict:
    """Makes the delivery a dead letter, for the verdict's reason. If it was a create, the alert is dead there too."""
    _end(attempt.tx, delivery, "dead", verdict.reason, attempt.now, verdict.code)
    reopens = attempt.shipment.operation is Operation.REOPEN and target is not None and target.state == "gone"
    if target is not None and (reopens or attempt.shipment.operation is Operation.CREATE):
        target.state = "dead"
        attempt.tx.put_target(target)
    return verdict


def _report_more(delivery: DeliveryRow, fates: Sequence[Fate]) -> None:
    if fates:
        delivery.report = Raw(json.encode([*delivery.fates, *fates]))


def _delivered(attempt: _Attempt, delivery: DeliveryRow, target: TargetRow | None, outcome: Outcome) -> Verdict:
    assert isinstance(outcome, Delivered | Found)
    tx, shipment = attempt.tx, attempt.shipment
    if shipment.report:
        delivery.report = forms(shipment.report).stored
    if isinstance(outcome, Delivered):
        altered = [Fate(path, "approximated", "", why) for path, why in outcome.altered.items()]
        _report_more(delivery, altered)
    _end(tx, delivery, "delivered", "", attempt.now)
    row = tx.alert(delivery.alert) if delivery.alert is not None else None
    if shipment.renews:
        tx.remove_command(delivery.command)
    if target is not None and row is not None:
        _stands(attempt, delivery, row, target, outcome)
        return Verdict(state="delivered", is_recorded=not shipment.renews)
    return Verdict(state="delivered")


def _stands(
    attempt: _Attempt, delivery: DeliveryRow, row: AlertRow, target: TargetRow, outcome: Delivered | Found
) -> None:
    """Records the alert's state and ids at an upstream that took a delivery."""
    tx, shipment, upstream, now = attempt.tx, attempt.shipment, attempt.upstream, attempt.now
    if target.state == "dead":
        _void_dead(tx, delivery, now)
    if is_anothers(target, upstream):
        target.ids, target.seen = {}, {}
    if upstream.dialect.outbound.addressed_by == "key":
        target.key = target.key or shipment.delivery.key
    if shipment.takes_over is not None:
        _release(tx, shipment.takes_over, target)
    if isinstance(outcome, Delivered):
        target.ids = {**target.ids, **outcome.ids}
        target.seen = {**target.seen, **outcome.seen}
        target.seen = {name: seen for name, seen in target.seen.items() if name not in UNTIL_TAKEN}
        if shipment.operation in TELLING and target.seen.get(MUTED, (0,))[0] < delivery.command:
            target.seen.pop(MUTED, None)
        if outcome.ids:
            target.seen[SPOKEN] = upstream.dialect.name
        if upstream.dialect.outbound.addressed_by == "key" and upstream.dialect.outbound.list and outcome.ids.get("id"):
            _stand_for_adopted(tx, row, target, outcome.ids["id"], now)
        if shipment.operation in TELLING or target.renew_at is None or not row.is_open:  # others say nothing of that
            target.renew_at = now + int(outcome.renew * 1000) if outcome.renew and row.is_open else None
        named = tx.alert_by_id(row.scope, outcome.ids["id"]) if attempt.show and outcome.ids.get("id") else None
        for name in outcome.ids.values():
            tx.add_id(row.scope, name, target.upstream, row.id)
        if attempt.show and outcome.ids.get("id") and (named is None or named.id == row.id):
            tx.add_id(row.scope, row.shown, "gateway", row.id)
            row.shown = outcome.ids["id"]
            tx.update_alert(row)
    target.state = _state_after(shipment, upstream)
    tx.put_target(target)


def _stand_for_adopted(tx: Tx, row: AlertRow, target: TargetRow, name: str, now: int) -> None:
    """Deletes the alert that was adopted from a list where its own sender has sent it here since: the upstream merged
    the two by key. The adopted one has no commands, so nothing is lost. It is among the first that had this id, or it
    would not have been adopted; an alert that flaps has the same id each time, thousands of times."""
    for other in tx.alerts_by_party(row.scope, name, target.upstream, oldest=FIRST_KNOWN):
        if other.id == row.id or other.key is not None:
            continue
        tx.lock(f"alert {other.id}")
        entries = [key_entry(one.lane) for one in tx.targets(other.id)]
        if entries == [key_entry(target.lane)] and not tx.count_commands(other.id):
            other.is_deleted, other.is_open, other.updated_at = True, False, now
            tx.update_alert(other)


def _state_after(shipment: Shipment, upstream: Upstream) -> Literal["present", "gone"]:
    """The target's state after a delivery: a resolved alert is gone where alerts are found by key; where they have ids,
    only a deleted one is."""
    if shipment.operation is Operation.DELETE:
        return "gone"
    by_key = upstream.dialect.outbound.addressed_by == "key"
    return "gone" if by_key and shipment.operation is Operation.RESOLVE else "present"


def _release(tx: Tx, alert: int, target: TargetRow) -> None:
    """Moves the ids of an earlier alert, whose rule is taken over, to this target."""
    for other in tx.targets(alert):
        if other.upstream == target.upstream:
            target.ids = {**other.ids, **target.ids}
            target.seen = {**other.seen, **target.seen}
            other.state, other.ids, other.seen = "gone", {}, {}
            tx.put_target(other)
