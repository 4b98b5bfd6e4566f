"""The command: measures the rows that are named, or all of them, and prints them as the README has them."""

from __future__ import annotations

import argparse
import compileall
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.benchmarks import answering, delivering, growing, ingest, latency, standing, translating
from tests.benchmarks.loads import generator
from tests.benchmarks.measuring import HEAD, Plan, Row, table, whereabouts
from tests.benchmarks.places import OTHERS, on, versions
from tests.chaos.sink import ROOT

Measure = TypeVar("Measure")
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
ROWS: dict[str, Callable[[Plan], list[Row]]] = {
    "ingest": ingest.ingest,
    "delivering": ingest.delivering,
    "prometheus": ingest.prometheus,
    "translate": translating.rows,
    "deliver": delivering.rows,
    "forward": answering.forward,
    "acknowledge": answering.acknowledge,
    "memory": standing.memory,
    "start": standing.start,
    "backlog": standing.backlog,
}
EXTRA: dict[str, Callable[[Plan], str]] = {
    "pairs": translating.pairs,
    "latency": latency.told,
    "growth": growing.told,
}
"""Measurements that have a table of their own."""
PARTS: dict[str, Callable[[Plan], str]] = {"replicas": growing.replicas}
"""Measurements of a part of such a table."""


def arguments() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    found = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    found.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join([*ROWS, *EXTRA, *PARTS])}; default: all")
    found.add_argument("--rounds", type=int, help="how often each side is measured, in turns (default 10, quick 1)")
    found.add_argument("--seconds", type=float, help="how long each time (default 3, quick 1)")
    found.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it works; the figures mean nothing"
    )
    found.add_argument("--long", type=float, default=60.0, help="seconds of the latency run at each load (default 60)")
    found.add_argument("--plot", type=Path, help="where to draw how the cost grows, as SVG")
    found.add_argument(
        "--into", type=Path, help="a page, such as the README, whose part between the marks is replaced by the output"
    )
    found.add_argument("--room", type=Path, help="a directory on the disk to measure (default: the temporary one)")
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = arguments()
    wanted = parser.parse_args(given)
    known = [*ROWS, *EXTRA, *PARTS]
    if unknown := [name for name in wanted.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    names = wanted.rows or [*ROWS, *EXTRA]
    for part in ("gateway", "mappings", "tests/benchmarks"):  # compiled, as after an installation, for both sides
        compileall.compile_dir(ROOT / part, quiet=1)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=wanted.room) as directory:
        plan = Plan(
            Path(directory),
            rounds=wanted.rounds or (1 if wanted.quick else 10),
            seconds=wanted.seconds or (1.0 if wanted.quick else 3.0),
            is_quick=wanted.quick,
            long=min(wanted.long, 4.0) if wanted.quick else wanted.long,
            plot=wanted.plot,
        )
        parts = list(_measured(plan, names))
    if wanted.into:
        wanted.into.write_text(page_with(wanted.into.read_text("utf8"), "\n\n".join(parts)), "utf8")
    return 0


def page_with(text: str, told: str) -> str:
    """Returns a page with `told` put between its marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{told}\n{END}", text, flags=re.DOTALL)


def _measured(plan: Plan, names: Sequence[str]) -> Iterator[str]:
    """Yields the parts of the output, printing each as it comes."""
    yield _said(f"{whereabouts(versions())} Loads by {generator()}.")
    with on(OTHERS):
        lines = [row.cells() for name in names if name in ROWS for row in _started(name, ROWS)(plan)]
        if lines:
            yield _said(table(HEAD, lines))
        for name in names:
            if name in EXTRA or name in PARTS:
                yield _said(_started(name, {**EXTRA, **PARTS})(plan))


def _said(part: str) -> str:
    print(f"{part}\n", flush=True)
    return part


def _started(name: str, among: Mapping[str, Measure]) -> Measure:
    """Returns the function that measures a row, after naming the row on stderr, as some take minutes."""
    print(f"measuring {name}", file=sys.stderr, flush=True)
    return among[name]


if __name__ == "__main__":
    sys.exit(main())
