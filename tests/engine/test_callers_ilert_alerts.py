"""ilert's synchronous alert API as callers see it, over HTTP, with ilert and with another vendor behind them.

Expectations follow the vendor's OpenAPI description, https://api.ilert.com/api-docs/, and what its clients rely on.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.callers import behind, called, fresh
from tests.engine.asking_ilert import ILERT, at_ilert, is_refused, listed, raise_alert, read, tell
from tests.engine.pairs import Houses
from tests.harness import House


@pytest.fixture(scope="module", params=[ILERT, behind(ILERT)])
def h(request: pytest.FixtureRequest, fronts: Houses) -> House:
    """A gateway with ilert behind it, then with another vendor."""
    return fronts(request.param)


@pytest.fixture(scope="module")
def one(fronts: Houses) -> House:
    """A gateway with ilert behind it, for behaviour that does not depend on the upstream."""
    return fronts(ILERT)


def test_an_alert_as_the_synchronous_api_shows_it(h: House) -> None:
    """An alert has an integer id, a status, an ISO time, and what the event said."""
    said = {
        "summary": fresh("summary"),
        "details": "long",
        "priority": "LOW",
        "links": [{"href": "https://example.org", "text": "A link"}],
        "images": [{"src": "https://example.org/a.jpeg"}],
        "labels": {"team": "db"},
    }
    alert = raise_alert(h, fresh("key"), **said)
    assert {name: alert.get(name) for name in said} == said
    assert isinstance(alert["id"], int)
    assert alert["id"] < 2**53
    assert alert["status"] == "PENDING"
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", alert["reportTime"])
    assert alert["resolvedOn"] is None
    assert "apiKey" not in alert


def test_accept_and_resolve(h: House) -> None:
    """`PUT …/accept` and `…/resolve` answer with the alert."""
    alert = raise_alert(h, fresh("key"))
    accepted = h.call("PUT", f"/ilert/api/alerts/{alert['id']}/accept")
    assert (accepted.status, accepted.body["id"], accepted.body["status"]) == (200, alert["id"], "ACCEPTED")
    resolved = h.call("PUT", f"/ilert/api/alerts/{alert['id']}/resolve")
    assert (resolved.status, resolved.body["status"]) == (200, "RESOLVED")
    assert resolved.body["resolvedOn"]
    assert read(h, alert["id"])["status"] == "RESOLVED"


def test_what_an_alert_came_through(h: House) -> None:
    """An alert's log entries are served as ilert-go and ilert-js request them, in the types that the former reads:
    numbers are numbers, times are texts."""
    key = fresh("key")
    alert = raise_alert(h, key)
    tell(h, "COMMENT", key, summary="looking at it", comments=[{"creator": "Ann", "content": None}])
    assert h.call("PUT", f"/ilert/api/alerts/{alert['id']}/accept").status == 200
    tell(h, "RESOLVE", key)
    sent = h.call("GET", f"/ilert/api/alerts/{alert['id']}/log-entries")
    assert sent.status == 200, sent.body
    assert [one["text"] for one in sent.body] == [
        "Alert received from ci",
        "Comment from ci: looking at it",
        "Alert accepted from ci",
        "Alert resolved from ci",
    ]
    for one in sent.body:
        assert set(one) == {"id", "timestamp", "logEntryType", "text", "alertId"}
        assert isinstance(one["id"], int) and one["alertId"] == alert["id"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", one["timestamp"]) and one["logEntryType"].endswith("LogEntry")


def test_the_log_is_paged_to_its_end(one: House) -> None:
    """`start-index` and `max-results` of `getAlertsByIdLogEntries` in the vendor's description: 50 by default, at most
    100. A client that reads until a page is empty must come to an end."""
    key = fresh("key")
    alert = raise_alert(one, key)
    for number in range(52):
        tell(one, "COMMENT", key, summary=f"number {number}")

    def found(query: str = "") -> list[str]:
        sent = one.call("GET", f"/ilert/api/alerts/{alert['id']}/log-entries{query}")
        assert sent.status == 200, sent.body
        return [entry["text"].rpartition(": ")[2] for entry in sent.body]

    whole = ["Alert received from ci", *(f"number {number}" for number in range(52))]
    assert found() == whole[:50]
    assert found("?start-index=50") == whole[50:]
    assert found("?start-index=1&max-results=2") == whole[1:3]
    assert found("?start-index=53") == []
    is_refused(one.call("GET", f"/ilert/api/alerts/{alert['id']}/log-entries?max-results=101"), 400, "max-results")


def test_an_alert_is_raised_by_hand(h: House) -> None:
    """`postAlerts` of the vendor's description: answers 201 with the alert, under the key of the Authorization
    header."""
    summary = fresh("by hand")
    said = {
        "summary": summary,
        "details": "it smells",
        "priority": "LOW",
        "links": [{"href": "https://example.org", "text": "A link"}],
    }
    sent = h.call("POST", "/ilert/api/alerts", {**said, "alertSource": {"id": 1243}, "escalationPolicy": None})
    assert sent.status == 201, sent.body
    assert {name: sent.body.get(name) for name in said} == said
    assert (sent.body["status"], sent.body["id"]) == ("PENDING", int(sent.headers["alert-gateway-id"]))
    assert read(h, sent.body["id"])["summary"] == summary
    there = next(iter(h.gateway.config.upstreams.values())).dialect.name
    h.wait_for(lambda: any(summary in str(got.body) for got in h.arrived(there)))
    is_refused(h.call("POST", "/ilert/api/alerts", {"alertSource": {"id": 1243}}), 400, "summary")
    for key in (None, "wrong"):
        is_refused(h.call("POST", "/ilert/api/alerts", {**said, "alertSource": {"id": 1243}}, key=key), 401)


@pytest.mark.parametrize(
    ("query", "whom"),
    [
        ("user=77", "user 77"),
        ("user-id=77", "user 77"),
        ("user-id=jane", "user jane"),
        ("policy=8", "policy 8"),
        ("policy-id=8", "policy 8"),
        ("schedule=9", "schedule 9"),
        ("schedule-id=9", "schedule 9"),
    ],
)
def test_an_alert_is_assigned(one: House, query: str, whom: str) -> None:
    """The assignee's parameter has the name in the vendor's description (`user`) or that of ilert-go and ilert-js
    (`user-id`)."""
    key = fresh("key")
    alert = raise_alert(one, key)
    sent = one.call("PUT", f"/ilert/api/alerts/{alert['id']}/assign?{query}")
    assert (sent.status, sent.body["id"], sent.body["status"]) == (200, alert["id"], "PENDING"), sent.body
    said = at_ilert(one, key, 2)[1]
    assert (said["eventType"], said["comments"][0]["content"]) == ("COMMENT", f"assigned to {whom}")


def test_an_alert_is_assigned_to_somebody(one: House) -> None:
    alert = raise_alert(one, fresh("key"))
    is_refused(one.call("PUT", f"/ilert/api/alerts/{alert['id']}/assign"), 400, "user")
    is_refused(one.call("PUT", "/ilert/api/alerts/1/assign?user=77"), 404)


@pytest.mark.parametrize("rest", ["notifications", "responders", "suggested-responders"])
def test_nobody_is_notified_by_the_gateway(one: House, rest: str) -> None:
    alert = raise_alert(one, fresh("key"))
    sent = one.call("GET", f"/ilert/api/alerts/{alert['id']}/{rest}")
    assert (sent.status, sent.body) == (200, [])
    is_refused(one.call("GET", f"/ilert/api/alerts/1/{rest}"), 404)


def test_accept_and_resolve_reach_the_upstream(one: House) -> None:
    """They are sent as the events that they mean, with the alert's key."""
    key = fresh("key")
    alert = raise_alert(one, key)
    for word in ("accept", "resolve"):
        assert one.call("PUT", f"/ilert/api/alerts/{alert['id']}/{word}").status == 200
    sent = at_ilert(one, key, 3)
    assert [event["eventType"] for event in sent] == ["ALERT", "ACCEPT", "RESOLVE"]
    assert {event["alertKey"] for event in sent} == {key}


