"""The carried object: what a target has no field for is put into its free-form container, and restored from there.

`pack` makes the carried object by comparing the alert with what the target's own fields say of it; `restore` puts back
what those cannot say, except for fields that were changed on the way. Never carried: ids, keys, callers, versions and
times. It must not know any vendor.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Set
from typing import Any, NamedTuple

import msgspec

from gateway.canonical import SERVER_OWNED, Flat, checked, plain
from gateway.mapping.remembering import Remembered
from gateway.mapping.table import Mapping

LIMIT = 8192
"""Most bytes of a carried object; fields that do not fit are left out, and the alert is sent all the same."""
EXTENSION = "extensions."
NEVER = SERVER_OWNED | {"dedup_key"}
_encoded = msgspec.json.Encoder(order="deterministic").encode


def fingerprint(value: Any) -> str:
    """A short digest by which a value is recognised as the one that was written."""
    return hashlib.sha256(_encoded(value)).hexdigest()[:12]


class _Parts(NamedTuple):
    """The paths of a carried object: those of values that are carried, of values that are marked, and of what the alert
    itself does not have."""

    fields: tuple[str, ...]
    marks: tuple[str, ...]
    added: tuple[str, ...]


def pack(
    alert: Flat, wire: Flat, spans: dict[str, tuple[int, int]], limit: int = LIMIT, implied: Set[str] = frozenset()
) -> tuple[dict[str, Any] | None, frozenset[str]]:
    """The carried object for an `alert` of which a target's `wire` says something else, and the paths that can be
    restored from it. A field that was cleared, None in the alert, is carried as that. What is `implied` by every alert
    of the target is not taken for something that was added to this one.

    `spans` gives the start and end of the sender's own text in texts to which lines were added. The object takes at
    most `limit` bytes.
    """
    same = tuple([path for path, value in alert.items() if path in wire and wire[path] == value])
    cleared = tuple([path for path, value in alert.items() if value is None]) if None in alert.values() else ()
    parts = _parts[tuple(alert), cleared, same, tuple(wire), tuple(spans), tuple(implied)]
    fields = {path: plain(alert[path]) for path in parts.fields}
    marks = {path: fingerprint(wire[path]) for path in parts.marks}
    own_text = {path: list(span) for path, span in spans.items() if alert.get(path) is not None}
    packed = _fitting(fields, marks, list(parts.added), own_text, limit)
    held = packed or {}
    return packed, frozenset((*held.get("fields", ()), *held.get("spans", ())))


def _parts_of(
    alert: tuple[str, ...],
    cleared: tuple[str, ...],
    same: tuple[str, ...],
    wire: tuple[str, ...],
    spans: tuple[str, ...],
    implied: tuple[str, ...],
) -> _Parts:
    """What is carried of an alert with these paths, of which those in `cleared` are None, and those in `same` are the
    same in what the target says."""
    left, nulls, told, shown = NEVER.union(same), frozenset(cleared), frozenset(alert), frozenset(wire)
    other = [path for path in alert if path not in left]
    fields = [path for path in other if path in nulls or path not in spans]
    marks = [path for path in other if path in shown and path not in nulls]
    mute = [path for path in wire if path in nulls or (path not in told and path not in implied)]
    added = tuple(path for path in mute if path not in NEVER)
    return _Parts(tuple(fields), (*marks, *added), added)


_parts = Remembered(_parts_of)


def _fitting(
    fields: dict[str, Any], marks: dict[str, str], added: list[str], spans: dict[str, list[int]], limit: int
) -> dict[str, Any] | None:
    """The carried object without its largest fields, as many as have to go for it to fit; None where nothing fits."""
    whole = _with_parts(fields, added, spans, marks)
    if len(msgspec.json.encode(whole)) <= limit:  # like nearly all
        return whole or None
    by_size = sorted(fields, key=lambda path: len(msgspec.json.encode(fields[path])), reverse=True)

    def without(count: int) -> dict[str, Any]:
        gone = frozenset(by_size[:count])
        kept, kept_marks = (
            {path: one for path, one in all_of.items() if path not in gone} for all_of in (fields, marks)
        )
        return _with_parts(kept, added, spans, kept_marks)

    def fits(count: int) -> bool:
        return len(msgspec.json.encode(without(count))) <= limit

    count = bisect_left(range(len(by_size) + 1), True, key=fits)
    return without(count) or None if count <= len(by_size) else None


def _with_parts(
    fields: dict[str, Any], added: list[str], spans: dict[str, list[int]], marks: dict[str, str]
) -> dict[str, Any]:
    """The carried object of these parts, without empty ones."""
    whole: dict[str, Any] = {}
    if fields:
        whole["fields"] = fields
    if added:
        whole["added"] = added
    if spans:
        whole["spans"] = spans
    if marks:
        whole["marks"] = marks
    return whole


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


def credible(carried: Any, tables: Iterable[Mapping]) -> Any:
    """What was carried, without the fields of single vendors that none of these vendors' callers could have said: what
    a container holds is whatever a caller puts there, and nothing else checks those fields. All others have a canonical
    type, which `restore` goes by, and no vendor's."""
    fields = carried.get("fields") if isinstance(carried, dict) else None
    if not isinstance(fields, dict) or not any(path.startswith(EXTENSION) for path in fields):
        return carried
    tables = tuple(dict.fromkeys(tables))  # many upstreams have the same

    def is_credible(path: str, value: Any) -> bool:
        return not path.startswith(EXTENSION) or all(table.takes(path, value) for table in tables)

    return {**carried, "fields": {path: value for path, value in fields.items() if is_credible(path, value)}}


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(end) is int and end >= 0 for end in span)


def _trusted(path: str, value: Any) -> Flat:
    """A carried value in its canonical type; empty where the path or the value is not canonical."""
    try:
        return checked({path: value})
    except (KeyError, msgspec.ValidationError):
        return {}
