"""LiveSession's alerts API: rules over what visitors do.

Source: https://developers.livesession.io and the official OpenAPI description in livesession/livesession-docs
(`api/rest/openapi.yaml`). It must not know what stands behind the gateway.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.asked import Answer, Chosen, Command, Incoming, Listing, Ref, Reply, Shown
from gateway.asking import bearer, body_object, by_id, saying
from gateway.canonical import Channel, Flat, Operation, Trigger
from gateway.dialect import Dialect, Outbound, Route, segment
from gateway.errors import USUAL_STATUS, Problem, ProblemKind, invalid
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import TIME
from gateway.outcome import Call, Delivered, Found, FoundAlert, Json, Missing, Rejected, Request, Response, Sending

PAGE = "https://developers.livesession.io/docs/api/rest/alerts"
NAME = "livesession"
CUSTOM_EVENT = 26

# --- wire structs ------------------------------------------------------------------------------------------


class Event(Struct, kw_only=True):
    """Something a visitor's session shows. `kind` is an EventKind number, `value` what it is compared with."""

    kind: Annotated[int, Meta(ge=-(2**53), le=2**53)] | UnsetType = UNSET
    value: str | int | float | bool | UnsetType = UNSET


class Alert(Struct, kw_only=True):
    """An alert as created, with the fields that the service adds. `provider` says which target id counts."""

    name: Annotated[str, Meta(min_length=1)]
    events: list[Event]
    provider: Literal["slack", "webhooks"]
    slack_channel_id: str | UnsetType | None = UNSET
    webhook_id: str | UnsetType | None = UNSET
    alert_id: str | UnsetType = UNSET
    enabled: bool | UnsetType | None = UNSET
    creation_date: str | UnsetType | None = UNSET


class Deleted(Struct, kw_only=True):
    """The answer to a delete."""

    alert_id: str
    deleted: bool


# --- value tables ------------------------------------------------------------------------------------------

PROVIDERS = {"slack": ("slack", "slack_channel_id"), "webhooks": ("webhook", "webhook_id")}
TARGET = ("provider", *(name for _, name in PROVIDERS.values()))
WORDS = {kind: provider for provider, (kind, _) in PROVIDERS.items()}


def _read_events(events: list[dict[str, Json]]) -> tuple[Any]:
    return (tuple(Trigger(kind=event.get("kind", UNSET), value=_text(event.get("value", UNSET))) for event in events),)


