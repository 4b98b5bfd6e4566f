"""A gateway in a process of its own, which ends by SIGKILL, as a power cut or the kernel would have it.

The process is forked from one that has all of the code already, so that another start takes no time. Its clock is ahead
by what was skipped, and it does at once what else takes seconds: the pauses of a breaker, housekeeping, the first look
for a receipt. Over a pipe it is told to load its configuration again, and how much time passes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from datetime import datetime, timedelta, tzinfo
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.config.loading import load
from gateway.delivery import breaker, lanes
from gateway.delivery.looking import Looked
from gateway.inbound import surface
from gateway.logs import configure
from gateway.process import service
from gateway.process.server import serving
from gateway.process.service import Gateway
from mappings.opsgenie import steps

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


class _Ahead:
    """By how many seconds this process is ahead of the wall's clock."""

    seconds = 0.0


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        """The wall's time, and what was skipped of it."""
        return datetime.now(tz) + timedelta(seconds=_Ahead.seconds)


def _hurry() -> None:
    """What takes seconds in earnest is done at once."""
    Clock._wall = staticmethod(lambda: time.time() - time.monotonic() + _Ahead.seconds)  # type: ignore[method-assign]
    surface.datetime = _Datetime  # type: ignore[attr-defined]
    breaker.FIRST_PAUSE = breaker.HELD_PAUSE = 0.05
    breaker.LONGEST_PAUSE, breaker.PER_SECOND = 0.1, 1000.0
    service.HOUSEKEEPING = 0.05
    steps.FIRST_LOOK = 0.01


async def _serve(config: Path, orders: Connection) -> None:
    running = Gateway(load(config))
    async with serving(running.app) as url:
        told: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

        def hear() -> None:
            try:
                told.put_nowait(orders.recv())
            except EOFError:
                os._exit(0)  # whoever plays is gone

        asyncio.get_running_loop().add_reader(orders.fileno(), hear)
        orders.send(url)
        while True:
            what, seconds = await told.get()
            if what == "reload":
                await running.reload(load(config))
            else:
                _Ahead.seconds += seconds
                running.clock.follow(seconds)
                running.wake()
            orders.send("done")


async def _blind(*given: object) -> Looked:
    return Looked()


def _main(config: Path, ahead: float, orders: Connection, is_blind: bool) -> None:
    with log_beside(config).open("ab") as file:
        os.dup2(file.fileno(), 2)
    _Ahead.seconds = ahead
    _hurry()
    if is_blind:
        lanes.look = _blind  # type: ignore[attr-defined, assignment]
    configure("error")
    asyncio.run(_serve(config, orders))


def log_beside(config: Path) -> Path:
    """Where a gateway with this configuration logs what goes wrong."""
    return config.parent / "gateway.log"


class Process:
    """A gateway that serves; `url` is where. One that is blind does not look for what it may have made already: the
    negative control."""

    def __init__(self, config: Path, ahead: float, *, is_blind: bool = False) -> None:
        self._orders, theirs = _forks.Pipe()
        self._running = _forks.Process(target=_main, args=(config, ahead, theirs, is_blind), daemon=True)
        self._running.start()
        theirs.close()
        self.url = ""

    async def ready(self) -> None:
        """Waits until it serves."""
        self.url = await self._hear()

    async def _hear(self) -> Any:
        try:
            return await asyncio.to_thread(self._orders.recv)
        except EOFError:
            raise AssertionError("the gateway's process has ended") from None

    async def told(self, what: str, seconds: float = 0.0) -> None:
        """Has it do something, and waits until it is done."""
        self._orders.send((what, seconds))
        await self._hear()

    async def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        self._running.kill()
        await asyncio.to_thread(self._running.join)
        self._orders.close()
