"""`move` interrupted at any moment and by anything: nothing is lost or sent twice, two stores never both serve, and
whoever starts a gateway or repeats the command is told what to do."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import psycopg
import pytest

from gateway.admin.moving import SPOKEN
from gateway.errors import StoreError
from gateway.store import postgres_side
from gateway.store.moved import MARK, Moved
from gateway.store.moving import TABLES, Copied, move, opened, undo
from gateway.store.sqlite_side import SqliteSide
from tests.engine.moves import ask, is_empty, moved, put, refusal, rows_in, side, typed, written
from tests.postgres_server import Server, shared
from tests.processes import HERE, wait_for


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_move_that_is_cut_off_leaves_the_old_store_to_go_on_from(
    origin: str, tmp_path: Path, number: signal.Signals
) -> None:
    """The new store stays empty, and the next `move` copies everything into it."""
    with contextlib.closing(apsw.Connection(origin.removeprefix("sqlite://"))) as connection:
        rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
        connection.execute(rows + "INSERT INTO attempts SELECT i, 1, 0, 0, 200, 'ok', '', '' FROM n")
    database, config = shared().database(), written(tmp_path, origin)
    line = [sys.executable, "-m", "gateway.cli", "move", "--config", str(config), "--to", database]
    with subprocess.Popen(line, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        copying = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY attempts%' AND datname = current_database()"
        wait_for(lambda: ask(database, copying), 60)
        process.send_signal(number)
        told = process.communicate(timeout=30)[1]
    assert process.returncode and b"Traceback" not in told
    wait_for(lambda: not ask(database, copying))
    assert is_empty(database) and not refusal(origin) and not refusal(database)
    assert typed("move", config, "--to", database).returncode == 0
    assert len(rows_in(database)["attempts"]) >= 300_000


def test_a_server_that_stands_still_for_a_while_is_waited_for(origin: str) -> None:
    """A server that stands still for longer than a caller would wait, as with a busy disk, with more to send than the
    network buffers."""
    put(origin, "UPDATE deliveries SET report = zeroblob(20000000)")
    server, reached = Server().make(), threading.Event()
    try:
        database = server.database()
        with opened(side(database)):
            pass

        def freeze() -> None:
            reached.wait(30)
            server.freeze()
            time.sleep(12)
            server.thaw()

        freezing = threading.Thread(target=freeze)
        freezing.start()
        assert move(Slow(origin, reached), side(database), lambda text: None, SPOKEN).rows["deliveries"] == 3
        freezing.join()
    finally:
        server.close()


@pytest.mark.parametrize("way", ["read", "written"])
def test_a_server_that_stands_still_for_good_is_given_up(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What it had to say was waited for without an end: its kernel says that it is there, and it says nothing."""
    server, back = Server().make(), f"sqlite://{tmp_path}/back.db"
    try:
        database = server.database()
        moved(origin, database)
        ask(
            database,
            "INSERT INTO notes SELECT n, convert_to(repeat('x', 9000), 'utf8') FROM generate_series(1, 3000) n",
        )
        monkeypatch.setattr(postgres_side, "STANDS_STILL", 1)
        copied = side(database)
        with opened(copied):
            rows = copied.rows(next(table for table in TABLES if table.name == "notes"))
            ways: dict[str, Callable[[], Any]] = {
                "read": lambda: list(_after_one(rows, server.freeze)),
                "written": lambda: copied.put(TABLES[-1], _after_one(iter(()), server.freeze)),
            }
            with pytest.raises(StoreError, match=r"/\w+ has not answered for 1 s"):
                ways[way]()
        server.thaw()
        moved(database, back)
    finally:
        server.thaw()
        server.close()


def _after_one(rows: Iterator[Any], work: Callable[[], None]) -> Iterator[Any]:
    """Rows of which the first is there, if there is one, when something happens."""
    yield from itertools.islice(rows, 1)
    work()
    yield from rows


def test_a_server_that_dies_meanwhile_leaves_the_old_store_to_go_on_from(origin: str) -> None:
    server = Server().make()
    try:
        database = server.database()
        with opened(side(database)):
            pass
        asked = threading.Event()

        def kill() -> None:
            asked.wait(30)
            server.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(StoreError, match="postgresql://"):
            move(Slow(origin, asked), side(database), lambda text: None, SPOKEN)
        killer.join()
        server.start()
        assert is_empty(database) and not refusal(origin)
    finally:
        server.close()


