"""Promise 31: what a gateway holds does not grow with time: memory, open files, threads, the store and its log.

Callers of five dialects ask at a steady rate; two thirds go on to several upstreams of other dialects, for which a
second gateway stands in that forwards nothing. That one is stopped now and then, for longer than anybody waits for an
answer; the first is told to load its configuration again. What ended is forgotten after `--retention` seconds, so that
the stores should be level from then on. Both gateways are measured every few seconds, and what they hold at the end is
compared with what they held once everything had been forgotten for the first time. The stand-in forgets later: it is
asked about receipts.

A run that says something takes hours: `python -m tests.chaos.soak --minutes 180`. The negative control is a program
that reads the first gateway's store in one transaction for as long as the run lasts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import signal
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx

from gateway.store.sqlite import LONGEST_LOG
from tests.chaos.processes import free_port, outbox, running
from tests.chaos.replicated import outbox as outbox_of_database
from tests.chaos.soaking import DIALECTS, KEY, Asked, Callers
from tests.chaos.verdicts import Verdict, command, parser
from tests.postgres_server import shared

INBOUNDS = "".join(f'[inbound.{name}]\nkeys = {{ soak = "{KEY}" }}\n' for name in DIALECTS)
ROUTES = """
[[routes]]
when = ["severity <= 2"]
to = ["pagerduty", "opsgenie", "ilert"]
[[routes]]
from = ["uptinio"]
to = ["uptinio", "pagerduty"]
[[routes]]
from = ["alertmanager"]
to = ["alertmanager", "opsgenie"]
[[routes]]
to = ["opsgenie"]
fallback = { to = ["ilert"], after = "2s" }
"""
NOWHERE = '[[routes]]\nto = []\nbecause = "soak"\n'
MEMORY, FILES, SHARE = 8.0, 32, 0.25
"""MiB and open files that may be held more at the end, and the share by which a store may have grown."""
PRAGMAS = ("page_count", "freelist_count", "page_size")
FULL = 4500
"""Requests after which as many alerts are open as ever will be: until then the stores grow."""
LOG = 8 * LONGEST_LOG / 2**20
"""MiB that a write-ahead log may have: it grows while a list is read, and while the other gateway stands still."""


class Held(NamedTuple):
    """What a gateway holds at one time: MiB of memory, open files, threads, MiB used of its store, and of the store's
    log."""

    memory: float
    files: int
    threads: int
    store: float = 0.0
    log: float = 0.0


@dataclass
class Watched:
    """A gateway that is measured; `store` is the file of its store, if it has one."""

    name: str
    pid: int
    store: Path | None
    seen: list[Held] = field(default_factory=list)

    def look(self) -> None:
        """Measures once."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        memory, threads = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmRSS", "Threads"))
        files = len(os.listdir(f"/proc/{self.pid}/fd"))
        sizes = [_used(self.store), _size(self.store.with_name(f"{self.store.name}-wal"))] if self.store else []
        self.seen.append(Held(memory / 1024, files, threads, *sizes))


def _size(path: Path) -> float:
    return path.stat().st_size / 2**20 if path.exists() else 0.0


def _used(store: Path) -> float:
    """The MiB of a store without its free pages: the file never shrinks, so it is as large as the store ever was."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5)) as reader:
        pages, free, size = (int(reader.execute(f"PRAGMA {name}").fetchone()[0]) for name in PRAGMAS)
    return (pages - free) * size / 2**20


def judge(name: str, seen: Sequence[Held], verdict: Verdict) -> None:
    """Compares the last tenth of what was seen with the first, each by its median."""
    tenth = max(1, len(seen) // 10)
    first, last = _middle(seen[:tenth]), _middle(seen[-tenth:])
    more, longest = last.memory - first.memory, max(held.log for held in seen)
    verdict.figures |= {f"MiB held by the {name}": last.memory, f"MiB more held by the {name} than at first": more}
    verdict.figures |= {f"files open in the {name}": last.files, f"MiB used of the {name}'s store": last.store}
    verdict.figures |= {f"MiB of the {name}'s log at most": longest}
    verdict.hold(more <= MEMORY, f"the {name} holds {more:.1f} MiB more")
    verdict.hold(last.files - first.files <= FILES, f"the {name} has {last.files - first.files:g} more files open")
    verdict.hold(last.threads <= first.threads, f"the {name} has {last.threads - first.threads:g} more threads")
    verdict.hold(last.store <= first.store * (1 + SHARE), f"the store of the {name} grew to {last.store:.1f} MiB")
    verdict.hold(longest <= LOG, f"the log of the {name} grew to {longest:.1f} MiB")


def _middle(seen: Sequence[Held]) -> Held:
    return Held(*(statistics.median(column) for column in zip(*seen, strict=True)))


class Soak:
    """One run against the gateway at `url`."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._callers = Callers(seed)
        self._under_way: set[asyncio.Task[None]] = set()
        self.answers: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    async def go_on(self, plan: Plan, both: Sequence[Watched]) -> None:
        """Asks, measures and disturbs both gateways until the time is over."""
        gateway, vendors = both
        beside = [_measured(both, plan), _disturbed(gateway.pid, vendors.pid, plan)]
        tasks = [asyncio.create_task(one) for one in beside]
        await self._ask(plan.rate, time.monotonic() + plan.seconds)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _ask(self, rate: float, until: float) -> None:
        """Asks at a steady rate, whatever becomes of the earlier requests."""
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=100)) as client:
            due = time.monotonic()
            while due < until:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(self._one(client, self._callers.next()))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                due += 1 / rate
            await asyncio.gather(*self._under_way)

    async def _one(self, client: httpx.AsyncClient, asked: Asked) -> None:
        try:
            answer = await client.request(
                asked.method, self._url + asked.path, content=asked.content(), headers=asked.headers
            )
        except httpx.HTTPError as error:
            self.failed[type(error).__name__] += 1
            return
        self.answers[f"{answer.status_code // 100}xx"] += 1
        if answer.status_code >= 500:
            self.failed[f"{answer.status_code} {asked.method} {asked.path}: {answer.text[:100]}"] += 1
        elif answer.status_code < 300:
            self._callers.heard(asked, answer.content)


