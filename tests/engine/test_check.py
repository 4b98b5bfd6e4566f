"""`check`: what callers' severities become, warnings about probable mistakes, the file's own tests, and whether
upstreams can be reached and accept their keys."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.checking import ladders, warnings
from gateway.cli.commands import main
from gateway.cli.sandbox import Sandbox
from gateway.cli.trying import failures
from gateway.config.config import Config
from gateway.config.loading import parse
from gateway.errors import ConfigurationError
from gateway.registry import dialects
from tests.harness import UPSTREAM_KEY, served

INBOUND = """
[inbound.ilert]
keys = { ci = "ck", ops = "ok" }
[inbound.ibm_monitoring]
keys = { terraform = "tk" }
"""
ONCALL = '[upstreams.oncall]\ndialect = "pagerduty"\nurl = "https://events.pagerduty.com"\nkey = "k"\n'
SECOND = '[upstreams.second]\ndialect = "ilert"\nurl = "https://api.ilert.com"\nkey = "k"\n'
CATCH_ALL = '[[routes]]\nname = "rest"\nto = ["oncall"]\n'


def configured(routes: str = CATCH_ALL, more: str = "", base: Path | None = None) -> Config:
    """A configuration of two dialects and two upstreams."""
    return parse(INBOUND + ONCALL + more + SECOND + routes, base=base)


def said(config: Config, *parts: str) -> list[str]:
    """The warnings that contain all these parts."""
    return [text for text in warnings(config) if all(part in text for part in parts)]


def run(*words: str) -> Result:
    """Runs the command line."""
    return CliRunner().invoke(main, list(words))


# --- what callers' words come to -------------------------------------------------------------------------------


def test_each_word_of_a_caller_and_what_it_comes_to() -> None:
    """canonical.md, *Severity*: the table, and that ilert's LOW wakes nobody."""
    lines = list(ladders(configured()))
    start = lines.index("  ilert → oncall (pagerduty)")
    assert lines[start + 1 : start + 5] == [
        "    priority HIGH; severity 1 → payload.severity critical → wakes",
        "    priority LOW; severity 3, 4 → payload.severity warning → wakes",
        "    severity 2; no severity → payload.severity error → wakes",
        "    severity 5 → payload.severity info → wakes nobody",
    ]
    rules = lines[lines.index("  ibm_monitoring → oncall (pagerduty)") :]
    assert rules[1] == "    severity 0, 1; severityLabel HIGH → payload.severity critical → wakes"
    to_ilert = list(ladders(configured('[[routes]]\nfrom = ["ibm_monitoring"]\nto = ["second"]\n')))
    assert any("severity 6, 7; severityLabel INFO" in line and line.endswith("→ wakes nobody") for line in to_ilert)
    assert any(line.startswith("    severity 0, 1") and line.endswith("→ wakes") for line in to_ilert)


def test_words_that_a_route_does_not_take_are_left_out() -> None:
    lines = list(ladders(configured('[[routes]]\nfrom = ["ilert"]\nwhen = ["severity <= 1"]\nto = ["oncall"]\n')))
    assert lines == [
        "route 1",
        "  ilert → oncall (pagerduty)",
        "    priority HIGH; severity 1 → payload.severity critical → wakes",
    ]


@pytest.mark.parametrize("origin", ["alertmanager", "alertmanager_webhook", "grafana"])
def test_a_severity_in_a_label_is_a_word_too(origin: str) -> None:
    """The worst first; both as the caller's word and as the upstream's."""
    text = f'[inbound.{origin}]\nkeys = {{ ci = "k" }}\n[upstreams.there]\ndialect = "{origin}"\nurl = "https://x"\n'
    when = '[[routes]]\nwhen = ["severity <= 4"]\nto = ["there"]\n'
    assert list(ladders(parse(text + when)))[2:] == [
        f"    labels.severity {word} → labels.severity {word} → wakes" for word in ("critical", "error", "warning")
    ]


