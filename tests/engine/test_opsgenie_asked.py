"""What Opsgenie's callers ask, read from a request: who is meant, what is refused, and what becomes of the record. How
it goes on over HTTP is tested with the callers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import UNSET

from gateway.asked import Command, Incoming, Ref
from gateway.canonical import Operation
from gateway.errors import Problem
from mappings.jsm_ops import alert
from mappings.jsm_ops import routes as successor
from mappings.opsgenie import asked
from mappings.opsgenie.alert import ALERT, RESPONDERS, TAGS
from mappings.opsgenie.words import uuid_of

NOW = datetime(2026, 3, 4, tzinfo=UTC)
Read = Callable[[Incoming], Command]


def _incoming(body: Any = UNSET, name: str = "disk", **query: str) -> Incoming:
    return Incoming({"id": name}, {one: [value] for one, value in query.items()}, {}, body, NOW)


def _amended(command: Command, **before: Any) -> dict[str, Any]:
    assert command.amend
    return dict(command.amend(before))


def test_an_alert_is_named_by_what_the_query_says() -> None:
    for kind in ("alias", "ALIAS"):
        assert asked.ref(_incoming(identifierType=kind)) == Ref(key="disk")
    for query in ({}, {"identifierType": "id"}, {"identifierType": "Tiny"}):
        assert asked.ref(_incoming(**query)) == Ref(id="disk")
    with pytest.raises(Problem, match="should be one of"):
        asked.ref(_incoming(identifierType="name"))


def test_the_id_of_the_request_that_created_an_alert_names_it_too() -> None:
    """Apprise keeps only receipts, and closes by them."""
    number = 1234567890123
    assert asked.ref(_incoming(name=uuid_of(number))) == Ref(id=str(number))
    assert asked.ref(_incoming(name=uuid_of(number), identifierType="alias")) == Ref(key=uuid_of(number))
    other = "8743a1b2-11da-480e-8493-744660987bef"
    assert asked.ref(_incoming(name=other)) == Ref(id=other)


@pytest.mark.parametrize(
    ("read", "body", "field", "said"),
    [
        (asked.note, UNSET, None, ""),
        (asked.note, {}, "note", "is required"),
        (asked.note, {"note": " "}, "note", "is required"),
        (asked.note, {"note": None}, "note", "is required"),
        (asked.note, {"note": 5}, "note", "is of the wrong type"),
        (asked.note, {"note": "x", "user": 5}, "user", "should be a text"),
        (asked.doing(Operation.ACKNOWLEDGE), {"source": ["x"]}, "source", "should be a text"),
        (asked.add_tags, {"tags": []}, "tags", "is required"),
        (asked.add_tags, {"tags": "x"}, "tags", "is of the wrong type"),
        (asked.remove_tags, {"tags": ["x", 5]}, "tags", "is of the wrong type"),
        (asked.adding_details(ALERT, "details"), {"details": {}}, "details", "is required"),
        (asked.field("message"), {}, "message", "is required"),
        (asked.field("priority"), {"priority": "P6"}, "priority", "should be one of [ P1, P2, P3, P4, P5 ]"),
        (asked.creating(ALERT), {"message": "x", "priority": "p1"}, "priority", "should be one of [ P1, P2, P3, P4"),
        (asked.creating(ALERT), {"message": "x", "priority": 1}, "priority", "should be one of [ P1, P2, P3, P4"),
        (asked.creating(ALERT), {"message": "x", "responders": [{"type": "team"}]}, "responders[0]", "id or name"),
        (
            asked.creating(ALERT),
            {"message": "x", "visibleTo": [{"id": "1"}, {"type": "team"}]},
            "visibleTo[1]",
            "id or",
        ),
        (asked.snooze, {"endTime": "tomorrow"}, "endTime", "'tomorrow' is not an ISO 8601 time"),
        (asked.assign, {"owner": {"id": ""}}, "owner", "id or name should be provided"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(read: Read, body: Any, field: str | None, said: str) -> None:
    with pytest.raises(Problem) as refused:
        read(_incoming(body))
    assert said in refused.value.message
    assert field is None or refused.value.field == field


def test_a_body_is_left_out_only_where_nothing_has_to_be_said() -> None:
    """Who did it may then be in the query; the body counts before that."""
    close = asked.doing(Operation.RESOLVE)
    assert close(_incoming()).verbatim == {}
    assert close(_incoming({"note": None})).verbatim == {}
    said = close(_incoming({"user": "jane", "note": "over", "more": 1}, user="joe", source="cli"))
    assert said.verbatim == {"user": "jane", "source": "cli", "note": "over"}
    assert (said.comment, said.answers_anyway) == ("over", True)
    assert said.beside == ALERT.interpret({"user": "jane", "source": "cli"}).flat


@pytest.mark.parametrize("name", ["alias", "priority"])
def test_a_blank_text_is_none(name: str) -> None:
    """Templates leave it where they had nothing to fill in; an alert must not be lost for it."""
    read = asked.creating(ALERT)
    body = {"message": "Disk full", "alias": "disk", "priority": "P1"}
    without = {field: value for field, value in body.items() if field != name}
    assert read(_incoming({**body, name: "  "})).patch == read(_incoming(without)).patch
    with pytest.raises(Problem, match="is required"):
        read(_incoming({**body, "message": "  "}))


def test_a_repeat_is_counted() -> None:
    create = asked.creating(ALERT)(_incoming({"message": "Disk full", "note": "seen"}))
    assert (create.comment, create.invents_key, create.only_new) == ("seen", True, True)
    for before, after in (({}, 2), ({"occurrences": 1}, 2), ({"occurrences": 7}, 8)):
        assert _amended(create, **before) == {"occurrences": after, "occurred_at": NOW}


def test_free_form_texts_are_read_under_the_other_api_s_name_too() -> None:
    """Callers that moved from one of the vendor's APIs to the other often still use the old name."""
    for mapping, own, other in ((ALERT, "details", "extraProperties"), (alert.ALERT, "extraProperties", "details")):
        read = asked.creating(mapping)
        said = read(_incoming({"message": "x", own: {"a": "1"}, other: {"a": "0", "b": "2"}}))
        assert said.patch["custom"] == {"a": "1", "b": "2"}
        assert read(_incoming({"message": "x", other: {"b": "2"}})).patch["custom"] == {"b": "2"}


