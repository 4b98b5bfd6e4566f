"""What `check` says of the addresses of upstreams that can hardly be right: a path that the dialect adds itself, one
that the vendor's API has and the address has not, and a key that travels unencrypted.

An address with a path too many is answered 404, which is a refusal: each page would be a dead letter. It must not know
any vendor.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config import Upstream
from gateway.configfile import is_loopback
from gateway.dialect import Dialect


def doubts(upstream: Upstream) -> Iterator[str]:
    """What speaks against the address of an upstream. Of one that is called as it stands nothing is known."""
    where = f"upstreams.{upstream.name}.url"
    yield from (f"{where}: {doubt}" for doubt in _of_path(upstream))
    parts = urlsplit(upstream.url)
    is_keyed = upstream.key is not None or upstream.keys is not None
    if parts.scheme == "http" and is_keyed and not is_loopback(parts.hostname or ""):
        yield f"{where}: the key travels to {parts.hostname} in the clear; write https:// if it is served there"


def _of_path(upstream: Upstream) -> Iterator[str]:
    dialect = upstream.dialect
    if dialect.outbound.whole_url:
        return
    parts, documented = urlsplit(upstream.url), urlsplit(dialect.url)
    said, usual = _segments(parts.path), _segments(documented.path)
    doubled = _doubled(dialect, said, usual)
    if doubled:
        plain = upstream.url.removesuffix("/" + "/".join(doubled))
        yield (
            f"/{'/'.join(doubled)} is added to it for each request, so it would be there twice; did you mean {plain!r}?"
        )
    elif parts.hostname == documented.hostname and len(said) < len(usual):
        yield f"a part of its path is missing; the API is at {dialect.url}"


def _doubled(dialect: Dialect, said: list[str], usual: list[str]) -> list[str]:
    """The longest end of a path with which a path of the dialect's begins, unless the vendor's own address ends so."""
    beginnings = [_segments(route.path) for route in dialect.routes]
    for start in range(len(usual) if said[: len(usual)] == usual else 0, len(said)):
        end = said[start:]
        if end != usual[-len(end) :] and any(one[: len(end)] == end for one in beginnings):
            return end
    return []


def _segments(path: str) -> list[str]:
    return [one for one in path.split("/") if one]
