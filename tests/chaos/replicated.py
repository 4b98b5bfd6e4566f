"""Several gateway processes over one PostgreSQL: their configuration, a load that fails over like a balancer, and the
database's own record of who changed what.

It must not know what is done to them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import psycopg

from gateway.store import DeliveryRow
from gateway.store.postgres import PostgresStore
from tests.chaos.accounts import OPERATIONS
from tests.chaos.load import CALLER_KEY, Ledger, Load, Sender, Told
from tests.chaos.processes import CONCURRENCY, GATEWAY, UPSTREAM_KEY, Process, added_up, free_port
from tests.chaos.sink import ROOT, Arrival
from tests.chaos.verdicts import Verdict

LEASE = 15.0
"""Seconds of a gateway's default lease."""
STEPS = ("ALERT", "ACCEPT", "RESOLVE")

# Triggers by which the server records who took a delivery over, and who changed one. What a replica may change in a
# delivery that it does not own (`owner`, `fence` and `leased_until`, to take it over) is not recorded as a change.
_WATCH = """
CREATE TABLE seen_taken (at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), delivery BIGINT, owner TEXT, by TEXT);
CREATE TABLE seen_changed (at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), delivery BIGINT, owner TEXT, by TEXT);
CREATE FUNCTION watch_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE by_whom TEXT := current_setting('application_name');
BEGIN
    IF TG_OP = 'INSERT' OR OLD.owner IS DISTINCT FROM NEW.owner THEN
        INSERT INTO seen_taken (delivery, owner, by) VALUES (NEW.id, NEW.owner, by_whom);
    ELSIF (OLD.state, OLD.attempts, OLD.due, OLD.reason, OLD.status, OLD.finished_at) IS DISTINCT FROM
          (NEW.state, NEW.attempts, NEW.due, NEW.reason, NEW.status, NEW.finished_at) THEN
        INSERT INTO seen_changed (delivery, owner, by) VALUES (NEW.id, OLD.owner, by_whom);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON deliveries FOR EACH ROW EXECUTE FUNCTION watch_deliveries();
CREATE FUNCTION watch_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen_changed (delivery, owner, by)
    SELECT NEW.delivery, owner, current_setting('application_name') FROM deliveries WHERE id = NEW.delivery;
    RETURN NULL;
END $$;
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION watch_attempts();
"""
_STALE = """
WITH whose AS (SELECT DISTINCT owner, by FROM seen_taken WHERE owner <> '')
SELECT count(*) FROM seen_changed c JOIN whose w ON w.owner = c.owner WHERE w.by <> c.by
"""


async def prepared(url: str) -> None:
    """Makes an empty store, with triggers that record who changes what."""
    async with PostgresStore(url, exclusive=False):
        pass
    asked(url, _WATCH)


