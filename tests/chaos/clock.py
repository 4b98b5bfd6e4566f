"""Promise 13: a clock that jumps by an hour or a month, either way, causes no storm and no stall, and kills nothing.

The gateway runs under libfaketime (the pip package of that name, which compiles it), its wall clock set through a file
while it serves; the monotonic clock is left alone. Before each jump the upstream refuses for a while, so that retries
are under way when it comes. The negative control lets the monotonic clock jump too, which no event loop survives.

With `--store postgres` it is the clock of the database's server that jumps, and that of one of two replicas, which is
on the same machine; a third one is started at each jump. There the negative control does not move what waits.

The library makes every lock of the process slow: at 40 alerts a second that alone takes a whole core, and causes the
delays that are seen. So there are few alerts; how long they take without a jump is measured in the same way.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import replicated
from tests.chaos.accounts import account
from tests.chaos.leased import leased
from tests.chaos.load import Ledger, Load
from tests.chaos.processes import CONCURRENCY, GATEWAY, configuration, free_port, outbox, running
from tests.chaos.replicated import LEASE, Balanced, Replica
from tests.chaos.sink import Arrival, Sink, sink
from tests.chaos.verdicts import Verdict, command, parser
from tests.postgres_server import Server

HOUR, MONTH = 3600, 30 * 24 * 3600
JUMPS = (0, HOUR, 0, MONTH, 0, -HOUR, 0, -MONTH, 0)
"""By how many seconds the clock is off after each jump; the first is no jump, to see what an outage alone takes."""
CACHED = 1.0
"""Seconds after which the library looks into the file again; looking at every call makes the gateway crawl."""
STALL = 5.0
"""Seconds that deliveries may take longer than without a jump."""
PATIENCE = 30.0
STORM = 3.0
"""How many times the attempts of the second before a jump there may be in the second after it."""


def library() -> Path | None:
    """Returns the library to preload; None if it is not installed."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return path if path.exists() else None


async def clock(
    directory: Path, jumps: tuple[int, ...] = JUMPS, *, rate: float = 10.0, monotonic_too: bool = False
) -> Verdict:
    """Makes these jumps under load."""
    preload = library()
    assert preload is not None, "pip install libfaketime"
    ledger, port, stop = Ledger(), free_port(), asyncio.Event()
    offset = directory / "offset"
    environ = _faked(preload, offset, monotonic_too=monotonic_too)
    stalls, storms, drained = [], [], True
    with sink(directory) as upstream:
        config = configuration(directory, upstream.url, top='retention = "1000d"', retry=("500ms", "2s"))
        async with running(config, port, environ=environ) as process:
            loading = asyncio.create_task(Load(ledger, port).offer(rate, stop))
            await asyncio.sleep(1.0)
            for jump in jumps:
                stall, storm = await _jump(upstream, ledger, offset, jump)
                stalls.append(stall)
                storms.append(storm)
            stop.set()
            await loading
            drained = await process.drained(20.0)
            await process.terminate()
        taken = [one for one in upstream.arrivals() if one.status == 202]
        found = account(ledger, taken, await outbox(directory / "gateway.db"))
    verdict = _judged(jumps, stalls, storms, drained=drained)
    found.judge(verdict, CONCURRENCY)
    return verdict


async def clock_of_server(
    directory: Path, jumps: tuple[int, ...] = JUMPS, *, rate: float = 10.0, program: tuple[str, ...] = GATEWAY
) -> Verdict:
    """Makes these jumps of a PostgreSQL server's clock under load."""
    preload = library()
    assert preload is not None, "pip install libfaketime"
    ledger, stop, server = Ledger(), asyncio.Event(), Server()
    offset = server.directory / "offset"  # there the server's user can read it, and its copy of the library
    environ = _faked(Path(shutil.copy(preload, server.directory)), offset)
    server.environ |= environ
    stalls, storms = [], []
    try:
        url = server.make().database()
        with sink(directory) as upstream:
            beside, other, third = (
                Replica(
                    directory,
                    number,
                    url,
                    upstream.url,
                    program=program,
                    top='retention = "1000d"',
                    retry=("500ms", "2s"),
                    environ=environ if number == 0 else None,
                )
                for number in range(3)
            )
            try:
                for one in (beside, other):
                    await one.start().process.ready()
                loading = asyncio.create_task(Balanced(ledger, [beside.port, other.port]).run(rate, stop))
                await asyncio.sleep(1.0)
                for jump in jumps:
                    stall, storm = await _jump(upstream, ledger, offset, jump, then=third.start)
                    stalls.append(stall)
                    storms.append(storm)
                    await third.process.ready(within=time.monotonic() - third.process.started + 30)
                    await third.process.terminate()
                stop.set()
                await loading
                drained = await other.process.drained(20.0)
                await asyncio.gather(beside.process.terminate(), other.process.terminate())
            finally:
                for one in (beside, other, third):
                    one.end()
            taken = [one for one in upstream.arrivals() if one.status == 202]
            found = account(ledger, taken, await replicated.outbox(url))
    finally:
        server.close()
    verdict = _judged(jumps, stalls, storms, drained=drained)
    found.judge(verdict, 2 * CONCURRENCY)
    return verdict


