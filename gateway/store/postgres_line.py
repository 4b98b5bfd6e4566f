"""Connections to PostgreSQL: how they are made, and how a stuck one is cut.

A `Line` is one connection of one thread, reconnected when it was lost. A frozen server, or a network that silently
drops packets, neither answers nor refuses; so each request sets a deadline on its line, and a `Watch` cuts lines whose
deadline has passed. Passwords are given to the server alone. It must not know what is asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumperUnknown, TextLoader

from gateway.config.secrets import MASK
from gateway.config.store_url import is_torn, without_credential
from gateway.errors import StoreError
from gateway.store.postgres_history import History, LeftBehind, Promotions, history_of

STATEMENT = 3.0
"""Seconds that a statement may take, as enforced by the server."""
ANSWER = 4.0
"""Seconds to wait for an answer, by our clock: longer, so that a slow statement does not cost the connection."""
CONNECT = 2
"""Seconds that connecting to one host may take; libpq allows no less."""
IDLE = 5.0
"""Seconds after which the server ends an idle transaction: a replica that was frozen in the middle of one must not keep
its locks."""
PAUSE = 0.5
"""Seconds between two attempts to connect."""
TICK = 0.25
LOOKS = 20
"""Number of checks whether two connections through a pooler have separate sessions."""

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8000,
    "target_session_attrs": "read-write",
    "application_name": "alert-gateway",
}
# A successful commit has to be on the disk (of synchronous standbys too), whatever settings the database or the user
# has.
_SETTINGS = b"""
SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply'
                  THEN 'remote_apply' ELSE 'on' END, false),
       set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('lock_timeout', '0', false),
       pg_backend_pid()
"""
# A network that silently drops packets leaves sessions behind, which count towards the server's connection limit: for
# two hours by the server's own settings. And the plan that `_BY_INDEX` could not avoid has so high a cost that the
# server would JIT-compile it, a fifth of a second for a millisecond's work. An engine in PostgreSQL's place may lack
# these.
_IF_THERE = b"""
SELECT set_config(name, CASE name WHEN 'jit' THEN 'off' ELSE '5' END, false) FROM pg_settings
WHERE name IN ('tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'jit')
"""
# The statistics of an outbox are always out of date: the gateway's frequent queries all have an index, and have to use
# it whatever the planner believes.
_BY_INDEX = b"""
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_sort', 'off', false)
"""
# A pooler reuses a session, which stays with the server that the name meant when it began; but not one with an open
# transaction.
_TO_BE_LENT_NO_MORE = b"BEGIN"
_WAITS = b"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep')"


class Away(StoreError):
    """There is no connection, and none can be made at the moment."""


class Address:
    """Where the server is, from a `postgresql://` URL with one host or several. `now` returns the current URL: a
    changed user or password is used for new connections; a changed place takes a restart. `fault` is why the current
    URL is not used. `promotions` knows which of the servers were left behind; `otherwise` are parameters that override
    the URL's."""

    def __init__(self, url: str, now: Callable[[], str] | None = None, **otherwise: Any) -> None:
        self._url = url
        self._now = now
        self._otherwise = otherwise
        self._passwords: set[str] = set()
        self._known = self._read(url)
        self.fault = ""
        self.promotions = Promotions()

    def _read(self, url: str) -> dict[str, Any]:
        try:
            if is_torn(url):
                raise psycopg.ProgrammingError("a part of a password is taken for a place")
            found = conninfo.conninfo_to_dict(url)
        except psycopg.Error:  # its message quotes from the URL
            raise StoreError(
                "cannot open the store: its URL cannot be read; write postgresql://user@host/database, "
                "with special characters of a password percent-encoded, and after a ? only libpq parameters, as sslmode"
            ) from None
        self._passwords = {*self._passwords, str(found.get("password") or "")}
        known = {**_DEFAULTS, **{name: value for name, value in found.items() if value is not None}}
        # The encoding is set here, whatever the database, the user or PGCLIENTENCODING say.
        return {**known, "client_encoding": "utf8", **self._otherwise}

    def _follow(self) -> None:
        url, self.fault = self._now() if self._now else self._url, ""
        if url in ("", self._url):
            return
        try:
            known = self._read(url)
        except StoreError:
            self.fault = "its new URL cannot be read: special characters of a password must be percent-encoded"
            return
        if without_credential(url) == without_credential(self._url):
            self._known, self._url = known, url
        else:
            self.fault = "its new URL differs in more than the credential, which requires a restart"

    def __repr__(self) -> str:
        """The URL without the password, and without options that may contain one."""
        known = self._known
        user = f"{known['user']}@" if "user" in known else ""
        ports = str(known.get("port", "")).split(",")
        hosts = str(known.get("host") or known.get("hostaddr") or "localhost").split(",")
        places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports * len(hosts), strict=False)]
        return f"postgresql://{user}{','.join(places)}/{known.get('dbname', '')}"

    def connect(self, **otherwise: Any) -> psycopg.Connection[Any]:
        """A new connection to the first host that takes writes, with the parameters in `otherwise` overridden. Raises
        `psycopg.Error`."""
        self._follow()
        return psycopg.connect("", autocommit=True, **{**self._known, **otherwise})

    def places(self) -> list[dict[str, str]]:
        """The parameters for `connect` that select each of the hosts; a single empty one where there is only one
        host."""
        lists = {name: str(self._known.get(name) or "").split(",") for name in ("host", "hostaddr", "port")}
        many = max(len(lists["host"]), len(lists["hostaddr"]))
        if many == 1:
            return [{}]
        named = {name: found * many if len(found) == 1 else found for name, found in lists.items() if any(found)}
        return [{name: found[number] for name, found in named.items()} for number in range(many)]

    def masked(self, error: object) -> str:
        """An error's message on one line, with every password masked that is or was used."""
        text = " ".join(str(error).split())
        for password in self._passwords:
            text = text.replace(password, MASK) if len(password) > 3 else text
        return text


