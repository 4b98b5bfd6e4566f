"""Jira Service Management's Ops API as an upstream, where it differs from Opsgenie: ids have to be looked up, closed
alerts can be addressed, and a token may not delete.
https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.config.secrets import MASK
from gateway.outcome import Request, Response, Sending
from gateway.registry import dialects
from gateway.rehearsal import rehearse
from mappings.jsm_ops.calls import SEND
from tests.chaos_upstream import RESET_AFTER, Behaviour, Chaos, Got, chaos, say
from tests.clients.callers import COLLECTIONS, jsm_alert, opsgenie_alert
from tests.engine.genies import ID, JsmOps, paths
from tests.engine.test_doubt import FOUND, NOT_FOUND, doubts
from tests.engine.vendors import before, outbox, page, settled, table, writes
from tests.harness import KEY, House

CALLERS = "\n".join(f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}' for name in ("jsm_ops", "opsgenie"))


def _house(directory: Path, upstream: Chaos) -> Any:
    return before(directory, table("there", upstream.url, "jsm_ops", ""), routes=CALLERS)


def _tell(h: House, word: str, **more: Any) -> None:
    event = {"apiKey": KEY, "eventType": word, "alertKey": "disk", **more}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


def test_an_email_and_a_token_go_out_as_the_basic_scheme_has_them() -> None:
    sent = Request(method="GET", path="/alerts").with_basic("jane@example.com:tök:en")
    assert sent.headers == {"Authorization": "Basic amFuZUBleGFtcGxlLmNvbTp0w7ZrOmVu"}


def test_of_what_a_search_finds_only_the_open_alert_of_exactly_this_alias_is_meant() -> None:
    """A search for words finds more than an alias: the end of one alert must not close another."""
    sending = Sending(operation=Operation.RESOLVE, at=datetime.now(UTC), body={}, patch={}, key="disk", ids={}, seen={})
    call = SEND[Operation.RESOLVE](sending)
    next(call)
    found = [("1", "disk-2", "open"), ("2", "disk", "closed"), ("3", "disk", "open")]
    values = [{"id": one, "alias": alias, "status": status} for one, alias, status in found]
    assert call.send(Response(200, {}, json.dumps({"values": values}).encode())).path == "/alerts/3/close"


# --- an answer that was lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [RESET_AFTER, say(504)], ids=lambda one: one.name)
def test_a_create_whose_answer_was_lost_is_looked_for_by_its_alias(tmp_path: Path, lost: Behaviour) -> None:
    """The alert is there: nothing is sent again, and later requests use the id that was found."""
    there, answers = JsmOps(), [lost]

    def act(got: Got) -> Behaviour:
        usual = there(got)
        return answers.pop() if got.method == "POST" and answers else usual

    with chaos(act) as upstream, _house(tmp_path, upstream) as h:
        page(h)
        assert doubts(h) == [FOUND]
        assert paths(upstream) == ["POST /alerts"]
        _tell(h, "RESOLVE")
        settled(h, count=2)
        assert paths(upstream)[1:] == [f"POST /alerts/{ID}/close"]


def test_a_create_that_is_not_there_is_sent_again_under_the_same_alias(tmp_path: Path) -> None:
    there = JsmOps()
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        upstream.plan(say(504))
        page(h)
        assert doubts(h) == [NOT_FOUND]
        assert [got.body["alias"] for got in writes(upstream)] == ["disk", "disk"]


# --- alerts of which only the key is known ---------------------------------------------------------------------


def test_what_is_not_open_there_is_told_nothing(tmp_path: Path) -> None:
    """The alert is older than the gateway and closed since: its alias finds only a closed one."""
    there = JsmOps()
    there.held = {"id": ID, "alias": "disk", "status": "closed"}
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        _tell(h, "RESOLVE")
        settled(h)
        assert paths(upstream) == []


@pytest.mark.parametrize("alias", ['quote " and \\ backslash', "disk"])
def test_an_alias_is_quoted_and_compared_whole(tmp_path: Path, alias: str) -> None:
    """The list may return more than was asked for; only an alert with exactly this alias counts."""
    there = JsmOps()
    there.held = {"id": ID, "alias": alias, "status": "open"}
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        event = {"apiKey": KEY, "eventType": "ACCEPT", "alertKey": alias}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        settled(h)
        assert paths(upstream) == [f"POST /alerts/{ID}/acknowledge"]


def test_a_list_that_is_none_is_asked_for_again(tmp_path: Path) -> None:
    """An answer that is not a list does not prove that the alert is missing."""
    there, answers = JsmOps(), [say(200, {"message": "hello"})]
    there.held = {"id": ID, "alias": "disk", "status": "open"}

    def act(got: Got) -> Behaviour:
        return answers.pop() if answers else there(got)

    with chaos(act) as upstream, _house(tmp_path, upstream) as h:
        _tell(h, "RESOLVE")
        [done] = settled(h)
        assert (done.attempts, paths(upstream)) == (2, [f"POST /alerts/{ID}/close"])


# --- what people did there -------------------------------------------------------------------------------------


def test_an_update_of_what_people_closed_there_pages_again(tmp_path: Path) -> None:
    """Closed alerts can still be changed there, but nobody would be paged."""
    there = JsmOps()
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        page(h)
        settled(h)
        assert there.held
        there.held["status"] = "closed"
        _tell(h, "ALERT", summary="Disk fuller")
        settled(h, count=2)
        assert paths(upstream) == ["POST /alerts", "POST /alerts"]
        assert writes(upstream)[-1].body["message"] == "Disk fuller"


@pytest.mark.parametrize(("status", "ends"), [("closed", "delivered"), ("open", "dead")])
def test_a_close_that_fails_is_delivered_if_it_is_closed(tmp_path: Path, status: str, ends: str) -> None:
    there = JsmOps()
    there.says = {"close": "Alert is already closed"}
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        page(h)
        settled(h)
        assert there.held
        there.held["status"] = status
        _tell(h, "RESOLVE")
        settled(h, ends, count=2 if ends == "delivered" else 1)
        assert paths(upstream)[1:] == [f"POST /alerts/{ID}/close"]


def test_a_read_shows_what_people_did_there(tmp_path: Path) -> None:
    """The primary speaks the caller's dialect: it is read first, for one alert and for lists."""
    there = JsmOps()
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        sent = h.call("POST", COLLECTIONS["jsm_ops"], jsm_alert("CPU high", alias="cpu"))
        settled(h)
        assert there.held
        there.held |= {"acknowledged": True, "owner": "jane", "priority": "P2"}
        made = h.call("GET", f"/jsm_ops/alerts/requests/{sent.body['requestId']}").body["alertId"]
        shown = h.call("GET", f"/jsm_ops/alerts/{made}").body
        assert (shown["acknowledged"], shown["owner"], shown["priority"]) == (True, "jane", "P2")
        there.held |= {"owner": "joe"}
        [listed] = h.call("GET", "/jsm_ops/alerts").body["values"]
        assert (listed["id"], listed["owner"]) == (made, "joe")


