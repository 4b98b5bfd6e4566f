"""An open-loop load: requests are due at a rate whatever becomes of the earlier ones, and the senders keep a ledger.

So a gateway that stands still is not spared the requests that it would have had. It must not know how a gateway is
started, or what it does with what it accepted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

CALLER_KEY = "chaos-caller-key-0123456789"
Fate = Literal["acknowledged", "refused", "unknown", "untaken"]
"""What a sender knows afterwards. Unknown: it was sent, and no answer came. Untaken: it could not even be sent."""


@dataclass(slots=True)
class Told:
    """One request and what its sender was told. `nonce` is its summary, and its key unless the gateway chooses that."""

    nonce: str
    word: str
    has_key: bool
    due: float
    sent: float = 0.0
    ended: float = 0.0
    status: int = 0
    alert: str = ""
    retry_after: str = ""
    fate: Fate = "untaken"

    def body(self) -> bytes:
        """The event, as ilert's callers write it."""
        event = {"apiKey": CALLER_KEY, "eventType": self.word, "summary": self.nonce}
        if self.has_key:
            event["alertKey"] = self.nonce
        return json.dumps(event).encode()


class Ledger:
    """All requests and their results. Those that could not be sent at all are counted and not kept."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.untaken = 0
        self.late = 0
        self._number = 0
        self._open: deque[str] = deque()

    def next(self, due: float) -> Told:
        """Returns the next request: an alert with a key, one without, or the end of one acknowledged earlier."""
        self._number += 1
        if self._number % 4 == 0 and len(self._open) > 20:
            return Told(self._open.popleft(), "RESOLVE", True, due)
        return Told(f"n-{self._number:07}", "ALERT", self._number % 4 != 1, due)

    def note(self, told: Told) -> None:
        """Records the result of a request."""
        if told.fate == "untaken":
            self.untaken += 1
            return
        self.told.append(told)
        if told.fate == "acknowledged" and told.word == "ALERT" and told.has_key:
            self._open.append(told.nonce)

    def of(self, fate: Fate) -> list[Told]:
        """Returns the requests with this fate."""
        return [one for one in self.told if one.fate == fate]

    def acknowledged(self) -> int:
        """Returns how many were acknowledged."""
        return sum(one.fate == "acknowledged" for one in self.told)


def quantile(values: list[float], share: float) -> float:
    """Returns the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Sender(asyncio.Protocol):
    """A kept-alive connection to `port` with one request under way at most."""

    def __init__(self, load: Load, port: int) -> None:
        self._load = load
        self.port = port
        self._told: Told | None = None
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, told: Told) -> None:
        """Sends a request; its result goes into the ledger."""
        body = told.body()
        head = b"POST /api/events HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n"
        self._told = told
        told.sent = time.monotonic()
        self._transport.write(head % len(body) + body)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].decode("latin-1").lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        whole = end + 4 + int(headers.get("content-length", "0"))
        if len(self._buffer) < whole:
            return
        told, self._told, self._buffer = self._told, None, self._buffer[whole:]
        assert told is not None, "an answer that nobody waits for"
        told.status = int(head[9:12])
        told.alert = headers.get("alert-gateway-id", "")
        told.retry_after = headers.get("retry-after", "")
        told.fate = "acknowledged" if told.status < 300 else "refused"
        self._end(told)
        if headers.get("connection", "") == "close":
            self._transport.close()
        else:
            self._load.idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._told is not None:
            told, self._told = self._told, None
            told.fate = "unknown"
            self._end(told)
        self._load.gone(self)

    def _end(self, told: Told) -> None:
        told.ended = time.monotonic()
        self._load.ledger.note(told)

    def close(self) -> None:
        """Aborts the connection, whatever is under way."""
        self._transport.abort()

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport.is_closing()


class Load:
    """Offers requests to one port at a rate. At most `most` are under way; one more is not sent, but counted as the
    client's lateness (`late` in the ledger)."""

    def __init__(self, ledger: Ledger, port: int, most: int = 256) -> None:
        self.ledger = ledger
        self.refusals: list[tuple[float, int]] = []
        self._port = port
        self._most = most
        self._idle: list[Sender] = []
        self._all: set[Sender] = set()
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def refused_connections(self) -> list[float]:
        """The times at which connections were refused."""
        return [at for at, _ in self.refusals]

    def places(self) -> Sequence[int]:
        """Returns the ports at which a new connection is tried, one after the other."""
        return (self._port,)

    def is_usable(self, sender: Sender) -> bool:
        """Returns whether a kept-alive connection may be used again."""
        return not sender.is_closing

    async def offer(self, rate: float, stop: asyncio.Event) -> None:
        """Offers until it is told to stop, then waits for the answers that are still to come."""
        began, issued = time.monotonic(), 0
        while not stop.is_set():
            due = int((time.monotonic() - began) * rate)
            for number in range(issued, due):
                self._issue(began + number / rate)
            issued = max(issued, due)
            await asyncio.sleep(0.004)
        end = time.monotonic() + 10
        while (self._opening or len(self._idle) < len(self._all)) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for sender in list(self._all):
            sender.close()
        await asyncio.sleep(0.02)

    def _issue(self, due: float) -> None:
        while self._idle:
            sender = self._idle.pop()
            if self.is_usable(sender):
                sender.send(self.ledger.next(due))
                return
            sender.close()
        if len(self._all) + len(self._opening) >= self._most:
            self.ledger.late += 1
            return
        task = asyncio.create_task(self._on_a_new_one(self.ledger.next(due)))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _on_a_new_one(self, told: Told) -> None:
        loop = asyncio.get_running_loop()
        for port in self.places():
            try:
                _, sender = await loop.create_connection(partial(Sender, self, port), "127.0.0.1", port)
            except OSError:
                self.refusals.append((time.monotonic(), port))
                continue
            self._all.add(sender)
            sender.send(told)
            return
        self.ledger.note(told)

    def idle(self, sender: Sender) -> None:
        """Takes back a connection whose request was answered."""
        self._idle.append(sender)

    def gone(self, sender: Sender) -> None:
        """Forgets a connection that was closed."""
        self._all.discard(sender)
        if sender in self._idle:
            self._idle.remove(sender)
