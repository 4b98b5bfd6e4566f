"""What only PostgreSQL offers: one store for several gateways, with claims, leases and fences, lanes, slots, hints, and
replicas of several releases over one schema."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.errors import Problem, StoreError
from gateway.ids import SLOTS
from gateway.store import AlertFilter, AlertRow, DeliveryFilter, DeliveryRow, Tx
from gateway.store.opening import open_store
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_schema import SCHEMAS, migrate
from gateway.store.postgres_tx import PostgresTx, _translated, claiming
from gateway.store.sqlite import SqliteStore
from tests.engine.store_drivers import alert, command, delivery
from tests.pooler import pooler
from tests.postgres_server import free_port, shared

SHORT = 0.5
"""A lease short enough for a test to wait for."""


@pytest.fixture
def url() -> str:
    """An empty database."""
    return shared().database()


def execute(url: str, script: str, *values: Any) -> list[Any]:
    """Runs a statement on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(script.encode(), values or None)
        return found.fetchall() if found.description else []


@contextlib.asynccontextmanager
async def replicas(url: str, lease: float = 15.0) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """Two gateways' stores over one database."""
    async with PostgresStore(url, lease=lease) as one, PostgresStore(url, lease=lease) as other:
        yield one, other


def among(url: str, work: Callable[[PostgresStore, PostgresStore], Coroutine[Any, Any, None]], **more: Any) -> None:
    """Runs `work` with two gateways' stores over one database."""

    async def main() -> None:
        async with replicas(url, **more) as (one, other):
            await work(one, other)

    asyncio.run(main())


async def until(holds: Callable[[], Coroutine[Any, Any, bool]], within: float = 10.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.02)


def put(*rows: DeliveryRow) -> Callable[[Tx], None]:
    """A job that puts deliveries into the outbox."""

    def work(tx: Tx) -> None:
        for row in rows:
            tx.insert_delivery(row)

    return work


def _put_alert(row: AlertRow, tx: Tx) -> None:
    tx.insert_alert(row)


def _find(key: str, tx: Tx) -> AlertRow | None:
    return tx.alert_by_key("s", key)


async def claim(store: PostgresStore, limit: int = 100, **more: Any) -> list[DeliveryRow]:
    """Claims deliveries, as a replica does to send them."""
    return await store.take(lambda tx: tx.claim("u", 10**15, limit, **more))


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


def test_a_claim_walks_an_index_also_where_nothing_is_known_of_the_table(url: str) -> None:
    """dependencies.md: 1.9 ms on 100,000 rows, against a hundred where all lanes are compared with all."""

    async def main() -> None:
        async with PostgresStore(url):
            pass

    asyncio.run(main())
    fill = (
        "INSERT INTO deliveries (id, command, upstream, lane, operation, state, created_at, due, size, attempts, "
        "reason, report, merges) SELECT n, n, 'u', 'lane ' || n, 'create', 'waiting', n, n, 1, 0, '', '[]', '[]' "
        "FROM generate_series(1, 20000) n"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"ALTER TABLE deliveries SET (autovacuum_enabled = off)")
        connection.execute(fill.encode())
        for ranked, index in ((False, "deliveries_due"), (True, "deliveries_ranked")):
            values: tuple[Any, ...] = ("me", "u", 10**12, "me", [], 10, "me", 15.0)
            told = connection.execute(b"EXPLAIN (ANALYZE) " + _translated(claiming(ranked=ranked)), values).fetchall()
            plan = "\n".join(row[0] for row in told)
            assert index in plan and "deliveries_head" in plan, plan
            assert "Removed by Filter: 2" not in plan, plan


FETCHED = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname = 'deliveries'"


