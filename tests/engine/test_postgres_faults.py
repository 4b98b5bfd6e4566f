"""guarantees.md 15: PostgreSQL killed, frozen, failed over. Nothing that was acknowledged is lost, nobody waits for
ever, and the store recovers by itself soon after its server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import resource
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from gateway.config.loading import parse
from gateway.errors import StoreError
from gateway.store import AlertFilter, DeliveryFilter, Tx, postgres
from gateway.store.postgres import WITHIN, WRITERS, PostgresStore
from gateway.store.postgres_line import ANSWER, IDLE, Address, Away, Watch
from gateway.store.postgres_tx import PostgresTx
from gateway.watch.trouble import prove
from tests.engine.store_drivers import alert, delivery
from tests.engine.vendors import page
from tests.harness import House, house, inbound_tables, upstream_table
from tests.postgres_server import Server, free_port, shared

HEALTHY = 10.0
"""Seconds within which the store has to recover."""
LEASE = 15.0
AWAY = "alert_gateway_store_unavailable"
_END_ALL = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own, which the test may break."""
    made = Server().make()
    yield made
    made.close()


def _put(number: int, tx: Tx) -> None:
    tx.insert_alert(alert(number))


def _all(tx: Tx) -> set[int]:
    return {row.id for row in tx.alerts("s", AlertFilter())[0]}


async def _read(store: PostgresStore) -> set[int]:
    """All deliveries, with retries: after a refused connection further attempts are refused at once for a moment."""
    for _ in range(10):
        with contextlib.suppress(StoreError):
            return await store.read(_all)
        await asyncio.sleep(HEALTHY / 10)
    return await store.read(_all)


