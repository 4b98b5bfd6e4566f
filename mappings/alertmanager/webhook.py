"""The body of a webhook: a group of alerts, firing and resolved ones together, as Alertmanager posts it and, in a
dialect of its own, Grafana.

A received one is a command for each of its alerts; a sent one has a single alert, and what the group says is derived
from that, or as its caller had it. Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config. It
must not know who calls, nor which dialect's rows its alerts are read with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.asked import Batch, Command, Incoming
from gateway.asking import can_be_repeated, each
from gateway.canonical import Operation
from gateway.errors import Problem, ProblemKind, from_validation, invalid
from gateway.mapping.rows import Dropped
from gateway.mapping.table import CARRIED
from gateway.mapping.table import Mapping as Rows
from gateway.mapping.values import iso
from gateway.mapping.wire import Wire
from gateway.outcome import Call, Delivered, Json, Missing, Request, Response, Sending
from mappings.alertmanager.alert import ALERT, as_text, fingerprint
from mappings.alertmanager.calls import AUTHOR, as_urgent_now, identity_of, under
from mappings.alertmanager.commands import command

WEBHOOK = "https://prometheus.io/docs/alerting/latest/configuration/#webhook_config"
READ = frozenset({"labels", "annotations", "startsAt", "generatorURL"})
"""The fields of a webhook's alert that the API's rows read."""
NEVER = "0001-01-01T00:00:00Z"
"""The `endsAt` of a firing alert."""
GROUP = "(group)"
"""The field, among a caller's own words for an alert, with what its notification says besides."""
OF_GROUP = "describes the group, not this alert"
OF_A_WEBHOOK = {"endsAt": "says only that the alert is over, if anything", "fingerprint": "is computed from the labels"}
"""Fields of a webhook's alert that the API's rows do not read, and why."""
CONTROL = ("alerts", "version", "status")
"""Fields of a notification, and of its alerts, that say how it is to be read."""
MOST_NAMED, LONGEST_NAMED = 10, 64
"""How many undocumented fields of a notification a report names, and with how many characters of each name."""
BESIDE = {
    "receiver": "recipients are decided by the gateway's routes",
    **dict.fromkeys(("groupKey", "truncatedAlerts", "groupLabels", "commonLabels", "commonAnnotations"), OF_GROUP),
    "externalURL": "the sender's own URL",
    "notification_reason": OF_GROUP,
    "routeLabels": "recipients are decided by the gateway's routes",
}
"""The fields of a notification beside its alerts, and why none of them becomes a part of an alert."""

# --- wire structs ------------------------------------------------------------------------------------------


