"""Alertmanager and its webhook as upstreams, call by call: alerts as they are told and renewed, and the silences that
acknowledge them. https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.canonical import Operation
from gateway.outcome import Missing, Response, Sending
from gateway.registry import dialects
from mappings.alertmanager import calls, webhook


def test_a_silence_is_looked_for_by_a_label_that_an_address_can_hold() -> None:
    """Servers answer 431 or 414 to a long address, and the acknowledgement would be a dead letter."""
    labels = {"alertname": "x" * 70_000, "alert_gateway_key": "k" * 70_000, "severity": "critical"}
    sending = Sending(
        operation=Operation.ACKNOWLEDGE,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        body={"labels": labels},
        patch={},
        key="k",
        ids={},
        seen={},
    )
    assert next(calls.acknowledge(sending)).query == {"filter": 'severity="critical"'}


@pytest.mark.parametrize("has_key", [True, False])
def test_a_silence_names_fewer_labels_only_where_the_key_is_among_them(has_key: bool) -> None:
    """Without it another alert may differ in nothing but the label that is left out, and would be kept quiet."""
    labels = {"alertname": "Disk", "log": "x" * 20_000, "severity": "critical"}
    labels |= {"alert_gateway_key": "k"} if has_key else {}
    asked, _ = _through(_sending(Operation.ACKNOWLEDGE, labels, comment="c" * 20_000), (200, []))
    named = {one["name"] for one in asked[1].body["matchers"]}
    assert named == labels.keys() - ({"log"} if has_key else set())
    assert len(msgspec.json.encode(asked[1].body)) < 16 * 1024 or not has_key
    assert asked[1].body["comment"].endswith("c…")
    asked, _ = _through(_sending(Operation.ACKNOWLEDGE, comment="c" * 15_000), (200, []))
    assert asked[1].body["comment"] == "c" * 15_000, "there is room for it"


def test_an_alert_whose_sender_is_ahead_can_be_resolved() -> None:
    """A resolve leaves out a start that lies in the future: a real Alertmanager refuses an alert that ends before it
    begins."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    sending = Sending(
        operation=Operation.RESOLVE,
        at=now,
        body={"labels": {"a": "b"}, "startsAt": "2026-01-01T00:01:00Z"},
        patch={},
        key="k",
        ids={},
        seen={},
    )
    assert next(calls.resolve(sending)).body == [{"labels": {"a": "b"}, "endsAt": "2026-01-01T00:00:00.000Z"}]


def test_an_alert_and_its_silence_outlast_renewals_that_fail() -> None:
    """An outage of some minutes neither ends the alert there nor wakes again who has acknowledged it."""
    at = datetime(2024, 1, 1, tzinfo=UTC)
    said: dict[str, Any] = {"labels": {"alertname": "Disk full"}}
    sending = Sending(
        operation=Operation.ACKNOWLEDGE, at=at, body=said, patch={}, key="disk", ids={}, seen={**said, "silence": "s-1"}
    )
    telling, silencing = calls.tell(sending), calls.acknowledge(sending)
    first: Any = next(telling).body
    silence: Any = next(silencing).body
    with pytest.raises(StopIteration) as told:
        telling.send(Response(200))
    for ends in (first[0]["endsAt"], silence["endsAt"]):
        assert datetime.fromisoformat(ends) - at > 3 * timedelta(seconds=told.value.value.renew)


@pytest.mark.parametrize("name", ["alertmanager_webhook", "grafana"])
def test_a_webhook_tells_since_when_though_the_sender_did_not(name: str) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    said: dict[str, Any] = {"labels": {"alertname": "Disk full"}}
    sending = Sending(operation=Operation.CREATE, at=at, body=said, patch={}, key="disk", ids={}, seen={})
    told: Any = next(dialects()[name].outbound.calls[Operation.CREATE](sending)).body
    assert datetime.fromisoformat(told["alerts"][0]["startsAt"]) == at


AT = datetime(2026, 1, 1, tzinfo=UTC)
DISK = {"alertname": "Disk", "severity": "warning"}
SILENCED = {"silence": "s-1", "silenced_at": "2025-12-31T23:00:00.000Z"}
OURS: dict[str, Any] = {
    "id": "s-1",
    "createdBy": "alert-gateway",
    "startsAt": SILENCED["silenced_at"],
    "status": {"state": "active"},
    "matchers": [{"name": name, "value": value, "isRegex": False} for name, value in DISK.items()],
}
"""A silence of the gateway's as releases before 0.22 show it, without `isEqual`."""


