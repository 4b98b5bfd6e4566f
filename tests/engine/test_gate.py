"""An upstream in trouble: how often it is asked while it is down, who waits for it, what is visible from outside, and
how it recovers; the retry budget and the rate. Over HTTP, with a breaker whose pauses are short."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loading import parse
from gateway.delivery import breaker
from gateway.delivery.attempt import Client
from gateway.delivery.breaker import RESERVE, TRIPS_AT
from gateway.delivery.gate import Gate
from gateway.errors import ConfigurationError
from gateway.registry import dialects
from gateway.road import needed
from gateway.store.sqlite import SqliteStore
from tests.chaos_upstream import CLOSE, Behaviour, Chaos, Got, chaos, say
from tests.clients.callers import ilert_event
from tests.engine.vendors import NEEDS, OK, Uptinio, before, down, outbox, page, rows, settled, table
from tests.harness import House

CONCURRENCY = 8
MANY = 300


def many(h: House, numbers: range, prefix: str = "key", send: Callable[..., Any] = page) -> None:
    """Sends this many pages at once, from a few callers."""
    with ThreadPoolExecutor(4) as pool:
        for sent in pool.map(lambda number: send(h, f"{prefix}-{number}"), numbers):
            assert sent.status == 202


def ready(h: House) -> Any:
    """The answer of `/-/ready`: always 200, as upstreams never count."""
    answer = h.client.get(h.url + "/-/ready")
    assert answer.status_code == 200, answer.text
    return answer.json()


def state(h: House, name: str = "oncall") -> str:
    """The gate's state for an upstream."""
    return str(ready(h)["upstreams"][name]["state"])


def metric(h: House, what: str, name: str = "oncall") -> float:
    """The value of a metric of an upstream."""
    text = h.client.get(h.url + "/metrics").text
    line = f'alert_gateway_{what}{{upstream="{name}"}} '
    return float(next(one for one in text.splitlines() if one.startswith(line)).rpartition(" ")[2])


def opened(h: House, name: str = "oncall") -> None:
    """Waits until the breaker of the upstream is open."""
    h.wait_for(lambda: state(h, name) == "open")


def longer(monkeypatch: pytest.MonkeyPatch, first: float, longest: float) -> None:
    """Sets the breaker's pauses."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", first)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE", longest)


def test_nothing_is_remembered_of_what_had_not_to_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Void deliveries leave nothing in the gate's memory: each has a lane of its own, and over a year there are
    hundreds of thousands."""
    monkeypatch.setattr(needed, "FOLDED_AFTER_MS", 0)
    with chaos(say(503)) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
        many(h, range(TRIPS_AT))
        opened(h)
        many(h, range(TRIPS_AT, 40))
        for number in range(40):
            h.call("POST", "/ilert/api/events", ilert_event("RESOLVE", f"key-{number}"), key=None)
        upstream.always(OK)
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert len(outbox(h, "void")) > 40
        assert h.gateway.dispatcher is not None
        gate = h.gateway.dispatcher._lanes["oncall"].gate
        h.wait_for(lambda: not gate._known_then, 3)


