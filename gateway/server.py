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
    """A listening socket; raises `OSError`, with the address, where that cannot be had. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends small answers at once only where it sees that this is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:  # of several addresses it has to be known which
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
    listener.setblocking(False)
    return listener


def server(
    app: Any, http: type[EdgeProtocol] = EdgeProtocol, tls: ssl.SSLContext | None = None, patience: int | None = None
) -> _Quiet:
    """A uvicorn server as this gateway wants it: its own edge, no access log, no signals handled, no WebSockets, and
    no header believed about where a request came from. `patience` is for how many seconds its end waits for whoever is
    slow to send or to read."""
    config = uvicorn.Config(
        app,
        http=http,
        interface="asgi3",  # a method is taken for something older otherwise
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("cache-control", "no-store")],  # or caches on the way answer who asks, whether we are ready too
        backlog=2048,
        timeout_graceful_shutdown=patience,
    )
    return _Quiet(config, tls, http.header_seconds)


class _Quiet(uvicorn.Server):
    """A server that leaves the process's signals to whoever runs the loop, and gives a TLS handshake as long as a
    request's headers."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, handshake: float) -> None:
        super().__init__(config)
        self._tls = tls
        self._handshake = handshake

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, and serves it on the sockets."""
        if self._tls is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for one in sockets or ():
            door = Door(one, self.config.backlog, self._protocol, self._tls, self._handshake)
            self.servers.append(cast("asyncio.Server", door))

    async def stop_listening(self, listener: socket.socket) -> None:
        """Listens no more, and takes in who has knocked already: a socket that is closed resets them."""
        loop = asyncio.get_running_loop()
        with listener.dup() as last:
            last.setblocking(False)
            for one in self.servers:
                one.close()
            with contextlib.suppress(OSError):  # nobody is left to take in
                while self._tls is None:
                    accepted, _ = last.accept()
                    await loop.connect_accepted_socket(self._protocol, accepted)

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
    """Serves an application until the block ends; gives its address. `listener` is a socket that is bound already; with
    `tls` nothing else is spoken there. For `settle` seconds between the end of listening and the end, what was sent is
    still answered; `patience` as for `server`."""
    listener = listener or bind(host, port)
    listener.setblocking(False)
    running = server(app, http, tls, patience)
    with listener:
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
