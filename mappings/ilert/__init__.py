"""ilert's events API and the synchronous alert API beside it: occurrences, addressed by key.

Source: https://docs.ilert.com/developer-docs/rest-api/client-examples/creating-alerts-through-events and
https://api.ilert.com/api-docs/. Rows are in `alert`, requests to an upstream in `calls`, an alert's log in `beside`;
`zabbix`, `checkmk` and `groups` turn what other tools send into events. It must not know what stands behind the
gateway.
"""

from __future__ import annotations

from gateway.asked import Answer, Command, Incoming, Listing, Ref, Reply, Shown
from gateway.asking import bearer, body_object, by_id, one, read_by_id, time_of, whole_number
from gateway.canonical import Operation
from gateway.dialect import CREDENTIAL, Dialect, Outbound, Route
from gateway.errors import USUAL_STATUS, Problem, ProblemKind, invalid
from gateway.mapping.rows import Hint, Writing
from gateway.mapping.table import Reading
from gateway.outcome import Json
from mappings.ilert import beside, calls, checkmk, groups, zabbix
from mappings.ilert.alert import ALERT, EVENT, EVENTS, NAME, PRIORITY, STATUS, Alert, Counted, Event, Raised, Taken

PAGE = "https://docs.ilert.com/developer-docs/rest-api/client-examples/creating-alerts-through-events"
REFERENCE = "https://api.ilert.com/api-docs/"
AGENT = "https://github.com/iLert/ilert-kube-agent"
"""ilert's agent for Kubernetes. Like other integrations it posts the event to a path of its own, ending in the key."""
KEEP = "https://github.com/keephq/keep"
"""Keep's ilert provider posts to `/api/events/keep/<key>`, with a blank after the key, and ignores the status."""
CLIENTS = "https://docs.ilert.com/developer-docs/client-libraries"
"""Its samples post the event to `/api/v1/events/<key>`."""

SPOKEN = ("dedup_key", "summary", "details", f"extensions.{NAME}.comments")
"""What becomes the key or the comment of an ACCEPT, a RESOLVE or a COMMENT."""

# --- routes ------------------------------------------------------------------------------------------------


def _credentials(incoming: Incoming) -> tuple[str, ...]:
    """Returns the keys of an event, which are in its body, its path or both. The Authorization header counts for the
    synchronous API only, whose bodies differ from events in having no `eventType`."""
    body = incoming.body if isinstance(incoming.body, dict) else {}
    named = [body.get("apiKey"), body.get("integrationKey"), incoming.params.get(CREDENTIAL)]
    if CREDENTIAL not in incoming.params and ("id" in incoming.params or not isinstance(incoming.body, dict)):
        return bearer(incoming)
    found = tuple(key for key in named if isinstance(key, str) and key)
    return found or (() if "eventType" in body else bearer(incoming))


def _admits(incoming: Incoming) -> None:
    """The plugins of Nagios and Icinga post XML, to where others have the key. They keep an event that nothing takes,
    and try again; one that is refused in any other way they throw away."""
    if "integration" not in incoming.params and incoming.params.get(CREDENTIAL) in ("nagios", "icinga"):
        raise Problem(ProblemKind.NO_SUCH_PATH, "nothing is served here: the XML of Nagios and Icinga is not supported")


def _event(incoming: Incoming) -> Command:
    body = body_object(incoming)
    is_group = "integration" in incoming.params and "eventType" not in body and groups.is_group(body)
    return _meant(incoming, groups.event(body), groups.unread(body)) if is_group else _meant(incoming, body)


def _zabbix(incoming: Incoming) -> Command:
    body = body_object(incoming)
    return _meant(incoming, zabbix.event(body), zabbix.unread(body))


def _checkmk(incoming: Incoming) -> Command | Reply:
    body = body_object(incoming)
    event = checkmk.event(body)
    return _noted("") if event is None else _meant(incoming, event, checkmk.unread(body))


