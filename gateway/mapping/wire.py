"""Plain JSON objects addressed by dotted path, and the paths of the structs that describe them.

It knows nothing of alerts: `mapping` gives these paths their meaning.
"""

from __future__ import annotations

import functools
from typing import Any, get_args, get_origin

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import fields as struct_fields

Wire = dict[str, Any]


def get(wire: Any, path: str) -> Any:
    """The value at a path, or `UNSET`."""
    if "." not in path:
        return wire.get(path, UNSET) if isinstance(wire, dict) else UNSET
    for part in path.split("."):
        if not isinstance(wire, dict) or part not in wire:
            return UNSET
        wire = wire[part]
    return wire


def put(wire: Wire, path: str, value: Any) -> None:
    """Sets the value at a path; objects on the way are made."""
    if "." not in path:
        wire[path] = value
        return
    *way, last = path.split(".")
    for part in way:
        inner = wire.get(part)
        if not isinstance(inner, dict):
            inner = wire[part] = {}
        wire = inner
    wire[last] = value


def remove(wire: Wire, path: str) -> None:
    """Removes the value at a path, and objects that this leaves empty."""
    first, dot, rest = path.partition(".")
    inner = wire.get(first)
    if not dot:
        wire.pop(first, None)
    elif isinstance(inner, dict):
        remove(inner, rest)
        if not inner:
            del wire[first]


def without(wire: Wire, path: str) -> Wire:
    """A copy without the value at a path, and without objects that this leaves empty. The original is not changed; what
    stays is shared with it."""
    first, dot, rest = path.partition(".")
    if first not in wire:
        return wire
    if not dot:
        return {key: value for key, value in wire.items() if key != first}
    inner = wire[first]
    left = without(inner, rest) if isinstance(inner, dict) else inner
    if left is inner:
        return wire
    return {key: left if key == first else value for key, value in wire.items() if key != first or left}


def copied(value: Any) -> Any:
    """A deep copy of plain JSON."""
    if isinstance(value, dict):
        return {key: copied(inner) if isinstance(inner, dict | list) else inner for key, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value


def merged(below: Any, above: Any) -> Any:
    """Merges `above` over `below`: objects key by key, lists of equal length item by item, else `above` wins."""
    if isinstance(below, dict) and isinstance(above, dict):
        result = dict(below)
        for key, value in above.items():
            result[key] = merged(below[key], value) if key in below else value
        return result
    if isinstance(below, list) and isinstance(above, list) and len(below) == len(above):
        return [merged(low, high) for low, high in zip(below, above, strict=True)]
    return above


def completed(whole: Any, rest: Any) -> Any:
    """Puts what `unknown` found back into its places. A list of another length has been replaced since, and stays as
    it is: what was found belongs to none of its items."""
    if isinstance(whole, dict) and isinstance(rest, dict):
        return {
            **whole,
            **{key: completed(whole[key], value) if key in whole else value for key, value in rest.items()},
        }
    if isinstance(whole, list) and isinstance(rest, list) and len(whole) == len(rest):
        return [completed(item, more) for item, more in zip(whole, rest, strict=True)]
    return whole


def leaves(wire: type[Struct], prefix: str = "") -> list[str]:
    """Every wire path of a struct, down through nested structs; a list of structs is one leaf."""
    paths: list[str] = []
    for item in struct_fields(wire):
        inner = _struct_in(item.type)
        name = prefix + item.encode_name
        paths += leaves(inner, name + ".") if inner else [name]
    return paths


def is_of_type(value: Any, wire: type[Struct], path: str) -> bool:
    """Whether a value has the type that a struct has at a path."""
    first, dot, rest = path.partition(".")
    kind = next((item.type for item in struct_fields(wire) if item.encode_name == first), Any)
    inner = _struct_in(kind) if dot else None
    if inner is not None:
        return is_of_type(value, inner, rest)
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def names(wire: type[Struct]) -> frozenset[str]:
    """The top-level wire names of a struct."""
    return frozenset(wire.__struct_encode_fields__)


def without_surplus(raw: Wire, known: frozenset[str], most: int) -> tuple[Wire, int]:
    """A wire object without those top-level fields that are not `known` and more than `most`, and how many they are."""
    if len(raw) <= most:
        return raw, 0
    surplus = frozenset([name for name in raw if name not in known][most:])
    return {name: value for name, value in raw.items() if name not in surplus}, len(surplus)


def unknown(raw: Wire, wire: type[Struct]) -> Wire:
    """The part of an object that its struct does not describe, in the same places; list items without such a part are
    empty objects."""
    plain = _plain(wire)
    if raw.keys() <= plain:
        return {}
    found: Wire = {}
    described = _described(wire)
    for key, value in raw.items():
        if key in plain:
            continue
        if key not in described:
            found[key] = value
            continue
        inside, items = described[key]
        if inside and isinstance(value, dict):
            if rest := unknown(value, inside):
                found[key] = rest
        elif (inner := items) and isinstance(value, list):
            rests = [unknown(item, inner) if isinstance(item, dict) else {} for item in value]
            if any(rests):
                found[key] = rests
    return found


@functools.cache
def _described(wire: type[Struct]) -> dict[str, tuple[type[Struct] | None, type[Struct] | None]]:
    """Each wire name of a struct, with the struct of its value, and that of the items of its list, if any."""
    return {item.encode_name: (_struct_in(item.type), _item_struct_in(item.type)) for item in struct_fields(wire)}


@functools.cache
def _plain(wire: type[Struct]) -> frozenset[str]:
    """The wire names of a struct whose values are not described by further structs."""
    return frozenset(name for name, (inside, items) in _described(wire).items() if not inside and not items)


def partial_of(wire: type[Struct]) -> type[Struct]:
    """The same struct with every field optional, as an update sends it; objects inside are sent whole."""
    described = [(item.name, item.type | UnsetType, UNSET) for item in struct_fields(wire)]
    rename = {item.name: item.encode_name for item in struct_fields(wire)}
    return msgspec.defstruct(f"Partial{wire.__name__}", described, rename=rename, kw_only=True)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is not list and get_args(kind) else (kind,)


def _struct_in(kind: Any) -> type[Struct] | None:
    if not any(other in (str, int, dict, list) for other in _alternatives(kind)):
        for choice in _alternatives(kind):
            if isinstance(choice, type) and issubclass(choice, Struct):
                return choice
    return None


def _item_struct_in(kind: Any) -> type[Struct] | None:
    for choice in _alternatives(kind):
        if get_origin(choice) is list:
            return _struct_in(get_args(choice)[0])
    return None
