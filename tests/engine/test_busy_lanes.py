"""Claiming from a lane with a long history is as quick as from a new one: delivered rows are kept for weeks."""

from __future__ import annotations

import time

import apsw

from gateway.store import DeliveryRow, DeliveryState
from gateway.store.sqlite import SqliteTx
from gateway.store.sqlite_schema import migrate

HISTORY, WAITING = 10_000, 200


def delivery(number: int, state: DeliveryState) -> DeliveryRow:
    """A delivery on the one lane of this test."""
    return DeliveryRow(
        id=number,
        command=number,
        alert=1,
        upstream="u",
        lane="key busy",
        key="busy",
        operation="update",
        state=state,
        created_at=0,
        due=0,
    )


def test_what_was_delivered_does_not_slow_what_waits() -> None:
    """Without an index of the waiting deliveries this takes a second: each is compared with all rows before it."""
    connection = apsw.Connection(":memory:")
    migrate(connection)
    tx = SqliteTx(connection)
    with connection:
        for number in range(1, HISTORY + WAITING + 1):
            tx.insert_delivery(delivery(number, "delivered" if number <= HISTORY else "waiting"))
    began = time.monotonic()
    assert [row.id for row in tx.claim("u", 1, 8)] == [HISTORY + 1]
    assert tx.waits_before(delivery(HISTORY + WAITING, "waiting"))
    assert time.monotonic() - began < 0.5
