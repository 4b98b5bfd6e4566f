"""The report of a translation: what became of every field at an upstream, and as a line of the reply header.

It is not declared but found out, by comparing what was to be sent with what is read back from the body. It must not
know any vendor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from msgspec import Raw, Struct, json

from gateway.canonical import SERVER_OWNED, Flat
from gateway.mapping.remembering import Remembered
from gateway.mapping.saying import Saying
from gateway.mapping.table import CARRIED
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.wire import Wire

Word = Literal["mapped", "carried", "approximated", "kept", "dropped"]


class Fate(Struct, frozen=True):
    """What became of one canonical field at one upstream; `to` is the wire leaf that holds it now."""

    field: str
    fate: Word
    to: str = ""
    why: str = ""


class _Shape(NamedTuple):
    """All that the fates of a translation depend on: which fields there are and what happened to each of them, not what
    they say. `told` are the fields of the alert, of which those in `cleared` are None, and those in `exact` were read
    back as they are; `meant` all that were read back, `places` the leaves that hold those which may be in several;
    `changed` the fields of an update, None if it is none; `is_its_kind` says that it is of the target's kind."""

    mapping: Rows
    told: tuple[str, ...]
    cleared: tuple[str, ...]
    exact: tuple[str, ...]
    meant: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    carried: frozenset[str]
    reasons: tuple[tuple[str, str], ...]
    replaced: tuple[str, ...]
    changed: tuple[str, ...] | None
    is_its_kind: bool

    def asked(self) -> list[str]:
        """The fields that were to be told."""
        unsaid = {*self.cleared, *SERVER_OWNED, *(("kind",) if self.is_its_kind else ())}
        asked = [path for path in self.told if path not in unsaid]
        if self.changed is None:
            return asked
        changed = frozenset(self.changed)
        return [path for path in asked if path in changed]


class Report:
    """The fates of one translation, found by comparing what was to be sent with what the body was read back as."""

    def __init__(self, saying: Saying, mapping: Rows, body: Wire, meant: Flat, reasons: Mapping[str, str]) -> None:
        self.saying = saying
        self.mapping = mapping
        self.body = body
        self.meant = meant
        self.reasons = reasons
        self._exact = tuple([path for path, value in saying.flat.items() if path in meant and meant[path] == value])

    def inexact(self, among: frozenset[str]) -> frozenset[str]:
        """Those of the paths whose values a reader of the target does not see in full; an object with more in it is no
        loss."""
        flat = self.saying.flat
        inexact = among.intersection(flat).difference(self._exact)
        return frozenset([path for path in inexact if not _holds(self.meant.get(path), flat[path])])

    def fates(self, carried: frozenset[str] = frozenset()) -> tuple[Fate, ...]:
        """One fate per field that was said, then those of supplied fields, then those of dropped ones; `carried` are
        the paths that are carried beside the vendor's own fields."""
        saying, flat = self.saying, self.saying.flat
        cleared = tuple([path for path, value in flat.items() if value is None]) if None in flat.values() else ()
        fates = _fates[
            self.mapping,
            tuple(flat),
            cleared,
            self._exact,
            tuple(self.meant),
            self.mapping.places(self.meant, self.body),
            carried,
            tuple(self.reasons.items()),
            tuple(saying.replaced),
            saying.changed,
            flat.get("kind") == self.mapping.kind,
        ]
        if not saying.dropped:
            return fates
        return (*fates, *(Fate(name, "dropped", "", why) for name, why in saying.dropped))


def _fates_of(*parts: Any) -> tuple[Fate, ...]:
    """The fates of fields that were said, then those of supplied fields, in a translation of this shape."""
    shape = _Shape(*parts)
    fates, asked = _Fates(shape), shape.asked()
    supplied, are_asked = list[str](), frozenset(asked)
    if shape.changed is None:
        supplied += [path for path in shape.meant if path not in are_asked and path in fates.reasons]
        supplied += [path for path in shape.replaced if path not in are_asked and path not in fates.meant]
        if "dedup_key" in fates.meant and "dedup_key" not in shape.told:
            supplied.append("dedup_key")
    return (*map(fates.of, asked), *map(fates.of_supplied, supplied))


_fates = Remembered(_fates_of)


