"""The desk: takes what a dialect read from a request, and comes back with what the caller is to be told.

It waits for verdicts where the caller is to wait, takes a command back that everybody refused, and asks a primary
of the caller's own dialect before it answers a read. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
from cachetools import TTLCache
from msgspec import Struct, structs

from gateway import muting
from gateway.accepted import Accepted, Caller, Via
from gateway.canonical import Operation
from gateway.choosing import key_entry
from gateway.clock import Clock
from gateway.codes import Code
from gateway.config import Config, Inbound, Upstream
from gateway.crowding import Crowd
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.spending import Spending
from gateway.dialect import (
    Answer,
    Asked,
    Batch,
    Call,
    Command,
    Found,
    FoundAlert,
    Inquiry,
    Listing,
    Missing,
    Mute,
    Muted,
    Mutes,
    Outcome,
    Read,
    Relay,
    Reply,
    Unmute,
)
from gateway.errors import Problem, ProblemKind, StoreError, together
from gateway.history import inquire, told
from gateway.idempotency import Key, as_answer, first_answer, keep
from gateway.ids import MakeId
from gateway.landing import all_has_landed, has_landed, not_landed
from gateway.lookup import as_shown, listed, look_up, mutes, question
from gateway.metrics import Metrics
from gateway.quieting import Owed, owe, quieten
from gateway.refreshing import forget, let_go, refresh, take_in, unlisted
from gateway.road import Road
from gateway.routing import choose
from gateway.store import AlertFilter, AlertRow, FirstAnswer, Store, TargetRow, Tx
from gateway.terms import is_anothers
from gateway.translation import header, joined
from gateway.undoing import is_refused, undo
from gateway.values import millis
from gateway.waiting import Waiter, Waiters

log = structlog.get_logger()
T = TypeVar("T")
AT_ONCE = 256
"""So many commands of a batch are written at once: what others ask meanwhile comes between."""

TAKEN_IN_AT_ONCE = 100
"""So many alerts of an upstream's list are brought into the record at once, for the same reason."""


class Answered(Struct, frozen=True):
    """What came of a request: the answer for the dialect to word, the id it is about, and the report's lines."""

    answer: Answer
    id: int
    reports: tuple[str, ...] = ()
    is_stale: bool = False
    relayed: Reply | None = None


