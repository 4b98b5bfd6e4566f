"""Shared by the tests of `move`: running the command, a store to move, and looks into either store past every
gateway."""

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

from gateway.admin.moving import SPOKEN
from gateway.errors import StoreError
from gateway.store.moving import TABLES, move
from gateway.store.postgres_side import PostgresSide
from gateway.store.sqlite_side import SqliteSide
from tests.engine.vendors import page
from tests.harness import KEY, house
from tests.processes import HERE

EMPTIED = ("alerts", "ids", "targets", "commands", "deliveries", "attempts", "keyed")


def written(directory: Path, store: str) -> Path:
    """A configuration file that names this store."""
    path = directory / f"{secrets.token_hex(4)}.toml"
    path.write_text(
        f'store = "{store}"\n[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        '[upstreams.oncall]\ndialect = "ilert"\nurl = "http://127.0.0.1:9"\nkey = "never-used"\n'
    )
    return path


def typed(command: str, config: Path, *words: str, within: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, as an operator would."""
    line = [sys.executable, "-m", "gateway.cli", command, "--config", str(config), *words]
    return subprocess.run(line, cwd=HERE, capture_output=True, text=True, timeout=within, check=False)


def rows_in(url: str) -> dict[str, list[Any]]:
    """All rows of a store, read past every gateway, without the note about the move itself."""
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
    """Whether a store holds nothing that callers sent."""
    found = rows_in(url)
    return not any(found[name] for name in EMPTIED)


def ask(url: str, statement: str) -> list[Any]:
    """The rows that a statement returns from a PostgreSQL database."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(statement.encode())
        return found.fetchall() if found.description else []


def moved(origin: str, to: str) -> Any:
    """Moves a store by calling the function, without the command line."""
    return move(side(origin), side(to), lambda text: None, SPOKEN)


def side(url: str) -> PostgresSide | SqliteSide:
    """The side of a move that this URL names."""
    if url.startswith("postgresql:"):
        return PostgresSide(url)
    return SqliteSide(url.removeprefix("sqlite://"), may_be_made=True)


def refusal(store: str) -> str:
    """Why a gateway refuses to open this store; empty where it opens."""
    from gateway.config.loading import parse
    from gateway.process.service import Gateway

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
    """Runs a statement in a SQLite store past every gateway."""
    with contextlib.closing(apsw.Connection(store.removeprefix("sqlite://"))) as connection:
        connection.execute(statement, values)


def filled(directory: Path) -> str:
    """A SQLite store with waiting deliveries, and no gateway that serves from it."""
    with house(directory, config=lambda _: written(directory, "x").read_text().partition("\n")[2]) as h:
        for number in range(3):
            page(h, f"key-{number}")
    return f"sqlite://{directory}/gateway.db"
