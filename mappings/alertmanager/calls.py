"""Alertmanager as an upstream: open alerts are posted again and again, and those that somebody has acknowledged are
silenced.

An alert that nobody posts again ends there at its `endsAt`, and its labels are its identity until then: they are sent
unchanged to the end, and what would change in them travels as annotations. Sources:
https://prometheus.io/docs/alerting/latest/clients/ and the API's description,
https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. It must not know who calls.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta

from gateway.canonical import Operation
from gateway.dialect import segment
from gateway.mapping.values import iso
from gateway.outcome import Call, Delivered, Found, FoundAlert, Json, Missing, Rejected, Request, Response, Sending
from mappings.alertmanager.alert import ALERT, fingerprint, read_moment

HOLDS = timedelta(minutes=15)
"""How long an alert lasts there unless it is posted again."""
RENEWED_AFTER = 240.0
"""Seconds after which it is posted again: three more times before it would end."""
LASTS = timedelta(hours=1)
"""How long a silence lasts unless it is renewed with its alert."""
AUTHOR = "alert-gateway"
TELLING = {"alert_gateway_key": 0, "alertname": 1}
"""The labels that tell alerts apart best, with their rank."""
ALERTS, SILENCES = "/api/v2/alerts", "/api/v2/silences"


def identity_of(sending: Sending) -> dict[str, str]:
    """Returns the labels that the alert has there, or will have."""
    for labels in (sending.seen.get("labels"), sending.body.get("labels"), (sending.verbatim or {}).get("labels")):
        if isinstance(labels, dict) and labels:
            return labels
    return {}


def _alert(sending: Sending, ends: datetime) -> tuple[dict[str, Json], dict[str, str]]:
    """Returns the alert as it is posted, and by canonical path what its labels can no longer say."""
    alert, altered = under(identity_of(sending), sending.body)
    starts = read_moment(alert.get("startsAt"))
    if starts and starts > ends:  # its sender's clock is ahead; an alert that ends before it began would be refused
        del alert["startsAt"]
    return {**alert, "endsAt": iso(ends)}, altered


def under(identity: dict[str, str], words: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """Returns an alert under the labels that it had first, with labels that have changed since as annotations, and by
    canonical path why those differ."""
    said = words.get("labels")
    annotations = dict(words.get("annotations") or {})
    altered: dict[str, str] = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        if identity.get(name) != value and name not in annotations:
            annotations[name] = value
            path = "severity" if name == "severity" else "labels"
            altered[path] = "labels stay as first sent, as they identify the alert; sent as an annotation"
    rest = {name: value for name, value in words.items() if name not in ("labels", "annotations", "endsAt")}
    noted = {"annotations": annotations} if annotations else {}
    return {"labels": identity, **noted, **rest}, altered


def _told(sending: Sending, altered: Mapping[str, str], **seen: Json) -> Delivered:
    identity = identity_of(sending)
    return Delivered(
        ids={"id": fingerprint(identity)},
        seen={"labels": identity, **seen},
        altered=dict(altered),
        renew=RENEWED_AFTER,
    )


def tell(sending: Sending) -> Call:
    """Posts the alert as it is now; if it is silenced because it was acknowledged, prolongs the silence too."""
    alert, altered = _alert(sending, sending.at + HOLDS)
    yield Request(method="POST", path=ALERTS, body=[alert])
    if sending.operation is Operation.UPDATE and sending.seen.get("silence"):
        silenced = yield from _silence(sending)
        return _told(sending, altered, **silenced)
    return _told(sending, altered)


def acknowledge(sending: Sending) -> Call:
    """Silences this alert alone, for as long as it is open."""
    if not identity_of(sending):
        return Missing()
    silenced = yield from _silence(sending)
    return _told(sending, {}, **silenced)


def _silence(sending: Sending) -> Generator[Request, Response, dict[str, Json]]:
    """Posts a silence of exactly this label set, or prolongs the existing one; returns its id and its start. To prolong
    one, its original start must be given: with another, it is taken for another silence."""
    matchers = _matchers(sending)
    body: dict[str, Json] = {
        "matchers": matchers,
        "startsAt": iso(sending.at),
        "endsAt": iso(sending.at + LASTS),
        "createdBy": AUTHOR,
        "comment": sending.comment or "acknowledged",
    }
    held, since = sending.seen.get("silence"), sending.seen.get("silenced_at") or body["startsAt"]
    if not held:
        held, since = yield from _silence_there(sending)
    if isinstance(held, str) and held:
        longer = {"id": held, **body, "startsAt": since}
        answer = yield Request(method="POST", path=SILENCES, body=longer, accepts=frozenset({400, 404}))
        if answer.status < 400 and (_silence_in(answer.json()) or held) == held:
            return {"silence": held, "silenced_at": since}
        if answer.status < 400:
            return {"silence": _silence_in(answer.json()), "silenced_at": body["startsAt"]}
    answer = yield Request(method="POST", path=SILENCES, body=body)
    return {"silence": _silence_in(answer.json()), "silenced_at": body["startsAt"]}


def _matchers(sending: Sending) -> list[dict[str, Json]]:
    return [
        {"name": name, "value": value, "isRegex": False, "isEqual": True}
        for name, value in identity_of(sending).items()
    ]


def _silence_there(sending: Sending) -> Generator[Request, Response, tuple[Json, Json]]:
    """Returns id and start of the gateway's own silence of exactly this label set, if there is one: it may have been
    made though the answer was lost, and would then outlast the alert unknown to anybody, and keep the next one quiet.
    If silences cannot be read, none is known."""
    refused = frozenset({400, 401, 403, 404, 405})
    query = {"filter": _filter(identity_of(sending))}
    answer = yield Request(method="GET", path=SILENCES, query=query, accepts=refused, is_list=True)
    listed = answer.json() if answer.status < 400 else None
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and _is_ours(one, _matchers(sending)):
            return one.get("id"), one.get("startsAt")
    return None, None


def _filter(identity: Mapping[str, str]) -> str:
    """Returns a matcher of the alert's silence to filter by, on a label that every release can read in a filter."""
    plain = [name for name in identity if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name)]
    name = min(plain or identity, key=lambda label: TELLING.get(label, len(TELLING)))
    value = identity[name].replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{name}="{value}"'


