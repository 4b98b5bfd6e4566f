"""Keeps the gateway's clock on the time that its store goes by, together with the times of what waits there. It must
not know what waits."""

from __future__ import annotations

import structlog

from gateway.clock import CLOCK_JUMP, Clock
from gateway.errors import StoreError
from gateway.store import Store

log = structlog.get_logger()
DIFFERS = (
    "this machine's clock is so many seconds off from that of the database's server, which all replicas go by; set "
    "whichever is wrong"
)


class Timekeeping:
    """Keeps one clock, from when the store is open."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock = clock
        self._store = store
        self._is_off = False
        if store.lease is not None:
            moved = store.follow()
            self._clock.follow(self._off_by(), moved)

    async def look(self) -> None:
        """Follows a clock that was set; to be called every second or so. Due times of waiting deliveries move along, as
        they mean a pause, not a time of day: so a jump neither delays deliveries nor has them given up."""
        if self._store.lease is None:
            await self._follow_own()
            return
        before, moved = self._clock.moved, self._store.follow()  # nothing may be awaited until the clock is there too
        self._clock.follow(self._clock.jump + self._off_by(), moved)
        if moved != before:
            log.warning("clock.jumped", seconds=round((moved - before) / 1000))

    async def _follow_own(self) -> None:
        """Follows this machine's clock."""
        jump = self._clock.jump
        if abs(jump) < CLOCK_JUMP:
            self._clock.follow(jump)
            return
        log.warning("clock.jumped", seconds=round(jump))
        first, then = (0.0, jump) if jump > 0 else (jump, 0.0)  # so nothing is taken for overdue or too old meanwhile
        self._clock.follow(first)
        try:
            await self._store.write(lambda tx: tx.shift_waiting(int(jump * 1000)), is_long=True)
        except StoreError:
            self._clock.follow(-first)
            raise
        self._clock.follow(then)

    def _off_by(self) -> float:
        """Seconds by which this machine's clock is behind that of the store's server, by which all replicas go: what a
        replica hours ahead had written down would be due hours later for the others, and what is over by its clock is
        not over. Nothing where they differ by little, as clocks do."""
        ahead = self._store.ahead
        is_off = abs(ahead) >= CLOCK_JUMP
        if is_off != self._is_off:
            self._is_off = is_off
            if is_off:
                log.warning("clock.differs", seconds=round(-ahead), reason=DIFFERS)
            else:
                log.info("clock.agrees")
        return ahead if is_off else 0.0
