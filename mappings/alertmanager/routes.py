"""Alertmanager's API for callers: posting and listing alerts, silences, receivers and the status.

Source: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. Prometheus posts open alerts every
minute and resolved ones for a quarter of an hour, and never retries what was refused. The webhook that another
Alertmanager sends is in `webhook`. It must not know what stands behind the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.asked import Answer, Batch, Chosen, Incoming, Listing, Mute, Muted, Mutes, Relay, Reply, Shown, Unmute
from gateway.asking import each, one
from gateway.canonical import Flat, Operation
from gateway.dialect import Route
from gateway.errors import Problem, ProblemKind
from gateway.ids import made_at
from gateway.mapping.values import from_millis, iso
from gateway.mapping.wire import Wire
from gateway.outcome import Json, Request
from mappings.alertmanager import matchers, words
from mappings.alertmanager.alert import ALERT, Alert, is_uri, read_moment
from mappings.alertmanager.commands import command
from mappings.alertmanager.matchers import MOST_SILENCE, Matcher
from mappings.alertmanager.webhook import WEBHOOK, Notification, notified_api

API = "https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml"
CLIENTS = "https://prometheus.io/docs/alerting/latest/clients/"
_ANY = ("", "")
"""Stands for the label of a silence that requires none: it may match any label set."""

# --- wire structs ------------------------------------------------------------------------------------------


class Posted(Struct, kw_only=True):
    """An alert as it is posted. Its labels are its identity, its newest annotations count."""

    labels: dict[str, str]
    annotations: dict[str, str] | UnsetType | None = UNSET
    startsAt: str | UnsetType | None = UNSET
    endsAt: str | UnsetType | None = UNSET
    generatorURL: str | UnsetType | None = UNSET


class Silence(Struct, kw_only=True):
    """A silence as it is posted; `id` names the one that it replaces."""

    matchers: list[Matcher]
    startsAt: str
    endsAt: str
    createdBy: str
    comment: str
    id: str | UnsetType | None = UNSET


class SilenceId(Struct, kw_only=True):
    """The answer to a posted silence."""

    silenceID: str


# --- who asks ----------------------------------------------------------------------------------------------


def _list_body(incoming: Incoming, what: str) -> list[Any]:
    body = incoming.body
    if not isinstance(body, list):
        raise Problem(ProblemKind.MALFORMED, f'parsing {what} body from "" failed, because it is not a list of objects')
    return body


def refuse_other_types(incoming: Incoming) -> None:
    """Refuses a body whose content type is not JSON's, as the API layer does, which looks at the type before the
    body."""
    has_body = incoming.headers.get("content-length", "0") != "0" or "transfer-encoding" in incoming.headers
    if not has_body:
        return
    said = incoming.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if said and said != "application/json":
        text = f'unsupported media type "{said[:100]}", only [application/json] are allowed'
        raise Problem(ProblemKind.MEDIA_TYPE, text, field="Content-Type")


# --- alerts that are posted --------------------------------------------------------------------------------


def post(incoming: Incoming) -> Batch:
    """Returns the commands of posted alerts: a fault in one keeps none of the others back."""
    body = _list_body(incoming, "alerts")
    posted = [_checked(item, place) for place, item in enumerate(body)]
    return each(posted, lambda wire: command(wire, None, incoming.now, ALERT))


def _checked(item: Any, place: int) -> Wire:
    """Returns an alert that the API layer would take; what that refuses, it refuses with all alerts beside it."""
    item = _spelled(item, Posted) if isinstance(item, dict) else item
    if isinstance(item, dict) and item.get("labels") is None:
        raise Problem(ProblemKind.INVALID, f"{place}.labels in body is required", field=f"{place}.labels")
    if isinstance(item, dict):
        item = {**item, **{name: _without_nulls(item[name]) for name in ("labels", "annotations") if name in item}}
    try:
        msgspec.convert(item, Posted)
        for name in ("startsAt", "endsAt"):
            read_moment(item.get(name))
    except (msgspec.ValidationError, ValueError) as error:
        text = f'parsing alerts body from "" failed, because of alert {place}: {error}'
        raise Problem(ProblemKind.MALFORMED, text, field=str(place)) from None
    source = item.get("generatorURL")
    if source and not is_uri(source):
        text = f"{place}.generatorURL in body must be of type uri: {msgspec.json.encode(source[:200]).decode()}"
        raise Problem(ProblemKind.INVALID, text, field=f"{place}.generatorURL")
    return {name: value for name, value in item.items() if value is not None}


def _spelled(item: dict[str, Any], kind: type[Struct]) -> dict[str, Any]:
    """Returns an object with its fields' names as `kind` spells them: the API layer reads them in any case, and an end
    that was overlooked would be taken for an alert, and a matcher's `isEqual` for its opposite."""
    names = {name.lower(): name for name in kind.__struct_fields__}
    if item.keys() <= set(names.values()):
        return item
    return {names.get(name.lower(), name): value for name, value in item.items()}


