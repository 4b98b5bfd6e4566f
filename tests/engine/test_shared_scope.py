"""Callers of several dialects share a scope, with upstreams that speak one of the dialects: each side is sent only
fields of its own dialect, whoever made the change. canonical.md, *Scope* and *Operations*."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import fields

from mappings.ibm_monitoring.alert import Alert
from tests.chaos_upstream import chaos
from tests.clients.callers import ibm_alert
from tests.engine.vendors import Ibm, before, down, inner, outbox, settled, table, writes

IBM_FIELDS = {item.encode_name for item in fields(Alert)}


def test_an_update_in_another_dialect_s_words_reaches_ibm_in_ibm_s(tmp_path: Path) -> None:
    """interface.md: `scope` lets several callers share alerts; an upstream is always addressed in its own dialect."""
    there = Ibm()
    with (
        chaos(there) as upstream,
        before(tmp_path, table("there", upstream.url, "ibm_monitoring"), scope="all") as h,
    ):
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU high", unheardOf="kept")))
        change = {"message": "CPU very high", "monitor_id": "mon_5", "channels": ["email"], "flavour": "sour"}
        changed = h.call("PUT", f"/uptinio/alerts/{made['id']}", change)
        assert changed.status == 200, changed.body
        settled(h, count=2)
        [sent] = writes(upstream, "PUT")
        assert sent.body["alert"]["name"] == "CPU very high"
        assert set(sent.body["alert"]) <= IBM_FIELDS | {"unheardOf"}, sent.body
        assert sent.body["alert"]["unheardOf"] == "kept"
        assert inner(h.call("GET", f"/ibm_monitoring/api/alerts/{made['id']}"))["name"] == "CPU very high"


def test_a_name_that_is_taken_at_ibm_is_told_apart_once_in_an_update_too(tmp_path: Path) -> None:
    """canonical.md, *Where a target requires*: IBM `name` taken (callers of other dialects): the gateway's id is
    appended in brackets, once; the caller keeps its own text."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        down(h, "taken")
        sent = down(h, "free")
        address = f"/uptinio/alerts/{inner(sent)['id']}"
        changed = h.call("PUT", address, {"message": "taken"})
        assert (changed.status, inner(changed)["message"]) == (200, "taken"), changed.body
        settled(h, count=3)
        own = sent.headers["alert-gateway-id"]
        assert [alert["name"] for alert in there.held.values()] == ["taken", f"taken [{own}]"]


def test_a_message_that_is_cleared_does_not_clear_ibm_s_name(tmp_path: Path) -> None:
    """canonical.md, *Fields*: `null` clears; a name, which IBM requires, is never sent as null."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        address = f"/uptinio/alerts/{inner(down(h, 'said'))['id']}"
        for body in ({"message": None}, {"message": None, "type": "slow"}):
            answer = h.call("PUT", address, body)
            assert answer.status < 500, answer.body
        h.wait_for(lambda: not outbox(h, "waiting"))
        for got in writes(upstream):
            assert got.body["alert"]["name"], got.body
