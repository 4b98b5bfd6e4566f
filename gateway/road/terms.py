"""A command in an upstream's terms: what an operation becomes there, and what one of an alert's targets is to be told.

Plain functions of a configuration and rows; they know no vendor, and write nothing.
"""

from __future__ import annotations

from hashlib import sha256

from gateway.asked import Command
from gateway.canonical import SERVER_OWNED, Flat, Operation, checked
from gateway.config.config import Upstream
from gateway.dialect import Dialect
from gateway.mapping.report import Fate
from gateway.mapping.saying import Saying
from gateway.mapping.table import Reading
from gateway.mapping.values import from_millis
from gateway.store import AlertRow, CommandBody, TargetRow

TELLING = (Operation.CREATE, Operation.UPDATE, Operation.REOPEN)
"""Operations that say what an alert is."""
ENDING = (Operation.RESOLVE, Operation.DELETE)
"""Operations that say that an alert is over."""
# --- the engine's own keys in `TargetRow.seen` -----------------------------------------------------------------

INSTEAD_OF = "instead_of"
"""Of a fallback: the upstreams of each route that it stands by for."""
TURNS = "turns"
"""Of a fallback: for each of these routes after how many seconds its turn comes, and when, in milliseconds."""
TURN = "turn"
"""Of a fallback: the turn that its delivery waits for, in milliseconds. By what that delivery's `created_at` differs
from it, what waits was moved since, as the clock was set, and the turns are to be moved too."""
STOOD_BY = "stood_by"
"""Of a fallback that an update chose outright: that command, and what else was here before, should it be refused."""
SPOKEN = "dialect"
"""The dialect of the upstream that issued the alert's ids there."""
TRIED_AT = "tried_at"
"""When the first attempt began whose answer was lost, so that it may have made an alert there, in milliseconds."""
TRIED_WITH = "tried_with"
"""The delivery of that attempt, and the last command of the state that it sent, where that was the alert's state then
and not the one that the delivery's own command left."""
TRIED_FIRST = "tried_first"
"""The command that left the state which that attempt sent."""
MUTED = "muted"
"""What a silence kept back of changes to an alert that is there, until it is sent: the last command that made such a
change, and the paths."""
OWED = "owed"
"""Set while nobody has tried to send what is `MUTED`. One try is enough: one that fails is a dead letter."""
MOVED = ("status", "snoozed_until", "assignee")
"""The paths of an alert's state that people change and that a vendor may have no operation for."""
OF_GROUP = "group "
"""The prefix of the ids by which the alerts of one group are found (see `group_of`)."""

# --- what an upstream can be told ------------------------------------------------------------------------------


def is_anothers(target: TargetRow, upstream: Upstream) -> bool:
    """Whether the target's ids were issued by another vendor, which the upstream's name meant before: here they mean
    nothing or, worse, somebody else's alert."""
    spoken: str = target.seen.get(SPOKEN, upstream.dialect.name)
    return spoken != upstream.dialect.name


def is_there(target: TargetRow, upstream: Upstream) -> bool:
    """Whether an update can be sent as the changed fields alone, so that without any there is nothing to send."""
    by_id = upstream.dialect.outbound.addressed_by == "id"
    return by_id and target.state == "present" and not is_anothers(target, upstream)


def may_look(upstream: Upstream) -> bool:
    """Whether a create whose answer was lost is looked for before it is sent again."""
    outbound = upstream.dialect.outbound
    return outbound.list is not None and not outbound.is_repeated


def group_of(row: AlertRow, upstream: Upstream) -> str | None:
    """The id of the group of alerts that their caller sent together, where the upstream is told when all of them are
    over; else None. A digest, as callers' names for groups may be longer than an index takes."""
    find = upstream.dialect.outbound.group
    if find is None or row.verbatim is None or row.dialect != upstream.dialect.name:
        return None
    found = find(row.verbatim)
    return f"{OF_GROUP}{sha256(found.encode()).hexdigest()[:32]}" if found else None


def refuses_rules(upstream: Upstream) -> bool:
    """Whether rules are not to be sent to this upstream; only for vendors of occurrences can that be configured."""
    return upstream.destination.rules == "refuse" and upstream.dialect.kind == "occurrence"


def refused_rule(upstream: Upstream, operation: Operation, flat: Flat) -> str:
    """Why an upstream is not told of an alert that is a rule; an empty text where it is told."""
    is_told_of_one = operation in TELLING and flat.get("kind") == "rule"
    return (
        f'upstream {upstream.name!r} takes no rules: rules = "refuse"'
        if is_told_of_one and refuses_rules(upstream)
        else ""
    )


def what_to_send(upstream: Upstream, operation: Operation) -> tuple[Operation | None, tuple[Fate, ...]]:
    """The operation that an upstream is sent, None where nothing is sent; and what the report says about that."""
    sent: Operation | None = operation
    if operation is Operation.RESOLVE and upstream.on_resolve == "delete":
        sent = Operation.DELETE
    elif operation is Operation.RESOLVE and upstream.on_resolve == "keep":
        sent = None
    outbound = upstream.dialect.outbound
    if sent is not None and sent not in outbound.calls:
        sent = outbound.nearest.get(sent)
    about = "comment" if operation is Operation.COMMENT else "status"
    if sent is None:
        return None, (Fate(about, "kept", "", f"{operation} is not sent to {upstream.dialect.title}"),)
    if sent is not operation:
        return sent, (Fate(about, "approximated", "", f"{operation} is sent as {sent}"),)
    return sent, ()


