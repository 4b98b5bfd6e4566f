"""What opening a PostgreSQL store needs and sets: its schema, between replicas of several releases too, its sessions,
rights and encoding; and no password in an error."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from functools import partial
from importlib import resources
from typing import Any

import psycopg
import pytest

from gateway.errors import StoreError
from gateway.ids import SLOTS
from gateway.store import Tx
from gateway.store.opening import open_store
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_schema import SCHEMAS
from gateway.store.postgres_tx import PostgresTx
from gateway.store.sqlite import SqliteStore
from tests.engine.replicas import among, claim, execute, opened_and_closed, put, until
from tests.engine.store_drivers import delivery
from tests.pooler import pooler
from tests.postgres_server import free_port

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
    with pooler(url) as through, pytest.raises(StoreError, match="pool_mode = session"):
        asyncio.run(opened_and_closed(through))


@pytest.mark.parametrize("is_there", [False, True])
def test_a_store_has_to_hold_every_text(url: str, is_there: bool) -> None:
    """A database that is not UTF-8 is refused, also an existing store: each alert with a character that it lacks would
    be answered 500."""
    name = f"{url.rpartition('/')[2]}_latin"
    execute(url, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    if is_there:
        as_it_was(f"{url}_latin", len(SCHEMAS))

    with pytest.raises(StoreError, match=r"encoding is LATIN1: create it with ENCODING 'UTF8'"):
        asyncio.run(opened_and_closed(f"{url}_latin"))


def test_a_role_that_may_not_create_tables_works_with_those_that_are_there(url: str) -> None:
    role = f"app_{url.rpartition('/')[2]}"
    execute(url, f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public")

    async def main() -> None:
        with pytest.raises(StoreError, match="permission denied for schema public"):
            await opened_and_closed(url.replace("postgres@", f"{role}@"))
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
