"""Stores as after long use: many alerts that were delivered and are still open, put there directly.

One alert is accepted by the road, and then copied under other ids and keys, so that the rows are those of real use.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec import structs

from gateway.config.loading import load
from gateway.store import AlertRow, TargetRow, Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos.backlog import fill

BATCH = 5_000
FIRST = 1_000_000_000
"""The first id; each is made of this and a number of seven digits. A gateway's own ids are far higher."""


def identity(number: str) -> str:
    """Returns the id of a stored alert, by its number: seven digits, or the placeholder for them in a load."""
    return f"{FIRST // 10_000_000}{number}"


def key(number: str) -> str:
    """Returns the key of a stored alert, by its number."""
    return f"stored-{number}"


def stock(config: Path, count: int) -> None:
    """Puts `count` alerts into the store of a gateway that has none yet."""
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
