"""Alertmanager's and Grafana's webhooks at the address of an integration of ilert's, where a group is one alert.

https://docs.ilert.com/inbound-integrations/prometheus: "The alerts from Prometheus are grouped and sent to ilert and
bundled in an alert". The bodies are those of https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
and of Grafana's page on its webhook.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from mappings.ilert.groups import event
from tests.clients.callers import OTHER, called, fresh
from tests.harness import KEY, House, Sent

PATH = f"/api/v1/events/prometheus/{KEY}"
SOURCE = "http://prometheus:9090/graph?g0.expr=disk"


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with called(tmp_path_factory.mktemp("groups"), {"there": "ilert"}) as standing:
        yield standing


def _alert(instance: str, status: str = "firing", **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "DiskFull", "severity": "warning", "instance": instance, **labels},
        "annotations": {"summary": f"{instance} is full", "description": f"9 MB are left on {instance}."},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": SOURCE,
        "fingerprint": "c6eadffa33fcdf37",
    }


def _group(key: str, *alerts: dict[str, Any], status: str = "firing", **more: Any) -> dict[str, Any]:
    """A notification as Alertmanager posts it, of what its alerts have in common."""
    first, *others = [one["labels"] for one in alerts]
    common = {name: text for name, text in first.items() if all(one.get(name) == text for one in others)}
    body = {
        "version": "4",
        "groupKey": key,
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "ilert",
        "groupLabels": {"alertname": "DiskFull"},
        "commonLabels": common,
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
    }
    return {**body, **more}


def _post(h: House, body: Any, path: str = PATH) -> Sent:
    return h.call("POST", path, body, key=None)


def _told(h: House, *bodies: dict[str, Any], path: str = PATH) -> list[dict[str, Any]]:
    """What arrives at ilert for these notifications, each taken once the one before it has arrived."""
    told = []
    for body in bodies:
        mark = len(h.arrived("ilert"))
        sent = _post(h, body, path)
        assert (sent.status, sent.body) == (202, {}), sent.body
        told.append(h.arrives("ilert", mark + 1)[mark].body)
    return told


def test_a_group_is_one_alert_until_all_of_it_is_over(h: House) -> None:
    """What joins it and what leaves it changes the alert that it has; somebody is woken once."""
    key = '{}:{alertname="DiskFull"}'
    both = _group(key, _alert("db-1"), _alert("db-2", severity="critical", ilert_routingkey="databases"))
    less = _group(key, _alert("db-1"), _alert("db-2", "resolved", severity="critical"))
    over = _group(key, _alert("db-1", "resolved"), _alert("db-2", "resolved"), status="resolved")
    alone, joined, left, ended = _told(h, _group(key, _alert("db-1")), both, less, over)
    assert [one["eventType"] for one in (alone, joined, left, ended)] == ["ALERT", "ALERT", "ALERT", "RESOLVE"]
    assert len({one["alertKey"] for one in (alone, joined, left, ended)}) == 1

    assert (alone["summary"], alone["severity"]) == ("db-1 is full", 3)
    assert alone["details"].startswith("9 MB are left on db-1.")
    assert alone["labels"] == {"alertname": "DiskFull", "severity": "warning", "instance": "db-1"}
    assert alone["links"] == [{"href": SOURCE, "text": "Source"}]
    assert alone["customDetails"]["groupKey"] == key and alone["customDetails"]["alerts"] == [_alert("db-1")]

    assert (joined["summary"], joined["severity"]) == ("DiskFull (2 alerts)", 1)
    assert "instance=db-1, severity=warning: 9 MB are left on db-1.\n" in joined["details"]
    assert joined["labels"] == {"alertname": "DiskFull"} and joined["routingKey"] == "databases"
    assert (left["summary"], left["severity"]) == ("db-1 is full", 3)
    assert "db-2" not in left["details"] and len(left["customDetails"]["alerts"]) == 2


def test_what_ilert_looks_for_in_labels_and_annotations(h: House) -> None:
    labelled = _alert("db-3", url="https://wiki/disk", urlLabel="What to do", severity="page")
    notes = {"summary": "A disk is full", "runbook_url": "https://runbooks/disk"}
    [event] = _told(h, _group("labelled", labelled, _alert("db-4"), commonAnnotations=notes))
    assert (event["summary"], event["severity"]) == ("A disk is full", 1)
    assert event["links"][0] == {"href": "https://wiki/disk", "text": "What to do"}
    assert event["customDetails"]["runbook_url"] == "https://runbooks/disk"


@pytest.mark.parametrize(
    ("word", "severity"),
    [("critical", 1), ("page", 1), ("error", 2), ("Warning", 3), ("INFO", 5), ("none", None)],
)
def test_how_bad_a_group_is(word: str, severity: int | None) -> None:
    assert event(_group("g", _alert("db-3", severity=word))).get("severity") == severity


def test_whom_a_group_is_for_is_known_from_what_is_over_too() -> None:
    """Its escalation does not change when the one alert of it that names it is over, nor does its summary become that
    of one among several."""
    over = _alert("db-1", "resolved", ilert_routingkey="databases", severity="critical")
    found = event(_group("g", over, _alert("db-2"), _alert("db-3")))
    assert (found["routingKey"], found["severity"], found["summary"]) == ("databases", 3, "DiskFull (2 alerts)")


def test_group_keys_that_differ_in_case_alone_are_two_alerts(h: House) -> None:
    """ilert's own keys may not: the end of one would be the end of the other."""
    bodies = [_group(f'{{}}:{{job="{job}"}}', _alert("db-5"), common=fresh()) for job in ("Web", "web")]
    first, second = _told(h, *bodies)
    assert first["alertKey"] != second["alertKey"]


