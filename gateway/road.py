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

from gateway.canonical import SERVER_OWNED, Flat, Operation, checked, flatten, in_order, lay_over, plain, unflatten
from gateway.carry import restore
from gateway.changing import meaning_of, resolve_hints, stamp, without_implied
from gateway.config import Config, Upstream
from gateway.dialect import Command, Dialect
from gateway.errors import Problem, ProblemKind
from gateway.mapping import Unmet
from gateway.routing import Choice, choose
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryRow, TargetRow, Tx
from gateway.translation import Fate, Said, Saying, translate, unmet_text
from gateway.values import from_millis
from gateway.wire import Wire, merged

TELLING = (Operation.CREATE, Operation.UPDATE, Operation.REOPEN)
"""Operations that say what an alert is."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the dialect it speaks, its name, and the scope its alerts belong to."""

    dialect: Dialect
    name: str
    scope: str


@dataclass(kw_only=True)
class Accepted:
    """What was committed for one command: the alert as it is now, the deliveries on their way, and per upstream
    the report; `dead` names the deliveries that can never be sent, with the reason."""

    command: int
    alert: AlertRow | None
    primary: str | None = None
    deliveries: list[DeliveryRow] = field(default_factory=list)
    reports: dict[str, tuple[Fate, ...]] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    is_new: bool = False
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


