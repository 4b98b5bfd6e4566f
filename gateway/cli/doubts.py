"""Warnings of `check` about doubtful addresses and keys: a path that the dialect adds itself, or that the vendor's API
has and the address lacks; a key that travels unencrypted, or that will not arrive as intended.

An address with a superfluous path is answered 404, which is a refusal: each page would be a dead letter. It must not
know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config.config import Config, Upstream
from gateway.config.values import is_loopback
from gateway.dialect import Dialect
from gateway.outcome import Request


def doubts(config: Config) -> Iterator[str]:
    """Warnings about the addresses of upstreams, and about the keys of callers, upstreams and operators. None repeats a
    key."""
    for upstream in config.upstreams.values():
        yield from _of_address(upstream)
    yield from _miswritten(config)


# --- addresses -----------------------------------------------------------------------------------------------


def _of_address(upstream: Upstream) -> Iterator[str]:
    where = f"upstreams.{upstream.name}.url"
    yield from (f"{where}: {doubt}" for doubt in _of_path(upstream))
    parts = urlsplit(upstream.url)
    is_keyed = upstream.key is not None or upstream.keys is not None
    if parts.scheme == "http" and is_keyed and not is_loopback(parts.hostname or ""):
        yield f"{where}: the key is sent to {parts.hostname} unencrypted; write https:// if it is served there"


def _of_path(upstream: Upstream) -> Iterator[str]:
    dialect = upstream.dialect
    if dialect.outbound.whole_url:  # it is called as it stands
        return
    parts, documented = urlsplit(upstream.url), urlsplit(dialect.url)
    said, usual = _segments(parts.path), _segments(documented.path)
    doubled = _doubled(dialect, said, usual)
    if doubled:
        plain = upstream.url.rstrip("/").rsplit("/", len(doubled))[0]
        yield (
            f"/{'/'.join(doubled)} is added for each request, so it would be in the path twice; did you mean {plain!r}?"
        )
    elif parts.hostname == documented.hostname and len(said) < len(usual):
        yield f"part of its path is missing; the API is at {dialect.url}"


def _doubled(dialect: Dialect, said: list[str], usual: list[str]) -> list[str]:
    """The beginning of a path of the dialect that the address's path ends with, as the dialect writes it, since a key
    may be a part of it; the longest, unless the vendor's documented address ends with it too. Paths that are others
    below a second base do not count: the address may be that base."""
    paths = [_segments(route.path) for route in dialect.routes]
    beginnings = [one for one in paths if not any(one[at:] in paths for at in range(1, len(one)))]
    for start in range(len(usual) if said[: len(usual)] == usual else 0, len(said)):
        end = said[start:]
        found = next((one[: len(end)] for one in beginnings if _begins(one, end)), None)
        if found and end != usual[-len(end) :]:
            return found
    return []


def _begins(path: list[str], end: list[str]) -> bool:
    """Whether a path of a dialect, with its variables in braces, begins so."""
    return len(path) >= len(end) and all(
        want == have or want.startswith("{") for want, have in zip(path, end, strict=False)
    )


def _segments(path: str) -> list[str]:
    return [one for one in path.split("/") if one]


# --- keys ----------------------------------------------------------------------------------------------------


def _miswritten(config: Config) -> Iterator[str]:
    """Secrets that will not arrive as intended: with a blank or quotes around them, as a hand or a script leaves them,
    or with the scheme that the dialect puts before them itself."""
    for name, inbound in config.inbounds.items():
        for caller, value in inbound.keyring.held():
            yield from _of_key(inbound.dialect, f"inbound.{name}.keys.{caller}", value)
    for name, upstream in config.upstreams.items():
        key = upstream.key.if_known() if upstream.key and not upstream.is_exchanged else None
        yield from _of_key(upstream.dialect, f"upstreams.{name}.key", key or "")
        for header, secret in upstream.headers.items():
            yield from _padded(f"upstreams.{name}.headers.{header}", secret.if_known() or "")
    yield from _padded("admin_token", (config.admin_token and config.admin_token.if_known()) or "")


def _of_key(dialect: Dialect, path: str, key: str) -> Iterator[str]:
    """Warnings about a key of this dialect."""
    yield from _padded(path, key)
    for value in dialect.outbound.authorise(Request(method="GET", path=""), key).headers.values() if key else ():
        scheme, blank, rest = value.partition(" ")
        if blank and rest == key and key.lower().startswith(f"{scheme.lower()} "):
            yield f"{path}: {scheme} is added in the header; write the key without it"
        if scheme == "Basic" and rest != key and ":" not in key:
            yield f"{path}: is sent as user:password, but has no colon"


def _padded(path: str, secret: str) -> Iterator[str]:
    """Warnings about quotes and blanks that a hand, a script or `docker run --env-file` leaves around a secret."""
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "\"'":
        yield f"{path}: the secret is in quotes, which are sent with it"
    if secret != secret.strip():
        yield f"{path}: the secret begins or ends with a space, which is lost in a header"
