"""Finds the dialects: every module of `mappings` that declares one. A faulty declaration stops the program.

Nothing here names a dialect: adding one is adding its module.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping

import mappings
from gateway.canonical import Operation
from gateway.dialect import Dialect
from gateway.errors import Problem, ProblemKind


class _Found(Mapping[str, Dialect]):
    """The dialects of these names, each imported at first use: a gateway that serves two need not load ten."""

    def __init__(self, names: Iterable[str]) -> None:
        self._declared: dict[str, Dialect | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Dialect:
        found = self._declared[name]
        if found is None:
            found = self._declared[name] = _declared(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)


@functools.cache
def dialects() -> Mapping[str, Dialect]:
    """Every dialect by name, in alphabetical order. Looking one up raises `RuntimeError` for a declaration that cannot
    be used."""
    return _Found(sorted(module.name for module in pkgutil.iter_modules(mappings.__path__)))


def _declared(name: str) -> Dialect:
    declared = getattr(importlib.import_module(f"mappings.{name}"), "DIALECT", None)
    if not isinstance(declared, Dialect):
        raise RuntimeError(f"mappings.{name} declares no DIALECT")
    faults = check(declared)
    if declared.name != name:
        faults.append(f"its name is {declared.name!r}, not that of its module")
    if faults:
        raise RuntimeError(f"mappings.{name}: " + "; ".join(faults))
    return declared


def check(dialect: Dialect) -> list[str]:
    """What is wrong with a declaration: routes that clash, operations that lead nowhere, problems without words."""
    faults = []
    seen = set()
    for route in dialect.routes:
        shape = (route.method, tuple("{}" if part.startswith("{") else part for part in route.path.split("/")))
        if shape in seen:
            faults.append(f"two routes for {route.method} {route.path}")
        seen.add(shape)
    outbound = dialect.outbound
    for asked, sent in outbound.nearest.items():
        if sent not in outbound.calls or asked in outbound.calls:
            faults.append(f"{asked} cannot be sent as {sent}")
    for operation in (Operation.CREATE, Operation.UPDATE, Operation.RESOLVE):
        if operation not in outbound.calls and operation not in outbound.nearest:
            faults.append(f"cannot send {operation}")
    for kind in ProblemKind:
        reply = dialect.problem(Problem(kind, "it went wrong"))
        if not 400 <= reply.status < 600:
            faults.append(f"no words for the problem {kind}")
    return faults
