"""What the tests of moving a store share: the command as it is typed, a store to move, and looks past every gateway
into what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import psycopg

from gateway.errors import StoreError
from gateway.moving import SPOKEN
from gateway.store.moving import TABLES, move
from gateway.store.postgres_side import PostgresSide
from gateway.store.sqlite_side import SqliteSide
from tests.engine.vendors import page
from tests.harness import KEY, house
from tests.processes import HERE

EMPTIED = ("alerts", "ids", "targets", "commands", "deliveries", "attempts", "keyed")


def written(directory: Path, store: str) -> Path:
    """A configuration file over a store."""
    path = directory / f"{secrets.token_hex(4)}.toml"
    path.write_text(
        f'store = "{store}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        '[upstreams.oncall]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "never-used"\n'
    )
    return path


def typed(command: str, config: Path, *words: str, within: float = 120) -> subprocess.CompletedProcess[str]:
    """A command, as an operator types it."""
    line = [sys.executable, "-m", "gateway.cli", command, "--config", str(config), *words]
    return subprocess.run(line, cwd=HERE, capture_output=True, text=True, timeout=within, check=False)


def rows_in(url: str) -> dict[str, list[Any]]:
    """Everything in a store but what it notes of a move, past every gateway."""
    found = {}
    for one in TABLES:
        if url.startswith("postgresql:"):
            with psycopg.connect(url) as connection:
                rows = connection.execute(one.select.encode()).fetchall()
        else:
            with contextlib.closing(apsw.Connection(url.removeprefix("sqlite://"))) as connection:
                rows = connection.execute(one.select).fetchall()
        flat = [
            tuple(bytes(value) if isinstance(value, bytes | memoryview) else value for value in row) for row in rows
        ]
        found[one.name] = sorted(flat, key=repr)
    return found


def is_empty(url: str) -> bool:
    """Whether nothing that anybody told is in a store."""
    found = rows_in(url)
    return not any(found[name] for name in EMPTIED)


def ask(url: str, statement: str) -> list[Any]:
    """What a statement finds in a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(statement.encode())
        return found.fetchall() if found.description else []


def moved(origin: str, to: str) -> Any:
    """Moves without a command line."""
    return move(side(origin), side(to), lambda text: None, SPOKEN)


def side(url: str) -> PostgresSide | SqliteSide:
    """One of the two."""
    if url.startswith("postgresql:"):
        return PostgresSide(url)
    return SqliteSide(url.removeprefix("sqlite://"), may_be_made=True)


def refusal(store: str) -> str:
    """Why no gateway serves from a store; nothing where one does."""
    from gateway.config import parse
    from gateway.service import Gateway

    async def main() -> None:
        text = f'store = "{store}"\n[inbound.ilert]\n[upstreams.o]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\n'
        async with Gateway(parse(text + 'key = "k"\n')).running():
            pass

    try:
        asyncio.run(main())
    except StoreError as error:
        return str(error)
    return ""


def put(store: str, statement: str, *values: Any) -> None:
    """Writes into a SQLite store past everybody."""
    with contextlib.closing(apsw.Connection(store.removeprefix("sqlite://"))) as connection:
        connection.execute(statement, values)


def filled(directory: Path) -> str:
    """A store in SQLite in which something waits, and nobody who serves from it."""
    with house(directory, config=lambda _: written(directory, "x").read_text().partition("\n")[2]) as h:
        for number in range(3):
            page(h, f"key-{number}")
    return f"sqlite://{directory}/gateway.db"
