"""IBM Cloud Monitoring as an upstream: tokens, versions, names that are taken.

Source: https://cloud.ibm.com/docs/monitoring?topic=monitoring-alert_api and, for tokens,
https://cloud.ibm.com/docs/monitoring?topic=monitoring-mon-curl. It must not know who asked.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from msgspec import UNSET, Struct

from gateway.canonical import Flat
from gateway.config.secrets import Secret
from gateway.dialect import segment
from gateway.errors import ProblemKind
from gateway.mapping.table import CARRIED
from gateway.mapping.wire import get, merged
from gateway.outcome import (
    Again,
    Call,
    Changed,
    Delivered,
    Found,
    FoundAlert,
    Json,
    Missing,
    Rejected,
    Request,
    Response,
    Sending,
    Token,
)
from mappings.ibm_monitoring.alert import RULE

REREADS = 3
TAKEN = frozenset({422})


class Settings(Struct, kw_only=True):
    """`iam_key` is exchanged for tokens at `iam_url` and renewed; `key` instead of it is a Monitor API token."""

    iam_key: Secret | None = None
    """The IAM API key, instead of `key`."""
    iam_url: str = "https://iam.cloud.ibm.com"
    """Where it is exchanged for tokens."""


def exchange(settings: Settings, credential: str) -> Generator[Request, Response, Token]:
    """Exchanges an IAM API key for an access token."""
    answer = yield Request(
        method="POST",
        path=f"{settings.iam_url.rstrip('/')}/identity/token",
        absolute=True,
        form={
            "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
            "response_type": "cloud_iam",
            "apikey": credential,
        },
    )
    found = answer.object()
    lifetime = found.get("expires_in")
    return Token(str(found.get("access_token") or ""), float(lifetime) if isinstance(lifetime, int) else 3600.0)


def reason(response: Response) -> str:
    """Returns the service's words in a refusal, in either of its two error shapes."""
    body = response.object()
    errors = body.get("errors")
    if isinstance(errors, list):
        said = [error for error in errors if isinstance(error, dict)]
        return "; ".join(": ".join(str(e[key]) for key in ("message", "reason") if e.get(key)) for e in said)
    return str(body.get("message") or body.get("error") or "")


def _alert_in(response: Response) -> dict[str, Json]:
    body = response.object()
    found = body.get("alert", body)
    return found if isinstance(found, dict) else {}


def _known(alert: dict[str, Json]) -> Delivered:
    ids = {"id": str(alert["id"])} if alert.get("id") is not None else {}
    return Delivered(ids=ids, seen={"version": alert["version"]} if "version" in alert else {})


def _path(sending: Sending) -> str:
    return f"/api/alerts/{segment(sending.ids.get('id', '{id}'))}"


def create(sending: Sending) -> Call:
    """Creates the rule. If its name is taken, it is tried once more with the gateway's id added, unless the caller
    chose the name itself."""
    body = sending.body
    answer = yield Request(method="POST", path="/api/alerts", body={"alert": body}, accepts=TAKEN, creates=True)
    if answer.status != 422:
        return _known(_alert_in(answer))
    if sending.is_akin:
        return Rejected(reason=f"422 {reason(answer)}", kind=ProblemKind.NAME_TAKEN)
    body = {**body, "name": sending.renamed(body["name"])}
    answer = yield Request(method="POST", path="/api/alerts", body={"alert": body}, creates=True)
    known = _known(_alert_in(answer))
    return Delivered(ids=known.ids, seen=known.seen, altered={"summary": "the name was already in use there"})


