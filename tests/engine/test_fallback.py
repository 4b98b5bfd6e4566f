"""A page that nobody has taken in time goes to the fallback, once, whatever the reason: upstreams that hang, refuse or
are held. `fallback` of a route is specified in interface.md and guarantees.md 28."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.config.loading import parse
from gateway.delivery import lanes
from gateway.errors import ConfigurationError
from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import CLOSE, HANG, Behaviour, Chaos, chaos, say
from tests.engine.lasting import SILENCES, alert, posted, seconds
from tests.engine.vendors import (
    NEEDS,
    NO,
    OK,
    Ibm,
    Uptinio,
    before,
    count,
    down,
    gated,
    outbox,
    page,
    settled,
    slow,
    table,
    writes,
)
from tests.harness import KEY, House, house

AFTER = 0.6
ROUTE = f'[[routes]]\nto = ["oncall"]\nfallback = {{ to = ["sms"], after = "{int(AFTER * 1000)}ms" }}\n'


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher polls the outbox often, as the tests' `after` is shorter than its usual interval."""
    monkeypatch.setattr(lanes, "POLL", 0.2)


def tables(oncall: Chaos, sms: Chaos) -> tuple[str, str]:
    """A primary and its fallback."""
    return table("oncall", oncall.url, "ilert", "", timeout="500ms"), table("sms", sms.url, "ilert", "")


def words(upstream: Chaos) -> list[str]:
    """The event types that arrived at an upstream."""
    return [got.body["eventType"] for got in list(upstream.got)]


def end(h: House, key: str = "disk") -> None:
    """Resolves the alert."""
    event = {"apiKey": KEY, "eventType": "RESOLVE", "alertKey": key}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


def of(h: House, upstream: str) -> list[tuple[str, str]]:
    """Operation and state of the deliveries to one upstream."""
    return [(row.operation, row.state) for row in outbox(h) if row.upstream == upstream]


def stays(seconds: float, h: House, upstream: Chaos, expected: list[str]) -> None:
    """Asserts that nothing more arrives for a while."""
    with pytest.raises(AssertionError, match="did not come"):
        h.wait_for(lambda: words(upstream) != expected, seconds)


@pytest.mark.parametrize("trouble", [HANG, NO, say(401), say(503), CLOSE], ids=lambda one: one.name)
def test_what_nobody_takes_goes_to_the_fallback_once(tmp_path: Path, trouble: Behaviour) -> None:
    """guarantees.md 28: an upstream that hangs, refuses, is held, fails or closes the connection."""
    with chaos(trouble) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        sent = time.monotonic()
        assert page(h).status == 202
        h.wait_for(lambda: sms.got)
        assert sms.got[0].at - sent >= AFTER
        assert sms.got[0].at - sent < AFTER + 1.5
        assert sms.got[0].body["summary"] == "Disk full"
        assert sms.got[0].body["alertKey"] == "disk"
        h.wait_for(lambda: of(h, "sms") == [("create", "delivered")])
        stays(0.5, h, sms, ["ALERT"])
        end(h)
        h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])


def test_an_upstream_that_is_not_there_leads_to_the_fallback(tmp_path: Path) -> None:
    with chaos(OK) as sms:
        nowhere = table("oncall", "http://127.0.0.1:1", "ilert", "")
        with before(tmp_path, nowhere, table("sms", sms.url, "ilert", ""), routes=ROUTE) as h:
            page(h)
            h.wait_for(lambda: words(sms) == ["ALERT"])


def test_what_is_taken_in_time_is_nothing_to_the_fallback(tmp_path: Path) -> None:
    with chaos(OK) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        page(h)
        page(h, summary="Disk fuller")
        settled(h, count=2)
        h.wait_for(lambda: of(h, "sms") == [("create", "void")])
        [row] = [row for row in outbox(h) if row.upstream == "sms"]
        assert row.reason == "oncall has taken the alert"
        end(h)
        h.wait_for(lambda: words(oncall) == ["ALERT", "ALERT", "RESOLVE"])
        assert sms.connections == 0
        assert rows_add_up(h)


