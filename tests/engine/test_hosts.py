"""One gateway behind several host names (interface.md, *HTTP*: `host` on an inbound). Two dialects with the same main
path are each served under a name of their own. As no two vendors clash in every release, one is made here: a vendor
with another's paths, and words of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.checking import warnings
from gateway.config import checking
from gateway.config.config import Inbound
from gateway.config.loading import parse
from gateway.errors import ConfigurationError
from gateway.inbound.paths import Paths
from gateway.network.listening import host_in
from gateway.openapi import describe
from gateway.process.service import Gateway
from gateway.registry import dialects
from tests.chaos_upstream import chaos, say
from tests.clients.callers import livesession_alert, uptinio_alert
from tests.harness import House, served
from tests.raw import wire

HERE, THERE = "here-0123456789abcdef", "there-0123456789abcdef"
UPSTREAM = '[upstreams.oncall]\ndialect = "ilert"\nurl = "{url}"\nkey = "key-0123456789"\n'


@pytest.fixture(autouse=True)
def _a_vendor_that_clashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers `twin`, which speaks LiveSession's words at Uptinio's paths."""
    model = dialects()["livesession"]
    routes = tuple(replace(route, path=route.path.replace("/v1/alerts", "/alerts")) for route in model.routes)
    known = {**dialects(), "twin": replace(model, name="twin", title="Twin", routes=routes)}
    monkeypatch.setattr(checking, "dialects", lambda: known)


def text(uptinio: str = "", twin: str = "", url: str = "https://example.com", more: str = "") -> str:
    """A configuration with both dialects."""
    return (
        f'reply = "accepted"\n[inbound.uptinio]\nkeys = {{ ci = "{HERE}" }}\n{uptinio}\n'
        f'[inbound.twin]\nkeys = {{ ci = "{THERE}" }}\n{twin}\n{more}\n' + UPSTREAM.format(url=url)
    )


BOTH = ('host = "api.uptinio.test"', 'host = ["twin.test", "Twin.Example.Com."]')


@contextmanager
def standing(directory: Path, uptinio: str, twin: str, more: str = "") -> Iterator[House]:
    """A gateway with both dialects."""
    with chaos(say(202, {})) as vendor:
        gateway = Gateway(parse(f'store = "sqlite://{directory}/gateway.db"\n' + text(uptinio, twin, vendor.url, more)))
        with served(gateway.app) as url:
            found = House(url, vendor.url, gateway, None)  # type: ignore[arg-type]
            with found.client:
                yield found


def test_without_names_they_clash_and_the_error_says_what_helps() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text())
    assert "inbound.twin: POST /alerts is also a route of uptinio" in str(refused.value)
    assert 'such as host = "alerts.example.com"' in str(refused.value)


@pytest.mark.parametrize(
    ("uptinio", "twin", "is_good"),
    [
        ('host = "a.test"', "", True),
        ("", 'host = "a.test"', True),
        ('host = "a.test"', 'host = "b.test"', True),
        ('host = "a.test"', 'host = "A.test."', False),
        ('host = ["a.test", "b.test"]', 'host = ["c.test", "b.test"]', False),
    ],
)
def test_names_resolve_a_clash_where_they_differ(uptinio: str, twin: str, is_good: bool) -> None:
    if is_good:
        assert parse(text(uptinio, twin))
        return
    with pytest.raises(ConfigurationError, match="is also a route of uptinio"):
        parse(text(uptinio, twin))


def test_each_is_served_at_the_root_of_its_own_name(tmp_path: Path) -> None:
    with standing(tmp_path, *BOTH) as h:
        body, other = uptinio_alert("m"), livesession_alert("n")
        named: dict[str, tuple[str, Any]] = {
            "api.uptinio.test": (HERE, body),
            "API.Uptinio.Test:8080": (HERE, body),
            "twin.test": (THERE, other),
            "twin.example.com": (THERE, other),
        }
        for host, (key, alert) in named.items():
            wrong = THERE if key == HERE else HERE
            assert h.call("POST", "/alerts", alert, key=key, headers={"host": host}).status in (200, 201), host
            refused = h.call("POST", "/alerts", alert, key=wrong, headers={"host": host})
            assert refused.status == 401, "the other's callers are nobody here"
            is_twin = key == THERE
            assert ("http_status_code" in refused.body["error"]) is is_twin, "in the words of the name"
            missing = h.call("GET", "/nowhere", key=key, headers={"host": host})
            assert missing.status == 404
            assert ("http_status_code" in missing.body["error"]) is is_twin


