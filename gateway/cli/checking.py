"""What `check` reports beyond errors: for each route, what the callers' severities become at its upstreams and whether
they wake somebody; and warnings of what is probably not intended.

It tries the dialects' documented examples on every route. It must not know any vendor.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import msgspec

from gateway.asked import Command
from gateway.canonical import QUIET_CATEGORY, SERVER_OWNED, Flat, Operation
from gateway.cli.doubts import doubts
from gateway.cli.waking import LOUD, loudness, places, said, verdict, words
from gateway.config.choosing import ABOUT, is_single
from gateway.config.config import UNTOLD, Config, Inbound, Upstream
from gateway.config.problems import near, some
from gateway.config.routing import Hop, Matcher, Route, choice_of
from gateway.config.secrets import ANONYMOUS
from gateway.dialect import Dialect
from gateway.errors import Problem, ProblemKind, StoreError
from gateway.examples import openings
from gateway.mapping.rows import Unmet
from gateway.mapping.saying import Saying
from gateway.mapping.translation import translate
from gateway.network.listening import in_the_clear, meet, outdated, shape_of
from gateway.rehearsal import command_in, rehearse
from gateway.road.terms import refuses_rules
from gateway.store.opening import NO_PACKAGE


def warnings(config: Config) -> Iterator[str]:
    """Warnings of what is probably not intended: side routes that yield, doubtful addresses, requirements that callers
    cannot meet, routes that are never reached, callers that no route takes, rules that would page, callers without a
    key."""
    yield from _yielding(config)
    yield from in_the_clear(config)
    yield from doubts(config)
    yield from outdated(config)
    yield from _hasty(config)
    if config.durable == "container" and config.is_shared:
        yield "durable: a PostgreSQL store outlives its containers; without this, callers need not wait for upstreams"
    if config.is_shared and config.store != UNTOLD:
        yield from _unopened(config.store)
    yield from _shadowed(config)
    yield from _set_in_vain(config)
    yield from _uncaught(config)
    yield from _unheard(config)
    yield from _entries_of_nobody(config)
    yield from _endless(config)
    for route in config.routes:
        yield from _shared_keys(config, route)
        yield from _unknown_senders(config, route)
        for inbound in _senders(config, route):
            yield from sorted(set(_unmet(config, route, inbound)))
            yield from _paging_rules(config, route, inbound)
            yield from _without_entry(config, route, inbound)


def _yielding(config: Config) -> Iterator[str]:
    """Side routes that yield, at the root, to another dialect's main route of the same method and path."""
    mains = [
        (route.method, shape_of(route.path), inbound)
        for inbound in config.inbounds.values()
        for route in inbound.dialect.routes
        if not route.side
    ]
    for inbound in config.inbounds.values():
        for route in inbound.dialect.routes:
            own = f"/{inbound.dialect.name}{route.path}"
            for method, shape, holder in mains if route.side else ():
                is_same = (method, shape) == (route.method, shape_of(route.path))
                if is_same and holder is not inbound and meet(holder, inbound):
                    whose = holder.dialect.name
                    yield f"inbound.{inbound.dialect.name}: {route.method} {route.path} goes to {whose}; use {own}"


def _endless(config: Config) -> Iterator[str]:
    """Upstreams of a described dialect without words for resolving: their alerts stay open there for good."""
    for name, upstream in config.upstreams.items():
        outbound = upstream.dialect.outbound
        if upstream.dialect.description is None or upstream.on_resolve == "keep" or Operation.RESOLVE in outbound.calls:
            continue
        if outbound.tells_changes or outbound.addressed_by == "id":
            yield (
                f"upstreams.{name}: dialects.{upstream.dialect.name} has no word for resolved, so alerts stay "
                "open there; add `resolve` to its `status`, or send.updates = false where each request is a message"
            )


