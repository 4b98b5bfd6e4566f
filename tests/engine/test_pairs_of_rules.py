"""All pairs, further: rules at vendors of pages, how each target ends an alert, keys and names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli.sandbox import Arrived
from tests.chaos_upstream import chaos, say
from tests.clients.callers import (
    ASKS,
    COLLECTIONS,
    OTHER,
    create,
    fresh,
    ibm_alert,
    ilert_event,
    listed,
    uptinio_alert,
)
from tests.engine.pairs import DIALECTS, HAS_TEXT, Houses, Watch, fields_of
from tests.engine.vendors import OK, before, settled, table

# --- a rule is not a page ------------------------------------------------------------------------------------


def test_a_disabled_rule_goes_out_quietly_to_ilert(houses: Houses) -> None:
    """At the lowest severity with `priority: LOW`; stated in the report and the details, never in the summary."""
    h, name = houses("ilert"), fresh()
    watch = Watch(h)
    sent = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(name, enabled=False, severity=0))
    assert sent.status == 200, sent.body
    [event] = watch.sees(1)
    assert (event.body["eventType"], event.body["summary"]) == ("ALERT", name)
    assert (event.body["priority"], event.body["severity"]) == ("LOW", 5)
    assert "Uptime" in event.body["details"], "the sender's own text"
    assert any(word in event.body["details"].lower() for word in ("disabled", "switched off", "not enabled"))
    [line] = sent.report
    assert "approximated=" in line
    assert sent.body["alert"]["enabled"] is False
    assert sent.body["alert"]["severity"] == 0, "the record says what the caller said"


def test_a_disabled_rule_at_uptinio(houses: Houses) -> None:
    """A target without severity gets it unchanged, and that is reported."""
    h, name = houses("uptinio"), fresh()
    watch = Watch(h)
    sent = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(name, enabled=False))
    [made] = watch.sees(1)
    assert (made.body["message"], made.body["type"]) == (name, "custom")
    assert any("enabled" in line for line in sent.report), sent.report


def test_an_enabled_rule_pages_as_it_says(houses: Houses) -> None:
    """An enabled rule has its own severity and is not quieted."""
    h = houses("ilert")
    watch = Watch(h)
    h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(fresh(), severity=0))
    [event] = watch.sees(1)
    assert event.body.get("severity") == 1
    assert event.body.get("priority", "HIGH") == "HIGH"


@pytest.mark.parametrize("target", DIALECTS)
def test_an_unchanged_put_sends_nothing(houses: Houses, target: str) -> None:
    """As the SDK does, the whole object is sent back as read: nothing goes out, and the next change is the next
    request."""
    h = houses(target)
    ref, sent = create(h, "ibm_monitoring", fresh())
    watch, path = Watch(h), f"{COLLECTIONS['ibm_monitoring']}/{ref}"
    same = h.call("PUT", path, {"alert": sent.body["alert"]})
    assert same.status == 200, same.body
    text = fresh("text")
    assert h.call("PUT", path, {"alert": {"name": text}}).status == 200
    [put] = watch.sees(1)
    assert fields_of(put)[HAS_TEXT[target]] == text


@pytest.mark.parametrize("target", ["livesession", "uptinio"])
def test_a_change_that_a_target_cannot_hold_sends_nothing(houses: Houses, target: str) -> None:
    """A change the target has no place for is kept in the record and makes no delivery: no empty update goes out."""
    h = houses(target)
    ref, _ = create(h, "ibm_monitoring", fresh())
    watch, path, text = Watch(h), f"{COLLECTIONS['ibm_monitoring']}/{ref}", fresh("text")
    sent = h.call("PUT", path, {"alert": {"filter": "env = 'prod'"}})
    assert sent.status == 200, sent.body
    assert any("condition.scope" in line for line in sent.report), sent.report
    assert h.call("PUT", path, {"alert": {"name": text}}).status == 200
    assert [fields_of(one) for one in watch.sees(1)] == [{HAS_TEXT[target]: text}]


@pytest.mark.parametrize("target", ["alertmanager", "alertmanager_webhook", "grafana"])
def test_a_rule_that_is_switched_on_is_as_urgent_as_it_says_where_labels_are_the_identity(
    houses: Houses, target: str
) -> None:
    """The labels of the quiet trigger stay until its end, so that comes first: with them, the rule would never wake
    anybody. After an end they are new if the severity is another."""
    h, watch = houses(target), Watch(houses(target))
    made = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(fresh(), severity=1, enabled=False))
    place = f"{COLLECTIONS['ibm_monitoring']}/{made.body['alert']['id']}"

    def put(**fields: object) -> None:
        assert h.call("PUT", place, {"alert": fields}).status == 200

    put(enabled=True)
    assert [_label(one) for one in watch.sees(3)] == [("info", True), ("info", False), ("critical", True)]
    for fields in ({"enabled": False}, {"severity": 4}, {"enabled": True}):
        put(**fields)
    assert [_label(one) for one in watch.sees(5)[3:]] == [("critical", False), ("warning", True)]


def _label(one: Arrived) -> tuple[str, bool]:
    """The severity in an alert's labels, and whether it is posted as open."""
    [alert] = one.body if isinstance(one.body, list) else one.body["alerts"]
    ends = datetime.fromisoformat(alert["endsAt"])
    return alert["labels"]["severity"], ends.year == 1 or ends > datetime.now(UTC) + timedelta(minutes=1)


