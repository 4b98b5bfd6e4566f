"""The transaction's primitives in SQL that every supported engine understands.

A driver's transaction derives from `SqlTx`, says how a statement is run, and replaces what its engine does otherwise.
Values are always bound, never written into a statement; `?` marks them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, Literal, Protocol, get_args

import msgspec
from msgspec import structs

from gateway.store import (
    AlertFilter,
    AlertRow,
    Arrivals,
    AttemptRow,
    CallsRow,
    CommandRow,
    DeliveryFilter,
    DeliveryRow,
    DeliveryState,
    FirstAnswer,
    Keyed,
    LedgerLine,
    TargetRow,
    Waiting,
)
from gateway.store.tables import ACKNOWLEDGES, ALERTS, ATTEMPTS, CALLS, COMMANDS, DELIVERIES, OVER, TARGETS

STATES = get_args(DeliveryState)
_KIND = ("dialect", "caller", "outcome", "method", "path", "agent")
"""What tells calls of one kind from those of another."""
ALL = 1 << 62
"""A limit that limits nothing."""
PART = 500
"""So many alerts are read at once of a list that may be very long."""
_OLDEST_FIRST, _NEWEST_FIRST = "ORDER BY created_at, id", "ORDER BY created_at DESC, id DESC"
OPEN = frozenset(("firing", "acknowledged"))
"""The statuses of alerts that are open; whoever has been deleted is neither open nor listed."""
CLOSED = frozenset(("resolved",))
"""The statuses of all others."""
LAST = "\U0010ffff"
"""No text comes after this one but itself."""
ENDED_LAST = 2000
"""Among so many deliveries that ended last is looked for what an upstream took."""


class _Summary(msgspec.Struct):
    """As much of an alert as a search for words has to see."""

    summary: str | None = None


_summary = msgspec.json.Decoder(_Summary)


class Rows(Protocol):
    """What a statement came to."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class SqlTx(ABC):
    """One transaction. Not to be used outside of `Store.write`, `Store.take` and `Store.read`."""

    _commands_first = "commands c CROSS JOIN deliveries d ON d.command = c.id"
    """Commands and their deliveries; a planner that keeps the order of a `CROSS JOIN` begins with the commands."""
    _by_id = "id"
    """How the few rows that an index finds are put in order. A planner that is kept from sorting may not think of going
    through the whole table in this order instead, to find them there."""

    @abstractmethod
    def _run(self, statement: str, values: Sequence[Any]) -> Rows:
        """Runs a statement; raises `StoreError` where the store itself is in trouble."""

    def _one(self, statement: str, values: Iterable[Any]) -> Any:
        return self._run(statement, tuple(values)).fetchone()

    def _all(self, statement: str, values: Iterable[Any]) -> list[Any]:
        return self._run(statement, tuple(values)).fetchall()

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
        # Where the newest of all is here, and its primary says so, none comes before it: of an alert that flaps, a
        # hundred thousand may be known by this.
        newest = "a.id = (SELECT max(alert) FROM ids WHERE scope = ? AND name = ?) AND a.is_deleted = 0"
        only = f"alert >= coalesce((SELECT a.id FROM alerts a WHERE {newest} AND {_place('a')} = 0), 0)"
        chosen = f"id IN ({known} AND {only}) AND is_deleted = 0 ORDER BY {_place('alerts')}, id DESC LIMIT 1"
        found = self._alert_where(chosen, *(scope, name) * 4)
        if found is None and name.isascii() and name.isdigit() and len(name) < 17:
            said_by = "coalesce((SELECT alert FROM commands WHERE id = ?), ?)"  # a command's number is its alert's too
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
        # Every index begins with the scope: there are few, and each is looked into.
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

    def alerts(self, scope: str, chosen: AlertFilter) -> tuple[list[AlertRow], int]:
        where, values = _where(scope, chosen)
        order = _NEWEST_FIRST if chosen.newest_first else _OLDEST_FIRST
        total = self._count(scope, chosen)
        limit = ALL if chosen.limit is None else chosen.limit
        # What is put in order is their numbers: whole alerts, of which there may be many before the page that is asked
        # for, would be copied to the disk and back.
        page = f"SELECT id FROM alerts WHERE {where} {order} LIMIT ? OFFSET ?"
        chosen_ones = f"{ALERTS.select} WHERE id IN ({page}) {order}"
        if chosen.limit is None and not chosen.offset:
            chosen_ones = f"{ALERTS.select} WHERE {where} {order} LIMIT ? OFFSET ?"
        return [ALERTS.decode(row) for row in self._all(chosen_ones, [*values, limit, chosen.offset])], total

    def _count(self, scope: str, chosen: AlertFilter) -> int:
        """How many alerts are chosen. What is over is what is not open: both are counted in an index alone, and most
        of all that is stored is over."""
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
        # Another order of looking begins with all that is open at the party: the indexes of ids are the short way.
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

    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        joined = "SELECT a.id FROM targets t JOIN alerts a ON a.id = t.alert"
        of_lane = "t.upstream = ? AND t.lane = ? AND t.is_over = 0"  # most of a key that flaps are
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

    # deliveries

    def insert_delivery(self, row: DeliveryRow) -> None:
        self._run(DELIVERIES.insert, DELIVERIES.values(row))

    def update_delivery(self, row: DeliveryRow) -> None:
        self._run(DELIVERIES.update, DELIVERIES.update_values(row))

    def delivery(self, delivery: int) -> DeliveryRow | None:
        found = self._one(f"{DELIVERIES.select} WHERE id = ?", (delivery,))
        return DELIVERIES.decode(found) if found else None

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
        return [DELIVERIES.decode(row) for row in self._all(statement, values)]

    def _numbers_of_a_state(self, chosen: DeliveryFilter) -> tuple[str, list[Any]]:
        """The statement that finds them by the index of what waits, or died, and its values. Put in order are numbers
        that are in the index; a planner that may take the table's order goes through all that is stored for them."""
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
        # In the order of an index: a planner that takes the upstream for a usual one would go through all there is.
        any_one = "SELECT 1 FROM deliveries WHERE upstream = ? ORDER BY lane, id LIMIT 1"
        return self._one(any_one, (upstream,)) is not None

    def deliveries_of(self, command: int) -> list[DeliveryRow]:
        rows = self._all(f"{DELIVERIES.select} WHERE command = ? ORDER BY {self._by_id}", (command,))
        return [DELIVERIES.decode(row) for row in rows]

    def is_waiting(self, alert: int, upstream: str) -> bool:
        waits = "SELECT 1 FROM deliveries WHERE alert = ? AND upstream = ? AND state = 'waiting'"
        return self._one(waits, (alert, upstream)) is not None

    def last_waiting(self, upstream: str, lane: str) -> DeliveryRow | None:
        lane_only = "upstream = ? AND lane = ? AND state = 'waiting' ORDER BY id DESC LIMIT 1"
        found = self._one(f"{DELIVERIES.select} WHERE {lane_only}", (upstream, lane))
        return DELIVERIES.decode(found) if found else None

    def waits_before(self, row: DeliveryRow) -> bool:
        lane = "upstream = ? AND lane = ? AND state = 'waiting' AND id < ?"
        return self._one(f"SELECT 1 FROM deliveries WHERE {lane}", (row.upstream, row.lane, row.id)) is not None

    def newer_delivered(self, row: DeliveryRow) -> bool:
        tried = "(state = 'delivered' OR (state = 'waiting' AND attempts > 0))"
        lane = f"upstream = ? AND lane = ? AND {tried} AND id > ?"
        return self._one(f"SELECT 1 FROM deliveries WHERE {lane}", (row.upstream, row.lane, row.id)) is not None

    def newest_in_lane(self, upstream: str, lane: str) -> DeliveryRow | None:
        found = self._newest(upstream, lane).fetchone()
        return DELIVERIES.decode(found) if found else None

    def _newest(self, upstream: str, lane: str) -> Rows:
        newest = "upstream = ? AND lane = ? ORDER BY id DESC LIMIT 1"
        return self._run(f"{DELIVERIES.select} WHERE {newest}", (upstream, lane))

    def told_last(self, upstream: str, lane: str) -> int | None:
        told = "state = 'delivered' AND operation IN ('create', 'update', 'reopen')"
        newest = f"upstream = ? AND lane = ? AND {told} ORDER BY id DESC LIMIT 1"
        found = self._one(f"SELECT alert FROM deliveries WHERE {newest}", (upstream, lane))
        return found[0] if found else None

    def took(self, upstream: str, since: int) -> dict[str, int]:
        # Those that ended last are found first: no planner is to go through all of the upstream's for them.
        last = "WHERE finished_at > ? ORDER BY finished_at DESC LIMIT ?"
        ended = f"SELECT upstream, lane, state, finished_at FROM deliveries {last}"
        chosen = (
            f"SELECT lane, max(finished_at) FROM ({ended}) e WHERE upstream = ? AND state = 'delivered' GROUP BY lane"
        )
        return dict(self._all(chosen, (since, ENDED_LAST, upstream)))

    def claim(
        self,
        upstream: str,
        now: int,
        limit: int,
        *,
        taken: Collection[str] = (),
        ranked: bool = False,
        fresh: bool = False,
    ) -> list[DeliveryRow]:
        rows = self._all(
            f"SELECT {DELIVERIES.columns} FROM deliveries d WHERE {may_be_sent(fresh=fresh, ranked=ranked)} "
            f"ORDER BY {'d.rank, d.due' if ranked else 'd.due'} LIMIT ?",
            (upstream, now, limit + len(taken)),
        )
        found = [DELIVERIES.decode(row) for row in rows]
        return [row for row in found if row.lane not in taken][:limit]

    def shift_waiting(self, by: int) -> None:
        shift = "UPDATE deliveries SET due = due + ?, created_at = created_at + ? WHERE state = 'waiting'"
        self._run(shift, (by, by))

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
        rows = self._all(f"{ATTEMPTS.select} WHERE delivery = ? ORDER BY number", (delivery,))
        return [ATTEMPTS.decode(row) for row in rows]

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

    # who calls

    def add_calls(self, row: CallsRow, most: int | None) -> bool:
        kind = (row.dialect, row.caller, row.outcome, row.method, row.path, row.agent)
        added = self._all(
            "UPDATE calls SET count = count + ?, last_seen = CASE WHEN last_seen < ? THEN ? ELSE last_seen END "
            "WHERE dialect = ? AND caller = ? AND outcome = ? AND method = ? AND path = ? AND agent = ? "
            "RETURNING count",
            (row.count, row.last_seen, row.last_seen, *kind),
        )
        if added:
            return True
        theirs = "SELECT count(*) FROM calls WHERE dialect = ? AND caller = ?"
        if most is not None and self._one(theirs, (row.dialect, row.caller))[0] >= most:
            return False
        self._run(CALLS.insert, CALLS.values(row))
        return True

    def calls(self, limit: int, before: CallsRow | None = None) -> list[CallsRow]:
        order = ("last_seen", *_KIND)
        after = f"WHERE ({', '.join(order)}) < ({', '.join('?' * len(order))})" if before else ""
        last = tuple(getattr(before, name) for name in order) if before else ()
        listed = f"{CALLS.select} {after} ORDER BY {', '.join(f'{name} DESC' for name in order)} LIMIT ?"
        rows = self._all(listed, (*last, limit))
        return [CALLS.decode(row) for row in rows]

    def purge_calls(self, before: int, limit: int) -> int:
        found = self._all(f"SELECT {', '.join(_KIND)} FROM calls WHERE last_seen < ? LIMIT ?", (before, limit))
        for row in found:
            self._run(f"DELETE FROM calls WHERE {' AND '.join(f'{name} = ?' for name in _KIND)}", row)
        return len(found)

    # the ledger

    def ledger(self, since: int, by: Literal["caller", "dialect", "operation"]) -> list[LedgerLine]:
        lines: dict[str, LedgerLine] = {}
        for group, received, refused in self._all(
            f"SELECT {by}, sum(fanout), sum(CASE WHEN refused IS NULL THEN 0 ELSE fanout END) "
            f"FROM commands WHERE at >= ? GROUP BY {by} ORDER BY {by}",
            (since,),
        ):
            lines[group] = LedgerLine(group=group, received=int(received), refused=int(refused))
        for group, state, count in self._all(
            f"SELECT c.{by}, d.state, count(*) FROM commands c JOIN deliveries d ON d.command = c.id "
            f"WHERE c.at >= ? GROUP BY c.{by}, d.state",
            (since,),
        ):
            setattr(lines[group], state, count)
        return list(lines.values())

    def arrivals(self, since: int) -> list[Arrivals]:
        # The commands come first, by when they were accepted: another order begins with all that is stored. Ages are
        # counted, so that what is sorted is no more than there are of them.
        age = "d.finished_at - c.at"
        counted = self._all(
            f"SELECT d.upstream, {_rounded(age)} AS age, count(*), sum(CASE WHEN d.status = 202 THEN 1 ELSE 0 END), "
            f"max({age}) FROM {self._commands_first} "
            "WHERE c.at >= ? AND d.state = 'delivered' GROUP BY d.upstream, age ORDER BY d.upstream, age",
            (since,),
        )
        return [_arrivals(upstream, list(ages)) for upstream, ages in groupby(counted, key=itemgetter(0))]

    # keeping house

    def purge(self, before: int, limit: int) -> int:
        old = self._all(f"SELECT d.command FROM deliveries d WHERE {OVER.format('')} LIMIT ?", (before, before, limit))
        removed = sum(len(self.deliveries_of(command)) for (command,) in old)
        for (command,) in old:
            self.remove_command(command)
        if len(old) >= limit:  # what is left of these would be gone through for the others, a batch after another
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
    """Which of an alert's upstreams says an id: two values to bind. Two accounts may have the same short id for two
    alerts, and callers are shown the primary's."""
    said_by = f"FROM targets t JOIN ids i ON i.alert = t.alert AND i.party = t.upstream WHERE t.alert = {alerts}.id"
    return f"coalesce((SELECT min(t.position) {said_by} AND i.scope = ? AND i.name = ?), 0)"


