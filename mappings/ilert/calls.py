"""ilert as an upstream: one request of its events API per operation.

Source: https://docs.ilert.com/developer-docs/rest-api/client-examples/creating-alerts-through-events. It must not know
who calls.
"""

from __future__ import annotations

from gateway.outcome import Call, Delivered, Json, Request, Response, Sending


def _send(word: str, sending: Sending, fields: dict[str, Json]) -> Call:
    body = {"eventType": word, **fields}
    if sending.key is not None:
        body["alertKey"] = sending.key
    yield Request(method="POST", path="/api/events", body=body)
    return Delivered()


def send_alert(sending: Sending) -> Call:
    """Sends the alert whole: ilert merges it into the open alert of its key."""
    return (yield from _send("ALERT", sending, sending.body))


def send_accept(sending: Sending) -> Call:
    """Accepts, as ilert calls an acknowledgement."""
    return (yield from _send("ACCEPT", sending, sending.verbatim or {}))


def send_resolve(sending: Sending) -> Call:
    """Resolves."""
    return (yield from _send("RESOLVE", sending, sending.verbatim or {}))


def send_comment(sending: Sending) -> Call:
    """Adds a comment."""
    said = {"comments": [{"creator": "alert-gateway", "content": sending.comment}]}
    return (yield from _send("COMMENT", sending, sending.verbatim or said))


def authorise(request: Request, credential: str) -> Request:
    """Puts the API key into the body."""
    return request.with_fields({"apiKey": credential})


def reason(response: Response) -> str:
    """The code and message of ilert's error object."""
    body = response.object()
    return ": ".join(str(body[key]) for key in ("code", "message") if body.get(key))
