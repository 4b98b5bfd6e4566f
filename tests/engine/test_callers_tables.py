"""Values that routes look up in tables, by caller or by a field of the alert."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.asked import Command
from gateway.canonical import Operation
from gateway.cli.sandbox import Sandbox
from gateway.config.config import Config
from gateway.config.loading import parse
from gateway.config.routing import always, choose
from gateway.errors import ConfigurationError
from gateway.process.service import Gateway
from gateway.registry import dialects
from tests.engine.many import TWO
from tests.harness import served


def routed(tmp_path: Path, route: str, table: str = 'ci = "7"\ndb = "8"\n') -> Config:
    """A configuration with one route and a lookup table `t.toml`."""
    (tmp_path / "t.toml").write_text(table)
    return parse(TWO + "[[routes]]\n" + route, base=tmp_path)


def set_for(config: Config, caller: str, **alert: Any) -> list[dict[str, Any]]:
    """The values that routes set for an alert, per upstream."""
    return [choice.replaced for choice in choose(config.routes, "ilert", caller, alert) or ()]


@pytest.mark.parametrize(
    ("by", "alert", "meant"),
    [
        ("caller", {}, {"team": "7"}),
        ("team", {"team": "db"}, {"team": "8"}),
        ("labels.owner", {"labels": {"owner": "db"}}, {"team": "8"}),
        ("team", {"team": "unknown"}, {}),
        ("team", {}, {}),
    ],
)
def test_a_value_is_looked_up_by_caller_or_field(tmp_path: Path, by: str, alert: dict[str, Any], meant: Any) -> None:
    config = routed(tmp_path, f'to = ["oncall"]\nset = {{ team = {{ by = "{by}", table = "t.toml" }} }}')
    assert set_for(config, "ci", **alert) == [meant]


def test_an_entry_that_is_not_there_gets_the_else(tmp_path: Path) -> None:
    config = routed(tmp_path, 'to = ["oncall"]\nset = { team = { by = "caller", table = "t.toml", else = "9" } }')
    assert set_for(config, "cd") == [{"team": "9"}]


def test_what_an_entry_of_to_sets_comes_before_what_the_route_sets(tmp_path: Path) -> None:
    config = routed(
        tmp_path,
        'to = [{ upstream = "oncall", set = { team = "mine" } }, "second"]\n'
        'set = { team = { by = "caller", table = "t.toml" }, resource = "r" }',
    )
    assert set_for(config, "ci") == [{"team": "mine", "resource": "r"}, {"team": "7", "resource": "r"}]
    config = routed(
        tmp_path,
        'to = [{ upstream = "oncall", set = { team = { by = "caller", table = "t.toml" } } }, "second"]\n'
        'set = { team = "all" }',
    )
    assert set_for(config, "ci") == [{"team": "7"}, {"team": "all"}]


def test_a_table_that_is_emptied_stays_as_it_was_while_it_may_be_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table found empty keeps its former entries for a while; otherwise all alerts would go where those of unlisted
    callers go."""
    config = routed(tmp_path, 'to = ["oncall"]\nset = { team = { by = "caller", table = "t.toml", else = "all" } }')
    now = [time.monotonic()]
    monkeypatch.setattr("gateway.config.following.time.monotonic", lambda: now[0])
    for text, seconds, meant in [
        ("", 1, "7"),
        ('ci = "70"', 1, "70"),
        ("# none", 1, "70"),
        ("", 1, "70"),
        (None, 10, "all"),
        ('ci = "71"', 1, "71"),
        ("", 1, "71"),
    ]:
        if text is not None:
            (tmp_path / "t.toml").write_text(text)
        now[0] += seconds
        assert set_for(config, "ci") == [{"team": meant}], text


