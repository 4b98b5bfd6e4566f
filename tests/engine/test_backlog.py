"""Deliveries that waited for long: which are folded, pages that say that they are late, and storms of identical repeats
that are counted instead of sent. The clock is virtual; `Road.accept`, `prepare` and `settle` run on a real store, and
what the vendor receives is read from the request that its dialect would send."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import structlog
from msgspec import structs
from structlog.testing import LogCapture

from gateway.asked import Command, Ref
from gateway.canonical import Operation
from gateway.config.loading import parse
from gateway.mapping.values import from_millis
from gateway.outcome import Again, Delivered, Missing, Rejected, Request
from gateway.road import preparing
from gateway.road.preparing import Shipment
from gateway.road.requeue import drop
from gateway.road.road import Road
from gateway.road.unrecorded import doubt
from tests.engine.desks import (
    BOTH,
    CONFIG,
    FALLING_BACK,
    MINUTE,
    RESOLVE,
    Desk,
    adds_up,
    all_rows,
    create,
    drain,
    states,
    update,
)


def desk(on_backlog: str = "") -> Desk:
    """A desk whose upstreams all have this setting."""
    more = f'on_backlog = "{on_backlog}"\n' if on_backlog else ""
    return Desk(CONFIG.replace('key = "k"\n', f'key = "k"\n{more}'))


def details(shipment: Shipment) -> str:
    """The details of the page that is sent."""
    assert shipment.sending
    return str(shipment.sending.body.get("details", ""))


# --- folded --------------------------------------------------------------------------------------------------


def test_what_was_over_before_it_could_be_told_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """guarantees.md 26 and canonical.md, *The road of a command*: a trigger older than ten minutes whose resolve also
    waits is not sent; it is void, with one log line."""
    one = desk()
    one.accept("ci", create("disk"))
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    logged = LogCapture()
    everything = structlog.make_filtering_bound_logger(0)
    monkeypatch.setattr(preparing, "log", structlog.wrap_logger(None, processors=[logged], wrapper_class=everything))
    assert drain(one) == []
    assert states(one) == [("create", "void")] * 2 + [("resolve", "void")] * 2
    folded = [entry for entry in logged.entries if entry["event"] == "delivery.folded"]
    assert sorted(entry["upstream"] for entry in folded) == sorted(BOTH)
    assert adds_up(one)
    new = one.accept("ci", create("disk"))
    assert [shipment.operation for shipment in drain(one)] == [Operation.CREATE] * 2
    assert new.is_new


def test_deliver_sends_it_all_the_same_and_says_how_late_it_is() -> None:
    one = desk("deliver")
    one.accept("ci", create("disk"))
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    sent = drain(one, "bykey")
    assert [shipment.operation for shipment in sent] == [Operation.CREATE, Operation.RESOLVE]
    assert details(sent[0]).startswith("Late by 11 minutes")


@pytest.mark.parametrize("age", [9 * MINUTE, 1])
def test_what_is_younger_than_ten_minutes_is_sent(age: int) -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.accept("ci", RESOLVE)
    one.now += age
    assert [shipment.operation for shipment in drain(one, "bykey")] == [Operation.CREATE, Operation.RESOLVE]


def test_what_is_old_but_not_over_is_sent() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.now += 60 * MINUTE
    assert [shipment.operation for shipment in drain(one)] == [Operation.CREATE] * 2


@pytest.mark.parametrize("is_there", [True, False])
def test_what_an_attempt_came_to_is_known_though_a_newer_update_has_merged_it(is_there: bool) -> None:
    """An update under way is merged by a newer one: the id that its answer gives is the newer one's too. Where it finds
    the alert gone, the newer one is sent as a create, without an id."""
    one = desk()
    alert = one.accept("ci", create("disk")).alert
    assert alert
    [row] = one.due("byid")
    one.end(one.take(row), Delivered(ids={"id": "alt_1"}))
    one.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = one.due("byid")
    under_way = one.take(row)
    one.accept("ci", update(2, Ref(id=alert.shown)))
    assert ("update", "merged") in states(one, "byid")
    one.end(under_way, Delivered(ids={"id": "alt_2"}) if is_there else Missing())
    [row] = one.due("byid")
    shipment = one.take(row)
    assert shipment.sending is not None and shipment.sending.ids.get("id") == ("alt_2" if is_there else None)
    assert shipment.operation is (Operation.UPDATE if is_there else Operation.CREATE)


def test_an_update_that_makes_the_alert_is_not_merged_and_the_next_has_its_id() -> None:
    """The create was refused, so the first update makes the alert: the next one waits for the id."""
    one = desk()
    alert = one.accept("ci", create("disk")).alert
    assert alert
    [row] = one.due("byid")
    one.end(one.take(row), Rejected(reason="400 no"))
    one.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = one.due("byid")
    under_way = one.take(row)
    assert under_way.operation is Operation.CREATE
    one.accept("ci", update(2, Ref(id=alert.shown)))
    assert ("update", "merged") not in states(one, "byid")
    one.end(under_way, Delivered(ids={"id": "alt_2"}))
    [row] = one.due("byid")
    shipment = one.take(row)
    assert shipment.operation is Operation.UPDATE
    assert shipment.sending is not None and shipment.sending.ids.get("id") == "alt_2"


@pytest.mark.parametrize("upstream", BOTH)
def test_where_an_answer_was_lost_it_is_looked_for_in_the_same_words_whatever_came_since(upstream: str) -> None:
    """An ambiguous create is looked for, and made again, with the body first sent, not with that of an update that came
    since: otherwise it would not be found, or the first content would stay for good."""
    one = desk()
    alert = one.accept("ci", create("disk")).alert
    assert alert
    [row] = one.due(upstream)
    one.end(one.take(row), Rejected(reason="400 no"))
    one.accept("ci", update(1, Ref(id=alert.shown)))
    [row] = one.due(upstream)
    under_way = one.take(row)
    one.accept("ci", update(2, Ref(id=alert.shown)))
    one.end(structs.replace(under_way, tried_at=one.now), Again(reason="reset"))
    one.now += MINUTE
    [row] = one.due(upstream)
    again = one.take(row)
    assert again.tried_at is not None, "it is looked for before it is made again"
    assert again.sending and under_way.sending and again.sending.body == under_way.sending.body


def test_of_what_was_tried_before_the_end_is_told_as_it_may_be_there_already() -> None:
    """A page whose answer was lost may be open at the upstream. Where a key finds it, only its resolve is sent, which
    wakes nobody; where it takes an id, the create is sent again, which finds it."""
    one = desk()
    one.accept("ci", create("disk"))
    for upstream in BOTH:
        [row] = one.due(upstream)
        one.end(structs.replace(one.take(row), tried_at=one.now), Again(reason="reset"))
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    assert [shipment.operation for shipment in drain(one, "bykey")] == [Operation.RESOLVE]
    assert [shipment.operation for shipment in drain(one, "byid")] == [Operation.CREATE, Operation.RESOLVE]
    assert adds_up(one)


def labels(one: Desk, shipment: Shipment) -> Any:
    """The labels that are posted, at a vendor that knows an alert by them."""
    assert shipment.sending
    request = next(one.upstream("bykey").dialect.outbound.calls[shipment.operation](shipment.sending))
    assert isinstance(request, Request)
    body: Any = request.body
    return (body["alerts"] if isinstance(body, dict) else body)[0]["labels"]


@pytest.mark.parametrize("dialect", ["alertmanager", "alertmanager_webhook", "grafana"])
@pytest.mark.parametrize("is_refused", [False, True])
def test_what_was_tried_and_has_changed_since_keeps_the_words_it_is_known_by(dialect: str, is_refused: bool) -> None:
    """canonical.md: the label set of the first trigger is the identity, and is sent unchanged until the resolve. A
    first trigger whose answer was lost may be there: under other labels its end would end nothing, and after a refusal
    the alert would be there twice."""
    one = Desk(CONFIG.replace('dialect = "ilert"', f'dialect = "{dialect}"'))
    one.accept("ci", create("disk"))
    first = one.take(one.due("bykey")[0])
    one.end(structs.replace(first, tried_at=one.now), Again(reason="reset"))
    if is_refused:
        one.now += MINUTE
        one.end(one.take(one.due("bykey")[0]), Rejected(reason="400 no"))
    one.accept("ci", create("disk", "fuller"))
    one.accept("ci", RESOLVE)
    one.now += MINUTE if is_refused else 11 * MINUTE
    told = drain(one, "bykey")[0]
    assert told.operation is (Operation.CREATE if is_refused else Operation.RESOLVE)
    assert labels(one, told) == labels(one, first)


@pytest.mark.parametrize("dialect", ["alertmanager", "alertmanager_webhook", "grafana"])
def test_what_was_refused_before_is_not_what_may_be_there(dialect: str) -> None:
    """A refused trigger has made nothing. The answer to the next, with another summary, was lost: it may be there.
    Under the refused one's labels it would be made a second time, and its end would end nothing."""
    one = Desk(CONFIG.replace('dialect = "ilert"', f'dialect = "{dialect}"'))
    one.accept("ci", create("disk"))
    one.end(one.take(one.due("bykey")[0]), Rejected(reason="400 no"))
    one.now += MINUTE
    one.accept("ci", create("disk", "fuller"))
    second = one.take(one.due("bykey")[0])
    assert labels(one, second)["alertname"] == "fuller"
    one.end(structs.replace(second, tried_at=one.now), Again(reason="reset"))
    one.now += MINUTE
    assert labels(one, one.take(one.due("bykey")[0])) == labels(one, second)
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    told = drain(one, "bykey")[0]
    assert (told.operation, labels(one, told)) == (Operation.RESOLVE, labels(one, second))


