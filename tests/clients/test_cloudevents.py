"""CloudEvents 1.0 in both modes and both directions: by hand, as the specification has it, and with its own SDK."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from msgspec import UNSET

import mappings.cloudevents
from gateway.asked import Incoming
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.errors import Problem
from gateway.outcome import Request, Sending
from gateway.store.sqlite import SqliteStore
from mappings.cloudevents.event import opened, parted, sealed
from tests.chaos_upstream import Chaos, Got, chaos, say
from tests.clients.callers import cloud_event, fresh
from tests.engine.vendors import count, settled
from tests.harness import KEY, UPSTREAM_KEY, House, house, inbound_tables, upstream_table

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
ALERT = {"summary": "Disk full", "severity": "critical", "dedup_key": "db-1/disk"}


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway that takes events, with another vendor as upstream."""

    def text(sandbox_url: str) -> str:
        return inbound_tables(["cloudevents"]) + "\n" + upstream_table("there", "pagerduty", sandbox_url)

    with house(tmp_path_factory.mktemp("events"), config=text) as standing:
        yield standing


def post(h: House, content: bytes, headers: dict[str, str], path: str = "/cloudevents") -> Any:
    """Sends exactly this content with these headers."""
    keyed = {"authorization": f"Bearer {KEY}", **headers}
    return h.client.post(h.url + path, content=content, headers=keyed)


def arrives(h: House, key: str) -> dict[str, Any]:
    """The event that arrived at PagerDuty under a key."""
    return dict(
        h.wait_for(lambda: next((one.body for one in h.arrived("pagerduty") if one.body["dedup_key"] == key), 0))
    )


# --- reading and writing, piece by piece ---------------------------------------------------------------------

LEAST = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
BINARY = {f"ce-{name}": value for name, value in LEAST.items()}


def _incoming(headers: dict[str, str], body: Any = UNSET) -> Incoming:
    return Incoming({}, {}, headers, body, datetime.now(UTC))


@pytest.mark.parametrize(
    ("headers", "body", "more"),
    [
        ({}, LEAST, {}),
        ({"content-type": STRUCTURED}, {**LEAST, "data": {"a": 1}}, {"data": {"a": 1}}),
        ({"content-type": STRUCTURED, **BINARY, "ce-subject": "x"}, LEAST, {}),
        ({"content-type": STRUCTURED}, {**LEAST, "data_base64": "eyJhIjogMX0="}, {"data": {"a": 1}}),
        ({"content-type": STRUCTURED}, {**LEAST, "data_base64": ""}, {}),
        (BINARY, UNSET, {}),
        (BINARY, {"a": 1}, {"data": {"a": 1}}),
        ({**BINARY, "content-type": "text/json"}, {"a": 1}, {"data": {"a": 1}, "datacontenttype": "text/json"}),
        ({**BINARY, "ce-data": "x", "other": "x"}, UNSET, {}),
        ({**BINARY, "ce-subject": ' "a \\"b\\" %25" '}, UNSET, {"subject": 'a "b" %'}),
        ({**BINARY, "ce-subject": '"half'}, UNSET, {"subject": '"half'}),
        ({**BINARY, "ce-subject": 'half"'}, UNSET, {"subject": 'half"'}),
        ({**BINARY, "ce-subject": '"'}, UNSET, {"subject": '"'}),
    ],
)
def test_what_an_event_says_in_either_mode(headers: dict[str, str], body: Any, more: dict[str, Any]) -> None:
    """A body that is a whole event counts, whatever a sender or a proxy has put into headers."""
    assert opened(_incoming(headers, body)) == {**LEAST, **more}


@pytest.mark.parametrize(
    "form", ["application/cloudevents+avro", "application/cloudevents", "application/xml", "text/plain"]
)
def test_content_that_cannot_be_read_is_refused_before_it_is_looked_at(form: str) -> None:
    with pytest.raises(Problem, match=r"content type .* is not supported"):
        opened(_incoming({"content-type": form, **BINARY}))


