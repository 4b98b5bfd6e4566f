"""Rows of translation: from one vendor's bytes to another's, for every pair, against msgspec alone.

The floor decodes the sender's alert into a struct and encodes it again. The whole way is what the gateway does between
receiving an alert and sending it, including the report of every field and what is carried; the rows alone read and
write, without a report. One documented alert of each vendor is used, the largest.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.dialect import Dialect
from gateway.examples import Example
from gateway.mapping.rows import Unmet, Writing
from gateway.mapping.saying import Destination
from gateway.mapping.translation import Said, translate
from gateway.registry import dialects
from tests.benchmarks.measuring import Plan, Row, table
from tests.conformance.samples import (
    CREATES,
    MADE_UP_KEY,
    NAMES,
    PAIRS,
    alert_of,
    alone,
    bare,
    destination,
    incoming,
    route_of,
    saying,
)

Work = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """One vendor's alert in another's words: seconds per alert of the three ways, a value per round, and how many
    fields are carried."""

    origin: str
    target: str
    carried: int
    whole: Sequence[float]
    rows: Sequence[float]
    floor: Sequence[float]

    @property
    def name(self) -> str:
        """The pair's name in the table."""
        return f"{self.origin} → {self.target}"

    def over_floor(self, values: Sequence[float]) -> list[float]:
        """Returns each round's time in units of the floor."""
        return [one / floor for one, floor in zip(values, self.floor, strict=True)]

    @property
    def factor(self) -> float:
        """The median time of the whole way in units of the floor."""
        return statistics.median(self.over_floor(self.whole))


def _sample(name: str) -> Example:
    """Returns the largest documented alert of those in the vendor's own form."""
    found = [example for origin, example in CREATES if origin == name and _is_own(dialects()[name], example)]
    return max(found, key=lambda example: len(msgspec.json.encode(example.request.body)))


def _is_own(dialect: Dialect, example: Example) -> bool:
    try:
        msgspec.convert(bare(dialect, example.request.body), dialect.mapping.wire)
    except msgspec.ValidationError:
        return False
    return True


def _whole(origin: Dialect, example: Example, target: Destination) -> Callable[[], Said]:
    """Returns the work of the whole way, from a caller's bytes to those for an upstream."""
    content = msgspec.json.encode(example.request.body)
    route, akin = route_of(origin, example), origin.name == target.dialect.name

    def run() -> Said:
        command = alone(route.read(incoming(example.request.params, msgspec.json.decode(content))))
        words = {"verbatim": dict(command.verbatim)} if akin else {}
        said = translate(saying(alert_of(origin, command), origin.name, target, **words), target)
        msgspec.json.encode(said.body)
        assert said.report
        return said

    return run


def _rows(origin: Dialect, example: Example, target: Destination) -> Work:
    """Returns the work of the rows alone, once in each direction."""
    content = msgspec.json.encode(bare(origin, example.request.body))

    def run() -> object:
        flat = origin.mapping.read(msgspec.json.decode(content)).whole()
        flat = {"kind": origin.kind, "dedup_key": MADE_UP_KEY, **flat}
        writing = Writing(defaults=target.defaults, metrics=target.metrics, origin=origin.name, caller="ci")
        return msgspec.json.encode(target.mapping.write(flat, writing))

    return run


def _floor(origin: Dialect, example: Example) -> Work:
    content = msgspec.json.encode(bare(origin, example.request.body))
    decoder, encoder = msgspec.json.Decoder(origin.mapping.wire), msgspec.json.Encoder()
    return lambda: encoder.encode(decoder.decode(content))


def _seconds(work: Work, for_seconds: float) -> float:
    """Returns the processor seconds of one run, from as many as fit; processor time is enough as nothing waits."""
    times, began = 0, time.process_time()
    while (took := time.process_time() - began) < for_seconds:
        for _ in range(20):
            work()
        times += 20
    return took / times


@functools.cache
def measured(plan: Plan) -> tuple[Pair, ...]:
    """Measures every pair that can be translated."""
    return tuple(pair for origin, target in PAIRS if (pair := _measured(origin, target, plan)))


def _measured(origin: str, target: str, plan: Plan) -> Pair | None:
    dialect, example, there = dialects()[origin], _sample(origin), destination(target)
    whole, rows, floor = _whole(dialect, example, there), _rows(dialect, example, there), _floor(dialect, example)
    try:
        carried = sum(fate.fate == "carried" for fate in whole().report)
        rows()
    except Unmet:
        return None
    each = 0.002 if plan.is_quick else 0.03
    rounds = [tuple(_seconds(work, each) for work in (whole, rows, floor)) for _ in range(plan.rounds)]
    return Pair(origin, target, carried, *zip(*rounds, strict=True))


def rows(plan: Plan) -> list[Row]:
    """Returns the rows of the worst pair of those where nothing is carried, of the others, and by rows alone."""
    found = measured(plan)
    return [
        _row("nothing carried", [pair for pair in found if not pair.carried], "≤ 2.5"),
        _row("fields carried along", [pair for pair in found if pair.carried], "≤ 4"),
        _rows_alone(found),
    ]


def _row(what: str, pairs: Sequence[Pair], goal: str) -> Row:
    worst = max(pairs, key=lambda pair: pair.factor)
    usual = statistics.median(pair.factor for pair in pairs)
    return Row(
        what=f"translation, {what}: the worst of {len(pairs)} pairs ({worst.name}; half are below {usual:.1f})",
        ours=[one * 1e6 for one in worst.whole],
        unit="µs",
        against="floor",
        yardstick=[one * 1e6 for one in worst.floor],
        goal=goal,
    )


def _rows_alone(pairs: Sequence[Pair]) -> Row:
    worst = max(pairs, key=lambda pair: statistics.median(pair.over_floor(pair.rows)))
    return Row(
        what=f"the same by rows alone, without report: the worst of {len(pairs)} pairs ({worst.name})",
        ours=[one * 1e6 for one in worst.rows],
        unit="µs",
        against="floor",
        yardstick=[one * 1e6 for one in worst.floor],
    )


def pairs(plan: Plan) -> str:
    """Returns the table of pairs: the whole way in units of the floor, and how many fields are carried."""
    found = {(pair.origin, pair.target): pair for pair in measured(plan)}

    def cell(origin: str, target: str) -> str:
        pair = found.get((origin, target))
        return f"{pair.factor:.1f}" + (f" ({pair.carried})" if pair.carried else "") if pair else "-"

    lines = [[origin, *(cell(origin, target) for target in NAMES)] for origin in NAMES]
    about = "Translation in floors, from the row's vendor to the column's (in brackets: fields carried along)"
    return f"{about}:\n\n" + table(["from \\ to", *NAMES], lines)
