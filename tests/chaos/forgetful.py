"""A gateway with its store in memory, which acknowledges what it does not keep: the negative control of durability.

A harness that finds the promises about durability kept by this is broken. Takes the arguments of `serve`.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from gateway.config.loading import load
from gateway.logs import configure
from gateway.process.server import serving
from gateway.process.service import Gateway
from gateway.store.sqlite import SqliteStore


async def _serve(config: str, host: str, port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(Gateway(load(config), SqliteStore(":memory:")).app, host, port):
        await stop.wait()


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path))
@click.option("--listen", required=True)
@click.option("--log-level", default="error")
def main(config_path: Path, listen: str, log_level: str) -> None:
    """Serve from memory."""
    configure(log_level)
    host, _, port = listen.rpartition(":")
    asyncio.run(_serve(str(config_path), host, int(port)))


if __name__ == "__main__":
    main()
