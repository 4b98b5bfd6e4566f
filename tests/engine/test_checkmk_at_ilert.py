"""Checkmk's notifications at the address that its plugin for ilert posts to.

https://docs.ilert.com/inbound-integrations/checkmk/native: problems, acknowledgements and recoveries are processed,
everything else is ignored. The plugin posts the context of a notification as it is: texts, a hundred of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mappings.ilert.checkmk import event
from tests.clients.callers import called, fresh
from tests.harness import KEY, House, Sent

PATH = f"/api/v1/events/checkmk-ext/{KEY}"


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with called(tmp_path_factory.mktemp("checkmk"), {"there": "ilert"}) as standing:
        yield standing


def _host(name: str, **more: str) -> dict[str, str]:
    """A host that is down, as Checkmk says it."""
    context = {
        "NOTIFICATIONTYPE": "PROBLEM",
        "WHAT": "HOST",
        "OMD_SITE": "prod",
        "HOSTNAME": name,
        "HOSTALIAS": f"the {name}",
        "HOSTADDRESS": "192.0.2.7",
        "HOSTSTATE": "DOWN",
        "HOSTOUTPUT": "CRITICAL - 192.0.2.7: rta nan, lost 100%",
        "HOSTCHECKCOMMAND": "check-mk-host-ping!-p secret",
        "CONTACTEMAIL": "ann@example.com",
        "PARAMETER_ILERT_API_KEY_2": "il1checkmk0123",
    }
    return {**context, **more}


def _service(name: str, service: str, **more: str) -> dict[str, str]:
    context = {
        "WHAT": "SERVICE",
        "HOSTSTATE": "UP",
        "SERVICEDESC": service,
        "SERVICESTATE": "WARNING",
        "SERVICEOUTPUT": "85% used",
        "LONGSERVICEOUTPUT": "Size: 10 GB\\nFree: 1.5 GB",
    }
    return _host(name, **{**context, **more})


def _post(h: House, context: dict[str, Any], path: str = PATH) -> Sent:
    return h.call("POST", path, context, key=None)


def _told(h: House, context: dict[str, str]) -> dict[str, Any]:
    """What arrives at ilert for a notification, which is answered with the alert's key."""
    mark = len(h.arrived("ilert"))
    sent = _post(h, context)
    event: dict[str, Any] = h.arrives("ilert", mark + 1)[mark].body
    assert (sent.status, sent.body) == (200, {"incidentKey": event["alertKey"]})
    return event


def test_a_problem_is_told_taken_on_and_over(h: House) -> None:
    name = fresh("web").replace(" ", "-")
    comment = {"NOTIFICATIONTYPE": "ACKNOWLEDGEMENT", "NOTIFICATIONCOMMENT": "looking"}
    recovery = {"NOTIFICATIONTYPE": "RECOVERY", "SERVICESTATE": "OK", "SERVICEOUTPUT": "20% used"}
    opened = _told(h, _service(name, "Filesystem /"))
    taken, over = (_told(h, _service(name, "Filesystem /", **more)) for more in (comment, recovery))
    assert [one["eventType"] for one in (opened, taken, over)] == ["ALERT", "ACCEPT", "RESOLVE"]
    assert len({one["alertKey"] for one in (opened, taken, over)}) == 1
    assert opened["summary"] == f"PROBLEM Service Alert: the {name}/Filesystem / is WARNING - 85% used"
    assert opened["details"].startswith("85% used\nSize: 10 GB\nFree: 1.5 GB")
    assert (opened["severity"], opened["labels"]) == (3, {"host": name, "service": "Filesystem /"})
    assert opened["customDetails"]["OMD_SITE"] == "prod"
    for private in ("secret", "ann@example.com", "il1checkmk0123"):
        assert private not in json.dumps(opened)


def test_what_its_settings_say_is_followed(h: House) -> None:
    parameters = {
        "PARAMETER_ILERT_PRIORITY": "LOW",
        "PARAMETER_ILERT_SUMMARY_HOST": "$HOSTNAME$ ($HOSTADDRESS$) $NOSUCH$is $HOSTSTATE$",
    }
    event = _told(h, _host("db-1", **parameters))
    assert (event["summary"], event["priority"], event["severity"]) == ("db-1 (192.0.2.7) is DOWN", "LOW", 1)


def test_a_summary_does_not_grow_without_end(h: House) -> None:
    """Its pattern and the texts put into it are both the caller's: a mebibyte of them made gigabytes."""
    pattern, output = "$HOSTOUTPUT$" * 500, "y" * 50_000
    told = _told(h, _host(fresh("long"), HOSTOUTPUT=output, PARAMETER_ILERT_SUMMARY_HOST=pattern))
    assert len(told["summary"]) <= 2000 * 2000 / len("$HOSTOUTPUT$") + 2000
    assert told["details"] == output + told["details"][len(output) :]
    assert told["customDetails"]["HOSTOUTPUT"] == output


def test_a_host_its_services_and_those_that_differ_in_case_have_each_an_alert(h: House) -> None:
    contexts = [_host("db-2"), _service("db-2", "Disk /data"), _service("db-2", "Disk /Data")]
    assert len({_told(h, context)["alertKey"] for context in contexts}) == 3


@pytest.mark.parametrize(
    ("context", "severity"),
    [
        (_host("db-2", HOSTSTATE="DOWN"), 1),
        (_host("db-2", HOSTSTATE="UNREACHABLE"), 2),
        (_host("db-2", HOSTSTATE="odd"), None),
        (_service("db-2", "Disk", SERVICESTATE="CRITICAL", HOSTSTATE="UP"), 1),
        (_service("db-2", "Disk", SERVICESTATE="UNKNOWN", HOSTSTATE="DOWN"), 2),
        (_service("db-2", "Disk", SERVICESTATE="WARNING", HOSTSTATE="DOWN"), 3),
    ],
)
def test_how_bad_a_problem_is(context: dict[str, str], severity: int | None) -> None:
    """A service's state counts, whatever that of its host is."""
    found = event({**context})
    assert found is not None and found.get("severity") == severity


def test_a_host_has_one_key_whatever_is_said_of_its_services() -> None:
    plain, more = event({**_host("db-2")}), event({**_host("db-2", SERVICEDESC="Disk")})
    assert plain is not None and more is not None and plain["alertKey"] == more["alertKey"]


@pytest.mark.parametrize("word", ["FLAPPINGSTART", "FLAPPINGSTOP", "DOWNTIMESTART", "DOWNTIMEEND", "CUSTOM"])
def test_of_anything_else_no_notice_is_taken(h: House, word: str) -> None:
    """A success, as Checkmk would else say that its notification failed."""
    mark = len(h.arrived("ilert"))
    sent = _post(h, _host("db-3", NOTIFICATIONTYPE=word))
    assert (sent.status, sent.body) == (200, {"incidentKey": ""})
    _told(h, _host(fresh("after it")))
    assert len(h.arrived("ilert")) == mark + 1


def test_what_is_refused(h: House) -> None:
    assert _post(h, _host("db-4"), "/api/v1/events/checkmk-ext/nobodys").status == 401
    for name in ("NOTIFICATIONTYPE", "WHAT", "HOSTNAME"):
        sent = _post(h, _host("db-4", **{name: ""}))
        assert (sent.status, sent.body["message"]) == (400, f"{name}: is required")
    assert _post(h, _host("db-4", WHAT="CLUSTER")).status == 400
