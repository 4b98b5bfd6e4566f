"""Splunk On-Call's callers and Splunk On-Call as an upstream, against its pages and the code of its senders.

Source: https://help.splunk.com/splunk-observability-cloud/splunk-on-call/integrations-with-splunk-on-call/rest-endpoint-integration-for-splunk-on-call
and the glossary of incident fields beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gateway.canonical import Operation
from gateway.cli.sandbox import Arrived
from gateway.examples import examples, with_credential
from gateway.registry import dialects
from gateway.rehearsal import bare_upstream, command_in, rehearse
from mappings import splunk_oncall
from mappings.splunk_oncall.calls import PATH, fitted_key
from mappings.splunk_oncall.words import gathered, scattered, shortened
from tests.chaos_upstream import chaos, say
from tests.clients.callers import (
    SPLUNK,
    called,
    fresh,
    ilert_event,
    opsgenie_alert,
    pagerduty_event,
    splunk_alert,
)
from tests.engine.vendors import before, outbox, settled, table
from tests.harness import KEY, UPSTREAM_KEY, House, Sent, house

OK = say(200, {"result": "success", "entity_id": "k"})
THERE = f"{PATH}/{UPSTREAM_KEY}"


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with called(tmp_path_factory.mktemp("splunk"), {"there": "ilert"}) as standing:
        yield standing


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with Splunk On-Call behind it."""
    with called(tmp_path_factory.mktemp("same"), {"there": "splunk_oncall"}) as standing:
        yield standing


def _post(h: House, alert: Any, *, key: str = KEY, route: str = "/database") -> Sent:
    return h.call("POST", f"{SPLUNK}/{key}{route}", alert, key=None)


def _next(h: House, alert: Any, route: str = "/database") -> Arrived:
    """Posts an alert, and returns the request that arrives at the upstream because of it."""
    name = next(iter(h.gateway.config.upstreams.values())).dialect.name
    mark = len(h.arrived(name))
    sent = _post(h, alert, route=route)
    assert (sent.status, sent.body["result"]) == (200, "success"), sent.body
    return h.arrives(name, mark + 1)[mark]


def _critical(key: str | None = None, **more: Any) -> dict[str, Any]:
    return splunk_alert("CRITICAL", key, **{"entity_display_name": "Disk full", **more})


# --- a caller's life -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["RECOVERY", "recovery", "OK"])
@pytest.mark.parametrize("takes", ["ACKNOWLEDGEMENT", "Acknowledgement", "ACKNOWLEDGMENT"])
def test_a_life(h: House, takes: str, ends: str) -> None:
    key = fresh("disk space/db01")
    for alert, word in (
        (_critical(key), "ALERT"),
        (_critical(key, state_message="It is really full"), "ALERT"),
        (splunk_alert(takes, key, ack_msg="I look at it", ack_author="ann"), "ACCEPT"),
        (splunk_alert(ends, key, entity_display_name="Disk full", state_message="All is well now"), "RESOLVE"),
    ):
        arrived = _next(h, alert)
        assert (arrived.body["eventType"], arrived.body["alertKey"]) == (word, key)


def test_what_an_acknowledgement_says_is_reported(h: House) -> None:
    key = fresh("disk")
    _next(h, _critical(key))
    mark = len(h.arrived("ilert"))
    taken = _post(h, splunk_alert("ACKNOWLEDGEMENT", key, ack_msg="I look at it", ack_author="ann"))
    h.arrives("ilert", mark + 1)
    assert taken.body == {"result": "success", "entity_id": key}
    assert taken.report == ["there; kept=extensions.splunk_oncall.ack_author,comment"]


def test_a_recovery_of_an_entity_that_nobody_opened_here(h: House) -> None:
    """It is passed on: the incident may have been opened before the gateway was in place."""
    key = fresh("unknown")
    arrived = _next(h, splunk_alert("RECOVERY", key))
    assert (arrived.body["eventType"], arrived.body["alertKey"]) == ("RESOLVE", key)


@pytest.mark.parametrize("route", ["", "/", "/database"])
def test_an_entity_id_is_made_up_and_told(h: House, route: str) -> None:
    mark = len(h.arrived("ilert"))
    made = _post(h, {"message_type": "critical"}, route=route)
    key = made.body["entity_id"]
    assert re.fullmatch(r"[0-9a-f]{32}", key) and made.body == {"result": "success", "entity_id": key}
    assert h.arrives("ilert", mark + 1)[mark].body["alertKey"] == key
    assert _next(h, splunk_alert("RECOVERY", key), route).body["alertKey"] == key


