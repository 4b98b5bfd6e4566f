"""Silences over open alerts: they are acknowledged, and told again if they go on once the silence is over."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.process import housekeeping, service
from gateway.road import quieting
from gateway.road.accepted import Caller, Order
from gateway.store import Tx
from tests.clients.callers import settings
from tests.engine.lasting import STORES, address, alert, lasting, posted, seconds, select, words
from tests.engine.silences import is_over, matching, named, silence, silenced, state
from tests.engine.test_changed_meanwhile import again
from tests.harness import House

TO_BOTH = '[[routes]]\nto = ["there", "rules"]\n'


def test_what_is_owed_to_an_upstream_out_of_the_file_is_not_recorded_again_and_again(tmp_path: Path) -> None:
    """A change that is owed only to an upstream removed from the configuration adds no command per repeat; once the
    upstream is back the next repeat sends it."""
    name = named("Out")
    with lasting(tmp_path, {"there": "uptinio", "rules": "livesession"}) as h:
        both = settings(h.sandbox_url, {"there": "uptinio", "rules": "livesession"}, routes=TO_BOTH)
        one = settings(h.sandbox_url, {"rules": "livesession"})
        posted(h, alert(name))
        h.wait_for(lambda: select(h, "SELECT state FROM deliveries") == ["delivered", "delivered"])
        made = silenced(h, name)
        changed = alert(name, annotations={"summary": "worse"})
        posted(h, changed)
        again(h, one)
        is_over(h, made)
        for _ in range(2):  # ends the silence's acknowledgement, then sends what is owed
            posted(h, changed)
        before = select(h, "SELECT count(*) FROM commands")
        posted(h, changed)
        assert select(h, "SELECT count(*) FROM commands") == before
        again(h, both)
        posted(h, changed)
        h.wait_for(lambda: "worse" in str([one.body for one in h.arrived("uptinio")]))


@pytest.mark.parametrize("kind", STORES)
def test_what_goes_on_once_the_silence_is_over_wakes_somebody(tmp_path: Path, kind: str) -> None:
    """An alert that still fires after the silence is resolved and opened anew, once. A vendor of rules, which was never
    told of the silence, is sent nothing."""
    name, ended = named("Goes"), named("Ends")
    with lasting(tmp_path, {"there": "ilert", "rules": "livesession"}, store=address(kind, tmp_path)) as h:
        posted(h, alert(name), alert(ended))
        h.wait_for(lambda: len(h.arrived("livesession")) == 2)
        made, other = silenced(h, name), silenced(h, ended)
        h.wait_for(lambda: words(h, name) == words(h, ended) == ["ALERT", "ACCEPT"])
        posted(h, alert(name))
        assert words(h, name) == ["ALERT", "ACCEPT"], "it is silenced"
        is_over(h, made)
        is_over(h, other)
        posted(h, alert(name), alert(ended, endsAt=seconds(-1)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT", "RESOLVE", "ALERT"])
        assert state(h, name) == "active"
        posted(h, alert(name))
        posted(h, alert(name, endsAt=seconds(-1)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT", "RESOLVE", "ALERT", "RESOLVE"])
        assert words(h, ended) == ["ALERT", "ACCEPT", "RESOLVE"]
        there = [one.method for one in h.arrived("livesession")]
        h.wait_for(lambda: [one.method for one in h.arrived("livesession")].count("DELETE") == 2)
        assert there.count("POST") == 2


@pytest.mark.parametrize("dialect", ["ilert", "opsgenie", "livesession", "uptinio"])
@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_what_changed_in_a_silence_is_told_once_it_is_over(tmp_path: Path, dialect: str, is_acknowledged: bool) -> None:
    """The change is sent with the next identical repeat, as upstreams that were not told would show the old state for
    good. Those that cannot be told of silences, or were not woken by their end, get it as an ordinary update."""
    name = named("Changed")
    told = "SELECT operation FROM deliveries WHERE state = 'delivered' ORDER BY id"
    with lasting(tmp_path, {"there": dialect}) as h:
        posted(h, alert(name))
        h.wait_for(lambda: select(h, told) == ["create"])
        if is_acknowledged:
            _said_by_somebody(h)
        made = silenced(h, name)
        for text in ("worse", "much worse"):
            posted(h, alert(name, annotations={"summary": text}))
        assert "much worse" not in str(h.arrived(dialect))
        is_over(h, made)
        posted(h, alert(name, annotations={"summary": "much worse"}))
        h.wait_for(lambda: any("much worse" in str(one.body) for one in h.arrived(dialect)))
        h.wait_for(lambda: not select(h, "SELECT id FROM deliveries WHERE state = 'waiting'"))
        before = select(h, told)
        posted(h, alert(name, annotations={"summary": "much worse"}))
        assert select(h, "SELECT operation FROM deliveries ORDER BY id") == before


@pytest.mark.parametrize("dialect", ["livesession", "uptinio"])
def test_what_changed_in_a_silence_and_nobody_can_be_told_is_recorded_once(tmp_path: Path, dialect: str) -> None:
    """Nothing stays owed where no upstream is to be told; each repeat would otherwise add a command to the record."""
    name = named("Owed")
    changed = {**alert(name), "annotations": {"summary": f"{name} is down", "more": "words"}}
    with lasting(tmp_path, {"there": dialect}) as h:
        posted(h, alert(name))
        h.wait_for(lambda: select(h, "SELECT state FROM deliveries") == ["delivered"])
        made = silenced(h, name)
        posted(h, changed)
        is_over(h, made)
        for _ in range(2):  # ends the silence's acknowledgement, then settles what is owed
            posted(h, changed)
        before = select(h, "SELECT count(*) FROM commands")
        posted(h, changed)
        assert select(h, "SELECT count(*) FROM commands") == before


@pytest.mark.parametrize("kind", STORES)
def test_a_silence_that_is_longer_than_retention_wakes_somebody_too(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command by which a silence acknowledged an alert is kept beyond `retention` while the alert is acknowledged,
    and purged afterwards: it tells that no person acknowledged it."""
    monkeypatch.setattr(housekeeping, "PURGE_EVERY", 0.0)
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.1)
    name = named("Long")
    with lasting(tmp_path, {"there": "ilert"}, store=address(kind, tmp_path)) as h:

        def known() -> list[str]:
            return select(h, "SELECT operation FROM commands ORDER BY id")

        posted(h, alert(name))
        made = silenced(h, name)
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT"])
        h.gateway.config = dataclasses.replace(h.gateway.config, retention=0.001)
        h.wait_for(lambda: "create" not in known())
        time.sleep(0.5)
        is_over(h, made)
        posted(h, alert(name))
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT", "RESOLVE", "ALERT"])
        h.wait_for(lambda: not known())


