"""Silences: a silenced alert is recorded and not sent, an open one is acknowledged upstream, each scope has its own
silences, and when one is over the next repeat of the alert is sent.
https://prometheus.io/docs/alerting/latest/alertmanager/#silences
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import apsw
import msgspec
import pytest

from gateway.asked import Mute, Muted
from gateway.canonical import Flat
from gateway.errors import Problem
from gateway.mapping.values import from_millis
from gateway.road import muting
from gateway.store import Tx
from mappings.alertmanager import words as alert_words
from mappings.alertmanager.matchers import Matcher
from mappings.alertmanager.matchers import parse as parse_filter
from mappings.alertmanager.routes import muted_by
from tests.clients.callers import ALERTS, OTHER, called
from tests.engine.lasting import SILENCES, STORES, address, alert, lasting, posted, seconds, select, words
from tests.engine.silences import ONE, is_over, matching, named, silence, silenced, state
from tests.engine.store_drivers import DRIVERS, in_tx
from tests.harness import House


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with an ilert upstream."""
    with lasting(tmp_path_factory.mktemp("muting"), {"there": "ilert"}) as standing:
        yield standing


def test_matchers_may_be_spelled_in_any_case(h: House) -> None:
    """An `isEqual` that was overlooked would silence exactly what is to go on alerting."""
    other = {"Name": "team", "VALUE": "ops", "isregex": False, "IsEqual": False}
    sent = silence(h, matching("alertname", name := named("Case")), other)
    assert sent.status == 200, sent.body
    posted(h, alert(name, labels={"alertname": name, "team": "ops"}))
    assert state(h, name) == "active"


@pytest.mark.parametrize("kind", STORES)
def test_a_new_alert_is_not_told_until_it_is_over(tmp_path: Path, kind: str) -> None:
    """The alert is recorded and shown; the first repeat after the silence is sent, once."""
    name, other = named("Quiet"), named("Loud")
    with lasting(tmp_path, {"there": "ilert"}, store=address(kind, tmp_path)) as h:
        silenced(h, name, lasts=2)
        sent = posted(h, alert(name), alert(other))
        assert sent.report[0].endswith("kept=status"), sent.report
        h.wait_for(lambda: words(h, other) == ["ALERT"])
        posted(h, alert(name), {**alert(name), "annotations": {"summary": f"{name} is down", "more": "words"}})
        assert (state(h, name), state(h, other)) == ("suppressed", "active")
        assert words(h, name) == [] and select(h, "SELECT count(*) FROM deliveries") == [1]

        def tells() -> bool:
            posted(h, alert(name))
            return words(h, name) == ["ALERT"]

        h.wait_for(tells, 15)
        posted(h, alert(name))
        assert words(h, name) == ["ALERT"]


@pytest.mark.parametrize("dialect", ["ibm_monitoring", "livesession", "uptinio"])
def test_where_alerts_have_ids_it_is_told_once_it_is_over_too(tmp_path: Path, dialect: str) -> None:
    """An upstream that identifies alerts by its own ids gets the alert too, though an identical repeat normally sends
    nothing to upstreams that have it."""
    name = named("Quiet")
    with lasting(tmp_path, {"there": dialect}) as h:
        made = silenced(h, name)
        posted(h, alert(name))
        is_over(h, made)
        posted(h, alert(name))
        posted(h, alert(name))
        h.arrives(dialect, 1)
        told = "SELECT operation FROM deliveries WHERE state = 'delivered'"
        h.wait_for(lambda: select(h, told) == ["update"])
        posted(h, alert(name))
        assert [one.method for one in h.arrived(dialect)] == ["POST"]


@pytest.mark.parametrize("kind", STORES)
def test_what_is_open_is_acknowledged(tmp_path: Path, kind: str) -> None:
    """A silence acknowledges the matching open alert and no other; its resolve is sent."""
    name, other = named("Open"), named("Other")
    with lasting(tmp_path, {"there": "ilert"}, store=address(kind, tmp_path)) as h:
        posted(h, alert(name), alert(other))
        silenced(h, name)
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT"])
        assert (state(h, name), state(h, other)) == ("suppressed", "active")
        posted(h, {**alert(name), "annotations": {"summary": f"{name} is down", "more": "words"}})
        posted(h, alert(name, endsAt=seconds(-1)))
        h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT", "RESOLVE"])
        assert words(h, other) == ["ALERT"]


