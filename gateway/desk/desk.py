"""The desk: executes what a dialect read from a request, and returns the answer for the caller.

It waits for verdicts where the caller is to wait, and undoes a command that every upstream refused; queries are
answered by `gateway.desk.views`. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from msgspec import Struct

from gateway import spans
from gateway.asked import Answer, Asked, Batch, Command, Inquiry, Listing, Mute, Muted, Mutes, Read, Reply, Unmute
from gateway.clock import Clock
from gateway.codes import Code
from gateway.config.config import Config, Inbound
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.waiting import Waiter, Waiters
from gateway.desk.crowding import Crowd
from gateway.desk.idempotency import Key, as_answer, first_answer, keep
from gateway.desk.lookup import as_shown, mutes
from gateway.desk.refreshing import refresh
from gateway.desk.views import Views
from gateway.errors import Problem, ProblemKind, StoreError, together
from gateway.ids import MakeId
from gateway.mapping.report import header, joined
from gateway.mapping.values import millis
from gateway.metrics import Metrics
from gateway.road import muting
from gateway.road.accepted import Accepted, Answered, Caller, Order, Via
from gateway.road.landing import first_has_landed, has_landed, not_landed
from gateway.road.quieting import Owed, owe, owe_no_more, quieten
from gateway.road.road import Road
from gateway.road.undoing import is_refused, undo
from gateway.store import AlertRow, FirstAnswer, Store, Tx

log = structlog.get_logger()
AT_ONCE = 256
"""Most commands of a batch being written at once."""
PARTS = 32
"""Most commands of a batch that wait to be written at once, so that other callers' writes come between."""


