"""A dialect described in the configuration, as a caller and an upstream speak it over HTTP; mistakes and hostile
bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.asked import Command, Incoming
from gateway.canonical import SERVER_OWNED, Link, Operation
from gateway.cli.commands import main
from gateway.config.loading import parse
from gateway.config.secrets import MASK
from gateway.documents import dialect_rows, mappings_page
from gateway.errors import Problem
from gateway.examples import Example
from gateway.mapping.carry import restore
from gateway.mapping.rows import Writing
from gateway.mapping.translation import translate
from gateway.openapi import describe
from gateway.outcome import Sending
from gateway.registry import dialects
from gateway.rehearsal import bare_upstream, command_in, rehearse
from tests.conformance.samples import CREATES, NOW, alert_of, asked, sample_id, saying
from tests.conformance.strategies import ODD, alerts, every_mutation, mutated
from tests.engine.descriptions import (
    CALLERS,
    DEEP,
    FIRING,
    OPEN,
    OWN,
    PATHS,
    SOURCE,
    TITLES,
    TRIGGERED,
    described,
    own,
    post,
    read,
)
from tests.engine.vendors import outbox
from tests.harness import KEY, UPSTREAM_KEY, House, house, upstream_table
from tests.recorded import plain

README = (Path(__file__).parents[2] / "README.md").read_text("utf8")


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway that speaks the described dialects to its callers, with a known vendor as upstream."""

    def text(sandbox_url: str) -> str:
        return CALLERS + upstream_table("there", "pagerduty", sandbox_url) + TITLES + SOURCE + DEEP

    with house(tmp_path_factory.mktemp("own"), config=text) as standing:
        yield standing


# --- reading -------------------------------------------------------------------------------------------------


def test_a_body_whose_values_are_texts() -> None:
    asked = read("datadog", TRIGGERED)
    assert asked.operation is Operation.CREATE
    assert asked.patch == {
        "summary": "[Triggered] CPU is high on web-1",
        "details": "avg(last_5m) is 97 %",
        "dedup_key": "1234567890",
        "resource": "web-1",
        "category": "system.cpu.user",
        "team": "platform",
        "links": (Link(href="https://app.datadoghq.com/monitors/1"),),
        "labels": {"env": "prod", "service": "web", "urgent": ""},
        "condition.window": 300,
        "severity": 3,
        "extensions.datadog.org": {"id": "7", "name": "acme"},
    }
    assert asked.verbatim == TRIGGERED
    assert dict(asked.dropped) == {"alert_transition": "selects the operation; not part of the alert"}


@pytest.mark.parametrize(("word", "team"), [("sre", "platform"), ("web", "web"), ("", None)])
def test_a_word_that_an_open_list_has_not_means_itself(word: str, team: str | None) -> None:
    assert read("datadog", {**TRIGGERED, "team": word}).patch.get("team") == team
    assert team is None or own("datadog").mapping.write({"team": team}, Writing(), partial=True)["team"] == word


@pytest.mark.parametrize(("urgency", "word"), [("high", "yes"), ("low", "no")])
def test_each_value_of_a_closed_list_has_its_word(urgency: str, word: str) -> None:
    said = own("deep").mapping.write({"urgency": urgency}, Writing(), partial=True)
    assert said["data"]["attributes"]["loud"] == word


def test_a_body_that_is_nested() -> None:
    patch = dict(read("deep", OPEN).patch)
    assert patch == {
        "summary": "Deep trouble",
        "details": "Everything is down",
        "dedup_key": "4711",
        "urgency": "high",
        "source": "probe",
        "labels": {"env": "prod", "rack": "7"},
        "custom": {"a": [1, {"b": None}]},
        "links": (Link(href="https://example.com/", text="Runbook"),),
        "severity": 0,
        "condition.threshold": 9.5,
        "extensions.deep.meta": {"trace": "t-1"},
        "extensions.deep.data": {"attributes": {"more": {"kept": [1, 2]}}},
    }
    assert "auth" not in read("deep", OPEN).verbatim["meta"], "a credential is no word of an alert"


