"""ilert's events API as callers see it, over HTTP, with ilert and with another vendor behind it.

Expectations follow the page "Creating alerts through events" and what its clients rely on: the Go client cannot read
an empty body, others want exactly 202.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.callers import OTHER, behind, called, fresh, ilert_event
from tests.engine.asking_ilert import ILERT, at_ilert, is_refused, is_taken, listed, post, raise_alert, read, tell
from tests.engine.pairs import Houses
from tests.harness import KEY, UPSTREAM_KEY, House, Sent


@pytest.fixture(scope="module", params=[ILERT, behind(ILERT)])
def h(request: pytest.FixtureRequest, fronts: Houses) -> House:
    """A gateway with ilert behind it, then with another vendor."""
    return fronts(request.param)


@pytest.fixture(scope="module")
def one(fronts: Houses) -> House:
    """A gateway with ilert behind it, for behaviour that does not depend on the upstream."""
    return fronts(ILERT)


# --- events --------------------------------------------------------------------------------------------------

PATHS = ["/api/events", "/api/v1/events", "/api/v1/events%20", "/ilert/api/events", "/ilert/api/v1/events"]


@pytest.mark.parametrize("path", PATHS)
def test_every_event_type(h: House, path: str) -> None:
    """Each event type is answered 202 with `{}`, on every path that the page names."""
    key = fresh("key")
    is_taken(post(h, ilert_event("ALERT", key, summary=key, details="", priority="HIGH"), path))
    for word in ("ACCEPT", "COMMENT", "RESOLVE"):
        is_taken(post(h, ilert_event(word, key, summary=word), path))


@pytest.mark.parametrize("name", ["apiKey", "integrationKey"])
def test_either_name_of_the_credential(h: House, name: str) -> None:
    """The page says apiKey, the newer documentation integrationKey."""
    is_taken(post(h, {name: KEY, "eventType": "ALERT", "summary": fresh()}))
    is_refused(post(h, {name: "wrong", "eventType": "ALERT", "summary": fresh()}), 401)


def test_both_names_of_the_credential(h: House) -> None:
    """The two names may both be given with equal values; different values are answered 400."""
    event = {"eventType": "ALERT", "summary": fresh()}
    is_taken(post(h, {"apiKey": KEY, "integrationKey": KEY, **event}))
    is_refused(post(h, {"apiKey": KEY, "integrationKey": OTHER, **event}), 400)
    is_refused(post(h, {"apiKey": KEY, "integrationKey": "wrong", **event}), 400)


KEYED = ["/api/events", "/api/v1/events", "/api/v1/events/kubernetes", "/api/v1/events/push"]


@pytest.mark.parametrize("path", KEYED)
def test_the_credential_in_the_path(h: House, path: str) -> None:
    """The key may be in the path, as in the samples of https://docs.ilert.com/developer-docs/client-libraries, those of
    ilert's agent for Kubernetes, which has it in the body too, and those of kwatch."""
    key = fresh("key")
    event = {"eventType": "ALERT", "summary": fresh("summary"), "message": "more", "priority": "HIGH"}
    is_taken(post(h, {**event, "alertKey": key}, f"{path}/{KEY}"))
    is_taken(post(h, {"eventType": "ACCEPT", "alertKey": key, "apiKey": KEY}, f"/ilert{path}/{KEY}"))
    [shown] = [one for one in h.call("GET", "/ilert/api/alerts?max-results=100").body if one.get("alertKey") == key]
    assert (shown["summary"], shown["status"], shown["priority"]) == (event["summary"], "ACCEPTED", "HIGH")
    is_taken(post(h, {"eventType": "RESOLVE", "alertKey": key}, f"{path}/{KEY}"))
    assert post(h, event, f"{path}/nobodys").status == 401
    differ = post(h, {**event, "apiKey": OTHER}, f"{path}/{KEY}")
    assert (differ.status, differ.body["message"]) == (400, "the request has two different credentials")


def test_an_event_as_keep_posts_it(one: House) -> None:
    """Keep posts without the version in the path, with a blank behind the key, and with an empty value for every field
    that it does not fill; it takes any answer for success, so what is not served is lost."""
    key, said = fresh("key"), {"details": "", "priority": "HIGH", "images": [], "links": [], "customDetails": {}}
    for word in ("ALERT", "ACCEPT", "RESOLVE"):
        event = {"eventType": word, "summary": "Disk full", "alertKey": key, **said}
        is_taken(post(one, event, f"/api/events/keep/{KEY}%20"))
    is_taken(post(one, {**event, "eventType": "ALERT", "alertKey": ""}, f"/api/events/keep/{KEY}%20"))
    is_refused(post(one, event, "/api/events/keep/nobodys%20"), 401)


