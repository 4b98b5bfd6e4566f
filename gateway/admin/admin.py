"""The operators' HTTP API of a running gateway: the outbox, the ledger, the operator log, a reload; and its access
control. It is served on the callers' address only if that is loopback, and requires the token where one is configured.

What the calls do is in `gateway.admin.operating`. It must not know any vendor.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import msgspec
import structlog
from msgspec import UNSET, Struct, structs
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.admin import operating, operations, tracing
from gateway.admin.operations import Operator
from gateway.config.values import duration, is_loopback
from gateway.desk import calling
from gateway.errors import ConfigurationError, Problem, StoreError
from gateway.inbound.limits import decode, read_body
from gateway.network.listening import host_in
from gateway.store import CallsRow, DeliveryFilter, DeliveryState, Tx

if TYPE_CHECKING:
    from gateway.process.service import Gateway

log = structlog.get_logger()
T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]
MOST_LISTED = 10_000
PAGE = 50
"""Number of deliveries read and encoded at a time."""
SLICE = 5000
"""Number of deliveries scanned in one transaction where no index covers the filter."""
MOST_TOLD = 1000
"""Most ids and most refusals listed in the answer to one call; their total counts are always given."""
MOST_BODY = 1 << 20
STATES = get_args(DeliveryState)
_FORWARDED = ("forwarded", "via", "x-real-ip", "x-request-id")
_FORWARDED_IN = ("x-forwarded-", "x-envoy-", "x-amzn-")
"""Headers that proxies add to a request, and prefixes of further ones."""


class _Anything(Convertor[str]):
    """The rest of a path, including slashes and line feeds: an alert's id at an upstream may be any text."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """Returns the text unchanged."""
        return value

    def to_string(self, value: str) -> str:
        """Returns the text unchanged."""
        return value


