"""What a primary of the caller's own dialect shows is brought into the record.

Only what somebody else changed there counts as a change: it is found by comparing with what we would have said.
Plain functions of a transaction; they know no vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import UNSET, Struct

from gateway.accepted import Caller
from gateway.canonical import Flat, flatten, in_order, unflatten
from gateway.choosing import key_entry, lane
from gateway.config import Upstream
from gateway.outcome import FoundAlert
from gateway.rows import Unmet, Writing
from gateway.store import AlertFilter, AlertRow, CommandBody, TargetRow, Tx
from gateway.terms import SPOKEN, is_anothers, saying
from gateway.translation import translate
from gateway.values import from_millis, millis

KEPT_HERE = ("created_at", "updated_at", "acknowledged_at")
"""Times of the record's own: the upstream's are of what it was told."""
LAST_KNOWN = 16
"""So many that an upstream knows by one id are looked at first, the newest."""


class ListQuestion(Struct, frozen=True, kw_only=True):
    """A list that was asked for: for whom, of which upstream, with the key of which `entry` (what was told with another
    key may have the same id in another account), and when, in milliseconds."""

    who: Caller
    upstream: Upstream
    entry: str
    at: int


def refresh(
    tx: Tx,
    row: AlertRow,
    upstream: Upstream,
    found: Flat,
    seen: Mapping[str, object],
    now: int,
    ids: Mapping[str, str] | None = None,
) -> AlertRow:
    """Lays what the upstream shows over the record; a change that somebody else made there bumps the version. `ids` are
    further ids that it has for the alert, which is found by them from now on."""
    target = next((one for one in tx.targets(row.id) if one.upstream == upstream.name), None)
    if target is None or row.is_deleted or _is_newer_one(tx, row, found):
        return row
    flat = flatten(row.body)
    meant = _meant(row, target, upstream, flat)
    after = dict(flat)
    is_changed = False
    for path, value in found.items():
        if path in KEPT_HERE or path in target.replaced or meant.get(path, UNSET) == value:
            continue
        if after.get(path, UNSET) != value:
            after[path] = value
            is_changed |= path in meant or path == "status"
    is_over = after.get("status") == "resolved"
    if is_over != bool(after.get("resolved_at")):
        after["resolved_at"] = from_millis(now) if is_over else None
    told = {**target.ids, **(ids or {})}
    if told != target.ids or target.seen != {**target.seen, **seen}:
        for name in told.values():
            tx.add_id(row.scope, name, upstream.name, row.id)
        target.ids, target.seen = told, {**target.seen, **seen}
        tx.put_target(target)
    if after == flat:
        return row
    if is_changed:
        row.version += 1
        row.updated_at = now
        after["updated_at"] = from_millis(now)
    row.body = unflatten(in_order(after))
    row.status = after["status"]
    row.resource = after.get("resource")
    row.is_open = row.status != "resolved"
    if row.name is not None and after.get("summary"):
        holder = tx.alert_by_name(row.scope, str(after["summary"]))
        row.name = str(after["summary"]) if holder is None or holder.id == row.id else row.name
    tx.update_alert(row)
    return row


def _is_newer_one(tx: Tx, row: AlertRow, found: Flat) -> bool:
    """Whether what is open there is to the record a newer alert of the key: the older one stays over."""
    comes_back = not row.is_open and found.get("status", "resolved") != "resolved"
    return comes_back and row.key is not None and tx.alert_by_key(row.scope, row.key) is not None


def _meant(row: AlertRow, target: TargetRow, upstream: Upstream, flat: Flat) -> Flat:
    """What our own words for the alert say there."""
    try:
        body = translate(saying(row, target, flat, CommandBody(), row.updated_at), upstream.destination).body
    except Unmet:
        return flat
    mapping = upstream.destination.mapping
    shown = mapping.write({"status": flat.get("status")}, Writing(), side="reply", partial=True)
    return {**mapping.interpret(body).whole(), **mapping.interpret(shown, side="reply").flat}


def forget(tx: Tx, alert: int, upstream: Upstream, now: int) -> None:
    """The primary has it no more: somebody deleted it there."""
    tx.lock(f"alert {alert}")
    row = tx.alert(alert)
    if row is None:
        return
    for target in tx.targets(alert):
        if target.upstream == upstream.name:
            target.state = "gone"
            tx.put_target(target)
    row.is_deleted, row.is_open, row.updated_at = True, False, now
    tx.update_alert(row)


def take_in(
    tx: Tx, asked: ListQuestion, alerts: Iterable[FoundAlert], ids: Callable[[], int], now: int, *, kept_since: int
) -> None:
    """Merges the upstream's list: refreshes what this scope holds, adopts what nobody holds, leaves the rest out. What
    is over since before `kept_since` would have been forgotten by now, whoever's it was: nobody can tell any more.
    What changed here since it was asked for is newer than what it says."""
    who, upstream = asked.who, asked.upstream
    in_flight = any(one.upstream == upstream.name for one in tx.waiting())  # it may be ours, not yet recorded
    for found in alerts:
        tx.lock(f"id {upstream.name} {found.id}")
        row = _held(tx, who.scope, upstream.name, found.id, asked.entry)
        if row is not None and tx.lock(f"alert {row.id}"):
            row = tx.alert(row.id)
        if row is not None:
            is_settled = row.updated_at < asked.at and not tx.is_waiting(row.id, upstream.name)
            if is_settled and _is_the_one_now(tx, row, upstream, found):
                refresh(tx, row, upstream, found.flat, found.seen, now, found.ids)
        elif not in_flight and not tx.is_known_id(found.id, upstream.name) and not _was_anybodys(found, kept_since):
            _adopt(tx, asked, found, ids(), now)


def unlisted(tx: Tx, asked: ListQuestion, listed: Collection[str]) -> list[int]:
    """What was adopted from an upstream's list, and is in it no more: over, where that list is whole and all that can
    be asked for, as nobody would ever say so here."""
    who, here = asked.who, (asked.upstream.name, asked.entry, False)
    parts = tx.alerts_in_parts(who.scope, AlertFilter(statuses=("firing", "acknowledged")))
    rows = (row for part in parts for row in part)
    adopted = [row.id for row in rows if row.key is None and row.ends_at is None and row.dialect == who.dialect.name]
    missed = []
    for alert in adopted:
        at = [(one.upstream, key_entry(one.lane), one.ids.get("id") in listed) for one in tx.targets(alert)]
        if at == [here] and not tx.count_commands(alert):
            missed.append(alert)
    return missed


def let_go(tx: Tx, alerts: Iterable[int], asked_at: int) -> None:
    """Nothing is left of those, unless somebody said something of them since the list was asked for: one that is listed
    again is adopted again."""
    for alert in alerts:
        tx.lock(f"alert {alert}")
        row = tx.alert(alert)
        if row is not None and row.updated_at < asked_at and not tx.count_commands(alert):
            tx.remove_alert(alert)


def _held(tx: Tx, scope: str, upstream: str, name: str, entry: str) -> AlertRow | None:
    """The alert of a scope that an upstream knows by this id where it is asked with this key; the newest of several."""
    for newest in (LAST_KNOWN, None):  # the last is the one nearly always, of an alert that flaps one of thousands
        for row in tx.alerts_by_party(scope, name, upstream, newest=newest):
            lanes = [target.lane for target in tx.targets(row.id) if target.upstream == upstream]
            if any(key_entry(one) == entry for one in lanes):
                return row
    return None


def _is_the_one_now(tx: Tx, row: AlertRow, upstream: Upstream, found: FoundAlert) -> bool:
    """Whether it is what the alert is there by now: one that was closed there, and made again, is there twice."""
    known = [target for target in tx.targets(row.id) if target.upstream == upstream.name]
    return [one.ids.get("id") for one in known if not is_anothers(one, upstream)] == [found.id]


def _was_anybodys(found: FoundAlert, kept_since: int) -> bool:
    """Whether what nobody is known to have may be what was forgotten of somebody: it is over since long ago, or it is
    what is left of another dialect's alert where only switching a rule off ends one."""
    is_off = found.carries and found.flat.get("enabled") is False
    return is_off or _is_long_over(found.flat, kept_since)


