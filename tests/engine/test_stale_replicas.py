"""A replica that was frozen and does not know it leaves alone what others have taken over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import psycopg
import pytest

from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.process.service import Gateway
from gateway.road.preparing import Shipment, fire
from gateway.store import Asking, DeliveryRow, TargetRow, Tx
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_clock import Seen
from gateway.store.postgres_tx import PostgresTx
from tests.chaos_upstream import RESET_AFTER, chaos, say
from tests.engine.replicas import claim, execute, put, until
from tests.engine.store_drivers import alert, delivery
from tests.engine.vendors import Uptinio, slow, writes
from tests.harness import KEY, served
from tests.postgres_server import shared
from tests.processes import wait_for

LEASE = 0.5
T = TypeVar("T")


def _waiting(tx: Tx) -> int:
    return len(tx.waiting())


class Standing(PostgresStore):
    """The store of a replica that freezes between a claim and its result, until another replica has taken over the
    claim."""

    def __init__(self, url: str) -> None:
        super().__init__(url, lease=LEASE)
        self._other = PostgresStore(url, lease=60)
        self.taken: list[DeliveryRow] = []

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Claims, and freezes once if anything was claimed."""
        done = await super().take(work)
        waiting = await self.read(_waiting)
        if not self.taken and waiting:
            await asyncio.sleep(LEASE + 0.1)
            await self._other.__aenter__()
            self.taken = await self._other.take(lambda tx: tx.claim("oncall", 10**15, 10))
        return done

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._other.__aexit__()


async def _claimed(store: PostgresStore) -> Shipment:
    [row] = await store.take(lambda tx: tx.claim("u", 10**15, 10))
    return Shipment(delivery=row, operation=Operation.CREATE, fires=True)


def _put(tx: Tx) -> None:
    tx.insert_alert(alert(1))
    tx.put_target(TargetRow(alert=1, upstream="u", position=1, lane="l", key="k", state="standby"))
    tx.insert_delivery(delivery(2, alert=1, upstream="u", lane="l"))


def test_a_fallback_that_another_replica_has_taken_over_is_not_told() -> None:
    async def main() -> None:
        url = shared().database()
        async with PostgresStore(url, lease=LEASE) as one, PostgresStore(url, lease=LEASE) as other:
            await one.write(_put)
            stale = await _claimed(one)
            await asyncio.sleep(LEASE + 0.1)
            fresh = await _claimed(other)
            assert not await one.write(lambda tx: fire(tx, stale))
            [target] = await one.read(lambda tx: tx.targets(1))
            assert target.state == "standby", "the stale one changed it"
            assert await other.write(lambda tx: fire(tx, fresh))

    asyncio.run(main())


def test_what_was_taken_over_while_the_claim_was_on_its_way_is_not_sent() -> None:
    """The lease runs from before the claim, not from when its result arrived."""
    url = shared().database()
    with chaos(say(202, {})) as upstream:
        text = (
            f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
            f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream.url}"\nkey = "there"\n'
        )
        store = Standing(url)
        with served(Gateway(parse(text), store).app) as place:
            page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "disk", "summary": "disk full"}
            assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202
            end = time.monotonic() + 10
            while not store.taken and time.monotonic() < end:
                time.sleep(0.02)
            assert len(store.taken) == 1
            time.sleep(2 * LEASE)
            assert not upstream.got, "it was sent although another replica had it"


TAKEN_OVER = b"""
UPDATE deliveries SET owner = 'another', fence = fence + 1, leased_until = now() + interval '1 minute'
WHERE state = 'waiting'
"""


class Asleep(PostgresStore):
    """The store of a replica whose machine sleeps after its first claim; another replica has taken that over then."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(url, lease=LEASE)
        self._url = url
        self._monkeypatch = monkeypatch
        self.has_slept = False

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Claims, and sleeps once if anything was claimed: the monotonic clock does not notice it."""
        done, real = await super().take(work), time.clock_gettime
        if not self.has_slept and execute(self._url, "SELECT 1 FROM deliveries"):
            self.has_slept = True
            execute(self._url, TAKEN_OVER.decode())
            self._monkeypatch.setattr(time, "clock_gettime", lambda of: real(of) + 10 * LEASE)
        return done


