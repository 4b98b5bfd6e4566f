"""Grafana's callers, and upstreams that take Grafana's or Alertmanager's webhook, against the vendors' pages.

Sources: https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
and https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from gateway.asked import Batch, Incoming
from gateway.canonical import Image, Link
from gateway.config.loading import parse
from gateway.errors import ConfigurationError
from gateway.mapping.rows import Writing
from gateway.registry import dialects
from mappings.alertmanager.alert import fingerprint
from mappings.alertmanager.webhook import GROUP, OF_GROUP, notified
from mappings.grafana import TOLD
from mappings.grafana.alert import ALERT
from tests.chaos_upstream import Behaviour, Chaos, Got, chaos, say
from tests.clients.callers import called, fresh, ilert_event
from tests.engine.vendors import outbox, settled
from tests.harness import KEY, House, Sent, house, inbound_tables

AT, AM_AT = "/grafana/webhook", "/alertmanager_webhook/webhook"
NEVER = "0001-01-01T00:00:00Z"
SECRET, NEW = "signing-secret-4711", "signing-secret-4712"
SIGNATURE = "X-Grafana-Alerting-Signature"
OK = say(200)


def alert(name: str, **fields: Any) -> dict[str, Any]:
    """One alert of a group, as Grafana sends it; its fingerprint is not the one that its labels would give."""
    return {
        "status": "firing",
        "labels": {"alertname": name, "grafana_folder": "disks", "severity": "critical"},
        "annotations": {"summary": f"{name} is full", "description": "at 99 %"},
        "startsAt": "2021-10-12T09:51:03.157076123+02:00",
        "endsAt": NEVER,
        "generatorURL": "https://grafana.example.com/alerting/abc/edit?orgId=1",
        "fingerprint": hashlib.sha256(name.encode()).hexdigest()[:16],
        "silenceURL": "",
        "dashboardURL": "https://grafana.example.com/d/abc",
        "panelURL": "",
        "values": None,
        "valueString": "",
        **fields,
    }


def group(*alerts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A notification, as Grafana posts it."""
    is_over = all(one["status"] == "resolved" for one in alerts)
    return {
        "receiver": "gateway",
        "status": "resolved" if is_over else "firing",
        "orgId": 7,
        "alerts": list(alerts),
        "groupLabels": {"grafana_folder": "disks"},
        "commonLabels": {"grafana_folder": "disks", "severity": "critical"},
        "commonAnnotations": {},
        "externalURL": "https://grafana.example.com/",
        "version": "1",
        "groupKey": '{}:{grafana_folder="disks"}',
        "truncatedAlerts": 0,
        "title": f"[FIRING:{len(alerts)}] disks",
        "state": "ok" if is_over else "alerting",
        "message": "**Firing**",
        **fields,
    }


def ended(one: dict[str, Any]) -> dict[str, Any]:
    """The end of an alert."""
    return {**one, "status": "resolved", "endsAt": "2021-10-12T10:51:03.157076123+02:00"}


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with called(tmp_path_factory.mktemp("grafana"), {"there": "ilert"}) as standing:
        yield standing


def _arrive(h: House, body: Any, count: int, method: str = "POST") -> list[Any]:
    """The bodies that ilert receives for a notification."""
    before_it = len(h.arrived("ilert"))
    sent = h.call(method, AT, body)
    assert (sent.status, sent.body) == (200, None)
    return [one.body for one in h.arrives("ilert", before_it + count)[before_it:]]


# --- what is told --------------------------------------------------------------------------------------------


def test_one_alert_of_the_group_at_a_time(h: House) -> None:
    """A group mixes firing and resolved alerts; the status of each alert counts, not that of the group."""
    one, two = alert(fresh("disk")), alert(fresh("disk"))
    told = _arrive(h, group(one, two), 2)
    assert {event["alertKey"] for event in told} == {one["fingerprint"], two["fingerprint"]}
    mixed = _arrive(h, group(ended(one), {**two, "annotations": {"summary": "fuller"}}), 2)
    assert {(event["eventType"], event["alertKey"]) for event in mixed} == {
        ("RESOLVE", one["fingerprint"]),
        ("ALERT", two["fingerprint"]),
    }


