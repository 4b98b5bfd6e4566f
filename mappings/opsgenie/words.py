"""Opsgenie's words: ids, receipts, alerts as they are shown, and every kind of problem in its envelope.

Sources: https://docs.opsgenie.com/docs/response for the envelope and the statuses, and the answers that its users
report: prometheus/alertmanager#1965 and #1223, falcosidekick#719, streaak/keyhacks#124, uptime-kuma#3613. The state of
a request is worded as in real answers, where the documents of Cortex XSOAR's OpsGenieV2 show one. It must not know what
stands behind the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.asked import Answer, Reply, Shown
from gateway.canonical import Operation
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.ids import made_at
from gateway.mapping.rows import Writing
from gateway.mapping.table import Mapping
from gateway.mapping.values import from_millis, iso, millis
from gateway.outcome import Json, Response
from mappings.opsgenie.alert import ALERT, USUAL_PRIORITY

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
UUID_LENGTH = 36
NO_ALERT = "Alert does not exist"
INTEGRATION = {"id": "00000000-0000-0000-0000-000000000000", "name": "alert-gateway", "type": "API"}
"""The integration that every alert is shown to have come through."""

# --- ids ---------------------------------------------------------------------------------------------------


def uuid_of(number: int) -> str:
    """Returns a number in the form of the vendor's request ids, a UUID."""
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def number_of(text: str) -> int | None:
    """Returns the number that such an id was made of; `None` if the gateway did not make it."""
    if not _UUID.fullmatch(text[:UUID_LENGTH]):
        return None
    number = int(text[:UUID_LENGTH].replace("-", ""), 16)
    return number if number < 1 << 53 else None


def shown_id(number: int) -> str:
    """Returns an alert's id. Like the vendor's, it ends in the time of the alert's creation, in milliseconds."""
    return f"{uuid_of(number)}-{made_at(number)}"


# --- answers -----------------------------------------------------------------------------------------------


def answered(answer: Answer, body: dict[str, Json], status: int = 200) -> Reply:
    """Returns an answer in the envelope that clients require. The addresses of further pages are in headers too:
    https://docs.opsgenie.com/docs/pagination"""
    request, paging = uuid_of(answer.request), body.get("paging")
    pages = paging if isinstance(paging, dict) else {}
    headers = {f"X-Paging-{name.title()}": str(pages[name]) for name in ("next", "first", "last") if name in pages}
    return Reply(status, {**body, "took": 0.001, "requestId": request}, {"X-Request-Id": request, **headers})


def receipt(answer: Answer) -> Reply:
    """Answers a command: it will be processed."""
    return answered(answer, {"result": "Request will be processed"}, 202)


ACTIONS = {
    Operation.CREATE: ("Create", "Created alert"),
    Operation.UPDATE: ("Update", "Updated alert"),
    Operation.ACKNOWLEDGE: ("Acknowledge", "Acknowledged alert"),
    Operation.RESOLVE: ("Close", "Closed alert"),
    Operation.DELETE: ("Delete", "Deleted alert"),
    Operation.COMMENT: ("AddNote", "Note is added"),
}
COUNTED = "Incremented alert count"
"""The state of a create that found an open alert with its alias."""


def outcome(answer: Answer) -> dict[str, Json]:
    """Returns the state of a request: processed, as it is durable here, unless every upstream has refused it."""
    assert answer.inquired
    found, shown = answer.inquired, answer.shown
    action, done = ACTIONS.get(found.operation, ("Update", "Updated alert"))
    done = COUNTED if found.operation is Operation.CREATE and found.was is Operation.UPDATE else done
    return {
        "action": action,
        "processedAt": iso(found.at),
        "integrationId": INTEGRATION["id"],
        "isSuccess": not found.failed,
        "status": done if not found.failed else NO_ALERT if shown is None else found.failed,
        "alertId": shown.id if shown and not found.failed else "",
        "alias": str(shown.flat.get("dedup_key") or "") if shown and not found.failed else "",
    }


ORDER = (
    *("id", "tinyId", "alias", "message", "status", "acknowledged", "isSeen", "tags", "snoozed", "snoozedUntil"),
    *("count", "lastOccurredAt", "createdAt", "updatedAt", "source", "owner", "priority", "responders"),
    *("integration", "report", "actions", "entity", "description", "details"),
)
"""An alert's fields in the order of the vendor's page."""