def rows_add_up(h: House) -> bool:
    """Whether the ledger adds up: every delivery that a command made is in one of the five states."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return all(line.adds_up for line in SqliteTx(connection).ledger(0, "caller"))


def test_what_is_over_before_its_turn_wakes_nobody(tmp_path: Path) -> None:
    with chaos(HANG) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        page(h)
        end(h)
        h.wait_for(lambda: of(h, "sms") == [("create", "void")])
        stays(AFTER + 0.4, h, sms, [])
        page(h)
        h.wait_for(lambda: words(sms) == ["ALERT"])


def test_a_later_end_closes_both_and_so_does_what_changes_in_between(tmp_path: Path) -> None:
    gate = threading.Event()
    with (
        chaos(gated(gate, OK)) as oncall,
        chaos(OK) as sms,
        before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h,
    ):
        page(h)
        h.wait_for(lambda: words(sms) == ["ALERT"])
        page(h, summary="Disk fuller")
        h.wait_for(lambda: len(sms.got) == 2)
        assert sms.got[1].body["summary"] == "Disk fuller"
        gate.set()
        end(h)
        h.wait_for(lambda: words(sms) == ["ALERT", "ALERT", "RESOLVE"])
        h.wait_for(lambda: words(oncall)[-1] == "RESOLVE")
        assert "ALERT" in words(oncall)


def test_the_fallback_hears_what_is_so_when_its_turn_comes(tmp_path: Path) -> None:
    """The fallback is sent the content of that moment, also where it takes the page at the second attempt only."""
    with chaos(HANG) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        sms.plan(say(503))
        page(h)
        page(h, summary="Disk fuller")
        h.wait_for(lambda: len(sms.got) == 2)
        assert [got.body["summary"] for got in sms.got] == ["Disk fuller"] * 2
        stays(0.3, h, sms, ["ALERT", "ALERT"])


def test_a_caller_who_waits_for_the_primary_does_not_wait_for_the_fallback(tmp_path: Path) -> None:
    route = ROUTE.replace("600ms", "1h")
    with chaos(Uptinio()) as there, chaos(OK) as sms:
        both = table("oncall", there.url, "uptinio"), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=route) as h:
            began = time.monotonic()
            assert down(h).status == 201
            assert time.monotonic() - began < 2
            assert sms.connections == 0


def test_a_caller_who_is_refused_leaves_nothing_for_the_fallback(tmp_path: Path) -> None:
    """interface.md, *Reply*: a command that every upstream refused is undone, as the caller knows of the refusal."""
    with chaos(say(422, {"error": {"code": "x", "message": "no"}})) as there, chaos(OK) as sms:
        both = table("oncall", there.url, "uptinio"), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=ROUTE) as h:
            assert down(h).status >= 400
            assert count(h, "deliveries") == 0
            stays(AFTER + 0.4, h, sms, [])


def test_reopening_tells_those_who_were_told(tmp_path: Path) -> None:
    """Uptinio's `PUT` of a status reopens an alert; a fallback that was paged for it is paged again."""
    with chaos(say(503)) as there, chaos(OK) as sms:
        both = table("oncall", there.url, "uptinio"), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=ROUTE, top='reply_timeout = "100ms"') as h:
            made = down(h).body["data"]
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"status": "resolved"}).status == 200
            h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])
            assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"status": "active"}).status == 200
            h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE", "ALERT"])


def test_reopening_starts_the_clock_anew_where_it_never_rang(tmp_path: Path) -> None:
    there = Uptinio()
    with chaos(there) as oncall, chaos(OK) as sms:
        both = table("oncall", oncall.url, "uptinio"), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=ROUTE, top='reply_timeout = "200ms"') as h:
            made = down(h).body["data"]
            h.wait_for(lambda: of(h, "sms") == [("create", "void")])
            assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"status": "resolved"}).status == 200
            oncall.always(say(503))
            began = time.monotonic()
            assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"status": "active"}).status == 200
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert sms.got[0].at - began >= AFTER


