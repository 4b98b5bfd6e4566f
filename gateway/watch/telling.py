"""Tells upstreams of alarms directly, not through the outbox: the trouble may be in the store itself.

It must not know any vendor, nor which alarms are raised and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct, structs

from gateway.canonical import Flat, Operation
from gateway.config.config import Upstream
from gateway.delivery.attempt import Ended
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.looking import look
from gateway.errors import StoreError
from gateway.mapping.rows import Unmet
from gateway.mapping.saying import Saying
from gateway.mapping.translation import translate
from gateway.mapping.values import from_millis
from gateway.outcome import Delivered, Missing, Pending, Sending
from gateway.store import Store
from gateway.watch.trouble import Trouble

log = structlog.get_logger()
MOST_ASKED = 8
"""How often a receipt is asked about before an alarm counts as not taken."""
MOST_PAUSE = 300.0
"""The longest pause, in seconds, before an alarm is sent again whose answer is lost each time."""
ORIGIN = "alert-gateway"


class Doubt(Struct, frozen=True):
    """An alarm that an upstream may have, as its answer was lost: `trouble` is what was sent, first at `since`, in
    milliseconds since 1970; it may be sent again at `again_at`, by the monotonic clock, after `pause` seconds."""

    trouble: Trouble
    since: int
    again_at: float
    pause: float


class Teller:
    """Sends alarms to upstreams and ends them there. `doubts` are the alarms whose answers were lost, by upstream and
    key; `first_pause` gives the seconds after which such an alarm may be sent again for the first time."""

    def __init__(
        self, store: Store, dispatcher: Dispatcher, now: Callable[[], int], first_pause: Callable[[], float]
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._now = now
        self._first_pause = first_pause
        self.doubts: dict[tuple[str, str], Doubt] = {}

    async def tell(
        self, upstream: Upstream, operation: Operation, trouble: Trouble, ids: Mapping[str, str]
    ) -> Delivered | None:
        """Sends an upstream an alarm, or its end; None where it did not take it."""
        outbound = upstream.dialect.outbound
        if operation not in outbound.calls:
            operation = outbound.nearest.get(operation, operation)
        if operation not in outbound.calls:
            return Delivered()
        sending = _sending(upstream, operation, trouble, ids, self._now())
        if sending is None:
            return None
        if operation is Operation.CREATE:
            ended = await self._created(upstream, trouble, sending)
        else:
            ended = await self._confirmed(upstream, operation, sending)
        if isinstance(ended.outcome, Delivered):
            return ended.outcome
        if isinstance(ended.outcome, Missing) and operation is not Operation.CREATE:
            return Delivered()  # somebody ended it there
        reason = getattr(ended.outcome, "reason", "") or type(ended.outcome).__name__
        log.error("alarm.not_taken", alarm=trouble.code, about=trouble.about, upstream=upstream.name, reason=reason)
        return None

    async def end_unkept(self, upstream: Upstream, trouble: Trouble, since: int) -> bool:
        """Ends an alarm that may be open; where alerts have ids, only if it is found by its content. Returns False if
        that has to be tried again."""
        ids: dict[str, str] = {}
        if upstream.dialect.outbound.addressed_by == "id":
            sending = _sending(upstream, Operation.CREATE, trouble, {}, self._now())
            if sending is None:
                return True
            client = self._dispatcher.client(upstream.name)
            try:
                found = (await look(client, self._store, sending, since, self._now())).ended
            except StoreError:
                return False
            if found is None or not isinstance(found.outcome, Delivered):
                return found is None
            ids = dict(found.outcome.ids)
        return await self.tell(upstream, Operation.RESOLVE, trouble, ids) is not None

    async def end_doubtful(self, upstream: Upstream | None, at: tuple[str, str], doubt: Doubt) -> None:
        """Ends an alarm whose answer was lost, or has that tried again later."""
        if upstream is None or await self.end_unkept(upstream, doubt.trouble, doubt.since):
            self.doubts.pop(at, None)
        else:
            self.doubts[at] = _put_off(doubt)

    async def _created(self, upstream: Upstream, trouble: Trouble, sending: Sending) -> Ended:
        """Sends a new alarm. Where the answer was lost before, the alarm is looked for first, and sent again after ever
        longer pauses: at an upstream that does not merge by key, each time is another page."""
        at, began = (upstream.name, trouble.key), self._now()
        doubt = self.doubts.get(at)
        if doubt is not None:
            with contextlib.suppress(StoreError):  # then it is sent again: better once too often than never
                client = self._dispatcher.client(upstream.name)
                looked = await look(client, self._store, sending, doubt.since, self._now())
                if looked.ended is not None:
                    return looked.ended
        ended = await self._confirmed(upstream, Operation.CREATE, sending)
        if ended.is_ambiguous:
            first = self._first_pause()
            self.doubts[at] = _put_off(doubt) if doubt else Doubt(trouble, began, time.monotonic() + first, first)
        else:
            self.doubts.pop(at, None)
        return ended

    async def _confirmed(self, upstream: Upstream, operation: Operation, sending: Sending) -> Ended:
        """Runs the call, and a few times again while the upstream has given only a receipt and no verdict."""
        client, call = self._dispatcher.client(upstream.name), upstream.dialect.outbound.calls[operation]
        ended = await client.run(call(sending))
        for _ in range(MOST_ASKED):
            outcome = ended.outcome
            if not isinstance(outcome, Pending):
                break
            await asyncio.sleep(outcome.after)
            sending = structs.replace(sending, seen={**sending.seen, **outcome.seen})
            ended = await client.run(call(sending))
        return ended


def _put_off(doubt: Doubt) -> Doubt:
    pause = min(doubt.pause * 2, MOST_PAUSE)
    return structs.replace(doubt, again_at=time.monotonic() + pause, pause=pause)


def _sending(
    upstream: Upstream, operation: Operation, trouble: Trouble, ids: Mapping[str, str], now: int
) -> Sending | None:
    """An alarm translated for an upstream; None where the upstream requires what the alarm does not have."""
    saying = _saying(trouble, upstream.dialect.outbound.addressed_by == "key")
    try:
        said = translate(saying, upstream.destination)
    except Unmet as unmet:
        log.error("alarm.untranslatable", upstream=upstream.name, field=unmet.path)
        return None
    return Sending(
        operation=operation,
        at=from_millis(now),
        body=said.body,
        patch=said.body,
        key=saying.key,
        ids=ids,
        seen={},
        settings=upstream.settings,
    )


def _saying(trouble: Trouble, by_key: bool) -> Saying:
    flat: Flat = {
        "kind": "occurrence",
        "summary": trouble.summary,
        "details": f"See {trouble.code} in the runbook, in the README of alert-gateway.",
        "severity": 1,
        "status": "firing",
        "source": ORIGIN,
        "dedup_key": trouble.key,
    }
    key = trouble.key if by_key else None
    return Saying(flat=flat, origin=ORIGIN, caller=ORIGIN, key=key, at=from_millis(int(time.time() * 1000)))
