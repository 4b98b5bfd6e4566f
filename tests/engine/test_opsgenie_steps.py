"""The calls to both of Opsgenie's APIs, played with answers in place of a vendor: what each answer means, and what is
sent next. What the gateway makes of it, over HTTP, is tested with the receipts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.canonical import Operation
from gateway.codes import Code
from gateway.outcome import (
    Again,
    Call,
    Delivered,
    Found,
    Held,
    Missing,
    Outcome,
    Pending,
    Rejected,
    Response,
    Sending,
)
from mappings.jsm_ops import calls as successor
from mappings.opsgenie import calls, steps
from mappings.opsgenie.alert import LONGEST_NOTE, TAGS

ID = "8743a1b2-11da-480e-8493-744660987bef"
TAKEN = (202, {"requestId": "r1"})
DONE = (200, {"data": {"isSuccess": True, "status": "done", "processedAt": "2017-05-24T14:24:20Z", "alertId": ID}})


def _sending(operation: Operation = Operation.CREATE, **more: Any) -> Sending:
    given: dict[str, Any] = {"body": {}, "patch": {}, "key": "disk", "ids": {"id": ID}, "seen": {}, **more}
    return Sending(operation=operation, at=datetime.now(UTC), **given)


def _with_receipt(looks: Any = 0, step: str = "create", **seen: Any) -> dict[str, Any]:
    return {"receipt": {"step": step, "request": "r1", "looks": looks, **seen}}


def _played(call: Call, *answers: tuple[int, Any]) -> tuple[list[Any], Outcome | None]:
    """What a call asks when it gets these answers, and its outcome; None where it asks on."""
    asked: list[Any] = []
    given = [None, *(Response(status, {}, _content(body)) for status, body in answers)]
    for answer in given:
        try:
            asked.append(call.send(answer))  # type: ignore[arg-type]
        except StopIteration as ended:
            return asked, ended.value
    return asked, None


def _content(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _created(sending: Sending, *answers: tuple[int, Any]) -> Any:
    return _played(steps.create(calls.API, sending), *answers)[1]


# --- receipts --------------------------------------------------------------------------------------------------


def test_a_receipt_is_kept_with_what_was_said() -> None:
    sending = _sending(body={"message": "Disk full", "tags": ["a"], "details": {"free": "3 MB"}})
    asked, outcome = _played(steps.create(calls.API, sending), TAKEN)
    assert (asked[0].method, asked[0].path, asked[0].creates) == ("POST", "/v2/alerts", True)
    assert asked[0].body == {"message": "Disk full", "tags": ["a"], "details": {"free": "3 MB"}, "alias": "disk"}
    assert isinstance(outcome, Pending)
    assert outcome.after == steps.FIRST_LOOK
    held = outcome.seen["receipt"]
    assert (held["step"], held["request"], held["looks"]) == ("create", "r1", 0)
    assert held["seen"]["said"]["tags"] == ["a"]


@pytest.mark.parametrize("number", ["", 7, None], ids=repr)
def test_a_receipt_without_a_number_cannot_be_followed(number: Any) -> None:
    outcome = _created(_sending(), (202, {"requestId": number}))
    assert isinstance(outcome, Again)
    assert outcome.code == Code.NO_ID


@pytest.mark.parametrize(
    ("answer", "looks", "after", "kept"),
    [
        ((404, {"message": "Request not processed"}), 0, 2 * steps.FIRST_LOOK, 1),
        ((404, {"message": "Request not processed"}), 1, 4 * steps.FIRST_LOOK, 2),
        ((404, {"message": "Request not processed"}), steps.MOST_LOOKS - 2, steps.LONGEST_PAUSE, steps.MOST_LOOKS - 1),
        ((404, {"message": "Request not processed"}), "many", 2 * steps.FIRST_LOOK, 1),
        ((200, {"data": {"isSuccess": False, "processedAt": ""}}), 400, steps.LONGEST_PAUSE, 401),
        ((200, {"data": {"isSuccess": True, "processedAt": ""}}), 0, 2 * steps.FIRST_LOOK, 1),
        ((200, {"data": {"isSuccess": False}}), 0, 2 * steps.FIRST_LOOK, 1),
        ((200, b"<html>"), 0, 2 * steps.FIRST_LOOK, 1),
        ((200, {"data": [1]}), 0, 2 * steps.FIRST_LOOK, 1),
    ],
)
def test_what_says_nothing_yet_is_asked_again_after_twice_the_time(
    answer: tuple[int, Any], looks: Any, after: float, kept: int
) -> None:
    outcome = _created(_sending(seen=_with_receipt(looks)), answer)
    assert outcome == Pending(after=after, seen=_with_receipt(kept))


def test_a_request_that_the_vendor_never_knew_is_taken_for_lost() -> None:
    """It is sent again under its alias; without one it would be a second alert, so it is asked for on and on."""
    unknown = (404, {"message": "Request not processed"})
    seen = _with_receipt(steps.MOST_LOOKS - 1)
    assert _created(_sending(seen=seen), unknown) == Pending(after=steps.LONGEST_PAUSE, seen={"receipt": None})
    without = _sending(seen=seen, key=None)
    assert _created(without, unknown) == Pending(after=steps.LONGEST_PAUSE, seen=_with_receipt(steps.MOST_LOOKS))


@pytest.mark.parametrize(
    ("operation", "said", "became"),
    [
        (Operation.CREATE, {"success": True, "alertId": ID}, {"id": ID}),
        (Operation.CREATE, {"isSuccess": True, "alertId": ""}, {}),
        (Operation.CREATE, {"isSuccess": True, "alertId": 7}, {}),
        (Operation.CREATE, {"isSuccess": False, "status": "Alert does not exist"}, "failed: Alert does not exist"),
        (Operation.RESOLVE, {"isSuccess": False, "status": "Alert does NOT EXIST"}, Missing()),
        (Operation.RESOLVE, {"isSuccess": False, "status": "not allowed"}, "failed: not allowed"),
        (Operation.CREATE, {"isSuccess": False, "status": None}, "failed: "),
        (Operation.CREATE, {"isSuccess": "yes"}, "failed: "),
        (Operation.CREATE, {"isSuccess": True, "status": "Discarded by a policy"}, "discarded: Discarded by a policy"),
    ],
)
def test_what_became_of_a_request(
    operation: Operation, said: dict[str, Any], became: Outcome | str | dict[str, str]
) -> None:
    seen = _with_receipt(step="close" if operation is Operation.RESOLVE else "create")
    call = calls.SEND[operation](_sending(operation, seen=seen))
    ended = _played(call, (200, {"data": {"processedAt": "2017-05-24T14:24:20Z", **said}}))[1]
    if isinstance(became, dict):
        assert isinstance(ended, Delivered)
        assert ended.ids == became
    else:
        assert ended == (Rejected(reason=became) if isinstance(became, str) else became)


def test_only_where_nothing_has_to_be_learnt_a_key_need_not_read() -> None:
    """The successor's alerts are addressed by an id that only a receipt tells: there a refused read holds the
    upstream."""
    for api, statuses in ((calls.API, {403, 404}), (successor.API, {404})):
        asked, _ = _played(steps.create(api, _sending(seen=_with_receipt())))
        assert asked[0].path == f"{api.alerts}/requests/r1"
        assert asked[0].accepts == statuses
    refused = _created(_sending(seen=_with_receipt()), (403, {"message": "Forbidden"}))
    assert isinstance(refused, Delivered)
    assert (refused.ids, refused.seen) == ({}, {"said": steps._said(calls.API, {})})


@pytest.mark.parametrize(
    ("operations", "operation", "answer", "is_done"),
    [
        (calls.SEND, Operation.RESOLVE, (200, {"result": "ok"}), True),
        (calls.SEND, Operation.RESOLVE, (202, {"result": "ok"}), False),
        (calls.SEND, Operation.RESOLVE, (200, b"<html>"), False),
        (calls.SEND, Operation.RESOLVE, (200, []), False),
        (successor.SEND, Operation.COMMENT, (202, {"note": "seen"}), True),
        (successor.SEND, Operation.COMMENT, (201, b""), True),
        (successor.SEND, Operation.RESOLVE, (202, b""), False),
    ],
)
def test_without_a_receipt_only_a_result_is_an_answer(
    operations: Any, operation: Operation, answer: tuple[int, Any], is_done: bool
) -> None:
    """The successor's notes are written at once; everywhere else 202 promises a receipt."""
    outcome = _played(operations[operation](_sending(operation, comment="seen")), answer)[1]
    if is_done:
        assert outcome == Delivered(ids={}, seen={}, altered={})
    else:
        assert isinstance(outcome, Again)


