"""Routes: which upstreams an alert goes to, decided by its dialect, its caller and what it says.

Pure: it is given the routes of a configuration and an alert, and answers names. It must not know what an upstream is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.canonical import PATHS, Flat, plain

_MATCHER = re.compile(r"^\s*([A-Za-z_][\w.\-/]*)\s*(=~|!~|!=|<=|>=|=|<|>)\s*(.*?)\s*$", re.DOTALL)
_OPEN = ("labels.", "custom.", "extensions.")
_ABOUT = ("caller", "dialect")


@dataclass(frozen=True)
class Matcher:
    """One condition on an alert, such as ``severity <= 3`` or ``labels.team =~ "db|infra"``."""

    name: str
    operator: str
    value: str
    pattern: re.Pattern[str] | None = None

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether it holds: absent text is empty, an absent number matches no comparison."""
        found = _look_up(facts, self.name)
        if self.operator in ("<", "<=", ">", ">="):
            return _compare(found, self.operator, float(self.value))
        text = _as_text(found)
        if self.pattern:
            return bool(self.pattern.fullmatch(text)) == (self.operator == "=~")
        return (text == self.value) == (self.operator == "=")


def parse_matcher(text: str) -> Matcher:
    """Parses a condition; raises `ValueError` that says what is wrong with it."""
    found = _MATCHER.match(text)
    if not found:
        raise ValueError(f"{text!r} is not of the form: field, one of = != =~ !~ < <= > >=, value")
    name, operator, value = found.groups()
    if name not in PATHS and name not in _ABOUT and not name.startswith(_OPEN):
        close = difflib.get_close_matches(name, [*PATHS, *_ABOUT], 1)
        raise ValueError(f"{name!r} is no field of an alert" + (f"; did you mean {close[0]!r}?" if close else ""))
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if operator in ("<", "<=", ">", ">="):
        try:
            float(value)
        except ValueError:
            raise ValueError(f"{operator} compares numbers, and {value!r} is none") from None
    pattern = None
    if operator in ("=~", "!~"):
        try:
            pattern = re.compile(value, re.DOTALL)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return Matcher(name, operator, value, pattern)


def _look_up(facts: Mapping[str, Any], name: str) -> Any:
    if name in facts:
        return facts[name]
    head, _, rest = name.partition(".")
    inner = facts.get(head)
    if isinstance(inner, Mapping):
        if rest in inner:
            return inner[rest]
        return _look_up(inner, rest) if "." in rest else None
    return None


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(plain(value))


def _compare(found: Any, operator: str, bound: float) -> bool:
    try:
        number = float(found)
    except (TypeError, ValueError):
        return False
    outcomes = {"<": number < bound, "<=": number <= bound, ">": number > bound, ">=": number >= bound}
    return outcomes[operator]


@dataclass(frozen=True)
class Hop:
    """One upstream of a route, and what is set on the way there."""

    upstream: str
    replaced: Flat = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route: who it is for, which conditions all hold, and where it leads; `because` explains an empty `to`."""

    name: str
    from_: tuple[str, ...]
    when: tuple[Matcher, ...]
    to: tuple[Hop, ...]
    goes_on: bool = False
    because: str = ""

    def is_from(self, dialect: str, caller: str) -> bool:
        """Whether it takes alerts of this dialect and caller at all."""
        return not self.from_ or dialect in self.from_ or f"{dialect}/{caller}" in self.from_


@dataclass(frozen=True)
class Choice:
    """An upstream that was chosen, by which route, and what that route sets."""

    upstream: str
    route: str
    replaced: Flat


def choose(routes: Sequence[Route], dialect: str, caller: str, alert: Flat | None) -> tuple[Choice, ...] | None:
    """The upstreams for an alert, the primary first; None where no route matches.

    The first matching route wins unless it says `continue`. Without an alert only the sender decides.
    """
    facts = {**(alert or {}), "caller": caller, "dialect": dialect}
    chosen: dict[str, Choice] = {}
    matched = False
    for route in routes:
        if not route.is_from(dialect, caller):
            continue
        if alert is not None and not all(matcher.holds(facts) for matcher in route.when):
            continue
        matched = True
        for hop in route.to:
            chosen.setdefault(hop.upstream, Choice(hop.upstream, route.name, hop.replaced))
        if not route.goes_on and alert is not None:
            break
    return tuple(chosen.values()) if matched else None
