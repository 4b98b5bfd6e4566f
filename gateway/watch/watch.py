"""The gateway's watch over itself: a heartbeat that stops when the gateway is in trouble, and alarms about its own
trouble through an upstream that works.

An alarm goes to its upstream directly, not through the outbox: the trouble may be in the store itself. It must not
know any vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

import structlog
from msgspec import Struct, convert, structs, to_builtins

from gateway.canonical import Operation
from gateway.codes import Code
from gateway.config.config import Config
from gateway.delivery.dispatcher import Dispatcher
from gateway.errors import StoreError
from gateway.outcome import Delivered
from gateway.store import Store, Tx, Waiting
from gateway.watch.heartbeat import ping
from gateway.watch.telling import MOST_ASKED, Teller
from gateway.watch.trouble import (
    AWAY,
    HELD,
    LEFT,
    LOG_TOO_LONG,
    STORE_AWAY,
    STORE_FULL,
    STORE_LOG,
    Trouble,
    commit,
    prove,
)

log = structlog.get_logger()
T = TypeVar("T")
STALL = 120.0
"""Seconds that a delivery may wait before that is trouble, unless the configuration says otherwise."""
NOTE = "alarms"
WATCHING = "watching"
"""The name of a note: which gateways watch, and when each last said so. One that ended without removing itself may have
left alarms open which it could not record, as they were about the store."""
SAID_EVERY, GONE = 60.0, 180_000
"""Seconds between two times that a gateway says that it watches; milliseconds without that after which it is gone."""
PASSING, LASTING = frozenset((HELD, AWAY, LEFT)), 3
"""Codes that count as trouble only once they were seen in `LASTING` looks in a row: when a key or a certificate is
replaced on both sides, these do not match for a moment, and what waited is sent right after."""
NEWER = 180.0
"""Seconds after which an alarm at an upstream that our file never had is forgotten: until then it may be that of a
replica with a newer file, which the others have yet to load."""


class Raised(Struct):
    """An alarm that was raised at an upstream: `ids` are the upstream's for it, `clear` counts the looks in a row that
    found no trouble, and `renew_at` is when an upstream that forgets has to be told again, in milliseconds since 1970.
    Replicas share it through the store: one that still sees the trouble increments `seen`; `is_kept` says that it has
    been in the store."""

    upstream: str
    code: str
    about: str
    summary: str
    ids: dict[str, str] = {}
    clear: int = 0
    renew_at: int | None = None
    seen: int = 0
    is_kept: bool = False


class Watch:
    """Watches one gateway. `config` returns the current configuration; `interval` is the seconds between looks, `calm`
    the number of looks without trouble after which an alarm is cleared."""

    def __init__(
        self, store: Store, config: Callable[[], Config], dispatcher: Dispatcher, now: Callable[[], int]
    ) -> None:
        self._store = store
        self._config = config
        self._dispatcher = dispatcher
        self._now = now
        self._raised: dict[str, Raised] = {}
        self._teller = Teller(store, dispatcher, now, lambda: self.interval)
        self._looks: dict[str, int] = {}
        self._own, self._began = secrets.token_hex(4), now()
        self._say_at, self._tries = 0.0, 0
        self._beaten = -math.inf
        self._had: set[str] = set()
        self._unknown: dict[str, float] = {}
        self.interval = 5.0
        self.calm = 12

    async def run(self) -> None:
        """Watches until it is cancelled."""
        await asyncio.gather(self._repeat(self._beat), self._repeat(self._look))

    async def _repeat(self, turn: Callable[[], Awaitable[float]]) -> None:
        while True:
            try:
                pause = await turn()
            except Exception:  # the watch must go on whatever happens
                log.exception("watch.failed")
                pause = self.interval
            await asyncio.sleep(pause)

    # --- the heartbeat -------------------------------------------------------------------------------------

    async def _beat(self) -> float:
        heartbeat = self._config().heartbeat
        if heartbeat is None:
            return self.interval
        if time.monotonic() - self._beaten >= heartbeat.every:
            trouble = await self.unwell(heartbeat.stall)
            if trouble:
                log.error("heartbeat.withheld", reason=trouble)
            else:
                await ping(heartbeat)
            self._beaten = time.monotonic()
        left = self._beaten + heartbeat.every - time.monotonic()
        return max(0.0, min(self.interval, left))  # in short steps, as a reload may change `every`

    async def unwell(self, stall: float) -> str:
        """Why the heartbeat has to stop; empty where all is well."""
        if not self._dispatcher.turns():
            return "the dispatcher has stopped"
        try:
            await prove(self._store, 2.0)
            waiting = await self._store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway")
        except StoreError as error:
            return f"the store takes no commits: {error}"
        late = [one.upstream for one in waiting if self._age(one) > stall]
        return f"a delivery has waited for more than {stall:g} s for {', '.join(late)}" if late else ""

    # --- alarms --------------------------------------------------------------------------------------------

    async def _look(self) -> float:
        config = self._config()
        await self._remember()
        if not config.alarms and not self._raised:  # those of before `alarms` was taken out are still to be ended
            return self.interval
        await self._leave_behind(config)
        now = self._lasting({trouble.key: trouble for trouble in await self.troubles()})
        await self._end_doubtful(config, now.keys())
        for key, trouble in now.items():
            if key in self._raised:
                await self._see(self._raised[key])
                await self._renew(config, self._raised[key])
            elif config.alarms:
                await self._raise(config, trouble)
        for key in [key for key in self._raised if key not in now]:
            self._raised[key].clear += 1
            if self._raised[key].clear >= self.calm:
                await self._clear(config, key)
        if config.alarms and STORE_FULL.key not in now and STORE_AWAY.key not in now:
            await self._end_left(config)
        return self.interval

    async def _end_doubtful(self, config: Config, lasting: Collection[str]) -> None:
        """Ends alarms whose answers were lost and whose trouble has passed: if such an alarm is there, nobody else
        would end it, and while it is open, the next one would be no news."""
        for (name, key), doubt in list(self._teller.doubts.items()):
            if key not in lasting and doubt.again_at <= time.monotonic():
                await self._teller.end_doubtful(config.upstreams.get(name), (name, key), doubt)

    async def _leave_behind(self, config: Config) -> None:
        """Forgets alarms at upstreams that are no longer in the configuration, so that trouble which lasts is raised at
        another. An upstream that was never in ours may be in that of a replica with a newer file, or may have been
        removed while all were restarted: so its alarms are forgotten only after `NEWER` seconds."""
        now, is_alone = time.monotonic(), self._store.lease is None
        missing = {one.upstream for one in self._raised.values()} - config.upstreams.keys()
        self._unknown = {name: self._unknown.get(name, now) for name in missing}
        left = {name for name, at in self._unknown.items() if is_alone or name in self._had or now - at >= NEWER}
        for key, one in list(self._raised.items()):
            if one.upstream in left:
                log.warning("alarm.left", alarm=one.code, about=one.about, upstream=one.upstream)
                del self._raised[key]
                await self._forget(key)
        self._had |= config.upstreams.keys()

    def _lasting(self, now: dict[str, Trouble]) -> dict[str, Trouble]:
        """The troubles without those that may pass by themselves and were not seen often enough (`PASSING`)."""
        self._looks = {key: self._looks.get(key, 0) + 1 for key, one in now.items() if one.code in PASSING}
        return {key: one for key, one in now.items() if key in self._raised or self._looks.get(key, LASTING) >= LASTING}

    async def troubles(self) -> list[Trouble]:
        """All that is wrong with the gateway now."""
        heartbeat = self._config().heartbeat
        stall = heartbeat.stall if heartbeat else STALL
        found = [
            Trouble(
                "upstream-held",
                name,
                f"alert-gateway: {name}, or a proxy before it, refuses the gateway's key or shows a bad certificate",
            )
            for name, breaker in self._dispatcher.breakers().items()
            if breaker.state == "held"
        ]
        found += [
            Trouble("upstream-held", name, f"alert-gateway: {name} refuses the keys of {', '.join(entries[:3])}")
            for name, entries in self._dispatcher.held_keys().items()
            if entries and not any(one.about == name for one in found)
        ]
        if self._store.is_strained:
            found.append(STORE_FULL)
        if self._store.log_size > LOG_TOO_LONG:
            found.append(STORE_LOG)
        if server := self._store.left_behind:
            summary = f"alert-gateway: the database at {server} takes writes although another was promoted after it"
            found.append(Trouble(LEFT, "", summary))
        try:
            await commit(self._store, 2.0)
            waiting = await self._store.read(lambda tx: tx.waiting(), is_long=True, whose="gateway")
            dead = await self._store.read(lambda tx: tx.dead(but=Code.NO_UPSTREAM), is_long=True, whose="gateway")
        except StoreError:
            return [*found, STORE_AWAY]
        found += [
            Trouble("upstream-stalled", one.upstream, f"alert-gateway: {one.count} deliveries wait for {one.upstream}")
            for one in waiting
            if self._age(one) > stall
        ]
        return found + [
            Trouble("dead-letters", name, f"alert-gateway: dead letters for {name}")
            for name in sorted(dead)
            if name in self._config().upstreams
        ]

    async def _raise(self, config: Config, trouble: Trouble) -> None:
        breakers = self._dispatcher.breakers()
        for name in config.alarms:
            if name == trouble.about or name not in breakers or breakers[name].state != "closed":
                continue
            doubt = self._teller.doubts.get((name, trouble.key))
            if doubt is not None and doubt.again_at > time.monotonic():
                continue
            said = doubt.trouble if doubt else trouble  # the same text as before: its numbers may differ by now
            told = await self._teller.tell(config.upstreams[name], Operation.CREATE, said, {})
            if told is not None:
                one = Raised(name, said.code, said.about, said.summary, dict(told.ids))
                one.renew_at = self._again_at(told)
                self._raised[trouble.key] = one
                log.error("alarm.raised", alarm=trouble.code, about=trouble.about, upstream=name)
                await self._keep_first(config, trouble, one)
                return
        log.error("alarm.untold", alarm=trouble.code, about=trouble.about)

    async def _renew(self, config: Config, one: Raised) -> None:
        """Tells an upstream that forgets that the trouble lasts, in the words that it was told first."""
        upstream = config.upstreams.get(one.upstream)
        if one.renew_at is None or one.renew_at > self._now() or upstream is None:
            return
        trouble = Trouble(one.code, one.about, one.summary)
        told = await self._teller.tell(upstream, Operation.UPDATE, trouble, one.ids)
        if told is not None:
            one.renew_at = self._again_at(told)
            await self._keep(one)

    def _again_at(self, told: Delivered) -> int | None:
        return self._now() + int(told.renew * 1000) if told.renew else None

    async def _clear(self, config: Config, key: str) -> None:
        raised = self._raised[key]
        upstream = config.upstreams.get(raised.upstream)
        trouble = Trouble(raised.code, raised.about, raised.summary)
        if upstream is None or await self._teller.tell(upstream, Operation.RESOLVE, trouble, raised.ids) is not None:
            del self._raised[key]
            log.info("alarm.cleared", alarm=raised.code, about=raised.about)
            await self._forget(key)

    async def _forget(self, key: str) -> None:
        await self._change(lambda kept: kept.pop(key, None))

    async def _end_left(self, config: Config) -> None:
        """Ends alarms about the store that gateways which are gone may have raised. Nobody else would, as such an alarm
        could not be recorded; and while it is open, the next one would be no news at the upstream."""
        if time.monotonic() < self._say_at:
            return
        gone = await self._change(self._say_watching, WATCHING)
        if gone is None:
            return
        self._say_at = time.monotonic() + SAID_EVERY
        if not gone:
            return
        about = [one for one in (STORE_FULL, STORE_AWAY) if one.key not in self._raised]
        upstreams = [config.upstreams[name] for name in config.alarms if name in config.upstreams]
        self._tries += 1
        told = [await self._teller.end_unkept(to, one, min(gone.values())) for to in upstreams for one in about]
        if all(told) or self._tries >= MOST_ASKED:
            self._tries = 0
            log.info("alarm.left_ended", gateways=len(gone), is_told=all(told))
            await self._change(lambda kept: [kept.pop(name, None) for name in gone], WATCHING)

    def _say_watching(self, kept: dict[str, Any]) -> dict[str, int]:
        """Notes in `kept` that this gateway watches; returns the gateways that are gone, and since when each watched.
        A replica that is cut off from the store raises alarms about that rightly: so where several share a store, only
        one that was silent before this gateway started is taken for gone."""
        now, is_alone = self._now(), self._store.lease is None
        kept[self._own] = [self._began, now]
        return {
            name: began
            for name, (began, seen) in kept.items()
            if name != self._own and (is_alone or (seen < self._began and now - seen > GONE))
        }

    async def leave(self) -> None:
        """Notes that this gateway no longer watches, unless it has raised an alarm that could not be recorded."""
        if self._say_at and all(one.is_kept for one in self._raised.values()):
            with contextlib.suppress(TimeoutError):  # the rest of the shutdown must not wait for a slow store
                await asyncio.wait_for(self._change(lambda kept: kept.pop(self._own, None), WATCHING), 1.0)

    def _age(self, waiting: Waiting) -> float:
        return (self._now() - waiting.oldest) / 1000

    async def _see(self, one: Raised) -> None:
        """Notes that the trouble lasts. Other replicas may not see it: they learn of it before they clear the alarm."""
        one.clear = 0
        one.seen += 1
        if self._store.lease is not None and one.seen % max(1, self.calm // 4) == 0:
            await self._keep(one)

    async def _remember(self) -> None:
        """Reads the alarms in the store: those raised before a restart, or by another replica, are cleared here too;
        those that another replica cleared are forgotten, and those that it still sees are not cleared."""
        if self._raised and self._store.lease is None:
            return
        with contextlib.suppress(StoreError):
            noted = await self._store.read(lambda tx: tx.note(NOTE)) or {}
            found = {key: structs.replace(convert(one, Raised), clear=0, is_kept=True) for key, one in noted.items()}
            for key, mine in self._raised.items():
                if key in found and mine.seen >= found[key].seen:
                    found[key].clear, found[key].seen = mine.clear, mine.seen
                elif key not in found and not mine.is_kept:
                    found[key] = mine
            self._raised = found

    async def _keep_first(self, config: Config, trouble: Trouble, one: Raised) -> None:
        """Records an alarm that was just raised. Where another replica raised it meanwhile, that one counts, and ours
        is ended if it is another alert."""

        def unless_there(kept: dict[str, Any]) -> Any:
            return kept.setdefault(trouble.key, to_builtins(one))

        first = await self._change(unless_there)
        one.is_kept = first is not None
        if first is None or first == to_builtins(structs.replace(one, is_kept=False)):
            return
        upstream = config.upstreams[one.upstream]
        self._raised[trouble.key] = structs.replace(convert(first, Raised), is_kept=True)
        if first["upstream"] != one.upstream or upstream.dialect.outbound.addressed_by == "id":
            await self._teller.tell(upstream, Operation.RESOLVE, trouble, one.ids)

    async def _keep(self, one: Raised) -> None:
        key = Trouble(one.code, one.about, one.summary).key
        one.is_kept |= await self._change(lambda kept: kept.update({key: to_builtins(one)}) or True) is not None

    async def _change(self, change: Callable[[dict[str, Any]], T], note: str = NOTE) -> T | None:
        """Changes a note under lock, as other replicas change it too; None where the store is unavailable."""

        def work(tx: Tx) -> T:
            tx.lock(note)
            kept = tx.note(note) or {}
            changed = change(kept)
            tx.put_note(note, kept)
            return changed

        try:
            return await self._store.write(work)
        except StoreError:
            return None
