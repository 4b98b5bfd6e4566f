"""The command line as users call it: output and exit codes, over real stores and a real gateway."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.admin.admin import MOST_LISTED
from gateway.cli.commands import main
from gateway.cli.outbox import LIMIT
from gateway.config.loading import parse
from gateway.process.service import Gateway
from tests.chaos_upstream import chaos, say
from tests.harness import KEY, house, served, upstream_table
from tests.postgres_server import shared
from tests.processes import HERE, at_a_terminal, wait_for


def _run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=text)


def _file(tmp_path: Path, more: str = "") -> str:
    path = tmp_path / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{tmp_path}/gateway.db"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        '[upstreams.main]\ndialect = "uptinio"\nurl = "http://127.0.0.1:9"\nkey = "upstream-canary"\n' + more
    )
    return str(path)


def test_translate_prints_requests_and_report_with_secrets_masked(tmp_path: Path) -> None:
    event = json.dumps({"eventType": "ALERT", "summary": "Disk full"})
    config = _file(tmp_path, 'defaults = { resource = "mon_9" }\n')
    done = _run("translate", "--from", "ilert", "--config", config, "--upstream", "main", text=event)
    printed = json.loads(done.stdout)
    assert printed["requests"][0]["body"] == {"monitor_id": "mon_9", "type": "custom", "message": "Disk full"}
    assert {fate["fate"] for fate in printed["report"]} <= {"mapped", "carried", "approximated", "kept", "dropped"}
    assert "upstream-canary" not in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "uptinio", "--upstream", "main"), "--config FILE with --upstream NAME"),
        (("--config", "", "--upstream", "mian"), "no upstream 'mian'; did you mean 'main'?"),
        (("--config", "", "--upstream", "main", "--to", "ilert"), "upstream 'main' speaks uptinio"),
    ],
)
def test_translate_for_an_upstream_that_is_not_there(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    """A name that names nothing is not passed over: the requests would be another upstream's."""
    done = _run("translate", "--from", "ilert", *(word or _file(tmp_path) for word in words), text="{}")
    assert done.exit_code == 2 and says in done.stderr, done.output


def test_translate_ends_with_1_and_the_error_in_the_callers_words() -> None:
    done = _run("translate", "--from", "ilert", "--to", "uptinio", text='{"eventType": "ALERT", "summary": "x"}')
    assert done.exit_code == 1
    assert json.loads(done.stderr)["status"] == 400
    assert "resource" in done.stderr


@pytest.mark.parametrize(
    ("operation", "says"),
    [("list", "list says nothing of an alert that could be translated"), ("reopen", "Opsgenie has no way to ask for")],
)
def test_translate_says_what_it_cannot_show(operation: str, says: str) -> None:
    """Of a list it said that the vendor has none."""
    done = _run("translate", "--from", "opsgenie", "--to", "ilert", "--operation", operation, text="{}")
    assert done.exit_code == 1 and says in json.loads(done.stderr)["message"]


def test_translate_says_what_is_wrong_with_an_envelope_that_holds_no_alert() -> None:
    done = _run("translate", "--from", "ibm_monitoring", "--to", "ilert", text='{"alert": 5}')
    assert (done.exit_code, json.loads(done.stderr)["errors"][0]["message"]) == (1, "alert: expected an object")


def test_check_says_everything_at_once_and_warns_of_what_callers_cannot_give(tmp_path: Path) -> None:
    warned = _run("check", "--config", _file(tmp_path))
    assert warned.exit_code == 0
    assert "warning" in warned.stderr and "resource" in warned.stderr
    bad = _run("check", "--config", _file(tmp_path, "tiemout = 5\nconcurrency = 0\n"))
    assert bad.exit_code == 1
    assert "upstreams.main.tiemout" in bad.stderr and "upstreams.main.concurrency" in bad.stderr


def test_several_workers_are_refused_without_a_store_that_they_share(tmp_path: Path) -> None:
    done = _run("serve", "--config", _file(tmp_path), "--workers", "2")
    assert done.exit_code == 2
    assert "SQLite" in done.stderr


def test_dialects_lists_what_each_accepts_and_sends() -> None:
    rows = json.loads(_run("dialects", "--json").stdout)
    assert all(row["accepts"] and row["sends"] and row["paths"] for row in rows)


