"""The envelope of CloudEvents 1.0: attributes and data as one event, found in a request and put into one.

Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md for the modes and
the headers, the page on the JSON format beside it for `data_base64`, and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md for 415, the credential and the handshake.
It must not know what the data says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Literal
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET, Struct

from gateway.asked import Answer, Incoming, Reply
from gateway.asking import bearer, body_object
from gateway.dialect import Envelope, Route
from gateway.errors import Problem, ProblemKind, invalid
from gateway.inbound.limits import decode
from gateway.mapping.rows import Dropped
from gateway.outcome import Json, Request, Sending

WEBHOOK = "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md"
VERSION = "1.0"
STRUCTURED = "application/cloudevents+json"
ANY_FORMAT = "application/cloudevents"
BATCHED = "application/cloudevents-batch+json"
REQUIRED = ("specversion", "id", "source", "type")
PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""Characters that stand in a header as they are; all others are percent-encoded."""
IN_A_REFERENCE = "!#$%&'()*+,/:;=?@[]~"
"""Characters that stand in a URI reference as they are, beside letters, digits, dash, dot and underscore."""
MOST_IN_HEADERS = 8192
"""The most characters of attributes that servers take as headers; an event with more is sent structured."""


class Settings(Struct, kw_only=True):
    """`[upstreams.NAME]` of this dialect."""

    mode: Literal["structured", "binary"] | None = None
    """Whether an event's attributes are in the body (structured) or in headers (binary)."""


class Allowed(Struct, kw_only=True):
    """The answer to a handshake; what counts is in its headers."""

    status: Literal["allowed"]


# --- from a request ------------------------------------------------------------------------------------------


def admits(incoming: Incoming) -> None:
    """Refuses content types that cannot be read."""
    form = _content_type(incoming)
    if form.startswith(ANY_FORMAT) and form not in (STRUCTURED, BATCHED):
        raise Problem(ProblemKind.MEDIA_TYPE, f"content type {form[:100]} is not supported; send {STRUCTURED}")
    if not form.startswith(ANY_FORMAT) and form and not _is_json(form):
        raise Problem(ProblemKind.MEDIA_TYPE, f"data of content type {form[:100]} is not supported; send JSON")


def parted(incoming: Incoming) -> tuple[Incoming, ...] | None:
    """Returns the events of a batch, each as a request of its own; None where there is one event."""
    if _content_type(incoming) != BATCHED:
        return None
    if not isinstance(incoming.body, list):
        raise Problem(ProblemKind.MALFORMED, "the body is not a list of events")
    headers = {"content-type": STRUCTURED}
    return tuple(msgspec.structs.replace(incoming, headers=headers, body=event) for event in incoming.body)


def opened(incoming: Incoming) -> dict[str, Json]:
    """Returns the event of a request: in binary mode if its attributes are in headers, else structured."""
    admits(incoming)
    is_structured = _content_type(incoming) == STRUCTURED
    event = _in_headers(incoming) if "ce-specversion" in incoming.headers and not is_structured else _in_body(incoming)
    for name in REQUIRED:
        said = event.get(name)
        if said in (UNSET, None, ""):
            raise invalid(name, "is required")
        if not isinstance(said, str):
            raise invalid(name, "must be a string")
    if event["specversion"] != VERSION:
        raise invalid("specversion", f"{event['specversion'][:20]!r} is not {VERSION!r}")
    return event


def _content_type(incoming: Incoming) -> str:
    return incoming.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(form: str) -> bool:
    return form.endswith(("/json", "+json"))


def _in_body(incoming: Incoming) -> dict[str, Json]:
    event = body_object(incoming)
    packed = event.get("data_base64")
    if not isinstance(packed, str):
        return event
    try:
        data = decode(base64.b64decode(packed, validate=True))
    except (binascii.Error, ValueError):
        raise invalid("data_base64", "is not base64") from None
    except Problem as problem:
        raise invalid("data_base64", problem.message) from None
    rest = {name: value for name, value in event.items() if name != "data_base64"}
    return rest if data is UNSET else {**rest, "data": data}


def _in_headers(incoming: Incoming) -> dict[str, Json]:
    event: dict[str, Json] = {
        name.removeprefix("ce-"): _decoded(value)
        for name, value in incoming.headers.items()
        if name.startswith("ce-") and name != "ce-data"
    }
    if form := incoming.headers.get("content-type"):
        event["datacontenttype"] = form
    return event if incoming.body is UNSET else {**event, "data": incoming.body}


def _decoded(value: str) -> str:
    """Returns the attribute in a header, which may be quoted, and is percent-encoded."""
    value = value.strip()
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote(value)


