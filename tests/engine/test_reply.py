"""When a caller is answered, and what with: `reply = "delivered"` and `"accepted"`, refusals that leave nothing, and
the report's header. All of it is interface.md, *HTTP*, *Reply*."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from gateway.store import DeliveryFilter, DeliveryRow
from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import HANG, Behaviour, Got, chaos, say
from tests.harness import KEY, House, Sent, house

OK = say(202, {})
NO = say(400, {"status": 400, "message": "summary is too rude", "code": "BAD_REQUEST"})
IBM_NO = say(400, {"errors": [{"reason": "not valid", "message": "condition does not parse"}]})


def table(name: str, url: str, dialect: str = "ilert", more: str = "") -> str:
    """An `[upstreams.…]` table with short retry pauses."""
    retry = 'retry = { first = "10ms", most = "30ms" }\ntimeout = "1500ms"'
    return f'[upstreams.{name}]\ndialect = "{dialect}"\nurl = "{url}"\nkey = "upstream-key"\n{retry}\n{more}\n'


DIALECTS = ("ilert", "uptinio", "ibm_monitoring", "livesession")
INBOUNDS = "\n".join(f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}' for name in DIALECTS)
MON = 'defaults = { resource = "mon_9" }'


@contextlib.contextmanager
def before(directory: Path, *tables: str, to: str = "", top: str = 'reply_timeout = "1s"') -> Iterator[House]:
    """A gateway with callers of every dialect in front of these upstreams; `to` as in a route, or whole routes."""
    routes = to if "[[" in to or not to else f"[[routes]]\nto = {to}\n"
    text = "\n".join([INBOUNDS, *tables, routes])
    with house(directory, config=lambda _: text, top=top) as standing:
        yield standing


def created(got: Got) -> Behaviour:
    """Uptinio's answers to a create, an update and a list, with no other alerts there."""
    if got.method == "GET":
        return say(200, {"data": [], "meta": {"page": 1, "per_page": 100, "total": 0}})
    return say(201 if got.method == "POST" else 200, {"data": {**got.body, "id": "alt_77"}})


def down(h: House, message: str = "Website is down", **more: Any) -> Sent:
    """Sends Uptinio's documented create."""
    return h.call("POST", "/alerts", {"monitor_id": "mon_123", "type": "down", "message": message, **more})


def rule(h: House, name: str = "CPU high", **more: Any) -> Sent:
    """Sends IBM's documented create, reduced to the required fields."""
    alert = {"name": name, "type": "MANUAL", "condition": "avg(cpu) > 1", "timespan": 60_000_000, **more}
    return h.call("POST", "/api/alerts", {"alert": alert})


def page(h: House, key: str = "disk", word: str = "ALERT", **more: Any) -> Sent:
    """Sends an ilert event."""
    event = {"apiKey": KEY, "eventType": word, "summary": "Disk full", "alertKey": key, **more}
    return h.call("POST", "/api/events", event, key=None)