# --- changes of the record -------------------------------------------------------------------------------------


def test_a_change_of_a_field_has_no_note() -> None:
    change = asked.field("message")(_incoming({"message": "Disk fuller", "note": "no such field here"}))
    assert (change.comment, change.patch, change.verbatim) == (
        "",
        {"summary": "Disk fuller"},
        {"message": "Disk fuller"},
    )


def test_tags_are_added_once_and_taken_away_where_they_are() -> None:
    add = asked.add_tags(_incoming({"tags": ["b", "c", "c"], "user": "jane"}))
    assert _amended(add, **{TAGS: ["a", "b"]}) == {TAGS: ["a", "b", "c"]}
    assert _amended(add) == {TAGS: ["b", "c"]}
    assert add.verbatim == {"tags": ["b", "c", "c"], "user": "jane"}
    for incoming in (_incoming(tags="b, c,", user="jane"), _incoming({"tags": ["b", "c"], "user": "jane"})):
        remove = asked.remove_tags(incoming)
        assert _amended(remove, **{TAGS: ["a", "b"]}) == {TAGS: ["a"]}
        assert _amended(remove) == {}
        assert remove.verbatim == {"user": "jane"}


def test_details_are_added_and_taken_away_by_their_keys() -> None:
    add = asked.adding_details(ALERT, "details")(_incoming({"details": {"a": "1"}, "note": "why"}))
    assert _amended(add, custom={"a": "0", "b": "2"}) == {"custom": {"a": "1", "b": "2"}}
    assert _amended(add) == {"custom": {"a": "1"}}
    assert (add.patch, add.verbatim) == ({"custom": {"a": "1"}}, {"details": {"a": "1"}, "note": "why"})
    remove = asked.remove_details(_incoming(keys="a"))
    assert _amended(remove, custom={"a": "1", "b": "2"}) == {"custom": {"b": "2"}}
    assert _amended(remove) == {}


