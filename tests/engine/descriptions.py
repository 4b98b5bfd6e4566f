"""Vendors without a module, described by a table as a user would: after Datadog's and incident.io's pages, and one
whose body is nested deeply, as Rootly's is. Each comes with the bodies that its callers send."""

from __future__ import annotations

import functools
from typing import Any

from gateway.asked import Command
from gateway.canonical import Operation
from gateway.config.config import Config
from gateway.config.loading import parse
from gateway.dialect import Dialect
from gateway.rehearsal import command_in
from tests.harness import KEY, House

TITLES = """
[dialects.datadog]
title = "Datadog"
url = "https://docs.datadoghq.com/integrations/webhooks/"
auth = { header = "X-Gateway-Key" }
reply = { status = 200, body = { ok = true, of = "{key}" } }

[dialects.datadog.fields]
summary = { at = ["title", "event_title"], required = true }
details = "body"
dedup_key = { at = "alert_cycle_key", limit = 60 }
resource = "hostname"
category = "alert_metric"
team = { at = "team", words = { sre = "platform" } }
links = { at = "link", form = "address" }
labels = { at = "tags", form = "text" }
"condition.window" = { at = "window", unit = "ms" }
occurred_at = { at = "date", unit = "ms" }

[dialects.datadog.fields.severity]
at = "alert_priority"
words = { P1 = 1, P2 = 3, P3 = 4, P4 = 5, P5 = 6 }
otherwise = 3

[dialects.datadog.fields.status]
at = "alert_transition"
resolve = ["Recovered", "No Data Recovered"]
"""
"""Every value is a text; a template variable without a value is blank."""

TRIGGERED = {
    "title": "[Triggered] CPU is high on web-1",
    "body": "avg(last_5m) is 97 %",
    "alert_cycle_key": "1234567890",
    "hostname": "web-1",
    "alert_metric": "system.cpu.user",
    "alert_priority": "P2",
    "alert_transition": "Triggered",
    "team": "sre",
    "link": "https://app.datadoghq.com/monitors/1",
    "tags": "env:prod, service:web,urgent",
    "window": 300_000,
    "event_title": "",
    "org": {"id": "7", "name": "acme"},
}

SOURCE = """
[dialects.source]
title = "incident.io"
url = "https://docs.incident.io/"
path = "/v2/alert_events/http/alert-source"
container = "metadata"
auth = { query = "token" }
reply = { body = { status = "success", message = "Event accepted for processing", deduplication_key = "{key}" } }
send = { path = "/v2/alert_events/http/alert-source", headers = { X-Sent-By = "gateway" } }

[dialects.source.fields]
summary = { at = "title", required = true }
details = "description"
dedup_key = { at = "deduplication_key", required = true }
status = { at = "status", firing = "firing", resolve = "resolved" }
links = { at = "source_url", form = "address" }
"""
"""A vendor without severity and acknowledgement, whose body has one free-form object."""

FIRING = {
    "title": "Queue is growing",
    "description": "**4,000** jobs wait",
    "deduplication_key": "queue-7",
    "status": "firing",
    "source_url": "https://example.com/queues/7",
    "metadata": {"team": "jobs", "size": 4000},
}

DEEP = """
[dialects.deep]
title = "Deep"
kind = "occurrence"
auth = { field = "meta.auth.token" }
constants = { "data.type" = "alerts", version = 3 }

[dialects.deep.send]
method = "PUT"
path = "/v1/alerts/{key}"
paths = { acknowledge = "/v1/alerts/{key}/acknowledge" }

[dialects.deep.fields]
summary = { at = "data.attributes.text.summary", limit = 20 }
details = "data.attributes.text.long"
dedup_key = "data.attributes.ids.external"
urgency = { at = "data.attributes.loud", words = { yes = "high", no = "low" } }
source = { at = "data.source", default = "gateway" }
labels = { at = "data.attributes.tags", form = "list" }
custom = "data.attributes.anything"
links = { at = "data.links", items = { href = "link_url", text = "link_text" } }
enabled = "data.on"
updated_at = "data.attributes.at"

[dialects.deep.fields.severity]
at = "data.attributes.level"
words = { 1 = 0, 2 = 3, 3 = 6 }

[dialects.deep.fields.status]
at = "data.state.is_open"
firing = true
acknowledge = "mine"
resolve = false

[dialects.deep.fields.condition]
threshold = "data.rule.limit"
"""
"""A vendor whose words are numbers and booleans."""

OPEN: dict[str, Any] = {
    "meta": {"auth": {"token": "caller-key-0123456789abcdef"}, "trace": "t-1"},
    "data": {
        "source": "probe",
        "attributes": {
            "text": {"summary": "Deep trouble", "long": "Everything is down"},
            "ids": {"external": 4711},
            "loud": "YES",
            "level": 1,
            "tags": ["env:prod", "rack:7"],
            "anything": {"a": [1, {"b": None}]},
            "more": {"kept": [1, 2]},
        },
        "links": [{"link_url": "https://example.com/", "link_text": "Runbook"}],
        "rule": {"limit": 9.5},
        "state": {"is_open": True},
    },
}

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

WRAPPED = """
[dialects.topic]
auth = { query = "token" }
json = "Message"
confirm = "SubscribeURL"
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

SIGNED = """
[dialects.signed]
auth = "none"
signature = { header = "X-Hub-Signature-256", prefix = "sha256=", form = "FORM" }
fields = { summary = "title" }
[inbound.signed]
anonymous = true
hmac = ["first-secret", "second-secret"]
"""

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
    """Returns one of the described dialects."""
    return described().own[name]


def read(name: str, body: Any, operation: Operation = Operation.CREATE) -> Command:
    """Returns the commands that a body of a described dialect is read as."""
    return command_in(own(name), operation, body)


def post(h: House, name: str, body: Any, *, key: str = KEY) -> Any:
    """Sends a request as the vendor's sender would."""
    path = PATHS[name] + (f"?token={key}" if name == "source" else "")
    return h.call("POST", path, body, key=None, headers={"x-gateway-key": key} if name == "datadog" else {})
