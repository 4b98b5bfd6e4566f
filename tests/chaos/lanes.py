"""Promises 5 and 26: order per lane through retries, lost answers, refusals and restarts; other lanes are not blocked;
a late RESOLVE never closes a newer alert of the same key; a late page says so, and nobody is woken for what is over.

A seeded simulation on a clock of its own: `Road.accept`, `prepare` and `settle` work on a real store in memory, as
the dispatcher would have them do, in front of model upstreams that fail at random. Checks are made at those models and
in a ledger kept beside the store. Two broken stores must be detected: one whose `claim` ignores lanes, and one whose
lanes are alerts instead of keys.

    python -m tests.chaos.lanes --operations 1000000
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import apsw
from msgspec import structs

from gateway.admin.operating import chosen
from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.delivery.judging import pause
from gateway.errors import Problem
from gateway.ids import EPOCH_MS, Ids
from gateway.outcome import Again, Delivered, Missing, Outcome, Rejected
from gateway.road.accepted import Caller, Order
from gateway.road.preparing import Shipment, prepare
from gateway.road.requeue import drop, send_again
from gateway.road.road import Road
from gateway.road.settling import settle
from gateway.road.terms import ENDING, TELLING
from gateway.store import DeliveryRow
from gateway.store.sqlite import SqliteTx
from gateway.store.sqlite_schema import migrate
from gateway.store.tables import DELIVERIES
from tests.chaos.result import Result, numbers

CONFIG = """
[inbound.ilert]
keys = { ci = "a", ops = "b" }
[upstreams.bykey]
dialect = "ilert"
url = "http://localhost"
key = "k"
[upstreams.second]
dialect = "ilert"
url = "http://localhost"
key = "k"
[upstreams.byid]
dialect = "uptinio"
url = "http://localhost"
key = "k"
defaults = { resource = "mon_9" }
[[routes]]
from = ["ilert/ci"]
to = ["bykey", "byid", "second"]
[[routes]]
to = ["second", "bykey"]
"""
STATES = ("delivered", "dead", "waiting", "merged", "void")
MINUTE = 60_000
HOUR = 60 * MINUTE
KEPT_FOR = 12 * HOUR
EXAMINED_EVERY = 500
PURGED_EVERY = 5_000

ModelLane = tuple[str, str]


class LanesIgnored(SqliteTx):
    """A broken store: it gives whatever is due, whether or not something older of the lane waits."""

    def claim(
        self,
        upstream: str,
        now: int,
        limit: int,
        *,
        taken: Collection[str] = (),
        ranked: bool = False,
        fresh: bool = False,
        unsent: bool = False,
    ) -> list[DeliveryRow]:
        """Returns what is due, without regard to lanes."""
        waits = "upstream = ? AND state = 'waiting' AND due <= ? ORDER BY due LIMIT ?"
        found = self._all(f"{DELIVERIES.select} WHERE {waits}", (upstream, now, limit + len(taken)))
        return [row for row in map(DELIVERIES.decode, found) if row.lane not in taken][:limit]


class LanesOfAlerts(SqliteTx):
    """A broken store: a lane is an alert, so that two alerts of one key do not wait for each other."""

    def insert_delivery(self, row: DeliveryRow) -> None:
        """Puts a delivery on the lane of its alert."""
        row.lane = f"alert {row.alert}"
        super().insert_delivery(row)


@dataclass
class Model:
    """The state of a model upstream. `opened`: key → the alert and delivery that last triggered it; `objects`: alert →
    the id issued for it; `taken`: lane → the newest delivery that it accepted; `seen`: the deliveries that it has, or
    may have; `down_until`: when its outage ends."""

    opened: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    objects: dict[int, str] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    down_until: int = 0


class Simulation:
    """A store, the road over it, and upstreams that fail: `run` plays it, `wrong` counts what must never happen."""

    def __init__(self, seed: int, kind: type[SqliteTx] = SqliteTx, keys: int = 150) -> None:
        self.config = parse(CONFIG)
        self.connection = apsw.Connection(":memory:")
        migrate(self.connection)
        self.tx = kind(self.connection)
        self.random = random.Random(seed)
        self.keys = keys
        self.now = EPOCH_MS + HOUR
        self.ids = Ids(clock=lambda: self.now)
        self.models = {name: Model() for name in self.config.upstreams}
        self.under_way: dict[tuple[str, str], Shipment] = {}
        self.by_hand: set[int] = set()
        self.waiting: dict[ModelLane, list[int]] = {}
        self.asked_at: dict[int, int] = {}
        self.shown: dict[str, list[str]] = {"ci": [], "ops": []}
        self.accepted = 0
        self.forgotten: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        dialect = self.config.inbounds["ilert"].dialect
        self.same_key = dialect.same_key
        self.callers = {name: Caller(dialect, name, f"ilert/{name}") for name in self.shown}
        self._restarted()

    def _restarted(self) -> None:
        """Begins as a process that has just started, which knows what is committed and nothing else."""
        self.ids = Ids(floor=self.tx.largest_id(), clock=lambda: self.now)
        self.road = Road(self.config, self.ids.next, lambda: f"invented-{self.random.getrandbits(64):x}")
        self.under_way = {}

    # --- what happens ----------------------------------------------------------------------------------------

    def run(self, operations: int) -> None:
        """Plays `operations` commands and attempts."""
        while self.done["commands"] + self.done["attempts"] < operations:
            self._time_passes()
            chance = self.random.random()
            if chance < 0.11:
                self._command()
            elif chance < 0.999:
                self._attempt()
            elif chance < 0.9995:
                self._restart()
            else:
                self._operator()
            turn = self.done["turns"] = self.done["turns"] + 1
            if turn % EXAMINED_EVERY == 0:
                self._examine()
            if turn % PURGED_EVERY == 0:
                self._forget()

    def _time_passes(self) -> None:
        chance = self.random.random()
        if chance < 0.00002:
            self.now += 25 * HOUR
        elif chance < 0.0005:
            self.now += self.random.randrange(20 * MINUTE)
        else:
            self.now += self.random.randrange(400)
        if self.random.random() < 0.0003:
            self.random.choice(list(self.models.values())).down_until = self.now + self.random.randrange(30 * MINUTE)

    def _command(self) -> None:
        caller = self.random.choice(("ci", "ops"))
        asked = self._by_id(caller) if self.random.random() < 0.15 and self.shown[caller] else self._by_key()
        command = self.ids.next()
        self.done["commands"] += 1
        try:
            with self.connection:
                accepted = self.road.accept(
                    self.tx,
                    Order(
                        asked=asked,
                        caller=self.callers[caller],
                        request=command,
                        command=command,
                        now=self.now,
                    ),
                )
        except Problem:
            self.done["refused"] += 1
            return
        made = self.tx.deliveries_of(command)
        self.accepted += len(made)
        self.asked_at[command] = self.now
        for row in made:
            if row.state == "waiting":
                self.waiting.setdefault(self._lane(row, row.key), []).append(row.id)
        if accepted.is_new and accepted.alert:
            known = self.shown[caller]
            known.append(accepted.alert.shown)
            del known[:-100]

    def _by_key(self) -> Command:
        key = f"key-{self.random.randrange(self.keys)}"
        key = key.upper() if self.random.random() < 0.2 else key
        chance = self.random.random()
        if chance < 0.5:
            words: dict[str, Any] = {"summary": f"s{self.random.randrange(1000)}"}
            return Command(operation=Operation.CREATE, patch={**words, "dedup_key": key}, verbatim=words)
        operation = Operation.RESOLVE if chance < 0.8 else Operation.ACKNOWLEDGE if chance < 0.95 else Operation.COMMENT
        return Command(operation=operation, ref=Ref(key=key), comment="c")

    def _by_id(self, caller: str) -> Command:
        operation = self.random.choice(
            (Operation.UPDATE, Operation.RESOLVE, Operation.REOPEN, Operation.DELETE, Operation.ACKNOWLEDGE)
        )
        patch = {"summary": f"u{self.random.randrange(1000)}"} if operation is Operation.UPDATE else {}
        return Command(operation=operation, ref=Ref(id=self.random.choice(self.shown[caller])), patch=patch)

    def _restart(self) -> None:
        """Crashes the process and starts another; each request under way was accepted by its upstream, or was not."""
        self.done["restarts"] += 1
        for shipment in self.under_way.values():
            if shipment.sending is not None and self.random.random() < 0.5:
                self._take(shipment)
        self._restarted()

    def _operator(self) -> None:
        """Sends dead letters again or drops them, without force."""
        rows = chosen(self.tx, (), dead=True, upstream=None)
        some = self.random.sample(rows, min(len(rows), 20))
        with self.connection:
            if self.random.random() < 0.3:
                drop(self.tx, some[:5], "not wanted", self.now)
            else:
                again, _ = send_again(self.tx, sorted(some, key=lambda row: row.id), self.now, force=False)
                self.by_hand.update(again)
                for row in some:
                    if row.id in again:
                        lane = self.waiting.setdefault(self._lane(row, row.key), [])
                        lane.append(row.id)
                        lane.sort()

    # --- attempts --------------------------------------------------------------------------------------------

    def _attempt(self) -> None:
        """Ends an attempt that is under way, or begins one that is due, as the dispatcher does."""
        if self.under_way and self.random.random() < 0.55:
            self._end(self.random.choice(list(self.under_way)))
            return
        name = self.random.choice(list(self.models))
        for row in self._eligible(name)[:1]:
            self._begin(row)

    def _eligible(self, name: str) -> list[DeliveryRow]:
        taken = {lane for upstream, lane in self.under_way if upstream == name}
        free = self.config.upstreams[name].concurrency - len(taken)
        if free <= 0:
            return []
        return self.tx.claim(name, self.now, free, taken=taken)

    def _begin(self, row: DeliveryRow) -> None:
        shipment = prepare(self.tx, row, self.config.upstreams[row.upstream], self.now)
        self.under_way[row.upstream, row.lane] = shipment
        if shipment.sending is None:
            self._end((row.upstream, row.lane))
            return
        self._check_turn(shipment)

    def _end(self, place: tuple[str, str]) -> None:
        shipment = self.under_way.pop(place)
        upstream = self.config.upstreams[place[0]]
        row = shipment.delivery
        self.done["attempts"] += 1
        outcome = self._outcome(shipment) if shipment.sending is not None else None
        row.attempts += outcome is not None
        if isinstance(outcome, Again) and outcome.reason != "refused" and shipment.operation is Operation.CREATE:
            shipment = structs.replace(shipment, tried_at=shipment.tried_at or self.now)  # it may be there by now
            self.models[place[0]].seen.add(row.id)
        due = self.now + int(pause(upstream.retry, row.attempts, None, self.random.random) * 1000)
        with self.connection:
            verdict = settle(self.tx, shipment, outcome, upstream, self.now, due)
        if verdict.state != "again":
            self._no_longer_waits(row)

    def _outcome(self, shipment: Shipment) -> Outcome:
        model = self.models[shipment.delivery.upstream]
        chance = self.random.random()
        if self.now < model.down_until:
            return Again(reason="refused")
        if chance < 0.08:
            return Again(reason="503")
        if chance < 0.14:
            self._take(shipment)
            return Again(reason="the answer was lost")
        if chance < 0.17:
            return Rejected(reason="400 no")
        by_id = shipment.delivery.upstream == "byid"
        if chance < 0.18 and by_id and shipment.operation is not Operation.CREATE:
            model.objects.pop(shipment.delivery.alert or 0, None)
            return Missing()
        return self._take(shipment)

    # --- the model upstreams ---------------------------------------------------------------------------------

    def _lane(self, row: DeliveryRow, key: str | None) -> ModelLane:
        """Returns the lane by canonical.md: the key sent there, as that upstream compares keys, else the alert."""
        return row.upstream, self.same_key(key) if key is not None else f"#{row.alert}"

    def _take(self, shipment: Shipment) -> Outcome:
        """Has a request arrive at its upstream and be accepted."""
        row, model, sending = shipment.delivery, self.models[shipment.delivery.upstream], shipment.sending
        assert sending is not None
        lane = self._lane(row, sending.key)[1]
        self._check_order(model, lane, row)
        model.taken[lane] = max(row.id, model.taken.get(lane, 0))
        if sending.key is None:
            return self._take_by_id(shipment, model)
        if shipment.operation in ENDING:
            alert, opener = model.opened.pop(lane, (None, 0))
            is_late = self._is_told_open(row.upstream, alert) and alert != row.alert
            is_late = is_late if row.alert is not None else opener > row.id
            self._count("a late resolve closed another alert", row, is_late)
        elif shipment.operation in TELLING:
            model.opened[lane] = (row.alert, row.id)
        model.seen.add(row.id)
        return Delivered()

    def _is_told_open(self, upstream: str, alert: int | None) -> bool:
        """Returns whether an alert is open, and nothing waits that would open it there again."""
        tells = "alert = ? AND upstream = ? AND state = 'waiting' AND operation IN ('create', 'update', 'reopen')"
        row = self.tx.alert(alert) if alert is not None else None
        waits = self.connection.execute(f"SELECT 1 FROM deliveries WHERE {tells}", (alert, upstream)).fetchone()
        return row is not None and row.is_open and waits is None

    def _take_by_id(self, shipment: Shipment, model: Model) -> Outcome:
        row, sending = shipment.delivery, shipment.sending
        assert sending is not None and row.alert is not None
        if shipment.operation is Operation.CREATE:
            # An alert made by an attempt whose answer was lost is found by reading before it is made again.
            name = model.objects.setdefault(row.alert, f"alt_v{row.id}")
            return Delivered(ids={"id": name})
        self.wrong["an id was sent that was never issued"] += sending.ids["id"] != model.objects.get(row.alert)
        return Delivered()

    # --- what must always hold -------------------------------------------------------------------------------

    def _check_turn(self, shipment: Shipment) -> None:
        """Checks that nothing older of the lane waits, that a late page says so, and that what is over wakes nobody."""
        row, sending = shipment.delivery, shipment.sending
        assert sending is not None
        lane = self.waiting.get(self._lane(row, sending.key), [])
        while lane and lane[0] < row.id:
            older = self.tx.delivery(lane[0])
            if older is not None and older.state == "waiting":
                self.wrong["inversions"] += 1
                break
            lane.pop(0)
        if sending.key is None or shipment.operation not in TELLING or row.alert is None:
            return
        asked_at = self.asked_at.get(row.command, self.now)
        says_late = str(sending.body.get("details", "")).startswith("Late by")
        self.wrong["late pages that do not say so"] += says_late != (self.now - asked_at > 2 * MINUTE)
        if shipment.operation is Operation.CREATE and row.id not in self.models[row.upstream].seen:
            is_old = self.now - row.created_at > 10 * MINUTE
            self.wrong["woken for what is over"] += is_old and self._is_over(row)

    def _is_over(self, row: DeliveryRow) -> bool:
        ends = "alert = ? AND upstream = ? AND id > ? AND state = 'waiting' AND operation IN ('resolve', 'delete')"
        found = self.connection.execute(f"SELECT 1 FROM deliveries WHERE {ends}", (row.alert, row.upstream, row.id))
        return found.fetchone() is not None

    def _check_order(self, model: Model, lane: str, row: DeliveryRow) -> None:
        """Checks that nothing newer of the lane arrived before; a dead letter is no longer in the lane."""
        newest = model.taken.get(lane, 0)
        if newest > row.id:
            newer = self.tx.delivery(newest)
            self._count("inversions", row, newer is None or newer.state == "delivered")

    def _count(self, what: str, row: DeliveryRow, is_so: bool) -> None:
        """Counts what must never happen. It is counted apart for a dead letter that an operator sent again: something
        newer of its lane may have been under way, whose answer nobody could know yet."""
        (self.done if row.id in self.by_hand else self.wrong)[what] += is_so

    def _no_longer_waits(self, row: DeliveryRow) -> None:
        lane = self.waiting.get(self._lane(row, row.key), [])
        if row.id in lane:
            lane.remove(row.id)

    def _examine(self) -> None:
        """Checks that the ledger adds up, and that the dispatcher is given the head of every lane whose head is due."""
        counted = self._counted()
        found = sum(counted[state] + self.forgotten[state] for state in STATES)
        self.wrong["ledger off by"] += abs(self.accepted - found)
        for name, upstream in self.config.upstreams.items():
            taken = {lane for where, lane in self.under_way if where == name}
            heads: dict[str, tuple[int, int, str]] = {}
            for number, key, alert, due, lane in self.connection.execute(
                "SELECT id, key, alert, due, lane FROM deliveries WHERE upstream = ? AND state = 'waiting' ORDER BY id",
                (name,),
            ):
                heads.setdefault(self.same_key(key) if key else f"#{alert}", (number, due, lane))
            able = {number for number, due, lane in heads.values() if due <= self.now and lane not in taken}
            given = {row.id for row in self._eligible(name)}
            self.wrong["lanes blocked by others"] += min(len(able), upstream.concurrency - len(taken)) - len(
                given & able
            )
            self.wrong["inversions"] += len(given - able)

    def _counted(self) -> Counter[str]:
        return Counter(dict(self.connection.execute("SELECT state, count(*) FROM deliveries GROUP BY state")))

    def _forget(self) -> None:
        """Removes what ended long ago, as the gateway's own housekeeping does; the ledger here keeps it."""
        before = self._counted()
        with self.connection:
            self.tx.purge(self.now - KEPT_FOR, 100_000)
        self.forgotten += before - self._counted()
        self.asked_at = {command: at for command, at in self.asked_at.items() if at > self.now - 80 * HOUR}
        self.waiting = {lane: rows for lane, rows in self.waiting.items() if rows}

    def heal(self) -> None:
        """Ends all outages and delivers everything that waits; what still waits then is counted as wrong."""
        for place in list(self.under_way):
            self._end(place)
        for model in self.models.values():
            model.down_until = 0
        for _ in range(10_000):
            self.now += 5_000
            rows = [row for name in self.models for row in self._eligible(name)]
            for row in rows:
                if (row.upstream, row.lane) not in self.under_way:
                    self._begin(row)
            for place in list(self.under_way):
                self._end(place)
            if not rows and not self._counted()["waiting"]:
                break
        self.wrong["still waiting after healing"] += self._counted()["waiting"]
        self._examine()


