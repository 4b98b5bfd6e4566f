"""TLS in front of a plain server, with a self-made certificate, as users do for clients that insist on HTTPS.

It passes bytes on and knows nothing of the protocol inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import trustme


@dataclass(frozen=True)
class Front:
    """The address of the front, and the file with the authority that a client has to trust."""

    url: str
    authority: Path


@contextlib.contextmanager
def tls_before(url: str, directory: Path) -> Iterator[Front]:
    """Serves TLS on loopback in front of a plain server."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    behind = urlsplit(url)
    assert behind.hostname and behind.port
    serving = _Serving(context, behind.hostname, behind.port)
    thread = threading.Thread(target=asyncio.run, args=[serving.main()], daemon=True)
    thread.start()
    assert serving.started.wait(10), "the front did not start"
    try:
        yield Front(f"https://127.0.0.1:{serving.port}", directory / "ca.pem")
    finally:
        serving.end()
        thread.join(10)


class _Serving:
    """A running front: its connections, and the signal to end."""

    def __init__(self, context: ssl.SSLContext, host: str, port: int) -> None:
        self._context = context
        self._behind = (host, port)
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self.started = threading.Event()
        self.port = 0

    async def main(self) -> None:
        """Serves until told to end, and leaves no connection behind."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
        await self._stop.wait()
        server.close()
        for writers in self._connections.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*self._connections)
        await server.wait_closed()

    def end(self) -> None:
        """Ends the front; called from another thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        inner_reader, inner_writer = await asyncio.open_connection(*self._behind)
        self._connections[task] = [writer, inner_writer]
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
        del self._connections[task]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()
