"""An attempt that is over, and its row in the store. It must not know any vendor."""

from __future__ import annotations

from msgspec import Struct

from gateway.config.config import Upstream
from gateway.delivery.attempt import Ended
from gateway.road.settling import Verdict
from gateway.store import AttemptRow, DeliveryRow


class Over(Struct, frozen=True):
    """An attempt that is over: with what settings it was made, how it ended (None if nothing was to be sent), when it
    began, in milliseconds since 1970, and how many seconds it took."""

    upstream: Upstream
    ended: Ended | None
    started: int
    took: float

    @property
    def requests(self) -> int:
        """How many requests it took."""
        return self.ended.requests if self.ended else 0

    def row(self, delivery: DeliveryRow, number: int, verdict: Verdict, code: str) -> AttemptRow:
        """The row of it, under this number, with what it came to."""
        return AttemptRow(
            delivery=delivery.id,
            number=number,
            at=self.started,
            took=int(self.took * 1000),
            status=delivery.status,
            outcome=verdict.state,
            reason=verdict.reason,
            code=code,
        )
