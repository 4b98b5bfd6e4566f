"""Rows of the way in: an alert is received, made durable, and answered in its sender's dialect.

The upstream is down, so that only the way in is measured, except where the row says that alerts are also delivered on
the same core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.loads import NUMBER, Heard, Question, heard
from tests.benchmarks.measuring import Plan, Row, in_turns
from tests.benchmarks.places import (
    ALERTMANAGER,
    NOWHERE,
    Place,
    alertmanager,
    configured,
    gateway,
    has,
    taker,
    yardstick,
)
from tests.chaos.load import CALLER_KEY

CONNECTIONS = 48
"""As many requests as the gateway takes in at a time, however long its queue is."""
CONNECTIONS_OF_BATCHES = 2
"""So few, because each alert of a batch counts as a request in the gateway's limit."""


def event(size: int = 0) -> Question:
    """Returns the documented event, with another key each time and details of `size` bytes."""
    said = {
        "apiKey": CALLER_KEY,
        "eventType": "ALERT",
        "summary": f"Your alert summary {NUMBER}",
        "details": "x" * size,
        "alertKey": f"abc-{NUMBER}",
        "priority": "HIGH",
        "links": [{"href": "https://example.com/runbook", "text": "A link"}],
        "customDetails": {"some": {"more": "fields"}},
    }
    return Question("/api/events", json.dumps(said))


def post_of(count: int) -> Question:
    """Returns `count` alerts in one request, as Prometheus sends them."""
    alerts = [
        {
            "labels": {"alertname": "HighRequestLatency", "job": "myjob", "instance": f"i-{NUMBER}-{number}"},
            "annotations": {"summary": "High request latency"},
            "generatorURL": "http://prometheus:9090/graph?g0.expr=latency",
        }
        for number in range(count)
    ]
    return Question("/api/v2/alerts", json.dumps(alerts), headers={"authorization": f"Bearer {CALLER_KEY}"})


def asking(place: Place, question: Question, plan: Plan, connections: int = CONNECTIONS) -> Callable[[], Heard]:
    """Returns one measurement of a server, which is stopped before and after."""

    def ask() -> Heard:
        before = place.used()
        with place.awake():
            found = heard(place.url, question, connections=connections, seconds=plan.seconds, room=plan.directory)
        return replace(found, used=place.used() - before)

    return ask


def rates(found: list[Heard]) -> list[float]:
    """Returns the accepted requests a second."""
    return [one.rate for one in found]


def refusals(found: list[Heard]) -> str:
    """Returns what share was refused, in brackets; empty if nothing was."""
    refused, taken = sum(one.refused for one in found), sum(one.answers for one in found)
    return f" ({refused / (refused + taken):.0%} refused)" if refused else ""


def _against_plain(
    plan: Plan, room: Path, upstream: str, what: str, goal: str = "", log_level: str = "error"
) -> list[Row]:
    config = configured(room, [upstream])
    with gateway(config, log_level=log_level) as (_, ours), yardstick("coding", "(c)", room) as plain:
        found, other = in_turns(plan.rounds, asking(ours, event(), plan), asking(plain, event(), plan))
    return [
        Row(
            what=what + refusals(found), ours=rates(found), unit="/s", against="(c)", yardstick=rates(other), goal=goal
        ),
        Row(
            what="- processor time of an alert there",
            ours=[one.spent * 1000 for one in found],
            unit="ms",
            against="(c)",
            yardstick=[one.spent * 1000 for one in other],
        ),
    ]


def ingest(plan: Plan) -> list[Row]:
    """Measures alerts that are only made durable and answered, without and with a line in the log for each request."""
    silent = _against_plain(plan, plan.room("ingest"), NOWHERE, "durable ingest", "≥ 0.75")
    logged = _against_plain(plan, plan.room("logged"), NOWHERE, "- with a line in the log for each", log_level="info")
    return [*silent, logged[0]]


def delivering(plan: Plan) -> list[Row]:
    """Measures the same while the accepted alerts are delivered."""
    room = plan.room("delivering")
    with taker(room) as upstream:
        return _against_plain(plan, room, upstream.url, "durable ingest with delivery on the same core", "≥ 0.65")


def prometheus(plan: Plan) -> list[Row]:
    """Measures Prometheus' alerts, one and a hundred per request, against Alertmanager, which keeps them in memory."""
    room = plan.room("prometheus")
    config = configured(room, [NOWHERE], inbound="alertmanager")
    name = "Alertmanager" if has(ALERTMANAGER) else "(c)"
    other = alertmanager(room) if has(ALERTMANAGER) else yardstick("coding", "(c)", room)
    with gateway(config) as (_, place), other as plain:
        ours, theirs = in_turns(plan.rounds, asking(place, post_of(1), plan), asking(plain, post_of(1), plan))
        batches = asking(place, post_of(100), plan, CONNECTIONS_OF_BATCHES)
        many, again = in_turns(plan.rounds, batches, asking(plain, post_of(1), plan))
    if name == "(c)":
        name += ", as Alertmanager is not installed"
    return [
        Row(
            what="durable ingest, one alert per request, as Prometheus sends them" + refusals(ours),
            ours=rates(ours),
            unit="/s",
            against=name,
            yardstick=rates(theirs),
            goal="≥ 1.0 of Alertmanager",
        ),
        Row(
            what="the same, p99",
            ours=[one.p99 * 1000 for one in ours],
            unit="ms",
            against=name,
            yardstick=[one.p99 * 1000 for one in theirs],
            goal="≤ 0.25 of Alertmanager",
        ),
        Row(
            what="durable ingest, 100 alerts per request, against one per request" + refusals(many),
            ours=[one.rate * 100 for one in many],
            unit="alerts/s",
            against=name,
            yardstick=rates(again),
            goal="≥ 2.5 of Alertmanager",
        ),
    ]
