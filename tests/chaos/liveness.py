"""Promise 24: liveness ignores upstreams, readiness means "can make an alert durable". Under each fault of an upstream
the gateway stays alive and ready, and answers both at once. When its store becomes full it stays alive, says within two
seconds that it is not ready, and is ready again when there is room.

    python -m tests.chaos.liveness --seconds 3
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import httpx

from gateway.logs import configure
from tests.chaos.bounded import MODES
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import Behaviour, chaos, say
from tests.engine.vendors import before, fill, heal, page, table
from tests.harness import House

MOST = 2.0
FAULTS: tuple[Behaviour, ...] = (*MODES, say(401), say(403), say(429, headers={"retry-after": "3600"}))


class Watch:
    """An orchestrator's probes, and what they saw."""

    def __init__(self, h: House) -> None:
        self._h = h
        self._client = httpx.Client(timeout=5, base_url=h.url)
        self.probes = 0
        self.slowest = 0.0
        self.unalive = 0

    def probe(self) -> bool:
        """Probes liveness and readiness; returns whether it is ready."""
        began = time.monotonic()
        self.unalive += self._client.get("/-/healthy").status_code != 200
        ready = self._client.get("/-/ready").status_code == 200
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.probes += 1
        return ready

    def until(self, ready: bool, seconds: float) -> float:
        """Probes until it is `ready`, or not ready; returns the seconds that took."""
        began = time.monotonic()
        while self.probe() is not ready and time.monotonic() - began < seconds:
            time.sleep(0.02)
        return time.monotonic() - began

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()


def measure(seconds: float, *, is_filled: bool = True) -> Result:
    """Applies each fault for `seconds`, then fills the store."""
    unready: list[str] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        chaos(say(202, {})) as upstream,
        before(Path(directory), table("oncall", upstream.url, "ilert", timeout="1s")) as h,
    ):
        watch = Watch(h)
        for fault in FAULTS:
            upstream.always(fault)
            ends, number = time.monotonic() + seconds, 0
            while number == 0 or time.monotonic() < ends:
                page(h, f"{fault.name}-{number}")
                number += 1
                if not watch.probe():
                    unready.append(fault.name)
                time.sleep(0.02)
        until_unready, until_ready = _full_store(h, watch) if is_filled else (0.0, 0.0)
        watch.close()
    broken = [f"not ready because of an upstream: {name}" for name in sorted(set(unready))]
    if watch.unalive:
        broken.append(f"{watch.unalive} liveness probes failed")
    if max(until_unready, until_ready) > MOST:
        broken.append("readiness did not follow the store in time")
    figures = {
        "faults": len(FAULTS),
        "probes": watch.probes,
        "found dead": watch.unalive,
        "not ready for an upstream": len(unready),
        "slowest probe": f"{watch.slowest * 1000:.0f} ms",
        "full store": f"not ready after {until_unready:.2f} s, ready again after {until_ready:.2f} s",
    }
    return Result("24", figures, broken)


def _full_store(h: House, watch: Watch) -> tuple[float, float]:
    """Fills the store; returns the seconds until the gateway is not ready, and until it is ready again with room."""
    fill(h)
    for number in range(200):  # uses up the room left in its pages
        event = {"monitor_id": "m", "type": "down", "message": "x" * 4000 + str(number)}
        if h.call("POST", "/uptinio/alerts", event).status == 503:
            break
    until_unready = watch.until(False, 10)
    heal(h)
    return until_unready, watch.until(True, 10)


def main() -> int:
    """The command."""
    configure("critical")
    return measure(numbers(__doc__ or "", seconds=3).seconds).tell()


if __name__ == "__main__":
    sys.exit(main())
