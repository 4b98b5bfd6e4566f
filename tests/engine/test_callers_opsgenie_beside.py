"""What Opsgenie's callers ask beside alerts: whether their key is good, heartbeats, maintenance, files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos_upstream import Behaviour, chaos, say
from tests.engine.asking_opsgenie import ALERTS, PING, create
from tests.engine.pairs import Houses
from tests.engine.vendors import table
from tests.harness import KEY, House, house

GENIE = f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n'
PONG = {"result": "PONG - Heartbeat received", "took": 0.009, "requestId": "3e099963-a928-4d0a-920d-7699ec2fcd3d"}


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it."""
    return fronts("ilert")


def test_a_key_is_proved_as_sentry_proves_it(h: House) -> None:
    """https://docs.opsgenie.com/docs/integration-api: Sentry saves no key that it cannot verify."""
    path = "/opsgenie/v2/integrations/authenticate"
    sent = h.call("POST", path, {"type": "sentry"})
    assert (sent.status, sent.body["result"]) == (200, "Integration [sentry] is valid")
    assert sent.body.keys() == {"result", "took", "requestId"}
    assert h.call("POST", path, {"type": "sentry"}, key=None).status == 401
    assert h.call("POST", path, {}).body["errors"] == {"type": "is required"}


def test_a_key_is_proved_by_the_account(h: House) -> None:
    """https://docs.opsgenie.com/docs/account-api: many senders verify their key with this call before they save it, as
    it needs no arguments and changes nothing."""
    sent = h.call("GET", "/opsgenie/v2/account")
    assert (sent.status, sent.body.keys()) == (200, {"data", "took", "requestId"})
    assert {name: type(value) for name, value in sent.body["data"].items()} == {
        "name": str,
        "userCount": int,
        "plan": dict,
    }
    assert {name: type(value) for name, value in sent.body["data"]["plan"].items()} == {
        "maxUserCount": int,
        "name": str,
        "isYearly": bool,
    }
    assert h.call("GET", "/opsgenie/v2/account", key=None).status == 401


def test_a_key_is_proved_by_the_maintenance_windows(h: House) -> None:
    """As opsgenielib from PyPI, and the opsgeniecli over it, prove their key before anything else: else they end."""
    sent = h.call("GET", "/opsgenie/v1/maintenance")
    assert (sent.status, sent.body["data"]) == (200, [])
    assert h.call("GET", "/opsgenie/v1/maintenance", key=None).status == 401


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH"])
def test_a_heartbeat_that_nobody_would_watch_is_refused(h: House, method: str) -> None:
    """With ilert behind, nobody would notice that the heartbeat has stopped, so it is not answered with PONG."""
    sent = h.call(method, PING)
    assert sent.status == 404
    assert "nobody would notice" in sent.body["message"]
    assert sent.body.keys() == {"message", "took", "requestId"}


def test_a_heartbeat_is_passed_on_to_opsgenie(tmp_path: Path) -> None:
    """Cron jobs whose address was changed to the gateway ping through it. Success is answered only where Opsgenie has
    answered; an unknown heartbeat is Opsgenie's own answer."""
    there: list[Behaviour] = []
    with (
        chaos(lambda got: there.pop(0)) as upstream,
        house(tmp_path, config=lambda _: f"{GENIE}{table('there', upstream.url, 'opsgenie', '')}") as h,
    ):
        there.append(say(202, PONG))
        sent = h.call("POST", PING)
        assert (sent.status, sent.body) == (202, PONG)
        [got] = upstream.got
        assert (got.method, got.path) == ("GET", "/v2/heartbeats/nightly%20backup/ping")
        unknown = {"message": "Heartbeat not found", "took": 0.0, "requestId": "r"}
        there.append(say(404, unknown))
        known = h.call("GET", "/opsgenie/v2/heartbeats/nightly")
        assert (known.status, known.body) == (404, unknown)
        for failing in (say(503, {}), say(401, {}), say(429, {})):
            there.append(failing)
            sent = h.call("GET", PING)
            assert (sent.status, sent.headers["retry-after"]) == (503, "30")
        count = len(upstream.got)
        assert h.call("GET", "/opsgenie/v2/heartbeats/%2E%2E/ping").status == 503
        assert len(upstream.got) == count, "a name is no way to another of the upstream's operations"


def test_there_are_no_files_and_no_saved_searches(h: House) -> None:
    """Both lists are empty, as the SDKs request them; the files of an alert are requested with
    `alertIdentifierType`."""
    assert h.call("GET", f"{ALERTS}/saved-searches").body["data"] == []
    alias = create(h)
    files = h.call("GET", f"{ALERTS}/{alias}/attachments?alertIdentifierType=alias")
    assert (files.status, files.body["data"]) == (200, [])
    assert h.call("GET", f"{ALERTS}/{alias}/attachments").status == 404
