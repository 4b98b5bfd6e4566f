"""Outgoing requests, token exchange and heartbeat included, use the proxy that the environment or the configuration
names (interface.md, *Configuration*: `proxy`). The proxy is real and alone resolves `vendor.test`: what arrives there
came through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.config.loading import parse
from gateway.errors import ConfigurationError
from gateway.network.reaching import Proxy, is_exempt, proxy_in
from tests.chaos_upstream import Behaviour, Got, chaos, say
from tests.clients.callers import ilert_event
from tests.engine.certificates import certificate
from tests.harness import KEY, House, house
from tests.proxy import proxy

OK = say(202, {})
ILERT = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
SECRET = "hunter2-behind-the-proxy"


def upstream(url: str, more: str = "") -> str:
    """An ilert upstream at an address."""
    there = f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{url}"\nkey = "there-0123456789"\n{more}\n'
    return ILERT + there + 'retry = { first = "20ms", most = "100ms" }\n'


@contextmanager
def before(directory: Path, text: str) -> Iterator[House]:
    """A gateway in front of it."""
    with house(directory, config=lambda _: text) as h:
        yield h


def page(h: House, key: str = "k") -> None:
    """Sends an alert and requires that it is accepted."""
    answer = h.call("POST", "/ilert/api/events", {"apiKey": KEY, **ilert_event("ALERT", key, summary="s")}, key=None)
    assert answer.status == 202, answer.body


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_a_plain_upstream_is_reached_through_http_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chaos(OK) as vendor, proxy(vendor=vendor.url) as through:
        monkeypatch.setenv("HTTP_PROXY", through.url)
        with before(tmp_path, upstream("http://vendor.test:80/base")) as h:
            page(h)
            h.wait_for(lambda: vendor.got)
        assert through.asked == ["POST http://vendor.test/base/api/events HTTP/1.1"]
        assert vendor.got[0].path == "/base/api/events"


def test_a_tls_upstream_is_reached_through_https_proxy_which_sees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certificate(tmp_path, "vendor.test")
    with chaos(OK, context=context) as vendor, proxy(vendor=vendor.url) as through:
        monkeypatch.setenv("https_proxy", through.url)
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # lower case wins
        with before(tmp_path, upstream("https://vendor.test", f'ca = "{authority}"')) as h:
            page(h)
            h.wait_for(lambda: vendor.got)
        assert through.asked == ["CONNECT vendor.test:443 HTTP/1.1"]


def test_no_proxy_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chaos(OK) as vendor, proxy(vendor=vendor.url) as through:
        monkeypatch.setenv("HTTP_PROXY", through.url)
        monkeypatch.setenv("NO_PROXY", "example.com, 127.0.0.0/8")
        with before(tmp_path, upstream(vendor.url)) as h:
            page(h)
            h.wait_for(lambda: vendor.got)
        assert not through.asked


def test_off_is_off_and_an_address_is_that_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chaos(OK) as vendor, proxy(vendor=vendor.url) as through, proxy(vendor=vendor.url) as other:
        monkeypatch.setenv("HTTP_PROXY", other.url)
        with before(tmp_path, upstream(vendor.url, 'proxy = "off"')) as h:
            page(h)
            h.wait_for(lambda: vendor.got)
        assert not other.asked
        (tmp_path / "2").mkdir()
        with before(tmp_path / "2", upstream("http://vendor.test", f'proxy = "{through.url}"')) as h:
            page(h)
            h.wait_for(lambda: len(vendor.got) == 2)
        assert len(through.asked) == 1 and not other.asked


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_proxy_that_wants_credentials_holds_the_upstream_and_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tls: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """canonical.md, *Verdicts*: a credential refused on the way never counts against an alert."""
    context, authority = certificate(tmp_path, "vendor.test")
    with (
        chaos(OK, context=context if is_tls else None) as vendor,
        proxy(vendor=vendor.url, credentials=f"me:{SECRET}") as through,
    ):
        (tmp_path / "address").write_text(through.url.replace("http://", "http://me:wrong-password@") + "\n")
        scheme = "https" if is_tls else "http"
        more = f'proxy = "file:{tmp_path}/address"\nca = "{authority}"'
        with before(tmp_path, upstream(f"{scheme}://vendor.test", more)) as h:
            page(h)
            ready = "/-/ready"
            h.wait_for(lambda: h.call("GET", ready).body["held"] == ["oncall"])
            reason = h.call("GET", ready).body["upstreams"]["oncall"]["reason"]
            assert "the proxy asks for credentials" in reason
            assert not vendor.got
            (tmp_path / "address").write_text(through.url.replace("http://", f"http://me:{SECRET}@") + "\n")
            h.wait_for(lambda: vendor.got)
            said = str(h.call("GET", ready).body) + repr(h.gateway.config)
        assert SECRET not in said + capfd.readouterr().err and "wrong-password" not in said


def test_a_proxy_that_fails_took_nothing(tmp_path: Path) -> None:
    """A request that never reached the vendor is sent again, and is no ambiguous create."""
    context, authority = certificate(tmp_path, "vendor.test")
    with chaos(OK, context=context) as vendor, proxy(vendor=vendor.url) as through:
        through.refuses = 502
        more = f'proxy = "{through.url}"\nca = "{authority}"'
        with before(tmp_path, upstream("https://vendor.test", more)) as h:
            page(h)
            h.wait_for(lambda: len(through.asked) >= 2)
            through.refuses = 0
            h.wait_for(lambda: vendor.got)
        assert len(vendor.got) == 1


def test_tokens_are_exchanged_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IBM's identity service is reached through the same proxy as IBM Cloud Monitoring."""

    def answer(got: Got) -> Behaviour:
        if got.path.endswith("/identity/token"):
            return say(200, {"access_token": "token-0123", "token_type": "Bearer", "expires_in": 3600})
        return say(201, {"alert": {"id": 5, "version": 1, "name": "n"}})

    with chaos(answer) as vendor, proxy(vendor=vendor.url) as through:
        monkeypatch.setenv("HTTP_PROXY", through.url)
        there = (
            '[upstreams.metrics]\ndialect = "ibm_monitoring"\nurl = "http://vendor.test"\niam_key = "secret-0123456"\n'
            'iam_url = "http://vendor.test"\n'
            'defaults = { "condition.expression" = "avg(timeAvg(uptime)) <= 0" }\n'
        )
        with before(tmp_path, ILERT + there) as h:
            page(h)
            h.wait_for(lambda: len(vendor.got) >= 2)
        assert [line.split()[1] for line in through.asked[:2]] == [
            "http://vendor.test/identity/token",
            "http://vendor.test/api/alerts",
        ]


