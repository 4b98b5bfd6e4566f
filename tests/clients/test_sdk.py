"""IBM's own SDK, with the gateway as its base URL and each vendor as upstream.

`sdcclient` from PyPI is the client that IBM's documentation names. Asserted is what it returns, and what arrived at the
upstream: a client must not be told of something that did not happen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sdcclient import SdcClient, SdMonitorClient

from gateway.cli.sandbox import Arrived
from gateway.registry import dialects
from mappings.splunk_oncall.calls import PATH
from tests.clients.callers import OTHER, called, fresh
from tests.engine.pairs import HAS_TEXT, fields_of
from tests.harness import KEY, UPSTREAM_KEY, House

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SETTINGS = ("SDC_TOKEN", "SDC_URL", "SDC_SSL_VERIFY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(scope="module", params=sorted(dialects()))
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with one upstream, of each dialect in turn, named after it."""
    with called(tmp_path_factory.mktemp("sdk"), {request.param: request.param}) as standing:
        yield standing


@pytest.fixture
def client(h: House, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The SDK set up as users do; the environment may override its arguments, so it is cleared."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return SdMonitorClient(token=KEY, sdc_url=h.url)


def _vendor(h: House) -> str:
    return next(iter(h.gateway.config.upstreams))


def _since(h: House, mark: int, count: int = 1) -> list[Arrived]:
    """The writing requests that arrived at the upstream since a mark."""
    return h.arrives(_vendor(h), mark + count)[mark:]


def _mark(h: House) -> int:
    return len(h.arrived(_vendor(h)))


def _create(client: Any, name: str, **fields: Any) -> dict[str, Any]:
    ok, made = client.create_alert(
        name=name,
        description="Active connections of nginx server",
        severity=2,
        for_atleast_s=600,
        condition="avg(avg(nginx.net.connections)) > 1000",
        **fields,
    )
    assert ok, made
    alert: dict[str, Any] = made["alert"]
    return alert


def _said(request: Arrived) -> Any:
    """The summary in a create or update, in the field that each vendor has for it."""
    return fields_of(request)[HAS_TEXT[request.dialect]]


CREATES = {
    "cloudevents": ("POST", "/"),
    "alertmanager": ("POST", "/api/v2/alerts"),
    "ibm_monitoring": ("POST", "/api/alerts"),
    "ilert": ("POST", "/api/events"),
    "jsm_ops": ("POST", "/alerts"),
    "livesession": ("POST", "/v1/alerts"),
    "opsgenie": ("POST", "/v2/alerts"),
    "pagerduty": ("POST", "/v2/enqueue"),
    "splunk_oncall": ("POST", f"{PATH}/{UPSTREAM_KEY}"),
    "grafana": ("POST", "/"),
    "alertmanager_webhook": ("POST", "/"),
    "uptinio": ("POST", "/alerts"),
}


def test_create(h: House, client: Any) -> None:
    """The alert comes back with an integer id and a version, as in the page's sample; the upstream has it."""
    name, mark = fresh(), _mark(h)
    alert = _create(client, name, segmentby=["host.hostName"], user_filter="env = 'prod'", annotations={"team": "db"})
    assert isinstance(alert["id"], int)
    assert isinstance(alert["version"], int)
    wanted = {
        "name": name,
        "type": "MANUAL",
        "description": "Active connections of nginx server",
        "severity": 2,
        "severityLabel": "MEDIUM",
        "timespan": 600_000_000,
        "condition": "avg(avg(nginx.net.connections)) > 1000",
        "filter": "env = 'prod'",
        "segmentBy": ["host.hostName"],
        "segmentCondition": {"type": "ANY"},
        "annotations": {"team": "db"},
        "enabled": True,
    }
    assert {key: alert.get(key) for key in wanted} == wanted
    assert alert["createdOn"] >= 10**12, "milliseconds"
    [made] = _since(h, mark)
    assert (made.method, made.path) == CREATES[_vendor(h)]
    assert _said(made) == name


def test_list(h: House, client: Any) -> None:
    """The list is flat: the SDK and its examples read `name`, `enabled` and `id` straight off each item."""
    made = [_create(client, fresh()) for _ in range(2)]
    ok, found = client.get_alerts()
    assert ok, found
    ids = [alert["id"] for alert in found["alerts"]]
    positions = [ids.index(alert["id"]) for alert in made]
    assert positions == sorted(positions), "oldest first"
    by_id = {alert["id"]: alert for alert in found["alerts"]}
    for alert in made:
        assert (by_id[alert["id"]]["name"], by_id[alert["id"]]["enabled"]) == (alert["name"], True)


UPDATES = {
    "cloudevents": ("POST", "/"),
    "alertmanager": ("POST", "/api/v2/alerts"),
    "grafana": ("POST", "/"),
    "alertmanager_webhook": ("POST", "/"),
    "ibm_monitoring": ("PUT", "/api/alerts/"),
    "ilert": ("POST", "/api/events"),
    "jsm_ops": ("PATCH", "/alerts/"),
    "livesession": ("PUT", "/v1/alerts/"),
    "opsgenie": ("PUT", "/v2/alerts/"),
    "pagerduty": ("POST", "/v2/enqueue"),
    "splunk_oncall": ("POST", f"{PATH}/{UPSTREAM_KEY}"),
    "uptinio": ("PUT", "/alerts/"),
}


def test_update(h: House, client: Any) -> None:
    """The SDK sends the whole object back, creation time included; the version rises only with a change."""
    alert, name, mark = _create(client, fresh()), fresh(), _mark(h)
    ok, found = client.update_alert({**alert, "name": name, "timespan": alert["timespan"] * 2})
    assert ok, found
    assert found["alert"]["name"] == name
    assert found["alert"]["timespan"] == 1_200_000_000
    assert found["alert"]["id"] == alert["id"]
    assert found["alert"]["version"] == alert["version"] + 1
    assert found["alert"]["createdOn"] == alert["createdOn"]
    put, *others = _since(h, mark)
    assert not others or _vendor(h) in ("jsm_ops", "opsgenie"), "which has a request for each field"
    method, path = UPDATES[_vendor(h)]
    assert put.method == method
    assert put.path.startswith(path)
    assert _said(put) == name


def test_a_stale_version(h: House, client: Any) -> None:
    """409 in the service's own words, which the SDK passes on; nothing reaches the upstream."""
    alert = _create(client, fresh())
    ok, current = client.update_alert({**alert, "description": "first"})
    assert ok, current
    mark = _mark(h)
    ok, why = client.update_alert({**alert, "description": "second"})
    assert not ok
    assert "Conflict version" in why
    assert client.lasterr == why
    ok, last = client.update_alert({**current["alert"], "name": fresh()})
    assert ok, last
    assert last["alert"]["description"] == "first"
    put, *others = _since(h, mark)
    assert not others or _vendor(h) in ("jsm_ops", "opsgenie"), "which has a request for each field"
    assert _said(put) == last["alert"]["name"]
    assert "second" not in str([one.body for one in (put, *others)]), "the stale update was not sent"


def test_a_duplicate_name(h: House, client: Any) -> None:
    """Names are unique: 422, and the list still has one of them."""
    name = fresh()
    _create(client, name)
    mark = _mark(h)
    ok, why = client.create_alert(
        name=name, description="again", severity=2, for_atleast_s=60, condition="avg(timeAvg(uptime)) <= 0"
    )
    assert not ok
    assert "name" in why
    ok, found = client.get_alerts()
    assert [alert["name"] for alert in found["alerts"]].count(name) == 1
    other = _create(client, fresh())
    [made] = _since(h, mark)
    assert _said(made) == other["name"], "the refused create was not sent"
    ok, why = client.update_alert({**other, "name": name})
    assert not ok
    assert "name" in why


DELETES: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "cloudevents": ("POST", "/", {"type": "alert"}),
    "alertmanager": ("POST", "/api/v2/alerts", None),
    "ibm_monitoring": ("DELETE", "/api/alerts/", None),
    "ilert": ("POST", "/api/events", {"eventType": "RESOLVE"}),
    "jsm_ops": ("POST", "/alerts/", None),
    "livesession": ("DELETE", "/v1/alerts/", None),
    "opsgenie": ("DELETE", "/v2/alerts/", None),
    "pagerduty": ("POST", "/v2/enqueue", {"event_action": "resolve"}),
    "splunk_oncall": ("POST", f"{PATH}/{UPSTREAM_KEY}", {"message_type": "RECOVERY"}),
    "grafana": ("POST", "/", {"status": "resolved"}),
    "alertmanager_webhook": ("POST", "/", {"status": "resolved"}),
    "uptinio": ("PUT", "/alerts/", {"status": "resolved"}),
}


