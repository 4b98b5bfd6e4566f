"""Warnings, at each start and reload, of alerts that a changed configuration leaves behind: those of a caller that has
another scope now, and those at an upstream that was removed, renamed, or given another address or dialect. It must not
know any vendor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial

import structlog

from gateway.config.config import Config
from gateway.store import AlertFilter, Store, Tx

log = structlog.get_logger()
SCOPES = "scopes"
"""The name of a note: the scopes that callers had when the gateway served last, or that still have open alerts."""
PLACES = "places"
"""The name of a note: the address, as a digest, of each upstream that was ever in the file."""
SPOKEN = "spoken"
"""The name of a note: the dialect of each upstream in the file."""
RENAMED = "renamed"
"""The name of a note: for each upstream that left the file those that have appeared at its address since."""
AT_ANOTHER = (
    "open alerts there are changed and ended by ids that the old address gave: if the new one is the same account, all "
    "is well; if not, they are ids of other alerts: give the new address another name, and restore the old one, in "
    "no route, until nothing is open there"
)
REPLACED = (
    "alerts that are open at the former vendor will not be resolved there: give the new one another name, and restore "
    "the former under this name, in no route, until nothing is open there"
)
LEFT = (
    "alerts open there will not be resolved there: restore the upstream under this name, in no route, until nothing is "
    "open there; what ended meanwhile is sent then"
)


async def warn_of_scopes(store: Store, config: Config, before: frozenset[str]) -> None:
    """Warns of scopes with open alerts that no caller can end any more: among the scopes `before` a reload, and those
    noted by the last run, as most people change the file and restart. It warns at each start until the alerts are
    over."""
    now = config.scopes
    known = frozenset((await store.read(lambda tx: tx.note(SCOPES)) or {}).get("names", ()))
    left = []
    for scope in sorted((known | before) - now):
        count = await store.read(partial(_count_open, scope=scope), is_long=True, whose="gateway")
        if count:
            left.append(scope)
            log.warning("scope.left", scope=scope, open=count)
    if (names := now.union(left)) != known:
        await store.write(lambda tx: tx.put_note(SCOPES, {"names": sorted(names)}))


def _count_open(tx: Tx, scope: str) -> int:
    """How many alerts of a scope are open."""
    return tx.alerts(scope, AlertFilter(statuses=("firing", "acknowledged"), limit=1))[1]


async def warn_of_upstreams(store: Store, config: Config) -> None:
    """Warns of upstreams at another address than before, where alerts are found by ids which the upstream issued, and
    of upstreams with open alerts that are another vendor's now, no longer in the file, or not under that name."""
    upstreams = config.upstreams
    now = {name: hashlib.sha256(one.url.encode()).hexdigest() for name, one in upstreams.items()}
    by_id = [name for name, one in upstreams.items() if one.dialect.outbound.addressed_by == "id"]
    known, renamed = await store.write(partial(_keep, now=now))
    spoken = await store.write(partial(_keep_spoken, now={name: one.dialect.name for name, one in upstreams.items()}))

    def look(tx: Tx) -> tuple[list[str], dict[str, int]]:
        moved = [name for name in by_id if known.get(name, now[name]) != now[name] and tx.has_deliveries(name)]
        gone = (known.keys() - now.keys()) | spoken.keys()
        return moved, {name: count for name in sorted(gone) if (count := tx.count_open_at(name))}

    moved, left = await store.read(look, is_long=True, whose="gateway")
    for name in moved:
        if name not in spoken:  # another vendor is never told its ids
            log.warning("upstream.moved", upstream=name, url=upstreams[name].url, reason=AT_ANOTHER)
    for name, count in left.items():
        if name in spoken:
            new = upstreams[name].dialect.name
            log.warning("upstream.replaced", upstream=name, open=count, was=spoken[name], now=new, reason=REPLACED)
            continue
        there = [other for other in renamed.get(name, ()) if other in now]
        log.warning("upstream.left", upstream=name, open=count, now=there or None, reason=LEFT)


def _keep(tx: Tx, now: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Notes the addresses of the upstreams in the file, and what took the place of those that are not. Returns the
    addresses as they were known before, and the names that took the place of others."""
    tx.lock(PLACES)
    known: dict[str, str] = tx.note(PLACES) or {}
    before: dict[str, list[str]] = tx.note(RENAMED) or {}
    new = {name: place for name, place in now.items() if name not in known}
    renamed = dict(before)
    for name in known.keys() - now.keys():
        if others := [other for other, place in new.items() if place == known[name]]:
            renamed[name] = [*renamed.get(name, ()), *others]
    if {**known, **now} != known:
        tx.put_note(PLACES, {**known, **now})
    if renamed != before:
        tx.put_note(RENAMED, renamed)
    return known, renamed


def _keep_spoken(tx: Tx, now: Mapping[str, str]) -> dict[str, str]:
    """Notes the dialects of the upstreams in the file. Returns, of those which have another now, the one before."""
    tx.lock(SPOKEN)
    known: dict[str, str] = tx.note(SPOKEN) or {}
    if {**known, **now} != known:
        tx.put_note(SPOKEN, {**known, **now})
    return {name: known[name] for name, dialect in now.items() if known.get(name, dialect) != dialect}
