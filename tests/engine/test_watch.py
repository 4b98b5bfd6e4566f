"""Alarms about the gateway's own trouble, through an upstream that works. guarantees.md 29. The watch is real; only its
intervals are short."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.admin import operating
from gateway.registry import dialects
from gateway.road import requeue
from gateway.store.sqlite import SqliteTx
from gateway.watch import watch
from gateway.watch.trouble import Trouble
from mappings.alertmanager import calls
from tests.chaos_upstream import HANG, RESET_AFTER, Chaos, Got, chaos, say
from tests.engine.vendors import NO, OK, Uptinio, count, page, rows, table
from tests.harness import KEY, House, house, inbound_tables, upstream_table

NAMES = tuple(dialects())
SECRET = "ping-4711-canary"
INBOUND = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
pytestmark = pytest.mark.usefixtures("_often_watched")


@contextlib.contextmanager
def watched(directory: Path, *tables: str, top: str = "", to: str = '["oncall"]') -> Iterator[House]:
    """A gateway whose alerts go to `to`."""
    text = "\n".join([INBOUND, *tables, f"[[routes]]\nto = {to}\n"])
    with house(directory, config=lambda _: text, top=top) as h:
        yield h


def heartbeat(url: str, stall: str = "1s") -> str:
    """`[heartbeat]` at a chaos upstream, twenty times a second."""
    return f'[heartbeat]\nurl = "{url}/ping/{SECRET}"\nevery = "50ms"\nstall = "{stall}"\n'


# --- alarms ----------------------------------------------------------------------------------------------------

ALARMS = '[alarms]\nto = ["oncall", "other"]\n'


class Heard:
    """An upstream that works, and the alarms it received: key and event, in order, and the last event."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.last: dict[str, Any] = {}

    def __call__(self, got: Got) -> Any:
        key = got.body["alertKey"] or ""
        if key.startswith("alert-gateway/"):
            self.said.append((key, got.body["eventType"]))
            self.last = got.body
        return OK


@contextlib.contextmanager
def two(
    directory: Path, answer: Any, *, stall: str = "30s", top: str = "", alarms: str = ALARMS
) -> Iterator[tuple[House, Chaos, Heard]]:
    """A gateway with a failing upstream, to which all alerts go, and one that works."""
    heard = Heard()
    with chaos(answer) as bad, chaos(heard) as good, chaos(OK) as pings:
        tables = [table("oncall", bad.url, "ilert"), table("other", good.url, "ilert")]
        with watched(directory, *tables, heartbeat(pings.url, stall), alarms, top=top) as h:
            yield h, bad, heard


def is_told(h: House, heard: Heard, code: str, *words: str) -> None:
    """Waits until the alarm was sent with exactly these events, and after further looks there are no others."""
    key = f"alert-gateway/{code}"
    h.wait_for(lambda: [word for one, word in heard.said if one == key] == list(words), 10)
    looks(h, 4)
    assert [word for one, word in heard.said if one == key] == list(words)


def looks(h: House, times: int) -> None:
    """Waits until the watch has looked `times` more times."""
    watching = h.gateway.watch
    assert watching is not None
    seen: list[int] = []
    real = watching.troubles

    async def counted() -> Any:
        seen.append(1)
        return await real()

    watching.troubles = counted  # type: ignore[method-assign]
    h.wait_for(lambda: len(seen) >= times, 10)
    watching.troubles = real  # type: ignore[method-assign]


def test_an_upstream_that_refuses_our_key(tmp_path: Path) -> None:
    with two(tmp_path, say(401, {"message": "no"})) as (h, bad, heard):
        page(h)
        is_told(h, heard, "upstream-held/oncall", "ALERT")
        assert heard.last["details"].startswith("See upstream-held in the runbook,"), "who is woken knows where to look"
        assert (heard.last["priority"], heard.last["severity"]) == ("HIGH", 1), "and is woken"
        bad.always(OK)
        is_told(h, heard, "upstream-held/oncall", "ALERT", "RESOLVE")
    assert all("alert-gateway/" not in (got.body["alertKey"] or "") for got in bad.got), "told to the one in trouble"


