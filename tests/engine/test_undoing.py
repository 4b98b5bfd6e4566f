"""A command that every upstream refused, or that could not be stored, leaves nothing: interface.md, *Reply*: no alert,
name or key remains, an update leaves the record as it was."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.canonical import Alert
from gateway.mapping.values import from_millis
from gateway.road import undoing
from gateway.store import CommandBody, Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos_upstream import RESET_AFTER, RESET_BEFORE, Behaviour, Got, chaos, say
from tests.clients.callers import ibm_alert
from tests.engine.store_drivers import alert, command, delivery, in_tx, sqlite_file, target
from tests.engine.vendors import (
    NO,
    OK,
    Uptinio,
    before,
    count,
    down,
    fill,
    gated,
    heal,
    inner,
    outbox,
    page,
    rows,
    table,
    writes,
)
from tests.harness import Sent

RULES = "/ibm_monitoring/api/alerts"
DELIVERED = 'reply = "delivered"'


def test_a_refused_rename_whose_old_name_is_another_s_by_now(tmp_path: Path) -> None:
    """canonical.md, *Scope*: IBM names are unique per scope, also after an undo; the caller is told why."""
    gate = threading.Event()

    def answer(got: Got) -> Behaviour:
        return gated(gate, NO) if got.body["summary"] == "new" else OK

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "ilert")) as h:
        made = inner(h.call("POST", RULES, ibm_alert("old")))
        answers: list[Sent] = []
        change = {"alert": {**made, "name": "new"}}
        renaming = threading.Thread(target=lambda: answers.append(h.call("PUT", f"{RULES}/{made['id']}", change)))
        renaming.start()
        h.wait_for(lambda: len(upstream.got) == 2)
        assert h.call("POST", RULES, ibm_alert("old")).status == 200, "the name was free"
        gate.set()
        renaming.join()
        assert 400 <= answers[0].status < 500, answers[0].body
        assert "summary is too rude" in answers[0].body["errors"][0]["message"]
        names = [alert["name"] for alert in h.call("GET", RULES).body["alerts"]]
        assert names.count("old") == 1 and len(names) == 2


def test_a_rule_that_could_not_be_switched_on_stays_ended_where_it_was(tmp_path: Path) -> None:
    """canonical.md, *Operations*: while a rule is switched off, changes of it are sent to nobody as alerts."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", ""), top=DELIVERED) as h:
        place = f"{RULES}/{inner(h.call('POST', RULES, ibm_alert('old')))['id']}"

        def put(**fields: object) -> int:
            return h.call("PUT", place, {"alert": fields}).status

        assert put(enabled=False) == 200
        upstream.plan(NO)
        assert put(enabled=True) == 400
        assert put(name="new") == 200
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert [got.body["eventType"] for got in writes(upstream)] == ["ALERT", "RESOLVE", "ALERT"]
        assert put(enabled=True) == 200
        assert writes(upstream)[-1].body["summary"] == "new"


def test_an_upstream_that_only_a_refused_update_chose_is_no_target_afterwards(tmp_path: Path) -> None:
    """interface.md, *Reply*: a refused update leaves the record as it was, its targets included."""
    routes = """
    [[routes]]
    when = ["summary =~ 'big.*'"]
    to = ["there", "extra"]
    [[routes]]
    to = ["there"]
    """
    with chaos(OK) as one, chaos(NO) as other:
        tables = table("there", one.url, "ilert"), table("extra", other.url, "ilert")
        with before(tmp_path, *tables, routes=routes) as h:
            address = f"/uptinio/alerts/{inner(down(h, 'small'))['id']}"
            one.always(NO)
            refused = h.call("PUT", address, {"message": "big"})
            assert refused.status == 400, refused.body
            h.wait_for(lambda: other.got)
            assert rows(h, "upstream", "targets") == ["there"]
            one.always(OK)
            other.always(OK)
            assert h.call("PUT", address, {"message": "tiny"}).status == 200
            assert rows(h, "upstream", "deliveries WHERE state = 'delivered'") == ["there", "there"]
            assert len(other.got) == 1


