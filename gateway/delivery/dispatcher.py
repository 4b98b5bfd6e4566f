"""The dispatcher: one set of lanes per upstream, each with its own task, connections and limits, so that one upstream's
trouble is never another's. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from gateway.clock import Clock
from gateway.config import Upstream
from gateway.delivery.attempt import Client
from gateway.delivery.breaker import Breaker
from gateway.delivery.lanes import Lanes
from gateway.errors import StoreError
from gateway.metrics import Metrics
from gateway.settling import told_elsewhere
from gateway.store import Store
from gateway.waiting import Waiters

log = structlog.get_logger()


def _differs(old: Upstream, new: Upstream) -> bool:
    """Whether an upstream has to be asked in another way than before; the keys that routes choose count too."""
    is_routed = any(one.keys is not None and one.keys.are_routed for one in (old, new))
    return old.written != new.written or is_routed


@dataclass(frozen=True)
class _Leaving:
    """Lanes of an upstream that is not in the configuration any more, the task in which what is under way there ends,
    and the one that closes its connections then."""

    lanes: Lanes
    task: asyncio.Task[None]
    closing: asyncio.Task[None]


class Dispatcher:
    """Delivers everything that waits in `store` to its upstreams. `name` is the gateway's own, told to other gateways
    so that no alert goes round in circles. In `untold` are upstreams for which something may lie that could not be told
    while they were not in the configuration: that of another replica, perhaps."""

    def __init__(
        self,
        store: Store,
        upstreams: Mapping[str, Upstream],
        waiters: Waiters,
        metrics: Metrics,
        name: str = "",
        now: Callable[[], int] | None = None,
    ) -> None:
        self._store = store
        self._waiters = waiters
        self._metrics = metrics
        self._own_name = name
        self._now = now or Clock()
        self._lanes = {one: self._lanes_to(upstream) for one, upstream in upstreams.items()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._leaving: dict[str, _Leaving] = {}
        self._hinted: set[asyncio.Task[None]] = set()
        self.untold = set(upstreams)

    def _lanes_to(self, upstream: Upstream) -> Lanes:
        return Lanes(self._store, Client(upstream, self._own_name), self._waiters, self._metrics, self._now)

    def start(self) -> None:
        """Starts delivering."""
        for name in self._lanes:
            self._start(name)
        self._store.on_hint = self._hint
        if self._store.lease is not None:
            self._renewing = asyncio.create_task(self._renew(self._store.lease), name="leases")

    def _start(self, name: str) -> None:
        self._tasks[name] = asyncio.create_task(self._lanes[name].run(), name=f"to {name}")

    async def stop(self, within: float) -> None:
        """Takes nothing more out of the outbox and lets what is under way end, for so many seconds."""
        for lanes in (*self._lanes.values(), *(one.lanes for one in self._leaving.values())):
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

    async def admit(self, upstreams: Mapping[str, Upstream]) -> None:
        """Takes new and changed upstreams into use; none is dismissed yet."""
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
        """Lets go of upstreams that are not among these any more. What waits for them waits on in the store."""
        for name in [name for name in self._lanes if name not in upstreams]:
            lanes, task = self._lanes.pop(name), self._tasks.pop(name)
            lanes.stopping = True
            lanes.wake()
            self._leaving[name] = _Leaving(lanes, task, asyncio.create_task(self._let_go(lanes, task, name)))

    async def _let_go(self, lanes: Lanes, task: asyncio.Task[None], name: str) -> None:
        """Closes the connections of lanes once what is under way there has ended."""
        await asyncio.wait([task])
        await lanes.client.aclose()
        if name in self._leaving and self._leaving[name].lanes is lanes:
            del self._leaving[name]

    async def _take_back(self, name: str) -> None:
        """An upstream is in the configuration again. While something is under way there it goes on with the lanes that
        it had: two sets of lanes to one upstream would keep no order, and a reload must not wait for an answer."""
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
        """Something new waits for this upstream."""
        if lanes := self._lanes.get(upstream):
            lanes.wake()

    def client(self, upstream: str) -> Client:
        """The client of an upstream, for reads."""
        return self._lanes[upstream].client

    def is_open(self, upstream: str) -> bool:
        """Whether nothing but probes is sent to this upstream now."""
        lanes = self._lanes.get(upstream)
        return bool(lanes and lanes.gate.is_open)

    def is_left_alone(self, upstream: str) -> bool:
        """Whether this upstream is asked nothing for now, as it would not answer; once a probe is due, it may be."""
        lanes = self._lanes.get(upstream)
        return bool(lanes and lanes.gate.is_open and lanes.gate.breaker.wait(time.monotonic()) > 0)

    def breakers(self) -> dict[str, Breaker]:
        """How things stand with each upstream."""
        return {name: lanes.gate.breaker for name, lanes in self._lanes.items()}

    def budgets(self) -> dict[str, float]:
        """How many retries each upstream may be asked for at once."""
        now = time.monotonic()
        return {name: max(0.0, lanes.gate.budget.refill(now)) for name, lanes in self._lanes.items()}

    def held_keys(self) -> dict[str, list[str]]:
        """Which keys each upstream refuses, by their entries, where it has one per entry."""
        return {name: lanes.held_keys for name, lanes in self._lanes.items()}

    def turns(self) -> bool:
        """Whether every task is still at work."""
        renewing = [self._renewing] if self._renewing else []
        return all(not task.done() for task in (*self._tasks.values(), *renewing))

    # --- replicas ------------------------------------------------------------------------------------------

    async def _renew(self, lease: float) -> None:
        """Holds on to what is under way, for as long as this process lives and turns."""
        while True:
            await asyncio.sleep(lease / 3)
            everywhere = [*self._lanes.values(), *(one.lanes for one in self._leaving.values())]
            claims = [row for lanes in everywhere for row in lanes.claims]
            began = time.monotonic()
            try:
                held = await self._store.renew(claims)
                for lanes in everywhere:
                    lanes.renewed(held, began)
            except StoreError as error:
                log.error("store.unavailable", reason=str(error))

    def _hint(self, text: str) -> None:
        """Another replica told something: what waits, or that a verdict was given."""
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
        """Passes on verdicts that another replica recorded."""
        with contextlib.suppress(StoreError):
            found = await self._store.read(lambda tx: told_elsewhere(tx, command))
            for upstream, verdict in found.items():
                self._waiters.verdict(command, upstream, verdict)
