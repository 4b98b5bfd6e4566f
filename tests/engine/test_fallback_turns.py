"""The turn of a fallback, on a virtual clock: what is committed between the turn and the sending, and what an undone
command leaves of it."""

from __future__ import annotations

import pytest

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.outcome import Again, Rejected
from gateway.road.preparing import Shipment, fire
from gateway.road.requeue import drop
from gateway.road.road import Road
from gateway.road.undoing import undo
from tests.engine.desks import FALLING_BACK, MINUTE, RESOLVE, Desk, adds_up, create, drain, states

THREE_TURNS = FALLING_BACK.partition("[[routes]]")[0]
"""A fallback that stands in for three routes, of which two are for urgent alerts alone, each after another time."""
THREE_TURNS += "".join(
    f'[upstreams.{name}]\ndialect = "ilert"\nurl = "http://localhost"\nkey = "{name}"\n' for name in ("log", "voice")
)
THREE_TURNS += "".join(
    f'[[routes]]\n{when}to = ["{to}"]\ncontinue = true\nfallback = {{ to = ["bykey"], after = "{after}" }}\n'
    for when, to, after in (
        ("", "byid", "50m"),
        ('when = ["severity <= 2"]\n', "log", "40m"),
        ('when = ["severity <= 2"]\n', "voice", "5m"),
    )
)


def at_its_turn() -> tuple[Desk, Shipment]:
    """A desk at which nobody has taken a page in time, and that page as it is prepared for the fallback."""
    desk = Desk(FALLING_BACK)
    desk.accept("ci", create("disk"))
    desk.now += 121_000
    [row] = desk.due("bykey")
    return desk, desk.take(row)


def test_two_minutes_is_what_a_fallback_waits_unless_told_otherwise() -> None:
    desk = Desk(FALLING_BACK)
    desk.accept("ci", create("disk"))
    assert desk.due("bykey") == []
    desk.now += 119_000
    assert desk.due("bykey") == []
    desk.now += 2_000
    assert len(desk.due("bykey")) == 1


def test_a_page_that_ends_between_its_turn_and_its_sending_is_not_sent() -> None:
    """Of the resolve and the fallback's turn, the one that commits first wins."""
    desk, shipment = at_its_turn()
    assert shipment.fires
    desk.accept("ci", RESOLVE)
    with desk.connection:
        assert not fire(desk.tx, shipment)
    assert states(desk, "bykey") == [("create", "void")]


def test_a_page_that_is_dropped_between_its_turn_and_its_sending_is_not_sent() -> None:
    desk, shipment = at_its_turn()
    with desk.connection:
        drop(desk.tx, [shipment.delivery], "seen", desk.now)
        assert not fire(desk.tx, shipment)


def test_a_page_that_another_upstream_takes_between_its_turn_and_its_sending_is_not_sent() -> None:
    """An upstream that was away may come back at that moment: two would be woken."""
    desk, shipment = at_its_turn()
    drain(desk, "byid")
    with desk.connection:
        assert not fire(desk.tx, shipment)
    assert drain(desk, "bykey") == []
    assert states(desk, "bykey") == [("create", "void")]


def test_what_changes_between_its_turn_and_its_sending_is_told_too() -> None:
    """A waiting fallback is sent no updates, so content that was read before an update must not be sent after it."""
    desk, shipment = at_its_turn()
    desk.accept("ci", create("disk", summary="Disk is fuller"))
    with desk.connection:
        assert not fire(desk.tx, shipment)
    [row] = desk.due("bykey")
    shipment = desk.take(row)
    with desk.connection:
        assert fire(desk.tx, shipment)
    assert shipment.sending is not None
    assert "Disk is fuller" in str(shipment.sending.body)


def test_a_fallback_that_a_refused_update_chose_outright_stands_by_again() -> None:
    """Nobody had taken the page by then: without its turn it would wake nobody."""
    route = '[[routes]]\nwhen = ["severity <= 2"]\nto = ["bykey"]\n[[routes]]'
    desk = Desk(FALLING_BACK.replace("[[routes]]", route, 1))
    desk.accept("ci", create("disk"))
    [row] = desk.due("byid")
    desk.end(desk.take(row), Rejected(reason="no"))
    worse = desk.accept("ci", Command(operation=Operation.CREATE, patch={"dedup_key": "disk", "severity": 1}))
    for name in ("byid", "bykey"):
        for row in desk.due(name):
            desk.end(desk.take(row), Rejected(reason="no"))
    assert {state for _, state in states(desk, "bykey")} == {"void", "dead"}
    with desk.connection:
        command = desk.tx.command(worse.command)
        assert command is not None
        undo(desk.tx, command, "no")
    assert desk.due("bykey") == []
    desk.now += 121_000
    assert [one.operation for one in drain(desk, "bykey")] == [Operation.CREATE]
    assert adds_up(desk)


