"""What an upstream has of an alert after a change: cleared fields are gone there, required fields are never empty, and
fields that no call can change are reported as unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos_upstream import chaos
from tests.clients.callers import ibm_alert
from tests.engine.genies import JsmOps, Opsgenie, paths
from tests.engine.vendors import Ibm, Uptinio, before, down, inner, page, settled, table, writes
from tests.harness import House

CARRIED = "alert_gateway"


def _put_ibm(h: House, made: dict[str, Any], **fields: Any) -> None:
    address = f"/ibm_monitoring/api/alerts/{made['id']}"
    assert h.call("PUT", address, {"alert": fields}).status == 200


# --- IBM -------------------------------------------------------------------------------------------------------


def test_what_was_cleared_is_carried_no_more(tmp_path: Path) -> None:
    """Cleared fields are removed from what is carried; what others noted there stays."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        page(h, customDetails={"password": "x", "host": "db-1"}, labels={"env": "test"})
        settled(h)
        [held] = there.held.values()
        held["annotations"]["theirs"] = {"seen": True}
        page(h, customDetails={"host": "db-1"})
        settled(h, count=2)
        [held] = there.held.values()
        assert held["annotations"][CARRIED]["fields"]["custom"] == {"host": "db-1"}
        assert held["annotations"]["theirs"] == {"seen": True}


def test_annotations_of_its_own_callers_are_those_they_said_last(tmp_path: Path) -> None:
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU", annotations={"a": 1, "b": 2})))
        settled(h)
        _put_ibm(h, made, annotations={"b": 2})
        settled(h, count=2)
        [held] = there.held.values()
        assert held["annotations"] == {"b": 2}


# --- changes that are a part of an alert -------------------------------------------------------------------------


def test_what_is_required_is_never_told_empty(tmp_path: Path) -> None:
    """An emptied summary is sent as a create would send it: vendors refuse an empty one."""
    with chaos(Ibm()) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = inner(down(h, "first"))
        settled(h)
        assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"message": ""}).status == 200
        settled(h, count=2)
        assert writes(upstream, "PUT")[-1].body["alert"]["name"] == "down mon_123"


def test_an_object_is_told_whole(tmp_path: Path) -> None:
    """A change of one part of an object sends the whole object, as the vendor may take a part for all of it."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU")))
        settled(h)
        _put_ibm(h, made, timespan=60_000_000)
        settled(h, count=2)
        [held] = there.held.values()
        assert held["threshold"] == {"value": 0, "operator": "<=", "duration": 60}


# --- one call per field ----------------------------------------------------------------------------------------


@pytest.fixture(params=[Opsgenie, JsmOps], ids=lambda kind: kind.dialect)
def genie(request: pytest.FixtureRequest) -> Opsgenie:
    """Each of the two vendors."""
    found: Opsgenie = request.param()
    return found


def test_a_change_of_what_is_carried_alone_is_told(tmp_path: Path, genie: Opsgenie) -> None:
    """A change of carried fields only is sent as an update of the details; as a repeated create it would be counted
    there, and the change lost."""
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h, images=[{"src": "https://example.com/secret.png"}])
        settled(h)
        page(h, images=[])
        settled(h, count=2)
        assert [path for path in paths(upstream) if path == f"POST {genie.collection}"] == [f"POST {genie.collection}"]
        [got] = [got for got in writes(upstream) if got.path.partition("?")[0].endswith(genie.details_at)]
        assert "secret" not in str(got.body)


def test_what_no_call_changes_is_said_to_stay(tmp_path: Path, genie: Opsgenie) -> None:
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        made = inner(down(h, "first"))
        settled(h)
        assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"monitor_id": "mon_7"}).status == 200
        last = settled(h, count=2)[-1]
        fates = {fate["field"]: fate["fate"] for fate in last.fates}
        assert fates["resource"] == "approximated"


def test_a_priority_that_is_there_no_more_is_the_usual_one(tmp_path: Path, genie: Opsgenie) -> None:
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("CPU", severity=0)))
        settled(h)
        _put_ibm(h, made, severity=None)
        settled(h, count=2)
        [got] = [got for got in writes(upstream) if got.path.partition("?")[0].endswith("/priority")]
        assert got.body == {"priority": "P3"}


def test_what_wakes_nobody_any_more_has_the_lowest_priority(tmp_path: Path, genie: Opsgenie) -> None:
    """An alert that becomes good news gets the lowest priority, though it had none before."""
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        made = inner(down(h, "first"))
        settled(h)
        assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"type": "up"}).status == 200
        settled(h, count=2)
        [got] = [got for got in writes(upstream) if got.path.partition("?")[0].endswith("/priority")]
        assert got.body == {"priority": "P5"}


def test_a_rule_that_is_switched_on_wakes_somebody(tmp_path: Path, genie: Opsgenie) -> None:
    """A rule that was created switched off, and so woke nobody, gets its priority when it is switched on."""
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        made = inner(h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("off", severity=0, enabled=False)))
        settled(h)
        _put_ibm(h, made, enabled=True, name="on")
        settled(h, count=2)
        told = {got.path.partition("?")[0].rpartition("/")[2]: got.body for got in writes(upstream)[1:]}
        assert told["priority"] == {"priority": "P1"} and told["message"] == {"message": "on"}
        assert "wakes nobody" not in told["description"]["description"]
