"""`trace` and `/-/alerts/X` (issue 6, "At three in the morning"; interface.md, *Command line*): the whole road of every
alert found by any party's id, a key or text, over real stores, real upstreams and a real gateway."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.admin.tracing import LAST, MOST, SEARCHED, SLICE, Search, Traced, traced
from gateway.canonical import Alert
from gateway.cli.commands import main
from gateway.cli.trace import lines
from gateway.codes import HELD_UNTIL, MEANINGS
from gateway.config.loading import parse
from gateway.dialect import Dialect
from gateway.process.service import Gateway
from gateway.registry import dialects
from gateway.road.terms import INSTEAD_OF
from gateway.store import AttemptRow, Tx
from tests.chaos_upstream import chaos, say
from tests.clients.callers import ilert_event
from tests.engine.store_drivers import DRIVERS, alert, command, delivery, in_tx, target
from tests.engine.test_tls import soon
from tests.harness import KEY, served_together
from tests.processes import wait_for

OK = say(202, {})
TOKEN = "operators-token-0123456789abcdef"
FILE = """
store = "sqlite://{directory}/gateway.db"
{top}
[inbound.ilert]
keys = {{ ci = "{key}" }}
[upstreams.oncall]
dialect = "ilert"
url = "{oncall}"
key = "there-0123456789"
retry = {{ first = "20ms", most = "50ms" }}
[upstreams.status]
dialect = "uptinio"
url = "{status}"
key = "there-0123456789"
retry = {{ first = "20ms", most = "50ms" }}
[[routes]]
name = "loud"
from = ["ilert"]
when = ["severity <= 3"]
to = ["oncall", "status"]
[[routes]]
name = "quiet"
to = []
because = "nobody reads them"
"""


class Night:
    """A gateway with two upstreams, and the pages that arrived."""

    def __init__(self, url: str, admin: str, config: Path) -> None:
        self.url = url
        self.admin = admin
        self.config = str(config)
        self.client = httpx.Client(trust_env=False, timeout=20)

    def send(self, key: str, summary: str, **more: Any) -> str:
        """Sends an event; returns the gateway's id of the alert."""
        body = {"apiKey": KEY, **ilert_event(more.pop("event", "ALERT"), key, summary=summary, **more)}
        answer = self.client.post(self.url + "/ilert/api/events", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["alert-gateway-id"])

    def seen(self, name: str) -> list[dict[str, Any]]:
        """What `/-/alerts/<name>` answers."""
        answer = self.client.get(f"{self.admin}/-/alerts/{quote(name, safe='')}", headers=BEARER)
        assert answer.status_code == (200 if answer.json()["alerts"] else 404)
        return list(answer.json()["alerts"])

    def outbox(self, name: str) -> list[dict[str, Any]]:
        """The deliveries of the alert that somebody knows by this name, as `deliveries --alert` lists them."""
        there = CliRunner().invoke(main, ["deliveries", "--config", self.config, "--alert", name, "--json"])
        answer = self.client.get(f"{self.admin}/-/deliveries", params={"alert": name}, headers=BEARER)
        assert [one["id"] for one in json.loads(there.stdout)] == [one["id"] for one in answer.json()["deliveries"]]
        return list(answer.json()["deliveries"])

    def run(self, *words: str, by_url: bool = False) -> Result:
        """Runs `trace` on the command line."""
        place = ["--url", self.admin, "--token", f"file:{self.config}.token"] if by_url else ["--config", self.config]
        return CliRunner(env={"COLUMNS": "60"}).invoke(main, ["trace", *place, *words])


BEARER = {"authorization": f"Bearer {TOKEN}"}


@contextmanager
def night(directory: Path, oncall: str, status: str, as_told: Callable[[str], str] = str) -> Iterator[Night]:
    """The gateway, in this process, with an address for operators and a token; `as_told` changes its configuration."""
    top = f'admin = "127.0.0.1:9092"\nadmin_token = "{TOKEN}"'
    text = as_told(FILE.format(directory=directory, top=top, key=KEY, oncall=oncall, status=status))
    config = directory / "gateway.toml"
    config.write_text(text)
    (directory / "gateway.toml.token").write_text(TOKEN)
    gateway = Gateway(parse(text))
    with ExitStack() as stack:
        url, admin = stack.enter_context(served_together((gateway.app, 0), (gateway.admin_app, 0)))
        found = Night(url, admin, config)
        stack.enter_context(found.client)
        yield found


