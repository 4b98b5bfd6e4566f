"""Translates a canonical alert into an upstream's body, and reports what became of every field.

The report is not declared but found out: what was written is read back with the target's own rows, and each
field's fate follows from the difference. Everything here is pure. It must not know any vendor, nor how and when
something is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import UNSET, Struct, json

from gateway.canonical import LOWEST_SEVERITY, QUIET_CATEGORY, Flat
from gateway.mapping.carry import LIMIT, pack
from gateway.mapping.page import OF_FACTS, page_text
from gateway.mapping.report import Fate, Report
from gateway.mapping.rows import Unmet, Writing
from gateway.mapping.saying import Destination, Saying
from gateway.mapping.table import CARRIED
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.wire import Wire, copied, get, put, remove, without

EMPTY: tuple[Any, ...] = (None, "", (), [])
"""Values that a target which requires one takes for missing."""


class Said(Struct, frozen=True):
    """An alert in the destination's words: the whole (`body`), and what an update changes (`patch`); and how to find
    out what became of each field. Nested values may be shared with the record, and must not be changed."""

    body: Wire
    patch: Wire
    fates: Callable[[], tuple[Fate, ...]]

    @property
    def report(self) -> tuple[Fate, ...]:
        """What became of each field. Worked out when asked for, as an attempt to send does not need it."""
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
        return Said(body, patch, lambda: Report(saying, mapping, body, _meaning(mapping, body, known), reasons).fates())
    meant = _meaning(mapping, body, known)
    report = Report(saying, mapping, body, meant, reasons)
    carried = _carry(saying, destination, body, meant, report, hush)
    if saying.changed is not None:
        _carry_along(mapping, body, patch)
    return Said(body, patch, partial(report.fates, carried))


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
    whole = _without_cleared(told)
    body = _whole_body(mapping, whole, writing, needs_all=saying.changed is None)
    if saying.changed is None:
        return body, {}, None
    again = {path: value for path, value in told.items() if value is not None or path not in mapping.needed}
    patch = _change(mapping, again, writing, _beside(mapping, saying.changed))
    _supply(mapping, patch, body, {path for path in saying.changed if _says_nothing(told.get(path))})
    return body, patch, None


def _without_cleared(flat: Flat) -> Flat:
    """A copy without what was cleared."""
    if None not in flat.values():  # like nearly all
        return dict(flat)
    return {path: value for path, value in flat.items() if value is not None}


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
    saying: Saying, destination: Destination, body: Wire, meant: Flat, report: Report, hush: str
) -> frozenset[str]:
    """Adds the lines for responders and the carried object to `body`; returns the paths that are carried."""
    mapping = destination.mapping
    _unshare(mapping, body)
    spans: dict[str, tuple[int, int]] = {}
    if mapping.details and destination.dialect.kind == "occurrence":
        text, span = page_text(saying, report.inexact(OF_FACTS), hush, destination.public_url)
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
    alert = dict(saying.flat) if is_update else _without_cleared(saying.flat)
    if alert.get("kind") == mapping.kind:
        del alert["kind"]
    packed, carried = pack(alert, meant, spans, mapping.carries_at_most(body, LIMIT), mapping.implied.keys())
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


def unmet_text(upstream: str, unmet: Unmet) -> str:
    """Says which upstream requires which field, and the setting that would supply it."""
    return (
        f"upstream {upstream!r} requires {unmet.path}, which this alert does not have; "
        f"supply it with `defaults` of [upstreams.{upstream}] or `set` on the route"
    )
