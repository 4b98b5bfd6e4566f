"""Promise 1: success means fsynced; kill -9 loses nothing.

An open-loop load, SIGKILL at random instants (a tenth of them while the gateway is still starting), restart; then the
senders' ledger, the store and the sink are compared. The full figure: `python -m tests.chaos.kill --kills 200
--acknowledged 100000`. The negative control acknowledges from memory.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

from tests.chaos.accounts import account
from tests.chaos.load import Ledger, Load, quantile
from tests.chaos.processes import CONCURRENCY, FORGETFUL, GATEWAY, Process, configuration, free_port, outbox, running
from tests.chaos.sink import sink
from tests.chaos.verdicts import Verdict, command, parser

READY_WITHIN = 2.0
QUICKLY, SLOWLY = 0.002, 0.05
"""Seconds after which the upstream answers."""
EARLY = 0.1
"""The share of kills that come while the gateway is starting."""


async def kill(
    directory: Path,
    kills: int,
    *,
    least: int = 0,
    rate: float = 600.0,
    program: tuple[str, ...] = GATEWAY,
    seed: int = 1,
) -> Verdict:
    """Kills `kills` times, goes on until `least` requests were acknowledged, and compares. With the negative control
    the upstream is slow: on a quick machine nothing would be left to lose."""
    chance = random.Random(seed)
    ledger, port, stop, readiness, crashes = Ledger(), free_port(), asyncio.Event(), [], list[float]()
    with sink(directory, SLOWLY if program is FORGETFUL else QUICKLY) as upstream:
        config = configuration(directory, upstream.url)
        loading = asyncio.create_task(Load(ledger, port).offer(rate, stop))
        while len(crashes) < kills or ledger.acknowledged() < least:
            process = Process(config, port, program=program)
            try:
                if chance.random() < EARLY:
                    await asyncio.sleep(chance.uniform(0.05, 0.6))
                else:
                    readiness.append(await process.ready())
                    await asyncio.sleep(chance.uniform(0.05, 1.2))
            finally:
                process.kill()
                crashes.append(time.monotonic())
        stop.set()
        await loading
        async with running(config, port, program=program) as last:
            drained = await last.drained(600.0)
            await last.terminate()
        found = account(ledger, upstream.arrivals(), await outbox(directory / "gateway.db"), crashes)
    verdict = Verdict({"kills": len(crashes)})
    found.judge(verdict, CONCURRENCY)
    verdict.figures |= {"s until ready (median)": quantile(readiness, 0.5), "s (worst)": max(readiness, default=0.0)}
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(quantile(readiness, 0.99) <= READY_WITHIN, f"not ready again within {READY_WITHIN:g} s")
    return verdict


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    program = FORGETFUL if given.control else GATEWAY
    return await kill(
        directory, given.kills, least=given.acknowledged, rate=given.rate, program=program, seed=given.seed
    )


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--acknowledged", type=int, default=0, help="go on until this many are acknowledged")
    arguments.add_argument("--rate", type=float, default=600.0)
    return command("kill -9", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