def test_only_the_host_of_a_caller_s_address_changes(h: House) -> None:
    mark = len(h.arrived("ilert"))
    assert h.call("POST", f"{PATH}/{KEY}/database", _critical(fresh("disk")), key=None).status == 200
    h.arrives("ilert", mark + 1)


@pytest.mark.parametrize("route", ["", "/database"])
def test_a_key_that_nobody_has(h: House, route: str) -> None:
    """404, as the service answers; a bearer token does not count."""
    mark = len(h.arrived("ilert"))
    refused = h.call("POST", f"{SPLUNK}/wrong{route}", _critical("disk"), key=KEY)
    assert (refused.status, refused.body) == (404, {"result": "failure", "message": "API key not found"})
    assert len(h.arrived("ilert")) == mark


@pytest.mark.parametrize(
    ("alert", "says"),
    [
        ({}, "Missing fields: message_type"),
        ({"message_type": " "}, "Missing fields: message_type"),
        ({"message_type": None}, "Missing fields: message_type"),
        ({"message_type": "RECOVERY"}, "Missing fields: entity_id"),
        ({"message_type": "ACKNOWLEDGEMENT", "entity_id": ""}, "Missing fields: entity_id"),
        ({"message_type": "critcal"}, f"message_type: 'critcal' is none of {', '.join(splunk_oncall.DOCUMENTED)}"),
        ({"message_type": 5}, "message_type: expected `str`, got `int`"),
        ({"message_type": "CRITICAL", "entity_id": {"a": 1}}, "entity_id: expected `str`, got `object`"),
        ([], "the body is a list; a JSON object is expected"),
    ],
)
def test_what_is_wrong_is_said(h: House, alert: Any, says: str) -> None:
    refused = _post(h, alert)
    assert (refused.status, refused.body) == (400, {"result": "failure", "message": says})


def test_what_is_no_text_keeps_no_page_back(h: House) -> None:
    """ElastAlert adds the fields of a document, whatever they are; `entity_id` may be a number there too."""
    arrived = _next(h, _critical(hostname={"name": "db-1"}, state_message=7, timestamp="now", monitoring_tool=None))
    assert arrived.body["details"].startswith("7\n")
    number = int(fresh("").strip()) + 10**9
    assert _next(h, {"message_type": "CRITICAL", "entity_id": number}).body["alertKey"] == str(number)


def test_curl_of_the_page_says_that_it_posts_a_form(h: House) -> None:
    key = fresh("ID of the incident")
    body = json.dumps(
        {"entity_id": key, "message_type": "critical", "state_message": "hi, this is some state message."}
    )
    form = {"content-type": "application/x-www-form-urlencoded"}
    mark = len(h.arrived("ilert"))
    answer = httpx.post(f"{h.url}{SPLUNK}/{KEY}/database", content=body, headers=form)
    assert answer.json() == {"result": "success", "entity_id": key}
    h.arrives("ilert", mark + 1)


# --- INFO ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["INFO", "info"])
def test_an_info_wakes_nobody(h: House, word: str) -> None:
    key = fresh("disk")
    sent = _post(h, splunk_alert(word, key, entity_display_name="Backup"))
    assert sent.body == {"result": "success", "entity_id": key}
    made = h.wait_for(lambda: [one for one in h.arrived("ilert") if one.body["alertKey"] == f"{key} (INFO)"])[0].body
    assert (made["severity"], made["priority"], made["summary"]) == (5, "LOW", "Backup")


def test_a_critical_after_an_info_is_no_update_of_what_woke_nobody(tmp_path: Path) -> None:
    """Kapacitor goes through its levels under one `entity_id`. PagerDuty would take the CRITICAL for another event of
    an open incident, about which nobody was called. The recovery ends both."""
    with called(tmp_path, {"there": "pagerduty"}) as h:
        for alert in (splunk_alert("INFO", "cpu"), _critical("cpu"), splunk_alert("RECOVERY", "cpu")):
            assert _post(h, alert).body == {"result": "success", "entity_id": "cpu"}
        settled(h, count=4)
        told = [(one.body["event_action"], one.body["dedup_key"]) for one in h.arrives("pagerduty", 4)]
        ended = [("resolve", "cpu"), ("resolve", "cpu (INFO)")]
        assert sorted(told) == [*ended, ("trigger", "cpu"), ("trigger", "cpu (INFO)")]
        paged = next(one.body["payload"] for one in h.arrived("pagerduty") if one.body["dedup_key"] == "cpu")
        assert (paged["severity"], paged["summary"]) == ("critical", "Disk full")