def _hasty(config: Config) -> Iterator[str]:
    """Durations that are probably too short by mistake: with `ms` for `s` or `m`."""
    beat = config.heartbeat
    found = {f"upstreams.{name}.timeout": (one.timeout, 1.0) for name, one in config.upstreams.items()}
    found |= {f"upstreams.{name}.retry.max_age": (one.retry.max_age, 60.0) for name, one in config.upstreams.items()}
    found |= {f"routes.{one.name}.fallback.after": (one.after, 1.0) for one in config.routes if one.fallback}
    found |= {"heartbeat.every": (beat.every, 1.0), "heartbeat.stall": (beat.stall, 1.0)} if beat else {}
    found["retention"] = (config.retention, 3600.0)
    for path, (seconds, least) in found.items():
        if seconds < least:
            yield f"{path}: {seconds:g} s seems a mistake; less than {least:g} s {_SHORT[path.rpartition('.')[2]]}"


_SHORT = {
    "timeout": "is too short for many answers, and a late one counts as none",
    "max_age": "gives up a delivery after a brief failure",
    "after": "tells the fallback before the others can have taken it",
    "every": "is a load on the monitor and on the store",
    "stall": "stops the heartbeat at every alert",
    "retention": "removes dead letters before anybody can look at them",
}
"""The consequence of a duration that is too short, by the last part of its path."""


def _unopened(store: str) -> Iterator[str]:
    """Why a PostgreSQL store could not be opened at all: its package is not installed, or its URL cannot be parsed."""
    if find_spec("psycopg") is None:
        yield f"store: {NO_PACKAGE}"
        return
    from gateway.store.postgres_line import Address

    try:
        Address(store)
    except StoreError as error:
        yield f"store: {error}"


# --- routes that do not do what they seem to -----------------------------------------------------------------


def _shadowed(config: Config) -> Iterator[str]:
    for number, route in enumerate(config.routes):
        senders = route.from_ or tuple(config.inbounds)
        before = [one for one in config.routes[:number] if not one.goes_on]
        takers = [next((one for one in before if _takes_all(one, who, route.when)), None) for who in senders]
        if takers and all(takers):
            names = ", ".join(dict.fromkeys(one.name for one in takers if one))
            yield f"routes: {route.name}: never reached: {names} comes first and takes all of it"


def _set_in_vain(config: Config) -> Iterator[str]:
    """Values that a route sets and that are never used: an alert goes to an upstream once, by the first route that
    leads there, and an earlier route that leads there takes everything that this one takes."""
    for number, route in enumerate(config.routes):
        senders = route.from_ or tuple(config.inbounds)
        before = [one for one in config.routes[:number] if one.goes_on]
        takers = [one for one in before if all(_takes_all(one, who, route.when) for who in senders)]
        for hop in route.to:
            earlier = ((one.name, other) for one in takers for other in one.to if other.upstream == hop.upstream)
            name, first = next(earlier, ("", hop))
            if _sets(hop) != _sets(first):
                yield f"routes: {route.name}: its `set` for {hop.upstream} is never used: {name} leads there first"


def _sets(hop: Hop) -> tuple[Flat, list[Any]]:
    """What is set on the way to an upstream, for comparison. The `else` of a chosen key is left out: it is replaced by
    a name that contains its route's."""
    lookups = [(one.field, one.by, one.table.name, one is hop.key or one.otherwise) for one in hop.all_lookups]
    return hop.replaced, lookups


def _takes_all(route: Route, sender: str, when: tuple[Matcher, ...]) -> bool:
    """Whether a route takes everything from a sender that meets the conditions `when`."""
    is_from = not route.from_ or sender in route.from_ or sender.partition("/")[0] in route.from_
    return is_from and all(any(_implies(one, matcher) for one in when) for matcher in route.when)


def _implies(narrow: Matcher, wide: Matcher) -> bool:
    """Whether the wide condition holds wherever the narrow one does; False where that is not known."""
    if narrow == wide:
        return True
    if narrow.name != wide.name or wide.is_matched or narrow.is_matched:
        return False
    if wide.operator == "!=" and not is_single(wide.name):  # another value of the same alert may be the one
        return False
    if narrow.operator == "=" and wide.operator in ("=", "!=", "<", "<=", ">", ">="):
        return wide.holds({wide.name: narrow.value})
    if narrow.operator[:1] in "<>" and narrow.operator[:1] == wide.operator[:1]:
        bounds = float(narrow.value), float(wide.value)
        is_within = bounds[0] < bounds[1] if narrow.operator[0] == "<" else bounds[0] > bounds[1]
        return is_within or (bounds[0] == bounds[1] and (narrow.operator == wide.operator or "=" in wide.operator))
    return False