def as_shown(shown: Shown, now: datetime, *, is_whole: bool) -> dict[str, Json]:
    """Returns an alert as the vendor shows it: whole, or with fewer fields in a list."""
    seen = shown.flat.get("acknowledged_at") is not None
    own: dict[str, Json] = {"isSeen": seen, "integration": INTEGRATION, "report": _report(shown.flat)}
    more: dict[str, Json] = {"actions": [], "entity": "", "description": "", "details": {}}
    found = in_full(ALERT, shown, now, {**own, **(more if is_whole else {})}, ORDER)
    if not is_whole:
        found["seen"] = found["isSeen"]
        found = {name: value for name, value in found.items() if name not in more}
    return found


def in_full(
    mapping: Mapping, shown: Shown, now: datetime, own: dict[str, Json], order: Sequence[str]
) -> dict[str, Json]:
    """Returns an alert with every field that both APIs show, whether set or not, and with one API's `own` fields."""
    flat = shown.flat
    wire = mapping.write(flat, Writing(), side="reply")
    number = number_of(shown.id)
    created = str(wire.get("createdAt", ""))
    until = flat.get("snoozed_until")
    usual: dict[str, Json] = {
        "tinyId": str(number) if number is not None else "",
        "alias": "",
        "tags": [],
        "snoozed": until is not None and until > now,
        "count": 1,
        "lastOccurredAt": created,
        "updatedAt": created,
        "source": "",
        "owner": "",
        "priority": USUAL_PRIORITY,
        "responders": [],
    }
    found: dict[str, Json] = {"id": shown.id, **usual, **own, **_said(wire)}
    if found.get("status") == "closed" and flat.get("acknowledged_at") is not None:
        found["acknowledged"] = True
    return {name: found[name] for name in (*order, *found) if name in found}


def _said(wire: dict[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in wire.items() if value is not None}
    for field, usual in (("responders", "user"), ("teams", "team")):  # older SDKs of the vendor create with `teams`
        if isinstance(said.get(field), list):
            said[field] = [_responder(one, usual) for one in said[field]]
    return said


def _responder(one: Json, usual: str) -> Json:
    """Returns a responder with an id, which the vendor shows and clients require, and with a type. Only the vendor
    knows the id of a name, so the name stands in for it."""
    if not isinstance(one, dict) or one.get("id"):
        return one
    return {"id": one.get("username") or one.get("name") or "", "type": usual, **one}


def _report(flat: dict[str, Any]) -> dict[str, Json]:
    """Returns how long it took to acknowledge and to close the alert, in milliseconds."""
    created = flat.get("created_at")
    times = {"ackTime": flat.get("acknowledged_at"), "closeTime": flat.get("resolved_at")}
    return {name: millis(at) - millis(created) for name, at in times.items() if at is not None and created is not None}


def now_of(answer: Answer) -> datetime:
    """Returns when a request came, which its number tells."""
    return from_millis(made_at(answer.request))


# --- every kind of problem ---------------------------------------------------------------------------------

UNPROCESSABLE = "Request body is not processable. Please check the errors."
SEMANTIC = (ProblemKind.INVALID, ProblemKind.UNMET, ProblemKind.UNROUTED, ProblemKind.REFUSED)
"""Problems with the content, which are 422; 400 is for malformed JSON only."""
MESSAGES = {
    ProblemKind.UNAUTHORIZED: "Could not authenticate",
    ProblemKind.NOT_FOUND: NO_ALERT,
    ProblemKind.RATE_LIMITED: "You are making too many requests!",
}


def problem(found: Problem) -> Reply:
    """Words a problem in the vendor's envelope; a fault of one field stands under the field's name."""
    status = 422 if found.kind in SEMANTIC else USUAL_STATUS[found.kind]
    request = uuid_of(int(found.request)) if found.request.isdigit() else uuid_of(0)
    body: dict[str, Json] = {"message": MESSAGES.get(found.kind) or found.message}
    if status == 422 and found.field:
        body = {"message": UNPROCESSABLE, "errors": {found.field: found.message.removeprefix(f"{found.field}: ")}}
    return Reply(status, {**body, "took": 0.001, "requestId": request}, {"X-Request-Id": request})


def reason(response: Response) -> str:
    """Returns the vendor's words in a refusal: its message, then the fault of each field."""
    body = response.object()
    errors = body.get("errors")
    faults = [f"{name}: {text}" for name, text in errors.items()] if isinstance(errors, dict) else []
    message = [body["message"]] if isinstance(body.get("message"), str) else []
    return " ".join([*message, "; ".join(faults)]).strip()
