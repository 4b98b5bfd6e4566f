"""Laws of rows: every wire leaf has one, tables are total and keep order, reading back what was written settles, and
changing one wire leaf changes exactly the canonical paths that its row declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Struct
from msgspec.structs import fields

from gateway.canonical import Alert, Condition, Flat
from gateway.errors import Problem
from gateway.mapping.rescaling import with_scale
from gateway.mapping.rows import Dropped, Row, Unmet, Writing, row
from gateway.mapping.table import Mapping
from gateway.mapping.wire import Wire, copied, get, leaves, put, remove
from gateway.registry import dialects
from tests.conformance.samples import NAMES, destination, mappings_of, normal, wire_samples
from tests.conformance.strategies import alerts


def _closed(struct: type[Struct], prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """Returns the canonical paths with a closed list of values, and those values."""
    found = {}
    for name, kind in get_type_hints(struct).items():
        for choice in (kind, *get_args(kind)):
            if get_origin(choice) is Literal:
                found[prefix + name] = get_args(choice)
    return found


CLOSED = {"severity": tuple(range(8)), **_closed(Alert), **_closed(Condition, "condition.")}
MAPPINGS = [
    pytest.param(mapping, id=f"{name}-{mapping.wire.__name__}")
    for name in NAMES
    for mapping in mappings_of(dialects()[name])
]
SAMPLES = [
    pytest.param(mapping, body, side, id=f"{name}-{side}-{number}")
    for name in NAMES
    for number, (mapping, body, side) in enumerate(wire_samples(name))
]


# --- every leaf has one row ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_wire_leaf_has_one_principal_row(mapping: Mapping) -> None:
    for leaf in leaves(mapping.wire):
        rows = [wire for each in mapping.rows if not each.derived for wire in each.wires]
        owners = [wire for wire in [*rows, *(drop.wire for drop in mapping.dropped)] if _covers(wire, leaf)]
        seconds = [wire for each in mapping.rows if each.derived for wire in each.wires if _covers(wire, leaf)]
        assert len(owners) == 1 or (not owners and len(seconds) == 1), leaf


def _covers(wire: str, leaf: str) -> bool:
    return leaf == wire or leaf.startswith(wire + ".")


class _Two(Struct, kw_only=True):
    one: str
    two: str | None = None


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ((row("one", "summary"),), "two has 0 rows"),
        ((row("one", "summary"), Dropped("one", why="twice"), row("two", "details")), "one has 2 rows"),
        ((row("one", "summary"), row("two", "details"), Dropped("three", why="not there")), "no such wire field"),
        ((row("one", "summary"), row("two", "detail")), "no such canonical path"),
    ],
)
def test_a_table_with_a_fault_is_refused(rows: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Mapping("acme", "occurrence", _Two, rows)


# --- tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_closed_canonical_value_can_be_said(mapping: Mapping) -> None:
    for entry in mapping.rows:
        for path, values in CLOSED.items():
            if entry.paths == (path,):
                for value in values:
                    wires = entry.write(Writing(), value)
                    [back] = entry.read(*wires)
                    assert back in values, f"{value} is written to {entry.wires} as {wires}, which is read as {back}"


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_closed_word_of_the_vendor_is_understood_and_said_again(mapping: Mapping) -> None:
    for item in fields(mapping.wire):
        closed = [kind for kind in _kinds(mapping.wire, item.encode_name) if get_origin(kind) is Literal]
        words = [word for kind in closed for word in get_args(kind)]
        owners = [each for each in mapping.rows if each.wires == (item.encode_name,) and len(each.paths) == 1]
        for entry in owners if all(isinstance(word, str | int) for word in words) else ():
            for word in words:
                [value] = entry.read(word)
                assert value is not UNSET
                [back] = entry.write(Writing(), value)
                assert back == word or entry.read(back) == (value,), (
                    f"{word} of {item.encode_name} comes back as {back}"
                )


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_severities_keep_their_order_and_the_top_goes_to_the_top(mapping: Mapping) -> None:
    for scale in (entry.scale for entry in mapping.rows if entry.scale):
        ranks = [scale.out.index(word) for word in scale.out]
        assert ranks == sorted(ranks)
        assert scale.out[0] == scale.out[1], "the two worst severities have one word"
        for word, code in scale.codes.items():
            assert scale.write(scale.read(word)) == word, f"{word} comes back as another word"
            assert code in scale.same_as(scale.out.index(word))
        for code in range(8):
            assert scale.read(scale.write(code)) in scale.same_as(code)


@pytest.mark.parametrize("name", [name for name in NAMES if dialects()[name].mapping.declares("severity")])
def test_the_words_of_an_upstream_replace_the_vendors(name: str) -> None:
    """`severity = { out, in }` of an upstream: each code is said in its words and understood again, as the code itself
    where the vendor shows that too. Words of the vendor's own keep their meaning."""
    own = dialects()[name].mapping
    words = ("worst",) * 2 + ("bad",) * 3 + ("fair",) * 3
    mapping, as_before = with_scale(own, words, {"fair": 6}), with_scale(own, None, {"fair": 6})
    says_codes = any(row.paths == ("severity",) and not row.derived and not row.scale for row in mapping.rows)
    for code, word in enumerate(words):
        said = mapping.write({"severity": code}, Writing(), partial=True)
        assert f"'{word}'" in str(said)
        assert mapping.meaning(said)["severity"] == (code if says_codes else {"worst": 0, "bad": 2, "fair": 6}[word])
        said = own.write({"severity": code}, Writing(), partial=True)
        assert as_before.meaning(said) == own.meaning(said)
    [out, *_] = [row.scale.out for row in sorted(own.rows, key=lambda row: row.derived) if row.scale]
    with_scale(
        own, (out[0], *out[:7]), {}
    )  # the vendor's own words, shifted: what they meant before is no contradiction


