"""ilert's events API and its synchronous alert API as callers see them, over HTTP, with ilert and with another vendor
behind them.

Expectations follow the page "Creating alerts through events", the vendor's OpenAPI description, and what its clients
rely on: the Go client cannot read an empty body, others want exactly 202.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.callers import OTHER, behind, called, fresh, ilert_event
from tests.harness import KEY, UPSTREAM_KEY, House, Sent

ILERT = "ilert"


@pytest.fixture(scope="module", params=[ILERT, behind(ILERT)])
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it, then with another vendor."""
    with called(tmp_path_factory.mktemp("ilert"), {"there": request.param}) as standing:
        yield standing


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it, for behaviour that does not depend on the upstream."""
    with called(tmp_path_factory.mktemp("one"), {"there": ILERT}) as standing:
        yield standing


def _post(h: House, event: Any, path: str = "/api/events") -> Sent:
    return h.call("POST", path, event, key=None)


def _taken(sent: Sent) -> None:
    assert (sent.status, sent.body) == (202, {}), sent.body
    assert sent.headers["content-type"] == "application/json"


def _event(h: House, word: str, key: str | None, **fields: Any) -> Sent:
    sent = _post(h, ilert_event(word, key, **fields))
    _taken(sent)
    return sent


def _alert(h: House, key: str, **fields: Any) -> dict[str, Any]:
    """Raises an alert and reads it over the synchronous API, by the gateway's own id."""
    sent = _event(h, "ALERT", key, **{"summary": fresh("summary"), **fields})
    return _get(h, sent.headers["alert-gateway-id"])


def _get(h: House, name: Any) -> dict[str, Any]:
    sent = h.call("GET", f"/ilert/api/alerts/{name}")
    assert sent.status == 200, sent.body
    found: dict[str, Any] = sent.body
    return found


def _list(h: House, query: str = "?max-results=100", **how: Any) -> list[dict[str, Any]]:
    sent = h.call("GET", f"/ilert/api/alerts{query}", **how)
    assert sent.status == 200, sent.body
    assert isinstance(sent.body, list), "a bare array"
    return sent.body


def _sent(h: House, key: str, count: int) -> list[dict[str, Any]]:
    """Waits for this many events at ilert for a key, or for that key with a suffix, and returns them."""
    form = re.compile(rf"{re.escape(key)}(?!\d)", re.IGNORECASE)

    def found() -> list[dict[str, Any]]:
        return [one.body for one in h.arrived(ILERT) if form.match(one.body.get("alertKey", ""))]

    h.wait_for(lambda: len(found()) >= count)
    return found()


def _is_refused(sent: Sent, status: int, says: str = "") -> None:
    """Asserts a refusal in the vendor's error object, whose `status` equals the answer's."""
    assert sent.status == status, sent.body
    assert {"status", "message", "code"} <= set(sent.body)
    assert sent.body["status"] == status
    assert isinstance(sent.body["code"], str)
    assert says in sent.body["message"], sent.body


# --- events --------------------------------------------------------------------------------------------------

PATHS = ["/api/events", "/api/v1/events", "/api/v1/events%20", "/ilert/api/events", "/ilert/api/v1/events"]


@pytest.mark.parametrize("path", PATHS)
def test_every_event_type(h: House, path: str) -> None:
    """Each event type is answered 202 with `{}`, on every path that the page names."""
    key = fresh("key")
    _taken(_post(h, ilert_event("ALERT", key, summary=key, details="", priority="HIGH"), path))
    for word in ("ACCEPT", "COMMENT", "RESOLVE"):
        _taken(_post(h, ilert_event(word, key, summary=word), path))


@pytest.mark.parametrize("name", ["apiKey", "integrationKey"])
def test_either_name_of_the_credential(h: House, name: str) -> None:
    """The page says apiKey, the newer documentation integrationKey."""
    _taken(_post(h, {name: KEY, "eventType": "ALERT", "summary": fresh()}))
    _is_refused(_post(h, {name: "wrong", "eventType": "ALERT", "summary": fresh()}), 401)


