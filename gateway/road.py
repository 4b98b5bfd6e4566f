"""The road of a command, first half: from what a caller asked to what is committed.

`Road.accept` is a plain function of a transaction. It finds the alert, lays the command over it, chooses upstreams,
finds out what each of them cannot hold, and writes the alert, its ids and its deliveries together. What a caller
is refused is raised as a `Problem` before anything is written. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import json, to_builtins

from gateway.canonical import SERVER_OWNED, Flat, Operation, flatten, in_order, lay_over, plain, unflatten
from gateway.carry import restore
from gateway.changing import meaning_of, resolve_hints, stamp, without_implied
from gateway.choosing import key_entry, lane, same_entries
from gateway.codes import Code
from gateway.config import Config, Upstream
from gateway.dialect import Command, Dialect, Ref
from gateway.errors import Problem, ProblemKind
from gateway.ids import MakeId
from gateway.mapping import Unmet
from gateway.muting import muting
from gateway.routing import Choice, choose, taking
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryFilter, DeliveryRow, TargetRow, Tx
from gateway.terms import (
    ENDING,
    INSTEAD_OF,
    TELLING,
    in_terms_of,
    is_there,
    refuses_rules,
    saying,
    unsaid,
    what_to_send,
)
from gateway.translation import Fate, Said, translate, unmet_text
from gateway.values import from_millis, millis
from gateway.wire import Wire, merged

Via = tuple[str, ...]
"""The gateways that a command came through, by their own names."""
USUAL_RANK = 3
"""Where an alert says no severity: as an error."""
REPEATED_MS = 60_000
"""An identical repeat of an open alert is passed on once a minute; the others are counted."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the dialect it speaks, its name, and the scope its alerts belong to."""

    dialect: Dialect
    name: str
    scope: str


