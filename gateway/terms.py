"""A command in an upstream's terms: what an operation becomes there, and an alert as it is said to one of its targets.

Plain functions of a configuration and rows; they know no vendor, and write nothing.
"""

from __future__ import annotations

from hashlib import sha256

from gateway.asked import Command
from gateway.canonical import SERVER_OWNED, Flat, Operation, checked
from gateway.config import Upstream
from gateway.dialect import Dialect
from gateway.mapping import Reading
from gateway.store import AlertRow, CommandBody, TargetRow
from gateway.translation import Fate, Saying
from gateway.values import from_millis

TELLING = (Operation.CREATE, Operation.UPDATE, Operation.REOPEN)
"""Operations that say what an alert is."""
ENDING = (Operation.RESOLVE, Operation.DELETE)
"""Operations that say that it is over."""
# --- what a target notes of its own, in what it has `seen` -----------------------------------------------------

INSTEAD_OF = "instead_of"
"""Of a fallback: the upstreams of each route that it stands by for."""
TURNS = "turns"
"""Of a fallback: for each of these routes after how many seconds its turn comes, and when, in milliseconds."""
SPOKEN = "dialect"
"""In which dialect the ids were given that an alert has there."""
TRIED_AT = "tried_at"
"""When the first attempt began that may have made something there although its answer was lost, in milliseconds."""
TRIED_WITH = "tried_with"
"""The delivery of that attempt and the last command whose state it sent, where that was the alert as it stood and not
what the delivery's own command left."""
MUTED = "muted"
"""What of an alert that is there was changed in a silence, and has not been said since: the last command that did so,
and the paths."""
OWED = "owed"
"""That nobody has tried yet to say what is `MUTED`. Once is enough: what came to nothing is a dead letter."""
OF_GROUP = "group "
"""What the ids begin with by which an upstream's alerts are found that were told of together."""

# --- what an upstream can be told ------------------------------------------------------------------------------


def is_anothers(target: TargetRow, upstream: Upstream) -> bool:
    """Whether an alert stands at another vendor, for which the upstream's name stood before: its ids are nothing here,
    or, worse, somebody else's."""
    spoken: str = target.seen.get(SPOKEN, upstream.dialect.name)
    return spoken != upstream.dialect.name


def is_there(target: TargetRow, upstream: Upstream) -> bool:
    """Whether an update can be the changed fields alone, so that without any there is nothing to send."""
    by_id = upstream.dialect.outbound.addressed_by == "id"
    return by_id and target.state == "present" and not is_anothers(target, upstream)


def may_look(upstream: Upstream) -> bool:
    """Whether a create whose answer was lost is looked for before it is sent again."""
    return upstream.dialect.outbound.list is not None


def group_of(row: AlertRow, upstream: Upstream) -> str | None:
    """The id by which an upstream's alerts are found that their caller told of together, where that upstream is told
    when all of them are over. A digest: what callers name their groups may be longer than an index takes."""
    find = upstream.dialect.outbound.group
    if find is None or row.verbatim is None or row.dialect != upstream.dialect.name:
        return None
    found = find(row.verbatim)
    return f"{OF_GROUP}{sha256(found.encode()).hexdigest()[:32]}" if found else None


def refuses_rules(upstream: Upstream) -> bool:
    """Whether rules are not to be sent to this upstream: only at a vendor of occurrences there is a choice."""
    return upstream.destination.rules == "refuse" and upstream.dialect.kind == "occurrence"


def what_to_send(upstream: Upstream, operation: Operation) -> tuple[Operation | None, tuple[Fate, ...]]:
    """What an operation becomes at an upstream, None where nothing is sent, and what there is to say about it."""
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
        return None, (Fate(about, "kept", "", f"{upstream.dialect.title} cannot {operation} here"),)
    if sent is not operation:
        return sent, (Fate(about, "approximated", "", f"{operation} becomes {sent} there"),)
    return sent, ()


def unsaid(upstream: Upstream, origin: Dialect, asked: Command, changed: tuple[str, ...]) -> tuple[Fate, ...]:
    """What a command said beside its operation, where the upstream's words for that have no room for it."""
    if upstream.dialect.name == origin.name:
        return ()
    is_told = asked.operation is Operation.COMMENT or not asked.comment
    paths = [path for path in changed if path not in SERVER_OWNED] + ([] if is_told else ["comment"])
    return tuple(
        Fate(path, "kept", "", f"{upstream.dialect.title} is told the {asked.operation} alone") for path in paths
    )


def with_muted(target: TargetRow, command: int, changed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The paths of which an upstream is told: what a command changed, and what a silence had kept back before."""
    since, paths = target.seen.get(MUTED, (command, ()))
    return changed if changed is None or since >= command else tuple(dict.fromkeys((*paths, *changed)))


def in_terms_of(
    upstream: Upstream, operation: Operation, before: Flat | None, after: Flat, *, says_something: bool
) -> Operation | None:
    """An update in an upstream's terms: for vendors of occurrences, switching a rule off ends what it raised. So it
    does where another gateway keeps an occurrence as a rule here: that is how it says that it is over."""
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
    """An alert as it is said at one of its targets."""
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
