"""Looks for what other replicas have delivered: how often, and how far back each look goes.

An upstream that one replica holds may be served by another. Each look goes through all that ended at any upstream since
some time, so it begins where the last one ended. It must not know the store, HTTP, or a vendor.
"""

from __future__ import annotations

from collections.abc import Mapping

HEAR_EVERY = 2.0
"""Seconds between two looks."""
OVERLAP = 10_000
"""Milliseconds that two looks have in common: what ended may be committed later, and replicas' clocks differ."""


class OtherReplicas:
    """The looks of one replica. `refused` are the times of the refusals by what was refused, in milliseconds."""

    def __init__(self) -> None:
        self._at, self._until = 0.0, 0
        self._refused: dict[str, int] = {}

    def is_due(self, now: float) -> bool:
        """Whether it is time for a look, in monotonic seconds; it counts as made."""
        if now - self._at < HEAR_EVERY:
            return False
        self._at = now
        return True

    def since(self, refused: Mapping[str, int]) -> int:
        """The time from which a look has to go, in milliseconds: that of the earliest refusal, or that of the last look
        if that was for the same refusals."""
        since = min(refused.values())
        return max(since, self._until - OVERLAP) if refused.items() <= self._refused.items() else since

    def looked(self, refused: Mapping[str, int], now: int) -> None:
        """Notes that a look which began at `now`, in milliseconds, was made."""
        self._refused, self._until = dict(refused), now
