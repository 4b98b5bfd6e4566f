"""A dialect described in the configuration, as an upstream: what is sent, and how its answers are read."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.config.secrets import MASK
from gateway.errors import ConfigurationError
from gateway.openapi import describe
from gateway.outcome import Response
from gateway.registry import dialects
from gateway.rehearsal import command_in, rehearse
from tests.chaos_upstream import CLOSE, Behaviour, Got, chaos, say
from tests.clients.callers import OTHER
from tests.engine.described_out import STATE, outbound, wrapped
from tests.engine.descriptions import INCIDENTS, OWN, SIGNED, own, post
from tests.engine.vendors import OK, outbox
from tests.harness import KEY, UPSTREAM_KEY, House, house, upstream_table


def life(tmp_path: Path, name: str, *words: str, **fields: Any) -> list[Got]:
    """The requests that a described upstream gets for these events of one ilert alert."""
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
"""A webhook whose address is its credential."""


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
    """The address is sent as configured, slashes and query included, and appears in no log even if the upstream repeats
    it."""
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


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
@pytest.mark.parametrize("status", [404, 410])
def test_an_address_that_was_revoked_holds_and_loses_nothing(status: int, kind: str, tmp_path: Path) -> None:
    """Chats answer no 401 for a revoked webhook address: the upstream is held, as for a refused key, and no alert of a
    rotation becomes a dead letter. A short plain answer is the chat's own, though its content type may say web page."""
    described = HOOK.replace('auth = "none"', 'auth = "path"\nsend.path = "/services/{credential}"')
    (tmp_path / "hook").write_text("T0/B0/old")

    def answers(got: Got) -> Any:
        is_known = got.path.endswith("/services/T0/B0/new")
        return say(200 if is_known else status, b"ok" if is_known else b"no_service", {"content-type": kind})

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}/v1"\nkey = "file:{tmp_path}/hook"\n'
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{described}'

    with chaos(answers) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        h.wait_for(lambda: h.client.get(f"{h.url}/-/ready").json()["held"] == ["there"])
        (tmp_path / "hook").write_text("T0/B0/new\n")
        h.wait_for(lambda: [row for row in outbox(h) if row.state == "delivered"])
    assert len([got for got in upstream.got if got.path.endswith("/new")]) == 1


def test_where_something_of_the_alert_is_in_the_address_it_may_be_that_which_is_not_there(tmp_path: Path) -> None:
    described = HOOK.replace('auth = "none"', 'auth = "path"\nsend.path = "/{credential}/{key}"')
    config = parse(f'[inbound.ilert]\n[upstreams.there]\ndialect = "chat"\nurl = "http://a"\nkey = "k"\n{described}')
    assert not config.upstreams["there"].dialect.outbound.verdicts


@pytest.mark.parametrize(
    ("success", "answer", "reason"),
    [
        ("{ ok = true }", {"ok": True}, ""),
        ("{ ok = true }", {"ok": False, "error": "channel_not_found"}, "ok is false in the answer: channel_not_found"),
        ("{ 'result.errcode' = [0, 1] }", {"result": {"errcode": 1}}, ""),
        (
            "{ 'result.errcode' = [0, 1] }",
            {"errmsg": "sign not match"},
            "result.errcode is missing in the answer: sign",
        ),
        ("{ ok = true }", "ok", "ok is missing in the answer"),
    ],
)
def test_a_refusal_that_looks_like_a_success(tmp_path: Path, success: str, answer: Any, reason: str) -> None:
    """For chats that answer everything with 200: an alert that was not taken is a dead letter."""

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
    """For chats that say in a 200 that they are asked too often: the alert is sent again until it is taken."""

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


@pytest.mark.parametrize(("status", "state"), [(302, "delivered"), (307, "waiting")])
def test_who_leads_elsewhere_once_it_has_taken_an_alert_is_told_once(tmp_path: Path, status: int, state: str) -> None:
    """As with a Google Apps Script, which has run before it redirects; each retry would run it again."""
    moved = say(status, b"<html>Moved", {"content-type": "text/html", "location": "https://elsewhere.example.com/x"})

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}"\nretry = {{ first = "20ms", most = "20ms" }}\n'
        own = HOOK.replace('auth = "none"', 'auth = "none"\nsend.redirects = [302]\nsend.success = { ok = true }')
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{own}'

    with chaos(moved) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        [row] = h.wait_for(
            lambda: [row for row in outbox(h) if row.attempts and (row.state, row.code) != ("waiting", "")]
        )
        assert (row.state, row.code) == (state, "" if state == "delivered" else "web-page")
        assert state != "delivered" or len(upstream.got) == 1


def test_what_is_not_found_at_an_address_of_its_own_leaves_the_others_alone(tmp_path: Path) -> None:
    """A 404 page may come from a proxy, so the delivery is retried; deliveries to other addresses do not wait for
    it."""

    def answers(got: Got) -> Any:
        is_bad = got.path.endswith("/bad")
        return say(404, b"<html>not found", {"content-type": "text/html"}) if is_bad else OK

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "chat"\nurl = "{url}"\nretry = {{ first = "5ms", most = "5ms" }}\n'
        own = HOOK.replace('auth = "none"', 'auth = "none"\nsend.path = "/{key}"')
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{own}'

    with chaos(answers) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "bad"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        [row] = h.wait_for(lambda: [row for row in outbox(h) if row.attempts > 6])
        assert (row.state, row.code) == ("waiting", "web-page")
        assert h.client.get(f"{h.url}/-/ready").json()["upstreams"]["there"]["state"] == "closed"


def test_keys_that_nobody_can_show_are_refused() -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(f'[inbound.chat]\nkeys = {{ a = "b" }}\n[upstreams.x]\ndialect = "chat"\nurl = "http://x"\n{HOOK}')
    assert raised.value.problems == [
        'inbound.chat.keys: callers send none, as dialects.chat has auth = "none"; write anonymous = true'
    ]


