"""When an upstream may be asked at all: its breaker, its retry budget and its rate, as pure state machines.

The breaker's clock is monotonic seconds, so that a clock that is set wrong opens and closes nothing; the bucket's is
wall-clock milliseconds, as it has to last over a restart. Nothing here knows the store, HTTP, or a vendor.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, ValidationError, convert

TRIPS_AT = 5
"""Failures in a row that open a breaker."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
"""Seconds until the first probe of one that is open; each further pause is twice as long, up to the longest."""
HELD_PAUSE = 60.0
"""Seconds between two probes of one that is held."""
RESERVE = 10.0
"""Retries that a budget can hold."""
PER_DELIVERY, PER_SECOND = 0.2, 1.0
"""Retries that a budget grows by, with each first attempt and each second."""

State = Literal["closed", "open", "held"]


class Breaker(Struct, kw_only=True):
    """Whether an upstream is asked: `closed` means yes; `open` after failures in a row, and `held` while it refuses
    our key or shows a bad certificate, mean one probe at a time, at the end of each pause.

    A probe that succeeds closes it. A restart keeps how things stood and allows one probe at once.
    """

    state: State = "closed"
    failures: int = 0
    pause: float = FIRST_PAUSE
    until: float = 0.0
    reason: str = ""

    def wait(self, now: float) -> float:
        """Seconds until anything may be sent; nothing is to be waited for where it is closed."""
        return 0.0 if self.state == "closed" else max(0.0, self.until - now)

    def failed(self, now: float, *, is_probe: bool, asked: float | None = None, reason: str = "") -> bool:
        """An attempt failed for a reason that may pass; `asked` is the pause that the upstream asked for. Answers
        whether the breaker opened with it."""
        self.failures += 1
        if self.state == "closed":
            if self.failures < TRIPS_AT:
                return False
            self.state, self.pause, self.reason = "open", FIRST_PAUSE, reason
            self.until = now + max(self.pause, asked or 0.0)
            return True
        if is_probe:
            self.pause = HELD_PAUSE if self.state == "held" else min(self.pause * 2, LONGEST_PAUSE)
            self.until = now + max(self.pause, asked or 0.0)
        return False

    def hold(self, now: float, reason: str) -> None:
        """The upstream refuses us, not an alert."""
        self.state, self.pause, self.until, self.reason = "held", HELD_PAUSE, now + HELD_PAUSE, reason

    def succeeded(self) -> bool:
        """The upstream gave a verdict. Answers whether that closed the breaker."""
        was_open = self.state != "closed"
        self.state, self.failures, self.pause, self.reason = "closed", 0, FIRST_PAUSE, ""
        return was_open

    def heard(self) -> None:
        """Another replica has got through, which may not mean that this one will: it closes, and one failure opens it
        again."""
        self.succeeded()
        self.failures = TRIPS_AT - 1

    def release(self, now: float) -> None:
        """What it was held for has changed: it may be asked at once."""
        self.until = now

    def kept(self) -> dict[str, object]:
        """What has to survive a restart."""
        return {"state": self.state, "pause": self.pause, "failures": self.failures, "reason": self.reason}


def resumed(kept: object) -> Breaker:
    """A breaker as it was kept: what was open may be probed at once."""
    try:
        return convert(kept, Breaker)
    except ValidationError:
        return Breaker()


class Budget(Struct, kw_only=True):
    """How many retries an upstream may be asked for: one for every five deliveries, and one a second. What exceeds
    it waits; it is not lost."""

    level: float = RESERVE
    at: float = 0.0

    def refill(self, now: float) -> float:
        """Brings the level up to a time, and gives it."""
        self.level = min(RESERVE, self.level + max(0.0, now - self.at) * PER_SECOND)
        self.at = now
        return self.level

    def earn(self) -> None:
        """A delivery was tried for the first time."""
        self.level = min(RESERVE, self.level + PER_DELIVERY)

    def spend(self) -> None:
        """A delivery was tried again."""
        self.level -= 1

    def kept(self, now: float, wall: int) -> dict[str, float]:
        """What has to survive a restart, with the time in milliseconds, as no other clock survives one."""
        return {"level": self.refill(now), "at": wall}


def budgeted(kept: object, now: float, wall: int) -> Budget:
    """A budget as it was kept, and what has come back since."""
    try:
        found = convert(kept, Budget)
    except ValidationError:
        return Budget(at=now)
    since = max(0.0, wall - found.at) / 1000
    return Budget(level=min(RESERVE, found.level + since * PER_SECOND), at=now)


class Bucket(Struct, kw_only=True):
    """A rate: at most `per_minute` requests in any minute, a tenth of them at once. `level` and `at` (milliseconds)
    are kept in the store, so that replicas share them and a restart does not start over."""

    per_minute: int
    level: float = 0.0
    at: int = 0

    @property
    def burst(self) -> int:
        """How many requests may go at once."""
        return max(1, self.per_minute // 10)

    @property
    def _per_ms(self) -> float:
        return max(self.per_minute - self.burst, 0.5) / 60_000

    def take(self, now: int, wanted: int) -> int:
        """Takes as many as there are, at most so many; a clock that went back neither gives nor takes."""
        since = now - self.at if self.at else 0
        if not self.at:
            self.level = float(self.burst)
        self.level = min(float(self.burst), self.level + max(0, since) * self._per_ms)
        self.at = now
        taken = min(wanted, max(0, int(self.level)))
        self.level -= taken
        return taken

    def owe(self, more: int) -> None:
        """Requests that were made beyond what was taken, or (negative) not made after all."""
        self.level -= more

    def wait(self) -> float:
        """Seconds until there is one to take."""
        return max(0.0, (1 - self.level) / self._per_ms / 1000)