def test_what_was_taken_over_while_the_machine_slept_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    url = shared().database()
    with chaos(say(202, {})) as upstream:
        text = (
            f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
            f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream.url}"\nkey = "there"\n'
        )
        store = Asleep(url, monkeypatch)
        with served(Gateway(parse(text), store).app) as place:
            page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "disk", "summary": "disk full"}
            assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202
            wait_for(lambda: store.has_slept)
            time.sleep(LEASE)
            assert not upstream.got, "it was sent although another replica had it"


def _by_id(url: str, upstream: str) -> str:
    """A gateway in front of a vendor that assigns ids: after a lost answer to a create the alert is looked for
    there."""
    return (
        f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[upstreams.there]\ndialect = "uptinio"\n'
        f'url = "{upstream}"\nkey = "there"\ndefaults = {{ resource = "mon_9" }}\n'
        'retry = { first = "10ms", most = "10ms" }\n'
    )


class Frozen(PostgresStore):
    """The store of a process that freezes once, at the first read after somebody `looked` for an alert; all that waits
    belongs to another replica when it goes on."""

    def __init__(self, url: str) -> None:
        super().__init__(url, lease=LEASE)
        self._url = url
        self.looked: Callable[[], bool] = lambda: False
        self.is_over = False

    async def read(self, work: Callable[[Tx], T], *, is_long: bool = False, whose: Asking = "caller") -> T:
        """Reads, and freezes once."""
        found = await super().read(work, is_long=is_long, whose=whose)
        if not self.is_over and self.looked():
            self.is_over = True
            time.sleep(LEASE + 0.1)  # noqa: ASYNC251 - the whole process is frozen
            with psycopg.connect(self._url, autocommit=True) as another:
                another.execute(TAKEN_OVER)
        return found


def test_what_was_taken_over_while_it_was_looked_for_is_not_sent() -> None:
    """The new owner looks for the alert too, and creates it if it is missing: it must not be created twice."""
    url = shared().database()
    with chaos(Uptinio()) as upstream:
        text = _by_id(url, upstream.url)
        upstream.plan(RESET_AFTER)
        store = Frozen(url)
        store.looked = lambda: any(got.method == "GET" for got in list(upstream.got))
        with served(Gateway(parse(text), store).app) as place:
            page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "disk", "summary": "disk full"}
            assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202
            end = time.monotonic() + 10
            while not store.is_over and time.monotonic() < end:
                time.sleep(0.02)
            assert store.is_over
            time.sleep(2 * LEASE)
            assert len(writes(upstream)) == 1, "it was sent although another replica had it"


def test_what_is_slow_and_still_held_is_sent() -> None:
    """A look-up longer than a lease loses nothing: deliveries under way keep their claim."""
    url = shared().database()
    vendor = Uptinio()
    vendor.slow_reads = 3.0
    with chaos(vendor) as upstream:
        text = _by_id(url, upstream.url)
        upstream.plan(RESET_AFTER)
        with served(Gateway(parse(text), PostgresStore(url, lease=2.0)).app) as place:
            page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": "disk", "summary": "disk full"}
            assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202
            end = time.monotonic() + 20
            while len(writes(upstream)) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            assert [got.method for got in list(upstream.got)] == ["POST", "GET", "GET", "POST"]