@pytest.mark.parametrize(("said", "note"), [({"state_message": "swapping"}, "swapping"), ({}, "INFO")])
def test_an_info_on_an_open_alert_is_a_note_on_it(tmp_path: Path, said: dict[str, str], note: str) -> None:
    """It opens nothing of its own, which the recovery would leave open, and passes unchanged to the same vendor."""
    both = '[[routes]]\nto = ["there", "same"]\n'
    with called(tmp_path, {"there": "opsgenie", "same": "splunk_oncall"}, routes=both) as h:
        info = splunk_alert("INFO", "cpu", **said)
        assert _post(h, _critical("cpu")).status == 200
        h.arrives("opsgenie", 1)
        told = _post(h, info)
        assert (told.body, told.report) == ({"result": "success", "entity_id": "cpu"}, [])
        assert _post(h, splunk_alert("RECOVERY", "cpu")).status == 200
        made, noted, ended = h.arrives("opsgenie", 3)
        assert (made.body["alias"], noted.body["note"]) == ("cpu", note)
        assert noted.path.endswith("/cpu/notes") and ended.path.endswith("/cpu/close")
        assert h.arrives("splunk_oncall", 3)[1].body == info
        assert {row.state for row in settled(h, count=6)} == {row.state for row in outbox(h)} == {"delivered"}


