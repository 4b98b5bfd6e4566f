"""A gateway that was killed while an upstream held back its answer: what may have been made there is looked for and not
made again, although nothing was recorded of the attempt. Real processes and `kill -9`; guarantees.md 4."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from gateway.errors import StoreError
from tests.chaos.leased import leased
from tests.chaos_upstream import HANG, chaos, say
from tests.engine.moves import moved
from tests.engine.vendors import NEEDS, Ibm, Uptinio, Vendor, table, writes
from tests.harness import KEY
from tests.postgres_server import shared
from tests.processes import Running, serving, wait_for

LEASE = 1.0
VENDORS = {"uptinio": Uptinio, "ibm_monitoring": Ibm}


def _configuration(directory: Path, store: str, *tables: str) -> Path:
    path = directory / "gateway.toml"
    url = shared().database() if store == "postgresql" else f"sqlite://{directory}/gateway.db"
    path.write_text(f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n' + "\n".join(tables))
    return path


def _page(running: Running, summary: str = "Disk full", *, key: str = "disk", severity: int = 2) -> None:
    event = {"apiKey": KEY, "eventType": "ALERT", "summary": summary, "alertKey": key, "severity": severity}
    assert httpx.post(running.url + "/api/events", json=event, timeout=10).status_code == 202


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.parametrize("dialect", VENDORS)
def test_a_create_that_a_kill_left_unrecorded_is_looked_for(tmp_path: Path, dialect: str, store: str) -> None:
    there: Vendor = VENDORS[dialect]()
    there.then = [HANG]
    with chaos(there) as upstream:
        config = _configuration(tmp_path, store, table("there", upstream.url, dialect))
        with serving(config, program=leased(LEASE)) as running:
            _page(running)
            wait_for(lambda: writes(upstream))
            running.signal(signal.SIGKILL)
        with serving(config, program=leased(LEASE)) as running:
            running.waits_for("delivery.delivered")
            _page(running, "Disk fuller")
            running.waits_for("delivery.delivered", 2)
        assert [got.method for got in writes(upstream)] == ["POST", "PUT"]
        assert len(there.held) == 1


@pytest.mark.parametrize("origin", ["sqlite", "postgresql"])
def test_a_create_that_a_kill_left_unrecorded_is_looked_for_in_the_store_it_was_moved_to(
    tmp_path: Path, origin: str
) -> None:
    """The engines say in their own ways what may have been sent. What SQLite said before a move to PostgreSQL is not
    true of what was killed there."""
    there = Uptinio()
    there.then = [HANG]
    first, database, back = f"sqlite://{tmp_path}/gateway.db", shared().database(), f"sqlite://{tmp_path}/back.db"
    stores = (first, database) if origin == "sqlite" else (database, back)
    with chaos(there) as upstream:

        def named(store: str) -> Path:
            config = _configuration(tmp_path, "sqlite", table("there", upstream.url, "uptinio"))
            config.write_text(config.read_text().replace(first, store))
            return config

        if origin == "postgresql":
            with serving(named(first)) as running:
                running.signal(signal.SIGTERM)
                assert running.process.wait(20) == 0
            moved(first, database)
        with serving(named(stores[0]), program=leased(LEASE)) as running:
            _page(running)
            wait_for(lambda: writes(upstream))
            running.signal(signal.SIGKILL)
        wait_for(lambda: _can_be_moved(stores))
        with serving(named(stores[1]), program=leased(LEASE)) as running:
            running.waits_for("delivery.delivered")
        assert [got.method for got in writes(upstream)] == ["POST"]
        assert len(there.held) == 1


def _can_be_moved(stores: tuple[str, str]) -> bool:
    """Moves, once the killed gateway's lease has run out; returns whether it has."""
    try:
        moved(*stores)
    except StoreError:
        return False
    return True


def test_after_a_gateway_that_ended_by_itself_nothing_is_looked_for(tmp_path: Path) -> None:
    there = Uptinio()
    with chaos(say(429)) as upstream:
        config = _configuration(tmp_path, "sqlite", table("there", upstream.url, "uptinio"))
        with serving(config) as running:
            _page(running)
            wait_for(lambda: writes(upstream))
            running.signal(signal.SIGTERM)
            assert running.process.wait(20) == 0
        upstream.got.clear()
        upstream.answer = there
        with serving(config) as running:
            running.waits_for("delivery.delivered")
        assert [got.method for got in list(upstream.got)] == ["POST"]


def test_a_probe_that_a_kill_left_unrecorded_is_looked_for(tmp_path: Path) -> None:
    """A probe is a delivery that has not failed yet, however many that have failed are due before it."""
    there = Uptinio()
    with chaos(say(503)) as upstream:
        oncall = table("there", upstream.url, "uptinio", f"{NEEDS}\nconcurrency = 1")
        config = _configuration(tmp_path, "sqlite", oncall)
        with serving(config) as running:
            _page(running, "Old", key="old")
            _page(running, "Older", key="older")
            running.waits_for("upstream.left_alone")
            _page(running, "New")
            running.signal(signal.SIGKILL)
        upstream.got.clear()
        upstream.answer = lambda got: there(got) if got.method == "GET" else (there(got), HANG)[1]
        with serving(config) as running:  # which probes at once
            wait_for(lambda: writes(upstream))
            running.signal(signal.SIGKILL)
        upstream.answer = there
        with serving(config) as running:
            running.waits_for("delivery.delivered")
        assert [held["message"] for held in there.held.values()].count("New") == 1


def test_what_a_kill_left_unrecorded_is_looked_for_though_more_urgent_pages_came(tmp_path: Path) -> None:
    there = Uptinio()
    there.then = [HANG]
    with chaos(there) as upstream:
        oncall = table("there", upstream.url, "uptinio", f"{NEEDS}\nconcurrency = 1\nrate = 600", timeout="30s")
        config = _configuration(tmp_path, "sqlite", oncall)
        with serving(config) as running:
            _page(running, "Slow", severity=4)
            wait_for(lambda: writes(upstream))
            for number in range(3):
                _page(running, f"Down {number}", key=f"down-{number}", severity=1)
            running.signal(signal.SIGKILL)
        with serving(config) as running:
            running.waits_for("delivery.delivered", 4)
        assert len(there.held) == 4
