"""Configurations that change while alerts wait or are open: what each upstream is sent then, in whose words, and that
the end of an alert reaches every upstream where the alert is open."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loading import parse
from gateway.errors import StoreError
from tests.chaos_upstream import CLOSE, Chaos, chaos
from tests.clients.callers import COLLECTIONS, ibm_alert
from tests.engine.vendors import (
    NEEDS,
    NO,
    OK,
    Ibm,
    Uptinio,
    ago,
    down,
    gated,
    inner,
    messages,
    outbox,
    page,
    settled,
    table,
    writes,
)
from tests.harness import KEY, House, Sent, house
from tests.postgres_server import shared

INBOUND = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[inbound.uptinio]\nkeys = {{ ci = "{KEY}" }}\n'
NOWHERE = "http://127.0.0.1:9"


def text(*tables: str, to: str = '["one"]', top: str = "") -> str:
    """A configuration without its store."""
    return "\n".join([top, INBOUND, *tables, f"[[routes]]\nto = {to}\n"])


def again(h: House, config: str) -> None:
    """Reloads a configuration, in the event loop that serves."""
    assert h.gateway.dispatcher is not None
    loop = next(iter(h.gateway.dispatcher._tasks.values())).get_loop()
    read = parse(f'store = "sqlite://{h.gateway.config.store}"\n{config}')
    asyncio.run_coroutine_threadsafe(h.gateway.reload(read), loop).result(15)


def end(h: House, key: str = "disk") -> Sent:
    """Resolves an ilert alert."""
    event = {"apiKey": KEY, "eventType": "RESOLVE", "alertKey": key}
    return h.call("POST", "/ilert/api/events", event, key=None)


def test_what_is_taken_out_of_the_outbox_is_told_in_the_words_of_where_it_goes(tmp_path: Path) -> None:
    """A delivery that is claimed before a reload and sent after it is rendered in the dialect of the new upstream."""
    with chaos(OK) as ilert, chaos(OK) as pagerduty:
        either = [table("one", ilert.url, "ilert"), table("one", pagerduty.url, "pagerduty")]
        with house(tmp_path, config=lambda _: text(table("one", NOWHERE, "ilert"))) as h:
            for number in range(300):
                assert page(h, f"disk {number}").status == 202
            reloads = 0
            while outbox(h, "waiting"):
                again(h, text(either[reloads % 2]))
                reloads += 1
                time.sleep(0.02)
            assert reloads > 5, "all of it went out at once"
            told = [*ilert.got, *pagerduty.got]
            assert len(told) == len(settled(h, count=300)) == 300 and ilert.got and pagerduty.got
            assert {"eventType" in got.body and "payload" not in got.body for got in ilert.got} == {True}
            assert {"payload" in got.body and "summary" not in got.body for got in pagerduty.got} == {True}


# --- another dialect under the same name -----------------------------------------------------------------------


def test_what_was_told_by_id_is_told_under_one_key_where_keys_are_spoken_now(tmp_path: Path) -> None:
    """An alert that was told by id gets one key once its upstream finds alerts by key; otherwise each change would be
    another incident there, and none could be ended."""
    with (
        chaos(Uptinio()) as uptinio,
        chaos(OK) as pagerduty,
        house(tmp_path, config=lambda _: text(table("one", uptinio.url, "uptinio"))) as h,
    ):
        page(h)
        down(h, "no key of its own")
        settled(h, count=2)
        again(h, text(table("one", pagerduty.url, "pagerduty")))
        page(h, summary="Disk is fuller")
        settled(h, count=3)
        page(h, summary="Disk is full")
        settled(h, count=4)
        end(h)
        settled(h, count=5)
        [shown] = h.call("GET", COLLECTIONS["uptinio"]).body["data"]
        for said in ({"message": "still"}, {"status": "resolved"}):
            assert h.call("PUT", f"{COLLECTIONS['uptinio']}/{shown['id']}", said).status == 200
        settled(h, count=7)
        told = [(got.body["dedup_key"], got.body["event_action"]) for got in pagerduty.got]
        ours, theirs = told[0][0], told[3][0]
        assert told[:3] == [(ours, "trigger"), (ours, "trigger"), (ours, "resolve")] and ours.startswith("disk-")
        assert told[3:] == [(theirs, "trigger"), (theirs, "resolve")] and len(theirs) == 32
        [traced] = h.client.get(f"{h.url}/-/alerts/disk").json()["alerts"]
        assert traced["upstreams"][0]["key"] == ours and traced["upstreams"][0]["state"] == "gone"


def test_an_id_is_never_said_to_another_vendor_under_the_same_name(tmp_path: Path) -> None:
    """An id from the previous vendor is not used at the new one, where it may be that of somebody else's alert."""
    theirs = {"id": "alt_1", "monitor_id": "mon_1", "type": "down", "message": "somebody else's", "status": "active"}
    other = Uptinio({**theirs, "created_at": ago(60)})
    with (
        chaos(Ibm()) as ibm,
        chaos(other) as uptinio,
        house(tmp_path, config=lambda _: text(table("one", ibm.url, "ibm_monitoring"))) as h,
    ):
        page(h, "a")
        page(h, "b", summary="Disk is slow")
        made = inner(down(h, "ours"))
        settled(h, count=3)
        other.held["700"] = {**other.held.pop("alt_1"), "id": "700"}
        other.held["701"], other.held["702"] = (
            {**other.held["700"], "id": "701"},
            {**other.held["700"], "id": "702"},
        )
        again(h, text(table("one", uptinio.url, "uptinio")))
        page(h, "a", summary="Disk is fuller")
        settled(h, count=4)
        end(h, "a")
        end(h, "b")
        settled(h, count=5)
        [never] = settled(h, "void")
        assert (never.operation, never.code) == ("resolve", "never-there")
        assert never.reason == "the alert was sent to another vendor under this name, never to Uptinio"
        shown = inner(h.call("GET", f"{COLLECTIONS['uptinio']}/{made['id']}"))
        assert shown["message"] == "ours" and shown["status"] == "active", "what is not there is not gone"
        assert sorted(messages(h)).count("ours") == 1
        assert {other.held[one]["message"] for one in ("700", "701", "702")} == {"somebody else's"}
        assert {other.held[one]["status"] for one in ("700", "701", "702")} == {"active"}
        assert [(got.method, got.path) for got in writes(uptinio)] == [
            ("POST", "/alerts"),
            ("PUT", "/alerts/alt_4"),
        ]
        assert [got.method for got in writes(ibm)] == ["POST"] * 3


