"""What every test shares."""

import pytest

from gateway.logs import configure


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    """Only what goes wrong is logged while tests run."""
    configure("error")
