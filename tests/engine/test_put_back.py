"""Dead deliveries that are put back into the outbox, deliveries that are taken out of it for good, and what is told of
an alert that is not known here: on a real store with nothing sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.codes import Code
from gateway.ids import Ids
from gateway.outcome import Again
from gateway.road import requeue
from gateway.road.accepted import Order
from gateway.road.requeue import drop, send_again, told_at_last
from gateway.road.road import Road
from gateway.store import DeliveryFilter, DeliveryRow
from tests.engine.desks import (
    CONFIG,
    NO,
    RESOLVE,
    Desk,
    adds_up,
    all_rows,
    create,
    drain,
    opened,
    states,
    update,
)


def dead(desk: Desk, upstream: str) -> list[DeliveryRow]:
    """The dead deliveries of an upstream."""
    return desk.tx.deliveries(DeliveryFilter(state="dead", upstream=upstream))


def refused_page() -> tuple[Desk, DeliveryRow]:
    """A desk with a page that one upstream refused."""
    desk = Desk()
    desk.accept("ci", create("disk"))
    [row] = desk.due("bykey")
    desk.end(desk.take(row), NO)
    [row] = dead(desk, "bykey")
    return desk, row


def test_what_is_put_back_waits_as_if_it_had_just_come() -> None:
    """Else its age would make it late, or given up at the first failure."""
    desk, row = refused_page()
    desk.now += 1_000_000
    assert send_again(desk.tx, [row], desk.now, force=False) == ([row.id], [])
    [again] = desk.due("bykey")
    assert (again.id, again.state, again.reason, again.code) == (row.id, "waiting", "", "")
    assert (again.due, again.created_at, again.finished_at) == (desk.now, desk.now, None)
    assert adds_up(desk)


def test_only_what_is_dead_by_now_is_put_back() -> None:
    """Since it was chosen, somebody else may have put it back, or the store may have purged it."""
    desk, row = refused_page()
    assert send_again(desk.tx, [row], desk.now, force=False)[0] == [row.id]
    assert send_again(desk.tx, [row], desk.now, force=True) == ([], [f"{row.id}: is waiting, not dead"])
    row.id += 1_000_000
    assert send_again(desk.tx, [row], desk.now, force=True) == ([], [])


def test_what_something_newer_followed_is_put_back_only_by_force() -> None:
    desk, alert = opened()
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    desk.end(desk.take(row), NO)
    desk.accept("ci", update(2, Ref(id=alert.shown)))
    drain(desk)
    done, refused = send_again(desk.tx, [row], desk.now, force=False)
    assert done == [] and "--force" in refused[0]
    assert send_again(desk.tx, [row], desk.now, force=True) == ([row.id], [])


def test_of_what_an_absent_upstream_was_owed_only_that_is_put_back() -> None:
    """A refusal stays one."""
    desk, row = refused_page()
    desk.accept("ops", create("net"))
    [owed] = desk.due("bykey")
    owed.state, owed.code, owed.finished_at = "dead", Code.NO_UPSTREAM.value, desk.now
    desk.tx.update_delivery(owed)
    assert told_at_last(desk.tx, "bykey", desk.now, 0) == 0
    assert [one.id for one in desk.due("bykey")] == [owed.id]
    assert [one.id for one in dead(desk, "bykey")] == [row.id]


def test_what_is_dropped_is_void_for_the_reason_given() -> None:
    desk, row = refused_page()
    [waits] = desk.due("byid")
    assert drop(desk.tx, [row, waits], "a drill", desk.now) == ([row.id, waits.id], [])
    rows = all_rows(desk)
    assert {(one.state, one.reason, one.code, one.finished_at) for one in rows} == {
        ("void", "dropped: a drill", Code.DROPPED, desk.now)
    }
    assert drop(desk.tx, [row], "again", desk.now) == ([], [f"{row.id}: is void, so there is nothing to drop"])
    assert adds_up(desk)


def test_a_dropped_page_leaves_its_target_dead_and_a_dropped_change_leaves_it_as_it_is() -> None:
    """The next change is sent as a create of the alert's present state then (canonical.md), or as the change it is."""
    desk = Desk()
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    [page] = desk.due("byid")
    drop(desk.tx, [page], "a drill", desk.now)
    assert [one.state for one in desk.tx.targets(alert.id)] == ["waiting", "dead"]
    drain(desk, "bykey")
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    assert desk.take(row).operation is Operation.CREATE
    [row] = desk.due("bykey")
    drop(desk.tx, [row], "a drill", desk.now)
    target = desk.target(alert.id, "bykey")
    assert target and target.state == "present"