def asked(url: str, statement: str, *values: object) -> int:
    """Runs a statement over a connection of its own; returns the number that it gives, 0 if it gives none."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        found = connection.execute(statement.encode(), values or None)
        row = found.fetchone() if found.description else None
        return int(row[0]) if row else 0


def stale_changes(url: str) -> int:
    """Returns how often a replica changed a delivery, or recorded an attempt of one, that another owned."""
    return asked(url, _STALE)


def held_by(url: str, name: str) -> int:
    """Returns how many waiting deliveries the replica of this name owns."""
    owners = "SELECT owner FROM seen_taken WHERE by = %s"
    return asked(url, f"SELECT count(*) FROM deliveries WHERE state = 'waiting' AND owner IN ({owners})", name)


async def outbox(url: str) -> list[DeliveryRow]:
    """Returns every delivery of a store."""
    async with PostgresStore(url, exclusive=False) as store:
        return await store.read(added_up)


class Replica:
    """One gateway among several. `start` may be called again after it ended; each time it has another name."""

    def __init__(
        self,
        directory: Path,
        number: int,
        url: str,
        upstream: str,
        *,
        program: tuple[str, ...] = GATEWAY,
        inbound: str = "",
        top: str = "",
        concurrency: int = CONCURRENCY,
        retry: tuple[str, str] = ("20ms", "200ms"),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._retry, self._environ = retry, environ
        self._directory = directory / f"replica-{number}"
        self._directory.mkdir()
        self._url, self._upstream, self._program = url, upstream, program
        self._inbound, self._top, self._concurrency = inbound, top, concurrency
        self._starts = 0
        self.number = number
        self.port = free_port()
        self.name = ""
        self.process: Process

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self._directory / "gateway.toml"

    def start(self) -> Replica:
        """Starts it; it is not ready yet."""
        self._starts += 1
        self.name = f"replica-{self.number}-{self._starts}"
        mark = "&" if "?" in self._url else "?"
        self.config.write_text(
            f'store = "{self._url}{mark}application_name={self.name}"\n{self._top}\n'
            f'[inbound.ilert]\nkeys = {{ chaos = "{CALLER_KEY}" }}\n{self._inbound}\n'
            f'[upstreams.oncall]\ndialect = "ilert"\nurl = "{self._upstream}"\nkey = "{UPSTREAM_KEY}"\n'
            f'retry = {{ first = "{self._retry[0]}", most = "{self._retry[1]}" }}\n'
            f"concurrency = {self._concurrency}\n"
        )
        self.process = Process(self.config, self.port, program=self._program, environ=self._environ)
        return self

    def end(self) -> None:
        """Kills it if it was ever started and is still there."""
        if self.name:
            self.process.kill()

    def freeze(self) -> None:
        """Stops it with SIGSTOP, which it does not notice."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on (SIGCONT)."""
        os.kill(self.process.pid, signal.SIGCONT)

    def reported(self) -> list[dict[str, object]]:
        """Returns the ledger that the operator's command prints; empty if the command says that it does not add up."""
        line = [sys.executable, "-m", "gateway.cli", "report", "--config", str(self.config), "--json"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        found: list[dict[str, object]] = json.loads(done.stdout)["ledger"] if done.returncode == 0 else []
        return found


async def judge_ledger(verdict: Verdict, replica: Replica, rows: Sequence[DeliveryRow]) -> None:
    """Checks promise 30: the ledger that the command prints adds up, and includes every delivery."""
    lines = await asyncio.to_thread(replica.reported)
    verdict.hold(bool(lines), "the ledger does not add up")
    received = sum(int(str(line["received"])) for line in lines)
    verdict.figures["received"] = received
    verdict.hold(received == len(rows), f"the ledger counts {received} deliveries, the store has {len(rows)}")


class Steps(Ledger):
    """A ledger whose every second request continues an acknowledged alert with a key: accepts it, then resolves it."""

    def __init__(self) -> None:
        super().__init__()
        self._due: deque[tuple[str, str]] = deque()

    def next(self, due: float) -> Told:
        """Returns the next request to be sent."""
        self._number += 1
        if self._number % 2 == 0 and self._due:
            nonce, word = self._due.popleft()
            return Told(nonce, word, True, due)
        return Told(f"n-{self._number:07}", "ALERT", self._number % 4 != 1, due)

    def note(self, told: Told) -> None:
        """Records the result of a request."""
        super().note(told)
        if told.fate == "acknowledged" and told.has_key and told.word != STEPS[-1]:
            self._due.append((told.nonce, STEPS[STEPS.index(told.word) + 1]))

    def doubt(self) -> int:
        """Counts requests answered 503 as unknown: the gateway may not know whether they were kept, so they may have
        been. Returns how many there were."""
        doubted = [one for one in self.told if one.fate == "refused" and one.status == 503]
        for one in doubted:
            one.fate = "unknown"
        return len(doubted)


def judge_store(verdict: Verdict, ledger: Ledger, rows: Sequence[DeliveryRow]) -> None:
    """Checks that everything acknowledged is in the store, even if it has arrived already."""
    kept = {(str(row.alert), row.operation) for row in rows}
    gone = [one for one in ledger.of("acknowledged") if (one.alert, OPERATIONS[one.word]) not in kept]
    verdict.figures["not in the store"] = len(gone)
    verdict.hold(not gone, f"{len(gone)} acknowledged are not in the store any more")


def inversions(arrived: Sequence[Arrival]) -> int:
    """Returns in how many lanes a step first arrived after a later one."""
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for one in arrived:
        step = STEPS.index(one.word)
        if step not in seen[one.key]:
            seen[one.key].append(step)
    return sum(steps != sorted(steps) for steps in seen.values())


class Balanced(Load):
    """A load over several ports, spread as by a balancer: new connections go to ports that say that they are ready, and
    to the next one if a port refuses; a port that does not answer at all loses its idle connections. Kept-alive
    connections to one that drains stay in use: nothing may be refused there."""

    def __init__(self, ledger: Ledger, ports: Sequence[int], most: int = 256) -> None:
        super().__init__(ledger, ports[0], most)
        self._ports = list(ports)
        self._ready: dict[int, int | None] = dict.fromkeys(ports, 200)
        self._turn = 0

    def places(self) -> Sequence[int]:
        """Returns the ports that are ready, each first in its turn; all if none is ready, as balancers do."""
        self._turn += 1
        chosen = [port for port in self._ports if self._ready[port] == 200] or self._ports
        at = self._turn % len(chosen)
        return chosen[at:] + chosen[:at]

    def is_usable(self, sender: Sender) -> bool:
        """Returns whether a kept-alive connection may be used again: not to a port that does not answer."""
        return super().is_usable(sender) and self._ready[sender.port] is not None

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Offers requests, and probes which ports are ready, until it is told to stop."""
        looking = [asyncio.create_task(self._look(port)) for port in self._ports]
        try:
            await self.offer(rate, stop)
        finally:
            for task in looking:
                task.cancel()

    async def _look(self, port: int) -> None:
        async with httpx.AsyncClient(timeout=1.5) as client:
            while True:
                self._ready[port] = await status(client, port)
                await asyncio.sleep(0.2)


async def status(client: httpx.AsyncClient, port: int) -> int | None:
    """Returns the status of a gateway's readiness; None if it does not answer."""
    try:
        return (await client.get(f"http://127.0.0.1:{port}/-/ready")).status_code
    except httpx.HTTPError:
        return None


async def until(holds: Callable[[], bool], within: float, pause: float = 0.1) -> float:
    """Waits until a condition holds; returns how many seconds that took, infinity if it did not hold in time."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + within:
            return float("inf")
        await asyncio.sleep(pause)
    return time.monotonic() - began