def test_what_the_primary_refuses_to_reopen_goes_to_the_fallback(tmp_path: Path) -> None:
    """The alert stays closed at the primary, so the fallback is the only one to hear that it is open again."""
    there = Uptinio()
    with chaos(there) as oncall, chaos(OK) as sms:
        both = table("oncall", oncall.url, "uptinio"), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=ROUTE, top='reply_timeout = "50ms"') as h:
            made = down(h).body["data"]
            h.wait_for(lambda: of(h, "sms") == [("create", "void")])
            assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"status": "resolved"}).status == 200
            h.wait_for(lambda: of(h, "oncall")[-1] == ("resolve", "delivered"))
            oncall.always(slow(0.2, NO))
            assert h.call("PUT", f"/uptinio/alerts/{made['id']}", {"status": "active"}).status == 200
            h.wait_for(lambda: of(h, "oncall")[-1] == ("reopen", "dead"))
            h.wait_for(lambda: words(sms) == ["ALERT"])


def test_a_restart_in_between_changes_nothing(tmp_path: Path) -> None:
    """The turn comes when it would have come. Nobody waits for it here: it is in an hour, until the stored times are
    put back by that hour."""
    route = ROUTE.replace("600ms", "1h")
    times: set[tuple[int, int]] = set()
    with chaos(say(503)) as oncall, chaos(OK) as sms:
        for _ in range(2):
            with before(tmp_path, *tables(oncall, sms), routes=route) as h:
                if not outbox(h):
                    page(h, "over")
                    end(h, "over")
                    page(h, "taken by nobody")
                first, turn = [one for one in outbox(h) if one.upstream == "oncall"][-1], of(h, "sms")
                [waits] = [one for one in outbox(h, "waiting") if one.upstream == "sms"]
                assert (turn, waits.alert) == ([("create", "void"), ("create", "waiting")], first.alert)
                assert waits.due - first.created_at == 3_600_000
                times.add((first.created_at, waits.due))
        assert len(times) == 1, "a time to come is no sign that the clock was set back"
        assert sms.connections == 0
        with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection, connection:
            SqliteTx(connection).shift_waiting(-3_600_000)
        with before(tmp_path, *tables(oncall, sms), routes=route) as h:
            h.wait_for(lambda: of(h, "sms") == [("create", "void"), ("create", "delivered")])
            assert [got.body["alertKey"] for got in sms.got] == ["taken by nobody"]


def test_with_ids_instead_of_keys_the_end_reaches_the_fallback_too(tmp_path: Path) -> None:
    there = Ibm()
    with chaos(HANG) as oncall, chaos(there) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "ibm_monitoring", NEEDS)
        with before(tmp_path, *both, routes=ROUTE) as h:
            page(h)
            h.wait_for(lambda: len(there.held) == 1)
            end(h)
            h.wait_for(lambda: [one.get("enabled") for one in there.held.values()] == [False])


def test_what_the_fallback_made_is_found_though_an_update_came_before_anybody_looked(tmp_path: Path) -> None:
    """A create at the fallback whose answer was lost is looked for by its own content, not by that of a later update:
    the alert is found and not created twice."""
    there = Uptinio()
    there.then = [CLOSE]
    with chaos(HANG) as oncall, chaos(there) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "uptinio", first="300ms")
        with before(tmp_path, *both, routes=ROUTE) as h:
            page(h)
            h.wait_for(lambda: there.held)
            page(h, summary="Disk is fuller")
            [made] = there.held.values()
            h.wait_for(lambda: made["message"] == "Disk is fuller")
            assert [got.method for got in writes(sms)] == ["POST", "PUT"]


# --- whose fallback it is -------------------------------------------------------------------------------------


