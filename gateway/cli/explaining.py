"""Runs a request through a configuration without a network: the alert it is read as, the routes it takes and why, what
each upstream would be sent, and whom that would wake.

Used by `explain`, and by the `[[tests]]` of a configuration. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec import UNSET

from gateway.asked import Command
from gateway.canonical import Flat, Operation, plain
from gateway.cli.waking import loudness, verdict, wakes
from gateway.config.choosing import texts, values
from gateway.config.config import Config, Inbound
from gateway.config.routing import Choice, Route, choose
from gateway.config.secrets import ANONYMOUS
from gateway.errors import Problem
from gateway.mapping.carry import restore
from gateway.mapping.report import Fate
from gateway.mapping.rows import Unmet
from gateway.rehearsal import Rehearsed, command_in, rehearse
from gateway.road.terms import refused_rule


@dataclass(frozen=True, kw_only=True)
class Reached:
    """One upstream that an alert goes to: by which route, what would be sent there or why it cannot be, and whether and
    whom that wakes."""

    choice: Choice
    sent: Rehearsed | None = None
    refused: str = ""
    wakes: bool | None = None
    says: str = ""

    def body(self) -> Mapping[str, Any]:
        """The fields of all request bodies together; later requests take precedence."""
        bodies = [request.body for request in self.sent.requests] if self.sent else []
        return {name: value for body in bodies if isinstance(body, dict) for name, value in body.items()}


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The explanation of a request: what it asks for, why each route takes it or does not, and where it goes."""

    dialect: str
    caller: str
    operation: Operation | None = None
    alert: Flat
    why: tuple[tuple[str, str], ...] = ()
    reached: tuple[Reached, ...] = ()
    refused: str = ""

    @property
    def route(self) -> str:
        """The name of the route that the first upstream was reached by; empty where there is none."""
        return next((one.choice.route for one in self.reached), "")

    def as_json(self) -> dict[str, Any]:
        """The explanation as `--json` prints it."""
        return {
            "from": self.dialect,
            "caller": self.caller,
            "operation": self.operation,
            "alert": plain(self.alert),
            "routes": [{"route": name, "why": why} for name, why in self.why],
            "refused": self.refused or None,
            "to": [
                {
                    "upstream": one.choice.upstream,
                    "route": one.choice.route,
                    "after": one.choice.after,
                    "set": plain(one.choice.replaced),
                    "key": one.choice.key or None,
                    "refused": one.refused or None,
                    "wakes": one.wakes,
                    "says": one.says,
                    **(one.sent.as_json() if one.sent else {"requests": [], "report": []}),
                }
                for one in self.reached
            ],
        }


def usual_caller(inbound: Inbound) -> str | None:
    """The caller that is meant where none is named: the only one, or `anonymous` without any; None for several."""
    names = inbound.keyring.names() if inbound.keyring.directory else sorted(inbound.callers)
    if not names:
        return ANONYMOUS
    return names[0] if len(names) == 1 else None


def explain(config: Config, inbound: Inbound, caller: str, body: Any) -> Explained:
    """Explains a request body under a configuration: one that opens an alert, or that is sent to the same path."""
    dialect = inbound.dialect
    try:
        asked = command_in(dialect, Operation.CREATE, body)
    except Problem as problem:
        return Explained(dialect=dialect.name, caller=caller, alert={}, refused=problem.message)
    alert = restore({**{hint.path: hint.value for hint in asked.hints}, **asked.patch}, asked.carried)
    alert = {"kind": dialect.kind, **alert}
    is_new = asked.operation is Operation.CREATE
    chosen = choose(config.routes, dialect.name, caller, alert if is_new else None)
    return Explained(
        dialect=dialect.name,
        caller=caller,
        operation=asked.operation,
        alert=alert,
        why=tuple(_reasons(config.routes, dialect.name, caller, alert if is_new else None)),
        reached=tuple(_reached(config, inbound, caller, asked, choice, alert) for choice in chosen or ()),
        refused="" if chosen is not None else "no entry of `routes` takes it; add one, or a last one without `when`",
    )


def _reasons(routes: tuple[Route, ...], dialect: str, caller: str, alert: Flat | None) -> Iterator[tuple[str, str]]:
    """Each route up to the last one that is looked at, and why it takes the alert or does not."""
    facts = {**(alert or {}), "caller": caller, "dialect": dialect}
    for route in routes:
        taken = True
        if not route.is_from(dialect, caller):
            taken, why = False, f"not from {', '.join(route.from_)}"
        elif alert is None:
            why = "by sender alone: the alert was routed when it was opened"
        else:
            held = [(str(matcher), matcher.holds(facts), _found(facts, matcher.name)) for matcher in route.when]
            missed = [f"{text} does not hold: it is {found}" for text, holds, found in held if not holds]
            taken = not missed
            why = missed[0] if missed else "; ".join(f"{text} holds" for text, _, _ in held) or "it takes everything"
        if taken and route.throws_away:
            why += f"; thrown away: {route.because}"
        yield route.name, why
        if taken and not route.goes_on and alert is not None:
            return


def _found(facts: Mapping[str, Any], name: str) -> str:
    return ", ".join(map(repr, texts(facts, name))) if values(facts, name) else "absent"


def _reached(config: Config, inbound: Inbound, caller: str, asked: Command, choice: Choice, alert: Flat) -> Reached:
    upstream = config.upstreams[choice.upstream]
    entry = choice.key or upstream.entry(inbound.dialect.name, caller, alert)
    if upstream.keys and upstream.keys.is_known and (lacking := upstream.keys.lacks(entry)):
        return Reached(choice=choice, refused=f"upstream {upstream.name!r}: {lacking}")
    if refused := refused_rule(upstream, asked.operation, alert):
        return Reached(choice=choice, refused=refused)
    try:
        sent = rehearse(asked, inbound.dialect, upstream, caller=caller, replaced=choice.replaced, route=choice.route)
    except (Problem, Unmet) as problem:
        return Reached(choice=choice, refused=str(getattr(problem, "message", problem)))
    if choice.key:
        why = f"set by route {choice.route}"
        sent = replace(sent, report=(*sent.report, Fate("routing_key", "approximated", "", why)))
    found = Reached(choice=choice, sent=sent)
    if asked.operation is not Operation.CREATE or not sent.requests:
        return Reached(choice=choice, sent=sent, wakes=False, says="wakes nobody")
    body = dict(found.body())
    whom = _whom(choice, body, upstream.destination.mapping.holder("routing_key"), entry)
    says = f"{loudness(upstream, sent.words) or 'no severity given'}: {verdict(upstream, sent.words)}{whom}"
    return Reached(choice=choice, sent=sent, wakes=wakes(upstream, sent.words), says=says)


def _whom(choice: Choice, body: Mapping[str, Any], holder: str, entry: str) -> str:
    """The upstream, and the routing key and the entry of the key that are used there, if any."""
    named = body.get(holder, UNSET) if holder else UNSET
    parts = [f"{holder} {named}"] if named not in (UNSET, None) else []
    parts += [f"the key of {entry}"] if entry else []
    return f" ({choice.upstream}{', ' if parts else ''}{', '.join(parts)})"
