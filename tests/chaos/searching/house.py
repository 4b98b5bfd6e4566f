"""A gateway between callers and vendors: what a play of this seed is made of, its configuration, and asking it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import httpx

from gateway.store import DeliveryFilter, DeliveryRow
from gateway.store.sqlite import SqliteTx
from tests.chaos.searching.genies import Jsm, Opsgenie
from tests.chaos.searching.pagers import Alertmanager, Ilert, PagerDuty, Splunk
from tests.chaos.searching.passing import Passing
from tests.chaos.searching.process import Process, log_beside
from tests.chaos.searching.rules import Ibm, LiveSession, Uptinio
from tests.chaos.searching.things import Vendor
from tests.chaos.searching.words import CALLERS, Request
from tests.chaos_upstream import Chaos
from tests.harness import KEY, UPSTREAM_KEY

VENDORS = (PagerDuty, Ilert, Splunk, Opsgenie, Jsm, Alertmanager, Uptinio, Ibm, LiveSession)
FEATURES = (
    *("burst", "silence", "shared", "fallback", "kill", "reload", "time", "refuse", "forget", "hold", "lost", "again"),
    "outage",
)
"""What may happen in a play; each has about half of them."""
FALLBACK = 120.0
"""Seconds until a fallback has its turn."""
UPSTREAM = """
[upstreams.{name}]
dialect = "{dialect}"
url = "{url}"
key = "{key}"
on_backlog = "{backlog}"
retry = {{ first = "10ms", most = "40ms" }}
timeout = "400ms"
[upstreams.{name}.defaults]
resource = "mon_9"
"condition.expression" = "avg(cpu) > 1"
channels = [{{ kind = "slack", id = "C042" }}]
"""


@dataclass(frozen=True)
class Route:
    """Where a caller's alerts go, and where those that nobody there has taken."""

    to: tuple[str, ...]
    fallback: tuple[str, ...]

    def among(self, present: Sequence[str]) -> Route:
        """The same where only these are in the configuration."""
        to = tuple(name for name in self.to if name in present) or (present[0],)
        return Route(to, tuple(name for name in self.fallback if name in present and name not in to))


