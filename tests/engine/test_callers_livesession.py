"""LiveSession's alerts API as its callers see it, over HTTP, with LiveSession and with another vendor behind it.

Expectations follow the page "Create alert" and, for the other operations, the vendor's OpenAPI description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.callers import OTHER, behind, called, fresh, livesession_alert
from tests.harness import House, Sent

LIVESESSION = "livesession"


@pytest.fixture(scope="module", params=[LIVESESSION, behind(LIVESESSION)])
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with LiveSession behind it, then with another vendor."""
    with called(tmp_path_factory.mktemp("livesession"), {"there": request.param}) as standing:
        yield standing


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with LiveSession behind it, for behaviour that does not depend on the upstream."""
    with called(tmp_path_factory.mktemp("one"), {"there": LIVESESSION}) as standing:
        yield standing


def _made(h: House, **fields: Any) -> dict[str, Any]:
    sent = h.call("POST", "/v1/alerts", {**livesession_alert(fresh()), **fields})
    assert sent.status == 201, sent.body
    alert: dict[str, Any] = sent.body
    return alert


def _is_refused(sent: Sent, status: int, param: str | None = None) -> None:
    """Asserts a refusal in the page's one envelope: all strings but the status, which equals the answer's."""
    assert sent.status == status, sent.body
    error = sent.body["error"]
    assert set(error) == {"type", "code", "param", "message", "http_status_code", "request_id"}
    assert error.pop("http_status_code") == status
    assert all(isinstance(value, str) for value in error.values())
    assert all(error[name] for name in ("type", "code", "message", "request_id"))
    if param is not None:
        assert error["param"] == param


def _listed(h: House, **how: Any) -> list[dict[str, Any]]:
    sent = h.call("GET", "/v1/alerts", **how)
    assert sent.status == 200
    assert isinstance(sent.body, list), "a bare array, no envelope"
    return sent.body


def test_create(h: House) -> None:
    """Answers 201 with the whole alert: an opaque string id, switched on, an ISO time."""
    body = livesession_alert(fresh())
    sent = h.call("POST", "/v1/alerts", body)
    assert sent.status == 201
    alert = dict(sent.body)
    assert isinstance(alert.pop("alert_id"), str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", alert.pop("creation_date"))
    assert alert.pop("enabled") is True
    unused = alert.pop("webhook_id", None)
    assert unused in (None, "")
    assert alert == body


@pytest.mark.parametrize("prefix", ["", "/livesession"])
def test_below_its_name_and_at_the_root(h: House, prefix: str) -> None:
    """Every operation is served at both."""
    made = h.call("POST", f"{prefix}/v1/alerts", livesession_alert(fresh())).body
    path = f"{prefix}/v1/alerts/{made['alert_id']}"
    assert made["alert_id"] in [one["alert_id"] for one in h.call("GET", f"{prefix}/v1/alerts").body]
    assert h.call("PUT", path, {"name": fresh()}).status == 200
    assert h.call("DELETE", path).status == 200


def test_list_is_a_bare_array_oldest_first(h: House) -> None:
    """Its items have the same fields as the answer to the create."""
    made = [_made(h) for _ in range(3)]
    ids = [alert["alert_id"] for alert in made]
    assert [alert for alert in _listed(h) if alert["alert_id"] in ids] == made


def test_update_is_partial(h: House) -> None:
    """All five fields are optional; those left out stay."""
    alert, name = _made(h), fresh()
    sent = h.call("PUT", f"/v1/alerts/{alert['alert_id']}", {"name": name})
    assert sent.status == 200
    assert sent.body == {**alert, "name": name}
    events = [{"kind": 25, "value": "TypeError"}]
    sent = h.call("PUT", f"/v1/alerts/{alert['alert_id']}", {"events": events})
    assert sent.body == {**alert, "name": name, "events": events}
    change = {"provider": "webhooks", "webhook_id": "542de45"}
    sent = h.call("PUT", f"/v1/alerts/{alert['alert_id']}", change)
    assert sent.status == 200
    assert {key: sent.body[key] for key in change} == change
    found = next(one for one in _listed(h) if one["alert_id"] == alert["alert_id"])
    assert (found["name"], found["provider"], found["webhook_id"]) == (name, "webhooks", "542de45")


def test_a_new_target_without_its_provider(h: House) -> None:
    """An update may name only the channel of the alert's present provider."""
    alert = _made(h)
    sent = h.call("PUT", f"/v1/alerts/{alert['alert_id']}", {"slack_channel_id": "C777"})
    assert sent.status == 200
    assert (sent.body["provider"], sent.body["slack_channel_id"]) == ("slack", "C777")