def _sending(operation: Operation, labels: dict[str, str] | None = None, **more: Any) -> Sending:
    given = {"body": {"labels": labels or DISK}, "patch": {}, "key": "k", "ids": {}, "seen": {}, **more}
    return Sending(operation=operation, at=AT, **given)


def _through(sending: Sending, *answers: Any) -> tuple[list[Any], Any]:
    """The requests of a call, which is sent these answers and then nothing but successes, and how it ends."""
    call, asked, left = calls.SEND[sending.operation](sending), [], list(answers)
    try:
        request = next(call)
        while True:
            asked.append(request)
            status, body = left.pop(0) if left else (200, {})
            request = call.send(Response(status, content=msgspec.json.encode(body)))
    except StopIteration as ended:
        return asked, ended.value


def _as_steps(asked: list[Any]) -> list[str]:
    """The requests in a word each."""
    words = {("POST", calls.ALERTS): "tell", ("GET", calls.SILENCES): "look", ("POST", calls.SILENCES): "silence"}
    return [words.get((one.method, one.path), one.method.lower()) for one in asked]


def test_labels_that_change_travel_as_annotations_unless_their_sender_wrote_such() -> None:
    held = {**DISK, "in_stance": "a"}
    said = {"labels": {**DISK, "severity": "critical", "in-stance": "a", "team": "db"}, "endsAt": "2026"}
    told, altered = calls.under(held, said)
    assert told == {"labels": held, "annotations": {"severity": "critical", "team": "db"}}
    assert altered.keys() == {"severity", "labels"}
    told, altered = calls.under(held, {**said, "annotations": {"severity": "S1", "team": "us"}})
    assert (told["annotations"], altered) == ({"severity": "S1", "team": "us"}, {})


@pytest.mark.parametrize(
    ("said", "is_akin", "count"), [('invalid name "a.b"', False, 2), ('invalid name "a.b"', True, 1), ("odd", False, 1)]
)
def test_an_alert_is_posted_under_plain_names_only_where_its_names_are_refused(
    said: str, is_akin: bool, count: int
) -> None:
    sending = _sending(Operation.CREATE, {"alertname": "A", "a.b": "c"}, is_akin=is_akin)
    asked, ended = _through(sending, (400, said))
    assert len(asked) == count
    if count == 2:
        assert asked[1].body[0]["labels"] == ended.seen["labels"] == {"alertname": "A", "a_b": "c"}
        assert "labels" in ended.altered
    else:
        assert ended.reason == f"400 {said}"


def test_a_silence_goes_on_with_the_updates_of_its_alert() -> None:
    asked, ended = _through(_sending(Operation.UPDATE, seen={"labels": DISK, **SILENCED}), (200, {}), (200, OURS))
    assert _as_steps(asked) == ["tell", "silence"]
    assert (asked[1].body["id"], asked[1].body["startsAt"]) == ("s-1", SILENCED["silenced_at"])
    assert ended.seen == {"labels": DISK, "ended": False, **SILENCED}
    asked, _ = _through(_sending(Operation.CREATE, seen={"labels": DISK, **SILENCED}))
    assert _as_steps(asked) == ["tell"], "a new alert is not silenced"


@pytest.mark.parametrize(
    ("there", "is_known"),
    [
        (OURS, True),
        ({**OURS, "createdBy": "ann"}, False),
        ({**OURS, "status": {"state": "expired"}}, False),
        ({**OURS, "status": "active"}, False),
        ({**OURS, "matchers": OURS["matchers"][:1]}, False),
        ({**OURS, "matchers": {"alertname": "Disk", "severity": "warning"}}, False),
        ({**OURS, "matchers": [{**one, "isRegex": True} for one in OURS["matchers"]]}, False),
        ({**OURS, "matchers": [{**one, "isEqual": False} for one in OURS["matchers"]]}, False),
    ],
)
def test_a_silence_whose_answer_was_lost_is_prolonged_and_nobody_else_s(there: dict[str, Any], is_known: bool) -> None:
    asked, ended = _through(_sending(Operation.ACKNOWLEDGE), (200, [there]), (200, {"silenceID": "s-1"}))
    assert _as_steps(asked) == ["look", "silence"]
    assert ("id" in asked[1].body) is is_known
    assert ended.seen["silence"] == "s-1"
    assert (ended.seen["silenced_at"] == SILENCED["silenced_at"]) is is_known


