"""What operators and disks do to the files of a store in use: no success is answered for what would be lost with the
process, and whoever looks is told. guarantees.md 3."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import shutil
import subprocess
import time
from importlib import resources
from pathlib import Path

import apsw
import pytest

from gateway.errors import StoreError
from gateway.store.copying import copy_store
from gateway.store.sqlite import SqliteStore, SqliteTx
from gateway.store.sqlite_schema import SCHEMAS
from gateway.store.sqlite_side import SqliteSide
from tests.chaos_upstream import chaos
from tests.conformance.errors import is_error_of
from tests.engine.vendors import OK, before, page, rows, settled, table
from tests.harness import House
from tests.processes import HERE

PAGE = 4096
"""Bytes of a page in SQLite's file."""


def ready(h: House) -> tuple[int, str]:
    """Whether the gateway is ready, and what readiness says of its store."""
    sent = h.call("GET", "/-/ready", key=None)
    return sent.status, " ".join(sent.body["faults"])


def is_away(h: House) -> bool:
    """Whether the metrics, which the alerting rules go by, report the store as unavailable."""
    return "alert_gateway_store_unavailable 1.0" in h.client.get(h.url + "/metrics").text


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", ".lock"])
def test_a_file_that_was_moved_away_is_missed_until_it_is_back(tmp_path: Path, ending: str) -> None:
    """The lock file too: without it another gateway would start over the same store and send everything again."""
    file, aside = tmp_path / f"gateway.db{ending}", tmp_path / "aside"
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
        assert page(h, "first").status == 202
        settled(h)
        file.rename(aside)
        refused = page(h, "second")
        assert refused.status == 503 and is_error_of("ilert", refused.body) and refused.headers["retry-after"]
        status, faults = ready(h)
        assert status == 503 and f"{file} was removed" in faults and is_away(h)
        aside.rename(file)
        assert page(h, "second").status == 202 and ready(h) == (200, "") and not is_away(h)
        settled(h, count=2)


def test_a_copy_that_is_put_in_the_place_of_a_store_is_used_after_a_restart_alone(tmp_path: Path) -> None:
    """Whatever was acknowledged since would be in the old, unlinked file and lost."""
    file = tmp_path / "gateway.db"
    with chaos(OK) as upstream:
        with before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
            assert page(h, "first").status == 202
            settled(h)
        copied = file.read_bytes()
        with before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
            copy = tmp_path / "copy.db"
            copy.write_bytes(copied)
            copy.rename(file)
            assert page(h, "second").status == 503
            assert "was replaced after this gateway was started" in ready(h)[1]
        with before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
            assert page(h, "second").status == 202 and ready(h) == (200, "")
            settled(h, count=2)


def test_a_damaged_store_is_not_ready_though_it_takes_what_lies_elsewhere(tmp_path: Path) -> None:
    """Commits that touch no damaged page succeed: readiness, heartbeat and metrics must not go by those while each
    alert is refused."""
    file = tmp_path / "gateway.db"
    with chaos(OK) as upstream, chaos(OK) as pings:
        with before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
            for number in range(30):
                page(h, f"key-{number}", details="x" * 500)
            settled(h, count=30)
            (root,) = rows(h, "rootpage", "sqlite_schema WHERE name = 'alerts_shown'")
        with file.open("r+b") as damaged:
            damaged.seek((root - 1) * PAGE)
            damaged.write(b"\xa5" * PAGE)
        heartbeat = f'[heartbeat]\nurl = "{pings.url}"\nevery = "50ms"\nstall = "1h"\n'
        with before(tmp_path, table("oncall", upstream.url, "ilert"), heartbeat) as h:
            assert page(h, "new").status == 503
            status, faults = ready(h)
            assert status == 503 and f"{file} is damaged" in faults and "malformed" in faults and is_away(h)
            beats = len(pings.got)
            time.sleep(0.5)
            assert len(pings.got) <= beats + 1, "the heartbeat goes on though alerts are refused"


