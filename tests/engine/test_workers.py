"""`serve --workers N` over PostgreSQL: several processes behind one address, with one store and one set of metrics."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.process.workers import SUPERVISOR
from tests.chaos.load import CALLER_KEY as KEY
from tests.chaos.processes import free_port
from tests.chaos_upstream import Chaos, chaos, say
from tests.collector import CLIENT, SERVER, collecting
from tests.postgres_server import shared
from tests.processes import wait_for

ROOT = Path(__file__).parents[2]


def configured(directory: Path, store: str, upstream: str, port: int, more: str = "") -> Path:
    """The configuration of a gateway over a store, in front of one upstream."""
    path = directory / "gateway.toml"
    path.write_text(
        f'listen = "127.0.0.1:{port}"\nstore = "{store}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream}"\nkey = "there"\n{more}'
    )
    return path


@contextmanager
def serving(config: Path, *arguments: str, under: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway's process, terminated at the end; `under` is a program that starts it."""
    log = (config.parent / "log").open("ab")
    command = [*under, sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), *arguments]
    with log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            if under:  # that program does not pass signals on
                [started] = workers_of(process)
                os.kill(started, signal.SIGTERM)
            else:
                process.terminate()
            process.wait(40)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The child processes of a process."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(one) for one in found]


def ready(url: str, within: float = 30.0) -> None:
    """Waits until a worker answers that it is ready."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if httpx.get(url + "/-/ready", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError("nobody became ready")


def send(url: str, numbers: range) -> None:
    """Sends alerts, each over a connection of its own so that every worker gets some, and requires that each is
    accepted."""
    for number in numbers:
        body = {"apiKey": KEY, "eventType": "ALERT", "alertKey": f"key-{number}", "summary": f"page {number}"}
        answer = httpx.post(url + "/ilert/api/events", json=body, timeout=10)
        assert answer.status_code == 202, answer.text


def arrived(upstream: Chaos, count: int, within: float = 20.0) -> None:
    """Waits until `count` alerts arrived."""
    end = time.monotonic() + within
    while time.monotonic() < end and len(upstream.got) < count:
        time.sleep(0.05)
    keys = {got.body["alertKey"] for got in upstream.got}
    assert len(keys) == count


def command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command beside the gateway that serves."""
    line = [sys.executable, "-m", "gateway.cli", arguments[0], "--config", str(config), *arguments[1:]]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_several_workers_serve_from_one_store_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with chaos(say(202, {})) as upstream:
        config = configured(tmp_path, shared().database(), upstream.url, port)
        with serving(config, "--workers", "2") as process:
            ready(url)
            send(url, range(40))
            arrived(upstream, 40)
            before = workers_of(process)
            assert len(before) == 2
            os.kill(before[0], signal.SIGKILL)
            end = time.monotonic() + 20
            while time.monotonic() < end and (len(workers_of(process)) < 2 or before[0] in workers_of(process)):
                time.sleep(0.05)
            assert len(workers_of(process)) == 2
            ready(url)
            send(url, range(40, 60))
            arrived(upstream, 60)
            text = httpx.get(url + "/metrics").text
            [counted] = re.findall(r'alert_gateway_requests_total\{dialect="ilert",outcome="ok"\} ([\d.]+)', text)
            assert float(counted) == 60, "one worker's metrics speak for all"
            told = command(config, "report", "--json")
            assert told.returncode == 0, told.stderr
            [line] = json.loads(told.stdout)["ledger"]
            assert (line["received"], line["delivered"], line["adds_up"]) == (60, 60, True)
            logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
            assert [(one["worker"], one["status"]) for one in logged if one["event"] == "worker.died"] == [(1, -9)]
        assert process.returncode == 0


