"""Three hundred callers through one upstream table each: keys from a directory, targets from tables, and which key is
used for whom."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import CapturingLogger

from gateway.asked import Command
from gateway.canonical import Operation
from gateway.cli.commands import main
from gateway.cli.sandbox import Sandbox
from gateway.config import following
from gateway.config.choosing import Keys, key_entry, lane, same_entries
from gateway.config.config import Config, parse
from gateway.config.following import Directory, Table
from gateway.config.routing import choose
from gateway.config.secrets import BEING_WRITTEN, Keyring, Secret
from gateway.delivery.attempt import Client
from gateway.delivery.held import HeldKeys
from gateway.errors import ConfigurationError
from gateway.process.service import Gateway
from gateway.registry import dialects
from tests.chaos_upstream import chaos, say
from tests.engine.vendors import table
from tests.harness import House, served

MANY = 300
NAMES = [f"svc-{number:03}" for number in range(MANY)]


def files(directory: Path, content: dict[str, str]) -> Path:
    """A directory with these files."""
    directory.mkdir()
    for name, text in content.items():
        (directory / name).write_text(text + "\n")
    return directory


@contextmanager
def open_house(directory: Path, config: Callable[[str], str]) -> Iterator[House]:
    """A gateway in front of a sandbox that takes any key, as if three hundred services of one vendor stood there."""
    sandbox = Sandbox(dialects(), "unused")
    let_in = {name: replace(inbound, anonymous=True) for name, inbound in sandbox.gateway.config.inbounds.items()}
    sandbox.gateway.config = replace(sandbox.gateway.config, inbounds=let_in)
    with served(sandbox) as sandbox_url:
        text = f'store = "sqlite://{directory}/gateway.db"\n' + config(sandbox_url)
        (directory / "gateway.toml").write_text(text)
        gateway = Gateway(parse(text, base=directory))
        with served(gateway.app) as url:
            standing = House(url, sandbox_url, gateway, sandbox)
            with standing.client:
                yield standing


def outbox(directory: Path) -> list[dict[str, Any]]:
    """All deliveries, read as an operator does."""
    words = ["deliveries", "--config", str(directory / "gateway.toml"), "--limit", "5000", "--json"]
    listed: list[dict[str, Any]] = json.loads(CliRunner().invoke(main, words).stdout)
    return listed


def many(directory: Path) -> Callable[[str], str]:
    """ilert and PagerDuty callers; one ilert upstream with a policy per caller, one PagerDuty upstream with a service
    per caller."""
    files(directory / "callers", {name: f"credential-of-{name}" for name in NAMES})
    files(directory / "events", {name: f"{number:032x}" for number, name in enumerate(NAMES)})
    files(directory / "services", {name: f"secret-service-{name}" for name in NAMES})
    (directory / "teams.toml").write_text("".join(f'{name} = "policy-{name}"\n' for name in NAMES))
    (directory / "owners.toml").write_text("".join(f'{name} = "team-{name}"\n' for name in NAMES))
    return lambda url: (
        f"""
        [inbound.ilert]
        keys = "dir:{directory}/callers"
        [inbound.pagerduty]
        keys = "dir:{directory}/events"
        [upstreams.oncall]
        dialect = "ilert"
        url = "{url}/ilert"
        key = "one-key-for-all"
        [upstreams.services]
        dialect = "pagerduty"
        url = "{url}/pagerduty"
        key = {{ by = "caller", dir = "{directory}/services" }}
        [[routes]]
        name = "fan"
        to = [
            {{ upstream = "oncall", set = {{ routing_key = {{ by = "caller", table = "teams.toml" }} }} }},
            "services",
        ]
        set = {{ team = {{ by = "caller", table = "owners.toml", else = "nobody" }} }}
        """
    )


def test_three_hundred_callers_reach_their_own_policy_and_their_own_service(tmp_path: Path) -> None:
    """They all use the same alert key; each policy and each service gets exactly its own caller's alert."""
    with open_house(tmp_path, many(tmp_path)) as h:
        for number, name in enumerate(NAMES):
            event = {
                "eventType": "ALERT",
                "summary": f"from {name}",
                "alertKey": "disk",
                "apiKey": f"credential-of-{name}",
            }
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            trigger = {
                "routing_key": f"{number:032x}",
                "event_action": "trigger",
                "dedup_key": "cpu",
                "payload": {"summary": f"from {name}", "source": name, "severity": "error"},
            }
            assert h.call("POST", "/pagerduty/v2/enqueue", trigger, key=None).status == 202
        policies = h.wait_for(lambda: len(h.arrived("ilert")) >= 2 * MANY and h.arrived("ilert"), 60)
        services = h.wait_for(lambda: len(h.arrived("pagerduty")) >= 2 * MANY and h.arrived("pagerduty"), 60)
        h.wait_for(lambda: all(row["state"] == "delivered" for row in outbox(tmp_path)))
    reached = {(got.body["routingKey"], got.body["alertKey"], got.body["summary"]) for got in policies}
    assert reached == {(f"policy-{name}", key, f"from {name}") for name in NAMES for key in ("disk", "cpu")}
    paged = {(got.body["routing_key"], got.body["dedup_key"], got.body["payload"]["summary"]) for got in services}
    assert paged == {(f"secret-service-{name}", key, f"from {name}") for name in NAMES for key in ("disk", "cpu")}
    rows = outbox(tmp_path)
    assert len(rows) == 4 * MANY
    for row in rows:
        set_there = {fate["field"] for fate in row["report"] if fate["why"].startswith("set by route fan")}
        assert set_there >= ({"team", "routing_key"} if row["upstream"] == "oncall" else {"team"}), row["report"]
    for path in tmp_path.glob("gateway.db*"):
        assert b"secret-service" not in path.read_bytes(), "the store keeps the entry, never the secret"


