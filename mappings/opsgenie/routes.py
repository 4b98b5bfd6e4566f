"""What Opsgenie's callers can ask for: every documented operation on an alert, its lists, and the state of a request.

Source: https://docs.opsgenie.com/docs/alert-api; the vendor's OpenAPI description is opsgenie/opsgenie-oas. Clients
write paths with trailing slashes and percent-encoded aliases, and leave optional bodies out. It must not know what
stands behind the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.asking import body_object, one, whole_number
from gateway.canonical import Flat, Operation
from gateway.dialect import (
    Answer,
    Command,
    Incoming,
    Inquiry,
    Json,
    Listing,
    Read,
    Ref,
    Reply,
    Route,
    Shown,
    Told,
)
from gateway.errors import Problem, ProblemKind, invalid
from gateway.values import iso
from mappings.opsgenie import query
from mappings.opsgenie.alert import ALERT, RESPONDERS, TAGS, Alert
from mappings.opsgenie.words import answered, as_shown, now_of, number_of, receipt, request_status

PAGE = "https://docs.opsgenie.com/docs/alert-api"
CONTINUED = "https://docs.opsgenie.com/docs/alert-api-continued"
COMMON = ("user", "source", "note")
Text = Annotated[str, Meta(min_length=1)]

# --- wire structs ------------------------------------------------------------------------------------------


class Common(Struct, kw_only=True):
    """Who does it, over what, and why."""

    user: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    note: str | UnsetType = UNSET


class Noted(Struct, kw_only=True):
    """A note to be added."""

    note: Text
    user: str | UnsetType = UNSET
    source: str | UnsetType = UNSET


class Snoozed(Common, kw_only=True):
    """Until when, in ISO 8601."""

    endTime: str


class Escalated(Common, kw_only=True):
    """To which escalation: by id or name."""

    escalation: dict[str, Any]


class Assigned(Common, kw_only=True):
    """To whom: by id or username."""

    owner: dict[str, Any]


class Teamed(Common, kw_only=True):
    """Which team: by id or name."""

    team: dict[str, Any]


class Responding(Common, kw_only=True):
    """Who: a type, and an id, name or username."""

    responder: dict[str, Any]


class Tagged(Common, kw_only=True):
    """Tags to be added."""

    tags: Annotated[list[str], Meta(min_length=1)]


class Detailed(Common, kw_only=True):
    """Details to be added."""

    details: dict[str, Any]


class Worded(Struct, kw_only=True):
    """A message."""

    message: Text


class Described(Struct, kw_only=True):
    """A description."""

    description: Text


class Prioritised(Struct, kw_only=True):
    """A priority."""

    priority: Literal["P1", "P2", "P3", "P4", "P5"]


class Receipt(Struct, kw_only=True):
    """The answer to every command."""

    result: str
    took: float
    requestId: str


class Done(Struct, kw_only=True):
    """What became of a request."""

    success: bool
    isSuccess: bool
    action: str
    processedAt: str
    integrationId: str
    status: str
    alertId: str
    alias: str


class RequestStatus(Struct, kw_only=True):
    """The envelope of what became of a request."""

    data: Done
    took: float
    requestId: str


class One(Struct, kw_only=True):
    """The envelope of one alert."""

    data: Alert
    took: float
    requestId: str


class Many(Struct, kw_only=True):
    """The envelope of a list of alerts."""

    data: list[Alert]
    paging: dict[str, str]
    took: float
    requestId: str


class Counted(Struct, kw_only=True):
    """The envelope of a number of alerts."""

    data: dict[str, int]
    took: float
    requestId: str


class Entries(Struct, kw_only=True):
    """The envelope of notes, log entries or recipients."""

    data: list[dict[str, Any]]
    took: float
    requestId: str
    paging: dict[str, str] | UnsetType = UNSET


# --- what is asked -----------------------------------------------------------------------------------------


def credentials(incoming: Incoming) -> tuple[str, ...]:
    """The key of the Authorization header, with the vendor's scheme before it, another one, or none."""
    header = incoming.headers.get("authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    key = rest.strip() if scheme.lower() in ("geniekey", "bearer") else header
    return (key,) if key else ()


def _ref(incoming: Incoming) -> Ref:
    """The alert that is meant: by its id, its short one, or the alias, which finds the open one."""
    kind = one(incoming, "identifierType") or "id"
    if kind.lower() not in ("id", "tiny", "alias"):
        raise invalid("identifierType", "should be one of [ id, tiny, alias ]")
    name = incoming.params["id"]
    return Ref(key=name) if kind.lower() == "alias" else Ref(id=name)


def _body(incoming: Incoming, *, is_optional: bool = False) -> dict[str, Json]:
    """The body as it is meant: null is absent, and so is the whole where nothing has to be said."""
    if incoming.body is UNSET and is_optional:
        return {}
    return {name: value for name, value in body_object(incoming).items() if value is not None}


def _common(incoming: Incoming, said: dict[str, Json]) -> dict[str, Json]:
    """Who does it, over what, and why: in the body, or in the query where there is none."""
    asked = {name: said.get(name, one(incoming, name)) for name in COMMON}
    for name, value in asked.items():
        if value is not None and not isinstance(value, str):
            raise invalid(name, "should be a text")
    return {name: value for name, value in asked.items() if value is not None}


def _required(said: dict[str, Json], name: str, kind: type) -> Any:
    value = said.get(name)
    if not isinstance(value, kind) or not value:
        raise invalid(name, "is required" if value in (None, "", [], {}) else "is of the wrong type")
    return value


def _command(incoming: Incoming, operation: Operation, said: dict[str, Json], **more: Any) -> Command:
    """A command on an alert; the vendor takes each, and tells later whether there was such an alert."""
    more.setdefault("comment", str(said.get("note", "")))
    more.setdefault("verbatim", said)
    return Command(operation=operation, ref=_ref(incoming), answers_anyway=True, **more)


def _create(incoming: Incoming) -> Command:
    body = _body(incoming)
    for name in ("alias", "priority"):
        if body.get(name) == "":
            del body[name]
    if body.get("priority", "P3") not in ("P1", "P2", "P3", "P4", "P5"):
        raise invalid("priority", "should be one of [ P1, P2, P3, P4, P5 ]")
    reading = ALERT.read(body)
    return Command(
        operation=Operation.CREATE,
        patch=reading.flat,
        hints=reading.hints,
        verbatim=reading.verbatim,
        dropped=reading.dropped,
        carried=reading.carried,
        invents_key=True,
        only_new=True,
        amend=lambda before: {"occurrences": (before.get("occurrences") or 1) + 1, "occurred_at": incoming.now},
    )


def _doing(operation: Operation) -> Callable[[Incoming], Command]:
    return lambda incoming: _command(incoming, operation, _common(incoming, _body(incoming, is_optional=True)))


def _note(incoming: Incoming) -> Command:
    body = _body(incoming)
    _required(body, "note", str)
    return _command(incoming, Operation.COMMENT, _common(incoming, body))


# --- changes of fields -------------------------------------------------------------------------------------


def _field(name: str) -> Callable[[Incoming], Command]:
    def read(incoming: Incoming) -> Command:
        body = _body(incoming)
        _required(body, name, str)
        if name == "priority" and body[name] not in ("P1", "P2", "P3", "P4", "P5"):
            raise invalid("priority", "should be one of [ P1, P2, P3, P4, P5 ]")
        reading = ALERT.read({name: body[name]}, partial=True)
        return _command(incoming, Operation.UPDATE, {name: body[name]}, patch=reading.flat, comment="")

    return read


def _add_tags(incoming: Incoming) -> Command:
    body = _body(incoming)
    tags = _required(body, "tags", list)
    ALERT.read({"tags": tags}, partial=True)

    def amend(before: Flat) -> Flat:
        held = list(before.get(TAGS) or ())
        return {TAGS: [*held, *(tag for tag in dict.fromkeys(tags) if tag not in held)]}

    said = {"tags": tags, **_common(incoming, body)}
    return _command(incoming, Operation.UPDATE, said, patch={TAGS: tags}, amend=amend)


def _listed(incoming: Incoming, name: str) -> list[str]:
    found = [word.strip() for text in incoming.query.get(name, ()) for word in text.split(",") if word.strip()]
    if not found:
        raise invalid(name, "is required")
    return found


def _remove_tags(incoming: Incoming) -> Command:
    tags = _listed(incoming, "tags")

    def amend(before: Flat) -> Flat:
        return {TAGS: [tag for tag in before[TAGS] if tag not in tags]} if before.get(TAGS) else {}

    note = str(_common(incoming, {}).get("note", ""))
    return _command(incoming, Operation.UPDATE, {}, comment=note, amend=amend)


def _add_details(incoming: Incoming) -> Command:
    body = _body(incoming)
    reading = ALERT.read({"details": _required(body, "details", dict)}, partial=True)
    more = reading.flat.get("custom") or {}
    said = {"details": more, **_common(incoming, body)} if more else {}
    return _command(
        incoming,
        Operation.UPDATE,
        said,
        patch={"custom": more} if more else {},
        carried=reading.carried,
        amend=lambda before: {"custom": {**(before.get("custom") or {}), **more}} if more else {},
    )


def _remove_details(incoming: Incoming) -> Command:
    keys = _listed(incoming, "keys")

    def amend(before: Flat) -> Flat:
        held = before.get("custom")
        return {"custom": {key: value for key, value in held.items() if key not in keys}} if held else {}

    note = str(_common(incoming, {}).get("note", ""))
    return _command(incoming, Operation.UPDATE, {}, comment=note, amend=amend)


# --- what has no operation of its own ----------------------------------------------------------------------


def _acting(
    incoming: Incoming, action: str, sentence: str, said: dict[str, Json], amend: Callable[[Flat], Flat] | None = None
) -> Command:
    """What people do to an alert that only this vendor knows: a sentence to those who take comments."""
    common = _common(incoming, _body(incoming, is_optional=True))
    who = f" by {common['user']}" if common.get("user") else ""
    text = f"{ACTED}{sentence}{who}"
    comment = f"{text}: {common['note']}" if common.get("note") else text
    words = {"action": action, **said, **common}
    return _command(incoming, Operation.COMMENT, words, comment=comment, amend=amend)


ACTED = "Opsgenie: "
"""How a sentence begins that tells what was done, and is nobody's note."""


def _named(value: dict[str, Json], field: str) -> str:
    for name in ("username", "name", "id"):
        if isinstance(value.get(name), str) and value[name]:
            return str(value[name])
    raise invalid(field, "id or name should be provided")


def _unacknowledge(incoming: Incoming) -> Command:
    def amend(before: Flat) -> Flat:
        return {"status": "firing", "acknowledged_at": None} if before.get("status") == "acknowledged" else {}

    return _acting(incoming, "unacknowledge", "no longer acknowledged", {}, amend)


def _snooze(incoming: Incoming) -> Command:
    end = _required(_body(incoming), "endTime", str)
    try:
        until = query.as_time(end)
    except (ValueError, OverflowError):
        raise invalid("endTime", f"{end[:64]!r} is not an ISO 8601 time") from None
    return _acting(
        incoming, "snooze", f"snoozed until {iso(until)}", {"endTime": end}, lambda before: {"snoozed_until": until}
    )


def _escalate(incoming: Incoming) -> Command:
    escalation = _required(_body(incoming), "escalation", dict)
    name = _named(escalation, "escalation")
    return _acting(incoming, "escalate", f"escalated to {name}", {"escalation": escalation})


def _assign(incoming: Incoming) -> Command:
    owner = _required(_body(incoming), "owner", dict)
    name = _named(owner, "owner")
    return _acting(incoming, "assign", f"assigned to {name}", {"owner": owner}, lambda before: {"assignee": name})


def _responding(field: str) -> Callable[[Incoming], Command]:
    def read(incoming: Incoming) -> Command:
        responder = _required(_body(incoming), field, dict)
        name = _named(responder, field)
        kind = "team" if field == "team" else str(responder.get("type") or "user")
        listed = {**responder, "type": kind}

        def amend(before: Flat) -> Flat:
            held = list(before.get(RESPONDERS) or ())
            return {RESPONDERS: held if listed in held else [*held, listed]}

        action = "teams" if field == "team" else "responders"
        return _acting(incoming, action, f"{kind} {name} was called in", {field: responder}, amend)

    return read


def _custom_action(incoming: Incoming) -> Command:
    name = incoming.params["name"]
    return _acting(incoming, "actions", f"action {name} was carried out", {"name": name})


# --- questions ---------------------------------------------------------------------------------------------


def _get(incoming: Incoming) -> Read:
    return Read(ref=_ref(incoming))


def _entries(incoming: Incoming) -> Read:
    order, direction = one(incoming, "order") or "desc", one(incoming, "direction") or "next"
    if order not in ("asc", "desc"):
        raise invalid("order", "should be one of [ asc, desc ]")
    limit = whole_number(incoming, "limit", 20, least=1, most=100)
    page = {"order": order, "direction": direction, "limit": limit, "offset": one(incoming, "offset") or ""}
    return Read(ref=_ref(incoming), history=True, page={**page, "base": _base(incoming), "id": incoming.params["id"]})


def _status(incoming: Incoming) -> Inquiry:
    number = number_of(incoming.params["id"])
    if number is None:
        raise Problem(ProblemKind.NOT_FOUND, "there is no such request", field="requestId")
    return Inquiry(request=number)


def _base(incoming: Incoming) -> str:
    """The address that the caller used, for links to further pages."""
    scheme = incoming.headers.get("x-forwarded-proto", "http")
    return f"{scheme}://{incoming.headers.get('host', 'localhost')}/opsgenie/v2/alerts"


def _search(incoming: Incoming) -> Listing:
    if one(incoming, "searchIdentifier"):
        raise Problem(ProblemKind.NOT_FOUND, "there is no such saved search", field="searchIdentifier")
    text = one(incoming, "query") or ""
    test = query.parse(text)
    sort, order = one(incoming, "sort") or "createdAt", one(incoming, "order") or "desc"
    if sort not in query.SORTS:
        raise invalid("sort", f"should be one of [ {', '.join(query.SORTS)} ]")
    if order not in ("asc", "desc"):
        raise invalid("order", "should be one of [ asc, desc ]")
    now, key = incoming.now, query.sort_key(sort)

    def choose(listed: Sequence[Shown]) -> Sequence[Shown]:
        found = [(shown, as_shown(shown, now, is_whole=True)) for shown in listed]
        chosen = [pair for pair in found if test(pair[1])]
        chosen.sort(key=lambda pair: key(pair[1]), reverse=order == "desc")
        return [shown for shown, _ in chosen]

    return Listing(
        choose=choose,
        offset=whole_number(incoming, "offset", 0, least=0, most=20_000),
        limit=whole_number(incoming, "limit", 20, least=1, most=100),
        page={"base": _base(incoming), "query": text, "sort": sort, "order": order},
    )


# --- answers -----------------------------------------------------------------------------------------------


def _answer_one(answer: Answer) -> Reply:
    assert answer.shown
    return answered(answer, {"data": as_shown(answer.shown, now_of(answer), is_whole=True)})


def _answer_many(answer: Answer) -> Reply:
    assert answer.listing
    now = now_of(answer)
    listed = [as_shown(shown, now, is_whole=False) for shown in answer.listed]
    return answered(answer, {"data": listed, "paging": _paging(answer.listing, answer.total)})


def _paging(listing: Listing, total: int) -> dict[str, str]:
    asked = {name: listing.page[name] for name in ("query", "sort", "order") if listing.page.get(name)}
    limit, offset = listing.limit or 20, listing.offset
    last = max(0, (total - 1) // limit * limit)
    pages = {"first": 0, "last": last}
    if offset > 0:
        pages["prev"] = max(0, offset - limit)
    if offset + limit < total:
        pages["next"] = offset + limit
    base = listing.page["base"]
    return {name: f"{base}?{urlencode({'limit': limit, **asked, 'offset': at})}" for name, at in pages.items()}


def _answer_count(answer: Answer) -> Reply:
    return answered(answer, {"data": {"count": answer.total}})


def _part(answer: Answer, found: list[tuple[Told, dict[str, Json]]], word: str) -> Reply:
    """A page of notes or log entries. An offset is the number of the entry that the page before ended with."""
    page = answer.page
    newest_first = page.get("order", "desc") == "desc"
    found.sort(key=lambda pair: pair[0].number, reverse=newest_first)
    offset = str(page.get("offset", ""))
    if offset.isdigit():
        at = int(offset)
        found = [pair for pair in found if (pair[0].number < at if newest_first else pair[0].number > at)]
    limit = int(page.get("limit", 20))
    base = f"{page.get('base', '')}/{page.get('id', '')}/{word}"
    links = {"first": f"{base}?{urlencode({'limit': limit, 'order': page.get('order', 'desc')})}"}
    if len(found) > limit:
        links["next"] = f"{links['first']}&{urlencode({'offset': found[limit - 1][0].number})}"
    return answered(answer, {"data": [entry for _, entry in found[:limit]], "paging": links})


def _answer_notes(answer: Answer) -> Reply:
    notes = [
        (told, {"note": told.comment, "owner": told.caller, "createdAt": iso(told.at), "offset": str(told.number)})
        for told in answer.history
        if told.comment and not told.comment.startswith(ACTED)
    ]
    return _part(answer, notes, "notes")


LOGGED = {
    Operation.CREATE: "Alert created",
    Operation.UPDATE: "Alert updated",
    Operation.ACKNOWLEDGE: "Alert acknowledged",
    Operation.RESOLVE: "Alert closed",
    Operation.REOPEN: "Alert opened again",
    Operation.DELETE: "Alert deleted",
    Operation.COMMENT: "Note added",
}


def _answer_logs(answer: Answer) -> Reply:
    logs = [(told, _logged(told)) for told in answer.history]
    return _part(answer, logs, "logs")


def _logged(told: Told) -> dict[str, Json]:
    is_act = told.comment.startswith(ACTED)
    text = told.comment.removeprefix(ACTED) if is_act else LOGGED.get(told.operation, "Alert updated")
    said = f"{text}: {told.comment}" if told.comment and not is_act else text
    return {
        "log": said,
        "type": "system",
        "owner": told.caller,
        "createdAt": iso(told.at),
        "offset": str(told.number),
    }


def _answer_nobody(answer: Answer) -> Reply:
    """Whom the vendor would have notified: nobody is, by the gateway."""
    return answered(answer, {"data": []})


# --- routes ------------------------------------------------------------------------------------------------

AT = "/v2/alerts"
NAMED = ("identifierType",)
BY = (*NAMED, "user", "source", "note")


def _writing(
    method: str,
    path: str,
    operation: Operation,
    read: Callable[[Incoming], Command],
    summary: str,
    *,
    source: str = PAGE,
    query: tuple[str, ...] = NAMED,
    body: type[Struct] | None = None,
) -> Route:
    return Route(
        method=method,
        path=f"{AT}{path}",
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
    )


def _asking(
    path: str,
    operation: Operation,
    read: Callable[[Incoming], Any],
    answer: Callable[[Answer], Reply],
    summary: str,
    returns: Any,
    query: tuple[str, ...] = NAMED,
) -> Route:
    return Route(
        method="GET",
        path=f"{AT}{path}",
        operations=(operation,),
        read=read,
        answer=answer,
        summary=summary,
        source=PAGE,
        returns=returns,
        query=query,
    )


SEARCH = ("query", "offset", "limit", "sort", "order", "searchIdentifier", "searchIdentifierType")
PART = (*NAMED, "offset", "direction", "limit", "order")
CHANGE, DO = Operation.UPDATE, Operation.COMMENT

ROUTES = (
    Route(
        method="POST",
        path=AT,
        operations=(Operation.CREATE,),
        read=_create,
        answer=receipt,
        summary="Create an alert, or count it once more",
        source=PAGE,
        body=Alert,
        returns=Receipt,
        success=202,
    ),
    _asking("", Operation.LIST, _search, _answer_many, "List alerts", Many, SEARCH),
    _asking("/count", Operation.LIST, _search, _answer_count, "Count alerts", Counted, SEARCH),
    _asking("/{id}", Operation.READ, _get, _answer_one, "Get an alert", One),
    _writing("DELETE", "/{id}", Operation.DELETE, _doing(Operation.DELETE), "Delete an alert", query=BY),
    _writing("POST", "/{id}/close", Operation.RESOLVE, _doing(Operation.RESOLVE), "Close an alert", body=Common),
    _writing(
        "POST",
        "/{id}/acknowledge",
        Operation.ACKNOWLEDGE,
        _doing(Operation.ACKNOWLEDGE),
        "Acknowledge an alert",
        body=Common,
    ),
    _writing("PUT", "/{id}/message", CHANGE, _field("message"), "Change the message", body=Worded),
    _writing("PUT", "/{id}/description", CHANGE, _field("description"), "Change the description", body=Described),
    _writing("PUT", "/{id}/priority", CHANGE, _field("priority"), "Change the priority", body=Prioritised),
    _writing("POST", "/{id}/tags", CHANGE, _add_tags, "Add tags", source=CONTINUED, body=Tagged),
    _writing("DELETE", "/{id}/tags", CHANGE, _remove_tags, "Remove tags", source=CONTINUED, query=(*BY, "tags")),
    _writing("POST", "/{id}/details", CHANGE, _add_details, "Add details", source=CONTINUED, body=Detailed),
    _writing(
        "DELETE", "/{id}/details", CHANGE, _remove_details, "Remove details", source=CONTINUED, query=(*BY, "keys")
    ),
    _writing("POST", "/{id}/notes", DO, _note, "Add a note", source=CONTINUED, body=Noted),
    _writing(
        "POST", "/{id}/unacknowledge", DO, _unacknowledge, "Take an acknowledgement back", source=CONTINUED, body=Common
    ),
    _writing("POST", "/{id}/snooze", DO, _snooze, "Snooze an alert", source=CONTINUED, body=Snoozed),
    _writing("POST", "/{id}/escalate", DO, _escalate, "Escalate an alert", source=CONTINUED, body=Escalated),
    _writing("POST", "/{id}/assign", DO, _assign, "Assign an alert", source=CONTINUED, body=Assigned),
    _writing("POST", "/{id}/teams", DO, _responding("team"), "Add a team", source=CONTINUED, body=Teamed),
    _writing(
        "POST", "/{id}/responders", DO, _responding("responder"), "Add a responder", source=CONTINUED, body=Responding
    ),
    _writing(
        "POST", "/{id}/actions/{name}", DO, _custom_action, "Carry out a custom action", source=CONTINUED, body=Common
    ),
    _asking("/{id}/notes", Operation.READ, _entries, _answer_notes, "List the notes of an alert", Entries, PART),
    _asking("/{id}/logs", Operation.READ, _entries, _answer_logs, "List the log of an alert", Entries, PART),
    _asking("/{id}/recipients", Operation.READ, _get, _answer_nobody, "List the recipients of an alert", Entries),
    _asking("/requests/{id}", Operation.READ, _status, request_status, "Get the state of a request", RequestStatus, ()),
)
