"""Spans by OpenTelemetry, exported by OTLP over HTTP: nobody else knows that library, and everybody asks
`gateway.spans`. Imported only where tracing is on.

Names are those of OpenTelemetry's semantic conventions for HTTP; what these have no name for begins with
`alert_gateway.`. No attribute has a body, a query or a credential. Exporting is the work of a thread with a bounded
queue: spans that it has no room for are dropped, and a collector that is away or slow holds up nothing.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests
import structlog
import urllib3
from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests.adapters import HTTPAdapter

from gateway import __version__
from gateway.config.secrets import MASK
from gateway.desk.calling import cleaned

log = structlog.get_logger()
NAME = "alert-gateway"
METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
"""The methods that the conventions know; any other is `_OTHER`."""
REDACTED = "REDACTED"
"""The conventions' word for what is masked in an address."""
PORTS = {"http": 80, "https": 443}
TROUBLE_EVERY = 60.0
"""Seconds between two lines of the log about a collector that takes no spans."""
MOST_READ = 4096
"""Bytes that are read of a collector's answer: a good one has some dozens."""
_PLAIN = frozenset(("spans", *(status.phrase for status in HTTPStatus)))
"""The texts that a warning of the library may quote."""
_ABOUT = contexts.create_key("alert-gateway")
_TRACE_CONTEXT = TraceContextTextMapPropagator()


class Tracer:
    """Makes the spans of this process. Sampling, the service's name, the exporter and its queue are as the SDK's own
    environment variables say."""

    def __init__(self) -> None:
        _tell_of_trouble()
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=_session())))
        self._tracer = self._provider.get_tracer(NAME, __version__)

    def stop(self, within: float) -> None:
        """Exports what is left, for so many seconds at most; what the collector has not taken by then is lost."""
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(within)

    @contextmanager
    def serving(self, method: str, scheme: str, headers: Mapping[str, str]) -> Iterator[Served]:
        """Makes the span of a caller's request, which continues the caller's trace, and is current within."""
        known = method if method in METHODS else "_OTHER"
        parent = _TRACE_CONTEXT.extract(headers, Context())
        about = {"http.request.method": known, "url.scheme": scheme}
        span = self._tracer.start_span(_named(known), parent, SpanKind.SERVER, about)
        with _current(span, parent):
            yield Served(span, known)

    @contextmanager
    def asking(self, method: str, url: str, upstream: str, is_secret: Callable[[str], bool]) -> Iterator[Asking]:
        """Makes the span of a request to an upstream, in the trace that is current. `url` is without what a credential
        adds to it; parts of its path for which `is_secret` is true, or that look like credentials, are masked."""
        where = contexts.get_current()
        given = where.get(_ABOUT)
        about = {
            "http.request.method": method,
            **_address(url, is_secret),
            "alert_gateway.upstream": upstream,
            **(given if isinstance(given, dict) else {}),
        }
        span = self._tracer.start_span(method, where, SpanKind.CLIENT, about)
        with _current(span, where):
            yield Asking(span, self.trace())

    def resume(self, trace: str, *, delivery: int, alert: int | None, operation: str, attempts: int) -> None:
        """Makes every request that this task sends from now on part of a trace, or each the first of a new one if that
        is empty, with the attributes of a delivery that was attempted `attempts` times before."""
        about: dict[str, str | int] = {"alert_gateway.delivery": delivery, "alert_gateway.operation": operation}
        if alert is not None:
            about["alert_gateway.id"] = alert
        if attempts:
            about["http.request.resend_count"] = attempts
        parent = _TRACE_CONTEXT.extract({"traceparent": trace}, Context())
        contexts.attach(contexts.set_value(_ABOUT, about, parent))

    def trace(self) -> str:
        """The current span, as `traceparent` writes it; empty where there is none."""
        carrier: dict[str, str] = {}
        _TRACE_CONTEXT.inject(carrier)
        return carrier.get("traceparent", "")

    def ids(self) -> dict[str, str]:
        """What identifies the current span in a line of the log; nothing where there is none."""
        found = get_current_span().get_span_context()
        return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"} if found.is_valid else {}


