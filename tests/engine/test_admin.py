"""The operators' address and its calls (interface.md: `admin`, *Command line* with `--url`): who may call, what an
operator may change, what the operator log keeps, and that the callers' address serves none of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway.admin import operations
from gateway.admin.admin import PAGE
from gateway.config.loading import parse
from gateway.delivery.breaker import RESERVE
from gateway.errors import ConfigurationError
from gateway.process.service import Gateway
from gateway.store import Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos.processes import free_port
from tests.chaos_upstream import RESET_AFTER, Behaviour, Got, chaos, say
from tests.clients.callers import ilert_event
from tests.engine.certificates import vouched, write
from tests.engine.test_tls import believing, soon
from tests.engine.test_workers import ROOT, ready, serving
from tests.engine.vendors import gated
from tests.harness import KEY, served_together
from tests.postgres_server import shared

OK = say(202, {})
NO = say(400, {"status": 400, "message": "summary is too rude", "code": "BAD_REQUEST"})
TOKEN = "operators-token-0123456789abcdef"
BASE = f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n[upstreams.oncall]\ndialect = "ilert"\nkey = "there-0123456789"\n'
BASE += 'retry = { first = "20ms", most = "100ms" }\n'


class Standing:
    """A running gateway, with one address for callers and one for operators."""

    def __init__(self, gateway: Gateway, url: str, admin: str) -> None:
        self.gateway = gateway
        self.url = url
        self.admin = admin
        self.client = httpx.Client(trust_env=False, timeout=20)

    def page(self, *keys: str, summary: str = "s") -> None:
        """Sends pages; they must be accepted."""
        for key in keys:
            body = {"apiKey": KEY, **ilert_event("ALERT", key, summary=summary)}
            assert self.client.post(self.url + "/ilert/api/events", json=body).status_code == 202

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GETs from the operators' address."""
        return self.client.get(self.admin + path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """POSTs to the operators' address."""
        return self.client.post(self.admin + path, json={} if body is None else body, **more)

    def listed(self, state: str) -> list[dict[str, Any]]:
        """The deliveries in a state."""
        return list(self.get(f"/-/deliveries?state={state}").json()["deliveries"])


@contextmanager
def standing(
    directory: Path, upstream: str, top: str = 'admin = "127.0.0.1:9092"', store: str = "", name: str = "oncall"
) -> Iterator[Standing]:
    """A gateway in this process, with an upstream of this name; without an address for operators, both addresses are
    the same."""
    base = BASE.replace("oncall", name)
    text = f'store = "{store or f"sqlite://{directory}/gateway.db"}"\n{top}\n{base}url = "{upstream}"\n'
    gateway = Gateway(parse(text))
    with ExitStack() as stack:
        apps = [gateway.app, gateway.admin_app] if gateway.config.admin else [gateway.app]
        url, *others = stack.enter_context(served_together(*((app, 0) for app in apps)))
        admin = others[0] if others else url
        found = Standing(gateway, url, admin)
        stack.enter_context(found.client)
        yield found


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as an operator types it."""
    line = [sys.executable, "-m", "gateway.cli", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=env)


def kept(directory: Path) -> list[Any]:
    """The operator log as it is on disk."""

    async def read() -> list[Any]:
        async with SqliteStore(str(directory / "gateway.db"), exclusive=False) as store:
            return await store.read(lambda tx: tx.notes("operator ", 100))

    return asyncio.run(read())


def test_the_callers_address_knows_nothing_of_operators(tmp_path: Path) -> None:
    with chaos(OK) as vendor, standing(tmp_path, vendor.url) as s:
        for path in ("/-/healthy", "/-/ready", "/metrics", "/-/openapi.json", "/-/deliveries", "/-/callers"):
            assert s.get(path).status_code == 200, path
            there = s.client.get(s.url + path)
            assert there.status_code == 404 and there.json()["status"] == 404, "in the caller's words"
        assert s.client.get(s.admin + "/ilert/api/alerts").status_code == 404, "nor the other way round"
        s.page("a")
        assert s.get("/-/alerts/a").json()["alerts"]
        assert "alerts" not in s.client.get(s.url + "/-/alerts/a").json()


def test_without_an_address_of_its_own_everything_is_on_the_one(tmp_path: Path) -> None:
    with chaos(OK) as vendor, standing(tmp_path, vendor.url, top="") as s:
        for path in ("/-/healthy", "/-/ready", "/metrics", "/-/openapi.json", "/-/deliveries"):
            assert s.get(path).status_code == 200, path


def test_dead_letters_are_listed_sent_again_and_dropped(tmp_path: Path) -> None:
    with chaos(NO) as vendor, standing(tmp_path, vendor.url) as s:
        s.page("a", "b", "c")
        dead = soon(lambda: (found := s.listed("dead")) and len(found) == 3 and found)
        assert all("summary is too rude" in one["reason"] and one["would_send"] for one in dead)
        assert "there-0123456789" not in json.dumps(dead)

        refused = s.post("/-/drop", {"ids": [dead[0]["id"]]})
        assert refused.status_code == 400 and refused.json()["message"].startswith("because")
        done = s.post("/-/drop", {"ids": [dead[0]["id"]], "because": "a test page", "who": "ann"}).json()
        assert done == {"done": [dead[0]["id"]], "refused": [], "count": 1, "refused_count": 0}
        assert s.listed("void")[0]["reason"] == "dropped: a test page"

        vendor.always(OK)
        done = s.post("/-/retry", {"dead": True, "who": "bob"}).json()
        assert done["done"] == sorted(one["id"] for one in dead[1:]), "in their old order"
        soon(lambda: len(s.listed("delivered")) == 2)
        assert [one["would_send"] for one in s.listed("delivered")] == [[], []], "nothing more"
        again = s.post("/-/retry", {"ids": done["done"]}).json()
        assert again["done"] == [] and again["refused_count"] == 2

        [third, second, first] = s.get("/-/operations").json()["operations"]
        assert (first["what"], first["who"], first["because"], first["ids"]) == (
            "drop",
            "ann",
            "a test page",
            [dead[0]["id"]],
        )
        assert (second["what"], second["who"], second["origin"], second["count"]) == ("retry", "bob", "127.0.0.1", 2)
        assert (third["count"], third["refused"]) == (0, 2)
        ledger = s.get("/-/report?since=1h").json()["ledger"]
        assert [(line["received"], line["delivered"], line["void"], line["adds_up"]) for line in ledger] == [
            (3, 2, 1, True)
        ]
        time.sleep(0.01)
        lately = s.get("/-/report?since=1ms").json()
        assert (lately["ledger"], lately["upstreams"]) == ([], [])
    assert [one["what"] for one in kept(tmp_path)] == ["retry", "retry", "drop"], "kept with the store"


@pytest.mark.parametrize("answer", [OK, RESET_AFTER], ids=lambda one: one.name)
def test_what_was_under_way_when_it_was_dropped_is_ended_with_its_alert(tmp_path: Path, answer: Behaviour) -> None:
    """The request may have opened it there, and nobody else would ever end that."""
    gate = threading.Event()

    def vendor(got: Got) -> Behaviour:
        return gated(gate, answer) if got.body["eventType"] == "ALERT" else OK

    with chaos(vendor) as upstream, standing(tmp_path, upstream.url) as s:
        s.page("a")
        soon(lambda: upstream.got)
        [waiting] = s.listed("waiting")
        assert s.post("/-/drop", {"ids": [waiting["id"]], "because": "a test page"}).json()["count"] == 1
        body = {"apiKey": KEY, **ilert_event("RESOLVE", "a")}
        assert s.client.post(s.url + "/ilert/api/events", json=body).status_code == 202
        gate.set()  # only now, as nothing else of this alert is sent meanwhile
        soon(lambda: not s.listed("waiting"))
        assert [got.body["eventType"] for got in upstream.got] == ["ALERT", "RESOLVE"]
        assert [one["reason"] for one in s.listed("void")] == ["dropped: a test page"]
        assert s.get("/-/report?since=1h").json()["ledger"][0]["adds_up"]


@pytest.mark.parametrize("by", ["upstream", "dead", "ids"])
def test_more_than_one_batch_is_sent_again_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Where two commands of one lane fall into two batches of a retry, neither counts as older than what was delivered
    since."""
    monkeypatch.setattr("gateway.admin.operating.BATCH", 2)
    with chaos(NO) as vendor, standing(tmp_path, vendor.url) as s:
        s.page("a", "b", "c", "d", "e")
        dead = soon(lambda: len(found := s.listed("dead")) == 5 and found)
        ids = [one["id"] for one in dead]
        asked = {"upstream": "oncall", "dead": True, "ids": [*ids, ids[0]]}[by]
        vendor.always(OK)
        begin = len(vendor.got)
        done = s.post("/-/retry", {by: asked}).json()
        assert (done["done"], done["count"], done["refused_count"]) == (sorted(ids), 5, 0)
        soon(lambda: len(s.listed("delivered")) == 5)
        assert {got.body["alertKey"] for got in vendor.got[begin:]} == set("abcde")
        logged = s.get("/-/operations").json()["operations"]
        assert [one["count"] for one in logged] == [1, 2, 2]
        assert [one["asked"] for one in logged] == [{by: 6 if by == "ids" else asked}] * 3, "and nothing else"


def test_what_is_older_than_what_was_delivered_since_is_sent_again_only_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused stays where it is, and the batches come to an end all the same."""
    monkeypatch.setattr("gateway.admin.operating.BATCH", 2)
    with chaos(OK) as vendor, standing(tmp_path, vendor.url) as s:
        for answer, state, count in ((OK, "delivered", 3), (NO, "dead", 3), (OK, "delivered", 6)):
            vendor.always(answer)
            s.page("a", "b", "c", summary=f"{count} {state}")
            soon(lambda state=state, count=count: len(s.listed(state)) == count)  # type: ignore[misc]
        begin = len(vendor.got)
        done = s.post("/-/retry", {"dead": True}).json()
        assert (done["count"], done["refused_count"]) == (0, 3)
        assert all("delivered something newer since; --force" in one for one in done["refused"])
        assert len(vendor.got) == begin and len(s.listed("dead")) == 3
        done = s.post("/-/retry", {"dead": True, "force": True}).json()
        assert (done["count"], done["refused_count"]) == (3, 0)
        soon(lambda: len(s.listed("delivered")) == 9)
        logged = [(one["count"], one["refused"], one["asked"]) for one in s.get("/-/operations").json()["operations"]]
        by_force = {"dead": True, "force": True}
        assert logged == [(1, 0, by_force), (2, 0, by_force), (0, 1, {"dead": True}), (0, 2, {"dead": True})]


@pytest.mark.parametrize("what", ["retry", "drop"])
def test_what_waits_for_an_upstream_that_is_gone_is_dropped_in_batches_but_never_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Waiting and dead ones are dropped in their order, whichever came first, and none is passed over. A retry is about
    what died: it refuses nothing because others wait."""
    monkeypatch.setattr("gateway.admin.operating.BATCH", 2)

    def answer(got: Got) -> Behaviour:
        return NO if got.body["alertKey"].startswith("dies") else say(503)

    with chaos(answer) as vendor:
        with standing(tmp_path, vendor.url) as s:
            s.page("waits-1", "waits-2", "waits-3", "dies-1", "dies-2", "waits-4")
            dead = soon(lambda: len(found := s.listed("dead")) == 2 and sorted(one["id"] for one in found))
            waiting = sorted(one["id"] for one in s.listed("waiting"))
        with standing(tmp_path, vendor.url, name="other") as s:
            asked = {"upstream": "oncall"} | ({"because": "they left"} if what == "drop" else {})
            done = s.post(f"/-/{what}", asked).json()
            meant = sorted(dead + waiting) if what == "drop" else dead
            assert (done["done"], done["refused"]) == (meant, [])
            assert len(s.listed("waiting")) == (0 if what == "drop" else 6)


def test_what_an_operator_sends_again_does_not_wait_for_the_retry_budget(tmp_path: Path) -> None:
    """The budget, one a second without other traffic, keeps a failing upstream from being flooded; dead letters that
    are sent again once it works are no retries, of which these would take over half a minute."""
    with chaos(NO) as vendor, standing(tmp_path, vendor.url) as s:
        keys = [f"key-{number}" for number in range(int(RESERVE) * 5)]
        s.page(*keys)
        soon(lambda: len(s.listed("dead")) == len(keys))
        vendor.always(OK)
        assert s.post("/-/retry", {"dead": True}).json()["count"] == len(keys)
        soon(lambda: len(s.listed("delivered")) == len(keys), 15)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/-/retry", {}, "name deliveries by id"),
        ("/-/retry", {"ids": [5], "dead": True}, "not both"),
        ("/-/drop", {"ids": [5], "upstream": "oncall", "because": "x"}, "not both"),
        ("/-/retry", {"ids": [5]}, "no such delivery: 5"),
        ("/-/retry", {"upstream": "oncal"}, "there are no deliveries for an upstream 'oncal'"),
        ("/-/drop", {"upstream": "oncal", "because": "x"}, "there are no deliveries for an upstream 'oncal'"),
        ("/-/retry", {"id": [5]}, "`id`"),
        ("/-/retry", {"ids": "5"}, "$.ids"),
        ("/-/retry", [], "object"),
        ("/-/retry", {"dead": True, "because": "x"}, "because"),
        ("/-/drop", {"dead": True, "because": " "}, "because"),
        ("/-/drop", {"dead": True, "because": "x", "force": True}, "force"),
    ],
)
def test_what_is_not_understood_changes_nothing(tmp_path: Path, path: str, body: Any, said: str) -> None:
    with standing(tmp_path, "http://127.0.0.1:9") as s:
        answer = s.post(path, body)
        assert answer.status_code == 400 and said in answer.json()["message"]
        assert s.get("/-/operations").json() == {"operations": []}


