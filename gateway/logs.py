"""Structured logs: one line of JSON per event where nobody is looking, colours where somebody is.

A request binds its id, so that every line on its road carries it. Bodies, headers and credentials are never logged;
what looks like one all the same is masked.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import IO, Any, BinaryIO, TextIO, cast

import msgspec
import structlog

from gateway.secrets import MASK

WORKER = "ALERT_GATEWAY_WORKER"
"""The variable that tells a process which of several workers it is."""
_TELLTALE = ("authorization", "apikey", "api_key", "password", "secret", "token", "credential")


@functools.cache
def _tells(name: str) -> bool:
    """Whether a field's name speaks of credentials. There are as many as this code has names for fields."""
    return any(word in name.lower() for word in _TELLTALE)


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks the values of fields whose names speak of credentials."""
    for name in event:
        if _tells(name):
            event[name] = MASK
    return event


def name_worker(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Says which of several workers speaks: all write to one log."""
    event.setdefault("worker", int(os.environ[WORKER]))
    return event


def as_json(event: MutableMapping[str, Any], default: Callable[[Any], Any]) -> bytes:
    """An event as a line of JSON, whatever its values are: there is one for each request, so that it has to be quick,
    and none may be lost for halves of characters or a number that no JSON library but Python's can read."""
    try:
        return msgspec.json.format(msgspec.json.encode(event, enc_hook=default), indent=0)
    except (ValueError, TypeError, OverflowError):
        return json.dumps(event, default=default).encode("ascii")


def stand_in() -> None:
    """Opens what whoever started us has closed (`2>&-`): the next socket would have the number of standard error, which
    is then written to, and the event loop aborts where it is to close such a one."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number is taken, and those below are there
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
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(serializer=as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_to_standard_error(pretty),
        cache_logger_on_first_use=True,
    )


class _Unfailing:
    """Where lines are written that may be lost, and nothing with them: a log may be on a disk that is full, or go to
    somebody who has ended."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def write(self, line: Any) -> None:
        """Writes it, or keeps some of it for later, or none."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(line)

    def flush(self) -> None:
        """Writes what was kept, if that can be."""
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


def _to_standard_error(pretty: bool) -> Callable[..., Any]:
    if pretty:
        return structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(sys.stderr)))
    return structlog.BytesLoggerFactory(cast("BinaryIO", _Unfailing(sys.stderr.buffer)))