register_url_convertor("anything", _Anything())


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Wanted(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `retry` and `drop`: deliveries by id, all dead ones, or those of one upstream."""

    ids: tuple[int, ...] = ()
    dead: bool = False
    upstream: str | None = None
    force: bool = False
    because: str = ""
    who: str = ""


class Admin:
    """The operators' HTTP API of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """The API's routes, each behind the access check."""
        return [
            Route("/-/alerts/{name:anything}", self._door(self._alerts), methods=["GET"]),
            Route("/-/callers", self._door(self._callers), methods=["GET"]),
            Route("/-/deliveries", self._door(self._deliveries), methods=["GET"]),
            Route("/-/report", self._door(self._report), methods=["GET"]),
            Route("/-/operations", self._door(self._operations), methods=["GET"]),
            Route("/-/retry", self._door(self._retry), methods=["POST"]),
            Route("/-/drop", self._door(self._drop), methods=["POST"]),
            Route("/-/reload", self._door(self._reload), methods=["POST"]),
        ]

    # --- who is let in -----------------------------------------------------------------------------------

    def seen(self, endpoint: Endpoint) -> Endpoint:
        """Wraps a read-only endpoint: it requires the token, where one is configured, and nothing else."""

        async def guarded(request: Request) -> Response:
            return await endpoint(request) if self.knows(request) else _unauthorised()

        return guarded

    def knows(self, request: Request) -> bool:
        """Whether a request has the right token, or none is configured."""
        token = self._gateway.config.admin_token
        if token is None:
            return True
        scheme, _, offered = request.headers.get("authorization", "").partition(" ")
        try:
            expected = token.value()
        except ValueError:
            return False
        is_right = hmac.compare_digest(offered.strip().encode("utf8", "surrogateescape"), expected.encode())
        return is_right and bool(expected) and scheme.lower() == "bearer"

    def _door(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            if not self.knows(request):
                return _unauthorised()
            try:
                self._check(request)
                return await endpoint(request)
            except _Refusal as refused:
                return _said(refused.status, refused.message)
            except Problem as problem:
                return _said(400, problem.message)
            except operating.NotAsAsked as refused:
                return _said(400, str(refused))
            except StoreError as error:
                return _said(503, str(error))

        return guarded

    def _check(self, request: Request) -> None:
        """Refuses a call that somebody else than an operator could have made."""
        config = self._gateway.config
        if config.admin is None and not is_loopback(config.listen[0]):
            raise _Refusal(403, 'operators are refused on an address that callers share; add admin = "127.0.0.1:9092"')
        if config.admin_token is None:
            _check_near(request)

    def _operator(self, request: Request, who: str) -> Operator:
        """The operator as named in the request, else by what granted access: the token or the admin address."""
        let_in_by = "the token" if self._gateway.config.admin_token else "the admin address"
        origin = request.client.host if request.client else "?"
        return Operator(who=who.strip()[:100] or let_in_by, origin=origin)

    # --- what is asked -----------------------------------------------------------------------------------

    async def _read(self, work: Callable[[Tx], T]) -> T:
        """Reads from the store as a long read of an operator, apart from the reads of callers and of the gateway."""
        return await self._gateway.store.read(work, is_long=True, whose="operator")

    async def _alerts(self, request: Request) -> Response:
        """Searches slice by slice, each in its own transaction, so that deliveries are read in between."""
        if request.url.query:
            raise _Refusal(400, "write a question mark in an id as %3F; what follows a plain one is not part of the id")
        name, read = request.path_params["name"], self._read
        search = tracing.Search(name, tracing.spoken(self._gateway.config))
        while await read(search.look):
            pass
        roads = []
        for alert in search.newest_first():
            road = await read(functools.partial(tracing.traced, alert=alert, found_by=search.found[alert]))
            roads += [road] if road is not None else []
        found = tracing.as_json(roads, search)
        if not roads:
            found["message"] = tracing.NOTHING.format(name)
        return JSONResponse(found, 200 if roads else 404)

    async def _callers(self, request: Request) -> Response:
        _only(request.query_params.keys(), {"limit"})
        limit = _number(request.query_params.get("limit", "1000"), "limit", MOST_LISTED)
        with contextlib.suppress(StoreError):  # what was counted meanwhile is not worth failing for
            await self._gateway.calls.write(self._gateway.store)
        await self._read(lambda tx: tx.calls(1))  # if the store cannot be read, the status can still say so
        return StreamingResponse(self._callers_pages(limit), media_type="application/json")

    async def _callers_pages(self, limit: int) -> AsyncIterator[bytes]:
        """The list in small pieces, as in `_in_one`."""
        comma = b""
        yield b'{"callers":['
        async for rows in self._calls(limit):
            yield comma + b",".join(msgspec.json.encode(calling.as_json(row)) for row in rows)
            comma = b","
        yield b"]}"

    async def _calls(self, limit: int) -> AsyncIterator[list[CallsRow]]:
        """Callers, latest first, a page at a time. One that calls again meanwhile moves to the front, which was read
        already: so the rows seen since the start are read once more at the end."""
        shown: set[int] = set()
        moved = self._gateway.now() - int(calling.SHOWN_WITHIN * 1000)
        for since in (0, moved):
            before: CallsRow | None = None
            while len(shown) < limit:
                read = methodcaller("calls", PAGE, before)
                page = [row for row in await self._read(read) if row.last_seen >= since]
                if not page:
                    break
                before = page[-1]
                fresh = [row for row in page if calling.kind_of(row) not in shown][: limit - len(shown)]
                shown.update(map(calling.kind_of, fresh))
                if fresh:
                    yield fresh

    async def _deliveries(self, request: Request) -> Response:
        query = request.query_params
        known = {"state", "alert", "upstream", "limit"}
        _only(query.keys(), known)
        limit = _number(query.get("limit", "1000"), "limit", MOST_LISTED)
        if (state := query.get("state")) not in (None, *STATES):
            raise _Refusal(400, f"state: must be one of {', '.join(STATES)}")
        name, config = query.get("alert"), self._gateway.config
        alert = await self._read(lambda tx: tracing.alert_of(tx, name, config) if name is not None else None)
        if name is not None and alert is None:
            return _said(404, f"no alert has the id or key {name!r}")
        upstream = query.get("upstream")
        upstream = operating.storable(upstream) if upstream is not None else None
        chosen = DeliveryFilter(state=state, upstream=upstream, alert=alert, limit=limit)
        pages = self._pages(chosen)
        first = await anext(pages, b"")  # if the store cannot be read, the status can still say so
        return StreamingResponse(self._in_one(first, pages), media_type="application/json")

    async def _pages(self, chosen: DeliveryFilter) -> AsyncIterator[bytes]:
        """The chosen deliveries as JSON objects joined by commas, a page at a time. Their numbers are found first, as
        that may mean to scan everything that waits. Where it means to scan all deliveries it is done in slices, and an
        empty piece is yielded after each, so that a slice without matches yields something too."""
        upstreams, now = self._gateway.config.upstreams, self._gateway.now()
        left, before = chosen.limit, chosen.before
        while left:
            part = structs.replace(chosen, limit=left, before=before)
            numbers, before = await self._read(lambda tx, part=part: tx.delivery_numbers(part, SLICE))  # type: ignore[misc]
            left -= len(numbers)
            for begin in range(0, len(numbers), PAGE):
                page = DeliveryFilter(ids=tuple(numbers[begin : begin + PAGE]), state=chosen.state, limit=PAGE)
                rows = await self._read(lambda tx, page=page: operating.listed(tx, page, upstreams, now))  # type: ignore[misc]
                yield b",".join(msgspec.json.encode(one.as_json()) for one in rows)
            if before is None:
                return
            yield b""

    async def _in_one(self, page: bytes, pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The list in small pieces: it is never in memory as a whole, as a sidecar has little memory. While nothing is
        found white space is sent, so that no client or proxy takes the connection for dead."""
        yield b'{"deliveries":[' + page
        is_begun = bool(page)
        async for piece in pages:
            yield (b"," if is_begun else b"") + piece if piece else b"\n"
            is_begun = is_begun or bool(piece)
        yield b"]}"

    async def _report(self, request: Request) -> Response:
        query = request.query_params
        _only(query.keys(), {"since", "by"})
        since, by = query.get("since", "30d"), query.get("by", "caller")
        try:
            start = self._gateway.now() - int(duration(since) * 1000)
            group = msgspec.convert(by, Literal["caller", "dialect", "operation"])
        except (ValueError, msgspec.ValidationError) as error:
            return _said(400, f"since or by: {error}")
        found = await self._read(lambda tx: operating.ledger_since(tx, start, group))
        return JSONResponse({"by": by, "since": since, **found})

    async def _operations(self, request: Request) -> Response:
        _only(request.query_params.keys(), {"limit"})
        limit = _number(request.query_params.get("limit", "100"), "limit", MOST_LISTED)
        found = await self._read(lambda tx: operations.kept(tx, limit))
        return JSONResponse({"operations": msgspec.to_builtins(found)})

    async def _retry(self, request: Request) -> Response:
        wanted = await _wanted(request)
        if wanted.because:
            raise _Refusal(400, "because: is only for dropping deliveries")
        return await self._change("retry", wanted, self._operator(request, wanted.who))

    async def _drop(self, request: Request) -> Response:
        wanted = await _wanted(request)
        if not wanted.because.strip():
            raise _Refusal(400, "because: is required; it is kept with the delivery")
        if wanted.force:
            raise _Refusal(400, "force: is only for sending deliveries again")
        return await self._change("drop", wanted, self._operator(request, wanted.who))

    async def _change(self, what: Literal["retry", "drop"], wanted: Wanted, operator: Operator) -> Response:
        """Changes deliveries in batches, each with its own entry in the operator log: many dead letters are never in
        memory at once, and no caller waits long for its commit."""
        done: list[int] = []
        refused: list[str] = []
        counts = [0, 0]
        after: int | None = 0
        while after is not None:
            now, begin = self._gateway.now(), after

            def work(tx: Tx, begin: int = begin, now: int = now) -> tuple[list[int], list[str], int | None]:
                return operating.change(
                    tx,
                    what,
                    operator,
                    now,
                    self._gateway.config.upstreams,
                    ids=wanted.ids,
                    dead=wanted.dead,
                    upstream=wanted.upstream,
                    force=wanted.force,
                    because=wanted.because,
                    after=begin,
                    most=operating.BATCH,
                )

            some, not_done, after = await self._gateway.store.write(work, is_long=True)
            counts[0] += len(some)
            counts[1] += len(not_done)
            done += some[: MOST_TOLD - len(done)]
            refused += not_done[: MOST_TOLD - len(refused)]
            self._gateway.wake()
        log.warning(
            f"operator.{what}",
            who=operator.who,
            origin=operator.origin,
            because=wanted.because,
            deliveries=done[:20],
            count=counts[0],
            refused=counts[1],
        )
        return JSONResponse({"done": done, "refused": refused, "count": counts[0], "refused_count": counts[1]})

    async def _reload(self, request: Request) -> Response:
        reload = self._gateway.reload_from_file
        if reload is None:
            return _said(409, "this gateway was not started from a configuration file")
        operator = self._operator(request, (await _wanted(request)).who)
        try:
            await reload(operator)
        except ConfigurationError as error:
            return JSONResponse(
                {"message": "the new configuration is bad; the old one stays", "problems": error.problems}, 422
            )
        return JSONResponse({"reloaded": True})


def _said(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)


def _unauthorised() -> Response:
    return JSONResponse({"message": "the token is missing or wrong"}, 401, {"www-authenticate": "Bearer"})


def _check_near(request: Request) -> None:
    """Without a token, access is granted for being on this machine: refuses web pages in a browser here, and requests
    that came through a proxy here."""
    host = host_in(request.headers.get("host", "localhost"))
    if not (host == "localhost" or _is_near(host)):
        raise _Refusal(403, "use a loopback IP address or localhost as the host, or set admin_token")
    if _is_forwarded(request):
        raise _Refusal(
            403, "this came through a proxy, or over HTTP/1.0 as if it had; connect directly, or set admin_token"
        )
    if "origin" in request.headers:
        raise _Refusal(403, "requests of web pages (with an Origin header) are refused; set admin_token")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_empty = request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers
    if request.method == "POST" and kind != "application/json" and not (is_empty and not kind):
        raise _Refusal(415, "send JSON, with content-type: application/json")


def _is_forwarded(request: Request) -> bool:
    """Whether a proxy passed the request on. One that adds no header is recognised by HTTP/1.0, which nginx speaks to
    its backends by default; by default it also sends the backend's address as Host, whatever the client asked for."""
    if request.scope.get("http_version") == "1.0":
        return True
    return any(name in _FORWARDED or name.startswith(_FORWARDED_IN) for name in request.headers)


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _only(given: Any, known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise _Refusal(400, f"{name}: unknown; known are {', '.join(sorted(known))}")


def _number(text: str, name: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= most):
        raise _Refusal(400, f"{name}: is not a number from 1 to {most}")
    return int(text)


async def _wanted(request: Request) -> Wanted:
    body = decode(await read_body(request.receive, MOST_BODY))
    try:
        return msgspec.convert({} if body is UNSET else body, Wanted)
    except msgspec.ValidationError as error:
        raise _Refusal(400, str(error)) from None
