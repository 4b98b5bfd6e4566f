"""Turns posted alerts into commands, each on its own, whichever way and in whose words they were posted.

What is repeated while an alert is open is a resend; the newest post counts, and its labels are the alert's identity.
Source: https://prometheus.io/docs/alerting/latest/clients/. It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from gateway.asked import Command, Ref
from gateway.canonical import Flat, Operation
from gateway.errors import Problem, ProblemKind
from gateway.mapping.table import Mapping
from gateway.mapping.wire import Wire
from mappings.alertmanager.alert import STARTS, read_moment, without_blank

RESOLVE_TIMEOUT = timedelta(minutes=5)
"""How long an alert lasts whose sender does not say."""
STAYS = frozenset({"labels", "dedup_key", "summary", STARTS, "created_at"})
"""Paths that an alert keeps when a newer post does not say them."""


def command(wire: Wire, has_ended: bool | None, now: datetime, mapping: Mapping) -> Command:
    """Returns the command of a posted alert. Where `has_ended` is None, its `endsAt` tells."""
    labels = without_blank(wire["labels"])
    if not labels:
        raise Problem(ProblemKind.INVALID, "at least one label pair required", field="labels")
    for name in labels:
        if not name:
            raise Problem(ProblemKind.INVALID, 'invalid label set: invalid name ""', field="labels")
    ends = None
    if has_ended is None:
        starts, ends = read_moment(wire.get("startsAt")), read_moment(wire.get("endsAt"))
        if starts and starts > (ends or now + RESOLVE_TIMEOUT):
            raise Problem(ProblemKind.INVALID, "start time must be before end time", field="startsAt")
    reading = mapping.interpret({**wire, "labels": labels})
    if not reading.flat.get("dedup_key"):  # it had private labels alone, and no fingerprint
        raise Problem(ProblemKind.INVALID, "at least one label pair required", field="labels")
    if has_ended or (has_ended is None and ends is not None and ends <= now):
        return Command(
            operation=Operation.RESOLVE,
            ref=Ref(key=reading.flat["dedup_key"]),
            verbatim=reading.verbatim,
            reading=reading,
            beside=reading.flat,
            dropped=reading.dropped,
            is_resend=True,
        )
    until = {"ends_at": ends or now + RESOLVE_TIMEOUT} if has_ended is None else {}
    return Command(
        operation=Operation.CREATE,
        patch={**reading.flat, **until},
        verbatim=reading.verbatim,
        dropped=reading.dropped,
        carried=reading.carried,
        amend=_newest(reading.flat, mapping),
        is_resend=True,
    )


def _newest(said: Flat, mapping: Mapping) -> Callable[[Flat], Flat]:
    """Returns an `amend` by which the newest post replaces the earlier ones, except the start: the earliest stays."""

    def amend(before: Flat) -> Flat:
        replaced = (path for row in mapping.rows if row.side != "reply" for path in row.paths if path not in STAYS)
        gone: Flat = {path: None for path in replaced if before.get(path) is not None and path not in said}
        first, starts = _start_of(before), _start_of(said)
        if first and (starts is None or first <= starts):
            gone[STARTS] = before[STARTS]
        return gone

    return amend


def _start_of(flat: Flat) -> Any:
    return read_moment(flat.get(STARTS))