def there(road: dict[str, Any], upstream: str) -> dict[str, Any]:
    """An alert's state at one upstream."""
    return next(one for one in road["upstreams"] if one["upstream"] == upstream)


def test_the_whole_road_of_an_alert(tmp_path: Path) -> None:
    with chaos(OK) as oncall, chaos(OK) as status, night(tmp_path, oncall.url, status.url) as n:
        oncall.plan(say(503, {"message": "on fire"}), say(429, {"message": "slow down"}))
        number = n.send("Disk-1", "Disk full on db-1", priority="HIGH")
        road = soon(lambda: (found := n.seen(number)[0]) and there(found, "oncall")["state"] == "present" and found)
        assert str(road["alert"]) == number and road["status"] == "firing" and road["found_by"] == "id"
        assert (road["dialect"], road["caller"], road["severity"]) == ("ilert", "ci", 1)
        [received] = road["received"]
        assert (received["operation"], str(received["request"]), received["caller"]) == ("create", number, "ci")
        assert road["routes"] == [{"route": "loud", "why": "from ilert; severity <= 3 holds"}]

        sent = there(road, "oncall")
        assert (sent["key"], sent["route"]) == ("Disk-1", "loud")
        [delivery] = sent["deliveries"]
        assert (delivery["state"], delivery["code"], delivery["attempts"]) == ("delivered", "", 3)
        tried = [(one["number"], one["status"], one["code"], one["outcome"]) for one in delivery["tried"]]
        assert tried == [(1, 503, "unavailable", "again"), (2, 429, "throttled", "again"), (3, 202, "", "delivered")]
        assert all(one["took_ms"] >= 0 and one["at"].endswith("Z") for one in delivery["tried"])

        dead = there(road, "status")
        assert (dead["state"], dead["deliveries"][0]["state"]) == ("dead", "dead")
        assert dead["deliveries"][0]["code"] == "unmet" and dead["deliveries"][0]["meaning"] == MEANINGS["unmet"]
        assert "requires resource" in dead["deliveries"][0]["reason"]


def test_every_command_is_there_and_where_the_alert_stands_now(tmp_path: Path) -> None:
    with chaos(OK) as oncall, chaos(OK) as status, night(tmp_path, oncall.url, status.url) as n:
        number = n.send("k", "Disk full", priority="HIGH")
        n.send("k", "Disk full", event="RESOLVE")
        road = soon(lambda: (found := n.seen(number)[0]) and there(found, "oncall")["state"] == "gone" and found)
        assert [one["operation"] for one in road["received"]] == ["create", "resolve"]
        assert road["status"] == "resolved"
        assert [one["operation"] for one in there(road, "oncall")["deliveries"]] == ["create", "resolve"]
        again = n.seen(str(road["received"][1]["request"]))
        assert [one["alert"] for one in again] == [road["alert"]], "the number of any request of it is a name too"
        delivery = there(road, "oncall")["deliveries"][1]["delivery"]
        assert [one["alert"] for one in n.seen(str(delivery))] == [road["alert"]], "and that of a delivery"


def test_what_is_held_says_until_when_and_has_no_next_try(tmp_path: Path) -> None:
    """The whole upstream is held for its key, for deliveries that were refused and those never tried alike."""
    with chaos(say(401, {})) as oncall, night(tmp_path, oncall.url, oncall.url, only("oncall")) as n:
        n.send("a", "first", priority="HIGH")
        soon(lambda: there(n.seen("a")[0], "oncall")["deliveries"][0]["code"] == "key-refused")
        n.send("b", "second", priority="HIGH")
        n.send("a", "first", event="RESOLVE")
        refused, after = there(n.seen("a")[0], "oncall")["deliveries"]
        [untried] = there(n.seen("b")[0], "oncall")["deliveries"]
        assert refused["waits_for"] == HELD_UNTIL["key-refused"] and refused["due"] is None
        assert after["waits_for"] == f"waits for delivery {refused['delivery']}" and after["due"] is None
        assert untried["waits_for"].startswith("held until the upstream takes") and untried["due"] is None
        said = " ".join(n.run("a").stdout.split())
        assert "held until the key is changed" in said and "next try" not in said