@pytest.mark.parametrize("dialect", ["alertmanager", "alertmanager_webhook", "grafana"])
def test_what_a_killed_gateway_may_have_sent_keeps_the_words_that_were_sent(dialect: str) -> None:
    """A trigger says what its own caller said, whatever was accepted after it until the gateway was killed."""
    one = Desk(CONFIG.replace('dialect = "ilert"', f'dialect = "{dialect}"'))
    one.accept("ci", create("disk"))
    first = one.take(one.due("bykey")[0])
    one.accept("ci", create("disk", "fuller"))
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    doubt(one.tx, [first.delivery])
    told = drain(one, "bykey")[0]
    assert (told.operation, labels(one, told)) == (Operation.RESOLVE, labels(one, first))


def reopened_by_a_create() -> Desk:
    """A desk where an alert that had ended is opened again, which is another create at the upstream with ids."""
    needs = 'defaults = { channels = [{ kind = "slack", id = "C042" }] }'
    one = Desk(CONFIG.replace("uptinio", "livesession").replace('defaults = { resource = "mon_9" }', needs))
    made = one.accept("ci", create("disk")).alert
    assert made
    one.accept("ci", RESOLVE)
    drain(one)
    one.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=made.shown)))
    return one


def test_what_was_tried_to_be_opened_again_is_found_and_ended_where_that_is_another_create() -> None:
    one = reopened_by_a_create()
    [row] = one.due("byid")
    one.end(structs.replace(one.take(row), tried_at=one.now), Again(reason="reset"))
    one.accept("ci", RESOLVE)
    one.now += MINUTE
    assert [shipment.operation for shipment in drain(one, "byid")] == [Operation.CREATE, Operation.DELETE]
    assert adds_up(one)


