"""One attempt: runs a dialect's call against a real upstream, and turns its end into an outcome.

The call sees only the answers it can handle; every other answer is judged here, for all vendors alike. It must not
know the store.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway import spans
from gateway.asked import Reply
from gateway.codes import Code
from gateway.config.config import Upstream
from gateway.config.secrets import MASK
from gateway.delivery.judging import judge, retry_after
from gateway.delivery.transport import Transport, Unreachable
from gateway.outcome import Again, Call, Held, Outcome, Rejected, Request, Response, Token, code_of

VIA = "alert-gateway-via"
"""The header that lists the gateways through which a command came."""
DELIVERY = "alert-gateway-delivery"
"""The header that identifies a delivery to the next gateway, where it could not recognise a repeat otherwise."""
NO_ANSWER = Response(0)
"""The response that a call sees for a `by_the_way` request that got no answer."""


class Ended(Struct, frozen=True):
    """How an attempt ended, with the last status that was seen. `is_certificate`: the upstream is held for a
    certificate and not for our key; `is_ambiguous`: something may have been made although the answer was lost;
    `is_fault`: the upstream gave no verdict at all; `requests`: how many it took; `looked_up`: the alert was found
    there by looking; `in_vain`: looking did not show whether it is there; `is_absent`: it is not, and is over."""

    outcome: Outcome
    status: int | None
    is_ambiguous: bool = False
    is_fault: bool = False
    requests: int = 0
    looked_up: bool = False
    in_vain: bool = False
    is_absent: bool = False
    is_certificate: bool = False


class NotOurs(Exception):
    """Another replica may have the delivery by now, and nothing was sent for it."""


class Client:
    """Runs calls against one upstream: adds credentials, exchanges them for tokens, judges answers that calls do not
    handle."""

    def __init__(self, upstream: Upstream, name: str = "") -> None:
        self.upstream = upstream
        self._name = name
        self._transport = Transport(upstream.url, upstream.timeout, upstream.concurrency, upstream.reach)
        self._token: tuple[str, str, float] | None = None
        self._issued: deque[str] = deque(maxlen=8)  # an answer may quote a token that was replaced meanwhile

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()

    def fingerprint(self, entry: str = "") -> int:
        """A hash that changes when the upstream's secrets or certificates do, with the key of one entry where keys are
        chosen; it reveals nothing about them."""
        own = ""
        with contextlib.suppress(ValueError):  # an entry without a key may get one
            own = self.upstream.key_of(entry)
        try:
            headers = (secret.value() for secret in self.upstream.headers.values())
            return hash((own, *headers, self.upstream.reach.fingerprint()))
        except ValueError:
            return 0

    async def run(
        self,
        call: Call,
        via: tuple[str, ...] = (),
        entry: str = "",
        is_held: Callable[[], bool] = lambda: True,
        mark: str = "",
    ) -> Ended:
        """Runs a call to its end; never raises for what an upstream does. Credentials are masked in the outcome's
        reason, as an upstream may quote them. `via` are the gateways that the command came through before this one,
        `entry` selects the key to send with. `is_held` is asked right before the first request that is not a GET: if it
        returns False, `NotOurs` is raised and nothing is sent; after that, the call is run to its end. `mark` is the
        same at every attempt, for a gateway that would not recognise the repeat otherwise."""
        before = self._credentials(entry)
        marked = {DELIVERY: f"{self._name}/{mark}"} if self._name and mark else {}
        ended = await self._run(call, {**self._came_through(via), **marked}, entry, is_held)
        reason = getattr(ended.outcome, "reason", None)
        if reason is None:
            return ended
        told: Any = msgspec.structs.replace(ended.outcome, reason=self._masked(reason, entry, before)[:500])
        return msgspec.structs.replace(ended, outcome=told)

    def _came_through(self, via: tuple[str, ...]) -> dict[str, str]:
        return {VIA: ", ".join((*via, self._name))} if self._name else {}

    def _credentials(self, entry: str) -> list[str]:
        """This upstream's current credentials: those of the headers, then the key, if there is one."""
        found = [secret.value() for secret in self.upstream.headers.values()]
        with contextlib.suppress(ValueError):
            found.append(self.upstream.key_of(entry))
        return found

    def _masked(self, text: str, entry: str, before: list[str]) -> str:
        """A text with this upstream's credentials masked: the current ones, and those from `before` the request was
        sent, as they may have been replaced meanwhile. Those of less than four characters are left, as they cannot be
        told from other text."""
        given = list(dict.fromkeys([*before, *self._credentials(entry)]))
        spelled = [
            self.upstream.dialect.outbound.authorise(Request(method="GET", path=""), key).headers for key in given
        ]
        known = [*given, *(value.rpartition(" ")[2] for headers in spelled for value in headers.values())]
        for value in sorted([*known, *self._issued], key=len, reverse=True):  # one may be another's prefix
            text = text.replace(value, MASK) if len(value) >= 4 else text
        return text

    async def _run(self, call: Call, extra: dict[str, str], entry: str, is_held: Callable[[], bool]) -> Ended:
        renewed, requests, is_begun = False, 0, False
        status: int | None = None
        try:
            request = next(call)
            while True:
                if _leads_elsewhere(request):
                    path = "a key or id of '.' or '..' cannot be part of a path: it would address something else"
                    return Ended(Rejected(reason=path), status, requests=requests)
                requests += 1
                try:
                    authorised = await self._authorised(request, entry)
                    if request.method != "GET" and not is_begun and not is_held():
                        raise NotOurs
                    is_begun = is_begun or request.method != "GET"
                    response = await self._sent(request, authorised, self._headers(extra), entry)
                except Unreachable as error:
                    if not request.by_the_way:
                        return self._lost(error, request, status, requests)
                    response = NO_ANSWER
                except _TokenRefused as refused:
                    return Ended(refused.outcome, refused.status, is_fault=True, requests=requests)
                if not request.by_the_way:
                    status = response.status
                    if status == 401 and self._token is not None and not renewed:
                        self._token, renewed = None, True
                        continue
                    if (ended := self._ended(request, response, requests)) is not None:
                        return ended
                request = call.send(response)
        except StopIteration as returned:
            return Ended(returned.value, status, requests=requests)
        finally:
            call.close()

    def _ended(self, request: Request, response: Response, requests: int) -> Ended | None:
        """The end of an attempt with an answer that its call does not handle; None for one that it does."""
        status, is_for_call = response.status, self._is_for_call(request, response)
        if (between := self._said_between(request, response, is_for_call=is_for_call)) is not None:
            is_ambiguous = status < 300 and self._may_make(request)
            is_fault = not (request.of_one and status in (404, 405))  # other alerts may well be found there
            about_ours = isinstance(between, Held)
            return Ended(between, status, is_ambiguous, is_fault, requests, is_certificate=about_ours)
        if is_for_call:
            return None
        judged = self._judged(response)
        may_have_taken_it = status >= 500 or status == 408
        is_ambiguous = may_have_taken_it and self._may_make(request)
        return Ended(judged, status, is_ambiguous, is_fault=isinstance(judged, Again), requests=requests)

    def _lost(self, error: Unreachable, request: Request, status: int | None, requests: int) -> Ended:
        """The end of an attempt without an answer: ambiguous if the request was sent and may have made something."""
        is_ambiguous = error.sent and self._may_make(request)
        outcome = _unreachable(error)
        return Ended(
            outcome, status, is_ambiguous, is_fault=True, requests=requests, is_certificate=error.is_certificate
        )

    def _may_make(self, request: Request) -> bool:
        """Whether a request whose answer is lost may have made something: one that `creates`, and where alerts are
        addressed by key, any but a GET."""
        if request.method == "GET":
            return False
        return request.creates or self.upstream.dialect.outbound.addressed_by == "key"

    async def relay(self, request: Request, within: float, via: tuple[str, ...] = (), entry: str = "") -> Reply | None:
        """Passes a request on and returns the answer unchanged; None if there is none in time, or none that is meant
        for the caller. `via` and `entry` as in `run`."""
        if _leads_elsewhere(request):
            return None
        try:
            async with asyncio.timeout(within):
                response = await self._send(request, self._came_through(via), entry)
                if response.status == 401 and self._token is not None:
                    self._token = None
                    response = await self._send(request, self._came_through(via), entry)
        except (TimeoutError, Unreachable, _TokenRefused):
            return None
        body = response.json()
        if body is None:
            return None
        return Reply(response.status, body) if self._is_for_call(request, response) else None

    def _is_for_call(self, request: Request, response: Response) -> bool:
        return response.status in request.accepts or judge(response.status, self.upstream.dialect) == "ok"

    def _said_between(self, request: Request, response: Response, *, is_for_call: bool) -> Outcome | None:
        """The outcome where an intermediary answered in the vendor's place, else None. In addition to the function of
        this name it detects load balancers without a backend, as while that is replaced: Envoy answers 404 with
        nothing, Traefik and Kubernetes' ingresses 404 with a line of text. A 404 or 405 is the vendor's own if its body
        is JSON, if it concerns one alert's own address, if it has a meaning at this vendor, or if the call accepts it
        and the body is empty. In other cases it is not: an end that reached nobody would count as delivered."""
        if between := _said_between(response, is_for_call=is_for_call):
            return between
        is_known = request.of_one or response.status in self.upstream.dialect.outbound.verdicts
        is_known = is_known or (is_for_call and not response.content.strip())
        if response.status not in (404, 405) or is_known or response.json() is not None:
            return None
        return Again(reason=f"{response.status} without JSON: not an answer of the upstream's API", code=Code.WEB_PAGE)

    def _judged(self, response: Response) -> Outcome:
        judgement = judge(response.status, self.upstream.dialect)
        words = self.upstream.dialect.outbound.reason(response) or ("with a web page" if _is_web_page(response) else "")
        reason = f"{response.status} {words}".strip()
        if judgement == "hold":
            return Held(reason, response.status)
        if judgement == "retry":
            code = Code.THROTTLED if response.status == 429 else Code.UNAVAILABLE
            return Again(reason=reason, after=retry_after(response, datetime.now(UTC)), code=code)
        return Rejected(reason=reason)

    async def _send(self, request: Request, extra: dict[str, str], entry: str) -> Response:
        return await self._sent(request, await self._authorised(request, entry), self._headers(extra), entry)

    async def _sent(self, asked: Request, authorised: Request, headers: dict[str, str], entry: str) -> Response:
        """Sends a request as it is authorised, with further headers, and a span of its own where tracing is on; raises
        `Unreachable`. What is shown of its address is what was `asked`, as a credential may be part of the path."""
        if spans.tracer is None:
            return await self._transport.send(authorised, headers)
        url = asked.path if asked.absolute else f"{_shown(self.upstream)}{asked.path}"
        is_secret = frozenset(self._credentials(entry)).__contains__
        with spans.tracer.asking(asked.method, url, self.upstream.name, is_secret) as span:
            try:
                response = await self._transport.send(authorised, {**span.headers, **headers})
            except Unreachable as error:
                span.ended(None, code_of(_unreachable(error)))
                raise
            ended = self._ended(asked, response, 1)
            span.ended(response.status, code_of(ended.outcome) if ended else "")
            return response

    async def _authorised(self, request: Request, entry: str) -> Request:
        return self.upstream.dialect.outbound.authorise(request, await self._credential(entry))

    def _headers(self, extra: dict[str, str]) -> dict[str, str]:
        return {**extra, **{name: secret.value() for name, secret in self.upstream.headers.items()}}

    async def _credential(self, entry: str) -> str:
        upstream = self.upstream
        try:
            key = upstream.key_of(entry)
        except ValueError as error:
            raise _TokenRefused(Held(str(error), code=Code.NO_KEY), None) from None
        if emptied := self._emptied(key):
            raise _TokenRefused(Held(f"the {emptied} is missing: its file is empty", code=Code.NO_KEY), None)
        if not upstream.is_exchanged or upstream.dialect.outbound.exchange is None:
            return key
        now = time.monotonic()
        if self._token is None or self._token[0] != key or self._token[2] <= now:
            token = await self._exchange(upstream.dialect.outbound.exchange(upstream.settings, key), entry)
            self._token = (key, token.value, now + token.lifetime * 0.9)
            if token.value not in self._issued:
                self._issued.append(token.value)
        return self._token[1]

    def _emptied(self, key: str) -> str:
        """Which secret is empty now although it is configured: the key or the value of a header; "" if none."""
        if not key and (self.upstream.key or self.upstream.keys):
            return "key"
        return next((f"value of {name}" for name, one in self.upstream.headers.items() if not one.value()), "")

    async def _exchange(self, call: Generator[Request, Response, Token], entry: str) -> Token:
        """Exchanges the key for a token; the identity service's answer is judged like any other."""
        request = next(call)
        while True:
            try:
                response = await self._sent(request, request, {}, entry)
            except Unreachable as error:
                raise _TokenRefused(_unreachable(error), None) from None
            judgement = judge(response.status, self.upstream.dialect)
            if judgement != "ok":
                reason = f"the identity service answered {response.status}"
                is_passing = judgement == "retry"
                outcome = Again(reason=reason, code=Code.NO_TOKEN) if is_passing else Held(reason, response.status)
                raise _TokenRefused(outcome, response.status)
            try:
                request = call.send(response)
            except StopIteration as ended:
                token: Any = ended.value
                if isinstance(token, Token) and token.value:
                    return token
                none = Again(reason="the identity service issued no token", code=Code.NO_TOKEN)
                raise _TokenRefused(none, response.status) from None


