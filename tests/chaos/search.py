"""Whatever callers do in whatever order, and whatever vendors and machines do to it: in the end every vendor has each
alert as its caller means it, once, and whoever it is not for has not heard of it.

Each seed is a play of random steps: callers of up to three vendors' dialects make alerts, change, acknowledge, end and
reopen them, alone and at once, in each other's words and under keys that were used before; one to four vendors, some of
the same kind, take them, fail, lose answers, refuse, and forget; the gateway is killed, its configuration is loaded
again, hours pass, fallbacks have their turn. Then all are well, and a small model says what each vendor must have. A
play that breaks it is played again with steps left out for as long as it breaks, and what is left is printed, with
all that was said. The negative control is a gateway that does not look for what it may have made already.

    python -m tests.chaos.search --seeds 1000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.searching.judging import Judge
from tests.chaos.searching.play import Play
from tests.chaos.verdicts import Verdict, command, parser

TRIES = 40
"""So often a broken play is played again with steps left out."""
LONGEST = 400
"""Characters of a line of what was said."""
AT_ONCE = 2
"""Plays at a time: most of one is waiting."""


@dataclass
class Played:
    """What a play came to: the steps that it had, what was broken, all that was said, and how much there was of what
    makes a play hard."""

    seed: int
    steps: list[int]
    broken: list[str]
    log: list[str]
    figures: Counter[str]

    @property
    def kinds(self) -> set[str]:
        """What was broken, in general."""
        return {text.partition(" at ")[0] for text in self.broken}

    @property
    def story(self) -> str:
        """All of it."""
        said = (line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in self.log)
        return "\n".join([*said, f"steps {self.steps}", *(f"BROKEN: {text}" for text in self.broken)])


async def play(seed: int, steps: Sequence[int], *, is_blind: bool = False) -> Played:
    """Plays these steps of a seed, and judges."""
    with tempfile.TemporaryDirectory(prefix="search-") as directory:
        one = Play(seed, Path(directory), is_blind=is_blind)
        async with one.house.standing():
            await one.run(steps)
            await one.finish()
            broken = await Judge(one).judge()
    heard = [f"{name} heard {line}" for name, vendor in one.house.vendors.items() for line in vendor.log]
    return Played(seed, list(steps), broken, one.house.log + heard, _figures(one))


def _figures(one: Play) -> Counter[str]:
    vendors = one.house.vendors
    return Counter(
        {
            "alerts": len(one.alerts),
            "answers lost": sum(vendor.lost for vendor in vendors.values()),
            "kills": one.house.kills,
            "turns of fallbacks": sum(
                bool(vendors[name].known(alert.mark))
                for alert in one.alerts
                for name in alert.standby - alert.must - alert.may
            ),
        }
    )


async def shrink(found: Played, *, is_blind: bool = False) -> Played:
    """The same play with as many steps left out as it breaks without, in a way in which it did before."""
    size, tries = len(found.steps) // 2, 0
    while size:
        for first in range(0, len(found.steps), size):
            fewer = found.steps[:first] + found.steps[first + size :]
            if tries == TRIES:
                return found
            tries += 1
            again = await play(found.seed, fewer, is_blind=is_blind)
            if again.kinds & found.kinds:
                found = again
                break
        else:
            size //= 2
        size = min(size, len(found.steps) // 2)
    return found


async def search(seeds: Sequence[int], steps: int, *, is_blind: bool = False, shrinks: bool = True) -> Verdict:
    """So many steps of each seed."""
    verdict, figures = Verdict({"plays": len(seeds), "steps": len(seeds) * steps}), Counter[str]()
    left = iter(seeds)

    async def some() -> None:
        for seed in left:
            found = await play(seed, range(steps), is_blind=is_blind)
            figures.update(found.figures)
            if found.broken:
                found = await shrink(found, is_blind=is_blind) if shrinks else found
                print(found.story, flush=True)
                verdict.broken.append(f"seed {seed}, {len(found.steps)} steps: {found.broken[0]}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    verdict.figures |= figures
    return verdict


async def _run(directory: Path, given: argparse.Namespace) -> Verdict:
    seeds = range(given.seed, given.seed + (min(given.seeds, 20) if given.control else given.seeds))
    return await search(seeds, given.steps, is_blind=given.control, shrinks=not given.control)


def main() -> int:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=100, help="plays, from --seed on")
    arguments.add_argument("--steps", type=int, default=40, help="of each play")
    return command("search", _run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
