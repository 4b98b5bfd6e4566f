"""Vendor answers that are not as documented: what cannot be read proves nothing, least of all that an alert is gone,
and what is merely written differently is read all the same."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.outcome import Response
from tests.chaos_upstream import Behaviour, Got, chaos, say
from tests.clients.callers import COLLECTIONS, ibm_alert, uptinio_alert
from tests.engine.vendors import (
    BY_ID,
    OK,
    Ibm,
    Uptinio,
    ago,
    before,
    down,
    gated,
    messages,
    outbox,
    page,
    settled,
    table,
    writes,
)
from tests.harness import KEY, House, house

DELIVERED = 'reply = "delivered"'
PAGE = {"content-type": "Text/HTML; charset=utf-8"}
NOT_THE_ALERT = {
    "an error": say(200, {"error": {"code": "internal", "message": "try later"}}),
    "nothing": say(200),
    "no content": say(204),
    "null": say(200, {"data": None, "alert": None}),
    "a list": say(200, []),
    "another object": say(200, {"data": {"ok": True}, "alert": {"ok": True}}),
    "cut": say(200, b'{"data": {"id": "alt_1", "mess'),
    "a proxy's page": say(404, b"<html>no such host</html>", PAGE),
}


def stale(h: House, path: str) -> tuple[int, str | None]:
    """The status of a read, and whether it is marked as stale."""
    sent = h.call("GET", path)
    return sent.status, sent.headers.get("alert-gateway-stale")


# --- reads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", NOT_THE_ALERT.values(), ids=NOT_THE_ALERT.keys())
@BY_ID
def test_an_alert_that_cannot_be_read_is_not_gone(tmp_path: Path, dialect: str, vendor: Any, odd: Behaviour) -> None:
    """canonical.md, *Reads*: the record is answered with `Alert-Gateway-Stale`, and nothing of it is forgotten."""
    there = vendor()
    body = uptinio_alert("mine") if dialect == "uptinio" else ibm_alert("mine")
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        made = h.call("POST", COLLECTIONS[dialect], body).body
        path = f"{COLLECTIONS[dialect]}/{(made.get('data') or made.get('alert'))['id']}"
        upstream.plan(odd)
        assert stale(h, path) == (200, "true")
        changed = {"message": "changed"} if dialect == "uptinio" else ibm_alert("changed")
        assert h.call("PUT", path, changed).status == 200, "it is still there to be changed"
        assert len(writes(upstream, "PUT")) == 1


def test_entries_of_a_list_without_an_id_are_left_out(tmp_path: Path) -> None:
    """An entry without an id is not adopted; no alert called `None` appears."""
    nameless = {**uptinio_alert("nameless"), "status": "active", "created_at": ago(5)}
    listed = [nameless, {**nameless, "id": None}, {**nameless, "id": "alt_9", "message": "named"}]
    answer = say(200, {"data": listed, "meta": {"total": 3}})
    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        assert messages(h) == ["named"]


@pytest.mark.parametrize("odd", [say(200, {"status": "error"}), say(200), say(200, b"[{")])
def test_an_alertmanager_whose_list_is_none_is_not_taken_for_one_without_alerts(tmp_path: Path, odd: Behaviour) -> None:
    """The record is answered, marked as stale."""
    inbound = f'[inbound.alertmanager]\nkeys = {{ ci = "{KEY}" }}\n'
    with chaos(odd) as upstream:
        text = inbound + table("there", upstream.url, "alertmanager", "")
        with house(tmp_path, config=lambda _: text) as h:
            assert stale(h, "/alertmanager/api/v2/alerts") == (200, "true")


def test_a_slow_word_that_an_alert_is_gone_does_not_undo_what_came_meanwhile(tmp_path: Path) -> None:
    """The alert is deleted and recreated by an update while a read is under way; the read's late 404 changes
    nothing."""
    there, gate = Uptinio(), threading.Event()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        path = f"/uptinio/alerts/{down(h, 'first').body['data']['id']}"
        upstream.plan(gated(gate, say(404, {"error": {"code": "alert_not_found"}})))
        answers: list[Any] = []
        reading = threading.Thread(target=lambda: answers.append(h.call("GET", path)))
        reading.start()
        h.wait_for(lambda: [got for got in upstream.got if got.method == "GET"])
        upstream.plan(say(404, {"error": {"code": "alert_not_found"}}))
        assert h.call("PUT", path, {"message": "second"}).status == 200
        h.wait_for(lambda: len(writes(upstream, "POST")) == 2 and len(outbox(h, "delivered")) == 2)
        gate.set()
        reading.join()
        assert (answers[0].status, answers[0].body["data"]["message"]) == (200, "second")
        assert messages(h) == ["second"]


def test_what_was_closed_there_and_made_again_is_shown_as_it_is_now(tmp_path: Path) -> None:
    """The upstream lists both, and both ids are the alert's; its state is that of the later one."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        first = down(h, "first").body["data"]["id"]
        upstream.plan(say(404, {"error": {"code": "alert_not_found"}}))
        assert h.call("PUT", f"/uptinio/alerts/{first}", {"message": "second"}).status == 200
        h.wait_for(lambda: len(there.held) == 2 and len(outbox(h, "delivered")) == 2)
        there.held[first]["status"] = "resolved"
        [shown] = h.call("GET", "/uptinio/alerts").body["data"]
        assert (shown["message"], shown["status"]) == ("second", "active")


