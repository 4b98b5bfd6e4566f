"""Alerts that a list brings in and that were at the upstream before the gateway: such an alert and what its sender
posts later are one, it ends when it is listed no more, and adopting thousands does not block other writers.
canonical.md, *Reads*."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mappings.alertmanager.alert import fingerprint
from tests.chaos_upstream import Behaviour, Got, chaos, say
from tests.clients.callers import ibm_alert, uptinio_alert
from tests.engine.genies import ID, JsmOps
from tests.engine.vendors import Ibm, Uptinio, ago, before, count, messages, rows, settled, table, writes
from tests.harness import KEY, House, house

ALERTS = "/alertmanager/api/v2/alerts"


class Alertmanager:
    """Keeps the alerts that it is posted, by fingerprint, and lists them."""

    def __init__(self, *held: dict[str, Any]) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.take(list(held))

    def take(self, posted: list[dict[str, Any]]) -> None:
        """Keeps alerts."""
        status = {"state": "active", "silencedBy": [], "inhibitedBy": []}
        for one in posted:
            found = fingerprint(one["labels"])
            self.held[found] = {**one, "fingerprint": found, "status": status, "updatedAt": ago(0), "receivers": []}

    def __call__(self, got: Got) -> Behaviour:
        """Answers a request."""
        if got.method == "GET":
            return say(200, list(self.held.values()))
        self.take(got.body)
        return say(200, {})


def prometheus(name: str) -> dict[str, Any]:
    """An alert as Prometheus posts it."""
    ends = (datetime.now(UTC) + timedelta(minutes=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"labels": {"alertname": name}, "annotations": {"summary": name}, "startsAt": ago(5), "endsAt": ends}


def in_front_of(directory: Path, dialect: str, tables: str) -> Any:
    """A gateway for one caller of a dialect."""
    return house(directory, config=lambda _: f'[inbound.{dialect}]\nkeys = {{ ci = "{KEY}" }}\n{tables}')


def named(h: House) -> list[str]:
    """The names of the alerts in a fresh list; otherwise an upstream is asked at most once a second."""
    h.gateway.desk.views._asked.clear()  # type: ignore[union-attr]
    return [one["labels"]["alertname"] for one in h.call("GET", ALERTS).body]


def test_what_was_adopted_and_is_posted_is_one_alert(tmp_path: Path) -> None:
    """An alert that Prometheus posted to the upstream directly, and that a list adopted, is the one that Prometheus
    posts here later."""
    there = Alertmanager(prometheus("Disk"))
    with (
        chaos(there) as upstream,
        in_front_of(tmp_path, "alertmanager", table("there", upstream.url, "alertmanager", "")) as h,
    ):
        assert named(h) == ["Disk"]
        assert h.call("POST", ALERTS, [prometheus("Disk")]).status == 200
        settled(h)
        assert named(h) == ["Disk"]
        assert h.call("POST", ALERTS, [{**prometheus("Disk"), "endsAt": ago(0)}]).status == 200
        settled(h, count=2)
        there.held.clear()
        assert named(h) == []


def test_what_was_adopted_and_is_listed_no_more_is_over(tmp_path: Path) -> None:
    """An adopted alert is open again once it is listed again; an alert posted here ends only when its sender says
    so."""
    there = Alertmanager(prometheus("Disk"))
    with (
        chaos(there) as upstream,
        in_front_of(tmp_path, "alertmanager", table("there", upstream.url, "alertmanager", "")) as h,
    ):
        assert h.call("POST", ALERTS, [prometheus("Own")]).status == 200
        settled(h)
        assert sorted(named(h)) == ["Disk", "Own"]
        there.held.clear()
        assert named(h) == ["Own"]
        there.take([prometheus("Disk")])
        assert sorted(named(h)) == ["Disk", "Own"]
        assert len(writes(upstream)) == 1, "nothing is told of it"


def test_what_was_adopted_at_a_vendor_of_ids_and_is_posted_is_one_alert(tmp_path: Path) -> None:
    """The vendor finds the create's alert by its alias, and answers with the id that is already known."""
    genie, alerts = JsmOps(), "/jsm_ops/alerts"
    genie.held = {"id": ID, "alias": "disk", "message": "Disk full", "status": "open", "createdAt": ago(60)}
    with chaos(genie) as upstream, in_front_of(tmp_path, "jsm_ops", genie.table(upstream)) as h:
        assert [one["id"] for one in h.call("GET", alerts).body["values"]] == [ID]
        assert h.call("POST", alerts, {"message": "Disk full", "alias": "disk"}).status == 202
        settled(h)
        assert len(h.call("GET", alerts).body["values"]) == 1
        assert h.call("GET", f"{alerts}/{ID}").body["alias"] == "disk"


