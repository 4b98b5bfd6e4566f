"""How often, and how far back, a replica looks for what others have delivered to an upstream that it holds."""

from __future__ import annotations

from gateway.delivery.replicas import HEAR_EVERY, OVERLAP, OtherReplicas


def test_a_look_is_made_every_few_seconds() -> None:
    others = OtherReplicas()
    assert [others.is_due(now) for now in (100.0, 100.0 + HEAR_EVERY / 2, 100.0 + HEAR_EVERY)] == [True, False, True]


def test_a_look_goes_back_to_where_the_last_one_for_the_same_refusals_ended() -> None:
    """A further refusal, or one that is not looked for any more and comes back, is looked for from its own time."""
    others, now = OtherReplicas(), 1_000_000
    assert others.since({"a": 900_000}) == 900_000
    others.looked({"a": 900_000}, now)
    assert others.since({"a": 900_000}) == now - OVERLAP
    assert others.since({"a": 900_000, "b": 950_000}) == 900_000
    others.looked({"a": 900_000, "b": 950_000}, now + 4_000)
    assert others.since({"b": 950_000}) == now + 4_000 - OVERLAP
    assert others.since({"b": now + 3_000}) == now + 3_000
