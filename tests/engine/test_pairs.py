"""All pairs: what each caller's operation becomes at each upstream, seen by what arrives there.

The expectations are the table "Operations" of the design, one row of it per upstream's dialect below: what a create,
an update, an acknowledgement, a comment, a resolve, a reopen and a delete are there. Where a caller's dialect has no
such operation there is nothing to ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from gateway.cli.sandbox import Arrived
from mappings.splunk_oncall.calls import PATH
from tests.clients.callers import (
    ASKS,
    COLLECTIONS,
    KEYED,
    create,
    fresh,
    listed,
)
from tests.engine.pairs import CONSOLE, DIALECTS, HAS_TEXT, Houses, Watch, fields_of, target_of
from tests.harness import UPSTREAM_KEY, House

LISTERS = [name for name in DIALECTS if name in COLLECTIONS]
"""The dialects whose callers can list and read alerts."""


@pytest.fixture(params=DIALECTS)
def h(request: pytest.FixtureRequest, houses: Houses) -> House:
    """A gateway with one upstream, of each dialect in turn."""
    return houses(request.param)


@pytest.fixture(params=DIALECTS)
def caller(request: pytest.FixtureRequest) -> str:
    """The caller's dialect."""
    return str(request.param)


# --- what each target is sent --------------------------------------------------------------------------------

Expect = Callable[[Arrived, list[Arrived]], None]
"""Checks a request, given those that arrived earlier for the same alert."""


def _is(method: str, path: str, **fields: Any) -> Expect:
    """A request of this method below this path, with these fields; `None` as path is the alert's own."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        assert one.method == method, (one.method, one.path, one.body)
        assert one.path == path or (path.endswith("/") and one.path.startswith(path)), one.path
        said = fields_of(one)
        assert {name: said.get(name) for name in fields} == fields, said

    return expect


def _same_key(
    word: str | tuple[str, ...], path: str = "/api/events", action: str = "eventType", key: str = "alertKey"
) -> Expect:
    """An event with the key of the alert's first event, and the word or one of several."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        assert one.method == "POST" and one.body[action] in ((word,) if isinstance(word, str) else word)
        assert one.path in (path, f"{path}/database"), "with the routing key, where the alert has one"
        assert one.body[key]
        if earlier:
            assert one.body[key] == earlier[0].body[key]

    return expect


def _pagerduty(word: str) -> Expect:
    return _same_key(word, "/v2/enqueue", "event_action", "dedup_key")


def _splunk(*words: str) -> Expect:
    return _same_key(words, f"{PATH}/{UPSTREAM_KEY}", "message_type", "entity_id")


def _opsgenie(method: str, rest: str = "") -> Expect:
    """A request that addresses the alias of the alert's first request; a create has it in its body."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        is_create = (method, rest) == ("POST", "")
        alias = (earlier[0] if earlier else one).body["alias"]
        assert alias
        path = "/v2/alerts" if is_create else f"/v2/alerts/{quote(alias)}{rest}"
        assert (one.method, one.path) == (method, path), (one.method, one.path, one.body)
        assert one.body["alias"] == alias if is_create else "identifierType=alias" in one.query

    return expect


def _cloud_event(status: str) -> Expect:
    """A CloudEvent about the same alert as the first one, with an id of its own."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        assert (one.method, one.path, one.body["data"]["status"]) == ("POST", "/", status)
        assert one.body["data"]["dedup_key"] == (earlier[0] if earlier else one).body["data"]["dedup_key"]
        assert one.body["id"] not in [other.body["id"] for other in earlier]

    return expect


def _webhook(status: str) -> Expect:
    """A group of one alert, with the labels and fingerprint of the first one."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        [alert] = one.body["alerts"]
        assert (one.method, one.path, one.body["status"], alert["status"]) == ("POST", "/", status, status)
        [first] = (earlier[0] if earlier else one).body["alerts"]
        assert (alert["labels"], alert["fingerprint"]) == (first["labels"], first["fingerprint"])

    return expect


def _alertmanager(*, is_over: bool = False) -> Expect:
    """The alert with the labels of its first post; `is_over` says whether its end has come."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        assert (one.method, one.path) == ("POST", "/api/v2/alerts"), (one.method, one.path, one.body)
        [alert] = one.body
        assert alert["labels"] == (earlier[0] if earlier else one).body[0]["labels"]
        assert (datetime.fromisoformat(alert["endsAt"]) <= datetime.now(UTC)) is is_over, alert

    return expect


