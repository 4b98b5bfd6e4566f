"""Timed work: an upstream that forgets is sent an open alert again and again, which leaves no rows behind. Over real
HTTP, on both kinds of store, with short times.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.cli.sandbox import Arrived
from gateway.mapping.values import from_millis, iso
from gateway.outcome import Delivered
from gateway.road import timing
from mappings.alertmanager import calls
from tests.chaos_upstream import Behaviour, Got, chaos, say
from tests.clients.callers import ALERTS, ilert_event
from tests.engine.desks import Desk, create
from tests.engine.lasting import STORES, address, alert, lasting, posted, seconds, select
from tests.engine.store_drivers import alert as row
from tests.engine.test_adopting import Alertmanager
from tests.engine.vendors import before, outbox, table
from tests.harness import KEY, House, house

TABLES = ("commands", "deliveries", "attempts")


def _taken(got: Got) -> Behaviour:
    return say(200, {})


def _down(got: Got) -> Behaviour:
    return say(503, {})


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert is valid for three seconds at the upstream, and is renewed after one."""
    monkeypatch.setattr(calls, "HOLDS", timedelta(seconds=3))
    monkeypatch.setattr(calls, "RENEWED_AFTER", 0.5)


def _event(h: House, word: str, **more: Any) -> None:
    sent = h.call("POST", "/ilert/api/events", ilert_event(word, "disk", **more), key=None)
    assert sent.status == 202, sent.body


def _posts(h: House) -> list[Arrived]:
    """The alerts posted to Alertmanager."""
    return [one for one in h.arrived("alertmanager") if one.path == "/api/v2/alerts"]


def _silences(h: House) -> list[Any]:
    """The silences posted to Alertmanager."""
    return [one.body for one in h.arrived("alertmanager") if one.path == "/api/v2/silences"]


def _end(one: Arrived) -> datetime:
    return datetime.fromisoformat(one.body[0]["endsAt"])


def _left(h: House) -> Counter[str]:
    """The number of rows in the tables of the outbox and the ledger."""
    return Counter({name: select(h, f"SELECT count(*) FROM {name}")[0] for name in TABLES})


