"""Lanes and states: a state machine that accepts commands, takes deliveries and ends them in every order, on a real
store.

Two callers of one dialect share two upstreams, one that finds alerts by key and one that issues ids. Beside the
gateway's record there is `Vendor`, a model of what each upstream holds. What the two must always agree on is in
canonical.md, *The road of a command*, and is checked after every step. Nothing is awaited and nothing is sent:
`Road.accept`, `prepare` and `settle` are plain functions of a transaction.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.errors import Problem, ProblemKind
from gateway.outcome import Again, Delivered, Missing, Outcome, Rejected
from gateway.road.preparing import Shipment
from gateway.road.settling import Verdict
from gateway.road.terms import ENDING, TRIED_AT
from gateway.road.undoing import undo
from gateway.store import AlertRow, DeliveryFilter, DeliveryRow
from tests.engine.desks import Desk, create

KEYS = ("disk", "DISK", "net")
HOWS = ["taken", "rejected", "again", "missing", "lost"]
"""How an attempt ends: success, refusal, retry, no such alert there, or success whose answer was lost."""
NEVER = {("present", "dead"), ("present", "waiting"), ("gone", "waiting"), ("dead", "absent")}
"""State changes of a target, between two steps, that the design excludes."""


class Machine(RuleBasedStateMachine):
    """The state machine: everything that can happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.owed: dict[int, DeliveryRow] = {}
        self.sent: dict[tuple[str, str], int] = {}
        self.under_way: dict[tuple[str, str], Shipment] = {}
        self.lost: set[int] = set()
        self.known: dict[tuple[str, str], int] = {}
        self.alerts: set[int] = set()
        self.states: dict[tuple[int, str], str] = {}
        self.lanes: dict[tuple[int, str], str] = {}
        self.before: dict[int, AlertRow | None] = {}

    # --- commands --------------------------------------------------------------------------------------------

    def ask(self, caller: str, asked: Command, before: AlertRow | None) -> None:
        """Accepts a command, and records the deliveries that it must lead to."""
        try:
            accepted = self.desk.accept(caller, asked)
        except Problem as problem:
            if problem.kind not in (ProblemKind.NOT_FOUND, ProblemKind.CONFLICT):
                raise
            return
        self.before[accepted.command] = before
        new = self.desk.tx.deliveries_of(accepted.command)
        assert len({one.upstream for one in new}) == len(new), "one delivery per command and upstream"
        self.owed |= {one.id: one for one in new}
        if accepted.alert:
            self.alerts.add(accepted.alert.id)
            self.known[accepted.alert.scope, accepted.alert.shown] = accepted.alert.id

    @rule(caller=st.sampled_from(["ci", "ops"]), key=st.sampled_from([*KEYS, None]), word=st.sampled_from("abc"))
    def create(self, caller: str, key: str | None, word: str) -> None:
        """An ALERT, which is an update where the key is open."""
        held = self.desk.tx.alert_by_key(f"ilert/{caller}", key.lower()) if key else None
        self.ask(caller, create(key, word), held)

    @rule(
        caller=st.sampled_from(["ci", "ops"]),
        key=st.sampled_from(KEYS),
        operation=st.sampled_from([Operation.ACKNOWLEDGE, Operation.RESOLVE, Operation.RESOLVE, Operation.COMMENT]),
    )
    def by_key(self, caller: str, key: str, operation: Operation) -> None:
        """An ACCEPT, RESOLVE or COMMENT, whether or not the key is open."""
        before = self.desk.tx.alert_by_key(f"ilert/{caller}", key.lower())
        self.ask(caller, Command(operation=operation, ref=Ref(key=key), comment="c"), before)

    @precondition(lambda self: self.known)
    @rule(
        caller=st.sampled_from(["ci", "ops"]),
        data=st.data(),
        word=st.sampled_from("abcd"),
        operation=st.sampled_from(
            [
                Operation.UPDATE,
                Operation.ACKNOWLEDGE,
                Operation.RESOLVE,
                Operation.REOPEN,
                Operation.DELETE,
                Operation.COMMENT,
            ]
        ),
    )
    def by_id(self, caller: str, data: st.DataObject, word: str, operation: Operation) -> None:
        """Any operation, by any id that any party used, from either caller."""
        scope, name = data.draw(st.sampled_from(sorted(self.known)))
        patch = {"summary": word} if operation is Operation.UPDATE else {}
        asked = Command(operation=operation, ref=Ref(id=name), patch=patch, comment="c")
        if scope != f"ilert/{caller}":
            with pytest.raises(Problem) as caught:
                self.desk.accept(caller, asked)
            assert caught.value.kind is ProblemKind.NOT_FOUND
            return
        self.ask(caller, asked, self.desk.tx.alert_by_id(scope, name))

    # --- deliveries ------------------------------------------------------------------------------------------

    @rule(upstream=st.sampled_from(["bykey", "byid"]), data=st.data())
    def take(self, upstream: str, data: st.DataObject) -> None:
        """The dispatcher takes a delivery that is due; its lane is busy until the delivery ends."""
        free = [row for row in self.desk.due(upstream) if (upstream, row.lane) not in self.under_way]
        if free:
            self.begin(data.draw(st.sampled_from(free)))

    def begin(self, row: DeliveryRow) -> Shipment:
        """Takes one delivery; it must be the oldest of its lane."""
        lane = (row.upstream, row.lane)
        older = [one for one in self.owed.values() if (one.upstream, one.lane) == lane and one.id < row.id]
        for one in older:
            found = self.desk.tx.delivery(one.id)
            assert found is None or found.state != "waiting", "a command overtook another in its lane"
        assert row.id >= self.sent.get(lane, 0)
        self.sent[lane] = row.id
        shipment = self.desk.take(row)
        self.under_way[lane] = shipment
        target = self.desk.target(row.alert, row.upstream) if row.alert else None
        if target and target.state in ("absent", "dead", "gone") and shipment.sending:
            allowed: tuple[Operation, ...] = (Operation.CREATE,)
            if row.key:
                allowed += (Operation.UPDATE, Operation.REOPEN)
            if row.key and target.seen.get(TRIED_AT) is not None:  # its answer was lost: it may be there, and is ended
                allowed += ENDING
            assert shipment.operation in allowed, f"{shipment.operation} was sent where the alert is {target.state}"
        return shipment

    @rule(upstream=st.sampled_from(["byid", "bykey"]), data=st.data(), how=st.sampled_from(HOWS))
    def send(self, upstream: str, data: st.DataObject, how: str) -> None:
        """A delivery is taken and its attempt ends, with nothing in between."""
        free = [row for row in self.desk.due(upstream) if (upstream, row.lane) not in self.under_way]
        if free:
            row = data.draw(st.sampled_from(free))
            self.begin(row)
            self.finish((upstream, row.lane), how)

    @rule(how=st.sampled_from(["taken", "rejected"]))
    def send_all(self, how: str) -> None:
        """Every delivery that is due is sent, with the same outcome."""
        for row in [row for name in self.desk.config.upstreams for row in self.desk.due(name)]:
            if (row.upstream, row.lane) not in self.under_way:
                self.begin(row)
                self.finish((row.upstream, row.lane), how)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(HOWS))
    def end(self, data: st.DataObject, how: str) -> None:
        """An attempt ends in one of the ways of `HOWS`."""
        self.finish(data.draw(st.sampled_from(sorted(self.under_way))), how)

    def finish(self, lane: tuple[str, str], how: str) -> None:
        """Ends the attempt that is under way in a lane."""
        shipment = self.under_way.pop(lane)
        row = shipment.delivery
        if how == "rejected" and row.id in self.lost:  # a vendor does not refuse what it has done already
            how = "again"
        if shipment.sending is None:
            verdict = self.desk.end(shipment, None)
            assert verdict.state in ("void", "dead")
            if shipment.operation in (Operation.ACKNOWLEDGE, *ENDING):
                self.owes_no_older_create(row)
        elif how in ("taken", "lost"):
            outcome = self.desk.taken(shipment)
            self.learn(row, outcome if how == "taken" else None)
            self.lost |= {row.id} if how == "lost" else set()
            if how == "lost" and shipment.operation is Operation.CREATE:
                shipment = replace(shipment, tried_at=shipment.tried_at or self.desk.now)
            verdict = self.desk.end(shipment, outcome if how == "taken" else Again(reason="reset"))
            if how == "taken" and shipment.operation is Operation.CREATE:
                self.owes_no_older_create(row)
        elif how == "missing" and row.upstream == "byid" and shipment.operation is not Operation.CREATE:
            assert shipment.sending
            self.desk.vendors["byid"].objects.pop(shipment.sending.ids["id"], None)
            verdict = self.ended_missing(shipment)
        elif how == "rejected":
            verdict = self.desk.end(shipment, Rejected(reason="400 no"))
            assert verdict.state == "dead" or self.was_merged(row)
            self.undo_if_all_refused(row.command)
        else:
            verdict = self.desk.end(shipment, Again(reason="503"))
            assert verdict.state in ("again", "dead") or self.was_merged(row)

    def was_merged(self, row: DeliveryRow) -> bool:
        """Whether a delivery was merged, while under way, into a newer update."""
        found = self.desk.tx.delivery(row.id)
        return found is not None and found.state == "merged"

    def owes_no_older_create(self, row: DeliveryRow) -> None:
        """An update at a dead target is sent as a create, and voids the dead create; acknowledge, resolve and delete
        are void too."""
        chosen = DeliveryFilter(state="dead", upstream=row.upstream, alert=row.alert, limit=1000)
        older = [one for one in self.desk.tx.deliveries(chosen) if one.id < row.id] if row.alert else []
        assert not [one for one in older if one.operation == "create"], "a dead create is still owed"

    def learn(self, row: DeliveryRow, outcome: Outcome | None) -> None:
        """Ids that the vendor issued, and whose answer arrived, are ids of the alert from now on."""
        if isinstance(outcome, Delivered) and row.alert is not None:
            held = self.desk.tx.alert(row.alert)
            self.known |= {(held.scope, name): row.alert for name in outcome.ids.values()} if held else {}

    def ended_missing(self, shipment: Shipment) -> Verdict:
        """404: resolve and delete count as delivered; an update of an open alert is sent as a create."""
        row = shipment.delivery
        held = self.desk.tx.alert(row.alert) if row.alert else None
        verdict = self.desk.end(shipment, Missing())
        if self.was_merged(row):
            return verdict
        if shipment.operation in ENDING:
            assert verdict.state == "delivered"
        elif held and held.is_open and shipment.operation is Operation.UPDATE:
            assert verdict.state == "again"
            assert self.desk.take(row).operation is Operation.CREATE
        return verdict

    def undo_if_all_refused(self, command: int) -> None:
        """A command that every upstream refused is undone where its caller waits, unless other commands came since."""
        made = self.desk.tx.deliveries_of(command)
        found = self.desk.tx.command(command)
        assert found
        later = [one for one in self.desk.tx.commands(found.alert or 0) if one.id > command]
        if later or found.alert is None or not all(one.state == "dead" for one in made):
            return
        row, before = self.desk.tx.alert(found.alert), self.before[command]
        assert row
        lanes = [(target.upstream, target.lane) for target in self.desk.tx.targets(row.id)]
        held_here = self.desk.tx.alert_by_key(row.scope, row.key) if row.key else None
        if (held_here and held_here.id != row.id) or any(
            set(self.desk.tx.lane_holders(*lane)) - {row.id} for lane in lanes
        ):
            return  # somebody else has the key by now, here or there: the tests below
        tried = (one.key is not None and one.seen.get(TRIED_AT) is not None for one in self.desk.tx.targets(row.id))
        if before is None and any(tried):
            return  # an attempt was never answered: the alert may be there
        waiting = [self.desk.tx.last_waiting(*lane) for lane in lanes]
        if any(one and one.alert is None and one.operation in ENDING for one in waiting):
            return  # its end was asked for again, and is about to be sent
        with self.desk.connection:
            undo(self.desk.tx, found, "everybody refused it")
        for one in made:
            del self.owed[one.id]
            if one.merges:  # the deliveries merged into it wait again, though older than what was sent
                self.sent[one.upstream, one.lane] = 0
        after = self.desk.tx.alert(found.alert)
        assert after == before
        if before is None:
            self.alerts.discard(row.id)
            self.known = {name: alert for name, alert in self.known.items() if alert != row.id}
            assert row.key is None or self.desk.tx.alert_by_key(row.scope, row.key) is None
            assert self.desk.tx.alert_by_id(row.scope, row.shown) is None

    @rule(hours=st.sampled_from([0, 1, 25]))
    def wait(self, hours: int) -> None:
        """Time passes, sometimes more than `max_age`."""
        self.desk.now += 60_000 + hours * 3_600_000

    # --- what always holds -----------------------------------------------------------------------------------

    @invariant()
    def accepted_is_delivered_dead_waiting_merged_or_void(self) -> None:
        """The ledger adds up: every accepted delivery is in one of the five states, and there are no others."""
        rows = list(self.desk.connection.execute("SELECT id, state FROM deliveries"))
        counted = Counter(state for _, state in rows)
        assert {number for number, _ in rows} == set(self.owed)
        assert sum(counted[word] for word in ("delivered", "dead", "waiting", "merged", "void")) == len(self.owed)

    @invariant()
    def every_id_finds_its_alert_in_its_scope_alone(self) -> None:
        """Every id that any party used finds its alert, and nothing outside the scope is visible."""
        for (scope, name), alert in self.known.items():
            held = self.desk.tx.alert(alert)
            assert held
            found = self.desk.tx.alert_by_id(scope, name)
            assert (found.id if found else None) == (None if held.is_deleted else alert)
            other = "ilert/ops" if scope == "ilert/ci" else "ilert/ci"
            assert self.desk.tx.alert_by_id(other, name) is None

    @invariant()
    def targets_change_only_as_designed(self) -> None:
        """An alert keeps its lane at an upstream, unless it is reopened after its key has passed to another alert; its
        state there changes only as designed."""
        for alert in self.alerts:
            for target in self.desk.tx.targets(alert):
                place = (alert, target.upstream)
                step = (self.states.get(place, "absent"), target.state)
                assert step not in NEVER, f"{step} at {target.upstream}"
                self.states[place] = target.state
                first = self.lanes.setdefault(place, target.lane)
                assert target.lane in (first, f"{first}-{alert}")
                assert target.state != "present" or target.upstream == "bykey" or target.ids

    @invariant()
    def open_alerts_never_share_a_key(self) -> None:
        """Where another open alert has the key at an upstream, a new or reopened alert gets another key."""
        held = Counter(
            (target.key or "").strip().lower()
            for alert in self.alerts
            if (row := self.desk.tx.alert(alert)) and row.is_open
            for target in self.desk.tx.targets(alert)
            if target.upstream == "bykey"
        )
        assert all(count == 1 for count in held.values())

    def teardown(self) -> None:
        """Every upstream recovers: what waits is delivered, and each upstream's alerts end as the gateway's are."""
        for lane in sorted(self.under_way):
            self.finish(lane, "again")
        for _ in range(10_000):
            self.desk.now += 10_000
            heads = [row for name in self.desk.config.upstreams for row in self.desk.due(name)]
            if not heads:
                break
            for row in heads:
                self.begin(row)
                self.finish((row.upstream, row.lane), "taken")
        assert self.desk.tx.waiting() == []
        self.accepted_is_delivered_dead_waiting_merged_or_void()
        self.every_id_finds_its_alert_in_its_scope_alone()
        self.targets_change_only_as_designed()
        for alert in self.alerts:
            self.has_come_to_rest(alert)

    def has_come_to_rest(self, alert: int) -> None:
        """What is over here is over at the upstream, and what is open here and present there is open there; only what
        was refused there, or given up before it arrived, may differ."""
        row = self.desk.tx.alert(alert)
        assert row
        for target in self.desk.tx.targets(alert):
            chosen = DeliveryFilter(state="dead", upstream=target.upstream, alert=alert)
            if self.desk.tx.deliveries(chosen) or (row.is_open and target.state != "present"):
                continue
            vendor = self.desk.vendors[target.upstream]
            if target.upstream == "bykey":
                is_open = any(one.alert == alert for one in vendor.opened.values())
            else:
                name = target.ids.get("id")
                is_open = bool(name and vendor.objects.get(name, (0, False))[1])
            assert is_open is row.is_open, f"alert {alert} is {row.status}, at {target.upstream} open: {is_open}"