@pytest.mark.parametrize("code", ["upstream-held", "store-unavailable"])
def test_a_key_that_is_refused_for_a_moment_is_no_alarm(code: str, tmp_path: Path) -> None:
    """During a rotation the new key often arrives here a moment later than at the vendor: what waited then goes out,
    and nobody is paged. The same holds for a database's password."""
    with two(tmp_path, OK) as (h, _, heard):
        watching = h.gateway.watch
        assert watching is not None
        held = Trouble(code, "oncall", "it refuses the gateway's key")
        found = [[held], [held], [], [held], [held], [], [held], [held]]
        seen: list[Any] = []

        async def looks() -> Any:
            seen.append(1)
            return found[len(seen) - 1] if len(seen) <= len(found) else []

        watching.troubles = looks  # type: ignore[method-assign]
        h.wait_for(lambda: len(seen) > len(found) + 3)
        assert heard.said == []
        found += [[]] * (len(seen) - len(found) + 3) + [[held]] * 3
        h.wait_for(lambda: len(seen) > len(found) + 5)
        assert [word for key, word in heard.said if key == held.key] == ["ALERT", "RESOLVE"]


def test_trouble_that_comes_and_goes_is_one_alarm(tmp_path: Path) -> None:
    """It is over after looks in a row that find none, not after as many in all."""
    with two(tmp_path, OK) as (h, _, heard):
        watching = h.gateway.watch
        assert watching is not None
        found = Trouble("dead-letters", "oncall", "there are some")
        seen: list[int] = []

        async def every_other_time() -> Any:
            seen.append(1)
            return [found] if len(seen) % 2 else []

        watching.troubles = every_other_time  # type: ignore[method-assign]
        h.wait_for(lambda: len(seen) > 10)
        assert heard.said == [(found.key, "ALERT")]


