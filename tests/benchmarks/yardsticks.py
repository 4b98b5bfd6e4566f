"""The servers and clients that the gateway is compared with, each in a process of its own.

`python -m tests.benchmarks.yardsticks KIND --port N`: `reading` is a Starlette route that reads the body, `coding` the
same with msgspec's decoding and encoding (what the table calls (c)), `taking` accepts everything and does nothing else,
`passing` forwards everything to `--to` with aiohttp, and `posting` is no server: it posts to `--to` for `--seconds`,
`--at-once` at a time, and prints how many a second were accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
import uvloop

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def plain(port: int, *, codes: bool) -> None:
    """Serves the route that is the unit for everything on the way in."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def take(request: Request) -> Response:
        body = await request.body()
        if codes:
            body = msgspec.json.encode(msgspec.json.decode(body))
        return Response(body, media_type="application/json")

    served = Starlette(routes=[Route("/{path:path}", take, methods=["POST"])])
    uvicorn.run(served, host="127.0.0.1", port=port, log_level="error", access_log=False)


class Taking(asyncio.Protocol):
    """A connection on which every request is accepted."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answers every complete request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._transport.write(ACCEPTED)


async def taking(port: int) -> None:
    """Accepts everything without looking at it."""
    server = await asyncio.get_running_loop().create_server(Taking, "127.0.0.1", port)
    await server.serve_forever()


async def passing(port: int, to: str) -> None:
    """Serves as a reverse proxy that does nothing else."""
    from aiohttp import web

    async with aiohttp.ClientSession() as session:

        async def hand_on(request: web.BaseRequest) -> web.Response:
            headers = {"content-type": request.content_type}
            async with session.request(
                request.method, to + request.path, data=await request.read(), headers=headers
            ) as answer:
                return web.Response(
                    status=answer.status, body=await answer.read(), headers={"content-type": answer.content_type}
                )

        server = await asyncio.get_running_loop().create_server(web.Server(hand_on), "127.0.0.1", port)
        await server.serve_forever()


async def posting(to: str, seconds: float, body: bytes, at_once: int) -> None:
    """Posts as fast as it is answered, and prints how many a second were accepted."""
    headers = {"content-type": "application/json", "authorization": "Bearer 0123456789abcdef"}
    answered = 0
    began = time.perf_counter()

    async def post_on(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        while time.perf_counter() < began + seconds:
            async with session.post(to, data=body, headers=headers) as answer:
                await answer.read()
                answered += answer.status < 300

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(post_on(session) for _ in range(at_once)))
    print(answered / (time.perf_counter() - began))


def main() -> None:
    """Serves or posts as the arguments say."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("kind", choices=["reading", "coding", "taking", "passing", "posting"])
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--to", default="")
    arguments.add_argument("--seconds", type=float, default=1.0)
    arguments.add_argument("--body", default="{}")
    arguments.add_argument("--at-once", type=int, default=8)
    given = arguments.parse_args()
    if given.kind in ("reading", "coding"):
        plain(given.port, codes=given.kind == "coding")
        return
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "taking": lambda: taking(given.port),
        "passing": lambda: passing(given.port, given.to),
        "posting": lambda: posting(given.to, given.seconds, given.body.encode(), given.at_once),
    }
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ways[given.kind]())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
