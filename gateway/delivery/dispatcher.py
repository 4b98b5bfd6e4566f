"""The dispatcher: one set of lanes per upstream, each with its own task, connections and limits, so that one upstream's
trouble does not affect another. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from gateway.clock import Clock, uptime
from gateway.config.config import Upstream
from gateway.delivery.attempt import Client
from gateway.delivery.breaker import Breaker
from gateway.delivery.lanes import Lanes
from gateway.delivery.waiting import Waiters
from gateway.errors import StoreError
from gateway.metrics import Metrics
from gateway.road.settling import told_elsewhere
from gateway.store import Store

log = structlog.get_logger()


def _differs(old: Upstream, new: Upstream) -> bool:
    """Whether an upstream's configuration has changed. One whose keys are chosen by routes always counts as changed."""
    is_routed = any(one.keys is not None and one.keys.are_routed for one in (old, new))
    return old.written != new.written or is_routed


@dataclass(frozen=True)
class _Leaving:
    """Lanes of an upstream that was removed from the configuration, the task in which what is under way there ends, and
    the one that then closes its connections."""

    lanes: Lanes
    task: asyncio.Task[None]
    closing: asyncio.Task[None]


class Dispatcher:
    """Delivers everything that waits in `store` to its upstreams. `name` is the gateway's own, sent to other gateways
    so that no alert goes round in circles. `untold` holds the upstreams for which there may be dead letters from a time
    when they were not in the configuration, perhaps only in that of another replica. `after_a_kill` says that the last
    process on a store that keeps no claims may have left attempts unrecorded."""

    def __init__(
        self,
        store: Store,
        upstreams: Mapping[str, Upstream],
        waiters: Waiters,
        metrics: Metrics,
        name: str = "",
        now: Callable[[], int] | None = None,
        *,
        after_a_kill: bool = False,
    ) -> None:
        self._store = store
        self._waiters = waiters
        self._metrics = metrics
        self._own_name = name
        self._now = now or Clock()
        self._after_a_kill = after_a_kill
        self._lanes = {one: self._lanes_to(upstream) for one, upstream in upstreams.items()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._leaving: dict[str, _Leaving] = {}
        self._hinted: set[asyncio.Task[None]] = set()
        self.untold = set(upstreams)

    def _lanes_to(self, upstream: Upstream) -> Lanes:
        client = Client(upstream, self._own_name)
        return Lanes(self._store, client, self._waiters, self._metrics, self._now, after_a_kill=self._after_a_kill)

    def start(self) -> None:
        """Starts delivering."""
        for name in self._lanes:
            self._start(name)
        self._store.on_hint = self._hint
        if self._store.lease is not None:
            self._renewing = asyncio.create_task(self._renew(self._store.lease), name="leases")

    def _start(self, name: str) -> None:
        self._tasks[name] = asyncio.create_task(self._lanes[name].run(), name=f"to {name}")

    async def stop(self, within: float) -> bool:
        """Claims nothing more, and lets what is under way end within so many seconds before it is cancelled. Returns
        whether the store knows how everything ended that was sent."""
        everywhere = [*self._lanes.values(), *(one.lanes for one in self._leaving.values())]
        for lanes in everywhere:
            lanes.stopping = lanes.is_ending = True
            lanes.wake()
        tasks = [*self._tasks.values(), *(one.task for one in self._leaving.values())]
        if tasks:
            await asyncio.wait(tasks, timeout=within)
        tasks += [self._renewing] if self._renewing else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lanes in self._lanes.values():
            await lanes.client.aclose()
        await asyncio.gather(*(one.closing for one in self._leaving.values()))
        return all(lanes.has_recorded_all for lanes in everywhere)

    async def admit(self, upstreams: Mapping[str, Upstream]) -> None:
        """Takes new and changed upstreams into use; removed ones are left to `dismiss`."""
        for name, upstream in upstreams.items():
            if name in self._leaving:
                await self._take_back(name)
            if name not in self._lanes:
                self._lanes[name] = self._lanes_to(upstream)
                self._start(name)
                self.untold.add(name)
            elif _differs(self._lanes[name].client.upstream, upstream):
                self._lanes[name].use(Client(upstream, self._own_name))

    def dismiss(self, upstreams: Mapping[str, Upstream]) -> None:
        """Stops delivering to upstreams that are not among these any more. What waits for them stays in the store."""
        for name in [name for name in self._lanes if name not in upstreams]:
            lanes, task = self._lanes.pop(name), self._tasks.pop(name)
            lanes.stopping = True
            lanes.wake()
            self._leaving[name] = _Leaving(lanes, task, asyncio.create_task(self._let_go(lanes, task, name)))

    async def _let_go(self, lanes: Lanes, task: asyncio.Task[None], name: str) -> None:
        """Closes the connections of removed lanes once what is under way there has ended."""
        await asyncio.wait([task])
        await lanes.client.aclose()
        if name in self._leaving and self._leaving[name].lanes is lanes:
            del self._leaving[name]

    async def _take_back(self, name: str) -> None:
        """Takes up an upstream that is in the configuration again. While something is under way there its old lanes are
        used again: two sets of lanes to one upstream would keep no order, and a reload must not wait for an answer."""
        leaving = self._leaving.pop(name)
        if leaving.task.done():
            await leaving.closing
            return
        leaving.closing.cancel()
        self._lanes[name], self._tasks[name] = leaving.lanes, leaving.task
        leaving.lanes.stopping = False
        leaving.lanes.wake()
        self.untold.add(name)

    def wake(self, upstream: str) -> None:
        """Wakes the lanes of an upstream for which something new waits."""
        if lanes := self._lanes.get(upstream):
            lanes.wake()

    def has(self, upstream: str) -> bool:
        """Whether anything can be sent to this upstream: not once a reload has removed it, though requests that began
        before end under the configuration before."""
        return upstream in self._lanes

    def client(self, upstream: str) -> Client:
        """The client of an upstream, for reads."""
        return self._lanes[upstream].client

    def is_open(self, upstream: str) -> bool:
        """Whether only probes are sent to this upstream now."""
        lanes = self._lanes.get(upstream)
        return bool(lanes and lanes.gate.is_open)

    def is_left_alone(self, upstream: str) -> bool:
        """Whether nothing at all is sent to this upstream for now; once a probe is due, something may be."""
        lanes = self._lanes.get(upstream)
        return bool(lanes and lanes.gate.is_open and lanes.gate.breaker.wait(time.monotonic()) > 0)

    def breakers(self) -> dict[str, Breaker]:
        """The breaker of each upstream."""
        return {name: lanes.gate.breaker for name, lanes in self._lanes.items()}

    def budgets(self) -> dict[str, float]:
        """The retries that each upstream's budget allows now."""
        now = time.monotonic()
        return {name: max(0.0, lanes.gate.budget.refill(now)) for name, lanes in self._lanes.items()}

    def held_keys(self) -> dict[str, list[str]]:
        """The entries whose keys each upstream refuses, where it has one key per entry."""
        return {name: lanes.keys.held(lanes.client) for name, lanes in self._lanes.items()}

    def turns(self) -> bool:
        """Whether every task is still running."""
        renewing = [self._renewing] if self._renewing else []
        return all(not task.done() for task in (*self._tasks.values(), *renewing))

    # --- replicas ------------------------------------------------------------------------------------------

    async def _renew(self, lease: float) -> None:
        """Renews the leases of what is under way, for as long as the event loop runs."""
        while True:
            await asyncio.sleep(lease / 3)
            everywhere = [*self._lanes.values(), *(one.lanes for one in self._leaving.values())]
            claims = [row for lanes in everywhere for row in lanes.claims]
            began = uptime()
            try:
                held = await self._store.renew(claims)
                for lanes in everywhere:
                    lanes.renewed(held, began)
            except StoreError as error:
                log.error("store.unavailable", reason=str(error))

    def _hint(self, text: str) -> None:
        """Handles a hint from another replica: something waits, a verdict was recorded, or `untold` has to grow."""
        what, _, about = text.partition(" ")
        if what == "verdict" and about.isdigit() and self._waiters.is_waiting(int(about)):
            task = asyncio.create_task(self._look_up(int(about)))
            self._hinted.add(task)
            task.add_done_callback(self._hinted.discard)
        elif what == "untold" and about in self._lanes:
            self.untold.add(about)
        elif what == "wake" and about:
            self.wake(about)
        elif what == "wake":
            for lanes in self._lanes.values():
                lanes.wake()

    async def _look_up(self, command: int) -> None:
        """Passes verdicts that another replica recorded to the caller that waits for them."""
        with contextlib.suppress(StoreError):
            found = await self._store.read(lambda tx: told_elsewhere(tx, command))
            for upstream, verdict in found.items():
                self._waiters.verdict(command, upstream, verdict)
