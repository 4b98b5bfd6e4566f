"""The promises about durability, in short: each command of this folder at a size that fits a test run, and each
negative control beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.canaries import canaries
from tests.chaos.clock import clock, library
from tests.chaos.disk import full
from tests.chaos.drain import drain
from tests.chaos.kill import kill
from tests.chaos.overload import overload
from tests.chaos.power import power
from tests.chaos.processes import FORGETFUL, outbox
from tests.chaos.upgrade import STORES, deliver
from tests.chaos.verdicts import Verdict

ABOUT_TIME = (
    *("not ready again", "p99 is above", "not held within", "not resumed within"),
    *("it took more than", "a full disk was not seen in /-/ready within"),
)
"""What depends on how busy the machine is: the commands judge it, these tests do not."""


def kept(verdict: Verdict) -> None:
    """The promise holds, as far as it does not depend on how fast the machine is."""
    broken = [text for text in verdict.broken if not text.startswith(ABOUT_TIME)]
    assert not broken, verdict.line("in short")


def broken(verdict: Verdict, how: str) -> None:
    """The harness notices that the promise is broken in this way."""
    assert any(how in text for text in verdict.broken), verdict.line("negative control")


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """guarantees 1 and 4."""
    kept(asyncio.run(kill(tmp_path, 1, rate=150.0)))


def test_a_gateway_that_acknowledges_from_memory_is_found_to_lose(tmp_path: Path) -> None:
    broken(asyncio.run(kill(tmp_path, 1, rate=400.0, program=FORGETFUL)), "are lost")


def test_a_power_failure_at_any_instant_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """guarantees 2."""
    kept(asyncio.run(power(tmp_path, 90)))


def test_a_store_that_does_not_sync_every_commit_is_found_to_lose(tmp_path: Path) -> None:
    broken(asyncio.run(power(tmp_path, 60, synchronous="NORMAL")), "are lost")


def test_nobody_is_told_a_success_while_syncs_fail(tmp_path: Path) -> None:
    """guarantees 3."""
    kept(asyncio.run(power(tmp_path, 60, fails=True)))


def test_a_full_disk_is_told_and_got_over(tmp_path: Path) -> None:
    """guarantees 3."""
    kept(asyncio.run(full(tmp_path, 1, rate=60.0, mounts=False)))


def test_overload_is_refused_and_what_was_accepted_stays(tmp_path: Path) -> None:
    """guarantees 12; the latency is the command's to judge."""
    verdict = asyncio.run(overload(tmp_path, 1.5, senders=128, may_wait=150))
    kept(verdict)


@pytest.mark.skipif(library() is None, reason="pip install libfaketime")
def test_a_clock_that_jumps_an_hour_ahead_stalls_nothing(tmp_path: Path) -> None:
    """guarantees 13."""
    kept(asyncio.run(clock(tmp_path, (3600,), rate=4.0)))


def test_a_drain_refuses_and_resets_nothing(tmp_path: Path) -> None:
    """guarantees 16."""
    kept(asyncio.run(drain(tmp_path, 1, rate=100.0)))


def test_no_secret_comes_out_when_upstreams_throw_it_back(tmp_path: Path) -> None:
    """guarantees 21."""
    kept(asyncio.run(canaries(tmp_path, (400, 401))))


def test_a_secret_that_a_caller_tells_everybody_is_found(tmp_path: Path) -> None:
    broken(asyncio.run(canaries(tmp_path, (), tells=True)), "second in ")


@pytest.mark.parametrize("store", sorted(STORES.glob("*.db")), ids=lambda path: str(path.stem))
def test_the_store_of_an_earlier_release_delivers_its_backlog(store: Path, tmp_path: Path) -> None:
    """guarantees 23."""
    kept(asyncio.run(deliver(tmp_path, store)))


@pytest.mark.parametrize("store", sorted(STORES.glob("*.db")), ids=lambda path: str(path.stem))
def test_a_delivery_that_an_upgrade_loses_is_noticed(store: Path, tmp_path: Path) -> None:
    broken(asyncio.run(deliver(tmp_path, store, loses=True)), "never arrived")
    with pytest.raises(AssertionError, match="does not add up"):
        asyncio.run(outbox(tmp_path / "gateway.db"))
