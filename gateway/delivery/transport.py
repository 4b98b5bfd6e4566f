"""The HTTP client: one request to one upstream, bounded in time and in what is read back.

Redirects are not followed, nothing of an alert is ever fetched, and addresses come from the configuration alone.
It must not know what the requests mean.
"""

from __future__ import annotations

import asyncio
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
from gateway.dialect import Request, Response

MOST_READ = 64 * 1024
MOST_LISTED = 8 * 1024 * 1024
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Unreachable(Exception):
    """No answer: `sent` says whether the upstream may have taken the request all the same, `is_certificate` that
    its certificate was refused."""

    def __init__(self, reason: str, *, sent: bool, is_certificate: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.is_certificate = is_certificate


class Transport:
    """Requests to one upstream at `url`, each ended after `timeout` seconds whatever happens."""

    def __init__(self, url: str, timeout: float, concurrency: int) -> None:
        self._url = url
        self._timeout = timeout
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(limits=limits),
            timeout=timeout,
            follow_redirects=False,
            headers={
                "user-agent": f"alert-gateway/{__version__}",
                "accept": "application/json",
                "accept-encoding": "identity",
            },
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Sends a request, with further headers; raises `Unreachable`."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request, headers)
        except TimeoutError:
            raise Unreachable(f"no answer within {self._timeout:g} s", sent=True) from None
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            raise _unreachable(error) from None

    async def _exchange(self, request: Request, headers: Mapping[str, str]) -> Response:
        url = request.path if request.absolute else self._url + quote(request.path, safe="/%:@!$&'()*+,;=-._~?")
        body: dict[str, Any] = {}
        extra: dict[str, str] = {}
        if request.body is not UNSET:
            body["content"] = msgspec.json.encode(request.body)
            extra["content-type"] = "application/json"
        elif request.form is not UNSET:
            body["data"] = dict(request.form)
        built = self._client.build_request(
            request.method,
            url,
            params=dict(request.query) or None,
            headers={**extra, **request.headers, **headers},
            **body,
        )
        most = MOST_LISTED if request.is_list else MOST_READ
        answer = await self._client.send(built, stream=True)
        try:
            return Response(answer.status_code, dict(answer.headers), await _read(answer, most))
        finally:
            await answer.aclose()


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


def _unreachable(error: Exception) -> Unreachable:
    """What went wrong, from the client below: the adapter above it calls a refused connection a timeout."""
    cause: BaseException = error.__cause__ or error.__context__ or error
    return Unreachable(
        f"{type(cause).__name__}: {cause}",
        sent=not isinstance(cause, aiohttp.ClientConnectorError),
        is_certificate=isinstance(cause, aiohttp.ClientConnectorCertificateError),
    )
