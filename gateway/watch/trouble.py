"""What can be wrong with the gateway itself, and the proof that its store takes commits.

It must not know any vendor, nor who is told.
"""

from __future__ import annotations

import asyncio
import time

from msgspec import Struct

from gateway.errors import StoreError
from gateway.store import Store

HELD, AWAY, LEFT = "upstream-held", "store-unavailable", "store-left-behind"
CODES = (HELD, "upstream-stalled", "dead-letters", "store-full", "store-log", AWAY, LEFT)
"""Every kind of trouble; each is a heading in the runbook."""
PROOF = "proof"
LOG_TOO_LONG = 1 << 30
"""Bytes of a write-ahead log that is not used again: minutes under the heaviest load, as during a backup, and beyond
that somebody who reads without end."""


class Trouble(Struct, frozen=True):
    """Something wrong with the gateway: a code that is a heading in the runbook, the upstream that it is about, if any,
    and a line of text."""

    code: str
    about: str
    summary: str

    @property
    def key(self) -> str:
        """The key of its alarm, the same for as long as it lasts."""
        return f"alert-gateway/{self.code}" + (f"/{self.about}" if self.about else "")


STORE_FULL = Trouble("store-full", "", "alert-gateway: the disk is full, new alerts are refused")
STORE_LOG = Trouble("store-log", "", "alert-gateway: a program keeps reading the store, and its log grows without end")
STORE_AWAY = Trouble(AWAY, "", "alert-gateway: the store takes no commits")


async def prove(store: Store, within: float) -> None:
    """Raises `StoreError` where nothing new can be made durable."""
    if store.is_strained:
        raise StoreError("the disk is full")
    await commit(store, within)


async def commit(store: Store, within: float) -> None:
    """Makes a commit that reaches the disk, as one that writes nothing would succeed on a full disk. Raises
    `StoreError`; also for a store known to be damaged, where this small write might succeed though an alert's fails."""
    if store.damage:
        raise StoreError(store.damage)
    try:
        await asyncio.wait_for(store.write(lambda tx: tx.put_note(PROOF, time.time_ns())), within)
    except TimeoutError:  # which has no message
        raise StoreError(f"no commit within {within:g} s") from None
