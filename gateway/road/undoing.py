"""Takes back a command that every upstream refused, in one transaction.

A plain function of a transaction; it must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from itertools import compress, takewhile
from typing import Any

from gateway.canonical import Flat, Operation, flatten
from gateway.codes import Code
from gateway.mapping.values import millis
from gateway.road.changing import record
from gateway.road.history import newest_first
from gateway.road.targets import hold
from gateway.road.terms import ENDING, INSTEAD_OF, STOOD_BY, TRIED_AT, TURNS
from gateway.store import AlertRow, CommandRow, DeliveryFilter, DeliveryRow, TargetRow, Tx

STANDING = (Operation.ACKNOWLEDGE, Operation.RESOLVE, Operation.REOPEN, Operation.DELETE)
"""Operations that change an alert's status."""
STOOD = ("acknowledged_at", "resolved_at")
"""The paths that change with the status."""


def is_refused(tx: Tx, command: CommandRow) -> bool:
    """Whether no upstream has taken a command, or may yet take it: a fallback whose turn has come meanwhile may, and
    an upstream to which the command was a mere repeat has it already."""
    if command.alert is not None:
        _kept(tx, command.alert)
    targets = tx.targets(command.alert) if command.alert is not None else []
    standing_by = {one.upstream for one in targets if one.state == "standby"}
    own = tx.deliveries_of(command.id)
    return all(one.state in ("dead", "void") or (one.state == "waiting" and one.upstream in standing_by) for one in own)


def undo(tx: Tx, command: CommandRow, reason: str) -> AlertRow | None:
    """Takes back a command that every upstream refused: of a create no alert, name or key remains, and after an update
    the record is as it was, except for fields that a later command changed. Nothing is taken back where a newer alert
    has the key or the name by now, where the alert may be open at an upstream although that refused it in the end, as
    somebody has to be able to end it, or where a caller was told success because this command said the same. Returns
    the alert as it is now."""
    row = _kept(tx, command.alert) if command.alert is not None else None
    if row is not None and any(stays(tx, row, command) for stays in STAYS):
        return row
    _tell_what_was_merged(tx, command)
    if row is not None and command.body.before is not None:
        _take_away_targets(tx, row, command)
        _over_as_before(tx, row, command)
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
    if row.is_open:
        _stand_by_again(tx, row, command)
    return row


def _later(tx: Tx, row: AlertRow, command: CommandRow) -> list[CommandRow]:
    """The later commands on the alert that were not taken back, oldest first."""
    since = takewhile(lambda other: other.id > command.id, newest_first(tx, row.id))
    return [other for other in reversed(list(since)) if other.refused is None]


def _kept(tx: Tx, alert: int) -> AlertRow | None:
    """The alert, locked with its key, so that no other transaction opens an alert under the key meanwhile."""
    row = tx.alert(alert)
    if row is not None and row.key is not None:
        tx.lock(f"key {row.scope} {row.key}")
    tx.lock(f"alert {alert}")
    return tx.alert(alert)


