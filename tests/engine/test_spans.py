"""Traces: one from the caller through the gateway to the upstream, whenever that is reached, and a collector that
disturbs nothing."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import spans
from tests.chaos.processes import free_port
from tests.chaos_upstream import CHUNK, HANG, Behaviour, chaos, huge, redirect, say
from tests.collector import CLIENT, SERVER, collecting
from tests.engine.vendors import OK, table
from tests.harness import KEY
from tests.processes import Running, serving, wait_for

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from gateway.cli.commands import main
main()
"""


def _configured(directory: Path, *tables: str) -> Path:
    """A configuration for one caller of ilert's API, with these tables."""
    path = directory / "gateway.toml"
    caller = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
    path.write_text(f'store = "sqlite://{directory}/gateway.db"\n{caller}' + "\n".join(tables))
    return path


def _create(gateway: Running, key: str = "db-1", **headers: str) -> httpx.Response:
    event = {"apiKey": KEY, "eventType": "ALERT", "summary": "the disk is full", "alertKey": key}
    return httpx.post(f"{gateway.url}/ilert/api/events?noise=1", json=event, headers=headers, timeout=10)


def test_one_trace_leads_from_the_caller_through_the_gateway_to_the_upstream(tmp_path: Path) -> None:
    with collecting() as collector, chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        with serving(config, env=collector.environ) as gateway:
            said = _create(gateway, **CALLERS)
            [server], [client] = collector.waits_for(SERVER), collector.waits_for(CLIENT)
            [line] = gateway.waits_for("request")
            [delivered] = gateway.waits_for("delivery.delivered")
    about = int(said.headers["Alert-Gateway-Id"])
    assert (server.trace, server.parent, client.trace, client.parent) == (TRACE, PARENT, TRACE, server.id)
    assert (server.name, client.name) == ("POST /ilert/api/events", "POST")
    assert server.service == client.service == "alert-gateway"
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/ilert/api/events",
        "http.response.status_code": 202,
        "url.scheme": "http",
        "url.path": "/ilert/api/events",
        "alert_gateway.dialect": "ilert",
        "alert_gateway.caller": "ci",
        "alert_gateway.outcome": "ok",
        "alert_gateway.id": about,
    }
    port = int(upstream.url.rpartition(":")[2])
    assert client.attributes == {
        "http.request.method": "POST",
        "url.full": f"{upstream.url}/api/events",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 202,
        "alert_gateway.upstream": "oncall",
        "alert_gateway.operation": "create",
        "alert_gateway.delivery": delivered["delivery"],
        "alert_gateway.id": about,
    }
    assert not server.is_error and not client.is_error
    assert upstream.got[0].headers["traceparent"] == f"00-{TRACE}-{client.id}-01"
    assert (line["trace_id"], line["span_id"], delivered["trace_id"]) == (TRACE, server.id, TRACE)


def test_each_attempt_has_a_span_with_what_went_wrong(tmp_path: Path) -> None:
    with collecting() as collector, chaos(OK) as upstream:
        upstream.plan(say(503, {}))
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        with serving(config, env=collector.environ) as gateway:
            _create(gateway)
            [server], tried = collector.waits_for(SERVER), collector.waits_for(CLIENT, 2)
    assert server.parent == ""
    assert [(one.trace, one.parent) for one in tried] == [(server.trace, server.id)] * 2
    shown = ("http.response.status_code", "error.type", "http.request.resend_count")
    assert [[one.attributes.get(name) for name in shown] for one in tried] == [
        [503, "unavailable", None],
        [202, None, 1],
    ]
    assert [one.is_error for one in tried] == [True, False]


def test_what_is_sent_after_a_restart_belongs_to_the_trace_that_caused_it(tmp_path: Path) -> None:
    with collecting() as collector, chaos(HANG) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", "", timeout="60s"))
        with serving(config, env=collector.environ) as gateway:
            _create(gateway, **CALLERS)
            [server] = collector.waits_for(SERVER)
            wait_for(lambda: upstream.got)
        upstream.always(OK)
        with serving(config, env=collector.environ):
            [client] = collector.waits_for(CLIENT)
    assert (client.trace, client.parent) == (TRACE, server.id)
    assert [got.headers["traceparent"][3:35] for got in upstream.got] == [TRACE, TRACE]


