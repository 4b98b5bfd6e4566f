"""A gateway that waits only a moment for the rest of an incomplete request, so that thousands of them can be sent."""

from __future__ import annotations

import sys

from gateway.cli.commands import main
from gateway.inbound import limits
from gateway.inbound.protocol import EdgeProtocol

MOMENT = 0.15
"""Seconds."""

EdgeProtocol.header_seconds = EdgeProtocol.linger_seconds = EdgeProtocol.idle_seconds = MOMENT  # type: ignore[assignment]
limits.BODY_SECONDS = MOMENT

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
