"""Promise 11: 100,000 waiting deliveries drain with flat memory, the whole process within 64 MiB.

The upstream is down. Most of the backlog is put into the store by the road itself, in batches, as HTTP would take
minutes; the rest arrives over HTTP, from senders with a ledger. While all of it waits, an operator's commands ask the
gateway by `--url` from outside, as if it were a sidecar without room for a second process. Then the upstream heals and
everything goes out. Where a memory cgroup can be made (version 1 or 2; that takes root) the gateway runs in one, and is
killed if it takes more; elsewhere its resident memory is measured. The negative control keeps everything it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.canonical import Operation
from gateway.config.loading import load
from gateway.ids import Ids
from gateway.process.service import own_name
from gateway.rehearsal import command_in
from gateway.road.accepted import Caller, Order
from gateway.road.road import Road
from gateway.store import Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos.accounts import account
from tests.chaos.confined import cgroup, peak
from tests.chaos.load import Ledger, Load, Told
from tests.chaos.processes import CONCURRENCY, GATEWAY, Process, configuration, free_port, outbox, running
from tests.chaos.sink import ROOT, sink
from tests.chaos.verdicts import Verdict, command, parser

HOARDER = "tests.chaos.hoarder"
MOST = 64
"""MiB for the whole process."""
GROWTH = 4.0
"""MiB by which memory may be higher at the end of the drain than after its first tenth and still count as flat."""
BATCH = 500
ASKED = (
    ("deliveries",),
    ("deliveries", "--state", "waiting", "--limit", "5000", "--json"),
    ("report", "--by", "caller"),
    ("retry", "--upstream", "oncall"),
    ("operations",),
)
"""The operator's commands while everything waits."""
MANY = "max_waiting = { deliveries = 1000000 }"


async def fill(config: Path, count: int) -> list[Told]:
    """Puts `count` alerts with keys of their own into the store, as if they had been accepted; returns them as in their
    senders' ledger."""
    found = load(str(config))
    inbound = found.inbounds["ilert"]
    who = Caller(inbound.dialect, "chaos", inbound.scope_of("chaos"))
    told: list[Told] = []
    async with SqliteStore(found.store.removeprefix("sqlite://")) as store:
        name = await store.write(own_name)
        ids = Ids(floor=await store.read(lambda tx: tx.largest_id()))
        road = Road(found, ids.next, name=name)

        def batch(tx: Tx, first: int, many: int) -> list[Told]:
            return [_accepted(tx, road, who, ids, number) for number in range(first, first + many)]

        for first in range(0, count, BATCH):
            many = min(BATCH, count - first)
            told += await store.write(lambda tx, first=first, many=many: batch(tx, first, many))  # type: ignore[misc]
    return told


