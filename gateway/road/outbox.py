"""The outbox: decides what a command becomes at each upstream of its alert, and makes the deliveries.

A part of `gateway.road.road`, in its transaction: what an upstream can never be sent is found out here, and so is what
each cannot hold. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from msgspec import json

from gateway.canonical import Flat, Operation
from gateway.codes import Code
from gateway.config.choosing import key_entry
from gateway.config.config import Config, Upstream
from gateway.errors import Problem, ProblemKind
from gateway.ids import MakeId
from gateway.mapping.report import Fate, forms
from gateway.mapping.rows import Unmet
from gateway.mapping.translation import Said, translate, unmet_text
from gateway.road.accepted import Accepted, Step, Via
from gateway.road.requeue import send_again
from gateway.road.targets import Targets, stand_down
from gateway.road.terms import (
    ENDING,
    INSTEAD_OF,
    MUTED,
    OWED,
    TELLING,
    TURN,
    TURNS,
    group_of,
    in_terms_of,
    is_there,
    refused_rule,
    saying,
    unmoved,
    unsaid,
    unsaid_by_change,
    unsent,
    untold,
    what_to_send,
    with_muted,
)
from gateway.store import CommandBody, DeliveryFilter, DeliveryRow, TargetRow, Tx

USUAL_RANK = 3
"""The rank of an alert without a severity: that of an error."""
REPEATED_MS = 60_000
"""Milliseconds between two identical repeats of an open alert that are passed on; those between are only counted."""

LONGEST_ID = 18
"""The most digits that an id of ours has."""


class Outbox:
    """Puts commands into the outbox under one configuration. `name` is this gateway's own, by which it recognises what
    it has forwarded itself."""

    def __init__(self, config: Config, ids: MakeId, targets: Targets, name: str) -> None:
        self._config = config
        self._ids = ids
        self._targets = targets
        self._name = name

    def deliver(self, step: Step, target: TargetRow, before: Flat | None = None) -> None:
        """Puts the command into the outbox of one upstream, if there is anything to send, and reports on it."""
        upstream = self._config.upstreams.get(target.upstream)
        if step.muted and step.operation in TELLING:
            told = _kept_back(step, target) if upstream else None
        else:
            told = self._tell(step, target, upstream, before) if upstream else self._untold(step, target, before)
        if told is not None:
            step.accepted.reports[target.upstream] = told

    def _tell(self, step: Step, target: TargetRow, upstream: Upstream, before: Flat | None) -> tuple[Fate, ...] | None:
        """Puts the command into the outbox of an upstream; returns what becomes of its fields there, None while a
        fallback's turn has not come."""
        _note_group(step, upstream)
        is_owed = _pays(step, target)
        says = is_owed or _says_something(step, target, upstream)
        operation = in_terms_of(upstream, _meant_there(step, target), before, step.flat, says_something=says)
        if operation is None:
            return untold(step.asked, target)
        if target.state == "standby":
            self._stand_by(step, target, operation)
            return None
        before = before or {}
        sent, fates = what_to_send(upstream, operation)
        fates += unmoved(upstream, step.caller.dialect, step.asked, before, is_told=sent is not None)
        if sent is None:
            return fates
        if sent is Operation.REOPEN:
            self._targets.give_way(step, target, upstream)
        newest = _newest(step, target)
        delivery = self._delivery(step, target, sent, newest)
        is_known = target.state != "dead" and not is_owed
        if self.cut_loop(step.via, delivery, step.accepted, is_echo=_is_echo(step.tx, target)):
            self._put_out(step, target, delivery)
            return ()
        if is_known and _count_repeat(step, newest, delivery):
            self._put_out(step, target, delivery)
            return untold(step.asked, target)
        told, is_nothing = self._translated(step, target, upstream, sent, delivery, before)
        fates += told
        if is_nothing:
            return fates
        delivery.report = forms(fates).stored
        if delivery.state == "waiting":
            if newest is not None and target.upstream == step.accepted.primary:
                step.accepted.queued_behind |= step.tx.waits_before(delivery)
            if sent is Operation.UPDATE:
                _merge_waiting(step, target, delivery)
        if target.state == "absent":
            target.state = "dead" if delivery.state == "dead" else "waiting"
        self._put_out(step, target, delivery)
        return fates

    def is_told_anew(self, target: TargetRow, operation: Operation) -> bool:
        """Whether an upstream is told that an alert which only a silence had acknowledged ended and is open again. One
        that does not have the alert yet is told of the opening alone; one that was not told of the acknowledgement
        needs neither. A fallback stands by for the opening, as the others may not be there by now."""
        upstream = self._config.upstreams.get(target.upstream)
        if target.state == "standby":
            return True
        if upstream is None or target.state not in ("waiting", "present"):
            return target.state == "absent" and operation is Operation.REOPEN
        return what_to_send(upstream, Operation.ACKNOWLEDGE)[0] is Operation.ACKNOWLEDGE

    def _untold(self, step: Step, target: TargetRow, before: Flat | None) -> tuple[Fate, ...] | None:
        """Makes a dead letter of news for an upstream that is not in the configuration, to be sent once it is: nobody
        else would ever tell it."""
        if target.state == "standby" and step.operation in (*ENDING, Operation.REOPEN, Operation.ACKNOWLEDGE):
            self._stand_by(step, target, step.operation)  # its turn may come once it is back in the configuration
            return None
        if not _is_news(step, target, before) or self.has_seen(step.via):
            return None
        newest = step.tx.newest_in_lane(target.upstream, target.lane)
        delivery = self._delivery(step, target, step.operation, newest)
        text = f"upstream {target.upstream!r} is not in the configuration"
        _bury(step, delivery, text, Code.NO_UPSTREAM)
        if newest is not None and newest.code == Code.NO_UPSTREAM:
            _merge(step, newest, delivery)
        step.tx.tell(f"untold {target.upstream}")  # another replica may have the upstream in its configuration already
        self._put_out(step, target, delivery)
        return ()

    def _translated(
        self,
        step: Step,
        target: TargetRow,
        upstream: Upstream,
        sent: Operation,
        delivery: DeliveryRow,
        before: Flat,
    ) -> tuple[tuple[Fate, ...], bool]:
        """The fates of the fields at the upstream, and whether nothing is left to send. A delivery that can never be
        sent is made a dead letter, or raises `Problem` at the primary."""
        by_id, origin = upstream.dialect.outbound.addressed_by == "id", step.caller.dialect
        fates: tuple[Fate, ...] = ()
        try:
            if kept := unsent(upstream, target, sent, step.changed or ()):
                return kept, False
            if sent in TELLING:
                said = self._said(step, target, upstream)
                fates = said.report
                if step.operation is Operation.UPDATE:
                    fates += unsaid_by_change(upstream, origin, step.asked, before, step.row.dialect)
                if sent is Operation.UPDATE and not said.patch and is_there(target, upstream):
                    return fates, True
            elif sent is Operation.RESOLVE and by_id and step.changed:
                fates = self._said(step, target, upstream).report
            else:
                fates = unsaid(upstream, origin, step.asked, sent, step.changed or (), before, step.row.dialect)
        except Unmet as unmet:
            self._cannot(step, target, delivery, unmet_text(target.upstream, unmet), ProblemKind.UNMET)
        entry = key_entry(target.lane)
        if upstream.keys and sent in TELLING and (lacking := upstream.keys.lacks(entry)):
            self._cannot(step, target, delivery, f"upstream {target.upstream!r}: {lacking}", Code.NO_KEY)
        if entry and sent is Operation.CREATE and entry != upstream.entry(step.row.dialect, step.row.caller, step.flat):
            fates += (Fate("routing_key", "approximated", "", f"set by route {target.route}"),)
        if refused := refused_rule(upstream, sent, step.flat):
            self._cannot(step, target, delivery, refused, Code.RULES_REFUSED)
        return fates, False

    def _put_out(self, step: Step, target: TargetRow, delivery: DeliveryRow) -> None:
        step.tx.put_target(target)
        step.tx.insert_delivery(delivery)
        step.accepted.fanout += 1
        if delivery.state == "waiting":
            step.accepted.deliveries.append(delivery)

    def has_seen(self, via: Via) -> bool:
        """Whether a command came through this gateway before."""
        return bool(self._name) and self._name in via

    def cut_loop(self, via: Via, delivery: DeliveryRow, accepted: Accepted, *, is_echo: bool = False) -> bool:
        """Voids a delivery whose command came through this gateway before, or whose alert is an echo, and reports that.
        Returns whether it did."""
        if not self.has_seen(via) and not is_echo:
            return False
        delivery.state, delivery.finished_at = "void", delivery.created_at
        delivery.reason = "loop: this command already passed through this gateway; not forwarded again"
        delivery.code = accepted.dead[delivery.upstream] = Code.LOOP.value
        accepted.reports[delivery.upstream] = ()
        return True

    def _stand_by(self, step: Step, target: TargetRow, operation: Operation) -> None:
        """Makes a fallback's delivery, due when its turn comes, to be sent only if nobody else has taken the alert by
        then; voids it if the alert ends before."""
        due: int | None = None
        if operation in ENDING:
            stand_down(step, target, "the alert ended before this fallback's turn")
        elif _begins(step, target, operation):
            due = _take_turns(step, target, self._config.fallback_after(target.route))
        elif operation is Operation.ACKNOWLEDGE:
            self._acknowledge_behind(step, target)
        step.tx.put_target(target)
        if due is None:
            return
        newest = step.tx.newest_in_lane(target.upstream, target.lane)
        delivery = self._delivery(step, target, Operation.CREATE, newest)
        if not self.cut_loop(step.via, delivery, step.accepted, is_echo=_is_echo(step.tx, target)):
            delivery.created_at = delivery.due = target.seen[TURN] = due
            step.tx.put_target(target)
        _insert(step, delivery)

    def _acknowledge_behind(self, step: Step, target: TargetRow) -> None:
        """Queues an acknowledgement that comes before a fallback's turn right behind the page that waits for it: nobody
        else would ever tell the fallback, which would go on looking for somebody."""
        upstream = self._config.upstreams.get(target.upstream)  # where it is not there, its turn decides what is sent
        sent, fates = what_to_send(upstream, Operation.ACKNOWLEDGE) if upstream else (Operation.ACKNOWLEDGE, ())
        newest = step.tx.newest_in_lane(target.upstream, target.lane)
        waits = newest is not None and newest.state == "waiting" and newest.alert == step.row.id
        if sent is None or newest is None or not waits:
            return
        delivery = self._delivery(step, target, sent, newest)
        if not self.cut_loop(step.via, delivery, step.accepted):
            delivery.created_at = delivery.due = newest.due
        delivery.report = forms(fates).stored
        _insert(step, delivery)

    def _cannot(self, step: Step, target: TargetRow, delivery: DeliveryRow, text: str, code: str) -> None:
        """The upstream cannot take this: a refusal where it is the primary, else a dead letter."""
        if target.upstream == step.accepted.primary:
            raise Problem(ProblemKind.UNMET, text)
        _bury(step, delivery, text, code)

    def _said(self, step: Step, target: TargetRow, upstream: Upstream) -> Said:
        said = dict(step.asked.verbatim) if step.caller.dialect.name == step.row.dialect else None
        changed = with_muted(target, step.command, step.changed)
        body = CommandBody(changed=changed, said=said, dropped=step.asked.dropped)
        words = saying(step.row, target, step.flat, body, step.now, reading=step.asked.reading)
        return translate(words, upstream.destination)

    def _delivery(self, step: Step, target: TargetRow, sent: Operation, newest: DeliveryRow | None) -> DeliveryRow:
        """A delivery with an id above all others in its lane, even those that another replica's faster clock made."""
        severity = step.flat.get("severity")
        return DeliveryRow(
            id=self._ids(above=newest.id if newest else 0),
            command=step.command,
            alert=step.row.id,
            upstream=target.upstream,
            lane=target.lane,
            key=target.key,
            operation=sent,
            state="waiting",
            created_at=step.now,
            due=step.now,
            size=len(json.encode(step.row.body)),
            rank=USUAL_RANK if severity is None else int(severity),
        )


