"""Tables of rows: correspondences between a vendor's wire format and the canonical alert, used in both directions.

A `Mapping` is a table of rows over the vendor's wire structs. Reading a request, writing one, answering a caller
with an alert, the report of what survived and the tables in the documentation all come from the same rows, so a
correspondence cannot be changed in one place and forgotten in another. It must not know any vendor, nor why
something is sent where: set values, defaults and carrying arrive as plain arguments (`gateway.mapping.translation`).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Map
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from gateway.canonical import SERVER_OWNED, Flat, Kind, is_path
from gateway.errors import Problem, from_validation, invalid
from gateway.mapping.compiling import reader, writer
from gateway.mapping.rows import Dropped, Extension, Hint, Row, Side, Unmet, Writing, row
from gateway.mapping.wire import (
    Wire,
    completed,
    copied,
    get,
    is_of_type,
    leaves,
    names,
    partial_of,
    put,
    remove,
    unknown,
    without,
    without_surplus,
)

SIDES: tuple[Side, ...] = ("request", "reply")
CARRIED = "alert_gateway"
"""The key under which a target's free-form container carries what the target has no field for."""
MOST_UNKNOWN = 1000
"""Fields of an alert that are kept although its vendor does not document them: each is told of in the report of every
upstream, and a body full of them would take seconds and a hundred megabytes for that."""


class Reading(Struct, frozen=True):
    """A wire object as read.

    `flat` holds the values of the principal rows, `hints` those of derived rows, `dropped` the fields that do not
    concern the alert and why, `carried` what another gateway put into the container; `verbatim` is the object without
    what was carried, control fields, and fields that only replies have. `rows` is the table it was read with.
    """

    flat: Flat
    hints: tuple[Hint, ...]
    dropped: tuple[tuple[str, str], ...]
    carried: Any
    verbatim: Wire
    rows: Mapping

    def whole(self) -> Flat:
        """All values of the object: a hint counts where no principal row gives the path a value."""
        return {**{hint.path: hint.value for hint in self.hints}, **self.flat}


