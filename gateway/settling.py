"""The road of a command, second half: what is sent when its turn comes, and what becomes of it.

Both are plain functions of a transaction, decided anew from what is committed at that moment, so that a restart
changes nothing. `prepare` decides from the state of (alert, upstream) what a delivery is now; `settle` records an
outcome. They must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import structlog
from msgspec import Struct, structs, to_builtins

from gateway.canonical import Operation, flatten
from gateway.codes import Code, Why
from gateway.config import Upstream
from gateway.dialect import Again, Changed, Delivered, Found, Missing, Outcome, Pending, Rejected, Sending, code_of
from gateway.errors import ProblemKind
from gateway.mapping import Unmet
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryFilter, DeliveryRow, TargetRow, Tx
from gateway.terms import ENDING, INSTEAD_OF, TELLING, may_look, saying
from gateway.translation import Fate, translate, unmet_text
from gateway.values import from_millis, iso_seconds
from gateway.wire import merged

log = structlog.get_logger()
TRIED_AT = "tried_at"
LATE = timedelta(minutes=2)
FOLDED_AFTER_MS = 600_000
UNCONFIRMED = "the upstream took it, and has yet to confirm it"


class Shipment(Struct, frozen=True, kw_only=True):
    """A delivery whose turn has come: the operation that is sent and everything its call may know.

    `sending` is None where nothing has to be sent; `void` or `dead` then say why, with the problem `code`. `tried_at`
    is when the first attempt began that may have made something at the upstream although its answer was lost; `via`
    names the gateways that the command came through; it `fires` where nobody else has taken the alert and its fallback
    is told, and `renews` what was told before.
    """

    delivery: DeliveryRow
    operation: Operation
    sending: Sending | None = None
    void: str = ""
    dead: str = ""
    code: str = ""
    takes_over: int | None = None
    tried_at: int | None = None
    report: tuple[Fate, ...] = ()
    via: tuple[str, ...] = ()
    fires: bool = False
    renews: bool = False


def prepare(tx: Tx, delivery: DeliveryRow, upstream: Upstream, now: int, strict: bool = False) -> Shipment:
    """Decides what a waiting delivery is now. `strict` asks an update not to overwrite what others changed there."""
    operation = Operation(delivery.operation)
    command = tx.command(delivery.command)
    if command is None:
        return _nothing(delivery, operation, Why(Code.GONE_HERE, "its command is gone"))
    if delivery.alert is None:
        return _by_key_alone(delivery, command, upstream, now)
    row = tx.alert(delivery.alert)
    targets = tx.targets(delivery.alert)
    target = next((one for one in targets if one.upstream == upstream.name), None)
    if row is None or target is None:
        return _nothing(delivery, operation, Why(Code.GONE_HERE, "its alert is gone"))
    needless = _needless(tx, delivery, row, target, targets) or _folded(tx, delivery, target, upstream, now)
    if needless:
        return _nothing(delivery, operation, needless)
    if command.body.renews and not row.is_open:
        return structs.replace(_nothing(delivery, operation, Why(Code.NOT_NEEDED, "it has ended since")), renews=True)
    takes_over = _revived(tx, target)
    command = _with_merged(tx, command, delivery)
    operation, void = _as_things_stand(operation, row, target, upstream)
    if operation not in TELLING and _passed_on(tx, row, target, delivery):
        void = Why(Code.PASSED_ON, "a newer alert has its key there")
    if void:
        return _nothing(delivery, operation, void)
    if operation not in upstream.dialect.outbound.calls:
        return _nothing(delivery, operation, Why(Code.NOT_OFFERED, f"{upstream.dialect.title} cannot {operation}"))
    shipment = _ship(delivery, operation, command, row, target, upstream, now, strict, takes_over)
    return structs.replace(shipment, via=command.body.via, fires=target.state == "standby", renews=command.body.renews)


def _nothing(delivery: DeliveryRow, operation: Operation, why: Why) -> Shipment:
    return Shipment(delivery=delivery, operation=operation, void=why.text, code=why.code)


def _needless(tx: Tx, delivery: DeliveryRow, row: AlertRow, target: TargetRow, targets: list[TargetRow]) -> Why | None:
    """Why a fallback need not be told: it is over, or somebody else has taken the alert."""
    if target.state != "standby":
        return None
    if not row.is_open:
        return Why(Code.NOT_NEEDED, "it ended before its turn came")
    delivered = {one.upstream for one in tx.deliveries_of(delivery.command) if one.state == "delivered"}
    taken = {
        other.upstream
        for other in targets
        if other.state != "standby"
        and (other.upstream in delivered or (other.state == "present" and not tx.is_waiting(row.id, other.upstream)))
    }
    by = [taken.intersection(route) for route in target.seen.get(INSTEAD_OF, ())]
    return Why(Code.NOT_NEEDED, f"{min(by[0])} has taken it") if by and all(by) else None


def _folded(tx: Tx, delivery: DeliveryRow, target: TargetRow, upstream: Upstream, now: int) -> Why | None:
    """Why a late page need not wake anybody: what it is about is over, and that waits to be told right behind it. So
    it is of what was to be told of the same alert before, and was not for that reason."""
    if upstream.on_backlog != "fold" or delivery.operation not in TELLING or target.state == "present":
        return None
    by_key = upstream.dialect.outbound.addressed_by == "key"
    if delivery.seen or (target.seen.get(TRIED_AT) is not None and not by_key):
        return None  # it may be there already, and then its end is told to what was found there
    same = tx.deliveries(DeliveryFilter(upstream=upstream.name, alert=delivery.alert))
    if not any(other.state == "waiting" and other.id > delivery.id and other.operation in ENDING for other in same):
        return None
    is_old = now - delivery.created_at > FOLDED_AFTER_MS
    if not is_old and not any(other.code == Code.FOLDED and other.id < delivery.id for other in same):
        return None
    log.info("delivery.folded", upstream=upstream.name, delivery=delivery.id, alert=delivery.alert)
    return Why(Code.FOLDED, "it was over before it could be told")


def fire(tx: Tx, shipment: Shipment) -> bool:
    """Tells the fallback from here on of everything; False where the alert ended at the last moment, or another
    replica has taken the delivery over."""
    delivery = tx.delivery(shipment.delivery.id)
    if delivery is None or delivery.state != "waiting" or delivery.alert is None:
        return False
    if delivery.fence != shipment.delivery.fence:
        return False
    tx.lock(f"alert {delivery.alert}")
    target = _target_of(tx, delivery)
    if target is None:
        return False
    target.state = "waiting"
    tx.put_target(target)
    return True


def _by_key_alone(delivery: DeliveryRow, command: CommandRow, upstream: Upstream, now: int) -> Shipment:
    operation = Operation(delivery.operation)
    akin = command.dialect == upstream.dialect.name
    sending = Sending(
        operation=operation,
        at=from_millis(now),
        body={},
        patch={},
        key=delivery.key,
        ids={},
        seen=delivery.seen,
        comment=command.body.comment,
        verbatim=command.body.said if akin else None,
        settings=upstream.settings,
        mark=str(delivery.id),
    )
    return Shipment(delivery=delivery, operation=operation, sending=sending, via=command.body.via)


def _revived(tx: Tx, target: TargetRow) -> int | None:
    """Takes over the rule that an earlier alert of the same key left there, switched off."""
    if target.revives is None or target.ids or target.state not in ("absent", "waiting"):
        return None
    for other in tx.targets(target.revives):
        if other.upstream == target.upstream and other.state == "present" and other.ids:
            target.ids, target.seen, target.state = other.ids, other.seen, "present"
            return other.alert
    return None


def _passed_on(tx: Tx, row: AlertRow, target: TargetRow, delivery: DeliveryRow) -> bool:
    """Whether the alert's key was another's already when this was asked: it would end or alter that one. So it is
    where the end of an older alert was refused there."""
    holders = tx.lane_holders(target.upstream, target.lane) if target.key is not None else []
    return any(row.id < holder < delivery.command for holder in holders)


def _as_things_stand(
    operation: Operation, row: AlertRow, target: TargetRow, upstream: Upstream
) -> tuple[Operation, Why | None]:
    """The operation that brings the upstream where the alert is, and why there is none."""
    if target.state == "present" and upstream.dialect.outbound.addressed_by == "id" and not target.ids.get("id"):
        unknown = Why(Code.ID_UNKNOWN, "nobody knows its id there")
        return (Operation.CREATE, None) if operation in TELLING else (operation, unknown)
    if target.state == "present":
        return (Operation.REOPEN, None) if operation is Operation.CREATE and target.ids else (operation, None)
    if target.state == "standby":
        waits = Why(Code.STANDING_BY, "it waits for its turn as a fallback")
        return operation, None if operation is Operation.CREATE else waits
    if target.state == "gone":
        if operation is Operation.REOPEN:
            return _again(upstream), None
        if operation is Operation.UPDATE and row.is_open and upstream.dialect.outbound.addressed_by == "id":
            return Operation.CREATE, None
        if operation is Operation.CREATE and row.is_open:
            return Operation.CREATE, None  # a reopen, in the words of an upstream that has no other
        return operation, Why(Code.ENDED_THERE, "it has ended there")
    if operation in TELLING:
        return Operation.CREATE, None
    may_be_there = target.seen.get(TRIED_AT) is not None and upstream.dialect.outbound.addressed_by == "key"
    if may_be_there and operation in ENDING:
        return operation, None  # of an attempt whose answer was lost: its end is harmless where it is not
    return operation, Why(Code.NEVER_THERE, "it never got there")


def _again(upstream: Upstream) -> Operation:
    by_key = upstream.dialect.outbound.addressed_by == "key"
    return Operation.REOPEN if by_key and Operation.REOPEN in upstream.dialect.outbound.calls else Operation.CREATE


def _with_merged(tx: Tx, command: CommandRow, delivery: DeliveryRow) -> CommandRow:
    """The command with what earlier commands changed, whose deliveries were merged into this one."""
    earlier = [found.body for merged_one in delivery.merges if (found := tx.command(merged_one))]
    if not earlier or command.body.changed is None:
        return command
    changed = dict.fromkeys(path for body in (*earlier, command.body) for path in body.changed or ())
    said = command.body.said
    for body in reversed(earlier):
        said = merged(body.said, said) if said is not None and body.said is not None else said
    return structs.replace(command, body=structs.replace(command.body, changed=tuple(changed), said=said))


def _ship(
    delivery: DeliveryRow,
    operation: Operation,
    command: CommandRow,
    row: AlertRow,
    target: TargetRow,
    upstream: Upstream,
    now: int,
    strict: bool,
    takes_over: int | None,
) -> Shipment:
    is_own = (delivery.operation == operation or command.body.after is None) and INSTEAD_OF not in target.seen
    present = row.body if not is_own or command.body.after is None else command.body.after
    late = _late_note(command.at, now) if operation in TELLING else ""
    body = command.body if is_own else CommandBody(dropped=command.body.dropped)
    at = row.updated_at if command.body.renews else command.at  # what is told again is told in the same words
    words = saying(row, target, flatten(present), body, at, late)
    try:
        said = translate(words, upstream.destination)
    except Unmet as unmet:
        text = unmet_text(upstream.name, unmet)
        return Shipment(delivery=delivery, operation=operation, dead=text, code=ProblemKind.UNMET)
    sending = Sending(
        operation=operation,
        at=from_millis(now),
        body=said.body,
        patch=said.body if takes_over else said.patch,
        key=delivery.key,  # not the target's: an alert that came back may have another by now
        ids=target.ids,
        seen={**target.seen, **delivery.seen},
        comment=command.body.comment,
        suffix=str(row.id),
        strict=strict,
        is_akin=row.dialect == upstream.dialect.name,
        verbatim=command.body.said if command.dialect == upstream.dialect.name else None,
        replaced=words.replaced,
        settings=upstream.settings,
        mark=str(delivery.id),
    )
    return Shipment(
        delivery=delivery,
        operation=operation,
        sending=sending,
        takes_over=takes_over,
        tried_at=target.seen.get(TRIED_AT),
        report=said.report,
    )


def _late_note(at: int, now: int) -> str:
    late = timedelta(milliseconds=now - at)
    if late <= LATE:
        return ""
    return f"Late by {int(late.total_seconds() // 60)} minutes: this was sent at {iso_seconds(from_millis(at))}."


# --- outcomes ------------------------------------------------------------------------------------------------


class Verdict(Struct, frozen=True, kw_only=True):
    """What a delivery came to, for whoever waits for it: `again` means not yet. It `is_recorded` unless the delivery
    was somebody else's by then."""

    state: Literal["delivered", "dead", "void", "again"]
    reason: str = ""
    code: str = ""
    kind: ProblemKind = ProblemKind.REFUSED
    due: int = 0
    changed: Changed | None = None
    is_recorded: bool = True


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
) -> Verdict:
    """Records the outcome of an attempt. `due` is when the next one may be made if it has to be repeated; `show`
    lets the caller know the alert by the upstream's own id from now on; `looked_up` says that an earlier attempt was
    found to have done it."""
    if shipment.delivery.alert is not None:
        tx.lock(f"alert {shipment.delivery.alert}")
    delivery = tx.delivery(shipment.delivery.id)
    if delivery is not None and delivery.state != "waiting" and _is_recorded(delivery, shipment.delivery):
        return Verdict(state=delivery.state, reason=delivery.reason, code=delivery.code, is_recorded=False)  # type: ignore[arg-type]
    if delivery is None or delivery.state != "waiting":
        return _not_ours("it was taken out of the outbox meanwhile")
    if delivery.fence != shipment.delivery.fence:
        return _not_ours("another replica has taken it over")
    delivery.attempts = shipment.delivery.attempts
    delivery.status = shipment.delivery.status
    target = _target_of(tx, delivery)
    if outcome is None:
        return _without_sending(tx, shipment, delivery, target, now)
    if target is not None and target.seen.get(TRIED_AT) != shipment.tried_at:
        target.seen[TRIED_AT] = shipment.tried_at
        tx.put_target(target)
    if isinstance(outcome, Pending):
        delivery.seen = {**delivery.seen, **outcome.seen}
    if isinstance(outcome, Again | Pending):
        reason = outcome.reason if isinstance(outcome, Again) else UNCONFIRMED
        return _again_or_never(
            tx, delivery, Verdict(state="again", reason=reason, code=code_of(outcome), due=due), target, upstream, now
        )
    if isinstance(outcome, Missing):
        return _missing(tx, shipment, delivery, target, now)
    if isinstance(outcome, Rejected | Changed):
        kind = outcome.kind if isinstance(outcome, Rejected) else ProblemKind.CONFLICT
        verdict = _dead(tx, shipment.operation, delivery, target, outcome.reason, code_of(outcome), now, kind)
        return structs.replace(verdict, changed=outcome) if isinstance(outcome, Changed) else verdict
    if shipment.tried_at is not None or looked_up:
        delivery.report = [*delivery.report, *to_builtins([_after_doubt(shipment, upstream, looked_up=looked_up)])]
    return _delivered(tx, shipment, delivery, target, outcome, now, show)


