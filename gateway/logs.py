"""Structured logs: one line of JSON per event where nobody is looking, colours where somebody is.

A request binds its id, so that every line on its road carries it. Bodies, headers and credentials are never logged;
what looks like one all the same is masked.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from gateway.secrets import MASK

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


def configure(level: str = "info") -> None:
    """Sets up logging for the process, to standard error."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
