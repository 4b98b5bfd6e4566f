"""Pings the address of the heartbeat. It must not know why it is pinged, nor any vendor."""

from __future__ import annotations

import structlog

from gateway.config.config import Heartbeat
from gateway.delivery.transport import Transport, Unreachable
from gateway.outcome import Request

log = structlog.get_logger()
LONGEST = 10.0
"""Seconds that a ping may take."""


async def ping(heartbeat: Heartbeat) -> None:
    """Sends one ping; a failure is logged, without the address, which is a secret."""
    transport = Transport("", LONGEST, 1, heartbeat.reach)
    try:
        request = Request(method="GET", path=heartbeat.url.value(), absolute=True)
        answer = await transport.send(request, {})
        if answer.status >= 300:  # no redirect is followed, so one has reached nobody
            log.error("heartbeat.refused", status=answer.status)
    except Unreachable as error:
        log.error("heartbeat.unreachable", reason=error.why)
    except ValueError as error:
        log.error("heartbeat.unreachable", reason=type(error).__name__)
    finally:
        await transport.aclose()
