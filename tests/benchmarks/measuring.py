"""Measurements: two sides in turns, a row of the table, and the lines that say where it was taken.

It must not know what is measured, nor how.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import apsw

A = TypeVar("A")
B = TypeVar("B")
SHOWN = ("msgspec", "apsw", "starlette", "uvicorn", "uvloop", "aiohttp", "httpx")


@dataclass(frozen=True)
class Plan:
    """How long to measure: `rounds` of `seconds` for each side, and `long` seconds where the worst value counts.
    `directory` is empty, and on the disk to be measured; `plot` is where to draw."""

    directory: Path
    rounds: int = 10
    seconds: float = 3.0
    is_quick: bool = False
    long: float = 60.0
    plot: Path | None = None

    def room(self, name: str) -> Path:
        """Makes a directory for one row."""
        made = self.directory / name
        made.mkdir()
        return made


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was measured on both sides, a value per round, in `unit`. `figures` are the values
    that the goal is about: by default the ratios of the two sides."""

    what: str
    ours: Sequence[float]
    unit: str
    against: str = ""
    yardstick: Sequence[float] = ()
    goal: str = ""
    figures: Sequence[float] = field(default=())
    measure: str = ""

    @property
    def ratios(self) -> Sequence[float]:
        """The figure of each round; none without a yardstick."""
        if self.figures or not self.yardstick:
            return self.figures
        return [one / other for one, other in zip(self.ours, self.yardstick, strict=True) if other]

    def cells(self) -> list[str]:
        """Returns the cells of the line."""
        against = f"{self.against}: {amount(self.yardstick, self.unit)}" if self.yardstick else self.against
        return [self.what, amount(self.ours, self.unit), against, spread(self.ratios, self.measure), self.goal, self._n]

    @property
    def _n(self) -> str:
        return str(len(self.ours))


HEAD = ("what", "ours", "yardstick", "ratio: median (least to most)", "goal", "rounds")


def in_turns(rounds: int, ours: Callable[[], A], theirs: Callable[[], B]) -> tuple[list[A], list[B]]:
    """Measures both sides in turns, `rounds` times, so that whatever slows the machine slows both."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def amount(values: Sequence[float], unit: str) -> str:
    """Returns the median of the values, with its unit."""
    return f"{shown(statistics.median(values))} {unit}".strip() if values else "-"


def spread(values: Sequence[float], measure: str) -> str:
    """Returns the median with the least and the most."""
    if not values:
        return "-"
    return f"{amount(values, measure)} ({shown(min(values))} to {shown(max(values))})"


def shown(value: float) -> str:
    """Returns a number with as many digits as are meaningful."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Returns a table in Markdown."""
    names = list(head)
    rows = [names, ["---"] * len(names), *(list(line) for line in lines)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def whereabouts(programs: Mapping[str, str]) -> str:
    """Returns a paragraph that says when, on which machine and with which versions; `programs` are those of programs
    outside Python, by name."""
    release = ".".join(platform.release().split(".")[:2])
    versions = {"Python": platform.python_version(), "SQLite": apsw.sqlite_lib_version()}
    versions |= {name: metadata.version(name) for name in SHOWN} | dict(programs)
    busy = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {len(os.sched_getaffinity(0))} cores, load {busy:.1f} before, "
        f"{platform.system()} {release}; " + ", ".join(f"{name} {it}" for name, it in versions.items()) + "."
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
