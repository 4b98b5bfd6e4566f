"""The whole road of an alert, for operators who are asked what became of it: received from whom, routed why, and at
each upstream every delivery with every attempt.

Plain functions of a transaction. Alerts are found by an id or a key, through indexes, or by words of the summary, in
slices of the newest alerts, so that a large store is never kept busy. It must not know any vendor, nor where it is
called from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET, Struct, to_builtins

from gateway.canonical import Alert
from gateway.codes import HELD_UNTIL, MEANINGS
from gateway.config.config import Config
from gateway.delivery.breaker import Breaker
from gateway.delivery.gate import breaker_of
from gateway.dialect import Dialect
from gateway.mapping.values import from_millis, iso
from gateway.road.terms import INSTEAD_OF, OF_GROUP
from gateway.store import AlertRow, AttemptRow, CommandRow, DeliveryFilter, DeliveryRow, TargetRow, Tx

MOST = 20
"""Alerts shown at most."""
SLICE = 2000
"""Summaries searched in one transaction, which takes some milliseconds."""
SEARCHED = 100_000
"""Of the newest alerts, the number that is searched for words."""
LAST = 50
"""Commands of an alert, deliveries of an alert, and attempts of a delivery that are shown at most: the last ones."""
NOTHING = "no alert has the id or key {!r}, nothing was sent for that key alone, and no summary has these words"
"""The answer to a search that finds nothing."""
NEWEST = 1 << 53
"""Larger than any id, to search from the newest alert."""


class Tried(Struct, kw_only=True):
    """One attempt: when, how many milliseconds it took, the HTTP status if any, and how it ended, with the problem
    code."""

    number: int
    at: str
    took_ms: int
    status: int | None
    outcome: str
    code: str
    reason: str


class Sent(Struct, kw_only=True):
    """A delivery. `due` is when the next attempt may be made, if it waits only for that; else `waits_for` says what it
    waits for; `attempts` is how many were made, `tried` the last of them; `approximated` and `kept` are the fields that
    the upstream could not hold as they were said."""

    delivery: int
    command: int
    operation: str
    state: str
    at: str
    due: str | None
    waits_for: str = ""
    finished: str | None
    attempts: int
    code: str
    meaning: str
    reason: str
    tried: list[Tried]
    approximated: dict[str, str]
    kept: dict[str, str]


class There(Struct, kw_only=True):
    """An alert at one upstream: its state, its key and ids there, and the route by which it got there; `instead_of`
    names the upstreams whose fallback it is, while its turn has not come."""

    upstream: str
    state: str
    key: str | None
    ids: dict[str, str]
    route: str
    instead_of: list[str]
    deliveries: list[Sent]


class Received(Struct, kw_only=True):
    """A command: the id of its request, its operation, by whom and when; `refused` is why it was taken back."""

    request: int
    operation: str
    dialect: str
    caller: str
    at: str
    comment: str
    via: list[str]
    refused: str | None


class Route(Struct, kw_only=True):
    """A route that the alert took, and why."""

    route: str
    why: str


class Traced(Struct, kw_only=True):
    """An alert and its whole road. `found_by` is `id`, `key alone` or `text`; `ids` are those that each party has for
    it; `earlier` is how many commands came before those shown. A command without an alert has a road too: then `alert`
    is None, and `status` says why."""

    alert: int | None
    found_by: str
    shown: str
    key: str | None
    ids: dict[str, list[str]]
    summary: str
    severity: int | None
    status: str
    is_deleted: bool
    scope: str
    dialect: str
    caller: str
    opened: str
    changed: str
    received: list[Received]
    earlier: int
    routes: list[Route]
    upstreams: list[There]


def spoken(config: Config) -> list[Dialect]:
    """The dialects of a configuration, each of which compares keys in its own way."""
    inbounds = [inbound.dialect for inbound in config.inbounds.values()]
    return inbounds + [upstream.dialect for upstream in config.upstreams.values()]


def _forms(name: str, dialects: Iterable[Dialect]) -> list[str]:
    """The forms in which a store may have a name: as it is, as each dialect compares keys, and as the number of the
    request that a dialect's answer had it for."""
    name = name.encode("utf8", "replace").decode().replace("\0", "\ufffd")  # what no store would take
    forms = [form for one in dialects for form in (one.same_key(name), one.request_of(name)) if form is not None]
    return list(dict.fromkeys([name, *map(str, forms)]))


