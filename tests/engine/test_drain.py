"""Draining at the end of a process: callers that are slow to send or to read do not hold it up. guarantees.md 16; the
long form, under load, is `python -m tests.chaos.drain`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.inbound.protocol import EdgeProtocol
from gateway.process.server import serving as serve
from gateway.process.service import DRAIN_SECONDS
from gateway.process.serving import LINGER, OPERATORS_PATIENCE, PATIENCE, SETTLE
from tests.chaos_upstream import HANG, chaos
from tests.engine.test_tls import soon
from tests.engine.vendors import OK, table
from tests.harness import KEY, inbound_tables
from tests.processes import serving

EXIT_WITHIN = 25.0
HEAD = (
    b"POST /ilert/api/events HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
)
CREATES = (
    b"POST /uptinio/alerts HTTP/1.1\r\nhost: here\r\nauthorization: Bearer %b\r\ncontent-length: 63\r\n\r\n"
    b'{"monitor_id": "mon_1", "type": "down", "message": "Disk full"}' % KEY.encode()
)
ASKS = b"GET /-/openapi.json HTTP/1.1\r\nhost: here\r\n\r\n"


APP = Starlette(routes=[Route("/", lambda request: PlainTextResponse("yes"))])


class Noted(EdgeProtocol):
    """Keeps the last connection that was made."""

    last: EdgeProtocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        Noted.last = self


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A caller's connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        yield connection


def never_reads(connection: socket.socket) -> None:
    """Asks for more than the buffers hold, and reads none of it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(ASKS * 30)


def test_an_answer_that_nobody_reads_is_not_kept_for_good() -> None:
    """A connection whose caller does not read its answer is closed, so that a long list does not stay in memory."""

    class Hasty(EdgeProtocol):
        unread_seconds = 0.1

    async def main() -> None:
        ended = asyncio.Event()

        async def much(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await APP(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(256):
                await send({"type": "http.response.body", "body": bytes(256 * 1024), "more_body": True})
                await asyncio.sleep(0)  # as a long list is sent
            await send({"type": "http.response.body"})
            ended.set()

        async with serve(much, http=Hasty) as url:
            with connected(url) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(ASKS)
                await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(main())


def test_who_reads_on_is_not_cut_off_later() -> None:
    async def main() -> None:
        async def much(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await APP(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"67108864")]})
            for _ in range(256):
                await send({"type": "http.response.body", "body": bytes(256 * 1024), "more_body": True})
            await send({"type": "http.response.body"})

        async with serve(much, http=Noted) as url:
            with connected(url) as connection:
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, ASKS)
                read = 0
                while read < 64 << 20:
                    read += len(await asyncio.wait_for(loop.sock_recv(connection, 1 << 20), 5))
                timer = Noted.last._unread
                assert timer is not None and timer.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("end", ["shutdown", "timeout_keep_alive_handler"])
def test_what_was_sent_at_the_last_moment_is_answered(begun: bytes, end: str) -> None:
    """A request that arrives while the loop is busy is answered, although the loop's next step is to close idle
    connections."""
    asked = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"

    def busy(writer: socket.socket) -> None:
        writer.sendall(asked.removeprefix(begun))
        getattr(Noted.last, end)()

    async def main() -> bytes:
        async with serve(APP, http=Noted, patience=3) as url:
            with connected(url) as connection:
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, asked + begun)
                first = await loop.sock_recv(connection, 10_000)
                assert first.endswith(b"yes")
                assert Noted.last.timeout_keep_alive > 600, "longer than Prometheus and balancers keep theirs"
                await asyncio.sleep(0.05)
                busy(connection)
                answer = await asyncio.wait_for(loop.sock_recv(connection, 10_000), 5)
                if end == "shutdown":
                    assert await asyncio.wait_for(loop.sock_recv(connection, 10_000), 2) == b"", "it was the last one"
                return answer

    assert asyncio.run(main()).endswith(b"yes")


def test_the_rest_of_a_request_may_follow_a_moment_after_the_end_has_begun() -> None:
    begun, rest = b"GET / HTTP/1.1\r\n", b"host: here\r\n\r\n"

    async def main() -> bytes:
        async with serve(APP, http=Noted, patience=3) as url:
            with connected(url) as connection:
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, begun + rest + begun)
                assert (await loop.sock_recv(connection, 10_000)).endswith(b"yes")
                await asyncio.sleep(0.05)
                Noted.last.shutdown()
                await asyncio.sleep(0.05)
                await loop.sock_sendall(connection, rest)
                return await asyncio.wait_for(loop.sock_recv(connection, 10_000), 5)

    assert asyncio.run(main()).endswith(b"yes")


