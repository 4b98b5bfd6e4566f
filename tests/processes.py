"""A gateway as its users run it: `serve` in a process of its own, controlled by signals, with its log line by line.

The whole log is kept, so that a test can say what is in it and what must never be.
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
    """A gateway's process, its address, and the lines of its log."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        """Everything that was logged so far."""
        return "".join(list(self.lines))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Returns the events logged under a name."""
        found = (json.loads(line) for line in list(self.lines) if line.startswith("{"))
        return [event for event in found if event["event"] == name]

    def waits_for(self, name: str, count: int = 1, seconds: float = 20.0) -> list[dict[str, Any]]:
        """Waits until `count` events have been logged under a name, and returns them."""
        return list(wait_for(lambda: len(found := self.events(name)) >= count and found, seconds, lambda: self.log))

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def metric(self, sample: str) -> float:
        """Returns the value of one sample of `/metrics`, named with its labels; 0 if there is none."""
        text = httpx.get(self.url + "/metrics", timeout=5).text
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " ")), 0)


def at_a_terminal(*words: str, columns: int = 80) -> tuple[int, str]:
    """Runs a command at a terminal of this width; returns its exit status and what it printed."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    line = [sys.executable, "-m", "gateway.cli", *words]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), "TERM": "dumb"}
    process = subprocess.Popen(line, cwd=HERE, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = bytearray()
    with contextlib.suppress(OSError):  # a terminal's end of file
        while part := os.read(ours, 65_536):
            shown += part
    os.close(ours)
    return process.wait(60), shown.decode("utf8", "replace")


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, said: Callable[[], str] = str) -> Any:
    """Waits until a condition gives something true, and returns that; fails after `seconds`, quoting `said`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"did not come to be within {seconds} s\n{said()}")


@contextlib.contextmanager
def serving(
    config: Path,
    *,
    env: Mapping[str, str] | None = None,
    level: str = "debug",
    program: tuple[str, ...] = ("-m", "gateway.cli", "serve"),
) -> Iterator[Running]:
    """Runs `serve` on a free port; killed at the end, whatever it is doing. `program` is what takes its arguments."""
    arguments = ["--config", str(config), "--listen", "127.0.0.1:0", "--log-level", level]
    with subprocess.Popen(
        [sys.executable, *program, *arguments],
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
