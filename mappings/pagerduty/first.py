"""Events of PagerDuty's older API, v1, in the words of v2: many tools still send them (Salt, pypd, pygerduty).

Source: https://developer.pagerduty.com/docs/events-api-v1/trigger-events/ and the overview beside it; the texts of
refusals are that page's, and those of grafana/grafana#8979 and vmw-loginsight/webhook-shims#60; where none is known
the text is built like them. v1 has no source, no severity and no change events. It must not know what stands behind the
gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from gateway.outcome import Json
from mappings.pagerduty.words import ACTIONS, KEY_LENGTH, refuse, with_details

PAGE = "https://developer.pagerduty.com/docs/events-api-v1/trigger-events/"
PATH = "/generic/2010-04-15/create_event.json"
"""The date is the name of the API's version."""
UNSAID = {"source": "nowhere", "severity": "error"}
"""Values for the fields that v2 requires and v1 does not have. Every event over v1 pages somebody, as an error does."""
CREDENTIAL = "service_key"
"""The key of the service. In an event of v2, which has another field for it, it is the credential as well, and no more
than that: kept there, it would be told to every upstream."""
RENAMED = ("event_type", CREDENTIAL, "incident_key", "description", "details", "contexts")
"""Fields that have another name or another place in v2."""
OF_SECOND = ("event_action", "routing_key", "dedup_key", "payload", "links", "images")
"""Fields of v2 alone: in an event of v1 they mean nothing, and in the event of v2 made of it they would."""
CONTROL = {
    CREDENTIAL: "a credential",
    "event_type": "says what to do, not what is wrong",
    **dict.fromkeys(OF_SECOND, "means nothing in an event of v1"),
}
"""Fields that do not concern an alert, and why."""
SHOWN = {"link": ("links", "href", ("text",)), "image": ("images", "src", ("href", "alt"))}
"""For each type of context its field in v2, the text that is required there, and those that are optional."""


class FirstEvent(Struct, kw_only=True):
    """An event, as posted. Only a trigger needs a description; only a trigger may leave the key out."""

    event_type: Literal["trigger", "acknowledge", "resolve"]
    service_key: str | UnsetType = UNSET
    incident_key: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    details: Any = UNSET
    client: str | UnsetType = UNSET
    client_url: str | UnsetType = UNSET
    contexts: list[dict[str, Any]] | UnsetType = UNSET


class FirstProcessed(Struct, kw_only=True):
    """The answer to an event: it was processed, under this key."""

    status: Literal["success"]
    message: str
    incident_key: str


def said_in(body: dict[str, Json]) -> dict[str, Json]:
    """Returns an event without nulls, and with a text as its key: Sentry's plugin sends the number of its issue."""
    said = {name: value for name, value in body.items() if value is not None}
    key = said.get("incident_key")
    return {**said, "incident_key": str(key)} if isinstance(key, int) and not isinstance(key, bool) else said


def refuse_first(body: dict[str, Json]) -> None:
    """Raises a `Problem` that lists all faults of an event, if it has any."""
    refuse(list(_faults(body)))


def _faults(body: dict[str, Json]) -> Iterator[str]:
    kind = body.get("event_type")
    if kind in (None, ""):
        yield "Event type is missing or blank"
    elif kind not in ACTIONS:
        yield f"event_type is invalid (must be one of: {' '.join(ACTIONS)})"
    for name, needed in (("description", kind == "trigger"), ("incident_key", kind in ("acknowledge", "resolve"))):
        value, said = body.get(name), name.capitalize().replace("_", " ")
        if value is not None and not isinstance(value, str):
            yield f"{said} is invalid (must be a string)"
        elif needed and not (value or "").strip():
            yield f"{said} is missing or blank"
    if not isinstance(body.get("contexts", []), list):
        yield "Contexts is invalid (must be an array)"


def is_first(body: Json) -> bool:
    """Returns whether a body is an event of v1, by the fields that v2 does not have."""
    return isinstance(body, dict) and bool(body.keys() & {"service_key", "event_type"}) and "routing_key" not in body


def key_faults(credential: str) -> tuple[str, ...]:
    """Returns what PagerDuty says about an unknown service key."""
    if not credential:
        return ("Service key is missing or blank",)
    if len(credential) != KEY_LENGTH:
        return (f"Service key is the wrong length (should be {KEY_LENGTH} characters)",)
    return ("Invalid service key",)


def in_second(body: dict[str, Json]) -> dict[str, Json]:
    """Returns a trigger as an event of v2, in which the fields that neither version documents stay as they are."""
    said: dict[str, Json] = {"summary": body["description"], **UNSAID}
    if body.get("details") not in (None, {}):
        said["custom_details"] = body["details"]
    payload = with_details(said)
    event = {**_rest(body), **_shown(body.get("contexts") or []), "event_action": "trigger", "payload": payload}
    if str(body.get("incident_key", "")).strip():
        event["dedup_key"] = body["incident_key"]
    return event


def _rest(body: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in body.items() if name not in RENAMED + OF_SECOND}


def beside(body: dict[str, Json]) -> dict[str, Json]:
    """Returns what an acknowledgement or a resolve says beside its key and its description, as fields of v2."""
    said = {"custom_details": body["details"]} if body.get("details") not in (None, {}) else {}
    return {**_rest(body), **_shown(body.get("contexts") or []), "payload": with_details(said)}


def ending(body: dict[str, Json]) -> dict[str, Json]:
    """Returns an acknowledgement or a resolve as an event of v2. If it says anything, its payload has all that v2
    requires of a trigger: the vendor documents no other."""
    said = beside(body)
    payload, texts = said.pop("payload"), {name: body.get(name) for name in ("description", "client")}
    summary, client = (text if isinstance(text, str) and text.strip() else None for text in texts.values())
    if summary or payload:
        required = {"summary": summary or body["incident_key"], "source": client or "unknown"}
        said["payload"] = {**UNSAID, **required, **payload}
    return {**said, "dedup_key": body["incident_key"]}


def _shown(contexts: list[Json]) -> dict[str, Json]:
    """Returns contexts as links and images, which v2 keeps apart; one that is neither stays a context."""
    shown: dict[str, Json] = {}
    for context in contexts:
        name = _place(context)
        said = {field: value for field, value in context.items() if field != "type"} if name != "contexts" else context
        shown.setdefault(name, []).append(said)
    return shown


def _place(context: Json) -> str:
    """Returns the field of v2 that a context belongs to: one whose fields v2 would refuse belongs to none."""
    for kind, (name, needed, texts) in SHOWN.items():
        if isinstance(context, dict) and context.get("type") == kind and isinstance(context.get(needed), str):
            is_valid = all(isinstance(context.get(text), str | None) for text in texts)
            return name if is_valid else "contexts"
    return "contexts"
