"""The command line as it is called: what it prints, and how it ends, over real stores and a real gateway."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli import main
from tests.harness import KEY, house, upstream_table


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


def test_translate_ends_with_1_and_the_error_in_the_callers_words() -> None:
    done = _run("translate", "--from", "ilert", "--to", "uptinio", text='{"eventType": "ALERT", "summary": "x"}')
    assert done.exit_code == 1
    assert json.loads(done.stderr)["status"] == 400
    assert "resource" in done.stderr


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


def test_a_dead_delivery_is_seen_sent_again_and_dropped_beside_a_running_gateway(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = ["oncall", "second"]\n'
    with house(tmp_path, {"oncall": "ilert", "second": "uptinio"}, routes, defaults=False) as h:
        config = _file(tmp_path)
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": "disk"}
        sent = h.call("POST", "/ilert/api/events", event, key=None)
        assert any(line.startswith("second; dead=unmet") for line in sent.report)
        [dead] = _outbox(config, "--state", "dead", "--alert", "disk")
        assert dead["upstream"] == "second" and "resource" in dead["reason"]
        name = str(dead["id"])
        assert _run("retry", "--config", config, name).stdout == f"{name}: will be sent again\n"
        [again] = h.wait_for(lambda: _outbox(config, "--state", "dead"))
        assert again["id"] == dead["id"], "what is required is still not there"
        assert _run("drop", "--config", config, name, "--because", "not wanted there").exit_code == 0
        [void] = _outbox(config, "--state", "void")
        assert void["reason"] == "dropped: not wanted there"
        assert _run("retry", "--config", config, name).exit_code == 1
        text = h.client.get(h.url + "/metrics").text
        assert 'alert_gateway_requests_total{dialect="ilert",outcome="ok"} 1.0' in text
        assert 'alert_gateway_waiting_deliveries{upstream="oncall"} 0.0' in text
        assert "alert_gateway_request_seconds_bucket" in text
    assert _run("deliveries", "--config", config, "--alert", "nobody").exit_code == 1
    assert _run("retry", "--config", config, "--dead").stdout == "nothing to do\n"


def test_what_waits_for_an_upstream_that_is_gone_is_dropped_with_what_died_there(tmp_path: Path) -> None:
    """Nothing will ever be sent to it; while it is in the file, what waits is not given up so easily."""
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
