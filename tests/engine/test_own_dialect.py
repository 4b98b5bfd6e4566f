"""A dialect that a configuration describes: both ways over HTTP, its mistakes, and hostile bodies."""

from __future__ import annotations

import base64
import functools
import hmac
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

import mappings.cloudevents
from gateway.canonical import SERVER_OWNED, Link, Operation
from gateway.carry import restore
from gateway.checking import warnings
from gateway.cli import main
from gateway.config import Config, parse
from gateway.configtables import Tables
from gateway.dialect import Command, Dialect, Incoming, Response, Sending
from gateway.documents import dialect_rows, mappings_page
from gateway.errors import ConfigurationError, Problem
from gateway.examples import Example
from gateway.openapi import describe
from gateway.own import dialects_in
from gateway.registry import dialects
from gateway.rehearsal import bare_upstream, command_in, rehearse
from gateway.secrets import MASK
from gateway.translation import translate
from tests.chaos_upstream import CLOSE, Got, chaos, say
from tests.conformance.samples import CREATES, NOW, alert_of, asked, sample_id, saying
from tests.conformance.strategies import ODD, alerts, every_mutation, mutated
from tests.engine.descriptions import DEEP, FIRING, OPEN, SOURCE, TITLES, TRIGGERED
from tests.engine.vendors import OK, outbox
from tests.harness import KEY, UPSTREAM_KEY, House, house, upstream_table
from tests.recorded import plain

README = (Path(__file__).parents[2] / "README.md").read_text("utf8")
OWN: dict[str, dict[str, Any]] = {"datadog": TRIGGERED, "source": FIRING, "deep": OPEN}
PATHS = {"datadog": "/datadog", "source": "/source/v2/alert_events/http/alert-source", "deep": "/deep"}
CALLERS = "".join(f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}\n' for name in OWN)
HEADERS = {"datadog": {"x-gateway-key": KEY}}


def described(text: str = TITLES + SOURCE + DEEP, more: str = "") -> Config:
    """A configuration with these dialects, and an upstream that takes what their callers send."""
    there = '[upstreams.there]\ndialect = "ilert"\nurl = "https://api.ilert.com"\nkey = "k"\n'
    return parse(f"{CALLERS}{there}{more}{text}")


@functools.cache
def own(name: str) -> Dialect:
    """One of the described dialects."""
    return described().own[name]


def read(name: str, body: Any, operation: Operation = Operation.CREATE) -> Command:
    """What a body of a described dialect asks for."""
    return command_in(own(name), operation, body)


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway that speaks the described dialects to its callers, with a known vendor behind."""

    def text(sandbox_url: str) -> str:
        return CALLERS + upstream_table("there", "pagerduty", sandbox_url) + TITLES + SOURCE + DEEP

    with house(tmp_path_factory.mktemp("own"), config=text) as standing:
        yield standing


def post(h: House, name: str, body: Any, *, key: str = KEY) -> Any:
    """Calls as the vendor's sender would."""
    path = PATHS[name] + (f"?token={key}" if name == "source" else "")
    return h.call("POST", path, body, key=None, headers={"x-gateway-key": key} if name == "datadog" else {})


# --- reading -------------------------------------------------------------------------------------------------


def test_a_body_whose_values_are_texts() -> None:
    asked = read("datadog", TRIGGERED)
    assert asked.operation is Operation.CREATE
    assert asked.patch == {
        "summary": "[Triggered] CPU is high on web-1",
        "details": "avg(last_5m) is 97 %",
        "dedup_key": "1234567890",
        "resource": "web-1",
        "category": "system.cpu.user",
        "team": "platform",
        "links": (Link(href="https://app.datadoghq.com/monitors/1"),),
        "labels": {"env": "prod", "service": "web", "urgent": ""},
        "condition.window": 300,
        "severity": 3,
        "extensions.datadog.org": {"id": "7", "name": "acme"},
    }
    assert asked.verbatim == TRIGGERED
    assert dict(asked.dropped) == {"alert_transition": "says what to do, not what is wrong"}


def test_a_body_that_is_nested() -> None:
    patch = dict(read("deep", OPEN).patch)
    assert patch == {
        "summary": "Deep trouble",
        "details": "Everything is down",
        "dedup_key": "4711",
        "urgency": "high",
        "source": "probe",
        "labels": {"env": "prod", "rack": "7"},
        "custom": {"a": [1, {"b": None}]},
        "links": (Link(href="https://example.com/", text="Runbook"),),
        "severity": 0,
        "condition.threshold": 9.5,
        "extensions.deep.meta": {"trace": "t-1"},
        "extensions.deep.data": {"attributes": {"more": {"kept": [1, 2]}}},
    }
    assert "auth" not in read("deep", OPEN).verbatim["meta"], "a credential is no word of an alert"


@pytest.mark.parametrize(
    ("name", "said", "operation"),
    [
        ("datadog", {"alert_transition": "Recovered"}, "resolve"),
        ("datadog", {"alert_transition": "no data recovered", "alert_priority": "P9", "window": "soon"}, "resolve"),
        ("datadog", {"alert_transition": "Re-Triggered"}, "create"),
        ("datadog", {"alert_transition": ""}, "create"),
        ("source", {"status": "resolved", "title": ""}, "resolve"),
        ("deep", {"data": {"attributes": {"ids": {"external": 4711}}, "state": {"is_open": False}}}, "resolve"),
        ("deep", {"data": {"attributes": {"ids": {"external": 4711}}, "state": {"is_open": "Mine"}}}, "acknowledge"),
    ],
)
def test_a_word_decides_what_is_asked_for(name: str, said: dict[str, Any], operation: str) -> None:
    """What else a sender repeats when it is over need not be as in a new alert."""
    route = own(name).routes[0]
    asked = route.read(Incoming({}, {}, {}, {**OWN[name], **said}, NOW))
    assert isinstance(asked, Command)
    assert asked.operation == operation
    key = {"datadog": "1234567890", "source": "queue-7", "deep": "4711"}[name]
    assert operation == "create" or (asked.ref is not None and asked.ref.key == key)


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("datadog", {"body": "x"}, "title: is required"),
        ("datadog", {"title": "", "event_title": ""}, "title: is required"),
        ("datadog", {"alert_transition": "Recovered"}, "alert_cycle_key: is required to resolve an alert"),
        ("datadog", {"title": 7}, "title: expected `str"),
        ("datadog", {"title": "x", "tags": ["env:prod"]}, "tags: expected `str"),
        ("source", {"title": "x", "deduplication_key": "k", "status": "closed"}, "status: 'closed' is none of"),
        ("source", {"title": "x"}, "deduplication_key: is required"),
        ("deep", {"data": {"attributes": {"level": 7}}}, "data.attributes.level: '7' is none of 1, 2, 3"),
        ("deep", {"data": {"links": [{"link_text": "x"}]}}, "data.links[0].link_url: is required"),
        ("deep", {"data": []}, "data: expected `object"),
        ("deep", {"data": {"state": {"is_open": []}}}, "data.state.is_open: expected"),
    ],
)
def test_what_is_wrong_with_a_body_names_the_place(name: str, body: Any, says: str) -> None:
    with pytest.raises(Problem) as raised:
        read(name, body)
    assert says in raised.value.message


@pytest.mark.parametrize(
    ("said", "means"), [("9.5", 9.5), (" -12 ", -12), ("", None), (7, 7), ("1e999", ValueError), ("many", ValueError)]
)
def test_a_number_may_be_a_text(said: Any, means: Any) -> None:
    """As at Google Cloud's `threshold_value`, and wherever a template is filled in."""
    body = {**FIRING, "limit": said, "for": said}
    dialect = parse(
        SOURCE + '"condition.threshold" = "limit"\n"condition.window" = { at = "for", unit = "m" }\n'
        '[inbound.source]\nanonymous = true\n[upstreams.x]\ndialect = "source"\nurl = "http://x"\nkey = "k"\n'
    ).own["source"]
    if means is ValueError:
        with pytest.raises(Problem, match="is no number"):
            command_in(dialect, Operation.CREATE, body)
        return
    patch = command_in(dialect, Operation.CREATE, body).patch
    assert patch.get("condition.threshold") == means
    assert patch.get("condition.window") == (None if means is None else means * 60)


def test_a_category_that_is_called_as_good_news_silences_nothing() -> None:
    asked = read("datadog", {**TRIGGERED, "alert_metric": "up"})
    assert "category" not in asked.patch and asked.patch["extensions.datadog.alert_metric"] == "up"


