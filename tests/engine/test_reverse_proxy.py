"""A proxy in front of the gateway or of an upstream, as the README describes under *Behind a proxy*: nginx itself, with
a minimal configuration as people write it, and with the README's."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.chaos_upstream import chaos
from tests.engine.certificates import vouched, write
from tests.engine.test_delivery import OK, before, deliveries, ended, page, table
from tests.engine.test_rules import ROOT
from tests.harness import KEY, house, served
from tests.processes import wait_for
from tests.reverse import free_port, needs_nginx, nginx


@needs_nginx
@pytest.mark.parametrize("how", ["", "proxy_http_version 1.1; proxy_set_header X-Forwarded-Proto $scheme;"])
def test_whoever_comes_through_a_proxy_on_this_machine_is_no_operator(tmp_path: Path, how: str) -> None:
    """Operators on the same machine need no token, and nginx with only `proxy_pass` connects from there: requests
    through it need one all the same."""
    with (
        house(tmp_path, {"oncall": "ilert"}) as h,
        nginx(tmp_path / "n", f"location / {{ proxy_pass {h.url}; {how} }}") as front,
    ):
        ours = h.client.get(h.url + "/-/deliveries")
        assert (ours.status_code, ours.json()) == (200, {"deliveries": []})
        for path in ("deliveries", "callers", "report", "operations", "alerts/k"):
            theirs = h.client.get(f"{front}/-/{path}")
            assert (theirs.status_code, "came through a proxy" in theirs.text) == (403, True), theirs.text
        dropped = h.client.post(front + "/-/drop", json={"upstream": "oncall", "because": "why not"})
        assert dropped.status_code == 403
        assert h.client.get(front + "/-/ready").status_code == 200, "balancers ask"


PASSED_ON = "location /pager/ {{ proxy_pass {url}; proxy_set_header Host $http_host; }}"
CUT_OFF = """location /pager/ {{ proxy_pass {url}$below; proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Prefix /pager; }}"""
BELOW = "map $request_uri $below { ~^/pager(/.*)$ $1; }"


@needs_nginx
@pytest.mark.parametrize("how", [PASSED_ON, CUT_OFF], ids=["passed on", "cut off"])
def test_below_a_path_of_the_proxys(tmp_path: Path, how: str) -> None:
    """Whether or not the proxy strips its own path prefix: an alias with a slash is found, and links to further pages
    lead where the caller asked."""
    with (
        house(tmp_path, {"oncall": "opsgenie"}, inbounds=["opsgenie", "ilert"]) as h,
        nginx(tmp_path / "n", how.format(url=h.url), BELOW) as front,
    ):
        at, who = f"{front}/pager/opsgenie/v2/alerts", {"authorization": f"GenieKey {KEY}"}
        for alias in ("db-1/disk a+b \u00fc", "web-1/cpu"):
            assert h.client.post(at, json={"message": "m", "alias": alias}, headers=who).status_code == 202
        name = f"{at}/db-1%2Fdisk%20a+b%20%C3%BC"
        found = h.client.get(name, params={"identifierType": "alias"}, headers=who)
        assert (found.status_code, found.json()["data"]["alias"]) == (200, "db-1/disk a+b \u00fc")
        paging = h.client.get(at, params={"limit": 1}, headers=who).json()["paging"]
        assert paging["next"].startswith(f"{front}/pager/opsgenie/v2/alerts?")
        assert len(h.client.get(paging["next"], headers=who).json()["data"]) == 1
        closed = h.client.post(f"{name}/close", params={"identifierType": "alias"}, json={}, headers=who)
        assert closed.status_code == 202
        h.wait_for(lambda: [got for got in h.arrived("opsgenie") if got.path.endswith("/close")])
        nothing = h.client.get(f"{front}/pager/opsgenie/v3", headers=who)
        assert (nothing.status_code, "requestId" in nothing.json()) == (404, True)


@pytest.mark.parametrize(
    ("headers", "begins"),
    [
        ({"host": "gw", "x-forwarded-proto": "https, http"}, "https://gw/opsgenie/"),
        ({"host": "gw", "x-forwarded-proto": "gopher"}, "http://gw/opsgenie/"),
        ({"host": "gw", "x-forwarded-host": "a.example:8443, b.example"}, "http://a.example:8443/opsgenie/"),
        ({"host": "gw", "x-forwarded-prefix": "/pager/"}, "http://gw/pager/opsgenie/"),
    ],
)
def test_links_lead_where_the_first_proxy_was_asked(tmp_path: Path, headers: dict[str, str], begins: str) -> None:
    with house(tmp_path, {"oncall": "opsgenie"}, inbounds=["opsgenie"]) as h:
        answer = h.client.get(f"{h.url}/opsgenie/v2/alerts", headers={**headers, "authorization": f"GenieKey {KEY}"})
        assert answer.json()["paging"]["first"].startswith(begins)


@needs_nginx
def test_a_cache_on_the_way_answers_nobody(tmp_path: Path) -> None:
    """Varnish, and CDNs built on it, cache for minutes what has no `Cache-Control`; here nginx is configured to."""
    cache = f"proxy_cache_path {tmp_path}/cache keys_zone=all:1m;"
    with (
        house(tmp_path, {"oncall": "ilert"}, config=lambda url: f"[inbound.alertmanager]\n{table('oncall', url)}") as h,
        nginx(
            tmp_path / "n", f"location / {{ proxy_pass {h.url}; proxy_cache all; proxy_cache_valid any 1h; }}", cache
        ) as front,
    ):
        at = f"{front}/alertmanager/api/v2/alerts"
        assert h.client.get(at).json() == []
        assert h.client.get(front + "/-/ready").status_code == 200
        assert h.client.post(at, json=[{"labels": {"alertname": "Down"}}]).status_code == 200
        assert len(h.client.get(at).json()) == 1
        h.gateway.is_draining = True
        assert h.client.get(front + "/-/ready").status_code == 503


@needs_nginx
def test_the_nginx_that_is_shipped(tmp_path: Path) -> None:
    """`deploy/nginx.conf` with only addresses and files changed: it serves callers over TLS, and refuses operators'
    paths."""
    authority = trustme.CA()
    cert, key = write(tmp_path / "tls", authority, "localhost")
    port = free_port()
    text = (ROOT / "deploy/nginx.conf").read_text("utf8")
    with house(tmp_path, {"oncall": "opsgenie"}, inbounds=["opsgenie", "ilert"]) as h:
        for there, here in {
            "server 127.0.0.1:8080 ": f"server {h.url.removeprefix('http://')} ",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "/etc/nginx/tls/alerts.crt": str(cert),
            "/etc/nginx/tls/alerts.key": str(key),
        }.items():
            assert text.count(there) == 1, there
            text = text.replace(there, here)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        front, who = f"https://localhost:{port}", {"authorization": f"GenieKey {KEY}"}
        with nginx(tmp_path / "n", "", text), httpx.Client(verify=trusting, trust_env=False) as client:
            for alias in ("db-1/disk", "web-1/cpu"):
                made = client.post(f"{front}/v2/alerts", json={"message": "m", "alias": alias}, headers=who)
                assert made.status_code == 202
            found = client.get(f"{front}/v2/alerts/db-1%2Fdisk?identifierType=alias", headers=who)
            assert found.json()["data"]["alias"] == "db-1/disk"
            paging = client.get(f"{front}/opsgenie/v2/alerts?limit=1", headers=who).json()["paging"]
            assert paging["next"].startswith(f"{front}/opsgenie/v2/alerts?")
            large = client.post(f"{front}/v2/alerts", content=b"x" * 2_000_000, headers=who)
            assert (large.status_code, "requestId" in large.json()) == (413, True)
            for path in ("/-/deliveries", "/-/ready", "/metrics"):
                assert client.get(front + path).status_code == 404


@needs_nginx
def test_replicas_may_be_restarted_one_right_after_the_other(tmp_path: Path) -> None:
    """The first replica is tried again before the second stops: by default nginx avoids a server that refused for ten
    seconds."""
    ports = [free_port(), free_port()]
    text = (ROOT / "deploy/nginx.conf").read_text("utf8").replace("# server", "server")
    for there, port in zip(["server 127.0.0.1:8080 ", "server 10.0.0.2:8080 "], ports, strict=True):
        assert text.count(there) == 1, there
        text = text.replace(there, f"server 127.0.0.1:{port} ")
    replicas = text[text.index("upstream ") : text.index("}\n") + 2]
    answers = Starlette(routes=[Route("/", lambda request: PlainTextResponse("yes"))])
    with (
        nginx(tmp_path / "n", "location / { proxy_pass http://alert_gateway; }", replicas) as front,
        httpx.Client(trust_env=False) as client,
    ):
        with served(answers, ports[1]):
            assert [client.get(front).status_code for _ in range(4)] == [200] * 4
        with served(answers, ports[0]):
            wait_for(lambda: client.get(front).status_code == 200, 5)


# --- between the gateway and an upstream -------------------------------------------------------------------------


@needs_nginx
@pytest.mark.parametrize("says", ["return 302 https://login.example.com/?to=secret", "return 404", "return 405"])
def test_what_a_proxy_before_the_upstream_says_is_no_verdict(tmp_path: Path, says: str) -> None:
    """A login page, a maintenance notice, a name not yet configured there: the alert waits until that is over."""
    notice = tmp_path / "notice"
    notice.touch()
    with chaos(OK) as vendor:
        passes = f"location / {{ if (-f {notice}) {{ {says}; }} proxy_pass {vendor.url}; }}"
        with nginx(tmp_path / "n", passes) as front, before(tmp_path, table("oncall", front)) as h:
            page(h)
            [waiting] = h.wait_for(lambda: [row for row in deliveries(h) if row.attempts and row.code])
            assert (waiting.state, waiting.code, "secret" in waiting.reason) == ("waiting", "web-page", False)
            notice.unlink()
            ended(h, "delivered")
        assert len(vendor.got) == 1


@needs_nginx
@pytest.mark.parametrize("status", [403, 503])
def test_what_is_said_on_a_web_page_is_said_so(tmp_path: Path, status: int) -> None:
    """By the status alone it would read as the vendor's own answer."""
    says = f"location / {{ return {status}; }}"
    with nginx(tmp_path / "n", says) as front, before(tmp_path, table("oncall", front)) as h:
        page(h)
        h.wait_for(lambda: [row for row in deliveries(h) if f"{status} with a web page" in row.reason])