def test_it_is_the_fallback_of_its_own_route_alone(tmp_path: Path) -> None:
    """interface.md: `fallback` belongs to one route; it is used although an upstream of another route has taken the
    page."""
    routes = '[[routes]]\nto = ["log"]\ncontinue = true\n' + ROUTE
    with chaos(OK) as archive, chaos(HANG) as oncall, chaos(OK) as sms:
        log = table("log", archive.url, "ilert", "")
        with before(tmp_path, log, *tables(oncall, sms), routes=routes) as h:
            page(h)
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert words(archive) == ["ALERT"]


def test_an_upstream_that_two_routes_share_has_taken_it_for_both(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = ["oncall"]\ncontinue = true\n' + ROUTE
    with chaos(OK) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=routes) as h:
        page(h)
        h.wait_for(lambda: of(h, "sms") == [("create", "void")])
        assert sms.connections == 0


def test_a_fallback_of_two_routes_is_told_where_either_failed(tmp_path: Path) -> None:
    routes = ROUTE.replace("oncall", "log") + "continue = true\n" + ROUTE
    with chaos(OK) as archive, chaos(HANG) as oncall, chaos(OK) as sms:
        log = table("log", archive.url, "ilert", "")
        with before(tmp_path, log, *tables(oncall, sms), routes=routes) as h:
            page(h)
            h.wait_for(lambda: words(sms) == ["ALERT"])


WORSE = """
[[routes]]
when = ["severity <= 2"]
to = {to}
{fallback}
[[routes]]
to = ["log"]
fallback = {{ to = ["voice"], after = "600ms" }}
"""


APART = [
    '[[routes]]\nto = ["log"]\ncontinue = true\nfallback = { to = ["sms"], after = "2s" }\n',
    '[[routes]]\nto = ["oncall"]\ncontinue = true\nfallback = { to = ["sms"], after = "600ms" }\n',
]


@pytest.mark.parametrize(
    ("log", "oncall", "comes"),
    [(OK, HANG, 0.6), (HANG, OK, 2.0), (HANG, HANG, 0.6)],
    ids=["the sooner", "the later", "both"],
)
@pytest.mark.parametrize("routes", [APART, APART[::-1]], ids=["later first", "sooner first"])
def test_each_of_two_routes_has_its_fallback_in_its_own_time(
    tmp_path: Path, log: Behaviour, oncall: Behaviour, comes: float, routes: list[str]
) -> None:
    """A fallback shared by two routes follows each route's own `after`: an archive may be away for longer than whoever
    is on call."""
    with chaos(log) as archive, chaos(oncall) as there, chaos(OK) as sms:
        three = [table("log", archive.url, "ilert", ""), *tables(there, sms)]
        with before(tmp_path, *three, routes="".join(routes)) as h:
            began = time.monotonic()
            page(h)
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert comes <= sms.got[0].at - began < comes + 1.2
            end(h)
            h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])


def test_a_fallback_of_two_routes_is_not_told_where_the_later_one_is_taken_in_time(tmp_path: Path) -> None:
    with chaos(HANG) as archive, chaos(OK) as oncall, chaos(OK) as sms:
        three = [table("log", archive.url, "ilert", "", timeout="300ms"), *tables(oncall, sms)]
        with before(tmp_path, *three, routes="".join(APART)) as h:
            page(h)
            time.sleep(1.0)
            assert of(h, "sms") == [("create", "waiting")]
            archive.always(OK)
            h.wait_for(lambda: of(h, "sms") == [("create", "void")])
            assert sms.connections == 0


def test_an_update_that_makes_it_worse_brings_the_fallback_of_that_route(tmp_path: Path) -> None:
    """canonical.md: an update evaluates the routes again, and adds upstreams that are chosen now and were not
    before."""
    routes = WORSE.format(to='["oncall"]', fallback='fallback = { to = ["sms"], after = "600ms" }')
    with chaos(OK) as archive, chaos(HANG) as oncall, chaos(OK) as sms:
        more = [table(name, archive.url, "ilert", "") for name in ("log", "voice")]
        with before(tmp_path, *more, *tables(oncall, sms), routes=routes) as h:
            page(h, severity=4)
            h.wait_for(lambda: of(h, "voice") == [("create", "void")])
            began = time.monotonic()
            page(h, severity=1)
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert sms.got[0].at - began >= AFTER
            assert words(oncall)[0] == "ALERT"