@pytest.mark.parametrize("is_known", [True, False])
def test_what_is_to_be_forgotten_is_found_without_going_through_the_rest(url: str, *, is_known: bool) -> None:
    """Purging runs once a minute and a statement may take three seconds: a plan that joins with a million kept rows
    takes longer every time."""

    def stock(tx: Tx) -> None:
        for number, status in ((1, "acknowledged"), (2, "resolved")):
            tx.insert_alert(alert(number, status=status, is_open=number == 1, updated_at=0))
            tx.insert_command(command(number, alert=number, operation="acknowledge", at=0))
            tx.insert_delivery(delivery(number, alert=number, state="delivered", finished_at=0))

    def purge(tx: Tx) -> tuple[int, int]:
        return tx.purge(100, 500), int(tx._all(FETCHED, ())[0][0])  # type: ignore[attr-defined]

    async def main() -> None:
        async with PostgresStore(url) as store:
            await store.write(stock)
            _copy(url, "commands", "id, at")
            _copy(url, "deliveries", "id, command, finished_at")
            if is_known:
                execute(url, "ANALYZE")
            removed, fetched = zip(*[await store.write(purge) for _ in range(8)], strict=True)
            assert sum(removed) == 1  # the command that acknowledged the open alert stays known
            assert max(fetched) < 100, fetched

    asyncio.run(main())


def _copy(url: str, table: str, numbered: str) -> None:
    """Adds 30,000 copies of row 2 with other values in the named columns."""
    values = ", ".join(f"'{name}', n" for name in numbered.split(", "))
    row = f"SELECT jsonb_build_object({values}) AS own"
    own = f"FROM ({row} FROM generate_series(1001, 31000) n) o, (SELECT * FROM {table} WHERE id = 2) t"
    execute(url, f"INSERT INTO {table} SELECT (jsonb_populate_record(t::{table}, own)).* {own}")


MANY = 5000
"""The number of alerts, few enough for a test, each with a command, a delivery, an upstream and an id."""
NUMBERS = f"generate_series(1, {MANY}) n"
FILL = (
    "INSERT INTO alerts (id, scope, dialect, caller, shown, key, status, is_open, version, created_at, updated_at, "
    "body, is_deleted) SELECT n, 's', 'd', 'c', n::text, 'k' || n, 'resolved', 0, 1, n, n, '{}', 0 FROM " + NUMBERS,
    "INSERT INTO commands (id, request, alert, operation, scope, dialect, caller, at, body, fanout) "
    "SELECT n, n, n, 'create', 's', 'd', 'c', n, '{}', 1 FROM " + NUMBERS,
    "INSERT INTO deliveries (id, command, alert, upstream, lane, operation, state, created_at, due, size, attempts, "
    "finished_at, reason, report, merges) SELECT n, n, n, 'u', 'lane ' || n, 'create', 'delivered', n, n, 1, 1, "
    "n + 10, '', '[]', '[]' FROM " + NUMBERS,
    "INSERT INTO ids SELECT 's', 'id' || n, 'u', n FROM " + NUMBERS,
    "INSERT INTO targets (alert, upstream, position, lane, state, route, ids, seen, replaced) "
    "SELECT n, 'u', 0, 'lane ' || n, 'gone', '', '{}', '{}', '{}' FROM " + NUMBERS,
    "ANALYZE",
)
SMALL: dict[str, Callable[[Tx], Any]] = {
    "alert_by_id, the caller's": lambda tx: tx.alert_by_id("s", "70"),
    "alert_by_id, an upstream's": lambda tx: tx.alert_by_id("s", "id70"),
    "alert_by_id, nobody's": lambda tx: tx.alert_by_id("s", "nobody"),
    "alerts_by_party": lambda tx: tx.alerts_by_party("s", "id70", "u"),
    "ids": lambda tx: tx.ids(70),
    "commands": lambda tx: tx.commands(70),
    "the last commands": lambda tx: tx.commands(70, 1),
    "deliveries_of": lambda tx: tx.deliveries_of(70),
    "deliveries of an alert": lambda tx: tx.deliveries(DeliveryFilter(alert=70)),
    "deliveries of an alert at an upstream": lambda tx: tx.deliveries(DeliveryFilter(alert=70, upstream="u", after=0)),
    "what waits at an upstream": lambda tx: tx.deliveries(DeliveryFilter(state="waiting", upstream="u")),
    "dead letters": lambda tx: tx.deliveries(DeliveryFilter(state="dead")),
    "what is open": lambda tx: tx.alerts("s", AlertFilter(statuses=("acknowledged", "firing"), limit=50)),
    "what is firing": lambda tx: tx.alerts("s", AlertFilter(statuses=("firing",), limit=50)),
    "purge, nothing": lambda tx: tx.purge(1, 500),
    "purge, a few": lambda tx: tx.purge(30, 500),
}


