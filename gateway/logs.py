"""Structured logs: one line of JSON per event, or coloured text on a terminal.

A request binds its id, so that every line logged for it has the id. Bodies, headers and credentials are never logged;
fields named like credentials are masked all the same.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import IO, Any, BinaryIO, TextIO, cast

import msgspec
import structlog

from gateway import spans
from gateway.config.secrets import MASK

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


def stand_in() -> None:
    """Opens /dev/null for standard streams that the parent process closed (`2>&-`). Else the next socket would get the
    number of standard error and be written to, and the event loop aborts when it is to close such a socket."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets `number`: the lowest free one, as those below are open
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf8", closefd=False))  # noqa: SIM115 - for good


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


class _Unfailing:
    """A file for which errors in writing are ignored: a log may be on a full disk, or its reader may have ended, and
    then only its lines may be lost."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def write(self, line: Any) -> None:
        """Writes a line, as far as possible."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(line)

    def flush(self) -> None:
        """Writes what is buffered, if possible."""
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


def _to_standard_error(pretty: bool) -> Callable[..., Any]:
    if pretty:
        return structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(sys.stderr)))
    return structlog.BytesLoggerFactory(cast("BinaryIO", _Unfailing(sys.stderr.buffer)))
