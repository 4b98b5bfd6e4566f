"""The whole gateway put together under one configuration: store, dispatcher, desk, surface, and what is seen from
outside. It must not know any vendor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.config import Config
from gateway.delivery.dispatcher import Dispatcher
from gateway.desk import Desk
from gateway.errors import StoreError
from gateway.ids import Ids
from gateway.inbound.surface import Surface
from gateway.metrics import Metrics
from gateway.openapi import describe
from gateway.store import Store
from gateway.store.sqlite import SqliteStore
from gateway.waiting import Waiters

log = structlog.get_logger()
HOUSEKEEPING = 1.0
PURGE_EVERY = 60.0
PURGED_AT_ONCE = 500
DRAIN_SECONDS = 14.0


class Gateway:
    """A gateway that can be started and stopped, and its Starlette application."""

    def __init__(self, config: Config, store: Store | None = None) -> None:
        self.config = config
        self.store: Store = store or SqliteStore(config.store)
        self.metrics = Metrics()
        self.waiters = Waiters()
        self.is_draining = False
        self.dispatcher: Dispatcher | None = None
        self.desk: Desk | None = None
        self._surface: Surface | None = None
        self.app = Starlette(routes=self._routes(), lifespan=self._lifespan)
        # No Mount: its pattern does not match a line feed, and such a path would be answered in nobody's words.
        self.app.router.default = self._serve
        self.app.router.redirect_slashes = False

    def _routes(self) -> list[Any]:
        return [
            Route("/-/healthy", self._healthy),
            Route("/-/ready", self._ready),
            Route("/-/openapi.json", self._openapi),
            Route("/metrics", self._metrics),
        ]

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._surface is not None
        await self._surface(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[dict[str, Any]]:
        if self.desk is not None:  # whoever serves the application runs the gateway itself
            yield self._known_to_the_edge()
            return
        async with self.running():
            yield self._known_to_the_edge()

    def _known_to_the_edge(self) -> dict[str, Any]:
        """What the HTTP server may know of us: how a refusal is worded."""
        assert self._surface is not None
        return {"words": self._surface.words}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens the store, delivers what waits in it, and closes everything again at the end."""
        async with self.store as store:
            floor = await store.read(lambda tx: tx.largest_id())
            ids = Ids(floor=floor)
            self.dispatcher = Dispatcher(store, self.config.upstreams, self.waiters, self.metrics)
            self.desk = Desk(self.config, store, self.dispatcher, self.waiters, self.metrics, ids.next)
            self._surface = Surface(self.config, self.desk)
            self.dispatcher.start()
            for one in await store.read(lambda tx: tx.waiting()):
                if one.upstream not in self.config.upstreams:
                    log.warning("upstream.unknown", upstream=one.upstream, waiting=one.count)
            keeping = asyncio.create_task(self._keep_house(self.desk))
            try:
                yield
            finally:
                keeping.cancel()
                await self.dispatcher.stop(DRAIN_SECONDS)

    async def _keep_house(self, desk: Desk) -> None:
        """Counts what waits, and removes what has ended long ago, a small batch at a time."""
        purged = 0.0
        while True:
            try:
                waiting = await self.store.read(lambda tx: tx.waiting())
                most = self.config.max_waiting
                count, size = sum(one.count for one in waiting), sum(one.bytes for one in waiting)
                desk.full = count >= most.deliveries or size >= most.bytes
                if time.monotonic() - purged >= PURGE_EVERY:
                    purged = time.monotonic() if await self._purge(desk.now()) < PURGED_AT_ONCE else 0.0
            except StoreError as error:
                log.error("store.unavailable", reason=str(error))
            await asyncio.sleep(HOUSEKEEPING)

    async def _purge(self, now: int) -> int:
        before = now - int(self.config.retention * 1000)
        return await self.store.write(lambda tx: tx.purge(before, PURGED_AT_ONCE))

    # --- seen from outside -------------------------------------------------------------------------------

    async def _healthy(self, request: Request) -> Response:
        return PlainTextResponse("OK\n")

    async def _ready(self, request: Request) -> Response:
        """Ready means: can make an alert durable. Upstreams never count."""
        faults = []
        if self.is_draining:
            faults.append("draining")
        if self.dispatcher is None or not self.dispatcher.turns():
            faults.append("the dispatcher does not turn")
        try:
            await asyncio.wait_for(self.store.write(lambda tx: None), 1.0)
        except (StoreError, TimeoutError) as error:
            faults.append(f"the store takes no commits: {error}")
        held = [name for name in self.config.upstreams if self.dispatcher and self.dispatcher.is_held(name)]
        detail = {"ready": not faults, "faults": faults, "held": held}
        return JSONResponse(detail, 503 if faults else 200)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(describe(list(self.config.inbounds.values())))

    async def _metrics(self, request: Request) -> Response:
        assert self.desk and self.dispatcher
        waiting = await self.store.read(lambda tx: tx.waiting())
        held = frozenset(name for name in self.config.upstreams if self.dispatcher.is_held(name))
        text = self.metrics.text(waiting, self.config.upstreams, held, self.desk.now())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