def test_the_heartbeat_goes_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chaos(OK) as vendor, proxy(vendor=vendor.url) as through:
        monkeypatch.setenv("HTTP_PROXY", through.url)
        beat = '[heartbeat]\nurl = "http://vendor.test/ping"\nevery = "50ms"\n'
        with before(tmp_path, upstream("http://vendor.test") + beat) as h:
            h.wait_for(lambda: [got for got in vendor.got if got.path == "/ping"])
        assert through.asked[0] == "GET http://vendor.test/ping HTTP/1.1"


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "exempt"),
    [
        ("api.example.com", None, "example.com", True),
        ("api.example.com", None, ".example.com", True),
        ("api.example.com", None, "*.example.com", True),
        ("example.com", None, ".example.com", True),
        ("notexample.com", None, "example.com", False),
        ("API.Example.COM", None, "api.example.com", True),
        ("api.example.com", None, "API.Example.com.", True),
        ("api.example.com.", None, "api.example.com", True),
        ("api.example.com", None, ".", False),
        ("api.example.com", None, "", False),
        ("api.example.com", None, " , ", False),
        ("api.example.com", None, "*", True),
        ("api.example.com", 8443, "api.example.com:8443", True),
        ("api.example.com", None, "api.example.com:443", True),
        ("api.example.com", 8443, "api.example.com:443", False),
        ("10.1.2.3", None, "10.0.0.0/8", True),
        ("11.1.2.3", None, "10.0.0.0/8,192.168.0.0/16", False),
        ("10.1.2.3", None, "10.1.2.3", True),
        ("10.1.2.3", None, "2.3", False),
        ("::1", None, "[::1]", True),
        ("::1", 80, "[::1]:80", True),
        ("fd00::5", None, "fd00::/8", True),
        ("api.example.com", None, "10.0.0.0/8", False),
        ("10.1.2.3", None, "10.9.9.9/8", True),
        ("api.example.com", None, "api.example.com:https", False),
    ],
)
def test_what_no_proxy_means(host: str, port: int | None, no_proxy: str, exempt: bool) -> None:
    """As curl (`man curl`, NO_PROXY) and Go's `httpproxy` read it."""
    assert is_exempt(host, port, no_proxy) is exempt


