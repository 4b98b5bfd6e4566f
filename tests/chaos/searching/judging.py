"""What must hold at the end of a play: at every vendor, each alert as its caller means it, once, and nowhere else."""

from __future__ import annotations

from tests.chaos.searching.alerts import Alert
from tests.chaos.searching.house import FALLBACK
from tests.chaos.searching.play import Play
from tests.chaos.searching.things import Thing, Vendor
from tests.chaos.searching.words import Request

SLACK = 5.0
"""Seconds around a fallback's turn, in the time of the play, in which it may have been told or not."""


class Judge:
    """Compares a play's model with its vendors; `broken` says every difference."""

    def __init__(self, play: Play) -> None:
        self.play, self.house = play, play.house
        self.broken = list(play.broken)
        dead = ((str(row.alert), row.upstream) for row in self.house.outbox("dead"))
        self._dead = set(dead)

    async def judge(self) -> list[str]:
        """Everything that is not as it must be."""
        for vendor in self.house.vendors.values():
            self.broken += vendor.broken
            if vendor.is_one_alert:
                mixed = [thing for thing in vendor.things if len(thing.marks) > 1]
                self.broken += [f"two alerts are one at {vendor.name}, {vendor.dialect}: {thing}" for thing in mixed]
        for alert in self.play.alerts:
            if alert.doubt or alert.state == "new":
                continue
            for vendor in self.house.vendors.values():
                if (alert.gateway_id, vendor.name) not in self._dead:
                    self._compare(alert, vendor)
            await self._read(alert)
        status, report, _ = await self.house.ask(Request("GET", "/-/report", None, True))
        if status != 200:
            self.broken.append(f"the ledger: {status} {report}")
        self.broken += self.house.logged()
        return self.broken

    def _compare(self, alert: Alert, vendor: Vendor) -> None:
        known, there = vendor.known(alert.mark), vendor.open(alert.mark)
        if vendor.gives_ids and vendor.name in alert.standby and len(known) > 1:
            return  # what was made twice is not known by two ids
        wrong = [*self._state(alert, vendor, there), *self._pages(alert, vendor, known)]
        if alert.state == "open":
            wrong += [text for thing in there for text in self._content(alert, vendor, thing)]
            wrong += self._notes(alert, vendor, known) if there else []
        if vendor.name in alert.standby - alert.must - alert.may and "reload" not in self.house.features:
            wrong += self._turn(alert, vendor, known)
        if wrong:
            shown = ", ".join(map(str, known)) or "nothing"
            self.broken.append(f"{' and '.join(wrong)} at {vendor.name}, {vendor.dialect}: {alert}; there: {shown}")

    def _state(self, alert: Alert, vendor: Vendor, there: list[Thing]) -> list[str]:
        if alert.state == "open":
            # An acknowledged alert whose create was refused is not made again, as nobody is to be woken for it.
            is_excused = vendor.name in alert.lost or (alert.is_acknowledged and "refuse" in self.house.features)
            missing = vendor.name in alert.must and not there and not is_excused
            chosen = alert.must | alert.may | alert.standby
            strange = there and vendor.name not in chosen
            return ["MISSING"] * missing + ["DOUBLE"] * (len(there) > 1) + ["MISROUTED"] * bool(strange)
        # A rule of IBM's that is switched off stays a rule at LiveSession, which cannot switch one off.
        stays = vendor.dialect == "livesession" and alert.dialect == "ibm_monitoring" and not alert.is_deleted
        return ["NOT CLOSED"] * (bool(there) and not stays)

    def _pages(self, alert: Alert, vendor: Vendor, known: list[Thing]) -> list[str]:
        # What a silence kept back is told anew once it is over.
        is_judged = alert.state != "refused" and not alert.is_quiet and vendor.is_one_alert
        is_judged &= vendor.name not in alert.forgotten
        pages = sum(len(thing.pages) for thing in known)
        return [f"WOKEN {pages} times for {alert.opens}"] * (is_judged and pages > alert.opens)

    def _content(self, alert: Alert, vendor: Vendor, thing: Thing) -> list[str]:
        wrong = ["STALE TEXT"] if thing.text and alert.text not in thing.text else []
        # To a vendor without that operation a note says that it is no longer acknowledged.
        can_be_so = alert.is_acknowledged or not alert.was_taken_back or vendor.takes_back
        is_judged = vendor.can_acknowledge and vendor.name in alert.must - alert.forgotten and can_be_so
        is_judged &= "refuse" not in self.house.features  # what was refused is made again, and acknowledged nowhere
        if is_judged and thing.is_acknowledged != alert.is_acknowledged:
            wrong.append("ACKNOWLEDGED" if thing.is_acknowledged else "NOT ACKNOWLEDGED")
        return wrong

    def _notes(self, alert: Alert, vendor: Vendor, known: list[Thing]) -> list[str]:
        if not vendor.has_notes:
            return []
        wrong = []
        can_miss = "refuse" in self.house.features or vendor.name not in alert.must - alert.forgotten
        for note in alert.notes:
            count = sum(note in text for thing in known for text in thing.notes)
            if count > 1 and not self.play.had_faults and not self.house.kills:
                wrong.append(f"{note!r} {count} TIMES")
            if not count and not can_miss:
                wrong.append(f"{note!r} LOST")
        return wrong

    def _turn(self, alert: Alert, vendor: Vendor, known: list[Thing]) -> list[str]:
        """Whether its fallback was told only where nobody else was in time."""
        turn = alert.made_at + FALLBACK
        things = [thing for name in alert.must for thing in self.house.vendors[name].known(alert.mark)]
        if any(self.house.vendors[name].confirms_later for name in alert.must):
            return []  # when it did is not known here
        if any(len(thing.marks) > 1 for thing in things):
            return []  # a rule that an earlier alert left there: when it was told of this one is not known either
        told = [thing.told_at for thing in things if thing.told_at and thing.told_at < turn - SLACK]
        if not all(map(self.house.passing.is_skipped_after, told)):
            return ["FALLBACK TOLD THOUGH THE OTHERS WERE IN TIME"] * bool(known)
        stayed = alert.closed_at is None or alert.closed_at > turn + SLACK
        untold = not any(thing.made_at < turn + SLACK for thing in things)
        has_failed = any(at > alert.made_at - FALLBACK for at in vendor.failed_at)  # and others took it before it could
        is_excused = alert.is_acknowledged or alert.state == "refused" or has_failed
        return ["FALLBACK NOT TOLD"] * (stayed and untold and not known and not is_excused)

    # --- what callers are shown ------------------------------------------------------------------------------

    async def _read(self, alert: Alert) -> None:
        if not alert.is_known or not self.play.newest(alert) or alert.lost:
            return
        shown = ""
        is_open = alert.state == "open"
        if alert.dialect == "uptinio":
            status, body, _ = await self.house.ask(Request("GET", f"/uptinio/alerts/{alert.id}"))
            one = body.get("data", {})
            is_so = alert.text in one.get("message", "") and (one.get("status") == "active") == is_open
            shown = "" if is_so else f"{status} {body}"
        elif alert.dialect == "ibm_monitoring" and not alert.is_deleted:
            status, body, _ = await self.house.ask(Request("GET", f"/ibm_monitoring/api/alerts/{alert.id}"))
            one = body.get("alert", {})
            shown = "" if alert.text in one.get("name", "") and one.get("enabled") == is_open else f"{status} {body}"
        elif alert.dialect == "opsgenie" and is_open:
            path = f"/opsgenie/v2/alerts/{alert.key}?identifierType=alias"
            status, body, _ = await self.house.ask(Request("GET", path))
            one = body.get("data", {})
            is_so = alert.text in one.get("message", "") and one.get("acknowledged") == alert.is_acknowledged
            shown = "" if is_so else f"{status} {body}"
        if shown:
            self.broken.append(f"READ DIFFERENTLY: {alert} is shown as {shown}")
        if alert.gateway_id:
            status, _, _ = await self.house.ask(Request("GET", f"/-/alerts/{alert.gateway_id}", None, True))
            self.broken += [f"NO TRACE: {status} of {alert}"] * (status != 200)
