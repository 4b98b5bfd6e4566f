"""A play: random steps, each with a chance of its own, so that one can be left out and the others stay as they are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.searching.alerts import Alert
from tests.chaos.searching.house import House
from tests.chaos.searching.things import AFTER, BEFORE, SLOW, VERDICTS, Vendor
from tests.chaos.searching.words import ANY_KEY, BY_KEY, CALLERS, ENDING, Request, possible, said

MOMENT = [name for name in (*BEFORE, *AFTER) if name not in VERDICTS]
"""Faults that pass."""
RECENT = 6
"""So many of the last alerts are spoken of."""
HEARD = 3.0
"""Seconds that vendors have to hear of an alert."""

Step = Callable[[random.Random], Coroutine[Any, Any, None]]


class Play:
    """One play before a house. `alerts`: the model; `broken`: what a caller was told that must never be said."""

    def __init__(self, seed: int, directory: Path, *, is_blind: bool = False) -> None:
        self.seed = seed
        self.house = House(seed, directory, is_blind=is_blind)
        self.alerts: list[Alert] = []
        self.broken: list[str] = []
        self.silences: list[tuple[str, float]] = []
        self.had_faults = False
        chances: list[tuple[float, Step, str]] = [
            (22, self._begin, ""),
            (56, self._speak, ""),
            (3, self._trouble, ""),
            (4, self._pause, ""),
            (3, self._burst, "burst"),
            (1, self._silence, "silence"),
            (4, self._kill, "kill"),
            (2, self._reload, "reload"),
            (2, self._later, "time"),
            (2, self._forget, "forget"),
            (5, self._lost, "lost"),
            (4, self._again, "again"),
            (4, self._outage, "outage"),
        ]
        usable = [one for one in chances if not one[2] or one[2] in self.house.features]
        self._weights, self._steps = [one[0] for one in usable], [one[1] for one in usable]

    async def run(self, steps: Iterable[int]) -> None:
        """Plays the steps of these numbers."""
        for number in steps:
            chance = random.Random(f"{self.seed}/{number}")
            (step,) = chance.choices(self._steps, self._weights)
            await step(chance)

    # --- alerts ----------------------------------------------------------------------------------------------

    def newest(self, alert: Alert) -> bool:
        """Whether its key, if it has one, means this alert."""
        same = [
            one
            for one in self.alerts
            if one.key == alert.key
            and (self.house.is_shared or one.dialect == alert.dialect)
            and one.state not in ("refused", "new")
        ]
        return not alert.key or not same or same[-1] is alert

    def _live(self, *states: str) -> list[Alert]:
        known = [alert for alert in self.alerts if alert.is_known and self.newest(alert)]
        return [alert for alert in known if alert.state in states]

    async def _begin(self, chance: random.Random) -> None:
        """A new alert, some of them by a key that was used before."""
        caller = chance.choice(self.house.callers)
        over = [one.key for one in self._live("closed") if one.key and one.dialect == caller]
        is_again = over and chance.random() < 0.5 and "refuse" not in self.house.features
        await self._open(caller, chance, chance.choice(over) if is_again else "")

    async def _open(self, caller: str, chance: random.Random, key: str = "") -> Alert:
        number = len(self.alerts) + 1
        key = key or (f"k{number}" if caller in BY_KEY else "")
        alert = Alert(f"A{number}x{chance.randint(100, 999)}", caller, key, self.house.passing.now())
        self.alerts.append(alert)
        async with alert.lock:
            await self._do(alert, "create", caller, chance)
        return alert

    async def _speak(self, chance: random.Random) -> None:
        """Something is done with an alert, where keys are shared also in another vendor's words."""
        live = self._live("open", "closed")[-RECENT:]
        if not live:
            await self._begin(chance)
            return
        alert = chance.choice(live)
        dialect = alert.dialect
        if self.house.is_shared and dialect in ANY_KEY and chance.random() < 0.4:
            dialect = chance.choice([one for one in self.house.callers if one in ANY_KEY])
        await self._some(alert, chance, dialect)

    async def _some(self, alert: Alert, chance: random.Random, dialect: str = "", *, but: tuple[str, ...] = ()) -> None:
        can = [what for what in possible(alert, dialect or alert.dialect) if what not in but]
        if can:
            await self._do(alert, chance.choice(can), dialect or alert.dialect, chance)

    async def _do(self, alert: Alert, what: str, dialect: str, chance: random.Random) -> None:
        revision = alert.revision
        alert.revision += what in ("update", "close with words")
        if what == "note":
            alert.notes.append(f"note {len(alert.notes)} on {alert.mark}")
        route = self.house.routes[dialect]
        try:
            status, answer, headers = await self.house.ask(said(alert, what, dialect, chance, self.house.passing))
        except httpx.HTTPError as error:
            status, answer, headers = 503, repr(error), httpx.Headers()
        alert.done.append(f"{what}{f' by {dialect}' * (dialect != alert.dialect)} {status}")
        if not 200 <= status < 300:
            self._refused(alert, what, status, revision)
            return
        now = self.house.passing.now()
        if dialect == "alertmanager" and what != "close":
            alert.is_quiet |= any(key == alert.key and now < until for key, until in self.silences)
        alert.gateway_id = alert.gateway_id or headers.get("alert-gateway-id", "")
        if what == "create":
            alert.state, alert.opens = "open", 1
            alert.must, alert.standby = set(route.to), set(route.fallback)
            await self._named(alert, answer)
        else:
            alert.may |= {*route.to}
            alert.standby |= {*route.fallback}
            alert.happened(what, now)

    def _refused(self, alert: Alert, what: str, status: int, revision: int) -> None:
        alert.revision = revision
        if what == "note":
            alert.notes.pop()
        if what == "create":
            alert.state = "refused"
        is_unsure = what != "create" and "refuse" in self.house.features  # an attempt before it may have been taken
        if status == 503 or is_unsure:
            alert.doubt = f"{status} at {what}"
        elif status >= 500:
            self.broken.append(f"{status} to {what} of {alert}")

    async def _named(self, alert: Alert, answer: Any) -> None:
        """Keeps the id by which its caller knows it."""
        if alert.dialect == "uptinio":
            alert.id = answer["data"]["id"]
        elif alert.dialect == "ibm_monitoring":
            alert.id = answer["alert"]["id"]
        elif alert.dialect == "livesession":
            alert.id = answer["alert_id"]
        elif alert.dialect == "jsm_ops":
            _, receipt, _ = await self.house.ask(Request("GET", f"/jsm_ops/alerts/requests/{answer['requestId']}"))
            alert.id = receipt.get("alertId")
            alert.doubt = "" if alert.id else "no id"

    # --- what happens besides --------------------------------------------------------------------------------

    async def _burst(self, chance: random.Random) -> None:
        """Several callers at once, each about an alert of its own, or two about the same."""

        async def one(alert: Alert) -> None:
            async with alert.lock:
                await self._some(alert, chance)

        self.house.note("at once:")
        several = [one(alert) for alert in self._live("open")[-8:] for _ in range(chance.choice((1, 2)))]
        new = [self._open(chance.choice(self.house.callers), chance) for _ in range(chance.randint(0, 3))]
        await asyncio.gather(*several, *new)

    async def _silence(self, chance: random.Random) -> None:
        """A silence on one alert: what is open is acknowledged by it, what comes is not told."""
        if "alertmanager" not in self.house.callers:
            return
        live = [alert for alert in self._live("open") if alert.dialect == "alertmanager"]
        key = chance.choice([*(alert.key for alert in live), f"k{len(self.alerts) + 1}"])
        seconds = chance.choice((60, 3600))
        body = {
            "matchers": [{"name": "alertname", "value": key, "isRegex": False}],
            "startsAt": self.house.passing.text(),
            "endsAt": self.house.passing.text(seconds),
            "createdBy": "ann",
            "comment": "known",
        }
        status, _, _ = await self.house.ask(Request("POST", "/alertmanager/api/v2/silences", body))
        if status == 200:
            self.silences.append((key, self.house.passing.now() + seconds))
            for alert in live:
                if alert.key == key:
                    alert.is_quiet = alert.is_acknowledged = True

    async def _trouble(self, chance: random.Random) -> None:
        """Vendors fail now and then, always, or no more."""
        verdicts = [name for name, feature in (("400", "refuse"), ("401", "hold")) if feature in self.house.features]
        kinds = [(name,) for name in (*MOMENT, SLOW, *verdicts)] + [("lost", "lost 503", "503")]
        for vendor in self.house.vendors.values():
            self._fail(vendor, chance.choice((0, 0, 0.2, 0.5, 1.0)), chance.choice(kinds))

    def _fail(self, vendor: Vendor, rate: float, kinds: tuple[str, ...]) -> None:
        vendor.rate, vendor.kinds = rate, kinds
        self.had_faults |= rate > 0
        self.house.note(f"{vendor.name} fails at {rate:.0%} of requests: {kinds}" if rate else f"{vendor.name} is well")

    async def _pause(self, chance: random.Random) -> None:
        await asyncio.sleep(chance.choice((0.01, 0.05, 0.15)))

    async def _kill(self, chance: random.Random) -> None:
        await self.house.kill()

    async def _reload(self, chance: random.Random) -> None:
        """An upstream is taken out, all are back, or the routes are others."""
        house, what = self.house, chance.random()
        if what < 0.4 and len(house.present) > 1:
            house.present.remove(chance.choice(house.present))
            house.routes = {caller: route.among(house.present) for caller, route in house.routes.items()}
        elif what < 0.7:
            house.present = list(house.vendors)
        else:
            house.routes = {caller: house.route(chance) for caller in house.callers}
        await house.reload()

    async def _later(self, chance: random.Random) -> None:
        await self.house.skip(chance.choice((30, 70, 150, 700)))

    async def _forget(self, chance: random.Random) -> None:
        """Somebody at a vendor deletes something there."""
        vendor = chance.choice(list(self.house.vendors.values()))
        if thing := vendor.forget():
            self.house.note(f"{vendor.name} is made to forget {thing}")
            for alert in self.alerts:
                if alert.mark in thing.marks:
                    alert.forgotten.add(vendor.name)
                    alert.lost.add(vendor.name)

    async def _lost(self, chance: random.Random) -> None:
        """The answers to the next things that are said are lost, and more is said before they are said again."""
        caller = chance.choice(self.house.callers)
        live = [alert for alert in self._live("open") if alert.dialect == caller]
        for vendor in self.house.vendors.values():
            lost = chance.choice(("lost", "lost 503", "lost, hangs"))
            vendor.planned.extend((lost, *("503",) * chance.choice((0, 1, 3))))
        told = self.house.routes[caller].to
        planned = {one: len(one.planned) for one in self.house.vendors.values() if one.name in told}
        self.had_faults = True
        self.house.note("the answers to what is said next are lost")
        is_new = not live or chance.random() < 0.6
        alert = await self._open(caller, chance) if is_new else chance.choice(live)
        for _ in range(chance.choice((1, 1, 2, 3))):
            if alert.is_known:
                await self._some(alert, chance, but=() if chance.random() < 0.3 else ENDING)
        await self._heard(planned)

    async def _heard(self, planned: dict[Vendor, int]) -> None:
        """Waits until each vendor has met one of its planned faults, but not for ever: some may have nothing to hear.
        Else a busy machine says the first of it only when all are well again."""
        until = asyncio.get_running_loop().time() + HEARD
        while any(len(vendor.planned) == count for vendor, count in planned.items()):
            if asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(0.02)

    async def _again(self, chance: random.Random) -> None:
        """A key is used again while the end of the alert before it waits."""
        live = [alert for alert in self._live("open") if alert.key and "close" in CALLERS[alert.dialect][1]]
        if not live or "refuse" in self.house.features:
            return
        alert = chance.choice(live)
        for vendor in self.house.vendors.values():
            if chance.random() < 0.7:
                vendor.planned.extend(chance.choices(MOMENT, k=chance.choice((1, 2, 4))))
        self.had_faults = True
        self.house.note("faults wait for the end of an alert, and for what its key means next")
        for _ in range(chance.choice((1, 1, 2))):
            await self._do(alert, "close", alert.dialect, chance)
            if not alert.is_known or alert.state != "closed":
                return
            alert = await self._open(alert.dialect, chance, alert.key)
            if not alert.is_known:
                return
            if chance.random() < 0.3:
                await self._some(alert, chance, but=ENDING)

    async def _outage(self, chance: random.Random) -> None:
        """Nobody whom a caller's alerts go to works, until a fallback's turn has come, or nearly."""
        routes = self.house.routes
        caller = chance.choice([one for one in routes if routes[one].fallback] or list(routes))
        for name in routes[caller].to:
            self._fail(self.house.vendors[name], 1.0, (chance.choice(MOMENT),))
        alert = await self._open(caller, chance)
        for _ in range(chance.choice((0, 0, 1, 2))):
            if alert.is_known:
                await self._some(alert, chance)
        await self.house.skip(chance.choice((60, 130, 130)))
        for _ in range(chance.choice((0, 0, 1, 2))):
            if alert.is_known:
                await self._some(alert, chance)
        for name in routes[caller].to:
            self._fail(self.house.vendors[name], 0.0, ())

    # --- the end ---------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """All vendors are well and in the configuration; what waits goes out, dead letters are sent again, silences
        end, and what a silence kept back is said again."""
        house = self.house
        for vendor in house.vendors.values():
            vendor.rate = 0.0
            vendor.planned.clear()
        house.note("all are well")
        if len(house.present) < len(house.vendors):
            house.present = list(house.vendors)
            await house.reload()
        await house.settle()
        await house.skip(150)
        await house.settle()
        for _ in range(3):
            if not house.outbox("dead"):
                break
            await house.ask(Request("POST", "/-/retry", {"dead": True, "who": "search"}, True))
            await house.settle()
        if self.silences:
            await self._unsilenced()
        left = await house.settle()
        self.broken += [f"still waits, though all are well: {row.operation} for {row.upstream}" for row in left]

    async def _unsilenced(self) -> None:
        await self.house.skip(4000)
        await self.house.settle()
        for alert in self._live("open"):
            if alert.dialect == "alertmanager":
                await self._do(alert, "repeat", alert.dialect, random.Random(0))
                alert.is_acknowledged &= not alert.is_quiet
        await self.house.settle()
        await self.house.skip(70)
