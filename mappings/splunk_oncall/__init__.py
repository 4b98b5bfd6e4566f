"""Splunk On-Call's REST endpoint, which was VictorOps': alerts with a `message_type`, addressed by their `entity_id`.

Sources: https://help.splunk.com/splunk-observability-cloud/splunk-on-call/integrations-with-splunk-on-call/rest-endpoint-integration-for-splunk-on-call,
and beside it the glossary of incident fields, the page on routing keys, and that on auto-pause and alert lag. What
senders do is taken from prometheus/alertmanager (notify/victorops), grafana/alerting (receivers/victorops), Apprise
(plugins/splunk), ElastAlert 2 (alerters/victorops), influxdata/kapacitor (services/victorops), Salt
(modules/victorops) and Zabbix (templates/media/victorops).

An INFO is an entry of the timeline: it opens no incident, wakes nobody, and changes nothing of an open incident. An
alert of another vendor that goes there as INFO says so in its report; a comment goes there as one. A caller's INFO is a
note on the open alert of its entity. Where none is open, it is an alert that wakes nobody, under a key of its own: a
CRITICAL that follows it opens an alert, and is no update of one that woke nobody. A recovery ends it; as often none
comes, it also ends a day later. That length is our choice, as is that an acknowledgement or a recovery without
`entity_id` is refused: the service takes it, and it does nothing. That a routing key which the account does not have
leads to its default route is not confirmed either.

Calls are in `calls`; bodies, faults and answers in `words`. It must not know what stands behind the gateway.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from gateway.asked import Answer, Batch, Command, Incoming, Ref, Reply
from gateway.canonical import Image, Link, Operation
from gateway.dialect import CREDENTIAL, Dialect, Outbound, Route
from gateway.errors import invalid
from gateway.mapping.fallbacks import headline
from gateway.mapping.rows import Extension, Row, Writing, joint, row
from gateway.mapping.table import Mapping
from gateway.mapping.values import Pair, Scale
from gateway.outcome import Json
from mappings.splunk_oncall.calls import PATH, SEND, authorise, fitted_key, fitted_route
from mappings.splunk_oncall.words import (
    ANNOTATIONS,
    ENTRY,
    FURTHER,
    IMAGES,
    LINKS,
    LONGEST,
    LONGEST_MESSAGE,
    NAMED,
    ROUTE,
    is_annotation,
    missing,
    problem,
    read_body,
    reason,
    shortened,
)

PAGE = (
    "https://help.splunk.com/splunk-observability-cloud/splunk-on-call/integrations-with-splunk-on-call/"
    "rest-endpoint-integration-for-splunk-on-call"
)
NAME = "splunk_oncall"

# --- wire structs ------------------------------------------------------------------------------------------


class Said(Struct, kw_only=True):
    """The fields of a body that mean something to the service."""

    message_type: str
    entity_id: str | UnsetType = UNSET
    entity_display_name: str | UnsetType = UNSET
    state_message: str | UnsetType = UNSET
    monitoring_tool: str | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    timestamp: Any = UNSET
    state_start_time: Any = UNSET
    entity_is_host: Any = UNSET
    ack_msg: Any = UNSET
    ack_author: Any = UNSET


class Annotations(Struct, kw_only=True):
    """The annotations of an alert by their titles: links and images."""

    u: dict[str, str] | UnsetType = UNSET
    i: dict[str, str] | UnsetType = UNSET


class Alert(Said, kw_only=True):
    """An alert as rows see it: with the routing key of its path, and what a body has beside the known fields in objects
    of their own."""

    routing_key: str | UnsetType = UNSET
    vo_annotate: Annotations | UnsetType = UNSET
    further: dict[str, Any] | UnsetType = field(default=UNSET, name=FURTHER)


class Taken(Struct, kw_only=True):
    """The answer to an alert: it was taken, under this id."""

    result: Literal["success"]
    entity_id: str


# --- value tables ------------------------------------------------------------------------------------------

CRITICAL, INFO = 1, 6
WAKES_NOBODY = "INFO is an entry of the timeline: it opens no incident and wakes nobody"
ENTRY_LASTS = timedelta(days=1)
"""How long a caller's INFO is open as an alert unless a recovery comes; one that never ends would stay for good."""


BEHAVIOURS = Scale(
    ("CRITICAL", "CRITICAL", "CRITICAL", "CRITICAL", "WARNING", "WARNING", "INFO", "INFO"),
    {"CRITICAL": CRITICAL, "WARNING": 4, "INFO": INFO},
    fold=True,
)
"""What a `message_type` does, in any case. The service takes a word that is not documented for an INFO (glossary of
incident fields); here it is refused: what is misspelt would wake nobody, and nobody would hear of it."""
OPERATIONS = {
    "ACKNOWLEDGEMENT": Operation.ACKNOWLEDGE,
    "ACKNOWLEDGMENT": Operation.ACKNOWLEDGE,
    "RECOVERY": Operation.RESOLVE,
    "OK": Operation.RESOLVE,
}
"""What does not open anything. `OK` is in the glossary, and what Zabbix sends; the short spelling is a mistake that is
easily made, and an alert acknowledged in vain would go on paging."""


