"""Three hundred callers through one upstream table each: keys from a directory, targets from tables, and which key is
used for whom."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from gateway.cli.commands import main
from gateway.cli.sandbox import Sandbox
from gateway.codes import Code
from gateway.config.choosing import Keys, key_entry, lane, same_entries
from gateway.config.following import Directory, Table
from gateway.config.loading import parse
from gateway.delivery import keys as delivery_keys
from gateway.delivery.attempt import Client, Ended
from gateway.delivery.breaker import TRIPS_AT
from gateway.delivery.held import HeldKeys
from gateway.errors import ConfigurationError
from gateway.outcome import Again, Delivered, Held, Rejected
from gateway.process.service import Gateway
from gateway.registry import dialects
from gateway.store import DeliveryFilter
from gateway.store.sqlite import SqliteStore
from tests.chaos_upstream import chaos, say
from tests.engine.desks import CONFIG, RESOLVE, Desk, create, drain
from tests.engine.many import MANY, NAMES, TWO, files, many, open_house
from tests.harness import House, served


def outbox(directory: Path) -> list[dict[str, Any]]:
    """All deliveries, read as an operator does."""
    words = ["deliveries", "--config", str(directory / "gateway.toml"), "--limit", "5000", "--json"]
    listed: list[dict[str, Any]] = json.loads(CliRunner().invoke(main, words).stdout)
    return listed


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


@pytest.mark.parametrize("dialect", ["opsgenie", "cloudevents"])
def test_a_routing_key_that_an_upstream_is_not_told_keeps_no_two_alerts_apart_there(
    tmp_path: Path, dialect: str
) -> None:
    """canonical.md, *Scope*: where another scope's open alert already holds the key at an upstream, the gateway's id is
    appended to the newcomer's. A vendor that has no routing key knows one alert by a key, whichever was chosen."""
    (tmp_path / "teams.toml").write_text('a = "policy-a"\nb = "policy-b"\n')

    def config(url: str) -> str:
        return f"""
        [inbound.ilert]
        keys = {{ a = "ka", b = "kb" }}
        [upstreams.there]
        dialect = "{dialect}"
        url = "{url}/{dialect}"
        key = "the-upstream-s-own"
        [[routes]]
        to = ["there"]
        set = {{ routing_key = {{ by = "caller", table = "teams.toml" }} }}
        """

    with open_house(tmp_path, config) as h:
        made = {}
        for caller in "ab":
            event = {"eventType": "ALERT", "summary": "s", "alertKey": "disk", "apiKey": f"k{caller}"}
            made[caller] = h.call("POST", "/ilert/api/events", event, key=None).headers["alert-gateway-id"]
        h.wait_for(lambda: [row["state"] for row in outbox(tmp_path)] == ["delivered"] * 2)
        keys = {row["key"] for row in outbox(tmp_path)}
    assert keys == {"disk", f"disk-{made['b']}"}


def test_what_an_earlier_release_left_in_a_lane_of_its_own_leaves_first(tmp_path: Path) -> None:
    """Earlier releases split lanes also by a routing key that is not told: after an upgrade, an end that waits there
    must not overtake the next alert of its key."""
    (tmp_path / "teams.toml").write_text('ci = "policy-a"\n')
    chosen = f'set = {{ routing_key = {{ by = "caller", table = "{tmp_path}/teams.toml" }} }}\n'
    one = Desk(CONFIG.replace('dialect = "ilert"', 'dialect = "opsgenie"') + chosen)
    one.accept("ci", create("disk"))
    one.accept("ci", RESOLVE)
    [usual] = {row.lane for row in one.tx.deliveries(DeliveryFilter(upstream="bykey"))}
    split = f"to {quote(f'{tmp_path}/teams.toml:ci', safe='')} {usual}"
    for table in ("deliveries", "targets"):
        one.connection.execute(f"UPDATE {table} SET lane = ? WHERE upstream = 'bykey'", (split,))
    one.accept("ci", create("disk"))
    assert [row.operation for row in one.due("bykey")] == ["create"], "one at a time, in their order"
    assert {row.lane for row in one.tx.deliveries(DeliveryFilter(upstream="bykey"))} == {split}
    drain(one)
    one.accept("ci", RESOLVE)
    drain(one)
    one.accept("ci", create("disk"))
    assert one.due("bykey")[0].lane == usual, "once nothing waits there, it is over with"


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