class Served:
    """The span of a caller's request."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method

    def answered(
        self, *, status: int, route: str, path: str, dialect: str, caller: str | None, outcome: str, about: int
    ) -> None:
        """Says how the request was answered: `route` is the template of its path, empty where no route matches, `path`
        as the log has it, and `about` the id in the header Alert-Gateway-Id."""
        self._span.update_name(_named(self._method, route))
        self._span.set_attributes(
            {
                "url.path": path,
                "http.response.status_code": status,
                "alert_gateway.dialect": dialect,
                "alert_gateway.outcome": outcome,
                "alert_gateway.id": about,
                **({"http.route": route} if route else {}),
                **({"alert_gateway.caller": caller} if caller else {}),
            }
        )
        if status >= 500:
            _fail(self._span, outcome)

    def left(self) -> None:
        """Says that the caller went away before it was answered."""
        _fail(self._span, "ConnectionError")


class Asking:
    """The span of a request to an upstream; with `headers` the upstream can continue the trace."""

    def __init__(self, span: Span, trace: str) -> None:
        self._span = span
        self.headers = {"traceparent": trace}

    def ended(self, status: int | None, code: str) -> None:
        """Says how it ended: the status of the answer, if there was one, and the problem code, empty where there is no
        problem."""
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if code:
            _fail(self._span, code)


def _named(method: str, route: str = "") -> str:
    return f"{'HTTP' if method == '_OTHER' else method} {route}".rstrip()


@contextmanager
def _current(span: Span, where: Context) -> Iterator[None]:
    """Makes a span the current one, and ends it. Of an exception only the type is recorded: its text may have anything
    in it."""
    token = contexts.attach(set_span_in_context(span, where))
    try:
        yield
    except BaseException as error:
        if "error.type" not in (getattr(span, "attributes", None) or {}):
            _fail(span, type(error).__name__)
        raise
    finally:
        contexts.detach(token)
        span.end()


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def _address(url: str, is_secret: Callable[[str], bool]) -> dict[str, str | int]:
    """An address as it may be shown: without user, query and fragment, and with what may be a credential masked."""
    parts = urlsplit(url)
    path = quote(cleaned(unquote(parts.path), is_secret), safe="/:@!$&'()*+,;=").replace(quote(MASK), REDACTED)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
    port = parts.port or PORTS.get(parts.scheme.lower(), 0)
    return {"url.full": shown, "server.address": parts.hostname or "", "server.port": port}


def _resource() -> Resource:
    """What the environment says of this service; its name, if that says none, is ours."""
    found = Resource.create({"service.version": __version__})
    is_named = not str(found.attributes["service.name"]).startswith("unknown_service")
    return found if is_named else found.merge(Resource({"service.name": NAME}))


class _Adapter(HTTPAdapter):
    """Reads little of an answer, however long it is, as nobody needs what a collector says; and fails on a redirect, as
    to a login, which the exporter takes for success. A session would be too late: it reads a redirect's whole body."""

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *args: Any, **how: Any
    ) -> requests.Response:
        """Sends a request; returns the answer without its body."""
        answer = super().send(request, True, *args, **how)
        with suppress(urllib3.exceptions.HTTPError):
            answer.raw.read(MOST_READ, decode_content=False)  # to the end: else the connection is not used again
        answer.close()
        if 300 <= answer.status_code < 400:
            raise requests.TooManyRedirects
        answer.raw = io.BytesIO()
        return answer


def _session() -> requests.Session | None:
    """Our own session; None where the environment names somebody else's, which adds credentials."""
    if any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ):
        return None
    session = requests.Session()
    session.mount("http://", _Adapter())
    session.mount("https://", _Adapter())
    return session


def _tell_of_trouble() -> None:
    """Has the library's warnings logged like everything else, instead of printed, but for those of what callers send in
    `traceparent` and `tracestate`: they would hide those of the collector."""
    library = logging.getLogger("opentelemetry")
    library.setLevel(logging.WARNING)
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    library.addHandler(_Trouble())
    library.propagate = False


class _Trouble(logging.Handler):
    """Logs the library's warnings, one a minute at most: with a collector that is away there is one for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a warning."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + TROUBLE_EVERY
            log.warning("tracing.trouble", reason=_told(record))


def _told(record: logging.LogRecord) -> str:
    """A warning's text. What it quotes could have a credential in it, as a collector's answer, an address or a header
    may, so only numbers, the names of statuses and the types of exceptions are kept."""
    given = record.args if isinstance(record.args, tuple) else ()
    raised = record.exc_info[0] if record.exc_info else None
    try:
        text = str(record.msg) % tuple(_plain(one) for one in given)
    except (TypeError, ValueError):
        text = str(record.msg)
    return f"{text} {raised.__name__}" if raised else text


def _plain(argument: object) -> object:
    if argument is None or isinstance(argument, int | float):
        return argument
    if isinstance(argument, BaseException):
        return type(argument).__name__
    return argument if isinstance(argument, str) and argument in _PLAIN else "…"