def test_both_names_of_the_credential(h: House) -> None:
    """The two names may both be given with equal values; different values are answered 400."""
    event = {"eventType": "ALERT", "summary": fresh()}
    _taken(_post(h, {"apiKey": KEY, "integrationKey": KEY, **event}))
    _is_refused(_post(h, {"apiKey": KEY, "integrationKey": OTHER, **event}), 400)
    _is_refused(_post(h, {"apiKey": KEY, "integrationKey": "wrong", **event}), 400)


KEYED = ["/api/events", "/api/v1/events", "/api/v1/events/kubernetes", "/api/v1/events/push"]


@pytest.mark.parametrize("path", KEYED)
def test_the_credential_in_the_path(h: House, path: str) -> None:
    """The key may be in the path, as in the samples of https://docs.ilert.com/developer-docs/client-libraries, those of
    ilert's agent for Kubernetes, which has it in the body too, and those of kwatch."""
    key, event = (
        fresh("key"),
        {"eventType": "ALERT", "summary": fresh("summary"), "message": "more", "priority": "HIGH"},
    )
    _taken(_post(h, {**event, "alertKey": key}, f"{path}/{KEY}"))
    _taken(_post(h, {"eventType": "ACCEPT", "alertKey": key, "apiKey": KEY}, f"/ilert{path}/{KEY}"))
    [shown] = [one for one in h.call("GET", "/ilert/api/alerts?max-results=100").body if one.get("alertKey") == key]
    assert (shown["summary"], shown["status"], shown["priority"]) == (event["summary"], "ACCEPTED", "HIGH")
    _taken(_post(h, {"eventType": "RESOLVE", "alertKey": key}, f"{path}/{KEY}"))
    assert _post(h, event, f"{path}/nobodys").status == 401
    differ = _post(h, {**event, "apiKey": OTHER}, f"{path}/{KEY}")
    assert (differ.status, differ.body["message"]) == (400, "the request has two different credentials")


def test_an_event_as_keep_posts_it(one: House) -> None:
    """Keep posts without the version in the path, with a blank behind the key, and with an empty value for every field
    that it does not fill; it takes any answer for success, so what is not served is lost."""
    key, said = fresh("key"), {"details": "", "priority": "HIGH", "images": [], "links": [], "customDetails": {}}
    for word in ("ALERT", "ACCEPT", "RESOLVE"):
        event = {"eventType": word, "summary": "Disk full", "alertKey": key, **said}
        _taken(_post(one, event, f"/api/events/keep/{KEY}%20"))
    _taken(_post(one, {**event, "eventType": "ALERT", "alertKey": ""}, f"/api/events/keep/{KEY}%20"))
    _is_refused(_post(one, event, "/api/events/keep/nobodys%20"), 401)


def test_what_is_no_event_at_the_path_of_an_integration(one: House) -> None:
    """A body in another integration's format is refused with a message that says what is accepted."""
    sent = _post(one, {"alert": "disk", "severity": "CRITICAL"}, f"/api/v1/events/netdata/{KEY}")
    assert sent.status == 400 and sent.body["message"].startswith("eventType: is required: accepted here are")
    for path in ("/api/v1/events/nagios", "/ilert/api/v1/events/icinga"):
        xml = one.client.post(one.url + path, content=b"<event/>", headers={"content-type": "application/xml"})
        assert xml.status_code == 404, "their plugins would throw away what is refused with 400 or 401"


def _macros(**more: str) -> dict[str, str]:
    """A problem as Zabbix's media type posts it; a macro without a value stays unexpanded."""
    macros = {
        ".ILERT.INCIDENT.SUMMARY": "",
        "ALERT.MESSAGE": "Problem started at 10:00",
        "EVENT.ID": "4711",
        "EVENT.NAME": "Disk full",
        "EVENT.NSEVERITY": "4",
        "EVENT.UPDATE.ACTION": "{EVENT.UPDATE.ACTION}",
        "EVENT.UPDATE.STATUS": "0",
        "EVENT.VALUE": "1",
        "HOST.NAME": "db-1",
        "ITEM.NAME2": "*UNKNOWN*",
        "TRIGGER.URL": "https://wiki/disk",
        "ZABBIX.URL": "{$ZABBIX.URL}",
    }
    return {**macros, **{name.replace("_", "."): value for name, value in more.items()}}


