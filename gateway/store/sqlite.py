"""The store in one SQLite file: WAL, `synchronous=FULL`, one writer with group commit.

Everything submitted while a commit is under way goes into the next one: many callers share one fsync. Short work runs
in the event loop, between two requests: it takes microseconds, less than two threads taking turns for the interpreter
would cost. What waits for the disk, and long work, runs in a thread.

SQLite is used through apsw, which brings its own recent release: versions before 3.51.3 can lose commits in WAL mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from gateway.errors import StoreError
from gateway.store import ASKING, Asking, DeliveryRow, Tx
from gateway.store.ballast import SIZE, Ballast
from gateway.store.jobs import Job, settle
from gateway.store.sql import SqlTx
from gateway.store.sql_running import Rows
from gateway.store.sqlite_schema import SCHEMAS, migrate, see_whose

T = TypeVar("T")
BATCH = 256
"""Jobs in one transaction."""
ROOM = 1 << 18
"""Bytes that have to be free again on a full disk, beside the ballast, before the store takes alerts again."""
LONGEST_LOG = 8 << 20
"""Bytes to which the write-ahead log is cut back: it grows for as long as a reader is active, such as a backup, and
would otherwise keep the largest size that it ever had."""
AT_A_STRETCH = 0.002
"""Seconds of work before the writer yields to the event loop. If the loop then takes longer than that, as when many
requests have to be refused, the writer works for as long again: it must not starve."""
DAMAGE = (apsw.CorruptError, apsw.NotADBError)
"""What SQLite raises for a file with content that it never wrote."""
PATIENCE = 5000
"""Milliseconds to wait for another program's write lock."""
WRITERS_CACHE, READERS_CACHE = 2000, 300
"""KiB of page cache of each connection: a long list fills it, and a sidecar has 64 MiB for everything."""


