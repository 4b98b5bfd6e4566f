"""The effect of a command on a record: which of its fields are a change, what the operation means in the alert's
current state, and how it changes that state. Plain functions; they must not know any vendor, upstreams or transactions.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from gateway.asked import Command
from gateway.canonical import Flat, Operation, unflatten
from gateway.dialect import Dialect
from gateway.mapping.carry import restore
from gateway.mapping.table import Mapping
from gateway.mapping.values import from_millis, millis
from gateway.store import AlertRow


def resolve_hints(before: Flat, asked: Command, holding: Mapping | None = None) -> Flat:
    """The patch of an update. Where two wire fields speak of one canonical field, the value that differs from the
    record is the change; where both differ, the principal field wins over the hint. `holding` is the table of a vendor
    in whose place we stand: it restores nothing of what was carried, but holds it in its container."""
    said = {} if asked.only_new else asked.patch
    patch = {path: value for path, value in said.items() if path != "kind"}
    if asked.carried and not asked.only_new:
        told = _held(before, patch, asked.carried, holding) if holding else _restored(before, patch, asked.carried)
        patch = {path: value for path, value in told.items() if path != "kind"}
    if asked.amend:
        patch |= asked.amend(before)
    for hint in asked.hints:
        principal = patch.get(hint.path, UNSET)
        if principal is not UNSET and principal != before.get(hint.path):
            continue
        if before.get(hint.path) not in hint.unless:
            patch[hint.path] = hint.value
    return patch


def _restored(before: Flat, patch: Flat, carried: Any) -> Flat:
    """The patch with what it carried. Some vendors are told of each field alone: then the record already has what this
    belongs to, such as a text with lines added, and that is restored, too."""
    marks = carried.get("marks") if isinstance(carried, dict) else None
    told = {path: before[path] for path in (marks if isinstance(marks, dict) else ()) if before.get(path) is not None}
    restored = restore({**told, **patch}, carried)
    return {path: value for path, value in restored.items() if path in patch or value != told.get(path, UNSET)}


def _held(before: Flat, patch: Flat, carried: Any, table: Mapping) -> Flat:
    """The patch with what it carried as the vendor itself keeps it."""
    told = {**before, **patch}
    held = table.held(told, carried)
    return {path: value for path, value in held.items() if path in patch or value != told.get(path, UNSET)}


def without_implied(patch: Flat, before: Flat, dialect: Dialect) -> Flat:
    """The patch without values that the vendor implies and the record does not hold: clients echo what they were shown,
    which is no change."""
    implied = dialect.mapping.implied
    return {
        path: value for path, value in patch.items() if path in before or path not in implied or implied[path] != value
    }


def meaning_of(asked: Operation, row: AlertRow) -> Operation:
    """The operation given the alert's state: a create of an alert that exists, or an operation that does not apply to
    its state, such as acknowledging one that is not firing, is an update."""
    if asked is Operation.CREATE:
        return Operation.UPDATE
    if asked is Operation.REOPEN and row.status != "resolved":
        return Operation.UPDATE
    if asked is Operation.RESOLVE and row.status == "resolved":
        return Operation.UPDATE
    if asked is Operation.ACKNOWLEDGE and row.status != "firing":
        return Operation.UPDATE
    return asked


def stamp(flat: Flat, operation: Operation, now: int) -> None:
    """Sets the status and its times as the operation changes them."""
    if operation is Operation.ACKNOWLEDGE:
        flat.update(status="acknowledged", acknowledged_at=from_millis(now))
    elif operation is Operation.RESOLVE:
        flat.update(status="resolved", resolved_at=from_millis(now))
    elif operation is Operation.REOPEN:
        flat.update(status="firing", resolved_at=None)
        if (ends := flat.get("ends_at")) is not None and ends <= from_millis(now):
            flat["ends_at"] = None  # else the alert would lapse again at once


def end_of(flat: Flat) -> int | None:
    """When an alert lapses unless its sender repeats it, in milliseconds; None where the sender gives no time."""
    return millis(flat["ends_at"]) if flat.get("ends_at") else None


def record(row: AlertRow, flat: Flat) -> None:
    """Puts a state that was said here, or said no more, into an alert's row."""
    if flat.get("ends_at") != (row.body.ends_at or None):  # else it may be what a list showed, and nobody said
        row.ends_at = end_of(flat)
    record_as_shown(row, flat)


def record_as_shown(row: AlertRow, flat: Flat) -> None:
    """Puts a state that an upstream shows into an alert's row: it does not say when the alert lapses here."""
    row.status, row.resource = flat["status"], flat.get("resource")
    row.is_open = not row.is_deleted and row.status != "resolved"
    row.body = unflatten(flat)
