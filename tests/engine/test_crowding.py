"""Admission: requests that cannot be served in time are refused, a burst that can be served is not. On a virtual
clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.desk.crowding import LET_IN, LONGEST, MOST, Crowd
from tests.harness import KEY, house
from tests.raw import wire


def serve(crowd: Crowd, arrivals: list[float], each: float) -> tuple[int, list[float]]:
    """Serves the arrivals one after the other, `each` taking this many seconds; returns how many were refused, and the
    waits of the others."""
    free, refused, waits = 0.0, 0, list[float]()
    leaving: list[tuple[float, int, float]] = []
    for now in arrivals:
        while leaving and leaving[0][0] <= now:
            _, ahead, took = leaving.pop(0)
            crowd.leave(ahead, took)
        if crowd.is_full:
            refused += 1
            continue
        entered = crowd.enter()
        free = max(free, now) + each
        leaving.append((free, entered, free - now))
        waits.append(free - now)
    for _, ahead, took in leaving:
        crowd.leave(ahead, took)
    return refused, waits


def steadily(each: float, count: int) -> list[float]:
    return [10 + number * each for number in range(count)]


def test_a_burst_is_let_in() -> None:
    refused, _ = serve(Crowd(), [10.0] * 250, 0.0005)
    assert refused == 0


def test_a_steady_load_that_can_be_borne_is_let_in() -> None:
    refused, waits = serve(Crowd(), steadily(0.0025, 4000), 0.002)
    assert (refused, max(waits) < 0.01) == (0, True)


@pytest.mark.parametrize("each", [0.0007, 0.002])
def test_of_five_times_what_can_be_borne_nobody_who_is_let_in_waits_for_long(each: float) -> None:
    """The first burst is let in like any other; after it the speed of the machine is known."""
    refused, waits = serve(Crowd(), steadily(each / 5, 25_000), each)
    assert refused > 15_000
    assert max(waits) <= MOST * each + 0.01
    assert max(waits[2 * MOST :]) <= LONGEST * 1.1
    assert len(waits) > 25_000 / 5 * 0.95, "capacity was left unused"


def test_on_the_slowest_machine_some_are_let_in_all_the_same() -> None:
    crowd = Crowd()
    serve(crowd, steadily(0.01, 5000), 0.05)
    assert serve(crowd, [100.0] * 100, 0.05)[0] == 100 - LET_IN


def test_a_machine_that_is_quick_again_lets_more_in_again() -> None:
    crowd = Crowd()
    serve(crowd, steadily(0.0004, 10_000), 0.002)
    assert serve(crowd, [30.0] * 200, 0.0005)[0] > 0
    serve(crowd, [40 + number * 0.0004 for number in range(2000)], 0.0005)
    assert serve(crowd, [50.0] * 200, 0.0005)[0] == 0


def test_on_the_quickest_machine_there_is_a_most_all_the_same() -> None:
    crowd = Crowd()
    serve(crowd, [10.0 + burst for burst in range(100) for _ in range(100)], 0.00001)
    assert serve(crowd, [200.0] * 400, 0.00001)[0] == 400 - MOST


def test_while_no_more_can_be_written_who_reads_is_answered_and_who_writes_is_refused_early(tmp_path: Path) -> None:
    """A refusal comes before the body is read, but says nothing to a stranger."""
    head = "POST /uptinio/alerts HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {}\r\ncontent-length: 90000\r\n\r\n"
    with house(tmp_path, {"there": "uptinio"}, inbounds=["uptinio"]) as h:
        assert h.gateway.desk is not None
        while not h.gateway.desk.crowd.is_full:
            h.gateway.desk.crowd.enter()
        assert h.call("GET", "/uptinio/alerts").status == 200
        for key, status in ((KEY, 503), ("nobody-s", 401)):
            with wire(h.url) as caller:
                caller.say(head.format(key).encode())
                heard = caller.hear()
                assert heard is not None and heard.status == status
                assert heard.headers.get("retry-after") == ("1" if status == 503 else None)