def test_an_info_ends_by_itself_and_resolves_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At Splunk On-Call its end is not told: it would resolve what is open of the entity."""
    monkeypatch.setattr(splunk_oncall, "ENTRY_LASTS", timedelta(milliseconds=1))
    both = '[[routes]]\nto = ["there", "same"]\n'
    with called(tmp_path, {"there": "ilert", "same": "splunk_oncall"}, routes=both) as h:
        assert _post(h, splunk_alert("INFO", "cpu", state_message="backup")).status == 200
        assert _post(h, _critical("cpu")).status == 200
        h.wait_for(lambda: [one for one in h.arrived("ilert") if one.body["eventType"] == "RESOLVE"])
        settled(h, count=6)
        ended = [one.body["alertKey"] for one in h.arrived("ilert") if one.body["eventType"] == "RESOLVE"]
        assert ended == ["cpu (INFO)"]
        told = sorted((one.body["message_type"], one.body["entity_id"]) for one in h.arrived("splunk_oncall"))
        assert told == [("CRITICAL", "cpu"), ("INFO", "cpu")]


def test_what_another_gateway_sends_as_info_lives_on_as_it_was(tmp_path: Path) -> None:
    """It carries the alert, and ends it; what is seen of it behind both is one life under one key."""
    carried = json.dumps({"fields": {"team": "db"}})
    with called(tmp_path, {"there": "ilert"}) as h:
        for word in ("INFO", "CRITICAL", "RECOVERY"):
            assert _post(h, splunk_alert(word, "cpu", entity_display_name="CPU", alert_gateway=carried)).status == 200
        assert [one.body["alertKey"] for one in h.arrives("ilert", 3)] == ["cpu"] * 3


@pytest.mark.parametrize("said", [{"entity_display_name": ""}, {"entity_display_name": "CPU"}])
def test_what_had_no_name_is_switched_off_at_a_gateway_that_shows_none(tmp_path: Path, said: dict[str, Any]) -> None:
    """To IBM an alert goes with a name made up for it, but the gateway there shows what the sender said: no name, and
    such a rule it refuses. The end of the alert was a dead letter, and the page stayed open."""
    (tmp_path / "there").mkdir()
    with called(tmp_path / "there", {"pager": "pagerduty"}) as there:
        needs = 'defaults = { "condition.expression" = "avg(cpu) > 1" }'
        rules = table("rules", f"{there.url}/ibm_monitoring", "ibm_monitoring", needs).replace("upstream-key", KEY)
        inbound = f'[inbound.splunk_oncall]\nkeys = {{ ci = "{KEY}" }}\n'
        with house(tmp_path, config=lambda _: inbound + rules) as h:
            for number, alert in enumerate((said, {"entity_display_name": "", "hostname": "db-1"}), 1):
                assert _post(h, splunk_alert("CRITICAL", "cpu", **alert)).status == 200
                settled(h, count=number)
            assert _post(h, splunk_alert("RECOVERY", "cpu")).status == 200
            settled(h, count=3)
        told = there.wait_for(lambda: [got for got in there.arrived("pagerduty") if "payload" not in got.body])
        assert [got.body["event_action"] for got in told] == ["resolve"]


# --- what goes on to Splunk On-Call ---------------------------------------------------------------------------


@pytest.mark.parametrize("example", examples("splunk_oncall"), ids=lambda one: one.name)
def test_what_real_senders_send_goes_on_as_it_came(same: House, example: Any) -> None:
    """Path and all, but for the key and nulls in known fields. Nothing is open of an entity that another example is
    about, whose routing key would go with it."""
    dialect = dialects()["splunk_oncall"]
    _post(same, splunk_alert("RECOVERY", example.request.body["entity_id"]))
    same.wait_for(lambda: not outbox(same, "waiting"))
    ready = with_credential(example.request.about(), dialect, KEY)
    mark = len(same.arrived("splunk_oncall"))
    sent = same.call("POST", f"/splunk_oncall{ready.path}", ready.body, key=None)
    assert (sent.status, sent.body) == (200, example.reply.body)
    arrived = same.arrives("splunk_oncall", mark + 1)[mark]
    assert (arrived.path, arrived.body) == (ready.path.replace(KEY, UPSTREAM_KEY), ready.body)
    assert sent.report == []


def test_nothing_is_added_to_the_least_that_a_caller_can_say(same: House) -> None:
    arrived = _next(same, {"message_type": "critical", "x": {"y": [1]}}, route="/$routing_key")
    assert {**arrived.body, "entity_id": ""} == {"message_type": "critical", "x": {"y": [1]}, "entity_id": ""}
    assert arrived.path == THERE, "the placeholder of a copied address names no route"


@pytest.mark.parametrize("route", ["data base", "a/b", "{credential}", "ü?#"])
def test_a_routing_key_stays_one_part_of_the_path(same: House, route: str) -> None:
    path = f"/{quote(route, safe='')}"
    assert _next(same, _critical(fresh("disk")), path).path == f"{THERE}{path}"


@pytest.mark.parametrize("route", ["%2e", "%2E%2e"])
def test_a_routing_key_that_leads_out_of_its_path_keeps_no_page_back(same: House, route: str) -> None:
    """The default route takes the alert, which would be a dead letter otherwise, and its end; the report says so."""
    key, mark = fresh("disk"), len(same.arrived("splunk_oncall"))
    made = _post(same, _critical(key), route=f"/{route}")
    assert made.status == 200
    assert _post(same, splunk_alert("RECOVERY", key), route=f"/{route}").status == 200
    assert [one.path for one in same.arrives("splunk_oncall", mark + 2)[mark:]] == [THERE, THERE]


@pytest.mark.parametrize("held", ["web", 5, {"a": 1}, None])
@pytest.mark.parametrize("route", ["", "/database"])
def test_a_field_named_as_the_routing_key_is_a_custom_field(same: House, held: Any, route: str) -> None:
    """ElastAlert adds the fields of a document; only the path says the route."""
    arrived = _next(same, {**_critical(fresh("disk")), "routing_key": held}, route)
    assert (arrived.path, arrived.body["routing_key"]) == (f"{THERE}{route}", held)


def test_a_routing_key_chooses_routes_and_is_ilert_s(tmp_path: Path) -> None:
    routes = '[[routes]]\nwhen = ["routing_key = database"]\nto = ["there"]\n[[routes]]\nto = []\nbecause = "no"\n'
    with called(tmp_path, {"there": "ilert"}, routes=routes) as h:
        assert _post(h, _critical("other"), route="/website").status == 200
        assert _post(h, _critical("disk")).status == 200
        [made] = h.arrives("ilert", 1)
        assert (made.body["alertKey"], made.body["routingKey"]) == ("disk", "database")


@pytest.mark.parametrize(("more", "path"), [({}, PATH + "/•••"), ({"routing_key": "db"}, PATH + "/•••/db")])
def test_a_body_without_its_path_is_translated(more: dict[str, str], path: str) -> None:
    """As by `translate` and in `[[tests]]`, where a field can say what is said in a path otherwise."""
    dialect = dialects()["splunk_oncall"]
    asked = command_in(dialect, Operation.CREATE, {**_critical("disk"), **more})
    [request] = rehearse(asked, dialect, bare_upstream(dialect)).requests
    assert (request.path, request.body) == (path, _critical("disk"))


def test_an_opsgenie_caller_s_life_there(same: House) -> None:
    """A note is an entry of the timeline."""
    key, mark = fresh("alias"), len(same.arrived("splunk_oncall"))
    made = same.call(
        "POST", "/opsgenie/v2/alerts", opsgenie_alert("Disk full", alias=key, entity="db-1", source="nagios")
    )
    assert made.status == 202
    same.arrives("splunk_oncall", mark + 1)
    for count, step in enumerate(("acknowledge", "notes", "close"), 2):
        path = f"/opsgenie/v2/alerts/{key.replace(' ', '%20')}/{step}?identifierType=alias"
        assert same.call("POST", path, {"note": "words"}).status == 202
        same.arrives("splunk_oncall", mark + count)
    opened, taken, noted, ended = (one.body for one in same.arrived("splunk_oncall")[mark:])
    assert (opened["message_type"], opened["entity_display_name"]) == ("CRITICAL", "Disk full")
    assert (opened["hostname"], opened["monitoring_tool"]) == ("db-1", "nagios")
    named = {"entity_id": key, "entity_display_name": "Disk full"}
    assert taken == {"message_type": "ACKNOWLEDGEMENT", **named, "ack_msg": "words"}
    assert ended == {"message_type": "RECOVERY", **named, "state_message": "words"}
    assert noted == {"message_type": "INFO", **named, "state_message": "words"}


def test_an_alert_that_goes_there_as_info_says_so(same: House) -> None:
    """An INFO opens no incident there, and the report says why that is less than was asked for."""
    made = same.call("POST", "/opsgenie/v2/alerts", opsgenie_alert("Backup", priority="P5"))
    assert made.status == 202 and "there; approximated=severity" in made.report[0]
    mark = len(same.arrived("splunk_oncall"))
    assert _post(same, splunk_alert("INFO", fresh("disk"))).report == []
    same.arrives("splunk_oncall", mark + 1)


def test_another_vendor_s_key_that_looks_like_an_entry_s_is_its_alert_s(same: House) -> None:
    """It is no entry of another entity's timeline, and its end is told."""
    key, mark = fresh("cpu").replace(" ", "-") + " (INFO)", len(same.arrived("splunk_oncall"))
    assert same.call("POST", "/opsgenie/v2/alerts", opsgenie_alert("Backup", priority="P5", alias=key)).status == 202
    same.arrives("splunk_oncall", mark + 1)
    path = f"/opsgenie/v2/alerts/{key.replace(' ', '%20')}/close?identifierType=alias"
    assert same.call("POST", path, {}).status == 202
    told = [one.body for one in same.arrives("splunk_oncall", mark + 2)[mark:]]
    assert [(one["message_type"], one["entity_id"]) for one in told] == [("INFO", key), ("RECOVERY", key)]