@pytest.mark.parametrize("status", [400, 404])
def test_a_silence_that_is_over_or_cannot_be_prolonged_is_made_anew(status: int) -> None:
    """Some releases answer 404 to the id of one that they have forgotten, some 400."""
    sending = _sending(Operation.ACKNOWLEDGE, seen={"labels": DISK, **SILENCED})
    asked, ended = _through(sending, (status, {}), (200, {"silenceID": "s-2"}))
    assert _as_steps(asked) == ["silence", "silence"]
    assert status in asked[0].accepts
    assert "id" not in asked[1].body and not asked[1].accepts
    assert asked[1].body["startsAt"] == ended.seen["silenced_at"] == "2026-01-01T00:00:00.000Z"
    assert ended.seen["silence"] == "s-2"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_where_silences_cannot_be_read_a_new_one_is_made(status: int) -> None:
    """A proxy may let through what is posted alone. What it says of that is no list, whatever it looks like."""
    asked, ended = _through(_sending(Operation.ACKNOWLEDGE), (status, [OURS]), (200, {"silenceID": "s-2"}))
    assert _as_steps(asked) == ["look", "silence"]
    assert status in asked[0].accepts and asked[0].is_list
    assert "id" not in asked[1].body
    assert ended.seen["silence"] == "s-2"


def test_a_silence_whose_start_is_not_known_is_prolonged_from_now_on() -> None:
    asked, ended = _through(_sending(Operation.ACKNOWLEDGE, seen={"labels": DISK, "silence": "s-1"}))
    assert _as_steps(asked) == ["silence"]
    assert asked[0].body["id"] == ended.seen["silence"] == "s-1"
    assert asked[0].body["startsAt"] == ended.seen["silenced_at"] == "2026-01-01T00:00:00.000Z"


def test_a_comment_is_cut_only_where_there_is_no_room_for_it() -> None:
    """Alertmanager refuses a silence of more than 16 KiB."""
    for value, room in (("x", 16_000), ("x" * 7_000, 8_000), ("x" * 16_000, 0)):
        labels, whole = {"alertname": "Disk", "log": value}, []
        for length in sorted({10, 1_024, 1_025, *range(max(room - 1_000, 10), room + 1_000, 40)}):
            asked, _ = _through(_sending(Operation.ACKNOWLEDGE, labels, comment="c" * length), (200, []))
            comment = asked[1].body["comment"]
            if comment == "c" * length:
                whole.append(length)
            else:
                assert len(comment) == 1_024 and comment == "c" * 1_023 + "…"
            assert len(msgspec.json.encode(asked[1].body)) <= 16 * 1024 or not room
        assert max(whole) == 1_024 if not room else room - 1_000 < max(whole) < room + 960


def test_an_acknowledgement_without_words_has_some_and_an_end_after_which_it_is_over() -> None:
    asked, _ = _through(_sending(Operation.ACKNOWLEDGE), (200, []))
    named = [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in DISK.items()]
    assert asked[1].body == {
        "matchers": named,
        "startsAt": "2026-01-01T00:00:00.000Z",
        "endsAt": "2026-01-01T01:00:00.000Z",
        "createdBy": "alert-gateway",
        "comment": "acknowledged",
    }


@pytest.mark.parametrize("operation", [Operation.ACKNOWLEDGE, Operation.RESOLVE])
def test_what_has_no_labels_is_not_there(operation: Operation) -> None:
    sending = Sending(operation=operation, at=AT, body={}, patch={}, key="k", ids={}, seen={})
    assert _through(sending) == ([], Missing())


def test_a_silence_that_became_another_is_known_by_its_new_name_and_start() -> None:
    sending = _sending(Operation.ACKNOWLEDGE, seen={"labels": DISK, **SILENCED})
    _, ended = _through(sending, (200, {"silenceID": "s-2"}))
    assert (ended.seen["silence"], ended.seen["silenced_at"]) == ("s-2", "2026-01-01T00:00:00.000Z")


