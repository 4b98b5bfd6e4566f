"""Bodies with hundreds of alerts each: how many are worked on at a time, and which other requests are served
meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.loading import parse
from gateway.delivery import waiting
from gateway.desk import desk
from gateway.errors import Problem, ProblemKind
from gateway.inbound import bulk
from gateway.inbound.bulk import LARGE, WAITING, WORKED_ON, Bulk
from gateway.process.service import Gateway
from gateway.store import AlertFilter
from gateway.store.sqlite import SqliteStore
from tests.chaos_upstream import Behaviour, Got, chaos
from tests.clients.callers import ALERTS
from tests.engine.lasting import alert, lasting, posted, select
from tests.engine.vendors import NO, OK, gated, page, table
from tests.harness import KEY, house, inbound_tables

THIRD = WORKED_ON // 3 + 1
"""The size of which two bodies are worked on at a time."""
BATCHES, EACH = 4, 200


async def _settled() -> None:
    """Lets all tasks run as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Bodies:
    """Large bodies, each in a task of its own, which the test ends."""

    def __init__(self) -> None:
        self.bulk = Bulk()
        self.inside: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def come(self, name: str, size: int) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._work(name, size)))
        await _settled()

    async def _work(self, name: str, size: int) -> None:
        async with self.bulk.turn(size):
            self.inside.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await _settled()

    async def leave(self, number: int) -> None:
        self._tasks[number].cancel()
        await _settled()


def test_so_many_bytes_are_worked_on_at_a_time_in_their_order() -> None:
    async def main() -> None:
        bodies = Bodies()
        for name in ("one", "two", "three"):
            await bodies.come(name, THIRD)
        await bodies.come("huge", WORKED_ON * 10)
        await bodies.come("small", LARGE)
        assert bodies.inside == ["one", "two"]
        await bodies.end("two")
        assert bodies.inside == ["one", "three"]
        await bodies.end("three")
        assert bodies.inside == ["one"], "the small one overtakes nobody"
        await bodies.end("one")
        assert bodies.inside == ["huge"], "it fits nowhere, and is worked on alone"
        await bodies.end("huge")
        assert bodies.inside == ["small"]
        await bodies.end("small")

    asyncio.run(main())


def test_whoever_leaves_keeps_no_place() -> None:
    async def main() -> None:
        bodies = Bodies()
        for name in ("one", "gone", "three"):
            await bodies.come(name, WORKED_ON)
        await bodies.leave(1)
        await bodies.leave(0)
        assert bodies.inside == ["three"]
        await bodies.end("three")

    asyncio.run(main())


