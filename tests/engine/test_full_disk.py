"""A disk that is really full, on a file system of a few megabytes: requests are refused in the caller's words, nothing
acknowledged is lost, and service resumes as soon as there is room. guarantees.md 3. And a clock that is set: 13."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.process import housekeeping, service
from gateway.store.ballast import SIZE, Ballast
from tests.chaos_upstream import HANG, Chaos, chaos, say
from tests.clients.callers import ilert_event
from tests.conformance.errors import is_error_of
from tests.engine.moves import filled, moved, rows_in
from tests.engine.vendors import OK, outbox, page, settled, table
from tests.harness import KEY, House, house
from tests.postgres_server import shared
from tests.processes import HERE

MEGABYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of sixteen megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def use_up(disk: Path, but: int = 0) -> Path:
    """Fills the disk, leaving this many bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        found = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - but)
    return filler


@contextlib.contextmanager
def on(disk: Path, upstream: Chaos, more: str = "") -> Iterator[House]:
    """A gateway whose store is on this disk."""
    text = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{table("oncall", upstream.url, "ilert")}\n{more}'
    with house(disk, config=lambda _: text) as h:
        yield h


def fill_until_refused(h: House) -> int:
    """Sends pages until one is refused; returns how many were accepted."""
    for number in range(2000):
        sent = page(h, f"k{number}", details="x" * 30_000)
        if sent.status == 503:
            assert is_error_of("ilert", sent.body)
            return number
        assert sent.status == 202
    raise AssertionError("the disk is not full")


def test_a_full_disk_is_said_and_gets_over(small_disk: Path) -> None:
    ballast = small_disk / "gateway.db.ballast"
    with chaos(HANG) as upstream, on(small_disk, upstream) as h:
        assert ballast.stat().st_size == SIZE
        filler = use_up(small_disk, but=MEGABYTE)
        taken = fill_until_refused(h)
        assert taken > 3 and not ballast.exists()
        h.wait_for(lambda: "alert_gateway_store_strained 1.0" in h.client.get(h.url + "/metrics").text)
        sent = page(h, "another")
        assert sent.status == 503 and int(sent.headers["retry-after"]) > 0, "refused although the ballast made room"
        assert h.client.get(h.url + "/-/ready").status_code == 503, "no alert can be made durable"
        assert "alert_gateway_store_unavailable 0.0" in h.client.get(h.url + "/metrics").text, "one alarm is enough"
        assert len(outbox(h)) == taken, "what was refused is not there, what was taken is"
        upstream.always(OK)
        for task in list(upstream._open):
            task.get_loop().call_soon_threadsafe(task.cancel)
        settled(h, count=taken, seconds=20)  # what is under way is recorded in the room that the ballast left
        assert page(h, "another").status == 503, "still no room for a ballast"
        filler.unlink()
        began = time.monotonic()
        h.wait_for(lambda: page(h, "another").status == 202)
        assert time.monotonic() - began < 5 and ballast.stat().st_size == SIZE
        settled(h, count=taken + 1)
        assert h.client.get(h.url + "/-/ready").status_code == 200
        assert "alert_gateway_store_strained 0.0" in h.client.get(h.url + "/metrics").text


