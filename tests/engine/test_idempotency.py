"""Idempotency keys over real HTTP, in every dialect: a repeat of a creating call gets the first answer, and nothing is
delivered again. interface.md, *HTTP*, `Idempotency-Key`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.process import housekeeping, service
from gateway.registry import dialects
from tests.chaos_upstream import HANG, Got, chaos, say
from tests.clients.callers import (
    ASKS,
    COLLECTIONS,
    EVENTFUL,
    EVENTS,
    OTHER,
    WEBHOOKS,
    behind,
    called,
    cloud_event,
    create,
    fresh,
    listed,
    making,
)
from tests.conformance.errors import is_error_of
from tests.engine.vendors import Ibm, Uptinio, count, gated, inner, settled, table, writes
from tests.harness import KEY, House, Sent, house, upstream_table
from tests.processes import serving, wait_for

NAMES = tuple(dialects())
SECRET_KEY = "idem-5f0c2e77-canary"
DAY_MS = 86_400_000


def body_of(dialect: str, text: str, *, credential: str = KEY) -> Any:
    """The documented creating call of a dialect, saying `text`."""
    return making(dialect, text, credential=credential)[1]


def send(h: House, dialect: str, text: str, idem: str, *, key: str = KEY) -> Sent:
    """Creates an alert that says `text` under an idempotency key."""
    path, body = making(dialect, text, credential=key)
    return h.call("POST", path, body, key=None if dialect in EVENTS else key, headers={"idempotency-key": idem})


def told(sent: Sent) -> tuple[int, Any, str, list[str]]:
    """What the answer to a repeat must have in common with the first."""
    return sent.status, sent.body, sent.headers["alert-gateway-id"], sent.report


@contextmanager
def one(directory: Path, dialect: str, **more: Any) -> Iterator[House]:
    """A gateway in front of one upstream of another dialect, so that the report is not empty."""
    with called(directory, {"there": behind(dialect)}, **more) as h:
        yield h


@pytest.mark.parametrize("dialect", NAMES)
def test_a_repeat_is_told_what_the_first_one_was(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first = send(h, dialect, "Disk full", "k1")
        assert first.status < 300 and first.report, "there has to be a report to repeat"
        settled(h)
        assert told(send(h, dialect, "Disk full", "k1")) == told(first)
        assert (count(h, "alerts"), count(h, "commands"), count(h, "deliveries")) == (1, 1, 1)
        assert len(h.arrived(behind(dialect))) == 1
        other = send(h, dialect, "Disk fuller", "k2")
        assert other.status < 300 and other.headers["alert-gateway-id"] != first.headers["alert-gateway-id"]
        settled(h, count=2)


@pytest.mark.parametrize("dialect", NAMES)
def test_a_repeat_is_told_the_same_when_the_alert_has_changed_since(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first = send(h, dialect, "Disk full", "k1")
        settled(h)
        change = ASKS[dialect]["resolve" if dialect in EVENTFUL else "update"]
        assert change(h, _ref(dialect, first), "Disk on fire").status < 300
        assert told(send(h, dialect, "Disk full", "k1")) == told(first)
        assert count(h, "alerts") == 1 and count(h, "commands") == 2


def test_a_batch_that_is_repeated_is_told_what_the_first_one_was(tmp_path: Path) -> None:
    batch = [cloud_event("firing", key, summary="Disk full") for key in ("db-1", "db-2")]
    headers = {"idempotency-key": "k1", "content-type": "application/cloudevents-batch+json"}
    with one(tmp_path, "cloudevents") as h:
        first = h.call("POST", "/cloudevents", batch, headers=headers)
        assert first.status < 300 and "id" in first.body
        assert told(h.call("POST", "/cloudevents", batch, headers=headers)) == told(first)
        assert (count(h, "alerts"), count(h, "commands")) == (2, 2)


@pytest.mark.parametrize("dialect", ["opsgenie", "jsm_ops"])
def test_a_repeat_is_told_the_first_ones_request_where_the_alert_was_there_before(dialect: str, tmp_path: Path) -> None:
    """Callers of these vendors ask for the outcome by the request's id, so a repeat gets that of its first call, not
    that of the call which opened the alert."""
    with one(tmp_path, dialect) as h:
        path, body = making(dialect, "Disk full")
        for alias, key in (("disk", "k1"), ("disk", "k2")):
            first = h.call("POST", path, {**body, "alias": alias}, headers={"idempotency-key": key})
        assert count(h, "alerts") == 1
        assert told(h.call("POST", path, {**body, "alias": "disk"}, headers={"idempotency-key": "k2"})) == told(first)


def _ref(dialect: str, sent: Sent) -> str:
    """The caller's reference to the alert that it created as "Disk full"."""
    if dialect == "alertmanager" or dialect in WEBHOOKS:
        return "Disk full"
    shown = inner(sent)
    return str(shown.get("alertKey", shown.get("alert_id", shown.get("id"))))


