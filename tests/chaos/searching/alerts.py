"""The model: an alert as its caller means it, and which upstreams have to have it so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Alert:
    """An alert of a play. `must`: the upstreams that its create was routed to; `may`: those that a later command chose
    as well; `standby`: its fallbacks. `doubt` is why nothing is known of it any more: nothing is judged then.

    `lost`: upstreams where somebody deleted it, and which have not been told of it since; `forgotten`: where that ever
    happened. `quiet`: a silence kept it back.
    """

    mark: str
    dialect: str
    key: str
    made_at: float
    id: Any = None
    gateway_id: str = ""
    state: Literal["new", "open", "closed", "refused"] = "new"
    revision: int = 0
    opens: int = 0
    is_acknowledged: bool = False
    was_taken_back: bool = False
    is_deleted: bool = False
    is_quiet: bool = False
    notes: list[str] = field(default_factory=list)
    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)
    standby: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    doubt: str = ""
    done: list[str] = field(default_factory=list)
    closed_at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def text(self) -> str:
        """What it says."""
        return f"{self.mark} r{self.revision}"

    @property
    def is_known(self) -> bool:
        """Whether it was taken, and all is known of it."""
        return self.state in ("open", "closed") and not self.doubt

    def __str__(self) -> str:
        key = f" {self.key}" if self.key else ""
        return f"{self.mark}{key} of {self.dialect}, {self.state}{', acknowledged' * self.is_acknowledged}: {self.done}"

    def happened(self, what: str, now: float) -> None:
        """Its caller was told that this is so."""
        if what in ("acknowledge", "unacknowledge"):
            self.was_taken_back |= what == "unacknowledge"
            self.is_acknowledged = what == "acknowledge"
        elif what in ("reopen", "enable"):
            self.state, self.is_acknowledged, self.closed_at = "open", False, None
            self.opens += 1
        elif what in ("close", "disable", "close with words", "delete"):
            self.state, self.is_acknowledged, self.closed_at = "closed", False, now
            self.is_deleted |= what == "delete"
        elif what == "update":
            self.lost.clear()