def test_who_waits_for_upstreams_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose caller waits for upstreams gives up its place, so that batches with a slow upstream do not queue;
    it still counts towards what may wait, as the results of all of them must fit in memory."""

    async def main() -> None:
        monkeypatch.setattr("gateway.inbound.bulk.GIVES_WAY", 0)
        bodies = Bodies()
        for name in ("one", "two"):
            await bodies.come(name, WORKED_ON)
        await bodies.come("huge", WAITING)
        assert bodies.inside == ["one", "two", "huge"]
        with pytest.raises(Problem):
            async with bodies.bulk.turn(LARGE):
                raise AssertionError("there was room")
        await bodies.end("huge")
        await bodies.come("welcome", LARGE)
        assert bodies.inside == ["one", "two", "welcome"]
        for name in ("one", "two", "welcome"):
            await bodies.end(name)

    asyncio.run(main())


def test_when_too_much_waits_the_next_is_told_to_come_again() -> None:
    async def main() -> None:
        bodies = Bodies()
        await bodies.come("one", THIRD)
        await bodies.come("waits", WAITING)
        with pytest.raises(Problem) as refused:
            async with bodies.bulk.turn(LARGE):
                raise AssertionError("there was room")
        assert (refused.value.kind, refused.value.retry_after) == (ProblemKind.OVERLOADED, bulk.LATER)
        await bodies.end("one")
        assert bodies.inside == ["waits"]
        await bodies.come("welcome", LARGE)
        await bodies.end("waits")
        assert bodies.inside == ["welcome"]
        await bodies.end("welcome")

    asyncio.run(main())


def test_a_large_body_is_read_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body is decoded in a thread, and accepted or refused like any other."""
    readers: list[threading.Thread] = []

    class Seen(Bulk):
        async def read(self, read: Any) -> Any:
            def seen() -> Any:
                readers.append(threading.current_thread())
                return read()

            return await super().read(seen)

    monkeypatch.setattr("gateway.inbound.surface.Bulk", Seen)
    many = [alert(f"large-{number}", generatorURL="http://prom/" + "x" * 300) for number in range(LARGE // 300)]
    with lasting(tmp_path, {"oncall": "ilert"}) as h:
        posted(h, alert("small"))
        assert not readers
        posted(h, *many)
        assert len(readers) == 1 and readers[0].name.startswith("asyncio"), readers
        assert select(h, "SELECT count(*) FROM alerts") == [1 + len(many)]
        told = h.call("POST", ALERTS, {"not": "x" * LARGE})
        assert told.status == 400 and len(readers) == 2


def _gateway(directory: Path) -> Gateway:
    return Gateway(
        parse(
            f'store = "sqlite://{directory}/gateway.db"\n[inbound.alertmanager]\nkeys = {{ ci = "{KEY}" }}\n'
            '[upstreams.oncall]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "k"\n',
            base=directory,
        )
    )


def _client(gateway: Gateway) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway", headers=headers)


async def _post(client: httpx.AsyncClient, *alerts: Any) -> None:
    assert (await client.post(ALERTS, json=alerts)).is_success


def test_a_single_alert_comes_between_those_of_batches(tmp_path: Path) -> None:
    """A single alert does not queue behind all alerts of all batches, which took seven seconds for forty bodies of a
    MiB."""

    async def main() -> None:
        gateway = _gateway(tmp_path)
        scope = gateway.config.inbounds["alertmanager"].scope_of("ci")

        async def kept() -> int:
            return await gateway.store.read(lambda tx: tx.alerts(scope, AlertFilter(limit=1))[1])

        async with gateway.running(), _client(gateway) as client:
            batches = [
                asyncio.create_task(_post(client, *(alert(f"batch-{batch}-{number}") for number in range(EACH))))
                for batch in range(BATCHES)
            ]
            while not await kept():
                await _settled()
            await _post(client, alert("single"))
            assert await kept() < BATCHES * EACH, "it came after all the others"
            await asyncio.gather(*batches)
            assert await kept() == BATCHES * EACH + 1

    asyncio.run(main())


def test_who_waits_for_verdicts_keeps_neither_the_rest_of_his_batch_waiting_nor_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All alerts of a batch are written before any verdict is awaited, and other large bodies do not wait for those
    verdicts."""
    monkeypatch.setattr(bulk, "WORKED_ON", 1)
    monkeypatch.setattr(bulk, "GIVES_WAY", 60.0)
    monkeypatch.setattr(desk, "AT_ONCE", 2)
    gate, inbound = threading.Event(), 'reply_timeout = "60s"\n' + inbound_tables(["alertmanager"])
    inbound += '\nreply = "delivered"\n'
    large = [
        [alert(f"{name}-{number}", generatorURL="http://prom/" + "x" * LARGE) for number in range(5)] for name in "ab"
    ]
    with (
        chaos(gated(gate, OK)) as upstream,
        house(tmp_path, config=lambda _: inbound + table("oncall", upstream.url, "ilert", "", timeout="20s")) as h,
        ThreadPoolExecutor(2) as senders,
    ):
        under_way = [senders.submit(posted, h, *one) for one in large]
        h.wait_for(lambda: select(h, "SELECT count(*) FROM alerts") == [10])
        assert not any(one.done() for one in under_way)
        gate.set()
        for one in under_way:
            one.result(20)


def test_who_waits_for_a_verdict_on_a_single_large_alert_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "WORKED_ON", 1)
    monkeypatch.setattr(bulk, "GIVES_WAY", 60.0)
    gate, inbound = threading.Event(), 'reply_timeout = "60s"\n' + inbound_tables(["ilert"]) + '\nreply = "delivered"\n'
    with (
        chaos(gated(gate, OK)) as upstream,
        house(tmp_path, config=lambda _: inbound + table("oncall", upstream.url, "ilert", "", timeout="20s")) as h,
        ThreadPoolExecutor(2) as senders,
    ):
        under_way = [senders.submit(page, h, name, details="x" * LARGE) for name in "ab"]
        h.wait_for(lambda: select(h, "SELECT count(*) FROM alerts") == [2])
        assert not any(one.done() for one in under_way)
        gate.set()
        assert [one.result(20).status for one in under_way] == [202, 202]


def test_who_sends_a_batch_hears_of_each_of_its_alerts_that_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch waits for its primary as one caller, not as so many that the verdicts on the last are not awaited."""
    monkeypatch.setattr(waiting, "MOST_FOR_ONE_UPSTREAM", 1)
    inbound = 'reply_timeout = "60s"\n' + inbound_tables(["alertmanager"]) + '\nreply = "delivered"\n'
    gate = threading.Event()

    def answer(got: Got) -> Behaviour:
        return gated(gate, NO if got.body["summary"] == "last is down" else OK)

    with (
        chaos(answer) as upstream,
        house(tmp_path, config=lambda _: inbound + table("oncall", upstream.url, "ilert", "", timeout="20s")) as h,
        ThreadPoolExecutor(1) as sender,
    ):
        sent = sender.submit(h.call, "POST", ALERTS, [alert(name) for name in ("first", "second", "last")])
        h.wait_for(lambda: select(h, "SELECT count(*) FROM alerts") == [3])
        gate.set()
        assert sent.result(20).status == 400


@pytest.mark.parametrize(("at_once", "most"), [(100, 1000), (3, 1500), (7, 1000)])
def test_a_long_answer_is_sent_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, most: int
) -> None:
    """Sent whole, it would be in memory once more in each buffer on its way, and as JSON beside its list."""
    monkeypatch.setattr("gateway.inbound.surface.PIECE", most)
    monkeypatch.setattr("gateway.inbound.surface.ENCODED_AT_ONCE", at_once)
    sent: list[Any] = []

    async def main() -> None:
        gateway = _gateway(tmp_path)

        async def seen(scope: Any, receive: Any, send: Any) -> None:
            async def noting(message: Any) -> None:
                sent.append(message)
                await send(message)

            await gateway.app(scope, receive, noting)

        async with gateway.running(), _client(gateway) as client:
            await _post(client, *(alert(f"name-{number}") for number in range(20)))
            sent.clear()
            client._transport = httpx.ASGITransport(seen)
            listed = await client.get(ALERTS)
            assert len(listed.json()) == 20 and int(listed.headers["content-length"]) == len(listed.content)
            assert sorted(one["labels"]["alertname"] for one in listed.json())[0] == "name-0"
            assert all(len(message["body"]) <= most for message in sent[1:])
            assert len(sent) - 1 >= max(len(listed.content) / most, 20 / at_once)
            for message in sent[1:]:
                assert message["body"].count(b'"alertname"') <= at_once

    asyncio.run(main())


def test_a_list_that_was_answered_is_held_by_nobody(tmp_path: Path) -> None:
    """The result of a read is in no reference cycle, so it is freed without the garbage collector: a few lists of a
    hundred thousand alerts come to half a GiB."""

    class Read(list[int]):
        pass

    async def main() -> None:
        async with SqliteStore(str(tmp_path / "gateway.db")) as store:
            freed, loop = asyncio.Event(), asyncio.get_running_loop()
            found = await store.read(lambda tx: Read(), is_long=True)
            weakref.finalize(found, loop.call_soon_threadsafe, freed.set)
            del found
            await asyncio.wait_for(freed.wait(), 5)  # the thread lets go of it a moment after it has answered

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