def test_a_dropped_reopening_leaves_its_target_dead() -> None:
    desk, alert = opened()
    desk.accept("ci", RESOLVE)
    drain(desk)
    desk.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=alert.shown)))
    drop(desk.tx, desk.due("bykey"), "a drill", desk.now)
    drop(desk.tx, desk.due("byid"), "a drill", desk.now)
    assert {one.upstream: one.state for one in desk.tx.targets(alert.id)} == {"bykey": "dead", "byid": "present"}


# --- an alert that is not known here ---------------------------------------------------------------------------


def test_the_end_of_what_is_not_known_here_is_told_where_alerts_are_found_by_key() -> None:
    desk = Desk()
    accepted = desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key=" Disk"), comment="fixed"))
    assert (accepted.alert, accepted.primary, accepted.fanout) == (None, "bykey", 1)
    [row] = desk.due("bykey")
    assert row in accepted.deliveries and (row.key, row.lane, row.alert) == (" Disk", "key disk", None)
    shipment = desk.take(row)
    assert shipment.sending
    assert (shipment.operation, shipment.sending.key, shipment.sending.comment) == (Operation.RESOLVE, " Disk", "fixed")
    assert desk.due("byid") == []


def test_an_end_does_not_overtake_what_waits_for_the_key() -> None:
    desk = Desk()
    first = desk.accept("ci", RESOLVE).deliveries[0]
    second = desk.accept("ci", RESOLVE).deliveries[0]
    assert second.id > first.id
    desk.end(desk.take(first), Again(reason="503"))
    assert desk.due("bykey") == []


def test_an_end_by_key_is_not_told_where_another_scope_has_the_alert() -> None:
    desk = Desk()
    desk.accept("ops", create("disk"))
    accepted = desk.accept("ci", RESOLVE)
    assert (accepted.alert, accepted.fanout, accepted.deliveries) == (None, 0, [])
    assert states(desk, "bykey") == [("create", "waiting")]


def test_what_a_sender_repeats_of_an_end_is_told_once() -> None:
    """Prometheus goes on telling the end of an alert for a quarter of an hour."""
    desk = Desk()
    again = Command(operation=Operation.RESOLVE, ref=Ref(key="disk"), is_resend=True)
    assert [desk.accept("ci", again).fanout for _ in range(2)] == [1, 0]
    assert desk.accept("ci", RESOLVE).fanout == 1, "somebody says it, and not again and again"


def test_the_end_of_an_alert_that_was_known_here_is_not_told_again_to_be_sure() -> None:
    desk = Desk()
    desk.accept("ci", create("disk"))
    desk.accept("ci", RESOLVE)
    drain(desk)
    again = Command(operation=Operation.RESOLVE, ref=Ref(key="disk"), is_resend=True)
    accepted = desk.accept("ci", again)
    assert (accepted.fanout, accepted.deliveries) == (0, [])
    assert desk.due("bykey") == []


def test_what_came_through_this_gateway_before_is_not_told_of_the_unknown_either() -> None:
    desk = Desk()
    desk.road = Road(desk.config, desk.ids.next, desk._invent, "me")
    number = desk.ids.next()
    order = Order(
        asked=RESOLVE, caller=desk.callers["ci"], request=number, command=number, now=desk.now, via=("other", "me")
    )
    accepted = desk.road.accept(desk.tx, order)
    assert (accepted.deliveries, accepted.dead, accepted.fanout) == ([], {"bykey": Code.LOOP}, 1)
    assert states(desk) == [("resolve", "void")]


def test_an_end_whose_key_is_chosen_by_what_only_the_alert_says_is_void(tmp_path: Path) -> None:
    """It would wait for ever."""
    (tmp_path / "db").write_text("k1")
    by_team = f'key = {{ by = "labels.team", dir = "{tmp_path}" }}'
    desk = Desk(CONFIG.replace('key = "k"', by_team, 1))
    accepted = desk.accept("ci", RESOLVE)
    assert (accepted.deliveries, accepted.dead, accepted.fanout) == ([], {"bykey": Code.NO_KEY}, 1)
    [row] = all_rows(desk)
    assert (row.state, row.finished_at, row.code) == ("void", desk.now, Code.NO_KEY)
    assert row.reason.startswith("an alert that is not known here: ")


