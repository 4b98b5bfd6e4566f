"""Requests whose answer was lost, could not be read, or could not be written down: the alert is looked for at the
upstream and never created twice. Stand-ins that keep and list what they are sent are behind the gateway, over HTTP."""

from __future__ import annotations

import json
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery import breaker
from gateway.process import service
from gateway.road import needed
from tests.chaos_upstream import CLOSE, HANG, RESET_AFTER, Behaviour, Got, chaos, say
from tests.clients.callers import ibm_alert
from tests.engine.replicas import execute
from tests.engine.vendors import (
    BY_ID,
    OK,
    Ibm,
    Uptinio,
    Vendor,
    before,
    count,
    down,
    fill,
    gated,
    heal,
    inner,
    outbox,
    page,
    rows,
    settled,
    table,
    writes,
)
from tests.harness import KEY, House, house
from tests.postgres_server import shared

GARBAGE = {"no UTF-8": say(200, b'{"data": {"id": "\xff\xfe\xfa"}}'), "60 kB of brackets": say(200, b"[" * 60_000)}


@BY_ID
def test_a_create_whose_success_cannot_be_read_is_looked_for_and_not_sent_again(
    tmp_path: Path, dialect: str, vendor: type[Vendor]
) -> None:
    """canonical.md, *Ambiguous creates*: after a lost answer a target that can be read is read before it is written."""
    there = vendor()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        for number, (name, garbage) in enumerate(GARBAGE.items(), 1):
            there.then = [garbage]
            upstream.got.clear()
            page(h, name, summary=name)
            delivered = settled(h, count=2 * number - 1)[-1]
            assert delivered.attempts == 1
            page(h, name, summary=f"{name}, and fuller")
            settled(h, count=2 * number)
            assert [got.method for got in writes(upstream)] == ["POST", "PUT"]
            assert writes(upstream)[1].path.rpartition("/")[2] in there.held, "it is known by the id that was found"


@BY_ID
def test_a_create_that_the_end_of_the_gateway_cut_off_is_looked_for(
    tmp_path: Path, dialect: str, vendor: type[Vendor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream may be given more time to answer than a gateway that stops has."""
    monkeypatch.setattr(service, "DRAIN_SECONDS", 0.1)
    there = vendor()
    with chaos(there) as upstream:
        oncall = table("there", upstream.url, dialect, timeout="60s")
        with before(tmp_path, oncall) as h:
            there.then = [HANG]
            page(h)
            h.wait_for(lambda: writes(upstream))
        with before(tmp_path, oncall) as h:
            settled(h)
            assert [got.method for got in writes(upstream)] == ["POST"]
            assert len(there.held) == 1


def test_a_change_whose_answer_was_lost_is_no_conflict(tmp_path: Path) -> None:
    """The version that it finds is its own: nobody else changed the rule."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU high")))
        there.then = [CLOSE, CLOSE]
        change = {"alert": {"name": "Disk fuller"}}
        sent = h.call("PUT", f"/ibm_monitoring/api/alerts/{made['id']}", change)
        assert sent.status == 200, sent.body
        assert inner(sent)["name"] == "Disk fuller"


class _Deciding(Ibm):
    """Chooses the number for a severity of which it is told the label alone, as the service does."""

    def _write(self, got: Got, number: str) -> Behaviour:
        alert = got.body["alert"]
        if "severity" not in alert:
            alert["severity"] = {"HIGH": 0, "LOW": 4}[alert["severityLabel"]]
        alert["severityLabel"] = ("HIGH", "HIGH", "MEDIUM", "MEDIUM", "LOW", "LOW", "INFO", "INFO")[alert["severity"]]
        return super()._write(
            Got(got.method, got.path, got.headers, json.dumps({"alert": alert}).encode(), got.at), number
        )


