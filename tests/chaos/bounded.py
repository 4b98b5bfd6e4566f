"""Promise 7: every attempt is bounded, whatever the upstream does: it ends at most half a second after its deadline,
and of a reply at most 64 KiB are read. Every misbehaviour is an upstream of its own behind one gateway, all at once and
under load, beside a sound one that must get everything.

    python -m tests.chaos.bounded --pages 300
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import apsw

from gateway.config.loading import parse
from gateway.delivery.attempt import Client
from gateway.logs import configure
from gateway.outcome import Delivered, Outcome, Request, Response
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import (
    BAD_CHUNKS,
    CLOSE,
    CUT,
    DRIP,
    DRIP_HEADERS,
    ENDLESS_CHUNKS,
    ENDLESS_HEADER,
    ENDLESS_HEADERS,
    GARBAGE,
    HALF_CLOSED,
    HALF_CLOSED_AT_ONCE,
    HANG,
    INTERIM,
    NOT_JSON,
    RESET_AFTER,
    RESET_BEFORE,
    TWO_LENGTHS,
    Behaviour,
    Chaos,
    chaos,
    gzip_bomb,
    huge,
    redirect,
    say,
)
from tests.engine.vendors import before, page, table

TIMEOUT = 1.0
SLACK = 0.5
MOST_READ = 64 * 1024
SOUND = say(202, {})
MODES: tuple[Behaviour, ...] = (
    HANG,
    DRIP,
    DRIP_HEADERS,
    RESET_BEFORE,
    RESET_AFTER,
    CLOSE,
    GARBAGE,
    CUT,
    INTERIM,
    ENDLESS_HEADERS,
    ENDLESS_HEADER,
    BAD_CHUNKS,
    ENDLESS_CHUNKS,
    HALF_CLOSED,
    HALF_CLOSED_AT_ONCE,
    TWO_LENGTHS,
    NOT_JSON,
    huge(10**9, []),
    gzip_bomb(10**8),
    say(503),
)


def certificate(directory: Path) -> ssl.SSLContext | None:
    """Makes a self-signed certificate; returns a server's TLS context with it, None if there is no openssl."""
    if not shutil.which("openssl"):
        return None
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(made.split(), cwd=directory, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


@contextlib.contextmanager
def misbehaving(directory: Path, stack: contextlib.ExitStack) -> Generator[dict[str, str]]:
    """Runs an upstream for each misbehaviour; yields name → address."""
    found = {}
    for number, mode in enumerate(MODES):
        found[f"m{number:02} {mode.name}"] = stack.enter_context(chaos(mode)).url
    loop = stack.enter_context(chaos(SOUND))
    loop.always(redirect(loop.url + "/api/events", 307))
    found["a loop of redirects"] = loop.url
    silent = Behaviour("silent", HANG.act, reads=False)
    found["TLS without a handshake"] = stack.enter_context(chaos(silent)).url.replace("http:", "https:")
    found["plain text instead of TLS"] = stack.enter_context(chaos(SOUND)).url.replace("http:", "https:")
    if context := certificate(directory):
        found["TLS with an untrusted certificate"] = stack.enter_context(chaos(SOUND, context=context)).url
    found["nothing listens"] = "http://127.0.0.1:1"
    yield found


def _name(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title)


def measure(pages: int, seconds: float, slack: float = SLACK) -> Result:
    """Sends `pages` pages to all upstreams at once; then measures how much each of them makes a client read. `slack` is
    by how many seconds an attempt may miss its deadline."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        found = stack.enter_context(misbehaving(Path(directory), stack))
        sound = stack.enter_context(chaos(SOUND))
        urls = {"sound": sound.url, **{_name(title): url for title, url in found.items()}}
        tables = [table(name, url, "ilert", first="200ms", timeout=f"{TIMEOUT:g}s") for name, url in urls.items()]
        routes = f"[[routes]]\nto = {list(urls)}\n"
        with before(Path(directory), *tables, routes=routes) as h:
            ends = time.monotonic() + seconds
            for number in range(pages):
                assert page(h, f"key-{number}").status == 202
                time.sleep(max(0.0, (ends - time.monotonic()) / (pages - number) * 0.8))
            h.wait_for(lambda: len(sound.got) >= pages, 30)
            time.sleep(max(TIMEOUT + slack, ends - time.monotonic()))
            took = _took(h.gateway.config.store)
            is_alive = h.client.get(h.url + "/-/healthy").status_code == 200
        read = asyncio.run(kept_of_each())
    return _result(took, (TIMEOUT + slack) * 1000, read, len(urls) - 1, len(sound.got), pages, is_alive)


def _took(store: str) -> list[tuple[str, int]]:
    """Returns how many milliseconds each attempt took, with its upstream."""
    with contextlib.closing(apsw.Connection(store)) as connection:
        joined = "SELECT d.upstream, a.took FROM attempts a JOIN deliveries d ON d.id = a.delivery"
        return [(str(name), int(took)) for name, took in connection.execute(joined)]


async def kept_of_each() -> dict[str, int]:
    """Returns how many bytes of a reply a call is shown, by misbehaviour."""
    with contextlib.ExitStack() as stack:
        upstreams = [stack.enter_context(chaos(mode)) for mode in MODES]
        sizes = await asyncio.gather(*(_kept(upstream) for upstream in upstreams))
    return {mode.name: size for mode, size in zip(MODES, sizes, strict=True)}


async def _kept(upstream: Chaos) -> int:
    text = f'[inbound.ilert]\nkeys = {{ ci = "k" }}\n{table("there", upstream.url, "ilert", "", timeout="1s")}'
    client = Client(parse(text).upstreams["there"])
    shown: list[Response] = []

    def call() -> Generator[Request, Response, Outcome]:
        shown.append((yield Request(method="POST", path="/api/events", body={})))
        return Delivered()

    try:
        await client.run(call())
    finally:
        await client.aclose()
    return len(shown[0].content) if shown else 0


def _result(
    took: list[tuple[str, int]], most: float, read: dict[str, int], modes: int, arrived: int, pages: int, is_alive: bool
) -> Result:
    late = Counter(name for name, milliseconds in took if milliseconds > most)
    tried = {name for name, _ in took}
    broken = [f"{name} took longer than {most:g} ms {count} times" for name, count in late.items()]
    broken += [f"of {name} {size} bytes were read" for name, size in read.items() if size > MOST_READ]
    if len(tried) < modes + 1:
        broken.append(f"only {len(tried) - 1} of {modes} misbehaviours were tried")
    if arrived != pages or not is_alive:
        broken.append(f"the sound upstream got {arrived} of {pages}, alive {is_alive}")
    figures = {
        "misbehaviours": modes,
        "attempts": len(took),
        "longest": f"{max(milliseconds for _, milliseconds in took)} ms of {most:g}",
        "most read": f"{max(read.values())} bytes",
        "sound deliveries": f"{arrived} of {pages}",
    }
    return Result("7", figures, broken)


def main() -> int:
    """The command."""
    configure("critical")
    asked = numbers(__doc__ or "", pages=300, seconds=60)
    return measure(asked.pages, asked.seconds).tell()


if __name__ == "__main__":
    sys.exit(main())
