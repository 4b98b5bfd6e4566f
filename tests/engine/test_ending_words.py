"""What a command says beside its operation: where a vendor's resolve has no room for it, the report says so."""

from pathlib import Path

from tests.harness import KEY, house


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