def test_what_is_done_to_an_alert_says_nothing_of_what_it_is() -> None:
    outcome = _played(calls.SEND[Operation.RESOLVE](_sending(Operation.RESOLVE)), TAKEN)[1]
    assert isinstance(outcome, Pending)
    assert outcome.seen["receipt"]["seen"] == {}
    seen = _with_receipt(step="close", seen={})
    ended = _played(calls.SEND[Operation.RESOLVE](_sending(Operation.RESOLVE, seen=seen)), DONE)[1]
    assert ended == Delivered(ids={"id": ID}, seen={}, altered={})


def test_a_receipt_of_another_step_is_not_asked_about() -> None:
    asked, _ = _played(steps.create(calls.API, _sending(seen=_with_receipt(step="close"))))
    assert asked[0].method == "POST"


@pytest.mark.parametrize("status", [404, 405])
def test_a_write_that_finds_nothing_gets_no_receipt(status: int) -> None:
    """The vendor's own 404 has a request id too, which is not to be asked about."""
    call = calls.SEND[Operation.RESOLVE](_sending(Operation.RESOLVE))
    asked, outcome = _played(call, (status, {"message": "Not found", "requestId": "r1"}))
    assert asked[0].path == "/v2/alerts/disk/close"
    assert outcome == Missing()


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"message": "Key format is not valid!"}, Held("422 Key format is not valid!", status=422)),
        ({"message": "message is too long"}, Rejected(reason="422 message is too long")),
        (b"", Rejected(reason="422")),
    ],
    ids=["the key's form", "content", "nothing"],
)
def test_a_422_is_about_the_content_or_about_the_key(body: Any, outcome: Outcome) -> None:
    asked, ended = _played(steps.create(calls.API, _sending()), (422, body))
    assert 422 in asked[0].accepts
    assert ended == outcome


