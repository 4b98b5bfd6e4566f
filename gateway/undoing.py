"""Taking a command back that every upstream refused, in one transaction.

A plain function of a transaction; it must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from itertools import compress, takewhile
from typing import Any

from gateway.canonical import Flat, Operation, flatten, in_order, unflatten
from gateway.codes import Code
from gateway.history import newest_first
from gateway.store import AlertRow, CommandRow, DeliveryFilter, DeliveryRow, Tx
from gateway.targets import hold
from gateway.terms import ENDING, INSTEAD_OF, TRIED_AT, TURNS
from gateway.values import millis

STANDING = (Operation.ACKNOWLEDGE, Operation.RESOLVE, Operation.REOPEN, Operation.DELETE)
"""Operations that say where an alert stands."""
STOOD = ("acknowledged_at", "resolved_at")
"""What is said of it beside that."""


def is_refused(tx: Tx, command: CommandRow) -> bool:
    """Whether nobody has a command, nor is about to: a fallback whose turn came meanwhile may, and so does an upstream
    where it is counted as a repeat of what that one was told."""
    if command.alert is not None:
        _kept(tx, command.alert)
    targets = tx.targets(command.alert) if command.alert is not None else []
    standing_by = {one.upstream for one in targets if one.state == "standby"}
    own = tx.deliveries_of(command.id)
    return all(one.state in ("dead", "void") or (one.state == "waiting" and one.upstream in standing_by) for one in own)


def undo(tx: Tx, command: CommandRow, reason: str) -> AlertRow | None:
    """Takes back a command that every upstream refused: no alert, name or key remains, an update leaves the record
    as it was. Fields that a later command changed stay as that left them, and everything stays where a newer alert
    has the key or the name by now, where a new alert may stand at an upstream although it was refused there in the
    end, as somebody has to be able to end it, or where somebody was told success because of what it said. Answers the
    alert as it is now."""
    row = _kept(tx, command.alert) if command.alert is not None else None
    if row is not None and any(stays(tx, row, command) for stays in STAYS):
        return row
    _tell_what_was_merged(tx, command)
    if row is not None and command.body.before is not None:
        _take_away_targets(tx, row, command)
    tx.refuse_command(command.id, reason)
    if row is None:
        return None
    if command.body.before is None:
        tx.remove_alert(row.id)
        return None
    before, said_before = _without_refused(tx, row, command)
    if later := _later(tx, row, command):
        _take_out(row, command, later, before)
    else:
        _put_back(row, command, before, said_before)
    tx.update_alert(row)
    if command.operation in ENDING and row.is_open:
        _stand_by_again(tx, row, command)
    return row


def _later(tx: Tx, row: AlertRow, command: CommandRow) -> list[CommandRow]:
    """What was said of the alert since, and not taken back."""
    since = takewhile(lambda other: other.id > command.id, newest_first(tx, row.id))
    return [other for other in reversed(list(since)) if other.refused is None]


def _kept(tx: Tx, alert: int) -> AlertRow | None:
    """The alert, kept to this transaction with its key: of two that want to be open under it, one comes after."""
    row = tx.alert(alert)
    if row is not None and row.key is not None:
        tx.lock(f"key {row.scope} {row.key}")
    tx.lock(f"alert {alert}")
    return tx.alert(alert)


def _came_another(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether taking an end back would leave two open alerts of one key, as a newer one has it by now and keeps it; or
    one that is about to be ended, as that was asked for again while there was no open alert of its key."""
    if row.is_open or command.body.before is None:
        return False
    if row.key is not None and tx.alert_by_key(row.scope, row.key):
        return True
    lanes = [(target.upstream, target.lane) for target in tx.targets(row.id)]
    hold(tx, lanes)
    return any(tx.lane_holders(*lane) or _ends(tx.last_waiting(*lane)) for lane in lanes)


def _ends(last: DeliveryRow | None) -> bool:
    """Whether what waits last in a lane ends whatever is open there."""
    return last is not None and last.alert is None and last.operation in ENDING


