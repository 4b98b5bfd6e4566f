"""Vendors that answer with receipts: a request counts as delivered only once the vendor says so, whatever happens
meanwhile.

Opsgenie or its successor, over HTTP and on a bad day: it is slow to report on a request, reports that it discarded it,
reports nothing at all; and the gateway is killed in between.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from gateway.admin.operating import chosen
from gateway.clock import Clock
from gateway.road.requeue import send_again
from gateway.store.sqlite import SqliteTx
from mappings.opsgenie import steps
from tests.chaos_upstream import NOT_JSON, RESET_AFTER, Behaviour, Chaos, chaos, say
from tests.engine.genies import ID, JsmOps, Opsgenie, paths
from tests.engine.test_restart import process
from tests.engine.vendors import before, outbox, page, settled, table, writes
from tests.harness import KEY, House


@pytest.fixture(params=[Opsgenie, JsmOps], ids=lambda kind: kind.dialect)
def genie(request: pytest.FixtureRequest) -> Opsgenie:
    """Opsgenie and JSM Ops in turn."""
    found: Opsgenie = request.param()
    return found


def _said(h: House, word: str, key: str = "disk", **more: Any) -> None:
    event = {"apiKey": KEY, "eventType": word, "alertKey": key, **more}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


def test_what_was_taken_is_delivered_once_it_is_confirmed(tmp_path: Path, genie: Opsgenie) -> None:
    """202 is a receipt: it is polled until the vendor says that it created the alert; nothing is sent twice."""
    genie.looks = 2
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        h.wait_for(lambda: genie.asked.get("r1"))
        [waiting] = outbox(h)
        assert (waiting.state, waiting.attempts) == ("waiting", 0)
        assert "confirm" in waiting.reason
        [delivered] = settled(h)
        assert (delivered.attempts, delivered.seen) == (1, {})
        assert genie.asked == {"r1": 3}
        assert paths(upstream) == [f"POST {genie.collection}"]
        assert writes(upstream)[0].headers["authorization"] == genie.authorization


@pytest.mark.parametrize("words", ["Discarded by the policy of maintenance", "Team NOC does not exist"])
def test_what_the_vendor_discards_is_a_dead_letter(tmp_path: Path, genie: Opsgenie, words: str) -> None:
    """The dead letter has the vendor's reason, and a retry sends a new request instead of polling the old receipt. The
    history has all of it: no receipt takes the place of an attempt that failed before."""
    genie.says = {"alerts": words}
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        [dead] = settled(h, "dead")
        assert words in dead.reason
        genie.says = {}
        _retry(h, dead.id)
        settled(h)
        assert paths(upstream) == [f"POST {genie.collection}"] * 2
        assert genie.asked == {"r1": 1, "r2": 1}
        with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
            tried = [(abs(one.number), one.code) for one in SqliteTx(connection).attempts(dead.id)]
        assert tried == [(1, "unconfirmed"), (1, "refused"), (2, "unconfirmed"), (2, "")]


def test_what_was_discarded_is_dead_though_the_request_succeeded(tmp_path: Path, genie: Opsgenie) -> None:
    discarded = {"isSuccess": True, "processedAt": "2017-05-24T14:24:20.844Z", "status": "Discarded by a policy"}
    genie.then = [genie.became(discarded)]
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        assert settled(h, "dead")[0].reason == "discarded: Discarded by a policy"


def test_a_request_without_a_time_of_processing_has_not_failed_yet(tmp_path: Path, genie: Opsgenie) -> None:
    genie.then = [genie.became({"isSuccess": False, "status": ""})]
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        settled(h)
        assert paths(upstream) == [f"POST {genie.collection}"]


def _retry(h: House, delivery: int) -> None:
    """Retries as an operator's command does, in a transaction of its own."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection, connection:
        tx = SqliteTx(connection)
        assert send_again(tx, chosen(tx, [delivery], dead=False, upstream=None), Clock()(), force=False) == (
            [delivery],
            [],
        )


