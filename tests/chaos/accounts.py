"""Compares three accounts: what the senders were told, what the store says became of it, and what arrived upstream.

accepted = delivered + dead + waiting + merged + void; nothing acknowledged is without a delivery, nothing is delivered
that did not arrive, nothing arrives that nobody sent, and only a crash repeats anything. It must not know how a gateway
is run.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.store import DeliveryRow
from tests.chaos.load import Ledger, Told
from tests.chaos.sink import Arrival
from tests.chaos.verdicts import Verdict

OPERATIONS = {"ALERT": "create", "ACCEPT": "acknowledge", "RESOLVE": "resolve"}
STATES = ("delivered", "dead", "waiting", "merged", "void")


@dataclass
class Account:
    """The result of a run. `repeats` counts the duplicates of each crash, `unexplained` those without a crash."""

    acknowledged: int
    states: Counter[str]
    lost: list[Told] = field(default_factory=list)
    unasked: int = 0
    rekeyed: int = 0
    inverted: int = 0
    unexplained: int = 0
    repeats: Counter[int] = field(default_factory=Counter)

    @property
    def duplicates(self) -> int:
        """How many arrivals were repeats."""
        return self.unexplained + sum(self.repeats.values())

    def judge(self, verdict: Verdict, in_flight: int) -> None:
        """Adds the figures, and what is broken, to a verdict."""
        verdict.figures |= {"acknowledged": self.acknowledged, "lost": len(self.lost), "duplicates": self.duplicates}
        verdict.figures |= {name: self.states[name] for name in STATES if self.states[name]}
        shown = ", ".join(f"{one.word} {one.nonce} (told {one.status})" for one in self.lost[:3])
        verdict.hold(not self.lost, f"{len(self.lost)} acknowledged are lost, such as {shown}")
        verdict.hold(not self.states["waiting"], f"{self.states['waiting']} still wait at the end")
        verdict.hold(
            not self.states["dead"], f"{self.states['dead']} are dead letters though the upstream took everything"
        )
        verdict.hold(not self.unasked, f"{self.unasked} arrived that were never sent, or that were refused")
        verdict.hold(not self.rekeyed, f"{self.rekeyed} arrived under another key")
        verdict.hold(not self.inverted, f"{self.inverted} resolves arrived before their alerts")
        verdict.hold(not self.unexplained, f"{self.unexplained} arrived twice without a crash")
        worst = max(self.repeats.values(), default=0)
        verdict.hold(worst <= in_flight, f"a crash repeated {worst}, more than the {in_flight} in flight")
        verdict.hold(self.acknowledged > 0, "nothing was acknowledged")


def account(
    ledger: Ledger, arrived: Sequence[Arrival], rows: Sequence[DeliveryRow], crashes: Sequence[float] = ()
) -> Account:
    """Compares the senders' ledger, what arrived, and the deliveries in the store."""
    acknowledged = ledger.of("acknowledged")
    found = Account(len(acknowledged), Counter(row.state for row in rows))
    first = _arrivals(found, ledger, arrived, crashes)
    by_alert: defaultdict[tuple[str, str], list[DeliveryRow]] = defaultdict(list)
    for row in rows:
        by_alert[str(row.alert), row.operation].append(row)
    for told in acknowledged:
        kept = by_alert[told.alert, OPERATIONS[told.word]]
        is_here = (told.nonce, told.word) in first
        has_ended_otherwise = len(kept) == 1 and kept[0].state != "delivered"
        if not is_here and not has_ended_otherwise:
            found.lost.append(told)
    for told in acknowledged:
        begun, ended = first.get((told.nonce, "ALERT")), first.get((told.nonce, "RESOLVE"))
        # An alert that ended before it could be sent need not be; its end is sent if an attempt may have created it.
        is_folded = begun is None and any(row.state == "void" for row in by_alert[told.alert, "create"])
        is_early = ended is not None and (begun is None or begun > ended) and not is_folded
        found.inverted += told.word == "RESOLVE" and is_early
    return found


def _arrivals(
    found: Account, ledger: Ledger, arrived: Sequence[Arrival], crashes: Sequence[float]
) -> dict[tuple[str, str], float]:
    """Returns when each request first arrived; adds repeats and arrivals that should not be to the account."""
    asked = {(one.nonce, one.word): one for one in ledger.told if one.fate != "refused"}
    keys: dict[str, str] = {}
    first: dict[tuple[str, str], float] = {}
    last: dict[tuple[str, str], float] = {}
    for one in arrived:
        what = (one.summary, one.word)
        told = asked.get(what)
        if told is None:
            found.unasked += 1
            continue
        key = keys.setdefault(one.summary, one.key)
        found.rekeyed += not one.key or one.key != key or (told.has_key and one.key != told.nonce)
        if what in first:
            crash = bisect.bisect_right(crashes, one.at)
            if crash and crashes[crash - 1] >= last[what]:
                found.repeats[crash] += 1
            else:
                found.unexplained += 1
        first.setdefault(what, one.at)
        last[what] = one.at
    return first
