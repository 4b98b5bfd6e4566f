"""The transaction's primitives that differ in PostgreSQL: locks, claims under leases, and how errors are classified.

Whether a job may wait for other transactions is the writer's decision: of the jobs that share a transaction, those that
would have to wait are put aside (`Conflict`), so that two transactions never wait for each other. It must not know how
connections are made.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

import psycopg
from msgspec import structs
from psycopg import errors

from gateway.errors import Problem, ProblemKind, StoreError
from gateway.ids import SLOTS
from gateway.store import AlertRow, Arrivals, CommandRow, DeliveryRow, LedgerLine, TargetRow, Tx, Waiting
from gateway.store.postgres_line import ANSWER, Line
from gateway.store.postgres_statements import (
    ALERTS_OVER,
    COMMANDS_OVER,
    INSERT,
    SILENT,
    UPDATE,
    UPDATE_AT_ONCE,
    UPDATE_IF_OURS,
    claiming,
)
from gateway.store.sql import SqlTx
from gateway.store.sql_running import Rows
from gateway.store.tables import ALERTS, COMMANDS, DELIVERIES, TARGETS, Table

T = TypeVar("T")
LONG = 300.0
"""Seconds that sums over the whole history may take."""
LONGEST_LEASE = 60.0
"""Seconds; longer than any lease that is granted."""
_CHANNEL_BYTES = 7999
_OWN = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError)
_AWAY = (errors.UndefinedTable, errors.UndefinedColumn, errors.InsufficientPrivilege)
"""Errors while a database is being restored, or rights are granted anew: not the fault of the job."""
_LAST_WORDS = ("FATAL", "PANIC")
"""Severities of errors with which the server ends the session, for whatever reason, its timeouts included."""
_PASSING = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)


class Conflict(StoreError):
    """Another transaction holds what the job needs: the job has to be run again."""


class Overdue(StoreError):
    """A statement took too long. Concerns only the job that asked."""


class Trouble(StoreError):
    """The store itself is in trouble, which concerns all jobs."""


class Full(Trouble):
    """The server's disk is full. Updates of rows in place may still succeed."""


class Lost(Trouble):
    """The connection is gone, or leads to a server that takes no writes any more."""


class Unclear(Trouble):
    """A statement sent ahead has failed, and it is unknown which job's. Nothing is committed."""