def _jsm(method: str, rest: str = "") -> Expect:
    """A request that addresses the id learnt from the first request's status; a create has the alias in its body."""

    def expect(one: Arrived, earlier: list[Arrived]) -> None:
        is_create = (method, rest) == ("POST", "")
        assert one.method == method, (one.method, one.path, one.body)
        assert re.fullmatch(f"/alerts/[0-9a-f-]{{50}}{rest}" if not is_create else "/alerts", one.path), one.path
        assert not is_create or one.body["alias"] == (earlier[0] if earlier else one).body["alias"]

    return expect


def _silence(one: Arrived, earlier: list[Arrived]) -> None:
    """A silence that matches exactly the alert's labels."""
    assert (one.method, one.path) == ("POST", "/api/v2/silences"), (one.method, one.path, one.body)
    matchers = {matcher["name"]: matcher["value"] for matcher in one.body["matchers"]}
    assert matchers == earlier[0].body[0]["labels"]
    assert not any(matcher["isRegex"] for matcher in one.body["matchers"])


NOTHING = None
_TOLD: dict[str, Expect | None] = {
    **dict.fromkeys(("create", "update", "reopen"), _webhook("firing")),
    **dict.fromkeys(("resolve", "delete"), _webhook("resolved")),
    **dict.fromkeys(("acknowledge", "comment"), NOTHING),
}
TABLE: dict[str, dict[str, Expect | None]] = {
    "alertmanager": {
        "create": _alertmanager(),
        "update": _alertmanager(),
        "acknowledge": _silence,
        "comment": NOTHING,
        "resolve": _alertmanager(is_over=True),
        "reopen": _alertmanager(),
        "delete": _alertmanager(is_over=True),
    },
    "livesession": {
        "create": _is("POST", "/v1/alerts"),
        "update": _is("PUT", "/v1/alerts/"),
        "acknowledge": NOTHING,
        "comment": NOTHING,
        "resolve": _is("DELETE", "/v1/alerts/"),
        "reopen": _is("POST", "/v1/alerts"),
        "delete": _is("DELETE", "/v1/alerts/"),
    },
    "ibm_monitoring": {
        "create": _is("POST", "/api/alerts"),
        "update": _is("PUT", "/api/alerts/"),
        "acknowledge": NOTHING,
        "comment": NOTHING,
        "resolve": _is("PUT", "/api/alerts/", enabled=False),
        "reopen": _is("PUT", "/api/alerts/", enabled=True),
        "delete": _is("DELETE", "/api/alerts/"),
    },
    "uptinio": {
        "create": _is("POST", "/alerts"),
        "update": _is("PUT", "/alerts/"),
        "acknowledge": NOTHING,
        "comment": NOTHING,
        "resolve": _is("PUT", "/alerts/", status="resolved"),
        "reopen": _is("PUT", "/alerts/", status="active"),
        "delete": _is("PUT", "/alerts/", status="resolved"),
    },
    "ilert": {
        "create": _same_key("ALERT"),
        "update": _same_key("ALERT"),
        "acknowledge": _same_key("ACCEPT"),
        "comment": _same_key("COMMENT"),
        "resolve": _same_key("RESOLVE"),
        "reopen": _same_key("ALERT"),
        "delete": _same_key("RESOLVE"),
    },
    "opsgenie": {
        "create": _opsgenie("POST"),
        "update": _opsgenie("PUT", "/message"),
        "acknowledge": _opsgenie("POST", "/acknowledge"),
        "comment": _opsgenie("POST", "/notes"),
        "resolve": _opsgenie("POST", "/close"),
        "reopen": _opsgenie("POST"),
        "delete": _opsgenie("DELETE"),
    },
    "jsm_ops": {
        "create": _jsm("POST"),
        "update": _jsm("PATCH", "/message"),
        "acknowledge": _jsm("POST", "/acknowledge"),
        "comment": _jsm("POST", "/notes"),
        "resolve": _jsm("POST", "/close"),
        "reopen": _jsm("POST"),
        "delete": _jsm("POST", "/close"),
    },
    "pagerduty": {
        "create": _pagerduty("trigger"),
        "update": _pagerduty("trigger"),
        "acknowledge": _pagerduty("acknowledge"),
        "comment": NOTHING,
        "resolve": _pagerduty("resolve"),
        "reopen": _pagerduty("trigger"),
        "delete": _pagerduty("resolve"),
    },
    "splunk_oncall": {
        "create": _splunk("CRITICAL", "WARNING"),
        "update": _splunk("CRITICAL", "WARNING"),
        "acknowledge": _splunk("ACKNOWLEDGEMENT"),
        "comment": _splunk("INFO"),
        "resolve": _splunk("RECOVERY"),
        "reopen": _splunk("CRITICAL", "WARNING"),
        "delete": _splunk("RECOVERY"),
    },
    "cloudevents": {
        "create": _cloud_event("firing"),
        "update": _cloud_event("firing"),
        "acknowledge": _cloud_event("acknowledged"),
        "comment": NOTHING,
        "resolve": _cloud_event("resolved"),
        "reopen": _cloud_event("firing"),
        "delete": _cloud_event("resolved"),
    },
    "grafana": _TOLD,
    "alertmanager_webhook": _TOLD,
}

