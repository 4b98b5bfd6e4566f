"""Opsgenie's routes: every documented operation on an alert, its lists, and the state of a request.

Source: https://docs.opsgenie.com/docs/alert-api; the vendor's OpenAPI description is opsgenie/opsgenie-oas. How a
request is read is in `asked` and `lists`. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgspec import Struct

from gateway.asked import Answer, Command, Incoming, Reply
from gateway.asking import one, unpacked
from gateway.canonical import Operation
from gateway.dialect import Route
from mappings.opsgenie import asked, beside, lists, netdata
from mappings.opsgenie.alert import ALERT, Alert
from mappings.opsgenie.bodies import (
    Assigned,
    Common,
    Counted,
    Described,
    Detailed,
    Entries,
    Escalated,
    Many,
    Noted,
    One,
    Prioritised,
    Receipt,
    RequestStatus,
    Responding,
    Snoozed,
    Tagged,
    Teamed,
    Worded,
)
from mappings.opsgenie.words import receipt

PAGE = "https://docs.opsgenie.com/docs/alert-api"
CONTINUED = "https://docs.opsgenie.com/docs/alert-api-continued"
EVENTS = "https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-integration-events/"


def credentials(incoming: Incoming) -> tuple[str, ...]:
    """Returns the key in the Authorization header, after the vendor's scheme, `Bearer`, `Basic` (as the password), or
    none; or that of the query, for senders where only an address can be set."""
    header = incoming.headers.get("authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    key = rest.strip() if scheme.lower() in ("geniekey", "bearer") else header
    if scheme.lower() == "basic":
        key = _password(rest)
    return tuple(found for found in (key, one(incoming, "apiKey")) if found)


def _password(packed: str) -> str:
    """The key of Basic authentication: the password of nobody, as Alertmanager is told to send its heartbeat."""
    pair = unpacked(packed)
    if pair is None:
        return packed
    user, _, password = pair.partition(":")
    return password or user


AT = "/v2/alerts"
NAMED = ("identifierType",)
BY = (*NAMED, "user", "source", "note")


def writing(
    method: str,
    path: str,
    operation: Operation,
    read: Callable[[Incoming], Command],
    summary: str,
    body: type[Struct] | None = None,
    *,
    at: str = AT,
    source: str = PAGE,
    query: tuple[str, ...] = NAMED,
    at_root: bool = True,
) -> Route:
    """Returns a route of either API that is answered with a receipt; `at` is the path of all alerts."""
    return Route(
        method=method,
        path=f"{at}{path}",
        operations=(operation,),
        read=read,
        answer=receipt,
        summary=summary,
        source=source,
        success=202,
        returns=Receipt,
        query=query,
        body=body,
        body_optional=body is Common,
        at_root=at_root,
    )


def asking(
    path: str,
    operation: Operation,
    read: Callable[[Incoming], Any],
    answer: Callable[[Answer], Reply],
    summary: str,
    returns: Any,
    *,
    at: str = AT,
    source: str = PAGE,
    query: tuple[str, ...] = NAMED,
    at_root: bool = True,
) -> Route:
    """Returns a route of either API for a lookup."""
    return Route(
        method="GET",
        path=f"{at}{path}",
        operations=(operation,),
        read=read,
        answer=answer,
        summary=summary,
        source=source,
        returns=returns,
        query=query,
        at_root=at_root,
    )


SEARCH = ("query", "offset", "limit", "sort", "order", "searchIdentifier", "searchIdentifierType")
PART = (*NAMED, "offset", "direction", "limit", "order")
CHANGE, DO, LOOK = Operation.UPDATE, Operation.COMMENT, Operation.READ

OF_ALERTS = (
    Route(
        method="POST",
        path=AT,
        operations=(Operation.CREATE,),
        read=asked.creating(ALERT),
        answer=receipt,
        summary="Create an alert, or count a repeat",
        source=PAGE,
        body=Alert,
        returns=Receipt,
        success=202,
    ),
    asking("", Operation.LIST, lists.search, lists.answer_many, "List alerts", Many, query=SEARCH),
    asking("/count", Operation.LIST, lists.search, lists.answer_count, "Count alerts", Counted, query=SEARCH),
    asking("/{id}", LOOK, lists.get, lists.answer_one, "Get an alert", One),
    writing("DELETE", "/{id}", Operation.DELETE, asked.doing(Operation.DELETE), "Delete an alert", query=BY),
    writing("POST", "/{id}/close", Operation.RESOLVE, asked.doing(Operation.RESOLVE), "Close an alert", body=Common),
    writing(
        "POST",
        "/{id}/acknowledge",
        Operation.ACKNOWLEDGE,
        asked.doing(Operation.ACKNOWLEDGE),
        "Acknowledge an alert",
        body=Common,
    ),
    writing("PUT", "/{id}/message", CHANGE, asked.field("message"), "Change the message", body=Worded),
    writing("PUT", "/{id}/description", CHANGE, asked.field("description"), "Change the description", body=Described),
    writing("PUT", "/{id}/priority", CHANGE, asked.field("priority"), "Change the priority", body=Prioritised),
    writing("POST", "/{id}/tags", CHANGE, asked.add_tags, "Add tags", source=CONTINUED, body=Tagged),
    writing("DELETE", "/{id}/tags", CHANGE, asked.remove_tags, "Remove tags", source=CONTINUED, query=(*BY, "tags")),
    writing(
        "POST",
        "/{id}/details",
        CHANGE,
        asked.adding_details(ALERT, "details"),
        "Add details",
        source=CONTINUED,
        body=Detailed,
    ),
    writing(
        "DELETE", "/{id}/details", CHANGE, asked.remove_details, "Remove details", source=CONTINUED, query=(*BY, "keys")
    ),
    writing("POST", "/{id}/notes", DO, asked.note, "Add a note", source=CONTINUED, body=Noted),
    writing(
        "POST",
        "/{id}/unacknowledge",
        DO,
        asked.unacknowledge,
        "Unacknowledge an alert",
        source=CONTINUED,
        body=Common,
    ),
    writing("POST", "/{id}/snooze", DO, asked.snooze, "Snooze an alert", source=CONTINUED, body=Snoozed),
    writing("POST", "/{id}/escalate", DO, asked.escalate, "Escalate an alert", source=CONTINUED, body=Escalated),
    writing("POST", "/{id}/assign", DO, asked.assign, "Assign an alert", source=CONTINUED, body=Assigned),
    writing("POST", "/{id}/teams", DO, asked.responding("team"), "Add a team", source=CONTINUED, body=Teamed),
    writing(
        "POST",
        "/{id}/responders",
        DO,
        asked.responding("responder"),
        "Add a responder",
        source=CONTINUED,
        body=Responding,
    ),
    writing(
        "POST",
        "/{id}/actions/{name}",
        DO,
        asked.custom_action,
        "Execute a custom action",
        source=CONTINUED,
        body=Common,
    ),
    asking("/{id}/notes", LOOK, lists.entries, lists.answer_notes, "List the notes of an alert", Entries, query=PART),
    asking("/{id}/logs", LOOK, lists.entries, lists.answer_logs, "List the log of an alert", Entries, query=PART),
    asking("/{id}/recipients", LOOK, lists.get, lists.answer_nobody, "List the recipients of an alert", Entries),
    asking(
        "/requests/{id}",
        LOOK,
        lists.status,
        lists.answer_status,
        "Get the state of a request",
        RequestStatus,
        query=(),
    ),
)

INTEGRATION = "/jsm/ops/integration"
"""The path under which Jira Service Management serves the same API, for the keys of its integrations."""
OF_INTEGRATIONS = {
    ("POST", AT),
    ("GET", f"{AT}/requests/{{id}}"),
    *(("POST", f"{AT}/{{id}}/{word}") for word in ("acknowledge", "close", "notes")),
}
ROUTES = (
    *OF_ALERTS,
    *(
        replace(route, path=f"{INTEGRATION}{route.path}", source=EVENTS)
        for route in OF_ALERTS
        if (route.method, route.path) in OF_INTEGRATIONS
    ),
    Route(
        method="POST",
        path=netdata.PATH,
        operations=(Operation.CREATE, Operation.UPDATE, Operation.RESOLVE),
        read=netdata.read,
        answer=netdata.answer,
        summary="Send a Netdata notification",
        source=netdata.SOURCE,
        body=netdata.Notification,
        returns=Receipt,
        query=("apiKey",),
    ),
    *beside.ROUTES,
)
