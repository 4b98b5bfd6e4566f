"""Promise 18: hostile HTTP through raw sockets. Requests that could be read in two ways, and thousands that are made
from good ones by changing bytes, go to a gateway in a process of its own, which waits only a moment for the rest of a
request: no answer is a 5xx of its own making, as many alerts are stored as answers said so, memory stays flat, and it
goes on serving. The limits are then measured at another: 32 KiB of headers, 10 s for them, 30 s for a body, 1 MiB of
it, 64 levels.

    python -m tests.chaos.hostile --connections 20000 --slow 1
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.processes import GATEWAY, UPSTREAM_KEY, Process, free_port
from tests.chaos.result import Result, numbers
from tests.engine.test_hostile import AMBIGUOUS, AUTH, HEAD, POST
from tests.harness import KEY
from tests.raw import Heard, request, wire

MEBIBYTE = 1 << 20
HASTY = ("-m", "tests.chaos.hasty")
AT_A_TIME = 16
MOST_MEMORY = 24 * MEBIBYTE
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"-1", b"\xff", b"HTTP/1.1",
    b"GET / HTTP/1.1\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n",
    b"Connection: Transfer-Encoding\r\n", b"Host: x\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"[" * 100, b'"', b"\\u0000",
)  # fmt: skip


def changed(chance: random.Random) -> bytes:
    """Returns a request with up to three random changes."""
    said = bytearray(POST if chance.random() < 0.6 else chance.choice(list(AMBIGUOUS.values())))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(said) + 1)
        act = chance.randrange(4)
        if act == 0:
            said[at:at] = chance.choice(PIECES)
        elif act == 1:
            del said[at : at + chance.randrange(1, 12)]
        elif act == 2 and at < len(said):
            said[at] = chance.randrange(256)
        else:
            other = chance.randrange(len(said) + 1)
            said[at:at] = said[other : other + chance.randrange(1, 40)]
    return bytes(said)


@contextlib.contextmanager
def serving(directory: Path, program: tuple[str, ...]) -> Iterator[Process]:
    """Runs a gateway in front of an upstream that is down; yields it once it is ready."""
    directory.mkdir()
    config = directory / "gateway.toml"
    config.write_text(
        f'store = "sqlite://{directory / "gateway.db"}"\n'
        f'[inbound.uptinio]\nkeys = {{ ops = "{KEY}" }}\nreply = "accepted"\n'
        f'[upstreams.oncall]\ndialect = "uptinio"\nurl = "http://127.0.0.1:9"\nkey = "{UPSTREAM_KEY}"\n'
    )
    process = Process(config, free_port(), program=program, log_level="error")
    try:
        asyncio.run(process.ready())
        yield process
    finally:
        process.kill()


def alerts(gateway: Process) -> int:
    """Returns how many alerts the caller has."""
    answer = httpx.get(f"{gateway.url}/uptinio/alerts", headers=dict([AUTH.split(": ")]), timeout=30)
    return int(answer.json()["meta"]["total"])


def memory(gateway: Process) -> int:
    """Returns the resident memory of a gateway, in bytes."""
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def meddled(gateway: Process, connections: int, seed: int, seen: Counter[int]) -> list[str]:
    """Sends changed requests over `connections` connections, some at a time; returns what went wrong."""
    chance = random.Random(seed)
    said = [changed(chance) for _ in range(connections)]
    with ThreadPoolExecutor(AT_A_TIME) as callers:
        answers = list(callers.map(lambda one: _answers(gateway, one), said))
    seen.update(status for statuses, _ in answers for status in statuses)
    return [wrong for _, wrong in answers if wrong]


def _answers(gateway: Process, said: bytes) -> tuple[list[int], str]:
    """Returns the statuses of all answers until the connection is closed, and what is wrong with them."""
    found: list[int] = []
    try:
        with wire(gateway.url, timeout=8) as connection:
            connection.say(said)
            while (answer := connection.hear()) is not None:
                found.append(answer.status)
    except (OSError, ValueError, IndexError) as error:
        return found, f"{type(error).__name__} at {said[:200]!r}"
    return found, f"{max(found)} to {said[:200]!r}" if any(status >= 500 for status in found) else ""


def _said(gateway: Process, *pieces: bytes, timeout: float = 5.0) -> tuple[Heard | None, float]:
    """Sends these bytes; returns the answer, and after how many seconds it came."""
    with wire(gateway.url, timeout=timeout) as connection:
        connection.say(*pieces)
        began = time.monotonic()
        return connection.hear(), time.monotonic() - began


def limits(gateway: Process) -> dict[str, bool]:
    """Returns whether each limit is as documented: a request just within it is accepted, one just beyond it is not."""
    nested = [
        b'{"monitor_id": "m", "type": "down", "message": "m", "x": ' + b"[" * n + b"]" * n + b"}" for n in (63, 64)
    ]
    empty = b'{"monitor_id": "m", "type": "down", "message": "m", "x": ""}'
    bodies = [empty.replace(b'""', b'"' + b"a" * (MEBIBYTE - len(empty) + more) + b'"') for more in (0, 1)]
    kib = [f"X: {'a' * size}" for size in (32 * 1024 - 200, 33 * 1024)]
    return {
        "headers": _statuses(gateway, [request("GET", "/uptinio/alerts", None, AUTH, one) for one in kib])
        == [200, 431],
        "depth": _statuses(gateway, [request("POST", "/uptinio/alerts", one, AUTH) for one in nested]) == [201, 400],
        "body": _statuses(gateway, [request("POST", "/uptinio/alerts", one, AUTH) for one in bodies]) == [201, 413],
    }


def _statuses(gateway: Process, requests: list[bytes]) -> list[int | None]:
    answers = [_said(gateway, one)[0] for one in requests]
    return [answer.status if answer else None for answer in answers]


def slow(gateway: Process) -> dict[str, bool]:
    """Returns whether headers get 10 s and a body 30 s, even if they keep dripping in; measures both at once."""
    found: dict[str, bool] = {}

    def drip(name: str, begun: bytes, seconds: float) -> None:
        with wire(gateway.url, timeout=seconds + 5) as connection:
            connection.say(begun)
            over, began = threading.Event(), time.monotonic()

            def more() -> None:
                while not over.wait(0.5) and connection.say(b" "):
                    pass

            dripping = threading.Thread(target=more)
            dripping.start()
            answer = connection.hear()
            took = time.monotonic() - began
            over.set()
            dripping.join(5)
            found[name] = answer is not None and answer.status == 408 and seconds - 0.5 <= took <= seconds + 2

    each = [("headers in 10 s", HEAD + b"X: ", 10.0), ("body in 30 s", HEAD + b"Content-Length: 600\r\n\r\n", 30.0)]
    threads = [threading.Thread(target=drip, args=one) for one in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return {name: found.get(name, False) for name, *_ in each}


def measure(connections: int, seed: int, *, is_slow: bool, usual: tuple[str, ...] = GATEWAY) -> Result:
    """Sends changed requests, then measures the limits."""
    seen: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        with serving(Path(directory) / "hasty", HASTY) as gateway:
            answers = {name: _said(gateway, said)[0] for name, said in AMBIGUOUS.items()}
            wrong = [f"{name} is taken" for name, one in answers.items() if one is not None and one.status != 400]
            wrong += meddled(gateway, connections // 10, seed + 1, Counter())  # fills caches beforehand
            held, before = memory(gateway), alerts(gateway)
            began = time.monotonic()
            wrong += meddled(gateway, connections, seed, seen)
            per_second = connections / (time.monotonic() - began)
            stored, grown = alerts(gateway) - before, memory(gateway) - held
            is_alive = httpx.get(gateway.url + "/-/ready").status_code == 200
        with serving(Path(directory) / "usual", usual) as gateway:
            kept = {**limits(gateway), **(slow(gateway) if is_slow else {})}
    if stored != seen[201]:
        wrong.append(f"{seen[201]} answers said 201, {stored} alerts are stored")
    if grown > MOST_MEMORY + 2048 * stored:
        wrong.append(f"{grown >> 20} MiB more are held")
    wrong += [f"the limit of {name} is not the documented one" for name, is_kept in kept.items() if not is_kept]
    figures: dict[str, Any] = {
        "connections": connections + len(AMBIGUOUS),
        **{str(status): count for status, count in sorted(seen.items())},
        "stored": stored,
        "memory": f"+{grown / MEBIBYTE:.1f} MiB",
        "limits kept": f"{sum(kept.values())} of {len(kept)}",
        "a second": round(per_second),
    }
    return Result("18", figures, wrong[:4] + ([] if is_alive else ["it no longer serves"]))


def main() -> int:
    """The command."""
    asked = numbers(__doc__ or "", connections=20_000, seed=1, slow=1)
    return measure(asked.connections, asked.seed, is_slow=bool(asked.slow)).tell()


if __name__ == "__main__":
    sys.exit(main())