class Notified(Struct, kw_only=True):
    """One alert of the group that a webhook posts."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] | UnsetType = UNSET
    startsAt: str | UnsetType = UNSET
    endsAt: str | UnsetType = UNSET
    generatorURL: str | UnsetType = UNSET
    fingerprint: str | UnsetType = UNSET


class Kept(Notified, kw_only=True):
    """The same as kept among a caller's own words: with what its notification said besides, for upstreams of the same
    dialect."""

    group: dict[str, Any] | UnsetType = msgspec.field(default=UNSET, name=GROUP)


class Notification(Struct, kw_only=True):
    """What a webhook posts, version 4: a group of alerts, firing and resolved ones together."""

    version: Literal["4"]
    alerts: list[Notified]
    groupKey: str | UnsetType = UNSET
    truncatedAlerts: int | UnsetType = UNSET
    status: Literal["firing", "resolved"] | UnsetType = UNSET
    receiver: str | UnsetType = UNSET
    groupLabels: dict[str, str] | UnsetType = UNSET
    commonLabels: dict[str, str] | UnsetType = UNSET
    commonAnnotations: dict[str, str] | UnsetType = UNSET
    externalURL: str | UnsetType = UNSET


KEPT = Dropped(GROUP, why="describes the group, not this alert; kept for upstreams of the same dialect")

# --- what is told ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Told:
    """How the alerts of a group are read: with which rows, as which struct, and which of their fields (None: all);
    `beside` are the fields of the notification that belong to no alert, with the reason."""

    rows: Rows
    alert: type[Struct]
    fields: frozenset[str] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)


def notified(body: Mapping[str, Json], told: Told, now: datetime) -> Batch:
    """Returns the commands for the alerts of a group."""
    alerts = body.get("alerts")
    if not isinstance(alerts, list):
        raise invalid("alerts", "is required and must be a list")
    beside = _beside(body, told.beside)
    group = {name: value for name, value in body.items() if name != "alerts"}
    is_kept = told.fields is None and can_be_repeated(group, len(alerts))
    keeps = {GROUP: group} if is_kept else {}

    def read(placed: tuple[int, Any]) -> Command:
        wire, has_ended = _checked(*placed, told)
        found = command(wire, has_ended, now, told.rows)
        left = (name for name, value in placed[1].items() if value is not None and name not in (*wire, *CONTROL))
        unread = tuple((name, OF_A_WEBHOOK.get(name, "only a webhook says it")) for name in left)
        dropped = (*found.dropped, *unread, *beside)
        return msgspec.structs.replace(found, verbatim={**found.verbatim, **keeps}, dropped=dropped)

    return each(_in_turn(alerts), read)


def _beside(body: Mapping[str, Json], known: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Returns the fields of a notification that belong to no alert, each with the reason. Only a few undocumented ones
    are named, cut short: the report of every alert of the group repeats them."""
    others = [name[:LONGEST_NAMED] for name in body if name not in known and name not in CONTROL]
    named = [*others[:MOST_NAMED], "(others)"] if len(others) > MOST_NAMED else others
    return (*((name, why) for name, why in known.items() if name in body), *((name, OF_GROUP) for name in named))


def _in_turn(alerts: list[Any]) -> list[tuple[int, Any]]:
    """Returns the alerts with their positions, firing ones first: when a resolved one is told, it is then known that
    the group is firing. If a label set occurs twice, the order stays: what was said of it last counts."""
    placed = list(enumerate(alerts))
    if not all(isinstance(item, dict) and isinstance(item.get("labels"), dict) for item in alerts):
        return placed
    if len({msgspec.json.encode(item["labels"], order="deterministic") for item in alerts}) < len(alerts):
        return placed
    return sorted(placed, key=lambda pair: pair[1].get("status") == "resolved")


def _checked(place: int, item: Any, told: Told) -> tuple[Wire, bool]:
    """Returns an alert of the group, without nulls, and whether it has ended."""
    said = {name: value for name, value in item.items() if value is not None} if isinstance(item, dict) else item
    try:
        msgspec.convert(said, told.alert)
    except msgspec.ValidationError as error:
        raise from_validation(error, f"alerts[{place}]") from None
    wire = {name: value for name, value in said.items() if told.fields is None or name in told.fields}
    return wire, said["status"] == "resolved"


OF_THE_API = Told(rows=ALERT, alert=Notified, fields=READ, beside=BESIDE)


def refuse_others(body: Any) -> dict[str, Json]:
    """Returns the body of a webhook of version 4; raises `Problem` for any other."""
    if not isinstance(body, dict) or not isinstance(body.get("alerts"), list):
        text = "this is not the body of an Alertmanager webhook, version 4: it has no list of alerts"
        raise Problem(ProblemKind.MALFORMED, text, field="alerts")
    if body.get("version") != "4":
        text = f'version in body must be of type "4": this is {str(body.get("version"))[:20]!r}, another sender\'s'
        raise Problem(ProblemKind.INVALID, text, field="version")
    return body


def notified_api(incoming: Incoming) -> Batch:
    """Returns the commands of another Alertmanager's webhook, for the API's own dialect."""
    return notified(refuse_others(incoming.body), OF_THE_API, incoming.now)


# --- telling -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling:
    """One alert, sent as a group of its own: whether it `is_over`; whether it `is_last`, the last open one of the
    caller's group at this upstream; its labels; the alert as posted; and what the caller's own notification said
    besides, where the caller speaks the upstream's dialect."""

    is_over: bool
    is_last: bool
    identity: dict[str, str]
    alert: Wire
    group: Wire
    at: datetime


