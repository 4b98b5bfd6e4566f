"""Bodies of a shape of their own, and texts that are JSON, of dialects that a configuration describes."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway.canonical import Operation
from gateway.cli.checking import warnings
from gateway.cli.commands import main
from gateway.config.loading import parse
from gateway.registry import dialects
from gateway.rehearsal import bare_upstream, command_in, rehearse
from tests.chaos_upstream import chaos, say
from tests.engine.described_out import STATE, outbound, wrapped
from tests.engine.descriptions import SIGNED, SOURCE
from tests.engine.vendors import outbox
from tests.harness import KEY, UPSTREAM_KEY, house, upstream_table
from tests.processes import serving


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


TWICE = """
[dialects.NAME]
auth = "none"
[dialects.NAME.fields]
summary = "title"
dedup_key = "id"
resource = { at = ["check", "host"] }
category = "class"
labels = { at = "tags", form = "FORM" }
[inbound.NAME]
anonymous = true
[upstreams.NAME]
dialect = "NAME"
url = "URL"
"""
"""Fields of which the canonical ones cannot hold everything."""


def test_nothing_older_stays_beside_what_a_caller_says_now(tmp_path: Path) -> None:
    """What the canonical field cannot hold is kept beside it, and was told again when the caller said something else
    there: the host of before, and no longer that the class is `up`."""

    def text(url: str) -> str:
        return TWICE.replace("NAME", "acme").replace("FORM", "list").replace("URL", url)

    said: list[dict[str, Any]] = [
        {"check": "ping", "host": "db-1", "class": "up", "tags": ["env:a", "env:b"]},
        {"check": "db-2", "host": "db-2", "class": "disk", "tags": ["env:c"]},
        {"check": "ping", "host": "db-3", "class": "up", "tags": ["env:d", "env:e", "web"]},
        {"check": "ping"},
    ]
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        for number, body in enumerate(said, 1):
            assert h.call("POST", "/acme", {"id": "x", "title": f"No. {number}", **body}, key=None).status == 202
            h.wait_for(lambda: len(upstream.got) >= number)  # noqa: B023 - asked for at once
        told = [{name: got.body.get(name) for name in said[0]} for got in upstream.got]
    assert told == [*said[:3], said[2]], "and what the last one left out stays"


@pytest.mark.parametrize(("form", "tags"), [("list", ["env:a", "env:b", "web", "k:"]), ("text", "env:a,env:b,web,k:")])
def test_of_labels_with_one_name_all_are_kept(form: str, tags: Any) -> None:
    """A map has one value for a name: the others are carried, and told where the vendor's own form can hold them."""
    described = TWICE.replace("NAME", "acme").replace("FORM", form).replace("URL", "https://example.com")
    own = parse(described).own["acme"]
    asked = command_in(own, Operation.CREATE, {"id": "x", "title": "T", "tags": tags})
    assert asked.patch["labels"] == {"env": "b", "web": "", "k": ""}
    first = "env:a" if form == "text" else ["env:a"]
    assert asked.patch["extensions.acme.tags"] == first
    assert rehearse(asked, own, bare_upstream(own)).words["tags"] == tags
    [request] = rehearse(asked, own, bare_upstream(dialects()["ilert"])).requests
    assert isinstance(request.body, dict)
    assert request.body["customDetails"]["alert_gateway"]["fields"]["extensions.acme.tags"] == first


def test_what_a_shape_of_its_own_has_no_room_for_is_said_to_its_callers_too(tmp_path: Path) -> None:
    def text(url: str) -> str:
        return f'{CHAT}[upstreams.there]\ndialect = "chatty"\nurl = "{url}"\n'

    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        said = {"id": "y", "title": "Own", "level": "warning", "who": {"is": "me"}}
        answer = h.call("POST", "/chatty", said, key=None)
        assert answer.headers["alert-gateway-report"] == "there; kept=extensions.chatty.who"


def test_the_end_of_an_alert_that_nobody_knows_is_no_message_without_words(tmp_path: Path) -> None:
    """Only the key is known: a chat whose text does not contain it is sent nothing, one whose text does is told."""

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
    assert any("upstreams.there: dialects.acme has no word for resolved" in one for one in warnings(config)) is is_said


"""A vendor that addresses an incident by the id it assigned, as Better Stack's and Rootly's APIs do."""


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


def test_a_topic_that_wants_to_be_confirmed_says_where_in_the_log(tmp_path: Path) -> None:
    """https://docs.aws.amazon.com/sns/latest/dg/SendMessageToHttp.prepare.html: nothing is posted before somebody has
    opened the address, which stands nowhere else."""
    address = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:1:MyTopic&Token=23"
    asking = {
        "Type": "SubscriptionConfirmation",
        "Token": "23",
        "Message": "You have chosen to subscribe to the topic arn:aws:sns:us-west-2:1:MyTopic.",
        "SubscribeURL": address,
    }
    config = tmp_path / "gateway.toml"
    with chaos(say(200, {})) as upstream:
        config.write_text(f'store = "sqlite://{tmp_path}/gateway.db"\n{wrapped(upstream.url)}')
        with serving(config) as running:
            refused, taken = (
                httpx.post(f"{running.url}/topic?token={key}", json=asking, timeout=10) for key in ("wrong", KEY)
            )
            assert (refused.status_code, taken.status_code, taken.json()) == (401, 200, {"status": "noted"})
            [asked] = running.waits_for("caller.confirm")
            assert (asked["level"], asked["address"]) == ("warning", address)
            for text in ("none", f"{address}&x={'x' * 9999}"):  # nobody could open it, and success would be a lie
                posted = httpx.post(f"{running.url}/topic?token={KEY}", json={**asking, "SubscribeURL": text})
                assert posted.status_code == 400
            assert len(running.events("caller.confirm")) == 1
            assert upstream.got == []


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


def test_what_has_changed_is_not_told_where_that_would_page_again(tmp_path: Path) -> None:
    """With `send.updates = false` an alert is sent once, also where an update is the first to choose the upstream, and
    again when it comes back after its end. The caller is told of what was not sent."""

    def text(url: str) -> str:
        described = '[dialects.push]\nauth = "none"\nfields = { summary = "title" }\nsend.updates = false\n'
        for name in ("loud", "all"):
            described += f'[upstreams.{name}]\ndialect = "push"\nurl = "{url}/{name}"\n'
        described += '[[routes]]\nwhen = ["severity <= 2"]\nto = ["all", "loud"]\n[[routes]]\nto = ["all"]\n'
        return f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{described}'

    said = [("ALERT", 4, "a"), ("ALERT", 4, "b"), ("ALERT", 1, "c"), ("ALERT", 1, "d"), ("RESOLVE", 1, "d")]
    reports: list[list[str]] = []
    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        for word, severity, summary in [*said, ("ALERT", 1, "e")]:
            event = {"apiKey": KEY, "eventType": word, "alertKey": "x", "summary": summary, "severity": severity}
            answer = h.call("POST", "/ilert/api/events", event, key=None)
            assert answer.status == 202
            reports.append([line for line in answer.report if "summary" in line])
            h.wait_for(lambda: not outbox(h, "waiting"))
        told = sorted((got.path, got.body["title"]) for got in upstream.got)
        assert told == [("/all", "a"), ("/all", "e"), ("/loud", "c"), ("/loud", "e")]
        unsent = ["all; kept=summary", "loud; kept=summary"]
        assert reports == [[], unsent[:1], ["all; kept=summary,severity"], unsent, [], []]
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
    """What has no field of its own is carried in the container and restored by the second gateway."""
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