# --- over HTTP, in -------------------------------------------------------------------------------------------


def test_callers_are_answered_as_described_and_the_vendor_behind_hears_of_it(h: House) -> None:
    mark = len(h.arrived("pagerduty"))
    sent = post(h, "datadog", TRIGGERED)
    assert (sent.status, sent.body) == (200, {"ok": True, "of": "1234567890"})
    assert sent.report == ["there; approximated=source"]
    made = h.arrives("pagerduty", mark + 1)[-1].body
    assert (made["event_action"], made["dedup_key"]) == ("trigger", "1234567890")
    assert made["payload"]["summary"] == TRIGGERED["title"]
    assert made["payload"]["severity"] == "error"
    post(h, "datadog", {**TRIGGERED, "alert_transition": "Recovered"})
    ended = h.arrives("pagerduty", mark + 2)[-1].body
    assert (ended["event_action"], ended["dedup_key"]) == ("resolve", "1234567890")


def test_a_path_of_its_own_is_served_at_the_root_too(h: House) -> None:
    path = PATHS["source"].removeprefix("/source")
    sent = h.call("POST", f"{path}?token={KEY}", FIRING, key=None)
    told = {"status": "success", "message": "Event accepted for processing", "deduplication_key": "queue-7"}
    assert (sent.status, sent.body) == (202, told)
    assert h.call("POST", "/", FIRING).status == 404


def test_a_key_is_made_up_and_told_where_there_is_none(h: House) -> None:
    body = {name: value for name, value in TRIGGERED.items() if name != "alert_cycle_key"}
    assert len(post(h, "datadog", body).body["of"]) == 32


@pytest.mark.parametrize("name", OWN)
def test_a_wrong_key_is_told_in_its_shape(h: House, name: str) -> None:
    wrong = {**OPEN, "meta": {"auth": {"token": "wrong"}}} if name == "deep" else OWN[name]
    sent = post(h, name, wrong, key="wrong")
    message = "the credential is missing or not known here"
    assert (sent.status, sent.body) == (401, {"error": {"code": "unauthorized", "message": message}})


HYPOTHESIS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@HYPOTHESIS
@given(data=st.data())
def test_a_hostile_body_is_taken_or_refused(h: House, name: str, data: st.DataObject) -> None:
    sent = post(h, name, data.draw(mutated(OWN[name]) | ODD))
    assert sent.status < 500, sent.body
    assert sent.status < 300 or set(sent.body["error"]) == {"code", "message"}


@pytest.mark.parametrize("name", OWN)
def test_every_oddity_at_every_place_is_read_or_refused(name: str) -> None:
    dialect = own(name)
    route, upstream = dialect.routes[0], bare_upstream(dialect)
    taken = 0
    for body in every_mutation(OWN[name]):
        try:
            asked = route.read(Incoming({}, {}, {}, json.loads(json.dumps(body)), NOW))
        except Problem:
            continue
        assert isinstance(asked, Command)
        rehearse(asked, dialect, upstream)
        taken += 1
    assert taken


# --- over HTTP, out ------------------------------------------------------------------------------------------


def outbound(name: str, url: str, more: str = "") -> str:
    """A gateway whose callers speak ilert and the dialect itself, in front of an upstream of a described dialect."""
    callers = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}\n'
    there = f'[upstreams.there]\ndialect = "{name}"\nurl = "{url}/hook"\nkey = "{UPSTREAM_KEY}"\n{more}'
    return f"{callers}{there}{TITLES if name == 'datadog' else SOURCE if name == 'source' else DEEP}"


def life(tmp_path: Path, name: str, *words: str, **fields: Any) -> list[Got]:
    """What a described upstream is sent when a caller of another vendor says these words of one alert."""
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: outbound(name, upstream.url)) as h:
        for number, word in enumerate(words, 1):
            event = {"apiKey": KEY, "eventType": word, "alertKey": "disk-1", "summary": "Disk full on db-1", **fields}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            h.wait_for(lambda: len(upstream.got) >= number)  # noqa: B023 - asked for at once
        return list(upstream.got)


def test_out_to_texts(tmp_path: Path) -> None:
    links = [{"href": "https://example.com/1"}, {"href": "https://example.com/2"}]
    made, ended = life(tmp_path, "datadog", "ALERT", "RESOLVE", priority="HIGH", links=links, labels={"env": "prod"})
    assert (made.method, made.path, made.headers["x-gateway-key"]) == ("POST", "/hook", UPSTREAM_KEY)
    body = made.body
    assert body["title"] == body["event_title"] == "Disk full on db-1"
    assert {name: body[name] for name in ("alert_cycle_key", "alert_priority", "link", "tags")} == {
        "alert_cycle_key": "disk-1",
        "alert_priority": "P1",
        "link": "https://example.com/1",
        "tags": "env:prod",
    }
    assert body["alert_transition"] == "firing"
    assert (ended.body["alert_cycle_key"], ended.body["alert_transition"]) == ("disk-1", "Recovered")


HOOK = """
[dialects.chat]
auth = "none"
fields = { summary = { at = "text", required = true } }
"""
"""A webhook that knows its callers by its address."""


def test_a_webhook_that_asks_for_no_key_gets_none_at_the_whole_of_its_address(tmp_path: Path) -> None:
    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}/hook/?sig=a%2Bb&v=1"\n'
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[inbound.chat]\nanonymous = true\n{there}{HOOK}'

    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        assert h.call("POST", "/chat", {"text": "Disk is still full"}, key=None).status == 202
        h.wait_for(lambda: len(upstream.got) == 2)
        assert {got.path for got in upstream.got} == {"/hook/?sig=a%2Bb&v=1"}
        assert {got.body["text"] for got in upstream.got} == {"Disk full", "Disk is still full"}
        assert not any("authorization" in got.headers for got in upstream.got)
    found = describe([parse(text("http://x.example.com")).inbounds["chat"]])
    assert [str(error) for error in OpenAPIV31SpecValidator(found).iter_errors()] == []
    [path] = found["paths"].values()
    assert path["post"]["security"] == [] and not found["components"]["securitySchemes"]


def test_a_credential_that_is_a_part_of_the_address_stays_a_secret(tmp_path: Path) -> None:
    """As it stands, slashes and a query of its own included; and in no log where the upstream repeats it."""
    secret = "T0/B0/hunter2hunter2?sig=a%2Bb&v=1"
    described = HOOK.replace('auth = "none"', 'auth = "path"\nsend.path = "/services/{credential}"')

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}/v1"\nkey = "{secret}"\n'
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{described}'

    refusal = say(400, {"error": f"no /services/{secret}"})
    with chaos(refusal) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        [dead] = h.wait_for(lambda: [row for row in outbox(h) if row.state == "dead"])
        [got] = upstream.got
    assert f"no /services/{MASK}" in dead.reason
    assert got.path == f"/v1/services/{secret}"
    config = parse(text("http://x.example.com"))
    [request] = rehearse(
        command_in(dialects()["ilert"], Operation.CREATE, event), dialects()["ilert"], config.upstreams["there"]
    ).requests
    assert request.path == f"/services/{MASK}"


@pytest.mark.parametrize("status", [404, 410])
def test_an_address_that_was_revoked_holds_and_loses_nothing(status: int, tmp_path: Path) -> None:
    """Chats have no 401 for an address that they gave out and took back: each alert of a rotation was a dead letter."""
    described = HOOK.replace('auth = "none"', 'auth = "path"\nsend.path = "/services/{credential}"')
    (tmp_path / "hook").write_text("T0/B0/old")

    def answers(got: Got) -> Any:
        return (
            OK
            if got.path.endswith("/services/T0/B0/new")
            else say(status, b"no_service", {"content-type": "text/plain"})
        )

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}/v1"\nkey = "file:{tmp_path}/hook"\n'
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{described}'

    with chaos(answers) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        h.wait_for(lambda: h.client.get(f"{h.url}/-/ready").json()["held"] == ["there"])
        (tmp_path / "hook").write_text("T0/B0/new\n")
        [row] = h.wait_for(lambda: [row for row in outbox(h) if row.state == "delivered"])
    assert row.status == 202


def test_where_something_of_the_alert_is_in_the_address_it_may_be_that_which_is_not_there(tmp_path: Path) -> None:
    described = HOOK.replace('auth = "none"', 'auth = "path"\nsend.path = "/{credential}/{key}"')
    config = parse(f'[inbound.ilert]\n[upstreams.there]\ndialect = "chat"\nurl = "http://a"\nkey = "k"\n{described}')
    assert not config.upstreams["there"].dialect.outbound.verdicts


