"""The gateway's own clock: wall time, except that it follows a jump of the wall clock only when it is told to.

Stored times are compared with it, so that what waits can be moved along with the clock before anybody sees that it was
set. It must not know what it is read for.
"""

from __future__ import annotations

import time

CLOCK_JUMP = 10.0
"""Seconds by which a clock has to jump, or to differ from another, before it counts: less is how clocks are."""


def uptime() -> float:
    """Seconds that nobody sets, and that pass also while the machine sleeps: after that a page is late, and not to be
    taken for one that has waited for a clock that was set."""
    return time.clock_gettime(_UPTIME)


_UPTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Milliseconds since 1970, UTC, when called."""

    def __init__(self) -> None:
        self._offset = self._wall()

    def __call__(self) -> int:
        return int((uptime() + self._offset) * 1000)

    @property
    def jump(self) -> float:
        """Seconds by which the wall clock is ahead of this one."""
        return self._wall() - self._offset

    def follow(self, seconds: float) -> None:
        """Moves the clock by this many seconds."""
        self._offset += seconds

    @staticmethod
    def _wall() -> float:
        return time.time() - uptime()
