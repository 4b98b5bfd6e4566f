"""Stand-ins for two vendors that answer writes with receipts, behind a chaos upstream: Opsgenie, and the API of its
successor.

Every write is given a receipt, and a test sets what the receipt later says. They must not know what a test looks for.
"""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from tests.chaos_upstream import Behaviour, Chaos, Got, say
from tests.engine.vendors import table, writes

ID = "8743a1b2-11da-480e-8493-744660987bef"
"""The id of every alert at the stand-in."""


class Opsgenie:
    """Gives a receipt for every write. A receipt is pending for `looks` questions, then says what `says` has for the
    last word of the write's path, else that it was done. `then` replaces the next answers to receipts, `reading` the
    answer to a GET of an alert."""

    dialect = "opsgenie"
    collection = "/v2/alerts"
    change = "PUT"
    details, details_at = "details", "/details"
    authorization = "GenieKey upstream-key"

    def __init__(self, looks: int = 0) -> None:
        self.looks = looks
        self.says: dict[str, str] = {}
        self.asked: dict[str, int] = {}
        self.words: dict[str, str] = {}
        self.then: list[Behaviour] = []
        self.reading: Behaviour | None = None
        self._numbers = itertools.count(1)

    def __call__(self, got: Got) -> Behaviour:
        """Answers a request."""
        path, _, query = got.path.partition("?")
        if got.method == "GET" and "/requests/" in path:
            return self.then.pop(0) if self.then else self._status(path.rpartition("/")[2])
        if got.method == "GET":
            return self.reading or self.shows(path, query)
        number = f"r{next(self._numbers)}"
        self.words[number] = f"{got.method} {path}".rpartition("/")[2]
        self.does(got, self.words[number])
        return say(202, {"result": "Request will be processed", "took": 0.1, "requestId": number})

    def _status(self, number: str) -> Behaviour:
        self.asked[number] = self.asked.get(number, 0) + 1
        if self.asked[number] <= self.looks:
            return self.not_yet()
        failed = self.says.get(self.words[number], "")
        return self.became(
            {
                "isSuccess": not failed,
                "action": "Create",
                "processedAt": "2017-05-24T14:24:20.844Z",
                "status": failed or "Created alert",
                "alertId": "" if failed else ID,
                "alias": "disk",
            }
        )

    def not_yet(self) -> Behaviour:
        """A pending receipt: the answer that the vendor's own Go SDK takes for "ask again"."""
        body = {"message": "Request not processed", "took": 0.0, "requestId": "r"}
        return say(404, body, {"X-Opsgenie-Errortype": "RequestNotProcessed"})

    def became(self, found: dict[str, Any]) -> Behaviour:
        """The answer about a receipt, in this API's envelope."""
        data = {"success": found["isSuccess"], **found}
        return say(200, {"data": data, "took": 0.02, "requestId": "another"})

    def shows(self, path: str, query: str) -> Behaviour:
        """A GET of an alert or of the list: always 404 here; subclasses keep alerts."""
        return say(404, {"message": "Alert does not exist", "took": 0.0, "requestId": "r"})

    def does(self, got: Got, word: str) -> None:
        """The effect of a write: none here; subclasses keep alerts."""

    def at(self, key: str, rest: str = "") -> str:
        """The path of the alert with this key."""
        return f"{self.collection}/{key}{rest}"

    def table(self, upstream: Chaos, more: str = "", **given: Any) -> str:
        """`[upstreams.there]`."""
        return table("there", upstream.url, self.dialect, more, **given)


class JsmOps(Opsgenie):
    """Keeps the one alert that was created, `held`, and shows it by its id and in its list."""

    dialect = "jsm_ops"
    collection = "/alerts"
    change = "PATCH"
    details, details_at = "extraProperties", "/extra-properties"
    authorization = "Basic dXBzdHJlYW0ta2V5"

    def __init__(self, looks: int = 0) -> None:
        super().__init__(looks)
        self.held: dict[str, Any] | None = None

    def not_yet(self) -> Behaviour:
        """A pending receipt: `processedAt` is empty."""
        return self.became({"action": "Create", "processedAt": "", "isSuccess": False, "status": "", "alertId": ""})

    def became(self, found: dict[str, Any]) -> Behaviour:
        """The answer about a receipt, without an envelope."""
        return say(200, found)

    def shows(self, path: str, query: str) -> Behaviour:
        """The alert by its id, or the list filtered by alias."""
        if path == self.collection:
            [asked] = parse_qs(query).get("query", [""])
            is_it = self.held is not None and asked in ("", f"alias:{json.dumps(self.held['alias'])}")
            return say(200, {"values": [self.held] if is_it else [], "links": {}})
        return say(200, self.held) if self.held else super().shows(path, query)

    def does(self, got: Got, word: str) -> None:
        """Keeps a create and carries out a close, unless `says` has it fail."""
        if word == "alerts" and word not in self.says:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self.held = {**got.body, "id": ID, "status": "open", "createdAt": now}
        elif word == "close" and word not in self.says and self.held:
            self.held["status"] = "closed"

    def at(self, key: str, rest: str = "") -> str:
        """The path of the alert: by id alone, as this API finds none by alias."""
        return f"{self.collection}/{ID}{rest}"


def paths(upstream: Chaos) -> list[str]:
    """Method and path of each write that arrived."""
    return [f"{got.method} {got.path.partition('?')[0]}" for got in writes(upstream)]
