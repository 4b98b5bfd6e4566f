"""Matchers: conditions on label sets, from the filters of a query and from silences.

Source: https://prometheus.io/docs/alerting/latest/configuration/#matcher. A pattern is the caller's and is tried on
every alert, so its length is limited, and so is that of what it is tried on. It must not know where alerts come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from gateway.config.patterns import whole
from gateway.errors import Problem, ProblemKind

_FILTER = re.compile(r'\s*([^\s=!~"{},]+|"(?:[^"\\]|\\.)*")\s*(=~|!~|!=|=)(.*)', re.DOTALL)
_QUOTED, _BARE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL), re.compile(r'((?:[^"\\]|\\.)*\\?)', re.DOTALL)
_ESCAPED = re.compile(r'\\([n"\\])')
LONGEST_PATTERN, LONGEST_VALUE = 4096, 2048
"""Characters; enough for a silence of some hundred machines by name."""
MOST_SILENCE = 16 * 1024
"""The most bytes of a silence: all silences of a scope are read for every alert that is told in it. Alertmanager has
such a limit as well (`--silences.max-per-silence-bytes`)."""


class Matcher(Struct, frozen=True, kw_only=True):
    """One condition on a label; an absent label counts as an empty one."""

    name: str
    value: str
    isRegex: bool
    isEqual: bool = True

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set meets the condition."""
        found = labels.get(self.name, "")
        is_met = compiled(self.value)(found[:LONGEST_VALUE]) if self.isRegex else found == self.value
        return is_met == self.isEqual


def compiled(pattern: str) -> Callable[[str], bool]:
    """Returns a test whether a whole text matches a pattern; raises `Problem` for an invalid pattern."""
    if len(pattern) > LONGEST_PATTERN:
        raise _fault(f"the pattern has more than {LONGEST_PATTERN} characters")
    try:
        return whole(pattern)
    except ValueError as error:
        raise _fault(str(error)) from None


def parse(text: str) -> list[Matcher]:
    """Returns the matchers of a filter, one or several in braces; raises `Problem` for an invalid one."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    parts = [part for part in _split(inner) if part.strip()]
    if not parts:
        raise _fault(f"bad matcher format: {text[:200]}")
    return [_parsed(part) for part in parts]


def _split(text: str) -> list[str]:
    """Splits a text at the commas outside quotes."""
    parts = re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', text)
    return list(parts)


def _parsed(text: str) -> Matcher:
    found = _FILTER.fullmatch(text)
    if not found:
        raise _fault(f"bad matcher format: {text[:200]}")
    name, operator, value = found.groups()
    matcher = Matcher(
        name=_name(name, text),
        value=_value(value.strip(), text),
        isRegex=operator in ("=~", "!~"),
        isEqual=operator in ("=", "=~"),
    )
    if matcher.isRegex:
        compiled(matcher.value)
    return matcher


def _value(text: str, whole: str) -> str:
    """Returns a value, given in quotes or not. A backslash before anything but a quote, a backslash or an `n` is a
    literal one, so that `"10\\.0\\..*"` is the pattern that it looks like."""
    found = (_QUOTED if text.startswith('"') else _BARE).fullmatch(text)
    if not found:
        raise _fault(f"bad matcher format: {whole[:200]}")
    return _ESCAPED.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], found[1])


def _name(text: str, whole: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        raise _fault(f"bad matcher format: {whole[:200]}") from None


def all_hold(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether a label set meets all matchers."""
    return all(matcher.holds(labels) for matcher in matchers)


def _fault(text: str) -> Problem:
    return Problem(ProblemKind.INVALID, text, field="filter")
