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
    """One move, as both stores note it: from where, to where, and when; the token tells it from every other. At the old
    place it is not `is_known` until the new one has said that it has everything: it may have nothing."""

    origin: str
    to: str
    at: int
    token: str
    is_known: bool = True

    @property
    def day(self) -> str:
        """When that was, for people."""
        return datetime.fromtimestamp(self.at / 1000, UTC).isoformat(" ", "seconds").replace("+00:00", " UTC")

    @property
    def refusal(self) -> str:
        """Why nobody serves from the old store any more."""
        if not self.is_known:
            return (
                f"a move from {self.origin} to {self.to} was to end at {self.day}, and nobody knows whether all of it "
                "is there, or nothing: before a gateway serves from either, give the same command again, which finds "
                "out; or say `alert-gateway move --config FILE --undo`, where no gateway is to serve from there"
            )
        return (
            f"what was in {self.origin} was moved to {self.to} at {self.day}: let `store` name that one. Delivered "
            "from here too, everything would be told twice; whoever goes on from here all the same says "
            "`alert-gateway move --config FILE --undo` first"
        )

    @property
    def remark(self) -> str:
        """What is to be said to whoever looks into the old store."""
        became = f"everything was moved to {self.to} then" if self.is_known else self.refusal
        return f"this is how it was at {self.day}: {became}"


def noted(value: object) -> Moved | None:
    """A move out of a note, where there is one."""
    return convert(value, Moved) if value else None


def left(tx: Tx) -> Moved | None:
    """Where everything in this store was moved to, if it was."""
    return noted(tx.note(MARK))
