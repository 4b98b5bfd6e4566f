"""Prometheus, amtool and Alertmanager themselves, with the gateway in the place of an Alertmanager, of PagerDuty, of
Opsgenie, of Splunk On-Call and of ilert, and in front of a real Alertmanager.
https://prometheus.io/docs/alerting/latest/overview/

Each test asserts what arrives at the upstream: a good answer to the program alone proves no delivery.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.sandbox import Arrived
from gateway.mapping.values import iso
from mappings.alertmanager import calls
from tests.clients.callers import called, fresh, ibm_alert, ilert_event
from tests.clients.prometheus import Program, alertmanager, amtool, missing, prometheus
from tests.engine.vendors import outbox
from tests.harness import KEY, House, house, upstream_table

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
VENDORS = ["ilert", "ibm_monitoring"]
RULE = """
groups:
- name: tests
  interval: 1s
  rules:
  - alert: {name}
    expr: {expr}
    labels: {{ severity: critical }}
    annotations: {{ summary: "{name} on {{{{ $labels.job }}}}", description: "It is down." }}
"""
SETTINGS = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{ cluster: eu }} }}
rule_files: [rules.yml]
alerting:
  alertmanagers:
  - static_configs: [{{ targets: ["{target}"] }}]
    path_prefix: {prefix}
    authorization: {{ credentials: {key} }}
"""


@pytest.fixture(scope="module", params=VENDORS)
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with a vendor of occurrences as upstream, and with one of rules."""
    with called(tmp_path_factory.mktemp("prometheus"), {request.param: request.param}) as standing:
        yield standing


def _vendor(h: House) -> str:
    return next(iter(h.gateway.config.upstreams))


def _about(h: House, name: str) -> list[Arrived]:
    """The requests at the upstream that contain a name, and those with the same keys."""
    arrived = h.arrived(_vendor(h))
    first = [one for one in arrived if name in json.dumps(one.body)]
    keys = {one.body["alertKey"] for one in first if "alertKey" in one.body}
    return [one for one in arrived if one in first or (isinstance(one.body, dict) and one.body.get("alertKey") in keys)]


def _is_over(one: Arrived) -> bool:
    """Whether a request tells ilert that an alert is resolved, or IBM that a rule is switched off."""
    return one.body.get("eventType") == "RESOLVE" or one.body.get("alert", {}).get("enabled") is False


def _ends(h: House, name: str) -> list[Arrived]:
    """The requests at the upstream that end an alert."""
    return [one for one in _about(h, name) if _is_over(one)]


# --- Prometheus ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/", "/alertmanager"])
def test_prometheus_fires_and_resolves_a_rule(h: House, tmp_path: Path, prefix: str) -> None:
    """Prometheus repeats an alert every second while its rule fires, and its end for a quarter of an hour: each reaches
    the upstream once, and so does a changed text."""
    name = fresh("Rule").replace(" ", "")
    config = SETTINGS.format(target=h.url.removeprefix("http://"), prefix=prefix, key=KEY)
    firing = RULE.format(name=name, expr='label_replace(vector(1), "job", "db", "", "")')
    with prometheus(tmp_path, config, {"rules.yml": firing}) as program:
        [first] = h.wait_for(lambda: _about(h, name), 30)
        assert f"{name} on db" in json.dumps(first.body) and "It is down." in json.dumps(first.body)
        [shown] = _shown(h, name)
        assert shown["labels"] == {"alertname": name, "cluster": "eu", "job": "db", "severity": "critical"}
        assert shown["generatorURL"].startswith("http")
        h.wait_for(lambda: _shown(h, name)[0]["endsAt"] > shown["endsAt"], 20)
        assert len(_about(h, name)) == 1, "what was said again was not told again"
        (tmp_path / "rules.yml").write_text(firing.replace("It is down.", "It is still down."), "utf8")
        program.reload()
        h.wait_for(lambda: any("still down" in json.dumps(one.body) for one in _about(h, name)), 30)
        (tmp_path / "rules.yml").write_text(firing.replace("vector(1)", "vector(1) > 1"), "utf8")
        program.reload()
        h.wait_for(lambda: _ends(h, name), 30)
        sent = _sent(program)
        h.wait_for(lambda: _sent(program) >= sent + 2, 30)
        assert _shown(h, name) == []
        assert len(_ends(h, name)) == 1, "what was said again was not told again"
        assert "level=error" not in program.log


def _shown(h: House, name: str) -> list[dict[str, Any]]:
    """The open alerts of a name, as Alertmanager's callers see them."""
    found = h.call("GET", "/alertmanager/api/v2/alerts")
    assert found.status == 200, found.body
    return [one for one in found.body if one["labels"]["alertname"] == name]


