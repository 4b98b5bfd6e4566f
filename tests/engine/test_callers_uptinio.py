"""Uptinio's alerts API as its callers see it, over HTTP, with Uptinio and with another vendor behind it.

Expectations follow the page "Alerts API Reference"; the error envelope is that of the vendor's authentication page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.canonical import Channel, Operation
from gateway.mapping.rows import Writing
from gateway.outcome import Response, Sending
from mappings.uptinio import ALERT, DIALECT
from tests.clients.callers import OTHER, behind, called, fresh, uptinio_alert
from tests.harness import House, Sent

UPTINIO = "uptinio"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
SAMPLE = {
    "monitor_id": "mon_123",
    "type": "down",
    "message": "Website is down",
    "channels": ["email", "slack"],
    "threshold": {"value": 1000, "operator": ">", "duration": 300},
}
"""The page's create sample."""


@pytest.fixture(scope="module", params=[UPTINIO, behind(UPTINIO)])
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with Uptinio behind it, then with another vendor."""
    with called(tmp_path_factory.mktemp("uptinio"), {"there": request.param}) as standing:
        yield standing


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with Uptinio behind it, for behaviour that does not depend on the upstream."""
    with called(tmp_path_factory.mktemp("one"), {"there": UPTINIO}) as standing:
        yield standing


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, list[dict[str, Any]]]]:
    """A gateway with 103 alerts, the first of which is resolved, and the answers to their creates."""
    with called(tmp_path_factory.mktemp("many"), {"there": "livesession"}, top='reply = "accepted"') as standing:
        made = [_made(standing, monitor_id=f"mon_{number % 2}") for number in range(103)]
        standing.call("PUT", f"/alerts/{made[0]['id']}", {"status": "resolved"})
        yield standing, made


def _made(h: House, **fields: Any) -> dict[str, Any]:
    sent = h.call("POST", "/alerts", uptinio_alert(fresh()) | fields)
    assert sent.status == 201, sent.body
    alert: dict[str, Any] = sent.body["data"]
    return alert


def _is_refused(sent: Sent, status: int, code: str, says: str = "") -> None:
    """Asserts a refusal in the envelope of the vendor's authentication page."""
    assert sent.status == status, sent.body
    assert set(sent.body) == {"error"}
    assert set(sent.body["error"]) == {"code", "message"}
    assert sent.body["error"]["code"] == code
    assert says in sent.body["error"]["message"]


# --- create, get, update -------------------------------------------------------------------------------------


def test_create(h: House) -> None:
    """Answers 201 with exactly the fields that the page shows; channels and threshold are accepted but never
    returned."""
    sent = h.call("POST", "/alerts", SAMPLE)
    assert sent.status == 201
    assert set(sent.body) == {"data"}
    alert = dict(sent.body["data"])
    assert re.fullmatch(r"alt_\w+", alert.pop("id"))
    assert re.fullmatch(TIME, alert.pop("created_at"))
    wanted = {"monitor_id": "mon_123", "type": "down", "status": "active", "message": "Website is down"}
    assert alert == wanted


def test_get(h: House) -> None:
    """The details add `resolved_at` and `notifications`."""
    alert = _made(h)
    sent = h.call("GET", f"/alerts/{alert['id']}")
    assert sent.status == 200
    assert sent.body == {"data": {**alert, "resolved_at": None, "notifications": []}}


def test_update_as_the_page_has_it(h: House) -> None:
    """Status and message change at once: the alert is resolved, with its time, and shown without `notifications`."""
    alert = _made(h)
    change = {"status": "resolved", "message": "Website is back up"}
    sent = h.call("PUT", f"/alerts/{alert['id']}", change)
    assert sent.status == 200
    found = dict(sent.body["data"])
    resolved_at = found.pop("resolved_at")
    assert re.fullmatch(TIME, resolved_at)
    assert resolved_at >= alert["created_at"]
    assert found == {**alert, **change}
    got = h.call("GET", f"/alerts/{alert['id']}").body["data"]
    assert (got["status"], got["resolved_at"], got["message"]) == ("resolved", resolved_at, "Website is back up")