def test_a_store_is_one_by_whatever_link_it_is_reached(tmp_path: Path) -> None:
    """A second gateway over it would send everything again."""
    link = tmp_path / "elsewhere" / "other.db"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "gateway.db")

    async def open_both() -> None:
        async with SqliteStore(str(tmp_path / "gateway.db")):
            with pytest.raises(StoreError, match="another gateway serves from"):
                await SqliteStore(str(link)).__aenter__()
        assert [one.name for one in link.parent.iterdir()] == ["other.db"]

    asyncio.run(open_both())


def test_a_look_does_not_bring_a_store_up_to_date_beneath_a_gateway_of_the_release_before(tmp_path: Path) -> None:
    """The older release could not be restarted over a migrated store; only a gateway's start migrates."""
    path = tmp_path / "gateway.db"
    with contextlib.closing(apsw.Connection(str(path))) as older:
        for number, name in enumerate(SCHEMAS[:-1], 1):
            older.execute(resources.files("gateway.store").joinpath("schema", name).read_text("utf8"))
            older.pragma("user_version", number)

    async def look() -> None:
        async with SqliteStore(str(path), exclusive=False) as store:
            await store.read(lambda tx: tx.waiting())

    with (tmp_path / "gateway.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"is of an older release.* with --url"):
            asyncio.run(look())
        with contextlib.closing(apsw.Connection(str(path))) as older:
            assert older.pragma("user_version") == len(SCHEMAS) - 1
    asyncio.run(look())  # where no gateway serves from it, a command does migrate
    with contextlib.closing(apsw.Connection(str(path))) as newer:
        assert newer.pragma("user_version") == len(SCHEMAS)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the runbook's command is not here")
@pytest.mark.parametrize("version", [0, len(SCHEMAS)])
def test_another_programs_database_is_left_as_it_is(version: int, tmp_path: Path) -> None:
    """Neither a gateway nor a command makes its tables there, nor is anything else changed."""
    file = tmp_path / "places.sqlite"
    with contextlib.closing(apsw.Connection(str(file))) as other:
        other.execute("CREATE TABLE places (name)")
        other.pragma("user_version", version)
    found = file.read_bytes()

    async def opened(*, exclusive: bool) -> None:
        async with SqliteStore(str(file), exclusive=exclusive):
            raise AssertionError("it was opened")

    for is_serving in (True, False):
        with pytest.raises(StoreError, match="is another program's database"):
            asyncio.run(opened(exclusive=is_serving))
    with pytest.raises(StoreError, match="is another program's database"):
        copy_store(str(file), tmp_path / "copy.db")
    with contextlib.closing(SqliteSide(str(file), may_be_made=True)) as side, pytest.raises(StoreError):
        side.open()
    assert file.read_bytes() == found


def test_what_the_runbook_gets_out_of_a_damaged_store_is_sent(tmp_path: Path) -> None:
    said = (HERE / "README.md").read_text("utf8").partition("### `store-unavailable`")[2]
    line = re.search(r"```sh\n(.*?)```", said, re.DOTALL)
    assert line
    with before(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert")) as h:
        for number in range(30):
            page(h, f"key-{number}", details="x" * 500)
        (root,) = rows(h, "rootpage", "sqlite_schema WHERE name = 'alerts_shown'")
    with (tmp_path / "gateway.db").open("r+b") as damaged:
        damaged.seek((root - 1) * PAGE)
        damaged.write(b"\xa5" * PAGE)
    subprocess.run(["sh", "-c", line[1]], cwd=tmp_path, timeout=60, check=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with contextlib.closing(apsw.Connection(str(tmp_path / "rescued.db"))) as rescued:
        assert rescued.pragma("quick_check") == "ok" and sum(one.count for one in SqliteTx(rescued).waiting()) == 30
    (tmp_path / "rescued.db").rename(elsewhere / "gateway.db")
    with chaos(OK) as upstream, before(elsewhere, table("oncall", upstream.url, "ilert")) as h:
        settled(h, count=30)
        assert page(h, "new").status == 202 and ready(h) == (200, "")
