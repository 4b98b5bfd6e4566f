"""Success means durable: a real gateway process is killed with SIGKILL while callers are being answered and its
upstream is down; over the same store the next one delivers everything that was acknowledged, with the same keys, in
order. guarantees.md 1 and 4, in short; the long form is among the chaos tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx

from gateway.store.sqlite import SqliteTx
from tests.chaos_upstream import CLOSE, Chaos, chaos, say
from tests.engine.vendors import OK, before, outbox, page, settled, table
from tests.harness import KEY

KILLS = 5
WORDS = ("ALERT", "ACCEPT", "RESOLVE")
PROGRAM = """
import asyncio, sys
from gateway.config.loading import load
from gateway.logs import configure
from gateway.process.server import serving
from gateway.process.service import Gateway

async def main():
    async with serving(Gateway(load(sys.argv[1])).app) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

configure("critical")
asyncio.run(main())
"""


@contextlib.contextmanager
def process(config: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A gateway in a process of its own, killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(config)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        try:
            assert running.stdout
            url = running.stdout.readline().strip()
            assert url.startswith("http://"), "the gateway did not start"
            yield url, running
        finally:
            running.kill()
            running.wait()


class Ledger:
    """What a caller was acknowledged: per key its events in the order sent. What was under way when the gateway died
    may have been taken or not."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, list[str]] = {}
        self.unknown: set[tuple[str, str]] = set()
        self.stop = threading.Event()

    def send(self, url: str, name: str) -> None:
        """Sends the three events of one key after another until stopped or until the gateway dies."""
        with httpx.Client(timeout=5) as client:
            for number in range(100_000):
                key = f"{name}-{number}"
                for word in WORDS:
                    if self.stop.is_set() or not self._one(client, url, key, word):
                        return

    def _one(self, client: httpx.Client, url: str, key: str, word: str) -> bool:
        event = {"apiKey": KEY, "eventType": word, "summary": f"about {key}", "alertKey": key}
        try:
            answer = client.post(url + "/api/events", json=event)
        except httpx.HTTPError:
            self.unknown.add((key, word))
            return False
        assert answer.status_code == 202
        self.acknowledged.setdefault(key, []).append(word)
        return True


def configuration(directory: Path, upstream: Chaos, dialect: str = "ilert") -> Path:
    """A gateway in front of one upstream."""
    path = directory / "gateway.toml"
    path.write_text(
        f'store = "sqlite://{directory}/gateway.db"\n'
        f'[inbound.ilert]\nkeys = {{ ci = "{KEY}" }}\n'
        f'[upstreams.oncall]\ndialect = "{dialect}"\nurl = "{upstream.url}"\nkey = "upstream-key"\n'
        'retry = { first = "20ms", most = "200ms" }\nconcurrency = 16\n'
        'defaults = { resource = "mon_9" }\n'
    )
    return path


def killed_under_load(config: Path, ledger: Ledger, number: int) -> None:
    """Serves, is called by four callers at once, and is killed meanwhile."""
    with process(config) as (url, running):
        known = sum(len(words) for words in ledger.acknowledged.values())
        callers = [threading.Thread(target=ledger.send, args=(url, f"run{number}-{one}")) for one in range(4)]
        for caller in callers:
            caller.start()
        end = time.monotonic() + 10
        while sum(len(words) for words in list(ledger.acknowledged.values())) < known + 40 + 7 * number:
            assert time.monotonic() < end, "the gateway acknowledged nothing"
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        for caller in callers:
            caller.join(10)


def first_times(upstream: Chaos) -> dict[str, list[str]]:
    """Per key the events that arrived, without repeats, in order."""
    arrived: dict[str, list[str]] = {}
    for got in list(upstream.got):
        words = arrived.setdefault(got.body["alertKey"], [])
        if got.body["eventType"] not in words:
            words.append(got.body["eventType"])
    return arrived


def test_what_was_acknowledged_survives_kill_9_and_is_delivered_in_order(tmp_path: Path) -> None:
    ledger = Ledger()
    with chaos(CLOSE) as upstream:
        config = configuration(tmp_path, upstream)
        for number in range(KILLS):
            killed_under_load(config, ledger, number)
        upstream.got.clear()
        upstream.always(say(202, {}))
        with process(config):
            end = time.monotonic() + 30
            while not all(words == first_times(upstream).get(key, [])[: len(words)] for key, words in _now(ledger)):
                assert time.monotonic() < end, _missing(ledger, upstream)
                time.sleep(0.1)
        for key, words in first_times(upstream).items():
            assert words == list(WORDS[: len(words)]), f"{key} arrived as {words}"
            beyond = words[len(ledger.acknowledged.get(key, [])) :]
            assert all((key, word) in ledger.unknown for word in beyond), "something arrived that nobody sent"
    assert sum(len(words) for words in ledger.acknowledged.values()) >= KILLS * 40
    assert all(got.body["summary"] == f"about {got.body['alertKey']}" for got in upstream.got)