def test_a_silence_stands_though_too_many_ask_at_once(h: House) -> None:
    """A refusal would make the client create another silence: it is stored, and the open alert is acknowledged."""
    name = named("Crowded")
    posted(h, alert(name))
    h.wait_for(lambda: words(h, name) == ["ALERT"])
    desk = h.gateway.desk
    assert desk is not None
    desk.crowd.inside += 1000
    try:
        made = silenced(h, name)
    finally:
        desk.crowd.inside -= 1000
    assert h.call("GET", ONE + made).body["status"] == {"state": "active"}
    h.wait_for(lambda: words(h, name) == ["ALERT", "ACCEPT"])


def test_where_nothing_can_be_taken_no_silence_is_kept_either(tmp_path: Path) -> None:
    routes = '[[routes]]\nto = ["there"]\nfallback = { to = ["sms"], after = "1h" }\n'
    upstreams = {"there": "ilert", "sms": "ilert"}
    with called(tmp_path, upstreams, routes=routes, top="max_waiting = 1\n") as h:
        posted(h, alert(named("Waiting")))
        name = named("Full")
        h.wait_for(lambda: silence(h, matching("alertname", name)).status == 503)
        before = len(h.call("GET", SILENCES).body)
        assert silence(h, matching("alertname", name)).status == 503
        assert len(h.call("GET", SILENCES).body) == before


def test_an_alert_that_came_and_went_in_a_silence_is_told_to_nobody(h: House) -> None:
    name = named("Never")
    silenced(h, name)
    posted(h, alert(name))
    posted(h, alert(name, endsAt=seconds(-1)))
    loud = named("Loud")
    posted(h, alert(loud))
    h.wait_for(lambda: words(h, loud) == ["ALERT"])
    assert words(h, name) == []


def test_a_silence_is_its_callers_own(h: House) -> None:
    name = named("Scope")
    made = silenced(h, name, key=OTHER)
    posted(h, alert(name))
    h.wait_for(lambda: words(h, name) == ["ALERT"])
    assert h.call("GET", ONE + made).status == 404
    assert h.call("DELETE", ONE + made).status == 404
    assert made not in str(h.call("GET", SILENCES).body)
    assert h.call("GET", ONE + made, key=OTHER).status == 200


@pytest.mark.parametrize("driver", sorted(DRIVERS))
@pytest.mark.parametrize(
    ("own", "other"), [("v/team", "v/Team"), ("v/team", "v/team a"), ("v/t_m", "v/tam"), ("v/t%", "v/team")]
)
def test_callers_whose_names_are_alike_have_their_silences_apart(
    tmp_path: Path, driver: str, own: str, other: str
) -> None:
    def work(tx: Tx) -> None:
        asked = Mute(body={}, starts_at=from_millis(0), ends_at=from_millis(9000))
        made = muting.keep(tx, other, asked, 1000)
        assert muting.kept(tx, own) == []
        assert muting.muting(tx, own, {}, lambda mutes: lambda flat: mutes, 1000) is None
        assert muting.kept(tx, other) == [made]

    in_tx(DRIVERS[driver](tmp_path), work)


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_what_an_alert_costs_does_not_grow_with_silences_of_others(tmp_path: Path, driver: str) -> None:
    """Non-matching silences are neither read nor tried for each alert; one that is created, replaced or ended counts at
    once."""
    flat = {"summary": "x", "labels": {"alertname": "Meant", "instance": "db-3"}}

    def asked(name: str, value: str, *, of: str | None = None, **more: Any) -> Mute:
        body = {"matchers": [{"isRegex": False, "isEqual": True, "name": name, "value": value, **more}]}
        return Mute(id=of, body=body, starts_at=from_millis(0), ends_at=from_millis(9000))

    def fill(tx: Tx) -> None:
        for number in range(20):
            muting.keep(tx, "v/team", asked("alertname", f"Other{number}"), 1000)

    def work(tx: Tx) -> None:
        read, limits = tx.notes, []

        def notes(prefix: str, limit: int) -> list[Any]:
            limits.append(limit)
            return read(prefix, limit)

        def by() -> str | None:
            limits.clear()
            found = muting.muting(tx, "v/team", flat, muted_by, 1000)
            return found.id if found else None

        tx.notes = notes  # type: ignore[method-assign]
        assert by() is None and len(limits) == 2
        assert by() is None and limits == [1], "what is known is not read again"
        made = muting.keep(tx, "v/team", asked("instance", "db-.", isRegex=True), 1000).id
        assert by() == made
        muting.keep(tx, "v/team", asked("instance", "web-.", isRegex=True, of=made), 1000)
        assert by() is None
        muting.keep(tx, "v/team", asked("instance", "db-3", of=made), 1000)
        assert by() == made
        muting.end(tx, "v/team", made, 1000)
        assert by() is None
        every = muting.keep(tx, "v/team", asked("instance", "web-1", isEqual=False), 1000).id
        assert by() == every
        muting.forget(tx, "v/team", 9001, 2000)
        assert by() is None and muting.kept(tx, "v/team") == []

    def whole(tx: Tx) -> None:
        fill(tx)
        work(tx)

    in_tx(DRIVERS[driver](tmp_path), whole)


