"""Lists of Opsgenie as its callers page through them. https://docs.opsgenie.com/docs/pagination"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import msgspec
import pytest
from msgspec import UNSET

from gateway.asked import Answer, Incoming
from mappings.jsm_ops import words as jsm_ops
from mappings.opsgenie.lists import answer_many, search
from tests.clients.callers import fresh
from tests.engine.asking_opsgenie import ALERTS, about, create
from tests.engine.pairs import Houses
from tests.harness import House


@pytest.fixture(scope="module")
def h(fronts: Houses) -> House:
    """A gateway with ilert behind it."""
    return fronts("ilert")


@pytest.mark.parametrize("part", ["notes", "logs"])
def test_the_pages_of_an_alert_are_where_the_answer_says(h: House, part: str) -> None:
    """`paging.next` can be followed as it is, as clients do, also where the alert was named by an alias, which may hold
    any character."""
    alias = create(h, alias=fresh("db/1 disk?"), note="the first")
    for note in ("the second", "the third"):
        assert create(h, alias=alias, note=note) == alias
    found = about(h, "GET", quote(alias, safe=""), f"/{part}", limit="1")
    seen = [found.body["data"]]
    while further := found.body["paging"].get("next"):
        assert found.headers["x-paging-next"] == further
        found = h.call("GET", further.removeprefix(h.url))
        assert found.status == 200, found.body
        seen.append(found.body["data"])
    assert [len(page) for page in seen] == [1, 1, 1]
    assert h.call("GET", found.body["paging"]["first"].removeprefix(h.url)).body["data"] == seen[0]


@pytest.mark.parametrize("offset", ["²", "9" * 5000, "-1", "x"])
def test_an_offset_that_is_none_of_ours_is_the_beginning(h: House, offset: str) -> None:
    """Only the gateway issues offsets: an invalid one counts as none, even where Python takes it for a digit."""
    found = about(h, "GET", create(h, note="the first"), "/notes", offset=offset)
    assert found.status == 200, found.body
    assert [one["note"] for one in found.body["data"]] == ["the first"]


def test_a_list_says_in_headers_too_where_its_pages_are(h: House) -> None:
    """https://docs.opsgenie.com/docs/pagination: X-Paging-Next, X-Paging-First and X-Paging-Last."""
    for _ in range(2):
        create(h)
    listed = h.call("GET", f"{ALERTS}?limit=1&query=status:open")
    said = {name: listed.headers.get(f"x-paging-{name}") for name in ("next", "first", "last")}
    assert said == {name: listed.body["paging"][name] for name in said}


@pytest.mark.parametrize(("offset", "has_next"), [(19_900, True), (19_901, False)])
def test_no_link_leads_where_a_page_is_refused(offset: int, has_next: bool) -> None:
    """A client follows the links to the end, and an offset above 20,000 is refused."""
    query = {"limit": ["100"], "offset": [str(offset)]}
    here = Incoming(params={}, query=query, headers={"host": "gateway"}, body=UNSET, now=datetime.now(UTC))
    answer = Answer(total=50_000, listing=search(here), request=1 << 40)
    words: list[Any] = [worded.body for worded in (answer_many(answer), jsm_ops.answer_many(answer))]
    paging = words[0]["paging"]
    assert ("next" in paging) is ("next" in words[1]["links"]) is has_next
    for link in paging.values():
        offsets = parse_qs(urlsplit(link).query)["offset"]
        assert search(msgspec.structs.replace(here, query={"offset": offsets})).offset <= 20_000


def test_a_client_that_asks_for_more_than_a_page_gets_a_page(h: House) -> None:
    """`opsgenielib` and its command line ask for 2000, or 500, and follow `next` until they have that many."""
    for _ in range(101):
        create(h, tags=["many"])
    listed = h.call("GET", f"{ALERTS}?limit=2000&query=tag:many").body
    assert len(listed["data"]) == 100
    further = h.call("GET", listed["paging"]["next"].removeprefix(h.url)).body
    assert (len(further["data"]), "next" in further["paging"]) == (1, False)


def test_a_list_is_the_same_whether_all_are_asked_for_or_all_pass(h: House) -> None:
    """Without a query the store sorts and pages, and other alerts are not read; the result equals that of a query that
    all alerts pass."""
    for number in range(5):
        h.call("POST", ALERTS, {"message": f"m {number}", "alias": f"a {number}", "tags": ["plain"]})
    h.call("POST", f"{ALERTS}/a%201/close?identifierType=alias", {})
    for order in ("asc", "desc"):
        for page in ("limit=2", "limit=2&offset=2", "limit=2&offset=4", "limit=100", "offset=9"):
            asked = f"{ALERTS}?order={order}&{page}"
            plain, passing = h.call("GET", asked).body, h.call("GET", f"{asked}&query=createdAt%3E0").body
            assert plain["data"] == passing["data"]
            assert plain["paging"]["last"].split("offset=")[1] == passing["paging"]["last"].split("offset=")[1]
    opened = [h.call("GET", f"{ALERTS}?limit=7&query=status:open{more}").body["data"] for more in ("", "+createdAt>0")]
    assert opened[0] == opened[1]
    found = h.call("GET", f"{ALERTS}?query=status:open+tag:plain").body["data"]
    assert [one["alias"] for one in found] == ["a 4", "a 3", "a 2", "a 0"]
    counts = [h.call("GET", f"{ALERTS}/count{query}").body["data"] for query in ("", "?query=createdAt%3E0")]
    assert counts[0] == counts[1] and counts[0]["count"] >= 5


def test_a_list_is_sorted_as_the_go_sdk_misspells_it(h: House) -> None:
    create(h)
    for word in ("lastOccuredAt", "lastOccurredAt"):
        assert h.call("GET", f"{ALERTS}?sort={word}").body["paging"]["first"].count("sort=lastOccurredAt") == 1
