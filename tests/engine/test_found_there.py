"""Changes that a read finds at the primary and that the other upstreams have not heard of: the caller's next command
ends or repeats the page there as if there had been no read. canonical.md, *Reads*."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.delivery import lanes
from gateway.desk import refreshing
from gateway.process import housekeeping, service
from tests.chaos_upstream import Behaviour, Chaos, Got, chaos, say
from tests.clients.callers import COLLECTIONS, ibm_alert, livesession_alert
from tests.engine.genies import ID, Opsgenie
from tests.engine.vendors import (
    OK,
    Ibm,
    LiveSession,
    Uptinio,
    before,
    count,
    down,
    messages,
    rows,
    settled,
    table,
    writes,
)
from tests.harness import KEY, House, house

ACCEPTED = 'reply = "accepted"'
BOTH = '[[routes]]\nto = ["there", "two"]\n'


def takes_all(got: Got) -> Behaviour:
    """A vendor that accepts every write."""
    return OK


def test_the_end_of_what_a_read_found_over_is_told_to_the_others(tmp_path: Path) -> None:
    """A poll saw that the alert was closed at the primary; the sender's own resolve, by key, still ends it at the
    others."""
    genie, second = Opsgenie(), Uptinio()
    alerts, close = "/opsgenie/v2/alerts", "/opsgenie/v2/alerts/disk/close?identifierType=alias"
    with chaos(genie) as one, chaos(second) as two:
        text = f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n{genie.table(one)}{table("two", two.url, "uptinio")}'
        with house(tmp_path, config=lambda _: text + BOTH) as h:
            h.call("POST", alerts, {"message": "Disk full", "alias": "disk"})
            settled(h, count=2)
            shown = {"id": ID, "alias": "disk", "message": "Disk full", "status": "closed", "acknowledged": False}
            genie.reading = say(200, {"data": shown, "requestId": "r"})
            found = h.call("GET", f"{alerts}/disk?identifierType=alias")
            assert found.body["data"]["status"] == "closed"
            assert h.call("POST", close, {}).status == 202
            h.wait_for(lambda: [one["status"] for one in second.held.values()] == ["resolved"])
            assert h.call("POST", close, {}).status == 202
            settled(h, count=5)  # the repeat finds nothing to end any more, and goes by its key alone
            assert len(writes(two)) == 2


def test_what_a_read_found_over_is_not_open_again_as_somebody_acknowledges_it(tmp_path: Path) -> None:
    genie = Opsgenie()
    with chaos(genie) as one, chaos(takes_all) as two:
        second = table("two", two.url, "pagerduty", "")
        text = f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n{genie.table(one)}{second}'
        with house(tmp_path, config=lambda _: text + BOTH) as h:
            h.call("POST", "/opsgenie/v2/alerts", {"message": "Disk full", "alias": "disk"})
            settled(h, count=2)
            shown = {"id": ID, "alias": "disk", "message": "Disk full", "status": "closed", "acknowledged": False}
            genie.reading = say(200, {"data": shown, "requestId": "r"})
            assert h.call("GET", f"/opsgenie/v2/alerts/{ID}").body["data"]["status"] == "closed"
            assert h.call("POST", f"/opsgenie/v2/alerts/{ID}/acknowledge", {}).status == 202
            assert rows(h, "status", "alerts") == ["resolved"]


@contextlib.contextmanager
def told_to_both(directory: Path, first: Uptinio) -> Iterator[tuple[House, Chaos, str]]:
    """A gateway in front of Uptinio, the primary, and PagerDuty, both of which have an alert; yields its id too."""
    with chaos(first) as one, chaos(takes_all) as two:
        tables = table("there", one.url, "uptinio"), table("two", two.url, "pagerduty", "")
        with before(directory, *tables, routes=BOTH) as h:
            made = str(down(h).body["data"]["id"])
            settled(h, count=2)
            yield h, two, made


def test_the_end_by_id_of_what_a_read_found_over_is_told_to_the_others(tmp_path: Path) -> None:
    first = Uptinio()
    with told_to_both(tmp_path, first) as (h, two, made):
        first.held[made]["status"] = "resolved"
        address = f"/uptinio/alerts/{made}"
        assert h.call("GET", address).body["data"]["status"] == "resolved"
        assert h.call("PUT", address, {"status": "resolved"}).status == 200
        settled(h, count=4)
        assert [got.body.get("event_action", "trigger") for got in writes(two)] == ["trigger", "resolve"]


def test_what_was_open_for_longer_than_retention_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of its creation has been purged by then."""
    monkeypatch.setattr(housekeeping, "PURGE_EVERY", 0.0)
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.1)
    first = Uptinio()
    with told_to_both(tmp_path, first) as (h, two, made):
        config = h.gateway.config
        h.gateway.config = dataclasses.replace(config, retention=0.001)
        h.wait_for(lambda: count(h, "commands") == 0)
        h.gateway.config = config
        time.sleep(0.5)
        first.held[made]["status"] = "resolved"
        address = f"/uptinio/alerts/{made}"
        assert h.call("GET", address).body["data"]["status"] == "resolved"
        assert h.call("PUT", address, {"status": "resolved"}).status == 200
        h.wait_for(lambda: [got.body.get("event_action", "trigger") for got in writes(two)] == ["trigger", "resolve"])


