"""Opsgenie's own Python SDK, with the gateway as its host and another vendor as upstream.

The whole life of an alert: asserted is what the SDK returns, and what arrived at the upstream.
https://docs.opsgenie.com/docs/opsgenie-python-api has the SDK's page.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import opsgenie_sdk
import pytest
from msgspec import UNSET
from opsgenie_sdk.exceptions import RetryableException

from gateway.cli.sandbox import Arrived
from tests.clients.callers import called, fresh
from tests.harness import KEY, House

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
VENDORS = ["ilert", "ibm_monitoring", "pagerduty", "opsgenie"]


@pytest.fixture(scope="module", params=VENDORS)
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway whose upstream is a vendor of occurrences, one of rules, and Opsgenie itself in turn."""
    with called(tmp_path_factory.mktemp("opsgenie"), {request.param: request.param}) as standing:
        yield standing


def _api(url: str, key: str = KEY) -> Any:
    configuration = opsgenie_sdk.Configuration()
    configuration.host = url
    configuration.api_key["Authorization"] = key
    configuration.retry_enabled = False
    return opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration=configuration))


@pytest.fixture(params=["", "/opsgenie"], ids=["at the root", "below its name"])
def api(request: pytest.FixtureRequest, h: House) -> Any:
    """The SDK's alert API, set up as users do."""
    return _api(h.url + request.param)


@contextlib.contextmanager
def _refused(status: int) -> Iterator[list[Any]]:
    """Expects the SDK's exception for a status; the list holds the exception afterwards."""
    found: list[Any] = []
    with pytest.raises(RetryableException) as refused:
        yield found
    found.append(refused.value)
    assert found[0].status == status, found[0]


class Life:
    """One alert as the SDK's user sees it, and the requests that arrive at the upstream for it."""

    def __init__(self, h: House, api: Any) -> None:
        self.h, self.api = h, api
        self.vendor = next(iter(h.gateway.config.upstreams))
        self.mark = len(h.arrived(self.vendor))
        self.alias, self.message = fresh("alias/"), fresh("Disk full")

    def done(self, answer: Any) -> Any:
        """Checks a receipt and returns the status of its request."""
        assert (answer.result, type(answer.took)) == ("Request will be processed", float)
        assert re.fullmatch(UUID, answer.request_id)
        status = self.api.get_request_status(answer.request_id).data
        assert status.is_success is True, status
        return status

    def does(self, name: str, payload: Any = None, **more: Any) -> Any:
        """Calls an operation on the alert by its alias, and checks that its request succeeded."""
        given = {"identifier": self.alias, "identifier_type": "alias", **more}
        if payload is not None:
            given[_payload_name(name)] = payload
        return self.done(getattr(self.api, name)(**given))

    def now(self) -> Any:
        """The alert as the SDK reads it."""
        return self.api.get_alert(identifier=self.alias, identifier_type="alias").data

    def arrives(self, count: int) -> list[Arrived]:
        """Waits for `count` requests about this alert at the upstream; returns them."""
        return list(self.h.wait_for(lambda: len(found := self._arrived()) >= count and found))

    def _arrived(self) -> list[Arrived]:
        found = self.h.arrived(self.vendor)[self.mark :]
        if self.vendor != "opsgenie":
            return found
        return [one for one in found if self.alias in _about(one)]


def _about(one: Arrived) -> str:
    """The alias that a request to Opsgenie itself is about."""
    body = one.body if isinstance(one.body, dict) else {}
    return str(body.get("alias") or unquote(one.path))


def _payload_name(name: str) -> str:
    special = {
        "add_details": "add_details_to_alert_payload",
        "add_note": "add_note_to_alert_payload",
        "add_responder": "add_responder_to_alert_payload",
        "add_tags": "add_tags_to_alert_payload",
        "add_team": "add_team_to_alert_payload",
        "escalate_alert": "escalate_alert_to_next_payload",
        "execute_custom_alert_action": "execute_custom_alert_action_payload",
    }
    return special.get(name, f"{name}_payload")


@pytest.fixture
def life(h: House, api: Any) -> Life:
    """An alert that was just created."""
    life = Life(h, api)
    payload = opsgenie_sdk.CreateAlertPayload(
        message=life.message,
        alias=life.alias,
        description="It is nearly full",
        responders=[{"name": "SampleTeam", "type": "team"}],
        tags=["critical", "disk"],
        details={"host": "db-1"},
        entity="db-1",
        priority="P2",
    )
    status = life.done(api.create_alert(create_alert_payload=payload))
    assert (status.action, status.status, status.alias) == ("Create", "Created alert", life.alias)
    life.arrives(1)
    return life