TARGETS = [
    ({"provider": "webhooks"}, ("webhooks", "C042", "w1"), "the id that it requires is there already"),
    ({"provider": "slack"}, ("slack", "C042", "w1"), "the provider that it has"),
    ({"webhook_id": None}, ("slack", "C042", None), "the unused id is cleared"),
    ({"provider": "webhooks", "webhook_id": "w2"}, ("webhooks", None, "w2"), "a whole target"),
]


@pytest.mark.parametrize(("change", "target", "why"), TARGETS, ids=[why for _, _, why in TARGETS])
def test_what_an_update_leaves_out_of_the_target_is_as_it_was(
    h: House, change: dict[str, Any], target: tuple[str, str | None, str | None], why: str
) -> None:
    """Each of the three fields is optional in an update."""
    alert = _made(h, provider="slack", slack_channel_id="C042", webhook_id="w1")
    sent = h.call("PUT", f"/v1/alerts/{alert['alert_id']}", change)
    assert sent.status == 200, sent.body
    assert tuple(sent.body.get(name) for name in ("provider", "slack_channel_id", "webhook_id")) == target, why


def test_an_update_that_takes_the_target_away_is_refused(h: House) -> None:
    """The field that is required is named, whether the update names its provider or not."""
    alert = _made(h, provider="slack", slack_channel_id="C042")
    for change, field in (
        ({"slack_channel_id": None}, "slack_channel_id"),
        ({"slack_channel_id": ""}, "slack_channel_id"),
        ({"provider": "webhooks"}, "webhook_id"),
    ):
        _is_refused(h.call("PUT", f"/v1/alerts/{alert['alert_id']}", change), 400, field)


def test_a_webhook_id_beside_provider_slack_does_not_change_the_provider(h: House) -> None:
    """An update of the target that the present provider does not use leaves the provider unchanged."""
    alert = _made(h)
    sent = h.call("PUT", f"/v1/alerts/{alert['alert_id']}", {"webhook_id": "542de45"})
    assert sent.status == 200
    assert (sent.body["provider"], sent.body["slack_channel_id"]) == ("slack", "C042")
    assert sent.body["webhook_id"] == "542de45"


def test_delete_answers_with_a_body(h: House) -> None:
    """Answers `{alert_id, deleted}`, not 204: the vendor's Go client fails on an empty answer."""
    alert = _made(h)
    path = f"/v1/alerts/{alert['alert_id']}"
    sent = h.call("DELETE", path)
    assert (sent.status, sent.body) == (200, {"alert_id": alert["alert_id"], "deleted": True})
    assert alert["alert_id"] not in [one["alert_id"] for one in _listed(h)]
    _is_refused(h.call("DELETE", path), 404)
    _is_refused(h.call("PUT", path, {"name": "late"}), 404)


@pytest.mark.parametrize(
    ("value", "text"), [(1000, "1000"), (0.5, "0.5"), (True, "true"), (False, "false"), ("x", "x")]
)
def test_a_number_as_value_is_taken_as_its_text(h: House, value: Any, text: str) -> None:
    """The value is a string, though the page calls it a threshold; a number is read as its text."""
    assert _made(h, events=[{"kind": 29, "value": value}])["events"] == [{"kind": 29, "value": text}]


