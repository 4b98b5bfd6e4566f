"""`durable = "container"`: the store is lost with its pod, so a caller is told success only once an upstream has the
command. Slow, dead, refusing and recovering upstreams, and callers that repeat what was not confirmed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.delivery import looking
from tests.chaos_upstream import CLOSE, HANG, Behaviour, Got, chaos, say
from tests.clients.callers import ibm_alert, ilert_event, livesession_alert, uptinio_alert
from tests.engine.vendors import NO, OK, Uptinio, before, count, down, outbox, page, settled, slow, table, writes
from tests.harness import KEY, House, Sent, house

CONTAINER = 'durable = "container"\nreply_timeout = "400ms"'


REPEATED = {
    "uptinio": ("/uptinio/alerts", uptinio_alert("Website is down")),
    "ilert": ("/ilert/api/events", ilert_event("ALERT", "disk", summary="Disk full")),
}


def _is_not_yet(sent: Sent) -> bool:
    return sent.status == 503 and int(sent.headers["retry-after"]) > 0


def _until_taken(h: House, body: dict[str, str], seconds: float = 5.0) -> Sent:
    """Repeats an event until it is answered with success, as a client does that follows Retry-After."""
    sent: list[Sent] = []

    def again() -> bool:
        sent.append(h.call("POST", "/ilert/api/events", body, key=None))
        return sent[-1].status == 202

    h.wait_for(again, seconds)
    return sent[-1]


def test_success_means_that_an_upstream_has_it(tmp_path: Path) -> None:
    """Success waits for an upstream whatever `reply` is: without this setting ilert's callers are answered at once."""
    with (
        chaos(slow(0.2, OK)) as upstream,
        before(tmp_path, table("oncall", upstream.url, "ilert"), top='durable = "container"') as h,
    ):
        began = time.monotonic()
        assert page(h).status == 202
        assert time.monotonic() - began >= 0.2
        assert [row.state for row in outbox(h)] == ["delivered"]


def test_elsewhere_the_disk_is_enough(tmp_path: Path) -> None:
    with chaos(HANG) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert")) as h:
        assert page(h).status == 202


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ilert/api/events", ilert_event("ALERT", "disk", summary="Disk full")),
        ("/uptinio/alerts", uptinio_alert("Website is down")),
        ("/ibm_monitoring/api/alerts", ibm_alert("CPU high")),
        ("/livesession/v1/alerts", livesession_alert("Rage clicks")),
    ],
)
def test_until_then_the_caller_hears_503_in_its_own_words(tmp_path: Path, path: str, body: dict[str, str]) -> None:
    with chaos(HANG) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=CONTAINER) as h:
        began = time.monotonic()
        sent = h.call("POST", path, body)
        assert _is_not_yet(sent) and "no upstream has accepted this yet" in str(sent.body)
        assert 0.4 <= time.monotonic() - began < 2
        assert count(h, "alerts") == 1
        upstream.always(OK)
        settled(h)


def test_a_repeat_is_refused_until_an_upstream_has_it_and_is_sent_once(tmp_path: Path) -> None:
    """An identical repeat is only counted, but is no success while the first still waits."""
    with chaos(CLOSE) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=CONTAINER) as h:
        body = ilert_event("ALERT", "disk", summary="Disk full")
        assert all(_is_not_yet(h.call("POST", "/ilert/api/events", body, key=None)) for _ in range(3))
        assert count(h, "alerts") == 1
        upstream.always(OK)
        _until_taken(h, body)
        taken = [row for row in outbox(h) if row.state == "delivered"]
        assert len(taken) == 1


def test_whichever_upstream_takes_it_first_will_do(tmp_path: Path) -> None:
    with chaos(HANG) as stuck, chaos(OK) as good:
        tables = table("stuck", stuck.url, "ilert"), table("good", good.url, "ilert")
        routes = '[[routes]]\nto = ["stuck", "good"]\n'
        with before(tmp_path, *tables, routes=routes, top='durable = "container"\nreply_timeout = "5s"') as h:
            began = time.monotonic()
            assert page(h).status == 202
            assert time.monotonic() - began < 4
            assert len(good.got) == 1


