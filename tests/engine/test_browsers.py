"""Web pages that call vendors who let them: what their browser asks first, and which answers they may read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.callers import ALERTS, alertmanager_alerts, fresh, ilert_event, pagerduty_event
from tests.engine.pairs import Houses
from tests.harness import KEY, House, Sent, house, upstream_table

EVENTS, CHANGES = "/pagerduty/v2/enqueue", "/pagerduty/v2/change/enqueue"
FIRST = "/pagerduty/generic/2010-04-15/create_event.json"
SILENCES = "/alertmanager/api/v2/silences"
PAGE = {"origin": "https://backstage.example.com"}
CHANGE = {"routing_key": KEY, "payload": {"summary": "Build Success"}}


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it, whose callers need keys."""
    return fronts("ilert")


def _ask(h: House, path: str, method: str) -> Sent:
    """Asks as a browser does before a request with JSON: without a key."""
    asks = {"access-control-request-method": method, "access-control-request-headers": "authorization, content-type"}
    return h.call("OPTIONS", path, key=None, headers={**PAGE, **asks})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", EVENTS, pagerduty_event("trigger", fresh("key")), 202),
        ("POST", EVENTS.removeprefix("/pagerduty"), pagerduty_event("trigger", fresh("key")), 202),
        ("POST", EVENTS, {"routing_key": KEY}, 400),
        ("POST", EVENTS, {}, 400),
        ("POST", CHANGES, CHANGE, 202),
        ("POST", FIRST, {"service_key": KEY, "event_type": "trigger", "description": "Disk full"}, 200),
        ("POST", ALERTS, alertmanager_alerts("Disk full"), 200),
        ("GET", ALERTS, None, 200),
        ("GET", f"{ALERTS}?filter=%7B", None, 400),
    ],
)
def test_a_page_may_ask_call_and_read(h: House, method: str, path: str, body: Any, status: int) -> None:
    """Backstage's plugin posts PagerDuty's events from the browser, to its `eventsBaseUrl`; karma does so with silences
    for an Alertmanager, which lets pages use GET and POST. An answer that the page may not read is a failure to it."""
    asked = _ask(h, path, method)
    assert (asked.status, asked.body) == (204, None)
    assert asked.headers["access-control-allow-origin"] == "*"
    assert asked.headers["access-control-allow-methods"] == method
    assert asked.headers["access-control-allow-headers"] == "Authorization, Content-Type, *"
    sent = h.call(method, path, body, headers=PAGE)
    assert (sent.status, sent.headers["access-control-allow-origin"]) == (status, "*"), sent.body


def test_a_refused_key_is_told_to_the_page(h: House) -> None:
    sent = h.call("GET", ALERTS, key="nobody-has-this-key", headers=PAGE)
    assert (sent.status, sent.headers["access-control-allow-origin"]) == (401, "*")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (EVENTS, "DELETE", 405),
        ("/alertmanager/api/v2/silence/43a29c5c-3dbf-4fa4-9c26-f4f71023e120", "DELETE", 405),
        ("/pagerduty/v2/nothing", "POST", 404),
        ("/ilert/api/events", "POST", 405),
    ],
)
def test_a_page_may_do_nothing_else(h: House, path: str, method: str, status: int) -> None:
    """An Alertmanager 0.25 does not let pages use DELETE; of ilert nothing says that pages may call it."""
    asked = _ask(h, path, method)
    assert asked.status == status
    assert "access-control-allow-origin" not in asked.headers


def test_a_vendor_s_own_options_are_not_taken_for_a_browser_s_question(h: House) -> None:
    """CloudEvents' handshake is an OPTIONS; whatever else it says, its path does not become one without it."""
    said = {"webhook-request-origin": "events.example.com", "access-control-request-method": "PUT"}
    assert h.call("OPTIONS", "/cloudevents", headers=said).status == 200


def test_what_other_vendors_answer_no_page_reads(h: House) -> None:
    sent = h.call("POST", "/ilert/api/events", ilert_event("ALERT", fresh("key"), summary="m"), headers=PAGE)
    assert sent.status == 202
    assert "access-control-allow-origin" not in sent.headers


def test_no_page_calls_where_nobody_needs_a_key(tmp_path: Path) -> None:
    """Any page that an operator opens could read what is open, and silence it."""

    def text(sandbox_url: str) -> str:
        return "[inbound.alertmanager]\n" + upstream_table("oncall", "ilert", sandbox_url)

    with house(tmp_path, config=text) as standing:
        assert _ask(standing, SILENCES, "POST").status == 405
        listed = standing.call("GET", ALERTS, key=None, headers=PAGE)
        assert listed.status == 200
        assert "access-control-allow-origin" not in listed.headers
