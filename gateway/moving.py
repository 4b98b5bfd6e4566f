"""A store brought over into one of the other engine, as an operator asks for it: which two are meant. What is done is
in `gateway.store.moving`. It must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway import muting, quieting
from gateway.config import UNTOLD
from gateway.errors import StoreError
from gateway.secrets import Secret
from gateway.store import moving
from gateway.store.moved import Moved
from gateway.store.opening import POSTGRES, SQLITE
from gateway.store.sqlite_side import SqliteSide

SPOKEN = (muting.PREFIX, quieting.PREFIX)
"""How notes begin that somebody asked for: a store that has such is not empty."""


class NotAPlace(ValueError):
    """No store can be moved there."""


def move(origin: str, target: str, say: Callable[[str], None]) -> moving.Outcome:
    """Moves everything from the store of a configuration to another; raises `NotAPlace` where that is none, and
    `StoreError` where it cannot be done."""
    to = _address(target)
    if origin.startswith(POSTGRES) == to.startswith(POSTGRES):
        raise NotAPlace(
            "both are in PostgreSQL; pg_dump and pg_restore copy one"
            if to.startswith(POSTGRES)
            else "both are in SQLite; `backup` copies one"
        )
    return moving.move(_side(origin), _side(to, may_be_made=True), say, SPOKEN)


def undo(origin: str) -> Moved:
    """Lets a gateway serve again from a store that was moved; raises `StoreError` where it was not."""
    return moving.undo(_side(origin))


def _address(target: str) -> str:
    """A URL as `store` in a configuration may have it, and by reference too: it may hold a password."""
    try:
        url = Secret(target).value() if target.startswith(("env:", "file:")) else target
    except ValueError as error:
        raise NotAPlace(str(error)) from None
    if not url.startswith(POSTGRES) and not re.fullmatch(f"{SQLITE}/.+", url):
        raise NotAPlace("write postgresql://user@host/name or sqlite:///absolute/path")
    return url


def _side(url: str, *, may_be_made: bool = False) -> moving.Side:
    if url == UNTOLD:
        raise StoreError("store: its address is a secret that is not here; set what `store` refers to")
    if not url.startswith(POSTGRES):
        return SqliteSide(url.removeprefix(SQLITE), may_be_made=may_be_made)
    try:
        from gateway.store.postgres_side import PostgresSide
    except ImportError as error:
        raise StoreError(
            f"a store in PostgreSQL needs a package that is not here ({error}); "
            "type in a checkout: pip install '.[postgres]'"
        ) from None
    return PostgresSide(url)
