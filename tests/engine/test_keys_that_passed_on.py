"""A key at an upstream may pass from one alert to a newer one while commands for the older are on their way or still
come: none of them may reach the newer alert. guarantees.md 5 and 26."""

from __future__ import annotations

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.outcome import Again, Delivered, Rejected
from gateway.road.preparing import Shipment
from tests.engine.desks import Desk, create


def turn(desk: Desk) -> Shipment:
    """Takes the next delivery to the upstream that finds alerts by key."""
    [row] = desk.due("bykey")
    return desk.take(row)


def test_what_is_asked_of_an_old_alert_does_not_end_the_newer_one_that_has_its_key() -> None:
    """The old alert's resolve was refused there, so the gateway takes it for present; its key belongs to the newer
    alert."""
    desk = Desk()
    old = desk.accept("ci", create("disk")).alert
    assert old
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    desk.end(turn(desk), Rejected(reason="400 no"))
    desk.accept("ci", create("disk"))
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.DELETE, ref=Ref(id=old.shown)))
    shipment = turn(desk)
    assert shipment.sending is None and "another alert" in shipment.void
    assert desk.end(shipment, None).state == "void"


def test_what_is_asked_of_a_newer_alert_that_is_over_neither_ends_nor_alters_an_older_one_that_came_back() -> None:
    """The newer alert's resolve was refused there, and the older one was reopened under the key that both have."""
    for asked in (Operation.DELETE, Operation.UPDATE):
        desk = Desk()
        old = desk.accept("ci", create("disk")).alert
        desk.end(turn(desk), Delivered())
        desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
        desk.end(turn(desk), Delivered())
        new = desk.accept("ci", create("disk")).alert
        assert old and new
        desk.end(turn(desk), Delivered())
        desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
        desk.end(turn(desk), Rejected(reason="400 no"))
        desk.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=old.shown)))
        desk.end(turn(desk), Delivered())
        patch = {"summary": "said later"} if asked is Operation.UPDATE else {}
        desk.accept("ci", Command(operation=asked, ref=Ref(id=new.shown), patch=patch))
        shipment = turn(desk)
        assert shipment.sending is None and "another alert" in shipment.void


def test_an_old_alert_that_came_back_ends_although_the_end_of_a_newer_one_was_refused() -> None:
    desk = Desk()
    old = desk.accept("ci", create("disk")).alert
    assert old
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    desk.end(turn(desk), Delivered())
    desk.accept("ci", create("disk"))
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    desk.end(turn(desk), Rejected(reason="400 no"))
    desk.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=old.shown)))
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    assert turn(desk).sending is not None


def test_an_end_that_waits_while_the_key_passes_on_is_sent_first() -> None:
    desk = Desk()
    desk.accept("ci", create("disk"))
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    desk.accept("ci", create("disk"))
    shipment = turn(desk)
    assert shipment.operation is Operation.RESOLVE and shipment.sending is not None


def test_an_alert_that_comes_back_under_another_key_waits_for_its_own_end() -> None:
    """A resolve that waited is sent with the key that the alert had when it was requested."""
    desk = Desk()
    old = desk.accept("ci", create("disk")).alert
    assert old
    desk.end(turn(desk), Delivered())
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    desk.end(turn(desk), Again(reason="503"))
    desk.accept("ops", create("disk"))
    desk.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=old.shown)))
    sent = []
    while not desk.due("bykey"):
        desk.now += 1000
    while desk.due("bykey"):
        shipment = turn(desk)
        assert shipment.sending is not None
        sent.append((shipment.operation, shipment.sending.key))
        desk.end(shipment, Delivered())
    assert sent == [
        (Operation.RESOLVE, "disk"),
        (Operation.CREATE, "disk"),
        (Operation.REOPEN, f"disk-{old.id}"),
    ]
