"""Delivery to an upstream that misbehaves: what is retried, given up or held, and that no upstream can make an attempt
take longer, read more, or go elsewhere than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.config import secrets
from gateway.delivery import breaker
from gateway.delivery.transport import Transport
from gateway.outcome import Request
from gateway.store import AttemptRow, DeliveryFilter, DeliveryRow
from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import (
    CLOSE,
    CUT,
    DRIP,
    DRIP_HEADERS,
    GARBAGE,
    HANG,
    NOT_JSON,
    RESET_AFTER,
    RESET_BEFORE,
    Behaviour,
    Chaos,
    Got,
    chaos,
    gzip_bomb,
    huge,
    redirect,
    say,
)
from tests.engine.vendors import gated
from tests.harness import DEFAULTS, KEY, House, house, inbound_tables

OK = say(202, {})
TIMEOUT = 0.3


def table(name: str, url: str, dialect: str = "ilert", more: str = "", retry: str = "") -> str:
    """`[upstreams.…]` with short pauses between retries."""
    retry = retry or 'retry = { first = "10ms", most = "30ms" }'
    secret = "" if "key" in more else 'key = "upstream-key"'
    return (
        f'[upstreams.{name}]\ndialect = "{dialect}"\nurl = "{url}"\n{secret}\ntimeout = "{TIMEOUT}s"\n{retry}\n{more}\n'
    )


INBOUND = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'


@contextlib.contextmanager
def before(directory: Path, *tables: str, routes: str = "") -> Iterator[House]:
    """A gateway for ilert's callers in front of these upstreams."""
    text = "\n".join([INBOUND, *tables, routes])
    with house(directory, config=lambda _: text) as standing:
        yield standing


def page(h: House, key: str = "disk", word: str = "ALERT", **more: Any) -> None:
    """Sends an event; it must be accepted, whatever the upstream does."""
    event = {"apiKey": KEY, "eventType": word, "summary": "Disk full", "alertKey": key, **more}
    assert h.call("POST", "/api/events", event, key=None).status == 202


def deliveries(h: House) -> list[DeliveryRow]:
    """The outbox, oldest first, as it is on the disk."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return SqliteTx(connection).deliveries(DeliveryFilter())[::-1]


def attempts(h: House, delivery: DeliveryRow) -> list[AttemptRow]:
    """The attempts of a delivery."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return SqliteTx(connection).attempts(delivery.id)


def ended(h: House, state: str, count: int = 1, seconds: float = 8.0) -> list[DeliveryRow]:
    """Waits until this many deliveries are in a state."""
    return list(
        h.wait_for(
            lambda: (found := [one for one in deliveries(h) if one.state == state]) and len(found) >= count and found,
            seconds,
        )
    )


def ready(h: House) -> Any:
    """The answer of `/-/ready`, which never depends on upstreams."""
    answer = h.client.get(h.url + "/-/ready")
    assert answer.status_code == 200
    return answer.json()


def metric(h: House, line: str) -> float:
    """The value of a metric."""
    text = h.client.get(h.url + "/metrics").text
    return float(next(one for one in text.splitlines() if one.startswith(line + " ")).rpartition(" ")[2])


# --- tried again ---------------------------------------------------------------------------------------------

RETRIED = [say(status) for status in (408, 425, 429, 500, 502, 503, 504, 529)]
FAILING = [HANG, DRIP, DRIP_HEADERS, RESET_BEFORE, RESET_AFTER, CLOSE, GARBAGE, CUT]


