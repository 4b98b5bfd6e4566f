"""IBM Cloud Monitoring's alerts API as its callers see it, over HTTP, with IBM and with another vendor behind it.

Expectations follow IBM's page "Managing alerts by using the Alerts API" and, where the page is silent or contradicts
itself, what its SDK and its Terraform provider rely on.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.canonical import Operation
from gateway.errors import ProblemKind
from gateway.outcome import Again, Changed, Delivered, Response, Sending
from gateway.registry import dialects
from mappings.ibm_monitoring import calls
from tests.clients.callers import OTHER, behind, called, fresh, ibm_alert
from tests.harness import House, Sent

IBM = "ibm_monitoring"


@pytest.fixture(scope="module", params=[IBM, behind(IBM)])
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with IBM behind it, then with another vendor."""
    with called(tmp_path_factory.mktemp("ibm"), {"there": request.param}) as standing:
        yield standing


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with IBM behind it, for behaviour that does not depend on the upstream."""
    with called(tmp_path_factory.mktemp("one"), {"there": IBM}) as standing:
        yield standing


def _made(h: House, **fields: Any) -> dict[str, Any]:
    sent = h.call("POST", "/api/alerts", ibm_alert(fields.pop("name", None) or fresh(), **fields))
    assert sent.status == 200, sent.body
    alert: dict[str, Any] = sent.body["alert"]
    return alert


def _put(h: House, alert: dict[str, Any], **fields: Any) -> Sent:
    return h.call("PUT", f"/api/alerts/{alert['id']}", {"alert": fields})


def _get(h: House, alert: dict[str, Any]) -> dict[str, Any]:
    sent = h.call("GET", f"/api/alerts/{alert['id']}")
    assert sent.status == 200, sent.body
    found: dict[str, Any] = sent.body["alert"]
    return found


def _is_refused(sent: Sent, status: int, says: str = "") -> None:
    """Asserts a refusal in the service's application error, which its SDK and its Terraform provider both read."""
    assert sent.status == status, sent.body
    [error] = sent.body["errors"]
    assert set(error) == {"reason", "message"}
    assert says in f"{error['message']} {error['reason']}", error
    assert sent.headers["content-type"] == "application/json"


# --- create, get, list, delete -------------------------------------------------------------------------------


def test_create_answers_what_the_page_shows(h: House) -> None:
    """The answer has every field of the page's response sample, with its type; the status is 200, not 201."""
    alert = _made(h, notificationChannelIds=[4], reNotify=False, teamId=493, filter='env in ("prod")')
    types = {
        "autoCreated": bool,
        "condition": str,
        "createdOn": int,
        "enabled": bool,
        "id": int,
        "modifiedOn": int,
        "name": str,
        "filter": str,
        "notificationChannelIds": list,
        "segmentBy": list,
        "segmentCondition": dict,
        "notificationCount": int,
        "rateOfChange": bool,
        "reNotify": bool,
        "severity": int,
        "severityLabel": str,
        "teamId": int,
        "timespan": int,
        "type": str,
        "version": int,
    }
    assert {name: type(alert.get(name)) for name in types} == types
    assert alert["id"] < 2**53
    assert abs(alert["createdOn"] / 1000 - time.time()) < 60, "milliseconds"


def test_get_is_what_create_answered(h: House) -> None:
    """Every operation shows the record in the same way."""
    alert = _made(h)
    found = _get(h, alert)
    assert {**found, "modifiedOn": 0} == {**alert, "modifiedOn": 0}
    sent = h.call("GET", f"/ibm_monitoring/api/api/alerts/{alert['id']}")
    assert sent.status == 200
    assert sent.body["alert"]["id"] == alert["id"]


def test_list_is_flat_and_oldest_first(h: House) -> None:
    """Items are flat, as the SDK reads them; without `from` and `to` nothing is filtered."""
    ids = [_made(h)["id"] for _ in range(3)]
    for path in ("/api/alerts", "/api/api/alerts", "/ibm_monitoring/api/alerts"):
        sent = h.call("GET", path)
        assert sent.status == 200
        assert set(sent.body) == {"alerts"}
        assert [alert["id"] for alert in sent.body["alerts"] if alert["id"] in ids] == ids