# --- an upstream that is out of the file for a while -----------------------------------------------------------


def operators_word(h: House, path: str) -> Any:
    """What the operators' address answers."""
    return h.client.get(h.url + path).json()


def test_an_end_that_came_while_the_upstream_was_out_of_the_file_is_told_once_it_is_back(tmp_path: Path) -> None:
    """A resolve for an upstream that is not in the file is a dead letter (`no-upstream`), and is sent once the upstream
    is back."""
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            settled(h)
            again(h, text(other, to='["two"]'))
            assert end(h).report == ["one; dead=no-upstream"]
            [dead] = outbox(h, "dead")
            assert (dead.operation, dead.code) == ("resolve", "no-upstream")
            assert operators_word(h, "/-/report")["ledger"][0]["adds_up"] is True
            metrics = h.client.get(h.url + "/metrics").text
            assert 'dead_deliveries{upstream="one"} 1.0' not in metrics, "it would wake somebody"
            again(h, text(there, other, to='["two"]'))
            settled(h, count=2)
            assert [got.body["eventType"] for got in one.got] == ["ALERT", "RESOLVE"] and not two.got
            [traced] = operators_word(h, "/-/alerts/disk")["alerts"]
            assert traced["upstreams"][0]["state"] == "gone"


def test_so_it_is_where_the_store_takes_no_commits_when_it_comes_back(tmp_path: Path) -> None:
    """A failing store at the reload does not lose the missed resolve: it is looked for again, not only at the next
    start."""
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            settled(h)
            again(h, text(other, to='["two"]'))
            end(h)
            store: Any = h.gateway.store
            store._writer.pragma("query_only", 1)
            again(h, text(there, other, to='["two"]'))
            h.wait_for(lambda: _looks_in_vain(h))
            store._writer.pragma("query_only", 0)
            settled(h, count=2)
            assert [got.body["eventType"] for got in one.got] == ["ALERT", "RESOLVE"]


