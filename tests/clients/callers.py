"""Callers for tests: two in every dialect, and each dialect's request for every operation it has.

The requests are the documented ones: each table has paths and bodies from the vendor's page, never what the gateway
happens to understand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.registry import dialects
from tests.harness import KEY, House, Sent, house, upstream_table

OTHER = "another-key-0123456789abcdef"

_count = itertools.count(1)


def fresh(word: str = "name") -> str:
    """A name, key or text that no other test uses."""
    return f"{word} {next(_count)}"


def settings(
    sandbox_url: str, upstreams: dict[str, str], *, routes: str = "", inbound: str = "", more: str = ""
) -> str:
    """A configuration with the callers `ci` and `ops` in every dialect, each in a scope of its own."""
    inbounds = [f'[inbound.{name}]\nkeys = {{ ci = "{KEY}", ops = "{OTHER}" }}\n{inbound}' for name in dialects()]
    tables = [upstream_table(name, dialect, sandbox_url, more=more) for name, dialect in upstreams.items()]
    return "\n".join([*inbounds, *tables, routes])


@contextmanager
def called(
    directory: Path, upstreams: dict[str, str], *, routes: str = "", inbound: str = "", more: str = "", top: str = ""
) -> Iterator[House]:
    """A gateway with two callers in every dialect. `more` is added to every upstream, `inbound` to every inbound."""

    def text(sandbox_url: str) -> str:
        return settings(sandbox_url, upstreams, routes=routes, inbound=inbound, more=more)

    with house(directory, config=text, top=top) as standing:
        yield standing


def behind(dialect: str) -> str:
    """Another dialect for the upstream, which cannot hold all fields of this one."""
    if dialect.startswith("alertmanager") or dialect in ("cloudevents", "pagerduty"):
        return "ibm_monitoring"
    names = sorted(dialects())
    return names[(names.index(dialect) + 1) % len(names)]


# --- what is created -----------------------------------------------------------------------------------------


def livesession_alert(name: str, **fields: Any) -> dict[str, Any]:
    """A LiveSession alert, from the page's sample."""
    alert = {
        "name": name,
        "events": [{"kind": 26, "value": "checkout_failed"}],
        "provider": "slack",
        "slack_channel_id": "C042",
    }
    return {**alert, **fields}


def ibm_alert(name: str, **fields: Any) -> dict[str, Any]:
    """An IBM alert in its envelope, from the page's sample."""
    alert = {
        "name": name,
        "description": "Uptime",
        "type": "MANUAL",
        "condition": "avg(timeAvg(uptime)) <= 0",
        "timespan": 600_000_000,
        "segmentBy": ["host.hostName"],
        "segmentCondition": {"type": "ANY"},
        "severity": 4,
        "enabled": True,
    }
    return {"alert": {**alert, **fields}}


def uptinio_alert(message: str, **fields: Any) -> dict[str, Any]:
    """An Uptinio alert from the page's sample."""
    return {"monitor_id": "mon_123", "type": "down", "message": message, **fields}


def ilert_event(word: str, key: str | None, *, credential: str = KEY, **fields: Any) -> dict[str, Any]:
    """An ilert event; the credential is in its body."""
    named = {"alertKey": key} if key is not None else {}
    return {"apiKey": credential, "eventType": word, **named, **fields}


def pagerduty_event(action: str, key: str | None, *, credential: str = KEY, **payload: Any) -> dict[str, Any]:
    """A PagerDuty event; the credential is in its body, the alert's fields in its payload."""
    event: dict[str, Any] = {"routing_key": credential, "event_action": action}
    if key is not None:
        event["dedup_key"] = key
    if action == "trigger":
        event["payload"] = {"summary": "Disk full", "source": "db-1", "severity": "critical", **payload}
    return event


def splunk_alert(word: str, key: str | None, **fields: Any) -> dict[str, Any]:
    """A Splunk On-Call alert; the credential is in its path."""
    return {"message_type": word, **({"entity_id": key} if key is not None else {}), **fields}


