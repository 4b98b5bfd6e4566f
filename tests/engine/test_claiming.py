"""Which of the due deliveries are attempted next, on each store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.config import Upstream
from gateway.config.loading import parse
from gateway.delivery.claiming import Claiming, any_first
from gateway.store import DeliveryRow, Tx
from tests.engine.desks import CONFIG
from tests.engine.store_drivers import DRIVERS, Harness, delivery, in_tx

UPSTREAM = replace(parse(CONFIG).upstreams["bykey"], name="u", concurrency=4)
RATED = replace(UPSTREAM, rate=600)
RECEIPT = {"receipt": {"request": "r1"}}


@pytest.fixture(params=sorted(DRIVERS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Each driver in turn."""
    return DRIVERS[request.param](tmp_path)


def _asked(tx: Tx, numbers: Sequence[int], rank: int = 3) -> None:
    """Puts deliveries into the outbox that the upstream has, and that are due to be asked about."""
    for number in numbers:
        row = delivery(number, lane=f"l{number}", rank=rank, due=number)
        row.keep(RECEIPT)
        tx.insert_delivery(row)


def _new(tx: Tx, numbers: Sequence[int], rank: int = 3) -> None:
    for number in numbers:
        tx.insert_delivery(delivery(number, lane=f"l{number}", rank=rank, due=number))


def _turn(tx: Tx, claiming: Claiming, most: int, upstream: Upstream = UPSTREAM) -> list[DeliveryRow]:
    """Claims and begins so many."""
    rows = claiming.claim(tx, upstream, 1000, most, frozenset(), fresh=False, is_probe=False)
    for row in rows:
        claiming.began(row, upstream)
    return rows


def _put_off(tx: Tx, rows: list[DeliveryRow], due: int = 900) -> None:
    """Records that the receipts of these say nothing yet."""
    for row in rows:
        row.due = due
        row.keep(RECEIPT)
        tx.update_delivery(row)


def test_what_is_new_goes_before_questions_until_as_much_was_sent(harness: Harness) -> None:
    """Questions and what is new share the places by halves, whichever there is more of."""

    def work(tx: Tx) -> None:
        _asked(tx, range(1, 101))
        claiming = Claiming()
        first = _turn(tx, claiming, 4)
        assert [row.id for row in first] == [1, 2, 3, 4]
        _put_off(tx, first)
        _new(tx, range(201, 241))
        began: list[bool] = []
        for _ in range(40):
            [row] = _turn(tx, claiming, 1)
            began.append(row.is_unconfirmed)
            _put_off(tx, [row])
        assert began[:4] == [False] * 4, "after four questions"
        assert sum(began[4:]) == 18, began

    in_tx(harness, work)


def test_questions_have_the_places_that_nothing_new_needs(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        _asked(tx, range(1, 11))
        claiming = Claiming()
        _put_off(tx, _turn(tx, claiming, 4))
        _new(tx, [201], rank=0)
        _new(tx, [202], rank=5)
        assert [row.id for row in _turn(tx, claiming, 4)] == [201, 202, 5, 6]

    in_tx(harness, work)


def test_under_a_rate_the_worst_goes_first_and_questions_last(harness: Harness) -> None:
    """Each question takes one of the requests that a new alert could have had."""

    def work(tx: Tx) -> None:
        _asked(tx, [1, 2, 3], rank=0)
        _asked(tx, [4], rank=1)
        _new(tx, [5, 6], rank=5)
        _new(tx, [7], rank=1)
        assert [row.id for row in _turn(tx, Claiming(), 6, RATED)] == [7, 5, 6, 1, 2, 3]

    in_tx(harness, work)


def test_a_receipt_that_is_given_up_has_its_rank_again() -> None:
    row = delivery(1, rank=2)
    row.keep(RECEIPT)
    row.keep(RECEIPT)
    assert (row.rank % 16, row.is_unconfirmed) == (2, True)
    row.keep({})
    assert (row.rank, row.is_unconfirmed, row.seen) == (2, False, {})


def test_what_may_have_been_under_way_is_the_first_in_every_order(harness: Harness) -> None:
    """A killed process may have sent what is new instead of the questions before it."""

    def work(tx: Tx) -> None:
        _asked(tx, range(1, 11))
        _new(tx, [201, 202])
        found = {row.id for row in any_first(tx, UPSTREAM, 1000, 3)}
        assert found == {1, 2, 3, 201, 202}

    in_tx(harness, work)


def test_however_many_questions_there_were_they_wait_only_for_as_many_as_are_sent_at_once(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        _asked(tx, range(1, 101))
        claiming = Claiming()
        for _ in range(5):
            _put_off(tx, _turn(tx, claiming, 4))
        _new(tx, range(201, 241))
        began = [row.is_unconfirmed for _ in range(5) for row in _turn(tx, claiming, 1)]
        assert began == [False] * 4 + [True]

    in_tx(harness, work)


def test_what_goes_before_questions_is_not_claimed_twice(harness: Harness) -> None:
    """What is new may also have been due for longest."""

    def work(tx: Tx) -> None:
        _asked(tx, range(301, 311))
        claiming = Claiming()
        _put_off(tx, _turn(tx, claiming, 4))
        _new(tx, [1, 2])
        assert [row.id for row in _turn(tx, claiming, 4)] == [1, 2, 305, 306]

    in_tx(harness, work)


def test_a_probe_is_what_was_not_tried_yet_or_else_a_retry(harness: Harness) -> None:
    """What failed before may fail by its own fault, and say nothing about the upstream."""

    def work(tx: Tx) -> None:
        tx.insert_delivery(delivery(1, lane="l1", due=1, created_at=0, attempts=1))
        claiming = Claiming()

        def probed() -> list[int]:
            return [row.id for row in claiming.claim(tx, UPSTREAM, 1000, 1, frozenset(), fresh=False, is_probe=True)]

        assert probed() == [1]
        _new(tx, [2])
        assert probed() == [2]

    in_tx(harness, work)


def test_with_fresh_no_retry_goes_before_questions(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        _asked(tx, [1, 2])
        claiming = Claiming()
        _put_off(tx, _turn(tx, claiming, 2), due=2000)
        tx.insert_delivery(delivery(3, lane="l3", due=3, created_at=0, attempts=1))
        _new(tx, [4])
        rows = claiming.claim(tx, UPSTREAM, 1000, 4, frozenset(), fresh=True, is_probe=False)
        assert [row.id for row in rows] == [4]

    in_tx(harness, work)


def test_the_worst_and_what_was_not_tried_yet_may_have_been_under_way_too(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        for number in (1, 2):
            tx.insert_delivery(delivery(number, lane=f"l{number}", rank=4, due=number, created_at=0, attempts=1))
        _new(tx, [3], rank=5)
        _new(tx, [4], rank=1)
        assert {row.id for row in any_first(tx, RATED, 1000, 1)} == {1, 3, 4}

    in_tx(harness, work)


def test_under_a_rate_the_worst_question_may_have_been_under_way_too(harness: Harness) -> None:
    def work(tx: Tx) -> None:
        _asked(tx, [1], rank=3)
        _asked(tx, [2], rank=0)
        assert {row.id for row in any_first(tx, RATED, 1000, 1)} == {1, 2}

    in_tx(harness, work)