def test_what_waits_for_an_upstream_that_is_left_alone_says_so(tmp_path: Path) -> None:
    with chaos(say(503, {})) as oncall, night(tmp_path, oncall.url, oncall.url, only("oncall")) as n:
        for number in range(6):
            n.send(f"k{number}", "s", priority="HIGH")

        def told() -> bool:
            [one] = there(n.seen("k5")[0], "oncall")["deliveries"]
            return one["waits_for"] == "the upstream is failing: only probes are sent to it" and one["due"] is None

        soon(told)


def only(name: str) -> Callable[[str], str]:
    """The configuration with a single upstream for loud alerts."""
    return lambda text: text.replace('to = ["oncall", "status"]', f'to = ["{name}"]')


def test_a_request_that_found_no_alert_has_a_road_too(tmp_path: Path) -> None:
    """Its caller knows only the number in `Alert-Gateway-Id`."""
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        number = n.send("opened-elsewhere", "s", event="RESOLVE")
        [road] = n.seen(number)
        assert (road["alert"], road["status"]) == (None, "there was no such alert")
        assert [(one["operation"], str(one["request"])) for one in road["received"]] == [("resolve", number)]
        assert "there was no such alert, from ilert/ci" in n.run(number).stdout


@pytest.mark.parametrize("by_url", [False, True], ids=["store", "admin"])
def test_what_was_sent_for_a_key_alone_is_found_by_that_key(tmp_path: Path, by_url: bool) -> None:
    """The alert was opened before the gateway stood there, and its end went on by its key."""
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url, quiet_too) as n:
        n.send("Opened Elsewhere", "s", event="RESOLVE")
        wait_for(lambda: oncall.got)
        [road] = n.seen("opened elsewhere")  # ilert compares keys without case
        assert (road["alert"], road["found_by"], road["key"]) == (None, "key alone", "Opened Elsewhere")
        assert [(one["upstream"], one["deliveries"][0]["operation"]) for one in road["upstreams"]] == [
            ("oncall", "resolve")
        ]
        said = n.run("opened elsewhere", by_url=by_url)
        assert said.exit_code == 0 and "there was no such alert" in said.stdout and "oncall" in said.stdout
        nobody = n.run("opened", by_url=by_url)
        assert nobody.exit_code == 1 and "nothing was sent for that key alone" in nobody.stderr


def quiet_too(text: str) -> str:
    """The configuration with a route for what says no severity."""
    return text.replace('to = []\nbecause = "nobody reads them"', 'to = ["oncall"]')


def test_a_request_that_every_upstream_refused_says_so_by_its_number(tmp_path: Path) -> None:
    """The alert was undone; what the caller was answered is all that is left."""

    def told(text: str) -> str:
        waits = text.replace("[inbound.ilert]", '[inbound.ilert]\nreply = "delivered"')
        return waits.replace('to = ["oncall", "status"]', 'to = ["oncall"]')

    with chaos(say(400, {"message": "too rude"})) as oncall, night(tmp_path, oncall.url, oncall.url, told) as n:
        body = {"apiKey": KEY, **ilert_event("ALERT", "k", summary="s", priority="HIGH")}
        answer = n.client.post(n.url + "/ilert/api/events", json=body)
        assert answer.status_code == 400 and "too rude" in answer.text
        [road] = n.seen(answer.headers["alert-gateway-id"])
        assert (road["alert"], road["status"], road["key"], road["summary"]) == (None, "taken back", "k", "s")
        assert "too rude" in road["received"][0]["refused"]
        assert n.seen("k") == [], "there is no such alert"


def test_what_was_thrown_away_says_by_which_route_and_why(tmp_path: Path) -> None:
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        n.send("k", "Meh", priority="LOW")
        [road] = n.seen("meh")
        assert road["upstreams"] == []
        assert road["routes"] == [{"route": "quiet", "why": "it takes everything; thrown away: nobody reads them"}]
        assert "goes to no upstream" in n.run("meh").stdout


