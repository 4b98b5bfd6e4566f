"""Splunk On-Call as an upstream: one request of its REST endpoint per operation, within its limits.

The API key and the routing key are parts of the path, as the page on the REST endpoint has them. An alert is found by
its `entity_id` alone, of at most 512 characters (glossary of incident fields). It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

import msgspec

from gateway.canonical import Operation
from gateway.mapping.values import cut_key
from gateway.outcome import Call, Delivered, Json, Rejected, Request, Sending
from mappings.splunk_oncall.words import (
    ENTRY,
    LONGEST,
    LONGEST_MESSAGE,
    ROUTE,
    is_failure,
    reason,
    scattered,
    shortened,
)

PATH = "/integrations/generic/20131114/alert"
KEY = "{credential}"
"""Stands for the API key in a path until the request is sent, and wherever it is shown."""
LONGEST_KEY = 512
NOTED = {"state_message": LONGEST_MESSAGE, "ack_msg": LONGEST}
"""The fields that hold a comment, and their most characters."""


def fitted_key(key: str) -> str:
    """Returns a key that Splunk On-Call takes whole: a longer one is cut."""
    return key if len(key) <= LONGEST_KEY else cut_key(key, LONGEST_KEY)


def fitted_route(route: str) -> str:
    """Returns a routing key that can be a part of a path. What would address something else becomes none: the account's
    default route takes the alert, which could not be sent at all otherwise."""
    return "" if route in (".", "..") else route


def authorise(request: Request, credential: str) -> Request:
    """Puts the API key into the path."""
    return msgspec.structs.replace(request, path=request.path.replace(KEY, credential, 1))


def _post(fields: Mapping[str, Json], sending: Sending, entity: str | None = None) -> Call:
    """Posts an alert. The routing key is that of the alert; without one the account's default route takes it."""
    route = fitted_route(str(fields.get(ROUTE) or sending.body.get(ROUTE) or ""))
    path = f"{PATH}/{KEY}/{quote(route, safe='')}" if route else f"{PATH}/{KEY}"
    key = sending.key if entity is None else entity
    named = {"entity_id": fitted_key(key)} if key is not None else {}
    texts = {name: text for name in NOTED if isinstance(text := fields.get(name), str)}
    said = {name: shortened(text, NOTED[name]) for name, text in texts.items()}
    answer = yield Request(method="POST", path=path, body=scattered({**fields, **said, **named}))
    if is_failure(answer):
        return Rejected(reason=f"{answer.status} {reason(answer)}".strip())
    cut = [NOTED[name] for name, text in texts.items() if said[name] != text]
    return Delivered(altered={"comment": f"at most {cut[0]:,} characters"} if cut else {})


def _is_entry(sending: Sending) -> bool:
    """Whether a caller of Splunk On-Call made this an entry of the timeline, and the route no more of it: it is about
    an entity, and opens nothing."""
    is_info = str(sending.body.get("message_type")).upper() not in ("CRITICAL", "WARNING")
    return sending.is_akin and is_info and (sending.key or "").endswith(ENTRY)


def _tell(sending: Sending) -> Call:
    entity = (sending.key or "").removesuffix(ENTRY) if _is_entry(sending) else None
    return (yield from _post(sending.body, sending, entity))


def _move(word: str, sending: Sending, at: str) -> Call:
    """Acknowledges or resolves, in the caller's own words if it speaks this dialect; else a comment is put `at` the
    field for it."""
    own = sending.verbatim
    if own is None:
        own = {**_named(sending), **({at: sending.comment} if sending.comment else {})}
    return (yield from _post({**own, "message_type": word}, sending))


def _named(sending: Sending) -> dict[str, Json]:
    """The name that people know the alert by, which is said again, as the page's example does."""
    return {name: sending.body[name] for name in ("entity_display_name",) if name in sending.body}


def _acknowledge(sending: Sending) -> Call:
    return (yield from _move("ACKNOWLEDGEMENT", sending, "ack_msg"))


def _resolve(sending: Sending) -> Call:
    """Resolves. The end of a timeline entry is not told: it would resolve what else is open of its entity."""
    if _is_entry(sending):
        return Delivered()
    return (yield from _move("RECOVERY", sending, "state_message"))


def _note(sending: Sending) -> Call:
    """Adds an entry to the timeline: the caller's own, if it speaks this dialect; else one with the comment."""
    words = {"message_type": "INFO", **_named(sending), "state_message": sending.comment}
    return (yield from _post(words if sending.verbatim is None else sending.verbatim, sending))


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: _tell,
    Operation.UPDATE: _tell,
    Operation.REOPEN: _tell,
    Operation.ACKNOWLEDGE: _acknowledge,
    Operation.RESOLVE: _resolve,
    Operation.COMMENT: _note,
}
