"""The promises about what a page is for, in short: commands of this folder at a size that fits a test run, over real
processes. What needs none is in tests/engine: `test_fallback`, `test_watch`, `test_loops`, `test_gate`, `test_secrets`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.backlog import GROWTH, Memory, backlog
from tests.chaos.heartbeat import heartbeat
from tests.chaos.rotate import rotate
from tests.chaos.sink import Arrival
from tests.chaos.soak import Held, Plan, soak
from tests.chaos.soak import judge as judge_held
from tests.chaos.test_durability import broken, kept
from tests.chaos.unanswered import Night, judge
from tests.chaos.verdicts import Verdict


def test_a_backlog_drains_within_64_mib(tmp_path: Path) -> None:
    """guarantees 11."""
    kept(asyncio.run(backlog(tmp_path, 300, offered=0.5)))


def test_memory_that_grows_with_what_was_sent_is_noticed() -> None:
    """A fifth of what the negative control takes."""
    assert Memory(0, [60 + number / 40 for number in range(300)]).growth > GROWTH
    assert Memory(0, [58.0] * 10 + [61.0 + number % 2 for number in range(290)]).growth <= GROWTH


def test_a_rotated_key_resumes_through_a_symbolic_link(tmp_path: Path) -> None:
    """guarantees 27, as mounted secrets change."""
    kept(asyncio.run(rotate(tmp_path, 1, rate=50.0, first=2, stays=1.0)))


def test_the_heartbeat_of_a_gateway_that_is_killed_or_frozen_stops(tmp_path: Path) -> None:
    """guarantees 29."""
    kept(asyncio.run(heartbeat(tmp_path, ("killed", "frozen"), mounts=False, alarms=False)))


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ([], "never arrived at the fallback"),
        ([(12.5, "ALERT"), (13.0, "ALERT"), (20.0, "RESOLVE")], "paged twice"),
        ([(11.0, "ALERT"), (20.0, "RESOLVE")], "was paged after"),
        ([(12.5, "ALERT")], "never closed at the fallback"),
        ([(12.5, "RESOLVE"), (12.6, "ALERT")], "stay open at the fallback"),
    ],
)
def test_a_fallback_that_is_told_wrongly_is_noticed(said: list[tuple[float, str]], how: str) -> None:
    """guarantees 28: what the command looks for; the promise itself is in tests/engine/test_fallback."""
    verdict = Verdict()
    judge("hangs", Night({"disk": 10.0}, [], [Arrival(at, "disk", word, "s", 202) for at, word in said], 0), verdict)
    broken(verdict, how)


def test_a_soak_in_short(tmp_path: Path) -> None:
    """guarantees 31: too short to say that nothing grows, but answers, drain and ledger have to be right."""
    verdict = asyncio.run(soak(tmp_path, Plan(3.0, warm=0.5, rate=40.0, pause=2.0, stalls=(0.5,))))
    verdict.broken = [text for text in verdict.broken if "grew" not in text and "more" not in text]
    kept(verdict)


@pytest.mark.parametrize(
    ("first", "last", "how"),
    [
        (Held(60, 70, 9, 40, 4), Held(69, 70, 9, 40, 4), "the gateway holds 9.0 MiB more"),
        (Held(60, 70, 9, 40, 4), Held(60, 103, 9, 40, 4), "33 more files open"),
        (Held(60, 70, 9, 40, 4), Held(60, 70, 10, 40, 4), "1 more threads"),
        (Held(60, 70, 9, 40, 4), Held(60, 70, 9, 51, 4), "the store of the gateway grew"),
        (Held(60, 70, 9, 40, 65), Held(60, 70, 9, 40, 4), "the log of the gateway grew to 65.0 MiB"),
    ],
)
def test_what_grows_in_a_soak_is_noticed(first: Held, last: Held, how: str) -> None:
    verdict = Verdict()
    judge_held("gateway", [first] * 10 + [last] * 10, verdict)
    assert len(verdict.broken) == 1
    broken(verdict, how)
