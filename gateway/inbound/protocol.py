"""The HTTP/1 edge of the gateway: takes requests as real and hostile senders write them, before their meaning is known.

uvicorn's protocol has no limit for headers and no deadline for a request. Added here: headers must be small and arrive
in time, a request that could be read in two ways is refused, an offer to upgrade the protocol is ignored, and after an
early answer enough of the request is still read that its sender gets to see the answer. It must not know any vendor:
the application may put a function `words` into the lifespan's state to word a refusal as a vendor does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from collections.abc import Callable
from typing import Any, cast

import httptools
import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.asked import Reply
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.inbound.files import Room
from gateway.inbound.limits import DROPPED, WHOLE

log = structlog.get_logger()

Words = Callable[[str, Problem, str], Reply]
"""Words a problem, given the path, of which perhaps only the beginning is known, and the Host header."""

ONLY_ONCE = (b"host", b"content-length", b"transfer-encoding", b"content-encoding", b"authorization")
"""Headers that must not be repeated: proxies disagree on which of two values counts."""


OTHERS = {
    b"\x16\x03": "TLS",
    b"PRI * HTTP/2": "HTTP/2",
    b"PROXY ": "the PROXY protocol",
    b"\r\n\r\n\x00\r\nQUIT\n": "the PROXY protocol",
}
"""First bytes of protocols that are not HTTP/1.1, as sent mostly by balancers that are configured for them, and their
names."""

NOTHING = bytes(4)
"""What the FIONREAD ioctl returns where nothing is to be read."""


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Its limits are attributes of the class, so that a subclass can override them."""

    headers_most = 32 * 1024
    """Bytes of the request line and headers, and of input that makes no progress: trailers, chunk extensions."""

    waiting_most = 32
    """Pipelined requests that may wait behind another on one connection: thousands fit into what is read at once, and
    parsing them all would keep everybody else waiting."""

    header_seconds = 10.0
    """Seconds from a request's first byte, or the connection's beginning, to the end of its headers."""

    idle_seconds = 620
    """Seconds for which a connection may be idle between requests: longer than clients (Prometheus: 300) and balancers
    (Google's: 600) keep theirs, so that they close first and no request arrives at a connection that is being closed;
    and no multiple of the intervals at which programs repeat themselves."""

    many, crowded_seconds = 500, 75
    """From `many` open connections on, a connection may be idle for `crowded_seconds` only: idle ones take what others
    need."""

    last_seconds = 1.0
    """Seconds, once the gateway stops, for the rest of the headers of a request that has begun to arrive."""

    linger_seconds = 10.0
    """Seconds for which the rest of a request that was already answered is read and dropped."""

    unread_seconds = 60.0
    """Seconds for which a caller may read nothing of an answer that is not sent whole: the rest lies in memory until
    then."""

    room = Room()
    """How many files connections may take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""
        self._edge: _Outgoing
        self._has_begun = False  # part of a request has arrived, but not all of its headers
        self._size = 0
        self._without_progress = 0
        self._dropped = 0
        self._is_whole = True  # no request is between the end of its headers and its own end
        self._is_refused = False
        self._is_ending = False  # the gateway stops: the next answer is the last one
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # --- the connection ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer for the first request's headers; answers go out, and the connection is closed, by
        `_Outgoing`."""
        super().connection_made(transport)
        self._edge = _Outgoing(self, transport)
        self.transport = cast("asyncio.Transport", self._edge)
        if self.room.has(transport.get_extra_info("socket").fileno()):
            self._wait_for_headers()
        else:
            self.abandon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the timers, which would keep the objects that they refer to alive until they fire."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Limits the time for which more is written than the caller reads."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_seconds, self._edge.abort)

    def resume_writing(self) -> None:
        """Lifts that limit: the caller has read on."""
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answers whole requests of a sender that has closed its side and still reads, as `nc -N` does: its alerts may
        be taken already. Under TLS, which knows no such halves, it closes."""
        cycle = self.pipeline[0][0] if self.pipeline else self.cycle
        is_answered = cycle is None or cycle.response_complete
        if is_answered or not self.is_whole or self.transport.get_extra_info("sslcontext"):
            return False
        cycle.keep_alive = False
        return True

    def shutdown(self) -> None:
        """Closes an idle connection at once, a busy one after its answer. A request sent at the last moment is answered
        too, though it may not have been read yet."""
        self._is_ending = True
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and (self._has_begun or self._has_unread()):
            self._stop_waiting()
            self._deadline = self.loop.call_later(self.last_seconds, self.abandon)
            return
        super().shutdown()
        if is_idle:
            self.abandon()

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection that was idle for too long, unless something has just arrived."""
        if not self._has_unread():
            super().timeout_keep_alive_handler()

    def _has_unread(self) -> bool:
        """Whether bytes have arrived that are still in the operating system's buffer: closing now would lose them."""
        socket = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError, ValueError):  # the socket is closed already
            return bool(fcntl.ioctl(socket.fileno(), termios.FIONREAD, NOTHING) != NOTHING)
        return False

    def abandon(self) -> None:
        """Closes the connection, whatever may still arrive."""
        self._is_refused = True
        self._stop_waiting()
        self._edge.now()

    def _wait_for_headers(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(self.header_seconds, self._headers_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _headers_late(self) -> None:
        if self._has_begun:
            seconds = f"{self.header_seconds:g} s"
            self._refuse(Problem(ProblemKind.TIMEOUT, f"the request's headers did not arrive within {seconds}"))
        else:
            self.abandon()

    # --- bytes -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parses the bytes that arrived; refuses what cannot be read in exactly one way, and what makes no progress."""
        self._unset_keepalive_if_required()
        if self._is_refused:
            self._drop(len(data))
            return
        if self._is_whole and self._deadline is None:
            self._wait_for_headers()
        self._without_progress += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.problem)
            else:
                self._refuse(Problem(ProblemKind.MALFORMED, _unreadable(data, error)))
            return
        if self._without_progress > self.headers_most:
            self._refuse(self._too_large())

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser takes what follows for another protocol: a new parser is fed the head without the offer.
                head = self._without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
                data = data[upgrade.args[0] :]
            else:
                return

    def _without_offer(self) -> bytes:
        """Returns the head that was parsed last, without its offer to upgrade the protocol."""
        version = self.parser.get_http_version().encode("ascii")
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        offer = (b"upgrade", b"http2-settings", b"connection")
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name not in offer]
        said = b",".join(value.lower() for name, value in self.headers if name == b"connection")
        if b"close" in [token.strip() for token in said.split(b",")]:
            lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # --- what the parser found ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._has_begun = True
        self._size = 0
        self._dropped = 0
        if self._deadline is None:
            self._wait_for_headers()

    def on_url(self, url: bytes) -> None:
        """The request's target, or a piece of it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer; trailers are dropped."""
        self._count(len(name) + len(value) + 4)
        if self._is_whole:
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self.headers_most:
            raise _Refused(self._too_large())

    def _too_large(self) -> Problem:
        return Problem(ProblemKind.HEADERS_TOO_LARGE, f"the headers are larger than {self.headers_most} bytes")

    def on_headers_complete(self) -> None:
        """The headers are complete: an ambiguous request is refused, any other is served."""
        self._check()
        self._without_progress = 0
        if self.parser.should_upgrade():
            return
        if self.transport.is_closing():
            raise _Refused(Problem(ProblemKind.MALFORMED, "data follows the last request of the connection"))
        if len(self.pipeline) >= self.waiting_most:
            raise _Refused(Problem(ProblemKind.OVERLOADED, "too many requests wait on this connection"))
        self._has_begun = False
        self._stop_waiting()
        super().on_headers_complete()
        self._is_whole = False
        if self._is_ending:
            self.cycle.keep_alive = False
        if self.expect_100_continue:
            # After an early answer the sender may send the body or not: what comes next could be it or a new request.
            self.cycle.keep_alive = False

    def _check(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _Refused(Problem(ProblemKind.MALFORMED, f"HTTP/{version} is not supported; use HTTP/1.1"))
        if self.parser.get_method() == b"CONNECT":
            raise _Refused(Problem(ProblemKind.METHOD_NOT_ALLOWED, "this is not a forward proxy"))
        names = [name for name, _ in self.headers]
        for name in ONLY_ONCE:
            if names.count(name) > 1:
                raise _Refused(Problem(ProblemKind.MALFORMED, f"the header {name.decode()} occurs more than once"))
        coding = dict(self.headers).get(b"transfer-encoding", b"chunked")
        if coding.strip().lower() != b"chunked" or (version == "1.0" and b"transfer-encoding" in names):
            raise _Refused(Problem(ProblemKind.MALFORMED, "only Transfer-Encoding chunked, of HTTP/1.1, is supported"))

    def on_body(self, body: bytes) -> None:
        """A piece of the body; dropped if the request was answered already."""
        self._without_progress = 0
        if self.cycle.response_complete:
            self._drop(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._without_progress = 0
        if self.parser.should_upgrade():
            return
        self._is_whole = True
        self.scope.setdefault("extensions", {})[WHOLE] = {}
        self.url = b""
        self._stop_waiting()
        super().on_message_complete()
        self._edge.whole()

    # --- answers -----------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """An answer is complete; if the rest of its request is still to come, the time for that is limited."""
        self._edge.send()
        self.timeout_keep_alive = self.idle_seconds if len(self.connections) < self.many else self.crowded_seconds
        super().on_response_complete()
        if self.cycle.response_complete and not self._is_whole:
            self.linger()

    def linger(self) -> None:
        """Keeps reading for a while, so that the sender sees the answer: closing now could take it away."""
        self._stop_waiting()
        self._deadline = self.loop.call_later(self.linger_seconds, self.abandon)
        self.flow.resume_reading()

    @property
    def is_whole(self) -> bool:
        """Whether nothing of a request is still expected."""
        return self._is_whole and not self._is_refused

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > DROPPED:
            self.abandon()

    def _refuse(self, problem: Problem) -> None:
        """Answers what never becomes a request, or never a whole one, and closes; earlier answers go out first."""
        self._is_refused = True
        self._stop_waiting()
        self._dropped = 0
        if self.transport.is_closing():
            self.abandon()
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._is_whole:
                _note(problem)
                cycle.keep_alive = False
                return
            if self.pipeline or cycle.response_started:
                _note(problem)
                self.abandon()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif not self._is_whole:
            _note(problem)
            self.abandon()
            return
        reply = self._worded(problem)
        _note(problem, reply.headers.get("Alert-Gateway-Id"))
        self.transport.write(_answer(reply))
        self.transport.close()

    def _worded(self, problem: Problem) -> Reply:
        words: Words | None = self.app_state.get("words")
        if words is None or not self.url.startswith(b"/"):
            return Reply(USUAL_STATUS[problem.kind], {"message": problem.message})
        host = dict(self.headers).get(b"host", b"").decode("latin-1")
        return words(self.url.partition(b"?")[0].decode("latin-1"), problem, host)


def _unreadable(data: bytes, error: Exception) -> str:
    """Why this cannot be parsed; another protocol that is recognised is named, for the sender and for the log."""
    for begin, name in OTHERS.items():
        if data.startswith(begin):
            return f"this is {name}, which is not supported; use HTTP/1.1"
    return f"this is not an HTTP/1.1 request: {error}"


def _note(problem: Problem, request: str | None = None) -> None:
    """Logs a refusal, with the request id that its answer has, if there is one."""
    log.info("request.refused", reason=problem.message, kind=problem.kind.value, request=request)


def _answer(reply: Reply) -> bytes:
    body = msgspec.json.encode(reply.body)
    lines = [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
    lines += [f"{name.lower()}: {value}".encode("latin-1", "replace") for name, value in reply.headers.items()]
    return STATUS_LINE[reply.status] + b"\r\n".join(lines) + b"\r\n\r\n" + body


class OperatorsProtocol(EdgeProtocol):
    """One connection to the operators' own address, which may take the files that callers have to leave."""

    room = Room(kept=0)


class _Outgoing:
    """A transport that sends what is written in one turn of the event loop, such as an answer's head and body, in one
    piece, and whose `close` waits, within the connection's limits, for the rest of a request that was answered
    early."""

    def __init__(self, connection: EdgeProtocol, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._is_closing = False
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Buffers the data, to be sent together with what else is written in this turn of the event loop."""
        if not self._written:
            self._connection.loop.call_soon(self.send)
        self._written.append(data)

    def send(self) -> None:
        """Sends what is buffered."""
        if self._written and not self._transport.is_closing():
            self._transport.write(b"".join(self._written))
        self._written.clear()

    def is_closing(self) -> bool:
        """Whether the connection serves nothing more."""
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        """Closes now, or once the rest of the request has arrived."""
        if self.is_closing():
            return
        self.send()
        self._is_closing = True
        if self._connection.is_whole:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._connection.linger()

    def whole(self) -> None:
        """Closes, if `close` waited for the end of the request, which has just arrived."""
        if self._is_closing:
            self._transport.close()

    def now(self) -> None:
        """Closes at once, whatever is still expected."""
        self.send()
        self._is_closing = True
        self._transport.close()