class Road:
    """Accepts commands under one configuration. `ids` makes new ids, `invent` keys that cannot be guessed."""

    def __init__(
        self,
        config: Config,
        ids: Callable[[], int],
        invent: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._config = config
        self._ids = ids
        self._invent = invent

    def accept(self, tx: Tx, asked: Command, caller: Caller, request: int, command: int, now: int) -> Accepted:
        """Accepts one command in a transaction; raises `Problem` where it is refused."""
        found = self._find(tx, asked, caller)
        if found is not None:
            return self._change(tx, found, asked, caller, request, command, now)
        if asked.operation is Operation.CREATE:
            return self._create(tx, asked, caller, request, command, now)
        if asked.ref and asked.ref.key:
            return self._without_alert(tx, asked, caller, request, command, now)
        raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")

    def _find(self, tx: Tx, asked: Command, caller: Caller) -> AlertRow | None:
        if asked.ref is None:
            key = asked.patch.get("dedup_key")
            return tx.alert_by_key(caller.scope, caller.dialect.same_key(key)) if key else None
        if asked.ref.id is not None:
            return tx.alert_by_id(caller.scope, asked.ref.id)
        return tx.alert_by_key(caller.scope, caller.dialect.same_key(asked.ref.key or ""))

    # --- a new alert -----------------------------------------------------------------------------------

    def _create(self, tx: Tx, asked: Command, caller: Caller, request: int, command: int, now: int) -> Accepted:
        dialect = caller.dialect
        flat = self._restored({**{hint.path: hint.value for hint in asked.hints}, **asked.patch}, asked, dialect)
        flat = in_order({"kind": dialect.kind, **flat, "status": "firing", "created_at": from_millis(now)})
        flat["updated_at"] = flat["created_at"]
        key = flat.get("dedup_key") or None
        name = str(flat["summary"]) if dialect.unique_names and flat.get("summary") else None
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
        )
        tx.insert_alert(row)
        accepted.primary = chosen[0].upstream if chosen else None
        for position, choice in enumerate(chosen):
            self._deliver(step, self._new_target(step, choice, position))
        body = CommandBody(after=row.body, said=row.verbatim, dropped=asked.dropped)
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

    def _words(self, asked: Command, chosen: tuple[Choice, ...], dialect: Dialect) -> Wire | None:
        """The caller's own words are kept only where an upstream speaks its dialect."""
        akin = any(self._config.upstreams[choice.upstream].dialect.name == dialect.name for choice in chosen)
        return dict(asked.verbatim) if akin else None

    def _new_target(self, step: _Step, choice: Choice, position: int) -> TargetRow:
        upstream = self._config.upstreams[choice.upstream]
        outbound = upstream.dialect.outbound
        target = TargetRow(
            alert=step.row.id,
            upstream=choice.upstream,
            position=position,
            lane=f"alert {step.row.id}",
            key=None,
            state="absent",
            route=choice.route,
            replaced=plain(choice.replaced),
        )
        if outbound.addressed_by == "key":
            target.key = self._free_key(step, upstream, choice.replaced)
            target.lane = f"key {upstream.dialect.same_key(target.key)}"
        elif step.row.key and upstream.on_resolve == "disable":
            self._revive(step, target)
        return target

    def _free_key(self, step: _Step, upstream: Upstream, replaced: Flat) -> str:
        """The key the alert will have there: its own unless another scope's open alert holds it, else a new one."""
        key = replaced.get("dedup_key") or step.flat.get("dedup_key") or self._invent()
        holders = step.tx.lane_holders(upstream.name, f"key {upstream.dialect.same_key(key)}")
        return f"{key}-{step.row.id}" if any(holder != step.row.id for holder in holders) else key

    def _give_way(self, step: _Step, target: TargetRow, upstream: Upstream) -> None:
        """An alert that comes back finds its key there taken by another's, which was opened meanwhile."""
        holders = step.tx.lane_holders(target.upstream, target.lane)
        if target.key is not None and any(holder != step.row.id for holder in holders):
            target.key = f"{target.key}-{step.row.id}"
            target.lane = f"key {upstream.dialect.same_key(target.key)}"

    def _revive(self, step: _Step, target: TargetRow) -> None:
        """The key last named an alert whose rule may still stand there, switched off: it is that rule's turn."""
        assert step.row.key
        earlier = step.tx.last_alert_by_key(step.caller.scope, step.row.key, step.row.id)
        if earlier is None or earlier.is_deleted:
            return
        for other in step.tx.targets(earlier.id):
            if other.upstream == target.upstream and other.state not in ("gone", "dead"):
                target.lane, target.revives = other.lane, earlier.id

    # --- an alert that is there ------------------------------------------------------------------------

    def _change(
        self, tx: Tx, row: AlertRow, asked: Command, caller: Caller, request: int, command: int, now: int
    ) -> Accepted:
        if asked.version is not None and asked.version != row.version:
            raise Problem(
                ProblemKind.CONFLICT,
                f"Conflict version: {asked.version} is not the current version {row.version}",
                field="version",
            )
        before = flatten(row.body)
        patch = without_implied(resolve_hints(before, asked), before, caller.dialect)
        after, changed = lay_over(before, patch)
        operation = meaning_of(asked.operation, row)
        stamp(after, operation, now)
        body = CommandBody(
            after=unflatten(after),
            changed=changed,
            said=self._own_words(asked, row, caller),
            comment=asked.comment,
            before=row.body,
            said_before=row.verbatim,
            dropped=asked.dropped,
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
        row.body = unflatten(after)

    def _widened(self, step: _Step, targets: list[TargetRow]) -> list[TargetRow]:
        """At an update, upstreams that are chosen now and were not before are added; none is taken away."""
        if step.operation is not Operation.UPDATE:
            return []
        chosen = choose(self._config.routes, step.caller.dialect.name, step.caller.name, step.flat) or ()
        known = {target.upstream for target in targets}
        new = [choice for choice in chosen if choice.upstream not in known]
        return [self._new_target(step, choice, len(targets) + index) for index, choice in enumerate(new)]

    # --- per upstream ----------------------------------------------------------------------------------

    def _deliver(self, step: _Step, target: TargetRow, before: Flat | None = None) -> None:
        """Puts the command into the outbox of one upstream, if there is anything to send, and reports on it."""
        upstream = self._config.upstreams.get(target.upstream)
        if upstream is None:
            return
        operation = _in_terms_of(upstream, step, before)
        if operation is None:
            return
        sent, fates = what_to_send(upstream, operation)
        if sent is None:
            step.accepted.reports[target.upstream] = fates
            return
        if sent is Operation.REOPEN:
            self._give_way(step, target, upstream)
        delivery = self._delivery(step, target, sent)
        is_said = sent in TELLING
        try:
            if is_said:
                said = self._said(step, target, upstream)
                fates += said.report
                if sent is Operation.UPDATE and not said.patch and _is_there(target, upstream):
                    step.accepted.reports[target.upstream] = fates
                    return
            elif sent is Operation.RESOLVE and upstream.dialect.outbound.addressed_by == "id" and step.changed:
                fates += self._said(step, target, upstream).report
            else:
                fates += unsaid(upstream, step.caller.dialect, step.asked, step.changed or ())
        except Unmet as unmet:
            self._cannot(step, target, delivery, unmet_text(target.upstream, unmet), "unmet")
        if is_said and step.flat.get("kind") == "rule" and _refuses_rules(upstream):
            text = f'upstream {target.upstream!r} takes no rules: rules = "refuse"'
            self._cannot(step, target, delivery, text, "rules_refused")
        delivery.report = to_builtins(list(fates))
        step.accepted.reports[target.upstream] = fates
        if delivery.state == "waiting":
            step.accepted.deliveries.append(delivery)
            step.accepted.queued_behind |= target.upstream == step.accepted.primary and step.tx.waits_before(delivery)
            _merge_waiting(step, delivery)
        if target.state == "absent":
            target.state = "dead" if delivery.state == "dead" else "waiting"
        step.tx.put_target(target)
        step.tx.insert_delivery(delivery)

    def _cannot(self, step: _Step, target: TargetRow, delivery: DeliveryRow, text: str, code: str) -> None:
        """The upstream cannot take this: a refusal where it is the primary, else a dead letter."""
        if target.upstream == step.accepted.primary:
            raise Problem(ProblemKind.UNMET, text)
        delivery.state, delivery.reason, delivery.finished_at = "dead", text, step.now
        step.accepted.dead[target.upstream] = code

    def _said(self, step: _Step, target: TargetRow, upstream: Upstream) -> Said:
        said = dict(step.asked.verbatim) if step.caller.dialect.name == step.row.dialect else None
        body = CommandBody(changed=step.changed, said=said, dropped=step.asked.dropped)
        return translate(saying(step.row, target, step.flat, body, step.now), upstream.destination)

    def _delivery(self, step: _Step, target: TargetRow, sent: Operation) -> DeliveryRow:
        return DeliveryRow(
            id=self._ids(),
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
        )

    def _record(self, step: _Step, request: int, operation: Operation, body: CommandBody) -> None:
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
            )
        )

    # --- no alert at all -------------------------------------------------------------------------------

    def _without_alert(self, tx: Tx, asked: Command, caller: Caller, request: int, command: int, now: int) -> Accepted:
        """A command for a key that is not open here: it may have been opened before the gateway stood here, so
        those upstreams that find alerts by key are told."""
        assert asked.ref and asked.ref.key
        accepted = Accepted(command=command, alert=None)
        for choice in choose(self._config.routes, caller.dialect.name, caller.name, None) or ():
            upstream = self._config.upstreams[choice.upstream]
            accepted.primary = accepted.primary or choice.upstream
            if (
                upstream.dialect.outbound.addressed_by != "key"
                or asked.operation not in upstream.dialect.outbound.calls
            ):
                continue
            lane = f"key {upstream.dialect.same_key(asked.ref.key)}"
            if tx.lane_holders(upstream.name, lane):
                continue  # another scope's alert stands on this lane; it is not this caller's to end
            delivery = DeliveryRow(
                id=self._ids(),
                command=command,
                alert=None,
                upstream=upstream.name,
                lane=lane,
                key=asked.ref.key,
                operation=asked.operation,
                state="waiting",
                created_at=now,
                due=now,
            )
            accepted.deliveries.append(delivery)
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
                body=CommandBody(said=dict(asked.verbatim), comment=asked.comment, dropped=asked.dropped),
            )
        )
        return accepted