def test_what_was_to_be_opened_again_and_is_over_is_not_where_that_is_another_create() -> None:
    """Nothing of it was sent: there is nothing to be found, and nothing to be ended."""
    one = reopened_by_a_create()
    one.accept("ci", RESOLVE)
    assert drain(one, "byid") == []
    assert adds_up(one)


@pytest.mark.parametrize("is_dropped", [False, True])
def test_what_changed_after_a_refused_or_dropped_reopening_is_told_and_opens_it(is_dropped: bool) -> None:
    """As after a refused or dropped create: it is open, and nobody there would hear of it any more."""
    one = desk()
    made = one.accept("ci", create("disk")).alert
    assert made
    one.accept("ci", RESOLVE)
    drain(one)
    one.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=made.shown)))
    [row] = one.due("bykey")
    if is_dropped:
        with one.connection:
            drop(one.tx, [row], "seen", one.now)
    else:
        one.end(one.take(row), Rejected(reason="400 no"))
    one.accept("ci", update(1, Ref(id=made.shown)))
    [shipment] = drain(one, "bykey")
    assert shipment.sending and shipment.sending.body["summary"] == "said 1"
    assert [state for _, state in states(one, "bykey")] == ["delivered", "delivered", "void", "delivered"]
    assert adds_up(one)


def test_what_was_dropped_is_told_once_it_is_said_again() -> None:
    """It was dropped for good, but the alert was not: it is open, and nobody has been told of it."""
    one = desk()
    one.accept("ci", create("disk"))
    with one.connection:
        drop(one.tx, [row for name in BOTH for row in one.due(name)], "seen", one.now)
    one.accept("ci", create("disk"))
    assert [shipment.operation for shipment in drain(one)] == [Operation.CREATE] * 2