def test_what_is_no_event_at_the_path_of_an_integration(one: House) -> None:
    """A body in another integration's format is refused with a message that says what is accepted."""
    sent = post(one, {"alert": "disk", "severity": "CRITICAL"}, f"/api/v1/events/netdata/{KEY}")
    assert sent.status == 400 and sent.body["message"].startswith("eventType: is required: accepted here are")
    for path in ("/api/v1/events/nagios", "/ilert/api/v1/events/icinga"):
        xml = one.client.post(one.url + path, content=b"<event/>", headers={"content-type": "application/xml"})
        assert xml.status_code == 404, "their plugins would throw away what is refused with 400 or 401"


def test_an_authorization_header_on_an_event_is_ignored(h: House) -> None:
    """Clients may send one; the page says that none is needed."""
    event = ilert_event("ALERT", None, summary=fresh())
    headers = {"authorization": "Bearer something-else"}
    is_taken(h.call("POST", "/api/events", event, key=None, headers=headers))
    unkeyed = {"eventType": "ALERT", "summary": fresh()}
    is_refused(h.call("POST", "/api/events", unkeyed, key=None, headers=headers), 401)


def test_no_credential(h: House) -> None:
    """Answers 401 in the vendor's words."""
    is_refused(post(h, {"eventType": "ALERT", "summary": "x"}), 401)
    is_refused(post(h, {"apiKey": None, "eventType": "ALERT", "summary": "x"}), 401)
    is_refused(post(h, {"apiKey": "", "eventType": "ALERT", "summary": "x"}), 401)
    for method, path in [("GET", ""), ("GET", "/1"), ("PUT", "/1/accept"), ("PUT", "/1/resolve")]:
        for key in (None, "wrong"):
            is_refused(h.call(method, f"/ilert/api/alerts{path}", key=key), 401)


@pytest.mark.parametrize("word", ["alert", "Alert", "ALERT", "aLeRt"])
def test_event_types_in_any_case(one: House, word: str) -> None:
    """Event types are read in any case, and sent on in upper case."""
    key = fresh("key")
    tell(one, word, key, summary="x")
    tell(one, "resolve", key)
    assert [event["eventType"] for event in at_ilert(one, key, 2)] == ["ALERT", "RESOLVE"]


@pytest.mark.parametrize("word", ["low", "Low", " LOW "])
def test_priorities_in_any_case(one: House, word: str) -> None:
    """Priorities are read in any case, and sent on in upper case, also in what is raised by hand."""
    key, summary = fresh("key"), fresh("summary")
    tell(one, "ALERT", key, summary="x", priority=word)
    tell(one, "RESOLVE", key, priority=word)
    assert [event["priority"] for event in at_ilert(one, key, 2)] == ["LOW", "LOW"]
    assert one.call("POST", "/ilert/api/alerts", {"summary": summary, "priority": word}).body["priority"] == "LOW"
    raised = one.wait_for(lambda: [got.body for got in one.arrived(ILERT) if got.body.get("summary") == summary])
    assert raised[0]["priority"] == "LOW"


def test_a_priority_says_nothing_of_a_severity_that_is_said(one: House) -> None:
    """In a later event of the same alert too, where only the priority differs from what was said before."""
    key = fresh("key")
    said = [(2, "HIGH"), (2, "LOW"), (4, "LOW"), (4, "HIGH")]
    for severity, priority in said:
        tell(one, "ALERT", key, summary="x", severity=severity, priority=priority)
        at_ilert(one, key, said.index((severity, priority)) + 1)
    assert [(event["severity"], event["priority"]) for event in at_ilert(one, key, 4)] == said


def test_what_stood_in_a_link_leaves_with_the_link(one: House) -> None:
    """A field of a link that nobody knows is passed on, and puts nothing in the place of a link that is gone: then
    every later event of the alert would be refused for want of an address."""
    key, second = fresh("key"), {"href": "https://wiki/2"}
    said = [[{"href": "https://wiki/1", "own": 1}], [{"href": "https://wiki/1", "text": "1"}, second], [second, second]]
    for number, links in enumerate(said, 1):
        tell(one, "ALERT", key, summary="x", links=links)
        assert at_ilert(one, key, number)[-1]["links"] == links


def test_incident_key_is_the_older_name(h: House) -> None:
    """`incidentKey` is read as `alertKey`; where both are given, alertKey counts, unless it is empty."""
    key = fresh("key")
    sent = tell(h, "ALERT", None, incidentKey=key, summary="x")
    assert read(h, sent.headers["alert-gateway-id"])["alertKey"] == key
    assert tell(h, "ACCEPT", key).headers["alert-gateway-id"] == sent.headers["alert-gateway-id"]
    empty = tell(h, "ALERT", "", incidentKey=key, summary="z")
    assert empty.headers["alert-gateway-id"] == sent.headers["alert-gateway-id"]
    both = tell(h, "ALERT", key, incidentKey=fresh("key"), summary="y")
    assert both.headers["alert-gateway-id"] == sent.headers["alert-gateway-id"]