def test_what_one_key_is_throttled_for_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Vendors count by account: an hour that one of them is to wait for is no other's."""
    files(tmp_path / "keys", {"a": "secret-of-a", "b": "secret-of-b"})
    busy, taken = say(429, {}, {"retry-after": "3600"}), say(202, {})
    with chaos(lambda got: busy if got.body["apiKey"] == "secret-of-a" else taken) as upstream:
        text = f"""
        [inbound.ilert]
        keys = {{ a = "ka", b = "kb" }}
        [upstreams.next]
        dialect = "ilert"
        url = "{upstream.url}"
        key = {{ by = "caller", dir = "{tmp_path}/keys" }}
        """
        with open_house_to(tmp_path / "first", text) as h:
            for count in range(1, TRIPS_AT + 2):
                event = {"eventType": "ALERT", "summary": "Disk full", "alertKey": f"{count}"}
                assert h.call("POST", "/ilert/api/events", {**event, "apiKey": "ka"}, key=None).status == 202
                h.wait_for(lambda count=count: len(upstream.got) == count)  # type: ignore[misc]
            assert h.call("POST", "/ilert/api/events", {**event, "apiKey": "kb"}, key=None).status == 202
            h.wait_for(lambda: upstream.got[-1].body["apiKey"] == "secret-of-b")
            assert len(upstream.got) == TRIPS_AT + 2, "each of the others is to wait as it was asked to"


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


def test_what_says_nothing_of_a_key_neither_holds_nor_releases_it(tmp_path: Path) -> None:
    """A certificate is the whole upstream's fault, and where there was no verdict the key was not accepted either."""
    keys = delivery_keys.Keys(SqliteStore(str(tmp_path / "none.db"), exclusive=False), "oncall", lambda: 1000)
    key, other = delivery_keys.Key("a", 1), delivery_keys.Key("b", 1)
    faulty = Ended(Held(reason="it has expired"), None, is_fault=True, requests=1, is_certificate=True)
    down = Ended(Again(reason="503"), 503, is_fault=True, requests=1)
    assert keys.ended(key, faulty) == faulty and keys.wait(key) == 0
    refused = keys.ended(key, Ended(Held(reason="401", status=401), 401, is_fault=True, requests=2))
    assert refused == Ended(Rejected(reason="401"), 401, requests=2), "nothing that is the upstream's"
    for nothing in (faulty, down):
        assert keys.ended(key, nothing) == nothing and keys.wait(key) > 0
    assert keys.wait(other) == 0
    assert keys.ended(other, Ended(Held(reason="it has no key"), None, requests=1)).requests == 0, "it was not asked"
    assert keys.wait(other) > 0
    throttled = Ended(Again(reason="429", code=Code.THROTTLED), 429, is_fault=True, requests=1)
    assert keys.ended(key, throttled) == Ended(Rejected(reason="429"), 429, requests=1)
    assert keys.wait(key) > 0
    keys.ended(key, Ended(Delivered(), 202, requests=1))
    assert keys.wait(key) == 0


def test_a_held_key_is_due_after_each_pause_since_it_was_refused() -> None:
    held = HeldKeys()
    held.hold("a", 1, 0.0, since=5000)
    assert (held.to_be_tried(59.0), held.to_be_tried(60.0)) == ({}, {"a": 5000})
    assert held.wait("a", 1, 60.0) == 0, "the probe"
    assert (held.to_be_tried(60.0), held.to_be_tried(120.0)) == ({}, {"a": 5000})
    assert (held.entries(lambda _: 1), held.entries(lambda _: 2)) == (["a"], []), "a key that has changed is not held"


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
    assert held.hold("a", 2, 62.0), "another key that is refused is news"
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


def test_the_end_of_an_alert_that_is_not_known_here_waits_for_no_key(tmp_path: Path) -> None:
    """It says nothing by which its key could be chosen, so it would wait for ever, and raise an alarm."""
    with open_house(tmp_path, _chosen_twice(tmp_path)) as h:
        ended = h.call("POST", "/ilert/api/events", {"eventType": "RESOLVE", "apiKey": "ko", "alertKey": "x"}, key=None)
        assert ended.status == 202 and "dead=no-key" in ended.headers["alert-gateway-report"]
        [void] = outbox(tmp_path)
    assert (void["state"], void["code"]) == ("void", "no-key") and "not known here" in void["reason"]


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
