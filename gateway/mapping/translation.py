"""Translates a canonical alert into an upstream's body, and reports what became of every field.

The report is not declared but found out: what was written is read back with the target's own rows, and each
field's fate follows from the difference. Everything here is pure. It must not know any vendor, nor how and when
something is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, json

from gateway.canonical import LOWEST_SEVERITY, QUIET_CATEGORY, SERVER_OWNED, Flat, Link
from gateway.dialect import Dialect
from gateway.mapping.carry import LIMIT, pack
from gateway.mapping.rows import Unmet, Writing
from gateway.mapping.table import CARRIED, Reading
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.values import iso_seconds
from gateway.mapping.wire import Wire, copied, get, put, remove, without

EMPTY: tuple[Any, ...] = (None, "", (), [])
"""Values that a target which requires one takes for missing."""
Word = Literal["mapped", "carried", "approximated", "kept", "dropped"]


class Fate(Struct, frozen=True):
    """What became of one canonical field at one upstream; `to` is the wire leaf that holds it now."""

    field: str
    fate: Word
    to: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """An upstream as far as translation goes: its dialect and rows, and the settings about content. Pages have a link
    to the alert's trace at `public_url`, if there is one."""

    name: str
    dialect: Dialect
    mapping: Rows
    defaults: Flat = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    rules: Literal["page", "quiet", "refuse"] = "page"
    carry: Literal["full", "ids", "off"] = "full"
    public_url: str = ""


class Saying(Struct, frozen=True, kw_only=True):
    """An alert to be translated for a destination.

    `flat` is the record, `id` the gateway's own id, `origin` the dialect of the caller and `caller` its name; `key` is
    the alert's key there; `replaced` what the route sets and `route` its name; `changed` the paths of an update (None:
    the whole alert is sent); `verbatim` and `said` are the caller's own words for the whole alert and for this command,
    and `reading` what the latter were read as, if still known; `at` is when the command came; `late` is a note that is
    put at the top of the details.
    """

    flat: Flat
    origin: str
    caller: str
    id: int | None = None
    key: str | None = None
    replaced: Flat = msgspec.field(default_factory=dict)
    route: str = ""
    changed: tuple[str, ...] | None = None
    verbatim: Wire | None = None
    said: Wire | None = None
    reading: Reading | None = None
    at: datetime | None = None
    late: str = ""
    dropped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Said:
    """An alert in the destination's words: the whole (`body`), and what an update changes (`patch`); and how to find
    out what became of each field. Nested values may be shared with the record, and must not be changed."""

    body: Wire
    patch: Wire
    fates: Callable[[], tuple[Fate, ...]]

    @cached_property
    def report(self) -> tuple[Fate, ...]:
        """What became of each field. Worked out when first asked for, as an attempt to send does not need it."""
        return self.fates()


def translate(saying: Saying, destination: Destination) -> Said:
    """Translates an alert for a destination. Raises `Unmet` where that requires a value which nobody supplied."""
    mapping = destination.mapping
    akin = saying.origin == destination.dialect.name
    altered: dict[str, str] = dict.fromkeys(saying.replaced, f"set by route {saying.route}")
    told = {**saying.flat, **saying.replaced}
    hush = hushed(told, destination)
    if hush:
        told.update(severity=LOWEST_SEVERITY, urgency="low")
        altered.update(severity=hush, urgency=hush)
    if saying.key is not None:
        told["dedup_key"] = saying.key
    writing = Writing(
        defaults=destination.defaults, metrics=destination.metrics, origin=saying.origin, caller=saying.caller
    )
    say = _in_its_own_words if akin else _in_other_words
    body, patch, known = say(saying, mapping, told, writing)
    if akin and saying.late and mapping.details:
        body, patch = copied(body), copied(patch)
        _note_lateness(saying, mapping, mapping.details, (body, patch))
        altered["details"], known = "a note that the page is late was added", None
    reasons = {**writing.filled, **altered}
    if akin:
        return Said(
            body, patch, lambda: _Report(saying, mapping, body, told, _meaning(mapping, body, known), reasons).fates()
        )
    meant = _meaning(mapping, body, known)
    report = _Report(saying, mapping, body, told, meant, reasons)
    report.carried = _carry(saying, destination, body, meant, report, hush)
    if saying.changed is not None:
        _carry_along(mapping, body, patch)
    return Said(body, patch, report.fates)