@pytest.mark.parametrize(
    ("name", "said", "operation"),
    [
        ("datadog", {"alert_transition": "Recovered"}, "resolve"),
        ("datadog", {"alert_transition": "no data recovered", "alert_priority": "P9", "window": "soon"}, "resolve"),
        ("datadog", {"alert_transition": "Re-Triggered"}, "create"),
        ("datadog", {"alert_transition": ""}, "create"),
        ("source", {"status": "resolved", "title": ""}, "resolve"),
        ("deep", {"data": {"attributes": {"ids": {"external": 4711}}, "state": {"is_open": False}}}, "resolve"),
        ("deep", {"data": {"attributes": {"ids": {"external": 4711}}, "state": {"is_open": "Mine"}}}, "acknowledge"),
    ],
)
def test_a_word_decides_what_is_asked_for(name: str, said: dict[str, Any], operation: str) -> None:
    """Fields repeated in an end or acknowledgement may be invalid for a new alert, and are not read."""
    route = own(name).routes[0]
    asked = route.read(Incoming({}, {}, {}, {**OWN[name], **said}, NOW))
    assert isinstance(asked, Command)
    assert asked.operation == operation
    key = {"datadog": "1234567890", "source": "queue-7", "deep": "4711"}[name]
    assert operation == "create" or (asked.ref is not None and asked.ref.key == key)


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("datadog", {"body": "x"}, "title: is required"),
        ("datadog", {"title": "", "event_title": ""}, "title: is required"),
        ("datadog", {"alert_transition": "Recovered"}, "alert_cycle_key: is required to resolve an alert"),
        ("datadog", {"title": 7}, "title: expected `str"),
        ("datadog", {"title": "x", "tags": ["env:prod"]}, "tags: expected `str"),
        ("source", {"title": "x", "deduplication_key": "k", "status": "closed"}, "status: 'closed' is none of"),
        ("source", {"title": "x"}, "deduplication_key: is required"),
        ("deep", {"data": {"attributes": {"level": 7}}}, "data.attributes.level: '7' is none of 1, 2, 3"),
        ("deep", {"data": {"attributes": {"loud": "maybe"}}}, "data.attributes.loud: 'maybe' is none of yes, no"),
        ("deep", {"data": {"links": [{"link_text": "x"}]}}, "data.links[0].link_url: is required"),
        ("deep", {"data": []}, "data: expected `object"),
        ("deep", {"data": {"state": {"is_open": []}}}, "data.state.is_open: expected"),
    ],
)
def test_what_is_wrong_with_a_body_names_the_place(name: str, body: Any, says: str) -> None:
    with pytest.raises(Problem) as raised:
        read(name, body)
    assert says in raised.value.message


@pytest.mark.parametrize(
    ("said", "means"), [("9.5", 9.5), (" -12 ", -12), ("", None), (7, 7), ("1e999", ValueError), ("many", ValueError)]
)
def test_a_number_may_be_a_text(said: Any, means: Any) -> None:
    """As in Google Cloud's `threshold_value`, and wherever a sender fills in a template."""
    body = {**FIRING, "limit": said, "for": said}
    dialect = parse(
        SOURCE + '"condition.threshold" = "limit"\n"condition.window" = { at = "for", unit = "m" }\n'
        '[inbound.source]\nanonymous = true\n[upstreams.x]\ndialect = "source"\nurl = "http://x"\nkey = "k"\n'
    ).own["source"]
    if means is ValueError:
        with pytest.raises(Problem, match="is not a number"):
            command_in(dialect, Operation.CREATE, body)
        return
    patch = command_in(dialect, Operation.CREATE, body).patch
    assert patch.get("condition.threshold") == means
    assert patch.get("condition.window") == (None if means is None else means * 60)


