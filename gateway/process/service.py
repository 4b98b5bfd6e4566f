"""The whole gateway put together under one configuration: store, dispatcher, desk, surface, and the endpoints for
probes, metrics and operators. It must not know any vendor."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.admin.admin import Admin
from gateway.admin.operations import Operator
from gateway.asked import Reply
from gateway.clock import Clock
from gateway.codes import Code
from gateway.config.config import Config
from gateway.config.store_url import without_credential
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.waiting import Waiters
from gateway.desk import calling
from gateway.desk.desk import Desk
from gateway.errors import ConfigurationError, Problem, StoreError
from gateway.ids import Ids
from gateway.inbound.surface import Surface
from gateway.metrics import Metrics, Stock
from gateway.process.housekeeping import Housekeeping
from gateway.process.lean import swept
from gateway.process.left_behind import warn_of_scopes, warn_of_upstreams
from gateway.process.timekeeping import Timekeeping
from gateway.road import unrecorded
from gateway.store import Store, Tx
from gateway.store.moved import left
from gateway.store.opening import open_store
from gateway.watch.trouble import commit, prove
from gateway.watch.watch import Watch

log = structlog.get_logger()
HOUSEKEEPING = 1.0
"""Seconds between two rounds of housekeeping."""
OPERATORS = ("/-/", "/metrics")
"""Prefixes of paths that are never a vendor's."""
DRAIN_SECONDS = 14.0
"""Seconds that deliveries under way have to end when the gateway stops."""
LONGEST_WAIT = 7_200.0
"""Seconds; longer than any upstream can ask us to wait before a delivery is tried again."""
STORE_PATIENCE = 2.0
"""Seconds that the metrics wait for the store: Prometheus waits ten for the metrics."""


def _stock(tx: Tx) -> Stock:
    """What the metrics show of the store: waiting deliveries and dead letters."""
    return Stock(tx.waiting(), tx.dead(but=Code.NO_UPSTREAM))


