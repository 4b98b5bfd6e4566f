"""Alertmanager's callers: batches, repeats and ends as Prometheus posts them, lists and filters as amtool requests
them, and the webhook of another Alertmanager. https://prometheus.io/docs/alerting/latest/clients/"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway import asking
from gateway.asked import Command
from gateway.errors import Problem, ProblemKind
from mappings.alertmanager import commands
from mappings.alertmanager.alert import fingerprint, is_uri
from tests.clients.callers import ALERTS, OTHER, fresh
from tests.engine.lasting import STORES, address, alert, lasting, posted, seconds, select, words
from tests.harness import House, Sent

WEBHOOK = "/alertmanager/webhook"


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with lasting(tmp_path_factory.mktemp("callers"), {"there": "ilert"}) as standing:
        yield standing


def _named(word: str) -> str:
    return fresh(word).replace(" ", "")


def _listed(h: House, path: str = ALERTS, **query: Any) -> Any:
    sent = h.call("GET", f"{path}?{urlencode(query, doseq=True)}")
    assert sent.status == 200, sent.body
    return sent.body


def _names(h: House, **query: Any) -> list[str]:
    return [one["labels"]["alertname"] for one in _listed(h, **query)]


# --- batches ---------------------------------------------------------------------------------------------------


def test_a_batch_is_its_alerts(h: House) -> None:
    """Each alert of a batch is accepted by itself; success has no body, and an alert that occurs twice is one."""
    one, other = _named("Batch"), _named("Batch")
    sent = posted(h, alert(one), alert(other), alert(one))
    assert sent.body is None and sent.headers["content-length"] == "0"
    h.wait_for(lambda: words(h, one) == words(h, other) == ["ALERT"])
    assert posted(h).body is None, "nothing to say is no fault"


@pytest.mark.parametrize("kind", STORES)
def test_what_is_wrong_with_some_keeps_no_others_back(tmp_path: Path, kind: str) -> None:
    """Answers 400 with the joined errors, once the valid alerts are durable."""
    good, late = _named("Good"), _named("Late")
    ill = [
        {"labels": {}},
        {"labels": {"only": ""}},
        alert(late, startsAt=seconds(60), endsAt=seconds(30)),
        {"labels": {"": "x"}},
    ]
    with lasting(tmp_path, {"there": "ilert"}, store=address(kind, tmp_path)) as h:
        refused = h.call("POST", ALERTS, [ill[0], alert(good), *ill[1:]])
        assert refused.status == 400
        assert refused.body.split("; ") == [
            "at least one label pair required",
            "start time must be before end time",
            'invalid label set: invalid name ""',
        ]
        assert _names(h) == [good]
        h.wait_for(lambda: words(h, good) == ["ALERT"])
        assert len(select(h, "SELECT id FROM commands")) == 1


def test_a_fault_is_gone_without_the_garbage_collector() -> None:
    """The fault of one alert leads to the frame that it went through, which keeps the faults of all."""

    def read(one: str) -> Command:
        raise Problem(ProblemKind.INVALID, one)

    gc.collect()
    gc.disable()
    try:
        kept = [weakref.ref(one) for one in asking.each(["a", "b"], read).problems]
        assert [one() for one in kept] == [None, None]
    finally:
        gc.enable()


def test_of_many_faults_only_those_that_are_told_are_kept() -> None:
    """A request of a mebibyte has room for 300,000 of them, which took more than half a gibibyte."""
    seen: list[weakref.ref[Problem]] = []
    most = 0

    def read(number: int) -> Command:
        nonlocal most
        most = max(most, sum(one() is not None for one in seen))
        problem = Problem(ProblemKind.INVALID, str(number))
        seen.append(weakref.ref(problem))
        raise problem

    assert [one.message for one in asking.each(range(200), read).problems] == [str(one) for one in range(20)]
    assert most <= 21


def test_many_at_once(h: House) -> None:
    """Accepts as many alerts as Prometheus sends in one request."""
    names = [_named("Many") for _ in range(256)]
    posted(h, *map(alert, names))
    assert set(names) <= set(_names(h))
    posted(h, *(alert(name, endsAt=seconds(-1)) for name in names))
    assert not set(names) & set(_names(h))
    h.wait_for(lambda: words(h, names[-1]) == ["ALERT", "RESOLVE"], 60)


def test_one_line_of_report_per_upstream(tmp_path: Path) -> None:
    with lasting(tmp_path, {"one": "ibm_monitoring", "other": "uptinio"}) as h:
        sent = posted(h, alert(_named("A")), alert(_named("B"), generatorURL="http://prometheus:9090/graph"))
        assert [line.partition(";")[0] for line in sent.report] == ["one", "other"]


def test_an_idempotency_key_on_a_batch(tmp_path: Path) -> None:
    """A repeated batch delivers each alert once; another batch under the same key is refused."""
    alerts, key = [alert(_named("A")), alert(_named("B"))], {"idempotency-key": "k1"}
    with lasting(tmp_path, {"there": "uptinio"}) as h:
        first = posted(h, *alerts, headers=key)
        again = posted(h, *alerts, headers=key)
        assert (again.report, again.headers["alert-gateway-id"]) == (first.report, first.headers["alert-gateway-id"])
        assert len(select(h, "SELECT id FROM commands")) == 2
        refused = h.call("POST", ALERTS, [alerts[0], alert(_named("C"))], headers=key)
        assert refused.status == 422
        assert len(h.arrives("uptinio", 2)) == 2


def test_callers_see_nothing_of_each_other(h: House) -> None:
    name = _named("Own")
    posted(h, alert(name))
    assert h.call("GET", ALERTS, key=OTHER).body == []
    assert h.call("POST", ALERTS, [alert(name, endsAt=seconds(-1))], key=OTHER).status == 200
    assert name in _names(h)


# --- what is said again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_what_is_said_again_moves_the_end_and_nothing_else(tmp_path: Path, kind: str) -> None:
    name = _named("Again")
    with lasting(tmp_path, {"there": "ilert"}, store=address(kind, tmp_path)) as h:
        posted(h, alert(name, endsAt=seconds(60)))
        [first] = _listed(h)
        for _ in range(5):
            posted(h, alert(name, endsAt=seconds(120)))
        [last] = _listed(h)
        assert last["endsAt"] > first["endsAt"]
        assert (last["updatedAt"], last["startsAt"]) == (first["updatedAt"], first["startsAt"])
        h.wait_for(lambda: words(h, name) == ["ALERT"])
        assert len(select(h, "SELECT id FROM commands")) == len(select(h, "SELECT id FROM deliveries")) == 1
        for _ in range(5):
            posted(h, alert(name, endsAt=seconds(-1)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "RESOLVE"])
        assert len(select(h, "SELECT id FROM commands")) == len(select(h, "SELECT id FROM deliveries")) == 2


def test_the_newest_annotations_count_and_the_earliest_start(h: House) -> None:
    name, began = _named("Newest"), seconds(-300)
    posted(h, alert(name, startsAt=began, generatorURL="http://p/1"))
    posted(h, {**alert(name, startsAt=seconds(-10)), "annotations": {"summary": f"{name} is down", "more": "yes"}})
    [shown] = _listed(h, filter=f"alertname={name}")
    assert shown["annotations"] == {"summary": f"{name} is down", "more": "yes"}
    assert datetime.fromisoformat(shown["startsAt"]) == datetime.fromisoformat(began)
    assert "generatorURL" not in shown


def test_an_end_that_nobody_knows_the_beginning_of_is_told_once(tmp_path: Path) -> None:
    """An end of an unknown alert is sent, once, to an upstream that finds alerts by key: it may have been opened there
    before the gateway was in place."""
    name = _named("Unknown")
    with lasting(tmp_path, {"there": "ilert", "rules": "ibm_monitoring"}) as h:
        for _ in range(3):
            posted(h, alert(name, endsAt=seconds(-60)))
        [told] = h.arrives("ilert", 1)
        assert told.body["eventType"] == "RESOLVE"
        assert told.body["alertKey"] == fingerprint(alert(name)["labels"])
        assert len(select(h, "SELECT id FROM deliveries")) == 1
        assert h.arrived("ibm_monitoring") == []


def test_an_alert_that_comes_back_is_told_again(h: House) -> None:
    name = _named("Back")
    for ends in (60, -1, 60, -1):
        posted(h, alert(name, endsAt=seconds(ends)))
    h.wait_for(lambda: words(h, name) == ["ALERT", "RESOLVE"] * 2)


@pytest.mark.parametrize("kind", STORES)
def test_what_one_request_says_of_one_alert_happens_in_its_order(tmp_path: Path, kind: str) -> None:
    name = _named("Order")
    with lasting(tmp_path, {"there": "ilert"}, store=address(kind, tmp_path)) as h:
        posted(h, *(alert(name, endsAt=seconds(ends)) for ends in (60, -1, 60, -1)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "RESOLVE"] * 2)
        assert _names(h) == []


# --- an end that comes by itself -------------------------------------------------------------------------------


def test_five_minutes_where_nothing_is_said(h: House) -> None:
    for ends in ({}, {"endsAt": "0001-01-01T00:00:00.000Z"}):
        name = _named("Default")
        posted(h, alert(name, **ends))
        [shown] = _listed(h, filter=f"alertname={name}")
        left = datetime.fromisoformat(shown["endsAt"]) - datetime.now(UTC)
        assert timedelta(minutes=4.5) < left <= timedelta(minutes=5)


@pytest.mark.parametrize("kind", STORES)
def test_a_sender_that_goes_silent(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert that is not renewed ends by itself, at all upstreams too; what is posted afterwards is another alert."""
    monkeypatch.setattr(commands, "RESOLVE_TIMEOUT", timedelta(seconds=1))
    name, held = _named("Silent"), _named("Held")
    behind = {"page": "ilert", "events": "pagerduty", "rules": "ibm_monitoring"}
    with lasting(tmp_path, behind, store=address(kind, tmp_path)) as h:
        posted(h, alert(name), alert(held, endsAt=seconds(60)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "RESOLVE"], 15)
        actions = h.wait_for(lambda: len(found := h.arrived("pagerduty")) == 3 and found)
        assert sorted(one.body["event_action"] for one in actions) == ["resolve", "trigger", "trigger"]
        puts = h.wait_for(lambda: h.arrived("ibm_monitoring", "PUT"))
        assert [one.body["alert"]["enabled"] for one in puts] == [False]
        assert _names(h) == [held] and words(h, held) == ["ALERT"]
        posted(h, alert(name, endsAt=seconds(60)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "RESOLVE", "ALERT"])


