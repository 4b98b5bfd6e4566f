"""Opsgenie's callers, as real senders write (Alertmanager, Grafana, the Node SDK): queries, limits, and how a record is
read back. https://docs.opsgenie.com/docs/alert-api"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from gateway.canonical import Operation
from gateway.mapping.rows import Writing
from gateway.outcome import Sending
from mappings.opsgenie.alert import ALERT, CUT, MOST_DETAILS, fitted_details, fitted_key
from mappings.opsgenie.calls import SEND
from tests.clients.callers import OTHER, called, fresh, opsgenie_alert
from tests.engine.asking_opsgenie import ALERTS, PING, about, create, read
from tests.engine.pairs import Houses
from tests.engine.vendors import settled
from tests.harness import KEY, House

NAMELESS = "id or name should be provided"


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it."""
    return fronts("ilert")


def _event(h: House, details: dict[str, str]) -> None:
    """Sends an event of PagerDuty's, whose details replace those of the one before."""
    payload = {"summary": "Disk full", "source": "db-1", "severity": "error", "custom_details": details}
    event = {"routing_key": KEY, "event_action": "trigger", "dedup_key": "disk", "payload": payload}
    assert h.call("POST", "/pagerduty/v2/enqueue", event, key=None).status == 202


# --- senders ---------------------------------------------------------------------------------------------------


def test_as_alertmanager_sends(h: House) -> None:
    """The alias is the hash of the group and the details are the common labels; a resolve is a close by alias with a
    source; with `update_alerts` message and description follow the create."""
    alias, mark = "5f3c" * 16, len(h.arrived("ilert"))
    labels = {"alertname": "DiskFull", "instance": "db-1"}
    body = {"alias": alias, "message": "[FIRING:1] DiskFull", "details": labels, "source": "http://am:9093", "tags": []}
    assert h.call("POST", ALERTS, body, headers={"authorization": f"GenieKey {KEY}"}).status == 202
    assert about(h, "PUT", alias, "/message", {"message": "[FIRING:2] DiskFull"}).status == 202
    assert about(h, "PUT", alias, "/description", {"description": "two of them"}).status == 202
    assert read(h, alias)["details"] == labels
    assert about(h, "POST", alias, "/close", {"source": "http://am:9093"}).status == 202
    first, *_, last = h.wait_for(lambda: len(found := h.arrived("ilert")[mark:]) >= 3 and found)
    assert first.body["customDetails"]["instance"] == "db-1"
    h.wait_for(lambda: h.arrived("ilert")[-1].body["eventType"] == "RESOLVE")
    assert {one.body["alertKey"] for one in (first, last)} == {alias}


@pytest.mark.parametrize("said", [f":{KEY}", f"{KEY}:"])
def test_a_key_as_the_password_of_nobody(h: House, said: str) -> None:
    """Alertmanager has no scheme of its own to be set: its heartbeats to Opsgenie, https://docs.opsgenie.com/docs/heartbeat-api,
    are commonly a webhook with `basic_auth: {password: <key>}`."""
    packed = base64.b64encode(said.encode()).decode()
    basic = {"authorization": f"Basic {packed}"}
    assert h.call("POST", ALERTS, opsgenie_alert(fresh()), headers=basic).status == 202
    assert h.call("POST", PING, {"version": "4", "alerts": []}, headers=basic).status == 404, "ilert stands behind"
    for wrong in ("Basic %", "Basic", f"Basic {base64.b64encode(b':wrong').decode()}"):
        assert h.call("GET", ALERTS, headers={"authorization": wrong}).status == 401


def test_a_key_in_the_query(h: House) -> None:
    """As webhooks are set up whose users can give an address and nothing else, New Relic's for one."""
    assert h.call("POST", f"{ALERTS}?apiKey={KEY}", opsgenie_alert(fresh()), key=None).status == 202
    assert h.call("POST", f"{ALERTS}?apiKey=wrong", opsgenie_alert(fresh()), key=None).status == 401
    assert h.call("POST", f"{ALERTS}?apiKey={OTHER}", opsgenie_alert(fresh())).status == 422, "two that differ"
    assert KEY not in h.call("GET", f"{ALERTS}?apiKey={KEY}&limit=1", key=None).body["paging"]["first"]


