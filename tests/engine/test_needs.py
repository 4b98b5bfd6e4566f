"""What an upstream requires and a caller's alert does not have, for every pair where there is such a thing: refused
before anything is stored or sent, in the caller's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.callers import (
    ALERTS,
    COLLECTIONS,
    alertmanager_alerts,
    ibm_alert,
    ilert_event,
    listed,
    livesession_alert,
    opsgenie_alert,
    pagerduty_event,
    uptinio_alert,
)
from tests.harness import house

NEEDS = [
    ("livesession", "ibm_monitoring", "condition"),
    ("uptinio", "ibm_monitoring", "condition"),
    ("alertmanager", "ibm_monitoring", "condition"),
    ("ilert", "ibm_monitoring", "condition"),
    ("opsgenie", "ibm_monitoring", "condition"),
    ("pagerduty", "ibm_monitoring", "condition"),
    ("ibm_monitoring", "livesession", "channels"),
    ("uptinio", "livesession", "channels"),
    ("alertmanager", "livesession", "channels"),
    ("ilert", "livesession", "channels"),
    ("opsgenie", "livesession", "channels"),
    ("pagerduty", "livesession", "channels"),
    ("livesession", "uptinio", "resource"),
    ("ibm_monitoring", "uptinio", "resource"),
    ("alertmanager", "uptinio", "resource"),
    ("ilert", "uptinio", "resource"),
    ("opsgenie", "uptinio", "resource"),
    ("pagerduty", "uptinio", "resource"),
]


@pytest.mark.parametrize("target", ["ibm_monitoring", "livesession", "uptinio"])
def test_what_a_target_requires_and_nothing_supplies(tmp_path: Path, target: str) -> None:
    """Refused before anything is sent, in the caller's shape, naming the upstream, the field and the setting."""
    bodies: dict[str, Any] = {
        "alertmanager": alertmanager_alerts("x"),
        "livesession": livesession_alert("x"),
        "ibm_monitoring": ibm_alert("x"),
        "uptinio": uptinio_alert("x"),
        "ilert": ilert_event("ALERT", "x", summary="x"),
        "opsgenie": opsgenie_alert("x"),
        "pagerduty": pagerduty_event("trigger", "x"),
    }
    paths = COLLECTIONS | {"ilert": "/ilert/api/events", "pagerduty": "/pagerduty/v2/enqueue", "alertmanager": ALERTS}
    with house(tmp_path, {"their-place": target}, defaults=False) as h:
        for caller, field in [(caller, field) for caller, there, field in NEEDS if there == target]:
            sent = h.call("POST", paths[caller], bodies[caller])
            assert sent.status == (422 if caller == "opsgenie" else 400), (caller, sent.body)
            for word in ("their-place", field, "defaults"):
                assert word in str(sent.body), sent.body
            assert caller not in COLLECTIONS or listed(h, caller) == []
        assert h.arrived(target) == []