def test_what_was_created_is_shown(life: Life) -> None:
    """By alias, by id and by the short id: always the same alert."""
    shown = life.now()
    assert (shown.message, shown.alias, shown.description) == (life.message, life.alias, "It is nearly full")
    assert (shown.status, shown.acknowledged, shown.snoozed, shown.count) == ("open", False, False, 1)
    assert (shown.tags, shown.details, shown.entity, shown.priority) == (
        ["critical", "disk"],
        {"host": "db-1"},
        "db-1",
        "P2",
    )
    assert [(one.type, one.to_dict().get("id")) for one in shown.responders] == [("team", "SampleTeam")]
    assert isinstance(shown.created_at, datetime)
    assert re.fullmatch(UUID + r"-\d{13}", shown.id)
    for kind, name in (("id", shown.id), ("tiny", shown.tiny_id)):
        assert life.api.get_alert(identifier=name, identifier_type=kind).data.message == life.message


def test_the_vendor_behind_is_paged(life: Life) -> None:
    """The page has the caller's text, in the other vendor's format."""
    [made] = life.arrives(1)
    says: dict[str, Callable[[Any], Any]] = {
        "ilert": lambda body: (body["eventType"], body["summary"], body["alertKey"], body["severity"]),
        "pagerduty": lambda body: (
            body["event_action"],
            body["payload"]["summary"],
            body["dedup_key"],
            body["payload"]["severity"],
        ),
        "ibm_monitoring": lambda body: (body["alert"]["name"], body["alert"]["severityLabel"]),
        "opsgenie": lambda body: (body["message"], body["alias"], body["tags"], body["responders"]),
    }
    said = {
        "ilert": ("ALERT", life.message, life.alias, 2),
        "pagerduty": ("trigger", life.message, life.alias, "error"),
        "ibm_monitoring": (life.message, "MEDIUM"),
        "opsgenie": (life.message, life.alias, ["critical", "disk"], [{"name": "SampleTeam", "type": "team"}]),
    }
    assert says[life.vendor](made.body) == said[life.vendor]


def test_acknowledged_and_taken_back(life: Life) -> None:
    life.does("acknowledge_alert")
    assert (life.now().acknowledged, life.now().status) == (True, "open")
    life.does("un_acknowledge_alert", opsgenie_sdk.UnAcknowledgeAlertPayload(user="jane", note="not me"))
    assert (life.now().acknowledged, life.now().status) == (False, "open")
    if life.vendor == "ilert":
        _, taken, back = life.arrives(3)
        assert taken.body["eventType"] == "ACCEPT"
        assert back.body["eventType"] == "COMMENT"
        assert "no longer acknowledged by jane: not me" in back.body["comments"][0]["content"]
    elif life.vendor == "opsgenie":
        paths = [one.path.rpartition("/")[2] for one in life.arrives(3)]
        assert paths[1:] == ["acknowledge", "unacknowledge"]
        assert life.arrives(3)[2].body == {"user": "jane", "note": "not me"}


def test_snoozed(life: Life) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    life.does("snooze_alert", opsgenie_sdk.SnoozeAlertPayload(end_time=end))
    assert (life.now().snoozed, life.now().snoozed_until) == (True, end)
    if life.vendor == "opsgenie":
        assert life.arrives(2)[1].path.endswith("/snooze")
    with _refused(422):
        life.does("snooze_alert", {"endTime": "tomorrow"})


def test_notes(life: Life) -> None:
    life.does("add_note", opsgenie_sdk.AddNoteToAlertPayload(note="the first", user="jane"))
    life.does("add_note", opsgenie_sdk.AddNoteToAlertPayload(note="the second"))
    listed = life.api.list_notes(identifier=life.alias, identifier_type="alias")
    assert [one.note for one in listed.data] == ["the second", "the first"]
    limited = life.api.list_notes(identifier=life.alias, identifier_type="alias", limit=1, order="asc")
    assert [one.note for one in limited.data] == ["the first"]
    assert limited.paging.next
    further = {"offset": listed.data[0].offset, "direction": "next"}
    more = life.api.list_notes(identifier=life.alias, identifier_type="alias", **further)
    assert [one.note for one in more.data] == ["the first"]
    logs = life.api.list_logs(identifier=life.alias, identifier_type="alias").data
    assert [one.log for one in logs] == ["Note added: the second", "Note added: the first", "Alert created"]
    if life.vendor == "ilert":
        assert [one.body["eventType"] for one in life.arrives(3)[1:]] == ["COMMENT", "COMMENT"]
    assert life.api.list_recipients(identifier=life.alias, identifier_type="alias").data == []