class House:
    """The gateway, its vendors, and a log of all that was said. `routes` by caller; `present`: the vendors that are in
    the configuration."""

    def __init__(self, seed: int, directory: Path, *, is_blind: bool = False) -> None:
        chance = random.Random(seed)
        self.seed, self.directory, self.passing = seed, directory, Passing()
        self.features = {name for name in FEATURES if chance.random() < 0.5}
        kinds = VENDORS if chance.random() < 0.7 else (chance.choice(VENDORS), chance.choice(VENDORS))
        names = [f"u{number}" for number in range(chance.choice((1, 2, 2, 3, 4)))]
        self.vendors: dict[str, Vendor] = {
            name: chance.choice(kinds)(name, self.passing, random.Random(chance.random())) for name in names
        }
        self.is_shared = "shared" in self.features and chance.random() < 0.6
        self.callers = chance.sample(list(CALLERS), chance.choice((1, 2, 3)))
        self.backlog = {name: chance.choice(("fold", "deliver")) for name in names}
        self.present = list(names)
        self.routes = {caller: self.route(chance) for caller in self.callers}
        self.log: list[str] = [f"seed {seed}: {self}"]
        self.kills = 0
        self._is_blind, self._urls = is_blind, dict[str, str]()
        self._process: Process
        self._client: httpx.AsyncClient

    def __str__(self) -> str:
        vendors = {name: vendor.dialect for name, vendor in self.vendors.items()}
        routes = {caller: (route.to, route.fallback) for caller, route in self.routes.items()}
        return f"{sorted(self.features)}{' one scope' * self.is_shared}, upstreams {vendors}, routes {routes}"

    def route(self, chance: random.Random) -> Route:
        """A route to some of what there is."""
        most = len(self.present) - ("fallback" in self.features)
        to = chance.sample(self.present, chance.randint(1, max(1, most)))
        rest = [name for name in self.present if name not in to]
        has_fallback = rest and "fallback" in self.features and chance.random() < 0.8
        return Route(tuple(to), (chance.choice(rest),) if has_fallback else ())

    def note(self, what: str) -> None:
        """Writes down what happens."""
        self.log.append(f"{self.passing.text()} {what}")

    # --- the gateway -----------------------------------------------------------------------------------------

    @property
    def _config(self) -> Path:
        return self.directory / "gateway.toml"

    def _configure(self) -> None:
        lines = [f'store = "sqlite://{self.directory}/gateway.db"', 'reply_timeout = "1s"']
        for caller in self.callers:
            lines.append(f'[inbound.{caller}]\nkeys = {{ ci = "{KEY}" }}')
            lines += ['scope = "all"'] if self.is_shared else []
        for name in self.present:
            given = {"dialect": self.vendors[name].dialect, "url": self._urls[name], "backlog": self.backlog[name]}
            lines.append(UPSTREAM.format(name=name, key=UPSTREAM_KEY, **given))
        for caller, route in self.routes.items():
            lines.append(f'[[routes]]\nname = "of {caller}"\nfrom = ["{caller}"]\nto = {json.dumps(route.to)}')
            turn = f'{{ to = {json.dumps(route.fallback)}, after = "{FALLBACK:g}s" }}'
            lines += [f"fallback = {turn}"] if route.fallback else []
        self._config.write_text("\n".join(lines))

    @contextlib.asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """The vendors serve, and the gateway, until the block ends."""
        async with contextlib.AsyncExitStack() as stack:
            for name, vendor in self.vendors.items():
                chaos = Chaos(vendor)
                server = await asyncio.start_server(chaos.serve, "127.0.0.1", 0)
                stack.push_async_callback(chaos.end)
                stack.callback(server.close)
                self._urls[name] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._configure()
            await self._start()
            try:
                yield
            finally:
                await self._end()

    async def _start(self) -> None:
        self._process = Process(self._config, self.passing.skipped, is_blind=self._is_blind)
        await self._process.ready()
        self._client = httpx.AsyncClient(base_url=self._process.url, timeout=30, trust_env=False)

    async def _end(self) -> None:
        await self._process.kill()
        await self._client.aclose()

    async def kill(self) -> None:
        """SIGKILL, and another start."""
        self.note("kill -9")
        self.kills += 1
        await self._end()
        for vendor in self.vendors.values():
            vendor.unheard()
        await self._start()

    async def reload(self) -> None:
        """Goes on under the configuration as it is now."""
        self.note(f"reload: {self}, present {self.present}")
        self._configure()
        await self._process.told("reload")

    async def skip(self, seconds: float) -> None:
        """So much time passes."""
        self.note(f"{seconds:g} s pass")
        self.passing.skip(seconds)
        await self._process.told("skip", seconds)
        await asyncio.sleep(0.15)

    # --- asking it -------------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> tuple[int, Any, httpx.Headers]:
        """Its status, body and headers."""
        headers = {} if request.has_key else {"authorization": f"Bearer {KEY}"}
        content = None if request.body is None else json.dumps(request.body)
        if content is not None:
            headers["content-type"] = "application/json"
        answer = await self._client.request(request.method, request.path, content=content, headers=headers)
        said = None
        with contextlib.suppress(ValueError):
            said = answer.json()
        report = answer.headers.get_list("alert-gateway-report")
        self.note(f"{request.method} {request.path} {content or ''} → {answer.status_code} {said} {report}")
        return answer.status_code, said, answer.headers

    def outbox(self, state: str = "") -> list[DeliveryRow]:
        """Every delivery, or those in a state, oldest first."""
        readonly = apsw.Connection(f"{self.directory}/gateway.db", flags=apsw.SQLITE_OPEN_READONLY)
        with contextlib.closing(readonly):
            readonly.set_busy_timeout(2000)
            return SqliteTx(readonly).deliveries(DeliveryFilter(state=state or None, limit=100_000))[::-1]

    def due(self) -> list[DeliveryRow]:
        """What waits, and not for a later time."""
        now = (self.passing.now() + 1) * 1000
        return [row for row in self.outbox("waiting") if row.due <= now]

    async def settle(self, within: float = 15.0) -> list[DeliveryRow]:
        """Waits until nothing is due any more; answers what is all the same."""
        end, quiet = time.monotonic() + within, 0
        while quiet < 2 and time.monotonic() < end:
            await asyncio.sleep(0.04)
            quiet = 0 if self.due() else quiet + 1
        return self.due()

    def logged(self) -> list[str]:
        """What the gateway logged of things that should not be."""
        log = log_beside(self._config)
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if not any(f'"{event}"' in line for event in EXPECTED)]


EXPECTED = ("upstream.left_alone", "upstream.held", "key.held")
"""What is logged as an error, as it is one, where an upstream fails."""
