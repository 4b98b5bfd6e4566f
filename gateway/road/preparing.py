"""The road of a command, second half: what is sent when a delivery's turn comes.

A plain function of a transaction: `prepare` decides from the state of (alert, upstream) what is sent, if anything is.
It decides by what is committed at that moment, so that a restart changes nothing. It must not know any vendor, HTTP, or
SQL.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from hashlib import sha256

import structlog
from msgspec import Struct, json, structs

from gateway.canonical import SERVER_OWNED, Alert, Operation, flatten
from gateway.codes import Code, Why
from gateway.config.config import Upstream
from gateway.errors import ProblemKind
from gateway.mapping.report import Fate
from gateway.mapping.rows import Unmet
from gateway.mapping.translation import translate, unmet_text
from gateway.mapping.values import from_millis, iso_seconds
from gateway.mapping.wire import Wire, merged
from gateway.outcome import Sending
from gateway.road.history import newest_first
from gateway.road.needed import Turn, folded, may_be_there, needless, superseded, taken_by, turns_of
from gateway.road.terms import (
    ENDING,
    INSTEAD_OF,
    TELLING,
    TRIED_AT,
    TRIED_FIRST,
    TRIED_WITH,
    group_of,
    in_terms_of,
    is_anothers,
    may_look,
    refused_rule,
    saying,
    speaks_as,
    what_to_send,
    with_muted,
)
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryRow, TargetRow, Tx

log = structlog.get_logger()
LATE = timedelta(minutes=2)
"""An alert that is sent later than this after its command has a note about that in its details."""


class Shipment(Struct, frozen=True, kw_only=True):
    """A delivery whose turn has come: the operation that is sent and everything its call may know.

    `sending` is None where nothing has to be sent; `void` or `dead` then say why, with the problem `code`. `takes_over`
    is an earlier alert whose rule there is switched on again; `tried_at` is when the first attempt began that may have
    made something at the upstream although its answer was lost; `via` names the gateways that the command came through.
    `fires` says that a fallback is told, as nobody else has taken the alert; `later` is the fallback's next turn, where
    all routes whose turn has come have taken the alert and others have not. `renews` says that it repeats what was told
    before. `as_of` is the last command of the state that is sent, where that is not the state which the delivery's own
    command left. `report` is what became of each field, where another operation is sent than the delivery's own report
    is about. `folds` says that the alert is over: it is not sent unless an earlier attempt has made it there. `trace`
    is that of its command's request.
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
    later: int | None = None
    renews: bool = False
    as_of: int | None = None
    folds: bool = False
    trace: str = ""

    @property
    def mark(self) -> str:
        """By which a gateway upstream recognises a repeat: only for comments, which have no key of their own."""
        return str(self.delivery.id) if self.operation is Operation.COMMENT else ""


def prepare(tx: Tx, delivery: DeliveryRow, upstream: Upstream, now: int, strict: bool = False) -> Shipment:
    """Decides what a waiting delivery sends now. `strict` asks an update not to overwrite what others changed there."""
    operation = Operation(delivery.operation)
    command = tx.command(delivery.command)
    if command is None:
        return _nothing(delivery, operation, Why(Code.GONE_HERE, "its command was removed from the store"))
    if delivery.alert is None:
        return _by_key_alone(delivery, command, upstream, now)
    row = tx.alert(delivery.alert)
    targets = tx.targets(delivery.alert)
    target = next((one for one in targets if one.upstream == upstream.name), None)
    if row is None or target is None:
        return _nothing(delivery, operation, Why(Code.GONE_HERE, "its alert was removed from the store"))
    is_left = is_anothers(target, upstream)
    delivery = _as_spoken_now(tx, delivery, row, target, upstream)
    turn = Turn(tx=tx, delivery=delivery, row=row, target=target, targets=targets, upstream=upstream, now=now)
    if (early := _not_now(turn)) is not None:
        return early
    if command.body.renews and not row.is_open:
        return structs.replace(_nothing(delivery, operation, Why(Code.NOT_NEEDED, "the alert has ended")), renews=True)
    takes_over = _revived(tx, target, upstream)
    operation = _in_its_terms(tx, command, delivery, upstream)
    command = _with_muted(_with_merged(tx, command, delivery), target)
    stands = _as_things_stand(operation, row, target, upstream)
    operation, why = (stands, None) if isinstance(stands, Operation) else (operation, stands)
    if why and why.code is Code.NEVER_THERE and is_left:
        why = Why(why.code, f"the alert was sent to another vendor under this name, never to {upstream.dialect.title}")
    if why := superseded(turn, operation) or why:
        return _nothing(delivery, operation, why)
    sent, _ = what_to_send(upstream, operation)  # again, as its dialect or settings may have changed since
    if sent is None:
        return _nothing(delivery, operation, Why(Code.NOT_OFFERED, f"{upstream.dialect.title} offers no {operation}"))
    shipment = _ship(turn, command, sent, takes_over, strict=strict)
    if shipment.sending and operation in ENDING and _is_last(tx, row, upstream):
        shipment = structs.replace(shipment, sending=structs.replace(shipment.sending, last=True))
    return structs.replace(
        shipment,
        via=command.body.via,
        trace=command.body.trace,
        fires=target.state == "standby",
        renews=command.body.renews,
        folds=may_be_there(turn) and may_look(upstream) and folded(turn) is not None,
    )


