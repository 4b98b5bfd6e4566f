"""What serving imports and what it does without: memory is not spent on modules that are not needed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVE = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
from gateway.cli.commands import main
main()
"""
LATER = """
from gateway.process.lean import spare
spare()
import structlog
from rich.console import Console
Console().print("[b]in colours")
"""


def _python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout


def _imported(room: Path) -> set[str]:
    """The modules that serving imports until it listens; its port is taken, so that it ends there."""
    config = room / "gateway.toml"
    config.write_text(
        f'store = "sqlite://{room}/gateway.db"\n[inbound.ilert]\nkeys = {{ ci = "a" }}\n'
        '[upstreams.oncall]\ndialect = "uptinio"\nurl = "http://127.0.0.1:1"\nkey = "k"\n'
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        return set(json.loads(_python(SERVE, "serve", "--config", str(config), "--listen", listen)))


def test_serving_does_without_what_colours_terminals_and_what_only_commands_use(tmp_path: Path) -> None:
    imported = _imported(tmp_path)
    assert {"gateway.process.service", "structlog"} <= imported
    unneeded = (
        "rich",
        "pygments",
        "httpx",
        "aiohttp",
        "psycopg",
        "jsonschema",
        "hypothesis",
        "opentelemetry",
        "google",
    )
    assert not [name for name in imported if name.partition(".")[0] in unneeded]
    assert "gateway.telemetry" not in imported


def test_serving_imports_only_the_dialects_that_its_configuration_names(tmp_path: Path) -> None:
    parts = {name.split(".")[1] for name in _imported(tmp_path) if name.startswith("mappings.")}
    assert parts == {"ilert", "uptinio"}


def test_who_wants_colours_later_can_have_them() -> None:
    assert _python(LATER) == "in colours\n"