def simulate(operations: int, seed: int, kind: type[SqliteTx] = SqliteTx, keys: int = 150) -> Simulation:
    """Runs one simulation; a sound store also has to heal."""
    simulation = Simulation(seed, kind, keys)
    simulation.run(operations)
    if kind is SqliteTx:
        simulation.heal()
    return simulation


def measure(operations: int, seed: int) -> Result:
    """Runs the simulation and both controls."""
    began = time.monotonic()
    found = simulate(operations, seed)
    took = time.monotonic() - began
    few = min(operations, 20_000)
    ignored, of_alerts = simulate(few, seed, LanesIgnored), simulate(few, seed, LanesOfAlerts)
    broken = [f"{name}: {count}" for name, count in found.wrong.items() if count]
    if not ignored.wrong["inversions"]:
        broken.append("the control that ignores lanes was not detected")
    if not of_alerts.wrong["a late resolve closed another alert"]:
        broken.append("the control whose lanes are alerts was not detected")
    figures = {
        "operations": found.done["commands"] + found.done["attempts"],
        "deliveries": found.accepted,
        "restarts": found.done["restarts"],
        "inversions": found.wrong["inversions"],
        "late resolves": found.wrong["a late resolve closed another alert"],
        "out of turn by hand": f"{found.done['inversions'] + found.done['a late resolve closed another alert']} "
        f"of {len(found.by_hand)}",
        "ledger off by": found.wrong["ledger off by"],
        "lanes blocked": found.wrong["lanes blocked by others"],
        "woken for what is over": found.wrong["woken for what is over"],
        "found in the controls": f"{ignored.wrong['inversions']} inversions, "
        f"{of_alerts.wrong['a late resolve closed another alert']} late resolves",
        "seed": seed,
        "seconds": round(took),
    }
    return Result("5, 26", figures, broken)


def main() -> int:
    """The command."""
    asked = numbers(__doc__ or "", operations=1_000_000, seed=1)
    return measure(asked.operations, asked.seed).tell()


if __name__ == "__main__":
    sys.exit(main())
