"""The schema in PostgreSQL: numbered files, each applied once, whoever comes first.

Replicas of two neighbouring releases work side by side while one replaces the other. So a file may only *add*: tables,
indexes, and columns with a default. Statements name their columns, hence a release leaves what it does not know
alone. What a release no longer uses is taken away by the release after the next, when nobody is left who does.
With its number each file says the oldest schema whose release still works beside it; a release that knows less than
that is refused. It must not know what is in the tables.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, LiteralString

import psycopg

from gateway.errors import StoreError

SCHEMAS = (("001.sql", 1), ("002.sql", 1), ("003.sql", 1), ("004.sql", 1), ("005.sql", 1))
"""The files in order, each with the oldest schema that still works once it is applied."""
LOCK = 0x616C657274677700
"""The name of the lock that lets one replica at a time change the schema."""


def migrate(connection: psycopg.Connection[Any]) -> None:
    """Brings the schema up to date, in one transaction; a schema of a newer release is refused."""
    with connection.transaction():
        # The wait is for whoever migrates now; after it, there is nothing left to do.
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        if not _one(connection, "SELECT to_regclass('gateway_schema') IS NOT NULL"):
            # Only where it is missing: the server asks for the right to create also where there is nothing to do.
            _only_unicode(connection)
            connection.execute("CREATE TABLE gateway_schema (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)")
        found = connection.execute(
            "SELECT version, oldest FROM gateway_schema ORDER BY version DESC LIMIT 1"
        ).fetchone()
        version, oldest = found or (0, 0)
        if oldest > len(SCHEMAS):
            raise StoreError(
                f"the store has schema {version}, this release knows {len(SCHEMAS)}: it was written by a newer release"
            )
        for number, (name, works_with) in enumerate(SCHEMAS[version:], version + 1):
            script = resources.files("gateway.store").joinpath("schema", "postgres", name).read_bytes()
            connection.execute(script)
            connection.execute("INSERT INTO gateway_schema VALUES (%s, %s)", (number, works_with))


def _only_unicode(connection: psycopg.Connection[Any]) -> None:
    """A new store in a database that cannot hold every text is refused; one that is there already goes on."""
    encoding = _one(connection, "SELECT current_setting('server_encoding')")
    if encoding not in ("UTF8", "SQL_ASCII"):
        raise StoreError(f"the database's encoding is {encoding}: create it with ENCODING 'UTF8' TEMPLATE template0")


def _one(connection: psycopg.Connection[Any], statement: LiteralString) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]
