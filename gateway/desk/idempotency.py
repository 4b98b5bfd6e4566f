"""Idempotency keys: a repeat of a creating call returns the first answer, and delivers nothing again.

The answer is stored in the same transaction as the command, so that a crash leaves both or neither. Plain functions of
a transaction; they must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.asked import Answer, Shown
from gateway.errors import Problem, ProblemKind
from gateway.road.accepted import Answered, Order
from gateway.store import AlertRow, FirstAnswer, Keyed, Tx

KEPT_MS = 86_400_000
"""Milliseconds for which a first answer is kept: a day."""
LONGEST_KEY = 255
"""Most characters of a caller's key."""


@dataclass(frozen=True)
class Key:
    """A caller's idempotency key, and a digest of the request it came with; `patience` is for how many milliseconds the
    first request may be under way before a repeat gets its answer all the same."""

    text: str
    digest: str
    patience: int

    def of_part(self, place: int) -> Key:
        """The key for one command of a batch. It contains a line feed, which no header and so no caller's key can."""
        return replace(self, text=f"{self.text}\n{place}")


def first_answer(tx: Tx, scope: str, key: Key, now: int) -> FirstAnswer | None:
    """The answer to the first request under this key; None where this is the first. Raises `Problem` where the first
    was a different request, or has not been answered yet."""
    tx.lock(f"idempotency {scope} {key.text}")
    found = tx.keyed(scope, key.text)
    if found is None or now - found.at >= KEPT_MS:
        return None
    if found.digest != key.digest:
        text = "the Idempotency-Key was already used for a different request; use a new one"
        raise Problem(ProblemKind.KEY_REUSED, text, field="Idempotency-Key")
    if not found.answer.is_done and now - found.at < key.patience:
        text = "the first request with this Idempotency-Key has not been answered yet"
        raise Problem(ProblemKind.IN_PROGRESS, text, field="Idempotency-Key", retry_after=1)
    return found.answer


def keep(tx: Tx, order: Order, key: Key, answered: Answered, row: AlertRow | None, *, is_done: bool) -> None:
    """Stores an answer for later repeats."""
    answer = answered.answer
    kept = FirstAnswer(
        request=answer.request,
        command=order.command,
        alert=row.id if row else None,
        shown=row.shown if row else None,
        version=row.version if row else 0,
        body=row.body if row else None,
        key=answer.key,
        reports=answered.reports,
        is_done=is_done,
    )
    tx.put_keyed(order.caller.scope, key.text, Keyed(digest=key.digest, at=order.now, answer=kept))


def as_answer(kept: FirstAnswer) -> Answer:
    """The stored answer, for the dialect to word."""
    shown = None
    if kept.body is not None and kept.shown is not None:
        shown = Shown(kept.shown, kept.version, kept.body)
    return Answer(shown=shown, key=kept.key, request=kept.request)