def test_null_is_absent(one: House) -> None:
    """A null counts as absent: the vendor's Rust client sends null for every optional field it does not set."""
    optional = ["details", "alertKey", "priority", "severity", "images", "links", "customDetails", "routingKey"]
    optional += ["labels", "services", "comments", "logs", "integrationKey", "incidentKey"]
    summary = fresh("summary")
    sent = tell(one, "ALERT", None, summary=summary, **dict.fromkeys(optional))
    shown = read(one, sent.headers["alert-gateway-id"])
    assert shown["summary"] == summary
    event = one.wait_for(lambda: [got.body for got in one.arrived(ILERT) if got.body.get("summary") == summary])[0]
    assert [name for name, value in event.items() if value is None] == []


def test_only_an_alert_needs_a_summary(h: House) -> None:
    """The vendor's own ACCEPT and RESOLVE samples have no summary."""
    is_refused(post(h, ilert_event("ALERT", fresh("key"))), 400, "summary")
    is_refused(post(h, ilert_event("ALERT", fresh("key"), summary="")), 400, "summary")
    key = fresh("key")
    tell(h, "ALERT", key, summary="x")
    tell(h, "ACCEPT", key)
    tell(h, "COMMENT", key, comments=[{"creator": "me", "content": "looking"}])
    tell(h, "RESOLVE", key)


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
    is_refused(post(one, {**ilert_event("ALERT", summary, summary=summary), **fields}), 400, names)
    tell(one, "ALERT", summary, summary=summary)
    assert len(at_ilert(one, summary, 1)) == 1, "the refused one was not sent"


def test_a_command_without_a_key(h: House) -> None:
    """An ACCEPT, RESOLVE or COMMENT without a key is refused: it refers to no alert."""
    for word in ("ACCEPT", "RESOLVE", "COMMENT"):
        is_refused(post(h, ilert_event(word, None)), 400, "alertKey")
        is_refused(post(h, ilert_event(word, "  ")), 400, "alertKey")


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
    is_refused(Sent(answer.status_code, answer.json(), answer.headers), answer.status_code)


# --- keys ----------------------------------------------------------------------------------------------------


def test_keys_are_trimmed_and_compared_without_case(h: House) -> None:
    """Every spelling of a key finds the same alert."""
    key = fresh("Key")
    made = tell(h, "ALERT", f"  {key} ", summary="first").headers["alert-gateway-id"]
    for spelling in (key, key.upper(), key.lower(), f" {key.swapcase()}  "):
        assert tell(h, "ALERT", spelling, summary="again").headers["alert-gateway-id"] == made
    assert read(h, made)["alertKey"].lower() == key.lower()
    tell(h, "RESOLVE", key.upper())
    assert read(h, made)["status"] == "RESOLVED"


def test_an_alert_with_a_key_that_is_open_updates_it(h: House) -> None:
    """An ALERT with an open key updates that alert; fields that it leaves out stay."""
    key = fresh("key")
    first = raise_alert(h, key, summary="disk 80 %", details="on db-1")
    second = raise_alert(h, key, summary="disk 90 %")
    assert second["id"] == first["id"]
    assert (second["summary"], second["details"], second["status"]) == ("disk 90 %", "on db-1", "PENDING")
    assert [alert["id"] for alert in listed(h) if alert.get("alertKey") == key] == [first["id"]]


def test_after_an_accept_the_key_is_still_open(h: House) -> None:
    """An accepted alert is still open: it is found by its key, and stays accepted."""
    key = fresh("key")
    alert = raise_alert(h, key)
    tell(h, "ACCEPT", key)
    assert read(h, alert["id"])["status"] == "ACCEPTED"
    assert raise_alert(h, key)["id"] == alert["id"]
    tell(h, "RESOLVE", key)
    assert read(h, alert["id"])["status"] == "RESOLVED"


def test_after_a_resolve_the_same_key_is_a_new_alert(h: House) -> None:
    """The resolved alert stays resolved."""
    key = fresh("key")
    first = raise_alert(h, key)
    tell(h, "RESOLVE", key)
    second = raise_alert(h, key)
    assert second["id"] != first["id"]
    assert second["status"] == "PENDING"
    old = read(h, first["id"])
    assert old["status"] == "RESOLVED"
    assert old["resolvedOn"]


