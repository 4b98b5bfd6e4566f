"""Promise 29: somebody else notices when the gateway is dead, and its own alarms go through an upstream that works.

A gateway with a heartbeat is killed, frozen (SIGSTOP), given a full disk (a small tmpfs, or else files of limited
size), and made to let a delivery wait for longer than `stall`. Each time the pings must stop, and start again once it
is over. The alarm of the full disk goes to the first upstream for alarms; while that is in trouble itself, the alarm of
that goes to the second. Both are told the end when all has been well for a minute. The negative control always finds
itself well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.chaos.disk import limited_files, may_mount, small_tmpfs
from tests.chaos.load import CALLER_KEY
from tests.chaos.processes import GATEWAY, UPSTREAM_KEY, Process, free_port
from tests.chaos.sink import Sink, sink
from tests.chaos.verdicts import Verdict, command, parser

BLITHE = ("-m", "tests.chaos.blithe")
EVERY = 0.2
STALL = 3.0
STOPS_WITHIN = 4.0
"""Seconds from a trouble to the last ping: a look at the store may take two, and one ping may be under way."""
QUIET = 2.0
RETURNS_WITHIN = 10.0
CLEARED_WITHIN = 90.0
FAULTS = ("killed", "frozen", "disk full", "stalled")


class Rounds:
    """A gateway, what it pings, the upstream that gets into trouble, the one that works, and the result."""

    def __init__(self, directory: Path, store: Path, sinks: dict[str, Sink], program: tuple[str, ...]) -> None:
        self.pings, self.oncall, self.other = sinks["pings"], sinks["oncall"], sinks["other"]
        self.verdict = Verdict()
        self._program = program
        self._port = free_port()
        self._config = directory / "gateway.toml"
        usual = f'dialect = "ilert"\nkey = "{UPSTREAM_KEY}"\nretry = {{ first = "100ms", most = "500ms" }}\n'
        self._config.write_text(
            f'store = "sqlite://{store / "gateway.db"}"\n[inbound.ilert]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n'
            f'[heartbeat]\nurl = "{self.pings.url}/ping"\nevery = "{int(EVERY * 1000)}ms"\nstall = "{STALL:g}s"\n'
            f'[alarms]\nto = ["oncall", "other"]\n[[routes]]\nto = ["oncall"]\n'
            f'[upstreams.oncall]\nurl = "{self.oncall.url}"\n{usual}'
            f'[upstreams.other]\nurl = "{self.other.url}"\n{usual}'
        )
        self.process = self.start()

    def start(self) -> Process:
        """Starts the gateway."""
        self.process = Process(self._config, self._port, program=self._program)
        return self.process

    async def begin(self) -> None:
        """Waits until it is ready and pings."""
        await self.process.ready()
        await self.returns("started", time.monotonic())

    async def stops(self, fault: str, began: float, allowed: float = STOPS_WITHIN) -> None:
        """Checks that the pings stop within `allowed` seconds and stay away for a while."""
        end, last = began + allowed + QUIET, began
        while time.monotonic() < end:
            last = max(last, self._last())
            if time.monotonic() > last + QUIET:
                break
            await asyncio.sleep(0.05)
        else:
            self.verdict.hold(False, f"{fault}: it was still pinged {last - began:.1f} s later")
        self.verdict.figures[f"s to the last ping when {fault}"] = last - began

    async def returns(self, fault: str, over: float) -> None:
        """Checks that the pings start again."""
        is_back = await _comes(lambda: self._last() >= over, RETURNS_WITHIN)
        self.verdict.hold(is_back, f"{fault}: no ping within {RETURNS_WITHIN:g} s of its end")

    async def hears(self, upstream: Sink, code: str, word: str, within: float = 20.0) -> None:
        """Checks that an upstream is sent an alarm with this event type, once."""
        key, began = f"alert-gateway/{code}", time.monotonic()
        await _comes(lambda: self._said(upstream, key, word) > 0, within)
        said = self._said(upstream, key, word)
        self.verdict.hold(said == 1, f"the alarm {code} was sent {said} times as {word}")
        self.verdict.figures[f"s to {word} of {code}"] = time.monotonic() - began

    def _said(self, upstream: Sink, key: str, word: str) -> int:
        return sum(one.key == key and one.word == word for one in upstream.arrivals())

    def _last(self) -> float:
        return max((one.at for one in self.pings.arrivals()[-3:]), default=0.0)

    async def page(self) -> None:
        """Sends one alert."""
        event = {"apiKey": CALLER_KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.process.url}/api/events", json=event, timeout=10)
        assert answer.status_code == 202, answer.text


async def _comes(condition: Callable[[], bool], within: float) -> bool:
    """Waits until a condition holds; returns whether it did in time."""
    end = time.monotonic() + within
    while not (holds := condition()):
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.05)
    return holds


async def _killed(rounds: Rounds) -> None:
    rounds.process.kill()
    await rounds.stops("killed", time.monotonic())
    over = time.monotonic()
    rounds.start()
    await rounds.process.ready()
    await rounds.returns("killed", over)


async def _frozen(rounds: Rounds) -> None:
    os.kill(rounds.process.pid, signal.SIGSTOP)
    try:
        await rounds.stops("frozen", time.monotonic())
    finally:
        os.kill(rounds.process.pid, signal.SIGCONT)
    await rounds.returns("frozen", time.monotonic())


async def _filled(rounds: Rounds, switch: Callable[[Process, bool], None], *, alarms: bool) -> None:
    switch(rounds.process, True)
    await rounds.stops("disk full", time.monotonic())
    if alarms:
        await rounds.hears(rounds.oncall, "store-full", "ALERT")
    switch(rounds.process, False)
    await rounds.returns("disk full", time.monotonic())


async def _stalled(rounds: Rounds, *, alarms: bool) -> None:
    rounds.oncall.mood(status=503)
    await rounds.page()
    await rounds.stops("stalled", time.monotonic(), STALL + STOPS_WITHIN)
    if alarms:
        await rounds.hears(rounds.other, "upstream-stalled/oncall", "ALERT")
        told = [one.key for one in rounds.oncall.arrivals() if (one.key or "").startswith("alert-gateway/upstream-st")]
        rounds.verdict.hold(not told, "the failing upstream was sent the alarm about itself")
    rounds.oncall.mood(status=202)
    assert await rounds.process.drained(45.0), "a breaker probes at least every 30 s"
    await rounds.returns("stalled", time.monotonic())


async def heartbeat(
    directory: Path,
    faults: tuple[str, ...] = FAULTS,
    *,
    mounts: bool = True,
    alarms: bool = True,
    program: tuple[str, ...] = GATEWAY,
) -> Verdict:
    """Goes through the faults; with `alarms` the gateway's own alarms are checked too."""
    store = directory / "disk"
    store.mkdir()
    with contextlib.ExitStack() as stack:
        sinks = {}
        for name in ("pings", "oncall", "other"):
            (directory / name).mkdir()
            sinks[name] = stack.enter_context(sink(directory / name))
        sinks["pings"].mood(status=200)
        switch = stack.enter_context(small_tmpfs(store) if mounts else limited_files(store))
        rounds = Rounds(directory, store, sinks, program)
        rounds.verdict.figures["disk"] = "tmpfs" if mounts else "file size limit"
        stack.callback(lambda: rounds.process.kill())
        await rounds.begin()
        if "killed" in faults:
            await _killed(rounds)
        if "frozen" in faults:
            await _frozen(rounds)
        if "disk full" in faults:
            await _filled(rounds, switch, alarms=alarms)
        if "stalled" in faults:
            await _stalled(rounds, alarms=alarms)
        if alarms:
            await rounds.hears(rounds.oncall, "store-full", "RESOLVE", CLEARED_WITHIN)
            await rounds.hears(rounds.other, "upstream-stalled/oncall", "RESOLVE", CLEARED_WITHIN)
    return rounds.verdict


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    mounts = may_mount() and not given.unprivileged
    program = BLITHE if given.control else GATEWAY
    return await heartbeat(directory, mounts=mounts, alarms=not given.control, program=program)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--unprivileged", action="store_true", help="limit the size of files; mount nothing")
    return command("heartbeat", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
