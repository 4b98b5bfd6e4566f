"""Zabbix's own media type for ilert, which posts the macros of a problem as they are, with the key in the path.

The macros are explained in https://www.zabbix.com/documentation/current/en/manual/appendix/macros/supported_by_location
and are turned into the event that ilert's own page documents. It must not know what stands behind the gateway.
"""

from __future__ import annotations

import re

from msgspec import Struct

from gateway.errors import invalid
from gateway.outcome import Json

SOURCE = "https://git.zabbix.com/projects/ZBX/repos/zabbix/browse/templates/media/ilert"
SEVERITIES = {"5": 1, "4": 2, "3": 3, "2": 4, "1": 5, "0": 5}
"""ilert's severity for each `EVENT.NSEVERITY`, from 5 (disaster) to 0 (not classified)."""
_UNRESOLVED = re.compile(r"\{[^{}]*\}|\*UNKNOWN\*")


class Macros(Struct, kw_only=True, rename=lambda name: name.replace("_", ".")):
    """The macros that have a meaning here; all others are kept as custom details."""

    EVENT_ID: str
    EVENT_VALUE: str
    EVENT_NAME: str = ""
    EVENT_NSEVERITY: str = ""
    EVENT_UPDATE_STATUS: str = ""
    EVENT_UPDATE_ACTION: str = ""
    ALERT_MESSAGE: str = ""
    HOST_NAME: str = ""
    TRIGGER_URL: str = ""


def event(body: dict[str, Json]) -> dict[str, Json]:
    """Returns the ilert event for a problem's macros: the problem is opened, acknowledged, commented on or resolved.
    Raises `Problem` if a macro that it needs is missing."""
    macros = {name: text for name, value in body.items() if (text := _resolved(value))}
    for name in ("EVENT.ID", "EVENT.VALUE"):
        if name not in macros:
            raise invalid(name, "is required")
    word = _word(macros)
    key: dict[str, Json] = {"eventType": word, "alertKey": f"zabbix-{macros['EVENT.ID']}"}
    message = macros.get("ALERT.MESSAGE", "")
    if word == "ALERT":
        return {**key, **_problem(macros, message)}
    return {**key, "details": message} if message else key


def unread(body: dict[str, Json]) -> tuple[tuple[str, str], ...]:
    """Returns what the event does not contain of the macros, each with the reason."""
    macros = {name: text for name, value in body.items() if (text := _resolved(value))}
    found = [(name, PRIVATE[name]) for name in PRIVATE if name in macros]
    found += [(name, "not a text") for name, value in body.items() if value is not None and not isinstance(value, str)]
    return (*found, *([UPDATED] if _word(macros) != "ALERT" else []))


def _resolved(value: Json) -> str:
    """Returns a macro's value; an empty text where Zabbix had none and left the macro unresolved."""
    text = value.strip() if isinstance(value, str) else ""
    return "" if _UNRESOLVED.fullmatch(text) else text


def _word(macros: dict[str, str]) -> str:
    if macros["EVENT.VALUE"] not in ("0", "1"):
        raise invalid("EVENT.VALUE", "is none of 0, 1")
    if macros["EVENT.VALUE"] == "0":
        return "RESOLVE"
    if macros.get("EVENT.UPDATE.STATUS") != "1":
        return "ALERT"
    done = re.findall(r"\w+", macros.get("EVENT.UPDATE.ACTION", ""))
    return "ACCEPT" if "acknowledged" in done else "COMMENT"


def _problem(macros: dict[str, str], message: str) -> dict[str, Json]:
    """Returns a problem as fields of the event. Its summary is the one that somebody configured in Zabbix, else the
    problem's name and host, else the subject."""
    usual = " on ".join(macros[name] for name in ("EVENT.NAME", "HOST.NAME") if name in macros)
    said: dict[str, Json] = {
        "summary": macros.get(".ILERT.INCIDENT.SUMMARY") or usual or macros.get("ALERT.SUBJECT", ""),
        "details": message,
        "severity": SEVERITIES.get(macros.get("EVENT.NSEVERITY", "")),
        "links": [{"href": macros["TRIGGER.URL"], "text": "Trigger"}] if "TRIGGER.URL" in macros else None,
        "customDetails": {name: text for name, text in sorted(macros.items()) if name not in _SAID},
    }
    return {name: value for name, value in said.items() if value}


PRIVATE = {
    **dict.fromkeys((".ILERT.ALERT.SOURCE.KEY", "apiKey", "integrationKey"), "a credential"),
    "HTTPProxy": "how the sender gets here",
}
"""Macros that are not passed on, and why."""
UPDATED = ("(macros)", "only the message of an update is told, and what the problem is was told when it began")
_SAID = (*PRIVATE, ".ILERT.INCIDENT.SUMMARY", "ALERT.MESSAGE")
"""Macros that are not kept as custom details: the event has them elsewhere, or they are private."""
