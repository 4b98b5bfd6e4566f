"""Gateways in a row, a sidecar that forwards to a central one: what a caller does to an alert is done at the vendor
behind both, whichever dialect they speak to each other. Each has its own store, and they talk over real HTTP."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.cli.sandbox import Sandbox
from gateway.config.loading import parse
from gateway.process.service import Gateway
from gateway.registry import dialects
from tests.clients.callers import OTHER, ibm_alert, ilert_event, uptinio_alert
from tests.engine.vendors import outbox
from tests.harness import DEFAULTS, KEY, UPSTREAM_KEY, House, inbound_tables, served, upstream_table


class Forgetful:
    """Passes requests on to an application, but answers the first POST to a path with this ending with 502, after the
    application has handled it."""

    def __init__(self, app: Any, path: str = "") -> None:
        self.app = app
        self.path = path
        self.has_lost = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, and drops the answer where it is the one to be lost."""
        is_it = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(self.path)
        if not is_it or self.has_lost:
            await self.app(scope, receive, send)
            return
        self.has_lost = True

        async def losing(message: Message) -> None:
            """Discards the application's answer."""

        await self.app(scope, receive, losing)
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@contextlib.contextmanager
def row(directory: Path, between: str, vendor: str, *, forgets: str | None = None) -> Iterator[House]:
    """The first of two gateways that speak `between` to each other. The sandbox is behind the second, which loses its
    first answer at a path that ends in `forgets`."""
    sandbox = Sandbox(dialects(), UPSTREAM_KEY)
    with served(sandbox) as sandbox_url:
        central = f'store = "sqlite://{directory}/central.db"\n[inbound.{between}]\nkeys = {{ sidecar = "{OTHER}" }}\n'
        app = Gateway(parse(central + upstream_table("vendor", vendor, sandbox_url))).app
        with served(app if forgets is None else Forgetful(app, forgets)) as there:
            table = f'[upstreams.central]\ndialect = "{between}"\nurl = "{there}/{between}"\nkey = "{OTHER}"\n'
            table += 'retry = { first = "20ms", most = "100ms" }\n'
            sidecar = (
                f'store = "sqlite://{directory}/sidecar.db"\n{inbound_tables(["ibm_monitoring", "ilert", "uptinio"])}\n'
            )
            gateway = Gateway(parse(sidecar + table + DEFAULTS.format(name="central")))
            with served(gateway.app) as url:
                standing = House(url, sandbox_url, gateway, sandbox)
                with standing.client:
                    yield standing


@pytest.mark.parametrize("between", sorted(dialects()))
def test_what_is_over_is_over_behind_both(between: str, tmp_path: Path) -> None:
    with row(tmp_path, between, "pagerduty") as first:
        for count, word in enumerate(("ALERT", "RESOLVE"), 1):
            event = ilert_event(word, "disk", summary="Disk full")
            assert first.call("POST", "/ilert/api/events", event, key=None).status < 300
            arrived = first.arrives("pagerduty", count)
        assert [one.body["event_action"] for one in arrived] == ["trigger", "resolve"]
        assert arrived[0].body["dedup_key"] == arrived[1].body["dedup_key"]


def test_what_is_switched_on_again_is_a_page_again(tmp_path: Path) -> None:
    """At the second gateway the sidecar's alert is a rule, which is switched off and on."""
    with row(tmp_path, "ibm_monitoring", "pagerduty") as first:
        made = first.call("POST", "/uptinio/alerts", uptinio_alert("Disk full"))
        assert made.status == 201
        for count, status in enumerate(("resolved", "active"), 2):
            path = f"/uptinio/alerts/{made.body['data']['id']}"
            assert first.call("PUT", path, {"status": status}).status == 200
            arrived = first.arrives("pagerduty", count)
        assert [one.body["event_action"] for one in arrived] == ["trigger", "resolve", "trigger"]


@pytest.mark.parametrize(
    "between", ["alertmanager", "cloudevents", "ilert", "jsm_ops", "opsgenie", "pagerduty", "splunk_oncall"]
)
def test_what_is_cleared_is_cleared_behind_both(between: str, tmp_path: Path) -> None:
    """An event cannot say that a field is gone, so that is carried. Where each field has a request of its own, the text
    comes before what says which lines were added to it."""
    with row(tmp_path, between, "ibm_monitoring") as first:
        made = first.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("Disk full", filter="host = db-1", teamId=4))
        assert made.status == 200
        change = {"description": "/var is full", "filter": None, "severity": None, "teamId": None}
        path = f"/ibm_monitoring/api/alerts/{made.body['alert']['id']}"
        assert first.call("PUT", path, {"alert": change}).status == 200

        def is_told() -> bool:
            last = first.arrived("ibm_monitoring")[-1].body["alert"]
            return {name: last.get(name) for name in change} == {**change, "severity": severity}

        severity = 4 if between == "alertmanager" else None  # there the labels stay as they were first
        first.wait_for(is_told)


