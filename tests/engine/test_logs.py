"""The log: a line of JSON for each event, whatever is in it; and one that cannot be written stops nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.logs import as_json
from tests.chaos.processes import free_port
from tests.chaos_upstream import chaos
from tests.engine.vendors import OK, table
from tests.harness import KEY
from tests.processes import HERE, wait_for


@contextmanager
def _a_full_disk() -> Iterator[int]:
    with Path("/dev/full").open("wb") as full:
        yield full.fileno()


@contextmanager
def _a_reader_that_has_ended() -> Iterator[int]:
    out, into = os.pipe()
    os.close(out)
    try:
        yield into
    finally:
        os.close(into)


@pytest.mark.parametrize("lost", [_a_full_disk, _a_reader_that_has_ended])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, lost: Callable[[], Any]) -> None:
    with chaos(OK) as upstream, lost() as stderr:
        port, process = _served(tmp_path, upstream.url, stderr)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _is_up(url), 20)
            for number in range(3):
                event = {"apiKey": KEY, "eventType": "ALERT", "summary": "x", "alertKey": f"k{number}"}
                assert httpx.post(f"{url}/api/events", json=event).status_code == 202
            wait_for(lambda: len(upstream.got) == 3)
            assert httpx.post(f"{url}/api/events", json={"apiKey": "wrong"}).status_code >= 400
            purged = "alert_gateway_last_purge_timestamp_seconds"
            wait_for(lambda: f"{purged} 0.0" not in httpx.get(f"{url}/metrics").text)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, 120), "Python says 120 where it could not write everything to standard error"
        finally:
            process.kill()
            process.wait()


def _served(directory: Path, upstream: str, stderr: int) -> tuple[int, subprocess.Popen[bytes]]:
    """A gateway that is about to serve on a port, and logs there."""
    config = directory / "gateway.toml"
    caller = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
    config.write_text(f'store = "sqlite://{directory}/gateway.db"\n{caller}{table("oncall", upstream, "ilert")}')
    port = free_port()
    arguments = ["serve", "--config", str(config), "--listen", f"127.0.0.1:{port}", "--log-level", "debug"]
    return port, subprocess.Popen([sys.executable, "-m", "gateway.cli", *arguments], stderr=stderr, cwd=HERE)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    "value", ["ü\u2028\n", "\ud800", 1 << 70, float("nan"), b"\xff", {1: {"a", "b"}}, object(), ValueError("x")]
)
def test_a_line_is_made_of_whatever_there_is(value: Any) -> None:
    line = as_json({"event": "it", "value": value}, repr)
    assert line.startswith(b'{"event": "it", "value": ') and b"\n" not in line
    assert json.loads(line)["event"] == "it"
