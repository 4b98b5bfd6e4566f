"""What time brings to alerts: one of which its sender says nothing any more is over, and an upstream that forgets is
told again. Both are found in the store, so that a restart forgets neither, and whichever replica comes first does it.
Of what its sender could not say, nobody may conclude that it is over.

It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog

from gateway.canonical import Operation
from gateway.config import Config
from gateway.dialect import Dialect
from gateway.errors import StoreError
from gateway.ids import MakeId
from gateway.quieting import owed, quieten
from gateway.road import Road
from gateway.store import AlertRow, CommandBody, CommandRow, DeliveryRow, Store, TargetRow, Tx

log = structlog.get_logger()
AT_ONCE = 200
"""So many of each are ended and renewed in one round."""
BEHIND_OTHERS_MS = 15_000
"""When a renewal is thought of again that stands behind something else: that may have said it by then."""
UNKNOWN_MS = 60_000
"""When one is of an upstream that is not in the configuration: that may be there again by then, as what waits for it
hopes too."""
BREAK_MS = 30_000
"""So long without a look around, and nobody can have been heard meanwhile: the store was away, or the machine slept."""
SAID_AGAIN_MS = 600_000
"""Within this time a sender is thought to have said again what is still so: Prometheus does every minute, or when it
evaluates the rule."""


class Hearing:
    """Since when senders have been heard without a break. Where they were not, since there was no gateway, or one that
    refused them, their alerts did not lapse by their silence: they have time to say again that it is still so."""

    def __init__(self, now: int) -> None:
        self._since = self._last = now

    def look(self, now: int, *, is_deaf: bool) -> None:
        """Takes notice of the time, every second or so; `is_deaf` says that senders are refused."""
        if is_deaf or not 0 <= now - self._last <= BREAK_MS:
            self._since = now
        self._last = now

    def could_be_said(self, row: AlertRow, now: int) -> bool:
        """Whether the sender of an alert could have said by now that it goes on."""
        return row.created_at >= self._since or now - self._since >= SAID_AGAIN_MS


async def pass_time(store: Store, road: Road, config: Config, ids: MakeId, now: int, hearing: Hearing) -> set[str]:
    """Ends and renews what is due, and goes on with silences that have begun, a batch of each at most; answers the
    upstreams that have something to send now."""
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
        except Exception:  # one that is poison must not keep the others
            log.exception("time.failed", alert=alert)
    return busy | await quieten(store, road, dialects, silenced, ids, now)


def end(tx: Tx, road: Road, alert: int, dialects: Mapping[str, Dialect], command: int, now: int) -> set[str]:
    """Resolves an alert whose own end has come, unless its sender has said meanwhile that it goes on."""
    tx.lock(f"alert {alert}")
    row = tx.alert(alert)
    if row is None or not row.is_open or row.ends_at is None or row.ends_at > now:
        return set()
    if row.dialect not in dialects:  # nobody may speak it any more; whoever does again goes on from here
        row.ends_at = None
        tx.update_alert(row)
        return set()
    accepted = road.end(tx, row, dialects[row.dialect], command, now)
    log.info("alert.ended", alert=alert, dialect=row.dialect, caller=row.caller)
    return {delivery.upstream for delivery in accepted.deliveries}


def renew(tx: Tx, due: TargetRow, config: Config, ids: MakeId, now: int) -> set[str]:
    """Has an upstream told again that an alert is open. What waits for it anyway says so too."""
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
    """A command of the gateway's own, in the name of the alert's caller, and its one delivery. One number serves both:
    they come and go together."""
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