def _looks_in_vain(h: House) -> bool:
    """Looks for missed deliveries, unless the gateway does so at this moment; returns whether the store failed."""
    assert h.gateway.dispatcher is not None and h.gateway.housekeeping is not None
    loop = next(iter(h.gateway.dispatcher._tasks.values())).get_loop()
    try:
        asyncio.run_coroutine_threadsafe(h.gateway.housekeeping._tell_at_last(), loop).result(5)
    except StoreError:
        return True
    return False


def test_what_was_said_while_the_upstream_was_out_of_the_file_is_told_once_it_is_back(tmp_path: Path) -> None:
    """Updates and acknowledgements for an upstream that is not in the file are dead letters, shown in the trace, and
    are sent once the upstream is back."""
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            settled(h)
            again(h, text(other, to='["two"]'))
            for said in ({}, {"priority": "LOW"}, {"priority": "LOW"}):
                page(h, summary="Disk is fuller", **said)
            for _ in range(2):
                page(h, summary="Disk is fuller", eventType="ACCEPT")
            assert [(row.operation, row.code) for row in outbox(h, "dead")] == [
                ("update", "no-upstream"),
                ("acknowledge", "no-upstream"),
            ]
            assert operators_word(h, "/-/report")["ledger"][0]["adds_up"] is True
            [traced] = operators_word(h, "/-/alerts/disk")["alerts"]
            assert "no-upstream" in str(traced)
            again(h, text(there, other, to='["two"]'))
            h.wait_for(lambda: len(one.got) == 3)
            told = [(got.body["eventType"], got.body["summary"], got.body.get("priority")) for got in one.got]
            assert told[1][:2] == ("ALERT", "Disk is fuller") and told[1][2] == "LOW"
            assert told[2][0] == "ACCEPT" and not outbox(h, "dead")


def test_an_end_at_a_replica_that_does_not_know_the_upstream_yet_is_told_by_one_that_does(tmp_path: Path) -> None:
    """While replicas get a new file one by one, a resolve accepted by one without the upstream is sent by one that has
    it, before any further reload."""
    store = shared().database()
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        rooms = tmp_path / "new", tmp_path / "old"
        for room in rooms:
            room.mkdir()
        with (
            house(rooms[0], config=lambda _: text(there, other, to='["one", "two"]'), store=store) as new,
            house(rooms[1], config=lambda _: text(other, to='["two"]'), store=store) as old,
        ):
            page(new)
            new.wait_for(lambda: one.got and two.got)
            end(old)
            new.wait_for(lambda: len(one.got) == 2 and len(two.got) == 2)
            assert [got.body["eventType"] for got in one.got] == ["ALERT", "RESOLVE"]


def test_what_waited_for_an_upstream_out_of_the_file_is_ended_there_too(tmp_path: Path) -> None:
    """An alert whose create waited while its upstream was out of the file is ended there too, once the upstream is
    back."""
    with chaos(CLOSE) as one, chaos(OK) as two:
        there, other = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            h.wait_for(lambda: one.got)
            again(h, text(other, to='["two"]'))
            end(h)
            one.always(OK)
            before = len(one.got)
            again(h, text(there, other, to='["two"]'))
            settled(h, count=2)
            assert [got.body["eventType"] for got in one.got[before:]] == ["ALERT", "RESOLVE"]


def test_an_end_is_told_after_a_restart_with_the_upstream_in_the_words_that_it_has(tmp_path: Path) -> None:
    """A resolve missed before a restart follows the upstream's settings: with `on_resolve = "delete"` the rule is
    deleted."""
    vendor = Ibm()
    with chaos(lambda got: OK if got.method == "DELETE" else vendor(got)) as one, chaos(OK) as two:
        deleting = f'{NEEDS}\non_resolve = "delete"'
        there, other = table("one", one.url, "ibm_monitoring", deleting), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            settled(h)
            again(h, text(other, to='["two"]'))
            end(h)
        with house(tmp_path, config=lambda _: text(there, other, to='["two"]')) as h:
            settled(h, count=2)
            assert [(got.method, got.path) for got in writes(one)][1:] == [("DELETE", "/api/alerts/700")]


