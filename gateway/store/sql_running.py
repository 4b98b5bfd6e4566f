"""The base of the primitives in SQL: how statements are run, and the parts of them that depend on an engine's planner.

Values are always bound, never written into a statement; `?` marks them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

ALL = 1 << 62
"""The value of a LIMIT that does not limit."""


class Rows(Protocol):
    """The result of a statement."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Running(ABC):
    """One transaction, in which statements are run. A driver implements `_run`, and adapts what its planner needs."""

    _commands_first = "commands c CROSS JOIN deliveries d ON d.command = c.id"
    """Commands joined with their deliveries; SQLite keeps the order of a `CROSS JOIN`, so it begins with the
    commands."""
    _by_id = "id"
    """The sort expression for the few rows that an index finds. A driver whose planner avoids sorting replaces it by
    one that no index has, or the planner would scan the whole table in the order of its ids instead."""

    @abstractmethod
    def _run(self, statement: str, values: Sequence[Any]) -> Rows:
        """Runs a statement; raises `StoreError` where the store itself is in trouble."""

    def _one(self, statement: str, values: Iterable[Any]) -> Any:
        return self._run(statement, tuple(values)).fetchone()

    def _all(self, statement: str, values: Iterable[Any]) -> list[Any]:
        return self._run(statement, tuple(values)).fetchall()