@pytest.mark.parametrize(
    ("success", "answer", "reason"),
    [
        ("{ ok = true }", {"ok": True}, ""),
        ("{ ok = true }", {"ok": False, "error": "channel_not_found"}, "ok is false in its answer: channel_not_found"),
        ("{ 'result.errcode' = [0, 1] }", {"result": {"errcode": 1}}, ""),
        (
            "{ 'result.errcode' = [0, 1] }",
            {"errmsg": "sign not match"},
            "result.errcode is missing in its answer: sign",
        ),
        ("{ ok = true }", "ok", "ok is missing in its answer"),
    ],
)
def test_a_refusal_that_looks_like_a_success(tmp_path: Path, success: str, answer: Any, reason: str) -> None:
    """As at chats that answer everything with 200: an alert that was not taken is a dead letter."""

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}"\n'
        own = HOOK.replace('auth = "none"', f'auth = "none"\nsend.success = {success}')
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{own}'

    with chaos(say(200, answer)) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        [row] = h.wait_for(lambda: [row for row in outbox(h) if row.state in ("delivered", "dead")])
        assert (row.state, row.code) == (("dead", "refused") if reason else ("delivered", ""))
        assert row.reason.startswith(reason)


@pytest.mark.parametrize("success", ["", "send.success = { errcode = 0 }"])
def test_an_answer_that_asks_for_patience_is_no_verdict(tmp_path: Path, success: str) -> None:
    """As at chats that say with 200 that they are asked too often: it is sent again until they take it."""

    def text(url: str) -> str:
        retry = 'retry = { first = "20ms", most = "20ms" }'
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}"\n{retry}\n'
        own = HOOK.replace('auth = "none"', f'auth = "none"\nsend.again = {{ errcode = [-1, 45009] }}\n{success}')
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{own}'

    with chaos(say(200, {"errcode": 0})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        upstream.plan(say(200, {"errcode": 45009, "errmsg": "api freq out of limit"}), say(200, {"errcode": -1}))
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        [row] = h.wait_for(lambda: [row for row in outbox(h) if row.state in ("delivered", "dead")])
        assert (row.state, row.attempts) == ("delivered", 3), row.reason
        assert len(upstream.got) == 3


def test_keys_that_nobody_can_show_are_refused() -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(f'[inbound.chat]\nkeys = {{ a = "b" }}\n[upstreams.x]\ndialect = "chat"\nurl = "http://x"\n{HOOK}')
    assert raised.value.problems == [
        'inbound.chat.keys: cannot be shown, as dialects.chat has auth = "none"; write anonymous = true'
    ]


def test_out_to_an_alert_source(tmp_path: Path) -> None:
    """No severity and no acknowledgement there: the one is carried, the other not told."""
    made, ended = life(tmp_path, "source", "ALERT", "RESOLVE", severity=2, customDetails={"a": 1})
    assert made.path == f"/hook/v2/alert_events/http/alert-source?token={UPSTREAM_KEY}"
    assert made.headers["x-sent-by"] == "gateway"
    assert {name: made.body[name] for name in ("title", "deduplication_key", "status")} == {
        "title": "Disk full on db-1",
        "deduplication_key": "disk-1",
        "status": "firing",
    }
    assert made.body["metadata"]["alert_gateway"]["fields"]["severity"] == 3
    assert ended.body["status"] == "resolved"


def test_out_to_a_nested_body(tmp_path: Path) -> None:
    made, taken, ended = life(tmp_path, "deep", "ALERT", "ACCEPT", "RESOLVE", summary="A very long summary of it all")
    assert (made.method, made.path) == ("PUT", "/hook/v1/alerts/disk-1")
    assert (taken.path, ended.path) == ("/hook/v1/alerts/disk-1/acknowledge", "/hook/v1/alerts/disk-1")
    body = made.body
    assert (body["version"], body["data"]["type"], body["meta"]) == (3, "alerts", {"auth": {"token": UPSTREAM_KEY}})
    assert body["data"]["attributes"]["text"]["summary"] == "A very long summary…"
    assert body["data"]["source"] == "gateway"
    assert body["data"]["attributes"]["at"].endswith("Z")
    assert [got.body["data"]["state"]["is_open"] for got in (made, taken, ended)] == [True, "mine", False]


@pytest.mark.parametrize("name", OWN)
def test_the_same_dialect_receives_what_its_caller_said(tmp_path: Path, name: str) -> None:
    """Unknown fields included, and nothing added but the credential and the constants of the description."""
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: outbound(name, upstream.url)) as h:
        assert post(h, name, OWN[name]).status < 300
        [got] = h.wait_for(lambda: list(upstream.got))
    sent = got.body
    if name == "deep":
        assert sent.pop("version") == 3 and sent["data"].pop("type") == "alerts"
        sent["meta"]["auth"]["token"] = KEY
    assert sent == OWN[name]


LOOSE = """
[dialects.loose]
auth = "none"
[dialects.loose.fields]
summary = "title"
dedup_key = "id"
labels = "tags"
severity = { at = "level", words = { fatal = 0, minor = 4 } }
status = { at = "state", acknowledge = "taken", resolve = "closed" }
[inbound.loose]
anonymous = true
"""
"""One whose ends say what its alerts cannot."""


def test_an_end_is_told_in_its_callers_words_whatever_else_it_repeats(tmp_path: Path) -> None:
    """Of an end no more is read than which alert it ends; the same vendor behind is told it all the same."""
    said: list[dict[str, Any]] = [
        {"id": "x", "title": "Disk full", "level": "fatal", "state": "open"},
        {"id": "x", "level": "none", "state": "taken"},
        {"id": "x", "level": "none", "tags": ["a"], "state": "closed"},
    ]

    def text(url: str) -> str:
        return f'{LOOSE}[upstreams.there]\ndialect = "loose"\nurl = "{url}"\n'

    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        for number, body in enumerate(said, 1):
            assert h.call("POST", "/loose", body, key=None).status == 202
            h.wait_for(lambda: len(upstream.got) >= number)  # noqa: B023 - asked for at once
        assert [got.body for got in upstream.got] == said


STATE = """
[dialects.state]
auth = "none"
[dialects.state.fields]
summary = "name"
status = { at = "type", acknowledge = "ACKNOWLEDGEMENT", resolve = ["RECOVERY", "OK"] }
severity = { at = "type", words = { CRITICAL = 2, WARNING = 4, INFO = 6 } }
dedup_key = "id"
[inbound.state]
anonymous = true
"""
"""One word says how bad it is and how it stands, as at Splunk On-Call, Zenduty, Nagios and Checkmk."""


def test_one_word_says_how_bad_it_is_and_how_it_stands(tmp_path: Path) -> None:
    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "state"\nurl = "{url}"\n'
        return f'{STATE}[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}'

    severities: dict[str, list[dict[str, Any]]] = {
        "ALERT": [{"severity": 1}, {"severity": 4}, {}],
        "ACCEPT": [{}],
        "RESOLVE": [{}],
    }
    own = [{"type": "warning", "id": "y", "name": "a"}, {"type": "INFO", "id": "y", "name": "a"}]
    own += [{"type": "acknowledgement", "id": "y"}, {"type": "OK", "id": "y"}]
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        number = 0
        for word, more in severities.items():
            for fields in more:
                event = {"apiKey": KEY, "eventType": word, "alertKey": "x", "summary": f"Disk full {number}", **fields}
                assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
                number += 1
                h.wait_for(lambda: len(upstream.got) == number)  # noqa: B023 - asked for at once
        types = ["CRITICAL", "WARNING", "WARNING", "ACKNOWLEDGEMENT", "RECOVERY"]
        assert [got.body["type"] for got in upstream.got] == types
        for body in own:
            assert h.call("POST", "/state", body, key=None).status == 202
            number += 1
            h.wait_for(lambda: len(upstream.got) == number)  # noqa: B023 - asked for at once
        assert [got.body for got in upstream.got][-4:] == own
        refused = h.call("POST", "/state", {"type": "CRIT", "id": "z"}, key=None)
        assert refused.status == 400 and "CRITICAL, WARNING, INFO" in refused.body["error"]["message"]