def test_limits_are_kept_and_what_was_cut_is_carried(same: House) -> None:
    long, mark = "é" * 30_000, len(same.arrived("splunk_oncall"))
    custom = {"message_type": "INFO", "entity_id": "x", "log": "x" * 2000, "n": 1}
    event = ilert_event("ALERT", "k" * 600, summary=long[:2000], details=long, customDetails=custom)
    assert same.call("POST", "/ilert/api/events", event, key=None).status == 202
    body = same.arrives("splunk_oncall", mark + 1)[mark].body
    assert body["message_type"] == "CRITICAL", "a custom field does not take the place of a known one"
    lengths = {name: len(body[name]) for name in ("entity_id", "entity_display_name", "state_message", "log")}
    assert lengths == {"entity_id": 512, "entity_display_name": 1024, "state_message": 20_480, "log": 1024}
    assert json.loads(body["alert_gateway"])["fields"]["custom"] == custom
    assert same.call("POST", "/ilert/api/events", ilert_event("RESOLVE", "k" * 600), key=None).status == 202
    assert same.arrives("splunk_oncall", mark + 2)[mark + 1].body["entity_id"] == body["entity_id"]


@pytest.mark.parametrize("word", ["CRITICAL", "INFO"])
def test_an_id_that_is_too_long_is_the_same_whatever_it_says(same: House, word: str) -> None:
    key = fresh("k" * 600)
    entity = fitted_key(key)
    assert len(entity) == 512 and _next(same, splunk_alert(word, key)).body["entity_id"] == entity


