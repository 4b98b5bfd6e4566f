"""The callers' side of a described dialect: reads their requests, answers them, and words problems.

It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from msgspec import UNSET, Struct

from gateway.asked import Answer, Batch, Command, Incoming, Ref, Reply
from gateway.asking import each, in_place
from gateway.canonical import Operation
from gateway.config.values import is_address
from gateway.errors import USUAL_STATUS, Problem, invalid
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.table import Reading
from gateway.mapping.wire import Wire, copied, get, put, remove
from gateway.outcome import Json
from gateway.own.words import Standing

log = structlog.get_logger()
LONGEST_ADDRESS = 4096
"""Characters of an address to be confirmed; a longer text is no address, and would fill the log."""


class Taken(Struct, kw_only=True):
    """The answer to a request that was taken, unless the description has another."""

    status: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads bodies with the rows of a description. `standing` tells the operation, `key` are the places of the alert's
    key, each of `demanded` is a group of places, one of which a new alert must have; `opened` finds the body in a
    request, `parted` returns the requests that one with several alerts stands for. `confirm` is the place of the
    address in a body that is no alert but asks for a confirmation. `identity`: see `Envelope`."""

    rows: Rows
    standing: Standing | None
    key: tuple[str, ...]
    demanded: tuple[tuple[str, ...], ...]
    opened: Callable[[Incoming], Wire]
    parted: Callable[[Incoming], tuple[Incoming, ...] | None] = lambda incoming: None
    confirm: str = ""
    identity: Callable[[Wire], str] | None = None

    def read(self, incoming: Incoming) -> Command | Batch | Reply:
        """Returns the command in a request, or a batch where it has several alerts; a success where it only asks for a
        confirmation."""
        address = get(incoming.body, self.confirm) if self.confirm and isinstance(incoming.body, dict) else UNSET
        if isinstance(address, str) and len(address) <= LONGEST_ADDRESS and is_address(address, is_whole=True):
            return _to_be_opened(address)
        parts = self.parted(incoming)
        if parts is None:
            return self.command(self.opened(incoming))
        return each(parts, lambda part: self.command(self.opened(part)))

    def command(self, body: Wire) -> Command:
        """Returns the command in a body. Of an acknowledgement or a resolve only the key and the status are read: what
        else a sender repeats there need not be valid for a new alert."""
        control = self.rows.read(self._control(body), partial=True)
        operation = self._operation(body)
        if operation is Operation.CREATE:
            return self._create(self.rows.read(body), body)
        key = control.flat.get("dedup_key")
        if not key:
            place = self.key[0] if self.key or not self.standing else self.standing.at
            raise invalid(
                place,
                f"is required to {operation} an alert"
                if self.key
                else "ends or acknowledges an alert, but no field says which",
            )
        return Command(
            operation=operation,
            ref=Ref(key=key),
            comment=self._comment(body),
            verbatim=self._own_words(body),
            dropped=control.dropped,
        )

    def _control(self, body: Wire) -> Wire:
        """Returns the part of a body that tells the operation and the alert's key."""
        found: Wire = {}
        for place in (*self.key, *(drop.wire for drop in self.rows.dropped)):
            value = get(body, place)
            if value is not UNSET:
                put(found, place, value)
        return found

    def _operation(self, body: Wire) -> Operation:
        said = get(body, self.standing.at) if self.standing else UNSET
        if self.standing is None or said in (UNSET, None, ""):
            return Operation.CREATE
        try:
            return self.standing.operation(said)
        except ValueError as error:
            raise invalid(self.standing.at, str(error)) from None

    def _create(self, reading: Reading, body: Wire) -> Command:
        for places in self.demanded:
            if all(get(reading.verbatim, place) in (UNSET, None, "") for place in places):
                raise invalid(places[0], "is required")
        patch = reading.flat
        if self.identity is not None and self.key and not patch.get("dedup_key"):
            patch = {**patch, "dedup_key": self.identity(body)}
        return Command(
            operation=Operation.CREATE,
            patch=patch,
            verbatim=reading.verbatim,
            reading=reading,
            dropped=reading.dropped,
            carried=reading.carried,
            invents_key=bool(self.key),
            amend=in_place(reading),
        )

    def _own_words(self, body: Wire) -> Wire:
        words: Wire = copied(body)
        for drop in self.rows.dropped:
            if drop.control:
                remove(words, drop.wire)
        return words

    def _comment(self, body: Wire) -> str:
        place = self.rows.holder("summary")
        said = get(body, place) if place else UNSET
        return said if isinstance(said, str) else ""


def _to_be_opened(address: str) -> Reply:
    """Says in the log which address a caller wants opened. It is for people to open: a gateway that did could be had to
    ask anybody."""
    log.warning(
        "caller.confirm", address=address, hint="open this address once if you expect it: nothing is sent here before"
    )
    return Reply(200, {"status": "noted"})


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What callers are answered: in the texts of the body `{id}` stands for the alert's id, `{key}` for its key."""

    status: int = 202
    body: Json = field(default_factory=lambda: {"status": "accepted", "id": "{id}"})

    def answer(self, found: Answer) -> Reply:
        """The answer to a request that was accepted."""
        known = str(found.shown.id if found.shown else found.request)
        key = (
            found.key if found.key is not None else str(found.shown.flat.get("dedup_key") or "") if found.shown else ""
        )
        return Reply(self.status, UNSET if self.status == 204 else _filled(self.body, {"{id}": known, "{key}": key}))


def _filled(value: Any, blanks: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, blanks) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, blanks) for inner in value]
    if isinstance(value, str):
        for blank, filling in blanks.items():
            value = value.replace(blank, filling)
    return value


def problem(found: Problem) -> Reply:
    """A problem, as every described dialect words it."""
    return Reply(USUAL_STATUS[found.kind], {"error": {"code": found.kind.value, "message": found.message}})


def challenged(found: Problem) -> Reply:
    """The same where callers show a user and a password: some send them only when they are asked to."""
    reply = problem(found)
    return msgspec.structs.replace(reply, headers={"WWW-Authenticate": "Basic"}) if reply.status == 401 else reply
