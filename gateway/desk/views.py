"""Answers callers' reads and lists from the record, after asking a primary of the caller's own dialect.

A primary is asked the same thing at most once a second; where it does not answer, the caller gets the record as it is,
marked as stale. Questions that are not about alerts are passed on whole. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from cachetools import TTLCache
from msgspec import structs

from gateway.asked import Answer, Command, Inquiry, Listing, Read, Relay, Reply
from gateway.canonical import Operation
from gateway.config.choosing import key_entry
from gateway.config.config import Config, Upstream
from gateway.config.routing import choose
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.spending import Spending
from gateway.desk.lookup import as_shown, listed, look_up, question
from gateway.desk.refreshing import ListQuestion, forget, let_go, refresh, take_in, unlisted, unseen
from gateway.errors import Problem, ProblemKind
from gateway.ids import MakeId
from gateway.mapping.values import millis
from gateway.outcome import Call, Found, FoundAlert, Missing, Outcome
from gateway.road.accepted import Accepted, Answered, Caller, Via
from gateway.road.history import inquire, told
from gateway.road.road import Road
from gateway.road.terms import is_anothers
from gateway.store import AlertFilter, AlertRow, Store, TargetRow, Tx

log = structlog.get_logger()
TAKEN_IN_AT_ONCE = 100
"""Alerts of an upstream's list that are brought into the record in one transaction, so that other writers get their
turn."""
UNLISTED_FOR = 600.0
"""Seconds until an alert that an upstream does not list is asked for again: its list may leave that out for good."""


@dataclass(kw_only=True)
class Views:
    """Answers questions under one configuration. `pass_on` tells the other upstreams, once it is committed, of an end
    that was found at the primary."""

    config: Config
    store: Store
    dispatcher: Dispatcher
    road: Road
    ids: MakeId
    now: Callable[[], int]
    name: str
    pass_on: Callable[[Caller, Accepted, Via], None]
    _asked: TTLCache[Hashable, bool] = field(default_factory=lambda: TTLCache(10_000, 1.0))
    _in_vain: TTLCache[Hashable, bool] = field(default_factory=lambda: TTLCache(10_000, 1.0))
    _unlisted: TTLCache[int, bool] = field(default_factory=lambda: TTLCache(10_000, UNLISTED_FOR))

    def __post_init__(self) -> None:
        self._spending = Spending(self.store, self.now)

    async def read(self, who: Caller, asked: Read, request: int) -> Answered:
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
        # An alert may have thousands of commands: a long read keeps nobody else waiting.
        history = await self.store.read(lambda tx: told(tx, row.id), is_long=True) if asked.history else ()
        return Answered(
            Answer(shown=as_shown(row), request=request, history=history, page=asked.page), row.id, is_stale=is_stale
        )

    async def look_before(self, who: Caller, asked: Command, request: int) -> None:
        """Reads an alert before a command that would change nothing in the record, as the alert is over, or open,
        already: at the primary somebody may have reopened or ended it since."""
        wanted = {Operation.RESOLVE: True, Operation.REOPEN: False}.get(asked.operation)
        if wanted is None or asked.ref is None or asked.ref.id is None:
            return
        ref = asked.ref
        found = await self.store.read(lambda tx: look_up(tx, who, ref))
        if found is not None and (found[0].status == "resolved") is wanted:
            await self.read(who, Read(ref=ref), request)

    async def inquire(self, who: Caller, asked: Inquiry, request: int) -> Answered:
        found = await self.store.read(lambda tx: inquire(tx, who, asked.request))
        if found is None:
            raise Problem(ProblemKind.NOT_FOUND, "there is no such request", field="id")
        inquired, row = found
        shown = as_shown(row) if row else None
        return Answered(Answer(shown=shown, request=request, inquired=inquired), row.id if row else request)

    def _primary(self, who: Caller) -> Upstream | None:
        """The first upstream of this caller, if it speaks the caller's dialect."""
        chosen = choose(self.config.routes, who.dialect.name, who.name, None)
        return self._akin(who, chosen[0].upstream) if chosen else None

    def _akin(self, who: Caller, name: str) -> Upstream | None:
        """The upstream of this name, if it speaks the caller's dialect."""
        upstream = self.config.upstreams.get(name)
        return upstream if upstream and upstream.dialect.name == who.dialect.name else None

    def _may_ask(self, what: Hashable) -> bool:
        """Whether the primary may be asked this now: at most once a second."""
        if what in self._asked:
            return False
        self._asked[what] = True
        return True

    def _note(self, what: Hashable, is_in_vain: bool) -> None:
        """Notes whether the primary was asked in vain: those who may not ask within the same second get a stale answer
        too."""
        self._in_vain.pop(what, None)
        if is_in_vain:
            self._in_vain[what] = True

    async def _ask(self, upstream: Upstream, call: Call, entry: str, within: float | None = None) -> Outcome | None:
        """Runs a reading call; None where it fails or takes longer than `within` seconds (by default `reply_timeout`),
        or the upstream is left alone now."""
        if not self.dispatcher.has(upstream.name) or self.dispatcher.is_left_alone(upstream.name):
            return None
        requests = 1
        try:
            client = self.dispatcher.client(upstream.name)
            within = self.config.reply_timeout if within is None else within
            ended = await asyncio.wait_for(client.run(call, entry=entry), within)
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
        self, who: Caller, row: AlertRow, target: TargetRow, upstream: Upstream, within: float | None = None
    ) -> tuple[AlertRow, bool]:
        """The alert as the primary shows it now, and whether it was asked in vain."""
        assert upstream.dialect.outbound.read
        call = upstream.dialect.outbound.read(question(upstream, target, self.now()))
        outcome = await self._ask(upstream, call, key_entry(target.lane), within)
        if isinstance(outcome, Missing):
            known = await self.store.write(lambda tx: self._forget(tx, who, row, target, upstream))
            if not isinstance(known, AlertRow):
                if known is not None:
                    self.pass_on(who, known, ())
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
        """Deletes an alert that the upstream no longer has, unless it was changed here while the upstream was asked:
        then returns it. Where other upstreams have it, they are told of its end, as no caller can end it any more."""
        tx.lock(f"alert {row.id}")
        now = tx.alert(row.id) or row
        ids = [one.ids for one in tx.targets(row.id) if one.upstream == upstream.name]
        if now.version != row.version or ids != [target.ids] or tx.is_waiting(row.id, upstream.name):
            return now
        if now.is_deleted:
            return None
        ended: Accepted | None = None
        if len(ids) < len(tx.targets(row.id)):
            why = f"the alert was deleted at {upstream.name}"
            ended = self.road.end(tx, now, who.dialect, self.ids(), self.now(), operation=Operation.DELETE, why=why)
        forget(tx, row.id, upstream, self.now())
        return ended

    async def list(self, who: Caller, asked: Listing, request: int) -> Answered:
        upstream = self._primary(who)
        entry = upstream.entry(who.dialect.name, who.name) if upstream else ""
        of_whom = ("list", who.scope, upstream.name if upstream else "", entry)
        if upstream and upstream.dialect.outbound.list and self._may_ask(of_whom):
            there = ListQuestion(who=who, upstream=upstream, entry=entry, at=self.now())
            self._note(of_whom, not await self._ask_for_all(there))
        is_stale = of_whom in self._in_vain
        wanted = AlertFilter(
            statuses=asked.statuses or (() if who.dialect.has_status else ("firing", "acknowledged")),
            resource=asked.resource,
            updated_from=millis(asked.since) if asked.since else None,
            created_from=millis(asked.created_since) if asked.created_since else None,
            created_before=millis(asked.before) if asked.before else None,
            offset=asked.offset,
            limit=asked.limit,
            newest_first=asked.descending and asked.choose is None,
        )
        answer = await self.store.read(lambda tx: listed(tx, who.scope, asked, wanted, self.now()), is_long=True)
        return Answered(structs.replace(answer, request=request), request, is_stale=is_stale)

    async def _ask_for_all(self, asked: ListQuestion) -> bool:
        """Brings what an upstream lists into the record; returns whether it could be asked."""
        assert asked.upstream.dialect.outbound.list
        until = time.monotonic() + self.config.reply_timeout
        call = asked.upstream.dialect.outbound.list(question(asked.upstream, None, asked.at))
        outcome = await self._ask(asked.upstream, call, asked.entry)
        if not isinstance(outcome, Found):
            return False
        await self._take_in(asked, outcome.alerts)
        if asked.upstream.dialect.kind == "rule" and asked.upstream.dialect.outbound.read and not outcome.is_part:
            await self._ask_for_unseen(asked, {found.id for found in outcome.alerts}, until)
        return True

    async def _ask_for_unseen(self, asked: ListQuestion, listed: Collection[str], until: float) -> None:
        """Asks an upstream, `until` then (monotonic seconds), for rules that are not in its list: those that are gone
        there are deleted, and hold their names no longer. Vendors of occurrences go on listing what has ended."""
        lately = frozenset(self._unlisted)
        for row, target in await self.store.read(lambda tx: unseen(tx, asked, listed, lately), is_long=True):
            if (left := until - time.monotonic()) <= 0:
                return
            self._unlisted[row.id] = True
            try:
                _, is_in_vain = await self._ask_for_one(asked.who, row, target, asked.upstream, left)
            except Problem:
                continue  # it is gone there, and deleted here
            if is_in_vain:
                return

    async def _take_in(self, asked: ListQuestion, alerts: Sequence[FoundAlert]) -> None:
        """Brings a list into the record, a part at a time."""
        since = asked.at - int(self.config.retention * 1000)
        for begin in range(0, len(alerts), TAKEN_IN_AT_ONCE):
            part = alerts[begin : begin + TAKEN_IN_AT_ONCE]
            work = partial(take_in, asked=asked, alerts=part, ids=self.ids, now=self.now(), kept_since=since)
            await self.store.write(work, is_long=True)
        if asked.upstream.dialect.outbound.read is None:
            there = {found.id for found in alerts}
            missed = await self.store.read(lambda tx: unlisted(tx, asked, there), is_long=True)
            if missed:
                await self.store.write(lambda tx: let_go(tx, missed, asked.at), is_long=True)

    async def relay(self, who: Caller, asked: Relay, request: int, via: Via) -> Answered:
        if self.name and self.name in via:
            return Answered(Answer(), request, relayed=_said(asked.otherwise))
        upstream = self._primary(who)
        answered: Reply | None = None
        if upstream:
            answered = await self._passed_on(upstream, who, asked, via)
            if answered is None and asked.unheard is not None:
                raise asked.unheard
        relayed = answered or _said(asked.otherwise)
        return Answered(Answer(), request, relayed=relayed, is_stale=bool(upstream and not answered))

    async def _passed_on(self, upstream: Upstream, who: Caller, asked: Relay, via: Via) -> Reply | None:
        """The primary's answer to a request that is passed on whole, or None. There is none either where a reload has
        taken the primary away since this request began, as while its body was on its way."""
        if not self.dispatcher.has(upstream.name):
            return None
        client, entry = self.dispatcher.client(upstream.name), upstream.entry(who.dialect.name, who.name)
        answered = await client.relay(asked.request, self.config.reply_timeout, via, entry)
        self._spending.note(upstream, 1)
        return answered


def _said(otherwise: Reply | Problem) -> Reply:
    """The answer without the primary; raises it where it is a `Problem`."""
    if isinstance(otherwise, Problem):
        raise otherwise
    return otherwise