def _came_another(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether taking back an end would leave two open alerts of one key, since a newer one has it by now and keeps it;
    or an open alert that an upstream is about to end, since the end was asked for again while none was open."""
    if row.is_open or command.body.before is None:
        return False
    if row.key is not None and tx.alert_by_key(row.scope, row.key):
        return True
    lanes = [(target.upstream, target.lane) for target in tx.targets(row.id)]
    hold(tx, lanes)
    return any(tx.lane_holders(*lane) or _ends(tx.last_waiting(*lane)) for lane in lanes)


def _ends(last: DeliveryRow | None) -> bool:
    """Whether the last delivery that waits in a lane ends whatever is open there, by its key alone."""
    return last is not None and last.alert is None and last.operation in ENDING


def _name_is_gone(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether another alert has the unique name that this one had before: that one keeps it."""
    if row.name is None or command.body.before is None:
        return False
    holder = tx.alert_by_name(row.scope, str(flatten(command.body.before).get("summary")))
    return holder is not None and holder.id != row.id


def _may_be_there(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether the answer to an attempt to create or reopen the alert was lost: a later refusal does not undo that
    attempt. Only where a key is told: elsewhere alerts have ids, it was looked for, and nobody could end one
    without an id."""
    tried = {one.upstream for one in tx.targets(row.id) if one.key is not None and one.seen.get(TRIED_AT) is not None}
    opens = (command.body.before is None or one.operation == Operation.REOPEN for one in tx.deliveries_of(command.id))
    return bool(tried) and any(opens)


def _was_said_again(tx: Tx, row: AlertRow, command: CommandRow) -> bool:
    """Whether a later command said the same, or anything of a new alert: its caller was told success, and nothing was
    sent for it, as this command was about to say it."""
    later = [other for other in _later(tx, row, command) if not other.body.renews]
    if command.body.before is None:
        return bool(later)
    if command.operation in STANDING:
        return any(other.body.asked == command.operation for other in later)
    says_nothing_new = (other for other in later if other.operation == Operation.UPDATE and not other.body.changed)
    return any(other.body.asked in ("", Operation.CREATE) for other in says_nothing_new)


STAYS = (_came_another, _name_is_gone, _may_be_there, _was_said_again)
"""The reasons for which a command stays although every upstream refused it; its dead letters stay too."""


def _tell_what_was_merged(tx: Tx, command: CommandRow) -> None:
    """Puts back into the outbox, for each of the command's deliveries, the last one that was merged into it: callers of
    merged commands were told success."""
    for delivery in tx.deliveries_of(command.id):
        for earlier in reversed(delivery.merges):
            found = [one for one in tx.deliveries_of(earlier) if one.upstream == delivery.upstream]
            if found and found[0].state == "merged":
                found[0].state, found[0].reason, found[0].finished_at = "waiting", "", None
                tx.update_delivery(found[0])
                tx.tell(f"wake {delivery.upstream}")
                break


def _stand_by_again(tx: Tx, row: AlertRow, command: CommandRow) -> None:
    """Has the fallbacks that the refused command told, or ended, wait for their turns again: nobody has taken it."""
    for target in tx.targets(row.id):
        chosen_by, before = target.seen.get(STOOD_BY, (None, {}))
        if chosen_by == command.id:
            target.state, target.seen = "standby", before
            tx.put_target(target)
    standing_by = {one.upstream for one in tx.targets(row.id) if one.state == "standby"}
    idle = {upstream for upstream in standing_by if not tx.is_waiting(row.id, upstream)}
    for one in tx.deliveries(DeliveryFilter(state="void", alert=row.id)):
        is_its = one.code == Code.NOT_NEEDED and one.finished_at == command.at
        if is_its and one.upstream in idle:
            one.state, one.reason, one.code, one.finished_at = "waiting", "", "", None
            tx.update_delivery(one)


def _take_away_targets(tx: Tx, row: AlertRow, command: CommandRow) -> None:
    """Removes the targets that only the refused command added, also from what fallbacks stand by for."""
    gone = set()
    for target in tx.targets(row.id):
        if not target.ids and target.state in ("dead", "standby") and _is_first(tx, target, command):
            tx.remove_target(row.id, target.upstream)
            gone.add(target.upstream)
    for target in tx.targets(row.id) if gone else []:
        if (routes := target.seen.get(INSTEAD_OF)) is not None:
            stays = [not gone.intersection(route) for route in routes]
            target.seen[INSTEAD_OF] = list(compress(routes, stays))
            target.seen[TURNS] = list(compress(target.seen.get(TURNS, ()), stays))
            tx.put_target(target)


def _is_first(tx: Tx, target: TargetRow, command: CommandRow) -> bool:
    """Whether the upstream was to be told of the alert by this command first."""
    first = tx.deliveries(DeliveryFilter(upstream=target.upstream, alert=target.alert, after=0, limit=1))
    return [one.command for one in first] == [command.id]


def _over_as_before(tx: Tx, row: AlertRow, command: CommandRow) -> None:
    """Puts targets back to where the alert had ended that the command was to reopen. As dead ones, the next change of a
    rule that is switched off would be sent as a new alert."""
    own = tx.deliveries_of(command.id)
    refused = {one.upstream for one in own if one.operation == Operation.REOPEN and one.state == "dead"}
    for target in tx.targets(row.id):
        if target.upstream in refused and target.state == "dead":
            target.state = "gone"
            tx.put_target(target)


def _without_refused(tx: Tx, row: AlertRow, command: CommandRow) -> tuple[Flat, dict[str, Any] | None]:
    """The record before a command, and the caller's own words at that time, without what earlier commands had changed
    that were refused while this one waited; what an accepted command changed after those is kept."""
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
    """Puts the record back to what it was before the command."""
    row.is_deleted = False
    row.updated_at = millis(flat["updated_at"])
    row.version -= command.operation != Operation.COMMENT
    if row.verbatim is not None:
        row.verbatim = said
    _record(row, flat)


def _take_out(row: AlertRow, command: CommandRow, later: list[CommandRow], before: Flat) -> None:
    """Puts back only what no later command has changed since, the status included."""
    theirs = {path for other in later for path in other.body.changed or ()}
    own = set(command.body.changed or ()) - theirs
    if command.operation in STANDING and not any(other.operation in STANDING for other in later):
        own |= {"status", *STOOD}
        row.is_deleted = False
    now = flatten(row.body) | {path: value for path, value in before.items() if path in own}
    _record(row, {path: value for path, value in now.items() if path in before or path not in own})


def _record(row: AlertRow, flat: Flat) -> None:
    record(row, flat)
    if row.name is not None and flat.get("summary"):
        row.name = str(flat["summary"])
