"""The search in short: a few plays, and the negative control. The command's own figure is that of hundreds."""

from __future__ import annotations

import asyncio

from tests.chaos.search import play, search
from tests.chaos.test_durability import kept

LOST = (9, (24,))
"""A play, and what is left of it, in which the answer to a create is lost where alerts have ids."""


def test_a_few_plays_end_as_they_must() -> None:
    kept(asyncio.run(search(range(1, 4), steps=15)))


def test_a_gateway_that_does_not_look_for_what_it_made_is_found_out() -> None:
    found = asyncio.run(play(*LOST, is_blind=True))
    assert any("WOKEN 2 times" in text for text in found.broken), found.story
    found = asyncio.run(play(*LOST))
    assert not found.broken, found.story