def test_rules_quiet_and_refused(houses: Houses) -> None:
    """`rules = "quiet"` sends every rule at the lowest severity; `"refuse"` refuses them in the caller's words."""
    quiet = houses("ilert", 'rules = "quiet"\n')
    watch = Watch(quiet)
    quiet.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(fresh(), severity=0))
    create(quiet, "uptinio", fresh())
    rule, occurrence = watch.sees(2)
    assert (rule.body["priority"], rule.body["severity"]) == ("LOW", 5)
    assert occurrence.body.get("priority") != "LOW", "an occurrence is no rule"
    strict = houses("ilert", 'rules = "refuse"\n')
    sent = strict.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(fresh()))
    assert sent.status == 400
    assert "there" in sent.body["errors"][0]["message"]
    assert listed(strict, "ibm_monitoring") == []
    create(strict, "uptinio", fresh())
    assert len(strict.arrives("ilert", 1)) == 1


NO_RULES = 'rules = "refuse"'
TOLD_WHEN = {
    "it is sent again": 'to = ["metrics", "oncall"]',
    "it is a fallback": 'to = ["metrics"]\nfallback = { to = ["oncall"], after = "50ms" }',
}


@pytest.mark.parametrize("when", TOLD_WHEN)
def test_an_upstream_that_takes_no_rules_is_told_of_none(tmp_path: Path, when: str) -> None:
    """Nor where an operator sends dead letters again, or where it is a fallback whose turn has come."""
    routes, top = f"[[routes]]\n{TOLD_WHEN[when]}\n", 'reply_timeout = "50ms"'
    with chaos(say(503, {})) as metrics, chaos(OK) as oncall:
        tables = table("metrics", metrics.url, "ibm_monitoring"), table("oncall", oncall.url, "ilert", NO_RULES)
        with before(tmp_path, *tables, routes=routes, top=top) as h:
            assert h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(fresh())).status == 200
            [dead] = settled(h, "dead")
            if when == "it is sent again":
                assert h.client.post(f"{h.url}/-/retry", json={"dead": True}).json()["done"] == [dead.id]
                [dead] = settled(h, "dead")
            assert (dead.upstream, dead.code, dead.attempts) == ("oncall", "rules_refused", 0)
            [shown] = h.client.get(f"{h.url}/-/deliveries?state=dead").json()["deliveries"]
            assert "takes no rules" in shown["would_send"][0]
            assert not oncall.got


def test_good_news_from_uptinio_wakes_nobody(houses: Houses) -> None:
    """`type: up` is sent quietly too, and stays `up` where the target has a place for the type."""
    h, message = houses("ilert"), fresh()
    watch = Watch(h)
    h.call("POST", COLLECTIONS["uptinio"], uptinio_alert(message, type="up"))
    [event] = watch.sees(1)
    assert (event.body["eventType"], event.body["summary"]) == ("ALERT", message)
    assert (event.body["priority"], event.body["severity"]) == ("LOW", 5)
    down = houses("uptinio")
    watch = Watch(down)
    create(down, "ilert", fresh())
    assert watch.sees(1)[0].body["type"] == "custom", "no alert is turned into up"


# --- how a target ends, keys and names -----------------------------------------------------------------------


@pytest.mark.parametrize("target", DIALECTS)
def test_on_resolve_keep(houses: Houses, target: str) -> None:
    """Nothing is sent, which is reported, and the record is resolved."""
    h = houses(target, 'on_resolve = "keep"\n')
    watch = Watch(h)
    ref, _ = create(h, "uptinio", fresh())
    sent = ASKS["uptinio"]["resolve"](h, ref, "")
    assert (sent.status, sent.body["data"]["status"]) == (200, "resolved")
    assert any("kept=" in line for line in sent.report), sent.report
    create(h, "uptinio", fresh())
    assert [one.method for one in watch.sees(2)] == ["POST", "POST"]