def test_what_an_earlier_release_kept_is_heard(tmp_path: Path) -> None:
    """An earlier release stored silences without the note that tells when a scope's silences change; they hold all the
    same."""
    with lasting(tmp_path, {"there": "ilert"}) as h:
        made = silenced(h, "Old")
        with contextlib.closing(apsw.Connection(str(tmp_path / "gateway.db"))) as store, store:
            store.execute("DELETE FROM notes WHERE name LIKE 'mute % ~'")
        posted(h, alert("Old"), alert("New"))
        h.wait_for(lambda: words(h, "New") == ["ALERT"])
        assert words(h, "Old") == [] and h.call("GET", ONE + made).status == 200


def test_one_that_begins_later_does_nothing_yet(h: House) -> None:
    name = named("Later")
    made = silenced(h, name, startsAt=seconds(30))
    posted(h, alert(name))
    h.wait_for(lambda: words(h, name) == ["ALERT"])
    assert h.call("GET", ONE + made).body["status"] == {"state": "pending"}


def test_shown_replaced_and_expired(h: House) -> None:
    name = named("Shown")
    made = silenced(h, name)
    shown = h.call("GET", ONE + made).body
    assert (shown["id"], shown["createdBy"], shown["comment"]) == (made, "jane", "we know")
    assert shown["matchers"] == [{"name": "alertname", "value": name, "isRegex": False, "isEqual": True}]
    assert shown["status"] == {"state": "active"} and uuid.UUID(made)
    assert shown in h.call("GET", SILENCES).body
    assert silenced(h, name, lasts=600, id=made) == made
    assert h.call("GET", ONE + made).body["endsAt"] > shown["endsAt"]
    for _ in range(2):
        assert h.call("DELETE", ONE + made).status == 200
    ended = h.call("GET", ONE + made).body
    assert ended["status"] == {"state": "expired"}
    assert datetime.fromisoformat(ended["endsAt"]) <= datetime.now(UTC)
    posted(h, alert(name))
    h.wait_for(lambda: words(h, name) == ["ALERT"])


def test_an_alert_shows_what_silences_it(tmp_path: Path) -> None:
    """`amtool alert query` asks for alerts that are not silenced, and dashboards go by `silencedBy`.
    https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml (alertStatus, getAlerts)"""

    def names(h: House, query: str) -> dict[str, list[str]]:
        found = h.call("GET", f"/alertmanager/api/v2/alerts{query}").body
        return {one["labels"]["alertname"]: one["status"]["silencedBy"] for one in found}

    with lasting(tmp_path, {"there": "ilert"}) as h:
        posted(h, alert("before"))
        made = sorted([silenced(h, "before"), silenced(h, "before"), silenced(h, "after")], key=str)
        posted(h, alert("after"), alert("loud"))
        silenced(h, "loud", startsAt=seconds(30))
        silenced(h, "loud", key=OTHER)
        shown = names(h, "")
        assert sorted([*shown["before"], *shown["after"]]) == made and shown["loud"] == []
        assert set(names(h, "?silenced=false")) == {"loud"}
        assert set(names(h, "?active=false")) == {"before", "after"}
        [ended] = shown["after"]
        assert h.call("DELETE", ONE + ended).status == 200
        assert set(names(h, "?silenced=false")) == {"loud", "after"}