@needs_nginx
def test_a_certificate_that_a_proxy_refuses_holds_the_upstream(tmp_path: Path) -> None:
    """nginx answers 400 for it to each request; no alert is dead for that, and a new certificate is used without a
    restart."""
    ours, stranger = trustme.CA(), trustme.CA()
    shown, key = write(tmp_path / "front", ours, "127.0.0.1")
    mine, secret = write(tmp_path / "mine", stranger, "client.example.com")
    ca = vouched(tmp_path, ours)
    tls = f"ssl_certificate {shown}; ssl_certificate_key {key}; ssl_verify_client on; ssl_client_certificate {ca};"
    with (
        chaos(OK) as vendor,
        nginx(tmp_path / "n", f"{tls} location / {{ proxy_pass {vendor.url}; }}", "", "ssl") as front,
    ):
        more = f'ca = "{ca}"\nclient_cert = {{ cert = "{mine}", key = "{secret}" }}'
        with before(tmp_path, table("oncall", front, more=f'key = "upstream-key"\n{more}')) as h:
            page(h)
            detail = h.wait_for(lambda: (d := h.client.get(h.url + "/-/ready").json())["held"] and d)
            assert "the gateway's client certificate was refused: 400" in detail["upstreams"]["oncall"]["reason"]
            h.wait_for(
                lambda: [row for row in deliveries(h) if (row.state, row.code) == ("waiting", "bad-certificate")]
            )
            write(tmp_path / "mine", ours, "client.example.com")
            ended(h, "delivered")
        assert len(vendor.got) == 1
