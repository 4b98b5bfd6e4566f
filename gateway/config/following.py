"""Directories of secrets and tables of values that are followed while the gateway runs.

Both are read when they are loaded and again when they have changed, at most once a second, never per request. If the
new content cannot be used, that is logged, and the old content stays. A file that is empty or gone may be in the middle
of being written: it counts only once it has stayed so for a while. It must not know who asks, nor what for.
"""

from __future__ import annotations

import os
import time
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from gateway.config.secrets import BEING_WRITTEN, fault_of, unread

log = structlog.get_logger()
LOOK_EVERY = 1.0
"""Seconds between two looks at the file system."""

Signature = tuple[int, int, int]
"""Modification time, inode and size, by which a change of a file is noticed; of a symlink's target."""


def _signature(path: str | os.PathLike[str]) -> Signature:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino, found.st_size


class _Followed(ABC):
    """A file or directory that is looked at again now and then."""

    def __init__(self) -> None:
        self.look_every = LOOK_EVERY
        self._looked = time.monotonic()
        self._since: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def _lasts(self, what: str, seconds: float) -> bool:
        """Whether a condition that may be temporary has lasted this many seconds since the first look that found it."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now) >= seconds

    def _is_news(self, what: str, fault: str) -> bool:
        """Whether a fault is new since the last look, so that it is logged once and not every second."""
        is_news = self._said.get(what) != fault
        self._said[what] = fault
        return is_news

    def look(self) -> None:
        """Takes over changes, if the last look is at least `look_every` seconds ago."""
        now = time.monotonic()
        if now - self._looked >= self.look_every:
            self._looked = now
            self._follow()

    @abstractmethod
    def _follow(self) -> None:
        """Takes over changes."""


class Directory(_Followed):
    """A directory with one secret per file; the file's name says whose it is. Hidden files are ignored.

    Symlinks that are swapped all at once are followed: orchestrators mount secrets so. A secret is dropped once two
    looks have not found its file; if the directory cannot be read at all, all secrets stay. `version` grows with each
    change. Raises `ValueError` where it cannot be read at first; without `resolve` it is never read and has no files.
    """

    def __init__(self, path: str, *, resolve: bool = True) -> None:
        super().__init__()
        self.path = path
        self.version = 0
        self._is_followed = resolve
        self._doubtful: set[str] = set()
        self._unread: set[str] = set()
        self._files: dict[str, tuple[Signature, str]] = {}
        if resolve:
            try:
                self._files = self._read()
            except OSError as error:
                raise ValueError(f"the directory {path} cannot be read: {unread(error)}") from None

    @property
    def is_known(self) -> bool:
        """Whether it is read; it is not where secrets are not resolved."""
        return self._is_followed

    def __repr__(self) -> str:
        return f"Directory({self.path})"

    def faults(self) -> Iterator[tuple[str, str]]:
        """The files whose content cannot be a credential, each with the reason."""
        for name, (_, secret) in sorted(self._files.items()):
            if fault := fault_of(secret):
                yield name, fault

    def secrets(self) -> dict[str, str]:
        """Every usable secret by the name of its file."""
        self.look()
        return {name: secret for name, (_, secret) in self._files.items() if not fault_of(secret)}

    def get(self, name: str) -> str | None:
        """The secret in the file of this name. The name is only compared with those of files that were read, so that it
        cannot lead to a path elsewhere."""
        self.look()
        found = self._files.get(name)
        return found[1] if found and not fault_of(found[1]) else None

    def _follow(self) -> None:
        if not self._is_followed:
            return
        try:
            files = self._read()
        except OSError as error:
            if self._is_news("", type(error).__name__):
                log.error("secrets.unreadable", directory=self.path, reason=type(error).__name__)
            return
        self._said = {name: fault for name, fault in self._said.items() if name in self._unread}
        if files == self._files:
            return
        before, self._files = self._files, files
        self.version += 1
        for name in sorted(before.keys() - files.keys()):
            log.warning("secret.revoked", directory=self.path, name=name)
        for name in sorted(files.keys() - before.keys()):
            log.info("secret.added", directory=self.path, name=name)
        for name in sorted(name for name in files.keys() & before.keys() if files[name][1] != before[name][1]):
            log.info("secret.changed", directory=self.path, name=name)
        for name, fault in self.faults():
            if files[name] != before.get(name):
                log.error("secret.unusable", directory=self.path, name=name, reason=fault)

    def _read(self) -> dict[str, tuple[Signature, str]]:
        files: dict[str, tuple[Signature, str]] = {}
        self._doubtful, self._unread = set(), set()
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and (found := self._file(entry)) is not None:
                    files[entry.name] = found
        held = {secret for _, secret in files.values()}  # a secret that was renamed must not have two owners meanwhile
        missed = [name for name in self._files if name not in files and self._files[name][1] not in held]
        gone = [name for name in missed if not self._lasts(f"gone {name}", self.look_every)]
        files |= {name: self._files[name] for name in gone}
        doubted = {*(f"gone {name}" for name in gone), *(f"empty {name}" for name in self._doubtful)}
        self._since = {what: since for what, since in self._since.items() if what in doubted}
        return files

    def _file(self, entry: os.DirEntry[str]) -> tuple[Signature, str] | None:
        """A file's signature and secret; of a file that is there and cannot be read, those known before."""
        known = self._files.get(entry.name)
        try:
            if not entry.is_file():
                return None
            signature = _signature(entry.path)
            if known and known[0] == signature:
                return known
            text = Path(entry.path).read_text("utf-8-sig").rstrip("\r\n")
        except FileNotFoundError:
            return None  # it vanished meanwhile
        except (OSError, UnicodeDecodeError) as error:
            self._unread.add(entry.name)
            if self._is_news(entry.name, type(error).__name__):
                log.error("secret.unreadable", directory=self.path, name=entry.name, reason=type(error).__name__)
            return known
        if not text and known and known[1] and not self._lasts(f"empty {entry.name}", BEING_WRITTEN):
            self._doubtful.add(entry.name)
            return known
        return signature, text


