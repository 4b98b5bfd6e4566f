"""A gateway whose PostgreSQL is away or has changed: what is said of it, and that all goes on afterwards."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from pathlib import Path

import psycopg
import pytest

from gateway.clock import CLOCK_JUMP
from gateway.config.loading import parse
from gateway.process.service import HOUSEKEEPING
from tests.engine.loads import HEALTHY
from tests.engine.vendors import page
from tests.harness import House, house, inbound_tables, upstream_table
from tests.postgres_server import Server, shared

LEASE = 15.0
AWAY = "alert_gateway_store_unavailable"


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_who_watches_sees_that_it_is_the_store(server: Server, how: str, tmp_path: Path) -> None:
    """`/metrics` goes on with the values from before the outage: a gateway without metrics looks dead, and whoever is
    paged restarts it."""
    with house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=server.database()) as h:

        def metrics() -> str:
            answer = h.client.get(h.url + "/metrics")
            assert answer.status_code == 200 and answer.elapsed.total_seconds() < HEALTHY * 0.8
            return answer.text

        assert page(h).status == 202
        h.wait_for(lambda: 'outcome="delivered",reason="",upstream="oncall"} 1.0' in metrics())
        assert f"{AWAY} 0.0" in metrics()
        getattr(server, how)()
        shown = metrics()
        assert f"{AWAY} 1.0" in shown and 'outcome="delivered",reason="",upstream="oncall"} 1.0' in shown
        ready = h.client.get(h.url + "/-/ready")
        assert ready.status_code == 503
        assert re.fullmatch("the store takes no commits: .+", ready.json()["faults"][0]), "it says why"
        (server.thaw if how == "freeze" else server.start)()
        h.wait_for(lambda: f"{AWAY} 0.0" in metrics(), HEALTHY)


@pytest.mark.parametrize("table", ["deliveries", "slots", "commands"])
def test_a_table_that_is_away_for_a_moment_ends_nobodys_work(table: str, tmp_path: Path) -> None:
    """During a restore or a script that grants rights anew statements fail for a while; afterwards all work
    continues."""
    url = shared().database()
    with (
        psycopg.connect(url, autocommit=True) as other,
        house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=url) as h,
    ):

        def waiting() -> object:
            return other.execute(b"SELECT count(*) FROM deliveries WHERE state <> 'delivered'").fetchone()

        assert page(h, "before").status == 202
        other.execute(f"ALTER TABLE {table} RENAME TO away".encode())
        time.sleep(LEASE / 3 + 1.0)
        assert table == "slots" or page(h, "meanwhile").status == 503
        other.execute(f"ALTER TABLE away RENAME TO {table}".encode())
        assert page(h, "after").status == 202
        h.wait_for(lambda: waiting() == (0,), HEALTHY)
        assert h.client.get(h.url + "/-/ready").status_code == 200
        kept = b"SELECT count(*) FROM slots WHERE leased_until > now() + make_interval(secs => %s)"
        h.wait_for(lambda: other.execute(kept, (LEASE - 2.0,)).fetchone() == (1,), HEALTHY)


@pytest.mark.parametrize("hours", [3, -3])
def test_a_replica_whose_clock_is_wrong_goes_by_the_one_of_the_database(
    hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a replica that is three hours ahead notes is due for the others too, also after its clock was set right."""
    url, real, real_ns = shared().database(), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + hours * 3600 * 10**9)
    off = b"SELECT max(abs(created_at - extract(epoch FROM clock_timestamp()) * 1000)) FROM deliveries WHERE key = %s"
    with (
        psycopg.connect(url, autocommit=True) as other,
        house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=url) as h,
    ):

        def is_right(key: str) -> bool:
            assert page(h, key).status == 202
            [found] = other.execute(off, (key,)).fetchone() or (None,)
            return found is not None and float(found) < CLOCK_JUMP * 1000

        assert h.gateway.dispatcher is not None
        shut_at = h.gateway.dispatcher._lanes["oncall"].gate._shut_at
        assert abs(shut_at - real() * 1000) < 60_000, "what other replicas took since would not be seen for hours"
        assert is_right("wrong")
        time.sleep(HOUSEKEEPING * 1.5)
        assert is_right("still wrong")
        monkeypatch.undo()
        time.sleep(HOUSEKEEPING * 1.5)
        assert is_right("set right")


def _says(h: House, word: str) -> bool:
    return word in h.call("GET", "/-/ready").body["faults"][0]


def test_a_password_that_is_replaced_is_used_from_then_on(server: Server, tmp_path: Path) -> None:
    """README: a `file:` secret is read again when the file changes. The change alone does not make a reload fail."""
    file, url = tmp_path / "store", server.database()
    rules = Path(server.data) / "pg_hba.conf"
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(b"CREATE ROLE gate SUPERUSER LOGIN PASSWORD 'first-word'")
        rules.write_text("host all gate 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        other.execute(b"SELECT pg_reload_conf()")
        file.write_text(url.replace("postgres@", "gate:first-word@"))
        with house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=f"file:{file}") as h:
            assert page(h, "before").status == 202
            other.execute(b"ALTER ROLE gate PASSWORD 'next-word'")
            other.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'")
            assert page(h, "meanwhile").status == 503
            for meant, said in {"gate:next/word@": "percent-encoded", "gate:next-word@x": "requires a restart"}.items():
                file.write_text(url.replace("postgres@", meant))
                h.wait_for(partial(_says, h, said), HEALTHY)
            file.write_text(url.replace("postgres@", "gate:next-word@"))
            h.wait_for(lambda: page(h, "after").status == 202, HEALTHY)
            replaced = upstream_table("oncall", "ilert", h.sandbox_url)
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["oncall"].get_loop()
            config = parse(f'store = "file:{file}"\n{inbound_tables(["ilert"])}\n{replaced}')
            asyncio.run_coroutine_threadsafe(h.gateway.reload(config), loop).result(15)
            h.wait_for(lambda: page(h, "at last").status == 202, HEALTHY)  # a writer may just have been refused
