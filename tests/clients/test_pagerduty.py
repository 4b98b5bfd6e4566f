"""PagerDuty's own clients, with the gateway as their base URL and another vendor as upstream.

`pagerduty` from PyPI insists on HTTPS, so TLS ends before the gateway; `pdpyras`, which it replaced, is still in use.
Asserted is what the clients return, and what arrived at the upstream.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pagerduty import EventsApiV2Client
from pagerduty.errors import Error as PagerDutyError
from pagerduty.errors import UrlError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # that `pagerduty` has replaced it
    import pdpyras

from gateway.cli.sandbox import Arrived
from tests.clients.callers import called, fresh
from tests.clients.tls_front import Front, tls_before
from tests.harness import KEY, House

PREFIXES = ["", "/pagerduty"]
TIMESTAMP = "2020-07-17T08:42:58.315+0000"


@pytest.fixture(scope="module", params=["ilert", "ibm_monitoring"])
def h(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with a vendor of occurrences as upstream, then with one of rules."""
    with called(tmp_path_factory.mktemp("pagerduty"), {request.param: request.param}) as standing:
        yield standing


@pytest.fixture(scope="module")
def front(h: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """TLS in front of the gateway."""
    with tls_before(h.url, tmp_path_factory.mktemp("tls")) as standing:
        yield standing


class Client:
    """Both clients under the method names that they share; the older one has another class for change events."""

    def __init__(self, events: Any, changes: Any, error: type[Exception]) -> None:
        self.trigger, self.acknowledge, self.resolve = events.trigger, events.acknowledge, events.resolve
        self.change = changes.submit
        self.error = error
        self.senders = (events, changes)


def _pagerduty(url: str, key: str) -> Client:
    client = EventsApiV2Client(key, base_url=url)
    return Client(client, client, PagerDutyError)


def _pdpyras(url: str, key: str) -> Client:
    events, changes = pdpyras.EventsAPISession(key), pdpyras.ChangeEventsAPISession(key)
    for sender in (events, changes):
        sender.url = url
    return Client(events, changes, pdpyras.PDClientError)


Make = Callable[..., Client]


@pytest.fixture(params=["pagerduty", "pdpyras", "pdpyras without TLS"])
def make(request: pytest.FixtureRequest, h: House, front: Front, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a client for a routing key as users do; the authority is trusted by the usual environment variables."""
    monkeypatch.setenv("SSL_CERT_FILE", str(front.authority))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(front.authority))
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    url = h.url if request.param == "pdpyras without TLS" else front.url
    kind = _pagerduty if request.param == "pagerduty" else _pdpyras
    made: list[Client] = []

    def make_one(key: str, prefix: str = "") -> Client:
        made.append(kind(url + prefix, key))
        return made[-1]

    yield make_one
    for sender in (sender for client in made for sender in client.senders):
        sender.close()


def _vendor(h: House) -> str:
    return next(iter(h.gateway.config.upstreams))


def _mark(h: House) -> int:
    return len(h.arrived(_vendor(h)))


def _since(h: House, mark: int, count: int) -> list[Arrived]:
    return h.arrives(_vendor(h), mark + count)[mark:]


def _ilert(arrived: Arrived, word: str, key: str, **fields: Any) -> None:
    assert (arrived.body["eventType"], arrived.body["alertKey"]) == (word, key)
    assert {name: arrived.body.get(name) for name in fields} == fields


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_whole_life_of_an_alert(h: House, make: Make, prefix: str) -> None:
    """Trigger without a key, trigger again, acknowledge, resolve; after that the same key is a new alert."""
    client, summary, mark = make(KEY, prefix), fresh("Disk full"), _mark(h)
    links = [{"href": "https://example.com/", "text": "Runbook"}]
    key = client.trigger(summary, "db-1", severity="error", custom_details={"free": {"mb": 3}}, links=links)
    assert isinstance(key, str) and len(key) == 32
    assert client.trigger(summary + "!", "db-1", dedup_key=key) == key
    assert client.acknowledge(key) == key
    assert client.resolve(key) == key
    assert client.trigger(summary + "?", "db-1", dedup_key=key) == key
    if _vendor(h) == "ilert":
        first, again, taken, ended, anew = _since(h, mark, 5)
        _ilert(first, "ALERT", key, summary=summary, severity=2, priority="HIGH", links=links)
        assert first.body["customDetails"]["free"] == {"mb": 3}
        assert "db-1" in first.body["details"], "the machine is on the page"
        _ilert(again, "ALERT", key, summary=summary + "!", severity=1)
        _ilert(taken, "ACCEPT", key)
        _ilert(ended, "RESOLVE", key)
        _ilert(anew, "ALERT", key, summary=summary + "?")
    else:
        made, changed, off, on = _since(h, mark, 4)
        assert (made.method, made.body["alert"]["name"], made.body["alert"]["severity"]) == ("POST", summary, 3)
        assert (changed.method, changed.body["alert"]["name"]) == ("PUT", summary + "!")
        assert (off.path, off.body["alert"]["enabled"]) == (changed.path, False)
        assert (on.path, on.body["alert"]["enabled"], on.body["alert"]["name"]) == (off.path, True, summary + "?")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_change_event(h: House, make: Make, prefix: str) -> None:
    """Accepted, and forwarded as an alert that pages nobody."""
    client, summary, mark = make(KEY, prefix), fresh("Build Success"), _mark(h)
    client.change(summary, source="acme-build-pipeline", custom_details={"run": "2"}, timestamp=TIMESTAMP)
    [arrived] = _since(h, mark, 1)
    if _vendor(h) == "ilert":
        assert (arrived.body["summary"], arrived.body["priority"]) == (summary, "LOW")
    else:
        assert (arrived.body["alert"]["name"], arrived.body["alert"]["severityLabel"]) == (summary, "INFO")


def test_a_routing_key_that_nobody_has(make: Make) -> None:
    """400 at once, whose message the clients pass on; they would handle a 401 or 429 differently."""
    client = make("R" + "0" * 31)
    with pytest.raises(client.error, match="Invalid routing key"):
        client.trigger("Disk full", "db-1")


def test_a_severity_that_there_is_not(make: Make) -> None:
    client = make(KEY)
    with pytest.raises(client.error, match=r"payload\.severity.* is inva"):
        client.trigger("Disk full", "db-1", severity="fatal")


def test_why_there_is_tls_in_this_file(h: House) -> None:
    """The newer client refuses a base URL without HTTPS."""
    with pytest.raises(UrlError):
        EventsApiV2Client(KEY, base_url=h.url)
