"""The documented samples as the gateway reads them, and the destinations they are sent to.

Everything comes from the registry and the shipped examples: no dialect is named here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import msgspec

from gateway.asked import Batch, Command, Incoming
from gateway.canonical import Flat, Operation, checked, flatten, in_order, unflatten
from gateway.config.loading import parse
from gateway.dialect import Dialect, Route
from gateway.examples import Example, examples
from gateway.mapping.carry import restore
from gateway.mapping.saying import Destination, Saying
from gateway.mapping.table import Mapping
from gateway.registry import dialects
from tests.harness import inbound_tables, upstream_table

NAMES = tuple(dialects())
PAIRS = tuple((one, other) for one in NAMES for other in NAMES)
NOW = datetime(2024, 1, 1, tzinfo=UTC)
MADE_UP_KEY = "0" * 32
SAMPLES = tuple((name, example) for name in NAMES for example in examples(name))
CREATES = tuple((name, example) for name, example in SAMPLES if example.operation is Operation.CREATE)


def sample_id(value: Any) -> str | None:
    """Names a sample in the output of pytest."""
    return value.name if isinstance(value, Example) else None


def mappings_of(dialect: Dialect) -> list[Mapping]:
    """Returns every mapping of a dialect's module: that of its upstreams, and those used only for answers."""
    found = vars(import_module(f"mappings.{dialect.name}")).values()
    return [dialect.mapping, *(each for each in found if isinstance(each, Mapping) and each is not dialect.mapping)]


def route_of(dialect: Dialect, example: Example) -> Route:
    """Returns the route that serves a documented request."""
    wanted = (example.request.method, example.request.path.strip())
    [route] = [route for route in dialect.routes if (route.method, route.path) == wanted]
    return route


def incoming(params: dict[str, str], body: Any, headers: dict[str, str] | None = None) -> Incoming:
    """Returns a request as dialects see it."""
    named = {name.lower(): value for name, value in (headers or {}).items()}
    return Incoming(params=params, query={}, headers=named, body=body, now=NOW)


def asked(name: str, example: Example) -> Any:
    """Returns what a documented request asks for: of a batch, its only command."""
    dialect = dialects()[name]
    sent = example.request
    return alone(route_of(dialect, example).read(incoming(sent.params, sent.body, sent.headers)))


def alone(wants: Any) -> Any:
    """Returns the only command of a batch, besides those that are nothing where their alert is not open, and anything
    else as it is; raises the batch's first problem."""
    if not isinstance(wants, Batch):
        return wants
    for problem in wants.problems:
        raise problem
    [command] = [one for one in wants.commands if not one.only_open]
    return command


def alert_of(dialect: Dialect, command: Command) -> Flat:
    """Returns the canonical alert that a creating command makes, as the gateway keeps it."""
    said = {**{hint.path: hint.value for hint in command.hints}, **command.patch}
    whole = {"kind": dialect.kind, **restore(said, command.carried)}
    return in_order({**whole, "status": "firing", "created_at": NOW, "updated_at": NOW})


def can_be_cleared(path: str) -> bool:
    """Returns whether a canonical path can hold null."""
    try:
        return checked({path: None}) == {path: None}
    except msgspec.ValidationError:
        return False


def nested(flat: Flat) -> Any:
    """Returns a flat alert as the canonical struct, for files that people read."""
    return unflatten(flat)


def normal(flat: Flat) -> Flat:
    """Returns a flat alert after conversion to the canonical struct and back."""
    return flatten(unflatten(flat))


@functools.cache
def destination(name: str) -> Destination:
    """Returns an upstream of a dialect, with the defaults with which it accepts an alert of any other."""
    table = upstream_table("there", name, "http://127.0.0.1:9")
    return parse(f"{inbound_tables()}\n{table}").upstreams["there"].destination


def saying(flat: Flat, origin: str, target: Destination, **more: Any) -> Saying:
    """Returns an alert on its way to a destination, under the key that it has there."""
    by_key = target.dialect.outbound.addressed_by == "key"
    key = flat.get("dedup_key") or MADE_UP_KEY if by_key else None
    return Saying(flat=flat, origin=origin, caller="ci", key=key, at=NOW, **more)


def wire_samples(name: str) -> Iterator[tuple[Mapping, dict[str, Any], str]]:
    """Yields every documented wire object of a dialect with its side: `request`, sent by callers, or `reply`, shown by
    the vendor."""
    dialect = dialects()[name]
    for example in examples(name):
        if example.operation is Operation.CREATE:
            yield dialect.mapping, bare(dialect, example.request.body), "request"
        if example.reply is not None:
            for shown in _objects(dialect, example.reply.body):
                yield dialect.mapping, shown, "reply"


def bare(dialect: Dialect, body: Any) -> dict[str, Any]:
    """Returns the alert in a documented body, without envelope: the object that has the dialect's required fields."""
    [found] = list(_objects(dialect, body)) or [{}]
    return found


def _objects(dialect: Dialect, body: Any) -> Iterator[dict[str, Any]]:
    required = {leaf.encode_name for leaf in _fields(dialect) if leaf.required}
    if isinstance(body, dict) and required <= body.keys():
        yield body
    elif isinstance(body, dict | list):
        for inner in body.values() if isinstance(body, dict) else body:
            yield from _objects(dialect, inner)


def _fields(dialect: Dialect) -> Any:
    from msgspec.structs import fields

    return fields(dialect.mapping.wire)