def test_a_confirmation_that_never_comes_is_a_dead_letter(tmp_path: Path, genie: Opsgenie) -> None:
    """It is dead after `max_age`; later deliveries in its lane go on."""
    genie.looks = 10_000
    with chaos(genie) as upstream, before(tmp_path, _aged(genie, upstream, "1s")) as h:
        page(h)
        [dead] = settled(h, "dead", seconds=10.0)
        assert dead.reason == "given up: the upstream accepted the request, but has not confirmed it yet"
        assert paths(upstream) == [f"POST {genie.collection}"], "it was sent once"
        genie.looks = 0
        _said(h, "ALERT", summary="Disk fuller")
        settled(h)
        assert paths(upstream) == [f"POST {genie.collection}"] * 2


def test_what_the_vendor_knows_nothing_of_is_sent_again(
    tmp_path: Path, genie: Opsgenie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that it accepted and lost would otherwise be asked about for a day, and nobody be woken."""
    monkeypatch.setattr(steps, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(steps, "LONGEST_PAUSE", 0.02)
    genie.then = [say(404, {"message": "Request not found. It might not be processed, yet."})] * steps.MOST_LOOKS
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        settled(h)
        sent = [got for got in upstream.got if got.method == "POST"]
        assert [got.body["alias"] for got in sent] == ["disk", "disk"]
        assert sum("/requests/" in got.path for got in upstream.got) == steps.MOST_LOOKS + 1


def test_what_is_new_does_not_wait_behind_all_that_is_unconfirmed(
    tmp_path: Path, genie: Opsgenie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor that accepts everything and confirms nothing is asked more and more: a page that came while many
    questions were due waited for all of them."""
    monkeypatch.setattr(steps, "FIRST_LOOK", 0.001)
    monkeypatch.setattr(steps, "LONGEST_PAUSE", 0.001)
    unprocessed = genie.became({"isSuccess": False, "status": "", "processedAt": ""})
    monkeypatch.setattr(genie, "not_yet", lambda: unprocessed)
    genie.looks = 10**6
    with chaos(genie) as upstream:
        one_by_one = genie.table(upstream) + "concurrency = 1\n"
        with before(tmp_path, one_by_one) as h:
            for number in range(60):
                page(h, f"early {number}")
            h.wait_for(lambda: len(writes(upstream)) == 60, 20)
            asked = sum(genie.asked.values())
            page(h, "late")
            h.wait_for(lambda: len(writes(upstream)) == 61, 20)
            till_then = next(at for at, got in enumerate(upstream.got) if (got.body or {}).get("alias") == "late")
            assert till_then - 60 - asked < 20, "questions that went first"


def _aged(genie: Opsgenie, upstream: Chaos, most: str) -> str:
    return genie.table(upstream).replace('most = "10ms" }', f'most = "10ms", max_age = "{most}" }}')


def test_a_receipt_outlives_a_kill(tmp_path: Path, genie: Opsgenie) -> None:
    """After a SIGKILL between receipt and verdict the next process polls the same request, and sends nothing."""
    genie.looks = 10_000
    with chaos(genie) as upstream:
        config = tmp_path / "gateway.toml"
        inbound = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        config.write_text(
            f'listen = "127.0.0.1:0"\nstore = "sqlite://{tmp_path}/gateway.db"\n{inbound}{genie.table(upstream)}'
        )
        with process(config) as (url, running):
            event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
            assert httpx.post(f"{url}/ilert/api/events", json=event).status_code == 202
            _wait(lambda: genie.asked.get("r1", 0) >= 2)
            os.kill(running.pid, signal.SIGKILL)
        looked = genie.asked["r1"]
        with process(config):
            _wait(lambda: genie.asked["r1"] > looked)
            genie.looks = 0
            _wait(lambda: _states(tmp_path) == ["delivered"])
        assert paths(upstream) == [f"POST {genie.collection}"]


def _wait(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not come to be within {seconds} s"
        time.sleep(0.01)


def _states(directory: Path) -> list[str]:
    with contextlib.closing(apsw.Connection(f"{directory}/gateway.db")) as connection:
        return [row[0] for row in connection.execute("SELECT state FROM deliveries")]


@pytest.mark.parametrize("words", ["Discarded by an action filter", "never"])
def test_a_receipt_is_never_taken_for_another_commands(tmp_path: Path, genie: Opsgenie, words: str) -> None:
    """A comment fails and its receipt remains; the next comment on the same alert has its own."""
    with chaos(genie) as upstream, before(tmp_path, _aged(genie, upstream, "1s")) as h:
        page(h)
        settled(h)
        genie.says, genie.looks = ({"notes": words}, 0) if words != "never" else ({}, 10_000)
        _said(h, "COMMENT", summary="the first")
        [dead] = settled(h, "dead", seconds=10.0)
        assert dead.operation == "comment"
        genie.says, genie.looks = {}, 0
        asked = genie.asked["r2"]
        _said(h, "COMMENT", summary="the second")
        settled(h, count=2)
        assert paths(upstream)[1:] == [f"POST {genie.at('disk', '/notes')}"] * 2
        assert [got.body["note"] for got in writes(upstream)[1:]] == ["the first", "the second"]
        assert (genie.asked["r2"], genie.asked["r3"]) == (asked, 1), "nobody asks about the first any more"


def test_a_command_without_an_alert_keeps_its_receipt(tmp_path: Path, genie: Opsgenie) -> None:
    """The close of an alert older than the gateway is sent once and polled until it is done."""
    genie.looks = 2
    if isinstance(genie, JsmOps):
        genie.held = {"id": ID, "alias": "from before", "status": "open"}
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        _said(h, "RESOLVE", key="from before")
        settled(h)
        assert paths(upstream) == [f"POST {genie.at('from%20before', '/close')}"]
        assert genie.asked == {"r1": 3}


@pytest.mark.parametrize(
    "trouble", [say(503), say(429, {"message": "slow down"}), RESET_AFTER], ids=lambda one: one.name
)
def test_trouble_while_asking_sends_nothing_again(tmp_path: Path, genie: Opsgenie, trouble: Behaviour) -> None:
    """With a receipt at hand the next attempt polls again, whatever went wrong with a poll; nothing is sent twice."""
    genie.then = [trouble, trouble]
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        settled(h, seconds=10.0)
        assert paths(upstream) == [f"POST {genie.collection}"]


def test_a_key_that_may_not_read_tells_of_everything(tmp_path: Path) -> None:
    """Reading is a separate right of an integration (https://docs.opsgenie.com/docs/api-access-management); without it
    the upstream is not held, and every alert is sent."""
    genie = Opsgenie()
    genie.reading = forbidden = say(403, {"message": "Forbidden", "code": 40301, "took": 0.0, "requestId": "r"})
    genie.then = [forbidden] * 9
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        _said(h, "ALERT", "one", summary="One")
        _said(h, "ALERT", "two", summary="Two")
        settled(h, count=2)
        _said(h, "RESOLVE", "one")
        settled(h, count=3)
        closes = f"POST {genie.at('one', '/close')}"
        assert paths(upstream) == [f"POST {genie.collection}", f"POST {genie.collection}", closes]


@pytest.mark.parametrize("unread", [NOT_JSON, say(202, {"result": "ok"})], ids=["200", "202"])
def test_an_answer_without_a_request_id_is_no_receipt(tmp_path: Path, genie: Opsgenie, unread: Behaviour) -> None:
    """Such a request cannot be polled: it is sent again, under the same alias."""
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        upstream.plan(unread)
        page(h)
        [delivered] = settled(h)
        assert delivered.attempts == 2
        assert [got.body["alias"] for got in writes(upstream)] == ["disk", "disk"]


def test_an_update_of_several_fields_goes_step_by_step(tmp_path: Path, genie: Opsgenie) -> None:
    """One call per field, each after the previous one was confirmed; a failure in the middle repeats no step."""
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h, severity=3)
        settled(h)
        genie.then = []
        upstream.got.clear()
        _said(h, "ALERT", summary="Disk fuller", severity=1, customDetails={"free": "3 MB"})
        settled(h, count=2, seconds=10.0)
        asked = [f"{got.method} {got.path.partition('?')[0].removeprefix(genie.collection)}" for got in upstream.got]
        asked = [word for word in asked if not word.startswith("GET") or "/requests/" in word]
        steps = [word for word in asked if not word.startswith("GET")]
        wanted = [f"{genie.change} /message", f"{genie.change} /priority", f"POST {genie.details_at}"]
        assert [f"{step.split()[0]} /{step.rpartition('/')[2]}" for step in (steps[0], *steps[-2:])] == wanted
        assert asked == [
            word for step, number in zip(steps, itertools.count(2)) for word in (step, f"GET /requests/r{number}")
        ]
        [message] = [
            got.body for got in writes(upstream, genie.change) if got.path.partition("?")[0].endswith("/message")
        ]
        assert message == {"message": "Disk fuller"}
        assert writes(upstream)[-1].body[genie.details]["free"] == "3 MB"


def test_what_changes_before_a_fallback_confirms_is_told_there(tmp_path: Path, genie: Opsgenie) -> None:
    """It is told what is so at its turn; that it was told what has changed since is not to be concluded from that."""
    genie.looks = 10_000
    route = '[[routes]]\nto = ["oncall"]\nfallback = { to = ["there"], after = "100ms" }\n'
    nowhere = table("oncall", "http://127.0.0.1:1", "ilert", "")
    with chaos(genie) as upstream, before(tmp_path, nowhere, genie.table(upstream), routes=route) as h:
        page(h)
        h.wait_for(lambda: genie.asked.get("r1"))
        _said(h, "ALERT", summary="Disk fuller")
        genie.looks = 0
        h.wait_for(lambda: any(got.body.get("message") == "Disk fuller" for got in writes(upstream)), 5)


@pytest.mark.parametrize("count", [1, 2])
def test_words_that_a_create_did_not_change_are_told_by_the_next_update(
    tmp_path: Path, genie: Opsgenie, count: int
) -> None:
    """A create that counts an open alert once more leaves its text as it was: a gateway that was killed may have
    created it in older words. Of a new alert a text that looks different is only the vendor's spelling."""
    genie.reading = say(200, {"id": ID, "status": "open", "message": "Disk nearly full", "count": count})
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h, severity=3)
        settled(h)
        told = writes(upstream)[0].body["message"]
        _said(h, "ALERT", summary=told, severity=1)
        settled(h, count=2, seconds=10.0)
        changed = [got.body for got in writes(upstream, genie.change)]
        assert {"priority": "P1"} in changed
        assert ({"message": told} in changed) == (count > 1)