# --- what is known of an alert once it exists ------------------------------------------------------------------


def _known(shown: tuple[int, Any], said: dict[str, Any] | None = None, api: steps.Api = calls.API) -> Delivered:
    """The end of a create that was confirmed just now and is then shown."""
    kept: dict[str, Any] = {"seen": {"said": said, "more": 1}} if said else {}
    sending = _sending(ids={}, seen=_with_receipt(**kept))
    asked, outcome = _played(steps.create(api, sending), DONE, shown)
    assert (asked[1].path, asked[1].by_the_way) == (f"{api.alerts}/{ID}", True)
    assert isinstance(outcome, Delivered)
    return outcome


@pytest.mark.parametrize(
    ("shown", "ids"),
    [
        ((200, {"data": {"tinyId": "7"}}), {"id": ID, "tiny": "7"}),
        ((200, {"data": {"tinyId": ""}}), {"id": ID}),
        ((200, {"data": {"tinyId": 7}}), {"id": ID}),
        ((200, b"<html>"), {"id": ID}),
        ((403, {"data": {"tinyId": "7"}}), {"id": ID}),
    ],
)
def test_the_short_id_is_what_an_alert_is_shown_with(shown: tuple[int, Any], ids: dict[str, str]) -> None:
    assert _known(shown).ids == ids