def _insert(step: Step, delivery: DeliveryRow) -> None:
    """Inserts a delivery for which nobody is woken: its turn has not come."""
    step.tx.insert_delivery(delivery)
    step.accepted.fanout += 1


def _bury(step: Step, delivery: DeliveryRow, text: str, code: str) -> None:
    """Makes a dead letter of a delivery before it is inserted."""
    delivery.state, delivery.finished_at, delivery.reason = "dead", step.now, text
    delivery.code = step.accepted.dead[delivery.upstream] = code


def _begins(step: Step, target: TargetRow, operation: Operation) -> bool:
    """Whether a fallback's turns are counted from this command on."""
    if operation in (Operation.CREATE, Operation.REOPEN) or target.upstream in step.accepted.anew:
        return True
    of_this = DeliveryFilter(upstream=target.upstream, alert=target.alert, limit=1)
    return operation is Operation.UPDATE and not step.tx.deliveries(of_this)


def _newest(step: Step, target: TargetRow) -> DeliveryRow | None:
    """The last delivery of the lane. Those that died because the upstream was not in the configuration are put back
    into the outbox first: sent after the new one they would undo it, or be refused for good as it is newer."""
    newest = step.tx.newest_in_lane(target.upstream, target.lane)
    if newest is None or newest.code != Code.NO_UPSTREAM:
        return newest
    dead = step.tx.deliveries(DeliveryFilter(state="dead", upstream=target.upstream, alert=newest.alert, after=0))
    send_again(step.tx, [one for one in dead if one.code == Code.NO_UPSTREAM], step.now, force=False)
    return step.tx.newest_in_lane(target.upstream, target.lane)


