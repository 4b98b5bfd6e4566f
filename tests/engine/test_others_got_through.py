"""Two gateways on one PostgreSQL: an upstream that one of them holds and the other gets through to is not held for good
by the one that has nothing more to send there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from gateway.config.loading import parse
from gateway.process.service import Gateway
from gateway.store.opening import open_store
from tests.chaos_upstream import Behaviour, Chaos, chaos, say
from tests.harness import served
from tests.postgres_server import shared
from tests.processes import wait_for


@contextmanager
def two(upstream: Chaos, key: str) -> Iterator[tuple[str, str]]:
    """The addresses of two gateways that share a store and have one upstream with this key."""
    text = f"""
    store = "{shared().database()}"
    [inbound.ilert]
    keys = {{ a = "of-a" }}
    [upstreams.oncall]
    dialect = "ilert"
    url = "{upstream.url}"
    key = {key}
    """
    with ExitStack() as stack:
        one, other = (stack.enter_context(served(Gateway(parse(text)).app)) for _ in range(2))
        yield one, other


@contextmanager
def refusing(first: int, how: Behaviour) -> Iterator[Chaos]:
    """An upstream that accepts all requests except the first `first`."""
    with chaos(say(202, {})) as upstream:
        upstream.plan(*[how] * first)
        yield upstream


def send(url: str, key: str = "disk") -> None:
    """Sends an alert and requires that it is accepted."""
    event = {"apiKey": "of-a", "eventType": "ALERT", "summary": "down", "alertKey": key}
    assert httpx.post(f"{url}/ilert/api/events", json=event).status_code == 202


def shown(url: str, name: str) -> float:
    """The value of an upstream's metric."""
    found = re.search(rf'alert_gateway_{name}\{{upstream="oncall"\}} (\S+)', httpx.get(f"{url}/metrics").text)
    return float(found[1]) if found else -1.0


def waits(url: str) -> float:
    """The number of deliveries that wait for the upstream."""
    return shown(url, "waiting_deliveries")


pytestmark = pytest.mark.usefixtures("_real_pauses")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a short lease and a long pause the other gateway sends the delivery long before the first one probes."""
    monkeypatch.setattr("gateway.process.service.open_store", partial(open_store, lease=1.0))
    monkeypatch.setattr("gateway.delivery.breaker.HELD_PAUSE", 10.0)
    monkeypatch.setattr("gateway.delivery.held.HELD_PAUSE", 10.0)


def test_what_another_replica_that_never_left_it_alone_got_through_to_is_open_again() -> None:
    """The other gateway, which never held the upstream, records its success too: the first has no delivery left to
    probe with."""
    with refusing(1, say(401, {"message": "no"})) as upstream, two(upstream, '"there"') as (one, other):
        send(one)
        wait_for(lambda: shown(one, "upstream_held") == 1.0)
        wait_for(lambda: waits(one) == 0.0)
        assert (shown(one, "upstream_held"), shown(other, "upstream_held")) == (1.0, 0.0)
        wait_for(lambda: shown(one, "upstream_held") == 0.0, 20)


def test_a_key_that_another_replica_got_through_with_is_held_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.delivery.lanes.LOOK", 60.0)  # the first has nothing to probe with
    (tmp_path / "a").write_text("there")
    key = f'{{ by = "caller", dir = "{tmp_path}" }}'
    with refusing(1, say(401, {"message": "no"})) as upstream, two(upstream, key) as (one, other):
        send(one)
        wait_for(lambda: shown(one, "keys_held") == 1.0)
        send(other, "net")
        wait_for(lambda: len(upstream.got) == 2)
        assert (shown(one, "keys_held"), shown(other, "keys_held")) == (1.0, 0.0)
        wait_for(lambda: shown(one, "keys_held") == 0.0, 20)