def test_an_alert_of_which_no_id_was_told_is_not_looked_at() -> None:
    told = (200, {"data": {"isSuccess": True, "processedAt": "2017-05-24T14:24:20Z"}})
    outcome = _created(_sending(ids={}, seen=_with_receipt()), told)
    assert isinstance(outcome, Delivered)
    assert outcome.ids == {}


def test_an_alert_that_was_not_said_anew_is_known_too() -> None:
    """What learns the id is a close, which says nothing of what the alert is."""
    sending = _sending(Operation.RESOLVE, ids={}, seen=_with_receipt(step="close", seen={}))
    shown = (200, {"data": {"tinyId": "7", "count": 3}})
    outcome = _played(calls.SEND[Operation.RESOLVE](sending), DONE, shown)[1]
    assert outcome == Delivered(ids={"id": ID, "tiny": "7"}, seen={}, altered={})


@pytest.mark.parametrize(("api", "details"), [(calls.API, "details"), (successor.API, "extraProperties")])
def test_a_create_that_only_counted_once_more_said_nothing_new(api: steps.Api, details: str) -> None:
    """Of what it said, that counts as said which the alert has there: also its tags and details."""
    said = steps._said(
        api,
        {"message": "new", "priority": "P1", "description": "new", "tags": ["a", "b"], details: {"x": "1", "y": "2"}},
    )
    old = {
        "message": "old",
        "priority": "P1",
        "tags": ["b", "c"],
        details: {"x": "0", "z": "3"},
    }
    there = steps._said(api, old)
    assert _known((200, {"data": {**old, "count": 1}}), said, api).seen == {"said": said, "more": 1}
    assert _known((200, {"data": {**old, "count": 2}}), said, api).seen == {
        "said": {
            "message": there["message"],
            "description": said["description"],
            "priority": said["priority"],
            "details": {"x": there["details"]["x"]},
            "tags": ["b"],
        },
        "more": 1,
    }


# --- updates ---------------------------------------------------------------------------------------------------


def _written(api: steps.Api, before: dict[str, Any], now: dict[str, Any], **more: Any) -> tuple[list[Any], Delivered]:
    """What an update sends, one write after the other, and its outcome."""
    seen: dict[str, Any] = {"said": steps._said(api, before)} if before else {}
    sent = []
    while True:
        sending = _sending(Operation.UPDATE, body=now, seen=seen, changes=True, **{"patch": now, **more})
        call = steps.update(api, sending)
        asked, outcome = _played(call, DONE, TAKEN) if "receipt" in seen else _played(call, TAKEN)
        sent += [
            (one.method, one.path.partition("/disk")[2] or one.path.partition(ID)[2], one.body, one.query)
            for one in asked
            if one.method != "GET"
        ]
        if not isinstance(outcome, Pending):
            assert isinstance(outcome, Delivered)
            return [(method, word, body if body else None, query) for method, word, body, query in sent], outcome
        seen = {**seen, **outcome.seen}


def test_an_update_sends_what_differs_and_nothing_else() -> None:
    before = {"message": "a", "priority": "P1", "tags": ["x", "y"], "details": {"same": "1", "old": "2", "gone": "3"}}
    now = {"message": "b", "tags": ["y", "z"], "details": {"same": "1", "old": "new"}}
    sent, outcome = _written(calls.API, before, now, verbatim={"user": "jane", "message": "b"})
    named = {"identifierType": "alias"}
    assert [(method, word) for method, word, _, _ in sent] == [
        ("PUT", "/message"),
        ("PUT", "/priority"),
        ("POST", "/tags"),
        ("DELETE", "/tags"),
        ("POST", "/details"),
        ("DELETE", "/details"),
    ]
    assert [body for method, _, body, _ in sent if method != "DELETE"] == [
        {"message": "b"},
        {"priority": "P3"},
        {"tags": ["z"], "user": "jane"},
        {"details": {"old": "new"}, "user": "jane"},
    ]
    assert sent[3][3] == {**named, "tags": "x", "user": "jane"}
    assert sent[5][3] == {**named, "keys": "gone", "user": "jane"}
    assert outcome.altered == {}


