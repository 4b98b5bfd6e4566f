"""Callers that wait for verdicts: in memory, as a caller's connection ends with the process anyway.

What they wait for is in the store; a caller that stops waiting loses nothing. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable

from gateway.road.settling import Verdict

MOST_FOR_ONE_UPSTREAM = 256
"""Callers that may wait for one primary; further ones are answered as if they did not want to wait. A batch is one
caller, however many commands it has."""


class Waiter:
    """One command that a caller waits for, of this request: the verdicts so far, and the upstreams that have yet to
    give one.

    `shows` says that the caller is to be shown the primary's own id; `strict` that the command is to be refused if
    others changed the alert there; `any_will_do` that any upstream's success is as good as the primary's.
    """

    def __init__(
        self,
        request: int,
        primary: str,
        upstreams: Iterable[str],
        *,
        shows: bool,
        strict: bool,
        any_will_do: bool = False,
    ) -> None:
        self.request = request
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
        """Takes one upstream's verdict. Where replicas share a store it is heard a second time, without what others
        changed there: the first one counts."""
        self.verdicts.setdefault(upstream, verdict)
        self.pending.discard(upstream)
        has_it = verdict.state == "delivered" and (self.any_will_do or upstream == self.primary)
        if has_it or not self.pending - self.held:
            self.done.set()

    def hold(self, upstream: str) -> None:
        """Notes that one of the upstreams is held and will not give its verdict soon."""
        self.held.add(upstream)
        is_vain = upstream == self.primary and not self.any_will_do
        if is_vain or not self.pending - self.held:
            self.done.set()

    def all_refused(self) -> bool:
        """Whether every upstream refused the content."""
        return not self.pending and bool(self.verdicts) and all(v.state == "dead" for v in self.verdicts.values())


class Waiters:
    """All waiters, by command."""

    def __init__(self) -> None:
        self._waiting: dict[int, Waiter] = {}
        self._by_primary: dict[str, Counter[int]] = {}  # of each request that waits, how many commands do
        self._lock = threading.Lock()  # waiters are added in the store's writer thread, within their transaction
        self._is_over = False

    def add(self, command: int, waiter: Waiter) -> bool:
        """Adds a waiter; returns False where too many wait for its primary already, or nobody is to wait any more. A
        store may run a transaction again: then only the last waiter counts."""
        with self._lock:
            self._forget(command)
            if self._is_over:
                return False
            requests = self._by_primary.setdefault(waiter.primary, Counter())
            if waiter.request not in requests and len(requests) >= MOST_FOR_ONE_UPSTREAM:
                return False
            self._waiting[command] = waiter
            requests[waiter.request] += 1
            return True

    def remove(self, command: int) -> None:
        """Removes the waiter of a command."""
        with self._lock:
            self._forget(command)

    def _forget(self, command: int) -> None:
        if waiter := self._waiting.pop(command, None):
            requests = self._by_primary[waiter.primary]
            requests[waiter.request] -= 1
            if not requests[waiter.request]:
                del requests[waiter.request]

    def is_waiting(self, command: int) -> bool:
        """Whether anybody waits for a command."""
        return command in self._waiting

    def is_strict(self, command: int) -> bool:
        """Whether the caller that waits wants changes by others refused."""
        waiter = self._waiting.get(command)
        return bool(waiter and waiter.strict)

    def claim(self, command: int, upstream: str) -> bool:
        """Whether this upstream's id is to be shown. If so, the waiter waits until `release` for the commit of it."""
        waiter = self._waiting.get(command)
        if waiter is None or not waiter.shows or waiter.primary != upstream:
            return False
        waiter.unclaimed.clear()
        return True

    def release(self, command: int) -> None:
        """Lets the waiter go on: the commit was made, or failed."""
        if waiter := self._waiting.get(command):
            waiter.unclaimed.set()

    def release_all(self, upstream: str) -> None:
        """Lets nobody wait for an upstream that is held now."""
        for command in list(self._waiting):
            self.hold(command, upstream)

    def dismiss(self) -> None:
        """Lets nobody wait for anything any more: the process ends, and what they said is durable."""
        with self._lock:
            self._is_over = True
            for waiter in self._waiting.values():
                waiter.done.set()

    def hold(self, command: int, upstream: str) -> None:
        """Lets nobody wait for an upstream's verdict on one command, whose key the upstream refuses."""
        waiter = self._waiting.get(command)
        if waiter is not None and upstream in waiter.pending:
            waiter.hold(upstream)

    def verdict(self, command: int, upstream: str, verdict: Verdict) -> None:
        """Passes an upstream's verdict on to the waiter of the command, if any."""
        if waiter := self._waiting.get(command):
            waiter.give(upstream, verdict)
