"""Runs what reads files in a thread of its own, for which the end of the process does not wait: a file on a network
share may never answer. It must not know what is read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """The result of `work`, which goes on in its thread if nobody waits for it any more."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            found = work()
        except Exception as error:
            tell(lambda error=error: ended.set_exception(error))  # type: ignore[misc]
        else:
            tell(lambda: ended.set_result(found))

    def tell(how: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if ended.done() else how())

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await ended