class Table(_Followed):
    """A TOML file of entries and their values, such as `payments = "policy-7"`.

    `name` is the name in the configuration. Each use adds a check: a file that fails one is refused as a whole, and the
    table stays as it was. Raises `ValueError` where it cannot be read at first.
    """

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        self.name = name
        self._path = path
        self._checks: list[Callable[[Mapping[str, Any]], list[str]]] = []
        self._signature: Signature | None = None
        self._values: dict[str, Any] = {}
        self._values = self._read()

    def add_check(self, check: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
        """Adds a check, which returns what is wrong with given values; returns its result for the current ones."""
        self._checks.append(check)
        return check(self._values)

    def values(self) -> Mapping[str, Any]:
        """The current values by entry."""
        self.look()
        return self._values

    def _read(self) -> dict[str, Any]:
        try:
            signature = _signature(self._path)
            values = tomllib.loads(self._path.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the table {self.name} cannot be read: {unread(error)}") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"the table {self.name} is not TOML: {error}") from None
        except RecursionError:
            raise ValueError(f"the table {self.name} is nested too deeply") from None
        self._signature = signature
        return values

    def _follow(self) -> None:
        try:
            if _signature(self._path) == self._signature:
                self._said.clear()
                return
            values = self._read()
            if not values and self._values and not self._lasts("empty", BEING_WRITTEN):
                self._signature = None  # so that the next look reads it again
                return
            self._since.clear()
            faults = [fault for check in self._checks for fault in check(values)]
        except (ValueError, OSError) as error:
            faults = [str(error) if isinstance(error, ValueError) else f"it cannot be read: {unread(error)}"]
        if faults:
            if self._is_news("", "; ".join(faults[:3])):
                log.error("table.refused", table=self.name, reason="; ".join(faults[:3]))
            return
        self._said.clear()
        self._values = values
        log.info("table.changed", table=self.name, entries=len(values))
