"""`callers` and `/-/callers` (issue 6, "At three in the morning"): who calls, with which program, with what outcome and
when last. Kept over restarts, bounded whatever strangers send, and without any credential."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway.admin.admin import PAGE
from gateway.cli.commands import main
from gateway.config.loading import parse
from gateway.desk import calling
from gateway.desk.calling import MOST_HELD, MOST_LINES, Calls, cleaned
from gateway.errors import StoreError
from gateway.process.service import Gateway
from gateway.store import CallsRow, Tx
from gateway.store.sqlite import SqliteStore
from tests.chaos_upstream import chaos, say
from tests.clients.callers import ilert_event
from tests.engine.store_drivers import DRIVERS, Harness, within
from tests.engine.test_tls import soon
from tests.harness import KEY, served
from tests.processes import at_a_terminal

OK = say(202, {})
FILE = """
store = "sqlite://{directory}/gateway.db"
{top}
[inbound.ilert]
keys = {{ ci = "{key}" }}
[inbound.opsgenie]
keys = {{ shop = "{key}" }}
[upstreams.oncall]
dialect = "ilert"
url = "{url}"
key = "there-0123456789"
"""


class Door:
    """A gateway, and a client that calls it."""

    def __init__(self, url: str, config: Path) -> None:
        self.url = url
        self.config = str(config)
        self.client = httpx.Client(trust_env=False, timeout=20, headers={"user-agent": "tester/1"})

    def page(self, key: str = KEY, **headers: str) -> int:
        """Sends a page."""
        body = {**ilert_event("ALERT", "k", summary="s"), "apiKey": key}
        return self.client.post(self.url + "/ilert/api/events", json=body, headers=headers).status_code

    def seen(self) -> list[dict[str, Any]]:
        """The callers as the operators' address shows them."""
        return list(self.client.get(self.url + "/-/callers").json()["callers"])


@contextmanager
def door(directory: Path, upstream: str, top: str = "") -> Iterator[Door]:
    """The gateway, in this process."""
    text = FILE.format(directory=directory, top=top, key=KEY, url=upstream)
    config = directory / "gateway.toml"
    config.write_text(text)
    with served(Gateway(parse(text)).app) as url:
        found = Door(url, config)
        with found.client:
            yield found


def short(row: dict[str, Any]) -> tuple[Any, ...]:
    """The fields that tests compare."""
    return tuple(row[name] for name in ("dialect", "caller", "method", "path", "outcome", "count"))


def test_who_calls_with_what_and_how_that_ends(tmp_path: Path) -> None:
    with chaos(OK) as vendor, door(tmp_path, vendor.url) as d:
        assert [d.page(), d.page(), d.page("wrong-key")] == [202, 202, 401]
        assert d.client.post(d.url + "/ilert/api/events", content="{").status_code == 400
        assert d.client.get(d.url + "/ilert/api/evnets").status_code == 404
        assert d.client.delete(d.url + "/ilert/api/events").status_code == 405
        assert d.client.get(d.url + "/ilert/api/alerts/no-such", headers={"authorization": KEY}).status_code == 404
        seen = d.seen()
        assert sorted(map(short, seen), key=str) == sorted(
            [
                ("ilert", "ci", "POST", "/api/events", "ok", 2),
                ("ilert", None, "POST", "/api/events", "unknown key", 1),
                ("ilert", None, "POST", "/api/events", "refused", 1),
                ("ilert", None, "GET", "/ilert/api/evnets", "unknown path", 1),
                ("ilert", None, "DELETE", "/ilert/api/events", "unknown path", 1),
                ("ilert", "ci", "GET", "/api/alerts/{id}", "refused", 1),
            ],
            key=str,
        )
        assert all(one["agent"] == "tester/1" and one["first_seen"] <= one["last_seen"] for one in seen)


def test_they_are_kept_over_a_restart_and_shown_from_the_store(tmp_path: Path) -> None:
    with chaos(OK) as vendor:
        for _ in range(2):
            with door(tmp_path, vendor.url) as d:
                assert d.page() == 202
        listed = CliRunner().invoke(main, ["callers", "--config", d.config, "--json"])
        assert [short(row) for row in json.loads(listed.stdout)] == [("ilert", "ci", "POST", "/api/events", "ok", 2)]
        plain = CliRunner().invoke(main, ["callers", "--config", d.config]).stdout.split("\t")
        assert plain[:3] == ["ilert/ci", "ok", "2"] and plain[5:] == ["POST /api/events", "tester/1\n"]


