"""Which of an upstream's due deliveries are attempted next. It must not know any vendor, or SQL."""

from __future__ import annotations

from itertools import product

from gateway.config.config import Upstream
from gateway.store import DeliveryRow, Tx


class Claiming:
    """Claims the deliveries of one upstream, and divides its places between what is not sent yet and questions about
    what is: an upstream that accepts everything and confirms nothing is asked about more and more, and a new alert
    would wait behind all the questions. Under a rate questions come last altogether, by their rank."""

    def __init__(self) -> None:
        self._questions = 0

    def began(self, delivery: DeliveryRow, upstream: Upstream) -> None:
        """Counts how many more questions than other attempts began of late."""
        one = 1 if delivery.is_unconfirmed else -1
        self._questions = max(0, min(upstream.concurrency, self._questions + one))

    def claim(
        self,
        tx: Tx,
        upstream: Upstream,
        now: int,
        most: int,
        taken: frozenset[str],
        *,
        fresh: bool,
        is_probe: bool,
    ) -> list[DeliveryRow]:
        """Claims at most so many: with `fresh` no retries, as a probe rather none. If questions prevailed of late,
        what is not sent yet goes first."""
        name, ranked = upstream.name, upstream.rate is not None
        if is_probe and (rows := tx.claim(name, now, most, taken=taken, ranked=ranked, fresh=True)):
            return rows
        rows = []
        if self._questions > 0 and not is_probe:
            rows = tx.claim(name, now, most, taken=taken, ranked=ranked, fresh=fresh, unsent=True)
        if len(rows) < most:
            taken = taken.union(row.lane for row in rows)
            rows += tx.claim(name, now, most - len(rows), taken=taken, ranked=ranked, fresh=fresh)
        return rows


def any_first(tx: Tx, upstream: Upstream, now: int, most: int) -> list[DeliveryRow]:
    """Claims the first in every order in which deliveries are claimed: probes have not failed yet, and what is more
    urgent, or not sent yet, may have come since."""
    orders = product({upstream.rate is not None, False}, (False, True), (False, True))
    claimed = (tx.claim(upstream.name, now, most, ranked=one, fresh=two, unsent=three) for one, two, three in orders)
    return [row for rows in claimed for row in rows]