def _note_group(step: Step, upstream: Upstream) -> None:
    """Adds the id of its group to an alert, by which alerts that their caller sent together are found."""
    group = group_of(step.row, upstream) if step.operation in TELLING else None
    if group:
        step.tx.add_id(step.row.scope, group, upstream.name, step.row.id)


def _says_something(step: Step, target: TargetRow, upstream: Upstream) -> bool:
    """Whether a command has anything to tell an upstream: a change has. So has an identical repeat where alerts are
    found by key, as it says that the alert goes on; and where the upstream does not have the alert, as it was silenced,
    refused, or not taken for too long."""
    if step.changed:
        return True
    return step.is_repeat and (upstream.dialect.outbound.addressed_by == "key" or target.state in ("absent", "dead"))


def _meant_there(step: Step, target: TargetRow) -> Operation:
    """What a command means for one upstream: to acknowledge what is acknowledged is no news, but for an upstream that
    an update has added since, or that was told of the alert anew: it goes on looking for somebody."""
    is_again = step.asked.operation is Operation.ACKNOWLEDGE and step.operation is Operation.UPDATE
    has_it = target.state in ("waiting", "present")
    if not is_again or not has_it or step.changed or step.row.status != "acknowledged":
        return step.operation
    told = step.tx.deliveries(DeliveryFilter(upstream=target.upstream, alert=target.alert))
    is_told = any(one.operation == Operation.ACKNOWLEDGE and one.state != "void" for one in told)
    return step.operation if is_told else Operation.ACKNOWLEDGE