def test_as_the_node_sdk_writes_paths(h: House) -> None:
    """Paths may end in a slash, also before the query."""
    alias = fresh("node").replace(" ", "-")
    assert h.call("POST", f"{ALERTS}/", opsgenie_alert("Disk full", alias=alias)).status == 202
    assert h.call("POST", f"{ALERTS}/{alias}/close/?identifierType=alias").status == 202
    assert about(h, "GET", alias).status == 404


@pytest.mark.parametrize("below", ["", "/opsgenie"])
def test_callers_of_jiras_integration_events_change_their_host_alone(h: House, below: str) -> None:
    """https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-integration-events/: create, the
    state of a request, acknowledge, close and add note are served under the same paths, with the key of an integration.
    That page calls the free-form texts `extraProperties`; senders that moved there from Opsgenie call them
    `details`."""
    base, alias, genie = f"{below}/jsm/ops/integration/v2/alerts", fresh("alias"), {"authorization": f"GenieKey {KEY}"}

    def does(rest: str, body: Any) -> None:
        sent = h.call("POST", f"{base}{rest}", body, headers=genie)
        assert (sent.status, sent.body["result"]) == (202, "Request will be processed"), sent.body
        became = h.call("GET", f"{base}/requests/{sent.body['requestId']}", headers=genie).body["data"]
        assert (became["isSuccess"], became["alias"]) == (True, alias)

    said = {"message": "Disk full", "extraProperties": {"region": "eu", "disk": "sda"}, "details": {"disk": "sdb"}}
    does("", {**said, "alias": alias})
    for word, body in (("acknowledge", None), ("notes", {"note": "looking"}), ("close", {"source": "http://am:9093"})):
        does(f"/{quote(alias)}/{word}?identifierType=alias", body)
    events = h.wait_for(
        lambda: (
            len(found := [one.body for one in h.arrived("ilert") if one.body.get("alertKey") == alias]) >= 4 and found
        )
    )
    assert [one["eventType"] for one in events] == ["ALERT", "ACCEPT", "COMMENT", "RESOLVE"]
    assert {name: events[0]["customDetails"][name] for name in ("region", "disk")} == {"region": "eu", "disk": "sdb"}
    assert about(h, "GET", alias).status == 404  # it is closed, and an alias means an open alert


def test_a_team_that_nobody_filled_in_costs_no_alert(h: House) -> None:
    """Zabbix's media type sends a team with an empty name where its `opsgenie_teams` is left empty, as shipped; the
    address that it has to be given ends in a slash."""
    alias, wanted = fresh("alias"), [{"type": "team", "name": "NOC"}]
    said = opsgenie_alert("Problem: disk is full", alias=alias, tags=["scope:capacity", ""])
    for teams in ("", "NOC,"):
        responders = [{"type": "team", "name": team} for team in teams.split(",")]
        sent = h.call("POST", f"{ALERTS}/", {**said, "responders": responders})
        assert sent.status == 202, sent.body
        found = [{name: one[name] for name in ("type", "name")} for one in read(h, alias)["responders"]]
        assert found == (wanted if teams else [])
        assert about(h, "POST", alias, "/close", {"user": "", "note": "over"}).status == 202


def test_teams_of_older_clients_are_shown_with_an_id_and_found(h: House) -> None:
    """`opsgenie-swagger`, which the vendor generated, creates with `teams` and cannot read an alert, or a list with
    one, in which a team has no id."""
    create(h, teams=["NOC"])
    alias = create(h, teams=[{"name": "NOC"}, {"id": "4513b7ea"}])
    wanted = [{"id": "NOC", "type": "team", "name": "NOC"}, {"id": "4513b7ea"}]
    assert read(h, alias)["teams"] == wanted
    query = quote(f'alias: "{alias}" AND teams: NOC')
    [listed] = h.call("GET", f"{ALERTS}?query={query}").body["data"]
    assert listed["teams"] == wanted


def test_numbers_among_the_details_are_texts(h: House) -> None:
    """Details are texts; another value is turned into text rather than refused, so that no page is lost."""
    alias = create(h, details={"free": 3, "is_full": True, "disks": ["a"], "name": "x"})
    assert read(h, alias)["details"] == {"free": "3", "is_full": "true", "disks": '["a"]', "name": "x"}


