"""Everything in a store brought over into one of the other engine, with nobody at either of them meanwhile.

The new store is filled in one transaction: cut off in the middle, it stays empty. The old one keeps all that it has,
and is marked as moved, so that no gateway serves from it by mistake. That mark is committed before the new store is:
what could be delivered from both would be told twice. Where nobody knows whether the new one was committed, the same
move asked for again finds out. It must not know what the rows mean to anybody but the store.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from gateway.errors import StoreError
from gateway.store.moved import ARRIVED, MARK, Moved, noted
from gateway.store.sql import LAST
from gateway.store.tables import ALERTS, ATTEMPTS, CALLS, COMMANDS, DELIVERIES, TARGETS

SAY_EVERY = 5.0
"""Seconds between two words on how far it is."""


@dataclass(frozen=True)
class Copied:
    """A table and the columns of it that come along: all but who holds what just now. `only` is a condition on its
    rows, and `alert` the place of the column that says whose a row is."""

    name: str
    columns: tuple[str, ...]
    alert: int | None = None
    only: str = "1 = 1"

    @property
    def select(self) -> str:
        """All its rows."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {self.only}"


TABLES = (
    Copied("alerts", ALERTS.fields, alert=0),
    Copied("ids", ("scope", "name", "party", "alert"), alert=3),
    Copied("targets", (*TARGETS.fields, "is_over"), alert=0),
    Copied("commands", COMMANDS.fields, alert=2),
    Copied("deliveries", DELIVERIES.fields, alert=2),
    Copied("attempts", ATTEMPTS.fields),
    Copied("notes", ("name", "body"), only=f"name NOT IN ('{MARK}', '{ARRIVED}')"),
    Copied("keyed", ("scope", "key", "digest", "at", "answer")),
    Copied("calls", CALLS.fields),
)
GIVES_WAY = ("notes", "calls")
"""What a gateway writes by itself as soon as it is started: it gives way to what comes."""
BYTES = frozenset(("body", "verbatim", "ids", "seen", "replaced", "report", "merges", "answer"))
"""Columns that hold bytes, in whichever table: SQLite gave some of them a default that it keeps as a text."""


class Unclear(StoreError):
    """Nobody knows whether what was to be committed is."""


class TooLong(StoreError):
    """The engine has no index that takes what is in this row, counted from 1."""

    def __init__(self, row: int) -> None:
        super().__init__("a key, a name or an id is longer than the store can find again")
        self.row = row


class Side(Protocol):
    """One of the two stores. `shown` is where it is, without a credential."""

    shown: str

    def open(self) -> None:
        """Brings it up to date and begins a transaction that nobody else works beside; refuses where one serves."""

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """What a statement comes to."""

    def rows(self, table: Copied) -> Iterator[Sequence[Any]]:
        """The rows of a table, never all of them in memory."""

    def put(self, table: Copied, rows: Iterable[Sequence[Any]]) -> None:
        """Adds rows to a table."""

    def see_all(self) -> None:
        """Has the engine look at what it has now, so that it finds it by the right index."""

    def commit(self) -> None:
        """Ends the transaction; raises `Unclear` where nobody knows how."""

    def close(self) -> None:
        """Takes back what was not committed."""


@dataclass(frozen=True)
class Outcome:
    """What came of a move: the rows of each table, the deliveries that wait; `is_repeated` where all of it was there
    already."""

    move: Moved
    rows: dict[str, int]
    waiting: int
    is_repeated: bool = False


def move(source: Side, target: Side, say: Callable[[str], None], spoken: Sequence[str]) -> Outcome:
    """Moves everything; `say` hears how far it is, and `spoken` is how notes begin that somebody asked for. Raises
    `StoreError` where it cannot be, and leaves both as they were."""
    with opened(source), contextlib.ExitStack() as stack:
        before = noted(_note(source, MARK))
        if before is not None and before.to != target.shown:
            raise StoreError(before.refusal)
        try:
            stack.enter_context(opened(target))
        except StoreError as error:
            if before is None:
                raise
            raise StoreError(f"{before.origin} was moved there at {before.day}, or nearly so; {error}") from None
        arrived = noted(_note(target, ARRIVED))
        if before is not None and arrived is not None and before.token == arrived.token:
            _settle(source, arrived)
            return Outcome(arrived, {}, _waiting(target), is_repeated=True)
        _need_empty(target, spoken)
        rows = _copy_all(source, target, say)
        target.see_all()
        now = time.time_ns() // 1_000_000
        done = Moved(origin=source.shown, to=target.shown, at=now, token=secrets.token_hex(8))
        waiting = _waiting(target)
        _hand_over(source, target, done, before)
        return Outcome(done, rows, waiting)