def _listed(h: House, **query: str | list[str]) -> list[str]:
    found = h.call("GET", f"{SILENCES}?{urlencode(query, doseq=True)}")
    assert found.status == 200, found.body
    return [str(one["id"]) for one in found.body]


def test_only_the_silences_that_are_asked_for_are_listed(tmp_path: Path) -> None:
    """`amtool silence expire $(amtool silence query -q alertname=web)` would otherwise end every silence. A filter is
    compared with a silence's own matchers, not with the alerts that it matches.
    https://github.com/prometheus/alertmanager/blob/main/api/v2/api.go (CheckSilenceMatchesFilterLabels)"""
    with lasting(tmp_path, {"there": "ilert"}) as h:
        web, db = silenced(h, "web"), silenced(h, "db")
        pattern = str(silence(h, matching("alertname", "web", isRegex=True)).body["silenceID"])
        both = str(silence(h, matching("alertname", "web"), matching("job", "a")).body["silenceID"])
        but_web = (matching("job", "b"), matching("alertname", "web", isEqual=False))
        other = str(silence(h, *but_web).body["silenceID"])
        assert set(_listed(h)) == {web, db, pattern, both, other}
        assert set(_listed(h, filter="alertname=web")) == {web, both}
        assert _listed(h, filter=['alertname="web"', "job=a"]) == [both]
        assert _listed(h, filter='{alertname="web",job="a"}') == [both]
        assert _listed(h, filter="alertname=~web") == [pattern]
        assert _listed(h, filter="alertname!=web") == [other]
        assert _listed(h, filter="alertname=w") == []


def test_silences_are_listed_by_where_they_stand(tmp_path: Path) -> None:
    """Active ones by end, then pending ones by start; the query flags came with Alertmanager 0.34.
    https://github.com/prometheus/alertmanager/blob/main/api/v2/api.go (SortSilences)"""
    with lasting(tmp_path, {"there": "ilert"}) as h:
        gone, later = silenced(h, "gone", lasts=50), silenced(h, "later", startsAt=seconds(20), lasts=30)
        soon = silenced(h, "soon", startsAt=seconds(10), lasts=40)
        long, short = silenced(h, "long", lasts=90), silenced(h, "short", lasts=60)
        assert h.call("DELETE", ONE + gone).status == 200
        assert _listed(h) == [short, long, soon, later, gone]
        assert _listed(h, expired="false") == [short, long, soon, later]
        assert _listed(h, active="false", pending="false") == [gone]


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    name = named("Restart")
    with lasting(tmp_path, {"there": "ilert"}) as h:
        made = silenced(h, name)
    with lasting(tmp_path, {"there": "ilert"}) as h:
        posted(h, alert(name))
        assert h.call("GET", ONE + made).status == 200 and select(h, "SELECT id FROM deliveries") == []


@pytest.mark.parametrize(
    ("matcher", "is_meant"),
    [
        ({"name": "alertname", "value": "Match.*", "isRegex": True}, True),
        ({"name": "alertname", "value": "atch", "isRegex": True}, False),
        ({"name": "severity", "value": "warning", "isRegex": False, "isEqual": False}, True),
        ({"name": "severity", "value": "crit.*|page", "isRegex": True, "isEqual": False}, False),
        ({"name": "nothing", "value": "", "isRegex": False}, True),
    ],
)
def test_matchers(tmp_path: Path, matcher: dict[str, Any], is_meant: bool) -> None:
    with lasting(tmp_path, {"there": "ilert"}) as h:
        assert silence(h, matching("severity", "critical"), matcher).status == 200
        posted(h, alert("Matched"))
        assert select(h, "SELECT count(*) FROM deliveries") == [0 if is_meant else 1]


