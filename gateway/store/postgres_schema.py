"""The schema in PostgreSQL: numbered files, each applied once, by whichever replica comes first.

Replicas of two neighbouring releases work side by side while one replaces the other. So a file may only *add*: tables,
indexes, and columns with a default. Statements name their columns, hence a release leaves columns it does not know
alone. What a release no longer uses is dropped by the release after the next, when no running release needs it.
With each file goes the oldest schema whose release still works beside it; a release whose newest schema is older is
refused. From the second file on, each statement can be repeated: it was done already if a replica ended in the middle
of the file. It must not know what is in the tables.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any, LiteralString

import psycopg

from gateway.errors import StoreError

SCHEMAS = (
    ("001.sql", 1),
    ("002.sql", 1),
    ("003.sql", 1),
    ("004.sql", 1),
    ("005.sql", 1),
    ("006.sql", 1),
    ("007.sql", 1),
)
"""The files in order, each with the oldest schema that still works once it is applied."""
LOCK = 0x616C657274677700
"""The key of the advisory lock that lets one replica at a time change the schema."""
STEP_BACK, AGAIN = 500, 0.5
"""Milliseconds that a change waits for a table, less than the server's deadlock timeout; seconds after which it tries
again."""


def migrate(connection: psycopg.Connection[Any]) -> None:
    """Brings the schema up to date; a schema of a newer release is refused. A new one is created in one transaction; an
    older one is changed a statement at a time, as replicas of the release before may be serving from it."""
    _only_unicode(connection)
    with _alone(connection) as version:
        if version == 0:
            for number in range(1, len(SCHEMAS) + 1):
                for statement in _statements(number):
                    connection.execute(statement)
                _note(connection, number)
            return
    for number in range(version + 1, len(SCHEMAS) + 1):
        for statement in _statements(number):
            _change(connection, number, statement)
        with _alone(connection) as version:
            if version < number:
                _note(connection, number)


def _change(connection: psycopg.Connection[Any], number: int, statement: bytes) -> None:
    """Runs one statement of a file, in its own transaction: holding one table while waiting for the next could deadlock
    with replicas that hold the next and want the first. Waiting behind a long query it gives up after `STEP_BACK` and
    tries again, as all other queries would queue behind it. The statement may have been run before."""
    is_done = False
    while not is_done:
        try:
            with _alone(connection) as version:
                if version < number:
                    connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{STEP_BACK}ms",))
                    connection.execute(statement)
            is_done = True
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            time.sleep(AGAIN)


@contextlib.contextmanager
def _alone(connection: psycopg.Connection[Any]) -> Iterator[int]:
    """A transaction that excludes other migrations; yields the schema's number in it."""
    with connection.transaction():
        # This waits for a migration by another replica; after that, there may be nothing left to do.
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        yield _version(connection)


def _version(connection: psycopg.Connection[Any]) -> int:
    if not _one(connection, "SELECT to_regclass('gateway_schema') IS NOT NULL"):
        # Not IF NOT EXISTS: the server demands the right to create tables even if there is nothing to do.
        connection.execute("CREATE TABLE gateway_schema (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)")
    found = connection.execute("SELECT version, oldest FROM gateway_schema ORDER BY version DESC LIMIT 1").fetchone()
    version, oldest = found or (0, 0)
    if oldest > len(SCHEMAS):
        raise StoreError(
            f"the store has schema {version}, this release knows {len(SCHEMAS)}: it was written by a newer release"
        )
    return int(version)


def _note(connection: psycopg.Connection[Any], number: int) -> None:
    connection.execute("INSERT INTO gateway_schema VALUES (%s, %s)", (number, SCHEMAS[number - 1][1]))


def _statements(number: int) -> list[bytes]:
    """The statements of a file, each of which ends in a semicolon at the end of its line."""
    script = resources.files("gateway.store").joinpath("schema", "postgres", SCHEMAS[number - 1][0]).read_bytes()
    return [one for one in script.split(b";\n") if one.strip()]


def _only_unicode(connection: psycopg.Connection[Any]) -> None:
    """Refuses a database whose encoding cannot hold every text, even with an existing store: an alert with a character
    outside it could never be accepted, and would fail again each time its sender repeats it."""
    encoding = _one(connection, "SELECT current_setting('server_encoding')")
    if encoding not in ("UTF8", "SQL_ASCII"):
        raise StoreError(
            f"the database's encoding is {encoding}: create it with ENCODING 'UTF8' TEMPLATE template0, "
            "and transfer an existing store with pg_dump"
        )


def _one(connection: psycopg.Connection[Any], statement: LiteralString) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]
