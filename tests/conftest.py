"""What every test shares."""

import contextlib
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from gateway.delivery import breaker
from gateway.logs import configure

settings.register_profile("gateway", deadline=None)  # what is slow here is the machine
settings.load_profile("gateway")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what is to run in the background
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else whatever a test starts would ignore it too


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    """Only what goes wrong is logged while tests run."""
    configure("error")


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that is run in this process may have blocked signals, as it ends with it. Whatever a later test starts
    would not hear that it is to end: nginx did not."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture
def _real_pauses() -> None:
    """A breaker pauses for as long as it does in earnest."""


@pytest.fixture(autouse=True)
def _short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A breaker that opened in a test asks again soon, unless the test is about how long that takes."""
    if "_real_pauses" not in request.fixturenames:
        monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.1)
        monkeypatch.setattr(breaker, "LONGEST_PAUSE", 0.4)
