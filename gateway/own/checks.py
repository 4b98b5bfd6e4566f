"""What the checks of a table that describes a dialect have in common: how they report problems, and how words are read.

It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct

S = TypeVar("S", bound=Struct)


class Checking(Protocol):
    """Goes through the tables of a configuration and collects what is wrong with them."""

    problems: list[str]

    def say(self, path: str, problem: str) -> None:
        """Reports a problem at this path."""

    def struct(self, kind: type[S], table: Mapping[str, Any], path: str) -> S:
        """Returns a table as a struct; reports what is wrong with it and puts a harmless value in its place."""

    def parsed(self, parse_value: Callable[[Any], Any], value: Any, path: str, otherwise: Any) -> Any:
        """Returns a value as parsed; reports what is wrong with it and returns `otherwise` in its place."""


class Checks:
    """Checks a part of the table at `path`, and reports its problems to `check`."""

    def __init__(self, check: Checking, path: str) -> None:
        self._check = check
        self._path = path

    def _say(self, at: str, problem: str) -> None:
        self._check.say(f"{self._path}.{at}", problem)

    def _words(self, given: Any, at: str) -> tuple[Any, ...]:
        words = given if isinstance(given, list) else [] if given is None else [given]
        for word in words:
            if not isinstance(word, str | int | float | bool) or word == "":
                self._say(at, "must be a word or a list of words")
            elif isinstance(word, int) and not -(1 << 63) <= word < 1 << 64:
                self._say(at, "is a number that is too large")
        return tuple(words)
