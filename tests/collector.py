"""A collector of traces on loopback: receives OTLP over HTTP, and decodes the spans."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.chaos_upstream import Chaos, chaos, say
from tests.processes import wait_for

SERVER, CLIENT = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT


@dataclass(frozen=True)
class Seen:
    """A span: ids in hexadecimal, `parent` empty for the first of a trace."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    is_error: bool
    attributes: dict[str, Any]
    service: str


@dataclass(frozen=True)
class Collector:
    """A collector that is there, and what it was sent."""

    upstream: Chaos

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a gateway that exports to it."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.upstream.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}

    @property
    def raw(self) -> bytes:
        """Everything it was sent."""
        return b"\n".join(got.content for got in list(self.upstream.got))

    def spans(self, kind: int | None = None) -> list[Seen]:
        """Returns the spans of this kind, or all, in the order in which they began."""
        found = [
            (span.start_time_unix_nano, _seen(span, sent.resource.attributes))
            for got in list(self.upstream.got)
            for sent in ExportTraceServiceRequest.FromString(got.content).resource_spans
            for scope in sent.scope_spans
            for span in scope.spans
            if kind in (None, span.kind)
        ]
        return [seen for _, seen in sorted(found, key=lambda one: one[0])]

    def waits_for(self, kind: int, count: int = 1) -> list[Seen]:
        """Waits until there are so many spans of this kind, and returns them."""
        return list(wait_for(lambda: len(found := self.spans(kind)) >= count and found, 20, lambda: str(self.spans())))


def _seen(span: Span, about: Any) -> Seen:
    return Seen(
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_values(span.attributes),
        service=_values(about)["service.name"],
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector on a free port."""
    with chaos(say(200, b"")) as upstream:
        yield Collector(upstream)