@contextlib.contextmanager
def looking(h: House) -> Iterator[SqliteTx]:
    """The store as it is on the disk."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        yield SqliteTx(connection)


def outbox(h: House) -> list[DeliveryRow]:
    """All deliveries, oldest first."""
    with looking(h) as tx:
        return tx.deliveries(DeliveryFilter())[::-1]


def count(h: House, what: str) -> int:
    """The number of rows of a table."""
    with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection:
        return int(next(connection.execute(f"SELECT count(*) FROM {what}"))[0])


def parsed(line: str) -> tuple[str, dict[str, str]]:
    """A line of the report: the upstream, and its parts in their order."""
    upstream, *parts = line.split("; ")
    return upstream, dict(part.split("=", 1) for part in parts)


# --- delivered -----------------------------------------------------------------------------------------------


def test_success_when_the_primary_took_it_though_a_secondary_hangs(tmp_path: Path) -> None:
    tables = table("uptime", "{0}", "uptinio", MON), table("oncall", "{1}")
    with chaos(created) as good, chaos(HANG) as stuck:
        filled = [one.replace("{0}", good.url).replace("{1}", stuck.url) for one in tables]
        with before(tmp_path, *filled, to='["uptime", "oncall"]', top='reply_timeout = "10s"') as h:
            began = time.monotonic()
            made = down(h)
            assert made.status == 201
            assert time.monotonic() - began < 8, "it waited for the secondary"
            assert len(good.got) == 1


def test_success_when_the_primary_took_it_though_a_secondary_refused(tmp_path: Path) -> None:
    with chaos(created) as good, chaos(NO) as bad:
        tables = table("uptime", good.url, "uptinio", MON), table("oncall", bad.url)
        with before(tmp_path, *tables, to='["uptime", "oncall"]') as h:
            made = down(h)
            assert made.status == 201
            dead = h.wait_for(lambda: [one for one in outbox(h) if one.state == "dead"])
            assert "summary is too rude" in dead[0].reason


def test_a_primary_that_refused_is_a_dead_letter_where_a_secondary_took_it(tmp_path: Path) -> None:
    """The caller is refused only when every upstream has refused the content."""
    with chaos(NO) as bad, chaos(created) as good:
        tables = table("oncall", bad.url), table("uptime", good.url, "uptinio", MON)
        with before(tmp_path, *tables, to='["oncall", "uptime"]') as h:
            made = down(h)
            assert made.status == 201
            assert parsed(made.report[0])[0] == "oncall"
            assert "dead" in parsed(made.report[0])[1]
            assert [(one.upstream, one.state) for one in outbox(h)] == [("oncall", "dead"), ("uptime", "delivered")]


def test_what_every_upstream_refused_is_refused_in_the_caller_s_words_and_nothing_remains(tmp_path: Path) -> None:
    with chaos(NO) as one, chaos(say(422, {"error": {"code": "invalid_request", "message": "no"}})) as two:
        tables = table("oncall", one.url), table("uptime", two.url, "uptinio", MON)
        with before(tmp_path, *tables, to='["oncall", "uptime"]') as h:
            refused = rule(h)
            assert 400 <= refused.status < 500
            [error] = refused.body["errors"]
            assert "summary is too rude" in error["message"] and "oncall" in error["message"]
            assert (count(h, "alerts"), count(h, "targets"), count(h, "ids"), count(h, "deliveries")) == (0, 0, 0, 0)
            assert h.call("GET", "/api/alerts").body == {"alerts": []}
            one.always(OK)
            two.always(say(201, {"data": {"id": "alt_1"}}))
            assert rule(h).status == 200


def test_a_refused_page_leaves_its_key_free(tmp_path: Path) -> None:
    with chaos(NO) as upstream, before(tmp_path, table("oncall", upstream.url), top='reply = "delivered"') as h:
        refused = page(h)
        assert refused.status == 400
        assert refused.body["status"] == 400 and "summary is too rude" in refused.body["message"]
        upstream.always(OK)
        assert page(h).status == 202
        assert [got.body["alertKey"] for got in upstream.got] == ["disk", "disk"]
        assert len(h.call("GET", "/ilert/api/alerts").body) == 1


def test_a_refused_update_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url)) as h:
        made = rule(h).body["alert"]
        address = f"/api/alerts/{made['id']}"
        upstream.always(NO)
        refused = h.call("PUT", address, {"alert": {**made, "name": "Other", "severity": 0}})
        assert 400 <= refused.status < 500
        assert "summary is too rude" in refused.body["errors"][0]["message"]
        assert h.call("GET", address).body["alert"] == made
        upstream.always(OK)
        assert rule(h, "Other").status == 200
        assert rule(h, made["name"]).status == 422
        again = h.call("PUT", address, {"alert": {**made, "severity": 1}})
        assert again.status == 200 and again.body["alert"]["version"] == made["version"] + 1


def test_a_refused_resolve_leaves_the_alert_open(tmp_path: Path) -> None:
    with chaos(created) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio")) as h:
        made = down(h).body["data"]
        upstream.always(say(400, {"error": {"code": "invalid_request", "message": "not now"}}))
        refused = h.call("PUT", f"/alerts/{made['id']}", {"status": "resolved"})
        assert refused.status == 400 and "not now" in refused.body["error"]["message"]
        upstream.always(say(503))
        shown = h.call("GET", f"/alerts/{made['id']}").body["data"]
        assert (shown["status"], shown["resolved_at"]) == ("active", None)


def test_a_refused_resolve_of_a_key_that_is_open_again_meanwhile(tmp_path: Path) -> None:
    """canonical.md: after a resolve the same key is a new alert; undoing the resolve must not take its key back."""
    events: list[str] = []

    def answer(got: Got) -> Behaviour:
        events.append(got.body["eventType"])
        if got.body["eventType"] == "RESOLVE":
            assert page_again()
            return NO
        return OK

    with chaos(answer) as upstream, before(tmp_path, table("oncall", upstream.url), top='reply = "delivered"') as h:

        def page_again() -> bool:
            return page(h).status == 202

        page(h)
        refused = page(h, word="RESOLVE")
        assert refused.status == 400, refused.body
        h.wait_for(lambda: events == ["ALERT", "RESOLVE", "ALERT"])
        with looking(h) as tx:
            assert tx.alert_by_key("ilert/ci", "disk")


def test_a_hung_upstream_is_success_after_reply_timeout_and_delivered_later(tmp_path: Path) -> None:
    with chaos(created) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio")) as h:
        upstream.plan(HANG)
        began = time.monotonic()
        assert down(h).status == 201
        assert 0.9 <= time.monotonic() - began < 1.8
        h.wait_for(lambda: outbox(h)[0].state == "delivered")
        posted = [got.body["message"] for got in upstream.got if got.method == "POST"]
        assert posted == ["Website is down"] * 2


def test_what_is_queued_behind_something_is_answered_at_once(tmp_path: Path) -> None:
    """Answered at once if something already waits in its lane; in another lane the caller waits for its own verdict."""
    top = 'reply_timeout = "1500ms"\nreply = "delivered"'
    with chaos(say(503)) as upstream, before(tmp_path, table("oncall", upstream.url), top=top) as h:
        assert page(h).status == 202
        began = time.monotonic()
        assert page(h, word="ACCEPT").status == 202
        assert page(h, word="RESOLVE").status == 202
        assert time.monotonic() - began < 1
        upstream.always(OK)
        h.wait_for(lambda: {one.state for one in outbox(h)} == {"delivered"})
        taken = [got.body["eventType"] for got in upstream.got]
        assert taken[-3:] == ["ALERT", "ACCEPT", "RESOLVE"] and set(taken[:-3]) <= {"ALERT"}


def test_a_primary_that_is_held_is_answered_at_once(tmp_path: Path) -> None:
    with chaos(say(401)) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio")) as h:
        down(h)
        h.wait_for(lambda: h.client.get(h.url + "/-/ready").json()["held"])
        began = time.monotonic()
        assert down(h).status == 201
        assert time.monotonic() - began < 0.8


def test_the_first_caller_of_an_upstream_that_gets_held_is_not_refused(tmp_path: Path) -> None:
    """canonical.md, *Verdicts*: 401, 402, 403 are never a verdict on an alert."""
    with chaos(say(403)) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio")) as h:
        assert down(h).status == 201
        assert [one.state for one in outbox(h)] == ["waiting"]


# --- accepted ------------------------------------------------------------------------------------------------


def test_accepted_is_success_as_soon_as_it_is_durable(tmp_path: Path) -> None:
    with chaos(HANG) as stuck, before(tmp_path, table("oncall", stuck.url), top='reply_timeout = "5s"') as h:
        began = time.monotonic()
        assert page(h).status == 202
        assert time.monotonic() - began < 4
        assert [one.state for one in outbox(h)] == ["waiting"]


def test_accepted_is_not_taken_back_when_the_upstream_refuses(tmp_path: Path) -> None:
    with chaos(NO) as bad, before(tmp_path, table("oncall", bad.url)) as h:
        assert page(h).status == 202
        h.wait_for(lambda: outbox(h)[0].state == "dead")
        assert count(h, "alerts") == 1


# --- what a target requires ----------------------------------------------------------------------------------


def test_a_requirement_that_the_primary_cannot_meet_is_refused_before_anything_happens(tmp_path: Path) -> None:
    """canonical.md, *Where a target requires what the alert does not have*: the refusal names the upstream, the field
    and the setting that would supply it, in either reply mode."""
    with chaos(OK) as upstream, before(tmp_path, table("uptime", upstream.url, "uptinio")) as h:
        answers = page(h), rule(h)
        texts = answers[0].body["message"], answers[1].body["errors"][0]["message"]
        for answer, said in zip(answers, texts, strict=True):
            assert 400 <= answer.status < 500
            assert "uptime" in said and "resource" in said
            assert "defaults" in said and "set" in said
        assert upstream.connections == 0
        assert (count(h, "alerts"), count(h, "commands"), count(h, "deliveries")) == (0, 0, 0)


def test_at_a_secondary_it_is_a_dead_letter_named_in_the_report(tmp_path: Path) -> None:
    with chaos(OK) as good, chaos(created) as other:
        tables = table("oncall", good.url), table("uptime", other.url, "uptinio")
        with before(tmp_path, *tables, to='["oncall", "uptime"]') as h:
            sent = page(h)
            assert sent.status == 202
            lines = dict(parsed(line) for line in sent.report)
            assert next(iter(lines["uptime"])) == "dead" and lines["uptime"]["dead"]
            dead = next(one for one in outbox(h) if one.upstream == "uptime")
            assert dead.state == "dead" and "resource" in dead.reason and dead.attempts == 0
            assert other.connections == 0
            h.wait_for(lambda: good.got)


def test_a_default_or_a_set_supplies_it(tmp_path: Path) -> None:
    with chaos(created) as upstream:
        tables = table("uptime", upstream.url, "uptinio")
        with before(tmp_path, tables, to='[{ upstream = "uptime", set = { resource = "mon_5" } }]') as h:
            sent = page(h)
            assert sent.status == 202
            h.wait_for(lambda: upstream.got)
            assert upstream.got[0].body["monitor_id"] == "mon_5"


# --- the report's header -------------------------------------------------------------------------------------


def test_the_header_has_one_line_per_upstream_in_the_documented_form(tmp_path: Path) -> None:
    """`Alert-Gateway-Report: <upstream>; approximated=a,b; kept=c`, keys in the order dead, approximated, kept."""
    with chaos(OK) as one, chaos(created) as two, chaos(IBM_NO) as three:
        tables = (
            table("oncall", one.url),
            table("uptime", two.url, "uptinio", MON),
            table("metrics", three.url, "ibm_monitoring"),
        )
        with before(tmp_path, *tables, to='["uptime", "oncall", "metrics"]') as h:
            links = [{"href": "https://runbook", "text": "what to do"}]
            sent = page(h, priority="LOW", links=links, labels={"team": "db"})
            assert sent.headers["alert-gateway-id"].isdigit()
            assert [line.split(";")[0] for line in sent.report] == ["uptime", "metrics"]
            for line in sent.report:
                assert re.fullmatch(r"\w+(; dead=\S+)?(; approximated=[\w.,]+)?(; kept=[\w.,]+)?", line), line
            uptime, metrics = (parsed(line)[1] for line in sent.report)
            assert {"urgency", "links", "labels"} <= set(uptime["kept"].split(","))
            assert next(iter(metrics)) == "dead"


def test_what_can_be_held_is_not_in_the_header(tmp_path: Path) -> None:
    with chaos(OK) as one, before(tmp_path, table("oncall", one.url)) as h:
        assert page(h, priority="LOW", labels={"a": "b"}).report == []


def test_names_outside_the_alphabet_are_counted_and_the_line_stays_within_1_kib(tmp_path: Path) -> None:
    odd = {f"fi\u00ebld {number}": number for number in range(7)}
    many = {f"plain_name_of_some_length_{number}": number for number in range(100)}
    with chaos(created) as one, before(tmp_path, table("uptime", one.url, "uptinio", MON)) as h:
        for extra in (odd, many):
            sent = rule(h, f"rule {len(extra)}", **extra)
            assert sent.status == 200
            [line] = sent.report
            assert line.isascii() and len(line) <= 1024
            assert "fi" not in line.replace("field", "") or extra is many
        assert "+7" in rule(h, "rule again", **odd).report[0]


def test_a_name_too_long_to_be_told_is_counted_as_well(tmp_path: Path) -> None:
    """A field name as long as a sender likes would make a header that proxies and clients refuse, together with the
    answer."""
    with chaos(OK) as one, before(tmp_path, table("oncall", one.url, "opsgenie")) as h:
        odd: dict[str, Any] = {"n" * 9000: 1}
        sent = page(h, **odd)
        assert sent.status == 202
        assert sent.report == ["oncall; kept=+1"]


# --- fan-out and routes --------------------------------------------------------------------------------------


def test_one_alert_goes_to_several_dialects_each_in_its_own_words(tmp_path: Path) -> None:
    def ibm(got: Got) -> Behaviour:
        return say(200, {"alert": {**got.body["alert"], "id": 9, "version": 1}})

    with chaos(OK) as one, chaos(created) as two, chaos(ibm) as three:
        tables = (
            table("oncall", one.url),
            table("uptime", two.url, "uptinio", MON),
            table("metrics", three.url, "ibm_monitoring", 'defaults = { "condition.expression" = "avg(up) <= 0" }'),
        )
        with before(tmp_path, *tables, to='["oncall", "uptime", "metrics"]') as h:
            assert down(h).status == 201
            h.wait_for(lambda: {row.state for row in outbox(h)} == {"delivered"})
            assert [(got.method, got.path) for got in one.got] == [("POST", "/api/events")]
            assert one.got[0].body["summary"] == "Website is down"
            assert [(got.method, got.path) for got in two.got] == [("POST", "/alerts")]
            assert two.got[0].body["message"] == "Website is down"
            assert [(got.method, got.path) for got in three.got] == [("POST", "/api/alerts")]
            assert three.got[0].body["alert"]["name"] == "Website is down"


def test_an_alert_that_no_route_matches_is_refused_naming_routes(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = ["oncall"]\nwhen = ["severity <= 2"]\n'
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url), to=routes) as h:
        for answer in (page(h, severity=5), down(h), rule(h, severity=6)):
            assert 400 <= answer.status < 500
            assert "routes" in str(answer.body)
        assert (count(h, "alerts"), count(h, "deliveries"), upstream.connections) == (0, 0, 0)
        assert page(h, severity=1).status == 202
        h.wait_for(lambda: upstream.got)


def test_throwing_away_on_purpose_is_a_success_that_sends_nothing(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = []\nbecause = "a rehearsal"\nwhen = ["severity > 2"]\n[[routes]]\nto = ["oncall"]\n'
    with chaos(OK) as upstream, before(tmp_path, table("oncall", upstream.url), to=routes) as h:
        assert page(h, "quiet", severity=5).status == 202
        assert page(h, "loud", severity=1).status == 202
        h.wait_for(lambda: upstream.got)
        assert [got.body["alertKey"] for got in upstream.got] == ["loud"]
        assert len(outbox(h)) == 1
