"""The store in PostgreSQL, shared by several gateways.

A few writer threads each take the waiting jobs into one transaction: many callers share one commit, and a round trip to
the server (a *journey*) is made only for what a job reads; what it writes is sent along with the next one. Where the
server admits no more connections, the existing ones serve all jobs. If a job fails after it has written, all jobs of
the transaction are run again with a savepoint for each. Transactions are READ COMMITTED, and what must not be decided
twice is locked by name (`Tx.lock`). Of the jobs in one transaction only the first ever waits for another transaction; a
job that would have to wait is put aside and goes first in the next one. So a job may be run more than once: outside the
store it may change only what is safe to change repeatedly.

Features that an engine in PostgreSQL's place must offer: `FOR UPDATE SKIP LOCKED` and `NOWAIT`, transaction-level
advisory locks, savepoints, partial unique indexes, `ON CONFLICT`, `UPDATE … FROM … RETURNING`, arrays as parameters,
transactional DDL. LISTEN and NOTIFY only make other replicas look sooner. Sessions must be kept (no pooler in
transaction mode in between). It must not know what the jobs are about.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import psycopg
import structlog

from gateway.clock import as_of
from gateway.errors import StoreError
from gateway.store import ASKING, Asking, DeliveryRow, Tx
from gateway.store.jobs import Job, answer
from gateway.store.postgres_clock import NOTE, SteadyClock
from gateway.store.postgres_journeys import CHANNEL, ahead, end, one_view, say, take_back, tell
from gateway.store.postgres_line import ANSWER, PAUSE, Address, Away, Line, Watch
from gateway.store.postgres_looks import Looks
from gateway.store.postgres_schema import migrate
from gateway.store.postgres_tx import LONGEST_LEASE, Conflict, Full, Lost, Overdue, PostgresTx, Trouble, Unclear, own

log = structlog.get_logger()
T = TypeVar("T")
WRITERS, READERS = 3, 3
"""Connections of each kind; a replica needs one more to listen."""
BATCH = 32
"""Jobs in one transaction. The server keeps more than 64 subtransactions on disk."""
TRIES = 10
"""How often a job is run before its conflict with others is reported."""
WITHIN = 8.0
"""Seconds after which a caller is told that the store does not answer."""
MIGRATION = 3600.0
"""Seconds that a schema migration may take, one by another replica included."""
ROOM = 1 << 20
"""Bytes that have to be free again on a full disk of the server before alerts are taken."""
LOOK = 15.0
"""Seconds between checks which server was promoted last."""
HEAR = 5.0
"""Seconds that the listener waits before it checks whether it is to stop."""
LOOK_AT_CLOCK = 5.0
"""Seconds between two looks at the server's clock, at most."""