def test_tags_and_details(life: Life) -> None:
    """A GET after each change shows the new state."""
    life.does("add_tags", opsgenie_sdk.AddTagsToAlertPayload(tags=["night", "disk"]))
    assert life.now().tags == ["critical", "disk", "night"]
    life.does("remove_tags", tags=["critical", "disk"])
    assert life.now().tags == ["night"]
    life.does("add_details", opsgenie_sdk.AddDetailsToAlertPayload(details={"free": "3 MB"}))
    assert life.now().details == {"host": "db-1", "free": "3 MB"}
    life.does("remove_details", keys=["host"])
    assert life.now().details == {"free": "3 MB"}
    if life.vendor == "opsgenie":
        sent = [(one.method, one.path.rpartition("/")[2], one.body) for one in life.arrives(5)[1:]]
        assert sent == [
            ("POST", "tags", {"tags": ["night"]}),
            ("DELETE", "tags", UNSET),
            ("POST", "details", {"details": {"free": "3 MB"}}),
            ("DELETE", "details", UNSET),
        ]
        assert "tags=critical,disk" in unquote(life.arrives(5)[2].query)
    elif life.vendor == "ilert":
        assert life.h.wait_for(lambda: life.arrives(1)[-1].body["customDetails"].get("free") == "3 MB")


def test_message_description_and_priority(life: Life) -> None:
    text = fresh("Disk fuller")
    life.does("update_alert_message", opsgenie_sdk.UpdateAlertMessagePayload(message=text))
    life.does("update_alert_description", opsgenie_sdk.UpdateAlertDescriptionPayload(description="Do something"))
    life.does("update_alert_priority", opsgenie_sdk.UpdateAlertPriorityPayload(priority="P1"))
    shown = life.now()
    assert (shown.message, shown.description, shown.priority) == (text, "Do something", "P1")

    def has_arrived() -> bool:
        last = life.arrives(1)[-1].body
        is_so: dict[str, Callable[[], bool]] = {
            "ilert": lambda: (last["summary"], last["severity"]) == (text, 1) and "Do something" in last["details"],
            "pagerduty": lambda: (last["payload"]["summary"], last["payload"]["severity"]) == (text, "critical"),
            "ibm_monitoring": lambda: (last["alert"]["name"], last["alert"]["severity"]) == (text, 1),
            "opsgenie": lambda: last == {"priority": "P1"},
        }
        return is_so[life.vendor]()

    assert life.h.wait_for(has_arrived)


def test_whose_it_is(life: Life) -> None:
    """Assign, escalate, add responder and team, custom action: kept, and sent as far as the upstream has a place."""
    life.does("assign_alert", opsgenie_sdk.AssignAlertPayload(owner={"username": "trinity@example.com"}))
    assert life.now().owner == "trinity@example.com"
    user = {"type": "user", "username": "neo@example.com"}
    life.does("add_responder", opsgenie_sdk.AddResponderToAlertPayload(responder=user))
    life.does("add_team", opsgenie_sdk.AddTeamToAlertPayload(team={"name": "network"}))
    assert [one.type for one in life.now().responders] == ["team", "user", "team"]
    life.does("escalate_alert", opsgenie_sdk.EscalateAlertToNextPayload(escalation={"name": "Night_escalation"}))
    action = opsgenie_sdk.ExecuteCustomAlertActionPayload(user="jane")
    life.does("execute_custom_alert_action", action, action_name="Restart")
    if life.vendor == "ilert":
        told = [one.body["comments"][0]["content"] for one in life.arrives(6)[1:]]
        words = ["trinity@example.com", "neo@example.com", "network", "Night_escalation", "Restart"]
        assert all(word in text for word, text in zip(words, told, strict=True)), told
    elif life.vendor == "opsgenie":
        paths = [one.path.rpartition("/")[2] for one in life.arrives(6)[1:]]
        assert paths == ["assign", "responders", "teams", "escalate", "Restart"]
        assert life.arrives(6)[2].body["responder"] == user


def test_counted_once_more(life: Life) -> None:
    """A create with the alias of an open alert is counted and changes nothing. After the close it is a new alert."""
    first = life.now()
    again = opsgenie_sdk.CreateAlertPayload(message="other words", alias=life.alias, priority="P5")
    life.done(life.api.create_alert(create_alert_payload=again))
    shown = life.now()
    assert (shown.id, shown.count, shown.message, shown.priority) == (first.id, 2, life.message, "P2")
    assert shown.last_occurred_at > first.last_occurred_at
    life.does("close_alert")
    life.done(life.api.create_alert(create_alert_payload=again))
    anew = life.now()
    assert (anew.id != first.id, anew.count, anew.message) == (True, 1, "other words")


