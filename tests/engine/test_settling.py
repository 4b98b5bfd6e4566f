"""What becomes of an attempt, and of a command that was refused, on a real store with nothing sent."""

from __future__ import annotations

from msgspec import structs

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.codes import Code
from gateway.config.loading import parse
from gateway.errors import ProblemKind
from gateway.outcome import Again, Delivered, Missing, Rejected
from gateway.road.accepted import Caller
from gateway.road.landing import has_landed
from gateway.road.road import Road
from gateway.road.settling import Verdict, settle, told_elsewhere
from gateway.road.undoing import undo
from gateway.store import DeliveryFilter, DeliveryRow
from tests.engine.desks import (
    BOTH,
    CONFIG,
    MINUTE,
    NO,
    RESOLVE,
    Desk,
    adds_up,
    create,
    drain,
    opened,
    states,
    update,
)

ONE_SMS = """
[[routes]]
when = ["summary = 'big'"]
to = ["oncall"]
fallback = { to = ["sms"], after = "10m" }
[[routes]]
to = ["log"]
fallback = { to = ["sms"], after = "10m" }
"""


def _before_ilerts(*names: str, routes: str) -> Desk:
    """A desk in front of upstreams that all find alerts by key."""
    upstreams = [f'[upstreams.{name}]\ndialect = "ilert"\nurl = "http://localhost"\nkey = "k"\n' for name in names]
    return Desk('[inbound.ilert]\nkeys = { ci = "a", ops = "b" }\n' + "".join(upstreams) + routes)


def test_what_an_update_came_to_is_known_though_a_newer_one_has_merged_it() -> None:
    """The newer one is based on the version that the older one's answer gave, or it would be a conflict for ever."""
    desk = Desk()
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered(ids={"id": "alt_1"}, seen={"version": 1}))
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    under_way = desk.take(row)
    desk.accept("ci", update(2, Ref(id=alert.shown)))
    assert states(desk, "byid") == [("create", "delivered"), ("update", "merged"), ("update", "waiting")]
    desk.end(under_way, Delivered(seen={"version": 2}))
    [row] = desk.due("byid")
    shipment = desk.take(row)
    assert shipment.sending and (shipment.sending.ids["id"], shipment.sending.seen["version"]) == ("alt_1", 2)


def test_what_is_gone_there_is_made_again_without_the_ids_that_it_had() -> None:
    desk = Desk()
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered(ids={"id": "alt_1", "short": "7"}, seen={"version": 1}))
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    desk.end(desk.take(row), Missing())
    [row] = desk.due("byid")
    shipment = desk.take(row)
    assert shipment.sending and shipment.operation is Operation.CREATE
    assert (shipment.sending.ids, shipment.sending.seen) == ({}, {})


def test_what_lacks_something_when_it_is_to_be_sent_is_a_dead_letter() -> None:
    """The upstream's defaults are gone from the file: void, nobody would hear of the page."""
    desk = Desk()
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    desk.config = parse(CONFIG.replace('defaults = { resource = "mon_9" }', ""))
    [row] = desk.due("byid")
    shipment = desk.take(row)
    assert shipment.sending is None and "resource" in shipment.dead
    assert desk.end(shipment, None).state == "dead"
    [dead] = desk.tx.deliveries(DeliveryFilter(state="dead"))
    assert (dead.id, dead.reason, dead.code) == (row.id, shipment.dead, ProblemKind.UNMET)
    target = desk.target(alert.id, "byid")
    assert target and target.state == "dead"


def test_an_attempt_that_is_recorded_twice_has_the_verdict_of_the_first() -> None:
    """The store committed it but could not confirm that, and was asked again."""
    for outcome, state in ((Delivered(), "delivered"), (NO, "dead")):
        desk = Desk()
        desk.accept("ci", create("disk"))
        [row] = desk.due("bykey")
        shipment = desk.take(row)
        shipment = structs.replace(shipment, delivery=structs.replace(row, attempts=1))
        first, second = (
            settle(desk.tx, shipment, outcome, desk.upstream("bykey"), desk.now, desk.now + 5000) for _ in range(2)
        )
        assert (first.state, first.is_recorded) == (state, True)
        assert (second.state, second.is_recorded) == (state, False)


def test_what_another_replica_recorded_is_told_and_what_still_waits_is_not() -> None:
    desk = Desk()
    command = desk.accept("ci", create("disk")).command
    [row] = desk.due("bykey")
    desk.end(desk.take(row), Delivered())
    assert told_elsewhere(desk.tx, command) == {"bykey": Verdict(state="delivered")}
    [row] = desk.due("byid")
    desk.end(desk.take(row), NO)
    assert told_elsewhere(desk.tx, command)["byid"].state == "dead"


