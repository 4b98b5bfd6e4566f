"""What a command says beside its operation: where a vendor's resolve has no room for it, the report says so."""

from pathlib import Path

import pytest

from tests.engine.vendors import outbox
from tests.harness import KEY, House, house


def test_what_a_resolve_says_besides_is_kept_where_the_vendor_is_told_the_end_alone(tmp_path: Path) -> None:
    """Nothing is lost in translation without being said: an ilert RESOLVE carries no new summary."""
    with house(tmp_path, {"oncall": "ilert"}) as h:
        made = h.call("POST", "/alerts", {"monitor_id": "mon_1", "type": "down", "message": "it is down"})
        path = f"/alerts/{made.body['data']['id']}"
        solved = h.call("PUT", path, {"status": "resolved", "message": "it is back up"})
        assert solved.report == ["oncall; kept=summary"]
        assert "summary" not in h.arrives("ilert", 2)[1].body


def test_what_a_resolve_says_besides_goes_along_where_there_is_room(tmp_path: Path) -> None:
    with house(tmp_path, {"metrics": "ibm_monitoring"}) as h:
        made = h.call("POST", "/alerts", {"monitor_id": "mon_1", "type": "down", "message": "it is down"})
        path = f"/alerts/{made.body['data']['id']}"
        solved = h.call("PUT", path, {"status": "resolved", "message": "it is back up"})
        assert not any("summary" in line for line in solved.report)
        assert h.arrives("ibm_monitoring", 2)[1].body["alert"]["name"] == "it is back up"


def test_the_words_of_an_ilert_end_are_kept_elsewhere(tmp_path: Path) -> None:
    with house(tmp_path, {"uptime": "uptinio"}) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        h.call("POST", "/api/events", event, key=None)
        end = {**event, "eventType": "RESOLVE", "summary": "Disk has room again"}
        assert h.call("POST", "/api/events", end, key=None).report == ["uptime; kept=comment"]


@pytest.mark.parametrize(
    ("vendor", "at", "over"),
    [
        ("opsgenie", "note", "note"),
        ("splunk_oncall", "ack_msg", "state_message"),
        ("alertmanager", "comment", None),
    ],
)
def test_a_comment_goes_along_where_the_vendor_has_a_field_for_it(
    tmp_path: Path, vendor: str, at: str, over: str | None
) -> None:
    """Whoever is paged sees who looks at it, and why it is over. Only Alertmanager has no words for an end."""
    with house(tmp_path, {"there": vendor}) as h:
        made = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        h.call("POST", "/api/events", made, key=None)
        taken = {**made, "eventType": "ACCEPT", "summary": "Ann looks at it"}
        report = h.call("POST", "/api/events", taken, key=None).report
        assert not any("comment" in line for line in report), report
        h.wait_for(lambda: "Ann looks at it" in _told(h, vendor, at))
        ended = {**made, "eventType": "RESOLVE", "summary": "Disk has room again"}
        report = h.call("POST", "/api/events", ended, key=None).report
        if over is None:
            assert any("kept=comment" in line for line in report), report
        else:
            assert not any("comment" in line for line in report), report
            h.wait_for(lambda: "Disk has room again" in _told(h, vendor, over))


@pytest.mark.parametrize(("vendor", "at", "most"), [("opsgenie", "note", 25_000), ("splunk_oncall", "ack_msg", 1024)])
def test_a_comment_is_cut_to_what_the_vendor_takes(tmp_path: Path, vendor: str, at: str, most: int) -> None:
    """Opsgenie refuses a note of more than 25,000 characters; an alert would stay unacknowledged for that."""
    with house(tmp_path, {"there": vendor}) as h:
        made = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        h.call("POST", "/api/events", made, key=None)
        for word in ("ACCEPT", "COMMENT"):
            said = {"comments": [{"creator": "Ann", "content": word[0] * 26_000}]}
            h.call("POST", "/api/events", {"apiKey": KEY, "eventType": word, "alertKey": "disk", **said}, key=None)
        h.wait_for(lambda: ("A", most) in _sizes(h, vendor, at))
        found = h.wait_for(lambda: [row for row in outbox(h) if row.operation == "acknowledge" and row.finished_at])
        assert [fate for fate in found[0].fates if fate["field"] == "comment"]
        if vendor == "opsgenie":
            h.wait_for(lambda: ("C", most) in _sizes(h, vendor, at))


def _sizes(h: House, vendor: str, at: str) -> list[tuple[str, int]]:
    """How each text begins and how long it is, of those that are marked where they were cut."""
    return [(text[0], len(text)) for text in _told(h, vendor, at) if isinstance(text, str) and text.endswith("…")]


def _told(h: House, vendor: str, at: str) -> list[object]:
    """What a field of the requests that arrived there says; Alertmanager's alerts come in lists."""
    return [one.body.get(at) for one in h.arrived(vendor) if isinstance(one.body, dict)]
