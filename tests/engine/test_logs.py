"""The log: one line of JSON for each event, whatever its values; a line that cannot be written stops nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.secrets import MASK, Keyring
from gateway.desk.crowding import Crowd
from gateway.log_writer import MOST, LogWriter
from gateway.logs import as_json, redact, stamp
from tests.chaos.processes import free_port
from tests.chaos_upstream import chaos, say
from tests.engine.vendors import NO, OK, table
from tests.harness import KEY, house
from tests.processes import HERE, Running, serving, wait_for

ROUTED = '[upstreams.oncall]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "there"\n'


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


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


@contextmanager
def _a_reader_that_hangs() -> Iterator[int]:
    """A pipe that takes one page, and from which nobody reads."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield into
    finally:
        os.close(out)
        os.close(into)


@pytest.mark.parametrize("lost", [_a_full_disk, _a_reader_that_has_ended, _a_reader_that_hangs])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, lost: Callable[[], Any]) -> None:
    with chaos(OK) as upstream, lost() as stderr:
        port, process = _served(tmp_path, upstream.url, stderr)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _is_up(url), 20)
            for number in range(12):
                event = {"apiKey": KEY, "eventType": "ALERT", "summary": "x", "alertKey": f"k{number}"}
                assert httpx.post(f"{url}/api/events", json=event).status_code == 202
            wait_for(lambda: len(upstream.got) == 12)
            assert httpx.post(f"{url}/api/events", json={"apiKey": "wrong"}).status_code >= 400
            purged = "alert_gateway_last_purge_timestamp_seconds"
            wait_for(lambda: f"{purged} 0.0" not in httpx.get(f"{url}/metrics").text)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def _told(lines: int) -> bytes:
    return f"{lines} lost\n".encode()


def test_what_a_reader_is_behind_with_waits_and_what_is_too_much_is_counted() -> None:
    """A reader that goes on gets whole lines in their order, and then how many are missing, and then the next ones."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    writer = LogWriter(into, _told)
    given = [f"{number:06} {'x' * 5000}\n" for number in range(MOST // 5000 + 20)]
    for line in given:
        writer.write(line)
    with open(out, encoding="utf8") as reader:
        got = [reader.readline() for _ in range(len(given) - 30)]
        while not got[-1].endswith("lost\n"):
            got.append(reader.readline())
        writer.write("the next\n")
        assert reader.readline() == "the next\n"
    os.close(into)
    missing = len(given) - len(got) + 1
    assert missing > 0 and got == [*given[:-missing], _told(missing).decode()]


def test_a_terminal_that_shows_nothing_more_stops_nobody() -> None:
    """It has room for a part of a line; a write of all of it would wait for the rest, and the gateway with it."""
    screen, terminal = pty.openpty()
    writer = LogWriter(terminal, _told)

    def say() -> None:
        for number in range(2000):
            writer.write(f"{number:06} {'x' * 120}\n")

    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    saying.join(5)
    try:
        assert not saying.is_alive()
    finally:
        got = b""
        while b"001999" not in got:
            got += os.read(screen, 65536)
    assert got.count(b"x\r\n") >= 1999
    os.close(screen)


ENDING = """
import os
from gateway import log_writer
writer = log_writer.LogWriter(2, str)
for number in range(100):
    writer.write(f"line {number}\\n")
