"""What is chosen for an alert by its caller or by one of its fields: what a route sets, and the key of an upstream.

A choice has an *entry*: the caller's name, or the field's text. The entry is what is compared and kept; the secret
that it stands for is looked up when it is needed. Where keys are chosen, an upstream is one upstream per entry: its
lanes name the entry. It must not know any vendor, nor what an upstream is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET

from gateway.canonical import PATHS, checked, plain, type_of
from gateway.configproblems import in_words, near
from gateway.following import Directory, Table
from gateway.secrets import Secret, fault_of

OPEN = ("labels.", "custom.", "extensions.")
OF_DIRECTORY = "\0"
"""What an entry of a directory begins with where it reads like one that a route chose: no file's name has it."""
ABOUT = ("caller", "dialect")

# --- facts ---------------------------------------------------------------------------------------------------


def named_fact(name: str) -> str:
    """The name of a fact about an alert: a canonical path, a label, or who sent it; `ValueError` for no such thing."""
    if name not in PATHS and name not in ABOUT and not name.startswith(OPEN):
        raise ValueError(f"{name!r} is no field of an alert{near(name, [*PATHS, *ABOUT])}")
    return name


def fact(facts: Mapping[str, Any], name: str) -> Any:
    """A fact by its dotted name; None where there is none."""
    if name in facts:
        return facts[name]
    head, _, rest = name.partition(".")
    inner = facts.get(head)
    if isinstance(inner, Mapping):
        if rest in inner:
            return inner[rest]
        return fact(inner, rest) if "." in rest else None
    return None


def as_text(value: Any) -> str:
    """A fact as text; absent is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(plain(value))


def can_be(name: str, text: str) -> bool:
    """Whether a fact can ever read like this: a number is no word, and a closed list has no other. Absent is empty."""
    return not text or name not in PATHS or any(_fits(name, value, text) for value in _meant(text))


def _meant(text: str) -> Iterator[Any]:
    yield text
    yield {"true": True, "false": False}.get(text)
    for number in (int, float):
        with contextlib.suppress(ValueError):
            yield number(text)


def _fits(name: str, value: Any, text: str) -> bool:
    try:
        return value is not None and as_text(value) == text and bool(checked({name: value}))
    except msgspec.ValidationError:
        return False


# --- what a route sets -----------------------------------------------------------------------------------------


class Lookup:
    """A field's value, looked up in a table: `by` says which fact names the entry, `otherwise` is the value where the
    table has no such entry (UNSET: nothing is set)."""

    def __init__(self, field: str, by: str, table: Table, otherwise: Any = UNSET) -> None:
        self.field = field
        self.by = by
        self.table = table
        self.otherwise = otherwise
        self._version = -1
        self._values: Mapping[str, Any] = {}

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
        """The entry that was found, and its value: no entry where it is the value for everybody else."""
        raw = self.table.values()
        if self.table.version != self._version:
            self._values = {entry: checked({self.field: value})[self.field] for entry, value in raw.items()}
            self._version = self.table.version
        entry = as_text(fact(facts, self.by))
        return (entry, self._values[entry]) if entry in self._values else ("", self.otherwise)


# --- keys ------------------------------------------------------------------------------------------------------


class Keys:
    """The keys of an upstream that has one per entry.

    Entries are the files of `directory`, chosen by the fact `by`; the empty entry is `otherwise`, the key of everybody
    else. A route may name further ones: `table:entry` from its tables, or a name that was given to a single key.
    """

    def __init__(self, otherwise: Secret | None, by: str = "", directory: Directory | None = None) -> None:
        self.by = by
        self.directory = directory
        self._otherwise = otherwise
        self._has_otherwise = otherwise is not None
        self._tables: dict[str, Table] = {}
        self._named: dict[str, Secret] = {}

    def add_table(self, table: Table) -> None:
        """A route chooses keys from this table."""
        self._tables[table.name] = table

    def add(self, name: str, key: Secret) -> None:
        """A route chooses this key, by this name."""
        self._named[name] = key

    @property
    def is_known(self) -> bool:
        """Whether its entries were looked for; without secrets they are not."""
        return self.directory is None or self.directory.is_known

    @property
    def are_routed(self) -> bool:
        """Whether routes choose any: a reload may change them though the upstream's own table stays as it was."""
        return bool(self._tables)

    @property
    def are_many(self) -> bool:
        """Whether any are chosen at all."""
        return self.directory is not None or bool(self._tables)

    def entry(self, facts: Mapping[str, Any]) -> str:
        """The entry whose key an alert goes out with."""
        if self.directory is None:
            return ""
        entry = as_text(fact(facts, self.by))
        if self._has_otherwise and self.directory.get(entry) is None:
            return ""
        # A caller may write anything into a field: that must not choose a key that only a route may.
        is_taken = entry in self._named or self._table_of(entry) is not None or entry.startswith(OF_DIRECTORY)
        return OF_DIRECTORY + entry if is_taken else entry

    def entries(self) -> list[str]:
        """Every entry that has a key now."""
        names = sorted(self.directory.secrets()) if self.directory else []
        return ([""] if self._has_otherwise else []) + names

    def value(self, entry: str) -> str:
        """The key of an entry as it is now; raises `ValueError`, naming the entry, where there is none."""
        if entry in self._named:
            return self._named[entry].value()
        is_alone = self._otherwise is not None and not self.are_many
        if not entry or is_alone:  # what was told with one of many goes on with the one there is now
            if self._otherwise is None:
                raise ValueError(f"there is no key: nothing says {self.by}, and there is no `else`")
            return self._otherwise.value()
        if table := self._table_of(entry):
            return self._from_table(table, entry[len(table.name) + 1 :])
        entry = entry.removeprefix(OF_DIRECTORY)
        found = self.directory.get(entry) if self.directory else None
        if found is None:
            place = f": add the file to {self.directory.path}, or an `else`" if self.directory else ""
            raise ValueError(f"there is no key for {self.by or 'the entry'} {entry!r}{place}")
        return found

    def _table_of(self, entry: str) -> Table | None:
        """The table that an entry says it is from; its own name there may have colons too."""
        return next((table for name, table in self._tables.items() if entry.startswith(f"{name}:")), None)

    def _from_table(self, table: Table, name: str) -> str:
        found = table.values().get(name)
        if not isinstance(found, str):
            raise ValueError(f"{table.name} has no key for {name!r}")
        secret = Secret(found).value()
        if fault := fault_of(secret):
            raise ValueError(f"{table.name}: the key of {name!r} {fault}")
        return secret

    def lacks(self, entry: str) -> str:
        """Why there is no key for an entry, or nothing."""
        try:
            self.value(entry)
        except ValueError as error:
            return str(error)
        return ""


# --- lanes -----------------------------------------------------------------------------------------------------


def lane(about: str, *, key: str = "", to: str = "") -> str:
    """A lane's name: what it is about, and the entries that make an upstream several, `key` of the key that is used
    and `to` of the routing key that is set."""
    prefix = (f"as {quote(key, safe='')} " if key else "") + (f"to {quote(to, safe='')} " if to else "")
    return prefix + about


def key_entry(name: str) -> str:
    """The entry of the key with which the commands of a lane are sent."""
    return unquote(name.split(" ", 2)[1]) if name.startswith("as ") else ""


def same_entries(name: str, about: str) -> str:
    """Another lane with the entries of this one."""
    words = name.split(" ")
    kept = []
    for word in ("as", "to"):
        if words[0] == word:
            kept += words[:2]
            words = words[2:]
    return " ".join([*kept, about])
