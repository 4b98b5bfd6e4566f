"""Tables of rows: what a vendor's wire and the canonical alert say alike, used both ways.

A `Mapping` is a table of rows over the vendor's wire structs. Reading a request, writing one, wording an alert for
a caller, the report of what survived and the tables in the documentation all come from the same rows, so a
correspondence cannot be changed in one place and forgotten in another. It must not know any vendor, nor why
something is sent where: set values, defaults and carrying arrive as plain arguments (`gateway.translation`).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Map
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from gateway.canonical import Flat, Kind, is_path
from gateway.compiling import reader, writer
from gateway.errors import Problem, from_validation, invalid
from gateway.rows import Dropped, Extension, Hint, Row, Side, Unmet, Writing, row
from gateway.wire import Wire, copied, get, leaves, merged, names, partial_of, put, remove, unknown, without

SIDES: tuple[Side, ...] = ("request", "reply")
CARRIED = "alert_gateway"
"""The key under which a target's free-form container carries what the target has no field for."""


class Reading(Struct, frozen=True):
    """A wire object as read.

    `flat` holds what the principal rows say, `hints` the second voices, `dropped` what does not concern the alert
    and why, `carried` what travelled in the container, and `verbatim` the object without all of these but the first.
    `rows` are those that it was read by.
    """

    flat: Flat
    hints: tuple[Hint, ...]
    dropped: tuple[tuple[str, str], ...]
    carried: Any
    verbatim: Wire
    rows: Mapping

    def whole(self) -> Flat:
        """Everything the object says by itself: a second voice speaks where the principal one is silent."""
        return {**{hint.path: hint.value for hint in self.hints}, **self.flat}


