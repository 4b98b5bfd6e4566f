"""Promise 27: a key that stops working at an upstream holds that upstream, loses nothing, and resumes when the secret
changes.

Under an open-loop load the upstream suddenly accepts only another key. It must be left alone within seconds, and
nothing may be lost or die. Then the secret's file changes: by being replaced, by being written anew, or, as mounted
secrets do, by a symbolic link in its path that leads elsewhere. The negative control changes no file.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.chaos.accounts import account
from tests.chaos.load import CALLER_KEY, Ledger, Load
from tests.chaos.processes import CONCURRENCY, Process, free_port, outbox, running
from tests.chaos.sink import Sink, sink
from tests.chaos.verdicts import Verdict, command, parser

HOLDS_WITHIN = 5.0
RESUMES_WITHIN = 5.0
STAYS_HELD = 2.5
PROBES = 1
"""Requests that may still come once those under way have ended: a held upstream is probed once a minute."""


def _replaced(folder: Path, key: str) -> None:
    (folder / "next").write_text(f"{key}\n")
    (folder / "next").rename(folder / "key")


def _written(folder: Path, key: str) -> None:
    (folder / "key").write_text(f"{key}\n")


def _mounted(folder: Path, key: str) -> None:
    """Changes the key as in a mounted secret: `key` links through `..data`, which links to a folder per version."""
    version = folder / f"..{key}"
    version.mkdir()
    (version / "key").write_text(f"{key}\n")
    (folder / "next").symlink_to(version.name)
    (folder / "next").rename(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "next").symlink_to("..data/key")
        (folder / "next").rename(folder / "key")


CHANGES: tuple[Callable[[Path, str], None], ...] = (_replaced, _written, _mounted, _mounted)


def _configuration(directory: Path, upstream: str) -> Path:
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{directory / "gateway.db"}"\n'
        f'[inbound.ilert]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n'
        f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream}"\nkey = "file:{directory / "secrets" / "key"}"\n'
        f'retry = {{ first = "20ms", most = "200ms" }}\nconcurrency = {CONCURRENCY}\n'
    )
    return path


async def rotate(
    directory: Path, turns: int, *, rate: float = 100.0, changes: bool = True, first: int = 0, stays: float = STAYS_HELD
) -> Verdict:
    """Rotates the key `turns` times under load, beginning with way `first`; each time it stays held for `stays` s."""
    ledger, port, stop = Ledger(), free_port(), asyncio.Event()
    verdict, to_hold, to_resume, asked = Verdict(), [0.0], [0.0], [0]
    folder = directory / "secrets"
    folder.mkdir()
    _written(folder, "upstream-key-0")
    with sink(directory) as upstream:
        upstream.mood(wants="upstream-key-0")
        async with running(_configuration(directory, upstream.url), port) as process:
            loading = asyncio.create_task(Load(ledger, port).offer(rate, stop))
            await asyncio.sleep(0.5)
            ways = itertools.islice(itertools.cycle(CHANGES), first, first + turns)
            for number, change in enumerate(ways, 1):
                upstream.mood(wants=f"upstream-key-{number}")
                to_hold.append(await _held(process))
                asked.append(await _asked(upstream, stays))
                if changes:
                    change(folder, f"upstream-key-{number}")
                to_resume.append(await _resumed(upstream))
                await asyncio.sleep(0.5)
            stop.set()
            await loading
            drained = await process.drained(240.0 if changes else 2.0)
            await process.terminate()
        arrivals = upstream.arrivals()
        taken = [one for one in arrivals if one.status == 202]
        found = account(ledger, taken, await outbox(directory / "gateway.db"))
    verdict.figures |= {"rotations": turns, "told 401": len(arrivals) - len(taken), "s to hold (worst)": max(to_hold)}
    verdict.figures |= {"asked while held (worst)": max(asked), "s to resume (worst)": max(to_resume)}
    found.judge(verdict, CONCURRENCY)
    verdict.hold(drained, "the outbox did not drain")
    verdict.hold(max(to_hold) <= HOLDS_WITHIN, f"not held within {HOLDS_WITHIN:g} s")
    verdict.hold(max(asked) <= PROBES, f"it was asked {max(asked)} times while it was held")
    verdict.hold(max(to_resume) <= RESUMES_WITHIN, f"not resumed within {RESUMES_WITHIN:g} s")
    verdict.hold(not ledger.of("refused"), f"{len(ledger.of('refused'))} requests were refused")
    return verdict


async def _held(process: Process) -> float:
    """Returns after how many seconds the gateway says that it holds the upstream."""
    began = time.monotonic()
    async with httpx.AsyncClient() as client:
        while time.monotonic() < began + 2 * HOLDS_WITHIN:
            answer = await process.get("/-/ready", client)
            if answer is not None and answer.json()["held"] == ["oncall"]:
                break
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def _asked(upstream: Sink, seconds: float) -> int:
    """Returns how many requests a held upstream gets within `seconds`, once those under way have ended."""
    await asyncio.sleep(0.3)
    before = len(upstream.arrivals())
    await asyncio.sleep(seconds)
    return len(upstream.arrivals()) - before


async def _resumed(upstream: Sink) -> float:
    """Returns after how many seconds the upstream accepted something again."""
    began = time.monotonic()
    while time.monotonic() < began + 2 * RESUMES_WITHIN:
        if any(one.at >= began and one.status == 202 for one in upstream.arrivals()[-500:]):
            break
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    turns = 1 if given.control else given.turns
    return await rotate(directory, turns, rate=given.rate, changes=not given.control)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--turns", type=int, default=20)
    arguments.add_argument("--rate", type=float, default=100.0)
    return command("rotated key", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