@pytest.mark.parametrize("first_goes_first", [True, False])
def test_two_updates_at_once_that_are_both_refused_leave_the_record_as_it_was(
    tmp_path: Path, first_goes_first: bool
) -> None:
    """The second update was based on the first: undone in either order, no value of either comes back, nor an
    `ends_at`."""
    ends = [from_millis(at) for at in (10_000, 20_000, 30_000)]
    bodies = [
        Alert(kind="occurrence", status="firing", updated_at=from_millis(5), summary=said, severity=rank, ends_at=end)
        for said, rank, end in zip(("old", "new", "new"), (0, 0, 1), ends, strict=True)
    ]

    def work(tx: Tx) -> None:
        row = alert(1, body=bodies[2], ends_at=30_000, verbatim={"said": 3})
        tx.insert_alert(row)
        for number, changed in ((1, ("summary", "ends_at")), (2, ("severity", "ends_at"))):
            body = CommandBody(after=bodies[number], changed=changed, before=bodies[number - 1])
            body.said_before = {"said": number}
            tx.insert_command(command(10 + number, operation="update", body=body))
        for number in (11, 12) if first_goes_first else (12, 11):
            refused = tx.command(number)
            assert refused
            undoing.undo(tx, refused, "no")
        found = tx.alert(row.id)
        assert found and (found.body, found.ends_at, found.verbatim) == (bodies[0], 10_000, {"said": 1})

    in_tx(sqlite_file(tmp_path), work)


def test_what_was_refused_earlier_does_not_take_what_was_accepted_since(tmp_path: Path) -> None:
    """The first change was refused after two later ones had been accepted, the last of which said the same: a refusal
    of a fourth leaves what was accepted, with the words of then."""
    words = ("old", "new", "mid", "new", "new")
    bodies = [
        Alert(kind="occurrence", status="firing", updated_at=from_millis(5), summary=said, severity=int(number > 3))
        for number, said in enumerate(words)
    ]

    def work(tx: Tx) -> None:
        row = alert(1, body=bodies[4], verbatim={"said": 5})
        tx.insert_alert(row)
        for number in (1, 2, 3, 4):
            changed = ("severity",) if number == 4 else ("summary",)
            body = CommandBody(after=bodies[number], changed=changed, before=bodies[number - 1])
            body.said_before = {"said": number}
            tx.insert_command(command(10 + number, operation="update", body=body))
        for number in (11, 14):
            refused = tx.command(number)
            assert refused
            undoing.undo(tx, refused, "no")
        found = tx.alert(row.id)
        assert found and (found.body, found.verbatim) == (bodies[3], {"said": 4})

    in_tx(sqlite_file(tmp_path), work)


def test_what_may_be_there_although_it_was_refused_can_be_ended(tmp_path: Path) -> None:
    """The first attempt's answer was lost and the second was refused: the page may be open there, so a resolve is
    sent."""

    def answer(got: Got) -> Behaviour:
        first = sum(one.body["eventType"] == "ALERT" for one in upstream.got) == 1
        return (RESET_AFTER if first else NO) if got.body["eventType"] == "ALERT" else OK

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "ilert"), top=DELIVERED) as h:
        assert page(h).status == 400
        assert [one.body["eventType"] for one in upstream.got] == ["ALERT", "ALERT"]
        assert len(outbox(h, "dead")) == 1, "it is there for whoever looks"
        assert page(h, eventType="RESOLVE").status == 202
        assert upstream.got[-1].body["eventType"] == "RESOLVE"


