"""Counts in SQL: calls, and the ledger of what was received and how it arrived."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, Literal

from gateway.store import Arrivals, CallsRow, LedgerLine
from gateway.store.sql_running import Running
from gateway.store.tables import CALLS

_KIND = ("dialect", "caller", "outcome", "method", "path", "agent")
"""The columns that identify a kind of calls."""
FINE = 10_000
"""Ages below so many milliseconds are counted exactly; below ten times as many in steps of 10 ms, and so on."""


class Counting(Running):
    """Counts of calls, and sums over commands and their deliveries."""

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
        # The join begins with the commands, by the time they were accepted: any other order begins with all deliveries
        # stored. Grouping by age bounds what is sorted by the number of different ages.
        age = "d.finished_at - c.at"
        counted = self._all(
            f"SELECT d.upstream, {_rounded(age)} AS age, count(*), sum(CASE WHEN d.status = 202 THEN 1 ELSE 0 END), "
            f"max({age}) FROM {self._commands_first} "
            "WHERE c.at >= ? AND d.state = 'delivered' GROUP BY d.upstream, age ORDER BY d.upstream, age",
            (since,),
        )
        return [_arrivals(upstream, list(ages)) for upstream, ages in groupby(counted, key=itemgetter(0))]


def _rounded(age: str) -> str:
    """The SQL for an age in milliseconds rounded down to four digits: so there are only some ten thousand different
    ages even after an outage of days."""
    steps = [10**power for power in range(7)]
    cases = " ".join(f"WHEN {age} < {FINE * step} THEN ({age}) / {step} * {step}" for step in steps)
    return f"CASE {cases} ELSE ({age}) / {steps[-1] * 10} * {steps[-1] * 10} END"


def _arrivals(upstream: str, ages: list[Any]) -> Arrivals:
    """The sums over one upstream, from its rows in ascending order of age: upstream, age, how many there were, how many
    of those were merely accepted, and the exact worst age among them."""
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
