"""Alertmanager as an upstream: open alerts are posted again and again, and those that somebody has acknowledged are
silenced.

An alert that nobody posts again ends there at its `endsAt`, and its labels are its identity until then: they are sent
unchanged to the end, and what would change in them travels as annotations. Sources:
https://prometheus.io/docs/alerting/latest/clients/ and the API's description,
https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. It must not know who calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta

import msgspec
from msgspec import structs

from gateway.canonical import Operation
from gateway.dialect import segment
from gateway.mapping.values import iso
from gateway.outcome import Call, Delivered, Found, FoundAlert, Json, Missing, Rejected, Request, Response, Sending
from mappings.alertmanager.alert import ALERT, KEY, PLACE, fingerprint, fitted_name, is_uri, read_moment
from mappings.alertmanager.matchers import MOST_SILENCE
from mappings.alertmanager.words import reason

Labels = dict[str, str] | Rejected
"""The labels of an alert as it was taken, or why it was not."""
HOLDS = timedelta(minutes=15)
"""How long an alert lasts there unless it is posted again."""
RENEWED_AFTER = 240.0
"""Seconds after which it is posted again: three more times before it would end."""
LASTS = timedelta(hours=1)
"""How long a silence lasts unless it is renewed with its alert."""
AUTHOR = "alert-gateway"
TELLING = {"alert_gateway_key": 0, "alertname": 1}
"""The labels that tell alerts apart best, with their rank."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
"""The times that every release takes; callers also write others, such as `2026-11-27 04:00:00+0200`."""
LONGEST_FILTER = 500
"""Characters of a label's value to filter by, where another label has no more."""
ROOM, LONGEST_COMMENT = 512, 1024
"""Bytes of a silence for all but its matchers and its comment; characters of a comment that does not fit."""
MOST_MATCHED = MOST_SILENCE // 2
"""Bytes of a silence's matchers, where some can be left out."""
ALERTS, SILENCES = "/api/v2/alerts", "/api/v2/silences"


def identity_of(sending: Sending) -> dict[str, str]:
    """Returns the labels that the alert has there, may have there since an attempt whose answer was lost, or will
    have."""
    known = (sending.seen, sending.tried, sending.body, sending.verbatim or {})
    for labels in (words.get("labels") for words in known):
        if isinstance(labels, dict) and labels:
            return labels
    return {}


def _alert(sending: Sending, ends: datetime) -> tuple[dict[str, Json], dict[str, str]]:
    """Returns the alert as it is posted, and by canonical path what its labels can no longer say."""
    alert, altered = under(identity_of(sending), sending.body)
    starts = read_moment(alert.get("startsAt"))
    if starts and starts > ends:  # its sender's clock is ahead; an alert that ends before it began would be refused
        del alert["startsAt"]
    elif starts and not _MOMENT.fullmatch(str(alert["startsAt"])):
        alert["startsAt"] = iso(starts)
    if isinstance(source := alert.get("generatorURL"), str) and source and not is_uri(source):
        del alert["generatorURL"]  # a webhook's sender never checked it, and here the alert would be refused
        altered[PLACE] = "only a URI is accepted for it"
    return {**alert, "endsAt": iso(ends)}, altered


