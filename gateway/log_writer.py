"""Writes the lines of the log so that nobody ever waits for whoever reads them. The reader of a pipe may hang, a
terminal may be stopped: then lines wait here, and beyond a limit they are lost, but the gateway goes on.

It must not know what is in a line.
"""

from __future__ import annotations

import atexit
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable

MOST = 1 << 20
"""Bytes of lines that wait for the reader, which may only be slow for a moment; further ones are lost, and counted."""
AT_THE_END = 1.0
"""Seconds that the end of the process waits for the reader: the last lines may say why it ends."""


_OPEN: list[LogWriter] = []


def finish() -> None:
    """Waits for the readers of all lines, for an end of the process that skips everything else."""
    for writer in _OPEN:
        writer.finish()


class LogWriter:
    """Lines for a file descriptor. As long as there is room, a line is written at once, by whoever logs it; else, and
    always to a terminal, a thread writes what waits, in order. `told` makes the line that says how many were lost."""

    def __init__(self, fd: int, told: Callable[[int], bytes]) -> None:
        self._fd = fd
        self._told = told
        self._room = _room(fd)
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        # With room for a write, poll() promises this much of a pipe. A file's lines are never cut.
        self._at_once = sys.maxsize if self._is_file else select.PIPE_BUF
        # Of a terminal it promises a character: a longer write would wait for the rest.
        self._is_terminal = os.isatty(fd)
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._behind: threading.Thread | None = None
        atexit.register(self.finish)
        _OPEN.append(self)

    def write(self, line: str | bytes) -> None:
        """Writes a line, or has it wait; if too much waits, it is lost."""
        rest = line.encode("utf8", "backslashreplace") if isinstance(line, str) else line
        with self._lock:
            if self._behind is None and not self._waiting:
                rest = self._written(rest)
            if not rest:
                return
            if self._size + len(rest) > MOST:
                self._lost += 1
            else:
                self._waiting.append(rest)
                self._size += len(rest)
            if self._behind is None:
                self._begin()

    def flush(self) -> None:
        """Does nothing: nothing is buffered while there is room."""

    def _begin(self) -> None:
        behind = threading.Thread(target=self._catch_up, name="log", daemon=True)
        try:
            behind.start()
        except RuntimeError:  # the machine has no room for another thread; the next line tries again
            return
        self._behind = behind

    def _written(self, line: bytes) -> bytes:
        """Writes as much as there is room for; returns the rest."""
        if self._is_terminal:
            return line
        while line and (self._is_file or self._room.poll(0)):
            line = self._write(line)
        return line

    def _write(self, line: bytes) -> bytes:
        """Writes a part of a line; returns the rest. What cannot be written is lost: the disk is full, or the reader
        has ended."""
        try:
            return line[os.write(self._fd, line[: self._at_once]) :]
        except BlockingIOError:  # whoever started this process made it so
            return line
        except OSError:
            return b""

    def _catch_up(self) -> None:
        room = _room(self._fd)
        while line := self._next():
            while line:
                room.poll()
                line = self._write(line)

    def _next(self) -> bytes:
        """The next line that waits; an empty one, and the thread's end, if there is none."""
        with self._lock:
            if self._waiting:
                line = self._waiting.popleft()
                self._size -= len(line)
                return line
            lost, self._lost = self._lost, 0
            if lost:
                return self._told(lost)
            self._behind = None
            return b""

    def finish(self) -> None:
        """Waits for the reader, as the process ends."""
        behind = self._behind
        if behind is not None:
            behind.join(AT_THE_END)


def _room(fd: int) -> select.poll:
    """What tells whether there is room for a write. Each thread needs one of its own."""
    found = select.poll()
    found.register(fd, select.POLLOUT)
    return found