def test_what_may_pass_is_tried_again_with_the_same_key_until_it_is_healed(tmp_path: Path) -> None:
    """canonical.md, *Verdicts*; guarantees.md 4 (same key on every attempt) and 7 (every attempt is bounded)."""
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        for behaviour in [*RETRIED, *FAILING]:
            upstream.got.clear()
            upstream.plan(behaviour, behaviour)
            known = len(deliveries(h))
            page(h, f"key of {behaviour.name}")
            delivered = ended(h, "delivered", known + 1)[-1]
            assert delivered.attempts == 3, behaviour.name
            assert len(upstream.got) == (3 if behaviour.reads else 1), behaviour.name
            assert {got.body["alertKey"] for got in upstream.got} == {f"key of {behaviour.name}"}
            made = attempts(h, delivered)
            assert [one.outcome for one in made] == ["again", "again", "delivered"], behaviour.name
            assert all(one.took <= (TIMEOUT + 2.5) * 1000 for one in made), (
                behaviour.name
            )  # half a second is the command's
            assert all(one.reason for one in made[:2]), behaviour.name


def test_a_key_that_was_made_up_is_the_same_on_every_attempt(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        upstream.plan(say(503), RESET_AFTER)
        assert h.call("POST", "/api/events", {"apiKey": KEY, "eventType": "ALERT", "summary": "s"}, key=None)
        ended(h, "delivered")
        keys = [got.body["alertKey"] for got in upstream.got]
        assert len(keys) == 3 and keys[0] and len(set(keys)) == 1


def test_an_upstream_that_is_not_there_at_all(tmp_path: Path) -> None:
    with before(tmp_path, table("oncall", "http://127.0.0.1:1")) as h:
        page(h)
        h.wait_for(lambda: deliveries(h)[0].attempts >= 3)
        assert deliveries(h)[0].state == "waiting"
        assert ready(h)["ready"]
        assert metric(h, 'alert_gateway_waiting_deliveries{upstream="oncall"}') == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(tmp_path: Path, form: str) -> None:
    """guarantees.md 6: Retry-After in seconds and as a date; never earlier."""
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        until = datetime.now(UTC) + timedelta(seconds=2)
        text = "1" if form == "seconds" else format_datetime(until, usegmt=True)
        upstream.plan(say(429, headers={"retry-after": text}))
        page(h)
        ended(h, "delivered")
        first, second = upstream.got
        assert second.at - first.at >= 0.95
        assert datetime.now(UTC) >= until.replace(microsecond=0) or form == "seconds"


def test_a_retry_after_that_is_nonsense_is_passed_over(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        upstream.plan(say(503, headers={"retry-after": "\xb2"}), say(503, headers={"retry-after": "soon"}))
        page(h)
        assert ended(h, "delivered", seconds=3)[0].attempts == 3


def test_what_is_too_old_is_a_dead_letter(tmp_path: Path) -> None:
    retry = 'retry = { first = "100ms", most = "100ms", max_age = "100ms" }'
    with chaos(say(503)) as upstream, before(tmp_path, table("oncall", upstream.url, retry=retry)) as h:
        page(h)
        [dead] = ended(h, "dead")
        assert dead.attempts > 1
        assert "503" in dead.reason
        count = upstream.connections
        page(h, "another")
        h.wait_for(lambda: upstream.connections > count)


# --- given up ------------------------------------------------------------------------------------------------


def test_a_refusal_is_a_dead_letter_with_the_vendor_s_reason(tmp_path: Path) -> None:
    """canonical.md, *Verdicts*: others: dead."""
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        for number, status in enumerate((400, 409, 410, 413, 415, 422, 451), 1):
            words = {"status": status, "message": "priority is not one of HIGH, LOW", "code": "BAD_REQUEST"}
            upstream.plan(say(status, words))
            page(h, f"key-{status}")
            dead = ended(h, "dead", number)[-1]
            assert (dead.attempts, dead.status) == (1, status)
            assert "priority is not one of HIGH, LOW" in dead.reason and str(status) in dead.reason
        page(h, "next")
        ended(h, "delivered")
        assert len(upstream.got) == 8


@pytest.mark.parametrize("dialect", ["ilert", "uptinio", "ibm_monitoring", "livesession"])
def test_what_was_given_up_is_told_by_a_repeat(dialect: str, tmp_path: Path) -> None:
    """canonical.md: an update at what is dead is sent as a create. Only a repeat can bring a dead alert to the
    upstream, also where alerts are found by id and a repeat changes nothing."""
    with (
        chaos(say(400)) as upstream,
        before(tmp_path, table("oncall", upstream.url, dialect) + DEFAULTS.format(name="oncall")) as h,
    ):
        page(h)
        ended(h, "dead")
        seen = len([got for got in upstream.got if got.method == "POST"])
        page(h)
        h.wait_for(lambda: len([got for got in upstream.got if got.method == "POST"]) > seen)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """guarantees.md 20: redirects are not followed, 0 connections elsewhere."""
    with (
        chaos(OK) as elsewhere,
        chaos(lambda got: redirect(elsewhere.url + "/api/events", 307)) as upstream,
        before(tmp_path, table("oncall", upstream.url)) as h,
    ):
        page(h)
        h.wait_for(lambda: len(upstream.got) >= 2)
        [waiting] = [row for row in deliveries(h) if row.state == "waiting"]
        assert f"307 redirects to {elsewhere.url}, which is not followed" in waiting.reason
        assert elsewhere.connections == 0
        upstream.plan(OK)
        ended(h, "delivered")


# --- held ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_key_that_is_refused_holds_the_upstream_and_nothing_is_dead(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """canonical.md, *Verdicts*: never a verdict on an alert; held, secrets re-read, one probe at a time, loudly."""
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.5)
    secret = tmp_path / "key"
    secret.write_text("old-key\n")

    def answer(got: Got) -> Behaviour:
        return OK if got.body["apiKey"] == "new-key" else say(status, {"status": status, "code": "KEY_ERROR"})

    more = f'key = "file:{secret}"'
    with chaos(answer) as upstream, before(tmp_path, table("oncall", upstream.url, more=more)) as h:
        for number in range(5):
            page(h, f"key-{number}")
        h.wait_for(lambda: ready(h)["held"] == ["oncall"])
        assert ready(h)["ready"]
        assert metric(h, 'alert_gateway_upstream_held{upstream="oncall"}') == 1
        count = upstream.connections
        page(h, "one more")
        time.sleep(0.2)
        assert upstream.connections <= count + 1
        assert {one.state for one in deliveries(h)} == {"waiting"}
        secret.write_text("new-key\n")
        assert len(ended(h, "delivered", 6)) == 6
        assert ready(h)["held"] == []
        assert metric(h, 'alert_gateway_upstream_held{upstream="oncall"}') == 0


def test_a_refusal_that_comes_late_does_not_hold_a_key_that_was_changed_meanwhile(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("old-key\n")

    async def refuse_late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.0)
        await say(401, {"code": "KEY_ERROR"}).act(writer)

    def answer(got: Got) -> Behaviour:
        return OK if got.body["apiKey"] == "new-key" else Behaviour("401 after a second", refuse_late)

    more = f'key = "file:{secret}"'
    with chaos(answer) as upstream, before(tmp_path, table("oncall", upstream.url, more=more)) as h:
        page(h)
        h.wait_for(lambda: upstream.got)
        secret.write_text("new-key\n")
        ended(h, "delivered", seconds=8)


@pytest.mark.parametrize("what", ["key", "header"])
def test_a_file_that_stays_empty_holds_and_nothing_goes_out_without_what_was_in_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty secret file holds the upstream. Where the credential is a field of the body, a vendor answers no 401 for
    an empty one, and the alert would be a dead letter."""
    monkeypatch.setattr(secrets, "BEING_WRITTEN", 0.0)
    (tmp_path / what).write_text("old")
    given = {"key": '"right"', "header": '"right"', what: f'"file:{tmp_path / what}"'}
    more = f"key = {given['key']}\nheaders = {{ X-Account = {given['header']} }}"
    with chaos(lambda got: OK) as upstream, before(tmp_path, table("oncall", upstream.url, more=more)) as h:
        (tmp_path / what).write_text("")
        page(h)
        h.wait_for(lambda: ready(h)["held"] == ["oncall"])
        [waiting] = h.wait_for(lambda: [one for one in deliveries(h) if one.code])
        assert (waiting.state, waiting.code, upstream.got) == ("waiting", "no-key", [])
        assert "its file is empty" in (waiting.reason or "")
        (tmp_path / what).write_text("new")
        ended(h, "delivered", seconds=8)


def test_a_refusal_that_repeats_a_key_that_was_changed_meanwhile_does_not_show_it(tmp_path: Path) -> None:
    secret, gate = tmp_path / "key", threading.Event()
    secret.write_text("canary-old-key")
    refusal = say(403, {"code": "KEY_ERROR", "message": "no such key: canary-old-key"})

    def answer(got: Got) -> Behaviour:
        return HANG if got.body["apiKey"] == "canary-old-key-2" else gated(gate, refusal)

    more = f'key = "file:{secret}"\ntimeout = "5s"'
    text = table("oncall", "URL", more=more).replace(f'timeout = "{TIMEOUT}s"\n', "")
    with chaos(answer) as upstream, before(tmp_path, text.replace("URL", upstream.url)) as h:
        page(h)
        h.wait_for(lambda: upstream.got)
        secret.write_text("canary-old-key-2")
        gate.set()
        [held] = h.wait_for(lambda: [one for one in deliveries(h) if one.reason])
        assert held.reason == "held: 403 KEY_ERROR: no such key: •••"


def test_a_held_upstream_is_probed_by_one_delivery_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.3)
    with chaos(say(403)) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        page(h, "first")
        h.wait_for(lambda: ready(h)["held"])
        for number in range(10):
            page(h, f"key-{number}")
        count, since = upstream.connections, time.monotonic()
        h.wait_for(lambda: upstream.connections >= count + 3)
        assert time.monotonic() - since >= 0.5
        assert {one.state for one in deliveries(h)} == {"waiting"}


# --- bounded -------------------------------------------------------------------------------------------------


def test_a_success_is_a_success_whatever_its_body(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        bodies = [NOT_JSON, say(200), say(204), gzip_bomb(1000), huge(10**9, [])]
        for number, behaviour in enumerate(bodies, 1):
            upstream.plan(behaviour)
            page(h, f"key-{number}")
            assert ended(h, "delivered", number)[-1].attempts == 1
        assert len(upstream.got) == len(bodies)


async def _fetch(upstream: Chaos) -> bytes:
    transport = Transport(upstream.url, 5.0, 1)
    try:
        return (await transport.send(Request(method="GET", path="/"), {})).content
    finally:
        await transport.aclose()


@pytest.mark.anyio
async def test_of_a_huge_reply_64_kib_are_read() -> None:
    """guarantees.md 7: at most 64 KiB of reply read; the socket's own buffers come on top for the sender."""
    written: list[int] = []
    with chaos(huge(10**9, written)) as upstream:
        assert len(await _fetch(upstream)) == 64 * 1024
    assert written and written[0] < 32 * 1024 * 1024


@pytest.mark.anyio
async def test_a_gzip_bomb_is_not_unpacked() -> None:
    """guarantees.md 7, gzip bomb: at most 64 KiB, of memory too, give or take the libraries' own buffers."""
    with chaos(gzip_bomb(200 * 1024 * 1024)) as upstream:
        await _fetch(upstream)
        tracemalloc.start()
        try:
            content = await _fetch(upstream)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(content) <= 64 * 1024
    assert peak < 8 * 1024 * 1024


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that the gateway runs on."""
    return "asyncio"


def test_one_upstream_that_hangs_does_not_slow_another(tmp_path: Path) -> None:
    """architecture.md, Invariants: trouble at one upstream does not affect another."""
    routes = '[[routes]]\nto = ["stuck", "oncall"]\n'
    slow = table("stuck", "{}").replace(f'"{TIMEOUT}s"', '"3s"')
    with (
        chaos(HANG) as stuck,
        chaos(OK) as good,
        before(tmp_path, slow.replace("{}", stuck.url), table("oncall", good.url), routes=routes) as h,
    ):
        began = time.monotonic()
        for number in range(30):
            page(h, f"key-{number}")
        h.wait_for(lambda: len(good.got) == 30)
        assert time.monotonic() - began < 2
        assert {one.state for one in deliveries(h) if one.upstream == "stuck"} == {"waiting"}
        h.wait_for(lambda: len(stuck.got) == 8)  # `concurrency`, 8 by default, is what it may hold at a time


# --- what a create leaves behind ----------------------------------------------------------------------------


def uptinio(url: str) -> str:
    """An upstream that issues ids."""
    return table("uptime", url, "uptinio", 'defaults = { resource = "mon_9" }')


def test_an_id_that_was_never_issued_is_never_asked_for(tmp_path: Path) -> None:
    """canonical.md: ids are never made up; a create whose answer could not be read left none."""

    def answer(got: Got) -> Behaviour:
        listed = {"data": [], "meta": {"page": 1, "per_page": 100, "total": 0}}
        return say(200, listed if got.method == "GET" else {"data": {"id": "alt_1"}})

    with chaos(answer) as upstream, before(tmp_path, uptinio(upstream.url)) as h:
        upstream.plan(NOT_JSON)
        page(h)
        page(h, word="RESOLVE")
        h.wait_for(lambda: not [one for one in deliveries(h) if one.state == "waiting"])
        assert not [got.path for got in upstream.got if "{" in got.path or "%7B" in got.path]


def test_after_an_ambiguous_create_a_target_that_can_be_read_is_read_before_it_is_written_again(
    tmp_path: Path,
) -> None:
    """architecture.md, Invariants, *At least once, visibly*; canonical.md, *Ambiguous creates*."""
    held: list[dict[str, Any]] = []

    def answer(got: Got) -> Behaviour:
        if got.method == "GET":
            return say(200, {"data": held, "meta": {"page": 1, "per_page": 100, "total": len(held)}})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = {**got.body, "id": f"alt_{len(held) + 1}", "status": "active", "created_at": now}
        held.append(made)
        return RESET_AFTER if len(held) == 1 else say(201, {"data": made})

    with chaos(answer) as upstream, before(tmp_path, uptinio(upstream.url)) as h:
        page(h)
        ended(h, "delivered")
        methods = [got.method for got in upstream.got]
        assert methods[0] == "POST" and methods[1] == "GET"
        assert methods.count("POST") == 1


# --- tokens --------------------------------------------------------------------------------------------------


NO_TOKEN = say(200, {"access_token": None, "expires_in": 3600})


class Identity:
    """An identity service and the API that trusts it. Exchange and words as IBM documents them:
    https://cloud.ibm.com/docs/account?topic=account-iamtoken_from_apikey."""

    def __init__(self) -> None:
        self.tokens = 0
        self.accepted = ""
        self.refuses = False

    def exchange(self, got: Got) -> Behaviour:
        """`POST /identity/token`."""
        if self.refuses or got.form.get("apikey") != "the-iam-key":
            return say(400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."})
        self.tokens += 1
        self.accepted = f"token-{self.tokens}"
        return say(200, {"access_token": self.accepted, "expires_in": 3600, "token_type": "Bearer"})

    def serve(self, got: Got) -> Behaviour:
        """`POST /api/alerts`, accepted with the current token only."""
        if got.headers.get("authorization") != f"Bearer {self.accepted}":
            return say(401, {"errors": [{"reason": "Unauthorized access", "message": "token expired"}]})
        if got.method == "GET":
            return say(200, {"alerts": []})
        return say(200, {"alert": {**got.body["alert"], "id": 7, "version": 1}})


def ibm(service: Chaos, identity: Chaos) -> str:
    """An upstream whose key is exchanged for tokens."""
    more = (
        f'iam_key = "the-iam-key"\niam_url = "{identity.url}"\n'
        'headers = { IBMInstanceID = "inst-1" }\ndefaults = { "condition.expression" = "avg(cpu) > 1" }'
    )
    return table("metrics", service.url, "ibm_monitoring", more)


def test_a_key_is_exchanged_for_a_token_that_is_kept_and_renewed(tmp_path: Path) -> None:
    """The exchange is a form with grant_type urn:ibm:params:oauth:grant-type:apikey and apikey."""
    house_of = Identity()
    with (
        chaos(house_of.exchange) as identity,
        chaos(house_of.serve) as service,
        before(tmp_path, ibm(service, identity)) as h,
    ):
        page(h, "a")
        ended(h, "delivered")
        page(h, "b")
        ended(h, "delivered", 2)
        [asked] = identity.got
        assert (asked.method, asked.path) == ("POST", "/identity/token")
        assert asked.headers["content-type"].startswith("application/x-www-form-urlencoded")
        assert asked.form["grant_type"] == "urn:ibm:params:oauth:grant-type:apikey"
        assert asked.form["apikey"] == "the-iam-key"
        assert "ibminstanceid" not in asked.headers
        assert [got.headers["ibminstanceid"] for got in service.got] == ["inst-1", "inst-1"]
        assert {got.headers["authorization"] for got in service.got} == {"Bearer token-1"}
        house_of.accepted = "revoked"
        page(h, "c")
        third = ended(h, "delivered", 3)[-1]
        assert house_of.tokens == 2
        assert service.got[-1].headers["authorization"] == "Bearer token-2"
        assert third.attempts == 1
        assert ready(h)["held"] == []


def test_what_is_passed_on_goes_with_a_token_that_is_good(tmp_path: Path) -> None:
    """A relayed call renews an expired token itself and need not wait for the next delivery to do so."""
    house_of, callers = Identity(), inbound_tables(["ibm_monitoring"])
    with (
        chaos(house_of.exchange) as identity,
        chaos(house_of.serve) as service,
        before(tmp_path, ibm(service, identity), callers) as h,
    ):
        for tokens in (1, 2):
            answer = h.call("GET", "/ibm_monitoring/api/notificationChannels")
            assert (answer.status, answer.body, house_of.tokens) == (200, {"alerts": []}, tokens)
            house_of.accepted = "revoked"


def test_an_identity_service_that_refuses_the_key_holds_the_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "HELD_PAUSE", 0.3)
    house_of = Identity()
    house_of.refuses = True
    with (
        chaos(house_of.exchange) as identity,
        chaos(house_of.serve) as service,
        before(tmp_path, ibm(service, identity)) as h,
    ):
        page(h)
        h.wait_for(lambda: ready(h)["held"] == ["metrics"])
        assert service.connections == 0
        assert [one.state for one in deliveries(h)] == ["waiting"]
        assert "the-iam-key" not in deliveries(h)[0].reason
        house_of.refuses = False
        ended(h, "delivered")


def test_a_token_that_never_works_holds_the_upstream_after_one_renewal(tmp_path: Path) -> None:
    house_of = Identity()
    with (
        chaos(house_of.exchange) as identity,
        chaos(say(401, {"errors": []})) as service,
        before(tmp_path, ibm(service, identity)) as h,
    ):
        page(h)
        h.wait_for(lambda: ready(h)["held"] == ["metrics"])
        assert len(service.got) == 2 and house_of.tokens == 2


@pytest.mark.parametrize("behaviour", [say(503), HANG, GARBAGE, RESET_AFTER, NOT_JSON, say(200, []), NO_TOKEN])
def test_an_identity_service_in_trouble_is_tried_again(tmp_path: Path, behaviour: Behaviour) -> None:
    house_of = Identity()
    with (
        chaos(house_of.exchange) as identity,
        chaos(house_of.serve) as service,
        before(tmp_path, ibm(service, identity)) as h,
    ):
        identity.plan(behaviour)
        page(h)
        ended(h, "delivered")
        assert {got.headers["authorization"] for got in service.got} == {"Bearer token-1"}
        assert ready(h)["held"] == []
