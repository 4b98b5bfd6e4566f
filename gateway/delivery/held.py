"""Keys that an upstream refuses, where it has one key per entry: what uses such a key waits, everything else goes on.

A held key is tried by one attempt a minute, and at once when it changes. Kept in memory alone: after a restart each
is tried once more. It must not know the store, HTTP, or a vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.delivery.breaker import HELD_PAUSE

LOOK = 5.0
"""Seconds after which what waits for a held key is looked at again: whether the key has changed."""
LOOKS_PER_SECOND = 100
"""How many deliveries are looked at in a second at most, so that a great backlog of one key is no burden on others."""


@dataclass
class _Hold:
    """`since` is when the key was refused last, in milliseconds since 1970."""

    until: float
    fingerprint: int
    since: int
    put_off: int = 0


class HeldKeys:
    """The entries of one upstream whose keys are refused. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}

    def hold(self, entry: str, fingerprint: int, now: float, since: int = 0) -> bool:
        """The key of this entry was refused, at `since` by the clock that others have too; answers whether that is
        news."""
        is_news = entry not in self._holds or self._holds[entry].fingerprint != fingerprint
        self._holds[entry] = _Hold(now + HELD_PAUSE, fingerprint, since)
        return is_news

    def wait(self, entry: str, fingerprint: int, now: float) -> float:
        """Seconds until something may be sent with this key. Whoever is let through when they are over is the probe:
        everybody else waits for another minute."""
        held = self._holds.get(entry)
        if held is None or held.fingerprint != fingerprint:
            return 0.0
        if held.until > now:
            return held.until - now
        self._holds[entry] = _Hold(now + HELD_PAUSE, fingerprint, held.since)
        return 0.0

    def pause(self, entry: str, wait: float) -> float:
        """Seconds for which one more delivery is put off that would have to wait so long."""
        held = self._holds.get(entry)
        if held is None:
            return min(wait, LOOK)
        held.put_off += 1
        return min(wait, LOOK + held.put_off / LOOKS_PER_SECOND)

    def entries(self, fingerprint: Callable[[str], int]) -> list[str]:
        """The entries whose keys, as they are now, were refused."""
        return sorted(entry for entry, held in self._holds.items() if held.fingerprint == fingerprint(entry))

    def to_be_tried(self, now: float) -> dict[str, int]:
        """The entries whose keys it is time to try again, each with when it was refused."""
        return {entry: held.since for entry, held in self._holds.items() if held.until <= now}

    def accepted(self, entry: str) -> bool:
        """The key of this entry was taken; answers whether that ended a hold."""
        return self._holds.pop(entry, None) is not None
