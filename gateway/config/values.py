"""Reads the values of the configuration file: durations, sizes, addresses and alert fields.

The functions raise `ValueError` for a text that is no such value. They know nothing of the tables that values are in.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.canonical import Flat, checked, is_path
from gateway.config.secrets import MASK

CENTURY = 36_525 * 86_400.0


def duration(text: str) -> float:
    """A duration such as ``10s``, ``2m``, ``30d`` or ``500ms``, in seconds, at most a century; raises `ValueError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not found:
        raise ValueError(f'{text!r} is not a duration; write "10s", "2m", "1h" or "30d"')
    seconds = float(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]
    if seconds > CENTURY:  # times are kept in 64 bits
        raise ValueError(f"{text!r} is longer than a century")
    return seconds


def some_time(text: str) -> float:
    """A duration longer than zero, in seconds; raises `ValueError`."""
    if not (seconds := duration(text)):
        raise ValueError("must be longer than zero")
    return seconds


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(url: str, *, is_whole: bool = False) -> bool:
    """Whether a text is an http or https URL with a host, perhaps a port and a path, and nothing else; with `is_whole`
    it may have a query."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    query = "" if is_whole else parts.query
    is_plain = not (parts.username or parts.password or query or parts.fragment or re.search(r"\s", url))
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_plain and port != 0


def without_secrets(url: str) -> str:
    """An address as an error may quote it: user, password and query, in which people write credentials, are masked."""
    plain, query, _ = re.sub(r"(?<=//).*@", f"{MASK}@", url, flags=re.DOTALL).partition("?")
    return f"{plain}?{MASK}" if query else plain


def is_header(name: str) -> bool:
    """Whether a text is a valid name of an HTTP header."""
    return re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) is not None


def size(value: str | int) -> int:
    """A size in bytes, or such as ``1MiB``; raises `ValueError`."""
    if isinstance(value, int):
        if value < 1:
            raise ValueError("must be at least 1")
        return value
    found = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)?", value.strip())
    if not found:
        raise ValueError(f'{value!r} is not a size; write a number of bytes or "1MiB"')
    if not int(found[1]):
        raise ValueError("must be at least 1")
    return int(found[1]) * {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[found[2]]


def default_store() -> str:
    """The store's address unless configured: a file in the user's state directory. `RuntimeError` without a home."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"sqlite://{state}/alert-gateway/gateway.db"


def flat_of(table: Mapping[str, Any], dialect: str = "") -> Flat:
    """Canonical values from a table, where they are written dotted or nested; channels belong to `dialect`. Raises
    `KeyError` for an unknown path and `msgspec.ValidationError`."""
    return checked(dotted(table, dialect))


def dotted(table: Mapping[str, Any], dialect: str = "") -> dict[str, Any]:
    """The values of such a table by their dotted names, unchecked."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, inner: Mapping[str, Any]) -> None:
        for key, value in inner.items():
            path = f"{prefix}{key}"
            if isinstance(value, dict) and not is_path(path):
                walk(f"{path}.", value)
            else:
                flat[path] = value

    walk("", table)
    channels = flat.get("channels")
    for channel in channels if isinstance(channels, list) else ():
        if isinstance(channel, dict) and dialect:
            channel.setdefault("dialect", dialect)
    return flat


def count(value: int) -> int:
    """A number that must be at least 1; raises `ValueError`."""
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def between(read: Callable[[Any], float], least: str | int, most: str | int) -> Callable[[Any], float]:
    """Wraps `read` so that it raises `ValueError` for a value outside the bounds, which cannot be meant."""

    def reading(value: Any) -> float:
        found = read(value)
        if not read(least) <= found <= read(most):
            raise ValueError(f"{value!r} is out of range; write {least} to {most}")
        return found

    return reading