def opsgenie_alert(message: str, **fields: Any) -> dict[str, Any]:
    """An Opsgenie alert, from the page's sample."""
    return {"message": message, "description": "Every alert needs a description", "priority": "P1", **fields}


def cloud_event(word: str, key: str | None, **fields: Any) -> dict[str, Any]:
    """An alert as a CloudEvent in structured mode; the alert's fields are in its data."""
    named = {"dedup_key": key} if key is not None else {}
    said = {"summary": "Disk full", "severity": "critical"} if word == "firing" else {}
    data = {**said, **named, "status": word, **fields}
    named = {"id": f"{word} {key} {data.get('summary')}", "source": "/monitoring", "type": "com.example.alert"}
    return {"specversion": "1.0", **named, "data": data}


def jsm_alert(message: str, **fields: Any) -> dict[str, Any]:
    """A Jira Service Management alert, from the page's sample."""
    return {"message": message, "description": "The CPU usage has exceeded 80%.", "priority": "P1", **fields}


def alertmanager_alerts(name: str, summary: str | None = None, **fields: Any) -> list[dict[str, Any]]:
    """One alert of this name as Prometheus posts it; its text is an annotation."""
    annotations = {} if summary is None else {"annotations": {"summary": summary}}
    return [{"labels": {"alertname": name, "severity": "critical"}, **annotations, **fields}]


def webhook_group(dialect: str, name: str, summary: str, *, status: str = "firing") -> dict[str, Any]:
    """A group of one alert, as Alertmanager's webhook and Grafana's send it; the name label identifies the alert."""
    version = {"grafana": "1", "alertmanager_webhook": "4"}[dialect]
    alert = {"status": status, "labels": {"alertname": name}, "annotations": {"summary": summary}}
    return {"version": version, "status": status, "alerts": [alert]}


# --- what is asked for ---------------------------------------------------------------------------------------

Ask = Callable[[House, str, str], Sent]
"""Requests one operation, given the house, the alert's reference (a key for `KEYED`, else the shown id) and a text."""

KEYED = (
    *("alertmanager", "alertmanager_webhook", "cloudevents", "grafana", "ilert", "opsgenie", "pagerduty"),
    "splunk_oncall",
)
"""The dialects whose callers refer to an alert by its key, or by the fields that form its key."""

WEBHOOKS = ("grafana", "alertmanager_webhook")
"""The dialects whose requests contain groups of alerts."""

ALERTS = "/alertmanager/api/v2/alerts"
SPLUNK = "/splunk_oncall/integrations/generic/20131114/alert"
COLLECTIONS = {  # other events are only sent; Alertmanager's alerts go by labels
    "livesession": "/livesession/v1/alerts",
    "ibm_monitoring": "/ibm_monitoring/api/alerts",
    "uptinio": "/uptinio/alerts",
    "ilert": "/ilert/api/alerts",
    "jsm_ops": "/jsm_ops/alerts",
    "opsgenie": "/opsgenie/v2/alerts",
}


PAGES = {
    "uptinio": "?per_page=100",
    "ilert": "?max-results=100",
    "jsm_ops": "?size=100",
    "opsgenie": "?limit=100",
}
"""The query for a list's largest page."""


def _events(word: str, *, says: bool = False) -> Ask:
    def ask(h: House, ref: str, text: str) -> Sent:
        event = ilert_event(word, ref, **({"summary": text} if says else {}))
        return h.call("POST", "/ilert/api/events", event, key=None)

    return ask


def _pagerduty(action: str) -> Ask:
    def ask(h: House, ref: str, text: str) -> Sent:
        return h.call("POST", "/pagerduty/v2/enqueue", pagerduty_event(action, ref, summary=text), key=None)

    return ask


def _splunk(word: str) -> Ask:
    def ask(h: House, ref: str, text: str) -> Sent:
        alert = splunk_alert(word, ref, **({"entity_display_name": text} if word == "CRITICAL" else {}))
        return h.call("POST", f"{SPLUNK}/{KEY}", alert, key=None)

    return ask


