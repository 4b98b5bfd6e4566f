"""Gateway processes for the harnesses: their configuration, a timed start, and whether one is ready or has drained. A
gateway is started as an operator would, `python -m gateway.cli serve`, and killed by its own id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from gateway.store import DeliveryFilter, DeliveryRow, Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos.load import CALLER_KEY
from tests.chaos.sink import ROOT

GATEWAY = ("-m", "gateway.cli", "serve")
FORGETFUL = ("-m", "tests.chaos.forgetful")
"""A gateway that breaks the promises about durability: the negative control."""
UPSTREAM_KEY = "chaos-upstream-key-0123456789"
CONCURRENCY = 8


def free_port() -> int:
    """Returns a free port on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def configuration(
    directory: Path,
    upstream: str,
    *,
    top: str = "",
    store: Path | None = None,
    retry: tuple[str, str] = ("20ms", "200ms"),
) -> Path:
    """Writes the configuration of a gateway in front of one upstream; returns its path."""
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{store or directory / "gateway.db"}"\n{top}\n'
        f'[inbound.ilert]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n'
        f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream}"\nkey = "{UPSTREAM_KEY}"\n'
        f'retry = {{ first = "{retry[0]}", most = "{retry[1]}" }}\nconcurrency = {CONCURRENCY}\n'
    )
    return path


class Process:
    """A gateway in a process of its own, listening on `port`."""

    def __init__(
        self,
        config: Path,
        port: int,
        *,
        program: tuple[str, ...] = GATEWAY,
        log_level: str = "error",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        arguments = ["--config", str(config), "--listen", f"127.0.0.1:{port}", "--log-level", log_level]
        self.log = config.parent / "gateway.log"
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **(environ or {})},
            )
        self.url = f"http://127.0.0.1:{port}"
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running.pid

    async def get(self, path: str, client: httpx.AsyncClient) -> httpx.Response | None:
        """Gets a path of the gateway; returns None if there is no answer."""
        try:
            return await client.get(self.url + path, timeout=5)
        except httpx.HTTPError:
            return None

    async def ready(self, within: float = 30.0) -> float:
        """Waits until the gateway says that it is ready; returns how many seconds after its start that was."""
        async with httpx.AsyncClient() as client:
            while time.monotonic() < self.started + within:
                answer = await self.get("/-/ready", client)
                if answer is not None and answer.status_code == 200:
                    return time.monotonic() - self.started
                if self._running.poll() is not None:
                    break
                await asyncio.sleep(0.01)
        raise AssertionError(f"the gateway was not ready within {within:g} s: {self.log.read_text()[-2000:]}")

    async def drained(self, within: float = 120.0, every: float = 0.1) -> bool:
        """Waits until nothing waits in the outbox, looking every so many seconds; returns whether that was in time."""
        end = time.monotonic() + within
        async with httpx.AsyncClient() as client:
            while time.monotonic() < end:
                answer = await self.get("/metrics", client)
                if answer is not None and _waiting(answer.text) == 0:
                    return True
                await asyncio.sleep(every)
        return False

    def resident(self) -> float:
        """Returns the most memory that the process ever had, in MiB."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) / 1024

    def kill(self) -> None:
        """Sends SIGKILL, whatever it is doing; waits until it is gone."""
        self._running.kill()
        self._running.wait()

    async def terminate(self, within: float = 40.0) -> int:
        """Sends SIGTERM; returns the exit status, -9 if it had to be killed."""
        self._running.terminate()
        try:
            return await asyncio.to_thread(self._running.wait, within)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9


def _waiting(metrics: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith("alert_gateway_waiting_deliveries{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if lines else -1


@contextlib.asynccontextmanager
async def running(config: Path, port: int, **how: Any) -> AsyncIterator[Process]:
    """Runs a gateway; yields it once it is ready, and kills it at the end if it is still there."""
    process = Process(config, port, **how)
    try:
        await process.ready()
        yield process
    finally:
        process.kill()


async def outbox(path: Path, *, is_whole: bool = True) -> list[DeliveryRow]:
    """Returns every delivery in a store's file; none if there is no file. Checks that the ledger adds up (promise 30),
    unless it is not `is_whole`, as a negative control has taken something out."""
    if not path.exists():  # noqa: ASYNC240  (nothing else runs by then)
        return []
    async with SqliteStore(str(path), exclusive=False) as store:
        return await store.read(added_up if is_whole else _all)


def added_up(tx: Tx) -> list[DeliveryRow]:
    """Returns every delivery of a store; raises `AssertionError` if the ledger of any caller does not add up."""
    wrong = [line for line in tx.ledger(0, "caller") if not line.adds_up]
    assert not wrong, f"the ledger does not add up: {wrong}"
    return _all(tx)


def _all(tx: Tx) -> list[DeliveryRow]:
    return tx.deliveries(DeliveryFilter(limit=10_000_000))