def _pays(step: Step, target: TargetRow) -> bool:
    """Whether a command is the first since a silence that can send what that kept back: no other is sent for it."""
    is_owed = step.operation in TELLING and target.seen.pop(OWED, False)
    if is_owed:
        step.tx.put_target(target)
    return bool(is_owed)


def _kept_back(step: Step, target: TargetRow) -> tuple[Fate, ...]:
    """Notes what a silence keeps back from an upstream that has the alert, to be sent once the silence is over."""
    if step.changed and target.state in ("waiting", "present"):
        paths = with_muted(target, step.command, step.changed)
        target.seen = {**target.seen, MUTED: [step.command, paths], OWED: True}
    step.tx.put_target(target)
    return (Fate("status", "kept", "", f"silenced by {step.muted}"),)


def _take_turns(step: Step, target: TargetRow, otherwise: float | None) -> int | None:
    """Counts a fallback's turns from now, notes them for each of its routes, and returns the earliest in milliseconds.
    The seconds noted with the target count, as the routes may have been renamed or removed. Without these (noted by an
    earlier release) `otherwise` counts; None where that is None too."""
    routes = target.seen.get(INSTEAD_OF, ())
    turns = target.seen.get(TURNS, ())
    if len(turns) != len(routes) or not turns:
        after = step.accepted.anew.get(target.upstream, otherwise)
        return None if after is None else step.now + int(after * 1000)
    turns = [[after, step.now + int(after * 1000)] for after, _ in turns]
    target.seen = {**target.seen, TURNS: turns}
    return min(int(due) for _, due in turns)


