"""Gateways in a row, a sidecar that forwards to a central one: what its caller does to an alert is done to the alert at
the vendor behind both, whatever they speak to each other. Each has its own store, and they talk over real HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import parse
from gateway.registry import dialects
from gateway.sandbox import Sandbox
from gateway.service import Gateway
from tests.clients.callers import OTHER, ilert_event, uptinio_alert
from tests.harness import DEFAULTS, UPSTREAM_KEY, House, inbound_tables, served, upstream_table


@contextlib.contextmanager
def row(directory: Path, between: str, vendor: str) -> Iterator[House]:
    """The first of two gateways that speak `between` to each other; the sandbox is what stands behind the second."""
    sandbox = Sandbox(dialects(), UPSTREAM_KEY)
    with served(sandbox) as sandbox_url:
        central = f'store = "sqlite://{directory}/central.db"\n[inbound.{between}]\nkeys = {{ sidecar = "{OTHER}" }}\n'
        with served(Gateway(parse(central + upstream_table("vendor", vendor, sandbox_url))).app) as there:
            table = f'[upstreams.central]\ndialect = "{between}"\nurl = "{there}/{between}"\nkey = "{OTHER}"\n'
            sidecar = f'store = "sqlite://{directory}/sidecar.db"\n{inbound_tables(["ilert", "uptinio"])}\n'
            gateway = Gateway(parse(sidecar + table + DEFAULTS.format(name="central")))
            with served(gateway.app) as url:
                standing = House(url, sandbox_url, gateway, sandbox)
                with standing.client:
                    yield standing


@pytest.mark.parametrize("between", sorted(dialects()))
def test_what_is_over_is_over_behind_both(between: str, tmp_path: Path) -> None:
    with row(tmp_path, between, "pagerduty") as first:
        for count, word in enumerate(("ALERT", "RESOLVE"), 1):
            event = ilert_event(word, "disk", summary="Disk full")
            assert first.call("POST", "/ilert/api/events", event, key=None).status < 300
            arrived = first.arrives("pagerduty", count)
        assert [one.body["event_action"] for one in arrived] == ["trigger", "resolve"]
        assert arrived[0].body["dedup_key"] == arrived[1].body["dedup_key"]


def test_what_is_switched_on_again_is_a_page_again(tmp_path: Path) -> None:
    """At the second gateway the sidecar keeps a rule, which it switches off and on."""
    with row(tmp_path, "ibm_monitoring", "pagerduty") as first:
        made = first.call("POST", "/uptinio/alerts", uptinio_alert("Disk full"))
        assert made.status == 201
        for count, status in enumerate(("resolved", "active"), 2):
            path = f"/uptinio/alerts/{made.body['data']['id']}"
            assert first.call("PUT", path, {"status": status}).status == 200
            arrived = first.arrives("pagerduty", count)
        assert [one.body["event_action"] for one in arrived] == ["trigger", "resolve", "trigger"]
