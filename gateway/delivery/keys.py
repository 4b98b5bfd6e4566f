"""The keys of one upstream, where it has one per entry: what waits for a refused key, and when that is tried again.

It is to a key what the gate is to the whole upstream: it puts `HeldKeys` to use, reads what other replicas delivered,
and logs. It must not know any vendor.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from msgspec import Struct, structs

from gateway.codes import Code
from gateway.config.choosing import key_entry
from gateway.delivery.attempt import Client, Ended
from gateway.delivery.held import HeldKeys
from gateway.delivery.replicas import OtherReplicas
from gateway.outcome import Again, Held, Rejected
from gateway.store import Store

log = structlog.get_logger()


class Key(Struct, frozen=True):
    """The key that an attempt is made with: its entry, and its fingerprint before the attempt."""

    entry: str
    fingerprint: int


class Keys:
    """The keys of the upstream with this name."""

    def __init__(self, store: Store, name: str, now: Callable[[], int]) -> None:
        self._store = store
        self._name = name
        self._now = now
        self._held = HeldKeys()
        self._others = OtherReplicas()

    def key(self, client: Client, lane: str) -> Key | None:
        """The key that a client sends deliveries of a lane with; None where it has one for all."""
        if not client.upstream.has_many_keys:
            return None
        entry = key_entry(lane)
        return Key(entry, client.fingerprint(entry))

    def release(self) -> None:
        """Lets each held key be tried at once, as the configuration has changed."""
        self._held.release(time.monotonic())

    def held(self, client: Client) -> list[str]:
        """The entries whose keys the upstream refuses; `else` stands for all other entries."""
        return [_shown(entry) for entry in self._held.entries(client.fingerprint)]

    def wait(self, key: Key) -> float:
        """Seconds for which to put off a delivery because its key is held; 0 where it may be sent."""
        wait = self._held.wait(key.entry, key.fingerprint, time.monotonic())
        return self._held.pause(key.entry, wait) if wait > 0 else 0.0

    def ended(self, key: Key, ended: Ended) -> Ended:
        """How an attempt ended, as far as it concerns the whole upstream. A refusal concerns only the key that was
        sent: that is held, and one that has replaced it since is to be tried at once. So does a 429, as vendors count
        by account: what got it waits for as long as was asked, and what uses other keys goes on."""
        if isinstance(ended.outcome, Held) and not ended.is_certificate:
            if self._held.hold(key.entry, key.fingerprint, time.monotonic(), self._now()):
                log.error("key.held", upstream=self._name, entry=_shown(key.entry), reason=ended.outcome.reason)
            asked = ended.requests if ended.outcome.status else 0  # without a key nothing was sent
            refused = Rejected(reason=ended.outcome.reason)
            return structs.replace(ended, is_fault=False, outcome=refused, requests=asked)
        if isinstance(ended.outcome, Again) and ended.outcome.code == Code.THROTTLED:
            return structs.replace(ended, is_fault=False, outcome=Rejected(reason=ended.outcome.reason))
        if not ended.is_fault and not isinstance(ended.outcome, Held) and self._held.accepted(key.entry):
            log.info("key.back", upstream=self._name, entry=_shown(key.entry))
        return ended

    async def hear(self) -> None:
        """Releases held keys with which another replica has delivered since: there may be nothing left here to try them
        with."""
        now = time.monotonic()
        if self._store.lease is None or not (tried := self._held.to_be_tried(now)) or not self._others.is_due(now):
            return
        since, began = self._others.since(tried), self._now()
        taken = await self._store.read(lambda tx: tx.took(self._name, since))
        self._others.looked(tried, began)
        for entry in {key_entry(one) for one, at in taken.items() if at > tried.get(key_entry(one), at)}:
            if self._held.accepted(entry):
                log.info("key.back", upstream=self._name, entry=_shown(entry), reason="another replica succeeded")


def _shown(entry: str) -> str:
    return entry or "else"