def test_an_alert_without_a_severity_is_told_as_one_that_is_on() -> None:
    dialect = parse(f'{STATE}[upstreams.there]\ndialect = "state"\nurl = "https://example.com"\n').own["state"]
    event = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "x", "summary": "a"}
    for origin, body in ((dialect, {"id": "x", "name": "a"}), (dialects()["ilert"], event)):
        asked = command_in(origin, Operation.CREATE, body)
        [request] = rehearse(asked, origin, bare_upstream(dialect)).requests
        assert isinstance(request.body, dict) and request.body["type"] == "CRITICAL"


CHAT = """
[dialects.chatty]
auth = "none"
constants = { channel = "#ops" }
[dialects.chatty.fields]
summary = "title"
details = "text"
dedup_key = "id"
severity = { at = "level", words = { critical = 2, warning = 4 } }
status = { at = "state", firing = "FIRING", resolve = "RESOLVED" }
links = { at = "url", form = "address" }
labels = { at = "tags", form = "list" }
[dialects.chatty.send.body]
text = "{state} {level}: {title}"
attachments = [{ text = "{text}", title_link = "{url}", footer = "{tags} {'a': 1} {}", of = ["{tags}", "{url}", 1] }]
[inbound.chatty]
anonymous = true
"""


def test_a_chat_is_told_in_a_shape_of_its_own(tmp_path: Path) -> None:
    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chatty"\nurl = "{url}"\n'
        return f'{CHAT}[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}'

    event = {"apiKey": KEY, "alertKey": "x", "summary": "Disk full", "details": "92 %", "severity": 1}
    link = {"links": [{"href": "https://example.com/"}], "labels": {"env": "prod", "team": "web"}}
    said: list[tuple[str, dict[str, Any]]] = [
        ("/ilert/api/events", {**event, **link, "eventType": "ALERT"}),
        ("/ilert/api/events", {**event, "eventType": "RESOLVE"}),
        ("/chatty", {"id": "y", "title": "Own", "level": "warning"}),
        ("/chatty", {"id": "y", "state": "RESOLVED"}),
    ]
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        for number, (path, body) in enumerate(said, 1):
            assert h.call("POST", path, body, key=None).status == 202
            h.wait_for(lambda: len(upstream.got) >= number)  # noqa: B023 - asked for at once
        told = [got.body for got in upstream.got]
    assert [body["text"] for body in told] == [
        "FIRING critical: Disk full",
        "RESOLVED critical: Disk full",
        "FIRING warning: Own",
        "RESOLVED warning: Own",
    ]
    [first], [last] = told[0]["attachments"], told[2]["attachments"]
    assert first["text"].startswith("92 %") and first["title_link"] == "https://example.com/"
    assert first["footer"] == "env:prod, team:web {'a': 1} {}"
    assert first["of"] == [["env:prod", "team:web"], "https://example.com/", 1]
    assert last == {"footer": " {'a': 1} {}", "of": [1]}
    assert {body["channel"] for body in told} == {"#ops"} and set(told[0]) == {"text", "attachments", "channel"}


def test_what_a_shape_of_its_own_has_no_room_for_is_said_to_its_callers_too(tmp_path: Path) -> None:
    def text(url: str) -> str:
        return f'{CHAT}[upstreams.there]\ndialect = "chatty"\nurl = "{url}"\n'

    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        said = {"id": "y", "title": "Own", "level": "warning", "who": {"is": "me"}}
        answer = h.call("POST", "/chatty", said, key=None)
        assert answer.headers["alert-gateway-report"] == "there; kept=extensions.chatty.who"


def test_the_end_of_an_alert_that_nobody_knows_is_no_message_without_words(tmp_path: Path) -> None:
    """All that is known of it is its key, which this chat has nothing of; another that has is told."""

    def text(url: str) -> str:
        keyed = CHAT.replace("chatty", "keyed").replace("{level}: {title}", "{level}: {title} ({id})")
        there = "".join(
            f'[upstreams.{name}]\ndialect = "{name}"\nurl = "{url}/{name}"\n' for name in ("chatty", "keyed")
        )
        routes = '[[routes]]\nto = ["chatty", "keyed"]\n'
        return f'{CHAT}{keyed}[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{routes}'

    said: list[tuple[str, dict[str, Any]]] = [
        ("/ilert/api/events", {"apiKey": KEY, "alertKey": "x", "summary": "Disk full", "eventType": "RESOLVE"}),
        ("/chatty", {"id": "y", "state": "RESOLVED"}),
        ("/chatty", {"id": "z", "state": "RESOLVED", "title": "Own"}),
    ]
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        for path, body in said:
            assert h.call("POST", path, body, key=None).status == 202
        h.wait_for(lambda: len(upstream.got) >= 4 and not outbox(h, "waiting"))
        told = sorted((got.path, got.body["text"]) for got in upstream.got)
    assert told == [
        ("/chatty", "RESOLVED : Own"),
        ("/keyed", "RESOLVED :  (x)"),
        ("/keyed", "RESOLVED :  (y)"),
        ("/keyed", "RESOLVED :  (z)"),
    ]


@pytest.mark.parametrize(
    ("more", "upstream", "is_said"),
    [
        ("", "", True),
        ("send.updates = false", "", False),
        ("", 'on_resolve = "keep"', False),
        ('fields.dedup_key = "id"\nfields.status = { at = "state", resolve = "ok" }', "", False),
    ],
)
def test_an_upstream_that_hears_of_no_end_is_warned_of(more: str, upstream: str, is_said: bool) -> None:
    described = f'[dialects.acme]\nauth = "none"\nfields.summary = "title"\n{more}\n'
    config = parse(f'[inbound.ilert]\n[upstreams.there]\ndialect = "acme"\nurl = "http://x"\n{upstream}\n{described}')
    assert any("upstreams.there: dialects.acme has no word for an end" in one for one in warnings(config)) is is_said


INCIDENTS = """
[dialects.incidents]
[dialects.incidents.send]
path = "/api/v3/incidents"
id = "data.id"
paths = { acknowledge = "/api/v3/incidents/{id}/acknowledge", resolve = "/api/v3/incidents/{id}" }
methods = { resolve = "DELETE" }
[dialects.incidents.fields]
summary = { at = "name", required = true }
details = "text"
"""
"""A vendor that finds an incident by the id that it gave it, as Better Stack's and Rootly's APIs do."""


def incidents(url: str) -> str:
    """A gateway in front of it."""
    there = f'[upstreams.there]\ndialect = "incidents"\nurl = "{url}"\nkey = "k"\nretry = {{ first = "50ms" }}\n'
    return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{INCIDENTS}'


def test_an_alert_is_found_by_the_id_in_the_answer(tmp_path: Path) -> None:
    """What has no path is not told; the same key that fires again is another incident, with an id of its own."""
    words = ["ALERT", "ALERT", "ACCEPT", "RESOLVE", "ALERT", "RESOLVE"]
    with (
        chaos(say(201, {"data": {"id": "a/1"}})) as upstream,
        house(tmp_path, config=lambda _: incidents(upstream.url)) as h,
    ):
        for number, word in enumerate(words):
            if word == "ALERT" and number:
                upstream.always(say(201, {"data": {"id": 2}}))
            event = {"apiKey": KEY, "eventType": word, "alertKey": "disk", "summary": f"Disk {number}"}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            h.wait_for(lambda: not outbox(h, "waiting"))
        told: list[Any] = [(got.method, got.path, got.body if got.content else None) for got in upstream.got]
    assert [one[:2] for one in told] == [
        ("POST", "/api/v3/incidents"),
        ("POST", "/api/v3/incidents/a%2F1/acknowledge"),
        ("DELETE", "/api/v3/incidents/a%2F1"),
        ("POST", "/api/v3/incidents"),
        ("DELETE", "/api/v3/incidents/2"),
    ]
    assert told[0][2]["name"] == "Disk 0" and told[3][2]["name"] == "Disk 4" and not told[2][2]


@pytest.mark.parametrize("answer", [{"data": {}}, {"data": {"id": ""}}, {"data": {"id": True}}, [], None])
def test_an_answer_without_an_id_is_a_refusal_and_no_second_page(tmp_path: Path, answer: Any) -> None:
    with chaos(say(201, answer)) as upstream, house(tmp_path, config=lambda _: incidents(upstream.url)) as h:
        for word in ("ALERT", "RESOLVE"):
            event = {"apiKey": KEY, "eventType": word, "alertKey": "disk", "summary": "Disk"}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            h.wait_for(lambda: not outbox(h, "waiting"))
            if word == "ALERT":
                [dead] = outbox(h, "dead")
                assert "no id at data.id" in str(dead.reason)
        assert len(upstream.got) == 1


