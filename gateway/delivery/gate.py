"""The gate before one upstream: how many deliveries may be sent now, and how the end of each attempt affects that.

It combines breaker, budget and rate, stores what has to survive a restart, and logs errors when the upstream is left
alone. It must not know any vendor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from gateway.config.config import Upstream
from gateway.delivery.attempt import Client, Ended
from gateway.delivery.breaker import Breaker, Bucket, Budget, budgeted, resumed
from gateway.delivery.replicas import OtherReplicas
from gateway.errors import StoreError
from gateway.outcome import Again, Held
from gateway.store import Store, Tx

log = structlog.get_logger()


class Gate:
    """Limits what is sent from the outbox to an upstream. `shut` is called when the breaker opens or is held."""

    def __init__(self, store: Store, client: Client, shut: Callable[[], None], now: Callable[[], int]) -> None:
        self._store = store
        self._client = client
        self._shut = shut
        self._now = now
        self._note = _note(client.upstream.name)
        self._held_with = 0
        self._probe: str | None = None
        self._known_then: dict[str, int] = {}
        self._changes, self._kept = 0, 0
        self._shut_at = self._now()
        self._others = OtherReplicas()
        self.breaker = Breaker()
        self.budget = Budget(at=time.monotonic())

    async def resume(self) -> None:
        """Restores breaker and budget as they were stored when the process ended."""
        budget = f"budget {self._client.upstream.name}"
        self.breaker, spent = await self._store.read(
            lambda tx: (breaker_of(tx, self._client.upstream.name), tx.note(budget))
        )
        self.budget = budgeted(spent, time.monotonic(), self._now())

    async def hear(self) -> None:
        """Closes the breaker if another replica has delivered to the upstream since it opened: that may have sent all
        that waited, and this one needs something to send to find out by itself. A replica whose own breaker was open
        has stored that it closed; deliveries of one whose breaker never opened are looked for again and again while a
        probe is due."""
        if self._store.lease is None or not self.is_open or self._kept != self._changes:
            return
        name, before, now = self._client.upstream.name, self._changes, time.monotonic()
        is_due = self.breaker.wait(now) <= 0 and self._others.is_due(now)
        refused, began = {name: self._shut_at}, self._now()
        since = self._others.since(refused)

        def work(tx: Tx) -> tuple[bool, bool]:
            return breaker_of(tx, name).state == "closed", is_due and bool(tx.took(name, since))

        is_closed, has_taken = await self._store.read(work)
        if is_due:
            self._others.looked(refused, began)
        if not (is_closed or has_taken) or not self.is_open or before != self._changes:
            return
        self.breaker.heard()
        log.info("upstream.back", upstream=name, reason="another replica succeeded")
        if not is_closed:
            await self._keep()

    def use(self, client: Client) -> None:
        """Uses a new configuration of the upstream, which may be probed at once."""
        self._client = client
        self.breaker.release(time.monotonic())

    @property
    def is_open(self) -> bool:
        """Whether only probes are sent."""
        return self.breaker.state != "closed"

    def room(self, under_way: int) -> tuple[int, float]:
        """How many more attempts may begin now, and, if none may, the seconds after which to ask again at the
        latest."""
        now = time.monotonic()
        if self.breaker.state == "held" and self._client.fingerprint() != self._held_with:
            self.breaker.release(now)
        wait = self.breaker.wait(now)
        if self.is_open:
            return (1, 0.0) if wait <= 0 and not under_way else (0, wait)
        return self._client.upstream.concurrency - under_way, 0.0

    def may_retry(self) -> bool:
        """Whether the budget allows a retry."""
        return self.is_open or self.budget.refill(time.monotonic()) >= 1

    def began(self, lane: str, *, is_retry: bool) -> None:
        """Notes that an attempt begins, with the current secrets; the first one while the gate is shut is the probe."""
        self._known_then[lane] = self._client.fingerprint()
        if self.is_open:
            self._probe = lane
        elif is_retry:
            self.budget.spend()
        else:
            self.budget.earn()

    def left(self, lane: str) -> None:
        """Forgets an attempt that is over, whether anything was sent or not: there are as many lanes as keys or alerts,
        so nothing may stay behind."""
        self._known_then.pop(lane, None)

    async def ended(self, lane: str, ended: Ended) -> None:
        """Notes how an attempt ended and what that says about the upstream: nothing if the upstream was not asked."""
        is_probe, self._probe = lane == self._probe, None if lane == self._probe else self._probe
        known_then = self._known_then.pop(lane, 0)
        if not (ended.requests or ended.is_fault or isinstance(ended.outcome, Held)):
            return
        now, name = time.monotonic(), self._client.upstream.name
        before = (self.breaker.state, self.breaker.pause)
        reason = getattr(ended.outcome, "reason", "")
        if isinstance(ended.outcome, Held):
            self.breaker.hold(now, reason)
            self._held_with = known_then  # a secret that has changed since is tried at once
            if is_probe or before[0] != "held":
                log.error("upstream.held", upstream=name, reason=reason, probe_in_s=round(self.breaker.wait(now)))
        elif ended.is_fault:
            asked = ended.outcome.after if isinstance(ended.outcome, Again) else None
            self.breaker.failed(now, is_probe=is_probe, asked=asked, reason=reason)
            if self.is_open and (is_probe or before[0] == "closed"):
                log.error("upstream.left_alone", upstream=name, reason=reason, probe_in_s=round(self.breaker.wait(now)))
        elif self.breaker.succeeded():
            log.info("upstream.back", upstream=name)
        if self.is_open:
            self._shut_at = self._now()
        if self.is_open and before[0] != self.breaker.state:
            self._shut()
        if (self.breaker.state, self.breaker.pause) != before:
            await self._keep()

    async def _keep(self) -> None:
        kept = self.breaker.kept()
        self._changes += 1
        change = self._changes

        def work(tx: Tx) -> None:
            tx.lock(self._note)
            note = tx.note(self._note) or {}
            tx.put_note(self._note, {**note, "breaker": kept})

        try:
            await self._store.write(work)
            self._kept = change
        except StoreError as error:
            log.error("store.unavailable", reason=str(error))


def _note(upstream: str) -> str:
    return f"upstream {upstream}"


def breaker_of(tx: Tx, upstream: str) -> Breaker:
    """The breaker of an upstream as last stored, which is done at every change."""
    return resumed((tx.note(_note(upstream)) or {}).get("breaker"))


def take(tx: Tx, upstream: Upstream, now: int, wanted: int) -> tuple[int, float]:
    """Takes up to `wanted` requests from the upstream's rate; returns how many, and the seconds until there is
    another."""
    bucket, note = _bucket(tx, upstream)
    taken = bucket.take(now, wanted)
    _put_bucket(tx, upstream, bucket, note)
    return taken, bucket.wait()


def owe(tx: Tx, upstream: Upstream, more: int) -> None:
    """Charges the rate for requests beyond the one taken for an attempt; negative returns what was taken in vain."""
    if upstream.rate is None or not more:
        return
    bucket, note = _bucket(tx, upstream)
    bucket.owe(more)
    _put_bucket(tx, upstream, bucket, note)


def spend(tx: Tx, upstream: Upstream, now: int, requests: int) -> None:
    """Charges the rate for reads, but leaves one request for the next delivery: polling, however frequent, must not
    keep alerts from being sent."""
    bucket, note = _bucket(tx, upstream)
    bucket.take(now, 0)
    bucket.level = max(min(bucket.level, 1.0), bucket.level - requests)
    _put_bucket(tx, upstream, bucket, note)


def keep_budget(tx: Tx, upstream: Upstream, budget: dict[str, Any]) -> None:
    """Stores what is left of the retry budget, in the transaction that records the retry's outcome. Locked by name, as
    in a transaction of several jobs only the first may wait: two transactions that each store the budgets of the same
    two upstreams could deadlock."""
    tx.lock(f"budget {upstream.name}")
    tx.put_note(f"budget {upstream.name}", budget)


def _bucket(tx: Tx, upstream: Upstream) -> tuple[Bucket, dict[str, Any]]:
    assert upstream.rate is not None
    tx.lock(f"rate {upstream.name}")
    note = tx.note(f"rate {upstream.name}") or {}
    return Bucket(per_minute=upstream.rate, level=note.get("level", 0.0), at=note.get("at", 0)), note


def _put_bucket(tx: Tx, upstream: Upstream, bucket: Bucket, note: dict[str, Any]) -> None:
    tx.put_note(f"rate {upstream.name}", {**note, "level": bucket.level, "at": bucket.at})
