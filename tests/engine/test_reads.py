"""What a list or a read brings into the record, and what it must not: other callers' alerts that are still being
created, ids that mean something else elsewhere, answers older than a later change. canonical.md, *Reads*.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery import lanes
from tests.chaos_upstream import RESET_AFTER, Behaviour, Got, chaos, say
from tests.clients.callers import OTHER, uptinio_alert
from tests.engine.genies import ID, Opsgenie
from tests.engine.vendors import (
    Uptinio,
    ago,
    before,
    down,
    gated,
    messages,
    outbox,
    rows,
    settled,
    slow,
    table,
    writes,
)
from tests.harness import KEY, UPSTREAM_KEY, House, Sent, house


def uptinio(name: str, url: str, **more: Any) -> str:
    """An Uptinio upstream."""
    return table(name, url, "uptinio", **more)


def test_a_list_during_a_create_adopts_nothing_of_it(tmp_path: Path) -> None:
    """Unowned alerts are adopted by the scope that lists them; one whose create is still under way is not unowned."""
    there, gate = Uptinio(), threading.Event()
    with chaos(there) as upstream, before(tmp_path, uptinio("there", upstream.url), top='reply_timeout = "200ms"') as h:
        there.then = [gated(gate, say(201, {"data": {"id": "alt_1"}}))]
        assert down(h, "mine").status == 201
        h.wait_for(lambda: there.held)  # created there, not answered yet
        assert messages(h, key=OTHER) == []
        gate.set()
        settled(h)
        assert messages(h) == ["mine"]
        assert messages(h, key=OTHER) == []


def test_a_list_after_a_create_whose_answer_was_lost_adopts_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a create with a lost answer waits for its retry, no list adopts its alert; the retry finds it for its
    caller."""
    monkeypatch.setattr(lanes, "pause", lambda *_: 1.5)  # no jitter, so that it is seen waiting
    there = Uptinio()
    there.then = [RESET_AFTER]
    top = 'reply_timeout = "200ms"'
    with chaos(there) as upstream, before(tmp_path, uptinio("there", upstream.url), top=top) as h:
        assert down(h, "mine").status == 201
        settled(h, "waiting")
        assert messages(h, key=OTHER) == []
        settled(h)
        assert len(writes(upstream)) == 1
        assert messages(h) == ["mine"]
        assert messages(h, key=OTHER) == []


def test_an_alert_that_nobody_holds_is_adopted_by_the_scope_that_asked_first(tmp_path: Path) -> None:
    """The control of the two tests above: an alert older than the gateway is adopted, once."""
    old = {**uptinio_alert("old"), "id": "alt_900", "status": "active", "created_at": ago(60)}
    with chaos(Uptinio(old)) as upstream, before(tmp_path, uptinio("there", upstream.url)) as h:
        assert messages(h, key=OTHER) == ["old"]
        assert messages(h) == []


def test_adopted_alerts_are_listed_by_the_time_they_were_created(tmp_path: Path) -> None:
    """canonical.md, *Scope*: lists are ordered oldest first, whatever the vendor's order."""
    ages = {"third": 10, "first": 50, "fourth": 5, "second": 30}
    held = [
        {**uptinio_alert(name), "id": f"alt_{number}", "status": "active", "created_at": ago(minutes)}
        for number, (name, minutes) in enumerate(ages.items(), 900)
    ]
    with chaos(Uptinio(*held)) as upstream, before(tmp_path, uptinio("there", upstream.url)) as h:
        assert down(h, "fifth").status == 201
        assert messages(h) == ["first", "second", "third", "fourth", "fifth"]


def test_a_list_is_asked_of_no_upstream_to_which_only_another_caller_s_alerts_go(tmp_path: Path) -> None:
    """What is listed there belongs to somebody else, and would be the asking caller's own from then on."""
    routes = '[[routes]]\nwhen = ["caller = ci"]\nto = ["ci_s"]\n[[routes]]\nwhen = ["caller = ops"]\nto = ["ops_s"]\n'
    first, second = (
        Uptinio({**uptinio_alert(name), "id": f"alt_{name}", "status": "active", "created_at": ago(9)})
        for name in ("one", "two")
    )
    with (
        chaos(first) as one,
        chaos(second) as two,
        before(tmp_path, uptinio("ci_s", one.url), uptinio("ops_s", two.url), routes=routes) as h,
    ):
        assert messages(h, key=OTHER) == ["two"]
        assert messages(h) == ["one"]


