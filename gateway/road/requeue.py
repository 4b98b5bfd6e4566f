"""Putting dead deliveries back into the outbox, and taking deliveries out of it for good.

Plain functions of a transaction. They must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.canonical import Operation
from gateway.codes import Code
from gateway.store import DeliveryFilter, DeliveryRow, Tx

BATCH = 500
"""Deliveries read at a time."""
OPENING = ((Operation.CREATE, "waiting"), (Operation.REOPEN, "gone"))
"""Operations that would have opened an alert at an upstream, with its target's state there until they do."""


def send_again(tx: Tx, rows: Iterable[DeliveryRow], now: int, *, force: bool) -> tuple[list[int], list[str]]:
    """Puts dead deliveries back into the outbox, in their old order; returns which, and what was refused and why.

    One whose lane has delivered something newer since would undo that: it is refused unless forced.
    """
    again, refused = [], []
    for row in _by_now(tx, rows):
        if row.state != "dead":
            refused.append(f"{row.id}: is {row.state}, not dead")
        elif not force and tx.newer_delivered(row):
            refused.append(f"{row.id}: its lane has delivered something newer since; --force sends it anyway")
        else:
            row.state, row.due, row.finished_at, row.created_at = "waiting", now, None, now
            row.reason = row.code = ""
            tx.update_delivery(row)
            tx.tell("wake")
            again.append(row.id)
    return again, refused


def told_at_last(tx: Tx, upstream: str, now: int, after: int) -> int:
    """Puts a batch of deliveries back into the outbox that died because their upstream was not in the configuration;
    returns the delivery after which to go on, 0 where nothing is left."""
    rows = tx.deliveries(DeliveryFilter(state="dead", upstream=upstream, after=after, limit=BATCH))
    send_again(tx, [row for row in rows if row.code == Code.NO_UPSTREAM], now, force=False)
    return rows[-1].id if len(rows) == BATCH else 0


def drop(tx: Tx, rows: Iterable[DeliveryRow], because: str, now: int) -> tuple[list[int], list[str]]:
    """Takes deliveries out of the outbox for good, with the reason; returns which, and what was refused and why."""
    dropped, refused = [], []
    for row in _by_now(tx, rows):
        if row.state not in ("waiting", "dead"):
            refused.append(f"{row.id}: is {row.state}, so there is nothing to drop")
            continue
        row.state, row.finished_at, row.reason, row.code = "void", now, f"dropped: {because}", Code.DROPPED.value
        tx.update_delivery(row)
        dropped.append(row.id)
        for target in tx.targets(row.alert) if row.alert is not None else ():
            if target.upstream == row.upstream and (row.operation, target.state) in OPENING:
                target.state = "dead"
                tx.put_target(target)
    return dropped, refused


def _by_now(tx: Tx, rows: Iterable[DeliveryRow]) -> Iterator[DeliveryRow]:
    """Reads deliveries again, locked: since they were chosen, another replica may have sent them, or put them back into
    the outbox. Those that are gone are left out."""
    known = list(rows)
    for begin in range(0, len(known), BATCH):
        ids = [row.id for row in known[begin : begin + BATCH]]
        found = {row.id: row for row in tx.held(ids)}
        yield from (found[one] for one in ids if one in found)