def _sent(program: Program) -> float:
    """The number of alerts that Prometheus has sent so far."""
    lines = httpx.get(program.url + "/metrics", timeout=10).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("prometheus_notifications_sent_total{"))


# --- amtool ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=VENDORS)
def basic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The same for a caller that can only send user and password."""

    def config(sandbox: str) -> str:
        inbound = '[inbound.alertmanager]\nkeys = { duty = "duty:secret-of-amtool" }\n'
        return inbound + upstream_table(request.param, request.param, sandbox)

    with house(tmp_path_factory.mktemp("amtool"), config=config) as standing:
        yield standing


def _tool(h: House, *arguments: str, code: int = 0) -> str:
    url = h.url.replace("http://", "http://duty:secret-of-amtool@") + "/alertmanager"
    return amtool(url, *arguments, code=code)


def _listed(h: House, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_tool(h, *arguments, "--output=json"))
    return found


def test_amtool_adds_and_finds_alerts(basic: House) -> None:
    name = fresh("Added").replace(" ", "")
    _tool(basic, "alert", "add", f"alertname={name}", "severity=warning", "job=db", '--annotation=summary="Disk full"')
    [made] = basic.wait_for(lambda: _about(basic, "Disk full"))
    assert not _is_over(made)
    for query in ([name], [f"alertname={name}"], [f"alertname=~{name[:5]}.*", "job!=web"], ["--active", 'job="db"']):
        [found] = _listed(basic, "alert", "query", *query)
        assert found["labels"] == {"alertname": name, "severity": "warning", "job": "db"}
        assert (found["annotations"], found["status"]["state"]) == ({"summary": "Disk full"}, "active")
    assert _listed(basic, "alert", "query", "job=web") == []
    assert name in _tool(basic, "alert", "query") and name in _tool(basic, "alert", "query", "--output=extended")
    _tool(
        basic,
        "alert",
        "add",
        name,
        "severity=warning",
        "job=db",
        "--end=2020-01-01T00:00:00Z",
        "--start=2019-01-01T00:00:00Z",
    )
    assert _listed(basic, "alert", "query") == []
    basic.wait_for(lambda: [one for one in basic.arrived(_vendor(basic)) if _is_over(one)])


def test_amtool_silences(basic: House) -> None:
    """A silence acknowledges the open alert; it is found, prolonged and expired by the id that was printed."""
    name, vendor = fresh("Silenced").replace(" ", ""), _vendor(basic)
    _tool(basic, "alert", "add", name, "severity=critical")
    basic.wait_for(lambda: _about(basic, name))
    about = ("--author=jane", "--comment=we know", "--duration=1h")
    made = _tool(basic, "silence", "add", f"alertname={name}", "severity=~crit.*", *about).strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", made)
    [held] = _listed(basic, "silence", "query", name)
    assert (held["id"], held["createdBy"], held["comment"]) == (made, "jane", "we know")
    assert held["status"]["state"] == "active"
    [shown] = _listed(basic, "alert", "query", "--silenced", name)
    assert shown["status"]["state"] == "suppressed"
    assert _listed(basic, "alert", "query", "--active", name) == []
    if vendor == "ilert":
        basic.wait_for(lambda: [one for one in _about(basic, name) if one.body["eventType"] == "ACCEPT"])
    again = _tool(basic, "silence", "update", "--duration=3h", made)
    assert made in again
    [later] = _listed(basic, "silence", "query", name)
    assert later["endsAt"] > held["endsAt"]
    _tool(basic, "silence", "expire", made)
    assert _listed(basic, "silence", "query") == []
    assert [one["id"] for one in _listed(basic, "silence", "query", "--expired", name)] == [made]
    _tool(basic, "silence", "expire", made)
    assert "404" in _tool(basic, "silence", "expire", made[:-4] + "0000", code=1)


def test_amtool_looks_at_how_it_is_set_up(basic: House) -> None:
    """amtool asks for the status before every command, and warns if the version differs from its own."""
    assert "Cluster Status" in _tool(basic, "cluster", "show")
    assert "receiver: alert-gateway" in _tool(basic, "config", "show")
    routes = _tool(basic, "config", "routes", "test", "severity=critical")
    assert routes.strip() == "alert-gateway"


def test_amtool_is_told_in_words_what_is_wrong(basic: House) -> None:
    url = basic.url.replace("http://", "http://duty:wrong@") + "/alertmanager"
    assert "401" in (said := amtool(url, "alert", "query", code=1)) or "credential" in said
    assert "more than 4096" in _tool(basic, "alert", "query", f'alertname=~"{"a" * 4097}"', code=1)


# --- Alertmanager before the gateway ---------------------------------------------------------------------------

RECEIVERS = """
route: {{ receiver: there, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 4h }}
receivers:
- name: there
  {receiver}