def _nothing(delivery: DeliveryRow, operation: Operation, why: Why) -> Shipment:
    return Shipment(delivery=delivery, operation=operation, void=why.text, code=why.code)


def _not_now(turn: Turn) -> Shipment | None:
    """The shipment of a delivery that need not be sent, or not yet; None where it is this delivery's turn."""
    tx, delivery, row, target, targets = turn.tx, turn.delivery, turn.row, turn.target, turn.targets
    operation = Operation(delivery.operation)
    why = needless(tx, delivery, row, target, targets)
    if not why and not may_be_there(turn) and (why := folded(turn)):
        log.info("delivery.folded", upstream=turn.upstream.name, delivery=delivery.id, alert=delivery.alert)
    if why:
        return _nothing(delivery, operation, why)
    turns = turns_of(target, delivery)
    if target.state != "standby" or len({due for _, due in turns}) < 2:  # the turn is the same for all its routes
        return None
    by = taken_by(tx, delivery, row, target, targets)
    later = min((due for (_, due), taken in zip(turns, by, strict=False) if not taken), default=turn.now)
    return Shipment(delivery=delivery, operation=operation, later=later) if later > turn.now else None


def fire(tx: Tx, shipment: Shipment) -> bool:
    """Has a fallback told everything from here on; returns False where the alert ended at the last moment, changed or
    was taken by another upstream since the shipment was prepared, or another replica has taken the delivery over.
    Nothing is queued for a fallback that stands by, so a change that is not in the shipment would never be told."""
    tx.lock(f"alert {shipment.delivery.alert}")  # before its delivery, in the order in which a command locks them
    delivery = tx.delivery(shipment.delivery.id)
    if delivery is None or delivery.state != "waiting" or delivery.alert is None:
        return False
    if delivery.fence != shipment.delivery.fence:
        return False
    if shipment.as_of is not None and shipment.as_of != last_command(tx, delivery.alert):
        return False
    row, targets = tx.alert(delivery.alert), tx.targets(delivery.alert)
    target = next((one for one in targets if one.upstream == delivery.upstream), None)
    if row is None or target is None or needless(tx, delivery, row, target, targets):
        return False
    target.state = "waiting"
    tx.put_target(target)
    return True


def last_command(tx: Tx, alert: int) -> int | None:
    """The id of an alert's last command that was not taken back."""
    return next((one.id for one in newest_first(tx, alert) if one.refused is None), None)


def target_of(tx: Tx, delivery: DeliveryRow) -> TargetRow | None:
    """The target of a delivery; None where it has no alert."""
    targets = tx.targets(delivery.alert) if delivery.alert is not None else []
    return next((target for target in targets if target.upstream == delivery.upstream), None)


