"""Shared by the tests of PostgreSQL in trouble: what is written while a server fails, and what of it was
acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

from gateway.errors import StoreError
from gateway.store import AlertFilter, Tx
from gateway.store.postgres import WITHIN, PostgresStore
from tests.engine.store_drivers import alert

HEALTHY = 10.0
"""Seconds within which the store has to recover."""
END_ALL = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
"""Ends all other connections to the database."""


def put_alert(number: int, tx: Tx) -> None:
    tx.insert_alert(alert(number))


def all_alerts(tx: Tx) -> set[int]:
    return {row.id for row in tx.alerts("s", AlertFilter())[0]}


class Load:
    """Writes alerts one after another and remembers which were acknowledged."""

    def __init__(self, store: PostgresStore, first: int = 1) -> None:
        self._store = store
        self._next = first
        self.acknowledged: set[int] = set()
        self.refused = 0
        self.longest = 0.0

    async def put(self) -> bool:
        """Writes one alert; returns whether it was acknowledged."""
        number, self._next = self._next, self._next + 1
        began = time.monotonic()
        try:
            await self._store.write(partial(put_alert, number))
        except StoreError:
            self.refused += 1
            return False
        else:
            self.acknowledged.add(number)
            return True
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            if not await self.put():
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def running(self, callers: int = 8) -> AsyncIterator[None]:
        """Runs several callers in the background."""
        tasks = [asyncio.create_task(self.run()) for _ in range(callers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def is_refused(self, times: int) -> None:
        """Waits until `times` more writes were refused."""
        began, before = time.monotonic(), self.refused
        while self.refused < before + times:
            assert time.monotonic() - began < 3 * WITHIN, "nobody is told that the store is away"
            await asyncio.sleep(0.02)

    async def grows(self, within: float) -> float:
        """Waits until more is acknowledged; returns the seconds that took."""
        began, before = time.monotonic(), len(self.acknowledged)
        while len(self.acknowledged) < before + 20:
            assert time.monotonic() - began < within, "the store did not recover"
            await asyncio.sleep(0.02)
        return time.monotonic() - began
