"""Values chosen for an alert by its caller or by one of its fields: what a route sets, and the key of an upstream.

A choice has an *entry*: the caller's name, or the field's text. The entry is what is compared and stored; the secret
behind it is looked up when it is needed. Where keys are chosen, an upstream counts as one upstream per entry: its lanes
include the entry in their names. It must not know any vendor, nor what an upstream is.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET, Struct

from gateway.canonical import PATHS, checked, item_types, plain, type_of
from gateway.config.following import Directory, Table
from gateway.config.problems import in_words, near
from gateway.config.secrets import Secret

OPEN = ("labels.", "custom.", "extensions.")
OF_DIRECTORY = "\0"
"""Prefix of a directory's entry that could be taken for one that a route chooses; no file name contains it."""
ABOUT = ("caller", "dialect")
MOST_VALUES = 1_000
"""The most items of a list that are looked at: a caller may send a hundred thousand, for each of many conditions."""

# --- facts ---------------------------------------------------------------------------------------------------


def named_fact(name: str) -> str:
    """Checks the name of a fact about an alert: a canonical path, a field of the items of one (`channels.id`), a label,
    or `caller` or `dialect`. Raises `ValueError`."""
    if name not in PATHS and name not in ABOUT and name not in _of_items() and not name.startswith(OPEN):
        raise ValueError(f"{name!r} is not a field of an alert{near(name, [*PATHS, *ABOUT, *_of_items()])}")
    return name


@functools.cache
def _of_items() -> tuple[str, ...]:
    """The fields of items of the canonical lists, such as ``links.href``."""
    return tuple(
        f"{path}.{leaf}"
        for path in PATHS
        for part in item_types(path)
        if issubclass(part, Struct)
        for leaf in part.__struct_fields__
    )


def is_single(name: str) -> bool:
    """Whether a fact has one value at most, whatever a caller sends."""
    return name in ABOUT or (name in PATHS and not item_types(name))


def values(facts: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a fact by its dotted name: none where it is absent, and several where lists are on the way, as in
    ``links.href``, or at the end; at most `MOST_VALUES`."""
    return list(islice(_values(facts, name), MOST_VALUES))


def _values(facts: Mapping[str, Any], name: str) -> Iterator[Any]:
    if name in facts:
        yield from _unlisted(facts[name])
    end = len(name)
    while (end := name.rfind(".", 0, end)) > 0:  # a name may have dots itself, as labels do
        for part in _unlisted(facts.get(name[:end])):
            table = plain(part) if isinstance(part, Struct) else part
            if isinstance(table, Mapping):
                yield from _values(table, name[end + 1 :])


def _unlisted(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value[:MOST_VALUES]:
            yield from _unlisted(item)
    elif value is not None:
        yield value


def as_text(value: Any) -> str:
    """A value as text; a table is its JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | Mapping | Struct):
        return msgspec.json.encode(value).decode()
    return str(plain(value))


def texts(facts: Mapping[str, Any], name: str) -> list[str]:
    """The values of a fact as texts; the empty text alone where it is absent."""
    return [as_text(value) for value in values(facts, name)] or [""]


def can_be(name: str, text: str) -> bool:
    """Whether the text can be a value of a fact, given the field's type: a number or an enumeration excludes other
    words. Absent is empty."""
    return not text or name not in PATHS or any(_fits(name, value, text) for value in _meant(text))


def _meant(text: str) -> Iterator[Any]:
    yield text
    yield {"true": True, "false": False}.get(text)
    for number in (int, float):
        with contextlib.suppress(ValueError):
            yield number(text)


def _fits(name: str, value: Any, text: str) -> bool:
    try:
        return value is not None and as_text(value) == text and bool(checked({name: _listed(name, value)}))
    except msgspec.ValidationError:
        return False


def _listed(name: str, value: Any) -> Any:
    return value if is_single(name) else [value]


# --- what a route sets -----------------------------------------------------------------------------------------


class Lookup:
    """A field's value, looked up in a table: `by` is the fact that names the entry (of several values the first that
    does), `otherwise` the value where the table has no such entry (UNSET: nothing is set)."""

    def __init__(self, field: str, by: str, table: Table, otherwise: Any = UNSET) -> None:
        self.field = field
        self.by = by
        self.table = table
        self.otherwise = otherwise
        self._held: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
        """The table's values when it was last looked into, and the same checked: one name, as threads share them."""

    def faults(self, values: Mapping[str, Any]) -> list[str]:
        """What is wrong with a table's values, for this field."""
        return [fault for entry, value in values.items() if (fault := self._fault(entry, value))]

    def _fault(self, entry: str, value: Any) -> str:
        try:
            checked({self.field: value})
        except msgspec.ValidationError as error:
            fault = in_words(error, type_of(self.field)).removesuffix(f" (at .{self.field})")
            return f"{self.table.name}: {entry}: {fault}"
        return ""

    def pick(self, facts: Mapping[str, Any]) -> tuple[str, Any]:
        """The entry that was found and its value; an empty entry with `otherwise` where there is none."""
        raw = self.table.values()
        was, values = self._held
        if raw is not was:
            values = {entry: checked({self.field: value})[self.field] for entry, value in raw.items()}
            self._held = (raw, values)
        entry = next((text for text in texts(facts, self.by) if text in values), None)
        return ("", self.otherwise) if entry is None else (entry, values[entry])


