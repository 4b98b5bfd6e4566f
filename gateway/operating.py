"""What an operator does with the outbox: look at deliveries, send dead ones again, drop what is not wanted.

Plain functions of a transaction. They must not know any vendor, nor where they are called from.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.canonical import Operation
from gateway.store import DeliveryFilter, DeliveryRow, Tx


class NotAsAsked(Exception):
    """An operator's wish cannot be fulfilled; the message says why, and what would help."""


def of_alert(tx: Tx, name: str) -> int | None:
    """The alert that any party of any scope knows by this id."""
    return tx.alert_of_anybody(name)


def chosen(tx: Tx, ids: Iterable[int], *, dead: bool, upstream: str | None) -> list[DeliveryRow]:
    """The dead deliveries that are meant: by id, all of them, or those of one upstream."""
    wanted = tuple(ids)
    if wanted:
        found = tx.deliveries(DeliveryFilter(ids=wanted, limit=len(wanted)))
        missing = sorted(set(wanted) - {row.id for row in found})
        if missing:
            raise NotAsAsked(f"no such delivery: {', '.join(map(str, missing))}")
        return sorted(found, key=lambda row: row.id)
    if not dead and upstream is None:
        raise NotAsAsked("name deliveries by id, or say --dead or --upstream")
    rows = tx.deliveries(DeliveryFilter(state="dead", upstream=upstream, limit=1_000_000))
    return sorted(rows, key=lambda row: row.id)


def send_again(tx: Tx, rows: Iterable[DeliveryRow], now: int, *, force: bool) -> tuple[list[int], list[str]]:
    """Puts dead deliveries back into the outbox, in their old order; answers which, and what was refused and why.

    One whose lane has delivered something newer since would undo that: it is refused unless forced.
    """
    again, refused = [], []
    for row in rows:
        if row.state != "dead":
            refused.append(f"{row.id}: is {row.state}, not dead")
        elif not force and tx.newer_delivered(row):
            refused.append(f"{row.id}: its lane has delivered something newer since; --force sends it all the same")
        else:
            row.state, row.due, row.finished_at, row.created_at = "waiting", now, None, now
            tx.update_delivery(row)
            again.append(row.id)
    return again, refused


def drop(tx: Tx, rows: Iterable[DeliveryRow], because: str, now: int) -> tuple[list[int], list[str]]:
    """Takes deliveries out of the outbox for good, with the reason; answers which, and what was refused and why."""
    dropped, refused = [], []
    for row in rows:
        if row.state not in ("waiting", "dead"):
            refused.append(f"{row.id}: is {row.state}, there is nothing to drop")
            continue
        row.state, row.finished_at, row.reason = "void", now, f"dropped: {because}"
        tx.update_delivery(row)
        dropped.append(row.id)
        for target in tx.targets(row.alert) if row.alert is not None else ():
            if target.upstream == row.upstream and row.operation == Operation.CREATE and target.state == "waiting":
                target.state = "dead"
                tx.put_target(target)
    return dropped, refused