def test_on_resolve_delete_at_ibm(houses: Houses) -> None:
    """The rule is deleted instead of switched off; a reopen creates it again."""
    h = houses("ibm_monitoring", 'on_resolve = "delete"\n')
    watch = Watch(h)
    ref, _ = create(h, "uptinio", fresh())
    for operation in ("resolve", "reopen"):
        assert ASKS["uptinio"][operation](h, ref, "").status == 200
    assert [one.method for one in watch.sees(3)] == ["POST", "DELETE", "POST"]


def test_the_key_of_a_rule_that_was_switched_off_switches_it_on_again(houses: Houses) -> None:
    """After a resolve the same key is a new alert; at IBM its old rule is switched on with the new values."""
    h, text = houses("ibm_monitoring"), fresh("text")
    watch = Watch(h)
    key, first = create(h, "ilert", fresh())
    ASKS["ilert"]["resolve"](h, key, "")
    second = ASKS["ilert"]["update"](h, key, text)
    assert second.headers["alert-gateway-id"] != first.headers["alert-gateway-id"]
    _, off, on = watch.sees(3)
    assert (off.method, off.body["alert"]["enabled"]) == ("PUT", False)
    assert (on.method, on.path) == ("PUT", off.path)
    assert (on.body["alert"]["enabled"], on.body["alert"]["name"]) == (True, text)
    ASKS["ilert"]["resolve"](h, key, "")
    assert watch.sees(4)[3].path == off.path


def test_a_rule_that_is_switched_on_again_says_nothing_of_its_earlier_alert(houses: Houses) -> None:
    """What only the earlier alert said is cleared: another's severity would wake the wrong people, or nobody."""
    h, key = houses("ibm_monitoring"), fresh("key")
    watch = Watch(h)
    first = {"summary": fresh(), "details": "99 % full", "severity": 5}
    for word, fields in (("ALERT", first), ("RESOLVE", {}), ("ALERT", {"summary": fresh()})):
        event = ilert_event(word, key, **fields)
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
    made, _, on = (one.body["alert"] for one in watch.sees(3))
    assert (made["description"], made["severity"], made["severityLabel"]) == ("99 % full", 6, "INFO")
    assert [on.get(name) for name in ("description", "severity", "severityLabel")] == [None, None, None]


@pytest.mark.parametrize("other", ["livesession", "uptinio", "ilert"])
def test_a_name_that_is_taken_at_ibm(houses: Houses, other: str) -> None:
    """For callers of other dialects the gateway's id is appended in brackets, once."""
    h, text = houses("ibm_monitoring"), fresh("text")
    create(h, other, text)
    watch = Watch(h)
    _, sent = create(h, other, text)
    own = sent.headers["alert-gateway-id"]
    refused, taken = watch.sees(2)
    assert refused.body["alert"]["name"] == text
    assert taken.body["alert"]["name"] == f"{text} [{own}]"
    assert [alert[HAS_TEXT[other]] for alert in listed(h, other)].count(text) == 2, "the callers see their own words"


def test_a_name_that_is_taken_at_ibm_for_an_ibm_caller(houses: Houses) -> None:
    """It is refused: 422 in IBM's words, and nothing remains."""
    h, name = houses("ibm_monitoring"), fresh()
    create(h, "ibm_monitoring", name)
    watch = Watch(h)
    sent = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(name), key=OTHER)
    assert sent.status == 422, sent.body
    assert "name" in sent.body["errors"][0]["reason"]
    assert [one.body["alert"]["name"] for one in watch.sees(1)] == [name], "sent once, as it is"
    assert name not in [alert["name"] for alert in listed(h, "ibm_monitoring", key=OTHER)]


def test_units_on_the_way_to_ibm(houses: Houses) -> None:
    """Uptinio's seconds become whole minutes in microseconds, rounded up and reported."""
    h = houses("ibm_monitoring")
    for seconds, wanted in ((300, 300_000_000), (61, 120_000_000), (1, 60_000_000)):
        watch, threshold = Watch(h), {"value": 1000, "operator": ">", "duration": seconds}
        sent = h.call("POST", COLLECTIONS["uptinio"], uptinio_alert(fresh(), threshold=threshold))
        assert sent.status == 201
        [made] = watch.sees(1)
        assert made.body["alert"]["timespan"] == wanted
        assert (made.body["alert"]["type"], made.body["alert"]["segmentCondition"]) == ("MANUAL", {"type": "ANY"})
        assert any("condition.window" in line for line in sent.report) == (seconds != 300), sent.report


def test_livesession_gets_a_custom_event(houses: Houses) -> None:
    """One event of kind 26 whose value is the key, or the summary where there is no key."""
    h, message = houses("livesession"), fresh()
    watch = Watch(h)
    create(h, "uptinio", message)
    key, _ = create(h, "ilert", fresh())
    values = [one.body["events"] for one in watch.sees(2)]
    assert values == [[{"kind": 26, "value": message}], [{"kind": 26, "value": key}]]
