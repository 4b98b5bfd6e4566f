"""The promises about several gateways over one PostgreSQL, in short: each command at a size that fits a test run, and
the negative controls that fit beside it. They wait most of their time, so they run at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.failover import failover
from tests.chaos.leased import leased
from tests.chaos.load import Told
from tests.chaos.replicas import replicas
from tests.chaos.replicated import Replica, until
from tests.chaos.rolling import rolling, workers
from tests.chaos.sink import sink
from tests.chaos.verdicts import Verdict
from tests.postgres_server import shared

LEASE = 1.5
PATIENCE = 20.0
"""Seconds that a caller waits for a verdict: far more than the lease, so that it is seen who told it."""
ABOUT_TIME = ("not all was taken over", "did not drain", "not healthy again", "were sent and got no answer")
"""What depends on how busy the machine is: the commands judge it, these tests do not."""


async def _told_by_another(directory: Path) -> Verdict:
    """The only place of the first replica is taken for long, so the other one sends what waits there."""
    url, first = shared().database(), leased(LEASE)
    top, inbound = f'reply_timeout = "{PATIENCE:g}s"', 'reply = "delivered"'
    with sink(directory) as upstream:
        upstream.mood(delays={"slow": 9.0})
        here = Replica(directory, 0, url, upstream.url, program=first, inbound=inbound, top=top, concurrency=1).start()
        there: Replica | None = None
        try:
            await here.process.ready()
            async with httpx.AsyncClient(base_url=here.process.url, timeout=2 * PATIENCE) as client:

                def page(nonce: str) -> Coroutine[Any, Any, httpx.Response]:
                    return client.post("/api/events", content=Told(nonce, "ALERT", True, 0).body())

                there = Replica(directory, 1, url, upstream.url, program=first).start()
                await there.process.ready()
                slow = asyncio.create_task(page("slow"))
                await until(lambda: upstream.count("ALERT", "slow") > 0, 10, 0.02)
                began = time.monotonic()
                answer = await page("quick")
                took = time.monotonic() - began
                slow.cancel()
            verdict = Verdict({"s until the caller was told": took, "sent": upstream.count("ALERT", "quick")})
        finally:
            for one in (here, there):
                if one is not None:
                    one.process.kill()
    verdict.hold(answer.status_code == 202, f"the caller was told {answer.status_code}")
    verdict.hold(verdict.figures["sent"] == 1, "it was not sent exactly once")
    verdict.hold(took < PATIENCE - 1, "the caller was not told in time")
    return verdict


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """What each came to."""

    def place(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    heedless = leased(LEASE, "heedless")
    runs = {
        "replicas": replicas(place("replicas"), 2, lease=LEASE, rate=10.0, program=leased(LEASE)),
        "heedless": replicas(place("heedless"), 1, lease=LEASE, rate=2.0, program=heedless, kills_too=False),
        "failover": failover(place("failover"), ("restart", "promote"), rate=10.0),
        "told": _told_by_another(place("told")),
        "rolling": rolling(place("rolling"), 1, rate=20.0),
        "workers": workers(place("workers"), 0, rate=20.0),
    }
    shared()

    async def main() -> list[Verdict]:
        return await asyncio.gather(*runs.values())

    return dict(zip(runs, asyncio.run(main()), strict=True))


@pytest.mark.parametrize("name", ["replicas", "failover", "rolling", "workers"])
def test_the_promise_is_kept(verdicts: dict[str, Verdict], name: str) -> None:
    """guarantees 14 (one killed, one frozen past its lease), 15, 16, and 30 after each, as far as it does not depend on
    how fast the machine is."""
    verdict = verdicts[name]
    assert not [text for text in verdict.broken if not any(one in text for one in ABOUT_TIME)], verdict.line(name)


def test_a_replica_that_does_not_heed_the_fence_is_found_out(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts["heedless"]
    assert any("a stale replica changed" in text for text in verdict.broken), verdict.line("negative control")


def test_a_caller_who_waits_hears_what_another_replica_was_told(verdicts: dict[str, Verdict]) -> None:
    assert not verdicts["told"].broken, verdicts["told"].line("told by another")
