"""Looking before writing again: a create whose answer was lost may have made something at the upstream.

An object found there is ours only if its content equals what was sent, it was created after the first attempt
began (less a minute, as clocks differ), and no alert is known by its id; two candidates are none. It must not know
any vendor.
"""

from __future__ import annotations

from msgspec import Struct, structs

from gateway.canonical import SERVER_OWNED, Flat
from gateway.carry import restore
from gateway.config import Upstream
from gateway.delivery.attempt import Client, Ended
from gateway.outcome import Again, Delivered, Found, FoundAlert, Held, Sending
from gateway.store import Store
from gateway.values import from_millis

CLOCKS_DIFFER_MS = 60_000
LONGEST_IN_DOUBT_MS = 30_000
"""So long is a list that nobody can read asked for again."""


def lacks_id(ended: Ended, upstream: Upstream) -> bool:
    """Whether something was made there that nobody could ever address."""
    by_id = upstream.dialect.outbound.addressed_by == "id"
    return by_id and isinstance(ended.outcome, Delivered) and not ended.outcome.ids.get("id")


class Looked(Struct, frozen=True):
    """What looking came to: the object that an earlier attempt made, as an outcome, or why it has to be looked for
    again; None where there is none, or no way to look. `in_vain` says that what can be seen does not show whether it is
    there; `requests` how many it took."""

    ended: Ended | None = None
    in_vain: bool = False
    requests: int = 0


async def look(client: Client, store: Store, sending: Sending, since: int, now: int, entry: str = "") -> Looked:
    """Looks for the object that an attempt made which began at `since`. A list that is none, or longer than is read,
    says nothing about what is in it: it is asked for again for half a minute, as a page that comes twice is better than
    one that never comes."""
    outbound = client.upstream.dialect.outbound
    if outbound.list is None:
        return Looked()
    ended = await client.run(outbound.list(sending), entry=entry)
    if isinstance(ended.outcome, Held) and ended.outcome.status == 403:
        # a key may write and not read; whether it may write, the create itself is told
        return Looked(in_vain=True, requests=ended.requests)
    if isinstance(ended.outcome, Again | Held):
        return Looked(ended, requests=ended.requests)
    if not isinstance(ended.outcome, Found):
        if _is_unread(ended) and now - since < LONGEST_IN_DOUBT_MS:
            again = Again(reason=getattr(ended.outcome, "reason", "the list could not be read"))
            return Looked(structs.replace(ended, outcome=again), requests=ended.requests)
        return Looked(in_vain=True, requests=ended.requests)
    listed = {found.id: found for found in ended.outcome.alerts}  # one that is listed twice is one
    said = _said(sending, client.upstream)
    alike = [found for found in listed.values() if _is_alike(found, said, since)]
    party = client.upstream.name
    ours = await store.read(lambda tx: [found for found in alike if not tx.is_known_id(found.id, party)])
    if len(ours) != 1:
        return Looked(in_vain=ended.outcome.is_part and not ours, requests=ended.requests)
    made = Delivered(ids={**ours[0].ids, "id": ours[0].id}, seen=dict(ours[0].seen))
    return Looked(Ended(made, ended.status, looked_up=True), requests=ended.requests)


def _is_unread(ended: Ended) -> bool:
    """Whether there is such a list, and only nobody could read it."""
    return ended.status is not None and ended.status < 300


def _is_alike(found: FoundAlert, said: tuple[Flat, Flat], since: int) -> bool:
    meant, restored = said
    created = found.flat.get("created_at")
    if created is not None and created < from_millis(since - CLOCKS_DIFFER_MS):
        return False
    for path, value in meant.items():
        shown = found.flat.get(path)
        if shown == value or path in SERVER_OWNED:
            continue
        if shown not in (None, restored.get(path)) or restored.get(path) == value:
            return False
    return True


def _said(sending: Sending, upstream: Upstream) -> tuple[Flat, Flat]:
    """What was sent, and what a gateway that stands there makes of it with what is carried: of that it shows what the
    vendor's words can say."""
    reading = upstream.destination.mapping.interpret(sending.body, side="reply")
    meant = reading.whole()
    return meant, restore(meant, reading.carried)
