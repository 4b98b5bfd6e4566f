"""What PostgreSQL reads for a query, however it plans it: about as many rows as are wanted; and sums over a whole
history at nobody's expense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

from gateway.errors import StoreError
from gateway.store import AlertFilter, DeliveryFilter, Tx
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_statements import claiming
from gateway.store.postgres_tx import PostgresTx, _translated
from tests.engine.replicas import execute, opened_and_closed
from tests.engine.store_drivers import alert, command, delivery


def test_a_claim_walks_an_index_also_where_nothing_is_known_of_the_table(url: str) -> None:
    """dependencies.md: 1.9 ms on 100,000 rows, against a hundred where all lanes are compared with all."""

    asyncio.run(opened_and_closed(url))
    fill = (
        "INSERT INTO deliveries (id, command, upstream, lane, operation, state, created_at, due, size, attempts, "
        "reason, report, merges) SELECT n, n, 'u', 'lane ' || n, 'create', 'waiting', n, n, 1, 0, '', '[]', '[]' "
        "FROM generate_series(1, 20000) n"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"ALTER TABLE deliveries SET (autovacuum_enabled = off)")
        connection.execute(fill.encode())
        by_rank = "deliveries_ranked"
        for ranked, unsent, index in ((False, False, "deliveries_due"), (True, False, by_rank), (True, True, by_rank)):
            values: tuple[Any, ...] = ("me", "u", 10**12, 0.0, "me", [], 10, "me", 15.0)
            claim = _translated(claiming(ranked=ranked, unsent=unsent))
            told = connection.execute(b"EXPLAIN (ANALYZE) " + claim, values).fetchall()
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

        await opened_and_closed(url)
        execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET plan_cache_mode = {plans}")
        for statement in FILL:
            execute(url, statement)
        async with PostgresStore(url) as store:
            for name in SMALL:
                await store.write(partial(counted, name))
        return read

    read = asyncio.run(main())
    assert {name: rows for name, rows in read.items() if rows > MANY / 10} == {}


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
