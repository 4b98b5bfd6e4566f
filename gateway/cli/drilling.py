"""`drill`: sends a marked alert through a route to its real upstreams, waits for the result, and resolves it again.

It runs a gateway of its own with a store of its own, so that nothing mixes with the data of a running gateway. It wakes
nobody unless that is asked for. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.asked import Command, Ref
from gateway.canonical import LOWEST_SEVERITY, Flat, Operation
from gateway.config.config import Config, Inbound
from gateway.config.routing import Route
from gateway.config.secrets import Keyring
from gateway.dialect import Dialect
from gateway.mapping.values import from_millis, iso
from gateway.process.service import Gateway
from gateway.store import AttemptRow, DeliveryFilter, DeliveryRow, Tx

ORIGIN = "drill"
LOOK = 0.05
LOUD = {"severity": 1, "urgency": "high"}
QUIET = {"severity": LOWEST_SEVERITY, "urgency": "low"}


@dataclass(frozen=True)
class Drilled:
    """One delivery of a drill, with its attempts."""

    row: DeliveryRow
    attempts: tuple[AttemptRow, ...]

    def lines(self) -> Iterator[str]:
        """The delivery's timeline, a line per attempt."""
        for one in self.attempts:
            status = f" {one.status}" if one.status is not None else ""
            reason = f": {one.reason}" if one.reason else ""
            when = iso(from_millis(one.at))
            what = f"{one.outcome}{status}, took {one.took} ms"  # `again in 3 ms` would be when it is tried again
            yield f"{when}  {self.row.upstream}  {self.row.operation}  {what}{reason}"
        if not self.attempts or self.row.state != "delivered":
            reason = f": {self.row.reason}" if self.row.reason else ""
            yield f"{' ' * 24}  {self.row.upstream}  {self.row.operation}  {self.row.state}{reason}"


async def drill(config: Config, route: Route, caller: str, *, wake: bool, within: float) -> list[Drilled]:
    """Sends a marked alert through a route as if this caller had, waits at most `within` seconds for its deliveries,
    resolves it and waits again; also if it is cancelled, which SIGTERM does too. Raises `Problem` where the primary
    cannot be told at all."""
    _hear_the_end()
    with tempfile.TemporaryDirectory(prefix="alert-gateway-drill-") as directory:
        own = _own(config, route, str(Path(directory) / "drill.db"), caller)
        gateway, inbound = Gateway(own), own.inbounds[ORIGIN]
        async with gateway.running():
            key = f"drill-{secrets.token_hex(8)}"
            opening = Command(operation=Operation.CREATE, patch=_alert(route, key, wake=wake))
            await _send(gateway, inbound, caller, opening)
            try:
                await _settled(gateway, within)
            finally:  # nobody else would ever end what it opened
                await _send(gateway, inbound, caller, Command(operation=Operation.RESOLVE, ref=Ref(key=key)))
                await _settled(gateway, within)
            return await gateway.store.read(_drilled)


def _hear_the_end() -> None:
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(RuntimeError, ValueError):  # signals arrive in the main thread alone
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _own(config: Config, route: Route, store: str, caller: str) -> Config:
    """The configuration with this route alone, which takes everything, without its fallback, heartbeat and alarms. The
    drill waits for the verdicts itself, so a store in a container makes no difference."""
    some: Dialect = next(iter(config.inbounds.values())).dialect
    dialect = dataclasses.replace(some, name=ORIGIN, kind="occurrence", unique_names=False, same_key=str)
    inbound = Inbound(
        dialect=dialect,
        keyring=Keyring({}),
        callers=frozenset({caller}),
        anonymous=True,
        scope=None,
        reply="accepted",
    )
    alone = dataclasses.replace(route, from_=(), when=(), fallback=(), goes_on=False)
    return dataclasses.replace(
        config, store=store, durable="disk", inbounds={ORIGIN: inbound}, routes=(alone,), heartbeat=None, alarms=()
    )


def _alert(route: Route, key: str, *, wake: bool) -> Flat:
    summary = f"DRILL of route {route.name}: " + ("please acknowledge" if wake else "nobody is to be woken")
    details = "A drill of alert-gateway. Nothing is wrong; it resolves itself."
    loudness = LOUD if wake else QUIET
    return {"summary": summary, "details": details, "dedup_key": key, **loudness, "labels": {"drill": route.name}}


async def _send(gateway: Gateway, inbound: Inbound, caller: str, command: Command) -> None:
    assert gateway.desk
    await gateway.desk.serve(inbound, caller, command, gateway.desk.ids())


def _drilled(tx: Tx) -> list[Drilled]:
    rows = sorted(tx.deliveries(DeliveryFilter(limit=1000)), key=lambda row: row.id)
    return [Drilled(row, tuple(tx.attempts(row.id))) for row in rows]


def _waits(tx: Tx) -> bool:
    return bool(tx.waiting())


async def _settled(gateway: Gateway, within: float) -> None:
    """Waits until no delivery waits any more, or `within` seconds are over."""
    end = time.monotonic() + within
    while time.monotonic() < end and await gateway.store.read(_waits):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(LOOK)
