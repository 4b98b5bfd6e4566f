"""The words of a described vendor: for severities, for closed lists and for where an alert stands.

Words are compared without case. One of digits alone is written as a number, `true` and `false` as truth values, as
TOML has only texts for names. It must not know where the words stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from gateway.canonical import Operation
from gateway.values import Scale

Word = str | int | float | bool
"""What may stand where a word is expected."""


def listed(words: Any) -> list[Any]:
    """One word, or a list of them, as a list."""
    return words if isinstance(words, list) else [words]


def spelled(value: Any) -> str:
    """A word as it is compared."""
    return str(value).casefold()


def written(word: Any) -> Any:
    """A word as the vendor has it in JSON."""
    if isinstance(word, str) and re.fullmatch(r"-?\d{1,15}", word):
        return int(word)
    return {"true": True, "false": False}.get(word, word) if isinstance(word, str) else word


@dataclass(frozen=True)
class Vocabulary:
    """Words and their canonical values. Another word is `otherwise`, or where the list `is_open` its own meaning; a
    value without a word is itself then, and else left out."""

    words: Mapping[str, Any]
    otherwise: Any = None
    is_open: bool = False

    def read(self, value: Any) -> Any:
        """The canonical value of a word; `ValueError` for a word that there is not."""
        known = {spelled(word): meant for word, meant in self.words.items()}
        if spelled(value) in known:
            return known[spelled(value)]
        if self.otherwise is not None:
            return self.otherwise
        if self.is_open:
            return str(value) if value != "" else UNSET
        raise ValueError(f"{str(value)[:64]!r} is none of {', '.join(self.words)}")

    def write(self, value: Any) -> Any:
        """The first word for a canonical value."""
        found = next((word for word, meant in self.words.items() if meant == value), None)
        if found is not None:
            return written(found)
        return value if self.is_open else UNSET


class Severities(Scale):
    """A vendor's severities by its words. Without eight words for the eight codes, each code is written as the nearest
    word that is at least as loud: in doubt the louder. `otherwise` is the code of every other word."""

    def __init__(
        self, words: Mapping[str, int], out: Sequence[Any] | None = None, otherwise: int | None = None
    ) -> None:
        named = {written(word): code for word, code in words.items()}
        self._known = {spelled(word): code for word, code in words.items()}
        self._otherwise = otherwise
        super().__init__(out if out is not None else [_nearest(named, code) for code in range(8)], named)

    def read(self, value: Any) -> int:
        """The severity code of a word."""
        code = self._known.get(spelled(value), self._otherwise)
        if code is None:
            raise ValueError(f"{str(value)[:64]!r} is none of {', '.join(map(str, self.codes))}")
        return code


def _nearest(named: Mapping[Any, int], code: int) -> Any:
    """The word of the quietest severity that is no quieter than this one, else of the loudest."""
    louder = [other for other in named.values() if other <= code]
    wanted = max(louder) if louder else min(named.values())
    return next(word for word, other in named.items() if other == wanted)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the body says how an alert stands, and in which words: the first for each is written. What is none of them
    means that it is on, unless the list `is_closed`."""

    at: str
    firing: tuple[Any, ...] = ("firing",)
    acknowledge: tuple[Any, ...] = ()
    resolve: tuple[Any, ...] = ()
    is_closed: bool = False

    def operation(self, value: Any) -> Operation:
        """What a word asks for; `ValueError` for one that there is not."""
        for words, operation in self._all():
            if spelled(value) in map(spelled, words):
                return operation
        if self.is_closed:
            known = ", ".join(str(word) for words, _ in self._all() for word in words)
            raise ValueError(f"{str(value)[:64]!r} is none of {known}")
        return Operation.CREATE

    def words(self, operation: Operation) -> tuple[Any, ...]:
        """The words for an operation, the first of which is written; those that tell of an alert that is on have
        some."""
        return {Operation.ACKNOWLEDGE: self.acknowledge, Operation.RESOLVE: self.resolve}.get(operation, self.firing)

    def _all(self) -> tuple[tuple[tuple[Any, ...], Operation], ...]:
        return (
            (self.resolve, Operation.RESOLVE),
            (self.acknowledge, Operation.ACKNOWLEDGE),
            (self.firing, Operation.CREATE),
        )
