"""Has a gateway look at the clock of its store's server, and a new one wait for those that were there before. What a
look means is decided by `postgres_clock`. It must not know what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from gateway.errors import StoreError
from gateway.store import Store, Tx
from gateway.store.postgres_clock import NOTE, Seen, SteadyClock
from gateway.store.postgres_tx import Overdue, own

T = TypeVar("T")
OTHERS_LOOK = 7.5
"""Seconds that a replica which is started waits for another to look at the clock, where that may have been set."""
ANSWERS_TOOL = 2.0
"""Seconds that a tool waits for that: whoever is alive hears it at once, and people look at what the dead have left."""
AGAIN = 0.1
"""Seconds after which it looks again itself."""


class Looks:
    """The looks of one gateway, or of a tool, which looks only once and changes nothing."""

    def __init__(self, store: Store, clock: SteadyClock, *, is_tool: bool) -> None:
        self._store = store
        self._clock = clock
        self._is_tool = is_tool

    async def first(self) -> None:
        """Looks when the store is opened. Where the clock may have been set, waits for a replica that was there then to
        find out, for as long as there is any that looks."""
        loop, wait = asyncio.get_running_loop(), ANSWERS_TOOL if self._is_tool else OTHERS_LOOK
        looked, until = 0.0, 0.0
        while True:
            look = partial(self._join, may_wait=not looked or loop.time() < until)
            found = await (self._store.read(look) if self._is_tool else self._twice(look))
            if isinstance(found, Seen):
                self._clock.take(found)
                return
            if found != looked:
                looked, until = found, loop.time() + wait
                if self._is_tool:  # it has read, as a server may admit too few connections to write, too
                    with contextlib.suppress(StoreError):
                        await self._store.write(lambda tx: tx.tell(NOTE))
            await asyncio.sleep(AGAIN)

    async def again(self) -> float:
        """Looks once more; returns by how many seconds the time went back since."""
        return self._clock.take(await self._twice(lambda tx: self._clock.look(own(tx))))

    def _join(self, tx: Tx, *, may_wait: bool) -> Seen | float:
        return self._clock.join(own(tx), may_wait=may_wait)

    async def _twice(self, look: Callable[[Tx], T]) -> T:
        """Looks; once more where that took too long: a replica that was frozen in the middle of a look keeps the lock
        until the server ends its session (`postgres_line.IDLE`)."""
        try:
            return await self._store.write(look)
        except Overdue:
            return await self._store.write(look)
