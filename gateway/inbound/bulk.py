"""Large bodies, of hundreds of alerts each: few of them are worked on at a time.

What is made of one takes more than ten times its size for as long as it is worked on, and reading one takes a while. In
a storm many come at once: as bytes they wait for their turn, in the order in which they came, and they are read in a
thread, one at a time, so that whoever sends a single alert meanwhile is not kept waiting. It must not know what is in
them.
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
"""Bytes of large bodies that are worked on at a time; one that is larger than that is worked on alone."""
GIVES_WAY = 5.0
"""Seconds after which one no longer keeps others from being worked on: by then it waits for what upstreams say to it,
and of one that is slow everybody behind it, whoever theirs is, would wait as well."""
WAITING = 32 * 1024 * 1024
"""Bytes of large bodies beyond which no further one may wait."""
LATER = 10
"""Seconds after which a sender is to come again for whom there is no room to wait."""


class Bulk:
    """The large bodies that are worked on, and those that wait for that."""

    def __init__(self) -> None:
        self._under_way = 0
        self._worked_on: dict[object, int] = {}
        self._line = asyncio.Lock()
        self._left = asyncio.Event()
        self._reader = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[Callable[[], None]]:
        """Waits until a body of this size may be worked on, which is within the block, or until what this gives is
        called. Raises `Problem` where too much waits already."""
        if self._under_way - self._inside >= WAITING:
            raise Problem(ProblemKind.OVERLOADED, "too many large requests are under way; try again", retry_after=LATER)
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
        """Makes room for the next one. Who still waits for upstreams counts as one that waits."""
        self._worked_on.pop(place, None)
        self._left.set()

    async def read(self, read: Callable[[], T]) -> T:
        """Reads something of a large body beside the event loop."""
        async with self._reader:
            return await asyncio.to_thread(read)


@contextlib.contextmanager
def _later(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Does something if the block takes so long."""
    timer = asyncio.get_running_loop().call_later(seconds, work)
    try:
        yield
    finally:
        timer.cancel()