class _Fates:
    """Finds out the fate of each field of a translation, from its shape alone. Callers choose how many fields there
    are, so what is looked up for each of them is a set."""

    def __init__(self, shape: _Shape) -> None:
        self.reasons = dict(shape.reasons)
        self.meant = frozenset(shape.meant)
        self._exact = frozenset(shape.exact)
        self._shape = shape
        self._places = dict(shape.places)
        self._set_by = {path: self.reasons.get(path, "") for path in shape.replaced}

    def of(self, path: str) -> Fate:
        """The fate of a field that was said. One that was read back as it is, but was written with a reason, means less
        to the target than its value says."""
        if path in self._exact and (path not in self.reasons or path in self._set_by):
            return Fate(path, "mapped", self._holder(path), self._set_by.get(path, ""))
        if path in self.meant:
            why = self.reasons.get(path) or self._why_narrowed(path)
            return Fate(path, "approximated", self._holder(path), why)
        if path in self._shape.carried:
            why = self._set_by.get(path) or "the target has no field for it"
            return Fate(path, "carried", f"{self._shape.mapping.container}.{CARRIED}", why)
        return Fate(path, "kept", "", self._homeless(path))

    def of_supplied(self, path: str) -> Fate:
        """The fate of a field that was not said."""
        if path not in self.meant:
            return Fate(path, "kept", "", self._homeless(path))
        why = self.reasons.get(path, "the target requires a key; one was generated")
        return Fate(path, "approximated", self._holder(path), why)

    def _holder(self, path: str) -> str:
        return self._places[path] if path in self._places else self._shape.mapping.holder(path)

    def _homeless(self, path: str) -> str:
        """Why the target has nothing of a path; names the route, where that sets it."""
        return "; ".join(part for part in (self._set_by.get(path), "the target has no field for it") if part)

    def _why_narrowed(self, path: str) -> str:
        if path == "dedup_key":
            return "another alert has this key there"
        for entry in self._shape.mapping.rows:
            if path in entry.paths and not entry.derived:
                if entry.paths[0] in self.reasons:
                    return self.reasons[entry.paths[0]]
                if entry.why:
                    return entry.why
                if entry.scale:
                    return "the target's scale is coarser"
                return "fitted to the target's limits" if entry.fit else "the target holds only part of it"
        return "the target expresses it differently"


def _holds(shown: Any, said: Any) -> bool:
    """Whether an object shows everything that was said as one, under the same names."""
    return (
        isinstance(said, dict)
        and isinstance(shown, dict)
        and all(name in shown and shown[name] == value for name, value in said.items())
    )


WORDS = ("dead", "approximated", "kept")
"""What a line of a report names, in this order."""
LONGEST_LINE, LONGEST_NAME = 1024, 128
"""Characters of such a line, and of a field's name in it."""


class Forms(NamedTuple):
    """A report in the forms in which it is passed on: as JSON, as it is stored; how many fields have each fate but
    `mapped`; and the words of the reply header, without the upstream's name."""

    stored: Raw
    counts: tuple[tuple[Word, int], ...]
    words: tuple[str, ...]


def forms(report: tuple[Fate, ...]) -> Forms:
    """A report in all its forms."""
    return _remembered_forms[report]


def _forms(*report: Fate) -> Forms:
    words = []
    for word in WORDS[1:]:
        names = [fate.field for fate in report if fate.fate == word]
        plain = [name for name in names if _can_be_told(name)]
        hidden = len(names) - len(plain)
        if names:
            words.append(f"{word}=" + ",".join([*plain, *([f"+{hidden}"] if hidden else [])]))
    counts = Counter(fate.fate for fate in report if fate.fate != "mapped")
    return Forms(Raw(json.encode(report)), tuple(counts.items()), tuple(words))


_remembered_forms = Remembered(_forms)


def header(upstream: str, report: tuple[Fate, ...], dead: str = "") -> str:
    """A report as one line of the reply header: only what the upstream could not hold, at most 1 KiB. Names that are
    too long, or have characters that a header cannot have, as callers choose them, are only counted.

    Empty where it could hold everything.
    """
    parts = [*([f"dead={dead}"] if dead else []), *forms(report).words]
    return _within(f"{upstream}; " + "; ".join(parts)) if parts else ""


def _can_be_told(name: str) -> bool:
    return len(name) <= LONGEST_NAME and name.isascii() and name.replace(".", "").replace("_", "").isalnum()


def joined(lines: Iterable[str]) -> tuple[str, ...]:
    """Merges the lines of several reports into one per upstream, with all names that any of them has."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for line in lines:
        upstream, *parts = line.split("; ")
        for part in parts:
            word, _, names = part.partition("=")
            found.setdefault(upstream, {}).setdefault(word, {}).update(dict.fromkeys(names.split(",")))
    return tuple(
        _within(f"{upstream}; " + "; ".join(f"{word}={','.join(words[word])}" for word in WORDS if word in words))
        for upstream, words in found.items()
    )


def _within(line: str) -> str:
    """Shortens a line to `LONGEST_LINE`: names are left out from the end."""
    return line if len(line) <= LONGEST_LINE else line[: line.rfind(",", 0, LONGEST_LINE - 2)] + ",+"
