"""What only PostgreSQL offers: one store for several gateways, with claims, leases and fences, lanes, locks, slots and
hints."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from functools import partial

import psycopg
import pytest

from gateway.errors import Problem, StoreError
from gateway.ids import SLOTS
from gateway.store import AlertRow, DeliveryRow, Tx
from gateway.store.opening import open_store
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_tx import PostgresTx
from tests.engine.replicas import SHORT, among, claim, execute, opened_and_closed, put, until
from tests.engine.store_drivers import alert, delivery


def _put_alert(row: AlertRow, tx: Tx) -> None:
    tx.insert_alert(row)


def _find(key: str, tx: Tx) -> AlertRow | None:
    return tx.alert_by_key("s", key)


# --- claims --------------------------------------------------------------------------------------------------


def test_what_nobody_holds_is_claimed_by_one_replica_alone(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put(*(delivery(n, lane=f"l{n}") for n in range(1, 201))))
        await one.write(lambda tx: tx.release() if isinstance(tx, PostgresTx) else None)
        got: dict[int, list[int]] = {0: [], 1: []}

        async def take(number: int, store: PostgresStore) -> None:
            while rows := await claim(store, 7, taken=[f"l{n}" for n in got[number]]):
                got[number] += [row.id for row in rows]

        await asyncio.gather(take(0, one), take(1, other))
        assert got[0] and got[1]
        assert sorted(got[0] + got[1]) == list(range(1, 201))

    among(url, main)


def test_what_a_replica_accepted_it_also_sends(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put(delivery(1, lane="a")))
        assert await claim(other) == []
        assert [(row.id, row.fence) for row in await claim(one)] == [(1, 0)]

    among(url, main)


def test_a_lease_that_ran_out_is_taken_over_and_the_stale_one_changes_nothing(url: str) -> None:
    """guarantees.md 14: the stale replica changes 0 rows."""

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put(delivery(1)))
        (stale,) = await claim(one)
        fresh: list[DeliveryRow] = []

        async def taken_over() -> bool:
            fresh.extend(await claim(other))
            return bool(fresh)

        await until(taken_over, SHORT + 5)
        assert (stale.fence, fresh[0].fence) == (0, 1)
        stale.state, stale.reason = "dead", "by the stale one"
        with pytest.raises(StoreError, match="taken over"):
            await one.write(lambda tx: tx.update_delivery(stale))
        assert await one.write(lambda tx: tx.delivery(1)) == fresh[0]
        fresh[0].state = "delivered"
        await other.write(lambda tx: tx.update_delivery(fresh[0]))
        assert execute(url, "SELECT state, reason, fence FROM deliveries") == [("delivered", "", 1)]

    among(url, main, lease=SHORT)


def test_a_claim_that_is_renewed_is_not_taken_over(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put(delivery(1, lane="a"), delivery(2, lane="b")))
        held = [row for row in await claim(one) if row.id == 1]
        seen: set[int] = set()
        ends = time.monotonic() + 3 * SHORT
        while time.monotonic() < ends:
            await one.renew(held)
            seen |= {row.id for row in await claim(other)}
            await asyncio.sleep(SHORT / 5)
        assert seen == {2}

    among(url, main, lease=SHORT)


def test_its_own_claim_keeps_its_fence_and_nothing_else_of_it_is_overwritten(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put(delivery(1)))
        before = execute(url, "SELECT owner FROM deliveries")
        (row,) = await claim(one)
        row.attempts, row.due = 1, 5
        await one.write(lambda tx: tx.update_delivery(row))
        (again,) = await claim(one)
        assert (again.fence, again.attempts, again.due) == (0, 1, 5)
        assert execute(url, "SELECT owner FROM deliveries WHERE leased_until > now()") == before

    among(url, main)


def test_a_lane_whose_head_somebody_else_holds_is_left_alone(url: str) -> None:
    """architecture.md, Invariants: one order per lane, also across replicas."""

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put(delivery(1, lane="a"), delivery(3, lane="b")))
        await other.write(put(delivery(2, lane="a")))
        assert await claim(other) == []
        assert [row.id for row in await claim(one)] == [1, 3]
        await one.write(lambda tx: tx.update_delivery(delivery(1, lane="a", state="delivered")))
        assert [row.id for row in await claim(one)] == [3]
        assert [row.id for row in await claim(other)] == [2]

    among(url, main)


def test_a_replica_that_ends_gives_back_what_it_holds(url: str) -> None:
    async def main() -> None:
        async with PostgresStore(url) as one:
            async with PostgresStore(url) as other:
                await other.write(put(delivery(1)))
                assert await claim(one) == []
            assert [(row.id, row.fence) for row in await claim(one)] == [(1, 1)]

    asyncio.run(main())


# --- what is decided once ------------------------------------------------------------------------------------


def test_what_is_locked_is_changed_by_one_at_a_time(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        def count(tx: Tx) -> None:
            assert tx.lock("note n")
            tx.put_note("n", (tx.note("n") or 0) + 1)

        await asyncio.gather(*(store.write(count) for _ in range(60) for store in (one, other)))
        assert await one.read(lambda tx: tx.note("n")) == 120

    among(url, main)


def test_locks_in_opposite_orders_end_well(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        def work(names: str, tx: Tx) -> None:
            for name in names:
                tx.lock(name)
                tx.put_note(name, (tx.note(name) or 0) + 1)

        await asyncio.gather(
            *(store.write(partial(work, names)) for _ in range(20) for store, names in ((one, "ab"), (other, "ba")))
        )
        assert await one.read(lambda tx: (tx.note("a"), tx.note("b"))) == (40, 40)

    among(url, main)


def test_who_waits_for_a_lock_holds_up_nobody_who_does_not(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        is_held, may_go = threading.Event(), threading.Event()

        def hold(tx: Tx) -> None:
            tx.lock("x")
            tx.note("held")
            is_held.set()
            may_go.wait(2.5)

        holding = asyncio.ensure_future(other.write(hold))
        await asyncio.to_thread(is_held.wait, 5)
        waiting = [asyncio.ensure_future(one.write(lambda tx: tx.lock("x"))) for _ in range(2)]
        await asyncio.gather(*(one.write(partial(_put_alert, alert(n))) for n in range(1, 100)))
        assert not any(job.done() for job in waiting)
        may_go.set()
        assert await asyncio.gather(holding, *waiting) == [None, True, True]

    among(url, main)


def test_what_is_too_long_to_be_found_again_is_refused_alone(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        long = "".join(chr(33 + n * n * 7919 % 90) + chr(0x4E00 + n * 31 % 20000) for n in range(6000))
        ended = await asyncio.gather(
            *(one.write(partial(_put_alert, alert(n, key=long if n == 5 else None))) for n in range(9)),
            return_exceptions=True,
        )
        assert [n for n, end in enumerate(ended) if end is not None] == [5]
        assert isinstance(ended[5], Problem)

    among(url, main)


def test_any_text_comes_back_as_it_was(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        for number, text in enumerate(("a\x00b", "\x10", "\x100", "\x10\x00\x101", "ü%s?"), 1):
            row = alert(number, key=text, shown=text)
            await one.write(partial(_put_alert, row))
            assert await other.read(partial(_find, text)) == row

    among(url, main)


def test_what_the_server_took_back_is_no_success(url: str) -> None:
    """A job that swallows a failed statement still fails its transaction: the server then answers COMMIT with
    ROLLBACK."""

    def work(tx: Tx) -> None:
        for _ in range(2):
            with contextlib.suppress(psycopg.IntegrityError):
                tx.insert_alert(alert(1))

    async def main() -> None:
        async with PostgresStore(url) as store:
            with pytest.raises(StoreError, match="committed nothing"):
                await store.write(work)
            assert await store.read(lambda tx: tx.alert(1)) is None
            await store.write(lambda tx: tx.insert_alert(alert(1)))

    asyncio.run(main())


# --- slots ---------------------------------------------------------------------------------------------------


def test_every_replica_has_a_writer_slot_of_its_own_and_gives_it_back(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        assert one.slot != other.slot

    among(url, main)
    assert execute(url, "SELECT count(*) FROM slots WHERE leased_until <= now() AND owner = ''") == [(SLOTS,)]


def test_where_all_slots_are_taken_it_is_said_so(url: str) -> None:
    asyncio.run(opened_and_closed(url))
    execute(url, "UPDATE slots SET owner = 'x', leased_until = 'infinity'")
    with pytest.raises(StoreError, match=f"all {SLOTS} writer slots are taken"):
        asyncio.run(opened_and_closed(url))
    execute(url, "UPDATE slots SET leased_until = now() - interval '1 second' WHERE slot = 7")

    async def again() -> None:
        async with PostgresStore(url) as store:
            assert store.slot == 7

    asyncio.run(again())


def test_a_slot_is_renewed_and_one_that_was_lost_is_replaced(url: str) -> None:
    async def main() -> None:
        async with PostgresStore(url, lease=SHORT) as store:
            first = store.slot
            ends = time.monotonic() + 2 * SHORT
            while time.monotonic() < ends:
                assert execute(url, "SELECT leased_until > now() FROM slots WHERE slot = %s", first) == [(True,)]
                await asyncio.sleep(SHORT / 5)
            execute(url, "UPDATE slots SET owner = 'x', leased_until = 'infinity' WHERE slot = %s", first)

            async def has_another() -> bool:
                return store.slot != first

            await until(has_another)

    asyncio.run(main())


def test_a_tool_needs_no_slot_and_claims_nothing(url: str) -> None:
    async def main() -> None:
        async with PostgresStore(url) as store:
            execute(url, "UPDATE slots SET owner = 'x', leased_until = 'infinity' WHERE owner = ''")
            async with open_store(url, exclusive=False) as tool:
                await tool.write(put(delivery(1)))
            assert [row.id for row in await claim(store)] == [1]

    asyncio.run(main())


# --- hints ---------------------------------------------------------------------------------------------------


def test_what_is_told_is_heard_by_the_others_once_it_is_committed(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        heard: list[str] = []
        other.on_hint = heard.append

        def fails(tx: Tx) -> None:
            tx.tell("never")
            raise LookupError("on purpose")

        async def has_heard() -> bool:
            with pytest.raises(LookupError, match="on purpose"):
                await one.write(fails)
            await one.write(lambda tx: tx.tell("ü" * 5000))  # too long for a NOTIFY: a hint may be lost
            await one.write(lambda tx: tx.tell("u"))
            return bool(heard)

        await until(has_heard)
        assert set(heard) == {"u"}

    among(url, main)