def _not_ours(reason: str) -> Verdict:
    return Verdict(state="void", reason=reason, code=Code.TAKEN_OVER, is_recorded=False)


def _is_recorded(now: DeliveryRow, then: DeliveryRow) -> bool:
    """Whether this very attempt was recorded before: the store did it, and could not say so any more."""
    return now.state in ("delivered", "dead") and (now.attempts, now.fence) == (then.attempts, then.fence)


def _after_doubt(shipment: Shipment, upstream: Upstream, *, looked_up: bool) -> Fate:
    """What was done about an attempt whose answer was lost: the report says it."""
    if looked_up:
        return Fate("id", "mapped", "", "the answer was lost; it was found there, and not sent again")
    if may_look(upstream):
        return Fate("id", "mapped", "", "the answer was lost; it was not found there, and sent again")
    return Fate("id", "mapped", "", "the answer was lost; it was sent again with the same key")


def told_elsewhere(tx: Tx, command: int) -> dict[str, Verdict]:
    """The verdicts on a command by upstream, as another replica recorded them."""
    return {
        row.upstream: Verdict(state=row.state, reason=row.reason, code=row.code)
        for row in tx.deliveries_of(command)
        if row.state in ("delivered", "dead", "void")
    }


def _target_of(tx: Tx, delivery: DeliveryRow) -> TargetRow | None:
    targets = tx.targets(delivery.alert) if delivery.alert is not None else []
    return next((target for target in targets if target.upstream == delivery.upstream), None)


