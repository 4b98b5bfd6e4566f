"""Isolation of callers: whatever another caller requests about an alert, under any name, in every dialect and over
either kind of store, it sees, changes and ends nothing, and is answered as if the alert did not exist. canonical.md,
*Scope*."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import Alert
from gateway.store import AlertFilter, CommandBody, FirstAnswer, Keyed, Tx
from tests.chaos_upstream import chaos
from tests.clients.callers import ALERTS, ASKS, COLLECTIONS, OTHER, alertmanager_alerts, create, fresh, uptinio_alert
from tests.engine.lasting import STORES, address, lasting, select
from tests.engine.store_drivers import DRIVERS, alert, command, delivery, in_tx, target
from tests.engine.vendors import OK, before, settled, table, writes
from tests.harness import KEY, House, Sent

UPSTREAMS = {name: name for name in ("pagerduty", "ilert", "opsgenie", "alertmanager", "uptinio")}


class Stranger:
    """The same gateway, called with the other caller's credential."""

    def __init__(self, house: House) -> None:
        self._house = house

    def call(self, method: str, path: str, json: Any = None, *, key: str | None = KEY, **more: Any) -> Sent:
        """Calls as the other caller."""
        body = loads(dumps(json).replace(KEY, OTHER)) if json is not None else None
        return self._house.call(method, path.replace(KEY, OTHER), body, key=OTHER if key else None, **more)