class PostgresTx(SqlTx):
    """One job's part of a transaction on a line. `owner` is this replica; `lease` is how many seconds it holds what it
    claims, by `steady`, the time that all replicas agree on; `shift` is by how many milliseconds the gateway's clock is
    ahead of that (see `postgres_clock`). `patient` says whether it waits for locks that others hold. With a `pipeline`,
    only reads are waited for, and are sent together with the writes before them; `before` is the previous job's last
    statement in it, `last` the last statement so far."""

    _by_id = "id + 0"
    _commands_first = "commands c JOIN deliveries d ON d.command = c.id"

    def __init__(
        self,
        line: Line,
        connection: psycopg.Connection[Any],
        *,
        writes: bool,
        steady: Callable[[], float],
        shift: int = 0,
        owner: str = "",
        lease: float = 0.0,
        patient: bool = True,
        pipeline: psycopg.Pipeline | None = None,
        before: psycopg.Cursor[Any] | None = None,
    ) -> None:
        self._line = line
        self._connection = connection
        self._cursor = connection.cursor()
        self._writes = writes
        self._steady = steady
        self._shift = shift
        self._pipeline = pipeline
        self._before = before
        self._tried: list[Rows] = []
        self._owner = owner
        self._lease = lease
        self._patient = patient
        self._held: set[str] = set()
        self._fences: dict[int, int] = {}
        self._unrecorded = frozenset[int]()
        self._foreseen: dict[str, Rows | dict[int, list[Any]]] = {}
        self._newest_known: dict[tuple[str, str], Rows] = {}
        self._within = ANSWER
        self.told: list[str] = []
        self.has_written = False
        self.last = before

    def _run(self, statement: str, values: Sequence[Any]) -> Rows:
        if not statement.startswith("SELECT"):
            self.see_locks()
            self.has_written = True
            self._newest_known.clear()
            self._foreseen = {name: rows for name, rows in self._foreseen.items() if f" {name} " not in statement}
        if self._pipeline is None:
            return self._asked(self._cursor.execute, _translated(statement), values)
        cursor = self.last = self._connection.cursor()
        self._asked(cursor.execute, _translated(statement), values)
        return _Awaited(cursor, self._await)

    def _await(self, cursor: psycopg.Cursor[Any]) -> None:
        """Waits for a statement's answer, which is valid only if the locks tried before it were obtained."""
        if self._pipeline is not None and cursor.pgresult is None:
            self._asked(self._pipeline.sync)
            self._line.heard = time.monotonic()
            self.see_locks()

    def see_locks(self) -> None:
        """Raises `Conflict` if a lock that was tried is held by others."""
        tried, self._tried = self._tried, []
        if not all(rows.fetchone()[0] for rows in tried):
            raise Conflict("conflict with another transaction")

    def _asked(self, ask: Callable[..., T], *given: Any) -> T:
        try:
            with self._line.asking(self._within):
                return ask(*given)
        except psycopg.Error as error:
            raise self._judged(error) from None

    def _judged(self, error: psycopg.Error) -> Exception:
        """The exception to raise for an error, by what it concerns: the connection, the store, or only this job."""
        said = self._line.masked(error)
        if self._line.is_lost or error.diag.severity_nonlocalized in _LAST_WORDS:
            return Lost(f"the store cannot be used: {said}")
        if isinstance(error, errors.QueryCanceled) and not self._is_behind():
            return Overdue(f"the store was too slow: {said}")
        if self._pipeline is not None and self._writes:
            return Unclear(f"the store cannot be used: {said}")
        for kinds, trouble, words in _TROUBLES:
            if isinstance(error, kinds):
                return trouble(f"{words}: {said}")
        if isinstance(error, _OWN):
            return error
        if isinstance(error, errors.ProgramLimitExceeded):  # a B-tree holds no key of more than a third of a page
            return Problem(ProblemKind.INVALID, "a key, name or id is too long for the store's indexes")
        return Trouble(f"the store cannot be used: {said}")

    def _is_behind(self) -> bool:
        """Whether a statement of a previous job failed, and this job's were skipped for it."""
        return self._before is not None and self._before.pgresult is None

    # the times of what waits, which are stored in steady time

    def _decoded(self, columns: Sequence[Any]) -> DeliveryRow:
        row = super()._decoded(columns)
        if self._shift and row.state == "waiting":
            row.created_at += self._shift
            row.due += self._shift
        return row

    def _stored(self, row: DeliveryRow) -> DeliveryRow:
        if not self._shift or row.state != "waiting":
            return row
        return structs.replace(row, created_at=row.created_at - self._shift, due=row.due - self._shift)

    def next_due(self, upstream: str, after: int) -> int | None:
        found = super().next_due(upstream, after - self._shift)
        return None if found is None else found + self._shift

    def waiting(self) -> list[Waiting]:
        return [structs.replace(one, oldest=one.oldest + self._shift) for one in super().waiting()]

    def _lease_end(self) -> float:
        return self._steady() + self._lease

    # locks and claims

    def lock(self, *names: str) -> bool:
        if not self._writes:
            return False
        keys = sorted(_number(name) for name in names if name not in self._held)
        self._held.update(names)
        if keys:  # another holder may have changed what was read before
            self._foreseen.clear()
            self._newest_known.clear()
        for key in keys:
            if self._patient:
                self._run("SELECT pg_advisory_xact_lock(?)", (key,))
                continue
            self._tried.append(self._run("SELECT pg_try_advisory_xact_lock(?)", (key,)))
            if self._pipeline is None:
                self.see_locks()
        return True

    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        """Also fetches the lane's newest delivery in the same journey if the lane is locked: it is asked for next."""
        if self._pipeline is not None and f"lane {upstream} {lane}" in self._held:
            self._newest_known[upstream, lane] = super()._newest(upstream, lane)
        return super().lane_holders(upstream, lane)

    def newest_in_lane(self, upstream: str, lane: str) -> DeliveryRow | None:
        # The lock is a statement of its own, so that the next one sees what the previous holder has committed.
        self.lock(f"lane {upstream} {lane}")
        return super().newest_in_lane(upstream, lane)

    def _newest(self, upstream: str, lane: str) -> Rows:
        known = self._newest_known.pop((upstream, lane), None)
        return super()._newest(upstream, lane) if known is None else known

    def insert_delivery(self, row: DeliveryRow) -> None:
        """Inserts it as claimed by this replica, which also sends it: here its caller waits for the verdict."""
        self._run(INSERT, [*DELIVERIES.values(self._stored(row)), self._owner, self._lease_end()])

    def update_delivery(self, row: DeliveryRow) -> None:
        """Leaves owner and lease as they are; raises `Conflict` if another replica has taken it over since it was
        read."""
        values = DELIVERIES.update_values(self._stored(row))
        if self._fences.get(row.id) == row.fence:  # locked when it was read: nobody can have taken it over
            self._run(UPDATE, values)
            return
        update = UPDATE_IF_OURS if self._patient else UPDATE_AT_ONCE
        found = self._one(update, [*values, row.fence])
        if found is None and super().delivery(row.id) is not None:
            raise Conflict(f"delivery {row.id} was taken over by another replica")

    def delivery(self, delivery: int) -> DeliveryRow | None:
        if not self._writes:
            return super().delivery(delivery)
        wait = "" if self._patient else " NOWAIT"
        rows = self._run(f"{DELIVERIES.select} WHERE id = ? FOR UPDATE{wait}", (delivery,))
        of_it = "(SELECT alert FROM deliveries WHERE id = ?)"
        self._foresee((ALERTS, f"id = {of_it}", (delivery,)), (TARGETS, f"alert = {of_it}", (delivery,)))
        found = rows.fetchone()
        row = self._decoded(found) if found else None
        if row is not None:
            self._fences[row.id] = row.fence
        return row

    def held(self, ids: Collection[int]) -> list[DeliveryRow]:
        if not self._writes:
            return super().held(ids)
        wait = "" if self._patient else " NOWAIT"
        chosen = f"{DELIVERIES.select} WHERE id = ANY(?) ORDER BY id FOR UPDATE{wait}"
        rows = [self._decoded(row) for row in self._all(chosen, (list(ids),))]
        self._fences.update((row.id, row.fence) for row in rows)
        return rows

    def claim(
        self,
        upstream: str,
        now: int,
        limit: int,
        *,
        taken: Collection[str] = (),
        ranked: bool = False,
        fresh: bool = False,
        unsent: bool = False,
    ) -> list[DeliveryRow]:
        rows = self._all(
            claiming(ranked=ranked or unsent, fresh=fresh, unsent=unsent),
            (
                *(self._owner, upstream, now - self._shift, self._steady(), self._owner, list(taken), limit),
                *(self._owner, self._lease_end()),
            ),
        )
        found = [self._decoded(row[:-1]) for row in rows]
        self._unrecorded |= frozenset(row.id for row, columns in zip(found, rows, strict=True) if columns[-1])
        commands, alerts = [row.command for row in found], [row.alert for row in found if row.alert is not None]
        if found:
            self._foresee(
                (COMMANDS, "id = ANY(?)", (commands,)),
                (ALERTS, "id = ANY(?)", (alerts,)),
                (TARGETS, "alert = ANY(?)", (alerts,)),
            )
        return sorted(found, key=lambda row: (row.rank if ranked or unsent else 0, row.due, row.id))

    def unrecorded(self) -> frozenset[int]:
        return self._unrecorded

    # prefetching: rows that will be asked for next come in the same journey, for one alert or many

    def _foresee(self, *asked: tuple[Table[Any], str, Sequence[Any]]) -> None:
        """Prefetches rows that are likely to be read next. Each is used once, and discarded if its table is written or
        a lock is taken."""
        if self._pipeline is not None:
            for table, where, values in asked:
                self._foreseen[table.name] = self._run(f"{table.select} WHERE {where}", values)

    def _seen(self, table: Table[Any], number: int) -> list[Any]:
        """Takes the prefetched rows of a table whose first column is this number."""
        found = self._foreseen.get(table.name)
        if found is None:
            return []
        if not isinstance(found, dict):
            rows: dict[int, list[Any]] = {}
            for row in found.fetchall():
                rows.setdefault(row[0], []).append(row)
            found = self._foreseen[table.name] = rows
        return found.pop(number, [])

    def command(self, command: int) -> CommandRow | None:
        found = self._seen(COMMANDS, command)
        return COMMANDS.decode(found[0]) if found else super().command(command)

    def alert(self, alert: int) -> AlertRow | None:
        found = self._seen(ALERTS, alert)
        return ALERTS.decode(found[0]) if found else super().alert(alert)

    def targets(self, alert: int) -> list[TargetRow]:
        found = [TARGETS.decode(row) for row in self._seen(TARGETS, alert)]
        return sorted(found, key=lambda target: target.position) if found else super().targets(alert)

    def renew(self, deliveries: list[int]) -> list[int]:
        """Renews the leases of this replica's deliveries; returns which. A row locked by another transaction is left
        for the next time."""
        rows = self._all(
            "UPDATE deliveries SET leased_until = to_timestamp(?) WHERE id IN "
            "(SELECT id FROM deliveries WHERE id = ANY(?) AND owner = ? FOR UPDATE SKIP LOCKED) RETURNING id",
            (self._lease_end(), deliveries, self._owner),
        )
        return [row[0] for row in rows]

    def clock(self) -> float:
        """The time on the server, in seconds since 1970."""
        found = self._one("SELECT extract(epoch FROM clock_timestamp())", ())
        assert found is not None
        return float(found[0])

    def release(self) -> None:
        """Releases all claims and the writer slot of this replica."""
        freed = "leased_until = '-infinity'"
        self._run(f"UPDATE deliveries SET {freed} WHERE state = 'waiting' AND owner = ?", (self._owner,))
        self._run(f"UPDATE slots SET owner = '', {freed} WHERE owner = ?", (self._owner,))

    # writer slots

    def take_slot(self) -> int:
        """Takes the free writer slot whose lease ended the longest ago; raises `StoreError` if all are held."""
        found = self._one(
            "UPDATE slots SET owner = ?, leased_until = to_timestamp(?) "
            "WHERE slot = (SELECT slot FROM slots WHERE leased_until <= to_timestamp(?) "
            "ORDER BY leased_until, slot LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING slot",
            (self._owner, self._lease_end(), self._steady()),
        )
        if found is None:
            raise StoreError(
                f"all {SLOTS} writer slots are taken: too many gateways share this store, or some ended without "
                "releasing theirs, which become free when their leases expire"
            )
        return int(found[0])

    def is_slot_held(self, at: float) -> bool:
        """Whether any replica held a slot at this time."""
        held = "SELECT 1 FROM slots WHERE owner <> '' AND leased_until > to_timestamp(?) LIMIT 1"
        return self._one(held, (at,)) is not None

    def keep_slot(self) -> bool:
        """Renews the lease of the slot; returns whether it was still this replica's."""
        kept = self._one(
            "UPDATE slots SET leased_until = to_timestamp(?) WHERE owner = ? RETURNING slot",
            (self._lease_end(), self._owner),
        )
        return kept is not None

    def shorten(self) -> None:
        """Shortens leases that end later than any that is granted now, as the time has gone back since: whoever is
        alive renews them in time, and those of the dead would block what they hold for as long."""
        shorter = "leased_until = to_timestamp(?)"
        too_long = "leased_until > to_timestamp(?)"
        bounds = (self._lease_end(), self._steady() + LONGEST_LEASE)
        self._run(f"UPDATE deliveries SET {shorter} WHERE state = 'waiting' AND {too_long}", bounds)
        self._run(f"UPDATE slots SET {shorter} WHERE {too_long}", bounds)

    # the rest

    def tell(self, text: str) -> None:
        if len(text.encode()) <= _CHANNEL_BYTES:
            self.told.append(text)

    def ledger(self, since: int, by: Literal["caller", "dialect", "operation"]) -> list[LedgerLine]:
        return self._at_length(lambda: super(PostgresTx, self).ledger(since, by))

    def arrivals(self, since: int) -> list[Arrivals]:
        return self._at_length(lambda: super(PostgresTx, self).arrivals(since))

    def _at_length(self, ask: Callable[[], T]) -> T:
        """Runs a query that may take minutes, one at a time: two would keep the reads of all callers waiting that long.
        Raises `Overdue` if another is running."""
        if not self._line.at_length.acquire(blocking=False):
            raise Overdue("another query over the whole history is running; try again later")
        try:
            return self._asked_at_length(ask)
        finally:
            self._line.at_length.release()

    def _asked_at_length(self, ask: Callable[[], T]) -> T:
        self._run(f"SET LOCAL statement_timeout = {LONG * 1000:.0f}", ())
        self._within = LONG + 1
        try:
            return ask()
        finally:
            self._within = ANSWER

    def purge(self, before: int, limit: int) -> int:
        """As for every engine, but in a fixed number of statements whatever the limit, as each is a journey. Rows to be
        deleted are searched from the oldest on, and deleted by id: one statement for both would be planned for any time
        and limit, and scan whole tables."""
        over = self._numbers(COMMANDS_OVER, before, before, limit)
        old = self._all("DELETE FROM deliveries WHERE command = ANY(?) RETURNING id", (over,))
        self._run("DELETE FROM attempts WHERE delivery = ANY(?)", ([row[0] for row in old],))
        self._run("DELETE FROM commands WHERE id = ANY(?)", (over,))
        if len(over) >= limit:
            return len(old)
        ended = self._numbers(ALERTS_OVER, before, limit)
        self._run("DELETE FROM alerts WHERE id = ANY(?)", (ended,))
        for table in ("commands", "targets", "ids"):
            self._run(f"DELETE FROM {table} WHERE alert = ANY(?)", (ended,))
        silent = self._numbers(SILENT, before, limit)
        self._run("DELETE FROM commands WHERE id = ANY(?)", (silent,))
        return len(old) + len(ended) + len(silent)

    def _numbers(self, statement: str, *values: Any) -> list[int]:
        return [row[0] for row in self._all(statement, values)]


