"""Described dialects: made from a table, with no Python, and of the same rows as the built-in ones, so that reports,
pages, `translate`, `check` and `explain` work alike.

A description that ships with a dialect's package is read here too. It must not know any vendor.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Literal

from gateway.asking import body_object
from gateway.canonical import Flat, Link, Operation
from gateway.config.tables import Tables
from gateway.dialect import Dialect, Envelope, Outbound, Route
from gateway.errors import ConfigurationError
from gateway.mapping.rows import Row, Unmet, Writing
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.wire import Wire, put
from gateway.outcome import Sending
from gateway.own.checks import Checking
from gateway.own.credentials import BASIC, NONE, PATH
from gateway.own.describing import Described, Describing
from gateway.own.places import struct_of
from gateway.own.reading import Reader, Taken, challenged, problem
from gateway.own.sending import Sender, plainly, reason
from gateway.own.shaping import slots
from gateway.own.signing import Signed

RESERVED = ("-", "metrics")
SHIPPED = "dialect.toml"
"""The file beside a dialect's module that describes the dialect."""
PAGE = "https://www.rfc-editor.org/rfc/rfc8259"
"""The source given for a description that names no page: its vendor takes JSON."""
SAMPLE: Flat = {
    "summary": "Disk is almost full on db-1",
    "details": "92 % of /var are used",
    "dedup_key": "db-1/disk",
    "severity": 1,
    "urgency": "high",
    "category": "disk",
    "resource": "db-1",
    "source": "monitor",
    "team": "database",
    "links": (Link(href="https://example.com/runbook", text="Runbook"),),
    "labels": {"env": "production"},
    "custom": {"used": 92},
}
"""The alert from which a described dialect's example is made."""
SAMPLED = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of that alert."""


def dialects_in(
    check: Checking, tables: Mapping[str, Mapping[str, Any]], built_in: Mapping[str, Dialect]
) -> dict[str, Dialect]:
    """Returns the dialects that a configuration describes, by name; reports what is wrong with them to `check`."""
    wants = any(isinstance(table, dict) and "envelope" in table for table in tables.values())
    envelopes = {name: one.envelope for name, one in built_in.items() if one.envelope} if wants else {}
    found = {}
    for name, table in tables.items():
        path = f"dialects.{name}"
        if name in built_in or name in RESERVED:
            check.say(path, f"is a built-in dialect or a reserved name; choose another, such as my_{name}")
        elif not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            check.say(path, "a dialect's name consists of lower-case letters, digits, dashes and underscores")
        elif isinstance(table, dict) and (dialect := _checked(check, name, table, path, envelopes)):
            found[name] = dialect
    return found


def _checked(
    check: Checking, name: str, table: Mapping[str, Any], path: str, envelopes: Mapping[str, Envelope]
) -> Dialect | None:
    before = len(check.problems)
    described = Describing(check, name, path, envelopes).described(table)
    return _made(described, table) if len(check.problems) == before else None


def shipped(package: str, envelopes: Mapping[str, Envelope]) -> Dialect:
    """Returns the dialect that the file beside a module describes; raises `ConfigurationError` if it is unusable."""
    name = package.rpartition(".")[2]
    table = tomllib.loads((resources.files(package) / SHIPPED).read_text("utf8"))["dialects"][name]
    check = Tables()
    dialect = _checked(check, name, table, f"dialects.{name}", envelopes)
    if dialect is None:
        raise ConfigurationError(check.problems)
    return dialect


# --- from a description to a dialect ---------------------------------------------------------------------------


def _made(described: Described, table: Mapping[str, Any]) -> Dialect:
    name, file, envelope = described.name, described.file, described.envelope
    details = next((entry.wires[0] for entry in _rows(described) if entry.paths[0] == "details"), None)
    rows = Rows(
        name,
        file.kind,
        struct_of(name, described.leaves),
        described.rows,
        container=described.container,
        details=details,
        shown=tuple(slots(described.send.body)) if described.send.body else None,
    )
    sender = _sender(described)
    unshaped = replace(sender, shape={})
    key_fit = described.key.fit if described.key else None
    return Dialect(
        name=name,
        title=file.title or name,
        source=file.url or PAGE,
        kind=file.kind,
        mapping=rows,
        routes=_routes(described, rows),
        outbound=Outbound(
            addressed_by="id" if described.send.id else "key",
            calls=sender.calls(),
            nearest=_nearest(sender),
            authorise=described.credentials.put,
            needs_key=described.credentials is not NONE,
            tells_changes=described.send.updates and (not sender.id or Operation.UPDATE in sender.paths),
            ends_by_key=sender.uses_key(),
            tells_key=bool(sender.id and sender.key and sender.uses_key()),
            whole_url=not (file.send.get("path") or file.send.get("paths")),
            verdicts=_of_the_address(sender) if described.credentials is PATH else {},
            reason=reason,
        ),
        credentials=described.credentials.find,
        credential_in_body=described.credentials.place is not None,
        problem=challenged if described.credentials is BASIC else problem,
        shown_id=str,
        same_key=key_fit or str,
        settings=envelope.settings if envelope else None,
        admits=envelope.admits if envelope else None,
        inbound_settings=Signed if described.signature else None,
        verify=described.signature.verify if described.signature else None,
        samples=tuple(_samples(described, rows, unshaped)),
        client_setting=f"the address → `http://gateway/{name}{'' if file.path == '/' else file.path}`",
        description=table,
        scheme=described.credentials.scheme,
    )


def _rows(described: Described) -> Iterator[Row]:
    return (entry for entry in described.rows if isinstance(entry, Row))


def _nearest(sender: Sender) -> dict[Operation, Operation]:
    """The operations used instead of those without a call: resolve for delete, and create for reopen where no path
    reopens an alert by its id."""
    calls = sender.calls()
    nearest = {Operation.DELETE: Operation.RESOLVE} if Operation.RESOLVE in calls else {}
    return nearest if Operation.REOPEN in calls else {**nearest, Operation.REOPEN: Operation.CREATE}


def _of_the_address(sender: Sender) -> dict[int, Literal["retry", "dead", "hold"]]:
    """The verdicts on 404 and 410 where the credential is a part of the address: that it was revoked, so the upstream
    is held; none where the alert is a part of the address too."""
    names_alerts = any(part in path for path in (sender.path, *sender.paths.values()) for part in ("{id}", "{key}"))
    return {} if names_alerts else {404: "hold", 410: "hold"}


def _sender(described: Described) -> Sender:
    send = described.send
    return Sender(
        standing=described.standing,
        key=described.key,
        constants=described.file.constants,
        method=send.method,
        path=send.path,
        paths=send.paths,
        methods=send.methods,
        id=send.id or "",
        headers=send.headers,
        sealed=described.envelope.sealed if described.envelope else plainly,
        mode=described.mode,
        opening=described.opening,
        shape=send.body,
        success=send.success,
        again=send.again,
        redirects=frozenset(send.redirects),
    )


def _routes(described: Described, rows: Rows) -> tuple[Route, ...]:
    """The route that callers post to, and those that the envelope adds. If the description has a path of its own, it is
    served at the root too."""
    file, envelope = described.file, described.envelope
    at_root = file.path != "/"
    opening = described.opening
    reader = Reader(
        parted=envelope.parted if envelope else opening.parted,
        rows=rows,
        standing=described.standing,
        key=described.key.wires if described.key else (),
        demanded=described.demanded,
        opened=envelope.opened if envelope else body_object if opening.each else opening.opened,
        confirm=file.confirm or "",
        identity=envelope.identity if envelope else None,
    )
    asked = [Operation.CREATE, *([Operation.UPDATE] if described.key else [])]
    standing = described.standing
    asked += [Operation.ACKNOWLEDGE] if described.key and standing and standing.acknowledge else []
    asked += [Operation.RESOLVE] if described.key and standing and standing.resolve else []
    is_usual = not described.file.reply.get("body")
    events = Route(
        method="POST",
        path=file.path,
        operations=tuple(asked),
        read=reader.read,
        answer=described.answers.answer,
        summary="Send an alert" + (", or change its status" if standing else ""),
        source=file.url or PAGE,
        at_root=at_root,
        body=_body(described, rows),
        success=described.answers.status,
        returns=Taken if is_usual and described.answers.status != 204 else None,
    )
    return (events, *(envelope.routes(file.path, at_root) if envelope else ()))


def _body(described: Described, rows: Rows) -> Any:
    """The struct of a whole body; None where texts in it are JSON themselves, which a schema cannot describe."""
    opening = described.opening
    if opening.texts:
        return None
    leaves = {opening.each: (list[rows.wire], True)}  # type: ignore[name-defined]
    return struct_of(f"{described.name}List", leaves) if opening.each else rows.wire


def _samples(described: Described, rows: Rows, sender: Sender) -> Iterator[Wire]:
    """Yields an example of a body, written with the rows; none where a required field has no value."""
    sample = {path: value for path, value in SAMPLE.items() if rows.holder(path)}
    try:
        body = rows.write(sample, Writing(origin=described.name))
    except Unmet:
        return
    sending = Sending(operation=Operation.CREATE, at=SAMPLED, body=body, patch={}, key=None, ids={}, seen={})
    whole = sender.body(Operation.CREATE, sending)
    for name, value in (described.envelope.sample if described.envelope else {}).items():
        if name not in whole:
            put(whole, name, value)
    yield whole


__all__ = ["dialects_in", "shipped"]