def test_a_number_chosen_there_for_a_label_is_no_other_content_and_no_change(tmp_path: Path) -> None:
    """The page's own sample has the label alone. Its create is found after a lost answer, and not sent again under a
    name that is taken by then; its number is shown, under the same version; and its update is no conflict."""
    asked = ibm_alert("CPU high", severityLabel="LOW")
    del asked["alert"]["severity"]
    there = _Deciding()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        there.then = [CLOSE]
        sent = h.call("POST", "/ibm_monitoring/api/alerts", asked)
        assert sent.status == 200, sent.body
        assert len(writes(upstream)) == 1
        path = f"/ibm_monitoring/api/alerts/{inner(sent)['id']}"
        seen = inner(h.call("GET", path))
        assert (seen["severity"], seen["version"]) == (4, 1)
        there.then = [CLOSE, CLOSE]
        sent = h.call("PUT", path, {"alert": {"severityLabel": "HIGH", "version": 1}})
        assert sent.status == 200, sent.body


class _Narrow(Uptinio):
    """Keeps the documented fields alone."""

    def _write(self, got: Got, number: str) -> Behaviour:
        body = {name: value for name, value in got.body.items() if name in ("monitor_id", "type", "message", "status")}
        return super()._write(Got(got.method, got.path, got.headers, json.dumps(body).encode(), got.at), number)


def test_what_the_vendor_does_not_document_need_not_be_found(tmp_path: Path) -> None:
    """A field that it ignores is not shown by it, and the alert is the one that was sent all the same."""
    there = _Narrow()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        there.then = [CLOSE]
        assert down(h, "disk", colour="red").status == 201
        assert len(writes(upstream)) == 1


def test_the_end_is_told_of_what_a_reopening_opened_whose_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had ended there, and rings again: that it was over before it could be told is not known then, however late."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        alert = inner(down(h))["id"]
        for status in ("resolved", "active"):
            assert h.call("PUT", f"/uptinio/alerts/{alert}", {"status": status}).status == 200
            settled(h, count={"resolved": 2, "active": 2}[status])
            upstream.always(RESET_AFTER)
        h.wait_for(lambda: rows(h, "attempts", "deliveries WHERE state = 'waiting'") > [1])
        monkeypatch.setattr(needed, "FOLDED_AFTER_MS", 0)
        h.call("PUT", f"/uptinio/alerts/{alert}", {"status": "resolved"})
        upstream.always(OK)
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert upstream.got[-1].body["eventType"] == "RESOLVE"
        assert outbox(h)[-1].state == "delivered"


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_list_that_cannot_be_read_is_answered_from_the_record(tmp_path: Path, garbage: Behaviour) -> None:
    """canonical.md, *Reads*: asked within `reply_timeout`, else the record with `Alert-Gateway-Stale`."""
    paths = {
        "uptinio": "/uptinio/alerts",
        "ibm_monitoring": "/ibm_monitoring/api/alerts",
        "livesession": "/livesession/v1/alerts",
    }
    routes = "\n".join(f'[[routes]]\nfrom = ["{name}"]\nto = ["{name}"]' for name in paths)
    with chaos(garbage) as upstream:
        tables = [table(name, upstream.url, name) for name in paths]
        with before(tmp_path, *tables, routes=routes) as h:
            for number, path in enumerate(paths.values(), 1):
                listed = h.call("GET", path)
                assert (listed.status, listed.headers.get("alert-gateway-stale")) == (200, "true"), listed.body
                assert [got.method for got in upstream.got] == ["GET"] * number


@BY_ID
def test_a_create_that_was_taken_though_the_answer_says_otherwise_is_found(
    tmp_path: Path, dialect: str, vendor: type[Vendor]
) -> None:
    """canonical.md, *Ambiguous creates*: an object with our content, made since, is ours, so nothing is doubled; a 422
    after an ambiguous IBM create is not taken for a name clash."""
    there = vendor()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        for number, lost in enumerate([say(504), say(502), say(408), RESET_AFTER], 1):
            there.then = [lost]
            upstream.got.clear()
            page(h, lost.name, summary=lost.name)
            settled(h, count=number)
            assert [got.method for got in upstream.got][:2] == ["POST", "GET"], lost.name
            assert len(writes(upstream)) == 1, lost.name
        assert len(there.held) == 4


