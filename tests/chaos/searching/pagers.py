"""Vendors that find an alert by what they are sent: by a key PagerDuty, ilert and Splunk On-Call, by its labels
Alertmanager."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.chaos.searching.passing import read
from tests.chaos.searching.things import MARK, Asked, Said, Thing, Vendor

UNTOLD = 300.0
"""Seconds that an alert without an end lasts at Alertmanager (`resolve_timeout`)."""


class ByKey(Vendor):
    """One alert for a key, for as long as it is open."""

    can_acknowledge = True

    @staticmethod
    def same(key: str) -> str:
        """A key as this vendor compares it."""
        return key

    def find(self, key: str) -> Thing | None:
        """What is open by this key."""
        found = (thing for thing in self.things if thing.key == self.same(key) and thing.is_open)
        return next(found, None)

    def trigger(self, key: str, text: str) -> None:
        """Opens an alert, or says what it is now."""
        thing = self.find(key)
        if thing is None:
            self.make(Thing(f"{self.dialect}-{next(self.numbers)}", key=self.same(key)), text)
        else:
            self.touch(thing).texts.append(text)


class PagerDuty(ByKey):
    """https://developer.pagerduty.com/docs/events-api-v2/overview/"""

    dialect = "pagerduty"

    def handle(self, asked: Asked) -> Said:
        """An event."""
        assert asked.path == "/v2/enqueue", asked.path
        body = asked.body
        key, action = body.get("dedup_key") or uuid.uuid4().hex, body["event_action"]
        if action == "trigger":
            if not body.get("payload", {}).get("summary"):
                return 400, {"status": "invalid event", "errors": ["'payload.summary' is missing or blank"]}
            self.trigger(key, body["payload"]["summary"])
        elif thing := self.find(key):
            self.touch(thing)
            thing.is_acknowledged |= action == "acknowledge"
            thing.is_open = action != "resolve"
        return 202, {"status": "success", "message": "Event processed", "dedup_key": key}


class Ilert(ByKey):
    """https://docs.ilert.com/developer-docs/rest-api/client-examples/creating-alerts-through-events"""

    dialect = "ilert"
    has_notes = True

    @staticmethod
    def same(key: str) -> str:
        """Trimmed, whatever the case."""
        return key.strip().lower()

    def handle(self, asked: Asked) -> Said:
        """An event."""
        assert asked.path == "/api/events", asked.path
        key, word = asked.body.get("alertKey") or uuid.uuid4().hex, asked.body["eventType"]
        if word == "ALERT":
            self.trigger(key, asked.body["summary"])
        elif thing := self.find(key):
            self.touch(thing)
            thing.is_acknowledged |= word == "ACCEPT"
            thing.is_open = word != "RESOLVE"
            if word == "COMMENT":
                thing.notes.append(json.dumps(asked.body.get("comments") or asked.body.get("summary")))
        return 202, {}


class Splunk(ByKey):
    """https://help.splunk.com/splunk-observability-cloud/splunk-on-call/integrations-with-splunk-on-call/rest-endpoint-integration-for-splunk-on-call"""

    dialect = "splunk_oncall"
    has_notes = True

    def handle(self, asked: Asked) -> Said:
        """An alert of the REST endpoint."""
        assert asked.path.startswith("/integrations/generic/20131114/alert/"), asked.path
        key, word = asked.body.get("entity_id") or uuid.uuid4().hex, asked.body["message_type"]
        if word in ("CRITICAL", "WARNING"):
            self.trigger(key, asked.body["entity_display_name"])
        elif thing := self.find(key):
            self.touch(thing)
            thing.is_acknowledged |= word == "ACKNOWLEDGEMENT"
            thing.is_open = word != "RECOVERY"
            if word == "INFO":
                thing.notes.append(asked.body["state_message"])
        return 200, {"result": "success", "entity_id": key}


class Alertmanager(Vendor):
    """https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml"""

    dialect = "alertmanager"
    can_acknowledge = True
    is_one_alert = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.silences: dict[str, dict[str, Any]] = {}

    def handle(self, asked: Asked) -> Said:
        """Alerts and silences."""
        if asked.path == "/api/v2/alerts":
            for alert in asked.body if asked.method == "POST" else ():
                self._alert(alert)
            return 200, [] if asked.method == "GET" else None
        if asked.path == "/api/v2/silences" and asked.method == "GET":
            return 200, [self._shown(name) for name in self.silences]
        if asked.path == "/api/v2/silences":
            return self._silence(asked.body)
        (name,) = asked.parts("/api/v2/silence")
        assert asked.method == "DELETE", asked
        if name not in self.silences:
            return 404, None
        silence = self.silences[name]
        silence["endsAt"] = min(silence["endsAt"], self.passing.text())
        return 200, None

    def _alert(self, alert: dict[str, Any]) -> None:
        labels, now = alert["labels"], self.passing.now()
        key = json.dumps(labels, sort_keys=True)
        ends = read(alert["endsAt"]) if alert.get("endsAt") else now + UNTOLD
        text = (alert.get("annotations") or {}).get("summary") or labels.get("alertname", "")
        thing = next((thing for thing in self.things if thing.key == key), None)
        if thing is None:
            if ends <= now:
                return
            self.make(Thing(f"am-{next(self.numbers)}", key=key, body=labels, ends=ends), text)
            return
        if thing.ends <= now < ends:
            self.page(thing, "again")
        self.touch(thing).texts.append(text)
        thing.ends = ends

    def _silence(self, body: dict[str, Any]) -> Said:
        name = body.get("id")
        if name and name not in self.silences:
            return 404, "silence not found"
        if not name or not self._holds(self.silences[name]):
            name = str(uuid.uuid4())
        self.silences[name] = {**body, "id": name}
        return 200, {"silenceID": name}

    def _holds(self, silence: dict[str, Any]) -> bool:
        return read(silence["endsAt"]) > self.passing.now()

    def _shown(self, name: str) -> dict[str, Any]:
        silence = self.silences[name]
        return {**silence, "status": {"state": "active" if self._holds(silence) else "expired"}}

    def _is_silenced(self, thing: Thing) -> bool:
        return any(
            self._holds(one) and all(thing.body.get(each["name"]) == each["value"] for each in one["matchers"])
            for one in self.silences.values()
        )

    def open(self, mark: str) -> list[Thing]:
        """What has not ended, and says what this alert is; silenced means acknowledged."""
        for thing in self.things:
            thing.is_open, thing.is_acknowledged = thing.ends > self.passing.now(), self._is_silenced(thing)
        return [
            thing for thing in self.things if thing.is_open and (found := MARK.search(thing.text)) and found[0] == mark
        ]