_TROUBLES: tuple[tuple[tuple[type[psycopg.Error], ...], type[StoreError], str], ...] = (
    ((errors.ReadOnlySqlTransaction,), Lost, "the store takes no writes"),
    ((errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement), Lost, "the server session was replaced"),
    (_AWAY, Trouble, "the store cannot be used"),
    (_PASSING, Conflict, "conflict with another transaction"),
    ((errors.DiskFull,), Full, "the store cannot be used"),
)


class _Awaited:
    """The result of a statement in a pipeline, waited for when it is fetched."""

    def __init__(self, cursor: psycopg.Cursor[Any], see: Callable[[psycopg.Cursor[Any]], None]) -> None:
        self._cursor = cursor
        self._see = see

    def fetchone(self) -> Any:
        self._see(self._cursor)
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        self._see(self._cursor)
        return self._cursor.fetchall()


def own(tx: Tx) -> PostgresTx:
    """A transaction of this driver, by its further primitives."""
    assert isinstance(tx, PostgresTx)
    return tx


@lru_cache(maxsize=512)
def _translated(statement: str) -> bytes:
    """The statement with psycopg's placeholders."""
    return statement.replace("%", "%%").replace("?", "%s").encode()


def _number(name: str) -> int:
    """A name's key for an advisory lock. Two names with the same key only wait for each other unnecessarily."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