@pytest.mark.parametrize("dialect", NAMES)
def test_the_same_key_with_another_body_is_refused_in_the_vendors_words(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first = send(h, dialect, "Disk full", "k1")
        refused = send(h, dialect, "Disk fuller", "k1")
        assert refused.status == 422 and is_error_of(dialect, refused.body)
        assert count(h, "commands") == 1
        assert told(send(h, dialect, "Disk full", "k1")) == told(first), "the first answer stays"


@pytest.mark.parametrize("dialect", NAMES)
def test_keys_belong_to_a_scope(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first, other = (send(h, dialect, "Disk full", "k1", key=key) for key in (KEY, OTHER))
        assert first.status == other.status < 300
        assert first.headers["alert-gateway-id"] != other.headers["alert-gateway-id"]
        assert count(h, "commands") == 2


def test_callers_who_share_a_scope_share_its_keys(tmp_path: Path) -> None:
    with one(tmp_path, "uptinio", inbound='scope = "all"') as h:
        first, other = (send(h, "uptinio", "Disk full", "k1", key=key) for key in (KEY, OTHER))
        assert told(first) == told(other)


def reordered(body: Any) -> Any:
    """The same with its fields in the opposite order."""
    if isinstance(body, list):
        return [reordered(one) for one in body]
    return dict(reversed(body.items()))


@pytest.mark.parametrize("dialect", NAMES)
def test_the_order_and_the_spaces_of_the_same_body_do_not_matter(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first = send(h, dialect, "Disk full", "k1")
        body = reordered(body_of(dialect, "Disk full"))
        path = making(dialect, "")[0]
        assert told(h.call("POST", path, body, headers={"idempotency-key": "k1"})) == told(first)


@pytest.mark.parametrize("dialect", NAMES)
def test_a_key_outlives_a_restart(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first = send(h, dialect, "Disk full", "k1")
        settled(h)
    with one(tmp_path, dialect) as h:
        assert told(send(h, dialect, "Disk full", "k1")) == told(first)
        assert send(h, dialect, "Disk fuller", "k1").status == 422
        assert count(h, "commands") == 1 and not h.arrived(behind(dialect))


@pytest.mark.parametrize("dialect", NAMES)
def test_a_key_is_forgotten_after_a_day(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        first = send(h, dialect, "Disk full", "k1")
        desk = h.gateway.desk
        assert desk is not None
        real = desk.now
        desk.now = lambda: real() + DAY_MS - 60_000
        assert told(send(h, dialect, "Disk full", "k1")) == told(first)
        desk.now = lambda: real() + DAY_MS + 60_000
        later = send(h, dialect, "Disk full by now", "k1")
        assert later.status < 300 and later.headers["alert-gateway-id"] != first.headers["alert-gateway-id"]
        assert told(send(h, dialect, "Disk full by now", "k1")) == told(later), "the key is the later one's now"


def test_old_keys_are_removed_from_the_store_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full batch is followed by the next at once, so that keys do not pile up."""
    monkeypatch.setattr(housekeeping, "PURGED_AT_ONCE", 5)
    monkeypatch.setattr(service, "HOUSEKEEPING", 0.05)
    with one(tmp_path, "uptinio") as h:
        for number in range(12):
            send(h, "uptinio", "Disk full", f"k{number}")
        assert count(h, "keyed") == 12
    monkeypatch.setattr(housekeeping, "KEPT_MS", -60_000)
    with one(tmp_path, "uptinio") as h:  # one look at the keys, and a minute until the next
        h.wait_for(lambda: count(h, "keyed") == 0)


# --- while the first one is under way ------------------------------------------------------------------------

DELIVERED = ("ibm_monitoring", "uptinio", "livesession", "ilert")
TO_IBM = 'defaults = { "condition.expression" = "avg(cpu) > 1", resource = "mon_9" }'


@contextmanager
def waiting(directory: Path, upstream_url: str, dialect: str = "uptinio", reply_timeout: str = "5s") -> Iterator[House]:
    """A gateway whose callers of every dialect wait for the verdict of one upstream."""
    inbounds = [f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}\nreply = "delivered"\n' for name in NAMES]
    table = f'[upstreams.there]\ndialect = "{dialect}"\nurl = "{upstream_url}"\nkey = "upstream-key"\n{TO_IBM}\n'
    table += 'timeout = "20s"\nretry = { first = "10ms", most = "10ms" }\n'
    text = "\n".join([*inbounds, table])
    with house(directory, config=lambda _: text, top=f'reply_timeout = "{reply_timeout}"') as h:
        yield h


@pytest.mark.parametrize("dialect", DELIVERED)
def test_a_repeat_comes_too_early_while_the_first_one_waits(dialect: str, tmp_path: Path) -> None:
    gate, vendor = threading.Event(), Uptinio()

    def answer(got: Got) -> Any:
        return vendor(got) if got.method == "GET" else gated(gate, vendor(got))

    with chaos(answer) as upstream, waiting(tmp_path, upstream.url) as h, ThreadPoolExecutor() as pool:
        first = pool.submit(send, h, dialect, "Disk full", "k1")
        h.wait_for(lambda: writes(upstream))
        early = send(h, dialect, "Disk full", "k1")
        assert early.status == 409 and is_error_of(dialect, early.body)
        assert int(early.headers["retry-after"]) >= 1
        assert send(h, dialect, "Disk fuller", "k1").status == 422, "another body is wrong at any time"
        gate.set()
        done = first.result()
        assert done.status < 300
        assert told(send(h, dialect, "Disk full", "k1")) == told(done)
        assert len(writes(upstream)) == 1


def test_a_repeat_is_answered_when_the_first_one_gave_up_waiting(tmp_path: Path) -> None:
    with chaos(HANG) as upstream, waiting(tmp_path, upstream.url, reply_timeout="200ms") as h:
        first = send(h, "uptinio", "Disk full", "k1")
        assert first.status == 201
        assert told(send(h, "uptinio", "Disk full", "k1")) == told(first)


@pytest.mark.parametrize("dialect", DELIVERED)
def test_a_first_one_that_every_upstream_refused_can_be_repeated(dialect: str, tmp_path: Path) -> None:
    no = say(400, {"error": {"code": "invalid", "message": "too rude"}})
    with chaos(no) as upstream, waiting(tmp_path, upstream.url) as h:
        refused = send(h, dialect, "Disk full", "k1")
        assert refused.status in (400, 422) and is_error_of(dialect, refused.body)
        assert count(h, "keyed") == 0
        upstream.answer = Uptinio()
        good = send(h, dialect, "Disk full", "k1")
        assert good.status < 300
        assert told(send(h, dialect, "Disk full", "k1")) == told(good)
        assert len(writes(upstream)) == 2


@pytest.mark.parametrize("dialect", NAMES)
def test_a_first_one_that_was_refused_at_once_can_be_repeated_with_another_body(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        path, body = making(dialect, "text")
        is_event = dialect in (*EVENTS, "cloudevents")
        bad: Any = {**body, "summary": 7, "payload": 7, "data": 7} if is_event else {"nonsense": True}
        assert h.call("POST", path, bad, headers={"idempotency-key": "k1"}).status // 100 == 4
        assert send(h, dialect, "Disk full", "k1").status < 300


def test_a_repeat_is_told_once_the_first_one_cannot_be_waiting_any_more(tmp_path: Path) -> None:
    """Once the first call must have ended, as after a crash, a repeat is answered from the store, although the first
    caller never was."""
    with chaos(HANG) as upstream, waiting(tmp_path, upstream.url) as h, ThreadPoolExecutor() as pool:
        dying = pool.submit(send, h, "ibm_monitoring", "Disk full", "k1")
        h.wait_for(lambda: count(h, "keyed"))
        early = send(h, "ibm_monitoring", "Disk full", "k1")
        assert early.status == 409
        desk = h.gateway.desk
        assert desk is not None
        real = desk.now
        desk.now = lambda: real() + 60_000
        later = send(h, "ibm_monitoring", "Disk full", "k1")
        assert later.status == 200 and count(h, "commands") == 1
        assert dying.result().headers["alert-gateway-id"] == later.headers["alert-gateway-id"]


def test_what_was_refused_after_a_crash_is_no_success_for_the_repeat(tmp_path: Path) -> None:
    """After a crash that left the caller without an answer, a repeat gets the refusal, and can be sent again until it
    is accepted."""
    config = tmp_path / "gateway.toml"
    path, body = making("ibm_monitoring", "Disk full")
    headers = {"authorization": f"Bearer {KEY}", "idempotency-key": "k1"}
    with chaos(HANG) as upstream, ThreadPoolExecutor() as pool:
        tables = f'[inbound.ibm_monitoring]\nkeys = {{ ci = "{KEY}" }}\n' + table("there", upstream.url, "uptinio")
        store = f'store = "sqlite://{tmp_path}/gateway.db"\n'
        config.write_text(store + tables)
        with serving(config) as running:
            dying = pool.submit(httpx.post, running.url + path, json=body, headers=headers, timeout=10)
            wait_for(lambda: upstream.got)
            running.process.kill()
            assert dying.exception() is not None
        upstream.always(say(400, {"error": {"code": "invalid", "message": "too rude"}}))
        config.write_text(f'{store}reply_timeout = "500ms"\n{tables}')  # nobody can be waiting for long
        with serving(config) as running:
            wait_for(lambda: running.metric('alert_gateway_dead_deliveries{upstream="there"}') == 1, 20)

            def again() -> int:
                return httpx.post(running.url + path, json=body, headers=headers, timeout=10).status_code

            refused = wait_for(lambda: (status := again()) != 409 and status, 20)
            assert refused in (400, 422)
            upstream.answer = Uptinio()
            assert again() == 200


@pytest.mark.parametrize("dialect", NAMES)
def test_of_twenty_at_once_one_makes_the_alert(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: send(h, dialect, "Disk full", "k1"), range(20)))
        good = [told(sent) for sent in answers if sent.status < 300]
        assert good and all(sent == good[0] for sent in good)
        assert {sent.status for sent in answers} <= {good[0][0], 409}
        settled(h)
        assert told(send(h, dialect, "Disk full", "k1")) == good[0]
        assert (count(h, "alerts"), count(h, "commands")) == (1, 1) and len(h.arrived(behind(dialect))) == 1


# --- what has no use for it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", NAMES)
def test_updates_and_reads_do_not_look_at_it(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        ref, _ = create(h, dialect, fresh("text"))
        settled(h)
        for key in ("k1", "k" * 300):  # a key that would be refused at once, if anybody looked
            h.client.headers["idempotency-key"] = key
            for operation, ask in ASKS[dialect].items():  # for vendors of events an update is another create
                if operation != "delete" and not (dialect in EVENTFUL and operation == "update"):
                    assert ask(h, ref, fresh("first")).status < 300, operation
                    assert ask(h, ref, fresh("second")).status < 300, operation
            if dialect in COLLECTIONS:
                listed(h, dialect)
        if "delete" in ASKS[dialect]:
            assert ASKS[dialect]["delete"](h, ref, "").status < 300
        assert count(h, "keyed") == 0


@pytest.mark.parametrize("dialect", NAMES)
def test_a_key_that_is_too_long_is_refused_in_the_vendors_words(dialect: str, tmp_path: Path) -> None:
    with one(tmp_path, dialect) as h:
        refused = send(h, dialect, "Disk full", "k" * 256)
        assert refused.status in (400, 422) and is_error_of(dialect, refused.body)
        assert send(h, dialect, "Disk full", "k" * 255).status < 300


def test_no_log_has_a_key(tmp_path: Path) -> None:
    """Checked at the most verbose level, with the gateway as a process."""
    config = tmp_path / "gateway.toml"
    with chaos(Uptinio()) as upstream:
        table = f'[upstreams.there]\ndialect = "uptinio"\nurl = "{upstream.url}"\nkey = "upstream-key"\n'
        inbound = f'[inbound.uptinio]\nkeys = {{ ci = "{KEY}" }}\n'
        config.write_text(f'store = "sqlite://{tmp_path}/gateway.db"\n{inbound}{table}')
        with serving(config) as running:
            headers = {"idempotency-key": SECRET_KEY, "authorization": f"Bearer {KEY}"}
            bodies = [body_of("uptinio", text) for text in ("Disk full", "Disk full", "Disk fuller")]
            said = [httpx.post(running.url + "/alerts", json=body, headers=headers, timeout=10) for body in bodies]
            assert [answer.status_code for answer in said] == [201, 201, 422]
            running.waits_for("request", 3)
            assert SECRET_KEY not in running.log + httpx.get(running.url + "/metrics", timeout=5).text
    assert all(SECRET_KEY not in got.content.decode() + str(got.headers) for got in upstream.got)


def test_an_answer_that_was_kept_is_worded_for_who_asks(tmp_path: Path) -> None:
    """With IBM behind the gateway, a repeat shows the id and version that the vendor gave, as the first answer did."""
    with chaos(Ibm()) as upstream, waiting(tmp_path, upstream.url, "ibm_monitoring") as h:
        first = send(h, "ibm_monitoring", "CPU high", "k1")
        assert first.body["alert"]["id"] == 700
        assert told(send(h, "ibm_monitoring", "CPU high", "k1")) == told(first)


@pytest.mark.parametrize("dialect", EVENTS)
def test_a_key_that_was_rotated_meanwhile_makes_no_other_request_of_it(dialect: str, tmp_path: Path) -> None:
    """In these dialects the credential is a field of the body, and does not count when bodies are compared."""

    def config(sandbox: str) -> str:
        inbound = f'[inbound.{dialect}]\nkeys = {{ ci = ["{KEY}", "{OTHER}"] }}\n'
        return inbound + upstream_table("there", behind(dialect), sandbox)

    with house(tmp_path, config=config) as h:
        first = send(h, dialect, "Disk full", "k1")
        assert told(send(h, dialect, "Disk full", "k1", key=OTHER)) == told(first)
        assert send(h, dialect, "Disk fuller", "k1", key=OTHER).status == 422