def test_below_their_own_prefix_both_are_served_under_every_name(tmp_path: Path) -> None:
    with standing(tmp_path, *BOTH) as h:
        for host in ("api.uptinio.test", "twin.test", "elsewhere.test", "127.0.0.1"):
            found = h.call("GET", "/uptinio/alerts", key=HERE, headers={"host": host})
            assert found.status == 200, host
            assert h.call("GET", "/twin/alerts", key=THERE, headers={"host": host}).status == 200, host
        assert h.call("GET", "/alerts", key=HERE, headers={"host": "elsewhere.test"}).status == 404


def test_who_has_no_name_has_the_root_of_every_other(tmp_path: Path) -> None:
    with standing(tmp_path, "", 'host = "twin.test"') as h:
        assert h.call("GET", "/alerts", key=HERE, headers={"host": "anything.test"}).status == 200
        assert h.call("GET", "/alerts", key=HERE).status == 200
        assert h.call("GET", "/alerts", key=HERE, headers={"host": "twin.test"}).status == 401
        assert h.call("GET", "/alerts", key=THERE, headers={"host": "twin.test"}).status == 200


def test_the_edge_refuses_in_the_words_of_the_name(tmp_path: Path) -> None:
    """A refusal before the request is parsed in full is in the words of the dialect at that host name, where the name
    is known."""
    with standing(tmp_path, *BOTH) as h:
        for host, is_twin in (("twin.test", True), ("api.uptinio.test", False)):
            with wire(h.url) as connection:
                connection.say(f"GET /alerts HTTP/1.1\r\nHost: {host}\r\nX: {'a' * 33_000}\r\n\r\n".encode())
                answer = connection.hear()
                assert answer is not None and answer.status == 431
                assert ("http_status_code" in answer.body["error"]) is is_twin


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('host = "https://a.test/x"', "inbound.twin.host: 'https://a.test/x' is not a host name such as"),
        ('host = "https://a.test/x"', "did you mean 'a.test'?"),
        ('host = "a.test:8080"', "did you mean 'a.test'?"),
        ('host = ""', "inbound.twin.host: '' is not a host name"),
        ('host = "*.test"', "inbound.twin.host: '*.test' is not a host name"),
        (f'host = "{"a." * 126}ab"', "is not a host name"),
        ("host = 5", "inbound.twin.host"),
        ('hosts = "a.test"', "inbound.twin.hosts: unknown key; did you mean 'host'?"),
    ],
)
def test_what_is_no_name_is_said_with_its_path(written: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text("", written))
    assert said in str(refused.value)


def test_a_host_header_is_read_without_its_port() -> None:
    for header, name in {
        "a.test": "a.test",
        "A.Test:443": "a.test",
        " a.test. ": "a.test",
        "a.test.:80": "a.test",
        "[::1]:80": "::1",
        "": "",
    }.items():
        assert host_in(header) == name, header


def test_a_side_route_yields_only_where_both_are_served() -> None:
    """`check` warns of a path that another dialect takes over, but only where both have the same host name."""
    shared = '[inbound.ilert]\nkeys = { ci = "0123456789abcdef" }\nNAME\n[inbound.ibm_monitoring]\nanonymous = true\n'
    shared += UPSTREAM.format(url="https://example.com")
    together = list(warnings(parse(shared.replace("NAME", ""))))
    apart = list(warnings(parse(shared.replace("NAME", 'host = "ilert.test"'))))
    assert [one for one in together if "/ilert/api/alerts" in one]
    assert not [one for one in apart if "/ilert/api/alerts" in one]


def test_what_is_described_is_served_whatever_name_is_used() -> None:
    inbounds: list[Inbound] = list(parse(text(*BOTH)).inbounds.values())
    paths = Paths(inbounds)
    described = describe([one for one in inbounds if one.dialect.name == "uptinio"])["paths"]
    assert "/uptinio/alerts" in described and "/alerts" not in described
    for path, operations in described.items():
        for method in operations:
            found = paths.match(method.upper(), path.replace("{", "").replace("}", ""), "any.test")
            assert found.inbound.dialect.name == "uptinio"