@pytest.mark.parametrize("theirs", ["console", "gateway"])
def test_a_list_of_one_upstream_leaves_the_namesakes_at_another_alone(tmp_path: Path, theirs: str) -> None:
    """An id belongs to the party that issued it: an alert with the same id at another upstream is not refreshed."""
    routes = """
    [[routes]]
    when = ["summary =~ 'one.*'"]
    to = ["one"]
    [[routes]]
    to = ["two"]
    """
    first, second = Uptinio(), Uptinio()
    if theirs == "console":
        first.held["alt_1"] = {
            **uptinio_alert("one, by somebody else"),
            "id": "alt_1",
            "status": "resolved",
            "created_at": ago(9),
        }
    with chaos(first) as one, chaos(second) as two:
        tables = uptinio("one", one.url), uptinio("two", two.url)
        with before(tmp_path, *tables, routes=routes) as h:
            if theirs == "gateway":
                assert down(h, "one, by us").status == 201
                first.held["alt_1"]["message"] = "one, changed there"
            made = down(h, "two").body["data"]
            assert "alt_1" in first.held and "alt_1" in second.held, "both upstreams issued the same id"
            assert (made["id"] == "alt_1") is (theirs == "console"), "what is shown already stays one alert's own"
            shown = messages(h)
            assert shown.count("two") == 1, "not overwritten by its namesake"
            assert len(shown) == 2
            if theirs == "gateway":
                assert "one, changed there" in shown, "an id that the asking scope holds is refreshed"


def test_an_id_that_is_shown_already_is_not_taken_by_what_is_adopted(tmp_path: Path) -> None:
    """Two upstreams issue the same id: for the caller it goes on naming the alert that was shown under it first."""
    routes = '[[routes]]\nwhen = ["summary =~ \'one.*\'"]\nto = ["one"]\n[[routes]]\nto = ["two"]\n'
    theirs = {**uptinio_alert("one, by somebody else"), "id": "alt_1", "status": "active", "created_at": ago(9)}
    with (
        chaos(Uptinio(theirs)) as one,
        chaos(Uptinio()) as two,
        before(tmp_path, uptinio("one", one.url), uptinio("two", two.url), routes=routes) as h,
    ):
        assert down(h, "two").body["data"]["id"] == "alt_1"
        settled(h)
        assert sorted(messages(h)) == ["one, by somebody else", "two"]
        assert h.call("GET", "/uptinio/alerts/alt_1").body["data"]["message"] == "two"
        h.call("PUT", "/uptinio/alerts/alt_1", {"message": "two, changed"})
        h.wait_for(lambda: [got.body["message"] for got in writes(two, "PUT")] == ["two, changed"])
        assert not writes(one), "the other one is not this caller's to change by that id"
        shown = {alert["message"]: alert["id"] for alert in h.call("GET", "/uptinio/alerts").body["data"]}
        assert shown["two, changed"] == "alt_1"
        found = h.call("GET", f"/uptinio/alerts/{shown['one, by somebody else']}")
        assert found.body["data"]["message"] == "one, by somebody else"


class Accounts:
    """Several accounts of one vendor, each with its own key, alerts and ids."""

    def __init__(self, **accounts: Uptinio) -> None:
        self.by_key = accounts

    def __call__(self, got: Got) -> Behaviour:
        """Answers as the account that this key belongs to."""
        return self.by_key[got.headers["authorization"].removeprefix("Bearer ")](got)


