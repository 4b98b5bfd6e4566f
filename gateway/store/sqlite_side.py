"""A store in SQLite as one side of a move. It must not know what the tables contain."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from gateway.errors import StoreError
from gateway.store.ballast import SIZE, Ballast
from gateway.store.moving import Copied
from gateway.store.sqlite import PATIENCE, lock_alone
from gateway.store.sqlite_schema import migrate, see_whose

CACHE = 16_000
"""KiB of page cache."""


class SqliteSide:
    """The store in the file at `path`. With `may_be_made` a missing one is created, and deleted again if the move does
    not commit."""

    def __init__(self, path: str, *, may_be_made: bool) -> None:
        self._path = os.path.realpath(path)
        self._may_be_made = may_be_made
        self._is_new = False
        self._lock: int | None = None
        self._connection: apsw.Connection | None = None
        self.shown = f"sqlite://{path}"

    def open(self) -> None:
        file = Path(self._path)
        if not file.exists():
            if not self._may_be_made:
                raise StoreError(f"there is no store at {self._path} yet")
            if not file.parent.is_dir():
                raise StoreError(f"there is no directory {file.parent}")
        with self._telling("cannot be opened"):
            self._lock = lock_alone(self._path)
            if self._lock is None:
                raise StoreError(
                    f"a gateway serves from {self.shown}: stop it first, and keep it stopped. Or a move is running"
                )
            self._is_new = not file.exists()
            if self._free() < SIZE:  # the mark must fit on a full disk too; no alert needs the reserve meanwhile
                Ballast(f"{self._path}.ballast").drop()
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = self._connected()
            self._connection.execute("BEGIN IMMEDIATE")

    def _connected(self) -> apsw.Connection:
        connection = apsw.Connection(self._path)
        connection.set_busy_timeout(PATIENCE)
        see_whose(connection)
        # A file that no gateway has opened yet is not in WAL mode, and commits by removing its journal. Without EXTRA,
        # the journal may be back after a power failure: the new store would be rolled back, and the old one marked
        # moved.
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute(f"PRAGMA cache_size = -{CACHE}")
        migrate(connection)
        return connection

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        assert self._connection is not None
        with self._telling("cannot be used"):
            return self._connection.execute(statement, values).fetchall()

    def rows(self, table: Copied) -> Iterator[Sequence[Any]]:
        assert self._connection is not None
        with self._telling(f"cannot be read ({table.name})"):
            yield from self._connection.execute(table.select)

    def put(self, table: Copied, rows: Iterable[Sequence[Any]]) -> None:
        assert self._connection is not None
        marks = ", ".join("?" for _ in table.columns)
        insert = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"
        with self._telling(f"does not accept all rows ({table.name})"):
            self._connection.executemany(insert, rows)

    def unrecorded(self) -> bool | None:
        return None

    def see_all(self) -> None:
        """Does nothing: SQLite's planner needs no statistics here, only the indexes."""

    def commit(self) -> None:
        assert self._connection is not None
        if self._connection.in_transaction:
            self.run("COMMIT")
        self._is_new = False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._is_new:
            for ending in ("", "-journal", "-wal", "-shm", ".lock"):
                Path(f"{self._path}{ending}").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turns SQLite's errors into `StoreError`, with the free bytes of a nearly full disk: there SQLite often says
        no more than that it failed."""
        try:
            yield
        except (apsw.Error, OSError) as error:
            room = f"; its disk has {free:,} bytes free" if (free := self._free()) < SIZE else ""
            raise StoreError(f"{self.shown} {what}: {error}{room}") from error

    def _free(self) -> int:
        """Free bytes on the disk."""
        disk = os.statvfs(Path(self._path).parent)
        return disk.f_bavail * disk.f_frsize