def test_what_zabbix_says_of_a_problem(one: House) -> None:
    """A problem's begin, update and end are read; the media type takes only 200 with JSON as success."""

    def said(**more: str) -> None:
        sent = _post(one, _macros(**more), f"/api/v1/events/zabbix-mt/{KEY}")
        assert (sent.status, sent.body) == (200, {}), sent.body

    update = {"EVENT_UPDATE_STATUS": "1", "EVENT_UPDATE_ACTION": "commented", "ALERT_MESSAGE": "Ann: looking"}
    said()
    said(**update)
    said(**{**update, "EVENT_UPDATE_ACTION": "acknowledged, commented"})
    said(**{**update, "EVENT_UPDATE_ACTION": "unacknowledged"})
    said(EVENT_VALUE="0")
    opened, noted, taken, back, over = _sent(one, "zabbix-4711", 5)
    assert (opened["eventType"], opened["summary"], opened["severity"]) == ("ALERT", "Disk full on db-1", 2)
    assert opened["details"].startswith("Problem started at 10:00")
    assert opened["links"] == [{"href": "https://wiki/disk", "text": "Trigger"}]
    kept = {name for name in opened["customDetails"] if name != "alert_gateway"}
    assert {"EVENT.ID", "HOST.NAME"} <= kept and not kept & {"ITEM.NAME2", "ZABBIX.URL", "EVENT.UPDATE.ACTION"}
    assert [one["eventType"] for one in (noted, taken, back, over)] == ["COMMENT", "ACCEPT", "COMMENT", "RESOLVE"]
    assert "Ann: looking" in json.dumps(noted)


@pytest.mark.parametrize(("field", "value"), [("EVENT_ID", "{EVENT.ID}"), ("EVENT_VALUE", "2"), ("EVENT_VALUE", "")])
def test_what_zabbix_cannot_have_meant(one: House, field: str, value: str) -> None:
    sent = _post(one, _macros(**{field: value}), f"/api/v1/events/zabbix-mt/{KEY}")
    assert sent.status == 400 and sent.body["message"].startswith(field.replace("_", "."))


def test_an_authorization_header_on_an_event_is_ignored(h: House) -> None:
    """Clients may send one; the page says that none is needed."""
    event = ilert_event("ALERT", None, summary=fresh())
    headers = {"authorization": "Bearer something-else"}
    _taken(h.call("POST", "/api/events", event, key=None, headers=headers))
    unkeyed = {"eventType": "ALERT", "summary": fresh()}
    _is_refused(h.call("POST", "/api/events", unkeyed, key=None, headers=headers), 401)


def test_no_credential(h: House) -> None:
    """Answers 401 in the vendor's words."""
    _is_refused(_post(h, {"eventType": "ALERT", "summary": "x"}), 401)
    _is_refused(_post(h, {"apiKey": None, "eventType": "ALERT", "summary": "x"}), 401)
    _is_refused(_post(h, {"apiKey": "", "eventType": "ALERT", "summary": "x"}), 401)
    for method, path in [("GET", ""), ("GET", "/1"), ("PUT", "/1/accept"), ("PUT", "/1/resolve")]:
        for key in (None, "wrong"):
            _is_refused(h.call(method, f"/ilert/api/alerts{path}", key=key), 401)


@pytest.mark.parametrize("word", ["alert", "Alert", "ALERT", "aLeRt"])
def test_event_types_in_any_case(one: House, word: str) -> None:
    """Event types are read in any case, and sent on in upper case."""
    key = fresh("key")
    _event(one, word, key, summary="x")
    _event(one, "resolve", key)
    assert [event["eventType"] for event in _sent(one, key, 2)] == ["ALERT", "RESOLVE"]