ODD_TIMES = ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "soon", 10**30, None, "0001-01-01T00:00:00Z"]


@pytest.mark.parametrize("when", ODD_TIMES)
def test_one_alert_with_an_odd_time_does_not_hide_the_others(tmp_path: Path, when: Any) -> None:
    """An unreadable time is left out of what is shown; the alert itself and its neighbours stay."""
    usual = {**uptinio_alert("usual"), "status": "active", "created_at": ago(5)}
    listed = [{**usual, "id": "alt_1", "message": "odd", "created_at": when}, {**usual, "id": "alt_2"}]
    answer = say(200, {"data": listed, "meta": {"total": 2}})
    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        assert sorted(messages(h)) == ["odd", "usual"]
        assert h.call("GET", "/uptinio/alerts/alt_2").status == 200


def test_who_comes_within_the_second_is_told_as_well_that_the_primary_did_not_answer(tmp_path: Path) -> None:
    """The primary is read at most once a second; callers in between are answered from the record, with the same stale
    mark."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        path = f"/uptinio/alerts/{down(h, 'mine').body['data']['id']}"
        upstream.plan(say(503), say(503))
        assert [stale(h, path) for _ in range(2)] == [(200, "true")] * 2
        assert [stale(h, "/uptinio/alerts") for _ in range(2)] == [(200, "true")] * 2
        h.wait_for(lambda: stale(h, path) == (200, None) and stale(h, "/uptinio/alerts") == (200, None), 5)


# --- lists in pages --------------------------------------------------------------------------------------------


class Paged(Uptinio):
    """A list in pages of at most `size`, whatever page size is requested; `total` is given as worded."""

    size = 100
    is_stuck = False

    def __init__(self, *held: dict[str, Any], word: Any = int) -> None:
        super().__init__(*held)
        self.word = word

    def _answer(self, got: Got) -> Behaviour:
        at = 0 if self.is_stuck else (int(parse_qs(urlsplit(got.path).query)["page"][0]) - 1) * self.size
        listed = list(self.held.values())[at : at + self.size]
        return say(200, {"data": listed, "meta": {"total": self.word(len(self.held))}})

    def __call__(self, got: Got) -> Behaviour:
        if got.method == "GET" and urlsplit(got.path).path == "/alerts":
            return self._answer(got)
        return super().__call__(got)


def many(count: int) -> list[dict[str, Any]]:
    """`count` alerts that were there before the gateway."""
    return [
        {**uptinio_alert(f"old {number}"), "id": f"old_{number}", "status": "active", "created_at": ago(60)}
        for number in range(count)
    ]


def test_a_total_in_words_does_not_end_a_list_with_its_first_page(tmp_path: Path) -> None:
    """After a lost answer the alert is found on the second page, and not created twice."""
    there = Paged(*many(120), word=str)
    there.then = [say(504)]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h, "mine", summary="mine")
        settled(h)
        assert len(writes(upstream)) == 1


def test_the_same_page_for_ever_is_read_twice(tmp_path: Path) -> None:
    """For a vendor that ignores `page`: reading stops at the repeated page, and the alert is found after a lost
    answer."""
    there = Paged(word=lambda count: count + 500)
    there.is_stuck = True
    there.then = [say(504)]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h, "mine", summary="mine")
        settled(h)
        assert len(writes(upstream)) == 1
        assert len([got for got in upstream.got if got.method == "GET"]) == 2


class Unread(Uptinio):
    """A vendor whose key may write but not read."""

    def _read(self, number: str) -> Behaviour:
        return say(403, {"error": {"code": "forbidden"}})


def test_a_key_that_may_not_read_does_not_hold_what_it_may_write(tmp_path: Path) -> None:
    """A lost answer is followed by a read where that is allowed; where it is not, the alert is written again."""
    there = Unread()
    there.then = [say(504)]
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        page(h, "mine", summary="mine")
        settled(h, seconds=8)
        assert len(writes(upstream)) == 2


# --- what is laid over -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [one for name, one in NOT_THE_ALERT.items()], ids=NOT_THE_ALERT.keys())
def test_a_rule_that_cannot_be_read_is_not_overwritten(tmp_path: Path, odd: Behaviour) -> None:
    """canonical.md, IBM: an update reads the rule and `PUT`s it with the changed fields over it; if the answer is not a
    rule, nothing is written."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        page(h, "disk")
        settled(h)
        [held] = there.held.values()
        held["somebody_elses"] = {"kept": True}
        upstream.plan(odd)
        page(h, "disk", summary="Disk fuller")
        settled(h, count=2)
        assert [got.body["alert"].get("somebody_elses") for got in writes(upstream, "PUT")] == [{"kept": True}]
        assert len(there.held) == 1