def speaks_as(upstream: Upstream, dialect: str) -> bool:
    """Whether an upstream is told what is done to an alert in the words of a caller of this dialect."""
    return dialect == upstream.dialect.name or dialect in upstream.dialect.outbound.kin


def unsaid(
    upstream: Upstream,
    origin: Dialect,
    asked: Command,
    sent: Operation,
    changed: tuple[str, ...],
    before: Flat,
    made_in: str,
) -> tuple[Fate, ...]:
    """The fates of what a command said besides its operation, where the upstream is told the operation that is `sent`,
    with a comment at most; `before` is the alert as it was, and `made_in` the dialect of its first caller."""
    dropped = tuple(Fate(name, "dropped", "", why) for name, why in asked.dropped)
    is_told = origin.name in upstream.dialect.outbound.kin or upstream.dialect.name == origin.name == made_in
    if is_told and upstream.dialect.name == origin.name:
        return dropped
    paths = [path for path in changed if path not in SERVER_OWNED]
    if not is_told:
        paths += _beside(asked, before, is_noted=sent in upstream.dialect.outbound.notes)
    why = f"only the {asked.operation} is sent to {upstream.dialect.title}"
    return (*(Fate(path, "kept", "", why) for path in dict.fromkeys(paths)), *dropped)


def unsaid_by_change(
    upstream: Upstream, origin: Dialect, asked: Command, before: Flat, made_in: str
) -> tuple[Fate, ...]:
    """The fates of what an update said besides what it changes, which only an upstream of the same dialect is told, and
    only of an alert that was made in it."""
    if upstream.dialect.name == origin.name == made_in:
        return ()
    why = f"only the change is sent to {upstream.dialect.title}"
    return tuple(Fate(path, "kept", "", why) for path in _beside(asked, before))


def unsent(upstream: Upstream, target: TargetRow, sent: Operation, changed: tuple[str, ...]) -> tuple[Fate, ...]:
    """The fates of what an update changed, at an upstream that has the alert, or is about to, and is told of no
    changes."""
    if sent is not Operation.UPDATE or upstream.dialect.outbound.tells_changes or target.state in ("absent", "dead"):
        return ()
    why = f"changes of an alert are not sent to {upstream.dialect.title}"
    return tuple(Fate(path, "kept", "", why) for path in changed if path not in SERVER_OWNED)


def _beside(asked: Command, before: Flat, *, is_noted: bool = False) -> list[str]:
    """The paths of what a command says that no operation but a comment tells, and one that `is_noted` there."""
    own = SERVER_OWNED | {"dedup_key"}
    paths = [path for path, value in asked.beside.items() if path not in own and before.get(path) != value]
    is_told = is_noted or asked.operation is Operation.COMMENT
    return paths + (["comment"] if asked.comment and not is_told else [])


def unmoved(upstream: Upstream, origin: Dialect, asked: Command, before: Flat, *, is_told: bool) -> tuple[Fate, ...]:
    """The fates of what a comment changed in the state of an alert, where the upstream is told that in words, if it
    `is_told` at all; `before` is the alert as it was."""
    if asked.operation is not Operation.COMMENT or asked.amend is None:
        return ()
    moved = asked.amend(before)
    known = upstream.dialect.outbound.kin.get(origin.name, frozenset())
    paths = [path for path in MOVED if path in moved and moved[path] != before.get(path) and path not in known]
    if is_told:
        return tuple(Fate(path, "approximated", "", "sent there as a comment only") for path in paths)
    return tuple(Fate(path, "kept", "", f"not sent to {upstream.dialect.title}") for path in paths)


def untold(asked: Command, target: TargetRow) -> tuple[Fate, ...]:
    """The fate of a comment on a command that has no other news for an upstream: nothing is sent there. A fallback
    whose turn has not come is not told of anything."""
    if not asked.comment or target.state == "standby":
        return ()
    return (Fate("comment", "kept", "", "nothing else was to be sent, so the comment was not"),)


def with_muted(target: TargetRow, command: int, changed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The paths to be sent to an upstream: what a command changed, and what a silence had kept back before."""
    since, paths = target.seen.get(MUTED, (command, ()))
    return changed if changed is None or since >= command else tuple(dict.fromkeys((*paths, *changed)))


def in_terms_of(
    upstream: Upstream, operation: Operation, before: Flat | None, after: Flat, *, says_something: bool
) -> Operation | None:
    """What an update becomes at an upstream, None where nothing is sent. For vendors of occurrences, switching a rule
    off ends what it raised; so it does where another gateway keeps an occurrence as a rule here, and ends it so."""
    if operation is not Operation.UPDATE or before is None:
        return operation
    was, now = before.get("enabled") is not False, after.get("enabled") is not False
    if upstream.dialect.kind == "occurrence" and was != now:
        return Operation.REOPEN if now else Operation.RESOLVE
    return Operation.UPDATE if says_something else None


def saying(
    row: AlertRow,
    target: TargetRow,
    flat: Flat,
    body: CommandBody,
    at: int,
    *,
    late: str = "",
    reading: Reading | None = None,
) -> Saying:
    """An alert as it is to be translated for one of its targets."""
    return Saying(
        flat=flat,
        origin=row.dialect,
        caller=row.caller,
        id=row.id,
        key=target.key,
        replaced=checked(target.replaced) if target.replaced else {},
        route=target.route,
        changed=body.changed,
        verbatim=row.verbatim,
        said=body.said,
        reading=reading,
        at=from_millis(at),
        late=late,
        dropped=body.dropped,
    )
