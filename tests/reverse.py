"""A real nginx on a free loopback port, as users put it in front of a gateway or an upstream."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import wait_for

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")
AROUND = """daemon off; master_process off; pid {room}/nginx.pid; error_log stderr warn;
events {{ worker_connections 128; }}
http {{
    access_log off; client_body_temp_path {room}/0; proxy_temp_path {room}/1;
    fastcgi_temp_path {room}/2; uwsgi_temp_path {room}/3; scgi_temp_path {room}/4;
    {more}
    server {{ listen 127.0.0.1:{port} {options}; {server} }}
}}
"""


def free_port() -> int:
    """Returns a free port on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def nginx(room: Path, server: str, more: str = "", options: str = "") -> Iterator[str]:
    """Runs nginx with the given content of its `server` block, `more` beside that block, and `options` of its `listen`;
    yields its address."""
    assert NGINX
    port = free_port()
    room.mkdir(exist_ok=True)
    config = room / "nginx.conf"
    config.write_text(AROUND.format(room=room, port=port, server=server, more=more, options=options))
    with (room / "nginx.log").open("wb") as log:
        process = subprocess.Popen([NGINX, "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(process, port), said=lambda: (room / "nginx.log").read_text())
        yield f"{'https' if 'ssl' in options else 'http'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "nginx did not start"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
