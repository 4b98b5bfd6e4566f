"""A replica that stood still and does not know it: what others have taken over, it leaves alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

from gateway.canonical import Operation
from gateway.config import parse
from gateway.preparing import Shipment, fire
from gateway.service import Gateway
from gateway.store import DeliveryRow, TargetRow, Tx
from gateway.store.postgres import PostgresStore
from tests.chaos_upstream import chaos, say
from tests.engine.store_drivers import alert, delivery
from tests.harness import KEY, served
from tests.postgres_server import shared

LEASE = 0.5
T = TypeVar("T")


def _waiting(tx: Tx) -> int:
    return len(tx.waiting())


class Standing(PostgresStore):
    """The store of a replica that stands still between a claim and the news of it, until another replica has taken over
    what it claimed."""

    def __init__(self, url: str) -> None:
        super().__init__(url, lease=LEASE)
        self._other = PostgresStore(url, lease=60)
        self.taken: list[DeliveryRow] = []

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Claims, and stands still if anything was claimed."""
        done = await super().take(work)
        waiting = await self.read(_waiting)
        if not self.taken and waiting:
            await asyncio.sleep(LEASE + 0.1)
            await self._other.__aenter__()
            self.taken = await self._other.take(lambda tx: tx.claim("oncall", 10**15, 10))
        return done

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._other.__aexit__()


async def _claimed(store: PostgresStore) -> Shipment:
    [row] = await store.take(lambda tx: tx.claim("u", 10**15, 10))
    return Shipment(delivery=row, operation=Operation.CREATE, fires=True)


def _put(tx: Tx) -> None:
    tx.insert_alert(alert(1))
    tx.put_target(TargetRow(alert=1, upstream="u", position=1, lane="l", key="k", state="standby"))
    tx.insert_delivery(delivery(2, alert=1, upstream="u", lane="l"))


def test_a_fallback_that_another_replica_has_taken_over_is_not_told() -> None:
    async def main() -> None:
        url = shared().database()
        async with PostgresStore(url, lease=LEASE) as one, PostgresStore(url, lease=LEASE) as other:
            await one.write(_put)
            stale = await _claimed(one)
            await asyncio.sleep(LEASE + 0.1)
            fresh = await _claimed(other)
            assert not await one.write(lambda tx: fire(tx, stale))
            [target] = await one.read(lambda tx: tx.targets(1))
            assert target.state == "standby", "the stale one changed it"
            assert await other.write(lambda tx: fire(tx, fresh))

    asyncio.run(main())


def test_what_was_taken_over_while_the_claim_was_on_its_way_is_not_sent() -> None:
    """The lease runs from before the claim, not from when it was heard of."""
    url = shared().database()
    with chaos(say(202, {})) as upstream:
        text = (
            f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
            f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream.url}"\nkey = "there"\n'
        )
        store = Standing(url)
        with served(Gateway(parse(text), store).app) as place:
            page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "disk", "summary": "disk full"}
            assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202
            end = time.monotonic() + 10
            while not store.taken and time.monotonic() < end:
                time.sleep(0.02)
            assert len(store.taken) == 1
            time.sleep(2 * LEASE)
            assert not upstream.got, "it was sent although another replica had it"
