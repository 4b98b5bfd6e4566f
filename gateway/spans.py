"""Spans of requests, for those who run a collector: what the gateway knows of tracing.

Tracing is on where OpenTelemetry's own environment variables say so, and has no other settings. Only then is anything
of OpenTelemetry imported, by `gateway.telemetry`, and `tracer` is set; everybody else asks whether that is None.

The trace of a request is kept with its commands (`CommandBody.trace`), as `traceparent` writes it: so what is sent
later, after a restart or by another replica, belongs to the trace of the request that caused it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from gateway.telemetry import Tracer

log = structlog.get_logger()
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
FLUSH = 0.5
"""Seconds that the last spans have to reach the collector when the gateway stops. It may have taken nearly all of the
25 s until then after which it is killed."""

tracer: Tracer | None = None
"""Makes this process's spans; None unless tracing is on."""


def are_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(_exporters(environ) - {"none"}) and any(environ.get(name) for name in ENDPOINTS)


def _exporters(environ: Mapping[str, str]) -> set[str]:
    given = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return {one.strip().lower() for one in given.split(",")} - {""}


def _unsupported(environ: Mapping[str, str]) -> str:
    """Why traces cannot be exported as the environment asks; empty where they can."""
    if "otlp" not in (exporters := _exporters(environ)):
        return f"OTEL_TRACES_EXPORTER is {', '.join(sorted(exporters))}: only otlp is supported"
    name = next((name for name in PROTOCOLS if environ.get(name)), "")
    if name and environ[name].strip().lower() != "http/protobuf":
        return f"{name} is {environ[name]}: only http/protobuf is supported"
    return ""


def start() -> None:
    """Turns tracing on, in a process that serves, if the environment asks for it. If that is not possible, the log says
    why, and the gateway serves without."""
    global tracer
    if not are_wanted():
        return
    if reason := _unsupported(os.environ):
        log.warning("tracing.off", reason=reason)
        return
    try:
        from gateway.telemetry import Tracer

        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:  # the exporter's thread inherits the mask: signals are for whoever waits for them in this process
            tracer = Tracer()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    except ModuleNotFoundError as error:
        log.warning("tracing.off", reason=f"{error}: the environment asks for traces, which need the extra `otel`")
    except Exception as error:  # such as a variable that the SDK cannot read
        log.warning("tracing.off", reason=f"{type(error).__name__}: {error}")
    else:
        log.info("tracing.on")


def stop() -> None:
    """Exports the last spans, if the collector takes them in time."""
    if tracer is not None:
        tracer.stop(FLUSH)


def trace() -> str:
    """The current span, as `traceparent` writes it; empty where there is none."""
    return "" if tracer is None else tracer.trace()
