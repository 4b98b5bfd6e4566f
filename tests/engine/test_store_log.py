"""SQLite's write-ahead log while a program reads the store in one transaction that does not end: the log cannot be used
again, grows until the disk is full, and somebody has to be told before that."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.sqlite import LONGEST_LOG
from gateway.watch import watch
from tests.chaos_upstream import Chaos, chaos
from tests.engine.vendors import OK, page, table
from tests.harness import KEY, House, house

TOO_LONG = LONGEST_LOG + (2 << 20)
READS = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
store.execute("BEGIN")
store.execute("SELECT count(*) FROM alerts").fetchone()
print("reads", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reading(store: Path) -> Iterator[None]:
    """Another program that reads the store in one transaction: in this process, its locks would be the gateway's."""
    command = [sys.executable, "-c", READS, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forgotten:
        assert forgotten.stdout and forgotten.stdout.readline() == "reads\n"
        yield
        forgotten.communicate()


def write_until(h: House, *, is_long: bool) -> None:
    """Sends pages until the log that the metrics show is, or is no longer, too long."""
    for number in range(500):
        assert page(h, f"k{number}", details="x" * 300_000).status == 202
        [size] = re.findall(r"^alert_gateway_store_log_bytes (\S+)$", h.client.get(h.url + "/metrics").text, re.M)
        if (float(size) > TOO_LONG) is is_long:
            return
    raise AssertionError(f"the log has {size} bytes")


def alarms(upstream: Chaos) -> list[str]:
    """What the upstream was told of the log."""
    said = [got.body for got in list(upstream.got)]
    return [one["eventType"] for one in said if one["alertKey"] == "alert-gateway/store-log"]


@pytest.mark.usefixtures("_often_watched")
def test_a_log_that_cannot_be_used_again_is_told_until_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOG_TOO_LONG", TOO_LONG)
    with chaos(OK) as upstream:
        text = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{table("oncall", upstream.url, "ilert")}\n'
        with house(tmp_path, config=lambda _: f'{text}[alarms]\nto = ["oncall"]\n') as h:
            with reading(tmp_path / "gateway.db"):
                write_until(h, is_long=True)
                h.wait_for(lambda: alarms(upstream) == ["ALERT"])
            write_until(h, is_long=False)
            h.wait_for(lambda: alarms(upstream) == ["ALERT", "RESOLVE"])