@dataclass(frozen=True)
class Plan:
    """How many seconds a run takes, and its first part that is not judged; how many requests there are a second; after
    how many seconds gateways forget what ended; and for how long the vendors are stopped, in turns, every `pause`."""

    seconds: float
    warm: float
    rate: float = 25.0
    retention: float = 120.0
    pause: float = 100.0
    stalls: Sequence[float] = (3.0, 15.0, 40.0)


async def soak(directory: Path, plan: Plan, *, database: str = "", is_read: bool = False, seed: int = 1) -> Verdict:
    """Soaks as planned; the store is `database`, or a file. With `is_read` somebody reads that file all the time."""
    others, ours = directory / "vendors", directory / "gateway"
    for place in (others, ours):
        place.mkdir()
    own, theirs, ports = ours / "gateway.db", others / "gateway.db", (free_port(), free_port())
    standing_in = _configuration(others, f"sqlite://{theirs}", 3 * plan.retention, NOWHERE)
    async with running(standing_in, ports[0]) as vendors:
        text = "".join(_upstream(name, vendors.url) for name in DIALECTS) + ROUTES
        config = _configuration(ours, database or f"sqlite://{own}", plan.retention, text)
        async with running(config, ports[1]) as process:
            both = [Watched("gateway", process.pid, None if database else own)]
            both.append(Watched("stand-in", vendors.pid, theirs))
            run = Soak(process.url, seed)
            with _read_all_the_time(own) if is_read else contextlib.nullcontext():
                await run.go_on(plan, both)
            drained = await process.drained(every=1.0)
            status = await process.terminate()
    verdict = Verdict({"minutes": plan.seconds / 60, **run.answers})
    for one in both:
        judge(one.name, one.seen, verdict)
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(not status, f"it exited with {status}")
    verdict.hold(not run.failed, f"{run.failed.total()} requests failed, such as {next(iter(run.failed), '')}")
    await (outbox_of_database(database) if database else outbox(own))  # whose ledger has to add up
    return verdict


def _configuration(directory: Path, store: str, retention: float, rest: str) -> Path:
    path = directory / "gateway.toml"
    top = f'store = "{store}"\nretention = "{retention:g}s"\nreply_timeout = "2s"\n'
    path.write_text(top + INBOUNDS + rest)
    return path


def _upstream(name: str, url: str) -> str:
    return f'[upstreams.{name}]\ndialect = "{name}"\nurl = "{url}/{name}"\nkey = "{KEY}"\ntimeout = "2s"\n'


async def _measured(both: Sequence[Watched], plan: Plan) -> None:
    """Measures a few hundred times, until it is cancelled."""
    await asyncio.sleep(plan.warm)
    while True:
        for one in both:
            one.look()
        await asyncio.sleep(max(0.2, min(5.0, (plan.seconds - plan.warm) / 300)))


async def _disturbed(gateway: int, vendors: int, plan: Plan) -> None:
    """Lets the gateway load its configuration again and stops the vendors, until it is cancelled."""
    for stall in itertools.cycle(plan.stalls):
        await asyncio.sleep(plan.pause)
        os.kill(gateway, signal.SIGHUP)
        os.kill(vendors, signal.SIGSTOP)
        try:
            await asyncio.sleep(stall)
        finally:
            os.kill(vendors, signal.SIGCONT)


@contextlib.contextmanager
def _read_all_the_time(store: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(store)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM alerts").fetchone()
        yield


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    seconds = given.minutes * 60
    warm = min(seconds / 4, max(5 * given.retention, FULL / given.rate) + 60)
    plan = Plan(seconds, warm, given.rate, given.retention)
    database = shared().database() if given.store == "postgresql" else ""
    return await soak(directory, plan, database=database, is_read=given.control, seed=given.seed)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=180.0)
    arguments.add_argument("--rate", type=float, default=25.0, help="requests a second")
    arguments.add_argument("--retention", type=float, default=120.0, help="seconds after which what ended is forgotten")
    arguments.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    return command("soak", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
