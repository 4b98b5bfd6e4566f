"""What a caller with a valid key writes in its alert affects that alert only: it chooses no path at an upstream, and no
header that could not be sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loading import parse
from gateway.delivery.attempt import Client, Ended
from gateway.outcome import Call, Delivered, Rejected, Request
from tests.chaos_upstream import chaos, say
from tests.engine.descriptions import DEEP
from tests.engine.lasting import select
from tests.harness import KEY, UPSTREAM_KEY, House, house, inbound_tables

UP = [".", ".."]
PLACES = {
    "alertmanager": "/api/v2/alerts",
    "alertmanager_webhook": "/webhook",
    "grafana": "/webhook",
    "jsm_ops": "/alerts",
    "opsgenie": "/v2/alerts",
}
"""Where dialects that take Basic authentication are posted to."""


def _told(h: House, word: str, key: str) -> None:
    event = {"apiKey": KEY, "eventType": word, "alertKey": key, "summary": "Disk full"}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


def _ended(h: House) -> list[Any]:
    """The states of all deliveries, once none waits."""
    states = "SELECT state FROM deliveries ORDER BY id"
    return list(h.wait_for(lambda: (found := select(h, states)) and "waiting" not in found and found))


@pytest.mark.parametrize("key", UP)
def test_a_key_that_would_be_a_step_up_is_another_alias(tmp_path: Path, key: str) -> None:
    """A key such as `..` is sent as another alias; in a path, its close would go to `/v2/close`, and the page would
    stay open."""
    with house(tmp_path, {"there": "opsgenie"}) as h:
        _told(h, "ALERT", key)
        _told(h, "RESOLVE", key)
        assert _ended(h) == ["delivered", "delivered"]
        made, closed = h.arrived("opsgenie")
        assert made.body["alias"].startswith(f"{key}-") and len(made.body["alias"]) > 60
        assert closed.path.startswith(f"/v2/alerts/{made.body['alias']}/close")


@pytest.mark.parametrize("key", UP)
def test_a_key_that_would_be_a_step_up_is_never_in_a_path(tmp_path: Path, key: str) -> None:
    """For a described vendor that addresses alerts by their key in the path, the delivery is a dead letter, and nothing
    is sent."""

    def text(url: str) -> str:
        there = f'[upstreams.there]\ndialect = "deep"\nurl = "{url}/hook"\nkey = "{UPSTREAM_KEY}"\n'
        return f"{inbound_tables(['ilert'])}\n{there}{DEEP}"

    with chaos(say(200, {})) as upstream, house(tmp_path, config=lambda _: text(upstream.url)) as h:
        _told(h, "ALERT", key)
        assert _ended(h) == ["dead"]
        [why] = select(h, "SELECT reason FROM deliveries")
        assert "cannot be part of a path" in why and upstream.got == []


@pytest.mark.parametrize("path", ["/a/../b", "/a/.", "/a/%2e%2e/b", "/a/%2E./b", "/a/..?x=1"])
def test_whoever_made_a_path_it_leads_nowhere_else(path: str) -> None:
    """The client sends no request whose path has a dot segment, which may also come from an id that the upstream
    gave."""

    def call() -> Call:
        yield Request(method="DELETE", path=path)
        return Delivered()

    async def run(url: str) -> Ended:
        there = f'[upstreams.there]\ndialect = "ilert"\nurl = "{url}"\nkey = "k"\n'
        client = Client(parse(f"{inbound_tables(['ilert'])}\n{there}").upstreams["there"])
        try:
            return await client.run(call())
        finally:
            await client.aclose()

    with chaos(say(200, {})) as upstream:
        ended = asyncio.run(run(upstream.url))
        assert isinstance(ended.outcome, Rejected) and upstream.got == []


@pytest.mark.parametrize("form", ["application/json\r\nx-more: 1", "a\x01b", "é", "j" * 9000])
def test_a_type_of_data_that_fits_into_no_header(tmp_path: Path, form: str) -> None:
    """In binary mode the data's content type is a header; where it cannot be one, the event is sent in structured
    mode."""
    there = '[upstreams.there]\ndialect = "cloudevents"\nurl = "URL/hook"\nkey = "k"\nmode = "binary"\n'
    event = {"specversion": "1.0", "id": "1", "source": "/db", "type": "alert", "subject": "s", "datacontenttype": form}
    with chaos(say(200, {})) as upstream:

        def text(_: str) -> str:
            return f"{inbound_tables(['cloudevents'])}\n{there.replace('URL', upstream.url)}"

        with house(tmp_path, config=text) as h:
            sent = h.call(
                "POST",
                "/cloudevents",
                {**event, "data": {"summary": "s", "title": "s"}},
                headers={"content-type": "application/cloudevents+json"},
            )
            assert sent.status < 300, sent.body
            h.wait_for(lambda: upstream.got)
            assert _ended(h) == ["delivered"]
            [got] = upstream.got
            assert got.headers["content-type"].startswith("application/cloudevents+json")
            assert "x-more" not in got.headers


@pytest.mark.parametrize("blank", ["  ", "\u00a0\u2028", "\t"])
@pytest.mark.parametrize("there", ["opsgenie", "pagerduty", "jsm_ops"])
def test_a_summary_of_blanks_alone_is_told_as_none(tmp_path: Path, there: str, blank: str) -> None:
    """A template whose labels are missing yields a blank summary; it counts as absent, as a vendor that requires a
    summary would refuse it after the caller was told success."""
    with house(tmp_path, {"there": there}) as h:
        labels = {"alertname": blank, "job": "db"}
        for summary in ("Disk full", blank):
            posted = [{"labels": labels, "annotations": {"summary": summary, "description": "db-1 is at 99 %"}}]
            assert h.call("POST", "/alertmanager/api/v2/alerts", posted).status == 200
        event = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "k", "summary": blank, "details": "db-1 is down"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        assert set(_ended(h)) == {"delivered"}, select(h, "SELECT reason FROM deliveries")
        if there == "pagerduty":
            assert "db-1 is down" in [one.body["payload"]["summary"] for one in h.arrived(there)]
        else:
            assert "db-1 is down" in [(one.body or {}).get("message") for one in h.arrived(there)]


@pytest.mark.parametrize("said", [b"Basic caf\xe9", b"Basic", b"Basic /w==", b"Basic :"])
def test_what_is_no_basic_authentication_is_an_unknown_credential(tmp_path: Path, said: bytes) -> None:
    """A letter that base64 cannot have is no error of the gateway's, at whatever dialect."""
    with house(tmp_path, {"there": "ilert"}) as h:
        for dialect, path in PLACES.items():
            sent = h.client.post(f"{h.url}/{dialect}{path}", json={}, headers={b"Authorization": said})
            assert sent.status_code == 401, (dialect, sent.text)


