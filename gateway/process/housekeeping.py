"""What a gateway does every second beside its requests and deliveries: looks at secrets and the clock, ends and renews
alerts with time, writes down who called, and forgets what has expired. It must not know any vendor."""

from __future__ import annotations

import contextlib
import math
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.admin.operations import forget
from gateway.config.config import Config
from gateway.config.settings import secrets_in
from gateway.delivery.dispatcher import Dispatcher
from gateway.desk import calling
from gateway.desk.desk import Desk
from gateway.desk.idempotency import KEPT_MS
from gateway.errors import StoreError
from gateway.road import muting
from gateway.road.needed import began
from gateway.road.requeue import told_at_last
from gateway.road.timing import Hearing, pass_time
from gateway.store import DeliveryFilter, Tx

if TYPE_CHECKING:
    from gateway.process.service import Gateway

log = structlog.get_logger()
PURGE_EVERY = 60.0
"""Seconds between two purges, unless there is more to remove than a batch."""
PURGED_AT_ONCE = 500
"""Rows of each kind removed in one batch."""
PURGING = 0.25
"""Seconds of each round for which batches are removed one after the other, where there is more than one: more rows may
expire in a second than are in a batch, and the store would grow for ever."""
CLOCK_JUMP = 10.0
"""Seconds by which the clock has to jump to be followed."""
DIFFERS = (
    "this machine's clock is so many seconds off from that of the database's server, which all replicas go by; set "
    "whichever is wrong"
)


