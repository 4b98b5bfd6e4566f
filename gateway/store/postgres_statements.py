"""The longer statements of the transactions in PostgreSQL: claiming and changing deliveries, and finding what is over.
It must not know when they are run.
"""

from __future__ import annotations

from gateway.store.rows import UNCONFIRMED
from gateway.store.sql_deliveries import FRESH
from gateway.store.tables import ACKNOWLEDGES, DELIVERIES, OVER


def claiming(*, ranked: bool = False, fresh: bool = False, unsent: bool = False) -> str:
    """The SQL that claims deliveries: heads of lanes that are due, and free or this replica's own.

    `OFFSET 0` keeps the subquery on the lane a lookup for each candidate, and its order says in which index: a planner
    with old statistics of the outbox would join all lanes with all, or scan all that waits.
    """
    older = "SELECT 1 FROM deliveries o WHERE o.upstream = d.upstream AND o.lane = d.lane"
    columns = ", ".join(f"d.{field}" for field in DELIVERIES.fields)
    return (
        "WITH chosen AS MATERIALIZED (SELECT d.id, d.owner = ? AS is_own, d.under_way FROM deliveries d "
        "WHERE d.upstream = ? AND d.state = 'waiting' AND d.due <= ? "
        + (f"AND d.rank < {UNCONFIRMED} " if unsent else "")
        + (f"AND {FRESH} " if fresh else "")
        + "AND (d.leased_until <= to_timestamp(?) OR d.owner = ?) AND d.lane <> ALL(?) "
        f"AND NOT EXISTS ({older} AND o.id < d.id AND o.state = 'waiting' ORDER BY o.id OFFSET 0) "
        f"ORDER BY {'d.rank, d.due' if ranked else 'd.due'} LIMIT ? FOR UPDATE OF d SKIP LOCKED) "
        "UPDATE deliveries d SET fence = d.fence + CASE WHEN chosen.is_own THEN 0 ELSE 1 END, owner = ?, "
        "under_way = true, leased_until = to_timestamp(?) FROM chosen "
        f"WHERE d.id = chosen.id RETURNING {columns}, chosen.under_way"
    )


INSERT = (
    f"INSERT INTO deliveries ({DELIVERIES.columns}, owner, leased_until) "
    f"VALUES ({', '.join('?' for _ in DELIVERIES.fields)}, ?, to_timestamp(?))"
)
UPDATE = DELIVERIES.update.replace(" SET ", " SET under_way = false, ", 1)
UPDATE_IF_OURS = f"{UPDATE} AND fence = ? RETURNING id"
# A job behind others in a batch does not wait for a row that a stalled replica has locked: the others would wait too.
UPDATE_AT_ONCE = (
    UPDATE.removesuffix("WHERE id = ?")
    + "WHERE id = (SELECT id FROM deliveries WHERE id = ? AND fence = ? FOR UPDATE NOWAIT) RETURNING id"
)


# `OFFSET 0` keeps each subquery an index lookup, as in `claiming`; ORDER BY determines the index for the outer search.
COMMANDS_OVER = (
    f"SELECT d.command FROM deliveries d WHERE {OVER.format(' OFFSET 0')} "
    "ORDER BY d.finished_at LIMIT ? FOR UPDATE OF d SKIP LOCKED"
)
ALERTS_OVER = (
    "SELECT a.id FROM alerts a WHERE a.is_open = 0 AND a.updated_at < ? "
    "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.alert = a.id OFFSET 0) "
    "ORDER BY a.updated_at LIMIT ? FOR UPDATE OF a SKIP LOCKED"
)
SILENT = (
    "SELECT c.id FROM commands c WHERE c.at < ? "
    "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.command = c.id OFFSET 0) "
    f"AND NOT ({ACKNOWLEDGES.format('c')}) ORDER BY c.at LIMIT ? FOR UPDATE OF c SKIP LOCKED"
)