def test_fields_that_no_vendor_documents_are_not_without_number(tmp_path: Path) -> None:
    """Each is told of in the report of each upstream, so 60,000 of them would hold up everybody for seconds. What a
    vendor lets be free is no such field."""
    many = {f"field{number}": "x" for number in range(1200)}
    event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
    with house(tmp_path, {"there": "uptinio"}) as h:
        h.call("POST", "/ilert/api/events", {**event, "alertKey": "many", **many}, key=None)
        h.call("POST", "/alertmanager/api/v2/alerts", [{"labels": {"alertname": "many"}, **many}])
        h.call("POST", "/ilert/api/events", {**event, "alertKey": "free", "customDetails": many}, key=None)
        h.wait_for(lambda: len(h.arrived("uptinio")) == 3)
        for kept, is_free in zip(select(h, "SELECT body FROM alerts ORDER BY id"), (False, False, True), strict=True):
            assert str(kept).count('":"x"') == (1200 if is_free else 1000)
        reports = [str(report) for report in select(h, "SELECT report FROM deliveries ORDER BY id")]
        assert [("200 further fields" in report, "more than 1000 fields" in report) for report in reports] == [
            (True, True),
            (True, True),
            (False, False),
        ]


def test_what_updates_add_up_to_is_read_all_the_same(tmp_path: Path) -> None:
    """The limit is one of requests: an alert with more fields than one request may have was refused to whoever read it,
    and so was every list with it."""
    page = {"type": "down", "monitor_id": "mon_1", "message": "Disk full"}
    with house(tmp_path, {"there": "uptinio"}) as h:
        made = h.call("POST", "/uptinio/alerts", {**page, **{f"one{number}": "x" for number in range(600)}})
        path = f"/uptinio/alerts/{made.body['data']['id']}"
        assert h.call("PUT", path, {f"other{number}": "x" for number in range(600)}).status == 200
        for asked in (path, "/uptinio/alerts"):
            found = h.call("GET", asked)
            assert found.status == 200 and "Disk full" in str(found.body), found.body