def test_a_repeat_is_told_once(h: House) -> None:
    body = _group("repeated", _alert("db-6"))
    _told(h, body)
    mark, sent = len(h.arrived("ilert")), _post(h, body)
    [shown] = [one for one in h.call("GET", "/ilert/api/alerts?max-results=100").body if "db-6" in json.dumps(one)]
    assert str(shown["id"]) == sent.headers["alert-gateway-id"]
    _told(h, _group("after it", _alert("db-7")))
    assert len(h.arrived("ilert")) == mark + 1


@pytest.mark.parametrize("path", [f"/api/v1/events/grafana/{KEY}", f"/ilert/api/events/grafana/{KEY}"])
def test_grafana_at_the_address_of_its_integration(h: House, path: str) -> None:
    """The example of its page; its title is the summary where its rules say none, its message the details."""
    example = resources.files("mappings.grafana") / "examples" / "firing.json"
    body = json.loads(example.read_text())["request"]["body"]
    unsaid = {**body, "commonAnnotations": {}, "alerts": [{**body["alerts"][0], "annotations": {}}]}
    told, titled, over = _told(h, body, unsaid, {**body, "status": "resolved"}, path=path)
    assert [one["eventType"] for one in (told, titled, over)] == ["ALERT", "ALERT", "RESOLVE"]
    assert len({one["alertKey"] for one in (told, titled, over)}) == 1
    assert (told["summary"], told["labels"]) == (body["commonAnnotations"]["summary"], body["commonLabels"])
    assert titled["summary"] == body["title"] and told["details"].startswith(body["message"])


def test_whose_key_it_is(h: House) -> None:
    body = _group("whose", _alert("db-8"))
    assert _post(h, body, "/api/v1/events/prometheus/nobodys").status == 401
    mine, theirs = (_post(h, body, f"/api/v1/events/prometheus/{key}") for key in (KEY, OTHER))
    assert mine.headers["alert-gateway-id"] != theirs.headers["alert-gateway-id"]


def test_a_key_that_a_group_says_as_well_is_told_to_nobody(h: House) -> None:
    [arrived] = _told(h, _group(fresh("said"), _alert("db-9"), apiKey=KEY, integrationKey=KEY))
    assert KEY not in json.dumps(arrived)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"groupKey": ""}, "groupKey: is required"),
        ({"groupKey": None}, "groupKey: "),
        ({"status": "odd"}, "status: "),
        ({"alerts": {}}, "alerts: "),
        ({"alerts": [{"status": "firing"}]}, "alerts[0].labels: is required"),
    ],
)
def test_what_no_group_is(h: House, more: dict[str, Any], says: str) -> None:
    sent = _post(h, {**_group("odd", _alert("db-9")), **more})
    assert sent.status == 400 and sent.body["message"].startswith(says), sent.body


def test_a_group_that_says_next_to_nothing_is_told(h: House) -> None:
    """Maps that are null, no annotations, no alerts: somebody hears of it."""
    bare = {"status": "firing", "labels": {"job": "web"}, "annotations": None}
    nulls = {"commonLabels": None, "commonAnnotations": None}
    empty = {"groupKey": "nothing in it", "status": "firing", "alerts": []}
    told = _told(h, {**_group("a key of its own", bare), **nulls}, empty)
    assert [one["summary"] for one in told] == ["a key of its own", "nothing in it"]
