"""Callers of Jira Service Management's Ops API: alerts by id, answers without an envelope, lists with values and links,
and a user's own credentials. https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients.callers import OTHER, called, fresh, jsm_alert, uptinio_alert
from tests.engine.pairs import Houses
from tests.harness import House, Sent, house

ALERTS = "/jsm_ops/alerts"
SITE = "/jsm/ops/api/11223344-a1b2-3b33-c444-def123456789/v1/alerts"


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it."""
    return fronts("ilert")


def _create(h: House, message: str = "CPU high", **fields: Any) -> tuple[str, str]:
    """Creates an alert, and returns its id, from the state of the request, and its alias."""
    alias = fields.pop("alias", None) or fresh("alias")
    sent = h.call("POST", ALERTS, jsm_alert(message, alias=alias, **fields))
    assert (sent.status, sorted(sent.body)) == (202, ["requestId", "result", "took"])
    found = h.call("GET", f"{ALERTS}/requests/{sent.body['requestId']}").body
    assert (found["isSuccess"], found["alias"]) == (True, alias)
    assert found["processedAt"]
    return str(found["alertId"]), str(alias)


def _do(h: House, made: str, word: str, body: Any = None, method: str = "POST") -> None:
    sent = h.call(method, f"{ALERTS}/{made}/{word}", body)
    assert sent.status == 202, sent.body


def _shown(h: House, made: str) -> dict[str, Any]:
    found = h.call("GET", f"{ALERTS}/{made}")
    assert found.status == 200, found.body
    return dict(found.body)


# --- an alert's life -------------------------------------------------------------------------------------------


def test_through_its_life(h: House) -> None:
    """Every change of an alert is shown in the vendor's own fields."""
    made, alias = _create(h, tags=["db"], extraProperties={"region": "eu", "free": 3})
    first = _shown(h, made)
    assert (first["id"], first["alias"], first["status"], first["acknowledged"]) == (made, alias, "open", False)
    assert first["extraProperties"] == {"region": "eu", "free": "3"}
    assert not first.keys() & {"data", "details", "isSeen", "report", "integration"}
    _do(h, made, "acknowledge")
    _do(h, made, "tags", {"tags": ["night"]})
    _do(h, made, "extra-properties", {"extraProperties": {"disk": "sda"}})
    _do(h, made, "assign", {"accountId": "712020:9ae5385e"})
    _do(h, made, "snooze", {"endTime": "2999-01-01T00:00:00Z"})
    _do(h, made, "priority", {"priority": "P3"}, "PATCH")
    _do(h, made, "message", {"message": "CPU still high"}, "PATCH")
    _do(h, made, "description", {"description": "nobody knows"}, "PATCH")
    _do(h, made, "responders", {"id": "4513b7ea", "type": "team"})
    now = _shown(h, made)
    wanted = {
        "acknowledged": True,
        "tags": ["db", "night"],
        "extraProperties": {"region": "eu", "free": "3", "disk": "sda"},
        "owner": "712020:9ae5385e",
        "snoozed": True,
        "priority": "P3",
        "message": "CPU still high",
        "description": "nobody knows",
        "responders": [{"id": "4513b7ea", "type": "team"}],
    }
    assert {name: now[name] for name in wanted} == wanted
    _do(h, made, "unacknowledge")
    assert _shown(h, made)["acknowledged"] is False
    _do(h, made, "close")
    assert _shown(h, made)["status"] == "closed"
    assert h.call("DELETE", f"{ALERTS}/{made}").status == 202
    assert h.call("GET", f"{ALERTS}/{made}").status == 404


def test_what_others_are_told_names_no_vendor_that_it_was_not(h: House) -> None:
    made, alias = _create(h)
    _do(h, made, "escalate", {"escalationId": "aee8a0de"})
    _do(h, made, "notes", {"note": "looking"})
    events = h.wait_for(
        lambda: len(found := [one for one in h.arrived("ilert") if one.body.get("alertKey") == alias]) >= 3 and found
    )
    said = [one.body["comments"][0]["content"] for one in events[1:]]
    assert said == [
        "Done to the alert: escalated to aee8a0de",
        "looking",
    ]


def test_what_is_taken_away_is_named_in_the_body(h: House) -> None:
    """`deleteTags` and `deleteExtraPropertyFromAlert` of the vendor's description have what is removed in the body."""
    made, _ = _create(h, tags=["db", "night"], extraProperties={"region": "eu", "disk": "sda"})
    _do(h, made, "tags", {"tags": ["night", "never there"]}, "DELETE")
    _do(h, made, "extra-properties", {"keys": ["disk", "never there"], "note": "it was sdb"}, "DELETE")
    now = _shown(h, made)
    assert (now["tags"], now["extraProperties"]) == (["db"], {"region": "eu"})
    assert [one["note"] for one in h.call("GET", f"{ALERTS}/{made}/notes").body["values"]] == ["it was sdb"]