def test_a_list_goes_on_through_slices_in_which_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a state without an index, each transaction looks at a limited number of deliveries; the list goes on past
    slices without a match."""
    monkeypatch.setattr("gateway.admin.admin.SLICE", 2)
    with chaos(say(503)) as vendor, standing(tmp_path, vendor.url) as s:
        s.page(*(f"key-{number}" for number in range(7)))
        ids = [one["id"] for one in s.get("/-/deliveries").json()["deliveries"]]
        assert len(ids) == 7 and ids == sorted(set(ids), reverse=True)
        dropped = [ids[1], ids[5]]
        assert s.post("/-/drop", {"ids": dropped, "because": "b"}).json()["count"] == 2
        for limit, found in ((9, dropped), (1, dropped[:1])):
            listed = s.get(f"/-/deliveries?state=void&limit={limit}").json()["deliveries"]
            assert [one["id"] for one in listed] == found
        assert s.get("/-/deliveries?state=merged").json() == {"deliveries": []}


@pytest.mark.parametrize(("asked", "count"), [("", 2 * PAGE + 3), ("limit=1", 1), (f"limit={PAGE}", PAGE)])
def test_a_long_list_comes_whole_in_pieces(tmp_path: Path, asked: str, count: int) -> None:
    """A list is newest first, has each delivery once over as many pages as it takes, and no more than were asked
    for."""
    with chaos(say(503)) as vendor, standing(tmp_path, vendor.url) as s:
        s.page(*(f"key-{number}" for number in range(2 * PAGE + 3)))
        ids = [one["id"] for one in s.get(f"/-/deliveries?{asked}").json()["deliveries"]]
        assert len(ids) == count and ids == sorted(set(ids), reverse=True)


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    with standing(tmp_path, "http://127.0.0.1:9") as s:
        assert s.get("/-/deliveries").json() == {"deliveries": []}


def test_questions_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    with standing(tmp_path, "http://127.0.0.1:9") as s:
        for query in ("limit=0", "limit=x", "limit=10001", "stat=dead", "state=ded"):
            assert s.get(f"/-/deliveries?{query}").status_code == 400, query
        assert s.get("/-/deliveries?alert=nobody").status_code == 404
        assert s.get("/-/report?since=soon").status_code == 400
        assert s.get("/-/report?by=colour").status_code == 400
        assert s.get("/-/retry").status_code == 405
        assert s.post("/-/reload").status_code == 409, "this one was not started from a file"


def in_the_log(directory: Path, *work: Callable[[Tx], None]) -> list[operations.Operation]:
    """Does work in a new store, and returns its operator log."""

    async def run() -> list[operations.Operation]:
        async with SqliteStore(str(directory / "gateway.db"), exclusive=False) as store:
            for one in work:
                await store.write(one)
            return await store.read(lambda tx: operations.kept(tx, 100))

    return asyncio.run(run())


def test_the_operator_log_is_newest_first_and_forgets_what_is_old(tmp_path: Path) -> None:
    """Two operations of one millisecond are two, and of a long one the number of deliveries is kept, if not all ids."""

    def enter(at: int, done: range = range(0)) -> Callable[[Tx], None]:
        entry = operations.entry(operations.SIGNAL, "drop", at, asked={}, done=done)
        return lambda tx: operations.keep(tx, entry)

    many = range(1, operations.MOST_IDS + 2)
    found = in_the_log(
        tmp_path, enter(998), enter(999), enter(1000), enter(1000, many), lambda tx: operations.forget(tx, 999, 10)
    )
    assert [one.at for one in found] == [1000, 1000, 999]
    assert {(len(one.ids), one.count) for one in found} == {(0, 0), (operations.MOST_IDS, operations.MOST_IDS + 1)}


def test_workers_that_reload_together_are_logged_once(tmp_path: Path) -> None:
    """A reload after something else is another one, however soon, and so is that of a gateway without other workers."""

    def reload(at: int, *, is_one_of_many: bool = True) -> Callable[[Tx], None]:
        return lambda tx: operations.keep_reload(tx, operations.SIGNAL, at, is_one_of_many=is_one_of_many)

    dropped = operations.entry(operations.SIGNAL, "drop", 30_000, asked={})
    found = in_the_log(
        tmp_path,
        *(reload(at) for at in (10_000, 11_999, 12_000)),
        *(reload(at, is_one_of_many=False) for at in (20_000, 20_001)),
        lambda tx: operations.keep(tx, dropped),
        reload(30_001),
    )
    assert [one.at for one in reversed(found)] == [10_000, 12_000, 20_000, 20_001, 30_000, 30_001]


# --- who is let in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_numbers_and_texts_that_no_store_takes_are_no_trouble_of_it(tmp_path: Path, kind: str) -> None:
    """An operator's value that the store cannot hold does not fail the writes of others that share its transaction."""
    top = 'admin = "127.0.0.1:9092"'
    with (
        chaos(NO) as vendor,
        standing(tmp_path, vendor.url, top, store=shared().database() if kind != "sqlite" else "") as s,
    ):
        s.page("disk")
        [dead] = soon(lambda: s.listed("dead"))
        for body in ({"ids": [2**63]}, {"ids": [-1, 0, 2**64 - 1]}, {"upstream": "a\0b"}):
            refused = s.post("/-/retry", body)
            assert refused.status_code == 400, (body, refused.text)
        many = s.post("/-/retry", {"ids": list(range(1, 70_001))})
        assert (many.status_code, "no such delivery: 1, 2" in many.text) == (400, True), many.text[:200]
        assert s.get("/-/deliveries?alert=a%00b").status_code == 404
        assert s.get("/-/deliveries?upstream=a%00b").json() == {"deliveries": []}
        assert s.get(f"/-/deliveries?limit={'9' * 5000}").status_code == 400
        done = s.post("/-/drop", {"ids": [dead["id"]], "because": "no\0more", "who": "me\0"})
        assert (done.status_code, done.json()["count"]) == (200, 1), done.text
        assert s.listed("void")[0]["reason"] == "dropped: no?more"


