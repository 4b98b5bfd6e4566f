"""Ballast: a file beside the store that reserves room, to be deleted when the disk is full.

On a full disk nothing can be deleted from a store either, as deleting is writing. With the ballast gone, what is
under way can still be recorded and what has ended purged; new requests are refused until there is room for the
ballast again. It must not know what file it lies beside.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SIZE = 4 << 20
"""Bytes."""


class Ballast:
    """The file at `path`, of `size` bytes; it is not created where there is no room for it."""

    def __init__(self, path: str, size: int = SIZE) -> None:
        self._path = Path(path)
        self._size = size

    def load(self) -> bool:
        """Creates the file if twice its size is free; returns whether it is there."""
        if self._is_there():
            return True
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < 2 * self._size:
            return False
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> bool:
        """Deletes the file; returns whether it was there."""
        was_there = self._is_there()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return was_there

    def _is_there(self) -> bool:
        try:
            return self._path.stat().st_size >= self._size
        except OSError:
            return False
