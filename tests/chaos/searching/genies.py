"""Opsgenie and Jira Service Management: aliases, receipts to be asked for, and words that an alert keeps from its first
create."""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.chaos.searching.pagers import ByKey
from tests.chaos.searching.things import Asked, Said, Thing

NOTED = ("details", "extra-properties", "snooze", "assign", "escalate", "responders", "teams", "actions")
"""What is done to an alert without a trace here."""


class Opsgenie(ByKey):
    """https://docs.opsgenie.com/docs/alert-api"""

    dialect = "opsgenie"
    has_notes = True
    confirms_later = True
    takes_back = True
    collection = "/v2/alerts"
    is_wrapped = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._receipts: dict[str, dict[str, Any]] = {}
        self._late: dict[str, int] = {}

    def handle(self, asked: Asked) -> Said:
        """An alert, all of them, or a receipt."""
        parts = asked.parts(self.collection)
        if asked.method == "GET":
            return self._read(asked, parts)
        if asked.method == "POST" and not parts:
            return self._create(asked.body)
        thing = self._named(parts[0], asked.query)
        what = "/".join(parts[1:2])
        if thing is None and not self.is_wrapped:
            return 404, {"message": "there is no such alert"}
        if thing is None or (not thing.is_open and what != "notes"):
            return self._receive(what or "Delete", thing, False)
        self.touch(thing)
        self._change(thing, asked, what)
        return self._receive(what or "Delete", thing, True)

    def _named(self, name: str, query: dict[str, str]) -> Thing | None:
        return self.find(name) if query.get("identifierType") == "alias" else self.by_id(name)

    def _read(self, asked: Asked, parts: list[str]) -> Said:
        if parts[:1] == ["requests"]:
            return self._receipt(parts[1])
        if parts:
            thing = self._named(parts[0], asked.query)
            return (200, self._wrap(self._shown(thing))) if thing else (404, {"message": "Alert does not exist"})
        shown = [self._shown(thing) for thing in self.there()][::-1]
        if found := re.match(r'alias:"(.*)"$', asked.query.get("query", "")):
            alias = found[1].replace('\\"', '"').replace("\\\\", "\\")
            shown = [one for one in shown if one["alias"] == alias]
        return 200, self._wrap(shown) if self.is_wrapped else {"values": shown, "links": {}}

    def _wrap(self, said: Any) -> Any:
        return {"data": said, "took": 0.1, "requestId": "r"} if self.is_wrapped else said

    def _create(self, body: dict[str, Any]) -> Said:
        alias = body.get("alias") or uuid.uuid4().hex
        thing = self.find(alias)
        if thing is None:
            kept = {name: body.get(name) for name in ("priority", "description", "tags", "details", "extraProperties")}
            thing = self.make(Thing(str(uuid.uuid4()), key=alias, body=kept), body["message"])
        else:
            self.touch(thing).count += 1  # and nothing else of what it says
        if body.get("note"):
            thing.notes.append(body["note"])
        return self._receive("Create", thing, True)

    def _change(self, thing: Thing, asked: Asked, what: str) -> None:
        body, tags = asked.body or {}, thing.body.get("tags") or []
        if asked.method == "DELETE" and what == "tags":
            thing.body["tags"] = [tag for tag in tags if tag not in asked.query["tags"].split(",")]
        elif asked.method == "DELETE" and not what:
            thing.is_open, thing.is_deleted = False, True
        elif what in ("acknowledge", "unacknowledge"):
            thing.is_acknowledged = what == "acknowledge"
        elif what == "close":
            thing.is_open = False
        elif what == "notes":
            thing.notes.append(body["note"])
        elif what == "message":
            thing.texts.append(body["message"])
        elif what in ("priority", "description"):
            thing.body[what] = body[what]
        elif what == "tags":
            thing.body["tags"] = [*tags, *(tag for tag in body["tags"] if tag not in tags)]
        else:
            assert what in NOTED, asked

    def _receive(self, action: str, thing: Thing | None, is_done: bool) -> Said:
        if not self.is_wrapped and action == "notes" and thing:
            return 200, {"id": "n1", "note": thing.notes[-1]}
        name = str(uuid.uuid4())
        status = "Done" if is_done else "Alert is already closed" if thing else "Alert does not exist"
        self._late[name] = self.chance.choice((0, 0, 1))
        self._receipts[name] = {
            "action": action,
            "isSuccess": is_done,
            "success": is_done,
            "status": status,
            "processedAt": self.passing.text(),
            "alertId": thing.id if thing else "",
            "alias": thing.key if thing else "",
        }
        return 202, {"result": "Request will be processed", "took": 0.1, "requestId": name}

    def _receipt(self, name: str) -> Said:
        if name not in self._receipts or self._late[name]:
            self._late[name] = max(0, self._late.get(name, 0) - 1)
            return 404, {"message": "Request not found. It might not be processed, yet.", "requestId": name}
        return 200, self._wrap(self._receipts[name])

    def _shown(self, thing: Thing) -> dict[str, Any]:
        own = "details" if self.is_wrapped else "extraProperties"
        return {
            "id": thing.id,
            "tinyId": "1",
            "alias": thing.key,
            "message": thing.text,
            "status": "open" if thing.is_open else "closed",
            "acknowledged": thing.is_acknowledged,
            "isSeen": False,
            "tags": thing.body.get("tags") or [],
            "snoozed": False,
            "count": thing.count,
            "createdAt": self.passing.text(),
            "updatedAt": self.passing.text(),
            "source": "search",
            "owner": "",
            "priority": thing.body.get("priority") or "P3",
            "responders": [],
            "description": thing.body.get("description") or "",
            own: thing.body.get("details") or thing.body.get("extraProperties") or {},
        }


class Jsm(Opsgenie):
    """https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/"""

    dialect = "jsm_ops"
    collection = "/alerts"
    is_wrapped = False
