"""Callers' keys, and an upstream's keys, in a directory with one file per caller."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import CapturingLogger

from gateway.config import following, secrets
from gateway.config.choosing import Keys
from gateway.config.following import Directory, Table
from gateway.config.loading import parse
from gateway.config.secrets import BEING_WRITTEN, Keyring, Secret
from gateway.errors import ConfigurationError
from gateway.process.service import Gateway
from tests.engine.many import MANY, NAMES, files, open_house
from tests.engine.vendors import table
from tests.harness import served


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


def test_a_file_that_another_of_its_age_and_size_replaces_is_followed(tmp_path: Path) -> None:
    """As `cp -p` and archives bring it."""
    other, here = tmp_path / "other", files(tmp_path / "keys", {"ci": "key-1-of-ci"}) / "ci"
    other.write_text(here.read_text().replace("1", "2"))
    for path in (here, other):
        os.utime(path, (1_800_000_000, 1_800_000_000))
    ring = Keyring({}, followed(Directory(str(tmp_path / "keys"))))
    other.replace(here)
    assert (ring.caller("key-1-of-ci"), ring.caller("key-2-of-ci")) == (None, "ci")


def test_what_became_no_credential_is_not_sent(tmp_path: Path) -> None:
    directory = followed(Directory(str(files(tmp_path / "keys", {"ci": "key-of-ci"}))))
    (tmp_path / "keys" / "ci").write_text("key-of-ci\nkey-of-cd")
    assert (directory.get("ci"), directory.secrets()) == (None, {})


def test_a_key_is_taken_from_the_table_that_was_named(tmp_path: Path) -> None:
    keys = Keys(None)
    for name, text in (("keys", 'eu = "of-keys"'), ("keys-eu", 'eu = "of-keys-eu"\nempty = "file:/dev/null"')):
        (tmp_path / name).write_text(text)
        keys.add_table(Table(name, tmp_path / name))
    assert (keys.value("keys:eu"), keys.value("keys-eu:eu")) == ("of-keys", "of-keys-eu")
    assert keys.lacks("keys-eu:empty") == "keys-eu: the key of 'empty': the file /dev/null is empty"


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
    it. So are an operator's token and what requests are signed with."""
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    contents = {"key": "key-of-cd", "token": "token-of-operators", "signed": "signing-secret"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("gateway.config.secrets.BEING_WRITTEN", 1.0)

    def config(url: str) -> str:
        callers = f'admin_token = "file:{tmp_path}/token"\n[inbound.ilert]\nkeys = "dir:{tmp_path}/keys"\n'
        callers += f'[inbound.grafana]\nanonymous = true\nhmac = "file:{tmp_path}/signed"\n'
        oncall = table("oncall", f"{url}/ilert", "ilert")
        return f'{callers}[inbound.opsgenie]\nkeys = {{ cd = "file:{tmp_path}/key" }}\n{oncall}'

    with open_house(tmp_path, config) as h:

        def seen() -> list[int]:
            asked = {
                "/ilert/api/alerts": "Bearer key-of-ci",
                "/opsgenie/v2/alerts": "GenieKey key-of-cd",
                "/-/operations": "Bearer token-of-operators",
                "/-/report": "Bearer",
            }
            said = [h.client.get(h.url + at, headers={"authorization": key}) for at, key in asked.items()]
            mark = hmac.new(b"signing-secret", b"no notification", hashlib.sha256).hexdigest()
            signed = {"x-grafana-alerting-signature": mark}
            said.append(h.client.post(h.url + "/grafana", content=b"no notification", headers=signed))
            return [one.status_code for one in said]

        assert seen() == [200, 200, 200, 401, 400]
        (tmp_path / "keys" / "ci").unlink()
        for name in contents:
            (tmp_path / name).write_text("")
        time.sleep(4.5)  # nobody calls
        assert seen() == [401, 401, 401, 401, 401]


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


def test_a_key_that_comes_while_others_are_taken_over_is_taken_over_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large body is read in a thread of its own, which looks at the directory too. The key was not known until the
    directory changed again; a revoked one would have been let in as long."""
    files(tmp_path / "keys", {"ci": "key-of-ci"})
    directory = followed(Directory(str(tmp_path / "keys")))
    ring = Keyring({}, directory)

    class _Meanwhile:
        def error(self, *said: Any, **about: Any) -> None:
            (tmp_path / "keys" / "late").write_text("key-of-late")
            other = threading.Thread(target=directory.look)
            other.start()
            other.join()

    monkeypatch.setattr(secrets, "log", _Meanwhile())
    (tmp_path / "keys" / "cd").write_text("key-of-ci")
    assert ring.caller("key-of-ci") is None, "it is another caller's too, which is logged"
    assert ring.caller("key-of-late") == "late"


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


def test_without_any_keys_everybody_on_this_machine_is_let_in_whatever_they_offer(tmp_path: Path) -> None:
    store = f'store = "sqlite://{tmp_path}/gateway.db"\n'
    there = '[upstreams.there]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "k"\n'
    with served(Gateway(parse(f"{store}[inbound.uptinio]\n{there}")).app) as url:
        for headers in ({}, {"authorization": "Bearer whatever"}):
            assert httpx.get(f"{url}/uptinio/alerts", headers=headers, timeout=10).status_code == 200


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


def test_a_file_that_can_be_no_key_of_an_upstream_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    files(tmp_path / "keys", {"payments": "key-of-payments", "orders": ""})
    key = f'key = {{ by = "team", dir = "{tmp_path}/keys" }}'
    with pytest.raises(ConfigurationError) as found:
        parse(f'[inbound.ilert]\n[upstreams.there]\ndialect = "pagerduty"\nurl = "http://127.0.0.1:9"\n{key}\n')
    [problem] = found.value.problems
    assert problem.startswith("upstreams.there.key.dir: the file orders ")


def test_a_hidden_file_is_nobodys_key(tmp_path: Path) -> None:
    """An editor's copy of a key, or what keeps an empty directory in a repository, names no caller."""
    ring = Keyring({}, Directory(str(files(tmp_path / "keys", {"ci": "key-of-ci", ".ci.swp": "old-key-of-ci"}))))
    assert (ring.names(), ring.caller("old-key-of-ci")) == (["ci"], None)


def test_what_waits_for_one_of_several_keys_goes_on_with_the_only_one_left() -> None:
    """The routes chose keys from a table when it was accepted, and do not any more."""
    assert Keys(Secret("the-only-key")).value("teams.toml:payments") == "the-only-key"


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
