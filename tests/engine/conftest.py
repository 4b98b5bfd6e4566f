"""Gateways that stand for a whole file of tests, and a store that nobody serves from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.moves import filled
from tests.engine.pairs import Houses, standing_houses


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """A gateway before each vendor, made when it is first asked for."""
    with standing_houses(tmp_path_factory) as standing:
        yield standing


@pytest.fixture
def origin(tmp_path: Path) -> str:
    """A store in SQLite that is to be moved: something waits in it, and nobody serves from it."""
    return filled(tmp_path)