def test_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A list is oldest first; it takes `start-index`, `max-results` of at most 100, and `states` or the older
    `state`."""
    with called(tmp_path_factory.mktemp("list"), {"there": "uptinio"}) as h:
        alerts = [raise_alert(h, f"key {number}") for number in range(53)]
        ids = [alert["id"] for alert in alerts]
        tell(h, "ACCEPT", "key 1")
        tell(h, "RESOLVE", "key 2")

        def found(query: str) -> list[int]:
            return [alert["id"] for alert in listed(h, query)]

        assert found("") == ids[:50]
        assert found("?max-results=100") == ids
        assert found("?start-index=50") == ids[50:]
        assert found("?start-index=2&max-results=3") == ids[2:5]
        assert found("?start-index=53") == []
        assert found("?states=ACCEPTED") == [ids[1]]
        assert found("?states=ACCEPTED,RESOLVED") == ids[1:3]
        assert found("?states=ACCEPTED&states=RESOLVED") == ids[1:3]
        assert found("?state=RESOLVED") == found("?states=resolved") == [ids[2]]
        assert found("?states=PENDING&max-results=100") == [ids[0], *ids[3:]]
        for query, count in (("", 53), ("?states=ACCEPTED,RESOLVED", 2), ("?states=PENDING", 51)):
            counted = h.call("GET", f"/ilert/api/alerts/count{query}")
            assert (counted.status, counted.body) == (200, {"count": count}), "https://api.ilert.com/api-docs/"


def test_a_period_is_of_when_alerts_were_reported(tmp_path: Path) -> None:
    """An alert that was reported before a period and changed in it is not listed: "Pagination should be done based on
    the `reportTime` field using the parameters `from` and `until`". https://api.ilert.com/api-docs/"""
    with called(tmp_path, {"there": "uptinio"}) as h:
        made = [raise_alert(h, f"key {number}") for number in range(3)]
        tell(h, "ACCEPT", "key 0")
        since = made[1]["reportTime"]
        assert made[0]["reportTime"] < since
        assert [one["id"] for one in listed(h, f"?from={since}")] == [one["id"] for one in made[1:]]
        assert [one["id"] for one in listed(h, f"?from={since}&max-results=1&start-index=1")] == [made[2]["id"]]
        assert h.call("GET", f"/ilert/api/alerts/count?from={since}&states=ACCEPTED").body == {"count": 0}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("max-results=101", "max-results"),
        ("max-results=0", "max-results"),
        ("max-results=some", "max-results"),
        ("start-index=-1", "start-index"),
        ("states=OPEN", "states"),
    ],
)
def test_a_query_that_makes_no_sense(h: House, query: str, names: str) -> None:
    """Answers 400; `max-results` over 100 is not clamped here."""
    is_refused(h.call("GET", f"/ilert/api/alerts?{query}"), 400, names)


def test_an_unknown_alert(h: House) -> None:
    """Answers 404 in the vendor's words."""
    for method, path in [("GET", ""), ("PUT", "/accept"), ("PUT", "/resolve")]:
        is_refused(h.call(method, f"/ilert/api/alerts/1{path}"), 404)