"""
KINDS = {
    "webhook": 'webhook_configs: [{{url: "{url}/alertmanager/webhook", http_config: '
    "{{authorization: {{credentials: {key}}}}}}}]",
    "pagerduty": 'pagerduty_configs: [{{url: "{url}/pagerduty/v2/enqueue", routing_key: {key}}}]',
    "opsgenie": 'opsgenie_configs: [{{api_url: "{url}/opsgenie/", api_key: {key}}}]',
    "splunk_oncall": 'victorops_configs: [{{api_url: "{url}/splunk_oncall/integrations/generic/20131114/alert/", '
    "api_key: {key}, routing_key: database}}]",
    "ilert": 'webhook_configs: [{{url: "{url}/ilert/api/v1/events/prometheus/{key}"}}]',
}


@pytest.mark.parametrize("kind", KINDS)
def test_alertmanager_sends_through_a_receiver(h: House, tmp_path: Path, kind: str) -> None:
    """Both the firing and the resolved alert reach the upstream, as one alert."""
    name = fresh("Sent").replace(" ", "")
    receiver = KINDS[kind].format(url=h.url, key=KEY)
    with alertmanager(tmp_path, RECEIVERS.format(receiver=receiver)) as program:
        _post(program, {"alertname": name, "severity": "critical"})
        first, *_ = h.wait_for(lambda: _about(h, name), 20)
        assert not _is_over(first)
        _post(program, {"alertname": name, "severity": "critical"}, endsAt=iso(datetime.now(UTC)))
        h.wait_for(lambda: _ends(h, name), 20)
        assert "level=error" not in program.log and "level=warn" not in program.log, program.log


def test_alertmanager_tells_of_a_group(h: House, tmp_path: Path) -> None:
    """One message with a firing and a resolved alert: only the latter ends."""
    name = fresh("Group").replace(" ", "")
    receiver = KINDS["webhook"].format(url=h.url, key=KEY)
    with alertmanager(tmp_path, RECEIVERS.format(receiver=receiver)) as program:
        for job in ("db", "web"):
            _post(program, {"alertname": name, "job": job}, annotations={"summary": f"{name} {job}"})
        h.wait_for(lambda: len(_shown(h, name)) == 2, 20)
        _post(program, {"alertname": name, "job": "db"}, endsAt=iso(datetime.now(UTC)))
        h.wait_for(lambda: [one["labels"]["job"] for one in _shown(h, name)] == ["web"], 20)
        h.wait_for(lambda: _ends(h, f"{name} db"))
        assert _ends(h, f"{name} web") == []


def _post(program: Program, labels: dict[str, str], **fields: Any) -> None:
    body = [{"labels": labels, **fields}]
    answer = httpx.post(program.url + "/api/v2/alerts", json=body, timeout=10, trust_env=False)
    assert answer.status_code == 200, answer.text


# --- Alertmanager behind the gateway ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A real Alertmanager without receivers that do anything."""
    config = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
    with alertmanager(tmp_path_factory.mktemp("real"), config) as program:
        yield program


