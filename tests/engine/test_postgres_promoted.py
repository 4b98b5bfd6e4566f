"""A PostgreSQL standby is promoted while the old primary still takes writes, or takes them again: all is written to and
read from the server promoted last, and nothing that was acknowledged is on the old one alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from structlog.testing import CapturingLogger

from gateway.errors import StoreError
from gateway.store import Tx, postgres, postgres_history
from gateway.store.moving import opened
from gateway.store.postgres import PostgresStore
from gateway.store.postgres_history import History, Promotions
from gateway.store.postgres_line import Address
from gateway.store.postgres_side import PostgresSide
from tests.chaos.sink import ROOT
from tests.engine.loads import END_ALL, HEALTHY, Load, all_alerts
from tests.engine.store_drivers import delivery
from tests.harness import house, inbound_tables, upstream_table
from tests.pooler import pooler
from tests.postgres_server import Server, shared

STAYS = 3.0
"""Seconds for which the old primary must get nothing."""
_SESSIONS = b"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'alert-gateway'"
_SLEEPS = b"""
CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2.5); RETURN NULL; END $$
"""
_SLEEPS_AT_COMMIT = b"""
CREATE CONSTRAINT TRIGGER sleeps AFTER INSERT ON deliveries DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.id = 777) EXECUTE FUNCTION sleeps()
"""
_END_SOME = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    b"WHERE application_name = 'alert-gateway' AND pid % 2 = (SELECT min(pid) % 2 FROM pg_stat_activity "
    b"WHERE application_name = 'alert-gateway')"
)


class Pair:
    """A primary and its standby, first and second in `url`, and a database of theirs."""

    def __init__(self) -> None:
        self.first = Server().make()
        self.name = self.first.database().rpartition("/")[2]
        self.second = self.first.copy()
        ports = (self.first.port, self.second.port)
        self.url = f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in ports)}/{self.name}"

    async def promote(self) -> None:
        """Promotes the standby."""
        await asyncio.to_thread(self.second.run, "pg_ctl", "promote", "-D", self.second.data)

    async def is_followed(self) -> None:
        """Waits until the standby has replayed all that was committed."""
        has_all = b"SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_insert_lsn()"
        while self.asked(self.first, has_all) != [1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def asked(self, server: Server, statement: bytes) -> list[int]:
        """What one of the two answers to a statement."""
        with psycopg.connect(server.url(self.name), autocommit=True) as connection:
            said = connection.execute(statement)
            return [row[0] for row in said] if said.description else []

    def alerts(self, server: Server) -> set[int]:
        """The alerts that one of the two has."""
        return set(self.asked(server, b"SELECT id FROM alerts"))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two servers of its own, which the test may break."""
    made = Pair()
    yield made
    for server in (made.first, made.second):
        server.close()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """The store's log."""
    made = CapturingLogger()
    monkeypatch.setattr(postgres_history, "log", made)
    return made


async def _goes_on(pair: Pair, store: PostgresStore, load: Load) -> None:
    """Under load nothing goes to the first server for a while, and no session is left there."""
    before = pair.alerts(pair.first)
    async with load.running():
        await load.grows(3 * HEALTHY)
        await asyncio.sleep(STAYS)
    assert pair.alerts(pair.first) == before
    assert load.acknowledged <= pair.alerts(pair.second)
    assert load.acknowledged <= await store.read(all_alerts)
    assert pair.asked(pair.first, _SESSIONS) == [0], "nobody is left there, whoever listens neither"


def test_a_server_that_thaws_after_its_standby_took_over_is_asked_nothing(pair: Pair, log: CapturingLogger) -> None:
    """Idle connections to the frozen server were not cut, and are not used after it thaws."""

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            load = Load(store)
            await load.put()
            await store.read(all_alerts)
            await pair.is_followed()
            pair.first.freeze()
            await pair.promote()
            async with load.running(1):
                await load.grows(3 * HEALTHY)
            pair.first.thaw()
            await asyncio.sleep(1.0)
            await _goes_on(pair, store, load)

    asyncio.run(main())
    [told] = [call.kwargs for call in log.calls if call.args == ("store.promoted",)]
    assert told["server"] == f"127.0.0.1:{pair.second.port}" and "timeline 2, before 1" in told["reason"]


