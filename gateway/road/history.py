"""Earlier requests: the commands that an alert came through, and the result of one of them.

Plain functions of a transaction; they must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.asked import Inquired, Told
from gateway.canonical import Operation
from gateway.mapping.values import from_millis
from gateway.road.accepted import Caller
from gateway.store import AlertRow, CommandRow, Tx

FIRST_PART = 16
"""Number of commands in the first part that `newest_first` reads."""


def told(tx: Tx, alert: int) -> tuple[Told, ...]:
    """The commands that an alert came through, oldest first, without those that were undone."""
    return tuple(
        Told(
            number=row.id,
            operation=Operation(row.operation),
            at=from_millis(row.at),
            caller=row.caller,
            comment=row.body.comment,
        )
        for row in tx.commands(alert)
        if row.refused is None
    )


def newest_first(tx: Tx, alert: int) -> Iterator[CommandRow]:
    """The commands that an alert came through, newest first. They are read in growing parts, as mostly the last few are
    enough, and there may be thousands."""
    seen, last = 0, FIRST_PART
    while True:
        rows = tx.commands(alert, last)
        yield from reversed(rows[: len(rows) - seen])
        if len(rows) < last:
            return
        seen, last = len(rows), last * 4


def inquire(tx: Tx, who: Caller, request: int) -> tuple[Inquired, AlertRow | None] | None:
    """The result of an earlier request in this scope, and the alert that it was about; None for an unknown request."""
    row = tx.command(request)
    if row is None or row.scope != who.scope:
        return None
    was = Operation(row.operation)
    asked = Operation(row.body.asked) if row.body.asked else was
    inquired = Inquired(operation=asked, was=was, at=from_millis(row.at), failed=_failed(tx, row))
    return inquired, tx.alert(row.alert) if row.alert is not None else None


def _failed(tx: Tx, row: CommandRow) -> str:
    """Why a command failed: it was undone, there was no alert to work on, or every upstream refused it; else empty. A
    command that still waits has not failed, and neither has one of which no upstream had to be told."""
    if row.refused is not None:
        return row.refused
    deliveries = tx.deliveries_of(row.id)
    if row.alert is None and not deliveries:
        return "there is no such alert"
    if deliveries and all(one.state == "dead" for one in deliveries):
        return f"{deliveries[0].upstream}: {deliveries[0].reason}"
    return ""
