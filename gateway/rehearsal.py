"""A translation without a network: what an upstream would be sent for a request, and the report.

Used by `translate`, `check` and the documentation. The calls are run against an upstream that says yes to everything
and remembers nothing, so that every request of a call comes out. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from gateway.asked import Batch, Command, Incoming
from gateway.canonical import Flat, Operation, in_order
from gateway.config.config import Upstream
from gateway.config.secrets import MASK
from gateway.dialect import Dialect, Route
from gateway.errors import Problem, ProblemKind
from gateway.mapping.carry import credible, restore
from gateway.mapping.report import Fate
from gateway.mapping.rows import Unmet
from gateway.mapping.saying import Destination, Saying
from gateway.mapping.translation import translate, unmet_text
from gateway.mapping.wire import Wire, names
from gateway.outcome import Request, Response, Sending
from gateway.road.terms import TELLING, speaks_as, unmoved, unsaid, what_to_send


@dataclass(frozen=True)
class Rehearsed:
    """The requests that an upstream would be sent, secrets masked, and the fate of each field; `words` is the whole
    alert as the upstream's rows write it, which the requests may have in another shape."""

    requests: tuple[Request, ...]
    report: tuple[Fate, ...]
    words: Wire = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form that `translate` prints."""
        return {
            "requests": [
                {
                    "method": request.method,
                    "path": request.path,
                    "headers": dict(request.headers),
                    "body": None if request.body is UNSET else request.body,
                }
                for request in self.requests
            ],
            "report": msgspec.to_builtins(list(self.report)),
        }


def bare_upstream(dialect: Dialect) -> Upstream:
    """An upstream of a dialect with no settings of its own."""
    return Upstream(
        name=dialect.name,
        destination=Destination(name=dialect.name, dialect=dialect, mapping=dialect.mapping),
        url=dialect.url,
        on_resolve=dialect.outbound.on_resolve,
        settings=dialect.settings() if dialect.settings else None,
    )


def command_in(dialect: Dialect, operation: Operation, body: Any) -> Command:
    """Reads a request body as a command for this operation, by the first of the dialect's routes that takes it; raises
    `Problem` where none does."""
    if operation in (Operation.READ, Operation.LIST):
        raise Problem(ProblemKind.INVALID, f"{operation} says nothing of an alert that could be translated")
    problem: Problem | None = None
    refused: Route | None = None
    for route in dialect.routes:
        if operation in route.operations:
            if refused and _says_more(body, refused, route):
                continue
            try:
                asked = route.read(_incoming(route, body))
            except Problem as error:
                problem, refused = problem or error, refused or route
                continue
            if isinstance(asked, Batch) and asked.problems:
                problem, refused = problem or asked.problems[0], refused or route
                continue
            commands = asked.commands if isinstance(asked, Batch) else (asked,)
            for one in commands:
                if isinstance(one, Command):
                    return one
    raise problem or Problem(ProblemKind.INVALID, f"{dialect.title} has no way to ask for {operation}")


def _says_more(body: Any, refused: Route, other: Route) -> bool:
    """Whether a body has fields that only the route which refused it knows: then it is not meant for the other."""
    if not isinstance(body, Mapping):
        return False
    return bool(body.keys() & (_fields(refused) - _fields(other)))


def _fields(route: Route) -> frozenset[str]:
    """The top-level fields of the body that a route takes, where that is an object."""
    return names(route.body) if isinstance(route.body, type) and issubclass(route.body, Struct) else frozenset()


def _incoming(route: Route, body: Any) -> Incoming:
    inner = body.get("alert", body) if isinstance(body, Mapping) else {}
    found = inner if isinstance(inner, Mapping) else {}
    named = next((str(found[name]) for name in ("id", "alert_id") if found.get(name) is not None), "{id}")
    variables = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    params = {name: named if name == "id" else "" for name in variables}  # a body says nothing of any other
    return Incoming(params, {}, {}, body, datetime.now(UTC))


def rehearse(
    asked: Command,
    origin: Dialect,
    upstream: Upstream,
    *,
    caller: str = "caller",
    replaced: Flat | None = None,
    route: str = "",
) -> Rehearsed:
    """What an upstream would be sent for a command; raises `Problem` where the upstream cannot take it. `replaced` is
    what the route of this name sets."""
    operation = Operation(asked.operation)
    sent, fates = what_to_send(upstream, operation)
    fates += unmoved(upstream, origin, asked, {}, is_told=sent is not None)
    if sent is None:
        return Rehearsed((), fates)
    words = _as_said(asked, origin, upstream, caller, replaced or {}, route)
    is_update, akin = operation is not Operation.CREATE, origin.name == upstream.dialect.name
    body: dict[str, Any] = {}
    patch: dict[str, Any] = {}
    by_id = upstream.dialect.outbound.addressed_by == "id"
    if sent in TELLING or (asked.patch and sent is Operation.RESOLVE and by_id):
        try:
            said = translate(words, upstream.destination)
        except Unmet as unmet:
            raise Problem(ProblemKind.UNMET, unmet_text(upstream.name, unmet), field=unmet.path) from None
        body, patch, fates = said.body, said.patch, fates + said.report
    else:
        fates += unsaid(upstream, origin, asked, sent, tuple(asked.patch), {}, origin.name)
    sending = Sending(
        operation=sent,
        at=datetime.now(UTC),
        body=body,
        patch=patch,
        key=words.key,
        ids={"id": (asked.ref.id if asked.ref else None) or "{id}"} if is_update else {},
        seen={},
        comment=asked.comment,
        is_akin=akin,
        verbatim=dict(asked.verbatim) if is_update and speaks_as(upstream, origin.name) else None,
        replaced=words.replaced,
        settings=upstream.settings,
    )
    return Rehearsed(rehearsed(sending, upstream), fates, body)


def _as_said(asked: Command, origin: Dialect, upstream: Upstream, caller: str, replaced: Flat, route: str) -> Saying:
    """The alert, as far as the command describes it, on its way to the upstream."""
    by_key = upstream.dialect.outbound.addressed_by == "key"
    key = asked.ref.key if asked.ref and asked.ref.key else asked.patch.get("dedup_key") or "{key}"
    carried = credible(asked.carried, (origin.mapping, upstream.destination.mapping))
    flat = restore({**{hint.path: hint.value for hint in asked.hints}, **asked.patch}, carried)
    flat = in_order({"kind": origin.kind, **flat})
    is_update = asked.operation is not Operation.CREATE
    return Saying(
        flat=flat,
        origin=origin.name,
        caller=caller,
        key=key if by_key else None,
        replaced=replaced,
        route=route,
        changed=tuple(path for path in flat if path != "kind") if is_update else None,
        verbatim=dict(asked.verbatim),
        said=dict(asked.verbatim),
        dropped=asked.dropped,
    )


def rehearsed(sending: Sending, upstream: Upstream) -> tuple[Request, ...]:
    """The requests of a call as an upstream that says yes to everything would see them, secrets masked."""
    outbound = upstream.dialect.outbound
    call = outbound.calls[sending.operation](sending)
    requests = []
    masked = dict.fromkeys(upstream.headers, MASK)
    try:
        request = next(call)
        while True:
            requests.append(outbound.authorise(request, MASK).with_headers(masked))
            request = call.send(Response(200, {}, b"{}"))
    except StopIteration:
        return tuple(requests)