def _rows_read(tx: Tx) -> int:
    assert isinstance(tx, PostgresTx)
    counted = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
    return int(tx._one(counted, ())[0])


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
def test_a_writer_that_wants_a_few_rows_reads_no_more(url: str, plans: str) -> None:
    """Queries of the writing road read a few rows: neither a walk through a whole table in the requested order, to
    avoid a sort, nor a generic plan that fits all times and limits."""

    async def main() -> dict[str, int]:
        read: dict[str, int] = {}

        def counted(name: str, tx: Tx) -> None:
            before = _rows_read(tx)
            SMALL[name](tx)
            read[name] = _rows_read(tx) - before

        async with PostgresStore(url):
            pass
        execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET plan_cache_mode = {plans}")
        for statement in FILL:
            execute(url, statement)
        async with PostgresStore(url) as store:
            for name in SMALL:
                await store.write(partial(counted, name))
        return read

    read = asyncio.run(main())
    assert {name: rows for name, rows in read.items() if rows > MANY / 10} == {}


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


# --- slots ---------------------------------------------------------------------------------------------------


def test_every_replica_has_a_writer_slot_of_its_own_and_gives_it_back(url: str) -> None:
    async def main(one: PostgresStore, other: PostgresStore) -> None:
        assert one.slot != other.slot

    among(url, main)
    assert execute(url, "SELECT count(*) FROM slots WHERE leased_until <= now() AND owner = ''") == [(SLOTS,)]


def test_where_all_slots_are_taken_it_is_said_so(url: str) -> None:
    async def opening() -> None:
        async with PostgresStore(url):
            pass

    asyncio.run(opening())
    execute(url, "UPDATE slots SET owner = 'x', leased_until = 'infinity'")
    with pytest.raises(StoreError, match=f"all {SLOTS} writer slots are taken"):
        asyncio.run(opening())
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


# --- the schema between replicas -----------------------------------------------------------------------------


def test_of_replicas_that_start_at_once_one_migrates(url: str) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            stores = [PostgresStore(url) for _ in range(4)]
            await asyncio.gather(*(stack.enter_async_context(store) for store in stores))
            assert len({store.slot for store in stores}) == 4

    asyncio.run(main())
    assert execute(url, "SELECT version FROM gateway_schema") == [(number,) for number in range(1, len(SCHEMAS) + 1)]
    assert execute(url, "SELECT count(*) FROM slots") == [(SLOTS,)]


def test_a_replica_of_the_release_before_works_beside_its_successor(url: str) -> None:
    """guarantees.md 23: what a neighbouring release added does no harm."""

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        execute(url, "ALTER TABLE deliveries ADD COLUMN mood TEXT NOT NULL DEFAULT 'fair'")
        execute(url, f"INSERT INTO gateway_schema VALUES ({len(SCHEMAS) + 1}, 1)")
        await one.write(put(delivery(1)))
        assert [row.id for row in await claim(one)] == [1]
        async with PostgresStore(url) as later:
            assert await later.read(lambda tx: tx.delivery(1)) == delivery(1)

    among(url, main)


def as_it_was(url: str, number: int) -> None:
    """Makes a database with an older schema."""
    execute(url, "CREATE TABLE gateway_schema (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)")
    for at, (name, works_with) in enumerate(SCHEMAS[:number], 1):
        execute(url, resources.files("gateway.store").joinpath("schema", "postgres", name).read_text("utf8"))
        execute(url, f"INSERT INTO gateway_schema VALUES ({at}, {works_with})")


def test_a_replica_that_holds_a_table_and_wants_the_next_is_not_locked_out_by_its_successor(url: str) -> None:
    """The third schema file changes `alerts` and then `targets`; a transaction of the release before that locks them
    the other way round must not fail the start with a deadlock."""
    as_it_was(url, 2)

    async def main() -> None:
        with psycopg.connect(url) as before:
            before.execute("SET deadlock_timeout = '200ms'")
            before.execute("SELECT FROM targets")
            opening = asyncio.create_task(opened_and_closed(url))
            await until(partial(is_waited_for, url, "targets"))
            before.execute("SELECT FROM alerts")
            await asyncio.sleep(0.5)
        await asyncio.wait_for(opening, 30)

    asyncio.run(main())
    assert execute(url, "SELECT max(version) FROM gateway_schema") == [(len(SCHEMAS),)]


