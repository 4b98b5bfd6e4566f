"""The clock of a PostgreSQL server is set while gateways serve from it: nothing that waits there becomes overdue or is
delayed, and no lease ends early or late, whoever notices it and whenever. The clock is the database's own here."""

from __future__ import annotations

import asyncio

import pytest

from gateway.store import DeliveryFilter, DeliveryRow, Tx
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_clock import Seen
from tests.engine.replicas import SHORT, claim, execute, put, set_clock, until, with_a_clock
from tests.engine.store_drivers import delivery
from tests.postgres_server import shared

HOUR, MONTH = 3600.0, 30 * 24 * 3600.0
JUMPS = [HOUR, -HOUR, MONTH, -MONTH]
NOW = 1_800_000_000_000


@pytest.fixture(name="url")
def _url() -> str:
    """The URL of an empty database whose clock can be set."""
    return with_a_clock(shared().database())


def waits(number: int = 2) -> DeliveryRow:
    """A delivery that waits for its second attempt."""
    return delivery(number, upstream="u", lane="l", attempts=1, created_at=NOW, due=NOW + 500)


async def shown(store: PostgresStore) -> dict[int, tuple[int, int]]:
    """By how many seconds each delivery was moved, by the clock of this replica's gateway, and its pause in
    milliseconds."""
    rows = await store.read(lambda tx: tx.deliveries(DeliveryFilter()))
    return {row.id: (round((row.created_at - NOW) / 1000), row.due - row.created_at) for row in rows}


async def jumped(store: PostgresStore, url: str, by: float) -> None:
    """Waits until the jumps sum up to this for the store's gateway, which follows the clock every now and then."""

    async def has() -> bool:
        store.follow()
        return (await shown(store))[2] == (by, 500)

    await until(has)
    assert abs(_jumps(url) - by) < 1


def _jumps(url: str) -> float:
    return float(_note(url, "jumps"))


def _note(url: str, what: str) -> str:
    statement = "SELECT convert_from(body, 'utf8')::json->>%s FROM notes WHERE name = 'clock'"
    return str(execute(url, statement, what)[0][0])


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_that_several_replicas_see_moves_what_waits_once(url: str, jump: float) -> None:
    """And not at all once the clock was set right again."""

    async def main() -> None:
        async with PostgresStore(url, lease=SHORT) as one, PostgresStore(url, lease=SHORT) as other:
            await one.write(put(waits()))
            for ahead in (jump, 0.0):
                set_clock(url, ahead)
                await jumped(one, url, ahead)
                await jumped(other, url, ahead)
                await asyncio.sleep(SHORT)  # both have looked again
                await jumped(one, url, ahead)
                await jumped(other, url, ahead)

    asyncio.run(main())


@pytest.mark.parametrize("jump", JUMPS)
def test_what_a_replica_writes_before_it_follows_is_the_same_for_one_that_has_followed(url: str, jump: float) -> None:
    """Its gateway's clock has not moved yet: by that it says when a delivery was made, and records a retry."""

    async def main() -> None:
        async with PostgresStore(url, lease=SHORT) as one, PostgresStore(url, lease=SHORT) as other:
            await other.write(put(waits()))
            set_clock(url, jump)
            await jumped(one, url, jump)

            def fail(tx: Tx) -> None:
                row = tx.delivery(2)
                assert row is not None and row.created_at == NOW
                row.due = NOW + 900
                tx.update_delivery(row)

            await other.write(fail)
            await other.write(put(waits(3)))
            assert await shown(one) == {2: (jump, 900), 3: (jump, 500)}

    asyncio.run(main())


@pytest.mark.parametrize("jump", JUMPS)
def test_a_replica_started_before_anybody_has_noticed_a_jump_does_not_take_it_for_time_that_has_passed(
    url: str, jump: float
) -> None:
    async def main() -> None:
        async with PostgresStore(url) as one:  # it looks every five seconds
            await one.write(put(waits()))
            set_clock(url, jump)
            async with PostgresStore(url, lease=SHORT) as new:
                await jumped(new, url, jump)
                await asyncio.sleep(SHORT)
                await jumped(one, url, jump)
                await jumped(new, url, jump)

    asyncio.run(main())


def test_what_waits_is_due_in_time_though_the_clock_was_set_back_while_no_replica_ran(url: str) -> None:
    async def main() -> None:
        set_clock(url, HOUR)
        async with PostgresStore(url) as one:
            before = one._clock()
        set_clock(url, 0.0)
        async with PostgresStore(url) as one:
            assert -1 < one._clock() - before < 10

    asyncio.run(main())


def test_a_time_in_which_no_replica_ran_is_no_jump(url: str) -> None:
    """Though one was killed: its slot may be a living one's. What waited is as late as it is."""

    async def main() -> None:
        async with PostgresStore(url) as one:
            await one.write(put(waits()))
        execute(url, "UPDATE slots SET owner = 'killed', leased_until = now() + interval '5 seconds' WHERE slot = 7")
        set_clock(url, HOUR)
        async with PostgresStore(url, lease=SHORT) as new:
            await asyncio.sleep(SHORT)
            assert _jumps(url) == 0 and await shown(new) == {2: (0, 500)}

    asyncio.run(main())


def test_a_process_that_stood_still_takes_no_time_from_the_others(url: str) -> None:
    """Its own time has stood still too, as that of a virtual machine does."""

    async def main() -> None:
        async with PostgresStore(url, lease=SHORT) as one, PostgresStore(url, lease=SHORT) as other:
            await one.write(put(waits()))

            async def other_has_looked() -> bool:
                return _note(url, "by") == other._owner

            await until(other_has_looked)
            one._clock.take(Seen(one._clock._latest.there - HOUR, 0.0))
            await until(lambda: _agree(one, other))
            assert _jumps(url) == 0 and await shown(one) == {2: (0, 500)}

    asyncio.run(main())


async def _agree(one: PostgresStore, other: PostgresStore) -> bool:
    return abs(one._clock() - other._clock()) < 1


@pytest.mark.parametrize("jump", JUMPS)
def test_a_lease_neither_ends_with_a_jump_nor_outlasts_it(url: str, jump: float) -> None:
    async def main() -> None:
        async with PostgresStore(url) as one, PostgresStore(url, lease=SHORT) as other:
            await one.write(put(waits(2)))
            await other.write(put(delivery(3, upstream="u", lane="of another")))
            set_clock(url, jump)
            assert [row.id for row in await claim(other)] == [3]
            await asyncio.sleep(2 * SHORT)
            assert {row.id for row in await claim(one)} == {2, 3}
            assert not await claim(other)

    asyncio.run(main())
