"""How the primitives in SQL have a statement run, and what the engines' planners have to be told in it.

Values are always bound, never written into a statement; `?` marks them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

ALL = 1 << 62
"""A limit that limits nothing."""


class Rows(Protocol):
    """What a statement came to."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Running(ABC):
    """One transaction, in which statements are run. A driver says how, and what its planner needs to be told."""

    _commands_first = "commands c CROSS JOIN deliveries d ON d.command = c.id"
    """Commands and their deliveries; a planner that keeps the order of a `CROSS JOIN` begins with the commands."""
    _by_id = "id"
    """How the few rows that an index finds are put in order. A planner that is kept from sorting may not think of going
    through the whole table in this order instead, to find them there."""

    @abstractmethod
    def _run(self, statement: str, values: Sequence[Any]) -> Rows:
        """Runs a statement; raises `StoreError` where the store itself is in trouble."""

    def _one(self, statement: str, values: Iterable[Any]) -> Any:
        return self._run(statement, tuple(values)).fetchone()

    def _all(self, statement: str, values: Iterable[Any]) -> list[Any]:
        return self._run(statement, tuple(values)).fetchall()