def test_what_a_route_sets_and_an_upstream_overrides_is_in_what_wakes() -> None:
    loud = list(ladders(configured('[[routes]]\nfrom = ["ilert"]\nto = ["oncall"]\nset = { severity = 7 }\n')))
    assert {line.rpartition(" → ")[2] for line in loud[2:]} == {"wakes nobody"}
    words = 'severity = { out = ["info", "info", "info", "info", "info", "info", "info", "info"] }\n'
    quiet = list(ladders(configured('[[routes]]\nfrom = ["ilert"]\nto = ["oncall"]\n', words)))
    assert quiet[2:] == [
        "    priority HIGH, LOW; severity 1, 2, 3, 4, 5; no severity → payload.severity info → wakes nobody"
    ]


def test_rules_told_quietly_wake_nobody_and_refused_ones_are_said() -> None:
    route = '[[routes]]\nfrom = ["ibm_monitoring"]\nto = ["oncall"]\n'
    quiet = list(ladders(configured(route, 'rules = "quiet"\n')))
    assert {line.rpartition(" → ")[2] for line in quiet[2:]} == {"wakes nobody"}
    [refused] = list(ladders(configured(route, 'rules = "refuse"\n')))[2:]
    assert "takes no rules" in refused


def test_a_target_of_rules_tells_by_its_own_channels() -> None:
    more = '[upstreams.uptime]\ndialect = "ibm_monitoring"\nurl = "https://x"\nkey = "k"\n'
    more += 'defaults = { "condition.expression" = "a > 1" }\n'
    lines = list(ladders(configured('[[routes]]\nfrom = ["ilert"]\nto = ["uptime"]\n', more)))
    assert all(line.endswith("a rule: its own channels notify when it fires") for line in lines[2:])


@pytest.mark.parametrize("origin", sorted(dialects()))
@pytest.mark.parametrize("target", sorted(dialects()))
def test_every_pair_has_a_ladder(origin: str, target: str) -> None:
    text = f'[inbound.{origin}]\nkeys = {{ ci = "k" }}\n[upstreams.there]\ndialect = "{target}"\nurl = "https://x"\n'
    lines = list(ladders(parse(text + 'key = "k"\n')))
    assert lines[:2] == ["route 1", f"  {origin} → there ({target})"]
    assert len(lines) > 2 and all(" → " in line for line in lines[2:])


# --- what was hardly meant -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("", ""),
        ("", 'from = ["ilert"]'),
        ('from = ["ilert"]', 'from = ["ilert/ci"]\nwhen = ["severity = 0"]'),
        ('when = ["severity <= 3"]', 'when = ["severity <= 2", "labels.a = b"]'),
        ('when = ["severity <= 3"]', 'when = ["severity < 3"]'),
        ('when = ["severity <= 3"]', 'when = ["severity = 1"]'),
        ('when = ["labels.team =~ a.*"]', 'when = ["labels.team =~ a.*"]'),
    ],
)
def test_a_route_that_is_never_reached(first: str, then: str) -> None:
    routes = f'[[routes]]\n{first}\nto = ["second"]\n[[routes]]\nname = "lost"\n{then}\nto = ["oncall"]\n'
    assert said(configured(routes), "routes: lost: never reached: 1")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("continue = true", ""),
        ('from = ["ilert"]', ""),
        ('from = ["ilert/ci"]', 'from = ["ilert"]'),
        ('when = ["severity <= 2"]', 'when = ["severity <= 3"]'),
        ('when = ["severity < 3"]', 'when = ["severity <= 3"]'),
        ('when = ["severity <= 3"]', 'when = ["severity >= 1"]'),
        ('when = ["labels.team = a"]', 'when = ["labels.team =~ a.*"]'),
    ],
)
def test_a_route_that_is_reached_is_not_warned_of(first: str, then: str) -> None:
    routes = f'[[routes]]\n{first}\nto = ["second"]\n[[routes]]\nname = "found"\n{then}\nto = ["oncall"]\n'
    assert not said(configured(routes), "never reached")


def test_what_a_later_route_sets_at_an_upstream_that_is_told_already(tmp_path: Path) -> None:
    """An upstream is told of an alert once, so what a later route sets there has no effect, and `check` warns of it."""
    one = '[[routes]]\nname = "a"\nto = [{ upstream = "oncall", set = { team = "a" } }]\ncontinue = true\n'
    two = one.replace('"a"', '"b"')
    assert said(configured(one + two), "b: its `set` for oncall is never used: a leads there first")
    assert not said(configured(one + two.replace('team = "b"', 'team = "a"')), "never used")
    assert not said(configured(one.replace("to =", 'when = ["labels.t = x"]\nto =') + two), "never used")
    (tmp_path / "t.toml").write_text('ci = "7"\n')
    looked_up = one.replace('team = "a"', 'team = { by = "caller", table = "t.toml", else = "x" }')
    assert not said(configured(looked_up + looked_up.replace('"a"', '"b"'), base=tmp_path), "never used")