@pytest.mark.parametrize("unit", [1_000, 1, 0.001], ids=["microseconds", "milliseconds", "seconds"])
def test_from_and_to(h: House, unit: float) -> None:
    """A list has what was created before `to` and modified after `from`; the unit of a time is told by the size of the
    number."""
    alert = _made(h)
    now = alert["createdOn"]

    def seen(since: int | None, until: int | None) -> bool:
        bounds = {"from": since, "to": until}
        query = "&".join(f"{name}={int(value * unit)}" for name, value in bounds.items() if value is not None)
        found = h.call("GET", f"/api/alerts?{query}").body["alerts"]
        return alert["id"] in [one["id"] for one in found]

    hour = 3_600_000
    assert seen(now - hour, now + hour)
    assert seen(None, now + hour)
    assert seen(now - hour, None)
    assert not seen(None, now - hour)
    assert not seen(now + hour, None)


def test_from_looks_at_the_modification(one: House) -> None:
    """An alert that was created before `from` and modified after it is listed."""
    alert = _made(one)
    between = alert["createdOn"] + 5
    one.wait_for(lambda: time.time() * 1000 > between + 5)
    query = f"/api/alerts?from={between * 1000}"
    assert alert["id"] not in [found["id"] for found in one.call("GET", query).body["alerts"]]
    assert _put(one, alert, description="later").status == 200
    assert alert["id"] in [found["id"] for found in one.call("GET", query).body["alerts"]]


def test_a_time_that_is_none(one: House) -> None:
    """Answers 400 and names the parameter."""
    _is_refused(one.call("GET", "/api/alerts?from=yesterday"), 400, "from")


def test_delete(h: House) -> None:
    """Answers 204 without a body; no call finds the alert afterwards."""
    alert = _made(h)
    gone = h.call("DELETE", f"/api/alerts/{alert['id']}")
    assert (gone.status, gone.body) == (204, None)
    for method in ("GET", "DELETE"):
        _is_refused(h.call(method, f"/api/alerts/{alert['id']}"), 404, "not recognized")
    _is_refused(_put(h, alert, description="late"), 404, "not recognized")
    assert alert["id"] not in [found["id"] for found in h.call("GET", "/api/alerts").body["alerts"]]
    assert _made(h, name=alert["name"])["id"] != alert["id"], "the name is free again"


# --- update --------------------------------------------------------------------------------------------------


def test_the_version_is_the_lock(h: House) -> None:
    """Each accepted update increments the version; a stale one is answered 409 `Conflict version` and changes
    nothing."""
    alert = _made(h)
    assert alert["version"] == 1
    first = _put(h, alert, version=1, description="first")
    assert (first.status, first.body["alert"]["version"]) == (200, 2)
    _is_refused(_put(h, alert, version=1, description="second"), 409, "Conflict version")
    found = _get(h, alert)
    assert (found["version"], found["description"]) == (2, "first")
    assert _put(h, alert, description="without a version").body["alert"]["version"] == 3


def test_left_out_stays_and_null_clears(h: House) -> None:
    """`PUT` is a partial update: absent (UNSET in canonical terms), null and a value are three things."""
    alert = _made(h, filter="env = 'prod'", reNotify=True, reNotifyMinutes=30, teamId=493)
    changed = _put(h, alert, description=None).body["alert"]
    assert changed["description"] is None
    kept = ("filter", "reNotify", "reNotifyMinutes", "teamId", "condition", "segmentBy", "timespan", "severity", "name")
    assert {name: changed[name] for name in kept} == {name: alert[name] for name in kept}
    cleared = _put(h, alert, filter=None, teamId=None).body["alert"]
    assert (cleared["filter"], cleared["teamId"], cleared["reNotifyMinutes"]) == (None, None, 30)