def test_what_is_repeated_is_not_told_again(h: House) -> None:
    """Grafana repeats an unresolved group at every repeat interval, and a resolved alert for as long as its group has
    others; neither is sent again."""
    one = alert(fresh("disk"))
    _arrive(h, group(one), 1)
    before_it = len(outbox(h))
    assert h.call("POST", AT, group(one, title="[FIRING:2] disks")).status == 200
    assert len(outbox(h)) == before_it
    [event] = _arrive(h, group(ended(one)), 1, "PUT")
    assert (event["eventType"], event["alertKey"]) == ("RESOLVE", one["fingerprint"])
    before_it = len(outbox(h))
    assert h.call("POST", AT, group(ended(one))).status == 200
    assert len(outbox(h)) == before_it
    assert _arrive(h, group(one), 1)[0]["eventType"] == "ALERT"


def test_everything_that_an_alert_says(h: House) -> None:
    one = alert(
        fresh("disk"),
        values={"B": 44.2},
        imageURL="https://grafana.example.com/1.png",
        panelURL="https://grafana.example.com/p",
        labels={"alertname": "disk", "severity": "page", "__alert_rule_uid__": "u"},
        annotations={"message": "the old word", "__value_string__": "x", "runbook_url": "https://r"},
    )
    [event] = _arrive(h, group(one), 1)
    assert event["summary"] == "the old word"
    assert event["severity"] == 1
    assert event["labels"] == {"alertname": "disk", "severity": "page"}, "what is private is no label"
    assert event["images"] == [{"src": "https://grafana.example.com/1.png"}]
    assert [link["href"] for link in event["links"]] == [
        "https://grafana.example.com/alerting/abc/edit?orgId=1",
        "https://grafana.example.com/d/abc",
        "https://grafana.example.com/p",
    ]
    assert event["customDetails"]["runbook_url"] == "https://r"
    carried = event["customDetails"]["alert_gateway"]["fields"]
    assert carried["extensions.alertmanager.startsAt"] == "2021-10-12T09:51:03.157076123+02:00"
    assert carried["extensions.grafana.values"] == {"B": 44.2}


def _flat(**more: Any) -> dict[str, Any]:
    wire = {"status": "firing", "labels": {"alertname": "disk"}, "fingerprint": "0123456789abcdef", **more}
    found = dict(ALERT.read(wire).flat)
    assert found.pop("summary") == "disk" and found.pop("labels") == {"alertname": "disk"}
    return found


def _written(**more: Any) -> dict[str, Any]:
    return dict(ALERT.write({"labels": {"alertname": "disk"}, "summary": "disk", **more}, Writing()))


def test_what_is_left_empty_says_nothing() -> None:
    """The vendor sends every field, also where there is nothing to say."""
    blank = dict.fromkeys(("generatorURL", "dashboardURL", "panelURL", "silenceURL", "imageURL", "valueString"), "")
    assert _flat(**{**blank, "imageURL": "https://g/1.png"}) == {
        "dedup_key": "0123456789abcdef",
        "images": (Image(src="https://g/1.png"),),
    }
    assert _flat(valueString="[ var='A' ]")["extensions.grafana.valueString"] == "[ var='A' ]"
    assert len(_flat(fingerprint="")["dedup_key"]) == 16, "it is computed where it is not given"


def test_what_has_no_address_is_no_link_and_no_image() -> None:
    """Where an alert came from may be only a path; it is kept, and comes back."""
    odd = _flat(generatorURL="/alerting/abc", imageURL="attachment:1", panelURL="https://g/p", silenceURL="/silence")
    assert odd["links"] == (Link(href="https://g/p", text="panel"), Link(href="/silence", text="silence"))
    assert odd["extensions.alertmanager.generatorURL"] == "/alerting/abc"
    assert odd["extensions.grafana.imageURL"] == "attachment:1"
    back = _written(**odd)
    assert (back["generatorURL"], back["imageURL"]) == ("/alerting/abc", "attachment:1")
    assert (back["panelURL"], back["silenceURL"]) == ("https://g/p", "/silence")


