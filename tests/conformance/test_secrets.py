"""Checks that no secret is in any output: replies, headers, reports, logs, metrics, `repr`, or the store's files. Every
credential is a canary, every route is called, and some upstreams echo whatever they receive."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.canary import CANARIES
from tests.conformance.samples import NAMES

ROOT = Path(__file__).parents[2]


@dataclass
class Heard:
    """What the process printed, logged, and left in its directory."""

    said: str
    logged: str
    stored: bytes


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """Runs the canaries once."""
    directory = tmp_path_factory.mktemp("canary")
    command = [sys.executable, "-m", "tests.conformance.canary", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    stored = b"".join(file.read_bytes() for file in sorted(directory.iterdir()))
    return Heard(done.stdout, done.stderr, stored)


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.rsplit("-", 1)[0])
def test_no_caller_is_shown_a_secret(heard: Heard, canary: str) -> None:
    assert _near(heard.said, canary) == ""


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.rsplit("-", 1)[0])
def test_no_secret_is_logged(heard: Heard, canary: str) -> None:
    assert _near(heard.logged, canary) == ""


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.rsplit("-", 1)[0])
def test_no_secret_is_stored(heard: Heard, canary: str) -> None:
    assert _near(heard.stored.decode("latin-1"), canary) == ""


def test_there_was_something_to_hear(heard: Heard) -> None:
    """The run covered what it should: every dialect answered well and badly, and the echoes were answered, logged and
    stored."""
    for name in NAMES:
        assert f'alert_gateway_requests_total{{dialect="{name}",outcome="ok"}}' in heard.said
        assert f'alert_gateway_requests_total{{dialect="{name}",outcome="unauthorized"}}' in heard.said
    assert "ECHO" in heard.said, "nobody was refused with an upstream's words"
    assert "ECHO" in heard.logged
    assert b"ECHO" in heard.stored


def _near(text: str, canary: str) -> str:
    """Returns the surroundings of a canary in a text; empty if it is not there."""
    at = text.find(canary)
    return text[max(0, at - 200) : at + 60] if at >= 0 else ""
