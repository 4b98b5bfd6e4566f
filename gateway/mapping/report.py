"""The report of a translation: what became of every field at an upstream, and as a line of the reply header.

It is not declared but found out, by comparing what was to be sent with what is read back from the body. It must not
know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from gateway.canonical import SERVER_OWNED, Flat
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


class Report:
    """The fates of one translation, found by comparing what was to be sent with what the body was read back as."""

    def __init__(
        self,
        saying: Saying,
        mapping: Rows,
        body: Wire,
        meant: Flat,
        reasons: Mapping[str, str],
    ) -> None:
        self.saying = saying
        self.mapping = mapping
        self.body = body
        self.meant = meant
        self.reasons = reasons
        self._set_by = {path: reasons.get(path, "") for path in saying.replaced}
        self._exact = {path for path, value in saying.flat.items() if path in meant and meant[path] == value}

    def _asked(self) -> Iterable[str]:
        changed = self.saying.changed
        for path, value in self.saying.flat.items():
            if path in SERVER_OWNED or value is None or (changed is not None and path not in changed):
                continue
            if path != "kind" or value != self.mapping.kind:
                yield path

    def inexact(self) -> frozenset[str]:
        """The paths whose values a reader of the target does not see in full; an object with more in it is no loss."""
        return frozenset(
            path
            for path, value in self.saying.flat.items()
            if path not in self._exact and not (isinstance(value, dict) and _holds(self.meant.get(path), value))
        )

    def fates(self, carried: frozenset[str] = frozenset()) -> tuple[Fate, ...]:
        """One fate per field that was said, then those of supplied fields, then those of dropped ones; `carried` are
        the paths that are carried beside the vendor's own fields."""
        fates = [self._fate(path, carried) for path in self._asked()]
        asked = {fate.field for fate in fates}
        if self.saying.changed is None:
            supplied = [path for path in self.meant if path not in asked and path in self.reasons]
            supplied += [path for path in self.saying.replaced if path not in asked and path not in self.meant]
            if "dedup_key" in self.meant and "dedup_key" not in self.saying.flat:
                supplied.append("dedup_key")
            fates += [self._supplied(path) for path in supplied]
        return (*fates, *(Fate(name, "dropped", "", why) for name, why in self.saying.dropped))

    def _fate(self, path: str, carried: frozenset[str]) -> Fate:
        if path in self._exact:
            return Fate(path, "mapped", self.mapping.holder(path, self.body), self._set_by.get(path, ""))
        if path in self.meant:
            why = self.reasons.get(path) or self._why_narrowed(path)
            return Fate(path, "approximated", self.mapping.holder(path, self.body), why)
        if path in carried:
            why = self._set_by.get(path) or "the target has no field for it"
            return Fate(path, "carried", f"{self.mapping.container}.{CARRIED}", why)
        return Fate(path, "kept", "", self._homeless(path))

    def _homeless(self, path: str) -> str:
        """Why the target has nothing of a path; names the route, where that sets it."""
        return "; ".join(part for part in (self._set_by.get(path), "the target has no field for it") if part)

    def _why_narrowed(self, path: str) -> str:
        if path == "dedup_key":
            return "another alert has this key there"
        for entry in self.mapping.rows:
            if path in entry.paths and not entry.derived:
                if entry.paths[0] in self.reasons:
                    return self.reasons[entry.paths[0]]
                if entry.why:
                    return entry.why
                if entry.scale:
                    return "the target's scale is coarser"
                return "fitted to the target's limits" if entry.fit else "the target holds only part of it"
        return "the target expresses it differently"

    def _supplied(self, path: str) -> Fate:
        if path not in self.meant:
            return Fate(path, "kept", "", self._homeless(path))
        why = self.reasons.get(path, "the target requires a key; one was generated")
        return Fate(path, "approximated", self.mapping.holder(path, self.body), why)


def _holds(shown: Any, said: dict[str, Any]) -> bool:
    """Whether an object shows everything that was said, under the same names."""
    return isinstance(shown, dict) and all(name in shown and shown[name] == value for name, value in said.items())


WORDS = ("dead", "approximated", "kept")
"""What a line of a report names, in this order."""
LONGEST_LINE, LONGEST_NAME = 1024, 128
"""Characters of such a line, and of a field's name in it."""


def header(upstream: str, report: Sequence[Fate], dead: str = "") -> str:
    """A report as one line of the reply header: only what the upstream could not hold, at most 1 KiB. Names that are
    too long, or have characters that a header cannot have, as callers choose them, are only counted.

    Empty where it could hold everything.
    """
    parts = [f"dead={dead}"] if dead else []
    for word in WORDS[1:]:
        names = [fate.field for fate in report if fate.fate == word]
        plain = [name for name in names if _can_be_told(name)]
        hidden = len(names) - len(plain)
        if names:
            parts.append(f"{word}=" + ",".join([*plain, *([f"+{hidden}"] if hidden else [])]))
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
