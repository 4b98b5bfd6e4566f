"""Whether an alert wakes somebody: the words in which callers say how bad it is, and what an upstream makes of them.

Urgency decides where a vendor has it, else severity: what is worse than a notice wakes, and so does an alert without
either, as vendors' own defaults do. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from gateway.canonical import Flat
from gateway.config.config import Upstream
from gateway.dialect import Dialect
from gateway.mapping.page import SEVERITY_NAMES
from gateway.mapping.rows import Row
from gateway.mapping.table import Mapping
from gateway.mapping.wire import Wire, get, put

LOUD = ("severity", "urgency")
"""The canonical paths that decide whether an alert wakes somebody."""
QUIETER_THAN = 4
"""The least severity that wakes: a warning. Notices do not."""


def words(dialect: Dialect) -> Iterator[tuple[str, Any]]:
    """Each wire field in which a caller says how bad it is, with each of its values, the worst first; last `""`, for
    saying nothing."""
    found: dict[str, list[Any]] = {}
    for entry, leaf in places(dialect.mapping):
        known = _values(dialect.mapping.wire, leaf) or list(entry.scale.codes if entry.scale else ())
        found[leaf] = found.get(leaf) or known
    for field, values in found.items():
        yield from ((field, value) for value in sorted(values, key=partial(_severity, dialect, field)))
    yield "", None


def places(mapping: Mapping) -> Iterator[tuple[Row, str]]:
    """The rows that say how bad it is, each with the wire field, or the label, where it says so."""
    for entry in mapping.rows:
        for path in set(entry.paths) & set(LOUD) if entry.side != "reply" else ():
            yield entry, entry.homes.get(path, entry.wires)[0]


def _severity(dialect: Dialect, field: str, value: Any) -> int:
    """The severity that a value of a wire field means; the least where it means none."""
    meant = said(dialect, field, value).get("severity")
    return len(SEVERITY_NAMES) if meant is None else meant


def said(dialect: Dialect, field: str, value: Any) -> Flat:
    """The severity and urgency that a value of a wire field means."""
    wire: Wire = {}
    if not field:
        return {}
    put(wire, field, value)
    return {path: found for path, found in dialect.mapping.meaning(wire).items() if path in LOUD}


@cache
def _values(wire: type[Struct], leaf: str) -> list[Any]:
    """The closed list of values that the type of a wire field has, empty if none; cached, as each route asks for it."""
    kind: Any = msgspec.inspect.type_info(wire)
    for name in leaf.split("."):
        structs = [one for one in _alternatives(kind) if isinstance(one, msgspec.inspect.StructType)]
        if not structs:
            return []
        kind = next(one.type for one in structs[0].fields if one.encode_name == name)
    found: list[Any] = []
    for one in _alternatives(kind):
        if isinstance(one, msgspec.inspect.LiteralType):
            found += one.values
        elif isinstance(one, msgspec.inspect.IntType) and one.ge is not None and one.le is not None:
            found += range(one.ge, one.le + 1)
    return found


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return tuple(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def loudness(upstream: Upstream, body: Wire) -> str:
    """The fields of a body that say how bad it is, in the upstream's own words."""
    leaves = dict.fromkeys(leaf for _, leaf in places(upstream.destination.mapping))
    found = {leaf: get(body, leaf) for leaf in leaves}
    return ", ".join(f"{leaf} {value}" for leaf, value in found.items() if value not in (UNSET, None))


def wakes(upstream: Upstream, body: Wire) -> bool | None:
    """Whether an upstream that is sent this body wakes somebody; None where a rule's own channels decide that."""
    mapping = upstream.destination.mapping
    if upstream.dialect.kind == "rule":
        return None
    meant = {**mapping.implied, **mapping.meaning(body)}
    if meant.get("urgency") is not None:
        return bool(meant["urgency"] == "high")
    severity = meant.get("severity")
    return severity is None or severity <= QUIETER_THAN


def verdict(upstream: Upstream, body: Wire) -> str:
    """The result of `wakes` in words."""
    return {True: "wakes", False: "wakes nobody", None: "a rule: its own channels notify when it fires"}[
        wakes(upstream, body)
    ]
