"""`backup`: a copy of the store while a gateway serves from it, which another gateway can start from; and every fault
of the destination."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.canonical import Operation
from gateway.store import DeliveryFilter
from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import chaos, say
from tests.engine.vendors import OK, before, page, settled, table
from tests.harness import KEY, House
from tests.processes import HERE, wait_for

PAGES = 30


def backup(config: Path, file: Path, *, limit: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command as an operator types it; `limit` is a shell command run before it."""
    line = [sys.executable, "-m", "gateway.cli", "backup", "--config", str(config), str(file)]
    shell = ["bash", "-c", f'{limit}; exec "$@"', "bash"] if limit else []
    return subprocess.run([*shell, *line], cwd=HERE, capture_output=True, text=True, timeout=60, check=False)


def written(directory: Path, store: str) -> Path:
    """A configuration file over a store."""
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "{store}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        '[upstreams.oncall]\ndialect = "ilert"\nurl = "https://api.ilert.com"\nkey = "env:NOT_LOOKED_FOR"\n'
    )
    return path


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A configuration whose store has a waiting delivery and no gateway that serves from it."""
    with before(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert")) as h:
        for number in range(PAGES):
            page(h, f"key-{number}", details="x" * 500)
    return written(tmp_path, f"sqlite://{tmp_path}/gateway.db")


@contextlib.contextmanager
def looking(copy: Path) -> Iterator[SqliteTx]:
    """Opens a copy as it is."""
    with contextlib.closing(apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        yield SqliteTx(connection)


@contextlib.contextmanager
def paging(h: House, told: list[str]) -> Iterator[None]:
    """Sends pages without a pause until the block ends; `told` grows by the key of each that was accepted."""
    stop = threading.Event()

    def run() -> None:
        for number in range(100_000):
            if stop.is_set():
                return
            if page(h, f"live-{number}").status == 202:
                told.append(f"live-{number}")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def test_a_copy_made_while_alerts_come_in_has_all_that_was_taken_before(tmp_path: Path) -> None:
    """The copy is consistent: it has an alert with its command and its delivery, or none of them."""
    config, copy, told = written(tmp_path, f"sqlite://{tmp_path}/gateway.db"), tmp_path / "copy.db", list[str]()
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert")) as h, paging(h, told):
        h.wait_for(lambda: len(told) >= PAGES)
        sure = list(told)
        made = backup(config, copy)
        after = len(told)
        h.wait_for(lambda: len(told) > after)  # and it takes alerts as before
    assert made.returncode == 0 and "deliveries wait in it" in made.stdout, made.stderr
    with looking(copy) as tx:
        keys = {tx.alert(row.alert).key for row in tx.deliveries(DeliveryFilter(limit=100_000)) if row.alert}  # type: ignore[union-attr]
        assert keys >= set(sure)
        assert all(line.adds_up for line in tx.ledger(0, "caller"))


def test_a_gateway_goes_on_from_a_copy(filled: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = backup(filled, elsewhere / "gateway.db")
    assert made.returncode == 0 and f"{PAGES} deliveries wait in it" in made.stdout
    assert [path.name for path in elsewhere.iterdir()] == ["gateway.db"]
    with chaos(OK) as upstream, before(elsewhere, table("oncall", upstream.url, "ilert")) as h:
        sent = settled(h, count=PAGES, seconds=20)
        assert {row.operation for row in sent} == {Operation.CREATE}
        assert len({got.body["alertKey"] for got in upstream.got}) == PAGES


def test_only_its_owner_may_read_it(filled: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert backup(filled, tmp_path / "copy.db").returncode == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("already", ["file", "directory", "dangling link"])
def test_nothing_is_overwritten(filled: Path, tmp_path: Path, already: str) -> None:
    place = tmp_path / "copy.db"
    if already == "file":
        place.write_text("last week's")
    elif already == "directory":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "nowhere")
    refused = backup(filled, place)
    assert refused.returncode == 1 and "name a" in refused.stderr
    assert already != "file" or place.read_text() == "last week's"
    assert not (tmp_path / "nowhere").exists()


def test_there_is_no_such_directory_or_store(filled: Path, tmp_path: Path) -> None:
    refused = backup(filled, tmp_path / "deep" / "copy.db")
    assert refused.returncode == 1 and f"there is no directory {tmp_path / 'deep'}" in refused.stderr
    nothing = backup(written(tmp_path, f"sqlite://{tmp_path}/other.db"), tmp_path / "copy.db")
    assert nothing.returncode == 1 and "there is no store" in nothing.stderr
    assert not (tmp_path / "copy.db").exists() and not (tmp_path / "other.db").exists()


def test_what_there_is_no_room_for_leaves_nothing_behind(filled: Path, tmp_path: Path) -> None:
    names = {path.name for path in tmp_path.iterdir()}
    refused = backup(filled, tmp_path / "copy.db", limit="ulimit -f 16")
    assert refused.returncode == 1 and "copy" in refused.stderr and "Traceback" not in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"gateway.db-wal", "gateway.db-shm"} == names


def test_who_is_ended_leaves_nothing_behind(filled: Path, tmp_path: Path) -> None:
    """A backup that a timer ends leaves no partial copy: each would take room on the disk."""
    copies = tmp_path / "copies"
    copies.mkdir()
    line = [sys.executable, "-m", "gateway.cli", "backup", "--config", str(filled), str(copies / "copy.db")]
    with contextlib.closing(apsw.Connection(f"{tmp_path}/gateway.db")) as held:
        held.pragma("journal_mode", "delete")
        held.execute("BEGIN EXCLUSIVE")
        with subprocess.Popen(line, cwd=HERE, stderr=subprocess.DEVNULL) as process:
            wait_for(lambda: [*copies.iterdir()])
            process.send_signal(signal.SIGTERM)
            held.execute("ROLLBACK")
            process.wait(30)
    assert process.returncode and not [*copies.iterdir()]


def test_a_store_that_is_damaged_is_told_now_and_not_when_it_is_needed(filled: Path, tmp_path: Path) -> None:
    with (tmp_path / "gateway.db").open("r+b") as store:
        store.seek(3 * 4096)
        store.write(b"\xff" * 4096 * 3)
    refused = backup(filled, tmp_path / "copy.db")
    assert refused.returncode == 1 and refused.stderr.startswith("Error: ") and "Traceback" not in refused.stderr
    assert not (tmp_path / "copy.db").exists()


def test_postgresql_has_its_own(tmp_path: Path) -> None:
    config = written(tmp_path, "postgresql://gateway:pa55word@db/alerts")
    refused = backup(config, tmp_path / "copy.dump")
    assert refused.returncode == 1 and "pg_dump" in refused.stderr and "pa55word" not in refused.stderr


def test_a_copy_of_what_is_full_of_waiting_is_still_whole(tmp_path: Path) -> None:
    """The copy is consistent while attempts fail and are recorded and put off at the same time."""
    config, copy = written(tmp_path, f"sqlite://{tmp_path}/gateway.db"), tmp_path / "copy.db"
    with chaos(say(503)) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
        for number in range(PAGES):
            page(h, f"key-{number}")
        assert backup(config, copy).returncode == 0
    with looking(copy) as tx:
        assert sum(one.count for one in tx.waiting()) == PAGES
