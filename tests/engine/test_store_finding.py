"""Queries for operators, one suite for every driver: alerts by any name, summaries in slices, and who calls. Written
against the contract in `gateway.store`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.canonical import Alert
from gateway.store import AlertFilter, Arrivals, AttemptRow, CallsRow, DeliveryFilter, Tx
from gateway.store.sqlite import SqliteTx
from tests.engine.store_drivers import DRIVERS, Harness, alert, command, delivery, in_tx, target

FEW = 2_000
"""An upper bound of SQLite steps for a search by index; a scan of twenty thousand rows takes more than one step per
row."""


def _steps(tx: Tx, ask: Callable[[], Any]) -> int:
    """The number of SQLite VM steps that a query takes, to the nearest ten per statement."""
    assert isinstance(tx, SqliteTx)
    connection, taken = tx._execute.__self__.connection, [0]  # type: ignore[attr-defined]

    def count() -> bool:
        taken[0] += 10
        return False

    connection.set_progress_handler(count, 10)
    try:
        ask()
    finally:
        connection.set_progress_handler(None)
    return taken[0]


def _plans(tx: Tx, ask: Callable[[], Any]) -> list[str]:
    """SQLite's query plan, a line per step of each statement."""
    assert isinstance(tx, SqliteTx)
    connection, said = tx._execute.__self__.connection, list[tuple[str, Any]]()  # type: ignore[attr-defined]

    def note(cursor: Any, statement: str, values: Any) -> bool:
        said.append((statement, values))
        return True

    connection.exec_trace = note
    try:
        ask()
    finally:
        connection.exec_trace = None
    return [
        row[3] for statement, values in said for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    ]


