"""The rows of the way out: how many waiting deliveries a second one process makes to one upstream that is as fast as
nginx, against aiohttp posting the same to it, as many at a time, on the same core. A delivery keeps its place until its
outcome is durable, so with few places the disk counts as well as the processor."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.benchmarks.ingest import event
from tests.benchmarks.measuring import Plan, Row, in_turns
from tests.benchmarks.places import MEASURED, Place, configured, gateway, on, taker
from tests.chaos.backlog import MANY, fill
from tests.chaos.sink import ROOT

ENOUGH = 4_000
"""Deliveries put into the store for each second of the measurement, twice as many where more go out at a time: more
than any gateway delivers here."""
CONCURRENCY, MANY_AT_ONCE = 8, 64
"""Requests in flight at once: the default of `concurrency`, and as many as a fast upstream may be given."""
LOOK_EVERY = 0.2


def waiting_and_delivered(place: Place) -> tuple[float, float]:
    """Returns how many deliveries wait, and how many were made so far."""
    with urllib.request.urlopen(place.url + "/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()

    def total(name: str, holds: str = "") -> float:
        found = (line for line in lines if line.startswith(name + "{") and holds in line)
        return sum(float(line.rpartition(" ")[2]) for line in found)

    delivered = total("alert_gateway_deliveries_total", 'outcome="delivered"')
    return total("alert_gateway_waiting_deliveries"), delivered


def deliveries(place: Place, seconds: float) -> float:
    """Returns the deliveries a second, measured until the time is over or nothing waits."""
    with place.awake():
        _, before = waiting_and_delivered(place)
        began = now = time.perf_counter()
        waits, delivered = 1.0, before
        while waits and now < began + seconds:
            time.sleep(LOOK_EVERY)
            waits, count = waiting_and_delivered(place)
            if waits or delivered == before:  # if nothing waits any more, it is unknown since when
                delivered, now = count, time.perf_counter()
    return (delivered - before) / (now - began)


def posts(to: Place, seconds: float, at_once: int) -> float:
    """Returns how many requests aiohttp posts a second, so many at a time."""
    options = ["posting", "--to", f"{to.url}/api/events", "--seconds", str(seconds), "--body", event().body]
    options += ["--at-once", str(at_once)]
    with on(MEASURED):
        running = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.yardsticks", *options], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
    said, _ = running.communicate(timeout=seconds + 60)
    return float(said)


def rows(plan: Plan) -> list[Row]:
    """Measures how fast waiting deliveries go out, by default and where the upstream takes more at a time."""
    return [_row(plan, CONCURRENCY, ""), _row(plan, MANY_AT_ONCE, f", `concurrency = {MANY_AT_ONCE}`")]


def _row(plan: Plan, at_once: int, how: str) -> Row:
    room = plan.room(f"deliver-{at_once}")
    with taker(room) as upstream:
        count = round(ENOUGH * (1 if at_once == CONCURRENCY else 2) * plan.seconds * plan.rounds)
        with gateway(filled(room, [upstream.url], count, at_once)) as (_, place):
            ours, theirs = in_turns(
                plan.rounds, lambda: deliveries(place, plan.seconds), lambda: posts(upstream, plan.seconds, at_once)
            )
        name = upstream.name
    return Row(
        what=f"deliveries from one process{how}",
        ours=ours,
        unit="/s",
        against=f"aiohttp posting to {name}",
        yardstick=theirs,
        goal="≥ 0.45",
    )


def filled(room: Path, upstreams: list[str], count: int, concurrency: int = CONCURRENCY) -> Path:
    """Returns the configuration of a gateway with `count` deliveries waiting for its first upstream."""
    config = configured(room, upstreams, top=MANY, each=f"concurrency = {concurrency}\n")
    asyncio.run(fill(config, count))
    return config
