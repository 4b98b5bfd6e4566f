"""When an upstream may be asked at all: its breaker, its retry budget and its rate, as pure state machines.

The breaker's clock is monotonic seconds, so that setting the system clock opens and closes nothing; the bucket's is
wall-clock milliseconds, as it has to survive a restart. It must not know the store, HTTP, or a vendor.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, ValidationError, convert

TRIPS_AT = 5
"""Consecutive failures that open a breaker."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
"""Seconds until the first probe of an open breaker; each further pause is twice as long, up to the longest."""
HELD_PAUSE = 60.0
"""Seconds between two probes of a held breaker."""
RESERVE = 10.0
"""Retries that a budget can hold."""
PER_DELIVERY, PER_SECOND = 0.2, 1.0
"""Retries that a budget gains with each first attempt, and with each second."""

State = Literal["closed", "open", "held"]


class Breaker(Struct, kw_only=True):
    """Whether an upstream is asked: `closed` means yes; `open`, after consecutive failures, and `held`, while it
    refuses our key or shows a bad certificate, mean one probe at a time, at the end of each pause.

    A probe that succeeds closes it. A restart keeps the state and allows one probe at once.
    """

    state: State = "closed"
    failures: int = 0
    pause: float = FIRST_PAUSE
    until: float = 0.0
    reason: str = ""

    def wait(self, now: float) -> float:
        """Seconds until anything may be sent; 0 while it is closed."""
        return 0.0 if self.state == "closed" else max(0.0, self.until - now)

    def failed(self, now: float, *, is_probe: bool, asked: float | None = None, reason: str = "") -> bool:
        """Notes an attempt that failed for a temporary reason; `asked` is the pause that the upstream asked for.
        Returns whether this opened the breaker."""
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
        """Notes that the upstream refuses us, not an alert."""
        self.state, self.pause, self.until, self.reason = "held", HELD_PAUSE, now + HELD_PAUSE, reason

    def succeeded(self) -> bool:
        """Notes that the upstream gave a verdict; returns whether that closed the breaker."""
        was_open = self.state != "closed"
        self.state, self.failures, self.pause, self.reason = "closed", 0, FIRST_PAUSE, ""
        return was_open

    def heard(self) -> None:
        """Closes after another replica has got through. As this one may not, a single failure opens it again."""
        self.succeeded()
        self.failures = TRIPS_AT - 1

    def release(self, now: float) -> None:
        """Allows a probe at once, as the key or the configuration has changed."""
        self.until = now

    def kept(self) -> dict[str, object]:
        """What has to survive a restart."""
        return {"state": self.state, "pause": self.pause, "failures": self.failures, "reason": self.reason}


def resumed(kept: object) -> Breaker:
    """The breaker restored from what was kept; if not closed, it may be probed at once."""
    try:
        return convert(kept, Breaker)
    except ValidationError:
        return Breaker()


class Budget(Struct, kw_only=True):
    """How many retries may be sent to an upstream: one for every five deliveries, and one a second. Retries that exceed
    it wait; they are not lost."""

    level: float = RESERVE
    at: float = 0.0

    def refill(self, now: float) -> float:
        """Adds what was gained up to a time; returns the level."""
        self.level = min(RESERVE, self.level + (now - self.at) * PER_SECOND)
        self.at = now
        return self.level

    def earn(self) -> None:
        """Adds the gain of a first attempt."""
        self.level = min(RESERVE, self.level + PER_DELIVERY)

    def spend(self) -> None:
        """Takes one retry."""
        self.level -= 1

    def kept(self, now: float, wall: int) -> dict[str, float]:
        """What has to survive a restart, with the wall-clock time in milliseconds, as the monotonic clock does not."""
        return {"level": self.refill(now), "at": wall}


def budgeted(kept: object, now: float, wall: int) -> Budget:
    """The budget restored from what was kept, with what was gained since."""
    try:
        found = convert(kept, Budget)
    except ValidationError:
        return Budget(at=now)
    since = max(0.0, wall - found.at) / 1000
    return Budget(level=min(RESERVE, found.level + since * PER_SECOND), at=now)


class Bucket(Struct, kw_only=True):
    """A rate limit: at most `per_minute` requests in any minute, a tenth of them at once. `level` and `at`
    (milliseconds) are kept in the store, so that replicas share them and a restart does not start over."""

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
        """Takes as many requests as there are, at most `wanted`; a clock set back neither adds nor removes any."""
        since = now - self.at if self.at else 0
        if not self.at:
            self.level = float(self.burst)
        self.level = min(float(self.burst), self.level + max(0, since) * self._per_ms)
        self.at = now
        taken = min(wanted, max(0, int(self.level)))
        self.level -= taken
        return taken

    def owe(self, more: int) -> None:
        """Charges requests made beyond those taken; a negative number returns those not made after all."""
        self.level -= more

    def wait(self) -> float:
        """Seconds until there is a request to take."""
        return max(0.0, (1 - self.level) / self._per_ms / 1000)