@pytest.mark.parametrize(
    "pattern", [r"(a*)\1b", "(?=a)b", "(?#)a", "(a{1,99}){1,99}", "a" * 4097, "(", "[", "a**", "\\Z"]
)
def test_a_pattern_that_is_none_is_refused(h: House, pattern: str) -> None:
    """Alertmanager's patterns are RE2's: https://github.com/google/re2/wiki/Syntax"""
    refused = silence(h, matching("alertname", pattern, isRegex=True))
    assert refused.status == 400 and re.search("pattern|regular expression", refused.body), refused.body


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (".*a.*a.*a.*a.*a.*b", "a" * 9000),
        ("(a|aa)(a|aa)a*a*b", "a" * 9000),
        ("(web|db|cache)-.*-(eu|us)", "web-1-" * 900),
        ("(a+)+b", "a" * 9000),
        ("((a*)*|(a|aa)+|([a-z]+)*)*1", "a" * 9000),
        (r"[\][](a+)+]", "[" + "a" * 9000),
        ("(.|a){1,200}(.|b){1,200}z", "ab" * 4500),
    ],
)
def test_a_pattern_takes_not_long(pattern: str, value: str) -> None:
    """Evil patterns against the longest label value that is compared end within a second."""
    began = time.perf_counter()
    assert not Matcher(name="a", value=pattern, isRegex=True).holds({"a": value})
    assert time.perf_counter() - began < 1


def test_patterns_that_people_write_are_taken(h: House) -> None:
    """Common patterns with nested repeats or many alternatives are not refused as slow or too long."""
    machines = [f"web-{number}.example.com:9100" for number in range(150)]
    for pattern in (
        "[a-z]+-[0-9]+-.*",
        r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(:[0-9]+)?",
        ".*a.*b.*|.*x.*y.*",
        "|".join(machines),
    ):
        assert silence(h, matching("instance", pattern, isRegex=True)).status == 200


def test_a_silence_is_small(h: House) -> None:
    """At most Alertmanager's maximum size: the silences of a scope are read for each of its alerts, and a thousand of a
    megabyte would be too many."""
    refused = silence(h, matching("alertname", "x"), comment="c" * 20_000)
    assert refused.status == 400 and "silence exceeded maximum size" in str(refused.body), refused.body


def test_one_silence_too_many_ends_none_that_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody asked not to be told of would wake them; one that is over makes room."""
    monkeypatch.setattr(muting, "MOST", 2)
    with lasting(tmp_path, {"there": "ilert"}) as h:
        made = [silenced(h, name) for name in ("first", "second")]
        assert silence(h, matching("alertname", "third")).status == 400
        assert {h.call("GET", ONE + one).body["status"]["state"] for one in made} == {"active"}
        is_over(h, made[0])
        silenced(h, "third")


def test_many_silences_hold_no_batch_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are computed once per alert, not once per silence: with three hundred silences a batch of Prometheus's 256
    alerts took longer than Prometheus waits, and blocked all other writes."""
    worked_out: list[Any] = []
    labels_of = alert_words.labels_of

    def counted(flat: Flat) -> dict[str, str]:
        worked_out.append(flat)
        return labels_of(flat)

    monkeypatch.setattr(alert_words, "labels_of", counted)
    with lasting(tmp_path, {"there": "ilert"}) as h:
        posted(h, alert("first"))
        assert worked_out == [], "nothing is silenced"
        for number in range(20):
            silenced(h, f"other{number}")
        silenced(h, "quiet")
        worked_out.clear()
        posted(h, alert("first"), alert("second"), alert("quiet"))
        assert len(worked_out) == 3
        h.wait_for(lambda: words(h, "second") == ["ALERT"])
        assert words(h, "quiet") == []


