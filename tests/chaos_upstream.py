"""A small upstream that misbehaves on purpose, over raw sockets: what a real network and a real vendor do on bad days.

A `Behaviour` is how one connection is treated; `Chaos` plays those that were planned, one per connection, and then what
`answer` returns for each request. It speaks just enough HTTP to read a request with a length, and closes every
connection after its answer. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from weakref import WeakSet


@dataclass(frozen=True)
class Got:
    """A request as it arrived, and when; headers by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes
    at: float

    @property
    def body(self) -> Any:
        """The decoded JSON body, None where there is none."""
        return json.loads(self.content) if self.content else None

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        return {name: values[-1] for name, values in parse_qs(self.content.decode()).items()}


@dataclass(frozen=True)
class Behaviour:
    """How one connection is treated. `reads` is whether the request is read first."""

    name: str
    act: Callable[[asyncio.StreamWriter], Awaitable[None]]
    reads: bool = True


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Chaos", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def say(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Gives an ordinary answer: JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    usual = {"content-type": "application/json", "content-length": str(len(content)), "connection": "close"}

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, {**usual, **(headers or {})}) + content)
        await writer.drain()

    return Behaviour(f"say {status}", act)


def redirect(to: str, status: int = 302) -> Behaviour:
    """Sends the client elsewhere."""
    return say(status, b"", {"location": to})


async def _forever(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {"content-type": "application/json", "content-length": "1000000"}))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _reset(writer: asyncio.StreamWriter) -> None:
    found: socket.socket = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    return


async def _garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff\x16\x03 this is not HTTP\r\n\r\n")
    await writer.drain()


async def _cut(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {"content-type": "application/json", "content-length": "500"}) + b'{"data": {"id')
    await writer.drain()


async def _interim(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)


async def _endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    line = b"x-more: " + b"a" * 1000 + b"\r\n"
    while True:
        writer.write(line)
        await writer.drain()


async def _endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx-more: ")
    while True:
        writer.write(b"a" * 65536)
        await writer.drain()


async def _bad_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {"transfer-encoding": "chunked"}) + b"zz\r\n{}\r\n-1\r\n\r\n")
    await writer.drain()


async def _endless_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {"content-type": "application/json", "transfer-encoding": "chunked"}))
    while True:
        writer.write(b"10000\r\n" + CHUNK + b"\r\n")
        await writer.drain()


async def _half_closed(writer: asyncio.StreamWriter) -> None:
    """Shuts its sending side in the middle of its answer, and keeps the connection open."""
    writer.write(_head(200, {"content-type": "application/json", "content-length": "500"}) + b"{")
    await writer.drain()
    writer.write_eof()
    await _forever(writer)


async def _half_closed_at_once(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    await _forever(writer)


async def _two_lengths(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 40\r\n\r\n{}")
    await writer.drain()


HANG = Behaviour("hang", _forever)
DRIP = Behaviour("drip", _drip)
DRIP_HEADERS = Behaviour("drip headers", _drip_headers)
RESET_BEFORE = Behaviour("reset before reading", _reset, reads=False)
RESET_AFTER = Behaviour("reset after reading", _reset)
CLOSE = Behaviour("close without answer", _close)
GARBAGE = Behaviour("garbage", _garbage)
CUT = Behaviour("cut off", _cut)
INTERIM = Behaviour("interim answers for ever", _interim)
ENDLESS_HEADERS = Behaviour("endless headers", _endless_headers)
ENDLESS_HEADER = Behaviour("one endless header", _endless_header)
BAD_CHUNKS = Behaviour("chunks that are none", _bad_chunks)
ENDLESS_CHUNKS = Behaviour("endless chunks", _endless_chunks)
HALF_CLOSED = Behaviour("half closed in its answer", _half_closed)
HALF_CLOSED_AT_ONCE = Behaviour("half closed before its answer", _half_closed_at_once)
TWO_LENGTHS = Behaviour("two lengths", _two_lengths)
NOT_JSON = say(200, b'{"data": {"id": oops')
CHUNK = b" " * 65536


def huge(size: int, written: list[int]) -> Behaviour:
    """Gives a 200 with a body of that size; how much of it the client read is appended to `written`."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"content-type": "application/json", "content-length": str(size)}))
        sent = 0
        try:
            while sent < size:
                writer.write(CHUNK)
                await writer.drain()
                sent += len(CHUNK)
        finally:
            written.append(sent)

    return Behaviour("huge", act)


def gzip_bomb(size: int) -> Behaviour:
    """Gives a small 200 that unpacks to that size."""
    packed = gzip.compress(b" " * size, 9)
    return say(200, packed, {"content-encoding": "gzip"})


Answer = Callable[[Got], Behaviour]


@dataclass
class Chaos:
    """The upstream. `got` lists the requests that were read; `connections` counts all connections."""

    answer: Answer
    url: str = ""
    got: list[Got] = field(default_factory=list)
    connections: int = 0
    _planned: deque[Behaviour] = field(default_factory=deque)
    _open: set[asyncio.Task[Any]] = field(default_factory=set)
    _writers: WeakSet[asyncio.StreamWriter] = field(default_factory=WeakSet)

    def plan(self, *behaviours: Behaviour) -> None:
        """Sets how the next connections are treated, one behaviour each, before `answer` is asked again."""
        self._planned.extend(behaviours)

    def always(self, behaviour: Behaviour) -> None:
        """Treats every connection so from now on."""
        self.answer = lambda got: behaviour

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            await self._one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        planned = self._planned.popleft() if self._planned else None
        if planned and not planned.reads:
            await planned.act(writer)
            return
        got = await _read(reader)
        self.got.append(got)
        await (planned or self.answer(got)).act(writer)

    async def end(self) -> None:
        """Ends the connections that are still open."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()  # unread data would keep it open
        await asyncio.sleep(0.01)


async def _read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Got(method, path, headers, content, time.monotonic())


@contextlib.contextmanager
def chaos(
    answer: Answer | Behaviour, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> Iterator[Chaos]:
    """Runs a chaos upstream on a free loopback port, from a thread of its own; with `context` it speaks TLS."""
    running = Chaos(lambda got: answer if isinstance(answer, Behaviour) else answer(got))
    started = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(running.serve, host, 0, ssl=context)
        running.url = f"{'https' if context else 'http'}://{host}:{server.sockets[0].getsockname()[1]}"
        box.update(loop=asyncio.get_running_loop(), stop=stop)
        started.set()
        await stop.wait()
        server.close()
        await running.end()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(10), "the chaos upstream did not start"
    try:
        yield running
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(10)
