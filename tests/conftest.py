"""Settings and fixtures that every test shares."""

import contextlib
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from gateway.delivery import breaker
from gateway.logs import configure

settings.register_profile("gateway", deadline=None)  # a slow example is the machine's fault
settings.load_profile("gateway")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell started in the background
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else processes that tests start ignore it too


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    """Logs only errors while tests run."""
    configure("error")


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Restores the signal mask: a command run in this process may have blocked signals, since it normally ends with its
    process. A process started by a later test would inherit the mask and not be told to end, as happened to nginx."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture
def _real_pauses() -> None:
    """Leaves a breaker's pauses as long as they are in production."""


@pytest.fixture(autouse=True)
def _short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens a breaker's pauses, except in a test of the pauses themselves (`_real_pauses`)."""
    if "_real_pauses" not in request.fixturenames:
        monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.1)
        monkeypatch.setattr(breaker, "LONGEST_PAUSE", 0.4)