def test_an_alert_goes_on_for_as_long_as_it_is_said(tmp_path: Path) -> None:
    name = _named("On")
    with lasting(tmp_path, {"there": "ilert"}) as h:
        until = datetime.now(UTC) + timedelta(seconds=4)
        while datetime.now(UTC) < until:
            posted(h, alert(name, endsAt=seconds(2)))
            assert _names(h) == [name]
        assert words(h, name) == ["ALERT"]


# --- what is refused -------------------------------------------------------------------------------------------

UNPARSED = 'parsing alerts body from "" failed, because'


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"labels": {"a": "b"}}, 400, 400, UNPARSED),
        ([7], 400, 400, UNPARSED),
        ([{"labels": {"a": 7}}], 400, 400, UNPARSED),
        ([{"labels": {"a": "b"}, "endsAt": "soon"}], 400, 400, UNPARSED),
        ([{"annotations": {}}], 422, 602, "0.labels in body is required"),
        ([{"labels": {"a": "b"}}, {"labels": None}], 422, 602, "1.labels in body is required"),
        (
            [{"labels": {"a": "b"}, "generatorURL": "no address"}],
            422,
            601,
            "0.generatorURL in body must be of type uri",
        ),
    ],
)
def test_what_the_api_layer_refuses(h: House, body: Any, status: int, code: int, said: str) -> None:
    """Answers with an object that has a code; nothing of the request is accepted."""
    mark = len(select(h, "SELECT id FROM commands"))
    refused = h.call("POST", ALERTS, body)
    assert (refused.status, refused.body["code"]) == (status, code)
    assert refused.body["message"].startswith(said), refused.body
    assert len(select(h, "SELECT id FROM commands")) == mark


