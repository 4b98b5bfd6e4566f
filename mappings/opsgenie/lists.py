"""Opsgenie's lookups and their answers: alerts, their notes and logs, and the state of a request.

Source: https://docs.opsgenie.com/docs/alert-api#list-alerts for paging; a list is filtered and sorted by each alert as
the vendor would show it. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from gateway.asked import Answer, Chosen, Incoming, Inquiry, Listing, Read, Reply, Shown, Told
from gateway.asking import address, one, whole_number
from gateway.canonical import Operation
from gateway.errors import Problem, ProblemKind, invalid
from gateway.mapping.values import from_millis, iso
from gateway.outcome import Json
from mappings.opsgenie import query
from mappings.opsgenie.asked import ACTED, ref
from mappings.opsgenie.words import answered, as_shown, now_of, number_of, outcome

LONGEST_PAGE = 100
"""Most entries on a page: https://docs.opsgenie.com/docs/pagination"""
MOST_SKIPPED = 20_000
"""The highest offset of a page."""
LONGEST_NUMBER = 20
"""In digits; the number of every entry is shorter."""

# --- questions ---------------------------------------------------------------------------------------------


def get(incoming: Incoming) -> Read:
    """Reads a request for one alert."""
    return Read(ref=ref(incoming))


def entries(incoming: Incoming) -> Read:
    """Reads a request for a page of an alert's notes or log."""
    order, direction = one(incoming, "order") or "desc", one(incoming, "direction") or "next"
    if order not in ("asc", "desc"):
        raise invalid("order", "should be one of [ asc, desc ]")
    page = {"order": order, "direction": direction, "limit": _limit(incoming), "offset": one(incoming, "offset") or ""}
    alert = {"id": incoming.params["id"], "identifierType": one(incoming, "identifierType") or ""}
    return Read(ref=ref(incoming), history=True, page={**page, **alert, "base": _base(incoming)})


def status(incoming: Incoming) -> Inquiry:
    """Reads a request for the state of an earlier one, by the id in its receipt."""
    number = number_of(incoming.params["id"])
    if number is None:
        raise Problem(ProblemKind.NOT_FOUND, "there is no such request", field="requestId")
    return Inquiry(request=number)


def _base(incoming: Incoming) -> str:
    """Returns the address that the caller used, for links to further pages."""
    return f"{address(incoming)}/opsgenie/v2/alerts"


def search(incoming: Incoming) -> Listing:
    """Reads a request for a list by query, or for its count; there are no saved searches here."""
    if one(incoming, "searchIdentifier"):
        raise Problem(ProblemKind.NOT_FOUND, "there is no such saved search", field="searchIdentifier")
    return listing(incoming, _limit(incoming), _base(incoming))


def _limit(incoming: Incoming) -> int:
    """Returns the number of entries asked for, at most what a page holds: clients ask for thousands and follow the
    pages that they get (`opsgenielib`)."""
    return min(whole_number(incoming, "limit", 20, least=1), LONGEST_PAGE)


def listing(incoming: Incoming, most: int, base: str, among: Callable[[Shown], bool] | None = None) -> Listing:
    """Reads a request for a list: a page of at most `most` alerts that pass the query and `among`, in the order asked
    for; `base` is the address of further pages. There may be very many alerts, most of them closed, so those that
    cannot pass are not looked at, nor, where all are asked for in order of creation, those outside the page."""
    text = one(incoming, "query") or ""
    asked = query.parse(text)
    sort, order = one(incoming, "sort") or "createdAt", one(incoming, "order") or "desc"
    sort = query.ALSO_SORTED.get(sort, sort)
    if sort not in query.SORTS:
        raise invalid("sort", f"should be one of [ {', '.join(query.SORTS)} ]")
    if order not in ("asc", "desc"):
        raise invalid("order", "should be one of [ asc, desc ]")
    now, key = incoming.now, query.sort_key(sort)

    def choose(shown: Shown) -> Chosen | None:
        if among is not None and not among(shown):
            return None
        found = as_shown(shown, now, is_whole=True)
        return Chosen(key(found)) if asked.test(found) else None

    is_plain = among is None and asked.is_all and sort == "createdAt"
    return Listing(
        statuses=("firing", "acknowledged") if asked.is_open else (),
        created_since=None if asked.since is None else from_millis(asked.since),
        before=None if asked.before is None else from_millis(asked.before),
        choose=None if is_plain else choose,
        descending=order == "desc",
        offset=whole_number(incoming, "offset", 0, least=0, most=MOST_SKIPPED),
        limit=most,
        page={"base": base, "query": text, "sort": sort, "order": order},
    )


# --- answers -----------------------------------------------------------------------------------------------


def answer_one(answer: Answer) -> Reply:
    """Answers with one alert."""
    assert answer.shown
    return answered(answer, {"data": as_shown(answer.shown, now_of(answer), is_whole=True)})


