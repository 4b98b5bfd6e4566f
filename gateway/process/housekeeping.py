"""What a gateway does every second beside its requests and deliveries: looks at secrets and the clock, ends and renews
alerts with time, writes down who called, and forgets what has expired. It must not know any vendor."""

from __future__ import annotations

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
from gateway.process.timekeeping import Timekeeping
from gateway.road import muting
from gateway.road.requeue import told_at_last
from gateway.road.timing import Hearing, pass_time
from gateway.store import Tx

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


class Housekeeping:
    """The housekeeping of a gateway, from when it begins to run."""

    def __init__(self, gateway: Gateway, dispatcher: Dispatcher, timekeeping: Timekeeping) -> None:
        self._gateway = gateway
        self._store = gateway.store
        self._dispatcher = dispatcher
        self._timekeeping = timekeeping
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
        await self._timekeeping.look()
        await self._store.ease()
        waiting = await self._store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway")
        most = self._config.max_waiting
        count, size = sum(one.count for one in waiting), sum(one.bytes for one in waiting)
        self._desk.full = count >= most.deliveries or size >= most.bytes

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
