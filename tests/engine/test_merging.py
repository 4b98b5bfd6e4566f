"""Updates that wait behind a dead upstream are merged. canonical.md, *The road of a command*: waiting updates of one
alert merge field by field, and accepted = delivered + dead + waiting + merged + void, always."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import Chaos, chaos, say
from tests.clients.callers import ibm_alert
from tests.engine.vendors import OK, Ibm, Uptinio, before, down, inner, outbox, settled, table, writes
from tests.harness import House

TOP = 'reply_timeout = "200ms"'


def states(h: House) -> list[str]:
    """The state of every delivery, oldest first."""
    return [one.state for one in outbox(h)]


def put_while_down(h: House, upstream: Chaos, address: str, *bodies: Any) -> None:
    """Sends updates while the upstream takes nothing, then lets it recover."""
    answer, upstream.answer = upstream.answer, lambda got: say(503)
    upstream.got.clear()
    for body in bodies:
        assert h.call("PUT", address, body).status == 200
    upstream.got.clear()
    upstream.answer = answer
    h.wait_for(lambda: "waiting" not in states(h))


def test_updates_that_wait_go_to_uptinio_as_one(tmp_path: Path) -> None:
    """All changes arrive in one PUT: the later value where two set a field, no field that none set, and what only the
    vendor knows."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio"), top=TOP) as h:
        made = inner(down(h, "first"))
        threshold = {"value": 5, "operator": ">", "duration": 60}
        changes = {"message": "second", "type": "slow", "x": 1}, {"threshold": threshold}, {"message": "third"}
        put_while_down(h, upstream, f"/uptinio/alerts/{made['id']}", *changes)
        assert states(h) == ["delivered", "merged", "merged", "delivered"]
        [sent] = [got for got in writes(upstream, "PUT") if "second" not in got.content.decode()]
        assert sent.body == {"message": "third", "type": "slow", "threshold": threshold, "x": 1}


def test_updates_that_wait_go_to_ibm_as_one(tmp_path: Path) -> None:
    """The merged update is laid over IBM's rule once."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring"), top=TOP) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU high")))
        address = f"/ibm_monitoring/api/alerts/{made['id']}"
        put_while_down(h, upstream, address, {"alert": {"severity": 1}}, {"alert": {"description": "why"}})
        assert states(h) == ["delivered", "merged", "delivered"]
        [sent] = writes(upstream, "PUT")
        assert (sent.body["alert"]["severity"], sent.body["alert"]["description"]) == (1, "why")
        assert there.held[str(made["id"])]["version"] == 2


@pytest.mark.parametrize("caller", ["uptinio", "ibm_monitoring"])
def test_updates_that_wait_go_to_ilert_as_one(tmp_path: Path, caller: str) -> None:
    """Two `ALERT`s with one key become one that has the fields of both."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert"), top=TOP) as h:
        if caller == "uptinio":
            address = f"/uptinio/alerts/{inner(down(h, 'first'))['id']}"
            changes: list[Any] = [{"message": "second"}, {"type": "slow"}]
        else:
            made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("first")))
            address = f"/ibm_monitoring/api/alerts/{made['id']}"
            changes = [{"alert": {"name": "second"}}, {"alert": {"severity": 0}}]
        key = upstream.got[0].body["alertKey"]
        put_while_down(h, upstream, address, *changes)
        assert states(h) == ["delivered", "merged", "delivered"]
        last = upstream.got[-1].body
        assert (last["eventType"], last["alertKey"], last["summary"]) == ("ALERT", key, "second")
        assert caller == "uptinio" or last["severity"] == 1


def test_what_waits_for_another_alert_is_not_merged(tmp_path: Path) -> None:
    """Only updates of one alert merge; those of other alerts are sent separately."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio"), top=TOP) as h:
        one, two = inner(down(h, "one")), inner(down(h, "two"))
        answer, upstream.answer = upstream.answer, lambda got: say(503)
        h.call("PUT", f"/uptinio/alerts/{one['id']}", {"message": "one more"})
        h.call("PUT", f"/uptinio/alerts/{two['id']}", {"message": "two more"})
        upstream.answer = answer
        settled(h, count=4)
        assert {alert["message"] for alert in there.held.values()} == {"one more", "two more"}


NO_MORE = say(422, {"error": {"message": "not today"}})


def _forgotten(h: House) -> None:
    """Removes, as retention does, the commands whose deliveries were merged: they ended long before the last one
    died."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        for one in [one for one in outbox(h) if one.state == "merged"]:
            SqliteTx(connection).remove_command(one.command)


def _retried(h: House, upstream: Chaos, address: str, *bodies: Any) -> Any:
    """Lets merged updates become one dead letter, removes the merged commands, retries it, and returns the body that is
    sent."""
    settled(h)
    answer, upstream.answer = upstream.answer, lambda got: say(503)
    for body in bodies:
        assert h.call("PUT", address, body).status == 200
    upstream.answer = lambda got: answer(got) if got.method == "GET" else NO_MORE
    settled(h, "dead")
    assert states(h) == ["delivered", "merged", "dead"]
    _forgotten(h)
    upstream.got.clear()
    upstream.answer = answer
    assert h.call("POST", "/-/retry", {"dead": True, "who": "me"}, key=None).status == 200
    settled(h, "delivered", 2)
    return writes(upstream, "PUT")[-1].body


def test_what_was_merged_and_is_forgotten_is_said_again_all_the_same(tmp_path: Path) -> None:
    """A dead letter that is retried after the updates merged into it were purged sends the alert's whole state, not
    only its own part."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio"), top=TOP) as h:
        address = f"/uptinio/alerts/{inner(down(h, 'first'))['id']}"
        sent = _retried(h, upstream, address, {"message": "second"}, {"type": "slow"})
        assert (sent["message"], sent["type"]) == ("second", "slow")


@pytest.mark.parametrize("caller", ["uptinio", "ibm_monitoring"])
def test_what_was_merged_and_is_forgotten_is_said_again_to_ibm(tmp_path: Path, caller: str) -> None:
    """The same at IBM, where an update is laid over the rule that is there, and for callers of another dialect."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring"), top=TOP) as h:
        if caller == "uptinio":
            address = f"/uptinio/alerts/{inner(down(h, 'first'))['id']}"
            changes: list[Any] = [{"message": "second"}, {"threshold": {"value": 7, "operator": ">", "duration": 600}}]
        else:
            made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("first")))
            address = f"/ibm_monitoring/api/alerts/{made['id']}"
            changes = [{"alert": {"name": "second"}}, {"alert": {"severity": 1}}]
        sent = _retried(h, upstream, address, *changes)["alert"]
        assert sent["name"] == "second"
        assert caller == "uptinio" or sent["severity"] == 1
