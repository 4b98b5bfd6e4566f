"""What the callers of a soak ask: of five dialects, alerts that are opened, repeated, changed, asked for, listed and
ended, and now and then something that is refused. It must not know what the gateway does with it."""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

KEY = "chaos-caller-key-0123456789"
DIALECTS = ("pagerduty", "opsgenie", "ilert", "uptinio", "alertmanager")
BEARER = {"authorization": f"Bearer {KEY}"}
GENIE = {"authorization": f"GenieKey {KEY}"}
SIZES = (10, 100, 1000, 1000, 10_000)
MOST_OPEN = 100
"""Alerts of each dialect that are open at once: without a limit, what the stores keep would grow."""
Step = Literal["begin", "go on", "end"]
"""What becomes of an alert."""


@dataclass(frozen=True)
class Asked:
    """One request. `opens` is the key of the alert that it opens; empty if its answer may give an id."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    dialect: str = ""

    def content(self) -> bytes:
        """The body, as JSON unless it is bytes."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return json.dumps(self.body).encode()


class Callers:
    """All callers together."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._number = 0
        self._open: dict[str, deque[str]] = {name: deque() for name in DIALECTS}
        self._ways: dict[str, Callable[[str, Step], Asked]] = {
            "pagerduty": self._pagerduty,
            "opsgenie": self._opsgenie,
            "ilert": self._ilert,
            "uptinio": self._uptinio,
            "alertmanager": self._alertmanager,
        }

    def next(self) -> Asked:
        """The next request."""
        self._number += 1
        if self._chance.random() < 0.03:
            return self._refused()
        dialect = self._chance.choice(DIALECTS)
        known, ways = self._open[dialect], self._ways[dialect]
        if len(known) >= MOST_OPEN or (known and self._chance.random() < 0.2):
            return ways(known.popleft(), "end")
        if known and self._chance.random() < 0.6:
            return ways(self._chance.choice(known), "go on")
        key = f"k{self._number}"
        if dialect != "uptinio":
            known.append(key)
        return ways(key, "begin")

    def heard(self, asked: Asked, answer: bytes) -> None:
        """Remembers the id in an answer, where callers speak of an alert by that."""
        if asked.dialect == "uptinio" and asked.method == "POST":
            self._open["uptinio"].append(str(json.loads(answer)["data"]["id"]))

    def _text(self) -> str:
        return "x" * self._chance.choice(SIZES)

    def _pagerduty(self, key: str, step: Step) -> Asked:
        event: dict[str, Any] = {"routing_key": KEY, "dedup_key": key, "event_action": "resolve"}
        if step == "go on" and self._chance.random() < 0.5:
            event["event_action"] = "acknowledge"
        elif step != "end":
            severity = self._chance.choice(["critical", "error", "warning", "info"])
            details = {"text": self._text()}
            event["event_action"] = "trigger"
            event["payload"] = {"summary": key, "source": "soak", "severity": severity, "custom_details": details}
        return Asked("POST", "/pagerduty/v2/enqueue", event)

    def _opsgenie(self, key: str, step: Step) -> Asked:
        about = f"/opsgenie/v2/alerts/{key}"
        what = self._chance.choice(["again", "acknowledge", "notes", "get", "list"])
        if step == "end":
            if self._chance.random() < 0.2:
                return Asked("DELETE", f"{about}?identifierType=alias", None, GENIE)
            return Asked("POST", f"{about}/close?identifierType=alias", {}, GENIE)
        if step == "begin" or what == "again":
            alert = {"message": key, "alias": key, "description": self._text(), "tags": ["soak"]}
            alert["priority"] = self._chance.choice(["P1", "P2", "P3", "P5"])
            once = {"idempotency-key": f"i-{self._number}"} if self._chance.random() < 0.3 else {}
            return Asked("POST", "/opsgenie/v2/alerts", alert, {**GENIE, **once})
        if what == "list":
            return Asked("GET", "/opsgenie/v2/alerts?query=status:open&limit=20", None, GENIE)
        if what == "get":
            return Asked("GET", f"{about}?identifierType=alias", None, GENIE)
        return Asked("POST", f"{about}/{what}?identifierType=alias", {"note": self._text()}, GENIE)

    def _ilert(self, key: str, step: Step) -> Asked:
        event: dict[str, Any] = {"apiKey": KEY, "eventType": "RESOLVE", "alertKey": key, "summary": key}
        if step == "go on" and self._chance.random() < 0.5:
            event["eventType"] = "ACCEPT"
        elif step != "end":
            event["eventType"] = "ALERT"
            event["details"] = self._text()
        return Asked("POST", "/ilert/api/events", event)

    def _uptinio(self, key: str, step: Step) -> Asked:
        if step == "begin":
            alert = {"monitor_id": key, "type": "down", "message": key}
            return Asked("POST", "/uptinio/alerts", alert, BEARER, "uptinio")
        if step == "end":
            return Asked("PUT", f"/uptinio/alerts/{key}", {"status": "resolved"}, BEARER)
        return Asked("GET", self._chance.choice([f"/uptinio/alerts/{key}", "/uptinio/alerts?limit=20"]), None, BEARER)

    def _alertmanager(self, key: str, step: Step) -> Asked:
        if step == "go on" and self._chance.random() < 0.2:
            return Asked("GET", "/alertmanager/api/v2/alerts", None, BEARER)
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + (-1 if step == "end" else 240)))
        notes = {"summary": key, "description": self._text()[:2000]}
        alerts = [
            {"labels": {"alertname": key, "instance": str(number)}, "annotations": notes, "endsAt": ends}
            for number in range(1 + sum(map(ord, key)) % 5)
        ]
        return Asked("POST", "/alertmanager/api/v2/alerts", alerts, BEARER)

    def _refused(self) -> Asked:
        """A used `Idempotency-Key` with another body, a wrong key, half a body, a missing field or an unknown alert."""
        alert = {"message": f"again {self._number}"}
        wrong = {"authorization": "GenieKey nobody"}
        return self._chance.choice(
            [
                Asked("POST", "/opsgenie/v2/alerts", alert, {**GENIE, "idempotency-key": "the-same"}),
                Asked("POST", "/opsgenie/v2/alerts", alert, wrong),
                Asked("POST", "/opsgenie/v2/alerts", b'{"message": ', GENIE),
                Asked("POST", "/pagerduty/v2/enqueue", {"routing_key": KEY, "event_action": "trigger"}),
                Asked("GET", f"/uptinio/alerts/alt_{self._number}", None, BEARER),
            ]
        )
