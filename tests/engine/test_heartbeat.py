"""A heartbeat that is withheld while the gateway is in trouble, so that somebody else notices. guarantees.md 29. The
watch is real; only its intervals are short."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loading import parse
from tests.chaos_upstream import HANG, Chaos, chaos, say
from tests.engine.test_watch import ALARMS, INBOUND, SECRET, heartbeat, looks, watched
from tests.engine.vendors import OK, page, table
from tests.harness import House, house
from tests.processes import serving
from tests.proxy import proxy

pytestmark = pytest.mark.usefixtures("_often_watched")


def beats(h: House, pings: Chaos, more: int = 3) -> None:
    """Waits for `more` further pings."""
    before = len(pings.got)
    h.wait_for(lambda: len(pings.got) >= before + more)


@contextlib.contextmanager
def beating(directory: Path, answer: Any, pong: Any) -> Iterator[tuple[House, Chaos, Chaos]]:
    """A gateway whose upstream gives this answer, with a heartbeat to a server that gives that one."""
    with (
        chaos(answer) as upstream,
        chaos(pong) as pings,
        watched(directory, table("oncall", upstream.url, "ilert"), heartbeat(pings.url)) as h,
    ):
        yield h, upstream, pings


def is_withheld(h: House, pings: Chaos) -> None:
    """Waits until no ping has come for as long as a dozen would take."""

    def is_quiet() -> bool:
        before = len(pings.got)
        time.sleep(0.6)
        return len(pings.got) == before

    h.wait_for(is_quiet, 10)


def test_the_heartbeat_is_a_get_while_all_is_well(tmp_path: Path) -> None:
    with beating(tmp_path, OK, OK) as (h, _upstream, pings):
        page(h)
        beats(h, pings)
    assert {(got.method, got.path, got.content) for got in pings.got} == {("GET", f"/ping/{SECRET}", b"")}


def test_the_heartbeat_stops_while_something_waits_too_long(tmp_path: Path) -> None:
    with beating(tmp_path, say(503), OK) as (h, upstream, pings):
        beats(h, pings)
        page(h)
        beats(h, pings, 2)  # it has not waited for long yet
        is_withheld(h, pings)
        upstream.always(OK)
        beats(h, pings)


def test_the_heartbeat_stops_while_the_store_takes_no_commits(tmp_path: Path) -> None:
    with beating(tmp_path, OK, OK) as (h, _upstream, pings):
        beats(h, pings)
        store: Any = h.gateway.store
        store._writer.pragma("query_only", 1)  # like a file system remounted read-only
        page(h)
        is_withheld(h, pings)
        text = h.client.get(h.url + "/metrics").text
        assert "alert_gateway_store_unavailable 1.0" in text
        assert 'alert_gateway_waiting_deliveries{upstream="oncall"} 0.0' in text, "it can be read all the same"
        store._writer.pragma("query_only", 0)
        beats(h, pings)


def test_the_heartbeat_stops_when_the_dispatcher_died(tmp_path: Path) -> None:
    with beating(tmp_path, OK, OK) as (h, _upstream, pings):
        beats(h, pings)
        dispatcher = h.gateway.dispatcher
        assert dispatcher is not None
        task = dispatcher._tasks["oncall"]
        task.get_loop().call_soon_threadsafe(task.cancel)
        is_withheld(h, pings)


@pytest.mark.parametrize("answer", [say(500), say(302, b"", {"location": "/"}), HANG], ids=lambda one: one.name)
def test_whatever_the_heartbeat_is_answered_harms_nobody(answer: Any, tmp_path: Path) -> None:
    with beating(tmp_path, OK, answer) as (h, upstream, pings):
        h.wait_for(lambda: pings.got)
        assert page(h).status == 202
        h.wait_for(lambda: upstream.got)
        assert h.client.get(h.url + "/-/ready").status_code == 200
    assert {got.path for got in pings.got} == {f"/ping/{SECRET}"}, "a redirect was followed"


@pytest.mark.parametrize(("is_there", "status"), [(True, 404), (True, 301), (False, 0)])
def test_a_ping_that_nobody_takes_is_logged_without_its_address(is_there: bool, status: int, tmp_path: Path) -> None:
    """Of `http://`, as many monitors answer it, a redirect is all that ever arrives."""
    config = tmp_path / "gateway.toml"
    with chaos(say(status)) as pings:
        config.write_text(
            f'store = "sqlite://{tmp_path}/gateway.db"\n{INBOUND}{table("oncall", pings.url, "ilert")}'
            '[heartbeat]\nurl = "env:PING"\nevery = "50ms"\n'
        )
        url = f"{pings.url}/{SECRET}" if is_there else f"http://127.0.0.1:1/{SECRET}"
        with serving(config, env={"PING": url}) as running:
            [said, *_] = running.waits_for("heartbeat.refused" if is_there else "heartbeat.unreachable", 2)
        assert SECRET not in running.log
        assert (said.get("status", 0), said.get("reason", "")) == (status, "" if is_there else "Connection refused")
    assert [got.path for got in pings.got][:1] == ([f"/{SECRET}"] if is_there else [])


def test_another_interval_counts_from_the_reload_on(tmp_path: Path) -> None:
    """And not only after the previous interval, which may be a day."""
    with chaos(OK) as pings:
        tables = [table(name, pings.url, "ilert") for name in ("oncall", "other")]
        routes = '[[routes]]\nto = ["oncall"]\n'
        often = "\n".join([INBOUND, *tables, routes, ALARMS, heartbeat(pings.url)])
        with house(tmp_path, config=lambda _: often.replace('"50ms"', '"1d"')) as h:
            looks(h, 4)
            assert len(pings.got) == 1, "no more often than that"
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["oncall"].get_loop()
            config = parse(f'store = "sqlite://{tmp_path}/gateway.db"\n{often}')
            asyncio.run_coroutine_threadsafe(h.gateway.reload(config), loop).result(15)
            beats(h, pings)


def test_a_proxy_that_shuts_the_heartbeat_out_is_said_to(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    with chaos(OK) as pings, proxy(credentials="user:word", pings=pings.url) as through:
        config.write_text(
            f'store = "sqlite://{tmp_path}/gateway.db"\n{INBOUND}{table("oncall", pings.url, "ilert")}'
            f'[heartbeat]\nurl = "http://pings.test/{SECRET}"\nevery = "50ms"\nproxy = "{through.url}"\n'
        )
        with serving(config) as running:
            [said, *_] = running.waits_for("heartbeat.unreachable")
        assert said["reason"] == "the proxy asks for credentials" and SECRET not in running.log