def test_a_server_that_is_started_again_after_its_standby_took_over_is_asked_nothing(
    pair: Pair, log: CapturingLogger
) -> None:
    """It is the first in the URL, where new connections, and those of a new gateway, would otherwise go."""

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            load = Load(store)
            await load.put()
            await pair.is_followed()
            pair.first.kill()
            await pair.promote()
            async with load.running():
                await load.grows(3 * HEALTHY)
            await asyncio.to_thread(pair.first.start)
            pair.asked(pair.second, _END_SOME)
            await _goes_on(pair, store, load)
            async with PostgresStore(pair.url) as other:
                await _goes_on(pair, other, Load(other, 1_000_000))

    asyncio.run(main())
    told = [call.kwargs for call in log.calls if call.args == ("store.left_behind",)]
    assert [one["server"] for one in told] == [f"127.0.0.1:{pair.first.port}"] * 2, "once for each store"
    assert "stop it" in told[0]["reason"]


def test_where_a_standby_is_promoted_beside_its_server_all_go_over(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error at the old primary prompts it, so the store looks at the other hosts by itself."""
    monkeypatch.setattr(postgres, "LOOK", 0.5)

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            load = Load(store)
            await load.put()
            await pair.is_followed()
            await pair.promote()
            await asyncio.sleep(2.0)
            await _goes_on(pair, store, load)

    asyncio.run(main())


def test_a_commit_that_is_under_way_when_all_go_over_is_no_success(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have committed at the old primary and is not on the new one: the outcome is reported as unknown, and the
    job is not run again, as it might then exist twice."""
    monkeypatch.setattr(postgres, "LOOK", 0.3)
    tried: list[int] = []

    def work(tx: Tx) -> None:
        tried.append(1)
        tx.insert_delivery(delivery(777))

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            pair.asked(pair.first, _SLEEPS)
            pair.asked(pair.first, _SLEEPS_AT_COMMIT)
            await pair.is_followed()
            under_way = asyncio.create_task(store.write(work))
            await asyncio.sleep(0.3)
            await pair.promote()
            with pytest.raises(StoreError, match="it is unknown whether the store has committed"):
                await under_way
            assert (len(tried), await store.read(lambda tx: tx.delivery(777))) == (1, None)

    asyncio.run(main())


def test_a_commit_that_waits_for_a_standby_which_was_promoted_is_not_all_that_happens(pair: Pair) -> None:
    """The old primary, whose commits wait for a synchronous standby, takes connections but no commits; the store moves
    to the promoted one, which takes both."""
    pair.asked(pair.first, b"ALTER SYSTEM SET synchronous_standby_names = '*' ")
    pair.asked(pair.first, b"SELECT pg_reload_conf()::int")

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            load = Load(store)
            async with load.running():
                await load.grows(HEALTHY)
                await pair.promote()
                await load.is_refused(1)
                await load.grows(2 * HEALTHY)
            assert load.acknowledged <= pair.alerts(pair.second)

    asyncio.run(main())


def test_a_command_asks_the_one_that_was_promoted_last(pair: Pair, tmp_path: Path) -> None:
    """Its warning about the other server goes to stderr, not into its output."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'store = "{pair.url}"\n'
        + inbound_tables(["ilert"])
        + "\n"
        + upstream_table("oncall", "ilert", "http://127.0.0.1:9")
    )

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            await store.write(lambda tx: tx.insert_delivery(delivery(1)))
            await pair.is_followed()
            await pair.promote()
        async with PostgresStore(pair.url) as store:
            await store.write(lambda tx: tx.insert_delivery(delivery(2)))

    asyncio.run(main())
    line = [sys.executable, "-m", "gateway.cli", "deliveries", "--config", str(config), "--json"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert [row["id"] for row in json.loads(done.stdout)] == [2, 1]
    assert "store.left_behind" in done.stderr


def test_a_move_takes_what_is_at_the_one_that_was_promoted_last(pair: Pair) -> None:
    """The old primary comes first in the URL and takes writes too, and is not read."""

    async def main() -> None:
        async with PostgresStore(pair.url):
            pass
        await pair.is_followed()  # only now, as the standby is also to know that nobody serves any more
        await pair.promote()
        async with PostgresStore(pair.url) as store:
            await store.write(lambda tx: tx.insert_delivery(delivery(2)))

    asyncio.run(main())
    side = PostgresSide(pair.url)
    with opened(side):
        assert side.run("SELECT id FROM deliveries") == [(2,)]


class _Name:
    """One address (a balancer or DNS name) that leads to one server after another."""

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes one connection on."""
        there_reader, there = await asyncio.open_connection("127.0.0.1", self.leads_to)
        with contextlib.closing(writer), contextlib.closing(there):
            await asyncio.gather(_copy(reader, there), _copy(there_reader, writer))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves while the context lasts."""
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def test_behind_one_name_a_server_that_was_left_behind_is_refused(pair: Pair) -> None:
    """A balancer, or a DNS name that was switched back: writes are refused with the reason, so none is lost there."""

    async def main() -> None:
        name = _Name(pair.first.port)
        async with name.running(), PostgresStore(f"postgresql://postgres@127.0.0.1:{name.port}/{pair.name}") as store:
            load = Load(store)
            await load.put()
            await pair.is_followed()
            pair.first.kill()
            await pair.promote()
            name.leads_to = pair.second.port
            async with load.running():
                await load.grows(HEALTHY)
            await asyncio.to_thread(pair.first.start)
            before, name.leads_to = pair.alerts(pair.first), pair.first.port
            pair.asked(pair.second, END_ALL)
            for _ in range(3):
                with pytest.raises(StoreError, match=r"another was promoted after it .* restart the gateway"):
                    await store.write(lambda tx: tx.largest_id())
            assert pair.alerts(pair.first) == before
            name.leads_to = pair.second.port
            async with load.running():
                await load.grows(HEALTHY)
            assert load.acknowledged <= pair.alerts(pair.second)

    asyncio.run(main())


@pytest.mark.parametrize("is_pooled", [False, True])
def test_behind_one_name_all_go_over_to_whom_it_leads_by_now(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, is_pooled: bool
) -> None:
    """Connections made before stay with the old server: a balancer need not cut them, and a pooler hands them out
    again."""
    monkeypatch.setattr(postgres, "LOOK", 0.5)

    async def main() -> None:
        name = _Name(pair.first.port)
        async with name.running(), contextlib.AsyncExitStack() as pools:
            url = f"postgresql://postgres@127.0.0.1:{name.port}/{pair.name}"
            url = pools.enter_context(pooler(url, keeps_sessions=True)) if is_pooled else url
            store = await pools.enter_async_context(PostgresStore(url))
            load = Load(store)
            await load.put()
            await store.read(all_alerts)
            await pair.is_followed()
            await pair.promote()
            name.leads_to = pair.second.port
            await asyncio.sleep(2.0)
            before = pair.alerts(pair.first)
            async with load.running():
                await load.grows(3 * HEALTHY)
            assert pair.alerts(pair.first) == before
            assert load.acknowledged <= pair.alerts(pair.second)
            assert load.acknowledged <= await store.read(all_alerts)

    asyncio.run(main())


def test_a_server_that_takes_writes_beside_the_one_promoted_last_is_an_alarm(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the log said so, and the gateway served on: until it was restarted, and was led to that one."""
    monkeypatch.setattr(postgres, "LOOK", 0.1)
    with house(tmp_path, {"oncall": "ilert"}, inbounds=["ilert"], store=pair.url) as h:
        assert h.gateway.watch is not None
        watching = h.gateway.watch

        def is_said() -> bool:
            return "store-left-behind" in [one.code for one in asyncio.run(watching.troubles())]

        assert not is_said()
        asyncio.run(pair.promote())
        h.wait_for(lambda: h.gateway.store.left_behind)
        assert h.gateway.store.left_behind == f"127.0.0.1:{pair.first.port}"
        assert is_said()
        pair.first.kill()
        h.wait_for(lambda: not h.gateway.store.left_behind)


def test_where_a_promotion_was_undone_the_server_before_it_serves_again(
    pair: Pair, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistaken promotion: the first server lived on, and the second is made its standby again. The first is not used
    while it might still be an old primary."""
    monkeypatch.setattr(postgres, "LOOK", 0.3)

    async def is_refused(store: PostgresStore) -> None:
        for _ in range(3):
            with pytest.raises(StoreError, match="restart the gateway"):
                await store.write(lambda tx: tx.largest_id())
            await asyncio.sleep(0.6)

    async def main() -> None:
        async with PostgresStore(pair.url) as store:
            load = Load(store)
            await load.put()
            await pair.is_followed()
            await pair.promote()
            await asyncio.sleep(1.0)
            pair.second.kill()
            await is_refused(store)
            await asyncio.to_thread(Path(pair.second.data, "standby.signal").touch)
            await asyncio.to_thread(pair.second.start)
            await is_refused(store)
            pair.second.kill()
            await asyncio.to_thread(pair.second.follow, pair.first)
            async with load.running():
                await load.grows(3 * HEALTHY)
            assert load.acknowledged <= pair.alerts(pair.first)

    asyncio.run(main())
    [told] = [call.kwargs for call in log.calls if call.args == ("store.promotion_undone",)]
    assert told["server"] == f"127.0.0.1:{pair.second.port}" and "(timeline 2)" in told["reason"]


def test_an_address_that_goes_back_to_the_server_before_undoes_no_promotion(
    pair: Pair, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual address moves back to the first server, which never heard of the second: it is refused."""
    monkeypatch.setattr(postgres, "LOOK", 0.2)

    async def main() -> None:
        address = f"postgresql://postgres@127.0.0.1:{pair.second.port}/{pair.name}"
        async with PostgresStore(pair.url):
            await pair.is_followed()
        await pair.promote()
        async with PostgresStore(address) as store:
            await Load(store).put()
            pair.second.kill()
            pair.first.kill()
            pair.first.port = pair.second.port
            await asyncio.to_thread(pair.first.start)
            before = pair.alerts(pair.first)
            for _ in range(3):
                with pytest.raises(StoreError, match="restart the gateway"):
                    await store.write(lambda tx: tx.largest_id())
                await asyncio.sleep(0.4)
            assert pair.alerts(pair.first) == before

    asyncio.run(main())
    assert "store.promotion_undone" not in [call.args[0] for call in log.calls]


@pytest.mark.parametrize("server", ["127.0.0.1:5432", ""])
def test_only_who_is_known_to_be_put_back_undoes_a_promotion(server: str) -> None:
    """Servers behind poolers all report the same address, so they cannot be told apart; and a server asked earlier may
    have been promoted since."""
    before = History("1", 1, True, server, "a:6432")
    standby, promoted = before._replace(takes_writes=False, place="b:6432"), History("1", 2, True, server, "b:6432")
    promotions = Promotions()
    for one in (before, promoted):
        promotions.note(one)
    promotions.compare([before, standby._replace(place="c:6432")], promotions.latest)
    promotions.compare([standby], {"1": before})
    assert promotions.is_over(before), "it was not seen, or was seen as it was before"
    promotions.compare([before, standby], promotions.latest)
    assert promotions.is_over(before) == (server == "")


def test_a_connection_that_ends_at_once_says_why() -> None:
    """As where a pooler accepts a client and then finds no server for it."""
    url = shared().url("postgres")
    with psycopg.connect(url) as connection, psycopg.connect(url, autocommit=True) as other:
        other.execute(b"SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.errors.AdminShutdown):
            postgres_history.history_of(connection)


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("postgresql://u@a,b:2/d", [("a", ""), ("b", "2")]),
        ("postgresql://u@a,b/d?port=7", [("a", "7"), ("b", "7")]),
        ("postgresql:///d?host=a,b&hostaddr=10.0.0.1,10.0.0.2", [("a", ""), ("b", "")]),
        ("postgresql://u@a:1/d", [("", "")]),
        ("postgresql:///d", [("", "")]),
    ],
)
def test_each_of_several_hosts_can_be_asked_by_itself(url: str, places: list[tuple[str, str]]) -> None:
    """Hosts and ports are split as libpq does; a single host is used as it is."""
    found = Address(url).places()
    assert [(one.get("host", ""), one.get("port", "")) for one in found] == places
