"""Checks the routes of the configuration, with what they set and look up in tables, and its tests.

A part of `gateway.config.loading`, which passes in the collector of problems. It must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from gateway.canonical import PATHS, Flat, checked, is_path, type_of
from gateway.config.choosing import Keys, Lookup, named_fact
from gateway.config.file import Checker, FallbackFile, File, KeyFile, RouteFile, SetFile, TestFile
from gateway.config.following import Directory, Table
from gateway.config.problems import in_words, near, some
from gateway.config.routing import Hop, Matcher, Route, parse_matcher
from gateway.config.secrets import ANONYMOUS, Secret
from gateway.config.values import between, dotted, duration


class Checking(Checker, Protocol):
    """The collector of problems, which replaces what is wrong by a harmless value."""

    def parsed(self, parse_value: Callable[[Any], Any], value: Any, path: str, otherwise: Any) -> Any:
        """The parsed value; an error is recorded as a problem, and `otherwise` returned."""


class Routes:
    """The routes of one file. `callers` maps each dialect to its callers, or to None where they are not known in
    advance; `keys` holds the keys of the upstreams whose vendor takes a routing key as the credential."""

    def __init__(
        self,
        check: Checking,
        base: Path,
        callers: Mapping[str, frozenset[str] | None],
        upstreams: list[str],
        keys: Mapping[str, Keys],
    ) -> None:
        self._check = check
        self._base = base
        self._callers = callers
        self._upstreams = upstreams
        self._keys = keys
        self._tables: dict[str, Table | None] = {}

    def all_of(self, file: File) -> tuple[Route, ...]:
        """Every route of the file, in order."""
        if not file.routes:
            if len(self._upstreams) == 1:
                return (Route(name="1", from_=(), when=(), to=(Hop(self._upstreams[0]),)),)
            self._check.say("routes", "are required unless there is exactly one upstream: add [[routes]] with `to`")
        routes = tuple(self._route(number, table) for number, table in enumerate(file.routes, 1))
        firsts: dict[str, int] = {}
        for number, route in enumerate(routes, 1):
            if (first := firsts.setdefault(route.name, number)) != number:
                self._check.say(f"routes[{number}].name", f"{route.name!r} is already the name of routes[{first}]")
        return routes

    def _route(self, number: int, table: Mapping[str, Any]) -> Route:
        path = f"routes[{number}]"
        given = self._check.struct(RouteFile, table, path)
        name = given.name or str(number)
        for who in given.from_:
            self.sender(who, f"{path}.from")
        matchers = [self._check.parsed(parse_matcher, text, f"{path}.when", None) for text in given.when]
        for matcher in matchers:
            if matcher and matcher.operator == "=":
                self._sender_meant(matcher, f"{path}.when")
        everywhere = self._set(given.set, f"{path}.set")
        hops = [self._hop(entry, everywhere, path, name) for entry in given.to]
        self._all_differ(hops, f"{path}.to")
        fallback, after = self._fallback(given.fallback, everywhere, path, name)
        for hop in fallback:
            if hop.upstream in {other.upstream for other in hops}:
                self._check.say(f"{path}.fallback.to", f"{hop.upstream!r} is already in this route's `to`")
        if not given.to and not given.because:
            self._check.say(f"{path}.to", 'throws alerts away; if that is intended, say why: because = "…"')
        return Route(
            name=name,
            from_=tuple(given.from_),
            when=tuple(matcher for matcher in matchers if matcher),
            to=tuple(hops),
            goes_on=given.continue_,
            because=given.because,
            fallback=fallback,
            after=after,
        )

    def _all_differ(self, hops: Sequence[Hop], path: str) -> None:
        """Reports upstreams listed twice: an alert goes to each once, and what the second sets would be ignored."""
        names = [hop.upstream for hop in hops]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self._check.say(path, f"{name!r} is listed twice")

    def sender(self, who: str, path: str) -> None:
        """Checks that `dialect` or `dialect/caller` exists."""
        dialect, slash, caller = who.partition("/")
        if dialect not in self._callers:
            there = ", ".join(self._callers) or "none"
            hint = near(dialect, self._callers)
            self._check.say(path, f"{who!r} is not an [inbound.…]{hint}; there are {there}")
            return
        callers = self._callers[dialect]
        if slash and not caller:
            self._check.say(path, f"{who!r} names no caller; write {dialect!r} for all of them")
        if caller and callers is not None and caller not in callers and caller != ANONYMOUS:
            hint = f"{near(caller, callers)}; there are {some(sorted(callers))}"
            self._check.say(path, f"{dialect} has no caller {caller!r}{hint}")

    def _sender_meant(self, matcher: Matcher, path: str) -> None:
        """Checks the dialect or caller that a condition compares with: a name that does not exist would silently match
        nothing."""
        if matcher.name == "dialect" and matcher.value not in self._callers:
            there = ", ".join(self._callers) or "none"
            hint = near(matcher.value, self._callers)
            self._check.say(path, f"{matcher.value!r} is not an [inbound.…]{hint}; there are {there}")
        if matcher.name == "caller" and None not in self._callers.values():
            known = {caller for callers in self._callers.values() for caller in callers or ()}
            if matcher.value not in known and matcher.value != ANONYMOUS:
                hint = f"{near(matcher.value, known)}; there are {some(sorted(known))}"
                self._check.say(path, f"there is no caller {matcher.value!r}{hint}")

    def _fallback(
        self, table: Mapping[str, Any] | None, everywhere: _Settings, path: str, route: str
    ) -> tuple[tuple[Hop, ...], float]:
        if table is None:
            return (), 0.0
        given = self._check.struct(FallbackFile, table, f"{path}.fallback")
        hops = tuple(self._hop(entry, everywhere, f"{path}.fallback", route) for entry in given.to)
        if not hops:
            self._check.say(f"{path}.fallback.to", "names no upstream")
        self._all_differ(hops, f"{path}.fallback.to")
        return hops, self._check.parsed(between(duration, "10ms", "7d"), given.after, f"{path}.fallback.after", 120.0)

    def _hop(self, entry: str | dict[str, Any], everywhere: _Settings, path: str, route: str) -> Hop:
        name = entry if isinstance(entry, str) else str(entry.get("upstream", ""))
        literals, lookups = everywhere
        if isinstance(entry, dict):
            for key in entry:
                if key not in ("upstream", "set"):
                    hint = near(key, ("upstream", "set")) or "; known are upstream, set"
                    self._check.say(f"{path}.to", f"unknown key {key!r}{hint}")
            own, looked_up = self._set(entry.get("set", {}), f"{path}.to.set")
            literals = {field: value for field, value in literals.items() if field not in looked_up} | own
            lookups = {field: one for field, one in lookups.items() if field not in own} | looked_up
        if isinstance(entry, dict) and "upstream" not in entry:
            self._check.say(f"{path}.to", "`upstream` is required in a table")
        elif name not in self._upstreams:
            self._check.say(f"{path}.to", f"no upstream {name!r}{near(name, self._upstreams)}")
        chosen = self._as_key(name, lookups.get("routing_key"), route)
        set_ = tuple(one for one in lookups.values() if not (chosen and one.field == chosen.field))
        return Hop(name, literals, set_, chosen)

    def _as_key(self, upstream: str, lookup: Lookup | None, route: str) -> Lookup | None:
        """The lookup of a routing key that is the upstream's credential, of which only the entry is ever stored; else
        None. Its `else` becomes a named key."""
        keys = self._keys.get(upstream)
        if keys is None or lookup is None:
            return None
        keys.add_table(lookup.table)
        if lookup.otherwise is UNSET:
            return lookup
        if route.isdigit():
            text = "give the route a name: deliveries that wait for the key of its `else` are stored by it"
            self._check.say(f"routes[{route}].name", text)
        name = f"else of route {route}"
        keys.add(name, self._check.secret(str(lookup.otherwise), f"routes: {route}: set.routing_key.else"))
        return Lookup(lookup.field, lookup.by, lookup.table, name)

    # --- what a route sets -----------------------------------------------------------------------------------

    def _set(self, table: Any, path: str) -> _Settings:
        if not isinstance(table, dict):
            self._check.say(path, "is not a table of alert fields")
            return {}, {}
        literals, raw = _parted(table)
        lookups = {field: self._lookup(field, value, f"{path}.{field}") for field, value in raw.items()}
        return flat(self._check, literals, path), {field: one for field, one in lookups.items() if one is not None}

    def _lookup(self, field: str, raw: Mapping[str, Any], path: str) -> Lookup | None:
        given = self._check.struct(SetFile, raw, path)
        by = self._check.parsed(named_fact, given.by, f"{path}.by", None)
        table = self._table(given.table, f"{path}.table")
        if by is None or table is None:
            return None
        otherwise = UNSET
        if given.else_ is not None:
            otherwise = flat(self._check, {field: given.else_}, f"{path}.else", known=field).get(field, UNSET)
        lookup = Lookup(field, by, table, otherwise)
        for fault in table.add_check(lookup.faults):
            self._check.say(path, fault)
        return lookup

    def _table(self, name: str, path: str) -> Table | None:
        """A table file, relative to the configuration; a table that is used twice is read once."""
        if name not in self._tables:
            for other in self._tables:
                if name.startswith(f"{other}:") or other.startswith(f"{name}:"):
                    self._check.say(
                        path, f"{name!r} and {other!r} are ambiguous, as a colon ends the name in `table:entry`"
                    )
            self._tables[name] = self._check.parsed(lambda given: Table(given, self._base / given), name, path, None)
        return self._tables[name]


_Settings = tuple[Flat, dict[str, Lookup]]


def _parted(table: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits what is set, written dotted or nested, into plain values and lookups."""
    literals: dict[str, Any] = {}
    lookups: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and _is_lookup(path, value):
            lookups[path] = value
        elif isinstance(value, dict) and not is_path(path):
            inner, found = _parted(value, f"{path}.")
            literals |= inner
            lookups |= found
        else:
            literals[path] = value
    return literals, lookups


