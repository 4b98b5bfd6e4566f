"""What the report says about a create whose answer was lost: whether it was found at the upstream, or sent again."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gateway.delivery import breaker, looking
from gateway.road import needed
from tests.chaos_upstream import HANG, NOT_JSON, RESET_AFTER, RESET_BEFORE, Behaviour, Got, chaos, say
from tests.clients.callers import uptinio_alert
from tests.engine.vendors import (
    BY_ID,
    OK,
    Uptinio,
    Vendor,
    ago,
    before,
    down,
    outbox,
    page,
    rows,
    settled,
    table,
    writes,
)
from tests.harness import House

FOUND = "the alert may have been made before: it was found there and not sent again"
NOT_FOUND = "the alert may have been made before: it was not found there and was sent"
AGAIN = "the alert may have been made before: it was sent with the same key"


def doubts(h: House) -> list[str]:
    """What the stored report of the one delivery says about the lost answer."""
    [row] = settled(h)
    return [entry["why"] for entry in row.fates if entry["why"].startswith("the alert may have been made before")]


@BY_ID
@pytest.mark.parametrize("lost", [RESET_AFTER, say(504), NOT_JSON], ids=lambda one: one.name)
def test_what_was_found_there_was_not_sent_again(
    tmp_path: Path, dialect: str, vendor: type[Vendor], lost: Behaviour
) -> None:
    """canonical.md, *Ambiguous creates*, where the target can be read."""
    there = vendor()
    there.then = [lost]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        page(h)
        assert doubts(h) == [FOUND]
        assert len(writes(upstream)) == len(there.held) == 1


@BY_ID
def test_what_was_not_found_there_was_sent_again(tmp_path: Path, dialect: str, vendor: type[Vendor]) -> None:
    there = vendor()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        upstream.plan(say(504))
        page(h)
        assert doubts(h) == [NOT_FOUND]
        assert [got.method for got in upstream.got][:2] == ["POST", "GET"]
        assert len(there.held) == 1


class _Late(Uptinio):
    """Comes to the first alert that it is sent only after it was first asked for a list."""

    late: Got | None = None
    is_asked = False

    def __call__(self, got: Got) -> Behaviour:
        """Carries out a request, the first one later."""
        if got.method == "POST" and not self.is_asked:
            self.late = got
            return HANG
        answer = super().__call__(got)
        if self.late and not self.is_asked:
            self.is_asked = True
            super().__call__(self.late)
        return answer


def test_what_comes_to_be_there_after_the_first_look_is_not_sent_again(tmp_path: Path) -> None:
    """As at an upstream that stands still for longer than anybody waits, and then answers everything at once."""
    there = _Late()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio", timeout="300ms")) as h:
        page(h)
        assert doubts(h) == [FOUND]
        assert [got.method for got in upstream.got] == ["POST", "GET", "GET"]


def test_what_has_other_words_is_somebody_elses(tmp_path: Path) -> None:
    """It was made just now, and is alike but for its message: to take it for ours would lose the alert."""
    theirs = {**uptinio_alert("theirs"), "type": "down", "id": "alt_9", "status": "active", "created_at": ago(0)}
    there = Uptinio(theirs)
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        upstream.plan(say(504))
        down(h, "mine", monitor_id=theirs["monitor_id"])
        assert doubts(h) == [NOT_FOUND]
        assert sorted(one["message"] for one in there.held.values()) == ["mine", "theirs"]


def test_where_nothing_can_be_read_the_same_key_goes_out_again(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        upstream.plan(RESET_AFTER)
        page(h)
        assert doubts(h) == [AGAIN]
        assert [got.body["alertKey"] for got in upstream.got] == ["disk", "disk"]


def test_of_what_was_never_in_doubt_nothing_is_said(tmp_path: Path) -> None:
    """The report has no such line for a create that was accepted at once, nor for one that was put off."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        upstream.plan(say(429))
        page(h)
        assert doubts(h) == []
        assert len(upstream.got) == 2


