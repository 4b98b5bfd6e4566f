"""Shared by the tests of batches, renewals and silences: a gateway with an Alertmanager caller in front of upstreams of
any dialect, over either kind of store, and queries of what is left in that store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import psycopg

from gateway.mapping.values import iso
from tests.clients.callers import ALERTS, settings
from tests.harness import House, Sent, house
from tests.postgres_server import shared

SILENCES = "/alertmanager/api/v2/silences"
STORES = ("sqlite", "postgresql")


def address(kind: str, directory: Path) -> str:
    """The URL for an empty store of a kind: in a directory, or in a database of its own."""
    return f"sqlite://{directory}/gateway.db" if kind == "sqlite" else shared().database()


@contextlib.contextmanager
def lasting(directory: Path, upstreams: Mapping[str, str], store: str = "", **more: str) -> Iterator[House]:
    """A gateway with two callers in every dialect, whose alerts all go to all of these upstreams."""
    routes = f"[[routes]]\nto = {list(upstreams)}\n"
    with house(directory, config=lambda url: settings(url, dict(upstreams), routes=routes, **more), store=store) as h:
        yield h


def select(h: House, statement: str) -> list[Any]:
    """The first column of a query's rows, read from the store directly."""
    where = h.gateway.config.store
    if where.startswith("postgresql:"):
        with psycopg.connect(where) as found:
            return [row[0] for row in found.execute(statement.encode())]
    with contextlib.closing(apsw.Connection(where)) as connection:
        return [row[0] for row in connection.execute(statement)]


def seconds(number: float) -> str:
    """The time this many seconds from now."""
    return iso(datetime.now(UTC) + timedelta(seconds=number))


def alert(name: str, **fields: Any) -> dict[str, Any]:
    """An alert as Prometheus posts it."""
    summary = {"annotations": {"summary": f"{name} is down"}}
    return {"labels": {"alertname": name, "severity": "critical"}, **summary, **fields}


def posted(h: House, *alerts: dict[str, Any], **how: Any) -> Sent:
    """Posts alerts; they must be accepted."""
    sent = h.call("POST", ALERTS, list(alerts), **how)
    assert sent.status == 200, sent.body
    return sent


def words(h: House, name: str) -> list[str]:
    """The events that ilert received about an alert of this name, in order; an event after the first has its key
    alone."""
    arrived = h.arrived("ilert")
    keys = {one.body["alertKey"] for one in arrived if one.body.get("summary") == f"{name} is down"}
    return [one.body["eventType"] for one in arrived if one.body["alertKey"] in keys]