def test_the_token_is_asked_for_but_not_by_probes(tmp_path: Path) -> None:
    top = f'admin = "127.0.0.1:9092"\nadmin_token = "{TOKEN}"'
    with chaos(OK) as vendor, standing(tmp_path, vendor.url, top) as s:
        assert s.get("/-/healthy").status_code == 200
        assert s.get("/-/ready").json() == {"ready": True}, "the verdict alone"
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert "oncall" in s.get("/-/ready", headers=bearer).json()["upstreams"]
        s.page("a")
        looked_at = ("/metrics", "/-/openapi.json", "/-/deliveries", "/-/report", "/-/operations")
        for path in (*looked_at, "/-/callers", "/-/alerts/a"):
            for wrong in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Basic {TOKEN}"}):
                answer = s.get(path, headers=wrong)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in answer.text
            assert s.get(path, headers=bearer).status_code == 200
        assert s.post("/-/retry", {"dead": True}).status_code == 401
        assert s.post("/-/retry", {"dead": True}, headers={**bearer, "host": "admin.example.com"}).status_code == 200
        s.client.cookies.clear()
        assert TOKEN not in repr(s.gateway.config) and TOKEN not in s.get("/metrics", headers=bearer).text


def test_an_address_that_callers_share_hears_no_operator_beyond_loopback(tmp_path: Path) -> None:
    """What counts is the listening address in the configuration: operators' calls are refused even where the connection
    itself is on loopback."""
    with standing(tmp_path, "http://127.0.0.1:9", 'listen = "0.0.0.0:8080"') as s:
        looked_at = [s.get(f"/-/{what}") for what in ("deliveries", "callers", "alerts/a", "operations", "report")]
        for answer in (*looked_at, s.post("/-/retry", {"dead": True}), s.post("/-/reload")):
            assert answer.status_code == 403
            assert 'add admin = "127.0.0.1:9092"' in answer.json()["message"]
        assert s.get("/metrics").status_code == 200, "what is only looked at stays"


