"""Shared by the suites for store drivers: a harness that each driver supplies, and rows to put into a store.

A `Harness` says how to open a store, to open it a second time, to fill the disk, and to pretend that a newer release
wrote it. It leaves None what a driver cannot show (a store in memory has no second opener).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import psycopg

from gateway.canonical import Alert
from gateway.store import (
    AlertRow,
    CommandBody,
    CommandRow,
    DeliveryRow,
    Store,
    TargetRow,
    Tx,
)
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SqliteStore
from tests.postgres_server import shared


@dataclass(frozen=True)
class Harness:
    """What a driver supplies. `again` opens the same store once more, after it was closed or beside it; `fill` leaves
    no room in an open store and `heal` gives room again; `age` makes it look as if a newer release had written it;
    `is_shared` says that several gateways may serve from one store."""

    open: Callable[[], Store]
    again: Callable[[], Store] | None
    fill: Callable[[Store], None]
    heal: Callable[[Store], None]
    age: Callable[[], None] | None
    is_shared: bool = False


def _fill_sqlite(store: Store) -> None:
    assert isinstance(store, SqliteStore)
    pages = store._writer.pragma("page_count")
    store._writer.pragma("max_page_count", pages)


def _heal_sqlite(store: Store) -> None:
    assert isinstance(store, SqliteStore)
    store._writer.pragma("max_page_count", 1 << 30)


def sqlite_file(directory: Path) -> Harness:
    """SQLite in a file."""
    path = directory / "deep" / "gateway.db"

    def age() -> None:
        connection = apsw.Connection(str(path))
        connection.pragma("user_version", 9999)
        connection.close()

    def opened() -> Store:
        return SqliteStore(str(path))

    return Harness(open=opened, again=opened, fill=_fill_sqlite, heal=_heal_sqlite, age=age)


def sqlite_memory(directory: Path) -> Harness:
    """SQLite in memory."""
    return Harness(open=lambda: SqliteStore(":memory:"), again=None, fill=_fill_sqlite, heal=_heal_sqlite, age=None)


def _execute(url: str, script: bytes) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script)


_FULL = b"""
CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER is_full BEFORE INSERT ON alerts FOR EACH ROW EXECUTE FUNCTION is_full();
"""
"""Raises what a server without room raises; a server whose disk is really full would take the machine with it."""


def postgresql(directory: Path) -> Harness:
    """PostgreSQL, a database for each test."""
    url = shared().database()

    def age() -> None:
        _execute(url, b"INSERT INTO gateway_schema VALUES (9999, 9999)")

    def fill(store: Store) -> None:
        _execute(url, _FULL)

    def heal(store: Store) -> None:
        _execute(url, b"DROP FUNCTION is_full CASCADE")

    def opened() -> Store:
        return PostgresStore(url)

    return Harness(open=opened, again=opened, fill=fill, heal=heal, age=age, is_shared=True)


DRIVERS = {"sqlite file": sqlite_file, "sqlite memory": sqlite_memory, "postgresql": postgresql}


def within(harness: Harness, work: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` with an open store."""

    async def main() -> None:
        async with harness.open() as store:
            await work(store)

    asyncio.run(main())


def in_tx(harness: Harness, work: Callable[[Tx], None]) -> None:
    """Runs `work` in one transaction of a fresh store."""

    async def main(store: Store) -> None:
        await store.write(work)

    within(harness, main)


def alert(number: int, **more: Any) -> AlertRow:
    """An ordinary alert; `more` overrides columns."""
    given: dict[str, Any] = {
        "id": number,
        "scope": "s",
        "dialect": "d",
        "caller": "c",
        "shown": f"shown-{number}",
        "key": None,
        "name": None,
        "status": "firing",
        "resource": None,
        "is_open": True,
        "version": 1,
        "created_at": number,
        "updated_at": number,
        "body": Alert(kind="occurrence", summary=f"alert {number}", status="firing"),
    }
    return AlertRow(**{**given, **more})


def delivery(number: int, **more: Any) -> DeliveryRow:
    """A waiting delivery."""
    given: dict[str, Any] = {
        "id": number,
        "command": number,
        "alert": 1,
        "upstream": "u",
        "lane": "l",
        "key": None,
        "operation": "create",
        "state": "waiting",
        "created_at": number,
        "due": 0,
    }
    return DeliveryRow(**{**given, **more})


def command(number: int, **more: Any) -> CommandRow:
    """An accepted command."""
    given: dict[str, Any] = {
        "id": number,
        "request": number,
        "alert": 1,
        "operation": "create",
        "scope": "s",
        "dialect": "d",
        "caller": "c",
        "at": number,
        "body": CommandBody(),
    }
    return CommandRow(**{**given, **more})


def target(number: int, upstream: str = "u", **more: Any) -> TargetRow:
    """The state of an alert at one upstream."""
    given: dict[str, Any] = {
        "alert": number,
        "upstream": upstream,
        "position": 0,
        "lane": "l",
        "key": None,
        "state": "waiting",
    }
    return TargetRow(**{**given, **more})
