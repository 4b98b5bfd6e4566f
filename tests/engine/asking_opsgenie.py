"""Shared by the tests of Opsgenie's callers: requests as they send them."""

from __future__ import annotations

from typing import Any

from tests.clients.callers import fresh, opsgenie_alert
from tests.harness import KEY, House, Sent

ALERTS = "/opsgenie/v2/alerts"
PING = "/opsgenie/v2/heartbeats/nightly%20backup/ping"


def create(h: House, message: str = "Disk full", **fields: Any) -> str:
    alias = fields.pop("alias", None) or fresh("alias")
    sent = h.call("POST", ALERTS, opsgenie_alert(message, alias=alias, **fields))
    assert sent.status == 202, sent.body
    return str(alias)


def about(h: House, method: str, alias: str, rest: str = "", body: Any = None, **query: str) -> Sent:
    answer = h.client.request(
        method,
        f"{h.url}{ALERTS}/{alias}{rest}",
        params={"identifierType": "alias", **query},
        json=body,
        headers={"authorization": f"GenieKey {KEY}"},
    )
    return Sent(answer.status_code, answer.json(), answer.headers)


def read(h: House, alias: str) -> dict[str, Any]:
    found = about(h, "GET", alias)
    assert found.status == 200, found.body
    return dict(found.body["data"])
