"""What callers asked not to be told of for a while: kept per scope, and asked about whenever an alert would be told.

What it means that something is muted by it, only the dialect knows in whose words it was said. Plain functions of a
transaction; they must not know any vendor, HTTP, or SQL.
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
from gateway.store import Tx
from gateway.values import from_millis, millis

PREFIX = "mute "
MOST = 1000
"""So many may be kept per scope; those that are over make room."""
MOST_READY = 32
"""Of so many scopes what is kept is held ready: reading a thousand silences for each alert took 16 ms of it."""
_STATE = "~"
"""The name, behind all ids, of what is another one each time that a scope's silences change."""
MutedBy = Callable[[Sequence[Muted]], Callable[[Flat], Iterable[Muted]]]


def _name(scope: str, mute: str) -> str:
    """A blank ends the scope, so that no scope begins as another one does."""
    return f"{PREFIX}{scope.replace('%', '%25').replace(' ', '%20')} {mute}"


def keep(tx: Tx, scope: str, asked: Mute, now: int) -> Muted:
    """Keeps one, in the place of the one that it names; raises `Problem` where there is none."""
    tx.lock(f"mutes {scope}")
    if asked.id is not None and one(tx, scope, asked.id) is None:
        raise _unknown()
    held = kept(tx, scope)
    if asked.id is None and len(held) >= MOST:
        over = min(held, key=lambda muted: muted.ends_at)
        if over.ends_at > from_millis(now):
            raise Problem(ProblemKind.INVALID, f"there are {MOST} silences; expire one first")
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
    """Ends one now, if it has not ended by itself; raises `Problem` where there is none."""
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
    """The one of this id in this scope."""
    found = tx.note(_name(scope, mute))
    return msgspec.convert(found, Muted) if isinstance(found, dict) else None


def kept(tx: Tx, scope: str) -> list[Muted]:
    """All of a scope, in no particular order."""
    return _with_state(tx, scope)[1]


def active(tx: Tx, scope: str, now: int) -> list[Muted]:
    """Those of a scope that mute something now."""
    at = from_millis(now)
    return [muted for muted in kept(tx, scope) if muted.starts_at <= at < muted.ends_at]


def muting(tx: Tx, scope: str, flat: Flat, muted_by: MutedBy, now: int) -> Muted | None:
    """One that an alert is muted by now."""
    at = from_millis(now)
    meant = _ready(tx, scope, muted_by)(flat)
    return next((muted for muted in meant if muted.starts_at <= at < muted.ends_at), None)


def long_over(tx: Tx, scopes: Iterable[str], before: int) -> list[str]:
    """The scopes that have any which ended before a time."""
    return [scope for scope in scopes if _over(tx, scope, before)]


def forget(tx: Tx, scope: str, before: int, limit: int) -> None:
    """Removes those of a scope that ended before a time, a batch at most: what is told is held against all of them."""
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
    """All of a scope, and the state that they are in: nothing where none was ever kept, or by an earlier release."""
    notes = tx.notes(_name(scope, ""), 2 * MOST)
    state = notes.pop(0) if notes and isinstance(notes[0], str) else ""
    return state, [msgspec.convert(note, Muted) for note in notes]


def _ready(tx: Tx, scope: str, muted_by: MutedBy) -> Callable[[Flat], Iterable[Muted]]:
    """What finds those that mean an alert. Each time it is asked of the store which state is the current one, and no
    state ever comes again, so that what is held is never an old one."""
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
