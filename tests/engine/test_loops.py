"""Gateways that forward to each other: an alert stops after the first hop back, and this is reported. guarantees.md 25.
Each gateway has its own store, and they talk over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import CapturingLogger

from gateway.config.loading import parse
from gateway.desk import desk
from gateway.process.service import Gateway
from gateway.registry import dialects
from gateway.store import DeliveryRow
from tests.clients.callers import COLLECTIONS, EVENTS, OTHER, ilert_event, making
from tests.engine.desks import Desk, create
from tests.engine.vendors import count, outbox
from tests.harness import KEY, House, Sent, served
from tests.processes import wait_for

NAMES = tuple(dialects())
LINE = "there; dead=loop"
NEEDS = """
[upstreams.there.defaults]
resource = "mon_9"
"condition.expression" = "avg(cpu) > 1"
channels = [{ kind = "slack", id = "C042" }]
"""


@dataclass
class Ring:
    """Gateways each of which is the upstream of the one before, in the dialects that they speak to each other."""

    houses: list[House]

    @property
    def first(self) -> House:
        return self.houses[0]

    def rows(self) -> list[list[DeliveryRow]]:
        """The outbox of every gateway."""
        return [outbox(house) for house in self.houses]

    def stands_still(self, received: int) -> None:
        """Waits until this many commands were accepted in all and nothing waits, then asserts that no more come within
        half a second, in which a loop on one machine would go round hundreds of times."""

        def is_still() -> bool:
            commands = sum(count(house, "commands") for house in self.houses)
            return commands >= received and all(row.state != "waiting" for rows in self.rows() for row in rows)

        wait_for(is_still, 10, lambda: str(self.rows()))
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert sum(count(house, "commands") for house in self.houses) == received
            time.sleep(0.05)

    def metric(self, number: int) -> float:
        """How many loops a gateway has cut, over all dialects."""
        text = self.first.client.get(self.houses[number].url + "/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("alert_gateway_loops_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ring(directory: Path, *spoken: str, more: str = "") -> Iterator[Ring]:
    """One gateway per dialect: each speaks its own to the next, and the last one to the first."""
    ports = [free_port() for _ in spoken]
    inbounds = "\n".join(f'[inbound.{name}]\nkeys = {{ ci = "{KEY}", next = "{OTHER}" }}\n{more}' for name in NAMES)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=20))
        houses: list[House] = []
        for number, dialect in enumerate(spoken):
            url = f"http://127.0.0.1:{ports[(number + 1) % len(spoken)]}/{dialect}"
            table = f'[upstreams.there]\ndialect = "{dialect}"\nurl = "{url}"\nkey = "{OTHER}"\n{NEEDS}\n'
            store = f'store = "sqlite://{directory}/{number}.db"\n'
            gateway = Gateway(parse(f"{store}{inbounds}\n{table}"))
            here = stack.enter_context(served(gateway.app, ports[number]))
            houses.append(House(here, "", gateway, None, client))  # type: ignore[arg-type] # there is no sandbox
        yield Ring(houses)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """The log calls of the desks."""
    logger = CapturingLogger()
    monkeypatch.setattr(desk, "log", logger)
    return logger


def say(h: House, dialect: str, text: str) -> Sent:
    """Sends the documented creating call of a dialect."""
    path, body = making(dialect, text, key="disk")
    return h.call("POST", path, body, key=None if dialect in EVENTS else KEY)


@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("one", NAMES)
def test_an_alert_stops_after_the_first_hop_back(one: str, other: str, tmp_path: Path, logged: CapturingLogger) -> None:
    """Two gateways: `one` is the dialect from the first to the second, `other` the one back."""
    with ring(tmp_path, one, other) as two:
        sent = say(two.first, one, "Disk full")
        assert sent.status < 300
        two.stands_still(3)
        here, there = two.rows()
        assert [row.state for row in there] == ["delivered"]
        assert sorted(row.state for row in here) == ["delivered", "void"]
        [cut] = [row for row in here if row.state == "void"]
        assert cut.reason == "loop: this command already passed through this gateway; not forwarded again"
        assert cut.attempts == 0
        assert (two.metric(0), two.metric(1)) == (1, 0)
    [via] = [call.kwargs["via"] for call in logged.calls if call.args == ("command.loops",)]
    assert len(via) == 2


@pytest.mark.parametrize("dialect", NAMES)
def test_the_hop_back_is_told_that_it_is_one(dialect: str, tmp_path: Path) -> None:
    """The answer that the second gateway gets, requested here with the header that it would send."""
    with ring(tmp_path, dialect, dialect) as two:
        names = [gateway_name(house) for house in two.houses]
        two.first.client.headers["alert-gateway-via"] = ", ".join(names)
        sent = say(two.first, dialect, "Disk full")
        assert sent.status < 300, "it is durable here, and refused to nobody"
        assert sent.report == [LINE]
        two.stands_still(1)


def gateway_name(house: House) -> str:
    """The name by which a gateway knows its own requests."""
    assert house.gateway.desk is not None
    return house.gateway.desk.name


def test_others_names_are_none_of_ours(tmp_path: Path) -> None:
    with ring(tmp_path, "ilert", "ilert") as two:
        two.first.client.headers["alert-gateway-via"] = "somebody, " + ", ".join(f"g{number}" for number in range(40))
        sent = say(two.first, "ilert", "Disk full")
        assert not any("loop" in line for line in sent.report)
        two.stands_still(3)


@pytest.mark.parametrize("word", ["ACCEPT", "RESOLVE", "COMMENT"])
def test_what_follows_an_alert_stops_there_too(word: str, tmp_path: Path) -> None:
    with ring(tmp_path, "ilert", "ilert") as two:
        say(two.first, "ilert", "Disk full")
        two.stands_still(3)
        event = ilert_event(word, "disk", summary="it is over")
        assert two.first.call("POST", "/ilert/api/events", event, key=None).status < 300
        two.stands_still(6)
        assert sorted(row.state for row in two.rows()[0]) == ["delivered", "delivered", "void", "void"]
        assert two.metric(0) == 2


def test_an_end_that_nobody_knows_the_alert_of_stops_there_too(tmp_path: Path, logged: CapturingLogger) -> None:
    """The end of an unknown alert is sent by its key alone; its loop is cut and reported like any other."""
    with ring(tmp_path, "ilert", "ilert") as two:
        event = ilert_event("RESOLVE", "never seen", summary="it is over")
        assert two.first.call("POST", "/ilert/api/events", event, key=None).status < 300
        two.stands_still(3)
        assert sorted(row.state for row in two.rows()[0]) == ["delivered", "void"]
        assert two.metric(0) == 1
        two.first.client.headers["alert-gateway-via"] = gateway_name(two.first)
        assert two.first.call("POST", "/ilert/api/events", event, key=None).report == [LINE]
    warned = [call for call in logged.calls if call.args == ("command.loops",)]
    assert [call.method_name for call in warned] == ["warning", "warning"]


@pytest.mark.parametrize("dialect", NAMES)
def test_callers_of_one_scope_loop_no_more_than_others(dialect: str, tmp_path: Path) -> None:
    """Where all callers share a scope, the hop back finds the alert that was sent, by its key or name."""
    with ring(tmp_path, dialect, dialect, more='scope = "all"') as two:
        sent = say(two.first, dialect, "Disk full")
        assert sent.status < 300, sent.body
        two.stands_still(3)
        assert sorted(row.state for row in two.rows()[0]) == ["delivered", "void"]
        assert two.metric(0) == 1


@pytest.mark.parametrize("spoken", [("ilert", "ilert", "ilert"), ("ilert", "uptinio", "ibm_monitoring"), NAMES[:3]])
def test_three_in_a_ring(spoken: tuple[str, str, str], tmp_path: Path) -> None:
    with ring(tmp_path, *spoken) as three:
        assert say(three.first, spoken[0], "Disk full").status < 300
        three.stands_still(4)
        states = [sorted(row.state for row in rows) for rows in three.rows()]
        assert states == [["delivered", "void"], ["delivered"], ["delivered"]]
        assert [three.metric(number) for number in range(3)] == [1, 0, 0]


def test_a_gateway_that_is_its_own_upstream(tmp_path: Path) -> None:
    with ring(tmp_path, "ilert") as alone:
        say(alone.first, "ilert", "Disk full")
        alone.stands_still(2)
        assert sorted(row.state for row in alone.rows()[0]) == ["delivered", "void"]


def test_the_name_outlives_a_restart(tmp_path: Path) -> None:
    """A command that is on its way while the gateway restarts is recognised when it comes back."""
    with ring(tmp_path, "ilert", "ilert") as two:
        names = [gateway_name(house) for house in two.houses]
    with ring(tmp_path, "ilert", "ilert") as two:
        assert [gateway_name(house) for house in two.houses] == names and names[0] != names[1]


@pytest.mark.parametrize("dialect", COLLECTIONS)
def test_reads_do_not_go_round_either(dialect: str, tmp_path: Path) -> None:
    with ring(tmp_path, dialect, dialect) as two:
        say(two.first, dialect, "Disk full")
        two.stands_still(3)
        began = time.monotonic()
        assert two.first.call("GET", COLLECTIONS[dialect]).status == 200
        took = time.monotonic() - began
        asked = sum(_requests(two, number) for number in range(2))
        assert asked < 12 and took < 4, f"{asked} requests in {took:.1f} s"


def test_what_is_relayed_does_not_go_round_either(tmp_path: Path) -> None:
    """Notification channels are requested from IBM itself; gateways in a circle have no IBM behind them."""
    with ring(tmp_path, "ibm_monitoring", "ibm_monitoring") as two:
        began = time.monotonic()
        sent = two.first.call("GET", "/ibm_monitoring/api/notificationChannels")
        assert sent.status < 500, sent.body
        took = time.monotonic() - began
        asked = sum(_requests(two, number) for number in range(2))
        assert asked < 8 and took < 4, f"{asked} requests in {took:.1f} s"


def _requests(two: Ring, number: int) -> int:
    """The number of requests that a gateway has answered."""
    text = two.first.client.get(two.houses[number].url + "/metrics").text
    counted: list[Any] = [line for line in text.splitlines() if line.startswith("alert_gateway_requests_total{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in counted))


class CallsBack:
    """An Alertmanager that notifies a webhook of every alert it receives, at once and in its own words."""

    def __init__(self) -> None:
        self.webhook = ""
        self.told: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes alerts; nothing else is requested."""
        if scope["type"] == "http":
            body = await Request(scope, receive).body()
            for one in json.loads(body or "[]"):
                self.told.append(one)
                group = {"version": "4", "status": "firing", "alerts": [{"status": "firing", **one}]}
                headers = {"authorization": f"Bearer {KEY}"}
                await asyncio.to_thread(httpx.post, self.webhook, json=group, headers=headers, timeout=20)
            await JSONResponse({})(scope, receive, send)


