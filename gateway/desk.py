"""The desk: takes what a dialect read from a request, and comes back with what the caller is to be told.

It waits for verdicts where the caller is to wait, takes a command back that everybody refused, and asks a primary
of the caller's own dialect before it answers a read. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from cachetools import TTLCache

from gateway.canonical import Operation, flatten
from gateway.config import Config, Inbound, Upstream
from gateway.delivery.dispatcher import Dispatcher
from gateway.dialect import Answer, Command, Found, Listing, Missing, Read, Relay, Reply, Sending, Shown
from gateway.errors import Problem, ProblemKind
from gateway.metrics import Metrics
from gateway.refreshing import forget, refresh, take_in
from gateway.road import Accepted, Caller, Road
from gateway.routing import choose
from gateway.store import AlertFilter, AlertRow, Store, TargetRow, Tx
from gateway.translation import header
from gateway.undoing import undo
from gateway.values import millis
from gateway.waiting import Waiter, Waiters

log = structlog.get_logger()


@dataclass(frozen=True)
class Answered:
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
    ids: Callable[[], int]
    now: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    full: bool = False
    _asked: TTLCache[Any, bool] = field(default_factory=lambda: TTLCache(10_000, 1.0))

    def __post_init__(self) -> None:
        self._road = Road(self.config, self.ids)

    async def serve(self, inbound: Inbound, caller: str, asked: Any, request: int) -> Answered:
        """Does what was asked; raises `Problem` where it is refused, `StoreError` where nothing can be kept."""
        who = Caller(inbound.dialect, caller, inbound.scope_of(caller))
        if isinstance(asked, Command):
            return await self._command(inbound, who, asked, request)
        if isinstance(asked, Read):
            return await self._read(who, asked, request)
        if isinstance(asked, Listing):
            return await self._list(who, asked, request)
        return await self._relay(who, asked, request)

    # --- commands ----------------------------------------------------------------------------------------

    async def _command(self, inbound: Inbound, who: Caller, asked: Command, request: int) -> Answered:
        if self.full:
            raise Problem(ProblemKind.OVERLOADED, "too many deliveries wait; try again later", retry_after=30)
        log.debug("command", operation=asked.operation, caller=who.name)

        def work(tx: Tx) -> tuple[Accepted, Waiter | None]:
            accepted = self._road.accept(tx, asked, who, request, request, self.now())
            return accepted, self._waiter(tx, inbound, who, accepted) if inbound.reply == "delivered" else None

        try:
            accepted, waiter = await self.store.write(work)
        except BaseException:
            self.waiters.remove(request)
            raise
        for delivery in accepted.deliveries:
            self.dispatcher.wake(delivery.upstream)
        for upstream, fates in accepted.reports.items():
            self.metrics.report(who.dialect.name, upstream, fates)
        row = accepted.alert
        dead = dict(accepted.dead)
        if waiter:
            row = await self._await_verdict(who, accepted, waiter)
            dead |= {name: "refused" for name, verdict in waiter.verdicts.items() if verdict.state == "dead"}
        lines = [header(name, fates, dead.get(name, "")) for name, fates in accepted.reports.items()]
        shown = _shown(row) if row else None
        key = asked.ref.key if asked.ref else None
        return Answered(Answer(shown=shown, key=key), row.id if row else request, tuple(line for line in lines if line))

    def _waiter(self, tx: Tx, inbound: Inbound, who: Caller, accepted: Accepted) -> Waiter | None:
        """Somebody to wait for the verdicts, unless waiting would be in vain."""
        primary = accepted.primary
        names = [delivery.upstream for delivery in accepted.deliveries]
        if primary not in names or accepted.queued_behind or self.dispatcher.is_held(primary):
            return None
        akin = self.config.upstreams[primary].dialect.name == who.dialect.name
        alone = accepted.alert is not None and len(tx.targets(accepted.alert.id)) == 1
        waiter = Waiter(primary, names, shows=akin and accepted.is_new, strict=akin and alone)
        return waiter if self.waiters.add(accepted.command, waiter) else None

    async def _await_verdict(self, who: Caller, accepted: Accepted, waiter: Waiter) -> AlertRow | None:
        try:
            await asyncio.wait_for(waiter.done.wait(), self.config.reply_timeout)
        except TimeoutError:
            with contextlib.suppress(TimeoutError):  # only a store that is full keeps one waiting here
                await asyncio.wait_for(waiter.unclaimed.wait(), self.config.reply_timeout)
        finally:
            self.waiters.remove(accepted.command)
        if waiter.all_refused():
            await self._take_back(who, accepted, waiter)
        if accepted.alert is None:
            return None
        alert = accepted.alert.id
        return await self.store.read(lambda tx: tx.alert(alert)) or accepted.alert

    async def _take_back(self, who: Caller, accepted: Accepted, waiter: Waiter) -> None:
        """Everybody refused it: the command is undone, and the caller hears why."""
        verdict = waiter.verdicts[waiter.primary]
        upstream = self.config.upstreams[waiter.primary]
        akin = upstream.dialect.name == who.dialect.name
        reason = f"{waiter.primary}: {verdict.reason}"

        def work(tx: Tx) -> None:
            command = tx.command(accepted.command)
            row = undo(tx, command, reason) if command else None
            if row and verdict.changed:
                refresh(tx, row, upstream, verdict.changed.found, verdict.changed.seen, self.now())

        await self.store.write(work)
        log.warning("command.refused", command=accepted.command, upstream=waiter.primary, reason=verdict.reason)
        kind = verdict.kind if akin or verdict.kind is ProblemKind.UNMET else ProblemKind.REFUSED
        raise Problem(kind, reason)

    # --- reads -------------------------------------------------------------------------------------------

    async def _read(self, who: Caller, asked: Read, request: int) -> Answered:
        name = asked.ref.id or ""
        found = await self.store.read(lambda tx: _look_up(tx, who, name))
        if found is None:
            raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")
        row, target, is_quiet = found
        is_stale = False
        upstream = self._akin(who, target.upstream) if target else None
        if upstream and target and upstream.dialect.outbound.read and target.ids and is_quiet and self._may_ask(row.id):
            row, is_stale = await self._ask_for_one(row, target, upstream)
        return Answered(Answer(shown=_shown(row)), row.id, is_stale=is_stale)

    def _akin(self, who: Caller, name: str) -> Upstream | None:
        """The upstream of this name, if it speaks the caller's dialect."""
        upstream = self.config.upstreams.get(name)
        return upstream if upstream and upstream.dialect.name == who.dialect.name else None

    def _may_ask(self, what: Any) -> bool:
        """At most once a second."""
        if what in self._asked:
            return False
        self._asked[what] = True
        return True

    async def _ask(self, upstream: Upstream, call: Any) -> Any:
        """Runs a reading call; None where it does not end well in time."""
        client = self.dispatcher.client(upstream.name)
        try:
            ended = await asyncio.wait_for(client.run(call), self.config.reply_timeout)
        except TimeoutError:
            return None
        except Exception:
            log.exception("read.failed", upstream=upstream.name)
            return None
        return ended.outcome

    async def _ask_for_one(self, row: AlertRow, target: TargetRow, upstream: Upstream) -> tuple[AlertRow, bool]:
        assert upstream.dialect.outbound.read
        outcome = await self._ask(upstream, upstream.dialect.outbound.read(_question(upstream, target)))
        if isinstance(outcome, Missing):
            await self.store.write(lambda tx: forget(tx, row.id, upstream, self.now()))
            raise Problem(ProblemKind.NOT_FOUND, "there is no such alert", field="id")
        if not isinstance(outcome, Found) or not outcome.alerts:
            return row, True
        found = outcome.alerts[0]

        def work(tx: Tx) -> AlertRow:
            now = tx.alert(row.id) or row
            if now.version != row.version or tx.is_waiting(row.id, upstream.name):
                return now  # what changed here while we asked is newer than the answer
            return refresh(tx, now, upstream, found.flat, dict(found.seen), self.now())

        return await self.store.write(work), False

    async def _list(self, who: Caller, asked: Listing, request: int) -> Answered:
        is_stale = False
        chosen = choose(self.config.routes, who.dialect.name, who.name, None)
        upstream = self._akin(who, chosen[0].upstream) if chosen else None
        if upstream and upstream.dialect.outbound.list and self._may_ask(("list", who.scope)):
            asked_at = self.now()
            outcome = await self._ask(upstream, upstream.dialect.outbound.list(_question(upstream, None)))
            is_stale = not isinstance(outcome, Found)
            if isinstance(outcome, Found):
                alerts = outcome.alerts
                await self.store.write(lambda tx: take_in(tx, who, upstream, alerts, self.ids, asked_at, self.now()))
        wanted = AlertFilter(
            statuses=asked.statuses or (() if who.dialect.has_status else ("firing", "acknowledged")),
            resource=asked.resource,
            updated_from=millis(asked.since) if asked.since else None,
            created_before=millis(asked.before) if asked.before else None,
            offset=asked.offset,
            limit=asked.limit,
        )
        rows, total = await self.store.read(lambda tx: tx.alerts(who.scope, wanted))
        listed = tuple(_shown(row) for row in rows)
        return Answered(Answer(listed=listed, total=total, listing=asked), request, is_stale=is_stale)

    async def _relay(self, who: Caller, asked: Relay, request: int) -> Answered:
        chosen = choose(self.config.routes, who.dialect.name, who.name, None)
        upstream = self._akin(who, chosen[0].upstream) if chosen else None
        answered: Reply | None = None
        if upstream:
            answered = await self.dispatcher.client(upstream.name).relay(asked.request, self.config.reply_timeout)
        return Answered(
            Answer(), request, relayed=answered or asked.otherwise, is_stale=bool(upstream and not answered)
        )


def _shown(row: AlertRow) -> Shown:
    return Shown(row.shown, row.version, flatten(row.body))


def _look_up(tx: Tx, who: Caller, name: str) -> tuple[AlertRow, TargetRow | None, bool] | None:
    """The alert, its primary, and whether nothing waits to be sent there."""
    row = tx.alert_by_id(who.scope, name)
    if row is None:
        return None
    targets = tx.targets(row.id)
    primary = targets[0] if targets else None
    is_quiet = primary is not None and primary.state == "present" and not tx.is_waiting(row.id, primary.upstream)
    return row, primary, is_quiet


def _question(upstream: Upstream, target: TargetRow | None) -> Sending:
    return Sending(
        operation=Operation.READ,
        body={},
        patch={},
        key=target.key if target else None,
        ids=target.ids if target else {},
        seen=target.seen if target else {},
        settings=upstream.settings,
    )