def test_a_priority_that_is_still_there_is_no_default() -> None:
    sent, _ = _written(calls.API, {"priority": "P1"}, {"priority": "P2"})
    assert [body for _, _, body, _ in sent] == [{"priority": "P2"}]


def test_a_repeat_is_a_create_with_its_own_note() -> None:
    """The note of the first create is there already; what the alert says there stays as it was."""
    body = {"message": "a", "note": "first", "user": "jane"}
    kept = {"said": steps._said(calls.API, {"message": "as it was"})}
    for more, sent in (({}, {}), ({"verbatim": {"note": "again", "message": "a"}}, {"note": "again"})):
        sending = _sending(Operation.UPDATE, body=body, seen=kept, **more)
        [request, *_], outcome = _played(steps.update(calls.API, sending), TAKEN)
        assert request.body == {"message": "a", "alias": "disk", **sent}
        assert isinstance(outcome, Pending)
        assert outcome.seen["receipt"]["seen"] == kept
    _, outcome = _played(steps.update(calls.API, _sending(Operation.UPDATE, body=body)), TAKEN)
    assert isinstance(outcome, Pending)
    assert outcome.seen["receipt"]["seen"] == {"said": steps._said(calls.API, body)}


def test_a_change_that_is_none_there_is_a_repeat_too() -> None:
    body = {"message": "a"}
    sending = _sending(Operation.UPDATE, body=body, changes=True, seen={"said": steps._said(calls.API, body)})
    [request, *_], _ = _played(steps.update(calls.API, sending))
    assert (request.method, request.path) == ("POST", "/v2/alerts")


def test_a_change_that_cannot_be_made_repeats_nothing() -> None:
    """Nothing is left to be sent, so nobody is paged once more."""
    sent, outcome = _written(successor.API, {"message": "a", "tags": ["x"]}, {"message": "a"})
    assert (sent, list(outcome.altered)) == ([], [TAGS])


@pytest.mark.parametrize(
    ("more", "is_asked"),
    [
        ({"body": {"message": "b"}, "changes": True}, True),
        ({"body": {"message": "a"}, "changes": True}, False),
        ({"body": {"message": "b"}}, False),
        ({"body": {"message": "b"}, "changes": True, "receipt": True}, False),
    ],
    ids=["a change", "no change", "a repeat", "under way"],
)
def test_only_before_a_change_the_successor_is_asked_whether_the_alert_is_open(
    more: dict[str, Any], is_asked: bool
) -> None:
    """One that people closed can still be changed there, and nobody would notice."""
    given = dict(more)
    seen = {"said": steps._said(successor.API, {"message": "a"})}
    seen |= _with_receipt(step="message") if given.pop("receipt", False) else {}
    asked, _ = _played(successor.update(_sending(Operation.UPDATE, seen=seen, **given)))
    assert ((asked[0].method, asked[0].path) == ("GET", f"/alerts/{ID}")) is is_asked


def test_words_about_an_alert_that_is_not_known_here_are_passed_on() -> None:
    """Nothing is known of what it says there, so nothing is compared, and nothing else is said."""
    said = {"message": "b", "tags": ["x"], "details": {"k": "v"}, "user": "jane"}

    def sent(verbatim: dict[str, Any] | None, *answers: Any) -> Any:
        sending = _sending(Operation.UPDATE, ids={}, verbatim=verbatim, changes=True)
        return _played(steps.update(calls.API, sending), *answers)

    for name, method, path, body in (
        ("message", "PUT", "/message", {"message": "b"}),
        ("tags", "POST", "/tags", {"tags": ["x"], "user": "jane"}),
        ("details", "POST", "/details", {"details": {"k": "v"}, "user": "jane"}),
    ):
        [request, *_], _ = sent({name: said[name], "user": "jane"})
        assert (request.method, request.path, request.body) == (method, f"/v2/alerts/disk{path}", body)
    [first, second, *_], _ = sent(said, (200, {"result": "done"}))
    assert (first.path, second.path) == ("/v2/alerts/disk/message", "/v2/alerts/disk/tags")
    assert sent({"message": "b"}, (200, {"result": "done"}))[1] == Delivered(ids={}, seen={}, altered={})


