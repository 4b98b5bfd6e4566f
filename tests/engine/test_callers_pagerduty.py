"""PagerDuty's callers and PagerDuty as an upstream, against its pages and the error texts that its users report.

Source: https://developer.pagerduty.com/docs/events-api-v2/overview/ and the pages beside it.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.errors import Problem
from gateway.outcome import Response, Sending
from gateway.registry import dialects
from gateway.rehearsal import bare_upstream, command_in, rehearse
from mappings import pagerduty
from mappings.pagerduty.calls import fitted_key
from tests.chaos_upstream import chaos, say
from tests.clients.callers import called, fresh, ilert_event, pagerduty_event, uptinio_alert
from tests.engine.pairs import Houses
from tests.engine.vendors import before, outbox, settled, table
from tests.harness import KEY, House, Sent, inbound_tables, upstream_table

ALERTS, CHANGES = "/pagerduty/v2/enqueue", "/pagerduty/v2/change/enqueue"
OK = say(202, {"status": "success", "message": "Event processed", "dedup_key": "k"})
SEVERITY_TEXT = "'payload.severity' is invalid (must be one of the following: 'critical', 'warning', 'error' or 'info')"


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it."""
    return fronts("ilert")


@pytest.fixture(scope="module")
def same(fronts: Houses) -> House:
    """A gateway with PagerDuty behind it."""
    return fronts("pagerduty")


def _post(h: House, event: Any, path: str = ALERTS) -> Sent:
    return h.call("POST", path, event, key=None)


def _change(**more: Any) -> dict[str, Any]:
    payload = {"summary": "Build Success", "source": "acme-build-pipeline", "custom_details": {"run": 2}}
    return {"routing_key": KEY, "payload": {**payload, **more}}


def _next(h: House, ask: Any) -> Any:
    """Carries out a call, and returns the request that arrives at the upstream because of it."""
    name = next(iter(h.gateway.config.upstreams.values())).dialect.name
    before_it = len(h.arrived(name))
    answer = ask()
    assert answer.status == 202, answer.body
    return h.arrives(name, before_it + 1)[before_it]


# --- what is refused, and in which words ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "errors"),
    [
        ({}, ["'event_action' is missing or blank"]),
        ({"event_action": ""}, ["'event_action' is missing or blank"]),
        (
            {"event_action": "Trigger"},
            ["'event_action' is invalid (must be one of the following: 'trigger', 'acknowledge' or 'resolve')"],
        ),
        (
            {"event_action": "trigger"},
            [f"'payload.{name}' is missing or blank" for name in ("summary", "source", "severity")],
        ),
        (
            {"event_action": "trigger", "payload": {"summary": "x", "source": " ", "severity": "Critical"}},
            ["'payload.source' is missing or blank", SEVERITY_TEXT],
        ),
        (
            {"event_action": "trigger", "payload": {"summary": None, "source": "x", "severity": ""}},
            ["'payload.summary' is missing or blank", "'payload.severity' is missing or blank"],
        ),
        (
            {"event_action": "trigger", "dedup_key": 5, "payload": []},
            ["'dedup_key' is invalid (must be a string)", "'payload' is invalid (must be an object)"],
        ),
        ({"event_action": "resolve"}, ["'dedup_key' is missing or blank"]),
        ({"event_action": "acknowledge", "dedup_key": " "}, ["'dedup_key' is missing or blank"]),
    ],
)
def test_everything_that_is_wrong_is_said_at_once(h: House, event: dict[str, Any], errors: list[str]) -> None:
    refused = _post(h, {"routing_key": KEY, **event})
    wanted = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
    assert (refused.status, refused.body) == (400, wanted)


@pytest.mark.parametrize(
    ("key", "errors"),
    [
        (None, ["'routing_key' is missing or blank"]),
        ("", ["'routing_key' is missing or blank"]),
        ("a" * 31, ["Length of 'routing_key' is incorrect (should be 32 characters)"]),
        ("a-b" + "a" * 29, ["'routing_key' cannot contain non-alphanumeric characters."]),
        (
            "a-b",
            [
                "Length of 'routing_key' is incorrect (should be 32 characters)",
                "'routing_key' cannot contain non-alphanumeric characters.",
            ],
        ),
        ("a" * 32, ["Invalid routing key"]),
    ],
)
@pytest.mark.parametrize("path", [ALERTS, CHANGES])
def test_a_key_that_nobody_has(h: House, path: str, key: str | None, errors: list[str]) -> None:
    """PagerDuty has no 401 here. A configured key is accepted whatever its length: `KEY` has not 32 characters."""
    refused = _post(h, {**pagerduty_event("trigger", None), "routing_key": key}, path)
    assert (refused.status, refused.body["errors"]) == (400, errors)
    assert len(KEY) != 32


