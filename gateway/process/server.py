"""Running an application under uvicorn: on a socket of our own, inside a running event loop.

It must not know what the application is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import uvicorn

from gateway.inbound.handshakes import Door
from gateway.inbound.protocol import EdgeProtocol


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; raises `OSError`, with the address, where it cannot be bound. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that it can see to be TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:  # the error has to name the address, as there may be several
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
    listener.setblocking(False)
    return listener


def server(
    app: Any, http: type[EdgeProtocol] = EdgeProtocol, tls: ssl.SSLContext | None = None, patience: int | None = None
) -> _Quiet:
    """A uvicorn server as this gateway wants it: with its own edge protocol, without access log, signal handling and
    WebSockets, and without trust in headers about where a request came from. `patience` is the seconds for which its
    shutdown waits for clients that are slow to send or to read."""
    config = uvicorn.Config(
        app,
        http=http,
        interface="asgi3",  # uvicorn takes a bound method for ASGI 2 otherwise
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("cache-control", "no-store")],  # or caches on the way answer, even to a readiness probe
        backlog=2048,
        timeout_graceful_shutdown=patience,
    )
    return _Quiet(config, tls, http)


class _Quiet(uvicorn.Server):
    """A server that leaves the process's signals to whoever runs the loop, and allows a TLS handshake as much time as a
    request's headers."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, http: type[EdgeProtocol]) -> None:
        super().__init__(config)
        self._tls = tls
        self._http = http

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, and serves it on the sockets."""
        if self._tls is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for one in sockets or ():
            seconds, room = self._http.header_seconds, self._http.room
            door = Door(one, self.config.backlog, self._protocol, self._tls, seconds, room)
            self.servers.append(cast("asyncio.Server", door))

    async def stop_listening(self, listener: socket.socket) -> None:
        """Stops listening, after accepting the connections in the backlog: closing the socket would reset these."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # no connection is left to accept, or too many files are open
            while self._tls is None:
                accepted, _ = listener.accept()
                await loop.connect_accepted_socket(self._protocol, accepted)
        for one in self.servers:
            one.close()

    def _protocol(self) -> asyncio.Protocol:
        http: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = http(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures nothing."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 0,
    http: type[EdgeProtocol] = EdgeProtocol,
    listener: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
    settle: float = 0.0,
    patience: int | None = None,
) -> AsyncIterator[str]:
    """Serves an application until the block ends; yields its URL. `listener` is a socket that is bound already; with
    `tls` only TLS is spoken there. For `settle` seconds after listening has ended, requests that were sent before are
    still answered; `patience` as for `server`."""
    listener = listener or bind(host, port)
    listener.setblocking(False)
    running = server(app, http, tls, patience)
    with listener:
        listener.listen(running.config.backlog)  # a failure is raised here: uvicorn with TLS counts as started before
        task = asyncio.create_task(running.serve([listener]))
        try:
            while not running.started:
                if task.done():
                    await task
                    raise RuntimeError("the application did not start")
                await asyncio.sleep(0.005)
            shown = f"[{host}]" if ":" in host else host
            yield f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}"
        finally:
            if settle:
                await running.stop_listening(listener)
                await asyncio.sleep(settle)
            running.should_exit = True
            await task