def test_a_routing_key_that_is_the_credential_is_chosen_in_a_table_and_not_kept(tmp_path: Path) -> None:
    """canonical.md, *Scope*: a scope is named after the caller's entry, never after the secret."""
    (tmp_path / "keys.toml").write_text('a = "secret-of-a"\nb = "file:' + f'{tmp_path}/b"\n')
    (tmp_path / "b").write_text("secret-of-b\n")

    def config(url: str) -> str:
        return f"""
        [inbound.ilert]
        keys = {{ a = "ka", b = "kb", c = "kc" }}
        [upstreams.services]
        dialect = "pagerduty"
        url = "{url}/pagerduty"
        key = "the-upstream-s-own"
        [[routes]]
        name = "r"
        to = ["services"]
        set = {{ routing_key = {{ by = "caller", table = "keys.toml", else = "secret-of-others" }} }}
        """

    with open_house(tmp_path, config) as h:
        for caller in "abc":
            for kind in ("ALERT", "ACCEPT", "RESOLVE"):
                event = {"eventType": kind, "summary": "s", "alertKey": "k", "apiKey": f"k{caller}"}
                assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        unknown = {"eventType": "RESOLVE", "alertKey": "older", "apiKey": "kb"}
        assert h.call("POST", "/ilert/api/events", unknown, key=None).status == 202
        got = h.arrives("pagerduty", 10)
        h.wait_for(lambda: all(row["state"] == "delivered" for row in outbox(tmp_path)))
    assert {(one.body["routing_key"], one.body["dedup_key"]) for one in got} == {
        ("secret-of-a", "k"),
        ("secret-of-b", "k"),
        ("secret-of-b", "older"),
        ("secret-of-others", "k"),
    }
    [reported] = [row for row in outbox(tmp_path) if row["lane"].startswith("as keys.toml%3Aa") and row["report"]][-1:]
    assert {"field": "routing_key", "fate": "approximated", "to": "", "why": "set by route r"} in reported["report"]
    for path in tmp_path.glob("gateway.db*"):
        assert b"secret-of" not in path.read_bytes()


# --- one file per caller ---------------------------------------------------------------------------------------


def followed(directory: Directory) -> Directory:
    """The directory, read again at every access."""
    directory.look_every = 0.0
    return directory


