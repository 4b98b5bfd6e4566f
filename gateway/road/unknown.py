"""The road of a command for an alert that is not known here, as it may have been opened before the gateway was there:
upstreams that find alerts by key are told what can be told of an alert of which only the key is known.

It must not know any vendor, HTTP, or SQL.
"""

from __future__ import annotations

from gateway.asked import Command
from gateway.codes import Code
from gateway.config.choosing import key_entry
from gateway.config.config import Config, Upstream
from gateway.config.routing import Choice, choose
from gateway.ids import MakeId
from gateway.road.accepted import Accepted, Caller, Order, command_row
from gateway.road.outbox import Outbox
from gateway.road.targets import Targets, hold, lane_of
from gateway.road.terms import TELLING
from gateway.store import CommandBody, DeliveryRow, Tx


class Unknown:
    """Accepts commands for unknown alerts under one configuration."""

    def __init__(self, config: Config, ids: MakeId, targets: Targets, outbox: Outbox) -> None:
        self._config = config
        self._ids = ids
        self._targets = targets
        self._outbox = outbox

    def accept(self, tx: Tx, order: Order) -> Accepted:
        """Accepts a command for a key that is not open here, in a transaction."""
        asked, caller = order.asked, order.caller
        assert asked.ref
        accepted = Accepted(command=order.command, alert=None)
        if asked.is_resend and asked.ref.key and _has_ended(tx, caller, asked.ref.key, order.command):
            return accepted
        chosen = choose(self._config.routes, caller.dialect.name, caller.name, None) or ()
        hold(tx, self._targets.lanes(chosen, caller, {}, asked.ref.key))
        for choice in chosen:
            accepted.primary = accepted.primary or choice.upstream
            delivery = self._blind(tx, order, choice)
            if delivery is None:
                continue
            if not self._outbox.cut_loop(order.via, delivery, accepted) and not self._void_keyless(delivery, accepted):
                accepted.deliveries.append(delivery)
            accepted.fanout += 1
            tx.insert_delivery(delivery)
        said = CommandBody(
            said=dict(asked.verbatim),
            comment=asked.comment,
            dropped=asked.dropped,
            via=order.via,
            trace=order.trace,
        )
        tx.insert_command(command_row(order, asked.operation, None, said, accepted.fanout))
        return accepted

    def _blind(self, tx: Tx, order: Order, choice: Choice) -> DeliveryRow | None:
        """The delivery to an upstream for an alert of which only the key is known; None where there is nothing to tell,
        or where another scope's alert has the lane: that is not this caller's to end."""
        asked, caller = order.asked, order.caller
        upstream = self._config.upstreams[choice.upstream]
        key = asked.ref.key if asked.ref else None
        if not key or not _can_be_told(upstream, asked, caller):
            return None
        named = lane_of(upstream, choice, caller, f"key {upstream.dialect.same_key(key)}", {})
        tx.lock(f"lane {upstream.name} {named}")
        if tx.lane_holders(upstream.name, named):
            return None
        newest = tx.newest_in_lane(upstream.name, named)
        if asked.is_resend and newest and newest.operation == asked.operation:
            return None
        return DeliveryRow(
            id=self._ids(above=newest.id if newest else 0),
            command=order.command,
            alert=None,
            upstream=upstream.name,
            lane=named,
            key=key,
            operation=asked.operation,
            state="waiting",
            created_at=order.now,
            due=order.now,
        )

    def _void_keyless(self, delivery: DeliveryRow, accepted: Accepted) -> bool:
        """Voids a delivery for an unknown alert if the upstream's key is chosen by what only the alert could say: it
        would wait for ever. Returns whether it did."""
        keys = self._config.upstreams[delivery.upstream].keys
        lacking = keys.lacks("") if keys and not key_entry(delivery.lane) else ""
        if not lacking:
            return False
        delivery.state, delivery.finished_at = "void", delivery.created_at
        delivery.reason = f"an alert that is not known here: {lacking}"
        delivery.code = accepted.dead[delivery.upstream] = Code.NO_KEY.value
        accepted.reports[delivery.upstream] = ()
        return True


def _has_ended(tx: Tx, caller: Caller, key: str, before: int) -> bool:
    """Whether the key had an alert that has ended: some senders go on telling the end for a while."""
    return tx.last_alert_by_key(caller.scope, caller.dialect.same_key(key), before) is not None


def _can_be_told(upstream: Upstream, asked: Command, caller: Caller) -> bool:
    """Whether an upstream can be told of an alert of which only the key is known. What the alert is can be said only in
    the caller's own words then; and so can its end where the upstream makes nothing of keys."""
    outbound = upstream.dialect.outbound
    if outbound.addressed_by != "key" or asked.operation not in outbound.calls:
        return False
    if upstream.dialect.name == caller.dialect.name:
        return outbound.ends_by_key or bool(asked.comment)
    return outbound.ends_by_key and asked.operation not in TELLING