LIVES: dict[str, tuple[str, ...]] = {
    "alertmanager": ("update", "update", "resolve"),
    "livesession": ("update", "delete"),
    "ibm_monitoring": ("update", "delete"),
    "uptinio": ("update", "resolve", "reopen", "update", "resolve"),
    "ilert": ("update", "acknowledge", "comment", "update", "resolve"),
    "jsm_ops": ("update", "acknowledge", "comment", "update", "resolve"),
    "opsgenie": ("update", "acknowledge", "comment", "update", "resolve"),
    "pagerduty": ("update", "acknowledge", "update", "resolve"),
    "splunk_oncall": ("update", "acknowledge", "update", "resolve"),
    "cloudevents": ("update", "acknowledge", "update", "resolve"),
    "grafana": ("update", "update", "resolve"),
    "alertmanager_webhook": ("update", "update", "resolve"),
}
"""For every caller's dialect a life that goes through everything it can ask for."""


def test_through_its_life(h: House, caller: str) -> None:
    """Each operation of the caller, and the request that arrives for it, in order."""
    rules, watch = TABLE[target_of(h)], Watch(h)
    text = fresh("text")
    ref, _ = create(h, caller, text)
    arrived = watch.sees(1)
    first = rules["create"]
    assert first
    first(arrived[0], [])
    assert fields_of(arrived[0])[HAS_TEXT[target_of(h)]] == text
    for operation in LIVES[caller]:
        text = fresh("text")
        sent = ASKS[caller][operation](h, ref, text)
        assert sent.status in (200, 202, 204), (operation, sent.body)
        expect = rules[operation]
        if expect is NOTHING:
            assert any("kept=" in line for line in sent.report), (operation, sent.report)
            watch.sees(len(arrived))
            continue
        now = watch.sees(len(arrived) + 1)
        expect(now[-1], arrived)
        if operation == "update":
            assert fields_of(now[-1])[HAS_TEXT[target_of(h)]] == text
        arrived = now


@pytest.mark.parametrize("target", ["ibm_monitoring", "livesession", "uptinio"])
def test_an_id_that_the_upstream_gave_is_used_from_then_on(houses: Houses, caller: str, target: str) -> None:
    """Requests after the create use the id that the create was answered with; callers may use it too."""
    h = houses(target)
    watch, text = Watch(h), fresh("text")
    ref, _ = create(h, caller, text)
    shown = [one for one in listed_there(h) if one[HAS_TEXT[target]] == text]
    there = str(shown[0].get("alert_id", shown[0].get("id")))
    ASKS[caller]["update"](h, ref if caller in KEYED else there, fresh())
    last = "delete" if "delete" in ASKS[caller] else "resolve"
    ASKS[caller][last](h, ref, "")
    assert [one.path.rsplit("/", 1)[1] for one in watch.sees(3)[1:]] == [there, there]


def test_the_vendor_behind_has_what_it_was_sent(houses: Houses, caller: str) -> None:
    """The stand-in for IBM shows every field that it was sent, since an update is later laid over what is read from
    there."""
    h = houses("ibm_monitoring")
    watch = Watch(h)
    create(h, caller, fresh())
    sent = fields_of(watch.sees(1)[0])
    [shown] = [one for one in listed_there(h) if one["name"] == sent["name"]]
    assert {name: shown.get(name) for name in sent} == sent


