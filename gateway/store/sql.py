"""The transaction's primitives in SQL that every supported engine understands: alerts, commands and notes here, the
outbox in `sql_deliveries`, counts in `sql_counting`.

A driver's transaction derives from `SqlTx`, says how a statement is run, and overrides what differs in its engine.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from msgspec import structs

from gateway.store import AlertFilter, AlertRow, CommandRow, FirstAnswer, Keyed, TargetRow
from gateway.store.sql_counting import Counting
from gateway.store.sql_deliveries import Deliveries
from gateway.store.sql_running import ALL
from gateway.store.tables import ACKNOWLEDGES, ALERTS, COMMANDS, OVER, TARGETS

PART = 500
"""Alerts read at a time from a list that may be very long."""
_OLDEST_FIRST, _NEWEST_FIRST = "ORDER BY created_at, id", "ORDER BY created_at DESC, id DESC"
OPEN = frozenset(("firing", "acknowledged"))
"""The statuses of open alerts; a deleted alert is neither open nor listed."""
CLOSED = frozenset(("resolved",))
"""The statuses of all other alerts."""
LAST = "\U0010ffff"
"""The largest character: appended to a prefix, it ends the range of texts with that prefix."""


class _Summary(msgspec.Struct):
    """The part of an alert's body that a search for words needs."""

    summary: str | None = None


_summary = msgspec.json.Decoder(_Summary)