@pytest.mark.parametrize(
    "source",
    [
        "/explore?left=%7B%22queries%22%3A%5B%5D%7D",
        "http://prometheus:9090/graph?g0.expr=up == 0",
        "http://h/disk\u00a0full",
        "*",
    ],
)
def test_where_an_alert_came_from_is_what_the_vendor_takes_for_it(tmp_path: Path, source: str) -> None:
    """`generatorURL` may be a path alone, as Loki's ruler sends without a configured address, or blank: release 0.25
    accepts both. A refusal would lose the whole batch."""
    name = _named("Source")
    with lasting(tmp_path, {"there": "ilert", "alike": "alertmanager"}) as h:
        posted(h, alert(name, generatorURL=source))
        [told] = h.arrives("ilert", 1)
        assert [one["href"] for one in told.body.get("links", ())] == ([source] if source[0] == "h" else [])
        assert h.arrives("alertmanager", 1)[0].body[0]["generatorURL"] == source
        [shown] = _listed(h)
        assert shown["generatorURL"] == source


@pytest.mark.parametrize("href", ["https://x.example.com/disk-100%/", "http://host:port/", "https://x#top"])
def test_a_link_that_the_vendor_refuses_keeps_no_alert_back(tmp_path: Path, href: str) -> None:
    """A link to which release 0.25 answers 422 is left out, so that the page is no dead letter."""
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        event = {"eventType": "ALERT", "summary": "Disk", "alertKey": "disk", "links": [{"href": href}]}
        assert h.call("POST", "/ilert/api/events", {"integrationKey": OTHER, **event}, key=None).status == 202
        assert "generatorURL" not in h.arrives("alertmanager", 1)[0].body[0]


