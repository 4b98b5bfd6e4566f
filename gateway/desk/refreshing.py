"""Brings alerts as shown by a primary of the caller's own dialect into the record.

Only what somebody else changed there counts as a change: it is found by comparing with what we would have sent.
Plain functions of a transaction; they know no vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice

from msgspec import UNSET, Struct

from gateway.canonical import Flat, flatten, in_order, unflatten
from gateway.config.choosing import key_entry, lane
from gateway.config.config import Upstream
from gateway.mapping.rows import Unmet, Writing
from gateway.mapping.translation import translate
from gateway.mapping.values import from_millis, millis
from gateway.outcome import FoundAlert
from gateway.road.accepted import Caller
from gateway.road.changing import record_as_shown
from gateway.road.terms import SPOKEN, is_anothers, saying
from gateway.store import EVER, AlertFilter, AlertRow, CommandBody, TargetRow, Tx

KEPT_HERE = ("created_at", "updated_at", "acknowledged_at")
"""Times that are not taken from the upstream: there they say when the upstream was told."""
LISTED_AFTER_MS = 60_000
"""Milliseconds within which an alert may be missing in an upstream's list although it is there."""
UNSEEN_AT_ONCE = 4
"""Alerts missing in an upstream's list that are asked for each time: whoever asked for the list waits for that."""
LAST_KNOWN = 16
"""Alerts that an upstream knows by one id are looked at newest first, this many at first."""


class ListQuestion(Struct, frozen=True, kw_only=True):
    """A list that an upstream was asked for: for which caller, with the key of which `entry` (an alert sent with
    another key may have the same id in another account), and when, in milliseconds."""

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
    """Updates the record with what the upstream shows; a change that somebody else made there increments the version,
    a value that the vendor itself chose for the word that it was told does not. Of a field that was never sent only the
    vendor's own version, in `seen`, tells a change from a default.
    `ids` are further ids that the upstream has for the alert, by which it is found from now on."""
    target = next((one for one in tx.targets(row.id) if one.upstream == upstream.name), None)
    if target is None or row.is_deleted or _is_newer_one(tx, row, found):
        return row
    flat = flatten(row.body)
    meant = _meant(row, target, upstream, flat)
    mapping, after = upstream.destination.mapping, dict(flat)
    is_changed = any(target.seen.get(name) not in (None, value) for name, value in seen.items())
    for path, value in found.items():
        if path in KEPT_HERE or path in target.replaced or meant.get(path, UNSET) == value:
            continue
        if after.get(path, UNSET) != value:
            after[path] = value
            is_changed |= path == "status" or (path in meant and not mapping.is_alike(path, meant[path], value))
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
    record_as_shown(row, after)
    if row.name is not None and after.get("summary"):
        holder = tx.alert_by_name(row.scope, str(after["summary"]))
        row.name = str(after["summary"]) if holder is None or holder.id == row.id else row.name
    tx.update_alert(row)
    return row


def _is_newer_one(tx: Tx, row: AlertRow, found: Flat) -> bool:
    """Whether what is open there belongs to a newer alert of the same key in the record: the older one stays ended."""
    comes_back = not row.is_open and found.get("status", "resolved") != "resolved"
    return comes_back and row.key is not None and tx.alert_by_key(row.scope, row.key) is not None


def _meant(row: AlertRow, target: TargetRow, upstream: Upstream, flat: Flat) -> Flat:
    """The values that the upstream would show if nobody else had changed the alert there."""
    try:
        body = translate(saying(row, target, flat, CommandBody(), row.updated_at), upstream.destination).body
    except Unmet:
        return flat
    mapping = upstream.destination.mapping
    shown = mapping.write({"status": flat.get("status")}, Writing(), side="reply", partial=True)
    return {**mapping.meaning(body), **mapping.interpret(shown, side="reply").flat}


def forget(tx: Tx, alert: int, upstream: Upstream, now: int) -> None:
    """Marks an alert as deleted that somebody deleted at the primary."""
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
    """Merges the upstream's list: refreshes the alerts of this scope, adopts those that no scope has, and ignores the
    rest. One that ended before `kept_since` may have been any scope's, purged by now: it is not adopted. An alert that
    changed here since the list was asked for is newer than the list."""
    who, upstream = asked.who, asked.upstream
    in_flight = tx.next_due(upstream.name, EVER) is not None  # what is listed may be ours, not yet recorded
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
    """The open alerts that were adopted from an upstream's list and are in it no more. Where that list is complete, and
    there is no other way to ask for an alert, they are over: nobody would ever say so here."""
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