def undo(source: Side) -> Moved:
    """Takes the mark back that a move has left; answers which that was."""
    with opened(source):
        found = noted(_note(source, MARK))
        if found is None:
            raise StoreError(f"{source.shown} was not moved: a gateway may serve from it")
        _put_note(source, MARK, None)
        source.commit()
        return found


@contextlib.contextmanager
def opened(side: Side) -> Iterator[None]:
    """One of the two for as long as it is worked at."""
    try:
        side.open()
        yield
    finally:
        side.close()


def _need_empty(target: Side, spoken: Sequence[str]) -> None:
    """Two histories cannot be told apart again once they are one."""
    for table in TABLES:
        if table.name not in GIVES_WAY and (count := _count(target, table)):
            raise StoreError(
                f"there is something in {target.shown} already ({table.name}: {count:,}); name an empty one"
            )
    for begin in spoken:
        if target.run("SELECT 1 FROM notes WHERE name >= ? AND name <= ? LIMIT 1", (begin, begin + LAST)):
            raise StoreError(f"there are silences in {target.shown} already; name an empty one")
    for name in GIVES_WAY:
        target.run(f"DELETE FROM {name}")


def _copy_all(source: Side, target: Side, say: Callable[[str], None]) -> dict[str, int]:
    counts = {}
    for table in TABLES:
        there = _count(source, table)
        try:
            target.put(table, _told(source.rows(table), table.name, there, say))
        except TooLong as error:
            raise StoreError(_too_long(source, target, table, error.row)) from None
        counts[table.name] = _count(target, table)
        if counts[table.name] != there:
            raise StoreError(
                f"{table.name}: of {there:,} rows in {source.shown} {counts[table.name]:,} arrived; nothing was moved"
            )
    return counts


def _told(rows: Iterable[Sequence[Any]], name: str, most: int, say: Callable[[str], None]) -> Iterator[Sequence[Any]]:
    """The same rows; now and then it says how many there were."""
    last = time.monotonic()
    for number, row in enumerate(rows):
        if (now := time.monotonic()) - last >= SAY_EVERY:
            last = now
            say(f"{name}: {number:,} of {most:,}")
        yield row


def _too_long(source: Side, target: Side, table: Copied, number: int) -> str:
    row = next(itertools.islice(source.rows(table), number - 1, None), None)
    whose = f"alert {row[table.alert]}" if row is not None and table.alert is not None else f"a row of {table.name}"
    return (
        f"{whose} has a key, a name or an id that is longer than {target.shown} can find again; nothing was moved. "
        "Where that is over and `retention` has removed it, the rest can be"
    )


def _hand_over(source: Side, target: Side, done: Moved, before: Moved | None) -> None:
    """From here on the new store is the one. Whoever is cut off between the two commits leaves it empty: so the old one
    names it as the one to serve from only once the second is known to have been made."""
    _put_note(target, ARRIVED, done)
    _put_note(source, MARK, replace(done, is_known=False))
    try:
        source.commit()
    except Unclear as error:
        raise StoreError(f"{error}. Nothing was moved: give the same command again") from None
    try:
        target.commit()
    except Unclear as error:
        raise StoreError(
            f"{error}. Nobody knows whether everything is in {done.to} now, so no gateway serves from {done.origin} "
            "until that is known: give the same command again"
        ) from None
    except StoreError:
        _settle(source, before)
        raise
    _settle(source, done)


def _settle(source: Side, outcome: Moved | None) -> None:
    """Notes what came of it. Where that cannot be, the same command given again finds out, as the note says that stands
    there."""
    with contextlib.suppress(StoreError):
        _put_note(source, MARK, outcome)
        source.commit()


def _count(side: Side, table: Copied) -> int:
    return int(side.run(f"SELECT count(*) FROM {table.name} WHERE {table.only}")[0][0])


def _waiting(side: Side) -> int:
    return int(side.run("SELECT count(*) FROM deliveries WHERE state = 'waiting'")[0][0])


def _note(side: Side, name: str) -> Any:
    found = side.run("SELECT body FROM notes WHERE name = ?", (name,))
    return msgspec.json.decode(found[0][0]) if found else None


def _put_note(side: Side, name: str, value: Moved | None) -> None:
    """In one statement: outside a transaction too a note is there, or it is not."""
    if value is None:
        side.run("DELETE FROM notes WHERE name = ?", (name,))
    else:
        statement = "INSERT INTO notes (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"
        side.run(statement, (name, msgspec.json.encode(value)))