def _without_nulls(said: Any) -> Any:
    """Labels or annotations as the API layer reads them: a null among the texts is an empty text."""
    if not isinstance(said, dict):
        return said
    return {name: "" if value is None else value for name, value in said.items()}


# --- lists -------------------------------------------------------------------------------------------------


YES, NO = ("true", "1", "t", "yes", "y", "on"), ("false", "0", "f", "no", "n", "off")
"""Words that the API layer takes for a boolean; any other is a no to it, and is refused here."""


def _flag(incoming: Incoming, name: str) -> bool:
    text = (one(incoming, name) or "true").lower()
    if text not in (*YES, *NO):
        raise Problem(ProblemKind.INVALID, f"{name} in query must be of type boolean: {text[:50]!r}", field=name)
    return text in YES


def listed(incoming: Incoming) -> Listing:
    """Asks for the open alerts that the filters match."""
    wanted = [matcher for text in incoming.query.get("filter", ()) for matcher in matchers.parse(text)]
    receiver = one(incoming, "receiver")
    is_ours = not receiver or matchers.compiled(receiver)(words.RECEIVER)
    active, silenced = _flag(incoming, "active"), _flag(incoming, "silenced")
    for name in ("inhibited", "unprocessed", "muted"):
        _flag(incoming, name)

    def choose(shown: Shown) -> Chosen | None:
        if not is_ours or not (silenced if words.is_silenced(shown) else active):
            return None
        if wanted and not matchers.all_hold(wanted, words.labels_of(shown.flat)):
            return None
        found = words.shown_alert(shown)
        return Chosen(found["fingerprint"], found)

    return Listing(statuses=("firing", "acknowledged"), choose=choose, marked=_marked)


def _marked(alerts: Sequence[Shown], mutes: Sequence[Muted]) -> Sequence[Shown]:
    """Returns the alerts with the silences that match them now."""
    if not mutes:
        return alerts
    held = [(muted.id, _matchers_of(muted)) for muted in mutes]

    def by(shown: Shown) -> tuple[str, ...]:
        labels = words.labels_of(shown.flat)
        return tuple(sorted(name for name, wanted in held if _means(wanted, labels)))

    return [msgspec.structs.replace(shown, muted_by=by(shown)) for shown in alerts]


# --- silences ----------------------------------------------------------------------------------------------


def silence(incoming: Incoming) -> Mute:
    """Asks for the silence that is posted."""
    body = incoming.body
    if not isinstance(body, dict):
        raise Problem(ProblemKind.MALFORMED, 'parsing silence body from "" failed, because it is not an object')
    body = _spelled(body, Silence)
    if isinstance(given := body.get("matchers"), list):
        body = {**body, "matchers": [_spelled(one, Matcher) if isinstance(one, dict) else one for one in given]}
    for name in ("matchers", "startsAt", "endsAt", "createdBy", "comment"):
        if body.get(name) is None:
            raise Problem(ProblemKind.INVALID, f"silence.{name} in body is required", field=name)
    try:
        posted = msgspec.convert(body, Silence)
        starts, ends = _lasting(posted, incoming.now)
    except (msgspec.ValidationError, ValueError) as error:
        raise Problem(ProblemKind.MALFORMED, f'parsing silence body from "" failed, because {error}') from None
    _refuse_silence(posted)
    rest = {name: value for name, value in body.items() if name not in ("id", "startsAt", "endsAt", "status")}
    return Mute(
        body={**rest, "matchers": msgspec.to_builtins(posted.matchers)},
        starts_at=starts,
        ends_at=ends,
        id=posted.id or None,
        comment=f"silenced by {posted.createdBy}: {posted.comment}",
    )