async def opened_and_closed(url: str) -> None:
    """Opens a replica's store and closes it."""
    async with PostgresStore(url):
        pass


async def is_waited_for(url: str, table: str) -> bool:
    """Whether a session waits for a lock on the table."""
    waiting = f"SELECT 1 FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"
    return bool(await asyncio.to_thread(execute, url, waiting))


def test_a_change_of_the_schema_that_was_broken_off_is_made_up_for(url: str) -> None:
    as_it_was(url, 2)
    execute(url, "ALTER TABLE alerts ADD COLUMN ends_at BIGINT")
    asyncio.run(opened_and_closed(url))
    assert execute(url, "SELECT version FROM gateway_schema") == [(number,) for number in range(1, len(SCHEMAS) + 1)]


# --- opening, settings and secrets ---------------------------------------------------------------------------


def test_success_means_synced_whatever_the_database_is_set_to(url: str) -> None:
    """guarantees.md 1: commits wait at least as with `synchronous_commit = on`."""
    name = url.rpartition("/")[2]

    def shown(tx: Tx) -> tuple[str, ...]:
        assert isinstance(tx, PostgresTx)
        names = ("synchronous_commit", "transaction_isolation", "idle_in_transaction_session_timeout")
        return tuple(tx._one(f"SELECT current_setting('{name}')", ())[0] for name in names)

    async def main(expected: str) -> None:
        async with PostgresStore(url) as store:
            assert await store.write(shown) == (expected, "read committed", "5s")
            assert (await store.read(shown))[1] == "repeatable read"

    for setting, expected in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        execute(url, f"ALTER DATABASE {name} SET synchronous_commit = {setting}")
        asyncio.run(main(expected))


def test_no_statement_is_compiled_whatever_the_database_is_set_to(url: str) -> None:
    """`jit` is on by default, and with a sort or a whole table to read it cost a quarter of a second in most
    transactions that write. The server of these tests is built without it, those of distributions with it."""
    execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET jit = on")

    def shown(tx: Tx) -> str:
        assert isinstance(tx, PostgresTx)
        return str(tx._one("SELECT current_setting('jit')", ())[0])

    async def main() -> None:
        async with PostgresStore(url) as store:
            assert await store.write(shown) == await store.read(shown) == "off"

    asyncio.run(main())


@pytest.mark.parametrize(
    "setting",
    [
        "default_transaction_isolation = serializable",
        "default_transaction_isolation = 'repeatable read'",
        "lock_timeout = 50",
        "client_encoding = latin1",
    ],
)
def test_what_is_read_after_a_lock_is_current_whatever_the_database_is_set_to(url: str, setting: str) -> None:
    execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET {setting}")
    is_held, runs = threading.Event(), []

    def first(tx: Tx) -> None:
        tx.lock("x")
        tx.note("held")
        is_held.set()
        time.sleep(0.7)
        tx.put_note("€", "first")

    def second(tx: Tx) -> Any:
        runs.append(tx.note("other"))
        tx.lock("x")
        return tx.note("€")

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        holding = asyncio.ensure_future(one.write(first))
        await asyncio.to_thread(is_held.wait, 5)
        assert await other.write(second) == "first"
        await holding
        assert len(runs) == 1, "it waited, and was not turned away"

    among(url, main)


def test_a_pooler_that_lends_sessions_for_a_transaction_is_refused(url: str) -> None:
    async def main(through: str) -> None:
        with pytest.raises(StoreError, match="pool_mode = session"):
            async with PostgresStore(through):
                pass

    with pooler(url) as through:
        asyncio.run(main(through))


