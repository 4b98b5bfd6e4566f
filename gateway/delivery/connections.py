"""The connections to one upstream, over aiohttp: directly, or through the proxy that an address asks for.

Imported when something is first sent, as it takes a tenth of a second and some MiB that an idle gateway has no use for.
It must not know what the requests mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from msgspec import UNSET
from multidict import CIMultiDict

from gateway import __version__
from gateway.delivery.names import OwnResolver
from gateway.delivery.transport import Progress, Unreachable
from gateway.outcome import Request, Response
from gateway.reaching import Proxy, Reach

MOST_READ, MOST_LISTED = 64 * 1024, 8 * 1024 * 1024
"""Bytes of an answer that are read, and of one that lists alerts."""
CHUNK = 16 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_ALWAYS = {
    "User-Agent": f"alert-gateway/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}


class Connections:
    """Connections to the upstream at `url`, so many at once."""

    def __init__(self, url: str, timeout: float, concurrency: int, reach: Reach) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(connect=timeout, sock_connect=timeout / 2, sock_read=timeout)
        self._concurrency = concurrency
        self._reach = reach
        self._ways: dict[Proxy | None, aiohttp.ClientSession] = {}
        self._is_well = True  # whether the last answer was no fault of whoever gave it

    async def exchange(self, request: Request, headers: Mapping[str, str], progress: Progress) -> Response:
        """Sends a request, with further headers, and reads what is answered; notes how far it came. Raises
        `Unreachable`."""
        url = self._address(request)
        try:
            proxy = self._reach.proxy_for(url)
        except ValueError as error:
            raise Unreachable(str(error), sent=False) from None
        content, kind = _content(request)
        given = CIMultiDict(_ALWAYS)
        for more in (kind, request.headers, headers, _credentials(proxy) if url[:5].lower() == "http:" else {}):
            given.update(more)
        if not self._is_well:  # behind a balancer of connections, or another address by now, somebody else may be well
            given["Connection"] = "close"
        try:
            async with self._session(proxy).request(
                request.method,
                url,
                headers=given,
                data=content,
                allow_redirects=False,
                timeout=self._timeout,
                proxy=proxy.url if proxy else None,
                proxy_headers=_credentials(proxy) or None,
                trace_request_ctx=progress,
            ) as answer:
                self._is_well = answer.status < 500
                return await _response(answer, MOST_LISTED if request.is_list else MOST_READ)
        except aiohttp.ClientError as error:
            raise _unreachable(error, progress.sent) from None

    async def aclose(self) -> None:
        """Closes the connections of every way."""
        for session in self._ways.values():
            await session.close()

    def _address(self, request: Request) -> str:
        url = request.path if request.absolute else self._url + quote(request.path, safe="/%:@!$&'()*+,;=-._~?")
        if not request.query:
            return url
        return f"{url}{'&' if '?' in url else '?'}{urlencode(request.query)}"

    def _session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        """Connections of one way's own, which keep nothing of one alert for the next."""
        if proxy not in self._ways:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_headers_sent.append(_note_sent)
            self._ways[proxy] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._reach.context, resolver=OwnResolver(), limit=self._concurrency
                ),
                trace_configs=[tracing],
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._ways[proxy]


async def _note_sent(session: Any, context: Any, params: Any) -> None:
    context.trace_request_ctx.sent = True


def _credentials(proxy: Proxy | None) -> dict[str, str]:
    """What a proxy wants to see: with the request where it is passed on as it is, else with the tunnel alone."""
    return {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else {}


def _content(request: Request) -> tuple[bytes | None, dict[str, str]]:
    """The body as it is sent, and the header that says what it is."""
    if request.body is not UNSET:
        return msgspec.json.encode(request.body), {"Content-Type": "application/json"}
    if request.form is not UNSET:
        return urlencode(request.form).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return None, {}


async def _response(answer: aiohttp.ClientResponse, most: int) -> Response:
    if answer.status == 407:  # no upstream says that: it is the proxy's word, and no verdict on anything
        raise Unreachable("the proxy asks for credentials", sent=False, is_shut=True)
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return Response(answer.status, headers, await _read(answer, most))


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body as far as it is of use; the rest is neither read nor unpacked."""
    content = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        content += chunk
        if len(content) >= most:
            break
    raw = bytes(content[:most])
    return _unpacked(raw, most) if answer.headers.get("Content-Encoding", "identity") != "identity" else raw


def _unpacked(raw: bytes, most: int) -> bytes:
    """What an upstream packed although it was not asked to. What cannot be unpacked is left as it is: some name their
    charset there, or packed nothing."""
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(raw, most)
    except zlib.error:
        return raw


def _unreachable(error: aiohttp.ClientError, sent: bool) -> Unreachable:
    """What went wrong, in words."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        is_shut = error.status == 407
        said = "asks for credentials" if is_shut else f"answered {error.status} {error.message}"
        return Unreachable(f"the proxy {said}", sent=False, is_shut=is_shut)
    return Unreachable(
        f"{type(error).__name__}: {error}",
        sent=sent,
        is_certificate=isinstance(error, aiohttp.ClientConnectorCertificateError),
    )
