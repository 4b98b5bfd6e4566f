"""Chooses the driver for a store's URL. A driver is imported only when needed: its packages may not be installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gateway.config.store_url import POSTGRES, SQLITE
from gateway.errors import StoreError
from gateway.store import Store


def open_store(url: str, *, exclusive: bool = True, lease: float = 15.0, now: Callable[[], str] | None = None) -> Store:
    """The store at `sqlite:///absolute/path`, a plain path, or `postgresql://…`; not yet open. `exclusive` is False
    for tools that look at a store while a gateway serves from it; `lease` is how many seconds a replica holds what it
    claims. `now` returns the current URL, as its credential may be a secret that is replaced."""
    if url.startswith(POSTGRES):
        return _postgres(url, exclusive, lease, now)
    if "://" in url and not url.startswith(SQLITE):
        scheme = url.partition("://")[0]
        raise StoreError(
            f"{scheme!r} is not a supported store; write sqlite:///absolute/path or postgresql://user@host/name"
        )
    from gateway.store.sqlite import SqliteStore

    return SqliteStore(url.removeprefix(SQLITE), exclusive=exclusive)


NO_PACKAGE = "PostgreSQL needs a package that is not installed; run in a checkout: pip install '.[postgres]'"
"""Why a store in PostgreSQL cannot be opened without its driver."""


def is_served(url: str) -> bool:
    """Whether a gateway may be serving from a store now: always for PostgreSQL, where it cannot be told; for SQLite
    while there is a write-ahead log, which is removed when the last connection closes."""
    return url.startswith(POSTGRES) or Path(os.path.realpath(url.removeprefix(SQLITE)) + "-wal").exists()


def _postgres(url: str, exclusive: bool, lease: float, now: Callable[[], str] | None) -> Store:
    try:
        from gateway.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreError(f"{NO_PACKAGE} ({error})") from None
    return PostgresStore(url, lease=lease, exclusive=exclusive, now=now)
