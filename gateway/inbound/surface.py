"""The vendors' surface: an ASGI application that serves every configured dialect to its callers.

Every request takes the same steps: route, caller, body, what is asked, answer. Whatever goes wrong on the way is worded
by the caller's dialect, here and nowhere else. It must not know any vendor, nor what the desk does.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import parse_qs, unquote

import msgspec
import structlog
from msgspec import UNSET, structs
from starlette.types import Receive, Scope, Send

from gateway import spans
from gateway.asked import Asked, Batch, Command, Incoming, Reply
from gateway.canonical import Operation
from gateway.config.config import Config, Inbound
from gateway.config.secrets import ANONYMOUS
from gateway.config.settings import secrets_in
from gateway.delivery.attempt import DELIVERY, VIA
from gateway.desk.calling import Calls, cleaned
from gateway.desk.desk import Desk
from gateway.desk.idempotency import LONGEST_KEY, Key
from gateway.dialect import CREDENTIAL, Dialect
from gateway.errors import Problem, ProblemKind, StoreError, invalid
from gateway.inbound import browsers
from gateway.inbound.bulk import LARGE, Bulk
from gateway.inbound.limits import WHOLE, decode, inflate, read_body
from gateway.inbound.masking import masked, masked_in_address
from gateway.inbound.paths import Match, Paths
from gateway.mapping.values import from_millis
from gateway.road.accepted import Answered

if TYPE_CHECKING:
    from gateway.telemetry import Served

log = structlog.get_logger()
MOST_GATEWAYS, LONGEST_NAME = 16, 64
"""The most names kept of gateways that a command came through, and the most characters of such a name."""
PIECE = 256 * 1024
"""Bytes of an answer that are sent at a time, each piece once those before it are on their way."""
ENCODED_AT_ONCE = 250
"""Items of a long list that are encoded at a time."""
OURS = (ProblemKind.OVERLOADED, ProblemKind.INTERNAL)
"""Problem kinds that are the gateway's fault, not the caller's; logged as warnings."""


class _Call(msgspec.Struct, kw_only=True):
    """A request and its state so far: `began` is on the monotonic clock, `why` the reason of a refusal, without
    secrets; `credential` is what the caller was known by."""

    began: float
    request: int
    method: str
    path: str
    headers: Mapping[str, str]
    match: Match | None = None
    caller: str | None = None
    credential: str = ""
    answered: Answered | None = None
    outcome: str = "ok"
    why: str | None = None

    @property
    def host(self) -> str:
        """The Host that the caller asked for."""
        return self.headers.get("host", "")


class Surface:
    """Serves the vendors' routes under one configuration; `calls` counts the callers' requests."""

    def __init__(self, config: Config, desk: Desk, calls: Calls) -> None:
        self._config = config
        self._desk = desk
        self._calls = calls
        self._paths = Paths(config.inbounds.values())
        self._bulk = Bulk()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, unless its caller went away."""
        if scope["type"] != "http":
            return
        call = _Call(
            began=time.monotonic(),
            request=self._desk.ids(),
            method=scope["method"],
            path=scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0],
            headers=_by_name(scope["headers"]),
        )
        structlog.contextvars.bind_contextvars(request=call.request)
        if spans.tracer is None:
            await self._answer(call, scope, receive, send)
            return
        with spans.tracer.serving(call.method, scope.get("scheme", "http"), call.headers) as span:
            reply = await self._answer(call, scope, receive, send)
            if reply is None:
                span.left()
            else:
                self._mark(span, call, reply)

    async def _answer(self, call: _Call, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """Answers a call, counts and logs it; None if its caller went away."""
        try:
            reply = await self._reply(call, scope, receive)
        except ConnectionError:
            return None
        inbound = self._whose(call)
        reply = browsers.readable(reply, inbound, call.method)
        await _send(send, reply, _headers(reply, call.answered, call.request), call.method == "HEAD")
        self._count(call, inbound)
        self._note(call, inbound, reply)
        return reply

    async def _reply(self, call: _Call, scope: Scope, receive: Receive) -> Reply:
        """Serves a call and records its outcome in it. Raises `ConnectionError` if the caller went away."""
        try:
            if wanted := self._preflight(call):
                return browsers.allowed(wanted)
            call.match = match = self._paths.match(call.method, call.path, call.host)
            incoming, plain = await self._incoming(call, match, scope, receive)
            if len(plain) < LARGE:
                return await self._served(call, match, incoming, self._asked(call, match, incoming, plain))
            async with self._bulk.turn(len(plain)) as leave:
                asked = await self._bulk.read(partial(self._asked, call, match, incoming, plain))
                return await self._served(call, match, incoming, asked, leave)
        except ConnectionError:
            raise
        except Problem as problem:
            call.why = self._why(call, problem)
            return self._refused(call, problem)
        except StoreError as error:
            log.error("store.unavailable", reason=str(error))
            text = "the gateway's store is unavailable; try again later"
            return self._refused(call, Problem(ProblemKind.OVERLOADED, text, retry_after=5))
        except asyncio.CancelledError:  # the shutdown waits no longer for a slow sender or a slow upstream
            text = "the gateway is shutting down; try again"
            return self._refused(call, Problem(ProblemKind.OVERLOADED, text, retry_after=5))
        except Exception:
            log.exception("request.failed", method=call.method, path=_logged(call, self._whose(call)))
            return self._refused(call, Problem(ProblemKind.INTERNAL, "internal error of the gateway; see its log"))

    def _preflight(self, call: _Call) -> str:
        """Returns the method that a browser asks to be allowed to use, where the vendor lets it; no key comes with
        such a question. Any other is a request like all, as some vendors have OPTIONS."""
        wanted = browsers.asked_for(call.method, call.headers)
        try:
            match = self._paths.match(wanted, call.path, call.host) if wanted else None
        except Problem:
            return ""
        if match is None or not browsers.lets(match.inbound, wanted):
            return ""
        call.match = match
        return wanted

    def _asked(self, call: _Call, match: Match, incoming: Incoming, plain: bytes) -> Asked:
        """Returns what is asked for; identifies the caller where only the body tells it. May run in a thread."""
        body = _decoded(plain, incoming, match.inbound.dialect)
        incoming = Incoming(incoming.params, incoming.query, incoming.headers, body, incoming.now)
        if call.caller is None:
            self._let_in(call, match, incoming)
        if call.credential:
            incoming = _without_credential(incoming, call.credential, plain, match.inbound.dialect)
        return match.route.read(incoming)

    async def _served(
        self, call: _Call, match: Match, incoming: Incoming, asked: Asked, on_kept: Callable[[], None] | None = None
    ) -> Reply:
        assert call.caller is not None
        key = self._key(_unkeyed(match, call.path), incoming, asked)
        call.answered = answered = await self._desk.serve(
            match.inbound, call.caller, asked, call.request, via=_via(incoming), key=key, on_kept=on_kept
        )
        return answered.relayed or match.route.answer(answered.answer)

    def _why(self, call: _Call, problem: Problem) -> str:
        """Returns why a call is refused, for the log, without credentials. The message of a refusal in `OURS` is the
        gateway's own, unless it joins those of several problems (`faults`), and is not searched for credentials: that
        would take a quarter of a refusal's time, and do so when there are most refusals."""
        if problem.kind in OURS and not problem.faults:
            return problem.message
        return cleaned(problem.message, _keys_of(self._whose(call)))

    def _refused(self, call: _Call, problem: Problem) -> Reply:
        call.outcome = problem.kind.value
        return self._worded(self._whose(call), problem, str(call.request))

    def _whose(self, call: _Call) -> Inbound | None:
        """Returns the inbound in whose words a request is answered: where no route matches, the one whose words fit
        best."""
        return call.match.inbound if call.match else self._paths.nearest(call.path, call.host)

    async def _incoming(self, call: _Call, match: Match, scope: Scope, receive: Receive) -> tuple[Incoming, bytes]:
        """Returns the request as dialects see it, without its body, and the body as bytes. A credential in a header is
        checked before the body is read."""
        incoming = Incoming(
            params=match.params,
            query=_query(scope["query_string"]),
            headers={
                "x-forwarded-proto": scope.get("scheme", "http"),
                "x-forwarded-prefix": match.prefix,
                **call.headers,
            },
            body=UNSET,
            now=from_millis(self._desk.now()),
        )
        if not match.inbound.dialect.credential_in_body:
            self._let_in(call, match, incoming)
        if match.inbound.dialect.admits:
            match.inbound.dialect.admits(incoming)
        most = self._config.max_body
        packed = await read_body(receive, most, is_here=WHOLE in (scope.get("extensions") or ()))
        plain = inflate(packed, incoming.headers.get("content-encoding", ""), most)
        if match.inbound.dialect.verify and match.inbound.settings is not None:
            _verify(match.inbound, incoming, plain)
        return incoming, plain

    def _let_in(self, call: _Call, match: Match, incoming: Incoming) -> None:
        """Identifies the caller and notes it in the call. Raises `Problem` if it is unknown, or if too many requests
        wait: that is said before more of the request is read, but only once it is known who sends so much."""
        call.caller, call.credential = self._caller(match.inbound, incoming)
        if match.route.writes:
            self._desk.see_whether_there_is_room()

    def _caller(self, inbound: Inbound, incoming: Incoming) -> tuple[str, str]:
        """The caller's name, and the credential that it is known by, if it has one."""
        offered = set(inbound.dialect.credentials(incoming))
        if len(offered) > 1:
            raise Problem(ProblemKind.INVALID, "the request has two different credentials", field="credential")
        credential = next(iter(offered), "")
        known = inbound.keyring.caller(credential) if offered else None
        if known is not None:
            return known, credential
        if inbound.anonymous or not inbound.keyring:
            return ANONYMOUS, ""
        faults = inbound.dialect.credential_faults(credential, incoming)
        raise Problem(ProblemKind.UNAUTHORIZED, "the credential is missing or unknown", faults=faults)

    def _key(self, path: str, incoming: Incoming, asked: Asked) -> Key | None:
        """Returns the idempotency key of a call that has one: the caller's own for a create; for a comment that another
        gateway passes on, that gateway's name for its delivery, since nothing else tells a repeat from a second
        comment."""
        if _creates(asked):
            text = incoming.headers.get("idempotency-key", "")
            if len(text) > LONGEST_KEY:
                raise invalid("Idempotency-Key", f"is longer than {LONGEST_KEY} characters")
            return self._key_of(text, path, asked) if text else None
        mark = incoming.headers.get(DELIVERY, "")
        if (
            not isinstance(asked, Command)
            or asked.operation is not Operation.COMMENT
            or not 0 < len(mark) <= LONGEST_KEY
        ):
            return None
        key = self._key_of(mark, path, asked)
        return replace(key, text=f"\n{mark}\n{key.digest}")  # a form that no caller's own key has: see `of_part`

    def _key_of(self, text: str, path: str, asked: Command | Batch) -> Key:
        """Returns a key with a digest of what it stands for: the path and the content of the body, without the
        credential, which may be another one by the time of a repeat."""
        parts = [(one.verbatim, one.comment) for one in (asked.commands if isinstance(asked, Batch) else (asked,))]
        said = msgspec.json.encode(parts if isinstance(asked, Batch) else parts[0], order="sorted")
        digest = hashlib.sha256(path.encode("utf8", "surrogateescape") + b"\n" + said).hexdigest()
        return Key(text, digest, int(self._config.reply_timeout * 2000) + 1000)

    def words(self, path: str, problem: Problem, host: str = "") -> Reply:
        """Words a refusal by the edge, where only the beginning of the path may be known, as the nearest vendor
        does."""
        request, inbound = str(self._desk.ids()), self._paths.nearest(path, host)
        reply = self._worded(inbound, problem, request)
        self._desk.metrics.refused(inbound.dialect.name if inbound else "none", problem.kind.value)
        return Reply(reply.status, reply.body, {**reply.headers, "Alert-Gateway-Id": request})

    def _worded(self, inbound: Inbound | None, problem: Problem, request: str) -> Reply:
        if inbound is None:
            return Reply(404, {"message": problem.message})
        problem.request = request
        reply = inbound.dialect.problem(problem)
        extra: dict[str, str] = {}
        if problem.allow:
            extra["Allow"] = ", ".join(problem.allow)
        if problem.retry_after is not None:
            extra["Retry-After"] = str(problem.retry_after)
        return Reply(reply.status, reply.body, {**reply.headers, **extra})

    def _count(self, call: _Call, inbound: Inbound | None) -> None:
        self._calls.note(
            inbound.dialect.name if inbound else "none",
            call.caller,
            call.method,
            call.match.route.path if call.match else unquote(call.path),
            call.headers.get("user-agent", ""),
            call.outcome,
            self._desk.now(),
            _keys_of(inbound),
        )

    def _note(self, call: _Call, inbound: Inbound | None, reply: Reply) -> None:
        took = time.monotonic() - call.began
        dialect = inbound.dialect.name if inbound else "none"
        self._desk.metrics.request(dialect, call.outcome, took)
        say = log.warning if call.outcome in OURS else log.info
        say(
            "request",
            dialect=dialect,
            caller=call.caller,
            method=call.method,
            path=_logged(call, inbound),
            status=reply.status,
            outcome=call.outcome,
            reason=call.why,
            alert=call.answered.id if call.answered else None,
            took_ms=round(took * 1000, 1),
        )
        structlog.contextvars.unbind_contextvars("request")

    def _mark(self, span: Served, call: _Call, reply: Reply) -> None:
        """Says in the span of a call what the log says of it."""
        inbound = self._whose(call)
        dialect = inbound.dialect.name if inbound else "none"
        span.answered(
            status=reply.status,
            route=f"/{dialect}{call.match.route.path}" if call.match else "",
            path=_logged(call, inbound),
            dialect=dialect,
            caller=call.caller,
            outcome=call.outcome,
            about=call.answered.id if call.answered else call.request,
        )


def _keys_of(inbound: Inbound | None) -> Callable[[str], bool]:
    """Returns a test whether a word, in quotes or not, is a credential of this inbound."""
    return lambda word: inbound is not None and inbound.keyring.caller(word.strip("'\"")) is not None


def _unkeyed(match: Match, path: str) -> str:
    """Returns the path, or its route's path where the credential is a variable of it."""
    return match.route.path if CREDENTIAL in match.params else path


def _logged(call: _Call, inbound: Inbound | None) -> str:
    """Returns the path as it may be logged: the caller's credential is masked in it and, where no route matches,
    whatever could be one."""
    if call.match is None:
        return cleaned(unquote(call.path), _keys_of(inbound))
    path: str = masked_in_address(_unkeyed(call.match, call.path), call.credential)
    return path[:200]


def _decoded(body: bytes, incoming: Incoming, dialect: Dialect) -> Any:
    """Decodes the body as JSON, whatever its content type; if it is not JSON, the content type may be what the caller
    is told."""
    content_type = incoming.headers.get("content-type", "")
    try:
        return decode(body, content_type)
    except Problem as problem:
        said = content_type.partition(";")[0].strip().lower()
        if not dialect.tells_types or not said or said.endswith("json"):
            raise
        raise Problem(ProblemKind.MEDIA_TYPE, f"content type {said[:100]} is not supported; send JSON") from problem


def _without_credential(incoming: Incoming, credential: str, plain: bytes, dialect: Dialect) -> Incoming:
    """Returns a request that does not tell the credential, but where the vendor's API has it."""
    params, query = incoming.params, incoming.query
    if params or query:
        query = masked_in_address(query, credential)
        params = {
            name: said if name == CREDENTIAL else masked_in_address(said, credential) for name, said in params.items()
        }
    told = 0
    if dialect.credential_in_body:
        alone = Incoming({}, {}, {}, incoming.body, incoming.now)
        told = int(credential in dialect.credentials(alone))
    body = masked(incoming.body, credential, plain, told=told)
    if body is incoming.body and params is incoming.params:
        return incoming
    return structs.replace(incoming, params=params, query=query, body=body)


def _verify(inbound: Inbound, incoming: Incoming, body: bytes) -> None:
    """Raises `Problem` if the request is not signed as the inbound's own settings require."""
    assert inbound.dialect.verify
    held = [secret.value() for secret in secrets_in(inbound.settings)]
    inbound.dialect.verify(incoming, body, inbound.settings, held)


def _creates(asked: Asked) -> TypeGuard[Command | Batch]:
    """Whether a request creates something: only then does it use the caller's idempotency key."""
    if isinstance(asked, Batch):
        return any(_creates(one) for one in asked.commands)
    return isinstance(asked, Command) and asked.operation is Operation.CREATE


def _via(incoming: Incoming) -> tuple[str, ...]:
    """The names of the gateways that a command came through: the last ones, as those are the ones that may see it
    again."""
    if VIA not in incoming.headers:
        return ()
    names = (name.strip() for name in incoming.headers[VIA].split(","))
    return tuple(name for name in names if 0 < len(name) <= LONGEST_NAME)[-MOST_GATEWAYS:]


def _query(text: bytes) -> Mapping[str, list[str]]:
    try:
        return parse_qs(text.decode("latin-1"), keep_blank_values=True, max_num_fields=200) if text else {}
    except ValueError:
        raise invalid("query", "has more than 200 parameters") from None


def _by_name(headers: list[tuple[bytes, bytes]]) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _headers(reply: Reply, answered: Answered | None, request: int) -> list[tuple[bytes, bytes]]:
    headers = [("content-type", "application/json")] if reply.body is not UNSET else []
    headers += [(name.lower(), value) for name, value in reply.headers.items()]
    headers.append(("alert-gateway-id", str(answered.id if answered else request)))
    headers += [("alert-gateway-report", line) for line in (answered.reports if answered else ())]
    if answered and answered.is_stale:
        headers.append(("alert-gateway-stale", "true"))
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]