# --- reading what was written --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mapping", "body", "side"), SAMPLES)
def test_a_documented_object_settles(mapping: Mapping, body: Wire, side: Any) -> None:
    read = _read(mapping, body, side)
    if read is None:
        pytest.skip("the page shows a schema here, no value: its empty words mean nothing")
    _settles(mapping, read, side)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_any_object_settles(name: str, data: st.DataObject) -> None:
    body, _ = data.draw(alerts(name))
    mapping = dialects()[name].mapping
    _settles(mapping, mapping.interpret(body).whole(), "request")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_what_changed_in_the_container_alone_is_read_as_if_all_were_read(name: str, data: st.DataObject) -> None:
    mapping = dialects()[name].mapping
    body, _ = data.draw(alerts(name))
    body = copied(mapping.write(normal(mapping.interpret(body).whole()), Writing(defaults=destination(name).defaults)))
    meant = {**mapping.implied, **mapping.meaning(body)}
    container = mapping.container or ""
    inside = [f"{container}.more"] if container else []
    inside += [leaf for leaf in (mapping.details or "",) if container and leaf.startswith(f"{container}.")]
    *filled, emptied = (copied(body) for _ in range(len(inside) + 1))
    for leaf, one in zip(inside, filled, strict=True):
        put(one, leaf, "words")
    remove(emptied, container)
    for one in (*filled, emptied):
        assert mapping.meaning_again(one, meant) == {**mapping.implied, **mapping.meaning(one)}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_words_that_were_just_read_mean_what_reading_them_again_says(name: str, data: st.DataObject) -> None:
    mapping = dialects()[name].mapping
    body, _ = data.draw(alerts(name))
    reading = mapping.interpret(body)
    assert reading.whole() == mapping.meaning(reading.verbatim)
    told = {**mapping.implied, **reading.whole(), "summary": "another"}
    restated = [
        mapping.restate(flat, dict(reading.verbatim), dict, known)
        for flat in (reading.whole(), told)
        for known in (reading, None)
    ]
    assert restated[0] == restated[1] and restated[2] == restated[3]


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_of_other_words_or_by_other_rows_is_not_gone_by(name: str) -> None:
    mapping = dialects()[name].mapping
    [body, *_] = [body for rows, body, side in wire_samples(name) if rows is mapping and side == "request"]
    reading = mapping.interpret(body)
    lie = msgspec.structs.replace(reading, flat={"summary": "a lie"}, hints=())
    for known, words in (
        (lie, {**reading.verbatim, "beside": 1}),
        (msgspec.structs.replace(lie, rows=mapping.with_rows(mapping.rows)), reading.verbatim),
    ):
        _, meant = mapping.restate(mapping.meaning(words), words, dict, known)
        assert meant == mapping.meaning(words)


def _settles(mapping: Mapping, read: Flat, side: Any) -> None:
    """Fails unless reading back what was written gives the same, except for what the vendor's limits or requirements
    change, and writing that again gives exactly the same."""
    writing = Writing(defaults=destination(mapping.dialect).defaults)
    once = mapping.write(normal(read), writing, side=side)
    again = mapping.interpret(_over_the_wire(once), side=side).whole()
    altered = [entry for entry in mapping.rows if entry.fit or entry.paths[0] in writing.filled]
    exempt = {path for entry in altered for path in entry.paths}
    said = {path: value for path, value in read.items() if value is not None and path not in exempt}
    assert {path: again.get(path) for path in said} == said
    assert mapping.write(normal(again), writing, side=side) == once