class Slow(SqliteSide):
    """A store that yields one row a second from its deliveries on; `reached` is set when they begin."""

    def __init__(self, origin: str, reached: threading.Event) -> None:
        super().__init__(origin.removeprefix("sqlite://"), may_be_made=False)
        self._reached = reached

    def rows(self, table: Copied) -> Iterator[Any]:
        for row in super().rows(table):
            if table.name == "deliveries":
                self._reached.set()
                time.sleep(1)
            yield row


def test_what_the_new_store_refuses_at_last_leaves_the_old_one_unmarked(origin: str) -> None:
    database = shared().database()
    with opened(side(database)):
        pass
    ask(
        database,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not tonight'; END $$;"
        "CREATE CONSTRAINT TRIGGER no AFTER INSERT ON alerts DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION no()",
    )
    with pytest.raises(StoreError, match="not tonight"):
        moved(origin, database)
    assert is_empty(database) and not refusal(origin)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_answer_is_lost_is_found_out_by_asking_again(origin: str, tmp_path: Path, arrives: bool) -> None:
    """Until the command is repeated the old store does not serve, since both might."""
    database, config = shared().database(), written(tmp_path, origin)
    with losing_the_commit(database, arrives=arrives) as (url, calm):
        lost = typed("move", config, "--to", url)
        assert lost.returncode == 1 and "repeat the same command" in lost.stderr, lost.stderr
        assert "its outcome is unknown" in refusal(origin)
        wait_for(lambda: is_empty(database) != arrives)
        calm()
        again = typed("move", config, "--to", url)
        assert again.returncode == 0 and ("already" in again.stdout) == arrives, again.stderr
    assert rows_in(database) == rows_in(origin) and "set `store` to that one" in refusal(origin)
    assert not refusal(database)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_mark_whose_answer_is_lost_is_found_out_by_asking_again(origin: str, tmp_path: Path, arrives: bool) -> None:
    """If the old store's mark was committed and its answer lost, nobody is told to serve from the new store, which is
    empty."""
    database, back = shared().database(), tmp_path / "back.db"
    moved(origin, database)
    with losing_the_commit(database, arrives=arrives) as (url, calm):
        config = written(tmp_path, url)
        lost = typed("move", config, "--to", f"sqlite://{back}")
        assert lost.returncode == 1 and "Nothing was moved: repeat the same command" in lost.stderr, lost.stderr
        assert not back.exists()
        wait_for(lambda: ("outcome is unknown" in refusal(database)) == arrives)
        calm()
        again = typed("move", config, "--to", f"sqlite://{back}")
        assert again.returncode == 0 and "already" not in again.stdout, again.stderr
    assert rows_in(database) == rows_in(f"sqlite://{back}") and "set `store` to that one" in refusal(database)


class Stopped(SqliteSide):
    """A new store whose process dies just before its commit."""

    def commit(self) -> None:
        raise KeyboardInterrupt


def test_nobody_is_sent_to_a_new_store_that_was_not_committed(origin: str, tmp_path: Path) -> None:
    """The old store is already marked: it says how to find out, and repeating the command completes the move."""
    database, back = shared().database(), tmp_path / "back.db"
    moved(origin, database)
    with pytest.raises(KeyboardInterrupt):
        move(side(database), Stopped(str(back), may_be_made=True), lambda text: None, SPOKEN)
    said, config = refusal(database), written(tmp_path, database)
    assert "outcome is unknown" in said and "repeat the same command" in said and "set `store` to" not in said
    looked = typed("deliveries", config)
    assert looked.returncode == 0 and "outcome is unknown" in looked.stderr
    elsewhere = typed("move", config, "--to", f"sqlite://{tmp_path}/other.db")
    assert elsewhere.returncode == 1 and f"to sqlite://{back} began to commit" in elsewhere.stderr
    again = typed("move", config, "--to", f"sqlite://{back}")
    assert again.returncode == 0 and "already" not in again.stdout, again.stderr
    assert rows_in(f"sqlite://{back}") == rows_in(database) and "set `store` to that one" in refusal(database)


class Meanwhile(SqliteSide):
    """A new store before whose commit something else is done."""

    def __init__(self, path: Path, work: Callable[[], object]) -> None:
        super().__init__(str(path), may_be_made=True)
        self._work = work

    def commit(self) -> None:
        self._work()
        super().commit()


