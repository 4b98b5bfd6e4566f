"""Two gateways on one PostgreSQL that do conflicting things at the same moment: neither waits for the other needlessly,
and what only one may have only one gets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.admin.operating import chosen
from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.config import Upstream
from gateway.config.loading import parse
from gateway.delivery.gate import keep_budget
from gateway.errors import Problem, ProblemKind
from gateway.ids import Ids
from gateway.outcome import Delivered
from gateway.road.accepted import Accepted, Caller, Order
from gateway.road.preparing import Shipment, fire, prepare
from gateway.road.requeue import drop, send_again
from gateway.road.road import Road
from gateway.road.settling import settle
from gateway.road.terms import TRIED_AT
from gateway.road.undoing import undo
from gateway.road.unrecorded import doubt
from gateway.store import AlertFilter, DeliveryFilter, DeliveryRow, TargetRow, Tx
from gateway.store.postgres import WRITERS, PostgresStore
from tests.chaos.lanes import CONFIG
from tests.chaos_upstream import Behaviour, chaos, say
from tests.engine.desks import create
from tests.engine.store_drivers import alert, command, delivery
from tests.engine.test_reply import MON, rule, table
from tests.harness import KEY, house
from tests.postgres_server import shared

PAUSE = 0.3
"""Seconds that one pauses inside a transaction, in which the other begins."""


def deadlocks(url: str) -> int:
    """How many deadlocks the server has resolved; exact once all sessions have ended."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(found.fetchall()[0][0])