def _cloud_events(word: str) -> Ask:
    def ask(h: House, ref: str, text: str) -> Sent:
        return h.call("POST", "/cloudevents", cloud_event(word, ref, summary=text))

    return ask


def _opsgenie(method: str, rest: str, body: Callable[[str], Any] = lambda text: None) -> Ask:
    def ask(h: House, ref: str, text: str) -> Sent:
        path = f"{COLLECTIONS['opsgenie']}/{quote(ref)}{rest}?identifierType=alias"
        return h.call(method, path, body(text))

    return ask


def _jsm(method: str, rest: str, body: Callable[[str], Any] = lambda text: None) -> Ask:
    return lambda h, ref, text: h.call(method, f"{COLLECTIONS['jsm_ops']}/{ref}{rest}", body(text))


def _webhook(dialect: str, status: str) -> Ask:
    def ask(h: House, ref: str, text: str) -> Sent:
        return h.call("POST", f"/{dialect}/webhook", webhook_group(dialect, ref, text, status=status))

    return ask


def _put(dialect: str, body: Callable[[str], Any]) -> Ask:
    return lambda h, ref, text: h.call("PUT", f"{COLLECTIONS[dialect]}/{ref}", body(text))


def _delete(dialect: str) -> Ask:
    return lambda h, ref, text: h.call("DELETE", f"{COLLECTIONS[dialect]}/{ref}")


def _alertmanager(**fields: Any) -> Ask:
    return lambda h, ref, text: h.call("POST", ALERTS, alertmanager_alerts(ref, text or None, **fields))


ASKS: dict[str, dict[str, Ask]] = {
    "livesession": {
        "update": _put("livesession", lambda text: {"name": text}),
        "delete": _delete("livesession"),
    },
    "ibm_monitoring": {
        "update": _put("ibm_monitoring", lambda text: {"alert": {"name": text, "type": "MANUAL"}}),
        "disable": _put("ibm_monitoring", lambda text: {"alert": {"enabled": False}}),
        "enable": _put("ibm_monitoring", lambda text: {"alert": {"enabled": True}}),
        "delete": _delete("ibm_monitoring"),
    },
    "uptinio": {
        "update": _put("uptinio", lambda text: {"message": text}),
        "resolve": _put("uptinio", lambda text: {"status": "resolved"}),
        "reopen": _put("uptinio", lambda text: {"status": "active"}),
    },
    "ilert": {
        "update": _events("ALERT", says=True),
        "acknowledge": _events("ACCEPT"),
        "comment": _events("COMMENT", says=True),
        "resolve": _events("RESOLVE"),
    },
    "opsgenie": {
        "update": _opsgenie("PUT", "/message", lambda text: {"message": text}),
        "acknowledge": _opsgenie("POST", "/acknowledge"),
        "comment": _opsgenie("POST", "/notes", lambda text: {"note": text}),
        "resolve": _opsgenie("POST", "/close"),
        "delete": _opsgenie("DELETE", ""),
    },
    "jsm_ops": {
        "update": _jsm("PATCH", "/message", lambda text: {"message": text}),
        "acknowledge": _jsm("POST", "/acknowledge"),
        "comment": _jsm("POST", "/notes", lambda text: {"note": text}),
        "resolve": _jsm("POST", "/close"),
        "delete": _jsm("DELETE", ""),
    },
    "pagerduty": {
        "update": _pagerduty("trigger"),
        "acknowledge": _pagerduty("acknowledge"),
        "resolve": _pagerduty("resolve"),
    },
    "splunk_oncall": {
        "update": _splunk("CRITICAL"),
        "acknowledge": _splunk("ACKNOWLEDGEMENT"),
        "resolve": _splunk("RECOVERY"),
    },
    "cloudevents": {
        "update": _cloud_events("firing"),
        "acknowledge": _cloud_events("acknowledged"),
        "resolve": _cloud_events("resolved"),
    },
    "alertmanager": {
        "update": _alertmanager(),
        "resolve": _alertmanager(endsAt="2020-01-01T00:00:00Z"),
    },
    "grafana": {"update": _webhook("grafana", "firing"), "resolve": _webhook("grafana", "resolved")},
    "alertmanager_webhook": {
        "update": _webhook("alertmanager_webhook", "firing"),
        "resolve": _webhook("alertmanager_webhook", "resolved"),
    },
}
"""Every operation on an existing alert, for each caller's dialect."""


