"""The primitives of the store, one suite for every driver, written against the contract in `gateway.store`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from gateway.canonical import Alert
from gateway.store import AlertFilter, AttemptRow, CommandBody, DeliveryFilter, DeliveryRow, Store, Tx, Waiting
from tests.engine.store_drivers import DRIVERS, Harness, alert, command, delivery, in_tx, target, within


@pytest.fixture(params=sorted(DRIVERS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Each driver in turn."""
    return DRIVERS[request.param](tmp_path)


# --- alerts and ids ------------------------------------------------------------------------------------------


def test_an_alert_comes_back_as_it_was_put(harness: Harness) -> None:
    full = alert(
        2**53 - 1,
        key="k",
        name="n",
        resource="r",
        verbatim={"a": [1, None, {"ü": "\u2028"}], "big": 2**63 - 1},
        body=Alert(summary="ü", severity=3, team=None, extensions={"acme": {"colour": None}}),
    )

    def work(tx: Tx) -> None:
        tx.insert_alert(full)
        assert tx.alert(full.id) == full
        assert tx.alert(1) is None
        full.version, full.status, full.is_open, full.is_deleted = 2, "resolved", False, True
        tx.update_alert(full)
        assert tx.alert(full.id) == full

    in_tx(harness, work)


def test_what_is_over_and_what_has_to_be_said_again_is_found_by_its_time(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, ends_at, is_open in ((1, 30, True), (2, 10, True), (3, 10, False), (4, None, True), (5, 99, True)):
            tx.insert_alert(alert(number, ends_at=ends_at, is_open=is_open))
            tx.put_target(target(number, renew_at=ends_at if number != 4 else None))
        assert [row.id for row in tx.ended(30, 9)] == [2, 1]
        assert [row.id for row in tx.ended(99, 1)] == [2]
        assert {row.alert for row in tx.renewable(30, 9)} == {1, 2, 3}
        assert tx.renewable(9, 9) == []

    in_tx(harness, work)


def test_a_command_can_be_taken_away_without_a_trace(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1))
        tx.insert_command(command(2, fanout=1))
        tx.insert_delivery(delivery(3, command=2))
        tx.insert_attempt(AttemptRow(delivery=3, number=1, at=1, took=1, status=200, outcome="delivered", reason=""))
        tx.remove_command(2)
        assert (tx.command(2), tx.delivery(3), tx.attempts(3)) == (None, None, [])
        assert tx.ledger(0, "caller") == []

    in_tx(harness, work)


def test_an_open_key_belongs_to_one_alert_of_its_scope(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, key="k", is_open=False))
        tx.insert_alert(alert(2, key="k"))
        tx.insert_alert(alert(3, key="k", scope="other"))
        found, other = tx.alert_by_key("s", "k"), tx.alert_by_key("other", "k")
        assert found and other and (found.id, other.id) == (2, 3)
        assert tx.alert_by_key("s", "K") is None
        last = tx.last_alert_by_key("s", "k", 2)
        assert last and last.id == 1
        assert tx.last_alert_by_key("s", "k", 1) is None
        assert tx.last_alert_by_key("other", "k", 3) is None

    in_tx(harness, work)


@pytest.mark.parametrize("field", ["key", "name"])
def test_the_index_decides_who_has_a_key_or_a_name(harness: Harness, field: str) -> None:
    """architecture.md, Invariants: uniqueness is decided inside the writing transaction, by unique indexes."""

    async def main(store: Store) -> None:
        await store.write(lambda tx: tx.insert_alert(alert(1, **{field: "x"})))
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each driver has its own class for it
            await store.write(lambda tx: tx.insert_alert(alert(2, **{field: "x"})))
        assert "onstraint" in type(caught.value).__name__ + str(caught.value)
        assert await store.read(lambda tx: tx.alert(2)) is None
        await store.write(lambda tx: tx.insert_alert(alert(3, scope="other", **{field: "x"})))
        await store.write(lambda tx: tx.update_alert(alert(1, is_open=False, is_deleted=True, **{field: "x"})))
        await store.write(lambda tx: tx.insert_alert(alert(4, **{field: "x"})))

    within(harness, main)


