"""What the commands share: options, loading the configuration, and printing."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gateway.config.config import Config

CONFIG = click.option("--config", "config_path", required=True, type=click.Path(), help="The configuration file.")
JSON = click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of a table.")


def load_config(path: str, *, secrets: bool = True, listen: str | None = None) -> Config:
    """Loads the configuration, or lists everything that is wrong with it and exits with status 1."""
    from gateway.config.loading import load
    from gateway.errors import ConfigurationError

    try:
        return load(path, secrets=secrets, listen=listen)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"{path}: {problem}" if not problem.startswith(path) else problem, err=True)
        sys.exit(1)


def print_json(value: Any) -> None:
    """Prints plain values as indented JSON, in UTF-8 whatever the terminal's encoding."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def stand_in() -> None:
    """Opens /dev/null for standard streams that the parent process closed (`2>&-`). Else the next socket would get the
    number of standard error and be written to, and the event loop aborts when it is to close such a socket."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets `number`: the lowest free one, as those below are open
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf8", closefd=False))  # noqa: SIM115 - for good


def print_anything() -> None:
    """Has characters that the terminal's encoding lacks printed as escapes: an encoding error instead of the answer is
    no help at night."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.errors, stream.encoding) != ("surrogateescape", "utf-8"):
            stream.reconfigure(errors="backslashreplace")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], plain: Callable[[], None]) -> None:
    """Prints a table on a terminal, else calls `plain`."""
    if not sys.stdout.isatty():
        plain()
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Empty columns are left out, and what does not fit is folded: cut short, a delivery that is dead could not be told
    # from one that is delivered.
    said = [number for number in range(len(columns)) if not rows or any(str(row[number]) for row in rows)]
    names = [columns[number] for number in said]
    drawn = Table(*(Column(Text(name), no_wrap=name in WHOLE, overflow="fold") for name in names))
    for row in rows:
        drawn.add_row(*(Text(printable(str(row[number]))) for number in said))
    Console().print(drawn)


WHOLE = ("delivery", "alert", "dialect", "state")
"""Columns that are never folded, as they are copied or compared."""


def tabbed(cells: Sequence[str]) -> str:
    """Cells as one line for programs: a tab or a line feed in one, as an upstream's reason may have, is a space."""
    return "\t".join(" ".join(printable(cell).split("\n")) for cell in cells)


def printable(text: str) -> str:
    """A text without control characters, which would move the cursor or colour the screen: strangers choose some of
    what is printed, a program's name for one."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