def test_it_is_said_once(tmp_path: Path) -> None:
    """The report of a later delivery does not repeat the doubt about the create."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        upstream.plan(RESET_AFTER, RESET_BEFORE, RESET_AFTER)
        page(h)
        assert doubts(h) == [AGAIN]
        page(h, summary="Disk fuller")
        later = settled(h, count=2)[-1]
        assert "lost" not in str(later.fates)


class Unread(Uptinio):
    """An Uptinio whose next lists are answered with `reads`."""

    def __init__(self, *reads: Behaviour) -> None:
        super().__init__()
        self.reads = list(reads)

    def _read(self, number: str) -> Behaviour:
        return self.reads.pop(0) if self.reads and number == "alerts" else super()._read(number)


NO_LIST = Behaviour("a list cut short", say(200, {"data": None}).act)


@pytest.mark.parametrize(
    ("lost", "read"),
    [
        (say(504), say(503)),
        (say(504), NOT_JSON),
        (say(504), NO_LIST),
        (NOT_JSON, say(503)),
        (NOT_JSON, say(401)),
        (NOT_JSON, NO_LIST),
    ],
    ids=lambda one: one.name,
)
def test_where_nobody_could_look_nothing_is_made_twice(tmp_path: Path, lost: Behaviour, read: Behaviour) -> None:
    """A list that cannot be read proves nothing, so a create whose answer gave no id stays in doubt, and is not sent
    again yet."""
    there = Unread(read)
    there.then = [lost]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h)
        assert doubts(h) == [FOUND]
        assert len(there.held) == 1, [got.method for got in upstream.got]


def test_what_nobody_can_look_for_is_sent_again_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create that cannot be looked for is sent again after a while, so that the page is not kept back, and the report
    says so."""
    monkeypatch.setattr(looking, "LONGEST_IN_DOUBT_MS", 300)
    there = Unread(*[NO_LIST] * 1000)
    there.then = [say(504)]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h)
        assert doubts(h) == ["the alert may have been made before: it could not be looked up and was sent"]
        assert len(there.held) == 2
        assert len(there.reads) < 999, "it was asked for more than once"


def test_a_list_that_goes_on_does_not_show_that_nothing_is_there(tmp_path: Path) -> None:
    """Of an endless list a hundred pages are read; what is not on them is not taken for absent."""
    there = Uptinio()
    numbers = itertools.count()

    def endless(got: Got) -> Behaviour:
        if got.method != "GET":
            return there(got)
        listed = [
            {**uptinio_alert("another"), "id": f"alt_x{next(numbers)}", "status": "active", "created_at": ago(60)}
        ]
        return say(200, {"data": listed, "meta": {"total": 100_000}})

    there.then = [say(504)]
    with chaos(endless) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h)
        assert doubts(h) == ["the alert may have been made before: it could not be looked up and was sent"]


@pytest.mark.parametrize("is_made", [False, True])
def test_what_was_over_before_it_was_looked_for_wakes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    """If it is found there it is ended; if it is not, it is too late to make it."""
    monkeypatch.setattr(needed, "FOLDED_AFTER_MS", 0)
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(breaker, pause, 0.05)
    there, is_over = Uptinio(), False

    def answer(got: Got) -> Behaviour:
        if is_over or (is_made and got.method == "POST" and not there.held):
            said = there(got)
        return said if is_over else RESET_AFTER

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h)
        h.wait_for(lambda: rows(h, "attempts", "deliveries") > [0])
        page(h, eventType="RESOLVE")
        before_it = len(upstream.got)
        h.wait_for(
            lambda: len(upstream.got) > before_it + 1
        )  # so that no attempt goes on that was begun before the end
        upstream.got.clear()
        is_over = True
        h.wait_for(lambda: not outbox(h, "waiting"))
        assert [got.method for got in writes(upstream)] == (["PUT"] if is_made else [])
        assert [row.state for row in outbox(h)] == (["delivered"] if is_made else ["void"]) * 2
        assert len(there.held) == is_made
