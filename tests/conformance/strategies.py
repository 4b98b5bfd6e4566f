"""Hypothesis strategies for wire objects of any dialect, made from its structs: what a caller could send, valid or not.

Types, enumerations and bounds come from the msgspec structs; the words of fields that a struct leaves open come from
the scales of the rows and from the documented samples. No dialect is named here.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from hypothesis import strategies as st
from msgspec import Meta, Struct, UnsetType
from msgspec.structs import FieldInfo, fields

from gateway.asked import Command
from gateway.dialect import Dialect
from gateway.errors import Problem
from gateway.examples import examples
from gateway.mapping.table import Mapping
from gateway.registry import dialects
from tests.conformance.samples import CREATES, alone, bare, incoming, route_of

TEXT = st.text(max_size=12)
NUMBER = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False).map(lambda value: round(value, 3))
WHOLE = st.integers(-(2**53), 2**53)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ODDITIES: tuple[Any, ...] = (
    *(None, True, -1, 3.5, 2**63, -(2**63) - 1, 1e300),
    *("", "\x00", "\ud7ff", "word", "x" * 5000),
    *([], {}, [[]], [{}], [None], ["word"], {"": None}, {"type": 1}),
)
ODD: st.SearchStrategy[Any] = JSON | st.sampled_from(ODDITIES)


def of_type(kind: Any, samples: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Makes values of a struct field's type, some of them from `samples`."""
    known = [sample for sample in samples if _fits(sample, kind)]
    made = _made(kind, samples)
    return st.sampled_from(known) | made if known else made


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _made(kind: Any, samples: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        return _bounded(base, [note for note in notes if isinstance(note, Meta)])
    if get_origin(kind) in (Union, types.UnionType):
        choices = [choice for choice in get_args(kind) if choice is not UnsetType]
        return st.one_of([of_type(choice, samples) for choice in choices])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is list:
        items = tuple(item for sample in samples if isinstance(sample, list) for item in sample)
        return st.lists(of_type(get_args(kind)[0], items), max_size=3)
    if get_origin(kind) is dict:
        return st.dictionaries(TEXT, of_type(get_args(kind)[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return objects(kind, tuple(sample for sample in samples if isinstance(sample, dict)))
    simple = {str: TEXT, int: WHOLE, float: NUMBER, bool: st.booleans(), type(None): st.none(), Any: JSON}
    return simple[kind]


def _bounded(base: Any, notes: list[Meta]) -> st.SearchStrategy[Any]:
    if base is str:
        return st.text(min_size=max(note.min_length or 0 for note in notes), max_size=12)
    lows = [note.ge for note in notes if note.ge is not None]
    highs = [note.le for note in notes if note.le is not None]
    if base is float:
        return st.floats(max(lows, default=-1e15), min(highs, default=1e15))
    if base is int:
        return st.integers(int(max(lows, default=-(2**53))), int(min(highs, default=2**53)))
    raise TypeError(f"no strategy for {base} with bounds")


def objects(
    wire: type[Struct], samples: tuple[dict[str, Any], ...], words: dict[str, tuple[Any, ...]] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """Makes objects of a struct; a field named in `words` takes only those values, or is left out if there are none."""
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for item in fields(wire):
        name = item.encode_name
        if words and name in words:
            values = st.sampled_from(words[name]) if words[name] else None
        else:
            values = of_type(item.type, tuple(sample[name] for sample in samples if name in sample))
        if values is not None:
            (required if item.required else optional)[name] = values
    return st.fixed_dictionaries(required, optional=optional)


def _words(dialect: Dialect, samples: tuple[dict[str, Any], ...]) -> dict[str, tuple[Any, ...]]:
    """Returns the values of fields that the struct leaves open, from scales and from the documented samples.

    Fields that the vendor sets have none, as callers do not send them.
    """
    mapping: Mapping = dialect.mapping
    words: dict[str, tuple[Any, ...]] = {}
    open_text = {item.encode_name for item in fields(mapping.wire) if _is_open_text(item)}
    for row in mapping.rows:
        if row.side == "reply":
            words.update(dict.fromkeys(row.wires, ()))
        elif row.scale and row.wires[0] in open_text:
            words[row.wires[0]] = tuple(row.scale.codes)
    for drop in mapping.dropped:
        values = [sample[drop.wire] for sample in samples if drop.wire in sample]
        words[drop.wire] = tuple({msgspec.json.encode(value): value for value in values}.values())
    return words


def _is_open_text(item: FieldInfo) -> bool:
    return get_origin(item.type) not in (dict, list) and str in (item.type, *get_args(item.type))


@functools.cache
def alerts(name: str) -> st.SearchStrategy[tuple[dict[str, Any], Command]]:
    """Makes valid creating bodies of a dialect, without envelope, each with the command that it is read as."""
    dialect = dialects()[name]
    samples = tuple(bare(dialect, example.request.body) for origin, example in CREATES if origin == name)
    example = next(example for example in examples(name) if (name, example) in CREATES)
    route, documented = route_of(dialect, example), bare(dialect, example.request.body)
    known = objects(dialect.mapping.wire, samples, _words(dialect, samples))
    unknown = st.dictionaries(TEXT.map(lambda text: f"x-{text}"), JSON, max_size=1)

    def read(body: dict[str, Any]) -> tuple[dict[str, Any], Command] | None:
        body = msgspec.json.decode(msgspec.json.encode(body))
        try:
            command = alone(route.read(incoming({}, _as_documented(example.request.body, documented, body))))
        except Problem:
            return None
        assert isinstance(command, Command)
        return body, command

    merged = st.tuples(unknown, known).map(lambda both: {**both[0], **both[1]})
    return merged.map(read).filter(lambda made: made is not None)  # type: ignore[return-value]


def _as_documented(whole: Any, documented: dict[str, Any], body: dict[str, Any]) -> Any:
    """Returns the documented body with `body` in place of its alert, if that is in a list; else `body` alone."""
    if isinstance(whole, list):
        return [body if item == documented else item for item in whole]
    found = whole.items() if isinstance(whole, dict) else ()
    held = [name for name, inner in found if isinstance(inner, list) and documented in inner]
    return {**whole, held[0]: _as_documented(whole[held[0]], documented, body)} if held else body


@st.composite
def mutated(draw: st.DrawFn, body: Any) -> Any:
    """Makes a documented body with one or two places of it removed, doubled, or replaced by something odd."""
    body = msgspec.json.decode(msgspec.json.encode(body))
    places = list(_places(body))
    for path in draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        body = _changed(draw, body, path)
    return body


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _places(item, (*path, key))


def _changed(draw: st.DrawFn, value: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return draw(ODD)
    head, *rest = path
    if not isinstance(value, dict | list) or (isinstance(value, dict) and head not in value):
        return value
    if isinstance(value, list) and not (isinstance(head, int) and head < len(value)):
        return value
    if not rest and draw(st.booleans()):
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if key != head}
        return [*value, *value]
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    changed[head] = _changed(draw, value[head], tuple(rest))
    return changed


def every_mutation(body: Any) -> Iterator[Any]:
    """Yields a body with each of its places in turn removed, or replaced by each oddity."""
    for path in _places(body):
        for odd in ODDITIES:
            yield _with(body, path, odd)
        if path:
            yield _without(body, path)


def _with(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = _with(value[path[0]], path[1:], odd)
    return changed


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = _without(value[path[0]], path[1:])
    return changed