def test_one_of_several_keys_that_an_upstream_refuses(tmp_path: Path) -> None:
    """The upstream as such is fine, but deliveries that use that key wait."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ci").write_text("mistyped")
    heard = Heard()
    with chaos(say(401, {"message": "no"})) as bad, chaos(heard) as good:
        one_key, other = table("oncall", bad.url, "ilert"), table("other", good.url, "ilert")
        keys = re.sub("key = .*", f'key = {{ by = "caller", dir = "{tmp_path}/keys" }}', one_key)
        with watched(tmp_path, keys, other, '[alarms]\nto = ["other"]\n') as h:
            page(h)
            is_told(h, heard, "upstream-held/oncall", "ALERT")
            following_keys = h.gateway.config.upstreams["oncall"].keys
            assert following_keys and following_keys.directory
            following_keys.directory.look_every = 0.0
            (tmp_path / "keys" / "ci").write_text("right")
            is_told(h, heard, "upstream-held/oncall", "ALERT", "RESOLVE")


def test_something_that_waits_too_long(tmp_path: Path) -> None:
    with two(tmp_path, say(503), stall="300ms") as (h, bad, heard):
        page(h)
        is_told(h, heard, "upstream-stalled/oncall", "ALERT")
        bad.always(OK)
        is_told(h, heard, "upstream-stalled/oncall", "ALERT", "RESOLVE")


def test_dead_letters(tmp_path: Path) -> None:
    """Raised when there is a dead letter, cleared when the last one has been dealt with."""
    with two(tmp_path, NO) as (h, bad, heard):
        page(h)
        is_told(h, heard, "dead-letters/oncall", "ALERT")
        page(h, "other")
        is_told(h, heard, "dead-letters/oncall", "ALERT")
        bad.always(OK)

        def again(tx: Any) -> Any:
            return requeue.send_again(tx, operating.chosen(tx, (), dead=True, upstream=None), 0, force=True)

        beside(h, again)
        is_told(h, heard, "dead-letters/oncall", "ALERT", "RESOLVE")


def test_dead_letters_of_an_upstream_that_was_taken_out_are_no_trouble(tmp_path: Path) -> None:
    """Nothing is sent there any more, whoever is woken."""
    with two(tmp_path, NO) as (h, _, heard):
        page(h)
        is_told(h, heard, "dead-letters/oncall", "ALERT")
    heard = Heard()
    with chaos(heard) as good:
        tables = table("other", good.url, "ilert"), '[alarms]\nto = ["other"]\n'
        with watched(tmp_path, *tables, to='["other"]') as h:
            is_told(h, heard, "dead-letters/oncall", "RESOLVE")


def test_an_alarm_goes_to_no_upstream_that_is_in_trouble_itself(tmp_path: Path) -> None:
    """Each look would cost a call there that fails, and the alarm would come that much later."""
    heard = Heard()
    with chaos(OK) as bad, chaos(say(401, {"message": "no"})) as held, chaos(heard) as good:
        upstreams = ("oncall", bad), ("held", held), ("other", good)
        tables = [table(name, one.url, "ilert") for name, one in upstreams]
        alarms = '[alarms]\nto = ["held", "other"]\n'
        with watched(tmp_path, *tables, alarms, to='["oncall", "held"]') as h:
            page(h)
            is_told(h, heard, "upstream-held/held", "ALERT")
            bad.always(NO)
            page(h, "other")
            is_told(h, heard, "dead-letters/oncall", "ALERT")
            assert {got.body["alertKey"] for got in held.got} <= {"disk", "other"}


def test_an_alarm_is_cleared_after_a_restart(tmp_path: Path) -> None:
    with two(tmp_path, say(401, {"message": "no"})) as (h, _, heard):
        page(h)
        is_told(h, heard, "upstream-held/oncall", "ALERT")
    with two(tmp_path, OK) as (h, _, heard):
        is_told(h, heard, "upstream-held/oncall", "RESOLVE")


def test_an_alarm_is_cleared_also_where_nobody_is_to_be_told_any_more(tmp_path: Path) -> None:
    """With `alarms` taken out of the file nothing is raised, as of the dead letter here; but what was raised before
    would stay open for good."""
    with two(tmp_path, say(401, {"message": "no"})) as (h, _, heard):
        page(h)
        is_told(h, heard, "upstream-held/oncall", "ALERT")
    with two(tmp_path, NO, alarms="") as (h, _, heard):
        h.wait_for(lambda: heard.said)
        assert heard.said == [("alert-gateway/upstream-held/oncall", "RESOLVE")]
        assert rows(h, "state", "deliveries") == ["dead"]


def test_an_alarm_is_not_raised_again_after_a_restart(tmp_path: Path) -> None:
    with two(tmp_path, NO) as (h, _, heard):
        page(h)
        is_told(h, heard, "dead-letters/oncall", "ALERT")
    with two(tmp_path, NO) as (h, _, heard):
        is_told(h, heard, "dead-letters/oncall")


@pytest.mark.parametrize("is_back", [False, True])
def test_an_alarm_that_could_not_be_kept_is_ended_after_a_restart(is_back: bool, tmp_path: Path) -> None:
    """An alarm about the store itself cannot be recorded: without this it would stay open, and the next one page
    nobody."""
    there = '[alarms]\nto = ["other"]\n'
    with two(tmp_path, OK, alarms=there) as (h, _, heard):
        looks(h, 3)
        store: Any = h.gateway.store
        store._writer.pragma("query_only", 1)
        is_told(h, heard, "store-unavailable", "ALERT")
        if is_back:
            assert h.gateway.watch
            h.gateway.watch.calm = 4000  # it stops before the alarm is over
            store._writer.pragma("query_only", 0)
            looks(h, 4)
    with two(tmp_path, OK, alarms=there) as (h, _, heard):
        is_told(h, heard, "store-unavailable", "RESOLVE")
        is_told(h, heard, "store-full", "RESOLVE")
    with two(tmp_path, OK, alarms=there) as (h, _, heard):
        looks(h, 6)
        assert not heard.said, "there is nothing to end where one ended as it should"


def test_the_end_of_what_could_not_be_kept_is_told_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SAID_EVERY", 0.1)
    there = '[alarms]\nto = ["other"]\n'
    with two(tmp_path, OK, alarms=there) as (h, _, heard):
        looks(h, 3)
        store: Any = h.gateway.store
        store._writer.pragma("query_only", 1)
        is_told(h, heard, "store-unavailable", "ALERT")
    heard = Heard()
    with chaos(say(503)) as good:
        tables = table("other", good.url, "ilert"), there
        with watched(tmp_path, *tables, to='["other"]') as h:
            h.wait_for(lambda: len(good.got) >= 2)
            good.answer = heard
            is_told(h, heard, "store-unavailable", "RESOLVE")


def test_an_alarm_that_could_not_be_kept_is_found_where_alerts_have_ids(tmp_path: Path) -> None:
    vendor = Uptinio()
    with chaos(OK) as fine, chaos(vendor) as there:
        tables = [table("oncall", fine.url, "ilert"), table("there", there.url, "uptinio")]
        for _ in range(2):
            with watched(tmp_path, *tables, '[alarms]\nto = ["there"]\n') as h:
                h.wait_for(lambda: not [a for a in vendor.held.values() if a["status"] != "resolved"])
                looks(h, 3)
                store: Any = h.gateway.store
                store._writer.pragma("query_only", 1)
                h.wait_for(lambda: raised_alarms(h))
        assert [a["status"] for a in vendor.held.values()][:-1] == ["resolved"]


def test_an_alarm_that_nobody_takes_is_told_as_soon_as_somebody_does(tmp_path: Path) -> None:
    """The only other upstream fails too: the alarm is late, not lost."""
    with chaos(NO) as bad, chaos(say(503)) as other:
        tables = [table("oncall", bad.url, "ilert"), table("other", other.url, "ilert")]
        with watched(tmp_path, *tables, ALARMS) as h:
            page(h)
            h.wait_for(lambda: len(other.got) >= 2)
            heard = Heard()
            other.answer = heard
            is_told(h, heard, "dead-letters/oncall", "ALERT")


@pytest.mark.parametrize("may_read", [True, False])
def test_an_alarm_whose_answer_is_lost_is_not_told_again_and_again(may_read: bool, tmp_path: Path) -> None:
    """At a vendor that does not deduplicate by our key each repeat would be another page, and all but the last stay
    open."""
    vendor = Uptinio()

    def answer(got: Got) -> Any:
        if got.method != "GET":
            vendor.then = [HANG]
        return say(403) if got.method == "GET" and not may_read else vendor(got)

    with chaos(NO) as bad, chaos(answer) as good:
        there = table("there", good.url, "uptinio", timeout="300ms")
        with watched(tmp_path, table("oncall", bad.url, "ilert"), there, '[alarms]\nto = ["there"]\n') as h:
            page(h)
            h.wait_for(lambda: vendor.held)
            if not may_read:  # nobody can tell whether it is there: repeated, ever more rarely
                time.sleep(3)
                assert 1 < len(vendor.held) <= 5
                return
            h.wait_for(lambda: raised_alarms(h))
            assert [one.ids["id"] for one in raised_alarms(h).values()] == list(vendor.held)
            good.answer = vendor
            vendor.then.clear()
            drop(h)
            h.wait_for(lambda: not raised_alarms(h), 10)
            assert len(vendor.held) == 1


@pytest.mark.parametrize("dialect", ["ilert", "uptinio"])
def test_an_alarm_whose_answer_is_lost_is_ended_where_its_trouble_has_passed(dialect: str, tmp_path: Path) -> None:
    """It would stay open, and the next one with its key be no news there. Ending it may fail at first, too."""
    heard, vendor = Heard(), Uptinio()
    takes: Any = vendor if dialect == "uptinio" else heard
    lost: list[str] = []

    def answer(got: Got) -> Any:
        said = takes(got)
        if got.method == "GET" or len(lost) == 2:
            return said
        lost.append(got.method)
        return RESET_AFTER if len(lost) == 1 else say(503)

    with chaos(NO) as bad, chaos(answer) as good:
        tables = table("oncall", bad.url, "ilert"), table("there", good.url, dialect)
        with watched(tmp_path, *tables, '[alarms]\nto = ["there"]\n') as h:
            watching = h.gateway.watch
            assert watching is not None
            watching._teller._first_pause = lambda: 0.5  # so that the trouble passes before
            page(h)
            h.wait_for(lambda: lost)
            drop(h)
            if dialect == "ilert":
                told = ["ALERT", "RESOLVE", "RESOLVE"]
                h.wait_for(lambda: [word for _, word in heard.said] == told)
            else:
                h.wait_for(lambda: [alert["status"] for alert in vendor.held.values()] == ["resolved"])
            h.wait_for(lambda: not watching._teller.doubts)
            assert not raised_alarms(h)


# --- in every vendor's words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", NAMES)
def test_every_dialect_can_take_an_alarm(dialect: str, tmp_path: Path) -> None:
    """Raised and cleared at a stand-in for the vendor, as strict as the vendor."""
    with chaos(NO) as bad:

        def config(sandbox: str) -> str:
            there = upstream_table("there", dialect, sandbox)
            route = '[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["there"]\n'
            return "\n".join([inbound_tables(), table("oncall", bad.url, "ilert"), there, route])

        with house(tmp_path, config=config) as h:
            page(h)
            [raised] = h.arrives(dialect, 1)
            assert "dead letters for oncall" in str(raised.body)
            h.wait_for(lambda: raised_alarms(h))  # some vendors take a while to confirm
            drop(h)
            h.wait_for(lambda: not raised_alarms(h), 10)
            assert len(h.arrived(dialect)) == 2, [one.body for one in h.arrived(dialect)]


def test_an_alarm_is_over_also_where_no_call_ends_it(tmp_path: Path) -> None:
    """A chat room is told of trouble, and of the next one, and not of its end."""
    room = '[dialects.chat]\nauth = "none"\nfields = { summary = { at = "text", required = true } }\n'
    alarms = '[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["there"]\n'
    with chaos(NO) as bad, chaos(OK) as there:
        tables = table("oncall", bad.url, "ilert"), f'[upstreams.there]\ndialect = "chat"\nurl = "{there.url}"\n'
        with watched(tmp_path, room, *tables, alarms) as h:
            for number, key in enumerate(("one", "other"), 1):
                page(h, key)
                h.wait_for(lambda: raised_alarms(h), 10)
                drop(h)
                h.wait_for(lambda: not raised_alarms(h), 10)
                assert len(there.got) == number


def test_an_upstream_that_forgets_is_told_again_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alertmanager ends an alarm that is not repeated: it is repeated unchanged, in time and no sooner, and ended
    once."""
    with chaos(NO) as bad, chaos(say(200, {})) as there:
        alarms = '[[routes]]\nto = ["oncall"]\n[alarms]\nto = ["there"]\n'
        tables = [table("oncall", bad.url, "ilert"), table("there", there.url, "alertmanager")]
        with watched(tmp_path, *tables, alarms) as h:
            page(h)
            h.wait_for(lambda: raised_alarms(h))
            looks(h, 4)
            assert len(there.got) == 1
            monkeypatch.setattr(calls, "RENEWED_AFTER", 0.05)
            next(iter(raised_alarms(h).values())).renew_at = h.gateway.now()
            h.wait_for(lambda: len(there.got) >= 3)
            drop(h)
            h.wait_for(lambda: not raised_alarms(h), 10)
            told = [one.body[0] for one in list(there.got)]
            assert len({str(one["labels"]) for one in told}) == 1
            assert told[-1]["endsAt"] < told[-2]["endsAt"], "the last one says that it is over"