def test_what_is_under_way_to_an_upstream_that_was_taken_out_is_held_on_to() -> None:
    """The claim is renewed until the answer: another replica, where the upstream is still configured, must not send it
    again."""
    url = shared().database()

    def send(place: str, key: str) -> None:
        page = {"apiKey": KEY, "eventType": "ALERT", "alertKey": key, "summary": "something"}
        assert httpx.post(place + "/api/events", json=page, timeout=10).status_code == 202

    took = say(202, {})
    with chaos(lambda got: slow(4 * LEASE, took) if got.body["alertKey"] == "disk" else took) as upstream:
        text = (
            f'store = "{url}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
            f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream.url}"\nkey = "there"\n'
        )
        one = Gateway(parse(text), PostgresStore(url, lease=LEASE))
        with served(one.app) as place:
            send(place, "disk")
            wait_for(lambda: upstream.got)
            assert one.dispatcher is not None
            loop = one.dispatcher._tasks["oncall"].get_loop()
            config = parse(text.replace("upstreams.oncall", "upstreams.other"))
            asyncio.run_coroutine_threadsafe(one.reload(config), loop).result(10)
            with served(Gateway(parse(text), PostgresStore(url, lease=LEASE)).app) as other:
                time.sleep(2 * LEASE)
                send(other, "cpu")  # this makes it look for deliveries
                wait_for(lambda: len(httpx.get(other + "/-/deliveries?state=delivered").json()["deliveries"]) == 2)
        assert [got.body["alertKey"] for got in upstream.got] == ["disk", "cpu"]


@pytest.mark.parametrize("is_new", [False, True], ids=["by one that ran on", "by one that is started then"])
def test_what_a_dead_replica_held_is_taken_over_though_the_servers_clock_was_set_back(is_new: bool) -> None:
    """Its leases end an hour from now by the server's clock, which was an hour ahead until now."""

    async def main() -> None:
        url = shared().database()
        async with PostgresStore(url, lease=LEASE) as dead, PostgresStore(url, lease=LEASE) as other:
            await dead.write(put(delivery(2, upstream="u", lane="l")))
            assert [row.id for row in await claim(dead)] == [2]
            execute(url, "UPDATE deliveries SET leased_until = leased_until + interval '1 hour'")
            if is_new:
                async with PostgresStore(url, lease=LEASE) as new:
                    await until(lambda: _takes_over(new))
            else:
                other._clock.take(Seen(other._clock._latest.there + 3600, 0.0))
                await until(lambda: _takes_over(other))

    asyncio.run(main())


async def _takes_over(store: PostgresStore) -> bool:
    return bool(await claim(store))


def test_the_clock_of_a_server_that_runs_on_shortens_no_lease() -> None:
    async def main() -> None:
        url = shared().database()
        async with PostgresStore(url) as one:
            await one.write(put(delivery(2, upstream="u", lane="l")))
            await claim(one)
            before = execute(url, "SELECT leased_until FROM deliveries")
            async with PostgresStore(url, lease=LEASE):
                await asyncio.sleep(LEASE)
            assert execute(url, "SELECT leased_until FROM deliveries") == before

    asyncio.run(main())


def test_a_replica_that_stood_still_does_not_take_it_for_another_clock() -> None:
    """Neither where it stood still before the question reached the server nor after."""

    async def main() -> None:
        async with PostgresStore(shared().database()) as one:
            before = one._clock._latest.there
            for where in ((0.5, 0.0), (0.0, 0.5)):
                await _look(one, *where)
                assert abs(one._clock._latest.there - before) < 0.1
            one._clock.take(Seen(before + 3600, 0.0))
            await _look(one, 0.0, 0.5)
            assert abs(one._clock._latest.there - before) < 1.1, "that is beyond any doubt"

    asyncio.run(main())


async def _look(store: PostgresStore, before: float, after: float) -> None:
    """Looks at the server's clock, and stands still for so many seconds before and after the question."""

    def work(tx: Tx) -> Seen:
        assert isinstance(tx, PostgresTx)
        ask = tx.clock

        def clock() -> float:
            time.sleep(before)
            found = ask()
            time.sleep(after)
            return found

        tx.clock = clock  # type: ignore[method-assign]
        return store._clock.look(tx)

    store._clock.take(await store.write(work))
