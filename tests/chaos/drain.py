"""Promise 16: SIGTERM under keep-alive load: until the drain ends nothing is refused or reset; then the process exits.

Senders go on over their kept-alive connections, and open new ones, until nothing listens any more. A request that was
sent and got no answer counts as reset, whenever that was. The store is served again afterwards, and the ledger adds up.
The negative control is SIGKILL in the place of SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.chaos.accounts import account
from tests.chaos.load import Ledger, Load
from tests.chaos.processes import CONCURRENCY, Process, configuration, free_port, outbox, running
from tests.chaos.sink import sink
from tests.chaos.verdicts import Verdict, command, parser

LISTENS_FOR = 2.9
"""Seconds from SIGTERM in which no connection may be refused: the gateway's own three, less what a signal takes."""
EXITS_WITHIN = 25.0


async def drain(directory: Path, times: int, *, rate: float = 200.0, kills: bool = False) -> Verdict:
    """Ends the gateway `times` times under load."""
    ledger, port, crashes = Ledger(), free_port(), list[float]()
    refused, slowest, statuses = 0, 0.0, []
    with sink(directory, delay=0.01) as upstream:
        config = configuration(directory, upstream.url)
        for _ in range(times):
            async with running(config, port) as process:
                stop, load = asyncio.Event(), Load(ledger, port, most=32)
                loading = asyncio.create_task(load.offer(rate, stop))
                await asyncio.sleep(1.0)
                began = time.monotonic()
                if kills:
                    process.kill()
                    crashes.append(time.monotonic())
                else:
                    statuses.append(await _ended(process))
                    slowest = max(slowest, time.monotonic() - began)
                stop.set()
                await loading
                refused += sum(at < began + LISTENS_FOR for at in load.refused_connections)
        async with running(config, port) as last:
            await last.drained()
            await last.terminate()
        found = account(ledger, upstream.arrivals(), await outbox(directory / "gateway.db"), crashes)
    reset = len(ledger.of("unknown"))
    verdict = Verdict({"times ended": times, "refused": refused, "reset": reset, "s to exit (worst)": slowest})
    found.judge(verdict, CONCURRENCY)
    verdict.hold(not refused, f"{refused} connections were refused while it should still listen")
    verdict.hold(not reset, f"{reset} requests were sent and got no answer")
    verdict.hold(not ledger.of("refused"), f"{len(ledger.of('refused'))} requests were refused")
    verdict.hold(slowest <= EXITS_WITHIN, f"it took more than {EXITS_WITHIN:g} s to exit")
    verdict.hold(not any(statuses), f"it exited with {statuses}")
    return verdict


async def _ended(process: Process) -> int:
    return await process.terminate(EXITS_WITHIN + 5)


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    return await drain(directory, given.times, rate=given.rate, kills=given.control)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--times", type=int, default=20)
    arguments.add_argument("--rate", type=float, default=200.0)
    return command("drain", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