def test_what_a_read_found_open_again_pages_the_others_when_it_is_said_again(tmp_path: Path) -> None:
    """The other upstream has ended the alert, so it is sent a create: an update of an ended alert would wake nobody."""
    first = Uptinio()
    with told_to_both(tmp_path, first) as (h, two, made):
        address = f"/uptinio/alerts/{made}"
        h.call("PUT", address, {"status": "resolved"})
        settled(h, count=4)
        h.call("PUT", address, {"message": "was down"})  # which does not say that it is on
        settled(h, count=5)
        first.held[made]["status"] = "active"
        found = h.call("GET", address).body["data"]
        assert (found["status"], found["resolved_at"]) == ("active", None)
        assert h.call("PUT", address, {"message": "again"}).status == 200
        settled(h, count=7)
        said = [(got.body.get("event_action", "trigger"), got.body.get("payload")) for got in writes(two)]
        assert [action for action, _ in said] == ["trigger", "resolve", "trigger"]
        assert said[-1][1]["summary"] == "again"


def test_what_was_deleted_at_the_primary_is_ended_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record no longer has the alert, so no caller could end the page. They are told at once, not when their
    outbox is next looked through."""
    monkeypatch.setattr(lanes, "POLL", 60.0)
    first = Ibm()
    with chaos(first) as one, chaos(takes_all) as two:
        tables = table("there", one.url, "ibm_monitoring"), table("two", two.url, "pagerduty", "")
        with before(tmp_path, *tables, routes=BOTH) as h:
            made = h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU")).body["alert"]
            settled(h, count=2)
            first.held.clear()
            assert h.call("GET", f"/ibm_monitoring/api/alerts/{made['id']}").status == 404
            h.wait_for(lambda: len(writes(two)) == 2)
            assert writes(two)[-1].body["event_action"] == "resolve"
            assert len(writes(one)) == 1, "what is gone there is told nothing"
            assert rows(h, "is_deleted", "alerts") == [1]


@pytest.mark.parametrize("dialect", ["ibm_monitoring", "livesession"])
def test_what_a_list_no_longer_has_is_asked_for_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Somebody deleted the rule in the vendor's own interface. It is listed no longer, its name is free again, and the
    others are told; one that is still there although the list leaves it out stays."""
    monkeypatch.setattr(refreshing, "LISTED_AFTER_MS", -1)
    first: Ibm | LiveSession = Ibm() if dialect == "ibm_monitoring" else LiveSession()
    with chaos(first) as one, chaos(takes_all) as two:
        tables = table("there", one.url, dialect), table("two", two.url, "pagerduty", "")
        with before(tmp_path, *tables, routes=BOTH) as h:
            for name in ("kept", "deleted"):
                asked = ibm_alert(name) if dialect == "ibm_monitoring" else livesession_alert(name)
                assert h.call("POST", COLLECTIONS[dialect], asked).status < 300
            settled(h, count=4)
            first.held.pop(next(number for number, held in first.held.items() if held["name"] == "deleted"))
            body = h.call("GET", COLLECTIONS[dialect]).body
            listed = body["alerts"] if dialect == "ibm_monitoring" else body
            assert [alert["name"] for alert in listed] == ["kept"]
            h.wait_for(lambda: len(writes(two)) == 3)
            assert writes(two)[-1].body["event_action"] == "resolve"
            assert h.call("POST", COLLECTIONS[dialect], asked).status < 300


def test_what_a_list_leaves_out_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list may be limited to a team's own rules, or late; only the answer for the alert itself counts."""
    monkeypatch.setattr(refreshing, "LISTED_AFTER_MS", -1)
    there = Ibm()
    there.lists = False
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("CPU")).body["alert"]
        assert [one["id"] for one in h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]] == [made["id"]]
        assert rows(h, "is_deleted", "alerts") == [0]


def test_a_list_does_not_take_back_what_waits(tmp_path: Path) -> None:
    """The upstream lists what it was told last: the caller's change is newer, however long it has waited."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio"), top=ACCEPTED) as h:
        made = down(h, "first").body["data"]["id"]
        settled(h)
        upstream.answer = lambda got: say(503) if got.method == "PUT" else there(got)
        assert h.call("PUT", f"{COLLECTIONS['uptinio']}/{made}", {"message": "second"}).status == 200
        h.wait_for(lambda: len(writes(upstream)) > 1)
        assert messages(h) == ["second"]
        assert any(got.method == "GET" for got in upstream.got)


def test_what_was_refused_there_is_not_taken_for_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dead letter may be sent again yet, and somebody has to look after the alert until then."""
    monkeypatch.setattr(refreshing, "LISTED_AFTER_MS", -1)
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring"), top=ACCEPTED) as h:
        upstream.plan(say(400, {"errors": [{"reason": "no", "message": "no"}]}))
        assert h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("CPU")).status == 200
        settled(h, "dead")
        assert len(h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]) == 1
        assert rows(h, "is_deleted", "alerts") == [0]


