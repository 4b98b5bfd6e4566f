"""Callers that still send events of PagerDuty's older API, v1, with ilert or PagerDuty as the upstream.

Source: https://developer.pagerduty.com/docs/events-api-v1/trigger-events/
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.callers import fresh
from tests.engine.pairs import Houses
from tests.harness import KEY, UPSTREAM_KEY, House, Sent


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it."""
    return fronts("ilert")


@pytest.fixture(scope="module")
def same(fronts: Houses) -> House:
    """A gateway with PagerDuty behind it."""
    return fronts("pagerduty")


def _post(h: House, event: Any, path: str) -> Sent:
    return h.call("POST", path, event, key=None)


FIRST = "/pagerduty/generic/2010-04-15/create_event.json"


def _first(word: str, key: str | None = None, **more: Any) -> dict[str, Any]:
    return {"service_key": KEY, "event_type": word, **({"incident_key": key} if key else {}), **more}


@pytest.mark.parametrize("path", [FIRST, FIRST.removeprefix("/pagerduty"), f"{FIRST}/"])
def test_an_event_of_v1_through_its_life(h: House, path: str) -> None:
    """The page's sample is read as pypd, pygerduty, Salt and others post it, some with a slash at the end of the path;
    the answer is 200 and names the key. https://developer.pagerduty.com/docs/events-api-v1/trigger-events/"""
    contexts = [
        {"type": "link", "href": "http://acme.pagerduty.com", "text": "View in custom tool"},
        {"type": "image", "src": "https://chart.example/1.png"},
        {"type": "unheard of"},
        {"type": "link", "href": "http://acme.pagerduty.com", "text": 7},
    ]
    said: dict[str, Any] = {
        "description": "FAILURE for srv01",
        "client": "Sample",
        "client_url": None,
        "contexts": contexts,
        "region": "eu",
        "links": "of no meaning in v1",
    }
    mark = len(h.arrived("ilert"))
    opened = _post(h, _first("trigger", details={"load avg": 0.75}, **said), path)
    key = opened.body["incident_key"]
    assert (opened.status, opened.body["status"], opened.body["message"]) == (200, "success", "Event processed")
    for word in ("acknowledge", "resolve"):
        assert _post(h, _first(word, key), path).body["incident_key"] == key
    made, taken, ended = h.arrives("ilert", mark + 3)[mark:]
    assert [one.body["eventType"] for one in (made, taken, ended)] == ["ALERT", "ACCEPT", "RESOLVE"]
    assert {one.body["alertKey"] for one in (made, taken, ended)} == {key}
    assert (made.body["summary"], made.body["severity"]) == ("FAILURE for srv01", 2)
    assert made.body["links"] == [{"href": "http://acme.pagerduty.com", "text": "View in custom tool"}]
    assert made.body["images"] == [{"src": "https://chart.example/1.png"}]
    assert made.body["customDetails"]["load avg"] == 0.75
    assert "nowhere" not in json.dumps(made.body)
    carried = made.body["customDetails"]["alert_gateway"]["fields"]
    assert carried["extensions.pagerduty.contexts"] == contexts[2:], "what nobody else has a place for is not lost"
    assert carried["extensions.pagerduty.region"] == "eu"


def test_a_text_among_the_details_of_v1(h: House) -> None:
    """Salt sends `details` as a text; its content type is a form's, as with other senders that use urllib."""
    mark = len(h.arrived("ilert"))
    event = json.dumps(_first("trigger", fresh("srv"), description="It is down", details="Since the last deployment"))
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert h.client.post(h.url + FIRST, content=event, headers=kind).status_code == 200
    assert h.arrives("ilert", mark + 1)[mark].body["details"].startswith("Since the last deployment")


