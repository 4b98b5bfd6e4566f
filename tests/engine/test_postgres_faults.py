"""guarantees.md 15: PostgreSQL killed, frozen, failed over. Nothing that was acknowledged is lost, nobody waits for
ever, and the store recovers by itself soon after its server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
import time
from functools import partial

import psycopg
import pytest

from gateway.errors import StoreError
from gateway.store import DeliveryFilter, Tx, postgres
from gateway.store.postgres import WITHIN, WRITERS, PostgresStore
from gateway.store.postgres_line import ANSWER, IDLE, Address, Away, Watch
from gateway.watch.trouble import prove
from tests.engine.loads import END_ALL, HEALTHY, Load, all_alerts, put_alert
from tests.engine.store_drivers import delivery
from tests.postgres_server import Server, free_port, shared


async def _read(store: PostgresStore) -> set[int]:
    """All deliveries, with retries: after a refused connection further attempts are refused at once for a moment."""
    for _ in range(10):
        with contextlib.suppress(StoreError):
            return await store.read(all_alerts)
        await asyncio.sleep(HEALTHY / 10)
    return await store.read(all_alerts)


def test_a_server_that_is_killed_and_started_again_loses_nothing(server: Server) -> None:
    async def main() -> None:
        async with PostgresStore(server.database()) as store:
            load = Load(store)
            async with load.running():
                for _ in range(3):
                    await load.grows(HEALTHY)
                    server.kill()
                    await load.is_refused(8)
                    await asyncio.to_thread(server.start)
                    await load.grows(HEALTHY)
            assert load.longest < WITHIN + 1
            there = await store.read(all_alerts)
            assert load.acknowledged <= there and len(load.acknowledged) > 100

    asyncio.run(main())


def test_a_frozen_server_keeps_nobody_waiting_and_is_found_again(server: Server) -> None:
    async def main() -> None:
        async with PostgresStore(server.database()) as store:
            load = Load(store)
            async with load.running():
                await load.grows(HEALTHY)
                server.freeze()
                await load.is_refused(16)
                with pytest.raises(StoreError):
                    await store.read(all_alerts)
                server.thaw()
                await load.grows(HEALTHY)
            assert load.longest < WITHIN + 1
            assert load.acknowledged <= await _read(store)

    asyncio.run(main())


def test_idle_connections_that_the_server_ended_are_nobodys_trouble() -> None:
    url = shared().database()

    async def main() -> None:
        async with PostgresStore(url) as store:
            await asyncio.gather(*(store.write(partial(put_alert, n)) for n in range(1, 100)))
            for _ in range(3):
                with psycopg.connect(url, autocommit=True) as other:
                    other.execute(END_ALL)
                assert len(await store.read(all_alerts)) == 99
                await asyncio.gather(*(store.write(lambda tx: tx.put_note("n", 1)) for _ in range(20)))

    asyncio.run(main())


def test_idle_connections_that_the_server_ends_by_itself_are_nobodys_trouble() -> None:
    url = shared().database()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET idle_session_timeout = '100ms'".encode())

    async def main() -> None:
        async with PostgresStore(url) as store:
            for number in range(1, 60):
                await store.write(partial(put_alert, number))
                assert len(await store.read(all_alerts)) == number
                await asyncio.sleep(0.095 + number % 10 / 1000)  # so that its last message is seen, or is not

    asyncio.run(main())


def _locked(tx: Tx) -> bool:
    """The lock is waited for only with the first read, which this adds."""
    return tx.lock("x") and tx.note("held") is None


def test_a_server_that_admits_too_few_is_served_by_those_that_it_admits() -> None:
    """A writer without a connection refuses jobs at once, and would so take more of them than the writers that have
    one."""
    url = shared().database()
    role = f"few_{url.rpartition('/')[2]}"
    with psycopg.connect(url, autocommit=True) as asked:
        asked.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2; GRANT CREATE ON SCHEMA public TO {role}".encode())

    async def main() -> None:
        async with PostgresStore(url.replace("postgres@", f"{role}@"), exclusive=False) as store:
            await store.write(partial(put_alert, 1))
            assert await store.read(all_alerts) == {1}
            await asyncio.gather(*(store.write(partial(put_alert, number)) for number in range(2, 200)))
            for _ in range(20):
                assert {len(found) for found in await asyncio.gather(*(store.read(all_alerts) for _ in range(4)))} == {
                    199
                }

    asyncio.run(main())


def test_a_process_that_has_too_many_files_open_is_told_that_there_is_no_connection() -> None:
    """Any error but `Away` would end the writer's thread for good."""
    line = Watch().line(Address(shared().database(), None))
    line.connection()
    line.drop()
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        os.close(taken.pop())  # room for the connection, and for nothing else
        with pytest.raises(Away, match="Too many open files"):
            line.connection()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        for one in taken:
            os.close(one)
        line.drop()


