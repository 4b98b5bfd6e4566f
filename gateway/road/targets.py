"""The targets of an alert, one for each upstream: its lane and key there, and which upstreams are added later.

A part of `gateway.road.road`, in its transaction. It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway.canonical import Flat, Operation, plain
from gateway.codes import Code
from gateway.config.choosing import key_entry, lane, same_entries
from gateway.config.config import Config, Upstream
from gateway.config.routing import Choice, choose
from gateway.road.accepted import Caller, Step
from gateway.road.needed import await_turn, needless
from gateway.road.terms import INSTEAD_OF, STOOD_BY, TURNS
from gateway.store import DeliveryFilter, TargetRow, Tx


class Targets:
    """Makes and changes the targets of alerts under one configuration; `invent` makes keys that cannot be guessed."""

    def __init__(self, config: Config, invent: Callable[[], str]) -> None:
        self._config = config
        self._invent = invent

    def new(self, step: Step, choice: Choice, position: int) -> TargetRow:
        """The target for an upstream that a route chose, with the lane and key that the alert will have there."""
        upstream = self._config.upstreams[choice.upstream]
        outbound = upstream.dialect.outbound
        step.accepted.routes[choice.route] = choice.why
        target = TargetRow(
            alert=step.row.id,
            upstream=choice.upstream,
            position=position,
            lane=lane_of(upstream, choice, step.caller, f"alert {step.row.id}", step.flat),
            key=None,
            state="standby" if choice.after is not None else "absent",
            route=choice.route,
            replaced=plain(choice.replaced),
            seen={} if choice.after is None else {INSTEAD_OF: choice.instead_of, TURNS: _turns(choice.afters)},
        )
        own = choice.replaced.get("dedup_key") or step.flat.get("dedup_key")
        if outbound.addressed_by == "key" or (outbound.tells_key and own):
            target.key, target.lane = self._free_key(step, upstream, choice, own or self._invent(), target.lane)
        elif step.row.key and upstream.on_resolve == "disable":
            self._revive(step, target)
        return target

    def lanes(
        self, choices: Sequence[Choice], caller: Caller, flat: Flat, key: str | None
    ) -> Iterator[tuple[str, str]]:
        """The lanes of a key at those of the chosen upstreams that are told it, each with its upstream."""
        for choice in choices:
            upstream = self._config.upstreams[choice.upstream]
            own = choice.replaced.get("dedup_key") or key
            outbound = upstream.dialect.outbound
            if own and (outbound.addressed_by == "key" or outbound.tells_key):
                about = f"key {upstream.dialect.same_key(own)}"
                yield choice.upstream, lane_of(upstream, choice, caller, about, flat)

    def _free_key(self, step: Step, upstream: Upstream, choice: Choice, key: str, like: str) -> tuple[str, str]:
        """The key the alert will have there, and its lane: this key unless another open alert has the lane, else a new
        one made of it."""
        wanted = _as_waiting(step, choice, like, f"key {upstream.dialect.same_key(key)}")
        step.tx.lock(f"lane {upstream.name} {wanted}")
        holders = step.tx.lane_holders(upstream.name, wanted)
        if all(holder == step.row.id for holder in holders):
            return key, wanted
        key = f"{key}-{step.row.id}"
        return key, same_entries(like, f"key {upstream.dialect.same_key(key)}")

    def give_way(self, step: Step, target: TargetRow, upstream: Upstream) -> None:
        """Gives a reopened alert another key at an upstream where an alert that was opened meanwhile holds its key. It
        stays on its lane while anything of it waits there: an earlier end, for one, must not overtake the reopening."""
        holders = step.tx.lane_holders(target.upstream, target.lane)
        if target.key is None or not any(holder != step.row.id for holder in holders):
            return
        suffix = f"-{step.row.id}"
        target.key = target.key.removesuffix(suffix) + suffix
        if not step.tx.is_waiting(step.row.id, target.upstream):
            target.lane = same_entries(target.lane, f"key {upstream.dialect.same_key(target.key)}")

    def _revive(self, step: Step, target: TargetRow) -> None:
        """Has the target take over the rule of the key's last alert, where that may still be there, switched off."""
        assert step.row.key
        earlier = step.tx.last_alert_by_key(step.caller.scope, step.row.key, step.row.id)
        if earlier is None or earlier.is_deleted:
            return
        for other in step.tx.targets(earlier.id):
            is_same_key = key_entry(other.lane) == key_entry(target.lane)
            if other.upstream == target.upstream and other.state not in ("gone", "dead") and is_same_key:
                target.lane, target.revives = other.lane, earlier.id

    def widened(self, step: Step, targets: list[TargetRow]) -> list[TargetRow]:
        """Returns targets for the upstreams that an update adds, as routes choose them now and did not before; none is
        taken away. A fallback that is now chosen outright no longer waits for its turn. The lanes of all are locked."""
        chosen: tuple[Choice, ...] = ()
        if step.operation is Operation.UPDATE:
            chosen = choose(self._config.routes, step.caller.dialect.name, step.caller.name, step.flat) or ()
        known = {target.upstream for target in targets}
        new = [choice for choice in chosen if choice.upstream not in known]
        lanes = self.lanes(new, step.caller, step.flat, step.flat.get("dedup_key"))
        hold(step.tx, [*((target.upstream, target.lane) for target in targets), *lanes])
        outright = {choice.upstream for choice in chosen if choice.after is None}
        for target in targets:
            if target.state == "standby" and target.upstream in outright:
                stand_down(step, target, "now chosen directly, not as a fallback")
                target.state, target.seen = "absent", {STOOD_BY: [step.command, target.seen]}
            self._stand_by_for_more(step, target, targets, new, chosen)
        return [self.new(step, choice, len(targets) + index) for index, choice in enumerate(new)]

    def _stand_by_for_more(
        self, step: Step, target: TargetRow, targets: list[TargetRow], new: Sequence[Choice], chosen: Sequence[Choice]
    ) -> None:
        """Has a fallback stand by for upstreams that join its routes, too, each turn counted from now. If it waits for
        another turn, as another upstream has yet to take the alert, it is told once for both, at the earlier time."""
        choice = next((one for one in chosen if one.upstream == target.upstream), None)
        if target.state != "standby" or choice is None or choice.after is None:
            return
        joining = {one.upstream for one in new if one.after is None}
        joined = [joining.intersection(route) for route in choice.instead_of]
        more = [list(route) for route, is_more in zip(choice.instead_of, joined, strict=True) if is_more]
        afters = [after for after, is_more in zip(choice.afters, joined, strict=True) if is_more]
        if not more:
            return
        of_this = DeliveryFilter(state="waiting", upstream=target.upstream, alert=target.alert)
        waiting = step.tx.deliveries(of_this)
        whys = [needless(step.tx, one, step.row, target, targets) for one in waiting]
        if all(whys):
            step.accepted.anew[target.upstream] = min(afters)
            stand_down(step, target, next((why.text for why in whys if why), ""))
        else:
            soonest, page = step.now + int(min(afters) * 1000), waiting[-1]  # others wait behind it
            await_turn(target, page, min(page.due, soonest))
            for one in waiting:
                one.due = one.created_at = min(one.due, soonest)
                step.tx.update_delivery(one)
        turns = [*target.seen.get(TURNS, ()), *_turns(afters, step.now)]
        target.seen = {**target.seen, INSTEAD_OF: [*target.seen.get(INSTEAD_OF, ()), *more], TURNS: turns}


