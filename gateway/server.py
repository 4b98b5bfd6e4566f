"""Running an application under uvicorn: on a socket of our own, inside a running event loop.

It must not know what the application is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

from gateway.inbound.protocol import EdgeProtocol


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises `OSError` where the address cannot be had. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends small answers at once only where it sees that this is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def server(app: Any, http: type[EdgeProtocol] = EdgeProtocol) -> uvicorn.Server:
    """A uvicorn server as this gateway wants it: its own edge, no access log, no signals handled, no WebSockets, and
    no header believed about where a request came from."""
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
    )
    return _Quiet(config)


class _Quiet(uvicorn.Server):
    """A server that leaves the process's signals to whoever runs the loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures nothing."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: Any, host: str = "127.0.0.1", port: int = 0, http: type[EdgeProtocol] = EdgeProtocol
) -> AsyncIterator[str]:
    """Serves an application until the block ends; gives its address."""
    listener = bind(host, port)
    running = server(app, http)
    with listener:
        task = asyncio.create_task(running.serve([listener]))
        try:
            while not running.started:
                if task.done():
                    await task
                    raise RuntimeError("the application did not start")
                await asyncio.sleep(0.005)
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            await task