def _meant(incoming: Incoming, said: dict[str, Json], unread: tuple[tuple[str, str], ...] = ()) -> Command:
    """Returns the command that an event asks for. `unread` are the fields of another tool's body that the event does
    not contain, each with the reason."""
    body = {key: value for key, value in said.items() if value is not None}
    if "integration" in incoming.params and "eventType" not in body:
        text = "is required: accepted here are ilert's own event and Alertmanager's and Grafana's webhooks"
        raise invalid("eventType", text)
    if "incidentKey" in body:
        older = body.pop("incidentKey")
        body["alertKey"] = body.get("alertKey") or older
    reading = EVENT.read(_in_capitals(body))
    word = _event_type(body["eventType"])
    operation = EVENTS[word]
    if operation is Operation.CREATE:
        if not body.get("summary"):
            raise invalid("summary", "is required for ALERT")
        return Command(
            operation=operation,
            patch=reading.flat,
            hints=_hints(reading),
            verbatim=reading.verbatim,
            reading=reading,
            dropped=reading.dropped + unread,
            carried=reading.carried,
        )
    key = reading.flat.get("dedup_key")
    if not key:
        raise invalid("alertKey", f"is required for {word}")
    return Command(
        operation=operation,
        ref=Ref(key=key),
        comment=_words_of(body)
        or (word if operation is Operation.COMMENT else ""),  # vendors refuse a note without text
        verbatim=reading.verbatim,
        beside={path: value for path, value in reading.flat.items() if path not in SPOKEN},
        dropped=reading.dropped + unread,
    )


def _in_capitals(body: dict[str, Json]) -> dict[str, Json]:
    """Returns an event with its priority in capitals, for ilert to accept when it is passed on there."""
    word = str(body.get("priority")).strip().upper()
    return {**body, "priority": word} if word in PRIORITY.words else body


def _hints(reading: Reading) -> tuple[Hint, ...]:
    """Returns what a priority says of the severity: nothing in an event that has a severity of its own."""
    return tuple(hint for hint in reading.hints if hint.path not in reading.flat)


def _event_type(word: str) -> str:
    """Returns an event type, given in any letter case, as ilert writes it; raises `Problem` for an unknown one."""
    if word.strip().upper() not in EVENTS:
        raise invalid("eventType", f"{word[:64]!r} is none of {', '.join(EVENTS)}")
    return word.strip().upper()


def _words_of(body: dict[str, Json]) -> str:
    said = [str(body[name]) for name in ("summary", "details") if body.get(name)]
    said += [str(comment.get("content") or "") for comment in body.get("comments", ())]
    return "\n".join(text for text in said if text.strip())


def _raise(incoming: Incoming) -> Command:
    """Reads an alert raised by hand: an event without a key. The gateway's routes decide whom it goes to."""
    body = {key: value for key, value in body_object(incoming).items() if value is not None}
    if not body.get("summary"):
        raise invalid("summary", "is required")
    reading = EVENT.read(_in_capitals({**body, "eventType": "ALERT"}))
    return Command(
        operation=Operation.CREATE,
        patch=reading.flat,
        hints=_hints(reading),
        verbatim=reading.verbatim,
        reading=reading,
        carried=reading.carried,
    )


def _list(incoming: Incoming) -> Listing:
    words = [*incoming.query.get("states", ()), *incoming.query.get("state", ())]
    states = [word for text in words for word in text.split(",") if word]
    for word in states:
        if word.upper() not in STATUS.words:
            raise invalid("states", f"{word[:64]!r} is none of {', '.join(STATUS.words)}")
    # Both ends of the period refer to `reportTime`, so that a client that pages by time sees each alert once.
    return Listing(
        statuses=tuple(STATUS.read(word) for word in states),
        created_since=time_of(incoming, "from"),
        before=time_of(incoming, "until"),
        offset=whole_number(incoming, "start-index", 0, least=0, most=10**9),
        limit=whole_number(incoming, "max-results", 50, least=1, most=100),
    )


def _assign(incoming: Incoming) -> Command:
    """Reads whom an alert is assigned to. The vendor's API description and its clients name the query parameters
    differently; both are accepted."""
    for word in ("user", "policy", "schedule"):
        name = one(incoming, word) or one(incoming, f"{word}-id")
        if name:
            break
    else:
        raise invalid("user", "is required, or else policy or schedule")
    changed = {"assignee": name} if word == "user" else {}
    said = f"assigned to {word} {name[:200]}"
    return Command(
        operation=Operation.COMMENT, ref=Ref(id=incoming.params["id"]), comment=said, amend=lambda before: changed
    )


