"""Looks for an alert at the upstream before creating it again: a create whose answer was lost may have made it.

An object found there is ours only if its content equals what was sent, it was created after the first attempt
began (less a minute, as clocks differ), and no alert is known by its id; two candidates count as none. It must not know
any vendor.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct, structs

from gateway.canonical import SERVER_OWNED, Flat, Operation
from gateway.config.config import Upstream
from gateway.delivery.attempt import Client, Ended
from gateway.mapping.carry import restore
from gateway.mapping.table import Mapping
from gateway.mapping.values import from_millis
from gateway.outcome import Again, Delivered, Found, FoundAlert, Held, Sending
from gateway.road.terms import may_look
from gateway.store import Store

CLOCKS_DIFFER_MS = 60_000
LONGEST_IN_DOUBT_MS = 30_000
"""Milliseconds during which an unreadable list is asked for again."""
LATE = 1.0
"""Seconds after which what was not found is looked for once more."""


def may_have_opened(operation: Operation, upstream: Upstream) -> bool:
    """Whether an attempt whose answer was lost may have opened something that nobody knows to be open there."""
    reopens = operation is Operation.REOPEN and upstream.dialect.outbound.addressed_by == "key"
    return reopens or operation is Operation.CREATE


def lacks_id(ended: Ended, upstream: Upstream) -> bool:
    """Whether the upstream says that it made something, but gave no id to address it by."""
    by_id = upstream.dialect.outbound.addressed_by == "id"
    return by_id and isinstance(ended.outcome, Delivered) and not ended.outcome.ids.get("id")


class Looked(Struct, frozen=True):
    """The result of looking. `ended` is the object that an earlier attempt made, as an outcome, or why it has to be
    looked for again; None if there is none, or no way to look. `in_vain` says that what can be seen does not show
    whether the object is there; `requests` is how many it took."""

    ended: Ended | None = None
    in_vain: bool = False
    requests: int = 0


async def look(client: Client, store: Store, sending: Sending, since: int, now: int, entry: str = "") -> Looked:
    """Looks for the object that an attempt made which began at `since` (milliseconds). If it is not there, looks once
    more a little later: an upstream that stood still may answer the question before it comes to what it was sent
    earlier, though nobody waits for that any more."""
    looked = await _look(client, store, sending, since, now, entry)
    if looked.ended is not None or looked.in_vain or not looked.requests:
        return looked
    await asyncio.sleep(LATE)
    later = await _look(client, store, sending, since, now, entry)
    return structs.replace(later, requests=looked.requests + later.requests)


async def _look(client: Client, store: Store, sending: Sending, since: int, now: int, entry: str) -> Looked:
    """Looks once. An answer that is no list, or one longer than is read, says nothing about the object: it is asked for
    again for half a minute only, as a page that comes twice is better than one that never comes."""
    outbound = client.upstream.dialect.outbound
    if outbound.list is None or not may_look(client.upstream):
        return Looked()
    ended = await client.run(outbound.list(sending), entry=entry)
    if isinstance(ended.outcome, Held) and ended.outcome.status == 403:
        # a key may be allowed to write and not to read; whether it may write, the create itself shows
        return Looked(in_vain=True, requests=ended.requests)
    if isinstance(ended.outcome, Again | Held):
        return Looked(ended, requests=ended.requests)
    if not isinstance(ended.outcome, Found):
        if _is_unread(ended) and now - since < LONGEST_IN_DOUBT_MS:
            again = Again(reason=getattr(ended.outcome, "reason", "the list could not be read"))
            return Looked(structs.replace(ended, outcome=again), requests=ended.requests)
        return Looked(in_vain=True, requests=ended.requests)
    listed = {found.id: found for found in ended.outcome.alerts}  # one listed twice counts once
    said = _said(sending, client.upstream)
    mapping = client.upstream.destination.mapping
    alike = [found for found in listed.values() if _is_alike(found, said, since, sending, mapping)]
    party = client.upstream.name
    ours = await store.read(lambda tx: [found for found in alike if not tx.is_known_id(found.id, party)])
    if len(ours) != 1:
        return Looked(in_vain=ended.outcome.is_part and not ours, requests=ended.requests)
    is_renamed = _is_renamed(ours[0].flat.get("summary"), said[0].get("summary"), sending)
    altered = {"summary": "the name was already in use there"} if is_renamed else {}
    made = Delivered(ids={**ours[0].ids, "id": ours[0].id}, seen=dict(ours[0].seen), altered=altered)
    return Looked(Ended(made, ended.status, looked_up=True), requests=ended.requests)


def _is_unread(ended: Ended) -> bool:
    """Whether the upstream has such a list, but its answer could not be read."""
    return ended.status is not None and ended.status < 300


def _is_alike(found: FoundAlert, said: tuple[Flat, Flat], since: int, sending: Sending, mapping: Mapping) -> bool:
    """Whether what was found may be what was sent. A field that the vendor does not document may be missing there."""
    meant, restored = said
    created = found.flat.get("created_at")
    if created is not None and created < from_millis(since - CLOCKS_DIFFER_MS):
        return False
    for path, value in meant.items():
        shown = found.flat.get(path)
        if mapping.is_alike(path, value, shown) or path in SERVER_OWNED:
            continue
        if shown is None and not mapping.declares(path):
            continue
        if path == "summary" and _is_renamed(shown, value, sending):
            continue
        if shown not in (None, restored.get(path)) or restored.get(path) == value:
            return False
    return True


def _is_renamed(shown: Any, meant: Any, sending: Sending) -> bool:
    """Whether the upstream shows the name that a call chooses where the one meant is taken."""
    return meant is not None and shown == sending.renamed(meant)


def _said(sending: Sending, upstream: Upstream) -> tuple[Flat, Flat]:
    """What was sent, and the same with the carried fields restored, as a gateway at the other end does: that one lists
    the restored values as far as the vendor's fields can hold them."""
    reading = upstream.destination.mapping.interpret(sending.body, side="reply")
    meant = reading.whole()
    return meant, restore(meant, reading.carried)