# --- what a token may not do -----------------------------------------------------------------------------------


def test_a_delete_becomes_a_close(tmp_path: Path) -> None:
    """An API token may not delete, and its 401 would hold the whole upstream."""
    there = JsmOps()
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        h.call("POST", COLLECTIONS["opsgenie"], opsgenie_alert("Disk full", alias="disk"))
        settled(h)
        sent = h.call("DELETE", f"{COLLECTIONS['opsgenie']}/disk?identifierType=alias")
        settled(h, count=2)
        assert paths(upstream)[1:] == [f"POST /alerts/{ID}/close"]
        assert sent.report == ["there; approximated=status"]


def test_a_tag_that_is_taken_away_stays_and_that_is_said(tmp_path: Path) -> None:
    """Nothing is sent for the removed tag, least of all the create again; a tag added with it is sent."""
    there = JsmOps()
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        h.call("POST", COLLECTIONS["opsgenie"], opsgenie_alert("Disk full", alias="disk", tags=["db", "night"]))
        settled(h)
        here = f"{COLLECTIONS['opsgenie']}/disk/tags?identifierType=alias"
        assert h.call("DELETE", f"{here}&tags=night").status == 202
        removed = settled(h, count=2)[-1]
        assert "removed entries stay there" in str(removed.fates)
        tagged = [got.path for got in writes(upstream) if got.path.endswith("/tags")]
        assert (tagged, len([path for path in paths(upstream) if path == "POST /alerts"])) == ([], 1)
        assert h.call("POST", here, {"tags": ["disk"]}).status == 202
        settled(h, count=3)
        [added] = [got.body for got in writes(upstream) if got.path.endswith("/tags")]
        assert added == {"tags": ["disk"]}


