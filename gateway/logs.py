"""Structured logs: one line of JSON per event, or coloured text on a terminal.

A request binds its id, so that every line logged for it has the id. Bodies, headers and credentials are never logged;
fields named like credentials are masked all the same.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, TextIO, cast

import msgspec
import structlog

from gateway import spans
from gateway.config.secrets import MASK
from gateway.log_writer import LogWriter

WORKER = "ALERT_GATEWAY_WORKER"
"""The environment variable with the number of a worker process."""
_TELLTALE = ("authorization", "apikey", "api_key", "password", "secret", "token", "credential")


@functools.lru_cache(512)
def _telling(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of an event's field names that suggest a credential. There are hardly more sets of names than events."""
    return tuple(name for name in names if any(word in name.lower() for word in _TELLTALE))


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks the values of fields whose names suggest credentials."""
    for name in _telling(tuple(event)):
        event[name] = MASK
    return event


@functools.lru_cache(1)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the time in UTC, to the microsecond. Only a second that begins is worked out anew, as there is a line for
    each request."""
    second, micros = divmod(time.time_ns() // 1000, 1_000_000)
    event["timestamp"] = f"{_second(second)}.{micros:06}Z"
    return event


def name_worker(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the number of the worker, as all workers write to one log."""
    event.setdefault("worker", int(os.environ[WORKER]))
    return event


def name_span(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the trace and the span that the event belongs to, if there are any."""
    if spans.tracer is not None:
        event.update(spans.tracer.ids())
    return event


def as_json(event: MutableMapping[str, Any], default: Callable[[Any], Any]) -> bytes:
    """An event as a line of JSON. It has to be fast, as there is a line for each request; and none may be lost for lone
    surrogates or a number that only Python's own JSON library can write, which is therefore tried next."""
    try:
        return msgspec.json.format(msgspec.json.encode(event, enc_hook=default), indent=0)
    except (ValueError, TypeError, OverflowError):
        return json.dumps(event, default=default).encode("ascii")


def configure(level: str = "info") -> None:
    """Sets up logging for the process, to standard error."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([name_worker] if WORKER in os.environ else []),
            *([name_span] if spans.are_wanted() else []),
            structlog.processors.add_log_level,
            stamp,
            redact,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(serializer=as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_to_standard_error(pretty),
        cache_logger_on_first_use=True,
    )


def _lost(lines: int) -> bytes:
    """The line that says how many were lost, as nobody read them."""
    event = stamp(None, "warning", {"lines": lines, "event": "log.lost", "level": "warning"})
    return as_json(name_worker(None, "warning", event) if WORKER in os.environ else event, str) + b"\n"


def _to_standard_error(pretty: bool) -> Callable[..., Any]:
    try:
        fd = sys.stderr.fileno()
    except OSError:  # something in memory has been put in its place
        return structlog.BytesLoggerFactory(sys.stderr.buffer)
    writer = LogWriter(fd, _lost)
    if pretty:
        return structlog.WriteLoggerFactory(cast("TextIO", writer))
    return structlog.BytesLoggerFactory(cast("BinaryIO", writer))