log_writer.finish()
os._exit(0)
"""


def test_an_end_that_skips_everything_else_still_shows_the_last_line() -> None:
    """As that of a gateway which is ended before its store is open; on a terminal every line waits for a moment."""
    screen, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", ENDING], cwd=HERE, stderr=terminal, check=True, timeout=20)
    shown = b""
    while not shown.endswith(b"line 99\r\n"):
        assert select.select([screen], [], [], 5)[0]
        shown += os.read(screen, 65536)
    os.close(screen)
    os.close(terminal)


def test_a_machine_without_room_for_a_thread_keeps_the_order_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    writer = LogWriter(into, _told)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refused)
        writer.write("x" * 4095 + "\n")
        writer.write("second\n")
    with open(out, encoding="utf8") as reader:
        reader.readline()
        writer.write("third\n")
        assert [reader.readline(), reader.readline()] == ["second\n", "third\n"]
    os.close(into)


def _refused(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def _served(directory: Path, upstream: str, stderr: int) -> tuple[int, subprocess.Popen[bytes]]:
    """A gateway that listens on a port, and logs."""
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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_gateway_serves_whatever_was_closed_by_whoever_started_it(tmp_path: Path, closed: str) -> None:
    """The gateway runs, and ends cleanly, also when it is started with standard streams closed."""
    config, port = tmp_path / "gateway.toml", free_port()
    config.write_text(f'store = "sqlite://{tmp_path}/gateway.db"\n[inbound.ilert]\nanonymous = true\n{ROUTED}')
    serve = f"-m gateway.cli serve --config {config} --listen 127.0.0.1:{port}"
    with subprocess.Popen(["sh", "-c", f"exec {sys.executable} {serve} {closed}"], cwd=HERE) as process:
        try:
            wait_for(lambda: process.poll() is not None or _is_ready(port), 30)
        finally:
            process.terminate()
            assert process.wait(30) == 0


@pytest.mark.parametrize(
    "value", ["ü\u2028\n", "\ud800", 1 << 70, float("nan"), b"\xff", {1: {"a", "b"}}, object(), ValueError("x")]
)
def test_a_line_is_made_of_whatever_there_is(value: Any) -> None:
    line = as_json({"event": "it", "value": value}, repr)
    assert line.startswith(b'{"event": "it", "value": ') and b"\n" not in line
    assert json.loads(line)["event"] == "it"


def test_a_line_has_the_time_in_utc() -> None:
    before = datetime.now(UTC)
    told = [stamp(None, "info", {})["timestamp"] for _ in range(3)]
    assert all(text.endswith("Z") for text in told)
    times = [datetime.fromisoformat(text) for text in told]
    assert [before, *times] == sorted([before, *times])
    assert times[-1] <= datetime.now(UTC)


def test_what_is_named_like_a_credential_is_masked_in_every_line() -> None:
    for key in ("one", "other"):
        assert redact(None, "info", {"event": "it", "api_key": key, "Token": key, "path": "/"}) == {
            "event": "it",
            "api_key": MASK,
            "Token": MASK,
            "path": "/",
        }


# --- from the caller's answer to the upstream ------------------------------------------------------------------


def _lines(running: Running, request: str | int) -> list[dict[str, Any]]:
    """The log lines with the id of a request."""
    return [
        line for line in (json.loads(one) for one in list(running.lines)) if str(line.get("request")) == str(request)
    ]


def test_each_attempt_is_logged_under_the_id_that_the_caller_was_given(tmp_path: Path) -> None:
    """A held attempt is logged too, and a dead delivery is a warning."""
    config, answers = tmp_path / "gateway.toml", {"taken": OK, "held": say(401, {"message": "no"}), "dead": NO}
    with contextlib.ExitStack() as stack:
        upstreams = {name: stack.enter_context(chaos(answer)) for name, answer in answers.items()}
        tables = "".join(table(name, upstream.url, "ilert") for name, upstream in upstreams.items())
        config.write_text(_top(tmp_path) + tables + f"[[routes]]\nto = {list(upstreams)}\n")
        running = stack.enter_context(serving(config, level="info"))
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "x", "alertKey": "k"}
        request = httpx.post(f"{running.url}/api/events", json=event).headers["alert-gateway-id"]
        told = {"delivery.delivered": "info", "delivery.held": "info", "delivery.dead": "warning"}
        wait_for(lambda: told.keys() <= {line["event"] for line in _lines(running, request)})
        found = {line["event"]: line for line in _lines(running, request)}
        assert {event: found[event]["level"] for event in told} == told
        held = found["delivery.held"]
        assert (held["upstream"], held["status"], held["code"]) == ("held", 401, "key-refused")


def test_a_refusal_is_logged_with_its_reason_and_counted(tmp_path: Path) -> None:
    """This includes refusals at the edge, where no request was parsed; no line has a credential."""
    config = tmp_path / "gateway.toml"
    with chaos(OK) as upstream:
        config.write_text(_top(tmp_path) + table("oncall", upstream.url, "ilert"))
        with serving(config, level="info") as running:
            event = {"apiKey": KEY, "eventType": KEY, "summary": "x"}
            refused = httpx.post(f"{running.url}/api/events", json=event)
            long = httpx.post(f"{running.url}/api/events", json=event, headers={"x-more": "a" * 40_000})
            assert (refused.status_code, long.status_code) == (400, 431)
            for answer, kind, reason in (
                (refused, "invalid", "is none of ALERT"),
                (long, "headers_too_large", "32768"),
            ):
                request = answer.headers["alert-gateway-id"]
                (line,) = wait_for(partial(_lines, running, request))
                assert reason in line["reason"]
                assert running.metric(f'alert_gateway_requests_total{{dialect="ilert",outcome="{kind}"}}') == 1
            assert KEY not in running.log


def test_who_is_refused_because_there_are_too_many_costs_one_look_at_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal under overload looks up the caller's key only, not each word of the reason as a possible key, which at
    five times the capacity took all the time. Nor is the request translated: a fault in it is found, and its words
    looked up, once there is room."""
    looked: list[str] = []
    known = Keyring.caller

    def caller(keyring: Keyring, credential: str) -> str | None:
        looked.append(credential)
        return known(keyring, credential)

    with chaos(OK) as upstream, house(tmp_path, config=lambda _: CALLERS + table("oncall", upstream.url, "ilert")) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "x"}
        h.call("POST", "/api/events", event, key=None)
        monkeypatch.setattr(Keyring, "caller", caller)
        nonsense = {**event, "eventType": "so many words"}
        with monkeypatch.context() as crowded:
            crowded.setattr(Crowd, "is_full", True)
            assert h.call("POST", "/api/events", {**event, "apiKey": "nobody's"}, key=None).status == 401
            looked.clear()
            assert h.call("POST", "/api/events", nonsense, key=None).status == 503
        few = looked.count(KEY), len(looked)
        looked.clear()
        assert h.call("POST", "/api/events", nonsense, key=None).status == 400
        assert len(looked) > few[1]
    assert few[0] == 1 and few[1] <= 2


CALLERS = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'


def _top(directory: Path) -> str:
    return f'store = "sqlite://{directory}/gateway.db"\n{CALLERS}'
