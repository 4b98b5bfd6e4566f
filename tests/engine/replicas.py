"""Shared by the tests of PostgreSQL: several gateways' stores over one database, and what their tests do to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg

from gateway.store import DeliveryRow, Tx
from gateway.store.postgres import PostgresStore

SHORT = 0.5
"""A lease short enough for a test to wait for."""


def execute(url: str, script: str, *values: Any) -> list[Any]:
    """Runs a statement on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(script.encode(), values or None)
        return found.fetchall() if found.description else []


def among(
    url: str, work: Callable[[PostgresStore, PostgresStore], Coroutine[Any, Any, None]], lease: float = 15.0
) -> None:
    """Runs `work` with two gateways' stores over one database."""

    async def main() -> None:
        async with PostgresStore(url, lease=lease) as one, PostgresStore(url, lease=lease) as other:
            await work(one, other)

    asyncio.run(main())


async def until(holds: Callable[[], Coroutine[Any, Any, bool]], within: float = 10.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.02)


def put(*rows: DeliveryRow) -> Callable[[Tx], None]:
    """A job that puts deliveries into the outbox."""

    def work(tx: Tx) -> None:
        for row in rows:
            tx.insert_delivery(row)

    return work


async def claim(store: PostgresStore, limit: int = 100, **more: Any) -> list[DeliveryRow]:
    """Claims deliveries, as a replica does to send them."""
    return await store.take(lambda tx: tx.claim("u", 10**15, limit, **more))


async def opened_and_closed(url: str) -> None:
    """Opens a replica's store and closes it."""
    async with PostgresStore(url):
        pass


def with_a_clock(url: str) -> str:
    """Gives a database a clock of its own, before any store is opened there, which `set_clock` sets; returns the
    URL."""
    name = url.rpartition("/")[2]
    execute(url, "CREATE TABLE is_off (by DOUBLE PRECISION)")
    execute(url, "INSERT INTO is_off VALUES (0)")
    execute(
        url,
        "CREATE FUNCTION public.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE sql AS $$ SELECT "
        "pg_catalog.clock_timestamp() + (SELECT max(by) FROM public.is_off) * interval '1 second' $$",
    )
    execute(url, f"ALTER DATABASE {name} SET search_path = public, pg_catalog")
    return url


def set_clock(url: str, ahead: float) -> None:
    """Sets the clock of a database to so many seconds ahead of what it is."""
    execute(url, "UPDATE is_off SET by = %s", ahead)
