"""Promise 19: wrong, absent and rotated credentials are refused with the vendor's status, 401 at most of them, in its
words, and never with a 5xx; while a key is rotated both are let in, and no caller with a good one is ever refused; the
time of a comparison reveals nothing.

    python -m tests.chaos.credentials --attempts 20000
"""

from __future__ import annotations

import base64
import random
import statistics
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gateway.config.secrets import Keyring, Secret
from gateway.dialect import CREDENTIAL, Dialect
from gateway.errors import Problem, ProblemKind
from gateway.logs import configure
from gateway.registry import dialects
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import chaos, say
from tests.engine.vendors import table
from tests.harness import KEY, House, house

NEARLY = (KEY[:-1], KEY + "0", KEY.upper(), KEY[1:], " " + KEY + "x", KEY[::-1], "x" * 8000, "%", "\x7f", "null", "*")
SCHEMES = (
    "Bearer {}",
    "bearer  {}",
    "{}",
    "Basic {}",
    "Token {}",
    "Bearer {} x",
    "Bearer",
    "",
    "{}, {}",
    "apiToken {}",
)
MOST_RATIO = 1.5
"""By what factor the times of two wrong keys may differ on a shared machine; with a comparison that stops at the first
difference they differ by far more over a key of some kilobytes."""


def wrong_key(chance: random.Random) -> str:
    """Returns a credential that no caller has."""
    if chance.random() < 0.5:
        return chance.choice(NEARLY)
    letters = string.printable[:94] if chance.random() < 0.8 else "\xe9\xff\xa0\x80"
    return "".join(chance.choice(letters) for _ in range(chance.randrange(1, 60)))


def _headers(chance: random.Random, key: str) -> list[tuple[bytes, bytes]]:
    scheme = chance.choice(SCHEMES)
    text = base64.b64encode(f"user:{key}".encode()).decode() if scheme.startswith("Basic") else key
    value = scheme.replace("{}", text)
    if chance.random() < 0.1:
        return []
    return [(b"authorization", value.strip().encode("latin-1", "replace"))]


def _body(chance: random.Random, key: str, dialect: Dialect) -> dict[str, Any]:
    body: dict[str, Any] = {"eventType": "ALERT", "summary": "s", "message": "m", "name": "n"}
    if dialect.credential_in_body:
        offered: tuple[Any, ...] = (key, key, key, None, 7, [key], {"a": key}, "", True)
        body[chance.choice(("apiKey", "integrationKey"))] = chance.choice(offered)
    return body


def attempt(h: House, client: httpx.Client, chance: random.Random) -> tuple[str, int, bool]:
    """Makes a call with an unknown credential; returns dialect, status, and whether the answer is like the vendor's. A
    body that cannot be read is 400."""
    dialect = chance.choice(list(dialects().values()))
    route = chance.choice(dialect.routes)
    key = wrong_key(chance)
    path = f"/{dialect.name}{route.path}".replace("{id}", "7").replace("{alert_id}", "7")
    path = path.replace(f"{{{CREDENTIAL}}}", quote(key, safe="") or "none")
    json = _body(chance, key, dialect) if route.method in ("POST", "PUT", "PATCH") else None
    answer = client.request(route.method, h.url + path, headers=_headers(chance, key), json=json)
    usual = dialect.problem(Problem(ProblemKind.UNAUTHORIZED, "m"))
    alike = answer.status_code in (400, usual.status) and answer.headers["content-type"] == "application/json"
    alike = alike and isinstance(answer.json(), dict)
    alike = alike and isinstance(usual.body, dict) and set(answer.json()) == set(usual.body)
    return dialect.name, answer.status_code, alike


def timing(rounds: int) -> tuple[float, float]:
    """Returns how many times as long a key that is right up to its last letter takes as one that is wrong from its
    first: for the keyring, and for a comparison letter by letter, which must be detected."""
    right = "k" * 4096
    ring = Keyring({"ci": [Secret(right)]})
    near, far = right[:-1] + "x", "x" + right[1:]

    def naive(offered: str) -> bool:
        return all(one == other for one, other in zip(offered, right, strict=True))

    return _ratio(ring.caller, near, far, rounds), _ratio(naive, near, far, max(20, rounds // 20))


def _ratio(compare: Callable[[str], object], near: str, far: str, rounds: int) -> float:
    took: dict[str, list[int]] = {near: [], far: []}
    for _ in range(rounds):
        for offered in (near, far):
            began = time.perf_counter_ns()
            compare(offered)
            took[offered].append(time.perf_counter_ns() - began)
    return statistics.median(took[near]) / statistics.median(took[far])


def rotation(directory: Path, url: str, turns: int) -> tuple[int, list[str]]:
    """Replaces keys in their files, old and new side by side first; returns the calls made, and what failed."""
    old, new = directory / "old", directory / "new"
    old.write_text("key-number-0\n")
    new.write_text("key-number-0\n")
    text = f'[inbound.uptinio]\nkeys = {{ ci = ["file:{new}", "file:{old}"] }}\n' + table("oncall", url, "ilert")
    calls, wrong = 0, []
    with house(directory, config=lambda _: text) as h:
        for turn in range(1, turns + 1):
            replacement = directory / "next"
            replacement.write_text(f"key-number-{turn}\n")
            replacement.rename(new)
            for key, status in ((turn, 200), (turn - 1, 200), (turn - 2, 401)):
                calls += 1
                found = h.call("GET", "/uptinio/alerts", key=f"key-number-{key}").status
                if found != status:
                    wrong.append(f"key {key} at turn {turn}: {found}")
            replacement.write_text(f"key-number-{turn}\n")
            replacement.rename(old)
    return calls, wrong


def measure(attempts: int, seed: int) -> Result:
    """Tests wrong keys, rotated keys, and timing."""
    chance, seen = random.Random(seed), Counter[int]()
    broken: list[str] = []
    inbounds = "".join(f'[inbound.{name}]\nkeys = {{ ci = "{KEY}" }}\n' for name in dialects())
    with tempfile.TemporaryDirectory() as directory, chaos(say(202, {})) as upstream:
        text = inbounds + table("oncall", upstream.url, "ilert")
        with house(Path(directory), config=lambda _: text) as h, httpx.Client(timeout=10) as client:
            for _ in range(attempts):
                name, status, alike = attempt(h, client, chance)
                seen[status] += 1
                if not alike:
                    broken.append(f"{name} answered {status}, or in other words than its vendor's")
        reached = len(upstream.got)
        (room := Path(directory) / "rotation").mkdir()
        calls, wrong = rotation(room, upstream.url, max(5, attempts // 200))
    ratio, naive = timing(max(300, attempts // 4))
    if reached:
        broken.append(f"{reached} requests with wrong keys reached the upstream")
    if not 1 / MOST_RATIO < ratio < MOST_RATIO:
        broken.append(f"a key that is nearly right takes {ratio:.2f} times as long")
    if naive < MOST_RATIO:
        broken.append("the comparison letter by letter was not detected")
    figures = {
        "strangers": attempts,
        **{str(status): count for status, count in sorted(seen.items())},
        "reached the upstream": reached,
        "calls while rotating": calls,
        "wrongly judged": len(wrong),
        "nearly right against wrong": f"{ratio:.2f} in time (letter by letter {naive:.0f})",
    }
    return Result("19", figures, (broken + wrong)[:4])


def main() -> int:
    """The command."""
    configure("critical")
    asked = numbers(__doc__ or "", attempts=20_000, seed=1)
    return measure(asked.attempts, asked.seed).tell()


if __name__ == "__main__":
    sys.exit(main())
