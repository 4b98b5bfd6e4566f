"""Updates that wait behind a dead upstream become one: canonical.md, *The road of a command*: waiting updates of one
alert merge field by field, and accepted = delivered + dead + waiting + merged + void, always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos_upstream import Chaos, chaos, say
from tests.clients.callers import ibm_alert
from tests.engine.vendors import OK, Ibm, Uptinio, before, down, inner, outbox, settled, table, writes
from tests.harness import House

TOP = 'reply_timeout = "200ms"'


def states(h: House) -> list[str]:
    """The state of every delivery, oldest first."""
    return [one.state for one in outbox(h)]


def put_while_down(h: House, upstream: Chaos, address: str, *bodies: Any) -> None:
    """Asks for updates while the upstream takes nothing, and lets it recover."""
    answer, upstream.answer = upstream.answer, lambda got: say(503)
    upstream.got.clear()
    for body in bodies:
        assert h.call("PUT", address, body).status == 200
    upstream.got.clear()
    upstream.answer = answer
    h.wait_for(lambda: "waiting" not in states(h))


def test_updates_that_wait_go_to_uptinio_as_one(tmp_path: Path) -> None:
    """Both changes arrive in one PUT, the later word where both speak, and nothing that neither said."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio"), top=TOP) as h:
        made = inner(down(h, "first"))
        threshold = {"value": 5, "operator": ">", "duration": 60}
        changes = {"message": "second", "type": "slow"}, {"threshold": threshold}, {"message": "third"}
        put_while_down(h, upstream, f"/uptinio/alerts/{made['id']}", *changes)
        assert states(h) == ["delivered", "merged", "merged", "delivered"]
        [sent] = [got for got in writes(upstream, "PUT") if "second" not in got.content.decode()]
        assert sent.body == {"message": "third", "type": "slow", "threshold": threshold}


def test_updates_that_wait_go_to_ibm_as_one(tmp_path: Path) -> None:
    """IBM's own words, laid over what is there once."""
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
    """`ALERT` with the same key: one of them, and it says both."""
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
    """Merged are updates of one alert; those of others are sent for themselves."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio"), top=TOP) as h:
        one, two = inner(down(h, "one")), inner(down(h, "two"))
        answer, upstream.answer = upstream.answer, lambda got: say(503)
        h.call("PUT", f"/uptinio/alerts/{one['id']}", {"message": "one more"})
        h.call("PUT", f"/uptinio/alerts/{two['id']}", {"message": "two more"})
        upstream.answer = answer
        settled(h, count=4)
        assert {alert["message"] for alert in there.held.values()} == {"one more", "two more"}