def test_who_took_the_page_has_it_though_what_changed_since_still_waits() -> None:
    desk = Desk(FALLING_BACK)
    desk.accept("ci", create("disk"))
    drain(desk, "byid")
    desk.accept("ci", create("disk", summary="Disk is fuller"))
    [row] = desk.due("byid")
    desk.end(desk.take(row), Again(reason="503"))
    desk.now += 121_000
    [row] = desk.due("bykey")
    shipment = desk.take(row)
    assert (shipment.sending, shipment.void) == (None, "byid has taken the alert")


def test_reopening_finds_the_fallback_though_its_route_has_another_place() -> None:
    """Routes without a name are named by position, so a route inserted before takes over the name."""
    desk = Desk(FALLING_BACK)
    made = desk.accept("ci", create("disk")).alert
    assert made is not None
    drain(desk, "byid")
    desk.now += 121_000
    drain(desk, "bykey")
    desk.accept("ci", RESOLVE)
    drain(desk, "byid")
    moved = FALLING_BACK.replace("[[routes]]", '[[routes]]\nwhen = ["severity = 7"]\nto = ["byid"]\n[[routes]]', 1)
    desk.config = parse(moved)
    desk.road = Road(desk.config, desk.ids.next, desk._invent)
    desk.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=made.shown)))
    assert states(desk, "bykey") == [("create", "void"), ("create", "waiting")]
    desk.now += 121_000
    assert [one.operation for one in drain(desk, "bykey")] == [Operation.CREATE]


def test_an_end_after_the_fallback_s_turn_follows_it_there() -> None:
    desk, shipment = at_its_turn()
    with desk.connection:
        assert fire(desk.tx, shipment)
    desk.accept("ci", RESOLVE)
    desk.end(shipment, Again(reason="reset"))
    desk.now += 10_000
    assert [one.operation for one in drain(desk, "bykey")] == [Operation.CREATE, Operation.RESOLVE]
    assert desk.vendors["bykey"].opened == {}


def test_an_end_that_is_taken_back_leaves_the_fallback_what_was_acknowledged_too() -> None:
    desk = Desk(FALLING_BACK)
    desk.accept("ci", create("disk"))
    desk.accept("ci", Command(operation=Operation.ACKNOWLEDGE, ref=Ref(key="disk")))
    ended = desk.accept("ci", RESOLVE)
    assert {state for _, state in states(desk, "bykey")} == {"void"}
    with desk.connection:
        command = desk.tx.command(ended.command)
        assert command is not None
        undo(desk.tx, command, "no")
    desk.now += 121_000
    assert [one.operation for one in drain(desk, "bykey")] == [Operation.CREATE, Operation.ACKNOWLEDGE]
    assert adds_up(desk)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_later_turn_is_moved_with_the_clock_too(hours: int) -> None:
    """What waits is moved when the clock is set, so that a turn means a pause and not a time of day."""
    desk = Desk(THREE_TURNS)
    desk.accept("ci", Command(operation=Operation.CREATE, patch={"dedup_key": "disk", "severity": 1}))
    drain(desk, "voice")
    for _ in range(2):  # before the first turn, and between two
        with desk.connection:
            desk.tx.shift_waiting(hours * 3_600_000)
        desk.now += hours * 3_600_000
        desk.now += 5 * MINUTE
        for row in desk.due("bykey"):
            shipment = desk.take(row)
            assert shipment.later is not None, "who was to take it within five minutes has"
            desk.end(shipment, None)
    desk.now += 29 * MINUTE
    assert desk.due("bykey") == []
    desk.now += 2 * MINUTE
    assert [one.operation for one in drain(desk, "bykey")] == [Operation.CREATE]


@pytest.mark.parametrize("is_taken", [True, False])
def test_of_two_routes_that_join_the_sooner_says_when_their_fallback_is_told(is_taken: bool) -> None:
    """An update adds two routes whose shared fallback waits for different times; what it had waited for may have been
    taken by then."""
    desk = Desk(THREE_TURNS)
    desk.accept("ci", create("disk"))
    [row] = desk.due("byid")
    desk.end(desk.take(row), desk.taken(desk.take(row)) if is_taken else Again(reason="503"))
    desk.accept("ci", Command(operation=Operation.CREATE, patch={"dedup_key": "disk", "severity": 1}))
    desk.now += 4 * 60_000
    assert desk.due("bykey") == []
    desk.now += 60_000
    [row] = desk.due("bykey")
    assert desk.take(row).operation is Operation.CREATE
