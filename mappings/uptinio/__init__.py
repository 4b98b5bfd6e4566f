"""Uptinio's alerts API: an occurrence with some of the rule that raised it.

Source: https://app.uptinio.com/docs/api/alerts.html; authentication and the error envelope from the same
documentation's authentication page. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.asked import Answer, Command, Incoming, Listing, Ref, Reply, Shown
from gateway.asking import bearer, body_object, one, read_by_id, saying, whole_number
from gateway.canonical import Channel, Flat, Notification, Operation
from gateway.codes import Code
from gateway.dialect import Dialect, Outbound, Route, segment
from gateway.errors import USUAL_STATUS, Problem, ProblemKind, invalid
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import Pair, each, iso_seconds, read_time
from gateway.outcome import (
    Again,
    Call,
    Delivered,
    Found,
    FoundAlert,
    Held,
    Json,
    Missing,
    Outcome,
    Rejected,
    Request,
    Response,
    Sending,
)

PAGE = "https://app.uptinio.com/docs/api/alerts.html"
NAME = "uptinio"
LONGEST = 10**9
"""The longest `threshold.duration`, in seconds, some thirty years; a longer one of another vendor is cut to it."""

# --- wire structs ------------------------------------------------------------------------------------------


class Threshold(Struct, kw_only=True):
    """The limit that was passed. The unit of `value` depends on the alert's type; `duration` is in seconds."""

    value: int | float | UnsetType | None = UNSET
    operator: str | UnsetType | None = UNSET
    duration: Annotated[int, Meta(ge=0, le=LONGEST)] | Annotated[float, Meta(ge=0, le=LONGEST)] | UnsetType | None = (
        UNSET
    )


class Notified(Struct, kw_only=True):
    """A notification that was sent for an alert."""

    channel: str
    sent_at: str | UnsetType = UNSET
    status: str | UnsetType = UNSET


class Alert(Struct, kw_only=True):
    """An alert as created, with the fields that the service adds."""

    monitor_id: str
    type: Literal["down", "up", "slow", "error", "custom"]
    message: str | UnsetType | None = UNSET
    channels: list[Literal["email", "slack", "webhook", "sms"]] | UnsetType | None = UNSET
    threshold: Threshold | UnsetType | None = UNSET
    id: str | UnsetType = UNSET
    status: Literal["active", "resolved"] | UnsetType = UNSET
    created_at: str | UnsetType = UNSET
    resolved_at: str | UnsetType | None = UNSET
    notifications: list[Notified] | UnsetType | None = UNSET


class One(Struct, kw_only=True):
    """The envelope of one alert."""

    data: Alert


class Paging(Struct, kw_only=True):
    """The number and size of the page, and how many alerts there are in all."""

    page: int
    per_page: int
    total: int


class Page(Struct, kw_only=True):
    """The envelope of a list."""

    data: list[Alert]
    meta: Paging


# --- value tables ------------------------------------------------------------------------------------------

TYPES = ("down", "up", "slow", "error", "custom")
CHANNELS = ("email", "slack", "webhook", "sms")
STATUS = Pair(
    {"active": "firing", "resolved": "resolved"}.__getitem__,
    {"firing": "active", "acknowledged": "active", "resolved": "resolved"}.__getitem__,
)
SECONDS = Pair(read_time, iso_seconds)
NO_THRESHOLD: Flat = dict.fromkeys(("condition.threshold", "condition.operator", "condition.window"))
"""What an update with `threshold: null` clears."""


def _read_type(word: str | None) -> tuple[Any]:
    return (word,)


def _write_type(writing: Writing, category: str | None) -> tuple[Any]:
    return (category if category in TYPES else UNSET,)


def _custom(flat: Any, writing: Writing) -> tuple[str]:
    return ("custom",)


def _read_channels(kinds: list[str] | None) -> tuple[Any]:
    return (None if kinds is None else tuple(Channel(kind=kind) for kind in kinds),)


def _write_channels(writing: Writing, channels: tuple[Channel, ...] | None) -> tuple[Any]:
    if channels is None:
        return (None,)
    kinds = [channel.kind for channel in channels if channel.kind in CHANNELS]
    return (kinds if kinds or not channels else UNSET,)


# --- rows --------------------------------------------------------------------------------------------------

ALERT = Mapping(
    NAME,
    "occurrence",
    Alert,
    rows=(
        Dropped("id", why="identifies the alert; not part of its content", control=True),
        row("monitor_id", "resource", required=True),
        joint(
            ["type"],
            ["category"],
            read=_read_type,
            write=_write_type,
            required=True,
            fallback=_custom,
            why="not one of Uptinio's five types",
        ),
        row("status", "status", STATUS, side="reply"),
        row("message", "summary", required=True, fallback=headline, why="taken from details, category or key"),
        joint(["channels"], ["channels"], read=_read_channels, write=_write_channels, side="request"),
        row("threshold.value", "condition.threshold", side="request"),
        row("threshold.operator", "condition.operator", side="request"),
        row("threshold.duration", "condition.window", side="request", fit=lambda seconds: min(seconds, LONGEST)),
        row("created_at", "created_at", SECONDS, side="reply"),
        row("resolved_at", "resolved_at", SECONDS, side="reply"),
        row(
            "notifications",
            "notifications",
            each(Notification, read={"channel": "channel", "sent_at": "sent_at", "status": "outcome"}),
            side="reply",
        ),
    ),
)