def test_the_events_of_a_batch_have_no_attributes_in_headers() -> None:
    headers = {"content-type": f"{BATCHED}; charset=utf-8", **BINARY, "ce-id": "9"}
    parts = parted(_incoming(headers, [LEAST, {**LEAST, "id": "2"}]))
    assert parts is not None
    assert [opened(part)["id"] for part in parts] == ["1", "2"]
    assert parted(_incoming({"content-type": STRUCTURED}, LEAST)) is None


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"subject": 'ä "%'}, {"ce-subject": "%C3%A4%20%22%25"}),
        ({"count": 5, "is": True, "none": None}, {"ce-count": "5", "ce-is": "true"}),
        ({"datacontenttype": "text/json"}, {}),
        ({"subject": "x" * 8000}, {"ce-subject": "x" * 8000}),
        ({"subject": "x" * 8192}, None),
        ({"a_b": "x"}, None),
        ({"A": "x"}, None),
        ({"a": []}, None),
        ({"a": {}}, None),
        ({"datacontenttype": "text/jsön"}, None),
        ({"datacontenttype": "text/json\n"}, None),
        ({"datacontenttype": "x" * 8193}, None),
    ],
)
def test_what_headers_can_hold_goes_in_headers_if_asked_for(
    more: dict[str, Any], headers: dict[str, str] | None
) -> None:
    sending = Sending(operation=Operation.CREATE, at=datetime.now(UTC), body={}, patch={}, key="k", ids={}, seen={})
    event = {**LEAST, "data": {"a": 1}, **more}
    sent = sealed(Request(method="POST", path="", headers={"x-own": "1"}), event, sending, "binary")
    if headers is None:
        assert sent.headers == {"x-own": "1", "content-type": STRUCTURED}
        assert sent.body == event
    else:
        form = more.get("datacontenttype", "application/json")
        assert sent.headers == {"x-own": "1", **BINARY, **headers, "content-type": form}
        assert sent.body == {"a": 1}
    whole = sealed(Request(method="POST", path=""), event, sending, "structured")
    assert (whole.headers, whole.body) == ({"content-type": STRUCTURED}, event)


# --- in, by hand ---------------------------------------------------------------------------------------------


def test_structured(h: House) -> None:
    key = fresh("key")
    event = {**cloud_event("firing", key, component="mysql"), "subject": "db-1"}
    answer = post(h, json.dumps(event).encode(), {"content-type": f"{STRUCTURED}; charset=utf-8"})
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    made = arrives(h, key)
    assert made["payload"]["component"] == "mysql"
    assert made["payload"]["source"] == "/monitoring"
    assert made["payload"]["custom_details"]["alert_gateway"]["fields"]["extensions.cloudevents.subject"] == "db-1"


def test_binary_with_encoded_headers(h: House) -> None:
    key = fresh("key")
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": '"/caf\\"%C3%A9%20%25"',
        "ce-type": "com.example.alert",
        "content-type": "application/json",
    }
    assert post(h, json.dumps({**ALERT, "dedup_key": key}).encode(), headers).status_code == 202
    assert arrives(h, key)["payload"]["source"] == '/caf"é %'


def test_binary_without_a_content_type(h: House) -> None:
    """As the SDK sends it where the type of the data is not given."""
    key = fresh("key")
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t"}
    assert post(h, json.dumps({**ALERT, "dedup_key": key}).encode(), headers).status_code == 202
    assert arrives(h, key)["payload"]["severity"] == "critical"


def test_data_in_base64(h: House) -> None:
    key = fresh("key")
    packed = base64.b64encode(json.dumps({**ALERT, "dedup_key": key}).encode()).decode()
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "data_base64": packed}
    assert post(h, json.dumps(event).encode(), {"content-type": STRUCTURED}).status_code == 202
    assert arrives(h, key)["payload"]["summary"] == "Disk full"


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("application/cloudevents-batch+avro", b"[]"),
        ("application/cloudevents+xml", b"<event/>"),
        ("application/cloudevents", b"{}"),
        ("text/plain", b"Disk full"),
        ("application/x-www-form-urlencoded", b"a=1"),
    ],
)
def test_another_form_is_unsupported(h: House, form: str, content: bytes) -> None:
    """415, before the body is looked at."""
    answer = post(h, content, {"content-type": form})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "media_type")
    assert form.partition(";")[0] in answer.json()["error"]["message"]


def test_a_batch(h: House) -> None:
    """Each event is handled alone: a faulty one does not keep the others back."""
    keys, headers = [fresh("key") for _ in range(3)], {"content-type": f"{BATCHED}; charset=utf-8"}
    events: list[Any] = [cloud_event("firing", key) for key in keys]
    assert post(h, json.dumps(events[:2]).encode(), headers).status_code == 202
    assert [arrives(h, key)["event_action"] for key in keys[:2]] == ["trigger", "trigger"]
    answer = post(h, json.dumps([{**events[0], "id": ""}, 7, events[2]]).encode(), headers)
    assert (answer.status_code, "id: is required" in answer.json()["error"]["message"]) == (400, True)
    assert arrives(h, keys[2])["event_action"] == "trigger"
    assert post(h, b"{}", headers).status_code == 400
    assert post(h, b"[]", headers).status_code < 500