def test_a_list_with_another_key_leaves_the_namesakes_in_this_account_alone(tmp_path: Path) -> None:
    """canonical.md, *Scope*: an upstream with a key per caller is one upstream per key; callers may share a scope."""
    (tmp_path / "keys").mkdir()
    for name in ("ci", "ops"):
        (tmp_path / "keys" / name).write_text(f"key-of-{name}")
    first, second = Uptinio(), Uptinio()
    keys = f'key = {{ by = "caller", dir = "{tmp_path}/keys" }}'
    with chaos(Accounts(**{"key-of-ci": first, "key-of-ops": second})) as there:
        tables = uptinio("there", there.url).replace('key = "upstream-key"', keys)
        with before(tmp_path, tables, scope="all") as h:
            assert down(h, "of ci").body["data"]["id"] == "alt_1"
            assert down(h, "of ops", key=OTHER).status == 201
            settled(h, count=2)
            assert "alt_1" in first.held and "alt_1" in second.held, "both accounts issued the same id"
            first.held["alt_1"]["message"] = "of ci, changed there"
            assert sorted(messages(h)) == ["of ci, changed there", "of ops"]
            second.held["alt_1"]["message"] = "of ops, changed there"
            assert sorted(messages(h, key=OTHER)) == ["of ci, changed there", "of ops, changed there"]
            first.held["alt_1"]["message"] = "of ci, changed again"
            found = h.call("GET", "/uptinio/alerts/alt_1", key=OTHER)
            assert found.body["data"]["message"] == "of ci, changed again", "asked with the key it was made with"


def test_a_list_of_one_scope_is_not_put_off_by_that_of_another(tmp_path: Path) -> None:
    """An upstream is asked at most once a second for each scope: a caller who polls takes nobody else's turn."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, uptinio("there", upstream.url)) as h:
        made = {key: down(h, "first", key=key).body["data"]["id"] for key in (KEY, OTHER)}
        settled(h, count=2)
        for one in made.values():
            there.held[one]["message"] = f"{one}, changed there"
        for key, one in made.items():
            assert messages(h, key=key) == [f"{one}, changed there"]


def test_what_was_asked_for_in_vain_is_stale_no_longer_than_that(tmp_path: Path) -> None:
    with chaos(Uptinio()) as upstream, before(tmp_path, uptinio("there", upstream.url)) as h:
        address = f"/uptinio/alerts/{down(h).body['data']['id']}"
        settled(h)
        answer, upstream.answer = upstream.answer, lambda _: say(500, {})
        assert h.call("GET", address).headers.get("alert-gateway-stale") == "true"
        assert h.call("GET", address).headers.get("alert-gateway-stale") == "true", "not asked again within a second"
        upstream.answer = answer
        h.gateway.desk.views._asked.clear()  # type: ignore[union-attr]
        assert h.call("GET", address).headers.get("alert-gateway-stale") is None


class Lagging(Uptinio):
    """Answers reads half a second late, with the state of the moment when they were asked."""

    def _read(self, number: str) -> Behaviour:
        return slow(0.5, super()._read(number))


@pytest.mark.parametrize("what", ["one", "list"])
def test_a_slow_read_does_not_overwrite_what_was_delivered_meanwhile(tmp_path: Path, what: str) -> None:
    """Changes found at the vendor are brought in, unless the answer is older than the record."""
    there = Lagging()
    with chaos(there) as upstream, before(tmp_path, uptinio("there", upstream.url)) as h:
        address = f"/uptinio/alerts/{down(h, 'first').body['data']['id']}"
        answers: list[Sent] = []
        path = address if what == "one" else "/uptinio/alerts"
        reading = threading.Thread(target=lambda: answers.append(h.call("GET", path)))
        reading.start()
        h.wait_for(lambda: [got for got in upstream.got if got.method == "GET"])
        assert h.call("PUT", address, {"message": "second"}).status == 200
        assert len(outbox(h, "delivered")) == 2, "delivered before the read is answered"
        assert reading.is_alive()
        reading.join()
        data = answers[0].body["data"]
        assert (data if what == "one" else data[0])["message"] == "second"
        assert h.call("GET", address).body["data"]["message"] == "second"


@pytest.mark.parametrize("when", [ago(2), None], ids=["said", "unsaid"])
def test_what_was_resolved_at_the_vendor_shows_when(tmp_path: Path, when: str | None) -> None:
    """A resolve found at the vendor is recorded with its `resolved_at`, or else the time of the read."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, uptinio("there", upstream.url)) as h:
        made = down(h).body["data"]
        address = f"/uptinio/alerts/{made['id']}"
        there.held[made["id"]].update({"status": "resolved"} | ({"resolved_at": when} if when else {}))
        shown = h.call("GET", address).body["data"]
        assert shown["status"] == "resolved"
        assert shown["resolved_at"] and (shown["resolved_at"] == when or when is None)


