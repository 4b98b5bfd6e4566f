"""What a target has no field for travels in its free-form container, and comes back from there.

`pack` makes the carried object from the alert and from what the target's own wire says of it; `restore` puts back
what the wire cannot say, unless somebody changed the wire on the way. Never carried: ids, keys, callers, versions
and times. It knows no vendor.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from gateway.canonical import SERVER_OWNED, Flat, checked, plain

LIMIT = 8192
"""The most bytes a carried object takes; what is larger stays behind, the page goes out."""
NEVER = SERVER_OWNED | {"dedup_key"}


def fingerprint(value: Any) -> str:
    """A short mark that tells whether a value is still the one that was written."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:12]


def pack(
    alert: Flat, wire: Flat, spans: dict[str, tuple[int, int]], limit: int = LIMIT
) -> tuple[dict[str, Any] | None, frozenset[str]]:
    """The carried object for an `alert` that a target's `wire` says differently, and the paths that come back from it.

    `spans` gives, for a text to which lines were added, where in it the sender's own text stands. The object takes at
    most `limit` bytes.
    """
    fields: dict[str, Any] = {}
    marks: dict[str, str] = {}
    for path, value in alert.items():
        if path in NEVER or (path in wire and wire[path] == value):
            continue
        if path in wire:
            marks[path] = fingerprint(wire[path])
        if path not in spans:
            fields[path] = plain(value)
    added = [path for path in wire if path not in alert and path not in NEVER]
    marks.update((path, fingerprint(wire[path])) for path in added)
    own_text = {path: list(span) for path, span in spans.items() if path in alert}
    packed = _fitting(fields, marks, added, own_text, limit)
    held = packed or {}
    return packed, frozenset((*held.get("fields", ()), *held.get("spans", ())))


def _fitting(
    fields: dict[str, Any], marks: dict[str, str], added: list[str], spans: dict[str, list[int]], limit: int
) -> dict[str, Any] | None:
    """Leaves out the largest fields until the whole fits."""
    while True:
        parts: dict[str, Any] = {"fields": fields, "added": added, "spans": spans, "marks": marks}
        packed = {name: part for name, part in parts.items() if part}
        if not packed or len(msgspec.json.encode(packed)) <= limit:
            return packed or None
        if not fields:
            return None
        largest = max(fields, key=lambda path: len(msgspec.json.encode(fields[path])))
        del fields[largest]
        marks.pop(largest, None)


def restore(wire: Flat, carried: Any) -> Flat:
    """What was sent, from what the target's wire says and what it carried. Anything malformed is left alone."""
    if not isinstance(carried, dict):
        return wire
    marks, spans = carried.get("marks"), carried.get("spans")
    fields, added = carried.get("fields"), carried.get("added")
    marks = marks if isinstance(marks, dict) else {}
    restored = dict(wire)

    def untouched(path: str) -> bool:
        return fingerprint(wire[path]) == marks.get(path) if path in wire else path not in marks

    for path in added if isinstance(added, list) else ():
        if isinstance(path, str) and path in wire and untouched(path):
            del restored[path]
    for path, span in spans.items() if isinstance(spans, dict) else ():
        if _is_span(span) and isinstance(wire.get(path), str) and untouched(path):
            restored[path] = wire[path][span[0] : span[1]]
    for path, value in fields.items() if isinstance(fields, dict) else ():
        if path not in NEVER and untouched(path):
            restored.update(_trusted(path, value))
    return restored


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(end) is int and end >= 0 for end in span)


def _trusted(path: str, value: Any) -> Flat:
    """A carried value in its canonical type; nothing where it has none."""
    try:
        return checked({path: value})
    except (KeyError, msgspec.ValidationError):
        return {}