def test_null_for_what_always_has_a_value_leaves_the_default(h: House) -> None:
    """The page's create sample writes null for what it leaves out; a rule is enabled unless it says otherwise."""
    alert = _made(h, enabled=None, reNotify=None)
    assert (alert["enabled"], alert["reNotify"]) == (True, False)


SEVERITIES = [
    ({"severity": 2, "severityLabel": "LOW"}, 2, "the number differs: it is the change, the label was echoed"),
    ({"severity": 4, "severityLabel": "HIGH"}, 1, "the label differs: it is the change, the number was echoed"),
    ({"severity": 6, "severityLabel": "HIGH"}, 6, "both differ: the number wins"),
    ({"severityLabel": "LOW"}, 4, "a label of the same band changes nothing"),
    ({"severityLabel": "INFO"}, 6, "a label alone"),
    ({"severity": 5}, 5, "a number alone"),
    ({"description": "other"}, 4, "neither"),
    ({"severity": 4, "severityLabel": None}, 4, "a null label beside the number clears nothing"),
    ({"severity": None, "severityLabel": "HIGH"}, 1, "a null number beside the label clears nothing"),
]


@pytest.mark.parametrize(("fields", "severity", "why"), SEVERITIES, ids=[why for _, _, why in SEVERITIES])
def test_severity_and_its_label(h: House, fields: dict[str, Any], severity: int, why: str) -> None:
    """Of severity and label, the one that differs from the record (4, LOW) is the change."""
    labels = ("HIGH", "HIGH", "MEDIUM", "MEDIUM", "LOW", "LOW", "INFO", "INFO")
    alert = _made(h, severity=4)
    found = _put(h, alert, **fields).body["alert"]
    assert (found["severity"], found["severityLabel"]) == (severity, labels[severity]), why
    found = _get(h, alert)
    assert (found["severity"], found["severityLabel"]) == (severity, labels[severity])


@pytest.mark.parametrize(("label", "severity"), [("HIGH", 1), ("MEDIUM", 3), ("LOW", 5), ("INFO", 6)])
def test_a_label_alone_on_create(h: House, label: str, severity: int) -> None:
    """The page's create sample has only the label, and null for other fields that it leaves out."""
    alert = ibm_alert(fresh(), severityLabel=label)
    del alert["alert"]["severity"]
    for asked in (alert, ibm_alert(fresh(), severity=None, severityLabel=label)):
        found = h.call("POST", "/api/alerts", asked).body["alert"]
        assert (found["severity"], found["severityLabel"]) == (severity, label)


def test_severity_absent_stays_absent(h: House) -> None:
    """No severity is made up."""
    alert = ibm_alert(fresh())
    del alert["alert"]["severity"]
    found = h.call("POST", "/api/alerts", alert).body["alert"]
    assert found.get("severity") is None
    assert found.get("severityLabel") is None


def test_names_are_unique(h: House) -> None:
    """A name that another alert has is refused with 422 on create and update; an alert's own name is no clash."""
    first, second = _made(h), _made(h)
    _is_refused(h.call("POST", "/api/alerts", ibm_alert(first["name"])), 422, "name")
    _is_refused(_put(h, second, name=first["name"]), 422, "name")
    assert _get(h, second)["name"] == second["name"]
    assert _put(h, first, name=first["name"]).status == 200
    moved = fresh()
    assert _put(h, first, name=moved).status == 200
    assert _made(h, name=first["name"])["version"] == 1, "the old name is free"


# --- what is taken in ----------------------------------------------------------------------------------------


def test_wrapped_bare_and_in_a_list_of_one(h: House) -> None:
    """The page's request schema is a list, its samples and clients send the envelope."""
    for wrap in (
        lambda alert: {"alert": alert},
        lambda alert: alert,
        lambda alert: {"alerts": [{"alert": alert}]},
        lambda alert: {"alerts": [alert]},
    ):
        name = fresh()
        sent = h.call("POST", "/api/alerts", wrap(ibm_alert(name)["alert"]))
        assert sent.status == 200, sent.body
        assert sent.body["alert"]["name"] == name
        put = h.call("PUT", f"/api/alerts/{sent.body['alert']['id']}", wrap({"description": name}))
        assert (put.status, put.body["alert"]["description"]) == (200, name)
    pair = {"alerts": [ibm_alert(fresh()), ibm_alert(fresh())]}
    assert h.call("POST", "/api/alerts", pair).status == 400


