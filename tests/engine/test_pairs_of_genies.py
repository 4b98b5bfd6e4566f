"""Callers of Opsgenie in front of Jira Service Management, and the other way round: what people do to an alert is
carried out there where both APIs have the same words for it, and reported where they have not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos_upstream import chaos
from tests.clients.callers import COLLECTIONS, called, fresh, jsm_alert, opsgenie_alert
from tests.engine.genies import JsmOps, Opsgenie
from tests.engine.vendors import before, page, settled, table, writes
from tests.harness import KEY, House, house

SAID = {"opsgenie": opsgenie_alert, "jsm_ops": jsm_alert}
ASSIGNED: dict[str, dict[str, Any]] = {"opsgenie": {"owner": {"username": "ann"}}, "jsm_ops": {"accountId": "ann"}}
BY = {"user": "ann", "source": "phone", "note": "mine after all"}


def _house(directory: Path, url: str, to: str, caller: str) -> Any:
    routes = f'[inbound.{caller}]\nkeys = {{ ci = "{KEY}" }}\n'
    return before(directory, table("there", url, to, ""), routes=routes)


def _opened(h: House, caller: str) -> str:
    """Opens an alert and returns its id."""
    sent = h.call("POST", COLLECTIONS[caller], SAID[caller]("CPU high", alias=fresh("alias")))
    found = h.call("GET", f"{COLLECTIONS[caller]}/requests/{sent.body['requestId']}").body
    return str(found.get("data", found)["alertId"])


@pytest.mark.parametrize(("caller", "there"), [("opsgenie", JsmOps()), ("jsm_ops", Opsgenie())])
def test_what_people_do_is_done_there_too(tmp_path: Path, caller: str, there: Opsgenie) -> None:
    words = (("acknowledge", BY), ("unacknowledge", BY), ("snooze", {"endTime": "2999-01-01T00:00:00Z", **BY}))
    with chaos(there) as upstream, _house(tmp_path, upstream.url, there.dialect, caller) as h:
        made = _opened(h, caller)
        for word, body in words:
            sent = h.call("POST", f"{COLLECTIONS[caller]}/{made}/{word}", body)
            assert (sent.status, sent.report) == (202, []), word
        settled(h, count=4)
        told = [(got.path.partition("?")[0].rpartition("/")[2], got.body) for got in writes(upstream)[1:]]
    assert told == list(words)


@pytest.mark.parametrize(("caller", "there"), [("opsgenie", JsmOps()), ("jsm_ops", Opsgenie())])
def test_what_each_says_in_words_of_its_own_is_a_note_and_reported(
    tmp_path: Path, caller: str, there: Opsgenie
) -> None:
    with chaos(there) as upstream, _house(tmp_path, upstream.url, there.dialect, caller) as h:
        made = _opened(h, caller)
        sent = h.call("POST", f"{COLLECTIONS[caller]}/{made}/assign", {**ASSIGNED[caller], "note": "yours"})
        assert sent.report == ["there; approximated=assignee"]
        settled(h, count=2)
        [told] = writes(upstream)[1:]
    assert told.path.partition("?")[0].endswith("/notes")
    assert told.body == {"note": "Done to the alert: assigned to ann: yours"}


def test_what_people_do_to_an_alert_of_another_vendor_s_tool_is_done_there_too(tmp_path: Path) -> None:
    """A shared scope: the alert came from ilert's API, and is seen to through Opsgenie's. A snooze that was a note
    only would go on waking somebody, and the report was silent about it."""
    words = (("snooze", {"endTime": "2999-01-01T00:00:00Z", **BY}), ("acknowledge", BY))
    shared = "".join(f'[inbound.{one}]\nkeys = {{ ci = "{KEY}" }}\nscope = "all"\n' for one in ("opsgenie", "ilert"))
    with (
        chaos(Opsgenie()) as upstream,
        house(tmp_path, config=lambda _: shared + table("there", upstream.url, "opsgenie", "")) as h,
    ):
        page(h)
        for word, body in words:
            sent = h.call("POST", f"{COLLECTIONS['opsgenie']}/disk/{word}?identifierType=alias", body)
            assert (sent.status, sent.report) == (202, []), word
        settled(h, count=3)
        told = [(got.path.partition("?")[0].rpartition("/")[2], got.body) for got in writes(upstream)[1:]]
    assert told == list(words)


@pytest.mark.parametrize(
    ("to", "report", "again"),
    [
        ("ilert", ["there; approximated=status"], []),
        ("pagerduty", ["there; kept=comment,status"], ["there; kept=comment"]),
    ],
)
def test_an_acknowledgement_taken_back_is_reported_elsewhere(
    tmp_path: Path, to: str, report: list[str], again: list[str]
) -> None:
    """Only the first time: after it the alert is not acknowledged any more."""
    with called(tmp_path, {"there": to}) as h:
        made = _opened(h, "opsgenie")
        assert h.call("POST", f"/opsgenie/v2/alerts/{made}/acknowledge").status == 202
        for lines in (report, again):
            assert h.call("POST", f"/opsgenie/v2/alerts/{made}/unacknowledge").report == lines
