"""Promises 15 and 30: PostgreSQL killed and started again, frozen, or replaced by its promoted standby, under load.

Two gateways under an open-loop load through a balancer. `restart`: SIGKILL for all of the server, then it starts again.
`freeze`: it answers nothing and refuses nothing for six seconds. `promote`: the standby is away for a while (then
nothing may be acknowledged), the server is killed, the standby comes back and is promoted. `beside`: the standby is
promoted while the old server is frozen, which then goes on and accepts commits as if nothing had happened; what is
acknowledged from then on has to be on the new one. Healthy means that both gateways are ready and acknowledge again.
Then the senders' ledger, the store, the sink and the gateway's own report are compared.

A 503 says that nothing was kept or that this is not known: it counts neither as acknowledged nor as refused. The full
figure: `python -m tests.chaos.failover --times 3`, and once more with `--last beside`. The negative control promotes a
standby for which no commit waited.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from tests.chaos.accounts import account
from tests.chaos.processes import CONCURRENCY
from tests.chaos.replicated import (
    Balanced,
    Replica,
    Steps,
    inversions,
    judge_ledger,
    judge_store,
    outbox,
    status,
    until,
)
from tests.chaos.sink import sink
from tests.chaos.verdicts import Verdict, command, parser
from tests.postgres_server import Server

HEALTHY = 10.0
"""Seconds after which all has to be well again."""
FROZEN = 6.0
SILENT = 2.0
"""Seconds that the standby is away before the server is killed."""
FAULTS = ("restart", "freeze", "promote", "beside")
LAST = FAULTS[2:]


@dataclass
class _Run:
    """Servers and gateways, and the results so far. `current` is the server that takes writes."""

    current: Server
    standby: Server | None
    ledger: Steps
    replicas: list[Replica]
    crashes: list[float] = field(default_factory=list)
    healthy: list[float] = field(default_factory=list)
    unready: list[float] = field(default_factory=list)
    without_it: int = 0

    async def restart(self) -> None:
        """Kills the server and starts it again."""
        self.crashes.append(time.monotonic())
        self.current.kill()
        self.unready.append(await self._until_all(503, 20.0) - self.crashes[-1])
        await asyncio.to_thread(self.current.start)
        await self._well_again()

    async def freeze(self) -> None:
        """Freezes the server for a while."""
        self.crashes.append(time.monotonic())
        self.current.freeze()
        self.unready.append(await self._until_all(503, 20.0) - self.crashes[-1])
        await asyncio.sleep(max(0.0, self.crashes[-1] + FROZEN - time.monotonic()))
        self.current.thaw()
        await self._well_again()

    async def promote(self) -> None:
        """Kills the server and promotes the standby, which was away before."""
        assert self.standby is not None
        await asyncio.to_thread(self.standby.kill)
        await asyncio.sleep(0.1)  # commits under way may still be acknowledged
        before = self.ledger.acknowledged()
        await asyncio.sleep(SILENT)
        self.without_it += self.ledger.acknowledged() - before
        self.crashes.append(time.monotonic())
        await asyncio.to_thread(self.current.kill)
        await asyncio.to_thread(self.standby.start)
        self.current = self.standby
        await asyncio.to_thread(self.standby.run, "pg_ctl", "promote", "-D", self.standby.data)
        await self._well_again()

    async def beside(self) -> None:
        """Promotes the standby while the old server is frozen, and then lets that go on."""
        assert self.standby is not None
        self.crashes.append(time.monotonic())
        before, self.current = self.current, self.standby
        before.freeze()
        await asyncio.to_thread(self.standby.run, "pg_ctl", "promote", "-D", self.standby.data)
        _wait_for(self.standby, "")
        await self._well_again()
        before.thaw()
        _wait_for(before, "")  # so that it accepts commits too
        await asyncio.sleep(SILENT)
        await self._well_again()

    async def _well_again(self) -> None:
        """Waits until both are ready and more is acknowledged."""
        since, before = time.monotonic(), self.ledger.acknowledged()
        await self._until_all(200, 3 * HEALTHY)
        await until(lambda: self.ledger.acknowledged() >= before + 10, 3 * HEALTHY, 0.02)
        self.healthy.append(time.monotonic() - since)
        self.crashes.append(time.monotonic())  # what was under way when the store was down is repeated until here

    async def _until_all(self, wanted: int, within: float) -> float:
        """Waits until readiness has the status `wanted` at all gateways; returns when, or infinity if not in time."""
        end = time.monotonic() + within
        async with httpx.AsyncClient(timeout=3) as client:
            while time.monotonic() < end:
                if all([await status(client, one.port) == wanted for one in self.replicas]):
                    return time.monotonic()
                await asyncio.sleep(0.05)
        return float("inf")


def _with_standby(*, waits: bool) -> tuple[Server, Server]:
    """Starts a server and its standby; with `waits`, a commit waits for both."""
    server = Server().make()
    standby = server.copy()
    _wait_for(server, "*" if waits else "")
    return server, standby


def _wait_for(server: Server, names: str) -> None:
    """Makes a server's commits wait for standbys of these names."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        connection.execute(b"SELECT pg_reload_conf()")


