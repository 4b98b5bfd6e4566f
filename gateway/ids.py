"""Ids of the gateway's own: unique over replicas, ordered in time, within 53 bits so that every vendor's id form,
JSON numbers included, can carry them.

An id is made of milliseconds since 2026 (40 bits), the writer slot that a process leases from the store (5 bits)
and a counter (8 bits). It never goes back with the clock: a burst, or a clock that was set back, borrows from the
milliseconds to come.
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
    """When an id was made, in milliseconds since 1970: never earlier than that, in a burst a little later."""
    return EPOCH_MS + (number >> (SLOT_BITS + COUNTER_BITS))


class MakeId(Protocol):
    """Makes an id larger than those made before and than `above`."""

    def __call__(self, above: int = 0) -> int: ...


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Ids:
    """Makes ids for one writer slot, starting above `floor`, the largest that the store has seen. Thread safe.

    A slot that may be lost to another process, and replaced, is given as a function."""

    def __init__(self, slot: int | Callable[[], int] = 0, floor: int = 0, clock: Callable[[], int] = _wall_ms) -> None:
        if isinstance(slot, int) and not 0 <= slot < SLOTS:
            raise ValueError(f"a writer slot is between 0 and {SLOTS - 1}")
        self._slot: Callable[[], int] = (lambda: slot) if isinstance(slot, int) else slot
        self._clock = clock
        self._tick = floor >> (SLOT_BITS + COUNTER_BITS)
        self._count = _COUNTS - 1
        self._lock = threading.Lock()

    def next(self, above: int = 0) -> int:
        """A new id, larger than every id made here before, and than `above`: one that another replica made, whose
        clock may be ahead."""
        with self._lock:
            now = self._clock() - EPOCH_MS
            if now > self._tick:
                self._tick, self._count = now, 0
            elif self._count + 1 < _COUNTS:
                self._count += 1
            else:
                self._tick, self._count = self._tick + 1, 0
            if self._last() <= above:
                self._tick, self._count = (above >> (SLOT_BITS + COUNTER_BITS)) + 1, 0
            return self._last()

    def _last(self) -> int:
        return (self._tick << (SLOT_BITS + COUNTER_BITS)) | (self._slot() << COUNTER_BITS) | self._count