def test_what_every_upstream_refuses_is_taken_back(tmp_path: Path) -> None:
    with chaos(NO) as bad, chaos(NO) as worse:
        tables = table("bad", bad.url, "ilert"), table("worse", worse.url, "ilert")
        routes = '[[routes]]\nto = ["bad", "worse"]\n'
        with before(tmp_path, *tables, routes=routes, top=CONTAINER) as h:
            refused = page(h)
            assert refused.status == 400 and "too rude" in str(refused.body)
            assert count(h, "alerts") == 0


def test_a_refusal_beside_an_upstream_that_is_held_takes_nothing_back(tmp_path: Path) -> None:
    """Holding an upstream is never a verdict on an alert: the delivery goes on waiting there."""
    with chaos(say(401)) as held, chaos(NO) as bad:
        tables = table("held", held.url, "ilert"), table("bad", bad.url, "ilert")
        routes = '[[routes]]\nto = ["held", "bad"]\n'
        with before(tmp_path, *tables, routes=routes, top=CONTAINER) as h:
            assert _is_not_yet(page(h))
            assert count(h, "alerts") == 1
            settled(h, "dead")
            assert {row.upstream: row.state for row in outbox(h)} == {"held": "waiting", "bad": "dead"}


def test_what_is_thrown_away_on_purpose_has_nowhere_to_land(tmp_path: Path) -> None:
    with chaos(HANG) as upstream:
        routes = '[[routes]]\nto = []\nbecause = "a rehearsal"\n'
        with before(tmp_path, table("oncall", upstream.url, "ilert"), routes=routes, top=CONTAINER) as h:
            assert page(h).status == 202


def test_what_the_gateway_alone_keeps_is_a_success(tmp_path: Path) -> None:
    """canonical.md: a comment is kept where the upstream has none."""
    with chaos(Uptinio()) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio"), top=CONTAINER) as h:
        assert page(h).status == 202
        comment = ilert_event("COMMENT", "disk", comments=[{"content": "looking at it"}])
        sent = h.call("POST", "/ilert/api/events", comment, key=None)
        assert sent.status == 202 and "kept=comment" in " ".join(sent.report)


def test_an_upstream_that_is_left_alone_is_not_waited_for(tmp_path: Path) -> None:
    top = 'durable = "container"\nreply_timeout = "5s"'
    with chaos(say(401)) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=top) as h:
        assert _is_not_yet(page(h, "first"))
        h.wait_for(lambda: h.client.get(h.url + "/-/ready").json()["held"])
        began = time.monotonic()
        assert _is_not_yet(page(h, "second"))
        assert time.monotonic() - began < 4


def test_a_repeat_under_an_idempotency_key_is_success_once_the_first_has_landed(tmp_path: Path) -> None:
    vendor = Uptinio()
    with chaos(vendor) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio"), top=CONTAINER) as h:
        answer, upstream.answer = upstream.answer, lambda got: HANG
        once = {"idempotency-key": "once"}
        body = uptinio_alert("Website is down")
        assert [_is_not_yet(h.call("POST", "/uptinio/alerts", body, headers=once)) for _ in range(2)] == [True, True]
        upstream.answer = answer
        settled(h)
        made = h.call("POST", "/uptinio/alerts", body, headers=once)
        assert made.status == 201
        assert count(h, "alerts") == 1 and len(vendor.held) == 1