def test_a_trace_goes_on_whichever_worker_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with collecting() as collector, chaos(say(202, {})) as upstream:
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        config = configured(tmp_path, shared().database(), upstream.url, port)
        with serving(config, "--workers", "2"):
            ready(url)
            send(url, range(12))
            servers, clients = collector.waits_for(SERVER, 12), collector.waits_for(CLIENT, 12)
    assert {(one.trace, one.parent) for one in clients} == {(one.trace, one.id) for one in servers}
    assert len({one.trace for one in servers}) == 12


def test_a_worker_that_hangs_is_replaced_and_one_that_drains_is_not(tmp_path: Path) -> None:
    """Requests sent to a hung worker would wait for ever, and nobody would notice."""
    port = free_port()
    config, log = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port), tmp_path / "log"
    boot = "from gateway.cli import commands; from gateway.process import workers as w; w.LOOK, w.MISSED = 0.5, 4; "
    boot += "commands.main()"
    line = [sys.executable, "-c", boot, "serve", "--config", str(config), "--workers", "2"]
    with log.open("ab") as err, subprocess.Popen(line, cwd=ROOT, stderr=err) as process:
        try:
            wait_for(lambda: log.read_text().count('"event": "serving"') == 2, 30, log.read_text)
            time.sleep(3)
            hung, other = workers_of(process)
            os.kill(hung, signal.SIGSTOP)
            wait_for(lambda: log.read_text().count('"event": "serving"') == 3, 30, log.read_text)
            assert log.read_text().count('"event": "worker.hangs"') == 1
            assert other in workers_of(process) and hung not in workers_of(process)
        finally:
            process.terminate()
            assert process.wait(40) == 0, log.read_text()
    assert log.read_text().count('"event": "stopped"') == 2, "they drained, which takes longer"


def test_a_worker_that_is_killed_while_it_drains_is_no_good_end(tmp_path: Path) -> None:
    """The exit status of `serve` is 1: what was under way in that worker was cut off."""
    port = free_port()
    with serving(configured(tmp_path, shared().database(), "http://127.0.0.1:9", port), "--workers", "2") as process:
        ready(f"http://127.0.0.1:{port}")
        wait_for(lambda: (tmp_path / "log").read_text().count('"event": "serving"') == 2, 30)
        killed, _ = workers_of(process)
        process.terminate()
        wait_for(lambda: '"event": "draining"' in (tmp_path / "log").read_text(), 10, (tmp_path / "log").read_text)
        os.kill(killed, signal.SIGKILL)
        assert process.wait(40) == 1, (tmp_path / "log").read_text()


def test_an_upstream_that_one_worker_holds_is_told_by_whichever_is_asked(tmp_path: Path) -> None:
    """Otherwise a rule that requires the state for a minute would never fire. One worker is stopped while the other is
    asked."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with chaos(say(401, {"message": "no"})) as upstream:
        config = configured(tmp_path, shared().database(), upstream.url, port)
        with serving(config, "--workers", "2") as process:
            ready(url)
            send(url, range(1))
            arrived(upstream, 1)
            time.sleep(2.5)  # both have looked since
            for worker in workers_of(process):
                os.kill(worker, signal.SIGSTOP)
                try:
                    text = httpx.get(url + "/metrics", timeout=10).text
                finally:
                    os.kill(worker, signal.SIGCONT)
                assert 'alert_gateway_upstream_held{upstream="oncall"} 1.0' in text


@contextmanager
def standing_still(worker: int) -> Iterator[None]:
    """Stops a worker for a while, so that another one is asked."""
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_an_upstream_that_one_worker_finds_well_is_not_held_by_the_others(tmp_path: Path) -> None:
    """Workers with nothing left to send there do not probe: they must learn it, or alarm and metric would stay for
    good."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    key = tmp_path / "key"
    key.write_text("old")
    with chaos(say(401, {"message": "no"})) as upstream:
        config = configured(tmp_path, shared().database(), upstream.url, port)
        config.write_text(config.read_text().replace('key = "there"', f'key = "file:{key}"'))
        with serving(config, "--workers", "2") as process:
            wait_for(lambda: (tmp_path / "log").read_text().count('"event": "serving"') == 2)
            one, other = workers_of(process)
            for number, still in enumerate((one, other)):
                with standing_still(still):
                    send(url, range(number, number + 1))
                    wait_for(lambda: httpx.get(url + "/-/ready", timeout=10).json()["held"])
            with standing_still(one):
                upstream.answer = lambda got: say(202, {})
                key.write_text("new")
                wait_for(lambda: not httpx.get(url + "/-/ready", timeout=10).json()["held"], 30)
                wait_for(
                    lambda: command(config, "deliveries", "--state", "waiting", "--json").stdout.strip() == "[]", 30
                )
            with standing_still(other):
                wait_for(lambda: not httpx.get(url + "/-/ready", timeout=10).json()["held"], 15)
        assert "another replica succeeded" in (tmp_path / "log").read_text()


