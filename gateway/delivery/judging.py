"""What an upstream's answer means for a delivery, and when to try again: pure functions, the same for every vendor.

A dialect lists only its exceptions. Randomness and the clock are passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from gateway.config.config import Retry
from gateway.dialect import Dialect
from gateway.outcome import Response

RETRIED = frozenset({408, 425, 429})
"""Statuses below 500 after which to try again."""
HOLDING = frozenset({401, 402, 403})
"""Statuses that concern the gateway and not an alert: its key, the key's permissions, payment."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; the most that a `Retry-After` is followed."""
SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?( *, *[0-9]+(\.[0-9]+)?)*")
"""A number of seconds, possibly a fraction, or several where the header was sent more than once."""

Judgement = Literal["ok", "retry", "hold", "dead"]


def judge(status: int, dialect: Dialect) -> Judgement:
    """What a status means: accepted, try again, a fault of the whole upstream, or a refusal of this content."""
    if 200 <= status < 300:
        return "ok"
    if status in dialect.outbound.verdicts:
        return dialect.outbound.verdicts[status]
    if status in HOLDING:
        return "hold"
    if status in RETRIED or status >= 500:
        return "retry"
    return "dead"


def retry_after(response: Response, now: datetime) -> float | None:
    """The pause that an upstream asks for in seconds, sent as a number or a date, at most an hour; None if it asks for
    none. Of several, the longest counts."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if SECONDS.fullmatch(text):
        return min(max(float(part) for part in text.split(",")), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return min(max((date - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def pause(retry: Retry, attempts: int, asked: float | None, random: Callable[[], float]) -> float:
    """Seconds until the next attempt: what the upstream asked for plus at most a tenth, else exponential backoff
    with full jitter. `attempts` counts those made, `random` is uniform on [0, 1)."""
    if asked is not None:
        return asked * (1 + random() / 10)
    ceiling = min(retry.first * 2.0 ** min(attempts - 1, 32), retry.most)
    return ceiling * random()