Envelope = Callable[[Telling], Wire]
"""Returns the body of a notification of one alert."""


def teller(envelope: Envelope) -> Mapping[Operation, Callable[[Sending], Call]]:
    """Returns the calls of a dialect that posts such bodies, all to the address that the upstream's `url` is."""

    def tell(sending: Sending) -> Call:
        return _notify(sending, envelope, is_over=False)

    def resolve(sending: Sending) -> Call:
        return _notify(sending, envelope, is_over=True)

    def reopen(sending: Sending) -> Call:
        afresh = as_urgent_now(sending)
        if afresh is not sending and not sending.seen.get("ended"):
            yield from resolve(sending)
        return (yield from tell(afresh))

    return {
        **dict.fromkeys((Operation.CREATE, Operation.UPDATE), tell),
        Operation.REOPEN: reopen,
        Operation.RESOLVE: resolve,
    }


def _notify(sending: Sending, envelope: Envelope, *, is_over: bool) -> Call:
    identity = identity_of(sending)
    if not identity:
        return Missing()
    own = sending.verbatim or {}
    words = own if is_over and own.get("labels") else sending.body or own
    alert, altered = under(identity, {name: value for name, value in words.items() if name != GROUP})
    mark = sending.seen.get("fingerprint") or alert.get("fingerprint") or fingerprint(identity)
    ended = words.get("endsAt") if is_over else NEVER
    alert |= {
        "startsAt": alert.get("startsAt") or iso(sending.at),
        "endsAt": ended if ended and (ended == NEVER) is not is_over else iso(sending.at),
        "fingerprint": mark,
    }
    group = own.get(GROUP) or words.get(GROUP) or {}
    body = envelope(Telling(is_over, sending.last, identity, alert, group, sending.at))
    yield Request(method="POST", path="", body=body)
    seen = {"labels": identity, "fingerprint": mark, "ended": is_over}
    return Delivered(ids={"id": str(mark)}, seen=seen, altered=altered)


def group_of(words: Mapping[str, Json]) -> str | None:
    """Returns the key of the group that an alert was told in, from its caller's own words."""
    group = words.get(GROUP)
    key = group.get("groupKey") if isinstance(group, dict) else None
    return key if isinstance(key, str) and key else None


def notification(telling: Telling, version: str, alert: Wire) -> Wire:
    """Returns the body of a group of one alert, whose labels are the group's too. A caller's group is resolved once the
    caller itself said so, or once all is over that this receiver was told of, which may be only a part of the group:
    receivers that go by its `groupKey` then close what they have for all of its alerts, and else leave it open."""
    status = "resolved" if telling.is_over else "firing"
    is_on = telling.group.get("status") == "firing" and not (telling.is_over and telling.is_last)
    of_all = "firing" if is_on else status
    labels = telling.identity
    common = {name: text for name, text in telling.alert.get("annotations", {}).items() if name != CARRIED}
    return {
        "version": version,
        "groupKey": "{}:" + as_text(labels),
        "truncatedAlerts": 0,
        "receiver": AUTHOR,
        "groupLabels": labels,
        "commonLabels": labels,
        "commonAnnotations": common,
        "externalURL": "",
        **telling.group,
        "status": of_all,
        "alerts": [{"status": status, **alert}],
    }


def told_in_version_4(telling: Telling) -> Wire:
    """The body as Alertmanager posts it."""
    empty = {"labels": {}, "annotations": {}, "startsAt": "", "endsAt": "", "generatorURL": ""}
    return notification(telling, "4", {**empty, **telling.alert})


def reason(response: Response) -> str:
    """Returns the reason in a receiver's refusal: a text, or the one field that most have for it."""
    body = response.json()
    if isinstance(body, str):
        return body
    said = body if isinstance(body, dict) else {}
    found = (said.get(name) for name in ("message", "error", "detail", "error_description", "title"))
    return next((text for text in found if isinstance(text, str)), "")