class SqlTx(Deliveries, Counting):
    """One transaction. Not to be used outside of `Store.write`, `Store.take` and `Store.read`."""

    def lock(self, *names: str) -> bool:
        return False

    def tell(self, text: str) -> None:
        return

    # alerts and ids

    def _alert_where(self, condition: str, *values: Any) -> AlertRow | None:
        found = self._one(f"{ALERTS.select} WHERE {condition}", values)
        return ALERTS.decode(found) if found else None

    def alert(self, alert: int) -> AlertRow | None:
        return self._alert_where("id = ?", alert)

    def alert_by_key(self, scope: str, key: str) -> AlertRow | None:
        return self._alert_where("scope = ? AND key = ? AND is_open = 1", scope, key)

    def last_alert_by_key(self, scope: str, key: str, before: int) -> AlertRow | None:
        return self._alert_where("scope = ? AND key = ? AND id < ? ORDER BY id DESC LIMIT 1", scope, key, before)

    def alert_by_name(self, scope: str, name: str) -> AlertRow | None:
        return self._alert_where("scope = ? AND name = ? AND is_deleted = 0", scope, name)

    def alert_by_id(self, scope: str, name: str) -> AlertRow | None:
        order = f"ORDER BY {self._by_id}"
        shown = self._alert_where(f"scope = ? AND shown = ? AND is_deleted = 0 {order} DESC LIMIT 1", scope, name)
        if shown:
            return shown
        known = "SELECT alert FROM ids WHERE scope = ? AND name = ?"
        # If the newest alert with this id is not deleted, and its primary uses the id, none sorts before it, and older
        # ones are not looked at: of an alert that flaps, a hundred thousand may have the same id.
        newest = "a.id = (SELECT max(alert) FROM ids WHERE scope = ? AND name = ?) AND a.is_deleted = 0"
        only = f"alert >= coalesce((SELECT a.id FROM alerts a WHERE {newest} AND {_place('a')} = 0), 0)"
        chosen = f"id IN ({known} AND {only}) AND is_deleted = 0 ORDER BY {_place('alerts')}, id DESC LIMIT 1"
        found = self._alert_where(chosen, *(scope, name) * 4)
        if found is None and name.isascii() and name.isdigit() and len(name) < 17:
            said_by = "coalesce((SELECT alert FROM commands WHERE id = ?), ?)"  # a command's number finds its alert
            return self._alert_where(f"id = {said_by} AND scope = ? AND is_deleted = 0", int(name), int(name), scope)
        return found

    def alerts_by_party(
        self, scope: str, name: str, party: str, *, newest: int | None = None, oldest: int | None = None
    ) -> list[AlertRow]:
        order, most = ("alert", oldest) if oldest is not None else ("alert DESC", ALL if newest is None else newest)
        known = f"SELECT alert FROM ids WHERE scope = ? AND name = ? AND party = ? ORDER BY {order} LIMIT ?"
        chosen = f"{ALERTS.select} WHERE id IN ({known}) AND is_deleted = 0 ORDER BY {self._by_id} DESC"
        return [ALERTS.decode(row) for row in self._all(chosen, (scope, name, party, most))]

    def alerts_of_anybody(self, names: Collection[str], limit: int) -> list[int]:
        wanted = list(dict.fromkeys(names))
        numbers = [int(name) for name in wanted if name.isascii() and name.isdigit() and len(name) < 17] or [-1]
        texts, marks = ", ".join("?" for _ in wanted), ", ".join("?" for _ in numbers)
        # Every index begins with the scope: there are few scopes, so each is looked up in turn.
        found = self._all(
            "WITH RECURSIVE s (scope) AS (SELECT min(scope) FROM alerts UNION ALL "
            "SELECT (SELECT min(a.scope) FROM alerts a WHERE a.scope > s.scope) FROM s WHERE s.scope IS NOT NULL) "
            "SELECT alert FROM ("
            f"SELECT i.alert AS alert FROM s JOIN ids i ON i.scope = s.scope AND i.name IN ({texts}) UNION "
            f"SELECT a.id FROM s JOIN alerts a ON a.scope = s.scope AND a.shown IN ({texts}) UNION "
            f"SELECT a.id FROM s JOIN alerts a ON a.scope = s.scope AND a.key IN ({texts}) UNION "
            f"SELECT alert FROM targets WHERE key IN ({texts}) UNION "
            f"SELECT id FROM alerts WHERE id IN ({marks}) UNION "
            f"SELECT coalesce(alert, id) FROM commands WHERE id IN ({marks}) UNION "
            f"SELECT coalesce(alert, command) FROM deliveries WHERE id IN ({marks})"
            ") AS known ORDER BY alert DESC LIMIT ?",
            (*wanted * 4, *numbers * 3, limit),
        )
        return [row[0] for row in found]

    def summaries(self, before: int, limit: int) -> list[tuple[int, str]]:
        rows = self._all("SELECT id, body FROM alerts WHERE id < ? ORDER BY id DESC LIMIT ?", (before, limit))
        return [(number, _summary.decode(body).summary or "") for number, body in rows]

    def without_alert(self, before: int, limit: int) -> list[tuple[int, int, str]]:
        # By the index of alerts, which has few that are NULL, and not by the ids of all deliveries.
        chosen = f"alert IS NULL AND key IS NOT NULL AND id < ? ORDER BY {self._by_id} DESC LIMIT ?"
        return self._all(f"SELECT id, command, key FROM deliveries WHERE {chosen}", (before, limit))

    def alerts(self, scope: str, chosen: AlertFilter) -> tuple[list[AlertRow], int]:
        where, values = _where(scope, chosen)
        order = _NEWEST_FIRST if chosen.newest_first else _OLDEST_FIRST
        total = self._count(scope, chosen)
        limit = ALL if chosen.limit is None else chosen.limit
        # Only ids are sorted: there may be many alerts before the requested page, and sorting whole rows would spill
        # them to disk.
        page = f"SELECT id FROM alerts WHERE {where} {order} LIMIT ? OFFSET ?"
        chosen_ones = f"{ALERTS.select} WHERE id IN ({page}) {order}"
        if chosen.limit is None and not chosen.offset:
            chosen_ones = f"{ALERTS.select} WHERE {where} {order} LIMIT ? OFFSET ?"
        return [ALERTS.decode(row) for row in self._all(chosen_ones, [*values, limit, chosen.offset])], total

    def _count(self, scope: str, chosen: AlertFilter) -> int:
        """The number of chosen alerts. Closed ones are counted as all minus the open ones: both counts need an index
        alone, and most stored alerts are closed."""
        if frozenset(chosen.statuses) == CLOSED and chosen.resource is None and chosen.updated_from is None:
            every, still_open = (structs.replace(chosen, statuses=of) for of in ((), tuple(OPEN)))
            return self._count(scope, every) - self._count(scope, still_open)
        where, values = _where(scope, chosen)
        return int(self._one(f"SELECT count(*) FROM alerts WHERE {where}", values)[0])

    def alerts_in_parts(self, scope: str, chosen: AlertFilter) -> Iterator[list[AlertRow]]:
        where, values = _where(scope, chosen)
        numbers = array(
            "q", (row[0] for row in self._all(f"SELECT id FROM alerts WHERE {where} {_OLDEST_FIRST}", values))
        )
        for begin in range(0, len(numbers), PART):
            part = numbers[begin : begin + PART]
            theirs = f"{ALERTS.select} WHERE id IN ({', '.join('?' for _ in part)}) {_OLDEST_FIRST}"
            yield [ALERTS.decode(row) for row in self._all(theirs, part)]

    def insert_alert(self, row: AlertRow) -> None:
        self._run(ALERTS.insert, ALERTS.values(row))

    def update_alert(self, row: AlertRow) -> None:
        self._run(ALERTS.update, ALERTS.update_values(row))

    def remove_alert(self, alert: int) -> None:
        theirs = "SELECT id FROM deliveries WHERE alert = ?"
        self._run(f"DELETE FROM attempts WHERE delivery IN ({theirs})", (alert,))
        for table in ("targets", "ids", "deliveries"):
            self._run(f"DELETE FROM {table} WHERE alert = ?", (alert,))
        self._run("DELETE FROM alerts WHERE id = ?", (alert,))

    def add_id(self, scope: str, name: str, party: str, alert: int) -> None:
        self._run("INSERT INTO ids VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (scope, name, party, alert))

    def ended(self, by: int, limit: int) -> list[AlertRow]:
        due = "is_open = 1 AND ends_at <= ? ORDER BY ends_at LIMIT ?"
        return [ALERTS.decode(row) for row in self._all(f"{ALERTS.select} WHERE {due}", (by, limit))]

    def has_open_kin(self, scope: str, name: str, party: str, alert: int) -> bool:
        # The join begins with the index of ids: an order that begins with all that is open at the party takes longer.
        others = (
            "SELECT 1 FROM ids i CROSS JOIN targets t CROSS JOIN alerts a WHERE i.party = ? AND i.name = ? "
            "AND i.alert <> ? AND t.alert = i.alert AND t.upstream = i.party AND t.is_over = 0 "
            "AND t.state IN ('waiting', 'present') AND a.id = i.alert AND a.is_open = 1 LIMIT 1"
        )
        own = "SELECT 1 FROM ids WHERE scope = ? AND name = ? AND party = ? AND alert = ?"
        if self._one(others, (party, name, alert)) is not None:
            return True
        return self._one(own, (scope, name, party, alert)) is None

    def ids(self, alert: int) -> list[tuple[str, str]]:
        rows = self._all("SELECT party, name FROM ids WHERE alert = ?", (alert,))
        return sorted((party, name) for party, name in rows)

    def is_known_id(self, name: str, party: str) -> bool:
        return self._one("SELECT 1 FROM ids WHERE party = ? AND name = ?", (party, name)) is not None

    # targets

    def targets(self, alert: int) -> list[TargetRow]:
        rows = self._all(f"{TARGETS.select} WHERE alert = ? ORDER BY position", (alert,))
        return [TARGETS.decode(row) for row in rows]

    def put_target(self, row: TargetRow) -> None:
        self._run(TARGETS.replace, TARGETS.values(row))

    def renewable(self, by: int, limit: int) -> list[TargetRow]:
        due = "renew_at <= ? ORDER BY renew_at LIMIT ?"
        return [TARGETS.decode(row) for row in self._all(f"{TARGETS.select} WHERE {due}", (by, limit))]

    def remove_target(self, alert: int, upstream: str) -> None:
        self._run("DELETE FROM targets WHERE alert = ? AND upstream = ?", (alert, upstream))

    def count_open_at(self, upstream: str) -> int:
        joined = "SELECT count(*) FROM targets t JOIN alerts a ON a.id = t.alert"
        there = "t.upstream = ? AND t.is_over = 0 AND t.state IN ('waiting', 'present')"
        return int(self._all(f"{joined} WHERE {there} AND a.is_open = 1", (upstream,))[0][0])

    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        joined = "SELECT a.id FROM targets t JOIN alerts a ON a.id = t.alert"
        of_lane = "t.upstream = ? AND t.lane = ? AND t.is_over = 0"  # of a key that flaps, most are over
        rows = self._all(f"{joined} WHERE {of_lane} AND a.is_open = 1", (upstream, lane))
        return [row[0] for row in rows]

    # commands

    def command(self, command: int) -> CommandRow | None:
        found = self._one(f"{COMMANDS.select} WHERE id = ?", (command,))
        return COMMANDS.decode(found) if found else None

    def insert_command(self, row: CommandRow) -> None:
        self._run(COMMANDS.insert, COMMANDS.values(row))

    def refuse_command(self, command: int, reason: str) -> None:
        self._run("UPDATE commands SET refused = ? WHERE id = ?", (reason, command))
        theirs = "SELECT id FROM deliveries WHERE command = ?"
        self._run(f"DELETE FROM attempts WHERE delivery IN ({theirs})", (command,))
        self._run("DELETE FROM deliveries WHERE command = ?", (command,))

    def remove_command(self, command: int) -> None:
        theirs = "SELECT id FROM deliveries WHERE command = ?"
        self._run(f"DELETE FROM attempts WHERE delivery IN ({theirs})", (command,))
        self._run("DELETE FROM deliveries WHERE command = ?", (command,))
        self._run("DELETE FROM commands WHERE id = ?", (command,))

    def commands(self, alert: int, last: int | None = None) -> list[CommandRow]:
        newest = f"{COMMANDS.select} WHERE alert = ? ORDER BY {self._by_id} DESC LIMIT ?"
        rows = self._all(newest, (alert, ALL if last is None else last))
        return [COMMANDS.decode(row) for row in reversed(rows)]

    def count_commands(self, alert: int) -> int:
        return int(self._one("SELECT count(*) FROM commands WHERE alert = ?", (alert,))[0])

    # notes and idempotency keys

    def note(self, name: str) -> Any:
        found = self._one("SELECT body FROM notes WHERE name = ?", (name,))
        return msgspec.json.decode(found[0]) if found else None

    def put_note(self, name: str, value: Any) -> None:
        put = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"
        self._run(put, (name, msgspec.json.encode(value)))

    def notes(self, prefix: str, limit: int) -> list[Any]:
        begins = "SELECT body FROM notes WHERE name >= ? AND name <= ? ORDER BY name DESC LIMIT ?"
        found = self._all(begins, (prefix, prefix + LAST, limit))
        return [msgspec.json.decode(row[0]) for row in found]

    def remove_notes(self, prefix: str, before: str, limit: int) -> None:
        begins = "SELECT name FROM notes WHERE name >= ? AND name <= ? AND name < ? LIMIT ?"
        old = self._all(begins, (prefix, prefix + LAST, before, limit))
        for (name,) in old:
            self._run("DELETE FROM notes WHERE name = ?", (name,))

    def keyed(self, scope: str, key: str) -> Keyed | None:
        found = self._one("SELECT digest, at, answer FROM keyed WHERE scope = ? AND key = ?", (scope, key))
        if found is None:
            return None
        return Keyed(digest=found[0], at=found[1], answer=msgspec.json.decode(found[2], type=FirstAnswer))

    def put_keyed(self, scope: str, key: str, row: Keyed) -> None:
        self._run(
            "INSERT INTO keyed VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, key) "
            "DO UPDATE SET digest = excluded.digest, at = excluded.at, answer = excluded.answer",
            (scope, key, row.digest, row.at, msgspec.json.encode(row.answer)),
        )

    def remove_keyed(self, scope: str, key: str) -> None:
        self._run("DELETE FROM keyed WHERE scope = ? AND key = ?", (scope, key))

    def purge_keyed(self, before: int, limit: int) -> int:
        old = self._all("SELECT scope, key FROM keyed WHERE at < ? LIMIT ?", (before, limit))
        for scope, key in old:
            self.remove_keyed(scope, key)
        return len(old)

    # keeping house

    def purge(self, before: int, limit: int) -> int:
        old = self._all(f"SELECT d.command FROM deliveries d WHERE {OVER.format('')} LIMIT ?", (before, before, limit))
        removed = sum(len(self.deliveries_of(command)) for (command,) in old)
        for (command,) in old:
            self.remove_command(command)
        if len(old) >= limit:  # the searches below would go through the remaining ones again, with every batch
            return removed
        ended = self._all(
            "SELECT id FROM alerts a WHERE is_open = 0 AND updated_at < ? "
            "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.alert = a.id) LIMIT ?",
            (before, limit),
        )
        for (alert,) in ended:
            self._run("DELETE FROM commands WHERE alert = ?", (alert,))
            self.remove_alert(alert)
        silent = self._all(
            "DELETE FROM commands WHERE id IN (SELECT id FROM commands c WHERE at < ? "
            "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.command = c.id) "
            f"AND NOT ({ACKNOWLEDGES.format('c')}) LIMIT ?) RETURNING id",
            (before, limit),
        )
        return removed + len(ended) + len(silent)

    def largest_id(self) -> int:
        tables = ("commands", "deliveries", "alerts")
        return max(int(self._one(f"SELECT coalesce(max(id), 0) FROM {table}", ())[0]) for table in tables)


def _place(alerts: str) -> str:
    """The SQL for the position of the first of an alert's upstreams that uses an id, 0 (the primary's) if none does;
    scope and id are to be bound. Two accounts may use the same short id for two alerts, and callers are shown the
    primary's."""
    said_by = f"FROM targets t JOIN ids i ON i.alert = t.alert AND i.party = t.upstream WHERE t.alert = {alerts}.id"
    return f"coalesce((SELECT min(t.position) {said_by} AND i.scope = ? AND i.name = ?), 0)"


def _where(scope: str, chosen: AlertFilter) -> tuple[str, list[Any]]:
    """The SQL condition for the chosen alerts of a scope, and the values to bind."""
    conditions, values = ["scope = ?", "is_deleted = 0"], [scope]
    statuses = frozenset(chosen.statuses)
    if statuses and statuses <= OPEN:  # so that closed alerts are not gone through
        conditions.append("is_open = 1")
    if statuses and statuses != OPEN:
        conditions.append(f"status IN ({', '.join('?' for _ in chosen.statuses)})")
        values += chosen.statuses
    for column, value in (
        ("resource =", chosen.resource),
        ("updated_at >=", chosen.updated_from),
        ("created_at >=", chosen.created_from),
        ("created_at <", chosen.created_before),
    ):
        if value is not None:
            conditions.append(f"{column} ?")
            values.append(value)  # type: ignore[arg-type]
    return " AND ".join(conditions), values