def test_an_end_by_key_alone_has_landed_once_one_of_several_took_it() -> None:
    """Where the store is lost with its container: success must not wait for an upstream that is down."""
    desk = _before_ilerts("log", "sms", routes='[[routes]]\nto = ["log", "sms"]\n')
    accepted = desk.accept("ci", RESOLVE)
    assert accepted.alert is None
    assert not has_landed(desk.tx, RESOLVE, desk.callers["ci"], accepted)
    [row] = desk.due("log")
    desk.end(desk.take(row), Delivered())
    assert has_landed(desk.tx, RESOLVE, desk.callers["ci"], accepted)


def test_a_refused_reopening_leaves_what_is_addressed_by_id_where_it_is() -> None:
    """A rule that is switched off is there all the same: taken for gone, the next reopening would make a second one."""
    desk = Desk()
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    desk.accept("ci", RESOLVE)
    drain(desk)
    reopen = Command(operation=Operation.REOPEN, ref=Ref(id=alert.shown))
    refused = desk.tx.command(desk.accept("ci", reopen).command)
    for upstream in BOTH:
        [row] = desk.due(upstream)
        desk.end(desk.take(row), NO)
    assert refused
    undo(desk.tx, refused, "400 no")
    desk.accept("ci", reopen)
    [row] = desk.due("byid")
    assert desk.take(row).operation is Operation.REOPEN


def test_the_rule_of_an_earlier_alert_is_the_newer_ones_alone() -> None:
    """It is switched on again instead of a second one being made. Nothing that only the earlier alert said is left in
    it, and nothing that is asked of the earlier alert reaches it any more."""
    rule = 'dialect = "ibm_monitoring"', '"condition.expression" = "avg(cpu) > 1"'
    desk = Desk(CONFIG.replace('dialect = "uptinio"', rule[0]).replace('resource = "mon_9"', rule[1]))
    patch = {"summary": "first", "details": "of the first", "dedup_key": "disk"}
    earlier = desk.accept("ci", Command(operation=Operation.CREATE, patch=patch)).alert
    assert earlier
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered(ids={"id": "7"}))
    desk.accept("ci", RESOLVE)
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered())
    desk.accept("ci", create("disk", "second"))
    [row] = desk.due("byid")
    shipment = desk.take(row)
    assert shipment.sending and (shipment.operation, shipment.sending.ids) == (Operation.REOPEN, {"id": "7"})
    assert (shipment.sending.patch["name"], shipment.sending.patch["description"]) == ("second", None)
    desk.end(shipment, Delivered())
    desk.accept("ci", update(1, Ref(id=earlier.shown)))
    [row] = desk.due("byid")
    assert desk.take(row).sending is None


def test_a_fallback_stands_by_no_longer_for_what_a_refused_update_had_added() -> None:
    """It stands by for another upstream, which has taken the alert: it is told nothing when its turn comes."""
    desk = _before_ilerts("log", "oncall", "sms", routes=ONE_SMS)
    desk.accept("ci", create("disk", "small"))
    refused = desk.tx.command(desk.accept("ci", create("disk", "big")).command)
    assert refused
    for name, outcome in (("log", Delivered()), ("log", NO), ("oncall", NO)):
        [row] = desk.due(name)
        desk.end(desk.take(row), outcome)
    undo(desk.tx, refused, "400 no")
    desk.now += 11 * MINUTE
    [row] = desk.due("sms")
    shipment = desk.take(row)
    assert (shipment.sending, shipment.void) == (None, "log has taken the alert")


def test_of_a_refused_change_that_another_followed_the_old_value_comes_back() -> None:
    """What the later one changed stays."""
    desk = Desk()
    alert = desk.accept("ci", create("disk", "old")).alert
    assert alert
    refused = desk.tx.command(desk.accept("ci", update(1, Ref(id=alert.shown))).command)
    later = Command(operation=Operation.UPDATE, ref=Ref(id=alert.shown), patch={"resource": "web-1"})
    desk.accept("ci", later)
    assert refused
    row = undo(desk.tx, refused, "400 no")
    assert row and (row.body.summary, row.body.resource) == ("old", "web-1")


LATER = """
[upstreams.later]
dialect = "alertmanager_webhook"
url = "http://localhost"
[[routes]]
to = ["bykey", "later"]
"""


def test_of_a_refused_change_of_status_that_another_followed_the_old_status_comes_back() -> None:
    """An alert that no upstream takes for acknowledged would be looked at by nobody, one that is over would stay."""
    for asked, before in ((Operation.ACKNOWLEDGE, "firing"), (Operation.REOPEN, "resolved")):
        desk = Desk()
        alert = desk.accept("ci", create("disk")).alert
        assert alert
        if before == "resolved":
            desk.accept("ci", RESOLVE)
        refused = desk.tx.command(desk.accept("ci", Command(operation=asked, ref=Ref(id=alert.shown))).command)
        desk.accept("ci", update(1, Ref(id=alert.shown)))
        assert refused
        row = undo(desk.tx, refused, "400 no")
        assert row and (row.status, row.body.status, row.body.summary) == (before, before, "said 1")