class Mapping:
    """The rows of one vendor's alert, checked when it is made.

    `dialect` names the vendor's extensions, `kind` says what its alerts are; `container` is the wire path of a
    free-form object in which things can be carried, as JSON text if it `holds_text` alone, `room` the most characters
    that its names and texts may have together; `free` the canonical path of the container's other content, if that is
    not the first path of its row; `details` the wire leaf of the long text a responder reads,
    `implied` the values that an alert of the vendor has without stating them, `shown` the wire leaves that reach the
    vendor, if not all do. `needed` are the paths of its required rows.
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
        self._many_homed = tuple((path, homes) for path, homes in self._holders.items() if len(homes) > 1)
        self.needed = frozenset(path for entry in self.rows if entry.required for path in entry.paths)
        self._check()
        self._compile()

    def _compile(self) -> None:
        """Computes once what is the same for every object; the functions made of rows are compiled at first use."""
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
        alone = [entry for entry in self.rows if len(entry.wires) == 1 and not entry.derived]
        self._own_rows = {entry.wires[0]: entry for entry in reversed(alone)}
        self._in_turn = [
            (path, entry.wires[min(number, len(entry.wires) - 1)], entry.paths)
            for entry in self._sides["request"]
            for number, path in enumerate(entry.paths if len(entry.paths) > 1 else ())
            if path not in SERVER_OWNED
        ]
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
        raw, surplus = without_surplus(raw, self._names, MOST_UNKNOWN)
        flat, hints = self._read(raw, side, prefix)
        dropped = tuple((drop.wire, drop.why) for drop in self.dropped if get(raw, drop.wire) is not UNSET)
        if surplus:
            why = f"more than {MOST_UNKNOWN} fields that the API does not document"
            dropped += ((f"{surplus} further fields", why),)
        return Reading(flat, tuple(hints), dropped, carried, self._verbatim(raw), self)

    def meaning(self, raw: Wire) -> Flat:
        """All values of a wire object that we wrote: the same as `interpret(raw).whole()`, without the rest."""
        flat, hints = self._read(self._without_carried(raw)[0], "request", "")
        return {**{hint.path: hint.value for hint in hints}, **flat} if hints else flat

    def meaning_again(self, raw: Wire, meant: Flat) -> Flat:
        """The values of a wire object, with those `implied`. `meant` are those from before something in its container
        changed: only rows that look into the container are read again, where their paths have no other rows."""
        if self._told_inside is None:
            return {**self.implied, **self.meaning(raw)}
        if self._read_inside is None:
            self._read_inside = reader(self._inside, _second_voice, invalid)
        flat, hints = self._read_inside(self._without_carried(raw)[0], "")
        kept = dict(meant)
        for path in self._told_inside:
            kept.pop(path, None)
        return {**self.implied, **kept, **{hint.path: hint.value for hint in hints}, **flat}

    def _read(self, raw: Wire, side: Side, prefix: str) -> tuple[Flat, list[Hint]]:
        read = self._readers.get(side)
        if read is None:
            read = self._readers[side] = reader(self._sides[side], _second_voice, invalid)
        flat, hints = read(raw, prefix)
        self._keep_unknown(raw, flat)
        return flat, _without_nulls(flat, hints) if hints else hints

    def unsaid(self, raw: Wire, said: Flat) -> tuple[str, ...]:
        """The paths that a wire object takes back by what it says: those of its leaves that can be read as one path or
        another, and were read as the other."""
        return tuple(
            path
            for path, leaf, paths in self._in_turn
            if path not in said and get(raw, leaf) not in (UNSET, "") and any(other in said for other in paths)
        )

    def found(self, raw: Wire) -> Flat:
        """Reads an alert as an upstream shows it; fields whose values are not as documented are left out."""
        for known in (raw, {name: value for name, value in raw.items() if self._is_documented(name, value)}):
            with contextlib.suppress(Problem):
                return self.read(known, side="reply", partial=True).whole()
        return {}

    def carries(self, raw: Wire) -> bool:
        """Whether something is carried in what an upstream shows: a gateway made it for a caller of another dialect."""
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
        """The carried object, decoded where it is text; None where the text under that name is not a gateway's."""
        if not self.holds_text:
            return carried
        try:
            found = msgspec.json.decode(carried) if isinstance(carried, str) else None
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def carry(self, wire: Wire, packed: dict[str, Any]) -> None:
        """Puts `packed` into the container of a wire object."""
        text = msgspec.json.encode(packed).decode() if self.holds_text else packed
        put(wire, f"{self.container}.{CARRIED}", text)

    def carries_at_most(self, wire: Wire, most: int) -> int:
        """How many bytes may be carried in a wire object: `most`, or fewer where the container has less room."""
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
        if start not in " ".join(flat):  # like nearly all that are of another dialect
            return
        for path, value in flat.items():
            if path.startswith(start) and path not in self._paths:
                key = path[len(start) :]
                if key not in self._names:
                    wire[key] = value
                elif key in wire:
                    wire[key] = completed(wire[key], value)

    def restate(
        self, flat: Flat, verbatim: Wire, write: Callable[[], Wire], reading: Reading | None = None
    ) -> tuple[Wire, Flat | None]:
        """Returns the sender's own wire values wherever they still mean what `flat` says, and those of `write`
        elsewhere; and the values of the result, where known. If `reading` is of `verbatim` with this table, it is not
        read again; if this table cannot read `verbatim`, only `write` counts. Nested objects are shared with `verbatim`
        where all of it is passed on."""
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
        """The values of the sender's own words; None where they cannot be read. Nothing but the key of a resolve was
        checked when it came, and the description of a dialect may have changed since the words were accepted."""
        try:
            return self.meaning(verbatim)
        except (Problem, AttributeError, TypeError, ValueError):
            return None

    def _says_all(self, meant: Flat, flat: Flat) -> bool:
        """Whether a request that means `meant` says all of `flat` that a request can say."""
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
        own = self._own_rows.get(leaf)
        return own.fitted(value) if own else value

    def held(self, flat: Flat, carried: Any) -> Flat:
        """Puts a carried object back under the canonical path of the container, as the vendor itself would keep it."""
        path = self.free or next(entry.paths[0] for entry in self.rows if self.container in entry.wires)
        return {**flat, path: {**(flat.get(path) or {}), CARRIED: carried}}

    def holder(self, path: str) -> str:
        """The wire leaf that holds a canonical path, of several the likeliest, or an empty text."""
        if path in self._holders:
            return self._holders[path][0]
        start = f"extensions.{self.dialect}."
        return path[len(start) :] if path.startswith(start) else ""

    def places(self, meant: Flat, wire: Wire) -> tuple[tuple[str, str], ...]:
        """The leaves of a wire object that hold those of its values which may be in several."""
        return tuple([(path, _first_in(wire, homes)) for path, homes in self._many_homed if path in meant])

    def is_alike(self, path: str, one: Any, other: Any) -> bool:
        """Whether the vendor can show the `other` value where it was told the `one`: the same or, where the field has a
        coarser twin, a value of the same word there, since a vendor that is told the word chooses the value itself."""
        if one == other:
            return True
        scales = (entry.scale for entry in self.rows if entry.derived and path in entry.paths)
        return None not in (one, other) and any(scale and other in scale.same_as(one) for scale in scales)

    def declares(self, path: str) -> bool:
        """Whether the vendor documents a field for this path."""
        return path in self._paths

    def takes(self, path: str, value: Any) -> bool:
        """Whether the value of an extension is one that the vendor may say, as far as this table has a row for it."""
        leaf = path.split(".", 2)[-1]
        for entry in self.rows if path in self._paths and value is not None else ():
            if path not in entry.paths:
                continue
            at = entry.wires.index(leaf) if leaf in entry.wires else 0
            if not is_of_type(value, self.wire, entry.wires[at]):
                return False
            try:
                entry.read(*[value if number == at else UNSET for number in range(len(entry.wires))])
            except ValueError:
                return False
        return True

    def reaches(self, path: str) -> bool:
        """Whether a value at this path reaches the vendor: an extension only if its requests have a place for it."""
        start = f"extensions.{self.dialect}."
        if self.shown is None or path in self._holders or not path.startswith(start):
            return True
        return any(f"{path[len(start) :]}.".startswith(f"{leaf}.") for leaf in self.shown)