def test_the_alarm_of_a_full_disk_reaches_somebody(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm is sent although little about it can be stored."""
    said: list[tuple[str, str]] = []

    def heard(got: object) -> object:
        said.append((got.body["alertKey"], got.body["eventType"]))  # type: ignore[attr-defined]
        return OK

    with chaos(HANG) as upstream, chaos(heard) as other, chaos(OK) as pings:  # type: ignore[arg-type]
        more = f'{table("other", other.url, "ilert")}\n[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["other"]\n'
        more += f'[heartbeat]\nurl = "{pings.url}"\nevery = "50ms"\nstall = "1h"\n'
        with on(small_disk, upstream, more) as h:
            assert h.gateway.watch is not None
            h.gateway.watch.interval, h.gateway.watch.calm = 0.1, 2
            filler = use_up(small_disk, but=MEGABYTE)
            fill_until_refused(h)
            h.wait_for(lambda: said == [("alert-gateway/store-full", "ALERT")], 12)
            before = len(pings.got)
            h.wait_for(lambda: len(said) == 1 and h.gateway.store.is_strained)
            page(h, "refused")
            assert len(pings.got) <= before + 1, "the heartbeat goes on although nothing can be made durable"
            filler.unlink()
            h.wait_for(lambda: len(said) == 2, 12)
            assert said[1] == ("alert-gateway/store-full", "RESOLVE")


def test_a_gateway_that_is_started_on_a_full_disk_delivers_what_waits(small_disk: Path) -> None:
    """A gateway that a supervisor restarts then opens the store in the room of the ballast."""
    with chaos(say(503)) as upstream:
        with on(small_disk, upstream) as h:
            assert page(h, "before").status == 202
        filler = use_up(small_disk)
        assert os.statvfs(small_disk).f_bavail == 0
        with on(small_disk, upstream) as h:
            assert page(h, "refused").status == 503
            assert h.client.get(h.url + "/-/ready").status_code == 503, "no alert can be made durable"
            upstream.always(OK)
            assert [row.key for row in settled(h)] == ["before"]
            filler.unlink()
            h.wait_for(lambda: page(h, "after").status == 202)


def test_a_lower_retention_is_room_enough(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store itself filled the disk, purging frees pages inside its file only. Some of them are kept in
    reserve, so that outcomes can be recorded when the rest is used up again."""
    monkeypatch.setattr(housekeeping, "PURGE_EVERY", 0.0)
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.1)
    with chaos(OK) as upstream, on(small_disk, upstream) as h:
        for number in range(2000):
            if page(h, f"k{number}", details="x" * 30_000).status == 503:
                break
            h.call("POST", "/ilert/api/events", ilert_event("RESOLVE", f"k{number}"), key=None)
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert h.gateway.store.is_strained
        h.gateway.config = dataclasses.replace(h.gateway.config, retention=0.001)
        h.wait_for(lambda: page(h, "after").status == 202)
        assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize < 2 * SIZE, "the disk is as full"
        h.wait_for(lambda: not outbox(h, "waiting"))
        upstream.always(say(503))
        h.wait_for(lambda: not h.gateway.store.is_strained)
        taken = fill_until_refused(h)
        h.wait_for(lambda: h.gateway.store.is_strained)
        assert taken > 3 and len(outbox(h, "waiting")) == taken
        h.gateway.config = dataclasses.replace(h.gateway.config, retention=3600.0)
        upstream.always(OK)
        settled(h, count=taken)


def test_a_disk_that_is_full_from_the_start_has_no_ballast(small_disk: Path) -> None:
    filler = use_up(small_disk, but=SIZE)
    ballast = Ballast(str(small_disk / "b"))
    assert not ballast.load() and not ballast.drop()
    filler.unlink()
    assert ballast.load() and ballast.load() and ballast.drop() and not ballast.drop()


# --- the clock -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 30 * 86_400.0, -30 * 86_400.0])
def test_a_clock_that_is_set_neither_stalls_nor_gives_up_what_waits(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock jumps for the whole process; waiting deliveries are moved along within a second, and are
    delivered."""
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.05)
    real, real_ns = time.time, time.time_ns
    with chaos(say(503)) as upstream, on(tmp_path, upstream) as h:
        assert page(h, "before").status == 202
        h.wait_for(lambda: len(upstream.got) >= 2)
        [was] = outbox(h)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(jump * 1e9))
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        h.wait_for(lambda: abs(outbox(h)[0].created_at - was.created_at - jump * 1000) < 2000)
        assert page(h, "after").status == 202
        upstream.always(OK)
        assert {row.key for row in settled(h, count=2)} == {"before", "after"}
        assert not outbox(h, "dead")


def test_what_waits_while_the_machine_sleeps_is_as_late_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stands still meanwhile, so it looks like a clock that was set."""
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.02)
    real, real_ns, real_of = time.time, time.time_ns, time.clock_gettime
    slept = 3600
    with chaos(HANG) as upstream, on(tmp_path, upstream) as h:
        page(h, "one")
        [was] = outbox(h)
        monkeypatch.setattr(time, "clock_gettime", lambda of: real_of(of) + slept)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + slept * 10**9)
        monkeypatch.setattr(time, "time", lambda: real() + slept)
        h.wait_for(lambda: h.gateway.now() - was.created_at > slept * 1000)
        time.sleep(0.1)  # some rounds of housekeeping
        assert outbox(h)[0].created_at == was.created_at


