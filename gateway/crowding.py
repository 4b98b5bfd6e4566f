"""When to refuse because there are too many: where whoever comes next would have to wait longer than that is worth.

How long that would be is told from those before: each took so long with so many ahead of it. So a quick machine lets a
larger burst in than a slow one, and what cannot be worked off in time is told at once. Pure: it is given what things
took. It must not know what is written.
"""

from __future__ import annotations

LONGEST = 0.1
"""Seconds that whoever is let in may expect to wait."""
LET_IN, MOST = 48, 256
"""So many may always be under way, and so many at most."""
TELLING = 16
"""With fewer ahead, what one took says more about the disk than about the queue."""
WEIGHT = 0.05
"""Of the latest in the mean."""


class Crowd:
    """Who is under way, and how long each of them takes."""

    def __init__(self) -> None:
        self.inside = 0
        self._each = LONGEST / MOST

    @property
    def is_full(self) -> bool:
        """Whether nobody else may come in now."""
        return self.inside >= max(LET_IN, min(MOST, LONGEST / self._each))

    def enter(self) -> int:
        """Lets another one in, and says how many are ahead of it. Whoever is let in has to `leave`."""
        self.inside += 1
        return self.inside - 1

    def leave(self, ahead: int = 0, took: float = 0.0) -> None:
        """One has been written, so many seconds after it came in with so many ahead of it; with none ahead it says
        nothing of how quick it went."""
        self.inside -= 1
        if ahead >= TELLING:
            self._each += WEIGHT * (took / (ahead + 1) - self._each)