@dataclass
class Desk:
    """Serves requests under one configuration."""

    config: Config
    store: Store
    dispatcher: Dispatcher
    waiters: Waiters
    metrics: Metrics
    ids: MakeId
    now: Callable[[], int] = field(default_factory=Clock)
    full: bool = False
    name: str = ""
    crowd: Crowd = field(default_factory=Crowd)
    _asked: TTLCache[Hashable, bool] = field(default_factory=lambda: TTLCache(10_000, 1.0))
    _in_vain: TTLCache[Hashable, bool] = field(default_factory=lambda: TTLCache(10_000, 1.0))

    def __post_init__(self) -> None:
        self.road = Road(self.config, self.ids, name=self.name)
        self._spending = Spending(self.store, self.now)

    async def serve(
        self, inbound: Inbound, caller: str, asked: Asked, request: int, *, via: Via = (), key: Key | None = None
    ) -> Answered:
        """Does what was asked; raises `Problem` where it is refused, `StoreError` where nothing can be kept. `via` are
        the gateways it came through, `key` makes a repeat of a creating call harmless."""
        who = Caller(inbound.dialect, caller, inbound.scope_of(caller))
        if isinstance(asked, Command):
            return await self._command(inbound, who, asked, request, request, via, key)
        if isinstance(asked, Batch):
            return await self._batch(inbound, who, asked, request, via, key)
        if isinstance(asked, Read):
            return await self._read(who, asked, request)
        if isinstance(asked, Inquiry):
            return await self._inquire(who, asked, request)
        if isinstance(asked, Listing):
            return await self._list(who, asked, request)
        if isinstance(asked, Reply):
            return Answered(Answer(), request, relayed=asked)
        if isinstance(asked, Mute | Unmute | Mutes):
            return await self._mute(who, asked, request, via)
        return await self._relay(who, asked, request, via)

    # --- commands ----------------------------------------------------------------------------------------

    async def _batch(
        self, inbound: Inbound, who: Caller, asked: Batch, request: int, via: Via, key: Key | None
    ) -> Answered:
        """Every command on its own, in their order; the problems of some are told once the others are durable. It goes
        by the id of its first alert: a repeat has to be told the same, and that one can be traced."""
        ended: list[Answered | BaseException] = []
        self._enter()
        try:
            for numbered in _rounds(asked.commands):
                one_by_one = [
                    self._command(
                        inbound, who, one, request, self.ids(), via, key.of_part(place) if key else None, is_part=True
                    )
                    for place, one in numbered
                ]
                ended += await asyncio.gather(*one_by_one, return_exceptions=True)
        finally:
            self.crowd.leave()
        problems = [*asked.problems, *(one for one in ended if isinstance(one, Problem))]
        if others := [one for one in ended if isinstance(one, BaseException) and not isinstance(one, Problem)]:
            raise others[0]
        if problems:
            raise together(problems)
        answered = [one for one in ended if isinstance(one, Answered)]
        reports = joined([line for one in answered for line in one.reports])
        answer = Answer(answers=tuple(one.answer for one in answered), request=request)
        return Answered(answer, answered[0].id if answered else request, reports)

    async def _command(
        self,
        inbound: Inbound,
        who: Caller,
        asked: Command,
        request: int,
        command: int,
        via: Via,
        key: Key | None,
        *,
        is_part: bool = False,
    ) -> Answered:
        self._have_room()
        log.debug("command", operation=asked.operation, caller=who.name)
        at = self.now()

        def work(tx: Tx) -> FirstAnswer | tuple[Accepted, Waiter | None]:
            self.waiters.remove(command)  # the store may run this again, and then there may be nothing to wait for
            if key is not None and (first := first_answer(tx, who.scope, key, at)) is not None:
                return first
            accepted = self.road.accept(tx, asked, who, request, command, at, via)
            waiter = self._waiter(tx, inbound, who, accepted)
            if key is not None:
                answered = self._answered(asked, accepted, accepted.alert, request, {})
                self._keep(tx, who, key, at, answered, accepted.alert, is_done=waiter is None)
            return accepted, waiter

        done = await self._written(work, command, is_part)
        if isinstance(done, FirstAnswer):
            await self._see_it_land(lambda tx: all_has_landed(tx, done.alert))
            return Answered(as_answer(done), done.alert or done.request, done.reports)
        accepted, waiter = done
        self._pass_on(who, accepted, via)
        if not waiter:
            await self._see_it_land(lambda tx: has_landed(tx, asked, who, accepted))
            return self._answered(asked, accepted, accepted.alert, request, {})
        row = await self._await_verdict(who, accepted, waiter, key)
        refused = {
            name: verdict.code or ProblemKind.REFUSED
            for name, verdict in waiter.verdicts.items()
            if verdict.state == "dead"
        }
        answered = self._answered(asked, accepted, row, request, refused)
        if key is not None:
            await self.store.write(lambda tx: self._keep(tx, who, key, at, answered, row, is_done=True))
        await self._see_it_land(lambda tx: has_landed(tx, asked, who, accepted))
        return answered

    def _pass_on(self, who: Caller, accepted: Accepted, via: Via) -> None:
        """What was written is to be delivered, and counted."""
        for delivery in accepted.deliveries:
            self.dispatcher.wake(delivery.upstream)
        for upstream, fates in accepted.reports.items():
            self.metrics.report(who.dialect.name, upstream, fates)
        if Code.LOOP in accepted.dead.values():
            self.metrics.loop(who.dialect.name)
            log.warning("command.loops", command=accepted.command, via=list(via))
        for upstream, code in accepted.dead.items():
            if code == Code.NO_UPSTREAM:
                log.warning("delivery.no_upstream", command=accepted.command, upstream=upstream)

    async def _see_it_land(self, look: Callable[[Tx], bool]) -> None:
        """Raises `Problem` where the store goes with its container and no upstream has what it holds."""
        if self.config.durable == "container" and not await self.store.read(look):
            raise not_landed()

    def _have_room(self) -> None:
        if self.full or self.store.is_strained:
            raise Problem(ProblemKind.OVERLOADED, "too much waits, or the disk is full; try again", retry_after=30)

    def _enter(self) -> int:
        """Comes in to have something written, unless so many wait for that already that one is better told to come
        again; answers how many are ahead."""
        ahead = self.crowd.enter()
        if ahead is None:
            raise Problem(ProblemKind.OVERLOADED, "too many requests are under way; try again", retry_after=1)
        return ahead

    async def _written(self, work: Callable[[Tx], T], command: int, is_part: bool) -> T:
        """Writes for a caller. The parts of a batch have come in together, and are not counted each."""
        began, ahead = time.monotonic(), None if is_part else self._enter()
        try:
            return await self.store.write(work)
        except BaseException:
            self.waiters.remove(command)
            raise
        finally:
            if ahead is not None:
                self.crowd.leave(ahead, time.monotonic() - began)

    def _answered(
        self, asked: Command, accepted: Accepted, row: AlertRow | None, request: int, refused: dict[str, str]
    ) -> Answered:
        dead = {**accepted.dead, **refused}
        lines = [header(name, fates, dead.get(name, "")) for name, fates in accepted.reports.items()]
        answer = Answer(shown=as_shown(row) if row else None, key=asked.ref.key if asked.ref else None, request=request)
        return Answered(answer, row.id if row else request, tuple(line for line in lines if line))

    def _keep(
        self, tx: Tx, who: Caller, key: Key, at: int, answered: Answered, row: AlertRow | None, *, is_done: bool
    ) -> None:
        keep(
            tx,
            who.scope,
            key,
            at,
            request=answered.answer.request,
            row=row,
            answer=answered.answer,
            reports=answered.reports,
            is_done=is_done,
        )

    def _waiter(self, tx: Tx, inbound: Inbound, who: Caller, accepted: Accepted) -> Waiter | None:
        """Somebody to wait for the verdicts, unless nobody is to wait or waiting would be in vain."""
        primary = accepted.primary
        names = [delivery.upstream for delivery in accepted.deliveries]
        is_vain = primary not in names or accepted.queued_behind or self.dispatcher.is_open(primary)
        any_will_do = self.config.durable == "container" and (is_vain or inbound.reply == "accepted")
        if any_will_do:
            if all(self.dispatcher.is_open(name) for name in names):
                return None
            primary = primary if primary in names else names[0]
        elif is_vain or inbound.reply == "accepted":
            return None
        assert primary is not None
        akin = self.config.upstreams[primary].dialect.name == who.dialect.name
        alone = accepted.alert is not None and len(tx.targets(accepted.alert.id)) == 1
        waiter = Waiter(primary, names, shows=akin and accepted.is_new, strict=akin and alone, any_will_do=any_will_do)
        return waiter if self.waiters.add(accepted.command, waiter) else None

    async def _await_verdict(self, who: Caller, accepted: Accepted, waiter: Waiter, key: Key | None) -> AlertRow | None:
        try:
            await asyncio.wait_for(waiter.done.wait(), self.config.reply_timeout)
        except TimeoutError:
            with contextlib.suppress(TimeoutError):  # only a store that is full keeps one waiting here
                await asyncio.wait_for(waiter.unclaimed.wait(), self.config.reply_timeout)
        finally:
            self.waiters.remove(accepted.command)
        if waiter.all_refused():
            await self._take_back(who, accepted, waiter, key)
        if accepted.alert is None:
            return None
        alert = accepted.alert.id
        return await self.store.read(lambda tx: tx.alert(alert)) or accepted.alert

    async def _take_back(self, who: Caller, accepted: Accepted, waiter: Waiter, key: Key | None) -> None:
        """Everybody refused it: the command is undone, and the caller hears why; unless somebody else has it by now."""
        verdict = waiter.verdicts[waiter.primary]
        upstream = self.config.upstreams[waiter.primary]
        akin = upstream.dialect.name == who.dialect.name
        reason = f"{waiter.primary}: {verdict.reason}"

        def work(tx: Tx) -> bool:
            command = tx.command(accepted.command)
            if command and not is_refused(tx, command):
                return False
            if key is not None:
                tx.remove_keyed(who.scope, key.text)
            row = undo(tx, command, reason) if command else None
            if row and verdict.changed:
                refresh(tx, row, upstream, verdict.changed.found, verdict.changed.seen, self.now())
            return True

        if not await self.store.write(work):
            return
        for name in waiter.verdicts:
            self.dispatcher.wake(name)
        log.warning("command.refused", command=accepted.command, upstream=waiter.primary, reason=verdict.reason)
        kind = verdict.kind if akin or verdict.kind is ProblemKind.UNMET else ProblemKind.REFUSED
        raise Problem(kind, reason)

    # --- reads -------------------------------------------------------------------------------------------

    async def _read(self, who: Caller, asked: Read, request: int) -> Answered:
        found = await self.store.read(lambda tx: look_up(tx, who, asked.ref))
        if found is None:
            raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")
        row, target, is_quiet = found
        is_stale = False
        upstream = self._akin(who, target.upstream) if target else None
        upstream = None if upstream and target and is_anothers(target, upstream) else upstream
        if upstream and target and upstream.dialect.outbound.read and target.ids and is_quiet:
            if self._may_ask(row.id):
                row, is_in_vain = await self._ask_for_one(who, row, target, upstream)
                self._note(row.id, is_in_vain)
            is_stale = row.id in self._in_vain
        # It may have been said thousands of times: nobody else is to wait for that.
        history = await self.store.read(lambda tx: told(tx, row.id), is_long=True) if asked.history else ()
        return Answered(
            Answer(shown=as_shown(row), request=request, history=history, page=asked.page), row.id, is_stale=is_stale
        )

    async def _inquire(self, who: Caller, asked: Inquiry, request: int) -> Answered:
        found = await self.store.read(lambda tx: inquire(tx, who, asked.request))
        if found is None:
            raise Problem(ProblemKind.NOT_FOUND, "there is no such request", field="id")
        inquired, row = found
        shown = as_shown(row) if row else None
        return Answered(Answer(shown=shown, request=request, inquired=inquired), row.id if row else request)

    def _akin(self, who: Caller, name: str) -> Upstream | None:
        """The upstream of this name, if it speaks the caller's dialect."""
        upstream = self.config.upstreams.get(name)
        return upstream if upstream and upstream.dialect.name == who.dialect.name else None

    def _may_ask(self, what: Hashable) -> bool:
        """At most once a second."""
        if what in self._asked:
            return False
        self._asked[what] = True
        return True

    def _note(self, what: Hashable, is_in_vain: bool) -> None:
        """Who is not asked again within the second gets no better answer than the one who asked."""
        self._in_vain.pop(what, None)
        if is_in_vain:
            self._in_vain[what] = True

    async def _ask(self, upstream: Upstream, call: Call, entry: str) -> Outcome | None:
        """Runs a reading call; None where it does not end well in time, or the upstream is left alone."""
        if self.dispatcher.is_left_alone(upstream.name):
            return None
        requests = 1
        try:
            client = self.dispatcher.client(upstream.name)
            ended = await asyncio.wait_for(client.run(call, entry=entry), self.config.reply_timeout)
            requests = ended.requests
        except TimeoutError:
            return None
        except Exception:
            log.exception("read.failed", upstream=upstream.name)
            return None
        finally:
            self._spending.note(upstream, requests)
        return ended.outcome

    async def _ask_for_one(
        self, who: Caller, row: AlertRow, target: TargetRow, upstream: Upstream
    ) -> tuple[AlertRow, bool]:
        assert upstream.dialect.outbound.read
        call = upstream.dialect.outbound.read(question(upstream, target, self.now()))
        outcome = await self._ask(upstream, call, key_entry(target.lane))
        if isinstance(outcome, Missing):
            known = await self.store.write(lambda tx: self._forget(tx, who, row, target, upstream))
            if not isinstance(known, AlertRow):
                if known is not None:
                    self._pass_on(who, known, ())
                raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")
            return known, False
        if not isinstance(outcome, Found) or not outcome.alerts:
            return row, True
        found = outcome.alerts[0]

        def work(tx: Tx) -> AlertRow:
            tx.lock(f"alert {row.id}")
            now = tx.alert(row.id) or row
            if now.version != row.version or tx.is_waiting(row.id, upstream.name):
                return now  # what changed here while we asked is newer than the answer
            return refresh(tx, now, upstream, found.flat, found.seen, self.now(), found.ids)

        return await self.store.write(work), False

    def _forget(
        self, tx: Tx, who: Caller, row: AlertRow, target: TargetRow, upstream: Upstream
    ) -> AlertRow | Accepted | None:
        """Nothing is left of an alert that the upstream has no more, unless it was told anew while it was asked. Where
        others have it too they are told its end: no caller can say it any more."""
        tx.lock(f"alert {row.id}")
        now = tx.alert(row.id) or row
        ids = [one.ids for one in tx.targets(row.id) if one.upstream == upstream.name]
        if now.version != row.version or ids != [target.ids] or tx.is_waiting(row.id, upstream.name):
            return now
        if now.is_deleted:
            return None
        ended: Accepted | None = None
        if len(ids) < len(tx.targets(row.id)):
            why = f"it was deleted at {upstream.name}"
            ended = self.road.end(tx, now, who.dialect, self.ids(), self.now(), operation=Operation.DELETE, why=why)
        forget(tx, row.id, upstream, self.now())
        return ended

    async def _list(self, who: Caller, asked: Listing, request: int) -> Answered:
        chosen = choose(self.config.routes, who.dialect.name, who.name, None)
        upstream = self._akin(who, chosen[0].upstream) if chosen else None
        entry = upstream.entry(who.dialect.name, who.name) if upstream else ""
        of_whom = ("list", who.scope, upstream.name if upstream else "", entry)
        if upstream and upstream.dialect.outbound.list and self._may_ask(of_whom):
            asked_at = self.now()
            call = upstream.dialect.outbound.list(question(upstream, None, asked_at))
            outcome = await self._ask(upstream, call, entry)
            self._note(of_whom, not isinstance(outcome, Found))
            if isinstance(outcome, Found):
                await self._take_in(who, upstream, outcome.alerts, asked_at, entry)
        is_stale = of_whom in self._in_vain
        wanted = AlertFilter(
            statuses=asked.statuses or (() if who.dialect.has_status else ("firing", "acknowledged")),
            resource=asked.resource,
            updated_from=millis(asked.since) if asked.since else None,
            created_before=millis(asked.before) if asked.before else None,
            offset=asked.offset,
            limit=asked.limit,
        )
        answer = await self.store.read(lambda tx: listed(tx, who.scope, asked, wanted, self.now()), is_long=True)
        return Answered(structs.replace(answer, request=request), request, is_stale=is_stale)

    async def _take_in(
        self, who: Caller, upstream: Upstream, alerts: Sequence[FoundAlert], asked_at: int, entry: str
    ) -> None:
        """Brings a list into the record, a part at a time: what others write meanwhile comes between."""
        since = asked_at - int(self.config.retention * 1000)
        for begin in range(0, len(alerts), TAKEN_IN_AT_ONCE):
            part = alerts[begin : begin + TAKEN_IN_AT_ONCE]
            work = partial(
                take_in,
                who=who,
                upstream=upstream,
                alerts=part,
                ids=self.ids,
                asked_at=asked_at,
                now=self.now(),
                kept_since=since,
                entry=entry,
            )
            await self.store.write(work, is_long=True)
        if upstream.dialect.outbound.read is None:
            there = {found.id for found in alerts}
            missed = await self.store.read(lambda tx: unlisted(tx, who, upstream, there, entry), is_long=True)
            if missed:
                await self.store.write(lambda tx: let_go(tx, missed, asked_at), is_long=True)

    async def _mute(self, who: Caller, asked: Mute | Unmute | Mutes, request: int, via: Via) -> Answered:
        """What callers ask not to be told of. The open alerts that they mean have been seen, and are acknowledged: the
        first of them before the answer, the others behind it. Where the store takes none any more the silence stands
        all the same, and is answered so: a repeat would make another one."""
        if isinstance(asked, Mutes):
            wanted = asked.id
            found = await self.store.read(lambda tx: mutes(tx, who.scope, wanted))
            return Answered(Answer(mutes=tuple(asked.choose(found)), request=request), request)
        if isinstance(asked, Unmute):
            ended = asked.id
            muted = await self.store.write(lambda tx: muting.end(tx, who.scope, ended, self.now()))
            return Answered(Answer(mutes=(muted,), request=request), request)
        self._have_room()
        muted, owed = await self.store.write(lambda tx: self._keep_mute(tx, who, asked, request, via))
        try:
            dialects = {who.dialect.name: who.dialect}
            for name in await quieten(self.store, self.road, dialects, owed, self.ids, self.now()):
                self.dispatcher.wake(name)
        except StoreError as error:
            log.warning("silence.not_acknowledged", silence=muted.id, reason=str(error))
        return Answered(Answer(mutes=(muted,), request=request), request)

    def _keep_mute(self, tx: Tx, who: Caller, asked: Mute, request: int, via: Via) -> tuple[Muted, list[Owed]]:
        """Keeps a silence, with what it is to acknowledge if it has begun."""
        muted = muting.keep(tx, who.scope, asked, self.now())
        if millis(muted.starts_at) > self.now():  # this one may begin within the millisecond
            return muted, []
        owed = Owed(
            silence=muted.id,
            request=request,
            dialect=who.dialect.name,
            caller=who.name,
            scope=who.scope,
            comment=asked.comment,
            via=via,
        )
        owe(tx, owed)
        return muted, [owed]

    async def _relay(self, who: Caller, asked: Relay, request: int, via: Via) -> Answered:
        if self.name and self.name in via:
            return Answered(Answer(), request, relayed=_said(asked.otherwise))
        chosen = choose(self.config.routes, who.dialect.name, who.name, None)
        upstream = self._akin(who, chosen[0].upstream) if chosen else None
        answered: Reply | None = None
        if upstream:
            client, entry = self.dispatcher.client(upstream.name), upstream.entry(who.dialect.name, who.name)
            answered = await client.relay(asked.request, self.config.reply_timeout, via, entry)
            self._spending.note(upstream, 1)
            if answered is None and asked.unheard is not None:
                raise asked.unheard
        relayed = answered or _said(asked.otherwise)
        return Answered(Answer(), request, relayed=relayed, is_stale=bool(upstream and not answered))


def _said(otherwise: Reply | Problem) -> Reply:
    """What is said without asking the primary; raises `Problem` where it is that."""
    if isinstance(otherwise, Problem):
        raise otherwise
    return otherwise


def _rounds(commands: Sequence[Command]) -> Iterator[list[tuple[int, Command]]]:
    """The commands of a batch with their places, so many at once. Of one alert there is one in each, since it is for
    the store to say which of a round comes first; what has no key is an alert of its own."""
    numbered: list[tuple[int, Command]] = []
    keys: set[str] = set()
    for place, one in enumerate(commands):
        key = (one.ref.key or one.ref.id) if one.ref else one.patch.get("dedup_key")
        if key in keys or len(numbered) == AT_ONCE:
            yield numbered
            numbered, keys = [], set()
        numbered.append((place, one))
        if key:
            keys.add(key)
    if numbered:
        yield numbered
