"""The road of a command, first half: from what a caller asked to what is committed.

`Road.accept` is a plain function of a transaction. It finds the alert, applies the command to it, chooses upstreams,
finds out what each of them cannot hold, and writes the alert, its ids and its deliveries together. A refusal is raised
as a `Problem` before anything is written. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import lru_cache, partial

from msgspec import structs

from gateway.asked import Command, Ref
from gateway.canonical import SERVER_OWNED, Flat, Operation, flatten, in_order, lay_over, unflatten
from gateway.config.config import Config
from gateway.config.routing import Choice, always, choose, taking
from gateway.dialect import Dialect
from gateway.errors import Problem, ProblemKind
from gateway.ids import MakeId
from gateway.mapping.carry import credible, restore
from gateway.mapping.values import from_millis
from gateway.mapping.wire import Wire, merged
from gateway.road.accepted import Accepted, Caller, Order, Step, Via, command_row
from gateway.road.changing import end_of, meaning_of, record, resolve_hints, stamp, without_implied
from gateway.road.history import newest_first
from gateway.road.muting import muting
from gateway.road.outbox import Outbox
from gateway.road.targets import Targets, hold
from gateway.road.terms import ENDING, OWED, TELLING, speaks_as
from gateway.road.unknown import Unknown
from gateway.store import AlertRow, CommandBody, Tx

STANDS = (Operation.CREATE, Operation.REOPEN, *ENDING)
"""Operations that say whether an alert is on or over."""
ANY_ID = 1 << 62
"""Larger than the id of any alert."""
SENDERS = 256
"""Senders for which it is remembered where their alerts go, if that never depends on what an alert says."""


class Road:
    """Accepts commands under one configuration. `ids` makes new ids, `invent` keys that cannot be guessed; `name` is
    this gateway's own, by which it recognises commands that it has forwarded itself."""

    def __init__(
        self,
        config: Config,
        ids: MakeId,
        invent: Callable[[], str] = lambda: secrets.token_hex(16),
        name: str = "",
    ) -> None:
        self._config = config
        self._always = lru_cache(SENDERS)(partial(always, config.routes))
        self._ids = ids
        self._invent = invent
        self._targets = Targets(config, invent)
        self._outbox = Outbox(config, ids, self._targets, name)
        self._tables = frozenset(upstream.destination.mapping for upstream in config.upstreams.values())
        self._unknown = Unknown(config, ids, self._targets, self._outbox)

    def accept(self, tx: Tx, order: Order) -> Accepted:
        """Accepts one command in a transaction; raises `Problem` where it is refused."""
        if order.asked.carried is not None:
            order = self._credible(order)
        asked = order.asked
        if asked.instead is not None and (found := self._find(tx, asked.instead, order.caller)):
            return self.change(tx, structs.replace(order, asked=asked.instead), found)
        found = self._find(tx, asked, order.caller)
        if found is not None:
            return self.change(tx, order, found)
        if asked.only_open:
            return Accepted(command=order.command, alert=None)
        if asked.operation is Operation.CREATE:
            return self._create(tx, order)
        if asked.ref and (asked.ref.key or asked.answers_anyway):
            return self._unknown.accept(tx, order)
        raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")

    def _credible(self, order: Order) -> Order:
        """The order with what it carried as far as every vendor concerned can make something of it."""
        carried = credible(order.asked.carried, (order.caller.dialect.mapping, *self._tables))
        return structs.replace(order, asked=structs.replace(order.asked, carried=carried))

    def end(
        self,
        tx: Tx,
        row: AlertRow,
        dialect: Dialect,
        command: int,
        now: int,
        *,
        operation: Operation = Operation.RESOLVE,
        why: str = "the sender no longer reports the alert",
    ) -> Accepted:
        """Resolves (or deletes) an alert that its sender no longer repeats, in the sender's name."""
        asked = Command(operation=operation, ref=Ref(id=row.shown), comment=why)
        caller = Caller(dialect, row.caller, row.scope)
        return self.change(tx, Order(asked=asked, caller=caller, request=command, command=command, now=now), row)

    def _find(self, tx: Tx, asked: Command, caller: Caller) -> AlertRow | None:
        """The alert that is meant, locked with its key: what another replica does to it, or opens under the same key,
        comes before or after this transaction."""
        key = asked.patch.get("dedup_key") if asked.ref is None else asked.ref.key
        key = caller.dialect.same_key(key) if key else None
        if key is not None:
            tx.lock(f"key {caller.scope} {key}")
        found = self._found(tx, asked, caller, key)
        if found is not None and found.key is not None and asked.operation is Operation.REOPEN:
            tx.lock(f"key {found.scope} {found.key}")  # under which somebody may be about to open a new alert
        while found is not None and tx.lock(f"alert {found.id}"):
            again = self._found(tx, asked, caller, key)
            if again is None or again.id == found.id:
                return again
            found = again
        return found

    def _found(self, tx: Tx, asked: Command, caller: Caller, key: str | None) -> AlertRow | None:
        if asked.ref is not None and asked.ref.id is not None:
            return tx.alert_by_id(caller.scope, asked.ref.id)
        if key is None:
            return None
        return tx.alert_by_key(caller.scope, key) or _still_to_end(tx, asked, caller, key)

    # --- a new alert -----------------------------------------------------------------------------------

    def _create(self, tx: Tx, order: Order) -> Accepted:
        asked, caller = order.asked, order.caller
        flat = self._opened(asked, caller.dialect, order.now)
        name = self._named(tx, flat, caller, order.via)
        chosen = self._chosen(caller, flat)
        row = self._new_row(order, flat, name)
        row.verbatim = self._words(asked, chosen, caller.dialect)
        accepted = Accepted(command=order.command, alert=row, is_new=True)
        step = Step(
            **structs.asdict(order),
            tx=tx,
            operation=Operation.CREATE,
            row=row,
            flat=flat,
            changed=None,
            accepted=accepted,
            muted=_muted(tx, caller, flat, order.now),
        )
        accepted.primary = chosen[0].upstream if chosen else None
        accepted.routes.update({} if chosen else self._thrown_away(caller, flat))
        if len(chosen) > 1:  # a single one takes its lane by itself, once its key is chosen
            hold(tx, self._targets.lanes(chosen, caller, flat, flat.get("dedup_key")))
        for position, choice in enumerate(chosen):
            self._outbox.deliver(step, self._targets.new(step, choice, position))
        tx.insert_alert(row)  # last, as the primary may refuse it: then nothing has been written yet
        body = CommandBody(
            after=row.body, said=row.verbatim, comment=asked.comment, dropped=asked.dropped, via=order.via
        )
        _record(step, body)
        return accepted

    def _opened(self, asked: Command, dialect: Dialect, now: int) -> Flat:
        """The state of a new alert."""
        flat = self._restored({**{hint.path: hint.value for hint in asked.hints}, **asked.patch}, asked, dialect)
        flat = in_order({"kind": dialect.kind, **flat, "status": "firing", "created_at": from_millis(now)})
        flat["updated_at"] = flat["created_at"]
        if asked.invents_key and not flat.get("dedup_key"):
            flat["dedup_key"] = self._invent()
        return flat

    def _named(self, tx: Tx, flat: Flat, caller: Caller, via: Via) -> str | None:
        """The unique name that the alert takes, locked, where the vendor has such names; raises `Problem` if another
        has it. An echo of our own command takes none: its name is that of the alert it was sent for."""
        if not (caller.dialect.unique_names and flat.get("summary")) or self._outbox.has_seen(via):
            return None
        name = str(flat["summary"])
        tx.lock(f"name {caller.scope} {name}")
        if tx.alert_by_name(caller.scope, name):
            raise Problem(ProblemKind.NAME_TAKEN, f"The name is already used: {name}", field="name")
        return name

    def _new_row(self, order: Order, flat: Flat, name: str | None) -> AlertRow:
        caller, dialect, key = order.caller, order.caller.dialect, flat.get("dedup_key") or None
        return AlertRow(
            id=order.command,
            scope=caller.scope,
            dialect=dialect.name,
            caller=caller.name,
            shown=dialect.shown_id(order.command),
            key=dialect.same_key(key) if key else None,
            name=name,
            status="firing",
            resource=flat.get("resource"),
            is_open=True,
            version=1,
            created_at=order.now,
            updated_at=order.now,
            body=unflatten(flat),
            verbatim=None,
            ends_at=end_of(flat),
        )

    def _restored(self, flat: Flat, asked: Command, dialect: Dialect) -> Flat:
        """Restores what was carried in the vendor's free-form container, unless we stand in for the vendor."""
        if self._config.restores or asked.carried is None:
            return restore(flat, asked.carried)
        return dialect.mapping.held(flat, asked.carried)

    def _chosen(self, caller: Caller, flat: Flat) -> tuple[Choice, ...]:
        sender = (caller.dialect.name, caller.name)
        chosen = self._always(*sender) or choose(self._config.routes, *sender, flat)
        if chosen is None:
            raise Problem(
                ProblemKind.UNROUTED,
                f"no entry of `routes` matches this alert of {caller.dialect.name}/{caller.name}; "
                "add one, or a last one without `when`",
                field="routes",
            )
        return chosen

    def _thrown_away(self, caller: Caller, flat: Flat) -> dict[str, str]:
        """The routes that took an alert which goes nowhere, and why they did, for those who ask where it went."""
        took = taking(self._config.routes, caller.dialect.name, caller.name, flat)
        return {route.name: route.why for route in took}

    def _words(self, asked: Command, chosen: tuple[Choice, ...], dialect: Dialect) -> Wire | None:
        """The caller's own words, kept only where an upstream speaks its dialect, or understands it."""
        akin = any(speaks_as(self._config.upstreams[choice.upstream], dialect.name) for choice in chosen)
        return dict(asked.verbatim) if akin else None

    # --- an alert that is there ------------------------------------------------------------------------

    def change(self, tx: Tx, order: Order, row: AlertRow, *, anew: bool = False) -> Accepted:
        """Applies a command to an alert that is there, and locked by this transaction; raises `Problem` where it is
        refused."""
        asked, caller = order.asked, order.caller
        _must_be_current(asked, row)
        before, has_seen = flatten(row.body), self._outbox.has_seen(order.via)
        holding = None if self._config.restores else caller.dialect.mapping
        patch = without_implied(resolve_hints(before, asked, holding), before, caller.dialect)
        if has_seen:  # an echo must not prolong an alert: it would renew itself for ever
            patch.pop("ends_at", None)
        after, changed = lay_over(before, patch)
        changed = tuple(path for path in changed if path not in SERVER_OWNED)
        operation = _as_told(tx, row, before, meaning_of(asked.operation, row), asked.operation)
        muted = _muted(tx, caller, after, order.now)
        is_resend = asked.is_resend and operation is Operation.UPDATE
        if is_resend and not has_seen and not muted and _is_silence_over(tx, row):
            return self._tell_anew(tx, order, row)
        is_said_again = is_resend and not changed
        if is_said_again and not has_seen and (muted or self._is_told(tx, row)):
            return _prolong(tx, row, after, order.command)
        step = Step(
            **structs.asdict(order),
            tx=tx,
            operation=operation,
            row=row,
            flat=after,
            changed=changed,
            accepted=Accepted(command=order.command, alert=row),
            muted=muted,
            anew=anew,
        )
        return self._write_down(step, before)

    def _is_told(self, tx: Tx, row: AlertRow) -> bool:
        """Whether every configured upstream of the alert was told, or is about to be told, all that it says by now."""
        there = [target for target in tx.targets(row.id) if target.upstream in self._config.upstreams]
        return all(target.state != "absent" and OWED not in target.seen for target in there)

    def _write_down(self, step: Step, before: Flat) -> Accepted:
        """Writes what a command changed in an alert, its deliveries, and the command."""
        row, after = step.row, step.flat
        stamp(after, step.operation, step.now)
        body = CommandBody(
            after=unflatten(after),
            changed=step.changed,
            said=self._own_words(step),
            comment=step.asked.comment,
            before=row.body,
            said_before=row.verbatim,
            dropped=step.asked.dropped,
            via=step.via,
        )
        _lay(step, row, after)
        if row.verbatim is not None and body.said is not None and step.operation in TELLING:
            row.verbatim = merged(row.verbatim, body.said)
        step.tx.update_alert(row)
        self._tell(step, before)
        _record(step, body)
        return step.accepted

    def _tell_anew(self, tx: Tx, order: Order, row: AlertRow) -> Accepted:
        """Resolves and reopens an alert that goes on after the silence that acknowledged it: nobody looks at it, and no
        vendor wakes anybody for what is acknowledged there, but all of them do for this."""
        why = f"silence {_silenced_by(tx, row)} has ended and the alert still fires: notified anew"
        over = Command(operation=Operation.RESOLVE, ref=Ref(id=row.shown), comment=why)
        ended = self.change(tx, structs.replace(order, asked=over), row, anew=True)
        again = structs.replace(order.asked, operation=Operation.REOPEN, comment=why)
        next_id = self._ids(above=order.command)
        accepted = self.change(tx, structs.replace(order, asked=again, command=next_id), row, anew=True)
        accepted.deliveries[:0] = ended.deliveries
        return accepted

    def _tell(self, step: Step, before: Flat) -> None:
        """Makes the deliveries to every upstream that has the alert, and to those that its new content adds."""
        targets = step.tx.targets(step.row.id)
        targets += self._targets.widened(step, targets)
        step.accepted.primary = next((one.upstream for one in targets if one.upstream in self._config.upstreams), None)
        for target in targets:
            if not step.anew or self._outbox.is_told_anew(target, step.operation):
                self._outbox.deliver(step, target, before)
            elif step.operation is Operation.REOPEN:  # it never heard of the silence, nor of what was said meanwhile
                self._outbox.deliver(structs.replace(step, operation=Operation.UPDATE), target, before)

    def _own_words(self, step: Step) -> Wire | None:
        """The caller's words, where an upstream understands them. Of an alert that was made in another dialect these
        are only what people do to it."""
        row, dialect = step.row, step.caller.dialect.name
        if dialect == row.dialect:
            return dict(step.asked.verbatim) if row.verbatim is not None else None
        there = (self._config.upstreams.get(target.upstream) for target in step.tx.targets(row.id))
        is_understood = step.operation not in TELLING and any(
            one and dialect in one.dialect.outbound.kin for one in there
        )
        return dict(step.asked.verbatim) if is_understood else None


