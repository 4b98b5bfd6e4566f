"""ilert's calls about one alert that are not about its state: its log, notifications and responders.

Sources: https://api.ilert.com/api-docs/ for the calls, iLert/ilert-go for how clients read the answers. It must not
know what stands behind the gateway.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.asked import Answer, Incoming, Read, Ref, Reply, Told
from gateway.asking import read_by_id, whole_number
from gateway.canonical import Operation
from gateway.dialect import Route
from gateway.mapping.values import iso
from gateway.outcome import Json

REFERENCE = "https://api.ilert.com/api-docs/"


class LogEntry(Struct, kw_only=True):
    """A line of an alert's log."""

    id: int
    timestamp: str
    logEntryType: str
    text: str
    alertId: int


class Nobody(Struct, kw_only=True):
    """A person notified or called in. The gateway has none, so lists of them are empty."""


LOGGED = {
    Operation.CREATE: ("AlertReceivedLogEntry", "Alert received"),
    Operation.UPDATE: ("AlertReceivedLogEntry", "Alert received again"),
    Operation.ACKNOWLEDGE: ("AlertSourceResponseLogEntry", "Alert accepted"),
    Operation.RESOLVE: ("AlertSourceResponseLogEntry", "Alert resolved"),
    Operation.COMMENT: ("AlertSourceResponseLogEntry", "Comment"),
}
OTHERWISE = ("AlertSourceResponseLogEntry", "Alert changed")


def _log(incoming: Incoming) -> Read:
    """Reads a request for one page of the log. Clients page on until a page is empty."""
    begin = whole_number(incoming, "start-index", 0, least=0, most=10**9)
    size = whole_number(incoming, "max-results", 50, least=1, most=100)
    return Read(ref=Ref(id=incoming.params["id"]), history=True, page={"begin": begin, "end": begin + size})


def _answer_log(answer: Answer) -> Reply:
    assert answer.shown
    number = int(answer.shown.id) if answer.shown.id.isdigit() else 0
    part = answer.history[answer.page.get("begin", 0) : answer.page.get("end")]
    return Reply(200, [_logged(told, number) for told in part])


def _logged(told: Told, number: int) -> dict[str, Json]:
    kind, text = LOGGED.get(told.operation, OTHERWISE)
    said = f"{text} from {told.caller}" + (f": {told.comment}" if told.comment else "")
    return {"id": told.number, "timestamp": iso(told.at), "logEntryType": kind, "text": said, "alertId": number}


def _answer_nobody(answer: Answer) -> Reply:
    """Answers with an empty list: the gateway itself notifies nobody and calls nobody in."""
    return Reply(200, [])


def _nobody(rest: str, summary: str) -> Route:
    return Route(
        method="GET",
        path=f"/api/alerts/{{id}}/{rest}",
        operations=(Operation.READ,),
        read=read_by_id,
        answer=_answer_nobody,
        summary=summary,
        returns=list[Nobody],
        source=REFERENCE,
        side=True,
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/alerts/{id}/log-entries",
        operations=(Operation.READ,),
        read=_log,
        answer=_answer_log,
        summary="Get the log of an alert",
        returns=list[LogEntry],
        source=REFERENCE,
        side=True,
        query=("start-index", "max-results"),
    ),
    _nobody("notifications", "Get the notifications about an alert: there are none"),
    _nobody("responders", "Get the responders of an alert: there are none"),
    _nobody("suggested-responders", "Get the suggested responders: there are none"),
)