async def failover(directory: Path, faults: Sequence[str], *, rate: float = 30.0, waits: bool = True) -> Verdict:
    """Causes one fault after the other; a promotion comes last, as there is one standby. With `waits`, commits wait for
    that."""
    has_standby = not set(LAST).isdisjoint(faults)
    server, standby = await asyncio.to_thread(lambda: _with_standby(waits=waits) if has_standby else _alone())
    ledger, stop = Steps(), asyncio.Event()
    url = server.database()
    name = url.rpartition("/")[2]
    if standby is not None:
        hosts = [f"127.0.0.1:{one.port}" for one in (standby, server)]
        if "beside" in faults:  # the server that must not be used comes first
            hosts.reverse()
        url = url.replace(f"127.0.0.1:{server.port}", ",".join(hosts))
    try:
        with sink(directory, delay=0.01) as upstream:
            both = [Replica(directory, number, url, upstream.url).start() for number in range(2)]
            run = _Run(server, standby, ledger, both)
            try:
                for one in both:
                    await one.process.ready()
                loading = asyncio.create_task(Balanced(ledger, [one.port for one in both]).run(rate, stop))
                await asyncio.sleep(1.0)
                for fault in faults:
                    await getattr(run, fault)()
                    await asyncio.sleep(0.5)
                stop.set()
                await loading
                drained = await both[0].process.drained(within=30)
                statuses = await asyncio.gather(*(one.process.terminate() for one in both))
            finally:
                for one in both:
                    one.process.kill()
            verdict = Verdict({name: list(faults).count(name) for name in FAULTS if name in faults})
            doubted = ledger.doubt()
            rows, arrived = await outbox(run.current.url(name)), upstream.arrivals()
            account(ledger, arrived, rows, run.crashes).judge(verdict, 2 * CONCURRENCY)
            _judge(verdict, run, doubted, waits=waits)
            verdict.hold(not inversions(arrived), f"{inversions(arrived)} lanes went out of order")
            judge_store(verdict, ledger, rows)
            await judge_ledger(verdict, both[0], rows)
    finally:
        for each in (server, standby):
            if each is not None:
                await asyncio.to_thread(each.close)
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(not any(statuses), f"they exited with {statuses}")
    return verdict


def _alone() -> tuple[Server, Server | None]:
    return Server().make(), None


def _judge(verdict: Verdict, run: _Run, doubted: int, *, waits: bool) -> None:
    worst = max(run.healthy, default=0.0)
    verdict.figures |= {"answered 503": doubted, "s until healthy (worst)": worst}
    if run.unready:
        verdict.figures["s until not ready (worst)"] = max(run.unready)
    if run.standby is not None:
        verdict.figures["acknowledged while the standby was away"] = run.without_it
        verdict.hold(not waits or not run.without_it, "something was acknowledged that the standby did not have")
    verdict.hold(worst <= HEALTHY, f"not healthy again within {HEALTHY:g} s")


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    if given.control:
        return await failover(directory, ("promote",), rate=given.rate, waits=False)
    return await failover(directory, (*FAULTS[:2] * given.times, given.last), rate=given.rate)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--times", type=int, default=3, help="restarts, and freezes; then one promotion")
    arguments.add_argument("--last", choices=LAST, default=LAST[0], help="how the standby takes over")
    arguments.add_argument("--rate", type=float, default=30.0)
    return command("failover", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
