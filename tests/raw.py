"""Raw connections, for requests that no HTTP client would send: bytes go out as written, answers come one by one."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Heard:
    """One answer. `body` is decoded if it is JSON, else bytes."""

    status: int
    headers: dict[str, str]
    body: Any


class Wire:
    """A connection. A failure to send raises nothing, as the other side may close first."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def say(self, *pieces: bytes) -> bool:
        """Sends the pieces; returns whether all could be sent."""
        try:
            for piece in pieces:
                self._connection.sendall(piece)
        except OSError:
            return False
        return True

    def hear(self, *, head: bool = False) -> Heard | None:
        """Reads the next answer; returns None if the connection was closed. `head` says that it has no body."""
        line = self._line()
        if not line:
            return None
        headers = {}
        while (header := self._line()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if head else int(headers.get("content-length", "0"))
        text = self._file.read(length)
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        return Heard(int(line.split()[1]), headers, body)

    def _line(self) -> bytes:
        try:
            return self._file.readline()
        except ConnectionError:
            return b""

    def is_closed(self) -> bool:
        """Returns whether the other side closes without another byte; waits for at most the connection's timeout."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def say_no_more(self) -> None:
        """Closes this side of the connection alone."""
        self._connection.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Closes the connection in both directions."""
        self._file.close()
        self._connection.close()


@contextlib.contextmanager
def wire(url: str, timeout: float = 5.0) -> Iterator[Wire]:
    """Connects to a server; a read fails after `timeout` seconds."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=timeout) as connection:
        standing = Wire(connection)
        yield standing
        standing.hang_up()


def request(
    method: str, path: str, body: bytes | None = None, *headers: str, version: str = "1.1", length: bool = True
) -> bytes:
    """Returns a request as bytes: Host, `headers` as given, and Content-Length where there is a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: gateway", *headers]
    if body is not None and length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