@dataclass(kw_only=True)
class Accepted:
    """What was committed for one command: the alert as it is now, the deliveries on their way, and per upstream
    the report; `dead` names the deliveries that can never be sent, with the problem code, `routes` the routes that it
    took, and why."""

    command: int
    alert: AlertRow | None
    primary: str | None = None
    deliveries: list[DeliveryRow] = field(default_factory=list)
    reports: dict[str, tuple[Fate, ...]] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    is_new: bool = False
    fanout: int = 0
    queued_behind: bool = False


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One command being accepted: everything that stays the same over its upstreams."""

    tx: Tx
    asked: Command
    operation: Operation
    caller: Caller
    command: int
    now: int
    row: AlertRow
    flat: Flat
    changed: tuple[str, ...] | None
    accepted: Accepted
    via: tuple[str, ...] = ()
    muted: str = ""

    @property
    def is_repeat(self) -> bool:
        """Whether it says again what is known already, as senders do that know nothing of keys."""
        return self.asked.operation is Operation.CREATE and self.operation is Operation.UPDATE and not self.changed


class Road:
    """Accepts commands under one configuration. `ids` makes new ids, `invent` keys that cannot be guessed; `name` is
    this gateway's own, by which it knows what it has forwarded itself."""

    def __init__(
        self,
        config: Config,
        ids: MakeId,
        invent: Callable[[], str] = lambda: secrets.token_hex(16),
        name: str = "",
    ) -> None:
        self._config = config
        self._ids = ids
        self._invent = invent
        self._name = name

    def accept(
        self, tx: Tx, asked: Command, caller: Caller, request: int, command: int, now: int, via: Via = ()
    ) -> Accepted:
        """Accepts one command in a transaction; raises `Problem` where it is refused."""
        found = self._find(tx, asked, caller)
        if found is not None:
            return self._change(tx, found, asked, caller, request, command, now, via)
        if asked.operation is Operation.CREATE:
            return self._create(tx, asked, caller, request, command, now, via)
        if asked.ref and (asked.ref.key or asked.answers_anyway):
            return self._without_alert(tx, asked, caller, request, command, now, via)
        raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")

    def end(self, tx: Tx, row: AlertRow, dialect: Dialect, command: int, now: int) -> Accepted:
        """Resolves an alert of which its sender says nothing any more, in the sender's name."""
        asked = Command(
            operation=Operation.RESOLVE, ref=Ref(id=row.shown), comment="its sender said nothing of it any more"
        )
        return self._change(tx, row, asked, Caller(dialect, row.caller, row.scope), command, command, now, ())

    def _find(self, tx: Tx, asked: Command, caller: Caller) -> AlertRow | None:
        """The alert that is meant, kept to this transaction: what another replica changes in it comes before or
        after, and so does its opening under the same key."""
        key = asked.patch.get("dedup_key") if asked.ref is None else asked.ref.key
        key = caller.dialect.same_key(key) if key else None
        if key is not None:
            tx.lock(f"key {caller.scope} {key}")
        found = self._found(tx, asked, caller, key)
        while found is not None and tx.lock(f"alert {found.id}"):
            again = self._found(tx, asked, caller, key)
            if again is None or again.id == found.id:
                return again
            found = again
        return found

    def _found(self, tx: Tx, asked: Command, caller: Caller, key: str | None) -> AlertRow | None:
        if asked.ref is not None and asked.ref.id is not None:
            return tx.alert_by_id(caller.scope, asked.ref.id)
        return tx.alert_by_key(caller.scope, key) if key is not None else None

    # --- a new alert -----------------------------------------------------------------------------------

    def _create(
        self, tx: Tx, asked: Command, caller: Caller, request: int, command: int, now: int, via: Via
    ) -> Accepted:
        dialect = caller.dialect
        flat = self._restored({**{hint.path: hint.value for hint in asked.hints}, **asked.patch}, asked, dialect)
        flat = in_order({"kind": dialect.kind, **flat, "status": "firing", "created_at": from_millis(now)})
        flat["updated_at"] = flat["created_at"]
        if asked.invents_key and not flat.get("dedup_key"):
            flat["dedup_key"] = self._invent()
        key = flat.get("dedup_key") or None
        has_name = dialect.unique_names and flat.get("summary") and not self._has_seen(via)
        name = str(flat["summary"]) if has_name else None  # what comes back has the name of what went out
        if name is not None:
            tx.lock(f"name {caller.scope} {name}")
        if name is not None and tx.alert_by_name(caller.scope, name):
            raise Problem(ProblemKind.NAME_TAKEN, f"The name is already used: {name}", field="name")
        chosen = self._chosen(caller, flat)
        row = AlertRow(
            id=command,
            scope=caller.scope,
            dialect=dialect.name,
            caller=caller.name,
            shown=dialect.shown_id(command),
            key=dialect.same_key(key) if key else None,
            name=name,
            status="firing",
            resource=flat.get("resource"),
            is_open=True,
            version=1,
            created_at=now,
            updated_at=now,
            body=unflatten(flat),
            verbatim=self._words(asked, chosen, dialect),
            ends_at=_end_of(flat),
        )
        accepted = Accepted(command=command, alert=row, is_new=True)
        step = _Step(
            tx=tx,
            asked=asked,
            operation=Operation.CREATE,
            caller=caller,
            command=command,
            now=now,
            row=row,
            flat=flat,
            changed=None,
            accepted=accepted,
            via=via,
            muted=_muted(tx, caller, flat, now),
        )
        tx.insert_alert(row)
        accepted.primary = chosen[0].upstream if chosen else None
        accepted.routes.update({} if chosen else self._thrown_away(caller, flat))
        for position, choice in enumerate(chosen):
            self._deliver(step, self._new_target(step, choice, position))
        body = CommandBody(after=row.body, said=row.verbatim, dropped=asked.dropped, via=via)
        self._record(step, request, Operation.CREATE, body)
        return accepted

    def _restored(self, flat: Flat, asked: Command, dialect: Dialect) -> Flat:
        """What travelled in the vendor's free-form container is put back, unless we stand in for the vendor."""
        if self._config.restores or asked.carried is None:
            return restore(flat, asked.carried)
        return dialect.mapping.held(flat, asked.carried)

    def _chosen(self, caller: Caller, flat: Flat) -> tuple[Choice, ...]:
        chosen = choose(self._config.routes, caller.dialect.name, caller.name, flat)
        if chosen is None:
            raise Problem(
                ProblemKind.UNROUTED,
                f"no entry of `routes` takes this alert of {caller.dialect.name}/{caller.name}; "
                "add one, or a last one without `when`",
                field="routes",
            )
        return chosen

    def _thrown_away(self, caller: Caller, flat: Flat) -> dict[str, str]:
        """The routes that lead nowhere, and why they took it: that is what somebody will ask about."""
        took = taking(self._config.routes, caller.dialect.name, caller.name, flat)
        return {route.name: route.why for route in took}

    def _words(self, asked: Command, chosen: tuple[Choice, ...], dialect: Dialect) -> Wire | None:
        """The caller's own words are kept only where an upstream speaks its dialect."""
        akin = any(self._config.upstreams[choice.upstream].dialect.name == dialect.name for choice in chosen)
        return dict(asked.verbatim) if akin else None

    def _new_target(self, step: _Step, choice: Choice, position: int) -> TargetRow:
        upstream = self._config.upstreams[choice.upstream]
        outbound = upstream.dialect.outbound
        step.accepted.routes[choice.route] = choice.why
        target = TargetRow(
            alert=step.row.id,
            upstream=choice.upstream,
            position=position,
            lane=_lane(upstream, choice, step.caller, f"alert {step.row.id}", step.flat),
            key=None,
            state="standby" if choice.after is not None else "absent",
            route=choice.route,
            replaced=plain(choice.replaced),
            seen={} if choice.after is None else {INSTEAD_OF: choice.instead_of},
        )
        if outbound.addressed_by == "key":
            target.key = self._free_key(step, upstream, choice.replaced, target.lane)
            target.lane = same_entries(target.lane, f"key {upstream.dialect.same_key(target.key)}")
        elif step.row.key and upstream.on_resolve == "disable":
            self._revive(step, target)
        return target

    def _free_key(self, step: _Step, upstream: Upstream, replaced: Flat, like: str) -> str:
        """The key the alert will have there: its own unless another scope's open alert holds it, else a new one."""
        key = replaced.get("dedup_key") or step.flat.get("dedup_key") or self._invent()
        wanted = same_entries(like, f"key {upstream.dialect.same_key(key)}")
        step.tx.lock(f"lane {upstream.name} {wanted}")
        holders = step.tx.lane_holders(upstream.name, wanted)
        return f"{key}-{step.row.id}" if any(holder != step.row.id for holder in holders) else key

    def _give_way(self, step: _Step, target: TargetRow, upstream: Upstream) -> None:
        """An alert that comes back finds its key there taken by another's, which was opened meanwhile. It stays on its
        lane while something of it waits there: its own end, for one, must not come after it."""
        holders = step.tx.lane_holders(target.upstream, target.lane)
        if target.key is None or not any(holder != step.row.id for holder in holders):
            return
        suffix = f"-{step.row.id}"
        target.key = target.key.removesuffix(suffix) + suffix
        if not step.tx.is_waiting(step.row.id, target.upstream):
            target.lane = same_entries(target.lane, f"key {upstream.dialect.same_key(target.key)}")

    def _revive(self, step: _Step, target: TargetRow) -> None:
        """The key last named an alert whose rule may still stand there, switched off: it is that rule's turn."""
        assert step.row.key
        earlier = step.tx.last_alert_by_key(step.caller.scope, step.row.key, step.row.id)
        if earlier is None or earlier.is_deleted:
            return
        for other in step.tx.targets(earlier.id):
            is_same_key = key_entry(other.lane) == key_entry(target.lane)
            if other.upstream == target.upstream and other.state not in ("gone", "dead") and is_same_key:
                target.lane, target.revives = other.lane, earlier.id

    # --- an alert that is there ------------------------------------------------------------------------

    def _change(
        self, tx: Tx, row: AlertRow, asked: Command, caller: Caller, request: int, command: int, now: int, via: Via
    ) -> Accepted:
        if asked.version is not None and asked.version != row.version:
            raise Problem(
                ProblemKind.CONFLICT,
                f"Conflict version: {asked.version} is not the current version {row.version}",
                field="version",
            )
        before, has_seen = flatten(row.body), self._has_seen(via)
        patch = without_implied(resolve_hints(before, asked), before, caller.dialect)
        if has_seen:  # an echo prolongs nothing: what renews itself would never end
            patch.pop("ends_at", None)
        after, changed = lay_over(before, patch)
        changed = tuple(path for path in changed if path not in SERVER_OWNED)
        operation = meaning_of(asked.operation, row)
        muted = _muted(tx, caller, after, now)
        is_said_again = asked.is_resend and operation is Operation.UPDATE and not changed
        if is_said_again and not has_seen and (muted or _is_told(tx, row)):
            return _prolong(tx, row, after, command)
        stamp(after, operation, now)
        body = CommandBody(
            after=unflatten(after),
            changed=changed,
            said=self._own_words(asked, row, caller),
            comment=asked.comment,
            before=row.body,
            said_before=row.verbatim,
            dropped=asked.dropped,
            via=via,
        )
        self._lay(tx, row, after, operation, caller, now)
        if row.verbatim is not None and body.said is not None and operation in TELLING:
            row.verbatim = merged(row.verbatim, body.said)
        step = _Step(
            tx=tx,
            asked=asked,
            operation=operation,
            caller=caller,
            command=command,
            now=now,
            row=row,
            flat=after,
            changed=changed,
            accepted=Accepted(command=command, alert=row),
            via=via,
            muted=muted,
        )
        tx.update_alert(row)
        targets = tx.targets(row.id)
        targets += self._widened(step, targets)
        step.accepted.primary = next((one.upstream for one in targets if one.upstream in self._config.upstreams), None)
        for target in targets:
            self._deliver(step, target, before)
        self._record(step, request, operation, body)
        return step.accepted

    def _own_words(self, asked: Command, row: AlertRow, caller: Caller) -> Wire | None:
        """The caller's words, where an upstream speaks its dialect and the alert was made in that dialect too."""
        return dict(asked.verbatim) if row.verbatim is not None and caller.dialect.name == row.dialect else None

    def _lay(self, tx: Tx, row: AlertRow, after: Flat, operation: Operation, caller: Caller, now: int) -> None:
        """Puts the changed state into the row, as far as keys and names allow."""
        dialect = caller.dialect
        if row.name is not None and after.get("summary") and row.name != after["summary"]:
            row.name = str(after["summary"])
            tx.lock(f"name {row.scope} {row.name}")
            holder = tx.alert_by_name(row.scope, row.name)
            if holder and holder.id != row.id:
                raise Problem(ProblemKind.NAME_TAKEN, f"The name is already used: {row.name}", field="name")
        if operation is Operation.REOPEN and row.key and tx.alert_by_key(row.scope, row.key):
            raise Problem(ProblemKind.CONFLICT, f"a newer alert has the key {row.key}", field=dialect.name)
        if operation is not Operation.COMMENT:
            row.version += 1
            after["updated_at"] = from_millis(now)
            row.updated_at = now
        row.status = after["status"]
        row.resource = after.get("resource")
        row.is_deleted = operation is Operation.DELETE
        row.is_open = not row.is_deleted and row.status != "resolved"
        row.ends_at = _end_of(after)
        row.body = unflatten(after)

    def _widened(self, step: _Step, targets: list[TargetRow]) -> list[TargetRow]:
        """At an update, upstreams that are chosen now and were not before are added; none is taken away. A fallback
        that is chosen outright waits for its turn no more."""
        if step.operation is not Operation.UPDATE:
            return []
        chosen = choose(self._config.routes, step.caller.dialect.name, step.caller.name, step.flat) or ()
        known = {target.upstream for target in targets}
        outright = {choice.upstream for choice in chosen if choice.after is None}
        for target in targets:
            if target.state == "standby" and target.upstream in outright:
                _stand_down(step, target, "it is told without waiting for its turn")
                target.state, target.seen = "absent", {}
        new = [choice for choice in chosen if choice.upstream not in known]
        return [self._new_target(step, choice, len(targets) + index) for index, choice in enumerate(new)]

    # --- per upstream ----------------------------------------------------------------------------------

    def _deliver(self, step: _Step, target: TargetRow, before: Flat | None = None) -> None:
        """Puts the command into the outbox of one upstream, if there is anything to send, and reports on it."""
        upstream = self._config.upstreams.get(target.upstream)
        if upstream is None:
            return
        if step.muted and step.operation in TELLING:
            step.tx.put_target(target)
            step.accepted.reports[target.upstream] = (Fate("status", "kept", "", f"silenced by {step.muted}"),)
            return
        by_key = upstream.dialect.outbound.addressed_by == "key"
        says = bool(step.changed) or (by_key and step.is_repeat)
        operation = in_terms_of(upstream, step.operation, before, step.flat, says_something=says)
        if operation is None:
            return
        if target.state == "standby":
            self._stand_by(step, target, operation)
            return
        sent, fates = what_to_send(upstream, operation)
        if sent is None:
            step.accepted.reports[target.upstream] = fates
            return
        if sent is Operation.REOPEN:
            self._give_way(step, target, upstream)
        newest = step.tx.newest_in_lane(target.upstream, target.lane)
        delivery = self._delivery(step, target, sent, newest)
        is_known = target.state != "dead"
        if self._is_looping(step.via, delivery, step.accepted) or (
            is_known and _is_told_already(step, newest, delivery)
        ):
            self._put_out(step, target, delivery)
            return
        told, is_nothing = self._told(step, target, upstream, sent, delivery)
        fates += told
        if is_nothing:
            step.accepted.reports[target.upstream] = fates
            return
        delivery.report = to_builtins(list(fates))
        step.accepted.reports[target.upstream] = fates
        if delivery.state == "waiting":
            step.accepted.queued_behind |= target.upstream == step.accepted.primary and step.tx.waits_before(delivery)
            _merge_waiting(step, delivery)
        if target.state == "absent":
            target.state = "dead" if delivery.state == "dead" else "waiting"
        self._put_out(step, target, delivery)

    def _told(
        self, step: _Step, target: TargetRow, upstream: Upstream, sent: Operation, delivery: DeliveryRow
    ) -> tuple[tuple[Fate, ...], bool]:
        """What becomes of each field there, and whether nothing is left to tell; a delivery that can never be made is
        dead from the start."""
        by_id = upstream.dialect.outbound.addressed_by == "id"
        fates: tuple[Fate, ...] = ()
        try:
            if sent in TELLING:
                said = self._said(step, target, upstream)
                fates = said.report
                if sent is Operation.UPDATE and not said.patch and is_there(target, upstream):
                    return fates, True
            elif sent is Operation.RESOLVE and by_id and step.changed:
                fates = self._said(step, target, upstream).report
            else:
                fates = unsaid(upstream, step.caller.dialect, step.asked, step.changed or ())
        except Unmet as unmet:
            self._cannot(step, target, delivery, unmet_text(target.upstream, unmet), ProblemKind.UNMET)
        entry = key_entry(target.lane)
        if upstream.keys and sent in TELLING and (lacking := upstream.keys.lacks(entry)):
            self._cannot(step, target, delivery, f"upstream {target.upstream!r}: {lacking}", Code.NO_KEY)
        if entry and sent is Operation.CREATE and entry != upstream.entry(step.row.dialect, step.row.caller, step.flat):
            fates += (Fate("routing_key", "approximated", "", f"set by route {target.route}"),)
        if sent in TELLING and step.flat.get("kind") == "rule" and refuses_rules(upstream):
            text = f'upstream {target.upstream!r} takes no rules: rules = "refuse"'
            self._cannot(step, target, delivery, text, Code.RULES_REFUSED)
        return fates, False

    def _put_out(self, step: _Step, target: TargetRow, delivery: DeliveryRow) -> None:
        step.tx.put_target(target)
        step.tx.insert_delivery(delivery)
        step.accepted.fanout += 1
        if delivery.state == "waiting":
            step.accepted.deliveries.append(delivery)

    def _has_seen(self, via: Via) -> bool:
        return bool(self._name) and self._name in via

    def _is_looping(self, via: Via, delivery: DeliveryRow, accepted: Accepted) -> bool:
        """Whether the command came through this gateway before: then it goes no further, and that is said."""
        if not self._has_seen(via):
            return False
        delivery.state, delivery.finished_at = "void", delivery.created_at
        delivery.reason = "it came through this gateway before, and goes no further"
        delivery.code = accepted.dead[delivery.upstream] = Code.LOOP.value
        accepted.reports[delivery.upstream] = ()
        return True

    def _stand_by(self, step: _Step, target: TargetRow, operation: Operation) -> None:
        """A fallback's turn comes when nobody else has taken the alert in time; an end in time is the end of it."""
        if operation in ENDING:
            _stand_down(step, target, "it ended before its turn came")
        after = self._config.fallback_after(target.route)
        of_this = DeliveryFilter(upstream=target.upstream, alert=target.alert, limit=1)
        begins = operation in (Operation.CREATE, Operation.REOPEN)
        begins = begins or (operation is Operation.UPDATE and not step.tx.deliveries(of_this))
        if not begins or after is None:
            step.tx.put_target(target)
            return
        newest = step.tx.newest_in_lane(target.upstream, target.lane)
        delivery = self._delivery(step, target, Operation.CREATE, newest)
        if not self._is_looping(step.via, delivery, step.accepted):
            delivery.created_at = delivery.due = step.now + int(after * 1000)
        step.tx.put_target(target)
        step.tx.insert_delivery(delivery)
        step.accepted.fanout += 1

    def _cannot(self, step: _Step, target: TargetRow, delivery: DeliveryRow, text: str, code: str) -> None:
        """The upstream cannot take this: a refusal where it is the primary, else a dead letter."""
        if target.upstream == step.accepted.primary:
            raise Problem(ProblemKind.UNMET, text)
        delivery.state, delivery.reason, delivery.finished_at = "dead", text, step.now
        delivery.code = step.accepted.dead[target.upstream] = code

    def _said(self, step: _Step, target: TargetRow, upstream: Upstream) -> Said:
        said = dict(step.asked.verbatim) if step.caller.dialect.name == step.row.dialect else None
        body = CommandBody(changed=step.changed, said=said, dropped=step.asked.dropped)
        return translate(saying(step.row, target, step.flat, body, step.now), upstream.destination)

    def _delivery(self, step: _Step, target: TargetRow, sent: Operation, newest: DeliveryRow | None) -> DeliveryRow:
        """A delivery that comes after everything in its lane, whoever's clock that was made by."""
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

    def _record(self, step: _Step, request: int, operation: Operation, body: CommandBody) -> None:
        body.routes = step.accepted.routes
        step.tx.insert_command(
            CommandRow(
                id=step.command,
                request=request,
                alert=step.row.id,
                operation=operation,
                scope=step.caller.scope,
                dialect=step.caller.dialect.name,
                caller=step.caller.name,
                at=step.now,
                body=body,
                fanout=step.accepted.fanout,
            )
        )

    # --- no alert at all -------------------------------------------------------------------------------

    def _without_alert(
        self, tx: Tx, asked: Command, caller: Caller, request: int, command: int, now: int, via: Via = ()
    ) -> Accepted:
        """A command for a key that is not open here: it may have been opened before the gateway stood here, so
        those upstreams that find alerts by key are told, as far as there is anything that they can be told."""
        assert asked.ref
        accepted = Accepted(command=command, alert=None)
        if asked.is_resend and asked.ref.key and _has_ended(tx, caller, asked.ref.key, command):
            return accepted
        for choice in choose(self._config.routes, caller.dialect.name, caller.name, None) or ():
            upstream = self._config.upstreams[choice.upstream]
            accepted.primary = accepted.primary or choice.upstream
            if not asked.ref.key or not _can_be_told(upstream, asked.operation, caller):
                continue
            named = _lane(upstream, choice, caller, f"key {upstream.dialect.same_key(asked.ref.key)}", {})
            tx.lock(f"lane {upstream.name} {named}")
            if tx.lane_holders(upstream.name, named):
                continue  # another scope's alert stands on this lane; it is not this caller's to end
            newest = tx.newest_in_lane(upstream.name, named)
            if asked.is_resend and newest and newest.operation == asked.operation:
                continue
            delivery = DeliveryRow(
                id=self._ids(above=newest.id if newest else 0),
                command=command,
                alert=None,
                upstream=upstream.name,
                lane=named,
                key=asked.ref.key,
                operation=asked.operation,
                state="waiting",
                created_at=now,
                due=now,
            )
            if not self._is_looping(via, delivery, accepted):
                accepted.deliveries.append(delivery)
            accepted.fanout += 1
            tx.insert_delivery(delivery)
        tx.insert_command(
            CommandRow(
                id=command,
                request=request,
                alert=None,
                operation=asked.operation,
                scope=caller.scope,
                dialect=caller.dialect.name,
                caller=caller.name,
                at=now,
                body=CommandBody(said=dict(asked.verbatim), comment=asked.comment, dropped=asked.dropped, via=via),
                fanout=accepted.fanout,
            )
        )
        return accepted


