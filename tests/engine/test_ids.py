"""Ids of the gateway's own: unique, ordered, within 53 bits, and never going back with the clock."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ids import EPOCH_MS, SLOTS, Ids

MOST = 2**53


class Clock:
    """A clock that tests set."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """Returns the time that it was set to."""
        return self.now


@given(st.lists(st.integers(-40_000_000_000, 40_000_000_000), min_size=1, max_size=200))
def test_ids_increase_whatever_the_clock_does(jumps: list[int]) -> None:
    clock = Clock(EPOCH_MS + 50_000_000_000)
    ids = Ids(clock=clock)
    made = []
    for jump in jumps:
        clock.now += jump
        made += [ids.next(), ids.next()]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))


def test_a_clock_that_stands_still_does_not_stop_ids() -> None:
    ids = Ids(clock=Clock(EPOCH_MS + 1))
    made = [ids.next() for _ in range(5000)]
    assert len(set(made)) == 5000
    assert made == sorted(made)


@pytest.mark.parametrize("year", [2026, 2030, 2055])
def test_every_id_fits_a_json_number(year: int) -> None:
    """canonical.md, `id`: ids fit 53 bits, so that every vendor's form of id can hold them."""
    now = EPOCH_MS + (year - 2026) * 366 * 86_400_000
    ids = Ids(SLOTS - 1, clock=Clock(now))
    found = [ids.next() for _ in range(1000)]
    assert min(found) > 0
    assert max(found) < MOST
    assert int(float(found[-1])) == found[-1]


def test_ids_are_ordered_in_time() -> None:
    clock = Clock(EPOCH_MS + 10)
    first = Ids(slot=SLOTS - 1, clock=clock).next()
    clock.now += 1
    assert Ids(slot=0, clock=clock).next() > first


def test_two_writer_slots_never_make_the_same_id() -> None:
    clock = Clock(EPOCH_MS + 1000)
    makers = [Ids(slot, clock=clock) for slot in range(SLOTS)]
    made = [maker.next() for maker in makers for _ in range(300)]
    assert len(set(made)) == len(made)


def test_a_restart_goes_on_above_what_the_store_has_seen() -> None:
    clock = Clock(EPOCH_MS + 1_000_000)
    before = Ids(clock=clock)
    largest = max(before.next() for _ in range(700))
    clock.now -= 900_000
    assert Ids(floor=largest, clock=clock).next() > largest


@pytest.mark.parametrize("slot", [-1, SLOTS])
def test_a_slot_outside_the_range_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        Ids(slot)


def test_threads_share_one_maker() -> None:
    ids = Ids()
    made: list[list[int]] = [[] for _ in range(4)]

    def make(mine: list[int]) -> None:
        mine.extend(ids.next() for _ in range(2000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in made for one in mine}) == 8000
    assert all(mine == sorted(mine) for mine in made)


def test_the_default_clock_is_the_wall_clock() -> None:
    low = (time.time_ns() // 1_000_000 - EPOCH_MS) << 13
    found = Ids().next()
    high = (time.time_ns() // 1_000_000 - EPOCH_MS + 1) << 13
    assert low <= found < high
