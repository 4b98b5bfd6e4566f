"""Waiting callers are counted correctly, also where a store runs the transaction they wait for more than once."""

from __future__ import annotations

import asyncio

from gateway.delivery.waiting import MOST_FOR_ONE_UPSTREAM, Waiter, Waiters


def test_a_transaction_that_is_run_again_counts_its_caller_once() -> None:
    async def main() -> None:
        waiters = Waiters()
        for _ in range(2 * MOST_FOR_ONE_UPSTREAM):
            assert waiters.add(1, Waiter(1, "u", ["u"], shows=False, strict=False))
        assert waiters.add(1, Waiter(1, "v", ["v"], shows=False, strict=True)) and waiters.is_strict(1)
        waiters.remove(1)
        added = [
            waiters.add(number, Waiter(number, "u", ["u"], shows=False, strict=False))
            for number in range(MOST_FOR_ONE_UPSTREAM + 1)
        ]
        assert added == [True] * MOST_FOR_ONE_UPSTREAM + [False]
        assert waiters.add(-1, Waiter(0, "u", ["u"], shows=False, strict=False)), "a batch is one caller"

    asyncio.run(main())
