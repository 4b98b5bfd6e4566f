"""One alert at several upstreams that do not agree: one refuses it, another takes it, a third is a fallback.
interface.md, *Reply* and `fallback`; canonical.md, *The road of a command*. In every case a command whose caller was
told success is not undone, a refused one leaves nothing that its caller cannot end, nobody is paged for what is over,
and no page is missed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.delivery import lanes
from tests.chaos_upstream import CLOSE, HANG, Behaviour, Got, chaos, say
from tests.engine.test_fallback import end, of, stays, words
from tests.engine.vendors import NO, OK, before, down, gated, inner, outbox, page, rows, settled, slow, table
from tests.harness import House, Sent

DELIVERED = 'reply = "delivered"'


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher polls the outbox often, as the tests' `after` is shorter than its usual interval."""
    monkeypatch.setattr(lanes, "POLL", 0.2)


@contextlib.contextmanager
def meanwhile(ask: Callable[[], Sent], gate: threading.Event) -> Iterator[list[Sent]]:
    """Sends a request that waits for its answer during the block; then opens the gate, and the answer is in the
    list."""
    answers: list[Sent] = []
    asking = threading.Thread(target=lambda: answers.append(ask()))
    asking.start()
    try:
        yield answers
    finally:
        gate.set()
        asking.join()


def refusing(word: str, gate: threading.Event) -> Callable[[Got], Behaviour]:
    """Takes all events but one kind, which it refuses once the gate opens."""
    return lambda got: gated(gate, NO) if got.body["eventType"] == word else OK


def put(h: House, made: dict[str, Any], **change: Any) -> Sent:
    """Changes an alert by Uptinio's `PUT`."""
    return h.call("PUT", f"/uptinio/alerts/{made['id']}", change)


def status(h: House, made: dict[str, Any]) -> str:
    """The status of an alert as its caller is told."""
    return str(inner(h.call("GET", f"/uptinio/alerts/{made['id']}"))["status"])


# --- what is taken back ---------------------------------------------------------------------------------------


def test_a_refused_page_that_somebody_said_again_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    """The repeat was told success, as a delivery was already waiting: so the refused page stays as a dead letter with
    its reason, and goes to the fallback."""
    gate = threading.Event()
    routes = '[[routes]]\nto = ["oncall"]\nfallback = { to = ["sms"], after = "2s" }\n'
    with chaos(gated(gate, NO)) as oncall, chaos(OK) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=routes, top=DELIVERED) as h:
            with meanwhile(lambda: page(h), gate) as first:
                h.wait_for(lambda: oncall.got)
                assert page(h).status == 202
            assert first[0].status == 400
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert of(h, "oncall")[0] == ("create", "dead")
            end(h)
            h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])


@pytest.mark.parametrize("change", [{"message": "worse"}, {"channels": ["email"]}])
def test_a_refused_end_is_taken_back_though_something_else_was_said_meanwhile(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    gate = threading.Event()
    with chaos(refusing("RESOLVE", gate)) as there, before(tmp_path, table("there", there.url, "ilert")) as h:
        made = inner(down(h))
        with meanwhile(lambda: put(h, made, status="resolved"), gate) as first:
            h.wait_for(lambda: "RESOLVE" in words(there))
            assert put(h, made, **change).status == 200
        assert first[0].status == 400
        assert status(h, made) == "active"
        there.always(OK)
        assert put(h, made, status="resolved").status == 200
        h.wait_for(lambda: words(there)[-1] == "RESOLVE" and words(there).count("RESOLVE") == 2)


def test_a_refused_end_that_somebody_asked_for_again_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    gate = threading.Event()
    with chaos(refusing("RESOLVE", gate)) as there, before(tmp_path, table("there", there.url, "ilert")) as h:
        made = inner(down(h))
        with meanwhile(lambda: put(h, made, status="resolved"), gate) as first:
            h.wait_for(lambda: "RESOLVE" in words(there))
            assert put(h, made, status="resolved").status == 200
        assert first[0].status == 400
        assert status(h, made) == "resolved"
        assert of(h, "there")[-1] == ("resolve", "dead"), "it says that it stands open there"


def test_a_refused_change_that_somebody_said_again_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    gate = threading.Event()
    there = lambda got: gated(gate, NO) if got.body["summary"] == "worse" else OK  # noqa: E731
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ilert")) as h:
        made = inner(down(h))
        with meanwhile(lambda: put(h, made, message="worse"), gate) as first:
            h.wait_for(lambda: len(upstream.got) == 2)
            assert put(h, made, message="worse").status == 200
        assert first[0].status == 400
        assert inner(h.call("GET", f"/uptinio/alerts/{made['id']}"))["message"] == "worse"
        assert of(h, "there")[1] == ("update", "dead")


@pytest.mark.parametrize("answers", [OK, slow(2.0, OK)], ids=["has taken it", "is being told"])
def test_a_page_that_the_fallback_gets_is_not_refused(tmp_path: Path, answers: Behaviour) -> None:
    """Where the fallback's turn comes before the primary refuses, the page is a success: somebody has it, and has to
    hear of its end."""
    routes = '[[routes]]\nto = ["oncall"]\nfallback = { to = ["sms"], after = "200ms" }\n'
    with chaos(slow(1.2, NO)) as oncall, chaos(answers) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "ilert", "", timeout="5s")
        with before(tmp_path, *both, routes=routes, top=DELIVERED) as h:
            asked = page(h)
            assert words(sms) == ["ALERT"]
            assert asked.status == 202
            assert any(line.startswith("oncall; dead=refused") for line in asked.report)
            oncall.always(OK)
            end(h)
            h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])