def test_without_an_alias_one_is_made_up(h: House) -> None:
    sent = h.call("POST", ALERTS, {"message": "Disk full"})
    found = h.call("GET", f"{ALERTS}/requests/{sent.body['requestId']}").body["data"]
    assert len(found["alias"]) == 32
    assert read(h, found["alias"])["id"] == found["alertId"]


def test_a_note_of_a_create_is_one_of_the_alerts_notes(h: House) -> None:
    """`note`, "additional note that will be added while creating the alert", is added by each repeat too.
    https://docs.opsgenie.com/docs/alert-api#create-alert"""
    alias = create(h, note="as it began")
    assert create(h, alias=alias, note="and again") == alias
    assert create(h, alias=alias) == alias
    notes = about(h, "GET", alias, "/notes").body["data"]
    assert [one["note"] for one in notes] == ["and again", "as it began"]


@pytest.mark.parametrize("repeats", [0, 1])
def test_a_sender_that_only_keeps_receipts_closes_what_it_created(h: House, repeats: int) -> None:
    """Apprise names an alert by the `requestId` of its last create, as `id`, and closes it on `success`."""
    alert = {"message": "Disk full", "alias": fresh("alias"), "source": "Apprise Notifications"}
    *_, created = [h.call("POST", ALERTS, alert).body["requestId"] for _ in range(1 + repeats)]
    noted = h.call("POST", f"{ALERTS}/{created}/notes?identifierType=id", {"note": "still so"})
    closed = h.call("POST", f"{ALERTS}/{created}/close?identifierType=id", {"note": "over"})
    for sent, status in ((noted, "Note is added"), (closed, "Closed alert")):
        found = h.call("GET", f"{ALERTS}/requests/{sent.body['requestId']}").body["data"]
        assert (found["isSuccess"], found["status"]) == (True, status)
    shown = h.call("GET", f"{ALERTS}/{created}").body["data"]
    assert (shown["message"], shown["status"]) == ("Disk full", "closed")
    assert h.call("GET", f"{ALERTS}/{created}", key=OTHER).status == 404
    assert h.wait_for(lambda: _told(h, shown["alias"])[-1:] == ["RESOLVE"])
    assert _told(h, shown["alias"])[0] == "ALERT"


def _told(h: House, key: str) -> list[str]:
    """The events that ilert received about an alert."""
    return [one.body["eventType"] for one in h.arrived("ilert") if one.body.get("alertKey") == key]


def test_only_its_own_caller_finds_an_alert_or_a_request(h: House) -> None:
    alias = create(h)
    shown = read(h, alias)
    sent = about(h, "POST", alias, "/acknowledge")
    for path in (shown["id"], shown["tinyId"], f"{alias}?identifierType=alias", f"requests/{sent.body['requestId']}"):
        assert h.call("GET", f"{ALERTS}/{path}", key=OTHER).status == 404
    assert h.call("GET", ALERTS, key=OTHER).body["data"] == []


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/x-www-form-urlencoded", b"message=Disk+full", 415),
        ("application/json", b"message=Disk+full", 400),
        ("application/vnd.api+json; charset=utf-8", b"message=Disk+full", 400),
        ("application/x-www-form-urlencoded", b'{"message": "Disk full"}', 202),
    ],
)
def test_what_is_no_json_is_refused_by_its_type_where_that_says_so(
    h: House, kind: str, content: bytes, status: int
) -> None:
    """400 is for malformed JSON only; JSON is accepted under any content type, as curl declares it a form."""
    headers = {"authorization": f"GenieKey {KEY}", "content-type": kind}
    answer = h.client.post(h.url + ALERTS, content=content, headers=headers)
    assert (answer.status_code, set(answer.json()) >= {"took", "requestId"}) == (status, True), answer.text