def test_a_missing_catch_all() -> None:
    some = '[[routes]]\nfrom = ["ilert"]\nwhen = ["severity <= 3"]\nto = ["oncall"]\n'
    assert said(configured(some), "an alert of ilert that no route matches")
    assert said(configured(some), "an alert of ibm_monitoring that no route matches")
    assert not said(configured(some + CATCH_ALL), "no route matches")
    by_caller = '[[routes]]\nfrom = ["ilert/ci", "ilert/ops", "ibm_monitoring"]\nto = ["oncall"]\n'
    assert not said(configured(by_caller), "no route matches")
    assert said(configured(by_caller.replace('"ilert/ops", ', "")), "alert of ilert that no route")


def test_rules_that_would_page() -> None:
    assert said(configured(), "rest", "every rule of ibm_monitoring would page at oncall", '"quiet"')
    assert not said(configured(more='rules = "quiet"\n'), "would page")
    assert not said(configured('[[routes]]\nfrom = ["ilert"]\nto = ["oncall"]\n'), "would page")


def test_what_an_upstream_requires_and_its_callers_cannot_give() -> None:
    more = '[upstreams.uptime]\ndialect = "uptinio"\nurl = "https://x"\nkey = "k"\n'
    route = '[[routes]]\nfrom = ["ilert"]\nto = ["uptime"]\n'
    assert said(configured(route, more), "from ilert", "'uptime' requires resource")
    assert not said(configured(route + 'set = { resource = "r" }\n', more), "requires resource")
    fallback = '[[routes]]\nfrom = ["ilert"]\nto = ["second"]\nfallback = { to = ["uptime"] }\n'
    assert said(configured(fallback, more), "from ilert", "'uptime' requires resource"), "it would be a dead letter"


def test_a_routing_key_that_is_a_policy_here_and_the_credential_there() -> None:
    route = '[[routes]]\nto = ["second", "oncall"]\nset = { routing_key = "policy" }\n'
    assert said(configured(route), "routing_key is the credential at oncall")
    apart = '[[routes]]\nto = [{ upstream = "second", set = { routing_key = "policy" } }, "oncall"]\n'
    assert not said(configured(apart), "is the credential")
    fallback = '[[routes]]\nto = ["second"]\nset = { routing_key = "policy" }\nfallback = { to = ["oncall"] }\n'
    assert said(configured(fallback), "routing_key is the credential at oncall")