def test_what_an_upstream_sends_back_in_its_own_words_goes_round_once(tmp_path: Path) -> None:
    """The upstream passes no header on. The first time, what comes back may be somebody else's alert of the same key;
    after that it cannot be."""
    upstream = CallsBack()
    with served(upstream) as there:
        inbounds = "\n".join(
            f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}' for name in ("ilert", "alertmanager_webhook")
        )
        table = f'[upstreams.am]\ndialect = "alertmanager"\nurl = "{there}"\n'
        gateway = Gateway(parse(f'store = "sqlite://{tmp_path}/gateway.db"\n{inbounds}\n{table}'))
        with served(gateway.app) as url, httpx.Client(timeout=20) as client:
            upstream.webhook = f"{url}/alertmanager_webhook/webhook"
            alone = Ring([House(url, "", gateway, None, client)])  # type: ignore[arg-type] # there is no sandbox
            assert say(alone.first, "ilert", "Disk full").status < 300
            alone.stands_still(3)
            assert sorted(row.state for row in outbox(alone.first)) == ["delivered", "delivered", "void"]
            assert len(upstream.told) == 2 and alone.metric(0) == 1


def test_a_key_that_ends_in_a_number_is_no_echo() -> None:
    """Nor is one with the number of an alert that has another key there: its second holder would page nobody."""
    desk = Desk()
    other = desk.accept("ci", create("net")).alert
    assert other
    for key in ("disk-3", f"disk-{other.id}"):
        for caller in ("ci", "ops"):
            command = desk.accept(caller, create(key)).command
            assert {one.state for one in desk.tx.deliveries_of(command)} == {"waiting"}
