"""The clock of a PostgreSQL server is set while gateways serve from it: nothing that waits there becomes overdue or is
delayed, and no lease ends early or late, whoever notices it and whenever. The clock is the database's own here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
import pytest

from gateway.clock import Clock
from gateway.config.loading import parse
from gateway.desk import desk
from gateway.process import service
from gateway.process.service import Gateway
from gateway.process.timekeeping import Timekeeping
from gateway.store import DeliveryFilter, DeliveryRow, Tx, postgres, postgres_line, postgres_looks
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_clock import NOTE, Seen, SteadyClock
from gateway.store.postgres_tx import _number
from gateway.store.tables import DELIVERIES
from tests.chaos_upstream import chaos, say
from tests.clients.callers import ALERTS
from tests.engine.lasting import alert
from tests.engine.moves import moved, rows_in, typed, written
from tests.engine.replicas import SHORT, claim, execute, opened_and_closed, put, set_clock, until, with_a_clock
from tests.engine.store_drivers import delivery
from tests.harness import KEY, inbound_tables, served
from tests.postgres_server import shared
from tests.processes import wait_for

T = TypeVar("T")
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
def test_work_that_was_given_before_the_clock_is_followed_ends_as_it_began(url: str, jump: float) -> None:
    """It reads the clock itself, after that has been followed; another replica has not followed yet."""

    async def main() -> None:
        async with PostgresStore(url, lease=SHORT) as one, PostgresStore(url) as other:
            clock = Clock()
            timekeeping = Timekeeping(clock, one)
            loop = asyncio.get_running_loop()

            def work(tx: Tx) -> None:
                before = clock()
                set_clock(url, jump)
                asyncio.run_coroutine_threadsafe(has_followed(), loop).result(10)
                tx.insert_delivery(delivery(2, upstream="u", lane="l", created_at=before, due=clock()))

            async def has_followed() -> None:
                while abs(clock.moved - jump * 1000) > 1000:
                    await timekeeping.look()
                    await asyncio.sleep(0.02)

            await one.write(work)
            [row] = await other.read(lambda tx: tx.deliveries(DeliveryFilter()))
            assert abs(row.created_at - time.time() * 1000) < 60_000 and 0 <= row.due - row.created_at < 60_000

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


def test_a_replica_starts_beside_one_that_was_frozen_in_the_middle_of_a_look(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_line, "STATEMENT", 0.5)
    frozen = psycopg.connect(url)
    frozen.execute("SET idle_in_transaction_session_timeout = '800ms'")
    frozen.commit()
    frozen.execute(b"SELECT pg_advisory_xact_lock(%d)" % _number(NOTE))
    asyncio.run(opened_and_closed(url))
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        frozen.execute("SELECT 1")


def test_what_waits_is_due_in_time_though_the_clock_was_set_back_while_no_replica_ran(url: str) -> None:
    async def main() -> None:
        set_clock(url, HOUR)
        async with PostgresStore(url) as one:
            before = one._clock()
        set_clock(url, 0.0)
        async with PostgresStore(url) as one:
            assert -1 < one._clock() - before < 10

    asyncio.run(main())


def test_a_time_in_which_no_replica_ran_is_no_jump(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one was killed: its slot may be a living one's. What waited is as late as it is."""
    monkeypatch.setattr(postgres_looks, "OTHERS_LOOK", 0.5)

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


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_neither_stalls_nor_gives_up_what_waits_for_two_gateways(
    url: str, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.05)
    with chaos(say(503)) as upstream, ExitStack() as stack:
        text = (
            f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[upstreams.oncall]\ndialect = "ilert"\n'
            f'url = "{upstream.url}"\nkey = "there"\nretry = {{ first = "100ms", most = "200ms" }}\n'
        )
        gateways = [Gateway(parse(text), PostgresStore(url, lease=SHORT)) for _ in range(2)]
        places = [stack.enter_context(served(one.app)) for one in gateways]
        for number, place in enumerate(places):
            _page(place, f"before-{number}")
        wait_for(lambda: len(upstream.got) >= 4)
        set_clock(url, jump)
        wait_for(lambda: all(abs(one.now() - time.time() * 1000 - jump * 1000) < 60_000 for one in gateways))
        for number, place in enumerate(places):
            _page(place, f"after-{number}")
        upstream.always(say(202, {}))
        wait_for(lambda: len(_outbox(places[0], "delivered")) == 4, 20)
        assert not _outbox(places[0], "dead")