def _merge_waiting(step: _Step, delivery: DeliveryRow) -> None:
    """An update that still waits right before this one in the lane is said by this one too."""
    earlier = step.tx.last_waiting(delivery.upstream, delivery.lane)
    if earlier is None or delivery.operation != Operation.UPDATE or earlier.operation != Operation.UPDATE:
        return
    if earlier.alert != delivery.alert:
        return
    delivery.merges = [*earlier.merges, earlier.command]
    delivery.due, delivery.attempts = max(delivery.due, earlier.due), earlier.attempts
    delivery.created_at = earlier.created_at
    earlier.state, earlier.finished_at, earlier.reason = "merged", step.now, f"said by {delivery.id}"
    step.tx.update_delivery(earlier)


def _is_there(target: TargetRow, upstream: Upstream) -> bool:
    """Whether an update can be the changed fields alone, so that without any there is nothing to send."""
    return upstream.dialect.outbound.addressed_by == "id" and target.state == "present"


def _refuses_rules(upstream: Upstream) -> bool:
    return upstream.destination.rules == "refuse" and upstream.dialect.kind == "occurrence"


def what_to_send(upstream: Upstream, operation: Operation) -> tuple[Operation | None, tuple[Fate, ...]]:
    """What an operation becomes at an upstream, None where nothing is sent, and what there is to say about it."""
    sent: Operation | None = operation
    if operation is Operation.RESOLVE and upstream.on_resolve == "delete":
        sent = Operation.DELETE
    elif operation is Operation.RESOLVE and upstream.on_resolve == "keep":
        sent = None
    outbound = upstream.dialect.outbound
    if sent is not None and sent not in outbound.calls:
        sent = outbound.nearest.get(sent)
    about = "comment" if operation is Operation.COMMENT else "status"
    if sent is None:
        return None, (Fate(about, "kept", "", f"{upstream.dialect.title} cannot {operation} here"),)
    if sent is not operation:
        return sent, (Fate(about, "approximated", "", f"{operation} becomes {sent} there"),)
    return sent, ()


