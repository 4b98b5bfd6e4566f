"""How a process starts: nothing is delivered before it certainly serves, and it can be ended while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import trustme

from gateway.config.loading import parse
from gateway.process.service import Gateway
from gateway.store.postgres_schema import LOCK
from tests.chaos.processes import free_port
from tests.chaos_upstream import chaos
from tests.clients.callers import ilert_event
from tests.engine import certificates
from tests.engine.vendors import OK, before, page, settled, table
from tests.harness import KEY
from tests.postgres_server import shared
from tests.processes import HERE, serving, wait_for

INBOUND = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'


@contextlib.contextmanager
def _starting(config: Path, listen: str = "127.0.0.1:0") -> Iterator[subprocess.Popen[str]]:
    """Runs `serve`, whether or not it ever gets to serve."""
    line = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--listen", listen]
    with subprocess.Popen(line, cwd=HERE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nothing_is_delivered_where_the_port_is_taken(tmp_path: Path) -> None:
    """It would be sent again by the gateway that has the port, or by the next start."""
    with before(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert")) as h:
        page(h)
        settled(h, "waiting")
    config = tmp_path / "gateway.toml"
    with chaos(OK) as upstream, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        store = f'store = "sqlite://{tmp_path}/gateway.db"\n'
        config.write_text(store + INBOUND + table("oncall", upstream.url, "ilert"))
        with _starting(config, f"127.0.0.1:{taken.getsockname()[1]}") as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == 1 and "listen.failed" in said, said
        assert f"Address already in use: '127.0.0.1:{taken.getsockname()[1]}'" in said, "there may be another, of admin"
        assert upstream.got == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_its_store_can_be_ended(tmp_path: Path, number: signal.Signals) -> None:
    """Another replica may be migrating the schema, for up to an hour."""
    url = shared().database()
    config = tmp_path / "gateway.toml"
    config.write_text(f'store = "{url}"\n' + INBOUND + table("oncall", "http://127.0.0.1:9", "ilert"))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
    waiting += "(SELECT oid FROM pg_database WHERE datname = current_database())"
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        with _starting(config) as process:
            wait_for(lambda: (other.execute(waiting.encode()).fetchone() or (0,))[0], 60)
            began = time.monotonic()
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            assert time.monotonic() - began < 10
            assert process.returncode == 0, said
            assert "stopped" in said


def test_only_the_opening_of_the_store_is_ended_at_once(tmp_path: Path) -> None:
    """A signal cuts off only the opening: deliveries begin while a large store is still being looked through, and one
    cut off before its answer would be sent again."""
    config = parse(
        f'store = "sqlite://{tmp_path}/gateway.db"\n' + INBOUND + table("oncall", "http://127.0.0.1:9", "ilert")
    )
    gateway, delivering = Gateway(config), []

    @contextlib.contextmanager
    def opening() -> Iterator[None]:
        yield
        delivering.append(gateway.dispatcher)

    async def run() -> None:
        async with gateway.running(opening()):
            assert delivering == [None]

    asyncio.run(run())


@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "TLS, of which nobody says a word"])
def test_callers_leave_files_for_deliveries_and_operators(tmp_path: Path, has_tls: bool) -> None:
    """Whoever keeps all connections that it gets keeps others from calling, but from nothing else."""
    config, admin, authority = tmp_path / "gateway.toml", free_port(), trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    cert, key = certificates.write(tmp_path / "certificates", authority, "127.0.0.1")
    tls = f'tls = {{ cert = "{cert}", key = "{key}" }}\n' if has_tls else ""
    with chaos(OK) as upstream, contextlib.ExitStack() as kept:
        config.write_text(
            f'store = "sqlite://{tmp_path}/gateway.db"\nadmin = "127.0.0.1:{admin}"\n{tls}{INBOUND}'
            + table("oncall", upstream.url, "ilert")
        )
        with serving(config) as running, httpx.Client(base_url=running.url, verify=trusted) as caller:
            event = ilert_event("ALERT", "k", summary="s")
            assert caller.post("/api/events", json={**event, "eventType": "nonsense"}).status_code == 400
            resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (200, 200))
            address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
            for _ in range(250):
                kept.enter_context(socket.create_connection(address))
            running.waits_for("connections.refused")
            assert caller.post("/api/events", json=event).status_code == 202
            running.waits_for("delivery.delivered")
            assert httpx.get(f"http://127.0.0.1:{admin}/-/ready").status_code == 200
            assert not running.events("delivery.failed") and len(running.events("connections.refused")) == 1
            kept.close()
            wait_for(lambda: _takes(running.url, trusted))


def _takes(url: str, trusted: ssl.SSLContext) -> bool:
    event = ilert_event("ALERT", "k2", summary="s")
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(f"{url}/api/events", json=event, verify=trusted).status_code == 202
    return False


def test_it_takes_as_many_connections_as_the_system_allows(tmp_path: Path) -> None:
    """Many systems start a process with a limit of 1,024 files, and let it raise that."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'store = "sqlite://{tmp_path}/gateway.db"\n{INBOUND}{table("oncall", "http://127.0.0.1:9", "ilert")}'
    )
    few = ["/bin/sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh"]
    line = [*few, sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(line, cwd=HERE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            assert any('"event": "serving"' in said for said in process.stderr)
            now, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            assert now == most > 256
        finally:
            process.kill()
