"""What an upstream's answer means for a delivery, and when to try again: pure functions, for every dialect and
status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.config import Retry
from gateway.delivery.judging import judge, pause, retry_after
from gateway.outcome import Response
from gateway.registry import dialects

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = 3600.0
FAR_WEST = f"Sun, 06 Nov 1994 08:49:37 +{'9' * 23}"


def expected(status: int) -> str:
    """canonical.md, *Verdicts*: 408, 425, 429, 5xx: retry. 401, 402, 403: the upstream is held. Others: dead."""
    if 200 <= status <= 299:
        return "ok"
    if status in (408, 425, 429) or 500 <= status <= 599:
        return "retry"
    return "hold" if status in (401, 402, 403) else "dead"


@pytest.mark.parametrize("name", sorted(dialects()))
def test_every_status_has_a_verdict(name: str) -> None:
    dialect = dialects()[name]
    for status in range(200, 600):
        exception = dialect.outbound.verdicts.get(status)
        assert judge(status, dialect) == (exception or expected(status)), status


@pytest.mark.parametrize("name", sorted(dialects()))
def test_a_dialect_lists_only_its_exceptions(name: str) -> None:
    for status, verdict in dialects()[name].outbound.verdicts.items():
        assert verdict != expected(status), f"{status} is {verdict} anyway"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_no_success(status: int) -> None:
    assert all(judge(status, dialect) == "dead" for dialect in dialects().values())


def asked(text: str) -> float | None:
    """The pause that an answer with this Retry-After asks for."""
    return retry_after(Response(503, {"retry-after": text}), NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("120", 120.0),
        ("3600", HOUR),
        ("99999999", HOUR),
        ("1.5", 1.5),
        ("5, 120", 120.0),
    ],
)
def test_retry_after_in_seconds_is_capped(text: str, seconds: float) -> None:
    assert asked(text) == seconds


@pytest.mark.parametrize("seconds", [0, 1, 90, 3599])
def test_retry_after_as_a_date(seconds: int) -> None:
    assert asked(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)) == seconds


def test_the_three_forms_of_a_date() -> None:
    """RFC 9110, 5.6.7: IMF-fixdate, RFC 850, asctime; a recipient must accept all three."""
    assert asked("Sun, 01 Mar 2026 12:00:30 GMT") == 30
    assert asked("Sunday, 01-Mar-26 12:00:30 GMT") == 30
    assert asked("Sun Mar  1 12:00:30 2026") == 30


def test_a_date_that_has_passed_is_now_and_a_far_one_is_capped() -> None:
    assert asked(format_datetime(NOW - timedelta(days=3), usegmt=True)) == 0
    assert asked(format_datetime(NOW + timedelta(days=30), usegmt=True)) == HOUR


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5e3", "٣", "²", "Mon, 99 Foo 2026", "0x10", "\x00", FAR_WEST])
def test_nonsense_asks_for_nothing_and_never_raises(text: str) -> None:
    found = asked(text)
    assert found is None or 0 <= found <= HOUR


@given(st.text(max_size=40))
def test_no_header_is_an_exception(text: str) -> None:
    found = asked(text)
    assert found is None or 0 <= found <= HOUR


def test_without_the_header_nothing_is_asked() -> None:
    assert retry_after(Response(503), NOW) is None


uniform = st.floats(0, 1, exclude_max=True)


@given(
    first=st.floats(0.001, 100),
    most=st.floats(0.001, 4000),
    attempts=st.integers(1, 10**6),
    random=uniform,
)
def test_the_pause_is_exponential_with_full_jitter(first: float, most: float, attempts: int, random: float) -> None:
    found = pause(Retry(first=first, most=most), attempts, None, lambda: random)
    assert 0 <= found <= most
    assert found <= first * 2.0 ** min(attempts - 1, 60)


@given(asked_for=st.floats(0, HOUR), attempts=st.integers(1, 1000), random=uniform)
def test_never_earlier_than_was_asked_for(asked_for: float, attempts: int, random: float) -> None:
    found = pause(Retry(first=0.001, most=0.002), attempts, asked_for, lambda: random)
    assert asked_for <= found <= asked_for * 1.1 + 1e-6


def test_the_ceiling_doubles() -> None:
    retry = Retry(first=1.0, most=60.0)
    ceilings = [round(pause(retry, attempts, None, lambda: 1.0), 6) for attempts in range(1, 9)]
    assert ceilings == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_delivery_that_was_never_attempted_does_not_confuse_it() -> None:
    assert 0 <= pause(Retry(), 0, None, lambda: 0.999) <= 1.0
