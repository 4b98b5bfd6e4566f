"""The dispatcher: takes what is due out of the outbox, one task per upstream, and sees each delivery to its end.

Lanes are kept by asking only for the oldest waiting delivery of each. One upstream's trouble is never another's:
each has its own task, its own connections and its own limit of attempts at a time. Everything is in the store, so
a restart goes on where it stopped. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import structlog
from msgspec.structs import replace

from gateway.canonical import Operation
from gateway.config import Upstream
from gateway.delivery.attempt import Client, Ended, Held
from gateway.delivery.judging import pause
from gateway.delivery.looking import lacks_id, look
from gateway.dialect import Again, Changed, Outcome
from gateway.errors import StoreError
from gateway.metrics import Metrics
from gateway.settling import Shipment, Verdict, prepare, settle
from gateway.store import AttemptRow, DeliveryRow, Store, Tx
from gateway.waiting import Waiters

log = structlog.get_logger()
T = TypeVar("T")
POLL = 2.0
"""Seconds between two looks into the outbox where nothing calls for one: other processes may put things there."""
PROBE = 60.0
"""Seconds between two probes of an upstream that is held."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Dispatcher:
    """Delivers everything that waits in `store` to its upstreams."""

    def __init__(self, store: Store, upstreams: Mapping[str, Upstream], waiters: Waiters, metrics: Metrics) -> None:
        self._lanes = {name: Lanes(store, Client(upstream), waiters, metrics) for name, upstream in upstreams.items()}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts delivering."""
        self._tasks = [asyncio.create_task(lanes.run(), name=f"to {name}") for name, lanes in self._lanes.items()]

    async def stop(self, within: float) -> None:
        """Takes nothing more out of the outbox and lets what is under way end, for so many seconds."""
        for lanes in self._lanes.values():
            lanes.stopping = True
            lanes.wake()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lanes in self._lanes.values():
            await lanes.client.aclose()

    def wake(self, upstream: str) -> None:
        """Something new waits for this upstream."""
        if lanes := self._lanes.get(upstream):
            lanes.wake()

    def client(self, upstream: str) -> Client:
        """The client of an upstream, for reads."""
        return self._lanes[upstream].client

    def is_held(self, upstream: str) -> bool:
        """Whether nothing is sent to this upstream now, because it refuses its key."""
        lanes = self._lanes.get(upstream)
        return bool(lanes and lanes.held_until is not None)

    def turns(self) -> bool:
        """Whether every task is still at work."""
        return all(not task.done() for task in self._tasks)


class Lanes:
    """The lanes of one upstream."""

    def __init__(self, store: Store, client: Client, waiters: Waiters, metrics: Metrics) -> None:
        self._store = store
        self.client = client
        self._waiters = waiters
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.held_until: float | None = None
        self._held_with = 0
        self.stopping = False

    @property
    def _name(self) -> str:
        return self.client.upstream.name

    def wake(self) -> None:
        """Looks into the outbox soon."""
        self._wake.set()

    async def run(self) -> None:
        """Delivers until it is told to stop."""
        while not self.stopping:
            self._wake.clear()
            try:
                pause_for = await self._turn()
            except StoreError as error:
                log.error("store.unreadable", upstream=self._name, reason=str(error))
                pause_for = POLL
            try:
                await asyncio.wait_for(self._wake.wait(), pause_for)
            except TimeoutError:
                continue
        if self._under_way:
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _turn(self) -> float:
        """Starts what is due; answers how many seconds nothing further will be."""
        upstream = self.client.upstream
        free = upstream.concurrency - len(self._under_way)
        if self.held_until is not None:
            if time.monotonic() < self.held_until and self.client.fingerprint() == self._held_with:
                return min(POLL, self.held_until - time.monotonic())
            free = 1 if not self._under_way else 0
        if free <= 0:
            return POLL
        now = _now_ms()
        taken = frozenset(self._under_way)
        shipments, next_due = await self._store.read(lambda tx: self._due(tx, now, free, taken))
        for shipment in shipments:
            task = asyncio.create_task(self._deliver(shipment))
            self._under_way[shipment.delivery.lane] = task
        return POLL if next_due is None else min(POLL, max(0.001, (next_due - now) / 1000))

    def _due(self, tx: Tx, now: int, free: int, taken: frozenset[str]) -> tuple[list[Shipment], int | None]:
        upstream = self.client.upstream
        rows = [row for row in tx.due(upstream.name, now, free + len(taken)) if row.lane not in taken][:free]
        return [self._prepared(tx, row, now) for row in rows], tx.next_due(upstream.name, now)

    def _prepared(self, tx: Tx, row: DeliveryRow, now: int) -> Shipment:
        """What a delivery is now; one that cannot even be prepared is poison, and must not stop the others."""
        try:
            return prepare(tx, row, self.client.upstream, now, self._waiters.is_strict(row.command))
        except StoreError:
            raise
        except Exception as error:
            log.exception("delivery.unpreparable", upstream=self._name, delivery=row.id)
            operation = Operation(row.operation)
            return Shipment(delivery=row, operation=operation, dead=f"it cannot be prepared: {type(error).__name__}")

    async def _deliver(self, shipment: Shipment) -> None:
        lane = shipment.delivery.lane
        try:
            await self._attempt(shipment)
        except StoreError as error:
            log.error("delivery.unrecorded", upstream=self._name, delivery=shipment.delivery.id, reason=str(error))
            await asyncio.sleep(1.0)
        except Exception:
            log.exception("delivery.unrecorded", upstream=self._name, delivery=shipment.delivery.id)
            await asyncio.sleep(1.0)
        finally:
            self._under_way.pop(lane, None)
            self.wake()

    async def _attempt(self, shipment: Shipment) -> None:
        started, began = _now_ms(), time.monotonic()
        outcome: Outcome | None = None
        delivery = replace(shipment.delivery)
        if shipment.sending is not None:
            ended = await self._run_safely(shipment, started)
            delivery.status = ended.status
            if ended.is_ambiguous and shipment.tried_at is None:
                shipment = dataclasses.replace(shipment, tried_at=started)
            if isinstance(ended.outcome, Held):
                await self._hold(delivery, ended.outcome, started, began)
                return
            self._after_probe(ended)
            outcome = ended.outcome
            delivery.attempts += 1
        verdict = await self._settle(dataclasses.replace(shipment, delivery=delivery), outcome, started, began)
        self._tell(delivery, verdict)

    def _after_probe(self, ended: Ended) -> None:
        """A probe that got a verdict releases the upstream; one that got none leaves it for another minute."""
        if self.held_until is None:
            return
        if isinstance(ended.outcome, Again):
            self.held_until, self._held_with = time.monotonic() + PROBE, self.client.fingerprint()
        else:
            self.held_until = None
            log.info("upstream.released", upstream=self._name)

    async def _run_safely(self, shipment: Shipment, started: int) -> Ended:
        """Runs the call; a fault of ours is tried again like an upstream's, and ends like one."""
        try:
            return await self._run(shipment, started)
        except StoreError:
            raise
        except Exception as error:
            log.exception("delivery.failed", upstream=self._name, delivery=shipment.delivery.id)
            again = Again(reason=f"the gateway failed: {type(error).__name__}")
            return Ended(again, None, shipment.operation is Operation.CREATE)

    async def _run(self, shipment: Shipment, started: int) -> Ended:
        """Runs the call. A create whose answer was lost before is looked for first: it may be there already."""
        assert shipment.sending is not None
        call = self.client.upstream.dialect.outbound.calls[shipment.operation](shipment.sending)
        if shipment.operation is not Operation.CREATE:
            return await self.client.run(call)
        if shipment.tried_at is not None:
            found = await look(self.client, self._store, shipment.sending, shipment.tried_at)
            if found is not None:
                return found
        ended = await self.client.run(call)
        if lacks_id(ended, self.client.upstream):
            found = await look(self.client, self._store, shipment.sending, started)
            return found or Ended(Again(reason=f"{ended.status} without an id"), ended.status, is_ambiguous=True)
        return ended

    async def _settle(self, shipment: Shipment, outcome: Outcome | None, started: int, began: float) -> Verdict:
        upstream, delivery = self.client.upstream, shipment.delivery
        took = time.monotonic() - began
        if isinstance(outcome, Changed) and not self._waiters.is_strict(delivery.command):
            outcome = Again(reason=outcome.reason, after=0.0)  # nobody waits any more: the next attempt lays over
        asked = outcome.after if isinstance(outcome, Again) else None
        due = _now_ms() + int(pause(upstream.retry, delivery.attempts, asked, random.random) * 1000)
        show = self._waiters.claim(delivery.command, delivery.upstream)

        def work(tx: Tx) -> Verdict:
            verdict = settle(tx, shipment, outcome, upstream, _now_ms(), due, show)
            if outcome is not None:
                tx.insert_attempt(_attempt_row(delivery, verdict, started, took))
            return verdict

        try:
            verdict = await self._recorded(work)
        finally:
            self._waiters.release(delivery.command)
        self._metrics.attempt(self._name, verdict.state, _short(verdict.reason), took)
        log.info(
            "delivery." + verdict.state,
            upstream=self._name,
            delivery=delivery.id,
            request=delivery.command,
            alert=delivery.alert,
            operation=delivery.operation,
            attempt=delivery.attempts,
            status=delivery.status,
            reason=verdict.reason or None,
            took_ms=round(took * 1000, 1),
        )
        return verdict

    async def _recorded(self, work: Callable[[Tx], T]) -> T:
        """Writes an outcome down. What was sent is not sent again because the store is full: it waits until it can."""
        while True:
            try:
                return await self._store.write(work)
            except StoreError as error:
                if self.stopping:
                    raise
                log.error("delivery.unrecorded", upstream=self._name, reason=str(error))
                await asyncio.sleep(1.0)

    def _tell(self, delivery: DeliveryRow, verdict: Verdict) -> None:
        if verdict.state != "again":
            self._waiters.verdict(delivery.command, delivery.upstream, verdict)

    async def _hold(self, delivery: DeliveryRow, held: Held, started: int, began: float) -> None:
        """Never a verdict on an alert: the upstream is left alone but for one probe a minute, and one as soon as
        its secrets change."""
        self.held_until, self._held_with = time.monotonic() + PROBE, self.client.fingerprint()
        took = time.monotonic() - began
        delivery.attempts += 1
        verdict = Verdict(state="again", reason=f"held: {held.reason}")

        def work(tx: Tx) -> None:
            found = tx.delivery(delivery.id)
            if found and found.state == "waiting":
                found.attempts, found.status, found.reason = delivery.attempts, held.status, verdict.reason
                tx.update_delivery(found)
            tx.insert_attempt(_attempt_row(delivery, verdict, started, took))

        await self._recorded(work)
        self._waiters.release_all(self._name)
        self._metrics.attempt(self._name, "held", str(held.status or "certificate"), took)
        log.error("upstream.held", upstream=self._name, reason=held.reason, probe_in_s=PROBE)


def _attempt_row(delivery: DeliveryRow, verdict: Verdict, started: int, took: float) -> AttemptRow:
    return AttemptRow(
        delivery=delivery.id,
        number=delivery.attempts,
        at=started,
        took=int(took * 1000),
        status=delivery.status,
        outcome=verdict.state,
        reason=verdict.reason,
    )


def _short(reason: str) -> str:
    """A reason as a metric's label: its first word, of which there are few."""
    word = reason.split(" ", 1)[0].rstrip(":")
    return word if word.isdigit() or not word else "unreachable" if word[:1].isupper() else "other"
