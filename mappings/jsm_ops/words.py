"""Jira Service Management's words: alerts and what became of a request stand bare, a list among values and links.

Source: https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/. Ids, receipts and
problems are worded as Opsgenie does. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote, urlencode

from gateway.asked import Answer, Reply, Shown
from gateway.outcome import Json
from mappings.jsm_ops.alert import ALERT
from mappings.opsgenie.lists import Entry, logged, noted, page_at, page_of
from mappings.opsgenie.words import in_full, now_of, outcome, uuid_of

ORDER = (
    *("id", "tinyId", "createdAt", "updatedAt", "message", "entity", "source", "status", "alias", "tags"),
    *("extraProperties", "description", "acknowledged", "count", "owner", "snoozed", "snoozedUntil", "lastOccurredAt"),
    *("integrationType", "integrationName", "priority", "responders", "actions", "seen"),
)
"""The order in which the vendor's page has an alert's fields."""


def as_shown(shown: Shown, now: datetime) -> dict[str, Json]:
    """An alert as the vendor shows it, whole in a list as well."""
    own: dict[str, Json] = {
        "entity": "",
        "extraProperties": {},
        "description": "",
        "integrationType": "API",
        "integrationName": "alert-gateway",
        "actions": [],
        "seen": shown.flat.get("acknowledged_at") is not None,
    }
    return in_full(ALERT, shown, now, own, ORDER)


def _answered(answer: Answer, body: dict[str, Json]) -> Reply:
    return Reply(200, body, {"X-Request-Id": uuid_of(answer.request)})


def answer_one(answer: Answer) -> Reply:
    """An alert."""
    assert answer.shown
    return _answered(answer, as_shown(answer.shown, now_of(answer)))


def answer_many(answer: Answer) -> Reply:
    """A page of alerts, and where the next one is."""
    assert answer.listing
    now, after = now_of(answer), answer.listing.offset + (answer.listing.limit or 20)
    links = {"next": page_at(answer.listing, "size", after)} if after < answer.total else {}
    return _answered(answer, {"values": [as_shown(shown, now) for shown in answer.listed], "links": links})


def answer_notes(answer: Answer) -> Reply:
    """What people said about an alert."""
    return _part(answer, noted(answer.history), "notes")


def answer_logs(answer: Answer) -> Reply:
    """All that an alert came through."""
    return _part(answer, logged(answer.history), "logs")


def _part(answer: Answer, found: list[Entry], word: str) -> Reply:
    values, last = page_of(answer.page, found)
    address = f"/v1/alerts/{quote(str(answer.page.get('id', '')), safe='')}/{word}"
    links = {"next": f"{address}?{urlencode({'after': last, 'size': answer.page.get('limit', 20)})}"} if last else {}
    return _answered(answer, {"values": values, "links": links})


def answer_status(answer: Answer) -> Reply:
    """What became of a request."""
    return _answered(answer, outcome(answer))
