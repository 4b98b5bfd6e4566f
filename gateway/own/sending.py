"""The upstream side of a described dialect: one request per operation, and the reason in a refusal.

Every 2xx is success, unless a description says otherwise; what any other answer means is for the engine to judge. It
must not know any vendor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, structs

from gateway.canonical import Operation
from gateway.dialect import Seal, segment
from gateway.mapping.rows import Row, Writing
from gateway.mapping.wire import Wire, copied, get, merged, put
from gateway.outcome import Again, Call, Delivered, Json, Rejected, Request, Response, Sending
from gateway.own.opening import Opening
from gateway.own.places import in_the_way
from gateway.own.shaping import shaped, slots
from gateway.own.words import Standing, listed, spelled

LONGEST_REASON = 200
TELLING = ("error", "errors", "message", "detail", "description", "title", "reason", "errmsg", "msg")
"""The fields in which vendors say what is wrong; the first that is there counts."""
ENDING = (Operation.ACKNOWLEDGE, Operation.RESOLVE)
"""The operations whose request need not say what the alert is."""
OPERATIONS = (Operation.CREATE, Operation.UPDATE, Operation.REOPEN, *ENDING)
"""All operations that a description can have a word or a path for."""
IN_ID = "{id}"
"""The placeholder in a path for the id that the vendor gave an alert."""


def plainly(request: Request, body: dict[str, Json], sending: Sending, mode: str) -> Request:
    """Puts a body into a request as it is: for dialects without an envelope."""
    return Request(method=request.method, path=request.path, body=body, headers=request.headers)


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Sends alerts as a description says. `key` is the row of the alert's key; `constants` are values that are always
    written, by place; `paths` and `methods` are those of operations that have their own; `id` is the place, in the
    answer to a create, of the id that later paths need; `shape` is the template that the body is made into; `success`
    are the values that an answer must have, by place; `again` are values by place of which any one means that the
    request is to be tried again; `redirects` are the statuses that mean that it was taken."""

    standing: Standing | None
    key: Row | None
    constants: Mapping[str, Json]
    method: str
    path: str
    paths: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    sealed: Seal = plainly
    mode: str = ""
    opening: Opening = field(default_factory=Opening)
    shape: Mapping[str, Json] = field(default_factory=dict)
    success: Mapping[str, Any] = field(default_factory=dict)
    again: Mapping[str, Any] = field(default_factory=dict)
    redirects: frozenset[int] = frozenset()

    def calls(self) -> dict[Operation, Callable[[Sending], Call]]:
        """Returns a call for each operation that the vendor has a word or a path for."""
        return {operation: functools.partial(self._call, operation) for operation in OPERATIONS if self._has(operation)}

    def _has(self, operation: Operation) -> bool:
        """Whether there is a word or a path for an operation. A create can always be sent, and so can an update, as it
        may be what brings an alert there."""
        if operation in (Operation.CREATE, Operation.UPDATE):
            return True
        if self.id or operation in self.paths:
            return operation in self.paths
        return operation not in ENDING or bool(self.standing and self.standing.words(operation))

    def uses_key(self) -> bool:
        """Whether requests contain anything of the alert's key: a `shape` need not."""
        paths = (self.path, *self.paths.values())
        places = [] if self.key is None else self.key.wires
        is_in_shape = any(in_the_way(place, list(slots(self.shape))) for place in places)
        return not self.shape or is_in_shape or any("{key}" in path for path in paths)

    def _call(self, operation: Operation, sending: Sending) -> Call:
        written = self.paths.get(operation, self.path)
        path = written.replace("{key}", segment(sending.key or ""))
        path = path.replace(IN_ID, segment(sending.ids.get("id", IN_ID)))
        method = self.methods.get(operation, self.method)
        request = Request(method=method, path=path, headers=self.headers)
        mode = getattr(sending.settings, "mode", None) or self.mode
        request = self.sealed(request, self.body(operation, sending), sending, mode)
        makes = bool(self.id) and operation is Operation.CREATE
        body = UNSET if method == "DELETE" else request.body
        of_one = "{key}" in written or IN_ID in written
        response = yield structs.replace(request, creates=makes, body=body, accepts=self.redirects, of_one=of_one)
        if response.status in self.redirects:
            return Delivered()
        if busy := self._busy(response):
            return Again(reason=busy)
        wrong = self._wrong(response)
        if wrong or not makes:
            return Rejected(reason=wrong) if wrong else Delivered()
        found = get(response.json(), self.id)
        if (
            found == "" or not isinstance(found, str | int) or isinstance(found, bool)
        ):  # not tried again: it would be there twice
            return Rejected(reason=f"the answer has no id at {self.id}: {reason(response)}".removesuffix(": "))
        return Delivered(ids={"id": str(found)})

    def _busy(self, response: Response) -> str:
        """Returns why a request that was answered with success by its status alone is to be tried again; empty if it is
        not."""
        body = response.json() if self.again else None
        for place, words in self.again.items():
            found = get(body, place)
            if found is not UNSET and spelled(found) in map(spelled, listed(words)):
                return f"{place} is {spelled(found)[:64]} in the answer: {reason(response)}".removesuffix(": ")
        return ""

    def _wrong(self, response: Response) -> str:
        """Returns what is wrong with an answer that is a success by its status alone; empty if nothing is."""
        body = response.json() if self.success else None
        for place, wanted in self.success.items():
            found = get(body, place)
            if found is UNSET or spelled(found) not in map(spelled, listed(wanted)):
                shown = "missing" if found is UNSET else spelled(found)[:64]
                return f"{place} is {shown} in the answer: {reason(response)}".removesuffix(": ")
        return ""

    def body(self, operation: Operation, sending: Sending) -> dict[str, Json]:
        """Returns the body in the vendor's shape, with the constants."""
        body = self.said(operation, sending)
        body = shaped(self.shape, body) if self.shape else self.opening.listed(body)
        for place, value in self.constants.items():
            if get(body, place) is UNSET:
                put(body, place, copied(value))
        return body if self.shape else self.opening.packed(body)

    def said(self, operation: Operation, sending: Sending) -> Wire:
        """Returns the alert, or the caller's own words for an acknowledgement or a resolve, with the key and the word
        for the operation. Where there is a `shape`, those words are laid over the whole alert, as a template may need
        any of it."""
        own = sending.verbatim if operation in ENDING else None
        if own is not None and self.shape:
            own = merged(sending.body, own)
        body: Wire = copied(own if own is not None else sending.body)
        if sending.key is not None and self.key:
            for place, value in zip(self.key.wires, self._key(self.key, sending.key), strict=True):
                if spelled(get(body, place)) != spelled(value):
                    put(body, place, value)
        self._say_what(body, operation)
        return body

    def _key(self, row: Row, key: str) -> tuple[Any, ...]:
        written = row.write(Writing(), *(key, *[UNSET] * (len(row.paths) - 1)))
        return tuple(row.fitted(value) for value in written)

    def _say_what(self, body: dict[str, Json], operation: Operation) -> None:
        """Writes the word for the operation; the caller's own word stays where it means the same."""
        if self.standing is None:
            return
        said = get(body, self.standing.at)
        if not self.standing.words(operation):  # the path says it
            return
        wanted = operation if operation in ENDING else Operation.CREATE
        if not isinstance(said, str | int | float | bool) or self._meant(self.standing, said) is not wanted:
            put(body, self.standing.at, self.standing.words(operation)[0])

    def _meant(self, standing: Standing, said: Any) -> Operation | None:
        try:
            return standing.operation(said)
        except ValueError:
            return None


def reason(response: Response) -> str:
    """Returns the reason in a refusal, as most vendors give it: a text, or a list of them, under one of a few names."""
    body = response.json()
    if body is None:
        text = response.content.decode("utf8", "replace").strip()
        return "" if text.startswith("<") else text[:LONGEST_REASON]
    return _told(body)[:LONGEST_REASON]


def _told(value: Any, depth: int = 3) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "; ".join(filter(None, (_told(inner, depth - 1) for inner in value[:5])))
    if isinstance(value, dict) and depth:
        said = (_told(value[name], depth - 1) for name in TELLING if name in value)
        return next(filter(None, said), "")
    return ""