@pytest.mark.parametrize("kind", [0, 5, 26, 30, 999, -1])
def test_any_integer_is_a_kind(h: House, kind: int) -> None:
    """Any integer is accepted: the page's own sample has a kind that does not exist."""
    assert _made(h, events=[{"kind": kind, "value": "v"}])["events"] == [{"kind": kind, "value": "v"}]


def test_events_may_lack_kind_or_value(h: House) -> None:
    """Neither is marked as required; nothing is made up for a missing one."""
    events = [{"kind": 25}, {"value": "checkout_failed"}]
    assert _made(h, events=events)["events"] == events


def test_webhook_is_an_alias_of_webhooks(one: House) -> None:
    """The provider is plural though its field is singular: both are read, the plural is written."""
    alert = _made(one, provider="webhook", slack_channel_id=None, webhook_id="542de45")
    assert (alert["provider"], alert["webhook_id"]) == ("webhooks", "542de45")
    assert one.arrived(LIVESESSION, "POST")[-1].body["provider"] == "webhooks"
    changed = one.call("PUT", f"/v1/alerts/{alert['alert_id']}", {"provider": "webhook", "webhook_id": "other"})
    assert (changed.status, changed.body["provider"]) == (200, "webhooks")


def test_both_targets_as_in_the_sample(h: House) -> None:
    """The target that the provider names counts; the other is kept as it is."""
    both = {"slack_channel_id": "C1", "webhook_id": "w1"}
    for provider in ("slack", "webhooks"):
        alert = _made(h, provider=provider, **both)
        assert {key: alert[key] for key in both} == both
        assert alert["provider"] == provider


LACKING = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": 7}, "name"),
    ({"events": None}, "events"),
    ({"events": []}, "events"),
    ({"events": {}}, "events"),
    ({"provider": None}, "provider"),
    ({"provider": ""}, "provider"),
    ({"provider": "email"}, "provider"),
    ({"provider": 1}, "provider"),
    ({"slack_channel_id": None}, "slack_channel_id"),
    ({"slack_channel_id": ""}, "slack_channel_id"),
    ({"provider": "webhooks"}, "webhook_id"),
    ({"provider": "webhooks", "webhook_id": ""}, "webhook_id"),
    ({"events": [{"kind": "error", "value": "x"}]}, "events[0].kind"),
    ({"events": [{"kind": 26, "value": "x"}, {"kind": 2.5}]}, "events[1].kind"),
    ({"events": [{"kind": 26, "value": {}}]}, "events[0].value"),
]


@pytest.mark.parametrize(("fields", "param"), LACKING, ids=[str(fields) for fields, _ in LACKING])
def test_what_is_missing_or_wrong_is_named(one: House, fields: dict[str, Any], param: str) -> None:
    """Answers 400 with `param`; an empty string counts as missing, as the Go client sends it. Nothing is sent."""
    before = len(one.arrived(LIVESESSION))
    _is_refused(one.call("POST", "/v1/alerts", {**livesession_alert(fresh()), **fields}), 400, param)
    gone = [key for key, value in fields.items() if value is None]
    if gone:
        body = {key: value for key, value in livesession_alert(fresh()).items() if key not in gone}
        _is_refused(one.call("POST", "/v1/alerts", body), 400, param)
    assert len(one.arrived(LIVESESSION)) == before


@pytest.mark.parametrize("body", ["{", "", '{"name": "a",}', "[1]", "3"])
def test_a_body_that_is_none(one: House, body: str) -> None:
    """Answers 400 in the envelope; the vendor's own samples have trailing commas, which is no JSON."""
    headers = {"authorization": "Bearer caller-key-0123456789abcdef", "content-type": "application/json"}
    answer = one.client.post(f"{one.url}/v1/alerts", content=body, headers=headers)
    _is_refused(Sent(answer.status_code, answer.json(), answer.headers), 400)


