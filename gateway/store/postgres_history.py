"""Which of several servers to use: where more than one takes writes, the one that was promoted last.

PostgreSQL increments the timeline with every promotion. A server that was cut off, frozen or started again after its
standby had taken over does not know that, and takes writes too: what is written there is lost, and what was written to
the new primary is missing. So a server that was left behind by a later promotion is not used. It must not know how
connections are made.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import psycopg
import structlog

from gateway.errors import StoreError

log = structlog.get_logger()

# The timeline of the WAL being written, as the control file's is as old as the last checkpoint. On a standby only the
# control file can be asked, and there it shows a promotion at once.
_ASKS = b"""
SELECT system_identifier::text,
       CASE WHEN pg_is_in_recovery() THEN (
           SELECT greatest(timeline_id, min_recovery_end_timeline) FROM pg_control_checkpoint(), pg_control_recovery()
       ) ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
       NOT pg_is_in_recovery(), coalesce(host(inet_server_addr()) || ':' || inet_server_port(), '')
FROM pg_control_system()
"""


class History(NamedTuple):
    """A server's identity and timeline: servers that are copies of each other have the same `system`. `server` is the
    address and port by which it knows itself, empty over a Unix socket; `place` is where it was reached."""

    system: str
    timeline: int
    takes_writes: bool
    server: str
    place: str


class LeftBehind(StoreError):
    """A server takes writes although another one was promoted after it."""


def history_of(connection: psycopg.Connection[Any]) -> History | None:
    """The history that a server reports; None if it cannot, as an engine in PostgreSQL's place. Raises `psycopg.Error`
    if the connection is lost by then: the error, as a pooler's, says why."""
    try:
        found = connection.execute(_ASKS, prepare=False).fetchone()
    except psycopg.Error:
        if connection.closed:
            raise
        return None
    return History._make((*found, f"{connection.info.host}:{connection.info.port}")) if found else None


class Promotions:
    """The server with the latest timeline ever seen in each system, shared by all lines of a store. `left_behind` names
    a server that accepted writes, at the last look, although another was promoted after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, History] = {}
        self._serving: dict[str, int] = {}
        self._told: set[History] = set()
        self.left_behind = ""

    @property
    def latest(self) -> Mapping[str, History]:
        """The server promoted last in each system, as far as is known now."""
        return dict(self._latest)

    def note(self, found: History | None) -> None:
        """Takes note of a server that was asked, and logs if it was left behind."""
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
        """Takes note that a server is used from now on, and logs if it has taken over."""
        if found is None:
            return
        with self._lock:
            before = self._serving.get(found.system, found.timeline)
            self._serving[found.system] = max(found.timeline, before)
        if before < found.timeline:
            log.warning(
                "store.promoted",
                server=found.place,
                reason=f"this server has taken over (timeline {found.timeline}, before {before}): commits that it had "
                "not received by then are missing, even if callers were told of success",
            )

    def compare(self, seen: Collection[History], known: Mapping[str, History]) -> None:
        """Detects a promotion that was undone as a mistake, from servers asked one after the other. `known` is who was
        promoted last as known before that, as a server asked early may have been promoted by now. If that one is a
        standby now, and no server seen has its timeline, the server with the latest one seen is used again."""
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
        """Whether a server takes writes although another was promoted after it."""
        if found is None or not found.takes_writes:
            return False
        return found.timeline < self._latest.get(found.system, found).timeline

    def why_not(self, found: History) -> str:
        """Why a server is not used, and what to do about it."""
        latest = self._latest[found.system].timeline
        return (
            f"this server takes writes although another was promoted after it (its timeline: {found.timeline}, the "
            f"other's: {latest}): stop it; if it is the one that is to serve, as after a restore, stop the other and "
            "restart the gateway, with every replica"
        )


def _timeline(found: History) -> int:
    return found.timeline


def _is_put_back(gone: History, seen: History) -> bool:
    """Whether it is the same server, now a standby. One that takes writes is a different server, to which the address
    of the first has moved, as a virtual address does. Both `server` and `place` are compared, as what servers behind
    poolers call themselves may be the same for each."""
    return not seen.takes_writes and gone.server != "" and (gone.server, gone.place) == (seen.server, seen.place)


def _why_gone(gone: History, newest: History) -> str:
    return (
        f"this server was promoted last (timeline {gone.timeline}) and has been demoted (timeline {newest.timeline} "
        "is the latest now): what it committed meanwhile is missing, even if callers were told of success"
    )