def test_a_web_page_and_a_proxy_are_no_operators(tmp_path: Path) -> None:
    """Without a token any local process may call, but not a browser, which shows pages from anywhere, nor a proxy."""
    with standing(tmp_path, "http://127.0.0.1:9") as s:
        assert s.get("/-/deliveries", headers={"host": "rebound.example.com"}).status_code == 403
        assert s.get("/-/deliveries", headers={"x-forwarded-for": "192.0.2.1"}).status_code == 403
        form = s.client.post(s.admin + "/-/retry", content=b'{"dead": true}', headers={"content-type": "text/plain"})
        assert form.status_code == 415
        assert s.post("/-/reload", headers={"origin": "https://evil.example"}).status_code == 403
        for host in ("localhost", "127.0.0.1:9092", "[::1]:9092"):
            assert s.get("/-/deliveries", headers={"host": host}).status_code == 200, host


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ('admin = "0.0.0.0:9092"', 'admin: 0.0.0.0 is reachable from other machines: add admin_token = "env:NAME"'),
        ('admin = "9092"', "admin: '9092' is not HOST:PORT"),
        ('admin = "127.0.0.1:8080"', "admin: is the same as listen, 127.0.0.1:8080"),
        ('listen = "0.0.0.0:8080"\nadmin = "127.0.0.1:8080"', "admin: is the same as listen"),
        ('listen = "[::]:8080"\nadmin = "127.0.0.1:8080"', "admin: is the same as listen"),
        (f'listen = "0.0.0.0:8080"\nadmin_token = "{TOKEN}"', "admin_token: has no effect"),
        ('admin = "127.0.0.1:9092"\nadmin_token = "short"', "admin_token: is shorter than 16 characters"),
        ('admin = "127.0.0.1:9092"\nadmin_token = "env:NOT_THERE_AT_ALL"', "admin_token: the variable NOT_THERE"),
        ('admin_tokens = "x"', "admin_tokens: unknown key; did you mean 'admin_token'?"),
        ("admin = 9092", "admin: "),
    ],
)
def test_what_cannot_go_together_is_said_with_its_path(top: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(f'{top}\n{BASE}url = "https://example.com"\n')
    assert said in str(refused.value)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "top",
    [
        'listen = "127.0.0.1:0"\nadmin = "127.0.0.1:0"',
        'admin = "127.0.0.1:9092"\nadmin_token = "sixteen-letters0"',
        f'admin_token = "{TOKEN}"',
    ],
)
def test_what_goes_together_is_taken(top: str) -> None:
    """Port 0 is a free one for each; and a token protects operators' calls on an address of this machine too."""
    assert parse(f'{top}\n{BASE}url = "https://vendor.test"\n')


