"""IBM Cloud Monitoring's alerts API (Sysdig Monitor): rules with versions and unique names.

Source: https://cloud.ibm.com/docs/monitoring?topic=monitoring-alert_api. It must not know what stands behind the
gateway. Requests to an upstream are in `calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.asked import Answer, Asked, Chosen, Command, Incoming, Listing, Ref, Relay, Reply, Shown
from gateway.asking import bearer, body_object, by_id, read_by_id, saying, time_of
from gateway.canonical import Operation
from gateway.dialect import Dialect, Outbound, Route, segment
from gateway.errors import USUAL_STATUS, Problem, ProblemKind, invalid
from gateway.mapping.rows import Writing
from gateway.outcome import Json, Request
from mappings.ibm_monitoring import calls
from mappings.ibm_monitoring.alert import NAME, PAGE, RULE, Alerts, Channels, Envelope, OneChannel

CHANNELS_PAGE = "https://cloud.ibm.com/docs/monitoring?topic=monitoring-notifications_api"

# --- routes ------------------------------------------------------------------------------------------------


def _unwrapped(incoming: Incoming) -> tuple[dict[str, Json], str]:
    """Returns the alert in a body, which may be wrapped, bare, or in a list of one, and the prefix of its fields in
    errors."""
    body = body_object(incoming)
    if isinstance(body.get("alerts"), list) and len(body["alerts"]) == 1:
        body = body["alerts"][0] if isinstance(body["alerts"][0], dict) else {"alert": body["alerts"][0]}
    if "alert" not in body:
        return body, ""
    if not isinstance(body["alert"], dict):
        raise invalid("alert", "expected an object")
    return body["alert"], "alert"


def _create(incoming: Incoming) -> Command:
    alert, prefix = _unwrapped(incoming)
    if alert.get("id") is not None or alert.get("version") is not None:
        raise invalid("id", "Alert ID and version must be null")
    reading = RULE.read(alert, prefix=prefix)
    _check_manual(alert)
    return saying(Operation.CREATE, reading)


def _check_manual(alert: dict[str, Json]) -> None:
    """Checks what a MANUAL alert must have; the SDK leaves `segmentCondition` out where there is no `segmentBy`."""
    if alert["type"] != "MANUAL":
        return
    for name in ("condition", "timespan"):
        if alert.get(name) in (None, ""):
            raise invalid(name, "is required for a MANUAL alert")
    if alert.get("segmentBy") and not alert.get("segmentCondition"):
        raise invalid("segmentCondition", "is required for a MANUAL alert with segmentBy")


def _update(incoming: Incoming) -> Command:
    alert, prefix = _unwrapped(incoming)
    reading = RULE.read(alert, partial=True, prefix=prefix)
    if alert.get("id") is not None and str(alert["id"]) != incoming.params["id"]:
        raise invalid("id", "differs from the id in the path")
    return saying(Operation.UPDATE, reading, ref=Ref(id=incoming.params["id"]), version=alert.get("version"))


def _list(incoming: Incoming) -> Listing:
    return Listing(since=time_of(incoming, "from"), before=time_of(incoming, "to"), choose=_all_of_them)


def _all_of_them(shown: Shown) -> Chosen:
    return Chosen(worded=_shown(shown))


SOON = 10
"""Seconds after which a caller may ask again where the service could not be asked."""


def _unheard() -> Problem:
    """The refusal where the service cannot be asked for its channels. An empty list would be believed: a caller that
    looks up whom a rule is to notify would make one that notifies nobody, and one that keeps channels would make them
    anew."""
    return Problem(
        ProblemKind.OVERLOADED,
        "the notification channels could not be read from the service; try again later",
        retry_after=SOON,
    )


def _channels(incoming: Incoming) -> Relay:
    """Asks for all channels: the SDK looks them up before it creates alerts; without IBM behind there are none to
    choose from."""
    return Relay(
        Request(method="GET", path="/api/notificationChannels", is_list=True),
        Reply(200, {"notificationChannels": []}),
        unheard=_unheard(),
    )


def _channel(incoming: Incoming) -> Relay:
    """Asks for one channel: callers that keep channels and rules in one place check whether it is still there."""
    return Relay(
        Request(
            method="GET", path=f"/api/notificationChannels/{segment(incoming.params['id'])}", accepts=frozenset({404})
        ),
        Problem(ProblemKind.NO_SUCH_PATH, "there is no such notification channel"),
        unheard=_unheard(),
    )


def _shown(shown: Shown) -> dict[str, Json]:
    """Words an alert. Where clients sent null for a field that always has a value, the default is shown."""
    number: Json = int(shown.id) if shown.id.isdigit() else shown.id
    whole = RULE.write(shown.flat, Writing(), side="reply")
    usual = {"autoCreated": False, "enabled": True, "notificationCount": 0, "rateOfChange": False, "reNotify": False}
    told = {name: value for name, value in whole.items() if value is not None or name not in usual}
    return {"id": number, "version": shown.version, **usual, **told}


def _answer_one(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(200, {"alert": _shown(answer.shown)})


def _answer_list(answer: Answer) -> Reply:
    """A flat list, as the SDK and the service's own conventions have it; the page's wrapped one is only read."""
    return Reply(200, {"alerts": list(answer.worded)})


def _answer_deleted(answer: Answer) -> Reply:
    return Reply(204)


def _sample_channels(answer: Answer) -> Reply:
    """For the description of the API alone: what is relayed is answered as it came."""
    return Reply(200, {"notificationChannels": []})


def _sample_channel(answer: Answer) -> Reply:
    """The same for one channel."""
    return Reply(200, {"notificationChannel": {"id": 1, "type": "EMAIL", "name": "on call"}})


def _route(
    method: str,
    path: str,
    operation: Operation,
    read: Callable[[Incoming], Asked],
    answer: Callable[[Answer], Reply],
    summary: str,
    **more: Any,
) -> Route:
    return Route(
        method=method,
        path=path,
        operations=(operation,),
        read=read,
        answer=answer,
        summary=summary,
        source=PAGE,
        **more,
    )


def _routes(prefix: str) -> tuple[Route, ...]:
    """Returns the routes under a prefix: the page's own commands lead to `/api/api/alerts` if its endpoint is taken
    literally."""
    alerts, alert = f"{prefix}/alerts", f"{prefix}/alerts/{{id}}"
    span, both = ("from", "to"), {"returns": Envelope, "body": Envelope}
    details, delete = "Get details about a user alert", by_id(Operation.DELETE)
    return (
        _route("GET", alerts, Operation.LIST, _list, _answer_list, "Get all user alerts", returns=Alerts, query=span),
        _route("POST", alerts, Operation.CREATE, _create, _answer_one, "Create an alert", **both),
        _route("GET", alert, Operation.READ, read_by_id, _answer_one, details, returns=Envelope),
        _route("PUT", alert, Operation.UPDATE, _update, _answer_one, "Update an alert", **both),
        _route("DELETE", alert, Operation.DELETE, delete, _answer_deleted, "Delete an alert", success=204),
    )


CHANNELS = Route(
    method="GET",
    path="/api/notificationChannels",
    operations=(),
    read=_channels,
    answer=_sample_channels,
    summary="List notification channels",
    returns=Channels,
    source=CHANNELS_PAGE,
)

CHANNEL = Route(
    method="GET",
    path="/api/notificationChannels/{id}",
    operations=(),
    read=_channel,
    answer=_sample_channel,
    summary="Get a notification channel",
    returns=OneChannel,
    source=CHANNELS_PAGE,
)

# --- words -------------------------------------------------------------------------------------------------

REASONS: dict[ProblemKind, str] = {
    ProblemKind.UNAUTHORIZED: "Unauthorized access",
    ProblemKind.NOT_FOUND: "The alert ID is not recognized",
    ProblemKind.CONFLICT: "There is a version mismatch",
    ProblemKind.NAME_TAKEN: "The alert name is not valid",
    ProblemKind.NO_SUCH_PATH: "Not Found",
    ProblemKind.METHOD_NOT_ALLOWED: "Method Not Allowed",
    ProblemKind.TOO_LARGE: "Payload Too Large",
    ProblemKind.RATE_LIMITED: "Too Many Requests",
    ProblemKind.OVERLOADED: "Service Unavailable",
    ProblemKind.INTERNAL: "Internal Server Error",
}


def _problem(problem: Problem) -> Reply:
    """The service's application error, which its SDK and its Terraform provider both read."""
    reason = REASONS.get(problem.kind, "The alert configuration is not valid")
    return Reply(USUAL_STATUS[problem.kind], {"errors": [{"reason": reason, "message": problem.message}]})