@pytest.fixture(params=sorted(DRIVERS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Each driver in turn."""
    return DRIVERS[request.param](tmp_path)


def test_an_alert_is_found_by_whatever_anybody_calls_it(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, key="k", is_open=False))
        tx.insert_alert(alert(2, key="k", scope="other", shown="theirs"))
        tx.insert_alert(alert(3, is_deleted=True))
        tx.add_id("s", "mon_7", "u", 1)
        tx.put_target(target(3, key="there"))
        tx.insert_command(command(40, alert=3))
        tx.insert_delivery(delivery(50, alert=3))
        tx.insert_command(command(41, alert=None))
        tx.insert_delivery(delivery(51, command=41, alert=None))
        for names, found in (
            (["k"], [2, 1]),
            (["theirs"], [2]),
            (["shown-1"], [1]),
            (["mon_7"], [1]),
            (["there"], [3]),
            (["3"], [3]),
            (["40"], [3]),
            (["50"], [3]),
            (["41"], [41]),
            (["51"], [41]),
            (["K"], []),
            (["K", "k"], [2, 1]),
            (["k", "k", "2", "mon_7"], [2, 1]),
            (["9" * 30], []),
            ([""], []),
        ):
            assert tx.alerts_of_anybody(names, 20) == found, names
        assert tx.alerts_of_anybody(["k"], 1) == [2], "the newest"

    in_tx(harness, work)


def test_what_was_sent_for_a_key_alone_is_found_in_slices_the_newest_first(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in range(1, 9):
            tx.insert_delivery(delivery(number, command=number + 10, alert=number % 2 or None, key=f"k{number}"))
        assert tx.without_alert(100, 2) == [(8, 18, "k8"), (6, 16, "k6")]
        assert tx.without_alert(6, 9) == [(4, 14, "k4"), (2, 12, "k2")]

    in_tx(harness, work)


def test_what_was_sent_for_a_key_alone_is_found_without_all_deliveries(tmp_path: Path) -> None:
    def work(tx: Tx) -> None:
        for number in range(1, 20_001):
            tx.insert_delivery(delivery(number, command=number, alert=number % 5_000 or None, key="k"))
        assert _steps(tx, lambda: tx.without_alert(100_000, 2)) < FEW

    in_tx(DRIVERS["sqlite file"](tmp_path), work)


def test_finding_by_name_does_not_go_through_all_there_is(tmp_path: Path) -> None:
    """A store of many alerts is searched at night, while it has other work to do."""
    harness = DRIVERS["sqlite file"](tmp_path)

    def work(tx: Tx) -> None:
        for number in range(1, 20_001):
            tx.insert_alert(alert(number, scope=f"s{number % 7}", key=f"k{number}"))
        assert _steps(tx, lambda: tx.alerts_of_anybody(["k7"], 20)) < FEW

    in_tx(harness, work)


def test_what_is_open_is_listed_without_all_that_is_over(tmp_path: Path) -> None:
    """Callers poll it every few seconds, and resolved alerts are kept for a month."""
    harness = DRIVERS["sqlite file"](tmp_path)
    wanted = [AlertFilter(statuses=("firing", "acknowledged"), limit=50), AlertFilter(statuses=("firing",))]

    def work(tx: Tx) -> None:
        for number in range(1, 20_001):
            tx.insert_alert(alert(number, key=f"k{number}", status="resolved", is_open=False))
        tx.insert_alert(alert(20_001))
        tx.insert_alert(alert(20_002, status="acknowledged"))
        assert [tx.alerts("s", one)[1] for one in wanted] == [2, 1]
        for one in wanted:
            assert _steps(tx, lambda chosen=one: tx.alerts("s", chosen)) < FEW  # type: ignore[misc]

    in_tx(harness, work)


def test_a_page_of_a_list_is_found_without_putting_all_in_order(tmp_path: Path) -> None:
    """Sorting all alerts, and reading those only counted, took seconds with half a million."""
    harness = DRIVERS["sqlite file"](tmp_path)

    def work(tx: Tx) -> None:
        for number in range(1, 10_001):
            tx.insert_alert(alert(number, status="resolved", is_open=False))
        of_time = AlertFilter(created_from=9_990, created_before=9_995)
        rows, total = tx.alerts("s", of_time)
        assert ([row.id for row in rows], total) == ([9_990, 9_991, 9_992, 9_993, 9_994], 5)
        assert _steps(tx, lambda: tx.alerts("s", of_time)) < FEW
        plans = _plans(tx, lambda: tx.alerts("s", AlertFilter(limit=50, offset=9_000)))
        assert plans.count("SEARCH alerts USING COVERING INDEX alerts_listed (scope=?)") == 2, plans
        tx.insert_alert(alert(10_001))
        tx.insert_alert(alert(10_002, status="resolved", is_open=False, is_deleted=True))
        over = AlertFilter(statuses=("resolved",), limit=1)
        assert tx.alerts("s", over)[1] == 10_000
        assert tx.alerts("s", structs.replace(over, created_from=9_999))[1] == 2
        counts = _plans(tx, lambda: tx.alerts("s", over))[:2]
        assert all("COVERING INDEX" in step for step in counts), counts

    in_tx(harness, work)


@pytest.mark.parametrize("state", ["waiting", "dead"])
def test_what_waits_or_died_is_listed_without_all_that_was_delivered(tmp_path: Path, state: str) -> None:
    """The waiting or dead delivery may be the oldest of all."""
    harness = DRIVERS["sqlite file"](tmp_path)

    def work(tx: Tx) -> None:
        for number in range(1, 4):
            tx.insert_delivery(delivery(number, state=state, alert=number))
        for number in range(4, 20_001):
            tx.insert_delivery(delivery(number, state="delivered", alert=number))
        for upstream in (None, "u"):
            chosen = DeliveryFilter(state=state, upstream=upstream, limit=50)
            assert [row.id for row in tx.deliveries(chosen)] == [3, 2, 1]
            assert _steps(tx, lambda chosen=chosen: tx.deliveries(chosen)) < FEW  # type: ignore[misc]
            assert tx.delivery_numbers(chosen, 10) == ([3, 2, 1], None)
            assert _steps(tx, lambda chosen=chosen: tx.delivery_numbers(chosen, 10)) < FEW  # type: ignore[misc]
        assert tx.has_deliveries("u") and not tx.has_deliveries("v")
        assert _steps(tx, lambda: tx.has_deliveries("u")) < FEW

    in_tx(harness, work)


def test_what_has_no_index_is_looked_for_in_slices(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in range(1, 11):
            more = {"state": "void" if number in (2, 9) else "delivered", "upstream": "v" if number == 5 else "u"}
            tx.insert_delivery(delivery(number, **more))
        void = DeliveryFilter(state="void")
        assert tx.delivery_numbers(void, 4) == ([9], 7)
        assert tx.delivery_numbers(DeliveryFilter(state="void", before=7), 4) == ([], 3)
        assert tx.delivery_numbers(DeliveryFilter(state="void", before=3), 4) == ([2], None)
        assert tx.delivery_numbers(DeliveryFilter(upstream="v"), 99) == ([5], None)
        assert tx.delivery_numbers(DeliveryFilter(upstream="w"), 4) == ([], None)
        assert tx.delivery_numbers(DeliveryFilter(limit=2), 99)[0] == [10, 9]
        assert tx.delivery_numbers(DeliveryFilter(alert=1, before=4), 1) == ([3, 2, 1], None)
        assert tx.delivery_numbers(DeliveryFilter(state="dead"), 4) == ([], None)

    in_tx(harness, work)


def test_a_slice_of_what_has_no_index_is_a_slice_of_the_store(tmp_path: Path) -> None:
    harness = DRIVERS["sqlite file"](tmp_path)

    def work(tx: Tx) -> None:
        for number in range(1, 20_001):
            tx.insert_delivery(delivery(number, state="delivered"))
        for upstream in (None, "u", "v"):
            chosen = DeliveryFilter(state="void", upstream=upstream)
            assert _steps(tx, lambda chosen=chosen: tx.delivery_numbers(chosen, 50)) < FEW  # type: ignore[misc]

    in_tx(harness, work)


def test_arrivals_since_a_time_are_summed_up_without_all_that_came_before(tmp_path: Path) -> None:
    harness = DRIVERS["sqlite file"](tmp_path)

    def work(tx: Tx) -> None:
        for number in range(1, 10_001):
            tx.insert_command(command(number))
            tx.insert_delivery(delivery(number, state="delivered", finished_at=number + 5))
        assert [one.confirmed for one in tx.arrivals(9_991)] == [10]
        assert _steps(tx, lambda: tx.arrivals(9_991)) < FEW

    in_tx(harness, work)


def test_ages_at_delivery_are_those_of_the_middle_and_of_the_last(harness: Harness) -> None:
    """The median and p99, to four digits above ten seconds, and the exact maximum."""

    def work(tx: Tx) -> None:
        ages = [*range(1, 100), 123_456]
        for number, age in enumerate(ages, 1):
            tx.insert_command(command(number, at=1000))
            tx.insert_delivery(
                delivery(number, state="delivered", finished_at=1000 + age, status=202 if age > 90 else 200)
            )
        tx.insert_command(command(500, at=1000))
        tx.insert_delivery(delivery(500, state="delivered", upstream="v", finished_at=1000 + 123_456_789))
        assert tx.arrivals(0) == [
            Arrivals(upstream="u", accepted=10, confirmed=90, p50=50, p99=99, worst=123_456),
            Arrivals(upstream="v", accepted=0, confirmed=1, p50=123_400_000, p99=123_400_000, worst=123_456_789),
        ]
        assert tx.arrivals(1001) == []

    in_tx(harness, work)


def test_summaries_come_in_slices_newest_first(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in (1, 2, 3):
            tx.insert_alert(alert(number))
        tx.insert_alert(alert(4, is_deleted=True, body=Alert(summary='"ü" said', details="x")))
        tx.insert_alert(alert(5, body=Alert(summary=None)))
        tx.insert_alert(alert(6, body=Alert(details="no summary")))
        assert tx.summaries(1 << 53, 4) == [(6, ""), (5, ""), (4, '"ü" said'), (3, "alert 3")]
        assert tx.summaries(3, 4) == [(2, "alert 2"), (1, "alert 1")]
        assert tx.summaries(1, 4) == []

    in_tx(harness, work)


def test_the_ids_of_an_alert_by_party(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1))
        tx.add_id("s", "b", "u", 1)
        tx.add_id("s", "a", "u", 1)
        tx.add_id("s", "c", "gateway", 1)
        assert tx.ids(1) == [("gateway", "c"), ("u", "a"), ("u", "b")]
        assert tx.ids(2) == []

    in_tx(harness, work)


def test_the_last_commands_of_an_alert_oldest_first(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in (1, 2, 3):
            tx.insert_command(command(number))
        tx.insert_command(command(4, alert=2))
        assert [row.id for row in tx.commands(1, 2)] == [2, 3]
        assert [row.id for row in tx.commands(1)] == [1, 2, 3]
        assert (tx.count_commands(1), tx.count_commands(9)) == (3, 0)

    in_tx(harness, work)


def test_codes_come_back_and_so_do_the_routes(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        one = delivery(1, code="unreachable")
        tx.insert_delivery(one)
        tried = AttemptRow(
            delivery=1, number=1, at=1, took=1, status=None, outcome="again", reason="r", code="no-answer"
        )
        tx.insert_attempt(tried)
        said = command(1)
        said.body.routes = {"bad": "severity <= 3 holds"}
        tx.insert_command(said)
        assert (tx.delivery(1), tx.attempts(1), tx.command(1)) == (one, [tried], said)

    in_tx(harness, work)


# --- who calls -----------------------------------------------------------------------------------------------


def calls(**more: object) -> CallsRow:
    """An ordinary row of calls; `more` overrides columns."""
    given: dict[str, object] = {
        "dialect": "d",
        "caller": "ci",
        "method": "POST",
        "path": "/v1/alerts",
        "agent": "curl/8",
        "outcome": "ok",
        "count": 1,
        "first_seen": 10,
        "last_seen": 10,
    }
    return CallsRow(**{**given, **more})  # type: ignore[arg-type]


def test_calls_of_one_kind_add_up(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        assert tx.add_calls(calls(), 2)
        assert tx.add_calls(calls(count=4, first_seen=20, last_seen=30), 2)
        assert tx.add_calls(calls(count=1, first_seen=15, last_seen=15), 2), "another replica's may come late"
        assert tx.calls(9) == [calls(count=6, first_seen=10, last_seen=30)]

    in_tx(harness, work)


def test_a_caller_has_so_many_kinds_and_no_more(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        assert tx.add_calls(calls(path="/a"), 2) and tx.add_calls(calls(path="/b"), 2)
        assert not tx.add_calls(calls(path="/c"), 2)
        assert tx.add_calls(calls(path="/b"), 2), "what is there is still counted"
        assert tx.add_calls(calls(path="/c", caller="other"), 2) and tx.add_calls(calls(path="/c", dialect="e"), 2)
        assert tx.add_calls(calls(path="other"), None)
        assert len(tx.calls(9)) == 5 and len(tx.calls(3)) == 3

    in_tx(harness, work)


def test_calls_are_forgotten_by_when_they_were_last_seen(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in range(5):
            tx.add_calls(calls(path=f"/{number}", last_seen=number), None)
        assert [row.last_seen for row in tx.calls(9)] == [4, 3, 2, 1, 0], "those that were seen last first"
        assert tx.purge_calls(3, 2) == 2
        assert tx.purge_calls(3, 2) == 1
        assert [row.last_seen for row in tx.calls(9)] == [4, 3]

    in_tx(harness, work)


def test_what_a_quiet_upstream_took_is_found_beside_a_busy_one(harness: Harness) -> None:
    """However many deliveries ended at the other one since."""

    def work(tx: Tx) -> None:
        tx.insert_delivery(delivery(1, upstream="quiet", lane="a", state="delivered", finished_at=100))
        tx.insert_delivery(delivery(2, upstream="quiet", lane="b", state="dead", finished_at=200))
        tx.insert_delivery(delivery(3, upstream="quiet", lane="c", state="delivered", finished_at=50))
        for number in range(4, 2_105):
            tx.insert_delivery(delivery(number, upstream="busy", state="delivered", finished_at=1_000 + number))
        assert tx.took("quiet", 50) == {"a": 100}
        assert tx.took("quiet", 100) == {}

    in_tx(harness, work)


def test_what_an_upstream_took_since_a_time_is_found_without_all_that_it_took_before(tmp_path: Path) -> None:
    def work(tx: Tx) -> None:
        for number in range(1, 20_001):
            tx.insert_delivery(delivery(number, upstream="u", state="delivered", finished_at=number))
        assert _steps(tx, lambda: tx.took("u", 19_990)) < FEW

    in_tx(DRIVERS["sqlite file"](tmp_path), work)