# --- as a process, and from the command line -----------------------------------------------------------------


@contextmanager
def process(directory: Path, upstream: str, top: str, *arguments: str) -> Iterator[tuple[Path, str, str]]:
    """A gateway as a process: its configuration, and its addresses for callers and for operators."""
    port, admin = free_port(), free_port()
    config = directory / "gateway.toml"
    store = "" if "store" in top else f'store = "sqlite://{directory}/gateway.db"\n'
    text = f'listen = "127.0.0.1:{port}"\n{store}{top.replace("ADMIN", str(admin))}\n{BASE}url = "{upstream}"\n'
    config.write_text(text)
    with serving(config, *arguments):
        yield config, f"http://127.0.0.1:{port}", f"127.0.0.1:{admin}"


def test_commands_ask_a_running_gateway_instead_of_its_store(tmp_path: Path) -> None:
    with chaos(NO) as vendor, process(tmp_path, vendor.url, 'admin = "127.0.0.1:ADMIN"') as (config, url, admin):
        at = f"http://{admin}"
        ready(at)
        for key in ("a", "b", "c"):
            body = {"apiKey": KEY, **ilert_event("ALERT", key, summary="s")}
            assert httpx.post(url + "/ilert/api/events", json=body, trust_env=False).status_code == 202
        dead = soon(lambda: len(rows := json.loads(command("deliveries", "--url", at, "--json").stdout)) == 3 and rows)
        there = command("deliveries", "--config", str(config), "--state", "dead", "--json")
        soon(lambda: command("deliveries", "--url", at, "--state", "dead", "--json").stdout.count('"dead"') == 3)
        assert there.returncode == 0 and {row["id"] for row in dead} == {row["id"] for row in json.loads(there.stdout)}
        for place in (("--url", at), ("--config", str(config))):
            for name, count in (("oncall", 3), ("another", 0)):
                found = command("deliveries", *place, "--upstream", name, "--json")
                assert len(json.loads(found.stdout)) == count, (place, name)
        done = command("drop", "--url", at, str(dead[0]["id"]), "--because", "no longer wanted")
        assert (done.returncode, done.stdout) == (0, f"{dead[0]['id']}: dropped\n")
        done = command("drop", "--config", str(config), str(dead[1]["id"]), "--because", "nor this")
        assert done.returncode == 0, done.stderr
        vendor.always(OK)
        done = command("retry", "--url", at, "--dead")
        assert (done.returncode, done.stdout) == (0, f"{dead[2]['id']}: will be sent again\n")
        assert command("retry", "--url", at, str(dead[0]["id"])).returncode == 1
        for mistaken in (url, f"{url}/ilert"):
            asked = command("trace", "--url", mistaken, "a")
            assert asked.returncode == 2 and "serves callers, not operators" in asked.stderr, asked.stderr
        report = command("report", "--url", at, "--json")
        assert report.returncode == 0
        [line] = json.loads(report.stdout)["ledger"]
        assert (line["received"], line["void"], line["adds_up"]) == (3, 2, True)
        told = json.loads(command("operations", "--url", at, "--json").stdout)
        assert [one["what"] for one in told] == ["retry", "retry", "drop", "drop"]
        assert told == json.loads(command("operations", "--config", str(config), "--json").stdout), "without asking it"
        assert told[-1]["because"] == "no longer wanted" and "@" in told[-1]["who"]
        assert [one["origin"] for one in told[-2:]] == ["command line", "127.0.0.1"]
        assert '"event": "operator.drop"' in (tmp_path / "log").read_text(), "and in the log"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deliveries",), "give --config FILE, or --url ADMIN"),
        (("deliveries", "--config", "x", "--url", "http://127.0.0.1:1"), "give --config FILE, or --url ADMIN"),
        (("deliveries", "--config", "x", "--token", "env:X"), "--token and --ca go with --url"),
        (("deliveries", "--url", "127.0.0.1:9092"), "is not an address such as http://127.0.0.1:9092"),
        (("deliveries", "--url", "http://127.0.0.1:1", "--token", TOKEN), "write env:NAME or file:PATH"),
        (("deliveries", "--url", "http://127.0.0.1:1", "--token", "env:NOT_THERE"), "NOT_THERE is not set"),
        (("deliveries", "--url", "http://127.0.0.1:1"), "http://127.0.0.1:1 cannot be reached"),
        (("drop", "--url", "http://127.0.0.1:1", "--dead", "--because", " "), "--because: give a reason"),
    ],
)
def test_what_a_command_cannot_do_is_said(arguments: tuple[str, ...], said: str) -> None:
    done = command(*arguments)
    assert done.returncode in (1, 2)
    assert said in " ".join(done.stderr.split())
    assert TOKEN not in done.stderr