def _end(
    tx: Tx, delivery: DeliveryRow, state: Literal["delivered", "dead", "void"], reason: str, now: int, code: str = ""
) -> None:
    delivery.state, delivery.reason, delivery.finished_at, delivery.code = state, reason, now, code
    delivery.seen = {}  # whoever sends it again starts anew
    tx.update_delivery(delivery)


def _without_sending(tx: Tx, shipment: Shipment, delivery: DeliveryRow, target: TargetRow | None, now: int) -> Verdict:
    if shipment.dead:
        return _dead(tx, shipment.operation, delivery, target, shipment.dead, shipment.code, now, ProblemKind.UNMET)
    _end(tx, delivery, "void", shipment.void, now, shipment.code)
    if shipment.renews:
        tx.remove_command(delivery.command)
        return Verdict(state="void", reason=shipment.void, is_recorded=False)
    if target and target.state in ("dead", "absent", "waiting"):
        _void_dead(tx, delivery, now)
        target.state = "gone" if shipment.operation in ENDING else target.state
        tx.put_target(target)
    return Verdict(state="void", reason=shipment.void, code=shipment.code)


def _void_dead(tx: Tx, delivery: DeliveryRow, now: int) -> None:
    """What died there before is no longer owed: a later command says it, or ended it."""
    dead = tx.deliveries(DeliveryFilter(state="dead", upstream=delivery.upstream, alert=delivery.alert))
    for other in dead:
        if other.id < delivery.id:
            _end(tx, other, "void", "superseded by a later command", now, Code.SUPERSEDED)


