"""A gateway as its users run it: `serve` in a process of its own, told things by signals, and its log line by line.

What it logs is kept whole, so that a test can say what is in it and what must never be.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parents[1]


@dataclass
class Running:
    """The process, where it serves, and the lines of its log."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        """Everything that was logged so far."""
        return "".join(list(self.lines))

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name."""
        found = (json.loads(line) for line in list(self.lines) if line.startswith("{"))
        return [event for event in found if event["event"] == name]

    def waits_for(self, name: str, count: int = 1, seconds: float = 20.0) -> list[dict[str, Any]]:
        """Waits until so many lines were logged under a name."""
        return list(wait_for(lambda: len(found := self.events(name)) >= count and found, seconds, lambda: self.log))

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def metric(self, sample: str) -> float:
        """The value of one sample of `/metrics`, labels included in its name; 0 where it is not there."""
        text = httpx.get(self.url + "/metrics", timeout=5).text
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " ")), 0)


def at_a_terminal(*words: str, columns: int = 80) -> tuple[int, str]:
    """A command as somebody runs it at a terminal of this width: its status, and what stands there then."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    line = [sys.executable, "-m", "gateway.cli", *words]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), "TERM": "dumb"}
    process = subprocess.Popen(line, cwd=HERE, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = bytearray()
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes there any more
        while part := os.read(ours, 65_536):
            shown += part
    os.close(ours)
    return process.wait(60), shown.decode("utf8", "replace")


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, said: Callable[[], str] = str) -> Any:
    """Waits until something is so, and gives it; fails when it does not come to be, with what is `said` of it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"did not come to be within {seconds} s\n{said()}")


@contextlib.contextmanager
def serving(config: Path, *, env: Mapping[str, str] | None = None, level: str = "debug") -> Iterator[Running]:
    """`serve` on a free port; killed at the end, whatever it was doing."""
    arguments = ["serve", "--config", str(config), "--listen", "127.0.0.1:0", "--log-level", level]
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env={**os.environ, **(env or {})},
    ) as process:
        running = Running(process)
        reader = threading.Thread(target=_read, args=(running,), daemon=True)
        reader.start()
        try:
            running.url = running.waits_for("serving")[0]["url"]
            yield running
        finally:
            process.kill()
            process.wait()
            reader.join(10)


def _read(running: Running) -> None:
    assert running.process.stderr
    for line in running.process.stderr:
        running.lines.append(line)