def _stays(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition()
        time.sleep(0.05)


@pytest.mark.parametrize("kind", STORES)
def test_an_open_alert_is_said_again_before_it_would_be_over(tmp_path: Path, kind: str) -> None:
    """With the same values and a later end; outbox and ledger do not grow."""
    with lasting(tmp_path, {"there": "alertmanager"}, store=address(kind, tmp_path)) as h:
        _event(h, "ALERT", summary="Disk full")
        h.wait_for(lambda: _posts(h) and not select(h, "SELECT id FROM deliveries WHERE state = 'waiting'"))
        at_first = _left(h)
        h.wait_for(lambda: len(_posts(h)) >= 4, 15)
        posts = _posts(h)
        assert all(_end(later) > _end(one) for one, later in itertools.pairwise(posts))
        said = [{**one.body[0], "endsAt": ""} for one in posts]
        assert all(one == said[0] for one in said)
        h.wait_for(lambda: _left(h) == at_first)
        assert at_first == {"commands": 1, "deliveries": 1, "attempts": 1}


@pytest.mark.parametrize("kind", STORES)
def test_none_after_the_end(tmp_path: Path, kind: str) -> None:
    with lasting(tmp_path, {"there": "alertmanager"}, store=address(kind, tmp_path)) as h:
        _event(h, "ALERT", summary="Disk full")
        h.wait_for(lambda: len(_posts(h)) >= 2, 15)
        _event(h, "RESOLVE")
        h.wait_for(lambda: _end(_posts(h)[-1]) <= datetime.now(UTC))
        count = len(_posts(h))
        _stays(lambda: len(_posts(h)) == count, 2.5)
        assert select(h, "SELECT renew_at FROM targets") == [None]
        assert _left(h)["deliveries"] == 2


def test_an_alert_whose_answer_was_lost_is_said_again_too(tmp_path: Path) -> None:
    """It is not looked for in the upstream's list but posted again: what was found there was never renewed, so that the
    upstream took it for over."""
    there, lost = Alertmanager(), iter([say(504, {})])

    def act(got: Got) -> Behaviour:
        taken = there(got)
        return next(lost, taken) if got.method == "POST" else taken

    with chaos(act) as upstream, before(tmp_path, table("there", upstream.url, "alertmanager", "")) as h:
        _event(h, "ALERT", summary="Disk full")
        h.wait_for(lambda: len(upstream.got) >= 4)
        assert {got.method for got in upstream.got} == {"POST"}
        assert len(there.held) == 1, "it is under the same labels each time"


def test_an_acknowledged_alert_keeps_its_silence(tmp_path: Path) -> None:
    """The silence is prolonged with the alert, under one id and one start, and removed with its end."""
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        _event(h, "ALERT", summary="Disk full")
        _event(h, "ACCEPT")
        first, *later = h.wait_for(lambda: len(found := _silences(h)) >= 3 and found, 15)
        assert "id" not in first and len({one["id"] for one in later}) == 1
        assert {one["startsAt"] for one in later} == {first["startsAt"]}
        assert later[-1]["endsAt"] > first["endsAt"]
        _event(h, "RESOLVE")
        [gone] = h.wait_for(lambda: h.arrived("alertmanager", "DELETE"))
        assert gone.path == f"/api/v2/silence/{later[0]['id']}"


def test_an_acknowledgement_does_not_put_off_when_it_is_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgement does not prolong the alert at the upstream, so it must not postpone the renewal: the alert
    would end there, and people be told so."""
    monkeypatch.setattr(calls, "RENEWED_AFTER", 3600.0)
    at = "SELECT renew_at FROM targets"
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        _event(h, "ALERT", summary="Disk full")
        before = h.wait_for(lambda: [one for one in select(h, at) if one])
        _event(h, "ACCEPT")
        h.wait_for(lambda: select(h, "SELECT count(*) FROM deliveries WHERE state = 'delivered'") == [2])
        assert select(h, at) == before


def test_a_restart_goes_on_with_it(tmp_path: Path) -> None:
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        _event(h, "ALERT", summary="Disk full")
        [first] = h.wait_for(lambda: _posts(h))
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        again = h.wait_for(lambda: _posts(h), 15)[0]
        assert again.body[0]["labels"] == first.body[0]["labels"] and _end(again) > _end(first)


def test_what_somebody_opens_again_after_its_end_stays_open(tmp_path: Path) -> None:
    """The sender has ended it, but somebody else of its scope reopened it."""
    callers = f'keys = {{ ci = "{KEY}" }}\nscope = "team"\n'
    inbounds = "".join(f"[inbound.{name}]\n{callers}" for name in ("alertmanager", "uptinio"))
    with (
        chaos(say(202, {})) as there,
        house(tmp_path, config=lambda _: inbounds + table("there", there.url, "ilert", "")) as h,
    ):
        soon = iso(datetime.now(UTC) + timedelta(seconds=1))
        posted = [{"labels": {"alertname": "Disk"}, "endsAt": soon}]
        assert h.call("POST", ALERTS, posted).status == 200
        h.wait_for(lambda: select(h, "SELECT status FROM alerts") == ["resolved"])
        [number] = select(h, "SELECT id FROM alerts")
        assert h.call("PUT", f"/uptinio/alerts/{number}", {"status": "active"}).status == 200
        h.wait_for(lambda: len(there.got) == 3)
        _stays(lambda: select(h, "SELECT status FROM alerts") == ["firing"], 2.5)


def test_an_upstream_that_was_out_of_the_file_for_a_while_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewals of alerts open there go on as soon as the upstream is configured again, as waiting deliveries do."""
    monkeypatch.setattr(timing, "UNKNOWN_MS", 500)
    with lasting(tmp_path, {"there": "alertmanager", "other": "ilert"}) as h:
        _event(h, "ALERT", summary="Disk full")
        h.wait_for(lambda: _posts(h))
    with lasting(tmp_path, {"other": "ilert"}) as h:
        _stays(lambda: select(h, "SELECT count(renew_at) FROM targets WHERE upstream = 'there'") == [1], 2.5)
        assert not _posts(h)
    with lasting(tmp_path, {"there": "alertmanager", "other": "ilert"}) as h:
        assert h.wait_for(lambda: _posts(h), 15)


def _told(h: House) -> list[str]:
    """The events that ilert was sent so far, in order."""
    return [one.body["eventType"] for one in h.arrived("ilert")]


def test_what_is_over_is_looked_at_once_when_it_would_be_renewed() -> None:
    """At each look again it would leave no room for those that are open."""
    desk = Desk()
    desk.accept("ci", create("disk"))
    [row] = desk.due("bykey")
    desk.end(desk.take(row), Delivered(renew=60))
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    desk.now += 61_000
    [due] = desk.tx.renewable(desk.now, 10)
    assert timing.renew(desk.tx, due, desk.config, desk.ids.next, desk.now) == set()
    assert desk.tx.renewable(desk.now, 10) == []


def test_what_is_said_again_is_not_over_when_it_first_would_have_been() -> None:
    """The repeat changes nothing but the end."""
    desk = Desk()
    ends = desk.now + 60_000
    for at in (ends, ends + 30_000):
        patch = {"summary": "s", "dedup_key": "disk", "ends_at": from_millis(at)}
        desk.accept("ci", Command(operation=Operation.CREATE, patch=patch, is_resend=True))
    assert desk.tx.ended(ends, 10) == []
    assert len(desk.tx.ended(ends + 30_000, 10)) == 1


@pytest.mark.parametrize("kind", STORES)
def test_what_could_not_be_said_during_an_outage_is_not_over(tmp_path: Path, kind: str) -> None:
    """The alert's `endsAt` passed while the gateway was down: no resolve is sent, and no new page once it is posted
    again."""
    store = address(kind, tmp_path)
    with lasting(tmp_path, {"page": "ilert"}, store=store) as h:
        posted(h, alert("Disk", endsAt=seconds(1)))
        h.arrives("ilert", 1)
    time.sleep(1)
    with lasting(tmp_path, {"page": "ilert"}, store=store) as h:
        _stays(lambda: not _told(h), 2.5)
        posted(h, alert("Disk", endsAt=seconds(60)), alert("New", endsAt=seconds(1)))
        h.wait_for(lambda: _told(h) == ["ALERT", "RESOLVE"])  # of the new one, which could be renewed all the time
        assert sorted(select(h, "SELECT status FROM alerts")) == ["firing", "resolved"]


def test_whoever_says_nothing_after_an_outage_either_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SAID_AGAIN_MS", 1500)
    with lasting(tmp_path, {"page": "ilert"}) as h:
        posted(h, alert("Disk", endsAt=seconds(1)))
        h.arrives("ilert", 1)
    time.sleep(1)
    with lasting(tmp_path, {"page": "ilert"}) as h:
        h.wait_for(lambda: _told(h) == ["RESOLVE"], 15)


def test_senders_that_are_refused_for_want_of_room_are_not_silent(tmp_path: Path) -> None:
    inbound = f'[inbound.alertmanager]\nkeys = {{ ci = "{KEY}" }}\n'
    there = table("there", "http://127.0.0.1:9", "ilert", "")
    with house(tmp_path, config=lambda _: inbound + there, top="max_waiting = 1") as h:
        posted(h, alert("Disk", endsAt=seconds(2)))
        h.wait_for(lambda: h.call("POST", ALERTS, [alert("Other", endsAt=seconds(60))]).status == 503)
        _stays(lambda: "resolved" not in select(h, "SELECT status FROM alerts"), 3.5)


def test_a_long_time_without_a_look_is_one_without_hearing() -> None:
    """As when the store is away, the machine sleeps, or the clock is set."""
    old, new = row(1, created_at=0), row(2, created_at=100_000)
    hearing = timing.Hearing(-timing.SAID_AGAIN_MS)
    for now in range(-timing.SAID_AGAIN_MS, 1, timing.BREAK_MS):
        hearing.look(now, is_deaf=False)
    assert hearing.could_be_said(old, 0)
    hearing.look(100_000, is_deaf=False)
    assert not hearing.could_be_said(old, 100_000) and hearing.could_be_said(new, 100_000)
    assert hearing.could_be_said(old, 100_000 + timing.SAID_AGAIN_MS)
    hearing.look(50_000, is_deaf=False)
    assert not hearing.could_be_said(old, 50_001)


def test_an_upstream_that_is_down_is_told_of_the_end_last(tmp_path: Path) -> None:
    """Renewals that wait behind an outage are dropped once the alert is over, so that its end is sent last; at most one
    renewal waits at a time."""
    with chaos(_taken) as there:
        upstream = table("there", there.url, "alertmanager", first="50ms")
        with before(tmp_path, upstream) as h:
            _event(h, "ALERT", summary="Disk full")
            h.wait_for(lambda: there.got)
            there.answer = _down
            h.wait_for(lambda: len(outbox(h, "waiting")) == 1, 15)
            _stays(lambda: len(outbox(h, "waiting")) <= 1, 2.0)
            _event(h, "RESOLVE")
            h.wait_for(lambda: len(outbox(h, "waiting")) == 2)
            there.answer = _taken
            h.wait_for(lambda: not outbox(h, "waiting"), 15)
            assert {row.state for row in outbox(h)} == {"delivered"}
            last = [got.body[0]["endsAt"] for got in there.got if got.path == "/api/v2/alerts"][-1]
            assert datetime.fromisoformat(last) <= datetime.now(UTC)
            count = len(there.got)
            _stays(lambda: len(there.got) == count, 2.0)


def test_what_waits_anyway_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an update waits, no renewal is queued behind it."""
    monkeypatch.setattr(timing, "BEHIND_OTHERS_MS", 100)
    with chaos(_taken) as there, before(tmp_path, table("there", there.url, "alertmanager", first="50ms")) as h:
        _event(h, "ALERT", summary="Disk full")
        h.wait_for(lambda: there.got and not outbox(h, "waiting"))
        there.answer = _down
        _event(h, "ALERT", summary="Disk fuller")
        _stays(lambda: len(outbox(h, "waiting")) <= 1, 2.5)
        there.answer = _taken
        h.wait_for(lambda: "fuller" in str(there.got[-1].body), 15)
        count = len(there.got)
        h.wait_for(lambda: len(there.got) > count, 15)


def test_the_others_of_an_alert_hear_nothing_of_it(tmp_path: Path) -> None:
    with lasting(tmp_path, {"there": "alertmanager", "page": "ilert"}) as h:
        _event(h, "ALERT", summary="Disk full")
        h.wait_for(lambda: len(_posts(h)) >= 3, 15)
        assert len(h.arrived("ilert")) == 1
        shown = h.call("GET", "/ilert/api/alerts").body
        assert [one["summary"] for one in shown] == ["Disk full"]


def test_an_alert_that_is_poison_keeps_no_other_from_being_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it stop other timed work."""
    real, poison = timing.renew, set[int]()

    def renew(tx: Any, due: Any, **more: Any) -> set[str]:
        if due.alert in poison:
            raise RuntimeError("poison")
        return real(tx, due, **more)

    monkeypatch.setattr(timing, "renew", renew)
    with lasting(tmp_path, {"there": "alertmanager"}) as h:
        _event(h, "ALERT", summary="Disk full")
        poison |= set(h.wait_for(lambda: select(h, "SELECT id FROM alerts")))
        sent = h.call("POST", "/ilert/api/events", ilert_event("ALERT", "other", summary="Another"), key=None)
        assert sent.status == 202
        h.wait_for(lambda: ["Another" in str(one.body) for one in _posts(h)].count(True) >= 3, 15)
