"""Retention: ended deliveries and alerts are purged in small batches, waiting ones never, and metrics show how far it
is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.process import housekeeping, service
from tests.chaos_upstream import chaos
from tests.clients.callers import OTHER, ilert_event, settings
from tests.engine.lasting import SILENCES, STORES, address, alert, posted, seconds
from tests.engine.vendors import OK, Ibm, Uptinio, before, count, down, messages, page, settled, table
from tests.harness import House, house

PAGES = 5


def _metric(h: House, sample: str) -> float:
    text = h.client.get(h.url + "/metrics").text
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " "))


def _purged(h: House) -> float:
    return _metric(h, 'alert_gateway_purged_total{what="ended"}')


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PURGE_EVERY", 0.0)
    monkeypatch.setattr(housekeeping, "PURGED_AT_ONCE", 2)
    monkeypatch.setattr(housekeeping, "PURGING", 0.0)
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.2)


@pytest.mark.usefixtures("_small_batches")
def test_what_has_ended_is_removed_batch_by_batch_and_counted(tmp_path: Path) -> None:
    """Per page two deliveries and one alert are purged, in batches of two each; after the last batch nothing is
    overdue."""
    with chaos(OK) as upstream:
        with before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
            for number in range(PAGES):
                page(h, f"key-{number}")
                over = ilert_event("RESOLVE", f"key-{number}")
                h.call("POST", "/ilert/api/events", over, key=None)
            settled(h, count=2 * PAGES)
            assert _purged(h) == 0
        began = time.time()
        with before(tmp_path, table("oncall", upstream.url, "ilert"), top='retention = "1ms"') as h:
            seen = [h.wait_for(lambda: _metric(h, "alert_gateway_last_purge_timestamp_seconds"))]
            behind = [_metric(h, "alert_gateway_purge_behind")]
            h.wait_for(lambda: _purged(h) == 3 * PAGES)
            h.wait_for(lambda: _metric(h, "alert_gateway_purge_behind") == 0)
            assert seen[0] >= began - 1 and behind == [1]
            assert (count(h, "deliveries"), count(h, "alerts"), count(h, "commands")) == (0, 0, 0)


@pytest.mark.usefixtures("_small_batches")
def test_more_than_a_batch_is_removed_in_one_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches follow one another without a pause: one a second would fall behind a busy gateway for good."""
    with chaos(OK) as upstream:
        with before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
            for number in range(PAGES):
                page(h, f"key-{number}")
            settled(h, count=PAGES)
        monkeypatch.setattr(housekeeping, "PURGING", 60.0)
        monkeypatch.setattr(service, "HOUSEKEEPING", 60.0)
        with before(tmp_path, table("oncall", upstream.url, "ilert"), top='retention = "1ms"') as h:
            h.wait_for(lambda: _purged(h) == PAGES)
            assert _metric(h, "alert_gateway_purge_behind") == 0


@pytest.mark.usefixtures("_small_batches")
def test_what_waits_is_never_too_old(tmp_path: Path) -> None:
    there = table("oncall", "http://127.0.0.1:9", "ilert")
    with before(tmp_path, there, top='retention = "1ms"') as h:
        page(h)
        first = h.wait_for(lambda: _metric(h, "alert_gateway_last_purge_timestamp_seconds"))
        h.wait_for(lambda: _metric(h, "alert_gateway_last_purge_timestamp_seconds") > first + 0.3)
        assert (count(h, "deliveries"), count(h, "alerts"), _purged(h)) == (1, 1, 0)


@pytest.mark.usefixtures("_small_batches")
def test_what_was_forgotten_does_not_become_anothers(tmp_path: Path) -> None:
    """The vendor still lists an alert that was resolved and purged here, but its owner is no longer known: it is not
    adopted. An open alert that was not created through the gateway is."""
    vendor = Uptinio()
    with chaos(vendor) as there:
        upstream = table("there", there.url, "uptinio")
        with before(tmp_path, upstream) as h:
            number = down(h, "Ours").body["data"]["id"]
            assert h.call("PUT", f"/uptinio/alerts/{number}", {"status": "resolved"}).status == 200
            settled(h, count=2)
        vendor.held["alt_9"] = {**vendor.held[number], "id": "alt_9", "status": "active", "message": "Made there"}
        time.sleep(1.1)  # the vendor's times are whole seconds
        with before(tmp_path, upstream, top='retention = "1ms"') as h:
            h.wait_for(lambda: count(h, "alerts") == 0)
            assert messages(h, key=OTHER) == ["Made there"]
            assert vendor.held[number]["message"] == "Ours"


@pytest.mark.usefixtures("_small_batches")
def test_a_rule_that_is_left_of_what_was_forgotten_does_not_become_anothers(tmp_path: Path) -> None:
    """A rule created for another dialect's caller is switched off with its alert and stays at IBM: after the purge it
    is not adopted. A switched-off rule that was created at IBM is."""
    vendor = Ibm()
    with chaos(vendor) as there:
        upstream = table("there", there.url, "ibm_monitoring")
        with before(tmp_path, upstream) as h:
            number = down(h, "Ours").body["data"]["id"]
            assert h.call("PUT", f"/uptinio/alerts/{number}", {"status": "resolved"}).status == 200
            settled(h, count=2)
        [ours] = list(vendor.held.values())
        assert ours["enabled"] is False
        plain = {name: value for name, value in ours.items() if name != "annotations"}
        vendor.held["900"] = {**plain, "id": 900, "name": "Made there"}
        with before(tmp_path, upstream, top='retention = "1ms"') as h:
            h.wait_for(lambda: count(h, "alerts") == 0)
            listed = h.call("GET", "/ibm_monitoring/api/alerts", key=OTHER).body["alerts"]
            assert [one["name"] for one in listed] == ["Made there"]


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("kind", STORES)
def test_silences_that_ended_are_forgotten_too(tmp_path: Path, kind: str) -> None:
    """Ended silences are purged, active ones are not, whenever they began: each alert is compared with all that are
    kept."""
    body = {"startsAt": seconds(-9), "createdBy": "jane", "comment": "a deployment"}
    matchers = [{"name": "alertname", "value": "Disk", "isRegex": False}]
    with house(
        tmp_path,
        config=lambda url: settings(url, {"page": "ilert"}),
        top='retention = "1s"',
        store=address(kind, tmp_path),
    ) as h:
        for ends in (0.5, 0.5, 0.5, 60):
            made = h.call("POST", SILENCES, {**body, "matchers": matchers, "endsAt": seconds(ends)})
            assert made.status == 200, made.body
        h.wait_for(lambda: len(h.call("GET", SILENCES).body) == 1)
        assert posted(h, alert("Disk")).report[0].endswith("kept=status")


@pytest.mark.usefixtures("_small_batches")
def test_what_fails_beside_it_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*given: object) -> set[str]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(housekeeping, "pass_time", fails)
    with before(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert")) as h:
        first = h.wait_for(lambda: _metric(h, "alert_gateway_last_purge_timestamp_seconds"))
        h.wait_for(lambda: _metric(h, "alert_gateway_last_purge_timestamp_seconds") > first)