def _alias(key: str | None) -> dict[str, str]:
    return {"alias": key} if key else {}


def _group(dialect: str, text: str, key: str | None, held: str) -> dict[str, Any]:
    return webhook_group(dialect, key or text, text)


MAKES: dict[str, tuple[str, Callable[[str, str | None, str], Any]]] = {
    "livesession": (COLLECTIONS["livesession"], lambda text, key, held: livesession_alert(text)),
    "ibm_monitoring": (COLLECTIONS["ibm_monitoring"], lambda text, key, held: ibm_alert(text)),
    "uptinio": (COLLECTIONS["uptinio"], lambda text, key, held: uptinio_alert(text)),
    "ilert": ("/ilert/api/events", lambda text, key, held: ilert_event("ALERT", key, credential=held, summary=text)),
    "opsgenie": (COLLECTIONS["opsgenie"], lambda text, key, held: opsgenie_alert(text, **_alias(key))),
    "jsm_ops": (COLLECTIONS["jsm_ops"], lambda text, key, held: jsm_alert(text, **_alias(key))),
    "pagerduty": (
        "/pagerduty/v2/enqueue",
        lambda text, key, held: pagerduty_event("trigger", key, credential=held, summary=text),
    ),
    "splunk_oncall": (
        f"{SPLUNK}/{{credential}}/database",
        lambda text, key, held: splunk_alert("CRITICAL", key, entity_display_name=text),
    ),
    "cloudevents": ("/cloudevents", lambda text, key, held: cloud_event("firing", key, summary=text)),
    "alertmanager": (ALERTS, lambda text, key, held: alertmanager_alerts(key or text, text)),
    **{name: (f"/{name}/webhook", partial(_group, name)) for name in WEBHOOKS},
}
"""The documented create of each caller's dialect: its path, and the body for a text, a key and a credential."""


EVENTS = ("ilert", "pagerduty")
"""Dialects whose credential is in the body."""


EVENTFUL = (*EVENTS, *WEBHOOKS, "alertmanager", "cloudevents", "splunk_oncall")
"""Dialects in which an update is the same request as a create."""


def making(dialect: str, text: str, *, key: str | None = None, credential: str = KEY) -> tuple[str, Any]:
    """The path and body of a dialect's documented create with this text."""
    path, body = MAKES[dialect]
    return path.replace("{credential}", credential), body(text, key, credential)


def create(h: House, dialect: str, text: str) -> tuple[str, Sent]:
    """Creates an alert with this text; returns its caller's reference to it from then on, and the answer."""
    key = fresh("key")
    path, body = making(dialect, text, key=key)
    sent = h.call("POST", path, body, key=None if dialect in EVENTS else KEY)
    if dialect in KEYED:
        return key, sent
    if dialect == "jsm_ops":
        return _told(h, dialect, sent), sent
    assert sent.status in (200, 201), sent.body
    inner = sent.body.get("alert", sent.body.get("data", sent.body))
    return str(inner.get("alert_id", inner.get("id"))), sent


def _told(h: House, dialect: str, sent: Sent) -> str:
    """The id of an alert, from the status of the request that created it."""
    found = h.call("GET", f"{COLLECTIONS[dialect]}/requests/{sent.body['requestId']}")
    assert found.status == 200, found.body
    return str(found.body["alertId"])


def listed(h: House, dialect: str, *, key: str = KEY) -> list[dict[str, Any]]:
    """The alerts in a dialect's list, in its caller's format."""
    query = PAGES.get(dialect, "")
    sent = h.call("GET", COLLECTIONS[dialect] + query, key=key)
    assert sent.status == 200, sent.body
    found = sent.body
    if isinstance(found, dict):
        found = found[{"ibm_monitoring": "alerts", "jsm_ops": "values"}.get(dialect, "data")]
    return list(found)
