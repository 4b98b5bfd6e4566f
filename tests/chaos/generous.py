"""A gateway that accepts a MiB of headers, for the negative control of the promise about hostile HTTP."""

from __future__ import annotations

import sys

from gateway.cli.commands import main
from gateway.inbound.protocol import EdgeProtocol

EdgeProtocol.headers_most = 1 << 20

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