def test_out_to_an_alert_source(tmp_path: Path) -> None:
    """The source has no severity and no acknowledgement: the severity is carried, the acknowledgement not sent."""
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
    """Unknown fields are kept, and only the credential and the constants of the description are added."""
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
"""A dialect whose ends contain values that its alerts may not."""


def test_an_end_is_told_in_its_callers_words_whatever_else_it_repeats(tmp_path: Path) -> None:
    """Of an end only the alert's id is read; an upstream of the same dialect still gets the whole body."""
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


def incidents(url: str) -> str:
    """A gateway in front of it."""
    there = f'[upstreams.there]\ndialect = "incidents"\nurl = "{url}"\nkey = "k"\nretry = {{ first = "50ms" }}\n'
    return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}{INCIDENTS}'


def test_an_alert_is_found_by_the_id_in_the_answer(tmp_path: Path) -> None:
    """Operations without a path are not sent; when the key fires again that is another incident with an id of its
    own."""
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
    """There is no list to look in: a duplicate page is better than none."""
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


"""A topic whose message is JSON within JSON, as Amazon SNS sends for CloudWatch; and one whose request holds several
alerts."""


class Merging:
    """A vendor that gives out ids, and takes an alert for the open one that has its `ref`; `ends` are its answers to
    the next requests that end one."""

    def __init__(self, *ends: Behaviour) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.ends = list(ends)

    def __call__(self, got: Got) -> Behaviour:
        """Carries out a request."""
        if got.method == "POST":
            known = [number for number, one in self.held.items() if one["ref"] == got.body["ref"] and one["open"]]
            number = known[0] if known else str(len(self.held) + 1)
            self.held[number] = {**got.body, "open": True}
            return say(201, {"data": {"id": number}})
        if self.ends:
            return self.ends.pop(0)
        self.held[got.path.rpartition("/")[2]]["open"] = False
        return say(200, {})

    @property
    def shown(self) -> list[str]:
        """The names of the open alerts."""
        return [str(one["name"]) for one in self.held.values() if one["open"]]


def merging(url: str) -> str:
    """Two callers in front of it."""
    return incidents(url).replace(f'ci = "{KEY}"', f'ci = "{KEY}", ops = "{OTHER}"') + 'dedup_key = "ref"\n'


def _tell(h: House, word: str, summary: str, key: str = KEY) -> None:
    event = {"apiKey": key, "eventType": word, "alertKey": "disk", "summary": summary}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


def test_an_end_that_is_late_does_not_end_what_the_vendor_takes_for_the_same(tmp_path: Path) -> None:
    """It is told the key, too, so what has that key leaves in one order; and an end that was refused, and is sent again
    against that order, is left out."""
    there = Merging(say(503, {}), say(503, {}))
    with chaos(there) as upstream, house(tmp_path, config=lambda _: merging(upstream.url)) as h:
        for word, summary in (("ALERT", "first"), ("RESOLVE", "first"), ("ALERT", "second")):
            _tell(h, word, summary)
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert (there.shown, len(there.held)) == (["second"], 2)

        there.ends = [say(400, {"message": "no"})]
        for word, summary in (("RESOLVE", "second"), ("ALERT", "third")):
            _tell(h, word, summary)
            h.wait_for(lambda: not outbox(h, "waiting"))
        assert (there.shown, len(there.held)) == (["third"], 2), "taken for the second"
        again = h.client.post(f"{h.url}/-/retry", json={"dead": True, "force": True}).json()
        assert again["count"] == 1
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert there.shown == ["third"]
        assert [row.code for row in outbox(h, "void")] == ["passed-on"]
        _tell(h, "RESOLVE", "third")
        h.wait_for(lambda: not there.shown)


def test_two_callers_with_one_key_have_two_alerts_where_the_vendor_merges_by_key(tmp_path: Path) -> None:
    there = Merging()
    with chaos(there) as upstream, house(tmp_path, config=lambda _: merging(upstream.url)) as h:
        for summary, key in (("of ci", KEY), ("of ops", OTHER)):
            _tell(h, "ALERT", summary, key)
            h.wait_for(lambda: not outbox(h, "waiting"))
        assert there.shown == ["of ci", "of ops"]
        _tell(h, "RESOLVE", "of ci")
        h.wait_for(lambda: there.shown == ["of ops"])


def test_where_the_file_of_the_secret_is_empty_nobody_can_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty secret must not validate signatures, which anybody could make."""
    monkeypatch.setattr("gateway.config.secrets.BEING_WRITTEN", 0.0)
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
    """Fields beside the list apply to each alert; a faulty alert does not keep the others back."""
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


def test_what_stands_beside_a_list_is_not_multiplied_without_end(tmp_path: Path) -> None:
    """It is kept with each alert: a request of 60 KB took 700 MiB, and a mebibyte more than any machine has."""
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: wrapped(upstream.url)) as h:
        beside = {f"k{number}": 1 for number in range(900)}
        for count, status in ((1000, 413), (10, 202)):
            alerts = [{"title": f"A{number}", "id": f"{count}-{number}"} for number in range(count)]
            answer = h.call("POST", "/many", {"data": {"alerts": alerts}, **beside}, key=None)
            assert answer.status == status, answer.body
            assert status < 300 or answer.body["error"]["message"].startswith("too much stands beside data.alerts")
        h.wait_for(lambda: not outbox(h, "waiting"))
        own = [got.body["data"]["alerts"][0] for got in upstream.got if got.path.startswith("/many")]
    assert len(own) == 10 and all(beside.items() <= one.items() for one in own)


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