def test_an_upstream_of_the_callers_own_dialect_that_comes_later_is_told() -> None:
    """Until it came nobody needed the caller's own words, nor the group that they name."""
    before = """
    [inbound.ilert]
    keys = { ci = "a", ops = "b" }
    [inbound.alertmanager_webhook]
    keys = { am = "c" }
    [upstreams.bykey]
    dialect = "ilert"
    url = "http://localhost"
    key = "k"
    """
    desk = Desk(before)
    desk.callers["am"] = Caller(desk.config.inbounds["alertmanager_webhook"].dialect, "am", "am")
    desk.accept("am", create("disk"))
    desk.config = parse(before + LATER)
    desk.road = Road(desk.config, desk.ids.next, desk._invent)
    desk.accept("am", create("disk", "fuller"))
    [row] = desk.due("later")
    assert desk.take(row).operation is Operation.CREATE


def _dead_at(desk: Desk, upstream: str) -> list[DeliveryRow]:
    return desk.tx.deliveries(DeliveryFilter(state="dead", upstream=upstream))


def test_what_is_gone_where_it_was_to_end_has_ended() -> None:
    """canonical.md: 404 from an upstream: resolve and delete count as delivered."""
    for operation in (Operation.RESOLVE, Operation.DELETE):
        desk = Desk()
        alert = desk.accept("ci", create("disk")).alert
        assert alert
        drain(desk)
        desk.accept("ci", Command(operation=operation, ref=Ref(id=alert.shown)))
        [row] = desk.due("byid")
        verdict = desk.end(desk.take(row), Missing())
        assert (verdict.state, verdict.is_recorded) == ("delivered", True)
        found, target = desk.tx.delivery(row.id), desk.target(alert.id, "byid")
        assert found and (found.state, found.finished_at) == ("delivered", desk.now)
        assert found.reason == "the upstream no longer had the alert"
        assert target and (target.state, target.ids, target.seen) == ("gone", {}, {})
        assert adds_up(desk)


def test_an_update_of_what_is_gone_there_counts_as_delivered_once_the_alert_is_over() -> None:
    """canonical.md: an update of an *open* alert is sent as a create; of another it would wake somebody."""
    desk, alert = opened()
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    under_way = desk.take(row)
    desk.accept("ci", RESOLVE)
    assert desk.end(under_way, Missing()).state == "delivered"
    target = desk.target(alert.id, "byid")
    assert target and target.state == "gone"


def test_an_update_of_what_is_gone_there_is_due_at_once_and_says_why() -> None:
    desk, alert = opened()
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    verdict = desk.end(desk.take(row), Missing())
    [again] = desk.due("byid")
    said = ("no longer at the upstream, so created again", Code.GONE_THERE, desk.now)
    assert (again.reason, again.code, again.due) == (verdict.reason, verdict.code, verdict.due) == said
    target = desk.target(alert.id, "byid")
    assert verdict.state == "again" and target and target.state == "absent"


def test_the_end_by_key_of_what_nobody_knows_has_ended_too() -> None:
    desk = Desk()
    desk.accept("ci", RESOLVE)
    [row] = desk.due("bykey")
    assert desk.end(desk.take(row), Missing()).state == "delivered"


def test_what_has_waited_for_too_long_is_given_up_and_says_so() -> None:
    desk = Desk()
    desk.accept("ci", create("disk"))
    [row] = desk.due("bykey")
    verdict = desk.end(desk.take(row), Again(reason="503"))
    assert (verdict.state, verdict.reason, verdict.due) == ("again", "503", desk.now + 5000)
    desk.now += 24 * 60 * MINUTE
    [row] = desk.due("bykey")
    assert row.reason == "503"
    verdict = desk.end(desk.take(row), Again(reason="503"))
    [dead] = _dead_at(desk, "bykey")
    given_up = ("dead", "given up after 2 attempts: 503", Code.GIVEN_UP)
    assert (verdict.state, verdict.reason, verdict.code) == (dead.state, dead.reason, dead.code) == given_up
    assert dead.finished_at == desk.now


def test_the_kind_of_a_refusal_reaches_whoever_waits_on_another_replica() -> None:
    desk = Desk()
    command = desk.accept("ci", create("disk")).command
    outcome = Rejected(reason="409 name", kind=ProblemKind.NAME_TAKEN)
    [row] = desk.due("byid")
    here = desk.end(desk.take(row), outcome)
    there = told_elsewhere(desk.tx, command)["byid"]
    assert (here.state, here.reason, here.kind) == ("dead", "409 name", ProblemKind.NAME_TAKEN)
    assert (there.state, there.reason, there.kind, there.code) == (here.state, here.reason, here.kind, here.code)


