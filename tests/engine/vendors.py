"""Small vendors for tests, behind a chaos upstream: they keep and show what they are sent, as Uptinio and IBM do, and
their answer to a write can be replaced after they have carried it out. Also a gateway that has two callers of every
dialect in front of such upstreams, and functions that look into its store on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.store import DeliveryFilter, DeliveryRow
from gateway.store.sqlite import SqliteStore, SqliteTx
from tests.chaos_upstream import Behaviour, Chaos, Got, say
from tests.clients.callers import COLLECTIONS, OTHER
from tests.harness import KEY, House, Sent, house

DIALECTS = ("ibm_monitoring", "ilert", "livesession", "pagerduty", "uptinio")
OK = say(202, {})
NO = say(400, {"status": 400, "message": "summary is too rude", "code": "BAD_REQUEST"})


def slow(seconds: float, behaviour: Behaviour) -> Behaviour:
    """The behaviour, `seconds` later."""

    async def act(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await behaviour.act(writer)

    return Behaviour(f"slow {behaviour.name}", act)


def gated(gate: threading.Event, behaviour: Behaviour) -> Behaviour:
    """The behaviour, as soon as the gate opens."""

    async def act(writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(gate.wait, 5)
        await behaviour.act(writer)

    return Behaviour(f"gated {behaviour.name}", act)


class Vendor:
    """Common to both vendors. `held` has their alerts by id; `then` replaces the next answers to writes, after these
    were carried out; `slow_reads` delays reads by seconds, with the state of the moment when they were asked."""

    def __init__(self, *held: dict[str, Any]) -> None:
        self.held: dict[str, dict[str, Any]] = {str(one["id"]): one for one in held}
        self.then: list[Behaviour] = []
        self.slow_reads = 0.0

    def __call__(self, got: Got) -> Behaviour:
        """Carries out a request."""
        number = got.path.partition("?")[0].rpartition("/")[2]
        if got.method == "GET":
            return slow(self.slow_reads, self._read(number)) if self.slow_reads else self._read(number)
        answer = self._write(got, number)
        return self.then.pop(0) if self.then else answer

    def _read(self, number: str) -> Behaviour:
        raise NotImplementedError

    def _write(self, got: Got, number: str) -> Behaviour:
        raise NotImplementedError


class Uptinio(Vendor):
    """`POST`, `GET` and `PUT` below `/alerts`: https://app.uptinio.com/docs/api/alerts.html."""

    first = 1

    def _read(self, number: str) -> Behaviour:
        if number == "alerts":
            listed = list(self.held.values())
            return say(200, {"data": listed, "meta": {"page": 1, "per_page": 100, "total": len(listed)}})
        found = self.held.get(number)
        return say(200, {"data": dict(found)}) if found else say(404, {"error": {"code": "alert_not_found"}})

    def _write(self, got: Got, number: str) -> Behaviour:
        if got.method == "PUT":
            self.held[number].update(got.body)
            return say(200, {"data": self.held[number]})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = {**got.body, "id": f"alt_{self.first + len(self.held)}", "status": "active", "created_at": now}
        self.held[made["id"]] = made
        return say(201, {"data": made})


class Ibm(Vendor):
    """`POST`, `GET` and `PUT` below `/api/alerts`, with versions and unique names:
    https://cloud.ibm.com/docs/monitoring?topic=monitoring-alert_api."""

    lists = True

    def _read(self, number: str) -> Behaviour:
        if number == "alerts":
            return say(200, {"alerts": list(self.held.values()) if self.lists else []})
        return say(200, {"alert": self.held[number]}) if number in self.held else say(404, {"errors": []})

    def _write(self, got: Got, number: str) -> Behaviour:
        alert = got.body["alert"]
        if any(one["name"] == alert.get("name") and str(one["id"]) != number for one in self.held.values()):
            return say(422, {"errors": [{"reason": "name is already used", "message": "Already exists"}]})
        if got.method == "PUT":
            alert = {**alert, "id": int(number), "version": self.held[number]["version"] + 1}
        else:
            number = str(700 + len(self.held))
            alert = {**alert, "id": int(number), "version": 1}
            alert["createdOn"] = int(datetime.now(UTC).timestamp() * 1000)
        self.held[number] = alert
        return say(200, {"alert": alert})


class LiveSession(Vendor):
    """`POST`, `GET`, `PUT` and `DELETE` below `/v1/alerts`: https://developers.livesession.io/docs/api/rest/alerts."""

    def _read(self, number: str) -> Behaviour:
        return say(200, list(self.held.values())) if number == "alerts" else say(404, {"error": {}})

    def _write(self, got: Got, number: str) -> Behaviour:
        if got.method == "DELETE":
            return say(200, {"alert_id": number, "deleted": self.held.pop(number, None) is not None})
        if got.method == "PUT":
            self.held[number].update(got.body)
            return say(200, self.held[number])
        number = f"a{len(self.held) + 1}"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.held[number] = {**got.body, "alert_id": number, "enabled": True, "creation_date": now}
        return say(201, self.held[number])


