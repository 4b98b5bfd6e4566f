"""Shared by the tests of the road: a gateway without a network and without time.

`Desk` accepts commands, takes deliveries and ends them on a real store, on a virtual clock; `Vendor` is a model of what
each of its two upstreams holds, one that finds alerts by key and one that issues ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apsw

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.config import Config, Upstream
from gateway.config.loading import parse
from gateway.ids import EPOCH_MS, Ids
from gateway.outcome import Delivered, Outcome, Rejected
from gateway.road.accepted import Accepted, Caller, Order
from gateway.road.preparing import Shipment, prepare
from gateway.road.road import Road
from gateway.road.settling import Verdict, settle
from gateway.road.terms import ENDING
from gateway.store import AlertRow, DeliveryFilter, DeliveryRow, TargetRow
from gateway.store.sqlite import SqliteTx
from gateway.store.sqlite_schema import migrate

CONFIG = """
[inbound.ilert]
keys = { ci = "a", ops = "b" }
[upstreams.bykey]
dialect = "ilert"
url = "http://localhost"
key = "k"
[upstreams.byid]
dialect = "uptinio"
url = "http://localhost"
key = "k"
defaults = { resource = "mon_9" }
[[routes]]
to = ["bykey", "byid"]
"""
FALLING_BACK = CONFIG.replace('to = ["bykey", "byid"]', 'to = ["byid"]\nfallback = { to = ["bykey"] }')
"""As `CONFIG`, but the upstream that finds alerts by key is told only of what the other has not taken in time."""
BOTH = ("bykey", "byid")
MINUTE = 60_000
NO = Rejected(reason="400 no")
RESOLVE = Command(operation=Operation.RESOLVE, ref=Ref(key="disk"))


@dataclass
class Vendor:
    """What an upstream holds. By id: object → (alert, is open). By key: lane → the delivery that opened it."""

    objects: dict[str, tuple[int, bool]] = field(default_factory=dict)
    opened: dict[str, DeliveryRow] = field(default_factory=dict)


class Desk:
    """A store in memory, the road over it, and both vendors: used by the state machine and the plain tests."""

    def __init__(self, text: str = CONFIG) -> None:
        self.config: Config = parse(text)
        self.connection = apsw.Connection(":memory:")
        migrate(self.connection)
        self.tx = SqliteTx(self.connection)
        self.now = EPOCH_MS + 1_000_000_000
        self.ids = Ids(clock=lambda: self.now)
        self.issued = 0
        self.invented = 0
        self.vendors = {name: Vendor() for name in self.config.upstreams}
        self.road = Road(self.config, self.ids.next, self._invent)
        dialect = self.config.inbounds["ilert"].dialect
        self.callers = {name: Caller(dialect, name, f"ilert/{name}") for name in ("ci", "ops")}

    def _invent(self) -> str:
        self.invented += 1
        return f"invented-{self.invented}"

    def accept(self, caller: str, asked: Command) -> Accepted:
        """Accepts a command; a refused one leaves nothing behind."""
        self.now += 1000
        command = self.ids.next()
        with self.connection:
            accepted = self.road.accept(
                self.tx, Order(asked=asked, caller=self.callers[caller], request=command, command=command, now=self.now)
            )
        return accepted  # noqa: RET504 - returned within, a connection could swallow what is raised

    def upstream(self, name: str) -> Upstream:
        """An upstream of the configuration."""
        return self.config.upstreams[name]

    def due(self, upstream: str) -> list[DeliveryRow]:
        """The deliveries that may be sent now."""
        return self.tx.claim(upstream, self.now, 100)

    def take(self, row: DeliveryRow) -> Shipment:
        """Prepares a delivery."""
        return prepare(self.tx, row, self.upstream(row.upstream), self.now)

    def end(self, shipment: Shipment, outcome: Outcome | None) -> Verdict:
        """Records the outcome of an attempt."""
        self.now += 1000
        shipment.delivery.attempts += outcome is not None
        with self.connection:
            upstream = self.upstream(shipment.delivery.upstream)
            verdict = settle(self.tx, shipment, outcome, upstream, self.now, self.now + 5000)
        return verdict  # noqa: RET504 - as above

    def target(self, alert: int, upstream: str) -> TargetRow | None:
        """The target of an alert at an upstream."""
        return next((one for one in self.tx.targets(alert) if one.upstream == upstream), None)

    def taken(self, shipment: Shipment) -> Outcome:
        """Applies a request to what the vendor holds, and returns its answer."""
        row, vendor = shipment.delivery, self.vendors[shipment.delivery.upstream]
        assert shipment.sending
        if row.upstream == "bykey":
            self._taken_by_key(shipment, vendor)
            return Delivered()
        if shipment.operation is Operation.CREATE:
            self.issued += 1
            assert row.alert is not None
            vendor.objects[f"alt_v{self.issued}"] = (row.alert, True)
            return Delivered(ids={"id": f"alt_v{self.issued}"})
        name = shipment.sending.ids["id"]
        assert name in vendor.objects, "an id was sent that the vendor never issued"
        alert, is_open = vendor.objects[name]
        assert alert == row.alert, "one alert's command went to another alert's object"
        opens = {Operation.RESOLVE: False, Operation.REOPEN: True}
        vendor.objects[name] = (alert, opens.get(shipment.operation, is_open))
        return Delivered()

    def _taken_by_key(self, shipment: Shipment, vendor: Vendor) -> None:
        assert shipment.sending and shipment.sending.key is not None
        row, key = shipment.delivery, shipment.sending.key.strip().lower()
        if shipment.operation in ENDING:
            opened = vendor.opened.pop(key, None)
            assert opened is None or opened.id < row.id, "a late RESOLVE closed a newer alert of the same key"
            assert opened is None or row.alert in (None, opened.alert), "it closed an alert that is not its own"
        elif shipment.operation in (Operation.CREATE, Operation.UPDATE, Operation.REOPEN):
            opened = vendor.opened.setdefault(key, row)
            chosen = DeliveryFilter(state="dead", upstream="bykey", alert=opened.alert)
            if any(one.operation in ENDING for one in self.tx.deliveries(chosen)):
                vendor.opened[key] = row  # its end was refused there, so the vendor takes the newer one for it
            else:
                assert opened.alert == row.alert, "two alerts became one at the vendor"


def create(key: str | None, summary: str = "s") -> Command:
    """An ALERT."""
    patch: dict[str, Any] = {"summary": summary, **({"dedup_key": key} if key else {})}
    return Command(operation=Operation.CREATE, patch=patch, verbatim={"summary": summary})


def update(number: int, ref: Ref) -> Command:
    """An update of an alert; `number` tells its summary from others."""
    return Command(operation=Operation.UPDATE, ref=ref, patch={"summary": f"said {number}"})


def opened(config: str = CONFIG) -> tuple[Desk, AlertRow]:
    """A desk with an alert that all of its upstreams have."""
    desk = Desk(config)
    alert = desk.accept("ci", create("disk")).alert
    assert alert
    drain(desk)
    return desk, alert


def states(desk: Desk, upstream: str = "") -> list[tuple[str, str]]:
    """Operation and state of every delivery, oldest first."""
    rows = [row for row in all_rows(desk) if upstream in ("", row.upstream)]
    return [(row.operation, row.state) for row in rows]


def all_rows(desk: Desk) -> list[DeliveryRow]:
    """Every delivery, oldest first."""
    found = [desk.tx.delivery(number) for (number,) in desk.connection.execute("SELECT id FROM deliveries ORDER BY id")]
    return [row for row in found if row]


def drain(desk: Desk, *upstreams: str) -> list[Shipment]:
    """Delivers everything that is due, and returns what was sent, in order."""
    sent = []
    while heads := [row for name in upstreams or BOTH for row in desk.due(name)]:
        for row in heads:
            shipment = desk.take(row)
            if shipment.sending is None:
                desk.end(shipment, None)
                continue
            sent.append(shipment)
            desk.end(shipment, desk.taken(shipment))
    return sent


def adds_up(desk: Desk) -> bool:
    """Whether the ledger adds up."""
    return all(line.adds_up for line in desk.tx.ledger(0, "caller"))