def test_a_merged_change_is_told_where_the_one_that_said_it_too_is_taken_back(tmp_path: Path) -> None:
    """A change whose caller was told success, as the primary took it, still reaches the other upstream where the newer
    change into which it was merged is undone."""
    first = {"is_up": False}

    def other(got: Got) -> Behaviour:
        if got.body["summary"] == "third":
            return NO
        return OK if first["is_up"] or got.body["summary"] == "first" else say(503)

    with chaos(lambda got: NO if got.body["summary"] == "third" else OK) as one, chaos(other) as two:
        tables = table("one", one.url, "ilert"), table("two", two.url, "ilert", first="300ms")
        with before(tmp_path, *tables, routes='[[routes]]\nto = ["one", "two"]\n') as h:
            made = inner(down(h, "first"))
            settled(h, count=2)
            assert put(h, made, message="second").status == 200
            h.wait_for(lambda: [got.body["summary"] for got in two.got] == ["first", "second"])
            assert put(h, made, message="third").status == 400
            first["is_up"] = True
            h.wait_for(lambda: [got.body["summary"] for got in two.got][-1] == "second" and len(two.got) > 3)
            h.wait_for(lambda: not outbox(h, "waiting"))
            assert of(h, "two")[-1] == ("update", "delivered")


def test_an_end_that_is_taken_back_leaves_the_fallback_its_turn(tmp_path: Path) -> None:
    """The answer to the page was lost and its retry refused; its resolve is refused and undone, and the fallback is
    still paged."""
    routes = '[[routes]]\nto = ["oncall"]\nfallback = { to = ["sms"], after = "1500ms" }\n'
    with chaos(NO) as oncall, chaos(OK) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=routes, top=DELIVERED) as h:
            oncall.plan(CLOSE)
            page(h)
            assert of(h, "oncall") == [("create", "dead")]
            assert page(h, eventType="RESOLVE").status == 400
            h.wait_for(lambda: words(sms) == ["ALERT"])


# --- upstreams that an update brings ---------------------------------------------------------------------------

ONE_SMS = """
[[routes]]
when = ["severity <= 2"]
to = ["oncall"]
fallback = { to = ["sms"], after = "600ms" }
[[routes]]
to = ["log"]
fallback = { to = ["sms"], after = "600ms" }
"""


def test_a_fallback_that_was_not_needed_is_that_of_an_upstream_that_an_update_adds(tmp_path: Path) -> None:
    """An update adds an upstream that does not answer, whose route has the same fallback as the one whose primary had
    taken the page."""
    with chaos(OK) as log, chaos(HANG) as oncall, chaos(OK) as sms:
        tables = [table(name, one.url, "ilert", "") for name, one in (("log", log), ("oncall", oncall), ("sms", sms))]
        with before(tmp_path, *tables, routes=ONE_SMS) as h:
            page(h, severity=4)
            h.wait_for(lambda: of(h, "sms") == [("create", "void")])
            began = time.monotonic()
            page(h, severity=1)
            h.wait_for(lambda: words(sms) == ["ALERT"])
            assert sms.got[0].at - began >= 0.6
            assert sms.got[0].body["severity"] == 1
            end(h)
            h.wait_for(lambda: words(sms) == ["ALERT", "RESOLVE"])