def test_without_a_record_of_what_was_said_a_field_goes_out_if_it_was_changed() -> None:
    now = {"message": "b", "description": "c", "tags": ["x"]}
    sent, _ = _written(calls.API, {}, now, patch={"message": "b"})
    assert [word for _, word, _, _ in sent] == ["/message", "/tags"]


@pytest.mark.parametrize("name", ["a,b", "  ", ""])
def test_an_entry_that_no_list_of_names_can_name_stays(name: str) -> None:
    sent, outcome = _written(calls.API, {"message": "a", "tags": [name, "x"]}, {"message": "a", "tags": []})
    assert [(method, query["tags"]) for method, _, _, query in sent] == [("DELETE", "x")]
    assert list(outcome.altered) == [TAGS]
    sent, outcome = _written(calls.API, {"message": "a", "details": {name: "1"}}, {"message": "b", "details": {}})
    assert [word for _, word, _, _ in sent] == ["/message"]
    assert list(outcome.altered) == ["custom"]


def test_the_successor_cannot_take_away_tags_and_details() -> None:
    before = {"message": "a", "tags": ["x"], "extraProperties": {"k": "1"}}
    sent, outcome = _written(successor.API, before, {"message": "b", "tags": [], "extraProperties": {}})
    assert [(method, word) for method, word, _, _ in sent] == [("PATCH", "/message")]
    assert set(outcome.altered) == {TAGS, "custom"}


def test_what_no_call_changes_is_said_once() -> None:
    """Beside a change that can be told, and where it is all that changed; what was said at first is still so there."""
    before = {"message": "a", "entity": "db-1", "source": "here"}
    now = {"message": "b", "entity": "db-2", "source": "here"}
    sent, outcome = _written(calls.API, before, now)
    assert [word for _, word, _, _ in sent] == ["/message"]
    assert outcome.altered == {"resource": steps.STAYS}
    said = steps._said(calls.API, before)
    assert outcome.seen["said"] == {**said, **steps._said(calls.API, {"message": "b"})}


# --- what people do --------------------------------------------------------------------------------------------


def test_a_callers_own_action_is_an_action_only_with_what_it_needs() -> None:
    """A custom action without a name, or what the API has no call for, becomes a note."""

    def sent(said: dict[str, Any]) -> tuple[str, Any]:
        sending = _sending(Operation.COMMENT, verbatim=said, comment="Done: it")
        [request, *_], _ = _played(steps.comment(calls.API, sending))
        return request.path.removeprefix("/v2/alerts/disk"), request.body

    assert sent({"action": "actions", "name": "re start", "user": "jane"}) == ("/actions/re%20start", {"user": "jane"})
    assert sent({"action": "actions", "user": "jane"}) == ("/notes", {"user": "jane", "note": "Done: it"})
    assert sent({"action": "snooze", "endTime": "x"}) == ("/snooze", {"endTime": "x"})
    assert sent({"action": "escalate", "name": "x"}) == ("/notes", {"note": "Done: it"})
    assert sent({"action": "escalate", "escalation": {"id": "e"}}) == ("/escalate", {"escalation": {"id": "e"}})
    assert sent({"note": "seen"}) == ("/notes", {"note": "Done: it"})