def _answer_event(answer: Answer) -> Reply:
    return Reply(202, {})


def _answer_zabbix(answer: Answer) -> Reply:
    """Answers with 200, the only status that Zabbix takes for success."""
    return Reply(200, {})


def _answer_checkmk(answer: Answer) -> Reply:
    key = answer.key if answer.key is not None else answer.shown and answer.shown.flat.get("dedup_key")
    return _noted(str(key or ""))


def _noted(key: str) -> Reply:
    return Reply(200, {"incidentKey": key})


def _shown(shown: Shown) -> dict[str, Json]:
    number: Json = int(shown.id) if shown.id.isdigit() else shown.id
    whole = ALERT.write(shown.flat, Writing(), side="reply")
    return {"id": number, "resolvedOn": None, **whole, "mergeState": "NONE"}


def _answer_alert(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(200, _shown(answer.shown))


def _answer_raised(answer: Answer) -> Reply:
    assert answer.shown
    return Reply(201, _shown(answer.shown))


def _answer_list(answer: Answer) -> Reply:
    return Reply(200, [_shown(shown) for shown in answer.listed])


def _answer_count(answer: Answer) -> Reply:
    return Reply(200, {"count": answer.total})


EVERY_EVENT = (Operation.CREATE, Operation.UPDATE, Operation.ACKNOWLEDGE, Operation.RESOLVE, Operation.COMMENT)


def _event_route(path: str, summary: str, source: str = PAGE) -> Route:
    return Route(
        method="POST",
        path=path,
        operations=EVERY_EVENT,
        read=_event,
        answer=_answer_event,
        summary=summary,
        source=source,
        body=Event,
        returns=Taken,
        success=202,
    )


ROUTES = (
    _event_route("/api/events", "Send an event: ALERT, ACCEPT, RESOLVE or COMMENT"),
    _event_route("/api/v1/events", "The same on the legacy path"),
    _event_route("/api/events/{credential}", "The same, with the key in the path"),
    _event_route("/api/v1/events/{credential}", "The same on the legacy path", CLIENTS),
    Route(
        method="POST",
        path="/api/v1/events/zabbix-mt/{credential}",
        operations=EVERY_EVENT,
        read=_zabbix,
        answer=_answer_zabbix,
        summary="Send a Zabbix notification",
        source=zabbix.SOURCE,
        body=zabbix.Macros,
        returns=Taken,
    ),
    Route(
        method="POST",
        path="/api/v1/events/checkmk-ext/{credential}",
        operations=EVERY_EVENT,
        read=_checkmk,
        answer=_answer_checkmk,
        summary="Send a Checkmk notification",
        source=checkmk.SOURCE,
        body=checkmk.Context,
        returns=checkmk.Noted,
    ),
    _event_route("/api/v1/events/{integration}/{credential}", "The same, as integrations send it", AGENT),
    _event_route("/api/events/{integration}/{credential}", "The same without the version", KEEP),
    Route(
        method="GET",
        path="/api/alerts",
        operations=(Operation.LIST,),
        read=_list,
        answer=_answer_list,
        summary="List alerts",
        returns=list[Alert],
        source=REFERENCE,
        side=True,
        query=("start-index", "max-results", "states", "from", "until"),
    ),
    Route(
        method="POST",
        path="/api/alerts",
        operations=(Operation.CREATE,),
        read=_raise,
        answer=_answer_raised,
        summary="Raise an alert by hand",
        body=Raised,
        returns=Alert,
        success=201,
        source=REFERENCE,
        side=True,
    ),
    Route(
        method="GET",
        path="/api/alerts/count",
        operations=(Operation.LIST,),
        read=_list,
        answer=_answer_count,
        summary="Count alerts",
        returns=Counted,
        source=REFERENCE,
        side=True,
        query=("states", "from", "until"),
    ),
    Route(
        method="GET",
        path="/api/alerts/{id}",
        operations=(Operation.READ,),
        read=read_by_id,
        answer=_answer_alert,
        summary="Get an alert",
        returns=Alert,
        source=REFERENCE,
        side=True,
    ),
    Route(
        method="PUT",
        path="/api/alerts/{id}/accept",
        operations=(Operation.ACKNOWLEDGE,),
        read=by_id(Operation.ACKNOWLEDGE),
        answer=_answer_alert,
        summary="Accept an alert",
        returns=Alert,
        source=REFERENCE,
        side=True,
    ),
    Route(
        method="PUT",
        path="/api/alerts/{id}/resolve",
        operations=(Operation.RESOLVE,),
        read=by_id(Operation.RESOLVE),
        answer=_answer_alert,
        summary="Resolve an alert",
        returns=Alert,
        source=REFERENCE,
        side=True,
    ),
    Route(
        method="PUT",
        path="/api/alerts/{id}/assign",
        operations=(Operation.COMMENT,),
        read=_assign,
        answer=_answer_alert,
        summary="Assign an alert to a user, an escalation policy or a schedule",
        returns=Alert,
        source=REFERENCE,
        side=True,
        query=("user", "policy", "schedule"),
    ),
    *beside.ROUTES,
)

# --- words -------------------------------------------------------------------------------------------------

CODES: dict[ProblemKind, str] = {
    ProblemKind.UNAUTHORIZED: "KEY_ERROR",
    ProblemKind.NOT_FOUND: "NOT_FOUND",
    ProblemKind.NO_SUCH_PATH: "NOT_FOUND",
    ProblemKind.METHOD_NOT_ALLOWED: "METHOD_NOT_ALLOWED",
    ProblemKind.RATE_LIMITED: "TOO_MANY_REQUESTS",
}


def _problem(problem: Problem) -> Reply:
    """ilert's error object; its `status` always equals the status of the answer, which clients rely on."""
    status = USUAL_STATUS[problem.kind]
    code = CODES.get(problem.kind, "BAD_REQUEST" if status < 500 else "ERROR")
    return Reply(status, {"status": status, "message": problem.message, "code": code})


DIALECT = Dialect(
    name=NAME,
    title="ilert",
    source=PAGE,
    kind="occurrence",
    mapping=EVENT,
    routes=ROUTES,
    outbound=Outbound(
        addressed_by="key",
        published_rate=50,  # for the key of an alert source: the page on rate limits
        calls={
            Operation.CREATE: calls.send_alert,
            Operation.UPDATE: calls.send_alert,
            Operation.REOPEN: calls.send_alert,
            Operation.ACKNOWLEDGE: calls.send_accept,
            Operation.RESOLVE: calls.send_resolve,
            Operation.COMMENT: calls.send_comment,
        },
        nearest={Operation.DELETE: Operation.RESOLVE},
        verdicts={404: "hold"},  # no alert source has the key; its path names nothing else (github.com/iLert/ilagent)
        authorise=calls.authorise,
        reason=calls.reason,
    ),
    credentials=_credentials,
    credential_in_body=True,
    admits=_admits,
    problem=_problem,
    shown_id=str,
    same_key=lambda key: key.strip().lower(),
    url="https://api.ilert.com",
    client_setting="the host `https://api.ilert.com` → `http://gateway/ilert`",
    remark=(
        "An upstream's `key` is that of an alert source. "
        "Integrations that post ilert's own event to an address of their own, with the key in it "
        "(`/api/v1/events/kubernetes/<key>`, `…/push/<key>`), are served there; so are, in their own formats, Zabbix's "
        "media type, Checkmk's plugin, and Alertmanager's and Grafana's webhooks (`…/prometheus/<key>`, "
        "`…/grafana/<key>`): a group is one alert, as at ilert, with the worst severity that fires in it, and the "
        "label `ilert_routingkey` is its routing key. Integrations with payloads of their own (SCOM, Netdata) are "
        "refused with 400. The XML of Nagios and Icinga, and heartbeats, are refused with 404: before you move away, "
        "have them monitored elsewhere. An assignment is passed on as a comment; responders cannot be added or removed "
        "(405, 404)."
    ),
)