@pytest.mark.parametrize("word", ["low", "Low", " LOW "])
def test_priorities_in_any_case(one: House, word: str) -> None:
    """Priorities are read in any case, and sent on in upper case, also in what is raised by hand."""
    key, summary = fresh("key"), fresh("summary")
    _event(one, "ALERT", key, summary="x", priority=word)
    _event(one, "RESOLVE", key, priority=word)
    assert [event["priority"] for event in _sent(one, key, 2)] == ["LOW", "LOW"]
    assert one.call("POST", "/ilert/api/alerts", {"summary": summary, "priority": word}).body["priority"] == "LOW"
    raised = one.wait_for(lambda: [got.body for got in one.arrived(ILERT) if got.body.get("summary") == summary])
    assert raised[0]["priority"] == "LOW"


def test_a_priority_says_nothing_of_a_severity_that_is_said(one: House) -> None:
    """In a later event of the same alert too, where only the priority differs from what was said before."""
    key = fresh("key")
    said = [(2, "HIGH"), (2, "LOW"), (4, "LOW"), (4, "HIGH")]
    for severity, priority in said:
        _event(one, "ALERT", key, summary="x", severity=severity, priority=priority)
        _sent(one, key, said.index((severity, priority)) + 1)
    assert [(event["severity"], event["priority"]) for event in _sent(one, key, 4)] == said


def test_what_stood_in_a_link_leaves_with_the_link(one: House) -> None:
    """A field of a link that nobody knows is passed on, and puts nothing in the place of a link that is gone: then
    every later event of the alert would be refused for want of an address."""
    key, second = fresh("key"), {"href": "https://wiki/2"}
    said = [[{"href": "https://wiki/1", "own": 1}], [{"href": "https://wiki/1", "text": "1"}, second], [second, second]]
    for number, links in enumerate(said, 1):
        _event(one, "ALERT", key, summary="x", links=links)
        assert _sent(one, key, number)[-1]["links"] == links


def test_incident_key_is_the_older_name(h: House) -> None:
    """`incidentKey` is read as `alertKey`; where both are given, alertKey counts, unless it is empty."""
    key = fresh("key")
    sent = _event(h, "ALERT", None, incidentKey=key, summary="x")
    assert _get(h, sent.headers["alert-gateway-id"])["alertKey"] == key
    assert _event(h, "ACCEPT", key).headers["alert-gateway-id"] == sent.headers["alert-gateway-id"]
    empty = _event(h, "ALERT", "", incidentKey=key, summary="z")
    assert empty.headers["alert-gateway-id"] == sent.headers["alert-gateway-id"]
    both = _event(h, "ALERT", key, incidentKey=fresh("key"), summary="y")
    assert both.headers["alert-gateway-id"] == sent.headers["alert-gateway-id"]


def test_null_is_absent(one: House) -> None:
    """A null counts as absent: the vendor's Rust client sends null for every optional field it does not set."""
    optional = ["details", "alertKey", "priority", "severity", "images", "links", "customDetails", "routingKey"]
    optional += ["labels", "services", "comments", "logs", "integrationKey", "incidentKey"]
    summary = fresh("summary")
    sent = _event(one, "ALERT", None, summary=summary, **dict.fromkeys(optional))
    shown = _get(one, sent.headers["alert-gateway-id"])
    assert shown["summary"] == summary
    event = one.wait_for(lambda: [got.body for got in one.arrived(ILERT) if got.body.get("summary") == summary])[0]
    assert [name for name, value in event.items() if value is None] == []


def test_only_an_alert_needs_a_summary(h: House) -> None:
    """The vendor's own ACCEPT and RESOLVE samples have no summary."""
    _is_refused(_post(h, ilert_event("ALERT", fresh("key"))), 400, "summary")
    _is_refused(_post(h, ilert_event("ALERT", fresh("key"), summary="")), 400, "summary")
    key = fresh("key")
    _event(h, "ALERT", key, summary="x")
    _event(h, "ACCEPT", key)
    _event(h, "COMMENT", key, comments=[{"creator": "me", "content": "looking"}])
    _event(h, "RESOLVE", key)


