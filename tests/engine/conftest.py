"""Fixtures: gateways shared by a test file, a store that none serves from, a database, a server, and a hasty watch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery import breaker
from gateway.watch import watch
from tests.engine.moves import filled
from tests.engine.pairs import Houses, standing_houses
from tests.postgres_server import Server, shared


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """A gateway in front of each vendor, started on first use: a request has arrived there before it answers."""
    with standing_houses(tmp_path_factory, 'reply = "delivered"') as standing:
        yield standing


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """A gateway in front of each vendor, started on first use, that answers its callers as their vendors do."""
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
def server() -> Iterator[Server]:
    """A server of its own, which the test may break."""
    made = Server().make()
    yield made
    made.close()


@pytest.fixture
def _often_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks twenty times a second, and clears an alarm after three good looks."""
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.5)
    init = watch.Watch.__init__

    def fast(self: watch.Watch, *given: Any) -> None:
        init(self, *given)
        self.interval, self.calm = 0.05, 3

    monkeypatch.setattr(watch.Watch, "__init__", fast)