def test_what_a_refused_reopening_may_have_opened_can_be_ended(tmp_path: Path) -> None:
    """As after a refused create: taken back, the alert would be over here and might ring there for ever."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert")) as h:
        address = f"/uptinio/alerts/{inner(down(h))['id']}"
        assert h.call("PUT", address, {"status": "resolved"}).status == 200
        upstream.plan(RESET_AFTER, NO)
        assert h.call("PUT", address, {"status": "active"}).status == 400
        assert h.call("PUT", address, {"status": "resolved"}).status == 200
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert [one.body["eventType"] for one in upstream.got] == ["ALERT", "RESOLVE", "ALERT", "ALERT", "RESOLVE"]


def test_what_was_looked_for_and_refused_leaves_no_name(tmp_path: Path) -> None:
    """At a vendor with ids the lost create was looked for and is not there: its name is free again."""
    there = Uptinio()

    def answer(got: Got) -> Behaviour:
        if got.method != "POST":
            return there(got)
        return RESET_BEFORE if len(writes(upstream, "POST")) == 1 else NO

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        for _ in range(2):
            refused = h.call("POST", RULES, ibm_alert("once"))
            assert (refused.status, refused.body["errors"][0]["message"]) == (400, "there: 400"), refused.body
        assert count(h, "alerts") == 0


def test_what_was_refused_is_purged_wholly(tmp_path: Path) -> None:
    """interface.md, *Configuration*: after `retention` neither commands nor attempts of a refusal remain."""
    with chaos(NO) as upstream:
        text = table("there", upstream.url, "uptinio")
        with before(tmp_path, text) as h:
            for _ in range(3):
                assert down(h).status == 400
            assert count(h, "alerts") == 0
        with before(tmp_path, text, top='retention = "10ms"') as h:
            h.wait_for(lambda: count(h, "commands") == 0)
            assert [count(h, what) for what in ("commands", "attempts", "deliveries", "targets", "ids")] == [0] * 5


def test_a_fallback_that_was_chosen_long_ago_stays_one_after_a_refusal(tmp_path: Path) -> None:
    """A refused reopening takes away only targets that it added, however much was told of the alert since the fallback
    was chosen."""
    body = alert(1, body=Alert(status="resolved", updated_at=from_millis(1))).body

    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, body=body, status="firing"))
        tx.put_target(target(1, "u", state="dead"))
        tx.put_target(target(1, "spare", state="standby"))
        tx.insert_command(command(1))
        tx.insert_delivery(delivery(1, upstream="spare", state="void"))
        for number in range(2, 1100):
            tx.insert_delivery(delivery(number, command=1, state="delivered"))
        reopening = command(2000, operation="reopen", body=CommandBody(before=body, after=body))
        tx.insert_command(reopening)
        tx.insert_delivery(delivery(2000, command=2000, state="dead"))
        tx.insert_delivery(delivery(2001, command=2000, upstream="spare"))
        undoing.undo(tx, reopening, "refused")
        assert {one.upstream for one in tx.targets(1)} == {"u", "spare"}

    in_tx(sqlite_file(tmp_path), work)


@pytest.mark.parametrize("how", ["no room", "at the commit itself"])
def test_a_commit_that_fails_leaves_nobody_waiting(tmp_path: Path, how: str) -> None:
    """guarantees.md 3: a full disk is a 503 in the caller's words; no waiter for a verdict is left behind."""
    made = say(201, {"data": {"id": "alt_1"}})
    with chaos(made) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        waiters, store = h.gateway.waiters, h.gateway.store
        assert isinstance(store, SqliteStore)
        if how == "no room":
            fill(h)
        else:
            store._writer.set_commit_hook(lambda: True)
        try:
            refused = [down(h, "x" * 20_000) for _ in range(3)]
        finally:
            heal(h)
            store._writer.set_commit_hook(None)
        assert [one.status for one in refused] == [503] * 3
        assert refused[0].body["error"]["code"] == "service_unavailable"
        assert not waiters._waiting
        assert not any(waiters._by_primary.values())
        assert (count(h, "alerts"), outbox(h), writes(upstream)) == (0, [], [])
        h.wait_for(lambda: down(h).status == 201)