def _end_of(flat: Flat) -> int | None:
    """When an alert is over unless its sender says again that it is not, where he says so."""
    return millis(flat["ends_at"]) if flat.get("ends_at") else None


def _is_told(tx: Tx, row: AlertRow) -> bool:
    """Whether every upstream of an alert was told of it, or is about to be."""
    return all(target.state != "absent" for target in tx.targets(row.id))


def _muted(tx: Tx, caller: Caller, flat: Flat, now: int) -> str:
    """The id of what asks that nothing be told of this alert now; nothing where it is to be told."""
    if caller.dialect.is_muted is None:
        return ""
    found = muting(tx, caller.scope, flat, caller.dialect.is_muted, now)
    return found.id if found else ""


def _prolong(tx: Tx, row: AlertRow, after: Flat, command: int) -> Accepted:
    """A sender that says again what is known has said until when it holds, and nothing else."""
    row.body, row.ends_at = unflatten(after), _end_of(after)
    tx.update_alert(row)
    return Accepted(command=command, alert=row)


def _has_ended(tx: Tx, caller: Caller, key: str, before: int) -> bool:
    """Whether the end of the last alert of this key is known: some senders go on telling it for a while."""
    return tx.last_alert_by_key(caller.scope, caller.dialect.same_key(key), before) is not None