def beside(h: House, work: Any) -> None:
    """Works in the store as the command line does, over a connection of its own."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        connection.set_busy_timeout(5000)
        connection.execute("BEGIN IMMEDIATE")
        work(SqliteTx(connection))
        connection.execute("COMMIT")


def drop(h: House) -> None:
    """Drops the dead letters, as an operator does."""

    def work(tx: Any) -> Any:
        return requeue.drop(tx, operating.chosen(tx, (), dead=True, upstream=None), "seen", 1)

    beside(h, work)


def raised_alarms(h: House) -> Any:
    """The alarms that are raised now."""
    assert h.gateway.watch is not None
    return h.gateway.watch._raised


def test_an_alarm_that_somebody_deleted_there_is_over(tmp_path: Path) -> None:
    vendor = Uptinio()
    with chaos(NO) as bad, chaos(vendor) as good:
        tables = [table("oncall", bad.url, "ilert"), table("there", good.url, "uptinio")]
        with watched(tmp_path, *tables, '[alarms]\nto = ["there"]\n') as h:
            page(h)
            h.wait_for(lambda: vendor.held)
            vendor.held.clear()
            good.always(say(404, {"error": {"code": "alert_not_found"}}))
            drop(h)
            h.wait_for(lambda: not raised_alarms(h))
            assert count(h, "deliveries") == 1