@pytest.mark.parametrize("key", ["a/b", "a b?c#d%e", "..", "line\nfeed", "ümläut", "https://x.example/y?z=1&w"])
def test_a_key_may_be_any_text(tmp_path: Path, key: str) -> None:
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        number = n.send(key, "s", priority="HIGH")
        for by_url in (True, False):
            done = n.run("--json", key, by_url=by_url)
            assert done.exit_code == 0, done.output
            assert [str(one["alert"]) for one in json.loads(done.stdout)["alerts"]] == [number]


def test_keys_are_compared_as_the_dialects_compare_them(tmp_path: Path) -> None:
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        number = n.send("Web-01", "s", priority="HIGH")
        assert [str(one["alert"]) for one in n.seen("WEB-01")] == [number]
        assert {str(one["alert"]) for one in n.outbox("WEB-01")} == {number}


@pytest.mark.parametrize("dialect", ["opsgenie", "jsm_ops"])
def test_what_a_caller_has_of_its_request_finds_the_alert(dialect: str, tmp_path: Path) -> None:
    """Opsgenie's answer to a create has an id of the request, and none of the alert."""

    def with_it(text: str) -> str:
        inbound = f'[inbound.{dialect}]\nkeys = {{ ci = "ci@example.com:{KEY}" }}\n[inbound.ilert]'
        return text.replace("[inbound.ilert]", inbound).replace('["ilert"]', f'["{dialect}"]')

    key = f"ci@example.com:{KEY}"
    path, said = {
        "opsgenie": ("/opsgenie/v2/alerts", f"GenieKey {key}"),
        "jsm_ops": ("/jsm_ops/alerts", f"Basic {b64encode(key.encode()).decode()}"),
    }[dialect]
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url, with_it) as n:
        body, headers = {"message": "Disk full", "alias": "disk", "priority": "P1"}, {"authorization": said}
        made, again = (n.client.post(n.url + path, json=body, headers=headers) for _ in "12")
        number = int(made.headers["alert-gateway-id"])
        assert made.json()["requestId"] != again.json()["requestId"]
        for answer in (made, again):
            assert [one["alert"] for one in n.seen(answer.json()["requestId"])] == [number]
            assert {one["alert"] for one in n.outbox(answer.json()["requestId"])} == {number}


def test_all_that_a_name_fits_newest_first_and_exit_1_only_when_there_is_none(tmp_path: Path) -> None:
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        first = n.send("k1", "The DISK is full", priority="HIGH")
        second = n.send("disk", "Something else", priority="HIGH")
        third = n.send("k3", "a disk again", priority="HIGH")
        n.send("k4", "unlike", priority="HIGH")
        assert [str(one["alert"]) for one in n.seen("disk")] == [third, second, first]
        assert [one["found_by"] for one in n.seen("disk")] == ["text", "id", "text"]
        for by_url in (True, False):
            found = n.run("--json", "disk", by_url=by_url)
            assert found.exit_code == 0 and len(json.loads(found.stdout)["alerts"]) == 3
            none = n.run("no such thing", by_url=by_url)
            assert none.exit_code == 1 and "no alert has the id or key 'no such thing'" in none.stderr
            empty = n.run("--json", "no such thing", by_url=by_url)
            assert empty.exit_code == 1 and json.loads(empty.stdout)["alerts"] == []


def test_who_could_not_ask_has_not_heard_that_there_is_none(tmp_path: Path) -> None:
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        wrong = CliRunner().invoke(main, ["trace", "--url", n.url, "x"])
        assert wrong.exit_code == 2 and "serves callers" in wrong.stderr
        shut = CliRunner().invoke(main, ["trace", "--url", n.admin, "x"])
        assert shut.exit_code == 2 and "requires a token" in shut.stderr
        away = CliRunner().invoke(main, ["trace", "--url", "http://127.0.0.1:9", "x"])
        assert away.exit_code == 2 and "cannot be reached" in away.stderr
        bad = CliRunner().invoke(main, ["trace", "--config", "/no/such/file", "x"])
        assert bad.exit_code == 2 and "cannot be read" in bad.stderr