def test_an_alert_that_is_open_again_is_told_to_an_upstream_that_is_back(tmp_path: Path) -> None:
    """A reopening that the upstream missed is sent once it is back."""
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "pagerduty"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            made = inner(down(h))
            where = f"{COLLECTIONS['uptinio']}/{made['id']}"
            settled(h)
            h.call("PUT", where, {"status": "resolved"})
            settled(h, count=2)
            again(h, text(other, to='["two"]'))
            assert h.call("PUT", where, {"status": "active"}).status == 200
            again(h, text(there, other, to='["two"]'))
            settled(h, count=3)
            assert [got.body["event_action"] for got in one.got] == ["trigger", "resolve", "trigger"]


def test_what_an_update_made_is_found_though_another_update_came_before_anybody_looked(tmp_path: Path) -> None:
    """A create sent for an update, whose answer was lost, is looked for by its own content, not by that of a later
    update: the alert is found and not created twice."""
    vendor = Uptinio()
    vendor.then = [CLOSE]
    with chaos(vendor) as one, chaos(OK) as two:
        there, other = table("one", one.url, "uptinio", first="300ms"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there, other, to='["two"]')) as h:
            page(h)
            again(h, text(there, other, to='["two", "one"]'))
            page(h, summary="Disk is full")
            h.wait_for(lambda: vendor.held)
            for summary in ("Disk is fuller", "Disk is fullest"):
                page(h, summary=summary)
            [made] = vendor.held.values()
            h.wait_for(lambda: made["message"] == "Disk is fullest")
            assert [got.method for got in writes(one)] == ["POST", "PUT"]


def test_what_changed_since_it_is_open_again_is_told_to_an_upstream_that_is_back(tmp_path: Path) -> None:
    """An alert that had ended at the upstream, and was reopened and updated while it was out of the file, is opened
    there again and updated."""
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "pagerduty"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            made = inner(down(h))
            where = f"{COLLECTIONS['uptinio']}/{made['id']}"
            h.call("PUT", where, {"status": "resolved"})
            settled(h, count=2)
            again(h, text(other, to='["two"]'))
            h.call("PUT", where, {"status": "active"})
            h.call("PUT", where, {"message": "It is worse"})
            again(h, text(there, other, to='["two"]'))
            h.wait_for(lambda: len(one.got) == 4)
            assert is_told(one, ["trigger", "resolve", "trigger", "trigger"])
            assert one.got[-1].body["payload"]["summary"] == "It is worse"


def test_what_ended_and_was_opened_again_while_the_upstream_was_out_stays_open_there(tmp_path: Path) -> None:
    """The last operation decides the state there, also with a create that still waited."""
    with chaos(CLOSE) as one, chaos(OK) as two:
        there, other = table("one", one.url, "pagerduty"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            made = inner(down(h))
            h.wait_for(lambda: one.got)
            again(h, text(other, to='["two"]'))
            for status in ("resolved", "active"):
                h.call("PUT", f"{COLLECTIONS['uptinio']}/{made['id']}", {"status": status})
            one.always(OK)
            before = len(one.got)
            again(h, text(there, other, to='["two"]'))
            settled(h, count=3)
            assert [got.body["event_action"] for got in one.got[before:]] == ["trigger", "resolve", "trigger"]


def test_what_was_missed_is_told_before_what_comes_once_the_upstream_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed resolve is sent before a new alert of the same key; sent later, it would be dropped as older than what
    was delivered, and the new alert would wake nobody."""
    monkeypatch.setattr("gateway.process.service.HOUSEKEEPING", 3600)
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "pagerduty"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            settled(h)
            again(h, text(other, to='["two"]'))
            end(h)
            again(h, text(there))
            page(h, summary="Disk full again")
            settled(h, count=3)
            assert [got.body["event_action"] for got in one.got] == ["trigger", "resolve", "trigger"]
            assert not outbox(h, "dead")


def test_a_change_that_was_missed_does_not_come_behind_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed update is sent before newer commands; sent later it would undo them, or never be sent."""
    monkeypatch.setattr("gateway.process.service.HOUSEKEEPING", 3600)
    vendor = Uptinio()
    with chaos(vendor) as one, chaos(OK) as two:
        there, other = table("one", one.url, "uptinio"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            page(h)
            settled(h)
            again(h, text(other, to='["two"]'))
            page(h, summary="Disk is fuller")
            again(h, text(there))
            end(h)
            [shown] = vendor.held.values()
            h.wait_for(lambda: shown["status"] == "resolved")
            assert shown["message"] == "Disk is fuller"


def test_a_rule_that_was_switched_while_the_upstream_was_out_of_the_file_ends_and_wakes_there(tmp_path: Path) -> None:
    """Switching a rule off or on while the upstream is out of the file is sent as a resolve or a trigger, not as an
    update."""
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "pagerduty"), table("two", two.url, "ilert")
        inbound = f'[inbound.ibm_monitoring]\nkeys = {{ ci = "{KEY}" }}'
        away = text(inbound, other, to='["two"]')
        with house(tmp_path, config=lambda _: text(inbound, there)) as h:
            made = inner(h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("Disk full")))
            where = f"{COLLECTIONS['ibm_monitoring']}/{made['id']}"
            for told, is_on in ((["trigger", "resolve"], False), (["trigger", "resolve", "trigger"], True)):
                again(h, away)
                assert h.call("PUT", where, {"alert": {"enabled": is_on}}).status == 200
                again(h, text(inbound, there))
                h.wait_for(partial(is_told, one, told))


