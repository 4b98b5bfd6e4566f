"""Calls to Opsgenie, with the key of an API integration: alerts are addressed by alias, which finds the open one.

Jira Service Management's integration events API takes the same calls, but has none that changes a field. How writes are
confirmed is in `steps`. It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gateway.canonical import Operation
from gateway.dialect import segment
from gateway.outcome import Call, Found, FoundAlert, Json, Missing, Request, Sending
from mappings.opsgenie import steps
from mappings.opsgenie.alert import ALERT, fitted_key
from mappings.opsgenie.steps import UNSAID, Api

EVERYWHERE = ("/acknowledge", "/close", "/notes")
"""The calls on an alert that the integration events API has too. It has no others: a 405 says so, as a 404 does."""


def _write(sending: Sending, method: str, rest: str, body: Json, query: Mapping[str, str] | None = None) -> Request:
    """Returns a request about an alert, addressed by alias, or by id if it has no alias there."""
    named = {"identifierType": "alias"} if sending.key is not None else {}
    name = fitted_key(sending.key) if sending.key is not None else sending.ids.get("id", "{id}")
    return Request(
        method=method,
        path=f"/v2/alerts/{segment(name)}{rest}",
        query={**named, **(query or {})},
        accepts=frozenset({404, 422} if rest in EVERYWHERE else {404, 405, 422}),
        **({"body": body} if method != "DELETE" else {}),
    )


def _remove(sending: Sending, what: str, names: list[str]) -> Request:
    listed = {"tags" if what == "tags" else "keys": ",".join(names)}
    by = {name: str(value) for name, value in steps.common(sending).items()}
    return _write(sending, "DELETE", f"/{what}", UNSAID, {**listed, **by})


API = Api(
    alerts="/v2/alerts",
    change="PUT",
    details="details",
    details_at="/details",
    write=_write,
    remove=_remove,
    actions={
        "escalate": "escalation",
        "assign": "owner",
        "teams": "team",
        "responders": "responder",
        "actions": "name",
    },
    by_alias=True,
    takes_notes=True,
)


def delete(sending: Sending) -> Call:
    """Deletes the alert; closes it where there is nothing to delete, which may mean that there is no such call."""
    query = {name: str(value) for name, value in steps.common(sending).items() if name != "note"}
    deleting = {"delete": _write(sending, "DELETE", "", UNSAID, query)}
    return (yield from steps.either(API, sending, deleting, "close", steps.common(sending)))


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: partial(steps.create, API),
    Operation.UPDATE: partial(steps.update, API),
    Operation.REOPEN: partial(steps.create, API),
    Operation.ACKNOWLEDGE: partial(steps.do, API, "acknowledge"),
    Operation.RESOLVE: partial(steps.do, API, "close"),
    Operation.DELETE: delete,
    Operation.COMMENT: partial(steps.comment, API),
}


def read_one(sending: Sending) -> Call:
    """Reads the alert as it is there now; finds nothing where the address has no such call or the key may not read."""
    name = sending.ids.get("id", "{id}")
    answer = yield Request(method="GET", path=f"/v2/alerts/{segment(name)}", accepts=frozenset({403, 404, 405}))
    body = answer.object()
    data = body.get("data")
    if answer.status == 404 and "requestId" in body:
        return Missing()
    if not isinstance(data, dict) or answer.status >= 400:
        return Found(())
    return Found((FoundAlert(id=str(data.get("id")), flat=ALERT.found(data), ids=steps.short_id(data)),))


def authorise(request: Request, credential: str) -> Request:
    """Adds the key of an API integration, under the vendor's own scheme."""
    return request.with_headers({"Authorization": f"GenieKey {credential}"})