def under(identity: dict[str, str], words: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """Returns an alert under the labels that it had first, with labels that have changed since as annotations, and by
    canonical path why those differ."""
    said = words.get("labels")
    annotations = dict(words.get("annotations") or {})
    altered: dict[str, str] = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        if value not in (identity.get(name), identity.get(fitted_name(name))) and name not in annotations:
            annotations[name] = value
            path = "severity" if name == "severity" else "labels"
            altered[path] = "labels stay as first sent, as they identify the alert; sent as an annotation"
    rest = {name: value for name, value in words.items() if name not in ("labels", "annotations", "endsAt")}
    noted = {"annotations": annotations} if annotations else {}
    return {"labels": identity, **noted, **rest}, altered


def _posted(sending: Sending, alert: dict[str, Json], altered: dict[str, str]) -> Generator[Request, Response, Labels]:
    """Posts an alert and returns the labels that it has there. Releases before 0.27 refuse it for a name with another
    character than letters, digits and underscores, as Grafana's users choose: it is posted under plain names then. A
    caller of the same vendor would find its alert under other labels, and is refused as by that release."""
    answer = yield Request(method="POST", path=ALERTS, body=[alert], accepts=frozenset({400}))
    labels: dict[str, str] = alert["labels"]
    if answer.status < 400:
        return labels
    parts = {name: alert[name] for name in ("labels", "annotations") if name in alert}
    plain = {name: {fitted_name(key): text for key, text in part.items()} for name, part in parts.items()}
    if sending.is_akin or plain == parts or "invalid name" not in reason(answer):
        return Rejected(reason=f"400 {reason(answer)}".strip())
    yield Request(method="POST", path=ALERTS, body=[{**alert, **plain}])
    plainly = "this release takes letters, digits and underscores alone in names"
    altered["labels"] = "; ".join(why for why in (altered.get("labels"), plainly) if why)
    return plain["labels"]


def _told(identity: dict[str, str], altered: Mapping[str, str], **seen: Json) -> Delivered:
    return Delivered(
        ids={"id": fingerprint(identity)},
        seen={"labels": identity, "ended": False, **seen},
        altered=dict(altered),
        renew=RENEWED_AFTER,
    )


def tell(sending: Sending) -> Call:
    """Posts the alert as it is now; if it is silenced because it was acknowledged, prolongs the silence too."""
    alert, altered = _alert(sending, sending.at + HOLDS)
    labels = yield from _posted(sending, alert, altered)
    if isinstance(labels, Rejected):
        return labels
    if sending.operation is Operation.UPDATE and sending.seen.get("silence"):
        silenced = yield from _silence(sending)
        return _told(labels, altered, **silenced)
    return _told(labels, altered)


def acknowledge(sending: Sending) -> Call:
    """Silences this alert alone, for as long as it is open."""
    if not identity_of(sending):
        return Missing()
    silenced = yield from _silence(sending)
    return _told(identity_of(sending), {}, **silenced)


def _silence(sending: Sending) -> Generator[Request, Response, dict[str, Json]]:
    """Posts a silence of exactly this label set, or prolongs the existing one; returns its id and its start. To prolong
    one, its original start must be given: with another, it is taken for another silence."""
    matchers = _matchers(sending)
    body: dict[str, Json] = {
        "matchers": matchers,
        "startsAt": iso(sending.at),
        "endsAt": iso(sending.at + LASTS),
        "createdBy": AUTHOR,
        "comment": _fitting(sending.comment or "acknowledged", matchers),
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
    """Returns a matcher for each of the alert's labels. Where these are too large for a silence, and the gateway's key
    is among them, as many of the largest others are left out as have to be: the key alone tells the alert from every
    other. Without it, a silence of fewer labels could keep another alert quiet."""
    found: list[dict[str, Json]] = [
        {"name": name, "value": value, "isRegex": False, "isEqual": True}
        for name, value in identity_of(sending).items()
    ]
    others = sorted((one for one in found if one["name"] != KEY), key=_size)
    while others and len(others) < len(found) and _size(found) > MOST_MATCHED:
        found.remove(others.pop())
    return found


def _size(said: Json) -> int:
    return len(msgspec.json.encode(said))


def _fitting(comment: str, matchers: list[dict[str, Json]]) -> str:
    """Returns a comment that a silence with these matchers has room for."""
    if _size(comment) + _size(matchers) <= MOST_SILENCE - ROOM or len(comment) <= LONGEST_COMMENT:
        return comment
    return f"{comment[: LONGEST_COMMENT - 1]}…"


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
    """Returns a matcher of the alert's silence to filter by, on a label that every release can read in a filter and
    that is not too long for an address."""
    plain = [name for name in identity if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name)]
    name = min(
        plain or identity, key=lambda label: (len(identity[label]) > LONGEST_FILTER, TELLING.get(label, len(TELLING)))
    )
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
    labels = yield from _posted(sending, alert, altered)
    if isinstance(labels, Rejected):
        return labels
    held = sending.seen.get("silence")
    if isinstance(held, str) and held:
        gone = frozenset({400, 404, 500})  # some releases answer 500 to a silence that they do not know
        yield Request(method="DELETE", path=f"/api/v2/silence/{segment(held)}", accepts=gone)
    return Delivered(
        ids={"id": fingerprint(labels)},
        seen={"ended": True, "silence": None, "silenced_at": None},
        altered=altered,
    )


def reopen(sending: Sending) -> Call:
    """Posts the alert as open again. If its former labels say another severity, it gets new ones, as those would wake
    nobody or the wrong people; what is still open under the former, or silenced, ends first."""
    afresh = as_urgent_now(sending)
    if not sending.seen.get("ended") and (afresh is not sending or sending.seen.get("silence")):
        yield from resolve(sending)
    told = yield from tell(afresh)
    if not isinstance(told, Delivered):
        return told
    return structs.replace(told, seen={**told.seen, "silence": None, "silenced_at": None})


def as_urgent_now(sending: Sending) -> Sending:
    """Returns what is to be sent without the former labels, if these say another severity than the alert has now."""
    there, now = sending.seen.get("labels"), sending.body.get("labels")
    if not isinstance(there, dict) or not isinstance(now, dict) or there.get("severity") == now.get("severity"):
        return sending
    return structs.replace(sending, seen={}, tried={})


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: tell,
    Operation.UPDATE: tell,
    Operation.REOPEN: reopen,
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
    return request.with_basic(credential) if ":" in credential else request.with_bearer(credential)