def test_what_is_no_json(h: House) -> None:
    answer = h.client.post(h.url + ALERTS, content=b"{", headers={"content-type": "application/json"})
    body = answer.json()
    assert (answer.status_code, body["status"], body["errors"][0]) == (400, "Unrecognized object", "JSON parse error")
    assert body["message"] == "Event object format is unrecognized"


def test_a_wrong_type_names_its_field(h: House) -> None:
    refused = _post(h, {**pagerduty_event("trigger", None), "links": [{"text": "no href"}]})
    assert refused.status == 400 and "links[0].href" in refused.body["errors"][0]


@pytest.mark.parametrize(
    ("details", "held"),
    [
        ("Triggered metrics:\n\ncpu: 97", {"details": "Triggered metrics:\n\ncpu: 97"}),
        (["cpu: 97"], {"details": ["cpu: 97"]}),
        ("", None),
        ([], None),
        (None, None),
    ],
)
def test_custom_details_that_are_no_object_keep_no_page_back(same: House, details: Any, held: Any) -> None:
    """`custom_details` may be a text, as PagerDuty accepts it from Grafana:
    https://github.com/grafana/grafana/issues/12115."""
    key, mark = fresh("srv"), len(same.arrived("pagerduty"))
    event = pagerduty_event("trigger", key)
    event["payload"]["custom_details"] = details
    assert _post(same, event).status == 202
    change = {"routing_key": KEY, "payload": {"summary": "Build", "custom_details": details}}
    assert _post(same, change, CHANGES).status == 202
    for made in same.arrives("pagerduty", mark + 2)[mark:]:
        assert made.body["payload"].get("custom_details") == held


@pytest.mark.parametrize("last", [{"b": 2}, {"details": [1]}, {"details": "new"}, {}])
def test_custom_details_take_the_place_of_earlier_ones(same: House, h: House, last: dict[str, Any]) -> None:
    """A later trigger says all of them: neither an older text nor an older detail is told again, whoever is told."""
    key, first = fresh("key"), {"details": "old", "a": 1}
    for there in (same, h):
        _next(there, lambda there=there: _post(there, pagerduty_event("trigger", key, custom_details=first)))
    again = pagerduty_event("trigger", key, custom_details=last)
    assert _next(same, lambda: _post(same, again)).body["payload"]["custom_details"] == last
    told = json.dumps(_next(h, lambda: _post(h, again)).body)
    assert '"old' not in told and '"a"' not in told


def test_a_trigger_with_a_fault_is_not_taken_for_a_change_event() -> None:
    """Where no path tells them apart, an event that has an action is read as an alert event, or refused."""
    dialect = dialects()["pagerduty"]
    with pytest.raises(Problem) as raised:
        command_in(dialect, Operation.CREATE, {"event_action": "trigger", "payload": {"summary": "x"}})
    assert raised.value.faults == ("'payload.source' is missing or blank", "'payload.severity' is missing or blank")
    change = command_in(dialect, Operation.CREATE, {"payload": {"summary": "x"}})
    assert change.patch["category"] == "change"


# --- keys ----------------------------------------------------------------------------------------------------


def test_a_key_is_made_up_told_and_good_for_the_whole_life(h: House) -> None:
    made: list[Sent] = []

    def trigger() -> Sent:
        made.append(_post(h, pagerduty_event("trigger", "", summary=fresh())))
        return made[-1]

    first = _next(h, trigger)
    key = made[0].body["dedup_key"]
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert made[0].body == {"status": "success", "message": "Event processed", "dedup_key": key}
    assert first.body["alertKey"] == key
    for action, word in (("acknowledge", "ACCEPT"), ("resolve", "RESOLVE")):
        event = pagerduty_event(action, key)
        arrived = _next(h, lambda event=event: _post(h, event))
        assert (arrived.body["eventType"], arrived.body["alertKey"]) == (word, key)
    again = _next(h, lambda: _post(h, pagerduty_event("trigger", None)))
    assert again.body["alertKey"] not in ("", key)


