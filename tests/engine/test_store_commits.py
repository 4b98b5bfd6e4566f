"""Commits, faults and opening of the store, one suite for every driver: what is durable, what is rolled back, and which
error is raised when the disk is full or the store belongs to something else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest

from gateway.errors import StoreError
from gateway.store import AlertFilter, AlertRow, Store, Tx
from gateway.store.sqlite import LONGEST_LOG, SqliteStore, SqliteTx
from tests.engine.store_drivers import DRIVERS, Harness, alert, command, sqlite_file, within


@pytest.fixture(params=sorted(DRIVERS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Each driver in turn."""
    return DRIVERS[request.param](tmp_path)


# --- transactions --------------------------------------------------------------------------------------------


def test_many_concurrent_writes_are_all_there_also_after_reopening(harness: Harness) -> None:
    async def main() -> None:
        async with harness.open() as store:

            def writer(number: int) -> Callable[[Tx], int]:
                def work(tx: Tx) -> int:
                    tx.insert_alert(alert(number))
                    return number

                return work

            assert await asyncio.gather(*(store.write(writer(n)) for n in range(1, 1001))) == list(range(1, 1001))
            _, total = await store.read(lambda tx: tx.alerts("s", AlertFilter(limit=1)))
            assert total == 1000
        if harness.again:
            async with harness.again() as store:
                _, total = await store.read(lambda tx: tx.alerts("s", AlertFilter(limit=1)))
                assert total == 1000

    asyncio.run(main())


class _Refused(Exception):
    """Raised by work that has looked into the store, and kept with its traceback."""


def _refuse(tx: Tx) -> None:
    """Reads the first of several rows, and raises."""
    assert isinstance(tx, SqliteTx)
    tx._one("SELECT * FROM notes", ())
    raise _Refused


@pytest.mark.parametrize("how", ["read", "long read", "write", "long write"])
def test_work_that_raises_leaves_nothing_open(tmp_path: Path, how: str) -> None:
    """An exception keeps what its frames refer to. If that was an open statement, reads were out of date, and the
    write-ahead log grew until the disk was full."""
    path = tmp_path / "gateway.db"

    async def main() -> None:
        async with SqliteStore(str(path)) as store:
            for number in range(3):
                await store.write(partial(_note_at_length, number))
            run = store.read if how.endswith("read") else store.write
            with pytest.raises(_Refused) as kept:
                await run(_refuse, is_long=how.startswith("long"))
            for number in range(3, 15):
                await store.write(partial(_note_at_length, number))
            assert path.with_name("gateway.db-wal").stat().st_size <= LONGEST_LOG
            seen = await store.read(lambda tx: tx.note("long"), is_long=how.startswith("long"))
            assert seen.startswith("14")
            assert kept.tb is not None

    asyncio.run(main())


def test_a_refusal_is_gone_without_the_garbage_collector(harness: Harness) -> None:
    """An error leads to the frames that it went through: one that these lead back to would be kept, with all that they
    hold, until the collector looks, and refusals come in thousands."""

    def refuse(tx: Tx) -> None:
        assert tx.note("none") is None
        raise _Refused

    async def main() -> None:
        async with harness.open() as store:
            kept: list[weakref.ref[_Refused]] = []
            for _ in range(3):
                try:
                    await store.write(refuse)
                except _Refused as refused:
                    kept.append(weakref.ref(refused))
                await store.write(lambda tx: tx.put_note("n", 1))  # so that the writer is done with what was before
            assert [one() for one in kept] == [None] * 3

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_log_that_grew_while_somebody_read_is_short_again(tmp_path: Path) -> None:
    """A WAL grows during a backup of a large store; it is truncated afterwards, without a restart."""
    path = tmp_path / "gateway.db"
    log = path.with_name("gateway.db-wal")

    async def main() -> None:
        async with SqliteStore(str(path)) as store:
            with contextlib.closing(apsw.Connection(str(path))) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM notes").fetchall()
                for number in range(12):
                    await store.write(partial(_note_at_length, number))
            assert log.stat().st_size > 2 * LONGEST_LOG
            for number in range(3):
                await store.write(partial(_note_at_length, number))
            assert log.stat().st_size <= LONGEST_LOG

    asyncio.run(main())


