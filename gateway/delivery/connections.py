"""The connections to one upstream, over aiohttp: directly, or through the proxy configured for an address.

Imported when something is first sent, as it takes a tenth of a second and some MiB that an idle gateway does not need.
It must not know what the requests mean.
"""

from __future__ import annotations

import os
import socket
import ssl
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
from gateway.network.reaching import Proxy, Reach
from gateway.outcome import Request, Response

MOST_READ, MOST_LISTED = 64 * 1024, 8 * 1024 * 1024
"""The most bytes read of an answer, and of one that lists alerts."""
REPEATED = 8
"""The most bytes read of an answer for each byte sent, where that is more than `MOST_READ`: many vendors repeat what
they were sent, some with up to six bytes for one (`\\u003c`), and the id may come last."""
CHUNK = 16 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_ALWAYS = {
    "User-Agent": f"alert-gateway/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}


class Connections:
    """Connections to the upstream at `url`, at most `concurrency` at once."""

    def __init__(self, url: str, timeout: float, concurrency: int, reach: Reach) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(connect=timeout, sock_connect=timeout / 2, sock_read=timeout)
        self._concurrency = concurrency
        self._reach = reach
        self._ways: dict[Proxy | None, aiohttp.ClientSession] = {}
        self._is_well = True  # whether the last answer's status was below 500

    async def exchange(self, request: Request, headers: Mapping[str, str], progress: Progress) -> Response:
        """Sends a request, with further headers, and reads the answer; notes in `progress` how far it got. Raises
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
        if not self._is_well:  # a new connection may reach a healthy server behind a balancer or a changed address
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
                most = MOST_LISTED if request.is_list else max(MOST_READ, REPEATED * len(content or b""))
                return await _response(answer, most)
        except aiohttp.ClientError as error:
            raise _unreachable(error, progress.sent) from None

    async def aclose(self) -> None:
        """Closes the connections of every proxy, and the direct ones."""
        for session in self._ways.values():
            await session.close()

    def _address(self, request: Request) -> str:
        url = request.path if request.absolute else self._url + quote(request.path, safe="/%:@!$&'()*+,;=-._~?")
        if not request.query:
            return url
        return f"{url}{'&' if '?' in url else '?'}{urlencode(request.query)}"

    def _session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        """The session for one proxy, or for none; it keeps no cookies, so nothing of one alert is sent with the
        next."""
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
    """The proxy's credentials as a header: of the request itself if it is plain HTTP, else only of the CONNECT."""
    return {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else {}


def _content(request: Request) -> tuple[bytes | None, dict[str, str]]:
    """The encoded body, and the Content-Type header for it."""
    if request.body is not UNSET:
        return msgspec.json.encode(request.body), {"Content-Type": "application/json"}
    if request.form is not UNSET:
        return urlencode(request.form).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return None, {}


async def _response(answer: aiohttp.ClientResponse, most: int) -> Response:
    if answer.status == 407:  # the proxy's answer, as no upstream sends it: no verdict
        raise Unreachable("the proxy asks for credentials", sent=False, is_shut=True)
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return Response(answer.status, headers, await _read(answer, most))


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body up to `most` bytes; the rest is neither read nor decompressed."""
    content = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        content += chunk
        if len(content) >= most:
            break
    raw = bytes(content[:most])
    return _unpacked(raw, most) if answer.headers.get("Content-Encoding", "identity") != "identity" else raw


def _unpacked(raw: bytes, most: int) -> bytes:
    """Decompresses an answer that was compressed although the request asked for none. Left as it is if that fails: some
    servers put their charset in Content-Encoding, or compressed nothing."""
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(raw, most)
    except zlib.error:
        return raw


def _unreachable(error: aiohttp.ClientError, sent: bool) -> Unreachable:
    """The `Unreachable` for a client error, in words for whoever looks into it at night."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        is_shut = error.status == 407
        said = "asks for credentials" if is_shut else f"answered {error.status} {error.message}"
        return Unreachable(f"the proxy {said}", sent=False, is_shut=is_shut)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = "no acceptable certificate"
        reason = f"{_peer(error)} has {why}: {error.certificate_error}"
        return Unreachable(reason, sent=sent, is_certificate=True, why=why)
    if isinstance(error, aiohttp.ClientConnectorError):
        why = _system_words(error.os_error)
        return Unreachable(f"cannot connect to {_peer(error)}: {why}", sent=sent, why=why)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unreachable("the connection was closed without an answer", sent=sent)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unreachable("the connection was not made in time", sent=sent)
    if isinstance(error, aiohttp.ClientOSError):
        return Unreachable(f"the connection broke: {_system_words(error)}", sent=sent)
    if isinstance(error, aiohttp.ClientResponseError):  # as text it quotes the address, in which a key may stand
        return Unreachable(f"the answer is not HTTP: {' '.join(error.message.split())}", sent=sent)
    return Unreachable(f"{type(error).__name__}: {error}", sent=sent)


def _peer(error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorError) -> str:
    """Whom a connection was for."""
    whom = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    return f"{whom}[{error.host}]:{error.port}" if ":" in error.host else f"{whom}{error.host}:{error.port}"


def _system_words(error: OSError) -> str:
    """What went wrong in the system's words: those of the client quote addresses and its own settings."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if error.errno and error.errno > 0 and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
