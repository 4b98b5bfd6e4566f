"""Copies a store in SQLite while a gateway serves from it: one consistent state, complete in one file.

It reads through a connection of its own, in one transaction, which keeps no writer waiting. It must not know what the
rows mean outside the store.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import apsw

from gateway.errors import StoreError
from gateway.store.ballast import SIZE
from gateway.store.sqlite import SqliteTx
from gateway.store.sqlite_schema import see_whose

LONGEST_WAIT = 10_000
"""Milliseconds to wait for a store that is being opened or closed."""

SPARED = 2 * SIZE
"""Bytes to be left free on the store's own disk."""


@dataclass(frozen=True)
class Copied:
    """What was copied: the file's bytes, and how many deliveries wait in it."""

    size: int
    waiting: int


def copy_store(store: str, target: Path) -> Copied:
    """Copies the store in the file `store` to a new file, readable by its owner alone. The copy is checked and synced
    to disk before it gets its name. Raises `StoreError` on failure, and leaves nothing behind."""
    if not Path(store).is_file():
        raise StoreError(f"there is no store at {store} yet")
    if target.is_dir():
        raise StoreError(f"{target} is a directory; name a new file")
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target} already exists and is not overwritten; name another file")
    if not target.parent.is_dir():
        raise StoreError(f"there is no directory {target.parent}")
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        _need_room(store, target.parent)
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        waiting = _copy(store, unfinished)
        _reach_disk(unfinished)
        _name(unfinished, target)
        _reach_disk(target.parent)
        return Copied(target.stat().st_size, waiting)
    except FileExistsError:
        raise StoreError(f"{target} already exists and is not overwritten; name another file") from None
    except apsw.FullError as error:
        raise StoreError(f"not enough room for the copy in {target.parent}: {error}") from error
    except (apsw.Error, OSError) as error:
        raise StoreError(f"cannot copy the store {store} to {target}: {error}") from error
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            Path(f"{unfinished}{ending}").unlink(missing_ok=True)


def _need_room(store: str, directory: Path) -> None:
    """Refuses a copy that would fill the store's own disk, where a serving gateway would have to refuse alerts. Any
    other disk may be filled."""
    file = Path(os.path.realpath(store))
    if directory.stat().st_dev != file.stat().st_dev:
        return
    size = sum(part.stat().st_size for part in (file, Path(f"{file}-wal")) if part.exists())
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < size + SPARED:
        raise StoreError(
            f"not enough room for the copy in {directory}, on the store's own disk: it may take {size:,} bytes, "
            f"{free:,} are free, and {SPARED:,} of these must stay free"
        )


def _copy(store: str, file: Path) -> int:
    """Copies, takes the copy out of WAL mode so that one file is all of it, and checks it; returns the number of
    deliveries that wait in it."""
    source, copy = apsw.Connection(store), apsw.Connection(str(file))
    try:
        source.set_busy_timeout(LONGEST_WAIT)
        see_whose(source)
        if not source.pragma("user_version"):
            raise StoreError(f"there is no store at {store} yet: the file is empty")
        with copy.backup("main", source, "main") as backup:
            backup.step(-1)  # in one step: between steps, any write would restart the backup
        copy.pragma("journal_mode", "delete")  # with a log beside it, somebody would copy the file without it some day
        if (found := copy.pragma("quick_check")) != "ok":
            raise StoreError(f"the copy of {store} is damaged and was deleted: {found}")
        return sum(one.count for one in SqliteTx(copy).waiting())
    finally:
        copy.close()
        source.close()


def _name(unfinished: Path, target: Path) -> None:
    """Gives the copy its name; raises `FileExistsError` if something has that name by now."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as other systems' shares
        if target.exists():
            raise FileExistsError(target) from None
        unfinished.rename(target)


def _reach_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
