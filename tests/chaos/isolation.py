"""Promise 8: one bad upstream never slows another, DNS included. Pages go to two upstreams; how long each takes to
arrive at the sound one is measured while the other is sound too, while it hangs, and while its name cannot be looked
up, in turns, so that whatever slows the machine affects all alike.

    python -m tests.chaos.isolation --pages 2000
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from gateway.logs import configure
from tests.chaos.result import Result, numbers, percentile
from tests.chaos_upstream import HANG, chaos, say
from tests.engine.vendors import before, page, table

OK = say(202, {})
MOST = 1.2
NOISE = 0.005
"""Seconds by which two measurements of the same thing may differ on a machine that is shared."""
PACE = 0.01
NOWHERE = "nowhere.invalid"


@contextlib.contextmanager
def lookups_that_hang(name: str) -> Iterator[threading.Event]:
    """Makes every lookup of this name wait until the block ends; the event is set at the first."""
    over, asked = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def hanging(host: Any, *more: Any, **named: Any) -> Any:
        if host in (name, name.encode()):
            asked.set()
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answered")
        return real(host, *more, **named)

    with mock.patch.object(socket, "getaddrinfo", hanging):
        try:
            yield asked
        finally:
            over.set()


def delays(directory: Path, pages: int, fault: str) -> list[float]:
    """Returns the seconds from sending each page to its arrival at the sound upstream, with a fault at the other."""
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(lookups_that_hang(NOWHERE)) if fault == "lookup" else None
        other, sound = stack.enter_context(chaos(HANG if fault == "hang" else OK)), stack.enter_context(chaos(OK))
        url = f"http://{NOWHERE}:1" if fault == "lookup" else other.url
        by_name = sound.url.replace("127.0.0.1", "localhost")
        tables = [table("other", url, "ilert", timeout="3s"), table("sound", by_name, "ilert")]
        with before(directory, *tables, routes='[[routes]]\nto = ["other", "sound"]\n') as h:
            for number in range(20):
                page(h, f"warm-{number}")
            h.wait_for(lambda: len(sound.got) >= 20 or (asked and asked.is_set()), 15)
            sent = {}
            for number in range(pages):
                sent[f"key-{number}"] = time.monotonic()
                page(h, f"key-{number}")
                time.sleep(max(0.0, sent[f"key-{number}"] + PACE - time.monotonic()))
            with contextlib.suppress(AssertionError):
                h.wait_for(lambda: len(sound.got) >= pages + 20, 10)
            ended = time.monotonic()
            arrived = {got.body["alertKey"]: got.at for got in list(sound.got)}
            if asked:
                stack.pop_all().close()
    return [arrived.get(key, ended) - at for key, at in sent.items()]


def compare(directory: Path, pages: int, fault: str, turns: int = 2) -> tuple[float, float]:
    """Returns the 99th percentile of the delays without the fault and with it."""
    usual: list[float] = []
    faulty: list[float] = []
    for turn in range(turns):
        usual += delays(_room(directory, f"{fault}-usual-{turn}"), pages // turns, "")
        faulty += delays(_room(directory, f"{fault}-{turn}"), pages // turns, fault)
    return percentile(usual, 0.99), percentile(faulty, 0.99)


def _room(directory: Path, name: str) -> Path:
    room = directory / name
    room.mkdir()
    return room


def measure(pages: int) -> Result:
    """Measures both faults, each against its own baseline."""
    figures: dict[str, object] = {"pages": 4 * pages}
    broken = []
    with tempfile.TemporaryDirectory() as directory:
        for fault, title in (("hang", "hanging"), ("lookup", "hanging lookup")):
            usual, faulty = compare(Path(directory), pages, fault)
            figures[title] = f"p99 {faulty * 1000:.1f} ms, baseline {usual * 1000:.1f} ms"
            if faulty > usual * MOST + NOISE:
                broken.append(f"{title}: {faulty / usual:.1f} times its baseline")
    return Result("8", figures, broken)


def main() -> int:
    """The command."""
    configure("critical")
    return measure(numbers(__doc__ or "", pages=2000).pages).tell()


if __name__ == "__main__":
    sys.exit(main())
