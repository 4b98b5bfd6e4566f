"""A gateway that was killed while an upstream held back its answer: what may have been made there is looked for and not
made again, although nothing was recorded of the attempt. Real processes and `kill -9`; guarantees.md 4."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.chaos.leased import leased
from tests.chaos_upstream import HANG, chaos, say
from tests.engine.vendors import Ibm, Uptinio, Vendor, table, writes
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


def _page(running: Running, summary: str = "Disk full") -> None:
    event = {"apiKey": KEY, "eventType": "ALERT", "summary": summary, "alertKey": "disk"}
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
