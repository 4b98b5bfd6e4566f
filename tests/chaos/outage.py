"""Promise 9: an upstream that answers 5xx for minutes is left alone but for probes, after 5, 10, 20 and every 30 s; a
restart in the middle allows one at once; and when it heals, everything goes out at full rate within a minute, with at
most a fifth more requests than deliveries.

In the negative control the breaker never opens, so that the upstream is asked all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from pathlib import Path

from tests.chaos.accounts import account
from tests.chaos.load import Ledger, Load
from tests.chaos.processes import GATEWAY, configuration, free_port, outbox, running
from tests.chaos.sink import Arrival, Sink, sink
from tests.chaos.verdicts import Verdict, command, parser

DEAF = ("-m", "tests.chaos.deaf")
"""A gateway whose breaker never opens: the negative control."""
EXTRA = 0.2
SETTLED = 60.0
PAUSES = (5.0, 10.0, 20.0, 30.0)
SLACK = 2.5
"""Seconds by which a probe may be later than its pause: looking into the outbox takes its turn."""


async def outage(directory: Path, seconds: float, *, rate: float = 20.0, deaf: bool = False) -> Verdict:
    """Runs an outage of `seconds` under load, with a restart of the gateway in its middle."""
    ledger, port, stop = Ledger(), free_port(), asyncio.Event()
    program = DEAF if deaf else GATEWAY
    with sink(directory) as upstream:
        config = configuration(directory, upstream.url, retry=("1s", "60s"))
        async with running(config, port, program=program) as process:
            loading = asyncio.create_task(Load(ledger, port).offer(rate, stop))
            await asyncio.sleep(2.0)
            upstream.mood(status=503)
            began = time.monotonic()
            await asyncio.sleep(seconds / 2)
            process.kill()
        restarted = time.monotonic()
        async with running(config, port, program=program) as process:
            await asyncio.sleep(seconds / 2)
            upstream.mood(status=202)
            healed = time.monotonic()
            drained = await _caught_up(upstream, ledger)
            stop.set()
            await loading
            await process.drained()
            await process.terminate()
        arrivals = upstream.arrivals()
        taken = [arrival for arrival in arrivals if arrival.status == 202]
        found = account(ledger, taken, await outbox(directory / "gateway.db"), [restarted])
    return _judged(arrivals, began, restarted, healed, drained, found, Verdict())


async def _caught_up(upstream: Sink, ledger: Ledger, within: float = 120.0) -> float:
    """Waits until everything acknowledged so far has arrived; returns when that was."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        taken = {arrival.summary for arrival in upstream.arrivals() if arrival.status == 202}
        if all(told.nonce in taken for told in ledger.told if told.fate == "acknowledged" and told.word == "ALERT"):
            return time.monotonic()
        await asyncio.sleep(0.2)
    return end


def _judged(
    arrivals: list[Arrival], began: float, restarted: float, healed: float, drained: float, found: object, v: Verdict
) -> Verdict:
    during = [one.at for one in arrivals if began < one.at < healed]
    before = [at for at in during if at < restarted]
    after = [at for at in during if at >= restarted]
    extra = sum(one.status != 202 for one in arrivals) / max(1, sum(one.status == 202 for one in arrivals))
    pauses = [round(later - at, 1) for at, later in itertools.pairwise(before) if later - at > 3]
    v.figures |= {
        "s of 503": round(healed - began),
        "requests in them": len(during),
        "% extra": round(extra * 100, 1),
        "s between probes": "/".join(f"{pause:g}" for pause in pauses[:5]) or "-",
        "s from restart to its probe": round(after[0] - restarted, 2) if after else -1.0,
        "s to full rate": round(drained - healed, 1),
    }
    found.judge(v, 8)  # type: ignore[attr-defined]
    v.hold(extra <= EXTRA, f"{extra:.0%} more requests than deliveries")
    for pause, meant in zip(pauses, PAUSES, strict=False):
        v.hold(meant - 0.5 <= pause <= meant + SLACK, f"a probe after {pause:g} s instead of {meant:g} s")
    v.hold(drained - healed <= SETTLED, f"{drained - healed:.0f} s to full rate")
    in_a_second = sum(at < after[0] + 1 for at in after) if after else 0
    v.hold(in_a_second == 1, f"{in_a_second} requests within a second of the restart's first")
    return v


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    return await outage(directory, given.minutes * 60, deaf=given.control)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=10.0)
    return command("promise 9", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
