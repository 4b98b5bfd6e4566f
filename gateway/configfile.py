"""The configuration file as it is written: its tables, and how its durations, sizes and alert fields are read.

Nothing here knows what the gateway makes of it: that is `gateway.config`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway.canonical import Flat, checked, is_path

# --- the file as it is written -------------------------------------------------------------------------------


class InboundFile(Struct, kw_only=True):
    """`[inbound.DIALECT]`: who may speak this dialect."""

    keys: dict[str, str | list[str]] = {}
    anonymous: bool = False
    scope: str | None = None
    reply: Literal["accepted", "delivered"] | None = None


class RetryFile(Struct, kw_only=True):
    """`retry` of an upstream: the first and the longest pause, and when it is given up."""

    first: str = "1s"
    most: str = "60s"
    max_age: str = "24h"


class SeverityFile(Struct, kw_only=True):
    """`severity` of an upstream: its words for the eight codes, and the codes of its words."""

    out: list[str | int] | None = None
    in_: dict[str, int] = msgspec.field(name="in", default_factory=dict)


class UpstreamFile(Struct, kw_only=True):
    """`[upstreams.NAME]`: one destination."""

    dialect: str
    url: str
    key: str | None = None
    headers: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    timeout: str = "10s"
    retry: dict[str, Any] = {}
    concurrency: int = 8
    severity: dict[str, Any] = {}
    metrics: dict[str, str] = {}
    on_resolve: Literal["disable", "delete", "keep"] | None = None
    rules: Literal["page", "quiet", "refuse"] = "page"
    carry: Literal["full", "ids", "off"] = "full"


class RouteFile(Struct, kw_only=True):
    """`[[routes]]`: first match wins unless `continue`."""

    to: list[str | dict[str, Any]]
    name: str | None = None
    from_: list[str] = msgspec.field(name="from", default_factory=list)
    when: list[str] = []
    set: dict[str, Any] = {}
    because: str = ""
    continue_: bool = msgspec.field(name="continue", default=False)


class WaitingFile(Struct, kw_only=True):
    """`max_waiting`: how much may wait in the outbox before requests are refused."""

    deliveries: int = 1_000_000
    bytes: str | int = "2GiB"


class File(Struct, kw_only=True):
    """The whole file, tables still to be checked one by one."""

    listen: str = "127.0.0.1:8080"
    store: str | None = None
    retention: str = "30d"
    reply: Literal["accepted", "delivered"] | None = None
    reply_timeout: str = "5s"
    max_body: str | int = "1MiB"
    max_waiting: int | dict[str, Any] = 1_000_000
    inbound: dict[str, dict[str, Any]] = {}
    upstreams: dict[str, dict[str, Any]] = {}
    routes: list[dict[str, Any]] = []


def duration(text: str) -> float:
    """A duration such as ``10s``, ``2m``, ``30d`` or ``500ms``, in seconds; raises `ValueError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not found:
        raise ValueError(f'{text!r} is not a duration; write "10s", "2m", "1h" or "30d"')
    return float(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def some_time(text: str) -> float:
    """A duration that is longer than nothing."""
    if not (seconds := duration(text)):
        raise ValueError("must be longer than nothing")
    return seconds


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(url: str) -> bool:
    """Whether this is the address of a server: http or https, a host, perhaps a port and a path, and nothing else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment or re.search(r"\s", url))
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_plain and port != 0


def size(value: str | int) -> int:
    """A size in bytes, or such as ``1MiB``; raises `ValueError`."""
    if isinstance(value, int):
        if value < 1:
            raise ValueError("must be at least 1")
        return value
    found = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)?", value.strip())
    if not found:
        raise ValueError(f'{value!r} is not a size; write a number of bytes or "1MiB"')
    return int(found[1]) * {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[found[2]]


def default_store() -> str:
    """Where the store is unless configured: below the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"sqlite://{state}/alert-gateway/gateway.db"


def flat_of(table: Mapping[str, Any], dialect: str = "") -> Flat:
    """Canonical values as a configuration writes them, dotted or nested; channels belong to `dialect`."""
    flat: Flat = {}

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
    return checked(flat)


def count(value: int) -> int:
    if value < 1:
        raise ValueError("must be at least 1")
    return value