def test_a_rule_larger_than_an_ordinary_reply_is_laid_over_whole(tmp_path: Path) -> None:
    """Replies are cut at 64 KiB unless they are lists; a single rule must be read whole to be laid over."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        page(h, "disk")
        settled(h)
        [held] = there.held.values()
        held["notes"] = "x" * 100_000
        page(h, "disk", summary="Disk fuller")
        settled(h, count=2)
        assert writes(upstream, "PUT")[0].body["alert"]["notes"] == "x" * 100_000


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("code", ["rate_limit", "rate_limit_exceeded", "invalid_api_key", "expired_api_key"])
def test_uptinios_codes_count_where_the_status_says_nothing(tmp_path: Path, code: str, status: int) -> None:
    """The page lists its codes without their statuses. Too many requests are sent again, and a key that is refused
    holds the upstream; neither loses the alert."""
    with chaos(Uptinio()) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        upstream.plan(say(status, {"error": {"code": code, "message": "why"}}))
        assert down(h).status == 201
        assert settled(h, "delivered" if code.startswith("rate") else "waiting")
        assert len(writes(upstream)) == (2 if code.startswith("rate") else 1)


@BY_ID
def test_a_large_alert_that_is_repeated_in_the_answer_is_made_once(tmp_path: Path, dialect: str, vendor: Any) -> None:
    """Its id is read, wherever it stands in an answer as long as what was sent, and it is not looked for."""
    with chaos(vendor()) as upstream, before(tmp_path, table("there", upstream.url, dialect)) as h:
        long = "<ü>" * 30_000
        asked = uptinio_alert(long) if dialect == "uptinio" else ibm_alert("long")
        if dialect == "ibm_monitoring":
            asked["alert"]["description"] = long
        made = h.call("POST", COLLECTIONS[dialect], asked)
        assert made.status < 300, made.body
        assert [got.method for got in upstream.got] == ["POST"]
        number = next(iter(made.body.values()))["id"]
        assert stale(h, f"{COLLECTIONS[dialect]}/{number}") == (200, None)


def test_an_update_answered_without_a_version_is_no_change_by_others(tmp_path: Path) -> None:
    """The version known before the `PUT` is outdated by it; the next one is not taken for somebody else's change."""
    there = Ibm()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "ibm_monitoring")) as h:
        made = h.call("POST", "/ibm_monitoring/api/alerts", ibm_alert("mine")).body["alert"]
        path = f"/ibm_monitoring/api/alerts/{made['id']}"
        for number, odd in enumerate([say(200, {}), say(204), say(200, {"alert": {}})], 1):
            there.then = [odd]
            for severity in (2 * number % 7, (2 * number + 1) % 7):
                sent = h.call("PUT", path, ibm_alert("mine", severity=severity))
                assert sent.status == 200, sent.body


# --- how an answer is written ----------------------------------------------------------------------------------


def _packed(body: bytes, kind: str) -> Behaviour:
    return say(201, body, {"content-encoding": kind})