@pytest.fixture(scope="module", params=STORES)
def h(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[House]:
    """A gateway with upstreams of several kinds, all of which receive every alert."""
    directory = tmp_path_factory.mktemp("isolation")
    with lasting(directory, UPSTREAMS, store=address(request.param, directory)) as standing:
        yield standing


def _stands(h: House, number: int) -> list[Any]:
    """All that is stored of an alert, and of the deliveries on its lanes."""
    lanes = f"SELECT lane FROM targets WHERE alert = {number}"
    return [
        select(h, f"SELECT version FROM alerts WHERE id = {number}"),
        select(h, f"SELECT status FROM alerts WHERE id = {number}"),
        [bytes(body) for body in select(h, f"SELECT body FROM alerts WHERE id = {number}")],
        select(h, f"SELECT count(*) FROM commands WHERE alert = {number}"),
        select(h, f"SELECT count(*) FROM deliveries WHERE lane IN ({lanes})"),
    ]


def test_nobody_ends_what_only_another_caller_s_upstream_can_have(tmp_path: Path) -> None:
    """A resolve of a key that is not open here goes only where alerts of its own sender may have been opened."""
    routes = '[[routes]]\nwhen = ["caller = ci"]\nto = ["ci_s"]\n[[routes]]\nwhen = ["caller = ops"]\nto = ["ops_s"]\n'
    with chaos(OK) as one, chaos(OK) as two:
        tables = table("ci_s", one.url, "ilert", ""), table("ops_s", two.url, "ilert", "")
        with before(tmp_path, *tables, routes=routes) as h:
            event = {"apiKey": OTHER, "eventType": "RESOLVE", "alertKey": "disk"}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202
            settled(h)
            assert [got.body["alertKey"] for got in writes(two)] == ["disk"]
            assert writes(one) == []


@pytest.mark.parametrize(("dialect", "operation"), [(name, asked) for name, asks in ASKS.items() for asked in asks])
def test_nobody_changes_another_s_alert(h: House, dialect: str, operation: str) -> None:
    """Neither its key nor any of its ids works; the answer is that for an alert that does not exist."""
    ref, sent = create(h, dialect, fresh())
    number = int(sent.headers["alert-gateway-id"])
    if dialect in ("alertmanager", "grafana", "alertmanager_webhook"):
        [number] = select(h, "SELECT max(id) FROM alerts")
    h.wait_for(
        lambda: select(h, f"SELECT count(*) FROM deliveries WHERE alert = {number} AND state = 'waiting'") == [0]
    )
    before = _stands(h, number)
    assert before[0] == [1] and before[4][0] >= 3
    ids = select(h, f"SELECT name FROM ids WHERE alert = {number}") + select(
        h, f"SELECT shown FROM alerts WHERE id = {number}"
    )
    for name in (ref, str(number), *ids):
        asked = ASKS[dialect][operation](Stranger(h), name, "taken over")  # type: ignore[arg-type]
        nothing = ASKS[dialect][operation](Stranger(h), fresh("nothing"), "taken over")  # type: ignore[arg-type]
        assert asked.status == nothing.status, (name, asked.body, nothing.body)
        assert _stands(h, number) == before, name


@pytest.mark.parametrize("dialect", COLLECTIONS)
def test_nobody_reads_another_s_alert(h: House, dialect: str) -> None:
    """It is found by no id, key or receipt, and is in no list."""
    text = fresh()
    ref, sent = create(h, dialect, text)
    number = int(sent.headers["alert-gateway-id"])
    ids = select(h, f"SELECT name FROM ids WHERE alert = {number}") + select(
        h, f"SELECT shown FROM alerts WHERE id = {number}"
    )
    receipt = str(sent.body.get("requestId", "")) if isinstance(sent.body, dict) else ""
    for name in filter(None, (ref, str(number), receipt, *ids)):
        for path in (
            name,
            f"requests/{name}",
            f"{name}?identifierType=alias",
            f"{name}?identifierType=tiny",
            f"{name}/notes",
        ):
            found = h.call("GET", f"{COLLECTIONS[dialect]}/{path}", key=OTHER)
            assert found.status in (400, 404, 405, 422), (path, found.body)
    listed = h.call("GET", COLLECTIONS[dialect], key=OTHER)
    assert listed.status == 200 and text not in dumps(listed.body)
    assert text in dumps(h.call("GET", COLLECTIONS[dialect]).body)


def test_a_key_that_reads_like_a_part_of_another_s_is_another(tmp_path: Path) -> None:
    """Each alert of a batch has an idempotency key of its own, with which no caller's key can collide."""
    with lasting(tmp_path, {"there": "ilert"}, inbound='scope = "all"') as h:
        sent = h.call("POST", ALERTS, alertmanager_alerts("A"), headers={"idempotency-key": "k"})
        assert sent.status == 200, sent.body
        sent = h.call("POST", "/uptinio/alerts", uptinio_alert("m"), headers={"idempotency-key": "k 0"})
        assert sent.status == 201, sent.body


ODD = [
    "",
    " ",
    "a",
    "A",
    "a ",
    " a",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "%",
    "_",
    "a%",
    "a b",
    "a/b",
    "'",
    '"',
    "\\",
    "{a,b}",
    "NULL",
]
ODD += [
    "a\x00b",
    "a\x10b",
    "a\x100b",
    "\x00",
    "\x10",
    "1",
    "01",
    "1.0",
    "1e0",
    "\u0661",
    "\ufffd",
    "\U0010ffff",
    "İ",
    "i̇",
    "x" * 600,
]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fixed", ["scope", "key"])
def test_texts_that_look_alike_are_others_to_a_store(tmp_path: Path, driver: str, fixed: str) -> None:
    """A store compares texts exactly: case, blanks, Unicode composition, wildcards, and characters that one engine
    cannot hold all make a difference."""
    pairs = [("s", text) if fixed == "scope" else (text, "k") for text in ODD]

    def put(tx: Tx, number: int, scope: str, text: str) -> None:
        tx.insert_alert(
            alert(
                number,
                scope=scope,
                key=text,
                name=text,
                shown=text,
                body=Alert(kind="occurrence", summary="s", status="firing"),
            )
        )
        tx.add_id(scope, f"{text} there", "u", number)
        tx.put_keyed(scope, text, Keyed(digest=str(number), at=1, answer=FirstAnswer(request=number)))
        tx.put_note(f"{scope}\n{text}", number)
        tx.insert_command(command(number, alert=number, scope=scope, body=CommandBody()))
        tx.insert_delivery(delivery(number, alert=number, upstream=scope, lane=text))
        tx.put_target(target(number, upstream=scope, lane=text))

    def look(tx: Tx, number: int, scope: str, text: str) -> None:
        found = [tx.alert_by_key(scope, text), tx.alert_by_name(scope, text), tx.alert_by_id(scope, text)]
        found += [tx.alert_by_id(scope, f"{text} there"), *tx.alerts_by_party(scope, f"{text} there", "u")]
        assert [(row.id, row.scope, row.key) for row in found if row] == [(number, scope, text)] * 5, (scope, text)
        kept = tx.keyed(scope, text)
        assert kept and kept.digest == str(number) and tx.note(f"{scope}\n{text}") == number
        assert tx.lane_holders(scope, text) == [number] and tx.is_waiting(number, scope)

    def work(tx: Tx) -> None:
        for number, (scope, text) in enumerate(pairs, 1):
            put(tx, number, scope, text)
        for number, (scope, text) in enumerate(pairs, 1):
            look(tx, number, scope, text)
        if fixed == "key":
            assert all(tx.alerts(scope, AlertFilter())[1] == 1 for scope, _ in pairs)
        else:
            assert [row.lane for row in tx.claim("s", 1, 1000, taken=ODD[1:])] == ODD[:1]
            assert sorted(row.lane for row in tx.claim("s", 1, 1000)) == sorted(ODD)

    in_tx(DRIVERS[driver](tmp_path), work)