def test_what_was_adopted_is_found_by_its_alias(tmp_path: Path) -> None:
    """`GET /alerts/alias` finds an adopted alert while it is open, as it does at the vendor."""
    genie, alerts = JsmOps(), "/jsm_ops/alerts"
    genie.held = {"id": ID, "alias": "db/1 disk", "message": "Disk full", "status": "open", "createdAt": ago(60)}
    with chaos(genie) as upstream, in_front_of(tmp_path, "jsm_ops", genie.table(upstream)) as h:
        assert [one["id"] for one in h.call("GET", alerts).body["values"]] == [ID]
        found = h.call("GET", f"{alerts}/alias?alias=db%2F1%20disk")
        assert (found.status, found.body.get("id")) == (200, ID)
        assert h.call("GET", f"{alerts}/alias?alias={ID}").status == 404, "an id is no alias"
        genie.held["status"] = "closed"
        h.gateway.desk.views._asked.clear()
        assert h.call("GET", f"{alerts}/{ID}").body["status"] == "closed"
        assert h.call("GET", f"{alerts}/alias?alias=db%2F1%20disk").status == 404
        longest = "d" * 600  # which the vendor has under another that it takes
        made = h.call("POST", alerts, {"message": "Disk full", "alias": longest})
        found = h.call("GET", f"{alerts}/alias?alias={longest}")
        assert found.headers["alert-gateway-id"] == made.headers["alert-gateway-id"]


def test_a_long_list_lets_others_write_between(tmp_path: Path) -> None:
    """A long list is adopted in several transactions; in one, five thousand alerts blocked the store for a second at
    each poll."""
    old = [
        {**uptinio_alert(f"old {n}"), "id": f"alt_{n}", "status": "active", "created_at": ago(60)} for n in range(900)
    ]
    with chaos(Uptinio(*old)) as upstream, before(tmp_path, table("there", upstream.url, "uptinio")) as h:
        listing = threading.Thread(target=lambda: messages(h))
        listing.start()
        seen = set()
        while listing.is_alive():
            seen.add(count(h, "alerts"))
        assert count(h, "alerts") == 900
        assert seen - {0, 900}, "a part of it was there before the rest"


def silenced(h: House, name: str) -> None:
    """Silences an alert by its name."""
    begins, ends = ago(1), (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    matcher = {"name": "alertname", "value": name, "isRegex": False}
    body = {"matchers": [matcher], "startsAt": begins, "endsAt": ends, "createdBy": "jane", "comment": "we know"}
    assert h.call("POST", "/alertmanager/api/v2/silences", body).status == 200


def test_a_silence_tells_nobody_of_what_was_only_adopted(tmp_path: Path) -> None:
    """The upstream would be told of it as another alert, under a label more, which nobody but the gateway would ever
    end; and the alert itself would vanish from lists while it fires."""
    there = Alertmanager(prometheus("Disk"))
    with (
        chaos(there) as upstream,
        in_front_of(tmp_path, "alertmanager", table("there", upstream.url, "alertmanager", "")) as h,
    ):
        assert named(h) == ["Disk"]
        silenced(h, "Disk")
        assert (writes(upstream), count(h, "commands")) == ([], 0)
        assert named(h) == ["Disk"]
        assert h.call("GET", ALERTS).body[0]["status"]["state"] == "suppressed"


def test_a_list_does_not_put_off_when_an_alert_lapses(tmp_path: Path) -> None:
    """The upstream shows the end that the gateway told it, later than what the sender said. A command on the alert,
    such as a silence's acknowledgement, does not take that over."""
    there, ends = Alertmanager(), "ends_at"

    def act(got: Got) -> Behaviour:
        return say(200, {"silenceID": "s"} if got.method == "POST" else []) if "silences" in got.path else there(got)

    with (
        chaos(act) as upstream,
        in_front_of(tmp_path, "alertmanager", table("there", upstream.url, "alertmanager", "")) as h,
    ):
        assert h.call("POST", ALERTS, [prometheus("Disk")]).status == 200
        settled(h)
        said = rows(h, ends, "alerts")
        assert named(h) == ["Disk"]
        silenced(h, "Disk")
        settled(h, count=2)
        assert rows(h, ends, "alerts") == said


def test_an_alert_that_is_shown_without_a_time_is_adopted(tmp_path: Path) -> None:
    """A null where the time of creation should be does not fail the whole list."""
    shown = {**ibm_alert("old")["alert"], "id": 7, "version": 1, "createdOn": None}
    with (
        chaos(Ibm(shown)) as upstream,
        in_front_of(tmp_path, "ibm_monitoring", table("there", upstream.url, "ibm_monitoring", "")) as h,
    ):
        listed = h.call("GET", "/api/alerts")
        assert (listed.status, [one["id"] for one in listed.body["alerts"]]) == (200, [7])