def test_the_command_of_an_unknown_alert_is_kept_as_it_was_said() -> None:
    desk = Desk()
    said = Command(
        operation=Operation.RESOLVE,
        ref=Ref(key="disk"),
        comment="fixed",
        verbatim={"eventType": "RESOLVE"},
        dropped=(("apiKey", "a credential"),),
    )
    number = desk.ids.next()
    order = Order(
        asked=said, caller=desk.callers["ci"], request=number, command=number, now=desk.now, via=("other",), trace="t-1"
    )
    desk.road.accept(desk.tx, order)
    kept = desk.tx.command(number)
    assert kept and (kept.alert, kept.operation, kept.fanout, kept.at) == (None, Operation.RESOLVE, 1, desk.now)
    assert (kept.body.said, kept.body.comment, kept.body.dropped) == (said.verbatim, said.comment, said.dropped)
    [row] = desk.due("bykey")
    shipment = desk.take(row)
    assert (shipment.via, shipment.trace) == (("other",), "t-1")


def test_an_end_leaves_after_what_another_replica_with_a_faster_clock_has_queued() -> None:
    desk = Desk()
    ahead = Ids(clock=lambda: desk.now + 3_600_000)
    slow, desk.road = desk.road, Road(desk.config, ahead.next, desk._invent)
    first = desk.accept("ci", RESOLVE).deliveries[0]
    desk.road = slow
    second = desk.accept("ci", RESOLVE).deliveries[0]
    assert second.id > first.id
    assert [row.id for row in desk.due("bykey")] == [first.id]


def test_what_is_asked_of_the_unknown_is_told_to_another_vendor_only_where_the_key_says_it_all() -> None:
    """What the alert is can be said only in the caller's own words, which are its own vendor's."""
    told = {}
    for dialect in ("ilert", "opsgenie", "pagerduty"):
        desk = Desk(CONFIG.replace('dialect = "ilert"', f'dialect = "{dialect}"'))
        for operation in (Operation.UPDATE, Operation.ACKNOWLEDGE, Operation.COMMENT, Operation.RESOLVE):
            accepted = desk.accept("ci", Command(operation=operation, ref=Ref(key="disk"), comment="fixed"))
            told[dialect, operation.value] = [row.upstream for row in accepted.deliveries]
    assert [asked for asked, upstreams in told.items() if upstreams == ["bykey"]] == [
        *(("ilert", "update"), ("ilert", "acknowledge"), ("ilert", "comment"), ("ilert", "resolve")),
        *(("opsgenie", "acknowledge"), ("opsgenie", "comment"), ("opsgenie", "resolve")),
        *(("pagerduty", "acknowledge"), ("pagerduty", "resolve")),
    ]


def test_what_an_absent_upstream_was_owed_is_put_back_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "BATCH", 2)
    desk = Desk()
    for key in ("a", "b", "c"):
        desk.accept("ci", create(key))
    owed = desk.due("bykey")
    for row in (*owed, *desk.due("byid")):
        row.state, row.code, row.finished_at = "dead", Code.NO_UPSTREAM.value, desk.now
        desk.tx.update_delivery(row)
    assert told_at_last(desk.tx, "bykey", desk.now, 0) == owed[1].id
    assert [row.id for row in desk.due("bykey")] == [owed[0].id, owed[1].id]
    assert told_at_last(desk.tx, "bykey", desk.now, owed[1].id) == 0
    assert [row.id for row in desk.due("bykey")] == [row.id for row in owed]
    assert desk.due("byid") == [], "that one is still away"


def test_what_an_absent_upstream_was_owed_does_not_undo_what_it_was_told_since() -> None:
    desk, alert = opened()
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [owed] = desk.due("bykey")
    owed.state, owed.code, owed.finished_at = "dead", "", desk.now
    desk.tx.update_delivery(owed)
    desk.accept("ci", update(2, Ref(id=alert.shown)))
    drain(desk)
    owed.code = Code.NO_UPSTREAM.value
    desk.tx.update_delivery(owed)
    told_at_last(desk.tx, "bykey", desk.now, 0)
    assert desk.due("bykey") == []