def test_a_create_under_another_name_whose_answer_was_lost_is_found(tmp_path: Path) -> None:
    """canonical.md, *Ambiguous creates*: the name was taken, so the rule has another one there than was asked for. It
    is ours all the same: told that it was refused, nobody could ever end it."""

    class Loses(Ibm):
        def _write(self, got: Got, number: str) -> Behaviour:
            answer = super()._write(got, number)
            is_first = len(self.held) == 2 and got.method == "POST" and answer.name == "say 200"
            return say(504) if is_first else answer

    there = Loses({"id": 5, "name": "Website is down", "version": 1, "createdOn": 1000})
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = down(h)
        assert made.status == 201, made.body
        delivered = settled(h)[0]
        assert {
            "field": "summary",
            "fate": "approximated",
            "to": "",
            "why": "the name was already in use there",
        } in delivered.fates
        names = [one["name"] for one in there.held.values()]
        assert names == ["Website is down", f"Website is down [{delivered.alert}]"]
        h.call("PUT", f"/uptinio/alerts/{inner(made)['id']}", {"status": "resolved"})
        settled(h, count=2)
        assert [one.get("enabled") for one in there.held.values()] == [None, False]


def test_an_outcome_that_the_full_store_cannot_take_is_recorded_later_and_not_sent_again(tmp_path: Path) -> None:
    """guarantees.md 3: delivery resumes unaided after a full disk; what a vendor took is not sent again meanwhile."""
    large = "alt_" + "7" * 20_000  # needs pages of its own

    def answer(got: Got) -> Behaviour:
        fill(h)
        return say(201, {"data": {"id": large}})

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        try:
            page(h)
            h.wait_for(lambda: upstream.got)
            with pytest.raises(AssertionError, match="did not come"):
                h.wait_for(lambda: outbox(h, "delivered"), 0.4)
        finally:
            heal(h)
        [delivered] = settled(h)
        assert delivered.attempts == 1
        assert large in rows(h, "name", "ids")
        assert len(upstream.got) == 1


def test_an_outcome_that_could_not_be_recorded_before_the_end_is_looked_for(tmp_path: Path) -> None:
    """Who restarts a gateway whose disk is full must not be paged twice for what a vendor took meanwhile."""
    there, gate, large = Uptinio(), threading.Event(), "alt_" + "7" * 20_000

    def answer(got: Got) -> Behaviour:
        if got.method != "POST":
            return there(got)
        there(got)
        [made] = there.held.values()
        there.held = {large: {**made, "id": large}}
        return gated(gate, say(201, {"data": there.held[large]}))

    with chaos(answer) as upstream:
        oncall = table("there", upstream.url, "uptinio")
        with before(tmp_path, oncall) as h:
            page(h)
            h.wait_for(lambda: upstream.got and count(h, "calls"))  # nothing else is left to be written at the end
            fill(h)
            gate.set()
        with before(tmp_path, oncall) as h:
            settled(h)
        assert [got.method for got in writes(upstream)] == ["POST"]


def test_what_was_opened_is_kept_though_no_store_can_hold_what_came_of_it(tmp_path: Path) -> None:
    """Its caller is told of an error, but it pages somebody, and so somebody has to be able to end it."""
    url, large = shared().database(), secrets.token_hex(8_000)
    taken = say(202, {"result": "Request will be processed", "requestId": "r"})
    done = say(200, {"data": {"success": True, "isSuccess": True, "status": "Created alert", "alertId": large}})
    with chaos(lambda got: taken if got.method == "POST" else done) as upstream:
        text = f'[inbound.uptinio]\nkeys = {{ ci = "{KEY}" }}\n' + table("there", upstream.url, "opsgenie")
        with house(tmp_path, config=lambda _: text, store=url) as h:
            assert down(h).status >= 400
            assert execute(url, "SELECT state, code FROM deliveries") == [("dead", "internal")]
            assert execute(url, "SELECT count(*) FROM alerts") == [(1,)]


