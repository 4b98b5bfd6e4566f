"""Fixtures of the conformance tests: the switch that rewrites recorded files, and the files themselves.

`pytest tests/conformance --record -n 0` rewrites what was recorded from our own answers, and always fails.
"""

from __future__ import annotations

import pytest

from tests.recorded import Recorder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the switch."""
    parser.addoption("--record", action="store_true", help="rewrite recorded golden files, and fail")


def pytest_configure(config: pytest.Config) -> None:
    """A test that records fails, and would be run again: its samples would be sent, and recorded, twice."""
    if _records(config):
        config.option.reruns = 0


def _records(config: pytest.Config) -> bool:
    return bool(config.getoption("record", default=False))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails every run that records, whatever it did."""
    if _records(session.config) and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def recorder(pytestconfig: pytest.Config) -> Recorder:
    """The recorded files."""
    return Recorder(_records(pytestconfig))