def _is_long_over(flat: Flat, before: int) -> bool:
    """Whether an alert is over, and all that is said of it was before a time."""
    times = [millis(at) for path in ("created_at", "updated_at", "resolved_at") if (at := flat.get(path))]
    return flat.get("status") == "resolved" and bool(times) and max(times) < before


def _adopt(tx: Tx, asked: ListQuestion, found: FoundAlert, alert: int, now: int) -> None:
    """An alert that was there before the gateway: it belongs to the scope that asked, from now on."""
    who, upstream = asked.who, asked.upstream
    flat = in_order({"kind": who.dialect.kind, "status": "firing", "created_at": from_millis(now), **found.flat})
    flat.setdefault("updated_at", flat["created_at"])
    name = str(flat["summary"]) if who.dialect.unique_names and flat.get("summary") else None
    if name is not None and tx.alert_by_name(who.scope, name):
        name = None
    created = int(flat["created_at"].timestamp() * 1000)
    is_free = tx.alert_by_id(who.scope, found.id) is None  # what is shown already stays one alert's own
    tx.insert_alert(
        AlertRow(
            id=alert,
            scope=who.scope,
            dialect=who.dialect.name,
            caller=who.name,
            shown=found.id if is_free else who.dialect.shown_id(alert),
            key=None,
            name=name,
            status=flat["status"],
            resource=flat.get("resource"),
            is_open=flat["status"] != "resolved",
            version=1,
            created_at=created,
            updated_at=now,
            body=unflatten(flat),
            verbatim={},
        )
    )
    ids = {**found.ids, "id": found.id}
    for name in ids.values():
        tx.add_id(who.scope, name, upstream.name, alert)
    tx.put_target(
        TargetRow(
            alert=alert,
            upstream=upstream.name,
            position=0,
            lane=lane(f"alert {alert}", key=upstream.entry(who.dialect.name, who.name)),
            key=None,
            state="present",
            ids=ids,
            seen={**found.seen, SPOKEN: upstream.dialect.name},
        )
    )