def _is_news(step: Step, target: TargetRow, before: Flat | None) -> bool:
    """Whether a command has news for an upstream out of the configuration that has the alert, or is about to. One that
    refused the alert is to be told what it says by now, as it would be if it were configured."""
    if target.state == "standby":  # for a fallback, its turn decides
        return False
    is_waiting = step.tx.is_waiting(step.row.id, target.upstream)
    is_ended = target.state == "gone" and not step.row.is_open  # else it is to be told that it is on again
    if step.operation is Operation.REOPEN or "enabled" in (step.changed or ()):
        return is_waiting or target.state in ("present", "gone", "dead")
    if not is_waiting and (is_ended or target.state not in ("present", "gone")):
        return target.state == "dead" and step.operation in TELLING and bool(step.changed)
    if step.operation is Operation.ACKNOWLEDGE:
        return before is None or before.get("status") != "acknowledged"
    return step.operation in (*ENDING, Operation.COMMENT) or bool(step.changed)


def _merge_waiting(step: Step, target: TargetRow, delivery: DeliveryRow) -> None:
    """Merges an update that waits right before this one in the lane into this one; but not one that is about to create
    the alert there, or has tried to: it would be looked for by its words, and some upstreams keep the first words."""
    earlier = step.tx.last_waiting(delivery.upstream, delivery.lane)
    if earlier is not None and (target.state == "present" or step.tx.waits_before(earlier)):
        _merge(step, earlier, delivery)


def _merge(step: Step, earlier: DeliveryRow, delivery: DeliveryRow) -> None:
    """Merges an update into a later one of the same alert, which then says both."""
    if not earlier.operation == delivery.operation == Operation.UPDATE or earlier.alert != delivery.alert:
        return
    delivery.merges = [*earlier.merges, earlier.command]
    delivery.due, delivery.attempts = max(delivery.due, earlier.due), earlier.attempts
    delivery.created_at = earlier.created_at
    earlier.state, earlier.finished_at, earlier.reason = "merged", step.now, f"merged into delivery {delivery.id}"
    earlier.code = ""
    step.tx.update_delivery(earlier)


def _count_repeat(step: Step, newest: DeliveryRow | None, delivery: DeliveryRow) -> bool:
    """Counts an identical repeat instead of sending it, where the target would merge it with what it has, or will have:
    it is `merged` then, and `due` says when the next repeat may be passed on. Returns whether it did."""
    if not step.is_repeat or newest is None or newest.alert != delivery.alert or newest.operation not in TELLING:
        return False
    if newest.state == "waiting":
        until = step.now + REPEATED_MS
    elif newest.state == "delivered":
        until = (newest.finished_at or 0) + REPEATED_MS
    else:
        until = newest.due if newest.state == "merged" else 0
    if until <= step.now:
        return False
    delivery.state, delivery.finished_at, delivery.due = "merged", step.now, until
    delivery.reason = f"identical repeat: counted, not sent; see delivery {newest.id}"
    return True


def _is_echo(tx: Tx, target: TargetRow) -> bool:
    """Whether an alert is another one that the upstream itself sent back, and is about to be sent there again: it has
    the key that was made for that other one there, which nobody else was told. A callback in a vendor's words does not
    name the gateways that it came through, and each round would be a new alert."""
    own = f"-{target.alert}"
    if target.key is None or not target.key.endswith(own):
        return False
    key = target.key.removesuffix(own)
    other = key.rpartition("-")[2]
    if not (other.isascii() and other.isdecimal()) or len(other) > LONGEST_ID:
        return False
    return any(one.upstream == target.upstream and one.key == key for one in tx.targets(int(other)))
