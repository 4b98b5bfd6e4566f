"""A pooler in front of PostgreSQL that lends its one session for a transaction, as PgBouncer does in transaction mode:
as much of one as it takes to be told from the server itself."""

from __future__ import annotations

import contextlib
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


class _Pool:
    """The one session, whose it is just now, and what the server said when it began."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        assert place.hostname and place.port
        self.server = socket.create_connection((place.hostname, place.port))
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
            if not self._welcome:
                self.server.sendall(greeting)
                said = b""
                while said[:1] != b"Z":
                    said = _message(self.server)
                    self._welcome += _ITS_OWN if said[:1] == b"K" else said
        client.sendall(self._welcome)

    def _lend(self, client: socket.socket, asked: bytes) -> None:
        """One transaction."""
        while True:
            self.server.sendall(asked)
            said = b""
            while asked[:1] in b"QS" and said[:1] != b"Z":
                said = _message(self.server)
                client.sendall(said)
            if said[:1] == b"Z" and said[5:] == b"I":
                return
            asked = _message(client)


@contextlib.contextmanager
def pooler(url: str) -> Iterator[str]:
    """The URL of a pooler in front of a database's."""
    pool = _Pool(url)
    with pool.server, socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=pool.serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        place = urlsplit(url)
        yield url.replace(f":{place.port}/", f":{listener.getsockname()[1]}/")
        listener.shutdown(socket.SHUT_RDWR)