def test_what_was_accepted_without_tracing_begins_a_trace_of_its_own(tmp_path: Path) -> None:
    with collecting() as collector, chaos(HANG) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", "", timeout="60s"))
        with serving(config) as gateway:
            _create(gateway, **CALLERS)
            wait_for(lambda: upstream.got)
        upstream.always(OK)
        with serving(config, env=collector.environ):
            [client] = collector.waits_for(CLIENT)
    assert (client.trace != TRACE, client.parent) == (True, "")
    assert "traceparent" not in upstream.got[0].headers


def test_gateways_in_a_row_are_one_trace_and_a_request_that_comes_back_is_still_known(tmp_path: Path) -> None:
    """The second sends back to the first: a loop, which is cut there."""
    rooms = [tmp_path / "first", tmp_path / "second"]
    for one in rooms:
        one.mkdir()

    def towards(room: Path, url: str) -> Path:
        return _configured(room, table("on", f"{url}/ilert", "ilert", "").replace("upstream-key", KEY))

    with collecting() as collector:
        env = collector.environ
        with (
            serving(towards(rooms[0], "http://127.0.0.1:9"), env=env) as front,
            serving(towards(rooms[1], front.url), env=env) as behind,
        ):
            towards(rooms[0], behind.url)
            front.signal(signal.SIGHUP)
            front.waits_for("config.reloaded")
            _create(front, **CALLERS)
            front.waits_for("command.loops")
            servers, clients = collector.waits_for(SERVER, 3), collector.waits_for(CLIENT, 2)
    assert {one.trace for one in (*servers, *clients)} == {TRACE}
    assert [one.parent for one in servers] == [PARENT, *(one.id for one in clients)]
    assert [one.parent for one in clients] == [one.id for one in servers[:2]]