def _note_at_length(number: int, tx: Tx) -> None:
    tx.put_note("long", str(number) * (2 << 20))


def _put(number: int, tx: Tx) -> None:
    tx.insert_alert(alert(number))


class Mistake(Exception):
    """An error raised by a job."""


def test_what_the_store_refuses_is_the_fault_of_whoever_wrote_it(harness: Harness) -> None:
    """Later readers share the transaction with the faulty writer, and would be the first to get its error."""

    def put(number: int, tx: Tx) -> None:
        _put(number, tx)
        if number % 2:  # every other one reads nothing
            assert tx.alert(number)

    async def main() -> None:
        async with harness.open() as store:
            await store.write(partial(_put, 1))
            numbers = [1 if number % 10 == 0 else number for number in range(2, 200)]
            found = await asyncio.gather(*(store.write(partial(put, n)) for n in numbers), return_exceptions=True)
            assert [number for number, one in zip(numbers, found, strict=True) if one is not None] == [1] * 19
            _, total = await store.read(lambda tx: tx.alerts("s", AlertFilter(limit=1)))
            assert total == 200 - 20

    asyncio.run(main())


def test_a_job_that_fails_takes_only_its_own_writes_back(harness: Harness) -> None:
    async def main(store: Store) -> None:
        def writer(number: int) -> Callable[[Tx], None]:
            def work(tx: Tx) -> None:
                tx.insert_alert(alert(number))
                tx.insert_command(command(number, alert=number))
                if number % 3 == 0:
                    raise Mistake(number)

            return work

        ended = await asyncio.gather(*(store.write(writer(n)) for n in range(1, 301)), return_exceptions=True)
        for number, end in enumerate(ended, 1):
            assert (type(end) is Mistake and end.args == (number,)) if number % 3 == 0 else end is None
        rows, total = await store.read(lambda tx: tx.alerts("s", AlertFilter()))
        assert [row.id for row in rows] == [number for number in range(1, 301) if number % 3] and total == 200
        assert await store.read(lambda tx: tx.command(3)) is None

    within(harness, main)


@pytest.mark.parametrize(("has_written", "times"), [(False, 1), (True, 2)])
def test_others_are_done_again_only_where_one_that_failed_had_written(
    tmp_path: Path, has_written: bool, times: int
) -> None:
    """A job that fails before it writes, as refused requests do, costs the others of its batch nothing."""

    async def main(store: Store) -> None:
        done: list[int] = []

        def fails(tx: Tx) -> None:
            if has_written:
                _put(1000, tx)
            raise Mistake

        def works(number: int, tx: Tx) -> None:
            done.append(number)
            _put(number, tx)

        first = [store.write(partial(works, number)) for number in range(1, 11)]
        ended = await asyncio.gather(*first, store.write(fails), return_exceptions=True)
        assert [type(end) for end in ended] == [type(None)] * 10 + [Mistake]
        assert done == [*range(1, 11)] * times
        rows, _ = await store.read(lambda tx: tx.alerts("s", AlertFilter()))
        assert [row.id for row in rows] == [*range(1, 11)]

    within(sqlite_file(tmp_path), main)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_what_is_long_keeps_the_event_loop_free(harness: Harness, kind: str) -> None:
    async def main(store: Store) -> None:
        is_over = threading.Event()

        def work(tx: Tx) -> bool:
            return is_over.wait(20)

        long = asyncio.create_task(getattr(store, kind)(work, is_long=True))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not long.done()
        is_over.set()
        assert await long

    within(harness, main)