# --- routes ------------------------------------------------------------------------------------------------


def _create(incoming: Incoming) -> Command:
    return saying(Operation.CREATE, ALERT.read(body_object(incoming)))


def _update(incoming: Incoming) -> Command:
    body = body_object(incoming)
    reading = ALERT.read(body, partial=True)
    if body.get("id", incoming.params["id"]) != incoming.params["id"]:
        raise invalid("id", "differs from the id in the path")
    operations = {"resolved": Operation.RESOLVE, "active": Operation.REOPEN}
    return Command(
        operation=operations.get(body.get("status", ""), Operation.UPDATE),
        ref=Ref(id=incoming.params["id"]),
        patch={**reading.flat, **(NO_THRESHOLD if body.get("threshold", UNSET) is None else {})},
        verbatim={**reading.verbatim, **({"status": body["status"]} if "status" in body else {})},
        dropped=reading.dropped,
    )


def _list(incoming: Incoming) -> Listing:
    page = whole_number(incoming, "page", 1, least=1, most=10**9)
    per_page = min(whole_number(incoming, "per_page", 20, least=1), 100)
    status = one(incoming, "status") or None
    statuses = {None: (), "active": ("firing", "acknowledged"), "resolved": ("resolved",)}
    if status not in statuses:
        raise invalid("status", f"{status!r} is neither active nor resolved")
    return Listing(
        statuses=statuses[status],
        resource=one(incoming, "monitor_id") or None,
        offset=(page - 1) * per_page,
        limit=per_page,
        page={"page": page, "per_page": per_page},
    )


def _shown(shown: Shown, *leaves: str) -> dict[str, Json]:
    whole = ALERT.write(shown.flat, Writing(), side="reply")
    whole["id"] = shown.id
    return {leaf: whole.get(leaf) for leaf in ("id", "monitor_id", "type", "status", "message", "created_at", *leaves)}