@pytest.mark.parametrize(
    ("rest", "body", "action", "first", "again"),
    [
        ("", opsgenie_alert("Disk full"), "Create", "Created alert", "Incremented alert count"),
        ("/acknowledge", {}, "Acknowledge", "Acknowledged alert", "Acknowledged alert"),
    ],
)
def test_what_became_of_a_request_is_said_in_the_words_of_what_was_asked(
    h: House, rest: str, body: dict[str, Any], action: str, first: str, again: str
) -> None:
    """A create with the alias of an open alert is reported as a counted create, not as an update."""
    alias = fresh("alias") if not rest else create(h)
    for said in (first, again):
        path = f"{ALERTS}/{alias}{rest}?identifierType=alias" if rest else ALERTS
        sent = h.call("POST", path, {**body, **({} if rest else {"alias": alias})})
        found = h.call("GET", f"{ALERTS}/requests/{sent.body['requestId']}").body["data"]
        assert (found["action"], found["status"], found["isSuccess"]) == (action, said, True)


@pytest.mark.parametrize(
    ("path", "body", "field", "said"),
    [
        ("", {"message": " \n"}, "message", "is required"),
        ("", {"message": "Disk full", "responders": [{"type": "team"}]}, "responders[0]", NAMELESS),
        (
            "",
            {"message": "Disk full", "visibleTo": [{"type": "user", "username": "a"}, {"type": "team"}]},
            "visibleTo[1]",
            NAMELESS,
        ),
        ("/x/notes", {"note": " "}, "note", "is required"),
        ("/x/responders", {"responder": {"type": "team"}}, "responder", NAMELESS),
    ],
)
def test_what_nobody_could_read_or_call_is_refused(h: House, path: str, body: Any, field: str, said: str) -> None:
    """What the vendor would reject is refused at once rather than becoming a dead letter; see
    prometheus/alertmanager#1223."""
    refused = h.call("POST", ALERTS + path, body)
    assert (refused.status, refused.body["errors"]) == (422, {field: said})


def test_a_blank_message_replaces_none(h: House) -> None:
    alias = create(h)
    assert about(h, "PUT", alias, "/message", {"message": "  "}).status == 422
    assert read(h, alias)["message"] == "Disk full"


def test_a_closed_alert_is_not_snoozed(h: House) -> None:
    alias = create(h)
    name = read(h, alias)["id"]
    about(h, "POST", alias, "/close")
    assert h.call("POST", f"{ALERTS}/{name}/snooze", {"endTime": "2999-01-01T00:00:00Z"}).status == 202
    found = h.call("GET", f"{ALERTS}/{name}").body["data"]
    assert (found["status"], found["snoozed"]) == ("closed", False)


# --- what only the record holds --------------------------------------------------------------------------------


def test_what_nobody_else_can_be_told_is_kept_and_reported(tmp_path: Path) -> None:
    """A snooze in front of a vendor that takes no comments is kept in the record and reported, and nothing is sent."""
    with called(tmp_path, {"there": "ibm_monitoring"}) as there:
        alias = create(there, fresh("Disk full"))
        there.arrives("ibm_monitoring", 1)
        sent = about(there, "POST", alias, "/snooze", {"endTime": "2999-01-01T00:00:00Z"})
        assert sent.report == ["there; kept=comment,snoozed_until"]
        assert read(there, alias)["snoozed"] is True
        sent = about(there, "POST", alias, "/responders", {"responder": {"type": "user", "username": "jane"}})
        assert sent.status == 202
        assert len(there.arrived("ibm_monitoring")) == 1


@pytest.mark.parametrize(
    ("method", "rest", "body", "query"),
    [
        ("POST", "/tags", {"tags": ["night"], "note": "seen"}, {}),
        ("POST", "/tags", {"tags": ["disk"], "note": "seen"}, {}),
        ("DELETE", "/tags", None, {"tags": "disk", "note": "seen"}),
        ("POST", "/acknowledge", {"note": "seen"}, {}),
    ],
    ids=["a change", "no change", "a removal", "an acknowledgement again"],
)
def test_a_note_that_goes_with_nothing_else_is_reported(
    tmp_path: Path, method: str, rest: str, body: Any, query: dict[str, str]
) -> None:
    """A note beside a change is kept in the record and reported, whether or not the upstream is told of the change."""
    with called(tmp_path, {"there": "pagerduty"}) as there:
        alias = create(there, tags=["disk"])
        about(there, "POST", alias, "/acknowledge")
        assert "there; kept=comment" in about(there, method, alias, rest, body, **query).report
        assert [one["note"] for one in about(there, "GET", alias, "/notes").body["data"]] == ["seen"]


