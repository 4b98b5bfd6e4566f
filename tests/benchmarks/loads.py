"""The load: closed, on a number of connections, each of which asks again as soon as it is answered.

It is made by wrk where that is installed, with a small script that makes every body different; otherwise by a generator
of our own. Which of the two matters little, as it is the same for both servers compared. It must not know what it asks.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.load import quantile

NUMBER = "{n}"
"""Placeholder for the request's number in a path or a body."""
SCRIPT = """
local first, most = %d, %d
local head, body, path, method = %s, %s, %s, %s
local count = 0
request = function()
    count = count + 1
    local text = string.format("%%07d", (first + count) * 7919 %% most)
    return wrk.format(method, (path:gsub("{n}", text)), head, (body:gsub("{n}", text)))
end
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
"""
_rounds = itertools.count(1)
LONGEST = 100_000
"""How many requests of one load have numbers that no other load uses, if `Question.most` allows."""


@dataclass(frozen=True)
class Question:
    """The request that is repeated. Its number takes all values below `most`, in an order of no help to an index."""

    path: str
    body: str = ""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    most: int = 10_000_000

    @property
    def head(self) -> dict[str, str]:
        """All its headers."""
        return {**({"content-type": "application/json"} if self.body else {}), **self.headers}


@dataclass(frozen=True)
class Heard:
    """The result of a load: `answers` is how many requests were accepted within `seconds`; `p50` and `p99` are their
    latencies in seconds; `refused` is how many others were refused. `used` is the server's processor time in seconds,
    if measured."""

    answers: int
    seconds: float
    p50: float
    p99: float
    refused: int = 0
    used: float = 0.0

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return self.answers / self.seconds

    @property
    def spent(self) -> float:
        """Processor seconds per accepted request."""
        assert self.answers, f"no request was accepted in {self.seconds:.1f} s"
        return self.used / self.answers


@functools.cache
def generator() -> str:
    """Returns the name of the generator used on this machine."""
    return "wrk" if shutil.which("wrk") else "the project's own generator"


def heard(url: str, question: Question, *, connections: int, seconds: float, room: Path) -> Heard:
    """Applies a load for `seconds`. Raises `AssertionError` if connections broke, as nothing was measured then."""
    first = next(_rounds) * LONGEST
    if generator() == "wrk":
        return _by_wrk(url, question, connections, seconds, room, first)
    return asyncio.run(_by_us(url, question, connections, seconds, first))


def _by_wrk(url: str, question: Question, connections: int, seconds: float, room: Path, first: int) -> Heard:
    script = room / f"load-{next(_rounds)}.lua"
    head = "{" + ", ".join(f"[{_lua(name)}] = {_lua(value)}" for name, value in question.head.items()) + "}"
    parts = (head, _lua(question.body), _lua(question.path), _lua(question.method))
    script.write_text(SCRIPT % (first, question.most, *parts))
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 60, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), "")
    assert line, f"wrk printed no result: {done.stdout[-500:]}{done.stderr[-500:]}"
    answers, took, p50, p99, refused, broken = map(int, line.split()[1:])
    assert not broken, f"{broken} connections to {url} broke"
    return Heard(answers - refused, took / 1e6, p50 / 1e6, p99 / 1e6, refused)


def _lua(text: str) -> str:
    """Returns a text as a Lua literal: its escapes are JSON's, except for letters beyond ASCII, left as they are."""
    return json.dumps(text, ensure_ascii=False)


class _Asking(asyncio.Protocol):
    """One connection of our own generator."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._load.next())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = self._buffer[end + 4 + length :]
        self._load.took.append(time.perf_counter() - self._sent)
        self._load.refused += not 200 <= int(head[9:12]) < 400
        if not self._load.is_over:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.broken += not self._load.is_over


class _Load:
    """State that the connections of our own generator share."""

    def __init__(self, host: str, question: Question, first: int) -> None:
        self.took: list[float] = []
        self.refused = 0
        self.broken = 0
        self.is_over = False
        self._question, self._host = question, host
        self._numbers = itertools.count(first + 1)

    def next(self) -> bytes:
        """Returns the next request, as bytes."""
        number = f"{next(self._numbers) * 7919 % self._question.most:07}"
        body = self._question.body.replace(NUMBER, number).encode()
        lines = [f"{self._question.method} {self._question.path.replace(NUMBER, number)} HTTP/1.1"]
        head = {"host": self._host, "content-length": str(len(body)), **self._question.head}
        lines += [f"{name}: {value}" for name, value in head.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def _by_us(url: str, question: Question, connections: int, seconds: float, first: int) -> Heard:
    host = url.partition("//")[2]
    name, _, port = host.partition(":")
    load = _Load(host, question, first)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [await loop.create_connection(lambda: _Asking(load), name, int(port)) for _ in range(connections)]
    await asyncio.sleep(seconds)
    load.is_over, took, ended = True, list(load.took), time.perf_counter()
    for transport, _ in opened:
        transport.abort()
    assert not load.broken, f"{load.broken} connections to {url} broke"
    return Heard(len(took) - load.refused, ended - began, quantile(took, 0.5), quantile(took, 0.99), load.refused)
