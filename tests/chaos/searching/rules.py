"""Vendors that give out ids of their own: Uptinio's alerts, and the rules of IBM Cloud Monitoring and LiveSession. What
is made twice is there twice."""

from __future__ import annotations

from typing import Any

from tests.chaos.searching.passing import written
from tests.chaos.searching.things import MARK, Asked, Said, Thing, Vendor


class Uptinio(Vendor):
    """https://app.uptinio.com/docs/api/alerts.html"""

    dialect = "uptinio"
    gives_ids = True

    def handle(self, asked: Asked) -> Said:
        """An alert, or all of them."""
        parts = asked.parts("/alerts")
        if not parts and asked.method == "GET":
            shown = [self._shown(thing) for thing in self.there()]
            return 200, {"data": shown, "meta": {"page": 1, "per_page": 100, "total": len(shown)}}
        if not parts:
            thing = Thing(f"alt_{next(self.numbers)}", body=dict(asked.body))
            return 201, {"data": self._shown(self.make(thing, asked.body.get("message", "")))}
        found = self.by_id(parts[0])
        if found is None:
            return 404, {"error": {"code": "alert_not_found", "message": "The specified alert does not exist"}}
        if asked.method == "PUT":
            self._change(self.touch(found), asked.body)
        return 200, {"data": self._shown(found)}

    def _change(self, thing: Thing, body: dict[str, Any]) -> None:
        if "message" in body:
            thing.texts.append(body["message"])
        if body.get("status") == "active" and not thing.is_open:
            self.page(thing, "reopened")
        if "status" in body:
            thing.is_open = body["status"] == "active"
        thing.body |= body

    def _shown(self, thing: Thing) -> dict[str, Any]:
        return {
            "id": thing.id,
            "monitor_id": thing.body.get("monitor_id"),
            "type": thing.body.get("type"),
            "status": "active" if thing.is_open else "resolved",
            "message": thing.text,
            "created_at": written(thing.made_at)[:-5] + "Z",
            "resolved_at": None if thing.is_open else self.passing.text(),
        }


class Ibm(Vendor):
    """https://cloud.ibm.com/docs/monitoring?topic=monitoring-alert_api: versions, and names that nobody else has."""

    dialect = "ibm_monitoring"
    gives_ids = True
    is_one_alert = False

    def handle(self, asked: Asked) -> Said:
        """A rule, or all of them."""
        if asked.path == "/api/notificationChannels":
            return 200, {"notificationChannels": []}
        parts = asked.parts("/api/alerts")
        if not parts and asked.method == "GET":
            return 200, {"alerts": [thing.body for thing in self.there()]}
        if not parts:
            return self._create(asked.body["alert"])
        thing = self.by_id(parts[0])
        if thing is None:
            return 404, {"errors": [{"reason": "not found", "message": "no such alert"}]}
        if asked.method == "DELETE":
            self.touch(thing).is_deleted, thing.is_open = True, False
            return 204, None
        return self._put(thing, asked.body["alert"]) if asked.method == "PUT" else (200, {"alert": thing.body})

    def _create(self, alert: dict[str, Any]) -> Said:
        if self._is_taken(alert["name"]):
            return 422, {"errors": [{"reason": "name is already used", "message": "Already exists"}]}
        number, now = 700 + next(self.numbers), int(self.passing.now() * 1000)
        body = {"enabled": True, **alert, "id": number, "version": 1, "createdOn": now, "modifiedOn": now}
        thing = Thing(str(number), body=body, is_open=body["enabled"])
        self.make(thing, alert["name"], "made" if thing.is_open else "")
        return 200, {"alert": body}

    def _put(self, thing: Thing, alert: dict[str, Any]) -> Said:
        version = thing.body["version"]
        if alert.get("version") != version:
            return 409, {"errors": [{"reason": "Conflict version", "message": "Conflict version"}]}
        if self._is_taken(alert["name"], thing):
            return 422, {"errors": [{"reason": "name is already used", "message": "Already exists"}]}
        own = {"id": int(thing.id), "version": version + 1, "modifiedOn": int(self.passing.now() * 1000)}
        thing.body = {**thing.body, **alert, **own}
        self.touch(thing).texts.append(alert["name"])
        was_open, thing.is_open = thing.is_open, thing.body["enabled"] is not False
        if thing.is_open and not was_open:
            self.page(thing, "switched on")
        return 200, {"alert": thing.body}

    def _is_taken(self, name: str, by: Thing | None = None) -> bool:
        return any(thing.body["name"] == name for thing in self.there() if thing is not by)

    def open(self, mark: str) -> list[Thing]:
        """What is switched on, and says what this alert is: a rule is switched on again for another of its key."""
        found = (thing for thing in super().open(mark) if (last := MARK.search(thing.text)) and last[0] == mark)
        return list(found)


class LiveSession(Vendor):
    """https://developers.livesession.io/docs/api/rest/alerts"""

    dialect = "livesession"
    gives_ids = True

    def handle(self, asked: Asked) -> Said:
        """A rule, or all of them."""
        parts = asked.parts("/v1/alerts")
        if not parts and asked.method == "GET":
            return 200, [thing.body for thing in self.there()]
        if not parts:
            number = f"ls-{next(self.numbers)}"
            body = {**asked.body, "alert_id": number, "enabled": True, "creation_date": self.passing.text()}
            return 201, self.make(Thing(number, body=body), body["name"]).body
        thing = self.by_id(parts[0])
        if thing is None:
            return 404, {"error": {"type": "x", "code": "not_found", "message": "no", "http_status_code": 404}}
        self.touch(thing)
        if asked.method == "DELETE":
            thing.is_deleted, thing.is_open = True, False
            return 200, {"alert_id": thing.id, "deleted": True}
        if asked.body.get("name"):
            thing.texts.append(asked.body["name"])
        thing.body |= asked.body
        return 200, thing.body