def identity(event: dict[str, Json]) -> str:
    """Returns what is the same for repeats of an event, as the pair of `source` and `id` is meant to be. Time and
    content count too, as some senders give all of their events one id; extensions do not, as those on the way may set
    them."""
    said = [event.get(name) for name in ("source", "id", "time", "type", "subject", "data")]
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:32]


def credentials(incoming: Incoming) -> tuple[str, ...]:
    """The bearer token, or the parameter `access_token`."""
    return (*bearer(incoming), *filter(None, incoming.query.get("access_token", ())))


# --- into a request ------------------------------------------------------------------------------------------


def sealed(request: Request, body: dict[str, Json], sending: Sending, mode: str) -> Request:
    """Puts an event into a request, in binary mode if that is asked for and every attribute fits into a header."""
    event = _complete(body, sending)
    headers = _headers(event) if mode == "binary" else None
    if headers is None:
        return msgspec.structs.replace(request, body=event, headers={**request.headers, "content-type": STRUCTURED})
    form = str(event.get("datacontenttype") or "application/json")
    return msgspec.structs.replace(
        request, body=event.get("data", UNSET), headers={**request.headers, **headers, "content-type": form}
    )


def _complete(body: dict[str, Json], sending: Sending) -> dict[str, Json]:
    """Returns the event with the attributes that every event has. A caller's id and time are those of what it said
    itself: what the gateway says of the same alert has its own."""
    event = {"specversion": VERSION, "id": UNSET, "source": UNSET, "type": UNSET, **body}
    own = sending.verbatim or {}
    if own or (sending.is_akin and sending.mark):
        if "id" in event and event["id"] != sending.key:
            event["id"] = own.get("id", UNSET)
        event["time"] = own.get("time", UNSET)
    elif not sending.is_akin and isinstance(event["source"], str):
        event["source"] = quote(event["source"], safe=IN_A_REFERENCE)
    usual = {"specversion": VERSION, "id": _id(sending), "source": "alert-gateway", "type": "alert"}
    event |= {name: value for name, value in usual.items() if event[name] in (UNSET, None, "")}
    return {name: value for name, value in event.items() if value is not UNSET}


def _id(sending: Sending) -> str:
    """Returns an id that is the same for every attempt of a delivery, and no other's: by it and the source a receiver
    recognises a repeat."""
    return hashlib.sha256(f"{sending.key}\n{sending.mark}".encode("utf8", "surrogatepass")).hexdigest()[:32]


def _headers(event: dict[str, Json]) -> dict[str, str] | None:
    """Returns the attributes as headers; None if a header cannot hold one."""
    headers: dict[str, str] = {}
    form = str(event.get("datacontenttype") or "")
    if not (form.isascii() and form.isprintable() and len(form) <= MOST_IN_HEADERS):
        return None
    for name, value in event.items():
        if name in ("data", "datacontenttype") or value is None:
            continue
        if not re.fullmatch(r"[a-z0-9]+", name) or isinstance(value, dict | list):
            return None
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        headers[f"ce-{name}"] = quote(text, safe=PRINTABLE, errors="replace")
    return headers if sum(map(len, headers.values())) <= MOST_IN_HEADERS else None


# --- the handshake -------------------------------------------------------------------------------------------


def _handshake(incoming: Incoming) -> Reply:
    """Answers a sender that asks whether it may send: yes, at any rate, as the credential decides who may."""
    origin = incoming.headers.get("webhook-request-origin", "").strip()
    if not origin:
        raise invalid("WebHook-Request-Origin", "is required")
    headers = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "OPTIONS, POST"}
    return Reply(200, {"status": "allowed"}, headers)


def _answer(answer: Answer) -> Reply:
    return Reply(200, {"status": "allowed"})


def routes(path: str, at_root: bool) -> tuple[Route, ...]:
    """Returns the route of the handshake, at the path that events are sent to."""
    return (
        Route(
            method="OPTIONS",
            path=path,
            operations=(),
            read=_handshake,
            answer=_answer,
            summary="Ask whether events may be sent",
            source=WEBHOOK,
            at_root=at_root,
            returns=Allowed,
        ),
    )


ENVELOPE = Envelope(
    modes=("structured", "binary"),
    attributes=dict.fromkeys((*REQUIRED, "datacontenttype", "dataschema", "subject"), str),
    required=REQUIRED,
    dropped=(
        Dropped("specversion", why="the version of the envelope"),
        Dropped("id", why="identifies the event, not the alert"),
    ),
    fields={"updated_at": "time"},
    opened=opened,
    parted=parted,
    sealed=sealed,
    admits=admits,
    credentials=credentials,
    settings=Settings,
    identity=identity,
    routes=routes,
    sample={
        "specversion": VERSION,
        "id": "7d41f3c0",
        "source": "/monitoring/db-1",
        "type": "alert",
    },
)