def test_an_update_of_what_was_folded_is_folded_too_however_new() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.now += 9 * MINUTE
    one.accept("ci", create("disk", "fuller"))
    one.accept("ci", RESOLVE)
    one.now += 2 * MINUTE
    assert drain(one) == []
    assert {state for _, state in states(one)} == {"void"}


def test_an_update_of_what_is_there_is_not_folded_with_its_end() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    drain(one)
    one.accept("ci", create("disk", "fuller"))
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    assert [shipment.operation for shipment in drain(one, "bykey")] == [Operation.UPDATE, Operation.RESOLVE]
    assert one.vendors["bykey"].opened == {}


def test_what_changed_while_it_waited_is_folded_too() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.accept("ci", create("disk", "fuller"))
    one.accept("ci", RESOLVE)
    one.now += 11 * MINUTE
    assert drain(one) == []
    assert set(Counter(state for _, state in states(one))) == {"void"}
    assert adds_up(one)


@pytest.mark.parametrize("is_open", [True, False])
def test_of_a_key_that_came_and_went_for_hours_only_what_is_still_so_is_told(is_open: bool) -> None:
    """After an outage nobody is woken for alerts that are over, even where a newer alert has the same key."""
    one = desk()
    for number in range(5):
        one.accept("ci", create("disk", f"page {number}"))
        one.accept("ci", RESOLVE)
    if is_open:
        one.accept("ci", create("disk", "the one that counts"))
    one.now += 30 * MINUTE
    sent = drain(one)
    assert [shipment.operation for shipment in sent] == [Operation.CREATE] * (2 if is_open else 0)
    assert len(one.vendors["bykey"].opened) == (1 if is_open else 0)
    assert adds_up(one)


def test_what_is_over_keeps_no_place_in_the_line_of_a_fallback_that_is_out_of_the_file() -> None:
    """Back in it, the next alert of the same key would wait for the turn of the one before."""
    one = Desk(FALLING_BACK)
    one.accept("ci", create("disk"))
    one.road = Road(parse(FALLING_BACK.replace("bykey", "other")), one.ids.next, one._invent)
    one.accept("ci", RESOLVE)
    assert states(one, "bykey") == [("create", "void")]


def test_what_came_back_while_its_fallback_was_out_of_the_file_has_its_turn_again() -> None:
    """The end had voided the page that waited for the turn, and nothing else would ever tell the fallback; nor that it
    is acknowledged by now."""
    one = Desk(FALLING_BACK)
    made = one.accept("ci", create("disk")).alert
    assert made
    one.road = Road(parse(FALLING_BACK.replace("bykey", "other")), one.ids.next, one._invent)
    for operation in (Operation.RESOLVE, Operation.REOPEN, Operation.ACKNOWLEDGE):
        one.accept("ci", Command(operation=operation, ref=Ref(id=made.shown)))
    one.now += 2 * MINUTE
    assert [shipment.operation for shipment in drain(one, "bykey")] == [Operation.CREATE, Operation.ACKNOWLEDGE]
    assert [state for _, state in states(one, "bykey")] == ["void", "delivered", "delivered"]


def test_a_page_that_came_back_after_its_end_is_told() -> None:
    """A resolve that was followed by a reopen does not fold the create."""
    one = desk()
    made = one.accept("ci", create(None)).alert
    assert made
    one.accept("ci", Command(operation=Operation.RESOLVE, ref=Ref(id=made.shown)))
    one.accept("ci", Command(operation=Operation.REOPEN, ref=Ref(id=made.shown)))
    one.now += 30 * MINUTE
    drain(one)
    assert len(one.vendors["bykey"].opened) == 1
    assert [is_open for _, is_open in one.vendors["byid"].objects.values()] == [True]


# --- late ----------------------------------------------------------------------------------------------------


def test_a_page_more_than_two_minutes_late_says_so_at_the_top_with_its_time() -> None:
    """canonical.md: a late page says so at the top of its details, with its original time."""
    one = desk()
    command = Command(operation=Operation.CREATE, patch={"summary": "s", "details": "Act now", "dedup_key": "disk"})
    at = one.now + 1000
    one.accept("ci", command)
    one.now += 5 * MINUTE
    [sent] = drain(one, "bykey")
    first, *rest = details(sent).split("\n")
    when = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert from_millis(at).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%S") == when
    assert first.startswith("Late by 5 minutes") and when in first
    assert "Act now" in "\n".join(rest)
    assert sent.sending and sent.sending.body["summary"] == "s"


