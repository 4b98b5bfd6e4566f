"""Reads every operation on an alert that Opsgenie documents into a command.

Sources: https://docs.opsgenie.com/docs/alert-api and the page that continues it. Clients leave optional bodies out. An
operation that the canonical alert does not have becomes a comment and a change of the record. It must not know what
stands behind the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from gateway.asked import Command, Incoming, Ref
from gateway.asking import body_object, one, saying
from gateway.canonical import Flat, Operation
from gateway.errors import invalid
from gateway.mapping.table import Mapping
from gateway.mapping.values import iso, read_time
from gateway.outcome import Json
from mappings.opsgenie.alert import ALERT, PRIORITY, RESPONDERS, TAGS, USUAL_PRIORITY
from mappings.opsgenie.words import UUID_LENGTH, number_of

COMMON = ("user", "source", "note")
DETAILS = ("details", "extraProperties")
"""The field of the free-form texts at Opsgenie, and at Jira Service Management."""


def ref(incoming: Incoming) -> Ref:
    """Returns the alert that a request names: by its id, its short id, or its alias, which finds the open one."""
    kind = one(incoming, "identifierType") or "id"
    if kind.lower() not in ("id", "tiny", "alias"):
        raise invalid("identifierType", "should be one of [ id, tiny, alias ]")
    name = incoming.params["id"]
    return Ref(key=name) if kind.lower() == "alias" else Ref(id=_own_id(name))


def _own_id(name: str) -> str:
    """Returns an alert's id. Given the id of the request that created the alert or counted it once more, returns that
    request's number, by which the alert is known here: senders that only keep receipts close by that (Apprise)."""
    number = number_of(name) if len(name) == UUID_LENGTH else None
    return name if number is None else str(number)


def words_of(incoming: Incoming, *, is_optional: bool = False) -> dict[str, Json]:
    """Returns the body without nulls; an empty one where it `is_optional` and absent."""
    if incoming.body is UNSET and is_optional:
        return {}
    return {name: value for name, value in body_object(incoming).items() if value is not None}


def common(incoming: Incoming, said: dict[str, Json]) -> dict[str, Json]:
    """Returns who acts, through what, and why, from the body or else from the query."""
    asked = {name: said.get(name, one(incoming, name)) for name in COMMON}
    for name, value in asked.items():
        if value is not None and not isinstance(value, str):
            raise invalid(name, "should be a text")
    return {name: value for name, value in asked.items() if value is not None}


def required(said: dict[str, Json], name: str, kind: type) -> Any:
    """Returns a field of the body; raises `Problem` if it is missing, blank or of another type."""
    value = said.get(name)
    if isinstance(value, kind) and value and not _is_blank(value):
        return value
    raise invalid(name, "is required" if value in (None, [], {}) or _is_blank(value) else "is of the wrong type")


def _is_blank(value: Json) -> bool:
    """Returns whether a value is a text of nothing but white space."""
    return isinstance(value, str) and not value.strip()


def command(incoming: Incoming, operation: Operation, said: dict[str, Json], **more: Any) -> Command:
    """Returns a command on an alert. The vendor accepts each, and tells later whether there was such an alert."""
    more.setdefault("comment", str(said.get("note", "")))
    more.setdefault("verbatim", said)
    more.setdefault("beside", ALERT.interpret({name: said[name] for name in ("user", "source") if name in said}).flat)
    return Command(operation=operation, ref=ref(incoming), answers_anyway=True, **more)


def creating(mapping: Mapping) -> Callable[[Incoming], Command]:
    """Returns a reader of new alerts by the rows of one API; an open alert with the same alias is counted once more."""

    def read(incoming: Incoming) -> Command:
        body = _called_alike(words_of(incoming), mapping.container or DETAILS[0])
        for name in ("alias", "priority", "message"):
            if _is_blank(body.get(name)):
                del body[name]
        for field in ("responders", "visibleTo"):
            if isinstance(body.get(field), list):
                body[field] = [one_of_them for one_of_them in body[field] if not _is_left_empty(one_of_them)]
        _check_priority(body)
        reading = mapping.read(body)
        for field in ("responders", "visibleTo"):
            for place, one_of_them in enumerate(body.get(field, ())):
                named(one_of_them, f"{field}[{place}]")
        return saying(
            Operation.CREATE,
            reading,
            comment=str(body.get("note", "")),
            invents_key=True,
            only_new=True,
            amend=lambda before: {"occurrences": (before.get("occurrences") or 1) + 1, "occurred_at": incoming.now},
        )

    return read


