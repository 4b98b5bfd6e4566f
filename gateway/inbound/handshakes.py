"""Accepting TLS connections, with failed handshakes logged.

asyncio's own server reports none of these: a caller that does not trust our certificate, or has none of its own, would
never be noticed here. It must not know the protocol that is spoken over TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable

import structlog

from gateway.inbound.files import Room

log = structlog.get_logger()
SAID_AGAIN = 60.0
"""Seconds after which the same failure of the same peer is logged again."""
SAID_MOST = 20
"""The most lines logged within that time: scanners come from many addresses, and all of them fail."""
AT_ONCE = 64
"""Connections accepted before the event loop has another turn."""
PAUSE = 1.0
"""Seconds until connections are accepted again after that failed, as too many files are open."""

_WHY = {
    "HTTP_REQUEST": "the client speaks HTTP without TLS; its URL must begin with https://",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate, which tls.client_ca requires",
}


class Door:
    """A listening socket for TLS, used like an `asyncio.Server`. `protocol` makes the protocol of a connection, which
    has `seconds` for its handshake; where there is no `room` for its file, it is closed before that."""

    def __init__(
        self,
        listener: socket.socket,
        backlog: int,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext,
        seconds: float,
        room: Room,
    ) -> None:
        self._listener = listener
        self._backlog = backlog
        self._protocol = protocol
        self._tls = tls
        self._seconds = seconds
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._greeting: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._said: set[tuple[str, str]] = set()
        self._said_until = 0.0
        listener.listen(backlog)
        self._open()

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._let_in)

    def _let_in(self) -> None:
        """Accepts waiting connections, some at a time."""
        try:
            for _ in range(AT_ONCE):
                self._accept()
        except BlockingIOError:  # none is left, or another worker was quicker
            pass
        except OSError:  # too many files are open, which is no better at once
            self._loop.remove_reader(self._listener)
            self._paused = self._loop.call_later(PAUSE, self._open)

    def _accept(self) -> None:
        accepted, address = self._listener.accept()
        if not self._room.has(accepted.fileno()):
            accepted.close()
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._greet(accepted, address[0]))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, accepted: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, accepted, ssl=self._tls, ssl_handshake_timeout=self._seconds
            )
        except ssl.SSLError as error:
            self._say(peer, _why(error))
        except OSError:  # it left, or sent nothing, as the health checks of balancers do
            pass

    def _say(self, peer: str, reason: str) -> None:
        if (now := time.monotonic()) >= self._said_until:
            self._said.clear()
            self._said_until = now + SAID_AGAIN
        if (peer, reason) not in self._said and len(self._said) < SAID_MOST:
            self._said.add((peer, reason))
            log.warning("tls.failed", peer=peer, reason=reason)

    def close(self) -> None:
        """Stops listening, after accepting every connection in the backlog: closing the socket would reset these."""
        if self._listener.fileno() < 0:
            return
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener)
        with contextlib.closing(self._listener), contextlib.suppress(OSError):  # none is left, or too many files open
            for _ in range(self._backlog):
                self._accept()

    async def wait_closed(self) -> None:
        """Returns at once: the HTTP server keeps track of the connections."""


def _why(error: ssl.SSLError) -> str:
    """The reason of a failed handshake, for the log."""
    reason = error.reason or "the handshake failed"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    if "ALERT" in reason and ("CERT" in reason or "_CA" in reason):
        return f"the client does not accept the certificate in tls.cert: {_plain(reason)}"
    return _WHY.get(reason) or _plain(reason)


def _plain(reason: str) -> str:
    return reason.lower().replace("_", " ")
