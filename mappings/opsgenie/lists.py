"""What Opsgenie's callers look up, and how they are answered: alerts, their notes and logs, and the state of a request.

Source: https://docs.opsgenie.com/docs/alert-api#list-alerts for paging; a list is chosen and ordered by what the
vendor would show of each alert. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from gateway.asked import Answer, Chosen, Incoming, Inquiry, Listing, Read, Reply, Shown, Told
from gateway.asking import address, one, whole_number
from gateway.canonical import Operation
from gateway.errors import Problem, ProblemKind, invalid
from gateway.outcome import Json
from gateway.values import from_millis, iso
from mappings.opsgenie import query
from mappings.opsgenie.asked import ACTED, ref
from mappings.opsgenie.words import answered, as_shown, now_of, number_of, outcome

LONGEST_PAGE = 100
"""How many a page has at most: https://docs.opsgenie.com/docs/pagination"""
LONGEST_NUMBER = 20
"""Digits: no entry has a number as long as this."""

# --- questions ---------------------------------------------------------------------------------------------


def get(incoming: Incoming) -> Read:
    """One alert, as it is now."""
    return Read(ref=ref(incoming))


def entries(incoming: Incoming) -> Read:
    """What an alert came through: its notes, or all of it."""
    order, direction = one(incoming, "order") or "desc", one(incoming, "direction") or "next"
    if order not in ("asc", "desc"):
        raise invalid("order", "should be one of [ asc, desc ]")
    page = {"order": order, "direction": direction, "limit": _limit(incoming), "offset": one(incoming, "offset") or ""}
    alert = {"id": incoming.params["id"], "identifierType": one(incoming, "identifierType") or ""}
    return Read(ref=ref(incoming), history=True, page={**page, **alert, "base": _base(incoming)})


def status(incoming: Incoming) -> Inquiry:
    """What became of an earlier request, by the id in its receipt."""
    number = number_of(incoming.params["id"])
    if number is None:
        raise Problem(ProblemKind.NOT_FOUND, "there is no such request", field="requestId")
    return Inquiry(request=number)


def _base(incoming: Incoming) -> str:
    """The address that the caller used, for links to further pages."""
    return f"{address(incoming)}/opsgenie/v2/alerts"


def search(incoming: Incoming) -> Listing:
    """A list by query, and how many of them; there are no saved searches here."""
    if one(incoming, "searchIdentifier"):
        raise Problem(ProblemKind.NOT_FOUND, "there is no such saved search", field="searchIdentifier")
    return listing(incoming, _limit(incoming), _base(incoming))


def _limit(incoming: Incoming) -> int:
    """How many at most. Clients ask for thousands and follow the pages that they get (`opsgenielib`): as many come as
    a page holds."""
    return min(whole_number(incoming, "limit", 20, least=1), LONGEST_PAGE)


def listing(incoming: Incoming, most: int, base: str, among: Callable[[Shown], bool] | None = None) -> Listing:
    """The alerts that a query chooses `among` those, in the order that is asked for: at most so many, of which further
    pages are at `base`. Most are over, and there may be very many: nobody looks at those that cannot be meant, nor at
    what a page leaves out where all are asked for as they were created."""
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
        offset=whole_number(incoming, "offset", 0, least=0, most=20_000),
        limit=most,
        page={"base": base, "query": text, "sort": sort, "order": order},
    )


# --- answers -----------------------------------------------------------------------------------------------


def answer_one(answer: Answer) -> Reply:
    """An alert in its envelope."""
    assert answer.shown
    return answered(answer, {"data": as_shown(answer.shown, now_of(answer), is_whole=True)})


def answer_many(answer: Answer) -> Reply:
    """A page of alerts, and where the others are."""
    assert answer.listing
    now = now_of(answer)
    listed = [as_shown(shown, now, is_whole=False) for shown in answer.listed]
    return answered(answer, {"data": listed, "paging": _paging(answer.listing, answer.total)})


def _paging(listing: Listing, total: int) -> dict[str, str]:
    limit, offset = listing.limit or 20, listing.offset
    last = max(0, (total - 1) // limit * limit)
    pages = {"first": 0, "last": last}
    if offset > 0:
        pages["prev"] = max(0, offset - limit)
    if offset + limit < total:
        pages["next"] = offset + limit
    return {name: page_at(listing, "limit", at) for name, at in pages.items()}


def page_at(listing: Listing, size: str, offset: int) -> str:
    """The address of the page of a list that begins there."""
    asked = {name: listing.page[name] for name in ("query", "sort", "order") if listing.page.get(name)}
    return f"{listing.page['base']}?{urlencode({size: listing.limit or 20, **asked, 'offset': offset})}"


def answer_count(answer: Answer) -> Reply:
    """How many there are."""
    return answered(answer, {"data": {"count": answer.total}})


Entry = tuple[Told, dict[str, Json]]
"""What an alert came through, and how it is shown."""


def page_of(page: Mapping[str, Any], found: list[Entry]) -> tuple[list[dict[str, Json]], str]:
    """A page of notes or log entries, and the offset that it ends with where there are more: the number of its last
    entry, behind which the next page begins."""
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
    named = {"identifierType": page["identifierType"]} if page.get("identifierType") else {}  # else an alias is an id
    asked = {**named, "limit": page.get("limit", 20), "order": page.get("order", "desc")}
    links = {"first": f"{base}?{urlencode(asked)}"}
    if last:
        links["next"] = f"{links['first']}&{urlencode({'offset': last})}"
    return answered(answer, {"data": listed, "paging": links})


def answer_notes(answer: Answer) -> Reply:
    """What people said about an alert."""
    return _part(answer, noted(answer.history), "notes")


def noted(history: Sequence[Told]) -> list[Entry]:
    """The notes among what an alert came through."""
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
    """All that an alert came through."""
    return _part(answer, logged(answer.history), "logs")


def logged(history: Sequence[Told]) -> list[Entry]:
    """What an alert came through, as lines of its log."""
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
    """What became of a request, in its envelope."""
    found = outcome(answer)
    return answered(answer, {"data": {"success": found["isSuccess"], **found}})


def answer_nobody(answer: Answer) -> Reply:
    """Whom the vendor would have notified: nobody is, by the gateway."""
    return answered(answer, {"data": []})
