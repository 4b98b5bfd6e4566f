"""When to refuse because there are too many: a queue that stands, told from a burst that passes.

A burst is let in and worked off; where even the quickest of what was written lately had to wait, the queue does not
get shorter any more, and whoever comes next is better told at once. Pure: it is given the time. It must not know what
is written.
"""

from __future__ import annotations

WINDOW = 0.5
"""Seconds over which the quickest counts."""
STANDS_AT = 0.1
"""Seconds that even the quickest had to wait where a queue stands."""
LET_IN, MOST = 48, 256
"""So many may always be under way, and so many at most."""


class Crowd:
    """Who is under way, and how quick the quickest was of late."""

    def __init__(self) -> None:
        self.inside = 0
        self._began = 0.0
        self._quickest = 0.0
        self._so_far: float | None = None

    def may_enter(self, now: float) -> bool:
        """Whether another one may come in; whoever does has to `leave`."""
        self._turn(now)
        if self.inside >= (LET_IN if self._quickest > STANDS_AT else MOST):
            return False
        self.inside += 1
        return True

    def leave(self, now: float, took: float | None) -> None:
        """One has been written, so many seconds after it came in; None for what says nothing of how quick it is, such
        as many things at once."""
        self.inside -= 1
        if took is not None:
            self._so_far = took if self._so_far is None else min(self._so_far, took)
        self._turn(now)

    def _turn(self, now: float) -> None:
        if now - self._began >= WINDOW:
            self._quickest = self._so_far or 0.0
            self._began, self._so_far = now, None