def _last(send: Any) -> Any:
    """Wraps `send` to close the connection after the answer: this process may not be there for the next request."""

    async def answering(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return answering


async def _began(store: Store) -> bool:
    """Notes that the gateway runs, on a store that only one gateway may use; returns whether the one before may have
    been killed. Without room for the note it may have been."""
    with contextlib.suppress(StoreError):
        return await store.write(unrecorded.begin if store.lease is None else unrecorded.arrive)
    return store.lease is None


async def _call_back(store: Store, now: int, config: Config) -> None:
    """Corrects what waits where the clock was set back since the last run, as at the start of a machine that does not
    keep the time: it would wait for as long, and nobody would be told, as nothing of the future is late. What is to
    come in any case, the turn of a fallback or a retry, stays when it is."""
    if store.lease is None:
        longest = max([LONGEST_WAIT, *(2 * one.retry.most for one in config.upstreams.values())])
        with contextlib.suppress(StoreError):
            await store.write(lambda tx: tx.call_back(now, int(longest * 1000)), is_long=True)


def own_name(tx: Tx) -> str:
    """The gateway's own name, made up at first: by it gateways that forward to each other recognise their own commands.
    Replicas share it, as they share the store."""
    tx.lock("gateway")
    found = tx.note("gateway")
    if not found:
        found = {"name": secrets.token_hex(8)}
        tx.put_note("gateway", found)
    return str(found["name"])


def fixed(config: Config) -> dict[str, Any]:
    """The settings, by name, that cannot change while a gateway serves."""
    stays = {name: getattr(config, name) for name in ("listen", "admin", "tls")}
    return {**stays, "store": without_credential(config.store)}


def takes_restart(names: list[str]) -> ConfigurationError:
    """The error for a configuration in which these settings have changed."""
    return ConfigurationError([f"{name}: takes a restart to change" for name in names])


class Gateway:
    """A gateway that can be started and stopped, and its applications: `app` for callers, `admin_app` for operators.
    Where operators have no address of their own, `app` serves them too. `reload_from_file` is set by whoever starts the
    gateway, and loads the configuration again."""

    def __init__(self, config: Config, store: Store | None = None) -> None:
        self.config = config
        self.store: Store = store or open_store(config.store, now=lambda: self.config.store_now)
        self.clock = Clock()
        self.metrics = Metrics()
        self.waiters = Waiters()
        self.calls = calling.Calls()
        self.is_draining = False
        self.dispatcher: Dispatcher | None = None
        self.desk: Desk | None = None
        self.watch: Watch | None = None
        self._ids: Ids | None = None
        self.housekeeping: Housekeeping | None = None
        self._name = ""
        self._surface: Surface | None = None
        self._described: bytes | None = None
        self.reload_from_file: Callable[[Operator], Awaitable[None]] | None = None
        self._admin = Admin(self)
        self.admin_app = Starlette(routes=self._routes())
        self._beside = Starlette(routes=[] if config.admin else self._routes(), lifespan=self._lifespan)
        self._beside.router.default = self._serve
        self._beside.router.redirect_slashes = False

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The application for callers. Their requests go straight to the surface, which answers every path, without
        Starlette's routing."""
        if scope["type"] == "http" and not scope["path"].startswith(OPERATORS):
            await self._serve(scope, receive, send)
        else:
            await self._beside(scope, receive, send)

    def _routes(self) -> list[Any]:
        return [
            Route("/-/healthy", self._healthy),
            Route("/-/ready", self._ready),
            Route("/-/openapi.json", self._admin.seen(self._openapi)),
            Route("/metrics", self._admin.seen(self._metrics)),
            *self._admin.routes(),
        ]

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._surface is not None
        await self._surface(scope, receive, _last(send) if self.is_draining else send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[dict[str, Any]]:
        """Runs the gateway, and passes the HTTP server the function that words a refusal."""
        if self.desk is not None:  # it runs already, for whoever serves this application
            yield {"words": self._words}
            return
        async with self.running():
            yield {"words": self._words}

    def _words(self, path: str, problem: Problem, host: str) -> Reply:
        assert self._surface is not None
        return self._surface.words(path, problem, host)

    @contextlib.asynccontextmanager
    async def running(self, opening: AbstractContextManager[None] | None = None) -> AsyncIterator[None]:
        """Opens the store (within `opening`), delivers what waits in it, and closes everything at the end."""
        async with contextlib.AsyncExitStack() as stack:
            with opening or contextlib.nullcontext():
                store = await stack.enter_async_context(self.store)
            if moved := await store.read(left):
                raise StoreError(moved.refusal)
            timekeeping = Timekeeping(self.clock, store)
            floor = await store.read(lambda tx: tx.largest_id())
            self._ids = Ids(slot=lambda: store.slot, floor=floor, clock=self.clock)
            self._name = await store.write(own_name)
            after_a_kill = await _began(store)
            await _call_back(store, self.clock(), self.config)
            self.dispatcher = Dispatcher(
                store,
                self.config.upstreams,
                self.waiters,
                self.metrics,
                self._name,
                self.clock,
                after_a_kill=after_a_kill,
            )
            self.watch = Watch(store, lambda: self.config, self.dispatcher, self.clock)
            self._use(self.config)
            self.housekeeping = Housekeeping(self, self.dispatcher, timekeeping)
            self.dispatcher.start()
            await self._warn_of_orphans()
            with contextlib.suppress(StoreError):
                await warn_of_scopes(self.store, self.config, frozenset())
                await warn_of_upstreams(self.store, self.config)
            tasks = [asyncio.create_task(self._keep_house(self.housekeeping)), asyncio.create_task(self.watch.run())]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await self.watch.leave()
                has_recorded_all = await self.dispatcher.stop(DRAIN_SECONDS)
                with contextlib.suppress(StoreError):
                    await self.calls.write(store)
                    if store.lease is None and has_recorded_all:
                        await store.write(unrecorded.end)

    def _use(self, config: Config) -> None:
        """Serves requests under this configuration from now on; those under way end under the one before."""
        assert self.dispatcher is not None and self._ids is not None
        full = self.desk.full if self.desk else False
        self.config = config
        self.desk = Desk(
            config,
            self.store,
            self.dispatcher,
            self.waiters,
            self.metrics,
            self._ids.next,
            now=self.clock,
            full=full,
            name=self._name,
        )
        self._surface = Surface(config, self.desk, self.calls)
        self._described = None
        self.metrics.serve(config.inbounds)

    async def reload(self, config: Config) -> None:
        """Changes to another configuration, as a whole. Raises `ConfigurationError`, and changes nothing, where that
        takes a restart."""
        served = fixed(self.config)
        if others := [name for name, value in fixed(config).items() if value != served[name]]:
            raise takes_restart(others)
        assert self.dispatcher is not None
        await self.dispatcher.admit(config.upstreams)
        before = self.config.scopes
        self._use(config)
        self.dispatcher.dismiss(config.upstreams)
        swept()
        with contextlib.suppress(StoreError):
            await self._warn_of_orphans()
            await warn_of_scopes(self.store, self.config, before)
            await warn_of_upstreams(self.store, self.config)

    def now(self) -> int:
        """Milliseconds since 1970, as everywhere in this gateway."""
        assert self.desk is not None
        return self.desk.now()

    def wake(self) -> None:
        """Has the dispatcher look at all lanes again, as an operator changed something in the outbox."""
        if self.dispatcher:
            for name in self.config.upstreams:
                self.dispatcher.wake(name)

    async def _warn_of_orphans(self) -> None:
        for one in await self.store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway"):
            if one.upstream not in self.config.upstreams:
                log.warning("upstream.unknown", upstream=one.upstream, waiting=one.count)

    async def _keep_house(self, housekeeping: Housekeeping) -> None:
        """Runs the housekeeping in rounds for ever."""
        while True:
            await housekeeping.round()
            await asyncio.sleep(HOUSEKEEPING)

    def show_upstreams(self) -> None:
        """Shows in the metrics how each upstream is."""
        assert self.dispatcher
        of = self.dispatcher
        self.metrics.upstreams(of.breakers(), of.budgets(), of.held_keys())

    # --- seen from outside -------------------------------------------------------------------------------

    async def _healthy(self, request: Request) -> Response:
        return PlainTextResponse("OK\n")

    async def _ready(self, request: Request) -> Response:
        """Ready means able to make an alert durable. Upstreams never count."""
        faults = []
        if self.is_draining:
            faults.append("draining")
        if self.dispatcher is None or not self.dispatcher.turns():
            faults.append("the dispatcher has stopped")
        try:
            await prove(self.store, 1.0)
        except StoreError as error:
            faults.append(f"the store takes no commits: {error}")
        breakers = self.dispatcher.breakers() if self.dispatcher else {}
        budgets = self.dispatcher.budgets() if self.dispatcher else {}
        keys = self.dispatcher.held_keys() if self.dispatcher else {}
        upstreams = {
            name: {
                "state": one.state,
                "reason": one.reason,
                "probe_in_s": round(one.wait(time.monotonic()), 1),
                "retries_left": round(budgets[name], 1),
                **({"keys_held": keys[name]} if keys[name] else {}),
            }
            for name, one in breakers.items()
        }
        held = [name for name, one in breakers.items() if one.state == "held"]
        detail = {"ready": not faults, "faults": faults, "held": held, "upstreams": upstreams}
        if not self._admin.knows(request):  # a probe without the token gets only the verdict
            detail = {"ready": not faults}
        return JSONResponse(detail, 503 if faults else 200)

    async def _openapi(self, request: Request) -> Response:
        if self._described is None:
            from gateway.openapi import describe

            self._described = msgspec.json.encode(describe(list(self.config.inbounds.values())))
        return Response(self._described, media_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        """Answers also while the store is unavailable: that is what the metrics have to show then. A store that takes
        no commits, as its disk is full or slow, can mostly still be read, and what waits is shown."""
        is_away, stock = False, None
        try:
            await commit(self.store, STORE_PATIENCE)
        except StoreError:
            is_away = True  # housekeeping logs it every second
        try:
            stock = await asyncio.wait_for(self.store.read(_stock, is_long=True, whose="gateway"), STORE_PATIENCE)
        except (StoreError, TimeoutError):
            is_away = True
        self.show_upstreams()
        store = self.store
        text = self.metrics.text(
            stock, self.now(), is_strained=store.is_strained, is_away=is_away, log_size=store.log_size
        )
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