def _called_alike(body: dict[str, Json], name: str) -> dict[str, Json]:
    """Returns the body with the free-form texts under this API's name for them: callers that moved here from the
    vendor's other API often still use that one's."""
    other = DETAILS[1 - DETAILS.index(name)]
    held, own = body.get(other), body.get(name, {})
    if not isinstance(held, dict) or not isinstance(own, dict):
        return body
    return {**{field: value for field, value in body.items() if field != other}, name: {**held, **own}}


def _check_priority(said: dict[str, Json]) -> None:
    priority = said.get("priority", USUAL_PRIORITY)
    if not isinstance(priority, str) or priority not in PRIORITY.codes:
        raise invalid("priority", f"should be one of [ {', '.join(PRIORITY.codes)} ]")


def doing(operation: Operation) -> Callable[[Incoming], Command]:
    """Returns a reader of an operation that is one word of the path; the body says who does it and why."""
    return lambda incoming: command(incoming, operation, common(incoming, words_of(incoming, is_optional=True)))


def note(incoming: Incoming) -> Command:
    """Reads a note."""
    body = words_of(incoming)
    required(body, "note", str)
    return command(incoming, Operation.COMMENT, common(incoming, body))


# --- changes of fields -------------------------------------------------------------------------------------


def field(name: str) -> Callable[[Incoming], Command]:
    """Returns a reader of changes to a field that has a call of its own."""

    def read(incoming: Incoming) -> Command:
        body = words_of(incoming)
        required(body, name, str)
        if name == "priority":
            _check_priority(body)
        reading = ALERT.read({name: body[name]}, partial=True)
        return command(incoming, Operation.UPDATE, {name: body[name]}, patch=reading.flat, comment="")

    return read


def add_tags(incoming: Incoming) -> Command:
    """Reads tags to be added."""
    body = words_of(incoming)
    tags = required(body, "tags", list)
    ALERT.read({"tags": tags}, partial=True)

    def amend(before: Flat) -> Flat:
        held = list(before.get(TAGS) or ())
        return {TAGS: [*held, *(tag for tag in dict.fromkeys(tags) if tag not in held)]}

    said = {"tags": tags, **common(incoming, body)}
    return command(incoming, Operation.UPDATE, said, patch={TAGS: tags}, amend=amend)


def _going(incoming: Incoming, name: str) -> tuple[list[str], dict[str, Json]]:
    """Returns the names of what is to be removed, from the query (Opsgenie) or the body (Jira), and that body."""
    found = [word.strip() for text in incoming.query.get(name, ()) for word in text.split(",") if word.strip()]
    said = words_of(incoming) if isinstance(incoming.body, dict) else {}
    if not found:
        found = required(said, name, list)
    if not all(isinstance(word, str) for word in found):
        raise invalid(name, "is of the wrong type")
    return found, said


def remove_tags(incoming: Incoming) -> Command:
    """Reads tags to be removed."""
    tags, said = _going(incoming, "tags")

    def amend(before: Flat) -> Flat:
        return {TAGS: [tag for tag in before[TAGS] if tag not in tags]} if before.get(TAGS) else {}

    return command(incoming, Operation.UPDATE, common(incoming, said), amend=amend)


def adding_details(mapping: Mapping, name: str) -> Callable[[Incoming], Command]:
    """Returns a reader of details to be added; `name` is the field that they have in this API."""

    def read(incoming: Incoming) -> Command:
        body = words_of(incoming)
        reading = mapping.read({name: required(body, name, dict)}, partial=True)
        more = reading.flat.get("custom") or {}
        said = {name: more, **common(incoming, body)} if more else {}
        return command(
            incoming,
            Operation.UPDATE,
            said,
            patch={"custom": more} if more else {},
            carried=reading.carried,
            amend=lambda before: {"custom": {**(before.get("custom") or {}), **more}} if more else {},
        )

    return read