def test_an_alert_of_a_batch_whose_turn_comes_after_a_jump_waits_no_longer_for_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read before the clock was set back, and is written after that."""
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.05)
    monkeypatch.setattr(desk, "PARTS", 1)
    with chaos(say(202, {})) as upstream, ExitStack() as stack:
        text = f'store = "{url}"\n' + inbound_tables(["alertmanager"])
        text += f'\n[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream.url}"\nkey = "there"\n'
        gateway = Gateway(parse(text), PostgresStore(url, lease=SHORT))
        place = stack.enter_context(served(gateway.app))
        sending = stack.enter_context(ThreadPoolExecutor(1))
        house = gateway.housekeeping
        assert house is not None
        wait_for(lambda: house._purged > 0)  # what it removes would wait, too
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE alerts IN SHARE MODE")
            batch, key = [alert("first"), alert("second")], {"Authorization": f"Bearer {KEY}"}
            posted = sending.submit(httpx.post, place + ALERTS, json=batch, headers=key, timeout=10)
            wait_for(lambda: _waits_for_lock(url))
            set_clock(url, -MONTH)
            wait_for(lambda: abs(gateway.now() - time.time() * 1000 + MONTH * 1000) < 60_000)
        assert posted.result(10).status_code == 200
        wait_for(lambda: len(upstream.got) == 2)


class Interrupted(PostgresStore):
    """A store whose clock is set back, and followed, right after the lanes have seen that something waits."""

    gateway: Gateway
    is_next = is_over = False

    async def read(self, work: Callable[[Tx], T], **more: Any) -> T:
        found = await super().read(work, **more)
        is_due = "Lanes._idle" in work.__qualname__ and found is not None and int(str(found)) <= self.gateway.now()
        if self.is_next and is_due:
            self.is_next = False
            await asyncio.to_thread(set_clock, self._address._url, -MONTH)
            while self.gateway.now() > (time.time() - MONTH / 2) * 1000:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            self.is_over = True
        return found


def test_a_jump_while_lanes_look_makes_nothing_overdue(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.05)
    with chaos(say(503)) as upstream, ExitStack() as stack:
        text = (
            f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[upstreams.oncall]\ndialect = "ilert"\n'
            f'url = "{upstream.url}"\nkey = "there"\nrate = 6000\nretry = {{ first = "60s", most = "60s" }}\n'
        )
        store = Interrupted(url, lease=SHORT)
        store.gateway = gateway = Gateway(parse(text), store)
        place = stack.enter_context(served(gateway.app))
        _page(place, "it waits for its second attempt")
        wait_for(lambda: execute(url, "SELECT attempts FROM deliveries WHERE due > created_at") == [(1,)])
        store.is_next = True
        _page(place, "it is due")
        wait_for(lambda: store.is_over and execute(url, "SELECT sum(attempts) FROM deliveries") != [(1,)])
        assert len(upstream.got) == 2


def _waits_for_lock(url: str) -> bool:
    return execute(url, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'alerts'::regclass") == [(1,)]


def _page(place: str, key: str) -> None:
    page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": key, "summary": key}
    assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202


def _outbox(place: str, state: str) -> list[object]:
    found: list[object] = httpx.get(f"{place}/-/deliveries?state={state}").json()["deliveries"]
    return found


@pytest.mark.parametrize("jump", [HOUR, -MONTH])
def test_the_last_replica_that_leaves_stores_what_waits_by_the_servers_clock(url: str, jump: float) -> None:
    """A release that does not know of jumps can be started then, and later this one again."""

    async def main() -> None:
        async with PostgresStore(url, lease=SHORT) as one:
            await one.write(put(waits()))
            set_clock(url, jump)
            await jumped(one, url, jump)
            async with PostgresStore(url, lease=SHORT):
                pass
            await jumped(one, url, jump)  # somebody is left
        assert _stored(url) == [(jump, 500)] and _jumps(url) == 0
        async with PostgresStore(url) as new:
            assert await shown(new) == {2: (jump, 500)}

    asyncio.run(main())


def _stored(url: str) -> list[tuple[int, int]]:
    rows = execute(url, "SELECT created_at, due FROM deliveries")
    return [(round((created_at - NOW) / 1000), due - created_at) for created_at, due in rows]


def test_a_replica_that_is_started_while_the_last_one_leaves_goes_by_what_that_one_has_left(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = postgres._take_slot

    async def main() -> None:
        leaving = AsyncExitStack()
        one = await leaving.enter_async_context(PostgresStore(url, lease=SHORT))
        await one.write(put(waits()))
        set_clock(url, HOUR)
        await jumped(one, url, HOUR)
        loop = asyncio.get_running_loop()

        def late(tx: Tx) -> int:
            asyncio.run_coroutine_threadsafe(leaving.aclose(), loop).result(10)
            return take(tx)

        monkeypatch.setattr(postgres, "_take_slot", late)
        async with PostgresStore(url) as new:
            assert _jumps(url) == 0 and await shown(new) == {2: (HOUR, 500)}

    asyncio.run(main())


def test_a_store_that_is_moved_takes_what_waits_along_as_it_is(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other engine knows of the jump; and the last replica was killed."""
    monkeypatch.setattr(SteadyClock, "leave", lambda clock, tx: None)

    async def fill() -> None:
        async with PostgresStore(url, lease=SHORT) as one:
            await one.write(put(waits()))
            set_clock(url, HOUR)
            await jumped(one, url, HOUR)

    asyncio.run(fill())
    to = f"sqlite://{tmp_path}/gateway.db"
    moved(url, to)
    [row] = rows_in(to)["deliveries"]
    times = [row[DELIVERIES.fields.index(name)] for name in ("created_at", "due")]
    assert [round((at - NOW) / 1000) for at in times] == [HOUR, HOUR] and times[1] - times[0] == 500
    assert NOTE not in [row[0] for row in rows_in(to)["notes"]]