def test_delete(h: House, client: Any) -> None:
    """It is gone from the list; a second delete is answered as such; the name is free again."""
    alert, mark = _create(client, fresh()), _mark(h)
    assert client.delete_alert(alert) == (True, None)
    [gone] = _since(h, mark)
    method, path, fields = DELETES[_vendor(h)]
    assert gone.method == method
    assert gone.path.startswith(path)
    assert fields is None or fields.items() <= gone.body.items()
    assert _vendor(h) != "alertmanager" or gone.body[0]["endsAt"] <= datetime.now(UTC).isoformat(), "it is over"
    ok, found = client.get_alerts()
    assert ok
    assert alert["id"] not in [one["id"] for one in found["alerts"]]
    ok, why = client.delete_alert(alert)
    assert not ok
    assert "not recognized" in why
    assert _create(client, alert["name"])["id"] != alert["id"]


def test_an_alert_object_from_the_list_creates_another(h: House, client: Any) -> None:
    """The SDK's restore example: an object as listed, without its id and version, is created under a new name."""
    alert = _create(client, fresh())
    listed = next(one for one in client.get_alerts()[1]["alerts"] if one["id"] == alert["id"])
    name = fresh()
    ok, made = client.create_alert(alert_obj={**listed, "name": name})
    assert ok, made
    assert made["alert"]["id"] != alert["id"]
    assert made["alert"]["condition"] == alert["condition"]