def alert_of(tx: Tx, name: str, config: Config) -> int | None:
    """The newest alert that any caller or upstream of any scope knows by this id or key; None where there is none."""
    found = tx.alerts_of_anybody(_forms(name, spoken(config)), MOST)
    return next((alert for alert in found if tx.alert(alert)), None)


class Search:
    """A search for alerts by a name: any id or key that any party has for them, or part of the summary, whatever the
    case; and for commands that were sent for a key of which no alert was known.

    `look` is to be called until it returns False. `found` has the alerts, each with what it was found by.
    """

    def __init__(self, name: str, dialects: Iterable[Dialect]) -> None:
        self._dialects = list(dialects)
        self._names = _forms(name, self._dialects)
        self._text = self._names[0].strip().casefold()
        self._before = self._sent_before = NEWEST
        self._is_begun, self._sent = False, 0
        self.found: dict[int, str] = {}
        self.searched = 0
        self.is_cut_short = False

    def look(self, tx: Tx) -> bool:
        """Searches by id at the first call, then one slice per call; returns whether there is more to search."""
        if not self._is_begun:
            self._is_begun = True
            self.found = dict.fromkeys(tx.alerts_of_anybody(self._names, MOST), "id")
            return bool(self._text) and len(self.found) < MOST
        if self._sent_before:
            return self._look_at_keys(tx)
        slice_ = tx.summaries(self._before, SLICE)
        for alert, summary in slice_:
            if len(self.found) < MOST and self._text in summary.casefold():
                self.found.setdefault(alert, "text")
        self.searched += len(slice_)
        if len(slice_) < SLICE or len(self.found) >= MOST:
            return False
        self._before = slice_[-1][0]
        self.is_cut_short = self.searched >= SEARCHED
        return not self.is_cut_short

    def _look_at_keys(self, tx: Tx) -> bool:
        """Searches a slice of what was sent for a key alone: of the newest such deliveries, so many at most as of
        alerts."""
        slice_ = tx.without_alert(self._sent_before, SLICE)
        for _, command, key in slice_:
            if len(self.found) < MOST and self._is_named(key):
                self.found.setdefault(command, "key alone")
        self._sent += len(slice_)
        is_over = len(slice_) < SLICE or self._sent >= SEARCHED
        self._sent_before = 0 if is_over else slice_[-1][0]
        return len(self.found) < MOST

    def _is_named(self, key: str) -> bool:
        """Whether the name is this key, as any of the dialects compares keys."""
        return key in self._names or any(one.same_key(key) in self._names for one in self._dialects)

    def newest_first(self) -> list[int]:
        """The alerts found, the newest first."""
        return sorted(self.found, reverse=True)


def as_json(found: Iterable[Traced], search: Search) -> dict[str, Any]:
    """The answer to a search, as `--json` prints it; `searched` is how many summaries were looked at, and
    `is_cut_short` says that there were more."""
    return {
        "alerts": [to_builtins(one) for one in found],
        "searched": search.searched,
        "is_cut_short": search.is_cut_short,
    }


def traced(tx: Tx, alert: int, found_by: str) -> Traced | None:
    """An alert and its whole road, or that of a command without one; None where neither is there."""
    row = tx.alert(alert)
    if row is None:
        return _without_alert(tx, alert, found_by)
    commands = tx.commands(alert, LAST)
    count = tx.count_commands(alert)
    known: dict[str, list[str]] = {}
    for party, name in tx.ids(alert):
        if not name.startswith(OF_GROUP):  # such an id is the gateway's own, and means nothing to anybody
            known.setdefault(party, []).append(name)
    return Traced(
        alert=alert,
        found_by=found_by,
        shown=row.shown,
        key=row.key,
        ids=known,
        summary=_or_none(row.body.summary) or "",
        severity=_or_none(row.body.severity),
        status=row.status,
        is_deleted=row.is_deleted,
        scope=row.scope,
        dialect=row.dialect,
        caller=row.caller,
        opened=_time(row.created_at),
        changed=_time(row.updated_at),
        received=[_received(one) for one in commands],
        earlier=count - len(commands),
        routes=_routes(tx, row, commands),
        upstreams=_upstreams(tx, tx.deliveries(DeliveryFilter(alert=alert, limit=LAST)), tx.targets(alert)),
    )