@pytest.mark.parametrize("dialect", ["pagerduty", "opsgenie", "jsm_ops", "alertmanager", "splunk_oncall"])
def test_it_is_ended_and_opened_again_wherever_it_was_acknowledged(tmp_path: Path, dialect: str) -> None:
    name = named("Anew")
    with lasting(tmp_path, {"there": dialect}) as h:

        def told() -> list[str]:
            return select(h, "SELECT operation FROM deliveries WHERE state = 'delivered' ORDER BY id")

        posted(h, alert(name))
        made = silenced(h, name)
        h.wait_for(lambda: told() == ["create", "acknowledge"])
        is_over(h, made)
        posted(h, alert(name))
        h.wait_for(lambda: told() == ["create", "acknowledge", "resolve", "reopen"])


def test_what_somebody_acknowledged_stays_so(tmp_path: Path) -> None:
    """An acknowledgement by a person outlives the end of a silence."""
    name = named("Taken")
    with lasting(tmp_path, {"there": "ilert"}) as h:
        posted(h, alert(name))
        made = silenced(h, name)
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT"])
        _said_by_somebody(h)
        is_over(h, made)
        posted(h, alert(name))
        posted(h, alert(name, endsAt=seconds(-1)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT", "RESOLVE"])


def _said_by_somebody(h: House) -> None:
    """Acknowledges the only open alert as another caller of the same scope, past the dialects."""
    desk = h.gateway.desk
    assert desk is not None
    road, ids, now = desk.road, desk.ids, desk.now()
    dialect = h.gateway.config.inbounds["alertmanager"].dialect

    def work(tx: Tx) -> None:
        [row] = [tx.alert(one) for one in open_ones]
        assert row is not None
        asked = Command(operation=Operation.ACKNOWLEDGE, ref=Ref(id=row.shown))
        road.accept(
            tx, Order(asked=asked, caller=Caller(dialect, row.caller, row.scope), request=ids(), command=ids(), now=now)
        )

    open_ones = select(h, "SELECT id FROM alerts")
    loop = next(iter(desk.dispatcher._tasks.values())).get_loop()
    asyncio.run_coroutine_threadsafe(desk.store.write(work), loop).result(10)


@pytest.mark.parametrize("kind", STORES)
def test_what_is_open_is_acknowledged_in_parts_and_a_restart_forgets_none(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledging five thousand took ten seconds, longer than clients wait: the first few come with the answer, the
    rest after it, also across a restart."""
    monkeypatch.setattr(quieting, "AT_ONCE", 2)
    names, store = [named(f"Part{number}") for number in range(5)], address(kind, tmp_path)

    def acknowledged(h: House) -> list[int]:
        return select(h, "SELECT count(*) FROM commands WHERE operation = 'acknowledge'")

    with lasting(tmp_path, {"there": "ilert"}, store=store) as h:
        posted(h, *(alert(name) for name in names))
        with monkeypatch.context() as still:
            still.setattr("gateway.road.timing.owed", lambda tx: [])
            silence(h, {**matching("alertname", "Part.*"), "isRegex": True})
            assert acknowledged(h) == [2]
            silenced(h, named("Nothing"))
            time.sleep(1.5)
            assert acknowledged(h) == [2]
    with lasting(tmp_path, {"there": "ilert"}, store=store) as h:
        h.wait_for(lambda: acknowledged(h) == [5])
        h.wait_for(lambda: select(h, "SELECT count(*) FROM notes WHERE name LIKE 'quiet %'") == [0])
        posted(h, *(alert(name) for name in names))
        assert acknowledged(h) == [5]


def test_nothing_more_is_acknowledged_for_a_silence_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quieting, "AT_ONCE", 1)
    with lasting(tmp_path, {"there": "ilert"}) as h:
        posted(h, *(alert(named("Late")) for _ in range(3)))
        with monkeypatch.context() as still:
            still.setattr("gateway.road.timing.owed", lambda tx: [])
            made = silence(h, {**matching("alertname", "Late.*"), "isRegex": True}).body["silenceID"]
            is_over(h, made)
        h.wait_for(lambda: select(h, "SELECT count(*) FROM notes WHERE name LIKE 'quiet %'") == [0])
        assert select(h, "SELECT count(*) FROM commands WHERE operation = 'acknowledge'") == [1]


def test_a_silence_that_is_over_by_the_time_of_writing_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after its alerts were looked for, before they are acknowledged: nobody would ring for them any more."""
    monkeypatch.setattr(quieting, "AT_ONCE", 1)
    look, found, ends = quieting._meant, list[list[int]](), list[str]()

    def look_too_early(tx: Tx, **more: Any) -> list[int]:
        found.append(look(tx, **more))
        if ends:
            is_over(h, ends.pop())
        return found[-1]

    with lasting(tmp_path, {"there": "ilert"}) as h:
        posted(h, *(alert(named("Late")) for _ in range(3)))
        with monkeypatch.context() as still:
            still.setattr("gateway.road.timing.owed", lambda tx: [])
            ends.append(silence(h, {**matching("alertname", "Late.*"), "isRegex": True}).body["silenceID"])
            monkeypatch.setattr(quieting, "_meant", look_too_early)
        h.wait_for(lambda: select(h, "SELECT count(*) FROM notes WHERE name LIKE 'quiet %'") == [0])
        assert found[0], "it held when they were looked for"
        assert select(h, "SELECT count(*) FROM commands WHERE operation = 'acknowledge'") == [1]
