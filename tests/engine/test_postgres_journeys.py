"""What one journey to PostgreSQL carries: statements of several jobs, sent together, of which each job learns how its
own ended."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial

import psycopg
import pytest

from gateway.errors import StoreError
from gateway.store import Tx, postgres
from gateway.store.postgres import WITHIN, PostgresStore
from gateway.store.postgres_tx import PostgresTx
from tests.engine.loads import END_ALL, HEALTHY, all_alerts, put_alert
from tests.postgres_server import Server, shared


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
            put_alert(number, tx)
        has_written.set()
        may_read.wait(WITHIN)
        assert tx.alert(4)
        has_read.set()
        may_go.wait(1)

    async def main(other: psycopg.Connection[tuple[str]]) -> None:
        async with PostgresStore(url) as store:
            while not all(line.is_made for line in store._writing) or other.execute(states).fetchall() != [("idle",)]:
                await store.write(all_alerts)  # so that no writer is busy connecting
            await store.read(all_alerts)
            working = asyncio.ensure_future(store.write(work))
            await asyncio.to_thread(has_written.wait, HEALTHY)
            assert other.execute(states).fetchall() == [("idle",)]
            may_read.set()
            await asyncio.to_thread(has_read.wait, HEALTHY)
            assert sorted(other.execute(states).fetchall()) == [("idle",), ("idle in transaction",)]
            may_go.set()
            await working
            assert await store.read(all_alerts) == {1, 2, 3, 4}

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
    put_alert(1, tx)
    raise Mistake


def _twice(tx: Tx) -> None:
    """The statements after the failing one were sent together with it."""
    put_alert(1, tx)
    put_alert(1, tx)
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
                other.execute(END_ALL)
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
                other.execute(END_ALL)
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
