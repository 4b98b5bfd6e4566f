"""What a store says of itself once everything in it was moved to another one. It must not know what that was.

A gateway that is started over it by mistake would tell everybody again what the other one has told since.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct, convert

from gateway.store import Tx

MARK, ARRIVED = "moved", "arrived"
"""The notes of a store that was moved, at the old place and at the new one."""


class Moved(Struct, frozen=True, kw_only=True):
    """One move, as both stores note it: from where, to where, and when; the token tells it from every other."""

    origin: str
    to: str
    at: int
    token: str

    @property
    def day(self) -> str:
        """When that was, for people."""
        return datetime.fromtimestamp(self.at / 1000, UTC).isoformat(" ", "seconds").replace("+00:00", " UTC")

    @property
    def refusal(self) -> str:
        """Why nobody serves from the old store any more."""
        return (
            f"what was in {self.origin} was moved to {self.to} at {self.day}: let `store` name that one. Delivered "
            "from here too, everything would be told twice; whoever goes on from here all the same says "
            "`alert-gateway move --config FILE --undo` first"
        )


def noted(value: object) -> Moved | None:
    """A move out of a note, where there is one."""
    return convert(value, Moved) if value else None


def left(tx: Tx) -> Moved | None:
    """Where everything in this store was moved to, if it was."""
    return noted(tx.note(MARK))
