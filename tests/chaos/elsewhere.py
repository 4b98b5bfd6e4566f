"""Promise 20: addresses come from the configuration alone. Redirects to every kind of place, the metadata addresses of
clouds among them, and alerts full of addresses go through a gateway; the interpreter's own audit of every connection
and every lookup that this process makes must show none elsewhere. A control connection shows that the audit works.

    python -m tests.chaos.elsewhere --pages 300
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.logs import configure
from tests.chaos.result import Result, numbers
from tests.chaos_upstream import Behaviour, Chaos, Got, chaos, redirect, say
from tests.engine.vendors import before, outbox, table
from tests.harness import KEY, House

METADATA = (
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://[fd00:ec2::254]/latest/",
    "http://100.100.100.200/",
    "//169.254.169.254/",
    "http://localhost:22/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
)
REDIRECTS = (300, 301, 302, 303, 305, 307, 308)

_seen: list[tuple[str, Any]] | None = None
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        _seen.append((event, arguments[1] if event == "socket.connect" else arguments[0]))


@contextlib.contextmanager
def audited() -> Iterator[list[tuple[str, Any]]]:
    """Yields the list of all connections and lookups of this process in the block. The hook stays set, as audit hooks
    cannot be removed."""
    global _seen, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    found: list[tuple[str, Any]] = []
    _seen = found
    try:
        yield found
    finally:
        _seen = None


def strangers(seen: list[tuple[str, Any]], *known: str) -> list[str]:
    """Returns what was connected to, or looked up, other than these addresses."""
    places = {urlsplit(url).port for url in known}
    hosts = {"127.0.0.1", "localhost", None}
    found = []
    for event, what in seen:
        if event == "socket.connect" and isinstance(what, tuple):
            if what[0] not in ("127.0.0.1", "::1") or what[1] not in places:
                found.append(f"connected to {what[0]}:{what[1]}")
        elif event != "socket.connect" and (what.decode() if isinstance(what, bytes) else what) not in hosts:
            found.append(f"looked up {what}")
    return found


def _full_of_addresses(url: str, number: int) -> dict[str, Any]:
    place = (url, *METADATA)[number % (len(METADATA) + 1)]
    return {
        "apiKey": KEY,
        "eventType": "ALERT",
        "alertKey": f"{place}?{number}",
        "summary": place,
        "details": f"see {place} and <img src='{place}'>",
        "links": [{"href": place, "text": place}],
        "images": [{"src": place, "href": place, "alt": place}],
        "customDetails": {"url": place, "callback": place, "alert_gateway": {"url": place}},
        "routingKey": place,
    }


def _sends_elsewhere(elsewhere: str) -> Any:
    places = (elsewhere + "/api/events", *METADATA)
    asked = 0

    def answer(got: Got) -> Behaviour:
        nonlocal asked
        asked += 1
        place = places[asked % len(places)]
        if asked % 4 == 0:
            more = {"location": place, "link": f"<{place}>; rel=next", "refresh": f"0;url={place}", "alt-svc": "h2"}
            return say(202, {"next": place, "url": place, "id": place}, more)
        return redirect(place, REDIRECTS[asked % len(REDIRECTS)])

    return answer


def _callers_try_too(h: House, elsewhere: str) -> None:
    """Sends requests with addresses in their headers and paths, which must not be used either."""
    for header in ("x-forwarded-host", "x-original-url", "forwarded", "x-upstream", "referer", "origin"):
        h.call("GET", "/uptinio/alerts", headers={header: elsewhere})
    for number in range(3):
        h.call("GET", f"/uptinio/alerts/..%2f..%2f{elsewhere}/{number}")
        h.call("GET", f"/ibm_monitoring/api/alerts/{elsewhere.replace('/', '%2F')}")


def measure(pages: int) -> Result:
    """Sends `pages` pages, each of which is answered with an address elsewhere."""
    with tempfile.TemporaryDirectory() as directory, chaos(say(200, {})) as elsewhere:
        with chaos(_sends_elsewhere(elsewhere.url)) as upstream, audited() as seen:
            found = _through(Path(directory), upstream, elsewhere, pages, seen)
        with audited() as control, contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", int(urlsplit(elsewhere.url).port or 0)), 1).close()
        is_blind = not strangers(control, "http://127.0.0.1:1")
    broken = sorted(set(found))[:5] + (["the audit does not see a connection elsewhere"] if is_blind else [])
    figures = {
        "answers that point elsewhere": len(upstream.got),
        "connections seen": len(seen),
        "elsewhere": len(found),
    }
    return Result("20", figures, broken)


def _through(directory: Path, upstream: Chaos, elsewhere: Chaos, pages: int, seen: list[tuple[str, Any]]) -> list[str]:
    tables = [table(name, upstream.url, name) for name in ("ilert", "uptinio", "ibm_monitoring", "livesession")]
    routes = '[[routes]]\nto = ["ilert", "uptinio", "ibm_monitoring", "livesession"]\n'
    with before(directory, *tables, routes=routes, top='reply_timeout = "200ms"') as h:
        for number in range(pages):
            body = _full_of_addresses(elsewhere.url, number)
            assert h.call("POST", "/ilert/api/events", body, key=None).status == 202
        _callers_try_too(h, elsewhere.url)
        h.wait_for(lambda: all(row.attempts for row in outbox(h, "waiting")), 60)
        made = int(elsewhere.connections)
        return [*strangers(list(seen), h.url, upstream.url), *["connected to the other"] * made]


def main() -> int:
    """The command."""
    configure("critical")
    return measure(numbers(__doc__ or "", pages=300).pages).tell()


if __name__ == "__main__":
    sys.exit(main())
