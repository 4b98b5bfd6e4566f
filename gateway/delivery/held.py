"""Keys that an upstream refuses, where it has one key per entry: deliveries with such a key wait, all others go on.

A held key is tried by one attempt a minute, and at once when it changes. Kept in memory only: after a restart each
is tried once more. It must not know the store, HTTP, or a vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.delivery.breaker import HELD_PAUSE

LOOK = 5.0
"""Seconds after which a delivery that waits for a held key is due again, to see whether the key has changed."""
LOOKS_PER_SECOND = 100
"""The most deliveries that become due again per second, so that a large backlog of one key does not burden others."""


@dataclass
class _Hold:
    """A refused key. `since` is when it was last refused, in milliseconds since 1970; `put_off` counts how often
    deliveries were put off for it."""

    until: float
    fingerprint: int
    since: int
    put_off: int = 0


class HeldKeys:
    """The entries of one upstream whose keys are refused. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}

    def hold(self, entry: str, fingerprint: int, now: float, since: int = 0) -> bool:
        """Notes that the key of an entry was refused, at `since` by the wall clock; returns whether that is news."""
        is_news = entry not in self._holds or self._holds[entry].fingerprint != fingerprint
        self._holds[entry] = _Hold(now + HELD_PAUSE, fingerprint, since)
        return is_news

    def wait(self, entry: str, fingerprint: int, now: float) -> float:
        """Seconds until something may be sent with this key. The first delivery after the pause gets 0 and is the
        probe: all others wait for another minute."""
        held = self._holds.get(entry)
        if held is None or held.fingerprint != fingerprint:
            return 0.0
        if held.until > now:
            return held.until - now
        self._holds[entry] = _Hold(now + HELD_PAUSE, fingerprint, held.since)
        return 0.0

    def pause(self, entry: str, wait: float) -> float:
        """Seconds for which to put off one more delivery that has to wait for so long."""
        held = self._holds.get(entry)
        if held is None:
            return min(wait, LOOK)
        held.put_off += 1
        return min(wait, LOOK + held.put_off / LOOKS_PER_SECOND)

    def entries(self, fingerprint: Callable[[str], int]) -> list[str]:
        """The entries whose current keys were refused."""
        return sorted(entry for entry, held in self._holds.items() if held.fingerprint == fingerprint(entry))

    def to_be_tried(self, now: float) -> dict[str, int]:
        """The entries whose keys are due to be tried again, each with the time of the refusal."""
        return {entry: held.since for entry, held in self._holds.items() if held.until <= now}

    def release(self, now: float) -> None:
        """Lets each key be tried at once, as the configuration has changed."""
        for held in self._holds.values():
            held.until = now

    def accepted(self, entry: str) -> bool:
        """Notes that the key of an entry was accepted; returns whether that ended a hold."""
        return self._holds.pop(entry, None) is not None