def test_a_lost_answer_brings_it_there_again(tmp_path: Path) -> None:
    """There is no list to look in: a page that comes twice is better than one that never comes."""
    with (
        chaos(say(201, {"data": {"id": 7}})) as upstream,
        house(tmp_path, config=lambda _: incidents(upstream.url)) as h,
    ):
        upstream.plan(CLOSE)
        for word in ("ALERT", "RESOLVE"):
            event = {"apiKey": KEY, "eventType": word, "alertKey": "disk", "summary": "Disk"}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            h.wait_for(lambda: not outbox(h, "waiting"))
        assert [(got.method, got.path[17:]) for got in upstream.got] == [("POST", ""), ("POST", ""), ("DELETE", "/7")]


WRAPPED = """
[dialects.topic]
auth = { query = "token" }
json = "Message"
constants = { Type = "Notification" }
[dialects.topic.fields]
summary = { at = "Message.AlarmName", required = true }
dedup_key = "Message.AlarmArn"
details = "Message.NewStateReason"
status = { at = "Message.NewStateValue", firing = "ALARM", resolve = "OK" }
[dialects.many]
auth = "none"
each = "data.alerts"
[dialects.many.fields]
summary = { at = "title", required = true }
dedup_key = "id"
source = "monitor"
status = { at = "state", resolve = "ok" }
"""
"""A topic that tells in a text that is JSON, as Amazon's SNS does for CloudWatch; and one that tells of several."""


def wrapped(url: str) -> str:
    """A gateway that speaks both to its callers, and to upstreams."""
    there = f'[upstreams.topic]\ndialect = "topic"\nurl = "{url}/topic"\nkey = "{UPSTREAM_KEY}"\n'
    there += f'[upstreams.many]\ndialect = "many"\nurl = "{url}/many"\n[[routes]]\nto = ["topic", "many"]\n'
    callers = f'[inbound.topic]\nkeys = {{ ci = "{KEY}" }}\n[inbound.many]\nanonymous = true\n'
    return f"{callers}{there}{WRAPPED}"


def test_a_text_that_is_json_is_opened_and_written_again(tmp_path: Path) -> None:
    alarm = {
        "AlarmName": "CPU",
        "AlarmArn": "arn:1",
        "NewStateReason": "97 %",
        "NewStateValue": "ALARM",
        "Region": "eu",
    }
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: wrapped(upstream.url)) as h:
        for said in (alarm, {**alarm, "NewStateValue": "OK"}):
            note = {"Type": "Notification", "MessageId": "m-1", "Message": json.dumps(said)}
            assert h.call("POST", f"/topic?token={KEY}", note, key=None).status == 202
            h.wait_for(lambda: not outbox(h, "waiting"))
        for text in ("You have chosen to subscribe", "[1]", "7", "", '{"a": ' + "[" * 200 + "]" * 200 + "}"):
            answer = h.call("POST", f"/topic?token={KEY}", {"Type": "Other", "Message": text}, key=None)
            assert answer.status == 400 and "Message" in answer.body["error"]["message"]
        own = [got.body for got in upstream.got if got.path.startswith("/topic")]
        other = [got.body["data"]["alerts"] for got in upstream.got if got.path.startswith("/many")]
    assert [json.loads(body["Message"]) for body in own] == [alarm, {**alarm, "NewStateValue": "OK"}]
    assert own[0]["Type"] == "Notification" and own[0]["MessageId"] == "m-1"
    assert [(one["id"], one["state"]) for [one] in other] == [("arn:1", "firing"), ("arn:1", "ok")]


SIGNED = """
[dialects.signed]
auth = "none"
signature = { header = "X-Hub-Signature-256", prefix = "sha256=", form = "FORM" }
fields = { summary = "title" }
[inbound.signed]
anonymous = true
hmac = ["first-secret", "second-secret"]
"""


@pytest.mark.parametrize("form", ["hex", "base64"])
def test_a_request_that_is_not_signed_is_refused(tmp_path: Path, form: str) -> None:
    def signature(secret: str, body: bytes) -> str:
        digest = hmac.new(secret.encode(), body, "sha256")
        return "sha256=" + (digest.hexdigest() if form == "hex" else base64.b64encode(digest.digest()).decode())

    def text(url: str) -> str:
        return SIGNED.replace("FORM", form) + upstream_table("there", "pagerduty", url)

    body = b'{"title": "Disk",  "n": 1}'
    good = signature("first-secret", body)
    tried = [
        (good, 202),
        (signature("second-secret", body), 202),
        (good.removeprefix("sha256="), 401),
        (signature("third-secret", body), 401),
        (signature("first-secret", body + b" "), 401),
        ("", 401),
    ]
    with house(tmp_path, config=text) as h:
        for said, status in tried:
            marked = {"x-hub-signature-256": said} if said else {}
            answer = h.client.post(f"{h.url}/signed", content=body, headers=marked)
            assert answer.status_code == status, (said, answer.text)


