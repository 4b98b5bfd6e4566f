"""The time of a play: the wall's, and what was skipped of it, so that minutes pass in no time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Passing:
    """Seconds since 1970. `skipped` is by how many it is ahead of the wall's."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self._skips: list[float] = []

    def skip(self, seconds: float) -> None:
        """Lets so many seconds pass."""
        self._skips.append(self.now())
        self.skipped += seconds

    def is_skipped_after(self, at: float) -> bool:
        """Whether time was skipped within a second of a time: what left then may have arrived much later."""
        return any(at <= skip < at + 1 for skip in self._skips)

    def now(self) -> float:
        """The time in this play."""
        return time.time() + self.skipped

    def text(self, later: float = 0.0) -> str:
        """The time so many seconds from now, as vendors write it."""
        return written(self.now() + later)


def written(at: float) -> str:
    """A time as vendors write it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def read(text: str) -> float:
    """A time as vendors write it, as seconds."""
    return datetime.fromisoformat(text).timestamp()