def test_the_note_of_a_repeat_that_is_only_counted_is_reported(h: House) -> None:
    alias = create(h)
    repeat = opsgenie_alert("Disk full", alias=alias, note="seen")
    assert h.call("POST", ALERTS, repeat).report == ["there; kept=comment"]


def test_a_repeat_is_passed_on_with_its_own_note() -> None:
    """The note of the first create is there already; it was added again with every repeat, in place of the new one."""
    repeat = {"message": "Disk full", "alias": "disk"}
    sending = Sending(
        operation=Operation.UPDATE,
        at=datetime.now(UTC),
        body={**repeat, "user": "jane", "note": "first"},
        patch={},
        key="disk",
        ids={},
        seen={},
        verbatim={**repeat, "note": "second"},
    )
    assert next(SEND[Operation.UPDATE](sending)).body == {**repeat, "note": "second"}


def test_who_removes_tags_or_details_and_why_is_told(tmp_path: Path) -> None:
    """The query of such a call may name both, beside what is removed."""
    with called(tmp_path, {"there": "opsgenie"}) as there:
        alias = create(there, tags=["disk"], details={"host": "db-1"})
        by = {"user": "jane", "source": "script", "note": "moved away"}
        about(there, "DELETE", alias, "/tags", tags="disk", **by)
        about(there, "DELETE", alias, "/details", keys="host", **by)
        told = [parse_qs(one.query) for one in there.arrives("opsgenie", 3)[1:]]
        asked = {"identifierType": ["alias"], **{name: [text] for name, text in by.items()}}
        assert told == [{**asked, "tags": ["disk"]}, {**asked, "keys": ["host"]}]


def test_a_name_that_would_remove_others_is_not_sent(tmp_path: Path) -> None:
    """The names to be removed are one text, separated by commas: one with a comma would remove what it is made of, and
    a blank one alone is refused, with all else that changes."""
    with called(tmp_path, {"there": "opsgenie"}) as there:
        _event(there, {"a,b": "1", "a": "2", " ": "3", "gone": "4"})
        settled(there)
        _event(there, {"a": "2"})
        removed = settled(there, count=2)[-1]
        assert "they cannot be removed" in str(removed.fates)
        [told] = [parse_qs(one.query) for one in there.arrived("opsgenie", "DELETE")]
        assert told == {"identifierType": ["alias"], "keys": ["gone"]}


def test_a_repeat_is_counted_and_nobody_is_paged_again(h: House) -> None:
    """A create of an open alert is counted in the record, and passed on once a minute at most."""
    alias, mark = create(h), len(h.arrived("ilert"))
    for _ in range(5):
        create(h, "other words", alias=alias)
    shown = read(h, alias)
    assert (shown["count"], shown["message"]) == (6, "Disk full")
    events = [one for one in h.arrived("ilert")[mark - 1 :] if one.body["alertKey"] == alias]
    assert len(events) <= 2


def test_a_snooze_ends_by_itself(h: House) -> None:
    alias = create(h)
    about(h, "POST", alias, "/snooze", {"endTime": "2020-01-01T00:00:00+02:00"})
    shown = read(h, alias)
    assert (shown["snoozed"], shown["snoozedUntil"]) == (False, "2019-12-31T22:00:00.000Z")


def test_unacknowledging_a_closed_alert_does_not_open_it(h: House) -> None:
    alias = create(h)
    name = read(h, alias)["id"]
    about(h, "POST", alias, "/close")
    assert h.call("POST", f"{ALERTS}/{name}/unacknowledge").status == 202
    assert h.call("GET", f"{ALERTS}/{name}").body["data"]["status"] == "closed"