def _paths_of(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset(path for entry in rows for path in entry.paths)


def _first_in(wire: Wire, leaves: tuple[str, ...]) -> str:
    """The first of these leaves that a wire object has; the first of all, if it has none."""
    for leaf in leaves:
        if get(wire, leaf) is not UNSET:
            return leaf
    return leaves[0]


def _agree(one: Flat, other: Flat, paths: tuple[str, ...]) -> bool:
    """Whether both have the same values at these paths."""
    for path in paths:  # noqa: SIM110 - a generator costs more than what it looks at
        if one.get(path, UNSET) != other.get(path, UNSET):
            return False
    return True


def _holders(rows: Sequence[Row], implied: Map[str, Any]) -> dict[str, tuple[str, ...]]:
    """The wire leaves that may hold each canonical path, the likeliest first: those of principal rows before those of
    derived ones. Leaves that only replies have count for `implied` paths alone."""
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


def _without_nulls(flat: Flat, hints: list[Hint]) -> list[Hint]:
    """Where two wire fields speak of one path and one of them is null, only the other counts: clients write null for
    what they leave out. Removes such nulls from `flat`, and returns the hints without them."""
    for hint in hints:
        if hint.value is not None and flat.get(hint.path, UNSET) is None:
            del flat[hint.path]
    return [hint for hint in hints if hint.value is not None or hint.path not in flat]


def _second_voice(entry: Row, path: str, value: Any) -> Hint:
    spelled_alike = entry.scale.same_as(value) if entry.scale and value is not None else (value,)
    return Hint(path, value, spelled_alike)


def _put_all(wire: Wire, entry: Row, out: Sequence[Any]) -> None:
    """Puts the values of a row into a wire object; a derived row overwrites nothing."""
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