def test_events_without_keys_are_written_together(tmp_path: Path) -> None:
    """With a commit for each, some hundred events take a quarter of a minute on a slow disk, longer than the sender
    waits; it would send them again."""
    nowhere = '[[routes]]\nto = []\nbecause = "only commits are counted"'
    events = [{**cloud_event("firing", None), "id": str(number)} for number in range(200)]
    commits: list[None] = []
    with house(tmp_path, config=lambda _: f"{inbound_tables(['cloudevents'])}\n{nowhere}") as h:
        store = h.gateway.store
        assert isinstance(store, SqliteStore)

        def committed() -> bool:
            commits.append(None)
            return False

        store._writer.set_commit_hook(committed)
        assert post(h, json.dumps(events).encode(), {"content-type": BATCHED}).status_code == 202
        assert count(h, "alerts") == len(events)
        assert len(commits) < len(events) / 4


def test_an_event_without_a_key_that_is_sent_again_is_the_same_alert(h: House) -> None:
    """The specification's identity is `source` and `id`; what is on the way may add extensions. Some senders give
    every event one id."""
    event = {**cloud_event("firing", None), "id": fresh("id"), "time": "2026-03-02T10:00:00Z"}
    other = {**event, "data": {**event["data"], "summary": "Disk fuller"}}
    later = {**event, "time": "2026-03-09T10:00:00Z"}
    traced = {**event, "traceparent": "00-1"}
    events = (event, event, traced, other, later)
    sent = [post(h, json.dumps(one).encode(), {"content-type": STRUCTURED}) for one in events]
    assert [answer.status_code for answer in sent] == [202] * 5
    first, again, hop, different, next_week = (answer.json()["id"] for answer in sent)
    assert first == again == hop
    assert len({first, different, next_week}) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"specversion": "0.3"}, "specversion: '0.3' is not '1.0'"),
        ({"specversion": 1.0}, "specversion: must be a string"),
        ({"id": ""}, "id: is required"),
        ({"source": None}, "source: is required"),
        ({"type": None}, "type: is required"),
        ({"data": None}, "data.summary: is required"),
        ({"data": "Disk full"}, "data: expected"),
        ({"data": {"summary": "x", "status": "new"}}, "data.status: 'new' is none of resolved, acknowledged, firing"),
        ({"data": {"summary": "x", "severity": "fatal"}}, "data.severity: 'fatal' is none of critical"),
        ({"data": {"status": "resolved"}}, "data.dedup_key: is required to resolve"),
        ({"data_base64": "?"}, "data_base64: is not base64"),
        ({"data_base64": base64.b64encode(b"[" * 70).decode()}, "data_base64: the body is nested deeper than 64"),
    ],
)
def test_what_is_wrong_with_an_event_is_said(h: House, change: dict[str, Any], says: str) -> None:
    event = {**cloud_event("firing", "key"), **change}
    answer = post(h, json.dumps(event).encode(), {"content-type": STRUCTURED})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_a_token_in_the_query(h: House) -> None:
    """The webhook specification's alternative place for the credential."""
    event = json.dumps(cloud_event("firing", fresh("key"))).encode()
    headers = {"content-type": STRUCTURED}
    for token, status in ((KEY, 202), ("wrong", 401)):
        answer = h.client.post(f"{h.url}/cloudevents?access_token={token}", content=event, headers=headers)
        assert answer.status_code == status


def test_the_handshake(h: House) -> None:
    """The webhook specification's OPTIONS request is answered with permission, if it has a key."""
    asking = {"webhook-request-origin": "events.example.com", "authorization": f"Bearer {KEY}"}
    answer = h.client.options(f"{h.url}/cloudevents", headers=asking)
    assert answer.status_code == 200
    allowed = {name: answer.headers[name] for name in ("webhook-allowed-origin", "webhook-allowed-rate", "allow")}
    assert list(allowed.values()) == ["events.example.com", "*", "OPTIONS, POST"]
    assert h.client.options(f"{h.url}/cloudevents", headers={"webhook-request-origin": "x"}).status_code == 401
    assert h.client.options(f"{h.url}/cloudevents", headers=asking | {"webhook-request-origin": ""}).status_code == 400