@pytest.mark.parametrize("source", ["grafana.example.com/alerting/abc/edit", " "])
def test_a_place_that_the_vendor_refuses_keeps_no_alert_back(tmp_path: Path, source: str) -> None:
    """A webhook's `generatorURL` is never checked by its sender: Grafana posts it without a scheme if its own address
    was configured so, and Alertmanager answers 422 to that."""
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        one = {"status": "firing", **alert("Disk", generatorURL=source)}
        assert h.call("POST", WEBHOOK, {"version": "4", "alerts": [one]}).status == 200
        assert "generatorURL" not in h.arrives("alertmanager", 1)[0].body[0]


@pytest.mark.parametrize(
    ("starts", "told"),
    [
        ("2026-01-02 03:04:05+0200", "2026-01-02T01:04:05.000Z"),
        ("2026-01-02", "2026-01-02T00:00:00.000Z"),
        ("2026-01-02T03:04:05.123456789+02:00", "2026-01-02T03:04:05.123456789+02:00"),
    ],
)
def test_a_start_reaches_the_vendor_as_it_takes_it(tmp_path: Path, starts: str, told: str) -> None:
    """Release 0.25 answers 400 to a time without `T`, or without a colon in its offset, as Python's `%z` writes it."""
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        posted(h, alert("Disk", startsAt=starts))
        assert h.arrives("alertmanager", 1)[0].body[0]["startsAt"] == told


def test_fields_are_read_in_any_case(h: House) -> None:
    """The vendor's decoder does not mind the case of a field's name."""
    name = _named("Case")
    one = {"Labels": {"alertname": name}, "ANNOTATIONS": {"summary": f"{name} is down"}}
    posted(h, one)
    posted(h, {**one, "EndsAt": "2021-01-01T00:00:00Z"})
    assert h.wait_for(lambda: words(h, name) == ["ALERT", "RESOLVE"])