def _by_key_alone(delivery: DeliveryRow, command: CommandRow, upstream: Upstream, now: int) -> Shipment:
    operation = Operation(delivery.operation)
    sending = Sending(
        operation=operation,
        at=from_millis(now),
        body={},
        patch={},
        key=delivery.key,
        ids={},
        seen=delivery.seen,
        comment=command.body.comment,
        verbatim=command.body.said if speaks_as(upstream, command.dialect) else None,
        settings=upstream.settings,
        mark=str(delivery.id),
    )
    said = command.body
    return Shipment(delivery=delivery, operation=operation, sending=sending, via=said.via, trace=said.trace)


def _as_spoken_now(tx: Tx, delivery: DeliveryRow, row: AlertRow, target: TargetRow, upstream: Upstream) -> DeliveryRow:
    """Adapts a delivery to an upstream whose dialect was replaced since: the alert at the other vendor is not here, and
    where alerts are now found by key, it needs one."""
    if is_anothers(target, upstream):
        target.ids, target.seen = {}, {}
        target.state = "absent" if target.state == "present" else target.state
    if upstream.dialect.outbound.addressed_by == "id" or delivery.key is not None:
        return delivery
    target.key = target.key or _late_key(tx, row, target)
    return structs.replace(delivery, key=target.key)


def _late_key(tx: Tx, row: AlertRow, target: TargetRow) -> str:
    """A key that no other alert has, the same at every attempt: made of the alert's own key or, without one, a digest
    of how the alert began, which cannot be guessed."""
    own = target.replaced.get("dedup_key") or row.body.dedup_key
    if isinstance(own, str) and own:
        return f"{own}-{row.id}"
    first = tx.command(row.id)
    began = json.encode([row.scope, row.id, row.created_at, first.body.after if first else None])
    return sha256(began).hexdigest()[:32]


def _revived(tx: Tx, target: TargetRow, upstream: Upstream) -> int | None:
    """Takes over the rule that an earlier alert of the same key left there, switched off; returns that alert's id."""
    if target.revives is None or target.ids or target.state not in ("absent", "waiting"):
        return None
    for other in tx.targets(target.revives):
        if is_anothers(other, upstream):
            continue
        if other.upstream == target.upstream and other.state == "present" and other.ids:
            target.ids, target.seen, target.state = other.ids, other.seen, "present"
            return other.alert
    return None


def _as_things_stand(operation: Operation, row: AlertRow, target: TargetRow, upstream: Upstream) -> Operation | Why:
    """The operation that brings the upstream to the alert's state, or why nothing is sent."""
    if target.state == "present":
        return _where_it_is(operation, target, upstream)
    if target.state == "standby":
        waits = Why(Code.STANDING_BY, "this fallback's turn has not come")
        return operation if operation is Operation.CREATE else waits
    by_key, is_tried = upstream.dialect.outbound.addressed_by == "key", target.seen.get(TRIED_AT) is not None
    if target.state != "gone" and operation in TELLING:
        return Operation.CREATE
    if is_tried and by_key and operation in ENDING:
        return operation  # an attempt whose answer was lost may have made it; if not, its end does no harm
    if target.state != "gone":
        return Why(Code.NEVER_THERE, "the alert never reached the upstream")
    if operation is Operation.REOPEN:
        return _again(upstream)
    if operation is Operation.UPDATE and row.is_open and not by_key:
        return Operation.CREATE
    if operation is Operation.CREATE and (row.is_open or (is_tried and not by_key)):
        return Operation.CREATE  # a reopen, at an upstream that has only creates for it
    return Why(Code.ENDED_THERE, "the alert has already ended there")


def _where_it_is(operation: Operation, target: TargetRow, upstream: Upstream) -> Operation | Why:
    """The operation for an upstream that has the alert, open or not."""
    if upstream.dialect.outbound.addressed_by == "id" and not target.ids.get("id"):
        unknown = Why(Code.ID_UNKNOWN, "its id at the upstream is unknown")
        return Operation.CREATE if operation in TELLING else unknown
    if operation is Operation.REOPEN:
        return _again_there(upstream)
    return Operation.REOPEN if operation is Operation.CREATE and target.ids else operation