# --- what has no operation of its own --------------------------------------------------------------------------


def test_an_action_is_a_sentence_for_everybody_else() -> None:
    done = asked.escalate(_incoming({"escalation": {"name": "night", "id": "e"}, "user": "jane", "note": "now"}))
    assert done.operation is Operation.COMMENT
    assert done.comment == f"{asked.ACTED}escalated to night by jane: now"
    assert done.verbatim["action"] == "escalate" and done.verbatim["escalation"] == {"name": "night", "id": "e"}
    assert asked.escalate(_incoming({"escalation": {"id": "e"}})).comment == f"{asked.ACTED}escalated to e"
    assert _amended(asked.assign(_incoming({"owner": {"username": "jane"}}))) == {"assignee": "jane"}
    custom = asked.custom_action(Incoming({"id": "disk", "name": "restart"}, {}, {}, UNSET, NOW))
    assert custom.verbatim == {"action": "actions", "name": "restart"}


def test_a_snooze_and_an_acknowledgement_taken_back_leave_what_is_closed() -> None:
    snooze = asked.snooze(_incoming({"endTime": "2026-03-05T00:00:00Z"}))
    until = datetime(2026, 3, 5, tzinfo=UTC)
    assert _amended(snooze, status="firing") == _amended(snooze) == {"snoozed_until": until}
    assert _amended(snooze, status="resolved") == {}
    back = asked.unacknowledge(_incoming())
    assert _amended(back, status="acknowledged") == _amended(back) == {"status": "firing", "acknowledged_at": None}
    assert _amended(back, status="resolved") == _amended(back, status="firing") == {}


@pytest.mark.parametrize(
    ("read", "body", "listed", "action"),
    [
        (asked.responding("team"), {"team": {"id": "t"}}, {"id": "t", "type": "team"}, "teams"),
        (asked.responding("responder"), {"responder": {"id": "u"}}, {"id": "u", "type": "user"}, "responders"),
        (
            asked.responding("responder"),
            {"responder": {"id": "s", "type": "schedule"}},
            {"id": "s", "type": "schedule"},
            "responders",
        ),
        (successor._respond, {"id": "u"}, {"id": "u", "type": "user"}, "responders"),
        (successor._respond, {"responder": {"id": "s", "type": "team"}}, {"id": "s", "type": "team"}, "responders"),
    ],
)
def test_a_responder_is_added_once(read: Read, body: Any, listed: dict[str, str], action: str) -> None:
    added = read(_incoming(body))
    assert added.verbatim["action"] == action
    assert f"{listed['type']} {listed['id']} was added as a responder" in added.comment
    assert _amended(added) == _amended(added, **{RESPONDERS: [listed]}) == {RESPONDERS: [listed]}
    assert _amended(added, **{RESPONDERS: [{"id": "x"}]}) == {RESPONDERS: [{"id": "x"}, listed]}


def test_the_successor_takes_its_own_fields_and_the_old_ones() -> None:
    for body in ({"escalationId": "e"}, {"escalation": {"id": "e", "name": "night"}}):
        done = successor._escalate(_incoming(body))
        assert done.verbatim == {"action": "escalate", "escalationId": "e"}
    with pytest.raises(Problem, match="is required"):
        successor._escalate(_incoming({"escalation": {"name": "night"}}))
    assert _amended(successor._assign(_incoming({"accountId": "a"}))) == {"assignee": "a"}
    assert successor._act(_incoming({"actionName": "restart"})).verbatim == {
        "action": "action",
        "actionName": "restart",
    }


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic amFuZUBleGFtcGxlLmNvbTp0b2tlbg==", ("jane@example.com:token",)),
        ("basic %%%", ()),
        ("Bearer  t ", ("t",)),
        ("GenieKey t", ("GenieKey t",)),
        ("t", ("t",)),
        ("", ()),
    ],
)
def test_the_successor_s_credential(header: str, found: tuple[str, ...]) -> None:
    assert successor.credentials(Incoming({}, {}, {"authorization": header}, UNSET, NOW)) == found