def test_an_action_on_a_key_that_nobody_opened_here(h: House) -> None:
    """It is answered 202 and sent on: the alert may have been opened before the gateway was in place."""
    key = fresh("unknown")
    told: list[Sent] = []

    def ask() -> Sent:
        told.append(_post(h, pagerduty_event("resolve", key)))
        return told[0]

    arrived = _next(h, ask)
    assert (arrived.body["eventType"], arrived.body["alertKey"]) == ("RESOLVE", key)
    assert told[0].body["dedup_key"] == key


def test_a_resolve_with_a_payload_ends_the_alert_and_changes_nothing_of_it(h: House) -> None:
    """Alertmanager sends the payload again with another summary; it is kept as a comment."""
    key = fresh("key")
    _next(h, lambda: _post(h, pagerduty_event("trigger", key)))
    event = {**pagerduty_event("trigger", key, summary="[RESOLVED] Disk"), "event_action": "resolve"}
    told: list[Sent] = []

    def ask() -> Sent:
        told.append(_post(h, event))
        return told[0]

    assert _next(h, ask).body["eventType"] == "RESOLVE"
    assert any("kept=comment" in line for line in told[0].report), told[0].report


def test_empty_text_is_as_good_as_absent_and_passed_on_as_it_is(same: House) -> None:
    payload: dict[str, Any] = {"component": "", "class": "", "group": "", "custom_details": {}}
    event = pagerduty_event("trigger", fresh("key"), **payload)
    arrived = _next(same, lambda: _post(same, event))
    assert {name: value for name, value in arrived.body.items() if name != "routing_key"} == {
        name: value for name, value in event.items() if name != "routing_key"
    }


def test_a_class_called_up_silences_nothing(h: House) -> None:
    """Here `up` is the name of a metric; in another dialect it means good news, which wakes nobody."""
    event = pagerduty_event("trigger", fresh("key"), **{"class": "up"})
    arrived = _next(h, lambda: _post(h, event))
    assert (arrived.body["severity"], arrived.body["priority"]) == (1, "HIGH")


# --- change events -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"severity": "critical", "class": "deploy", "component": "postgres"}])
def test_a_change_event_pages_nobody(h: House, more: dict[str, Any]) -> None:
    """A change event has low urgency, even where its sender adds fields of alerts."""
    event = {**_change(**more), "event_action": "trigger"}
    arrived = _next(h, lambda: _post(h, event, CHANGES))
    assert (arrived.body["eventType"], arrived.body["summary"]) == ("ALERT", "Build Success")
    assert (arrived.body["severity"], arrived.body["priority"]) == (5, "LOW")


def test_a_change_event_is_answered_without_a_key(tmp_path: Path) -> None:
    with called(tmp_path, {"there": "ilert"}) as h:
        answer = _post(h, _change(), CHANGES)
        assert (answer.status, answer.body) == (202, {"status": "success", "message": "Change event processed"})


def test_a_change_event_is_one_at_pagerduty_too(same: House) -> None:
    """It is sent on byte for byte but for the routing key; a missing source is not made up."""
    for event in (_change(), {"routing_key": KEY, "payload": {"summary": "s", "own": 1}, "links": [{"href": "h"}]}):
        arrived = _next(same, lambda event=event: _post(same, event, CHANGES))
        assert arrived.path == "/v2/change/enqueue"
        assert arrived.body == {**event, "routing_key": arrived.body["routing_key"]}
        assert arrived.body["routing_key"] != KEY


