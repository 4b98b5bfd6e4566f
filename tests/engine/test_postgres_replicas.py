"""Two gateways on one PostgreSQL, a road over each: one alert per key, one order per lane, and a ledger that adds up,
whichever accepts and whichever sends. The clock of one is seconds behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from functools import partial

import pytest

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.errors import Problem
from gateway.ids import Ids
from gateway.road.accepted import Caller, Order
from gateway.road.road import Road
from gateway.store import AlertFilter, AlertRow, DeliveryRow, Tx
from gateway.store.postgres import PostgresStore
from tests.engine.desks import CONFIG, create
from tests.postgres_server import shared

KEYS = ("disk", "net", "fan")
SCOPES = ("ilert/ci", "ilert/ops")
BEHIND_MS = 5_000


def _now() -> int:
    return time.time_ns() // 1_000_000


def _waits(tx: Tx) -> bool:
    return bool(tx.waiting())


class Replica:
    """One gateway: it accepts commands and sends what it claims. `sent` is shared by all, in order of time."""

    def __init__(self, store: PostgresStore, behind: int, sent: list[DeliveryRow]) -> None:
        config = parse(CONFIG)
        self._store = store
        self._behind = behind
        self._ids = Ids(store.slot, clock=self._clock)
        self._road = Road(config, self._ids.next)
        dialect = config.inbounds["ilert"].dialect
        self._callers = [Caller(dialect, scope.partition("/")[2], scope) for scope in SCOPES]
        self._sent = sent
        self.accepted = 0

    def _clock(self) -> int:
        return _now() - self._behind

    async def accept(self, dice: random.Random) -> None:
        """Accepts a random command."""
        key = dice.choice(KEYS)
        operation = dice.choice([Operation.CREATE, Operation.CREATE, Operation.ACKNOWLEDGE, Operation.RESOLVE])
        asked = create(key) if operation is Operation.CREATE else Command(operation=operation, ref=Ref(key=key))
        caller, command = dice.choice(self._callers), self._ids.next()
        accepted = await self._store.write(
            lambda tx: self._road.accept(
                tx, Order(asked=asked, caller=caller, request=command, command=command, now=self._clock())
            )
        )
        self.accepted += accepted.fanout

    async def deliver(self, upstream: str) -> int:
        """Sends what it can claim, and records the outcomes."""
        rows = await self._store.take(lambda tx: tx.claim(upstream, _now() + 60_000, 10))
        for row in rows:
            self._sent.append(row)
            await asyncio.sleep(0)
            assert await self._store.write(partial(self._record, row)), "nobody else may have had it"
        return len(rows)

    async def send(self, upstream: str, ended: asyncio.Event) -> None:
        """Delivers until nothing waits any more and nothing more will come."""
        while await self.deliver(upstream) or not ended.is_set() or await self._store.read(_waits):
            continue

    def _record(self, row: DeliveryRow, tx: Tx) -> bool:
        tx.lock(f"alert {row.alert}")
        found = tx.delivery(row.id)
        if found is None or found.fence != row.fence:
            return False
        if found.state == "waiting":
            found.state, found.finished_at = "delivered", _now()
            tx.update_delivery(found)
        return True


@pytest.mark.parametrize("seed", range(3))
def test_two_replicas_keep_keys_lanes_and_sums(seed: int) -> None:
    url = shared().database()
    sent: list[DeliveryRow] = []

    async def main() -> None:
        async with PostgresStore(url) as one, PostgresStore(url) as other:
            replicas = [Replica(one, 0, sent), Replica(other, BEHIND_MS, sent)]

            async def callers(replica: Replica, dice: random.Random) -> None:
                for _ in range(15):
                    await replica.accept(dice)

            ended = asyncio.Event()
            sending = [
                asyncio.create_task(replica.send(name, ended)) for replica in replicas for name in ("bykey", "byid")
            ]
            await asyncio.gather(*(callers(r, random.Random(f"{seed} {n}")) for r in replicas for n in range(4)))
            ended.set()
            await asyncio.gather(*sending)
            await _check(one, replicas)

    asyncio.run(main())
    lanes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in sent:
        lanes[row.upstream, row.lane].append(row.id)
    assert len(lanes) > 6
    for lane, order in lanes.items():
        assert order == sorted(set(order)), lane


def _alerts(scope: str, tx: Tx) -> tuple[list[AlertRow], int]:
    return tx.alerts(scope, AlertFilter())


async def _check(store: PostgresStore, replicas: list[Replica]) -> None:
    for scope in SCOPES:
        rows, _ = await store.read(partial(_alerts, scope))
        assert all(count == 1 for count in Counter(row.key for row in rows if row.is_open).values())
        assert len(rows) > len(KEYS)
    lines = await store.read(lambda tx: tx.ledger(0, "caller"))
    assert [line.group for line in lines] == ["ci", "ops"] and all(line.adds_up for line in lines)
    assert sum(line.received for line in lines) == sum(replica.accepted for replica in replicas) > 100
    assert not any(line.waiting or line.dead for line in lines)


def test_of_callers_at_two_replicas_one_opens_the_alert() -> None:
    """Of concurrent creates under one key at both replicas one makes the alert; all others update it."""
    url = shared().database()

    async def main() -> None:
        async with PostgresStore(url) as one, PostgresStore(url) as other:
            config = parse(CONFIG)
            dialect = config.inbounds["ilert"].dialect
            caller = Caller(dialect, "ci", SCOPES[0])

            async def open_it(store: PostgresStore, ids: Ids) -> bool:
                road, command = Road(config, ids.next), ids.next()
                accepted = await store.write(
                    lambda tx: road.accept(
                        tx, Order(asked=create("disk"), caller=caller, request=command, command=command, now=_now())
                    )
                )
                return accepted.is_new

            for _ in range(2):
                ids = [(store, Ids(store.slot)) for store in (one, other)]
                made = await asyncio.gather(
                    *(open_it(*pair) for _ in range(20) for pair in ids), return_exceptions=True
                )
                assert not [end for end in made if isinstance(end, BaseException) and not isinstance(end, Problem)]
                assert sum(end is True for end in made) <= 1
            _, total = await one.read(lambda tx: tx.alerts(SCOPES[0], AlertFilter()))
            assert total == 1

    asyncio.run(main())
