"""The operator log: who did what to the outbox or the configuration, when, and why. Kept in the store, beside what it
was done to and in the same transaction. It must not know any vendor, nor how an operator was heard.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.store import Tx

PREFIX = "operator "
MOST_IDS = 1000
"""So many ids are kept of one operation; how many there were is kept in any case."""
RELOAD = "reload"
TOGETHER = 2000
"""Milliseconds within which reloads of several workers are one."""


class Operator(Struct, frozen=True):
    """Who an operator says to be, and where he was heard."""

    who: str
    origin: str


SIGNAL = Operator(who="SIGHUP", origin="a signal")
"""Whoever sends a signal has no name here."""


class Operation(Struct, kw_only=True):
    """One entry: `at` in milliseconds since 1970, `asked` as the operator put it, the deliveries it changed."""

    at: int
    who: str
    origin: str
    what: str
    because: str = ""
    asked: dict[str, Any] = {}
    ids: list[int] = []
    count: int = 0
    refused: int = 0


def entry(
    operator: Operator,
    what: str,
    at: int,
    *,
    asked: dict[str, Any],
    done: Sequence[int] = (),
    refused: int = 0,
    because: str = "",
) -> Operation:
    """What is to be kept of an operation."""
    return Operation(
        at=at,
        who=operator.who,
        origin=operator.origin,
        what=what,
        because=because,
        asked=asked,
        ids=list(done[:MOST_IDS]),
        count=len(done),
        refused=refused,
    )


def keep(tx: Tx, operation: Operation) -> None:
    """Writes an entry."""
    tx.put_note(f"{PREFIX}{operation.at:015d} {secrets.token_hex(6)}", msgspec.to_builtins(operation))


def keep_reload(tx: Tx, operator: Operator, at: int, *, is_one_of_many: bool) -> None:
    """Writes that the configuration was loaded again. Workers that reload together do it once."""
    tx.lock("operations")
    if not (is_one_of_many and any(one.what == RELOAD and at - one.at < TOGETHER for one in kept(tx, 1))):
        keep(tx, entry(operator, RELOAD, at, asked={}))


def kept(tx: Tx, limit: int) -> list[Operation]:
    """The newest entries, newest first."""
    return msgspec.convert(tx.notes(PREFIX, limit), list[Operation])


def forget(tx: Tx, before: int, limit: int) -> None:
    """Removes entries of before a time, a batch at most."""
    tx.remove_notes(PREFIX, f"{PREFIX}{before:015d}", limit)


def myself() -> str:
    """Who runs this process, as a person would say it."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        name = f"user {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
