"""The parts of the benchmarks: rows, plots, the load generator, and the command that knows its rows. Nothing is timed
here."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.benchmarks.__main__ import BEGIN, END, EXTRA, ROWS, main, page_with
from tests.benchmarks.loads import Question, _by_us
from tests.benchmarks.measuring import Row, in_turns
from tests.benchmarks.plot import Panel, Point, drawing
from tests.harness import served

README = (Path(__file__).parents[2] / "README.md").read_text("utf8")
SVG = "{http://www.w3.org/2000/svg}"


def test_a_row_is_the_ratio_of_each_round() -> None:
    row = Row(what="it", ours=[1.0, 9.0, 4.0], unit="/s", against="(c)", yardstick=[2.0, 3.0, 4.0], goal="≥ 1")
    assert list(row.ratios) == [0.5, 3.0, 1.0]
    assert row.cells() == ["it", "4.00 /s", "(c): 3.00 /s", "1.00 (0.50 to 3.00)", "≥ 1", "3"]


def test_a_row_without_a_yardstick_says_no_ratio() -> None:
    assert Row(what="it", ours=[41.0], unit="MiB").cells() == ["it", "41.0 MiB", "", "-", "", "1"]


def test_both_sides_are_measured_in_turns() -> None:
    order: list[str] = []
    in_turns(2, lambda: order.append("ours"), lambda: order.append("theirs"))
    assert order == ["ours", "theirs", "ours", "theirs"]


def test_what_does_not_grow_is_drawn_flat_and_what_grows_is_not() -> None:
    lines: dict[str, Sequence[Point]] = {
        "flat": [(1.0, 1.0), (10.0, 1.0), (100.0, 1.0)],
        "linear": [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)],
    }
    root = ET.fromstring(drawing([Panel("it & that", lines)]))
    flat, linear = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    heights = [[float(point.partition(",")[2]) for point in line] for line in (flat, linear)]
    assert len(set(heights[0])) == 1
    assert heights[1][0] - heights[1][1] == pytest.approx(heights[1][1] - heights[1][2], abs=0.2)
    assert heights[1][0] > heights[1][2]


def test_our_own_load_counts_what_was_taken_and_what_was_refused() -> None:
    bodies: set[bytes] = set()

    async def take(request: Request) -> Response:
        bodies.add(await request.body())
        return Response("{}", 503 if len(bodies) % 2 else 202)

    with served(Starlette(routes=[Route("/it", take, methods=["POST"])])) as url:
        heard = asyncio.run(_by_us(url, Question("/it", '{"key": "k-{n}"}'), 2, 0.2, 0))
    assert heard.answers > 0 and heard.refused > 0
    assert len(bodies) >= heard.answers + heard.refused, "every body is another one"


def test_a_row_that_is_not_there_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ingest", "speed"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no such row: speed" in said and all(name in said for name in [*ROWS, *EXTRA])


def test_the_readme_names_every_row() -> None:
    section = README.partition("\n## Performance\n")[2].partition("\n## ")[0]
    assert not [name for name in [*ROWS, *EXTRA] if f"`{name}`" not in section]


def test_what_was_measured_goes_between_the_marks_of_a_page() -> None:
    page = f"before\n{BEGIN}\nold | 1\n{END}\nafter\n"
    assert page_with(page, r"new \1") == f"before\n{BEGIN}\nnew \\1\n{END}\nafter\n"
    assert page_with(README, "new") != README, "the README has its marks"
