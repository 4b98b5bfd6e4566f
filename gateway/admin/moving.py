"""Moving a store to the other engine, as an operator asks for it: resolves the two addresses. The move itself is in
`gateway.store.moving`. It must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.config.config import UNTOLD
from gateway.config.secrets import Secret
from gateway.config.store_url import POSTGRES, SQLITE
from gateway.errors import StoreError
from gateway.road import muting, quieting
from gateway.store import moving
from gateway.store.moved import Moved
from gateway.store.sqlite_side import SqliteSide

SPOKEN = (muting.PREFIX, quieting.PREFIX)
"""Prefixes of the notes that callers' requests make: a store that has any is not empty."""


class NotAPlace(ValueError):
    """The target is not an address that a store can be moved to."""


def move(origin: str, target: str, say: Callable[[str], None]) -> moving.Outcome:
    """Moves everything from the configured store to another; raises `NotAPlace` where `target` cannot be one, and
    `StoreError` where the move fails."""
    to, origin = _address(target), _told(origin)
    if origin.startswith(POSTGRES) == to.startswith(POSTGRES):
        raise NotAPlace(
            "both stores are in PostgreSQL; copy one with pg_dump and pg_restore"
            if to.startswith(POSTGRES)
            else "both stores are in SQLite; copy one with `alert-gateway backup`"
        )
    return moving.move(_side(origin), _side(to, may_be_made=True), say, SPOKEN)


def undo(origin: str) -> Moved:
    """Lets a gateway serve again from a store that was moved away; raises `StoreError` where it was not."""
    return moving.undo(_side(_told(origin)))


def _told(url: str) -> str:
    """The URL of the configured store, unless it is one that could not be read."""
    if url == UNTOLD:
        raise StoreError("store: its address is a secret that cannot be read; set what `store` refers to")
    return url


def _address(target: str) -> str:
    """The URL of the target, in the forms that `store` in a configuration has; a reference too, as it may hold a
    password."""
    try:
        url = Secret(target).value() if target.startswith(("env:", "file:")) else target
    except ValueError as error:
        raise NotAPlace(str(error)) from None
    if not url.startswith(POSTGRES) and not re.fullmatch(f"{SQLITE}/.+", url):
        raise NotAPlace("write postgresql://user@host/name or sqlite:///absolute/path")
    return url


def _side(url: str, *, may_be_made: bool = False) -> moving.Side:
    if not url.startswith(POSTGRES):
        return SqliteSide(url.removeprefix(SQLITE), may_be_made=may_be_made)
    try:
        from gateway.store.postgres_side import PostgresSide
    except ImportError as error:
        raise StoreError(
            f"a store in PostgreSQL needs a package that is not installed ({error}); "
            "in a checkout: pip install '.[postgres]'"
        ) from None
    return PostgresSide(url)
