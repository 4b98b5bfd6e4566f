"""Alarms of several gateways over one store: one page for a trouble, whichever of them see it, and an end that somebody
tells. guarantees.md 29."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.config.loading import parse
from gateway.watch import watch
from tests.chaos_upstream import chaos, say
from tests.engine.test_watch import INBOUND, Heard, is_told, looks, raised_alarms
from tests.engine.vendors import NO, OK, Uptinio, page, slow, table
from tests.harness import House, house
from tests.postgres_server import shared

pytestmark = pytest.mark.usefixtures("_often_watched")


@contextlib.contextmanager
def replicas(directory: Path, *tables: str) -> Iterator[tuple[House, House]]:
    """Two gateways over one PostgreSQL, both of which send alarms to `there`."""
    store, more = shared().database(), '[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["there"]\n'
    text = "\n".join([INBOUND, *tables, more])
    with (
        house(directory, config=lambda _: text, store=store) as one,
        house(directory, config=lambda _: text, store=store) as other,
    ):
        yield one, other


@pytest.mark.parametrize("is_shared", [False, True])
def test_an_alarm_at_an_upstream_that_was_taken_out_is_told_to_another(is_shared: bool, tmp_path: Path) -> None:
    """A trouble that goes on is sent to an upstream of the new configuration."""
    first, then = Heard(), Heard()
    store = shared().database() if is_shared else f"sqlite://{tmp_path}/gateway.db"
    with chaos(NO) as bad, chaos(first) as old, chaos(then) as new:

        def config(name: str, url: str) -> str:
            tables = [table("oncall", bad.url, "ilert"), table(name, url, "ilert")]
            return "\n".join([INBOUND, *tables, f'[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["{name}"]\n'])

        with house(tmp_path, config=lambda _: config("old", old.url), store=store) as h:
            page(h)
            is_told(h, first, "dead-letters/oncall", "ALERT")
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["oncall"].get_loop()
            again = parse(f'store = "{store}"\n{config("new", new.url)}')
            asyncio.run_coroutine_threadsafe(h.gateway.reload(again), loop).result(15)
            is_told(h, then, "dead-letters/oncall", "ALERT")


@pytest.mark.parametrize("is_shared", [False, True])
def test_so_it_is_where_all_were_started_anew(is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No running replica ever had that upstream in its configuration. One that is alone need not wait for others."""
    first, then, store = Heard(), Heard(), f"sqlite://{tmp_path}/gateway.db"
    if is_shared:
        monkeypatch.setattr(watch, "NEWER", 0.1)
        store = shared().database()
    with chaos(NO) as bad, chaos(first) as old, chaos(then) as new:

        def tells(name: str, url: str, heard: Heard) -> None:
            tables = [table("oncall", bad.url, "ilert"), table(name, url, "ilert")]
            text = "\n".join([INBOUND, *tables, f'[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["{name}"]\n'])
            with house(tmp_path, config=lambda _: text, store=store) as h:
                page(h)
                is_told(h, heard, "dead-letters/oncall", "ALERT")

        tells("old", old.url, first)
        tells("new", new.url, then)


def test_what_only_one_replica_sees_is_not_called_over_by_another(tmp_path: Path) -> None:
    heard = Heard()
    with chaos(say(401, {"message": "no"})) as bad, chaos(heard) as good:
        tables = [table("oncall", bad.url, "ilert"), table("there", good.url, "ilert")]
        with replicas(tmp_path, *tables) as (one, other):
            page(one)
            one.wait_for(lambda: raised_alarms(one))
            other.wait_for(lambda: raised_alarms(other))
            for h in (other, one, other):
                looks(h, 6)
            assert [word for _, word in heard.said] == ["ALERT"]
            bad.always(OK)
            one.wait_for(lambda: not raised_alarms(one) and not raised_alarms(other), 10)
            assert set(heard.said[1:]) == {("alert-gateway/upstream-held/oncall", "RESOLVE")}


def test_an_alarm_of_a_replica_that_is_gone_is_cleared_by_another(tmp_path: Path) -> None:
    heard = Heard()
    with chaos(say(401, {"message": "no"})) as bad, chaos(heard) as good:
        tables = [table("oncall", bad.url, "ilert"), table("there", good.url, "ilert")]
        with replicas(tmp_path, *tables) as (one, other):
            page(one)
            other.wait_for(lambda: raised_alarms(other))
            watching = one.gateway.watch
            assert watching is not None

            async def asleep() -> Any:
                await asyncio.sleep(60)

            watching.troubles = asleep  # type: ignore[method-assign]
            other.wait_for(lambda: not raised_alarms(other), 10)
            assert heard.said[-1] == ("alert-gateway/upstream-held/oncall", "RESOLVE")


