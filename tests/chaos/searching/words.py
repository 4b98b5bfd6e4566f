"""What callers say, each in the words of its vendor's documentation: one function a dialect, from what is done with an
alert to a request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.searching.alerts import Alert
from tests.chaos.searching.passing import Passing
from tests.harness import KEY


@dataclass(frozen=True)
class Request:
    """A request; the caller's key is in its body, or goes into a header."""

    method: str
    path: str
    body: Any = None
    has_key: bool = False


def _ilert(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    word = {"acknowledge": "ACCEPT", "close": "RESOLVE", "note": "COMMENT"}.get(what, "ALERT")
    body = {"apiKey": KEY, "eventType": word, "alertKey": alert.key}
    if word in ("ALERT", "COMMENT"):
        body["summary"] = alert.text if word == "ALERT" else alert.notes[-1]
    return Request("POST", "/ilert/api/events", body, True)


def _pagerduty(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    word = {"acknowledge": "acknowledge", "close": "resolve"}.get(what, "trigger")
    body: dict[str, Any] = {"routing_key": KEY, "event_action": word, "dedup_key": alert.key}
    if word == "trigger":
        body["payload"] = {"summary": alert.text, "source": "db-1", "severity": "critical"}
    return Request("POST", "/pagerduty/v2/enqueue", body, True)


def _genie_body(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Any:
    return {
        "update": {"message": alert.text},
        "note": {"note": alert.notes[-1] if alert.notes else ""},
        "assign": {"owner": {"username": "ann"}},
        "snooze": {"endTime": passing.text(3600)},
        "priority": {"priority": chance.choice(("P1", "P2", "P4"))},
        "tags": {"tags": [f"t{chance.randint(1, 3)}"]},
    }.get(what, {})


GENIES = {"update": "message", "note": "notes"}
"""What is said at another path than its own name."""


def _opsgenie(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    if what in ("create", "repeat"):
        return Request("POST", "/opsgenie/v2/alerts", {"message": alert.text, "alias": alert.key})
    path, by_alias = f"/opsgenie/v2/alerts/{alert.key}", "?identifierType=alias"
    if what == "delete":
        return Request("DELETE", path + by_alias)
    method = "PUT" if what in ("update", "priority") else "POST"
    body = _genie_body(alert, what, chance, passing)
    return Request(method, f"{path}/{GENIES.get(what, what)}{by_alias}", body)


def _jsm_ops(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    if what == "create":
        return Request("POST", "/jsm_ops/alerts", {"message": alert.text})
    path = f"/jsm_ops/alerts/{alert.id}"
    if what == "delete":
        return Request("DELETE", path)
    method = "PATCH" if what in ("update", "priority") else "POST"
    return Request(method, f"{path}/{GENIES.get(what, what)}", _genie_body(alert, what, chance, passing) or None)


def _uptinio(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    if what == "create":
        return Request("POST", "/uptinio/alerts", {"monitor_id": "mon_1", "type": "down", "message": alert.text})
    body = {
        "update": {"message": alert.text},
        "close": {"status": "resolved"},
        "close with words": {"status": "resolved", "message": alert.text},
        "reopen": {"status": "active"},
    }[what]
    return Request("PUT", f"/uptinio/alerts/{alert.id}", body)


def _ibm_monitoring(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    path = "/ibm_monitoring/api/alerts"
    if what == "create":
        rule = {
            "name": alert.text,
            "type": "MANUAL",
            "condition": "avg(timeAvg(uptime)) <= 0",
            "timespan": 600_000_000,
            "segmentBy": ["host.hostName"],
            "segmentCondition": {"type": "ANY"},
            "severity": 4,
            "enabled": True,
        }
        return Request("POST", path, {"alert": rule})
    if what == "delete":
        return Request("DELETE", f"{path}/{alert.id}")
    change = {"update": {"name": alert.text}, "disable": {"enabled": False}, "enable": {"enabled": True}}[what]
    return Request("PUT", f"{path}/{alert.id}", {"alert": change})


def _livesession(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    path = "/livesession/v1/alerts"
    if what == "create":
        events = [{"kind": 26, "value": "x"}]
        body = {"name": alert.text, "events": events, "provider": "slack", "slack_channel_id": "C042"}
        return Request("POST", path, body)
    if what == "delete":
        return Request("DELETE", f"{path}/{alert.id}")
    return Request("PUT", f"{path}/{alert.id}", {"name": alert.text})


def _cloudevents(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    word = {"acknowledge": "acknowledged", "close": "resolved"}.get(what, "firing")
    data = {"dedup_key": alert.key, "status": word}
    if word == "firing":
        data |= {"summary": alert.text, "severity": "critical"}
    number = f"{word} {alert.text} {len(alert.done)}"
    event = {"specversion": "1.0", "id": number, "source": "/search", "type": "com.example.alert", "data": data}
    return Request("POST", "/cloudevents", event)


def _splunk_oncall(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    word = {"acknowledge": "ACKNOWLEDGEMENT", "close": "RECOVERY", "note": "INFO"}.get(what, "CRITICAL")
    body = {"message_type": word, "entity_id": alert.key}
    if word == "CRITICAL":
        body["entity_display_name"] = alert.text
    elif word == "INFO":
        body["state_message"] = alert.notes[-1]
    return Request("POST", f"/splunk_oncall/integrations/generic/20131114/alert/{KEY}/everyone", body, True)


def _alertmanager(alert: Alert, what: str, chance: random.Random, passing: Passing) -> Request:
    one = {
        "labels": {"alertname": alert.key, "severity": "critical"},
        "annotations": {"summary": alert.text},
        "endsAt": passing.text(-1 if what == "close" else 300 * 86_400),
    }
    return Request("POST", "/alertmanager/api/v2/alerts", [one])


GENIE = ("update", "acknowledge", "unacknowledge", "note", "priority", "close")
Say = Callable[[Alert, str, random.Random, Passing], Request]
CALLERS: dict[str, tuple[Say, tuple[str, ...]]] = {
    "ilert": (_ilert, ("update", "repeat", "acknowledge", "close", "note")),
    "pagerduty": (_pagerduty, ("update", "repeat", "acknowledge", "close")),
    "opsgenie": (_opsgenie, ("repeat", "delete", "tags", "assign", "snooze", *GENIE)),
    "jsm_ops": (_jsm_ops, GENIE),
    "uptinio": (_uptinio, ("update", "close", "reopen", "close with words")),
    "ibm_monitoring": (_ibm_monitoring, ("update", "disable", "enable", "delete")),
    "livesession": (_livesession, ("update", "delete")),
    "cloudevents": (_cloudevents, ("update", "repeat", "acknowledge", "close")),
    "splunk_oncall": (_splunk_oncall, ("update", "repeat", "acknowledge", "close", "note")),
    "alertmanager": (_alertmanager, ("update", "repeat", "close")),
}
"""Who calls: how it says what is done with an alert, and what it can do but make one."""
BY_KEY = ("ilert", "pagerduty", "opsgenie", "cloudevents", "splunk_oncall", "alertmanager")
"""Who chooses a key."""
ANY_KEY = BY_KEY[:5]
"""Whose keys are texts, so that one of them can go on with what another began."""
ENDING = ("close", "disable", "delete")
AGAIN = ("reopen", "enable")


def possible(alert: Alert, dialect: str) -> list[str]:
    """What can be done with an alert in these words."""
    does = CALLERS[dialect][1]
    if alert.state == "open":
        return [what for what in does if what not in AGAIN]
    return [what for what in does if what in AGAIN] if alert.state == "closed" and not alert.is_deleted else []


def said(alert: Alert, what: str, dialect: str, chance: random.Random, passing: Passing) -> Request:
    """How this is said."""
    return CALLERS[dialect][0](alert, what, chance, passing)
