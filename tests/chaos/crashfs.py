"""A disk that can lose power, as a SQLite VFS: everything goes to real files, and also into a log, from which images of
the disk as it may have been at any instant are made afterwards.

What was synced is kept. Of what was written since, an image keeps nothing, everything, a prefix torn in the middle,
scattered sectors, or sectors full of noise. A sync that fails drops what it should have kept, as kernels do: a later
one does not bring it back. It must not know what the files mean.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import apsw

SECTOR = 512
Loss = Literal["synced", "everything", "torn", "scattered", "noise"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


class Entry(NamedTuple):
    """An entry of the log: something done to a file, or a fact that was acknowledged."""

    what: Literal["write", "truncate", "sync", "unsynced", "delete", "fact"]
    file: str = ""
    at: int = 0
    data: bytes = b""
    fact: Any = None


class Disk(apsw.VFS):
    """The VFS; connections name it as `disk.name`. While `is_failing`, every sync fails."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[Entry] = []
        self.is_failing = False
        self._lock = threading.Lock()
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Opens a file whose writes are logged; those of a temporary one are not."""
        return _Noted(self, name, flags) if name is not None else apsw.VFSFile("", name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Deletes a file, durably at once."""
        super().xDelete(filename, syncdir)
        self.note(Entry("delete", Path(filename).name))

    def note(self, entry: Entry) -> None:
        """Adds an entry to the log."""
        with self._lock:
            self.log.append(entry)


class _Noted(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(path).name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._disk.note(Entry("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.note(Entry("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.is_failing:
            self._disk.note(Entry("unsynced", self._name))
            raise apsw.IOError("the disk does not sync")
        super().xSync(flags)
        self._disk.note(Entry("sync", self._name))


class Shown:
    """The disk as it was after a part of the log; starts from `files`."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._kept = {name: bytearray(data) for name, data in files.items()}
        self._since: defaultdict[str, list[Entry]] = defaultdict(list)
        self.facts: list[Any] = []

    def goes_on(self, entry: Entry) -> None:
        """Applies another entry of the log."""
        if entry.what == "fact":
            self.facts.append(entry.fact)
        elif entry.what == "delete":
            self._kept.pop(entry.file, None)
            self._since.pop(entry.file, None)
        elif entry.what == "sync":
            kept = self._kept.setdefault(entry.file, bytearray())
            for one in self._since.pop(entry.file, ()):
                _apply(kept, one)
        elif entry.what == "unsynced":
            self._since.pop(entry.file, None)
        else:
            self._since[entry.file].append(entry)

    def image(self, loss: Loss, chance: random.Random) -> dict[str, bytes]:
        """Returns the files as they may be found when the power comes back."""
        found = {name: bytearray(data) for name, data in self._kept.items()}
        for name, entries in self._since.items():
            if loss == "synced":
                continue
            whole = len(entries) if loss in ("everything", "scattered") else chance.randint(0, len(entries))
            file = found.setdefault(name, bytearray())
            for entry in entries[:whole] if loss != "scattered" else ():
                _apply(file, entry)
            if loss == "torn" and whole < len(entries):
                _apply(file, entries[whole], upto=chance.randint(0, len(entries[whole].data)))
            elif loss in ("scattered", "noise"):
                for entry in entries if loss == "scattered" else entries[whole:]:
                    _scatter(file, entry, chance, noise=loss == "noise")
        return {name: bytes(data) for name, data in found.items()}


def _apply(file: bytearray, entry: Entry, upto: int | None = None) -> None:
    if entry.what == "truncate":
        del file[entry.at :]
        return
    data = entry.data[:upto]
    if len(file) < entry.at:
        file.extend(bytes(entry.at - len(file)))
    file[entry.at : entry.at + len(data)] = data


def _scatter(file: bytearray, entry: Entry, chance: random.Random, *, noise: bool) -> None:
    if entry.what == "truncate":
        if chance.random() < 0.5:
            _apply(file, entry)
        return
    for start in range(0, len(entry.data), SECTOR):
        piece = entry.data[start : start + SECTOR]
        if chance.random() < 0.5:
            piece = chance.randbytes(len(piece)) if noise else piece
            _apply(file, Entry("write", entry.file, entry.at + start, piece))
