"""What Zabbix's media type for ilert posts of problems, at the address that it posts to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mappings.ilert.zabbix import PRIVATE, event
from tests.clients.callers import called
from tests.engine.asking_ilert import ILERT, at_ilert, post
from tests.harness import KEY, House


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with ilert behind it."""
    with called(tmp_path_factory.mktemp("zabbix"), {"there": ILERT}) as standing:
        yield standing


def _macros(**more: str) -> dict[str, str]:
    """A problem as Zabbix's media type posts it; a macro without a value stays unexpanded."""
    macros = {
        ".ILERT.INCIDENT.SUMMARY": "",
        "ALERT.MESSAGE": "Problem started at 10:00",
        "EVENT.ID": "4711",
        "EVENT.NAME": "Disk full",
        "EVENT.NSEVERITY": "4",
        "EVENT.UPDATE.ACTION": "{EVENT.UPDATE.ACTION}",
        "EVENT.UPDATE.STATUS": "0",
        "EVENT.VALUE": "1",
        "HOST.NAME": "db-1",
        "ITEM.NAME2": "*UNKNOWN*",
        "TRIGGER.URL": "https://wiki/disk",
        "ZABBIX.URL": "{$ZABBIX.URL}",
    }
    return {**macros, **{name.replace("_", "."): value for name, value in more.items()}}


def test_what_zabbix_says_of_a_problem(h: House) -> None:
    """A problem's begin, update and end are read; the media type takes only 200 with JSON as success."""

    def said(**more: str) -> None:
        sent = post(h, _macros(**more), f"/api/v1/events/zabbix-mt/{KEY}")
        assert (sent.status, sent.body) == (200, {}), sent.body

    update = {"EVENT_UPDATE_STATUS": "1", "EVENT_UPDATE_ACTION": "commented", "ALERT_MESSAGE": "Ann: looking"}
    said()
    said(**update)
    said(**{**update, "EVENT_UPDATE_ACTION": "acknowledged, commented"})
    said(**{**update, "EVENT_UPDATE_ACTION": "unacknowledged"})
    said(EVENT_VALUE="0")
    opened, noted, taken, back, over = at_ilert(h, "zabbix-4711", 5)
    assert (opened["eventType"], opened["summary"], opened["severity"]) == ("ALERT", "Disk full on db-1", 2)
    assert opened["details"].startswith("Problem started at 10:00")
    assert opened["links"] == [{"href": "https://wiki/disk", "text": "Trigger"}]
    kept = {name for name in opened["customDetails"] if name != "alert_gateway"}
    assert {"EVENT.ID", "HOST.NAME"} <= kept and not kept & {"ITEM.NAME2", "ZABBIX.URL", "EVENT.UPDATE.ACTION"}
    assert [one["eventType"] for one in (noted, taken, back, over)] == ["COMMENT", "ACCEPT", "COMMENT", "RESOLVE"]
    assert "Ann: looking" in json.dumps(noted)


@pytest.mark.parametrize(
    ("level", "severity"), [("5", 1), ("4", 2), ("3", 3), ("2", 4), ("1", 5), ("0", 5), ("", None), ("9", None)]
)
def test_how_bad_a_problem_is(level: str, severity: int | None) -> None:
    """Zabbix counts upwards, from not classified (0) to disaster (5); ilert downwards from the worst, 1."""
    assert event({**_macros(EVENT_NSEVERITY=level)}).get("severity") == severity


def test_what_a_problem_is_called() -> None:
    """What somebody configured, else the problem's name and host, else the subject. An update whose macro older
    releases do not know is a problem's begin; and the key of the sender is nobody's detail."""
    own = {**dict.fromkeys(PRIVATE, "il1zabbix0123"), "ALERT.SUBJECT": "Problem: disk"}
    named = event({**_macros(EVENT_UPDATE_STATUS="{EVENT.UPDATE.STATUS}"), **own})
    assert (named["eventType"], named["summary"]) == ("ALERT", "Disk full on db-1")
    assert "il1zabbix0123" not in json.dumps(named)
    assert event({**_macros(), **own, ".ILERT.INCIDENT.SUMMARY": "Call Ann"})["summary"] == "Call Ann"
    assert event({**_macros(EVENT_NAME="", HOST_NAME="{HOST.NAME}"), **own})["summary"] == "Problem: disk"


def test_a_key_that_is_said_as_well_is_told_to_nobody(h: House) -> None:
    macros = {**_macros(EVENT_ID="4712"), "apiKey": KEY, ".ILERT.ALERT.SOURCE.KEY": KEY}
    assert post(h, macros, f"/api/v1/events/zabbix-mt/{KEY}").status == 200
    assert KEY not in json.dumps(at_ilert(h, "zabbix-4712", 1))


@pytest.mark.parametrize(("field", "value"), [("EVENT_ID", "{EVENT.ID}"), ("EVENT_VALUE", "2"), ("EVENT_VALUE", "")])
def test_what_zabbix_cannot_have_meant(h: House, field: str, value: str) -> None:
    sent = post(h, _macros(**{field: value}), f"/api/v1/events/zabbix-mt/{KEY}")
    assert sent.status == 400 and sent.body["message"].startswith(field.replace("_", "."))
