"""The store in one SQLite file: WAL, `synchronous=FULL`, one writer with group commit.

Everything that is written while a commit is under way goes into the next one: many callers share one fsync.
SQLite is used through apsw, which brings its own recent release: versions before 3.51.3 can lose commits in WAL mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import apsw

from gateway.errors import StoreError
from gateway.store import (
    AlertFilter,
    AlertRow,
    AttemptRow,
    CommandRow,
    DeliveryFilter,
    DeliveryRow,
    TargetRow,
    Tx,
    Waiting,
)
from gateway.store.tables import ALERTS, ATTEMPTS, COMMANDS, DELIVERIES, TARGETS

T = TypeVar("T")
SCHEMAS = ("001.sql",)
BATCH = 256


class SqliteTx:
    """The transaction's primitives in SQLite's SQL. Not to be used outside of `Store.write` and `Store.read`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.cursor().execute

    def _one(self, statement: str, values: Iterable[Any]) -> Any:
        return self._run(statement, tuple(values)).fetchone()

    def _all(self, statement: str, values: Iterable[Any]) -> list[Any]:
        return self._run(statement, tuple(values)).fetchall()

    # alerts and ids

    def _alert_where(self, condition: str, *values: Any) -> AlertRow | None:
        found = self._one(f"{ALERTS.select} WHERE {condition}", values)
        return ALERTS.decode(found) if found else None

    def alert(self, alert: int) -> AlertRow | None:
        return self._alert_where("id = ?", alert)

    def alert_by_key(self, scope: str, key: str) -> AlertRow | None:
        return self._alert_where("scope = ? AND key = ? AND is_open", scope, key)

    def last_alert_by_key(self, scope: str, key: str, before: int) -> AlertRow | None:
        return self._alert_where("scope = ? AND key = ? AND id < ? ORDER BY id DESC LIMIT 1", scope, key, before)

    def alert_by_name(self, scope: str, name: str) -> AlertRow | None:
        return self._alert_where("scope = ? AND name = ? AND NOT is_deleted", scope, name)

    def alert_by_id(self, scope: str, name: str) -> AlertRow | None:
        shown = self._alert_where("scope = ? AND shown = ? AND NOT is_deleted ORDER BY id DESC", scope, name)
        if shown:
            return shown
        known = "SELECT alert FROM ids WHERE scope = ? AND name = ?"
        found = self._alert_where(f"id IN ({known}) AND NOT is_deleted ORDER BY id DESC", scope, name)
        if found is None and name.isascii() and name.isdigit() and len(name) < 17:
            return self._alert_where("id = ? AND scope = ? AND NOT is_deleted", int(name), scope)
        return found

    def alert_by_party(self, scope: str, name: str, party: str) -> AlertRow | None:
        known = "SELECT alert FROM ids WHERE scope = ? AND name = ? AND party = ?"
        return self._alert_where(f"id IN ({known}) AND NOT is_deleted ORDER BY id DESC", scope, name, party)

    def alert_of_anybody(self, name: str) -> int | None:
        found = self._one(
            "SELECT max(alert) FROM (SELECT alert FROM ids WHERE name = ?1 UNION ALL "
            "SELECT id FROM alerts WHERE shown = ?1 OR key = ?1 OR id = CAST(?1 AS INTEGER) "
            "UNION ALL SELECT alert FROM targets WHERE key = ?1)",
            (name,),
        )
        return found[0] if found else None

    def alerts(self, scope: str, chosen: AlertFilter) -> tuple[list[AlertRow], int]:
        conditions, values = ["scope = ?", "NOT is_deleted"], [scope]
        if chosen.statuses:
            conditions.append(f"status IN ({', '.join('?' for _ in chosen.statuses)})")
            values += chosen.statuses
        for column, value in (
            ("resource =", chosen.resource),
            ("updated_at >=", chosen.updated_from),
            ("created_at <", chosen.created_before),
        ):
            if value is not None:
                conditions.append(f"{column} ?")
                values.append(value)  # type: ignore[arg-type]
        where = " AND ".join(conditions)
        total = self._one(f"SELECT count(*) FROM alerts WHERE {where}", values)[0]
        limit = -1 if chosen.limit is None else chosen.limit
        page = f"{ALERTS.select} WHERE {where} ORDER BY created_at, id LIMIT ? OFFSET ?"
        return [ALERTS.decode(row) for row in self._all(page, [*values, limit, chosen.offset])], total

    def insert_alert(self, row: AlertRow) -> None:
        self._run(ALERTS.insert, ALERTS.values(row))

    def update_alert(self, row: AlertRow) -> None:
        self._run(ALERTS.update, ALERTS.update_values(row))

    def remove_alert(self, alert: int) -> None:
        theirs = "SELECT id FROM deliveries WHERE alert = ?"
        self._run(f"DELETE FROM attempts WHERE delivery IN ({theirs})", (alert,))
        for table in ("targets", "ids", "deliveries"):
            self._run(f"DELETE FROM {table} WHERE alert = ?", (alert,))
        self._run("DELETE FROM alerts WHERE id = ?", (alert,))

    def add_id(self, scope: str, name: str, party: str, alert: int) -> None:
        self._run("INSERT OR IGNORE INTO ids VALUES (?, ?, ?, ?)", (scope, name, party, alert))

    def is_known_id(self, name: str, party: str) -> bool:
        return self._one("SELECT 1 FROM ids WHERE party = ? AND name = ?", (party, name)) is not None

    # targets

    def targets(self, alert: int) -> list[TargetRow]:
        rows = self._all(f"{TARGETS.select} WHERE alert = ? ORDER BY position", (alert,))
        return [TARGETS.decode(row) for row in rows]

    def put_target(self, row: TargetRow) -> None:
        self._run(TARGETS.replace, TARGETS.values(row))

    def remove_target(self, alert: int, upstream: str) -> None:
        self._run("DELETE FROM targets WHERE alert = ? AND upstream = ?", (alert, upstream))

    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        joined = "SELECT a.id FROM targets t JOIN alerts a ON a.id = t.alert"
        rows = self._all(f"{joined} WHERE t.upstream = ? AND t.lane = ? AND a.is_open", (upstream, lane))
        return [row[0] for row in rows]

    # commands

    def command(self, command: int) -> CommandRow | None:
        found = self._one(f"{COMMANDS.select} WHERE id = ?", (command,))
        return COMMANDS.decode(found) if found else None

    def insert_command(self, row: CommandRow) -> None:
        self._run(COMMANDS.insert, COMMANDS.values(row))

    def refuse_command(self, command: int, reason: str) -> None:
        self._run("UPDATE commands SET refused = ? WHERE id = ?", (reason, command))
        theirs = "SELECT id FROM deliveries WHERE command = ?"
        self._run(f"DELETE FROM attempts WHERE delivery IN ({theirs})", (command,))
        self._run("DELETE FROM deliveries WHERE command = ?", (command,))

    def commands(self, alert: int) -> list[CommandRow]:
        rows = self._all(f"{COMMANDS.select} WHERE alert = ? ORDER BY id", (alert,))
        return [COMMANDS.decode(row) for row in rows]

    # deliveries

    def insert_delivery(self, row: DeliveryRow) -> None:
        self._run(DELIVERIES.insert, DELIVERIES.values(row))

    def update_delivery(self, row: DeliveryRow) -> None:
        self._run(DELIVERIES.update, DELIVERIES.update_values(row))

    def delivery(self, delivery: int) -> DeliveryRow | None:
        found = self._one(f"{DELIVERIES.select} WHERE id = ?", (delivery,))
        return DELIVERIES.decode(found) if found else None

    def deliveries(self, chosen: DeliveryFilter) -> list[DeliveryRow]:
        conditions, values = ["1"], []
        for column in ("state", "upstream", "alert"):
            if (value := getattr(chosen, column)) is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if chosen.ids:
            conditions.append(f"id IN ({', '.join('?' for _ in chosen.ids)})")
            values += chosen.ids
        where = f"{DELIVERIES.select} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"
        return [DELIVERIES.decode(row) for row in self._all(where, [*values, chosen.limit])]

    def deliveries_of(self, command: int) -> list[DeliveryRow]:
        rows = self._all(f"{DELIVERIES.select} WHERE command = ? ORDER BY id", (command,))
        return [DELIVERIES.decode(row) for row in rows]

    def is_waiting(self, alert: int, upstream: str) -> bool:
        waits = "SELECT 1 FROM deliveries WHERE alert = ? AND upstream = ? AND state = 'waiting'"
        return self._one(waits, (alert, upstream)) is not None

    def last_waiting(self, upstream: str, lane: str) -> DeliveryRow | None:
        lane_only = "upstream = ? AND lane = ? AND state = 'waiting' ORDER BY id DESC LIMIT 1"
        found = self._one(f"{DELIVERIES.select} WHERE {lane_only}", (upstream, lane))
        return DELIVERIES.decode(found) if found else None

    def waits_before(self, row: DeliveryRow) -> bool:
        lane = "upstream = ? AND lane = ? AND state = 'waiting' AND id < ?"
        return self._one(f"SELECT 1 FROM deliveries WHERE {lane}", (row.upstream, row.lane, row.id)) is not None

    def newer_delivered(self, row: DeliveryRow) -> bool:
        lane = "upstream = ? AND lane = ? AND state = 'delivered' AND id > ?"
        return self._one(f"SELECT 1 FROM deliveries WHERE {lane}", (row.upstream, row.lane, row.id)) is not None

    def due(self, upstream: str, now: int, limit: int) -> list[DeliveryRow]:
        older = "SELECT 1 FROM deliveries o WHERE o.upstream = d.upstream AND o.lane = d.lane"
        rows = self._all(
            f"SELECT {DELIVERIES.columns} FROM deliveries d "
            "WHERE d.upstream = ? AND d.state = 'waiting' AND d.due <= ? "
            f"AND NOT EXISTS ({older} AND o.id < d.id AND o.state = 'waiting') ORDER BY d.due LIMIT ?",
            (upstream, now, limit),
        )
        return [DELIVERIES.decode(row) for row in rows]

    def next_due(self, upstream: str, after: int) -> int | None:
        later = "SELECT min(due) FROM deliveries WHERE upstream = ? AND state = 'waiting' AND due > ?"
        found = self._one(later, (upstream, after))
        return found[0] if found else None

    def waiting(self) -> list[Waiting]:
        rows = self._all(
            "SELECT upstream, count(*), min(created_at), sum(size) FROM deliveries "
            "WHERE state = 'waiting' GROUP BY upstream",
            (),
        )
        return [Waiting(*row) for row in rows]

    def insert_attempt(self, row: AttemptRow) -> None:
        self._run(ATTEMPTS.replace, ATTEMPTS.values(row))

    def attempts(self, delivery: int) -> list[AttemptRow]:
        rows = self._all(f"{ATTEMPTS.select} WHERE delivery = ? ORDER BY number", (delivery,))
        return [ATTEMPTS.decode(row) for row in rows]

    # keeping house

    def purge(self, before: int, limit: int) -> int:
        old = self._all("SELECT id FROM deliveries WHERE finished_at < ? LIMIT ?", (before, limit))
        for (delivery,) in old:
            self._run("DELETE FROM attempts WHERE delivery = ?", (delivery,))
            self._run("DELETE FROM deliveries WHERE id = ?", (delivery,))
        ended = self._all(
            "SELECT id FROM alerts a WHERE NOT is_open AND updated_at < ? "
            "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.alert = a.id) LIMIT ?",
            (before, limit),
        )
        for (alert,) in ended:
            self._run("DELETE FROM commands WHERE alert = ?", (alert,))
            self.remove_alert(alert)
        self._run(
            "DELETE FROM commands WHERE id IN (SELECT id FROM commands c WHERE at < ? "
            "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.command = c.id) LIMIT ?)",
            (before, limit),
        )
        return len(old) + len(ended)

    def largest_id(self) -> int:
        found = self._one(
            "SELECT max((SELECT ifnull(max(id), 0) FROM commands), (SELECT ifnull(max(id), 0) FROM deliveries), "
            "(SELECT ifnull(max(id), 0) FROM alerts))",
            (),
        )
        return int(found[0])