def test_what_the_gateway_wants_to_know_is_not_behind_the_long_lists_of_others(harness: Harness) -> None:
    """Otherwise metrics and alarms would report a store without commits for as long as somebody's long list takes."""

    async def main(store: Store) -> None:
        is_over = threading.Event()

        def work(tx: Tx) -> bool:
            return is_over.wait(20)

        others = [
            asyncio.create_task(store.read(work, is_long=True, whose=whose))
            for whose in ("operator", "caller", "caller", "operator")
        ]
        await asyncio.sleep(0.05)
        try:
            await asyncio.wait_for(store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway"), 5)
            assert not any(one.done() for one in others)
        finally:
            is_over.set()
        assert all(await asyncio.gather(*others))

    if store_has_readers(harness):
        within(harness, main)


def store_has_readers(harness: Harness) -> bool:
    """Whether it reads beside its writer; one in memory cannot."""
    store = harness.open()
    return not (isinstance(store, SqliteStore) and store._path == ":memory:")


def test_a_batch_that_is_done_in_several_stretches_is_one_commit(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        def work(number: int, tx: Tx) -> None:
            time.sleep(0.003)
            tx.insert_alert(alert(number))

        async def count() -> int:
            return (await store.read(lambda tx: tx.alerts("s", AlertFilter(limit=1))))[1]

        asked = [asyncio.create_task(store.write(partial(work, number))) for number in range(1, 11)]
        seen: list[int] = []
        while not asked[-1].done():
            seen.append(await count())
            await asyncio.sleep(0)
        assert len(seen) > 5, "others had their turns meanwhile"
        assert set(seen) <= {0, 10} and await count() == 10

    within(sqlite_file(tmp_path), main)


def test_what_is_written_is_read_in_the_same_transaction_and_after_it(harness: Harness) -> None:
    async def main(store: Store) -> None:
        def work(tx: Tx) -> AlertRow | None:
            tx.insert_alert(alert(1))
            return tx.alert(1)

        assert await store.write(work) == alert(1)
        assert await store.read(lambda tx: tx.alert(1)) == alert(1)

    within(harness, main)


def test_a_read_that_fails_does_not_end_the_store(harness: Harness) -> None:
    async def main(store: Store) -> None:
        def fails(tx: Tx) -> None:
            raise Mistake

        for _ in range(3):
            with pytest.raises(Mistake):
                await store.read(fails)
        await store.write(lambda tx: tx.insert_alert(alert(1)))
        assert await store.read(lambda tx: tx.alert(1)) == alert(1)

    within(harness, main)


def test_a_read_whose_end_failed_is_not_the_last(tmp_path: Path) -> None:
    """The reader recovers; otherwise nothing would be delivered until a restart."""

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "gateway.db")) as store:
            store._reader.execute("BEGIN")
            store._reader.execute("SELECT count(*) FROM alerts").fetchall()
            await store.write(lambda tx: tx.insert_alert(alert(1)))
            assert await store.read(lambda tx: tx.alert(1)) is not None

    asyncio.run(main())


def test_a_caller_that_went_away_does_not_disturb_the_others(harness: Harness) -> None:
    async def main(store: Store) -> None:
        jobs = [asyncio.ensure_future(store.write(partial(_put, n))) for n in range(1, 21)]
        await asyncio.sleep(0)
        for job in jobs[::2]:
            job.cancel()
        ended = await asyncio.gather(*jobs, return_exceptions=True)
        assert ended[1::2] == [None] * 10
        await store.write(lambda tx: tx.insert_alert(alert(99)))

    within(harness, main)


def test_who_goes_away_from_a_long_list_does_not_disturb_the_next(tmp_path: Path) -> None:
    """A client that breaks off a list of a million, or a metrics request that times out: the query is interrupted, or
    the next reader would be told that the store cannot be read, and heartbeats would stop."""
    begun = threading.Event()
    count = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 200000000) SELECT count(*) FROM n"

    def endless(tx: Tx) -> None:
        assert isinstance(tx, SqliteTx)
        begun.set()
        tx._one(count, ())

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "gateway.db")) as store:
            going = asyncio.create_task(store.read(endless, is_long=True, whose="gateway"))
            await asyncio.to_thread(begun.wait)
            began = time.monotonic()
            for _ in range(3):
                going.cancel()
                await asyncio.sleep(0.01)
            assert await store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway") == []
            assert time.monotonic() - began < 2

    asyncio.run(main())


