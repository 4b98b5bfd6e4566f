"""Finds in the store what a caller's query asks for, and builds the same query for an upstream. It must not know any
vendor, HTTP, or SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest, nsmallest
from operator import itemgetter
from typing import Any

from msgspec import UNSET, Raw, json

from gateway.asked import Answer, Chosen, Listing, Muted, Ref, Shown
from gateway.canonical import Operation, flatten
from gateway.config.config import Upstream
from gateway.errors import Problem, ProblemKind
from gateway.mapping.values import from_millis
from gateway.outcome import Sending
from gateway.road import muting
from gateway.road.accepted import Caller
from gateway.store import AlertFilter, AlertRow, TargetRow, Tx


def as_shown(row: AlertRow) -> Shown:
    """A stored alert in the form that dialects word."""
    return Shown(row.shown, row.version, row.body)


def listed(tx: Tx, scope: str, asked: Listing, wanted: AlertFilter, now: int) -> Answer:
    """The alerts that a listing asks for, and their total number."""
    if asked.choose is None:
        rows, total = tx.alerts(scope, wanted)
        return Answer(listed=tuple(as_shown(row) for row in rows), total=total, listing=asked)
    chosen = _Counted(_chosen(tx, scope, asked, asked.choose, wanted, now))
    page = [kept for _, kept in _page(chosen, asked)]
    worded = tuple(kept for kept in page if isinstance(kept, Raw))
    found = [tx.alert(kept) for kept in page if not isinstance(kept, Raw)]
    return Answer(listed=tuple(as_shown(row) for row in found if row), worded=worded, total=chosen.count, listing=asked)


def _chosen(
    tx: Tx, scope: str, asked: Listing, choose: Callable[[Shown], Chosen | None], wanted: AlertFilter, now: int
) -> Iterator[tuple[Any, Any]]:
    """The sort key of each chosen alert, and what is kept of it: its bytes where it is worded, else its id. Alerts are
    read in parts: there may be a hundred thousand open ones, of which only a page is needed."""
    muted = muting.active(tx, scope, now) if asked.marked else []
    for rows in tx.alerts_in_parts(scope, wanted):
        shown: Sequence[Shown] = [as_shown(row) for row in rows]
        for row, one in zip(rows, asked.marked(shown, muted) if asked.marked else shown, strict=True):
            found = choose(one)
            if found is not None:
                yield found.place, row.id if found.worded is UNSET else Raw(json.encode(found.worded))


def _page(chosen: Iterable[tuple[Any, Any]], asked: Listing) -> list[tuple[Any, Any]]:
    """The page of the chosen alerts that is asked for, sorted; alerts with equal keys stay in their order."""
    if asked.limit is None:
        return sorted(chosen, key=itemgetter(0), reverse=asked.descending)[asked.offset :]
    first = nlargest if asked.descending else nsmallest
    return first(asked.offset + asked.limit, chosen, key=itemgetter(0))[asked.offset :]


class _Counted:
    """Counts the items while they are iterated over."""

    def __init__(self, found: Iterable[tuple[Any, Any]]) -> None:
        self._found = found
        self.count = 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for one in self._found:
            self.count += 1
            yield one


def mutes(tx: Tx, scope: str, wanted: str | None) -> tuple[Muted, ...]:
    """The silences of this scope, or only the `wanted` one; raises `Problem` where that does not exist."""
    if wanted is None:
        return tuple(muting.kept(tx, scope))
    found = muting.one(tx, scope, wanted)
    if found is None:
        raise Problem(ProblemKind.NOT_FOUND, "silence not found", field="id")
    return (found,)


def look_up(tx: Tx, who: Caller, ref: Ref) -> tuple[AlertRow, TargetRow | None, bool] | None:
    """The alert, its target at the primary, and whether it is present there with nothing waiting; None for an unknown
    alert."""
    by_key = ref.id is None and ref.key is not None
    row = _by_key(tx, who, ref.key or "") if by_key else tx.alert_by_id(who.scope, ref.id or "")
    if row is None:
        return None
    targets = tx.targets(row.id)
    primary = targets[0] if targets else None
    is_quiet = primary is not None and primary.state == "present" and not tx.is_waiting(row.id, primary.upstream)
    return row, primary, is_quiet


def _by_key(tx: Tx, who: Caller, key: str) -> AlertRow | None:
    """The open alert of a key. An alert adopted from an upstream's list has no key in the store: it is found by its id
    at the upstream, where that is the key in its content."""
    meant = who.dialect.same_key(key)
    if (row := tx.alert_by_key(who.scope, meant)) is not None:
        return row
    there = tx.alert_by_id(who.scope, key)
    if there is None or there.key is not None or not there.is_open:
        return None
    said = flatten(there.body).get("dedup_key")
    return there if said and who.dialect.same_key(said) == meant else None


def question(upstream: Upstream, target: TargetRow | None, now: int) -> Sending:
    """The query for an upstream: about the alert that it has as `target`, or about all of its alerts."""
    return Sending(
        operation=Operation.READ,
        at=from_millis(now),
        body={},
        patch={},
        key=target.key if target else None,
        ids=target.ids if target else {},
        seen=target.seen if target else {},
        settings=upstream.settings,
    )
