"""One attempt: a dialect's call is run against a real upstream, and its end is an outcome or a judgement.

The call sees only the answers it can handle; every other answer is judged here, for all vendors alike. It must not
know the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from gateway.config import Upstream
from gateway.delivery.judging import judge, retry_after
from gateway.delivery.transport import Transport, Unreachable
from gateway.dialect import Again, Call, Outcome, Rejected, Reply, Request, Response, Token
from gateway.secrets import MASK


class Held(Struct, frozen=True):
    """A fault of the whole upstream, not of this alert: nothing is sent there until a probe succeeds."""

    reason: str
    status: int | None = None


class Ended(Struct, frozen=True):
    """How an attempt ended, with the last status that was seen; `is_ambiguous` where something may have been made
    although the answer was lost."""

    outcome: Outcome | Held
    status: int | None
    is_ambiguous: bool = False


class Client:
    """Runs calls against one upstream: adds credentials, exchanges them for tokens, judges what calls do not."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._transport = Transport(upstream.url, upstream.timeout, upstream.concurrency)
        self._token: tuple[str, str, float] | None = None

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()

    def fingerprint(self) -> int:
        """Changes when the upstream's secrets do; it tells nothing about them."""
        secrets = [self.upstream.key, *self.upstream.headers.values()]
        try:
            return hash(tuple(secret.value() for secret in secrets if secret))
        except ValueError:
            return 0

    async def run(self, call: Call) -> Ended:
        """Runs a call to its end; never raises for what an upstream does. A reason never holds a credential, though
        an upstream may throw one back."""
        ended = await self._run(call)
        reason = getattr(ended.outcome, "reason", None)
        if reason is None:
            return ended
        told: Any = msgspec.structs.replace(ended.outcome, reason=self._masked(reason)[:500])  # type: ignore[type-var]
        return msgspec.structs.replace(ended, outcome=told)

    def _masked(self, text: str) -> str:
        """A text without this upstream's own credentials. Those of less than four characters cannot be told apart."""
        known = [secret.value() for secret in (self.upstream.key, *self.upstream.headers.values()) if secret]
        for value in [*known, *((self._token[1],) if self._token else ())]:
            text = text.replace(value, MASK) if len(value) >= 4 else text
        return text

    async def _run(self, call: Call) -> Ended:
        renewed = False
        status: int | None = None
        try:
            request = next(call)
            while True:
                try:
                    response = await self._send(request)
                except Unreachable as error:
                    return Ended(_unreachable(error), status, error.sent and request.creates)
                except _TokenRefused as refused:
                    return Ended(refused.outcome, refused.status)
                status = response.status
                if response.status == 401 and self._token is not None and not renewed:
                    self._token, renewed = None, True
                    continue
                if _is_web_page(response):
                    page = Again(reason=f"{response.status} with a web page, which no API answers")
                    return Ended(page, status, request.creates)
                if self._is_for_call(request, response):
                    request = call.send(response)
                    continue
                may_have_taken_it = response.status >= 500 or response.status == 408
                return Ended(self._judged(response), status, request.creates and may_have_taken_it)
        except StopIteration as ended:
            outcome: Outcome = ended.value
            return Ended(outcome, status)
        finally:
            call.close()

    async def relay(self, request: Request, within: float) -> Reply | None:
        """Passes a request on and brings the answer back as it is; None where there is none in time."""
        try:
            async with asyncio.timeout(within):
                response = await self._send(request)
        except (TimeoutError, Unreachable, _TokenRefused):
            return None
        body = response.json()
        if body is None:
            return None
        return Reply(response.status, body) if judge(response.status, self.upstream.dialect) == "ok" else None

    def _is_for_call(self, request: Request, response: Response) -> bool:
        return response.status in request.accepts or judge(response.status, self.upstream.dialect) == "ok"

    def _judged(self, response: Response) -> Outcome | Held:
        judgement = judge(response.status, self.upstream.dialect)
        words = self.upstream.dialect.outbound.reason(response)
        reason = f"{response.status} {words}".strip()
        if judgement == "hold":
            return Held(reason, response.status)
        if judgement == "retry":
            return Again(reason=reason, after=retry_after(response, datetime.now(UTC)))
        return Rejected(reason=reason)

    async def _send(self, request: Request) -> Response:
        authorised = self.upstream.dialect.outbound.authorise(request, await self._credential())
        headers = {name: secret.value() for name, secret in self.upstream.headers.items()}
        return await self._transport.send(authorised, headers)

    async def _credential(self) -> str:
        upstream = self.upstream
        try:
            key = upstream.key.value() if upstream.key else ""
        except ValueError as error:
            raise _TokenRefused(Held(str(error)), None) from None
        if not upstream.is_exchanged or upstream.dialect.outbound.exchange is None:
            return key
        now = time.monotonic()
        if self._token is None or self._token[0] != key or self._token[2] <= now:
            token = await self._exchange(upstream.dialect.outbound.exchange(upstream.settings, key))
            self._token = (key, token.value, now + token.lifetime * 0.9)
        return self._token[1]

    async def _exchange(self, call: Generator[Request, Response, Token]) -> Token:
        """Trades the key for a token; what the identity service says is judged like any answer."""
        request = next(call)
        while True:
            try:
                response = await self._transport.send(request, {})
            except Unreachable as error:
                raise _TokenRefused(_unreachable(error), None) from None
            judgement = judge(response.status, self.upstream.dialect)
            if judgement != "ok":
                reason = f"the identity service answered {response.status}"
                outcome = Again(reason=reason) if judgement == "retry" else Held(reason, response.status)
                raise _TokenRefused(outcome, response.status)
            try:
                request = call.send(response)
            except StopIteration as ended:
                token: Any = ended.value
                if isinstance(token, Token) and token.value:
                    return token
                raise _TokenRefused(Again(reason="the identity service issued no token"), response.status) from None


def _is_web_page(response: Response) -> bool:
    """Whether something between us and the vendor answered in its place."""
    return 200 <= response.status < 300 and response.headers.get("content-type", "").startswith("text/html")


class _TokenRefused(Exception):
    def __init__(self, outcome: Outcome | Held, status: int | None) -> None:
        super().__init__("no token")
        self.outcome = outcome
        self.status = status


def _unreachable(error: Unreachable) -> Outcome | Held:
    if error.is_certificate:
        return Held(f"the certificate was refused: {error.reason}")
    return Again(reason=error.reason)