class SqliteTx(SqlTx):
    """A transaction of one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def close(self) -> None:
        """Ends the last statement, of which rows may be left. Until then the connection reads the state of the store
        that the statement began with, and the write-ahead log cannot be reused. An exception's traceback may keep this
        object for long, so it must not be left to the garbage collector."""
        self._cursor.close(True)

    def _run(self, statement: str, values: Sequence[Any]) -> Rows:
        try:
            return self._execute(statement, values)
        except apsw.ConstraintError:
            raise
        except apsw.Error as error:
            raise StoreError(f"the store cannot be used: {error}") from error


class SqliteStore:
    """The store in the SQLite file at `path` (":memory:" for one that lasts as long as the process).

    `synchronous` is FULL in production; lower values exist so that the crash tests can show that they detect loss.
    `exclusive` is False for tools that look at a store while a gateway serves from it.
    """

    def __init__(self, path: str, *, synchronous: str = "FULL", exclusive: bool = True) -> None:
        # SQLite resolves symbolic links too: the files beside the store, above all the lock, are beside the real file.
        self._path = path if path == ":memory:" else os.path.realpath(path)
        self._synchronous = synchronous
        self._exclusive = exclusive and path != ":memory:"
        self._lock: int | None = None
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._takes_long = False
        self._writing: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(1, "store")
        # A thread of its own for each: memory that a list took stays with its thread, to be used for the next list.
        self._readers = {whose: ThreadPoolExecutor(1, f"store-{whose}") for whose in ASKING}
        self._listers: dict[Asking, apsw.Connection] = {}
        self._listing = {whose: asyncio.Lock() for whose in ASKING}
        self._ballast = Ballast(f"{self._path}.ballast")
        self._lives_on_spare = False
        self.slot = 0
        self.lease: float | None = None
        self.on_hint: Callable[[str], None] = _ignore_hint
        self.is_strained = False
        self.damage = ""
        self.ahead = 0.0
        self.left_behind = ""
        self._files: dict[str, tuple[int, int]] = {}

    async def __aenter__(self) -> SqliteStore:
        try:
            self._open()
        except BaseException as error:
            self._unlock()
            if isinstance(error, apsw.Error | OSError):
                raise StoreError(f"cannot open the store {self._path}: {error}") from error
            raise
        self._writing = asyncio.create_task(self._write_batches())
        return self

    def _open(self) -> None:
        if self._path != ":memory:":
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        if self._exclusive:
            self._take_lock()
        if self._path != ":memory:":  # only the owner may read alerts
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._writer = self._open_writer()
        self._writer.set_busy_timeout(0)
        if self._exclusive and not self.is_strained:
            self._ballast.load()
        self._reader = self._writer if self._path == ":memory:" else self._connect(READERS_CACHE)
        if self._exclusive:
            self._files = {name: found for name in self._names() if (found := _identity(name))}

    def _names(self) -> list[str]:
        """The files that make up the store while it is open, and its lock file."""
        return [f"{self._path}{ending}" for ending in ("", "-wal", "-shm", ".lock")]

    def _open_writer(self) -> apsw.Connection:
        """The connection that writes. Opening takes room too, for the shared memory of connections: on a full disk the
        ballast is dropped for it."""
        try:
            return self._connect_up_to_date()
        except (apsw.FullError, apsw.IOError):
            if not (self._exclusive and self._ballast.drop()):
                raise
            self.is_strained = True
            return self._connect_up_to_date()

    def _connect_up_to_date(self) -> apsw.Connection:
        connection = self._connect(WRITERS_CACHE)
        if not self._exclusive and 0 < connection.pragma("user_version") < len(SCHEMAS) and self._is_served():
            connection.close()
            raise StoreError(
                f"the gateway that serves from {self._path} is of an older release, which could not use the store "
                "once it is migrated: ask that gateway with --url, or use the commands of its release"
            )
        migrate(connection)
        return connection

    def _is_served(self) -> bool:
        """Whether a gateway holds the lock."""
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    def _take_lock(self) -> None:
        self._lock = lock_alone(self._path)
        if self._lock is None:
            raise StoreError(f"another gateway serves from {self._path}, or it is being moved; give each its own store")

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _connect(self, cache: int) -> apsw.Connection:
        connection = apsw.Connection(self._path)
        connection.set_busy_timeout(PATIENCE)
        see_whose(connection)
        # Without this, statements that a partial index may serve are planned anew for each bound value.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA cache_size = -{cache}")
        connection.execute(f"PRAGMA journal_size_limit = {LONGEST_LOG}")
        return connection

    async def __aexit__(self, *error: object) -> None:
        self._is_closing = True
        self._arrived.set()
        if self._writing:
            await self._writing
        for threads in (self._threads, *self._readers.values()):
            threads.shutdown()
        for connection in {self._writer, self._reader, *self._listers.values()}:
            connection.close()
        self._unlock()

    @property
    def log_size(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:  # it is in memory, or just being made
            return 0

    async def write(self, work: Callable[[Tx], T], *, is_long: bool = False) -> T:
        job = Job(work, is_long=is_long)
        self._jobs.append(job)
        self._arrived.set()
        result: T = await job.future
        return result

    async def read(self, work: Callable[[Tx], T], *, is_long: bool = False, whose: Asking = "caller") -> T:
        if self._reader is self._writer:
            return await self.write(work, is_long=is_long)
        if not is_long:
            return self._read(self._reader, work)
        turn, loop = self._listing[whose], asyncio.get_running_loop()
        await turn.acquire()
        try:
            connection = self._lister(whose)
            listing = loop.run_in_executor(self._readers[whose], self._read, connection, work)
        except BaseException:
            turn.release()
            raise

        def ended(done: asyncio.Future[T]) -> None:
            """Frees the connection: it was busy until now, even if the caller stopped waiting before."""
            turn.release()
            done.exception()

        listing.add_done_callback(ended)
        try:
            return await asyncio.shield(listing)
        except asyncio.CancelledError:
            _stop(listing, connection)
            raise

    def _lister(self, whose: Asking) -> apsw.Connection:
        """The connection for long reads of one kind of asker."""
        if whose not in self._listers:
            self._look_for_files()
            self._listers[whose] = self._connect(READERS_CACHE)
        return self._listers[whose]

    async def _aside(self, work: Callable[..., T], *given: Any) -> T:
        """Runs something in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Only reads, as there is no other replica to claim against. With one very long lane, the search past it takes
        long too: then the next one runs in a thread."""
        began = time.monotonic()
        try:
            return await self.read(work, is_long=self._takes_long, whose="gateway")
        finally:
            self._takes_long = time.monotonic() - began > AT_A_STRETCH * 2

    async def renew(self, claims: Collection[DeliveryRow]) -> Collection[int]:
        return [row.id for row in claims]

    def follow(self) -> int:
        return 0

    async def ease(self) -> None:
        """Also takes free pages inside the file for room, as the file never shrinks: if the store itself filled the
        disk, what is purged frees room only there. Some of that serves as the reserve until the ballast fits again."""
        if not self.is_strained and not self._lives_on_spare:
            return
        has_ballast = await asyncio.to_thread(self._ballast.load)
        try:
            spare = 0 if has_ballast else self._spare()
        except apsw.Error:
            return
        if not self.is_strained:
            self._lives_on_spare = not has_ballast
            self.is_strained = not has_ballast and spare < SIZE
        elif has_ballast or spare >= 2 * SIZE:
            with contextlib.suppress(StoreError):
                await self.write(_try_room)
                self.is_strained, self._lives_on_spare = False, not has_ballast

    def _spare(self) -> int:
        """Bytes of free pages in the file."""
        return int(self._reader.pragma("freelist_count")) * int(self._reader.pragma("page_size"))

    def _read(self, connection: apsw.Connection, work: Callable[[Tx], T]) -> T:
        try:
            if connection.in_transaction:  # the last COMMIT failed: without this, no further BEGIN would succeed
                connection.execute("ROLLBACK")
            connection.execute("BEGIN")
            try:
                with contextlib.closing(SqliteTx(connection)) as tx:
                    return work(tx)
            finally:
                connection.execute("COMMIT")
        except StoreError as error:
            self._see_damage(error)
            raise
        except apsw.Error as error:
            self._see_damage(error)
            raise StoreError(f"the store cannot be read: {error}") from error

    # --- the writer --------------------------------------------------------------------------------------

    async def _write_batches(self) -> None:
        while True:
            while self._jobs:
                settle(await self._commit())
            if self._is_closing:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _commit(self) -> list[Job]:
        """Runs all waiting jobs in one transaction; a job that fails takes back only its own writes."""
        jobs: list[Job] = []
        try:
            await self._begin()
            if not await self._do_all(jobs, self._do):
                await self._do_again(jobs)
            await self._aside(self._writer.execute, "COMMIT")
        except (apsw.Error, StoreError) as error:
            self._take_back()
            self._throw_ballast(error)
            self._see_damage(error)
            if not jobs:  # no job was begun: all that wait fail
                jobs = list(self._jobs)
                self._jobs.clear()
            for job in jobs:
                job.error = StoreError(f"the store cannot commit: {error}")
        return jobs

    async def _do_again(self, jobs: list[Job]) -> None:
        """Runs the same jobs again in a new transaction, each in a savepoint of its own."""
        self._take_back()
        self._jobs.extendleft(reversed(jobs))
        jobs.clear()
        await self._begin()
        await self._do_all(jobs, self._do_by_itself)

    def _look_for_files(self) -> None:
        """Raises `StoreError` if a file of the store was removed or replaced. Writes to the open file would still
        appear to succeed, and be gone with this process: no caller must be told of success. And a write-ahead log
        beside which somebody put another one would corrupt the store."""
        for name, known in self._files.items():
            if (found := _identity(name)) != known:
                what = "was replaced" if found else "was removed"
                raise StoreError(
                    f"{name} {what} after this gateway was started; nothing is stored until the same file is back, or "
                    "the gateway is restarted"
                )

    async def _begin(self) -> None:
        """Begins a write transaction; waits in a thread if another program is writing."""
        self._look_for_files()
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            self._writer.set_busy_timeout(PATIENCE)
            try:
                await self._aside(self._writer.execute, "BEGIN IMMEDIATE")
            finally:
                self._writer.set_busy_timeout(0)

    async def _do_all(self, jobs: list[Job], do: Callable[[Job, SqliteTx], bool]) -> bool:
        """Runs the waiting jobs, and those that arrive meanwhile, up to `BATCH`; returns False as soon as a failed one
        has left writes that have to be taken back."""
        pause_at = time.monotonic() + AT_A_STRETCH
        with contextlib.closing(SqliteTx(self._writer)) as tx:
            while self._jobs and len(jobs) < BATCH:
                job = self._jobs.popleft()
                jobs.append(job)
                is_clean = await self._aside(do, job, tx) if job.is_long else do(job, tx)
                if not is_clean:
                    return False
                if (paused := time.monotonic()) > pause_at:
                    await asyncio.sleep(0)
                    now = time.monotonic()
                    pause_at = now + max(AT_A_STRETCH, now - paused)
        return True

    def _do(self, job: Job, tx: SqliteTx) -> bool:
        """Runs a job; returns whether it ended as nearly all do, successfully or refused before it wrote anything.
        There is no savepoint: SQLite would copy every page that the job touches, which takes longer than writing
        them."""
        written = self._writer.total_changes()
        try:
            job.result = job.work(tx)
        except (StoreError, *DAMAGE):
            raise  # trouble of the store itself concerns every job
        except Exception as error:
            job.error = error
            return self._writer.total_changes() == written
        return True

    def _do_by_itself(self, job: Job, tx: SqliteTx) -> bool:
        """Runs a job in a savepoint, and takes back what it wrote if it fails."""
        self._writer.execute("SAVEPOINT job")
        job.error = None
        try:
            job.result = job.work(tx)
        except (StoreError, *DAMAGE):
            raise
        except Exception as error:
            job.error = error
            self._writer.execute("ROLLBACK TO job")
        self._writer.execute("RELEASE job")
        return True

    def _throw_ballast(self, error: Exception) -> None:
        """If the disk is full, makes room for recording what is under way and for purging what has ended."""
        is_full = isinstance(error, apsw.FullError) or isinstance(error.__cause__, apsw.FullError)
        if is_full and self._exclusive:
            self.is_strained = True
            self._ballast.drop()

    def _see_damage(self, error: Exception) -> None:
        """Notes that the file is damaged: it stays so, even if later statements touch other parts of it and succeed."""
        if isinstance(error, DAMAGE) or isinstance(error.__cause__, DAMAGE):
            self.damage = f"{self._path} is damaged: {error}"

    def _take_back(self) -> None:
        with contextlib.suppress(apsw.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")


def _stop(listing: asyncio.Future[Any], connection: apsw.Connection) -> None:
    """Interrupts a long read again and again until it ends, as an interrupt between two statements has no effect. Not a
    nested function that schedules itself: its closure would refer to itself, and keep a list of a hundred MiB alive
    after it was delivered."""
    if not listing.done():
        connection.interrupt()
        asyncio.get_running_loop().call_later(AT_A_STRETCH, _stop, listing, connection)


def lock_alone(path: str) -> int | None:
    """Takes the lock on a store; returns its descriptor, which holds the lock while it is open, or None if somebody
    else holds it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _try_room(tx: Tx) -> None:
    """Writes `ROOM` bytes and removes them, to find out whether there is room."""
    tx.put_note("room", "x" * ROOM)
    tx.put_note("room", None)


def _identity(name: str) -> tuple[int, int] | None:
    """The device and inode of the file that has a name now; None where there is none."""
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _ignore_hint(text: str) -> None:
    """The default of `on_hint`: there are no replicas to send hints."""