def test_where_the_file_of_the_secret_is_empty_nobody_can_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody could, with nothing for the secret, for as long as it was."""
    monkeypatch.setattr("gateway.secrets.BEING_WRITTEN", 0.0)
    (tmp_path / "secret").write_text("first-secret")
    body = b'{"title": "Disk"}'

    def text(url: str) -> str:
        signed = SIGNED.replace("FORM", "hex").replace("first-secret", f"file:{tmp_path}/secret")
        return signed + upstream_table("there", "pagerduty", url)

    with house(tmp_path, config=text) as h:

        def posted(secret: str) -> int:
            marked = {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()}
            return h.client.post(f"{h.url}/signed", content=body, headers=marked).status_code

        assert (posted("first-secret"), posted("")) == (202, 401)
        (tmp_path / "secret").write_text("\n")
        assert (posted(""), posted("first-secret"), posted("second-secret")) == (401, 401, 202)


def test_who_shows_a_password_only_when_asked_is_asked(tmp_path: Path) -> None:
    def text(url: str) -> str:
        own = '[dialects.acme]\nauth = "basic"\nfields = { summary = "title" }\n'
        return f'{own}[inbound.acme]\nkeys = {{ ci = "user:pass-word-1" }}\n' + upstream_table(
            "there", "pagerduty", url
        )

    with house(tmp_path, config=text) as h:
        answer = h.call("POST", "/acme", {"title": "x"}, key=None)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Basic")


def test_one_request_tells_of_several_alerts(tmp_path: Path) -> None:
    """What is beside the list is said of each; what is wrong with one keeps none of the others back."""
    told: list[Any] = [{"title": "A", "id": "a"}, {"title": "B", "id": "b", "monitor": "own"}]
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: wrapped(upstream.url)) as h:
        for alerts, status in (
            (told, 202),
            ([{"id": "a", "state": "ok"}, 7, {"id": "x"}, {"title": "C", "id": "c"}], 400),
            ([], 202),
            ({}, 400),
        ):
            answer = h.call("POST", "/many", {"monitor": "probe", "data": {"alerts": alerts, "n": 1}}, key=None)
            assert answer.status == status, answer.body
        h.wait_for(lambda: not outbox(h, "waiting"))
        own = [got.body["data"]["alerts"][0] for got in upstream.got if got.path.startswith("/many")]
    assert sorted((one["id"], one.get("state", "firing"), one["monitor"]) for one in own) == [
        ("a", "firing", "probe"),
        ("a", "ok", "probe"),
        ("b", "firing", "own"),
        ("c", "firing", "probe"),
    ]


def test_what_has_changed_is_not_told_where_that_would_page_again(tmp_path: Path) -> None:
    """It is told once, also where a change is what brings it there, and again when it came back."""

    def text(url: str) -> str:
        described = '[dialects.push]\nauth = "none"\nfields = { summary = "title" }\nsend.updates = false\n'
        for name in ("loud", "all"):
            described += f'[upstreams.{name}]\ndialect = "push"\nurl = "{url}/{name}"\n'
        described += '[[routes]]\nwhen = ["severity <= 2"]\nto = ["all", "loud"]\n[[routes]]\nto = ["all"]\n'
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{described}'

    said = [("ALERT", 4, "a"), ("ALERT", 4, "b"), ("ALERT", 1, "c"), ("ALERT", 1, "d"), ("RESOLVE", 1, "d")]
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        for word, severity, summary in [*said, ("ALERT", 1, "e")]:
            event = {"apiKey": KEY, "eventType": word, "alertKey": "x", "summary": summary, "severity": severity}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            h.wait_for(lambda: not outbox(h, "waiting"))
        told = sorted((got.path, got.body["title"]) for got in upstream.got)
        assert told == [("/all", "a"), ("/all", "e"), ("/loud", "c"), ("/loud", "e")]
        assert {row.code for row in outbox(h, "void")} == {"not-offered"}


def test_whom_a_shape_of_its_own_wakes_is_told_by_what_it_is_made_of(tmp_path: Path) -> None:
    event = 'send = { apiKey = "k", eventType = "ALERT", alertKey = "x", summary = "Disk", severity = 5 }'
    expect = 'expect = { "there.text" = "FIRING note: Disk", wakes = false }'
    file = tmp_path / "gateway.toml"
    file.write_text(
        CHAT.replace("warning = 4", "warning = 4, note = 6")
        + '[inbound.ilert]\n[upstreams.there]\ndialect = "chatty"\nurl = "http://x"\n'
        + f'[[tests]]\nfrom = "ilert"\n{event}\n{expect}\n'
    )
    checked = CliRunner().invoke(main, ["check", "--config", str(file)])
    assert checked.exit_code == 0, checked.output


def test_two_gateways_speak_a_described_dialect_to_each_other(tmp_path: Path) -> None:
    """What has no field is carried in the container and restored behind it."""
    (tmp_path / "far").mkdir()

    def far(sandbox_url: str) -> str:
        return (
            SOURCE
            + f'[inbound.source]\nkeys = {{ ci = "{UPSTREAM_KEY}" }}\n'
            + upstream_table("there", "ilert", sandbox_url)
        )

    with house(tmp_path / "far", config=far) as second:
        near = outbound("source", "http://u").replace("http://u/hook", f"{second.url}/source")
        with house(tmp_path, config=lambda _: near) as first:
            event = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "k", "summary": "Disk full", "severity": 2}
            first.call("POST", "/ilert/api/events", {**event, "routingKey": "database"}, key=None)
            [made] = second.arrives("ilert", 1)
    assert (made.body["alertKey"], made.body["severity"], made.body["routingKey"]) == ("k", 2, "database")


def test_a_refusal_is_told_with_the_vendors_words() -> None:
    reason = own("deep").outbound.reason
    for content, says in (
        (b'{"errors": [{"title": "Unprocessable", "detail": "level is unknown"}]}', "level is unknown"),
        (b'{"error": {"code": 7, "message": "no"}}', "no"),
        (b'"no"', "no"),
        (b"plainly no", "plainly no"),
        (b"<html>", ""),
        (b"[[[[[1]]]]]", ""),
    ):
        assert reason(Response(422, {}, content)) == says


# --- mistakes ------------------------------------------------------------------------------------------------

FIELDS = '[dialects.acme.fields]\nsummary = "title"\n'
SHARED = FIELDS + "dedup_key = 'id'\nseverity = { at = 's', words = { bad = 1 } }\n"


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("[dialects.acme]\ntitel = 'x'\n" + FIELDS, "dialects.acme.titel", "did you mean 'title'?"),
        ("[dialects.acme]\n", "dialects.acme.fields", "is required"),
        ("[dialects.acme.fields]\nsumary = 'x'\n", "dialects.acme.fields.sumary", "did you mean 'summary'?"),
        (FIELDS + "condition.treshold = 'x'\n", "dialects.acme.fields.condition.treshold", "'condition.threshold'"),
        (FIELDS + "kind = 'x'\n", "dialects.acme.fields.kind", "is not said in a body"),
        (FIELDS + "details = 7\n", "dialects.acme.fields.details", "must be a place"),
        (FIELDS + "details = 'title'\n", "dialects.acme.fields.details", "'title' is taken already"),
        (FIELDS + "details = 'title.long'\n", "dialects.acme.fields.details", "in the way of 'title'"),
        (FIELDS + "details = 'a..b'\n", "dialects.acme.fields.details", "is no place"),
        (FIELDS + "details = 'list.0.x'\n", "dialects.acme.fields.details", "an item of a list"),
        (FIELDS + "details = 'list[0].x'\n", "dialects.acme.fields.details", "an item of a list"),
        (FIELDS + "details = { att = 'x' }\n", "dialects.acme.fields.details.att", "did you mean 'at'?"),
        (FIELDS + "details = { at = [] }\n", "dialects.acme.fields.details.at", "names no place"),
        (FIELDS + "labels = { at = ['a', 'b'] }\n", "dialects.acme.fields.labels.at", "must be one place"),
        (FIELDS + "details = { at = 'x', unit = 's' }\n", "dialects.acme.fields.details.unit", "durations and times"),
        (FIELDS + "details = { at = 'x', limit = 0 }\n", "dialects.acme.fields.details.limit", "at least 1"),
        (FIELDS + "details = { at = 'x', out = ['a'] }\n", "dialects.acme.fields.details.out", "it is for severity"),
        (
            FIELDS + "details = { at = 'x', resolve = 'a' }\n",
            "dialects.acme.fields.details.resolve",
            "setting of status",
        ),
        (FIELDS + "labels = { at = 'x', form = 'address' }\n", "dialects.acme.fields.labels.form", "is not for labels"),
        (FIELDS + "severity = { at = 'x', otherwise = 3 }\n", "dialects.acme.fields.severity.words", "are needed"),
        (FIELDS + "severity = { at = 'x', words = { a = 9 } }\n", "dialects.acme.fields.severity.words.a", "at most 7"),
        (
            FIELDS + "severity = { at = 'x', words = { a = 1, A = 2 } }\n",
            "dialects.acme.fields.severity.words.a",
            "twice",
        ),
        (
            FIELDS + "severity = { at = 'x', words = { a = 1, b = 5 }, out = ['b','a','a','a','a','a','b','b'] }\n",
            "dialects.acme.fields.severity.out",
            "is read as",
        ),
        (
            FIELDS + "urgency = { at = 'x', words = { a = 'hi' } }\n",
            "dialects.acme.fields.urgency.words.a",
            '"high" or "low"',
        ),
        (FIELDS + "source = { at = 'x', default = 7 }\n", "dialects.acme.fields.source.default", "must be a text"),
        (FIELDS + "status = 'state'\n", "dialects.acme.fields.status", "needs words"),
        (
            FIELDS + "status = { at = 's', resolve = 'ok', words = { a = 1 } }\n",
            "dialects.acme.fields.status.words",
            "not go",
        ),
        (FIELDS + "status = { at = 's', resolve = {} }\n", "dialects.acme.fields.status.resolve", "a list of words"),
        (
            FIELDS + "status = { at = 's', firing = 'OK', resolve = 'ok' }\n",
            "dialects.acme.fields.status",
            "two things",
        ),
        (FIELDS + "status = { at = 's', resolve = 'ok' }\n", "dialects.acme.fields", "dedup_key is needed"),
        (FIELDS + "severity = 's'\nstatus = { at = 's', resolve = 'ok' }\n", "dialects.acme.fields.status", "`words`"),
        (SHARED + "status = { at = 's', resolve = 'BAD' }\n", "dialects.acme.fields.status", "'bad' cannot mean two"),
        (
            SHARED + "status = { at = 's', firing = 'on', resolve = 'ok' }\n",
            "dialects.acme.fields.status.firing",
            "every word",
        ),
        ("[dialects.acme]\nauth = 'berer'\n" + FIELDS, "dialects.acme.auth", "did you mean 'bearer'?"),
        ("[dialects.acme]\nauth = { header = 'a', query = 'b' }\n" + FIELDS, "dialects.acme.auth", "names one of"),
        ("[dialects.acme]\nauth = { header = 'a b' }\n" + FIELDS, "dialects.acme.auth.header", "no header's name"),
        ("[dialects.acme]\nauth = { field = 'title.x' }\n" + FIELDS, "dialects.acme.fields.summary", "in the way of"),
        ("[dialects.acme]\nconstants = { title = 'x' }\n" + FIELDS, "dialects.acme.constants.title", "written already"),
        ("[dialects.acme]\ncontainer = 'title'\n" + FIELDS, "dialects.acme.container", "in the way of 'title'"),
        ("[dialects.acme]\npath = 'v1'\n" + FIELDS, "dialects.acme.path", "is no path"),
        ("[dialects.acme]\nsend = { method = 'GET' }\n" + FIELDS, "dialects.acme.send.method", "POST, PUT, PATCH"),
        (
            "[dialects.acme]\nsend = { path = '/{id}' }\n" + FIELDS,
            "dialects.acme.send.path",
            "{key} at most; {id} needs",
        ),
        ("[dialects.acme]\nsignature = {}\n" + FIELDS, "dialects.acme.signature.header", "is required"),
        (
            "[dialects.acme]\nsignature = { header = 'a b' }\n" + FIELDS,
            "dialects.acme.signature.header",
            "no header's name",
        ),
        (
            "[dialects.acme]\nsignature = { header = 'a' }\n" + FIELDS + "[inbound.acme]\nanonymous = true\n",
            "inbound.acme.hmac",
            "is needed",
        ),
        ("[dialects.acme]\njson = 'a..b'\n" + FIELDS, "dialects.acme.json", "is no place"),
        ("[dialects.acme]\njson = 'title'\n" + FIELDS, "dialects.acme.json", "such as title.title"),
        ("[dialects.acme]\neach = 'a[0]'\n" + FIELDS, "dialects.acme.each", "is no place"),
        (
            "[dialects.acme]\nenvelope = 'cloudevents'\neach = 'a'\n" + FIELDS,
            "dialects.acme.each",
            "an envelope",
        ),
        ("[dialects.acme]\nsend.id = 'a'\n" + FIELDS, "dialects.acme.send.id", "is of no use"),
        (
            "[dialects.acme]\nsend = { id = 'a..b', paths = { resolve = '/x' } }\n" + FIELDS,
            "dialects.acme.send.paths.resolve",
            "needs {id}",
        ),
        ("[dialects.acme]\nsend = { id = 'a..b' }\n" + FIELDS, "dialects.acme.send.id", "is no place"),
        (
            "[dialects.acme]\nsend = { id = 'a', path = '/{id}' }\n" + FIELDS,
            "dialects.acme.send.path",
            "only the answer",
        ),
        (
            "[dialects.acme]\nsend = { id = 'a', path = '/{key}' }\n" + FIELDS,
            "dialects.acme.send.path",
            "{id}, as there is send.id",
        ),
        (
            "[dialects.acme]\nsend.methods = { resolv = 'PUT' }\n" + FIELDS,
            "dialects.acme.send.methods.resolv",
            "'resolve'",
        ),
        (
            "[dialects.acme]\nsend.methods = { create = 'DELETE' }\n" + FIELDS,
            "dialects.acme.send.methods.create",
            "POST, PUT, PATCH",
        ),
        (
            "[dialects.acme]\nsend = { paths = { resolv = '/x' } }\n" + FIELDS,
            "dialects.acme.send.paths.resolv",
            "'resolve'",
        ),
        (
            FIELDS + "links = { at = 'x', items = { herf = 'u' } }\n",
            "dialects.acme.fields.links.items.herf",
            "did you mean 'href'?",
        ),
        (
            FIELDS + "links = { at = 'x', items = { href = '' } }\n",
            "dialects.acme.fields.links.items.href",
            "names no place",
        ),
        (
            FIELDS + "links = { at = 'x', items = { href = 'text' } }\n",
            "dialects.acme.fields.links.items",
            "'text' cannot be two things",
        ),
        (
            "[dialects.acme]\nsend.headers = { 'X Y' = 'z' }\n" + FIELDS,
            "dialects.acme.send.headers",
            "no header's name",
        ),
        ("[dialects.acme]\nsend.headers = { X = 'env:Y' }\n" + FIELDS, "dialects.acme.send.headers.X", "no secrets"),
        ('[dialects.acme]\nsend.headers = { X = "a\\nb" }\n' + FIELDS, "dialects.acme.send.headers.X", "no header can"),
        ("[dialects.acme]\nauth = 'path'\n" + FIELDS, "dialects.acme.send.path", "/services/{credential}"),
        ("[dialects.acme]\nsend.path = '/{credential}'\n" + FIELDS, "dialects.acme.send.path", 'auth = "path"'),
        (
            "[dialects.acme]\nauth = 'none'\n" + FIELDS + "[upstreams.x]\ndialect = 'acme'\nurl = 'env:HOOK'\n",
            "upstreams.x.url",
            "that part is `key`",
        ),
        (
            "[dialects.acme]\nsend.success = { 'a..b' = 1 }\n" + FIELDS,
            "dialects.acme.send.success.a..b",
            "is no place",
        ),
        ("[dialects.acme]\nsend.success = { ok = {} }\n" + FIELDS, "dialects.acme.send.success.ok", "list of words"),
        ("[dialects.acme]\nsend.again = { ok = {} }\n" + FIELDS, "dialects.acme.send.again.ok", "list of words"),
        (
            "[dialects.acme]\nsend.success = { ok = 'yes' }\nsend.again = { ok = ['Yes', 'no'] }\n" + FIELDS,
            "dialects.acme.send.again.ok",
            "'Yes' is a success already",
        ),
        (FIELDS + "[dialects.acme.send.body]\na = '{title} {b}'\n", "dialects.acme.send.body", "{b} is no place of"),
        (FIELDS + "[dialects.acme.send.body]\na = '{summary}'\n", "dialects.acme.send.body", "is at 'title'"),
        (FIELDS + "[dialects.acme.send.body]\na = ['{titel}']\n", "dialects.acme.send.body", "did you mean 'title'"),
        (FIELDS + "[dialects.acme.send.body]\na = 'x'\n", "dialects.acme.send.body", "has nothing of 'title'"),
        (
            "[dialects.acme]\nenvelope = 'cloudevents'\n" + FIELDS + "[dialects.acme.send.body]\na = '{title}'\n",
            "dialects.acme.send.body",
            "an envelope",
        ),
        ("[dialects.acme]\nreply = { status = 404 }\n" + FIELDS, "dialects.acme.reply.status", "between 200 and 299"),
        (
            "[dialects.acme]\nreply = { body = { is = ['{title}'] } }\n" + FIELDS,
            "dialects.acme.reply.body",
            "{title} is not known when callers are answered: there are {id} and {key}",
        ),
        (
            "[dialects.acme]\nenvelope = 'cloudevent'\n" + FIELDS,
            "dialects.acme.envelope",
            "did you mean 'cloudevents'?",
        ),
        ("[dialects.acme]\nmode = 'binary'\n" + FIELDS, "dialects.acme.mode", "there is no envelope"),
        ("[dialects.acme]\nkind = 'page'\n" + FIELDS, "dialects.acme.kind", 'must be "rule" or "occurrence"'),
        ('[dialects.ilert.fields]\nsummary = "x"\n', "dialects.ilert", "is taken already"),
        ('[dialects.Acme.fields]\nsummary = "x"\n', "dialects.Acme", "small letters"),
        ("dialects = { acme = 7 }\n", "dialects.acme", "a table"),
        (FIELDS + "[inbound.acmee]\n", "inbound.acmee", "did you mean 'acme'?"),
    ],
)
def test_a_mistake_is_told_with_its_path(text: str, path: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(text)
    problems = [one for one in raised.value.problems if one.startswith(f"{path}: ")]
    assert any(says in one for one in problems), raised.value.problems


SHIPPED = (Path(str(mappings.cloudevents.__file__)).parent / "dialect.toml").read_text("utf8")


AROUND = [f"[dialects.{one}" for one in WRAPPED.split("[dialects.")[1:]]
TOPIC, MANY = "".join(AROUND[:2]), "".join(AROUND[2:])
SIGNS = SIGNED.partition("[inbound")[0].replace("FORM", "hex")
MINE = SHIPPED.replace("dialects.cloudevents", "dialects.mine")


@pytest.mark.parametrize("text", [TITLES, SOURCE, DEEP, MINE, INCIDENTS, TOPIC, MANY, SIGNS])
def test_whatever_stands_in_a_description_it_is_used_or_its_faults_are_said(text: str) -> None:
    """Each place of it taken away, or replaced by each oddity."""
    [(name, table)] = tomllib.loads(text)["dialects"].items()
    used = 0
    for changed in every_mutation(table):
        check = Tables()
        found = dialects_in(check, {name: changed}, dialects()) if isinstance(changed, dict) else {}
        assert bool(found) is (isinstance(changed, dict) and not check.problems), changed
        assert all(problem.startswith(f"dialects.{name}") for problem in check.problems)
        for dialect in found.values():
            for body in dialect.samples:
                used += 1
                assert command_in(dialect, Operation.CREATE, body).operation is Operation.CREATE
    assert used


def test_what_is_wrong_with_a_description_is_said_once() -> None:
    """Not again wherever the dialect is used."""
    there = '[inbound.acme]\n[upstreams.own]\ndialect = "acme"\nurl = "https://x"\nkey = "k"\n'
    with pytest.raises(ConfigurationError) as raised:
        parse('[dialects.acme.fields]\nsumary = "x"\n' + there)
    assert [one.partition(":")[0] for one in raised.value.problems] == ["dialects.acme.fields.sumary"]


def test_two_that_are_served_at_one_path_cannot_both_be() -> None:
    twin = SOURCE.replace("dialects.source", "dialects.twin")
    with pytest.raises(ConfigurationError, match=r"is also a route of"):
        described(TITLES + SOURCE + DEEP + twin, '[inbound.twin]\nkeys = { ci = "x" }\n')


# --- to and from every other ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "example"), CREATES, ids=sample_id)
@pytest.mark.parametrize("name", OWN)
def test_what_any_vendor_says_is_what_its_callers_could_have_said(name: str, origin: str, example: Example) -> None:
    """What is sent is read again, and what was carried there comes back."""
    command = asked(origin, example)
    flat = alert_of(dialects()[origin], command)
    there = bare_upstream(own(name)).destination
    said = translate(saying(flat, origin, there), there)
    sending = Sending(operation=Operation.CREATE, at=NOW, body=said.body, patch={}, key="key", ids={}, seen={})
    request = next(own(name).outbound.calls[Operation.CREATE](sending))
    again = own(name).routes[0].read(Incoming({}, {}, {}, plain(request.body), NOW))
    assert isinstance(again, Command) and again.operation is Operation.CREATE
    returned = restore(again.patch, again.carried)
    never = SERVER_OWNED | {"dedup_key", "kind"}
    sent = {path: value for path, value in flat.items() if path not in never and value is not None}
    if again.carried is not None:
        assert {path: returned.get(path) for path in sent} == sent
    assert own(name).mapping.container is None or again.carried is not None


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_vendor_says_can_be_sent_there(name: str, data: st.DataObject) -> None:
    origin = data.draw(st.sampled_from(sorted(dialects())))
    _, command = data.draw(alerts(origin))
    sent = rehearse(command, dialects()[origin], bare_upstream(own(name)))
    assert json.dumps([plain(request.body) for request in sent.requests])


# --- what comes with it --------------------------------------------------------------------------------------


def test_its_rows_are_listed_and_reported_as_those_of_any_other() -> None:
    config = described()
    page = mappings_page(config.own)
    assert "| `alert_priority` | `severity` | both |" in page
    assert "| `severity` | mapped → `alert_priority` | carried | " in page
    [row, *_] = dialect_rows(config.own.values())
    assert (row["dialect"], row["accepts"], row["sends"]) == (
        "datadog",
        ["create", "update", "resolve"],
        ["create", "update", "resolve", "reopen"],
    )
    report = rehearse(read("datadog", TRIGGERED), own("datadog"), config.upstreams["there"]).report
    assert {fate.field: fate.fate for fate in report}["team"] == "carried"


def test_it_is_described_as_what_it_is() -> None:
    """The OpenAPI description has its paths, bodies and where its credential is."""
    config = described()
    found = describe(list(config.inbounds.values()))
    assert [str(error) for error in OpenAPIV31SpecValidator(found).iter_errors()] == []
    schemes = found["components"]["securitySchemes"]
    assert schemes["datadog"] == {"type": "apiKey", "in": "header", "name": "X-Gateway-Key"}
    assert schemes["source"] == {"type": "apiKey", "in": "query", "name": "token"}
    operation = found["paths"]["/deep/"]["post"]
    assert operation["description"] == "The caller's key is a field of the body."


def test_a_severity_without_a_word_of_its_own_is_told_the_louder() -> None:
    """In doubt the louder: the nearest word that is at least as loud."""
    [scale] = [entry.scale for entry in own("datadog").mapping.rows if entry.scale]
    assert scale.out == ("P1", "P1", "P1", "P2", "P3", "P4", "P5", "P5")
    [numbers] = [entry.scale for entry in own("deep").mapping.rows if entry.scale]
    assert numbers.out == (1, 1, 1, 2, 2, 2, 3, 3)


def test_a_long_key_is_told_apart_from_one_that_begins_alike() -> None:
    same_key = own("datadog").same_key
    one, other = same_key("k" * 100 + "1"), same_key("k" * 100 + "2")
    assert one != other and len(one) == len(other) == 60


def test_a_change_of_the_description_is_a_change_of_its_upstreams() -> None:
    """A reload takes up an upstream anew whose dialect is described otherwise."""
    more = '[upstreams.own]\ndialect = "deep"\nurl = "https://x"\nkey = "k"\n[[routes]]\nto = ["own"]\n'
    assert described(more=more).upstreams["own"].dialect.description["constants"]["version"] == 3
    other = described(DEEP.replace("version = 3", "version = 4") + TITLES + SOURCE, more)
    assert other.upstreams["own"].written != described(more=more).upstreams["own"].written


# --- the command line, and the README's example ----------------------------------------------------------------

EXAMPLE = re.search(r"^## A vendor of your own.*?^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BODY = re.search(r"-d '\n(.*?)'\n```", README, re.DOTALL)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The README's example as a file."""
    assert EXAMPLE
    file = tmp_path / "gateway.toml"
    file.write_text(EXAMPLE[1].replace("/var/lib/alert-gateway", str(tmp_path)))
    return file