def test_of_many_writers_one_gets_the_key(harness: Harness) -> None:
    async def main(store: Store) -> None:
        def writer(number: int) -> Callable[[Tx], None]:
            return lambda tx: tx.insert_alert(alert(number, key="k"))

        ended = await asyncio.gather(*(store.write(writer(n)) for n in range(1, 51)), return_exceptions=True)
        assert sum(one is None for one in ended) == 1
        holder = await store.read(lambda tx: tx.alert_by_key("s", "k"))
        assert holder and ended[holder.id - 1] is None

    within(harness, main)


def test_a_name_is_held_until_the_alert_is_deleted(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, name="n", is_open=False, status="resolved"))
        found = tx.alert_by_name("s", "n")
        assert found and found.id == 1
        assert tx.alert_by_name("other", "n") is None
        tx.update_alert(alert(1, name="n", is_open=False, is_deleted=True))
        assert tx.alert_by_name("s", "n") is None

    in_tx(harness, work)


def test_of_two_alerts_with_one_id_at_two_upstreams_the_first_upstream_says_which(harness: Harness) -> None:
    """Short ids are unique only within an account; callers are shown the ids of an alert's first upstream."""

    def work(tx: Tx) -> None:
        for number in (1, 2, 3):
            tx.insert_alert(alert(number))
        for number, party, position in ((1, "a", 0), (1, "b", 1), (2, "b", 0), (2, "a", 1), (3, "a", 0)):
            tx.put_target(target(number, party, position=position))
        for name, party, number in (("7", "a", 1), ("7", "a", 2), ("8", "b", 1), ("8", "b", 2), ("7", "a", 3)):
            tx.add_id("s", name, party, number)
        for name, meant in (("7", 3), ("8", 2)):
            found = tx.alert_by_id("s", name)
            assert found and found.id == meant, name
        tx.update_alert(alert(3, is_deleted=True, is_open=False))
        found = tx.alert_by_id("s", "7")
        assert found and found.id == 1

    in_tx(harness, work)


def test_every_id_of_any_party_finds_the_alert_in_its_scope_alone(harness: Harness) -> None:
    """canonical.md, *Ids* and *Scope*: each party's id finds the alert for callers of its scope, and for nobody
    else."""

    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1))
        tx.insert_alert(alert(2, scope="other"))
        for name, party in [("77", "a"), ("77", "a"), ("x", "b"), ("alt_1", "gateway")]:
            tx.add_id("s", name, party, 1)
        for name in ("shown-1", "77", "x", "alt_1"):
            found = tx.alert_by_id("s", name)
            assert found and found.id == 1
            assert tx.alert_by_id("other", name) is None
        assert tx.is_known_id("77", "a") and not tx.is_known_id("77", "b")
        tx.insert_command(command(9))
        found = tx.alert_by_id("s", "9")
        assert found and found.id == 1, "a command's number names the alert that it was about"
        assert tx.alert_by_id("other", "9") is None
        tx.update_alert(alert(1, is_deleted=True, is_open=False))
        assert tx.alert_by_id("s", "9") is None
        assert tx.alert_by_id("s", "77") is None and tx.alert_by_id("s", "shown-1") is None
        assert tx.is_known_id("77", "a")

    in_tx(harness, work)


def test_lists_are_oldest_first_counted_whole_and_without_the_deleted(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in (3, 1, 2, 4, 5):
            tx.insert_alert(alert(number, resource="m" if number % 2 else None))
        tx.update_alert(alert(4, is_deleted=True, is_open=False))
        tx.update_alert(alert(2, status="resolved", is_open=False, updated_at=50))
        tx.insert_alert(alert(6, scope="other"))

        def ids(**chosen: Any) -> tuple[list[int], int]:
            rows, total = tx.alerts("s", AlertFilter(**chosen))
            return [row.id for row in rows], total

        assert ids() == ([1, 2, 3, 5], 4)
        assert ids(offset=1, limit=2) == ([2, 3], 4)
        assert ids(offset=9) == ([], 4)
        assert ids(statuses=("firing", "acknowledged")) == ([1, 3, 5], 3)
        assert ids(statuses=("resolved",)) == ([2], 1)
        assert ids(resource="m") == ([1, 3, 5], 3)
        assert ids(created_before=3) == ([1, 2], 2)
        assert ids(updated_from=5) == ([2, 5], 2)

    in_tx(harness, work)


def test_removing_an_alert_takes_what_belongs_to_it_and_frees_key_and_name(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, key="k", name="n"))
        tx.put_target(target(1))
        tx.add_id("s", "77", "a", 1)
        tx.insert_command(command(1))
        tx.insert_delivery(delivery(1))
        tx.remove_alert(1)
        assert tx.alert(1) is None and tx.alert_by_key("s", "k") is None and tx.alert_by_name("s", "n") is None
        assert tx.targets(1) == [] and tx.alert_by_id("s", "77") is None and tx.delivery(1) is None
        assert tx.command(1) is not None
        tx.insert_alert(alert(2, key="k", name="n"))

    in_tx(harness, work)