def _uncaught(config: Config) -> Iterator[str]:
    for name, inbound in config.inbounds.items():
        everything = [route for route in config.routes if not route.when]
        if any(not route.from_ or name in route.from_ for route in everything):
            continue
        named = {who.partition("/")[2] for route in everything for who in route.from_ if who.startswith(f"{name}/")}
        if inbound.keyring.directory is None and _callers(inbound) and _callers(inbound) <= named:
            continue
        yield (
            f"routes: an alert of {name} that no route matches is refused; "
            "add a last route without `when` and `from` to take the rest"
        )


def _callers(inbound: Inbound) -> frozenset[str]:
    """The names of all who may call, `anonymous` included."""
    return inbound.callers | {ANONYMOUS} if inbound.anonymous or not inbound.keyring else inbound.callers


def _takes_from(route: Route, inbound: Inbound) -> frozenset[str]:
    """The callers of an inbound that a route is for. As a set intersection, since there may be thousands of callers,
    and a route that names many of them."""
    if not route.from_ or inbound.dialect.name in route.from_:
        return _callers(inbound)
    named = (who.partition("/") for who in route.from_)
    return _callers(inbound).intersection(caller for dialect, _, caller in named if dialect == inbound.dialect.name)


def _paging_rules(config: Config, route: Route, inbound: Inbound) -> Iterator[str]:
    for hop in route.to:
        upstream = config.upstreams[hop.upstream]
        is_paging = upstream.dialect.kind == "occurrence" and upstream.destination.rules == "page"
        if inbound.dialect.kind == "rule" and is_paging:
            yield (
                f"routes: {route.name}: every rule of {inbound.dialect.name} would page at {hop.upstream}; "
                f'if that is not intended, set rules = "quiet" or "refuse" there'
            )


def _unknown_senders(config: Config, route: Route) -> Iterator[str]:
    """Callers that a route names and that have no file in the keys' directory. A warning, as it may appear later."""
    for who in route.from_:
        dialect, _, caller = who.partition("/")
        directory = config.inbounds[dialect].keyring.directory
        if caller and directory and directory.is_known and directory.get(caller) is None:
            yield f"routes: {route.name}: from {who}: there is no file {caller} in {directory.path}"


def _shared_keys(config: Config, route: Route) -> Iterator[str]:
    """Routing keys set for upstreams of several vendors, at one of which the routing key is the credential."""
    setting = [hop for hop in route.hops if hop.key or any(one.field == "routing_key" for one in hop.lookups)]
    setting += [hop for hop in route.hops if "routing_key" in hop.replaced]
    vendors = {config.upstreams[hop.upstream].dialect.name for hop in setting}
    for hop in setting if len(vendors) > 1 else ():
        if config.upstreams[hop.upstream].dialect.outbound.key == "routing_key":
            yield (
                f"routes: {route.name}: `set` routing_key is the credential at {hop.upstream}; "
                "set it only on the entries of `to` that it is meant for"
            )


def _without_entry(config: Config, route: Route, inbound: Inbound) -> Iterator[str]:
    """Callers without an entry in a table or a directory that has no `else` either, and keys chosen by a field that no
    caller sends."""
    callers = sorted(_takes_from(route, inbound))
    for hop in route.hops:
        upstream = config.upstreams[hop.upstream]
        keys = upstream.keys if hop.key is None else None
        if keys and not keys.has_otherwise and _never_says(inbound, hop, keys.by):
            yield (
                f"upstreams.{hop.upstream}.key: {inbound.dialect.name} never says {keys.by}, which chooses the key, "
                "and there is no `else`"
            )
        if keys and keys.is_known and keys.by == "caller":
            entries = {who: upstream.entry(inbound.dialect.name, who) for who in callers}
            keyless = [who for who, entry in entries.items() if keys.lacks(entry)]
            if keyless:
                yield f"upstreams.{hop.upstream}.key: no key for {some(keyless)}, and there is no `else`"
        for lookup in hop.all_lookups:
            values = lookup.table.values()
            missing = [who for who in callers if who not in values] if lookup.by == "caller" else []
            if missing and isinstance(lookup.otherwise, msgspec.UnsetType):
                yield (
                    f"routes: {route.name}: {lookup.table.name} has no {lookup.field} for {some(missing)}, "
                    "and there is no `else`"
                )