def run(*words: str, said: Any = None) -> Result:
    """The command line."""
    return CliRunner().invoke(main, list(words), input=None if said is None else json.dumps(said))


def test_the_example_passes_its_check(example: Path) -> None:
    found = run("check", "--config", str(example), "--no-secrets")
    assert found.exit_code == 0, found.output
    assert "alert.level fatal" in found.output and "payload.severity critical → wakes" in found.output
    example.write_text(example.read_text().replace('level = "major"', 'level = "note"'))
    assert run("check", "--config", str(example), "--no-secrets").exit_code == 1


def test_the_example_takes_the_request_that_is_shown(example: Path) -> None:
    assert BODY

    def text(sandbox_url: str) -> str:
        there = example.read_text().replace("https://events.pagerduty.com", f"{sandbox_url}/pagerduty")
        there = there.replace("env:ACME_TOKEN", KEY).replace("env:PAGERDUTY_KEY", UPSTREAM_KEY)
        return "\n".join(line for line in there.splitlines() if not line.startswith("store"))

    with house(example.parent, config=text) as h:
        sent = h.call("POST", "/acme", json.loads(BODY[1]), key=None, headers={"x-acme-token": KEY})
        assert (sent.status, sent.body) == (200, {"ok": True, "incident": "db-1/disk"})
        [page] = h.arrives("pagerduty", 1)
    assert page.body["payload"]["summary"] == "Disk full"


