"""Rows of latency on one connection: how long a caller waits for an answer without any other load."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from tests.benchmarks.ingest import asking, event
from tests.benchmarks.loads import Heard
from tests.benchmarks.measuring import Plan, Row, in_turns
from tests.benchmarks.places import NOWHERE, configured, gateway, passer, taker, yardstick

PAGE = bytes(4096)
SYNCS = 50


def _halves(found: list[Heard]) -> list[float]:
    """Returns the median latencies in milliseconds."""
    return [one.p50 * 1000 for one in found]


def forward(plan: Plan) -> list[Row]:
    """Measures an answer given once the upstream has accepted the alert, against a reverse proxy."""
    room = plan.room("forward")
    with taker(room) as upstream, passer(room, upstream) as proxy:
        config = configured(room, [upstream.url], more='reply = "delivered"\n')
        with gateway(config) as (_, place):
            ours, theirs = in_turns(plan.rounds, asking(place, event(), plan, 1), asking(proxy, event(), plan, 1))
        name = proxy.name
    return [
        Row(
            what="synchronous forward, one connection, p50",
            ours=_halves(ours),
            unit="ms",
            against=name,
            yardstick=_halves(theirs),
            goal="≤ 2.5",
        )
    ]


def acknowledge(plan: Plan) -> list[Row]:
    """Measures by how much an answer given once the alert is durable takes longer than (c), in fsyncs of the disk."""
    room = plan.room("acknowledge")
    with gateway(configured(room, [NOWHERE])) as (_, place), yardstick("coding", "(c)", room) as plain:
        ours, theirs, syncs = [], [], []
        for _ in range(plan.rounds):
            [one], [other] = in_turns(1, asking(place, event(), plan, 1), asking(plain, event(), plan, 1))
            ours.append(one.p50)
            theirs.append(other.p50)
            syncs.append(_sync(room))
    figures = [(one - other) / sync for one, other, sync in zip(ours, theirs, syncs, strict=True)]
    return [
        Row(
            what="durable acknowledgement, unloaded, p50",
            ours=[one * 1000 for one in ours],
            unit="ms",
            against=f"an fsync of 4 KiB: {statistics.median(syncs) * 1000:.2f} ms; (c)",
            yardstick=[one * 1000 for one in theirs],
            figures=figures,
            measure="fsync beyond (c)",
            goal="≤ 1.5 fsync beyond (c)",
        )
    ]


def _sync(room: Path) -> float:
    """Returns the median time, in seconds, of appending 4 KiB to a file and syncing it to the disk."""
    took = []
    with (room / "synced").open("ab", buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(PAGE)
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)