def _record(step: Step, body: CommandBody) -> None:
    """Records the command, with the routes it took, its fan-out and its trace."""
    body.routes = step.accepted.routes
    body.asked = step.asked.operation if step.asked.operation is not step.operation else ""
    body.silence = step.asked.silence
    body.trace = step.trace
    step.tx.insert_command(command_row(step, step.operation, step.row, body, step.accepted.fanout))


def _lay(step: Step, row: AlertRow, after: Flat) -> None:
    """Puts the changed state into the row; raises `Problem` where another alert has its key or name."""
    tx, operation = step.tx, step.operation
    if row.name is not None and after.get("summary") and row.name != after["summary"]:
        row.name = str(after["summary"])
        tx.lock(f"name {row.scope} {row.name}")
        holder = tx.alert_by_name(row.scope, row.name)
        if holder and holder.id != row.id:
            raise Problem(ProblemKind.NAME_TAKEN, f"The name is already used: {row.name}", field="name")
    holder = tx.alert_by_key(row.scope, row.key) if operation is Operation.REOPEN and row.key else None
    if holder and holder.id != row.id:
        raise Problem(ProblemKind.CONFLICT, f"a newer alert has the key {row.key}", field=step.caller.dialect.name)
    if operation is not Operation.COMMENT:
        row.version += 1
        after["updated_at"] = from_millis(step.now)
        row.updated_at = step.now
    row.is_deleted = operation is Operation.DELETE
    record(row, after)


