"""What the passing of time does: an alert that its sender no longer repeats lapses, and an upstream that forgets is
told again (a renewal). Both are found in the store, so that a restart forgets neither, and whichever replica comes
first does it. An alert that its sender had no chance to repeat does not lapse.

It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog

from gateway.canonical import Operation
from gateway.config.config import Config
from gateway.dialect import Dialect
from gateway.errors import StoreError
from gateway.ids import MakeId
from gateway.road.quieting import owed, quieten
from gateway.road.road import Road
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryRow, Store, TargetRow, Tx

log = structlog.get_logger()
AT_ONCE = 200
"""Alerts ended, and targets renewed, in one round."""
BEHIND_OTHERS_MS = 15_000
"""Milliseconds after which a renewal is considered again that found another delivery waiting in its lane: that may have
told the upstream by then."""
UNKNOWN_MS = 60_000
"""Milliseconds until a renewal is tried again whose upstream is not in the configuration: it may be there again by
then."""
BREAK_MS = 30_000
"""Milliseconds between two looks after which no sender can have been heard between them: the store was unavailable, or
the machine slept."""
SAID_AGAIN_MS = 600_000
"""Milliseconds within which senders are expected to repeat what still holds: Prometheus does so every minute, or when
it evaluates the rule."""


class Hearing:
    """Since when senders have been heard without a break. After one, in which the gateway did not run or refused them,
    no alert lapses because its sender did not repeat it: senders have time to do so first."""

    def __init__(self, now: int) -> None:
        self._since = self._last = now

    def look(self, now: int, *, is_deaf: bool) -> None:
        """To be called every second or so; `is_deaf` says that senders are refused."""
        if is_deaf or not 0 <= now - self._last <= BREAK_MS:
            self._since = now
        self._last = now

    def could_be_said(self, row: AlertRow, now: int) -> bool:
        """Whether the sender of an alert had the time to repeat it."""
        return row.created_at >= self._since or now - self._since >= SAID_AGAIN_MS


async def pass_time(store: Store, road: Road, config: Config, ids: MakeId, now: int, hearing: Hearing) -> set[str]:
    """Ends and renews what is due, and goes on with silences that have begun, a batch of each at most; returns the
    upstreams that have something to be sent now."""
    ended, renewable, silenced = await store.read(
        lambda tx: (tx.ended(now, AT_ONCE), tx.renewable(now, AT_ONCE), owed(tx))
    )
    ended = [row for row in ended if hearing.could_be_said(row, now)]
    busy: set[str] = set()
    dialects = {inbound.dialect.name: inbound.dialect for inbound in config.inbounds.values()}
    works: list[tuple[int, Callable[[Tx], set[str]]]] = [
        (row.id, partial(end, road=road, alert=row.id, dialects=dialects, command=ids(), now=now)) for row in ended
    ]
    works += [(target.alert, partial(renew, due=target, config=config, ids=ids, now=now)) for target in renewable]
    for alert, work in works:
        try:
            busy |= await store.write(work)
        except StoreError:
            raise
        except Exception:  # one that fails each time must not hold up the others
            log.exception("time.failed", alert=alert)
    return busy | await quieten(store, road, dialects, silenced, ids, now)


def end(tx: Tx, road: Road, alert: int, dialects: Mapping[str, Dialect], command: int, now: int) -> set[str]:
    """Resolves an alert whose `ends_at` has come, unless its sender has prolonged it meanwhile."""
    tx.lock(f"alert {alert}")
    row = tx.alert(alert)
    if row is None or not row.is_open or row.ends_at is None or row.ends_at > now:
        return set()
    if row.dialect not in dialects:  # no inbound speaks it any more; once one does again, a repeat sets a new end
        row.ends_at = None
        tx.update_alert(row)
        return set()
    accepted = road.end(tx, row, dialects[row.dialect], command, now)
    log.info("alert.ended", alert=alert, dialect=row.dialect, caller=row.caller)
    return {delivery.upstream for delivery in accepted.deliveries}


def renew(tx: Tx, due: TargetRow, config: Config, ids: MakeId, now: int) -> set[str]:
    """Makes a delivery that tells an upstream again that an alert is open, unless another one waits there anyway."""
    tx.lock(f"alert {due.alert}")
    row = tx.alert(due.alert)
    target = next((one for one in tx.targets(due.alert) if one.upstream == due.upstream), None)
    if row is None or target is None or target.renew_at is None or target.renew_at > now:
        return set()
    is_over = not row.is_open or target.state != "present"
    is_known = target.upstream in config.upstreams
    newest = tx.newest_in_lane(target.upstream, target.lane)
    is_behind = not is_over and tx.last_waiting(target.upstream, target.lane) is not None
    target.renew_at = None if is_over else now + (BEHIND_OTHERS_MS if is_known else UNKNOWN_MS)
    tx.put_target(target)
    if is_over or is_behind or not is_known:
        return set()
    _put_out(tx, row, target, ids(above=newest.id if newest else 0), now)
    return {target.upstream}


def _put_out(tx: Tx, row: AlertRow, target: TargetRow, number: int, now: int) -> None:
    """Inserts a command of the gateway's own, in the name of the alert's caller, and its one delivery. Both have the
    same id, as they are made and removed together."""
    tx.insert_command(
        CommandRow(
            id=number,
            request=number,
            alert=row.id,
            operation=Operation.UPDATE,
            scope=row.scope,
            dialect=row.dialect,
            caller=row.caller,
            at=now,
            body=CommandBody(changed=(), renews=True),
            fanout=1,
        )
    )
    tx.insert_delivery(
        DeliveryRow(
            id=number,
            command=number,
            alert=row.id,
            upstream=target.upstream,
            lane=target.lane,
            key=target.key,
            operation=Operation.UPDATE,
            state="waiting",
            created_at=now,
            due=now,
        )
    )
