"""The breaker, the retry budget and the rate, on a virtual clock."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.breaker import TRIPS_AT, Breaker, Bucket, Budget, budgeted, resumed

pytestmark = pytest.mark.usefixtures("_real_pauses")


def opened(at: float = 0.0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker()
    for number in range(1, TRIPS_AT + 1):
        assert breaker.failed(at, is_probe=False, reason="500") is (number == TRIPS_AT)
    return breaker


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker()
    for _ in range(20):
        for _ in range(TRIPS_AT - 1):
            breaker.failed(0.0, is_probe=False)
        breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.wait(0.0) == 0


def test_probes_come_after_5_s_and_then_ever_later_up_to_30_s() -> None:
    breaker, now = opened(), 0.0
    pauses = []
    for _ in range(6):
        pauses.append(breaker.wait(now))
        now += breaker.wait(now)
        breaker.failed(now, is_probe=True)
    assert pauses == [5, 10, 20, 30, 30, 30]


def test_what_was_under_way_when_it_opened_does_not_push_the_probe_away() -> None:
    breaker = opened()
    for _ in range(7):
        assert breaker.failed(1.0, is_probe=False) is False
    assert breaker.wait(1.0) == 4.0


def test_a_pause_that_is_asked_for_is_kept_to() -> None:
    breaker = opened()
    breaker.failed(5.0, is_probe=True, asked=120.0)
    assert breaker.wait(5.0) == 120.0
    breaker.succeeded()
    for _ in range(TRIPS_AT):
        breaker.failed(200.0, is_probe=False, asked=90.0)
    assert breaker.wait(200.0) == 90.0, "as much when it opens"


def test_a_probe_that_succeeds_closes_it_and_the_next_opening_starts_at_5_s() -> None:
    breaker = opened()
    breaker.failed(5.0, is_probe=True)
    assert breaker.reason == "500"
    assert breaker.succeeded() is True
    assert breaker.succeeded() is False
    assert (breaker.wait(5.0), breaker.reason) == (0, "")
    for _ in range(TRIPS_AT):
        breaker.failed(100.0, is_probe=False)
    assert breaker.wait(100.0) == 5.0


def test_one_failure_opens_a_breaker_that_another_replica_s_success_closed() -> None:
    breaker = opened()
    breaker.heard()
    assert breaker.state == "closed"
    assert breaker.failed(100.0, is_probe=False) is True
    assert breaker.wait(100.0) == 5.0


def test_a_held_upstream_is_probed_once_a_minute_until_what_it_was_held_for_changes() -> None:
    breaker = Breaker()
    breaker.hold(0.0, "401")
    assert (breaker.wait(0.0), breaker.reason) == (60.0, "401")
    breaker.failed(60.0, is_probe=True)
    assert (breaker.state, breaker.wait(60.0)) == ("held", 60.0)
    breaker.release(61.0)
    assert breaker.wait(61.0) == 0


@pytest.mark.parametrize("state", ["open", "held"])
def test_a_restart_keeps_it_and_allows_one_probe_at_once(state: str) -> None:
    breaker = opened()
    if state == "held":
        breaker.hold(0.0, "403")
    breaker.failed(5.0, is_probe=True)
    again = resumed(msgspec.json.decode(msgspec.json.encode(breaker.kept())))
    assert (again.state, again.wait(0.0), again.reason) == (state, 0.0, breaker.reason)
    pause = breaker.pause
    again.failed(0.0, is_probe=True)
    assert again.wait(0.0) == (min(pause * 2, 30.0) if state == "open" else 60.0)


@pytest.mark.parametrize("kept", [None, "closed", {}, {"state": "ajar"}, {"state": "open", "pause": "long"}])
def test_what_cannot_be_read_any_more_is_a_closed_breaker(kept: object) -> None:
    assert resumed(kept).state == "closed"


@given(st.lists(st.booleans(), max_size=2000))
def test_retries_are_at_most_a_fifth_of_deliveries_and_the_reserve(firsts: list[bool]) -> None:
    budget = Budget()
    made = retried = 0
    for is_first in firsts:
        if is_first:
            budget.earn()
            made += 1
        elif budget.refill(0.0) >= 1:
            budget.spend()
            retried += 1
    assert retried <= 10 + made / 5 + 1e-6


def test_a_spent_budget_comes_back_by_one_a_second() -> None:
    budget = Budget(level=0.0, at=0.0)
    assert budget.refill(0.5) < 1
    assert budget.refill(1.0) >= 1
    assert budget.refill(1000.0) == 10


def test_five_deliveries_give_a_spent_budget_one_retry() -> None:
    budget = Budget(level=0.0)
    for number in range(1, 6):
        assert budget.refill(0.0) < 1, number
        budget.earn()
    assert budget.refill(0.0) == pytest.approx(1)
    full = Budget()
    for _ in range(10):
        full.earn()
    full.spend()
    assert full.level == 9, "no more than the reserve was held"


def test_a_restart_keeps_a_budget_and_gives_what_came_back_since() -> None:
    budget = Budget(level=-5.0, at=100.0)
    kept = msgspec.json.decode(msgspec.json.encode(budget.kept(101.0, 1_000_000)))
    assert budgeted(kept, 7.0, 1_000_000).refill(7.0) == -4.0
    assert budgeted(kept, 7.0, 1_003_000).refill(8.0) == 0.0
    assert budgeted(kept, 7.0, 9_000_000).level == 10.0
    assert budgeted(kept, 7.0, 1_000).level == -4.0, "a clock that was set back gives nothing"


@pytest.mark.parametrize("kept", [None, [], {"level": "much"}])
def test_a_budget_that_cannot_be_read_any_more_is_a_new_one(kept: object) -> None:
    assert budgeted(kept, 3.0, 1_000).refill(3.0) == 10.0


@given(st.integers(1, 600), st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 30)), max_size=300))
def test_in_no_minute_are_there_more_requests_than_the_rate(per_minute: int, asks: list[tuple[int, int]]) -> None:
    bucket, now = Bucket(per_minute=per_minute), 1
    sent: list[int] = []
    for later, wanted in asks:
        now += later
        sent += [now] * bucket.take(now, wanted)
    for start in sent:
        window = sum(start <= at < start + 60_000 for at in sent)
        assert window <= max(per_minute, 2)


def test_a_rate_is_used_up_to_nine_tenths_and_more() -> None:
    bucket = Bucket(per_minute=60)
    sent = sum(bucket.take(now, 5) for now in range(1, 600_001, 100))
    assert 540 <= sent <= 600


@pytest.mark.parametrize(("per_minute", "seconds"), [(1, 120), (2, 60), (9, 7.5)])
def test_a_rate_below_ten_lets_one_through_at_a_time(per_minute: int, seconds: float) -> None:
    bucket = Bucket(per_minute=per_minute)
    assert bucket.take(1000, 3) == 1
    assert bucket.wait() == pytest.approx(seconds)
    assert bucket.take(999 + int(seconds * 1000), 3) == 0
    assert bucket.take(1001 + int(seconds * 1000), 3) == 1


def test_nobody_waits_for_a_request_that_can_be_taken() -> None:
    bucket = Bucket(per_minute=60)
    bucket.take(1000, 2)
    assert bucket.wait() == 0


def test_requests_beyond_what_was_taken_are_owed_and_a_clock_set_back_gives_none() -> None:
    bucket = Bucket(per_minute=60)
    assert bucket.take(1000, 10) == 6
    bucket.owe(3)
    assert bucket.take(1000, 1) == 0
    assert 4.0 < bucket.wait() < 4.6
    assert bucket.take(1, 1) == 0
    assert bucket.take(5001, 1) == 1