def test_an_outcome_that_no_store_can_hold_is_a_dead_letter_and_not_sent_every_second(tmp_path: Path) -> None:
    """PostgreSQL's indexes take no id of thousands of characters, whatever an upstream makes up."""
    url, large = shared().database(), secrets.token_hex(8_000)
    asked = "SELECT state, attempts, status, code FROM deliveries"
    with chaos(say(201, {"data": {"id": large}})) as upstream:
        text = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n' + table("there", upstream.url, "uptinio")
        with house(tmp_path, config=lambda _: text, store=url) as h:
            page(h)
            assert h.wait_for(lambda: [row for row in execute(url, asked) if row[0] != "waiting"]) == [
                ("dead", 1, 201, "internal")
            ]
        assert len(upstream.got) == 1


def held(h: House) -> Any:
    """The names of the held upstreams."""
    return h.client.get(h.url + "/-/ready").json()["held"]


@pytest.mark.parametrize("silence", [CLOSE, say(503)], ids=lambda one: one.name)
def test_a_held_upstream_whose_probe_gets_no_verdict_stays_held(
    tmp_path: Path, silence: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """canonical.md, *Verdicts*: a refused key holds the whole upstream; a transport failure or a 5xx says nothing about
    the key, so the upstream stays held until a request is accepted."""
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.2)
    with chaos(say(401)) as upstream, before(tmp_path, table("there", upstream.url, "ilert")) as h:
        page(h, "first")
        h.wait_for(lambda: held(h))
        upstream.always(silence)
        known = upstream.connections
        h.wait_for(lambda: upstream.connections >= known + 2)
        assert held(h) == ["there"]
        upstream.always(OK)
        settled(h)
        assert held(h) == []


@pytest.mark.parametrize("silence", [CLOSE, say(503)], ids=lambda one: one.name)
def test_a_held_upstream_whose_probe_gets_no_verdict_is_not_probed_by_everything_that_waits(
    tmp_path: Path, silence: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """canonical.md, *Verdicts*: one probe a minute, whatever the outcome of the last one."""
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.3)
    with chaos(say(401)) as upstream, before(tmp_path, table("there", upstream.url, "ilert")) as h:
        page(h, "first")
        h.wait_for(lambda: held(h))
        for number in range(8):
            page(h, f"key-{number}")
        upstream.always(silence)
        known = upstream.connections
        began = time.monotonic()
        h.wait_for(lambda: upstream.connections >= known + 4)
        assert time.monotonic() - began >= 0.6
        assert held(h) == ["there"]
        upstream.always(OK)
        settled(h, count=9)


def test_a_caller_who_waits_no_more_is_not_told_of_a_change_by_others(tmp_path: Path) -> None:
    """canonical.md, *IBM update*: 409 only while the caller waits; otherwise the update is laid over the changed alert,
    and reported."""
    there = Ibm()
    top = 'reply_timeout = "300ms"'
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring"), top=top) as h:
        made = h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU high")).body["alert"]
        there.held[str(made["id"])].update(version=9, description="changed in the console")
        there.slow_reads = 0.6
        put = h.call("PUT", f"/ibm_monitoring/api/alerts/{made['id']}", {"alert": {"severity": 1}})
        assert put.status == 200, put.body
        settled(h, count=2)
        assert outbox(h, "dead") == []
        [sent] = writes(upstream, "PUT")
        assert sent.body["alert"]["severity"] == 1
        assert sent.body["alert"]["description"] == "changed in the console"
        assert "version" in str(outbox(h)[1].fates), "that it was laid over is reported"
