"""`check --connect`: proves address, TLS and key of each upstream by the harmless call that its dialect declares.

The call creates nothing. Where a dialect has none, the key cannot be proved without creating something, and the result
says so; that a server answers at the address, and its certificate, are checked all the same. It must not know any
vendor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.config.config import Upstream
from gateway.delivery.attempt import Client, Ended
from gateway.delivery.transport import Transport, Unreachable
from gateway.outcome import Call, Delivered, Held, Request

AT_ONCE = 8


@dataclass(frozen=True)
class Proof:
    """The result for one upstream and one of its keys: `is_good` is None where the key could not be tried."""

    upstream: str
    entry: str
    is_good: bool | None
    says: str

    def as_line(self) -> str:
        """The result on one line."""
        key = f" (the key of {self.entry})" if self.entry else ""
        return f"{self.upstream}{key}: {self.says}"


async def prove(upstreams: Iterable[Upstream]) -> list[Proof]:
    """Probes every upstream with each of its keys."""
    found = await asyncio.gather(*(_prove(upstream) for upstream in upstreams))
    return [proof for proofs in found for proof in proofs]


async def _prove(upstream: Upstream) -> list[Proof]:
    probe = upstream.dialect.outbound.probe
    if probe is None:
        return [await _reached(upstream)]
    entries = upstream.keys.entries() if upstream.keys else [""]
    if not entries:
        return [Proof(upstream.name, "", False, "has no key")]
    client, slots = Client(upstream), asyncio.Semaphore(AT_ONCE)

    async def ask(entry: str) -> Proof:
        async with slots:
            return _judged(upstream, entry, await client.run(_call(probe), entry=entry))

    try:
        return list(await asyncio.gather(*(ask(entry) for entry in entries)))
    finally:
        await client.aclose()


async def _reached(upstream: Upstream) -> Proof:
    """Whether a server answers. Requests the server's root, without the key: a whole address may trigger something on
    any request, and may contain the key."""
    parts = urlsplit(upstream.url)
    client = Transport(f"{parts.scheme}://{parts.netloc}", upstream.timeout, 1, upstream.reach)
    try:
        await client.send(Request(method="GET", path="/"), {})
    except Unreachable as error:
        says = error.reason if error.is_certificate else f"cannot be reached: {error.reason}"
        return Proof(upstream.name, "", False, says)
    finally:
        await client.aclose()
    title, what = upstream.dialect.title, _secured(upstream, "address and TLS", "address (no TLS)")
    return Proof(
        upstream.name,
        "",
        None,
        f"a server answers: {what}; the key cannot be proved: {title} has no call that creates nothing",
    )


def _secured(upstream: Upstream, with_tls: str, without: str) -> str:
    return with_tls if upstream.url.startswith("https:") else without


def _call(probe: Request) -> Call:
    yield probe
    return Delivered()


def _judged(upstream: Upstream, entry: str, ended: Ended) -> Proof:
    outcome = ended.outcome
    if isinstance(outcome, Delivered):
        secured = _secured(upstream, "address, TLS and key", "address and key (no TLS)")
        return Proof(upstream.name, entry, True, f"good: {secured}")
    reason = getattr(outcome, "reason", "") or type(outcome).__name__.lower()
    if ended.is_certificate:
        return Proof(upstream.name, entry, False, reason)
    if isinstance(outcome, Held):
        return Proof(upstream.name, entry, False, f"the address is good, the key is not: {reason}")
    where = "answers unexpectedly" if ended.status is not None else "cannot be reached"
    return Proof(upstream.name, entry, False, f"{where}: {reason}")