def test_all_that_a_drain_may_wait_for_fits() -> None:
    assert LINGER + SETTLE + PATIENCE + OPERATORS_PATIENCE + DRAIN_SECONDS + 0.5 <= EXIT_WITHIN


def test_callers_that_wait_for_something_do_not_hold_up_the_end_and_are_answered(tmp_path: Path) -> None:
    """Whether they are slow to send or to read, or wait for what an upstream says for longer than a drain may take:
    they are answered in their vendor's words, and what is durable is a success."""
    config = tmp_path / "gateway.toml"
    with chaos(HANG) as upstream:
        top = f'store = "sqlite://{tmp_path}/gateway.db"\nreply_timeout = "60s"\n'
        there = table("oncall", upstream.url, "uptinio", timeout="6s")
        config.write_text(f"{top}{inbound_tables(['ilert', 'uptinio'])}\n{there}")
        with (
            serving(config) as running,
            connected(running.url) as sending,
            connected(running.url) as reading,
            connected(running.url) as waiting,
        ):
            sending.sendall(HEAD + b"{")
            never_reads(reading)
            waiting.sendall(CREATES)
            running.waits_for("command")
            soon(lambda: httpx.get(running.url + "/-/ready", timeout=30).status_code == 200)
            began = time.monotonic()
            running.signal(signal.SIGTERM)
            assert running.process.wait(40) == 0
            assert time.monotonic() - began < EXIT_WITHIN
            assert b" 201 " in (told := waiting.recv(10_000)) and b"Disk full" in told
            assert b" 503 " in (told := sending.recv(10_000)) and b'"message":"the gateway is shutting down' in told


def test_who_comes_after_the_end_was_asked_for_is_served_and_told_to_go_elsewhere(tmp_path: Path) -> None:
    """Balancers take a moment to notice that the gateway is no longer ready."""
    config = tmp_path / "gateway.toml"
    with chaos(OK) as upstream:
        there = table("oncall", upstream.url, "ilert")
        config.write_text(f'store = "sqlite://{tmp_path}/gateway.db"\n{inbound_tables(["ilert"])}\n{there}')
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full"}
        with serving(config) as running, httpx.Client(base_url=running.url) as caller:
            before = caller.get("/-/ready"), caller.post("/ilert/api/events", json=event)
            running.signal(signal.SIGTERM)
            running.waits_for("draining")
            after = caller.get("/-/ready"), caller.post("/ilert/api/events", json=event)
    assert [answer.status_code for answer in (*before, *after)] == [200, 202, 503, 202]
    assert after[0].json()["faults"] == ["draining"]
    assert (before[1].headers.get("connection"), after[1].headers.get("connection")) == (None, "close")


def test_where_many_are_connected_who_falls_idle_is_not_kept_for_long() -> None:
    class Crowded(Noted):
        many = 2

    async def main() -> list[int]:
        async with serve(APP, http=Crowded, patience=3) as url:
            loop, kept = asyncio.get_running_loop(), []
            with contextlib.ExitStack() as open_ones:
                for _ in range(2):
                    connection = open_ones.enter_context(connected(url))
                    connection.setblocking(False)
                    await loop.sock_sendall(connection, b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
                    assert (await loop.sock_recv(connection, 10_000)).endswith(b"yes")
                    kept.append(Noted.last.timeout_keep_alive)
            return kept

    first, second = asyncio.run(main())
    assert second < first


def test_a_connection_that_is_reset_leaves_nothing_behind() -> None:
    """The keep-alive timer of a reset connection is cancelled; it would keep the connection in memory until it
    fires."""

    async def main() -> None:
        async with serve(APP, http=Noted, patience=3) as url:
            with connected(url) as connection:
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
                assert (await loop.sock_recv(connection, 10_000)).endswith(b"yes")
                await asyncio.sleep(0.05)
                assert Noted.last.timeout_keep_alive_task is not None
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.sleep(0.1)
            assert Noted.last.timeout_keep_alive_task is None

    asyncio.run(main())
