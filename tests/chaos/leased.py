"""A replica whose lease is short enough for a test to wait for, and which can be given a fault for negative controls.

`python -m tests.chaos.leased SECONDS FAULT …`, followed by the arguments of `serve`. `none`: the gateway as it is.
`heedless`: it records outcomes although another replica has taken the delivery over. `unmoved`: when the server's clock
is set, what waits does not move along.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from msgspec import structs

from gateway.cli import commands as cli
from gateway.delivery import lanes
from gateway.process import service
from gateway.road.preparing import Shipment
from gateway.road.settling import Verdict, settle
from gateway.store import Tx
from gateway.store.opening import open_store


def leased(seconds: float, fault: str = "none") -> tuple[str, ...]:
    """Returns the arguments that start this program."""
    return ("-m", "tests.chaos.leased", str(seconds), fault)


def _heedless(tx: Tx, shipment: Shipment, *outcome: Any, **more: Any) -> Verdict:
    found = tx.delivery(shipment.delivery.id)
    if found is not None:
        structs.force_setattr(shipment.delivery, "fence", found.fence)
    return settle(tx, shipment, *outcome, **more)


def main() -> None:
    """Serve."""
    service.open_store = partial(open_store, lease=float(sys.argv[1]))  # type: ignore[attr-defined]
    if sys.argv[2] == "heedless":
        lanes.settle = _heedless  # type: ignore[attr-defined]
    if sys.argv[2] == "unmoved":
        from gateway.store.postgres_clock import SteadyClock

        SteadyClock.shift = property(lambda clock: 0)  # type: ignore[assignment,method-assign]
    cli.main(["serve", *sys.argv[3:]])


if __name__ == "__main__":
    main()
