"""PagerDuty's Events API v2: occurrences, addressed by key, and change events beside them, which page nobody.

Source: https://developer.pagerduty.com/docs/events-api-v2/overview/ and the pages on alert and change events beside
it. Calls are in `calls`, faults of a request and the answers that name them in `words`; `first` turns events of v1 into
v2's. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field, structs

from gateway.asked import Answer, Command, Incoming, Ref, Reply
from gateway.asking import body_object, in_place, saying
from gateway.canonical import QUIET_CATEGORY, Flat, Image, Link, Operation
from gateway.dialect import Dialect, Outbound, Route
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Dropped, Extension, Writing, joint, row
from gateway.mapping.table import Mapping, Reading
from gateway.mapping.values import Pair, Scale, each
from gateway.outcome import Json
from mappings.pagerduty import first
from mappings.pagerduty.calls import CHANGE, LONGEST_SUMMARY, SEND, authorise, fitted_key, https_only, with_address
from mappings.pagerduty.words import (
    TEXT,
    credential_faults,
    problem,
    reason,
    refuse_alert,
    refuse_change,
    with_details,
)

OVERVIEW = "https://developer.pagerduty.com/docs/events-api-v2/overview/"
PAGE = "https://developer.pagerduty.com/docs/events-api-v2/trigger-events/"
CHANGES = "https://developer.pagerduty.com/docs/events-api-v2/send-change-events/"
NAME = "pagerduty"

# --- wire structs ------------------------------------------------------------------------------------------


class ImageLink(Struct, kw_only=True):
    """An image shown beside the incident; it must be served via HTTPS."""

    src: str
    href: str | UnsetType | None = UNSET
    alt: str | UnsetType | None = UNSET


class WebLink(Struct, kw_only=True):
    """A link attached to the incident."""

    href: str
    text: str | UnsetType | None = UNSET


class Payload(Struct, kw_only=True):
    """What is wrong, in the common event format of the vendor."""

    summary: Annotated[str, Meta(min_length=1)]
    source: Annotated[str, Meta(min_length=1)]
    severity: Literal["critical", "error", "warning", "info"]
    timestamp: str | UnsetType = UNSET
    component: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    class_: str | UnsetType = field(default=UNSET, name="class")
    custom_details: dict[str, Any] | UnsetType = UNSET


class Event(Struct, kw_only=True):
    """An alert event, as posted. Only a trigger has a payload; only a trigger may leave the key out."""

    event_action: Literal["trigger", "acknowledge", "resolve"]
    routing_key: str | UnsetType = UNSET
    dedup_key: str | UnsetType = UNSET
    payload: Payload | UnsetType = UNSET
    client: str | UnsetType = UNSET
    client_url: str | UnsetType = UNSET
    links: list[WebLink] | UnsetType = UNSET
    images: list[ImageLink] | UnsetType = UNSET


class ChangePayload(Struct, kw_only=True):
    """What was changed."""

    summary: Annotated[str, Meta(min_length=1)]
    source: str | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET
    custom_details: dict[str, Any] | UnsetType = UNSET


class ChangeEvent(Struct, kw_only=True):
    """A change event, as posted."""

    payload: ChangePayload
    routing_key: str | UnsetType = UNSET
    links: list[WebLink] | UnsetType = UNSET
    images: list[ImageLink] | UnsetType = UNSET


class Processed(Struct, kw_only=True):
    """The answer to an event: it is queued, under this key."""

    status: Literal["success"]
    message: str
    dedup_key: str


class ChangeProcessed(Struct, kw_only=True):
    """The answer to a change event, which has no key."""

    status: Literal["success"]
    message: str


# --- value tables ------------------------------------------------------------------------------------------

SEVERITY = Scale(
    ("critical", "critical", "error", "error", "warning", "warning", "info", "info"),
    {"critical": 1, "error": 3, "warning": 4, "info": 6},
)
CHANGED = "change"
"""The category of a change event among alerts."""
CHANGE_LASTS = timedelta(days=90)
"""How long PagerDuty shows a change event (page on change events). As an alert it ends then: nobody can resolve it, and
an alert that never ends stays in the store and at other vendors for good."""


def _unless_blank(value: Any) -> Any:
    return value if not isinstance(value, str) or value.strip() else UNSET


def _same(value: Any) -> Any:
    return value


BLANK = Pair(_unless_blank, _same)
"""Reads an empty text as absent: some senders send one for what they were not configured with."""


def _read_class(word: str) -> tuple[Any, Any]:
    """Reads the class as a category. A sender's class `up` names what is watched, never the good news that the category
    `up` means, which would silence a page: it is kept as an extension."""
    if word == QUIET_CATEGORY:
        return UNSET, word
    return _unless_blank(word), UNSET


def _write_class(writing: Writing, category: Any, own: Any) -> tuple[Any]:
    if category in (UNSET, None, QUIET_CATEGORY):
        return (own if own is not None else UNSET,)
    return (category,)


def _read_details(held: dict[str, Any]) -> tuple[Any, Any]:
    """Reads the alert's long text from the sender's custom detail `details`, if that is a text."""
    if not isinstance(held.get(TEXT), str):
        return held, UNSET
    return {name: value for name, value in held.items() if name != TEXT} or UNSET, held[TEXT]


def _write_details(writing: Writing, custom: Any, text: Any) -> tuple[Any]:
    if text in (UNSET, None):
        return (custom if custom is not None else UNSET,)
    return ({**(custom or {}), TEXT: text},)


def _default_severity(flat: Flat, writing: Writing) -> tuple[str]:
    return ("error",)


def _whereabouts(flat: Flat, writing: Writing) -> tuple[str]:
    resource = str(flat.get("resource") or "").strip()
    return (resource or writing.caller or writing.origin or "alert-gateway",)


# --- rows --------------------------------------------------------------------------------------------------

EVENT = Mapping(
    NAME,
    "occurrence",
    Event,
    rows=(
        Dropped("routing_key", why="a credential", control=True),
        Dropped("event_action", why="selects the operation; not part of the alert", control=True),
        row("dedup_key", "dedup_key", BLANK, fit=fitted_key),
        row(
            "payload.summary",
            "summary",
            required=True,
            fallback=headline,
            limit=LONGEST_SUMMARY,
            why="at most 1,024 characters; where absent, taken from details, category or key",
        ),
        row(
            "payload.source",
            "source",
            required=True,
            fallback=_whereabouts,
            why="where absent, the resource or the caller's name",
        ),
        row(
            "payload.severity",
            "severity",
            SEVERITY,
            required=True,
            fallback=_default_severity,
            why="PagerDuty has four; where absent, error",
        ),
        Extension("payload.timestamp"),
        row("payload.component", "resource", BLANK),
        Extension("payload.group"),
        joint(
            ["payload.class"],
            ["category", f"extensions.{NAME}.payload.class"],
            read=_read_class,
            write=_write_class,
        ),
        joint(
            ["payload.custom_details"],
            ["custom", "details"],
            read=_read_details,
            write=_write_details,
            homes={"details": (f"payload.custom_details.{TEXT}",)},
            why="the text is an entry of the custom details",
        ),
        row("links", "links", each(Link), fit=with_address, why="PagerDuty takes links with an address only"),
        row("images", "images", each(Image), fit=https_only, why="PagerDuty takes images over HTTPS only"),
        Extension("client"),
        Extension("client_url"),
    ),
    container="payload.custom_details",
    details=f"payload.custom_details.{TEXT}",
)

# --- routes ------------------------------------------------------------------------------------------------


def _credentials(incoming: Incoming) -> tuple[str, ...]:
    """Returns the routing key in the body, which v1 calls the service key; older clients of the vendor put it into a
    header instead."""
    body = incoming.body if isinstance(incoming.body, dict) else {}
    said = body.get("routing_key") or body.get(first.CREDENTIAL)
    key = said if isinstance(said, str) and said else incoming.headers.get("x-routing-key", "")
    return (key,) if key else ()


def _without_nulls(incoming: Incoming) -> dict[str, Json]:
    """Returns the body without nulls, without a blank dedup key and without v1's name for the credential. Custom
    details may be a text, as Grafana sent them for years (https://github.com/grafana/grafana/issues/12115): the vendor
    accepts that, and pages."""
    said = body_object(incoming)
    body = {name: value for name, value in said.items() if value is not None and name != first.CREDENTIAL}
    if isinstance(body.get("payload"), dict):
        payload = {name: value for name, value in body["payload"].items() if value is not None}
        body["payload"] = with_details(payload)
    key = body.get("dedup_key")
    if isinstance(key, str) and not key.strip():
        del body["dedup_key"]
    return body


def _credential_faults(credential: str, incoming: Incoming) -> tuple[str, ...]:
    """Returns the faults of an unknown key, in the words of the API version that the request is in."""
    if first.is_first(incoming.body):
        return first.key_faults(credential)
    return credential_faults(credential)


def _alert(incoming: Incoming) -> Command:
    body = _without_nulls(incoming)
    refuse_alert(body)
    if body["event_action"] == "trigger":
        reading = EVENT.read(body)
        made = saying(Operation.CREATE, reading, invents_key=True, amend=in_place(reading))
        return structs.replace(made, dropped=_dropped(reading, incoming))
    control = {name: body[name] for name in ("routing_key", "event_action", "dedup_key") if name in body}
    reading = EVENT.read(control)
    return Command(
        operation=Operation.ACKNOWLEDGE if body["event_action"] == "acknowledge" else Operation.RESOLVE,
        ref=Ref(key=body["dedup_key"]),
        comment=_comment(body.get("payload")),
        verbatim={name: value for name, value in body.items() if name not in ("routing_key", "event_action")},
        beside=_beside(body),
        dropped=_dropped(reading, incoming),
    )


def _dropped(reading: Reading, incoming: Incoming) -> tuple[tuple[str, str], ...]:
    """Returns what was dropped of an event, with the field of v1 that `_without_nulls` leaves out."""
    has_it = isinstance(incoming.body, dict) and first.CREDENTIAL in incoming.body
    return (*reading.dropped, *([(first.CREDENTIAL, "a credential")] if has_it else []))


def _beside(body: dict[str, Json]) -> Flat:
    """Returns what an acknowledgement or a resolve says beside its summary, which is its comment; it need not have what
    the payload of a trigger must have."""
    payload = body.get("payload")
    said = payload if isinstance(payload, dict) else {}
    flat = EVENT.found({**body, "payload": {**first.UNSAID, **said, "summary": "unsaid"}})
    unsaid = {"summary", *(first.UNSAID.keys() - said.keys())}
    return {path: value for path, value in flat.items() if path not in unsaid}


def _comment(payload: Json) -> str:
    """Returns the summary in an acknowledgement or a resolve: Alertmanager sends the whole payload again."""
    summary = payload.get("summary") if isinstance(payload, dict) else None
    return summary if isinstance(summary, str) else ""


def _change(incoming: Incoming) -> Command:
    """Reads a change event as an alert that pages nobody: its severity is `info`, whatever it says itself, which is low
    everywhere. The rows of an alert event read it, so what only an alert event must have is filled in."""
    body = _without_nulls(incoming)
    refuse_change(body)
    payload = {name: value for name, value in body["payload"].items() if name not in ("severity", "class")}
    as_alert = {**payload, "source": payload.get("source") or "nowhere", "severity": "info"}
    reading = EVENT.read({**body, "event_action": "trigger", "payload": as_alert})
    patch = {**reading.flat, "category": CHANGED, "ends_at": incoming.now + CHANGE_LASTS}
    if not payload.get("source"):
        del patch["source"]
    patch.pop("dedup_key", None)
    return Command(
        operation=Operation.CREATE,
        patch=patch,
        verbatim={**reading.verbatim, "payload": payload, "event_action": CHANGE},
        dropped=tuple(drop for drop in _dropped(reading, incoming) if drop[0] in (*body, first.CREDENTIAL)),
        carried=reading.carried,
    )


def _first(incoming: Incoming) -> Command:
    """Reads an event of v1 with the rows of v2. It has no source: where v2 requires one, it is the fallback for any
    alert without a source."""
    body = first.said_in(body_object(incoming))
    first.refuse_first(body)
    if body["event_type"] != "trigger":
        return Command(
            operation=Operation.ACKNOWLEDGE if body["event_type"] == "acknowledge" else Operation.RESOLVE,
            ref=Ref(key=body["incident_key"]),
            comment=body.get("description", ""),
            verbatim=first.ending(body),
            beside=_beside(first.beside(body)),
        )
    reading = EVENT.read(first.in_second(body))
    return Command(
        operation=Operation.CREATE,
        patch={path: value for path, value in reading.flat.items() if path != "source"},
        verbatim=reading.verbatim,
        dropped=tuple((name, why) for name, why in first.CONTROL.items() if name in body),
        carried=reading.carried,
        invents_key=True,
        amend=in_place(reading),
    )


def _key_of(answer: Answer) -> str:
    if answer.key is not None:
        return answer.key
    assert answer.shown
    return str(answer.shown.alert.dedup_key or "")


def _answer_alert(answer: Answer) -> Reply:
    return Reply(202, {"status": "success", "message": "Event processed", "dedup_key": _key_of(answer)})


def _answer_first(answer: Answer) -> Reply:
    return Reply(200, {"status": "success", "message": "Event processed", "incident_key": _key_of(answer)})


def _answer_change(answer: Answer) -> Reply:
    return Reply(202, {"status": "success", "message": "Change event processed"})


ROUTES = (
    Route(
        method="POST",
        path="/v2/enqueue",
        operations=(Operation.CREATE, Operation.UPDATE, Operation.ACKNOWLEDGE, Operation.RESOLVE),
        read=_alert,
        answer=_answer_alert,
        summary="Send an alert event: trigger, acknowledge or resolve",
        source=PAGE,
        body=Event,
        returns=Processed,
        success=202,
    ),
    Route(
        method="POST",
        path="/v2/change/enqueue",
        operations=(Operation.CREATE,),
        read=_change,
        answer=_answer_change,
        summary="Send a change event",
        source=CHANGES,
        body=ChangeEvent,
        returns=ChangeProcessed,
        success=202,
    ),
    Route(
        method="POST",
        path=first.PATH,
        operations=(Operation.CREATE, Operation.UPDATE, Operation.ACKNOWLEDGE, Operation.RESOLVE),
        read=_first,
        answer=_answer_first,
        summary="Send an event of v1: trigger, acknowledge or resolve",
        source=first.PAGE,
        body=first.FirstEvent,
        returns=first.FirstProcessed,
    ),
)

DIALECT = Dialect(
    name=NAME,
    title="PagerDuty",
    source=OVERVIEW,
    kind="occurrence",
    mapping=EVENT,
    routes=ROUTES,
    outbound=Outbound(
        addressed_by="key",
        published_rate=120,  # for an integration key, within any 60 seconds: the page on rate limits of the Events API
        calls=SEND,
        nearest={Operation.DELETE: Operation.RESOLVE},
        authorise=authorise,
        reason=reason,
        key="routing_key",
    ),
    credentials=_credentials,
    credential_in_body=True,
    credential_faults=_credential_faults,
    problem=problem,
    browsers=("POST",),  # Backstage's plugin posts events from the browser, to its `eventsBaseUrl`
    shown_id=str,
    same_key=fitted_key,
    url="https://events.pagerduty.com",
    client_setting="the host `https://events.pagerduty.com` → `http://gateway/pagerduty`",
    remark=(
        "An upstream's `key` is the integration key of a service or an orchestration; accounts in the EU have "
        "`https://events.eu.pagerduty.com` as their `url`. "
        "A change event reaches other vendors as an alert that wakes nobody. It ends after 90 days, for which "
        "PagerDuty keeps one: its sender has no key to end it by."
    ),
)