def _text(value: Any) -> Any:
    """Returns a value as text. The page calls it a threshold, though it is a string; numbers and booleans are taken."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if value is UNSET or isinstance(value, str) else str(value)


def _write_events(writing: Writing, triggers: tuple[Trigger, ...] | None) -> tuple[Any]:
    """Returns triggers as events, each with its kind, if that is a number, and its value, if that is a text."""
    return ([_event(trigger) for trigger in triggers or ()],)


def _event(trigger: Trigger) -> dict[str, Json]:
    event: dict[str, Json] = {}
    if isinstance(trigger.kind, int):
        event["kind"] = trigger.kind
    if isinstance(trigger.value, str):
        event["value"] = trigger.value
    return event


def _custom_event(flat: Flat, writing: Writing) -> tuple[Any]:
    value = flat.get("dedup_key") or flat.get("summary") or headline(flat, writing)[0]
    return ([{"kind": CUSTOM_EVENT, "value": value}],)


def _read_target(provider: Any, slack: Any, webhook: Any) -> tuple[Any, ...]:
    """Returns the channel that `provider` names; the other id is kept as it is. An update may leave out any of them:
    see `_amended`."""
    given = {"slack": slack, "webhooks": webhook}
    if provider is UNSET or given[provider] in (UNSET, None, ""):
        return UNSET, UNSET, UNSET
    channel = Channel(kind=PROVIDERS[provider][0], id=given[provider], dialect=NAME)
    return (channel,), *(UNSET if word == provider else given[word] for word in PROVIDERS)


def _check_target(body: dict[str, Json]) -> None:
    """Checks that the id that `provider` requires is there."""
    name = PROVIDERS[body["provider"]][1]
    if not body.get(name):
        raise invalid(name, f"is required if provider is {body['provider']}")


def _write_target(writing: Writing, channels: Any, slack: Any, webhook: Any) -> tuple[Any, ...]:
    """Returns the first channel that LiveSession knows."""
    for channel in channels or ():
        if channel.dialect == NAME and channel.id and channel.kind in WORDS:
            provider = WORDS[channel.kind]
            others = {"slack": slack, "webhooks": webhook, provider: channel.id}
            return provider, others["slack"], others["webhooks"]
    return UNSET, UNSET, UNSET


# --- rows --------------------------------------------------------------------------------------------------

RULE = Mapping(
    NAME,
    "rule",
    Alert,
    rows=(
        Dropped("alert_id", why="identifies the alert; not part of its content", control=True),
        row("name", "summary", required=True, fallback=headline, why="taken from details, category or key"),
        joint(
            ["events"],
            ["condition.triggers"],
            read=_read_events,
            write=_write_events,
            required=True,
            fallback=_custom_event,
            why="a custom event named after the alert's key or name",
        ),
        joint(
            ["provider", "slack_channel_id", "webhook_id"],
            ["channels", "extensions.livesession.slack_channel_id", "extensions.livesession.webhook_id"],
            read=_read_target,
            write=_write_target,
            required=True,
            why="one channel, of a kind that LiveSession has",
        ),
        row("enabled", "enabled", side="reply", why="a rule cannot be disabled there"),
        row("creation_date", "created_at", TIME, side="reply"),
    ),
    implied={"enabled": True},
)

# --- routes ------------------------------------------------------------------------------------------------


def _body(incoming: Incoming) -> dict[str, Json]:
    """Returns the body, with the provider `webhook` taken for the documented `webhooks`."""
    body = body_object(incoming)
    return {**body, "provider": "webhooks"} if body.get("provider") == "webhook" else body


def _create(incoming: Incoming) -> Command:
    body = _body(incoming)
    if body.get("provider") == "":
        raise invalid("provider", "is required")
    reading = RULE.read(body)
    _check_target(body)
    if not body["events"]:
        raise invalid("events", "is required: at least one event")
    return saying(Operation.CREATE, reading)


def _update(incoming: Incoming) -> Command:
    body = _body(incoming)
    reading = RULE.read(body, partial=True)
    if body.get("alert_id", incoming.params["id"]) != incoming.params["id"]:
        raise invalid("alert_id", "differs from the id in the path")
    return saying(
        Operation.UPDATE,
        reading,
        ref=Ref(id=incoming.params["id"]),
        amend=lambda record: _amended(body, record),
    )


def _amended(body: dict[str, Json], record: Flat) -> Flat:
    """Returns the target after an update that does not say all of it: the rest is the record's."""
    said = {name: body[name] for name in TARGET if name in body}
    if not said or ("provider" in said and said.get(PROVIDERS[said["provider"]][1])):
        return {}
    own = [channel for channel in record.get("channels") or () if channel.dialect == NAME and channel.kind in WORDS]
    kept = {name: record[path] for name in TARGET[1:] if (path := f"extensions.{NAME}.{name}") in record}
    if own:
        provider = WORDS[own[0].kind]
        kept |= {"provider": provider, PROVIDERS[provider][1]: own[0].id}
    whole = {"provider": "slack" if said.get("slack_channel_id") else "webhooks", **kept, **said}
    _check_target(whole)
    return RULE.interpret(whole).flat


def _list(incoming: Incoming) -> Listing:
    return Listing(choose=lambda shown: Chosen(worded=_shown(shown)))


def _shown(shown: Shown) -> dict[str, Json]:
    whole = RULE.write(shown.flat, Writing(), side="reply")
    return {"alert_id": shown.id, "enabled": True, **whole}


