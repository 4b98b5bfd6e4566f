"""Matchers: which label sets are meant, as filters of a query and as the matchers of a silence say it.

Source: https://prometheus.io/docs/alerting/latest/configuration/#matcher. A pattern is the caller's and is tried on
every alert, so only such are taken as cannot keep the gateway busy. It must not know where alerts come from.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import factorial

import msgspec
from msgspec import Struct

from gateway.errors import Problem, ProblemKind

_FILTER = re.compile(r'\s*([^\s=!~"{},]+|"(?:[^"\\]|\\.)*")\s*(=~|!~|!=|=)\s*(.*?)\s*', re.DOTALL)
LONGEST_PATTERN, LONGEST_VALUE = 512, 512
MOST_STEPS = 30_000_000
"""So many steps a pattern may take on the longest value: some tenths of a second, where it matches nowhere."""


class Matcher(Struct, frozen=True, kw_only=True):
    """One condition on a label; a label that is not there is an empty one."""

    name: str
    value: str
    isRegex: bool
    isEqual: bool = True

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set meets it."""
        found = labels.get(self.name, "")
        is_met = bool(compiled(self.value).fullmatch(found[:LONGEST_VALUE])) if self.isRegex else found == self.value
        return is_met == self.isEqual


@functools.lru_cache(maxsize=1000)
def compiled(pattern: str) -> re.Pattern[str]:
    """A caller's pattern; raises `Problem` for one that is none, or that could take long: repeats of what repeats, and
    more repeats and choices than a few."""
    if len(pattern) > LONGEST_PATTERN:
        raise _fault(f"the pattern has more than {LONGEST_PATTERN} characters")
    try:
        found = re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise _fault(f"{pattern!r} is not a regular expression: {error}") from None
    plain = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern)
    if re.search(r"\)\s*[*+{]", plain) or _steps(plain) > MOST_STEPS:
        raise _fault(f"the pattern {pattern!r} repeats more than is tried here; say what is meant in several matchers")
    return found


def _steps(plain: str) -> float:
    """How many ways a pattern can go at most: those of each choice times those of each repeat. What stands side by side
    outside all groups is tried one after the other."""
    ways, repeats = 1, len(re.findall(r"[*+{]", plain))
    alternatives = [1]
    for before, here in pairwise(f" {plain}"):
        if here == "(":
            alternatives.append(1)
        elif here == "|":
            alternatives[-1] += 1
        elif here == ")" and len(alternatives) > 1:
            ways *= alternatives.pop()
        elif here == "?" and before != "(":
            ways *= 2
    return float(ways * LONGEST_VALUE**repeats / factorial(repeats))


def parse(text: str) -> list[Matcher]:
    """The matchers of a filter: one, or several in braces; raises `Problem` for what is none."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    parts = [part for part in _split(inner) if part.strip()]
    if not parts:
        raise _fault(f"bad matcher format: {text[:200]}")
    return [_parsed(part) for part in parts]


def _split(text: str) -> list[str]:
    """What stands between commas that are in no quotes."""
    parts = re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', text)
    return list(parts)


def _parsed(text: str) -> Matcher:
    found = _FILTER.fullmatch(text)
    if not found:
        raise _fault(f"bad matcher format: {text[:200]}")
    name, operator, value = found.groups()
    matcher = Matcher(
        name=_unquoted(name, text),
        value=_unquoted(value, text),
        isRegex=operator in ("=~", "!~"),
        isEqual=operator in ("=", "=~"),
    )
    if matcher.isRegex:
        compiled(matcher.value)
    return matcher


def _unquoted(text: str, whole: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        raise _fault(f"bad matcher format: {whole[:200]}") from None


def all_hold(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether a label set meets them all."""
    return all(matcher.holds(labels) for matcher in matchers)


def _fault(text: str) -> Problem:
    return Problem(ProblemKind.INVALID, text, field="filter")
