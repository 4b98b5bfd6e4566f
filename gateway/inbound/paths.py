"""Finds the dialect and route of a path: below `/<dialect>/`, or at the root by the vendors' own paths, where the Host
header may decide between dialects. A proxy's prefix before `/<dialect>/` is skipped.

Paths are taken as real senders write them: doubled and trailing slashes, a trailing blank, percent-encoded ids. It must
not know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from msgspec import Struct

from gateway.config.config import Inbound
from gateway.dialect import Route
from gateway.errors import Problem, ProblemKind
from gateway.network.listening import host_in


class Match(Struct, frozen=True):
    """The inbound and the route of a request, the variables of its path, and any proxy's prefix before them."""

    inbound: Inbound
    route: Route
    params: Mapping[str, str]
    prefix: str = ""


@dataclass
class _Place:
    """What is served at one shape of path, by method: the inbound, the route, and the names of its variables."""

    by_method: dict[str, tuple[Inbound, Route, tuple[str, ...]]] = field(default_factory=dict)


class Paths:
    """Every route that is served. Below `/<dialect>` it is served under every host name. At the root of a host name
    that inbounds claim (`hosts`) only their routes are served, at every other root those of the inbounds that claim
    none."""

    def __init__(self, inbounds: Iterable[Inbound]) -> None:
        self._inbounds = {inbound.dialect.name: inbound for inbound in inbounds}
        everybody = list(self._inbounds.values())
        self._usual = _Places(everybody, [one for one in everybody if not one.hosts])
        self._named = {
            name: _Places(everybody, [one for one in everybody if name in one.hosts])
            for name in sorted({name for one in everybody for name in one.hosts})
        }

    def _under(self, host: str) -> _Places:
        return self._named.get(host_in(host), self._usual) if self._named else self._usual

    def match(self, method: str, raw_path: str, host: str = "") -> Match:
        """The route of a request; raises `Problem` for an unknown path or a method it does not have."""
        (place, values), prefix = self._under(host).find(raw_path), ""
        if place is None:
            prefix, rest = self._split(raw_path)
            place, values = self._under(host).find(rest) if prefix else (None, ())
        if place is None:
            raise Problem(ProblemKind.NO_SUCH_PATH, f"nothing is served at {unquote(raw_path)[:200]}")
        found = place.by_method.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = tuple(sorted(place.by_method))
            raise Problem(ProblemKind.METHOD_NOT_ALLOWED, f"use {' or '.join(allowed)} here", allow=allowed)
        inbound, route, names = found
        return Match(inbound, route, dict(zip(names, values, strict=True)), prefix)

    def _split(self, raw_path: str) -> tuple[str, str]:
        """Splits a path into the prefix before `/<dialect>`, as a proxy that serves several things under one name may
        pass it on, and the rest; the prefix is empty if no part of the path is a dialect's name."""
        parts = _parts(raw_path)
        at = next((at for at, part in enumerate(parts) if part in self._inbounds), 0)
        return "".join(f"/{part}" for part in parts[:at]), "".join(f"/{part}" for part in parts[at:])

    def nearest(self, raw_path: str, host: str = "") -> Inbound | None:
        """Returns the inbound in whose words to refuse a path that nobody serves: the dialect that the path begins
        with, else the one that has the path with the longest common beginning; if there is none, the first dialect
        named anywhere in the path, else the first of all."""
        parts = tuple(unquote(part) for part in _parts(raw_path))
        if parts and parts[0] in self._inbounds:
            return self._inbounds[parts[0]]
        best, likeness = None, -1
        for inbound in self._under(host).at_root or self._inbounds.values():
            for route in (one for one in inbound.dialect.routes if one.at_root):
                alike = _alike(parts, _parts(route.path))
                if alike > likeness:
                    best, likeness = inbound, alike
        named = next((part for part in parts if part in self._inbounds), None) if likeness <= 0 else None
        return self._inbounds[named] if named else best


class _Places:
    """The routes served under one host name, by the shape of their paths: literal parts, and `{}` for variables."""

    def __init__(self, inbounds: list[Inbound], at_root: list[Inbound]) -> None:
        self.at_root = at_root
        self._places: dict[tuple[str, ...], _Place] = {}
        self._written_out: dict[str, _Place] = {}
        for side in (False, True):
            for inbound in inbounds:
                for route in inbound.dialect.routes:
                    if route.side is side:
                        if inbound in at_root and route.at_root:
                            self._add("", inbound, route)
                        self._add(inbound.dialect.name, inbound, route)

    def _add(self, prefix: str, inbound: Inbound, route: Route) -> None:
        parts = _parts(f"/{prefix}{route.path}")
        shape = tuple("{}" if part.startswith("{") else part for part in parts)
        names = tuple(part[1:-1] for part in parts if part.startswith("{"))
        place = self._places.setdefault(shape, _Place())
        place.by_method.setdefault(route.method, (inbound, route, names))
        if not names and "%" not in route.path:
            self._written_out["/" + "/".join(parts)] = place

    def find(self, raw_path: str) -> tuple[_Place | None, tuple[str, ...]]:
        """Returns what is served at a path, and the values of its variables. Nearly all senders write a path as
        documented: one without variables is looked up whole, without being split."""
        if raw_path in self._written_out:
            return self._written_out[raw_path], ()
        decoded = tuple(unquote(part) for part in _parts(raw_path))
        if decoded in self._places and "{}" not in decoded:  # a literal `{}` in a path would equal a shape
            return self._places[decoded], ()
        for shape, place in self._places.items():
            if len(shape) == len(decoded) and "{}" in shape:
                pairs = list(zip(shape, decoded, strict=True))
                if all(want in ("{}", have) for want, have in pairs):
                    return place, tuple(have for want, have in pairs if want == "{}")
        return None, ()


def _parts(path: str) -> tuple[str, ...]:
    end = len(path)
    while end and (path[end - 1].isspace() or path.endswith("%20", 0, end)):
        end -= 1 if path[end - 1].isspace() else 3
    return tuple(part for part in path[:end].split("/") if part)


def _alike(parts: tuple[str, ...], route: tuple[str, ...]) -> int:
    count = 0
    for have, want in zip(parts, route, strict=False):
        if have != want and not want.startswith("{"):
            break
        count += 1
    return count