DOCUMENTED = ("CRITICAL", "WARNING", "ACKNOWLEDGEMENT", "INFO", "RECOVERY")


def _behaviour(scale: Scale) -> Row:
    """The row of the severity with a scale."""

    def read(word: Any) -> tuple[Any]:
        return (word if word is None else scale.read(word),)

    def write(writing: Writing, severity: Any) -> tuple[Any]:
        if severity in (UNSET, None):
            return (UNSET,)
        word = scale.write(severity)
        if word == "INFO" and writing.origin != NAME:
            writing.filled["severity"] = WAKES_NOBODY
        return (word,)

    return joint(
        ["message_type"],
        ["severity"],
        read=read,
        write=write,
        required=True,
        fallback=lambda flat, writing: (scale.write(CRITICAL),),
        scale=scale,
        rescale=_behaviour,
        why="CRITICAL, WARNING or INFO; where absent, CRITICAL",
    )


def _unless_blank(value: Any) -> Any:
    return value if not isinstance(value, str) or value.strip() else UNSET


BLANK = Pair(_unless_blank, lambda value: value)
"""Reads an empty text as absent."""


def _titled(entries: list[tuple[str, str]], untitled: str) -> dict[str, str] | UnsetType:
    """Annotations by titles that are all different, without those that the service would cut."""
    found: dict[str, str] = {}
    numbers = Counter[str]()
    for said, value in entries:
        title = name = said if said.strip() else untitled
        while title in found:
            numbers[name] += 1
            title = f"{name} {numbers[name] + 1}"
        if is_annotation(title, value):
            found[title] = value
    return found or (UNSET if entries else {})


def _entries(held: dict[str, str], untitled: str) -> list[tuple[str | UnsetType, str]]:
    """The titles and values of annotations, without titles that only say that there was none."""
    none = re.compile(rf"{untitled}( \d+)?")
    shown = [(title, value) for title, value in held.items() if is_annotation(title, value)]
    return [(UNSET if none.fullmatch(title) else title, value) for title, value in shown]


LINK = Pair(
    lambda held: tuple(Link(href=value, text=title) for title, value in _entries(held, "Link")),
    lambda links: _titled([(link.text or "", link.href) for link in links], "Link"),
)
IMAGE = Pair(
    lambda held: tuple(Image(src=value, alt=title) for title, value in _entries(held, "Image")),
    lambda images: _titled([(image.alt or "", image.src) for image in images], "Image"),
)


def _beside_named(custom: dict[str, Any]) -> dict[str, Any]:
    """Custom fields that do not take the place of a known one, their texts within the service's limit."""
    return {name: shortened(value) for name, value in custom.items() if name not in NAMED or name == ROUTE}


# --- rows --------------------------------------------------------------------------------------------------

ALERT = Mapping(
    NAME,
    "occurrence",
    Alert,
    rows=(
        _behaviour(BEHAVIOURS),
        row("entity_id", "dedup_key", BLANK, fit=fitted_key, why="at most 512 characters"),
        row(
            "entity_display_name",
            "summary",
            required=True,
            fallback=headline,
            limit=LONGEST,
            why="at most 1,024 characters; where absent, taken from details, category or key",
        ),
        row("state_message", "details", limit=LONGEST_MESSAGE, why="at most 20,480 characters"),
        row("monitoring_tool", "source", BLANK, limit=LONGEST, why="at most 1,024 characters"),
        row("hostname", "resource", BLANK, limit=LONGEST, why="at most 1,024 characters"),
        Extension("timestamp"),
        Extension("state_start_time"),
        Extension("entity_is_host"),
        Extension("ack_msg"),
        Extension("ack_author"),
        row(ROUTE, "routing_key", BLANK, fit=fitted_route, why="the last part of the path"),
        row(f"{ANNOTATIONS}.{LINKS}", "links", LINK, why="addresses of at most 1,124 characters, each with a title"),
        row(f"{ANNOTATIONS}.{IMAGES}", "images", IMAGE, why="addresses of at most 1,124 characters, each with a title"),
        row(FURTHER, "custom", Pair(lambda held: held, _beside_named), why="texts of at most 1,024 characters"),
    ),
    container=FURTHER,
    details="state_message",
    holds_text=True,
)

# --- routes ------------------------------------------------------------------------------------------------


def _credentials(incoming: Incoming) -> tuple[str, ...]:
    """Returns the API key in the path."""
    key = incoming.params.get(CREDENTIAL, "")
    return (key,) if key else ()