def test_a_fallback_that_stood_by_already_waits_as_long_for_what_an_update_adds(tmp_path: Path) -> None:
    routes = ONE_SMS.replace("600ms", "1500ms")
    with chaos(OK) as log, chaos(HANG) as oncall, chaos(OK) as sms:
        tables = [table(name, one.url, "ilert", "") for name, one in (("log", log), ("oncall", oncall), ("sms", sms))]
        with before(tmp_path, *tables, routes=routes) as h:
            page(h, severity=4)
            h.wait_for(lambda: of(h, "log") == [("create", "delivered")])
            time.sleep(1.0)
            began = time.monotonic()
            page(h, severity=1)
            h.wait_for(lambda: sms.got)
            assert sms.got[0].at - began >= 1.5
            stays(0.3, h, sms, ["ALERT"])


def test_an_update_that_was_taken_back_leaves_no_fallback(tmp_path: Path) -> None:
    """The upstreams and the fallback of its route are not told."""
    routes = """
    [[routes]]
    when = ["summary =~ 'big.*'"]
    to = ["there", "extra"]
    fallback = { to = ["sms"], after = "600ms" }
    [[routes]]
    to = ["there"]
    """
    with chaos(OK) as there, chaos(NO) as extra, chaos(OK) as sms:
        named = (("there", there), ("extra", extra), ("sms", sms))
        tables = [table(name, one.url, "ilert") for name, one in named]
        with before(tmp_path, *tables, routes=routes) as h:
            made = inner(down(h, "small"))
            there.always(NO)
            assert put(h, made, message="big").status == 400
            assert rows(h, "upstream", "targets") == ["there"]
            assert put(h, made, message="tiny").status in (200, 400)
            stays(1.0, h, sms, [])


# --- dead letters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_what_was_not_opened_again_is_not_when_it_is_over(tmp_path: Path, force: bool) -> None:
    """A dead reopening of an alert that has ended since is void: sending the dead letters again wakes nobody."""
    with chaos(OK) as one, chaos(OK) as two:
        tables = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with before(tmp_path, *tables, routes='[[routes]]\nto = ["one", "two"]\n') as h:
            made = inner(down(h))
            assert put(h, made, status="resolved").status == 200
            settled(h, count=4)
            two.always(NO)
            assert put(h, made, status="active").status == 200
            settled(h, "dead")
            two.always(OK)
            assert put(h, made, status="resolved").status == 200
            h.wait_for(lambda: not outbox(h, "waiting"))
            before_it = words(two)
            h.call("POST", "/-/retry", {"dead": True, "force": force, "who": "me"}, key=None)
            h.wait_for(lambda: not outbox(h, "waiting"))
            time.sleep(0.3)
            assert words(two)[len(before_it) :] == [], of(h, "two")
            assert not outbox(h, "dead")


def test_a_comment_leaves_the_dead_letter_of_a_page(tmp_path: Path) -> None:
    """A comment does not void the dead create of an open alert: canonical.md names acknowledging and ending only."""
    with chaos(NO) as one, chaos(OK) as two:
        tables = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with before(tmp_path, *tables, routes='[[routes]]\nto = ["one", "two"]\n') as h:
            page(h)
            settled(h, "dead")
            page(h, eventType="COMMENT", comment="looking")
            h.wait_for(lambda: words(two) == ["ALERT", "COMMENT"])
            h.wait_for(lambda: not outbox(h, "waiting"))
            assert of(h, "one") == [("create", "dead"), ("comment", "void")]
            end(h)
            h.wait_for(lambda: not outbox(h, "waiting"))
            assert of(h, "one")[0] == ("create", "void")


# --- what is counted instead of sent ----------------------------------------------------------------------------


def test_a_repeat_that_one_has_and_another_refuses_is_a_success(tmp_path: Path) -> None:
    """It is answered as the first was: one upstream has it, and the other has a dead letter."""
    with chaos(NO) as one, chaos(OK) as two:
        tables = table("one", one.url, "ilert"), table("two", two.url, "ilert")
        with before(tmp_path, *tables, routes='[[routes]]\nto = ["one", "two"]\n', top=DELIVERED) as h:
            assert page(h).status == 202
            again = page(h)
            assert again.status == 202, again.body
            assert any(line.startswith("one; dead=refused") for line in again.report)