def test_update_is_a_merge(h: House) -> None:
    """The page's sample is partial: fields left out stay."""
    alert = _made(h)
    for change in ({"message": fresh()}, {"type": "slow"}, {"threshold": {"value": 5}}, {"channels": ["sms"]}):
        sent = h.call("PUT", f"/alerts/{alert['id']}", change)
        assert sent.status == 200
        alert = {**alert, **{name: value for name, value in change.items() if name in alert}}
        assert sent.body["data"] == {**alert, "resolved_at": None}


def test_a_threshold_of_null_clears_all_of_it(one: House) -> None:
    """The whole object may be cleared, as each of its fields may be."""
    alert = _made(one, threshold={"value": 1000, "operator": ">", "duration": 300})
    assert one.call("PUT", f"/alerts/{alert['id']}", {"threshold": None}).status == 200
    cleared = one.arrived(UPTINIO, "PUT")[-1].body["threshold"]
    assert cleared == {"value": None, "operator": None, "duration": None}


def test_times_are_to_the_second(h: House) -> None:
    """Times have no fraction, as in every sample of the page, such as `2024-01-01T00:00:00Z`."""
    alert = _made(h)
    resolved = h.call("PUT", f"/alerts/{alert['id']}", {"status": "resolved"}).body["data"]
    for name in ("created_at", "resolved_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", resolved[name]), resolved[name]


def test_resolved_and_active_again(h: House) -> None:
    """Reopening sets `resolved_at` to null again."""
    alert = _made(h)
    path = f"/alerts/{alert['id']}"
    assert h.call("PUT", path, {"status": "resolved"}).body["data"]["status"] == "resolved"
    again = h.call("PUT", path, {"status": "active"}).body["data"]
    assert (again["status"], again["resolved_at"], again["id"]) == ("active", None, alert["id"])
    twice = h.call("PUT", path, {"status": "active"})
    assert (twice.status, twice.body["data"]) == (200, again)


def test_resolving_twice(h: House) -> None:
    """The second resolve changes nothing: the time of the first stays."""
    path = f"/alerts/{_made(h)['id']}"
    first = h.call("PUT", path, {"status": "resolved"}).body
    assert h.call("PUT", path, {"status": "resolved"}).body == first


@pytest.mark.parametrize("kind", ["down", "up", "slow", "error", "custom"])
def test_every_type(h: House, kind: str) -> None:
    """`up` with status active is accepted too."""
    alert = _made(h, type=kind)
    assert (alert["type"], alert["status"]) == (kind, "active")


# --- list ----------------------------------------------------------------------------------------------------


def test_list(h: House) -> None:
    """A list has data and meta; its items have the create's fields and no others, oldest first."""
    made = [_made(h) for _ in range(3)]
    sent = h.call("GET", "/alerts?per_page=100")
    assert sent.status == 200
    assert set(sent.body) == {"data", "meta"}
    assert set(sent.body["meta"]) == {"page", "per_page", "total"}
    ids = [alert["id"] for alert in made]
    assert [alert for alert in sent.body["data"] if alert["id"] in ids] == made


def _page(many: tuple[House, list[dict[str, Any]]], query: str) -> tuple[list[str], dict[str, int]]:
    sent = many[0].call("GET", f"/alerts{query}")
    assert sent.status == 200, sent.body
    return [alert["id"] for alert in sent.body["data"]], sent.body["meta"]


