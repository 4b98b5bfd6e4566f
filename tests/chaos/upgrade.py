"""Promise 23: an upgrade keeps the backlog: a store that an earlier release left opens and delivers what waits in it.

`--make` writes the store of the present release into `stores/`, by running the gateway: some delivered, some dead, the
rest waiting, with every acknowledgement in a ledger beside it. Without it, a copy of each kept store is opened by a
gateway of this release, everything that waited must arrive, under the same keys and in order, and the ledger must add
up. Make a store at each release, and whenever a schema was added; never remake an old one. The negative control takes
one waiting delivery out of the copy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import apsw
import httpx

from gateway import __version__
from tests.chaos.load import CALLER_KEY
from tests.chaos.processes import Process, configuration, free_port, outbox, running
from tests.chaos.sink import Sink, sink
from tests.chaos.verdicts import Verdict, command, parser

STORES = Path(__file__).parent / "stores"
KEEPS = 'retention = "36500d"'
DELIVERED, DEAD, WAITING = 5, 2, 24
Said = list[str]
"""An acknowledged event: its word, its key ("" where the gateway chose one), its summary."""


async def _send(client: httpx.AsyncClient, said: Said) -> Said:
    word, key, summary = said
    event = {"apiKey": CALLER_KEY, "eventType": word, "summary": summary, **({"alertKey": key} if key else {})}
    answer = await client.post("/api/events", json=event)
    assert answer.status_code == 202, answer.text
    return said


async def _until(process: Process, upstream: Sink, count: int) -> None:
    """Waits until `count` requests have arrived; their outcomes are recorded a moment later, before the drain ends."""
    for _ in range(1000):
        if len(upstream.arrivals()) >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"only {len(upstream.arrivals())} of {count} arrived")


async def make(directory: Path) -> Path:
    """Makes the store of the present release, closed as at an upgrade."""
    ledger: dict[str, Any] = {"release": __version__, "waiting": []}
    with sink(directory) as upstream:
        config = configuration(directory, upstream.url, top=KEEPS)
        async with running(config, free_port()) as process, httpx.AsyncClient(base_url=process.url) as client:
            for number in range(DELIVERED):
                await _send(client, ["ALERT", f"before-{number}", f"delivered {number}"])
            await _until(process, upstream, DELIVERED)
            upstream.mood(status=400)
            for number in range(DEAD):
                await _send(client, ["ALERT", f"dead-{number}", f"dead {number}"])
            await _until(process, upstream, DELIVERED + DEAD)
            upstream.mood(status=503)
            for number in range(WAITING):
                key = f"waits-{number // 3}" if number % 4 else ""
                word = ("ALERT", "ACCEPT", "COMMENT")[number % 3] if key and number > 3 else "ALERT"
                ledger["waiting"].append(await _send(client, [word, key, f"waiting {number}"]))
            ledger["waiting"].append(await _send(client, ["RESOLVE", "before-0", "waiting at the end"]))
            assert await process.terminate() == 0
    path = STORES / f"{__version__}.db"
    if path.exists():
        raise SystemExit(f"{path.name} is kept already; a release has one store")
    STORES.mkdir(exist_ok=True)
    connection = apsw.Connection(str(directory / "gateway.db"))
    connection.pragma("journal_mode", "delete")  # so that the file alone is complete
    connection.execute("VACUUM")
    connection.close()
    shutil.copy(directory / "gateway.db", path)
    path.with_suffix(".json").write_text(json.dumps(ledger, indent=1) + "\n")
    return path


async def deliver(directory: Path, store: Path, *, loses: bool = False) -> Verdict:
    """Opens a copy of a kept store and delivers its backlog."""
    shutil.copy(store, directory / "gateway.db")
    expected: list[Said] = json.loads(store.with_suffix(".json").read_text())["waiting"]
    before = {row.id for row in await outbox(directory / "gateway.db")}
    if loses:
        with apsw.Connection(str(directory / "gateway.db")) as connection:
            connection.execute("DELETE FROM deliveries WHERE id = (SELECT max(id) FROM deliveries)")
    with sink(directory) as upstream:
        config = configuration(directory, upstream.url, top=KEEPS)
        async with running(config, free_port()) as process:
            drained = await process.drained(30.0)
            status = await process.terminate()
        arrived = [(one.word, one.key, one.summary) for one in upstream.arrivals()]
    rows = await outbox(directory / "gateway.db", is_whole=not loses)
    unsent = [row for row in rows if row.state in ("merged", "void") and row.finished_at]
    missing = [said for said in expected if not any(_is(said, one) for one in arrived)]
    verdict = Verdict({"waited": len(expected), "arrived": len(arrived), "merged or void": len(unsent)})
    verdict.figures |= {"lost": max(0, len(missing) - len(unsent)), "dead, kept": sum(r.state == "dead" for r in rows)}
    verdict.hold(len(missing) <= len(unsent), f"{len(missing)} never arrived, such as {missing[:2]}")
    verdict.hold({row.id for row in rows} >= before, "deliveries are gone from the ledger")
    verdict.hold(drained and status == 0, "the outbox did not drain")
    verdict.hold(sum(row.state == "dead" for row in rows) == DEAD, "the number of dead letters changed")
    verdict.hold(_in_order(expected, arrived), "a key's events arrived in another order")
    return verdict


def _is(said: Said, arrived: tuple[str, str, str]) -> bool:
    """Returns whether an arrival is this event; a late one may say so in its summary."""
    word, key, summary = said
    return arrived[0] == word and (not key or arrived[1] == key) and summary in (arrived[2] or summary)


def _in_order(expected: list[Said], arrived: list[tuple[str, str, str]]) -> bool:
    order = {(word, key): number for number, (word, key, _) in enumerate(expected) if key}
    for key in {key for _, key, _ in expected if key}:
        places = [order[word, key] for word, at, _ in arrived if at == key and (word, at) in order]
        if places != sorted(places):
            return False
    return True


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    if given.make:
        return Verdict({"made": (await make(directory)).name})
    whole = Verdict()
    for number, store in enumerate(sorted(STORES.glob("*.db"))):
        room = directory / str(number)
        room.mkdir()
        one = await deliver(room, store, loses=given.control)
        whole.figures |= {f"{what} ({store.stem})": value for what, value in one.figures.items()}
        whole.broken += [f"{store.stem}: {text}" for text in one.broken]
    whole.hold(bool(whole.figures), "there is no store of any release")
    return whole


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--make", action="store_true", help="save a store of the present release")
    return command("upgrade", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
