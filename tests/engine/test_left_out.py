"""What another tool's body or an operation's words say and an upstream is not told: every field of it is in the report
or is carried, so that nothing is lost without being said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.mapping.carry import pack
from tests.chaos_upstream import chaos
from tests.clients.callers import called, fresh, opsgenie_alert, pagerduty_event
from tests.engine.vendors import OK, outbox, settled, table, writes
from tests.harness import KEY, House, house

FIRST = "/pagerduty/generic/2010-04-15/create_event.json"


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with called(tmp_path_factory.mktemp("left"), {"there": "ilert"}) as standing:
        yield standing


def _report(h: House, path: str, body: Any, *, key: str | None = None) -> dict[str, str]:
    """Posts a body and returns the stored report about it: the fate of each field."""
    sent = h.call("POST", path, body, key=key)
    assert sent.status < 300, sent.body
    h.wait_for(lambda: not outbox(h, "waiting"))  # else a later test takes what arrives for its own
    newest = max(outbox(h), key=lambda delivery: delivery.id)
    return {fate["field"]: fate["fate"] for fate in newest.fates}


# --- PagerDuty v1 ----------------------------------------------------------------------------------------------


def _first(word: str, key: str, **more: Any) -> dict[str, Any]:
    return {"service_key": KEY, "event_type": word, "incident_key": key, **more}


CONTEXTS = [
    {"type": "link", "href": "https://wiki.example", "text": "What to do", "rel": "help"},
    {"type": "link", "href": "https://wiki.example", "text": 7},
    {"type": "image", "href": "https://no.source.example"},
    {"type": "table", "rows": [1]},
    "a text",
]


def test_contexts_of_pagerduty_v1_that_v2_has_no_field_for_are_carried(h: House) -> None:
    key, mark = fresh("srv"), len(h.arrived("ilert"))
    said = {"description": "It is down", "contexts": CONTEXTS, "runbook": "https://runbooks.example/srv"}
    report = _report(h, FIRST, _first("trigger", key, **said))
    assert report["extensions.pagerduty.contexts"] == report["extensions.pagerduty.runbook"] == "carried"
    assert report["service_key"] == report["event_type"] == "dropped"
    made = h.arrives("ilert", mark + 1)[mark].body
    assert made["links"] == [{"href": "https://wiki.example", "text": "What to do"}]
    carried = made["customDetails"]["alert_gateway"]["fields"]
    assert carried["extensions.pagerduty.contexts"] == CONTEXTS[1:]
    assert carried["extensions.pagerduty.links"] == [{"rel": "help"}]


def test_contexts_of_pagerduty_v1_go_to_pagerduty_as_they_came(tmp_path_factory: pytest.TempPathFactory) -> None:
    with called(tmp_path_factory.mktemp("same"), {"there": "pagerduty"}) as same:
        said = {"description": "It is down", "contexts": CONTEXTS, "runbook": "https://runbooks.example/srv"}
        assert same.call("POST", FIRST, _first("trigger", fresh("srv"), **said), key=None).status == 200
        [made] = same.arrives("pagerduty", 1)
    assert (made.body["contexts"], made.body["runbook"]) == (CONTEXTS[1:], said["runbook"])
    assert made.body["links"] == [{"href": "https://wiki.example", "text": "What to do", "rel": "help"}]


# --- what an acknowledgement or an end says besides ------------------------------------------------------------


def test_what_an_end_says_that_differs_from_the_alert_is_reported(h: House) -> None:
    key = fresh("srv")
    opened = pagerduty_event("trigger", key, custom_details={"free": "9 MB"})
    assert h.call("POST", "/pagerduty/v2/enqueue", opened, key=None).status == 202
    again = {**opened["payload"], "custom_details": {"free": "9 GB"}, "group": "databases"}
    report = _report(h, "/pagerduty/v2/enqueue", {**opened, "event_action": "resolve", "payload": again})
    assert report == {
        "comment": "kept",
        "custom": "kept",
        "extensions.pagerduty.payload.group": "kept",
        "routing_key": "dropped",
        "event_action": "dropped",
    }


def test_what_an_acknowledgement_of_pagerduty_v1_says_is_reported(h: House) -> None:
    key = fresh("srv")
    assert h.call("POST", FIRST, _first("trigger", key, description="Down"), key=None).status == 200
    report = _report(h, FIRST, _first("acknowledge", key, description="Ann looks", details={"by": "ann"}))
    assert report == {"custom": "kept", "comment": "kept"}


def test_what_an_acknowledgement_of_ilert_says_is_reported(tmp_path_factory: pytest.TempPathFactory) -> None:
    with called(tmp_path_factory.mktemp("genie"), {"there": "opsgenie"}) as genie:
        event = {"apiKey": KEY, "alertKey": "disk", "summary": "Disk full", "eventType": "ALERT"}
        assert genie.call("POST", "/ilert/api/events", event, key=None).status == 202
        taken = {**event, "eventType": "ACCEPT", "labels": {"team": "db"}}
        report = _report(genie, "/ilert/api/events", taken)
    assert report["labels"] == "kept"


def test_who_acts_at_opsgenie_is_reported(h: House) -> None:
    alias = fresh("alias")
    assert h.call("POST", "/opsgenie/v2/alerts", opsgenie_alert("Disk full", alias=alias)).status == 202
    path = f"/opsgenie/v2/alerts/{alias}/acknowledge?identifierType=alias"
    report = _report(h, path, {"user": "ann", "source": "phone", "note": "looking"}, key=KEY)
    assert report == {"extensions.opsgenie.user": "kept", "source": "kept", "comment": "kept"}


def test_the_note_on_a_change_is_reported(h: House) -> None:
    alias = fresh("alias")
    assert h.call("POST", "/opsgenie/v2/alerts", opsgenie_alert("Disk full", alias=alias)).status == 202
    path = f"/opsgenie/v2/alerts/{alias}/details?identifierType=alias"
    report = _report(h, path, {"details": {"disk": "sda"}, "user": "ann", "note": "it was sda"}, key=KEY)
    assert report == {"custom": "mapped", "extensions.opsgenie.user": "kept", "comment": "kept"}


def test_an_assignment_at_ilert_that_ilert_is_told_in_a_comment_is_reported(h: House) -> None:
    raised = h.call("POST", "/ilert/api/alerts", {"summary": fresh("Disk full")})
    assert raised.status == 201
    sent = h.call("PUT", f"/ilert/api/alerts/{raised.body['id']}/assign?user=ann")
    assert sent.report == ["there; approximated=assignee"]


def test_annotations_that_only_the_end_has_are_reported(h: House) -> None:
    path, labels = "/alertmanager/api/v2/alerts", {"alertname": fresh("Disk")}
    assert h.call("POST", path, [{"labels": labels, "annotations": {"summary": "Full"}}]).status == 200
    over = {
        "labels": labels,
        "annotations": {"summary": "Full", "description": "9 GB"},
        "endsAt": "2020-01-01T00:00:00Z",
    }
    assert _report(h, path, [over], key=KEY)["details"] == "kept"


# --- other tools at ilert's addresses, and webhooks ------------------------------------------------------------


def test_what_checkmk_says_besides_is_reported(h: House) -> None:
    context = {
        "NOTIFICATIONTYPE": "PROBLEM",
        "WHAT": "HOST",
        "HOSTNAME": fresh("db"),
        "HOSTSTATE": "DOWN",
        "HOSTOUTPUT": "no answer",
        "HOSTCHECKCOMMAND": "check-mk-host-ping!-p secret",
        "CONTACTEMAIL": "ann@example.com",
        "PARAMETER_ILERT_API_KEY_2": "il1checkmk0123",
        "MONITORING_HOST": "mon-1",
    }
    path = f"/api/v1/events/checkmk-ext/{KEY}"
    report = _report(h, path, context)
    left = ("*CHECKCOMMAND", "*CONTACT*", "PARAMETER_*", "MONITORING_HOST")
    assert [report[name] for name in left] == ["dropped"] * 4
    over = _report(h, path, {**context, "NOTIFICATIONTYPE": "RECOVERY"})
    assert over["(context)"] == "dropped"


def test_what_zabbix_says_besides_is_told_or_reported(h: House) -> None:
    number, path, mark = fresh("47"), f"/api/v1/events/zabbix-mt/{KEY}", len(h.arrived("ilert"))
    macros = {"EVENT.ID": number, "EVENT.VALUE": "1", "EVENT.NAME": "Disk full", "ALERT.SUBJECT": "Problem: Disk full"}
    report = _report(h, path, {**macros, ".ILERT.ALERT.SOURCE.KEY": KEY, "HTTPProxy": "http://proxy", "odd": 7})
    assert [report[name] for name in (".ILERT.ALERT.SOURCE.KEY", "HTTPProxy", "odd")] == ["dropped"] * 3
    assert h.arrives("ilert", mark + 1)[mark].body["customDetails"]["ALERT.SUBJECT"] == "Problem: Disk full"
    update = {
        "EVENT.UPDATE.STATUS": "1",
        "EVENT.UPDATE.ACTION": "acknowledged, commented",
        "ALERT.MESSAGE": "Ann looks",
    }
    assert _report(h, path, {**macros, **update})["(macros)"] == "dropped"
    taken = h.arrives("ilert", mark + 2)[mark + 1].body
    assert (taken["eventType"], taken["details"]) == ("ACCEPT", "Ann looks")


def _group(**more: Any) -> dict[str, Any]:
    alert = {"status": "firing", "labels": {"alertname": fresh("Disk")}, "annotations": {"summary": "Full"}}
    return {"version": "4", "groupKey": fresh("group"), "status": "firing", "alerts": [{**alert, **more}]}


def test_a_title_that_is_no_summary_is_kept_and_the_end_of_a_group_reported(h: House) -> None:
    path, mark = f"/api/v1/events/grafana/{KEY}", len(h.arrived("ilert"))
    body = {**_group(), "title": "[FIRING:1] Disk", "commonAnnotations": {"summary": "Disk full"}}
    _report(h, path, body)
    made = h.arrives("ilert", mark + 1)[mark].body
    assert (made["summary"], made["customDetails"]["title"]) == ("Disk full", "[FIRING:1] Disk")
    over = _report(h, path, {**body, "status": "resolved"})
    assert over["title"] == over["alerts"] == over["commonAnnotations"] == "dropped"


@pytest.mark.parametrize("path", ["/alertmanager/webhook", "/alertmanager_webhook/webhook"])
def test_what_a_webhook_says_of_its_group_is_reported(h: House, path: str) -> None:
    report = _report(h, path, {**_group(), "receiver": "night", "commonLabels": {"a": "b"}, "unheardOf": 1}, key=KEY)
    assert report["receiver"] == report["commonLabels"] == report["unheardOf"] == "dropped"


def test_what_only_a_webhook_says_of_an_alert_is_reported(h: House) -> None:
    body = _group(endsAt="0001-01-01T00:00:00Z", fingerprint="c6eadffa33fcdf37", unheardOf={"a": 1})
    report = _report(h, "/alertmanager/webhook", body, key=KEY)
    assert report["endsAt"] == report["fingerprint"] == report["unheardOf"] == "dropped"


# --- a shared scope --------------------------------------------------------------------------------------------


def test_the_words_of_an_end_are_reported_where_the_alert_came_from_another_tool(tmp_path: Path) -> None:
    """Between two of one dialect they are passed on, but only for an alert that was made in it."""
    shared = "".join(f'[inbound.{one}]\nkeys = {{ ci = "{KEY}" }}\nscope = "all"\n' for one in ("opsgenie", "ilert"))
    with (
        chaos(OK) as upstream,
        house(tmp_path, config=lambda _: shared + table("there", upstream.url, "ilert", "")) as standing,
    ):
        standing.call("POST", "/opsgenie/v2/alerts", {"message": "Disk full", "alias": "disk"})
        settled(standing)
        said = {"eventType": "RESOLVE", "alertKey": "disk", "details": "by ann"}
        report = _report(standing, "/ilert/api/events", {"apiKey": KEY, **said})
        settled(standing, count=2)
        assert "details" not in writes(upstream)[-1].body
    assert report["comment"] == "kept"


def test_undocumented_fields_of_a_group_are_not_all_repeated_for_each_of_its_alerts(h: House) -> None:
    """Thousands of fields beside thousands of alerts would be millions of lines to store."""
    alerts = [{"status": "firing", "labels": {"alertname": fresh()}} for _ in range(2)]
    many = {f"field {number} {'x' * 100}": number for number in range(1000)}
    report = _report(h, "/alertmanager/webhook", {"version": "4", "alerts": alerts, "receiver": "ops", **many}, key=KEY)
    undocumented = [name for name in report if name.startswith("field ")]
    assert len(undocumented) == 10
    assert max(map(len, undocumented)) == 64
    assert report["(others)"] == report["receiver"] == "dropped"


def test_what_fits_is_found_without_measuring_everything_again_for_each_field() -> None:
    """A caller's event with ten thousand unknown fields would take seconds of the event loop."""
    alert = {f"extensions.pagerduty.f{number}": number for number in range(300)}
    measured: list[Any] = []
    sys.setprofile(lambda frame, event, called: measured.append(called) if event == "c_call" else None)
    try:
        packed, paths = pack(alert, {}, {}, limit=1000)
    finally:
        sys.setprofile(None)
    assert packed is not None
    assert packed["fields"] == {path: alert[path] for path in alert if path in paths}
    assert 900 < len(msgspec.json.encode(packed)) <= 1000
    assert measured.count(msgspec.json.encode) < 2 * len(alert)
