"""Promise 28: a page that the primary has not accepted after `fallback.after` goes to the fallback, once, and its
resolve closes both.

The primary hangs, refuses, refuses our key, or is not there at all; each alert must arrive at the fallback exactly
once, no earlier than two seconds after it was sent. Then every alert ends and the primary heals: the end must arrive
at the fallback, and last at the primary if the page may be known there. With a primary that works nothing may arrive at
the fallback. The negative control has no fallback.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.load import CALLER_KEY, quantile
from tests.chaos.processes import UPSTREAM_KEY, Process, free_port, outbox, running
from tests.chaos.sink import Arrival, Sink, sink
from tests.chaos.verdicts import Verdict, command, parser

AFTER = 2.0
SLACK = 3.0
"""Seconds by which the last of many pages may come later than its turn."""
TROUBLES: dict[str, dict[str, Any]] = {
    "hangs": {"delay": 3600.0},
    "refuses": {"status": 400},
    "holds": {"wants": "another-key"},
    "is away": {},
    "works": {},
}
WELL = {"status": 202, "delay": 0.002, "wants": ""}


def _configuration(directory: Path, primary: str, fallback: str, *, has_fallback: bool) -> Path:
    more = f'fallback = {{ to = ["sms"], after = "{AFTER:g}s" }}\n' if has_fallback else ""
    usual = f'dialect = "ilert"\nkey = "{UPSTREAM_KEY}"\nretry = {{ first = "100ms", most = "1s" }}\ntimeout = "1s"\n'
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{directory / "gateway.db"}"\n[inbound.ilert]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n'
        f'[upstreams.oncall]\nurl = "{primary}"\n{usual}[upstreams.sms]\nurl = "{fallback}"\n{usual}'
        f'[[routes]]\nto = ["oncall"]\n{more}'
    )
    return path


@dataclass
class Night:
    """The result of one trouble: when each alert was sent, by key, what arrived where, and how many deliveries wait."""

    sent: dict[str, float]
    primary: Sequence[Arrival]
    fallback: Sequence[Arrival]
    waiting: int

    def pages(self) -> Counter[str]:
        """Returns how often each alert was paged at the fallback."""
        return Counter(one.key for one in self.fallback if one.word == "ALERT")

    def late(self) -> list[float]:
        """Returns how many seconds after it was sent each page arrived at the fallback."""
        return [one.at - self.sent[one.key] for one in self.fallback if one.word == "ALERT" and one.key in self.sent]

    def still_open(self, arrivals: Sequence[Arrival]) -> set[str]:
        """Returns the alerts that are open at an upstream: the last event that it accepted was not their end."""
        last = {one.key: one.word for one in arrivals if one.status == 202}
        return {key for key, word in last.items() if word != "RESOLVE"}


async def _say(process: Process, client: httpx.AsyncClient, word: str, key: str) -> float:
    began = time.monotonic()
    event = {"apiKey": CALLER_KEY, "eventType": word, "summary": key, "alertKey": key}
    answer = await client.post(f"{process.url}/api/events", json=event, timeout=10)
    assert answer.status_code == 202, answer.text
    return began


async def unanswered(directory: Path, trouble: str, alerts: int, *, has_fallback: bool = True) -> Night:
    """Runs one night: `alerts` alerts, with the primary in this trouble."""
    (directory / "sms").mkdir()
    (directory / "oncall").mkdir()
    keys = [f"alert-{number:04}" for number in range(alerts)]
    with sink(directory / "oncall") as primary, sink(directory / "sms") as fallback:
        primary.mood(**TROUBLES[trouble])
        url = f"http://127.0.0.1:{free_port()}" if trouble == "is away" else primary.url
        config = _configuration(directory, url, fallback.url, has_fallback=has_fallback)
        async with running(config, free_port()) as process, httpx.AsyncClient() as client:
            sent = {key: await _say(process, client, "ALERT", key) for key in keys}
            await asyncio.sleep(AFTER + SLACK)
            for key in keys:
                await _say(process, client, "RESOLVE", key)
            primary.mood(**WELL)
            if trouble != "is away":
                await process.drained(75.0)  # an upstream that is held is asked again after a minute
            await _told(fallback, len(keys) if has_fallback and trouble != "works" else 0)
            await process.terminate()
        rows = await outbox(directory / "gateway.db")
        return Night(sent, primary.arrivals(), fallback.arrivals(), sum(row.state == "waiting" for row in rows))


async def _told(fallback: Sink, count: int, within: float = 10.0) -> None:
    """Waits until `count` ends have arrived, and then a while for what should not come."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if sum(one.word == "RESOLVE" for one in fallback.arrivals()) >= count:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


def judge(trouble: str, night: Night, verdict: Verdict) -> None:
    """Adds one night to the verdict."""
    pages, late = night.pages(), night.late()
    verdict.figures |= {f"s until paged where it {trouble} (worst)": max(late)} if late else {}
    if trouble == "works":
        verdict.hold(not night.fallback, f"{len(night.fallback)} arrived at the fallback of a primary that works")
        return
    twice = sum(count > 1 for count in pages.values())
    missing = len(night.sent.keys() - pages.keys())
    verdict.hold(not missing, f"{missing} never arrived at the fallback where the primary {trouble}")
    verdict.hold(not twice, f"{twice} were paged twice where the primary {trouble}")
    verdict.hold(min(late, default=AFTER) >= AFTER, f"one was paged after {min(late, default=0):.2f} s")
    verdict.hold(quantile(late, 1.0) <= AFTER + SLACK, f"paged late: one only after {max(late, default=0):.1f} s")
    ends = Counter(one.key for one in night.fallback if one.word == "RESOLVE")
    verdict.hold(ends.keys() >= pages.keys(), f"{len(pages.keys() - ends.keys())} were never closed at the fallback")
    verdict.hold(max(ends.values(), default=1) == 1, f"an alert was closed twice where the primary {trouble}")
    for name, arrivals in (("primary", night.primary), ("fallback", night.fallback)):
        left = night.still_open(arrivals)
        verdict.hold(not left, f"{len(left)} stay open at the {name} that {trouble}, such as {sorted(left)[:1]}")
    verdict.hold(not night.waiting or trouble == "is away", f"{night.waiting} wait at the end where it {trouble}")


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    verdict = Verdict({"alerts for each": given.alerts})
    for number, trouble in enumerate(TROUBLES):
        room = directory / str(number)
        room.mkdir()
        judge(trouble, await unanswered(room, trouble, given.alerts, has_fallback=not given.control), verdict)
    return verdict


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--alerts", type=int, default=50)
    return command("unanswered pages", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