REFUSED = [
    ("POST", "", {"alias": "x"}, "message"),
    ("POST", "", {"message": ""}, "message"),
    ("POST", "", {"message": "x", "priority": "P6"}, "priority"),
    ("POST", "", {"message": "x", "tags": "a"}, "tags"),
    ("POST", "/a/notes", {}, "note"),
    ("POST", "/a/snooze", {"endTime": "soon"}, "endTime"),
    ("POST", "/a/assign", {"owner": {}}, "owner"),
    ("POST", "/a/responders", {"responder": {"type": "team"}}, "responder"),
    ("POST", "/a/tags", {"tags": []}, "tags"),
    ("DELETE", "/a/tags", None, "tags"),
    ("DELETE", "/a/details", None, "keys"),
    ("PUT", "/a/priority", {"priority": "high"}, "priority"),
    ("GET", "?limit=0", None, "limit"),
    ("GET", "?sort=colour", None, "sort"),
    ("GET", "?query=status:open)", None, "query"),
    ("GET", "/a?identifierType=name", None, "identifierType"),
]


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "body", "field"), REFUSED)
def test_what_is_wrong_is_named(h: House, method: str, path: str, body: Any, field: str) -> None:
    """Answers 422, with the text under the name of the field."""
    sent = h.call(method, ALERTS + path, body)
    assert (sent.status, list(sent.body["errors"])) == (422, [field]), sent.body


# --- limits ----------------------------------------------------------------------------------------------------


def test_a_long_alias_stays_one_of_a_kind() -> None:
    one, other = fitted_key("a" * 600), fitted_key("a" * 600 + "b")
    assert (len(one), len(other), one != other, fitted_key("a" * 512)) == (512, 512, True, "a" * 512)


@pytest.mark.parametrize(
    "held", [{"a": "x" * 9000, "b": "short"}, {str(n): "y" for n in range(5000)}, {"k" * 9000: ""}]
)
def test_details_within_the_limit(held: dict[str, str]) -> None:
    fitted = fitted_details(held)
    assert sum(len(key) + len(value) for key, value in fitted.items()) <= MOST_DETAILS
    assert fitted_details(fitted) == fitted


def test_the_longest_detail_is_cut_and_marked_and_all_others_stay() -> None:
    held = {"a": "short", "b": "x" * 7000, "c": "y" * 1500}
    fitted = fitted_details(held)
    assert fitted == {**held, "b": fitted["b"]} and fitted["b"].endswith(CUT) and len(fitted["b"]) > 6000
    assert fitted_details({"a": "x" * 9000, "n" * 7990: "y" * 100}) == {"a": CUT, "n" * 7990: "y" * 7 + CUT}


@pytest.mark.parametrize(("field", "most"), [("tags", 20), ("actions", 10)])
def test_so_many_tags_and_actions_and_so_long_ones(field: str, most: int) -> None:
    said = {"message": "m", field: ["x" * 60, *(str(number) for number in range(30))]}
    flat = ALERT.read({**said}).flat
    assert ALERT.write(flat, Writing())[field] == ["x" * 50, *(str(number) for number in range(most - 1))]


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_closed_alert_shows_whether_somebody_had_acknowledged_it(acknowledged: bool) -> None:
    shown = {"message": "m", "status": "closed", "acknowledged": acknowledged}
    written = ALERT.write(ALERT.found(shown), Writing(), side="reply", partial=True)
    assert (written["status"], written["acknowledged"]) == ("closed", acknowledged)


def test_thousands_of_details_are_measured_once() -> None:
    """Fitting details into the limit takes linear time; measuring all of them again for each one cut took seconds in
    the event loop for ten thousand annotations."""
    measured = 0

    class Text(str):
        def __len__(self) -> int:
            nonlocal measured
            measured += 1
            return super().__len__()

    count = 3000
    fitted_details({f"note-{number}": Text(f"a text of its own {number}") for number in range(count)})
    assert measured <= 10 * count


def test_the_page_goes_out_before_what_is_carried(tmp_path: Path) -> None:
    """Details that fill the limit leave no room for the carried object; what is sent is within the limits."""
    with called(tmp_path, {"there": "opsgenie"}) as there:
        event: dict[str, Any] = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "k"}
        event |= {"summary": "s" * 500, "details": "d" * 20_000}
        event |= {"customDetails": {"log": "l" * 7_900}, "labels": {"team": "db"}, "routingKey": "r" * 200}
        assert there.call("POST", "/ilert/api/events", event, key=None).status == 202
        [made] = there.arrives("opsgenie", 1)
        assert (len(made.body["message"]), len(made.body["description"])) == (130, 15_000)
        assert sum(len(key) + len(value) for key, value in made.body["details"].items()) <= MOST_DETAILS
        assert made.body["details"]["log"] == "l" * 7_900