def _lasting(posted: Silence, now: datetime) -> tuple[datetime, datetime]:
    """Returns from when until when a silence is to hold. Its times are read as those of alerts are: without a zone they
    are UTC, as scripts write them. A new silence begins now at the earliest, whatever start it gives."""
    starts, ends = read_moment(posted.startsAt) or now, read_moment(posted.endsAt)
    if ends is None or starts >= ends:
        raise Problem(ProblemKind.INVALID, "Failed to create silence: start time must be before end time")
    if ends <= now:
        raise Problem(ProblemKind.INVALID, "Failed to create silence: end time can't be in the past")
    return (starts if posted.id else max(starts, now)), ends


def _refuse_silence(posted: Silence) -> None:
    size = len(msgspec.json.encode(posted))
    if size > MOST_SILENCE:
        text = f"silence exceeded maximum size: {size} bytes (limit: {MOST_SILENCE} bytes)"
        raise Problem(ProblemKind.INVALID, text)
    if not posted.matchers:
        raise Problem(ProblemKind.INVALID, "silence.matchers in body should have at least 1 items", field="matchers")
    for matcher in posted.matchers:
        if matcher.isRegex:
            matchers.compiled(matcher.value)
        if not matcher.name:  # with `!=` it would match every alert
            raise Problem(ProblemKind.INVALID, 'invalid silence: invalid label name ""', field="matchers")
    if all(matcher.isEqual and matcher.holds({}) for matcher in posted.matchers):
        # One that excludes is enough: all but the dead man's switch are silenced that way.
        text = "invalid silence: matcher set 0: at least one matcher must not match the empty string"
        raise Problem(ProblemKind.INVALID, text, field="matchers")


def muted_by(mutes: Sequence[Muted]) -> Callable[[Flat], Iterator[Muted]]:
    """Returns a function that finds the silences matching an alert. Silences are indexed by a label that they require
    with one value, as most require an `alertname` or an `instance`; only those that require none are tried on every
    alert."""
    by_label: dict[tuple[str, str], list[tuple[Muted, list[Matcher]]]] = {}
    for muted in mutes:
        wanted = _matchers_of(muted)
        by_label.setdefault(_asked_for(wanted), []).append((muted, wanted))

    def find(flat: Flat) -> Iterator[Muted]:
        if not by_label:
            return
        labels = words.labels_of(flat)
        for label in (*labels.items(), _ANY):
            for muted, wanted in by_label.get(label, ()):
                if _means(wanted, labels):
                    yield muted

    return find


def _asked_for(wanted: list[Matcher]) -> tuple[str, str]:
    """Returns a label, with its value, that every alert has which these matchers match; `_ANY` if there is none."""
    plain = (one for one in wanted if one.isEqual and not one.isRegex and one.value)
    return next(((one.name, one.value) for one in plain), _ANY)


def _means(wanted: list[Matcher], labels: dict[str, str]) -> bool:
    """Whether the matchers of a stored silence match an alert. One with a pattern that was taken once and would be
    refused today matches none: better that somebody is told of an alert than that its delivery fails."""
    try:
        return matchers.all_hold(wanted, labels)
    except Problem:
        return False


def _silence_id(incoming: Incoming) -> str:
    """Returns the id in the path, which must be a UUID."""
    found = incoming.params["id"]
    if not re.fullmatch(r"[0-9a-fA-F-]{36}", found):
        text = f"silenceID in path must be of type uuid: {msgspec.json.encode(found[:100]).decode()}"
        raise Problem(ProblemKind.INVALID, text, field="silenceID")
    return found


def silences(incoming: Incoming) -> Mutes:
    """Asks for the silences that have every matcher of the filter, word for word: which alerts they match is not
    considered. Callers often expire all that they are answered, so it may contain none that was not asked for."""
    wanted = {matcher for text in incoming.query.get("filter", ()) for matcher in matchers.parse(text)}
    states = {state for state in words.STATES if _flag(incoming, state)}
    now = incoming.now

    def choose(found: Sequence[Muted]) -> Sequence[Muted]:
        meant = [
            muted for muted in found if words.state_of(muted, now) in states and wanted <= set(_matchers_of(muted))
        ]
        return sorted(meant, key=lambda muted: words.place_of(muted, now))

    return Mutes(choose=choose)


def _matchers_of(muted: Muted) -> list[Matcher]:
    return msgspec.convert(muted.body["matchers"], list[Matcher])


def _now_of(answer: Answer) -> datetime:
    return from_millis(made_at(answer.request))


