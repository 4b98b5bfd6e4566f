"""Charges reads from upstreams to their rate, as vendors count reads and writes alike. This is stored in the
background, so that the caller who waits for the read does not wait for a disk as well. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial

from gateway.config.config import Upstream
from gateway.delivery.gate import spend
from gateway.errors import StoreError
from gateway.store import Store


class Spending:
    """The reads not yet stored, with at most one write under way for each upstream."""

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._untold: Counter[str] = Counter()
        self._telling: dict[str, asyncio.Task[None]] = {}

    def note(self, upstream: Upstream, requests: int) -> None:
        """Counts reads from an upstream."""
        if upstream.rate is None or not requests:
            return
        self._untold[upstream.name] += requests
        if upstream.name not in self._telling:
            self._telling[upstream.name] = asyncio.create_task(self._tell(upstream))

    async def _tell(self, upstream: Upstream) -> None:
        try:
            while requests := self._untold.pop(upstream.name, 0):
                work = partial(spend, upstream=upstream, now=self._now(), requests=requests)
                with contextlib.suppress(StoreError):  # the read has succeeded all the same
                    await self._store.write(work)
        finally:
            del self._telling[upstream.name]