def _turns(afters: Iterable[float], now: int = 0) -> list[list[float]]:
    """When a fallback's turn comes for each of its routes: after how many seconds, and at what time in milliseconds."""
    return [[after, now + int(after * 1000)] for after in afters]


def hold(tx: Tx, lanes: Iterable[tuple[str, str]]) -> None:
    """Locks lanes, each given with its upstream, for this transaction. All at once, so that they are locked in one
    order: commands of two routes that name the same upstreams the other way round would deadlock otherwise."""
    tx.lock(*{f"lane {upstream} {lane}" for upstream, lane in lanes})


def lane_of(upstream: Upstream, choice: Choice, caller: Caller, about: str, flat: Flat) -> str:
    """The lane of an alert at an upstream: one whose key is chosen from a table is one upstream per entry, and so
    is one that is told such a routing key. Where that is not told, one key means one alert whatever it is."""
    key = choice.key or upstream.entry(caller.dialect.name, caller.name, flat)
    return lane(about, key=key, to=choice.to if upstream.destination.mapping.holder("routing_key") else "")


def _as_waiting(step: Step, choice: Choice, like: str, about: str) -> str:
    """The lane about a key, with the entries of another. Earlier releases split lanes also by a routing key that the
    upstream is not told: what still waits in such a lane, the end of an alert for one, leaves before what is new."""
    split = lane(about, key=key_entry(like), to=choice.to)
    wanted = same_entries(like, about)
    return split if split != wanted and step.tx.last_waiting(choice.upstream, split) else wanted


def stand_down(step: Step, target: TargetRow, reason: str) -> None:
    """Voids the deliveries that wait for a fallback's turn."""
    for other in step.tx.deliveries(DeliveryFilter(state="waiting", upstream=target.upstream, alert=target.alert)):
        other.state, other.finished_at, other.reason, other.code = "void", step.now, reason, Code.NOT_NEEDED.value
        step.tx.update_delivery(other)