def _again_there(upstream: Upstream) -> Operation:
    """What a reopen becomes where the alert never ended at the upstream, as with a rule that was switched off from the
    start and wakes somebody only now: an update where alerts are found by key, unless none can make it wake anybody."""
    outbound = upstream.dialect.outbound
    is_updated = outbound.addressed_by == "key" and Operation.UPDATE in outbound.calls and not outbound.reopens_anew
    return Operation.UPDATE if is_updated else Operation.REOPEN


def _again(upstream: Upstream) -> Operation:
    """What a reopen becomes where the alert has ended at the upstream."""
    by_key = upstream.dialect.outbound.addressed_by == "key"
    return Operation.REOPEN if by_key and Operation.REOPEN in upstream.dialect.outbound.calls else Operation.CREATE


def _with_merged(tx: Tx, command: CommandRow, delivery: DeliveryRow) -> CommandRow:
    """The command with the changes of earlier ones whose deliveries were merged into this one. If any of these is
    purged by now, the whole alert counts as changed, rather than less than was asked."""
    if not delivery.merges or command.body.changed is None:
        return command
    found = [tx.command(merged_one) for merged_one in delivery.merges]
    earlier = [one.body for one in found if one is not None]
    if len(earlier) < len(found) and command.body.after is not None:
        changed = tuple(path for path in flatten(command.body.after) if path not in SERVER_OWNED)
        return structs.replace(command, body=structs.replace(command.body, changed=changed, said=None))
    paths = dict.fromkeys(path for body in (*earlier, command.body) for path in body.changed or ())
    said = command.body.said
    for body in reversed(earlier):
        said = merged(body.said, said) if said is not None and body.said is not None else said
    return structs.replace(command, body=structs.replace(command.body, changed=tuple(paths), said=said))


def _with_muted(command: CommandRow, target: TargetRow) -> CommandRow:
    """The command with the earlier changes that a silence kept back from the upstream."""
    changed = with_muted(target, command.id, command.body.changed)
    if changed == command.body.changed:
        return command
    return structs.replace(command, body=structs.replace(command.body, changed=changed, said=None))


def _in_its_terms(tx: Tx, command: CommandRow, delivery: DeliveryRow, upstream: Upstream) -> Operation:
    """What the delivery's operation is in the upstream's terms. For an update that was decided when it came, unless the
    upstream was not in the configuration then: only now is it known whether switching a rule off ends it there."""
    operation = Operation(delivery.operation)
    first = tx.command(delivery.merges[0]) if delivery.merges else command
    if operation is not Operation.UPDATE or first is None or first.body.before is None or command.body.after is None:
        return operation
    before, after = {"enabled": first.body.before.enabled}, {"enabled": command.body.after.enabled}
    return in_terms_of(upstream, operation, before, after, says_something=True) or operation


def _is_last(tx: Tx, row: AlertRow, upstream: Upstream) -> bool:
    """Whether no other alert of the group is open that the caller sent together. Decided when the end is sent, by what
    has been accepted: an alert that is sent meanwhile says itself that the group is open."""
    group = group_of(row, upstream)
    return group is not None and not tx.has_open_kin(row.scope, group, upstream.name, row.id)


