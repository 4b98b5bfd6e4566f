"""Large numbers of one thing: the cost of a request does not grow with the history of a key, of an alert or of the
outbox. Nothing is timed: rows, parts and the steps of query plans are counted."""

from __future__ import annotations

import asyncio
import threading
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import flatten, unflatten
from gateway.cli.checking import ladders, warnings
from gateway.config.loading import parse
from gateway.config.routing import Route
from gateway.config.secrets import Keyring
from gateway.delivery import lanes
from gateway.delivery.lanes import Lanes
from gateway.desk import views
from gateway.desk.refreshing import _held
from gateway.road import history
from gateway.road.history import newest_first
from gateway.road.settling import _stand_for_adopted
from gateway.store import AlertFilter, AlertRow, Tx, tables
from gateway.store.sql import SqlTx
from gateway.store.sqlite import SqliteStore, SqliteTx
from tests.clients.callers import called, opsgenie_alert
from tests.engine.store_drivers import DRIVERS, Harness, alert, command, in_tx, target
from tests.engine.vendors import before, rows, table
from tests.harness import KEY, house

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(params=sorted(DRIVERS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Each driver in turn."""
    return DRIVERS[request.param](tmp_path)


def _not_over(tx: Tx) -> int:
    """The number of rows that a query for the holders of the lane visits."""
    assert isinstance(tx, SqlTx)
    of_lane = "SELECT count(*) FROM targets WHERE upstream = ? AND lane = ? AND is_over = 0"
    return int(tx._one(of_lane, ("u", "l"))[0])


def test_who_holds_a_lane_is_found_without_all_who_ever_did(harness: Harness) -> None:
    """A key that had flapped a hundred thousand times cost each of its alerts a quarter of a second in the event
    loop."""

    def work(tx: Tx) -> None:
        for number in range(1, 101):
            row = alert(number, key="k")
            tx.insert_alert(row)
            tx.put_target(target(number, state="present"))
            assert tx.lane_holders("u", "l") == [number]
            row.is_open, row.status = False, "resolved"
            tx.update_alert(row)
            tx.put_target(target(number, state="gone"))
            assert tx.lane_holders("u", "l") == []
        assert _not_over(tx) == 0
        row.is_open, row.status = True, "firing"
        tx.update_alert(row)
        assert (tx.lane_holders("u", "l"), _not_over(tx)) == ([100], 1)
        tx.remove_alert(100)
        assert (tx.lane_holders("u", "l"), _not_over(tx)) == ([], 0)

    in_tx(harness, work)


def test_whether_others_of_a_group_are_open_at_an_upstream(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, state in ((1, "present"), (2, "present"), (3, "dead"), (4, "present")):
            tx.insert_alert(alert(number, key=f"k{number}"))
            tx.put_target(target(number, state=state))
            if number < 4:
                tx.add_id("s", "group g", "u", number)
        assert tx.has_open_kin("s", "group g", "u", 1)
        assert tx.has_open_kin("s", "group g", "u", 4)  # its group is not recorded
        two = tx.alert(2)
        assert two is not None
        two.is_open, two.status = False, "resolved"
        tx.update_alert(two)
        assert not tx.has_open_kin("s", "group g", "u", 1)
        assert tx.has_open_kin("s", "group g", "u", 2)
        tx.remove_alert(1)
        assert not tx.has_open_kin("s", "group g", "u", 2)

    in_tx(harness, work)


def test_others_of_a_group_are_found_by_its_id(tmp_path: Path) -> None:
    steps = _plans(tmp_path, lambda tx: tx.has_open_kin("s", "group g", "u", 1))
    assert "ids_party" in steps[0], steps
    assert all("SEARCH" in step for step in steps), steps


@pytest.mark.parametrize("by", ["caller", "dialect", "operation"])
def test_the_ledger_is_counted_without_what_was_said(tmp_path: Path, by: Any) -> None:
    """For two million deliveries it took half a minute, mostly to read command bodies that the ledger does not need."""
    steps = _plans(tmp_path, lambda tx: (tx.ledger(1, by), tx.arrivals(1)))
    of_commands = [step for step in steps if "commands" in step]
    assert len(of_commands) == 3 and all("COVERING INDEX commands_counted" in step for step in of_commands), steps


def _plans(path: Path, work: Any) -> list[str]:
    """SQLite's query plan for each statement of a reading transaction."""
    steps: list[str] = []

    class Explained(SqliteTx):
        def _run(self, statement: str, values: Any) -> Any:
            plan = super()._run(f"EXPLAIN QUERY PLAN {statement}", values)
            steps.extend(row[3] for row in plan.fetchall())
            return super()._run(statement, values)

    async def main() -> None:
        async with SqliteStore(str(path / "gateway.db")) as store:
            await store.read(lambda tx: work(Explained(store._reader)))

    asyncio.run(main())
    return steps


def test_the_index_of_what_is_not_over_is_used(tmp_path: Path) -> None:
    steps = _plans(tmp_path, lambda tx: tx.lane_holders("u", "l"))
    assert any("targets_open" in step for step in steps), steps


def test_the_worst_that_wait_are_taken_without_putting_all_in_order(tmp_path: Path) -> None:
    """Behind a rate limit a hundred thousand may wait, and sorting them cost each turn a scan of all."""
    for unsent in (False, True):
        steps = _plans(tmp_path, lambda tx, unsent=unsent: tx.claim("u", 1, 8, ranked=not unsent, unsent=unsent))
        assert any("deliveries_ranked" in step for step in steps), steps
        assert not any("TEMP B-TREE" in step for step in steps), steps


def test_a_page_of_a_list_is_in_order(harness: Harness) -> None:

    def work(tx: Tx) -> None:
        for number in (3, 1, 2, 5, 4):
            tx.insert_alert(alert(number, created_at=number // 2))
        rows, total = tx.alerts("s", AlertFilter(limit=2, offset=2))
        assert ([row.id for row in rows], total) == ([3, 4], 5)
        parts = list(tx.alerts_in_parts("s", AlertFilter(statuses=("firing",))))
        assert [row.id for part in parts for row in part] == [1, 2, 3, 4, 5]

    in_tx(harness, work)


def test_what_a_list_puts_in_order_are_numbers(tmp_path: Path) -> None:
    """Sorting whole alerts, the last page of a hundred thousand took more than six seconds."""
    steps = _plans(tmp_path, lambda tx: tx.alerts("s", AlertFilter(limit=2, offset=2)))
    numbers = steps.index(next(step for step in steps if "LIST SUBQUERY" in step))
    assert any("alerts USING INTEGER PRIMARY KEY" in step for step in steps[:numbers]), steps
    assert any("TEMP B-TREE FOR ORDER BY" in step for step in steps[numbers:]), steps


def test_the_last_of_what_was_said_is_found_without_all_before(tmp_path: Path) -> None:
    """Only the last of an alert's ten thousand comments are read."""
    read: list[int] = []

    def work(tx: Tx) -> None:
        for number in range(1, 201):
            tx.insert_command(command(number))
        commands = tx.commands

        def counting(alert: int, last: int | None = None) -> Any:
            found = commands(alert, last)
            read.append(len(found))
            return found

        tx.commands = counting  # type: ignore[method-assign]
        assert next(newest_first(tx, 1)).id == 200
        assert read == [history.FIRST_PART]
        assert [one.id for one in newest_first(tx, 1)] == list(range(200, 0, -1))
        assert not list(newest_first(tx, 2))

    in_tx(DRIVERS["sqlite memory"](tmp_path), work)


def test_what_an_alert_came_through_is_read_beside_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert's history is read in a store thread: with ten thousand notes it held everybody up for half a second."""
    threads: list[str] = []

    def watched(tx: Tx, alert: int) -> Any:
        threads.append(threading.current_thread().name)
        return history.told(tx, alert)

    monkeypatch.setattr(views, "told", watched)
    with called(tmp_path, {"there": "ilert"}) as h:
        assert h.call("POST", "/opsgenie/v2/alerts", opsgenie_alert("Disk full", alias="a")).status == 202
        assert h.call("GET", "/opsgenie/v2/alerts/a/notes?identifierType=alias").status == 200
    assert threads and all(name.startswith("store") for name in threads)


CALLERS = 200


def _many_routes() -> str:
    keys = "\n".join(f'c{number} = "key-of-c{number}"' for number in range(CALLERS))
    routes = "\n".join(f'[[routes]]\nfrom = ["pagerduty/c{number}"]\nto = ["u"]' for number in range(CALLERS))
    upstream = '[upstreams.u]\ndialect = "pagerduty"\nurl = "http://127.0.0.1:9"\nkey = "k"'
    return f"[inbound.pagerduty.keys]\n{keys}\n{upstream}\n{routes}\n"


def test_check_does_not_try_each_caller_on_each_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """With five thousand callers and a thousand routes it took many minutes."""
    tried: list[str] = []
    is_from, names = Route.is_from, Keyring.names

    def trying(route: Route, dialect: str, caller: str) -> bool:
        tried.append(caller)
        return is_from(route, dialect, caller)

    def naming(ring: Keyring) -> list[str]:
        found = names(ring)
        tried.extend(found)
        return found

    monkeypatch.setattr(Route, "is_from", trying)
    monkeypatch.setattr(Keyring, "names", naming)
    config = parse(_many_routes())
    tried.clear()
    shown = list(ladders(config))
    list(warnings(config))
    assert sum(line.startswith("route ") for line in shown) == CALLERS
    assert len(tried) < 10 * CALLERS


def test_an_upstream_with_a_rate_and_nothing_to_do_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred such upstreams wrote to the disk a hundred and fifty times a second."""
    turns: list[float] = []
    turn = Lanes._turn

    async def counted(of: Lanes) -> float:
        paused = await turn(of)
        turns.append(paused)
        return paused

    monkeypatch.setattr(lanes, "POLL", 0.01)
    monkeypatch.setattr(Lanes, "_turn", counted)
    with before(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert", "rate = 60\n")) as h:
        h.wait_for(lambda: len(turns) > 3)
        assert not rows(h, "body", "notes WHERE name = 'rate oncall'")


def test_what_a_list_brought_in_is_found_without_all_that_have_its_id(harness: Harness) -> None:
    """A flapping alert has the same id each time at an Alertmanager: all ten thousand were read, in the event loop,
    whenever one of them was sent."""

    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1))
        tx.put_target(target(1, state="present"))
        for number in range(2, 102):
            tx.insert_alert(alert(number, key="k", is_open=False))
        for number in range(1, 102):
            tx.add_id("s", "fingerprint", "u", number)
        newest = tx.alerts_by_party("s", "fingerprint", "u", newest=2)
        oldest = tx.alerts_by_party("s", "fingerprint", "u", oldest=2)
        assert [[row.id for row in found] for found in (newest, oldest)] == [[101, 100], [2, 1]]
        assert len(tx.alerts_by_party("s", "fingerprint", "u")) == 101
        read: list[int] = []
        by_party = tx.alerts_by_party

        def counting(*which: str, **how: Any) -> Any:
            found = by_party(*which, **how)
            read.append(len(found))
            return found

        tx.alerts_by_party = counting  # type: ignore[method-assign]
        last = tx.alert(101)
        assert last is not None
        _stand_for_adopted(tx, last, target(101), "fingerprint", 1)
        adopted = tx.alert(1)
        assert adopted is not None and adopted.is_deleted
        assert _held(tx, "s", "u", "fingerprint", "") is None
        tx.put_target(target(101))
        held = _held(tx, "s", "u", "fingerprint", "")
        assert held is not None and held.id == 101
        assert (read[0], read[-1]) == (16, 16)

    in_tx(harness, work)


@pytest.mark.parametrize(
    ("dialect", "path", "listed"),
    [
        ("opsgenie", "/opsgenie/v2/alerts?limit=20&sort=message&order=asc&offset=10", 20),
        ("alertmanager", "/alertmanager/api/v2/alerts", 1200),
        ("alertmanager", "/alertmanager/api/v2/alerts?filter=none%3D1", 0),
    ],
)
def test_a_list_holds_a_part_of_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str, path: str, listed: int
) -> None:
    """Lists are decoded in parts: a page of twenty decoded all open alerts, 459 MB for a hundred thousand, and a sixth
    of that number killed a sidecar of 64 MB."""
    alive: list[weakref.ref[AlertRow]] = []
    most = [0]

    class Weak(AlertRow, weakref=True):
        """A row whose lifetime can be observed."""

    decode = tables.Table("alerts", Weak, key=["id"], json=["body", "verbatim"]).decode

    def counted(columns: Any) -> AlertRow:
        row = decode(columns)
        alive.append(weakref.ref(row))
        if len(alive) % 100 == 0:
            most[0] = max(most[0], sum(one() is not None for one in alive))
        return row

    def fill(tx: Tx) -> None:
        for number in range(1, 1201):
            row = alert(number, key=f"k{number}", scope=f"{dialect}/ci", dialect=dialect)
            row.body = unflatten({**flatten(row.body), "summary": f"{number:04}", "created_at": AT, "updated_at": AT})
            tx.insert_alert(row)

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "gateway.db")) as store:
            await store.write(fill)

    asyncio.run(main())
    monkeypatch.setattr(tables.ALERTS, "decode", counted)
    there = f'[upstreams.there]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "{KEY}"\n'
    header = {"authorization": f"GenieKey {KEY}"} if dialect == "opsgenie" else {}
    inbound = f'[inbound.{dialect}]\nkeys = {{ ci = "{KEY}" }}\n'
    with house(tmp_path, config=lambda _: f"{inbound}{there}") as h:
        found = h.call("GET", path, headers=header).body
    said = found["data"] if dialect == "opsgenie" else found
    assert len(said) == listed
    if dialect == "opsgenie":
        assert [one["message"] for one in said] == [f"{number:04}" for number in range(11, 31)]
    else:
        assert said == sorted(said, key=lambda one: one["fingerprint"])
    assert len(alive) >= 1200
    assert most[0] <= 1000


def test_of_all_that_are_known_by_an_id_the_newest_is_looked_at(harness: Harness) -> None:
    """An Alertmanager's fingerprint, or a caller's key, may be shared by a hundred thousand alerts: sorting them took
    each look-up more than a second in the event loop."""
    asked: list[str] = []

    def known(tx: Tx, name: str) -> int | None:
        found = tx.alert_by_id("s", name)
        return found.id if found else None

    def work(tx: Tx) -> None:
        for number in range(1, 21):
            tx.insert_alert(alert(number, is_open=number == 20))
            tx.put_target(target(number, upstream="u", position=0, state="present"))
            tx.put_target(target(number, upstream="v", position=1, state="present"))
            tx.add_id("s", "mark", "u", number)
        assert known(tx, "mark") == 20
        assert isinstance(tx, SqlTx)
        plain = tx._one

        def one(statement: str, values: Any) -> Any:
            asked.append(statement)
            return plain(statement, values)

        tx._one = one  # type: ignore[method-assign]
        known(tx, "mark")
        [statement] = [text for text in asked if "FROM ids" in text]
        among = statement.partition(" WHERE id IN (")[2].partition(") AND is_deleted = 0 ORDER BY")[0]
        del tx._one
        assert len(tx._all(among, ("s", "mark") * (among.count("?") // 2))) == 1
        tx.insert_alert(alert(21))
        tx.put_target(target(21, upstream="u", position=0, state="present"))
        tx.put_target(target(21, upstream="v", position=1, state="present"))
        tx.add_id("s", "mark", "v", 21)
        assert known(tx, "mark") == 20  # the newest came from an account that is not the primary
        gone = tx.alert(20)
        assert gone is not None
        gone.is_deleted = True
        tx.update_alert(gone)
        assert known(tx, "mark") == 19
        tx.add_id("s", "mark", "gateway", 21)
        assert known(tx, "mark") == 19
        tx.add_id("s", "mark", "u", 21)
        assert known(tx, "mark") == 21

    in_tx(harness, work)


def test_what_waits_of_an_alert_is_found_without_all_that_was_said_of_it(tmp_path: Path) -> None:
    """An alert with ten thousand deliveries cost 13 ms of the event loop per look-up. The index also covers the sums of
    what waits."""
    assert "deliveries_waiting (upstream=? AND alert=?)" in _plans(tmp_path, lambda tx: tx.is_waiting(1, "u"))[0]
    [step] = _plans(tmp_path, lambda tx: tx.waiting())
    assert "COVERING INDEX deliveries_waiting" in step
