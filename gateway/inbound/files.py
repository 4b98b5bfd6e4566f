"""Leaves files for what is not a caller's connection. A process may have only so many open: if callers took them all,
nothing could be delivered, and neither operators nor probes would be answered.

It must not know what a connection is for.
"""

from __future__ import annotations

import resource
import time

import structlog

log = structlog.get_logger()
KEPT = 128
"""Files that callers leave: for connections to upstreams and of operators, and for what is read. Where a process may
have few, a quarter of these."""
SAID_AGAIN = 60.0
"""Seconds after which it is logged again that connections are refused."""
REASON = (
    "the process may open no more files than `most`, and has to keep some: raise LimitNOFILE or `ulimit -n`, or find "
    "out who keeps so many connections"
)


class Room:
    """Whether a new connection may stay, as long as `kept` files are left."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._said_until = 0.0

    def has(self, number: int) -> bool:
        """Whether there is room for the file of this number: numbers are given out from below."""
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most == resource.RLIM_INFINITY or number < most - min(self._kept, most // 4):
            return True
        if (now := time.monotonic()) >= self._said_until:
            self._said_until = now + SAID_AGAIN
            log.error("connections.refused", most=most, reason=REASON)
        return False
