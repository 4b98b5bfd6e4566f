"""A configuration that is changed while alerts wait or are open: what each upstream is told then, in whose words, and
that the end of an alert is told wherever the alert was."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.config import parse
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
    """A configuration, but for its store."""
    return "\n".join([top, INBOUND, *tables, f"[[routes]]\nto = {to}\n"])


def again(h: House, config: str) -> None:
    """Reloads, in the loop that serves."""
    assert h.gateway.dispatcher is not None
    loop = next(iter(h.gateway.dispatcher._tasks.values())).get_loop()
    read = parse(f'store = "sqlite://{h.gateway.config.store}"\n{config}')
    asyncio.run_coroutine_threadsafe(h.gateway.reload(read), loop).result(15)


def end(h: House, key: str = "disk") -> Sent:
    """The end of an ilert alert."""
    event = {"apiKey": KEY, "eventType": "RESOLVE", "alertKey": key}
    return h.call("POST", "/ilert/api/events", event, key=None)


def test_what_is_taken_out_of_the_outbox_is_told_in_the_words_of_where_it_goes(tmp_path: Path) -> None:
    """A reload may come between: it went out to the new vendor in the words of the old one."""
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
    """Without one each change was another incident there, and none could be ended."""
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
    """It may be that of somebody else's alert there."""
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
    """What an operator is told."""
    return h.client.get(h.url + path).json()


def test_an_end_that_came_while_the_upstream_was_out_of_the_file_is_told_once_it_is_back(tmp_path: Path) -> None:
    """It was told nowhere and recorded nowhere, and the alert stayed open there."""
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
    """It was looked for once, in vain, and then not until the next start."""
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
    """Looks for what was not told, unless somebody else does just now; whether the store failed."""
    assert h.gateway.dispatcher is not None
    loop = next(iter(h.gateway.dispatcher._tasks.values())).get_loop()
    try:
        asyncio.run_coroutine_threadsafe(h.gateway._tell_at_last(), loop).result(5)
    except StoreError:
        return True
    return False


def test_what_was_said_while_the_upstream_was_out_of_the_file_is_told_once_it_is_back(tmp_path: Path) -> None:
    """It was told nowhere: who was on call there read what was no longer so, and a trace had no line for it."""
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
    """So it is while replicas are given another file one by one: nobody told it until the next reload."""
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
    """Somebody was woken for what was over, and it stayed open."""
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
    """Rules are deleted where that is what `on_resolve` says."""
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
    """Nobody heard that it goes on."""
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
    """It was looked for by the words of the later one, and made again: nobody could end the first."""
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
    """It had ended there, so it was thought to be none of its business, and was opened with the words from before."""
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
    """The last word counts, also of what waited."""
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
    """Whoever looks for what was missed came second: the end was never told, as something newer had been delivered, and
    a new alert of that key woke nobody."""
    monkeypatch.setattr("gateway.service.HOUSEKEEPING", 3600)
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
    """It undid that, or, where that had been delivered by then, was never told."""
    monkeypatch.setattr("gateway.service.HOUSEKEEPING", 3600)
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
    """It was told as a change of words: what it had raised stayed open, and nobody was woken when it was on again."""
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
    """Whether PagerDuty was asked for these actions, and no more."""
    return [got.body["event_action"] for got in list(upstream.got)] == actions


def test_an_upstream_that_refused_an_alert_is_told_what_it_says_by_now(tmp_path: Path) -> None:
    """Sent again, the dead letter said what was so before the upstream was out of the file."""
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
    """It was under way as the upstream was taken out of the file: it stayed open there for good."""
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
    """It had none any more, and everything for its upstream was held for that, with no key that could be added."""
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
