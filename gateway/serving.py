"""`serve`: a gateway as a process. Signals are owned here: on SIGTERM the gateway is no longer ready, serves on for a
while so that balancers notice, then drains and exits. It must not know any vendor."""

from __future__ import annotations

import asyncio
import signal

import structlog

from gateway.config import Config
from gateway.errors import StoreError
from gateway.logs import configure
from gateway.server import serving
from gateway.service import Gateway

log = structlog.get_logger()
LINGER = 3.0
"""Seconds between the end of readiness and the end of listening."""


def run(config: Config, log_level: str) -> int:
    """Serves until SIGTERM or SIGINT; answers the exit status."""
    configure(log_level)
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, *config.listen))
    except StoreError as error:
        log.critical("store.unusable", reason=str(error))
        return 1


async def _serve(config: Config, host: str, port: int) -> int:
    gateway = Gateway(config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with gateway.running():
        try:
            async with serving(gateway.app, host, port) as url:
                log.info("serving", url=url, dialects=list(config.inbounds), upstreams=list(config.upstreams))
                await stop.wait()
                gateway.is_draining = True
                log.info("draining", seconds=LINGER)
                await asyncio.sleep(LINGER)
        except OSError as error:
            log.critical("listen.failed", host=host, port=port, reason=str(error))
            return 1
    log.info("stopped")
    return 0