class _Call(Struct, frozen=True, kw_only=True):
    """A caller's request: its number, the gateways that it came through, the idempotency key of a creating one, whether
    its caller waits for verdicts, what is to be called once all of its commands are durable, and its trace."""

    who: Caller
    number: int
    via: Via
    key: Key | None
    waits: bool
    on_kept: Callable[[], None] | None
    trace: str

    def order(self, asked: Command, command: int, now: int) -> Order:
        """One of its commands as an order, under the command's own id."""
        who, number = self.who, self.number
        return Order(asked=asked, caller=who, request=number, command=command, now=now, via=self.via, trace=self.trace)


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

    def __post_init__(self) -> None:
        self.road = Road(self.config, self.ids, name=self.name)
        self.views = Views(
            config=self.config,
            store=self.store,
            dispatcher=self.dispatcher,
            road=self.road,
            ids=self.ids,
            now=self.now,
            name=self.name,
            pass_on=self._pass_on,
        )

    async def serve(
        self,
        inbound: Inbound,
        caller: str,
        asked: Asked,
        request: int,
        *,
        via: Via = (),
        key: Key | None = None,
        on_kept: Callable[[], None] | None = None,
    ) -> Answered:
        """Does what was asked; raises `Problem` where it is refused, `StoreError` where the store cannot be used. `via`
        are the gateways that it came through, `key` is the idempotency key of a creating call; `on_kept` is called once
        all commands of the request are durable and only verdicts are waited for."""
        who = Caller(inbound.dialect, caller, inbound.scope_of(caller))
        waits = inbound.reply == "delivered"
        trace = spans.trace()
        call = _Call(who=who, number=request, via=via, key=key, waits=waits, on_kept=on_kept, trace=trace)
        if isinstance(asked, Command):
            await self.views.look_before(who, asked, request)
            return await self._command(call, asked, request, key)
        if isinstance(asked, Batch):
            return await self._batch(call, asked)
        if isinstance(asked, Read):
            return await self.views.read(who, asked, request)
        if isinstance(asked, Inquiry):
            return await self.views.inquire(who, asked, request)
        if isinstance(asked, Listing):
            return await self.views.list(who, asked, request)
        if isinstance(asked, Reply):
            return Answered(Answer(), request, relayed=asked)
        if isinstance(asked, Mute | Unmute | Mutes):
            return await self._mute(call, asked)
        return await self.views.relay(who, asked, request, via)

    # --- commands ----------------------------------------------------------------------------------------

    async def _batch(self, call: _Call, asked: Batch) -> Answered:
        """Handles each command on its own: they are written in their order, and their verdicts are awaited together;
        the problems of some are raised once the others are durable. The answer has the id of the first alert, and of
        the request that this was first reported in: a repeat has to be answered alike, and that request can be
        traced."""
        under_way: list[asyncio.Task[Answered]] = []
        turns = _Turns()
        self._enter()
        try:
            for numbered in _rounds(asked.commands, call.who.dialect.same_key):
                turns.left = len(numbered)
                for place, one in numbered:
                    key = call.key.of_part(place) if call.key else None
                    under_way.append(asyncio.create_task(self._command(call, one, self.ids(), key, turns)))
                await turns.all_kept()
        except BaseException:
            for task in under_way:
                task.cancel()
            raise
        finally:
            self.crowd.leave()
        if call.on_kept is not None:
            call.on_kept()
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        problems = [*asked.problems, *(one for one in ended if isinstance(one, Problem))]
        if others := [one for one in ended if isinstance(one, BaseException) and not isinstance(one, Problem)]:
            raise others[0]
        if problems:
            raise together(problems)
        answered = [one for one in ended if isinstance(one, Answered)]
        reports = joined([line for one in answered for line in one.reports])
        first = answered[0].answer.request if answered else call.number
        answer = Answer(answers=tuple(one.answer for one in answered), request=first)
        return Answered(answer, answered[0].id if answered else call.number, reports)

    async def _command(
        self, call: _Call, asked: Command, number: int, key: Key | None, turns: _Turns | None = None
    ) -> Answered:
        """Handles one command under its `number`, and waits for the verdicts where its caller is to wait. The commands
        of a batch share `turns`, and each has a `key` of its own."""
        log.debug("command", operation=asked.operation, caller=call.who.name)
        try:
            async with self._admitted(turns):
                # Between this and the writing nothing is awaited: the clock may have been set before.
                order = call.order(asked, number, self.now())
                done = await self.store.write(lambda tx: self._accept(tx, call, order, key))
        except BaseException:
            self.waiters.remove(number)
            raise
        if call.on_kept is not None and turns is None:
            call.on_kept()
        if isinstance(done, FirstAnswer):
            await self._see_it_land(lambda tx: first_has_landed(tx, done))
            return Answered(as_answer(done), done.alert or done.request, done.reports)
        accepted, waiter = done
        self._pass_on(order.caller, accepted, order.via)
        if waiter is None:
            answered = self._answered(order, accepted, accepted.alert, {})
        else:
            answered = await self._answered_at_last(order, accepted, waiter, key)
        await self._see_it_land(lambda tx: has_landed(tx, order.asked, order.caller, accepted))
        return answered

    def _accept(
        self, tx: Tx, call: _Call, order: Order, key: Key | None
    ) -> FirstAnswer | tuple[Accepted, Waiter | None]:
        """Records the command and, where the caller waits for verdicts, a waiter; returns the first answer instead if
        the idempotency key was used before."""
        self.waiters.remove(order.command)  # the store may run this again, and then there may be nothing to wait for
        first = first_answer(tx, order.caller.scope, key, order.now) if key is not None else None
        if first is not None and not self._undo_if_refused(tx, first):
            return first
        accepted = self.road.accept(tx, order)
        waiter = self._waiter(tx, order, accepted, waits=call.waits)
        if key is not None:
            answered = self._answered(order, accepted, accepted.alert, {})
            keep(tx, order, key, answered, accepted.alert, is_done=waiter is None)
        return accepted, waiter

    async def _answered_at_last(self, order: Order, accepted: Accepted, waiter: Waiter, key: Key | None) -> Answered:
        """The answer once the verdicts are there, or the time to wait for them is over."""
        row = await self._await_verdict(order.caller, accepted, waiter, key)
        refused = {
            name: verdict.code or ProblemKind.REFUSED
            for name, verdict in waiter.verdicts.items()
            if verdict.state == "dead"
        }
        answered = self._answered(order, accepted, row, refused)
        if key is not None:
            await self.store.write(lambda tx: keep(tx, order, key, answered, row, is_done=True))
        return answered

    def _undo_if_refused(self, tx: Tx, first: FirstAnswer) -> bool:
        """Undoes the first request under an idempotency key and returns True, where every upstream has refused it since
        and success was never answered: the caller had given up, or was to ask again. The repeat is then handled like a
        first request."""
        was_told = first.is_done and self.config.durable != "container"
        command = None if was_told else tx.command(first.command)
        if command is None or not is_refused(tx, command):
            return False
        dead = [one for one in tx.deliveries_of(command.id) if one.state == "dead"]
        if not dead:
            return False
        undo(tx, command, f"{dead[0].upstream}: {dead[0].reason}")
        return True

    def _pass_on(self, who: Caller, accepted: Accepted, via: Via) -> None:
        """Wakes the upstreams of the deliveries that were written, and updates metrics and log."""
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
        """Raises `Problem` where the store is lost with its container and no upstream has what was said yet."""
        if self.config.durable == "container" and not await self.store.read(look):
            raise not_landed()

    def _have_room(self) -> None:
        if self.full or self.store.is_strained:
            raise Problem(ProblemKind.OVERLOADED, "the outbox or the disk is full; try again later", retry_after=30)

    def see_whether_there_is_room(self) -> None:
        """Raises `Problem` where too many requests wait to be written for another one to be worth admitting. It is
        cheap: under overload, the time that refusals take is lost to admitted requests."""
        if self.crowd.is_full:
            raise Problem(ProblemKind.OVERLOADED, "too many requests are under way; try again later", retry_after=1)

    def _enter(self) -> int:
        """Admits a request that writes; returns how many are ahead of it. Raises `Problem` where it is not admitted."""
        self.see_whether_there_is_room()
        return self.crowd.enter()

    @contextlib.asynccontextmanager
    async def _admitted(self, turns: _Turns | None) -> AsyncIterator[None]:
        """Admits one write for a caller. The commands of a batch were admitted together, and are not counted one by
        one; each waits for its turn."""
        if turns is not None:
            async with turns.one():
                self._have_room()
                yield
            return
        self._have_room()
        began, ahead = time.monotonic(), self._enter()
        try:
            yield
        finally:
            self.crowd.leave(ahead, time.monotonic() - began)

    def _answered(self, order: Order, accepted: Accepted, row: AlertRow | None, refused: Mapping[str, str]) -> Answered:
        dead, ref = {**accepted.dead, **refused}, order.asked.ref
        lines = [header(name, fates, dead.get(name, "")) for name, fates in accepted.reports.items()]
        shown = as_shown(row) if row else None
        answer = Answer(shown=shown, key=ref.key if ref else None, request=order.request)
        return Answered(answer, row.id if row else order.request, tuple(line for line in lines if line))

    def _waiter(self, tx: Tx, order: Order, accepted: Accepted, *, waits: bool) -> Waiter | None:
        """Registers and returns a waiter for the verdicts; None where the caller is not to wait, or waiting would be in
        vain. Where the store is lost with its container a caller waits for whichever upstream there is."""
        primary, names = accepted.primary, [delivery.upstream for delivery in accepted.deliveries]
        is_vain = primary not in names or accepted.queued_behind or self.dispatcher.is_open(primary)
        any_will_do = is_vain or not waits
        if any_will_do and (self.config.durable != "container" or all(map(self.dispatcher.is_open, names))):
            return None
        primary = primary if primary in names else names[0]
        akin = self.config.upstreams[primary].dialect.name == order.caller.dialect.name
        alone = akin and accepted.alert is not None and len(tx.targets(accepted.alert.id)) == 1
        shows = akin and accepted.is_new
        waiter = Waiter(order.request, primary, names, shows=shows, strict=alone, any_will_do=any_will_do)
        return waiter if self.waiters.add(accepted.command, waiter) else None

    async def _await_verdict(self, who: Caller, accepted: Accepted, waiter: Waiter, key: Key | None) -> AlertRow | None:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter.done.wait(), self.config.reply_timeout)
            with contextlib.suppress(TimeoutError):  # this takes long only where the store is full
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
        """Undoes a command that every upstream refused, and raises `Problem` with the reason; does nothing where an
        upstream has it by now."""
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

    # --- silences ----------------------------------------------------------------------------------------

    async def _mute(self, call: _Call, asked: Mute | Unmute | Mutes) -> Answered:
        """Handles silences. The open alerts that a new one matches count as seen, and are acknowledged: a first part of
        them before the answer, the others after it. Where the store fails meanwhile the silence is kept all the same,
        and answered with success: a repeat would create another one."""
        who, request = call.who, call.number
        if isinstance(asked, Mutes):
            wanted = asked.id
            found = await self.store.read(lambda tx: mutes(tx, who.scope, wanted))
            return Answered(Answer(mutes=tuple(asked.choose(found)), request=request), request)
        if isinstance(asked, Unmute):
            ended = asked.id
            muted = await self.store.write(lambda tx: self._end_mute(tx, who.scope, ended))
            return Answered(Answer(mutes=(muted,), request=request), request)
        self._have_room()
        muted, owed = await self.store.write(lambda tx: self._keep_mute(tx, call, asked))
        try:
            dialects = {who.dialect.name: who.dialect}
            for name in await quieten(self.store, self.road, dialects, owed, self.ids, self.now()):
                self.dispatcher.wake(name)
        except StoreError as error:
            log.warning("silence.not_acknowledged", silence=muted.id, reason=str(error))
        return Answered(Answer(mutes=(muted,), request=request), request)

    def _end_mute(self, tx: Tx, scope: str, silence: str) -> Muted:
        """Ends a silence: what it has not acknowledged by now is not."""
        muted = muting.end(tx, scope, silence, self.now())
        owe_no_more(tx, silence)
        return muted

    def _keep_mute(self, tx: Tx, call: _Call, asked: Mute) -> tuple[Muted, list[Owed]]:
        """Stores a silence and, if it has begun, the acknowledgements that it owes."""
        who = call.who
        muted = muting.keep(tx, who.scope, asked, self.now())
        if millis(muted.starts_at) > self.now():  # it may begin within this very millisecond
            return muted, []
        owed = Owed(
            silence=muted.id,
            request=call.number,
            dialect=who.dialect.name,
            caller=who.name,
            scope=who.scope,
            comment=asked.comment,
            via=call.via,
            trace=call.trace,
        )
        owe(tx, owed)
        return muted, [owed]