def _again_or_never(
    tx: Tx, delivery: DeliveryRow, again: Verdict, target: TargetRow | None, upstream: Upstream, now: int
) -> Verdict:
    if now - delivery.created_at > upstream.retry.max_age * 1000:
        tries = f" after {delivery.attempts} attempts" if delivery.attempts else ""
        text = f"given up{tries}: {again.reason}"
        return _dead(tx, Operation(delivery.operation), delivery, target, text, Code.GIVEN_UP, now)
    delivery.due, delivery.reason, delivery.code = again.due, again.reason, again.code
    tx.update_delivery(delivery)
    return again


def _missing(tx: Tx, shipment: Shipment, delivery: DeliveryRow, target: TargetRow | None, now: int) -> Verdict:
    row = tx.alert(delivery.alert) if delivery.alert is not None else None
    if target is not None:
        target.state, target.ids, target.seen, target.revives = "gone", {}, {}, None
    if shipment.operation in ENDING or row is None or not row.is_open or target is None:
        _end(tx, delivery, "delivered", "it was gone there already", now)
        if target is not None:
            tx.put_target(target)
        return Verdict(state="delivered")
    target.state = "absent"
    tx.put_target(target)
    delivery.seen = {}  # what was given for the update is nothing to a create
    delivery.due, delivery.reason, delivery.code = now, "it was gone there, so it is made again", Code.GONE_THERE
    tx.update_delivery(delivery)
    return Verdict(state="again", reason=delivery.reason, code=delivery.code, due=now)