def _name_is_gone(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether the unique name that the alert had before is another's by now: that one keeps it."""
    if row.name is None or command.body.before is None:
        return False
    holder = tx.alert_by_name(row.scope, str(flatten(command.body.before).get("summary")))
    return holder is not None and holder.id != row.id


def _may_be_there(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether an attempt to make an alert was never answered: one that was refused later does not undo it. Where alerts
    have ids, it was looked for meanwhile, and nobody could end what has none."""
    tried = (one.key is not None and one.seen.get(TRIED_AT) is not None for one in tx.targets(row.id))
    return command.body.before is None and any(tried)


def _was_said_again(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether somebody said the same meanwhile, or anything of an alert that is new: he was told success, and nothing
    was sent for it, as this was about to say it."""
    later = [other for other in _later(tx, row, command) if not other.body.renews]
    if command.body.before is None:
        return bool(later)
    if command.operation in STANDING:
        return any(other.body.asked == command.operation for other in later)
    says_nothing_new = (other for other in later if other.operation == Operation.UPDATE and not other.body.changed)
    return any(other.body.asked in ("", Operation.CREATE) for other in says_nothing_new)


STAYS = (_came_another, _name_is_gone, _may_be_there, _was_said_again)
"""Why a command stays although everybody refused it: its dead letters say so then."""


def _tell_what_was_merged(tx: Tx, command: CommandRow) -> None:
    """What it was to say for earlier commands too is said without it: their callers were told success."""
    for delivery in tx.deliveries_of(command.id):
        for earlier in reversed(delivery.merges):
            found = [one for one in tx.deliveries_of(earlier) if one.upstream == delivery.upstream]
            if found and found[0].state == "merged":
                found[0].state, found[0].reason, found[0].finished_at = "waiting", "", None
                tx.update_delivery(found[0])
                tx.tell(f"wake {delivery.upstream}")
                break


def _stand_by_again(tx: Tx, row: AlertRow, command: CommandRow) -> None:
    """It is not over: the fallbacks that it stood down have their turn after all."""
    standing_by = {one.upstream for one in tx.targets(row.id) if one.state == "standby"}
    idle = {upstream for upstream in standing_by if not tx.is_waiting(row.id, upstream)}
    for one in tx.deliveries(DeliveryFilter(state="void", alert=row.id)):
        is_its = one.code == Code.NOT_NEEDED and one.finished_at == command.at
        if is_its and one.upstream in idle:
            one.state, one.reason, one.code, one.finished_at = "waiting", "", "", None
            tx.update_delivery(one)


def _take_away_targets(tx: Tx, row: AlertRow, command: CommandRow) -> None:
    """Upstreams that only the refused command brought in have nothing of the alert, and need no fallback."""
    firsts: dict[str, int] = {}
    for delivery in sorted(tx.deliveries(DeliveryFilter(alert=row.id)), key=lambda one: one.id):
        firsts.setdefault(delivery.upstream, delivery.command)
    gone = set()
    for target in tx.targets(row.id):
        is_its = firsts.get(target.upstream) == command.id
        if not target.ids and target.state in ("dead", "standby") and is_its:
            tx.remove_target(row.id, target.upstream)
            gone.add(target.upstream)
    for target in tx.targets(row.id) if gone else []:
        if (routes := target.seen.get(INSTEAD_OF)) is not None:
            stays = [not gone.intersection(route) for route in routes]
            target.seen[INSTEAD_OF] = list(compress(routes, stays))
            target.seen[TURNS] = list(compress(target.seen.get(TURNS, ()), stays))
            tx.put_target(target)


def _without_refused(tx: Tx, row: AlertRow, command: CommandRow) -> tuple[Flat, dict[str, Any] | None]:
    """The record before a command, and the caller's words of then, without what earlier ones had said that were refused
    while this one waited. What was said again since, and taken, is not theirs."""
    assert command.body.before is not None
    found, said = flatten(command.body.before), command.body.said_before
    taken: set[str] = set()
    is_next = True
    for other in reversed(tx.commands(row.id)):
        if other.id >= command.id or other.body.before is None or other.body.after is None:
            continue
        paths = {*(other.body.changed or ()), *(("status", *STOOD) if other.operation in STANDING else ())}
        if other.refused is None:
            taken |= paths
            is_next = False
            continue
        said = other.body.said_before if is_next else said
        before, after = flatten(other.body.before), flatten(other.body.after)
        for path in paths - taken:
            if path in after and found.get(path) == after[path]:
                found.pop(path)
                found |= {path: before[path]} if path in before else {}
    return found, said


def _put_back(row: AlertRow, command: CommandRow, flat: Flat, said: dict[str, Any] | None) -> None:
    """The record as it was before the command."""
    row.body = unflatten(in_order(flat))
    if row.verbatim is not None:
        row.verbatim = said
    row.name = str(flat["summary"]) if row.name is not None and flat.get("summary") else row.name
    row.status, row.resource = flat["status"], flat.get("resource")
    row.updated_at = millis(flat["updated_at"])
    row.version -= command.operation != Operation.COMMENT
    row.is_deleted, row.is_open = False, row.status != "resolved"
    _hold_until(row, flat)


def _hold_until(row: AlertRow, flat: Flat) -> None:
    """It is over by itself when it was to be before: not later, since nobody has that, nor sooner."""
    row.ends_at = millis(flat["ends_at"]) if flat.get("ends_at") else None


def _take_out(row: AlertRow, command: CommandRow, later: list[CommandRow], before: Flat) -> None:
    """Only what no later command has said since goes back to what it was, where the alert stands included."""
    now = flatten(row.body)
    theirs = {path for other in later for path in other.body.changed or ()}
    for path in command.body.changed or ():
        if path in theirs:
            continue
        if path in before:
            now[path] = before[path]
        else:
            now.pop(path, None)
    if command.operation in STANDING and not any(other.operation in STANDING for other in later):
        now |= {path: before.get(path) for path in ("status", *STOOD)}
        now = {path: value for path, value in now.items() if path in before or path not in STOOD}
        row.status = now["status"]
        row.is_deleted, row.is_open = False, row.status != "resolved"
    row.body = unflatten(in_order(now))
    row.resource = now.get("resource")
    _hold_until(row, now)
    row.name = str(now["summary"]) if row.name is not None and now.get("summary") else row.name