class _Turns:
    """Writes the commands of a batch, at most `PARTS` at once; `left` is how many of a round are not yet written."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(PARTS)
        self._kept = asyncio.Event()
        self.left = 0

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Holds one of the places to write in; entered by each command of the round exactly once."""
        try:
            async with self._free:
                yield
        finally:
            self.left -= 1
            if not self.left:
                self._kept.set()

    async def all_kept(self) -> None:
        """Waits until all commands of the round are written, or failed."""
        await self._kept.wait()
        self._kept.clear()


def _rounds(commands: Sequence[Command], same_key: Callable[[str], str]) -> Iterator[list[tuple[int, Command]]]:
    """Splits a batch into rounds of at most `AT_ONCE` commands, each with its place in the batch. A round has at most
    one command per alert, since the store may write the commands of a round in any order. A command without a key
    counts as an alert of its own."""
    numbered: list[tuple[int, Command]] = []
    keys: set[str] = set()
    for place, one in enumerate(commands):
        said = (one.ref.key or one.ref.id) if one.ref else one.patch.get("dedup_key")
        key = same_key(said) if said else None
        if key in keys or len(numbered) == AT_ONCE:
            yield numbered
            numbered, keys = [], set()
        numbered.append((place, one))
        if key:
            keys.add(key)
    if numbered:
        yield numbered
