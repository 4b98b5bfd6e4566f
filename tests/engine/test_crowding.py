"""A queue that stands is told from a burst that passes, on a virtual clock."""

from __future__ import annotations

from gateway.crowding import MOST, STANDS_AT, Crowd


def serve(crowd: Crowd, arrivals: list[float], each: float) -> tuple[int, float]:
    """One after the other, `each` taking so many seconds: how many were refused, and the longest wait of the others."""
    free, refused, longest = 0.0, 0, 0.0
    leaving: list[tuple[float, float]] = []
    for now in arrivals:
        while leaving and leaving[0][0] <= now:
            at, took = leaving.pop(0)
            crowd.leave(at, took)
        if not crowd.may_enter(now):
            refused += 1
            continue
        free = max(free, now) + each
        leaving.append((free, free - now))
        longest = max(longest, free - now)
    return refused, longest


def test_a_burst_is_let_in() -> None:
    refused, _ = serve(Crowd(), [10.0] * 250, 0.002)
    assert refused == 0


def test_a_steady_load_that_can_be_borne_is_let_in() -> None:
    refused, longest = serve(Crowd(), [10 + number * 0.0025 for number in range(4000)], 0.002)
    assert (refused, longest < 0.01) == (0, True)


def test_five_times_what_can_be_borne_is_refused_and_nobody_waits_for_ever() -> None:
    """The first second is a burst like any other; from then on there is a queue of what may always be under way."""
    refused, longest = serve(Crowd(), [10 + number * 0.0004 for number in range(25_000)], 0.002)
    assert refused > 15_000
    assert longest <= MOST * 0.002 + 0.01


def test_when_it_has_passed_everybody_is_let_in_again() -> None:
    crowd = Crowd()
    serve(crowd, [10 + number * 0.0004 for number in range(10_000)], 0.002)
    while crowd.inside:
        crowd.leave(20.0, STANDS_AT * 2)
    assert serve(crowd, [30 + number * 0.01 for number in range(200)], 0.002)[0] == 0