def test_of_several_links_and_images_the_first_of_each_kind_is_shown() -> None:
    links: list[tuple[str, Any]] = [("https://g/1", "panel"), ("https://g/2", "panel"), ("/3", UNSET)]
    links += [("https://g/4", "wiki"), ("https://g/5", UNSET)]
    images = ("attachment:1", "HTTPS://g/2.png", "https://g/3.png")
    written = _written(
        links=tuple(Link(href=href, text=text) for href, text in links),
        images=tuple(Image(src=src) for src in images),
        **{"extensions.alertmanager.generatorURL": "/own", "extensions.grafana.imageURL": "attachment:own"},
    )
    assert {name: value for name, value in written.items() if name.endswith("URL")} == {
        "generatorURL": "https://g/4",
        "panelURL": "https://g/1",
        "imageURL": "HTTPS://g/2.png",
    }


@pytest.mark.parametrize(
    ("key", "origin", "is_mark"),
    [
        ("0123456789abcdef", "", True),
        ("0123456789abcdef", "grafana", True),
        ("0123456789abcdef", "opsgenie", False),
        ("0123456789ABCDEF", "", False),
        ("0123456789abcdef0", "", False),
        ("disk", "grafana", False),
    ],
)
def test_only_a_fingerprint_of_its_own_kind_of_sender_goes_out_as_one(key: str, origin: str, is_mark: bool) -> None:
    """Any other key is a label, with which the fingerprint is computed."""
    flat = {"labels": {"alertname": "disk"}, "summary": "disk", "dedup_key": key}
    written = ALERT.write(flat, Writing(origin=origin))
    assert (written["fingerprint"] == key) is is_mark
    assert written["labels"] == {"alertname": "disk", **({} if is_mark else {"alert_gateway_key": key})}


def test_what_is_wrong_with_one_keeps_none_of_the_others_back(h: House) -> None:
    good, before_it = alert(fresh("disk")), len(h.arrived("ilert"))
    refused = h.call("POST", AT, group(good, alert("x", startsAt="yesterday"), alert("x", labels={"a": 1})))
    assert refused.status == 400
    assert "'yesterday' is not an ISO 8601 time" in refused.body["message"]
    assert "alerts[2].labels" in refused.body["message"]
    assert h.arrives("ilert", before_it + 1)[before_it].body["alertKey"] == good["fingerprint"]


@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_private_labels_alone_identify_nothing(h: House, status: str) -> None:
    """Without a fingerprint such an alert is refused, and keeps none of the others back."""
    name = fresh("Beside")
    odd = alert(name, status=status, labels={"__alert_rule_uid__": "abc"}, fingerprint="")
    before_it = len(h.arrived("ilert"))
    sent = h.call("POST", AT, group(odd, alert(name)))
    assert (sent.status, sent.body) == (400, {"message": "at least one label pair required"})
    assert h.arrives("ilert", before_it + 1)[before_it].body["summary"] == f"{name} is full"


@pytest.mark.parametrize(
    ("body", "first"),
    [
        ({"title": "of my own"}, "custom payload: remove it from the contact point"),
        ([{"labels": {}}], "custom payload: remove it from the contact point"),
        ("text", "custom payload: remove it from the contact point"),
        ({"alerts": "none"}, "custom payload: remove it from the contact point"),
        ({"alerts": [], "version": "4"}, "this is Alertmanager's webhook, version 4: post it to /alertmanager/webhook"),
        ({"alerts": [], "version": "2"}, "custom payload: version is '2'"),
        ({"alerts": ["x" * 5000]}, "alerts[0]: "),
    ],
)
def test_another_payload_is_refused_with_what_to_do_in_the_first_words(h: House, body: Any, first: str) -> None:
    refused = h.call("POST", AT, body)
    assert refused.status == 400
    assert refused.body["message"].startswith(first)
    assert len(json.dumps(refused.body)) <= 1024, "more than that is not shown"


