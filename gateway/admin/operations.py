"""The operator log: who did what to the outbox or the configuration, when, and why. Kept in the store; what is done to
the outbox is logged in the same transaction. It must not know any vendor, nor how an operator's request arrives.
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
"""Ids kept of one operation at most; their number is kept in any case."""
RELOAD = "reload"
TOGETHER = 2000
"""Milliseconds within which reloads of several workers count as one."""


class Operator(Struct, frozen=True):
    """The name that an operator gives, and how the request came: over HTTP, from the command line, as a signal."""

    who: str
    origin: str


SIGNAL = Operator(who="SIGHUP", origin="a signal")
"""The operator of a reload by signal, whose sender is not known."""


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
    """The log entry for an operation."""
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
    """Logs that the configuration was loaded again; once for workers that reload together."""
    tx.lock("operations")
    if not (is_one_of_many and any(one.what == RELOAD and at - one.at < TOGETHER for one in kept(tx, 1))):
        keep(tx, entry(operator, RELOAD, at, asked={}))


def kept(tx: Tx, limit: int) -> list[Operation]:
    """The newest entries, newest first."""
    return msgspec.convert(tx.notes(PREFIX, limit), list[Operation])


def forget(tx: Tx, before: int, limit: int) -> None:
    """Removes entries older than a time, a batch at most."""
    tx.remove_notes(PREFIX, f"{PREFIX}{before:015d}", limit)


def myself() -> str:
    """The user that runs this process, as `user@host`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        name = f"user {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