def _over_the_wire(body: Wire) -> Wire:
    decoded: Wire = msgspec.json.decode(msgspec.json.encode(body))
    return decoded


def _read(mapping: Mapping, body: Wire, side: Any) -> Flat | None:
    try:
        return mapping.read(body, side=side).whole()
    except Problem:
        return None


# --- perturbation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mapping", "body", "side"), SAMPLES)
def test_changing_a_leaf_changes_what_its_row_declares_and_nothing_else(
    mapping: Mapping, body: Wire, side: Any
) -> None:
    before = _read(mapping, body, side)
    if before is None:
        pytest.skip("the page shows a schema here, no value")
    tried = 0
    for leaf in leaves(mapping.wire):
        if get(body, leaf) in (UNSET, None):
            continue
        after = _perturbed(mapping, body, leaf, side)
        changed = {path for path in {*before, *after} if before.get(path, UNSET) != after.get(path, UNSET)}
        declared, is_silent = _declared(mapping, body, leaf, side)
        assert changed <= declared, f"{leaf} changes {changed - declared}"
        assert changed or is_silent, f"{leaf} changes nothing"
        tried += 1
    assert tried


def _declared(mapping: Mapping, body: Wire, leaf: str, side: Any) -> tuple[set[str], bool]:
    """Returns the paths that a leaf may change, and whether it may change none, because it is dropped, of the other
    side, or derived while the principal leaf is there."""
    paths: set[str] = set()
    speaking = False
    for entry in mapping.rows:
        if leaf not in entry.wires and not any(_covers(wire, leaf) for wire in entry.wires):
            continue
        if entry.side not in ("both", side) or (entry.derived and _has_principal(mapping, body, entry)):
            continue
        paths.update(entry.paths)
        speaking = True
    return paths, not speaking


def _has_principal(mapping: Mapping, body: Wire, derived: Row) -> bool:
    others = [entry for entry in mapping.rows if not entry.derived and set(entry.paths) & set(derived.paths)]
    return any(get(body, wire) not in (UNSET, None) for entry in others for wire in entry.wires)


def _perturbed(mapping: Mapping, body: Wire, leaf: str, side: Any) -> Flat:
    """Returns what the object means with another valid value at one leaf, preferably one that changes the meaning."""
    before = _read(mapping, body, side)
    seen = None
    for value in _others(mapping, leaf, get(body, leaf)):
        changed = copied(body)
        put(changed, leaf, value)
        after = _read(mapping, changed, side)
        if after is not None and after != before:
            return after
        seen = after if after is not None else seen
    assert seen is not None, f"no other valid value found for {leaf}"
    return seen


def _others(mapping: Mapping, leaf: str, value: Any) -> Iterator[Any]:
    words = [word for entry in mapping.rows if entry.scale and leaf in entry.wires for word in entry.scale.codes]
    words += [word for kind in _kinds(mapping.wire, leaf) if get_origin(kind) is Literal for word in get_args(kind)]
    words += [get(body, leaf) for _, body, _ in wire_samples(mapping.dialect)]
    yield from (word for word in words if word not in (value, UNSET, None))
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value + 60_000_000)
    elif isinstance(value, str):
        yield from (f"{value} more", f"{value}7", "2025-02-03T04:05:06Z")
    elif isinstance(value, list):
        yield from ([], [*value, *value], value[:1])
    elif isinstance(value, dict):
        yield {**value, "other": "value"}


def _kinds(wire: type[Struct], leaf: str) -> list[Any]:
    """Returns the alternatives of a leaf's type."""
    head, _, rest = leaf.partition(".")
    [item] = [item for item in fields(wire) if item.encode_name == head]
    kinds = [item.type, *get_args(item.type)]
    if not rest:
        return kinds
    inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Struct)]
    return [found for kind in inner for found in _kinds(kind, rest)]


@pytest.mark.parametrize("name", NAMES)
def test_a_requirement_without_a_value_is_named(name: str) -> None:
    """A required field without value, default or documented fallback is named in the error: nothing is made up."""
    mapping = dialects()[name].mapping
    wanted = [entry.paths[0] for entry in mapping.rows if entry.required and entry.fallback is None]
    if not wanted:
        assert mapping.write({"summary": "something"}, Writing())
        return
    with pytest.raises(Unmet) as raised:
        mapping.write({"summary": "something"}, Writing())
    assert raised.value.path == wanted[0]
