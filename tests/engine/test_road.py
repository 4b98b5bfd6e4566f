"""The basic road over real HTTP and a real store: one vendor in, another out."""

from pathlib import Path

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.desk.desk import _rounds
from tests.harness import KEY, house


def test_an_alert_travels_from_one_vendor_to_another(tmp_path: Path) -> None:
    with house(tmp_path, {"oncall": "ilert"}) as h:
        made = h.call("POST", "/alerts", {"monitor_id": "mon_123", "type": "down", "message": "Website is down"})
        assert made.status == 201
        assert made.body["data"]["id"].startswith("alt_")
        [event] = h.arrives("ilert", 1)
        assert event.body["summary"] == "Website is down"
        assert event.body["eventType"] == "ALERT"
        solved = h.call("PUT", f"/alerts/{made.body['data']['id']}", {"status": "resolved"})
        assert solved.status == 200
        assert solved.body["data"]["status"] == "resolved"
        resolve = h.arrives("ilert", 2)[1]
        assert resolve.body["eventType"] == "RESOLVE"
        assert resolve.body["alertKey"] == event.body["alertKey"]


def test_the_other_way_round(tmp_path: Path) -> None:
    with house(tmp_path, {"uptime": "uptinio"}) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        assert h.call("POST", "/api/events", event, key=None).status == 202
        [made] = h.arrives("uptinio", 1)
        assert made.body == {"monitor_id": "mon_9", "type": "custom", "message": "Disk full"}
        h.call("POST", "/api/events", {"apiKey": KEY, "eventType": "RESOLVE", "alertKey": "DISK "}, key=None)
        resolved = h.arrives("uptinio", 2)[1]
        assert (resolved.method, resolved.body) == ("PUT", {"status": "resolved"})


def test_what_was_lost_on_the_way_is_counted_by_pair(tmp_path: Path) -> None:
    with house(tmp_path, {"oncall": "ilert"}) as h:
        h.call("POST", "/alerts", {"monitor_id": "mon_123", "type": "down", "message": "Website is down"})
        text = h.client.get(h.url + "/metrics").text
        assert 'alert_gateway_fields_total{dialect="uptinio",fate="carried",upstream="oncall"} 2.0' in text
        assert 'alert_gateway_fields_total{dialect="uptinio",fate="approximated",upstream="oncall"} 1.0' in text


def test_what_a_batch_says_of_one_alert_is_written_in_its_order_however_its_key_is_spelled() -> None:
    """The commands of one round may be written in any order."""
    opened = Command(operation=Operation.CREATE, patch={"dedup_key": "Disk"})
    others = Command(operation=Operation.CREATE, patch={"dedup_key": "other"})
    ended = Command(operation=Operation.RESOLVE, ref=Ref(key="disk"))
    rounds = _rounds([opened, others, ended], str.lower)
    assert [[place for place, _ in one] for one in rounds] == [[0, 1], [2]]