def _accepted(tx: Tx, road: Road, who: Caller, ids: Ids, number: int) -> Told:
    told = Told(f"f-{number:07}", "ALERT", True, 0.0, status=202, fate="acknowledged")
    asked = command_in(who.dialect, Operation.CREATE, msgspec.json.decode(told.body()))
    made = ids.next()
    accepted = road.accept(
        tx, Order(asked=asked, caller=who, request=made, command=made, now=time.time_ns() // 1_000_000)
    )
    assert accepted.alert is not None
    told.alert = str(accepted.alert.id)
    return told


@dataclass
class Memory:
    """Resident memory over time, in MiB, sampled while a block of work goes on."""

    pid: int
    seen: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        """Samples until it is cancelled or the process is gone."""
        while True:
            try:
                self.seen.append(resident(self.pid))
            except (OSError, IndexError):
                return
            await asyncio.sleep(0.1)

    @property
    def growth(self) -> float:
        """How much higher the last tenth of the samples is than the second, each by its median."""
        tenth = max(1, len(self.seen) // 10)
        return _median(self.seen[-tenth:]) - _median(self.seen[tenth : 2 * tenth] or self.seen)


def resident(pid: int) -> float:
    """Returns the resident memory of a process, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


async def backlog(
    directory: Path, filled: int, *, offered: float = 10.0, rate: float = 200.0, hoards: bool = False, most: int = MOST
) -> Verdict:
    """Lets `filled` deliveries wait, and as many more as arrive in `offered` seconds; then drains."""
    ledger, port = Ledger(), free_port()
    with sink(directory, delay=0.0) as upstream, cgroup(most << 20) as group:
        upstream.mood(status=503)
        config = configuration(directory, upstream.url, top=MANY)
        for told in await fill(config, filled):
            ledger.note(told)
        async with running(config, port, program=_program(group, hoards=hoards)) as process:
            await asyncio.sleep(1.0)
            idle = resident(process.pid)
            await _offered(Load(ledger, port, most=32), rate, offered)
            waiting = ledger.acknowledged()
            asked = [await _asked(process.url, *words) for words in ASKED]
            memory, healed = Memory(process.pid), time.monotonic()
            upstream.mood(status=202)
            drained = await _drained(process, memory, filled / 50 + 120)
            took = time.monotonic() - healed
            highest = process.resident() if drained else max(memory.seen, default=0.0)
            if drained:
                await process.terminate()
        charged = peak(group) if group else 0.0
        taken = [one for one in upstream.arrivals() if one.status == 202]
        found = account(ledger, taken, await outbox(directory / "gateway.db"))
    verdict = Verdict({"waited": waiting, "s to drain": round(took, 1), "a second": waiting / took})
    verdict.figures |= {"MiB before": idle, "MiB at most": highest, "MiB more at the end of the drain": memory.growth}
    verdict.figures |= {"MiB charged": charged} if group else {}
    verdict.figures |= {"limit": f"{most} MiB cgroup" if group else "none, resident memory measured"}
    found.judge(verdict, CONCURRENCY)
    verdict.figures |= {"s for an operator's longest call": max(took for took, _ in asked)}
    for words, (_, said) in zip(ASKED, asked, strict=True):
        verdict.hold(not said, f"{' '.join(words)} --url: {said}")
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(highest <= most, f"it took {highest:.1f} MiB, more than {most}")
    verdict.hold(memory.growth <= GROWTH, f"memory grew by {memory.growth:.1f} MiB during the drain")
    return verdict


async def _asked(url: str, *words: str) -> tuple[float, str]:
    """Runs an operator's command in a process of its own outside the gateway's cgroup; returns how long it took, and
    what went wrong."""
    began = time.monotonic()
    asking = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli",
        *words,
        "--url",
        url,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asking.communicate()
    failed = (said.decode() or f"exit {asking.returncode}") if asking.returncode else ""  # a cut list says so too
    return time.monotonic() - began, failed


def _program(group: Path | None, *, hoards: bool) -> tuple[str, ...]:
    if group is None:
        return ("-m", HOARDER) if hoards else GATEWAY
    return ("-m", "tests.chaos.confined", str(group), *(("--as", HOARDER) if hoards else ()))


async def _offered(load: Load, rate: float, seconds: float) -> None:
    stop = asyncio.Event()
    loading = asyncio.create_task(load.offer(rate, stop))
    await asyncio.sleep(seconds)
    stop.set()
    await loading


async def _drained(process: Process, memory: Memory, within: float) -> bool:
    """Waits until nothing waits or the process is gone; returns whether nothing waits."""
    watching = asyncio.create_task(memory.watch())
    draining = asyncio.create_task(process.drained(within, 0.1 if within < 200 else 2.0))
    await asyncio.wait([watching, draining], return_when=asyncio.FIRST_COMPLETED)
    is_gone = watching.done()
    for task in (watching, draining):
        if is_gone or task is watching:
            task.cancel()
    return not is_gone and await draining


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    return await backlog(directory, given.filled, offered=given.seconds, hoards=given.control)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--filled", type=int, default=98_000, help="deliveries put into the store directly")
    arguments.add_argument("--seconds", type=float, default=10.0, help="seconds in which more arrive over HTTP")
    return command("backlog", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