def test_a_fallback_that_an_update_chooses_outright_is_told_at_once(tmp_path: Path) -> None:
    routes = WORSE.format(to='["voice"]', fallback="").replace("600ms", "1h")
    with chaos(OK) as archive, chaos(OK) as voice:
        both = table("log", archive.url, "ilert", ""), table("voice", voice.url, "ilert", "")
        with before(tmp_path, *both, routes=routes) as h:
            page(h, severity=4)
            settled(h)
            page(h, severity=1)
            h.wait_for(lambda: words(voice) == ["ALERT"])
            h.wait_for(lambda: of(h, "voice") == [("create", "void"), ("update", "delivered")])


def test_what_came_round_in_a_circle_is_not_sent_to_the_fallback_either(tmp_path: Path) -> None:
    """guarantees.md 25: an alert that comes back through a loop is not forwarded."""
    with chaos(OK) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        page(h)
        h.wait_for(lambda: oncall.got)
        via = {"alert-gateway-via": oncall.got[0].headers["alert-gateway-via"]}
        event = {"apiKey": KEY, "eventType": "ALERT", "summary": "s", "alertKey": "round"}
        assert h.call("POST", "/ilert/api/events", event, key=None, headers=via).status == 202
        h.wait_for(lambda: not [row for row in outbox(h) if row.state == "waiting"])
        assert of(h, "sms") == [("create", "void")] * 2
        assert "already passed through this gateway" in outbox(h)[-1].reason
        assert sms.connections == 0


# --- configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fallback", "problem"),
    [
        ('{ to = ["smss"], after = "2m" }', "routes[1].fallback.to: no upstream 'smss'; did you mean 'sms'?"),
        ('{ to = [], after = "2m" }', "routes[1].fallback.to: names no upstream"),
        ('{ after = "2m" }', "routes[1].fallback.to: is required"),
        ('{ to = ["sms"], after = "soon" }', "routes[1].fallback.after: "),
        ('{ to = ["sms"], afterwards = "2m" }', "routes[1].fallback.afterwards: unknown key; did you mean 'after'?"),
        ('{ to = ["oncall"] }', "routes[1].fallback.to: 'oncall' is already in this route's `to`"),
    ],
)
def test_a_mistake_is_named(fallback: str, problem: str) -> None:
    upstreams = "".join(table(name, "http://localhost", "ilert", "") for name in ("oncall", "sms"))
    text = f'[inbound.ilert]\nkeys = {{ ci = "a" }}\n{upstreams}[[routes]]\nto = ["oncall"]\nfallback = {fallback}\n'
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert any(one.startswith(problem) for one in caught.value.problems), caught.value.problems


# --- what is acknowledged meanwhile ----------------------------------------------------------------------------


def accept(h: House, key: str = "disk") -> None:
    """Acknowledges the alert."""
    event = {"apiKey": KEY, "eventType": "ACCEPT", "alertKey": key}
    assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


@pytest.mark.parametrize("trouble", [HANG, NO, say(503)], ids=lambda one: one.name)
def test_what_is_acknowledged_before_its_turn_is_so_at_the_fallback(tmp_path: Path, trouble: Behaviour) -> None:
    """The fallback is sent the acknowledgement after the page; otherwise it goes on looking for somebody."""
    with chaos(trouble) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        page(h)
        accept(h)
        h.wait_for(lambda: words(sms) == ["ALERT", "ACCEPT"])
        end(h)
        h.wait_for(lambda: words(sms) == ["ALERT", "ACCEPT", "RESOLVE"])
        stays(0.3, h, sms, ["ALERT", "ACCEPT", "RESOLVE"])