@pytest.mark.parametrize(
    ("timespan", "shown"), [(1_000_000, 60_000_000), (60_000_001, 120_000_000), (600_000_000, 600_000_000)]
)
def test_a_timespan_is_rounded_up_and_that_is_reported(one: House, timespan: int, shown: int) -> None:
    """A timespan below or between whole minutes is rounded up, and reported as approximated in the report header."""
    sent = one.call("POST", "/api/alerts", ibm_alert(fresh(), timespan=timespan))
    assert sent.status == 200
    assert sent.body["alert"]["timespan"] == shown
    reported = [line for line in sent.report if re.search(r"approximated=[^;]*condition\.window", line)]
    assert len(reported) == (timespan != shown), sent.report
    assert one.arrived(IBM, "POST")[-1].body["alert"]["timespan"] == shown


def test_channel_ids_in_every_form(one: House) -> None:
    """Channels may be integers, numeric strings or type names; numbers are shown as integers."""
    alert = _made(one, notificationChannelIds=[4, "17", "EMAIL", "PAGER_DUTY"])
    assert alert["notificationChannelIds"][:2] == [4, 17]
    assert one.arrived(IBM, "POST")[-1].body["alert"]["notificationChannelIds"][0] == 4
    _is_refused(one.call("POST", "/api/alerts", ibm_alert(fresh(), notificationChannelIds=["PIGEON"])), 400, "PIGEON")


def test_channel_types_survive(h: House) -> None:
    """Channel type names are shown as sent; the page's own example has two."""
    names = ["EMAIL", "PAGER_DUTY", "WEBHOOK", "VICTOROPS", "SLACK"]
    assert _made(h, notificationChannelIds=names)["notificationChannelIds"] == names


@pytest.mark.parametrize("word", ["ANY", "ALL"])
def test_segment_condition_as_string_or_object(h: House, word: str) -> None:
    """The page's heading says string, its samples send an object: both are read, the object is shown."""
    for said in (word, {"type": word}):
        assert _made(h, segmentCondition=said)["segmentCondition"] == {"type": word}


def test_what_a_manual_alert_needs(h: House) -> None:
    """`segmentCondition` may be absent only where `segmentBy` is, as the SDK sends it."""
    bare = ibm_alert(fresh())["alert"]
    for name in ("segmentBy", "segmentCondition"):
        del bare[name]
    assert h.call("POST", "/api/alerts", {"alert": bare}).status == 200
    for name in ("name", "type", "condition", "timespan", "segmentCondition"):
        lacking = ibm_alert(fresh())["alert"]
        del lacking[name]
        _is_refused(h.call("POST", "/api/alerts", {"alert": lacking}), 400, name)


@pytest.mark.parametrize("fields", [{"id": 23211}, {"version": 9}, {"id": 1, "version": 1}])
def test_id_and_version_must_be_null_on_create(h: House, fields: dict[str, Any]) -> None:
    """The service's rule is enforced in the service's words."""
    sent = h.call("POST", "/api/alerts", ibm_alert(fresh(), **fields))
    _is_refused(sent, 400, "Alert ID and version must be null")
    assert _made(h, id=None, version=None)["version"] == 1


def test_an_id_in_the_body_that_differs_from_the_path(h: House) -> None:
    """Answers 400; the same id is fine."""
    alert = _made(h)
    _is_refused(_put(h, alert, id=alert["id"] + 1, description="no"), 400, "id")
    assert _put(h, alert, id=alert["id"], description="yes").status == 200


WRONG = [
    ({"severity": 8}, "severity"),
    ({"severity": "high"}, "severity"),
    ({"severityLabel": "URGENT"}, "severityLabel"),
    ({"timespan": "a minute"}, "timespan"),
    ({"timespan": 10**30}, ""),
    ({"enabled": "yes"}, "enabled"),
    ({"name": ""}, "name"),
    ({"name": 7}, "name"),
    ({"segmentCondition": {"type": "SOME"}}, "segmentCondition"),
    ({"segmentBy": "host"}, "segmentBy"),
    ({"notificationChannelIds": 4}, "notificationChannelIds"),
]