@pytest.mark.parametrize("is_there", [False, True])
def test_a_store_has_to_hold_every_text(url: str, is_there: bool) -> None:
    """A database that is not UTF-8 is refused, also an existing store: each alert with a character that it lacks would
    be answered 500."""
    name = f"{url.rpartition('/')[2]}_latin"
    execute(url, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    if is_there:
        schema = Path(migrate.__code__.co_filename).parent / "schema" / "postgres"
        with psycopg.connect(f"{url}_latin", autocommit=True) as made:
            made.execute("CREATE TABLE gateway_schema (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)")
            for number, (script, works_with) in enumerate(SCHEMAS, 1):
                made.execute((schema / script).read_bytes())
                made.execute("INSERT INTO gateway_schema VALUES (%s, %s)", (number, works_with))

    async def main() -> None:
        with pytest.raises(StoreError, match=r"encoding is LATIN1: create it with ENCODING 'UTF8'"):
            async with PostgresStore(f"{url}_latin"):
                pass

    asyncio.run(main())


def test_a_role_that_may_not_create_tables_works_with_those_that_are_there(url: str) -> None:
    role = f"app_{url.rpartition('/')[2]}"
    execute(url, f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public")

    async def main() -> None:
        limited = PostgresStore(url.replace("postgres@", f"{role}@"))
        with pytest.raises(StoreError, match="permission denied for schema public"):
            async with limited:
                pass
        async with PostgresStore(url):
            execute(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        async with PostgresStore(url.replace("postgres@", f"{role}@")) as limited:
            await limited.write(put(delivery(1)))
            assert [row.id for row in await claim(limited)] == [1]

    asyncio.run(main())


def test_a_session_whose_replica_is_gone_ends_soon(url: str) -> None:
    """A network that drops silently tells the server nothing; with TCP keepalives it notices within a minute."""

    async def main() -> None:
        async with PostgresStore(url) as store:
            asked = "SELECT current_setting('tcp_keepalives_idle')::int * current_setting('tcp_keepalives_count')::int"
            assert 0 < await store.read(lambda tx: tx._one(asked, ())[0]) < 60  # type: ignore[attr-defined]

    asyncio.run(main())


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


def test_sums_over_a_history_keep_no_caller_waiting(url: str) -> None:
    """Of the two readers only one serves reports: a second one at once is refused, and the other reader stays free."""

    def slow(tx: Tx) -> Any:
        assert isinstance(tx, PostgresTx)
        return tx._at_length(lambda: tx._one("SELECT 1 FROM pg_sleep(3)", ()))

    async def main() -> None:
        async with PostgresStore(url) as store:
            first = asyncio.ensure_future(store.read(slow))
            await asyncio.sleep(0.5)
            began = time.monotonic()
            with pytest.raises(StoreError, match="try again later"):
                await store.read(slow)
            await asyncio.gather(*(store.read(lambda tx: tx.alert(1)) for _ in range(4)))
            assert time.monotonic() - began < 1.5
            await first
            assert await store.read(slow) == (1,)

    asyncio.run(main())


SECRET = "s3cr3t-p4ssw0rd"


@pytest.mark.parametrize(
    "where",
    [
        "postgresql://u:{secret}@127.0.0.1:{port}/db",
        "postgresql://u:{secret}@127.0.0.1:{port},127.0.0.1:{port}/db",
        "postgresql://u:{secret}@127.0.0.1:notaport/db",
        "postgresql://u:{secret}@[::bad/db",
        "postgresql://u:{secret}@host/db?nonsense=1",
        "postgresql://u:a@{secret}@127.0.0.1:{port}/db",
        "postgresql://u:{secret}/a@127.0.0.1:{port}/db",
        "postgresql://u:a@b/{secret}@127.0.0.1:{port}/db",
    ],
)
def test_a_password_is_in_no_error_and_no_repr(where: str) -> None:
    told: list[str] = []

    async def main() -> None:
        store = PostgresStore(where.format(secret=SECRET, port=free_port()))
        told.extend([repr(store), repr(store._address)])
        async with store:
            pass

    with pytest.raises(StoreError, match="cannot open the store") as caught:
        asyncio.run(main())
    told += [str(caught.value), "".join(traceback.format_exception(caught.value))]
    assert not any(SECRET in text for text in told)


def test_a_url_says_which_store_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store("sqlite:///var/lib/gateway.db"), SqliteStore)
    assert isinstance(open_store(url), PostgresStore)
    with pytest.raises(StoreError, match="'mysql' is not a supported store"):
        open_store("mysql://u@h/d")
    for name in [name for name in sys.modules if name.startswith("gateway.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install '\.\[postgres\]'"):
        open_store(url)
