"""Checks an upstream: its address, its credentials, its limits, and what it says about content.

A part of `gateway.config.loading`. It must not know any vendor.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.config.checking import Check
from gateway.config.config import Retry, Upstream
from gateway.config.file import RetryFile, SeverityFile, UpstreamFile
from gateway.config.routes import flat, key_of
from gateway.config.secrets import Secret
from gateway.config.settings import fields_of, secret_in, settings_of
from gateway.config.values import between, count, duration, is_address, is_header, without_secrets
from gateway.dialect import Dialect
from gateway.mapping.rescaling import with_scale
from gateway.mapping.saying import Destination
from gateway.mapping.table import Mapping as Rows
from gateway.network.reaching import reach

_SALT = secrets.token_bytes(32)
IN_PATH_HINT = '; if part of the URL is secret, set auth = "path" in the dialect and give that part as `key`'
"""Hint for a `url` that was given as a reference to a secret."""


def upstream_of(check: Check, name: str, table: Any) -> Upstream | None:
    """The upstream of a table; None where it is none, or its dialect is unknown."""
    path = f"upstreams.{name}"
    if not isinstance(table, dict):
        check.say(path, "is not a table")
        return None
    dialect = check.dialect(table["dialect"], f"{path}.dialect") if isinstance(table.get("dialect"), str) else None
    own = dialect.settings if dialect else None
    given = check.struct(UpstreamFile, table, path, fields_of(own))
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        check.say(path, "an upstream's name may contain only letters, digits, dots, dashes and underscores")
    # Of a description that is itself wrong nothing is known, and its own problems are what to correct first.
    is_whole = dialect.outbound.whole_url if dialect else given.dialect in check.described
    if not is_address(given.url or "", is_whole=is_whole):
        such_as = (dialect.url if dialect else "") or "https://example.com/alerts"
        is_own = dialect is not None and dialect.name in check.described
        hint = IN_PATH_HINT if is_own and (given.url or "").startswith(("env:", "file:")) else ""
        check.say(f"{path}.url", f"{without_secrets(given.url or '')!r} is not an address such as {such_as}{hint}")
    if not dialect:
        return None
    key, keys = key_of(check, given.key, f"{path}.key", is_chosen=dialect.outbound.key is not None)
    settings = settings_of(check, own, table, path) if own else None
    exchanged = secret_in(settings)
    if given.key is None and exchanged is None and dialect.outbound.needs_key:
        check.say(f"{path}.key", 'is required: "env:NAME", "file:PATH" or the key itself')
    return Upstream(
        name=name,
        destination=_destination(check, name, dialect, given, path),
        url=given.url if is_whole else given.url.rstrip("/"),
        key=key or exchanged,
        keys=keys,
        is_exchanged=given.key is None and exchanged is not None,
        headers={header: _header(check, header, text, f"{path}.headers") for header, text in given.headers.items()},
        timeout=check.parsed(between(duration, "100ms", "10m"), given.timeout, f"{path}.timeout", 10.0),
        retry=_retry(check, given, path),
        concurrency=check.parsed(between(count, 1, 1000), given.concurrency, f"{path}.concurrency", 1),
        on_resolve=given.on_resolve or dialect.outbound.on_resolve,
        on_backlog=given.on_backlog,
        rate=_rate(check, given.rate, dialect, f"{path}.rate"),
        settings=settings,
        reach=reach(check, given, path),
        written=hmac.digest(
            _SALT, msgspec.json.encode((table, dialect.description, check.public_url), order="sorted"), "sha256"
        ).hex(),
    )


def _header(check: Check, name: str, text: str, path: str) -> Secret:
    """The value of a configured header; reports a name that is not valid."""
    if not is_header(name):
        check.say(path, f"{name!r} is not a valid header name")
    return check.secret(text, f"{path}.{name}")


def _rate(check: Check, given: int | str | None, dialect: Dialect, path: str) -> int | None:
    if given is None or isinstance(given, int):
        return None if given is None else check.parsed(between(count, 1, 1_000_000), given, path, 1)
    if given != "published":
        check.say(path, f'{given!r} is neither a number of requests per minute nor "published"')
    elif dialect.outbound.published_rate is None:
        check.say(path, f"{dialect.title} publishes no limit; write the allowed number of requests per minute")
    return dialect.outbound.published_rate


def _retry(check: Check, given: UpstreamFile, path: str) -> Retry:
    retry = check.struct(RetryFile, given.retry, f"{path}.retry")
    pause = between(duration, "1ms", "1d")
    read = Retry(
        first=check.parsed(pause, retry.first, f"{path}.retry.first", 1.0),
        most=check.parsed(pause, retry.most, f"{path}.retry.most", 86_400.0),
        max_age=check.parsed(duration, retry.max_age, f"{path}.retry.max_age", 1.0),
    )
    if "first" in given.retry and read.first > read.most:
        check.say(f"{path}.retry.first", f"{retry.first} is longer than `most`, which is {retry.most}")
    return read


def _destination(check: Check, name: str, dialect: Dialect, given: UpstreamFile, path: str) -> Destination:
    return Destination(
        name=name,
        dialect=dialect,
        mapping=_severity(check, dialect.mapping, given.severity, f"{path}.severity"),
        defaults=flat(check, given.defaults, f"{path}.defaults", dialect.name),
        metrics=given.metrics,
        rules=given.rules,
        carry=given.carry,
        public_url=check.public_url,
    )


def _severity(check: Check, mapping: Rows, table: Mapping[str, Any], path: str) -> Rows:
    if not table:
        return mapping
    given = check.struct(SeverityFile, table, path)
    try:
        return with_scale(mapping, given.out, given.in_)
    except ValueError as error:
        check.say(path, str(error))
        return mapping
