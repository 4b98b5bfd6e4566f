"""Moves everything in a store into a store of the other engine, while no gateway uses either.

The new store is filled in one transaction: interrupted in the middle, it stays empty. The old one keeps all its rows,
and is marked as moved, so that no gateway serves from it by mistake. That mark is committed before the new store is, as
deliveries that wait in both would be sent twice. If it is unknown whether the new one has committed, giving the same
command again finds out. It must not know what the rows mean outside the store.
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
from gateway.store.moved import ARRIVED, MARK, RUNNING, Moved, noted
from gateway.store.postgres_clock import NOTE as CLOCK
from gateway.store.sql import LAST
from gateway.store.tables import ALERTS, ATTEMPTS, CALLS, COMMANDS, DELIVERIES, TARGETS

SAY_EVERY = 5.0
"""Seconds between two reports of progress."""


@dataclass(frozen=True)
class Copied:
    """A table and the columns of it that are copied: all but those of claims. `only` is a condition on its rows,
    `alert` the index of the column with the alert that a row belongs to."""

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
    Copied("notes", ("name", "body"), only=f"name NOT IN ('{MARK}', '{ARRIVED}', '{CLOCK}')"),
    Copied("keyed", ("scope", "key", "digest", "at", "answer")),
    Copied("calls", CALLS.fields),
)
GIVES_WAY = ("notes", "calls")
"""Tables that a gateway writes to as soon as it is started: their rows in the new store are replaced."""
BYTES = frozenset(("body", "verbatim", "ids", "seen", "replaced", "report", "merges", "answer"))
"""Columns that hold bytes, in all tables. SQLite stores the defaults of some of them as text."""


class Unclear(StoreError):
    """It is unknown whether a commit was made."""


class TooLong(StoreError):
    """A value in this row, counted from 1, is too long for the engine's index."""

    def __init__(self, row: int) -> None:
        super().__init__("a key, name or id is too long for the store's indexes")
        self.row = row


class Side(Protocol):
    """One of the two stores. `shown` is its address without credentials."""

    shown: str

    def open(self) -> None:
        """Brings the schema up to date and begins a transaction that excludes all others; raises `StoreError` where a
        gateway serves from the store."""

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Runs a statement and returns its rows."""

    def rows(self, table: Copied) -> Iterator[Sequence[Any]]:
        """Yields the rows of a table, never all of them in memory."""

    def put(self, table: Copied, rows: Iterable[Sequence[Any]]) -> None:
        """Adds rows to a table."""

    def unrecorded(self) -> bool | None:
        """Whether an attempt was under way of which nothing was recorded, by the engine's claims; None where the engine
        keeps no claims, and the note `RUNNING` says it."""

    def see_all(self) -> None:
        """Has the engine gather statistics after the copy, so that it plans with the right indexes."""

    def commit(self) -> None:
        """Commits; raises `Unclear` if it is unknown whether the commit was made."""

    def close(self) -> None:
        """Closes the store; what was not committed is rolled back."""


@dataclass(frozen=True)
class Outcome:
    """The result of a move: the number of rows of each table and of waiting deliveries; `is_repeated` if an earlier run
    had already moved everything."""

    move: Moved
    rows: dict[str, int]
    waiting: int
    is_repeated: bool = False


def move(source: Side, target: Side, say: Callable[[str], None], spoken: Sequence[str]) -> Outcome:
    """Moves everything. `say` is called with the progress; `spoken` are the prefixes of notes that people asked for, of
    which there may be none in the new store. Raises `StoreError` if it fails, and leaves both as they were."""
    with opened(source), contextlib.ExitStack() as stack:
        before = noted(_note(source, MARK))
        if before is not None and before.to != target.shown:
            raise StoreError(before.refusal)
        try:
            stack.enter_context(opened(target))
        except StoreError as error:
            if before is None:
                raise
            raise StoreError(f"{before.origin} was moved there at {before.day}, or nearly; {error}") from None
        arrived = noted(_note(target, ARRIVED))
        if before is not None and arrived is not None and before.token == arrived.token:
            _settle(source, arrived)
            return Outcome(arrived, {}, _waiting(target), is_repeated=True)
        _need_empty(target, spoken)
        rows = _copy_all(source, target, say)
        if (unrecorded := source.unrecorded()) is not None:  # a note there is of an earlier move to that engine
            _put_note(target, RUNNING, unrecorded)
        target.see_all()
        now = time.time_ns() // 1_000_000
        done = Moved(origin=source.shown, to=target.shown, at=now, token=secrets.token_hex(8))
        waiting = _waiting(target)
        _hand_over(source, target, done, before)
        return Outcome(done, rows, waiting)


def undo(source: Side) -> Moved:
    """Removes the mark that a move has left; returns that move."""
    with opened(source):
        found = noted(_note(source, MARK))
        if found is None:
            raise StoreError(f"{source.shown} was not moved: a gateway may serve from it")
        _put_note(source, MARK, None)
        source.commit()
        return found


@contextlib.contextmanager
def opened(side: Side) -> Iterator[None]:
    """Opens one of the two stores, and closes it at the end of the block."""
    try:
        side.open()
        yield
    finally:
        side.close()


def _need_empty(target: Side, spoken: Sequence[str]) -> None:
    """Raises `StoreError` if the new store has rows: two histories could not be separated again once mixed."""
    for table in TABLES:
        if table.name not in GIVES_WAY and (count := _count(target, table)):
            raise StoreError(f"{target.shown} is not empty ({table.name}: {count:,}); name an empty store")
    for begin in spoken:
        if target.run("SELECT 1 FROM notes WHERE name >= ? AND name <= ? LIMIT 1", (begin, begin + LAST)):
            raise StoreError(f"{target.shown} is not empty (silences); name an empty store")
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
                f"{table.name}: {counts[table.name]:,} of {there:,} rows of {source.shown} arrived; nothing was moved"
            )
    return counts


def _told(rows: Iterable[Sequence[Any]], name: str, most: int, say: Callable[[str], None]) -> Iterator[Sequence[Any]]:
    """The same rows; reports now and then how many have passed."""
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
        f"{whose} has a key, name or id that is too long for the indexes of {target.shown}; nothing was moved. "
        "Move again once it has ended and `retention` has removed it"
    )


def _hand_over(source: Side, target: Side, done: Moved, before: Moved | None) -> None:
    """Commits the mark in the old store, then everything in the new one. Interrupted in between, the new one stays
    empty: so the mark has `is_known` set only after the second commit is known to have been made."""
    _put_note(target, ARRIVED, done)
    _put_note(source, MARK, replace(done, is_known=False))
    try:
        source.commit()
    except Unclear as error:
        raise StoreError(f"{error}. Nothing was moved: repeat the same command") from None
    try:
        target.commit()
    except Unclear as error:
        raise StoreError(
            f"{error}. Whether everything is in {done.to} now is unknown, so no gateway serves from {done.origin} "
            "until that is known: repeat the same command"
        ) from None
    except StoreError:
        _settle(source, before)
        raise
    _settle(source, done)


def _settle(source: Side, outcome: Moved | None) -> None:
    """Replaces the mark in the old store by the outcome. If that fails, the mark that is there tells people to give the
    same command again, which finds out."""
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


def _put_note(side: Side, name: str, value: Moved | bool | None) -> None:
    """Writes or deletes a note in one statement, so that it is atomic outside a transaction too."""
    if value is None:
        side.run("DELETE FROM notes WHERE name = ?", (name,))
    else:
        statement = "INSERT INTO notes (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"
        side.run(statement, (name, msgspec.json.encode(value)))