def _answer_created(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(201, {"data": _shown(answer.shown)})


def _answer_details(answer: Answer) -> Reply:
    assert answer.shown
    details = _shown(answer.shown, "resolved_at", "notifications")
    return Reply(200, {"data": {**details, "notifications": details["notifications"] or []}})


def _answer_updated(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(200, {"data": _shown(answer.shown, "resolved_at")})


def _answer_list(answer: Answer) -> Reply:
    assert answer.listing
    meta = {**answer.listing.page, "total": answer.total}
    return Reply(200, {"data": [_shown(shown) for shown in answer.listed], "meta": meta})


def _routes(prefix: str, *, side: bool) -> tuple[Route, ...]:
    everywhere: dict[str, Any] = {"source": PAGE, "side": side}
    return (
        Route(
            method="GET",
            path=f"{prefix}/alerts",
            operations=(Operation.LIST,),
            read=_list,
            answer=_answer_list,
            summary="List alerts",
            returns=Page,
            query=("page", "per_page", "status", "monitor_id"),
            **everywhere,
        ),
        Route(
            method="POST",
            path=f"{prefix}/alerts",
            operations=(Operation.CREATE,),
            read=_create,
            answer=_answer_created,
            summary="Create an alert",
            returns=One,
            body=Alert,
            success=201,
            **everywhere,
        ),
        Route(
            method="GET",
            path=f"{prefix}/alerts/{{id}}",
            operations=(Operation.READ,),
            read=read_by_id,
            answer=_answer_details,
            summary="Get an alert",
            returns=One,
            **everywhere,
        ),
        Route(
            method="PUT",
            path=f"{prefix}/alerts/{{id}}",
            operations=(Operation.UPDATE, Operation.RESOLVE, Operation.REOPEN),
            read=_update,
            answer=_answer_updated,
            summary="Update, resolve or reopen an alert",
            returns=One,
            body=ALERT.partial,
            **everywhere,
        ),
    )


# --- words -------------------------------------------------------------------------------------------------

CODES: dict[ProblemKind, str] = {
    ProblemKind.UNAUTHORIZED: "invalid_api_key",
    ProblemKind.NOT_FOUND: "alert_not_found",
    ProblemKind.NO_SUCH_PATH: "not_found",
    ProblemKind.METHOD_NOT_ALLOWED: "method_not_allowed",
    ProblemKind.RATE_LIMITED: "rate_limit",
    ProblemKind.INTERNAL: "internal_error",
    ProblemKind.OVERLOADED: "service_unavailable",
}
TEXTS: dict[ProblemKind, str] = {
    ProblemKind.UNAUTHORIZED: "The provided API key is invalid",
    ProblemKind.NOT_FOUND: "The specified alert does not exist",
    ProblemKind.RATE_LIMITED: "Too many requests",
}


def _problem(problem: Problem) -> Reply:
    code = CODES.get(problem.kind, "invalid_request")
    message = TEXTS.get(problem.kind) or problem.message
    return Reply(USUAL_STATUS[problem.kind], {"error": {"code": code, "message": message}})


# --- calls -------------------------------------------------------------------------------------------------


def _id_in(response: Response) -> dict[str, str]:
    found = response.object("data").get("id")
    return {"id": str(found)} if found is not None else {}


OPEN = frozenset({400, 422})
"""Statuses that leave open what a refusal is about: the pages list codes, and no status for any of them."""
TOO_MANY = ("rate_limit", "rate_limit_exceeded")
OF_THE_KEY = ("invalid_api_key", "expired_api_key")


def _refused(answer: Response) -> Outcome:
    """Returns what a refusal with one of the `OPEN` statuses is, by its code."""
    why = f"{answer.status} {_reason(answer)}".strip()
    code = _reason(answer).partition(":")[0]
    if code in TOO_MANY:
        return Again(reason=why, code=Code.THROTTLED)
    return Held(why, answer.status) if code in OF_THE_KEY else Rejected(reason=why)


def _send_create(sending: Sending) -> Call:
    answer = yield Request(method="POST", path="/alerts", body=sending.body, creates=True, accepts=OPEN)
    return _refused(answer) if answer.status in OPEN else Delivered(ids=_id_in(answer))


def _path(sending: Sending) -> str:
    return f"/alerts/{segment(sending.ids.get('id', '{id}'))}"


def _put(sending: Sending, body: dict[str, Json]) -> Call:
    answer = yield Request(method="PUT", path=_path(sending), body=body, accepts=OPEN | {404})
    if answer.status in OPEN:
        return _refused(answer)
    return Missing() if answer.status == 404 else Delivered()


def _send_update(sending: Sending) -> Call:
    return (yield from _put(sending, sending.patch))


def _send_resolve(sending: Sending) -> Call:
    return (yield from _put(sending, {"status": "resolved", **sending.patch}))


def _send_reopen(sending: Sending) -> Call:
    return (yield from _put(sending, {"status": "active", **sending.patch}))


def _found(item: Json) -> FoundAlert:
    return FoundAlert(id=str(item.get("id")), flat=ALERT.found(item))


def _read_one(sending: Sending) -> Call:
    answer = yield Request(method="GET", path=_path(sending), accepts=frozenset({404}), is_list=True)
    if answer.status == 404:
        return Missing()
    data = answer.object("data")
    if data.get("id") is None:
        return Rejected(reason="the alert could not be read")  # which does not say that it is gone
    return Found((_found(data),))


MOST_PAGES = 100
"""At the vendor's hundred calls a minute these take a minute; nobody waits for more."""


def _read_all(sending: Sending) -> Call:
    """Reads page after page, until as many are found as the vendor counts, or a page brings nothing new."""
    found: dict[str, FoundAlert] = {}
    for page in range(1, MOST_PAGES + 1):
        query = {"page": str(page), "per_page": "100"}
        answer = yield Request(method="GET", path="/alerts", query=query, is_list=True)
        body = answer.object()
        items, meta = body.get("data"), body.get("meta")
        if not isinstance(items, list):
            return Rejected(reason="the list could not be read")
        known = len(found)
        listed = [_found(item) for item in items if isinstance(item, dict) and item.get("id") is not None]
        found |= {alert.id: alert for alert in listed if alert.id not in found}
        counted = meta if isinstance(meta, dict) else {}
        total = str(counted.get("total", counted.get("total_count", 0)))
        if len(found) == known or not total.isdecimal() or len(found) >= int(total[:18]):
            return Found(tuple(found.values()))
    return Found(tuple(found.values()), is_part=True)


def _reason(response: Response) -> str:
    error = response.object("error")
    return ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))


DIALECT = Dialect(
    name=NAME,
    title="Uptinio",
    source=PAGE,
    kind="occurrence",
    mapping=ALERT,
    routes=_routes("", side=False) + _routes("/v1", side=True),
    outbound=Outbound(
        addressed_by="id",
        published_rate=100,  # for a key of a standard account: the page on authentication
        calls={
            Operation.CREATE: _send_create,
            Operation.UPDATE: _send_update,
            Operation.RESOLVE: _send_resolve,
            Operation.REOPEN: _send_reopen,
        },
        nearest={Operation.DELETE: Operation.RESOLVE},
        authorise=Request.with_bearer,
        reason=_reason,
        read=_read_one,
        list=_read_all,
        probe=Request(method="GET", path="/alerts", query={"per_page": "1"}),
    ),
    credentials=bearer,
    problem=_problem,
    shown_id=lambda number: f"alt_{number}",
    reply="delivered",
    usual_defaults={"resource": "mon_123"},
    url="https://api.uptinio.com/v1",
    client_setting="the API's base URL, `https://api.uptinio.com/v1` → `http://gateway/uptinio`",
    remark="An upstream's `key` is an API key.",
)