def among(url: str, work: Callable[[PostgresStore, PostgresStore], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` with two gateways' stores over one database."""

    async def main() -> None:
        async with PostgresStore(url) as one, PostgresStore(url) as other:
            await work(one, other)

    asyncio.run(main())


class Gate:
    """One gateway's road, which pauses after each id it draws. Its two callers have routes that name the same upstreams
    in opposite orders."""

    def __init__(self, store: PostgresStore, stands: float = 0.0, ahead_ms: int = 0) -> None:
        config = parse(CONFIG)
        self.store = store
        self._stands = stands
        self._ids = Ids(store.slot, clock=lambda: time.time_ns() // 1_000_000 + ahead_ms)
        self._road = Road(config, self.next)
        dialect = config.inbounds["ilert"].dialect
        self._callers = {name: Caller(dialect, name, f"ilert/{name}") for name in ("ci", "ops")}

    def next(self, above: int = 0) -> int:
        """Draws a new id, after the pause."""
        time.sleep(self._stands)
        return self._ids.next(above)

    async def accept(self, who: str, asked: Command) -> Accepted:
        """Accepts one command of a caller."""
        command = self._ids.next()
        return await self.store.write(lambda tx: self.take(tx, who, asked, command))

    def take(self, tx: Tx, who: str, asked: Command, command: int) -> Accepted:
        """The same within a transaction."""
        return self._road.accept(
            tx,
            Order(
                asked=asked,
                caller=self._callers[who],
                request=command,
                command=command,
                now=time.time_ns() // 1_000_000,
            ),
        )


@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.RESOLVE])
def test_routes_that_name_upstreams_the_other_way_round_do_not_wait_for_each_other(operation: Operation) -> None:
    """Two scopes use one key with the upstreams in opposite orders: their lanes are locked in one order, or the server
    takes a second to end one of them as a deadlock, while later jobs wait too."""
    url = shared().database()

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        pair = [("ci", Gate(one, PAUSE)), ("ops", Gate(other, PAUSE))]
        ends = Command(operation=operation, ref=Ref(key="disk"))
        asked = ends if operation is Operation.RESOLVE else create("disk")
        await asyncio.gather(*(gate.accept(who, asked) for who, gate in pair))

    among(url, main)
    assert deadlocks(url) == 0


async def ended(gate: Gate) -> tuple[int, str]:
    """Creates and resolves an alert of `ci`, both delivered; returns the resolve's command and the alert's id."""
    made = await gate.accept("ci", create("disk"))
    done = await gate.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    assert made.alert

    def all_told(tx: Tx) -> None:
        for number in (made.command, done.command):
            for row in tx.deliveries_of(number):
                row.state, row.finished_at = "delivered", row.created_at
                tx.update_delivery(row)

    await gate.store.write(all_told)
    return done.command, made.alert.shown


def of_open_alerts(tx: Tx) -> list[tuple[str, str]]:
    """The upstream and key of every target of an open alert."""
    alerts = [row for scope in ("ilert/ci", "ilert/ops") for row in tx.alerts(scope, AlertFilter())[0] if row.is_open]
    targets = [target for row in alerts for target in tx.targets(row.id)]
    return [(target.upstream, target.key) for target in targets if target.key is not None]


@pytest.mark.parametrize("who", ["ci", "ops"])
@pytest.mark.parametrize("how", ["reopened", "undone"])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_alert_comes_back_while_its_key_is_opened_anew(how: str, who: str, is_first: bool) -> None:
    """A reopen or an undone resolve meets a create of the same key, by the same caller or in another scope: one is
    refused as a conflict, never answered as a failure, and no two open alerts have one key at an upstream, where the
    end of one would end the other."""
    url = shared().database()

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        gate, slow = Gate(one), Gate(other, PAUSE)
        command, shown = await ended(gate)

        def come_back(tx: Tx) -> None:
            if how == "reopened":
                again = Command(operation=Operation.REOPEN, ref=Ref(id=shown))
                gate.take(tx, "ci", again, gate.next())
            elif found := tx.command(command):
                undo(tx, found, "everybody refused it")
            time.sleep(PAUSE if is_first else 0)

        first = asyncio.ensure_future(one.write(come_back) if is_first else slow.accept(who, create("disk")))
        await asyncio.sleep(PAUSE / 2)
        then = slow.accept(who, create("disk")) if is_first else one.write(come_back)
        came = await asyncio.gather(first, then, return_exceptions=True)
        wrong = [end for end in came if isinstance(end, BaseException)]
        assert all(isinstance(end, Problem) and end.kind is ProblemKind.CONFLICT for end in wrong), wrong
        there = await one.read(of_open_alerts)
        assert there and len(set(there)) == len(there), "two open alerts have one key"

    among(url, main)
    assert deadlocks(url) == 0


def test_a_fallback_that_is_told_and_the_end_of_its_alert_do_not_wait_for_each_other() -> None:
    url = shared().database()

    def put(tx: Tx) -> None:
        tx.insert_alert(alert(1))
        tx.put_target(TargetRow(alert=1, upstream="u", position=1, lane="l", key="k", state="standby"))
        tx.insert_delivery(delivery(2, alert=1, upstream="u", lane="l"))

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put)
        [row] = await one.take(lambda tx: tx.claim("u", 10**15, 10))
        is_held = threading.Event()

        def end(tx: Tx) -> None:
            tx.lock("alert 1")
            tx.note("held")
            is_held.set()
            time.sleep(PAUSE)
            assert tx.delivery(2)

        ending = asyncio.ensure_future(other.write(end))
        await asyncio.to_thread(is_held.wait, 5)
        shipment = Shipment(delivery=row, operation=Operation.CREATE, fires=True)
        assert await one.write(lambda tx: fire(tx, shipment))
        await ending

    among(url, main)
    assert deadlocks(url) == 0


def test_what_a_killed_replica_was_sending_to_two_upstreams_is_doubted_by_both_others_at_once() -> None:
    url = shared().database()

    def put(tx: Tx) -> None:
        for one in (1, 2):
            tx.insert_alert(alert(one))
            tx.insert_command(command(one, alert=one))
            for upstream in ("u", "v"):
                tx.put_target(TargetRow(alert=one, upstream=upstream, position=1, lane="l", key="k", state="waiting"))

    def slowly(upstream: str, alerts: tuple[int, int]) -> Iterator[DeliveryRow]:
        for one in alerts:
            yield delivery(10 + one, alert=one, upstream=upstream, lane="l")
            time.sleep(PAUSE)

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        await one.write(put)
        works = (one, slowly("u", (1, 2))), (other, slowly("v", (2, 1)))
        await asyncio.gather(*(store.write(partial(doubt, rows=rows)) for store, rows in works))
        targets = await one.read(lambda tx: [*tx.targets(1), *tx.targets(2)])
        assert all(TRIED_AT in target.seen for target in targets)

    among(url, main)
    assert deadlocks(url) == 0


def test_retries_to_two_upstreams_that_end_together_do_not_wait_for_each_other() -> None:
    """Several outcomes share a transaction, and each records its upstream's retry budget."""
    url = shared().database()
    names = ("bykey", "second")
    upstreams = parse(CONFIG).upstreams

    async def main(*stores: PostgresStore) -> None:
        for name in names:
            await stores[0].write(partial(_keep, upstreams[name], 0.0))
        is_free, busy = threading.Event(), []
        for store in (store for store in stores for _ in range(WRITERS)):
            is_taken = threading.Event()  # keeps each writer busy, so that later jobs share a batch
            busy.append(asyncio.ensure_future(store.write(partial(_wait, taken=is_taken, free=is_free))))
            assert await asyncio.to_thread(is_taken.wait, 2)
        ends = [
            asyncio.ensure_future(store.write(partial(_keep, upstreams[name], PAUSE)))
            for store, order in zip(stores, (names, names[::-1]), strict=True)
            for name in order
        ]
        await asyncio.sleep(0)
        is_free.set()
        await asyncio.gather(*busy, *ends)

    among(url, main)
    assert deadlocks(url) == 0


def _keep(upstream: Upstream, stands: float, tx: Tx) -> None:
    keep_budget(tx, upstream, {"level": 1.0, "at": 1})
    time.sleep(stands)


def _wait(tx: Tx, taken: threading.Event, free: threading.Event) -> None:
    taken.set()
    free.wait(2)


def _slowly(answer: Behaviour, seconds: float) -> Behaviour:
    """The answer, delayed."""

    async def act(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await answer.act(writer)

    return Behaviour(answer.name, act)


def test_what_is_heard_of_a_verdict_once_more_says_no_less_than_the_verdict(tmp_path: Path) -> None:
    """A gateway is also notified of its own verdicts: while the second upstream is waited for, the first one's refusal
    keeps its kind, and the caller is answered the vendor's 422, not 400."""
    taken = say(422, {"errors": [{"reason": "The alert name is not valid"}]})
    no = say(422, {"error": {"code": "invalid_request", "message": "no"}})
    with chaos(taken) as first, chaos(_slowly(no, 1.0)) as second:
        tables = table("metrics", first.url, "ibm_monitoring"), table("uptime", second.url, "uptinio", MON)
        text = "\n".join(["[inbound.ibm_monitoring]", f'keys = {{ ci = "{KEY}" }}', *tables])
        routes = '[[routes]]\nto = ["metrics", "uptime"]'
        with house(tmp_path, config=lambda _: f"{text}\n{routes}", store=shared().database()) as h:
            refused = rule(h)
            assert refused.status == 422, refused.body
            assert h.call("GET", "/api/alerts").body == {"alerts": []}


def test_an_end_that_was_asked_for_where_the_clock_is_ahead_is_told_before_its_key_is_opened_anew() -> None:
    """The resolve's id is then larger than the new alert's, and it is still sent: otherwise the upstream would take the
    new alert for a repeat of the old one, and nobody would be paged."""
    url = shared().database()
    upstream = parse(CONFIG).upstreams["bykey"]

    async def main(one: PostgresStore, other: PostgresStore) -> None:
        gate, ahead = Gate(one), Gate(other, ahead_ms=5_000)
        await gate.accept("ci", create("disk"))
        [row] = await one.take(lambda tx: tx.claim("bykey", 10**15, 1))

        def told(tx: Tx) -> None:
            settle(tx, prepare(tx, row, upstream, row.due), Delivered(), upstream, row.due, row.due)

        await one.write(told)
        ended = await ahead.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
        anew = await gate.accept("ci", create("disk"))
        assert anew.alert and anew.is_new and anew.alert.id < ended.command
        [end] = await other.take(lambda tx: tx.claim("bykey", 10**15, 1))
        shipment = await other.read(lambda tx: prepare(tx, end, upstream, end.due))
        assert shipment.operation is Operation.RESOLVE and shipment.sending, shipment.void

    among(url, main)


DELIVERED = "UPDATE deliveries SET state = 'delivered', finished_at = 5, attempts = 2 WHERE id = 2"


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("dead", lambda tx, rows: send_again(tx, rows, 9, force=False)),
        ("waiting", lambda tx, rows: drop(tx, rows, "seen", 9)),
    ],
)
def test_what_another_sent_since_it_was_chosen_is_neither_sent_again_nor_dropped(
    state: str, change: Callable[[Tx, list[DeliveryRow]], tuple[list[int], list[str]]]
) -> None:
    """Two operators who retry the dead letters at once, or workers to which an upstream comes back at once, send none
    of them twice; what was just delivered is not voided in the ledger, and its resolve is still sent."""

    async def main() -> None:
        url = shared().database()

        def put(tx: Tx) -> None:
            tx.insert_alert(alert(1))
            tx.put_target(TargetRow(alert=1, upstream="u", position=1, lane="l", key="k", state="waiting"))
            tx.insert_delivery(delivery(2, state=state))

        def work(tx: Tx) -> tuple[list[int], list[str]]:
            rows = chosen(tx, (2,), dead=False, upstream=None)
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(DELIVERED)
            return change(tx, rows)

        async with PostgresStore(url) as store:
            await store.write(put)
            done, refused = await store.write(work)
            assert not done and refused[0].startswith("2: is delivered")
            [row] = await store.read(lambda tx: tx.deliveries(DeliveryFilter(ids=(2,))))
            [target] = await store.read(lambda tx: tx.targets(1))
            assert (row.state, row.attempts, target.state) == ("delivered", 2, "waiting")

    asyncio.run(main())
