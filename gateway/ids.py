"""The gateway's own ids: unique over replicas, ordered in time, and within 53 bits, so that every vendor's form of ids,
including JSON numbers, can hold them.

An id is made of milliseconds since 2026 (40 bits), the writer slot that a process leases from the store (5 bits)
and a counter (8 bits). Ids never go back: in a burst, or when the clock was set back, they use milliseconds that are
still to come.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

EPOCH_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SLOT_BITS, COUNTER_BITS = 5, 8
SLOTS = 1 << SLOT_BITS
_COUNTS = 1 << COUNTER_BITS


def made_at(number: int) -> int:
    """When an id was made, in milliseconds since 1970; never too early, but in a burst a little late."""
    return EPOCH_MS + (number >> (SLOT_BITS + COUNTER_BITS))


class MakeId(Protocol):
    """Makes an id larger than those made before and than `above`."""

    def __call__(self, above: int = 0) -> int: ...


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Ids:
    """Makes ids for one writer slot, starting above `floor`, the largest id that the store has seen. Thread safe.

    `slot` is a function where the slot may be lost to another process and replaced."""

    def __init__(self, slot: int | Callable[[], int] = 0, floor: int = 0, clock: Callable[[], int] = _wall_ms) -> None:
        if isinstance(slot, int) and not 0 <= slot < SLOTS:
            raise ValueError(f"a writer slot is between 0 and {SLOTS - 1}")
        self._slot: Callable[[], int] = (lambda: slot) if isinstance(slot, int) else slot
        self._clock = clock
        self._tick = floor >> (SLOT_BITS + COUNTER_BITS)
        self._count = _COUNTS - 1
        self._lock = threading.Lock()

    def next(self, above: int = 0) -> int:
        """A new id, larger than every id made here before and than `above`, an id from another replica, whose clock may
        be ahead."""
        with self._lock:
            now = self._clock() - EPOCH_MS
            if now > self._tick:
                self._tick, self._count = now, 0
            elif self._count + 1 < _COUNTS:
                self._count += 1
            else:
                self._tick, self._count = self._tick + 1, 0
            made = self._last()
            if made <= above:
                self._tick, self._count = (above >> (SLOT_BITS + COUNTER_BITS)) + 1, 0
                made = self._last()
            return made

    def _last(self) -> int:
        return (self._tick << (SLOT_BITS + COUNTER_BITS)) | (self._slot() << COUNTER_BITS) | self._count
