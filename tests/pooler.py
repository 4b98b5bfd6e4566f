"""Connection poolers in front of PostgreSQL. One lends its single session for a transaction, like PgBouncer in
transaction mode, imitated just enough to be told from the server itself; the other lends a session for as long as a
client stays, and then to the next, like PgBouncer in session mode. A session that a client left with a transaction open
is not lent again."""

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
    """Returns a client's startup message, after refusing TLS."""
    while True:
        size = _exactly(end, 4)
        body = _exactly(end, struct.unpack("!I", size)[0] - 4)
        if struct.unpack("!I", body[:4])[0] not in _NO_TLS:
            return size + body
        end.sendall(b"N")


def _begun(url: str, greeting: bytes) -> tuple[socket.socket, bytes]:
    """Opens a session; returns it with the server's first messages."""
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
    """A pool of one session, lent for one transaction at a time; its first messages are repeated to every client."""

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
        """Lends the session for one transaction, which begins with the message `asked`."""
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
    """A pool of sessions, each lent for as long as its client stays."""

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
        """Passes messages both ways until the client leaves; returns whether it left no transaction open."""
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
    """Runs a pooler in front of a database; yields its URL."""
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
