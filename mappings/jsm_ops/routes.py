"""The routes of Jira Service Management's Ops API: alerts by id, their lists, and the state of a request.

Source: https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/. Requests are read as
Opsgenie's are, except where this API has other fields; Opsgenie's fields are accepted there as well. It must not know
what stands behind the gateway.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.asked import Command, Incoming, Listing, Read, Ref, Shown
from gateway.asking import one, time_of, unpacked, whole_number
from gateway.canonical import Operation
from gateway.errors import invalid
from gateway.outcome import Json
from mappings.jsm_ops.alert import ALERT, EXTRA, Alert
from mappings.jsm_ops.words import answer_logs, answer_many, answer_notes, answer_one, answer_status
from mappings.opsgenie import asked, lists
from mappings.opsgenie.alert import RESPONDERS
from mappings.opsgenie.bodies import Common, Described, Noted, Prioritised, Snoozed, Tagged, Text, Worded
from mappings.opsgenie.routes import asking, writing

PAGE = "https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/"

# --- wire structs ------------------------------------------------------------------------------------------


class Escalated(Struct, kw_only=True):
    """The escalation to escalate to."""

    escalationId: Text


class Assigned(Struct, kw_only=True):
    """The account of the user to assign to."""

    accountId: Text


class Responding(Struct, kw_only=True):
    """The responder to be added."""

    id: Text
    type: str | UnsetType = UNSET


class Acting(Struct, kw_only=True):
    """The custom action to be carried out."""

    actionName: Text


class Extended(Struct, kw_only=True):
    """Properties to be added."""

    extraProperties: dict[str, Any]


class Keyed(Struct, kw_only=True):
    """The keys of properties to be removed."""

    keys: Annotated[list[str], Meta(min_length=1)]


class Done(Struct, kw_only=True):
    """The state of a request."""

    action: str
    processedAt: str
    integrationId: str
    isSuccess: bool
    status: str
    alertId: str
    alias: str


class Many(Struct, kw_only=True):
    """A page of alerts."""

    values: list[Alert]
    links: dict[str, str]


class Entries(Struct, kw_only=True):
    """A page of notes, or of log entries."""

    values: list[dict[str, Any]]
    links: dict[str, str]


# --- what is asked -----------------------------------------------------------------------------------------


def credentials(incoming: Incoming) -> tuple[str, ...]:
    """Returns a user's email and API token from the Basic scheme, or a bare or bearer token."""
    header = incoming.headers.get("authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    key = rest.strip() if scheme.lower() == "bearer" else header
    if scheme.lower() == "basic":
        key = unpacked(rest) or ""
    return (key,) if key else ()


def _by_alias(incoming: Incoming) -> Read:
    alias = one(incoming, "alias")
    if not alias:
        raise invalid("alias", "is required")
    return Read(ref=Ref(key=alias))


def _search(incoming: Incoming) -> Listing:
    """Reads a request for a list by query and by time of creation."""
    since, until = time_of(incoming, "from"), time_of(incoming, "to")

    def among(shown: Shown) -> bool:
        created = shown.flat.get("created_at")
        return created is None or ((since is None or since <= created) and (until is None or created <= until))

    size = whole_number(incoming, "size", 20, least=1, most=lists.LONGEST_PAGE)
    return lists.listing(incoming, size, "/v1/alerts", among if since or until else None)


def _assign(incoming: Incoming) -> Command:
    account = asked.required(asked.words_of(incoming), "accountId", str)
    said = {"accountId": account}
    return asked.acting(incoming, "assign", f"assigned to {account}", said, lambda before: {"assignee": account})


def _escalate(incoming: Incoming) -> Command:
    body = asked.words_of(incoming)
    held = body.get("escalation")
    given = {"escalationId": held.get("id")} if isinstance(held, dict) else body
    name = asked.required(given, "escalationId", str)
    return asked.acting(incoming, "escalate", f"escalated to {name}", {"escalationId": name})


def _respond(incoming: Incoming) -> Command:
    body = asked.words_of(incoming)
    held = body.get("responder")
    given = held if isinstance(held, dict) else body
    listed = {"id": asked.required(given, "id", str), "type": str(given.get("type") or "user")}
    sentence = f"{listed['type']} {listed['id']} was added as a responder"
    return asked.acting(incoming, "responders", sentence, listed, lambda before: _with(before, listed))


def _with(before: dict[str, Any], listed: dict[str, Json]) -> dict[str, Any]:
    held = list(before.get(RESPONDERS) or ())
    return {RESPONDERS: held if listed in held else [*held, listed]}


def _entries(incoming: Incoming) -> Read:
    """Reads a request for a page of notes or log entries, newest first, from behind the entry with the given offset."""
    size = whole_number(incoming, "size", 20, least=1, most=lists.LONGEST_PAGE)
    asked_for = {"order": "desc", "limit": size, "offset": one(incoming, "after") or "", "id": incoming.params["id"]}
    return Read(ref=asked.ref(incoming), history=True, page=asked_for)


def _act(incoming: Incoming) -> Command:
    name = asked.required(asked.words_of(incoming), "actionName", str)
    return asked.acting(incoming, "action", f"action {name} was carried out", {"actionName": name})


# --- routes ------------------------------------------------------------------------------------------------


_writing = partial(writing, at="/alerts", source=PAGE, query=(), at_root=False)
_asking = partial(asking, at="/alerts", source=PAGE, query=(), at_root=False)
PART = ("after", "size")
SEARCH = ("query", "offset", "size", "sort", "order", "from", "to")
CHANGE, DO, LOOK = Operation.UPDATE, Operation.COMMENT, Operation.READ
CLOSE, ACKNOWLEDGE = Operation.RESOLVE, Operation.ACKNOWLEDGE
TAKE_BACK = "Unacknowledge an alert"
EXTEND = asked.adding_details(ALERT, EXTRA)

SHORT = (
    _writing("POST", "", Operation.CREATE, asked.creating(ALERT), "Create an alert, or count a repeat", Alert),
    _asking("", Operation.LIST, _search, answer_many, "List alerts", Many, query=SEARCH),
    _asking("/alias", LOOK, _by_alias, answer_one, "Get the open alert of an alias", Alert, query=("alias",)),
    _asking("/requests/{id}", LOOK, lists.status, answer_status, "Get the state of a request", Done),
    _asking("/{id}", LOOK, lists.get, answer_one, "Get an alert", Alert),
    _asking("/{id}/notes", LOOK, _entries, answer_notes, "List the notes of an alert", Entries, query=PART),
    _asking("/{id}/logs", LOOK, _entries, answer_logs, "List the log of an alert", Entries, query=PART),
    _writing("DELETE", "/{id}", Operation.DELETE, asked.doing(Operation.DELETE), "Delete an alert"),
    _writing("POST", "/{id}/close", CLOSE, asked.doing(CLOSE), "Close an alert", Common),
    _writing("POST", "/{id}/acknowledge", ACKNOWLEDGE, asked.doing(ACKNOWLEDGE), "Acknowledge an alert", Common),
    _writing("PATCH", "/{id}/message", CHANGE, asked.field("message"), "Change the message", Worded),
    _writing("PATCH", "/{id}/description", CHANGE, asked.field("description"), "Change the description", Described),
    _writing("PATCH", "/{id}/priority", CHANGE, asked.field("priority"), "Change the priority", Prioritised),
    _writing("POST", "/{id}/tags", CHANGE, asked.add_tags, "Add tags", Tagged),
    _writing("DELETE", "/{id}/tags", CHANGE, asked.remove_tags, "Remove tags", Tagged),
    _writing("POST", "/{id}/extra-properties", CHANGE, EXTEND, "Add extra properties", Extended),
    _writing("DELETE", "/{id}/extra-properties", CHANGE, asked.remove_details, "Remove extra properties", Keyed),
    _writing("POST", "/{id}/notes", DO, asked.note, "Add a note", Noted),
    _writing("POST", "/{id}/unacknowledge", DO, asked.unacknowledge, TAKE_BACK, Common),
    _writing("POST", "/{id}/snooze", DO, asked.snooze, "Snooze an alert", Snoozed),
    _writing("POST", "/{id}/escalate", DO, _escalate, "Escalate an alert", Escalated),
    _writing("POST", "/{id}/assign", DO, _assign, "Assign an alert", Assigned),
    _writing("POST", "/{id}/responders", DO, _respond, "Add a responder", Responding),
    _writing("POST", "/{id}/action", DO, _act, "Execute a custom action", Acting),
)
"""The routes without the path prefix of a site, which clients of the gateway need not repeat."""
VERSION = "/v1"
"""What the vendor's description and its links to further pages begin with: a client joins them to what is before it."""
WHOLE = f"/jsm/ops/api/{{cloudId}}{VERSION}"
ROUTES = (
    *SHORT,
    *(replace(route, path=f"{VERSION}{route.path}") for route in SHORT),
    *(replace(route, path=f"{WHOLE}{route.path}", at_root=True) for route in SHORT),
)