BY_ID = pytest.mark.parametrize(("dialect", "vendor"), [("uptinio", Uptinio), ("ibm_monitoring", Ibm)])
"""Runs a test with either vendor."""


def writes(upstream: Chaos, method: str | None = None) -> list[Got]:
    """The requests that arrived there, without reads."""
    return [got for got in list(upstream.got) if (got.method == method if method else got.method != "GET")]


# --- the gateway before them -----------------------------------------------------------------------------------

NEEDS = 'defaults = { resource = "mon_9", "condition.expression" = "avg(cpu) > 1" }'


def table(name: str, url: str, dialect: str, more: str = NEEDS, *, first: str = "10ms", timeout: str = "2s") -> str:
    """An `[upstreams.…]` table; `first` is the first retry pause."""
    retry = f'retry = {{ first = "{first}", most = "{first}" }}\ntimeout = "{timeout}"'
    return f'[upstreams.{name}]\ndialect = "{dialect}"\nurl = "{url}"\nkey = "upstream-key"\n{retry}\n{more}\n'


@contextlib.contextmanager
def before(directory: Path, *tables: str, routes: str = "", top: str = "", scope: str = "") -> Iterator[House]:
    """A gateway for the callers `ci` and `ops` of every dialect; `scope`, if given, is shared by all of them."""
    shared = f'scope = "{scope}"\n' if scope else ""
    inbounds = [f'[inbound.{name}]\nkeys = {{ ci = "{KEY}", ops = "{OTHER}" }}\n{shared}' for name in DIALECTS]
    text = "\n".join([*inbounds, *tables, routes])
    with house(directory, config=lambda _: text, top=top) as standing:
        yield standing


def down(h: House, message: str = "Website is down", *, key: str = KEY, **more: Any) -> Sent:
    """Sends Uptinio's documented create."""
    body = {"monitor_id": "mon_123", "type": "down", "message": message, **more}
    return h.call("POST", COLLECTIONS["uptinio"], body, key=key)


def page(h: House, key: str = "disk", **more: Any) -> Sent:
    """Sends an ilert event."""
    event = {"apiKey": KEY, "eventType": "ALERT", "summary": "Disk full", "alertKey": key, **more}
    return h.call("POST", "/ilert/api/events", event, key=None)


def messages(h: House, *, key: str = KEY) -> list[str]:
    """The messages that an Uptinio caller sees in its list, in the list's order."""
    sent = h.call("GET", COLLECTIONS["uptinio"] + "?per_page=100", key=key)
    assert sent.status == 200, sent.body
    return [alert["message"] for alert in sent.body["data"]]


# --- the store as it is on the disk ----------------------------------------------------------------------------


def outbox(h: House, state: str = "") -> list[DeliveryRow]:
    """All deliveries, oldest first, or those in a state."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        rows = SqliteTx(connection).deliveries(DeliveryFilter())[::-1]
    return [row for row in rows if not state or row.state == state]


def settled(h: House, state: str = "delivered", count: int = 1, seconds: float = 20.0) -> list[DeliveryRow]:
    """Waits until `count` deliveries are in a state."""
    return list(h.wait_for(lambda: len(found := outbox(h, state)) >= count and found, seconds))


def count(h: House, what: str) -> int:
    """The number of rows of a table."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return int(next(connection.execute(f"SELECT count(*) FROM {what}"))[0])


def rows(h: House, column: str, what: str) -> list[Any]:
    """A column of a table."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return [row[0] for row in connection.execute(f"SELECT {column} FROM {what}")]


def fill(h: House) -> None:
    """Allows the store no page more than it has."""
    store = h.gateway.store
    assert isinstance(store, SqliteStore)
    store._writer.pragma("max_page_count", store._writer.pragma("page_count"))


def heal(h: House) -> None:
    """Gives the store room again."""
    store = h.gateway.store
    assert isinstance(store, SqliteStore)
    store._writer.pragma("max_page_count", 1 << 30)


def inner(sent: Sent) -> dict[str, Any]:
    """The alert in an answer, without the dialect's envelope."""
    found: dict[str, Any] = json.loads(json.dumps(sent.body))
    return dict(found.get("alert", found.get("data", found)))


def ago(minutes: float) -> str:
    """A time in the past, as Uptinio writes it."""
    return (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
