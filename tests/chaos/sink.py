"""An upstream in a process of its own that records everything that arrives before it answers.

`python -m tests.chaos.sink --journal FILE` prints its address and serves until it is killed. How it answers is changed
while it runs: `POST /-/mood` with `{"status": 202, "delay": 0.005, "echoes": false, "token": "", "wants": ""}`. Status
0 records the request and then resets the connection; `echoes` puts the whole request into the answer; `token` is what
its identity service issues; `delays` are seconds by summary, for requests that take longer; a request without the key
in `wants` is answered 401. It speaks as much of ilert's events API as the gateway needs to deliver.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Arrival:
    """One request that arrived: when (monotonic), under which key, what it said, and how it was answered."""

    at: float
    key: str
    word: str
    summary: str
    status: int


class Taking(asyncio.Protocol):
    """A connection, kept alive; requests come one after another and have a length."""

    def __init__(self, mood: dict[str, Any], journal: IO[str]) -> None:
        self._mood = mood
        self._journal = journal
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Handles every complete request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        try:
            said = json.loads(body) if body else {}
        except ValueError:
            said = {}
        if head.startswith(b"POST /-/mood"):
            self._mood.update(said)
            self._answer(200, {})
            return
        if self._mood["token"] and b"/identity/token" in head:
            self._answer(200, {"access_token": self._mood["token"], "expires_in": 3600})
            return
        status = self._mood["status"] if self._mood["wants"] in (head + body).decode("utf8", "replace") else 401
        noted = [time.monotonic(), said.get("alertKey"), said.get("eventType"), said.get("summary"), status]
        self._journal.write(json.dumps(noted) + "\n")
        self._journal.flush()
        delay = self._mood["delays"].get(said.get("summary"), self._mood["delay"])
        asyncio.get_running_loop().call_later(delay, self._answer, status, self._says(head + body))

    def _says(self, request: bytes) -> dict[str, Any]:
        return {"message": request.decode("utf8", "replace")} if self._mood["echoes"] else {}

    def _answer(self, status: int, says: dict[str, Any]) -> None:
        if status == 0:
            found: socket.socket = self._transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            return
        body = json.dumps(says).encode()
        head = f"HTTP/1.1 {status} Noted\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def serve(journal: Path, delay: float) -> None:
    """Serves until the process ends."""
    mood = {"status": 202, "delay": delay, "echoes": False, "token": "", "delays": {}, "wants": ""}
    with journal.open("a") as file:
        server = await asyncio.get_running_loop().create_server(lambda: Taking(mood, file), "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


class Sink:
    """A running sink, as a harness sees it."""

    def __init__(self, url: str, journal: Path) -> None:
        self.url = url
        self._journal = journal

    def mood(self, **change: Any) -> None:
        """Changes how it answers from now on."""
        request = urllib.request.Request(f"{self.url}/-/mood", json.dumps(change).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()

    def count(self, word: str, summary: str) -> int:
        """Returns how often an event with this type and summary has arrived."""
        text = self._journal.read_text() if self._journal.exists() else ""
        return text.count(f", {json.dumps(word)}, {json.dumps(summary)}, ")

    def arrivals(self) -> list[Arrival]:
        """Returns everything that arrived, in the order it came."""
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        return [Arrival(*json.loads(line)) for line in lines]


@contextlib.contextmanager
def sink(directory: Path, delay: float = 0.002) -> Iterator[Sink]:
    """Runs a sink until the block ends."""
    journal = directory / "arrived.jsonl"
    command = [sys.executable, "-m", "tests.chaos.sink", "--journal", str(journal), "--delay", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ.copy()) as running:
        try:
            assert running.stdout
            url = running.stdout.readline().strip()
            assert url.startswith("http://"), "the sink did not start"
            yield Sink(url, journal)
        finally:
            running.kill()
            running.wait()


def main() -> None:
    """Serves as the arguments say."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--journal", type=Path, required=True)
    arguments.add_argument("--delay", type=float, default=0.0)
    given = arguments.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(given.journal, given.delay))


if __name__ == "__main__":
    main()
