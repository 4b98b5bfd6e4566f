"""The words of a described vendor: for severities, for closed lists and for the status of an alert.

Words are compared without case. A word of digits alone is written as a number, `true` and `false` as booleans, as names
in TOML are always texts. It must not know where in a body the words stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from gateway.canonical import Operation
from gateway.mapping.values import Scale

Word = str | int | float | bool
"""The types of a word in JSON."""


def listed(words: Any) -> list[Any]:
    """Returns one word, or a list of words, as a list."""
    return words if isinstance(words, list) else [words]


def spelled(value: Any) -> str:
    """Returns the form in which a word is compared."""
    return str(value).casefold()


def written(word: Any) -> Any:
    """Returns a word as the vendor writes it in JSON."""
    if isinstance(word, str) and re.fullmatch(r"-?\d{1,15}", word):
        return int(word)
    return {"true": True, "false": False}.get(word, word) if isinstance(word, str) else word


@dataclass(frozen=True)
class Vocabulary:
    """Words and their canonical values. An unknown word means `otherwise`, or itself if the list `is_open`. A value
    without a word is written as itself if the list is open, else left out."""

    words: Mapping[str, Any]
    otherwise: Any = None
    is_open: bool = False

    def read(self, value: Any) -> Any:
        """Returns the canonical value of a word; raises `ValueError` for an unknown one."""
        known = {spelled(word): meant for word, meant in self.words.items()}
        if spelled(value) in known:
            return known[spelled(value)]
        if self.otherwise is not None:
            return self.otherwise
        if self.is_open:
            return str(value) if value != "" else UNSET
        raise ValueError(f"{str(value)[:64]!r} is none of {', '.join(self.words)}")

    def write(self, value: Any) -> Any:
        """Returns the first word for a canonical value."""
        found = next((word for word, meant in self.words.items() if meant == value), None)
        if found is not None:
            return written(found)
        return value if self.is_open else UNSET


class Severities(Scale):
    """A vendor's severities by its words. Unless `out` gives a word for each of the eight codes, a code is written as
    the nearest word that is at least as loud: in doubt the louder. `otherwise` is the code of every unknown word."""

    def __init__(
        self, words: Mapping[str, int], out: Sequence[Any] | None = None, otherwise: int | None = None
    ) -> None:
        named = {written(word): code for word, code in words.items()}
        self._known = {spelled(word): code for word, code in words.items()}
        self._otherwise = otherwise
        super().__init__(out if out is not None else [_nearest(named, code) for code in range(8)], named)

    def read(self, value: Any) -> int:
        """Returns the severity code of a word; raises `ValueError` for an unknown one."""
        code = self._known.get(spelled(value), self._otherwise)
        if code is None:
            raise ValueError(f"{str(value)[:64]!r} is none of {', '.join(map(str, self.codes))}")
        return code


def _nearest(named: Mapping[Any, int], code: int) -> Any:
    """Returns the word of the quietest severity that is at least as loud as this one, else of the loudest."""
    louder = [other for other in named.values() if other <= code]
    wanted = max(louder) if louder else min(named.values())
    return next(word for word, other in named.items() if other == wanted)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the body says an alert's status, and in which words: the first for each is written. An unknown word means
    that the alert is firing, unless the list `is_closed`."""

    at: str
    firing: tuple[Any, ...] = ("firing",)
    acknowledge: tuple[Any, ...] = ()
    resolve: tuple[Any, ...] = ()
    is_closed: bool = False

    def operation(self, value: Any) -> Operation:
        """Returns the operation that a word asks for; raises `ValueError` for an unknown one where the list is
        closed."""
        for words, operation in self._all():
            if spelled(value) in map(spelled, words):
                return operation
        if self.is_closed:
            known = ", ".join(str(word) for words, _ in self._all() for word in words)
            raise ValueError(f"{str(value)[:64]!r} is none of {known}")
        return Operation.CREATE

    def words(self, operation: Operation) -> tuple[Any, ...]:
        """Returns the words for an operation, the first of which is written; only acknowledge and resolve may have
        none."""
        return {Operation.ACKNOWLEDGE: self.acknowledge, Operation.RESOLVE: self.resolve}.get(operation, self.firing)

    def _all(self) -> tuple[tuple[tuple[Any, ...], Operation], ...]:
        return (
            (self.resolve, Operation.RESOLVE),
            (self.acknowledge, Operation.ACKNOWLEDGE),
            (self.firing, Operation.CREATE),
        )