def _never_says(inbound: Inbound, hop: Hop, by: str) -> bool:
    """Whether no alert of a dialect has a value for this field or label, and the route and the gateway set none. Its
    callers may say fields of their own vendor that it does not document, but none of another vendor's."""
    if by.startswith(("custom.", f"extensions.{inbound.dialect.name}.")):
        return False
    if by.partition(".")[0] in ("kind", *ABOUT, *SERVER_OWNED):
        return False
    said = {path for entry in inbound.dialect.mapping.rows if entry.side != "reply" for path in entry.paths}
    said |= {*hop.replaced, *(one.field for one in hop.lookups)}
    return not any(by == path or by.startswith(f"{path}.") for path in said)


def _unheard(config: Config) -> Iterator[str]:
    """Fields of one vendor's alerts (`extensions.VENDOR.…`) that a route or key asks for and no caller says: probably
    misspelt. A caller may say fields that its vendor does not document."""
    callers = [inbound.dialect for inbound in config.inbounds.values()]
    said = {path for dialect in callers for entry in dialect.mapping.rows for path in entry.paths}
    asked = {matcher.name: f"routes: {route.name}: `when`" for route in config.routes for matcher in route.when}
    asked |= {one.by: f"routes: {r.name}: `set`" for r in config.routes for hop in r.hops for one in hop.all_lookups}
    asked |= {one.keys.by: f"upstreams.{one.name}.key" for one in config.upstreams.values() if one.keys}
    for name, where in asked.items():
        if not name.startswith("extensions.") or any(name == path or name.startswith(f"{path}.") for path in said):
            continue
        vendor, _, field = name.removeprefix("extensions.").partition(".")
        fields = {path.split(".")[2] for path in said if path.startswith(f"extensions.{vendor}.")}
        hint = near(field.partition(".")[0], fields)
        if hint or vendor not in {dialect.name for dialect in callers}:
            yield f"{where}: no caller's dialect says {name}{hint}"


def _entries_of_nobody(config: Config) -> Iterator[str]:
    """Entries of tables looked up by caller that are no caller's name: probably misspelt."""
    directories = [inbound.keyring.directory for inbound in config.inbounds.values()]
    if any(directory and not directory.is_known for directory in directories):
        return
    everybody = set[str]().union(*(_callers(inbound) for inbound in config.inbounds.values()))
    hops = [hop for route in config.routes for hop in route.hops]
    tables = {one.table.name: one.table for hop in hops for one in hop.all_lookups if one.by == "caller"}
    for name, table in tables.items():
        strangers = sorted(table.values().keys() - everybody)
        if strangers:
            close = difflib.get_close_matches(strangers[0], sorted(everybody), 1)
            hint = f"; is {strangers[0]} meant to be {close[0]}?" if close else ""
            yield f"{name}: entries are looked up by caller, but there is no caller {some(strangers)}{hint}"


# --- what callers say and what arrives -----------------------------------------------------------------------


def _senders(config: Config, route: Route) -> list[Inbound]:
    named = {who.partition("/")[0] for who in route.from_}
    return [inbound for name, inbound in config.inbounds.items() if not named or name in named]


def _creates(inbound: Inbound) -> Iterator[Command]:
    """The dialect's documented examples of a new alert, as commands."""
    for body in openings(inbound.dialect):
        try:
            yield command_in(inbound.dialect, Operation.CREATE, body)
        except Problem:
            continue