def answer_many(answer: Answer) -> Reply:
    """Answers with a page of alerts and links to the others."""
    assert answer.listing
    now = now_of(answer)
    listed = [as_shown(shown, now, is_whole=False) for shown in answer.listed]
    return answered(answer, {"data": listed, "paging": _paging(answer.listing, answer.total)})


def _paging(listing: Listing, total: int) -> dict[str, str]:
    limit, offset = listing.limit or 20, listing.offset
    total = reachable(total)
    last = max(0, (total - 1) // limit * limit)
    pages = {"first": 0, "last": last}
    if offset > 0:
        pages["prev"] = max(0, offset - limit)
    if offset + limit < total:
        pages["next"] = offset + limit
    return {name: page_at(listing, "limit", at) for name, at in pages.items()}


def reachable(total: int) -> int:
    """Returns how many of the alerts pages may begin at: links to others would be refused."""
    return min(total, MOST_SKIPPED + 1)


def page_at(listing: Listing, size: str, offset: int) -> str:
    """Returns the address of the page of a list that begins at `offset`."""
    asked = {name: listing.page[name] for name in ("query", "sort", "order") if listing.page.get(name)}
    return f"{listing.page['base']}?{urlencode({size: listing.limit or 20, **asked, 'offset': offset})}"


def answer_count(answer: Answer) -> Reply:
    """Answers with the number of alerts."""
    return answered(answer, {"data": {"count": answer.total}})


Entry = tuple[Told, dict[str, Json]]
"""A command that an alert came through, and how it is shown."""


def page_of(page: Mapping[str, Any], found: list[Entry]) -> tuple[list[dict[str, Json]], str]:
    """Returns a page of notes or log entries and, if there are more, the number of its last entry, which is the offset
    of the next page."""
    newest_first = page.get("order", "desc") == "desc"
    found = sorted(found, key=lambda pair: pair[0].number, reverse=newest_first)
    offset, limit = str(page.get("offset", "")), int(page.get("limit", 20))
    if offset.isascii() and offset.isdigit() and len(offset) < LONGEST_NUMBER:
        at = int(offset)
        found = [pair for pair in found if (pair[0].number < at if newest_first else pair[0].number > at)]
    return [entry for _, entry in found[:limit]], str(found[limit - 1][0].number) if len(found) > limit else ""


def _part(answer: Answer, found: list[Entry], word: str) -> Reply:
    page = answer.page
    listed, last = page_of(page, found)
    base = f"{page.get('base', '')}/{quote(str(page.get('id', '')), safe='')}/{word}"
    # Without it a link to further pages would take an alias for an id.
    named = {"identifierType": page["identifierType"]} if page.get("identifierType") else {}
    asked = {**named, "limit": page.get("limit", 20), "order": page.get("order", "desc")}
    links = {"first": f"{base}?{urlencode(asked)}"}
    if last:
        links["next"] = f"{links['first']}&{urlencode({'offset': last})}"
    return answered(answer, {"data": listed, "paging": links})


def answer_notes(answer: Answer) -> Reply:
    """Answers with a page of an alert's notes."""
    return _part(answer, noted(answer.history), "notes")


def noted(history: Sequence[Told]) -> list[Entry]:
    """Returns the notes in an alert's history."""
    return [
        (told, {"note": told.comment, "owner": told.caller, "createdAt": iso(told.at), "offset": str(told.number)})
        for told in history
        if told.comment and not told.comment.startswith(ACTED)
    ]


LOGGED = {
    Operation.CREATE: "Alert created",
    Operation.UPDATE: "Alert updated",
    Operation.ACKNOWLEDGE: "Alert acknowledged",
    Operation.RESOLVE: "Alert closed",
    Operation.REOPEN: "Alert opened again",
    Operation.DELETE: "Alert deleted",
    Operation.COMMENT: "Note added",
}


def answer_logs(answer: Answer) -> Reply:
    """Answers with a page of an alert's log."""
    return _part(answer, logged(answer.history), "logs")


def logged(history: Sequence[Told]) -> list[Entry]:
    """Returns an alert's history as log entries."""
    return [(told, _logged(told)) for told in history]


def _logged(told: Told) -> dict[str, Json]:
    is_act = told.comment.startswith(ACTED)
    text = told.comment.removeprefix(ACTED) if is_act else LOGGED.get(told.operation, "Alert updated")
    said = f"{text}: {told.comment}" if told.comment and not is_act else text
    return {
        "log": said,
        "type": "system",
        "owner": told.caller,
        "createdAt": iso(told.at),
        "offset": str(told.number),
    }


def answer_status(answer: Answer) -> Reply:
    """Answers with the state of a request."""
    found = outcome(answer)
    return answered(answer, {"data": {"success": found["isSuccess"], **found}})


def answer_nobody(answer: Answer) -> Reply:
    """Answers with an empty list: the gateway itself notifies nobody, and no alert has files."""
    return answered(answer, {"data": []})