def _dead(
    tx: Tx,
    operation: Operation,
    delivery: DeliveryRow,
    target: TargetRow | None,
    reason: str,
    code: str,
    now: int,
    kind: ProblemKind = ProblemKind.REFUSED,
) -> Verdict:
    _end(tx, delivery, "dead", reason, now, code)
    if target is not None and operation is Operation.CREATE:
        target.state = "dead"
        tx.put_target(target)
    return Verdict(state="dead", reason=reason, code=code, kind=kind)


def _delivered(
    tx: Tx,
    shipment: Shipment,
    delivery: DeliveryRow,
    target: TargetRow | None,
    outcome: Outcome,
    now: int,
    show: bool,
) -> Verdict:
    assert isinstance(outcome, Delivered | Found)
    if shipment.report and (shipment.operation != delivery.operation or shipment.fires):
        delivery.report = to_builtins(list(shipment.report))
    if isinstance(outcome, Delivered):
        altered = [Fate(path, "approximated", "", why) for path, why in outcome.altered.items()]
        delivery.report = [*delivery.report, *to_builtins(altered)]
    _end(tx, delivery, "delivered", "", now)
    row = tx.alert(delivery.alert) if delivery.alert is not None else None
    if shipment.renews:
        tx.remove_command(delivery.command)
    if target is None or row is None:
        return Verdict(state="delivered")
    if target.state == "dead":
        _void_dead(tx, delivery, now)
    if shipment.takes_over is not None:
        _release(tx, shipment.takes_over, target)
    if isinstance(outcome, Delivered):
        target.ids = {**target.ids, **outcome.ids}
        target.seen = {**target.seen, **outcome.seen}
        target.seen.pop(TRIED_AT, None)
        target.seen.pop(INSTEAD_OF, None)
        target.renew_at = now + int(outcome.renew * 1000) if outcome.renew and row.is_open else None
        named = tx.alert_by_id(row.scope, outcome.ids["id"]) if show and outcome.ids.get("id") else None
        for name in outcome.ids.values():
            tx.add_id(row.scope, name, target.upstream, row.id)
        if show and outcome.ids.get("id") and (named is None or named.id == row.id):
            tx.add_id(row.scope, row.shown, "gateway", row.id)
            row.shown = outcome.ids["id"]
            tx.update_alert(row)
    target.state = _state_after(shipment)
    tx.put_target(target)
    return Verdict(state="delivered", is_recorded=not shipment.renews)


def _state_after(shipment: Shipment) -> Literal["present", "gone"]:
    """An ended alert is gone where alerts are found by key; where they have ids, only deleting ends them."""
    if shipment.operation is Operation.DELETE:
        return "gone"
    by_key = shipment.sending is not None and shipment.sending.key is not None
    return "gone" if by_key and shipment.operation is Operation.RESOLVE else "present"


def _release(tx: Tx, alert: int, target: TargetRow) -> None:
    """The earlier alert hands its rule over: it has nothing there any more."""
    for other in tx.targets(alert):
        if other.upstream == target.upstream:
            target.ids = {**other.ids, **target.ids}
            target.seen = {**other.seen, **target.seen}
            other.state, other.ids, other.seen = "gone", {}, {}
            tx.put_target(other)
