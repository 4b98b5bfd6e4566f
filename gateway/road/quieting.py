"""Acknowledges the alerts that are open when a silence begins, since whoever asked for it has seen them: a batch at a
time, as there may be thousands. What is left to do is kept in the store, so that a restart forgets none of it.

It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import structlog
from msgspec import Struct, structs

from gateway.asked import Command, Ref
from gateway.canonical import Operation, flatten
from gateway.dialect import Dialect
from gateway.errors import StoreError
from gateway.ids import MakeId
from gateway.mapping.values import millis
from gateway.road import muting
from gateway.road.accepted import Caller, Order, Via
from gateway.road.road import Road
from gateway.store import AlertFilter, Store, Tx

log = structlog.get_logger()
PREFIX = "quiet "
AT_ONCE = 200
"""Alerts acknowledged in one round."""
MOST = 16
"""Silences worked on in one round, as far as `AT_ONCE` allows."""


class Owed(Struct, frozen=True, kw_only=True):
    """What a silence has yet to acknowledge: the alerts that were open when it was asked for by `request`, those up to
    the id `after` being done. `dialect`, `caller` and `scope` are of whoever asked, `via` and `trace` as everywhere."""

    silence: str
    request: int
    dialect: str
    caller: str
    scope: str
    comment: str
    via: Via = ()
    after: int = -1
    trace: str = ""

    @property
    def name(self) -> str:
        """The name of its note: one for each silence, so that one that is asked for again begins again."""
        return _name(self.silence)


def _name(silence: str) -> str:
    return f"{PREFIX}{silence}"


def owe(tx: Tx, asked: Owed) -> None:
    """Records what a silence has yet to acknowledge."""
    tx.put_note(asked.name, msgspec.to_builtins(asked))


def owe_no_more(tx: Tx, silence: str) -> None:
    """Forgets what a silence has yet to acknowledge, as all is done or it has ended."""
    tx.remove_notes(_name(silence), f"{_name(silence)} ", 1)


def owed(tx: Tx) -> list[Owed]:
    """What silences have yet to acknowledge."""
    return [msgspec.convert(one, Owed) for one in tx.notes(PREFIX, MOST)]


async def quieten(
    store: Store, road: Road, dialects: Mapping[str, Dialect], asked: Sequence[Owed], ids: MakeId, now: int
) -> set[str]:
    """Acknowledges the next alerts, a batch at most; returns the upstreams that have something to be sent now."""
    left, busy = AT_ONCE, set[str]()
    for one in asked:
        meant = await store.read(
            partial(_meant, asked=one, dialects=dialects, now=now, limit=left), is_long=True, whose="gateway"
        )
        works = [partial(_acknowledge, road, dialects, one, alert, ids(), now) for alert in meant]
        ended = await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)
        for alert, came_to in zip(meant, ended, strict=True):
            if isinstance(came_to, set):
                busy |= came_to
            elif isinstance(came_to, StoreError) or not isinstance(came_to, Exception):
                raise came_to
            else:  # one that fails each time must not hold up the others
                log.error("silence.not_acknowledged", silence=one.silence, alert=alert, reason=str(came_to))
        is_done, left = len(meant) < left, left - len(meant)
        last = meant[-1] if meant else one.after
        await store.write(partial(_gone_on, asked=one, after=None if is_done else last))
        if left <= 0:
            break
    return busy


def _meant(tx: Tx, asked: Owed, dialects: Mapping[str, Dialect], now: int, limit: int) -> list[int]:
    """The ids of the next open alerts that a silence matches; none once it is over."""
    muted, dialect = muting.one(tx, asked.scope, asked.silence), dialects.get(asked.dialect)
    if muted is None or not millis(muted.starts_at) <= now < millis(muted.ends_at):
        return []
    if dialect is None or dialect.muted_by is None:
        return []
    means = dialect.muted_by([muted])
    rows = (row for part in tx.alerts_in_parts(asked.scope, AlertFilter(statuses=("firing",))) for row in part)
    found = (row.id for row in rows if asked.after < row.id < asked.request and any(means(flatten(row.body))))
    return sorted(found)[:limit]


def _is_owed(tx: Tx, asked: Owed) -> bool:
    """Whether this is still to be done: not where the silence was ended meanwhile, or asked for again."""
    note: dict[str, object] | None = tx.note(asked.name)
    return note is not None and note["request"] == asked.request


def _acknowledge(
    road: Road, dialects: Mapping[str, Dialect], asked: Owed, alert: int, command: int, now: int, tx: Tx
) -> set[str]:
    """Acknowledges an alert, unless it or the silence is over by now, or nobody told the gateway of it: what was only
    found in an upstream's list is between that and its own sender, and would be told there as another alert."""
    tx.lock(f"alert {alert}")
    row = tx.alert(alert)
    if row is None or row.status != "firing" or row.is_deleted or not _is_owed(tx, asked):
        return set()
    if row.key is None and not tx.count_commands(alert):
        return set()
    caller = Caller(dialects[asked.dialect], asked.caller, asked.scope)
    said = Command(operation=Operation.ACKNOWLEDGE, ref=Ref(id=row.shown), comment=asked.comment, silence=asked.silence)
    order = Order(
        asked=said, caller=caller, request=command, command=command, now=now, via=asked.via, trace=asked.trace
    )
    accepted = road.change(tx, order, row)
    return {delivery.upstream for delivery in accepted.deliveries}


def _gone_on(tx: Tx, asked: Owed, after: int | None) -> None:
    """Records up to which alert the work is done, or removes the note when all is (None). A silence that was asked for
    again meanwhile begins anew instead."""
    if not _is_owed(tx, asked):
        return
    if after is None:
        owe_no_more(tx, asked.silence)
    else:
        owe(tx, structs.replace(asked, after=after))