class PostgresStore:
    """The store at a `postgresql://` URL. This replica's claims, and its writer slot, are leased for `lease` seconds at
    a time. `exclusive` is False for tools that look at a store while gateways serve from it: they hold nothing. `now`
    returns the current URL."""

    def __init__(
        self, url: str, *, lease: float = 15.0, exclusive: bool = True, now: Callable[[], str] | None = None
    ) -> None:
        self._address = Address(url, now)
        self._owner = secrets.token_hex(8) if exclusive else ""
        self._held_for = lease if exclusive else 0.0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._watch = Watch()
        self._threads: list[threading.Thread] = []
        self._writing: list[Line] = []
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self._reading = [(self._watch.line(self._address), threading.Lock()) for _ in range(READERS)]
        self._listing = {whose: asyncio.Lock() for whose in ASKING}
        self._keeping: asyncio.Task[None] | None = None
        self._closing = threading.Event()
        self.slot = 0
        self.lease: float | None = lease
        self.on_hint: Callable[[str], None] = _ignore_hint
        self.is_strained = False
        self.damage = ""
        self._clock = SteadyClock(self._owner)
        self._looks = Looks(self, self._clock, is_tool=not self._owner)
        self._asked_to_look = asyncio.Event()

    # --- opening and closing -----------------------------------------------------------------------------

    async def __aenter__(self) -> PostgresStore:
        try:
            await asyncio.to_thread(self._prepare)
            self._start()
            await self._looks.first()
            self._clock.follow()
            if self._owner:
                with contextlib.suppress(StoreError):  # so many may wait that it takes too long
                    await self.write(lambda tx: own(tx).shorten())
                self.slot = await self.write(_take_slot)
                await self._look_at_clock()  # before there was the slot, the last of the others may have left
                self._clock.follow()
        except BaseException as error:
            await self._stop()
            if isinstance(error, StoreError):
                raise StoreError(f"cannot open the store {self._address}: {error}") from None
            raise
        if self._owner:
            self._keeping = asyncio.create_task(self._keep())
        return self

    def _prepare(self) -> None:
        self._watch.start()
        line = self._watch.line(self._address)
        try:
            line.look()
            if not line.sees_its_session():
                raise StoreError(
                    "a pooler in between assigns a session per transaction only: let it assign one per "
                    "connection (PgBouncer's pool_mode = session), or name the server itself"
                )
            connection = line.connection()
            with line.asking(MIGRATION):
                migrate(connection)
        except psycopg.Error as error:
            raise StoreError(line.masked(error)) from None
        finally:
            line.drop()

    def _start(self) -> None:
        self._writing = [self._watch.line(self._address, by_index=True) for _ in range(WRITERS)]
        targets = [
            (partial(self._write_batches, line), f"store-writer-{number}") for number, line in enumerate(self._writing)
        ]
        if self._owner:
            loop = asyncio.get_running_loop()
            self._hearing = self._watch.line(self._address)
            targets.append((partial(self._listen, self._hearing, loop), "store-listener"))
            targets.append((partial(self._look_around, self._watch.line(self._address)), "store-lookout"))
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for target, name in targets]
        for thread in self._threads:
            thread.start()

    async def __aexit__(self, *error: object) -> None:
        if self._keeping:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            with contextlib.suppress(StoreError):  # then it is free when the lease has run out
                await self.write(lambda tx: own(tx).release())
                await self.write(lambda tx: self._clock.leave(own(tx)))
        await self._stop()

    async def _stop(self) -> None:
        self._closing.set()
        for _ in range(WRITERS):
            self._jobs.put(None)
        if self._threads and self._owner:
            self._hearing.cut()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._watch.stop()

    # --- what engine code calls --------------------------------------------------------------------------

    async def write(self, work: Callable[[Tx], T], *, is_long: bool = False) -> T:
        job = Job(work, shift=self._clock.shift)
        self._jobs.put(job)
        try:
            async with asyncio.timeout(WITHIN):
                result: T = await job.future
        except TimeoutError:
            raise StoreError(f"the store did not answer within {WITHIN:.0f} seconds") from None
        return result

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Commits claims durably like any write: a claim that was lost could be made again under the same fence."""
        return await self.write(work)

    async def read(self, work: Callable[[Tx], T], *, is_long: bool = False, whose: Asking = "caller") -> T:
        """Long reads of callers take one of the readers, those of operators another: the third is left for short reads
        and the gateway's own."""
        loop, shift = asyncio.get_running_loop(), self._clock.shift
        async with self._listing[whose] if is_long and whose != "gateway" else contextlib.nullcontext():
            return await loop.run_in_executor(self._readers, self._read, work, shift)

    async def renew(self, claims: Collection[DeliveryRow]) -> Collection[int]:
        held = [row.id for row in claims]
        return await self.write(lambda tx: own(tx).renew(held)) if held else []

    @property
    def ahead(self) -> float:
        return self._clock.ahead

    def follow(self) -> int:
        return self._clock.follow()

    @property
    def left_behind(self) -> str:
        return self._address.promotions.left_behind

    @property
    def log_size(self) -> int:
        return 0

    async def ease(self) -> None:
        if self.is_strained:
            with contextlib.suppress(StoreError):
                await self.write(_try_room)
                self.is_strained = False

    # --- reading -----------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Tx], T], shift: int) -> T:
        """Reads on a free line; or, where that gets no connection, on one that has a connection."""
        line, lock = self._free_line()
        try:
            return self._read_again(line, work, shift)
        except Away:
            made = next((one for one in self._reading if one[0].is_made), None)
            if made is None:
                raise
        finally:
            lock.release()
        line, lock = made
        if not lock.acquire(timeout=ANSWER):
            raise Overdue("the only connection left for reads is busy; try again later")
        try:
            return self._read_again(line, work, shift)
        finally:
            lock.release()

    def _free_line(self) -> tuple[Line, threading.Lock]:
        """A free line, now locked, preferably one with a connection. There is one for each thread, but during the
        search a line already passed may be released and the next one taken, so it may have to be repeated."""
        while True:
            for line, lock in sorted(self._reading, key=lambda one: not one[0].is_made):
                if lock.acquire(blocking=False):
                    return line, lock

    def _read_again(self, line: Line, work: Callable[[Tx], T], shift: int) -> T:
        """Repeats the read once on a new connection if the first one is lost, as nothing has been changed."""
        try:
            return self._read_on(line, work, shift)
        except Lost:
            line.drop()
        return self._read_on(line, work, shift)

    def _read_on(self, line: Line, work: Callable[[Tx], T], shift: int) -> T:
        connection = line.connection()
        with one_view(line, connection) as journeys, as_of(shift):
            steady = self._clock
            return work(PostgresTx(line, connection, writes=False, steady=steady, shift=shift, pipeline=journeys))

    # --- writing -----------------------------------------------------------------------------------------

    def _write_batches(self, line: Line) -> None:
        running = True
        while running:
            jobs: list[Job] = []
            job = self._jobs.get()
            if job is not None and self._leaves_to_others(line):
                self._jobs.put(job)
                self._join(line)
                continue
            while job is not None:
                jobs.append(job)
                if len(jobs) == BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            running = job is not None
            self._serve(line, [job for job in jobs if not job.future.done()])

    def _leaves_to_others(self, line: Line) -> bool:
        """Whether this line has no connection while another writer has one. Where the server admits no more, it would
        fail its jobs at once, and so take more jobs than the writers that do the work."""
        return not line.is_made and not self._closing.is_set() and any(other.is_made for other in self._writing)

    def _join(self, line: Line) -> None:
        """Tries to connect while others work, until there is a connection or no other writer has one either."""
        is_told = False
        while self._leaves_to_others(line):
            try:
                line.connection()
            except Away as error:
                if not is_told:
                    log.warning("store.connection_refused", reason=str(error))
                is_told = True
                self._closing.wait(PAUSE)

    def _serve(self, line: Line, jobs: list[Job]) -> None:
        """Runs every job until it has an answer. A connection lost before COMMIT was sent has changed nothing: then all
        jobs are run again on a new one, once."""
        may_repeat = True
        patient = len(jobs) == 1
        while jobs:
            try:
                jobs = self._commit(line, jobs, patient)
                patient = True
            except StoreError as error:
                if isinstance(error, Lost):
                    line.drop()
                if isinstance(error, Lost) and may_repeat:
                    may_repeat = False
                    continue
                # Where new alerts find no room, outcomes often still do, and so does the note that `watch.prove`
                # writes.
                self.is_strained |= isinstance(error, Full)
                _fail(jobs, error)
                return
            except Exception as error:
                line.drop()
                log.exception("store.failed")
                _fail(jobs, StoreError(f"the store's writer failed: {type(error).__name__}"))
                return

    def _commit(self, line: Line, jobs: list[Job], patient: bool) -> list[Job]:
        """Runs all jobs in one transaction; a job that fails takes back only its own writes. Returns those that have to
        be run again, and removes from `jobs` those that were answered early."""
        try:
            return self._commit_ahead(line, jobs, patient)
        except Unclear:
            overdue = [job for job in jobs if isinstance(job.error, Overdue)]  # it has used up its time
            jobs[:] = [job for job in jobs if job not in overdue]
            answer(overdue)
            return self._commit_one_by_one(line, jobs, patient) if jobs else []

    def _commit_ahead(self, line: Line, jobs: list[Job], patient: bool) -> list[Job]:
        """The fast way of `_commit`, which nearly always succeeds: a journey to the server for what is read, none for
        what is written. Raises `Unclear` where writes of one job would have to be taken back."""
        ended: list[Job] = []
        again: list[Job] = []
        told: list[str] = []
        before: psycopg.Cursor[Any] | None = None
        connection = line.connection()
        with ahead(line, connection) as journeys:
            for number, job in enumerate(jobs):
                is_patient = patient and number == 0
                tx = self._tx(line, connection, job.shift, patient=is_patient, pipeline=journeys, before=before)
                is_ended = _run(job, tx)
                before = tx.last
                (ended if is_ended else again).append(job)
                told += tx.told if is_ended and job.error is None else ()
                is_to_go = job.error is not None or not is_ended
                if is_to_go and (tx.has_written or isinstance(job.error, Overdue)):
                    raise Unclear("it has failed after it had written")
        answer(ended)
        tell(line, connection, told)
        return again

    def _commit_one_by_one(self, line: Line, jobs: list[Job], patient: bool) -> list[Job]:
        """The slow way of `_commit`: a savepoint for every job, and each statement's answer waited for."""
        connection = line.connection()
        ended: list[Job] = []
        again: list[Job] = []
        told: list[str] = []
        try:
            for number, job in enumerate(jobs):
                say(line, connection, b"RELEASE job; SAVEPOINT job" if number else b"BEGIN; SAVEPOINT job")
                tx = self._tx(line, connection, job.shift, patient=patient and number == 0)
                is_ended = _run(job, tx)
                (ended if is_ended else again).append(job)
                if is_ended and job.error is None:
                    told += tx.told
                else:
                    say(line, connection, b"ROLLBACK TO job")
        except StoreError:
            take_back(line, connection)
            raise
        end(line, connection)
        answer(ended)
        tell(line, connection, told)
        return again

    def _tx(
        self,
        line: Line,
        connection: psycopg.Connection[Any],
        shift: int,
        *,
        patient: bool,
        pipeline: psycopg.Pipeline | None = None,
        before: psycopg.Cursor[Any] | None = None,
    ) -> PostgresTx:
        """One job's `Tx` in a writing transaction."""
        return PostgresTx(
            line,
            connection,
            writes=True,
            steady=self._clock,
            shift=shift,
            owner=self._owner,
            lease=self._held_for,
            patient=patient,
            pipeline=pipeline,
            before=before,
        )

    # --- holding on, and hints ---------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Renews the lease on the writer slot. If it was lost, because this process was frozen past its lease, the slot
        may be another replica's by now: a new one is taken. Also looks at the server's clock."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked_to_look.wait(), min(self._held_for / 3, LOOK_AT_CLOCK))
            self._asked_to_look.clear()
            try:
                if not await self.write(lambda tx: own(tx).keep_slot()):
                    self.slot = await self.write(_take_slot)
                    log.warning("store.slot_lost", slot=self.slot)
                await self._look_at_clock()
            except StoreError as error:
                log.error("store.unavailable", reason=str(error))

    async def _look_at_clock(self) -> None:
        back = await self._looks.again()
        if back > LONGEST_LEASE / 2:
            log.warning("store.clock_set_back", seconds=round(back))
            await self.write(lambda tx: own(tx).shorten())

    def _look_around(self, line: Line) -> None:
        """Checks every `LOOK` seconds which server was promoted last. A standby may be promoted while the old primary
        runs on: by hand, or after a network split. With one name for both, existing connections stay with the old one
        unless a balancer ends them."""
        while not self._closing.wait(LOOK):
            line.look(self._closing)

    def _hear(self, text: str) -> None:
        if text == NOTE:
            self._asked_to_look.set()
        else:
            self.on_hint(text)

    def _listen(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        """Passes on hints from other replicas. Nothing depends on them: each replica also polls."""
        while not self._closing.is_set():
            try:
                connection = line.connection()
                connection.execute(f"LISTEN {CHANNEL}".encode())
                while not self._closing.is_set():
                    for told in connection.notifies(timeout=HEAR):
                        loop.call_soon_threadsafe(self._hear, told.payload)
            except (psycopg.Error, StoreError):
                line.drop()
                self._closing.wait(1.0)
            except RuntimeError:
                return  # the loop has ended


def _ignore_hint(text: str) -> None:
    """The default of `on_hint`: ignores hints."""


def _try_room(tx: Tx) -> None:
    """Writes `ROOM` bytes and removes them, to find out whether there is room; random, as the server compresses."""
    tx.put_note("room", secrets.token_urlsafe(ROOM))
    tx.put_note("room", None)


def _take_slot(tx: Tx) -> int:
    return own(tx).take_slot()


def _run(job: Job, tx: PostgresTx) -> bool:
    """Runs a job; returns False if it has to be run again. Raises `Trouble`, which concerns all jobs."""
    job.error = None
    try:
        with as_of(job.shift):
            job.result = job.work(tx)
        tx.see_locks()
    except Conflict as error:
        job.tries += 1
        if job.tries < TRIES:
            return False
        job.error = error
    except Trouble:
        raise
    except Exception as error:
        job.error = error
    return True


def _fail(jobs: list[Job], error: StoreError) -> None:
    for job in jobs:
        job.error = StoreError(str(error))
    answer(jobs)
