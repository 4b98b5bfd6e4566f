"""Operators' work on the outbox: listing deliveries, choosing those to send again or to drop, and recording that.

Plain functions of a transaction. They must not know any vendor, nor where they are called from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import structs, to_builtins

from gateway.admin.operations import Operator, entry, keep
from gateway.config.config import Upstream
from gateway.rehearsal import rehearsed
from gateway.road.preparing import prepare
from gateway.road.requeue import drop, send_again
from gateway.store import DeliveryFilter, DeliveryRow, Tx

BATCH = 500
"""Deliveries changed in one transaction by a gateway that serves meanwhile."""
LARGEST = (1 << 63) - 1
"""The largest number that every store can be asked for."""


@dataclass(frozen=True)
class Shown:
    """A delivery as shown to operators: the row and, where it is dead, the requests that would be sent now, one line
    each, secrets masked."""

    row: DeliveryRow
    requests: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**structs.asdict(self.row), "report": self.row.fates, "would_send": list(self.requests)}


def listed(tx: Tx, wanted: DeliveryFilter, upstreams: Mapping[str, Upstream], now: int) -> list[Shown]:
    """The deliveries that are asked for, newest first."""
    return [
        Shown(row, _as_sent_now(tx, row, upstreams, now) if row.state == "dead" else ())
        for row in tx.deliveries(wanted)
    ]


def _as_sent_now(tx: Tx, row: DeliveryRow, upstreams: Mapping[str, Upstream], now: int) -> tuple[str, ...]:
    upstream = upstreams.get(row.upstream)
    if upstream is None:
        return (f"nothing: there is no upstream {row.upstream!r} in the configuration",)
    shipment = prepare(tx, row, upstream, now)
    if shipment.sending is None:
        return (f"nothing: {shipment.dead or shipment.void}",)
    return tuple(request.as_line() for request in rehearsed(shipment.sending, upstream))


class NotAsAsked(Exception):
    """An operator's request cannot be fulfilled; the message says why, and what would help. `answer` is the response
    of the running gateway, where one was asked."""

    def __init__(self, message: str, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.answer = answer


def chosen(
    tx: Tx,
    ids: Iterable[int],
    *,
    dead: bool,
    upstream: str | None,
    after: int = 0,
    most: int = 1_000_000,
    waiting: bool = False,
) -> list[DeliveryRow]:
    """The deliveries that are meant, oldest first: by id, all dead ones, or the dead ones of an upstream, with those
    `waiting` for it if asked for; of those `after` a delivery, `most` at most."""
    wanted = tuple(ids)
    if wanted and (dead or upstream is not None):
        raise NotAsAsked("name deliveries by id, or use --dead or --upstream, not both")
    if wanted:
        found = _by_id(tx, sorted(set(wanted)))
        missing = sorted(set(wanted) - {row.id for row in found})
        if missing:
            raise NotAsAsked(f"no such delivery: {', '.join(map(str, missing))}")
        return sorted((row for row in found if row.id > after), key=lambda row: row.id)[:most]
    if not dead and upstream is None:
        raise NotAsAsked("name deliveries by id, or use --dead or --upstream")
    found = tx.deliveries(DeliveryFilter(state="dead", upstream=upstream, after=after, limit=most))
    if not found and upstream is not None and not tx.has_deliveries(upstream):
        raise NotAsAsked(f"there are no deliveries for an upstream {upstream!r}")
    if waiting:
        found += tx.deliveries(DeliveryFilter(state="waiting", upstream=upstream, after=after, limit=most))
        found = sorted(found, key=lambda row: row.id)[:most]
    return found


def _by_id(tx: Tx, wanted: Sequence[int]) -> list[DeliveryRow]:
    """Deliveries by id, a batch at a time: stores limit the number of values in one statement."""
    possible = [one for one in wanted if 0 < one <= LARGEST]
    batches = (tuple(possible[begin : begin + BATCH]) for begin in range(0, len(possible), BATCH))
    return [row for batch in batches for row in tx.deliveries(DeliveryFilter(ids=batch, limit=BATCH))]


def storable(text: str) -> str:
    """A text as every store takes it: lone surrogates, as of an argument in another encoding, and null characters
    become question marks."""
    return text.encode("utf8", "replace").decode().replace("\0", "?")


def change(
    tx: Tx,
    what: Literal["retry", "drop"],
    operator: Operator,
    now: int,
    upstreams: Collection[str],
    *,
    ids: tuple[int, ...] = (),
    dead: bool = False,
    upstream: str | None = None,
    force: bool = False,
    because: str = "",
    after: int = 0,
    most: int = 1_000_000,
) -> tuple[list[int], list[str], int | None]:
    """Sends deliveries again, or drops them, and records who did so; returns which, what was refused and why, and the
    delivery after which to go on, None where nothing is left. Nothing will ever be sent to an upstream that is not
    among `upstreams`: what waits for it is dropped together with what died."""
    upstream, because = storable(upstream) if upstream is not None else None, storable(because)
    operator = Operator(storable(operator.who), operator.origin)
    is_gone = what == "drop" and upstream is not None and upstream not in upstreams
    rows = chosen(tx, ids, dead=dead, upstream=upstream, after=after, most=most, waiting=is_gone)
    done, refused = send_again(tx, rows, now, force=force) if what == "retry" else drop(tx, rows, because, now)
    said = {"ids": len(ids), "dead": dead, "upstream": upstream, "force": force}
    asked = {name: value for name, value in said.items() if value}
    if rows:
        keep(tx, entry(operator, what, now, asked=asked, done=done, refused=len(refused), because=because))
    return done, refused, rows[-1].id if len(rows) == most else None


def ledger_since(tx: Tx, start: int, by: Literal["caller", "dialect", "operation"]) -> dict[str, Any]:
    """The ledger and the arrivals since a time, as plain values."""
    lines = tx.ledger(start, by)
    return {
        "ledger": [{**to_builtins(line), "adds_up": line.adds_up} for line in lines],
        "upstreams": to_builtins(tx.arrivals(start)),
    }