def _is_lookup(path: str, value: Mapping[str, Any]) -> bool:
    is_free = path in ("labels", "custom") or path.startswith("extensions.")
    return is_path(path) and ("by" in value and "table" in value if is_free else "by" in value or "table" in value)


def flat(check: Checking, table: Any, path: str, dialect: str = "", known: str = "") -> Flat:
    """Canonical values from a table of the file. Problems are recorded below `path`; `known` is a field whose name
    `path` stands for already."""
    if not isinstance(table, dict):
        check.say(path, "is not a table of alert fields")
        return {}
    good: Flat = {}
    for name, value in dotted(table, dialect).items():
        try:
            checked({name: value})
            good[name] = value
        except KeyError:
            check.say(f"{path}.{name}", f"is not a field of an alert{near(name, PATHS)}")
        except msgspec.ValidationError as error:
            at = re.search(r" - at `\$(\.[^`]*)`$", str(error))
            below = at[1] if at else ""
            where = path if below == f".{known}" else path + below
            check.say(where, in_words(error, type_of(below[1:])).removesuffix(f" (at {below})"))
    return checked(good)


def key_of(check: Checking, given: Any, path: str, *, is_chosen: bool) -> tuple[Secret | None, Keys | None]:
    """An upstream's key: a single one, or keys chosen by caller or field. `is_chosen` says that routes may choose keys
    too."""
    if isinstance(given, dict):
        file = check.struct(KeyFile, given, path)
        by = check.parsed(named_fact, file.by, f"{path}.by", "caller")
        otherwise = check.secret(file.else_, f"{path}.else") if file.else_ is not None else None
        directory = check.parsed(lambda at: Directory(at, resolve=check.resolve), file.dir, f"{path}.dir", None)
        for name, fault in directory.faults() if directory else ():
            check.say(f"{path}.dir", f"the file {name} {fault}")
        return otherwise, Keys(otherwise, by, directory)
    key = check.secret(given, path) if given is not None else None
    return key, Keys(key) if is_chosen else None


