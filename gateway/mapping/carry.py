"""The carried object: what a target has no field for is put into its free-form container, and restored from there.

`pack` makes the carried object by comparing the alert with what the target's own fields say of it; `restore` puts back
what those cannot say, except for fields that were changed on the way. Never carried: ids, keys, callers, versions and
times. It must not know any vendor.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import Any

import msgspec

from gateway.canonical import SERVER_OWNED, Flat, checked, plain

LIMIT = 8192
"""Most bytes of a carried object; fields that do not fit are left out, and the alert is sent all the same."""
NEVER = SERVER_OWNED | {"dedup_key"}


def fingerprint(value: Any) -> str:
    """A short digest by which a value is recognised as the one that was written."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:12]


def pack(
    alert: Flat, wire: Flat, spans: dict[str, tuple[int, int]], limit: int = LIMIT
) -> tuple[dict[str, Any] | None, frozenset[str]]:
    """The carried object for an `alert` of which a target's `wire` says something else, and the paths that can be
    restored from it. A field that was cleared, None in the alert, is carried as that.

    `spans` gives the start and end of the sender's own text in texts to which lines were added. The object takes at
    most `limit` bytes.
    """
    fields: dict[str, Any] = {}
    marks: dict[str, str] = {}
    for path, value in alert.items():
        if path in NEVER or (path in wire and wire[path] == value):
            continue
        if value is None:
            fields[path] = None
            continue
        if path in wire:
            marks[path] = fingerprint(wire[path])
        if path not in spans:
            fields[path] = plain(value)
    added = [path for path in wire if alert.get(path) is None and path not in NEVER]
    marks.update((path, fingerprint(wire[path])) for path in added)
    own_text = {path: list(span) for path, span in spans.items() if alert.get(path) is not None}
    packed = _fitting(fields, marks, added, own_text, limit)
    held = packed or {}
    return packed, frozenset((*held.get("fields", ()), *held.get("spans", ())))


def _fitting(
    fields: dict[str, Any], marks: dict[str, str], added: list[str], spans: dict[str, list[int]], limit: int
) -> dict[str, Any] | None:
    """The carried object without its largest fields, as many as have to go for it to fit; None where nothing fits."""

    def with_parts(**parts: Any) -> dict[str, Any]:
        return {name: part for name, part in parts.items() if part}

    whole = with_parts(fields=fields, added=added, spans=spans, marks=marks)
    if len(msgspec.json.encode(whole)) <= limit:  # like nearly all
        return whole or None
    by_size = sorted(fields, key=lambda path: len(msgspec.json.encode(fields[path])), reverse=True)

    def without(count: int) -> dict[str, Any]:
        gone = frozenset(by_size[:count])
        kept, kept_marks = (
            {path: one for path, one in all_of.items() if path not in gone} for all_of in (fields, marks)
        )
        return with_parts(fields=kept, added=added, spans=spans, marks=kept_marks)

    def fits(count: int) -> bool:
        return len(msgspec.json.encode(without(count))) <= limit

    count = bisect_left(range(len(by_size) + 1), True, key=fits)
    return without(count) or None if count <= len(by_size) else None


def restore(wire: Flat, carried: Any) -> Flat:
    """The original alert, from what the target's `wire` says and what it carried. Malformed entries are ignored."""
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
    """A carried value in its canonical type; empty where the path or the value is not canonical."""
    try:
        return checked({path: value})
    except (KeyError, msgspec.ValidationError):
        return {}
