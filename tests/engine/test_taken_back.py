"""When a command counts as refused by everybody, and what is as before once it is taken back: on a real store with
nothing sent."""

from __future__ import annotations

from gateway.asked import Command, Ref
from gateway.canonical import Flat, Operation, flatten
from gateway.outcome import Delivered
from gateway.road.preparing import fire
from gateway.road.requeue import drop, send_again
from gateway.road.undoing import is_refused, undo
from gateway.store import AlertRow, CommandRow, DeliveryFilter
from tests.engine.desks import (
    CONFIG,
    FALLING_BACK,
    MINUTE,
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


def asked(desk: Desk, wish: Command) -> CommandRow:
    """Accepts a command, and returns it as the store has it."""
    command = desk.tx.command(desk.accept("ci", wish).command)
    assert command
    return command


def refuse(desk: Desk, *names: str) -> None:
    """Has upstreams refuse what is due there."""
    for name in names:
        for row in desk.due(name):
            desk.end(desk.take(row), NO)


def now(desk: Desk, alert: AlertRow) -> AlertRow:
    """The alert as the store has it."""
    row = desk.tx.alert(alert.id)
    assert row
    return row


def said(row: AlertRow) -> Flat:
    """What the record says, but for when it last changed."""
    return {path: value for path, value in flatten(row.body).items() if path != "updated_at"}


def test_a_command_is_refused_once_everybody_has() -> None:
    desk = Desk()
    command = asked(desk, create("disk"))
    assert not is_refused(desk.tx, command)
    refuse(desk, "bykey")
    assert not is_refused(desk.tx, command), "the other upstream may yet take it"
    refuse(desk, "byid")
    assert is_refused(desk.tx, command)


def test_a_command_that_somebody_took_is_not_refused() -> None:
    desk = Desk()
    command = asked(desk, create("disk"))
    refuse(desk, "bykey")
    [row] = desk.due("byid")
    desk.end(desk.take(row), Delivered(ids={"id": "alt_1"}))
    assert not is_refused(desk.tx, command)


def test_what_was_dropped_will_not_be_taken_either() -> None:
    desk = Desk()
    command = asked(desk, create("disk"))
    refuse(desk, "bykey")
    drop(desk.tx, desk.due("byid"), "a test", desk.now)
    assert is_refused(desk.tx, command)


def test_a_fallback_may_take_a_command_only_once_its_turn_has_come() -> None:
    desk = Desk(FALLING_BACK)
    command = asked(desk, create("disk"))
    refuse(desk, "byid")
    assert is_refused(desk.tx, command), "the caller is answered long before the fallback's turn"
    desk.now += 3 * MINUTE
    [row] = desk.due("bykey")
    assert fire(desk.tx, desk.take(row))
    assert not is_refused(desk.tx, command)


def test_a_refused_end_of_what_is_not_known_here_is_noted() -> None:
    desk = Desk()
    command = asked(desk, RESOLVE)
    assert not is_refused(desk.tx, command)
    refuse(desk, "bykey")
    assert is_refused(desk.tx, command)
    assert undo(desk.tx, command, "bykey: 400 no") is None
    noted = desk.tx.command(command.id)
    assert noted and noted.refused == "bykey: 400 no"


def test_of_a_refused_create_nothing_is_left() -> None:
    desk = Desk()
    accepted = desk.accept("ci", create("disk"))
    command = desk.tx.command(accepted.command)
    refuse(desk, "bykey", "byid")
    assert accepted.alert and command
    assert undo(desk.tx, command, "byid: 400 no") is None
    assert desk.tx.alert(accepted.alert.id) is None
    assert desk.tx.alert_by_key("ilert/ci", "disk") is None
    assert desk.tx.alert_by_id("ilert/ci", accepted.alert.shown) is None
    noted = desk.tx.command(command.id)
    assert noted and noted.refused == "byid: 400 no"
    assert adds_up(desk)


def test_a_refused_create_stays_for_whoever_said_anything_of_it_since() -> None:
    """Its caller was told success, for which there would be no alert."""
    desk = Desk()
    accepted = desk.accept("ci", create("disk"))
    command = desk.tx.command(accepted.command)
    desk.accept("ci", create("disk", "fuller"))
    assert command and accepted.alert
    row = undo(desk.tx, command, "no")
    assert row and row.body.summary == "fuller"
    noted = desk.tx.command(command.id)
    assert noted and noted.refused is None


def test_after_a_refused_change_of_status_the_record_is_as_it_was() -> None:
    for operation in (Operation.ACKNOWLEDGE, Operation.RESOLVE, Operation.DELETE):
        desk, alert = opened()
        before = now(desk, alert)
        command = asked(desk, Command(operation=operation, ref=Ref(id=alert.shown)))
        assert now(desk, alert) != before
        refuse(desk, "bykey", "byid")
        undo(desk.tx, command, "no")
        assert now(desk, alert) == before
        assert desk.tx.alert_by_key("ilert/ci", "disk") is not None
        assert adds_up(desk)


def test_a_refused_change_of_status_leaves_no_time_of_it_though_another_command_followed() -> None:
    for operation, path in ((Operation.ACKNOWLEDGE, "acknowledged_at"), (Operation.RESOLVE, "resolved_at")):
        desk, alert = opened()
        command = asked(desk, Command(operation=operation, ref=Ref(id=alert.shown)))
        assert flatten(now(desk, alert).body).get(path)
        desk.accept("ci", update(1, Ref(id=alert.shown)))
        undo(desk.tx, command, "no")
        row = now(desk, alert)
        assert (row.status, row.is_open, row.body.summary) == ("firing", True, "said 1")
        assert flatten(row.body).get(path) is None


def test_a_refused_comment_leaves_the_version_as_it_is() -> None:
    """A comment did not count either."""
    desk, alert = opened()
    before = now(desk, alert)
    command = asked(desk, Command(operation=Operation.COMMENT, ref=Ref(id=alert.shown), comment="seen"))
    undo(desk.tx, command, "no")
    assert now(desk, alert) == before


def test_a_refused_change_stays_for_whoever_said_the_same_since() -> None:
    """Nothing was sent for the second, as the first was about to say it."""
    desk, alert = opened()
    command = asked(desk, create("disk", "fuller"))
    desk.accept("ci", create("disk", "fuller"))
    undo(desk.tx, command, "no")
    assert now(desk, alert).body.summary == "fuller"


def test_a_refused_change_does_not_stay_for_whoever_only_commented() -> None:
    desk, alert = opened()
    command = asked(desk, create("disk", "fuller"))
    desk.accept("ci", Command(operation=Operation.COMMENT, ref=Ref(id=alert.shown), comment="seen"))
    undo(desk.tx, command, "no")
    assert now(desk, alert).body.summary == "s"


def test_a_refused_acknowledgement_does_not_stay_for_whoever_said_something_else() -> None:
    desk, alert = opened()
    command = asked(desk, Command(operation=Operation.ACKNOWLEDGE, ref=Ref(id=alert.shown)))
    desk.accept("ci", create("disk", "s"))
    undo(desk.tx, command, "no")
    assert now(desk, alert).status == "firing"


def test_what_was_merged_into_a_refused_update_is_told_on_its_own() -> None:
    """Its caller was told success. Only the last of those that were merged goes out: it says what the others said."""
    desk, alert = opened()
    for number in (1, 2):
        desk.accept("ci", update(number, Ref(id=alert.shown)))
    command = asked(desk, update(3, Ref(id=alert.shown)))
    refuse(desk, "bykey", "byid")
    undo(desk.tx, command, "no")
    assert now(desk, alert).body.summary == "said 2"
    for name in ("bykey", "byid"):
        assert states(desk, name)[1:] == [("update", "merged"), ("update", "waiting")]
        [row] = desk.due(name)
        assert (row.reason, row.finished_at) == ("", None)
        shipment = desk.take(row)
        assert shipment.sending and "said 2" in str(shipment.sending.body)
    assert adds_up(desk)


def test_what_was_merged_into_a_refused_update_and_is_dropped_stays_dropped() -> None:
    desk, alert = opened()
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    command = asked(desk, update(2, Ref(id=alert.shown)))
    refuse(desk, "bykey", "byid")
    for row in all_rows(desk):
        if row.state == "merged":
            row.state, row.reason = "void", "a test"
            desk.tx.update_delivery(row)
    undo(desk.tx, command, "no")
    assert desk.due("bykey") == desk.due("byid") == []


def test_of_two_changes_that_are_both_refused_neither_is_left() -> None:
    """The first was taken back while the second waited, which had found the record with it."""
    desk, alert = opened()
    before = now(desk, alert)
    first, second = (asked(desk, update(number, Ref(id=alert.shown))) for number in (1, 2))
    undo(desk.tx, first, "no")
    assert now(desk, alert).body.summary == "said 2"
    undo(desk.tx, second, "no")
    row = now(desk, alert)
    assert (row.body.summary, row.verbatim) == (before.body.summary, before.verbatim)


def test_of_two_refused_changes_what_was_accepted_between_them_stays() -> None:
    desk, alert = opened()
    first = asked(desk, update(1, Ref(id=alert.shown)))
    desk.accept("ci", update(2, Ref(id=alert.shown)))
    third = asked(desk, update(3, Ref(id=alert.shown)))
    undo(desk.tx, first, "no")
    undo(desk.tx, third, "no")
    assert now(desk, alert).body.summary == "said 2"


def test_of_two_changes_of_status_that_are_both_refused_neither_is_left() -> None:
    desk, alert = opened()
    before = now(desk, alert)
    first, second = (
        asked(desk, Command(operation=one, ref=Ref(id=alert.shown)))
        for one in (Operation.ACKNOWLEDGE, Operation.RESOLVE)
    )
    undo(desk.tx, first, "no")
    assert now(desk, alert).status == "resolved", "the second may yet be taken"
    undo(desk.tx, second, "no")
    assert said(now(desk, alert)) == said(before)
    assert desk.tx.alert_by_key("ilert/ci", "disk") is not None


def test_of_two_refused_changes_what_only_the_first_said_is_gone_too() -> None:
    desk, alert = opened()
    more = Command(operation=Operation.UPDATE, ref=Ref(id=alert.shown), patch={"resource": "web-1"})
    first, second = asked(desk, more), asked(desk, update(2, Ref(id=alert.shown)))
    undo(desk.tx, first, "no")
    undo(desk.tx, second, "no")
    assert said(now(desk, alert)) == said(alert)


def test_what_was_refused_once_and_accepted_later_stays() -> None:
    desk, alert = opened()
    first = asked(desk, update(1, Ref(id=alert.shown)))
    desk.accept("ci", update(2, Ref(id=alert.shown)))
    desk.accept("ci", update(1, Ref(id=alert.shown)))
    last = asked(desk, update(4, Ref(id=alert.shown)))
    undo(desk.tx, first, "no")
    undo(desk.tx, last, "no")
    assert now(desk, alert).body.summary == "said 1"


def test_the_callers_own_words_come_back_with_the_record() -> None:
    """They are what an upstream of the caller's dialect is sent."""
    for is_first_refused in (True, False):
        desk, alert = opened()
        first = asked(desk, create("disk", "fuller"))
        words = now(desk, alert).verbatim if not is_first_refused else alert.verbatim
        second = asked(desk, create("disk", "fullest"))
        if is_first_refused:
            undo(desk.tx, first, "no")
        undo(desk.tx, second, "no")
        assert words and now(desk, alert).verbatim == words


def test_a_refused_reopening_leaves_the_alert_ended_where_it_is_found_by_key() -> None:
    """Taken for dead there, the next change of what is over would be sent as a new alert."""
    desk, alert = opened()
    desk.accept("ci", RESOLVE)
    drain(desk)
    command = asked(desk, Command(operation=Operation.REOPEN, ref=Ref(id=alert.shown)))
    refuse(desk, "bykey", "byid")
    undo(desk.tx, command, "no")
    ended = {name: desk.target(alert.id, name) for name in ("bykey", "byid")}
    assert {name: target.state for name, target in ended.items() if target} == {"bykey": "gone", "byid": "present"}


def worsened() -> tuple[Desk, AlertRow, CommandRow]:
    """A desk whose alert is for one upstream, and a command that made it worse, so that it is for both, who refuse."""
    worse = '[[routes]]\nwhen = ["severity <= 2"]\nto = ["bykey", "byid"]\n[[routes]]\nto = ["bykey"]\n'
    desk, alert = opened(CONFIG.partition("[[routes]]")[0] + worse)
    command = asked(desk, Command(operation=Operation.CREATE, patch={"dedup_key": "disk", "severity": 1}))
    refuse(desk, "bykey", "byid")
    return desk, alert, command


def test_an_upstream_that_is_still_to_be_told_by_another_command_stays_a_target() -> None:
    """Two updates choose it, one after the other; only the first is refused by then."""
    desk, alert, command = worsened()
    desk.accept("ci", create("disk", "fuller"))
    drain(desk)
    undo(desk.tx, command, "no")
    target = desk.target(alert.id, "byid")
    assert target and target.state == "present"


def test_an_upstream_that_only_a_refused_command_chose_is_no_target_any_more() -> None:
    desk, alert, command = worsened()
    undo(desk.tx, command, "no")
    assert [one.upstream for one in desk.tx.targets(alert.id)] == ["bykey"]


def test_a_fallback_that_stands_by_again_knows_for_whom() -> None:
    """The page of the other upstream is sent again by hand, and taken: then nobody else has to be woken."""
    route = '[[routes]]\nwhen = ["severity <= 2"]\nto = ["bykey"]\n[[routes]]'
    desk = Desk(FALLING_BACK.replace("[[routes]]", route, 1))
    desk.accept("ci", create("disk"))
    refuse(desk, "byid")
    command = asked(desk, Command(operation=Operation.CREATE, patch={"dedup_key": "disk", "severity": 1}))
    refuse(desk, "byid", "bykey")
    undo(desk.tx, command, "no")
    waits = [row for row in all_rows(desk) if row.upstream == "bykey"]
    assert [(row.state, row.reason, row.code, row.finished_at) for row in waits] == [("waiting", "", "", None)]
    send_again(desk.tx, desk.tx.deliveries(DeliveryFilter(state="dead", upstream="byid")), desk.now, force=False)
    drain(desk, "byid")
    desk.now += 3 * MINUTE
    [row] = desk.due("bykey")
    assert desk.take(row).void == "byid has taken the alert"