def _meaning(mapping: Rows, body: Wire, known: Flat | None) -> Flat:
    """The values that reach the vendor with a body, read back from it unless they are known."""
    meant = {**mapping.implied, **(mapping.meaning(body) if known is None else known)}
    if mapping.shown is not None:
        meant = {path: value for path, value in meant.items() if mapping.reaches(path)}
    return meant


def _in_its_own_words(saying: Saying, mapping: Rows, told: Flat, writing: Writing) -> tuple[Wire, Wire, Flat | None]:
    """Body, patch, and the body's values where known, for a caller and an upstream of one dialect: in the caller's own
    words wherever these still mean what is to be sent."""
    patch: Wire = {}
    if saying.changed is not None:
        change = partial(_change, mapping, told, writing, saying.changed)
        patch = change() if saying.said is None else mapping.restate(told, saying.said, change, saying.reading)[0]
    whole = partial(_whole_body, mapping, told, writing, needs_all=False)
    if saying.verbatim is None:
        return whole(), patch, None
    body, meant = mapping.restate(told, saying.verbatim, whole, saying.reading)
    return body, patch, meant


def _in_other_words(saying: Saying, mapping: Rows, told: Flat, writing: Writing) -> tuple[Wire, Wire, Flat | None]:
    """Body and patch for an upstream of another dialect than the caller's. The body leaves out what was cleared; a
    patch clears it too, but has the body's values for what the target requires."""
    whole = {path: value for path, value in told.items() if value is not None}
    body = _whole_body(mapping, whole, writing, needs_all=saying.changed is None)
    if saying.changed is None:
        return body, {}, None
    again = {path: value for path, value in told.items() if value is not None or path not in mapping.needed}
    patch = _change(mapping, again, writing, _beside(mapping, saying.changed))
    _supply(mapping, patch, body, {path for path in saying.changed if _says_nothing(told.get(path))})
    return body, patch, None


def _beside(mapping: Rows, changed: tuple[str, ...]) -> tuple[str, ...]:
    """The changed paths, and those in the same wire object: a vendor may replace the object by what an update has of
    it."""
    objects = {
        leaf.partition(".")[0]
        for entry in mapping.rows
        if not entry.derived and not set(changed).isdisjoint(entry.paths)
        for leaf in entry.wires
        if "." in leaf
    }
    if not objects:
        return changed
    inside = (entry for entry in mapping.rows if any(leaf.partition(".")[0] in objects for leaf in entry.wires))
    return (*changed, *(path for entry in inside for path in entry.paths))


def _supply(mapping: Rows, patch: Wire, body: Wire, emptied: set[str]) -> None:
    """Where an update empties what the target requires, puts the whole alert's value into the patch instead, if any."""
    for entry in mapping.rows:
        for leaf in entry.wires if entry.required and not emptied.isdisjoint(entry.paths) else ():
            value = get(body, leaf)
            if value is UNSET or _says_nothing(value):
                remove(patch, leaf)
            else:
                put(patch, leaf, value)


def _says_nothing(value: Any) -> bool:
    """Whether a target that requires a value takes this one for missing: blank texts are, too."""
    return value in EMPTY or (isinstance(value, str) and not value.strip())


def _whole_body(mapping: Rows, whole: Flat, writing: Writing, *, needs_all: bool) -> Wire:
    """The body of the whole alert. Unless it `needs_all`, it is not refused for lack of what the target requires: an
    alert that is there already has that, and a caller of the same dialect had to give it when it called."""
    try:
        return mapping.write(whole, writing)
    except Unmet:
        if needs_all:
            raise
        return mapping.write(whole, writing, partial=True)


def hushed(flat: Flat, destination: Destination) -> str:
    """Why an alert must wake nobody at a vendor of occurrences, or an empty text."""
    if destination.dialect.kind != "occurrence":
        return ""
    if flat.get("kind") == "rule" and flat.get("enabled") is False:
        return "the rule is switched off"
    if flat.get("kind") == "rule" and destination.rules == "quiet":
        return 'rules are sent quietly here (rules = "quiet")'
    if flat.get("category") == QUIET_CATEGORY:
        return "its category is good news"
    return ""


def _change(mapping: Rows, told: Flat, writing: Writing, changed: tuple[str, ...]) -> Wire:
    """Writes the changed paths, and those that share a row with one of them, as a row is written as a whole."""
    wanted = set(changed)
    for entry in mapping.rows:
        if wanted.intersection(entry.paths):
            wanted.update(entry.paths)
    return mapping.write({path: value for path, value in told.items() if path in wanted}, writing, partial=True)