def test_a_sender_that_has_no_file_yet(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ci").write_text("k")
    text = INBOUND.replace('{ ci = "ck", ops = "ok" }', f'"dir:{tmp_path}/keys"') + ONCALL
    config = parse(text + '[[routes]]\nfrom = ["ilert/ci", "ilert/cj"]\nto = ["oncall"]\n')
    assert said(config, "no file cj")
    assert not said(config, "no file ci")


def test_callers_without_an_entry(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('ci = "7"\n')
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ci").write_text("k")
    route = '[[routes]]\nfrom = ["ilert"]\nto = ["oncall"]\nset = { team = { by = "caller", table = "t.toml"ELSE } }\n'
    assert said(configured(route.replace("ELSE", ""), base=tmp_path), "t.toml has no team", "for ops")
    assert not said(configured(route.replace("ELSE", ', else = "x"'), base=tmp_path), "t.toml")
    by_caller = f'key = {{ by = "caller", dir = "{tmp_path}/keys" }}\n'
    text = INBOUND + ONCALL.replace('key = "k"\n', by_caller) + '[[routes]]\nfrom = ["ilert"]\nto = ["oncall"]\n'
    assert said(parse(text), "upstreams.oncall.key", "for ops")
    fallback = text.replace('to = ["oncall"]', 'to = ["second"]\nfallback = { to = ["oncall"] }') + SECOND
    assert said(parse(fallback), "upstreams.oncall.key", "for ops")
    assert not said(parse(text, secrets=False), "upstreams.oncall.key"), "nobody looked"


def test_entries_of_nobody(tmp_path: Path) -> None:
    route = '[[routes]]\nto = ["oncall"]\nset = { team = { by = "BY", table = "t.toml", else = "x" } }\n'
    by_caller = route.replace("BY", "caller")
    (tmp_path / "t.toml").write_text('ci = "7"\nterraform = "8"\n')
    assert not said(configured(by_caller, base=tmp_path), "t.toml")
    (tmp_path / "t.toml").write_text('ci = "7"\nterafrom = "8"\n')
    assert said(configured(by_caller, base=tmp_path), "no caller terafrom", "meant to be terraform")
    assert not said(configured(route.replace("BY", "resource"), base=tmp_path), "t.toml")


# --- the file's own tests --------------------------------------------------------------------------------------

EVENT = 'send = { eventType = "ALERT", summary = "s", severity = 1 }\n'


def tried(test: str, base: Path | None = None) -> list[str]:
    """The failures of one test of a file."""
    return list(failures(configured(CATCH_ALL + "[[tests]]\n" + test, base=base)))


@pytest.mark.parametrize(
    "expect",
    [
        '{ to = ["oncall"] }',
        '{ "oncall.payload.severity" = "critical", "oncall.payload.source" = "ci" }',
        '{ oncall = { payload = { severity = "critical" } } }',
        '{ route = "rest", wakes = true }',
    ],
)
def test_a_test_that_holds(expect: str) -> None:
    assert tried(f'from = "ilert"\ncaller = "ci"\n{EVENT}expect = {expect}') == []


@pytest.mark.parametrize(
    ("expect", "came"),
    [
        ('{ to = ["second"] }', 'to: expected ["second"], got ["oncall"]'),
        ('{ "oncall.payload.severity" = "info" }', 'oncall.payload.severity: expected "info", got "critical"'),
        (
            '{ oncall = { payload = { severity = "info" } } }',
            'oncall.payload.severity: expected "info", got "critical"',
        ),
        ('{ "oncall.links" = "x" }', 'oncall.links: expected "x", got nothing'),
        ('{ "second.priority" = "HIGH" }', "second.priority: expected"),
        ('{ route = "other" }', 'route: expected "other", got "rest"'),
        ("{ wakes = false }", "wakes: expected false, got true (oncall: payload.severity critical: wakes"),
        ("{ refused = true }", "refused: expected true, got nothing"),
    ],
)
def test_a_test_that_fails_says_what_came_instead(expect: str, came: str) -> None:
    [failure] = tried(f'from = "ilert"\ncaller = "ci"\n{EVENT}expect = {expect}')
    assert failure.startswith("tests[1]: ") and came in failure


def test_a_sample_lies_beside_the_file(tmp_path: Path) -> None:
    test = 'from = "ilert"\ncaller = "ci"\nsend = "samples/page.json"\nexpect = { to = ["oncall"] }\n'
    assert "cannot be read" in tried(test, tmp_path)[0]
    assert "cannot be read" in tried(test.replace("page.json", r"\u0000"), tmp_path)[0]
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "page.json").write_text('{"eventType": "ALERT", "summary": "s"}')
    assert tried(test, tmp_path) == []
    (tmp_path / "samples" / "page.json").write_text('{"eventType": ')
    assert "send:" in tried(test, tmp_path)[0]


def test_a_sample_that_is_refused_fails_unless_that_is_expected() -> None:
    refused = 'from = "ilert"\ncaller = "ci"\nsend = { eventType = "SHOUT" }\n'
    assert "was refused" in tried(refused + 'expect = { to = ["oncall"] }')[0]
    assert tried(refused + 'expect = { refused = "eventType" }') == []


def test_a_sample_that_its_upstream_cannot_be_told_does_not_go_there() -> None:
    """It would be refused, or be a dead letter: nobody would be woken, although its test had passed."""
    rules = '[upstreams.rules]\ndialect = "ibm_monitoring"\nurl = "https://x"\nkey = "k"\n'
    text = f'[[routes]]\nto = ["oncall", "rules"]\n{rules}[[tests]]\nfrom = "ilert"\ncaller = "ci"\n{EVENT}expect = '
    [failure] = failures(configured(text + '{ to = ["oncall", "rules"] }'))
    assert 'got ["oncall"] (rules: upstream' in failure and "condition.expression" in failure
    assert not list(failures(configured(text + '{ to = ["oncall"], refused = "condition.expression" }')))
    first = text.replace('to = ["oncall", "rules"]', 'to = ["rules", "oncall"]')
    assert "was refused: upstream 'rules' requires" in next(failures(configured(first + "{ wakes = false }")))


def test_who_sends_it_has_to_be_said_where_there_are_several() -> None:
    assert "caller" in tried(f'from = "ilert"\n{EVENT}expect = {{ to = ["oncall"] }}')[0]


@pytest.mark.parametrize(
    ("test", "path"),
    [
        ('from = "ilret"\nsend = "x"\nexpect = {}', "tests[1].from"),
        ('from = "ilert"\ncaller = "nobody"\nsend = "x"\nexpect = {}', "tests[1].caller"),
        ('from = "ilert"\nsend = "x"\nexpect = { "onkall.priority" = 1 }', "tests[1].expect"),
        ('from = ""\nsend = "x"\nexpect = {}', "tests[1].from"),
        ('from = "ilert"\nexpect = {}', "tests[1].send"),
        ('from = "ilert"\nsend = "x"\nexpects = {}', "tests[1].expects"),
    ],
)
def test_a_faulty_test_is_named_by_its_path(test: str, path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tried(test)
    assert any(one.startswith(f"{path}:") for one in caught.value.problems), caught.value.problems


# --- the command -----------------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> str:
    """A file with this configuration."""
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return str(path)


def test_the_command_ends_with_1_where_a_test_fails(tmp_path: Path) -> None:
    test = f'[[tests]]\nfrom = "ilert"\ncaller = "ci"\n{EVENT}expect = {{ to = ["oncall"] }}\n'
    text = INBOUND + ONCALL + CATCH_ALL + test
    good = run("check", "--config", written(tmp_path, text))
    assert good.exit_code == 0 and "1 test passed" in good.stdout
    assert "    priority HIGH; severity 1 → payload.severity critical → wakes" in good.stdout
    bad = run("check", "--config", written(tmp_path, text.replace('{ to = ["oncall"] }', "{ to = [] }")))
    assert bad.exit_code == 1 and 'got ["oncall"]' in bad.stderr and "good" not in bad.stdout


def test_without_secrets_a_file_can_be_checked_where_it_is_not_used(tmp_path: Path) -> None:
    text = INBOUND.replace('"ck"', '"env:ALERT_GATEWAY_NOT_SET"')
    text += ONCALL.replace('"k"', '{ by = "caller", dir = "/nowhere/at/all" }') + CATCH_ALL
    text += f'[[tests]]\nfrom = "ilert"\ncaller = "ci"\n{EVENT}expect = {{ to = ["oncall"] }}\n'
    path = written(tmp_path, text)
    assert run("check", "--config", path).exit_code == 1
    done = run("check", "--config", path, "--no-secrets")
    assert done.exit_code == 0, done.output
    assert run("check", "--config", path, "--no-secrets", "--connect").exit_code == 2


def connected(tmp_path: Path, dialect: str, url: str, key: str) -> Result:
    """Runs `check --connect` for one upstream."""
    upstream = f'[upstreams.there]\ndialect = "{dialect}"\nurl = "{url}"\nkey = {key}\ntimeout = "2s"\n'
    return run("check", "--connect", "--config", written(tmp_path, INBOUND + upstream))


def test_connecting_proves_address_and_key_and_creates_nothing(tmp_path: Path) -> None:
    sandbox = Sandbox(dialects(), UPSTREAM_KEY)
    with served(sandbox) as url:
        for name, dialect in dialects().items():
            good = connected(tmp_path, name, f"{url}/{name}", f'"{UPSTREAM_KEY}"')
            assert good.exit_code == 0, good.output
            if dialect.outbound.probe is None:
                assert f"the key cannot be proved: {dialect.title} has no call that creates nothing" in good.stdout
                assert "a server answers: address (no TLS)" in good.stdout
                continue
            assert "upstreams.there: good: address and key" in good.stdout
            bad = connected(tmp_path, name, f"{url}/{name}", '"canary-of-a-wrong-key"')
            assert bad.exit_code == 1 and "the key is not" in bad.stderr
            assert "canary" not in bad.output
        assert {one.method for one in sandbox.arrived} == {"GET"}
    gone = connected(tmp_path, "uptinio", "http://127.0.0.1:9", '"k"')
    assert gone.exit_code == 1 and "cannot be reached" in gone.stderr


def test_connecting_finds_nobody_there_also_where_no_key_can_be_proved(tmp_path: Path) -> None:
    """An unknown host name, a closed port and a server without TLS are errors also for a vendor whose key cannot be
    verified by connecting."""
    with served(Sandbox(dialects(), UPSTREAM_KEY)) as url:
        for wrong in ("http://127.0.0.1:9", "https://nobody.invalid", url.replace("http:", "https:")):
            found = connected(tmp_path, "pagerduty", wrong, '"canary"')
            assert found.exit_code == 1 and "upstreams.there: cannot be reached: " in found.stderr, found.output
            assert "canary" not in found.output and ": good" not in found.output


def test_connecting_proves_each_of_many_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    for name, key in (("a", UPSTREAM_KEY), ("b", "wrong")):
        (tmp_path / "keys" / name).write_text(key)
    with served(Sandbox(dialects(), UPSTREAM_KEY)) as url:
        done = connected(tmp_path, "uptinio", f"{url}/uptinio", f'{{ by = "caller", dir = "{tmp_path}/keys" }}')
    assert done.exit_code == 1
    assert "there (the key of a): good" in done.stdout
    assert "there (the key of b): the address is good, the key is not" in done.stderr


@pytest.mark.parametrize(
    ("dialect", "url", "says"),
    [
        ("pagerduty", "https://events.pagerduty.com/v2/enqueue", "did you mean 'https://events.pagerduty.com'?"),
        ("pagerduty", "https://events.eu.pagerduty.com/v2/", "/v2 is added for each request"),
        (
            "opsgenie",
            "https://api.atlassian.com/jsm/ops/integration/v2/alerts",
            "did you mean 'https://api.atlassian.com/jsm/ops/integration'?",
        ),
        ("opsgenie", "https://proxy.example.com/out/v2/alerts", "did you mean 'https://proxy.example.com/out'?"),
        (
            "splunk_oncall",
            "https://alert.victorops.com/integrations/generic/20131114/alert/31e945ee/$routing_key",
            "/alert/{credential}/{routing_key} is added for each request, so it would be in the path twice; "
            "did you mean 'https://alert.victorops.com'?",
        ),
        ("ilert", "https://api.ilert.com/api", "did you mean 'https://api.ilert.com'?"),
        ("uptinio", "https://api.uptinio.com/v1/alerts", "did you mean 'https://api.uptinio.com/v1'?"),
        ("uptinio", "https://api.uptinio.com", "the API is at https://api.uptinio.com/v1"),
        ("livesession", "https://api.livesession.io/v1", "did you mean 'https://api.livesession.io'?"),
        ("ilert", "http://api.ilert.com", "the key is sent to api.ilert.com unencrypted"),
    ],
)
def test_an_address_that_can_hardly_be_right(dialect: str, url: str, says: str) -> None:
    """A probable mistake in an address is warned of, as for some vendors connecting proves nothing and each page would
    be a dead letter."""
    found = said(_at(dialect, url), "upstreams.there.url: ")
    assert len(found) == 1 and says in found[0]


@pytest.mark.parametrize(
    ("dialect", "url"),
    [
        *((name, one.url) for name, one in dialects().items() if one.url.startswith("https:")),
        ("ibm_monitoring", "http://127.0.0.1:8090/ibm_monitoring"),
        ("alertmanager", "http://localhost:9093/alertmanager"),
        ("uptinio", "https://gateway.example.com/pager/uptinio"),
        ("grafana", "https://example.com/webhook"),
        ("opsgenie", "https://api.atlassian.com/jsm/ops/integration"),
    ],
)
def test_an_address_that_may_well_be_right(dialect: str, url: str) -> None:
    assert not said(_at(dialect, url), "upstreams.there.url")


def _at(dialect: str, url: str) -> Config:
    key = "iam_key" if dialect == "ibm_monitoring" else "key"
    return parse(INBOUND + f'[upstreams.there]\ndialect = "{dialect}"\nurl = "{url}"\n{key} = "k"\n')


def _keyed(
    directory: Path, dialect: str, by: str, more: str = "", route: str = "", *, secrets: bool = True
) -> list[str]:
    """Warnings about an upstream's key that is chosen by a field of one dialect's alerts."""
    (directory / "db").write_text("key-of-db")
    key = f'key = {{ by = "{by}", dir = "{directory}"{more} }}'
    text = f'[inbound.{dialect}]\nkeys = {{ ci = "k" }}\n' + ONCALL.replace('key = "k"', key) + CATCH_ALL + route
    return said(parse(text, secrets=secrets), "upstreams.oncall.key: ")


def test_a_key_chosen_by_what_no_caller_says_is_warned_of(tmp_path: Path) -> None:
    """Opsgenie's alerts have responders, not a team, and tags, not labels: no page would ever leave."""
    for by in ("team", "labels.team", "channels.id"):
        [warning] = _keyed(tmp_path, "opsgenie", by)
        assert f"opsgenie never says {by}" in warning
    assert not _keyed(tmp_path, "ilert", "labels.team")
    assert not _keyed(tmp_path, "opsgenie", "team", more=', else = "key-of-others"')
    unread = f', else = "file:{tmp_path}/not-here"'
    assert not _keyed(tmp_path, "opsgenie", "team", more=unread, secrets=False)
    assert not _keyed(tmp_path, "opsgenie", "kind"), "the gateway itself says that"
    assert not _keyed(tmp_path, "opsgenie", "team", route='set = { team = "db" }\n')


def test_a_key_chosen_by_a_field_that_callers_of_another_vendor_lack_is_warned_of(tmp_path: Path) -> None:
    """Opsgenie's alerts choose a key by their responders; PagerDuty's, which take the same route, would all be
    refused."""
    others = '[inbound.pagerduty]\nkeys = { ci = "k2" }\n'
    by = "extensions.opsgenie.responders.name"
    [warning] = _keyed(tmp_path, "opsgenie", by, route=others)
    assert f"pagerduty never says {by}" in warning
    assert not _keyed(tmp_path, "opsgenie", by, more=', else = "key-of-others"', route=others)
    assert not _keyed(tmp_path, "opsgenie", by)


def test_a_field_of_one_vendor_that_no_caller_says_is_warned_of(tmp_path: Path) -> None:
    def warned(dialect: str, name: str) -> list[str]:
        routes = f"[[routes]]\nwhen = ['{name} = db']\nto = [\"oncall\"]\n"
        text = f'[inbound.{dialect}]\nkeys = {{ ci = "k" }}\n' + ONCALL + routes + CATCH_ALL
        return said(parse(text), "no caller's dialect says")

    [misspelt] = warned("opsgenie", "extensions.opsgenie.responder.name")
    assert misspelt.startswith(
        "routes: 1: `when`: no caller's dialect says extensions.opsgenie.responder.name; did you"
    )
    assert warned("opsgenie", "extensions.opsgeni.tags")
    assert warned("ilert", "extensions.opsgenie.tags")
    assert not warned("opsgenie", "extensions.opsgenie.responders.name")
    assert not warned("jsm_ops", "extensions.opsgenie.tags")
    assert not warned("opsgenie", "extensions.opsgenie.something_new"), "what a vendor adds is kept under its name"
    by = "extensions.opsgenie.responder.name"
    [warning] = _keyed(tmp_path, "opsgenie", by)
    assert "did you mean 'responders'?" in warning


def test_a_store_whose_package_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose Python package is not installed is an error; `serve` would end at once."""
    text = 'store = "postgresql://me@db/alerts"\n' + INBOUND + ONCALL
    assert not said(parse(text), "store")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install '.[postgres]'" in str(said(parse(text), "store: "))
    assert not said(parse(text.replace("postgresql://me@db/alerts", "file:/not/here"), secrets=False), "store: ")


def test_a_key_with_the_word_that_the_dialect_puts_before_it() -> None:
    """A key copied with its scheme from a vendor's example is warned of: it would be sent as `GenieKey GenieKey …`, and
    a caller's key would never match."""
    text = '[inbound.opsgenie]\nkeys = { ci = "GenieKey canary", ops = "geniekey-1" }\n'
    text += '[upstreams.there]\ndialect = "uptinio"\nurl = "https://api.uptinio.com/v1"\nkey = "bearer canary"\n'
    text += '[upstreams.there.headers]\nX-Other = "Bearer canary"\n'
    found = said(parse(text), "is added in the header")
    assert [one.partition(": ")[0] for one in found] == ["inbound.opsgenie.keys.ci", "upstreams.there.key"]
    assert "canary" not in str(found)


def test_a_secret_in_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret with quotes is warned of: `docker run --env-file` passes quotes on."""
    monkeypatch.setenv("ALERT_GATEWAY_TEST_KEY", '"canary"')
    [found] = said(parse(INBOUND + ONCALL.replace('"k"', '"env:ALERT_GATEWAY_TEST_KEY"')), "quotes")
    assert found.startswith("upstreams.oncall.key: ") and "canary" not in found


def test_a_key_that_is_to_be_a_user_and_a_password() -> None:
    url = 'url = "https://api.atlassian.com/jsm/ops/api/x/v1"\n'
    for key, is_right in (("canary", False), ("me@example.com:canary", True)):
        text = INBOUND + f'[upstreams.there]\ndialect = "jsm_ops"\n{url}key = "{key}"\n'
        assert bool(said(parse(text), "upstreams.there.key: ", "has no colon")) is not is_right


def test_durations_that_are_hardly_as_short_as_they_were_meant() -> None:
    short = 'timeout = "500ms"\nretry = { max_age = "900ms" }\n'
    beat = '[heartbeat]\nurl = "https://example.com/ping"\nevery = "60ms"\nstall = "120ms"\n'
    route = '[[routes]]\nname = "all"\nto = ["oncall"]\nfallback = { to = ["other"], after = "20ms" }\n'
    other = ONCALL.replace(".oncall", ".other")
    text = 'retention = "9000ms"\n' + INBOUND + ONCALL + short + other + route + beat
    assert [one.partition(": ")[0] for one in said(parse(text), "seems a mistake")] == [
        "upstreams.oncall.timeout",
        "upstreams.oncall.retry.max_age",
        "routes.all.fallback.after",
        "heartbeat.every",
        "heartbeat.stall",
        "retention",
    ]
    assert not said(parse(text.replace('ms"', 's"')), "seems a mistake")


def test_the_url_of_a_store_that_nobody_can_read() -> None:
    url = "postgresql://me:canary@db/alerts?sslmod=require"
    [found] = said(parse(f'store = "{url}"\n' + INBOUND + ONCALL), "store: ")
    assert "its URL cannot be read" in found and "canary" not in found


def test_a_secret_with_a_blank_at_an_end(tmp_path: Path) -> None:
    """A secret that begins or ends with a blank is warned of: no client can send such a key in a header."""
    (tmp_path / "key").write_text(" canary\n")
    text = INBOUND.replace('"ck"', '"ck "') + ONCALL.replace('"k"', f'"file:{tmp_path}/key"')
    found = said(parse(text), "a space")
    assert [one.partition(": ")[0] for one in found] == ["inbound.ilert.keys.ci", "upstreams.oncall.key"]
    assert "canary" not in str(found)
    (tmp_path / "key").unlink()
    assert len(said(parse(text, secrets=False), "a space")) == 1


def test_a_suggestion_is_made_where_one_is_near() -> None:
    for text, near in [
        (CATCH_ALL.replace("oncall", "onkall"), "'oncall'"),
        (CATCH_ALL.replace("to =", 'from = ["ilret"]\nto ='), "'ilert'"),
        (CATCH_ALL.replace("to =", 'from = ["ilert/op"]\nto ='), "'ops'"),
        (CATCH_ALL.replace('["oncall"]', '[{ upstraem = "oncall" }]'), "'upstream'"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            configured(text)
        assert any(near in problem for problem in caught.value.problems), caught.value.problems