def test_notification_ids(h: House, client: Any) -> None:
    """The SDK looks channels up; with an IBM upstream, IBM is asked."""
    before = len(h.arrived("ibm_monitoring", "GET"))
    assert client.get_notification_ids() == [True, []]
    asked = [one.path for one in h.arrived("ibm_monitoring", "GET")[before:]]
    assert asked == (["/api/notificationChannels"] if _vendor(h) == "ibm_monitoring" else [])


def test_below_the_name_of_the_dialect(h: House, client: Any) -> None:
    """The same list through the base URL that is served beside every other dialect."""
    below = SdMonitorClient(token=KEY, sdc_url=f"{h.url}/ibm_monitoring/")
    alert = _create(below, fresh())
    assert alert["id"] in [one["id"] for one in client.get_alerts()[1]["alerts"]]
    ok, found = below.update_alert({**alert, "name": fresh()})
    assert ok, found
    ok, why = below.update_alert({**alert, "name": fresh()})
    assert not ok
    assert "Conflict version" in why
    assert below.get_notification_ids() == [True, []]
    assert below.delete_alert(alert) == (True, None)
    ok, why = below.delete_alert(alert)
    assert not ok
    assert "not recognized" in why


def test_a_connection_that_is_kept_is_not_held_up(h: House, client: Any) -> None:
    """The SDK keeps its connection. An answer sent as two small packets, head and body, without TCP_NODELAY waits some
    40 ms for the client's delayed acknowledgement, every time: the fastest of many must not."""
    took = []
    for _ in range(15):
        began = time.perf_counter()
        assert client.get_notification_ids() == [True, []]
        took.append(time.perf_counter() - began)
    assert min(took[5:]) < 0.035


def test_a_wrong_token(h: House, client: Any) -> None:
    """401 with a message that the SDK passes on, not the bare status code."""
    stranger = SdMonitorClient(token="wrong", sdc_url=client.url)
    ok, why = stranger.get_alerts()
    assert not ok
    assert "Unauthorized" in why


def test_the_older_name_of_the_client_and_another_caller(h: House, client: Any) -> None:
    """`SdcClient` is the name that IBM's page imports. Another caller does not see the first one's alerts."""
    alert = _create(client, fresh())
    other = SdcClient(token=OTHER, sdc_url=client.url)
    ok, found = other.get_alerts()
    assert ok, found
    assert alert["id"] not in [one["id"] for one in found["alerts"]]
    ok, why = other.delete_alert(alert)
    assert not ok
    assert "not recognized" in why