def _must_be_current(asked: Command, row: AlertRow) -> None:
    """Raises `Problem` where the caller expects another version to be current."""
    if asked.version is not None and asked.version != row.version:
        text = f"Conflict version: {asked.version} is not the current version {row.version}"
        raise Problem(ProblemKind.CONFLICT, text, field="version")


def _as_told(tx: Tx, row: AlertRow, before: Flat, meant: Operation, asked: Operation) -> Operation:
    """What to tell upstreams for an update, given what they were told last. A read may have found at the primary that
    the alert is over, or open again: that changed the record, but the other upstreams have not heard of it."""
    if meant is not Operation.UPDATE or "resolved_at" not in before:  # it never was over, like nearly all
        return meant
    if row.status == "resolved":
        return asked if asked is Operation.RESOLVE and _told_last(tx, row) not in (None, *ENDING) else meant
    return Operation.REOPEN if asked in TELLING and _told_last(tx, row) in ENDING else meant


def _is_silence_over(tx: Tx, row: AlertRow) -> bool:
    """Whether an alert that is muted no more is acknowledged only because a silence did so."""
    return row.status == "acknowledged" and bool(_silenced_by(tx, row))


def _silenced_by(tx: Tx, row: AlertRow) -> str:
    """The id of the silence that acknowledged an alert last; empty where a caller did."""
    acknowledge = Operation.ACKNOWLEDGE
    said = (one for one in newest_first(tx, row.id) if acknowledge in (one.operation, one.body.asked))
    return next((one.body.silence for one in said if one.refused is None), "")