Machine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking so long a story takes minutes; what failed is printed whole
    suppress_health_check=list(HealthCheck),
)
TestLanes = Machine.TestCase


@pytest.mark.parametrize("other", ["ci", "ops"])
def test_undoing_a_resolve_takes_no_key_that_somebody_else_has_meanwhile(other: str) -> None:
    """canonical.md: after a resolve the same key is a new alert, and two open alerts never hold one key at an upstream;
    undoing a refused resolve must not take the key from the newer alert."""
    desk = Desk()
    first = desk.accept("ci", create("disk"))
    for row in first.deliveries:
        shipment = desk.take(row)
        desk.end(shipment, desk.taken(shipment))
    resolved = desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    newer = desk.accept(other, create("disk")).alert
    for row in resolved.deliveries:
        desk.end(desk.take(row), Rejected(reason="400 no"))
    command = desk.tx.command(resolved.command)
    assert command and newer
    with desk.connection:
        undo(desk.tx, command, "everybody refused it")
    found = desk.tx.alert_by_key(f"ilert/{other}", "disk")
    assert found and found.id == newer.id
    assert desk.tx.lane_holders("bykey", "key disk") == [newer.id]


def test_a_late_resolve_waits_its_turn_and_closes_its_own_alert() -> None:
    """guarantees.md 26: a late RESOLVE never closes a newer alert of the same key."""
    desk = Desk()
    old = desk.accept("ci", create("disk")).alert
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    new = desk.accept("ci", create("DISK")).alert
    assert old and new and old.id != new.id
    sent = []
    while heads := desk.due("bykey"):
        assert len(heads) == 1
        shipment = desk.take(heads[0])
        desk.end(shipment, desk.taken(shipment))
        sent.append((heads[0].alert, shipment.operation))
    assert sent == [(old.id, Operation.CREATE), (old.id, Operation.RESOLVE), (new.id, Operation.CREATE)]
    assert desk.vendors["bykey"].opened["disk"].alert == new.id