DIALECT = Dialect(
    name=NAME,
    title="IBM Cloud Monitoring",
    source=PAGE,
    kind="rule",
    mapping=RULE,
    routes=(*_routes("/api"), *_routes("/api/api"), CHANNELS, CHANNEL),
    outbound=Outbound(
        addressed_by="id",
        calls={
            Operation.CREATE: calls.create,
            Operation.UPDATE: calls.update,
            Operation.RESOLVE: calls.disable,
            Operation.REOPEN: calls.enable,
            Operation.DELETE: calls.delete,
        },
        authorise=Request.with_bearer,  # `IBMInstanceID` and the team are configured headers
        exchange=calls.exchange,
        reason=calls.reason,
        on_resolve="disable",
        read=calls.read_one,
        list=calls.read_all,
        probe=Request(method="GET", path="/api/alerts"),
    ),
    credentials=bearer,
    problem=_problem,
    shown_id=str,
    reply="delivered",
    settings=calls.Settings,
    has_status=False,
    unique_names=True,
    usual_defaults={"condition.expression": "avg(timeAvg(uptime)) <= 0"},
    url="https://eu-de.monitoring.cloud.ibm.com",
    client_setting="`sdc_url` (or `SDC_URL`) → `http://gateway/ibm_monitoring`, the token in `SDC_TOKEN`",
    remark=(
        "`eu-de` in it is a region. An upstream's credential is `iam_key`, an IAM API key with the instance's "
        "id in `headers = { IBMInstanceID = … }`, or `key`, a Monitoring API token."
    ),
)
