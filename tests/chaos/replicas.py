"""Promises 14 and 30: two replicas over one PostgreSQL, one of them killed, or frozen past its lease and thawed again.

Under an open-loop load through a balancer, again and again, in turns: SIGKILL at a random instant, or SIGSTOP while the
victim has a delivery under way for which its upstream takes seconds, so that the other replica is still busy with it
when the victim wakes up and wants to record the outcome. Triggers in the database record who changes what. Then the
senders' ledger, the store, the sink and the gateway's own report are compared.

The full figure: `python -m tests.chaos.replicas --kills 20`. The negative controls are a gateway that does not heed the
fence, and one whose lease outlives the test.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.accounts import account
from tests.chaos.leased import leased
from tests.chaos.load import Told
from tests.chaos.processes import CONCURRENCY, GATEWAY
from tests.chaos.replicated import (
    LEASE,
    Balanced,
    Replica,
    Steps,
    held_by,
    inversions,
    judge_ledger,
    judge_store,
    outbox,
    prepared,
    stale_changes,
    until,
)
from tests.chaos.sink import Sink, sink
from tests.chaos.verdicts import Verdict, command, parser
from tests.postgres_server import shared

GRACE = 5.0
"""Seconds after the lease within which all is taken over."""
SLOW = 3.0
"""Seconds that the upstream takes for what is under way while a replica is frozen."""


@dataclass
class _Run:
    """The state of a run, and its results so far."""

    url: str
    lease: float
    upstream: Sink
    ledger: Steps
    replicas: list[Replica]
    chance: random.Random
    crashes: list[float] = field(default_factory=list)
    taken_over: list[float] = field(default_factory=list)
    left: int = 0

    async def kill(self, victim: Replica) -> None:
        """Kills a replica at a random instant; another one starts in its place."""
        await asyncio.sleep(self.chance.uniform(0.3, 1.0))
        name = victim.name
        victim.process.kill()
        self.crashes.append(time.monotonic())
        self.left += held_by(self.url, name)
        victim.start()
        await asyncio.sleep(0.5)
        self.crashes.append(time.monotonic())  # what it sent last may arrive late on a machine that is busy
        await self._taken(name, self.crashes[-2])
        await victim.process.ready()

    async def _taken(self, name: str, since: float) -> None:
        await until(lambda: not held_by(self.url, name), self.lease + 2 * GRACE)
        self.taken_over.append(time.monotonic() - since)

    async def freeze(self, victim: Replica, other: Replica) -> None:
        """Stops a replica during a slow delivery; lets it go on while the other replica is busy with the same one."""
        nonce = f"slow-{len(self.crashes)}"
        self.upstream.mood(delays={nonce: SLOW})
        await self.say(victim, nonce, "ALERT")
        await until(lambda: self.upstream.count("ALERT", nonce) > 0, 5, 0.01)
        victim.freeze()
        self.crashes.append(time.monotonic())
        try:
            await self.say(other, nonce, "ACCEPT")
            await until(lambda: self.upstream.count("ALERT", nonce) > 1, self.lease + 2 * GRACE)
            self.taken_over.append(time.monotonic() - self.crashes[-1])
        finally:
            victim.thaw()
            self.crashes.append(time.monotonic())
        await until(lambda: self.upstream.count("ACCEPT", nonce) > 0, 2 * SLOW)
        await victim.process.ready(within=time.monotonic() - victim.process.started + 10)

    async def say(self, replica: Replica, nonce: str, word: str) -> None:
        """Sends a request to a certain replica; it is in the ledger like all others."""
        now = time.monotonic()
        told = Told(nonce, word, True, now, sent=now)
        async with httpx.AsyncClient() as client:
            answer = await client.post(replica.process.url + "/api/events", content=told.body(), timeout=20)
        told.status, told.alert, told.ended = answer.status_code, answer.headers["alert-gateway-id"], time.monotonic()
        told.fate = "acknowledged" if answer.status_code < 300 else "refused"
        self.ledger.told.append(told)


async def replicas(
    directory: Path,
    kills: int,
    *,
    lease: float = LEASE,
    rate: float = 40.0,
    program: tuple[str, ...] = GATEWAY,
    seed: int = 1,
    kills_too: bool = True,
) -> Verdict:
    """Kills or freezes one replica after the other, `kills` times, and compares; only freezes without `kills_too`."""
    url, ledger, stop = shared().database(), Steps(), asyncio.Event()
    await prepared(url)
    with sink(directory, delay=0.03) as upstream:
        both = [Replica(directory, number, url, upstream.url, program=program).start() for number in range(2)]
        run = _Run(url, lease, upstream, ledger, both, random.Random(seed))
        try:
            for one in both:
                await one.process.ready()
            loading = asyncio.create_task(Balanced(ledger, [one.port for one in both]).run(rate, stop))
            for number in range(kills):
                victim, other = both[number // 2 % 2], both[1 - number // 2 % 2]
                await (run.kill(victim) if kills_too and number % 2 == 0 else run.freeze(victim, other))
            stop.set()
            await loading
            drained = await both[0].process.drained(within=lease + 2 * GRACE)
            statuses = await asyncio.gather(*(one.process.terminate() for one in both))
        finally:
            for one in both:
                one.process.kill()
        verdict = await _judged(run, kills)
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(not any(statuses), f"they exited with {statuses}")
    return verdict


async def _judged(run: _Run, kills: int) -> Verdict:
    rows, arrived = await outbox(run.url), run.upstream.arrivals()
    verdict = Verdict({"kills and freezes": kills, "left by the killed": run.left, "answered 503": run.ledger.doubt()})
    account(run.ledger, arrived, rows, run.crashes).judge(verdict, 2 * CONCURRENCY)
    worst, stale, inverted = max(run.taken_over, default=0.0), stale_changes(run.url), inversions(arrived)
    verdict.figures |= {"inversions": inverted, "s until taken over (worst)": worst, "changes by a stale one": stale}
    verdict.hold(worst <= run.lease + GRACE, f"not all was taken over within {run.lease + GRACE:g} s")
    verdict.hold(not stale, f"a stale replica changed {stale} rows")
    verdict.hold(not inverted, f"{inverted} lanes went out of order")
    twice = len(rows) - len({row.id for row in rows})
    made = [one.alert for one in run.ledger.of("acknowledged") if one.word == "ALERT"]
    verdict.hold(not twice and len(set(made)) == len(made), "an id was issued twice")
    judge_store(verdict, run.ledger, rows)
    await judge_ledger(verdict, run.replicas[0], rows)
    return verdict


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    lease: float = given.lease
    program: tuple[str, ...] = GATEWAY
    if given.control:
        lease, program = 2.0, leased(2.0, "heedless")
    elif lease != LEASE:
        program = leased(lease)
    return await replicas(directory, given.kills, lease=lease, rate=given.rate, program=program, seed=given.seed)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--lease", type=float, default=LEASE, help="seconds; default: the gateway's own")
    arguments.add_argument("--rate", type=float, default=40.0)
    return command("replicas", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
