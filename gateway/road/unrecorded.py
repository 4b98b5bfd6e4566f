"""Attempts that a killed gateway may have made: nothing was recorded of them, but the alert may have been made there.

Such a delivery goes on as after a lost answer: the alert is looked for before it is made again, and is ended there even
if it is over by then. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.canonical import Operation
from gateway.road.preparing import last_command, target_of
from gateway.road.terms import TELLING, TRIED_AT, TRIED_FIRST, TRIED_WITH
from gateway.store import DeliveryRow, Tx
from gateway.store.moved import RUNNING


def begin(tx: Tx) -> bool:
    """Notes that a gateway runs on this store; returns whether the one before may have been killed."""
    was_running = tx.note(RUNNING) is not False
    tx.put_note(RUNNING, True)
    return was_running


def arrive(tx: Tx) -> bool:
    """Returns whether everything in this store, which keeps claims, was moved here from one that keeps none and whose
    gateway may have been killed. From then on the claims say it: the first gateway that asks is the only one to hear
    it."""
    tx.lock("gateway")
    was_running = tx.note(RUNNING) is True
    if was_running:
        tx.put_note(RUNNING, False)
    return was_running


def end(tx: Tx) -> None:
    """Notes that the gateway on this store has ended, and has recorded all of its attempts."""
    tx.put_note(RUNNING, False)


def doubt(tx: Tx, rows: Iterable[DeliveryRow]) -> None:
    """Notes of each of these deliveries that it may have been sent, so that the alert may be at the upstream. Where the
    alert is known to be there, or to be kept from it, an attempt has changed nothing that is not found anyway."""
    telling = [(row.alert, row) for row in rows if row.alert is not None and row.operation in TELLING]
    tx.lock(*(f"alert {alert}" for alert, _ in telling))  # in one call, as that locks in the same order everywhere
    for alert, row in telling:
        target = target_of(tx, row)
        if target is None or target.state in ("present", "standby") or target.seen.get(TRIED_AT) is not None:
            continue
        last = last_command(tx, alert)
        target.seen[TRIED_AT] = row.created_at
        target.seen[TRIED_WITH] = [row.id, last]
        target.seen[TRIED_FIRST] = last if row.operation == Operation.REOPEN else row.command
        tx.put_target(target)
