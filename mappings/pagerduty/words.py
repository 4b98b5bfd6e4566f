"""PagerDuty's words: the faults of an event, all of them at once, and every kind of problem in its envelope.

The overview page documents the statuses; the texts are those that the service answers, as users report them in
prometheus/alertmanager#3902, SigNoz/signoz#9536, envato/pagerduty#70, blockpane/tenderduty#10 and
robusta-dev/robusta#571. Where none is known the text is built like them. It must not know what stands behind the
gateway.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.asked import Reply
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.outcome import Json, Response

ACTIONS = ("trigger", "acknowledge", "resolve")
SEVERITIES = ("critical", "warning", "error", "info")
KEY_LENGTH = 32
WRONG_LENGTH = f"Length of 'routing_key' is incorrect (should be {KEY_LENGTH} characters)"
WRONG_CHARACTERS = "'routing_key' cannot contain non-alphanumeric characters."
UNKNOWN_KEY = "Invalid routing key"
TEXT = "details"
"""The custom detail that holds the long text, for which PagerDuty has no field, and custom details that are not an
object."""


def with_details(payload: dict[str, Json]) -> dict[str, Json]:
    """Returns a payload whose custom details are an object: any other value goes into one, as its long text, or is left
    out if it is empty."""
    value = payload.get("custom_details", {})
    if isinstance(value, dict):
        return payload
    rest = {name: said for name, said in payload.items() if name != "custom_details"}
    return rest if value in ("", []) else {**rest, "custom_details": {TEXT: value}}


# --- what is wrong with an event ---------------------------------------------------------------------------


def refuse_alert(body: dict[str, Json]) -> None:
    """Raises a `Problem` that lists all faults of an alert event, if it has any."""
    action = body.get("event_action")
    faults = [*_one_of("event_action", action, ACTIONS), *_text("dedup_key", body.get("dedup_key"))]
    if action in ("acknowledge", "resolve") and "dedup_key" not in body:
        faults.append(_missing("dedup_key"))
    if action == "trigger":
        payload = body.get("payload", {})
        faults += _payload(payload, "summary", "source")
        if isinstance(payload, dict):
            faults += _one_of("payload.severity", payload.get("severity"), SEVERITIES)
    refuse(faults)


def refuse_change(body: dict[str, Json]) -> None:
    """Raises a `Problem` that lists all faults of a change event, if it has any."""
    refuse([*_payload(body.get("payload", {}), "summary")])


def refuse(faults: list[str]) -> None:
    """Raises a `Problem` that lists these faults, if there are any."""
    if faults:
        raise Problem(ProblemKind.INVALID, "; ".join(faults), faults=tuple(faults))


def _payload(payload: Json, *required: str) -> Iterator[str]:
    if not isinstance(payload, dict):
        yield "'payload' is invalid (must be an object)"
        return
    for name in required:
        yield from _text(f"payload.{name}", payload.get(name, ""))


def _text(name: str, value: Json) -> Iterator[str]:
    if value is not None and not isinstance(value, str):
        yield f"'{name}' is invalid (must be a string)"
    elif value is not None and not value.strip():
        yield _missing(name)


def _one_of(name: str, value: Json, words: tuple[str, ...]) -> Iterator[str]:
    if value is None or value == "":
        yield _missing(name)
    elif value not in words:
        listed = ", ".join(f"'{word}'" for word in words[:-1])
        yield f"'{name}' is invalid (must be one of the following: {listed} or '{words[-1]}')"


def _missing(name: str) -> str:
    return f"'{name}' is missing or blank"


def credential_faults(credential: str) -> tuple[str, ...]:
    """Returns what PagerDuty says about an unknown routing key: the faults of its form, or that it is invalid."""
    if not credential:
        return (_missing("routing_key"),)
    faults = [WRONG_LENGTH] if len(credential) != KEY_LENGTH else []
    faults += [WRONG_CHARACTERS] if not (credential.isascii() and credential.isalnum()) else []
    return tuple(faults) or (UNKNOWN_KEY,)


# --- every kind of problem ---------------------------------------------------------------------------------

INVALID = ("invalid event", "Event object is invalid")
FAILED = ("error", "The event could not be processed")
SAID: dict[ProblemKind, tuple[str, str]] = {
    ProblemKind.MALFORMED: ("Unrecognized object", "Event object format is unrecognized"),
    ProblemKind.RATE_LIMITED: (
        "throttle exceeded",
        "Requests for this service are arriving too quickly.  Please retry later.",
    ),
    ProblemKind.NO_SUCH_PATH: ("not found", "Not Found"),
    ProblemKind.NOT_FOUND: ("not found", "Not Found"),
    ProblemKind.METHOD_NOT_ALLOWED: ("method not allowed", "Method Not Allowed"),
    ProblemKind.INTERNAL: FAILED,
    ProblemKind.OVERLOADED: FAILED,
}
FIRST: dict[ProblemKind, str] = {
    ProblemKind.MALFORMED: "JSON parse error",
    ProblemKind.RATE_LIMITED: "Enhance Your Calm.",
}


def problem(found: Problem) -> Reply:
    """Words a problem in PagerDuty's envelope. There is no 401: an unknown routing key is an invalid event."""
    status = 400 if found.kind is ProblemKind.UNAUTHORIZED else USUAL_STATUS[found.kind]
    word, message = SAID.get(found.kind, INVALID)
    first = FIRST.get(found.kind)
    errors = [first] if first else []
    errors += found.faults or (found.message,)
    return Reply(status, {"status": word, "message": message, "errors": errors})


def reason(response: Response) -> str:
    """Returns PagerDuty's own words in a refusal: its message, then every error. Any part may be missing."""
    body = response.object()
    message = [body["message"]] if isinstance(body.get("message"), str) else []
    return ": ".join([*message, *(["; ".join(errors)] if (errors := _errors_in(body)) else [])])


def _errors_in(body: dict[str, Json]) -> list[str]:
    errors = body.get("errors")
    return [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []


def is_about_the_key(response: Response) -> bool:
    """Returns whether the routing key was refused, which says nothing about the event: PagerDuty has no 401 for it."""
    about_key = (WRONG_LENGTH, WRONG_CHARACTERS, UNKNOWN_KEY, _missing("routing_key"))
    return any(error in about_key for error in _errors_in(response.object()))