@pytest.mark.parametrize("vendor", ["ilert", "uptinio"])
@pytest.mark.parametrize("headers", [{"idempotency-key": "once"}, {}])
@pytest.mark.parametrize("caller", ["uptinio", "ilert"])
def test_what_was_refused_since_is_no_success_to_who_asks_again(
    caller: str, headers: dict[str, str], vendor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeat of a command that every upstream has refused since its 503 is answered with the refusal; once the fault
    is corrected there, the repeat is sent."""
    monkeypatch.setattr(looking, "LATE", 0.05)
    path, body = REPEATED[caller]
    with chaos(HANG) as upstream, before(tmp_path, table("there", upstream.url, vendor), top=CONTAINER) as h:
        assert _is_not_yet(h.call("POST", path, body, headers=headers))
        upstream.always(NO)
        settled(h, "dead")
        refused = h.call("POST", path, body, headers=headers)
        assert refused.status == 400 and "400" in str(refused.body)
        vendors = Uptinio() if vendor == "uptinio" else OK
        upstream.answer = vendors if isinstance(vendors, Uptinio) else lambda got: OK
        assert h.call("POST", path, body, headers=headers).status in (201, 202)
        assert [row.state for row in outbox(h)].count("delivered") == 1


def test_an_end_under_a_key_is_success_once_it_has_landed(tmp_path: Path) -> None:
    """In a repeated batch, the end of an unknown alert, sent by its key, is found again by the batch's idempotency key,
    and is no success while it waits."""
    ended = {
        "specversion": "1.0",
        "id": "1",
        "source": "/m",
        "type": "t",
        "data": {"dedup_key": "a", "status": "resolved"},
    }
    begun = {**ended, "id": "2", "data": {"dedup_key": "b", "summary": "Disk full"}}
    config = f'[inbound.cloudevents]\nkeys = {{ ci = "{KEY}" }}\n'
    headers = {"idempotency-key": "once", "content-type": "application/cloudevents-batch+json"}

    def only_the_new(got: Got) -> Behaviour:
        return OK if got.body["eventType"] == "ALERT" else HANG

    with chaos(only_the_new) as upstream:
        text = config + table("there", upstream.url, "ilert", timeout="10s")
        with house(tmp_path, config=lambda _: text, top=CONTAINER) as h:
            for _ in range(2):
                assert _is_not_yet(h.call("POST", "/cloudevents", [ended, begun], headers=headers))


def test_without_a_key_a_repeat_is_another_alert(tmp_path: Path) -> None:
    """It is so at the vendor too; the README says so."""
    with chaos(HANG) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=CONTAINER) as h:
        assert _is_not_yet(down(h)) and _is_not_yet(down(h))
        assert count(h, "alerts") == 2


def test_a_repeated_end_is_no_success_while_the_first_one_waits(tmp_path: Path) -> None:
    """The alert has ended here, so the repeat finds none, but at the upstream it is still open."""
    vendor = Uptinio()
    with chaos(vendor) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio"), top=CONTAINER) as h:
        assert page(h).status == 202
        answer, upstream.answer = upstream.answer, lambda got: CLOSE
        over = ilert_event("RESOLVE", "disk")
        assert [_is_not_yet(h.call("POST", "/ilert/api/events", over, key=None)) for _ in range(2)] == [True, True]
        upstream.answer = answer
        _until_taken(h, over)
        assert [one["status"] for one in vendor.held.values()] == ["resolved"]


def test_a_repeated_end_is_a_success_though_the_upstream_is_slower_than_the_caller_waits(tmp_path: Path) -> None:
    """A repeated end is sent too, by its key, but it need not be confirmed again once the first has been."""
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=CONTAINER) as h:
        assert page(h).status == 202
        upstream.always(slow(0.8, OK))
        over = ilert_event("RESOLVE", "disk")
        assert _is_not_yet(h.call("POST", "/ilert/api/events", over, key=None))
        settled(h, count=2)
        assert h.call("POST", "/ilert/api/events", over, key=None).status == 202


def test_an_update_that_waits_behind_another_is_no_success_before_it_is_told(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=CONTAINER) as h:
        assert page(h).status == 202
        upstream.always(CLOSE)
        assert _is_not_yet(page(h, details="half full")) and _is_not_yet(page(h, details="full"))
        upstream.always(OK)
        _until_taken(h, ilert_event("ALERT", "disk", summary="Disk full", details="full"))
        assert upstream.got[-1].body["details"] == "full"


def test_whoever_heard_of_success_is_known_to_the_upstream(tmp_path: Path) -> None:
    """The whole promise, under concurrent callers and an upstream that fails now and then: whatever was acknowledged is
    at the upstream, so losing the pod at any moment would lose none of it."""
    taken: set[str] = set()
    turns: Iterator[int] = itertools.count()

    def now_and_then(got: Got) -> Behaviour:
        if next(turns) % 8 == 0:
            return CLOSE
        taken.add(got.body["alertKey"])
        return slow(0.02, OK)

    with chaos(now_and_then) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=CONTAINER) as h:

        def one(number: int) -> tuple[int, bool]:
            status = page(h, f"key-{number}").status
            return status, f"key-{number}" in taken

        with ThreadPoolExecutor(8) as crowd:
            told = list(crowd.map(one, range(80)))
        assert {status for status, _ in told} <= {202, 503}
        assert all(is_there for status, is_there in told if status == 202)
        assert any(status == 202 for status, _ in told)
        h.wait_for(lambda: len(taken) == 80, 20)
        assert len(writes(upstream)) >= 80
