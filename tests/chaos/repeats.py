"""Promise 4: at least once, with the same key or id on every attempt. Upstreams accept a request and then reset, cut
off, hang, or answer with a fault; what arrives again must have the key it had before. Where an upstream issues ids and
can be read, nothing is made twice, even if it carries some requests out only after it answered with a fault. Then
gateways are killed while upstreams hold their answers back: at most what was in flight is repeated, and where the
upstream can be read nothing is made twice.

    python -m tests.chaos.repeats --pages 1000 --crashes 10
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from gateway.logs import configure
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import CUT, HANG, RESET_AFTER, Behaviour, Got, chaos, say
from tests.engine.test_restart import configuration, process
from tests.engine.vendors import Ibm, Uptinio, Vendor, before, outbox, page, table, writes
from tests.harness import KEY, House

LATE = 0.3
"""Seconds after which a request is carried out whose sender was told of a fault at once."""
LOST: tuple[Behaviour, ...] = (RESET_AFTER, CUT, HANG, say(500), say(502), say(504))
CONCURRENCY = 16
"""Concurrency of the gateways that are killed: so many requests may be in flight."""


class Losing:
    """An upstream that accepts everything, but loses some of its answers."""

    def __init__(self, vendor: Vendor | None, seed: int) -> None:
        self._vendor = vendor
        self._chance = random.Random(seed)
        self.lost = self.late = 0

    def __call__(self, got: Got) -> Behaviour:
        """Accepts a request, and then answers it or loses the answer; or the other way about."""
        if self._vendor and got.method == "POST" and self._chance.random() < 0.03:
            threading.Timer(LATE, self._vendor, [got]).start()
            self.late += 1
            return say(504)
        answer = self._vendor(got) if self._vendor else say(202, {})
        if got.method == "GET" or self._chance.random() >= 0.3:
            return answer
        self.lost += 1
        return LOST[self._chance.choices(range(len(LOST)), (4, 4, 1, 3, 3, 3))[0]]


def measure(pages: int, crashes: int, seed: int) -> Result:
    """Tests lost answers, then crashes."""
    figures: dict[str, Any] = {"pages": pages}
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        _lost_answers(Path(directory), pages, seed, figures, broken)
    if crashes:
        with tempfile.TemporaryDirectory() as directory:
            _crashes(Path(directory), crashes, figures, broken)
        with tempfile.TemporaryDirectory() as directory:
            _crashes_by_id(Path(directory), crashes, figures, broken)
    return Result("4", figures, broken)


def _lost_answers(directory: Path, pages: int, seed: int, figures: dict[str, Any], broken: list[str]) -> None:
    uptinio, ibm = Uptinio(), Ibm()
    losing = [Losing(None, seed), Losing(uptinio, seed + 1), Losing(ibm, seed + 2)]
    with contextlib.ExitStack() as stack:
        by_key, by_id, by_name = [stack.enter_context(chaos(one)) for one in losing]
        tables = [
            table("bykey", by_key.url, "ilert", timeout="500ms"),
            table("byid", by_id.url, "uptinio", timeout="500ms"),
            table("byname", by_name.url, "ibm_monitoring", timeout="500ms"),
        ]
        with before(directory, *tables, routes='[[routes]]\nto = ["bykey", "byid", "byname"]\n') as h:
            _send(h, pages)
            h.wait_for(lambda: not outbox(h, "waiting"), 120 + pages)  # one retry a second, and one for five pages
            lost = [row.reason for row in outbox(h, "dead")]
        keys = Counter(got.body["alertKey"] for got in by_key.got)
        invented = [key for key in keys if not key.startswith("key-")]
        figures |= {
            "answers lost": sum(one.lost for one in losing),
            "carried out late": sum(one.late for one in losing),
            "keys": len(keys),
            "same key": f"{100 * min(1.0, pages / len(keys)):.0f} %",
            "repeats by key": sum(keys.values()) - pages,
            "made twice by id": len(uptinio.held) - pages + len(ibm.held) - pages,
        }
        if len(keys) != pages or len(invented) != pages // 2:
            broken.append(f"{pages} pages arrived under {len(keys)} keys, {len(invented)} of them invented")
        if len(uptinio.held) != pages or len(ibm.held) != pages:
            broken.append(f"{pages} pages became {len(uptinio.held)} and {len(ibm.held)} alerts")
        if lost:
            broken.append(f"{len(lost)} are dead letters, such as {lost[0][:100]}")
        if not any(count > 1 for count in keys.values()) or len(writes(by_id)) < pages:
            broken.append("nothing was sent again, so nothing was tested")


def _send(h: House, pages: int) -> None:
    """Sends pages, half of them with a key, half with one that the gateway has to invent; no two alike."""
    for number in range(pages):
        if number % 2:
            assert page(h, f"key-{number}", summary=f"page {number}").status == 202
        else:
            event = {"apiKey": KEY, "eventType": "ALERT", "summary": f"page {number}"}
            assert h.call("POST", "/ilert/api/events", event, key=None).status == 202


def _crashes(directory: Path, crashes: int, figures: dict[str, Any], broken: list[str]) -> None:
    """Kills gateways while the upstream has received what is in flight and holds back every answer."""
    with chaos(HANG) as upstream:
        config = configuration(directory, upstream)
        sent = 0
        for _ in range(crashes):
            upstream.always(HANG)
            before_it = len(upstream.got)
            with process(config) as (url, running), httpx.Client(timeout=5) as client:
                for _ in range(2 * CONCURRENCY):
                    event = {"apiKey": KEY, "eventType": "ALERT", "summary": f"page {sent}", "alertKey": f"key-{sent}"}
                    assert client.post(url + "/api/events", json=event).status_code == 202
                    sent += 1
                _until(lambda most=before_it + CONCURRENCY: len(upstream.got) >= most)
                running.send_signal(signal.SIGKILL)
                running.wait(5)
            upstream.always(say(202, {}))
            with process(config):
                _until(lambda most=sent: len({got.body["alertKey"] for got in list(upstream.got)}) >= most)
                time.sleep(0.5)
        keys = Counter(got.body["alertKey"] for got in upstream.got)
        repeats = sum(keys.values()) - len(keys)
        figures |= {"crashes": crashes, "repeats": f"{repeats} of at most {crashes * CONCURRENCY}"}
        if len(keys) != sent or repeats > crashes * CONCURRENCY or not repeats:
            broken.append(f"{sent} pages arrived under {len(keys)} keys, {repeats} repeats")


def _crashes_by_id(directory: Path, crashes: int, figures: dict[str, Any], broken: list[str]) -> None:
    """The same where alerts are found by the upstream's ids, as far as it answers reads."""
    there, sent = Uptinio(), 0
    with chaos(there) as upstream:
        config = configuration(directory, upstream, "uptinio")
        for _ in range(crashes):
            upstream.answer = lambda got: there(got) if got.method == "GET" else (there(got), HANG)[1]
            most = len(there.held) + CONCURRENCY
            with process(config) as (url, running), httpx.Client(timeout=5) as client:
                for _ in range(2 * CONCURRENCY):
                    event = {"apiKey": KEY, "eventType": "ALERT", "summary": f"page {sent}", "alertKey": f"key-{sent}"}
                    assert client.post(url + "/api/events", json=event).status_code == 202
                    sent += 1
                _until(lambda most=most: len(there.held) >= most)
                running.send_signal(signal.SIGKILL)
                running.wait(5)
            upstream.answer = there
            with process(config):
                _until(lambda most=sent: len({held["message"] for held in list(there.held.values())}) >= most)
                time.sleep(0.5)
    figures["made twice by id after a crash"] = len(there.held) - sent
    if len(there.held) != sent:
        broken.append(f"{sent} pages became {len(there.held)} alerts")


def _until(condition: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"did not come to be within {seconds} s")
        time.sleep(0.01)


def main() -> int:
    """The command."""
    configure("critical")
    asked = numbers(__doc__ or "", pages=1000, crashes=10, seed=1)
    return measure(asked.pages, asked.crashes, asked.seed).tell()


if __name__ == "__main__":
    sys.exit(main())