def test_pages(many: tuple[House, list[dict[str, Any]]]) -> None:
    """A page has 20 items by default and at most 100, whatever was requested; a page past the end is empty."""
    ids = [alert["id"] for alert in many[1]]
    assert _page(many, "") == (ids[:20], {"page": 1, "per_page": 20, "total": 103})
    assert _page(many, "?page=2") == (ids[20:40], {"page": 2, "per_page": 20, "total": 103})
    assert _page(many, "?page=6") == (ids[100:], {"page": 6, "per_page": 20, "total": 103})
    assert _page(many, "?page=7") == ([], {"page": 7, "per_page": 20, "total": 103})
    assert _page(many, "?page=3&per_page=7") == (ids[14:21], {"page": 3, "per_page": 7, "total": 103})
    for large in (100, 101, 5000):
        found, meta = _page(many, f"?per_page={large}")
        assert (found, meta) == (ids[:100], {"page": 1, "per_page": 100, "total": 103})
    assert _page(many, "?per_page=5000&page=2")[0] == ids[100:]


def test_filters(many: tuple[House, list[dict[str, Any]]]) -> None:
    """Status and monitor filter alone, together and paged; the total counts the matches."""
    ids = [alert["id"] for alert in many[1]]
    even = ids[::2]
    assert _page(many, "?status=resolved") == (ids[:1], {"page": 1, "per_page": 20, "total": 1})
    assert _page(many, "?status=active") == (ids[1:21], {"page": 1, "per_page": 20, "total": 102})
    assert _page(many, "?monitor_id=mon_0&page=2&per_page=10") == (
        even[10:20],
        {"page": 2, "per_page": 10, "total": 52},
    )
    assert _page(many, "?monitor_id=mon_0&status=active")[0] == even[1:21]
    assert _page(many, "?monitor_id=mon_1&status=resolved") == ([], {"page": 1, "per_page": 20, "total": 0})
    assert _page(many, "?monitor_id=nowhere")[1]["total"] == 0
    assert _page(many, "?status=&monitor_id=&page=&per_page=") == _page(many, ""), "what is left blank is not asked for"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=open", "status"),
        ("status=ACTIVE", "status"),
        ("per_page=0", "per_page"),
        ("per_page=-1", "per_page"),
        ("per_page=many", "per_page"),
        ("page=0", "page"),
        ("page=one", "page"),
        ("page=99999999999999999999", "page"),
    ],
)
def test_a_query_that_makes_no_sense(h: House, query: str, names: str) -> None:
    """Answers 400 `invalid_request` rather than an empty list."""
    _is_refused(h.call("GET", f"/alerts?{query}"), 400, "invalid_request", names)


# --- refusals ------------------------------------------------------------------------------------------------

WRONG = [
    ({"monitor_id": None}, "monitor_id"),
    ({"monitor_id": 7}, "monitor_id"),
    ({"type": None}, "type"),
    ({"type": "broken"}, "type"),
    ({"type": 1}, "type"),
    ({"message": 5}, "message"),
    ({"channels": ["pigeon"]}, "channels"),
    ({"channels": "email"}, "channels"),
    ({"threshold": {"value": "high"}}, "threshold.value"),
    ({"threshold": {"value": 1, "duration": "long"}}, "threshold.duration"),
    ({"threshold": []}, "threshold"),
]