# --- in, by the SDK ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [to_structured_event, to_binary_event])
def test_an_event_of_the_sdk(h: House, written: Any) -> None:
    key = fresh("key")
    for status, word in (("firing", "trigger"), ("acknowledged", "acknowledge"), ("resolved", "resolve")):
        attributes: dict[str, Any] = {
            "id": fresh("id"),
            "source": "/sdk über",
            "type": "com.example.alert",
            "specversion": "1.0",
        }
        attributes |= {"time": datetime.now(UTC), "datacontenttype": "application/json"}
        message = written(CloudEvent(attributes, {**ALERT, "dedup_key": key, "status": status}))
        assert post(h, bytes(message.body), dict(message.headers)).status_code == 202
        last = h.wait_for(lambda: [one.body for one in h.arrived("pagerduty") if one.body["dedup_key"] == key][-1:])
        h.wait_for(lambda: word in _actions(h, key))  # noqa: B023 - asked for at once
        assert last
    assert _actions(h, key) == ["trigger", "acknowledge", "resolve"]
    assert arrives(h, key)["payload"]["source"] == "/sdk über"


def _actions(h: House, key: str) -> list[str]:
    return [one.body["event_action"] for one in h.arrived("pagerduty") if one.body["dedup_key"] == key]


# --- out, read by the SDK ------------------------------------------------------------------------------------


def read(got: Got) -> BaseCloudEvent:
    """The event that arrived, as the SDK reads it."""
    return from_http_event(HTTPMessage(headers=dict(got.headers), body=got.content))


def outbound(url: str, more: str = "") -> str:
    """Callers of ilert and of events, in front of an upstream that takes events."""
    there = f'[upstreams.there]\ndialect = "cloudevents"\nurl = "{url}/events"\nkey = "{UPSTREAM_KEY}"\n'
    return f'{inbound_tables(["ilert", "cloudevents"])}\n{there}retry = {{ first = "10ms", most = "20ms" }}\n{more}'


def told(h: House, upstream: Chaos, word: str, **fields: Any) -> Got:
    """The event that results from an ilert caller's event."""
    mark = len(upstream.got)
    event = {"apiKey": KEY, "eventType": word, "alertKey": "disk 1", "summary": "Disk full", **fields}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
    h.wait_for(lambda: len(upstream.got) > mark)
    return upstream.got[-1]


@pytest.mark.parametrize("mode", ["", 'mode = "structured"', 'mode = "binary"'])
def test_out_in_both_modes(tmp_path: Path, mode: str) -> None:
    with chaos(say(202)) as upstream, house(tmp_path, config=lambda _: outbound(upstream.url, mode)) as h:
        got = [told(h, upstream, word, priority="HIGH") for word in ("ALERT", "ACCEPT", "RESOLVE")]
    events = [read(one) for one in got]
    assert {(one.method, one.path, one.headers["authorization"]) for one in got} == {
        ("POST", "/events", f"Bearer {UPSTREAM_KEY}")
    }
    is_binary = "binary" in mode
    assert ("ce-id" in got[0].headers) is is_binary
    assert got[0].headers["content-type"] == ("application/json" if is_binary else STRUCTURED)
    assert len({event.get_id() for event in events}) == 3, "each event has an id of its own"
    assert [event.get_data()["status"] for event in events] == ["firing", "acknowledged", "resolved"]  # type: ignore[index,call-overload]
    first = events[0]
    assert (first.get_source(), first.get_type(), first.get_specversion()) == ("ci", "alert", "1.0")
    assert abs((datetime.now(UTC) - first.get_time()).total_seconds()) < 60  # type: ignore[operator]
    said: Any = first.get_data()
    assert {name: said[name] for name in ("summary", "severity", "dedup_key")} == {
        "summary": "Disk full",
        "severity": "critical",
        "dedup_key": "disk 1",
    }


def test_every_attempt_of_a_delivery_has_the_same_id(tmp_path: Path) -> None:
    with chaos(say(202)) as upstream, house(tmp_path, config=lambda _: outbound(upstream.url)) as h:
        upstream.plan(say(503), say(503))
        told(h, upstream, "ALERT")
        h.wait_for(lambda: len(upstream.got) == 3)
        settled(h)
        again = told(h, upstream, "ALERT", summary="Disk fuller")
    ids = [read(one).get_id() for one in upstream.got]
    assert len(set(ids[:3])) == 1
    assert read(again).get_id() not in ids[:3]