class Mapping:
    """The rows of one vendor's alert, checked when it is made.

    `dialect` names the vendor's extensions, `kind` says what its alerts are; `container` is the wire path of a
    free-form object in which things can be carried, as text where it `holds_text` alone, `room` the most characters
    that its names and texts may have together; `free` the canonical path of what else is in it, where that is not the
    first of its row; `details` the wire leaf of the long text a responder reads,
    `implied` what an alert there is without saying so, `shown` the places that reach the vendor where not all do.
    `needed` are the paths of its required rows.
    Raises `ValueError` for a row whose path does not exist, and for a wire leaf that has not exactly one row.
    """

    def __init__(
        self,
        dialect: str,
        kind: Kind,
        wire: type[Struct],
        rows: Sequence[Row | Extension | Dropped],
        *,
        container: str | None = None,
        free: str | None = None,
        details: str | None = None,
        implied: Map[str, Any] | None = None,
        holds_text: bool = False,
        room: int | None = None,
        shown: Sequence[str] | None = None,
    ) -> None:
        self.dialect = dialect
        self.kind: Kind = kind
        self.wire = wire
        self.partial = partial_of(wire)
        self.container = container
        self.free = free
        self.holds_text = holds_text
        self.room = room
        self.shown = shown
        self.details = details
        self.implied: Flat = dict(implied or {})
        self.dropped = tuple(entry for entry in rows if isinstance(entry, Dropped))
        self.rows = tuple(_as_row(entry, dialect) for entry in rows if not isinstance(entry, Dropped))
        self._names = names(wire)
        self._holders = _holders(self.rows, self.implied)
        self.needed = frozenset(path for entry in self.rows if entry.required for path in entry.paths)
        self._check()
        self._compile()

    def _compile(self) -> None:
        """What is the same for every object is worked out once; the functions made of rows when they are first used."""
        self._sides = {side: [entry for entry in self.rows if entry.side in ("both", side)] for side in SIDES}
        self._readers: dict[Side, Callable[[Wire, str], tuple[Flat, list[Hint]]]] = {}
        self._writers: dict[Side, Callable[[Flat, Writing, bool], Wire]] = {}
        self._paths = _paths_of(self.rows)
        self._inside = [entry for entry in self._sides["request"] if self._is_inside(entry)]
        told = _paths_of(self._inside)
        elsewhere = _paths_of(entry for entry in self._sides["request"] if not self._is_inside(entry))
        self._told_inside = None if told & elsewhere else told
        self._read_inside: Callable[[Wire, str], tuple[Flat, list[Hint]]] | None = None
        not_verbatim = [
            *(drop.wire for drop in self.dropped if drop.control),
            *(wire for entry in self.rows if entry.side == "reply" for wire in entry.wires),
        ]
        self._not_verbatim = frozenset(wire for wire in not_verbatim if "." not in wire)
        self._not_verbatim_inside = [wire for wire in not_verbatim if "." in wire]
        self._request_paths = _paths_of(self._sides["request"])
        self._fits = [(leaf, entry.fitted) for entry in self.rows if entry.fit for leaf in entry.wires]

    def _is_inside(self, entry: Row) -> bool:
        """Whether a row looks into the container."""
        return any(wire == self.container or wire.startswith(f"{self.container}.") for wire in entry.wires)

    def _check(self) -> None:
        known = leaves(self.wire)
        principal = [leaf for entry in self.rows if not entry.derived for leaf in entry.wires]
        second = {leaf for entry in self.rows if entry.derived for leaf in entry.wires} - set(principal)
        covered = [*principal, *second, *(entry.wire for entry in self.dropped)]
        for wire in covered:
            if not any(leaf == wire or leaf.startswith(wire + ".") for leaf in known):
                raise ValueError(f"{self.dialect}: no such wire field: {wire}")
        for leaf in known:
            owners = sum(leaf == wire or leaf.startswith(wire + ".") for wire in covered)
            if owners != 1:
                raise ValueError(f"{self.dialect}: wire field {leaf} has {owners} rows, not one")
        for path in (path for entry in self.rows for path in entry.paths):
            if not is_path(path):
                raise ValueError(f"{self.dialect}: no such canonical path: {path}")

    # --- from the wire ---------------------------------------------------------------------------------

    def read(self, raw: Any, *, side: Side = "request", partial: bool = False, prefix: str = "") -> Reading:
        """Reads a wire object; raises `Problem` that names the field in the vendor's words.

        `partial` lets everything be left out, as in an update; `prefix` is put before field names in errors.
        """
        try:
            msgspec.convert(raw, self.partial if partial else self.wire)
        except msgspec.ValidationError as error:
            raise from_validation(error, prefix) from None
        return self.interpret(raw, side=side, prefix=prefix)

    def interpret(self, raw: Wire, *, side: Side = "request", prefix: str = "") -> Reading:
        """Reads a wire object whose types are known to be right."""
        raw, carried = self._without_carried(raw)
        flat, hints = self._read(raw, side, prefix)
        dropped = tuple((drop.wire, drop.why) for drop in self.dropped if get(raw, drop.wire) is not UNSET)
        return Reading(flat, tuple(hints), dropped, carried, self._verbatim(raw), self)

    def meaning(self, raw: Wire) -> Flat:
        """Everything that a wire object of ours says by itself: what `interpret` calls the whole of it."""
        flat, hints = self._read(self._without_carried(raw)[0], "request", "")
        return {**{hint.path: hint.value for hint in hints}, **flat} if hints else flat

    def meaning_again(self, raw: Wire, meant: Flat) -> Flat:
        """What an object means, and what it is without saying so, of which `meant` was that before something in its
        container changed: what else it says is not read again."""
        if self._told_inside is None:
            return {**self.implied, **self.meaning(raw)}
        if self._read_inside is None:
            self._read_inside = reader(self._inside, _second_voice, invalid)
        flat, hints = self._read_inside(self._without_carried(raw)[0], "")
        kept = {path: value for path, value in meant.items() if path not in self._told_inside}
        return {**self.implied, **kept, **{hint.path: hint.value for hint in hints}, **flat}

    def _read(self, raw: Wire, side: Side, prefix: str) -> tuple[Flat, list[Hint]]:
        read = self._readers.get(side)
        if read is None:
            read = self._readers[side] = reader(self._sides[side], _second_voice, invalid)
        flat, hints = read(raw, prefix)
        self._keep_unknown(raw, flat)
        return flat, hints

    def found(self, raw: Wire) -> Flat:
        """What an upstream shows of an alert; fields that it says otherwise than documented are left out."""
        for known in (raw, {name: value for name, value in raw.items() if self._is_documented(name, value)}):
            with contextlib.suppress(Problem):
                return self.read(known, side="reply", partial=True).whole()
        return {}

    def carries(self, raw: Wire) -> bool:
        """Whether a gateway made what an upstream shows, for somebody who speaks another vendor's language."""
        return self._without_carried(raw)[1] is not None

    def _is_documented(self, name: str, value: Any) -> bool:
        try:
            self.read({name: value}, side="reply", partial=True)
        except Problem:
            return False
        return True

    def _keep_unknown(self, raw: Wire, flat: Flat) -> None:
        for key, value in unknown(raw, self.wire).items():
            flat[f"extensions.{self.dialect}.{key}"] = value

    def _without_carried(self, raw: Wire) -> tuple[Wire, Any]:
        held = get(raw, self.container) if self.container else UNSET
        if not self.container or not isinstance(held, dict) or CARRIED not in held:
            return raw, None
        carried = self._from_text(held[CARRIED])
        if carried is None:
            return raw, None
        rest = {key: value for key, value in held.items() if key != CARRIED}
        raw = copied(raw)
        if rest:
            put(raw, self.container, rest)
        else:
            remove(raw, self.container)
        return raw, carried

    def _from_text(self, carried: Any) -> Any:
        """What was carried; nothing where a text under that name is somebody else's."""
        if not self.holds_text:
            return carried
        try:
            found = msgspec.json.decode(carried) if isinstance(carried, str) else None
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def carry(self, wire: Wire, packed: dict[str, Any]) -> None:
        """Puts what is carried into the container of a wire object."""
        text = msgspec.json.encode(packed).decode() if self.holds_text else packed
        put(wire, f"{self.container}.{CARRIED}", text)

    def carries_at_most(self, wire: Wire, most: int) -> int:
        """How many bytes may be carried in a wire object, of which `most` might."""
        held = get(wire, self.container) if self.container else UNSET
        if self.room is None:
            return most
        taken = sum(len(name) + len(text) for name, text in held.items()) if isinstance(held, dict) else 0
        return min(most, self.room - taken - len(CARRIED))

    def _verbatim(self, raw: Wire) -> Wire:
        words = {name: value for name, value in raw.items() if name not in self._not_verbatim}
        for wire in self._not_verbatim_inside:
            words = without(words, wire)
        return words

    # --- to the wire -----------------------------------------------------------------------------------

    def write(self, flat: Flat, writing: Writing, *, side: Side = "request", partial: bool = False) -> Wire:
        """Writes canonical values as a wire object, in the order of the rows.

        A required field without a value is supplied from the upstream's defaults or the documented fallback, or
        raises `Unmet`; `partial` writes only what is there, as in an update.
        """
        write = self._writers.get(side)
        if write is None:
            rows, requires = self._sides[side], side == "request"
            write = self._writers[side] = writer(rows, _put_all, _supplied, requires=requires)
        wire = write(flat, writing, partial)
        self._write_unknown(flat, wire)
        return wire

    def _write_unknown(self, flat: Flat, wire: Wire) -> None:
        start = f"extensions.{self.dialect}."
        for path, value in flat.items():
            if path.startswith(start) and path not in self._paths:
                key = path[len(start) :]
                if key not in self._names:
                    wire[key] = value
                elif key in wire:
                    wire[key] = merged(wire[key], value)

    def restate(
        self, flat: Flat, verbatim: Wire, write: Callable[[], Wire], reading: Reading | None = None
    ) -> tuple[Wire, Flat | None]:
        """The sender's own spelling wherever it still means what `flat` says, and what `write` gives where it does not;
        and what that means, where it is known. Where `reading` is of these words by these rows, they are not read
        again. Words that these rows cannot read are not said again. What lies inside of the words is shared with
        `verbatim` where all of it is passed on."""
        is_read = reading is not None and reading.rows is self and reading.verbatim == verbatim
        meant = reading.whole() if reading is not None and is_read else self._understood(verbatim)
        if meant is None:
            return write(), None
        if self._says_all(meant, flat) and self._has_room(verbatim):
            return dict(verbatim), meant
        words: Wire = copied(verbatim)
        wire, is_verbatim = write(), True
        for entry in self.rows:
            is_unchanged = _agree(meant, flat, entry.paths)
            if is_unchanged and entry.fit is None:
                continue
            is_verbatim = False
            for leaf in entry.wires:
                value = get(words if is_unchanged else wire, leaf)
                if not is_unchanged:
                    remove(words, leaf)
                if value is not UNSET:
                    put(words, leaf, entry.fitted(value))
        return words, meant if is_verbatim else None

    def _understood(self, verbatim: Wire) -> Flat | None:
        """What a sender's words mean; nothing where that is not to be known: of an end that repeats more than its key
        nothing else was looked at, and a description may have other words or forms by now than when this was said."""
        try:
            return self.meaning(verbatim)
        except (Problem, AttributeError, TypeError, ValueError):
            return None

    def _says_all(self, meant: Flat, flat: Flat) -> bool:
        """Whether what a request means is all that `flat` has to say in one."""
        return meant.items() <= flat.items() and self._request_paths.isdisjoint(flat.keys() - meant.keys())

    def _has_room(self, words: Wire) -> bool:
        """Whether every value is within the vendor's limits."""
        return all((value := get(words, leaf)) is UNSET or fit(value) == value for leaf, fit in self._fits)

    def with_rows(self, rows: Sequence[Row]) -> Mapping:
        """The same table with other rows over the same leaves."""
        other = copy.copy(self)
        other.rows = tuple(rows)
        other._compile()
        return other

    def fitted(self, leaf: str, value: Any) -> Any:
        """A value within the vendor's limits for a wire leaf."""
        own = next((entry for entry in self.rows if entry.wires == (leaf,) and not entry.derived), None)
        return own.fitted(value) if own else value

    def held(self, flat: Flat, carried: Any) -> Flat:
        """A carried object back in the free-form container where it came from, as the vendor itself keeps it."""
        path = self.free or next(entry.paths[0] for entry in self.rows if self.container in entry.wires)
        return {**flat, path: {**(flat.get(path) or {}), CARRIED: carried}}

    def holder(self, path: str, wire: Wire | None = None) -> str:
        """The wire leaf that holds a canonical path, or nothing; of several that may, the first that `wire` has."""
        if path in self._holders:
            homes = self._holders[path]
            if wire is None or len(homes) == 1:
                return homes[0]
            return next((leaf for leaf in homes if get(wire, leaf) is not UNSET), homes[0])
        start = f"extensions.{self.dialect}."
        return path[len(start) :] if path.startswith(start) else ""

    def reaches(self, path: str) -> bool:
        """Whether what stands at a path of the vendor's own reaches it: of another shape only what that has."""
        start = f"extensions.{self.dialect}."
        if self.shown is None or path in self._holders or not path.startswith(start):
            return True
        return any(f"{path[len(start) :]}.".startswith(f"{leaf}.") for leaf in self.shown)