def test_a_program_may_call_itself_what_it_will_and_a_terminal_shows_it(tmp_path: Path) -> None:
    """A program's name, which any stranger chooses, is not read as terminal markup, which could make the command
    fail."""
    with chaos(OK) as vendor, door(tmp_path, vendor.url) as d:
        assert d.page() == 202
        for agent in ("[/x]", "[red]hidden"):
            d.client.post(d.url + "/ilert/api/events", content="{}", headers={"user-agent": agent})
        soon(lambda: len(d.seen()) == 3)
        status, shown = at_a_terminal("callers", "--url", d.url)
        assert status == 0 and "[/x]" in shown and "[red]" in shown, shown
        assert "…" not in shown


def test_who_called_just_now_is_shown_from_the_store_of_a_gateway_that_runs(tmp_path: Path) -> None:
    with chaos(OK) as vendor, door(tmp_path, vendor.url) as d:
        soon(lambda: d.page() == 202)
        listed = CliRunner().invoke(main, ["callers", "--config", d.config, "--json"])
        assert [short(row) for row in json.loads(listed.stdout)] == [("ilert", "ci", "POST", "/api/events", "ok", 1)]


def test_a_list_of_many_pages_has_everybody_once_though_they_go_on_calling(tmp_path: Path) -> None:
    with chaos(OK) as vendor:
        gateway = Gateway(parse(FILE.format(directory=tmp_path, top="", key=KEY, url=vendor.url)))
        count = 3 * PAGE + 1

        async def call(number: int) -> None:
            gateway.calls.note(
                "ilert", f"c{number}", "GET", "/", "a", "ok", gateway.now() - count + number, str.isdigit
            )
            await gateway.calls.write(gateway.store)

        async def listed(limit: int) -> list[str]:
            pages = []
            async for page in gateway._admin._calls(limit):
                pages.append([row.caller for row in page])
                if len(pages) == 1:
                    await call(0)  # the last of them all is the first from here on
            assert max(map(len, pages)) <= PAGE
            return [caller for page in pages for caller in page]

        async def main() -> None:
            async with gateway.running():
                for number in range(count):
                    await call(number)
                everybody = await listed(10_000)
                assert sorted(everybody) == sorted(f"c{number}" for number in range(count))
                assert everybody[0] == f"c{count - 1}", "those that were seen last first"
                assert len(await listed(PAGE + 7)) == PAGE + 7

        asyncio.run(main())


def test_a_running_gateway_is_asked_with_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "operators-token-0123456789abcdef")
    with chaos(OK) as vendor, door(tmp_path, vendor.url, 'admin_token = "env:TOKEN"') as d:
        d.page("wrong-key")
        refused = CliRunner().invoke(main, ["callers", "--url", d.url])
        assert refused.exit_code == 1 and "requires a token" in refused.stderr
        asked = CliRunner().invoke(main, ["callers", "--url", d.url, "--token", "env:TOKEN"])
        assert asked.exit_code == 0 and asked.stdout.startswith("ilert/unknown\tunknown key\t1\t"), asked.output


def test_they_are_written_by_themselves_and_not_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "EVERY", 0.5)
    writes: list[int] = []
    real = calling.keep

    def counting(tx: Tx, rows: list[CallsRow]) -> None:
        writes.append(len(rows))
        real(tx, rows)

    monkeypatch.setattr(calling, "keep", counting)

    def kept() -> list[CallsRow]:
        async def read() -> list[CallsRow]:
            async with SqliteStore(str(tmp_path / "gateway.db"), exclusive=False) as store:
                return await store.read(lambda tx: tx.calls(100))

        return asyncio.run(read())

    with chaos(OK) as vendor, door(tmp_path, vendor.url) as d:
        for _ in range(40):
            d.page()
        [line] = soon(lambda: (found := kept()) and found[0].count == 40 and found)
        assert (line.caller, line.outcome) == ("ci", "ok")
        assert 1 <= len(writes) <= 10, "forty requests are no forty writes"


# --- bounded, and without credentials ------------------------------------------------------------------------


def test_no_credential_is_ever_kept(tmp_path: Path) -> None:
    """A key is not kept where it occurs in a path, as with some integrations, in a program's name, or in a query."""
    with chaos(OK) as vendor, door(tmp_path, vendor.url) as d:
        for path in (f"/ilert/hooks/{KEY}", f"/ilert/x?apiKey={KEY}", "/ilert/%6Fther-0123456789abcdef"):
            d.client.get(d.url + path, headers={"user-agent": f"tool/1 (key={KEY})"})
        d.page(**{"user-agent": f"tool {KEY}"})
        said = json.dumps(d.seen())
        assert KEY not in said and "other-0123456789abcdef" not in said
        paths = {one["path"] for one in d.seen()}
        assert paths == {"/ilert/hooks/•••", "/ilert/x", "/ilert/•••", "/api/events"}
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))
    assert KEY.encode() not in raw