def test_a_page_in_time_says_nothing_of_the_kind() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.now += 2 * MINUTE - 2000
    [sent] = drain(one, "bykey")
    assert "Late" not in details(sent)


# --- storms --------------------------------------------------------------------------------------------------


def test_of_identical_repeats_one_a_minute_is_sent_and_the_others_are_counted() -> None:
    """Identical repeats of an open alert raise a count instead of a request where the target would merge them anyway.
    Nothing is dropped."""
    one = desk()
    one.accept("ci", create("disk"))
    assert len(drain(one)) == 2
    at = one.now
    sent = []
    while one.now < at + 5 * MINUTE:
        one.accept("ci", create("disk"))
        sent += [one.now for _ in drain(one)]
        one.now += 4000
    assert 4 <= len(sent) <= 6
    assert all(later - earlier >= MINUTE for earlier, later in pairwise(sent))
    counted = Counter(states(one, "bykey"))
    assert counted["update", "merged"] >= 50
    assert counted["update", "delivered"] == len(sent)
    assert adds_up(one)
    [line] = one.tx.ledger(0, "caller")
    assert line.received == len(all_rows(one))


def test_where_alerts_have_ids_a_repeat_is_nothing_to_send() -> None:
    one = desk()
    for _ in range(10):
        one.accept("ci", create("disk"))
    assert states(one, "byid") == [("create", "waiting")]
    assert adds_up(one)


def test_while_the_first_still_waits_its_repeats_are_counted() -> None:
    """A sender that repeats itself during an outage causes one page once the upstream is back."""
    one = desk()
    for _ in range(30):
        one.accept("ci", create("disk"))
        one.now += 20_000
    sent = drain(one, "bykey")
    assert sent[0].operation is Operation.CREATE
    assert len(sent) <= 2
    assert adds_up(one)


def test_a_repeat_that_says_something_new_is_sent_at_once() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    drain(one)
    one.accept("ci", create("disk"))
    one.accept("ci", create("disk", "fuller"))
    [sent] = drain(one, "bykey")
    assert sent.sending and sent.sending.body["summary"] == "fuller"
    one.accept("ci", create("disk"))
    [back] = drain(one, "bykey")
    assert back.sending and back.sending.body["summary"] == "s"


@pytest.mark.parametrize("between", [Operation.ACKNOWLEDGE, Operation.COMMENT])
def test_a_repeat_after_something_else_happened_is_sent(between: Operation) -> None:
    """A repeat is counted only where it equals the last thing that the target was told."""
    one = desk()
    one.accept("ci", create("disk"))
    drain(one)
    one.accept("ci", Command(operation=between, ref=Ref(key="disk"), comment="c"))
    drain(one)
    one.accept("ci", create("disk"))
    assert [shipment.operation for shipment in drain(one, "bykey")] == [Operation.UPDATE]


def test_after_a_resolve_the_same_words_are_a_new_alert() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.accept("ci", RESOLVE)
    one.accept("ci", create("disk"))
    sent = drain(one, "bykey")
    assert [shipment.operation for shipment in sent] == [Operation.CREATE, Operation.RESOLVE, Operation.CREATE]


def test_a_repeat_of_what_was_refused_is_sent() -> None:
    """Repeats that were counted on a delivery that died did not reach the upstream: the next one is sent at once in its
    place."""
    one = desk()
    one.accept("ci", create("disk"))
    one.accept("ci", create("disk"))
    [row] = one.due("bykey")
    one.end(one.take(row), Rejected(reason="400 no"))
    one.accept("ci", create("disk"))
    assert [shipment.operation for shipment in drain(one, "bykey")] == [Operation.CREATE]
    assert ("create", "dead") not in states(one)
    assert adds_up(one)


def merged_reasons(one: Desk) -> dict[str, Any]:
    """The reasons of the merged deliveries."""
    return Counter(row.reason.rpartition(" delivery ")[0] for row in all_rows(one) if row.state == "merged")


def test_a_repeat_says_by_what_it_is_told_and_an_update_too() -> None:
    one = desk()
    one.accept("ci", create("disk"))
    one.accept("ci", create("disk"))
    one.accept("ci", create("disk", "b"))
    one.accept("ci", create("disk", "c"))
    assert merged_reasons(one) == {"identical repeat: counted, not sent; see": 1, "merged into": 2}
