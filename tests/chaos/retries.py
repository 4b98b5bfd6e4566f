"""Promise 6: retries by the vendor's own rules. Every call of every dialect is answered with every status, with and
without Retry-After in all its forms, over real HTTP; the outcome must be what the design says. On a virtual clock,
hours of refusals follow: retries are never earlier than was asked for, capped, and given up in the end.

    python -m tests.chaos.retries --every 1
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from gateway.canonical import Operation
from gateway.config.config import Retry, Upstream
from gateway.config.loading import parse
from gateway.delivery.attempt import Client
from gateway.delivery.judging import LONGEST_RETRY_AFTER, pause
from gateway.logs import configure
from gateway.outcome import Again, Held, Rejected, Sending
from gateway.registry import dialects
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import Chaos, chaos, say
from tests.harness import upstream_table

STATUSES = (*range(300, 452), 499, *range(500, 512), 520, 524, 529, 598, 599)
WAITS = (None, "0", "7", "3600", "99999999", "date", "past", "far", "soon", "-5", "1.5")
"""What Retry-After says: nothing, seconds, a date in 90 s, one that has passed, one in a month, and nonsense."""
READS_FIRST = frozenset({404, 409, 422})
"""Statuses that a call may want to see itself: no such alert, a version that is old, a name that is taken."""


def text_of(wait: str | None, now: datetime) -> tuple[str | None, tuple[float, float] | None]:
    """Returns the header, and between how many seconds from now it asks for the next attempt; None if for no time."""
    dates = {"date": timedelta(seconds=90), "past": timedelta(days=-3), "far": timedelta(days=30)}
    if wait in dates:
        moment = (now + dates[wait]).replace(microsecond=0)
        seconds = min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)
        return format_datetime(moment, usegmt=True), (max(0.0, seconds - 2), seconds)
    if wait is not None and wait.isdigit():
        seconds = min(float(wait), LONGEST_RETRY_AFTER)
        return wait, (seconds, seconds)
    return wait, None


def sending(operation: Operation, upstream: Upstream) -> Sending:
    """Returns a command for an alert that exists at the upstream."""
    body: dict[str, Any] = {"name": "n", "message": "m", "summary": "s", "labels": {"alertname": "n"}}
    return Sending(
        operation=operation,
        at=datetime.now(UTC),
        body=dict(body),
        patch=dict(body),
        key="key-1",
        ids={} if operation is Operation.CREATE else {"id": "7"},
        seen={"version": 1},
        settings=upstream.settings,
    )


async def _answers(upstream: Upstream, there: Chaos, every: int) -> list[str]:
    """Tests one dialect; returns what went wrong. How many answers were judged is in `there`."""
    client = Client(upstream)
    wrong = []
    try:
        for number, (operation, status, wait) in enumerate(_cases(upstream)):
            if number % every:
                continue
            now = datetime.now(UTC)
            text, expected = text_of(wait, now)
            body: dict[str, Any] | None = {} if status != 304 else None  # a 304 has no body
            there.always(say(status, body, {"retry-after": text} if text is not None else {}))
            ended = await client.run(upstream.dialect.outbound.calls[operation](sending(operation, upstream)))
            fault = _fault(upstream, status, ended.outcome, expected)
            if fault:
                wrong.append(f"{upstream.dialect.name} {operation} {status} Retry-After {wait}: {fault}")
    finally:
        await client.aclose()
    return wrong


def _cases(upstream: Upstream) -> Iterator[tuple[Operation, int, str | None]]:
    for operation in upstream.dialect.outbound.calls:
        for status in STATUSES:
            is_retried = status in (408, 425, 429) or status >= 500
            for wait in WAITS if is_retried else WAITS[:2]:
                yield operation, status, wait


def _fault(upstream: Upstream, status: int, outcome: object, expected: tuple[float, float] | None) -> str:
    """Returns what is wrong with an outcome by canonical.md, *Verdicts*. A dialect's exceptions are in its declaration,
    a 407 is a proxy's, and a redirect says nothing about the alert."""
    if 300 <= status < 400:
        return "" if isinstance(outcome, Again) else f"is {type(outcome).__name__}, not tried again"
    exception = upstream.dialect.outbound.verdicts.get(status)
    usual = "retry" if status in (408, 425, 429) or status >= 500 else "dead"
    usual = "hold" if status in (401, 402, 403, 407) else usual
    verdict = exception or usual
    if verdict == "retry":
        if not isinstance(outcome, Again):
            return f"is {type(outcome).__name__}, not tried again"
        if expected is None:
            return "" if outcome.after is None or 0 <= outcome.after <= LONGEST_RETRY_AFTER else f"asks {outcome.after}"
        least, most = expected
        is_right = outcome.after is not None and least <= outcome.after <= most
        return "" if is_right else f"waits {outcome.after}, not {least} to {most}"
    if verdict == "hold":
        return "" if isinstance(outcome, Held) else f"is {type(outcome).__name__}, not held"
    if status in READS_FIRST:
        return "held" if isinstance(outcome, Held) else ""
    return "" if isinstance(outcome, Rejected) else f"is {type(outcome).__name__}, not a dead letter"


def matrix(every: int) -> tuple[int, list[str]]:
    """Tests every case of every dialect, or every so many; returns how many there were, and what went wrong."""
    asked, wrong = 0, []
    for name in dialects():
        with chaos(say(503)) as there:
            text = f'[inbound.ilert]\nkeys = {{ ci = "k" }}\n{upstream_table("there", name, there.url)}'
            config = parse(text.replace(f'{there.url}/{name}"', f'{there.url}"'))
            wrong += asyncio.run(_answers(config.upstreams["there"], there, every))
            asked += len(there.got)
    return asked, wrong


def outages(count: int, seed: int) -> tuple[int, list[str]]:
    """Simulates `count` outages of a day each on a virtual clock; returns the attempts made, and what went wrong."""
    chance, made, wrong = random.Random(seed), 0, []
    for _ in range(count):
        retry = Retry(first=chance.uniform(0.1, 5), most=chance.uniform(5, 120))
        now, attempts = 0.0, 0
        while now <= retry.max_age:
            attempts += 1
            asked = min(chance.expovariate(1 / 300), LONGEST_RETRY_AFTER) if chance.random() < 0.3 else None
            found = pause(retry, attempts, asked, chance.random)
            if asked is not None and not asked <= found <= asked * 1.1 + 1e-6:
                wrong.append(f"asked for {asked}, waited {found}")
            if asked is None and not 0 <= found <= min(retry.first * 2 ** min(attempts - 1, 60), retry.most):
                wrong.append(f"attempt {attempts} waited {found}")
            now += found + 0.01
        made += attempts
    return made, wrong


def measure(every: int, seed: int = 1) -> Result:
    """Runs the matrix, and the outages."""
    asked, wrong = matrix(every)
    made, early = outages(max(1, 20 // every), seed)
    broken = [*wrong, *early]
    figures = {
        "dialects": len(dialects()),
        "requests": asked,
        "wrong verdicts or pauses": len(wrong),
        "attempts on a virtual clock": made,
        "too early or too late": len(early),
    }
    return Result("6", figures, broken[:5])


def main() -> int:
    """The command."""
    configure("critical")
    return measure(numbers(__doc__ or "", every=1).every).tell()


if __name__ == "__main__":
    sys.exit(main())