RICH: dict[str, tuple[str, dict[str, Any]]] = {
    "ilert": ("/ilert/api/events", ilert_event("ALERT", "disk", summary="Disk full", details="/var", priority="HIGH")),
    "uptinio": (
        "/uptinio/alerts",
        uptinio_alert("Slow", channels=["email"], threshold={"value": 1000, "operator": ">", "duration": 300}),
    ),
}


@pytest.mark.parametrize("caller", sorted(RICH))
@pytest.mark.parametrize("between", sorted(dialects()))
def test_what_was_made_though_nobody_heard_is_not_made_again(between: str, caller: str, tmp_path: Path) -> None:
    """The sidecar finds its alert at the second gateway, although what that shows is not always exactly what it was
    sent."""
    with row(tmp_path, between, "pagerduty", forgets="") as first:
        path, body = RICH[caller]
        assert first.call("POST", path, body, key=None if caller == "ilert" else KEY).status < 300
        first.wait_for(lambda: [one.state for one in outbox(first)] == ["delivered"])
        arrived = first.arrives("pagerduty", 1)
        time.sleep(0.3)  # a second one would arrive at once
        assert len(first.arrived("pagerduty")) == len(arrived) == 1


def test_an_acknowledgement_that_was_made_twice_mutes_nothing_afterwards(tmp_path: Path) -> None:
    """At the second gateway, as at Alertmanager, an acknowledgement is a silence; one whose answer was lost must not
    outlive the alert."""
    with row(tmp_path, "alertmanager", "pagerduty", forgets="/silences") as first:
        for count, word in enumerate(("ALERT", "ACCEPT", "RESOLVE", "ALERT"), 1):
            event = ilert_event(word, 'disk "C:\\"', summary="Disk full")
            assert first.call("POST", "/ilert/api/events", event, key=None).status < 300
            arrived = first.arrives("pagerduty", count)
            first.wait_for(lambda: not outbox(first, "waiting"))
        assert [one.body["event_action"] for one in arrived] == ["trigger", "acknowledge", "resolve", "trigger"]


def test_what_is_acknowledged_has_more_labels_than_a_silence_holds(tmp_path: Path) -> None:
    """The key among them tells the alert from every other, and a silence of all would be refused."""
    with row(tmp_path, "alertmanager", "pagerduty") as first:
        labels = {"dump": "x" * 9_000, "log": "y" * 9_000, "team": "db"}
        for key in ("disk", "fan"):
            event = ilert_event("ALERT", key, summary="Down", labels=labels)
            assert first.call("POST", "/ilert/api/events", event, key=None).status < 300
        first.arrives("pagerduty", 2)
        for word in ("ACCEPT", "RESOLVE"):
            assert first.call("POST", "/ilert/api/events", ilert_event(word, "disk"), key=None).status < 300
            first.wait_for(lambda: not outbox(first, "waiting"))
        arrived = first.arrives("pagerduty", 4)
        assert outbox(first, "dead") == []
        told = [(one.body["event_action"], one.body["dedup_key"]) for one in arrived]
        [disk] = {key for word, key in told if word == "resolve"}
        assert [word for word, key in told if key == disk] == ["trigger", "acknowledge", "resolve"]
        assert [word for word, key in told if key != disk] == ["trigger"], "the other one is as loud as it was"


@pytest.mark.parametrize(("between", "path"), [("ilert", ""), ("jsm_ops", "/notes"), ("opsgenie", "/notes")])
def test_a_comment_whose_answer_was_lost_is_not_made_twice(between: str, path: str, tmp_path: Path) -> None:
    """A retry of a comment must be told from a second comment in the same words, which is added."""
    with row(tmp_path, between, "ilert", forgets=path) as first:
        if path:
            first.call("POST", "/ilert/api/events", ilert_event("ALERT", "disk", summary="Disk full"), key=None)
            first.arrives("ilert", 1)
        before = len(first.arrived("ilert"))
        for count in (1, 2):
            comment = ilert_event("COMMENT", "disk", summary="I look at it")
            assert first.call("POST", "/ilert/api/events", comment, key=None).status < 300
            first.arrives("ilert", before + count)
            first.wait_for(lambda: not outbox(first, "waiting"))
        time.sleep(0.3)  # a second one would arrive at once
        assert len(first.arrived("ilert")) == before + 2
        assert outbox(first)[-2].attempts == 2, "the answer to the first was to be lost"