def unsaid(upstream: Upstream, origin: Dialect, asked: Command, changed: tuple[str, ...]) -> tuple[Fate, ...]:
    """What a command said beside its operation, where the upstream's words for that have no room for it."""
    if upstream.dialect.name == origin.name or asked.operation is Operation.COMMENT:
        return ()
    paths = [path for path in changed if path not in SERVER_OWNED] + (["comment"] if asked.comment else [])
    return tuple(
        Fate(path, "kept", "", f"{upstream.dialect.title} is told the {asked.operation} alone") for path in paths
    )


def _in_terms_of(upstream: Upstream, step: _Step, before: Flat | None) -> Operation | None:
    """An update in an upstream's terms: for vendors of occurrences, switching a rule off ends what it raised."""
    if step.operation is not Operation.UPDATE or before is None:
        return step.operation
    was, now = before.get("enabled") is not False, step.flat.get("enabled") is not False
    if step.flat.get("kind") == "rule" and upstream.dialect.kind == "occurrence" and was != now:
        return Operation.REOPEN if now else Operation.RESOLVE
    repeats = step.asked.operation is Operation.CREATE and upstream.dialect.outbound.addressed_by == "key"
    return Operation.UPDATE if step.changed or repeats else None


def saying(row: AlertRow, target: TargetRow, flat: Flat, body: CommandBody, at: int, late: str = "") -> Saying:
    """An alert as it is said at one of its targets."""
    return Saying(
        flat=flat,
        origin=row.dialect,
        caller=row.caller,
        id=row.id,
        key=target.key,
        replaced=checked(target.replaced) if target.replaced else {},
        route=target.route,
        changed=body.changed,
        verbatim=row.verbatim,
        said=body.said,
        at=from_millis(at),
        late=late,
        dropped=body.dropped,
    )
