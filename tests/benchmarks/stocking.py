"""Stores that have been in use for long: many alerts that were told and are still open, put there directly.

An alert is taken by the road once, and then copied under other ids and keys: what is stored is what would have been.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec import structs

from gateway.config import load
from gateway.store import AlertRow, TargetRow, Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos.backlog import fill

BATCH = 5_000
FIRST = 1_000_000_000
"""The ids begin here, and are made of this and a number of seven digits: long before those that a gateway makes."""


def identity(number: str) -> str:
    """The id of a stored alert, by its number: seven digits, or the place where a load puts them."""
    return f"{FIRST // 10_000_000}{number}"


def key(number: str) -> str:
    """The key of a stored alert, by its number."""
    return f"stored-{number}"


def stock(config: Path, count: int) -> None:
    """Puts so many alerts into the store of a gateway that has none yet."""
    asyncio.run(_stock(config, count))


async def _stock(config: Path, count: int) -> None:
    [told] = await fill(config, 1)
    async with SqliteStore(load(str(config)).store.removeprefix("sqlite://")) as store:
        like = await store.read(lambda tx: tx.alert(int(told.alert)))
        assert like is not None
        like_target = (await store.read(lambda tx: tx.targets(like.id)))[0]
        for first in range(0, count, BATCH):
            last = min(first + BATCH, count)
            await store.write(lambda tx, first=first, last=last: _batch(tx, like, like_target, first, last))  # type: ignore[misc]


def _batch(tx: Tx, like: AlertRow, target: TargetRow, first: int, last: int) -> None:
    for number in range(first, last):
        text = f"{number:07}"
        alert, named = int(identity(text)), key(text)
        body = structs.replace(like.body, dedup_key=named)
        tx.insert_alert(structs.replace(like, id=alert, shown=str(alert), key=named, body=body))
        tx.put_target(structs.replace(target, alert=alert, lane=f"key {named}", key=named, state="present"))
