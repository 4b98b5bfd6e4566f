"""A forward proxy for tests, over raw sockets: CONNECT tunnels, and requests in absolute form. It resolves names that
nothing else does (`names`), requires credentials if told to, and records what it was asked for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """The proxy. `asked` lists the request lines that it received; `refuses`, if set, is the status of every answer."""

    names: dict[str, tuple[str, int]]
    credentials: str = ""
    refuses: int = 0
    url: str = ""
    asked: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection: one request or tunnel."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        self._tasks.discard(task)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        self.asked.append(first)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        if self.credentials and headers.get("proxy-authorization") != expected:
            writer.write(b'HTTP/1.1 407 Who\r\nproxy-authenticate: Basic realm="x"\r\ncontent-length: 0\r\n\r\n')
        elif self.refuses:
            writer.write(f"HTTP/1.1 {self.refuses} No\r\ncontent-length: 0\r\n\r\n".encode())
        else:
            await self._pass_on(first, lines, reader, writer)
        await writer.drain()

    async def _pass_on(
        self, first: str, lines: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, target, version = first.split(" ")
        is_tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if is_tunnel else target)
        assert parts.hostname
        host, port = self.names.get(parts.hostname, (parts.hostname, parts.port or 80))
        there_reader, there = await asyncio.open_connection(host, port)
        if is_tunnel:
            writer.write(b"HTTP/1.1 200 Go\r\n\r\n")
        else:
            path = target[target.index("/", len("http://")) :]
            kept = [line for line in lines if not line.lower().startswith("proxy-")]
            there.write("\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode("latin-1"))
        pair = asyncio.gather(_copy(reader, there), _copy(there_reader, writer), return_exceptions=True)
        try:
            await pair
        finally:
            there.close()

    async def end(self) -> None:
        """Ends the connections that are still open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


@contextlib.contextmanager
def proxy(*, credentials: str = "", **names: str) -> Iterator[Proxy]:
    """Runs a proxy on a free loopback port. `names` are the addresses to which it resolves `NAME.test`."""
    known = {f"{name}.test": urlsplit(url) for name, url in names.items()}
    running = Proxy({name: (str(url.hostname), int(url.port or 0)) for name, url in known.items()}, credentials)
    started = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        box.update(loop=asyncio.get_running_loop(), stop=asyncio.Event())
        server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
        running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await box["stop"].wait()
        server.close()
        await running.end()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(10), "the proxy did not start"
    try:
        yield running
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(10)