def test_the_text_of_a_recovery_is_cut_too(same: House) -> None:
    key = fresh("disk")
    _next(same, _critical(key))
    assert len(_next(same, splunk_alert("RECOVERY", key, state_message="x" * 30_000)).body["state_message"]) == 20_480


def test_links_and_images_are_annotations_with_titles_of_their_own(same: House) -> None:
    mark = len(same.arrived("splunk_oncall"))
    links = [{"href": "https://w/1", "text": "Wiki"}, {"href": "https://w/2", "text": "Wiki"}, {"href": "https://w/3"}]
    links.append({"href": f"https://w/{'x' * 1124}", "text": "too long"})
    event = {**pagerduty_event("trigger", fresh("key")), "links": links, "images": [{"src": "https://i/1.png"}]}
    assert same.call("POST", "/pagerduty/v2/enqueue", event, key=None).status == 202
    body = same.arrives("splunk_oncall", mark + 1)[mark].body
    assert {name: value for name, value in body.items() if name.startswith("vo_annotate")} == {
        "vo_annotate.u.Wiki": "https://w/1",
        "vo_annotate.u.Wiki 2": "https://w/2",
        "vo_annotate.u.Link": "https://w/3",
        "vo_annotate.i.Image": "https://i/1.png",
    }
    assert len(json.loads(body["alert_gateway"])["fields"]["links"]) == 4


# --- the upstream's answers ----------------------------------------------------------------------------------


def _page(h: House, word: str = "ALERT", key: str = "disk") -> None:
    assert h.call("POST", "/ilert/api/events", ilert_event(word, key, summary="s"), key=None).status == 202


FITS = {"Runbook": "https://wiki.example/db"}


@pytest.mark.parametrize(
    ("posted", "annotations", "further"),
    [
        ({"vo_annotate.u.Runbook": "https://wiki.example/db"}, {"u": FITS}, {}),
        ({"vo_annotate": {"u": FITS}}, {"u": FITS}, {}),
        ({"vo_annotate.u": FITS, "vo_annotate.i.Graph": "g"}, {"i": {"Graph": "g"}}, {"vo_annotate.u": FITS}),
        ({"vo_annotate.s.Note": "restart it"}, {}, {"vo_annotate.s.Note": "restart it"}),
        ({"vo_annotate.u.Runbook": " "}, {}, {"vo_annotate.u.Runbook": " "}),
        ({"vo_annotate.u.Runbook": 5}, {}, {"vo_annotate.u.Runbook": 5}),
        ({"vo_annotate.u. ": "https://wiki.example"}, {}, {"vo_annotate.u. ": "https://wiki.example"}),
        ({"vo_annotate": {"u": "https://wiki.example"}}, {}, {"vo_annotate": {"u": "https://wiki.example"}}),
        ({"vo_annotate": {"u": {**FITS, "": "x"}}}, {}, {"vo_annotate": {"u": {**FITS, "": "x"}}}),
        ({"vo_annotate": "u"}, {}, {"vo_annotate": "u"}),
        ({"vo_annotates.u.Runbook": "https://wiki.example"}, {}, {"vo_annotates.u.Runbook": "https://wiki.example"}),
        ({"vo_annotate.u." + "t" * 1024: "x" * 1124}, {"u": {"t" * 1024: "x" * 1124}}, {}),
        ({"vo_annotate.u." + "t" * 1025: "x"}, {}, {"vo_annotate.u." + "t" * 1025: "x"}),
        ({"vo_annotate.u.t": "x" * 1125}, {}, {"vo_annotate.u.t": "x" * 1125}),
        ({"(further fields)": {"rack": 4}, "row": None}, {}, {"rack": 4, "row": None}),
        ({"(further fields)": "x"}, {}, {"(further fields)": "x"}),
    ],
)
def test_what_is_shown_as_a_link_or_an_image_and_what_is_a_field_as_it_is(
    posted: dict[str, Any], annotations: dict[str, Any], further: dict[str, Any]
) -> None:
    """What the service would cut or not show is kept whole, as a custom field; nothing is left out on the way back."""
    read = gathered({"message_type": "CRITICAL", "hostname": None, **posted}, "team")
    held = {name: value for name, value in (("vo_annotate", annotations), ("(further fields)", further)) if value}
    assert read == {"message_type": "CRITICAL", "routing_key": "team", **held}
    flat = {f"vo_annotate.{kind}.{title}": value for kind, one in annotations.items() for title, value in one.items()}
    assert scattered(read) == {"message_type": "CRITICAL", **flat, **further}


