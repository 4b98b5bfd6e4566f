"""Sockets for tests that say what no HTTP client would: bytes go out as written, answers are read one by one."""

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
    """One answer as it came. `body` is decoded where it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any


class Wire:
    """A connection. What cannot be sent any more is not sent: the other side may hang up first."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def say(self, *pieces: bytes) -> bool:
        """Sends; tells whether everything could be sent."""
        try:
            for piece in pieces:
                self._connection.sendall(piece)
        except OSError:
            return False
        return True

    def hear(self, *, head: bool = False) -> Heard | None:
        """The next answer; None where the connection was closed instead. `head` says that it has no body."""
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
        """Whether the other side hangs up without another byte; waits for it as long as the connection's timeout."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def hang_up(self) -> None:
        """Closes the connection in both directions."""
        self._file.close()
        self._connection.close()


@contextlib.contextmanager
def wire(url: str, timeout: float = 5.0) -> Iterator[Wire]:
    """A connection to a server; reading waits at most `timeout` seconds, then fails."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=timeout) as connection:
        standing = Wire(connection)
        yield standing
        standing.hang_up()


def request(
    method: str, path: str, body: bytes | None = None, *headers: str, version: str = "1.1", length: bool = True
) -> bytes:
    """A request as bytes: `headers` as they are, Host before them, Content-Length after them where there is a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: gateway", *headers]
    if body is not None and length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
