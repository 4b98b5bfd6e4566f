"""Jira Service Management's integration events API as an upstream: Opsgenie's API with few of its calls.

https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-integration-events/ has create, the state
of a request, acknowledge, close and add note. What it lacks must not leave an alert open that its caller has ended, nor
be passed over in silence.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.chaos_upstream import Behaviour, Chaos, Got, chaos, say
from tests.engine.genies import Opsgenie, paths
from tests.engine.vendors import outbox, page, settled, writes
from tests.harness import KEY, House, house, inbound_tables

AT = "/v2/alerts/disk"
NO_SUCH_PATH = say(404, {"code": 404, "message": "Not Found"})
NO_SUCH_METHOD = say(405, {"code": 405, "message": "Method Not Allowed"})


class Integration(Opsgenie):
    """Answers all calls that the API lacks in the same way."""

    def __init__(self, lacking: Behaviour) -> None:
        super().__init__()
        self.lacking = lacking

    def __call__(self, got: Got) -> Behaviour:
        path = got.path.partition("?")[0]
        is_there = path.rpartition("/")[2] in ("alerts", "acknowledge", "close", "notes") and got.method == "POST"
        return super().__call__(got) if is_there or "/requests/" in path else self.lacking


@pytest.fixture(params=[NO_SUCH_PATH, NO_SUCH_METHOD], ids=["404", "405"])
def there(request: pytest.FixtureRequest) -> Integration:
    """The stand-in, for both ways in which a server says that it has no such call."""
    return Integration(request.param)


def _before(directory: Path, there: Integration, upstream: Chaos) -> contextlib.AbstractContextManager[House]:
    """A gateway for callers of Opsgenie and of ilert."""
    text = f"{inbound_tables(['opsgenie', 'ilert'])}\n{there.table(upstream)}"
    return house(directory, config=lambda _: text)


def _asked(h: House, method: str, rest: str = "", body: Any = None) -> None:
    headers = {"authorization": f"GenieKey {KEY}"}
    sent = h.call(method, f"/opsgenie{AT}{rest}?identifierType=alias", body, key=None, headers=headers)
    assert sent.status == 202, sent.body


def _created(h: House, upstream: Chaos) -> None:
    body = {"message": "Disk full", "alias": "disk"}
    assert h.call("POST", "/opsgenie/v2/alerts", body, headers={"authorization": f"GenieKey {KEY}"}).status == 202
    settled(h)
    upstream.got.clear()


def test_a_change_is_told_with_another_create(tmp_path: Path, there: Integration) -> None:
    """The same alias, so that the open alert is counted once more instead of being there twice."""
    with chaos(there) as upstream, _before(tmp_path, there, upstream) as h:
        page(h)
        settled(h)
        page(h, summary="Disk fuller")
        settled(h, count=2)
        assert paths(upstream) == ["POST /v2/alerts", f"PUT {AT}/message", "POST /v2/alerts"]
        told = writes(upstream)[-1].body
        assert (told["alias"], told["message"]) == ("disk", "Disk fuller")


def test_what_its_caller_deletes_is_closed(tmp_path: Path, there: Integration) -> None:
    """A deleted alert that stayed open there would go on escalating."""
    with chaos(there) as upstream, _before(tmp_path, there, upstream) as h:
        _created(h, upstream)
        _asked(h, "DELETE")
        settled(h, count=2)
        assert paths(upstream) == [f"DELETE {AT}", f"POST {AT}/close"]
        assert "sent as a close: there is no such call there" in str(outbox(h)[-1].fates)


def test_what_only_the_other_api_can_do_becomes_a_note(tmp_path: Path, there: Integration) -> None:
    with chaos(there) as upstream, _before(tmp_path, there, upstream) as h:
        _created(h, upstream)
        _asked(h, "POST", "/snooze", {"endTime": "2999-01-01T00:00:00Z", "user": "jane"})
        settled(h, count=2)
        assert paths(upstream) == [f"POST {AT}/snooze", f"POST {AT}/notes"]
        note = "Done to the alert: snoozed until 2999-01-01T00:00:00.000Z by jane"
        assert writes(upstream)[-1].body == {"user": "jane", "note": note}
        assert [one.state for one in outbox(h)] == ["delivered", "delivered"]
        assert "sent as a note only: there is no such call there" in str(outbox(h)[-1].fates)
