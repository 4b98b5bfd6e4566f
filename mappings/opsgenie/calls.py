"""What Opsgenie is sent, and what its receipts come to.

Every write is answered with 202 and a request id, which is a receipt and no verdict: the request's status is asked for
until it says that it was done, that it failed, or that it was discarded. Alerts are addressed by alias, which finds the
open one. Jira Service Management's integration events API is spoken alike, but has no call for changing a field.

Sources: https://docs.opsgenie.com/docs/alert-api#get-request-status; that a request which is not processed yet is
answered with 404 is what the vendor's own Go SDK goes by. It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from gateway.canonical import Operation
from gateway.carry import fingerprint
from gateway.codes import Code
from gateway.dialect import (
    Again,
    Call,
    Delivered,
    Found,
    FoundAlert,
    Held,
    Json,
    Missing,
    Outcome,
    Pending,
    Rejected,
    Request,
    Response,
    Sending,
    segment,
)
from gateway.mapping import CARRIED
from mappings.opsgenie.alert import ALERT, fitted_key
from mappings.opsgenie.words import reason

FIRST_LOOK, LONGEST_PAUSE = 0.25, 30.0
"""Seconds until a receipt is asked about first; each further pause is twice as long, up to the longest."""
COMMON = ("user", "source", "note")
ACTIONS = ("unacknowledge", "snooze", "escalate", "assign", "teams", "responders")
"""What the vendor can be asked for beyond the common operations, by the last word of its path."""
PUT = ("message", "description", "priority")
"""The fields that have a call of their own."""

# --- steps and receipts ------------------------------------------------------------------------------------

Steps = Mapping[str, Request]
"""The requests that one operation takes, by a name under which a receipt remembers how far it is."""


def _run(sending: Sending, steps: Steps, seen: dict[str, Json] | None = None) -> Call:
    """Sends the steps one after the other, each once the one before is confirmed."""
    ids: dict[str, str] = {}
    held = sending.seen.get("receipt")
    receipt: dict[str, Any] = held if isinstance(held, dict) and held.get("step") in steps else {}
    left = list(steps)
    if receipt:
        outcome = yield from _look(sending, receipt)
        if not isinstance(outcome, Delivered):
            return outcome
        ids.update(outcome.ids)
        left = left[left.index(receipt["step"]) + 1 :]
    for name in left:
        answer = yield steps[name]
        body = answer.json()
        request = body.get("requestId") if isinstance(body, dict) else None
        if answer.status == 404:
            return Missing()
        if answer.status == 422:
            return _refused(answer)
        if answer.status == 202 and not isinstance(request, str):
            return Again(reason="202 without a request id, so nobody can tell what becomes of it", code=Code.NO_ID)
        if isinstance(request, str) and request:
            return Pending(after=FIRST_LOOK, seen={"receipt": {"step": name, "request": request, "looks": 0}})
    return Delivered(ids=ids, seen=seen or {})


def _look(sending: Sending, receipt: dict[str, Any]) -> Generator[Request, Response, Outcome]:
    """Asks what became of a request: done, failed, discarded, or not yet."""
    path = f"/v2/alerts/requests/{segment(str(receipt.get('request')))}"
    answer = yield Request(method="GET", path=path, accepts=frozenset({404}))
    body = answer.json()
    data = body.get("data") if isinstance(body, dict) else None
    looks = receipt["looks"] + 1 if isinstance(receipt.get("looks"), int) else 1
    not_yet = Pending(
        after=min(FIRST_LOOK * 2.0 ** min(looks, 16), LONGEST_PAUSE), seen={"receipt": {**receipt, "looks": looks}}
    )
    if answer.status == 404 or not isinstance(data, dict):
        return not_yet
    said = str(data.get("status") or "")
    if "discard" in said.lower():
        return Rejected(reason=f"discarded: {said}")
    if data.get("isSuccess") is True or data.get("success") is True:
        alert = data.get("alertId")
        return Delivered(ids={"id": alert} if isinstance(alert, str) and alert else {})
    if not data.get("processedAt"):
        return not_yet
    if sending.operation is not Operation.CREATE and "not exist" in said.lower():
        return Missing()
    return Rejected(reason=f"failed: {said}")


def _refused(answer: Response) -> Outcome:
    """A refusal of the content, unless it is of the key: its form is wrong, and no alert's fault."""
    why = f"422 {reason(answer)}".strip()
    return Held(reason=why, status=422) if "key format" in why.lower() else Rejected(reason=why)


def _write(method: str, sending: Sending, rest: str, body: Json, query: Mapping[str, str] | None = None) -> Request:
    """A request about the alert that the alias finds, or its id where it has no alias there."""
    named = {"identifierType": "alias"} if sending.key is not None else {}
    name = fitted_key(sending.key) if sending.key is not None else sending.ids.get("id", "{id}")
    return Request(
        method=method,
        path=f"/v2/alerts/{segment(name)}{rest}",
        query={**named, **(query or {})},
        accepts=frozenset({404, 422}),
        **({"body": body} if method != "DELETE" else {}),
    )


def _common(sending: Sending) -> dict[str, Json]:
    """Who did it and why, where the caller said so in the vendor's own words."""
    said = sending.verbatim or {}
    return {name: said[name] for name in COMMON if name in said}


# --- what is there -----------------------------------------------------------------------------------------


def _said(body: Mapping[str, Json]) -> dict[str, Json]:
    """What was said there last, for the next update to go by."""
    details, tags = body.get("details"), body.get("tags")
    return {
        **{name: fingerprint(body[name]) for name in PUT if name in body},
        "details": {key: fingerprint(value) for key, value in details.items()} if isinstance(details, dict) else {},
        "tags": list(tags) if isinstance(tags, list) else [],
    }


