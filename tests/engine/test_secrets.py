"""Secrets by reference: where they come from, that they follow their files, and that they are never shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import CapturingLogger

from gateway.config import secrets
from gateway.config.loading import parse
from gateway.config.secrets import BEING_WRITTEN, FEW, LOOK_EVERY, Keyring, Secret
from gateway.errors import ConfigurationError
from tests.chaos_upstream import chaos, say
from tests.collector import CLIENT, SERVER, Collector, collecting
from tests.processes import serving, wait_for

CANARY = "canary-5f3e9a77c1"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths passed to `os.stat`, in order."""
    paths: list[str] = []
    stat = os.stat

    def looking(path: str, **how: Any) -> os.stat_result:
        paths.append(path)
        return stat(path, **how)

    monkeypatch.setattr("gateway.config.secrets.os.stat", looking)
    return paths


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a variable that holds the canary."""
    monkeypatch.setenv("ALERT_GATEWAY_TEST_KEY", CANARY)
    return "ALERT_GATEWAY_TEST_KEY"


def test_a_literal_is_itself() -> None:
    assert Secret(CANARY).value() == CANARY
    assert Secret("https://looks:like@a.source").value() == "https://looks:like@a.source"


def test_a_variable(variable: str) -> None:
    assert Secret(f"env:{variable}").value() == CANARY


@pytest.mark.parametrize("text", [None, ""])
def test_a_missing_variable_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    if text is not None:
        monkeypatch.setenv("ALERT_GATEWAY_TEST_NOT_SET", text)
    with pytest.raises(ValueError, match="ALERT_GATEWAY_TEST_NOT_SET"):
        Secret("env:ALERT_GATEWAY_TEST_NOT_SET")


def test_a_missing_variable_is_none_of_our_business_without_secrets() -> None:
    assert "ALERT_GATEWAY_TEST_NOT_SET" in repr(Secret("env:ALERT_GATEWAY_TEST_NOT_SET", resolve=False))


@pytest.mark.parametrize("form", ["${%s}", "ENV:%s"])
def test_another_program_s_way_to_write_a_variable_is_an_error_with_the_right_way(variable: str, form: str) -> None:
    """interface.md: `${X}`, `ENV:X` and a missing variable are errors."""
    with pytest.raises(ValueError, match=f"env:{variable}"):
        Secret(form % variable)


def test_a_variable_within_a_text_is_an_error_too(variable: str) -> None:
    """interface.md: `${X}` is an error; nobody writes it into a credential on purpose."""
    with pytest.raises(ValueError, match="env:"):
        Secret(f"Bearer ${{{variable}}}")


@pytest.mark.parametrize("written", [f"{CANARY}\n", f"{CANARY}\r\n", CANARY, f"\ufeff{CANARY}\r\n"])
def test_a_file_without_its_trailing_newline_and_byte_order_mark(tmp_path: Path, written: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(written.encode())
    assert Secret(f"file:{path}").value() == CANARY


@pytest.mark.parametrize("text", ["sch\u00fcssel", "key\u00a0", "two\nlines", "nul\0"])
def test_what_no_header_may_contain_is_no_credential(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text, "utf8")
    for written in (text, f"file:{path}"):
        with pytest.raises(ValueError, match="has characters that are not allowed in a header") as caught:
            Secret(written)
        assert text not in str(caught.value)


def test_blanks_of_a_file_are_part_of_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f" {CANARY} \n")
    assert Secret(f"file:{path}").value() == f" {CANARY} "


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_file_that_is_not_there_or_empty_is_an_error_that_names_it(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} (cannot be read: No such file or directory|is empty)"):
        Secret(f"file:{path}")


def test_a_file_that_is_no_text_is_told_without_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret\xff")
    with pytest.raises(ValueError, match=rf"the file {path} cannot be read: it is not UTF-8$"):
        Secret(f"file:{path}")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old-key-1")
    secret = Secret(f"file:{path}")
    assert secret.value() == "old-key-1"
    path.write_text("new-key-22")
    assert secret.value() == "new-key-22"


def test_a_file_replaced_by_renaming_is_read_again(tmp_path: Path) -> None:
    """Orchestrators swap mounted secrets by renaming; size and times may stay the same."""
    path, other = tmp_path / "key", tmp_path / "next"
    path.write_text("old-key")
    secret = Secret(f"file:{path}")
    assert secret.value() == "old-key"
    other.write_text("new-key")
    found = path.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(path)
    assert secret.value() == "new-key"


def test_a_file_that_vanishes_for_a_moment_keeps_its_last_value(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(CANARY)
    secret = Secret(f"file:{path}")
    assert secret.value() == CANARY
    path.unlink()
    assert secret.value() == CANARY


def test_a_file_that_a_pipe_replaces_is_not_waited_for(tmp_path: Path) -> None:
    """A read would not end before somebody writes, and nobody would be served until then."""
    path = tmp_path / "key"
    path.write_text("canary")
    secret = Secret(f"file:{path}")
    path.unlink()
    os.mkfifo(path)
    assert secret.value() == "canary"
    path.unlink()
    path.write_text("canary 2")
    assert secret.value() == "canary 2"


def test_a_file_that_is_emptied_keeps_its_value_while_it_may_be_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vault read … >key` empties the file first: meanwhile callers are not refused, nor requests sent without a
    key."""
    path = tmp_path / "key"
    path.write_text(CANARY)
    secret, ring = Secret(f"file:{path}"), Keyring({"ci": [Secret(f"file:{path}")]})
    assert (secret.value(), ring.caller(CANARY)) == (CANARY, "ci")
    for nothing in ("", "\n"):
        path.write_text(nothing)
        assert (secret.value(), ring.caller(CANARY)) == (CANARY, "ci")
    later = time.monotonic() + BEING_WRITTEN
    monkeypatch.setattr("gateway.config.secrets.time.monotonic", lambda: later)
    assert (secret.value(), ring.caller(CANARY), ring.caller("")) == ("", None, None)
    path.write_text("new-key")
    assert (secret.value(), ring.caller("new-key"), ring.caller(CANARY)) == ("new-key", "ci", None)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: path.write_bytes(b"new\xff"), "cannot be read: it is not UTF-8"),
        (
            lambda path: path.write_text("new-key\nand more"),
            "has characters that are not allowed in a header, including a line feed",
        ),
    ],
)
def test_a_file_that_cannot_be_used_any_more_keeps_its_value_and_that_is_said_once(
    spoil: Callable[[Path], object], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, so that somebody knows before the old key is revoked or the next start fails."""
    heard, now = CapturingLogger(), [time.monotonic()]
    monkeypatch.setattr(secrets, "log", heard)
    monkeypatch.setattr("gateway.config.secrets.time.monotonic", lambda: now[0])
    path = tmp_path / "key"
    path.write_text(CANARY)
    secret = Secret(f"file:{path}")
    spoil(path)
    for _ in range(3):
        assert secret.value() == CANARY
    assert heard.calls == [], "it may be being replaced"
    now[0] += 1000
    for _ in range(3):
        assert secret.value() == CANARY
    [said] = heard.calls
    assert (said.args, said.kwargs) == (("secret.unusable",), {"file": str(path), "reason": reason})
    path.write_text("new-key")
    assert secret.value() == secret.value() == "new-key"
    assert [call.args[0] for call in heard.calls] == ["secret.unusable", "secret.usable"]


def test_a_secret_never_shows_itself(tmp_path: Path, variable: str) -> None:
    path = tmp_path / "key"
    path.write_text(CANARY)
    for secret in (Secret(CANARY), Secret(f"env:{variable}"), Secret(f"file:{path}")):
        assert secret.value() == CANARY
        for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]!r}"):
            assert CANARY not in shown


def test_an_empty_literal_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        Secret("")


# --- keyrings ------------------------------------------------------------------------------------------------


def test_a_keyring_knows_whose_credential_it_is() -> None:
    ring = Keyring({"ci": [Secret("key-of-ci")], "ops": [Secret("key-of-ops")]})
    assert ring.caller("key-of-ci") == "ci"
    assert ring.caller("key-of-ops") == "ops"
    assert ring.caller("key-of-c") is None
    assert ring.caller("") is None
    assert ring.caller("\udcff") is None


def test_who_calls_while_another_is_the_first_to_is_known_too() -> None:
    """A large body with the credential in it is checked in a thread: just after a start or a reload the keyring is
    complete for all threads at once."""
    others: list[str | None] = []

    class AskedMeanwhile(Secret):
        def value(self) -> str:
            if "ring" in there and not others:
                others.append("asks")
                others.append(there["ring"].caller("key-of-ci"))
            return super().value()

    there: dict[str, Keyring] = {}
    there["ring"] = Keyring({"ci": [AskedMeanwhile("key-of-ci")]})
    assert there["ring"].caller("key-of-ci") == "ci"
    assert others == ["asks", "ci"]


def test_old_and_new_credential_overlap_while_rotating() -> None:
    ring = Keyring({"ci": [Secret("new"), Secret("old")]})
    assert ring.caller("new") == ring.caller("old") == "ci"


def test_a_keyring_follows_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("before-1")
    ring = Keyring({"ci": [Secret(f"file:{path}")]})
    assert ring.caller("before-1") == "ci"
    path.write_text("after-22\n")
    assert ring.caller("after-22") == "ci"
    assert ring.caller("before-1") is None


def test_of_many_files_not_each_is_looked_at_for_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[str]
) -> None:
    """With five thousand callers and a file each, no request checks them all on the disk."""
    paths = [tmp_path / f"caller-{number}" for number in range(FEW + 1)]
    for path in paths:
        path.write_text(f"key of {path.name}")
    ring = Keyring({path.name: [Secret(f"file:{path}")] for path in paths})
    looks.clear()
    for _ in range(10):
        assert ring.caller("key of caller-7") == "caller-7"
        assert ring.caller("nobody's") is None
    assert len(looks) <= len(paths)
    paths[7].write_text("another key")
    later = time.monotonic() + LOOK_EVERY
    monkeypatch.setattr("gateway.config.secrets.time.monotonic", lambda: later)
    assert (ring.caller("another key"), ring.caller("key of caller-7")) == ("caller-7", None)


def test_what_is_in_no_file_is_not_looked_at_again() -> None:
    class Watched(Secret):
        asked = 0

        def value(self) -> str:
            Watched.asked += 1
            return super().value()

    ring = Keyring({f"caller-{number}": [Watched(f"key-{number}")] for number in range(100)})
    assert ring.caller("key-7") == "caller-7"
    before = Watched.asked
    assert ring.caller("key-8") == "caller-8"
    assert Watched.asked == before


def test_a_keyring_never_shows_its_keys() -> None:
    assert CANARY not in repr(Keyring({"ci": [Secret(CANARY)]}))


def test_no_problem_of_a_configuration_and_no_repr_of_it_shows_a_secret() -> None:
    """interface.md: a secret never appears in a log, a reply, an error, `repr`, the store or a metric."""
    text = f"""
    [inbound.ilert]
    keys = {{ ci = "{CANARY}" }}
    [upstreams.oncall]
    dialect = "ilert"
    url = "https://api.ilert.com"
    key = "{CANARY}"
    headers = {{ X = "{CANARY}" }}
    """
    assert CANARY not in repr(parse(text))
    with pytest.raises(ConfigurationError) as caught:
        parse(text + f'kez = "{CANARY}"\ntimeout = "soon"\n')
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("field", ["key", "headers", "keys"])
def test_a_secret_of_the_wrong_type_is_not_repeated_in_the_problem(field: str) -> None:
    fields = {"key": 'key = "k"', "headers": "headers = {}", "keys": ""}
    fields[field] = {"key": f'key = ["{CANARY}"]', "headers": f'headers = {{ X = ["{CANARY}"] }}', "keys": ""}[field]
    keys = f'keys = {{ ci = {{ a = "{CANARY}" }} }}' if field == "keys" else 'keys = { ci = "c" }'
    text = f"""
    [inbound.ilert]
    {keys}
    [upstreams.oncall]
    dialect = "ilert"
    url = "https://api.ilert.com"
    {fields["key"]}
    {fields["headers"]}
    """
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert CANARY not in str(caught.value)
    assert field in str(caught.value)


def _addresses(collector: Collector) -> dict[str, str]:
    """The address in a span of each upstream that there is one of."""
    spans = collector.spans(CLIENT)
    return {one.attributes["alert_gateway.upstream"]: one.attributes["url.full"] for one in spans}


def test_no_span_shows_a_secret_a_query_or_what_an_alert_says(tmp_path: Path) -> None:
    """Callers' keys in body, path, query and header, upstreams' keys in header and path, in an address, and in an
    answer that echoes them; and the collector's own key in the gateway's log, which quotes its refusal."""
    canaries = {name: f"canary-{name}-c1" for name in ("caller", "key", "header", "part", "hook", "text", "collector")}
    with collecting() as collector, chaos(lambda got: say(401, {"message": f"{got.path} {got.headers}"})) as upstream:
        hook, part = f"{upstream.url}/{canaries['hook']}", canaries["part"]
        config = tmp_path / "gateway.toml"
        config.write_text(
            f'store = "sqlite://{tmp_path}/gateway.db"\n[inbound.ilert]\nkeys = {{ ci = "{canaries["caller"]}" }}\n'
            f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{upstream.url}"\nkey = "{canaries["key"]}"\n'
            f'headers = {{ X-Extra = "{canaries["header"]}" }}\n'
            f'[upstreams.hook]\ndialect = "grafana"\nurl = "{hook}?t={canaries["hook"]}"\n'
            f'[inbound.splunk_oncall]\nkeys = {{ ci = "{canaries["caller"]}" }}\n'
            f'[upstreams.pager]\ndialect = "splunk_oncall"\nurl = "{upstream.url}"\nkey = "{part}"\n'
            f'[upstreams.chat]\ndialect = "chat"\nurl = "{hook}"\nkey = "{part}"\n'
            '[dialects.chat]\nauth = "path"\nsend.path = "/services/{credential}"\nfields.summary = "text"\n'
            '[[routes]]\nto = ["oncall", "hook", "chat", "pager"]\n'
        )
        env = {**collector.environ, "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={canaries['collector']}"}
        with serving(config, env=env) as gateway:
            key, text = canaries["caller"], canaries["text"]
            event = {"apiKey": key, "eventType": "ALERT", "summary": text, "details": text}
            for path in ("events", f"events?apiKey={key}", f"v1/events/grafana/{key}", f"nowhere/{key}?{key}={key}"):
                httpx.post(f"{gateway.url}/ilert/api/{path}", json=event)
            for path in (f"alert/{key}/db", f"alert/{key}", f"alert/{key}/db/nowhere"):
                alert = {"message_type": "CRITICAL", "state_message": text}
                httpx.post(f"{gateway.url}/splunk_oncall/integrations/generic/20131114/{path}", json=alert)
            httpx.get(f"{gateway.url}/ilert/api/alerts", headers={"authorization": f"Bearer {key}"})
            servers = collector.waits_for(SERVER, 8)
            shown = wait_for(lambda: len(found := _addresses(collector)) == 4 and found, 20)
    assert shown["oncall"] == f"{upstream.url}/api/events"
    assert shown["hook"] == f"{upstream.url}/REDACTED"
    assert shown["pager"].startswith(f"{upstream.url}/integrations/generic/20131114/alert/%7Bcredential%7D")
    assert shown["chat"] == f"{upstream.url}/REDACTED/services/%7Bcredential%7D"
    assert servers[0].attributes["http.response.status_code"] == 202
    assert collector.upstream.got[0].headers["x-key"] == canaries["collector"]
    assert [name for name, canary in canaries.items() if canary.encode() in collector.raw] == []
    assert canaries["collector"] not in gateway.log