# --- the breaker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [say(503), CLOSE], ids=lambda one: one.name)
def test_an_upstream_that_is_down_is_asked_by_probes_alone_and_comes_back_at_full_rate(
    tmp_path: Path, trouble: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """guarantees.md 9: while the breaker is open only probes are sent, whatever waits; once the upstream recovers,
    everything is delivered."""
    longer(monkeypatch, 0.2, 0.8)
    with chaos(trouble) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert", "")) as h:
        many(h, range(MANY))
        opened(h)
        until = time.monotonic() + 2.5
        h.wait_for(lambda: time.monotonic() > until, 4)
        assert len(upstream.got) <= TRIPS_AT - 1 + CONCURRENCY + 12
        probes = [got.at for got in upstream.got[-4:]]
        gaps = [later - earlier for earlier, later in pairwise(probes)]
        assert all(0.2 <= gap <= 1.8 for gap in gaps), gaps
        assert gaps[-1] >= 0.8, "pauses double up to the longest"
        assert (metric(h, "upstream_open"), metric(h, "upstream_held")) == (1, 0)
        assert metric(h, "waiting_deliveries") == MANY
        assert outbox(h, "dead") == []
        detail = ready(h)
        assert (detail["ready"], detail["faults"], detail["held"]) == (True, [], [])
        assert detail["upstreams"]["oncall"]["reason"]
        upstream.got.clear()
        upstream.always(OK)
        settled(h, count=MANY - 10 - CONCURRENCY, seconds=10)
        took = upstream.got[-1].at - upstream.got[0].at
        assert took < 8
        assert state(h) == "closed"
        assert metric(h, "upstream_open") == 0
        settled(h, count=MANY, seconds=30)
        assert len(upstream.got) == MANY


def test_a_caller_who_would_wait_is_answered_at_once_while_the_primary_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """interface.md, *Reply*: `delivered` answers at once if the primary's breaker is open; callers that wait when it
    opens are answered then."""
    longer(monkeypatch, 30.0, 30.0)
    with chaos(say(503)) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio")) as h:
        with ThreadPoolExecutor(TRIPS_AT) as pool:
            began = time.monotonic()
            sent = list(pool.map(lambda number: down(h, f"Down {number}"), range(TRIPS_AT)))
            assert {one.status for one in sent} == {201}
            assert time.monotonic() - began < 3, "reply_timeout is 5 s"
        assert state(h, "uptime") == "open"
        for number in range(10):
            began = time.monotonic()
            assert down(h, f"Down again {number}").status == 201
            assert time.monotonic() - began < 1
        assert metric(h, "waiting_deliveries", "uptime") == TRIPS_AT + 10


def test_one_upstream_s_breaker_is_not_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer(monkeypatch, 30.0, 30.0)
    routes = '[[routes]]\nto = ["oncall", "other"]\n'
    with chaos(say(500)) as bad, chaos(OK) as good:
        both = table("oncall", bad.url, "ilert", ""), table("other", good.url, "ilert", "")
        with before(tmp_path, *both, routes=routes) as h:
            many(h, range(20))
            opened(h)
            settled(h, count=20)
            assert state(h, "other") == "closed"
            assert metric(h, "upstream_open", "other") == 0
            assert metric(h, "retry_budget", "other") == RESERVE == ready(h)["upstreams"]["other"]["retries_left"]


def test_a_restart_allows_one_probe_at_once_and_keeps_the_doubling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """guarantees.md 9: kept across a restart."""
    longer(monkeypatch, 0.3, 20.0)
    with chaos(say(503)) as upstream:
        tables = table("oncall", upstream.url, "ilert", "")
        with before(tmp_path, tables) as h:
            many(h, range(30))
            opened(h)
            h.wait_for(lambda: 0.6 < ready(h)["upstreams"]["oncall"]["probe_in_s"] <= 1.2)
        upstream.got.clear()
        with before(tmp_path, tables) as h:
            h.wait_for(lambda: upstream.got)
            h.wait_for(lambda: ready(h)["upstreams"]["oncall"]["probe_in_s"] > 1.2)
            assert state(h) == "open"
            assert len(upstream.got) == 1
            assert metric(h, "upstream_open") == 1
        upstream.always(OK)
        with before(tmp_path, tables) as h:
            settled(h, count=30, seconds=20)


def test_a_held_upstream_stays_held_over_a_restart_but_for_one_probe(tmp_path: Path) -> None:
    with chaos(say(401)) as upstream:
        tables = table("oncall", upstream.url, "ilert", "")
        with before(tmp_path, tables) as h:
            many(h, range(10))
            h.wait_for(lambda: state(h) == "held")
            assert metric(h, "upstream_held") == 1
        upstream.got.clear()
        with before(tmp_path, tables) as h:
            h.wait_for(lambda: upstream.got and ready(h)["upstreams"]["oncall"]["probe_in_s"] > 50)
            assert (state(h), ready(h)["held"]) == ("held", ["oncall"])
            assert len(upstream.got) == 1
            assert {row.state for row in outbox(h)} == {"waiting"}


def poison(got: Got) -> Behaviour:
    """Fails every alert whose key begins with `poison`, and takes the others."""
    return say(500) if got.body["alertKey"].startswith("poison") else OK


@pytest.mark.parametrize("count", [1, 20])
def test_what_always_fails_does_not_keep_the_others_from_going_through(tmp_path: Path, count: int) -> None:
    """Alerts that always fail may open the breaker; a delivery that has not failed yet is preferred as the probe, and
    closes it."""
    with chaos(poison) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert", "")) as h:
        many(h, range(count), "poison")
        opened(h)
        many(h, range(60))
        settled(h, count=60, seconds=10)
        assert {row.key for row in outbox(h, "waiting")} == {f"poison-{number}" for number in range(count)}
        many(h, range(60, 80))
        settled(h, count=80, seconds=10)


def test_a_call_that_fails_before_it_asked_anything_says_nothing_about_the_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the gateway itself neither closes a breaker nor shortens its pause, as the upstream was not asked."""
    longer(monkeypatch, 0.3, 0.6)
    with chaos(say(503)) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert", "")) as h:
        many(h, range(TRIPS_AT))
        opened(h)
        lanes = h.gateway.dispatcher
        assert lanes is not None
        failures = []

        async def fail(*_: object) -> None:
            failures.append(time.monotonic())
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr(lanes.client("oncall"), "run", fail)
        h.wait_for(lambda: len(failures) >= TRIPS_AT + 5)
        assert state(h) == "open"
        monkeypatch.undo()
        upstream.always(OK)
        settled(h, count=TRIPS_AT)


# --- the retry budget ----------------------------------------------------------------------------------------


class EverySecond:
    """Fails every second request, whatever it is about."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, got: Got) -> Behaviour:
        """Fails, or takes the request, in turn."""
        self.asked += 1
        return say(500) if self.asked % 2 else OK


def retried(upstream: Chaos) -> tuple[int, int]:
    """The numbers of first attempts and of retries."""
    keys = Counter(got.body["alertKey"] for got in list(upstream.got))
    return len(keys), sum(keys.values()) - len(keys)


def test_retries_stay_within_their_budget_and_first_attempts_go_on(tmp_path: Path) -> None:
    """guarantees.md 9: retries are at most a fifth of the deliveries, plus a reserve and one a second; attempts that
    begin together may overdraw the budget, which is paid back."""
    with chaos(EverySecond()) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert", "")) as h:
        began = time.monotonic()
        many(h, range(200))
        h.wait_for(lambda: retried(upstream)[0] == 200, 10)
        first, again = retried(upstream)
        took = time.monotonic() - began
        assert again <= first / 5 + RESERVE + took + CONCURRENCY
        assert took < 10, "first attempts wait for nobody's retries"
        waiting = len(outbox(h, "waiting"))
        assert waiting > 10, "what exceeds the budget waits"
        assert metric(h, "retry_budget") < 3 and ready(h)["upstreams"]["oncall"]["retries_left"] < 3
        until = time.monotonic() + 3
        h.wait_for(lambda: time.monotonic() > until, 4)
        _, later = retried(upstream)
        assert later - again <= 3 + 1 + CONCURRENCY
        many(h, range(200, 210))
        h.wait_for(lambda: retried(upstream)[0] == 210, 3)
        assert outbox(h, "dead") == []


def test_a_restart_hands_out_no_new_reserve(tmp_path: Path) -> None:
    """guarantees.md 9: the retry budget is kept across a restart."""
    with chaos(EverySecond()) as upstream:
        tables = table("oncall", upstream.url, "ilert", "")
        with before(tmp_path, tables) as h:
            many(h, range(100))
            h.wait_for(lambda: retried(upstream)[0] == 100, 10)
            h.wait_for(lambda: retried(upstream)[1] >= 20, 10)
        began, known = time.monotonic(), retried(upstream)[1]
        for _ in range(3):
            with before(tmp_path, tables) as h:
                served_since = time.monotonic()
                while time.monotonic() - served_since < 1:
                    assert state(h) != "held"
                    time.sleep(0.05)
        assert retried(upstream)[1] - known <= time.monotonic() - began + 1 + CONCURRENCY


def test_a_first_attempt_gains_a_fifth_of_a_retry_and_a_shut_gate_lets_one_probe_through(tmp_path: Path) -> None:
    """Probes are not retries: an upstream that is down for long uses up no budget, and none keeps it from being
    probed."""
    text = f'[inbound.ilert]\nkeys = {{ ci = "a" }}\n{table("oncall", "http://127.0.0.1:9", "ilert")}'
    client = Client(parse(text).upstreams["oncall"])
    gate = Gate(SqliteStore(str(tmp_path / "none.db"), exclusive=False), client, lambda: None, lambda: 0)
    gate.budget.level = 0.0
    gate.began("lane", is_retry=False)
    assert gate.budget.level == pytest.approx(0.2) and not gate.may_retry()
    assert gate.room(3) == (CONCURRENCY - 3, 0.0)
    for _ in range(TRIPS_AT):
        gate.breaker.failed(time.monotonic() - 1, is_probe=False)
    level = gate.budget.level
    assert gate.is_open and gate.may_retry()
    assert (gate.room(0), gate.room(1)[0]) == ((1, 0.0), 0)
    gate.began("lane", is_retry=True)
    assert gate.budget.level == level


# --- the rate ------------------------------------------------------------------------------------------------


def rated(upstream: Chaos, rate: int | str, dialect: str = "ilert", needs: str = "") -> str:
    """An upstream with a rate."""
    return table("oncall", upstream.url, dialect, f"rate = {rate!r}\n{needs}".replace("'", '"'))


def test_a_rate_lets_a_tenth_through_at_once_and_the_rest_in_its_time_over_a_restart_too(tmp_path: Path) -> None:
    """interface.md: `rate` is requests a minute. Of 120, twelve may go at once, then 108 over the rest of the
    minute."""
    with chaos(OK) as upstream:
        with before(tmp_path, rated(upstream, 120)) as h:
            many(h, range(40))
            h.wait_for(lambda: len(upstream.got) >= 15, 10)
        with before(tmp_path, rated(upstream, 120)) as h:
            h.wait_for(lambda: len(upstream.got) >= 20, 10)
            times = [got.at for got in upstream.got]
            allowed = [12 + (at - times[0]) * 108 / 60 + 1 for at in times]
            assert all(number <= most for number, most in enumerate(allowed, 1)), "more than the rate"
            assert times[19] - times[0] <= 8 * 60 / 108 + 3, "it is used up, restart or not"
            assert len(outbox(h, "waiting")) >= 15


def test_the_worst_goes_first_where_the_rate_binds(tmp_path: Path) -> None:
    """Severity 1 goes before severity 5, whichever came first."""
    with chaos(OK) as upstream, before(tmp_path, rated(upstream, 120)) as h:
        many(h, range(30), "usual", lambda h, key: page(h, key, severity=5))
        h.wait_for(lambda: len(upstream.got) >= 12)
        known = len(upstream.got)
        many(h, range(3), "worst", lambda h, key: page(h, key, severity=1))
        h.wait_for(lambda: len(upstream.got) >= known + 5, 10)
        keys = [got.body["alertKey"] for got in upstream.got]
        places = [number for number, key in enumerate(keys) if key.startswith("worst")]
        assert len(places) == 3, "they waited for those that came before them"
        assert places[2] - places[0] == 2, "one of less weight went between them"


def test_a_request_counts_whatever_it_was_for(tmp_path: Path) -> None:
    """An attempt whose answer was lost, two reads that look for its alert, and the next attempt are four requests."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, rated(upstream, 60, "uptinio", NEEDS)) as h:
        upstream.plan(say(504))
        began = time.monotonic()
        down(h)
        settled(h)
        assert [got.method for got in upstream.got] == ["POST", "GET", "GET", "POST"]
        came_back = (time.monotonic() - began) * 54 / 60
        h.wait_for(lambda: tokens(h) <= 6 - 4 + came_back, 0.5)


def test_what_is_read_counts_in_the_rate_and_leaves_the_next_delivery_its_place(tmp_path: Path) -> None:
    """A vendor counts reads and writes together, but polling, however often, must not keep alerts from going out."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, rated(upstream, 60, "uptinio", NEEDS)) as h:
        began = time.monotonic()
        made = [down(h, f"down {number}").body["data"]["id"] for number in range(3)]
        settled(h, count=3)
        for one in made:
            assert h.call("GET", f"/uptinio/alerts/{one}").status == 200
        assert [got.method for got in upstream.got].count("GET") == 3
        h.wait_for(lambda: tokens(h) <= 1 + (time.monotonic() - began) * 54 / 60)
        for _ in range(3):
            time.sleep(1.1)
            for one in made:
                h.call("GET", f"/uptinio/alerts/{one}")
        assert tokens(h) >= 1, "what is told waits for what is read"


def test_what_is_not_sent_takes_nothing_from_the_rate(tmp_path: Path) -> None:
    """After an outage many deliveries are folded or void; those that are sent do not wait for them."""
    with chaos(say(400)) as upstream, before(tmp_path, rated(upstream, 60)) as h:
        page(h)
        settled(h, "dead")
        began = time.monotonic()
        for _ in range(20):
            page(h, eventType="COMMENT", comments=[{"creator": "ci", "content": "c"}])
        settled(h, "void", 20, 5)
        assert time.monotonic() - began < 5, "twenty would take a quarter of a minute"
        assert len(upstream.got) == 1


PUBLISHED = '"published"'


def tokens(h: House) -> float:
    """The tokens left of the rate."""
    [body] = rows(h, "body", "notes WHERE name = 'rate oncall'")
    return float(json.loads(body)["level"])


@pytest.mark.parametrize(
    ("rate", "problem"),
    [
        ("0", "upstreams.oncall.rate: "),
        ("-5", "upstreams.oncall.rate: "),
        ('"lots"', "upstreams.oncall.rate: 'lots' is neither a number of requests per minute nor \"published\""),
    ],
)
def test_a_rate_that_is_none_is_named(rate: str, problem: str) -> None:
    text = f'[inbound.ilert]\nkeys = {{ ci = "a" }}\n{table("oncall", "http://localhost", "ilert", f"rate = {rate}")}'
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert any(one.startswith(problem) for one in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("dialect", dialects())
def test_a_published_rate_is_the_vendors_own_or_there_is_none(dialect: str) -> None:
    """Where no page states a rate, the configuration must give a number."""
    text = (
        f'[inbound.ilert]\nkeys = {{ ci = "a" }}\n{table("there", "http://localhost", dialect, "rate = " + PUBLISHED)}'
    )
    published = dialects()[dialect].outbound.published_rate
    if published is not None:
        assert parse(text).upstreams["there"].rate == published
        return
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert any("publishes no limit; write the allowed" in one for one in caught.value.problems), caught.value.problems
