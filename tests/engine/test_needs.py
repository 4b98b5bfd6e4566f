"""Fields that an upstream requires and a caller's alert lacks, for every pair where that happens: refused before
anything is stored or sent, in the caller's words; or supplied, and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.loading import parse
from gateway.mapping.saying import Saying
from gateway.mapping.translation import translate
from tests.clients.callers import (
    ALERTS,
    COLLECTIONS,
    SPLUNK,
    WEBHOOKS,
    alertmanager_alerts,
    cloud_event,
    ibm_alert,
    ilert_event,
    jsm_alert,
    listed,
    livesession_alert,
    opsgenie_alert,
    pagerduty_event,
    splunk_alert,
    uptinio_alert,
    webhook_group,
)
from tests.harness import KEY, house

REQUIRED = {"ibm_monitoring": "condition", "livesession": "channels", "uptinio": "resource"}
"""Per target the field that it requires and callers of no other dialect send."""


@pytest.mark.parametrize(("target", "field"), REQUIRED.items())
def test_what_a_target_requires_and_nothing_supplies(tmp_path: Path, target: str, field: str) -> None:
    """The request is refused before anything is sent, in the caller's shape, naming the upstream, the field and the
    setting."""
    bodies: dict[str, Any] = {
        "alertmanager": alertmanager_alerts("x"),
        "livesession": livesession_alert("x"),
        "ibm_monitoring": ibm_alert("x"),
        "uptinio": uptinio_alert("x"),
        "ilert": ilert_event("ALERT", "x", summary="x"),
        "jsm_ops": jsm_alert("x"),
        "opsgenie": opsgenie_alert("x"),
        "pagerduty": pagerduty_event("trigger", "x"),
        "splunk_oncall": splunk_alert("CRITICAL", "x"),
        "cloudevents": cloud_event("firing", "x"),
        **{name: webhook_group(name, "x", "x") for name in WEBHOOKS},
    }
    paths = COLLECTIONS | {"ilert": "/ilert/api/events", "pagerduty": "/pagerduty/v2/enqueue", "alertmanager": ALERTS}
    paths |= {"splunk_oncall": f"{SPLUNK}/{KEY}"}
    paths |= {"cloudevents": "/cloudevents", **{name: f"/{name}/webhook" for name in WEBHOOKS}}
    with house(tmp_path, {"their-place": target}, defaults=False) as h:
        for caller in sorted(bodies.keys() - {target}):
            sent = h.call("POST", paths[caller], bodies[caller])
            assert sent.status == (422 if caller in ("jsm_ops", "opsgenie") else 400), (caller, sent.body)
            for word in ("their-place", field, "defaults"):
                assert word in str(sent.body), sent.body
            assert caller not in COLLECTIONS or listed(h, caller) == []
        assert h.arrived(target) == []


DESCRIBED = """
[inbound.ilert]
[upstreams.there]
dialect = "acme"
url = "http://127.0.0.1:9"
key = "x"
[dialects.acme]
title = "Acme"
url = "https://acme.example.com/"
[dialects.acme.fields]
summary = { at = "title", required = true, limit = 99 }
source = { at = "from", required = true }
severity = { at = "level", words = { bad = 1, good = 6 }, default = 1 }
enabled = { at = "on", default = false }
links = { at = "links", default = [{ href = "https://acme.example.com/" }] }
"""


def test_what_is_supplied_is_told_in_words() -> None:
    """For a described dialect: the value that is sent instead, if it is short, or the setting where it is written."""
    there = parse(DESCRIBED).upstreams["there"].destination
    said = translate(Saying(flat={"kind": "occurrence", "details": "Disk full"}, origin="ilert", caller="ci"), there)
    assert {fate.field: fate.why for fate in said.report if fate.fate == "approximated"} == {
        "summary": "supplied: at most 99 characters; where absent, taken from details, category or key",
        "source": "supplied: where absent, the resource or the caller's name",
        "severity": "supplied: where absent, bad",
        "enabled": "supplied: where absent, false",
        "links": "supplied: where absent, the description's default",
    }
    assert said.body["title"] == "Disk full" and said.body["from"] == "ci"