@pytest.mark.parametrize("unit", ["s", "m"])
def test_a_duration_that_no_vendor_can_be_told_keeps_no_alert_back(tmp_path: Path, unit: str) -> None:
    """It is refused where it is too long for a number; else the alert goes out, with no number of three hundred digits
    in it."""
    own_one = f'[dialects.acme.fields]\nsummary = "title"\n"condition.window" = {{ at = "for", unit = "{unit}" }}\n'
    tables = f'{own_one}[inbound.acme]\nkeys = {{ ci = "{KEY}" }}\n[[routes]]\nto = ["pager", "rule"]\n'

    def text(url: str) -> str:
        upstreams = {"pager": "pagerduty", "rule": "ibm_monitoring"}
        return tables + "".join(upstream_table(name, dialect, url) for name, dialect in upstreams.items())

    with house(tmp_path, config=text) as h:
        answer = h.call("POST", "/acme", {"title": "Slow", "for": 1e308})
        if unit == "m":
            assert answer.status == 400 and answer.body["error"]["message"].startswith("for: ")
            return
        assert answer.status == 202
        [page], [rule] = h.arrives("pagerduty", 1), h.arrives("ibm_monitoring", 1)
        carried = page.body["payload"]["custom_details"]["alert_gateway"]["fields"]
        assert carried["condition.window"] == 1e308 and isinstance(carried["condition.window"], float)
        assert rule.body["alert"]["timespan"] == 2**53 // 60_000_000 * 60_000_000
        h.wait_for(lambda: {one.state for one in outbox(h)} == {"delivered"})


def test_a_category_that_is_called_as_good_news_silences_nothing() -> None:
    asked = read("datadog", {**TRIGGERED, "alert_metric": "up"})
    assert "category" not in asked.patch and asked.patch["extensions.datadog.alert_metric"] == "up"


# --- over HTTP, in -------------------------------------------------------------------------------------------


def test_callers_are_answered_as_described_and_the_vendor_behind_hears_of_it(h: House) -> None:
    mark = len(h.arrived("pagerduty"))
    sent = post(h, "datadog", TRIGGERED)
    assert (sent.status, sent.body) == (200, {"ok": True, "of": "1234567890"})
    assert sent.report == ["there; approximated=source"]
    made = h.arrives("pagerduty", mark + 1)[-1].body
    assert (made["event_action"], made["dedup_key"]) == ("trigger", "1234567890")
    assert made["payload"]["summary"] == TRIGGERED["title"]
    assert made["payload"]["severity"] == "error"
    post(h, "datadog", {**TRIGGERED, "alert_transition": "Recovered"})
    ended = h.arrives("pagerduty", mark + 2)[-1].body
    assert (ended["event_action"], ended["dedup_key"]) == ("resolve", "1234567890")


def test_a_path_of_its_own_is_served_at_the_root_too(h: House) -> None:
    path = PATHS["source"].removeprefix("/source")
    sent = h.call("POST", f"{path}?token={KEY}", FIRING, key=None)
    told = {"status": "success", "message": "Event accepted for processing", "deduplication_key": "queue-7"}
    assert (sent.status, sent.body) == (202, told)
    assert h.call("POST", "/", FIRING).status == 404


def test_a_key_is_made_up_and_told_where_there_is_none(h: House) -> None:
    body = {name: value for name, value in TRIGGERED.items() if name != "alert_cycle_key"}
    assert len(post(h, "datadog", body).body["of"]) == 32


@pytest.mark.parametrize("name", OWN)
def test_a_wrong_key_is_told_in_its_shape(h: House, name: str) -> None:
    wrong = {**OPEN, "meta": {"auth": {"token": "wrong"}}} if name == "deep" else OWN[name]
    sent = post(h, name, wrong, key="wrong")
    message = "the credential is missing or unknown"
    assert (sent.status, sent.body) == (401, {"error": {"code": "unauthorized", "message": message}})


HYPOTHESIS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@HYPOTHESIS
@given(data=st.data())
def test_a_hostile_body_is_taken_or_refused(h: House, name: str, data: st.DataObject) -> None:
    sent = post(h, name, data.draw(mutated(OWN[name]) | ODD))
    assert sent.status < 500, sent.body
    assert sent.status < 300 or set(sent.body["error"]) == {"code", "message"}


