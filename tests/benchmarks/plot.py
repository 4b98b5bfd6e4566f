"""Small line plots as SVG, written by hand so that nothing has to be installed to draw them.

Both axes are logarithmic, and a factor of ten has the same height in every panel, so that a flat line does not grow and
one at forty-five degrees or so grows in proportion. It must not know what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
COLOURS = ("#1f6feb", "#d1570a", "#2da44e", "#8250df")
WIDTH, HEIGHT, ACROSS = 300, 220, 3
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 58, 26


@dataclass(frozen=True)
class Panel:
    """One plot: its title, which is also that of the horizontal axis, and its lines by name."""

    title: str
    lines: dict[str, Sequence[Point]]


@dataclass(frozen=True)
class _Axes:
    """Maps values to positions in a panel."""

    least: Point
    most: Point

    def place(self, point: Point) -> Point:
        """Returns the position of a point."""
        across = _share(point[0], self.least[0], self.most[0])
        up = _share(point[1], self.least[1], self.most[1])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _share(value: float, least: float, most: float) -> float:
    return math.log(value / least) / math.log(most / least)


def drawing(panels: Sequence[Panel]) -> str:
    """Returns all panels in one picture, three in a row, with the vertical axis from a power of ten to another."""
    points = [point for panel in panels for line in panel.lines.values() for point in line]
    least = 10 ** math.floor(math.log10(min(0.99, *(y for _, y in points))))
    most = 10 ** math.ceil(math.log10(max(10.0, *(y for _, y in points))))
    rows = math.ceil(len(panels) / ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * ACROSS} {HEIGHT * rows}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number % ACROSS * WIDTH} {number // ACROSS * HEIGHT})">')
        parts += _panel(panel, least, most)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, least: float, most: float) -> list[str]:
    across = sorted({x for line in panel.lines.values() for x, _ in line})
    axes = _Axes((across[0], least), (max(across[-1], across[0] * 1.01), most))
    parts = [_text(LEFT, 16, panel.title, "#1f2328", "start", ' font-weight="bold"')]
    parts += _grid(axes, across, least, most)
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [axes.place(point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        parts.append(_text(LEFT, 29 + 12 * number, name, colour, "start"))
    return parts


def _grid(axes: _Axes, across: Sequence[float], least: float, most: float) -> list[str]:
    parts = []
    decades = range(round(math.log10(least)), round(math.log10(most)) + 1)
    for value in (10.0**power for power in decades):
        _, y = axes.place((across[0], value))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d1d9e0"/>')
        parts.append(_text(LEFT - 4, y + 4, f"{value:g}", "#59636e", "end"))
    for value in across:
        x, _ = axes.place((value, least))
        parts.append(_text(x, HEIGHT - 10, short(value), "#59636e", "middle"))
    return parts


def _text(x: float, y: float, text: str, colour: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def short(value: float) -> str:
    """Returns a number in short form, for an axis."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