def test_after_a_restart_the_lane_goes_on_where_it_stopped() -> None:
    """architecture.md, Invariants: one order per lane, also across restarts and retries."""
    desk = Desk()
    desk.accept("ci", create("disk"))
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="disk")))
    [head] = desk.due("bykey")
    desk.end(desk.take(head), Again(reason="503"))
    assert desk.due("bykey") == []
    desk.now += 60_000
    assert [row.id for row in desk.due("bykey")] == [head.id]


def test_an_end_that_was_asked_for_again_is_not_undone() -> None:
    """The first resolve was refused everywhere while the second waits; if the first were undone, the alert would be
    open here only."""
    desk = Desk()
    made = desk.accept("ci", create("net"))
    for row in (*desk.due("bykey"), *desk.due("byid")):
        shipment = desk.take(row)
        desk.end(shipment, desk.taken(shipment))
    first = desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="net")))
    desk.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(key="net")))
    for row in (*desk.due("bykey"), *desk.due("byid")):
        assert desk.end(desk.take(row), Rejected(reason="400 no")).state == "dead"
    command = desk.tx.command(first.command)
    assert command and made.alert
    undo(desk.tx, command, "everybody refused it")
    [row] = desk.due("bykey")
    shipment = desk.take(row)
    desk.end(shipment, desk.taken(shipment))
    kept = desk.tx.alert(made.alert.id)
    assert kept and not kept.is_open and not desk.vendors["bykey"].opened