@pytest.mark.parametrize(
    ("word", "body"),
    [
        ("responders", {"responder": {"id": "4513b7ea", "type": "team"}}),
        ("escalate", {"escalation": {"id": "aee8a0de"}}),
        ("close", {"user": "jane", "note": "done"}),
    ],
)
def test_who_still_writes_as_to_opsgenie_is_understood(h: House, word: str, body: Any) -> None:
    made, _ = _create(h)
    _do(h, made, word, body)


def test_details_are_the_extra_properties_of_who_was_moved(h: House) -> None:
    made, _ = _create(h, details={"region": "eu", "disk": "sda"}, extraProperties={"disk": "sdb"})
    assert _shown(h, made)["extraProperties"] == {"region": "eu", "disk": "sdb"}


def test_a_repeat_is_counted(h: House) -> None:
    made, alias = _create(h)
    again, _ = _create(h, "other words", alias=alias)
    assert again == made
    shown = _shown(h, made)
    assert (shown["count"], shown["message"]) == (2, "CPU high")


def test_an_alias_finds_the_open_alert_alone(h: House) -> None:
    """An alias has a call of its own, which finds open alerts only; it is no id."""
    made, alias = _create(h)
    assert h.call("GET", f"{ALERTS}/alias?alias={alias}").body["id"] == made
    assert h.call("GET", f"{ALERTS}/{alias}").status == 404
    _do(h, made, "close")
    assert h.call("GET", f"{ALERTS}/alias?alias={alias}").status == 404


def test_only_its_own_caller_finds_an_alert(h: House) -> None:
    made, alias = _create(h)
    for path in (made, f"alias?alias={alias}"):
        assert h.call("GET", f"{ALERTS}/{path}", key=OTHER).status == 404
    assert h.call("GET", ALERTS, key=OTHER).body == {"values": [], "links": {}}


# --- lists -----------------------------------------------------------------------------------------------------


def test_pages_are_followed_by_their_links(tmp_path: Path) -> None:
    with called(tmp_path, {"there": "ilert"}) as there:
        made = [_create(there, f"number {number}")[0] for number in range(5)]
        seen, link = [], "/v1/alerts?query=status:open&size=2&order=asc"
        while link:
            page = there.call("GET", f"/jsm_ops{link}").body
            seen += [one["id"] for one in page["values"]]
            link = page["links"].get("next", "")
            assert urlsplit(link).path in ("", "/v1/alerts")
        assert seen == made


def test_a_client_generated_from_the_description(h: House) -> None:
    """Its paths begin with the version, and are joined to a base URL without it."""
    sent = h.call("POST", "/jsm_ops/v1/alerts", jsm_alert(fresh("Disk full")))
    assert sent.status == 202, sent.body
    state = h.call("GET", f"/jsm_ops/v1/alerts/requests/{sent.body['requestId']}").body
    made = f"/jsm_ops/v1/alerts/{state['alertId']}"
    assert h.call("POST", f"{made}/acknowledge").status == 202
    assert h.call("GET", made).body["acknowledged"] is True


@pytest.mark.parametrize("part", ["notes", "logs"])
def test_notes_and_logs_are_read_page_by_page(h: House, part: str) -> None:
    """`getAlertNotes` and `getAlertLogs` of the vendor's description: `after` and `size`, answered by `values` and
    `links`, newest first."""
    made, _ = _create(h)
    for note in ("looking", "it is the disk", "replaced"):
        _do(h, made, "notes", {"note": note})
    seen, query = [], "size=2"
    while query:
        page = h.call("GET", f"{ALERTS}/{made}/{part}?{query}")
        assert (page.status, sorted(page.body)) == (200, ["links", "values"]), page.body
        seen.append(page.body["values"])
        following = urlsplit(page.body["links"].get("next", ""))
        assert following.path in ("", f"/v1/alerts/{made}/{part}")
        query = following.query
    said = [one.get("note") or one["log"] for page in seen for one in page]
    if part == "notes":
        assert said == ["replaced", "it is the disk", "looking"]
    else:
        assert said == [*(f"Note added: {one}" for one in ("replaced", "it is the disk", "looking")), "Alert created"]
    assert {"owner", "createdAt", "offset"} <= seen[0][0].keys()
    assert h.call("GET", f"{ALERTS}/{made}/{part}", key=OTHER).status == 404