def test_without_a_key_every_alert_is_new(h: House) -> None:
    """There is nothing to group alerts by."""
    ids = {tell(h, "ALERT", None, summary="same").headers["alert-gateway-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("word", ["ACCEPT", "RESOLVE"])
def test_a_command_for_a_key_that_is_not_open(h: House, word: str) -> None:
    """It is answered as by the vendor, and sent on to an upstream that finds alerts by key: the alert may have been
    opened before the gateway was in place."""
    key = fresh("unknown key")
    tell(h, word, key)
    if h.gateway.config.upstreams["there"].dialect.name == ILERT:
        [sent] = at_ilert(h, key, 1)
        assert (sent["eventType"], sent["alertKey"]) == (word, key)
    assert [alert for alert in listed(h) if alert.get("alertKey") == key] == []


def test_a_resolve_for_a_key_that_is_not_open_reaches_nobody_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An upstream that finds alerts by id is sent nothing: a later create is the first request that arrives there."""
    with called(tmp_path_factory.mktemp("unknown"), {"there": "uptinio"}) as h:
        tell(h, "RESOLVE", "never opened")
        tell(h, "ALERT", "opened", summary="opened")
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
    is_taken(post(one, event))
    [sent] = at_ilert(one, key, 1)
    assert {**sent, "apiKey": KEY} == event
    assert sent["apiKey"] == UPSTREAM_KEY
    assert KEY not in json.dumps([dict(got.headers) for got in one.arrived(ILERT)])
    said: dict[str, Any] = {"comments": [{"creator": "Ann", "content": "looking"}], "eventSource": {"new": [3]}}
    for number, word in enumerate(("ACCEPT", "COMMENT", "RESOLVE"), 2):
        is_taken(post(one, ilert_event(word, key, **said)))
        assert {**at_ilert(one, key, number)[-1], "apiKey": KEY} == ilert_event(word, key, **said), word


# --- scopes, paths -------------------------------------------------------------------------------------------


def test_another_caller_sees_nothing(h: House) -> None:
    """The same key from two callers is two alerts; the synchronous API shows each caller its own."""
    key = fresh("key")
    alert = raise_alert(h, key)
    is_refused(h.call("GET", f"/ilert/api/alerts/{alert['id']}", key=OTHER), 404)
    is_refused(h.call("PUT", f"/ilert/api/alerts/{alert['id']}/resolve", key=OTHER), 404)
    theirs = tell(h, "ALERT", key, credential=OTHER, summary="theirs").headers["alert-gateway-id"]
    assert theirs != str(alert["id"])
    tell(h, "RESOLVE", key, credential=OTHER)
    assert read(h, alert["id"])["status"] == "PENDING"
    assert alert["id"] not in [found["id"] for found in listed(h, key=OTHER)]


def test_the_key_of_another_scope_gets_a_suffix_there(one: House) -> None:
    """Where another scope's open alert has the key at the upstream, the gateway's id is appended to it, and this is
    reported."""
    key = fresh("key")
    tell(one, "ALERT", key, summary="mine")
    theirs = tell(one, "ALERT", key.upper(), credential=OTHER, summary="theirs")
    tell(one, "RESOLVE", key, credential=OTHER)
    sent = [(event["eventType"], event["alertKey"]) for event in at_ilert(one, key, 3)]
    theirs_there = next(name for word, name in sent if name != key)
    assert theirs_there.startswith(key.upper())
    assert theirs_there.endswith(theirs.headers["alert-gateway-id"])
    assert sorted(sent) == sorted([("ALERT", key), ("ALERT", theirs_there), ("RESOLVE", theirs_there)])
    assert any("dedup_key" in line for line in theirs.report), theirs.report


def test_a_shared_scope_is_seen_by_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`scope` on an inbound lets several callers share keys, ids and lists."""
    with called(tmp_path_factory.mktemp("scope"), {"there": ILERT}, inbound='scope = "shared"') as h:
        alert = raise_alert(h, "disk")
        tell(h, "RESOLVE", "DISK", credential=OTHER)
        assert read(h, alert["id"])["status"] == "RESOLVED"
        assert [found["id"] for found in listed(h, key=OTHER)] == [alert["id"]]


def test_at_the_root_the_synchronous_api_yields_to_another_dialect(h: House) -> None:
    """`/api/alerts` at the root is IBM's main route; ilert's is served below its name."""
    assert isinstance(h.call("GET", "/ilert/api/alerts").body, list)
    assert set(h.call("GET", "/api/alerts").body) == {"alerts"}
    alert = raise_alert(h, fresh("key"))
    assert h.call("PUT", f"/api/alerts/{alert['id']}/accept").status == 200


def test_paths_and_methods_that_are_not_there(one: House) -> None:
    """Answers 404 and 405 in the vendor's words, 405 with the allowed methods."""
    is_refused(one.call("GET", "/ilert/api/nothing"), 404)
    sent = one.call("PUT", "/ilert/api/events", {})
    is_refused(sent, 405)
    assert "POST" in sent.headers["allow"]
    sent = one.call("DELETE", "/ilert/api/alerts/1")
    is_refused(sent, 405)
    assert "GET" in sent.headers["allow"]
    is_refused(one.call("GET", "/api/events"), 405)
