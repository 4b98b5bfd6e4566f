"""The HTTP client: one request to one upstream, bounded in time and in the size of the answer that is read.

Redirects are not followed, no URL in an alert is ever fetched, and addresses come from the configuration alone. It must
not know what the requests mean.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.network.reaching import Reach
from gateway.outcome import Request, Response

if TYPE_CHECKING:
    from gateway.delivery.connections import Connections


CLIENT = "gateway.delivery.connections"
"""The module imported when something is first sent."""


class Unreachable(Exception):
    """No answer came: `sent` says whether the upstream may have received the request all the same, `is_certificate`
    that its certificate was refused, `is_shut` that a proxy refused our credentials or demands some. `why` is the
    reason without what may be the address, which can be a secret."""

    def __init__(
        self, reason: str, *, sent: bool, is_certificate: bool = False, is_shut: bool = False, why: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.why = why or reason.partition(":")[0]
        self.sent = sent
        self.is_certificate = is_certificate
        self.is_shut = is_shut


class Progress:
    """How far a request got: whether any of it was sent."""

    sent = False


class Transport:
    """Sends requests to the upstream at `url`, each ended after `timeout` seconds whatever happens."""

    def __init__(self, url: str, timeout: float, concurrency: int, reach: Reach | None = None) -> None:
        self._url = url
        self._timeout = timeout
        self._concurrency = concurrency
        self._reach = reach or Reach()
        self._making = asyncio.Lock()
        self._made: Connections | None = None

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._made is not None:
            await self._made.aclose()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Sends a request, with further headers; raises `Unreachable`."""
        progress = Progress()
        try:
            self._reach.look()
        except (ValueError, OSError) as error:  # nothing was ever sent: the certificate files are missing, or no pair
            raise Unreachable(str(error), sent=False) from None
        connections = self._made or await self._connections()  # outside the timeout: it may import
        try:
            async with asyncio.timeout(self._timeout):
                return await connections.exchange(request, headers, progress)
        except TimeoutError:
            what = "no answer" if progress.sent else "no connection"
            raise Unreachable(f"{what} within {self._timeout:g} s", sent=progress.sent) from None

    async def _connections(self) -> Connections:
        """The connections, made with the first request by one caller at a time. The client is imported in a thread, so
        that the event loop is not blocked."""
        async with self._making:
            if self._made is None:
                client = await asyncio.to_thread(importlib.import_module, CLIENT)
                self._made = client.Connections(self._url, self._timeout, self._concurrency, self._reach)
            return self._made