def test_an_ibm_update_reads_first(houses: Houses, caller: str) -> None:
    """It reads the rule, then `PUT`s it with the changed fields over it and the version that was read."""
    h = houses("ibm_monitoring")
    before = fresh("text")
    ref, _ = create(h, caller, before)
    [read] = [one for one in listed_there(h) if one["name"] == before]
    watch, text = Watch(h), fresh("text")
    ASKS[caller]["update"](h, ref, text)
    [put] = watch.sees(1)
    assert put.path in watch.gets(), "it was read"
    laid = put.body["alert"]
    assert str(laid["id"]) == put.path.rsplit("/", 1)[1]
    assert laid["name"] == text
    others = [name for name in read if name not in ("name", "annotations")]
    assert {name: laid.get(name) for name in others} == {name: read[name] for name in others}


@pytest.mark.parametrize("caller", LISTERS)
def test_it_is_listed_and_read_as_it_is(h: House, caller: str) -> None:
    """The caller's list and read show the last values, whatever the upstream."""
    first, text = fresh("text"), fresh("text")
    ref, sent = create(h, caller, first)
    ASKS[caller]["update"](h, ref, text)
    field = HAS_TEXT[caller]
    said = [alert[field] for alert in listed(h, caller)]
    assert said.count(text) == 1
    assert first not in said
    if caller == "livesession":
        return
    found = h.call("GET", f"{COLLECTIONS[caller]}/{sent.headers['alert-gateway-id']}")
    assert found.status == 200, found.body
    inner = found.body.get("alert", found.body.get("data", found.body))
    assert inner[field] == text


@pytest.mark.parametrize("caller", LISTERS)
def test_a_deleted_or_resolved_alert_in_lists(h: House, caller: str) -> None:
    """Resolved alerts are listed where the dialect has a status; deleted ones never."""
    text = fresh("text")
    ref, _ = create(h, caller, text)
    last = "delete" if "delete" in ASKS[caller] else "resolve"
    ASKS[caller][last](h, ref, text)
    found = [alert for alert in listed(h, caller) if alert[HAS_TEXT[caller]] == text]
    assert len(found) == (last == "resolve")
    if found:
        assert found[0]["status"] in ("resolved", "RESOLVED")


# --- an upstream where it is gone, or where somebody else was --------------------------------------------------


def _at_vendor(h: House, method: str, path: str = "", json: Any = None) -> Any:
    """Calls the vendor past the gateway, as its console would."""
    base = f"{h.sandbox_url}{COLLECTIONS[target_of(h)]}"
    headers = {"authorization": f"Bearer {UPSTREAM_KEY}", CONSOLE: "yes"}
    answer = h.client.request(method, f"{base}{path}", json=json, headers=headers)
    assert answer.status_code in (200, 204), answer.text
    return answer.json() if answer.content else None


def listed_there(h: House) -> list[dict[str, Any]]:
    """The alerts that the vendor shows to its own callers."""
    found = _at_vendor(h, "GET", {"uptinio": "?per_page=100"}.get(target_of(h), ""))
    items: list[dict[str, Any]] = found if isinstance(found, list) else found.get("alerts", found.get("data"))
    return items


def _gone_there(h: House, text: str) -> None:
    """Deletes, past the gateway, the alert with this text."""
    [there] = [one.get("alert_id", one.get("id")) for one in listed_there(h) if one["name"] == text]
    _at_vendor(h, "DELETE", f"/{there}")


@pytest.mark.parametrize("target", ["ibm_monitoring", "livesession"])
def test_an_update_of_what_is_gone_there_creates_it_again(houses: Houses, caller: str, target: str) -> None:
    """404 from an upstream: an update of an open alert is sent as a create of its present state."""
    h, first, text, later = houses(target), fresh("text"), fresh("text"), fresh("text")
    ref, _ = create(h, caller, first)
    _gone_there(h, first)
    assert ASKS[caller]["update"](h, ref, text).status in (200, 202)
    again = h.wait_for(lambda: [one for one in h.arrived(target, "POST") if fields_of(one)["name"] == text])
    assert len(again) == 1
    assert ASKS[caller]["update"](h, ref, later).status in (200, 202)
    [put] = h.wait_for(lambda: [one for one in h.arrived(target, "PUT") if fields_of(one).get("name") == later])
    [there] = [one for one in listed_there(h) if one["name"] == later]
    assert put.path.endswith(f"/{there.get('alert_id', there.get('id'))}"), "the new id is the one that counts"


