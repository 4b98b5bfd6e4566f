"""The search in short: a few plays, and the negative control. The command's own figure is that of hundreds."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from pathlib import Path

from tests.chaos.search import play, search
from tests.chaos.searching.house import FALLBACK, Route
from tests.chaos.searching.judging import Judge
from tests.chaos.searching.pagers import PagerDuty
from tests.chaos.searching.play import Play
from tests.chaos.searching.things import SLOW, Thing
from tests.chaos.test_durability import kept
from tests.processes import wait_for

LOST = (9, (24,))
"""A play, and what is left of it, in which the answer to a create is lost where alerts have ids."""


def test_a_few_plays_end_as_they_must() -> None:
    kept(asyncio.run(search(range(1, 4), steps=15)))


def test_a_gateway_that_does_not_look_for_what_it_made_is_found_out() -> None:
    found = asyncio.run(play(*LOST, is_blind=True))
    assert any("WOKEN 2 times" in text for text in found.broken), found.story
    found = asyncio.run(play(*LOST))
    assert not found.broken, found.story


class _Late(random.Random):
    """Chance by which a slow answer takes longer than a kill."""

    def random(self) -> float:
        return 20.0


async def _killed_before_it_heard(directory: Path, *, is_heard_again: bool, tells_needlessly: bool) -> list[str]:
    """A play whose gateway is killed while the answer to a create is on its way, before the fallback has its turn;
    returns what is broken."""
    one = Play(0, directory)
    house = one.house
    house.features, house.callers, house.is_shared = {"fallback"}, ["ilert"], False
    house.vendors = {name: PagerDuty(name, house.passing, random.Random(0)) for name in ("u0", "u1")}
    house.backlog, house.present = {"u0": "fold", "u1": "fold"}, ["u0", "u1"]
    house.routes = {"ilert": Route(("u0",), ("u1",))}
    oncall, fallback = house.vendors.values()
    oncall.chance, oncall.planned = _Late(), deque([SLOW])
    async with house.standing():
        alert = await one._open("ilert", random.Random(0))
        await asyncio.to_thread(wait_for, lambda: oncall.things)
        if not is_heard_again:
            one._fail(oncall, 1.0, ("503",))
            oncall.chance = random.Random(0)
        await house.kill()
        await house.settle(1.0)
        await asyncio.sleep(1.1 if is_heard_again else 0.0)  # for what is taken right before time passes may come late
        await house.skip(FALLBACK + 10)
        if tells_needlessly:
            fallback.make(Thing("needless"), alert.text)
        await house.settle(1.0)
        await one.finish()
        return await Judge(one).judge()


def test_what_a_killed_gateway_had_no_time_to_hear_keeps_no_fallback_from_its_turn(tmp_path: Path) -> None:
    """Nobody has told it that the page was taken, and nobody takes it again before the turn."""
    assert asyncio.run(_killed_before_it_heard(tmp_path, is_heard_again=False, tells_needlessly=False)) == []


def test_what_it_heard_after_the_kill_does(tmp_path: Path) -> None:
    [broken] = asyncio.run(_killed_before_it_heard(tmp_path, is_heard_again=True, tells_needlessly=True))
    assert broken.startswith("FALLBACK TOLD THOUGH THE OTHERS WERE IN TIME at u1")
