"""Promise 25: an alert never loops through gateways that forward to each other: it stops after the first hop back, and
that is reported.

Two gateways in processes of their own, each the other's only upstream. An alert sent to the first goes to the second,
comes back, and must go no further. The deliveries in both outboxes are counted, which would show anything else, and the
loops in the metrics and in the log. The negative control does not recognise itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

from tests.chaos.load import CALLER_KEY
from tests.chaos.processes import GATEWAY, UPSTREAM_KEY, Process, free_port, outbox, running
from tests.chaos.verdicts import Verdict, command, parser

NAMELESS = ("-m", "tests.chaos.nameless")
STANDS_STILL = 1.5
"""Seconds in which nothing more may be accepted: a loop on one machine goes round hundreds of times in that."""
REASON = "loop: this command already passed through this gateway; not forwarded again"


def _configuration(directory: Path, other: int) -> Path:
    directory.mkdir()
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{directory / "gateway.db"}"\n'
        f'[inbound.ilert]\nkeys = {{ chaos = "{CALLER_KEY}", other = "{UPSTREAM_KEY}" }}\n'
        f'[upstreams.there]\ndialect = "ilert"\nurl = "http://127.0.0.1:{other}/ilert"\nkey = "{UPSTREAM_KEY}"\n'
        'retry = { first = "20ms", most = "200ms" }\n'
    )
    return path


async def hops(directory: Path, alerts: int, *, program: tuple[str, ...] = GATEWAY) -> Verdict:
    """Sends `alerts` alerts, and their ends, to the first of two gateways."""
    ports, rooms = (free_port(), free_port()), (directory / "here", directory / "there")
    verdict = Verdict({"alerts": alerts})
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=10))
        here, there = [
            await stack.enter_async_context(
                running(_configuration(room, other), port, program=program, log_level="warning")
            )
            for room, port, other in zip(rooms, ports, reversed(ports), strict=True)
        ]
        for word in ("ALERT", "RESOLVE"):
            for number in range(alerts):
                event = {"apiKey": CALLER_KEY, "eventType": word, "summary": f"n-{number}", "alertKey": f"n-{number}"}
                answer = await client.post(f"{here.url}/api/events", json=event)
                verdict.hold(answer.status_code == 202, f"a caller was answered {answer.status_code}")
        still = await _still(here, there, client, 3 * 2 * alerts)
        loops = [await _sum(process, client, "alert_gateway_loops_total{") for process in (here, there)]
        for process in (here, there):
            await process.terminate()
    rows = [await outbox(room / "gateway.db") for room in rooms]
    states = [Counter(row.state for row in one) for one in rows]
    told = sum("command.loops" in line for line in (rooms[0] / "gateway.log").read_text().splitlines())
    verdict.figures |= {"sent on by the second": states[1]["delivered"], "stopped at the first": states[0]["void"]}
    verdict.figures |= {"loops in the metrics": int(loops[0]), "in the log": told}
    said = 2 * alerts
    verdict.hold(still, "the alerts were still going round at the end")
    verdict.hold(states[0] == {"delivered": said, "void": said}, f"the first gateway's outbox has {dict(states[0])}")
    verdict.hold(states[1] == {"delivered": said}, f"the second gateway's outbox has {dict(states[1])}")
    untold = sum(row.state == "void" and row.reason != REASON for row in rows[0])
    verdict.hold(not untold, f"{untold} were stopped without the reason")
    verdict.hold(loops == [said, 0], f"the metrics count {loops} loops")
    verdict.hold(told == said, f"the log has {told} loops")
    return verdict


async def _still(here: Process, there: Process, client: httpx.AsyncClient, accepted: int, within: float = 30.0) -> bool:
    """Waits until both together have accepted `accepted` commands, and no more for a while; returns whether so."""
    end, before, since = time.monotonic() + within, -1.0, time.monotonic()
    while time.monotonic() < end:
        now = 0.0
        for process in (here, there):
            now += await _sum(process, client, "alert_gateway_requests_total{")
        if now > accepted:
            return False
        if now != before:
            before, since = now, time.monotonic()
        if now == accepted and time.monotonic() > since + STANDS_STILL:
            return await here.drained(10.0) and await there.drained(10.0)
        await asyncio.sleep(0.1)
    return False


async def _sum(process: Process, client: httpx.AsyncClient, name: str) -> float:
    answer = await process.get("/metrics", client)
    lines = answer.text.splitlines() if answer is not None else []
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    return await hops(directory, given.alerts, program=NAMELESS if given.control else GATEWAY)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--alerts", type=int, default=200)
    return command("hops", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