def test_a_null_among_texts_is_an_empty_one(h: House) -> None:
    """A null is read as an empty text, as by the vendor's own decoder."""
    name = _named("Null")
    one = alert(name, labels={"alertname": name, "team": None}, annotations={"summary": f"{name} is down", "x": None})
    posted(h, one)
    assert [one["labels"] for one in _listed(h, filter=[f"alertname={name}"])] == [{"alertname": name}]


@pytest.mark.parametrize("text", ["é" * 20_000 + "^", "a@" * 20_000 + "^", "/" + "%41" * 20_000 + "%"])
def test_a_long_address_takes_no_longer_than_it_is(text: str) -> None:
    began = time.process_time()
    assert not is_uri(f"http://{text}")
    assert time.process_time() - began < 0.5


def test_other_types_and_no_json(h: House) -> None:
    about = {"authorization": f"Bearer {OTHER}"}
    for kind, status in (("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/json", 400)):
        content = b"[{" if status == 400 else b"[]"
        refused = h.client.post(h.url + ALERTS, content=content, headers={**about, "content-type": kind})
        assert (refused.status_code, refused.json()["code"]) == (status, status), refused.text
    form = {**about, "content-type": "application/x-www-form-urlencoded"}
    assert h.client.post(h.url + ALERTS, content=b"labels=none", headers=form).status_code == 415
    assert h.client.get(h.url + ALERTS, headers=form).status_code == 200
    charset = {**about, "content-type": "application/json; charset=utf-8"}
    assert h.client.post(h.url + ALERTS, content=b"[]", headers=charset).status_code == 200


def test_who_is_not_known_and_what_is_not_there(h: House) -> None:
    refused = h.call("GET", ALERTS, key="wrong")
    assert (refused.status, refused.body["code"]) == (401, 401)
    assert h.call("GET", "/alertmanager/api/v2/nothing").body["code"] == 404
    assert h.call("PUT", ALERTS, []).body["code"] == 405


# --- lists -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Three alerts to choose from."""
    with lasting(tmp_path_factory.mktemp("three"), {"there": "ilert"}) as standing:
        for job, team in (("db", "a"), ("web", "a"), ("mail", "")):
            posted(standing, {"labels": {"alertname": job, "job": job, "team": team}})
        yield standing


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (['job="db"'], {"db"}),
        (["job=db"], {"db"}),
        (["job!=db"], {"web", "mail"}),
        (['job=~"d.|w.*"'], {"db", "web"}),
        (['job!~"d.|w.*"'], {"mail"}),
        (['job=~"d"'], set()),
        (['team=""'], {"mail"}),
        (["team=a", "job!=web"], {"db"}),
        (['{team="a",job!="web"}'], {"db"}),
        (['nothing!=""'], set()),
        ([r'job=~"\w\w"'], {"db"}),
        ([r"job=~\w\w"], {"db"}),
        ([r'job=~"\\w\\w"'], {"db"}),
        ([r'job!="d\nb"', r'job!~"\Sb|\"|\\d"'], {"web", "mail"}),
        ([r'{job=~"d\S",team="a"}'], {"db"}),
    ],
)
def test_filters(three: House, filters: list[str], found: set[str]) -> None:
    assert set(_names(three, filter=filters)) == found


def test_states_and_receivers(three: House) -> None:
    assert len(_names(three)) == 3
    for no in ("false", "False", "0", "f", "no"):
        assert _names(three, active=no) == [], "https://github.com/go-openapi/swag/blob/master/convert.go (ConvertBool)"
    assert len(_names(three, active="1", silenced="t")) == 3
    assert len(_names(three, silenced="false", inhibited="false", unprocessed="false")) == 3
    assert len(_names(three, receiver="alert-.*")) == len(_names(three, receiver="")) == 3
    assert _names(three, receiver="alert") == [], "it is matched whole"
    fingerprints = [one["fingerprint"] for one in _listed(three)]
    assert fingerprints == sorted(fingerprints)