def test_what_is_acknowledged_and_taken_is_nothing_to_the_fallback(tmp_path: Path) -> None:
    route = ROUTE.replace("600ms", "1500ms")  # the primary takes each within that on a busy machine too
    with chaos(OK) as oncall, chaos(OK) as sms, before(tmp_path, *tables(oncall, sms), routes=route) as h:
        page(h)
        accept(h)
        h.wait_for(lambda: of(h, "sms") == [("create", "void"), ("acknowledge", "void")])
        page(h, "over")
        accept(h, "over")
        end(h, "over")
        h.wait_for(lambda: of(h, "sms")[2:] == [("create", "void"), ("acknowledge", "void")])
        assert sms.connections == 0
        assert rows_add_up(h)


# --- silences -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def silenceable(directory: Path, *tables: str, routes: str) -> Iterator[House]:
    """A gateway for an Alertmanager caller."""
    text = "\n".join([f'[inbound.alertmanager]\nkeys = {{ ci = "{KEY}" }}', *tables, routes])
    with house(directory, config=lambda _: text) as standing:
        yield standing


def silenced(h: House, name: str) -> str:
    """Creates a silence for alerts of this name, and returns its id."""
    matchers = [{"name": "alertname", "value": name, "isRegex": False}]
    body = {"startsAt": seconds(-1), "endsAt": seconds(60), "createdBy": "jane", "comment": "we know"}
    sent = h.call("POST", SILENCES, {"matchers": matchers, **body})
    assert sent.status == 200, sent.body
    return str(sent.body["silenceID"])


def test_what_goes_on_once_its_silence_is_over_goes_to_the_fallback_where_nobody_takes_it(tmp_path: Path) -> None:
    """The primary took the page before the silence, and is down when the alert is sent anew after it."""
    with chaos(OK) as oncall, chaos(OK) as sms, silenceable(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        posted(h, alert("Disk"))
        h.wait_for(lambda: of(h, "sms") == [("create", "void")])
        silence = silenced(h, "Disk")
        h.wait_for(lambda: words(oncall) == ["ALERT", "ACCEPT"])
        oncall.always(say(503))
        assert h.call("DELETE", f"/alertmanager/api/v2/silence/{silence}").status == 200
        posted(h, alert("Disk"))
        h.wait_for(lambda: words(sms) == ["ALERT"])
        posted(h, alert("Disk", endsAt=seconds(-1)))
        h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])


def test_what_is_silenced_before_its_turn_is_acknowledged_at_the_fallback(tmp_path: Path) -> None:
    """The fallback receives the silenced alert and its acknowledgement, as a recovered primary would, and the alert
    anew once the silence is over."""
    with chaos(say(503)) as oncall, chaos(OK) as sms, silenceable(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        posted(h, alert("Disk"))
        silence = silenced(h, "Disk")
        h.wait_for(lambda: words(sms) == ["ALERT", "ACCEPT"])
        assert h.call("DELETE", f"/alertmanager/api/v2/silence/{silence}").status == 200
        posted(h, alert("Disk"))
        h.wait_for(lambda: words(sms) == ["ALERT", "ACCEPT", "RESOLVE", "ALERT"])


def test_a_fallback_is_not_told_anew_where_somebody_is(tmp_path: Path) -> None:
    with chaos(OK) as oncall, chaos(OK) as sms, silenceable(tmp_path, *tables(oncall, sms), routes=ROUTE) as h:
        posted(h, alert("Disk"))
        h.wait_for(lambda: of(h, "sms") == [("create", "void")])
        silence = silenced(h, "Disk")
        h.wait_for(lambda: words(oncall) == ["ALERT", "ACCEPT"])
        assert h.call("DELETE", f"/alertmanager/api/v2/silence/{silence}").status == 200
        posted(h, alert("Disk"))
        h.wait_for(lambda: of(h, "sms") == [("create", "void")] * 2)
        assert words(oncall) == ["ALERT", "ACCEPT", "RESOLVE", "ALERT"]
        assert sms.connections == 0
