"""Routes: which upstreams an alert goes to, decided by its dialect, its caller and what it says.

Pure: it is given the routes of a configuration and an alert, and answers names. It must not know what an upstream is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from msgspec import UNSET

from gateway.canonical import Flat
from gateway.config.choosing import ABOUT, Lookup, can_be, named_fact, texts, values
from gateway.config.patterns import whole

_MATCHER = re.compile(r"^\s*([A-Za-z_][\w.\-/]*)\s*(=~|!~|!=|<=|>=|=|<|>)\s*(.*?)\s*$", re.DOTALL)


@dataclass(frozen=True)
class Matcher:
    """One condition on an alert, such as ``severity <= 3`` or ``labels.team =~ "db|infra"``."""

    name: str
    operator: str
    value: str
    is_matched: Callable[[str], bool] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.value}"

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether it holds: absent text is empty, an absent number matches no comparison. Of several values one must
        meet it, and with `!=` and `!~` all must."""
        if self.operator in ("<", "<=", ">", ">="):
            return any(_compare(value, self.operator, float(self.value)) for value in values(facts, self.name))
        is_meant = self.is_matched or self.value.__eq__
        return any(map(is_meant, texts(facts, self.name))) == (self.operator in ("=", "=~"))


def parse_matcher(text: str) -> Matcher:
    """Parses a condition; raises `ValueError` that says what is wrong with it."""
    found = _MATCHER.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a condition: write a field, one of = != =~ !~ < <= > >=, and a value")
    name, operator, value = found.groups()
    named_fact(name)
    if operator in ("=", "!=") and text[found.end(2) : found.end(2) + 1] in ("=", "<", ">", "!"):
        wrong = operator + text[found.end(2)]
        raise ValueError(f"{wrong} is no operator: one of = != =~ !~ < <= > >=; a value that begins so needs quotes")
    if value[:1] in ('"', "'"):
        if len(value) < 2 or value[-1] != value[0]:
            raise ValueError(f"{value!r} has an opening quote and none at its end")
        value = value[1:-1]
    if operator in ("<", "<=", ">", ">="):
        try:
            float(value)
        except ValueError:
            raise ValueError(f"{operator} compares numbers, and {value!r} is not one") from None
    if operator in ("=", "!=") and not can_be(name, value):
        hint = "; 0 is the worst, 7 the least: write severity <= 3" if name == "severity" else ""
        raise ValueError(f"{name} is never {value!r}{hint}")
    return Matcher(name, operator, value, whole(value) if operator in ("=~", "!~") else None)


def _compare(found: Any, operator: str, bound: float) -> bool:
    try:
        number = float(found)
    except (TypeError, ValueError):
        return False
    outcomes = {"<": number < bound, "<=": number <= bound, ">": number > bound, ">=": number >= bound}
    return outcomes[operator]


