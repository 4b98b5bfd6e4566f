"""Gateways that stand for a whole file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.pairs import Houses, standing_houses


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """A gateway before each vendor, made when it is first asked for."""
    with standing_houses(tmp_path_factory) as standing:
        yield standing