@pytest.fixture(params=VENDORS)
def before(request: pytest.FixtureRequest, real: Program, tmp_path: Path) -> Iterator[House]:
    """A gateway in front of it, with another vendor as second upstream."""

    def config(sandbox: str) -> str:
        there = f'[upstreams.there]\ndialect = "alertmanager"\nurl = "{real.url}"\n'
        beside = upstream_table(request.param, request.param, sandbox)
        inbounds = "".join(
            f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}\n' for name in ("ilert", "alertmanager", "ibm_monitoring")
        )
        return f'{inbounds}{there}{beside}[[routes]]\nto = ["there", "{request.param}"]\n'

    with house(tmp_path, config=config) as standing:
        yield standing


def _there(real: Program, name: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = real.get("/api/v2/alerts", **query)
    return [one for one in found if one["labels"]["alertname"] == name]


def _event(h: House, word: str, key: str, **fields: Any) -> None:
    sent = h.call("POST", "/ilert/api/events", ilert_event(word, key, **fields), key=None)
    assert sent.status == 202, sent.body


def test_an_alert_at_a_real_alertmanager(before: House, real: Program) -> None:
    """An ilert caller creates, changes, acknowledges, changes again and resolves it; each time it is read back,
    whatever the names of the caller's further fields."""
    name, key = fresh("Disk full"), fresh("key")
    besides = {"free space": "1%", "load.avg": 0.75, "5xx": "none", "é": ""}
    _event(before, "ALERT", key, summary=name, priority="HIGH", customDetails=besides)
    [made] = before.wait_for(lambda: _there(real, name))
    assert (made["annotations"]["free_space"], made["annotations"]["load_avg"]) == ("1%", "0.75")
    assert made["labels"] == {"alertname": name, "alert_gateway_key": key, "severity": "critical"}
    assert made["annotations"]["summary"] == name and made["status"]["state"] == "active"
    assert datetime.fromisoformat(made["endsAt"]) > datetime.now(UTC) + timedelta(minutes=10)
    _event(before, "ALERT", key, summary=name, details="on db-1")
    before.wait_for(lambda: "on db-1" in _there(real, name)[0]["annotations"]["description"])
    _event(before, "ACCEPT", key)
    [silenced] = before.wait_for(lambda: _there(real, name, active="false"))
    [silence] = silenced["status"]["silencedBy"]
    assert silenced["status"]["state"] == "suppressed"
    time.sleep(1.1)  # Alertmanager makes another silence for a start in another second
    _event(before, "ALERT", key, summary=name, details="on db-2")
    before.wait_for(lambda: "on db-2" in _there(real, name)[0]["annotations"]["description"])
    before.wait_for(lambda: not outbox(before, "waiting"))
    [still] = _there(real, name)
    assert still["status"]["silencedBy"] == [silence], "it goes on under the same one"
    _event(before, "RESOLVE", key)
    before.wait_for(lambda: _there(real, name) == [] and real.get(f"/api/v2/silence/{silence}"))
    before.wait_for(lambda: real.get(f"/api/v2/silence/{silence}")["status"]["state"] == "expired")
    before.wait_for(lambda: [one for one in before.arrived(_vendor_beside(before)) if _is_over(one)])
    assert not outbox(before, "dead") and not outbox(before, "waiting")


def _vendor_beside(h: House) -> str:
    return next(name for name in h.gateway.config.upstreams if name != "there")


def test_what_prometheus_says_is_the_same_alert_there(before: House, real: Program) -> None:
    """Its labels are forwarded unchanged, so that its fingerprint is the usual one."""
    name = fresh("Same").replace(" ", "")
    posted = {
        "labels": {"alertname": name, "severity": "page", "job": "db", "empty": ""},
        "annotations": {"summary": "Disk full", "runbook_url": "https://wiki/disk"},
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up+%3D%3D+0",
        "startsAt": iso(datetime.now(UTC) - timedelta(minutes=3)),
    }
    assert before.call("POST", "/alertmanager/api/v2/alerts", [posted]).status == 200
    [made] = before.wait_for(lambda: _there(real, name))
    [shown] = _shown(before, name)
    for field in ("labels", "annotations", "generatorURL", "fingerprint", "startsAt"):
        assert made[field] == shown[field], field
    assert made["labels"] == {"alertname": name, "severity": "page", "job": "db"}
    assert made["annotations"] == posted["annotations"]
    ended = {**posted, "endsAt": iso(datetime.now(UTC))}
    assert before.call("POST", "/alertmanager/api/v2/alerts", [ended]).status == 200
    before.wait_for(lambda: _there(real, name) == [])
    assert not outbox(before, "dead")


def test_an_end_for_an_alert_that_began_before_the_gateway_stood_there(before: House, real: Program) -> None:
    name = fresh("Older").replace(" ", "")
    _post(real, {"alertname": name, "job": "db"})
    assert _there(real, name)
    ended = {"labels": {"alertname": name, "job": "db"}, "endsAt": iso(datetime.now(UTC))}
    assert before.call("POST", "/alertmanager/api/v2/alerts", [ended]).status == 200
    before.wait_for(lambda: _there(real, name) == [])


def test_a_rule_that_is_switched_off_and_on_at_a_real_alertmanager(before: House, real: Program) -> None:
    name, path = fresh("CPU high"), "/ibm_monitoring/api/alerts"
    made = before.call("POST", path, ibm_alert(name))
    assert made.status == 200, made.body
    before.wait_for(lambda: _there(real, name))
    one = f"{path}/{made.body['alert']['id']}"
    assert before.call("PUT", one, {"alert": {"enabled": False}}).status == 200
    before.wait_for(lambda: _there(real, name) == [])
    assert before.call("PUT", one, {"alert": {"enabled": True}}).status == 200
    before.wait_for(lambda: _there(real, name))
    assert before.call("DELETE", one).status in (200, 204)
    before.wait_for(lambda: _there(real, name) == [])


def test_an_open_alert_is_kept_open_there(before: House, real: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a renewal it would end after two seconds; after its resolve it stays over."""
    monkeypatch.setattr(calls, "HOLDS", timedelta(seconds=4))
    monkeypatch.setattr(calls, "RENEWED_AFTER", 1.0)
    name, key = fresh("Kept"), fresh("key")
    _event(before, "ALERT", key, summary=name)
    [first] = before.wait_for(lambda: _there(real, name))
    end = datetime.fromisoformat(first["endsAt"])
    while datetime.now(UTC) < end + timedelta(seconds=2):
        assert _there(real, name), "it lapsed"
        time.sleep(0.2)
    _event(before, "RESOLVE", key)
    before.wait_for(lambda: _there(real, name) == [])
    time.sleep(2.5)
    assert _there(real, name) == []
    assert {one.state for one in outbox(before)} == {"delivered"}