def test_an_alert_whose_key_is_another_s_by_now_stays_over(tmp_path: Path) -> None:
    """The vendor refused its end, so it is open there; here a newer alert has the key, and only one may be open per
    key."""
    genie = Opsgenie()
    genie.says["close"] = "Alert is locked"
    alerts, close = "/opsgenie/v2/alerts", "/opsgenie/v2/alerts/disk/close?identifierType=alias"
    with chaos(genie) as upstream:
        text = f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n{table("there", upstream.url, "opsgenie")}'
        with house(tmp_path, config=lambda _: text) as h:
            first = h.call("POST", alerts, {"message": "Disk full", "alias": "disk"})
            settled(h)
            assert h.call("POST", close, {}).status == 202
            settled(h, "dead")
            assert h.call("POST", alerts, {"message": "Disk full", "alias": "disk"}).status == 202
            settled(h, count=2)
            shown = {"id": ID, "alias": "disk", "message": "Disk full", "status": "open", "acknowledged": False}
            genie.reading = say(200, {"data": shown, "requestId": "r"})
            found = h.call("GET", f"{alerts}/{first.headers['alert-gateway-id']}")
            assert found.status == 200, found.body
            assert found.body["data"]["status"] == "closed"
            assert rows(h, "status", "alerts ORDER BY id") == ["resolved", "firing"]


@pytest.mark.parametrize("what", ["one", "list"])
def test_an_upstream_that_is_left_alone_is_not_asked(tmp_path: Path, what: str) -> None:
    """Otherwise a polling caller costs an upstream that is down or held a request a second, and waits for each."""
    there, top = Uptinio(), 'reply_timeout = "300ms"'
    with chaos(there) as upstream, before(tmp_path, uptinio("there", upstream.url), top=top) as h:
        made = down(h, "first").body["data"]["id"]
        path = f"/uptinio/alerts/{made}" if what == "one" else "/uptinio/alerts"
        assert h.gateway.dispatcher
        [breaker] = h.gateway.dispatcher.breakers().values()
        there.then = [say(401, {})] * 50
        down(h, "second")
        h.wait_for(lambda: breaker.wait(time.monotonic()) > 1, 5)
        asked = [got for got in upstream.got if got.method == "GET"]
        sent = h.call("GET", path)
        assert (sent.status, sent.headers.get("alert-gateway-stale")) == (200, "true")
        assert [got for got in upstream.got if got.method == "GET"] == asked


def test_channels_longer_than_an_ordinary_reply_are_passed_on_whole(tmp_path: Path) -> None:
    """ibm_monitoring's sheet: the SDK looks its channels up before it creates; a long list is not cut."""
    channels = [{"id": number, "type": "EMAIL", "name": f"channel {number} " + "x" * 200} for number in range(700)]
    whole = {"notificationChannels": channels}

    def answer(got: Got) -> Behaviour:
        return say(200, whole if got.path == "/api/notificationChannels" else {"alerts": []})

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        relayed = h.call("GET", "/ibm_monitoring/api/notificationChannels")
        assert len(str(whole)) > 2 * 64 * 1024
        assert (relayed.status, relayed.body) == (200, whole)
        assert relayed.headers.get("alert-gateway-stale") is None


def test_channels_that_cannot_be_asked_for_are_not_none(tmp_path: Path) -> None:
    """ibm_monitoring's sheet: the SDK's `get_notification_ids` takes what is listed for all there is, and an alert made
    with an empty list would notify nobody. Its `get_notification_channel`, and the Terraform provider for each channel
    it keeps, ask for one; only a 404 may say that it does not exist."""
    there: list[Behaviour] = []
    one = {"notificationChannel": {"id": 7, "version": 2, "type": "EMAIL", "name": "on call"}}
    with (
        chaos(lambda got: there.pop(0)) as upstream,
        before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h,
    ):
        path = "/ibm_monitoring/api/notificationChannels"
        there.append(say(200, one))
        sent = h.call("GET", f"{path}/7")
        assert (sent.status, sent.body, upstream.got[-1].path) == (200, one, "/api/notificationChannels/7")
        gone = {"errors": [{"reason": "Not found", "message": "no channel 8"}]}
        there.append(say(404, gone))
        sent = h.call("GET", f"{path}/8")
        assert (sent.status, sent.body) == (404, gone)
        for failing in (say(503, {}), say(429, {}), say(401, {})):
            for asked in (path, f"{path}/7"):
                there[:] = [failing]
                sent = h.call("GET", asked)
                assert (sent.status, sent.headers["retry-after"]) == (503, "10"), sent.body
                assert sent.body["errors"][0]["reason"] == "Service Unavailable"