def test_several_workers_on_sqlite_are_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, f"sqlite://{tmp_path}/gateway.db", "http://127.0.0.1:9", free_port())
    done = command(config, "serve", "--workers", "2")
    assert done.returncode == 2
    assert "need a PostgreSQL store" in done.stderr


def test_a_supervisor_that_is_killed_leaves_no_workers(tmp_path: Path) -> None:
    port = free_port()
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    with serving(config, "--workers", "2") as process:
        ready(f"http://127.0.0.1:{port}")
        workers = workers_of(process)
        process.kill()
        end = time.monotonic() + 20
        while time.monotonic() < end and any(Path(f"/proc/{one}").exists() for one in workers):
            time.sleep(0.1)
        assert not any(Path(f"/proc/{one}").exists() for one in workers)


def test_a_worker_that_starts_after_its_supervisor_died_ends_too(tmp_path: Path) -> None:
    """The pid given as its supervisor's is not that of its parent, so it ends at once."""
    config = configured(tmp_path, f"sqlite://{tmp_path}/gateway.db", "http://127.0.0.1:9", free_port())
    with socket.socket() as listener, subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        fd = listener.fileno()
        command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--fd", str(fd)]
        env = {**os.environ, SUPERVISOR: str(gone.pid)}
        done = subprocess.run(command, cwd=ROOT, env=env, pass_fds=[fd], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and b"supervisor.gone" in done.stderr


@pytest.mark.parametrize(
    "store", ["postgresql://nobody@127.0.0.1:9/none", "postgresql://u:hunter2-secret@127.0.0.1:9/x"]
)
def test_a_database_that_is_not_there_is_said_without_its_password(tmp_path: Path, store: str) -> None:
    config = configured(tmp_path, store, "http://127.0.0.1:9", free_port())
    done = command(config, "serve")
    assert done.returncode == 1
    assert "store.unusable" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_reload_asked_for_while_workers_start_is_made_up_for(tmp_path: Path) -> None:
    port = free_port()
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    with serving(config, "--workers", "2") as process:
        end = time.monotonic() + 30
        while time.monotonic() < end and len(workers_of(process)) < 2:
            time.sleep(0.005)
        before = workers_of(process)
        process.send_signal(signal.SIGHUP)
        ready(f"http://127.0.0.1:{port}")
        log = config.parent / "log"
        while time.monotonic() < end and log.read_text().count('"event": "config.reloaded"') < 2:
            time.sleep(0.05)
        assert workers_of(process) == before, log.read_text()
        assert log.read_text().count('"event": "config.reloaded"') == 2


ALONE = ("unshare", "--pid", "--fork", "--kill-child")
"""Starts a program as process 1 of a namespace, as a container does."""


def can_be_alone() -> bool:
    """Whether a namespace can be made here."""
    return bool(shutil.which("unshare")) and not subprocess.run([*ALONE, "true"], check=False).returncode


@pytest.mark.skipif(not can_be_alone(), reason="no namespace can be made here")
def test_a_reload_by_post_reaches_every_worker_also_in_a_container(tmp_path: Path) -> None:
    """In a container the supervisor is process 1, which elsewhere means that a worker's supervisor is gone."""
    port = free_port()
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    with serving(config, "--workers", "2", under=ALONE):
        ready(f"http://127.0.0.1:{port}")
        log = config.parent / "log"
        wait_for(lambda: log.read_text().count('"event": "serving"') == 2)
        assert httpx.post(f"http://127.0.0.1:{port}/-/reload", json={}, timeout=10).json() == {"reloaded": True}
        wait_for(lambda: log.read_text().count('"event": "config.reloaded"') == 3, said=log.read_text)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        assert 'config_reloads_total{outcome="good"} 1.0' in text


def test_a_reload_counts_once_however_many_workers_hear_of_it(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config, log = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port), tmp_path / "log"

    def counted(outcome: str, times: int, event: str, lines: int) -> None:
        wait_for(lambda: log.read_text().count(f'"event": "{event}"') == lines, 30, log.read_text)
        text = httpx.get(url + "/metrics", timeout=10).text
        assert f'config_reloads_total{{outcome="{outcome}"}} {times}.0' in text

    with serving(config, "--workers", "2") as process:
        wait_for(lambda: log.read_text().count('"event": "serving"') == 2, 30, log.read_text)
        process.send_signal(signal.SIGHUP)
        counted("good", 1, "config.reloaded", 2)
        for number in (1, 2, 3):  # whichever of them is asked
            assert httpx.post(url + "/-/reload", json={}, timeout=10).status_code == 200
            counted("good", 1 + number, "config.reloaded", 2 + 3 * number)
        config.write_text("x =")
        process.send_signal(signal.SIGHUP)
        counted("bad", 1, "config.refused", 2)
        for number in (1, 2, 3):
            assert httpx.post(url + "/-/reload", json={}, timeout=10).status_code == 422
            counted("bad", 1 + number, "config.refused", 2 + number)


def died_and_came_back(process: subprocess.Popen[bytes], log: Path) -> None:
    """Kills one of two workers and waits until another serves in its place."""
    wait_for(lambda: log.read_text().count('"event": "serving"') == 2, said=log.read_text)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    wait_for(lambda: log.read_text().count('"event": "serving"') == 3, 30, log.read_text)


def metrics_of(process: subprocess.Popen[bytes]) -> Path:
    """The directory of the workers' metrics."""
    environment = Path(f"/proc/{workers_of(process)[0]}/environ").read_text()
    [found] = re.findall(r"PROMETHEUS_MULTIPROC_DIR=([^\0]+)", environment)
    return Path(found)


def test_a_worker_comes_back_also_after_the_directory_of_its_metrics_was_cleaned_away(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    with serving(config, "--workers", "2") as process:
        wait_for(lambda: (tmp_path / "log").read_text().count('"event": "serving"') == 2)
        metrics = metrics_of(process)
        with subprocess.Popen(["flock", "--exclusive", "--nonblock", metrics, "true"]) as cleaner:
            assert cleaner.wait(10) != 0, "systemd-tmpfiles would clean it up"
        shutil.rmtree(metrics)
        died_and_came_back(process, tmp_path / "log")
        assert httpx.get(url + "/metrics", timeout=10).status_code == 200
    assert process.returncode == 0, (tmp_path / "log").read_text()


def test_a_worker_counts_on_where_the_one_that_it_replaces_did(tmp_path: Path) -> None:
    """A worker that keeps dying must not leave files each time, all of which are read for the sums."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with chaos(say(202, {})) as upstream:
        config = configured(tmp_path, shared().database(), upstream.url, port)
        with serving(config, "--workers", "2") as process:
            ready(url)
            send(url, range(20))
            arrived(upstream, 20)
            metrics = metrics_of(process)
            died_and_came_back(process, tmp_path / "log")
            kinds = [one.name.rpartition("_") for one in metrics.iterdir()]
            assert {number for _, _, number in kinds} == {"1.db", "2.db"}
            text = httpx.get(url + "/metrics").text
            [counted] = re.findall(r'alert_gateway_requests_total\{dialect="ilert",outcome="ok"\} ([\d.]+)', text)
            assert float(counted) == 20
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {one["worker"] for one in logged} == {1, 2}, "the log says who speaks"


SMALL = 'mount -t tmpfs -o size=2m none "$TMPDIR" && exec "$@"'
"""Starts a program that has a small disk of its own for temporary files."""


@pytest.mark.skipif(not can_be_alone() or not Path("/dev/shm").is_dir(), reason="no namespace can be made here")
def test_a_worker_is_replaced_though_the_disk_of_temporary_files_is_full(tmp_path: Path) -> None:
    """Writing to a mapped file on a full disk kills the writer: each new worker would die at once."""
    port, place = free_port(), tmp_path / "small"
    place.mkdir()
    config, log = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port), tmp_path / "log"
    line = ["unshare", "--mount", "sh", "-c", SMALL, "sh", sys.executable, "-m", "gateway.cli", "serve"]
    env = {**os.environ, "TMPDIR": str(place)}
    with (
        log.open("ab") as err,
        subprocess.Popen([*line, "--config", str(config), "--workers", "2"], cwd=ROOT, env=env, stderr=err) as process,
    ):
        try:
            wait_for(lambda: log.read_text().count('"event": "serving"') == 2, 30, log.read_text)
            with pytest.raises(OSError, match="No space left"):
                Path(f"/proc/{process.pid}/root{place}/all").write_bytes(bytes(4 << 20))
            died_and_came_back(process, log)
            send(f"http://127.0.0.1:{port}", range(4))
        finally:
            process.terminate()
            process.wait(40)
    assert log.read_text().count('"event": "worker.died"') == 1


def test_what_a_supervisor_that_was_killed_has_left_is_removed(tmp_path: Path) -> None:
    """Metrics files are in memory (`/dev/shm`), where they would stay until a reboot."""
    port, old = free_port(), time.time() - 3600
    config, log = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port), tmp_path / "log"
    left, held, fresh = (tmp_path / f"alert-gateway-{name}" for name in ("left", "held", "fresh"))
    for one in (left, held, fresh):
        one.mkdir()
        (one / "counter_1.db").write_bytes(b"")
    for one in (left, held):
        os.utime(one, (old, old))
    boot = f"from gateway.cli import commands; from gateway.process import workers as w; w.MEMORY = {str(tmp_path)!r}; "
    boot += "commands.main()"
    line = [sys.executable, "-c", boot, "serve", "--config", str(config), "--workers", "2"]
    fd = os.open(held, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    with log.open("ab") as err, subprocess.Popen(line, cwd=ROOT, stderr=err) as process:
        try:
            wait_for(lambda: log.read_text().count('"event": "serving"') == 2, 30, log.read_text)
            assert metrics_of(process).parent == tmp_path
            assert not left.exists() and held.exists() and fresh.exists()
        finally:
            process.terminate()
            assert process.wait(40) == 0
            os.close(fd)


def test_a_worker_that_is_replaced_serves_from_no_other_store_than_the_others(tmp_path: Path) -> None:
    """A new worker reads the configuration file, whose changed `store` a reload has refused: it must not serve from
    there, where a resolve would not find the alerts that the others took."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    first, other = shared().database(), shared().database()
    config, log = configured(tmp_path, first, "http://127.0.0.1:9", port), tmp_path / "log"
    with serving(config, "--workers", "2") as process:
        wait_for(lambda: log.read_text().count('"event": "serving"') == 2, 30, log.read_text)
        text = config.read_text()
        config.write_text(text.replace(first, other))
        assert httpx.post(url + "/-/reload", json={}, timeout=10).status_code == 422
        told = log.read_text().count("store: takes a restart to change")
        os.kill(workers_of(process)[0], signal.SIGKILL)
        wait_for(lambda: log.read_text().count("store: takes a restart to change") > told, 30, log.read_text)
        send(url, range(4))
        config.write_text(text)
        wait_for(lambda: log.read_text().count('"event": "serving"') == 3, 30, log.read_text)
    assert process.returncode == 0


def test_workers_are_what_their_supervisor_is_wherever_it_was_started(tmp_path: Path) -> None:
    """`python -m` looks for modules in the working directory first; a `secrets.py` there must not be imported."""
    port = free_port()
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    (tmp_path / "secrets.py").write_text("raise SystemExit(3)")
    boot = tmp_path / "bin" / "alert-gateway"
    boot.parent.mkdir()
    boot.write_text("from gateway.cli.commands import main; main()")
    line = [sys.executable, str(boot), "serve", "--config", str(config), "--workers", "2"]
    log = tmp_path / "log"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("ab") as err, subprocess.Popen(line, cwd=tmp_path, env=env, stderr=err) as process:
        try:
            wait_for(lambda: '"event": "serving"' in log.read_text(), 20, log.read_text)
        finally:
            process.terminate()
            process.wait(40)


def test_a_worker_that_cannot_be_started_again_for_now_leaves_the_others_serving(tmp_path: Path) -> None:
    """The supervisor cannot open files for a while, as on a machine that has no process to spare."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    log = tmp_path / "log"
    with serving(config, "--workers", "2") as process:
        ready(url)
        wait_for(lambda: log.read_text().count('"event": "serving"') == 2, said=log.read_text)
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(workers_of(process)[0], signal.SIGKILL)
        wait_for(lambda: '"event": "worker.not_started"' in log.read_text(), said=log.read_text)
        ready(url)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        wait_for(lambda: log.read_text().count('"event": "serving"') == 3, 30, log.read_text)
    assert process.returncode == 0


def holds_back(pid: int, number: signal.Signals = signal.SIGHUP) -> bool:
    """Whether a process blocks a signal."""
    [mask] = re.findall(r"SigBlk:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & 1 << number - 1)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_asked_for_before_a_gateway_hears_of_it_does_not_end_it(tmp_path: Path, workers: str) -> None:
    """As `systemctl reload` does right after a start."""
    port = free_port()
    config = configured(tmp_path, shared().database(), "http://127.0.0.1:9", port)
    with serving(config, "--workers", workers) as process:
        wait_for(lambda: holds_back(process.pid))
        process.send_signal(signal.SIGHUP)
        ready(f"http://127.0.0.1:{port}")
        assert not holds_back(process.pid)
        again = (tmp_path / "log").read_text().count('"event": "config.reloaded"')
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: (tmp_path / "log").read_text().count('"event": "config.reloaded"') > again)
    assert process.returncode == 0


@pytest.mark.skipif(not can_be_alone(), reason="no namespace can be made here")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_end_asked_for_while_a_container_starts_ends_it(tmp_path: Path, workers: str) -> None:
    """Process 1 is not ended by a signal without a handler: the orchestrator would wait for its whole grace period, and
    then kill a gateway that had gone on serving."""
    store = shared().database() if workers == "2" else f"sqlite://{tmp_path}/gateway.db"
    config = configured(tmp_path, store, "http://127.0.0.1:9", free_port())
    arguments = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--workers", workers]
    with (tmp_path / "log").open("ab") as log, subprocess.Popen([*ALONE, *arguments], cwd=ROOT, stderr=log) as process:
        [started] = wait_for(lambda: workers_of(process))
        try:
            wait_for(lambda: holds_back(started, signal.SIGHUP))
            os.kill(started, signal.SIGTERM)
            wait_for(lambda: not Path(f"/proc/{started}").exists(), 20, (tmp_path / "log").read_text)
        finally:
            process.kill()
