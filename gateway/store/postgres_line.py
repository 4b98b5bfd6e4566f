"""Connections to PostgreSQL: how they are made, and how one that got stuck is cut.

A `Line` is one connection for one thread, made anew when it was lost. A server that was frozen, or a network that
silently drops, answers nothing and refuses nothing; so whoever asks says until when it waits, and a `Watch` cuts the
line of who waited longer. Passwords leave here to the server alone. It must not know what is asked.
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

from gateway.errors import StoreError
from gateway.secrets import MASK
from gateway.store.opening import is_torn, without_credential
from gateway.store.postgres_history import History, LeftBehind, Promotions, history_of

STATEMENT = 3.0
"""Seconds that a statement may take, by the server's clock."""
ANSWER = 4.0
"""Seconds that an answer is waited for, by ours: longer, so that a slow statement costs no connection."""
CONNECT = 2
"""Seconds that one host may take to let us in; libpq allows no less."""
IDLE = 5.0
"""Seconds after which the server ends a transaction that nobody goes on with: a replica that was frozen in the middle
of one must not keep its locks."""
PAUSE = 0.5
"""Seconds between two attempts to connect."""
TICK = 0.25
LOOKS = 20
"""How often is looked whether two connections have a session each, where there is a pooler."""

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
# Success means that it is on the disk (of the standbys too, where they are synchronous), whatever a database or a user
# has been set to.
_SETTINGS = b"""
SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply'
                  THEN 'remote_apply' ELSE 'on' END, false),
       set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('lock_timeout', '0', false),
       pg_backend_pid()
"""
# A network that drops silently leaves sessions behind, which count among those that the server admits: by its own
# settings, for two hours. And a plan that `_BY_INDEX` could not avert counts as so dear that the server would compile
# it to machine code, a fifth of a second for a millisecond's work. An engine in its place may not have these.
_IF_THERE = b"""
SELECT set_config(name, CASE name WHEN 'jit' THEN 'off' ELSE '5' END, false) FROM pg_settings
WHERE name IN ('tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'jit')
"""
# The statistics of an outbox are always of another hour: what the gateway asks for while it works has an index, and
# is looked up there whatever the planner believes.
_BY_INDEX = b"""
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_sort', 'off', false)
"""
# A pooler lends a session again, which leads where the name led when it was begun; but not one with a transaction open.
_TO_BE_LENT_NO_MORE = b"BEGIN"
_WAITS = b"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep')"


class Away(StoreError):
    """There is no connection, and just now none is to be had."""


class Address:
    """Where the server is, from a `postgresql://` URL with one host or several. `now` tells the URL as it is now: with
    another user or password, new connections are made with these; another place takes a restart. `fault` is why what
    it says now is not used. `promotions` tells which of them have been left behind, `otherwise` is what is connected
    with whatever the URL says."""

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
                "with what is special in a password percent-encoded, and after a ? only what libpq knows, as sslmode"
            ) from None
        self._passwords = {*self._passwords, str(found.get("password") or "")}
        known = {**_DEFAULTS, **{name: value for name, value in found.items() if value is not None}}
        # Whatever a database, a user or PGCLIENTENCODING is set to.
        return {**known, "client_encoding": "utf8", **self._otherwise}

    def _follow(self) -> None:
        url, self.fault = self._now() if self._now else self._url, ""
        if url in ("", self._url):
            return
        try:
            known = self._read(url)
        except StoreError:
            self.fault = "its URL cannot be read as it is now: what is special in a password has to be percent-encoded"
            return
        if without_credential(url) == without_credential(self._url):
            self._known, self._url = known, url
        else:
            self.fault = "its URL names another place now, which takes a restart"

    def __repr__(self) -> str:
        """Without the password, and without options that may hold another."""
        known = self._known
        user = f"{known['user']}@" if "user" in known else ""
        ports = str(known.get("port", "")).split(",")
        hosts = str(known.get("host") or known.get("hostaddr") or "localhost").split(",")
        places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports * len(hosts), strict=False)]
        return f"postgresql://{user}{','.join(places)}/{known.get('dbname', '')}"

    def connect(self, **otherwise: Any) -> psycopg.Connection[Any]:
        """A new connection to the first host that takes writes, some of it `otherwise` than usual; raises
        `psycopg.Error`, or `StoreError` for a URL that cannot be read any more."""
        self._follow()
        return psycopg.connect("", autocommit=True, **{**self._known, **otherwise})

    def places(self) -> list[dict[str, str]]:
        """Each host by itself, as `connect` is told of it: with nothing where there is one."""
        lists = {name: str(self._known.get(name) or "").split(",") for name in ("host", "hostaddr", "port")}
        many = max(len(lists["host"]), len(lists["hostaddr"]))
        if many == 1:
            return [{}]
        named = {name: found * many if len(found) == 1 else found for name, found in lists.items() if any(found)}
        return [{name: found[number] for name, found in named.items()} for number in range(many)]

    def masked(self, error: object) -> str:
        """What an error says, on one line, without a password that is or was used."""
        text = " ".join(str(error).split())
        for password in self._passwords:
            text = text.replace(password, MASK) if len(password) > 3 else text
        return text


