"""Opsgenie's calls beside those on alerts: checks of a key, heartbeats, and lists that are always empty here.

Only Opsgenie notices a heartbeat that stops: pings are passed on to it, and refused where it is not the primary, as
nobody would watch them there. Sources: https://docs.opsgenie.com/docs/heartbeat-api and
https://docs.opsgenie.com/docs/integration-api for the calls, and https://docs.opsgenie.com/docs/account-api;
opsgenie/opsgenie-oas for their answers. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgspec import Struct

from gateway.asked import Answer, Asked, Incoming, Read, Relay, Reply
from gateway.asking import body_object, one
from gateway.dialect import Route, segment
from gateway.errors import Problem, ProblemKind, invalid
from gateway.mapping.values import millis
from gateway.outcome import Json, Request
from mappings.opsgenie.asked import ref
from mappings.opsgenie.bodies import Entries
from mappings.opsgenie.lists import answer_nobody
from mappings.opsgenie.words import INTEGRATION, answered, uuid_of

HEARTBEATS = "https://docs.opsgenie.com/docs/heartbeat-api"
ACCOUNT = "https://docs.opsgenie.com/docs/account-api"
INTEGRATIONS = "https://docs.opsgenie.com/docs/integration-api"
CONTINUED = "https://docs.opsgenie.com/docs/alert-api-continued"
MAINTENANCE = "https://docs.opsgenie.com/docs/maintenance-api"
UNWATCHED = (
    "heartbeats are monitored by Opsgenie only, which is not this caller's first upstream: nobody would notice "
    "if this one stopped"
)
UNHEARD = "Opsgenie could not be reached for the heartbeat; ping again"
SOON = 30
"""Seconds after which a ping that could not be passed on is to be repeated."""


class Authenticating(Struct, kw_only=True):
    """The kind of integration that the key is said to belong to."""

    type: str


class Ok(Struct, kw_only=True):
    """An answer without data: it only says that the request succeeded."""

    result: str
    took: float
    requestId: str


class Found(Struct, kw_only=True):
    """The envelope of data that is not about alerts, such as heartbeats or the account."""

    data: Any
    took: float
    requestId: str


def _at_once(incoming: Incoming, body: dict[str, Json]) -> Reply:
    """Returns an answer for which nothing has to be looked up, in the envelope that clients require."""
    return Reply(200, {**body, "took": 0.001, "requestId": uuid_of(millis(incoming.now))})


def authenticate(incoming: Incoming) -> Reply:
    """Confirms the key: a request with an unknown one is refused before it is read."""
    kind = body_object(incoming).get("type")
    if not isinstance(kind, str) or not kind.strip():
        raise invalid("type", "is required")
    return _at_once(incoming, {"result": f"Integration [{kind[:64]}] is valid"})


def account(incoming: Incoming) -> Reply:
    """Answers with the key's account. Senders ask for it to check their key; one that is unknown is refused before."""
    plan: dict[str, Json] = {"maxUserCount": 1, "name": "Enterprise", "isYearly": True}
    return _at_once(incoming, {"data": {"name": INTEGRATION["name"], "userCount": 1, "plan": plan}})


def no_searches(incoming: Incoming) -> Reply:
    """Answers with the saved searches, of which there are none here."""
    return _at_once(incoming, {"data": []})


def no_maintenance(incoming: Incoming) -> Reply:
    """The maintenance windows: there are none here. A client on PyPI asks for them to prove its key."""
    return _at_once(incoming, {"data": []})


def attachments(incoming: Incoming) -> Read:
    """Reads a request for an alert's files; only here the kind of its id is in `alertIdentifierType`."""
    kind = one(incoming, "alertIdentifierType") or one(incoming, "identifierType")
    named = {**incoming.query, "identifierType": [kind]} if kind else incoming.query
    return Read(ref=ref(Incoming(incoming.params, named, incoming.headers, incoming.body, incoming.now)))


def heartbeat(rest: str = "") -> Callable[[Incoming], Relay]:
    """Returns a reader of requests about one heartbeat, or all, which Opsgenie answers. Its 404 for an unknown name is
    an answer as well."""

    def read(incoming: Incoming) -> Relay:
        name = f"/{segment(incoming.params['name'])}" if "name" in incoming.params else ""
        return Relay(
            Request(method="GET", path=f"/v2/heartbeats{name}{rest}", accepts=frozenset({404}), is_list=not name),
            otherwise=Problem(ProblemKind.NO_SUCH_PATH, UNWATCHED),
            unheard=Problem(ProblemKind.OVERLOADED, UNHEARD, retry_after=SOON),
        )

    return read


def _worded(body: dict[str, Json], status: int = 200) -> Callable[[Answer], Reply]:
    """Returns the example answer of a route; real requests are answered when they are read, or by Opsgenie."""
    return lambda answer: answered(answer, body, status)


def _route(method: str, path: str, read: Callable[[Incoming], Asked], summary: str, source: str, **more: Any) -> Route:
    usual: dict[str, Any] = {"answer": _worded({"data": []}), "returns": Found}
    return Route(
        method=method, path=path, operations=(), read=read, summary=summary, source=source, **{**usual, **more}
    )


PING = _route(
    "GET",
    "/v2/heartbeats/{name}/ping",
    heartbeat("/ping"),
    "Ping a heartbeat at Opsgenie",
    HEARTBEATS,
    answer=_worded({"result": "PONG - Heartbeat received"}, 202),
    success=202,
    returns=Ok,
)
ROUTES = (
    _route(
        "POST",
        "/v2/integrations/authenticate",
        authenticate,
        "Validate a key",
        INTEGRATIONS,
        answer=_worded({"result": "Integration [sentry] is valid"}),
        body=Authenticating,
        returns=Ok,
    ),
    _route("GET", "/v2/account", account, "Get the account", ACCOUNT),
    *(replace(PING, method=method) for method in ("GET", "POST", "PUT", "PATCH")),
    _route("GET", "/v2/heartbeats", heartbeat(), "List the heartbeats at Opsgenie", HEARTBEATS),
    _route("GET", "/v2/heartbeats/{name}", heartbeat(), "Get a heartbeat from Opsgenie", HEARTBEATS),
    _route("GET", "/v1/maintenance", no_maintenance, "List the maintenance windows: there are none", MAINTENANCE),
    _route("GET", "/v2/alerts/saved-searches", no_searches, "List the saved searches: there are none", CONTINUED),
    _route(
        "GET",
        "/v2/alerts/{id}/attachments",
        attachments,
        "List the files of an alert: it has none",
        CONTINUED,
        answer=answer_nobody,
        returns=Entries,
        query=("alertIdentifierType",),
    ),
)
