"""`drill`: a marked alert through a route to its real upstreams, with its timeline, and resolved again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.commands import main
from gateway.cli.sandbox import Sandbox
from gateway.registry import dialects
from tests.chaos_upstream import HANG, chaos, say
from tests.engine.vendors import slow
from tests.harness import UPSTREAM_KEY, served, upstream_table
from tests.processes import HERE, wait_for


def drilled(tmp_path: Path, url: str, *more: str, key: str = UPSTREAM_KEY, top: str = "") -> Result:
    """Runs the command over a route to two upstreams; `top` is put at the beginning of the configuration."""
    text = top + '[inbound.ibm_monitoring]\nkeys = { ci = "caller-key" }\n'
    text += upstream_table("oncall", "ilert", url) + upstream_table("services", "pagerduty", url).replace(
        UPSTREAM_KEY, key
    )
    text += '[[routes]]\nname = "db"\nwhen = ["severity = 0"]\nto = ["oncall", "services"]\n'
    (tmp_path / "gateway.toml").write_text(f'store = "sqlite://{tmp_path}/gateway.db"\n{text}')
    return CliRunner().invoke(main, ["drill", "--config", str(tmp_path / "gateway.toml"), *more])


@pytest.mark.parametrize(("flags", "priority", "severity"), [((), "LOW", "info"), (("--wake",), "HIGH", "critical")])
def test_a_drill_is_told_and_ended_with_a_timeline(
    tmp_path: Path, flags: tuple[str, ...], priority: str, severity: str
) -> None:
    sandbox = Sandbox(dialects(), UPSTREAM_KEY)
    with served(sandbox) as url:
        done = drilled(tmp_path, url, "db", *flags)
    assert done.exit_code == 0, done.output
    events = [one.body for one in sandbox.arrived if one.dialect == "ilert"]
    assert [event["eventType"] for event in events] == ["ALERT", "RESOLVE"]
    assert events[0]["priority"] == priority and events[0]["summary"].startswith("DRILL of route db")
    [page, _] = [one.body for one in sandbox.arrived if one.dialect == "pagerduty"]
    assert page["payload"]["severity"] == severity
    for line in ("oncall  create  delivered 202", "services  resolve  delivered 202"):
        assert line in done.stdout
    assert UPSTREAM_KEY not in done.output
    assert not (tmp_path / "gateway.db").exists(), "it mixes with nothing"


def test_a_drill_that_an_upstream_does_not_take_ends_with_1(tmp_path: Path) -> None:
    with served(Sandbox(dialects(), UPSTREAM_KEY)) as url:
        done = drilled(tmp_path, url, "db", "--within", "1s", key="0123456789abcdef0123456789abcdef")
        assert done.exit_code == 1
        assert "services  create  waiting" in done.stdout and "oncall  create  delivered" in done.stdout
        assert re.search(r"services  create  again 400, took \d+ ms: ", done.stdout), "not that it is tried in so long"
        assert drilled(tmp_path, url, "dbb").exit_code == 2
        refused = drilled(tmp_path, url, "db", "--within", "soon")
        assert refused.exit_code == 2 and "waiting" not in refused.stderr, "nothing was begun"


def test_a_drill_waits_for_a_slow_upstream_also_where_the_store_is_lost_with_its_container(tmp_path: Path) -> None:
    """It gave up when callers are told to ask again, and left at the upstreams what was on its way."""
    with chaos(slow(0.3, say(202, {}))) as upstream:
        done = drilled(tmp_path, upstream.url, "db", top='durable = "container"\nreply_timeout = "50ms"\n')
    assert done.exit_code == 0, done.output
    told = [(got.body.get("eventType") or got.body["event_action"]).lower() for got in upstream.got]
    assert sorted(told) == ["alert", "resolve", "resolve", "trigger"]


def test_a_drill_as_nobody_is_refused(tmp_path: Path) -> None:
    """Without a caller, what the route looks up by caller would be another's, and the drill would prove nothing."""
    with served(sandbox := Sandbox(dialects(), UPSTREAM_KEY)) as url:
        done = drilled(tmp_path, url, "db", "--caller", "cii")
        assert (done.exit_code, sandbox.arrived) == (2, [])
        assert "there is no caller 'cii'; did you mean 'ci'?" in done.stderr
        assert drilled(tmp_path, url, "db", "--caller", "ci").exit_code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_drill_that_is_interrupted_is_ended_where_it_was_opened(tmp_path: Path, number: signal.Signals) -> None:
    """One upstream has taken it, and it waits for another that never answers."""
    with chaos(say(202, {})) as taken, chaos(HANG) as hanging:
        text = f"[inbound.ilert]\nanonymous = true\n{upstream_table('a', 'ilert', taken.url)}"
        text += (
            upstream_table("b", "ilert", hanging.url, more='timeout = "500ms"\n')
            + '[[routes]]\nname = "db"\nto = ["a", "b"]\n'
        )
        (tmp_path / "gateway.toml").write_text(text)
        line = ["drill", "--config", str(tmp_path / "gateway.toml"), "db", "--within", "1s"]
        with subprocess.Popen([sys.executable, "-m", "gateway.cli", *line], cwd=HERE, env=_own(tmp_path)) as process:
            wait_for(lambda: taken.got and hanging.got, 20)
            process.send_signal(number)
            assert process.wait(20) == 1
    assert [got.body["eventType"] for got in taken.got] == ["ALERT", "RESOLVE"]
    assert not list(tmp_path.glob("alert-gateway-drill-*")), "what it stored is removed"


def _own(directory: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(directory)}