def test_an_update_of_what_is_gone_there_is_a_create_with_a_receipt_of_its_own(tmp_path: Path, genie: Opsgenie) -> None:
    """The alert was closed at the vendor: the update finds no open one and becomes a create, which pages again."""
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        settled(h)
        genie.says = {"message": "Alert does not exist"}
        _said(h, "ALERT", summary="Disk fuller")
        settled(h, count=2)
        change = f"{genie.change} {genie.at('disk', '/message')}"
        assert paths(upstream) == [f"POST {genie.collection}", change, f"POST {genie.collection}"]
        assert writes(upstream)[-1].body["message"] == "Disk fuller"


def test_ending_what_is_gone_there_counts_as_delivered(tmp_path: Path, genie: Opsgenie) -> None:
    genie.says = {"close": "Alert does not exist"}
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        _said(h, "RESOLVE")
        assert [row.state for row in settled(h, count=2)] == ["delivered"] * 2


def test_a_key_of_the_wrong_form_holds_the_upstream(tmp_path: Path, genie: Opsgenie) -> None:
    """422 is otherwise a verdict on the content; for this one message it holds the upstream, and no alert is dead."""
    refusal = say(422, {"message": "Key format is not valid!", "took": 0.0, "requestId": "r"})
    with chaos(refusal) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        h.wait_for(lambda: h.gateway.dispatcher and h.gateway.dispatcher.is_open("there"))
        waiting = h.wait_for(lambda: [one for one in outbox(h) if "Key format is not valid!" in one.reason])
        assert [one.state for one in waiting] == ["waiting"]


def test_refused_content_is_a_dead_letter(tmp_path: Path, genie: Opsgenie) -> None:
    errors = {"message": "Request body is not processable.", "errors": {"priority": "should be one of"}, "took": 0.0}
    with chaos(say(422, {**errors, "requestId": "r"})) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        [dead] = settled(h, "dead")
        assert "priority: should be one of" in dead.reason
