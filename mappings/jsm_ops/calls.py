"""Calls to Jira Service Management's Ops API. Alerts are addressed by id, which the creating request's state tells, and
looked up by alias where it is not known.

An alert closed there can still be addressed, so an update looks at its status first: one that people closed is opened
anew. An API token may not delete, so tags and details are not removed and an alert is closed instead.

Source: https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/. How writes are confirmed
is in `mappings.opsgenie.steps`. It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

from msgspec import structs

from gateway.canonical import Operation
from gateway.dialect import segment
from gateway.outcome import Again, Call, Found, FoundAlert, Json, Missing, Outcome, Rejected, Request, Response, Sending
from mappings.jsm_ops.alert import ALERT, EXTRA
from mappings.opsgenie import steps
from mappings.opsgenie.alert import fitted_key
from mappings.opsgenie.steps import Api

NOBODY = "{id}"
"""Placeholder in a path for an id that has to be looked up first."""
MOST_LISTED = "100"

# --- the alert that is meant -------------------------------------------------------------------------------


def _write(sending: Sending, method: str, rest: str, body: Json) -> Request:
    return Request(
        method=method,
        path=f"/alerts/{segment(sending.ids.get('id') or NOBODY)}{rest}",
        accepts=frozenset({404, 422}),
        **({"body": body} if body else {}),
    )


def _listing(query: str) -> Request:
    asked = {"query": query} if query else {}
    newest = {"sort": "createdAt", "order": "desc", "size": MOST_LISTED}
    return Request(method="GET", path="/alerts", query={**asked, **newest}, is_list=True)


def _by_alias(key: str) -> str:
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'alias:"{quoted}"'


def _open_one(sending: Sending) -> Generator[Request, Response, str | Outcome]:
    """Returns the id of the open alert with the alias (there is at most one), or the outcome if none is found."""
    alias = fitted_key(sending.key or "")
    answer = yield _listing(_by_alias(alias))
    listed = _values(answer)
    if listed is None:
        return Again(reason=f"{answer.status} without a list of alerts")
    for one in listed:
        if one.get("alias") == alias and one.get("status") != "closed" and isinstance(one.get("id"), str):
            return str(one["id"])
    return Missing()


def _values(answer: Response) -> list[dict[str, Json]] | None:
    values = answer.object().get("values")
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else None


def _address(sending: Sending, request: Request) -> Generator[Request, Response, Request | Outcome]:
    """Returns a request with the alert's id, looked up if need be, or the outcome if none is found."""
    if NOBODY not in request.path or sending.ids.get("id") or sending.key is None:
        return request
    found = yield from _open_one(sending)
    if not isinstance(found, str):
        return found
    return structs.replace(request, path=request.path.replace(NOBODY, segment(found), 1))


API = Api(
    alerts="/alerts",
    change="PATCH",
    details=EXTRA,
    details_at="/extra-properties",
    write=_write,
    address=_address,
    at_once=frozenset({"notes"}),
    actions={"escalate": "escalationId", "assign": "accountId", "responders": "id", "action": "actionName"},
)


# --- what is done to it ------------------------------------------------------------------------------------


def _is_over(sending: Sending) -> Generator[Request, Response, bool]:
    """Returns whether an alert whose id is known is closed there, or gone."""
    if not sending.ids.get("id"):
        return False
    answer = yield _one(sending)
    shown = steps.bare(answer)
    return answer.status == 404 or (shown is not None and shown.get("status") == "closed")


def _one(sending: Sending) -> Request:
    return Request(method="GET", path=f"/alerts/{segment(sending.ids.get('id') or NOBODY)}", accepts=frozenset({404}))


def update(sending: Sending) -> Call:
    """Sends the fields that differ from what was last sent; returns `Missing` for an alert that people closed there."""
    is_first = steps.changes_fields(API, sending) and not steps.has_receipt(sending)
    if is_first and (yield from _is_over(sending)):
        return Missing()
    return (yield from steps.update(API, sending))


def close(sending: Sending) -> Call:
    """Closes the alert. That it was closed there before is no failure: it is `Missing` then."""
    outcome = yield from steps.do(API, "close", sending)
    if isinstance(outcome, Rejected) and (yield from _is_over(sending)):
        return Missing()
    return outcome


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: partial(steps.create, API),
    Operation.UPDATE: update,
    Operation.REOPEN: partial(steps.create, API),
    Operation.ACKNOWLEDGE: partial(steps.do, API, "acknowledge"),
    Operation.RESOLVE: close,
    Operation.COMMENT: partial(steps.comment, API),
}


# --- what is there -----------------------------------------------------------------------------------------


def read_one(sending: Sending) -> Call:
    """Reads the alert as it is there now."""
    answer = yield _one(sending)
    shown = steps.bare(answer)
    if answer.status == 404:
        return Missing()
    return Found(() if shown is None or "id" not in shown else (_found(shown),))


def read_many(sending: Sending) -> Call:
    """Reads the newest alerts, or the open one of an alias, with all its fields."""
    if sending.key is None:
        listed = _values((yield _listing("")))
        if listed is None:
            return Again(reason="the answer is not a list of alerts")
        return Found(tuple(_found(one) for one in listed if isinstance(one.get("id"), str)))
    found = yield from _open_one(sending)
    if isinstance(found, Missing):
        return Found(())
    if not isinstance(found, str):
        return found
    answer = yield from read_one(structs.replace(sending, ids={"id": found}))
    return Found(()) if isinstance(answer, Missing) else answer


def _found(shown: dict[str, Json]) -> FoundAlert:
    """Returns an alert as found there, with its ids and, while it is open, the alias that finds it."""
    alias = shown.get("alias") if shown.get("status") != "closed" else None
    named = {"alias": alias} if isinstance(alias, str) and alias else {}
    return FoundAlert(id=str(shown["id"]), flat=ALERT.found(shown), ids={**steps.short_id(shown), **named})
