"""What `check` warns of beyond plain mistakes: paths that another dialect takes, and routes whose upstream requires
what their callers cannot give.

It tries the callers' documented examples on every route. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.canonical import Operation
from gateway.config import Config, Inbound, shape_of
from gateway.errors import Problem, ProblemKind
from gateway.examples import examples
from gateway.rehearsal import command_in, rehearse
from gateway.routing import Route


def warnings(config: Config) -> Iterator[str]:
    """One text per side route that yields, and per route, sender and requirement that cannot be met."""
    yield from _yielding(config)
    for route in config.routes:
        for inbound in _senders(config, route):
            yield from sorted(set(_unmet(config, route, inbound)))


def _yielding(config: Config) -> Iterator[str]:
    """Side routes that, at the root, yield to another dialect's main route of the same path."""
    mains = {
        (route.method, shape_of(route.path)): inbound.dialect.name
        for inbound in config.inbounds.values()
        for route in inbound.dialect.routes
        if not route.side
    }
    for inbound in config.inbounds.values():
        for route in inbound.dialect.routes:
            holder = mains.get((route.method, shape_of(route.path)))
            if route.side and holder not in (None, inbound.dialect.name):
                own = f"/{inbound.dialect.name}{route.path}"
                yield f"inbound.{inbound.dialect.name}: {route.method} {route.path} is {holder}'s; use {own}"


def _senders(config: Config, route: Route) -> list[Inbound]:
    named = {who.partition("/")[0] for who in route.from_}
    return [inbound for name, inbound in config.inbounds.items() if not named or name in named]


def _unmet(config: Config, route: Route, inbound: Inbound) -> Iterator[str]:
    for example in examples(inbound.dialect.name):
        if example.operation != Operation.CREATE:
            continue
        try:
            asked = command_in(inbound.dialect, Operation.CREATE, example.request.body)
        except Problem:
            continue
        for hop in route.to:
            try:
                rehearse(asked, inbound.dialect, config.upstreams[hop.upstream], replaced=hop.replaced)
            except Problem as problem:
                if problem.kind is ProblemKind.UNMET:
                    yield f"routes: {route.name}: from {inbound.dialect.name}: {problem.message}"
