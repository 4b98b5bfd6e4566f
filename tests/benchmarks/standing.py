"""Rows of memory and of start time: a gateway's memory idle, under load, and with many waiting deliveries."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.benchmarks.delivering import deliveries, filled
from tests.benchmarks.ingest import asking, event
from tests.benchmarks.measuring import Plan, Row, in_turns
from tests.benchmarks.places import MEASURED, NOWHERE, PATIENCE, configured, gateway, on, taker, yardstick
from tests.chaos.backlog import MANY
from tests.chaos.processes import GATEWAY, free_port
from tests.chaos.sink import ROOT

MIB = 1024
REST = 1.0
"""Seconds after which a gateway that is ready has become idle."""
WAITING = 100_000
LOADED = 5


def proportional(pid: int) -> float:
    """Returns the memory of a process in MiB: its own, and its part of what it shares with others (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("\nPss:")[1].split()[0]) / MIB


def _idle(room: Path) -> tuple[float, float]:
    """Returns the proportional and the whole resident memory of an idle gateway."""
    with gateway(configured(room, [NOWHERE])) as (process, _):
        time.sleep(REST)
        return proportional(process.pid), process.resident()


def _plain(room: Path) -> float:
    with yardstick("coding", "(c)", room) as place:
        time.sleep(REST)
        return proportional(place.pid)


def memory(plan: Plan) -> list[Row]:
    """Measures memory when idle, and its maximum under load."""
    room = plan.room("memory")
    ours, theirs = in_turns(plan.rounds, lambda: _idle(room), lambda: _plain(room))
    idle = "idle memory of `serve`"
    return [
        Row(
            what=f"{idle}, proportional",
            ours=[pss for pss, _ in ours],
            unit="MiB",
            against="(c)",
            yardstick=theirs,
            goal="≤ 40 MiB",
        ),
        Row(what=f"{idle}, resident", ours=[rss for _, rss in ours], unit="MiB", goal="≤ 40 MiB"),
        Row(what="resident memory at most, under full load with delivery", ours=[_loaded(plan, room)], unit="MiB"),
    ]


def _loaded(plan: Plan, room: Path) -> float:
    with taker(room) as upstream, gateway(configured(room, [upstream.url])) as (process, place):
        ask = asking(place, event(), plan)
        for _ in range(1 if plan.is_quick else LOADED):
            ask()
        return process.resident()


def start(plan: Plan) -> list[Row]:
    """Measures the time from exec to the first durable alert, with a new store, against (c)'s first answer."""
    room = plan.room("start")
    ours, theirs = in_turns(plan.rounds, lambda: _first_success(_serve(room)), lambda: _first_success(_code()))
    return [
        Row(
            what="exec to the first durable success",
            ours=[one * 1000 for one in ours],
            unit="ms",
            against="(c), exec to its first answer",
            yardstick=[one * 1000 for one in theirs],
            goal="≤ 200 ms",
        )
    ]


def _serve(room: Path) -> tuple[int, list[str]]:
    config, port = configured(room, [NOWHERE]), free_port()
    for made in room.glob("gateway.db*"):
        made.unlink()
    return port, [*GATEWAY, "--config", str(config), "--listen", f"127.0.0.1:{port}", "--log-level", "error"]


def _code() -> tuple[int, list[str]]:
    port = free_port()
    return port, ["-m", "tests.benchmarks.yardsticks", "coding", "--port", str(port)]


def _first_success(how: tuple[int, list[str]]) -> float:
    port, arguments = how
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{event().path}", event().body.encode(), headers, method="POST"
    )
    with on(MEASURED):
        began = time.perf_counter()
        running = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=os.environ.copy())
    try:
        while time.perf_counter() < began + PATIENCE:
            with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(asked, timeout=5) as answer:
                answer.read()
                return time.perf_counter() - began
            time.sleep(0.001)
        raise AssertionError("it accepted nothing")
    finally:
        running.kill()
        running.wait()


def backlog(plan: Plan) -> list[Row]:
    """Measures memory with many waiting deliveries: at rest, and its maximum while they go out."""
    room, count = plan.room("backlog"), 2_000 if plan.is_quick else WAITING
    with gateway(filled(room, [NOWHERE], count)) as (process, _):
        time.sleep(2 * REST)
        waiting = process.resident()
    with taker(room) as upstream, gateway(configured(room, [upstream.url], top=MANY)) as (process, place):
        deliveries(place, plan.seconds * plan.rounds)
        draining = process.resident()
    what = f"resident memory at most with {count:,} waiting deliveries"
    return [
        Row(what=what, ours=[waiting], unit="MiB", goal="≤ 64 MiB"),
        Row(what=f"{what}, going out", ours=[draining], unit="MiB", goal="≤ 64 MiB"),
    ]