def test_a_custom_field_never_stands_for_one_of_the_service_s_own() -> None:
    fields: dict[str, Any] = {"entity_id": "k", "hostname": None, "vo_annotate": {"u": None}, "routing_key": "team"}
    fields["(further fields)"] = {"entity_id": "other", "routing_key": "theirs", "rack": 4}
    assert scattered(fields) == {"entity_id": "k", "routing_key": "theirs", "rack": 4}


@pytest.mark.parametrize(("text", "fitted"), [("x" * 9, "x" * 9), ("x" * 10, "x" * 8 + "…"), (10**10, 10**10)])
def test_a_text_is_cut_at_its_limit(text: Any, fitted: Any) -> None:
    assert shortened(text, 9) == fitted


@pytest.mark.parametrize(("length", "is_whole"), [(512, True), (513, False)])
def test_an_id_is_cut_only_beyond_its_limit(length: int, is_whole: bool) -> None:
    assert (fitted_key("k" * length) == "k" * length) is is_whole
    assert len(fitted_key("k" * length)) == 512


def test_what_fails_there_is_sent_again(tmp_path: Path) -> None:
    answers = iter([say(503), say(429), OK])
    with (
        chaos(lambda got: next(answers, OK)) as upstream,
        before(tmp_path, table("there", upstream.url, "splunk_oncall")) as h,
    ):
        _page(h)
        [row] = settled(h)
        assert row.attempts == 3
        assert {got.path for got in upstream.got} == {f"{PATH}/upstream-key"}


@pytest.mark.parametrize("status", [200, 400, 422])
def test_a_failure_is_a_dead_letter_with_the_vendor_s_reason(tmp_path: Path, status: int) -> None:
    """The page does not say with which status a failure is answered."""
    refusal = say(status, {"result": "failure", "message": "Missing fields: message_type (key upstream-key)"})
    with chaos(refusal) as upstream, before(tmp_path, table("there", upstream.url, "splunk_oncall")) as h:
        _page(h)
        [dead] = settled(h, "dead")
        assert dead.reason == f"{status} Missing fields: message_type (key •••)"


@pytest.mark.parametrize("body", [None, {"result": "failure", "message": "unknown key upstream-key"}])
def test_a_wrong_key_holds_the_upstream_until_it_is_right(tmp_path: Path, body: Any) -> None:
    """404 is never a verdict on an alert here."""
    key = tmp_path / "key"
    key.write_text("wrong-key")
    with chaos(lambda got: OK if "right-key" in got.path else say(404, body)) as upstream:
        keyed = table("there", upstream.url, "splunk_oncall").replace('"upstream-key"', f'"file:{key}"')
        with before(tmp_path, keyed) as h:
            _page(h)
            h.wait_for(lambda: h.gateway.dispatcher and h.gateway.dispatcher.is_open("there"))
            [row] = outbox(h)
            assert row.state == "waiting" and "wrong-key" not in row.reason
            key.write_text("right-key-1")
            settled(h)
            assert upstream.got[-1].path == f"{PATH}/right-key-1"


def test_a_routing_key_set_by_the_route_goes_with_everything_of_the_alert(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = [{ upstream = "there", set = { routing_key = "database" } }]'
    with (
        chaos(OK) as upstream,
        before(tmp_path, table("there", upstream.url, "splunk_oncall"), routes=routes) as h,
    ):
        for word in ("ALERT", "ACCEPT", "RESOLVE"):
            _page(h, word)
        settled(h, count=3)
        assert [got.path for got in upstream.got] == [f"{PATH}/upstream-key/database"] * 3
        words = [got.body["message_type"] for got in upstream.got]
        assert words == ["CRITICAL", "ACKNOWLEDGEMENT", "RECOVERY"]