class Line:
    """One connection of one thread; `by_index` makes its planner use indexes only, for small and frequent queries.
    `until` is the deadline of the current answer, None while none is awaited; `heard` is when a journey last ended;
    `at_length` is the lock to hold for a query that may take minutes."""

    def __init__(self, address: Address, at_length: threading.Lock, *, by_index: bool = False) -> None:
        self._address = address
        self._by_index = by_index
        self._connection: psycopg.Connection[Any] | None = None
        self._end: socket.socket | None = None
        self._lock = threading.Lock()
        self._history: History | None = None
        self._process = 0
        self._committing = 0
        self._refused_until = 0.0
        self._refusal = ""
        self.until: float | None = None
        self.heard = 0.0
        self.at_length = at_length

    def connection(self) -> psycopg.Connection[Any]:
        """The connection, made anew if it was lost. Raises `Away` if none can be made: at once if an attempt failed
        less than `PAUSE` ago, so that waiting callers are not delayed further."""
        if self._connection is not None and not self._connection.closed and not self.is_left_behind:
            return self._connection
        self.drop()
        if time.monotonic() < self._refused_until:
            raise Away(self._refusal)
        try:
            made = self._found()
            self._see_committed(made)
        except (psycopg.Error, OSError, StoreError) as error:  # too many files are open, for one
            self.drop()
            why = [self._address.masked(error), *([self._address.fault] if self._address.fault else [])]
            self._refusal = f"the store cannot be reached: {'; '.join(why)}"
            self._refused_until = time.monotonic() + PAUSE
            raise Away(self._refusal) from None
        return made

    def _found(self) -> psycopg.Connection[Any]:
        """A connection to the server that was promoted last: of several that take writes, not always the first."""
        try:
            made = self._made()
        except LeftBehind as error:
            made = self._made_elsewhere(error)
        self._address.promotions.serve(self._history)
        return made

    def _made_elsewhere(self, error: LeftBehind) -> psycopg.Connection[Any]:
        for place in self._address.places():
            self.drop()
            with contextlib.suppress(psycopg.Error, OSError, LeftBehind):
                return self._made(place)
        raise error

    def look(self, stop: threading.Event | None = None) -> None:
        """Finds out which of several hosts was promoted last, or which server a single name leads to now, so that all
        lines go there. Drops the connection."""
        seen: list[History] = []
        known = self._address.promotions.latest
        for place in self._address.places():
            self.drop()
            if stop is not None and stop.is_set():
                return
            with contextlib.suppress(psycopg.Error, OSError, StoreError):
                made = self._met({**place, "target_session_attrs": "any"})
                seen += [self._history] if self._history is not None else []
                self._lend_no_more(made)
        self.drop()
        self._address.promotions.compare(seen, known)

    def _made(self, place: Mapping[str, str] | None = None) -> psycopg.Connection[Any]:
        made = self._met(place or {})
        if self._history is not None and self.is_left_behind:
            self._lend_no_more(made)
            raise LeftBehind(self._address.promotions.why_not(self._history))
        with self.asking():
            set_to = made.execute(_SETTINGS, (f"{STATEMENT * 1000:.0f}", f"{IDLE * 1000:.0f}")).fetchone()
            assert set_to is not None
            self._process = set_to[-1]  # the number that a pooler gives on connecting is its own
            made.execute(_IF_THERE)
            if self._by_index:
                made.execute(_BY_INDEX)
        adapt(made)
        return made

    def _met(self, place: Mapping[str, str]) -> psycopg.Connection[Any]:
        """A new connection, with its server's history noted."""
        made = self._address.connect(**place)
        with self._lock:
            # A duplicate descriptor of the socket: cutting it cannot hit another file that reuses the number.
            self._end = socket.fromfd(made.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            self._connection = made
            self._history = None
        with self.asking():
            self._history = history_of(made)
        self._address.promotions.note(self._history)
        return made

    def _lend_no_more(self, made: psycopg.Connection[Any]) -> None:
        """Makes a pooler begin a new session for the next connection."""
        with contextlib.suppress(psycopg.Error), self.asking():
            made.execute(_TO_BE_LENT_NO_MORE)

    def _see_committed(self, made: psycopg.Connection[Any]) -> None:
        """Raises `StoreError` while the server still works on the commit of the previous connection. A commit that
        waits for a synchronous standby goes on waiting after its client is gone: with a new connection for every
        commit, the server would soon have none left for anybody."""
        if not self._committing:
            return
        with self.asking():
            [waits] = made.execute(_WAITS, (self._committing,)).fetchone() or (False,)
        if waits:
            self.look()  # it waits for ever if that standby was promoted
            raise StoreError("the previous commit still waits for a synchronous standby")
        self._committing = 0

    def sees_its_session(self) -> bool:
        """Whether this line keeps its session for as long as its connection: a pooler in transaction mode gives the
        same session to the next connection that asks. Without a sign of a pooler, returns True without asking."""
        made = self.connection()
        if made.info.backend_pid == self._process:
            return True
        other = Line(self._address, self.at_length)
        try:
            lines = (self.connection(), other.connection())
            with self.asking(LOOKS * ANSWER):
                found = [
                    [one.execute(b"SELECT pg_backend_pid()", prepare=False).fetchone() for one in lines]
                    for _ in range(LOOKS)
                ]
            return not any(one == another for one, another in found)
        finally:
            other.drop()

    def drop(self, *, is_committing: bool = False) -> None:
        """Drops the connection, whatever it waits for; `is_committing` if the server may still be committing."""
        self.until = None
        if is_committing:
            self._committing = self._process
        with self._lock:
            connection, self._connection = self._connection, None
            end, self._end = self._end, None
        if end is not None:
            end.close()
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def cut(self) -> None:
        """Shuts the socket down, which ends what the line's own thread waits for; called from another thread."""
        with self._lock:
            if self._end is not None:
                with contextlib.suppress(OSError):
                    self._end.shutdown(socket.SHUT_RDWR)

    @property
    def is_made(self) -> bool:
        """Whether there is a connection that is not known to be lost; may be called from other threads."""
        return self._connection is not None

    @property
    def is_left_behind(self) -> bool:
        """Whether it leads to a server after which another was promoted; may be called from other threads."""
        return self._address.promotions.is_over(self._history)

    @property
    def is_lost(self) -> bool:
        """Whether there is no connection any more."""
        return self._connection is None or self._connection.closed

    def masked(self, error: object) -> str:
        """An error's message with passwords masked."""
        return self._address.masked(error)

    @contextlib.contextmanager
    def asking(self, within: float = ANSWER) -> Iterator[None]:
        """Sets the deadline for the answer that is awaited in the block."""
        self.until = time.monotonic() + within
        try:
            yield
        finally:
            self.until = None


class Watch:
    """Cuts lines whose answers are overdue, and those that lead to a server that was left behind."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._at_length = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="store-watch", daemon=True)

    def line(self, address: Address, *, by_index: bool = False) -> Line:
        """A new line, which is watched from now on."""
        line = Line(address, self._at_length, by_index=by_index)
        self._lines.append(line)
        return line

    def start(self) -> None:
        """Starts watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stops watching and drops all lines, whose threads must have ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for line in self._lines:
            line.drop()

    def _look(self) -> None:
        while not self._stop.wait(TICK):
            now = time.monotonic()
            for line in list(self._lines):
                if line.is_left_behind or (line.until is not None and line.until < now):
                    line.cut()


# --- how values travel -----------------------------------------------------------------------------------------

_NUL, _MARK = "\x00", "\x10"


class _Text(StrDumperUnknown):
    """Escapes NUL, which PostgreSQL cannot store in a text although callers may send it in a key."""

    def dump(self, obj: str) -> Any:
        if _NUL in obj or _MARK in obj:
            obj = obj.replace(_MARK, _MARK + "1").replace(_NUL, _MARK + "0")
        return super().dump(obj)


class _LoadText(TextLoader):
    def load(self, data: Any) -> Any:
        text = super().load(data)
        assert isinstance(text, str)
        if _MARK in text:
            text = text.replace(_MARK + "0", _NUL).replace(_MARK + "1", _MARK)
        return text


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Sets how values are converted. All numbers get one type, so that a statement is prepared once, not once for each
    combination of their sizes."""
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(str, _Text)
    connection.adapters.register_loader("text", _LoadText)