def test_a_reload_by_post_is_taken_up_or_refused(tmp_path: Path) -> None:
    with process(tmp_path, "http://127.0.0.1:9", 'admin = "127.0.0.1:ADMIN"') as (config, _url, admin):
        at = f"http://{admin}"
        ready(at)
        good = config.read_text()
        other = '[upstreams.other]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "there-0123456789"\n'
        config.write_text(good + other + '[[routes]]\nto = ["oncall", "other"]\n')
        client = httpx.Client(trust_env=False)
        assert client.post(at + "/-/reload", json={"who": "ann"}).json() == {"reloaded": True}
        assert set(client.get(at + "/-/ready").json()["upstreams"]) == {"oncall", "other"}
        config.write_text(good.replace("dialect", "dialetc"))
        answer = client.post(at + "/-/reload", json={})
        assert answer.status_code == 422
        assert any("did you mean 'dialect'?" in one for one in answer.json()["problems"])
        assert set(client.get(at + "/-/ready").json()["upstreams"]) == {"oncall", "other"}, "the old one stays"
        config.write_text(good.replace(admin, "127.0.0.1:1"))
        answer = client.post(at + "/-/reload", json={})
        assert answer.json()["problems"] == ["admin: takes a restart to change"]
        config.write_text(good)
        assert client.post(at + "/-/reload").json() == {"reloaded": True}, "as curl -X POST says it"
        entries = [(one["what"], one["who"]) for one in client.get(at + "/-/operations").json()["operations"]]
        assert entries == [("reload", "the admin address"), ("reload", "ann")]
        client.close()