def test_a_move_is_not_undone_before_it_has_ended(origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old store has committed by then, and the new one has not: a gateway could serve from either afterwards."""
    database, back = shared().database(), tmp_path / "back.db"
    moved(origin, database)
    monkeypatch.setattr(postgres_side, "LOCKED_WITHIN", 1)

    def undone() -> None:
        with pytest.raises(StoreError, match="other sessions use"):
            undo(side(database))

    move(side(database), Meanwhile(back, undone), lambda text: None, SPOKEN)
    assert "set `store` to that one" in refusal(database) and not refusal(f"sqlite://{back}")
    assert undo(side(database)).to == f"sqlite://{back}" and not refusal(database)


@contextlib.contextmanager
def losing_the_commit(database: str, *, arrives: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """A route to a database that breaks when the copy is being committed, and a function that repairs it."""
    port = int(database.rpartition(":")[2].partition("/")[0])
    is_calm = threading.Event()

    def forward(client: socket.socket, server: socket.socket) -> None:
        has_copied = False
        with contextlib.suppress(OSError), client, server:
            while part := client.recv(65_536):
                has_copied = has_copied or b"COPY calls" in part or b"FROM calls" in part
                if has_copied and b"COMMIT" in part and not is_calm.is_set():
                    client.shutdown(socket.SHUT_WR)  # the answer cannot come back any more
                    if arrives:
                        server.sendall(part)
                    server.shutdown(socket.SHUT_WR)
                    client.shutdown(socket.SHUT_RD)
                    return
                server.sendall(part)

    def back(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := server.recv(65_536):
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)

    def admit() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", port))
                for way in (forward, back):
                    threading.Thread(target=way, args=(client, server), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=admit, daemon=True).start()
        yield database.replace(f":{port}/", f":{listener.getsockname()[1]}/"), is_calm.set
        listener.shutdown(socket.SHUT_RDWR)


# --- what others do meanwhile, and what the disk does after ---------------------------------------------------------


def test_a_command_that_waits_for_a_move_to_end_changes_nothing(origin: str, tmp_path: Path) -> None:
    """It must not report success for a change in a store that nobody serves from any more."""
    database = shared().database()
    moved(origin, database)
    before, old = rows_in(database), side(database)
    [(waiting,)] = ask(database, "SELECT min(id) FROM deliveries WHERE state = 'waiting'")
    line = [sys.executable, "-m", "gateway.cli", "drop", "--config", str(written(tmp_path, database))]
    with (
        opened(old),
        subprocess.Popen(
            [*line, str(waiting), "--because", "over"], cwd=HERE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_for(lambda: ask(database, waits))
        mark = msgspec.json.encode(Moved(origin=database, to="sqlite:///new.db", at=0, token="t"))
        old.run("INSERT INTO notes (name, body) VALUES (?, ?)", (MARK, mark))
        old.commit()
        told = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "was moved to sqlite:///new.db" in told, told
    assert rows_in(database) == before


def test_what_is_committed_while_the_tables_are_waited_for_comes_along(origin: str, tmp_path: Path) -> None:
    """Also where the database's default isolation is REPEATABLE READ, which would show the store as it was at the
    beginning."""
    database, back = shared().database(), f"sqlite://{tmp_path}/back.db"
    moved(origin, database)
    ask(database, f"ALTER DATABASE {database.rpartition('/')[2]} SET default_transaction_isolation = 'repeatable read'")
    with psycopg.connect(database) as late:
        late.execute("INSERT INTO ids VALUES ('s', 'late', 'p', 1)")
        moving = threading.Thread(target=moved, args=(database, back))
        moving.start()
        wait_for(
            lambda: ask(database, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LOCK%' AND wait_event = 'relation'")
        )
    moving.join()
    assert len(rows_in(back)["ids"]) == 1


class Removals(apsw.VFS):
    """A VFS in front of the disk that notes which files are removed durably (directory synced)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []
        super().__init__("removals", "", makedefault=True)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.seen.append((Path(filename).name, syncdir))
        super().xDelete(filename, syncdir)


def test_a_new_file_is_committed_for_good(origin: str, tmp_path: Path) -> None:
    """A journal that reappears after a power failure would roll the new store back to empty, while the old one is
    marked."""
    database = shared().database()
    moved(origin, database)
    disk = Removals()
    try:
        moved(database, f"sqlite://{tmp_path}/back.db")
    finally:
        disk.unregister()
    assert disk.seen and {*disk.seen} == {("back.db-journal", True)}


def test_large_rows_are_not_here_all_at_once(origin: str, tmp_path: Path) -> None:
    database, large = shared().database(), "repeat('x', 2000000)::bytea"
    moved(origin, database)
    ask(database, f"INSERT INTO notes SELECT 'large ' || n, {large} FROM generate_series(1, 50) n")
    line = ["bash", "-c", 'ulimit -d 250000; exec "$@"', "bash", sys.executable, "-m", "gateway.cli", "move"]
    done = subprocess.run(
        [*line, "--config", str(written(tmp_path, database)), "--to", f"sqlite://{tmp_path}/back.db"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
