"""The short id of an alert at a vendor that shows people one beside the long one: callers may use it.

No receipt contains it, so the alert is read once it exists; a failed read causes nothing to be sent again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import Operation
from gateway.outcome import Response, Sending
from mappings.opsgenie.calls import API
from mappings.opsgenie.steps import create
from tests.chaos_upstream import HANG, RESET_AFTER, Behaviour, Chaos, chaos, say
from tests.clients.callers import opsgenie_alert
from tests.engine.genies import ID, JsmOps, Opsgenie, paths
from tests.engine.vendors import before, page, rows, settled, table
from tests.harness import KEY, House

TINY = "1791"
ALERTS = "/opsgenie/v2/alerts"
INBOUND = f'[inbound.opsgenie]\nkeys = {{ ci = "{KEY}" }}\n'


def _shows(genie: Opsgenie, tiny: str = TINY, name: str = ID) -> None:
    alert: dict[str, Any] = {"id": name, "tinyId": tiny, "message": "Disk full", "status": "open"}
    genie.reading = say(200, {"data": alert, "took": 0.1, "requestId": "x"} if type(genie) is Opsgenie else alert)


def _traced(h: House, name: str) -> list[dict[str, Any]]:
    found = h.call("GET", f"/-/alerts/{name}")
    return list(found.body["alerts"])


def _create(h: House, alias: str, account: str = "there") -> None:
    sent = h.call("POST", ALERTS, opsgenie_alert("Disk full", alias=alias, entity=account))
    assert sent.status == 202, sent.body


@contextmanager
def _accounts(
    directory: Path, *names: str, genies: list[Opsgenie] | None = None
) -> Iterator[tuple[House, list[Chaos], list[Opsgenie]]]:
    """A gateway in front of several accounts of the vendor."""
    genies = genies or [Opsgenie() for _ in names]
    with ExitStack() as stack:
        upstreams = [stack.enter_context(chaos(genie)) for genie in genies]
        tables = [table(name, one.url, "opsgenie", "") for name, one in zip(names, upstreams, strict=True)]
        h = stack.enter_context(before(directory, *tables, routes=INBOUND + _to_each_first(names)))
        yield h, upstreams, genies


def _to_each_first(names: tuple[str, ...]) -> str:
    """Routes that send an alert to the account that its resource names first, then to the others."""
    return "".join(
        f"[[routes]]\nwhen = ['resource = {name}']\nto = {[name, *(other for other in names if other != name)]}\n"
        for name in names
    )


@pytest.mark.parametrize("kind", [Opsgenie, JsmOps], ids=lambda kind: kind.dialect)
def test_an_operator_finds_an_alert_by_its_short_id_there(tmp_path: Path, kind: type[Opsgenie]) -> None:
    genie = kind()
    _shows(genie)
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream)) as h:
        page(h)
        settled(h)
        [found] = _traced(h, TINY)
        assert (found["found_by"], found["key"]) == ("id", "disk")
        assert found["upstreams"][0]["ids"] == {"id": ID, "tiny": TINY}


@pytest.mark.parametrize("answer", [say(403), say(429), say(500), say(404), say(200, b"<p>"), RESET_AFTER])
def test_a_page_is_delivered_whether_its_short_id_is_told_or_not(tmp_path: Path, answer: Behaviour) -> None:
    """The key may be without the right to read, or the vendor may fail: the page counts as delivered all the same."""
    genie = Opsgenie()
    genie.reading = answer
    with _accounts(tmp_path, "there", genies=[genie]) as (h, [upstream], _):
        _create(h, "disk")
        [delivered] = settled(h)
        assert delivered.attempts == 1
        assert paths(upstream) == ["POST /v2/alerts"]
        assert _traced(h, ID)[0]["upstreams"][0]["ids"] == {"id": ID}


def test_an_alert_that_is_known_there_is_not_asked_for_again() -> None:
    """The vendor counts a repeat, and its id is known from the first one."""
    kept = {"receipt": {"step": "create", "request": "r2", "looks": 0}}
    sending = Sending(
        operation=Operation.UPDATE, at=datetime.now(UTC), body={}, patch={}, key="disk", ids={"id": ID}, seen=kept
    )
    call = create(API, sending)
    assert next(call).path == "/v2/alerts/requests/r2"
    said = {"data": {"isSuccess": True, "status": "Alert count increased", "alertId": ID}}
    with pytest.raises(StopIteration) as ended:
        call.send(Response(200, {}, json.dumps(said).encode()))
    assert ended.value.value.ids == {"id": ID}


def test_a_vendor_that_says_nothing_holds_a_page_up_no_longer_than_one_answer(tmp_path: Path) -> None:
    genie = Opsgenie()
    genie.reading = HANG
    with chaos(genie) as upstream, before(tmp_path, genie.table(upstream, timeout="300ms")) as h:
        page(h)
        [delivered] = settled(h)
        assert delivered.attempts == 1


# --- callers that speak alike ----------------------------------------------------------------------------------


def test_a_caller_may_name_an_alert_by_the_short_id_that_it_was_told(tmp_path: Path) -> None:
    with _accounts(tmp_path, "there") as (h, [upstream], [genie]):
        _shows(genie)
        _create(h, "disk")
        settled(h)
        shown = h.call("GET", f"{ALERTS}/disk?identifierType=alias").body["data"]
        assert shown["tinyId"] == TINY
        assert h.call("GET", f"{ALERTS}/{TINY}?identifierType=tiny").body["data"]["id"] == shown["id"]
        assert h.call("POST", f"{ALERTS}/{TINY}/close?identifierType=tiny").status == 202
        settled(h, count=2)
        assert paths(upstream)[-1] == "POST /v2/alerts/disk/close"


def test_a_short_id_that_a_read_told_is_known_from_then_on(tmp_path: Path) -> None:
    """The create did not learn it, as the key could not read then."""
    with _accounts(tmp_path, "there") as (h, _, [genie]):
        genie.reading = say(403)
        _create(h, "disk")
        settled(h)
        _shows(genie)
        assert h.call("GET", f"{ALERTS}/{TINY}?identifierType=tiny").status == 404
        h.call("GET", f"{ALERTS}/disk?identifierType=alias")
        assert h.call("GET", f"{ALERTS}/{TINY}?identifierType=tiny").status == 200
        assert (ID, "there") in zip(rows(h, "name", "ids"), rows(h, "party", "ids"), strict=True)


def test_of_two_accounts_with_one_short_id_the_first_that_was_sent_to_is_meant(tmp_path: Path) -> None:
    """A newer alert has the same number at the account where it came second; callers are shown the first account's
    ids."""
    with _accounts(tmp_path, "old", "new") as (h, _, [old, new]):
        _shows(old, "7", "old-a")
        _shows(new, "8", "new-a")
        _create(h, "a", "old")
        settled(h, count=2)
        _shows(old, "7", "old-b")
        _shows(new, "9", "new-b")
        _create(h, "b", "new")
        settled(h, count=4)
        for tiny, alias in (("7", "a"), ("8", "a"), ("9", "b")):
            found = h.call("GET", f"{ALERTS}/{tiny}?identifierType=tiny").body["data"]
            assert (tiny, found["alias"]) == (tiny, alias)