# --- tests ---------------------------------------------------------------------------------------------------


EXPECTED = ("to", "route", "refused", "wakes")
"""What a test may expect, besides fields of the requests to upstreams."""


def tests_of(check: Checking, file: File, routes: Routes, upstreams: list[str]) -> tuple[TestFile, ...]:
    """The checked `[[tests]]` of the file."""
    found = []
    for number, table in enumerate(file.tests, 1):
        path = f"tests[{number}]"
        given = check.struct(TestFile, table, path)
        sender = f"{given.from_}/{given.caller}" if given.caller else given.from_
        if given.from_ or "from" in table:  # one that is missing is reported already
            routes.sender(sender, f"{path}.caller" if given.caller else f"{path}.from")
        for key in given.expect:
            if key not in EXPECTED and upstream_in(key, upstreams) is None:
                hint = near(key, EXPECTED) or near(key.partition(".")[0], upstreams)
                check.say(f"{path}.expect", f"{key!r} is not {', '.join(EXPECTED)}, or a field of an upstream{hint}")
        told = given.expect.get("to") if isinstance(given.expect, dict) else None  # "" stands in for a missing one
        for name in told if isinstance(told, list) else ():
            if name not in upstreams:
                check.say(f"{path}.expect.to", f"no upstream {name!r}{near(str(name), upstreams)}")
        found.append(given)
    return tuple(found)


def upstream_in(key: str, upstreams: Iterable[str]) -> tuple[str, str] | None:
    """Splits `upstream.field`. An upstream's name may contain dots too; the longest name that fits is taken."""
    fitting = [name for name in upstreams if key == name or key.startswith(f"{name}.")]
    longest = max(fitting, key=len, default=None)
    return None if longest is None else (longest, key[len(longest) + 1 :])