# --- targets and commands ------------------------------------------------------------------------------------


def test_targets_come_in_their_order_and_are_replaced(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1))
        second = target(1, "b", position=1, ids={"id": "7"}, seen={"version": 3}, replaced={"team": "4"}, revives=9)
        tx.put_target(second)
        tx.put_target(target(1, "a"))
        assert tx.targets(1) == [target(1, "a"), second]
        tx.put_target(target(1, "a", state="present"))
        assert tx.targets(1) == [target(1, "a", state="present"), second]
        tx.remove_target(1, "a")
        assert tx.targets(1) == [second]
        assert tx.targets(2) == []

    in_tx(harness, work)


def test_a_lane_is_held_by_its_open_alerts(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, is_open in [(1, True), (2, False), (3, True)]:
            tx.insert_alert(alert(number, is_open=is_open))
            tx.put_target(target(number, lane="key k"))
        tx.put_target(target(3, lane="key other"))
        assert tx.lane_holders("u", "key k") == [1]
        assert tx.lane_holders("v", "key k") == []

    in_tx(harness, work)


def test_commands_of_an_alert_in_order_and_a_refused_one_without_deliveries(harness: Harness) -> None:
    body = CommandBody(
        after=Alert(summary="a"),
        changed=("summary",),
        said={"x": 1},
        comment="c",
        before=Alert(),
        dropped=(("k", "w"),),
    )

    def work(tx: Tx) -> None:
        tx.insert_command(command(2, operation="update", body=body))
        tx.insert_command(command(1))
        tx.insert_command(command(3, alert=None))
        tx.insert_delivery(delivery(10, command=2))
        tx.insert_delivery(delivery(11, command=1))
        assert [one.id for one in tx.commands(1)] == [1, 2]
        found = tx.command(2)
        assert found and found.body == body and tx.command(4) is None
        tx.refuse_command(2, "nobody wanted it")
        found = tx.command(2)
        assert found and found.refused == "nobody wanted it"
        assert tx.delivery(10) is None and tx.delivery(11) is not None

    in_tx(harness, work)


# --- deliveries ----------------------------------------------------------------------------------------------


def test_a_delivery_comes_back_as_it_was_put(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        one = delivery(1, key="k", attempts=3, finished_at=9, status=202, reason="r", report=Raw(b'[{"field":"x"}]'))
        tx.insert_delivery(one)
        assert tx.delivery(1) == one
        one.state, one.reason = "dead", "ü"
        tx.update_delivery(one)
        assert tx.delivery(1) == one
        assert tx.delivery(2) is None

    in_tx(harness, work)


def test_deliveries_are_chosen_newest_first(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_delivery(delivery(1, state="dead"))
        tx.insert_delivery(delivery(2, upstream="v", command=1))
        tx.insert_delivery(delivery(3, alert=None))

        def ids(**chosen: Any) -> list[int]:
            return [one.id for one in tx.deliveries(DeliveryFilter(**chosen))]

        assert ids() == [3, 2, 1]
        assert ids(limit=1) == [3]
        assert ids(before=3) == [2, 1] and ids(before=3, limit=1) == [2]
        assert ids(state="dead") == [1]
        assert ids(upstream="v") == [2]
        assert ids(alert=1) == [2, 1]
        assert ids(ids=(1, 3, 99)) == [3, 1]
        assert [one.id for one in tx.deliveries_of(1)] == [1, 2]
        assert tx.is_waiting(1, "v") and not tx.is_waiting(1, "u")

    in_tx(harness, work)


def test_due_gives_only_the_head_of_each_lane(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, lane in [(1, "a"), (2, "a"), (3, "b"), (4, "c"), (5, "b")]:
            tx.insert_delivery(delivery(number, lane=lane))
        tx.insert_delivery(delivery(6, lane="a", upstream="v"))

        def heads(now: int = 10, limit: int = 10) -> list[int]:
            return sorted(one.id for one in tx.claim("u", now, limit))

        assert heads() == [1, 3, 4]
        assert len(heads(limit=2)) == 2
        assert [one.id for one in tx.claim("v", 10, 10)] == [6]
        tx.update_delivery(delivery(1, lane="a", state="delivered"))
        tx.update_delivery(delivery(3, lane="b", state="dead"))
        assert heads() == [2, 4, 5]

    in_tx(harness, work)


def test_upstreams_that_share_a_key_have_lanes_of_their_own(harness: Harness) -> None:
    """What is found in a lane decides what is merged and sent: another upstream's lane of the same name is not it."""

    def work(tx: Tx) -> None:
        told = ("delivered", "create"), ("delivered", "update"), ("waiting", "update"), ("waiting", "resolve")
        for number, (state, operation) in enumerate(told, 1):
            tx.insert_delivery(delivery(number, alert=number, state=state, operation=operation))
        tx.insert_delivery(delivery(5, alert=5, upstream="v"))
        tx.insert_delivery(delivery(6, alert=6, upstream="v", state="delivered"))
        tx.insert_delivery(delivery(7, alert=7, lane="other"))

        def id_of(row: DeliveryRow | None) -> int | None:
            return row.id if row else None

        assert [id_of(tx.last_waiting(of, "l")) for of in ("u", "v", "w")] == [4, 5, None]
        assert [id_of(tx.newest_in_lane(of, "l")) for of in ("u", "v", "w")] == [4, 6, None]
        assert [tx.told_last(of, "l") for of in ("u", "v", "w")] == [2, 6, None]
        third, fifth = tx.delivery(3), tx.delivery(5)
        assert third and fifth and not tx.waits_before(third) and not tx.waits_before(fifth)
        assert not tx.newer_delivered(third) and tx.newer_delivered(fifth)

    in_tx(harness, work)


def test_a_head_that_is_not_due_holds_its_whole_lane_back(harness: Harness) -> None:
    """architecture.md, Invariants: one order per lane, also across retries."""

    def work(tx: Tx) -> None:
        tx.insert_delivery(delivery(1, lane="a", due=100))
        tx.insert_delivery(delivery(2, lane="a", due=0))
        tx.insert_delivery(delivery(3, lane="b", due=0))
        assert [one.id for one in tx.claim("u", 50, 10)] == [3]
        assert [one.id for one in tx.claim("u", 99, 10)] == [3]
        assert sorted(one.id for one in tx.claim("u", 100, 10)) == [1, 3]
        assert tx.next_due("u", 50) == 100
        assert tx.next_due("u", 100) is None
        assert tx.next_due("v", 0) is None

    in_tx(harness, work)


def test_what_has_been_due_longest_comes_first(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, due in [(1, 30), (2, 10), (3, 20)]:
            tx.insert_delivery(delivery(number, lane=f"l{number}", due=due))
        assert [one.id for one in tx.claim("u", 50, 10)] == [2, 3, 1]
        assert [one.id for one in tx.claim("u", 50, 1)] == [2]

    in_tx(harness, work)


def test_what_waits_before_and_what_was_delivered_after(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        rows = [delivery(number) for number in (1, 2, 3)]
        for row in rows:
            tx.insert_delivery(row)
        tx.insert_delivery(delivery(4, lane="other", state="delivered"))
        assert [tx.waits_before(row) for row in rows] == [False, True, True]
        assert not tx.newer_delivered(rows[0])
        tx.update_delivery(delivery(3, state="delivered"))
        tx.update_delivery(delivery(1, state="dead"))
        assert not tx.waits_before(rows[1]) and tx.newer_delivered(rows[1])

    in_tx(harness, work)


def test_waiting_is_counted_by_upstream_with_the_age_of_the_oldest(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        assert tx.waiting() == []
        for number, upstream in [(5, "u"), (3, "u"), (9, "v")]:
            tx.insert_delivery(delivery(number, upstream=upstream, lane=str(number)))
        tx.insert_delivery(delivery(1, state="dead"))
        assert sorted(tx.waiting(), key=lambda one: one.upstream) == [Waiting("u", 2, 3), Waiting("v", 1, 9)]

    in_tx(harness, work)


def test_what_waits_of_a_time_to_come_is_called_back(harness: Harness) -> None:
    """The clock was set back by 5,000 to 1,000. Each case: when its command came, and for the delivery `created_at`,
    `due`, attempts before, and the first two after."""
    cases = [
        ((6_000, 6_000, 6_000, 0), (1_000, 1_000)),  # new
        ((6_000, 6_000, 6_900, 3), (1_000, 1_001)),  # tried; a retry is due after its `created_at`
        ((6_000, 8_000, 8_000, 0), (3_000, 3_000)),  # a fallback, whose turn comes in 2,000
        ((6_000, 1_000, 1_000, 0), (1_000, 1_000)),  # moved along with the clock when that was set
        ((900, 900, 5_900, 3), (900, 1_001)),  # came before, and would wait for longer than any upstream asks for
        ((900, 900, 1_400, 3), (900, 1_400)),
        ((900, 2_900, 2_900, 0), (2_900, 2_900)),  # a fallback of before
    ]

    def work(tx: Tx) -> None:
        for number, ((at, created, due, attempts), _) in enumerate(cases, 1):
            tx.insert_command(command(number, at=at))
            tx.insert_delivery(delivery(number, created_at=created, due=due, attempts=attempts))
        tx.call_back(1_000, longest=500)
        found = tx.deliveries(DeliveryFilter(after=0))
        assert [(row.created_at, row.due) for row in found] == [after for _, after in cases]

    in_tx(harness, work)


def test_attempts_of_a_delivery(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        tx.insert_delivery(delivery(1))
        made = [
            AttemptRow(delivery=1, number=n, at=n, took=5, status=503 if n == 1 else None, outcome="again", reason="r")
            for n in (2, 1)
        ]
        for one in made:
            tx.insert_attempt(one)
        assert tx.attempts(1) == [made[1], made[0]]
        assert tx.attempts(2) == []

    in_tx(harness, work)


def test_notes_are_found_by_how_their_names_begin(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, name in enumerate(("a", "a b", "a%c", "a_d", "aü", "A e", "b", "a\U0010ffff")):
            tx.put_note(name, number)
        assert tx.notes("a", 99) == [7, 4, 3, 2, 1, 0]
        assert tx.notes("a", 2) == [7, 4]
        assert tx.notes("a_", 99) == [3] and tx.notes("a%", 99) == [2] and tx.notes("A", 99) == [5]
        tx.remove_notes("a", "a_", 99)
        assert tx.notes("a", 99) == [7, 4, 3] and tx.notes("b", 99) == [6] and tx.note("A e") == 5

    in_tx(harness, work)


def test_the_largest_id_of_all(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        assert tx.largest_id() == 0
        tx.insert_alert(alert(5))
        assert tx.largest_id() == 5
        tx.insert_delivery(delivery(9))
        assert tx.largest_id() == 9
        tx.insert_command(command(12))
        assert tx.largest_id() == 12

    in_tx(harness, work)


# --- purge ---------------------------------------------------------------------------------------------------


def test_purge_removes_what_ended_before_and_nothing_else(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number, updated_at, is_open in [(1, 10, False), (2, 10, True), (3, 200, False), (4, 10, False)]:
            tx.insert_alert(alert(number, updated_at=updated_at, is_open=is_open, key=f"k{number}"))
            tx.put_target(target(number))
            tx.insert_command(command(number, alert=number))
        tx.insert_delivery(delivery(11, alert=1, state="delivered", finished_at=10))
        tx.insert_attempt(AttemptRow(delivery=11, number=1, at=1, took=1, status=1, outcome="o", reason=""))
        tx.insert_delivery(delivery(13, command=3, alert=3, state="delivered", finished_at=200))
        tx.insert_delivery(delivery(14, command=4, alert=4))
        while tx.purge(100, 1):
            pass
        assert [number for number in (1, 2, 3, 4) if tx.alert(number)] == [2, 3, 4]
        assert [number for number in (11, 13, 14) if tx.delivery(number)] == [13, 14]
        assert tx.attempts(11) == [] and tx.targets(1) == [] and tx.commands(1) == []
        # Commands of an open alert are purged too, once none of their deliveries waits or ended lately.
        assert [len(tx.commands(number)) for number in (2, 3, 4)] == [0, 1, 1]

    in_tx(harness, work)


def test_purge_takes_a_batch_at_most(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in range(1, 8):
            tx.insert_delivery(delivery(number, command=number, state="delivered", finished_at=1, alert=None))
        assert tx.purge(100, 3) == 3
        assert len(tx.deliveries(DeliveryFilter())) == 4

    in_tx(harness, work)


def test_purge_counts_commands_that_nobody_was_told(harness: Harness) -> None:
    """If they were not counted, a full batch would look like the last one, and they would come faster than they are
    purged."""

    def work(tx: Tx) -> None:
        for number in range(1, 6):
            tx.insert_command(command(number, alert=None, at=1))
        assert [tx.purge(100, 2) for _ in range(4)] == [2, 2, 1, 0]

    in_tx(harness, work)


def test_purge_goes_through_what_nobody_was_told_last(harness: Harness) -> None:
    """Otherwise each batch of a backlog scans all commands that are left, and blocks all writes meanwhile."""

    def work(tx: Tx) -> None:
        tx.insert_command(command(1, alert=None, at=1))
        tx.insert_alert(alert(2, updated_at=1, is_open=False))
        for number in (3, 4, 5):
            tx.insert_command(command(number, alert=None, at=1))
            tx.insert_delivery(delivery(number, command=number, alert=None, state="delivered", finished_at=1))
        assert tx.purge(100, 2) == 2
        assert tx.command(1) is not None and tx.alert(2) is not None
        assert [tx.purge(100, 2), tx.purge(100, 2)] == [3, 0]
        assert tx.command(1) is None and tx.alert(2) is None

    in_tx(harness, work)


def test_purge_leaves_the_command_of_a_delivery_that_still_waits(harness: Harness) -> None:
    """architecture.md, Invariants: the store holds canonical commands and a request is built when it is sent; without
    its command a waiting delivery could not be built."""

    def work(tx: Tx) -> None:
        tx.insert_command(command(1, alert=None, at=1))
        tx.insert_delivery(delivery(2, command=1, alert=None))
        tx.purge(100, 10)
        assert tx.delivery(2) is not None
        assert tx.command(1) is not None

    in_tx(harness, work)


def test_purge_keeps_what_was_received_together(harness: Harness) -> None:
    """guarantees.md 30: the deliveries of a command are purged together, once none waits or ended lately; otherwise the
    ledger would not add up meanwhile."""

    def work(tx: Tx) -> None:
        for number in (1, 2, 3):
            tx.insert_command(command(number, alert=None, at=1, fanout=2))
            tx.insert_delivery(delivery(10 * number, command=number, alert=None, state="delivered", finished_at=5))
        tx.insert_delivery(delivery(11, command=1, alert=None))
        tx.insert_delivery(delivery(21, command=2, alert=None, state="dead", finished_at=100))
        tx.insert_delivery(delivery(31, command=3, alert=None, state="delivered", finished_at=6))
        assert tx.purge(100, 1) == 2
        assert tx.purge(100, 10) == 0
        [line] = tx.ledger(0, "caller")
        assert line.adds_up and (line.received, line.delivered, line.waiting, line.dead) == (4, 2, 1, 1)
        assert tx.purge(101, 10) == 2

    in_tx(harness, work)


def test_purge_leaves_a_command_that_a_waiting_delivery_says_too(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in (1, 2):
            tx.insert_command(command(number, alert=None, at=number))
        tx.insert_delivery(delivery(11, command=1, alert=None, state="merged", finished_at=2))
        tx.insert_delivery(delivery(12, command=2, alert=None, merges=[1]))
        assert tx.purge(100, 10) == 0
        assert tx.command(1) is not None

    in_tx(harness, work)