def test_an_event_of_v1_is_one_of_v2_at_the_vendor(same: House) -> None:
    """It is sent with all fields that v2 requires and v1 lacks. So is what an end says: netdata's tells the value."""
    key, mark = fresh("srv"), len(same.arrived("pagerduty"))
    _post(same, _first("trigger", key, description="It is down", client="Sample"), FIRST)
    _post(same, _first("acknowledge", key), FIRST)
    _post(same, _first("resolve", key, description="It is up", details={"load": "0.1"}), FIRST)
    made, taken, ended = same.arrives("pagerduty", mark + 3)[mark:]
    payload = {"summary": "It is down", "source": "ci", "severity": "error"}
    assert (made.path, made.body["payload"], made.body["client"]) == ("/v2/enqueue", payload, "Sample")
    assert taken.body == {"routing_key": UPSTREAM_KEY, "event_action": "acknowledge", "dedup_key": key}
    assert (ended.body["event_action"], ended.body["dedup_key"]) == ("resolve", key)
    said = {"summary": "It is up", "source": "unknown", "severity": "error", "custom_details": {"load": "0.1"}}
    assert ended.body["payload"] == said
    _post(same, _first("trigger", key, description="It is down"), FIRST)
    _post(same, _first("resolve", key, description="It is up", client="Sample"), FIRST)
    assert same.arrives("pagerduty", mark + 5)[mark + 4].body["payload"]["source"] == "Sample"
    assert not {"service_key", "incident_key", "event_type"} & (made.body.keys() | ended.body.keys())


def test_a_blank_key_of_v1_is_none(h: House) -> None:
    """Two problems are two, and each is told the key that was made up for it."""
    posted = [_post(h, _first("trigger", description="It is down", incident_key=" "), FIRST) for _ in range(2)]
    first, second = (one.body["incident_key"].strip() for one in posted)
    assert first and second and first != second


def test_a_number_as_the_key_of_v1(same: House) -> None:
    """Sentry's plugin sends the number of its issue: refused, it would page nobody. The alert is found by it again."""
    number, mark = 4_611_686_018_427_387_905, len(same.arrived("pagerduty"))
    opened = _post(same, {**_first("trigger", description="boom"), "incident_key": number}, FIRST)
    assert (opened.status, opened.body["incident_key"]) == (200, str(number))
    assert _post(same, {**_first("resolve"), "incident_key": number}, FIRST).status == 200
    sent = [(one.body["event_action"], one.body["dedup_key"]) for one in same.arrives("pagerduty", mark + 2)[mark:]]
    assert sent == [("trigger", str(number)), ("resolve", str(number))]


@pytest.mark.parametrize(
    ("event", "errors"),
    [
        (_first("trigger"), ["Description is missing or blank"]),
        (_first("resolve"), ["Incident key is missing or blank"]),
        (_first("alarm"), ["event_type is invalid (must be one of: trigger acknowledge resolve)"]),
        ({"service_key": KEY}, ["Event type is missing or blank"]),
        (_first("trigger", description=7), ["Description is invalid (must be a string)"]),
    ],
)
def test_what_is_wrong_with_an_event_of_v1(h: House, event: dict[str, Any], errors: list[str]) -> None:
    sent = _post(h, event, FIRST)
    assert (sent.status, sent.body["status"], sent.body["errors"]) == (400, "invalid event", errors)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (None, "Service key is missing or blank"),
        ("a" * 20, "Service key is the wrong length (should be 32 characters)"),
        ("a" * 32, "Invalid service key"),
    ],
)
def test_a_key_that_nobody_has_is_called_as_in_v1(h: House, key: str | None, error: str) -> None:
    """The message names `service_key`, as in grafana/grafana#8979 and influxdata/kapacitor#1785: senders of v1 have no
    `routing_key`."""
    refused = _post(h, {"event_type": "trigger", "description": "Disk full", "service_key": key}, FIRST)
    wanted = {"status": "invalid event", "message": "Event object is invalid", "errors": [error]}
    assert (refused.status, refused.body) == (400, wanted)