def _still_to_end(tx: Tx, asked: Command, caller: Caller, key: str) -> AlertRow | None:
    """For a resolve, the last alert of the key where only a read found it over, so that others are yet to be told."""
    if asked.operation is not Operation.RESOLVE:
        return None
    row = tx.last_alert_by_key(caller.scope, key, ANY_ID)
    is_over = row is not None and not row.is_deleted and row.status == "resolved"
    return row if row is not None and is_over and _told_last(tx, row) not in (None, *ENDING) else None


def _told_last(tx: Tx, row: AlertRow) -> str | None:
    """The last operation of `STANDS` that was told of an alert; None where only one upstream has it. Where none is
    recorded (purged by now, or the alert came in with a list) it was opened: an alert that has ended is purged itself.
    """
    if len(tx.targets(row.id)) < 2:
        return None
    said = (one.operation for one in newest_first(tx, row.id) if one.refused is None and one.operation in STANDS)
    return next(said, Operation.CREATE)


def _muted(tx: Tx, caller: Caller, flat: Flat, now: int) -> str:
    """The id of a silence that mutes this alert now; empty where there is none."""
    if caller.dialect.muted_by is None:
        return ""
    found = muting(tx, caller.scope, flat, caller.dialect.muted_by, now)
    return found.id if found else ""


def _prolong(tx: Tx, row: AlertRow, after: Flat, command: int) -> Accepted:
    """Moves the time at which an alert lapses: that is all that a repeat of what is known changes."""
    row.body, row.ends_at = unflatten(after), end_of(after)
    tx.update_alert(row)
    return Accepted(command=command, alert=row)
