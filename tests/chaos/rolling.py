"""Promises 16 and 30: replicas are restarted one after the other, and workers too, and no caller notices.

A keep-alive load through a balancer over two replicas; each gets SIGTERM in turn, is waited for and started again.
Then `serve --workers 2` behind one address: each worker gets SIGTERM in turn and is replaced, and at the end their
supervisor gets it. Nothing may be refused or reset before a drain ends, and a process must be gone within 25 s. Then
the senders' ledger, the store, the sink and the gateway's own report are compared.

The full figure: `python -m tests.chaos.rolling --times 10`. The negative control is SIGKILL in the place of SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.accounts import account
from tests.chaos.drain import EXITS_WITHIN, LISTENS_FOR
from tests.chaos.processes import CONCURRENCY, GATEWAY
from tests.chaos.replicated import Balanced, Replica, Steps, inversions, judge_ledger, judge_store, outbox, until
from tests.chaos.sink import Sink, sink
from tests.chaos.verdicts import Verdict, command, parser
from tests.postgres_server import shared

WORKERS = 2


@dataclass
class _Run:
    """A load and its results. `ended` lists when each port was told to drain."""

    ledger: Steps = field(default_factory=Steps)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: list[tuple[float, int]] = field(default_factory=list)
    crashes: list[float] = field(default_factory=list)
    exits: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def end(self, replica: Replica, *, kills: bool) -> None:
        """Sends SIGTERM, or SIGKILL if it `kills`; waits until the process is gone."""
        began = time.monotonic()
        self.ended.append((began, replica.port))
        if kills:
            replica.process.kill()
            self.crashes.append(began)
            return
        self.statuses.append(await replica.process.terminate(EXITS_WITHIN + 5))
        self.exits.append(time.monotonic() - began)

    def refused(self, load: Balanced) -> int:
        """Returns how many connections were refused at a port that still had to listen."""
        return sum(
            not any(began + LISTENS_FOR <= at and port == where for began, where in self.ended)
            for at, port in load.refusals
        )

    async def judge(self, verdict: Verdict, load: Balanced, url: str, upstream: Sink, last: Replica) -> None:
        """Compares ledger, store, sink and report; adds the result to a verdict."""
        rows, arrived = await outbox(url), upstream.arrivals()
        account(self.ledger, arrived, rows, self.crashes).judge(verdict, 2 * CONCURRENCY)
        refused, reset = self.refused(load), len(self.ledger.of("unknown"))
        slowest = max(self.exits, default=0.0)
        verdict.figures |= {"refused": refused, "reset": reset, "s to exit (worst)": slowest}
        verdict.hold(not refused, f"{refused} connections were refused while a gateway should listen")
        verdict.hold(not reset, f"{reset} requests were sent and got no answer")
        told = {one.status for one in self.ledger.of("refused")}
        verdict.hold(not told, f"{len(self.ledger.of('refused'))} requests were answered {told}")
        verdict.hold(not inversions(arrived), f"{inversions(arrived)} lanes went out of order")
        verdict.hold(slowest <= EXITS_WITHIN, f"it took more than {EXITS_WITHIN:g} s to exit")
        verdict.hold(not any(self.statuses), f"they exited with {self.statuses}")
        judge_store(verdict, self.ledger, rows)
        await judge_ledger(verdict, last, rows)


async def rolling(directory: Path, times: int, *, rate: float = 60.0, kills: bool = False) -> Verdict:
    """Restarts one replica after the other, `times` restarts in all."""
    url, run = shared().database(), _Run()
    with sink(directory, delay=0.01) as upstream:
        both = [Replica(directory, number, url, upstream.url).start() for number in range(2)]
        load = Balanced(run.ledger, [one.port for one in both], most=32)
        try:
            for one in both:
                await one.process.ready()
            loading = asyncio.create_task(load.run(rate, run.stop))
            await asyncio.sleep(1.0)
            for number in range(times):
                one = both[number % 2]
                await run.end(one, kills=kills)
                await one.start().process.ready()
                await asyncio.sleep(0.5)
            run.stop.set()
            await loading
            drained = await both[0].process.drained(within=40)
        finally:
            for one in both:
                one.process.kill()
        verdict = Verdict({"restarts": times})
        await run.judge(verdict, load, url, upstream, both[0])
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(not run.ledger.untaken, f"{run.ledger.untaken} found no listener")
    return verdict


def _workers(supervisor: int) -> list[int]:
    found = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(one) for one in found]


async def workers(directory: Path, times: int, *, rate: float = 60.0, kills: bool = False) -> Verdict:
    """Ends one worker after the other, `times` in all, and then their supervisor, still under load."""
    url, run = shared().database(), _Run()
    with sink(directory, delay=0.01) as upstream:
        program = (*GATEWAY, "--workers", str(WORKERS))
        whole = Replica(directory, 0, url, upstream.url, program=program).start()
        load = Balanced(run.ledger, [whole.port], most=32)
        try:
            await whole.process.ready()
            loading = asyncio.create_task(load.run(rate, run.stop))
            await asyncio.sleep(1.0)
            for number in range(times):
                await _replace(run, whole.process.pid, number % WORKERS, kills=kills)
                await asyncio.sleep(1.5)
            await run.end(whole, kills=kills)
            run.stop.set()
            await loading
            whole = Replica(directory, 1, url, upstream.url).start()
            await whole.process.ready()
            drained = await whole.process.drained(within=40)
        finally:
            whole.process.kill()
        verdict = Verdict({"workers ended": times})
        await run.judge(verdict, load, url, upstream, whole)
    verdict.hold(drained, "the outbox did not drain")
    return verdict


async def _replace(run: _Run, supervisor: int, which: int, *, kills: bool) -> None:
    """Ends one worker and waits until another is there in its place."""
    before = _workers(supervisor)
    one, began = before[which % len(before)], time.monotonic()
    os.kill(one, signal.SIGKILL if kills else signal.SIGTERM)
    if kills:
        run.crashes.append(began)
    await until(lambda: one not in _workers(supervisor), EXITS_WITHIN + 5)
    run.exits.append(time.monotonic() - began)
    await until(lambda: len(_workers(supervisor)) == WORKERS, 10)


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    verdict = Verdict()
    for name, harness in (("replicas", rolling), ("workers", workers)):
        place = directory / name
        place.mkdir()
        found = await harness(place, given.times, rate=given.rate, kills=given.control)
        verdict.figures |= {f"{what} ({name})": value for what, value in found.figures.items()}
        verdict.broken += [f"{name}: {text}" for text in found.broken]
    return verdict


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--times", type=int, default=10)
    arguments.add_argument("--rate", type=float, default=60.0)
    return command("rolling", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