async def _send(send: Send, reply: Reply, headers: list[tuple[bytes, bytes]], is_head: bool) -> None:
    pieces: Iterable[bytes]
    if isinstance(reply.body, list) and len(reply.body) > ENCODED_AT_ONCE:
        pieces = _Long(reply.body)
    else:
        pieces = [b"" if reply.body is UNSET else msgspec.json.encode(reply.body)]
    if reply.status != 204:
        headers.append((b"content-length", str(sum(map(len, pieces))).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    last = b""
    for part in () if is_head else _parts(pieces):
        if last:
            await send({"type": "http.response.body", "body": last, "more_body": True})
            await asyncio.sleep(0)  # else all pieces are written at once, and are in memory a second and a third time
        last = part
    await send({"type": "http.response.body", "body": last})


class _Long:
    """A long list as JSON in pieces, encoded anew each time it is iterated: whole, the JSON would be in memory beside
    the list."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(0, len(self._items), ENCODED_AT_ONCE):
            encoded = msgspec.json.encode(self._items[begin : begin + ENCODED_AT_ONCE])
            yield (b"," if begin else b"[") + encoded[1:-1]
        yield b"]"


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces cut into parts of at most `PIECE` bytes, as they are sent."""
    for piece in pieces:
        yield from (piece[begin : begin + PIECE] for begin in range(0, len(piece), PIECE))