def test_an_id_that_is_not_encoded_is_refused_rather_than_cut(tmp_path: Path) -> None:
    with chaos(OK) as oncall, night(tmp_path, oncall.url, oncall.url) as n:
        answer = n.client.get(f"{n.admin}/-/alerts/a?b", headers=BEARER)
        assert answer.status_code == 400 and "%3F" in answer.json()["message"]


# --- for people ----------------------------------------------------------------------------------------------


def test_a_road_reads_well_on_a_narrow_terminal(tmp_path: Path) -> None:
    with chaos(OK) as oncall, chaos(OK) as status, night(tmp_path, oncall.url, status.url) as n:
        oncall.plan(*[say(503, {"message": "on fire"})] * 2)
        number = n.send("k", "Disk full on db-1 \x1b[31m and so much more that no line holds it", priority="HIGH")
        soon(lambda: there(n.seen(number)[0], "oncall")["state"] == "present")
        said = n.run("k").stdout.splitlines()
        assert max(map(len, said)) <= 60
        assert said[0].startswith("Disk full on db-1") and "\x1b" not in "".join(said), "nobody paints this screen"
        assert "received" in said and "route loud: from ilert; severity <= 3 holds" in said
        assert "oncall: present, key k" in said and "status: dead" in said
        text = " ".join(" ".join(said).split())
        assert "503 in" in text and "unavailable, 503 on fire" in text and text.count("on fire") == 1
        assert "create: delivered" in text and "create: dead, unmet" in text and "requires resource" in text


def road_of(**more: Any) -> Traced:
    """An ordinary road; `more` overrides its parts."""
    given = {
        "alert": 1,
        "found_by": "id",
        "shown": "1",
        "key": None,
        "ids": {},
        "summary": "s",
        "severity": None,
        "status": "firing",
        "is_deleted": False,
        "scope": "s",
        "dialect": "d",
        "caller": "c",
        "opened": "2026-11-25T23:59:00.000Z",
        "changed": "2026-11-25T23:59:00.000Z",
        "received": [],
        "earlier": 0,
        "routes": [],
        "upstreams": [],
    }
    return msgspec.convert({**given, **more}, Traced)


