"""What the report says of a create whose answer was lost: whether it was found there, or sent again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos_upstream import NOT_JSON, RESET_AFTER, RESET_BEFORE, Behaviour, chaos, say
from tests.engine.vendors import OK, Ibm, Uptinio, Vendor, before, page, settled, table, writes
from tests.harness import House

FOUND = "the answer was lost; it was found there, and not sent again"
NOT_FOUND = "the answer was lost; it was not found there, and sent again"
AGAIN = "the answer was lost; it was sent again with the same key"


def doubts(h: House) -> list[str]:
    """What the stored report of the one delivery says about it."""
    [row] = settled(h)
    return [entry["why"] for entry in row.report if entry["why"].startswith("the answer was lost")]


VENDORS = pytest.mark.parametrize(("dialect", "vendor"), [("uptinio", Uptinio), ("ibm_monitoring", Ibm)])


@VENDORS
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


@VENDORS
def test_what_was_not_found_there_was_sent_again(tmp_path: Path, dialect: str, vendor: type[Vendor]) -> None:
    there = vendor()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        upstream.plan(say(504))
        page(h)
        assert doubts(h) == [NOT_FOUND]
        assert [got.method for got in upstream.got][:2] == ["POST", "GET"]
        assert len(there.held) == 1


def test_where_nothing_can_be_read_the_same_key_goes_out_again(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        upstream.plan(RESET_AFTER)
        page(h)
        assert doubts(h) == [AGAIN]
        assert [got.body["alertKey"] for got in upstream.got] == ["disk", "disk"]


def test_of_what_was_never_in_doubt_nothing_is_said(tmp_path: Path) -> None:
    """Neither of a create that was taken at once, nor of one that was put off."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        upstream.plan(say(429))
        page(h)
        assert doubts(h) == []
        assert len(upstream.got) == 2


def test_it_is_said_once(tmp_path: Path) -> None:
    """Doubts about a create are none about what comes after it."""
    with chaos(OK) as upstream, before(tmp_path, table("there", upstream.url, "ilert", "")) as h:
        upstream.plan(RESET_AFTER, RESET_BEFORE, RESET_AFTER)
        page(h)
        assert doubts(h) == [AGAIN]
        page(h, summary="Disk fuller")
        later = settled(h, count=2)[-1]
        assert "lost" not in str(later.report)