def test_what_ends_an_alert_that_never_arrived_voids_the_page_too() -> None:
    """canonical.md: acknowledge, resolve or delete at a dead target: nothing is sent, both become void."""
    for operation, name, state in ((Operation.ACKNOWLEDGE, "bykey", "dead"), (Operation.RESOLVE, "byid", "gone")):
        desk = Desk()
        alert = desk.accept("ci", create("disk")).alert
        other = desk.accept("ci", create("net")).alert
        assert alert and other
        for row in desk.due(name):
            desk.end(desk.take(row), NO)
        desk.accept("ci", Command(operation=operation, ref=Ref(id=alert.shown)))
        [row] = desk.due(name)
        shipment = desk.take(row)
        verdict = desk.end(shipment, None)
        assert shipment.sending is None
        assert (verdict.state, verdict.code) == ("void", Code.NEVER_THERE)
        mine = desk.tx.deliveries(DeliveryFilter(upstream=name, alert=alert.id, after=0))
        ends = [("void", Code.SUPERSEDED, desk.now), ("void", Code.NEVER_THERE, desk.now)]
        assert [(one.state, one.code, one.finished_at) for one in mine] == ends
        assert [one.alert for one in _dead_at(desk, name)] == [other.id], "that one is still owed"
        target = desk.target(alert.id, name)
        assert target and target.state == state
        assert adds_up(desk)


def test_a_comment_on_what_never_arrived_leaves_the_page_owed() -> None:
    desk = Desk(CONFIG.replace('dialect = "uptinio"', 'dialect = "opsgenie"'))
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    [row] = desk.due("byid")
    desk.end(desk.take(row), NO)
    desk.accept("ci", Command(operation=Operation.COMMENT, ref=Ref(id=alert.shown), comment="seen"))
    [row] = desk.due("byid")
    assert desk.end(desk.take(row), None).state == "void"
    assert [one.operation for one in _dead_at(desk, "byid")] == [Operation.CREATE]
    target = desk.target(alert.id, "byid")
    assert target and target.state == "dead"


def test_a_page_that_arrives_after_all_voids_those_that_were_refused_before() -> None:
    desk = Desk()
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    [row] = desk.due("byid")
    desk.end(desk.take(row), NO)
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered(ids={"id": "alt_1"}, altered={"summary": "cut there"}))
    mine = desk.tx.deliveries(DeliveryFilter(upstream="byid", alert=alert.id, after=0))
    assert [(one.state, one.code) for one in mine] == [("void", Code.SUPERSEDED), ("delivered", "")]
    assert ("summary", "cut there") in {(fate["field"], fate["why"]) for fate in mine[1].fates}
    target = desk.target(alert.id, "byid")
    assert target and (target.state, target.ids) == ("present", {"id": "alt_1"})


def test_who_joined_an_acknowledged_alert_is_told_by_the_next_acknowledgement() -> None:
    """It goes on looking for somebody; the others have heard of it, and hear nothing twice."""
    worse = '[[routes]]\nwhen = ["severity <= 2"]\nto = ["byid", "bykey"]\n[[routes]]\nto = ["byid"]\n'
    desk, alert = opened(CONFIG.partition("[[routes]]")[0].replace('"uptinio"', '"pagerduty"') + worse)
    taken = Command(operation=Operation.ACKNOWLEDGE, ref=Ref(key="disk"))
    desk.accept("ci", taken)
    drain(desk)
    desk.accept("ci", Command(operation=Operation.CREATE, patch={"dedup_key": "disk", "severity": 1}))
    drain(desk)
    heard = states(desk, "byid")
    for _ in range(2):
        desk.accept("ci", taken)
        drain(desk)
        assert states(desk, "bykey") == [("update", "delivered"), ("acknowledge", "delivered")]
        assert states(desk, "byid") == heard
    assert alert.is_open and adds_up(desk)


def test_who_refused_an_alert_at_first_is_told_by_the_next_acknowledgement() -> None:
    """The first one had nothing to acknowledge there."""
    desk = Desk()
    desk.accept("ci", create("disk"))
    [page] = desk.due("bykey")
    desk.end(desk.take(page), NO)
    drain(desk)
    taken = Command(operation=Operation.ACKNOWLEDGE, ref=Ref(key="disk"))
    for command in (taken, create("disk", "in other words"), taken):
        desk.accept("ci", command)
        drain(desk)
    assert states(desk, "bykey")[1:] == [("acknowledge", "void"), ("update", "delivered"), ("acknowledge", "delivered")]
    assert adds_up(desk)
