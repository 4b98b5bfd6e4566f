"""Netdata's agent, which posts an alarm's states to Opsgenie's integration. The bodies are those that `alarm-notify.sh`
of Netdata 1.37.1 (Debian 12) sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.callers import called, fresh
from tests.engine.vendors import outbox, settled
from tests.harness import KEY, House, Sent

PATH = f"/opsgenie/v1/json/integrations/webhooks/netdata?apiKey={KEY}"


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with PagerDuty and Opsgenie behind it."""
    upstreams = {"pager": "pagerduty", "same": "opsgenie"}
    routes = '[[routes]]\nname = "all"\nto = ["pager", "same"]'
    with called(tmp_path_factory.mktemp("netdata"), upstreams, routes=routes) as standing:
        yield standing


def _say(h: House, **more: Any) -> Sent:
    status = more["status"]
    worded = {"WARNING": "needs attention", "CRITICAL": "is critical", "CLEAR": "recovered"}.get(status, "")
    said = {
        "unique_id": "1700000101",
        "alarmId": 1700000001,
        "eventId": 101,
        "chart": "disk_space._",
        "when": 1795758034,
        "name": "disk_space_usage",
        "family": "/",
        "old_status": "CLEAR",
        "value": 91.5,
        "old_value": None,
        "duration": 60,
        "non_clear_duration": 120,
        "units": "%",
        "info": f"{worded}, disk / space utilization",
        "calc_expression": "$used * 100 / ($avail + $used)",
        "total_warnings": "0",
        "total_critical": "2",
        "src": "12@/usr/lib/netdata/conf.d/health.d/disks.conf",
    }
    return h.call("POST", PATH, {**said, **more}, key=None)


def test_an_alarm_through_its_states(h: House) -> None:
    """It takes 200, and nothing else, as success. An alarm that gets worse is as urgent as it has become."""
    host, mark, there = fresh("db"), len(h.arrived("pagerduty")), len(h.arrived("opsgenie"))
    for status in ("WARNING", "CRITICAL", "CLEAR"):
        sent = _say(h, host=host, status=status)
        assert sent.status == 200, sent.body
    raised, worse, over = (one.body for one in h.arrives("pagerduty", mark + 3)[mark:])
    key = f"netdata-{host}-1700000001"
    assert {one["dedup_key"] for one in (raised, worse, over)} == {key}
    assert [one["event_action"] for one in (raised, worse, over)] == ["trigger", "trigger", "resolve"]
    assert raised["payload"]["summary"] == f"{host} disk_space._.disk_space_usage is WARNING"
    assert [one["payload"]["severity"] for one in (raised, worse)] == ["warning", "critical"]
    assert raised["payload"]["component"] == host and raised["payload"]["source"] == "Netdata"
    details = raised["payload"]["custom_details"]
    assert details["value"] == "91.5" and details["src"].startswith("12@") and "old_value" not in details
    assert details["details"].startswith("needs attention, disk / space utilization")
    settled(h, count=6)
    posted = [one for one in h.arrived("opsgenie")[there:] if one.method in ("POST", "PUT")]
    assert posted[0].body["alias"] == key and posted[0].body["priority"] == "P3"
    assert {one.path.rpartition("/")[2]: one.body for one in posted}["priority"] == {"priority": "P1"}
    [shown] = [one for one in h.call("GET", "/opsgenie/v2/alerts").body["data"] if one["alias"] == key]
    assert (shown["count"], shown["status"]) == (2, "closed")
    fates = [fate for row in outbox(h) if row.operation == "update" for fate in row.fates]
    assert fates and {fate["fate"] for fate in fates} == {"mapped"}, "the host and the source are as they were"


def test_an_alarm_that_nobody_raised_here_is_over_for_its_agent_too(h: House) -> None:
    """An agent sends what is clear when it starts; it would log any other answer as a failure."""
    assert _say(h, host=fresh("db"), status="CLEAR").status == 200


@pytest.mark.parametrize("later", [{"alarmId": "1700000001", "family": None, "priority": "P1"}])
def test_a_later_version_says_less_and_more(h: House, later: dict[str, Any]) -> None:
    assert _say(h, host=fresh("db"), status="CRITICAL", **later).status == 200


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"status": "REMOVED"}, "status"),
        ({"alarmId": None}, "alarmId"),
        ({"alarmId": ""}, "alarmId"),
        ({"host": ""}, "host"),
        ({"name": 7}, "name"),
    ],
)
def test_what_is_no_notification_is_refused(h: House, more: dict[str, Any], field: str) -> None:
    refused = _say(h, **{"host": fresh("db"), "status": "CRITICAL", **more})
    assert refused.status == 422 and field in refused.body["errors"]


def test_an_unknown_key_is_refused(h: House) -> None:
    refused = h.call("POST", PATH.replace(KEY, "somebody-elses-key-0123456789"), {}, key=None)
    assert refused.status == 401