def _answer_silences(answer: Answer) -> Reply:
    now = _now_of(answer)
    return Reply(200, [words.shown_silence(muted, now) for muted in answer.mutes])


# --- how it is set up --------------------------------------------------------------------------------------

CONFIGURATION = f"route:\n  receiver: {words.RECEIVER}\nreceivers:\n- name: {words.RECEIVER}\n"
RECEIVERS = Reply(200, [{"name": words.RECEIVER}])


def _status(now: datetime) -> Reply:
    """The status of one instance without a cluster."""
    version = dict.fromkeys(("branch", "buildDate", "buildUser", "goVersion", "revision"), "")
    said: dict[str, Json] = {
        "cluster": {"status": "disabled", "peers": []},
        "config": {"original": CONFIGURATION},
        "uptime": iso(now),
        "versionInfo": {**version, "version": "0.33.1"},
    }
    return Reply(200, said)


def status(incoming: Incoming) -> Relay:
    """Asks for the status, of the primary where that is an Alertmanager."""
    return Relay(Request(method="GET", path="/api/v2/status"), _status(incoming.now))


def receivers(incoming: Incoming) -> Relay:
    """Asks for the receivers, of the primary where that is an Alertmanager."""
    return Relay(Request(method="GET", path="/api/v2/receivers"), RECEIVERS)


# --- routes ------------------------------------------------------------------------------------------------

TOLD = (Operation.CREATE, Operation.UPDATE, Operation.RESOLVE)
ROUTES = (
    Route(
        method="POST",
        path="/api/v2/alerts",
        operations=TOLD,
        read=post,
        answer=words.done,
        summary="Post firing or resolved alerts",
        source=CLIENTS,
        body=list[Posted],
    ),
    Route(
        method="GET",
        path="/api/v2/alerts",
        operations=(Operation.LIST,),
        read=listed,
        answer=words.alerts,
        summary="List the open alerts",
        source=API,
        returns=list[Alert],
        query=("active", "silenced", "inhibited", "unprocessed", "filter", "receiver"),
    ),
    Route(
        method="GET",
        path="/api/v2/alerts/groups",
        operations=(Operation.LIST,),
        read=listed,
        answer=words.groups,
        summary="List the open alerts by group",
        source=API,
        query=("active", "silenced", "inhibited", "muted", "filter", "receiver"),
    ),
    Route(
        method="GET",
        path="/api/v2/silences",
        operations=(),
        read=silences,
        answer=_answer_silences,
        summary="List the silences",
        source=API,
        query=("filter", *words.STATES),
    ),
    Route(
        method="POST",
        path="/api/v2/silences",
        operations=(),
        read=silence,
        answer=lambda answer: Reply(200, {"silenceID": answer.mutes[0].id}),
        summary="Silence some alerts for a while",
        source=API,
        body=Silence,
        returns=SilenceId,
    ),
    Route(
        method="GET",
        path="/api/v2/silence/{id}",
        operations=(),
        read=lambda incoming: Mutes(_silence_id(incoming)),
        answer=lambda answer: Reply(200, words.shown_silence(answer.mutes[0], _now_of(answer))),
        summary="Get a silence",
        source=API,
    ),
    Route(
        method="DELETE",
        path="/api/v2/silence/{id}",
        operations=(),
        read=lambda incoming: Unmute(_silence_id(incoming)),
        answer=words.done,
        summary="Expire a silence",
        source=API,
    ),
    Route(
        method="GET",
        path="/api/v2/receivers",
        operations=(),
        read=receivers,
        answer=lambda answer: RECEIVERS,
        summary="List the receivers",
        source=API,
    ),
    Route(
        method="GET",
        path="/api/v2/status",
        operations=(),
        read=status,
        answer=lambda answer: _status(_now_of(answer)),
        summary="Get the status and configuration",
        source=API,
    ),
    Route(
        method="POST",
        path="/api/v1/alerts",
        operations=TOLD,
        read=post,
        answer=lambda answer: Reply(200, {"status": "success"}),
        summary="Post alerts by the older path",
        source=CLIENTS,
        body=list[Posted],
        side=True,
    ),
    Route(
        method="POST",
        path="/webhook",
        operations=TOLD,
        read=notified_api,
        answer=words.done,
        summary="Post a notification of another Alertmanager's webhook",
        source=WEBHOOK,
        body=Notification,
        at_root=False,
    ),
)
