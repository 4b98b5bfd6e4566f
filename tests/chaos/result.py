"""The result of a chaos command: one line with the promise, the figures reached and the date, and an exit status that
tells whether the promise was kept. It must not know what was tested."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True)
class Result:
    """The result of a run: the promise, its figures by name, and what was broken, if anything."""

    promise: str
    figures: Mapping[str, object]
    broken: Sequence[str] = field(default=())

    def line(self) -> str:
        """Returns the line for the README's table."""
        shown = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        ending = "kept" if not self.broken else "BROKEN: " + "; ".join(self.broken)
        return f"{datetime.now(UTC):%Y-%m-%d} promise {self.promise}: {shown}: {ending}"

    def tell(self) -> int:
        """Prints the line; returns the exit status."""
        print(self.line(), flush=True)
        return 1 if self.broken else 0


def numbers(about: str, **usual: int) -> argparse.Namespace:
    """Parses the command line of a chaos command: whole numbers by name, each with its default."""
    parser = argparse.ArgumentParser(description=about)
    for name, value in usual.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    return parser.parse_args()


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