def _outbox(config: str, *more: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(_run("deliveries", "--config", config, "--json", *more).stdout)
    return listed


def test_a_dead_delivery_is_seen_sent_again_and_dropped_beside_a_running_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = '[[routes]]\nto = ["oncall", "second"]\n'
    with house(tmp_path, {"oncall": "ilert", "second": "uptinio"}, routes, defaults=False) as h:
        config = _file(tmp_path)
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        sent = h.call("POST", "/ilert/api/events", event, key=None)
        assert any(line.startswith("second; dead=unmet") for line in sent.report)
        [dead] = _outbox(config, "--state", "dead", "--alert", "disk")
        assert dead["upstream"] == "second" and "resource" in dead["reason"]
        assert dead["would_send"] == ["nothing: there is no upstream 'second' in the configuration"]
        [asked] = h.client.get(h.url + "/-/deliveries?state=dead").json()["deliveries"]
        assert asked["would_send"] == [f"nothing: {dead['reason']}"], "in the gateway's own it is there"
        name = str(dead["id"])
        assert _run("retry", "--config", config, name).stdout == f"{name}: will be sent again\n"
        [again] = h.wait_for(lambda: _outbox(config, "--state", "dead"))
        assert again["id"] == dead["id"], "what is required is still not there"
        monkeypatch.setenv("LOGNAME", "ren\udce9")  # as it is where names are in another encoding
        assert _run("drop", "--config", config, name, "--because", "not wanted there").exit_code == 0
        assert json.loads(_run("operations", "--config", config, "--json").stdout)[0]["who"].startswith("ren?@")
        [void] = _outbox(config, "--state", "void")
        assert void["reason"] == "dropped: not wanted there"
        assert _run("retry", "--config", config, name).exit_code == 1
        none_waits = 'alert_gateway_waiting_deliveries{upstream="oncall"} 0.0'
        text = h.wait_for(lambda: found if none_waits in (found := h.client.get(h.url + "/metrics").text) else "")
        assert 'alert_gateway_requests_total{dialect="ilert",outcome="ok"} 1.0' in text
        assert "alert_gateway_request_seconds_bucket" in text
    assert _run("deliveries", "--config", config, "--alert", "nobody").exit_code == 1
    logged = _run("operations", "--config", config, "--json").stdout
    assert _run("retry", "--config", config, "--dead").stdout == "nothing to do\n"
    assert _run("operations", "--config", config, "--json").stdout == logged


def test_a_shell_completes_commands_and_options() -> None:
    """As the README says how."""
    program = str(Path(sys.executable).with_name("alert-gateway"))
    for line, found in (("alert-gateway deliv", ["plain,deliveries"]), ("alert-gateway trace --to", ["plain,--token"])):
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_ALERT_GATEWAY_COMPLETE": "bash_complete"}
        done = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines() == found, done.stderr


def test_a_list_that_is_cut_short_says_so(tmp_path: Path) -> None:
    """A list that `--limit` cuts says so; otherwise a thousand of fifty thousand dead letters look like all of them."""
    with house(tmp_path, {"oncall": "ilert", "second": "ilert"}, '[[routes]]\nto = ["oncall", "second"]\n') as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        config = _file(tmp_path)
        for how in (("--config", config), ("--url", h.url)):
            cut = _run("deliveries", *how, "--json", "--limit", "1")
            assert len(json.loads(cut.stdout)) == 1 and "--limit" in cut.stderr
            whole = _run("deliveries", *how, "--json", "--limit", "3")
            assert len(json.loads(whole.stdout)) == 2 and not whole.stderr
    assert f"--url {MOST_LISTED} at most" in LIMIT


def test_what_waits_for_an_upstream_that_is_gone_is_dropped_with_what_died_there(tmp_path: Path) -> None:
    """`drop` drops waiting deliveries only for an upstream that is not in the file, to which nothing will ever be
    sent."""
    there = upstream_table("old", "ilert", "http://127.0.0.1:9")
    tables = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n{there}[[routes]]\nto = ["old"]\n'
    with house(tmp_path, config=lambda _: tables) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        config = _file(tmp_path, f'{there}[[routes]]\nto = ["main"]\n')
        unwanted = ("drop", "--config", config, "--upstream", "old", "--because", "we have left them")
        assert _run(*unwanted).stdout == "nothing to do\n"
        _file(tmp_path)
        assert _run(*unwanted).exit_code == 0
        [void] = _outbox(config)
        assert (void["state"], void["reason"]) == ("void", "dropped: we have left them")


# --- terminals, accounts and stores that are not as usual ---------------------------------------------------------


def _typed(
    *words: str | bytes, environment: dict[str, str] | None = None, **how: Any
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command as a process with only this environment."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), **(environment or {})}
    line = [sys.executable, "-m", "gateway.cli", *words]
    return subprocess.run(line, cwd=HERE, env=env, capture_output=True, timeout=60, check=False, **how)


def test_ctrl_c_while_a_command_is_imported_shows_no_stack(tmp_path: Path) -> None:
    """The slow import is a package of the test's that sleeps."""
    (tmp_path / "click.py").write_text('print("imported", flush=True)\nimport time\ntime.sleep(60)\n')
    scripts = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["alert-gateway"].partition(":")
    line = [sys.executable, "-c", f"from {module} import {name}; {name}()"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{HERE}"}
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"imported\n"
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=30)[1], process.returncode) == (b"", -signal.SIGINT)


@pytest.fixture
def told(tmp_path: Path) -> str:
    """A configuration whose store has an alert with letters that few encodings have."""
    with house(tmp_path, {"oncall": "ilert"}, defaults=False) as h:
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Диск voll → 🔥", "alertKey": "disk"}
        assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        h.wait_for(lambda: h.arrived("ilert"))
    return _file(tmp_path)


def test_a_terminal_that_has_not_every_letter_is_shown_what_there_is(told: str) -> None:
    """Letters that the terminal's encoding lacks are escaped; JSON is always UTF-8."""
    speaks = {"PYTHONIOENCODING": "latin-1"}
    shown = _typed("trace", "--config", told, "disk", environment=speaks)
    assert shown.returncode == 0 and rb"voll \u2192 \U0001f525" in shown.stdout, shown.stderr
    found = _typed("trace", "--config", told, "disk", "--json", environment=speaks)
    assert json.loads(found.stdout)["alerts"][0]["summary"] == "Диск voll → 🔥", found.stderr
    event = json.dumps({"eventType": "ALERT", "summary": "Диск"}).encode()
    explained = _typed("explain", "--config", told, "--from", "ilert", input=event, environment=speaks)
    assert b"Traceback" not in explained.stderr and b"main" in explained.stdout


def test_a_narrow_terminal_says_which_are_dead_and_why(tmp_path: Path) -> None:
    """States are not cut short, where `dead` and `delivered` would both be `de…`, and a vendor's brackets are not read
    as markup."""
    reason = "the field [/payload/severity] is not one of those that are known"
    with chaos(say(400, {"error": {"message": reason}})) as vendor:
        config = Path(_file(tmp_path, 'defaults = { resource = "mon_9" }\n'))
        config.write_text(config.read_text().replace("http://127.0.0.1:9", vendor.url))
        with served(Gateway(parse(config.read_text())).app) as url:
            event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk", "alertKey": "disk"}
            httpx.post(url + "/ilert/api/events", json=event)
            wait_for(lambda: b"dead" in _typed("deliveries", "--config", str(config)).stdout)
        status, shown = at_a_terminal("deliveries", "--config", str(config))
    assert status == 0 and " dead " in shown and "…" not in shown, shown
    assert f": 400 {reason}" in shown and "would be sent: POST" in shown, shown


def test_a_delivery_is_one_line_for_programs(tmp_path: Path) -> None:
    """Whatever the upstream's reason has in it: a tab or a line feed made it more cells, or more lines."""
    with chaos(say(400, {"error": {"message": "no\tsuch\nfield \x1b[2J"}})) as vendor:
        config = Path(_file(tmp_path, 'defaults = { resource = "mon_9" }\n'))
        config.write_text(config.read_text().replace("http://127.0.0.1:9", vendor.url))
        with served(Gateway(parse(config.read_text())).app) as url:
            event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk", "alertKey": "disk"}
            httpx.post(url + "/ilert/api/events", json=event)
            wait_for(lambda: "dead" in _run("deliveries", "--config", str(config)).stdout)
        first, second = _run("deliveries", "--config", str(config)).stdout.splitlines()
    assert first.split("\t")[6:] == ["400 no such field  [2J", "refused"], first
    assert second.startswith("\twould be sent: POST")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("deliveries", "--alert", b"\xff"), 1, b"no alert has the id or key"),
        (("deliveries", "--alert", ""), 1, b"no alert has the id or key"),
        (("deliveries", "--limit", "9" * 30), 2, b"--limit"),
        (("callers", "--limit", "9" * 30), 2, b"--limit"),
        (("trace", b"\xff"), 1, b"no alert has the id or key"),
        (("retry", "9" * 30), 1, b"no such delivery"),
        (("retry", "--", "-1"), 1, b"no such delivery: -1"),
        (("retry", "--", "-" + "9" * 30), 1, b"no such delivery: -9"),
        (("retry", "--upstream", b"\xff"), 1, b"there are no deliveries"),
        (("drop", "--dead", "--because", b"\xff"), 0, b"nothing to do"),
        (("report", "--since", "99999999d"), 2, b"century"),
    ],
)
def test_arguments_that_no_store_takes_are_answered(
    told: str, words: tuple[str | bytes, ...], status: int, said: bytes
) -> None:
    command, *rest = words
    done = _typed(command, "--config", told, *rest)
    assert (done.returncode, said in done.stderr + done.stdout) == (status, True), done.stderr


