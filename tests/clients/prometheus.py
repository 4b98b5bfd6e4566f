"""Prometheus, Alertmanager and amtool as their users run them: processes on loopback, with short intervals, each ended
by its own handle. Debian has all three; where one is not on the PATH, `missing` says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.postgres_server import free_port
from tests.processes import wait_for

ALERTMANAGER = "prometheus-alertmanager"
PROGRAMS = ("prometheus", ALERTMANAGER, "amtool")
TEMPLATES = Path("/usr/share/prometheus/alertmanager/default.tmpl")
"""Debian's Alertmanager looks for its templates here, wherever it is run from."""


def missing() -> str:
    """Which of the programs cannot be run here, as a reason to skip a test; empty where all can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"not on PATH: {', '.join(lacking)} (Debian's prometheus and prometheus-alertmanager)"
    return "" if TEMPLATES.exists() else f"Debian's Alertmanager does not start without {TEMPLATES}"


class Program:
    """A running server, its address, and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process, self.url, self._log = process, url, log

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text("utf8", "replace")

    def get(self, path: str, **query: Any) -> Any:
        """The decoded answer of its API."""
        answer = httpx.get(self.url + path, params=query, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def reload(self) -> None:
        """Makes it read its files again."""
        self.process.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def running(directory: Path, name: str, *arguments: str, port: int) -> Iterator[Program]:
    """One of the programs, once it is ready; ended afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"{name}.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [name, *arguments], stdout=written, stderr=written, stdin=subprocess.DEVNULL, cwd=directory
        )
    program = Program(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_for(lambda: _is_ready(program), 30, lambda: program.log)
        yield program
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(program: Program) -> bool:
    assert program.process.poll() is None, program.log
    try:
        return httpx.get(program.url + "/-/ready", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def alertmanager(directory: Path, config: str) -> Iterator[Program]:
    """Alertmanager alone, without a cluster."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "alertmanager.yml").write_text(config, "utf8")
    port = free_port()
    arguments = (
        "--config.file=alertmanager.yml",
        "--storage.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    with running(directory, ALERTMANAGER, *arguments, port=port) as program:
        yield program


@contextlib.contextmanager
def prometheus(directory: Path, config: str, files: Mapping[str, str]) -> Iterator[Program]:
    """Prometheus with a configuration and the files that it names beside it; repeats are sent every second."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {"prometheus.yml": config, **files}.items():
        (directory / name).write_text(text, "utf8")
    port = free_port()
    arguments = (
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=1s",
        "--rules.alert.for-grace-period=0s",
    )
    with running(directory, "prometheus", *arguments, port=port) as program:
        yield program


def amtool(url: str, *arguments: str, code: int = 0) -> str:
    """Runs amtool against an address to its end; returns what it printed."""
    done = subprocess.run(
        ["amtool", f"--alertmanager.url={url}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "HOME": "/nonexistent", "NO_PROXY": "127.0.0.1"},
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr
