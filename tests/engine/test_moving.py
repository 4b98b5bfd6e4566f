"""`move`: everything in a store is copied into one of the other engine, from which another gateway carries on as if
nothing had happened; what prevents a move, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.admin import moving
from gateway.config.config import UNTOLD
from gateway.errors import StoreError
from gateway.road import muting, quieting
from gateway.store.moving import BYTES, TABLES, opened
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SqliteStore
from tests.chaos_upstream import Chaos, chaos, say
from tests.clients.callers import COLLECTIONS, ilert_event, settings
from tests.engine.lasting import SILENCES, alert, posted, seconds, select
from tests.engine.moves import ask, is_empty, moved, put, refusal, rows_in, side, typed, written
from tests.engine.vendors import NO, OK, Uptinio, down, page, table, writes
from tests.harness import House, house
from tests.postgres_server import free_port, shared
from tests.processes import HERE, serving

OUTBOX = "SELECT id FROM deliveries WHERE state = 'waiting' ORDER BY id"


# --- a night that goes on elsewhere ----------------------------------------------------------------------------


class Night:
    """Upstreams of several kinds: `oncall` knows alerts by key, `board` by ids of its own, `ward` is down, `rude`
    refuses."""

    def __init__(self, oncall: Chaos, board: Chaos, ward: Chaos, rude: Chaos) -> None:
        self.oncall, self.board, self.ward, self.rude = oncall, board, ward, rude
        tables = [
            table("oncall", oncall.url, "ilert"),
            table("board", board.url, "uptinio"),
            table("ward", ward.url, "pagerduty"),
            table("rude", rude.url, "ilert"),
        ]
        every = '[[routes]]\nto = ["oncall", "board", "ward", "rude"]\n'
        self.text = "\n".join([settings("http://127.0.0.1:9", {}), *tables, every])

    @contextlib.contextmanager
    def gateway(self, directory: Path, store: str = "") -> Iterator[House]:
        """A gateway in front of them."""
        with house(directory, config=lambda _: self.text, store=store) as standing:
            yield standing

    def told(self, upstream: Chaos) -> list[tuple[str, str]]:
        """What an upstream that goes by keys was sent, in order: the event type and the key."""
        names = [("eventType", "alertKey"), ("event_action", "dedup_key")]
        pairs = [(got.body.get(word), got.body.get(key)) for got in writes(upstream) for word, key in names]
        return [pair for pair in pairs if pair[0]]


@contextlib.contextmanager
def a_night() -> Iterator[Night]:
    """The upstreams of a `Night`, started."""
    with chaos(OK) as oncall, chaos(Uptinio()) as board, chaos(say(503)) as ward, chaos(NO) as rude:
        yield Night(oncall, board, ward, rude)


def event(h: House, word: str, key: str, **more: Any) -> Any:
    """Sends an ilert event and requires that it is accepted."""
    fields = {"summary": f"{key} is down"} if word == "ALERT" else {}
    sent = h.call("POST", "/ilert/api/events", ilert_event(word, key, **fields), key=None, **more)
    assert sent.status == 202, sent.body
    return sent


def silenced(h: House, name: str) -> str:
    """Creates a silence for alerts of this name; returns its id."""
    body = {"startsAt": seconds(-1), "endsAt": seconds(600), "createdBy": "jane", "comment": "we know"}
    matchers = [{"name": "alertname", "value": name, "isRegex": False}]
    return str(h.call("POST", SILENCES, {"matchers": matchers, **body}).body["silenceID"])


AGAIN = {"Idempotency-Key": "once-only"}


def first_half(night: Night, h: House) -> dict[str, str]:
    """Creates alerts that are open, acknowledged, over, silenced and sent with an idempotency key; returns ids of
    some."""
    for key in ("disk", "fan", "lamp"):
        event(h, "ALERT", key)
    event(h, "ACCEPT", "fan")
    event(h, "RESOLVE", "lamp")
    once = h.call("POST", COLLECTIONS["opsgenie"], {"message": "once", "alias": "once"}, headers=AGAIN)
    silence = silenced(h, "Known")
    posted(h, alert("Known"), alert("News"))
    made = down(h, "by its id").body["data"]["id"]
    unsettled = "SELECT count(*) FROM deliveries WHERE state = 'waiting' AND upstream <> 'ward'"
    h.wait_for(lambda: select(h, unsettled) == [0] and ("RESOLVE", "lamp") in night.told(night.oncall))
    h.wait_for(lambda: select(h, "SELECT count(*) FROM notes WHERE name = 'upstream ward'") == [1])  # no longer tried
    assert {*select(h, "SELECT state FROM deliveries")} >= {"waiting", "delivered", "dead"}
    assert {*select(h, "SELECT status FROM alerts")} >= {"firing", "acknowledged", "resolved"}
    return {"silence": silence, "made": made, "request": once.body["requestId"]}


def test_a_night_goes_on_in_postgresql(tmp_path: Path) -> None:
    """Nothing is sent twice, waiting deliveries go out in order, every id finds its alert, and resolves arrive."""
    database = shared().database()
    with a_night() as night:
        with night.gateway(tmp_path) as h:
            ids = first_half(night, h)
            waiting = select(h, OUTBOX)
            shown = h.call("GET", f"{COLLECTIONS['ilert']}?max-results=100").body
        origin = f"sqlite://{tmp_path}/gateway.db"
        before = rows_in(origin)
        assert all(before.values()), "there is something in every table"
        done = typed("move", written(tmp_path, origin), "--to", database)
        assert done.returncode == 0, done.stderr
        assert f"{len(waiting)} deliveries wait in it" in done.stdout
        assert all(f"{name}: {len(rows)}\n" in done.stdout for name, rows in before.items())
        assert rows_in(database) == rows_in(origin) == before
        sofar = [len(writes(one)) for one in (night.oncall, night.board, night.rude)]
        night.ward.got.clear()
        night.ward.always(OK)
        with night.gateway(tmp_path, database) as h:
            h.wait_for(lambda: not select(h, OUTBOX))
            assert [len(writes(one)) for one in (night.oncall, night.board, night.rude)] == sofar, "told again"
            goes_on(night, h, ids, shown)
        assert typed("report", written(tmp_path, database)).returncode == 0


def goes_on(night: Night, h: House, ids: dict[str, str], shown: Any) -> None:
    """The second half of the night, at a gateway over the new store."""
    told = night.told(night.ward)
    assert len(told) == len(set(told)), "twice"
    order = ("trigger", "acknowledge", "resolve")
    for key in {key for _, key in told}:
        words = [word for word, of in told if of == key]
        assert words == sorted(words, key=order.index)
    assert h.call("GET", f"{COLLECTIONS['ilert']}?max-results=100").body == shown
    again = h.call("POST", COLLECTIONS["opsgenie"], {"message": "once", "alias": "once"}, headers=AGAIN)
    assert again.body["requestId"] == ids["request"]
    assert ids["silence"] in str(h.call("GET", SILENCES).body)
    theirs = next(got.path.rpartition("/")[2] for got in writes(night.board, "PUT"))  # the id of a resolved alert
    for name in (ids["made"], theirs, "disk"):
        assert h.call("GET", f"/-/alerts/{name}", key=None).status == 200, name
    number = len(writes(night.board, "PUT"))
    event(h, "RESOLVE", "disk")
    ended = h.call("PUT", f"{COLLECTIONS['uptinio']}/{ids['made']}", {"status": "resolved"})
    assert ended.status == 200, ended.body
    h.wait_for(lambda: len(writes(night.board, "PUT")) == number + 2)
    h.wait_for(lambda: ("RESOLVE", "disk") in night.told(night.oncall))
    event(h, "ALERT", "new")
    h.wait_for(lambda: ("ALERT", "new") in night.told(night.oncall))
    largest = select(h, "SELECT max(id) FROM deliveries")
    assert largest == select(h, "SELECT max(id) FROM deliveries WHERE key = 'new'"), "ids go on where they were"


def test_and_comes_back_to_sqlite(tmp_path: Path) -> None:
    database, back = shared().database(), tmp_path / "back.db"
    with a_night() as night:
        with night.gateway(tmp_path, database) as h:
            first_half(night, h)
            waiting = select(h, OUTBOX)
        before = rows_in(database)
        done = typed("move", written(tmp_path, database), "--to", f"sqlite://{back}")
        assert done.returncode == 0 and f"{len(waiting)} deliveries wait in it" in done.stdout, done.stderr
        arrived = rows_in(f"sqlite://{back}")
        arrived["notes"].remove(("running", b"false"))  # which PostgreSQL's claims said
        assert arrived == rows_in(database) == before
        assert back.stat().st_mode & 0o777 == 0o600
        assert "was moved to" in refusal(database)
        night.ward.got.clear()
        night.ward.always(OK)
        with night.gateway(tmp_path, f"sqlite://{back}") as h:
            h.wait_for(lambda: not select(h, OUTBOX))
            told = night.told(night.ward)
            assert told and len(told) == len(set(told))


# --- what values become ----------------------------------------------------------------------------------------


ODD = ("", "\x00", "a\x00b", "\x10", "\x100", "\\N", "\\", "a\tb\nc\r", "'", '"', "é", "\U0010ffff", "{}", " x ")


def test_every_value_comes_over_and_back_as_it_was(origin: str, tmp_path: Path) -> None:
    """Texts that PostgreSQL cannot store or reads otherwise, bytes that are not JSON, the largest numbers, and a
    default that SQLite keeps as text in a column of bytes."""
    for number, text in enumerate(ODD):
        put(origin, "INSERT INTO ids VALUES (?, ?, ?, ?)", text, text, text, 2**63 - 1 - number)
    put(origin, "INSERT INTO notes VALUES ('odd', ?)", bytes(range(256)))
    put(origin, "INSERT INTO notes VALUES ('nan', ?)", b'{"a": NaN, "b": 1e999, "c": "\\u0000"}')
    put(origin, "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, '')", -(2**63), -1, 0, 2**53, None, "\x00", "\\.")
    put(origin, "UPDATE deliveries SET seen = '{}'")
    database, back = shared().database(), f"sqlite://{tmp_path}/back.db"
    before = rows_in(origin)
    moved(origin, database)
    moved(database, back)
    for name, rows in before.items():
        as_bytes = [tuple(b"{}" if name == "deliveries" and one == "{}" else one for one in row) for row in rows]
        assert rows_in(back)[name] == sorted(as_bytes, key=repr)


def test_every_column_of_either_engine_comes_along(origin: str) -> None:
    """All columns are copied except a claim's (`owner`, `leased_until`, `under_way`): nobody holds a delivery during a
    move."""
    database = shared().database()
    moved(origin, database)
    held = {("deliveries", column) for column in ("owner", "leased_until", "under_way")}
    known = {(one.name, column) for one in TABLES for column in one.columns}
    catalog = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    there = {(name, column): kind for name, column, kind in ask(database, catalog)}
    assert known | held == {one for one in there if one[0] not in ("slots", "gateway_schema")}
    assert {one for one in known if one[1] in BYTES} == {one for one, kind in there.items() if kind == "bytea"}
    tables = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    with contextlib.closing(apsw.Connection(origin.removeprefix("sqlite://"))) as connection:
        assert known == set(connection.execute(tables))


def test_a_key_that_postgresql_cannot_find_is_told_with_its_alert(origin: str) -> None:
    """A key too long for PostgreSQL's index is refused with the alert's id; nothing is moved or marked."""
    database = shared().database()
    put(origin, "UPDATE alerts SET key = ? WHERE key = 'key-1'", secrets.token_urlsafe(6000))
    [(number, _)] = [row[:2] for row in rows_in(origin)["alerts"] if len(row[5]) > 1000]
    with pytest.raises(StoreError, match=f"alert {number} has a key, .* too long for .* nothing was moved"):
        moved(origin, database)
    assert is_empty(database) and not refusal(origin)


def test_a_store_of_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """The schema is migrated first, as at a start."""
    from importlib import resources

    path, database = tmp_path / "old.db", shared().database()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        for number in (1, 2):
            script = resources.files("gateway.store").joinpath("schema", f"00{number}.sql")
            connection.execute(script.read_text("utf8"))
        connection.pragma("user_version", 2)
        connection.execute("INSERT INTO notes VALUES ('gateway', '{\"name\": \"old\"}')")
    assert moved(f"sqlite://{path}", database).rows["notes"] == 1
    assert rows_in(database)["notes"] == [("gateway", b'{"name": "old"}')]


# --- what stands in its way ------------------------------------------------------------------------------------


def test_who_serves_is_stopped_first(origin: str) -> None:
    """A move is refused while a gateway serves from either store."""
    database = shared().database()

    async def beside(store: Any, match: str) -> None:
        async with store:
            with pytest.raises(StoreError, match=match):
                await asyncio.to_thread(moved, origin, database)

    asyncio.run(beside(SqliteStore(origin.removeprefix("sqlite://")), "a gateway serves from sqlite://.*: stop it"))
    asyncio.run(beside(PostgresStore(database), "gateways serve from .*: stop them first"))
    assert is_empty(database) and not refusal(origin)


def test_nobody_starts_meanwhile(origin: str) -> None:
    database = shared().database()
    with opened(side(origin)), opened(side(database)):
        assert "it is being moved" in refusal(origin)
        assert "too slow" in refusal(database)
        tool = typed("drop", written(Path(origin.removeprefix("sqlite://")).parent, origin), "--dead", "--because", "x")
        assert tool.returncode == 1 and "cannot" in tool.stderr, "nothing changes beneath it"
    assert not refusal(origin) and not refusal(database)


def test_a_store_in_which_something_is_gives_way_to_nothing(origin: str, tmp_path: Path) -> None:
    """`move` refuses a target that has content; a store that a gateway only started over counts as empty."""
    tried, silences, policies, full = (shared().database() for _ in range(4))
    assert not refusal(tried) and not refusal(silences) and not refusal(policies)
    ask(silences, f"INSERT INTO notes VALUES ('{muting.PREFIX}anybody 1', '{{}}')")
    ask(policies, f"INSERT INTO notes VALUES ('{quieting.PREFIX}anybody 1', '{{}}')")
    with house(
        tmp_path / "other", config=lambda _: written(tmp_path, "x").read_text().partition("\n")[2], store=full
    ) as h:
        page(h, "theirs")
    before = rows_in(full)
    for url, words in (
        (silences, r"is not empty \(silences\)"),
        (policies, r"is not empty \(silences\)"),
        (full, "is not empty .alerts: 1.; name an empty"),
    ):
        with pytest.raises(StoreError, match=words):
            moved(origin, url)
    assert rows_in(full) == before
    moved(origin, tried)
    assert rows_in(tried) == rows_in(origin)


def test_an_address_may_be_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password; as in a configuration it stands in a file or a variable then."""
    here, there = tmp_path / "here", "postgresql://me@127.0.0.1/alerts"
    monkeypatch.setenv("A_STORE", there)
    here.write_text(there + "\n")
    for to in (f"file:{here}", "env:A_STORE", there):
        with pytest.raises(moving.NotAPlace, match="both stores are in PostgreSQL; copy one with pg_dump"):
            moving.move("postgresql://me@127.0.0.1/other", to, print)
    with pytest.raises(moving.NotAPlace, match="nowhere"):
        moving.move(there, f"file:{tmp_path}/nowhere", print)
    for to in ("sqlite:///", "sqlite://x/y.db", "sqlite:///x\ny.db", "my.db"):
        with pytest.raises(moving.NotAPlace, match="write postgresql://user@host/name or sqlite:///absolute/path"):
            moving.move(there, to, print)
    for asked in (lambda: moving.undo(UNTOLD), lambda: moving.move(UNTOLD, there, print)):
        with pytest.raises(StoreError, match="its address is a secret that cannot be read"):
            asked()


@pytest.mark.parametrize(
    ("to", "status", "said"),
    [
        ("mysql://u@h/d", 2, "write postgresql://user@host/name"),
        ("postgresql://", 1, ""),
        ("sqlite:///tmp/other.db", 2, "both stores are in SQLite; copy one with `alert-gateway backup`"),
        ("sqlite://relative.db", 2, "write postgresql://"),
        ("gateway.db", 2, "write postgresql://"),
        ("env:NOT_SET_HERE", 2, "the variable NOT_SET_HERE is not set"),
        ("postgresql://me:pa55word@127.0.0.1:{port}/alerts", 1, "cannot open the store postgresql://me@127.0.0.1"),
        ("postgresql://me:pa55/word@127.0.0.1/alerts", 1, "cannot be read"),
    ],
)
def test_a_place_that_is_none_is_told(origin: str, tmp_path: Path, to: str, status: int, said: str) -> None:
    environment = {"PGHOST": "127.0.0.1", "PGPORT": str(free_port())}
    config = written(tmp_path, origin)
    line = [sys.executable, "-m", "gateway.cli", "move", "--config", str(config), "--to", to.format(port=free_port())]
    done = subprocess.run(
        line, cwd=HERE, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "pa55" not in done.stderr and not refusal(origin)


def test_a_role_without_rights_is_told(origin: str) -> None:
    """The role needs only the rights that a gateway needs, even if the tables belong to another role."""
    database = shared().database()
    name = database.rpartition("/")[2]
    ask(database, f"CREATE ROLE reader_{name} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    reader = database.replace("postgres@", f"reader_{name}@")
    with pytest.raises(StoreError, match="permission denied"):
        moved(origin, reader)
    assert not refusal(database)
    ask(database, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}")
    with pytest.raises(StoreError, match="permission denied"):
        moved(origin, reader)
    assert not refusal(origin)
    ask(database, f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO reader_{name}")
    moved(origin, reader)
    assert rows_in(database) == rows_in(origin)


def test_there_is_no_store_and_no_directory(tmp_path: Path) -> None:
    database = shared().database()
    with pytest.raises(StoreError, match="there is no directory"):
        moved(database, f"sqlite://{tmp_path}/deep/new.db")
    done = typed("move", written(tmp_path, f"sqlite://{tmp_path}/none.db"), "--to", database)
    assert done.returncode == 1 and "there is no store at" in done.stderr
    assert not (tmp_path / "none.db").exists()
    assert typed("move", written(tmp_path, f"sqlite://{tmp_path}/none.db")).returncode == 2


def test_a_new_file_that_could_not_be_filled_is_taken_away(tmp_path: Path) -> None:
    database = shared().database()
    assert not refusal(database)
    for number in range(50):
        ask(database, f"INSERT INTO ids VALUES ('s', repeat('x', 2000) || '{number}', 'p', {number})")
    names = set(tmp_path.iterdir())
    config = written(tmp_path, database)
    line = ["bash", "-c", 'ulimit -f 180; exec "$@"', "bash", sys.executable, "-m", "gateway.cli", "move"]
    done = subprocess.run(
        [*line, "--config", str(config), "--to", f"sqlite://{tmp_path}/new.db"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and f"sqlite://{tmp_path}/new.db cannot be used" in done.stderr, done.stderr
    assert set(tmp_path.iterdir()) == {*names, config} and not refusal(database)


# --- what is left behind ---------------------------------------------------------------------------------------


def test_nobody_serves_from_the_old_store_any_more_unless_it_is_said(origin: str, tmp_path: Path) -> None:
    database, config = shared().database(), written(tmp_path, origin)
    assert typed("move", config, "--to", database).returncode == 0
    ended = typed("serve", config, "--listen", "127.0.0.1:0", within=30)
    assert ended.returncode == 1 and f"was moved to {database}" in ended.stderr and "--undo" in ended.stderr
    looked = typed("deliveries", config)
    assert (
        looked.returncode == 0 and looked.stdout.count("waiting") == 3 and f"moved to {database} then" in looked.stderr
    )
    changed = typed("retry", config, "--dead")
    assert changed.returncode == 1 and "was moved to" in changed.stderr
    again = typed("move", config, "--to", database)
    assert again.returncode == 0 and "already" in again.stdout and "3 deliveries wait" in again.stdout

    async def beside() -> subprocess.CompletedProcess[str]:
        async with PostgresStore(database):
            return await asyncio.to_thread(typed, "move", config, "--to", database)

    served = asyncio.run(beside())
    assert served.returncode == 1 and "was moved there at" in served.stderr and "stop them first" in served.stderr
    elsewhere = typed("move", config, "--to", shared().database())
    assert elsewhere.returncode == 1 and "was moved to" in elsewhere.stderr
    undone = typed("move", config, "--undo")
    assert undone.returncode == 0 and "is sent again" in undone.stdout
    with serving(config):
        pass
    twice = typed("move", config, "--undo")
    assert twice.returncode == 1 and "was not moved" in twice.stderr
