"""Which store a URL means. A driver is imported only when it is asked for: its packages may not be there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from gateway.errors import StoreError
from gateway.store import Store

SQLITE = "sqlite://"
POSTGRES = ("postgresql://", "postgres://")


def open_store(url: str, *, exclusive: bool = True, lease: float = 15.0, now: Callable[[], str] | None = None) -> Store:
    """The store at `sqlite:///absolute/path`, a plain path, or `postgresql://…`; not yet open. `exclusive` is False
    for tools that look at a store while a gateway serves from it; `lease` is for how many seconds a replica holds
    what it claims. `now` tells the URL as it is now: its credential may be a secret that is replaced."""
    if url.startswith(POSTGRES):
        return _postgres(url, exclusive, lease, now)
    if "://" in url and not url.startswith(SQLITE):
        scheme = url.partition("://")[0]
        raise StoreError(
            f"{scheme!r} is not a store here; write sqlite:///absolute/path or postgresql://user@host/name"
        )
    from gateway.store.sqlite import SqliteStore

    return SqliteStore(url.removeprefix(SQLITE), exclusive=exclusive)


def without_credential(url: str) -> str:
    """What tells a store from another: its URL, but for who goes there and with which password."""
    if not url.startswith(POSTGRES):
        return url
    hosts, slash, rest = url.partition("://")[2].partition("/")
    return hosts.rpartition("@")[2] + slash + re.sub(r"(?<=[?&])(user|password)=[^&]*", "", rest)


def is_torn(url: str) -> bool:
    """Whether a `/` or an `@` in the password ends it too early for libpq: the rest would be shown as the host."""
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return authority.count("@") > 1 or "@" in path


NO_PACKAGE = "PostgreSQL needs a package that is not here; type in a checkout: pip install '.[postgres]'"
"""Why a store in PostgreSQL cannot be opened."""


def is_served(url: str) -> bool:
    """Whether a gateway may be serving from a store just now: one in PostgreSQL does not tell, and SQLite's log is gone
    once nobody has the file open."""
    return url.startswith(POSTGRES) or Path(os.path.realpath(url.removeprefix(SQLITE)) + "-wal").exists()


def _postgres(url: str, exclusive: bool, lease: float, now: Callable[[], str] | None) -> Store:
    try:
        from gateway.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreError(f"{NO_PACKAGE} ({error})") from None
    return PostgresStore(url, lease=lease, exclusive=exclusive, now=now)