def _unmet(config: Config, route: Route, inbound: Inbound) -> Iterator[str]:
    caller = _sample_caller(route, inbound)
    for asked in _creates(inbound):
        for hop in route.hops:
            set_there = choice_of(hop, route.name, _facts(inbound, caller, asked.patch)).replaced
            try:
                rehearse(asked, inbound.dialect, config.upstreams[hop.upstream], replaced=set_there)
            except Problem as problem:
                if problem.kind is ProblemKind.UNMET:
                    yield f"routes: {route.name}: from {inbound.dialect.name}: {problem.message}"


def _facts(inbound: Inbound, caller: str, patch: Flat) -> Flat:
    return {**patch, "caller": caller, "dialect": inbound.dialect.name}


def _sample_caller(route: Route, inbound: Inbound) -> str:
    """One of the callers of a route, as an example of them all."""
    return min(_takes_from(route, inbound), default=ANONYMOUS)


def ladders(config: Config) -> Iterator[str]:
    """Per route, sender and upstream: each of the caller's words for severity or urgency, the upstream's word for it,
    and whether that wakes somebody."""
    for route in config.routes:
        yield f"route {route.name}" + (f": thrown away: {route.because}" if route.throws_away else "")
        for inbound in _senders(config, route):
            for hop in route.hops:
                upstream = config.upstreams[hop.upstream]
                yield f"  {inbound.dialect.name} → {upstream.name} ({upstream.dialect.name})"
                yield from (f"    {line}" for line in _ladder(route, hop, inbound, upstream))


def _ladder(route: Route, hop: Hop, inbound: Inbound, upstream: Upstream) -> Iterator[str]:
    """One line per result at the upstream, with all the words that lead to it, but for words that the route does not
    take."""
    lines: dict[str, dict[str, list[str]]] = {}
    caller = _sample_caller(route, inbound)
    for field, value in words(inbound.dialect):
        meant = said(inbound.dialect, field, value)
        if all(matcher.holds(meant) for matcher in route.when if matcher.name in LOUD):
            arrives = _arrives(route, hop, inbound, caller, upstream, meant)
            lines.setdefault(arrives, {}).setdefault(field or "no severity", []).append("" if not field else str(value))
    for arrives, fields in lines.items():
        yield "; ".join(f"{field} {', '.join(values)}".strip() for field, values in fields.items()) + f" → {arrives}"


def _arrives(route: Route, hop: Hop, inbound: Inbound, caller: str, upstream: Upstream, meant: Flat) -> str:
    """The upstream's word for a severity or urgency, and its effect there, from the first documented example that can
    be sent."""
    unmet = ""
    if inbound.dialect.kind == "rule" and refuses_rules(upstream):
        return 'refused: it takes no rules (rules = "refuse")'
    for asked in _creates(inbound):
        flat = {"kind": inbound.dialect.kind, **_quieted(inbound.dialect, asked.patch), **meant}
        replaced = choice_of(hop, route.name, _facts(inbound, caller, flat)).replaced
        key = str(flat.get("dedup_key") or "key") if upstream.dialect.outbound.addressed_by == "key" else None
        saying = Saying(flat=flat, origin=inbound.dialect.name, caller=caller, key=key, replaced=replaced)
        try:
            body = translate(saying, upstream.destination).body
        except Unmet as problem:
            unmet = f"cannot be sent: {problem.path} is required"
            continue
        return f"{loudness(upstream, body) or 'no severity'} → {verdict(upstream, body)}"
    return unmet or "unknown: no documented example"


def _quieted(dialect: Dialect, patch: Flat) -> Flat:
    """An example's patch without its own severity and urgency, and without what would make it quiet."""
    is_good_news = patch.get("category") == QUIET_CATEGORY
    quiet = ("enabled", *LOUD, *(("category",) if is_good_news else ()))
    found = {path: value for path, value in patch.items() if path not in quiet}
    if labels := found.get("labels"):
        words = {leaf for _, leaf in places(dialect.mapping)}
        found["labels"] = {name: text for name, text in labels.items() if f"labels.{name}" not in words}
    return found