def _is_ours(silence: Mapping[str, Json], matchers: list[dict[str, Json]]) -> bool:
    """Whether a silence was made by the gateway for an alert of these labels, and has not expired."""
    status, found = silence.get("status"), silence.get("matchers")
    if silence.get("createdBy") != AUTHOR or not isinstance(status, dict) or status.get("state") == "expired":
        return False
    if not isinstance(found, list) or len(found) != len(matchers):
        return False
    usual = {"isRegex": False, "isEqual": True}  # releases before 0.22 have no `isEqual`
    return all({**usual, **one} in matchers for one in found if isinstance(one, dict))


def _silence_in(body: Json) -> str | None:
    found = body.get("silenceID") if isinstance(body, dict) else None
    return found if isinstance(found, str) and found else None


def resolve(sending: Sending) -> Call:
    """Posts the alert as resolved, and expires its own silence."""
    if not identity_of(sending):
        return Missing()
    alert, altered = _alert(sending, sending.at)
    yield Request(method="POST", path=ALERTS, body=[alert])
    held = sending.seen.get("silence")
    if isinstance(held, str) and held:
        gone = frozenset({400, 404, 500})  # some releases answer 500 to a silence that they do not know
        yield Request(method="DELETE", path=f"/api/v2/silence/{segment(held)}", accepts=gone)
    return Delivered(
        ids={"id": fingerprint(identity_of(sending))}, seen={"silence": None, "silenced_at": None}, altered=altered
    )


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: tell,
    Operation.UPDATE: tell,
    Operation.REOPEN: tell,
    Operation.ACKNOWLEDGE: acknowledge,
    Operation.RESOLVE: resolve,
}


def list_all(sending: Sending) -> Call:
    """Returns the alerts that are there now, inhibited and silenced ones too."""
    answer = yield Request(method="GET", path=ALERTS, is_list=True)
    body = answer.json()
    if not isinstance(body, list):
        return Rejected(reason="the list could not be read")
    found = [one for one in body if isinstance(one, dict) and one.get("fingerprint")]
    return Found(tuple(FoundAlert(id=str(one["fingerprint"]), flat=ALERT.found(one)) for one in found))


def authorise(request: Request, credential: str) -> Request:
    """Adds a bearer token, or `user:password`: Alertmanager itself asks for neither, a proxy before it may."""
    if not credential:
        return request
    if ":" not in credential:
        return request.with_headers({"Authorization": f"Bearer {credential}"})
    return request.with_headers({"Authorization": f"Basic {in_base64(credential)}"})


def in_base64(text: str) -> str:
    """Returns a text in base64, as Basic authentication wants it."""
    return base64.b64encode(text.encode()).decode()
