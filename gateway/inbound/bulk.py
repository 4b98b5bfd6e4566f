"""Bounds the work on large bodies, of hundreds of alerts each: only a few are processed at a time.

What is made of a body takes more than ten times its size while it is processed, and reading one takes a while. In a
storm many arrive at once: they wait as bytes, first come first served, and are read in a thread, one at a time, so that
callers that send a single alert are not delayed. It must not know what is in the bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TypeVar

from gateway.errors import Problem, ProblemKind

T = TypeVar("T")
LARGE = 64 * 1024
"""Bytes from which on a body is a large one."""
WORKED_ON = 2 * 1024 * 1024
"""Bytes of large bodies that are processed at the same time; a larger body is processed alone."""
GIVES_WAY = 5.0
"""Seconds after which a body no longer counts against `WORKED_ON`: by then its request waits for upstreams, and one
slow upstream would hold up every body behind it, whatever upstreams those go to."""
WAITING = 32 * 1024 * 1024
"""Bytes of waiting large bodies from which on a further one is refused."""
LATER = 10
"""Seconds after which a sender that was refused for lack of room is told to try again."""


class Bulk:
    """The large bodies that are being processed, and the queue of those that wait for their turn."""

    def __init__(self) -> None:
        self._under_way = 0
        self._worked_on: dict[object, int] = {}
        self._line = asyncio.Lock()
        self._left = asyncio.Event()
        self._reader = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[Callable[[], None]]:
        """Waits until a body of this size may be processed, within the block or until the yielded function is called.
        Raises `Problem` if too much waits already."""
        if self._under_way - self._inside >= WAITING:
            raise Problem(ProblemKind.OVERLOADED, "too many large requests; try again later", retry_after=LATER)
        place = object()
        self._under_way += size
        try:
            async with self._line:
                while self._worked_on and self._inside + size > WORKED_ON:
                    self._left.clear()
                    await self._left.wait()
                self._worked_on[place] = size
            with _later(GIVES_WAY, partial(self._leave, place)):
                yield partial(self._leave, place)
        finally:
            self._leave(place)
            self._under_way -= size

    @property
    def _inside(self) -> int:
        return sum(self._worked_on.values())

    def _leave(self, place: object) -> None:
        """Makes room for the next body. A request that still waits for upstreams counts as waiting from now on."""
        self._worked_on.pop(place, None)
        self._left.set()

    async def read(self, read: Callable[[], T]) -> T:
        """Runs `read`, which reads a large body, in a thread; one at a time."""
        async with self._reader:
            return await asyncio.to_thread(read)


@contextlib.contextmanager
def _later(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Calls `work` if the block takes longer than that."""
    timer = asyncio.get_running_loop().call_later(seconds, work)
    try:
        yield
    finally:
        timer.cancel()
