"""A sandbox: serves any dialect's own routes over a store in memory, as the vendor would, for the demonstration, for
trying things out without an account, and for tests. It is the gateway itself without upstreams, and a record of what
arrived. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from gateway.config.config import Config, Inbound, Waiting
from gateway.config.routing import Route
from gateway.config.secrets import Keyring, Secret
from gateway.dialect import Dialect
from gateway.errors import Problem
from gateway.inbound.limits import decode
from gateway.process.service import Gateway
from gateway.store.sqlite import SqliteStore


@dataclass(frozen=True)
class Arrived:
    """A request as it arrived: the path without the dialect's prefix, headers by lower-case name, the decoded body."""

    dialect: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Any


class Sandbox:
    """Serves every dialect below `/<dialect>`, with `key` as credential. `arrived` lists the requests, oldest first."""

    def __init__(self, dialects: Mapping[str, Dialect], key: str) -> None:
        self.arrived: list[Arrived] = []
        inbounds = {
            name: Inbound(
                dialect=dialect,
                keyring=Keyring({"gateway": [Secret(key)]}),
                callers=frozenset({"gateway"}),
                anonymous=False,
                scope=None,
                reply="accepted",
            )
            for name, dialect in dialects.items()
        }
        config = Config(
            listen=("127.0.0.1", 0),
            store=":memory:",
            retention=86_400.0,
            reply_timeout=5.0,
            max_body=1 << 20,
            max_waiting=Waiting(),
            inbounds=inbounds,
            upstreams={},
            routes=(Route(name="sandbox", from_=(), when=(), to=(), because="a sandbox forwards nothing"),),
            restores=False,
        )
        self.gateway = Gateway(config, SqliteStore(":memory:"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, and records it."""
        if scope["type"] != "http":
            await self.gateway.app(scope, receive, send)
            return
        body = bytearray()

        async def noting() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":  # recorded before anybody can have seen the answer
                self.arrived.append(_arrived(scope, bytes(body)))
            await send(message)

        await self.gateway.app(scope, noting, answering)


def _arrived(scope: Scope, body: bytes) -> Arrived:
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    _, dialect, rest = [*path.split("/", 2), "", ""][:3]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        shown = decode(body)
    except Problem:
        shown = body.decode("utf8", "replace")
    return Arrived(dialect, scope["method"], f"/{rest}", scope["query_string"].decode("latin-1"), headers, shown)