# --- keys ------------------------------------------------------------------------------------------------------


class Keys:
    """The keys of an upstream that has one per entry.

    Entries are the files of `directory`, chosen by the fact `by`; the empty entry stands for `otherwise`, the key for
    everybody else. Routes may choose further ones: `table:entry` from their tables, or a single key added by name.
    """

    def __init__(self, otherwise: Secret | None, by: str = "", directory: Directory | None = None) -> None:
        self.by = by
        self.directory = directory
        self._otherwise = otherwise
        self.has_otherwise = otherwise is not None
        """Whether there is a key for everybody else, known or not."""
        self._tables: dict[str, Table] = {}
        self._named: dict[str, Secret] = {}

    def add_table(self, table: Table) -> None:
        """Adds a table from which a route chooses keys."""
        self._tables[table.name] = table

    def add(self, name: str, key: Secret) -> None:
        """Adds a key that a route chooses, by name."""
        self._named[name] = key

    @property
    def is_known(self) -> bool:
        """Whether the directory was read; it is not where secrets are not resolved."""
        return self.directory is None or self.directory.is_known

    @property
    def are_routed(self) -> bool:
        """Whether routes choose keys: a reload may change them although the upstream's own table is unchanged."""
        return bool(self._tables)

    @property
    def are_many(self) -> bool:
        """Whether keys are chosen at all, by the upstream or by routes."""
        return self.directory is not None or bool(self._tables)

    def entry(self, facts: Mapping[str, Any]) -> str:
        """The entry of the key that an alert is sent with."""
        if self.directory is None:
            return ""
        named = texts(facts, self.by)
        entry = next((text for text in named if self.directory.get(text) is not None), None)
        if entry is None and self.has_otherwise:
            return ""
        entry = named[0] if entry is None else entry
        # A caller may write anything into a field: it must not be able to choose a key that is for routes only.
        is_taken = entry in self._named or self._table_of(entry) is not None or entry.startswith(OF_DIRECTORY)
        return OF_DIRECTORY + entry if is_taken else entry

    def entries(self) -> list[str]:
        """The entries of `otherwise` and of the directory that have a key now."""
        names = sorted(self.directory.secrets()) if self.directory else []
        return ([""] if self.has_otherwise else []) + names

    def value(self, entry: str) -> str:
        """The key of an entry as it is now; raises `ValueError`, naming the entry, where there is none."""
        if entry in self._named:
            return self._named[entry].value()
        is_alone = self._otherwise is not None and not self.are_many
        if not entry or is_alone:  # deliveries from when there were several keys go on with the only one left
            if self._otherwise is None:
                raise ValueError(f"there is no key: the alert has no {self.by}, and there is no `else`")
            return self._otherwise.value()
        if table := self._table_of(entry):
            return self._from_table(table, entry[len(table.name) + 1 :])
        entry = entry.removeprefix(OF_DIRECTORY)
        found = self.directory.get(entry) if self.directory else None
        if found is None:
            place = f": add the file to {self.directory.path}" if self.directory else ""
            place += "" if self.has_otherwise or not place else ", or an `else` for new alerts"
            raise ValueError(f"there is no key for {self.by or 'the entry'} {entry!r}{place}")
        return found

    def _table_of(self, entry: str) -> Table | None:
        """The table that the prefix of an entry names; the rest of the entry may contain colons too."""
        return next((table for name, table in self._tables.items() if entry.startswith(f"{name}:")), None)

    def _from_table(self, table: Table, name: str) -> str:
        found = table.values().get(name)
        if not isinstance(found, str):
            raise ValueError(f"{table.name} has no key for {name!r}")
        try:
            return Secret(found).value()
        except ValueError as error:
            raise ValueError(f"{table.name}: the key of {name!r}: {error}") from None

    def lacks(self, entry: str) -> str:
        """Why there is no key for an entry, or nothing."""
        try:
            self.value(entry)
        except ValueError as error:
            return str(error)
        return ""


# --- lanes -----------------------------------------------------------------------------------------------------


def lane(about: str, *, key: str = "", to: str = "") -> str:
    """A lane's name: what it is about, prefixed by the entries that split an upstream into several: `key` of the
    credential that is used, `to` of the routing key that is set."""
    prefix = (f"as {quote(key, safe='')} " if key else "") + (f"to {quote(to, safe='')} " if to else "")
    return prefix + about


def key_entry(name: str) -> str:
    """The entry of the key that the deliveries of a lane are sent with."""
    return unquote(name.split(" ", 2)[1]) if name.startswith("as ") else ""


def same_entries(name: str, about: str) -> str:
    """The name of another lane, with the entries of this one."""
    words = name.split(" ")
    kept = []
    for word in ("as", "to"):
        if words[0] == word:
            kept += words[:2]
            words = words[2:]
    return " ".join([*kept, about])