def test_many_attempts_are_told_by_the_first_and_the_last() -> None:
    tried = [
        {"number": n, "at": f"2026-11-26T00:00:{n:02}.000Z", "took_ms": 1500, "status": 503, "outcome": "again"}
        | {"code": "unavailable", "reason": "503"}
        for n in range(41, 60)
    ]
    delivery = {"delivery": 7, "command": 1, "operation": "create", "state": "waiting", "meaning": "", "reason": "503"}
    delivery |= {"at": "2026-11-25T23:59:00.000Z", "due": "2026-11-26T00:01:00.000Z", "finished": None, "attempts": 59}
    delivery |= {"code": "unavailable", "tried": tried, "approximated": {"severity": "coarser"}, "kept": {"team": ""}}
    upstream = {"upstream": "u", "state": "waiting", "key": None, "ids": {"id": "mon_1"}, "route": "r"}
    said = lines(road_of(upstreams=[{**upstream, "instead_of": ["a", "b"], "deliveries": [delivery]}], earlier=3), 100)
    assert "u: waiting, id mon_1, instead of a, b" in said
    assert "    #41 2026-11-26 00:00:41 503 in 1.5 s: unavailable, 503" in said, "of another day, so it says which"
    assert "    … 53 more …" in said and "  … 3 earlier commands …" in said
    assert [line.split()[0] for line in said if line.startswith("    #")] == ["#41", "#55", "#56", "#57", "#58", "#59"]
    assert said[-2:] == ["    approximated: severity (coarser)", "    kept here alone: team"]
    receipts = {**delivery, "attempts": 4, "tried": [{**one, "number": 1 + n // 2} for n, one in enumerate(tried[:8])]}
    road = road_of(upstreams=[{**upstream, "instead_of": [], "deliveries": [receipts]}])
    assert "    … 2 more …" in lines(road, 100), "a receipt is told beside its attempt"


# --- a search in a large store -------------------------------------------------------------------------------


def spoken() -> list[Dialect]:
    """All dialects."""
    return list(dialects().values())


def test_a_search_looks_at_a_slice_at_a_time_and_at_so_many_at_most(tmp_path: Path) -> None:
    """A million alerts must not block the store: each slice is short, and their number is limited."""

    def work(tx: Tx) -> None:
        for number in range(1, SEARCHED + SLICE + 1):
            tx.insert_alert(alert(number, body=Alert(summary="needle" if number in (1, SEARCHED) else "hay")))
        search, looks = Search("NEEDLE", spoken()), 0
        while search.look(tx):
            looks += 1
        assert search.newest_first() == [SEARCHED], "what is older than that is not looked at"
        assert (search.searched, search.is_cut_short, looks) == (SEARCHED, True, 1 + SEARCHED // SLICE), "one for keys"

    in_tx(DRIVERS["sqlite memory"](tmp_path), work)


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_at_most_twenty_are_found_and_those_by_id_are_among_them(tmp_path: Path, driver: str) -> None:
    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, key="hay"))
        for number in range(2, 60):
            tx.insert_alert(alert(number, body=Alert(summary="hay")))
        search = Search("hay", spoken())
        while search.look(tx):
            pass
        assert search.newest_first() == [*range(59, 59 - MOST + 1, -1), 1]
        assert not search.is_cut_short
        for odd in ("\0", "\udcff", " ", "%", "_"):
            nothing = Search(odd, spoken())
            while nothing.look(tx):
                pass
            assert nothing.newest_first() == [], odd

    in_tx(DRIVERS[driver](tmp_path), work)


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_a_road_out_of_any_store(tmp_path: Path, driver: str) -> None:
    """A standby fallback, an undone command, fields that were not held, and more than is shown."""

    def work(tx: Tx) -> None:
        tx.insert_alert(alert(1, key="k", body=Alert(summary="s", severity=2)))
        tx.add_id("s", "mon_1", "u", 1)
        first = command(1)
        first.body.routes = {"loud": "severity <= 3 holds"}
        tx.insert_command(first)
        for number in range(2, LAST + 3):
            tx.insert_command(command(number, operation="comment"))
        tx.refuse_command(LAST + 2, "u: no")
        tx.put_target(target(1, "u", state="present", key="k", ids={"id": "mon_1"}, route="loud"))
        tx.put_target(target(1, "v", position=1, state="standby", seen={INSTEAD_OF: [["u"], ["u", "w"]]}))
        fates = [
            {"field": "team", "fate": "kept", "to": "", "why": "the target has no field for it"},
            {"field": "summary", "fate": "mapped", "to": "message", "why": ""},
            {"field": "severity", "fate": "approximated", "to": "", "why": "coarser"},
        ]
        report = msgspec.Raw(msgspec.json.encode(fates))
        tx.insert_delivery(delivery(60, command=1, state="delivered", finished_at=9, attempts=1, report=report))
        tx.insert_attempt(AttemptRow(delivery=60, number=1, at=5, took=3, status=202, outcome="delivered", reason=""))
        tx.insert_delivery(delivery(61, command=1, upstream="gone", state="void", finished_at=9, code="dropped"))
        road = traced(tx, 1, "id")
        assert road is not None
        assert [one.request for one in road.received] == list(range(3, LAST + 3)) and road.earlier == 2
        assert road.received[-1].refused == "u: no"
        assert [(one.route, one.why) for one in road.routes] == [("loud", "severity <= 3 holds")], "said by the first"
        u, v, gone = road.upstreams
        assert (u.upstream, u.state, u.ids, u.route) == ("u", "present", {"id": "mon_1"}, "loud")
        assert (u.deliveries[0].approximated, u.deliveries[0].kept) == (
            {"severity": "coarser"},
            {"team": "the target has no field for it"},
        )
        assert [(one.status, one.took_ms) for one in u.deliveries[0].tried] == [(202, 3)]
        assert (v.state, v.instead_of, v.deliveries) == ("standby", ["u", "w"], [])
        assert (gone.upstream, gone.deliveries[0].meaning) == ("gone", MEANINGS["dropped"])
        assert road.ids == {"u": ["mon_1"]}
        assert traced(tx, 900, "id") is None
        assert all(line for line in lines(road, 40))

    in_tx(DRIVERS[driver](tmp_path), work)