def test_a_comment_in_no_words_of_the_vendor_s_is_a_note() -> None:
    for more, note in (({"comment": "It is bad"}, "It is bad"), ({"verbatim": {"note": "seen"}}, "seen"), ({}, "")):
        [request, *_], _ = _played(steps.comment(calls.API, _sending(Operation.COMMENT, **more)))
        assert (request.method, request.path) == ("POST", "/v2/alerts/disk/notes")
        assert request.body["note"] == note


def test_a_long_note_is_cut_and_that_is_said() -> None:
    longest = "x" * LONGEST_NOTE
    for text, is_cut in ((longest, False), (longest + "x", True)):
        for operation, step in ((Operation.COMMENT, "notes"), (Operation.ACKNOWLEDGE, "acknowledge")):
            sending = _sending(operation, comment=text)
            [request, *_], _ = _played(calls.SEND[operation](sending))
            note = request.body["note"]
            assert len(note) == LONGEST_NOTE
            assert note.endswith("x") is not is_cut
            seen = _with_receipt(step=step, seen={})
            ended = _played(calls.SEND[operation](_sending(operation, comment=text, seen=seen)), DONE)[1]
            assert isinstance(ended, Delivered)
            assert list(ended.altered) == (["comment"] if is_cut else [])


@pytest.mark.parametrize(
    ("operation", "more", "word", "body", "about"),
    [
        (Operation.DELETE, {"verbatim": {"user": "jane"}}, "close", {"user": "jane"}, "status"),
        (
            Operation.COMMENT,
            {"verbatim": {"action": "snooze", "endTime": "x", "user": "jane"}, "comment": "Done: it"},
            "notes",
            {"user": "jane", "note": "Done: it"},
            "comment",
        ),
    ],
    ids=["a delete", "an action"],
)
def test_what_there_is_no_call_for_is_the_nearest_thing(
    operation: Operation, more: dict[str, Any], word: str, body: Any, about: str
) -> None:
    call = calls.SEND[operation]
    [_, request, *_], outcome = _played(call(_sending(operation, **more)), (405, b""), TAKEN)
    assert (request.method, request.path, request.body) == ("POST", f"/v2/alerts/disk/{word}", body)
    assert isinstance(outcome, Pending)
    # The receipt is the second call's: the first is not made again.
    [asked, *_], ended = _played(call(_sending(operation, seen=outcome.seen, **more)), DONE)
    assert asked.path == "/v2/alerts/requests/r1"
    assert isinstance(ended, Delivered)
    assert list(ended.altered) == [about]
    _, refused = _played(call(_sending(operation, **more)), (422, {"message": "no"}))
    assert refused == Rejected(reason="422 no")


def test_a_callers_own_note_is_not_told_twice() -> None:
    sending = _sending(Operation.RESOLVE, verbatim={"note": "over", "source": "cli"}, comment="over")
    [request, *_], _ = _played(calls.SEND[Operation.RESOLVE](sending))
    assert (request.method, request.body) == ("POST", {"note": "over", "source": "cli"})
    [request, *_], _ = _played(calls.SEND[Operation.RESOLVE](_sending(Operation.RESOLVE)))
    assert request.body == {}


def test_only_where_the_api_takes_notes_a_close_has_one() -> None:
    for operations, note in ((calls.SEND, {"note": "It is over"}), (successor.SEND, None)):
        sending = _sending(Operation.RESOLVE, comment="It is over")
        [request, *_], _ = _played(operations[Operation.RESOLVE](sending))
        assert (request.body or None) == note


# --- the successor's alerts, which are addressed by id ---------------------------------------------------------