def test_a_change_event_does_not_stay_open_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when PagerDuty would show it no longer: its sender has no key to end it by."""
    monkeypatch.setattr(pagerduty, "CHANGE_LASTS", timedelta(milliseconds=1))
    both = '[[routes]]\nto = ["there", "same"]\n'
    with called(tmp_path, {"there": "ilert", "same": "pagerduty"}, routes=both) as h:
        _post(h, _change(), CHANGES)
        h.wait_for(lambda: [event for event in h.arrived("ilert") if event.body["eventType"] == "RESOLVE"])
        settled(h, count=4)
        assert [event.path for event in h.arrived("pagerduty")] == ["/v2/change/enqueue"]


def test_a_change_event_with_faults(h: House) -> None:
    refused = _post(h, {"routing_key": KEY, "payload": {"source": "x"}}, CHANGES)
    assert (refused.status, refused.body["errors"]) == (400, ["'payload.summary' is missing or blank"])
    assert _post(h, _change(source=5), CHANGES).status == 400


# --- limits --------------------------------------------------------------------------------------------------


def test_a_summary_is_cut_at_1024_characters_and_carried_whole(tmp_path: Path) -> None:
    with called(tmp_path, {"there": "pagerduty"}) as h:
        whole = "é" * 1025
        sent = h.call("POST", "/uptinio/alerts", uptinio_alert(whole))
        assert sent.status == 201 and any("approximated=summary" in line for line in sent.report), sent.report
        payload = h.arrives("pagerduty", 1)[0].body["payload"]
        assert payload["summary"] == "é" * 1023 + "…"
        assert payload["custom_details"]["alert_gateway"]["fields"]["summary"] == whole


def test_a_key_longer_than_255_characters_stays_one_key(tmp_path: Path) -> None:
    with called(tmp_path, {"there": "pagerduty"}) as h:
        long = "k" * 300
        for number, (word, key) in enumerate([("ALERT", long), ("ALERT", long + "2"), ("RESOLVE", long)]):
            text = {"summary": "s"} if word == "ALERT" else {}
            assert h.call("POST", "/ilert/api/events", ilert_event(word, key, **text), key=None).status == 202
            h.arrives("pagerduty", number + 1)
        first, second, last = [one.body["dedup_key"] for one in h.arrived("pagerduty")]
        assert first == last != second
        assert len(first) == len(second) == 255
    assert fitted_key("k" * 255) == "k" * 255


def _call_with(body: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """The request of a create, and how the call ends once the request is accepted."""
    sending = Sending(
        operation=Operation.CREATE, at=datetime.now(UTC), body=body, patch={}, key="k", ids={}, seen={}, **more
    )
    call = dialects()["pagerduty"].outbound.calls[Operation.CREATE](sending)
    request = next(call)
    with pytest.raises(StopIteration) as ended:
        call.send(Response(202))
    return request, ended.value.value


def test_the_largest_fields_are_cut_until_the_event_is_taken() -> None:
    """The limit is 512 KB: the carried object is left out first, then the largest field is cut, and the page is
    sent."""
    details = {"log": "x" * 600_000, "short": "stays", "alert_gateway": {"fields": {"team": "db"}}}
    event = {"payload": {"summary": "s", "source": "x", "severity": "error", "custom_details": details}}
    request, ended = _call_with(event)
    sent = request.body["payload"]["custom_details"]
    assert len(json.dumps(request.body, ensure_ascii=False).encode()) < 512_000
    assert len(sent["log"]) > 500_000 and sent["log"].endswith("x…")
    assert sent["short"] == "stays" and "alert_gateway" not in sent
    assert {"custom", "team"} == ended.altered.keys()
    assert len(details["log"]) == 600_000, "the alert itself is left as it is"


@pytest.mark.parametrize(
    "event",
    [
        {"payload": {"summary": "s", "source": "é" * 600_000, "severity": "error"}},
        {"payload": {"summary": "s", "source": "x", "severity": "error"}, "links": [{"href": "x" * 600_000}]},
        {
            "payload": {
                "summary": "s",
                "source": "x",
                "severity": "error",
                "custom_details": {"a": [{"b": "x" * 600_000}]},
            }
        },
        {
            "payload": {"summary": "s", "source": "x", "severity": "error"},
            **{f"n{i}": "\x00" * 9000 for i in range(20)},
        },
    ],
)
def test_any_event_comes_below_the_limit(event: dict[str, Any]) -> None:
    request, ended = _call_with(event)
    assert len(json.dumps(request.body, ensure_ascii=False).encode()) < 512_000
    assert ended.altered
    assert request.body["payload"]["source"] and request.body["payload"]["severity"] == "error"
    assert isinstance(request.body.get("links", []), list), "anything else there is refused with a 400"


def test_it_is_not_the_fields_but_their_number() -> None:
    """An event with a hundred thousand small fields is reduced to the required ones, in little time."""
    payload = {
        "summary": "s",
        "source": "x",
        "severity": "error",
        "custom_details": {str(i): i for i in range(100_000)},
    }
    request, ended = _call_with({"payload": payload, "client": "c"})
    payload.pop("custom_details")
    assert request.body == {"event_action": "trigger", "dedup_key": "k", "payload": payload}
    assert {"custom", "extensions.pagerduty.client"} <= ended.altered.keys()


def test_images_without_https_are_carried_instead(tmp_path: Path) -> None:
    with called(tmp_path, {"there": "pagerduty"}) as h:
        images = [{"src": "http://a/1.png"}, {"src": "https://a/2.png"}]
        event = ilert_event("ALERT", "k", summary="s", images=images)
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        body = h.arrives("pagerduty", 1)[0].body
        assert body["images"] == images[1:]
        assert body["payload"]["custom_details"]["alert_gateway"]["fields"]["images"] == images


def test_a_link_with_a_blank_address_keeps_no_page_back(same: House) -> None:
    """PagerDuty refuses an event that has one; its sender's template gave nothing there."""
    links = [{"href": "", "text": "Runbook"}, {"href": "https://wiki/1"}, {"href": " "}]
    event = ilert_event("ALERT", fresh("key"), summary="s", links=links)
    body = _next(same, lambda: same.call("POST", "/ilert/api/events", event, key=None)).body
    assert body["links"] == links[1:2]
    assert body["payload"]["custom_details"]["alert_gateway"]["fields"]["links"] == links