def test_what_a_gateway_that_is_gone_could_not_keep_is_ended_by_one_that_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alarms of a replica older than the one that looks stay: it may be cut off from the store and still there."""
    monkeypatch.setattr(watch, "SAID_EVERY", 0.1)
    monkeypatch.setattr(watch, "GONE", 1000)
    heard, alarm = Heard(), ("alert-gateway/store-unavailable", "RESOLVE")
    with chaos(OK) as fine, chaos(heard) as good:
        tables = [table("oncall", fine.url, "ilert"), table("there", good.url, "ilert")]
        with replicas(tmp_path, *tables) as (one, other):
            looks(one, 3)
            assert one.gateway.watch and other.gateway.watch
            other.gateway.watch._say_at = time.monotonic() + 60  # as if it was cut off
            time.sleep(2)
            assert not heard.said
            one.gateway.watch._began = one.gateway.now()
            one.wait_for(lambda: alarm in heard.said)


def test_what_two_replicas_tell_at_once_is_one_alert(tmp_path: Path) -> None:
    """Where the vendor assigns ids both create one: the later one is resolved."""
    vendor = Uptinio()
    with chaos(NO) as bad, chaos(lambda got: slow(0.3, vendor(got))) as good:
        tables = [table("oncall", bad.url, "ilert"), table("there", good.url, "uptinio")]
        with replicas(tmp_path, *tables) as (one, other):
            page(one)
            one.wait_for(lambda: raised_alarms(one) and raised_alarms(other) and len(vendor.held) == 2)
            one.wait_for(lambda: [a["status"] for a in vendor.held.values()].count("resolved") == 1)
            assert [a.ids for a in raised_alarms(one).values()] == [a.ids for a in raised_alarms(other).values()]


def test_what_two_replicas_tell_at_once_is_not_ended_where_it_is_one_by_its_key(tmp_path: Path) -> None:
    """They were told at different times, so what they note is not the same: the alert is."""
    with chaos(NO) as bad, chaos(slow(0.3, say(200, {}))) as good:
        tables = [table("oncall", bad.url, "ilert"), table("there", good.url, "alertmanager")]
        with replicas(tmp_path, *tables) as (one, other):
            page(one)
            one.wait_for(lambda: raised_alarms(one) and raised_alarms(other) and len(good.got) == 2)
            for h in (one, other):
                looks(h, 4)
            now = datetime.now(UTC)
            assert all(datetime.fromisoformat(got.body[0]["endsAt"]) > now for got in good.got)


def test_an_alarm_about_the_database_is_ended_when_that_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be recorded there, and is not forgotten for that."""
    monkeypatch.setattr(watch, "LASTING", 1)
    heard, store = Heard(), shared().database()
    with chaos(OK) as fine, chaos(heard) as good:
        tables = [table("oncall", fine.url, "ilert"), table("there", good.url, "ilert")]
        text = "\n".join([INBOUND, *tables, '[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["there"]\n'])
        with house(tmp_path, config=lambda _: text, store=store) as h:
            looks(h, 3)
            assert h.gateway.watch
            h.gateway.watch.calm = 4000  # nor is it recorded because it lasts
            name = store.rpartition("/")[2]
            with psycopg.connect(shared().url("postgres"), autocommit=True) as other:
                other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
                other.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
                is_told(h, heard, "store-unavailable", "ALERT")
                other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
            looks(h, 2)
            h.gateway.watch.calm = 3
            is_told(h, heard, "store-unavailable", "ALERT", "RESOLVE")


def test_an_alarm_at_an_upstream_that_only_a_newer_file_has_is_left_to_who_raised_it(tmp_path: Path) -> None:
    """While a changed configuration goes round the replicas, nobody is paged a second time for that."""
    first, second, store = Heard(), Heard(), shared().database()
    with chaos(NO) as bad, chaos(first) as new, chaos(second) as old:

        def config(name: str, url: str) -> str:
            tables = [table("oncall", bad.url, "ilert"), table(name, url, "ilert")]
            return "\n".join([INBOUND, *tables, f'[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["{name}"]\n'])

        with house(tmp_path, config=lambda _: config("new", new.url), store=store) as one:
            page(one)
            is_told(one, first, "dead-letters/oncall", "ALERT")
            with house(tmp_path, config=lambda _: config("old", old.url), store=store) as other:
                other.wait_for(lambda: raised_alarms(other))
                looks(other, 4)
                assert second.said == []