def _now(ledger: Ledger) -> list[tuple[str, list[str]]]:
    return list(ledger.acknowledged.items())


def _missing(ledger: Ledger, upstream: Chaos) -> str:
    arrived = first_times(upstream)
    lost = {key: words for key, words in _now(ledger) if words != arrived.get(key, [])[: len(words)]}
    return f"{len(lost)} keys of {len(ledger.acknowledged)} are not delivered, such as {list(lost.items())[:3]}"


def test_what_is_under_way_when_the_gateway_dies_is_sent_again_with_the_same_key(tmp_path: Path) -> None:
    """guarantees.md 4: a crash between send and record may repeat what was in flight, with the same key."""
    with chaos(say(202, {})) as upstream:
        config = configuration(tmp_path, upstream)
        dying: list[subprocess.Popen[str]] = []

        def kill(got: object) -> object:
            dying[0].send_signal(signal.SIGKILL)
            return say(202, {})

        with process(config) as (url, running):
            dying.append(running)
            upstream.answer = kill  # type: ignore[assignment]
            event = {"apiKey": KEY, "eventType": "ALERT", "summary": "s"}
            with contextlib.suppress(httpx.HTTPError):
                httpx.post(url + "/api/events", json=event, timeout=5)
            running.wait(5)
        assert len(upstream.got) == 1
        upstream.always(say(202, {}))
        with process(config):
            end = time.monotonic() + 10
            while len(upstream.got) < 2:
                assert time.monotonic() < end, "it was not sent again"
                time.sleep(0.02)
            time.sleep(0.3)
        first, *others = [got.body["alertKey"] for got in upstream.got]
        assert first and others == [first]


def test_a_fallback_whose_turn_is_yet_to_come_is_not_taken_for_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """Its delivery is of the time of its turn, and the last one that waits."""
    route = '[[routes]]\nto = ["oncall"]\nfallback = { to = ["sms"], after = "1h" }\n'
    with chaos(say(503)) as oncall, chaos(OK) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=route) as h:
            page(h)
            times = {one.upstream: one.created_at for one in outbox(h)}
        with before(tmp_path, *both, routes=route) as h:
            h.wait_for(lambda: len(oncall.got) >= 2)
            assert {one.upstream: one.created_at for one in outbox(h)} == times
        assert sms.connections == 0


def test_a_fallback_whose_turn_is_yet_to_come_is_moved_with_a_clock_that_was_set_back(tmp_path: Path) -> None:
    month, hour = 30 * 86_400_000, 3_600_000
    route = '[[routes]]\nto = ["oncall"]\nfallback = { to = ["sms"], after = "1h" }\n'
    with chaos(say(503)) as oncall, chaos(OK) as sms:
        both = table("oncall", oncall.url, "ilert", ""), table("sms", sms.url, "ilert", "")
        with before(tmp_path, *both, routes=route) as h:
            page(h)
        with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection, connection:
            connection.execute("UPDATE commands SET at = at + ?", (month,))  # as a clock that was ahead had it
            SqliteTx(connection).shift_waiting(month)
        with before(tmp_path, *both, routes=route) as h:
            [turn] = [one for one in outbox(h) if one.upstream == "sms"]
            assert hour - 60_000 < turn.due - int(time.time() * 1000) <= hour
        assert sms.connections == 0


def test_what_waits_is_sent_though_the_clock_was_set_back_while_nothing_ran(tmp_path: Path) -> None:
    """The machine does not keep the time: all that is stored is of the next month."""
    month = 30 * 86_400_000
    with chaos(say(503)) as upstream:
        oncall = table("oncall", upstream.url, "ilert", "")
        with before(tmp_path, oncall) as h:
            page(h)
            h.wait_for(lambda: [row for row in outbox(h) if row.attempts])
        with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection, connection:
            connection.execute("UPDATE commands SET at = at + ?", (month,))
            SqliteTx(connection).shift_waiting(month)
        upstream.always(say(202, {}))
        with before(tmp_path, oncall) as h:
            settled(h)


def test_a_restart_brings_no_long_pause_to_an_early_end(tmp_path: Path) -> None:
    """Three hours are longer than any upstream may ask for, but the configuration may."""
    with chaos(say(503)) as upstream:
        oncall = table("oncall", upstream.url, "ilert", "", first="3h")
        with before(tmp_path, oncall) as h:
            page(h)
            h.wait_for(lambda: [row for row in outbox(h) if row.attempts])
        with contextlib.closing(apsw.Connection(h.gateway.config.store)) as connection, connection:
            connection.execute("UPDATE deliveries SET due = created_at + ?", (3 * 3_600_000,))
        [asked] = outbox(h)
        with before(tmp_path, oncall) as h:
            assert [row.due for row in outbox(h)] == [asked.due]