def test_beyond_loopback_the_operators_address_shows_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """interface.md: plain HTTP on loopback, the `tls` certificate beyond it; a token in any case there."""
    authority = trustme.CA()
    cert, key = write(tmp_path / "secret", authority, "localhost")
    ca = vouched(tmp_path, authority)
    clients = vouched(tmp_path, trustme.CA(), "clients.pem")
    top = f'tls = {{ cert = "{cert}", key = "{key}", client_ca = "{clients}" }}\nadmin_token = "env:OPERATORS"\n'
    monkeypatch.setenv("OPERATORS", TOKEN)
    with process(tmp_path, "http://127.0.0.1:9", top + 'admin = "0.0.0.0:ADMIN"') as (_, _url, admin):
        at = f"https://localhost:{admin.rpartition(':')[2]}"
        with httpx.Client(verify=believing(authority), trust_env=False) as client:
            soon(lambda: _answers(client, at + "/-/ready"))
            assert client.get(at + "/metrics").status_code == 401
        done = command("deliveries", "--url", at, "--token", "env:OPERATORS", "--ca", str(ca), "--json")
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
        by = ("--url", at, "--token", "env:OPERATORS", "--ca", str(ca))
        for words, status, says in (
            (("retry", "--dead"), 0, "nothing to do"),
            (("drop", "--dead", "--because", "x"), 0, "nothing to do"),
            (("trace", "nobody"), 1, "no alert has the id or key 'nobody'"),
            (("callers",), 0, ""),
            (("operations",), 0, ""),
            (("report",), 0, ""),
        ):
            done = command(words[0], *by, *words[1:])
            assert (done.returncode, says in done.stdout + done.stderr) == (status, True), done.stderr
        done = command("deliveries", "--url", at, "--token", "env:OPERATORS")
        assert done.returncode == 1 and "CERTIFICATE_VERIFY_FAILED" in done.stderr and "--ca FILE" in done.stderr
        done = command("deliveries", "--url", at, "--ca", str(ca))
        assert done.returncode == 1 and "requires a token" in done.stderr
    (tmp_path / "2").mkdir()
    near = top.replace("env:OPERATORS", TOKEN) + 'admin = "127.0.0.1:ADMIN"'
    with process(tmp_path / "2", "http://127.0.0.1:9", near) as (_, _url, admin):
        ready(f"http://{admin}")


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_several_workers_share_both_addresses_and_reload_together(tmp_path: Path) -> None:
    top = f'store = "{shared().database()}"\nadmin = "127.0.0.1:ADMIN"'
    with process(tmp_path, "http://127.0.0.1:9", top, "--workers", "2") as (config, url, admin):
        at = f"http://{admin}"
        ready(at)
        other = '[upstreams.other]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "there-0123456789"\n'
        config.write_text(config.read_text() + other + '[[routes]]\nto = ["oncall", "other"]\n')
        assert httpx.post(at + "/-/reload", json={}, trust_env=False).json() == {"reloaded": True}
        log = tmp_path / "log"
        soon(lambda: log.read_text().count('"event": "config.reloaded"') >= 3)
        reloads = [one["who"] for one in httpx.get(at + "/-/operations", trust_env=False).json()["operations"]]
        assert reloads == ["the admin address"], "three workers, one reload"
        for _ in range(10):
            assert "other" in httpx.get(at + "/-/ready", trust_env=False).json()["upstreams"]
        assert httpx.get(url + "/-/ready", trust_env=False).status_code == 404