def _answer_created(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(201, _shown(answer.shown))


def _answer_updated(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(200, _shown(answer.shown))


def _answer_deleted(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(200, {"alert_id": answer.shown.id, "deleted": True})


def _answer_list(answer: Answer) -> Reply:
    return Reply(200, list(answer.worded))


ROUTES = (
    Route(
        method="POST",
        path="/v1/alerts",
        operations=(Operation.CREATE,),
        read=_create,
        answer=_answer_created,
        summary="Create an alert",
        returns=Alert,
        source=PAGE,
        body=Alert,
        success=201,
    ),
    Route(
        method="GET",
        path="/v1/alerts",
        operations=(Operation.LIST,),
        read=_list,
        answer=_answer_list,
        summary="List alerts",
        returns=list[Alert],
        source=PAGE,
    ),
    Route(
        method="PUT",
        path="/v1/alerts/{id}",
        operations=(Operation.UPDATE,),
        read=_update,
        answer=_answer_updated,
        summary="Update an alert",
        returns=Alert,
        source=PAGE,
        body=RULE.partial,
    ),
    Route(
        method="DELETE",
        path="/v1/alerts/{id}",
        operations=(Operation.DELETE,),
        read=by_id(Operation.DELETE),
        answer=_answer_deleted,
        summary="Delete an alert",
        returns=Deleted,
        source=PAGE,
    ),
)

# --- words -------------------------------------------------------------------------------------------------

TYPES: dict[ProblemKind, str] = {
    ProblemKind.UNAUTHORIZED: "authentication_error",
    ProblemKind.NOT_FOUND: "not_found_error",
    ProblemKind.NO_SUCH_PATH: "not_found_error",
    ProblemKind.RATE_LIMITED: "rate_limit_error",
    ProblemKind.INTERNAL: "api_error",
    ProblemKind.OVERLOADED: "api_error",
}


def _problem(problem: Problem) -> Reply:
    """Words a problem in the one envelope that the page shows, which is used for every status."""
    status = USUAL_STATUS[problem.kind]
    error = {
        "type": TYPES.get(problem.kind, "validation_error"),
        "code": problem.kind.value,
        "param": problem.field,
        "message": problem.message,
        "http_status_code": status,
        "request_id": problem.request,
    }
    return Reply(status, {"error": error})


# --- calls -------------------------------------------------------------------------------------------------


def _path(sending: Sending) -> str:
    return f"/v1/alerts/{segment(sending.ids.get('id', '{id}'))}"


def _send_create(sending: Sending) -> Call:
    answer = yield Request(method="POST", path="/v1/alerts", body=sending.body, creates=True)
    found = answer.object().get("alert_id")
    return Delivered(ids={"id": str(found)} if found else {})


def _send_update(sending: Sending) -> Call:
    answer = yield Request(method="PUT", path=_path(sending), body=sending.patch, accepts=frozenset({404}))
    return Missing() if answer.status == 404 else Delivered()


def _send_delete(sending: Sending) -> Call:
    answer = yield Request(method="DELETE", path=_path(sending), accepts=frozenset({404}))
    return Missing() if answer.status == 404 else Delivered()


def _all(answer: Response) -> tuple[FoundAlert, ...] | None:
    body = answer.json()
    if not isinstance(body, list):
        return None
    return tuple(
        FoundAlert(id=str(item["alert_id"]), flat=RULE.found(item))
        for item in body
        if isinstance(item, dict) and item.get("alert_id")
    )


def _read_all(sending: Sending) -> Call:
    found = _all((yield Request(method="GET", path="/v1/alerts", is_list=True)))
    return Rejected(reason="the list could not be read") if found is None else Found(found)


def _read_one(sending: Sending) -> Call:
    """Reads one alert out of the list, as the API has no call for it."""
    found = _all((yield Request(method="GET", path="/v1/alerts", is_list=True)))
    if found is None:
        return Rejected(reason="the list could not be read")
    own = tuple(alert for alert in found if alert.id == sending.ids.get("id"))
    return Found(own) if own else Missing()


def _reason(response: Response) -> str:
    error = response.object("error")
    return ": ".join(str(error[key]) for key in ("code", "param", "message") if error.get(key))


DIALECT = Dialect(
    name=NAME,
    title="LiveSession",
    source=PAGE,
    kind="rule",
    mapping=RULE,
    routes=ROUTES,
    outbound=Outbound(
        addressed_by="id",
        published_rate=120,  # two a second for a token: the REST API's introduction
        calls={
            Operation.CREATE: _send_create,
            Operation.UPDATE: _send_update,
            Operation.DELETE: _send_delete,
        },
        nearest={Operation.RESOLVE: Operation.DELETE, Operation.REOPEN: Operation.CREATE},
        authorise=Request.with_bearer,
        reason=_reason,
        on_resolve="delete",
        read=_read_one,
        list=_read_all,
        probe=Request(method="GET", path="/v1/alerts"),
    ),
    credentials=bearer,
    problem=_problem,
    shown_id=str,
    reply="delivered",
    has_status=False,
    usual_defaults={"channels": [{"kind": "slack", "id": "C042"}]},
    url="https://api.livesession.io",
    client_setting="the base URL `https://api.livesession.io/v1` → `http://gateway/livesession/v1`",
    remark="An upstream's `key` is an API token.",
)