def test_a_clock_that_is_set_back_while_no_gateway_runs_does_not_stall_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is three hours ahead at first, as on a machine that knows the time only once it has a network."""
    real, real_ns = time.time, time.time_ns
    with chaos(say(503)) as upstream:
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 3 * 3600 * 10**9)
        monkeypatch.setattr(time, "time", lambda: real() + 3 * 3600)
        with on(tmp_path, upstream) as h:
            assert page(h, "before").status == 202
            h.wait_for(lambda: len(upstream.got) >= 2)
        monkeypatch.undo()
        upstream.always(OK)
        with on(tmp_path, upstream) as h:
            [row] = settled(h)
            assert row.key == "before" and abs(row.created_at - time.time() * 1000) < 60_000


def test_a_clock_that_is_slewed_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.02)
    real = time.time
    with chaos(HANG) as upstream, on(tmp_path, upstream) as h:
        page(h, "one")
        [was] = outbox(h)
        assert h.gateway.housekeeping is not None
        timekeeping = h.gateway.housekeeping._timekeeping
        real_look = timekeeping.look
        seen: list[float] = []

        async def follow() -> None:
            seen.append(h.gateway.clock.jump)
            await real_look()

        monkeypatch.setattr(timekeeping, "look", follow)
        monkeypatch.setattr(time, "time", lambda: real() + 5)
        h.wait_for(lambda: max(seen, default=0) > 4 and seen[-1] < 1)
        assert outbox(h)[0].created_at == was.created_at


def test_a_copy_that_would_fill_the_disk_is_not_begun(small_disk: Path) -> None:
    """A backup that only just fits is refused: while the copy is there, the serving gateway would refuse alerts."""
    config = small_disk / "gateway.toml"
    config.write_text(
        f'store = "sqlite://{small_disk}/gateway.db"\n[inbound.ilert]\n[upstreams.oncall]\n'
        'dialect = "ilert"\nurl = "https://api.ilert.com"\nkey = "env:NOT_LOOKED_FOR"\n'
    )
    with chaos(HANG) as upstream, on(small_disk, upstream) as h:
        for number in range(50):
            assert page(h, f"k{number}", details="x" * 30_000).status == 202
        use_up(small_disk, but=2 * MEGABYTE)
        stop, told = threading.Event(), list[int]()

        def run() -> None:
            while not stop.is_set() and len(told) < 60:
                told.append(page(h, f"live-{len(told)}").status)

        paging = threading.Thread(target=run)
        paging.start()
        line = [sys.executable, "-m", "gateway.cli", "backup", "--config", str(config), str(small_disk / "copy.db")]
        made = subprocess.run(line, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
        stop.set()
        paging.join(20)
        assert made.returncode == 1 and "must stay free" in made.stderr
        assert set(told) == {202}


def test_what_is_on_a_full_disk_can_be_moved_away(small_disk: Path) -> None:
    """The move uses the ballast; where there is none, the error names the full disk."""
    store, database = filled(small_disk), shared().database()
    use_up(small_disk)
    moved(store, database)
    assert rows_in(database) == rows_in(store)
    (small_disk / "filler").rename(small_disk / "older")
    use_up(small_disk)
    with pytest.raises(StoreError, match=r"cannot be opened: .*; its disk has [0-9,]+ bytes free"):
        moved(store, database)