class Housekeeping:
    """The housekeeping of a gateway, from when it begins to run."""

    def __init__(self, gateway: Gateway, dispatcher: Dispatcher) -> None:
        self._gateway = gateway
        self._store = gateway.store
        self._dispatcher = dispatcher
        self._is_off = False
        if self._store.lease is not None:
            gateway.clock.follow(self._off_by())
        self._hearing = Hearing(gateway.now())
        self._called, self._purged = time.monotonic(), -math.inf

    @property
    def _config(self) -> Config:
        return self._gateway.config

    @property
    def _desk(self) -> Desk:
        assert self._gateway.desk is not None
        return self._gateway.desk

    async def round(self) -> None:
        """Takes all steps once. One that fails must not end the others, except that none goes on in a round where the
        store is unavailable."""
        for step in (
            self._look_at_secrets,
            self._look_around,
            self._pass_time,
            self._write_calls,
            self._forget,
            self._tell_at_last,
        ):
            try:
                await step()
            except StoreError as error:
                log.error("store.unavailable", reason=str(error))
                break
            except Exception:
                log.exception("housekeeping.failed")

    async def _look_at_secrets(self) -> None:
        """Looks at all followed credentials, so that one whose file was emptied or removed is refused at its first use,
        however long nobody has called."""
        token = self._config.admin_token
        followed = [] if token is None else [token]
        for inbound in self._config.inbounds.values():
            inbound.keyring.look()
            followed += secrets_in(inbound.settings)
        for secret in followed:
            secret.value()

    async def _look_around(self) -> None:
        self._gateway.show_upstreams()
        await self._follow_clock()
        await self._store.ease()
        waiting = await self._store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway")
        most = self._config.max_waiting
        count, size = sum(one.count for one in waiting), sum(one.bytes for one in waiting)
        self._desk.full = count >= most.deliveries or size >= most.bytes

    async def _follow_clock(self) -> None:
        """Follows a system clock that was set. The due times of waiting deliveries are moved first, as they mean a
        pause, not a time of day: so a jump neither delays deliveries nor has them given up. Where replicas share a
        store, one clock of many moves nothing."""
        if self._store.lease is not None:
            self._gateway.clock.follow(self._gateway.clock.jump + self._off_by())
            return
        jump = self._gateway.clock.jump
        if abs(jump) < CLOCK_JUMP:
            self._gateway.clock.follow(jump)
            return
        log.warning("clock.jumped", seconds=round(jump))
        first, then = (0.0, jump) if jump > 0 else (jump, 0.0)  # so nothing is taken for overdue or too old meanwhile
        self._gateway.clock.follow(first)
        try:
            await self._store.write(lambda tx: tx.shift_waiting(int(jump * 1000)), is_long=True)
        except StoreError:
            self._gateway.clock.follow(-first)
            raise
        self._gateway.clock.follow(then)

    async def see_whether_set_back(self) -> None:
        """Moves what waits to now if it is of a time that is yet to come: the clock was set back while no gateway ran.
        It would be due only then, and not even count as late. To be called before anything is sent. Not where replicas
        share a store: all go by the clock of its server."""
        if self._store.lease is not None:
            return
        now = self._gateway.now()

        def work(tx: Tx) -> int:
            newest = tx.deliveries(DeliveryFilter(state="waiting", limit=1))
            since = began(tx, newest[0]) if newest else None
            ahead = 0 if since is None else since - now
            if ahead >= CLOCK_JUMP * 1000:
                tx.shift_waiting(-ahead)
            return ahead

        with contextlib.suppress(StoreError):  # without room for that all is as it was
            if (ahead := await self._store.write(work, is_long=True)) >= CLOCK_JUMP * 1000:
                log.warning("clock.jumped", seconds=round(-ahead / 1000))

    def _off_by(self) -> float:
        """Seconds by which this machine's clock is behind that of the store's server, by which all replicas go: what a
        replica hours ahead had written down would be due hours later for the others, and what is over by its clock is
        not over. Nothing where they differ by little, as clocks do."""
        ahead = self._store.ahead
        is_off = abs(ahead) >= CLOCK_JUMP
        if is_off != self._is_off:
            self._is_off = is_off
            if is_off:
                log.warning("clock.differs", seconds=round(-ahead), reason=DIFFERS)
            else:
                log.info("clock.agrees")
        return ahead if is_off else 0.0

    async def _pass_time(self) -> None:
        now, desk = self._gateway.now(), self._desk
        self._hearing.look(now, is_deaf=desk.full or self._store.is_strained)
        for name in await pass_time(self._store, desk.road, self._config, desk.ids, now, self._hearing):
            self._dispatcher.wake(name)

    async def _write_calls(self) -> None:
        if time.monotonic() - self._called >= calling.EVERY and not self._store.is_strained:
            self._called = time.monotonic()
            await self._gateway.calls.write(self._store)

    async def _forget(self) -> None:
        if (began := time.monotonic()) - self._purged < PURGE_EVERY:
            return
        while await self._purge(self._gateway.now()) >= PURGED_AT_ONCE:
            if time.monotonic() - began >= PURGING:
                return
        self._purged = time.monotonic()

    async def _purge(self, now: int) -> int:
        """Removes a batch of what has expired; returns how many rows of the kind that had most."""
        before = now - int(self._config.retention * 1000)
        able = [inbound.scopes for inbound in self._config.inbounds.values() if inbound.dialect.muted_by]
        scopes = sorted(frozenset[str]().union(*able))
        silenced = await self._store.read(
            lambda tx: muting.long_over(tx, scopes, before), is_long=True, whose="gateway"
        )

        def work(tx: Tx) -> dict[str, int]:
            forget(tx, before, PURGED_AT_ONCE)
            for scope in silenced:
                muting.forget(tx, scope, before, PURGED_AT_ONCE)
            calls = tx.purge_calls(before, PURGED_AT_ONCE)
            keys = tx.purge_keyed(now - KEPT_MS, PURGED_AT_ONCE)
            return {"calls": calls, "idempotency_keys": keys, "ended": tx.purge(before, PURGED_AT_ONCE)}

        removed = await self._store.write(work, is_long=True)
        most = max(removed.values())
        self._gateway.metrics.purge(removed, now, is_behind=most >= PURGED_AT_ONCE)
        return most

    async def _tell_at_last(self) -> None:
        """Sends what came for an upstream while it was not in the configuration, once it is, and after each start."""
        for name in [name for name in self._dispatcher.untold if name in self._config.upstreams]:
            self._dispatcher.untold.discard(name)  # first: it may be added again meanwhile
            after = -1
            try:
                while after and name in self._config.upstreams:
                    work = partial(told_at_last, upstream=name, now=self._gateway.now(), after=max(after, 0))
                    after = await self._store.write(work, is_long=True)
            except BaseException:
                self._dispatcher.untold.add(name)
                raise
            self._dispatcher.wake(name)