def _carry(
    saying: Saying, destination: Destination, body: Wire, meant: Flat, report: _Report, hush: str
) -> frozenset[str]:
    """Adds the lines for responders and the carried object to `body`; returns the paths that are carried."""
    mapping = destination.mapping
    _unshare(mapping, body)
    spans: dict[str, tuple[int, int]] = {}
    if mapping.details and destination.dialect.kind == "occurrence":
        text, span = page_text(saying, report.inexact(), hush, destination.public_url)
        fitted = mapping.fitted(mapping.details, text)
        put(body, mapping.details, fitted)
        if fitted == text:
            spans["details"] = span
        meant = {**meant, "details": fitted}
    meant = _once_carried(mapping, body, meant)
    if not mapping.container or destination.carry == "off":
        return frozenset()
    if destination.carry == "ids":
        mapping.carry(body, {"id": str(saying.id)})
        return frozenset()
    is_update = saying.changed is not None  # the target may still have what was cleared
    alert = {path: value for path, value in saying.flat.items() if value is not None or is_update}
    if alert.get("kind") == mapping.kind:
        del alert["kind"]
    wire = {path: value for path, value in meant.items() if path in alert or path not in mapping.implied}
    packed, carried = pack(alert, wire, spans, mapping.carries_at_most(body, LIMIT))
    if packed:
        mapping.carry(body, packed)
    return carried


def _unshare(mapping: Rows, body: Wire) -> None:
    """Copies the container in a body, so that what is added there is not added to the record."""
    held = get(body, mapping.container) if mapping.container else UNSET
    if mapping.container and isinstance(held, dict):
        put(body, mapping.container, dict(held))


def _once_carried(mapping: Rows, body: Wire, meant: Flat) -> Flat:
    """The values of the body once something is carried in it, which differ where the container is empty, or holds the
    details as well."""
    held = get(body, mapping.container) if mapping.container else UNSET
    if held != {} and not (mapping.details or "").startswith(f"{mapping.container}."):
        return meant
    return mapping.meaning_again(without(body, mapping.container) if mapping.container and held == {} else body, meant)


def _note_lateness(saying: Saying, mapping: Rows, details: str, said: tuple[Wire, Wire]) -> None:
    """Puts the note that a page is late above its details; between two of one dialect nothing else is ever added."""
    for words in said if saying.changed is not None else said[:1]:
        own = get(words, details)
        told = own if isinstance(own, str) else json.encode(own).decode() if own not in (UNSET, None) else ""
        noted = f"{saying.late}\n\n{told}" if told else saying.late
        put(words, details, mapping.fitted(details, noted))


def _carry_along(mapping: Rows, body: Wire, patch: Wire) -> None:
    """Puts what is carried in the body into an update's patch too."""
    held = get(body, f"{mapping.container}.{CARRIED}") if mapping.container else UNSET
    if held is not UNSET:
        _unshare(mapping, patch)
        put(patch, f"{mapping.container}.{CARRIED}", held)


RUNBOOK = "runbook_url"
LONGEST_LABELS = 500
MOST_LINES = 6
"""Lines below the sender's text on a page. What the sender said has precedence over the link to the gateway's trace."""
SEVERITY_NAMES = ("emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug")


def page_text(saying: Saying, inexact: frozenset[str], hush: str, public_url: str = "") -> tuple[str, tuple[int, int]]:
    """The details of a page: the late note, the sender's text, then at most six lines of what has no field.

    Returns the text, and the start and end of the sender's own part of it.
    """
    before = [line for line in (saying.late, f"This wakes nobody: {hush}." if hush else "") if line]
    own = saying.flat.get("details") or ""
    lines = [f"{name}: {value}" for name, value in _facts(saying.flat, inexact)][: MOST_LINES - 1]
    if public_url and saying.id is not None and len(lines) < MOST_LINES - 1:
        lines.append(f"trace: {public_url}/-/alerts/{saying.id}")
    when = f", {iso_seconds(saying.at)}" if saying.at else ""
    lines.append(f"via: {saying.origin}/{saying.caller}{when}")
    start = "".join(f"{line}\n\n" for line in before)
    apart = "\n" * max(0, 2 - (len(own) - len(own.rstrip("\n")))) if own else ""
    text = start + own + apart + "\n".join(lines)
    return text, (len(start), len(start) + len(own))


