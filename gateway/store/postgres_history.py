"""Which of several servers is the one: where more than one takes writes, the one that was promoted last.

PostgreSQL counts a timeline up with every promotion. A server that was cut off, frozen or started again after its
standby had taken over knows nothing of that and takes writes too: what it is given is lost, and what was written since
is not found there. So nothing is asked of a server that another one has left behind. It must not know how connections
are made.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import psycopg
import structlog

from gateway.errors import StoreError

log = structlog.get_logger()

# Of the log that is written now: what the control file says is as old as the last checkpoint. It has to do for a
# standby, and tells of a promotion at once.
_ASKS = b"""
SELECT system_identifier::text,
       CASE WHEN pg_is_in_recovery() THEN (
           SELECT greatest(timeline_id, min_recovery_end_timeline) FROM pg_control_checkpoint(), pg_control_recovery()
       ) ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
       NOT pg_is_in_recovery(), coalesce(host(inet_server_addr()) || ':' || inet_server_port(), '')
FROM pg_control_system()
"""


class History(NamedTuple):
    """Where a server comes from: servers that are copies of each other are of one `system`. `server` is what it calls
    itself, wherever it was reached, empty where it was reached without a network; `place` is where that was."""

    system: str
    timeline: int
    takes_writes: bool
    server: str
    place: str


class LeftBehind(StoreError):
    """A server takes writes although another one was promoted after it."""


def history_of(connection: psycopg.Connection[Any]) -> History | None:
    """What a server says of itself; None where it does not, as an engine in PostgreSQL's place. Raises `psycopg.Error`
    where nobody is there: what is said then, as by a pooler, is why."""
    try:
        found = connection.execute(_ASKS, prepare=False).fetchone()
    except psycopg.Error:
        if connection.closed:
            raise
        return None
    return History._make((*found, f"{connection.info.host}:{connection.info.port}")) if found else None


class Promotions:
    """The latest timeline of each system that was ever seen, by all lines of a store together. `left_behind` names a
    server that took writes although another was promoted after it, when they were looked at last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, History] = {}
        self._serving: dict[str, int] = {}
        self._told: set[History] = set()
        self.left_behind = ""

    @property
    def latest(self) -> Mapping[str, History]:
        """Who was promoted last in each system, as far as is known now."""
        return dict(self._latest)

    def note(self, found: History | None) -> None:
        """A server was asked."""
        if found is None or not found.takes_writes:
            return
        with self._lock:
            latest = self._latest.setdefault(found.system, found)
            self._latest[found.system] = max(latest, found, key=_timeline)
            is_news = self.is_over(found) and found not in self._told
            self._told |= {found} if is_news else set()
        if is_news:
            log.error("store.left_behind", server=found.place, reason=self.why_not(found))

    def serve(self, found: History | None) -> None:
        """A server is the one from now on."""
        if found is None:
            return
        with self._lock:
            before = self._serving.get(found.system, found.timeline)
            self._serving[found.system] = max(found.timeline, before)
        if before < found.timeline:
            log.warning(
                "store.promoted",
                server=found.place,
                reason=f"it has taken over (timeline {found.timeline}, it was {before}): what it had not received by "
                "then is not in the store, also where callers were told that it is",
            )

    def compare(self, seen: Collection[History], known: Mapping[str, History]) -> None:
        """Servers were asked one after the other; who was promoted last is `known` from before that, as one that was
        asked at first may have been promoted by now. Where that one was put back, as it was a mistake, and none is of
        its timeline, the one before it serves again."""
        for system in {one.system for one in seen}:
            newest = max((one for one in seen if one.system == system), key=_timeline)
            gone = known.get(system, newest)
            if newest.timeline >= gone.timeline or not any(_is_put_back(gone, one) for one in seen):
                continue
            with self._lock:
                if self._latest[system] != gone:
                    continue
                self._latest[system] = newest
                self._serving[system] = newest.timeline
            log.error("store.promotion_undone", server=gone.place, reason=_why_gone(gone, newest))
        self.left_behind = next((one.place for one in seen if self.is_over(one)), "")

    def is_over(self, found: History | None) -> bool:
        """Whether another server was promoted since."""
        if found is None or not found.takes_writes:
            return False
        return found.timeline < self._latest.get(found.system, found).timeline

    def why_not(self, found: History) -> str:
        """Why nothing is asked of a server, and what to do about it."""
        latest = self._latest[found.system].timeline
        return (
            f"it takes writes although another was promoted after it (timeline {found.timeline}, that one's is "
            f"{latest}): stop it; if it is the one that is to serve, as after a restore, stop the other and "
            "restart the gateway, with every replica"
        )


def _timeline(found: History) -> int:
    return found.timeline


def _is_put_back(gone: History, seen: History) -> bool:
    """Whether it is the same server, and a standby now. One that takes writes is another to which its address went, as
    a virtual one goes from server to server; what poolers call their servers may be the same for each."""
    return not seen.takes_writes and gone.server != "" and (gone.server, gone.place) == (seen.server, seen.place)


def _why_gone(gone: History, newest: History) -> str:
    return (
        f"it was promoted last (timeline {gone.timeline}), and was put back behind that (timeline {newest.timeline} is "
        "the latest): what it took meanwhile is not in the store, also where callers were told that it is"
    )