def test_a_full_disk_is_told_to_everyone_and_the_store_goes_on_afterwards(harness: Harness) -> None:
    """guarantees.md 3: full disk: never a false success; resumes unaided."""

    async def main(store: Store) -> None:
        await store.write(lambda tx: tx.insert_alert(alert(1)))
        harness.fill(store)
        large = "x" * 20_000

        def writer(number: int) -> Callable[[Tx], None]:
            return lambda tx: tx.insert_alert(alert(number, resource=large))

        ended = await asyncio.gather(*(store.write(writer(n)) for n in range(2, 42)), return_exceptions=True)
        assert all(isinstance(end, StoreError) for end in ended)
        rows, total = await store.read(lambda tx: tx.alerts("s", AlertFilter()))
        assert (rows, total) == ([alert(1)], 1)
        harness.heal(store)
        await asyncio.gather(*(store.write(writer(n)) for n in range(2, 42)))
        _, total = await store.read(lambda tx: tx.alerts("s", AlertFilter(limit=1)))
        assert total == 41

    within(harness, main)


def test_a_full_disk_never_makes_a_false_success_of_a_mixed_batch(harness: Harness) -> None:
    async def main(store: Store) -> None:
        harness.fill(store)

        def writer(number: int) -> Callable[[Tx], None]:
            return lambda tx: tx.insert_alert(alert(number, resource="x" * (20_000 if number % 2 else 1)))

        ended = await asyncio.gather(*(store.write(writer(n)) for n in range(1, 41)), return_exceptions=True)
        rows, _ = await store.read(lambda tx: tx.alerts("s", AlertFilter()))
        succeeded = {number for number, end in enumerate(ended, 1) if end is None}
        assert {row.id for row in rows} == succeeded
        assert any(isinstance(end, StoreError) for end in ended)

    within(harness, main)


# --- opening -------------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_with_a_clear_error(harness: Harness) -> None:
    if harness.age is None or harness.again is None:
        pytest.skip("nothing of this driver outlives it")
    age, again = harness.age, harness.again

    async def main() -> None:
        async with harness.open():
            pass
        age()
        with pytest.raises(StoreError, match="newer release"):
            async with again():
                pass

    asyncio.run(main())


def test_a_second_gateway_on_the_same_store_is_refused(harness: Harness) -> None:
    if harness.again is None:
        pytest.skip("nobody else can open it")
    if harness.is_shared:
        pytest.skip("several gateways may open it")
    again = harness.again

    async def main() -> None:
        async with harness.open() as store:
            with pytest.raises(StoreError, match="another gateway"):
                async with again():
                    pass
            await store.write(lambda tx: tx.insert_alert(alert(1)))
        async with again() as store:
            assert await store.read(lambda tx: tx.alert(1)) == alert(1)

    asyncio.run(main())


def test_a_refused_opener_leaves_no_lock_behind(harness: Harness) -> None:
    if harness.age is None or harness.again is None:
        pytest.skip("nothing of this driver outlives it")
    age, again = harness.age, harness.again

    async def main() -> None:
        async with harness.open():
            pass
        age()
        for _ in range(2):
            with pytest.raises(StoreError, match="newer release"):
                async with again():
                    pass

    asyncio.run(main())


# --- SQLite alone --------------------------------------------------------------------------------------------


def test_a_tool_may_look_while_a_gateway_serves(tmp_path: Path) -> None:
    path = str(tmp_path / "gateway.db")

    async def main() -> None:
        async with SqliteStore(path) as store:
            await store.write(lambda tx: tx.insert_alert(alert(1)))
            async with SqliteStore(path, exclusive=False) as tool:
                assert await tool.read(lambda tx: tx.alert(1)) == alert(1)

    asyncio.run(main())


def test_success_means_fsynced(tmp_path: Path) -> None:
    """guarantees.md 1: WAL with `synchronous=FULL` makes a commit survive a power failure."""

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "gateway.db")) as store:
            assert store._writer.pragma("journal_mode") == "wal"
            assert store._writer.pragma("synchronous") == 2

    asyncio.run(main())


def test_a_place_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    (tmp_path / "junk.db").write_bytes(b"this is no database at all, " * 100)

    async def opening(path: Path) -> None:
        async with SqliteStore(str(path)):
            pass

    for path in (tmp_path / "file" / "gateway.db", tmp_path / "junk.db"):
        with pytest.raises(StoreError, match="cannot open"):
            asyncio.run(opening(path))