@pytest.mark.parametrize(("fields", "names"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_a_wrong_value_is_named(one: House, fields: dict[str, Any], names: str) -> None:
    """A wrong value is answered with 400 on create and on update, naming the field; nothing is sent."""
    alert = _made(one)
    before = len(one.arrived(IBM))
    _is_refused(one.call("POST", "/api/alerts", {"alert": {**ibm_alert(fresh())["alert"], **fields}}), 400, names)
    _is_refused(_put(one, alert, **fields), 400, names)
    assert len(one.arrived(IBM)) == before
    assert _get(one, alert)["version"] == 1


def test_unknown_fields_are_never_an_error(one: House) -> None:
    """Unknown fields reach an upstream of the same dialect unchanged."""
    alert = _made(one, customNotification={"titleTemplate": "{{x}}"}, severityLevel=4)
    arrived = one.arrived(IBM, "POST")[-1].body["alert"]
    assert arrived["customNotification"] == {"titleTemplate": "{{x}}"}
    assert arrived["severityLevel"] == 4
    assert alert["name"] == arrived["name"]


def test_the_same_dialect_gets_what_was_sent(one: House) -> None:
    """An upstream of the same dialect receives the body unchanged, unknown fields included, and nothing added."""
    sent = ibm_alert(fresh(), annotations={"a": "b"}, groupName="default", filter=None)
    assert one.call("POST", "/api/alerts", sent).status == 200
    assert one.arrived(IBM, "POST")[-1].body == sent


# --- ids, scopes, credentials --------------------------------------------------------------------------------


def test_read_by_any_id_that_any_party_used(h: House) -> None:
    """An alert is found by the gateway's own id, the upstream's, and the one that was shown."""
    sent = h.call("POST", "/api/alerts", ibm_alert(fresh()))
    shown = sent.body["alert"]["id"]
    own = sent.headers["alert-gateway-id"]
    for name in (own, str(shown)):
        found = h.call("GET", f"/api/alerts/{name}")
        assert (found.status, found.body["alert"]["id"] if found.status == 200 else found.body) == (200, shown)
        assert found.headers["alert-gateway-id"] == own


def test_the_primary_of_the_same_dialect_gives_the_id(one: House) -> None:
    """The primary's own id is shown, so that links into its console stay right."""
    alert = _made(one)
    theirs = one.client.get(
        f"{one.sandbox_url}/ibm_monitoring/api/alerts/{alert['id']}",
        headers={"authorization": "Bearer upstream-key-0123456789abcdef"},
    )
    assert theirs.status_code == 200
    assert theirs.json()["alert"]["name"] == alert["name"]


def test_another_caller_sees_nothing(h: House) -> None:
    """Another caller gets 404 in the vendor's words, may use the same name, and has an empty list."""
    alert = _made(h)
    path = f"/api/alerts/{alert['id']}"
    _is_refused(h.call("GET", path, key=OTHER), 404, "not recognized")
    _is_refused(h.call("PUT", path, {"alert": {"name": "mine"}}, key=OTHER), 404)
    _is_refused(h.call("DELETE", path, key=OTHER), 404)
    assert alert["id"] not in [found["id"] for found in h.call("GET", "/api/alerts", key=OTHER).body["alerts"]]
    assert _get(h, alert)["name"] == alert["name"]


def test_a_shared_scope_is_seen_by_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Callers with the same `scope` on their inbounds share names, ids and lists."""
    with called(tmp_path_factory.mktemp("scope"), {"there": "ilert"}, inbound='scope = "shared"') as h:
        alert = _made(h)
        assert h.call("GET", f"/api/alerts/{alert['id']}", key=OTHER).status == 200
        assert h.call("POST", "/api/alerts", ibm_alert(alert["name"]), key=OTHER).status == 422
        assert [found["id"] for found in h.call("GET", "/api/alerts", key=OTHER).body["alerts"]] == [alert["id"]]


@pytest.mark.parametrize("prefix", ["", "/ibm_monitoring"])
@pytest.mark.parametrize("credential", [None, "", "Bearer", "Bearer wrong", "wrong", "Basic Y2k6Y2k="])
def test_a_credential_that_does_not_fit(one: House, prefix: str, credential: str | None) -> None:
    """Every operation answers 401 in the page's words."""
    headers = {} if credential is None else {"authorization": credential}
    for method, path in [("GET", "/api/alerts"), ("POST", "/api/alerts"), ("DELETE", "/api/alerts/1")]:
        _is_refused(one.call(method, prefix + path, {}, key=None, headers=headers), 401, "Unauthorized")


def test_headers_of_the_service(one: House) -> None:
    """`IBMInstanceID`, `TeamID` and `SysdigTeamID` are accepted."""
    for team in ("TeamID", "SysdigTeamID"):
        headers = {"IBMInstanceID": "guid", team: "493", "SysdigProduct": "SDC"}
        assert one.call("GET", "/api/alerts", headers=headers).status == 200


def test_paths_and_methods_that_are_not_there(one: House) -> None:
    """Answers 404 and 405 in the service's error shape, 405 with the allowed methods."""
    _is_refused(one.call("GET", "/ibm_monitoring/api/dashboards"), 404)
    _is_refused(one.call("GET", "/ibm_monitoring/nothing"), 404)
    sent = one.call("PATCH", "/ibm_monitoring/api/alerts/1", {})
    _is_refused(sent, 405)
    assert set(re.split(r",\s*", sent.headers["allow"])) >= {"GET", "PUT", "DELETE"}
    sent = one.call("DELETE", "/ibm_monitoring/api/alerts")
    _is_refused(sent, 405)
    assert {"GET", "POST"} <= set(re.split(r",\s*", sent.headers["allow"]))


@pytest.mark.parametrize("body", ["{", "[]", '"text"', "", "nul", "\xff"])
def test_a_body_that_is_none(one: House, body: str) -> None:
    """A body that is no alert is answered with 400, never 500."""
    answer = one.client.post(
        f"{one.url}/api/alerts",
        content=body.encode("latin-1"),
        headers={"authorization": "Bearer caller-key-0123456789abcdef", "content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.json()["errors"]


def test_notification_channels(h: House) -> None:
    """The SDK lists notification channels before it creates alerts."""
    sent = h.call("GET", "/api/notificationChannels")
    assert (sent.status, sent.body) == (200, {"notificationChannels": []})
    _is_refused(h.call("GET", "/api/notificationChannels", key=None), 401)
    _is_refused(h.call("GET", "/api/notificationChannels/7"), 404)
    _is_refused(h.call("GET", "/api/notificationChannels/7", key=None), 401)


# --- what answers to an update mean -------------------------------------------------------------------------------

THERE = {"id": 7, "version": 1, "name": "CPU", "severity": 4, "severityLabel": "MEDIUM", "enabled": True}


def _updated(patch: dict[str, Any], *answers: tuple[int, Any], **more: Any) -> tuple[list[Any], Any]:
    """The requests of an update of the rule 7 that is answered so, and its outcome, if it has one by then."""
    sending = Sending(
        operation=Operation.UPDATE,
        at=datetime.now(UTC),
        body=patch,
        patch=patch,
        key=None,
        ids={"id": "7"},
        seen={},
        **more,
    )
    call = calls.update(sending)
    asked = [next(call)]
    for status, body in answers:
        try:
            asked.append(call.send(Response(status, {}, json.dumps(body).encode())))
        except StopIteration as ended:
            return asked, ended.value
    return asked, None


@pytest.mark.parametrize("shown", [{}, {"alert": {}}, {"alert": None}, []])
def test_nothing_is_laid_over_a_rule_that_was_not_shown(shown: Any) -> None:
    """What changed alone, put there, would replace the whole rule."""
    asked, outcome = _updated({"enabled": False}, (200, shown))
    assert ([one.method for one in asked], type(outcome)) == (["GET"], Again)


@pytest.mark.parametrize(
    ("patch", "left"), [({"severity": 0}, "severityLabel"), ({"severityLabel": "HIGH"}, "severity")]
)
def test_the_old_word_for_a_severity_is_not_put_beside_the_new(patch: dict[str, Any], left: str) -> None:
    [_, put], _ = _updated(patch, (200, {"alert": THERE}), is_akin=True)
    assert put.body["alert"] == {name: value for name, value in {**THERE, **patch}.items() if name != left}


def test_only_a_name_that_no_caller_of_ibm_chose_is_changed_where_it_is_taken() -> None:
    answers: list[tuple[int, Any]] = [(200, {"alert": THERE}), (422, {"errors": []}), (200, {"alert": THERE})]
    asked, outcome = _updated({"name": "Disk"}, *answers, is_akin=True)
    assert ([one.method for one in asked], outcome.kind) == (["GET", "PUT"], ProblemKind.NAME_TAKEN)
    asked, _ = _updated({"name": "Disk"}, *answers, suffix="12")
    assert [one.body["alert"]["name"] for one in asked if one.method == "PUT"] == ["Disk", "Disk [12]"]


@pytest.mark.parametrize("patch", [{"enabled": False}, {"name": THERE["name"], "timespan": 60_000_000}])
@pytest.mark.parametrize("is_akin", [True, False])
def test_a_refusal_of_another_field_is_not_taken_for_one_of_the_name(patch: dict[str, Any], is_akin: bool) -> None:
    """IBM answers 422 to more than taken names. A switching-off that is refused so was said to have a name that another
    alert has, and a rule's own name was changed in vain."""
    refused = (422, {"errors": [{"reason": "Unprocessable", "message": "no such channel"}]})
    asked, outcome = _updated(patch, (200, {"alert": THERE}), refused, is_akin=is_akin, suffix="12")
    assert ([one.method for one in asked], outcome.kind) == (["GET", "PUT"], ProblemKind.REFUSED)
    assert "no such channel" in outcome.reason


# --- as an upstream, call by call ------------------------------------------------------------------------------


RULE: dict[str, Any] = {"id": 7, "version": 4, "name": "n", "severity": 3, "severityLabel": "MEDIUM"}
RULE |= {"annotations": {"owner": "Ann", "alert_gateway": {"old": 1}}}


def _through(operation: Operation, *answers: tuple[int, Any], **more: Any) -> tuple[list[Any], Any]:
    """The requests of a call, which is sent these answers, and how it ends."""
    given: dict[str, Any] = {
        "body": {"name": "n"},
        "patch": {},
        "key": None,
        "ids": {"id": "7"},
        "seen": {},
        "suffix": "42",
        **more,
    }
    sending = Sending(operation=operation, at=datetime(2026, 1, 1, tzinfo=UTC), **given)
    call, asked = dialects()[IBM].outbound.calls[operation](sending), list[Any]()
    try:
        asked.append(next(call))
        for status, body in answers:
            asked.append(call.send(Response(status, content=json.dumps(body).encode())))
    except StopIteration as ended:
        return asked, ended.value
    return asked, None


SHOWN = (200, {"alert": RULE})
TAKEN = (422, {"errors": [{"message": "Already exists", "reason": "name is already used"}]})
STALE = (409, {"errors": [{"message": "Conflict", "reason": "version"}]})


@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.UPDATE])
def test_a_name_that_is_taken_is_another_once_unless_the_caller_chose_it(operation: Operation) -> None:
    before = () if operation is Operation.CREATE else (SHOWN,)
    more: dict[str, Any] = {"body": {"name": "m"}, "patch": {"name": "m"}}
    asked, _ = _through(operation, *before, TAKEN, *before, **more)
    assert asked[-1].body["alert"]["name"] == "m [42]"
    if operation is Operation.UPDATE:
        _, ended = _through(operation, SHOWN, TAKEN, SHOWN, TAKEN, **more)
        assert (ended.kind, ended.reason) == (ProblemKind.NAME_TAKEN, "422 Already exists: name is already used")
    asked, ended = _through(operation, *before, TAKEN, is_akin=True, **more)
    assert (len(asked), ended.kind) == (1 + len(before), ProblemKind.NAME_TAKEN)


@pytest.mark.parametrize("operation", [Operation.UPDATE, Operation.RESOLVE])
def test_a_name_that_is_put_back_and_taken_meanwhile_is_another_too(operation: Operation) -> None:
    """The rule is shown without a name, and the change says none: the one that it was made with is not among what
    changed."""
    nameless = (200, {"alert": {name: value for name, value in RULE.items() if name != "name"}})
    asked, _ = _through(operation, nameless, TAKEN, nameless, body={"name": "m"}, patch={"severity": 1})
    assert [one.body["alert"]["name"] for one in asked if one.method == "PUT"] == ["m", "m [42]"]


def test_a_rule_is_laid_over_only_what_was_read() -> None:
    asked, ended = _through(Operation.UPDATE, (200, {}), patch={"name": "m"})
    assert (len(asked), type(ended)) == (1, Again)
    asked, ended = _through(Operation.UPDATE, SHOWN, (200, {}), patch={"name": "m"}, strict=True)
    assert asked[1].body["alert"]["name"] == "m", "there is no version yet that it could have changed since"
    assert (ended.seen, ended.altered) == ({"version": None}, {}), "which version this made is not known"


def test_a_rule_that_somebody_changed() -> None:
    since: dict[str, Any] = {"seen": {"version": 3}}
    asked, ended = _through(Operation.UPDATE, SHOWN, patch={"name": "m"}, strict=True, **since)
    assert (len(asked), type(ended), ended.seen) == (1, Changed, {"version": 4})
    asked, ended = _through(
        Operation.UPDATE, SHOWN, (200, {"alert": {"id": 7, "version": 5}}), patch={"name": "m"}, **since
    )
    assert (len(asked), ended.seen, [*ended.altered]) == (2, {"version": 5}, ["version"])
    same: dict[str, Any] = {
        "body": {"name": "n", "annotations": {"alert_gateway": {"old": 1}}},
        "patch": {"name": "n"},
        "strict": True,
    }
    asked, ended = _through(Operation.UPDATE, SHOWN, **same, **since)
    assert (len(asked), type(ended), ended.seen) == (1, Delivered, {"version": 4}), "it is as it was to be"
    asked, ended = _through(Operation.UPDATE, *(SHOWN, STALE) * 4, patch={"name": "m"})
    assert [one.method for one in asked] == ["GET", "PUT"] * 4
    assert (type(ended), ended.reason) == (Again, "409 Conflict: version")


@pytest.mark.parametrize(
    ("patch", "body", "is_akin", "made"),
    [
        ({"severity": 1}, {}, False, {"severity": 1, "annotations": {"owner": "Ann"}}),
        ({"severityLabel": "HIGH"}, {}, True, {"severityLabel": "HIGH", "annotations": RULE["annotations"]}),
        (
            {"annotations": {"team": "db"}},
            {"annotations": {"alert_gateway": {"new": 2}}},
            False,
            {
                "severity": 3,
                "severityLabel": "MEDIUM",
                "annotations": {"owner": "Ann", "team": "db", "alert_gateway": {"new": 2}},
            },
        ),
        (
            {"annotations": {"team": "db"}},
            {},
            True,
            {"severity": 3, "severityLabel": "MEDIUM", "annotations": {"team": "db"}},
        ),
    ],
)
def test_what_is_laid_over_a_rule(
    patch: dict[str, Any], body: dict[str, Any], is_akin: bool, made: dict[str, Any]
) -> None:
    """The other word for a severity goes, others' annotations stay, and what was carried before does not."""
    asked, _ = _through(Operation.UPDATE, SHOWN, patch=patch, body=body, is_akin=is_akin)
    assert asked[1].body["alert"] == {"id": 7, "version": 4, "name": "n", **made}