def test_a_file_that_appears_changes_or_vanishes_is_followed(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    ring = Keyring({}, followed(Directory(str(tmp_path / "keys"))))
    assert (ring.caller("key-of-ci"), ring.caller("key-of-cd")) == ("ci", None)
    (tmp_path / "keys" / "cd").write_text("key-of-cd")
    assert ring.caller("key-of-cd") == "cd"
    (tmp_path / "keys" / "ci").write_text("another-key")
    assert (ring.caller("another-key"), ring.caller("key-of-ci")) == ("ci", None)
    (tmp_path / "keys" / "cd").unlink()
    assert ring.caller("key-of-cd") is None
    assert ring.names() == ["ci"]


def test_a_file_that_is_emptied_or_gone_for_a_moment_keeps_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be being written: until `BEING_WRITTEN` has passed callers are not refused, and alerts do not go out
    with the key of everybody else."""
    files(tmp_path / "keys", {"ci": "key-of-ci", "cd": "key-of-cd"})
    now = [time.monotonic()]
    monkeypatch.setattr("gateway.config.following.time.monotonic", lambda: now[0])
    directory = Directory(str(tmp_path / "keys"))
    ring, keys = Keyring({}, directory), Keys(Secret("of-others"), "team", directory)

    def after(seconds: float) -> tuple[str | None, str | None, str]:
        now[0] += seconds
        return ring.caller("key-of-ci"), ring.caller("key-of-cd"), keys.entry({"team": "cd"})

    (tmp_path / "keys" / "ci").write_text("")
    (tmp_path / "keys" / "cd").unlink()
    assert after(1) == ("ci", "cd", "cd")
    (tmp_path / "keys" / "cd").write_text("key-of-cd")
    assert after(1) == ("ci", "cd", "cd")
    (tmp_path / "keys" / "cd").unlink()
    assert after(1) == ("ci", "cd", "cd"), "it was there meanwhile"
    assert after(1) == ("ci", None, "")
    assert after(BEING_WRITTEN) == (None, None, "")
    (tmp_path / "keys" / "ci").write_text("key-of-ci")
    assert after(1) == ("ci", None, "")


def test_who_lost_a_file_is_refused_at_the_next_call_however_long_nobody_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key whose file is gone is refused at the first call afterwards, even if no request came in between to notice
    it."""
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    (tmp_path / "key").write_text("key-of-cd")
    monkeypatch.setattr("gateway.config.secrets.BEING_WRITTEN", 1.0)

    def config(url: str) -> str:
        callers = f'[inbound.ilert]\nkeys = "dir:{tmp_path}/keys"\n'
        oncall = table("oncall", f"{url}/ilert", "ilert")
        return f'{callers}[inbound.opsgenie]\nkeys = {{ cd = "file:{tmp_path}/key" }}\n{oncall}'

    with open_house(tmp_path, config) as h:

        def seen() -> list[int]:
            asked = [("/ilert/api/alerts", "Bearer key-of-ci"), ("/opsgenie/v2/alerts", "GenieKey key-of-cd")]
            return [h.client.get(h.url + path, headers={"authorization": key}).status_code for path, key in asked]

        assert seen() == [200, 200]
        (tmp_path / "keys" / "ci").unlink()
        (tmp_path / "key").write_text("")
        time.sleep(4.5)  # nobody calls
        assert seen() == [401, 401]


def test_a_file_that_has_another_name_names_that_caller_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renamed file names the new caller at once; with both names valid the key would belong to neither."""
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    now = [time.monotonic()]
    monkeypatch.setattr("gateway.config.following.time.monotonic", lambda: now[0])
    ring = Keyring({}, Directory(str(tmp_path / "keys")))
    assert ring.caller("key-of-ci") == "ci"
    (tmp_path / "keys" / "ci").rename(tmp_path / "keys" / "cd")
    now[0] += 1
    assert (ring.caller("key-of-ci"), ring.names()) == ("cd", ["cd"])


def test_a_vanished_file_is_logged_and_says_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = CapturingLogger()
    monkeypatch.setattr(following, "log", heard)
    files(tmp_path / "keys", {"ci": "key-of-ci", "cd": "key-of-cd"})
    directory = followed(Directory(str(tmp_path / "keys")))
    (tmp_path / "keys" / "cd").unlink()
    directory.look()
    assert [(call.args, call.kwargs["name"]) for call in heard.calls] == [(("secret.revoked",), "cd")]
    assert "key-of-cd" not in str(heard.calls)


def test_what_cannot_be_read_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a table or a directory that cannot be read is logged once, not at every look."""
    heard = CapturingLogger()
    monkeypatch.setattr(following, "log", heard)
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    (tmp_path / "t.toml").write_text("a = 1")
    directory, table = followed(Directory(str(tmp_path / "keys"))), Table("t.toml", tmp_path / "t.toml")
    table.look_every = 0.0
    for number in range(2):
        (tmp_path / "keys" / "ci").write_bytes(b"key\xff" + b"x" * number)
        (tmp_path / "t.toml").write_text("a = [")
        for _ in range(3):
            directory.look()
            table.look()
        (tmp_path / "keys").rename(tmp_path / "away")
        for _ in range(3):
            directory.look()
        (tmp_path / "away").rename(tmp_path / "keys")
        (tmp_path / "keys" / "ci").write_text(f"key-{number}")
        (tmp_path / "t.toml").write_text(f"a = 2{number}")
        directory.look()
        table.look()
    once = ["secret.unreadable", "table.refused", "secrets.unreadable", "secret.changed", "table.changed"]
    assert [call.args[0] for call in heard.calls] == 2 * once


def test_a_mounted_secret_that_is_swapped_by_symlink_is_followed(tmp_path: Path) -> None:
    """Orchestrators mount secrets so: files are symlinks through `..data`, which is replaced by renaming."""
    mount = tmp_path / "keys"
    files(tmp_path / "1", {"ci": "key-1", "old": "key-of-old"})
    files(tmp_path / "2", {"ci": "key-2", "new": "key-of-new"})
    mount.mkdir()
    (mount / "..data").symlink_to(tmp_path / "1")
    for name in ("ci", "old"):
        (mount / name).symlink_to(f"..data/{name}")
    ring = Keyring({}, followed(Directory(str(mount))))
    assert (ring.caller("key-1"), ring.caller("key-of-old")) == ("ci", "old")
    (mount / "..next").symlink_to(tmp_path / "2")
    (mount / "..next").rename(mount / "..data")
    (mount / "new").symlink_to("..data/new")
    (mount / "old").unlink()
    assert (ring.caller("key-2"), ring.caller("key-of-new")) == ("ci", "new")
    assert ring.caller("key-1") is None and ring.caller("key-of-old") is None


def test_an_empty_directory_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    assert Keyring({}, Directory(str(tmp_path / "keys")))
    assert Keyring({}, Directory(str(tmp_path / "keys"))).caller("") is None


def test_a_directory_that_cannot_be_read_for_a_while_revokes_nothing(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    ring = Keyring({}, followed(Directory(str(tmp_path / "keys"))))
    (tmp_path / "keys").rename(tmp_path / "away")
    assert ring.caller("key-of-ci") == "ci"


def test_two_files_with_one_credential_name_neither(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    ring = Keyring({}, followed(Directory(str(tmp_path / "keys"))))
    assert ring.caller("key-of-ci") == "ci"
    (tmp_path / "keys" / "cd").write_text("key-of-ci")
    assert ring.caller("key-of-ci") is None


def test_a_file_that_is_named_as_strangers_are_names_nobody(tmp_path: Path) -> None:
    """A file called `anonymous` that appears later is ignored (at the start it is refused): its caller would share the
    scope of callers without a key."""
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    ring = Keyring({}, followed(Directory(str(tmp_path / "keys"))))
    assert ring.caller("key-of-ci") == "ci"
    (tmp_path / "keys" / "anonymous").write_text("key-of-anonymous")
    assert (ring.caller("key-of-anonymous"), ring.caller("key-of-ci")) == (None, "ci")


def test_two_listed_callers_whose_files_come_to_one_credential_name_neither(tmp_path: Path) -> None:
    """Refused at the start; if a file changes later, one caller must not become another."""
    (tmp_path / "one").write_text("key-of-one")
    (tmp_path / "two").write_text("key-of-two")
    ring = Keyring({name: [Secret(f"file:{tmp_path}/{name}")] for name in ("one", "two")})
    assert (ring.caller("key-of-one"), ring.caller("key-of-two")) == ("one", "two")
    (tmp_path / "two").write_text("key-of-one\n")
    assert ring.caller("key-of-one") is None
    (tmp_path / "two").write_text("another-key")
    assert (ring.caller("key-of-one"), ring.caller("another-key")) == ("one", "two")


def test_no_name_leads_out_of_the_directory(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    (tmp_path / "elsewhere").write_text("not-yours")
    directory = Directory(str(tmp_path / "keys"))
    assert directory.get("../elsewhere") is None
    assert Keys(None, "team", directory).lacks("../elsewhere")


def test_an_else_is_not_suggested_for_what_it_would_not_send(tmp_path: Path) -> None:
    """An alert that was opened with a key of its own is in that key's account."""
    directory = Directory(str(files(tmp_path / "keys", {})))
    assert "`else` for new alerts" in Keys(None, "caller", directory).lacks("ci")
    assert "`else`" not in Keys(Secret("of-others"), "caller", directory).lacks("ci")


def test_nothing_is_read_per_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path / "keys", {name: f"key-of-{name}" for name in NAMES})
    (tmp_path / "teams.toml").write_text("".join(f'{name} = "p"\n' for name in NAMES))
    ring, table = Keyring({}, Directory(str(tmp_path / "keys"))), Table("teams.toml", tmp_path / "teams.toml")
    ring.caller("key-of-svc-000")
    looks: list[Any] = []
    stat, scan = os.stat, os.scandir

    def counting(real: Any) -> Any:
        def look(*args: Any, **more: Any) -> Any:
            looks.append(args)
            return real(*args, **more)

        return look

    monkeypatch.setattr(os, "stat", counting(stat))
    monkeypatch.setattr(os, "scandir", counting(scan))
    began = time.monotonic()
    for _ in range(1000):
        assert ring.caller("key-of-svc-299") == "svc-299"
        assert table.values()["svc-299"] == "p"
    took = time.monotonic() - began
    assert len(looks) <= (took + 1) * (MANY + 2), "at most one look a second"


def test_a_caller_among_three_hundred_is_known_as_fast_as_a_single_one(tmp_path: Path) -> None:
    files(tmp_path / "keys", {name: f"key-of-{name}" for name in NAMES})
    many, one = Keyring({}, Directory(str(tmp_path / "keys"))), Keyring({"ci": [Secret("key")]})

    def best(ring: Keyring, key: str) -> float:
        found = []
        for _ in range(10):
            began = time.perf_counter()
            for _ in range(200):
                ring.caller(key)
            found.append(time.perf_counter() - began)
        return min(found)

    assert best(many, "key-of-svc-299") < 5 * best(one, "key"), "reading them all takes thirty times as long"


# --- tables ----------------------------------------------------------------------------------------------------

TWO = """
[inbound.ilert]
keys = { ci = "caller-key", cd = "other-key" }
[upstreams.oncall]
dialect = "ilert"
url = "https://api.ilert.com"
key = "upstream-key"
[upstreams.second]
dialect = "ilert"
url = "https://api.ilert.com"
key = "upstream-key"
"""


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
        ("", 10, "all"),
    ]:
        (tmp_path / "t.toml").write_text(text)
        now[0] += seconds
        assert set_for(config, "ci") == [{"team": meant}], text


def test_a_table_that_changes_is_followed_and_a_bad_one_is_not(tmp_path: Path) -> None:
    config = routed(tmp_path, 'to = ["oncall"]\nset = { team = { by = "caller", table = "t.toml" } }')
    config.routes[0].to[0].lookups[0].table.look_every = 0.0
    for text, meant in [('ci = "70"', "70"), ("ci = [", "70"), ("ci = 70", "70"), ('ci = "700"', "700")]:
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
    *_, last = choose(config.routes, "ilert", "ci", {}) or ()
    assert (last.upstream, last.replaced, last.after) == ("sms", {"team": "7"}, 5.0)
    assert last.instead_of == (("oncall",), ("second",))


# --- keys of an upstream -----------------------------------------------------------------------------------------


def test_a_caller_without_a_key_is_refused_and_the_else_is_for_everybody_else(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"a": "secret-of-a"})

    def config(url: str) -> str:
        return f"""
        [inbound.ilert]
        keys = {{ a = "ka", b = "kb" }}
        [upstreams.strict]
        dialect = "ilert"
        url = "{url}/ilert"
        key = {{ by = "caller", dir = "{tmp_path}/keys" }}
        [upstreams.lenient]
        dialect = "pagerduty"
        url = "{url}/pagerduty"
        key = {{ by = "caller", dir = "{tmp_path}/keys", else = "secret-of-others" }}
        [[routes]]
        when = ["labels.to = lenient"]
        to = ["lenient"]
        [[routes]]
        to = ["strict"]
        """

    with open_house(tmp_path, config) as h:
        event = {"eventType": "ALERT", "summary": "s", "apiKey": "kb", "alertKey": "x"}
        refused = h.call("POST", "/ilert/api/events", event, key=None)
        assert refused.status == 400
        assert "strict" in json.dumps(refused.body) and "'b'" in json.dumps(refused.body)
        for key in ("ka", "kb"):
            sent = h.call("POST", "/ilert/api/events", {**event, "apiKey": key, "labels": {"to": "lenient"}}, key=None)
            assert sent.status == 202
        got = h.arrives("pagerduty", 2)
        assert {one.body["routing_key"] for one in got} == {"secret-of-a", "secret-of-others"}
        assert {one.body["dedup_key"] for one in got} == {"x"}, "each has it to itself"


def test_a_refused_key_holds_only_what_uses_it(tmp_path: Path) -> None:
    """The vendor knows one of two keys: the alerts that use the other wait, and are sent once that key is corrected."""
    files(tmp_path / "keys", {"a": "secret-of-a", "b": "mistyped"})

    def config(url: str) -> str:
        return f"""
        [inbound.ilert]
        keys = {{ a = "ka", b = "kb" }}
        [inbound.uptinio]
        keys = {{ x = "secret-of-a", y = "secret-of-b" }}
        [upstreams.next]
        dialect = "uptinio"
        url = "{{OWN}}"
        key = {{ by = "caller", dir = "{tmp_path}/keys" }}
        defaults = {{ resource = "mon_1" }}
        [upstreams.end]
        dialect = "ilert"
        url = "{url}/ilert"
        key = "k"
        [[routes]]
        from = ["uptinio"]
        to = ["end"]
        [[routes]]
        to = ["next"]
        """

    with (
        open_house(tmp_path, lambda url: config(url).replace("{OWN}", f"{url}/uptinio")) as ends,
        open_house_to(tmp_path / "first", config(ends.sandbox_url).replace("{OWN}", f"{ends.url}/uptinio")) as h,
    ):
        for key in ("kb", "ka", "kb", "ka"):
            event = {"eventType": "ALERT", "summary": f"by {key}", "apiKey": key}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
        ends.wait_for(lambda: len(ends.arrived("ilert")) >= 2)
        assert {one.body["summary"] for one in ends.arrived("ilert")} == {"by ka"}
        assert h.gateway.dispatcher and h.gateway.dispatcher.breakers()["next"].state == "closed"
        assert _held(h) == (1.0, ["b"])
        keys = h.gateway.config.upstreams["next"].keys
        assert keys and keys.directory
        keys.directory.look_every = 0.0
        (tmp_path / "keys" / "b").write_text("secret-of-b")
        ends.wait_for(lambda: len(ends.arrived("ilert")) >= 4, 20)
        assert _held(h) == (0.0, None)


def test_nobody_waits_for_a_verdict_while_a_key_is_held(tmp_path: Path) -> None:
    """interface.md, *Reply*: callers are answered at once, as for a whole held upstream; otherwise many who wait in
    vain would block those whose keys are good."""
    files(tmp_path / "keys", {"a": "mistyped"})
    with chaos(say(401, {})) as upstream:
        text = f"""
        [inbound.uptinio]
        keys = {{ a = "ka" }}
        [upstreams.next]
        dialect = "uptinio"
        url = "{upstream.url}"
        key = {{ by = "caller", dir = "{tmp_path}/keys" }}
        """
        with open_house_to(tmp_path / "first", text) as h:
            for _ in range(2):
                began = time.monotonic()
                body = {"monitor_id": "mon_1", "type": "down", "message": "down"}
                assert h.call("POST", "/uptinio/alerts", body, key="ka").status == 201
                assert time.monotonic() - began < 3
            h.wait_for(lambda: _held(h) == (1.0, ["a"]))


def _held(h: House) -> tuple[float, list[str] | None]:
    """The metric and the readiness detail for the keys that `next` refuses."""
    text = h.client.get(f"{h.url}/metrics").text
    found = re.search(r'alert_gateway_keys_held\{upstream="next"\} (\S+)', text)
    detail = h.client.get(f"{h.url}/-/ready").json()
    return float(found[1]) if found else -1.0, detail["upstreams"]["next"].get("keys_held")


@contextmanager
def open_house_to(directory: Path, text: str) -> Iterator[House]:
    """A gateway whose upstream is not the sandbox."""
    directory.mkdir()
    gateway = Gateway(parse(f'store = "sqlite://{directory}/gateway.db"\n{text}'))
    with served(gateway.app) as url:
        standing = House(url, "", gateway, Sandbox(dialects(), "unused"))
        with standing.client:
            yield standing


def test_a_change_of_a_header_is_seen_though_an_entry_has_no_key(tmp_path: Path) -> None:
    header = tmp_path / "header"
    header.write_text("one")
    keys = f'key = {{ by = "caller", dir = "{files(tmp_path / "keys", {"a": "secret-of-a"})}" }}'
    text = TWO.replace('key = "upstream-key"', keys + f'\nheaders = {{ X = "file:{header}" }}', 1)
    client = Client(parse(text + '[[routes]]\nto = ["oncall"]').upstreams["oncall"])
    before = client.fingerprint(), client.fingerprint("a")
    header.write_text("another")
    os.utime(header, (1, 1))
    assert client.fingerprint() != before[0]
    assert client.fingerprint("a") != before[1]


def test_a_held_key_is_tried_by_one_a_minute_and_at_once_when_it_changes() -> None:
    held = HeldKeys()
    assert held.wait("a", 1, 0.0) == 0
    assert held.hold("a", 1, 0.0)
    assert held.wait("a", 1, 30.0) == 30
    assert held.wait("b", 1, 30.0) == 0
    assert held.wait("a", 1, 60.0) == 0, "the probe"
    assert held.wait("a", 1, 60.0) == 60, "everybody else"
    pauses = [held.pause("a", 60.0) for _ in range(6000)]
    assert pauses[0] < 6 and pauses == sorted(pauses) and pauses[-1] == 60, "a great backlog is looked at less often"
    assert held.wait("a", 2, 61.0) == 0, "the key has changed"
    assert not held.hold("a", 1, 61.0)
    assert held.accepted("a")
    assert not held.accepted("a")


@pytest.mark.parametrize("entry", ["svc-1", "a b", "as", "to x", "ü/%", "key a"])
def test_a_lane_tells_its_entry(entry: str) -> None:
    named = lane("key as b", key=entry, to=entry)
    assert key_entry(named) == entry
    assert same_entries(named, "alert 7") == lane("alert 7", key=entry, to=entry)
    assert key_entry("key as b") == ""
    assert key_entry(lane("alert 7", to=entry)) == ""


@pytest.mark.parametrize(
    ("key", "path", "says"),
    [
        ('{ by = "caller", dir = "/nowhere/at/all" }', "upstreams.oncall.key.dir", "cannot be read"),
        ('{ by = "calller", dir = "/" }', "upstreams.oncall.key.by", "'caller'"),
        ('{ by = "caller" }', "upstreams.oncall.key.dir", "is required"),
        ('{ by = "caller", dir = "/", esle = "x" }', "upstreams.oncall.key.esle", "'else'"),
    ],
)
def test_a_faulty_choice_of_keys_is_named_by_its_path(key: str, path: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(TWO.replace('key = "upstream-key"', f"key = {key}", 1))
    assert any(one.startswith(f"{path}:") and says in one for one in caught.value.problems), caught.value.problems


def test_without_secrets_no_directory_is_looked_for() -> None:
    text = TWO.replace('"upstream-key"', '{ by = "caller", dir = "/nowhere/at/all" }', 1)
    text = text.replace('{ ci = "caller-key", cd = "other-key" }', '"dir:/nowhere/too"')
    text += '[[routes]]\nfrom = ["ilert/somebody"]\nto = ["oncall"]\n'
    assert parse(text, secrets=False).inbounds["ilert"].keyring


@pytest.mark.parametrize(
    ("content", "says"),
    [({"ci": ""}, "is empty"), ({"ci": "ké"}, "not allowed in a header"), ({"anonymous": "k"}, "caller's name")],
)
def test_a_file_that_cannot_be_a_credential_is_named(tmp_path: Path, content: dict[str, str], says: str) -> None:
    files(tmp_path / "keys", content)
    with pytest.raises(ConfigurationError) as caught:
        parse(TWO.replace('{ ci = "caller-key", cd = "other-key" }', f'"dir:{tmp_path}/keys"'))
    assert any(one.startswith("inbound.ilert.keys.") and says in one for one in caught.value.problems)


def test_the_gateway_s_own_alarms_need_a_key_for_everybody_else(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"ci": "k"})
    text = TWO.replace('"upstream-key"', f'{{ by = "caller", dir = "{tmp_path}/keys" }}', 1)
    with pytest.raises(ConfigurationError, match=r"alarms\.to"):
        parse(text + '[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["oncall"]\n')


# --- entries that read alike ---------------------------------------------------------------------------------------


def _chosen_twice(directory: Path, *, names: str = "keys.toml") -> Callable[[str], str]:
    """An upstream whose key is chosen by a field from a directory, and for one caller's alerts by a route from a
    table."""
    files(directory / "keys", {"web": "secret-of-web", "file:x": "secret-of-file-x"})
    (directory / "keys.toml").write_text('vault = "secret-of-vault"\n"db:east" = "secret-of-db-east"\n')
    return lambda url: (
        f"""
        [inbound.ilert]
        keys = {{ trusted = "kt", other = "ko" }}
        [upstreams.there]
        dialect = "pagerduty"
        url = "{url}/pagerduty"
        key = {{ by = "labels.team", dir = "{directory}/keys" }}
        [[routes]]
        name = "first"
        from = ["ilert/trusted"]
        to = ["there"]
        set.routing_key = {{ by = "labels.part", table = "{names}", else = "secret-of-everything-else" }}
        [[routes]]
        to = ["there"]
        """
    )


def _event(key: str, **labels: str) -> dict[str, Any]:
    return {"eventType": "ALERT", "summary": "s", "apiKey": key, "alertKey": str(labels), "labels": labels}


@pytest.mark.parametrize("team", ["keys.toml:vault", "else of route first"])
def test_a_field_chooses_no_key_that_only_a_route_may(tmp_path: Path, team: str) -> None:
    """Callers write labels themselves, so a label cannot name an entry that only a route may choose."""
    with open_house(tmp_path, _chosen_twice(tmp_path)) as h:
        refused = h.call("POST", "/ilert/api/events", _event("ko", team=team), key=None)
        assert refused.status == 400 and repr(team) in json.dumps(refused.body), refused.body
        for labels in ({"part": "vault"}, {"part": "none"}):
            assert h.call("POST", "/ilert/api/events", _event("kt", **labels), key=None).status == 202
        assert h.call("POST", "/ilert/api/events", _event("ko", team="web"), key=None).status == 202
        got = h.arrives("pagerduty", 3)
    assert {one.body["routing_key"] for one in got} == {
        "secret-of-vault",
        "secret-of-everything-else",
        "secret-of-web",
    }


def test_an_entry_may_have_a_colon(tmp_path: Path) -> None:
    """Names with a colon work in a table and as file names."""
    with open_house(tmp_path, _chosen_twice(tmp_path)) as h:
        assert h.call("POST", "/ilert/api/events", _event("kt", part="db:east"), key=None).status == 202
        assert h.call("POST", "/ilert/api/events", _event("ko", team="file:x"), key=None).status == 202
        got = h.arrives("pagerduty", 2)
    assert {one.body["routing_key"] for one in got} == {"secret-of-db-east", "secret-of-file-x"}


def test_a_file_that_is_named_as_a_route_s_entry_is_another_entry(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('a = "of-the-table"\n')
    keys = Keys(None, "caller", Directory(str(files(tmp_path / "keys", {"keys.toml:a": "of-the-file", "b": "of-b"}))))
    keys.add_table(Table("keys.toml", tmp_path / "keys.toml"))
    entry = keys.entry({"caller": "keys.toml:a"})
    assert (keys.value(entry), keys.value("keys.toml:a")) == ("of-the-file", "of-the-table")
    assert key_entry(lane("alert 7", key=entry)) == entry
    assert keys.lacks(keys.entry({"caller": "\0b"}))


def test_tables_whose_entries_could_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    for name in ("t", "t:a"):
        (tmp_path / name).write_text('b = "x"\n')
    routes = (
        f'[[routes]]\nto = ["oncall"]\nset.{field} = {{ by = "caller", table = "{name}" }}\ncontinue = true\n'
        for field, name in (("team", "t"), ("routing_key", "t:a"))
    )
    with pytest.raises(ConfigurationError) as caught:
        parse(TWO + "".join(routes), base=tmp_path)
    assert [one for one in caught.value.problems if "routes[2].set.routing_key.table" in one], caught.value.problems