def is_told(upstream: Chaos, actions: list[str]) -> bool:
    """Whether exactly these actions arrived at PagerDuty."""
    return [got.body["event_action"] for got in list(upstream.got)] == actions


def test_an_upstream_that_refused_an_alert_is_told_what_it_says_by_now(tmp_path: Path) -> None:
    """A dead create that is sent again once the upstream is back has the alert's present content."""
    with chaos(NO) as one, chaos(OK) as two:
        there, other = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there, other, to='["two", "one"]')) as h:
            page(h)
            settled(h, "dead")
            again(h, text(other, to='["two"]'))
            page(h, summary="Disk is fuller")
            one.always(OK)
            again(h, text(there, other, to='["two", "one"]'))
            settled(h, count=3)
            assert [got.body["summary"] for got in one.got] == ["Disk full", "Disk is fuller"]
            assert not outbox(h, "dead")


def test_an_end_is_told_where_the_alert_was_about_to_be_opened_again(tmp_path: Path) -> None:
    """A resolve reaches the upstream although a reopening was under way when the upstream was taken out of the file."""
    gate = threading.Event()
    with chaos(OK) as one, chaos(OK) as two:
        there, other = table("one", one.url, "pagerduty", timeout="5s"), table("two", two.url, "ilert")
        with house(tmp_path, config=lambda _: text(there)) as h:
            made = inner(down(h))
            where = f"{COLLECTIONS['uptinio']}/{made['id']}"
            h.call("PUT", where, {"status": "resolved"})
            settled(h, count=2)
            one.answer = lambda got: gated(gate, OK)
            opened = threading.Thread(target=h.call, args=("PUT", where, {"status": "active"}))
            opened.start()
            h.wait_for(lambda: len(one.got) == 3)
            again(h, text(other, to='["two"]'))
            h.call("PUT", where, {"status": "resolved"})
            gate.set()
            opened.join()
            again(h, text(there))
            h.wait_for(partial(is_told, one, ["trigger", "resolve", "trigger", "resolve"]))


# --- keys ------------------------------------------------------------------------------------------------------


def test_what_was_told_with_a_callers_own_key_goes_on_with_the_one_key_there_is_now(tmp_path: Path) -> None:
    """An alert told with a key chosen by caller goes on with the upstream's single key once that is configured, instead
    of holding the upstream for a key that cannot be added."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ci").write_text("ci-key-0123456789")
    with chaos(OK) as one:
        alone = table("one", one.url, "pagerduty")
        by_caller = alone.replace('"upstream-key"', f'{{ by = "caller", dir = "{tmp_path}/keys" }}')
        with house(tmp_path, config=lambda _: text(by_caller)) as h:
            page(h)
            settled(h)
            again(h, text(alone))
            end(h)
            page(h, "another")
            settled(h, count=3)
            told = {(got.body["dedup_key"], got.body["event_action"], got.body["routing_key"]) for got in one.got}
            assert told == {
                ("disk", "trigger", "ci-key-0123456789"),
                ("disk", "resolve", "upstream-key"),
                ("another", "trigger", "upstream-key"),
            }
