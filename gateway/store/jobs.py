"""What waits for a store's writer: a piece of work, and the event loop that awaits its result.

Shared by the drivers. It must not know how anything is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from gateway.store import Tx


class Job:
    """A piece of work for the writer, and where its result is awaited. `tries` counts how often it was begun where
    that may be more than once; `is_long` keeps it out of the event loop, where a driver works there."""

    __slots__ = ("error", "future", "is_long", "loop", "result", "tries", "work")

    def __init__(self, work: Callable[[Tx], Any], *, is_long: bool = False) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.is_long = is_long
        self.result: Any = None
        self.error: Exception | None = None
        self.tries = 0


def answer(jobs: Sequence[Job]) -> None:
    """Hands the results to the event loops that await them, all at once to each."""
    for loop in {job.loop for job in jobs}:
        theirs = [job for job in jobs if job.loop is loop]
        with contextlib.suppress(RuntimeError):  # the loop that asked is gone; what it asked for is on the disk
            loop.call_soon_threadsafe(settle, theirs)


def settle(jobs: Sequence[Job]) -> None:
    """Hands the results over in the event loop that awaits them all."""
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
