"""Matchers: which label sets are meant, as filters of a query and as the matchers of a silence say it.

Source: https://prometheus.io/docs/alerting/latest/configuration/#matcher. A pattern is the caller's and is tried on
every alert, so only such are taken as cannot keep the gateway busy. It must not know where alerts come from.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import factorial

import msgspec
from msgspec import Struct

from gateway.errors import Problem, ProblemKind
from gateway.values import is_made_of, parts_of

_FILTER = re.compile(r'\s*([^\s=!~"{},]+|"(?:[^"\\]|\\.)*")\s*(=~|!~|!=|=)(.*)', re.DOTALL)
LONGEST_PATTERN, LONGEST_VALUE = 512, 512
MOST_STEPS = 1_000_000
"""So many steps patterns that are tried together may take on the longest value: some hundredths of a second, where they
match nowhere."""
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_FOREIGN = re.compile(r"\\|\(\?(?!:|P<|[ims]+[:)])")
"""What Alertmanager's own patterns do not have: references to what was found, looking around, comments."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A caller's pattern, the parts between its `.*` where it has nothing else, and how many steps it may take."""

    found: re.Pattern[str]
    parts: tuple[str, ...] | None
    steps: float


class Matcher(Struct, frozen=True, kw_only=True):
    """One condition on a label; a label that is not there is an empty one."""

    name: str
    value: str
    isRegex: bool
    isEqual: bool = True

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set meets it."""
        found = labels.get(self.name, "")
        is_met = matches(self.value, found[:LONGEST_VALUE]) if self.isRegex else found == self.value
        return is_met == self.isEqual


@functools.lru_cache(maxsize=1000)
def compiled(pattern: str) -> Pattern:
    """A caller's pattern; raises `Problem` for one that is none, or that could take long: repeats of what repeats, and
    more repeats and choices than a few."""
    if len(pattern) > LONGEST_PATTERN:
        raise _fault(f"the pattern has more than {LONGEST_PATTERN} characters")
    try:
        found = re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise _fault(f"{pattern!r} is not a regular expression: {error}") from None
    if (parts := parts_of(pattern)) is not None:
        return Pattern(found, parts, 0)
    plain = _ATOM.sub(lambda atom: "\\" if re.match(r"\\[1-9]", atom[0]) else "x", pattern)
    if _FOREIGN.search(plain):
        raise _fault(f"{pattern!r} is not a regular expression: it has what RE2 does not have")
    steps = _steps(plain)
    if re.search(r"\)[*+{]", plain) or steps > MOST_STEPS:
        raise _fault(f"the pattern {pattern!r} repeats more than is tried here; say what is meant in several matchers")
    return Pattern(found, None, steps)


def matches(pattern: str, text: str) -> bool:
    """Whether a text as a whole is what a caller's pattern says; raises `Problem` as above."""
    wanted = compiled(pattern)
    return is_made_of(text, wanted.parts) if wanted.parts is not None else bool(wanted.found.fullmatch(text))


def check_patterns(wanted: Iterable[Matcher]) -> None:
    """Raises `Problem` where one of the patterns, or all of them together, could take long: they are tried on every
    alert, one after the other."""
    if sum(compiled(matcher.value).steps for matcher in wanted if matcher.isRegex) > MOST_STEPS:
        raise _fault("the patterns repeat more than is tried here; say what is meant with fewer")


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
        value=_unquoted(value.strip(), text),
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