class SqliteStore:
    """The store in the SQLite file at `path` (":memory:" for one that lasts as long as the process).

    `synchronous` is FULL in earnest; anything less exists so that the crash tests can show that they find loss.
    `exclusive` is False for tools that look at a store while a gateway serves from it.
    """

    def __init__(self, path: str, *, synchronous: str = "FULL", exclusive: bool = True) -> None:
        self._path = path
        self._synchronous = synchronous
        self._exclusive = exclusive and path != ":memory:"
        self._lock: int | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(1, "store-reader")

    async def __aenter__(self) -> SqliteStore:
        try:
            self._open()
        except BaseException as error:
            self._unlock()
            if isinstance(error, apsw.Error | OSError):
                raise StoreError(f"cannot open the store {self._path}: {error}") from error
            raise
        self._thread = threading.Thread(target=self._write_batches, name="store-writer", daemon=True)
        self._thread.start()
        return self

    def _open(self) -> None:
        if self._path != ":memory:":
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        if self._exclusive:
            self._take_lock()
        if self._path != ":memory:":  # alerts are nobody else's to read
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._writer = self._connect()
        migrate(self._writer)
        self._reader = self._writer if self._path == ":memory:" else self._connect()

    def _take_lock(self) -> None:
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            raise StoreError(f"another gateway serves from {self._path}; give each its own store") from None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(self._path)
        connection.set_busy_timeout(5000)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA cache_size = -8000")
        return connection

    async def __aexit__(self, *error: object) -> None:
        self._jobs.put(None)
        if self._thread:
            await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        self._reader.close()
        self._writer.close()
        self._unlock()

    async def write(self, work: Callable[[Tx], T]) -> T:
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        result: T = await job.future
        return result

    async def read(self, work: Callable[[Tx], T]) -> T:
        if self._reader is self._writer:
            return await self.write(work)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Tx], T]) -> T:
        reader = self._reader
        try:
            reader.execute("BEGIN")
            try:
                return work(SqliteTx(reader))
            finally:
                reader.execute("COMMIT")
        except apsw.Error as error:
            raise StoreError(f"the store cannot be read: {error}") from error

    # --- the writer thread -------------------------------------------------------------------------------

    def _write_batches(self) -> None:
        running = True
        while running:
            jobs: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            running = job is not None
            if jobs:
                self._commit(jobs)
                _answer(jobs)

    def _commit(self, jobs: list[_Job]) -> None:
        """One transaction for all jobs; each that fails takes only its own writes back."""
        tx = SqliteTx(self._writer)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._writer.execute("SAVEPOINT job")
                try:
                    job.result = job.work(tx)
                except Exception as error:
                    if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
                        raise  # the store's own trouble is everybody's
                    job.error = error
                    self._writer.execute("ROLLBACK TO job")
                self._writer.execute("RELEASE job")
            self._writer.execute("COMMIT")
        except apsw.Error as error:
            self._take_back()
            for job in jobs:
                job.error = StoreError(f"the store cannot commit: {error}")

    def _take_back(self) -> None:
        with contextlib.suppress(apsw.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")


class _Job:
    """A piece of work for the writer, and where its result is awaited."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Callable[[Tx], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


def _answer(jobs: list[_Job]) -> None:
    """Hands the results to the event loop that awaits them, all at once."""

    def settle() -> None:
        for job in jobs:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

    try:
        jobs[0].loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop that asked is gone; what it asked for is on the disk


def migrate(connection: apsw.Connection) -> None:
    """Brings the schema up to date; a schema of a newer release is refused."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        found = connection.pragma("user_version")
        if found > len(SCHEMAS):
            raise StoreError(
                f"the store has schema {found}, this release knows {len(SCHEMAS)}: it was written by a newer release"
            )
        for number, name in enumerate(SCHEMAS[found:], found + 1):
            connection.execute(resources.files("gateway.store").joinpath("schema", name).read_text("utf8"))
            connection.pragma("user_version", number)
    connection.execute("COMMIT")