class Load:
    """Writes alerts one after another and remembers which were acknowledged."""

    def __init__(self, store: PostgresStore, first: int = 1) -> None:
        self._store = store
        self._next = first
        self.acknowledged: set[int] = set()
        self.refused = 0
        self.longest = 0.0

    async def put(self) -> bool:
        """Writes one alert; returns whether it was acknowledged."""
        number, self._next = self._next, self._next + 1
        began = time.monotonic()
        try:
            await self._store.write(partial(_put, number))
        except StoreError:
            self.refused += 1
            return False
        else:
            self.acknowledged.add(number)
            return True
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            if not await self.put():
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def running(self, callers: int = 8) -> AsyncIterator[None]:
        """Runs several callers in the background."""
        tasks = [asyncio.create_task(self.run()) for _ in range(callers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def is_refused(self, times: int) -> None:
        """Waits until `times` more writes were refused."""
        began, before = time.monotonic(), self.refused
        while self.refused < before + times:
            assert time.monotonic() - began < 3 * WITHIN, "nobody is told that the store is away"
            await asyncio.sleep(0.02)

    async def grows(self, within: float) -> float:
        """Waits until more is acknowledged; returns the seconds that took."""
        began, before = time.monotonic(), len(self.acknowledged)
        while len(self.acknowledged) < before + 20:
            assert time.monotonic() - began < within, "the store did not recover"
            await asyncio.sleep(0.02)
        return time.monotonic() - began


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
            there = await store.read(_all)
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
                    await store.read(_all)
                server.thaw()
                await load.grows(HEALTHY)
            assert load.longest < WITHIN + 1
            assert load.acknowledged <= await _read(store)

    asyncio.run(main())


def test_idle_connections_that_the_server_ended_are_nobodys_trouble() -> None:
    url = shared().database()

    async def main() -> None:
        async with PostgresStore(url) as store:
            await asyncio.gather(*(store.write(partial(_put, n)) for n in range(1, 100)))
            for _ in range(3):
                with psycopg.connect(url, autocommit=True) as other:
                    other.execute(
                        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                assert len(await store.read(_all)) == 99
                await asyncio.gather(*(store.write(lambda tx: tx.put_note("n", 1)) for _ in range(20)))

    asyncio.run(main())


def test_idle_connections_that_the_server_ends_by_itself_are_nobodys_trouble() -> None:
    url = shared().database()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET idle_session_timeout = '100ms'".encode())

    async def main() -> None:
        async with PostgresStore(url) as store:
            for number in range(1, 60):
                await store.write(partial(_put, number))
                assert len(await store.read(_all)) == number
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
            await store.write(partial(_put, 1))
            assert await store.read(_all) == {1}
            await asyncio.gather(*(store.write(partial(_put, number)) for number in range(2, 200)))
            for _ in range(20):
                assert {len(found) for found in await asyncio.gather(*(store.read(_all) for _ in range(4)))} == {199}

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
                await store.write(partial(_put, 1))
            await store.ease()
            with pytest.raises(StoreError, match="the disk is full"):
                await prove(store, WITHIN)
            await store.write(lambda tx: tx.put_note("outcome", 1))
            assert store.is_strained
            other.execute(b"DROP FUNCTION full_disk CASCADE")
            await store.ease()
            await prove(store, WITHIN)
            await store.write(partial(_put, 1))

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
                assert load.acknowledged <= await store.read(_all)

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
            assert load.acknowledged <= await store.read(_all)

    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(b"ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute(b"SELECT pg_reload_conf()")
            asyncio.run(main(connection))
    finally:
        standby.close()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_who_watches_sees_that_it_is_the_store(server: Server, how: str, tmp_path: Path) -> None:
    """`/metrics` goes on with the values from before the outage: a gateway without metrics looks dead, and whoever is
    paged restarts it."""
    with house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=server.database()) as h:

        def metrics() -> str:
            answer = h.client.get(h.url + "/metrics")
            assert answer.status_code == 200 and answer.elapsed.total_seconds() < HEALTHY * 0.8
            return answer.text

        assert page(h).status == 202
        h.wait_for(lambda: 'outcome="delivered",reason="",upstream="oncall"} 1.0' in metrics())
        assert f"{AWAY} 0.0" in metrics()
        getattr(server, how)()
        shown = metrics()
        assert f"{AWAY} 1.0" in shown and 'outcome="delivered",reason="",upstream="oncall"} 1.0' in shown
        ready = h.client.get(h.url + "/-/ready")
        assert ready.status_code == 503
        assert re.fullmatch("the store takes no commits: .+", ready.json()["faults"][0]), "it says why"
        (server.thaw if how == "freeze" else server.start)()
        h.wait_for(lambda: f"{AWAY} 0.0" in metrics(), HEALTHY)


@pytest.mark.parametrize("table", ["deliveries", "slots", "commands"])
def test_a_table_that_is_away_for_a_moment_ends_nobodys_work(table: str, tmp_path: Path) -> None:
    """During a restore or a script that grants rights anew statements fail for a while; afterwards all work
    continues."""
    url = shared().database()
    with (
        psycopg.connect(url, autocommit=True) as other,
        house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=url) as h,
    ):

        def waiting() -> object:
            return other.execute(b"SELECT count(*) FROM deliveries WHERE state <> 'delivered'").fetchone()

        assert page(h, "before").status == 202
        other.execute(f"ALTER TABLE {table} RENAME TO away".encode())
        time.sleep(LEASE / 3 + 1.0)
        assert table == "slots" or page(h, "meanwhile").status == 503
        other.execute(f"ALTER TABLE away RENAME TO {table}".encode())
        assert page(h, "after").status == 202
        h.wait_for(lambda: waiting() == (0,), HEALTHY)
        assert h.client.get(h.url + "/-/ready").status_code == 200
        kept = b"SELECT count(*) FROM slots WHERE leased_until > now() + make_interval(secs => %s)"
        h.wait_for(lambda: other.execute(kept, (LEASE - 2.0,)).fetchone() == (1,), HEALTHY)


def _says(h: House, word: str) -> bool:
    return word in h.call("GET", "/-/ready").body["faults"][0]


def test_a_password_that_is_replaced_is_used_from_then_on(server: Server, tmp_path: Path) -> None:
    """README: a `file:` secret is read again when the file changes. The change alone does not make a reload fail."""
    file, url = tmp_path / "store", server.database()
    rules = Path(server.data) / "pg_hba.conf"
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(b"CREATE ROLE gate SUPERUSER LOGIN PASSWORD 'first-word'")
        rules.write_text("host all gate 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        other.execute(b"SELECT pg_reload_conf()")
        file.write_text(url.replace("postgres@", "gate:first-word@"))
        with house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=f"file:{file}") as h:
            assert page(h, "before").status == 202
            other.execute(b"ALTER ROLE gate PASSWORD 'next-word'")
            other.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'")
            assert page(h, "meanwhile").status == 503
            for meant, said in {"gate:next/word@": "percent-encoded", "gate:next-word@x": "requires a restart"}.items():
                file.write_text(url.replace("postgres@", meant))
                h.wait_for(partial(_says, h, said), HEALTHY)
            file.write_text(url.replace("postgres@", "gate:next-word@"))
            h.wait_for(lambda: page(h, "after").status == 202, HEALTHY)
            replaced = upstream_table("oncall", "ilert", h.sandbox_url)
            assert h.gateway.dispatcher is not None
            loop = h.gateway.dispatcher._tasks["oncall"].get_loop()
            config = parse(f'store = "file:{file}"\n{inbound_tables(["ilert"])}\n{replaced}')
            asyncio.run_coroutine_threadsafe(h.gateway.reload(config), loop).result(15)
            h.wait_for(lambda: page(h, "at last").status == 202, HEALTHY)  # a writer may just have been refused


def test_nothing_is_sent_that_is_not_to_be_answered(server: Server) -> None:
    """Between two messages of one pipeline a session is not idle to the server: a replica frozen there would keep its
    locks for as long as it is frozen."""
    url = server.database()
    has_written, may_read, has_read, may_go = (threading.Event() for _ in range(4))
    states = (
        b"SELECT DISTINCT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def work(tx: Tx) -> None:
        for number in range(1, 5):
            _put(number, tx)
        has_written.set()
        may_read.wait(WITHIN)
        assert tx.alert(4)
        has_read.set()
        may_go.wait(1)

    async def main(other: psycopg.Connection[tuple[str]]) -> None:
        async with PostgresStore(url) as store:
            while not all(line.is_made for line in store._writing) or other.execute(states).fetchall() != [("idle",)]:
                await store.write(_all)  # so that no writer is busy connecting
            await store.read(_all)
            working = asyncio.ensure_future(store.write(work))
            await asyncio.to_thread(has_written.wait, HEALTHY)
            assert other.execute(states).fetchall() == [("idle",)]
            may_read.set()
            await asyncio.to_thread(has_read.wait, HEALTHY)
            assert sorted(other.execute(states).fetchall()) == [("idle",), ("idle in transaction",)]
            may_go.set()
            await working
            assert await store.read(_all) == {1, 2, 3, 4}

    with psycopg.connect(url, autocommit=True) as connection:
        asyncio.run(main(connection))


def test_a_journey_larger_than_a_socket_takes_at_once_arrives() -> None:
    """Networks other than loopback take far less at once, some 90 kB on a fresh connection: a larger pipeline still
    arrives."""
    large = "a" * (16 << 20)

    def work(tx: Tx) -> bool:
        tx.put_note("large", large)
        return tx.note("other") is None and tx.note("large") == large

    async def main() -> None:
        async with PostgresStore(shared().database()) as store:
            assert await store.write(work)
            assert await store.read(lambda tx: tx.note("large")) == large

    asyncio.run(main())


class Mistake(Exception):
    """An error raised by a job itself."""


def _note(number: int, tx: Tx) -> None:
    tx.put_note("n", number)


def _mistaken(tx: Tx) -> None:
    _put(1, tx)
    raise Mistake


def _twice(tx: Tx) -> None:
    """The statements after the failing one were sent together with it."""
    _put(1, tx)
    _put(1, tx)
    tx.put_note("n", 1)


def test_a_statement_that_was_to_be_prepared_behind_one_that_failed_is_prepared_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A statement is prepared at its sixth use; if that PREPARE was discarded behind a failure, the server does not
    know it."""
    monkeypatch.setattr(postgres, "WRITERS", 1)

    async def main() -> None:
        async with PostgresStore(shared().database()) as store:
            with pytest.raises(Mistake):
                await store.write(_mistaken)
            for number in range(5):
                await store.write(partial(_note, number))
            with pytest.raises(psycopg.IntegrityError):
                await store.write(_twice)
            await store.write(partial(_note, 7))
            assert await store.read(lambda tx: tx.note("n")) == 7

    asyncio.run(main())


def test_who_reads_from_a_table_that_was_away_finds_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "READERS", 1)
    url = shared().database()

    async def main(other: psycopg.Connection[tuple[str]]) -> None:
        async with PostgresStore(url) as store:
            for _ in range(5):
                assert await store.read(lambda tx: tx.note("n")) is None
            other.execute(b"ALTER TABLE notes RENAME TO away")
            with pytest.raises(StoreError):
                await store.read(lambda tx: tx.note("n"))
            other.execute(b"ALTER TABLE away RENAME TO notes")
            assert await store.read(lambda tx: tx.note("n")) is None

    with psycopg.connect(url, autocommit=True) as connection:
        asyncio.run(main(connection))


def test_who_was_told_that_it_took_too_long_is_not_done_again_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "WRITERS", 1)
    url = shared().database()
    may_go = threading.Event()
    runs: list[str] = []

    def slow(tx: Tx) -> None:
        assert isinstance(tx, PostgresTx)
        if "slow" not in runs:
            runs.append("slow")
            tx._run("SELECT pg_sleep(60)", ()).fetchone()
        tx.put_note("slow", 1)

    def lost(tx: Tx) -> None:
        if runs.count("other") == 0:
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(_END_ALL)
        runs.append("other")
        tx.put_note("other", tx.note("other") is None)

    async def main() -> None:
        async with PostgresStore(url) as store:
            first = asyncio.ensure_future(store.write(lambda tx: may_go.wait(WITHIN)))
            both = [asyncio.ensure_future(store.write(work)) for work in (slow, lost)]
            await asyncio.sleep(0.1)
            may_go.set()
            await first
            ended = await asyncio.gather(*both, return_exceptions=True)
            assert "too slow" in str(ended[0]) and ended[1] is None
            assert runs == ["slow", "other", "other"]
            assert await store.read(lambda tx: (tx.note("slow"), tx.note("other"))) == (None, True)

    asyncio.run(main())


def test_a_reader_whose_connection_is_lost_writes_no_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    url = shared().database()
    runs: list[int] = []

    def lost(tx: Tx) -> bool:
        runs.append(1)
        if len(runs) == 1:
            assert tx.note("n") is None
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(_END_ALL)
        return tx.note("n") is None

    async def main() -> None:
        async with PostgresStore(url) as store:
            assert await store.read(lost) and len(runs) == 2

    asyncio.run(main())
    gc.collect()
    assert not [one for one in caplog.records if one.name == "psycopg"]


def test_a_statement_that_takes_too_long_is_the_trouble_of_whose_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job whose statement timed out gets the error, not the next reader in the same transaction, which hears of it
    first."""
    monkeypatch.setattr(postgres, "WRITERS", 1)
    url = shared().database()
    may_go = threading.Event()

    async def main(other: psycopg.Connection[tuple[str]]) -> None:
        async with PostgresStore(url) as store:
            await store.write(partial(_note, 1))
            other.execute(b"SELECT * FROM notes WHERE name = 'n' FOR UPDATE")
            first = asyncio.ensure_future(store.write(lambda tx: may_go.wait(WITHIN)))
            works = (partial(_note, 2), lambda tx: tx.note("other"))
            both = [asyncio.ensure_future(store.write(work)) for work in works]
            await asyncio.sleep(0.1)
            may_go.set()
            await first
            ended = await asyncio.gather(*both, return_exceptions=True)
            assert "too slow" in str(ended[0]) and ended[1] is None

    with psycopg.connect(url) as connection:
        asyncio.run(main(connection))
