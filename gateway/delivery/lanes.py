"""The lanes of one upstream: claims due deliveries from the outbox, attempts each, and records its outcome.

Order is kept by claiming only the oldest waiting delivery of each lane. All state is in the store, so a restart
continues where it stopped. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

import structlog
from msgspec import structs

from gateway import spans
from gateway.canonical import Operation
from gateway.clock import uptime
from gateway.codes import Code
from gateway.config.choosing import key_entry
from gateway.config.config import Upstream
from gateway.delivery import gate as rates
from gateway.delivery.attempt import Client, Ended, NotOurs
from gateway.delivery.claiming import Claiming, any_first
from gateway.delivery.gate import Gate
from gateway.delivery.held import LOOK
from gateway.delivery.judging import pause
from gateway.delivery.keys import Keys
from gateway.delivery.looking import lacks_id, look, may_have_opened
from gateway.delivery.over import Over
from gateway.delivery.waiting import Waiters
from gateway.errors import Problem, ProblemKind, StoreError
from gateway.metrics import Metrics
from gateway.outcome import Again, Changed, Held, Pending, Rejected, code_of
from gateway.road.preparing import Shipment, fire, prepare
from gateway.road.settling import Verdict, cut_off, settle
from gateway.road.unrecorded import doubt
from gateway.store import EVER, DeliveryRow, Store, Tx

log = structlog.get_logger()
T = TypeVar("T")
POLL = 2.0
"""Seconds between polls of the outbox without a wake-up: other processes may add deliveries."""


class Lanes:
    """The lanes of the upstream that `client` sends to. While it is `stopping` no attempt begins; once it `is_ending`,
    with the process, an outcome that cannot be recorded is given up. `after_a_kill`: see `Dispatcher`."""

    def __init__(
        self,
        store: Store,
        client: Client,
        waiters: Waiters,
        metrics: Metrics,
        now: Callable[[], int],
        *,
        after_a_kill: bool = False,
    ) -> None:
        self._store = store
        self.client = client
        self._waiters = waiters
        self._metrics = metrics
        self._now = now
        self._wake = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._claims: dict[int, DeliveryRow] = {}
        self._held_since: dict[int, float] = {}
        self._unrecorded: set[int] = set()
        self._idle_until = 0.0
        self._claiming = Claiming()
        self._closing: set[asyncio.Task[None]] = set()
        self.gate = Gate(store, client, self._shut, now)
        self.keys = Keys(store, client.upstream.name, now)
        self._is_resumed, self._after_a_kill = False, after_a_kill
        self.stopping = False
        self.is_ending = False

    @property
    def _name(self) -> str:
        return self.client.upstream.name

    @property
    def _upstream(self) -> Upstream:
        return self.client.upstream

    @property
    def claims(self) -> list[DeliveryRow]:
        """The deliveries under way."""
        return list(self._claims.values())

    @property
    def has_recorded_all(self) -> bool:
        """Whether the store knows how everything ended that was sent."""
        return not self._unrecorded

    def renewed(self, deliveries: Collection[int], at: float) -> None:
        """Notes that the leases of these deliveries were renewed at a time, by `uptime`."""
        self._held_since.update((one, at) for one in deliveries if one in self._held_since)

    def _is_held(self, delivery: DeliveryRow) -> bool:
        """Whether a delivery is certainly still this process's: if the process was frozen, or its machine slept, for
        nearly as long as a lease, another replica may have it by now."""
        lease = self._store.lease
        return lease is None or uptime() - self._held_since[delivery.id] <= lease * 0.8

    def wake(self) -> None:
        """Makes the outbox be looked at soon."""
        self._wake.set()

    def use(self, client: Client) -> None:
        """Continues with a new configuration of the same upstream; what is under way ends with the old one. A wait for
        the old rate is dropped."""
        old, self.client = self.client, client
        self._idle_until = 0.0
        self.gate.use(client)
        self.keys.release()
        task = asyncio.create_task(_close(old, list(self._under_way.values())))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self.wake()

    def _shut(self) -> None:
        """Releases the callers that wait for this upstream, as it will give no verdict soon."""
        self._waiters.release_all(self._name)

    async def run(self) -> None:
        """Delivers until `stopping` is set and what is under way has ended."""
        try:
            while not self.stopping or self._under_way:
                self._wake.clear()
                pause_for = POLL if self.stopping else await self._looked()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause_for)
        except asyncio.CancelledError:  # the time to stop is over
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)
            raise

    async def _looked(self) -> float:
        """Starts what is due; returns the seconds until it should look again, also where the store cannot be read."""
        try:
            if not self._is_resumed:
                await self.gate.resume()
                if self._after_a_kill:
                    await self._doubt_the_first()
                self._is_resumed = True
            return await self._turn()
        except StoreError as error:
            log.error("store.unreadable", upstream=self._name, reason=str(error))
            return POLL

    async def _doubt_the_first(self) -> None:
        """Notes which deliveries the process before may have sent without recording it, where the store keeps no
        claims: twice as many as there can have been, as others may be due before them now."""
        upstream, now = self._upstream, self._now()
        if rows := await self._store.take(lambda tx: any_first(tx, upstream, now, upstream.concurrency * 2)):
            await self._store.write(lambda tx: doubt(tx, rows))

    # --- what is due ---------------------------------------------------------------------------------------

    async def _turn(self) -> float:
        """Starts what is due; returns the seconds until more may be."""
        await self.gate.hear()
        await self.keys.hear()
        free, wait = self.gate.room(len(self._under_way))
        wait = max(wait, self._idle_until - time.monotonic())
        if free <= 0 or wait > 0:
            return min(POLL, wait) if wait > 0 else POLL
        now, fresh = self._now(), not self.gate.may_retry()
        taken, client = frozenset(self._under_way), self.client

        def work(tx: Tx) -> tuple[list[Shipment], int | None, float, frozenset[int]]:
            return *self._due(tx, client.upstream, now, free, taken, fresh=fresh), tx.unrecorded()

        is_rated = client.upstream.rate is not None
        if is_rated and (idle := await self._idle(client.upstream, now)) > 0:
            return idle
        now = self._now()  # the clock may have been set, and what waits moved, since
        claimed = uptime()  # before the commit: the lease runs from there, though this process may freeze
        shipments, next_due, wait, unrecorded = await (self._store.write if is_rated else self._store.take)(work)
        self._idle_until = time.monotonic() + wait if client is self.client else 0.0
        if unrecorded:
            doubtful = [one.delivery for one in shipments if one.delivery.id in unrecorded]
            await self._store.write(lambda tx: doubt(tx, doubtful))
        while client is not self.client or unrecorded:
            # prepared again: with this doubt, or in the terms of a configuration that has replaced the old one
            client, rows, unrecorded = self.client, [one.delivery for one in shipments], frozenset()
            shipments = await self._store.read(
                partial(self._all_prepared, rows=rows, upstream=client.upstream, now=now)
            )
        for shipment in shipments:
            delivery = shipment.delivery
            self.gate.began(delivery.lane, is_retry=delivery.is_retry)
            self._claiming.began(delivery, client.upstream)
            self._claims[delivery.id] = delivery
            self._held_since[delivery.id] = claimed
            self._under_way[delivery.lane] = asyncio.create_task(self._deliver(shipment, client))
        if wait > 0:
            return min(POLL, wait)
        if fresh:
            return 1.0
        return POLL if next_due is None else min(POLL, max(0.001, (next_due - now) / 1000))

    async def _idle(self, upstream: Upstream, now: int) -> float:
        """Seconds until a delivery is due. Taking from a rate is a write to the disk, so it is not done while nothing
        is due: otherwise hundreds of idle upstreams would write all the time."""
        first = await self._store.read(lambda tx: tx.next_due(upstream.name, EVER))
        return POLL if first is None else min(POLL, (first - now) / 1000)

    def _due(
        self, tx: Tx, upstream: Upstream, now: int, free: int, taken: frozenset[str], *, fresh: bool
    ) -> tuple[list[Shipment], int | None, float]:
        wait = 0.0
        if upstream.rate is not None:
            asked, wait = rates.take(tx, upstream, now, free)
            wait = wait if asked < free else 0.0
        else:
            asked = free
        claim = self._claiming.claim
        rows = claim(tx, upstream, now, asked, taken, fresh=fresh, is_probe=self.gate.is_open) if asked else []
        if upstream.rate is not None:
            rates.owe(tx, upstream, len(rows) - asked)
            wait = wait if len(rows) == asked else 0.0
        return self._all_prepared(tx, rows, upstream, now), tx.next_due(upstream.name, now), wait

    def _all_prepared(self, tx: Tx, rows: list[DeliveryRow], upstream: Upstream, now: int) -> list[Shipment]:
        return [self._prepared(tx, row, upstream, now) for row in rows]

    def _prepared(self, tx: Tx, row: DeliveryRow, upstream: Upstream, now: int) -> Shipment:
        """Prepares a delivery; one whose preparation fails unexpectedly becomes a dead letter, so that it does not stop
        the others."""
        try:
            return prepare(tx, row, upstream, now, self._waiters.is_strict(row.command))
        except StoreError:
            raise
        except Exception as error:
            log.exception("delivery.unpreparable", upstream=self._name, delivery=row.id)
            operation = Operation(row.operation)
            text = f"the delivery cannot be prepared: {type(error).__name__}"
            return Shipment(delivery=row, operation=operation, dead=text, code=ProblemKind.INTERNAL)

    # --- one delivery --------------------------------------------------------------------------------------

    async def _deliver(self, shipment: Shipment, client: Client) -> None:
        delivery = shipment.delivery
        if spans.tracer is not None:
            spans.tracer.resume(
                shipment.trace,
                delivery=delivery.id,
                alert=delivery.alert,
                operation=shipment.operation,
                attempts=delivery.attempts,
            )
        try:
            await self._attempt(shipment, client)
            self._unrecorded.discard(delivery.id)
        except NotOurs:
            self._unrecorded.discard(delivery.id)
            log.warning("delivery.let_go", upstream=self._name, delivery=delivery.id)
        except StoreError as error:
            log.error("delivery.unrecorded", upstream=self._name, delivery=delivery.id, reason=str(error))
            await asyncio.sleep(1.0)
        except Exception:
            log.exception("delivery.unrecorded", upstream=self._name, delivery=delivery.id)
            await asyncio.sleep(1.0)
        finally:
            self._claims.pop(delivery.id, None)
            self._held_since.pop(delivery.id, None)
            self._under_way.pop(delivery.lane, None)
            self.gate.left(delivery.lane)
            self.wake()

    async def _attempt(self, shipment: Shipment, client: Client) -> None:
        """Makes one attempt, with the client that the delivery was prepared for, even if it is replaced meanwhile.
        Raises `NotOurs` if another replica may have the delivery before anything was sent."""
        if not self._is_held(shipment.delivery):
            raise NotOurs
        key = self.keys.key(client, shipment.delivery.lane)
        if shipment.sending is not None and key is not None and (wait := self.keys.wait(key)) > 0:
            await self._put_off(shipment, wait)
            return
        if shipment.fires and not await self._store.write(lambda tx: fire(tx, shipment)):
            return
        started, began = self._now(), time.monotonic()
        ended: Ended | None = None
        delivery = structs.replace(shipment.delivery)
        if shipment.sending is not None:
            opening = shipment
            if shipment.tried_at is None and may_have_opened(shipment.operation, client.upstream):
                opening = structs.replace(shipment, tried_at=started)
            self._unrecorded.add(delivery.id)
            try:
                ended = await self._run_safely(shipment, client, started)
            except asyncio.CancelledError:  # the gateway stops, and the upstream may have carried it out
                await self._store.write(lambda tx: cut_off(tx, opening))
                self._unrecorded.discard(delivery.id)
                raise
            delivery.status = ended.status
            shipment = opening if ended.is_ambiguous else shipment
            shipment = structs.replace(shipment, tried_at=None) if ended.is_absent else shipment
            if client is self.client:  # else it says nothing of the configuration that has replaced that one
                await self.gate.ended(delivery.lane, self.keys.ended(key, ended) if key is not None else ended)
            if not isinstance(ended.outcome, Pending):
                delivery.attempts += 1
        shipment = structs.replace(shipment, delivery=delivery)
        attempt = Over(client.upstream, ended, started, time.monotonic() - began)
        if ended is not None and isinstance(ended.outcome, Held):
            await self._hold(shipment, attempt, ended.outcome)
            return
        verdict = await self._settle_safely(shipment, attempt)
        if verdict.state != "again":
            self._waiters.verdict(delivery.command, delivery.upstream, verdict)

    async def _run_safely(self, shipment: Shipment, client: Client, started: int) -> Ended:
        """Runs the call; after an unexpected exception, a bug of ours, it is tried again as after a fault of the
        upstream, and given up as late."""
        try:
            return await self._run(shipment, client, started)
        except (StoreError, NotOurs):
            raise
        except Exception as error:
            log.exception("delivery.failed", upstream=self._name, delivery=shipment.delivery.id)
            again = Again(reason=f"internal error of the gateway: {type(error).__name__}", code=ProblemKind.INTERNAL)
            return Ended(again, None, shipment.operation is Operation.CREATE)

    async def _run(self, shipment: Shipment, client: Client, started: int) -> Ended:
        """Runs the call. For a create whose answer was lost before, first looks whether the alert is there already."""
        assert shipment.sending is not None
        entry = key_entry(shipment.delivery.lane)
        call = client.upstream.dialect.outbound.calls[shipment.operation](shipment.sending)
        is_held = partial(self._is_held, shipment.delivery)
        if shipment.operation is not Operation.CREATE:
            return await client.run(call, shipment.via, entry, is_held, shipment.mark)
        requests, in_vain = 0, False
        if shipment.tried_at is not None and not shipment.delivery.seen:  # the call asks about a receipt instead
            looked = await look(client, self._store, shipment.sending, shipment.tried_at, started, entry)
            requests, in_vain = looked.requests, looked.in_vain
            if looked.ended is not None:
                return structs.replace(looked.ended, requests=requests)
            if shipment.folds and not in_vain:
                over = Again(reason="the alert is over, and was not found there", after=0.0, code=Code.FOLDED)
                return Ended(over, None, requests=requests, is_absent=True)
        ended = await client.run(call, shipment.via, entry, is_held)
        requests += ended.requests
        if lacks_id(ended, client.upstream):
            looked = await look(client, self._store, shipment.sending, started, started, entry)
            requests += looked.requests
            nameless = Again(reason=f"{ended.status}, but the answer has no id", code=Code.NO_ID)
            in_doubt = Ended(nameless, ended.status, is_ambiguous=True)  # until it could be looked for
            ended = looked.ended if looked.ended and looked.ended.looked_up else in_doubt
        return structs.replace(ended, requests=requests, in_vain=in_vain)

    # --- what becomes of it --------------------------------------------------------------------------------

    async def _settle_safely(self, shipment: Shipment, attempt: Over) -> Verdict:
        """Records an attempt. If what came of it cannot be stored, by a bug of ours or for what the upstream answered,
        it becomes a dead letter: unrecorded, it would be sent again every second."""
        try:
            return await self._settle(shipment, attempt)
        except StoreError:
            raise
        except Exception as error:
            if attempt.ended is None:
                raise
            log.exception("delivery.unrecordable", upstream=self._name, delivery=shipment.delivery.id)
            why = error.message if isinstance(error, Problem) else type(error).__name__
            refused = Rejected(reason=f"its outcome cannot be stored: {why}", kind=ProblemKind.INTERNAL)
            ended = structs.replace(attempt.ended, outcome=refused)
            if shipment.tried_at is None and may_have_opened(shipment.operation, attempt.upstream):
                shipment = structs.replace(shipment, tried_at=attempt.started)
            return await self._settle(shipment, structs.replace(attempt, ended=ended))

    async def _settle(self, shipment: Shipment, attempt: Over) -> Verdict:
        delivery, upstream, ended = shipment.delivery, attempt.upstream, attempt.ended
        outcome = ended.outcome if ended else None
        assert not isinstance(outcome, Held)
        if isinstance(outcome, Changed) and not self._waiters.is_strict(delivery.command):
            # the caller waits no more: the next attempt overwrites
            outcome = Again(reason=outcome.reason, after=0.0, code=ProblemKind.CONFLICT)
        is_fault = ended is not None and ended.is_fault
        pause_for = int(self._pause(delivery, outcome, is_fault=is_fault) * 1000)
        show = self._waiters.claim(delivery.command, delivery.upstream)
        looked_up, in_vain = bool(ended and ended.looked_up), bool(ended and ended.in_vain)
        budget = self.gate.budget.kept(time.monotonic(), self._now()) if delivery.attempts > 1 else None

        def work(tx: Tx) -> Verdict:
            now = self._now()
            due = now + pause_for
            verdict = settle(tx, shipment, outcome, upstream, now, due, show, looked_up=looked_up, in_vain=in_vain)
            if ended is not None and verdict.is_recorded:
                code = code_of(ended.outcome) if verdict.state != "delivered" else ""
                number = -delivery.attempts - 1 if isinstance(ended.outcome, Pending) else delivery.attempts
                tx.insert_attempt(attempt.row(delivery, number, verdict, code))
            rates.owe(tx, upstream, attempt.requests - 1)
            if budget is not None:
                rates.keep_budget(tx, upstream, budget)
            if self._store.lease is not None and verdict.state != "again":
                tx.tell(f"verdict {delivery.command}")
                if tx.last_waiting(delivery.upstream, delivery.lane):  # the replica that has the next one may send it
                    tx.tell(f"wake {delivery.upstream}")
            return verdict

        try:
            verdict = await self._recorded(work)
        finally:
            self._waiters.release(delivery.command)
        self._note(verdict.state, delivery, verdict.code, verdict.reason, attempt.took)
        return verdict

    def _note(self, came_to: str, delivery: DeliveryRow, code: str, reason: str, took: float) -> None:
        """Counts an attempt and logs it with the id of the request, by which all attempts of a request can be found."""
        self._metrics.attempt(self._name, came_to, code, took)
        say = log.warning if came_to == "dead" else log.info
        say(
            "delivery." + came_to,
            upstream=self._name,
            delivery=delivery.id,
            request=delivery.command,
            alert=delivery.alert,
            operation=delivery.operation,
            attempt=delivery.attempts,
            status=delivery.status,
            code=code or None,
            reason=reason or None,
            took_ms=round(took * 1000, 1),
        )

    def _pause(self, delivery: DeliveryRow, outcome: object, *, is_fault: bool) -> float:
        """Seconds until the next attempt. While the gate is shut, the gate decides when a delivery is tried again that
        failed by a fault of the upstream."""
        if isinstance(outcome, Pending):
            return outcome.after
        asked = outcome.after if isinstance(outcome, Again) else None
        if self.gate.is_open and is_fault:
            asked = asked or 0.0
        return pause(self._upstream.retry, delivery.attempts, asked, random.random)

    async def _recorded(self, work: Callable[[Tx], T]) -> T:
        """Records an outcome. If the store fails, it tries again until it succeeds or the gateway stops: what was sent
        is not to be sent again because the store is full."""
        while True:
            try:
                return await self._store.write(work)
            except StoreError as error:
                if self.is_ending:
                    raise
                log.error("delivery.unrecorded", upstream=self._name, reason=str(error))
                await asyncio.sleep(1.0)

    # --- what waits for a held key or upstream ---------------------------------------------------------------

    async def _put_off(self, shipment: Shipment, seconds: float) -> None:
        """Makes a delivery whose key is held wait longer, without an attempt."""
        delivery = shipment.delivery

        def work(tx: Tx) -> None:
            found = tx.delivery(delivery.id)
            if found and found.state == "waiting" and found.fence == delivery.fence:
                found.due = self._now() + int(seconds * 1000)
                tx.update_delivery(found)

        await self._recorded(work)
        self._waiters.hold(delivery.command, delivery.upstream)

    async def _hold(self, shipment: Shipment, attempt: Over, held: Held) -> None:
        """Records that the upstream, or a key, is held. This is never a verdict on an alert: the delivery goes on
        waiting."""
        delivery, upstream = shipment.delivery, attempt.upstream
        verdict = Verdict(state="again", reason=f"held: {held.reason}", code=held.code)

        def work(tx: Tx) -> None:
            found = tx.delivery(delivery.id)
            if found and found.state == "waiting" and found.fence == delivery.fence:
                found.attempts, found.status = delivery.attempts, held.status
                found.reason, found.code = verdict.reason, verdict.code
                if upstream.has_many_keys:
                    found.due = self._now() + int(LOOK * 1000)
                tx.update_delivery(found)
                tx.insert_attempt(attempt.row(delivery, delivery.attempts, verdict, held.code))
            rates.owe(tx, upstream, attempt.requests - 1)

        await self._recorded(work)
        delivery.status = held.status
        self._waiters.hold(delivery.command, delivery.upstream)
        self._note("held", delivery, held.code, held.reason, attempt.took)


async def _close(client: Client, using: list[asyncio.Task[None]]) -> None:
    if using:
        await asyncio.wait(using)
    await client.aclose()
