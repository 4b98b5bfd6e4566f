"""A gateway that does not recognise its own name in what comes back, for the negative control of promise 25."""

from __future__ import annotations

import sys
from typing import Any

from gateway.cli.commands import main
from gateway.road.outbox import Outbox


def _never(self: Outbox, via: Any) -> bool:
    return False


Outbox.has_seen = _never  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