@pytest.mark.parametrize("name", OWN)
def test_every_oddity_at_every_place_is_read_or_refused(name: str) -> None:
    dialect = own(name)
    route, upstream = dialect.routes[0], bare_upstream(dialect)
    taken = 0
    for body in every_mutation(OWN[name]):
        try:
            asked = route.read(Incoming({}, {}, {}, json.loads(json.dumps(body)), NOW))
        except Problem:
            continue
        assert isinstance(asked, Command)
        rehearse(asked, dialect, upstream)
        taken += 1
    assert taken


# --- to and from every other ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "example"), CREATES, ids=sample_id)
@pytest.mark.parametrize("name", OWN)
def test_what_any_vendor_says_is_what_its_callers_could_have_said(name: str, origin: str, example: Example) -> None:
    """What is sent is read back, and what was carried is restored."""
    command = asked(origin, example)
    flat = alert_of(dialects()[origin], command)
    there = bare_upstream(own(name)).destination
    said = translate(saying(flat, origin, there), there)
    sending = Sending(operation=Operation.CREATE, at=NOW, body=said.body, patch={}, key="key", ids={}, seen={})
    request = next(own(name).outbound.calls[Operation.CREATE](sending))
    again = own(name).routes[0].read(Incoming({}, {}, {}, plain(request.body), NOW))
    assert isinstance(again, Command) and again.operation is Operation.CREATE
    returned = restore(again.patch, again.carried)
    never = SERVER_OWNED | {"dedup_key", "kind"}
    sent = {path: value for path, value in flat.items() if path not in never and value is not None}
    if again.carried is not None:
        assert {path: returned.get(path) for path in sent} == sent
    assert own(name).mapping.container is None or again.carried is not None


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_vendor_says_can_be_sent_there(name: str, data: st.DataObject) -> None:
    origin = data.draw(st.sampled_from(sorted(dialects())))
    _, command = data.draw(alerts(origin))
    sent = rehearse(command, dialects()[origin], bare_upstream(own(name)))
    assert json.dumps([plain(request.body) for request in sent.requests])


# --- what comes with it --------------------------------------------------------------------------------------


def test_its_rows_are_listed_and_reported_as_those_of_any_other() -> None:
    config = described()
    page = mappings_page(config.own)
    assert "| `alert_priority` | `severity` | both |" in page
    assert "| `severity` | mapped → `alert_priority` | carried | " in page
    [row, *_] = dialect_rows(config.own.values())
    assert (row["dialect"], row["accepts"], row["sends"]) == (
        "datadog",
        ["create", "update", "resolve"],
        ["create", "update", "resolve", "reopen"],
    )
    report = rehearse(read("datadog", TRIGGERED), own("datadog"), config.upstreams["there"]).report
    assert {fate.field: fate.fate for fate in report}["team"] == "carried"


def test_it_is_described_as_what_it_is() -> None:
    """The OpenAPI description contains its paths, its bodies and the place of its credential."""
    config = described()
    found = describe(list(config.inbounds.values()))
    assert [str(error) for error in OpenAPIV31SpecValidator(found).iter_errors()] == []
    schemes = found["components"]["securitySchemes"]
    assert schemes["datadog"] == {"type": "apiKey", "in": "header", "name": "X-Gateway-Key"}
    assert schemes["source"] == {"type": "apiKey", "in": "query", "name": "token"}
    operation = found["paths"]["/deep/"]["post"]
    assert operation["description"] == "The caller's key is a field of the body."


def test_a_severity_without_a_word_of_its_own_is_told_the_louder() -> None:
    """The nearest word that is at least as severe is sent."""
    [scale] = [entry.scale for entry in own("datadog").mapping.rows if entry.scale]
    assert scale.out == ("P1", "P1", "P1", "P2", "P3", "P4", "P5", "P5")
    [numbers] = [entry.scale for entry in own("deep").mapping.rows if entry.scale]
    assert numbers.out == (1, 1, 1, 2, 2, 2, 3, 3)