FINE = 10_000
"""So many milliseconds are counted one by one; ten times as many, and so on, in steps ten times as long."""


def _rounded(age: str) -> str:
    """An age in milliseconds, to four digits: of what was away for days there are no more than some ten thousand."""
    steps = [10**power for power in range(7)]
    cases = " ".join(f"WHEN {age} < {FINE * step} THEN ({age}) / {step} * {step}" for step in steps)
    return f"CASE {cases} ELSE ({age}) / {steps[-1] * 10} * {steps[-1] * 10} END"


def _arrivals(upstream: str, ages: list[Any]) -> Arrivals:
    """The sums over one upstream: for each age, from the least on, how many there were, how many of those were merely
    accepted, and the worst of them."""
    upto = list(accumulate(row[2] for row in ages))
    count, accepted = upto[-1], sum(int(row[3]) for row in ages)
    return Arrivals(
        upstream=upstream,
        accepted=accepted,
        confirmed=count - accepted,
        p50=ages[bisect_left(upto, (count - 1) // 2 + 1)][1],
        p99=ages[bisect_left(upto, (count * 99 + 99) // 100)][1],
        worst=max(row[4] for row in ages),
    )


def _has_own_index(chosen: DeliveryFilter) -> bool:
    """Whether there is an index of deliveries of this state, and they are not of one alert."""
    return chosen.state in ("waiting", "dead") and chosen.alert is None and not chosen.ids


def _way(chosen: DeliveryFilter) -> str:
    return "DESC" if chosen.after is None else "ASC"


def _deliveries_where(chosen: DeliveryFilter) -> tuple[str, list[Any]]:
    """The condition on the deliveries that are chosen, and its values."""
    conditions, values = ["1 = 1"], list[Any]()
    if chosen.state is not None:  # in so many words, so that an index of that state is used
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


def _where(scope: str, chosen: AlertFilter) -> tuple[str, list[Any]]:
    """The condition on the alerts of a scope that are chosen, and its values."""
    conditions, values = ["scope = ?", "is_deleted = 0"], [scope]
    statuses = frozenset(chosen.statuses)
    if statuses and statuses <= OPEN:  # so that what is over is not gone through
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


def may_be_sent(*, fresh: bool = False, ranked: bool = False) -> str:
    """The condition on a delivery `d` that its turn has come at an upstream by a time: two values to bind. Where they
    are taken as they are `ranked`, no index of when they are due is to be used (the `+`): it finds all that wait, and
    each turn would put all of them in order."""
    older = "SELECT 1 FROM deliveries o WHERE o.upstream = d.upstream AND o.lane = d.lane"
    return (
        f"d.upstream = ? AND d.state = 'waiting' AND {'+' if ranked else ''}d.due <= ? "
        + ("AND d.attempts = 0 " if fresh else "")
        + f"AND NOT EXISTS ({older} AND o.id < d.id AND o.state = 'waiting')"
    )
