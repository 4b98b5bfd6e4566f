"""What Alertmanager's callers are answered: alerts and silences as shown, and every kind of problem in one of two
shapes.

Its handlers refuse with a text, its API layer with an object that has a code: both as release 0.33 answers, by
https://github.com/prometheus/alertmanager/blob/main/api/v2/api.go and the API's description beside it. It must not know
what stands behind the gateway.
"""

from __future__ import annotations

import re
from datetime import datetime

from gateway.asked import Answer, Incoming, Muted, Reply, Shown
from gateway.asking import bearer, unpacked
from gateway.canonical import Flat
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.mapping.rows import Writing
from gateway.mapping.values import iso
from gateway.mapping.wire import Wire
from gateway.outcome import Json, Response
from mappings.alertmanager.alert import ALERT, fingerprint, named_by

RECEIVER = "alert-gateway"
"""The only receiver that callers see: those behind the gateway are not theirs to know."""
IN_BODY = re.compile(r"\S* in (body|query|path) (is required|must be of type|should have at least)")
CODES = {"is required": 602, "must be of type": 601, "should have at least": 612}
"""What the API layer refuses with 422, and the code for each."""

# --- who asks ----------------------------------------------------------------------------------------------


def credentials(incoming: Incoming) -> tuple[str, ...]:
    """A bearer token, or user and password of Basic authentication, written `user:password`."""
    scheme, _, rest = incoming.headers.get("authorization", "").strip().partition(" ")
    return (unpacked(rest) or rest,) if scheme.lower() == "basic" else bearer(incoming)


# --- alerts ------------------------------------------------------------------------------------------------


def labels_of(flat: Flat) -> dict[str, str]:
    """Returns the label set that an alert has here, whichever vendor it came from."""
    labels: dict[str, str] = ALERT.write(flat, Writing())["labels"]
    return labels


def is_silenced(shown: Shown) -> bool:
    """Whether nobody is told of an alert: a silence matches it, or it is acknowledged, which is the nearest."""
    return bool(shown.muted_by) or shown.alert.status == "acknowledged"


def shown_alert(shown: Shown) -> Wire:
    """An alert as it is listed."""
    flat = shown.flat
    wire = {**ALERT.write(flat, Writing()), **ALERT.write(flat, Writing(), side="reply", partial=True)}
    ends = flat.get("ends_at") or flat["updated_at"]
    annotations = dict(wire.get("annotations") or {})
    if flat.get("labels") and annotations.get("summary") == named_by(flat["labels"]):
        del annotations["summary"]  # derived from the labels, as its sender wrote none
    return {
        **wire,
        "annotations": annotations,
        "status": {
            "state": "suppressed" if is_silenced(shown) else "active",
            "silencedBy": list(shown.muted_by),
            "inhibitedBy": [],
            "mutedBy": [],
        },
        "endsAt": iso(ends),
        "fingerprint": fingerprint(wire["labels"]),
        "receivers": [{"name": RECEIVER}],
    }


def alerts(answer: Answer) -> Reply:
    """A list of alerts, sorted by fingerprint."""
    return Reply(200, list(answer.worded))


def groups(answer: Answer) -> Reply:
    """The same in one group, as it is not known here by what the vendor would group them."""
    found = list(answer.worded)
    group = {"labels": {}, "routeLabels": {}, "receiver": {"name": RECEIVER}, "alerts": found}
    return Reply(200, [group] if found else [])


def done(answer: Answer) -> Reply:
    """Success has no body."""
    return Reply(200)


# --- silences ----------------------------------------------------------------------------------------------


STATES = ("active", "pending", "expired")
"""The states of a silence, in the order in which they are listed."""


def state_of(muted: Muted, now: datetime) -> str:
    """The state of a silence."""
    return "expired" if muted.ends_at <= now else "pending" if muted.starts_at > now else "active"


def place_of(muted: Muted, now: datetime) -> tuple[int, float]:
    """The sort key of a silence in a list: first what ends next, then what begins next, last what ended longest ago."""
    state = state_of(muted, now)
    when = {"active": muted.ends_at, "pending": muted.starts_at, "expired": muted.ends_at}[state].timestamp()
    return STATES.index(state), -when if state == "expired" else when


def shown_silence(muted: Muted, now: datetime) -> dict[str, Json]:
    """A silence as it is shown: as it was posted, with its state."""
    return {
        **muted.body,
        "id": muted.id,
        "startsAt": iso(muted.starts_at),
        "endsAt": iso(muted.ends_at),
        "updatedAt": iso(muted.updated_at),
        "status": {"state": state_of(muted, now)},
    }


# --- every kind of problem ---------------------------------------------------------------------------------

PLAIN = {
    *(ProblemKind.INVALID, ProblemKind.UNMET, ProblemKind.UNROUTED, ProblemKind.REFUSED, ProblemKind.NOT_FOUND),
    *(ProblemKind.CONFLICT, ProblemKind.NAME_TAKEN, ProblemKind.INTERNAL, ProblemKind.OVERLOADED),
}
"""What the handlers themselves refuse, with nothing but a text."""


def problem(found: Problem) -> Reply:
    """A problem as the handlers or the API layer word it."""
    in_body = IN_BODY.match(found.message)
    if in_body:
        return Reply(422, {"code": CODES[in_body[2]], "message": found.message})
    status = USUAL_STATUS[found.kind]
    if found.kind in PLAIN:
        return Reply(status, found.message)
    said = {"code": status, "message": found.message}
    headers = {"WWW-Authenticate": "Basic"} if found.kind is ProblemKind.UNAUTHORIZED else {}
    return Reply(status, said, headers)


def reason(response: Response) -> str:
    """Returns Alertmanager's own words in a refusal, in either shape."""
    body = response.json()
    if isinstance(body, str):
        return body
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else ""
