"""Real servers for tests: a gateway, and a sandbox upstream for every dialect, each under uvicorn on loopback.

Nothing here pretends: requests go over HTTP, stores are files, and what an upstream received is what arrived there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.cli.sandbox import Arrived, Sandbox
from gateway.config.loading import parse
from gateway.process.server import serving
from gateway.process.service import Gateway
from gateway.registry import dialects
from tests.processes import wait_for

KEY = "caller-key-0123456789abcdef"
UPSTREAM_KEY = "upstream-key-0123456789abcdef"


@contextlib.contextmanager
def served(app: Any, port: int = 0) -> Iterator[str]:
    """Serves an ASGI application from a thread of its own; yields its address."""
    with served_together((app, port)) as (url,):
        yield url


@contextlib.contextmanager
def served_together(*apps: tuple[Any, int]) -> Iterator[list[str]]:
    """Serves ASGI applications, each on a port, from one event loop in a thread of its own; yields their addresses."""
    started: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        stop = asyncio.Event()
        box.update(loop=asyncio.get_running_loop(), stop=stop)
        async with contextlib.AsyncExitStack() as stack:
            box["urls"] = [await stack.enter_async_context(serving(app, port=port)) for app, port in apps]
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            box["error"] = error
            raise
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20), "the server did not start"
    if "error" in box:
        raise box["error"]
    try:
        yield box["urls"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


@dataclass
class Sent:
    """An answer of the gateway, decoded."""

    status: int
    body: Any
    headers: httpx.Headers

    @property
    def report(self) -> list[str]:
        """The lines of the report header."""
        return self.headers.get_list("alert-gateway-report")


@dataclass
class House:
    """A gateway, the sandbox that stands in for every vendor, and ways to call and inspect both."""

    url: str
    sandbox_url: str
    gateway: Gateway
    sandbox: Sandbox
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20, trust_env=False))

    def call(
        self, method: str, path: str, json: Any = None, *, key: str | None = KEY, headers: dict[str, str] | None = None
    ) -> Sent:
        """Calls the gateway, with the key, unless None, as a bearer token, as most vendors have it."""
        extra = {"authorization": f"Bearer {key}"} if key else {}
        answer = self.client.request(method, self.url + path, json=json, headers={**extra, **(headers or {})})
        body = answer.json() if answer.content else None
        return Sent(answer.status_code, body, answer.headers)

    def arrived(self, dialect: str, method: str | None = None) -> list[Arrived]:
        """Returns the requests that the sandbox received in a dialect; GET requests only if asked for by `method`."""
        return [
            one
            for one in list(self.sandbox.arrived)
            if one.dialect == dialect and (one.method == method if method else one.method != "GET")
        ]

    def wait_for(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Waits until a condition gives something true, and returns that; fails after `seconds`."""
        return wait_for(condition, seconds)

    def arrives(self, dialect: str, count: int) -> list[Arrived]:
        """Waits until `count` writing requests have arrived in a dialect, and returns them."""
        return list(self.wait_for(lambda: len(self.arrived(dialect)) >= count and self.arrived(dialect)))


def inbound_tables(names: list[str] | None = None) -> str:
    """Returns an `[inbound.…]` table for each of the dialects named, or for all."""
    return "\n".join(f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}' for name in names or dialects())


DEFAULTS = """
[upstreams.{name}.defaults]
resource = "mon_9"
"condition.expression" = "avg(timeAvg(uptime)) <= 0"
channels = [{{ kind = "slack", id = "C042" }}]
"""
"""Defaults with which an upstream of any dialect accepts an alert of any other."""


def upstream_table(name: str, dialect: str, sandbox_url: str, *, more: str = "", defaults: bool = True) -> str:
    """Returns an `[upstreams.…]` table that points to the sandbox."""
    table = f'[upstreams.{name}]\ndialect = "{dialect}"\nurl = "{sandbox_url}/{dialect}"\nkey = "{UPSTREAM_KEY}"\n'
    table += 'retry = { first = "20ms", most = "100ms" }\n'
    return table + more + (DEFAULTS.format(name=name) if defaults else "")


@contextlib.contextmanager
def house(
    directory: Path,
    upstreams: dict[str, str] | None = None,
    routes: str = "",
    *,
    config: Callable[[str], str] | None = None,
    inbounds: list[str] | None = None,
    top: str = "",
    defaults: bool = True,
    store: str = "",
) -> Iterator[House]:
    """Runs a gateway over a store in `directory`, or over the `store` named, with `upstreams` (name → dialect) in a
    sandbox of all dialects.

    `config` builds the whole configuration from the sandbox's address instead; `top` is put at its beginning.
    """
    sandbox = Sandbox(dialects(), UPSTREAM_KEY)
    with served(sandbox) as sandbox_url:
        if config:
            text = config(sandbox_url)
        else:
            tables = [
                upstream_table(name, dialect, sandbox_url, defaults=defaults)
                for name, dialect in (upstreams or {}).items()
            ]
            text = "\n".join([inbound_tables(inbounds), *tables, routes])
        store = store or f"sqlite://{directory}/gateway.db"
        gateway = Gateway(parse(f'store = "{store}"\n{top}\n{text}'))
        with served(gateway.app) as url:
            standing = House(url, sandbox_url, gateway, sandbox)
            with standing.client:
                yield standing