def test_a_file_that_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    config = _file(tmp_path)
    for words in (("deliveries",), ("report",), ("callers",), ("operations",), ("retry", "--dead")):
        assert b"no store at" in _typed(words[0], "--config", config, *words[1:]).stderr
    (tmp_path / "gateway.db").write_text("this is a letter to somebody, and no store\n" * 50)
    for words in (("deliveries",), ("report",), ("callers",), ("operations",), ("retry", "--dead"), ("trace", "x")):
        done = _typed(words[0], "--config", config, *words[1:])
        assert done.returncode == (2 if words[0] == "trace" else 1)
        assert b"not a database" in done.stderr and b"Traceback" not in done.stderr, done.stderr
    done = _typed("backup", "--config", config, str(tmp_path / "copy.db"))
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr


def test_whoever_has_no_home_is_told_to_say_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a name and home directory, as in a container, is told to configure the store's place."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    config = Path(_file(tmp_path))
    config.write_text(config.read_text().partition("\n")[2])
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    done = _run("check", "--config", str(config))
    assert done.exit_code == 1 and "store: no home directory" in done.stderr, done.stderr


def test_a_store_whose_address_is_not_here_is_not_taken_for_another(tmp_path: Path) -> None:
    """An unset store URL is refused: PostgreSQL's own variables would lead to some other database, and the schema would
    be created there."""
    other = shared().database()
    config = Path(_file(tmp_path))
    config.write_text(config.read_text().replace(f"sqlite://{tmp_path}/gateway.db", "env:NOT_SET_HERE"))
    import psycopg

    with psycopg.connect(other) as connection:
        found = connection.info
        leads = {"PGHOST": found.host, "PGPORT": str(found.port), "PGUSER": found.user, "PGDATABASE": found.dbname}
        done = _typed("deliveries", "--config", str(config), environment={**leads, "PGPASSWORD": found.password})
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert done.returncode == 1 and b"store: its address is a secret that cannot be read" in done.stderr, done.stderr
    assert tables == (0,)


def test_a_pipe_that_is_closed_is_no_fault(told: str) -> None:
    line = f"{sys.executable} -m gateway.cli dialects --json | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=HERE, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"[\n", b"")


def test_a_command_works_whichever_standard_stream_is_closed(told: str) -> None:
    line = f"{sys.executable} -m gateway.cli trace --config {told} disk"
    for closed in ("2>&-", ">&-", "<&-"):
        done = subprocess.run(["sh", "-c", f"{line} {closed}"], cwd=HERE, capture_output=True, timeout=60, check=False)
        assert (done.returncode, b"alert " in done.stdout) == (0, closed != ">&-"), closed
