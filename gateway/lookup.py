"""What a caller's question finds in the store, and how an upstream is asked the same. It must not know any vendor,
HTTP, or SQL."""

from __future__ import annotations

from gateway import muting
from gateway.accepted import Caller
from gateway.canonical import Operation, flatten
from gateway.config import Upstream
from gateway.dialect import Muted, Ref, Sending, Shown
from gateway.errors import Problem, ProblemKind
from gateway.store import AlertRow, TargetRow, Tx
from gateway.values import from_millis


def as_shown(row: AlertRow) -> Shown:
    """An alert as dialects word it."""
    return Shown(row.shown, row.version, row.body)


def mutes(tx: Tx, scope: str, wanted: str | None) -> tuple[Muted, ...]:
    """What is not told in this scope; the `wanted` one alone, `Problem` where there is none."""
    if wanted is None:
        return tuple(muting.kept(tx, scope))
    found = muting.one(tx, scope, wanted)
    if found is None:
        raise Problem(ProblemKind.NOT_FOUND, "silence not found", field="id")
    return (found,)


def look_up(tx: Tx, who: Caller, ref: Ref) -> tuple[AlertRow, TargetRow | None, bool] | None:
    """The alert, its primary, and whether nothing waits to be sent there."""
    by_key = ref.id is None and ref.key is not None
    row = _by_key(tx, who, ref.key or "") if by_key else tx.alert_by_id(who.scope, ref.id or "")
    if row is None:
        return None
    targets = tx.targets(row.id)
    primary = targets[0] if targets else None
    is_quiet = primary is not None and primary.state == "present" and not tx.is_waiting(row.id, primary.upstream)
    return row, primary, is_quiet


def _by_key(tx: Tx, who: Caller, key: str) -> AlertRow | None:
    """The open alert of a key. What was adopted has none of its own here: it is known by what it is called there."""
    meant = who.dialect.same_key(key)
    if (row := tx.alert_by_key(who.scope, meant)) is not None:
        return row
    there = tx.alert_by_id(who.scope, key)
    if there is None or there.key is not None or not there.is_open:
        return None
    said = flatten(there.body).get("dedup_key")
    return there if said and who.dialect.same_key(said) == meant else None


def question(upstream: Upstream, target: TargetRow | None, now: int) -> Sending:
    """What an upstream is asked about: the alert that it has there, or all of them."""
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