def test_a_batch_reads_the_silences_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended silences are kept for `retention`: a batch reads them once, not once per alert."""
    read: list[str] = []
    kept = muting.kept

    def counted(tx: Tx, scope: str) -> list[Muted]:
        read.append(scope)
        return kept(tx, scope)

    monkeypatch.setattr(muting, "kept", counted)
    with lasting(tmp_path, {"there": "ilert"}) as h:
        silenced(h, "quiet")
        read.clear()
        posted(h, *(alert(f"many{number}") for number in range(50)), alert("quiet"))
        assert len(read) < 10, "those that come into one transaction"
        h.wait_for(lambda: words(h, "many49") == ["ALERT"])
        assert words(h, "quiet") == []


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_one_transaction_sees_what_it_has_kept_and_ended(driver: str, tmp_path: Path) -> None:
    asked = Mute(body={}, starts_at=from_millis(0), ends_at=from_millis(5000))

    def work(tx: Tx) -> None:
        assert muting.active(tx, "a", 1000) == []
        made = muting.keep(tx, "a", asked, 1000)
        assert [one.id for one in muting.active(tx, "a", 1000)] == [made.id]
        assert muting.active(tx, "a", 5000) == muting.active(tx, "b", 1000) == []
        muting.end(tx, "a", made.id, 2000)
        assert muting.active(tx, "a", 2000) == []

    in_tx(DRIVERS[driver](tmp_path), work)


def test_a_silence_that_would_be_refused_today_keeps_no_alert_back(tmp_path: Path) -> None:
    """An earlier release stored a pattern that is invalid now: it is not evaluated, and the alert is sent."""
    with lasting(tmp_path, {"there": "ilert"}) as h:
        taken = silence(h, matching("alertname", "x"))
        bad = [{"name": "alertname", "value": "(?=a).*", "isRegex": True, "isEqual": True}]
        assert taken.status == 200
        [note] = select(h, "SELECT body FROM notes WHERE name LIKE 'mute %-%'")
        old = msgspec.json.decode(note)
        old["body"]["matchers"] = bad
        with contextlib.closing(apsw.Connection(str(tmp_path / "gateway.db"))) as store, store:
            store.execute("UPDATE notes SET body = ? WHERE name LIKE 'mute %-%'", (msgspec.json.encode(old),))
        posted(h, alert("aaaa"))
        h.wait_for(lambda: words(h, "aaaa") == ["ALERT"])
        assert h.call("GET", ALERTS).status == 200


def test_a_filter_with_many_blanks_takes_not_long(h: House) -> None:
    began = time.perf_counter()
    assert h.call("GET", f"{ALERTS}?filter=a%3Dx{'+' * 20_000}y").status == 200
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ({"matchers": []}, 422, "matchers in body should have at least 1 items"),
        ({"comment": None}, 422, "silence.comment in body is required"),
        ({"endsAt": "2020-01-01T00:00:00Z", "startsAt": "2019-01-01T00:00:00Z"}, 400, "end time can't be in the past"),
        ({"startsAt": "2999-01-01T00:00:00Z"}, 400, "start time must be before end time"),
        ({"matchers": [matching("a", ".*", isRegex=True)]}, 400, "must not match the empty string"),
        ({"matchers": [matching("", "x", isEqual=False)]}, 400, "invalid label name"),
        ({"startsAt": "2999-01-01T00:00:00Z", "endsAt": "2999-01-01T00:00:00Z"}, 400, "must be before end time"),
        ({"endsAt": "tomorrow"}, 400, "is not an ISO 8601 time"),
        ({"matchers": "all"}, 400, 'parsing silence body from "" failed'),
        ({"id": str(uuid.UUID(int=1))}, 404, "silence not found"),
    ],
)
def test_what_is_no_silence(h: House, more: dict[str, Any], status: int, said: str) -> None:
    count = len(h.call("GET", SILENCES).body)
    refused = silence(h, matching("alertname", "x"), **more)
    assert refused.status == status and said in str(refused.body), refused.body
    assert len(h.call("GET", SILENCES).body) == count


@pytest.mark.parametrize(
    "form", ["%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%S,5Z"]
)
def test_times_are_read_as_those_of_alerts(h: House, form: str) -> None:
    """Scripts send UTC without an offset, as `datetime.utcnow().isoformat()` does; Alertmanager accepts that."""
    ends = datetime.now(UTC) + timedelta(hours=2)
    taken = silence(h, matching("alertname", "x"), startsAt=f"{datetime.now(UTC):{form}}", endsAt=f"{ends:{form}}")
    assert taken.status == 200, taken.body
    shown = datetime.fromisoformat(h.call("GET", ONE + taken.body["silenceID"]).body["endsAt"])
    assert abs(shown - ends) < timedelta(minutes=1)


@pytest.mark.parametrize("starts", ["", "0001-01-01T00:00:00Z", "2020-01-01T00:00:00Z"])
def test_a_new_one_holds_from_now_on(h: House, starts: str) -> None:
    """A start in the past becomes now: kthxbye stops prolonging a silence that is too old by its start."""
    taken = silence(h, matching("alertname", "x"), startsAt=starts)
    assert taken.status == 200, taken.body
    shown = h.call("GET", ONE + taken.body["silenceID"]).body
    assert datetime.fromisoformat(shown["startsAt"]) > datetime.now(UTC) - timedelta(minutes=1), shown
    again = silence(h, matching("alertname", "x"), startsAt="2020-01-01T00:00:00Z", id=shown["id"])
    assert again.body["silenceID"] == shown["id"]
    assert h.call("GET", ONE + shown["id"]).body["startsAt"] == "2020-01-01T00:00:00.000Z", "it goes on"


def test_one_that_excludes_means_all_the_others(tmp_path: Path) -> None:
    """A lone negative matcher (all but the dead man's switch) is a valid silence."""
    dog, other = named("Watchdog"), named("Other")
    with lasting(tmp_path, {"there": "ilert"}) as h:
        assert silence(h, matching("alertname", dog, isEqual=False)).status == 200
        posted(h, alert(dog), alert(other))
        h.wait_for(lambda: words(h, dog) == ["ALERT"])
        assert (state(h, other), words(h, other)) == ("suppressed", [])
        assert silence(h, matching("team", "a|b", isRegex=True, isEqual=False)).status == 200


def test_one_that_ends_at_no_time_in_utc_spoils_no_list(h: House) -> None:
    """`9999-12-31T23:59:59-01:00` has no UTC form, since years end at 9999; stored, it would break every list."""
    refused = silence(h, matching("alertname", "x"), endsAt="9999-12-31T23:59:59-01:00")
    assert refused.status == 400 and "years are 1 to 9999" in str(refused.body)
    taken = silence(h, matching("alertname", "x"), endsAt="9999-12-31T23:59:59+14:00")
    assert taken.status == 200, taken.body
    assert h.call("GET", SILENCES).status == 200
    assert h.call("GET", ONE + taken.body["silenceID"]).body["endsAt"] == "9999-12-31T09:59:59.000Z"


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-01:00", "0002-01-01T00:00:00+14:00", "2026-06-30T23:59:60Z"])
@pytest.mark.parametrize("field", ["startsAt", "endsAt"])
def test_alerts_at_the_ends_of_time_are_taken_or_refused(h: House, field: str, at: str) -> None:
    sent = h.call("POST", ALERTS, [{"labels": {"alertname": "edge"}, field: at}])
    assert sent.status in (200, 400), sent.body


def test_an_id_that_is_none(h: House) -> None:
    for method in ("GET", "DELETE"):
        assert h.call(method, ONE + "7").body["code"] == 601
        assert h.call(method, ONE + str(uuid.UUID(int=1))).status == 404


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a=b", [("a", "b", False, True)]),
        (" {a=b} ", [("a", "b", False, True)]),
        ("a={b}", [("a", "{b}", False, True)]),
        ("a=b}", [("a", "b}", False, True)]),
        ('a!=b, c=~"d|e",, f!~g', [("a", "b", False, False), ("c", "d|e", True, True), ("f", "g", True, False)]),
        ("a=[", [("a", "[", False, True)]),
        ('a="b,c"', [("a", "b,c", False, True)]),
        ('"a b"=c', [("a b", "c", False, True)]),
        (r'a="\n\"\\\d"', [("a", '\n"\\\\d', False, True)]),
        ("a=", [("a", "", False, True)]),
    ],
)
def test_filters(text: str, meant: list[tuple[str, str, bool, bool]]) -> None:
    found = parse_filter(text)
    assert [(one.name, one.value, one.isRegex, one.isEqual) for one in found] == meant


@pytest.mark.parametrize("text", ["", " ", "{}", "a", "=b", "{a=b", "a=~[", r'"\x"=c', 'a="b', 'a=b=~"c'])
def test_filters_that_make_no_sense(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_filter(text)
    assert refused.value.field == "filter"


def test_a_name_is_a_pattern_only_where_it_says_so() -> None:
    plain = Matcher(name="a", value="b.", isRegex=False)
    pattern = Matcher(name="a", value="b.", isRegex=True)
    assert [one.holds({"a": "bc"}) for one in (plain, pattern)] == [False, True]
    assert [one.holds({"a": "b."}) for one in (plain, pattern)] == [True, True]
    assert Matcher(name="a", value="", isRegex=False).holds({}), "an absent label is an empty one"
    assert not Matcher(name="a", value="b.", isRegex=True, isEqual=False).holds({"a": "bc"})
