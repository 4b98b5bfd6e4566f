"""Poolers in front of PostgreSQL: one that lends its one session for a transaction, as PgBouncer does in transaction
mode, as much of it as it takes to be told from the server itself; and one that lends sessions for as long as a client
stays, and then to the next, as PgBouncer does in session mode. A session whose client left it with a transaction open
is lent no more."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_NO_TLS = (80877103, 80877104)
_ITS_OWN = struct.pack("!cIII", b"K", 12, 7, 7)


def _exactly(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = end.recv(size - len(found))
        if not part:
            raise ConnectionError
        found += part
    return found


def _message(end: socket.socket) -> bytes:
    head = _exactly(end, 5)
    return head + _exactly(end, struct.unpack("!I", head[1:])[0] - 4)


def _greeting(end: socket.socket) -> bytes:
    """What a client says first, once it has been told that there is no TLS here."""
    while True:
        size = _exactly(end, 4)
        body = _exactly(end, struct.unpack("!I", size)[0] - 4)
        if struct.unpack("!I", body[:4])[0] not in _NO_TLS:
            return size + body
        end.sendall(b"N")


def _begun(url: str, greeting: bytes) -> tuple[socket.socket, bytes]:
    """A new session, and what the server said when it began."""
    place = urlsplit(url)
    assert place.hostname and place.port
    with contextlib.ExitStack() as unless_begun:
        server = unless_begun.enter_context(socket.create_connection((place.hostname, place.port)))
        server.sendall(greeting)
        said = welcome = b""
        while said[:1] != b"Z":
            said = _message(server)
            welcome += _ITS_OWN if said[:1] == b"K" else said
        unless_begun.pop_all()
    return server, welcome


class _One:
    """The one session, whose it is just now, and what the server said when it began."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._server: socket.socket | None = None
        self._lock = threading.Lock()
        self._welcome = b""

    def serve(self, client: socket.socket) -> None:
        """One client, to its end."""
        with contextlib.suppress(OSError), client:
            self._welcomes(client, _greeting(client))
            while True:
                asked = _message(client)
                if asked[:1] == b"X":
                    return
                with self._lock:
                    self._lend(client, asked)

    def _welcomes(self, client: socket.socket, greeting: bytes) -> None:
        with self._lock:
            if self._server is None:
                self._server, self._welcome = _begun(self._url, greeting)
        client.sendall(self._welcome)

    def _lend(self, client: socket.socket, asked: bytes) -> None:
        """One transaction."""
        assert self._server is not None
        while True:
            self._server.sendall(asked)
            said = b""
            while asked[:1] in b"QS" and said[:1] != b"Z":
                said = _message(self._server)
                client.sendall(said)
            if said[:1] == b"Z" and said[5:] == b"I":
                return
            asked = _message(client)
            if asked[:1] == b"X":
                self.close()
                self._server = None
                return

    def close(self) -> None:
        """Ends the session."""
        if self._server is not None:
            self._server.close()


class _Kept:
    """The sessions that nobody has."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[tuple[socket.socket, bytes]] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def serve(self, client: socket.socket) -> None:
        """One client, to its end."""
        with contextlib.suppress(OSError), client:
            greeting = _greeting(client)
            with self._lock:
                lent = self._idle.pop() if self._idle else None
            session, welcome = lent or _begun(self._url, greeting)
            client.sendall(welcome)
            is_idle = self._is_left_idle(client, session)
            with self._lock:
                if is_idle and not self._is_closed:
                    self._idle.append((session, welcome))
                else:
                    session.close()

    def _is_left_idle(self, client: socket.socket, session: socket.socket) -> bool:
        """Passes on what each of them says until the client leaves, and whether it left no transaction open."""
        said = b"Z....I"
        with contextlib.suppress(OSError):
            while True:
                if session in select.select([client, session], [], [])[0]:
                    said = _message(session)
                    client.sendall(said)
                elif (asked := _message(client))[:1] != b"X":
                    session.sendall(asked)
                else:
                    break
        return said[:1] == b"Z" and said[5:] == b"I"

    def close(self) -> None:
        """Ends the sessions."""
        with self._lock:
            self._is_closed = True
            for session, _ in self._idle:
                session.close()


@contextlib.contextmanager
def pooler(url: str, *, keeps_sessions: bool = False) -> Iterator[str]:
    """The URL of a pooler in front of a database's."""
    pool = _Kept(url) if keeps_sessions else _One(url)
    with contextlib.closing(pool), socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=pool.serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        place = urlsplit(url)
        yield url.replace(f":{place.port}/", f":{listener.getsockname()[1]}/")
        listener.shutdown(socket.SHUT_RDWR)