def test_a_short_key_is_known_by_what_it_opens() -> None:
    assert cleaned("/hooks/abc/x", lambda word: word == "abc") == "/hooks/•••/x"


@pytest.mark.parametrize(
    "agent",
    [
        "python-requests/2.31.0",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        "Alertmanager/0.27.0",
        "HashiCorp Terraform/1.9.5 (+https://www.terraform.io)",
        "opsgenie-go-sdk-1.2.23 go1.21 (linux/amd64)",
    ],
)
def test_names_of_programs_stay_as_they_are(agent: str) -> None:
    assert cleaned(agent, lambda word: False) == agent


def test_a_scanner_fills_neither_the_store_nor_the_lines_of_others(tmp_path: Path) -> None:
    with chaos(OK) as vendor, door(tmp_path, vendor.url) as d:
        for number in range(MOST_LINES + 20):
            name = "".join(chr(97 + int(digit)) for digit in str(number))
            d.client.get(f"{d.url}/ilert/scan/{name}", headers={"user-agent": f"scan {name}"})
        assert d.page() == 202
        d.client.post(d.url + "/opsgenie/v2/alerts", json={}, headers={"authorization": "GenieKey wrong"})
        seen = d.seen()
        mine = [one for one in seen if one["caller"] == "ci"]
        assert [short(one) for one in mine] == [("ilert", "ci", "POST", "/api/events", "ok", 1)]
        strangers = [one for one in seen if one["dialect"] == "ilert" and one["caller"] is None]
        [other] = [one for one in strangers if one["path"] == "other"]
        assert len(strangers) == MOST_LINES + 1
        assert (other["method"], other["agent"], other["count"]) == ("*", "other", 20)
        assert sum(one["dialect"] == "opsgenie" for one in seen) == 1, "each inbound has its own"


def test_what_waits_in_memory_is_bounded_and_outlives_a_store_that_takes_nothing() -> None:
    calls = Calls()

    def note(path: str, agent: str = "tool " * 20, method: str = "GET") -> None:
        calls.note("d", None, method, path, agent, "no_such_path", 7, lambda word: False)

    for number in range(MOST_HELD + 50):
        note("/" + "".join(chr(97 + int(digit)) for digit in str(number)))
    note("/x" * 10_000, "a" * 10_000, "M" * 10_000)

    async def main() -> list[CallsRow]:
        async with SqliteStore(":memory:") as store:
            pages = store._writer.pragma("page_count")
            store._writer.pragma("max_page_count", pages)
            with pytest.raises(StoreError):
                await calls.write(store)
            store._writer.pragma("max_page_count", 1 << 30)
            await calls.write(store)
            await calls.write(store)
            return await store.read(lambda tx: tx.calls(10_000))

    rows = asyncio.run(main())
    assert sum(row.count for row in rows) == MOST_HELD + 51, "none is lost, and none is counted twice"
    assert len(rows) == MOST_LINES + 1
    assert max(len(row.path) for row in rows) <= 120


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_replicas_add_up(tmp_path: Path, driver: str) -> None:
    harness: Harness = DRIVERS[driver](tmp_path)

    async def work(store: Any) -> None:
        many = [Calls() for _ in range(4)]
        for _ in range(10):
            for calls in many:
                calls.note("d", "ci", "GET", "/{id}", "a", "ok", 5, lambda word: False)
            await asyncio.gather(*(calls.write(store) for calls in many))

        def look(tx: Tx) -> list[CallsRow]:
            return tx.calls(10)

        [row] = await store.read(look)
        assert row.count == 40

    within(harness, work)


def test_they_are_forgotten_with_everything_else(tmp_path: Path) -> None:
    with chaos(OK) as vendor:
        gateway = Gateway(parse(FILE.format(directory=tmp_path, top='retention = "1h"', key=KEY, url=vendor.url)))

        async def main() -> list[str]:
            async with gateway.running():
                gateway.calls.note(
                    "ilert", "ci", "GET", "/old", "a", "ok", gateway.now() - 2 * 3600_000, lambda _: False
                )
                gateway.calls.note("ilert", "ci", "GET", "/new", "a", "ok", gateway.now(), lambda _: False)
                await gateway.calls.write(gateway.store)
                assert gateway.housekeeping is not None
                await gateway.housekeeping._purge(gateway.now())
                return [row.path for row in await gateway.store.read(lambda tx: tx.calls(10))]

        assert asyncio.run(main()) == ["/new"]