def test_what_is_left_out_of_a_trigger_is_left_out_of_its_resolve(same: House) -> None:
    """Alertmanager says everything again at the end. Refused then, the incident would stay open."""
    links = [{"href": "", "text": "Runbook"}, {"href": "https://wiki/1"}]
    images = [{"src": "http://a/1.png"}, {"src": "https://a/2.png"}]
    event = {**pagerduty_event("trigger", fresh("key"), summary="s" * 1025), "links": links, "images": images}
    for word in ("trigger", "acknowledge", "resolve"):
        body = _next(same, lambda word=word: _post(same, {**event, "event_action": word})).body
        assert (body["links"], body["images"], len(body["payload"]["summary"])) == (links[1:], images[1:], 1024)


def test_a_null_in_a_link_is_absent(same: House) -> None:
    """ilert's Rust client writes null for what it has not set; PagerDuty documents texts alone."""
    event = {**ilert_event("ALERT", fresh("key"), summary="s"), "links": [{"href": "https://wiki/1", "text": None}]}
    body = _next(same, lambda: same.call("POST", "/ilert/api/events", event, key=None)).body
    assert body["links"] == [{"href": "https://wiki/1"}]


# --- the upstream --------------------------------------------------------------------------------------------


def _refusal(*errors: str) -> dict[str, Any]:
    return {"status": "invalid event", "message": "Event object is invalid", "errors": list(errors)}


@pytest.mark.parametrize(
    "said",
    [
        "Invalid routing key",
        "'routing_key' is missing or blank",
        "'routing_key' cannot contain non-alphanumeric characters.",
        "Length of 'routing_key' is incorrect (should be 32 characters)",
    ],
)
def test_a_routing_key_that_pagerduty_does_not_know_holds_the_upstream(tmp_path: Path, said: str) -> None:
    """PagerDuty answers 400, as for a bad event, but this is never a verdict on an alert."""
    with (
        chaos(say(400, _refusal(said))) as upstream,
        before(tmp_path, table("there", upstream.url, "pagerduty")) as h,
    ):
        assert _post(h, pagerduty_event("trigger", "k")).status == 202
        h.wait_for(lambda: h.gateway.dispatcher and h.gateway.dispatcher.is_open("there"))
        assert [row.state for row in outbox(h)] == ["waiting"]


def test_an_event_that_pagerduty_refuses_is_a_dead_letter(tmp_path: Path) -> None:
    with (
        chaos(say(400, _refusal("'payload.source' is missing or blank"))) as upstream,
        before(tmp_path, table("there", upstream.url, "pagerduty")) as h,
    ):
        assert _post(h, pagerduty_event("trigger", "k")).status == 202
        [dead] = settled(h, "dead")
        assert "'payload.source' is missing or blank" in dead.reason


def test_a_throttled_event_is_sent_again(tmp_path: Path) -> None:
    answers = iter([say(429, {"status": "throttle exceeded"}), say(500), OK])
    with (
        chaos(lambda got: next(answers, OK)) as upstream,
        before(tmp_path, table("there", upstream.url, "pagerduty")) as h,
    ):
        assert _post(h, pagerduty_event("trigger", "k")).status == 202
        [row] = settled(h)
        assert row.attempts == 3
        assert [got.body["routing_key"] for got in upstream.got] == ["upstream-key"] * 3