def test_a_silence_ends_with_its_alert() -> None:
    asked, ended = _through(_sending(Operation.RESOLVE, seen={"labels": DISK, **SILENCED}))
    assert [(one.method, one.path) for one in asked][1:] == [("DELETE", "/api/v2/silence/s-1")]
    assert asked[1].accepts >= {404, 500}, "it may be over already"
    assert ended.seen == {"ended": True, "silence": None, "silenced_at": None}
    assert _as_steps(_through(_sending(Operation.RESOLVE, seen={"labels": DISK}))[0]) == ["tell"]


@pytest.mark.parametrize(
    ("severity", "seen", "steps", "labelled"),
    [
        ("warning", {}, ["tell"], "warning"),
        ("warning", SILENCED, ["tell", "delete", "tell"], "warning"),
        ("critical", {}, ["tell", "tell"], "critical"),
        ("critical", {"ended": True}, ["tell"], "critical"),
        ("critical", {"ended": True, **SILENCED}, ["tell"], "critical"),
    ],
)
def test_what_comes_back_wakes_as_it_is_now(
    severity: str, seen: dict[str, Any], steps: list[str], labelled: str
) -> None:
    """What is still open under labels of another severity, or silenced, ends first; what is over has ended."""
    asked, ended = _through(_sending(Operation.REOPEN, {**DISK, "severity": severity}, seen={"labels": DISK, **seen}))
    assert _as_steps(asked) == steps
    assert asked[-1].body[0]["labels"]["severity"] == ended.seen["labels"]["severity"] == labelled
    assert (ended.seen["silence"], ended.seen["ended"]) == (None, False)


def test_a_callers_group_is_over_when_it_said_so_or_all_of_it_is_here() -> None:
    """What fires in a group is told before what is over, so that it is known then that the group goes on; unless the
    same labels occur twice, where what was said last counts."""
    off, on = ({"status": word, "labels": {"a": word}} for word in ("resolved", "firing"))
    assert [place for place, _ in webhook._in_turn([off, on])] == [1, 0]
    assert [place for place, _ in webhook._in_turn([off, {**on, "labels": off["labels"]}])] == [0, 1]

    def status(group: str, *, is_over: bool, is_last: bool) -> Any:
        given = {"status": group} if group else {}
        telling = webhook.Telling(is_over, is_last, {"a": "b"}, {"labels": {"a": "b"}}, given, AT)
        said = webhook.told_in_version_4(telling)
        assert said["alerts"][0]["status"] == ("resolved" if is_over else "firing")
        return said["status"]

    assert status("", is_over=False, is_last=True) == status("firing", is_over=False, is_last=True) == "firing"
    assert status("", is_over=True, is_last=False) == status("firing", is_over=True, is_last=True) == "resolved"
    assert status("firing", is_over=True, is_last=False) == "firing", "others of it are open"
    assert status("resolved", is_over=True, is_last=False) == "resolved", "its sender says so"


NEVER = "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("operation", "said", "told"),
    [
        (Operation.CREATE, {}, NEVER),
        (Operation.CREATE, {"endsAt": "2025-12-31T23:59:00Z"}, NEVER),
        (Operation.RESOLVE, {"endsAt": "2025-12-31T23:59:00Z"}, "2025-12-31T23:59:00Z"),
        (Operation.RESOLVE, {"endsAt": NEVER}, "2026-01-01T00:00:00.000Z"),
        (Operation.RESOLVE, {"endsAt": ""}, "2026-01-01T00:00:00.000Z"),
        (Operation.RESOLVE, {}, "2026-01-01T00:00:00.000Z"),
    ],
)
@pytest.mark.parametrize("name", ["alertmanager_webhook", "grafana"])
def test_a_webhook_tells_when_an_alert_ended_and_of_an_open_one_that_it_did_not(
    name: str, operation: Operation, said: dict[str, str], told: str
) -> None:
    """A sender that resolves by hand may repeat the alert as it fired, without an end."""
    verbatim = {"labels": DISK, **said}
    sending = _sending(operation, verbatim=verbatim, seen={"labels": DISK})
    posted: Any = next(dialects()[name].outbound.calls[operation](sending)).body
    assert posted["alerts"][0]["endsAt"] == told