def test_it_is_translated_explained_and_listed(example: Path) -> None:
    said = {"alert": {"title": "Disk full", "id": "k", "level": "fatal"}}
    there = run("translate", "--from", "acme", "--to", "ilert", "--config", str(example), said=said)
    assert json.loads(there.stdout)["requests"][0]["body"]["severity"] == 1
    event = {"eventType": "ALERT", "summary": "Disk full", "alertKey": "k", "severity": 1}
    back = run("translate", "--from", "ilert", "--to", "acme", "--config", str(example), said=event)
    [request] = json.loads(back.stdout)["requests"]
    assert (request["method"], request["path"], request["headers"]) == ("POST", "", {"X-Acme-Token": MASK})
    assert request["body"]["alert"]["state"] == "open" and request["body"]["version"] == 2
    refused = run("translate", "--from", "acme", "--to", "ilert", "--config", str(example), said={"alert": {}})
    assert (refused.exit_code, "alert.title: is required" in refused.stderr) == (1, True)
    explained = run("explain", "--config", str(example), "--from", "acme", said=said)
    assert explained.exit_code == 0 and "payload.severity critical: wakes" in explained.stdout
    assert "acme: Acme Monitor" in run("dialects", "--config", str(example)).stdout
    assert "acme" not in run("dialects").stdout
    assert run("translate", "--from", "acme", "--to", "ilert", said=said).exit_code == 2
