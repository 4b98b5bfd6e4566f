"""What the commands share: their options, the configuration they load, and how they print."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gateway.config import Config

CONFIG = click.option("--config", "config_path", required=True, type=click.Path(), help="The configuration file.")
JSON = click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of a table.")


def load_config(path: str, *, secrets: bool = True, listen: str | None = None) -> Config:
    """The configuration, or an exit that lists everything that is wrong with it."""
    from gateway.config import load
    from gateway.errors import ConfigurationError

    try:
        return load(path, secrets=secrets, listen=listen)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"{path}: {problem}" if not problem.startswith(path) else problem, err=True)
        sys.exit(1)


def print_json(value: Any) -> None:
    """Prints plain values as indented JSON, which is UTF-8 whatever the terminal speaks."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_anything() -> None:
    """What the terminal's encoding has no character for is printed as an escape: whoever looks at night is not to be
    told of a letter that cannot be shown instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.errors, stream.encoding) != ("surrogateescape", "utf-8"):
            stream.reconfigure(errors="backslashreplace")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], plain: Callable[[], None]) -> None:
    """A table where a person is looking, else whatever `plain` prints."""
    if not sys.stdout.isatty():
        plain()
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # What nobody has anything to say in takes no room, and what does not fit goes on in the next line: cut short,
    # a delivery that is dead could not be told from one that is delivered.
    said = [number for number in range(len(columns)) if not rows or any(str(row[number]) for row in rows)]
    names = [columns[number] for number in said]
    drawn = Table(*(Column(Text(name), no_wrap=name in WHOLE, overflow="fold") for name in names))
    for row in rows:
        drawn.add_row(*(Text(printable(str(row[number]))) for number in said))
    Console().print(drawn)


WHOLE = ("delivery", "alert", "dialect", "state")
"""Columns that are never broken, as they are copied or compared."""


def printable(text: str) -> str:
    """A text as it is, never taken for markup, without what would move a cursor or colour a screen: strangers choose
    what stands in a table, a program's name for one."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