def test_a_long_key_is_told_apart_from_one_that_begins_alike() -> None:
    same_key = own("datadog").same_key
    one, other = same_key("k" * 100 + "1"), same_key("k" * 100 + "2")
    assert one != other and len(one) == len(other) == 60


def test_a_change_of_the_description_is_a_change_of_its_upstreams() -> None:
    """A reload restarts an upstream whose dialect's description has changed."""
    more = '[upstreams.own]\ndialect = "deep"\nurl = "https://x"\nkey = "k"\n[[routes]]\nto = ["own"]\n'
    assert described(more=more).upstreams["own"].dialect.description["constants"]["version"] == 3
    other = described(DEEP.replace("version = 3", "version = 4") + TITLES + SOURCE, more)
    assert other.upstreams["own"].written != described(more=more).upstreams["own"].written


# --- the command line, and the README's example ----------------------------------------------------------------

EXAMPLE = re.search(r"^## A vendor of your own.*?^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BODY = re.search(r"-d '\n(.*?)'\n```", README, re.DOTALL)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The README's example as a file."""
    assert EXAMPLE
    file = tmp_path / "gateway.toml"
    file.write_text(EXAMPLE[1].replace("/var/lib/alert-gateway", str(tmp_path)))
    return file


def run(*words: str, said: Any = None) -> Result:
    """Runs the command line."""
    return CliRunner().invoke(main, list(words), input=None if said is None else json.dumps(said))


def test_the_example_passes_its_check(example: Path) -> None:
    found = run("check", "--config", str(example), "--no-secrets")
    assert found.exit_code == 0, found.output
    assert "alert.level fatal" in found.output and "payload.severity critical → wakes" in found.output
    example.write_text(example.read_text().replace('level = "major"', 'level = "note"'))
    assert run("check", "--config", str(example), "--no-secrets").exit_code == 1


def test_the_example_takes_the_request_that_is_shown(example: Path) -> None:
    assert BODY

    def text(sandbox_url: str) -> str:
        there = example.read_text().replace("https://events.pagerduty.com", f"{sandbox_url}/pagerduty")
        there = there.replace("env:ACME_TOKEN", KEY).replace("env:PAGERDUTY_KEY", UPSTREAM_KEY)
        return "\n".join(line for line in there.splitlines() if not line.startswith("store"))

    with house(example.parent, config=text) as h:
        sent = h.call("POST", "/acme", json.loads(BODY[1]), key=None, headers={"x-acme-token": KEY})
        assert (sent.status, sent.body) == (200, {"ok": True, "incident": "db-1/disk"})
        [page] = h.arrives("pagerduty", 1)
    assert page.body["payload"]["summary"] == "Disk full"


def test_it_is_translated_explained_and_listed(example: Path) -> None:
    said = {"alert": {"title": "Disk full", "id": "k", "level": "fatal"}}
    there = run("translate", "--from", "acme", "--to", "ilert", "--config", str(example), said=said)
    assert json.loads(there.stdout)["requests"][0]["body"]["severity"] == 1
    event = {"eventType": "ALERT", "summary": "Disk full", "alertKey": "k", "severity": 1}
    back = run("translate", "--from", "ilert", "--to", "acme", "--config", str(example), said=event)
    [request] = json.loads(back.stdout)["requests"]
    assert (request["method"], request["path"], request["headers"]) == ("POST", "", {"X-Acme-Token": MASK})
    assert request["body"]["alert"]["state"] == "open" and request["body"]["version"] == 2
    refused = run("translate", "--from", "acme", "--to", "ilert", "--config", str(example), said={"alert": {}})
    assert (refused.exit_code, "alert.title: is required" in refused.stderr) == (1, True)
    explained = run("explain", "--config", str(example), "--from", "acme", said=said)
    assert explained.exit_code == 0 and "payload.severity critical: wakes" in explained.stdout
    assert "acme: Acme Monitor" in run("dialects", "--config", str(example)).stdout
    assert "acme" not in run("dialects").stdout
    assert run("translate", "--from", "acme", "--to", "ilert", said=said).exit_code == 2