def create(sending: Sending) -> Call:
    """Creates the alert, or counts it once more where one with its alias is open."""
    alias = {"alias": fitted_key(sending.key)} if sending.key is not None else {}
    post = Request(
        method="POST", path="/v2/alerts", body={**sending.body, **alias}, accepts=frozenset({422}), creates=True
    )
    return (yield from _run(sending, {"create": post}, {"said": _said(sending.body)}))


def update(sending: Sending) -> Call:
    """Changes what is otherwise than it was said there last: one call per field. A repeat that changes nothing is
    counted there, as it is for every caller."""
    if not sending.body:
        return (yield from _run(sending, _retelling(sending)))
    steps = _changing(sending) if _says_more(sending) else {}
    if not steps:
        return (yield from create(sending))
    return (yield from _run(sending, steps, {"said": _said(sending.body)}))


def _says_more(sending: Sending) -> bool:
    """Whether anything is said beside what is carried along with every update."""
    details = sending.patch.get("details")
    carried_alone = isinstance(details, dict) and details.keys() <= {CARRIED}
    return bool(sending.patch.keys() - ({"details"} if carried_alone else set()))


def _changing(sending: Sending) -> Steps:
    """The steps from what was said there last to what the alert is now."""
    body, common = sending.body, _common(sending)
    held = sending.seen.get("said")
    last: dict[str, Any] = held if isinstance(held, dict) else {}
    steps: dict[str, Request] = {}
    for name in PUT:
        is_other = fingerprint(body[name]) != last[name] if name in last and name in body else name in sending.patch
        if name in body and is_other:
            steps[name] = _write("PUT", sending, f"/{name}", {name: body[name]})
    _list_steps(sending, steps, body.get("tags") or [], last.get("tags") or [], common)
    _detail_steps(sending, steps, body.get("details") or {}, last.get("details") or {}, common)
    return steps


def _list_steps(
    sending: Sending, steps: dict[str, Request], tags: list[str], before: list[str], common: dict[str, Json]
) -> None:
    more, fewer = [tag for tag in tags if tag not in before], [tag for tag in before if tag not in tags]
    if more:
        steps["tags"] = _write("POST", sending, "/tags", {"tags": more, **common})
    if fewer:
        steps["fewer tags"] = _write("DELETE", sending, "/tags", UNSAID, {"tags": ",".join(fewer)})


def _detail_steps(
    sending: Sending, steps: dict[str, Request], held: dict[str, Json], before: dict[str, str], common: dict[str, Json]
) -> None:
    more = {key: value for key, value in held.items() if before.get(key) != fingerprint(value)}
    fewer = [key for key in before if key not in held]
    if more:
        steps["details"] = _write("POST", sending, "/details", {"details": more, **common})
    if fewer:
        steps["fewer details"] = _write("DELETE", sending, "/details", UNSAID, {"keys": ",".join(fewer)})


UNSAID: Json = None
"""The body of a request that has none."""


def _retelling(sending: Sending) -> Steps:
    """A caller's own words about an alert that was there before the gateway."""
    said, common = sending.verbatim or {}, _common(sending)
    steps = {name: _write("PUT", sending, f"/{name}", {name: said[name]}) for name in PUT if name in said}
    for name in ("tags", "details"):
        if name in said:
            steps[name] = _write("POST", sending, f"/{name}", {name: said[name], **common})
    return steps


# --- what is done to it ------------------------------------------------------------------------------------


def _doing(word: str) -> Callable[[Sending], Call]:
    def call(sending: Sending) -> Call:
        return (yield from _run(sending, {word: _write("POST", sending, f"/{word}", _common(sending))}))

    return call


def delete(sending: Sending) -> Call:
    """Deletes the alert."""
    query = {name: str(value) for name, value in _common(sending).items() if name != "note"}
    return (yield from _run(sending, {"delete": _write("DELETE", sending, "", UNSAID, query)}))


def comment(sending: Sending) -> Call:
    """Adds a note, or does what a caller of the same vendor asked for beyond the common operations."""
    said = sending.verbatim or {}
    action = said.get("action")
    fields = {name: value for name, value in said.items() if name not in ("action", "name")}
    if action == "actions":
        name = f"actions/{segment(str(said.get('name')))}"
        return (yield from _run(sending, {"action": _write("POST", sending, f"/{name}", fields)}))
    if action in ACTIONS:
        return (yield from _run(sending, {str(action): _write("POST", sending, f"/{action}", fields)}))
    note = {**_common(sending), "note": said.get("note") or sending.comment}
    return (yield from _run(sending, {"notes": _write("POST", sending, "/notes", note)}))


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: create,
    Operation.UPDATE: update,
    Operation.REOPEN: create,
    Operation.ACKNOWLEDGE: _doing("acknowledge"),
    Operation.RESOLVE: _doing("close"),
    Operation.DELETE: delete,
    Operation.COMMENT: comment,
}


def read_one(sending: Sending) -> Call:
    """The alert as it is there now. Where the address has no such call, nothing is known of it."""
    name = sending.ids.get("id", "{id}")
    answer = yield Request(method="GET", path=f"/v2/alerts/{segment(name)}", accepts=frozenset({403, 404, 405}))
    body = answer.json()
    data = body.get("data") if isinstance(body, dict) else None
    if answer.status == 404 and isinstance(body, dict) and "requestId" in body:
        return Missing()
    if not isinstance(data, dict) or answer.status >= 400:
        return Found(())
    return Found((FoundAlert(id=str(data.get("id")), flat=ALERT.found(data)),))


def authorise(request: Request, credential: str) -> Request:
    """The key of an API integration, under the vendor's own scheme."""
    return request.with_headers({"Authorization": f"GenieKey {credential}"})