def _leads_elsewhere(request: Request) -> bool:
    """Whether the path has a segment `.` or `..`, however encoded, which clients, proxies and servers resolve: an id or
    key chosen by a caller must not select another of the upstream's operations."""
    parts = request.path.partition("?")[0].lower().replace("%2e", ".").split("/")
    return not request.absolute and ("." in parts or ".." in parts)


def _shown(upstream: Upstream) -> str:
    """An upstream's address as spans show it. Of a webhook's only the host: to know the rest may be all that it takes
    to post there."""
    if not upstream.dialect.outbound.whole_url and upstream.dialect.description is None:
        return upstream.url
    scheme, _, rest = upstream.url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{MASK if path else ''}"


def _is_web_page(response: Response) -> bool:
    """Whether the answer is a web page, as from an intermediary in the vendor's place: it says nothing about an alert.
    A word of plain text declared as HTML is the vendor's own: chats answer `ok` like that."""
    is_said_so = response.headers.get("content-type", "").lower().startswith("text/html")
    return is_said_so and response.content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


def _said_between(response: Response, *, is_for_call: bool) -> Outcome | None:
    """The outcome where an intermediary answered in the vendor's place, which is no verdict on an alert; else None.

    That is a redirect, as to a login, a notice or a changed address, unless the call accepts it; a web page with a
    success, with a status that the call accepts, or with 404 or 405; and the refusal of our certificate, which nginx
    answers with status 400."""
    status = response.status
    if 300 <= status < 400 and is_for_call:
        return None
    if 300 <= status < 400:
        return Again(reason=f"{status} redirects to {_where(response)}, which is not followed", code=Code.WEB_PAGE)
    if not _is_web_page(response):
        return None
    if status == 400 and b"SSL certificate" in response.content:
        return Held(f"the gateway's client certificate was refused: {status}", status, code=Code.BAD_CERTIFICATE)
    if is_for_call or status in (404, 405):
        return Again(reason=f"{status} with a web page instead of an API's answer", code=Code.WEB_PAGE)
    return None


def _where(response: Response) -> str:
    """Scheme and host that a redirect leads to, without the parts that may be secret."""
    try:
        parts = urlsplit(response.headers.get("location", ""))
    except ValueError:
        return "elsewhere"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else "elsewhere"


class _TokenRefused(Exception):
    def __init__(self, outcome: Outcome, status: int | None) -> None:
        super().__init__("no token")
        self.outcome = outcome
        self.status = status


def _unreachable(error: Unreachable) -> Outcome:
    if error.is_certificate:
        return Held(f"the upstream's certificate cannot be verified: {error.reason}", code=Code.BAD_CERTIFICATE)
    if error.is_shut:
        return Held(error.reason, code=Code.PROXY_REFUSED)
    return Again(reason=error.reason, code=Code.NO_ANSWER if error.sent else Code.UNREACHABLE)
