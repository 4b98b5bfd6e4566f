"""Which of several servers is the one: where more than one takes writes, the one that was promoted last.

PostgreSQL counts a timeline up with every promotion. A server that was cut off, frozen or started again after its
standby had taken over knows nothing of that and takes writes too: what it is given is lost, and what was written since
is not found there. So nothing is asked of a server that another one has left behind. It must not know how connections
are made.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import psycopg
import structlog

from gateway.errors import StoreError

log = structlog.get_logger()

# Of the log that is written now: what the control file says is as old as the last checkpoint.
_ASKS = b"""
SELECT system_identifier::text, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
FROM pg_control_system()
"""


class History(NamedTuple):
    """Where a server comes from: servers that are copies of each other are of one `system`."""

    system: str
    timeline: int


class LeftBehind(StoreError):
    """A server takes writes although another one was promoted after it."""


def history_of(connection: psycopg.Connection[Any]) -> History | None:
    """What a server says of itself; None where it does not: a standby, or an engine in PostgreSQL's place."""
    try:
        found = connection.execute(_ASKS, prepare=False).fetchone()
    except psycopg.Error:
        return None
    return History(*found) if found else None


class Promotions:
    """The latest timeline of each system that was ever seen, by all lines of a store together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, int] = {}
        self._serving: dict[str, int] = {}
        self._told: set[tuple[str, History]] = set()

    def note(self, found: History | None, place: str) -> None:
        """A server at a place was asked."""
        if found is None:
            return
        with self._lock:
            self._latest[found.system] = max(found.timeline, self._latest.get(found.system, 0))
            is_news = self.is_over(found) and (place, found) not in self._told
            self._told |= {(place, found)} if is_news else set()
        if is_news:
            log.error("store.left_behind", server=place, reason=self.why_not(found))

    def serve(self, found: History | None, place: str) -> None:
        """A server at a place is the one from now on."""
        if found is None:
            return
        with self._lock:
            before = self._serving.get(found.system, found.timeline)
            self._serving[found.system] = max(found.timeline, before)
        if before < found.timeline:
            log.warning(
                "store.promoted",
                server=place,
                reason=f"it has taken over (timeline {found.timeline}, it was {before}): what it had not received by "
                "then is not in the store, also where callers were told that it is",
            )

    def is_over(self, found: History | None) -> bool:
        """Whether another server was promoted since."""
        return found is not None and found.timeline < self._latest.get(found.system, 0)

    def why_not(self, found: History) -> str:
        """Why nothing is asked of a server, and what to do about it."""
        return (
            f"it takes writes although another was promoted after it (timeline {found.timeline}, that one's is "
            f"{self._latest[found.system]}): stop it; if it is the one that is to serve, stop the other and restart "
            "the gateway"
        )