def _without_alert(tx: Tx, number: int, found_by: str) -> Traced | None:
    """The road of a command that was taken back with the alert that it had made, or that never found one."""
    command = tx.command(number)
    if command is None:
        return None
    said, sent = command.body.after or Alert(), tx.deliveries_of(number)
    return Traced(
        alert=None,
        found_by=found_by,
        shown="",
        key=_or_none(said.dedup_key) or next((one.key for one in sent), None),
        ids={},
        summary=_or_none(said.summary) or "",
        severity=_or_none(said.severity),
        status="taken back" if command.refused is not None else "there was no such alert",
        is_deleted=False,
        scope=command.scope,
        dialect=command.dialect,
        caller=command.caller,
        opened=_time(command.at),
        changed=_time(command.at),
        received=[_received(command)],
        earlier=0,
        routes=[Route(route=name, why=why) for name, why in command.body.routes.items()],
        upstreams=_upstreams(tx, sent, []),
    )


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


def _time(at: int) -> str:
    return iso(from_millis(at))


def _received(row: CommandRow) -> Received:
    return Received(
        request=row.request,
        operation=row.operation,
        dialect=row.dialect,
        caller=row.caller,
        at=_time(row.at),
        comment=row.body.comment,
        via=list(row.body.via),
        refused=row.refused,
    )


def _routes(tx: Tx, row: AlertRow, commands: list[CommandRow]) -> list[Route]:
    """The routes that the alert took then, whatever the configuration says now: those of the command that opened it,
    which has the alert's id, and those that updates added."""
    first = tx.command(row.id)
    taken: dict[str, str] = {}
    for command in [*([first] if first else []), *commands]:
        taken.update(command.body.routes)
    return [Route(route=name, why=why) for name, why in taken.items()]


def _upstreams(tx: Tx, rows: list[DeliveryRow], stands: list[TargetRow]) -> list[There]:
    rows = sorted(rows, key=lambda one: one.id)
    targets = {target.upstream: target for target in stands}
    names = dict.fromkeys([*targets, *(row.upstream for row in rows)])
    return [_there(name, targets.get(name), _all_sent(tx, name, rows)) for name in names]


def _all_sent(tx: Tx, upstream: str, rows: list[DeliveryRow]) -> list[Sent]:
    breaker, ahead, sent = breaker_of(tx, upstream), dict[str, int](), []
    for row in rows:
        if row.upstream == upstream:
            sent.append(_sent(tx, row, _waits_for(row, ahead.get(row.lane), breaker)))
            if row.state == "waiting":
                ahead.setdefault(row.lane, row.id)
    return sent


def _waits_for(row: DeliveryRow, ahead: int | None, breaker: Breaker) -> str:
    """What a delivery waits for other than its due time, or an empty text."""
    if row.state != "waiting":
        return ""
    if ahead is not None:
        return f"waits for delivery {ahead}"
    if row.code in HELD_UNTIL:
        return HELD_UNTIL[row.code]
    if breaker.state == "held":
        return f"held until the upstream takes the gateway's key ({breaker.reason})"
    return "the upstream is failing: only probes are sent to it" if breaker.state == "open" else ""


def _there(name: str, target: TargetRow | None, deliveries: list[Sent]) -> There:
    others = target.seen.get(INSTEAD_OF, ()) if target else ()
    return There(
        upstream=name,
        state=target.state if target else "absent",
        key=target.key if target else None,
        ids=target.ids if target else {},
        route=target.route if target else "",
        instead_of=list(dict.fromkeys(other for route in others for other in route)),
        deliveries=deliveries,
    )


def _sent(tx: Tx, row: DeliveryRow, waits_for: str) -> Sent:
    return Sent(
        delivery=row.id,
        command=row.command,
        operation=row.operation,
        state=row.state,
        at=_time(row.created_at),
        due=_time(row.due) if row.state == "waiting" and not waits_for else None,
        waits_for=waits_for,
        finished=_time(row.finished_at) if row.finished_at is not None else None,
        attempts=row.attempts,
        code=row.code,
        meaning=MEANINGS.get(row.code, ""),
        reason=row.reason,
        tried=[_tried(one) for one in tx.attempts(row.id)[-LAST:]],
        approximated=_fates(row, "approximated"),
        kept=_fates(row, "kept"),
    )


def _fates(row: DeliveryRow, fate: str) -> dict[str, str]:
    return {one["field"]: one.get("why", "") for one in row.fates if one.get("fate") == fate}


def _tried(row: AttemptRow) -> Tried:
    return Tried(
        number=abs(row.number),
        at=_time(row.at),
        took_ms=row.took,
        status=row.status,
        outcome=row.outcome,
        code=row.code,
        reason=row.reason,
    )