class Line:
    """One connection of one thread, `by_index` for what asks little and often. `until` is when its answer is overdue,
    None while nothing is asked; `heard` when a journey last ended; `at_length` is for the one who may ask for something
    that takes minutes."""

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
        """The connection, made anew if it was lost. Raises `Away` where there is none: at once where one was tried for
        a moment ago, so that those who wait are not kept waiting."""
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
        """A connection to the server that was promoted last. Where several take writes, the first is not always it."""
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
        """Sees which of several hosts was promoted last, or whom one name leads to by now, so that all lines go there.
        Gives the connection up."""
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
            self._process = set_to[-1]  # what a pooler says at the beginning is a number of its own
            made.execute(_IF_THERE)
            if self._by_index:
                made.execute(_BY_INDEX)
        adapt(made)
        return made

    def _met(self, place: Mapping[str, str]) -> psycopg.Connection[Any]:
        """A connection whose server has said where it comes from."""
        made = self._address.connect(**place)
        with self._lock:
            # A descriptor of our own for the same socket: cutting it can never meet one that was used again.
            self._end = socket.fromfd(made.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            self._connection = made
            self._history = None
        with self.asking():
            self._history = history_of(made)
        self._address.promotions.note(self._history)
        return made

    def _lend_no_more(self, made: psycopg.Connection[Any]) -> None:
        """Has a pooler begin another session for the next who asks."""
        with contextlib.suppress(psycopg.Error), self.asking():
            made.execute(_TO_BE_LENT_NO_MORE)

    def _see_committed(self, made: psycopg.Connection[Any]) -> None:
        """Raises `StoreError` while the server still has the commit of the connection before. One that waits for a
        synchronous standby waits on when nobody is there any more: with a new connection for every commit there would
        soon be none left, for anybody."""
        if not self._committing:
            return
        with self.asking():
            [waits] = made.execute(_WAITS, (self._committing,)).fetchone() or (False,)
        if waits:
            self.look()  # it waits for ever where that standby has been promoted
            raise StoreError("it waits for a synchronous standby, with what was to be committed before")
        self._committing = 0

    def sees_its_session(self) -> bool:
        """Whether the session is this line's for as long as it has its connection: a pooler that lends one for a
        transaction gives the same to the next who asks. Where no pooler is seen, nothing is asked."""
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
        """Gives the connection up, whatever it waits for; a commit may be what that is."""
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
        """Ends what the owner waits for; from another thread."""
        with self._lock:
            if self._end is not None:
                with contextlib.suppress(OSError):
                    self._end.shutdown(socket.SHUT_RDWR)

    @property
    def is_made(self) -> bool:
        """Whether a connection was made, and nobody has noticed that it is lost; for other threads too."""
        return self._connection is not None

    @property
    def is_left_behind(self) -> bool:
        """Whether it leads to a server after which another one was promoted; for other threads too."""
        return self._address.promotions.is_over(self._history)

    @property
    def is_lost(self) -> bool:
        """Whether there is no connection any more."""
        return self._connection is None or self._connection.closed

    def masked(self, error: object) -> str:
        """What an error says, without the password."""
        return self._address.masked(error)

    @contextlib.contextmanager
    def asking(self, within: float = ANSWER) -> Iterator[None]:
        """While an answer is waited for."""
        self.until = time.monotonic() + within
        try:
            yield
        finally:
            self.until = None


class Watch:
    """Cuts lines whose answers are overdue, and those that lead to a server which was left behind."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._at_length = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="store-watch", daemon=True)

    def line(self, address: Address, *, by_index: bool = False) -> Line:
        """A new line to watch over."""
        line = Line(address, self._at_length, by_index=by_index)
        self._lines.append(line)
        return line

    def start(self) -> None:
        """Starts looking."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more, and gives all lines up. Their threads have ended."""
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
    """PostgreSQL keeps no NUL in a text, but callers may send one in a key: it travels behind a mark."""

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
    """One type for every number: a statement is prepared once, not once for each size of each number."""
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(str, _Text)
    connection.adapters.register_loader("text", _LoadText)
