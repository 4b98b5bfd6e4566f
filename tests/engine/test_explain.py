"""`explain`: the alert, its route and why, each upstream's request, and who would be woken; no network, no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.commands import main
from tests.clients.callers import ibm_alert

CONFIG = """
[inbound.ilert]
keys = {{ ci = "canary-caller", ops = "canary-other" }}
[inbound.uptinio]
keys = {{ watch = "canary-watch" }}
[upstreams.oncall]
dialect = "ilert"
url = "https://api.ilert.com"
key = "canary-upstream"
[upstreams.services]
dialect = "pagerduty"
url = "https://events.pagerduty.com"
key = {{ by = "caller", dir = "{0}/keys" }}
[[routes]]
name = "loud"
from = ["ilert"]
when = ["severity <= 3", 'labels.team =~ "db|infra"']
to = [
    {{ upstream = "oncall", set = {{ routing_key = {{ by = "labels.team", table = "policies.toml" }} }} }},
    "services",
]
set = {{ source = "gateway" }}
fallback = {{ to = ["other"], after = "2m" }}
[[routes]]
name = "bin"
from = ["ilert"]
when = ["severity >= 6"]
to = []
because = "nobody reads them"
[[routes]]
name = "watched"
from = ["uptinio"]
to = ["oncall"]
[upstreams.other]
dialect = "ilert"
url = "https://api.ilert.com"
key = "canary-third"
"""
PAGE: dict[str, Any] = {"eventType": "ALERT", "summary": "Disk full", "severity": 1, "labels": {"team": "db"}}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The configuration with its table and its keys."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ci").write_text("canary-service-of-ci")
    (tmp_path / "policies.toml").write_text('db = "policy-7"\n')
    (tmp_path / "gateway.toml").write_text(CONFIG.format(tmp_path))
    return str(tmp_path / "gateway.toml")


def explained(path: str, body: Any, *more: str, origin: str = "ilert") -> Result:
    """Runs the command with a body."""
    words = ["explain", "--config", path, "--from", origin, *more]
    done = CliRunner().invoke(main, words, input=json.dumps(body))
    assert "canary" not in done.output
    return done


def test_alert_route_and_why_requests_and_who_is_woken(path: str) -> None:
    done = explained(path, PAGE, "--caller", "ci")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "from ilert/ci: create"
    assert "  severity: 1" in lines
    assert "route loud: severity <= 3 holds; labels.team =~ db|infra holds" in lines
    assert not any(line.startswith(("route bin", "route watched")) for line in lines), "the first match wins"
    assert "→ oncall (route loud)" in lines
    assert any(line.startswith("  POST /api/events") and '"routingKey":"policy-7"' in line for line in lines)
    assert "  routing_key: approximated → routingKey (set by route loud)" in lines
    assert any(line.endswith("wakes (oncall, routingKey policy-7)") for line in lines)
    assert "  payload.severity critical: wakes (services, the key of ci)" in lines
    assert "→ other (route loud, after 120 s if not taken by then)" in lines


def test_as_json(path: str) -> None:
    found = json.loads(explained(path, PAGE, "--caller", "ci", "--json").stdout)
    assert [one["upstream"] for one in found["to"]] == ["oncall", "services", "other"]
    assert [one["wakes"] for one in found["to"]] == [True, True, True]
    assert found["routes"] == [{"route": "loud", "why": "severity <= 3 holds; labels.team =~ db|infra holds"}]
    assert found["to"][0]["requests"][0]["body"]["routingKey"] == "policy-7"
    kept = {"field": "source", "fate": "kept", "to": "", "why": "set by route loud; the target has no field for it"}
    assert kept in found["to"][0]["report"]


def test_why_a_route_does_not_take_it(path: str) -> None:
    done = explained(path, {**PAGE, "severity": 3}, "--caller", "ci")
    assert done.exit_code == 1
    assert "route loud: severity <= 3 does not hold: it is '4'" in done.stdout
    assert "route watched: not from uptinio" in done.stdout
    assert "refused: no entry of `routes` takes it" in done.stdout
    absent = explained(path, {"eventType": "ALERT", "summary": "s"}, "--caller", "ci")
    assert "route loud: severity <= 3 does not hold: it is absent" in absent.stdout


def test_throwing_away_is_said(path: str) -> None:
    done = explained(path, {**PAGE, "severity": 5}, "--caller", "ci")
    assert done.exit_code == 0
    assert "route bin: severity >= 6 holds; thrown away: nobody reads them" in done.stdout
    assert done.stdout.splitlines()[-1] == "goes to no upstream"


def test_what_only_a_fallback_is_told_is_not_thrown_away(path: str) -> None:
    """Neither `explain` nor `check` calls a route that has only a fallback throwing away."""
    text = Path(path).read_text()
    because = 'because = "nobody reads them"'
    Path(path).write_text(text.replace(because, f'{because}\nfallback = {{ to = ["other"], after = "1h" }}'))
    done = explained(path, {**PAGE, "severity": 5}, "--caller", "ci")
    assert "→ other (route bin, after 3600 s if not taken by then)" in done.stdout
    checked = CliRunner().invoke(main, ["check", "--config", path])
    assert "route bin" in checked.stdout
    assert "thrown away" not in done.stdout + checked.stdout


def test_a_caller_without_a_key_is_told_so(path: str) -> None:
    done = explained(path, PAGE, "--caller", "ops")
    assert "refused: upstream 'services': there is no key for caller 'ops'" in done.stdout


def test_an_upstream_that_takes_no_rules_is_not_said_to_be_told_of_one(path: str) -> None:
    with open(path, "a") as file:
        file.write('rules = "refuse"\n[inbound.ibm_monitoring]\nkeys = { ci = "canary-ibm" }\n')
        file.write('[[routes]]\nfrom = ["ibm_monitoring"]\nto = ["other"]\n')
    done = explained(path, ibm_alert("Disk full"), origin="ibm_monitoring")
    assert done.exit_code == 1
    assert "takes no rules" in done.stdout and "wakes" not in done.stdout


def test_good_news_wakes_nobody(path: str) -> None:
    event = {"monitor_id": "m", "type": "up", "message": "Back again"}
    assert "wakes nobody" in explained(path, event, origin="uptinio").stdout, "the only caller need not be named"


def test_an_end_wakes_nobody_and_goes_where_its_sender_s_alerts_go(path: str) -> None:
    done = explained(path, {"eventType": "RESOLVE", "alertKey": "k"}, "--caller", "ci")
    assert "by sender alone" in done.stdout
    assert "wakes nobody" in done.stdout and ": wakes (" not in done.stdout


@pytest.mark.parametrize(("name", "says"), [("opps", "did you mean 'ops'?"), ("zebra", "there are ci, ops")])
def test_a_caller_that_nobody_is(path: str, name: str, says: str) -> None:
    done = explained(path, PAGE, "--caller", name)
    assert done.exit_code == 2 and f"ilert has no caller '{name}'" in done.stderr and says in done.stderr


def test_which_caller_has_to_be_said_where_there_are_several(path: str) -> None:
    done = explained(path, PAGE)
    assert done.exit_code == 2 and "ci, ops" in done.stderr


def test_what_is_no_request_of_the_dialect_ends_with_1(path: str) -> None:
    assert explained(path, {"eventType": "SHOUT"}, "--caller", "ci").exit_code == 1
    assert explained(path, PAGE, origin="pagerduty").exit_code == 2


def test_without_its_secrets_a_configuration_is_explained_too(path: str) -> None:
    text = Path(path).read_text().replace('"canary-upstream"', '"env:ALERT_GATEWAY_NOT_SET"')
    Path(path).write_text(text)
    done = explained(path, PAGE, "--caller", "ops")
    assert done.exit_code == 0 and "the key of ops" in done.stdout