def _paths_of(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset(path for entry in rows for path in entry.paths)


def _agree(one: Flat, other: Flat, paths: tuple[str, ...]) -> bool:
    """Whether two say the same at these paths."""
    for path in paths:  # noqa: SIM110 - a generator costs more than what it looks at
        if one.get(path, UNSET) != other.get(path, UNSET):
            return False
    return True


def _holders(rows: Sequence[Row], implied: Map[str, Any]) -> dict[str, tuple[str, ...]]:
    """The wire leaves in which each canonical path may stand, the likeliest first: where a path has two voices, the
    principal one's. What the vendor `implied` without being told is held where the vendor says it."""
    holders: dict[str, tuple[str, ...]] = {}
    for entry in sorted(rows, key=lambda entry: entry.derived):
        for index, path in enumerate(entry.paths):
            if entry.side != "reply" or path in implied:
                own = entry.homes.get(path) or (entry.wires[min(index, len(entry.wires) - 1)],)
                holders[path] = tuple(dict.fromkeys((*holders.get(path, ()), *own, *entry.wires)))
    return holders


def _as_row(entry: Row | Extension, dialect: str) -> Row:
    if isinstance(entry, Row):
        return entry
    return row(entry.wire, f"extensions.{dialect}.{entry.wire}", side=entry.side)


def _second_voice(entry: Row, path: str, value: Any) -> Hint:
    spelled_alike = entry.scale.same_as(value) if entry.scale and value is not None else (value,)
    return Hint(path, value, spelled_alike)


def _put_all(wire: Wire, entry: Row, out: Sequence[Any]) -> None:
    """Puts what a row says into a wire object. A second voice says nothing that was said."""
    for leaf, value in zip(entry.wires, out, strict=False):
        if value is not UNSET and not (entry.derived and get(wire, leaf) is not UNSET):
            put(wire, leaf, entry.fitted(value))


def _supplied(entry: Row, flat: Flat, writing: Writing) -> Sequence[Any]:
    if any(path in writing.defaults for path in entry.paths):
        values = [writing.defaults.get(path, flat.get(path, UNSET)) for path in entry.paths]
        out = entry.write(writing, *values)
        if _satisfied(out):
            writing.filled[entry.paths[0]] = "supplied by the upstream's defaults"
            return out
    fallback = entry.fallback(flat, writing) if entry.fallback else None
    if fallback is None:
        raise Unmet(entry.paths[0])
    writing.filled[entry.paths[0]] = f"supplied: {entry.why or 'the documented fallback'}"
    return fallback


def _satisfied(out: Sequence[Any]) -> bool:
    return bool(out) and out[0] is not UNSET and out[0] not in (None, "", [])