def _ship(turn: Turn, command: CommandRow, operation: Operation, takes_over: int | None, *, strict: bool) -> Shipment:
    """The shipment of an operation in the upstream's words; a dead one where the upstream requires what is missing, or
    takes no rules."""
    delivery, row, target, upstream = turn.delivery, turn.row, turn.target, turn.upstream
    asked = (operation, Operation.REOPEN) if operation is Operation.UPDATE else (operation,)
    is_own = (delivery.operation in asked or command.body.after is None) and INSTEAD_OF not in target.seen
    present, as_of = _state(turn, command, is_own=is_own)
    flat = flatten(present)
    refused = refused_rule(upstream, operation, flat)
    if refused and not command.body.renews:  # again, as it may be sent again, or have waited since before a reload
        return Shipment(delivery=delivery, operation=operation, dead=refused, code=Code.RULES_REFUSED)
    late = _late_note(command.at, turn.now) if operation in TELLING else ""
    body = command.body if is_own else CommandBody(dropped=command.body.dropped)
    at = row.updated_at if command.body.renews else command.at  # a renewal is sent in the same words each time
    words = saying(row, target, flat, body, at, late=late)
    try:
        said = translate(words, upstream.destination)
    except Unmet as unmet:
        text = unmet_text(upstream.name, unmet)
        return Shipment(delivery=delivery, operation=operation, dead=text, code=ProblemKind.UNMET)
    akin = command.dialect == upstream.dialect.name == row.dialect
    is_understood = akin or (operation not in TELLING and speaks_as(upstream, command.dialect))
    sending = Sending(
        operation=operation,
        at=from_millis(turn.now),
        body=said.body,
        patch=_instead_of(turn, takes_over, said.body) if takes_over else said.patch,
        key=delivery.key,  # not the target's: an alert that came back may have another by now
        ids=target.ids,
        seen={**target.seen, **delivery.seen},
        comment=command.body.comment,
        suffix=str(row.id),
        strict=strict,
        is_akin=row.dialect == upstream.dialect.name,
        verbatim=command.body.said if is_understood else None,
        replaced=words.replaced,
        settings=upstream.settings,
        mark=str(delivery.id),
        changes=bool(body.changed),
        tried=_tried(turn),
    )
    return Shipment(
        delivery=delivery,
        operation=operation,
        sending=sending,
        takes_over=takes_over,
        tried_at=target.seen.get(TRIED_AT),
        report=said.report if operation != delivery.operation or target.state == "standby" else (),
        as_of=as_of,
    )


def _instead_of(turn: Turn, earlier: int, body: Wire) -> Wire:
    """The whole alert as an update of the rule that an earlier alert left there: what only that one said is cleared."""
    row = turn.tx.alert(earlier)
    left = next((one for one in turn.tx.targets(earlier) if one.upstream == turn.upstream.name), None)
    if row is None or left is None:
        return body
    words = saying(row, left, flatten(row.body), CommandBody(), row.updated_at)
    with contextlib.suppress(Unmet):
        said = translate(words, turn.upstream.destination).body
        gone = (name for name, value in said.items() if name not in body and not isinstance(value, dict))
        return {**dict.fromkeys(gone), **body}
    return body


def _tried(turn: Turn) -> Wire:
    """The whole alert in the words of the first attempt that may have made it there: a vendor that knows an alert by
    what it says finds it by these alone. Empty where nothing is in doubt, or the alert is found by an id."""
    row, target, upstream = turn.row, turn.target, turn.upstream
    by_key = upstream.dialect.outbound.addressed_by == "key"
    if not by_key or target.seen.get(TRIED_AT) is None or target.state in ("present", "gone"):
        return {}
    first = target.seen.get(TRIED_FIRST)  # none if an earlier release noted the doubt
    command = turn.tx.command(first) if first is not None else None
    if command is None or command.body.after is None:
        return {}
    words = saying(row, target, flatten(command.body.after), CommandBody(), command.at)
    with contextlib.suppress(Unmet):
        return translate(words, upstream.destination).body
    return {}


def _state(turn: Turn, command: CommandRow, *, is_own: bool) -> tuple[Alert, int | None]:
    """The state of the alert that is sent, and its last command where that is not the delivery's own. An alert whose
    answer was lost is looked for by its words, so every attempt says the same: the state that its own command left or,
    where the alert's present state is sent, the one of the first attempt."""
    left = command.body.after
    is_of_this = is_own or turn.delivery.operation == Operation.UPDATE
    return (left, None) if left is not None and is_of_this else _as_tried(turn)


def _as_tried(turn: Turn) -> tuple[Alert, int | None]:
    """The alert's state now, or at this delivery's first attempt whose answer was lost; and the last command of that
    state."""
    last = last_command(turn.tx, turn.row.id)
    tried, as_of = turn.target.seen.get(TRIED_WITH, (None, None))
    then = turn.tx.command(as_of) if tried == turn.delivery.id and as_of != last else None
    if then is None or then.body.after is None:
        return turn.row.body, last
    return then.body.after, then.id


def _late_note(at: int, now: int) -> str:
    late = timedelta(milliseconds=now - at)
    if late <= LATE:
        return ""
    return f"Late by {int(late.total_seconds() // 60)} minutes: this was sent at {iso_seconds(from_millis(at))}."
