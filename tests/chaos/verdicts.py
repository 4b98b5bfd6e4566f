"""The end of a command: one line with the date and the figures, and an exit status.

A negative control succeeds if the promise was found broken.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass
class Verdict:
    """The result of a run. `broken` lists each way in which the promise was not kept."""

    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def hold(self, condition: bool, otherwise: str) -> None:
        """Records the promise as broken unless the condition holds."""
        if not condition:
            self.broken.append(otherwise)

    def line(self, name: str) -> str:
        """Returns the result in one line."""
        said = ", ".join(f"{_shown(value)} {what}" for what, value in self.figures.items())
        end = f"BROKEN: {'; '.join(self.broken)}" if self.broken else "kept"
        return f"{datetime.now(UTC).date()} {name}: {said}: {end}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of the arguments that every command has."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--control", action="store_true", help="run the negative control instead")
    arguments.add_argument("--seed", type=int, default=1)
    return arguments


def command(
    name: str, run: Callable[[Path, argparse.Namespace], Coroutine[Any, Any, Verdict]], given: argparse.Namespace
) -> int:
    """Runs a harness in a directory of its own and prints its result; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        verdict = asyncio.run(run(Path(directory), given))
    if given.control:
        print(verdict.line(f"{name}, negative control"), "(as it must be)" if verdict.broken else "(NOT NOTICED)")
        return 0 if verdict.broken else 1
    print(verdict.line(name))
    return 1 if verdict.broken else 0
