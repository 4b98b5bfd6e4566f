"""The mark on a store whose contents were moved to another one. It must not know what the contents are.

A gateway started on the old store by mistake would deliver again what the new one has delivered since.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct, convert

from gateway.store import Tx

MARK, ARRIVED = "moved", "arrived"
"""The names of the notes that record a move, in the old store and in the new one."""
RUNNING = "running"
"""The name of the note that says, where an engine keeps no claims, whether a gateway runs on the store; False once one
has ended and has recorded all of its attempts."""


class Moved(Struct, frozen=True, kw_only=True):
    """One move, as both stores record it: from where, to where, and when; the token identifies it. In the old store,
    `is_known` is False until the new one has confirmed its commit: until then, that may have everything or nothing."""

    origin: str
    to: str
    at: int
    token: str
    is_known: bool = True

    @property
    def day(self) -> str:
        """The time of the move, for people."""
        return datetime.fromtimestamp(self.at / 1000, UTC).isoformat(" ", "seconds").replace("+00:00", " UTC")

    @property
    def refusal(self) -> str:
        """Why no gateway may serve from the old store, and what to do."""
        if not self.is_known:
            return (
                f"a move from {self.origin} to {self.to} began to commit at {self.day}, and its outcome is unknown: "
                f"{self.to} has everything or nothing. Before a gateway serves from either, repeat the same command, "
                "which finds out; or run `alert-gateway move --config FILE --undo` if none will serve from the latter"
            )
        return (
            f"{self.origin} was moved to {self.to} at {self.day}: set `store` to that one. A gateway that serves "
            "from here would deliver everything a second time; to serve from here nevertheless, run "
            "`alert-gateway move --config FILE --undo` first"
        )

    @property
    def remark(self) -> str:
        """What to tell those who look into the old store."""
        became = f"everything was moved to {self.to} then" if self.is_known else self.refusal
        return f"this is its state at {self.day}: {became}"


def noted(value: object) -> Moved | None:
    """The move that a note records; None for an empty one."""
    return convert(value, Moved) if value else None


def left(tx: Tx) -> Moved | None:
    """The move by which everything left this store; None if there was none."""
    return noted(tx.note(MARK))
