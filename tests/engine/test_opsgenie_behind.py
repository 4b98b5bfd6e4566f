"""Opsgenie as the upstream of its own callers: what people do there, and calls that an address lacks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from gateway.outcome import Found, Missing, Response, Sending
from gateway.registry import dialects
from tests.chaos_upstream import Behaviour, Got, chaos, say
from tests.clients.callers import called
from tests.engine.asking_opsgenie import about, create, read
from tests.engine.vendors import before, outbox, settled, table
from tests.harness import KEY


class Vendor:
    """Opsgenie with one alert: every write is done at once, and the alert is shown."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] | None = None
        self.refuses = 0

    def __call__(self, got: Got) -> Behaviour:
        """Answers a request."""
        path = got.path.partition("?")[0]
        if got.method == "GET" and "/requests/" in path:
            return say(200, {"data": {"isSuccess": True, "status": "done", "alertId": "there-1"}, "requestId": "x"})
        if got.method == "GET" and self.refuses:
            return say(self.refuses, {"code": self.refuses, "message": "no"})
        if got.method == "GET":
            found = {"data": self.shown} if self.shown else {"message": "Alert does not exist"}
            return say(200 if self.shown else 404, {**found, "took": 0.1, "requestId": "x"})
        if got.method == "POST" and path.endswith("/alerts"):
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self.shown = {**got.body, "id": "there-1", "tinyId": "7", "status": "open", "createdAt": now}
        return say(202, {"result": "Request will be processed", "took": 0.1, "requestId": "r1"})


def test_a_read_shows_what_people_did_there(tmp_path: Path) -> None:
    """A primary that speaks the caller's dialect is asked first, and what it shows becomes the record."""
    vendor = Vendor()
    with chaos(vendor) as upstream, _genie(tmp_path, upstream.url) as h:
        alias = create(h)
        settled(h)
        assert vendor.shown
        vendor.shown |= {"acknowledged": True, "owner": "jane@example.com", "count": 4, "priority": "P2"}
        shown = read(h, alias)
        assert (shown["acknowledged"], shown["owner"], shown["count"], shown["priority"]) == (
            True,
            "jane@example.com",
            4,
            "P2",
        )


@pytest.mark.parametrize("status", [403, 404, 405])
def test_an_address_without_such_a_call_is_no_reason_to_forget(tmp_path: Path, status: int) -> None:
    """The successor's integration events API has no read: the answer comes from the record, and is marked as stale."""
    vendor = Vendor()
    with chaos(vendor) as upstream, _genie(tmp_path, upstream.url) as h:
        alias = create(h)
        settled(h)
        vendor.refuses = status
        found = about(h, "GET", alias)
        assert (found.status, found.headers.get("alert-gateway-stale")) == (200, "true")
        assert outbox(h)[0].state == "delivered"


def _genie(directory: Path, url: str) -> Any:
    routes = f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}'
    return before(directory, table("there", url, "opsgenie"), routes=routes)


def _read(status: int, body: Any) -> Any:
    outbound = dialects()["opsgenie"].outbound
    assert outbound.read
    sending = Sending(operation="read", at=datetime.now(UTC), body={}, patch={}, key="k", ids={"id": "1"}, seen={})  # type: ignore[arg-type]
    call = outbound.read(sending)
    request = next(call)
    assert request.body is UNSET
    with pytest.raises(StopIteration) as ended:
        call.send(Response(status, {}, json.dumps(body).encode()))
    return ended.value.value


def test_deleted_there_is_told_from_no_such_call() -> None:
    assert isinstance(_read(404, {"message": "Alert does not exist", "took": 0.1, "requestId": "x"}), Missing)
    assert _read(404, {"code": 404, "message": "HTTP 404 Not Found"}) == Found(())


def test_what_no_call_changes_is_compared_with_what_it_was_created_with(tmp_path: Path) -> None:
    """The source that the vendor has is the first: the report says so of another one, and not of the first again."""
    with called(tmp_path, {"genie": "opsgenie"}) as h:
        said = []
        for number, source in enumerate(("a", "b", "a")):
            payload = {"summary": f"It is down, {number}", "source": source, "severity": "error"}
            event = {"routing_key": KEY, "event_action": "trigger", "dedup_key": "srv", "payload": payload}
            assert h.call("POST", "/pagerduty/v2/enqueue", event, key=None).status == 202
            settled(h, count=number + 1)
            newest = max(outbox(h), key=lambda row: row.id)
            said.append([fate["fate"] for fate in newest.fates if fate["field"] == "source"])
    assert said == [["mapped"], ["mapped", "approximated"], ["mapped"]]
