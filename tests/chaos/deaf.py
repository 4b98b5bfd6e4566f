"""A gateway whose breaker never opens, for the negative control of the promise about outages."""

from __future__ import annotations

import sys

from gateway.cli.commands import main
from gateway.delivery import breaker

breaker.TRIPS_AT = 1 << 40
breaker.RESERVE = 1e9
breaker.PER_SECOND = 1e9

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