def test_the_sandbox_takes_odd_numbers_without_failing(tmp_path: Path) -> None:
    """canonical.md, *Tolerance*: a wrong value is a 4xx that names the field, never a failure of the server."""
    with house(tmp_path, {"there": "uptinio"}) as h:
        for dialect in FIELDS:
            odd_numbers(h, dialect)


def test_the_sandbox_restores_nothing_that_was_carried_neither_at_first_nor_by_an_update(tmp_path: Path) -> None:
    """It stands in for the vendor, which keeps the container and understands nothing of it."""
    carried = {"fields": {"source": "as it was at the sender"}}
    with house(tmp_path, {"there": "opsgenie"}) as h:
        address, headers = f"{h.sandbox_url}/opsgenie/v2/alerts", {"authorization": f"GenieKey {UPSTREAM_KEY}"}
        new = {"message": "Shown", "alias": "k", "details": {"alert_gateway": json.dumps(carried)}}
        more = {"details": {"b": "2", "alert_gateway": json.dumps(carried)}}
        for path, body in (("", new), ("/k/details?identifierType=alias", more)):
            assert h.client.post(address + path, json=body, headers=headers).status_code == 202
            shown = h.client.get(f"{address}/k?identifierType=alias", headers=headers).json()["data"]
            assert (shown["source"], json.loads(shown["details"]["alert_gateway"])) == ("", carried)
        assert shown["details"]["b"] == "2"


ODD: tuple[Any, ...] = (0, -1, -(2**53), 2**53, 2**63, 2**64, 10**30, 1e308, 1e-308, 0.5, "1e400", "--5", True, None)
FIELDS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "ibm_monitoring": (
        ("timespan", "severity", "reNotifyMinutes", "teamId", "createdOn", "modifiedOn", "notificationCount"),
        {"name": "n", "type": "MANUAL", "condition": "avg(cpu) > 1", "timespan": 60_000_000},
    ),
    "uptinio": (("threshold", "created_at"), uptinio_alert("m")),
    "livesession": (("creation_date", "events"), {"name": "n", "provider": "slack", "slack_channel_id": "C0"}),
    "ilert": (("severity", "priority", "customDetails"), {"eventType": "ALERT", "summary": "s"}),
}
PATHS = {
    "ibm_monitoring": "/api/alerts",
    "uptinio": "/alerts",
    "livesession": "/v1/alerts",
    "ilert": "/api/events",
}


def odd_numbers(h: House, dialect: str) -> None:
    """Sends the sandbox an alert with each odd number in each numeric field, and then lists."""
    fields, body = FIELDS[dialect]
    headers = {"authorization": f"Bearer {UPSTREAM_KEY}"}
    address = f"{h.sandbox_url}/{dialect}{PATHS[dialect]}"
    for name in fields:
        for number, value in enumerate(ODD):
            wanted: Any = {"value": value, "operator": ">", "duration": value} if name == "threshold" else value
            wanted = [{"kind": value, "value": "x"}] if name == "events" else wanted
            wanted = {"n": value} if name == "customDetails" else wanted
            text = f"{name} {number}"
            said: dict[str, Any] = {
                **body,
                **{key: text for key in ("name", "message", "summary") if key in body},
                name: wanted,
            }
            if dialect == "ilert":
                said["apiKey"] = UPSTREAM_KEY
            content = {"alert": said} if dialect == "ibm_monitoring" else said
            answer = h.client.post(address, json=content, headers=headers)
            assert answer.status_code < 500, (name, value, answer.text)
    listing = address.replace("/events", "/alerts")
    assert h.client.get(listing, headers=headers).status_code == 200
