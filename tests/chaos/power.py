"""Promise 2: survives power loss, a torn and a truncated write-ahead log.

The store runs in this process on a disk that can lose power (`crashfs`), with groups of concurrent writes and
checkpoints. Then images are made of the disk as it may have been at random instants; each is opened as a gateway would,
must be sound, and must hold everything that was acknowledged by then. The next round goes on from one of the images.
The full figure: `python -m tests.chaos.power --images 10000`. The negative control runs at `synchronous=NORMAL`.

With `--failing` the disk's syncs fail in every fourth group (promise 3): nothing may be acknowledged then, and the
store must go on by itself afterwards. SQLite's index of the log is in memory here (a VFS written in Python has no
shared memory); what is written and synced is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from gateway.errors import StoreError
from gateway.store import AlertFilter, DeliveryFilter, Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos.crashfs import LOSSES, Disk, Entry, Shown
from tests.chaos.verdicts import Verdict, command, parser
from tests.engine.store_drivers import alert, delivery
from tests.engine.store_drivers import command as command_row

IN_MEMORY = Path("/dev/shm")
STEPS = 60
"""Groups of concurrent writes in a round."""
ROUNDS_PER_STORE = 4
_names = itertools.count()
Fact = tuple[str, int]


class _OnDisk(SqliteStore):
    """The store on a given disk. Without shared memory there can be one connection only; it reads and writes."""

    def __init__(self, path: Path, disk: Disk, synchronous: str) -> None:
        super().__init__(str(path), synchronous=synchronous)
        self._disk = disk
        self._only: apsw.Connection | None = None

    def _connect(self, cache: int) -> apsw.Connection:
        if self._only is None:
            self._only = apsw.Connection(self._path, vfs=self._disk.name)
            self._only.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._only.execute("PRAGMA journal_mode = WAL")
            self._only.execute(f"PRAGMA synchronous = {self._synchronous}")
        return self._only


@dataclass
class Tally:
    """The results of all the images of a run."""

    images: int = 0
    facts: int = 0
    lost: int = 0
    unsound: int = 0
    out_of_order: int = 0
    refused: int = 0
    stuck: int = 0
    first: str = ""


@dataclass
class _Round:
    """One life of the store: the files it began with, and what was written in it, in order."""

    chance: random.Random
    tally: Tally
    files: dict[str, bytes] = field(default_factory=dict)
    order: list[Fact] = field(default_factory=list)
    number: int = 0
    fails: bool = False

    def accept(self, number: int, padding: str, tx: Tx) -> None:
        """Writes what a command does: the alert, the command and its delivery, together."""
        tx.insert_alert(alert(number, key=f"k-{number}", resource=padding))
        tx.insert_command(command_row(number, alert=number))
        tx.insert_delivery(delivery(number, alert=number, lane=f"l-{number}"))
        self.order.append(("accepted", number))

    def deliver(self, number: int, tx: Tx) -> None:
        """Writes what the end of a delivery does."""
        tx.update_delivery(delivery(number, alert=number, lane=f"l-{number}", state="delivered", finished_at=number))
        self.order.append(("delivered", number))

    async def live(self, directory: Path, synchronous: str) -> list[Entry]:
        """Runs the store on a disk made of `files`; returns the log of that disk."""
        for name, data in self.files.items():
            (directory / name).write_bytes(data)
        disk = Disk(f"crash{next(_names)}")
        async with _OnDisk(directory / "gateway.db", disk, synchronous) as store:
            waiting = [number for what, number in self.order if what == "accepted"][-20:]
            for step in range(STEPS):
                disk.is_failing = self.fails and step % 4 == 3
                told = await asyncio.gather(*(self._write(store, disk, one) for one in self._group(waiting)))
                if disk.is_failing:
                    self.tally.refused += told.count(False)
                else:
                    self.tally.stuck += told.count(False)
            disk.is_failing = False
            happened = list(disk.log)
        disk.unregister()
        return happened

    def _group(self, waiting: list[int]) -> list[tuple[Fact, Callable[[Tx], None]]]:
        group: list[tuple[Fact, Callable[[Tx], None]]] = []
        done = [waiting.pop(0) for _ in range(min(len(waiting), self.chance.randint(0, 4)))] if not self.fails else []
        group += [(("delivered", number), partial(self.deliver, number)) for number in done]
        for _ in range(self.chance.randint(1, 8)):
            self.number += 1
            waiting.append(self.number)
            padding = "x" * self.chance.choice((10, 500, 6000))
            group.append((("accepted", self.number), partial(self.accept, self.number, padding)))
        return group

    async def _write(self, store: SqliteStore, disk: Disk, one: tuple[Fact, Callable[[Tx], None]]) -> bool:
        fact, work = one
        try:
            await store.write(work)
        except StoreError:
            return False
        disk.note(Entry("fact", fact=fact))
        return True


async def _found(path: Path) -> set[Fact]:
    """Opens a store and returns what it holds; raises if it is not sound."""
    async with SqliteStore(str(path), exclusive=False) as store:
        rows, _ = await store.read(lambda tx: tx.alerts("s", AlertFilter()))
        sent = await store.read(lambda tx: tx.deliveries(DeliveryFilter(limit=1_000_000)))
        last = await store.read(lambda tx: all(tx.command(row.id) for row in rows[-5:]))
    accepted = {row.id for row in rows}
    if accepted != {row.id for row in sent} or not last:
        raise ValueError("a transaction was stored in part")
    connection = apsw.Connection(str(path))
    sound = connection.pragma("quick_check")
    connection.close()
    if sound != "ok":
        raise ValueError(f"quick_check: {sound}")
    facts: set[Fact] = {("accepted", number) for number in accepted}
    return facts | {("delivered", row.id) for row in sent if row.state == "delivered"}


async def _look(files: dict[str, bytes], told: list[Fact], round_: _Round, room: Path) -> set[Fact] | None:
    """Opens one image, adds its result to the tally, and returns what it holds; None if it is not sound."""
    tally = round_.tally
    with tempfile.TemporaryDirectory(dir=room) as directory:
        for name, data in files.items():
            (Path(directory) / name).write_bytes(data)
        tally.images += 1
        tally.facts += len(told)
        try:
            found = await _found(Path(directory) / "gateway.db")
        except (StoreError, apsw.Error, ValueError) as error:
            tally.unsound += 1
            tally.first = tally.first or str(error)
            return None
    lost = set(told) - found
    tally.lost += len(lost)
    tally.first = tally.first or (f"{min(lost)}" if lost else "")
    if not round_.fails:  # what is there must be what was written first
        tally.out_of_order += set(round_.order[: len(found)]) != found
    return found


async def power(
    directory: Path, images: int, *, synchronous: str = "FULL", fails: bool = False, seed: int = 1
) -> Verdict:
    """Examines `images` images of disks that lost power."""
    chance, tally, round_ = random.Random(seed), Tally(), None
    room = IN_MEMORY if os.path.isdir(IN_MEMORY) else directory  # noqa: ASYNC240  (nothing else runs here)
    for life in itertools.count():
        if tally.images >= images:
            break
        if round_ is None or life % ROUNDS_PER_STORE == 0:
            round_ = _Round(chance, tally, fails=fails)
        with tempfile.TemporaryDirectory(dir=room) as living:
            base = list(round_.order)
            happened = await round_.live(Path(living), synchronous)
        shown = Shown(round_.files)
        shown.facts = base
        kept: tuple[dict[str, bytes], set[Fact]] | None = None
        stops = sorted(chance.sample(range(len(happened)), min(len(happened), 60, images - tally.images)))
        since = 0
        for stop in stops:
            for entry in happened[since:stop]:
                shown.goes_on(entry)
            since = stop
            files = shown.image(chance.choice(LOSSES), chance)
            found = await _look(files, list(shown.facts), round_, room)
            kept = (files, found) if found is not None else kept
        if kept is None:
            round_ = None
            continue
        round_.files = kept[0]
        round_.order = [fact for fact in round_.order if fact in kept[1]]
    return _verdict(tally, fails)


def _verdict(tally: Tally, fails: bool) -> Verdict:
    figures: dict[str, Any] = {"images": tally.images, "acknowledgements looked for": tally.facts, "lost": tally.lost}
    figures |= {"unsound": tally.unsound, "out of order": tally.out_of_order}
    verdict = Verdict(figures)
    verdict.hold(tally.facts > 0, "nothing was acknowledged")
    verdict.hold(tally.lost == 0, f"acknowledged ones are lost, such as {tally.first}")
    verdict.hold(tally.unsound == 0, f"images that no gateway can serve from: {tally.first}")
    verdict.hold(tally.out_of_order == 0, "later commits survived though earlier ones were lost")
    verdict.hold(tally.stuck == 0, f"{tally.stuck} were refused though the disk was writable again")
    if fails:
        verdict.figures["refused while syncs failed"] = tally.refused
        verdict.hold(tally.refused > 0, "no sync failed")
    return verdict


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    synchronous = "NORMAL" if given.control else "FULL"
    return await power(directory, given.images, synchronous=synchronous, fails=given.failing, seed=given.seed)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--failing", action="store_true", help="let some syncs fail")
    return command("power loss", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