def remove_details(incoming: Incoming) -> Command:
    """Reads the keys of details to be removed."""
    keys, said = _going(incoming, "keys")

    def amend(before: Flat) -> Flat:
        held = before.get("custom")
        return {"custom": {key: value for key, value in held.items() if key not in keys}} if held else {}

    return command(incoming, Operation.UPDATE, common(incoming, said), amend=amend)


# --- what has no operation of its own ----------------------------------------------------------------------


def acting(
    incoming: Incoming, action: str, sentence: str, said: dict[str, Json], amend: Callable[[Flat], Flat] | None = None
) -> Command:
    """Returns the command for an action that only this vendor has; other vendors get a sentence as a comment."""
    by = common(incoming, words_of(incoming, is_optional=True))
    who = f" by {by['user']}" if by.get("user") else ""
    text = f"{ACTED}{sentence}{who}"
    comment = f"{text}: {by['note']}" if by.get("note") else text
    words = {"action": action, **said, **by}
    return command(incoming, Operation.COMMENT, words, comment=comment, amend=amend)


ACTED = "Done to the alert: "
"""Beginning of a sentence about an action, which sets it apart from people's notes."""


NAMES = ("username", "name", "id")
"""Fields that name a user, team or the like."""


def named(value: dict[str, Json], field: str) -> str:
    """Returns the name or id of a user, team or the like; raises `Problem` if there is none."""
    for name in NAMES:
        if isinstance(value.get(name), str) and value[name]:
            return str(value[name])
    raise invalid(field, "id or name should be provided")


def _is_left_empty(value: Json) -> bool:
    """Returns whether a user, team or the like has only empty names. Zabbix's media type sends that for every team that
    was left out of its settings, and its alert must not be lost for it."""
    said = [value[name] for name in NAMES if name in value] if isinstance(value, dict) else []
    return bool(said) and not any(said)


def unacknowledge(incoming: Incoming) -> Command:
    """Reads the taking back of an acknowledgement; a closed alert stays closed."""

    def amend(before: Flat) -> Flat:
        is_acknowledged = before.get("status", "acknowledged") == "acknowledged"
        return {"status": "firing", "acknowledged_at": None} if is_acknowledged else {}

    return acting(incoming, "unacknowledge", "no longer acknowledged", {}, amend)


def snooze(incoming: Incoming) -> Command:
    """Reads a snooze until a time. It does not change a closed alert, which is silent anyway."""
    end = required(words_of(incoming), "endTime", str)
    try:
        until = read_time(end)
    except (ValueError, OverflowError):
        raise invalid("endTime", f"{end[:64]!r} is not an ISO 8601 time") from None

    def amend(before: Flat) -> Flat:
        return {"snoozed_until": until} if before.get("status") != "resolved" else {}

    return acting(incoming, "snooze", f"snoozed until {iso(until)}", {"endTime": end}, amend)


def escalate(incoming: Incoming) -> Command:
    """Reads an escalation, which is named by id or name."""
    escalation = required(words_of(incoming), "escalation", dict)
    name = named(escalation, "escalation")
    return acting(incoming, "escalate", f"escalated to {name}", {"escalation": escalation})


def assign(incoming: Incoming) -> Command:
    """Reads an assignment to a user, who is named by id or username."""
    owner = required(words_of(incoming), "owner", dict)
    name = named(owner, "owner")
    return acting(incoming, "assign", f"assigned to {name}", {"owner": owner}, lambda before: {"assignee": name})


def responding(field: str) -> Callable[[Incoming], Command]:
    """Returns a reader of a further responder: a `team`, or a `responder` of any type."""

    def read(incoming: Incoming) -> Command:
        responder = required(words_of(incoming), field, dict)
        name = named(responder, field)
        kind = "team" if field == "team" else str(responder.get("type") or "user")
        listed = {**responder, "type": kind}

        def amend(before: Flat) -> Flat:
            held = list(before.get(RESPONDERS) or ())
            return {RESPONDERS: held if listed in held else [*held, listed]}

        action = "teams" if field == "team" else "responders"
        return acting(incoming, action, f"{kind} {name} was added as a responder", {field: responder}, amend)

    return read


def custom_action(incoming: Incoming) -> Command:
    """Reads a custom action, which is named in the path."""
    name = incoming.params["name"]
    return acting(incoming, "actions", f"action {name} was carried out", {"name": name})