def _shown(**more: Any) -> dict[str, Any]:
    return {"id": ID, "alias": "disk", "status": "open", **more}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"values": [_shown()]}, ID),
        ({"values": ["x", _shown(id=7), _shown(alias="disk-2"), _shown(status="closed"), _shown(id="last")]}, "last"),
        ({"values": [_shown(status="closed")]}, Missing()),
        ({"values": []}, Missing()),
        ({"values": None}, None),
        (b"<html>", None),
    ],
)
def test_an_alert_without_an_id_is_looked_up_by_its_alias(answer: Any, found: Any) -> None:
    call = successor.SEND[Operation.RESOLVE](_sending(Operation.RESOLVE, ids={}))
    asked, outcome = _played(call, (200, answer))
    query = {"query": 'alias:"disk"', "sort": "createdAt", "order": "desc", "size": "100"}
    assert (asked[0].method, asked[0].path, asked[0].query, asked[0].is_list) == ("GET", "/alerts", query, True)
    if isinstance(found, str):
        assert asked[1].path == f"/alerts/{found}/close"
        assert asked[1].accepts == {404, 422}
    elif found is None:
        assert isinstance(outcome, Again)
    else:
        assert outcome == found


def test_an_alias_is_quoted_where_it_is_looked_up() -> None:
    asked, _ = _played(successor.SEND[Operation.RESOLVE](_sending(Operation.RESOLVE, ids={}, key='a"\\b')))
    assert asked[0].query["query"] == 'alias:"a\\"\\\\b"'


@pytest.mark.parametrize(
    ("answer", "is_over"),
    [
        ((404, {"message": "no"}), True),
        ((200, _shown(status="closed")), True),
        ((200, _shown()), False),
        ((200, b"<html>"), False),
    ],
)
def test_a_close_that_fails_is_none_if_the_alert_is_over(answer: tuple[int, Any], is_over: bool) -> None:
    failed = (200, {"isSuccess": False, "processedAt": "2017-05-24T14:24:20Z", "status": "no"})
    call = successor.close(_sending(Operation.RESOLVE, seen=_with_receipt(step="close")))
    asked, outcome = _played(call, failed, answer)
    assert (asked[1].method, asked[1].path, asked[1].accepts) == ("GET", f"/alerts/{ID}", {404})
    assert outcome == (Missing() if is_over else Rejected(reason="failed: no"))
    unknown = successor.close(_sending(Operation.RESOLVE, ids={}, key=None, seen=_with_receipt(step="close")))
    assert _played(unknown, failed)[1] == Rejected(reason="failed: no")


def test_what_is_there_is_found_with_what_finds_it_again() -> None:
    def read(answer: tuple[int, Any]) -> Any:
        return _played(successor.read_one(_sending()), answer)[1]

    [found] = read((200, _shown(tinyId="7", message="Disk full"))).alerts
    assert (found.id, found.ids, found.flat["summary"]) == (ID, {"tiny": "7", "alias": "disk"}, "Disk full")
    for more in ({"status": "closed"}, {"alias": ""}, {"alias": 7}):
        [found] = read((200, _shown(**more))).alerts
        assert found.ids == {}
    assert read((404, {"message": "no"})) == Missing()
    assert read((200, b"<html>")) == read((200, {"status": "open"})) == Found(())


def test_many_are_read_newest_first_or_the_open_one_of_an_alias() -> None:
    asked, outcome = _played(successor.read_many(_sending(key=None)), (200, {"values": [_shown(), _shown(id=7)]}))
    assert asked[0].query == {"sort": "createdAt", "order": "desc", "size": "100"}
    assert isinstance(outcome, Found)
    assert [one.id for one in outcome.alerts] == [ID]
    assert isinstance(_played(successor.read_many(_sending(key=None)), (200, []))[1], Again)

    def of_alias(*answers: tuple[int, Any]) -> tuple[list[Any], Any]:
        return _played(successor.read_many(_sending(ids={})), *answers)

    asked, outcome = of_alias((200, {"values": [_shown()]}), (200, _shown()))
    assert asked[1].path == f"/alerts/{ID}"
    assert [one.id for one in outcome.alerts] == [ID]
    assert of_alias((200, {"values": []}))[1] == Found(())
    assert of_alias((200, {"values": [_shown()]}), (404, {}))[1] == Found(())
    assert isinstance(of_alias((200, b"<html>"))[1], Again)
