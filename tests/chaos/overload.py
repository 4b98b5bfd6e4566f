"""Promise 12: overload is refused before it is acknowledged, with Retry-After, and what was accepted stays accepted.

First the capacity is measured with a few senders, then several times as much is offered over many connections while
little may wait (`max_waiting`). At the end the gateway is killed: everything acknowledged must still be delivered. The
latency is that of every answer, counted from when the request was sent. The negative control acknowledges from memory.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.chaos.accounts import account
from tests.chaos.load import Ledger, Load, quantile
from tests.chaos.processes import CONCURRENCY, FORGETFUL, GATEWAY, configuration, free_port, outbox, running
from tests.chaos.sink import sink
from tests.chaos.verdicts import Verdict, command, parser

P99 = 0.25
MOST_MEMORY = 192.0
MAY_WAIT = 2000
"""Deliveries that may wait; the gateway counts once a second, so that a second's worth more may get in."""


async def overload(
    directory: Path,
    seconds: float,
    *,
    factor: float = 5.0,
    senders: int = 256,
    may_wait: int = MAY_WAIT,
    program: tuple[str, ...] = GATEWAY,
) -> Verdict:
    """Offers `factor` times the capacity for `seconds`."""
    ledger, port, crashes = Ledger(), free_port(), list[float]()
    with sink(directory) as upstream:
        config = configuration(directory, upstream.url, top=f"max_waiting = {{ deliveries = {may_wait} }}")
        async with running(config, port, program=program) as process:
            await _offered(Load(ledger, port, most=8), 20_000.0, 1.0)
            before = ledger.acknowledged()
            await _offered(Load(ledger, port, most=8), 20_000.0, 2.0)
            capacity = (ledger.acknowledged() - before) / 2.0
            began = len(ledger.told)
            ledger.late = 0
            await _offered(Load(ledger, port, most=senders), factor * max(capacity, 50.0), seconds)
            memory = process.resident()
            process.kill()
            crashes.append(time.monotonic())
        async with running(config, port, program=program) as last:
            drained = await last.drained()
            await last.terminate()
        found = account(ledger, upstream.arrivals(), await outbox(directory / "gateway.db"), crashes)
    answered = [one for one in ledger.told[began:] if one.fate in ("acknowledged", "refused")]
    refused = [one for one in answered if one.fate == "refused"]
    p99 = quantile([one.ended - one.sent for one in answered], 0.99)
    verdict = Verdict({"a second capacity": capacity, "a second answered": len(answered) / seconds})
    verdict.figures |= {"refused": len(refused), "not sent as no connection was free": ledger.late}
    verdict.figures |= {"s p99": p99, "MiB at most": memory}
    found.judge(verdict, CONCURRENCY)
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(bool(refused), "nothing was refused: this was no overload")
    well = all(one.status in (429, 503) and one.retry_after.isdigit() for one in refused)
    verdict.hold(well, "a refusal was not a 429 or 503 with Retry-After")
    verdict.hold(p99 <= P99, f"p99 is above {P99 * 1000:.0f} ms")
    verdict.hold(memory <= MOST_MEMORY, f"it took more than {MOST_MEMORY:g} MiB")
    return verdict


async def _offered(load: Load, rate: float, seconds: float) -> None:
    stop = asyncio.Event()
    loading = asyncio.create_task(load.offer(rate, stop))
    await asyncio.sleep(seconds)
    stop.set()
    await loading


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    program = FORGETFUL if given.control else GATEWAY
    return await overload(directory, given.seconds, factor=given.factor, senders=given.senders, program=program)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=180.0)
    arguments.add_argument("--factor", type=float, default=5.0)
    arguments.add_argument("--senders", type=int, default=256, help="connections at most")
    return command("overload", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
