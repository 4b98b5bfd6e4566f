"""Jira Service Management's answers: an alert or a request's state without an envelope, a list as `values` and `links`.

Source: https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/. Ids, receipts and
problems are worded as Opsgenie's are. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote, urlencode

from gateway.asked import Answer, Reply, Shown
from gateway.outcome import Json
from mappings.jsm_ops.alert import ALERT
from mappings.opsgenie.lists import Entry, logged, noted, page_at, page_of, reachable
from mappings.opsgenie.words import in_full, now_of, outcome, uuid_of

ORDER = (
    *("id", "tinyId", "createdAt", "updatedAt", "message", "entity", "source", "status", "alias", "tags"),
    *("extraProperties", "description", "acknowledged", "count", "owner", "snoozed", "snoozedUntil", "lastOccurredAt"),
    *("integrationType", "integrationName", "priority", "responders", "actions", "seen"),
)
"""An alert's fields in the order of the vendor's page."""


def as_shown(shown: Shown, now: datetime) -> dict[str, Json]:
    """Returns an alert as the vendor shows it, with all its fields even in a list."""
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
    """Answers with one alert."""
    assert answer.shown
    return _answered(answer, as_shown(answer.shown, now_of(answer)))


def answer_many(answer: Answer) -> Reply:
    """Answers with a page of alerts and the link to the next one."""
    assert answer.listing
    now, after = now_of(answer), answer.listing.offset + (answer.listing.limit or 20)
    links = {"next": page_at(answer.listing, "size", after)} if after < reachable(answer.total) else {}
    return _answered(answer, {"values": [as_shown(shown, now) for shown in answer.listed], "links": links})


def answer_notes(answer: Answer) -> Reply:
    """Answers with a page of an alert's notes."""
    return _part(answer, noted(answer.history), "notes")


def answer_logs(answer: Answer) -> Reply:
    """Answers with a page of an alert's log."""
    return _part(answer, logged(answer.history), "logs")


def _part(answer: Answer, found: list[Entry], word: str) -> Reply:
    values, last = page_of(answer.page, found)
    address = f"/v1/alerts/{quote(str(answer.page.get('id', '')), safe='')}/{word}"
    links = {"next": f"{address}?{urlencode({'after': last, 'size': answer.page.get('limit', 20)})}"} if last else {}
    return _answered(answer, {"values": values, "links": links})


def answer_status(answer: Answer) -> Reply:
    """Answers with the state of a request."""
    return _answered(answer, outcome(answer))
