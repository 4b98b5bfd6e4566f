"""The time by which all replicas of a store in PostgreSQL go, though the clock of its server may be set while they run.

*Steady time* is what the server's clock says, less all that it was noticed to have jumped. Leases, and the due times of
what waits, are stored in steady time: so a jump makes nothing overdue and delays nothing, whichever replica notices it,
and whenever the others do; no row has to be moved. By how much the clock has jumped is a note in the store, changed
under a lock, so that a jump which all replicas see counts once. It must not know what is stored.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

from msgspec import Struct, convert

from gateway.clock import CLOCK_JUMP, uptime

NOTE = "clock"
"""The name of the note, and of its lock; also the hint that asks the other replicas to look at the clock."""


class Shared(Struct, frozen=True, kw_only=True):
    """The note: the sum of all jumps, in seconds, and the server's time when a replica last agreed to that, and
    which."""

    jumps: float
    seen: float
    by: str


class Seen(NamedTuple):
    """A look at the server's clock: by how many seconds it is ahead of `uptime`, and the sum of its jumps."""

    there: float
    jumps: float

    @property
    def steady(self) -> float:
        """By how many seconds steady time is ahead of `uptime`."""
        return self.there - self.jumps


class Asked(Protocol):
    """What is needed of a transaction."""

    def lock(self, *names: str) -> bool: ...
    def note(self, name: str) -> Any: ...
    def put_note(self, name: str, value: Any) -> None: ...
    def tell(self, text: str) -> None: ...
    def clock(self) -> float: ...
    def is_slot_held(self, at: float) -> bool: ...
    def shift_waiting(self, by: int) -> None: ...


class SteadyClock:
    """The clock of one replica, called `owner`. What its looks find is taken by `take`, and followed only by
    `follow`: times of what waits are converted by what was followed, as the gateway's own clock moves together with
    that."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._latest = self._followed = Seen(time.time() - uptime(), 0.0)

    def __call__(self) -> float:
        """Steady time, in seconds since 1970."""
        return uptime() + self._latest.steady

    @property
    def shift(self) -> int:
        """Milliseconds by which the gateway's clock is ahead of steady time."""
        return round(self._followed.jumps * 1000)

    @property
    def ahead(self) -> float:
        """Seconds by which the server's clock was ahead of this machine's when it was followed."""
        return self._followed.there - (time.time() - uptime())

    def take(self, seen: Seen) -> float:
        """Goes by this look from now on; returns by how many seconds steady time was ahead of it, as it may be where
        this process stood still or the server was replaced."""
        was, self._latest = self._latest, seen
        return was.steady - seen.steady

    def follow(self) -> int:
        """Follows the latest look; returns `shift`."""
        self._followed = self._latest
        return self.shift

    def join(self, tx: Asked, *, may_wait: bool) -> Seen | float:
        """The first look. This replica has not seen the clock run, so it cannot tell a jump from a time in which no
        gateway ran. Where it may be either, the others are asked to look, if it `may_wait` and any may be there; what
        is returned then is when one has looked last. Where there is none, only a clock that was set back is known to
        have been set. A tool, which has no `owner` and only reads, notes nothing and asks nobody."""
        tx.lock(NOTE)
        shared = _shared(tx)
        there, at = self._asked(tx)
        if shared is not None and abs(at - shared.seen) < CLOCK_JUMP:
            return Seen(there, shared.jumps)
        if shared is not None and may_wait and tx.is_slot_held(shared.seen - shared.jumps):
            tx.tell(NOTE)
            return shared.seen
        jumps = shared.jumps + min(0.0, at - shared.seen) if shared else 0.0
        if self._owner:
            tx.put_note(NOTE, Shared(jumps=jumps, seen=at, by=self._owner))
        return Seen(there, jumps)

    def look(self, tx: Asked) -> Seen:
        """A look at the clock, in which a jump that nobody has noticed yet is added to the note."""
        tx.lock(NOTE)
        shared = _shared(tx)
        there, at = self._asked(tx)
        jump = there - self._latest.there
        has_jumped = abs(jump) >= CLOCK_JUMP
        jumps = self._latest.jumps + (jump if has_jumped else 0.0)
        if shared is not None:
            agrees = abs(jumps - shared.jumps) < CLOCK_JUMP
            is_confirmed = shared.by != self._owner and abs(at - shared.seen) < CLOCK_JUMP
            if not agrees and not is_confirmed and not has_jumped:
                return self._latest  # another server answered, whose clock is not set yet
            if agrees or is_confirmed:  # by others, who see the clock run on: then it was this process that stood still
                jumps = shared.jumps
        tx.put_note(NOTE, Shared(jumps=jumps, seen=at, by=self._owner))
        if shared is not None and jumps != shared.jumps:
            tx.tell(NOTE)
        return Seen(there, jumps)

    def leave(self, tx: Asked) -> None:
        """Stores what waits by the server's clock again where nobody is left who goes by another time: a release that
        does not know of jumps would take it for older than it is, or leave it waiting for as long as they were."""
        tx.lock(NOTE)
        shared = _shared(tx)
        if shared is None or not shared.jumps:
            return
        at = tx.clock()
        if not tx.is_slot_held(at - shared.jumps):
            tx.shift_waiting(round(shared.jumps * 1000))
            tx.put_note(NOTE, Shared(jumps=0.0, seen=at, by=self._owner))

    def _asked(self, tx: Asked) -> tuple[float, float]:
        """By how many seconds the server's clock is ahead of `uptime`, and what it says. The server looked at it at
        some time before its answer came: as long as what was known may still hold, it does, so that neither a slow
        answer nor a process that stood still is taken for a clock that was set."""
        before = uptime()
        at = tx.clock()
        return max(at - uptime(), min(at - before, self._latest.there)), at


def _shared(tx: Asked) -> Shared | None:
    found = tx.note(NOTE)
    return None if found is None else convert(found, Shared)
