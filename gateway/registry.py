"""Finds the dialects: every module of `mappings` that declares one. A faulty declaration stops the program.

Nothing here names a dialect: adding one is adding its module.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping

import mappings
from gateway.canonical import Operation
from gateway.dialect import Dialect
from gateway.errors import Problem, ProblemKind


@functools.cache
def dialects() -> Mapping[str, Dialect]:
    """Every dialect by name, in alphabetical order. Raises `RuntimeError` for a declaration that cannot be used."""
    found: dict[str, Dialect] = {}
    for module in sorted(pkgutil.iter_modules(mappings.__path__), key=lambda module: module.name):
        declared = getattr(importlib.import_module(f"mappings.{module.name}"), "DIALECT", None)
        if not isinstance(declared, Dialect):
            raise RuntimeError(f"mappings.{module.name} declares no DIALECT")
        faults = check(declared)
        if declared.name != module.name:
            faults.append(f"its name is {declared.name!r}, not that of its module")
        if faults:
            raise RuntimeError(f"mappings.{module.name}: " + "; ".join(faults))
        found[declared.name] = declared
    return found


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
            faults.append(f"{asked} cannot stand for {sent}")
    for operation in (Operation.CREATE, Operation.UPDATE, Operation.RESOLVE):
        if operation not in outbound.calls and operation not in outbound.nearest:
            faults.append(f"cannot send {operation}")
    for kind in ProblemKind:
        reply = dialect.problem(Problem(kind, "it went wrong"))
        if not 400 <= reply.status < 600:
            faults.append(f"no words for the problem {kind}")
    return faults