def test_what_the_environment_means() -> None:
    found = proxy_in({"HTTP_PROXY": "proxy.example:3128"}, "http://a.example")
    assert found is not None and found.url == "http://proxy.example:3128"
    assert proxy_in({"HTTP_PROXY": " http://proxy.example:3128 "}, "http://a.example") == found, "blanks are nothing"
    assert proxy_in({"HTTP_PROXY": "http://proxy.example:3128"}, "https://a.example") is None
    assert proxy_in({"http_proxy": "", "HTTP_PROXY": "http://proxy.example:3128"}, "http://a.example") is None
    with pytest.raises(ValueError, match="HTTPS_PROXY is not the address") as raised:
        proxy_in({"HTTPS_PROXY": f"socks5://me:{SECRET}@proxy.example"}, "https://a.example")
    assert SECRET not in str(raised.value)
    for url, no_proxy, is_through in (
        ("http://a.example", "a.example:80", False),
        ("http://a.example", "a.example:443", True),
        ("http://a.example:443", "a.example:80", True),
    ):
        environ = {"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": no_proxy}
        assert (proxy_in(environ, url) is not None) is is_through


@pytest.mark.parametrize(
    ("address", "url", "authorization"),
    [
        ("http://proxy.example:3128/", "http://proxy.example:3128", ""),
        ("https://proxy.example", "https://proxy.example", ""),
        ("http://me:p%40ss@proxy.example", "http://proxy.example", "Basic bWU6cEBzcw=="),
        ("http://m%3Ae@proxy.example", "http://proxy.example", "Basic bTplOg=="),
        ("http://proxy.example:0", "", ""),
        ("http://proxy.example:port", "", ""),
        ("http://proxy.example/path", "", ""),
        ("http://proxy.example?query", "", ""),
        ("http://proxy.example#fragment", "", ""),
        ("http://:3128", "", ""),
        ("http://[proxy", "", ""),
    ],
)
def test_what_is_a_proxy_s_address(address: str, url: str, authorization: str) -> None:
    if not url:
        with pytest.raises(ValueError, match="HTTP_PROXY is not the address"):
            proxy_in({"HTTP_PROXY": address}, "http://a.example")
        return
    found = proxy_in({"HTTP_PROXY": address}, "http://a.example")
    assert found == Proxy(url, authorization)
    assert not authorization or authorization not in repr(found)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('proxy = "none"', "upstreams.oncall.proxy: 'none' is not a proxy; did you mean 'off'?"),
        ('proxy = "None"', "upstreams.oncall.proxy: 'None' is not a proxy; did you mean 'off'?"),
        ('proxy = "environment"', "did you mean 'env'?"),
        (f'proxy = "socks5://me:{SECRET}@proxy:1080"', "upstreams.oncall.proxy: this is not the address of a proxy"),
        ('proxy = "proxy:3128"', "such as http://proxy.example.com:3128"),
        ('proxy = "env:NOT_THERE_AT_ALL"', "upstreams.oncall.proxy: the variable NOT_THERE_AT_ALL is not set"),
        ("proxy = false", "upstreams.oncall.proxy"),
        ('proxi = "off"', "did you mean 'proxy'?"),
        ('ca = "/nowhere/ca.pem"', "upstreams.oncall.ca: /nowhere/ca.pem cannot be read: No such file"),
        ('ca = ""', "upstreams.oncall.ca: is empty"),
        ('client_cert = { cert = "/nowhere/c.pem" }', "upstreams.oncall.client_cert.key: is required"),
        ('client_cert = { certs = "x", key = "y" }', "client_cert.certs: unknown key; did you mean 'cert'?"),
        ('client_cert = { cert = "/nowhere/c.pem", key = "/nowhere/k.pem" }', "client_cert: /nowhere/c.pem cannot be"),
        ('client_cert = "/nowhere/c.pem"', "upstreams.oncall.client_cert"),
        ('client_cert = { cert = "", key = "" }', "upstreams.oncall.client_cert: names no files"),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_path(written: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(upstream("https://vendor.test", written))
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_bad_proxy_in_the_environment_is_found_by_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(ConfigurationError, match=r"upstreams\.oncall\.proxy: HTTPS_PROXY is not the address"):
        parse(upstream("https://vendor.test"))
    assert parse(upstream("https://vendor.test"), secrets=False)
