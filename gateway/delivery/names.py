"""Resolves the host names of upstreams, each lookup in a thread of its own: a name service that hangs for one upstream
must not delay another's lookups, nor keep the process from ending. It must not know what the names are for.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_ASKED = socket.AI_ADDRCONFIG
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class OwnResolver(AbstractResolver):
    """Asks the system's name service in a thread per lookup. Several addresses are rotated each time: one that accepts
    connections but never answers would be tried for ever otherwise."""

    def __init__(self) -> None:
        self._asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host; raises `OSError` where it has none."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def ask() -> None:
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=_ASKED)
                _hand_over(loop, found, infos, None)
            except OSError as error:
                _hand_over(loop, found, [], error)

        threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
        infos = await found
        first = self._asked % len(infos)
        self._asked += 1
        return [_result(host, info) for info in infos[first:] + infos[:first]]

    async def close(self) -> None:
        """Does nothing: nothing is kept open."""


def _hand_over(
    loop: asyncio.AbstractEventLoop, found: asyncio.Future[list[Any]], infos: list[Any], error: OSError | None
) -> None:
    def settle() -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(infos)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop has ended, and the caller with it


def _result(hostname: str, info: Any) -> ResolveResult:
    family, _, proto, _, address = info
    host = str(address[0])
    if family == socket.AF_INET6 and len(address) > 3 and address[3]:  # a link-local address needs its scope id
        host = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return ResolveResult(hostname=hostname, host=host, port=address[1], family=family, proto=proto, flags=_NUMERIC)