def _faked(preload: Path, offset: Path, *, monotonic_too: bool = False) -> dict[str, str]:
    """The environment of a process whose clock is off by what is in a file, at first not at all."""
    _set(offset, 0)
    environ = {"LD_PRELOAD": str(preload), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_CACHE_DURATION": "1"}
    return environ | dict.fromkeys(
        ("FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"), "0" if monotonic_too else "1"
    )


def _judged(jumps: tuple[int, ...], stalls: list[float], storms: list[float], *, drained: bool) -> Verdict:
    still = [stall for jump, before, stall in zip(jumps, (0, *jumps), stalls, strict=False) if jump == before]
    verdict = Verdict({"jumps": len(jumps) - len(still), "s of delay (worst)": max(stalls)})
    verdict.figures |= {"s of delay without a jump (worst)": max(still, default=0.0)}
    verdict.figures |= {"times the attempts": max(storms)}
    verdict.hold(drained, "the outbox did not drain")
    most = max(still, default=0.0) + STALL
    slow = [jump for jump, stall in zip(jumps, stalls, strict=True) if stall > most]
    verdict.hold(not slow, f"deliveries stood still for more than {most:.1f} s after the jumps to {slow} s")
    verdict.hold(max(storms) <= STORM, "a jump caused a storm of attempts")
    return verdict


async def _jump(
    upstream: Sink, ledger: Ledger, offset: Path, to: int, then: Callable[[], object] = bool
) -> tuple[float, float]:
    """Makes one jump, and calls `then`; returns the seconds that deliveries under way took to arrive, and the factor by
    which attempts rose."""
    upstream.mood(status=503)
    await asyncio.sleep(1.5)
    under_way = {(one.nonce, one.word) for one in ledger.of("acknowledged")}
    jumped = time.monotonic()
    _set(offset, to)
    then()
    await asyncio.sleep(1.0 + CACHED)
    upstream.mood(status=202)
    healed = time.monotonic()
    while time.monotonic() < healed + PATIENCE:
        arrived = {(one.summary, one.word) for one in upstream.arrivals() if one.status == 202}
        if under_way <= arrived:
            break
        await asyncio.sleep(0.05)
    stall = time.monotonic() - healed
    before = _between(upstream.arrivals(), jumped - 1.0, jumped)
    after = _between(upstream.arrivals(), jumped, jumped + 1.0 + CACHED) / (1.0 + CACHED)
    return stall, after / max(before, 10)


def _set(offset: Path, to: int) -> None:
    """Sets the clock, by replacing the file at once: reading a half-written one ends the process."""
    new = offset.with_suffix(".new")
    new.write_text(f"{to:+d}")
    new.replace(offset)


def _between(arrivals: list[Arrival], begin: float, end: float) -> int:
    return sum(begin <= one.at < end for one in arrivals)


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    jumps = JUMPS * given.times
    if given.store == "postgres":
        program = leased(LEASE, "unmoved") if given.control else GATEWAY
        return await clock_of_server(directory, jumps, rate=given.rate, program=program)
    return await clock(directory, jumps, rate=given.rate, monotonic_too=given.control)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--times", type=int, default=5, help=f"how often to go through the {len(JUMPS)} jumps")
    arguments.add_argument("--rate", type=float, default=10.0)
    arguments.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    return command("clock jumps", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