# --- who calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"ApiKey {KEY}", KEY])
def test_a_key_under_any_scheme(h: House, header: str) -> None:
    assert h.call("POST", AT, group(alert(fresh())), key=None, headers={"authorization": header}).status == 200


def test_user_and_password(tmp_path: Path) -> None:
    def config(_: str) -> str:
        route = '[[routes]]\nto = []\nbecause = "it is only answered"'
        return f'[inbound.grafana]\nkeys = {{ ci = "user:password" }}\n{route}'

    with house(tmp_path, config=config) as h:
        for text, status in (("user:password", 200), ("user:other", 401)):
            header = {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
            answer = h.call("POST", AT, group(alert("x")), key=None, headers=header)
            assert answer.status == status
        assert answer.body == {"message": "the credential is missing or unknown"}
        assert answer.headers["www-authenticate"] == "Basic"


# --- signatures ----------------------------------------------------------------------------------------------


def _signed(h: House, body: Any, secret: str, *, at: str = "", header: str = SIGNATURE) -> Sent:
    """Posts as Grafana signs: over the body, or over the time, a colon and the body."""
    content = json.dumps(body, indent=1).encode()
    text = f"{at}:".encode() + content if at else content
    headers = {"authorization": f"Bearer {KEY}", header: hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}
    headers |= {"X-Signed-At": at} if at else {}
    answer = h.client.post(h.url + AT, content=content, headers=headers)
    return Sent(answer.status_code, answer.json() if answer.content else None, answer.headers)


def _signing(more: str) -> Any:
    route = '[[routes]]\nto = []\nbecause = "it is only answered"'
    return lambda _: f'[inbound.grafana]\nkeys = {{ ci = "{KEY}" }}\n{more}\n{route}'


def test_a_signature_is_checked_when_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNED_WITH", SECRET)
    (tmp_path / "new").write_text(NEW + "\n")
    more = f'hmac = ["env:SIGNED_WITH", "file:{tmp_path}/new"]'
    with house(tmp_path, config=_signing(more)) as h:
        body = group(alert("x"))
        assert [_signed(h, body, secret).status for secret in (SECRET, NEW)] == [200, 200]
        for refused in (_signed(h, body, "wrong"), _signed(h, body, "")):
            assert refused.status == 401
            assert refused.body["message"].startswith("the signature does not match")
        missing = h.call("POST", AT, body)
        assert missing.status == 401
        assert missing.body["message"].startswith("the signature is missing")
        (tmp_path / "new").write_text("signing-secret-4713\n")
        assert [_signed(h, body, secret).status for secret in ("signing-secret-4713", NEW)] == [200, 401]
        said = " ".join([missing.headers.get("www-authenticate", ""), str(h.gateway.config.inbounds)])
        assert SECRET not in said and NEW not in said


def test_with_an_emptied_secret_nobody_can_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty secret lets no signature pass: anybody could make it."""
    monkeypatch.setattr("gateway.config.secrets.BEING_WRITTEN", 0.0)
    (tmp_path / "secret").write_text(SECRET)
    with house(tmp_path, config=_signing(f'hmac = "file:{tmp_path}/secret"')) as h:
        body = group(alert("x"))
        assert [_signed(h, body, secret).status for secret in (SECRET, "")] == [200, 401]
        (tmp_path / "secret").write_text("\n")
        assert [_signed(h, body, secret).status for secret in ("", SECRET)] == [401, 401]


def test_a_signature_of_another_body_is_refused(tmp_path: Path) -> None:
    with house(tmp_path, config=_signing(f'hmac = "{SECRET}"')) as h:
        content = json.dumps(group(alert("x"))).encode()
        mark = hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()
        headers = {"authorization": f"Bearer {KEY}", SIGNATURE: mark}
        statuses = [
            h.client.post(h.url + AT, content=sent, headers=headers).status_code
            for sent in (content, content.replace(b"critical", b"criticaL"), content + b" ")
        ]
        assert statuses == [200, 401, 401]


def test_a_signature_with_its_time_is_good_for_five_minutes(tmp_path: Path) -> None:
    more = f'hmac = "{SECRET}"\nhmac_header = "X-Mine"\nhmac_timestamp_header = "X-Signed-At"'
    with house(tmp_path, config=_signing(more)) as h:
        now, body = int(time.time()), group(alert("x"))

        def at(text: str) -> Sent:
            return _signed(h, body, SECRET, at=text, header="X-Mine")

        assert [at(str(now + by)).status for by in (0, -240, 240, -400, 400)] == [200, 200, 200, 401, 401]
        assert at(str(now - 400)).body["message"].startswith("the signature's timestamp is off by more than 5 minutes")
        for odd in ("", "soon", "9" * 30, "-1"):
            assert at(odd).status == 401
        replayed = _signed(h, body, SECRET, header="X-Mine")
        assert replayed.status == 401, "a signature of the body alone would be good for ever"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('hmac_timestamp_header = "X"', "inbound.grafana: hmac_timestamp_header requires `hmac`"),
        ('hmac = "env:NOT_SET_ANYWHERE"', "inbound.grafana.hmac: the variable NOT_SET_ANYWHERE is not set"),
        ('hmca = "x"', "inbound.grafana.hmca: unknown key; did you mean 'hmac'?"),
        (f'hmac = "{SECRET}"\nhmac_header = 5', "inbound.grafana.hmac_header: "),
    ],
)
def test_a_faulty_configuration_is_told(more: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse('store = "sqlite:///nowhere.db"\n' + _signing(more)(""))
    assert any(found.startswith(problem) for found in raised.value.problems), raised.value.problems
    assert SECRET not in str(raised.value)


# --- who is told in such bodies --------------------------------------------------------------------------------


def _before(dialect: str, more: str = "", path: str = "/hook/?token=t") -> Any:
    retry = 'retry = { first = "10ms", most = "10ms" }'

    def text(upstream: Chaos) -> str:
        table = f'[upstreams.there]\ndialect = "{dialect}"\nurl = "{upstream.url}{path}"\n{retry}\n{more}\n'
        return f"{inbound_tables(['ilert', 'grafana', 'alertmanager_webhook'])}\n{table}"

    return text


def _ilert(h: House, word: str, key: str, **fields: Any) -> None:
    sent = h.call("POST", "/ilert/api/events", ilert_event(word, key, **fields), key=None)
    assert sent.status == 202, sent.body


@pytest.mark.parametrize(("dialect", "version"), [("grafana", "1"), ("alertmanager_webhook", "4")])
def test_an_alert_through_its_life(tmp_path: Path, dialect: str, version: str) -> None:
    """One alert per post, to exactly the configured address, with the labels that it had first; no key is needed."""
    with (
        chaos(OK) as upstream,
        house(tmp_path, config=lambda _: _before(dialect)(upstream)) as h,
    ):
        besides = {"customDetails": {"free space": "1%"}, "labels": {"host name": "db-1"}}
        _ilert(h, "ALERT", "disk", summary="Disk full", severity=2, **besides)
        settled(h, count=1)
        _ilert(h, "ALERT", "disk", summary="Disk fuller", severity=1)
        settled(h, count=2)
        _ilert(h, "ACCEPT", "disk")
        _ilert(h, "RESOLVE", "disk")
        settled(h, count=3)
        first, second, last = [got.body for got in upstream.got]
        labels = {"alertname": "Disk full", "host_name": "db-1", "severity": "error", "alert_gateway_key": "disk"}
        for body in (first, second, last):
            [one] = body["alerts"]
            assert (body["version"], one["labels"], body["commonLabels"]) == (version, labels, labels)
            assert one["fingerprint"] == fingerprint(labels)
            assert body["groupKey"] == first["groupKey"]
            assert one["startsAt"] == first["alerts"][0]["startsAt"]
            assert "alert_gateway" not in body["commonAnnotations"]
        assert [body["status"] for body in (first, second, last)] == ["firing", "firing", "resolved"]
        assert [body["alerts"][0]["status"] for body in (first, second, last)] == ["firing", "firing", "resolved"]
        assert [body["alerts"][0]["endsAt"] == NEVER for body in (first, second, last)] == [True, True, False]
        assert second["alerts"][0]["annotations"]["summary"] == "Disk fuller"
        assert second["alerts"][0]["annotations"]["severity"] == "critical"
        assert first["alerts"][0]["annotations"]["free_space"] == "1%"
        assert {(got.method, got.path) for got in upstream.got} == {("POST", "/hook/?token=t")}
        assert "authorization" not in upstream.got[0].headers
        if dialect == "grafana":
            assert (first["state"], first["title"]) == ("alerting", "[FIRING:1] Disk full")
            assert last["state"] == "ok"


def test_a_receiver_of_the_callers_own_kind_gets_what_the_caller_said(tmp_path: Path) -> None:
    """An upstream of the caller's dialect gets each alert in a post of its own, with the fields of the group as the
    caller sent them."""
    key = 'key = "user:password"'
    with chaos(OK) as upstream, house(tmp_path, config=lambda _: _before("grafana", key)(upstream)) as h:
        one, two = alert("one", values={"B": 1.5}), alert("two", enrichments=[{"new": 1}])
        assert h.call("POST", AT, group(one, two, appVersion="12.1")).status == 200
        settled(h, count=2)
        assert h.call("POST", AT, group(ended(one), title="[RESOLVED] disks")).status == 200
        settled(h, count=3)
        bodies = {got.body["alerts"][0]["labels"]["alertname"]: got.body for got in upstream.got[:2]}
        for said in (one, two):
            assert bodies[said["labels"]["alertname"]] == group(one, two, appVersion="12.1", alerts=[said])
        assert upstream.got[2].body == group(ended(one), title="[RESOLVED] disks")
        basic = base64.b64encode(b"user:password").decode()
        assert {got.headers["authorization"] for got in upstream.got} == {f"Basic {basic}"}


def test_alertmanagers_group_is_kept_around_its_alert(tmp_path: Path) -> None:
    labels = {"alertname": "disk", "job": "node"}
    one = {
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": "full"},
        "startsAt": "2023-12-31T23:50:00.123456789Z",
        "endsAt": NEVER,
        "generatorURL": "",
        "fingerprint": fingerprint(labels),
    }
    body = {
        "version": "4",
        "groupKey": '{}:{alertname="disk"}',
        "truncatedAlerts": 2,
        "receiver": "a\\.b",
        "groupLabels": {"alertname": "disk"},
        "commonLabels": labels,
        "commonAnnotations": {},
        "externalURL": "http://am:9093",
        "notification_reason": "first notification",
        "routeLabels": {"a": "b"},
        "status": "firing",
        "alerts": [one],
    }
    with chaos(OK) as upstream, house(tmp_path, config=lambda _: _before("alertmanager_webhook")(upstream)) as h:
        assert h.call("POST", AM_AT, body).status == 200
        settled(h, count=1)
        assert upstream.got[0].body == body


@pytest.mark.parametrize("count", [2, 100])
def test_a_group_is_not_kept_around_each_alert_where_that_would_fill_the_store(count: int) -> None:
    """What it says once is stored with each alert: half a mebibyte for a thousand alerts would be half a gibibyte."""
    labels = [{"alertname": f"A{number}"} for number in range(count)]
    alerts = [{"status": "firing", "labels": one} for one in labels]
    body = {"version": "4", "groupKey": "g", "commonAnnotations": {"text": "x" * 100_000}, "alerts": alerts}
    [route, *_] = dialects()["alertmanager_webhook"].routes
    batch = route.read(Incoming({}, {}, {}, body, datetime.now(UTC)))
    assert isinstance(batch, Batch) and len(batch.commands) == count
    assert {GROUP in one.verbatim for one in batch.commands} == {count == 2}
    assert all(("commonAnnotations", OF_GROUP) in one.dropped for one in batch.commands)


@pytest.mark.parametrize(("dialect", "at"), [("grafana", AT), ("alertmanager_webhook", AM_AT)])
def test_a_group_is_over_once_all_of_its_alerts_are(tmp_path: Path, dialect: str, at: str) -> None:
    """Grafana OnCall and others group by `groupKey` and close by `status`, so `status` is `resolved` only once no alert
    of the group fires. https://github.com/grafana/oncall/blob/dev/engine/config_integrations/alertmanager.py"""
    version = "1" if dialect == "grafana" else "4"
    with chaos(OK) as upstream, house(tmp_path, config=lambda _: _before(dialect)(upstream)) as h:
        one, two = alert("one"), alert("two")
        for count, alerts in ((2, (one, two)), (3, (ended(one), two)), (4, (ended(two),))):
            status = "firing" if two in alerts else "resolved"
            assert h.call("POST", at, group(*alerts, version=version, status=status)).status == 200
            settled(h, count=count)
        told = [(got.body["status"], got.body["alerts"][0]["status"]) for got in upstream.got[2:]]
        assert told == [("firing", "resolved"), ("resolved", "resolved")]
        assert len({got.body["groupKey"] for got in upstream.got}) == 1
        if dialect == "grafana":
            assert [got.body["state"] for got in upstream.got[2:]] == ["alerting", "ok"]


ONE_EACH = """
[[routes]]
name = "ones"
when = ['summary =~ "one.*"']
to = ["first"]
[[routes]]
name = "others"
to = ["second"]
"""


@pytest.mark.parametrize(("dialect", "at"), [("grafana", AT), ("alertmanager_webhook", AM_AT)])
def test_a_group_is_over_for_a_receiver_once_its_part_of_it_is(tmp_path: Path, dialect: str, at: str) -> None:
    """Where the alerts of a group go to different receivers, each is sent `resolved` once its own alerts are over,
    though the sender says so of the group only once all are."""
    version = "1" if dialect == "grafana" else "4"
    with chaos(OK) as first, chaos(OK) as second:
        tables = "".join(
            f'[upstreams.{name}]\ndialect = "{dialect}"\nurl = "{to.url}/hook"\n'
            for name, to in (("first", first), ("second", second))
        )
        text = f"{inbound_tables([dialect])}\n{tables}{ONE_EACH}"
        with house(tmp_path, config=lambda _: text) as h:
            one, more, two = alert("one"), alert("one more"), alert("two")
            said = ((one, more, two), (ended(one), more, two), (ended(more), two), (ended(two),))
            for count, alerts in zip((3, 4, 5, 6), said, strict=True):
                assert h.call("POST", at, group(*alerts, version=version)).status == 200
                settled(h, count=count)
        heard = [[(got.body["status"], got.body["alerts"][0]["status"]) for got in to.got] for to in (first, second)]
        fires, ends = ("firing", "firing"), ("resolved", "resolved")
        assert heard == [[fires, fires, ("firing", "resolved"), ends], [fires, ends]]
        assert len({got.body["groupKey"] for got in first.got}) == 1


def test_what_fires_is_taken_in_before_what_has_ended(tmp_path: Path) -> None:
    """Firing alerts of a group are accepted before resolved ones, else the post of a resolved one would say that the
    whole group is over."""
    one, two = alert("one"), alert("two")
    with chaos(OK) as upstream, house(tmp_path, config=lambda _: _before("grafana")(upstream)) as h:
        assert h.call("POST", AT, group(one)).status == 200
        settled(h, count=1)
        assert h.call("POST", AT, group(ended(one), two)).status == 200
        settled(h, count=3)
        assert {got.body["status"] for got in upstream.got} == {"firing"}
    read = [command.operation for command in notified(group(ended(one), two), TOLD, datetime.now(UTC)).commands]
    assert read == ["create", "resolve"]
    again = notified(group(ended(one), one), TOLD, datetime.now(UTC))
    assert [command.operation for command in again.commands] == ["resolve", "create"]


def test_an_older_alertmanager_gets_plain_names(tmp_path: Path) -> None:
    """Grafana's users choose names that releases of Alertmanager before 0.27 refuse, and with them the alert."""

    def older(got: Got) -> Behaviour:
        [one] = got.body
        odd = [name for name in (*one["labels"], *one["annotations"]) if not name.replace("_", "").isalnum()]
        return say(400, f'invalid label set: invalid name "{odd[0]}"') if odd else OK

    labels, plain = {"alertname": "disk", "service.name": "db"}, {"alertname": "disk", "service_name": "db"}
    one = alert("disk", labels=labels, fingerprint=fingerprint(labels), annotations={"Runbook Owner": "jane"})
    with chaos(older) as upstream, house(tmp_path, config=lambda _: _before("alertmanager", path="")(upstream)) as h:
        assert h.call("POST", AT, group(one)).status == 200
        [delivered] = settled(h)
        assert "letters, digits and underscores" in str(delivered.fates)
        assert h.call("POST", AT, group(ended(one))).status == 200
        settled(h, count=2)
        told = [got.body[0] for got in upstream.got]
        assert [posted["labels"] for posted in told[:2]] == [labels, plain], "later releases take it unchanged"
        assert (told[-1]["labels"], told[-1]["annotations"]["Runbook_Owner"]) == (plain, "jane")


def test_an_older_alertmanager_and_other_labels_are_both_reported(tmp_path: Path) -> None:
    """Two reasons why the labels differ there: one must not hide the other."""

    def older(got: Got) -> Behaviour:
        return say(400, 'invalid label set: invalid name "service.name"') if b"service.name" in got.content else OK

    labels = {"alertname": "disk", "service.name": "db", "zone": "a"}
    mark = fingerprint(labels)
    with chaos(older) as upstream, house(tmp_path, config=lambda _: _before("alertmanager", path="")(upstream)) as h:
        for count, zone in enumerate(("a", "b"), 1):
            one = alert("disk", labels={**labels, "zone": zone}, fingerprint=mark, annotations={"service.name": zone})
            assert h.call("POST", AT, group(one)).status == 200
            settled(h, count=count)
        report = str(settled(h, count=2)[-1].fates)
        assert "labels stay as first sent" in report
        assert "letters, digits and underscores" in report


def test_a_receiver_that_is_down_gets_the_same_again(tmp_path: Path) -> None:
    answers = [say(503, {"message": "not now"}), OK]
    with (
        chaos(lambda got: answers.pop(0) if answers else OK) as upstream,
        house(tmp_path, config=lambda _: _before("grafana")(upstream)) as h,
    ):
        assert h.call("POST", AT, group(alert("one"))).status == 200
        settled(h, count=1)
        assert [got.content for got in upstream.got] == [upstream.got[0].content] * 2


def test_a_refusal_is_told_in_the_receivers_words(tmp_path: Path) -> None:
    with (
        chaos(say(422, {"error": "no such integration"})) as upstream,
        house(tmp_path, config=lambda _: _before("grafana")(upstream)) as h,
    ):
        assert h.call("POST", AT, group(alert("one"))).status == 200
        [dead] = settled(h, "dead")
        assert dead.reason == "422 no such integration"


@pytest.mark.parametrize("common", [None, "disks", [], 7])
def test_what_is_said_of_the_group_keeps_no_alert_back(tmp_path: Path, common: Any) -> None:
    """The fields of the group are not validated on the way in, so values of any type must be sendable; else the alert
    is retried for a day."""
    with chaos(OK) as upstream:
        there = f'[upstreams.there]\ndialect = "grafana"\nurl = "{upstream.url}/hook"\n'
        with house(tmp_path, config=lambda _: f"{inbound_tables(['grafana'])}\n{there}") as h:
            assert h.call("POST", AT, group(alert("A"), commonAnnotations=common)).status == 200
            h.wait_for(lambda: upstream.got)
            assert upstream.got[0].body["commonAnnotations"] == {}
            assert upstream.got[0].body["alerts"][0]["labels"]["alertname"] == "A"