def test_a_caller_that_is_refused_and_an_upstream_that_is_away_are_seen(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with collecting() as collector:
        config = _configured(tmp_path, table("oncall", away, "ilert", ""))
        with serving(config, env=collector.environ) as gateway:
            httpx.get(f"{gateway.url}/ilert/api/alerts", headers={"authorization": "Bearer wrong"})
            httpx.request("PROPFIND", f"{gateway.url}/nowhere")
            _create(gateway)
            refused, unknown, _ = collector.waits_for(SERVER, 3)
            client = collector.waits_for(CLIENT)[0]
    assert refused.attributes["http.response.status_code"] == 401
    assert "alert_gateway.caller" not in refused.attributes
    assert (unknown.name, unknown.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert "http.route" not in unknown.attributes
    assert (client.is_error, client.attributes["error.type"]) == (True, "unreachable")
    assert "http.response.status_code" not in client.attributes


def test_a_caller_s_decision_not_to_sample_holds_to_the_upstream(tmp_path: Path) -> None:
    with collecting() as collector, chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        with serving(config, env=collector.environ) as gateway:
            _create(gateway, traceparent=f"00-{TRACE}-{PARENT}-00")
            wait_for(lambda: upstream.got)
            _create(gateway, "db-2", **CALLERS)
            collector.waits_for(CLIENT)
            collector.waits_for(SERVER)
    assert upstream.got[0].headers["traceparent"].endswith("-00")
    assert [one.parent for one in collector.spans(SERVER)] == [PARENT]


def _badly_collected(url: str) -> dict[str, str]:
    """The environment of a gateway whose collector takes nothing; its queue is soon full."""
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "100",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BSP_MAX_QUEUE_SIZE": "4",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2",
    }


def _burst(gateway: Running) -> None:
    assert [_create(gateway, f"k{number}").status_code for number in range(20)] == [202] * 20
    assert len(gateway.waits_for("delivery.delivered", 20)) == 20


def test_a_collector_that_is_away_disturbs_nothing(tmp_path: Path) -> None:
    """Warnings of it are lines of the log like all others, and there are few."""
    with chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        with serving(config, env=_badly_collected(f"http://127.0.0.1:{free_port()}")) as gateway:
            _burst(gateway)
            assert len(gateway.waits_for("tracing.trouble")) == 1
    assert all(json.loads(line) for line in gateway.lines)


def test_what_a_caller_sends_wrong_is_no_trouble_of_tracing(tmp_path: Path) -> None:
    """It would hide the collector's for a minute, and for ever where it is repeated."""
    wrong = ({"traceparent": "0" * 600}, {**CALLERS, "tracestate": "x"}, {**CALLERS, "tracestate": "x=1," * 3000})
    with chaos(say(401, b"")) as collector:
        config = _configured(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert", ""))
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        with serving(config, env=env) as gateway:
            assert [_create(gateway, **headers).status_code for headers in wrong] == [202] * 3
            [said] = gateway.waits_for("tracing.trouble")
    assert "code: 401" in said["reason"]


def test_a_collector_that_hangs_disturbs_nothing_and_is_not_waited_for(tmp_path: Path) -> None:
    with chaos(HANG) as collector, chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        with serving(config, env=_badly_collected(collector.url)) as gateway:
            _burst(gateway)
            wait_for(lambda: collector.got)
            gateway.signal(signal.SIGTERM)
            assert gateway.process.wait(20) == 0


def test_of_a_collector_s_answer_little_is_read_however_long_it_is(tmp_path: Path) -> None:
    written, size = list[int](), 1 << 26
    with chaos(huge(size, written)) as collector, chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        with serving(config, env=env) as gateway:
            _create(gateway)
            wait_for(lambda: written)
    assert written[0] < size


async def _redirect_without_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/login\r\n\r\n")
    while True:
        writer.write(CHUNK)
        await writer.drain()


@pytest.mark.parametrize("how", [redirect("http://127.0.0.1:9/login"), Behaviour("302", _redirect_without_end)])
def test_a_collector_that_redirects_is_trouble(tmp_path: Path, how: Behaviour) -> None:
    with chaos(how) as collector, chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        with serving(config, env=env) as gateway:
            _create(gateway)
            [said] = gateway.waits_for("tracing.trouble")
    assert "TooManyRedirects" in said["reason"]


def test_headers_that_are_not_of_the_right_form_are_not_shown(tmp_path: Path) -> None:
    config = _configured(tmp_path, table("oncall", "http://127.0.0.1:9", "ilert", ""))
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_HEADERS": "onlythecollectorstoken"}
    with serving(config, env=env) as gateway:
        [said] = gateway.events("tracing.trouble")
    assert said["reason"].startswith("Header format invalid!")
    assert "onlythecollectorstoken" not in gateway.log


@pytest.mark.parametrize(
    ("env", "program", "reason"),
    [
        ({}, ("-c", WITHOUT, "serve"), "the extra `otel`"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None, "only http/protobuf is supported"),
        ({"OTEL_TRACES_EXPORTER": "console"}, None, "only otlp is supported"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, None, "ValueError"),
    ],
)
def test_what_cannot_be_exported_is_said_once_and_the_gateway_serves(
    tmp_path: Path, env: dict[str, str], program: tuple[str, ...] | None, reason: str
) -> None:
    with chaos(OK) as upstream:
        config = _configured(tmp_path, table("oncall", upstream.url, "ilert", ""))
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **env}
        how: dict[str, Any] = {"program": program} if program else {}
        with serving(config, env=env, **how) as gateway:
            assert _create(gateway).status_code == 202
            wait_for(lambda: upstream.got)
            [said] = gateway.events("tracing.off")
    assert reason in said["reason"]
    assert "traceparent" not in upstream.got[0].headers


@pytest.mark.parametrize(
    ("env", "are_wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_tracing_is_on_where_opentelemetry_s_own_variables_say_so(env: dict[str, str], are_wanted: bool) -> None:
    assert spans.are_wanted(env) is are_wanted