def test_a_list_by_query_and_time_of_creation(h: House) -> None:
    made, alias = _create(h, "needle")
    _create(h, "hay")

    def found(query: str) -> list[str]:
        sent = h.call("GET", f"{ALERTS}?{query}")
        assert sent.status == 200, sent.body
        return [one["id"] for one in sent.body["values"]]

    assert found(f'query=alias:"{alias}"') == [made]
    assert found("query=message:needle AND status:open") == [made]
    assert made in found("query=message:needle&from=1577836800000")
    assert found("query=message:needle&to=1577836800000") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_list_is_sorted_by_every_field_that_the_vendor_sorts_by(tmp_path: Path, order: str) -> None:
    """`listAlerts` of the vendor's description sorts by `createdAt`, `insertedAt` (the default), `lastOccurredAt` and
    `priority`."""
    with called(tmp_path, {"there": "ilert"}) as there:
        first, alias = _create(there, priority="P4")
        second, _ = _create(there, priority="P2")
        _create(there, alias=alias, priority="P4")

        def found(sort: str) -> list[str]:
            sent = there.call("GET", f"{ALERTS}?order={order}&sort={sort}")
            assert sent.status == 200, sent.body
            return [one["id"] for one in sent.body["values"]]

        as_made, turned = [first, second], [second, first]
        if order == "desc":
            as_made, turned = turned, as_made
        assert found("createdAt") == found("insertedAt") == found("") == as_made
        assert found("lastOccurredAt") == found("priority") == turned


# --- where it is served, and to whom ---------------------------------------------------------------------------


def test_at_the_root_it_is_served_below_a_site_and_takes_nobody_s_path(h: House) -> None:
    """A client whose host alone is changed keeps its whole path; `/alerts` at the root is another vendor's."""
    sent = h.call("POST", SITE, jsm_alert("CPU high"))
    assert sent.status == 202
    made = h.call("GET", f"{SITE}/requests/{sent.body['requestId']}").body["alertId"]
    assert h.call("GET", f"/jsm_ops{SITE}/{made}").body["id"] == made
    assert h.call("POST", "/alerts", uptinio_alert("Website is down")).body["data"]["id"].startswith("alt_")


def _as(h: House, authorization: str) -> Sent:
    return h.call("GET", ALERTS, key=None, headers={"authorization": authorization})


def _basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def test_email_and_token_are_the_credential(tmp_path: Path) -> None:
    """E-mail and token are read as clients send them; a malformed Basic credential is answered 401, never 500."""
    known = "jane@example.com:0123456789abcdef"
    config = f'[inbound.jsm_ops]\nkeys = {{ jane = "{known}" }}\n[[routes]]\nto = []\nbecause = "it is only answered"'
    with house(tmp_path, config=lambda _: config) as there:
        assert _as(there, _basic(known)).status == 200
        assert _as(there, f"Bearer {known}").status == 200
        for wrong in (_basic("jane@example.com:another"), "Basic !!!", "Basic", "Basic /////w==", "", known[:-1]):
            refused = _as(there, wrong)
            assert (refused.status, refused.body["message"]) == (401, "Could not authenticate"), wrong


# --- what is refused -------------------------------------------------------------------------------------------

REFUSED = [
    ("POST", "", {"alias": "x"}, "message"),
    ("POST", "", {"message": "x", "priority": "P6"}, "priority"),
    ("POST", "", {"message": "x", "extraProperties": ["a"]}, "extraProperties"),
    ("POST", "/a/notes", {}, "note"),
    ("POST", "/a/snooze", {"endTime": "soon"}, "endTime"),
    ("POST", "/a/assign", {"owner": {"username": "jane"}}, "accountId"),
    ("POST", "/a/escalate", {"escalation": {"name": "night"}}, "escalationId"),
    ("POST", "/a/responders", {"responder": {"type": "team", "name": "NOC"}}, "id"),
    ("POST", "/a/action", {}, "actionName"),
    ("POST", "/a/extra-properties", {"extraProperties": {}}, "extraProperties"),
    ("PATCH", "/a/priority", {"priority": "high"}, "priority"),
    ("DELETE", "/a/tags", {}, "tags"),
    ("DELETE", "/a/tags", {"tags": [1]}, "tags"),
    ("DELETE", "/a/extra-properties", {"keys": "disk"}, "keys"),
    ("GET", "?sort=colour", None, "sort"),
    ("GET", "?size=101", None, "size"),
    ("GET", "?from=soon", None, "from"),
    ("GET", "?query=status:open)", None, "query"),
    ("GET", "/alias", None, "alias"),
]


@pytest.mark.parametrize(("method", "path", "body", "field"), REFUSED)
def test_what_is_wrong_is_named(h: House, method: str, path: str, body: Any, field: str) -> None:
    """Answers 422, with the text under the name of the field."""
    sent = h.call(method, ALERTS + path, body)
    assert (sent.status, list(sent.body["errors"])) == (422, [field]), sent.body


def test_a_field_is_changed_by_patch_alone(h: House) -> None:
    made, _ = _create(h)
    refused = h.call("PUT", f"{ALERTS}/{made}/message", {"message": "x"})
    assert (refused.status, refused.headers["allow"]) == (405, "PATCH")
