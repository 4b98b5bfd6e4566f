"""The gateway's own clock: wall time, except that it follows a jump of the wall clock only when it is told to.

Stored times are compared with it, so that what waits can be moved along with the clock before anybody sees that it was
set. It must not know what it is read for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

CLOCK_JUMP = 10.0
"""Seconds by which a clock has to jump, or to differ from another, before it counts: less is how clocks are."""


def uptime() -> float:
    """Seconds that nobody sets, and that pass also while the machine sleeps: after that a page is late, and not to be
    taken for one that has waited for a clock that was set."""
    return time.clock_gettime(_UPTIME)


_UPTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


_as_of: ContextVar[int | None] = ContextVar("as_of", default=None)


@contextlib.contextmanager
def as_of(moved: int) -> Iterator[None]:
    """Within the block clocks are read as if what waits had been moved by so many milliseconds only. A store runs its
    work so: what it reads and writes is converted as it was when the work was made, whatever is followed meanwhile."""
    token = _as_of.set(moved)
    try:
        yield
    finally:
        _as_of.reset(token)


class Clock:
    """Milliseconds since 1970, UTC, when called. `moved` is by how many milliseconds what waits is moved with it."""

    def __init__(self) -> None:
        self._state = (self._wall(), 0)

    def __call__(self) -> int:
        offset, moved = self._state
        now, then = int((uptime() + offset) * 1000), _as_of.get()
        return now if then is None else now - moved + then

    @property
    def moved(self) -> int:
        """By how many milliseconds what waits was moved."""
        return self._state[1]

    @property
    def jump(self) -> float:
        """Seconds by which the wall clock is ahead of this one."""
        return self._wall() - self._state[0]

    def follow(self, seconds: float, moved: int = 0) -> None:
        """Moves the clock by this many seconds, in the same instant as what waits is moved to."""
        self._state = (self._state[0] + seconds, moved)

    @staticmethod
    def _wall() -> float:
        return time.time() - uptime()