def test_a_source_that_is_no_reference_is_made_one(tmp_path: Path) -> None:
    """`source` must be a URI reference, so it is percent-encoded; the data has the original."""
    config = '[[routes]]\nto = ["there"]\nset = { source = "rack 7 <ü>" }\n'
    with chaos(say(202)) as upstream, house(tmp_path, config=lambda _: outbound(upstream.url, config)) as h:
        event: Any = told(h, upstream, "ALERT").body
    assert (event["source"], event["data"]["source"]) == ("rack%207%20%3C%C3%BC%3E", "rack 7 <ü>")


def test_what_fits_no_header_goes_structured(tmp_path: Path) -> None:
    event = {**cloud_event("firing", "k"), "traceparent": {"not": "simple"}}
    with chaos(say(202)) as upstream, house(tmp_path, config=lambda _: outbound(upstream.url, 'mode = "binary"')) as h:
        assert h.call("POST", "/cloudevents", event).status == 202
        [got] = h.wait_for(lambda: list(upstream.got))
    assert got.headers["content-type"] == STRUCTURED
    assert got.body == event


def test_between_two_that_speak_it_events_pass_unchanged(tmp_path: Path) -> None:
    """Ids and times included, which are each event's own."""
    events = [
        {**cloud_event(status, "k", group="prod"), "time": f"2024-01-01T00:0{minute}:00Z", "comexample": "x"}
        for minute, status in enumerate(("firing", "firing", "acknowledged", "resolved"))
    ]
    events[1]["data"]["summary"], events[1]["id"] = "Disk fuller", "another"
    with chaos(say(202)) as upstream, house(tmp_path, config=lambda _: outbound(upstream.url)) as h:
        for number, event in enumerate(events, 1):
            assert h.call("POST", "/cloudevents", event).status == 202
            h.wait_for(lambda: len(upstream.got) >= number)  # noqa: B023 - asked for at once
    assert [got.body for got in upstream.got] == events


# --- a description of one's own in this envelope -------------------------------------------------------------

MINE = """
[dialects.mine]
envelope = "cloudevents"
mode = "binary"
constants = { dataschema = "https://example.com/alert" }
[dialects.mine.fields]
summary = { at = "data.text", required = true }
dedup_key = "subject"
source = "source"
severity = { at = "data.level", words = { bad = 2, fine = 6 } }
status = { at = "type", firing = "com.example.firing", resolve = "com.example.over" }
"""


def test_a_dialect_of_ones_own_in_the_envelope(tmp_path: Path) -> None:
    with chaos(say(202)) as upstream:
        there = f'[upstreams.there]\ndialect = "mine"\nurl = "{upstream.url}"\nkey = "{UPSTREAM_KEY}"\n'
        text = f"{inbound_tables(['ilert', 'mine'])}\n{there}{MINE}"
        with house(tmp_path, config=lambda _: text) as h:
            made, ended = (told(h, upstream, word, priority="HIGH") for word in ("ALERT", "RESOLVE"))
            wanted = {"ce-type": "com.example.firing", "ce-subject": "disk%201", "ce-specversion": "1.0"}
            assert {name: made.headers[name] for name in wanted} == wanted
            assert made.headers["ce-dataschema"] == "https://example.com/alert"
            assert made.body == {"text": "Disk full", "level": "bad"}
            assert (ended.headers["ce-type"], ended.headers["ce-subject"]) == ("com.example.over", "disk%201")
            event = {"specversion": "1.0", "id": "1", "source": "/a", "type": "com.example.firing", "subject": "k"}
            assert h.call("POST", "/mine", {**event, "data": {"text": "x"}}).status == 202
            refused = h.call("POST", "/mine", {**event, "type": "com.example.other", "data": {"text": "x"}})
            assert (refused.status, refused.body["error"]["code"]) == (400, "invalid")
            assert h.call("POST", "/mine", [], headers={"content-type": "application/cloudevents+avro"}).status == 415


def test_the_description_that_ships_can_be_copied() -> None:
    """A copy of the shipped description under another name is the same dialect."""
    text = (Path(str(mappings.cloudevents.__file__)).parent / "dialect.toml").read_text("utf8")
    own = text.replace("dialects.cloudevents", "dialects.events")
    there = '[upstreams.there]\ndialect = "events"\nurl = "https://example.com"\nkey = "k"\n'
    found = parse(f"{inbound_tables(['events'])}\n{there}{own}").own["events"]
    built_in = mappings.cloudevents.DIALECT
    assert [row.wires for row in found.mapping.rows] == [row.wires for row in built_in.mapping.rows]
    assert found.samples == built_in.samples
    assert tomllib.loads(own)["dialects"]["events"] == found.description
