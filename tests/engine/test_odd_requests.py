"""Requests at the edges of what vendors document: what is accepted, what is refused in which words, and what is sent
on. The rule is canonical.md, *Tolerance on the way in*."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loading import parse
from gateway.mapping.saying import Saying
from gateway.mapping.translation import translate
from tests.chaos_upstream import chaos
from tests.clients.callers import COLLECTIONS, called, ibm_alert, ilert_event, livesession_alert, uptinio_alert
from tests.engine.vendors import Ibm, before, inner, table, writes
from tests.harness import KEY, House


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway where callers of each dialect have an upstream of their own vendor."""
    names = ("ibm_monitoring", "ilert", "livesession", "uptinio")
    routes = "\n".join(f'[[routes]]\nfrom = ["{name}"]\nto = ["{name}"]' for name in names)
    with called(tmp_path_factory.mktemp("odd"), {name: name for name in names}, routes=routes) as standing:
        yield standing


def test_an_accept_may_bring_an_empty_object(h: House) -> None:
    """ilert, `PUT /api/alerts/{id}/accept`: a body of `{}` is accepted, and is no second credential beside the
    Bearer."""
    for word, status in (("accept", "ACCEPTED"), ("resolve", "RESOLVED")):
        made = h.call("POST", "/ilert/api/events", ilert_event("ALERT", f"{word} it", summary="s"), key=None)
        address = f"/ilert/api/alerts/{made.headers['alert-gateway-id']}"
        assert h.call("PUT", f"{address}/{word}", {}, key="another").status == 401
        taken = h.call("PUT", f"{address}/{word}", {})
        assert (taken.status, taken.body["status"]) == (200, status), taken.body


@pytest.mark.parametrize("name", ["{}", "%7B%7D", "{id}"])
def test_a_template_that_was_not_filled_in_names_no_alert(h: House, name: str) -> None:
    """A path with the placeholder left in is answered like any unknown id."""
    assert h.call("GET", f"/ilert/api/alerts/{name}").status == 404
    assert h.call("PUT", f"/ilert/api/alerts/{name}/accept", {}).status == 404


@pytest.mark.parametrize(("said", "unsaid"), [("severityLabel", "severity"), ("severity", "severityLabel")])
def test_one_voice_of_a_severity_is_not_contradicted_by_the_old_other(tmp_path: Path, said: str, unsaid: str) -> None:
    """canonical.md, *Severity*: of `severity` and `severityLabel` the one that differs from the record is the change;
    the rule sent to IBM must not hold the other's old value."""
    there, values = Ibm(), {"severity": 0, "severityLabel": "HIGH"}
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("n", severity=6, severityLabel="INFO")))
        held = there.held[str(made["id"])]
        assert (held["severity"], held["severityLabel"]) == (6, "INFO")
        changed = h.call("PUT", f"/ibm_monitoring/api/alerts/{made['id']}", {"alert": {said: values[said]}})
        assert changed.status == 200, changed.body
        [sent] = writes(upstream, "PUT")
        assert sent.body["alert"][said] == values[said]
        assert sent.body["alert"].get(unsaid) in (None, *((0, 1) if unsaid == "severity" else ("HIGH",)))


CASES: tuple[tuple[str, Any, str], ...] = (
    ("/ibm_monitoring/api/alerts", ibm_alert("channels", notificationChannelIds=["--5"]), "notificationChannelIds"),
    ("/ibm_monitoring/api/alerts", ibm_alert("channels", notificationChannelIds=["5-"]), "notificationChannelIds"),
    ("/uptinio/alerts", uptinio_alert("long", threshold={"value": 1, "operator": ">", "duration": 1e308}), "duration"),
    ("/uptinio/alerts", uptinio_alert("back", threshold={"value": 1, "operator": ">", "duration": -1}), "duration"),
)


@pytest.mark.parametrize(("path", "body", "field"), CASES)
def test_a_number_that_is_none_is_refused_by_name(h: House, path: str, body: Any, field: str) -> None:
    """*Tolerance*: a wrong type or value is a 4xx in the vendor's shape that names the field."""
    refused = h.call("POST", path, body)
    assert refused.status == 400 and field in str(refused.body), refused.body


