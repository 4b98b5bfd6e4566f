"""Latency as people feel it: from an alert sent to its page arrived, against sending it to the vendor directly.

An open load, idle and at half of what the gateway can deliver, with and without the gateway in turns; the upstream is a
sink that records when each page came. Both are measured from the moment a request was sent, on one clock.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from tests.benchmarks.ingest import asking, event
from tests.benchmarks.measuring import Plan, shown, table
from tests.benchmarks.places import OTHERS, PATIENCE, Place, configured, gateway, on
from tests.chaos.load import Ledger, Load, Told, quantile
from tests.chaos.processes import Process
from tests.chaos.sink import Sink, sink

IDLE = 5.0
"""Alerts a second of a gateway that has next to nothing to do."""
TURNS = 3
"""How often each side is measured."""


def told(plan: Plan) -> str:
    """Returns the table: p50, p99 and the worst in milliseconds, idle and at half load."""
    room = plan.room("latency")
    with on(OTHERS), sink(room, delay=0.0) as there, gateway(configured(room, [there.url])) as (process, place):
        most = _most(plan, process, place, there)
        lines = []
        for name, rate in (("idle", IDLE), ("half load", most / 2)):
            lines += _lines(plan, place, there, name, rate)
    head = ["alert in to page out", "alerts", "p50", "p99", "worst"]
    return f"{plan.long:g} s at each load; full load is {most:,.0f} alerts a second, delivered.\n\n" + table(
        head, lines
    )


def _most(plan: Plan, process: Process, place: Place, there: Sink) -> float:
    """Returns how many alerts a second are accepted and, meanwhile, delivered at full load: the lesser of the two."""
    before = len(there.arrivals())
    found = asking(place, event(), plan)()
    arrived = len(there.arrivals()) - before
    with place.awake():
        assert asyncio.run(process.drained()), "the alerts accepted to find the full load were not delivered"
    return min(found.rate, arrived / found.seconds)


def _lines(plan: Plan, place: Place, there: Sink, name: str, rate: float) -> list[list[str]]:
    through: list[float] = []
    direct: list[float] = []
    for turn in range(TURNS):
        with place.awake():
            through += asyncio.run(_took(place.url, there, f"{name}-{turn}", rate, plan.long / TURNS))
        direct += asyncio.run(_took(there.url, there, f"{name}-{turn}-direct", rate, plan.long / TURNS))
    return [
        [f"{name}, {rate:,.0f} a second, through the gateway", str(len(through)), *_cells(through)],
        [f"{name}, to the vendor directly", str(len(direct)), *_cells(direct)],
    ]


def _cells(took: list[float]) -> list[str]:
    found = (quantile(took, 0.5), quantile(took, 0.99), max(took))
    return [f"{shown(value * 1000)} ms" for value in found]


class _Alerts(Ledger):
    """A ledger of new alerts only, with names that no other turn uses."""

    def __init__(self, turn: str) -> None:
        super().__init__()
        self._turn = turn
        self._count = itertools.count(1)

    def next(self, due: float) -> Told:
        return Told(f"{self._turn}-{next(self._count)}", "ALERT", True, due)


async def _took(url: str, there: Sink, turn: str, rate: float, seconds: float) -> list[float]:
    """Returns the seconds from sending an alert to the arrival of its page, for every alert that was acknowledged."""
    ledger, stop = _Alerts(turn), asyncio.Event()
    offering = asyncio.create_task(Load(ledger, int(url.rpartition(":")[2])).offer(rate, stop))
    await asyncio.sleep(seconds)
    stop.set()
    await offering
    sent = {one.nonce: one.sent for one in ledger.of("acknowledged")}
    assert sent, f"nothing was acknowledged at {url}"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        came = {one.summary: one.at for one in reversed(there.arrivals()) if one.summary in sent}
        if len(came) == len(sent):
            return [came[nonce] - at for nonce, at in sent.items()]
        await asyncio.sleep(0.2)
    raise AssertionError(f"{len(sent) - len(came)} of {len(sent)} acknowledged alerts did not arrive")