def test_closed(life: Life) -> None:
    """Closed with a note; afterwards its id finds it, its alias does not."""
    shown = life.now()
    life.does("acknowledge_alert")
    life.does("close_alert", opsgenie_sdk.CloseAlertPayload(user="jane", source="sdk", note="fixed"))
    closed = life.api.get_alert(identifier=shown.id).data
    assert (closed.status, closed.acknowledged) == ("closed", True)
    assert closed.report.close_time >= closed.report.ack_time >= 0
    assert [one.note for one in life.api.list_notes(identifier=shown.id).data] == ["fixed"]
    with _refused(404):
        life.now()
    last: Callable[[Arrived], bool] = {
        "ilert": lambda one: one.body["eventType"] == "RESOLVE",
        "pagerduty": lambda one: one.body["event_action"] == "resolve",
        "ibm_monitoring": lambda one: one.body["alert"].get("enabled") is False,
        "opsgenie": lambda one: (
            one.path.endswith("/close") and one.body == {"user": "jane", "source": "sdk", "note": "fixed"}
        ),
    }[life.vendor]
    assert life.h.wait_for(lambda: last(life.arrives(1)[-1]))


def test_deleted(life: Life) -> None:
    """Deleted by its short id; nobody finds it any more."""
    shown = life.now()
    life.done(life.api.delete_alert(identifier=shown.tiny_id, identifier_type="tiny", source="sdk"))
    with _refused(404):
        life.api.get_alert(identifier=shown.id)
    last: Callable[[Arrived], bool] = {
        "ilert": lambda one: one.body["eventType"] == "RESOLVE",
        "pagerduty": lambda one: one.body["event_action"] == "resolve",
        "ibm_monitoring": lambda one: one.method == "DELETE",
        "opsgenie": lambda one: one.method == "DELETE",
    }[life.vendor]
    assert life.h.wait_for(lambda: last(life.arrives(1)[-1]))


def test_listed_and_counted(life: Life) -> None:
    """By query, in order, a page at a time."""
    tag = fresh("tag").replace(" ", "-")
    life.does("add_tags", opsgenie_sdk.AddTagsToAlertPayload(tags=[tag]))
    other = fresh("alias")
    payload = opsgenie_sdk.CreateAlertPayload(message="CPU busy", alias=other, tags=[tag], priority="P4")
    life.done(life.api.create_alert(create_alert_payload=payload))
    list_alerts, count = life.api.list_alerts, life.api.count_alerts
    assert [one.alias for one in list_alerts(query=f"tag:{tag}").data] == [other, life.alias]
    assert [one.alias for one in list_alerts(query=f"tag:{tag}", order="asc").data] == [life.alias, other]
    assert [one.alias for one in list_alerts(query=f"tag={tag}", sort="message", order="asc").data] == [
        other,
        life.alias,
    ]
    assert [one.alias for one in list_alerts(query=f"tag:{tag} AND priority: P4").data] == [other]
    assert [one.alias for one in list_alerts(query=f"tag:{tag} (priority:P1 OR priority:P2)").data] == [life.alias]
    assert [one.alias for one in list_alerts(query=f"tag:{tag} NOT message:busy").data] == [life.alias]
    page = list_alerts(query=f"tag:{tag}", limit=1)
    assert ([one.alias for one in page.data], "offset=1" in page.paging.next) == ([other], True)
    assert [one.alias for one in list_alerts(query=f"tag:{tag}", limit=1, offset=1).data] == [life.alias]
    assert count(query=f"tag:{tag}").data.count == 2
    life.does("close_alert")
    assert count(query=f"tag:{tag} status: open").data.count == 1
    assert count(query=f"tag:{tag} status=closed").data.count == 1
    with _refused(422):
        list_alerts(query="nothing: known")


def test_an_alert_that_there_is_not(life: Life) -> None:
    """The request is accepted like any other, and its status tells the outcome."""
    answer = life.api.acknowledge_alert(identifier="nobody-has-this-id")
    status = life.api.get_request_status(answer.request_id).data
    assert (status.is_success, status.status, status.alert_id) == (False, "Alert does not exist", "")
    with _refused(404):
        life.api.get_request_status("43a29c5c-3dbf-4fa4-9c26-f4f71023e120")


def test_what_is_wrong_is_said(h: House, api: Any) -> None:
    """In the format that the SDK turns into exceptions."""
    with _refused(422) as refused:
        api.create_alert(create_alert_payload={"message": "x", "priority": "P9"})
    assert "should be one of [ P1, P2, P3, P4, P5 ]" in str(refused[0].body)
    with _refused(401):
        _api(h.url, "nobody-has-this-key").list_alerts()