def test_a_routing_key_set_by_the_route_goes_with_every_event_of_the_alert(tmp_path: Path) -> None:
    """PagerDuty drops an acknowledgement under another routing key than its trigger's. A caller's own `routingKey`, in
    another vendor's sense of an escalation, is not used as PagerDuty's."""
    own = "R" + "0" * 31
    routes = '[[routes]]\nfrom = ["uptinio"]\nto = ["there"]\n'
    routes += f'[[routes]]\nto = [{{ upstream = "there", set = {{ routing_key = "{own}" }} }}]'
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "pagerduty"), routes=routes) as h:
        for word, more in (("ALERT", {"summary": "s", "routingKey": "team-a"}), ("ACCEPT", {}), ("RESOLVE", {})):
            assert h.call("POST", "/ilert/api/events", ilert_event(word, "k", **more), key=None).status == 202
        settled(h, count=3)
        assert [got.body["routing_key"] for got in upstream.got] == [own] * 3
        assert h.call("POST", "/uptinio/alerts", uptinio_alert("s")).status == 201
        settled(h, count=4)
        assert upstream.got[3].body["routing_key"] == "upstream-key"


def test_a_wrong_routing_key_of_a_route_holds_nobody_else(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = [{ upstream = "there", set = { routing_key = "mistyped" } }]'
    with (
        chaos(say(400, _refusal("Invalid routing key"))) as upstream,
        before(tmp_path, table("there", upstream.url, "pagerduty"), routes=routes) as h,
    ):
        assert _post(h, pagerduty_event("trigger", "k")).status == 202
        settled(h, "dead")
        assert h.gateway.dispatcher and not h.gateway.dispatcher.is_open("there")


def test_other_words_for_severities_leave_the_fallback() -> None:
    """A severity is required: an alert without one gets PagerDuty's `error`, also where an upstream configures severity
    words of its own."""
    more = 'severity = { out = ["critical", "critical", "critical", "error", "error", "warning", "info", "info"] }\n'
    config = parse(
        inbound_tables(["uptinio"]) + "\n" + upstream_table("there", "pagerduty", "http://127.0.0.1:9", more=more)
    )
    dialect = dialects()["uptinio"]
    asked = command_in(dialect, Operation.CREATE, uptinio_alert("s"))
    [request] = rehearse(asked, dialect, config.upstreams["there"]).requests
    assert isinstance(request.body, dict) and request.body["payload"]["severity"] == "error"
    [usual] = rehearse(asked, dialect, bare_upstream(dialects()["pagerduty"])).requests
    assert isinstance(usual.body, dict) and usual.body["payload"]["severity"] == "error"


@pytest.mark.parametrize("word", ["trigger", "resolve"])
def test_a_key_under_the_name_that_v1_has_for_it_is_told_to_nobody(h: House, same: House, word: str) -> None:
    """It lets its caller in, and is neither kept nor passed on: v2 has no such field, and would not have dropped it."""
    event = {**pagerduty_event("trigger", fresh("key")), "routing_key": None, "service_key": KEY}
    for there in (h, same):
        arrived = [_next(there, lambda there=there: _post(there, event))]
        if word == "resolve":
            arrived += [_next(there, lambda there=there: _post(there, {**event, "event_action": word}))]
        assert KEY not in json.dumps([one.body for one in arrived])
        newest = max(outbox(there), key=lambda delivery: delivery.id)
        assert [fate["fate"] for fate in newest.fates if fate["field"] == "service_key"] == ["dropped"]


def test_a_routing_key_in_the_header_of_older_clients(h: House) -> None:
    """The header counts only where the body has no key."""
    event = pagerduty_event("trigger", fresh("key"))
    without = {name: value for name, value in event.items() if name != "routing_key"}
    arrived = _next(h, lambda: h.call("POST", ALERTS, without, key=None, headers={"x-routing-key": KEY}))
    assert arrived.body["alertKey"] == event["dedup_key"]
    wrong = h.call("POST", ALERTS, {**event, "routing_key": "wrong"}, key=None, headers={"x-routing-key": KEY})
    assert wrong.status == 400
