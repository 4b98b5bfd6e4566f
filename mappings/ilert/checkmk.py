"""Checkmk's notification plugin for ilert, which posts what Checkmk knows of a problem, with the key in the path.

Sources: https://docs.ilert.com/inbound-integrations/checkmk/native for the notifications that count, and
https://docs.checkmk.com/latest/en/notifications.html for the meaning of each name. They are turned into the event that
ilert's own page documents. It must not know what stands behind the gateway.
"""

from __future__ import annotations

import hashlib
import re

from msgspec import Struct

from gateway.errors import invalid
from gateway.outcome import Json

SOURCE = "https://docs.ilert.com/inbound-integrations/checkmk/native"
TYPES = {"PROBLEM": "ALERT", "ACKNOWLEDGEMENT": "ACCEPT", "RECOVERY": "RESOLVE"}
"""The event of each notification type; ilert ignores all other types, such as a downtime."""
SEVERITIES = {"DOWN": 1, "CRITICAL": 1, "UNREACHABLE": 2, "UNKNOWN": 2, "WARNING": 3}
SUMMARIES = {
    "HOST": "$NOTIFICATIONTYPE$ Host Alert: $HOSTNAME$ is $HOSTSTATE$ - $HOSTOUTPUT$",
    "SERVICE": "$NOTIFICATIONTYPE$ Service Alert: $HOSTALIAS$/$SERVICEDESC$ is $SERVICESTATE$ - $SERVICEOUTPUT$",
}
"""The default summaries of Checkmk's form."""
LONGEST = 2000
"""Characters of a summary's pattern, and of each text put into it: both come from the caller, and a mebibyte of them
would make a summary of gigabytes. The custom details have the texts whole."""
KEPT = re.compile(r"(HOST|SERVICE|NOTIFICATION|LONG|OMD_SITE)(?!CHECKCOMMAND)")
"""Names kept as custom details. The plugin's parameters and check commands are not, as they may contain keys and
passwords; nor are contacts."""


UNREAD = {
    r"PARAMETER_": ("PARAMETER_*", "a setting of the plugin, which may be a key"),
    r".*CHECKCOMMAND": ("*CHECKCOMMAND", "may contain a password"),
    r".*CONTACT": ("*CONTACT*", "whom Checkmk notifies"),
}
"""Patterns of names that are not kept, and for each what the report calls them, and why they are not."""
UPDATED = ("(context)", "only the comment of an update is told, and what the problem is was told when it began")


class Context(Struct, kw_only=True):
    """The names that have a meaning here."""

    NOTIFICATIONTYPE: str
    WHAT: str
    HOSTNAME: str
    HOSTALIAS: str = ""
    HOSTSTATE: str = ""
    HOSTOUTPUT: str = ""
    SERVICEDESC: str = ""
    SERVICESTATE: str = ""
    SERVICEOUTPUT: str = ""
    NOTIFICATIONCOMMENT: str = ""
    PARAMETER_ILERT_PRIORITY: str = ""
    PARAMETER_ILERT_SUMMARY_HOST: str = ""
    PARAMETER_ILERT_SUMMARY_SERVICE: str = ""


READ = frozenset(Context.__struct_fields__)


class Noted(Struct, kw_only=True):
    """The answer, whose key Checkmk writes into its log."""

    incidentKey: str


def event(body: dict[str, Json]) -> dict[str, Json] | None:
    """Returns the ilert event for a notification, or None for a type that ilert ignores. Raises `Problem` if a required
    name is missing."""
    said = {name: value for name, value in body.items() if isinstance(value, str)}
    for name in ("NOTIFICATIONTYPE", "WHAT", "HOSTNAME"):
        if not said.get(name):
            raise invalid(name, "is required")
    if said["WHAT"] not in SUMMARIES:
        raise invalid("WHAT", f"{said['WHAT'][:64]!r} is none of {', '.join(SUMMARIES)}")
    word = TYPES.get(said["NOTIFICATIONTYPE"])
    if word is None:
        return None
    key: dict[str, Json] = {"eventType": word, "alertKey": _key(said)}
    if word == "ALERT":
        return {**key, **_problem(said)}
    comment = said.get("NOTIFICATIONCOMMENT", "")
    return {**key, "details": comment} if comment else key


def unread(body: dict[str, Json]) -> tuple[tuple[str, str], ...]:
    """Returns what the event does not contain of a notification, each with the reason."""
    if body.get("NOTIFICATIONTYPE") != "PROBLEM":
        return (UPDATED,)
    names = [name for name, value in body.items() if value not in ("", None) and name not in READ]
    left = [name for name in names if not (isinstance(body[name], str) and KEPT.match(name))]
    return tuple(dict.fromkeys(_unread(name) for name in left))


def _unread(name: str) -> tuple[str, str]:
    found = (told for pattern, told in UNREAD.items() if re.match(pattern, name))
    return next(found, (name, "Checkmk's own, and says nothing of the problem"))


def _key(said: dict[str, str]) -> str:
    """Returns the key that a problem shares with its recovery: a hash, as services may differ in case alone, which keys
    may not."""
    about = said.get("SERVICEDESC", "") if said["WHAT"] == "SERVICE" else ""
    return hashlib.sha256(f"{said['HOSTNAME']}\n{about}".encode("utf8", "surrogatepass")).hexdigest()


def _problem(said: dict[str, str]) -> dict[str, Json]:
    what = said["WHAT"]
    pattern = said.get(f"PARAMETER_ILERT_SUMMARY_{what}") or SUMMARIES[what]
    texts = (said.get(f"{name}{what}OUTPUT", "").replace("\\n", "\n") for name in ("", "LONG"))
    event: dict[str, Json] = {
        "summary": re.sub(r"\$(\w+)\$", lambda found: said.get(found[1], "")[:LONGEST], pattern[:LONGEST]),
        "details": "\n".join(text for text in (*texts, said.get("NOTIFICATIONCOMMENT", "")) if text),
        "priority": said.get("PARAMETER_ILERT_PRIORITY"),
        "severity": SEVERITIES.get(said.get(f"{what}STATE", "")),
        "labels": {"host": said["HOSTNAME"], **({"service": said["SERVICEDESC"]} if said.get("SERVICEDESC") else {})},
        "customDetails": {name: text for name, text in sorted(said.items()) if text and KEPT.match(name)},
    }
    return {name: value for name, value in event.items() if value}