@dataclass(frozen=True)
class Hop:
    """One upstream of a route, and what the route sets for it: plain values and lookups. `key` looks up the credential
    itself, at a vendor that has no other routing key."""

    upstream: str
    replaced: Flat = field(default_factory=dict)
    lookups: tuple[Lookup, ...] = ()
    key: Lookup | None = None

    @property
    def all_lookups(self) -> tuple[Lookup, ...]:
        """All lookups, that of the key included."""
        return (*self.lookups, self.key) if self.key else self.lookups

    def sets(self, facts: Mapping[str, Any]) -> tuple[Flat, str, str]:
        """The values set for an alert, the table entry of its routing key, and that of its key, empty where none is."""
        if not self.lookups and self.key is None:
            return self.replaced, "", ""
        values, to = dict(self.replaced), ""
        for lookup in self.lookups:
            entry, value = lookup.pick(facts)
            if value is not UNSET:
                values[lookup.field] = value
            if lookup.field == "routing_key" and entry:
                to = f"{lookup.table.name}:{entry}"
        return values, to, self.key_entry(facts)

    def key_entry(self, facts: Mapping[str, Any]) -> str:
        """The entry of the key that this route chooses, or an empty text."""
        if self.key is None:
            return ""
        entry, value = self.key.pick(facts)
        return f"{self.key.table.name}:{entry}" if entry else ("" if value is UNSET else str(value))


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route: whose alerts it takes, the conditions that must all hold, and where it leads; `because` explains an
    empty `to`. What none of these upstreams has taken `after` that many seconds goes to the `fallback` too."""

    name: str
    from_: tuple[str, ...]
    when: tuple[Matcher, ...]
    to: tuple[Hop, ...]
    goes_on: bool = False
    because: str = ""
    fallback: tuple[Hop, ...] = ()
    after: float = 0.0

    def is_from(self, dialect: str, caller: str) -> bool:
        """Whether it takes alerts of this dialect and caller at all."""
        return not self.from_ or dialect in self.from_ or f"{dialect}/{caller}" in self.from_

    @property
    def hops(self) -> tuple[Hop, ...]:
        """All upstreams it may lead to, fallbacks included."""
        return (*self.to, *self.fallback)

    @property
    def throws_away(self) -> bool:
        """Whether what it takes goes to no upstream."""
        return not self.hops

    @cached_property
    def why(self) -> str:
        """Why it takes what it takes, for people."""
        held = [f"from {', '.join(self.from_)}"] if self.from_ else []
        held += [f"{matcher} holds" for matcher in self.when]
        thrown = [f"thrown away: {self.because}"] if self.throws_away else []
        return "; ".join([*(held or ["it takes everything"]), *thrown])


@dataclass(frozen=True)
class Choice:
    """An upstream that was chosen, by which route, and what that route sets. Of a fallback, `after` is the seconds
    until its turn at the earliest, `instead_of` the upstreams of each route that it stands by for, and `afters` the
    seconds that it does so for each. `to` is the table entry of a routing key that was looked up, `key` that of the
    key itself; `why` is for people."""

    upstream: str
    route: str
    replaced: Flat
    after: float | None = None
    to: str = ""
    key: str = ""
    instead_of: tuple[tuple[str, ...], ...] = ()
    afters: tuple[float, ...] = ()
    why: str = field(default="", compare=False)


def choice_of(hop: Hop, route: str, facts: Mapping[str, Any], after: float | None = None, why: str = "") -> Choice:
    """The choice of one upstream of a route for an alert."""
    replaced, to, key = hop.sets(facts)
    return Choice(hop.upstream, route, replaced, after, to, key, why=why)


def taking(routes: Sequence[Route], dialect: str, caller: str, alert: Flat | None) -> Iterator[Route]:
    """The routes that take an alert: the first that matches, and the next ones for as long as it says `continue`.
    Without an alert, those that can take one of this sender: only conditions on the sender itself are decided."""
    return _taking(routes, _facts(dialect, caller, alert), is_known=alert is not None)


def _facts(dialect: str, caller: str, alert: Flat | None) -> Flat:
    """What conditions are matched against: the alert, and who sent it."""
    return {**(alert or {}), "caller": caller, "dialect": dialect}


def _taking(routes: Sequence[Route], facts: Flat, *, is_known: bool) -> Iterator[Route]:
    for route in routes:
        if not route.is_from(facts["dialect"], facts["caller"]):
            continue
        decided = [matcher for matcher in route.when if is_known or matcher.name in ABOUT]
        if not all(matcher.holds(facts) for matcher in decided):
            continue
        yield route
        if not route.goes_on and len(decided) == len(route.when):
            return


def always(routes: Sequence[Route], dialect: str, caller: str) -> tuple[Choice, ...] | None:
    """What `choose` returns for whatever this sender's alerts say; None where it depends on that, or no route
    matches."""
    theirs = [route for route in routes if route.is_from(dialect, caller)]
    if any(route.when or any(hop.all_lookups for hop in route.hops) for route in theirs):
        return None
    return choose(theirs, dialect, caller, {})


def choose(routes: Sequence[Route], dialect: str, caller: str, alert: Flat | None) -> tuple[Choice, ...] | None:
    """The upstreams for an alert, the primary first; None where no route matches.

    The first matching route wins unless it says `continue`. Without an alert, those of every route that can take one of
    this sender, and fallbacks are left out. Fallbacks come last; an upstream that is told at once is nobody's fallback,
    and one that several routes fall back to stands by for each of them.
    """
    facts = _facts(dialect, caller, alert)
    chosen: dict[str, Choice] = {}
    standing_by: dict[str, Choice] = {}
    matched = False
    for route in _taking(routes, facts, is_known=alert is not None):
        matched = True
        for hop in route.to:
            if hop.upstream not in chosen:
                chosen[hop.upstream] = choice_of(hop, route.name, facts, why=route.why)
        for hop in route.fallback if alert is not None else ():
            first = standing_by.get(hop.upstream) or choice_of(hop, route.name, facts, route.after, route.why)
            others = (*first.instead_of, tuple(other.upstream for other in route.to))
            afters = (*first.afters, route.after)
            standing_by[hop.upstream] = replace(first, instead_of=others, afters=afters, after=min(afters))
    return tuple({**standing_by, **chosen}[name] for name in {**chosen, **standing_by}) if matched else None