def test_names_call_nobody_there_and_that_is_reported(tmp_path: Path) -> None:
    there = JsmOps()
    responders = [{"type": "team", "name": "NOC"}, {"type": "team", "id": "4513b7ea"}]
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        sent = h.call("POST", COLLECTIONS["opsgenie"], opsgenie_alert("Disk full", responders=responders))
        settled(h)
        assert writes(upstream)[0].body["responders"] == [{"type": "team", "id": "4513b7ea"}]
        assert sent.report == ["there; approximated=extensions.opsgenie.responders"]


# --- what is answered otherwise --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_note_that_is_answered_with_the_note_is_there(tmp_path: Path, status: int) -> None:
    """The vendor's description has no receipt for it; it is never added twice."""
    there = JsmOps()

    def act(got: Got) -> Behaviour:
        is_note = got.method == "POST" and got.path.endswith("/notes")
        return say(status, {"id": "n1", "note": got.body["note"]}) if is_note else there(got)

    with chaos(act) as upstream, _house(tmp_path, upstream) as h:
        page(h)
        _tell(h, "COMMENT", summary="the disk was replaced")
        settled(h, count=2)
        assert [got.body for got in writes(upstream)[1:]] == [{"note": "the disk was replaced"}]


def test_a_refused_token_holds_the_upstream(tmp_path: Path) -> None:
    refusal = say(401, {"code": 401, "message": "Unauthorized; scope does not match"})
    with chaos(refusal) as upstream, _house(tmp_path, upstream) as h:
        page(h)
        [waiting] = h.wait_for(lambda: [one for one in outbox(h) if "scope does not match" in one.reason])
        assert waiting.state == "waiting"


def test_a_credential_that_is_thrown_back_is_told_to_nobody(tmp_path: Path) -> None:
    """It appears nowhere, neither as configured nor as encoded for the request."""

    def echo(got: Got) -> Behaviour:
        return say(400, {"message": f"what is {got.headers['authorization']}, or upstream-key?"})

    with chaos(echo) as upstream, _house(tmp_path, upstream) as h:
        page(h)
        [dead] = settled(h, "dead")
        assert dead.reason == f"400 what is Basic {MASK}, or {MASK}?"


OWN = [
    ("assign", {"accountId": "712020:9ae5385e"}),
    ("responders", {"id": "4513b7ea", "type": "team"}),
    ("escalate", {"escalationId": "aee8a0de"}),
    ("snooze", {"endTime": "2999-01-01T00:00:00Z"}),
    ("action", {"actionName": "RestartServer"}),
    ("unacknowledge", None),
]


def test_what_only_this_vendor_knows_goes_out_as_it_came(tmp_path: Path) -> None:
    there = JsmOps()
    with chaos(there) as upstream, _house(tmp_path, upstream) as h:
        sent = h.call("POST", COLLECTIONS["jsm_ops"], jsm_alert("CPU high"))
        made = h.call("GET", f"/jsm_ops/alerts/requests/{sent.body['requestId']}").body["alertId"]
        for word, body in OWN:
            assert h.call("POST", f"/jsm_ops/alerts/{made}/{word}", body).status == 202, word
        settled(h, count=1 + len(OWN))
        told = [(got.path.rpartition("/")[2], got.body) for got in writes(upstream)[1:]]
        assert [word for word, _ in told] == [word for word, _ in OWN]
        assert [body or None for _, body in told] == [body for _, body in OWN]


def test_what_would_be_sent_is_shown_without_anybody_being_asked() -> None:
    """`translate` knows no ids and shows a placeholder instead."""
    text = '[upstreams.there]\ndialect = "jsm_ops"\nurl = "http://127.0.0.1:9"\nkey = "jane@example.com:token"\n'
    upstream = parse(f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n{text}').upstreams["there"]
    asked = Command(operation=Operation.ACKNOWLEDGE, ref=Ref(key="disk"))
    [sent] = rehearse(asked, dialects()["opsgenie"], upstream).requests
    assert (sent.method, sent.path) == ("POST", "/alerts/{id}/acknowledge")
    assert "token" not in str(sent.headers)