@pytest.mark.parametrize(("fields", "names"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_what_is_missing_or_wrong_is_named(one: House, fields: dict[str, Any], names: str) -> None:
    """Answers 400 `invalid_request` and names the field; nothing is sent."""
    before = len(one.arrived(UPTINIO))
    _is_refused(one.call("POST", "/alerts", SAMPLE | fields), 400, "invalid_request", names)
    gone = [name for name, value in fields.items() if value is None]
    body = {name: value for name, value in SAMPLE.items() if name not in gone}
    if gone:
        _is_refused(one.call("POST", "/alerts", body), 400, "invalid_request", names)
    assert len(one.arrived(UPTINIO)) == before


def test_an_update_with_an_unknown_status(h: House) -> None:
    """Answers 400, and the alert is unchanged."""
    alert = _made(h)
    _is_refused(h.call("PUT", f"/alerts/{alert['id']}", {"status": "closed"}), 400, "invalid_request", "status")
    assert h.call("GET", f"/alerts/{alert['id']}").body["data"]["status"] == "active"


def test_an_unknown_alert(h: House) -> None:
    """Answers 404 `alert_not_found` in the page's words."""
    for method in ("GET", "PUT"):
        sent = h.call(method, "/alerts/alt_999", {"message": "x"} if method == "PUT" else None)
        _is_refused(sent, 404, "alert_not_found", "The specified alert does not exist")


@pytest.mark.parametrize("body", ["{", "", "[]", "null", "\xff"])
def test_a_body_that_is_none(one: House, body: str) -> None:
    """Answers 400 `invalid_request`."""
    headers = {"authorization": "Bearer caller-key-0123456789abcdef", "content-type": "application/json"}
    answer = one.client.post(f"{one.url}/alerts", content=body.encode("latin-1"), headers=headers)
    _is_refused(Sent(answer.status_code, answer.json(), answer.headers), 400, "invalid_request")


@pytest.mark.parametrize("prefix", ["", "/uptinio", "/v1", "/uptinio/v1"])
@pytest.mark.parametrize("credential", [None, "Bearer wrong", "wrong"])
def test_a_credential_that_does_not_fit(one: House, prefix: str, credential: str | None) -> None:
    """Answers 401 `invalid_api_key` in the authentication page's words; below `/v1` at the root LiveSession answers."""
    headers = {} if credential is None else {"authorization": credential}
    sent = one.call("GET", f"{prefix}/alerts", key=None, headers=headers)
    if prefix == "/v1":
        assert (sent.status, sent.body["error"]["http_status_code"]) == (401, 401)
        return
    _is_refused(sent, 401, "invalid_api_key", "The provided API key is invalid")


def test_a_raw_key_is_as_good_as_a_bearer(one: House) -> None:
    """The vendor's agent sends the configured string without a scheme."""
    for form in ("Bearer {}", "bearer {}", "{}"):
        headers = {"authorization": form.format("caller-key-0123456789abcdef")}
        assert one.call("GET", "/alerts", key=None, headers=headers).status == 200


def test_paths_and_methods_that_are_not_there(one: House) -> None:
    """Answers 404 and 405 in the envelope. This API has no DELETE."""
    assert one.call("GET", "/uptinio/nothing").status == 404
    assert set(one.call("GET", "/uptinio/nothing").body["error"]) == {"code", "message"}
    sent = one.call("DELETE", f"/alerts/{_made(one)['id']}")
    assert sent.status == 405
    assert set(sent.body["error"]) == {"code", "message"}
    assert set(re.split(r",\s*", sent.headers["allow"])) >= {"GET", "PUT"}


@pytest.mark.parametrize("prefix", ["", "/uptinio", "/uptinio/v1"])
def test_everywhere_it_is_served(h: House, prefix: str) -> None:
    """It is served at the root, and below its name with and without `/v1`."""
    alert = h.call("POST", f"{prefix}/alerts", uptinio_alert(fresh())).body["data"]
    assert h.call("GET", f"{prefix}/alerts/{alert['id']}").status == 200
    assert h.call("PUT", f"{prefix}/alerts/{alert['id']}", {"status": "resolved"}).status == 200
    assert alert["id"] in [found["id"] for found in h.call("GET", f"{prefix}/alerts?per_page=100").body["data"]]


# --- ids and scopes ------------------------------------------------------------------------------------------


def test_any_id_that_any_party_used(h: House) -> None:
    """The gateway's own id and the one that was shown find the same alert."""
    sent = h.call("POST", "/alerts", uptinio_alert(fresh()))
    own, shown = sent.headers["alert-gateway-id"], sent.body["data"]["id"]
    for name in (own, shown):
        found = h.call("GET", f"/alerts/{name}")
        assert (found.status, found.body["data"]["id"] if found.status == 200 else found.body) == (200, shown)
        assert found.headers["alert-gateway-id"] == own


def test_another_caller_sees_nothing(h: House) -> None:
    """Another caller gets 404 in the vendor's words, and an empty list."""
    alert = _made(h)
    path = f"/alerts/{alert['id']}"
    _is_refused(h.call("GET", path, key=OTHER), 404, "alert_not_found")
    _is_refused(h.call("PUT", path, {"status": "resolved"}, key=OTHER), 404, "alert_not_found")
    assert alert["id"] not in [found["id"] for found in h.call("GET", "/alerts?per_page=100", key=OTHER).body["data"]]
    assert h.call("GET", path).body["data"]["status"] == "active"


def test_a_shared_scope_is_seen_by_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`scope` on an inbound lets several callers share one."""
    with called(tmp_path_factory.mktemp("scope"), {"there": UPTINIO}, inbound='scope = "shared"') as h:
        alert = _made(h)
        assert h.call("GET", "/alerts", key=OTHER).body == {
            "data": [alert],
            "meta": {"page": 1, "per_page": 20, "total": 1},
        }
        assert h.call("PUT", f"/alerts/{alert['id']}", {"status": "resolved"}, key=OTHER).status == 200
        assert h.call("GET", f"/alerts/{alert['id']}").body["data"]["status"] == "resolved"


def test_the_same_dialect_gets_what_was_sent(one: House) -> None:
    """The body arrives with every field, unknown ones included, and nothing added."""
    body = {**SAMPLE, "note": {"by": ["us", None]}, "message": fresh()}
    sent = one.call("POST", "/alerts", body)
    assert sent.status == 201
    assert one.arrived(UPTINIO, "POST")[-1].body == body
    change = {"status": "resolved", "message": "Website is back up", "note": "done"}
    assert one.call("PUT", f"/alerts/{sent.body['data']['id']}", change).status == 200
    assert one.arrived(UPTINIO, "PUT")[-1].body == change
    back = {"status": "active", "message": "Website is down again", "note": "flapping"}
    assert one.call("PUT", f"/alerts/{sent.body['data']['id']}", back).status == 200
    assert one.arrived(UPTINIO, "PUT")[-1].body == back


# --- as an upstream --------------------------------------------------------------------------------------------


def test_what_another_vendor_says_of_kind_and_channels_is_left_out_where_it_has_no_word_for_it() -> None:
    """The channels that it knows stay; where there are none of those, its own default holds."""
    flat: dict[str, Any] = {"resource": "mon_1", "summary": "s", "category": "disk"}
    phones = (Channel(kind="sms"), Channel(kind="pagerduty"))
    written = ALERT.write({**flat, "channels": phones}, Writing())
    assert (written["type"], written["channels"]) == ("custom", ["sms"])
    assert "channels" not in ALERT.write({**flat, "channels": phones[1:]}, Writing())
    assert ALERT.write({**flat, "category": "slow", "channels": ()}, Writing())["channels"] == []


@pytest.mark.parametrize(
    ("pages", "found"),
    [
        ([{"data": [{"id": "a"}], "meta": {"total": 3}}, {"data": [{"id": "a"}], "meta": {"total": 3}}], ["a"]),
        ([{"data": [{"id": "a"}], "meta": {"total": 2}}, {"data": [{"id": "b"}], "meta": {"total": 2}}], ["a", "b"]),
        ([{"data": [{"id": "a"}], "meta": {"total_count": 2}}, {"data": [{"id": "b"}]}], ["a", "b"]),
    ],
)
def test_a_list_is_read_until_a_page_brings_nothing_new(pages: list[Any], found: list[str]) -> None:
    given: dict[str, Any] = {"body": {}, "patch": {}, "key": None, "ids": {}, "seen": {}}
    asked = DIALECT.outbound.list
    assert asked is not None
    call = asked(Sending(operation=Operation.LIST, at=datetime(2026, 1, 1, tzinfo=UTC), **given))
    next(call)
    *before, last = (Response(200, content=json.dumps(page).encode()) for page in pages)
    for answer in before:
        call.send(answer)
    with pytest.raises(StopIteration) as ended:
        call.send(last)
    assert [one.id for one in ended.value.value.alerts] == found