@pytest.mark.parametrize("dialect", sorted(COLLECTIONS))
def test_too_many_query_parameters_are_refused_in_the_vendor_s_words(h: House, dialect: str) -> None:
    """interface.md, *HTTP*: every answer to a vendor route is in that vendor's own shape."""
    path = "/livesession/v1/alerts" if dialect == "livesession" else f"/{dialect}/api/alerts"
    path = COLLECTIONS[dialect] if dialect in ("jsm_ops", "opsgenie", "uptinio") else path
    refused = h.call("GET", path + "?" + "&".join(f"p{number}=1" for number in range(201)))
    assert 400 <= refused.status < 500, refused.body
    shapes = {"ibm_monitoring": "errors", "ilert": "message", "livesession": "error", "uptinio": "error"}
    shapes |= {"jsm_ops": "message", "opsgenie": "message"}
    assert shapes[dialect] in refused.body
    assert refused.headers["alert-gateway-id"].isdigit()
    assert h.call("GET", path + "?" + "&".join(f"p{number}=1" for number in range(150))).status == 200


def test_another_webhook_and_no_slack_channel(h: House) -> None:
    """livesession's sheet: a target is `provider` and its id; `null` clears a channel that is not in use."""
    body = livesession_alert("hooked", provider="webhooks", webhook_id="w1")
    del body["slack_channel_id"]
    made = h.call("POST", "/livesession/v1/alerts", body).body
    address = f"/livesession/v1/alerts/{made['alert_id']}"
    changed = h.call("PUT", address, {"webhook_id": "w2", "slack_channel_id": None})
    assert changed.status == 200, changed.body
    assert (changed.body["provider"], changed.body["webhook_id"]) == ("webhooks", "w2")
    assert not changed.body.get("slack_channel_id")
    assert h.arrived("livesession", "PUT")[-1].body["webhook_id"] == "w2"


def test_no_timespan_at_all_is_a_minute(h: House) -> None:
    """*Tolerance*: an IBM `timespan` that is zero, or no whole number of minutes, is rounded up and reported."""
    for given, wanted in ((0, 60_000_000), (1, 60_000_000), (60_000_001, 120_000_000)):
        sent = h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert(f"window {given}", timespan=given))
        assert sent.status == 200, sent.body
        assert h.arrived("ibm_monitoring", "POST")[-1].body["alert"]["timespan"] == wanted
        assert any("approximated" in line and "condition.window" in line for line in sent.report), sent.report


@pytest.mark.parametrize("changed", [None, ("summary",)])
def test_a_late_page_between_two_of_one_vendor_says_so_first(changed: tuple[str, ...] | None) -> None:
    """canonical.md, *Carrying*: between two of one vendor nothing is added except the late note, which is reported."""
    config = parse(
        f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        '[upstreams.there]\ndialect = "ilert"\nurl = "https://api.ilert.com"\nkey = "secret-key"\n'
    )
    said = {"summary": "Disk full", "details": "on db-1"}
    words = Saying(
        flat={"kind": "occurrence", "status": "firing", **said},
        origin="ilert",
        caller="ci",
        key="disk",
        changed=changed,
        verbatim=said,
        said=said,
        late="Late by 7 minutes.",
    )
    told = translate(words, config.upstreams["there"].destination)
    for sent in (told.body, told.patch) if changed else (told.body,):
        assert sent["details"] == "Late by 7 minutes.\n\non db-1"
        assert sent["summary"] == "Disk full", "never in the summary"
    on_time = Saying(flat=words.flat, origin="ilert", caller="ci", verbatim=said)
    assert translate(on_time, config.upstreams["there"].destination).body["details"] == "on db-1"
    if changed is None:
        [fate] = [fate for fate in told.report if fate.field == "details"]
        assert fate.fate == "approximated" and "late" in fate.why