def test_the_same_dialect_gets_what_was_sent(one: House) -> None:
    """The body arrives with every field, unknown ones included, and nothing added."""
    body = {**livesession_alert(fresh()), "webhook_id": "w1", "colour": {"deep": [1, None]}}
    assert one.call("POST", "/v1/alerts", body).status == 201
    assert one.arrived(LIVESESSION, "POST")[-1].body == body
    change = {"name": fresh(), "colour": "red"}
    shown = _listed(one)[-1]["alert_id"]
    assert one.call("PUT", f"/v1/alerts/{shown}", change).status == 200
    assert one.arrived(LIVESESSION, "PUT")[-1].body == change


def test_any_id_that_any_party_used(h: House) -> None:
    """The gateway's own id and the one that was shown find the same alert."""
    sent = h.call("POST", "/v1/alerts", livesession_alert(fresh()))
    own, shown = sent.headers["alert-gateway-id"], sent.body["alert_id"]
    for name in (own, shown):
        found = h.call("PUT", f"/v1/alerts/{name}", {"name": fresh()})
        assert (found.status, found.body.get("alert_id")) == (200, shown)
        assert found.headers["alert-gateway-id"] == own


def test_another_caller_sees_nothing(h: House) -> None:
    """Another caller gets 404 in the vendor's words, and an empty list."""
    alert = _made(h)
    path = f"/v1/alerts/{alert['alert_id']}"
    _is_refused(h.call("PUT", path, {"name": "mine"}, key=OTHER), 404)
    _is_refused(h.call("DELETE", path, key=OTHER), 404)
    assert alert["alert_id"] not in [one["alert_id"] for one in _listed(h, key=OTHER)]
    assert alert in _listed(h)


def test_a_shared_scope_is_seen_by_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`scope` on an inbound lets several callers share one."""
    with called(tmp_path_factory.mktemp("scope"), {"there": LIVESESSION}, inbound='scope = "shared"') as h:
        alert = _made(h)
        assert _listed(h, key=OTHER) == [alert]
        assert h.call("DELETE", f"/v1/alerts/{alert['alert_id']}", key=OTHER).status == 200
        assert _listed(h) == []


@pytest.mark.parametrize("prefix", ["", "/livesession"])
@pytest.mark.parametrize("credential", [None, "Bearer wrong", "wrong", "Bearer", "Basic Y2k6Y2k="])
def test_a_credential_that_does_not_fit(one: House, prefix: str, credential: str | None) -> None:
    """Every operation answers 401 in the envelope."""
    headers = {} if credential is None else {"authorization": credential}
    for method, path in [("GET", ""), ("POST", ""), ("PUT", "/1"), ("DELETE", "/1")]:
        sent = one.call(method, f"{prefix}/v1/alerts{path}", {}, key=None, headers=headers)
        _is_refused(sent, 401)
        assert sent.body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "{}"])
def test_a_token_with_or_without_its_scheme(one: House, form: str) -> None:
    """The vendor's Go client sends the key as it is, its Node client puts Bearer before it."""
    headers = {"authorization": form.format("caller-key-0123456789abcdef")}
    assert one.call("GET", "/v1/alerts", key=None, headers=headers).status == 200


def test_paths_and_methods_that_are_not_there(one: House) -> None:
    """Answers 404 and 405 in the envelope. This API has no GET of one alert."""
    _is_refused(one.call("GET", "/livesession/v1/nothing"), 404)
    alert = _made(one)
    sent = one.call("GET", f"/livesession/v1/alerts/{alert['alert_id']}")
    _is_refused(sent, 405)
    assert set(re.split(r",\s*", sent.headers["allow"])) >= {"PUT", "DELETE"}
    sent = one.call("PATCH", "/livesession/v1/alerts", {})
    _is_refused(sent, 405)
    assert {"GET", "POST"} <= set(re.split(r",\s*", sent.headers["allow"]))


def test_enabled_cannot_be_set(one: House) -> None:
    """`enabled` belongs to the server: an update that sets it false leaves the alert switched on."""
    alert = _made(one)
    sent = one.call("PUT", f"/v1/alerts/{alert['alert_id']}", {"enabled": False})
    assert sent.status == 200
    assert sent.body["enabled"] is True
