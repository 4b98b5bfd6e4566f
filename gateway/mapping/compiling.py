"""Compiles rows to plain Python functions, once, instead of interpreting them for every object.

What a row does is a lookup and an assignment; finding out each time which leaves it has, whether it has a codec, and
whether another row may have spoken already, costs ten times that. The source of a function is made of the rows'
declarations and of nothing else: no part of a request ever gets into it. A function does exactly what
`gateway.mapping.rows` says of its rows. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET

from gateway.mapping.rows import Row
from gateway.mapping.values import SAME
from gateway.mapping.wire import get

NOTHING: dict[str, Any] = {}


class _Text:
    """The source lines of a function, and its global names."""

    def __init__(self, head: str, **known: Any) -> None:
        self._lines = [head]
        self._known: dict[str, Any] = {"UNSET": UNSET, "get": get, "NOTHING": NOTHING, **known}

    def add(self, depth: int, *lines: str) -> None:
        self._lines += ["    " * depth + line for line in lines]

    def name(self, kind: str, value: Any) -> str:
        """Makes a value available to the function; returns its name there."""
        name = f"{kind}_{len(self._known)}"
        self._known[name] = value
        return name

    def made(self, name: str) -> Callable[..., Any]:
        """Compiles the source; returns the function of this name."""
        exec("\n".join(self._lines), self._known)  # noqa: S102 - made of rows alone, see above
        found: Callable[..., Any] = self._known[name]
        return found


class _Taken:
    """Expressions for the leaves of a wire object; the objects that contain them are looked up once."""

    def __init__(self, text: _Text, depth: int, leaves: Sequence[str]) -> None:
        self._names = {"": "raw"}
        parents = dict.fromkeys(leaf.rpartition(".")[0] for leaf in leaves)
        for parent in sorted(parents):
            self._look_up(text, depth, parent)

    def _look_up(self, text: _Text, depth: int, parent: str) -> None:
        if parent in self._names:
            return
        above, _, last = parent.rpartition(".")
        self._look_up(text, depth, above)
        name = self._names[parent] = f"in_{len(self._names)}"
        text.add(depth, f"{name} = {self._names[above]}.get({last!r})")
        text.add(depth, f"if not isinstance({name}, dict): {name} = NOTHING")

    def place(self, leaf: str) -> tuple[str, str]:
        """The name of the object that contains a leaf, and the leaf's own name in it."""
        parent, _, last = leaf.rpartition(".")
        return self._names[parent], last


