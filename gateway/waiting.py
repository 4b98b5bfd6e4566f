"""Callers who wait for a verdict: in memory, as a waiting caller ends with the process.

What they wait for is in the store; a caller that stops waiting loses nothing. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from gateway.settling import Verdict

MOST_FOR_ONE_UPSTREAM = 256
"""So many callers may wait for one primary; further ones are answered as if they did not want to wait."""


class Waiter:
    """One command that somebody waits for: the verdicts so far, and who has yet to give one.

    `shows` says that the primary's own id is to be shown; `strict` that a change by others is to be refused;
    `any_will_do` that whichever upstream takes it first is as good as the primary.
    """

    def __init__(
        self, primary: str, upstreams: Iterable[str], *, shows: bool, strict: bool, any_will_do: bool = False
    ) -> None:
        self.primary = primary
        self.pending = set(upstreams)
        self.held: set[str] = set()
        self.any_will_do = any_will_do
        self.verdicts: dict[str, Verdict] = {}
        self.shows = shows
        self.strict = strict
        self.done = asyncio.Event()
        self.unclaimed = asyncio.Event()
        self.unclaimed.set()

    def give(self, upstream: str, verdict: Verdict) -> None:
        """Takes one upstream's verdict. Where replicas share a store the same is heard again, and without what others
        changed there: the first one stands."""
        self.verdicts.setdefault(upstream, verdict)
        self.pending.discard(upstream)
        has_it = verdict.state == "delivered" and (self.any_will_do or upstream == self.primary)
        if has_it or not self.pending - self.held:
            self.done.set()

    def hold(self, upstream: str) -> None:
        """One of the upstreams will not give its verdict soon."""
        self.held.add(upstream)
        is_vain = upstream == self.primary and not self.any_will_do
        if is_vain or not self.pending - self.held:
            self.done.set()

    def all_refused(self) -> bool:
        """Whether every upstream refused the content."""
        return not self.pending and bool(self.verdicts) and all(v.state == "dead" for v in self.verdicts.values())


class Waiters:
    """Everybody who waits, by command."""

    def __init__(self) -> None:
        self._waiting: dict[int, Waiter] = {}
        self._by_primary: dict[str, int] = {}
        self._lock = threading.Lock()  # they are added by the store's writer, in the transaction that they wait for

    def add(self, command: int, waiter: Waiter) -> bool:
        """Waits for a command; False where too many wait for its primary already. A store may run a transaction
        again: then only the last one counts."""
        with self._lock:
            self._forget(command)
            count = self._by_primary.get(waiter.primary, 0)
            if count >= MOST_FOR_ONE_UPSTREAM:
                return False
            self._waiting[command] = waiter
            self._by_primary[waiter.primary] = count + 1
            return True

    def remove(self, command: int) -> None:
        """Waits no more."""
        with self._lock:
            self._forget(command)

    def _forget(self, command: int) -> None:
        if waiter := self._waiting.pop(command, None):
            self._by_primary[waiter.primary] -= 1

    def is_waiting(self, command: int) -> bool:
        """Whether anybody waits for a command."""
        return command in self._waiting

    def is_strict(self, command: int) -> bool:
        """Whether the one who waits wants to hear of other people's changes."""
        waiter = self._waiting.get(command)
        return bool(waiter and waiter.strict)

    def claim(self, command: int, upstream: str) -> bool:
        """Whether this upstream's id is to be shown. Until `release` the waiter waits for the commit that says so."""
        waiter = self._waiting.get(command)
        if waiter is None or not waiter.shows or waiter.primary != upstream:
            return False
        waiter.unclaimed.clear()
        return True

    def release(self, command: int) -> None:
        """The commit was made, or failed."""
        if waiter := self._waiting.get(command):
            waiter.unclaimed.set()

    def release_all(self, upstream: str) -> None:
        """Nobody is to wait for an upstream that is held now."""
        for command in list(self._waiting):
            self.hold(command, upstream)

    def hold(self, command: int, upstream: str) -> None:
        """Nobody is to wait for an upstream's verdict on one command: the key that it goes out with is refused."""
        waiter = self._waiting.get(command)
        if waiter is not None and upstream in waiter.pending:
            waiter.hold(upstream)

    def verdict(self, command: int, upstream: str, verdict: Verdict) -> None:
        """Passes an upstream's verdict on."""
        if waiter := self._waiting.get(command):
            waiter.give(upstream, verdict)