@pytest.mark.parametrize("target", ["ibm_monitoring", "livesession"])
def test_ending_what_is_gone_there_counts_as_delivered(houses: Houses, caller: str, target: str) -> None:
    """404 from an upstream: resolve and delete count as delivered."""
    h, text = houses(target), fresh("text")
    ref, _ = create(h, caller, text)
    _gone_there(h, text)
    last = "delete" if "delete" in ASKS[caller] else "resolve"
    sent = ASKS[caller][last](h, ref, "")
    assert sent.status in (200, 202, 204), sent.body
    assert not any("dead=" in line for line in sent.report), sent.report


def _changed_there(h: House, name: str) -> dict[str, Any]:
    """Changes the rule's description past the gateway."""
    [there] = [one for one in listed_there(h) if one["name"] == name]
    change = {"alert": {"version": there["version"], "description": "from the console"}}
    changed: dict[str, Any] = _at_vendor(h, "PUT", f"/{there['id']}", change)["alert"]
    return changed


def test_a_version_that_moved_there_is_a_conflict_for_the_only_ibm_caller(houses: Houses) -> None:
    """409: the command is undone and the record refreshed; with the version then read the update goes through."""
    h, name = houses("ibm_monitoring"), fresh()
    ref, sent = create(h, "ibm_monitoring", name)
    _changed_there(h, name)
    watch, version = Watch(h), sent.body["alert"]["version"]
    path = f"{COLLECTIONS['ibm_monitoring']}/{ref}"
    refused = h.call("PUT", path, {"alert": {"version": version, "filter": "a = 'b'"}})
    assert refused.status == 409, refused.body
    assert "Conflict version" in refused.body["errors"][0]["message"]
    watch.sees(0)
    now = h.call("GET", path).body["alert"]
    assert now["description"] == "from the console", "refreshed"
    assert now.get("filter") is None, "undone"
    assert now["version"] > version
    again = h.call("PUT", path, {"alert": {"version": now["version"], "filter": "a = 'b'"}})
    assert again.status == 200, again.body
    laid = watch.sees(1)[0].body["alert"]
    assert (laid["filter"], laid["description"]) == ("a = 'b'", "from the console")


@pytest.mark.parametrize(
    "other", ["alertmanager", "livesession", "uptinio", "ilert", "jsm_ops", "opsgenie", "pagerduty"]
)
def test_a_version_that_moved_there_is_laid_over_for_other_callers(houses: Houses, other: str) -> None:
    """Other dialects have no versions: the other party's change stays, and the update is laid over it."""
    h, name, text = houses("ibm_monitoring"), fresh(), fresh("text")
    ref, _ = create(h, other, name)
    changed = _changed_there(h, name)
    watch = Watch(h)
    sent = ASKS[other]["update"](h, ref, text)
    assert sent.status in (200, 202), sent.body
    laid = watch.sees(1)[0].body["alert"]
    assert (laid["name"], laid["description"]) == (text, "from the console")
    assert laid["version"] == changed["version"]


@pytest.mark.parametrize("target", ["grafana", "ilert", "jsm_ops", "opsgenie", "pagerduty", "splunk_oncall", "uptinio"])
def test_switching_a_rule_off_and_on(houses: Houses, target: str) -> None:
    """Off is a resolve at the target and on a trigger of the same; the record's status is untouched, the rule stays."""
    h, name, rules = houses(target), fresh(), TABLE[target]
    watch = Watch(h)
    ref, _ = create(h, "ibm_monitoring", name)
    path = f"{COLLECTIONS['ibm_monitoring']}/{ref}"
    arrived = watch.sees(1)
    for operation, becomes in (("disable", "resolve"), ("enable", "reopen"), ("disable", "resolve")):
        sent = ASKS["ibm_monitoring"][operation](h, ref, "")
        assert sent.status == 200, sent.body
        arrived = watch.sees(len(arrived) + 1)
        expect = rules[becomes]
        assert expect
        expect(arrived[-1], arrived[:-1])
        shown = h.call("GET", path).body["alert"]
        assert shown["enabled"] is (operation == "enable")
        assert name in [alert["name"] for alert in listed(h, "ibm_monitoring")]
    text = fresh("text")
    assert ASKS["ibm_monitoring"]["update"](h, ref, text).status == 200
    assert h.call("GET", path).body["alert"]["name"] == text