def test_a_table_that_changes_is_followed_and_a_bad_one_is_not(tmp_path: Path) -> None:
    config = routed(tmp_path, 'to = ["oncall"]\nset = { team = { by = "caller", table = "t.toml" } }')
    config.routes[0].to[0].lookups[0].table.look_every = 0.0
    deep = f"ci = {'[' * 5000}{']' * 5000}"
    for text, meant in [('ci = "70"', "70"), ("ci = [", "70"), (deep, "70"), ("ci = 70", "70"), ('ci = "700"', "700")]:
        (tmp_path / "t.toml").write_text(text)
        assert set_for(config, "ci") == [{"team": meant}]
    (tmp_path / "t.toml").unlink()
    assert set_for(config, "ci") == [{"team": "700"}]


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ('team = { by = "caller", table = "none.toml" }', "routes[1].set.team.table", "cannot be read"),
        ('team = { by = "caler", table = "t.toml" }', "routes[1].set.team.by", "'caller'"),
        ('team = { by = "caller" }', "routes[1].set.team.table", "is required"),
        ('team = { by = "caller", table = "t.toml", esle = "x" }', "routes[1].set.team.esle", "'else'"),
        ('team = { by = "caller", table = "t.toml", else = 5 }', "routes[1].set.team.else", "a text"),
        (
            'severity = { by = "caller", table = "t.toml" }',
            "routes[1].set.severity",
            "t.toml: ci: must be a whole number",
        ),
        ('teem = "x"', "routes[1].set.teem", "'team'"),
    ],
)
def test_a_faulty_lookup_is_named_by_its_path(tmp_path: Path, text: str, path: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        routed(tmp_path, f'to = ["oncall"]\nset = {{ {text} }}')
    assert any(one.startswith(f"{path}:") and says in one for one in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ('to = ["oncall", "oncall"]', "routes[1].to", "'oncall' is listed twice"),
        (
            'to = []\nbecause = "x"\nfallback = { to = ["oncall", "oncall"] }',
            "routes[1].fallback.to",
            "'oncall' is listed twice",
        ),
    ],
)
def test_an_upstream_that_is_named_twice_is_told_once_and_that_is_said(
    tmp_path: Path, text: str, path: str, says: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        routed(tmp_path, text)
    assert f"{path}: {says}" in caught.value.problems


def test_a_route_that_chooses_a_key_for_everybody_else_has_a_name(tmp_path: Path) -> None:
    """A waiting delivery remembers the name of the route that chose its key; a position could mean another route after
    a reload."""
    (tmp_path / "t.toml").write_text('ci = "7"\n')
    upstream = TWO.replace('dialect = "ilert"\nurl', 'dialect = "pagerduty"\nurl')
    chosen = 'to = ["oncall"]\nset.routing_key = { by = "caller", table = "t.toml", else = "9" }'
    assert parse(f'{upstream}[[routes]]\nname = "ours"\n{chosen}', base=tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        parse(f"{upstream}[[routes]]\n{chosen}", base=tmp_path)
    assert [one.partition(":")[0] for one in caught.value.problems] == ["routes[1].name"]


def test_keys_that_a_route_chooses_only_after_a_reload_are_used(tmp_path: Path) -> None:
    """The upstream's own key table is unchanged; only the route is new."""
    (tmp_path / "keys.toml").write_text('a = "secret-of-a"\n')
    sandbox = Sandbox(dialects(), "secret-of-a")
    with served(sandbox) as url:
        text = f"""
        store = "sqlite://{tmp_path}/gateway.db"
        [inbound.ilert]
        keys = {{ a = "ka" }}
        [upstreams.services]
        dialect = "pagerduty"
        url = "{url}/pagerduty"
        key = "nobody-s"
        [[routes]]
        to = ["services"]
        """
        before, after = parse(text), parse(text + SET_KEY, base=tmp_path)

        async def reloaded() -> None:
            gateway = Gateway(before)
            async with gateway.running():
                await gateway.reload(after)
                assert gateway.desk
                alert = Command(operation=Operation.CREATE, patch={"summary": "s", "dedup_key": "k"})
                await gateway.desk.serve(after.inbounds["ilert"], "a", alert, gateway.desk.ids())
                for _ in range(250):
                    if sandbox.arrived:
                        return
                    await asyncio.sleep(0.02)

        asyncio.run(reloaded())
    assert [one.body["routing_key"] for one in sandbox.arrived] == ["secret-of-a"]


SET_KEY = 'set = { routing_key = { by = "caller", table = "keys.toml" } }\n'


def test_what_is_looked_up_for_a_fallback_comes_from_its_first_route_and_it_stands_by_for_each(tmp_path: Path) -> None:
    by_caller = '{ by = "caller", table = "t.toml" }'
    config = routed(
        tmp_path,
        f'to = ["oncall"]\nset = {{ team = {by_caller} }}\nfallback = {{ to = ["sms"], after = "5s" }}\n'
        'continue = true\n[[routes]]\nto = ["second"]\nfallback = { to = ["sms"] }\n'
        '[upstreams.sms]\ndialect = "ilert"\nurl = "https://api.ilert.com"\nkey = "k"\n',
    )
    assert always(config.routes, "ilert", "ci") is None, "a table decides, and may change"
    *_, last = choose(config.routes, "ilert", "ci", {}) or ()
    assert (last.upstream, last.replaced, last.after) == ("sms", {"team": "7"}, 5.0)
    assert last.instead_of == (("oncall",), ("second",))