def test_what_changed_lately_need_not_be_listed_yet(tmp_path: Path) -> None:
    """A vendor's list may lag behind what it was told."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        assert h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("CPU")).status == 200
        there.held.clear()
        assert len(h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]) == 1


@pytest.mark.parametrize("is_changed", [True, False])
def test_a_change_there_of_what_was_never_sent_ends_the_version(tmp_path: Path, is_changed: bool) -> None:
    """The caller still holds the version of its create. Where somebody else changed the rule since, it would undo that
    change unawares; what the service merely shows in addition, under the same version, is no change."""
    there = Ibm()
    asked = ibm_alert("CPU")
    del asked["alert"]["description"]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = h.call("POST", COLLECTIONS["ibm_monitoring"], asked).body["alert"]
        held = there.held[str(made["id"])]
        held["description"] = "by somebody else" if is_changed else "the usual one"
        held["version"] += is_changed
        assert len(h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]) == 1
        mine = {"alert": {"description": "mine", "version": made["version"]}}
        sent = h.call("PUT", f"{COLLECTIONS['ibm_monitoring']}/{made['id']}", mine)
        assert sent.status == (409 if is_changed else 200), sent.body
        assert there.held[str(made["id"])]["description"] == ("by somebody else" if is_changed else "mine")


def test_what_was_changed_there_can_be_changed_by_whoever_has_seen_it(tmp_path: Path) -> None:
    """The caller names the version that it was shown last, and no other change has come since."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("CPU")).body["alert"]
        held = there.held[str(made["id"])]
        held["description"], held["version"] = "by somebody else", held["version"] + 1
        [shown] = h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]
        mine = {"alert": {"description": "mine", "version": shown["version"]}}
        sent = h.call("PUT", f"{COLLECTIONS['ibm_monitoring']}/{made['id']}", mine)
        assert sent.status == 200, sent.body
        assert there.held[str(made["id"])]["description"] == "mine"


def test_a_name_that_was_changed_there_is_free_again(tmp_path: Path) -> None:
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("CPU")).body["alert"]
        there.held[str(made["id"])]["name"] = "Memory"
        assert [one["name"] for one in h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]] == ["Memory"]
        assert h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("CPU")).status == 200
        assert h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert("Memory")).status == 422


@pytest.mark.parametrize("status", ["resolved", "active"])
def test_a_status_that_the_record_has_already_is_told_where_it_was_changed_there(tmp_path: Path, status: str) -> None:
    """Somebody reopened or ended the alert at the primary, and nobody has read it since: the caller's word counts, as
    it would at the vendor itself."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        path = f"{COLLECTIONS['uptinio']}/{down(h).body['data']['id']}"
        if status == "resolved":
            assert h.call("PUT", path, {"status": "resolved"}).status == 200
        [held] = there.held.values()
        held["status"] = "active" if status == "resolved" else "resolved"
        sent = h.call("PUT", path, {"status": status})
        assert (sent.status, sent.body["data"]["status"]) == (200, status)
        assert held["status"] == status


def test_those_that_a_list_leaves_out_do_not_hide_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is limited to another team's rules leaves all of these out, for good: each is asked for now and then,
    and not the first few each time."""
    monkeypatch.setattr(refreshing, "LISTED_AFTER_MS", -1)
    there = Ibm()
    there.lists = False
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        names = [f"CPU {number}" for number in range(9)]
        made = [h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(name)).body["alert"]["id"] for name in names]
        del there.held[str(made[4])]

        def listed() -> list[str]:
            found: list[dict[str, str]] = h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]
            return [one["name"] for one in found]

        h.wait_for(lambda: "CPU 4" not in listed())
        assert len(listed()) == 8
        asked = Counter(got.path for got in upstream.got if got.method == "GET" and not got.path.endswith("alerts"))
        assert max(asked.values()) == 1, asked


def test_who_lists_waits_no_longer_for_what_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list and what it leaves out are asked for within one `reply_timeout`."""
    monkeypatch.setattr(refreshing, "LISTED_AFTER_MS", -1)
    there = Ibm()
    there.lists = False
    with chaos(there) as upstream:
        oncall = table("there", upstream.url, "ibm_monitoring")
        with before(tmp_path, oncall, top='reply_timeout = "1s"') as h:
            for number in range(4):
                h.call("POST", COLLECTIONS["ibm_monitoring"], ibm_alert(f"CPU {number}"))
            there.slow_reads = 0.6
            assert len(h.call("GET", COLLECTIONS["ibm_monitoring"]).body["alerts"]) == 4
            assert len([got for got in upstream.got if got.method == "GET"]) <= 2