def unseen(
    tx: Tx, asked: ListQuestion, listed: Collection[str], lately: Collection[int]
) -> list[tuple[AlertRow, TargetRow]]:
    """Open alerts of the asking scope and dialect that the upstream has, as far as is known, and that are not in its
    list, each with its target; at most `UNSEEN_AT_ONCE`, as each is asked for, and none of those asked for `lately`.
    One that changed lately may not be listed yet."""
    who, before = asked.who, asked.at - LISTED_AFTER_MS
    parts = tx.alerts_in_parts(who.scope, AlertFilter(statuses=("firing", "acknowledged")))
    old = (row for part in parts for row in part if row.dialect == who.dialect.name and row.updated_at < before)
    old = (row for row in old if row.shown not in listed and row.id not in lately)
    firsts = ((row, target) for row in old for target in tx.targets(row.id)[:1])
    missed = (one for one in firsts if _is_there(asked, one[1]) and one[1].ids["id"] not in listed)
    return list(islice((one for one in missed if not tx.is_waiting(one[0].id, one[1].upstream)), UNSEEN_AT_ONCE))


def _is_there(asked: ListQuestion, target: TargetRow) -> bool:
    """Whether the upstream has an alert, as far as is known, under the key that its list was asked with."""
    is_its_own = target.upstream == asked.upstream.name and not is_anothers(target, asked.upstream)
    is_reachable = is_its_own and key_entry(target.lane) == asked.entry and bool(target.ids.get("id"))
    return is_reachable and target.state == "present"


def let_go(tx: Tx, alerts: Iterable[int], asked_at: int) -> None:
    """Removes these alerts, except those that somebody has changed since the list was asked for; one that is listed
    again is adopted again."""
    for alert in alerts:
        tx.lock(f"alert {alert}")
        row = tx.alert(alert)
        if row is not None and row.updated_at < asked_at and not tx.count_commands(alert):
            tx.remove_alert(alert)


def _held(tx: Tx, scope: str, upstream: str, name: str, entry: str) -> AlertRow | None:
    """The alert of a scope that an upstream has by this id under this key entry; the newest of several."""
    for newest in (LAST_KNOWN, None):  # nearly always it is the last; an alert that flaps has thousands of them
        for row in tx.alerts_by_party(scope, name, upstream, newest=newest):
            lanes = [target.lane for target in tx.targets(row.id) if target.upstream == upstream]
            if any(key_entry(one) == entry for one in lanes):
                return row
    return None


def _is_the_one_now(tx: Tx, row: AlertRow, upstream: Upstream, found: FoundAlert) -> bool:
    """Whether what was found is the alert's current one at the upstream: one that was closed and made again is there
    twice."""
    known = [target for target in tx.targets(row.id) if target.upstream == upstream.name]
    return [one.ids.get("id") for one in known if not is_anothers(one, upstream)] == [found.id]


def _was_anybodys(found: FoundAlert, kept_since: int) -> bool:
    """Whether an alert that no scope has may be one of a scope that was purged: it ended long ago, or it is a rule that
    a gateway made for another dialect's alert and switched off to end it."""
    is_off = found.carries and found.flat.get("enabled") is False
    return is_off or _is_long_over(found.flat, kept_since)


def _is_long_over(flat: Flat, before: int) -> bool:
    """Whether an alert is over, and all of its times are before this one."""
    times = [millis(at) for path in ("created_at", "updated_at", "resolved_at") if (at := flat.get(path))]
    return flat.get("status") == "resolved" and bool(times) and max(times) < before


def _adopt(tx: Tx, asked: ListQuestion, found: FoundAlert, alert: int, now: int) -> None:
    """Records an alert that was at the upstream before the gateway: from now on it belongs to the scope that asked."""
    who, upstream = asked.who, asked.upstream
    shown = {path: value for path, value in found.flat.items() if value is not None}
    flat = in_order({"kind": who.dialect.kind, "status": "firing", "created_at": from_millis(now), **shown})
    flat.setdefault("updated_at", flat["created_at"])
    name = str(flat["summary"]) if who.dialect.unique_names and flat.get("summary") else None
    if name is not None and tx.alert_by_name(who.scope, name):
        name = None
    is_free = tx.alert_by_id(who.scope, found.id) is None  # an id that is in use already stays with its alert
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
            created_at=millis(flat["created_at"]),
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
