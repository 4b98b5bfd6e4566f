"""Shared by the tests of ilert's callers: requests as they send them, and what arrives at ilert."""

from __future__ import annotations

import re
from typing import Any

from tests.clients.callers import fresh, ilert_event
from tests.harness import House, Sent

ILERT = "ilert"


def post(h: House, event: Any, path: str = "/api/events") -> Sent:
    return h.call("POST", path, event, key=None)


def is_taken(sent: Sent) -> None:
    assert (sent.status, sent.body) == (202, {}), sent.body
    assert sent.headers["content-type"] == "application/json"


def tell(h: House, word: str, key: str | None, **fields: Any) -> Sent:
    sent = post(h, ilert_event(word, key, **fields))
    is_taken(sent)
    return sent


def raise_alert(h: House, key: str, **fields: Any) -> dict[str, Any]:
    """Raises an alert and reads it over the synchronous API, by the gateway's own id."""
    sent = tell(h, "ALERT", key, **{"summary": fresh("summary"), **fields})
    return read(h, sent.headers["alert-gateway-id"])


def read(h: House, name: Any) -> dict[str, Any]:
    sent = h.call("GET", f"/ilert/api/alerts/{name}")
    assert sent.status == 200, sent.body
    found: dict[str, Any] = sent.body
    return found


def listed(h: House, query: str = "?max-results=100", **how: Any) -> list[dict[str, Any]]:
    sent = h.call("GET", f"/ilert/api/alerts{query}", **how)
    assert sent.status == 200, sent.body
    assert isinstance(sent.body, list), "a bare array"
    return sent.body


def at_ilert(h: House, key: str, count: int) -> list[dict[str, Any]]:
    """Waits for this many events at ilert for a key, or for that key with a suffix, and returns them."""
    form = re.compile(rf"{re.escape(key)}(?!\d)", re.IGNORECASE)

    def found() -> list[dict[str, Any]]:
        return [one.body for one in h.arrived(ILERT) if form.match(one.body.get("alertKey", ""))]

    h.wait_for(lambda: len(found()) >= count)
    return found()


def is_refused(sent: Sent, status: int, says: str = "") -> None:
    """Asserts a refusal in the vendor's error object, whose `status` equals the answer's."""
    assert sent.status == status, sent.body
    assert {"status", "message", "code"} <= set(sent.body)
    assert sent.body["status"] == status
    assert isinstance(sent.body["code"], str)
    assert says in sent.body["message"], sent.body
