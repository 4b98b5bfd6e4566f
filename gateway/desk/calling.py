"""Statistics of callers: name, client program, method and path, outcome, count, and when first and last seen. They are
for operators who migrate callers, rotate keys, or look for an unknown caller.

Calls are counted in memory and written every second in one transaction, so that a request costs no write. Texts that
callers choose (unserved paths, names of programs) are cut, and the number of lines is bounded: calls beyond that are
counted on a common line. What looks like a credential is masked. It must not know any vendor.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from cachetools import LRUCache

from gateway.config.secrets import MASK
from gateway.errors import ProblemKind
from gateway.mapping.values import from_millis, iso
from gateway.store import CallsRow, Store, Tx

EVERY = 1.0
"""Seconds between two writes, if there were calls: one write for all of them."""
SHOWN_WITHIN = 2.0
"""Seconds after which a call is in the store, if the store can be written."""
MOST_LINES = 100
"""Most lines kept of one caller of an inbound, and of all its unknown callers together."""
MOST_HELD = 2000
"""Most lines in memory that wait for the next write."""
LONGEST = 120
OTHER = "other"
Outcome = Literal["ok", "unknown path", "unknown key", "refused"]

_OUTCOMES: dict[str, Outcome] = {
    "ok": "ok",
    ProblemKind.NO_SUCH_PATH: "unknown path",
    ProblemKind.METHOD_NOT_ALLOWED: "unknown path",
    ProblemKind.UNAUTHORIZED: "unknown key",
}
_SECRET = re.compile(r"(?=[A-Za-z_]*\d)\w{16,}|[A-Za-z_]{32,}|[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")
"""The form of keys, tokens and ids. Ordinary words are shorter, or have no digits."""


class _Line(NamedTuple):
    dialect: str
    caller: str
    method: str
    path: str
    agent: str
    outcome: str


class Calls:
    """Counts the calls of one process until they are written."""

    def __init__(self) -> None:
        self._counts: dict[_Line, tuple[int, int, int]] = {}
        self._agents: LRUCache[tuple[str, str], str] = LRUCache(MOST_LINES)
        self._lock = threading.Lock()

    def note(
        self,
        dialect: str,
        caller: str | None,
        method: str,
        path: str,
        agent: str,
        outcome: str,
        now: int,
        is_credential: Callable[[str], bool],
    ) -> None:
        """Counts a call. `path` is the route's template, or the requested path where no route matches; `outcome` is
        `ok` or the kind of problem; `caller` is None where the caller is unknown."""
        how = _OUTCOMES.get(outcome, "refused")
        shown = path if how != "unknown path" else cleaned(path, is_credential)
        with self._lock:
            program = self._agents.get((dialect, agent))
            if program is None:
                program = self._agents[dialect, agent] = cleaned(agent, is_credential)
            line = _Line(dialect, caller or "", method[:16], shown, program, how)
            if line not in self._counts and len(self._counts) >= MOST_HELD:
                line = line._replace(method="*", path=OTHER, agent=OTHER)
            self._add(line, 1, now, now)

    def _add(self, line: _Line, count: int, first: int, last: int) -> None:
        had, began, ended = self._counts.get(line, (0, first, last))
        self._counts[line] = (had + count, min(began, first), max(ended, last))

    async def write(self, store: Store) -> None:
        """Writes the counts; what could not be written stays counted. Raises `StoreError`."""
        with self._lock:
            taken, self._counts = self._counts, {}
        if not taken:
            return
        rows = [
            CallsRow(**line._asdict(), count=count, first_seen=first, last_seen=last)
            for line, (count, first, last) in taken.items()
        ]
        try:
            await store.write(lambda tx: keep(tx, rows), is_long=True)
        except BaseException:
            with self._lock:
                for line, counted in taken.items():
                    self._add(line, *counted)
            raise


def keep(tx: Tx, rows: list[CallsRow]) -> None:
    """Adds calls to the stored lines; a new line of a caller that has too many is added to its line for all others."""
    tx.lock("calls")
    for row in rows:
        if not tx.add_calls(row, MOST_LINES):
            other = {"method": "*", "path": OTHER, "agent": OTHER}
            tx.add_calls(CallsRow(**{**{name: getattr(row, name) for name in row.__struct_fields__}, **other}), None)


def cleaned(text: str, is_credential: Callable[[str], bool]) -> str:
    """A caller's text made fit to be kept: cut, printable, and with everything masked that is or looks like a
    credential."""
    words = re.split(r"([/ ,;:()]+)", text[: 8 * LONGEST])
    masked = "".join(MASK if word and (_SECRET.search(word) or is_credential(word)) else word for word in words)
    return "".join(char if char.isprintable() else "?" for char in masked)[:LONGEST]


def kind_of(row: CallsRow) -> int:
    """A hash of what distinguishes a line: equal for the same line, and hardly ever for two different ones."""
    return hash((row.dialect, row.caller, row.outcome, row.method, row.path, row.agent))


def as_json(row: CallsRow) -> dict[str, Any]:
    """A line as `--json` prints it: an unknown caller is null, times are UTC."""
    return {
        "dialect": row.dialect,
        "caller": row.caller or None,
        "method": row.method,
        "path": row.path,
        "agent": row.agent,
        "outcome": row.outcome,
        "count": row.count,
        "first_seen": iso(from_millis(row.first_seen)),
        "last_seen": iso(from_millis(row.last_seen)),
    }