def reader(rows: Sequence[Row], second_voice: Callable[..., Any], invalid: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function that reads a wire object by these rows; it returns the flat values and the hints of derived
    rows. Its `prefix` is for the field names in problems."""
    text = _Text("def read(raw, prefix):", second_voice=second_voice, invalid=invalid)
    text.add(1, "flat, hints, at = {}, [], ''", "try:", "    pass")
    taken = _Taken(text, 2, [leaf for entry in rows for leaf in entry.wires])
    for entry in rows:
        _read_row(text, entry, taken)
    text.add(1, "except ValueError as error:")
    text.add(2, "raise invalid(f'{prefix}.{at}' if prefix else at, str(error)) from None")
    text.add(1, "return flat, hints")
    return text.made("read")


def _read_row(text: _Text, entry: Row, taken: _Taken) -> None:
    places = [taken.place(leaf) for leaf in entry.wires]
    values = [f"v{number}" for number in range(len(places))]
    text.add(2, f"if {' or '.join(f'{last!r} in {parent}' for parent, last in places)}:")
    for value, (parent, last) in zip(values, places, strict=True):
        text.add(3, f"{value} = {parent}[{last!r}]" if len(places) == 1 else f"{value} = {parent}.get({last!r}, UNSET)")
    if not entry.codec:
        found = [f"w{number}" for number in range(len(entry.paths))]
        read = text.name("read", entry.read)
        text.add(3, f"at = {entry.wires[0]!r}", f"{', '.join(found)}, = {read}({', '.join(values)})")
    elif entry.codec is SAME:
        found = values
    else:
        found = ["w0"]
        read = text.name("read", entry.codec.read)
        text.add(3, f"at = {entry.wires[0]!r}", f"w0 = v0 if v0 is None else {read}(v0)")
    for value, path in zip(found, entry.paths, strict=True):
        says = f"flat[{path!r}] = {value}"
        if entry.derived:
            says = f"hints.append(second_voice({text.name('row', entry)}, {path!r}, {value}))"
        text.add(3, says if found is values else f"if {value} is not UNSET: {says}")


def writer(
    rows: Sequence[Row], put_all: Callable[..., Any], supplied: Callable[..., Any], *, requires: bool
) -> Callable[..., Any]:
    """Compiles a function of a flat alert, a `Writing` and `partial` that writes a wire object by these rows. What rows
    require and the alert does not have is supplied, unless it is called with `partial`, or compiled without `requires`.
    For a row with a fallback a text of blanks alone counts as missing: vendors refuse it as they refuse an empty one.
    """
    text = _Text("def write(flat, writing, partial):", put_all=put_all, supplied=supplied)
    text.add(1, "wire = {}")
    for entry in rows:
        write = _write_one if entry.codec else _write_joint
        write(text, entry, requires and entry.required)
    text.add(1, "return wire")
    return text.made("write")


def _write_one(text: _Text, entry: Row, is_required: bool) -> None:
    assert entry.codec
    [path], [leaf] = entry.paths, entry.wires
    told = f"{text.name('fit', entry.fitted)}(v)" if entry.fit else "v"
    convert = "" if entry.codec is SAME else f"v = {text.name('write', entry.codec.write)}(v)"
    if is_required:
        row = text.name("row", entry)
        is_blank = " or (v.__class__ is str and not v.strip())" if entry.fallback else ""
        text.add(1, f"v = flat.get({path!r}, UNSET)")
        if convert:
            text.add(1, f"if v is not UNSET and v is not None: {convert}")
        text.add(1, f"if not partial and (v is UNSET or v is None or v == '' or v == []{is_blank}):")
        text.add(2, f"put_all(wire, {row}, supplied({row}, flat, writing))")
        text.add(1, "elif v is not UNSET:")
        _put(text, 2, leaf, told)
        return
    text.add(1, f"if {path!r} in flat{f' and get(wire, {leaf!r}) is UNSET' if entry.derived else ''}:")
    text.add(2, f"v = flat[{path!r}]")
    if convert:
        text.add(2, f"if v is not None: {convert}")
        text.add(2, "if v is not UNSET:")  # a value may have no word
    _put(text, 3 if convert else 2, leaf, told)


def _put(text: _Text, at: int, leaf: str, value: str) -> None:
    *way, last = leaf.split(".")
    place = "wire"
    for depth, part in enumerate(way):
        inner = f"d{depth}"
        text.add(at, f"{inner} = {place}.get({part!r})")
        text.add(at, f"if not isinstance({inner}, dict): {inner} = {place}[{part!r}] = {{}}")
        place = inner
    text.add(at, f"{place}[{last!r}] = {value}")


def _write_joint(text: _Text, entry: Row, is_required: bool) -> None:
    row = text.name("row", entry)
    paths = [f"{path!r}" for path in entry.paths]
    write = text.name("write", entry.write)
    told = f"{write}(writing, {', '.join(f'flat.get({path}, UNSET)' for path in paths)})"
    is_there = " or ".join(f"{path} in flat" for path in paths)
    if not is_required:
        text.add(1, f"if {is_there}: put_all(wire, {row}, {told})")
        return
    text.add(1, f"out = {told} if {is_there} else ()")
    says_something = " and not (out[0].__class__ is str and not out[0].strip())" if entry.fallback else ""
    has_it = f"out and out[0] is not UNSET and out[0] not in (None, '', []){says_something}"
    text.add(1, f"if not partial and not ({has_it}):")
    text.add(2, f"out = supplied({row}, flat, writing)")
    text.add(1, f"put_all(wire, {row}, out)")
