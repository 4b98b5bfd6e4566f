"""What every test shares."""

import pytest
from hypothesis import settings

from gateway.logs import configure

settings.register_profile("gateway", deadline=None)  # what is slow here is the machine
settings.load_profile("gateway")


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    """Only what goes wrong is logged while tests run."""
    configure("error")
