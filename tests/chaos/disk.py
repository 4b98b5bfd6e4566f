"""Promise 3: on a full disk callers hear 503 in their vendor's words, never a false success; it resumes unaided.

A gateway serves from a small tmpfs where one may be mounted; else the size of its files is limited (`RLIMIT_FSIZE`,
which needs no rights). Under an open-loop load the disk is filled and freed again, several times. Failing syncs are
tested by `python -m tests.chaos.power --failing`. The negative control acknowledges from memory, whatever the disk
says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.chaos.accounts import account
from tests.chaos.load import Ledger, Load, Told
from tests.chaos.processes import CONCURRENCY, FORGETFUL, GATEWAY, Process, configuration, free_port, outbox, running
from tests.chaos.sink import sink
from tests.chaos.verdicts import Verdict, command, parser

RECOVERS_WITHIN = 5.0
UNREADY_WITHIN = 2.0
FULL_FOR = 3.0
Switch = Callable[[Process, bool], None]
"""Fills the disk (True) or frees it."""


@contextlib.contextmanager
def small_tmpfs(directory: Path) -> Iterator[Switch]:
    """Mounts a tmpfs of 64 MiB at `directory`, which a file of ballast fills. Raises if it cannot be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "chaos", str(directory)]
    subprocess.run(mount, check=True, capture_output=True)
    ballast = directory / "ballast"

    def switch(process: Process, is_full: bool) -> None:
        if not is_full:
            ballast.unlink()
            return
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    try:
        yield switch
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)


@contextlib.contextmanager
def limited_files(directory: Path) -> Iterator[Switch]:
    """Limits the gateway's files to half of the database's present size, which its write-ahead log soon reaches."""

    def switch(process: Process, is_full: bool) -> None:
        store = directory / "gateway.db"
        size = (store.stat().st_size if store.exists() else 1 << 17) // 2
        most = size if is_full else resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    yield switch


def may_mount() -> bool:
    """Returns whether a tmpfs can be mounted here."""
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


async def full(
    directory: Path, times: int, *, rate: float = 200.0, mounts: bool = True, program: tuple[str, ...] = GATEWAY
) -> Verdict:
    """Fills the disk `times` times under load."""
    ledger, port, stop = Ledger(), free_port(), asyncio.Event()
    place = directory / "disk"
    place.mkdir()
    verdict, slowest, unready = Verdict(), 0.0, []
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(sink(directory))
        switch = stack.enter_context(small_tmpfs(place) if mounts else limited_files(place))
        config = configuration(directory, upstream.url, store=place / "gateway.db")
        async with running(config, port, program=program) as process:
            loading = asyncio.create_task(Load(ledger, port).offer(rate, stop))
            await asyncio.sleep(1.0)
            for _ in range(times):
                switch(process, True)
                unready.append(await _unready(process))
                switch(process, False)
                freed = time.monotonic()
                slowest = max(slowest, await _recovery(ledger, freed))
                await asyncio.sleep(0.5)
            stop.set()
            await loading
            drained = await process.drained()
            await process.terminate()
        found = account(ledger, upstream.arrivals(), await outbox(place / "gateway.db"))
    refused = ledger.of("refused")
    verdict.figures |= {"times full": times, "refused": len(refused), "s to resume (worst)": slowest}
    verdict.figures |= {"disk": "tmpfs" if mounts else "file size limit"}
    found.judge(verdict, CONCURRENCY)
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(bool(refused), "the disk was full and no caller was refused")
    verdict.hold(all(map(_well_said, refused)), "a refusal was not a 503 with Retry-After")
    verdict.hold(slowest <= RECOVERS_WITHIN, f"it took more than {RECOVERS_WITHIN:g} s to resume")
    verdict.hold(None not in unready, f"a full disk was not seen in /-/ready within {UNREADY_WITHIN:g} s")
    return verdict


def _well_said(told: Told) -> bool:
    return told.status == 503 and told.retry_after.isdigit()


async def _unready(process: Process) -> float | None:
    """Returns after how many seconds the gateway said that it is not ready, None if not in time; leaves the disk full
    for a while."""
    began, found = time.monotonic(), None
    async with httpx.AsyncClient() as client:
        while time.monotonic() < began + FULL_FOR:
            answer = await process.get("/-/ready", client)
            if found is None and answer is not None and answer.status_code == 503:
                found = time.monotonic() - began
            await asyncio.sleep(0.05)
    return found if found is not None and found <= UNREADY_WITHIN else None


async def _recovery(ledger: Ledger, freed: float) -> float:
    """Returns how many seconds passed until a request sent after the disk was freed was acknowledged."""
    looked = 0
    while time.monotonic() < freed + 3 * RECOVERS_WITHIN:
        for told in ledger.told[looked:]:
            if told.fate == "acknowledged" and told.sent >= freed:
                return told.ended - freed
        looked = len(ledger.told)
        await asyncio.sleep(0.01)
    return 3 * RECOVERS_WITHIN


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    program = FORGETFUL if given.control else GATEWAY
    mounts = may_mount() and not given.unprivileged
    return await full(directory, given.times, rate=given.rate, mounts=mounts, program=program)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--times", type=int, default=20)
    arguments.add_argument("--rate", type=float, default=200.0)
    arguments.add_argument("--unprivileged", action="store_true", help="limit the size of files; mount nothing")
    return command("full disk", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
