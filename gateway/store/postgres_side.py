"""A store in PostgreSQL as one side of a move. It must not know what the tables contain."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from gateway.errors import StoreError
from gateway.store.moving import BYTES, TABLES, Copied, TooLong, Unclear
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_clock import NOTE, Shared
from gateway.store.postgres_line import Address, Watch
from gateway.store.postgres_schema import LOCK

LOCKED_WITHIN = 10
"""Seconds to wait for a lock on the tables."""
STANDS_STILL = 300
"""Seconds that a server may accept no data while it is sent a table, as it may be busy writing to its disk, or send
none while a table is read."""
TAKES = 3600
"""Seconds that one statement through a whole table may take."""

# A move is one long transaction, which also waits for the other store: no timeout of the server may end it. That this
# process is gone the server still detects by the line's keepalive settings, or it would keep the locks for hours.
_SETTINGS = b"""
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""
_DURABLE = b"""
SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply'
                  THEN 'remote_apply' ELSE 'on' END, true),
       set_config('lock_timeout', %s, true)
"""
# Tables are locked until the commit, and a move goes on after that until the other store has committed too.
_ALONE = b"SELECT pg_advisory_lock(%d)" % (LOCK + 1)
_SERVING = (
    "SELECT count(*), ceil(extract(epoch FROM max(leased_until)) + ? - extract(epoch FROM clock_timestamp()))::bigint "
    "FROM slots WHERE extract(epoch FROM leased_until) + ? > extract(epoch FROM clock_timestamp())"
)
_BY_ITS_CLOCK = "UPDATE deliveries SET created_at = created_at + ?, due = due + ? WHERE state = 'waiting'"


class PostgresSide:
    """The store at a `postgresql://` URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._address = Address(url, tcp_user_timeout=STANDS_STILL * 1000)
        self._watch = Watch()
        self._line = self._watch.line(self._address)
        self._connection: psycopg.Connection[Any] | None = None
        self.shown = repr(self._address)

    def open(self) -> None:
        """Locks all tables, those of writer slots included: gateways started meanwhile get no slot, and give up."""
        asyncio.run(_up_to_date(self._url))
        names = ", ".join((*(table.name for table in TABLES), "slots"))
        self._watch.start()
        with self._telling("cannot be used"):
            self._line.look()
            self._connection = self._line.connection()
        with self._telling("cannot be used"), self._answering(STANDS_STILL):
            self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")  # sees what was committed before the lock
            self._connection.execute(_SETTINGS)
            self._connection.execute(_DURABLE, (f"{LOCKED_WITHIN}s",))
            self._connection.execute(_ALONE)
            self._connection.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE".encode())
        jumps = self._jumps()
        [(count, longest)] = self.run(_SERVING, (jumps, jumps))
        if count:
            raise StoreError(
                f"gateways serve from {self.shown} ({count}): stop them first, and keep them stopped; one that was "
                f"killed counts as stopped after {longest} s at most"
            )
        if jumps:  # no other engine stores what waits by a time of its own
            self.run(_BY_ITS_CLOCK, (round(jumps * 1000), round(jumps * 1000)))
            self.run("DELETE FROM notes WHERE name = ?", (NOTE,))

    def _jumps(self) -> float:
        """By how many seconds the server's clock is ahead of the time that its gateways went by."""
        found = self.run("SELECT body FROM notes WHERE name = ?", (NOTE,))
        return msgspec.json.decode(found[0][0], type=Shared).jumps if found else 0.0

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._telling("cannot be used"), self._answering(TAKES):
            found = self._there.execute(statement.replace("?", "%s").encode(), values or None)
            return found.fetchall() if found.description else []

    def rows(self, table: Copied) -> Iterator[Sequence[Any]]:
        """Yields rows one at a time by COPY: a cursor would fetch a fixed number at once, however large each is."""
        with self._telling(f"cannot be read ({table.name})"), self._there.cursor() as cursor:
            columns = cursor.execute(f"{table.select} LIMIT 0".encode()).description or ()
            with cursor.copy(f"COPY ({table.select}) TO STDOUT".encode()) as copy:
                copy.set_types([column.type_code for column in columns])
                rows = copy.rows()
                while (row := self._next(rows)) is not None:
                    yield row

    def _next(self, rows: Iterator[Sequence[Any]]) -> Sequence[Any] | None:
        with self._answering(STANDS_STILL):
            return next(rows, None)

    def put(self, table: Copied, rows: Iterable[Sequence[Any]]) -> None:
        in_bytes = [number for number, column in enumerate(table.columns) if column in BYTES]
        into = f"COPY {table.name} ({', '.join(table.columns)}) FROM STDIN"
        telling = self._telling(f"does not accept all rows ({table.name})")
        with telling, self._there.cursor() as cursor, contextlib.ExitStack() as ending:
            copy = ending.enter_context(cursor.copy(into.encode()))
            for row in rows:
                copy.write_row(_with_bytes(row, in_bytes))
            with self._answering(STANDS_STILL):
                ending.close()

    def unrecorded(self) -> bool | None:
        return bool(self.run("SELECT 1 FROM deliveries WHERE state = 'waiting' AND under_way LIMIT 1"))

    def see_all(self) -> None:
        """Analyses the tables: the planner would take them for empty until the server's autovacuum does."""
        self.run(f"ANALYZE {', '.join(table.name for table in TABLES)}")

    def commit(self) -> None:
        if self._there.info.transaction_status == TransactionStatus.IDLE:
            return
        try:
            with self._answering(STANDS_STILL):
                self._there.execute("COMMIT")
        except (psycopg.Error, StoreError) as error:
            said = f"{self.shown} did not confirm the commit: {self._address.masked(error)}"
            raise Unclear(said) if self._there.closed else StoreError(said) from None

    def close(self) -> None:
        self._watch.stop()

    @property
    def _there(self) -> psycopg.Connection[Any]:
        assert self._connection is not None
        return self._connection

    @contextlib.contextmanager
    def _answering(self, within: float) -> Iterator[None]:
        """While an answer is waited for. Of a server that stands still the network says that it is there."""
        began = time.monotonic()
        try:
            with self._line.asking(within):
                yield
        except psycopg.OperationalError:
            if time.monotonic() - began < within:
                raise
            raise StoreError(f"{self.shown} has not answered for {within:g} s: find out what blocks it") from None

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turns the server's errors into `StoreError`, without passwords."""
        try:
            yield
        except errors.ProgramLimitExceeded as error:  # a B-tree holds no key of more than a third of a page
            raise TooLong(_row_in(error)) from None
        except errors.LockNotAvailable:
            raise StoreError(f"other sessions use {self.shown}: end them and try again") from None
        except psycopg.Error as error:
            raise StoreError(f"{self.shown} {what}: {self._address.masked(error)}") from None


async def _up_to_date(url: str) -> None:
    """Opens the store once as a gateway would: migrates the schema, and refuses what a gateway would refuse."""
    async with PostgresStore(url, exclusive=False):
        pass


def _with_bytes(row: Sequence[Any], in_bytes: Sequence[int]) -> Sequence[Any]:
    """The row with text converted to bytes in the columns that hold bytes."""
    if not any(isinstance(row[number], str) for number in in_bytes):
        return row
    values = list(row)
    for number in in_bytes:
        if isinstance(values[number], str):
            values[number] = values[number].encode()
    return values


def _row_in(error: psycopg.Error) -> int:
    """The row of a COPY that an error is about, counted from 1, in whatever language the server reports it."""
    found = re.search(r"COPY \w+\D*(\d+)", error.diag.context or "")
    return int(found[1]) if found else 1