def _change(sending: Sending, fields: dict[str, Json]) -> Call:
    """Reads the rule, lays the fields over it and puts it back; if its version has changed meanwhile, reads it
    again."""
    why = ""
    renamed: dict[str, str] = {}
    for _ in range(REREADS + 1):
        answer = yield Request(method="GET", path=_path(sending), accepts=frozenset({404}), is_list=True)
        if answer.status == 404:
            return Missing()
        found = _alert_in(answer)
        if found.get("id") is None:  # laid over nothing, the fields would replace the whole rule
            return Again(reason=f"{answer.status} without the alert")
        moved = sending.seen.get("version") not in (None, found.get("version"))
        if moved and {**found, **_laid_over(found, fields, sending)} == found:
            known = _known(found)  # an attempt whose answer was lost did it, or somebody else the very same
            return Delivered(ids=known.ids, seen=known.seen, altered=renamed)
        if moved and sending.strict:
            return Changed(
                reason="409 Conflict version: somebody changed the alert there",
                found=_flat(found),
                seen={"version": found.get("version")},
            )
        laid = _laid_over(found, fields, sending)
        answer = yield Request(
            method="PUT",
            path=_path(sending),
            body={"alert": laid},
            accepts=frozenset({404, 409, 422}),
        )
        if answer.status == 404:
            return Missing()
        is_named = laid.get("name") != found.get("name")
        if answer.status == 422 and not sending.is_akin and not renamed and is_named:
            renamed = {"summary": "the name was already in use there"}
            fields = {**fields, "name": sending.renamed(laid["name"])}
            continue
        if answer.status == 422:  # other fields are refused so, too
            kind = ProblemKind.NAME_TAKEN if is_named else ProblemKind.REFUSED
            return Rejected(reason=f"422 {reason(answer)}", kind=kind)
        if answer.status != 409:
            known = _known({"version": None, **_alert_in(answer)})  # the version that was read ended with the PUT
            altered = {"version": "applied on top of a change made there meanwhile"} if moved else {}
            return Delivered(ids=known.ids, seen=known.seen, altered={**altered, **renamed})
        why = f"409 {reason(answer)}"
    return Again(reason=why, code=ProblemKind.CONFLICT)


def _laid_over(found: dict[str, Json], fields: dict[str, Json], sending: Sending) -> dict[str, Json]:
    """Returns the rule with the fields laid over it. Annotations, which others use too, are merged key by key if the
    caller's dialect does not know them; what is carried in them is replaced as a whole."""
    laid: dict[str, Any] = {**found, **fields}
    for one, other in (("severity", "severityLabel"), ("severityLabel", "severity")):
        if one in fields and other not in fields:
            laid.pop(other, None)  # the old one of the pair would contradict the new
    if sending.is_akin:
        return laid
    if not laid.get("name") and sending.body.get("name"):  # a gateway shows none where the alert's sender gave none
        laid["name"] = sending.body["name"]
    noted, said = found.get("annotations"), fields.get("annotations")
    if isinstance(noted, dict) and isinstance(said, dict):
        laid["annotations"] = merged(noted, said)
    carried = get(sending.body, f"annotations.{CARRIED}")
    if isinstance(laid.get("annotations"), dict):
        others = {name: value for name, value in laid["annotations"].items() if name != CARRIED}
        laid["annotations"] = others if carried is UNSET else {**others, CARRIED: carried}
    return laid


def update(sending: Sending) -> Call:
    """Lays what changed over the rule."""
    return (yield from _change(sending, sending.patch))


def disable(sending: Sending) -> Call:
    """Switches the rule off, which is what a resolve is to a rule."""
    return (yield from _change(sending, {**sending.patch, "enabled": False}))


def enable(sending: Sending) -> Call:
    """Switches the rule on, which is what a reopen is to a rule."""
    return (yield from _change(sending, {**sending.patch, "enabled": True}))


def delete(sending: Sending) -> Call:
    """Deletes the rule; one that is gone already counts as deleted."""
    answer = yield Request(method="DELETE", path=_path(sending), accepts=frozenset({404}))
    return Missing() if answer.status == 404 else Delivered()


def _flat(alert: dict[str, Json]) -> Flat:
    return RULE.found(alert)


def _found(alert: dict[str, Json]) -> FoundAlert:
    seen = {"version": alert.get("version")}
    return FoundAlert(id=str(alert.get("id")), flat=_flat(alert), seen=seen, carries=RULE.carries(alert))


def read_one(sending: Sending) -> Call:
    """Returns the rule as it is there now."""
    answer = yield Request(method="GET", path=_path(sending), accepts=frozenset({404}), is_list=True)
    if answer.status == 404:
        return Missing()
    found = _alert_in(answer)
    if found.get("id") is None:
        return Rejected(reason="the alert could not be read")
    return Found((_found(found),))


def read_all(sending: Sending) -> Call:
    """Returns every rule there, whether the list is flat or each alert is wrapped."""
    answer = yield Request(method="GET", path="/api/alerts", is_list=True)
    listed = answer.object().get("alerts")
    if not isinstance(listed, list):
        return Rejected(reason="the list could not be read")
    alerts = [item.get("alert", item) for item in listed if isinstance(item, dict)]
    shown = [alert for alert in alerts if isinstance(alert, dict) and alert.get("id") is not None]
    return Found(tuple(_found(alert) for alert in shown))