def test_a_command_goes_by_the_time_of_the_gateway(url: str, tmp_path: Path) -> None:
    """What it puts back into the outbox of a server that is a month behind would wait for a month."""
    set_clock(url, -MONTH)

    async def fill() -> None:
        async with PostgresStore(url) as one:
            await one.write(put(delivery(2, upstream="oncall", lane="l", state="dead", finished_at=NOW)))

    asyncio.run(fill())
    done = typed("retry", written(tmp_path, url), "--dead")
    assert done.returncode == 0, done.stderr
    [(due,)] = execute(url, "SELECT due FROM deliveries")
    assert abs(due / 1000 + MONTH - time.time()) < 60


@pytest.mark.parametrize("jump", [HOUR, -MONTH])
def test_a_command_that_comes_before_anybody_has_noticed_a_jump_goes_by_it_too(url: str, jump: float) -> None:
    """What it puts back would wait for as long, or count as so late."""

    async def main() -> None:
        async with PostgresStore(url) as one:  # it looks every five seconds, or when it is asked
            set_clock(url, jump)
            await _put_back(url)
            await until(lambda: _has_noticed(url, jump))
            assert -1 < await _overdue(one) < 10

    asyncio.run(main())


def test_a_command_knows_that_the_clock_was_set_back_while_no_gateway_ran(url: str) -> None:
    async def main() -> None:
        await opened_and_closed(url)
        set_clock(url, -MONTH)
        await _put_back(url)
        async with PostgresStore(url) as one:
            assert -1 < await _overdue(one) < 10

    asyncio.run(main())


async def _has_noticed(url: str, jump: float) -> bool:
    return abs(_jumps(url) - jump) < 1


async def _put_back(url: str) -> None:
    """Puts a delivery into the outbox, as a command does beside the gateways."""
    async with PostgresStore(url, exclusive=False) as tool:
        now = _gateways_clock(tool)()
        await tool.write(put(delivery(2, upstream="u", lane="l", created_at=now, due=now)))


async def _overdue(store: PostgresStore) -> float:
    """For how many seconds the delivery could have been sent, by the clock of this replica's gateway."""
    clock = _gateways_clock(store)
    [row] = await store.read(lambda tx: tx.deliveries(DeliveryFilter()))
    return (clock() - row.due) / 1000


def _gateways_clock(store: PostgresStore) -> Clock:
    clock = Clock()
    Timekeeping(clock, store)
    return clock
