"""The outbox in SQL: deliveries, by lane and in lists, and their attempts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

from gateway.store import AttemptRow, DeliveryFilter, DeliveryRow, DeliveryState, Waiting
from gateway.store.rows import UNCONFIRMED
from gateway.store.sql_running import ALL, Rows, Running
from gateway.store.tables import ATTEMPTS, DELIVERIES

STATES = get_args(DeliveryState)
_LANE = DELIVERIES.fields.index("lane")
FRESH = "(d.attempts = 0 OR d.due = d.created_at)"
"""The SQL condition on a delivery `d` that its next attempt is no retry: see `DeliveryRow.is_retry`."""


class Deliveries(Running):
    """Deliveries and attempts: storing and listing them, and choosing those whose turn it is."""

    def _decoded(self, columns: Sequence[Any]) -> DeliveryRow:
        """The delivery in a row. A driver that stores the times of what waits by another clock converts them."""
        return DELIVERIES.decode(columns)

    def insert_delivery(self, row: DeliveryRow) -> None:
        self._run(DELIVERIES.insert, DELIVERIES.values(row))

    def update_delivery(self, row: DeliveryRow) -> None:
        self._run(DELIVERIES.update, DELIVERIES.update_values(row))

    def delivery(self, delivery: int) -> DeliveryRow | None:
        found = self._one(f"{DELIVERIES.select} WHERE id = ?", (delivery,))
        return self._decoded(found) if found else None

    def deliveries(self, chosen: DeliveryFilter) -> list[DeliveryRow]:
        if chosen.state not in (None, *STATES):
            return []
        if _has_own_index(chosen):
            numbers, values = self._numbers_of_a_state(chosen)
            statement = f"{DELIVERIES.select} WHERE id IN ({numbers}) ORDER BY {self._by_id} {_way(chosen)}"
        else:
            where, values = _deliveries_where(chosen)
            order = self._by_id if chosen.alert is not None or chosen.ids else "id"
            statement = f"{DELIVERIES.select} WHERE {where} ORDER BY {order} {_way(chosen)} LIMIT ?"
            values.append(chosen.limit)
        return [self._decoded(row) for row in self._all(statement, values)]

    def _numbers_of_a_state(self, chosen: DeliveryFilter) -> tuple[str, list[Any]]:
        """The statement that finds their ids by the index of waiting or dead deliveries, and the values to bind. The
        ids from the index are sorted: a planner free to use the table's own order would scan the whole table
        instead."""
        where, values = _deliveries_where(chosen)
        is_in_order = chosen.state == "dead" and chosen.upstream is not None
        order = self._by_id if is_in_order else "id + 0"
        return f"SELECT id FROM deliveries WHERE {where} ORDER BY {order} {_way(chosen)} LIMIT ?", [
            *values,
            chosen.limit,
        ]

    def held(self, ids: Collection[int]) -> list[DeliveryRow]:
        return self.deliveries(DeliveryFilter(ids=tuple(ids), limit=len(ids))) if ids else []

    def delivery_numbers(self, chosen: DeliveryFilter, among: int) -> tuple[list[int], int | None]:
        if chosen.alert is not None or chosen.ids:
            return [row.id for row in self.deliveries(chosen)], None
        if _has_own_index(chosen):
            return [row[0] for row in self._all(*self._numbers_of_a_state(chosen))], None
        if chosen.upstream is not None and not self.has_deliveries(chosen.upstream):
            return [], None
        newest = "SELECT id, state, upstream FROM deliveries WHERE id < ? ORDER BY id DESC LIMIT ?"
        rows = self._all(newest, (ALL if chosen.before is None else chosen.before, among))
        found = [row[0] for row in rows if chosen.state in (None, row[1]) and chosen.upstream in (None, row[2])]
        return found[: chosen.limit], rows[-1][0] if len(rows) == among else None

    def has_deliveries(self, upstream: str) -> bool:
        # Ordered as an index is: a planner that believes the upstream to be common would scan the table otherwise.
        any_one = "SELECT 1 FROM deliveries WHERE upstream = ? ORDER BY lane, id LIMIT 1"
        return self._one(any_one, (upstream,)) is not None

    def deliveries_of(self, command: int) -> list[DeliveryRow]:
        rows = self._all(f"{DELIVERIES.select} WHERE command = ? ORDER BY {self._by_id}", (command,))
        return [self._decoded(row) for row in rows]

    def is_waiting(self, alert: int, upstream: str) -> bool:
        waits = "SELECT 1 FROM deliveries WHERE alert = ? AND upstream = ? AND state = 'waiting'"
        return self._one(waits, (alert, upstream)) is not None

    def last_waiting(self, upstream: str, lane: str) -> DeliveryRow | None:
        lane_only = "upstream = ? AND lane = ? AND state = 'waiting' ORDER BY id DESC LIMIT 1"
        found = self._one(f"{DELIVERIES.select} WHERE {lane_only}", (upstream, lane))
        return self._decoded(found) if found else None

    def waits_before(self, row: DeliveryRow) -> bool:
        lane = "upstream = ? AND lane = ? AND state = 'waiting' AND id < ?"
        return self._one(f"SELECT 1 FROM deliveries WHERE {lane}", (row.upstream, row.lane, row.id)) is not None

    def newer_delivered(self, row: DeliveryRow) -> bool:
        tried = "(state = 'delivered' OR (state = 'waiting' AND attempts > 0))"
        lane = f"upstream = ? AND lane = ? AND {tried} AND id > ?"
        return self._one(f"SELECT 1 FROM deliveries WHERE {lane}", (row.upstream, row.lane, row.id)) is not None

    def newest_in_lane(self, upstream: str, lane: str) -> DeliveryRow | None:
        found = self._newest(upstream, lane).fetchone()
        return self._decoded(found) if found else None

    def _newest(self, upstream: str, lane: str) -> Rows:
        newest = "upstream = ? AND lane = ? ORDER BY id DESC LIMIT 1"
        return self._run(f"{DELIVERIES.select} WHERE {newest}", (upstream, lane))

    def told_last(self, upstream: str, lane: str) -> int | None:
        told = "state = 'delivered' AND operation IN ('create', 'update', 'reopen')"
        newest = f"upstream = ? AND lane = ? AND {told} ORDER BY id DESC LIMIT 1"
        found = self._one(f"SELECT alert FROM deliveries WHERE {newest}", (upstream, lane))
        return found[0] if found else None

    def took(self, upstream: str, since: int) -> dict[str, int]:
        # The subquery, with a limit that does not limit, goes by time: no planner goes through all of the upstream's.
        last = "WHERE finished_at > ? ORDER BY finished_at DESC LIMIT ?"
        ended = f"SELECT upstream, lane, state, finished_at FROM deliveries {last}"
        chosen = (
            f"SELECT lane, max(finished_at) FROM ({ended}) e WHERE upstream = ? AND state = 'delivered' GROUP BY lane"
        )
        return dict(self._all(chosen, (since, ALL, upstream)))

    def claim(
        self,
        upstream: str,
        now: int,
        limit: int,
        *,
        taken: Collection[str] = (),
        ranked: bool = False,
        fresh: bool = False,
        unsent: bool = False,
    ) -> list[DeliveryRow]:
        may_be_sent, order = heads(fresh=fresh, ranked=ranked, unsent=unsent)
        rows = self._all(
            f"SELECT {DELIVERIES.columns} FROM deliveries d WHERE {may_be_sent} ORDER BY {order} LIMIT ?",
            (upstream, now, limit + len(taken)),
        )
        free = [row for row in rows if row[_LANE] not in taken]
        return [self._decoded(row) for row in free[:limit]]

    def unrecorded(self) -> frozenset[int]:
        return frozenset()

    def shift_waiting(self, by: int) -> None:
        shift = "UPDATE deliveries SET due = due + ?, created_at = created_at + ? WHERE state = 'waiting'"
        self._run(shift, (by, by))

    def call_back(self, now: int, longest: int) -> None:
        self._run(
            "UPDATE deliveries SET created_at = created_at - (c.at - ?), "
            "due = CASE WHEN attempts > 0 THEN ? ELSE due - (c.at - ?) END FROM commands c "
            "WHERE c.id = deliveries.command AND state = 'waiting' AND c.at > ? AND created_at >= c.at",
            (now, now + 1, now, now),  # a millisecond more, as it is a retry: see `DeliveryRow.is_retry`
        )
        soon = "UPDATE deliveries SET due = ? WHERE state = 'waiting' AND attempts > 0 AND due > ?"
        self._run(soon, (now + 1, now + longest))

    def next_due(self, upstream: str, after: int) -> int | None:
        later = "SELECT min(due) FROM deliveries WHERE upstream = ? AND state = 'waiting' AND due > ?"
        found = self._one(later, (upstream, after))
        return found[0] if found else None

    def waiting(self) -> list[Waiting]:
        rows = self._all(
            "SELECT upstream, count(*), min(created_at), CAST(sum(size) AS BIGINT) FROM deliveries "
            "WHERE state = 'waiting' GROUP BY upstream",
            (),
        )
        return [Waiting(*row) for row in rows]

    def dead(self, *, but: str) -> dict[str, int]:
        chosen = "SELECT upstream, count(*) FROM deliveries WHERE state = 'dead' AND code <> ? GROUP BY upstream"
        return dict(self._all(chosen, (but,)))

    def insert_attempt(self, row: AttemptRow) -> None:
        self._run(ATTEMPTS.replace, ATTEMPTS.values(row))

    def attempts(self, delivery: int) -> list[AttemptRow]:
        rows = self._all(f"{ATTEMPTS.select} WHERE delivery = ? ORDER BY abs(number), number", (delivery,))
        return [ATTEMPTS.decode(row) for row in rows]


def _has_own_index(chosen: DeliveryFilter) -> bool:
    """Whether the choice is served by the index of its state: waiting or dead ones, not restricted to an alert or
    ids."""
    return chosen.state in ("waiting", "dead") and chosen.alert is None and not chosen.ids


def _way(chosen: DeliveryFilter) -> str:
    return "DESC" if chosen.after is None else "ASC"


def _deliveries_where(chosen: DeliveryFilter) -> tuple[str, list[Any]]:
    """The SQL condition for the chosen deliveries, and the values to bind."""
    conditions, values = ["1 = 1"], list[Any]()
    if chosen.state is not None:  # literally, so that the partial index of that state is used
        conditions.append(f"state = '{chosen.state}'")
    for column in ("upstream", "alert"):
        if (value := getattr(chosen, column)) is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if chosen.ids:
        conditions.append(f"id IN ({', '.join('?' for _ in chosen.ids)})")
        values += chosen.ids
    if chosen.after is not None:
        conditions.append("id > ?")
        values.append(chosen.after)
    if chosen.before is not None:
        conditions.append("id < ?")
        values.append(chosen.before)
    return " AND ".join(conditions), values


def heads(*, fresh: bool, ranked: bool, unsent: bool) -> tuple[str, str]:
    """The SQL condition that a delivery `d` is due and the head of its lane, and the order; upstream and time are to be
    bound. Where they are in order of rank, the `+` keeps SQLite from using the index on `due`: it would find all that
    wait, and each turn would sort all of them."""
    by_rank = ranked or unsent
    older = "SELECT 1 FROM deliveries o WHERE o.upstream = d.upstream AND o.lane = d.lane"
    conditions = (
        f"d.upstream = ? AND d.state = 'waiting' AND {'+' if by_rank else ''}d.due <= ? "
        + (f"AND d.rank < {UNCONFIRMED} " if unsent else "")
        + (f"AND {FRESH} " if fresh else "")
        + f"AND NOT EXISTS ({older} AND o.id < d.id AND o.state = 'waiting')"
    )
    return conditions, "d.rank, d.due" if by_rank else "d.due"
