"""The page that a responder reads on a phone at three in the morning: for every vendor of occurrences with a long text,
what the documented samples of each other vendor become there, in one file per vendor. The files are prose: a change in
them is reviewed as prose, and told in the changelog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.canonical import Flat, Link
from gateway.mapping.page import MOST_LINES
from gateway.mapping.table import CARRIED
from gateway.mapping.translation import translate
from gateway.mapping.wire import get
from gateway.registry import dialects
from tests.conformance.samples import CREATES, NAMES, alert_of, asked, destination, saying
from tests.recorded import Recorder, plain

PAGED = tuple(name for name in NAMES if dialects()[name].kind == "occurrence" and dialects()[name].mapping.details)
HEAD = """# What a page says at {title}

Summary and text of each page as the responder sees it. Regenerated with `--record`, then read before it is committed.
"""
LATE = "Late by 37 minutes: this was sent at 2024-01-01T00:00:00Z."
PUBLIC = "https://alerts.example.com"
ELSEWHERE = "elsewhere"
"""The caller's dialect for an alert with everything that a page may have a line for."""
FULL: Flat = {
    "kind": "rule",
    "enabled": False,
    "summary": "Orders are not paid",
    "details": "The queue of payments has not moved since midnight.\nAsk Ada first.\n",
    "severity": 2,
    "status": "firing",
    "team": "payments",
    "resource": "queue\n  payments",
    "source": "broker-2.example.com",
    "labels": {"runbook_url": "https://runbooks.example.com/payments#stuck"},
    "links": (Link("https://graphs.example.com/d/7", "Payments"), Link("https://graphs.example.com/d/8")),
}


def _shown(target: str, body: Any) -> tuple[str, str]:
    """Returns summary and text of a page."""
    mapping = dialects()[target].mapping
    assert mapping.details
    return str(get(body, mapping.holder("summary"))), str(get(body, mapping.details))


def _page(target: str, flat: Flat, origin: str, public_url: str = "", **more: Any) -> tuple[str, str]:
    there = replace(destination(target), public_url=public_url)
    return _shown(target, plain(translate(saying(flat, origin, there, **more), there).body))


def _section(title: str, page: tuple[str, str]) -> str:
    summary, text = page
    block = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    return f"\n## {title}\n\n**{summary}**\n\n{block}\n"


def _sections(target: str) -> Iterator[str]:
    for origin, example in CREATES:
        if origin != target:
            flat = alert_of(dialects()[origin], asked(origin, example))
            yield _section(f"{dialects()[origin].title}: {example.name}", _page(target, flat, origin, id=7))
    yield _section(
        "Everything that a page may say, of a rule that is switched off, late",
        _page(target, FULL, ELSEWHERE, PUBLIC, id=7, late=LATE),
    )
    bare = {path: FULL[path] for path in ("summary", "status")}
    yield _section("Hardly anything, with a trace", _page(target, bare, ELSEWHERE, PUBLIC, id=7))


@pytest.mark.parametrize("target", PAGED)
def test_what_pages_say(target: str, recorder: Recorder) -> None:
    head = HEAD.format(title=dialects()[target].title)
    recorder.same_text(f"pages/{target}.md", head + "".join(_sections(target)))


@pytest.mark.parametrize("target", PAGED)
def test_a_page_keeps_its_order(target: str) -> None:
    """The order is that of canonical.md: the late note, the sender's text, at most six `name: value` lines, each on one
    line."""
    _, text = _page(target, FULL, ELSEWHERE, PUBLIC, id=7, late=LATE)
    own = FULL["details"]
    before, _, after = text.partition(own)
    assert before.startswith(f"{LATE}\n\n")
    lines = after.strip("\n").split("\n")
    assert 1 <= len(lines) <= MOST_LINES
    assert all(": " in line for line in lines)
    assert lines[-1].startswith(f"via: {ELSEWHERE}/ci, ")


@pytest.mark.parametrize("target", PAGED)
def test_the_summary_stays_the_senders(target: str) -> None:
    summary, _ = _page(target, FULL, ELSEWHERE, PUBLIC, id=7, late=LATE)
    assert summary == FULL["summary"]


@pytest.mark.parametrize("target", PAGED)
def test_what_wakes_nobody_is_neither_severe_nor_urgent(target: str) -> None:
    """FULL is a rule that is switched off, whatever its sender or a route says of it."""
    there, loud = destination(target), {"severity": 0, "urgency": "high"}
    for words in (saying({**FULL, **loud}, ELSEWHERE, there), saying(FULL, ELSEWHERE, there, replaced=loud)):
        told = there.mapping.meaning(translate(words, there).body)
        assert told["severity"] >= 5 and told.get("urgency", "low") == "low"


@pytest.mark.parametrize("target", PAGED)
def test_what_is_carried_comes_last(target: str) -> None:
    """In the vendor's free-form field the gateway's own part comes after the sender's."""
    mapping = dialects()[target].mapping
    if not mapping.container:
        pytest.skip("nothing can be carried there")
    flat = {**FULL, "custom": {"order": "7"}}
    held = get(
        translate(saying(flat, ELSEWHERE, destination(target), id=7), destination(target)).body, mapping.container
    )
    assert list(held)[-1] == CARRIED and "order" in held


@pytest.mark.parametrize("target", PAGED)
def test_a_page_leads_to_its_trace_only_where_there_is_an_address(target: str) -> None:
    _, without = _page(target, FULL, ELSEWHERE, id=7)
    _, with_it = _page(target, {"summary": "down", "status": "firing"}, ELSEWHERE, PUBLIC, id=7)
    assert "trace:" not in without
    assert f"trace: {PUBLIC}/-/alerts/7" in with_it.split("\n")


def test_there_are_no_pages_of_vendors_that_are_gone() -> None:
    from tests.recorded import GOLDEN

    assert {file.stem for file in (GOLDEN / "pages").iterdir()} == set(PAGED)