def test_an_alert_shows_no_annotation_that_nobody_wrote(h: House) -> None:
    """A list shows the annotations as posted; the summary that is made of the labels for other upstreams is not among
    them."""
    name = _named("Bare")
    posted(h, {"labels": {"alertname": name, "job": "a"}}, {"labels": {"job": name}, "annotations": {"more": "words"}})
    assert [one["annotations"] for one in _listed(h, filter=f"alertname={name}")] == [{}]
    assert [one["annotations"] for one in _listed(h, filter=f"job={name}")] == [{"more": "words"}]


def test_groups(three: House, h: House) -> None:
    [group] = _listed(three, "/alertmanager/api/v2/alerts/groups", filter="team=a")
    assert {one["labels"]["job"] for one in group["alerts"]} == {"db", "web"}
    assert (group["labels"], group["receiver"]) == ({}, {"name": "alert-gateway"})
    assert _listed(three, "/alertmanager/api/v2/alerts/groups", filter="team=b") == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"filter": "foo"}, "bad matcher format: foo"),
        ({"filter": 'job=~"a'}, "bad matcher format"),
        ({"filter": 'job=a"'}, "bad matcher format"),
        ({"filter": r'job="a\"'}, "bad matcher format"),
        ({"filter": 'job=~"("'}, "is not a regular expression"),
        ({"filter": 'job=~"(?!a)"'}, "is not a regular expression"),
        ({"receiver": "("}, "is not a regular expression"),
        ({"active": "maybe"}, "active in query must be of type boolean"),
    ],
)
def test_a_filter_that_is_none(h: House, query: dict[str, str], said: str) -> None:
    refused = h.call("GET", f"{ALERTS}?{urlencode(query)}")
    assert refused.status in (400, 422) and said in str(refused.body)


# --- the older path, and the webhook ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/alerts", "/alertmanager/api/v1/alerts"])
def test_the_older_path(tmp_path: Path, path: str) -> None:
    name = _named("Older")
    with lasting(tmp_path, {"there": "ilert"}) as h:
        sent = h.call("POST", path, [alert(name)])
        assert (sent.status, sent.body) == (200, {"status": "success"})
        h.wait_for(lambda: words(h, name) == ["ALERT"])


def _notify(h: House, *alerts: dict[str, Any], **more: Any) -> Sent:
    body = {"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "there", "alerts": list(alerts)}
    return h.call("POST", WEBHOOK, {**body, **more})


def test_a_group_with_firing_and_resolved_alerts(h: House) -> None:
    """Status counts per alert, not per message; a firing alert has no known end, and ends when the webhook says so."""
    on, off = _named("On"), _named("Off")
    zero = {"startsAt": "2026-01-01T00:00:00.123456789Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": ""}
    fire = [{"status": "firing", **alert(name, **zero), "fingerprint": "x"} for name in (on, off)]
    assert _notify(h, *fire).status == 200
    assert _notify(h, fire[0], {**fire[1], "status": "resolved", "endsAt": seconds(3600)}).status == 200
    h.wait_for(lambda: (words(h, on), words(h, off)) == (["ALERT"], ["ALERT", "RESOLVE"]))
    assert select(h, "SELECT count(*) FROM alerts WHERE is_open = 1 AND ends_at IS NULL") == [1]
    assert _notify(h, {**fire[0], "status": "resolved"}).status == 200
    h.wait_for(lambda: words(h, on) == ["ALERT", "RESOLVE"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"version": "1"}, "version in body must be of type"),
        ({"alerts": "none"}, "not the body of an Alertmanager webhook"),
        ({"alerts": [{"status": "maybe", "labels": {}}]}, "alerts[0].status"),
    ],
)
def test_a_webhook_that_is_none(h: House, more: dict[str, Any], said: str) -> None:
    refused = _notify(h, **more)
    assert refused.status in (400, 422) and said in str(refused.body)
