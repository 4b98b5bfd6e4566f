"""What an upstream shows of an alert is compared with what it was sent: only what somebody else changed there is a
change, and the gateway's own notes on the alert outlast it."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.desk.refreshing import refresh
from gateway.outcome import Delivered
from gateway.road.terms import SPOKEN
from gateway.store import AlertRow
from tests.engine.desks import Desk, create


def _sent(desk: Desk) -> AlertRow:
    """The alert of the key `disk`, which the upstream `byid` has taken."""
    desk.accept("ci", create("disk"))
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered(ids={"id": "alt_1"}))
    found = desk.tx.alert_by_key("ilert/ci", "disk")
    assert found is not None
    return found


def test_what_the_gateway_itself_has_noted_is_kept() -> None:
    """Without its own notes it would take ids of another vendor, which the upstream's name once meant, for its own."""
    desk = Desk()
    row = _sent(desk)
    refresh(desk.tx, row, desk.upstream("byid"), {}, {"updated": "today"}, desk.now)
    target = desk.target(row.id, "byid")
    assert target is not None and target.seen.get(SPOKEN) == "uptinio" and target.seen["updated"] == "today"


def test_what_was_sent_in_place_of_nothing_is_no_change() -> None:
    """The upstream shows the default that it was sent where the caller had said nothing."""
    desk = Desk()
    row = _sent(desk)
    refresh(desk.tx, row, desk.upstream("byid"), {"resource": "mon_9"}, {}, desk.now)
    found = desk.tx.alert(row.id)
    assert found is not None and (found.body.resource, found.version) == (UNSET, 1)
    refresh(desk.tx, row, desk.upstream("byid"), {"resource": "mon_7"}, {}, desk.now)
    found = desk.tx.alert(row.id)
    assert found is not None and (found.body.resource, found.version) == ("mon_7", 2)


@pytest.mark.parametrize("is_new", [False, True])
def test_what_is_opened_there_again_is_open_unless_its_key_has_a_newer_alert(is_new: bool) -> None:
    desk = Desk()
    row = _sent(desk)
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    if is_new:
        desk.accept("ci", create("disk"))
    ended = desk.tx.alert(row.id)
    assert ended is not None and not ended.is_open
    refresh(desk.tx, ended, desk.upstream("byid"), {"status": "firing"}, {}, desk.now)
    found = desk.tx.alert(row.id)
    assert found is not None and found.is_open is not is_new
