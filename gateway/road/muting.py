"""Silences: what callers asked not to be told of for a while. Kept per scope, and consulted whenever an alert would be
sent to upstreams.

Which alerts a silence matches is known only to the dialect in which it was written. Plain functions of a transaction;
they must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence

import msgspec
from cachetools import LRUCache

from gateway.asked import Mute, Muted
from gateway.canonical import Flat
from gateway.errors import Problem, ProblemKind
from gateway.mapping.values import from_millis, millis
from gateway.store import Tx

PREFIX = "mute "
MOST = 1000
"""Silences kept per scope at most; those that have ended make room."""
MOST_READY = 32
"""Scopes whose silences are kept in memory, ready for matching: reading a thousand of them took 16 ms per alert."""
_STATE = "~"
"""The name of a scope's state, which sorts after all ids: a random text, renewed whenever its silences change."""
MutedBy = Callable[[Sequence[Muted]], Callable[[Flat], Iterable[Muted]]]


def _name(scope: str, mute: str) -> str:
    """The name of a note. A blank ends the scope, so that no scope's prefix is the beginning of another's."""
    return f"{PREFIX}{scope.replace('%', '%25').replace(' ', '%20')} {mute}"


def keep(tx: Tx, scope: str, asked: Mute, now: int) -> Muted:
    """Stores a silence, or replaces the one whose id it gives; raises `Problem` where there is no such silence, or too
    many are in force."""
    tx.lock(f"mutes {scope}")
    if asked.id is not None and one(tx, scope, asked.id) is None:
        raise _unknown()
    held = kept(tx, scope)
    if asked.id is None and len(held) >= MOST:
        over = min(held, key=lambda muted: muted.ends_at)
        if over.ends_at > from_millis(now):
            raise Problem(ProblemKind.INVALID, f"there are already {MOST} silences; expire one first")
        _remove(tx, scope, over.id)
    found = Muted(
        id=asked.id or str(uuid.uuid4()),
        starts_at=asked.starts_at,
        ends_at=asked.ends_at,
        updated_at=from_millis(now),
        body=asked.body,
    )
    _put(tx, scope, found)
    return found


def end(tx: Tx, scope: str, mute: str, now: int) -> Muted:
    """Ends a silence now, unless it is over already; raises `Problem` where there is none."""
    tx.lock(f"mutes {scope}")
    found, at = one(tx, scope, mute), from_millis(now)
    if found is None:
        raise _unknown()
    if found.ends_at <= at:
        return found
    ended = msgspec.structs.replace(found, starts_at=min(found.starts_at, at), ends_at=at, updated_at=at)
    _put(tx, scope, ended)
    return ended


def one(tx: Tx, scope: str, mute: str) -> Muted | None:
    """The silence of this id in this scope."""
    found = tx.note(_name(scope, mute))
    return msgspec.convert(found, Muted) if isinstance(found, dict) else None


def kept(tx: Tx, scope: str) -> list[Muted]:
    """All silences of a scope, in no particular order."""
    return _with_state(tx, scope)[1]


def active(tx: Tx, scope: str, now: int) -> list[Muted]:
    """The silences of a scope that are in force now."""
    at = from_millis(now)
    return [muted for muted in kept(tx, scope) if muted.starts_at <= at < muted.ends_at]


def muting(tx: Tx, scope: str, flat: Flat, muted_by: MutedBy, now: int) -> Muted | None:
    """A silence in force now that matches the alert, or None."""
    at = from_millis(now)
    meant = _ready(tx, scope, muted_by)(flat)
    return next((muted for muted in meant if muted.starts_at <= at < muted.ends_at), None)


def long_over(tx: Tx, scopes: Iterable[str], before: int) -> list[str]:
    """The scopes that have silences which ended before a time."""
    return [scope for scope in scopes if _over(tx, scope, before)]


def forget(tx: Tx, scope: str, before: int, limit: int) -> None:
    """Removes a scope's silences that ended before a time, a batch at most: every alert is matched against all kept."""
    tx.lock(f"mutes {scope}")
    over = _over(tx, scope, before)[:limit]
    for muted in over:
        _remove(tx, scope, muted.id)
    if over:
        _changed(tx, scope)


def _over(tx: Tx, scope: str, before: int) -> list[Muted]:
    return [muted for muted in kept(tx, scope) if millis(muted.ends_at) < before]


def _put(tx: Tx, scope: str, muted: Muted) -> None:
    tx.put_note(_name(scope, muted.id), msgspec.to_builtins(muted))
    _changed(tx, scope)


def _remove(tx: Tx, scope: str, mute: str) -> None:
    name = _name(scope, mute)
    tx.remove_notes(name, f"{name} ", 1)


def _changed(tx: Tx, scope: str) -> None:
    tx.put_note(_name(scope, _STATE), str(uuid.uuid4()))


def _unknown() -> Problem:
    return Problem(ProblemKind.NOT_FOUND, "silence not found", field="id")


# --- what is held ready ----------------------------------------------------------------------------------------

_lock = threading.Lock()
_held: LRUCache[tuple[MutedBy, str], Callable[[Flat], Iterable[Muted]]] = LRUCache(MOST_READY)


def _with_state(tx: Tx, scope: str) -> tuple[str, list[Muted]]:
    """The state of a scope, empty if it has none (nothing kept yet, or by an earlier release), and all its silences."""
    notes = tx.notes(_name(scope, ""), 2 * MOST)
    state = notes.pop(0) if notes and isinstance(notes[0], str) else ""
    return state, [msgspec.convert(note, Muted) for note in notes]


def _ready(tx: Tx, scope: str, muted_by: MutedBy) -> Callable[[Flat], Iterable[Muted]]:
    """A function that finds the silences of a scope which match an alert. The store is asked for the current state each
    time, and no state ever recurs, so a cached function is never out of date."""
    last = tx.notes(_name(scope, ""), 1)
    if last and isinstance(last[0], str):
        with _lock:
            found = _held.get((muted_by, last[0]))
        if found is not None:
            return found
    state, all_of_it = _with_state(tx, scope) if last else ("", [])
    made = muted_by(all_of_it)
    if state:
        with _lock:
            _held[muted_by, state] = made
    return made
