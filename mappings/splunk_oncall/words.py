"""Splunk On-Call's words: a body as it is posted and as rows read it, what is wrong with it, and its answers.

The page on the REST endpoint documents the answers and the annotations, the glossary of incident fields the limits.
For a wrong API key the service answers 404, as influxdata/kapacitor (services/victorops/service.go) tells its users,
and as AcalephStorage/consul-alerts#219 shows; what the body says then is not documented, nor is the status of other
failures: the texts and statuses here are ours, in the documented envelope. It must not know what stands behind the
gateway.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.asked import Incoming, Reply
from gateway.asking import body_object
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.outcome import Json, Response

ROUTE = "routing_key"
"""The last part of the path. Rows read it as a field beside those of the body."""
TEXTS = ("entity_display_name", "state_message", "monitoring_tool", "hostname")
AS_SENT = ("message_type", "entity_id", "timestamp", "state_start_time", "entity_is_host", "ack_msg", "ack_author")
NAMED = frozenset((*TEXTS, *AS_SENT, ROUTE))
"""The fields that mean something to the service. Any other is a custom field, which it shows as it is."""
ANNOTATIONS = "vo_annotate"
LINKS, IMAGES = "u", "i"
"""The annotations that are links and images; notes (`s`) stay custom fields, which they are: a name and a text."""
FURTHER = "(further fields)"
"""Where rows find the custom fields, which have no object of their own in a body."""
LONGEST, LONGEST_MESSAGE, LONGEST_ANNOTATION = 1024, 20_480, 1124
"""Characters of a field, of `state_message` and of an annotation."""
CUT = "…"
"""Marks a text that was cut."""
ENTRY = " (INFO)"
"""What a timeline entry's key has after its entity's id, see `mappings.splunk_oncall`."""

# --- bodies ------------------------------------------------------------------------------------------------


def gathered(body: dict[str, Json], route: str | None) -> dict[str, Json]:
    """Returns a posted body as rows read it: annotations and custom fields each in an object of their own, without
    nulls, and with the routing key of the path. What is in that form already stays as it is. A text that is no text
    becomes one: ElastAlert adds all fields of a document to its alert, whatever they are. A `routing_key` among them is
    a custom field; it stands for that of the path only where the `route` is empty, as for a body without its path."""
    named: dict[str, Json] = {}
    further: dict[str, Json] = {}
    annotations: dict[str, dict[str, str]] = {}
    for name, value in body.items():
        if name == ROUTE and (route != "" or not isinstance(value, str)):
            further[name] = value
        elif name in NAMED:
            if value is not None:
                is_text = name in TEXTS or (name == "entity_id" and isinstance(value, int | float))
                named[name] = _as_text(value) if is_text else value
        elif name == FURTHER and isinstance(value, dict):
            further.update(value)
        elif (found := _annotations(name, value)) is not None:
            for kind, held in found.items():
                annotations.setdefault(kind, {}).update(held)
        else:
            further[name] = value
    objects = {ANNOTATIONS: annotations, FURTHER: further}
    return {**named, **({ROUTE: route} if route else {}), **{name: held for name, held in objects.items() if held}}


def _annotations(name: str, value: Json) -> dict[str, dict[str, str]] | None:
    """Returns the links and images of a field by kind and title; None where it is something else."""
    start, _, rest = name.partition(".")
    kind, dot, title = rest.partition(".")
    found = {kind: {title: value}} if dot else value
    if start != ANNOTATIONS or not isinstance(found, dict) or not {LINKS, IMAGES}.issuperset(found):
        return None
    held = [entry for one in found.values() for entry in (one.items() if isinstance(one, dict) else [("", one)])]
    return found if all(is_annotation(*entry) for entry in held) else None


def is_annotation(title: str, value: Json) -> bool:
    """Whether the service shows a link or an image under this title, and does not cut it."""
    is_whole = isinstance(value, str) and len(value) <= LONGEST_ANNOTATION and len(title) <= LONGEST
    return is_whole and bool(title.strip() and value.strip())


def scattered(fields: dict[str, Json]) -> dict[str, Json]:
    """Returns a body as it is posted, from the form in which rows write it. The routing key is no part of it."""
    annotations, further = fields.get(ANNOTATIONS) or {}, fields.get(FURTHER) or {}
    named = {name: value for name, value in fields.items() if name in NAMED and name != ROUTE and value is not None}
    noted = {
        f"{ANNOTATIONS}.{kind}.{title}": value
        for kind, held in annotations.items()
        for title, value in (held or {}).items()
    }
    return {**named, **noted, **{name: value for name, value in further.items() if name not in NAMED or name == ROUTE}}


def shortened(value: Json, limit: int = LONGEST) -> Json:
    """Returns a text within a limit, marked where it was cut; anything else as it is."""
    return value[: limit - len(CUT)] + CUT if isinstance(value, str) and len(value) > limit else value


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def read_body(incoming: Incoming) -> dict[str, Json]:
    """Returns a request's fields as rows read them; raises a `Problem` where it does not say what the alert does. The
    address is copied with `$routing_key` at its end, which its user is to replace: as it stands, it names no route."""
    route = incoming.params.get(ROUTE)
    body = gathered(body_object(incoming), None if route == f"${ROUTE}" else route)
    said = body.get("message_type", "")
    if isinstance(said, str) and not said.strip():
        raise missing("message_type")
    return body


def missing(*names: str) -> Problem:
    """The problem that fields are missing, as the page words it."""
    return Problem(ProblemKind.INVALID, f"Missing fields: {', '.join(names)}", field=names[0])


# --- answers -----------------------------------------------------------------------------------------------

STATUS = {**USUAL_STATUS, ProblemKind.UNAUTHORIZED: 404}


def problem(found: Problem) -> Reply:
    """Words a problem in the documented envelope of a failure."""
    message = "API key not found" if found.kind is ProblemKind.UNAUTHORIZED else found.message
    return Reply(STATUS[found.kind], {"result": "failure", "message": message})


def is_failure(response: Response) -> bool:
    """Whether an answer says that the alert was not taken; the page does not say with which status it does."""
    body = response.json()
    return isinstance(body, dict) and body.get("result") == "failure"


def reason(response: Response) -> str:
    """The message of a failure."""
    body: Any = response.json()
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else ""
