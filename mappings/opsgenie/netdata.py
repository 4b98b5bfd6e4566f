"""Netdata's notifications, as its agent posts them to the address of Opsgenie's integration, with the key in the query.

Nothing but the agent's script says what they contain: a state of an alarm, which has an id on its host. A warning or a
critical state is an alert, in the priorities that the agent's later versions name; a clear one is its end. It must not
know what stands behind the gateway.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.asked import Answer, Command, Incoming, Ref, Reply
from gateway.canonical import Operation
from gateway.errors import invalid
from gateway.outcome import Json
from mappings.opsgenie.alert import ALERT
from mappings.opsgenie.asked import required, words_of
from mappings.opsgenie.words import answered

SOURCE = "https://github.com/netdata/netdata/blob/v1.37.1/health/notifications/alarm-notify.sh.in"
PATH = "/v1/json/integrations/webhooks/netdata"
PRIORITIES = {"CRITICAL": "P1", "WARNING": "P3"}
CLEAR = "CLEAR"
UPDATED = ("(notification)", "only the message of an end is told, and what the problem is was told when it began")


class Notification(Struct, kw_only=True):
    """The fields that have a meaning here; all others are kept as details."""

    host: str
    alarmId: int | str
    status: str
    chart: str
    name: str
    info: str = ""


def read(incoming: Incoming) -> Command:
    """Reads a notification. An open alarm whose state changes is updated, as one that becomes critical has to page."""
    body = words_of(incoming)
    host, status = required(body, "host", str), required(body, "status", str)
    if status not in (*PRIORITIES, CLEAR):
        raise invalid("status", f"should be one of [ {', '.join((*PRIORITIES, CLEAR))} ]")
    if not isinstance(body.get("alarmId"), int | str) or body["alarmId"] == "":
        raise invalid("alarmId", "is required")
    alias, info = f"netdata-{host}-{body['alarmId']}", str(body.get("info", ""))
    if status == CLEAR:
        said: dict[str, Json] = {"note": info, "source": "Netdata"}
        return Command(
            operation=Operation.RESOLVE,
            ref=Ref(key=alias),
            comment=info,
            verbatim=said,
            dropped=(UPDATED,),
        )
    what = f"{required(body, 'chart', str)}.{required(body, 'name', str)}"
    details = {name: _text(value) for name, value in body.items() if name not in ("host", "info")}
    reading = ALERT.read(
        {
            "message": f"{host} {what} is {status}",
            "alias": alias,
            "description": info,
            "details": {name: text for name, text in details.items() if text},
            "entity": host,
            "source": "Netdata",
            "priority": PRIORITIES[status],
        }
    )
    return Command(
        operation=Operation.CREATE,
        patch=reading.flat,
        hints=reading.hints,
        verbatim=reading.verbatim,
        reading=reading,
        carried=reading.carried,
        amend=lambda before: {"occurrences": (before.get("occurrences") or 1) + 1, "occurred_at": incoming.now},
    )


def _text(value: Json) -> str:
    return value if isinstance(value, str) else f"{value}"


def answer(done: Answer) -> Reply:
    """Answers with 200, the only status that Netdata takes for success."""
    return answered(done, {"result": "Request will be processed"})
