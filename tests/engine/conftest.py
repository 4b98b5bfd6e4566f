"""Fixtures: gateways shared by a whole test file, a store that no gateway serves from, a database, a watch in haste."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery import breaker
from gateway.watch import watch
from tests.engine.moves import filled
from tests.engine.pairs import Houses, standing_houses
from tests.postgres_server import shared


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """A gateway in front of each vendor, started on first use."""
    with standing_houses(tmp_path_factory) as standing:
        yield standing


@pytest.fixture
def origin(tmp_path: Path) -> str:
    """A SQLite store to be moved: deliveries wait in it, and no gateway serves from it."""
    return filled(tmp_path)


@pytest.fixture
def url() -> str:
    """The address of an empty PostgreSQL database."""
    return shared().database()


@pytest.fixture
def _often_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks twenty times a second, and clears an alarm after three good looks."""
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.5)
    init = watch.Watch.__init__

    def fast(self: watch.Watch, *given: Any) -> None:
        init(self, *given)
        self.interval, self.calm = 0.05, 3

    monkeypatch.setattr(watch.Watch, "__init__", fast)