def _facts(flat: Flat, inexact: frozenset[str]) -> Iterable[tuple[str, str]]:
    """What a responder wants to know and the target has no field for, each with its name and as a single line."""
    for name, (paths, told) in FACTS.items():
        value = None if inexact.isdisjoint(paths) else told(flat)
        text = " ".join(str(value).split()) if value is not None else ""
        if text:
            yield name, text


def _labels(flat: Flat) -> str | None:
    """The labels whose values are not on the page already: for some senders only they tell one alert from another."""
    told = {str(flat.get(path)) for path in ("summary", "team", "resource", "source")}
    labels = {name: value for name, value in (flat.get("labels") or {}).items() if value not in told}
    return ", ".join(f"{name}={value}" for name, value in labels.items() if name != RUNBOOK)[:LONGEST_LABELS] or None


def _runbook(flat: Flat) -> str | None:
    """The address of the runbook, which some senders give as a label, some as a custom field."""
    return (flat.get("labels") or {}).get(RUNBOOK) or (flat.get("custom") or {}).get(RUNBOOK)


def _link(flat: Flat) -> str | None:
    """The first link, with its text and the number of further ones."""
    links: Sequence[Link] = flat.get("links") or ()
    if not links:
        return None
    first = links[0]
    called = f" ({first.text})" if first.text and first.text != first.href else ""
    return f"{first.href}{called}" + (f", and {len(links) - 1} more" if links[1:] else "")


def _severity(flat: Flat) -> str | None:
    """A severity as its sender gave it, with the name that RFC 5424 has for it."""
    severity = flat.get("severity")
    return None if severity is None else f"{severity} ({SEVERITY_NAMES[severity]})"


def _whereabouts(flat: Flat) -> str | None:
    """Resource and source: for some vendors the one is a part of a machine, and the other is the machine."""
    named = dict.fromkeys(str(flat[path]) for path in ("resource", "source") if flat.get(path))
    return " on ".join(named) or None


FACTS: Mapping[str, tuple[tuple[str, ...], Callable[[Flat], str | None]]] = {
    "severity": (("severity",), _severity),
    "team": (("team",), lambda flat: flat.get("team")),
    "resource": (("resource", "source"), _whereabouts),
    "runbook": (("labels", "custom"), _runbook),
    "link": (("links",), _link),
    "labels": (("labels",), _labels),
}
"""The lines of a page by name, each with its paths and its text; a line is left out where the target shows all of its
paths."""


class _Report:
    """The fates of one translation, found by comparing what was to be sent with what the body was read back as."""

    def __init__(
        self,
        saying: Saying,
        mapping: Rows,
        body: Wire,
        told: Flat,
        meant: Flat,
        reasons: Mapping[str, str],
    ) -> None:
        self.saying = saying
        self.mapping = mapping
        self.body = body
        self.told = told
        self.meant = meant
        self.reasons = reasons
        self._set_by = {path: reasons.get(path, "") for path in saying.replaced}
        self.carried: frozenset[str] = frozenset()
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

    def fates(self) -> tuple[Fate, ...]:
        """One fate per field that was said, then those of supplied fields, then those of dropped ones."""
        fates = [self._fate(path) for path in self._asked()]
        asked = {fate.field for fate in fates}
        if self.saying.changed is None:
            supplied = [path for path in self.meant if path not in asked and path in self.reasons]
            supplied += [path for path in self.saying.replaced if path not in asked and path not in self.meant]
            if "dedup_key" in self.meant and "dedup_key" not in self.saying.flat:
                supplied.append("dedup_key")
            fates += [self._supplied(path) for path in supplied]
        return (*fates, *(Fate(name, "dropped", "", why) for name, why in self.saying.dropped))

    def _fate(self, path: str) -> Fate:
        if path in self._exact:
            return Fate(path, "mapped", self.mapping.holder(path, self.body), self._set_by.get(path, ""))
        if path in self.meant:
            why = self.reasons.get(path) or self._why_narrowed(path)
            return Fate(path, "approximated", self.mapping.holder(path, self.body), why)
        if path in self.carried:
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


def unmet_text(upstream: str, unmet: Unmet) -> str:
    """Says which upstream requires which field, and the setting that would supply it."""
    return (
        f"upstream {upstream!r} requires {unmet.path}, which this alert does not have; "
        f"supply it with `defaults` of [upstreams.{upstream}] or `set` on the route"
    )
