"""Admission control: refuses a further request where it would have to wait for longer than is worthwhile.

The wait is estimated from the requests before: how long each took with how many ahead of it. So a fast machine admits
a larger burst than a slow one, and what cannot be processed in time is refused at once. Pure: it is given the times.
It must not know what is written.
"""

from __future__ import annotations

LONGEST = 0.1
"""Longest wait in seconds that an admitted request may expect."""
LET_IN, MOST = 48, 256
"""Number of requests that may always be under way, and the most that ever may."""
TELLING = 16
"""Fewest requests ahead for a time to count: with fewer it says more about the disk than about the queue."""
WEIGHT = 0.05
"""Weight of the latest time in the moving average."""


class Crowd:
    """The number of requests under way, and an estimate of the seconds that each takes."""

    def __init__(self) -> None:
        self.inside = 0
        self._each = LONGEST / MOST

    @property
    def is_full(self) -> bool:
        """Whether no further request may be admitted now."""
        return self.inside >= max(LET_IN, min(MOST, LONGEST / self._each))

    def enter(self) -> int:
        """Admits a request; returns how many are ahead of it. Each one admitted has to `leave`."""
        self.inside += 1
        return self.inside - 1

    def leave(self, ahead: int = 0, took: float = 0.0) -> None:
        """Notes that a request was written, `took` seconds after it was admitted with `ahead` requests ahead of it.
        Without arguments the estimate stays as it is."""
        self.inside -= 1
        if ahead >= TELLING:
            self._each += WEIGHT * (took / (ahead + 1) - self._each)