def test_a_full_disk_of_the_server_is_told_as_one() -> None:
    """Updates in place fail on a full disk too: the test commit, and outcomes."""
    url = shared().database()
    full = (
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$; "
        "CREATE TRIGGER full_disk BEFORE INSERT ON alerts EXECUTE FUNCTION full_disk(); "
        "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON notes "
        "FOR EACH ROW WHEN (length(NEW.body) > 100000) EXECUTE FUNCTION full_disk()"
    )

    async def main(other: psycopg.Connection[tuple[str]]) -> None:
        async with PostgresStore(url) as store:
            await prove(store, WITHIN)
            other.execute(full.encode())
            with pytest.raises(StoreError, match="could not extend file"):
                await store.write(partial(put_alert, 1))
            await store.ease()
            with pytest.raises(StoreError, match="the disk is full"):
                await prove(store, WITHIN)
            await store.write(lambda tx: tx.put_note("outcome", 1))
            assert store.is_strained
            other.execute(b"DROP FUNCTION full_disk CASCADE")
            await store.ease()
            await prove(store, WITHIN)
            await store.write(partial(put_alert, 1))

    with psycopg.connect(url, autocommit=True) as connection:
        asyncio.run(main(connection))


def test_a_replica_that_stops_in_the_middle_of_a_transaction_keeps_its_locks_for_seconds_only() -> None:
    """guarantees.md 14: the server rolls back what a frozen replica had begun."""
    url = shared().database()
    is_held, may_go = threading.Event(), threading.Event()
    runs: list[int] = []

    def hold(tx: Tx) -> None:
        _locked(tx)
        runs.append(1)
        is_held.set()
        may_go.wait(WITHIN)
        tx.put_note("n", len(runs))

    async def main() -> None:
        async with PostgresStore(url) as frozen, PostgresStore(url) as other:
            holding = asyncio.ensure_future(frozen.write(hold))
            await asyncio.to_thread(is_held.wait, HEALTHY)
            began = time.monotonic()
            with pytest.raises(StoreError, match="too slow"):
                await other.write(_locked)
            assert await other.write(_locked)
            assert time.monotonic() - began < IDLE + 1
            may_go.set()
            await holding
            assert await other.read(lambda tx: tx.note("n")) == 2

    asyncio.run(main())


def test_whoever_changes_a_delivery_that_a_frozen_replica_holds_keeps_nobody_else_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An update that is merged into a newer one, for example: it waits alone, and jobs batched with it do not."""
    monkeypatch.setattr(postgres, "WRITERS", 1)
    url = shared().database()
    begun, may_go = threading.Event(), threading.Event()

    def first(tx: Tx) -> None:
        begun.set()
        may_go.wait(WITHIN)
        tx.put_note("first", 1)

    def change(tx: Tx) -> None:
        [row] = tx.deliveries(DeliveryFilter())
        row.reason = "said by another"
        tx.update_delivery(row)

    async def main() -> None:
        async with PostgresStore(url) as store:
            await store.write(lambda tx: tx.insert_delivery(delivery(1)))
            with psycopg.connect(url) as frozen:
                frozen.execute(b"SELECT id FROM deliveries FOR UPDATE")
                jobs = [asyncio.ensure_future(store.write(first))]
                await asyncio.to_thread(begun.wait, HEALTHY)
                jobs += [asyncio.ensure_future(store.write(change))]
                jobs += [asyncio.ensure_future(store.write(lambda tx: tx.put_note("last", 1)))]
                await asyncio.sleep(0.1)
                began = time.monotonic()
                may_go.set()
                await jobs[0]
                await jobs[2]
                assert time.monotonic() - began < 1.5
                frozen.rollback()
            await jobs[1]
            [changed] = await store.read(lambda tx: tx.deliveries(DeliveryFilter()))
            assert changed.reason == "said by another"

    asyncio.run(main())


def test_of_several_hosts_the_one_that_takes_writes_serves(server: Server) -> None:
    """Of three hosts the first refuses and the second is a standby. The third is killed and the standby promoted: what
    was acknowledged had reached it."""
    url = server.database()
    standby = server.copy()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(b"ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute(b"SELECT pg_reload_conf()")
        name = url.rpartition("/")[2]
        ports = [free_port(), standby.port, server.port]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)

        async def main() -> None:
            async with PostgresStore(f"postgresql://postgres@{hosts}/{name}?target_session_attrs=read-write") as store:
                load = Load(store)
                async with load.running():
                    await load.grows(HEALTHY)
                    server.kill()
                    await asyncio.to_thread(standby.run, "pg_ctl", "promote", "-D", standby.data)
                    await load.grows(HEALTHY)
                assert load.acknowledged <= await store.read(all_alerts)

        asyncio.run(main())
    finally:
        standby.close()


def test_a_synchronous_standby_that_is_away_takes_no_connections_from_others(server: Server) -> None:
    """A commit that waits for a synchronous standby goes on waiting in the server after its connection was cut: each
    writer may leave only one such session behind."""
    url = server.database()
    standby = server.copy()
    waits = b"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    async def main(other: psycopg.Connection[tuple[int]]) -> None:
        async with PostgresStore(url) as store:
            load = Load(store)
            async with load.running():
                await load.grows(HEALTHY)
                standby.freeze()
                await asyncio.sleep(4 * ANSWER + 2)
                [left] = other.execute(waits).fetchone() or (0,)
                assert 0 < left <= WRITERS
                standby.thaw()
                await load.grows(HEALTHY)
            assert load.longest < WITHIN + 1
            await asyncio.sleep(1.0)  # for what was under way when the load ended
            assert other.execute(waits).fetchone() == (0,)
            assert load.acknowledged <= await store.read(all_alerts)

    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(b"ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute(b"SELECT pg_reload_conf()")
            asyncio.run(main(connection))
    finally:
        standby.close()