WRONG = [
    ({"eventType": None}, "eventType"),
    ({"eventType": "REROUTE"}, "eventType"),
    ({"eventType": 3}, "eventType"),
    ({"summary": 7}, "summary"),
    ({"priority": "MEDIUM"}, "priority"),
    ({"severity": 0}, "severity"),
    ({"severity": 6}, "severity"),
    ({"severity": "high"}, "severity"),
    ({"images": [{"href": "https://example.org"}]}, "images[0].src"),
    ({"links": [{"href": "https://example.org"}, {"text": "no address"}]}, "links[1].href"),
    ({"links": "https://example.org"}, "links"),
    ({"customDetails": "text"}, "customDetails"),
    ({"labels": {"a": 1}}, "labels"),
    ({"alertKey": 5}, "alertKey"),
]


@pytest.mark.parametrize(("fields", "names"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_what_is_missing_or_wrong_is_named(one: House, fields: dict[str, Any], names: str) -> None:
    """Answers 400 and names the field; nothing is sent."""
    summary = fresh("refused")
    _is_refused(_post(one, {**ilert_event("ALERT", summary, summary=summary), **fields}), 400, names)
    _event(one, "ALERT", summary, summary=summary)
    assert len(_sent(one, summary, 1)) == 1, "the refused one was not sent"


def test_a_command_without_a_key(h: House) -> None:
    """An ACCEPT, RESOLVE or COMMENT without a key is refused: it refers to no alert."""
    for word in ("ACCEPT", "RESOLVE", "COMMENT"):
        _is_refused(_post(h, ilert_event(word, None)), 400, "alertKey")
        _is_refused(_post(h, ilert_event(word, "  ")), 400, "alertKey")


PAGE_SAMPLE = """{
  "apiKey": "il...", // api key of the alert source (required)
  "customDetails": { "some": { "more": "fields" }} // (optional)
  "routingKey": "abc123", // (optional)
}"""


@pytest.mark.parametrize("body", ["{", "", "[]", "7", PAGE_SAMPLE])
def test_a_body_that_is_none(one: House, body: str) -> None:
    """Answers 400 in the vendor's words; the page's main sample is no JSON."""
    headers = {"content-type": "application/json"}
    answer = one.client.post(f"{one.url}/api/events", content=body, headers=headers)
    assert answer.status_code in ({400} if body in ("{", PAGE_SAMPLE) else {400, 401})
    _is_refused(Sent(answer.status_code, answer.json(), answer.headers), answer.status_code)


# --- keys ----------------------------------------------------------------------------------------------------


def test_keys_are_trimmed_and_compared_without_case(h: House) -> None:
    """Every spelling of a key finds the same alert."""
    key = fresh("Key")
    made = _event(h, "ALERT", f"  {key} ", summary="first").headers["alert-gateway-id"]
    for spelling in (key, key.upper(), key.lower(), f" {key.swapcase()}  "):
        assert _event(h, "ALERT", spelling, summary="again").headers["alert-gateway-id"] == made
    assert _get(h, made)["alertKey"].lower() == key.lower()
    _event(h, "RESOLVE", key.upper())
    assert _get(h, made)["status"] == "RESOLVED"


def test_an_alert_with_a_key_that_is_open_updates_it(h: House) -> None:
    """An ALERT with an open key updates that alert; fields that it leaves out stay."""
    key = fresh("key")
    first = _alert(h, key, summary="disk 80 %", details="on db-1")
    second = _alert(h, key, summary="disk 90 %")
    assert second["id"] == first["id"]
    assert (second["summary"], second["details"], second["status"]) == ("disk 90 %", "on db-1", "PENDING")
    assert [alert["id"] for alert in _list(h) if alert.get("alertKey") == key] == [first["id"]]


def test_after_an_accept_the_key_is_still_open(h: House) -> None:
    """An accepted alert is still open: it is found by its key, and stays accepted."""
    key = fresh("key")
    alert = _alert(h, key)
    _event(h, "ACCEPT", key)
    assert _get(h, alert["id"])["status"] == "ACCEPTED"
    assert _alert(h, key)["id"] == alert["id"]
    _event(h, "RESOLVE", key)
    assert _get(h, alert["id"])["status"] == "RESOLVED"


def test_after_a_resolve_the_same_key_is_a_new_alert(h: House) -> None:
    """The resolved alert stays resolved."""
    key = fresh("key")
    first = _alert(h, key)
    _event(h, "RESOLVE", key)
    second = _alert(h, key)
    assert second["id"] != first["id"]
    assert second["status"] == "PENDING"
    old = _get(h, first["id"])
    assert old["status"] == "RESOLVED"
    assert old["resolvedOn"]


def test_without_a_key_every_alert_is_new(h: House) -> None:
    """There is nothing to group alerts by."""
    ids = {_event(h, "ALERT", None, summary="same").headers["alert-gateway-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("word", ["ACCEPT", "RESOLVE"])
def test_a_command_for_a_key_that_is_not_open(h: House, word: str) -> None:
    """It is answered as by the vendor, and sent on to an upstream that finds alerts by key: the alert may have been
    opened before the gateway was in place."""
    key = fresh("unknown key")
    _event(h, word, key)
    if h.gateway.config.upstreams["there"].dialect.name == ILERT:
        [sent] = _sent(h, key, 1)
        assert (sent["eventType"], sent["alertKey"]) == (word, key)
    assert [alert for alert in _list(h) if alert.get("alertKey") == key] == []


def test_a_resolve_for_a_key_that_is_not_open_reaches_nobody_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An upstream that finds alerts by id is sent nothing: a later create is the first request that arrives there."""
    with called(tmp_path_factory.mktemp("unknown"), {"there": "uptinio"}) as h:
        _event(h, "RESOLVE", "never opened")
        _event(h, "ALERT", "opened", summary="opened")
        [made] = h.arrives("uptinio", 1)
        assert (made.method, made.body["message"]) == ("POST", "opened")


# --- what reaches an upstream of the same dialect ------------------------------------------------------------


def test_the_same_dialect_gets_what_was_sent(one: House) -> None:
    """The body arrives with every field, unknown ones included, and nothing added; only the credential differs."""
    key = fresh("key")
    event = ilert_event(
        "ALERT",
        key,
        summary="Your alert summary",
        details="**bold**",
        priority="HIGH",
        severity=2,
        images=[{"src": "https://example.org/a.jpeg"}],
        links=[{"href": "https://example.org", "text": "A link"}],
        customDetails={"some": {"more": "fields"}},
        routingKey="abc123",
        labels={"team": "db"},
        services=[{"alias": "web"}],
        eventSource={"new": [1, 2]},
    )
    _taken(_post(one, event))
    [sent] = _sent(one, key, 1)
    assert {**sent, "apiKey": KEY} == event
    assert sent["apiKey"] == UPSTREAM_KEY
    assert KEY not in json.dumps([dict(got.headers) for got in one.arrived(ILERT)])


# --- the synchronous API -------------------------------------------------------------------------------------


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
    alert = _alert(h, fresh("key"), **said)
    assert {name: alert.get(name) for name in said} == said
    assert isinstance(alert["id"], int)
    assert alert["id"] < 2**53
    assert alert["status"] == "PENDING"
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", alert["reportTime"])
    assert alert["resolvedOn"] is None
    assert "apiKey" not in alert


def test_accept_and_resolve(h: House) -> None:
    """`PUT …/accept` and `…/resolve` answer with the alert."""
    alert = _alert(h, fresh("key"))
    accepted = h.call("PUT", f"/ilert/api/alerts/{alert['id']}/accept")
    assert (accepted.status, accepted.body["id"], accepted.body["status"]) == (200, alert["id"], "ACCEPTED")
    resolved = h.call("PUT", f"/ilert/api/alerts/{alert['id']}/resolve")
    assert (resolved.status, resolved.body["status"]) == (200, "RESOLVED")
    assert resolved.body["resolvedOn"]
    assert _get(h, alert["id"])["status"] == "RESOLVED"


def test_what_an_alert_came_through(h: House) -> None:
    """An alert's log entries are served as ilert-go and ilert-js request them, in the types that the former reads:
    numbers are numbers, times are texts."""
    key = fresh("key")
    alert = _alert(h, key)
    _event(h, "COMMENT", key, summary="looking at it", comments=[{"creator": "Ann", "content": None}])
    assert h.call("PUT", f"/ilert/api/alerts/{alert['id']}/accept").status == 200
    _event(h, "RESOLVE", key)
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
    alert = _alert(one, key)
    for number in range(52):
        _event(one, "COMMENT", key, summary=f"number {number}")

    def found(query: str = "") -> list[str]:
        sent = one.call("GET", f"/ilert/api/alerts/{alert['id']}/log-entries{query}")
        assert sent.status == 200, sent.body
        return [entry["text"].rpartition(": ")[2] for entry in sent.body]

    whole = ["Alert received from ci", *(f"number {number}" for number in range(52))]
    assert found() == whole[:50]
    assert found("?start-index=50") == whole[50:]
    assert found("?start-index=1&max-results=2") == whole[1:3]
    assert found("?start-index=53") == []
    _is_refused(one.call("GET", f"/ilert/api/alerts/{alert['id']}/log-entries?max-results=101"), 400, "max-results")


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
    assert _get(h, sent.body["id"])["summary"] == summary
    there = next(iter(h.gateway.config.upstreams.values())).dialect.name
    h.wait_for(lambda: any(summary in str(got.body) for got in h.arrived(there)))
    _is_refused(h.call("POST", "/ilert/api/alerts", {"alertSource": {"id": 1243}}), 400, "summary")
    for key in (None, "wrong"):
        _is_refused(h.call("POST", "/ilert/api/alerts", {**said, "alertSource": {"id": 1243}}, key=key), 401)


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
    alert = _alert(one, key)
    sent = one.call("PUT", f"/ilert/api/alerts/{alert['id']}/assign?{query}")
    assert (sent.status, sent.body["id"], sent.body["status"]) == (200, alert["id"], "PENDING"), sent.body
    said = _sent(one, key, 2)[1]
    assert (said["eventType"], said["comments"][0]["content"]) == ("COMMENT", f"assigned to {whom}")


def test_an_alert_is_assigned_to_somebody(one: House) -> None:
    alert = _alert(one, fresh("key"))
    _is_refused(one.call("PUT", f"/ilert/api/alerts/{alert['id']}/assign"), 400, "user")
    _is_refused(one.call("PUT", "/ilert/api/alerts/1/assign?user=77"), 404)


@pytest.mark.parametrize("rest", ["notifications", "responders", "suggested-responders"])
def test_nobody_is_notified_by_the_gateway(one: House, rest: str) -> None:
    alert = _alert(one, fresh("key"))
    sent = one.call("GET", f"/ilert/api/alerts/{alert['id']}/{rest}")
    assert (sent.status, sent.body) == (200, [])
    _is_refused(one.call("GET", f"/ilert/api/alerts/1/{rest}"), 404)


def test_accept_and_resolve_reach_the_upstream(one: House) -> None:
    """They are sent as the events that they mean, with the alert's key."""
    key = fresh("key")
    alert = _alert(one, key)
    for word in ("accept", "resolve"):
        assert one.call("PUT", f"/ilert/api/alerts/{alert['id']}/{word}").status == 200
    sent = _sent(one, key, 3)
    assert [event["eventType"] for event in sent] == ["ALERT", "ACCEPT", "RESOLVE"]
    assert {event["alertKey"] for event in sent} == {key}


def test_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A list is oldest first; it takes `start-index`, `max-results` of at most 100, and `states` or the older
    `state`."""
    with called(tmp_path_factory.mktemp("list"), {"there": "uptinio"}) as h:
        alerts = [_alert(h, f"key {number}") for number in range(53)]
        ids = [alert["id"] for alert in alerts]
        _event(h, "ACCEPT", "key 1")
        _event(h, "RESOLVE", "key 2")

        def found(query: str) -> list[int]:
            return [alert["id"] for alert in _list(h, query)]

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
        made = [_alert(h, f"key {number}") for number in range(3)]
        _event(h, "ACCEPT", "key 0")
        since = made[1]["reportTime"]
        assert made[0]["reportTime"] < since
        assert [one["id"] for one in _list(h, f"?from={since}")] == [one["id"] for one in made[1:]]
        assert [one["id"] for one in _list(h, f"?from={since}&max-results=1&start-index=1")] == [made[2]["id"]]
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
    _is_refused(h.call("GET", f"/ilert/api/alerts?{query}"), 400, names)


def test_an_unknown_alert(h: House) -> None:
    """Answers 404 in the vendor's words."""
    for method, path in [("GET", ""), ("PUT", "/accept"), ("PUT", "/resolve")]:
        _is_refused(h.call(method, f"/ilert/api/alerts/1{path}"), 404)


# --- scopes, paths -------------------------------------------------------------------------------------------


def test_another_caller_sees_nothing(h: House) -> None:
    """The same key from two callers is two alerts; the synchronous API shows each caller its own."""
    key = fresh("key")
    alert = _alert(h, key)
    _is_refused(h.call("GET", f"/ilert/api/alerts/{alert['id']}", key=OTHER), 404)
    _is_refused(h.call("PUT", f"/ilert/api/alerts/{alert['id']}/resolve", key=OTHER), 404)
    theirs = _event(h, "ALERT", key, credential=OTHER, summary="theirs").headers["alert-gateway-id"]
    assert theirs != str(alert["id"])
    _event(h, "RESOLVE", key, credential=OTHER)
    assert _get(h, alert["id"])["status"] == "PENDING"
    assert alert["id"] not in [found["id"] for found in _list(h, key=OTHER)]


def test_the_key_of_another_scope_gets_a_suffix_there(one: House) -> None:
    """Where another scope's open alert has the key at the upstream, the gateway's id is appended to it, and this is
    reported."""
    key = fresh("key")
    _event(one, "ALERT", key, summary="mine")
    theirs = _event(one, "ALERT", key.upper(), credential=OTHER, summary="theirs")
    _event(one, "RESOLVE", key, credential=OTHER)
    sent = [(event["eventType"], event["alertKey"]) for event in _sent(one, key, 3)]
    theirs_there = next(name for word, name in sent if name != key)
    assert theirs_there.startswith(key.upper())
    assert theirs_there.endswith(theirs.headers["alert-gateway-id"])
    assert sorted(sent) == sorted([("ALERT", key), ("ALERT", theirs_there), ("RESOLVE", theirs_there)])
    assert any("dedup_key" in line for line in theirs.report), theirs.report


def test_a_shared_scope_is_seen_by_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`scope` on an inbound lets several callers share keys, ids and lists."""
    with called(tmp_path_factory.mktemp("scope"), {"there": ILERT}, inbound='scope = "shared"') as h:
        alert = _alert(h, "disk")
        _event(h, "RESOLVE", "DISK", credential=OTHER)
        assert _get(h, alert["id"])["status"] == "RESOLVED"
        assert [found["id"] for found in _list(h, key=OTHER)] == [alert["id"]]


def test_at_the_root_the_synchronous_api_yields_to_another_dialect(h: House) -> None:
    """`/api/alerts` at the root is IBM's main route; ilert's is served below its name."""
    assert isinstance(h.call("GET", "/ilert/api/alerts").body, list)
    assert set(h.call("GET", "/api/alerts").body) == {"alerts"}
    alert = _alert(h, fresh("key"))
    assert h.call("PUT", f"/api/alerts/{alert['id']}/accept").status == 200


def test_paths_and_methods_that_are_not_there(one: House) -> None:
    """Answers 404 and 405 in the vendor's words, 405 with the allowed methods."""
    _is_refused(one.call("GET", "/ilert/api/nothing"), 404)
    sent = one.call("PUT", "/ilert/api/events", {})
    _is_refused(sent, 405)
    assert "POST" in sent.headers["allow"]
    sent = one.call("DELETE", "/ilert/api/alerts/1")
    _is_refused(sent, 405)
    assert "GET" in sent.headers["allow"]
    _is_refused(one.call("GET", "/api/events"), 405)