ODD_WRITING = {
    "a byte order mark": lambda body: say(201, b"\xef\xbb\xbf" + body),
    "latin-1": lambda body: say(
        201, body.decode().encode("latin-1"), {"content-type": "application/json;charset=ISO-8859-1"}
    ),
    "utf-16": lambda body: say(
        201, body.decode().encode("utf-16"), {"content-type": 'application/json; charset="UTF-16"'}
    ),
    "utf-8 that says latin-1": lambda body: say(201, body, {"content-type": "application/json; charset=iso-8859-1"}),
    "gzip": lambda body: _packed(gzip.compress(body), "gzip"),
    "a charset for an encoding": lambda body: _packed(body, "utf-8"),
    "packed by its word alone": lambda body: _packed(body, "gzip"),
    "no type": lambda body: say(201, body, {"content-type": ""}),
}


@pytest.mark.parametrize("odd", ODD_WRITING.values(), ids=ODD_WRITING.keys())
def test_an_id_is_read_however_it_is_written(tmp_path: Path, odd: Any) -> None:
    """Otherwise, where no list could tell of the alert, a create with an unreadable answer would be repeated for
    ever."""
    body = json.dumps({"data": {"id": "alt_7", "message": "Störung"}}, ensure_ascii=False).encode()

    def answer(got: Got) -> Behaviour:
        return say(200, {"data": [], "meta": {"total": 0}}) if got.method == "GET" else odd(body)

    with chaos(answer) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        assert down(h, "Störung").body["data"]["id"] == "alt_7"
        assert len(upstream.got) == 1
        assert outbox(h)[0].state == "delivered"


@pytest.mark.parametrize("charset", ["", "x", "punycode", "utf-16", "iso-8859-1", "rot13", "\x00"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\xff", b"[" * 60_000, b"\xd8\x00"])
def test_what_is_no_json_in_any_charset_is_nothing(charset: str, content: bytes) -> None:
    assert Response(200, {"content-type": f"application/json; charset={charset}"}, content).json() is None


@pytest.mark.parametrize(
    "says",
    [
        NOT_THE_ALERT["a proxy's page"],
        say(404, b"404 page not found\n", {"content-type": "text/plain; charset=utf-8"}),
    ],
    ids=["a page", "as Traefik"],
)
def test_what_a_proxy_says_is_no_word_for_an_alert_that_is_gone(tmp_path: Path, says: Behaviour) -> None:
    """A resolve whose 404 came from a proxy is sent again, and reaches the vendor."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        made = down(h, "mine").body["data"]["id"]
        upstream.plan(says)
        assert h.call("PUT", f"/uptinio/alerts/{made}", {"status": "resolved"}).status == 200
        settled(h, count=2)
        assert there.held[made]["status"] == "resolved"


@pytest.mark.parametrize(
    "says",
    [
        say(404),
        say(404, b"404 page not found\n", {"content-type": "text/plain; charset=utf-8"}),
        say(405, b"default backend - 405", {"content-type": "text/plain"}),
    ],
    ids=["as Envoy", "as Traefik", "as an ingress"],
)
def test_a_balancer_with_nobody_behind_it_says_nothing_of_an_alert(tmp_path: Path, says: Behaviour) -> None:
    """The alert waits until a backend is there again; it is no dead letter."""
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url, "pagerduty")) as h:
        upstream.always(says)
        page(h)
        [waiting] = h.wait_for(lambda: [row for row in outbox(h) if row.attempts and row.code])
        assert (waiting.state, waiting.code) == ("waiting", "web-page")
        upstream.always(OK)
        settled(h)


def test_what_says_so_in_json_is_the_vendors_word(tmp_path: Path) -> None:
    says = say(404, {"message": "no such service"})
    with chaos(says) as upstream, before(tmp_path, table("oncall", upstream.url, "pagerduty")) as h:
        page(h)
        settled(h, "dead")


def test_a_page_that_refuses_one_alert_holds_no_others(tmp_path: Path) -> None:
    """Only a page about our certificate concerns all alerts."""
    says = say(400, b"<html><h1>400 Bad Request</h1></html>", PAGE)
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url, "ilert"), top=DELIVERED) as h:
        upstream.plan(says)
        assert page(h).status == 400, [(row.state, row.reason, row.code, row.attempts) for row in outbox(h)]
        assert page(h, "another").status == 202
        assert [row.state for row in outbox(h)] == ["delivered"]


def test_nothing_is_looked_for_where_a_balancer_had_nobody_behind_it(tmp_path: Path) -> None:
    """Nobody can have made anything of it: nothing is in doubt."""
    there = Uptinio()
    with chaos(there) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        upstream.plan(say(404, b"<html>no such host</html>", PAGE))
        page(h)
        settled(h)
        assert [got.method for got in upstream.got] == ["POST", "POST"]
