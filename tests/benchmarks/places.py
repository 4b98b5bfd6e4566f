"""The servers that are measured: each on the first core, stopped while another is measured; the load is on the second.

A gateway is started as operators start it. A yardstick that is not installed is replaced by one of our own and named as
such; nothing is downloaded. Every process is ended by its own id.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.load import CALLER_KEY
from tests.chaos.processes import UPSTREAM_KEY, Process, free_port
from tests.chaos.sink import ROOT

NOWHERE = "http://127.0.0.1:9"
"""An upstream that is down: nothing listens there."""
PATIENCE = 30.0
SETTLE = 0.2


def _cores() -> tuple[set[int], set[int]]:
    """Returns the core for the measured server, and the cores for everything else: the same if there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


MEASURED, OTHERS = _cores()


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Restricts processes started in this block to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Place:
    """A running server: its address, its process id, and its name in the table."""

    url: str
    pid: int
    name: str

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Lets it run in this block and stops it afterwards, so that it takes no time from the others. Requests under
        way at the end are given time to finish: the time that it is stopped would count as theirs."""
        os.kill(self.pid, signal.SIGCONT)
        try:
            yield
            time.sleep(SETTLE)
        finally:
            os.kill(self.pid, signal.SIGSTOP)

    def used(self) -> float:
        """Returns the processor seconds that it has used so far."""
        return used(self.pid)


def used(pid: int) -> float:
    """Returns the processor seconds that a process has used so far, with those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def used_with_children(pid: int) -> float:
    """Returns the same, with those of its running children as well."""
    total = 0.0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has just ended, and its time counts as its parent's
            total += used(int(child))
    return total + used(pid)


@contextlib.contextmanager
def started(command: list[str], port: int, name: str, cores: set[int], room: Path) -> Iterator[Place]:
    """Runs a program that listens on a port; killed at the end."""
    with on(cores), (room / f"{name.split()[0].strip('()')}.log").open("ab") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        _wait_for(port, running, name)
        yield Place(f"http://127.0.0.1:{port}", running.pid, name)
    finally:
        running.kill()
        running.wait()


def _wait_for(port: int, running: subprocess.Popen[bytes], name: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"{name} does not listen on port {port}")


@contextlib.contextmanager
def yardstick(kind: str, name: str, room: Path, *, cores: set[int] = MEASURED, to: str = "") -> Iterator[Place]:
    """Runs a yardstick of our own, by its kind in `yardsticks`."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.yardsticks", kind, "--port", str(port), "--to", to]
    with started(command, port, name, cores, room) as place:
        yield place


def configured(
    room: Path,
    upstreams: list[str],
    *,
    inbound: str = "ilert",
    top: str = "",
    more: str = "",
    store: str = "",
    each: str = "",
) -> Path:
    """Writes the configuration of a gateway that sends every alert to all these upstreams, and returns its path; `each`
    are further settings of every upstream. The caller has the name that `tests.chaos.backlog` uses, which fills the
    store."""
    path = room / "gateway.toml"
    tables = [
        f'[upstreams.u{number}]\ndialect = "ilert"\nurl = "{url}"\nkey = "{UPSTREAM_KEY}"\n{each}'
        for number, url in enumerate(upstreams, 1)
    ]
    to = ", ".join(f'"u{number}"' for number in range(1, len(upstreams) + 1))
    route = f"[[routes]]\nto = [{to}]\n"
    key = f'[inbound.{inbound}]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n'
    path.write_text("\n".join([f'store = "{store or f"sqlite://{room}/gateway.db"}"', top, key + more, *tables, route]))
    return path


@contextlib.contextmanager
def gateway(config: Path, *, cores: set[int] = MEASURED, log_level: str = "error") -> Iterator[tuple[Process, Place]]:
    """Runs a gateway and waits until it is ready; killed at the end. By default it logs as little as the yardsticks."""
    with on(cores):
        process = Process(config, free_port(), log_level=log_level)
    try:
        _wait_until_ready(process)
        yield process, Place(process.url, process.pid, "the gateway")
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()


def _wait_until_ready(process: Process) -> None:
    import asyncio

    asyncio.run(process.ready())


NGINX = """daemon off; master_process off; pid {room}/nginx.pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {room}/nginx-body; proxy_temp_path {room}/nginx-proxy;
    fastcgi_temp_path {room}/nginx-1; uwsgi_temp_path {room}/nginx-2; scgi_temp_path {room}/nginx-3;
    upstream there {{ server {to}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port}; keepalive_requests 100000000; default_type application/json;
        location / {{ {what} }}
    }}
}}
"""
PASSES = 'proxy_pass http://there; proxy_http_version 1.1; proxy_set_header Connection "";'
TAKES = "return 202 '{}';"


@contextlib.contextmanager
def _nginx(room: Path, name: str, what: str, cores: set[int], to: str = "127.0.0.1:9") -> Iterator[Place]:
    port = free_port()
    config = room / f"{name.replace(' ', '-')}.conf"
    config.write_text(NGINX.format(room=room, port=port, what=what, to=to))
    with started(["nginx", "-c", str(config)], port, name, cores, room) as place:
        yield place


@contextlib.contextmanager
def taker(room: Path) -> Iterator[Place]:
    """Runs an upstream that accepts everything at once, on the other cores: nginx, or our own without that."""
    named = _nginx(room, "nginx static", TAKES, OTHERS) if has("nginx") else _own_taker(room)
    with named as place:
        yield place


def _own_taker(room: Path) -> contextlib.AbstractContextManager[Place]:
    return yardstick("taking", "a server of our own", room, cores=OTHERS)


@contextlib.contextmanager
def passer(room: Path, to: Place) -> Iterator[Place]:
    """Runs a plain reverse proxy: nginx, or aiohttp if it is not installed."""
    name = "nginx as a proxy"
    if has("nginx"):
        found = _nginx(room, name, PASSES, MEASURED, to.url.removeprefix("http://"))
    else:
        found = yardstick("passing", "aiohttp as a proxy", room, to=to.url)
    with found as place:
        yield place


ALERTMANAGER = "prometheus-alertmanager"
RECEIVERS = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"


@contextlib.contextmanager
def alertmanager(room: Path) -> Iterator[Place]:
    """Runs Debian's Alertmanager, without a cluster, notifying nobody."""
    config, port = room / "alertmanager.yml", free_port()
    config.write_text(RECEIVERS)
    options = [f"--config.file={config}", f"--storage.path={room}/alertmanager", "--cluster.listen-address="]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with started([ALERTMANAGER, *options, listen], port, "Alertmanager", MEASURED, room) as place:
        yield place


@functools.cache
def has(program: str) -> bool:
    """Returns whether a program is installed."""
    return shutil.which(program) is not None


def versions() -> dict[str, str]:
    """Returns the versions of programs outside Python, or that they are not installed."""
    asked = {"wrk": ["--version"], "nginx": ["-v"], ALERTMANAGER: ["--version"]}
    return {name: _version([name, *how]) if has(name) else "not installed" for name, how in asked.items()}


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    words = (done.stdout + done.stderr).replace("/", " ").split()
    return next((word for word in words if any(letter.isdigit() for letter in word)), "?")
