"""Jobs of a store's writer: a piece of work, and the event loop that awaits its result.

Shared by the drivers. It must not know how anything is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from gateway.store import Tx


class Job:
    """A piece of work for the writer, and the future by which its result is awaited. `tries` counts its conflicts,
    after which it is run again; `is_long` keeps it out of the event loop if the driver runs work there; `shift` is by
    how many milliseconds what waits was moved when it was made."""

    __slots__ = ("error", "future", "is_long", "loop", "result", "shift", "tries", "work")

    def __init__(self, work: Callable[[Tx], Any], *, is_long: bool = False, shift: int = 0) -> None:
        self.work = work
        self.shift = shift
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.is_long = is_long
        self.result: Any = None
        self.error: Exception | None = None
        self.tries = 0


def answer(jobs: Sequence[Job]) -> None:
    """Passes the results to the event loops that await them, in one call for each loop; from any thread."""
    for loop in {job.loop for job in jobs}:
        theirs = [job for job in jobs if job.loop is loop]
        with contextlib.suppress(RuntimeError):  # the loop has ended; its work is on the disk all the same
            loop.call_soon_threadsafe(settle, theirs)


def settle(jobs: Sequence[Job]) -> None:
    """Sets the results on the futures, in the event loop that awaits them. A job lets go of its error, which leads back
    to it by its traceback: else each refusal would leave a cycle, with all that its frames hold, to the collector."""
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
            job.error, job.future = None, job.loop.create_future()
        else:
            job.future.set_result(job.result)