def _alert(incoming: Incoming) -> Command | Batch:
    body = read_body(incoming)
    word = body["message_type"].upper() if isinstance(body["message_type"], str) else ""
    operation = OPERATIONS.get(word)
    if word and operation is None and word not in BEHAVIOURS.codes:
        raise invalid("message_type", f"{body['message_type']!r} is none of {', '.join(DOCUMENTED)}")
    if operation is Operation.RESOLVE:
        over = _moved(body, operation, ("state_message", "ack_msg"))
        assert over.ref
        entry = Command(operation=operation, ref=Ref(key=f"{over.ref.key}{ENTRY}"), only_open=True)
        return Batch((over, entry))
    if operation:
        return _moved(body, operation, ("ack_msg", "state_message"))
    reading = ALERT.read(body)
    patch, note = reading.flat, None
    if patch["severity"] == INFO and reading.carried is None:  # what a gateway carries there has a life of its own
        patch = {**patch, "ends_at": incoming.now + ENTRY_LASTS}
        if "dedup_key" in patch:
            patch["dedup_key"] += ENTRY
            note = _moved(body, Operation.COMMENT, ("state_message", "entity_display_name"))
    return Command(
        operation=Operation.CREATE,
        patch=patch,
        verbatim=reading.verbatim,
        reading=reading,
        dropped=reading.dropped,
        carried=reading.carried,
        invents_key=True,
        instead=note,
    )


def _moved(body: dict[str, Json], operation: Operation, texts: tuple[str, str]) -> Command:
    """Reads what changes nothing of what an alert says. What it says in words is its comment, the first of `texts`;
    that of a note is its `message_type` where it has no other, as vendors refuse a note without a text."""
    reading = ALERT.read({**body, "message_type": "CRITICAL"})
    if "dedup_key" not in reading.flat:
        raise missing("entity_id")
    least = body["message_type"] if operation is Operation.COMMENT else ""
    comment = next((body[name] for name in texts if isinstance(body.get(name), str) and body[name].strip()), least)
    return Command(
        operation=operation,
        ref=Ref(key=reading.flat["dedup_key"]),
        comment=comment,
        verbatim={**reading.verbatim, "message_type": body["message_type"]},
        beside={path: value for path, value in reading.flat.items() if path != "severity" and value != comment},
    )


def _entity_of(answer: Answer) -> str:
    """Returns the entity that an alert was about, by the id that its sender gave it."""
    if answer.answers:
        return _entity_of(answer.answers[0])
    if answer.key is not None:
        return answer.key
    assert answer.shown
    key = str(answer.shown.alert.dedup_key or "")
    return key.removesuffix(ENTRY) if answer.shown.alert.severity == INFO else key


def _answer(answer: Answer) -> Reply:
    return Reply(200, {"result": "success", "entity_id": _entity_of(answer)})


def _route(path: str, summary: str) -> Route:
    return Route(
        method="POST",
        path=path,
        operations=(Operation.CREATE, Operation.UPDATE, Operation.ACKNOWLEDGE, Operation.RESOLVE),
        read=_alert,
        answer=_answer,
        summary=summary,
        source=PAGE,
        body=Said,
        returns=Taken,
    )


DIALECT = Dialect(
    name=NAME,
    title="Splunk On-Call",
    source=PAGE,
    kind="occurrence",
    mapping=ALERT,
    routes=(
        _route(f"{PATH}/{{{CREDENTIAL}}}/{{{ROUTE}}}", "Send an alert: open, acknowledge or resolve an incident"),
        _route(f"{PATH}/{{{CREDENTIAL}}}", "The same without a routing key"),
    ),
    outbound=Outbound(
        addressed_by="key",
        published_rate=150,  # what an account processes: the page on auto-pause and alert lag
        calls=SEND,
        nearest={Operation.DELETE: Operation.RESOLVE},
        notes=frozenset({Operation.ACKNOWLEDGE, Operation.RESOLVE}),
        authorise=authorise,
        reason=reason,
        verdicts={404: "hold"},  # a wrong API key, see `words`
    ),
    credentials=_credentials,
    scheme={},
    problem=problem,
    shown_id=str,
    same_key=fitted_key,
    url="https://alert.victorops.com",
    client_setting="the host `https://alert.victorops.com` → `http://gateway/splunk_oncall`",
    remark=(
        "A caller's key is the API key in its address, the part after `/alert/`; so is an upstream's `key`. The part "
        'after it is the `routing_key`: routes can ask for it (`when = ["routing_key = database"]`) and set it '
        '(`set = { routing_key = "database" }`); without one the account\'s default route is taken. An INFO opens no '
        "incident at Splunk On-Call and wakes nobody there. Whether a WARNING does is a setting of the account; "
        "`check` takes it that it does. A caller's INFO is a note on the open alert of its entity; where none is open, "
        "it reaches other vendors as an alert of its own that wakes nobody, and ends with a recovery or after a day."
    ),
)