def _lane(upstream: Upstream, choice: Choice, caller: Caller, about: str, flat: Flat) -> str:
    """The lane of what is told to an upstream: where its key is chosen, it is one upstream per entry."""
    key = choice.key or upstream.entry(caller.dialect.name, caller.name, flat)
    return lane(about, key=key, to=choice.to)


def _stand_down(step: _Step, target: TargetRow, reason: str) -> None:
    """What waits for a fallback's turn waits no more."""
    for other in step.tx.deliveries(DeliveryFilter(state="waiting", upstream=target.upstream, alert=target.alert)):
        other.state, other.finished_at, other.reason, other.code = "void", step.now, reason, Code.NOT_NEEDED.value
        step.tx.update_delivery(other)


def _can_be_told(upstream: Upstream, operation: Operation, caller: Caller) -> bool:
    """Whether an upstream can be told of an alert of which only the key is known: what an alert is can only be said
    in the caller's own words then."""
    outbound = upstream.dialect.outbound
    is_akin = upstream.dialect.name == caller.dialect.name
    return outbound.addressed_by == "key" and operation in outbound.calls and (is_akin or operation not in TELLING)


def _merge_waiting(step: _Step, delivery: DeliveryRow) -> None:
    """An update that still waits right before this one in the lane is said by this one too."""
    if delivery.operation != Operation.UPDATE:
        return
    earlier = step.tx.last_waiting(delivery.upstream, delivery.lane)
    if earlier is None or earlier.operation != Operation.UPDATE or earlier.alert != delivery.alert:
        return
    delivery.merges = [*earlier.merges, earlier.command]
    delivery.due, delivery.attempts = max(delivery.due, earlier.due), earlier.attempts
    delivery.created_at = earlier.created_at
    earlier.state, earlier.finished_at, earlier.reason = "merged", step.now, f"said by {delivery.id}"
    step.tx.update_delivery(earlier)


def _is_told_already(step: _Step, newest: DeliveryRow | None, delivery: DeliveryRow) -> bool:
    """Whether an identical repeat can be counted instead of sent: the target would merge it with what it has, or will
    have. It is `merged` then, and `due` says when the next repeat may be passed on."""
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
    delivery.reason = f"an identical repeat, told by {newest.id}"
    return True
