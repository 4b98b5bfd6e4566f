"""Looking before writing again: a create whose answer was lost may have made something at the upstream.

An object found there is ours only if its content equals what was sent, it was created after the first attempt
began (less a minute, as clocks differ), and no alert is known by its id; two candidates are none. It must not know
any vendor.
"""

from __future__ import annotations

from gateway.canonical import SERVER_OWNED
from gateway.config import Upstream
from gateway.delivery.attempt import Client, Ended
from gateway.dialect import Again, Delivered, Found, FoundAlert, Held, Sending
from gateway.store import Store
from gateway.values import from_millis

CLOCKS_DIFFER_MS = 60_000


def lacks_id(ended: Ended, upstream: Upstream) -> bool:
    """Whether something was made there that nobody could ever address."""
    by_id = upstream.dialect.outbound.addressed_by == "id"
    return by_id and isinstance(ended.outcome, Delivered) and not ended.outcome.ids.get("id")


async def look(client: Client, store: Store, sending: Sending, since: int, entry: str = "") -> tuple[Ended | None, int]:
    """The object that an earlier attempt made, as an outcome; None where there is none, or no way to look. And how
    many requests that took."""
    outbound = client.upstream.dialect.outbound
    if outbound.list is None:
        return None, 0
    ended = await client.run(outbound.list(sending), entry=entry)
    if isinstance(ended.outcome, Held) and ended.outcome.status == 403:
        return None, ended.requests  # a key may write and not read; whether it may write, the create itself is told
    if isinstance(ended.outcome, Again | Held):
        return ended, ended.requests
    if not isinstance(ended.outcome, Found):
        return None, ended.requests
    listed = {found.id: found for found in ended.outcome.alerts}  # one that is listed twice is one
    alike = [found for found in listed.values() if _is_alike(found, sending, client.upstream, since)]
    party = client.upstream.name
    ours = await store.read(lambda tx: [found for found in alike if not tx.is_known_id(found.id, party)])
    if len(ours) != 1:
        return None, ended.requests
    made = Delivered(ids={**ours[0].ids, "id": ours[0].id}, seen=dict(ours[0].seen))
    return Ended(made, ended.status, looked_up=True), ended.requests


def _is_alike(found: FoundAlert, sending: Sending, upstream: Upstream, since: int) -> bool:
    meant = upstream.destination.mapping.interpret(sending.body, side="reply").whole()
    created = found.flat.get("created_at")
    if created is not None and created < from_millis(since - CLOCKS_DIFFER_MS):
        return False
    return all(found.flat.get(path) == value for path, value in meant.items() if path not in SERVER_OWNED)
