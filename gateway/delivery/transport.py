"""The HTTP client: one request to one upstream, bounded in time and in what is read back.

Redirects are not followed, nothing of an alert is ever fetched, and addresses come from the configuration alone.
It must not know what the requests mean.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport
from msgspec import UNSET

from gateway import __version__
from gateway.delivery.names import OwnResolver
from gateway.dialect import Request, Response
from gateway.reaching import Proxy, Reach

MOST_READ = 64 * 1024
MOST_LISTED = 8 * 1024 * 1024
_USUAL = {
    "user-agent": f"alert-gateway/{__version__}",
    "accept": "application/json",
    "accept-encoding": "identity",
    "connection": "keep-alive",
}
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Unreachable(Exception):
    """No answer: `sent` says whether the upstream may have taken the request all the same, `is_certificate` that
    its certificate was refused, `is_shut` that a proxy does not let us through with the credentials we have."""

    def __init__(self, reason: str, *, sent: bool, is_certificate: bool = False, is_shut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.is_certificate = is_certificate
        self.is_shut = is_shut


class _Progress:
    """How far a request came: whether any of it was sent."""

    sent = False


_under_way: contextvars.ContextVar[_Progress] = contextvars.ContextVar("request")


class Transport:
    """Requests to one upstream at `url`, each ended after `timeout` seconds whatever happens."""

    def __init__(self, url: str, timeout: float, concurrency: int, reach: Reach | None = None) -> None:
        self._url = url
        self._timeout = timeout
        self._reach = reach or Reach()
        # Not httpx's client, but what is below it: there is nothing to redirect, to authorise or to keep cookies of,
        # and looking for it costs as much as the request.
        self._ways = _Ways(self._reach, concurrency)
        self._extensions = {"timeout": httpx.Timeout(timeout, connect=timeout / 2).as_dict()}

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._ways.aclose()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Sends a request, with further headers; raises `Unreachable`."""
        progress = _Progress()
        _under_way.set(progress)
        self._reach.look(self._url)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request, headers)
        except TimeoutError:
            what = "no answer" if progress.sent else "no connection"
            raise Unreachable(f"{what} within {self._timeout:g} s", sent=progress.sent) from None
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            raise _unreachable(error, progress.sent) from None
        except _BadProxy as error:
            raise Unreachable(str(error), sent=False) from None

    def _built(self, request: Request, headers: Mapping[str, str]) -> httpx.Request:
        url = request.path if request.absolute else self._url + quote(request.path, safe="/%:@!$&'()*+,;=-._~?")
        body: dict[str, Any] = {}
        extra: dict[str, str] = {}
        if request.body is not UNSET:
            body["content"] = msgspec.json.encode(request.body)
            extra["content-type"] = "application/json"
        elif request.form is not UNSET:
            body["data"] = dict(request.form)
        return httpx.Request(
            request.method,
            _address(url),
            params=dict(request.query) or None,
            headers={**_USUAL, **extra, **request.headers, **headers},
            extensions=self._extensions,
            **body,
        )

    async def _exchange(self, request: Request, headers: Mapping[str, str]) -> Response:
        most = MOST_LISTED if request.is_list else MOST_READ
        answer = await self._ways.handle_async_request(self._built(request, headers))
        try:
            if answer.status_code == 407:  # no upstream says that: it is the proxy's word, and no verdict on anything
                raise Unreachable("the proxy asks for credentials", sent=False, is_shut=True)
            return Response(answer.status_code, dict(answer.headers), await _read(answer, most))
        finally:
            await answer.aclose()


@functools.lru_cache(256)
def _address(text: str) -> httpx.URL:
    """An address taken apart: most requests go to one that is known."""
    return httpx.URL(text)


async def _read(answer: httpx.Response, most: int) -> bytes:
    """The body as far as it is of use; the rest is neither read nor unpacked."""
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) >= most:
            break
    raw = bytes(content[:most])
    return _unpacked(raw, most) if answer.headers.get("content-encoding", "identity") != "identity" else raw


def _unpacked(raw: bytes, most: int) -> bytes:
    """What an upstream packed although it was not asked to; nothing where it cannot be unpacked."""
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(raw, most)
    except zlib.error:
        return b""


class _BadProxy(Exception):
    """What names the proxy names none."""


class _Ways(httpx.AsyncBaseTransport):
    """Each request goes directly or through the proxy that its address asks for, over connections of that way."""

    def __init__(self, reach: Reach, concurrency: int) -> None:
        self._reach = reach
        self._concurrency = concurrency
        self._ways: dict[Proxy | None, AiohttpTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request on its way."""
        try:
            proxy = self._reach.proxy_for(str(request.url))
        except ValueError as error:
            raise _BadProxy(str(error)) from None
        if proxy not in self._ways:
            headers = {"proxy-authorization": proxy.authorization} if proxy and proxy.authorization else None
            asked = httpx.Proxy(proxy.url, headers=headers) if proxy else None
            # It would read the usual authorities for nothing: the session brings its own context.
            self._ways[proxy] = AiohttpTransport(verify=False, proxy=asked, client=self._session)
        if proxy and proxy.authorization and request.url.scheme == "http":  # else it is for the tunnel alone
            request.headers["proxy-authorization"] = proxy.authorization
        return await self._ways[proxy].handle_async_request(request)

    def _session(self) -> aiohttp.ClientSession:
        """Connections of one upstream's own. What was sent is noted: only that may have been taken."""
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        connector = aiohttp.TCPConnector(ssl=self._reach.context, resolver=OwnResolver(), limit=self._concurrency)
        return aiohttp.ClientSession(connector=connector, trace_configs=[tracing])

    async def aclose(self) -> None:
        """Closes the connections of every way."""
        for way in self._ways.values():
            await way.aclose()


async def _note_sent(session: Any, context: Any, params: Any) -> None:
    if progress := _under_way.get(None):
        progress.sent = True


def _unreachable(error: Exception, sent: bool) -> Unreachable:
    """What went wrong, from the client below: the adapter above it calls a refused connection a timeout."""
    cause: BaseException = error.__cause__ or error.__context__ or error
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        is_shut = cause.status == 407
        said = "asks for credentials" if is_shut else f"answered {cause.status} {cause.message}"
        return Unreachable(f"the proxy {said}", sent=False, is_shut=is_shut)
    return Unreachable(
        f"{type(cause).__name__}: {cause}",
        sent=sent,
        is_certificate=isinstance(cause, aiohttp.ClientConnectorCertificateError),
    )
