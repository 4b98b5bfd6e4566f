"""Reads the configuration: one TOML file, checked as a whole; all problems are reported at once, with path and
suggestion.

Its larger parts are checked in `inbounds`, `upstreams` and `routes`, with the collector of problems of `checking`; a
dialect's own settings come from its declaration. It must not know any vendor.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.checking import Check
from gateway.config.config import UNTOLD, Config, Heartbeat, Upstream, Waiting
from gateway.config.file import AlarmsFile, File, HeartbeatFile, WaitingFile
from gateway.config.inbounds import check_scopes, inbound_of
from gateway.config.problems import near
from gateway.config.routes import Routes, tests_of
from gateway.config.secrets import Secret, unread
from gateway.config.store_url import is_torn
from gateway.config.upstreams import upstream_of
from gateway.config.values import between, count, default_store, duration, size
from gateway.dialect import Dialect
from gateway.errors import ConfigurationError
from gateway.network.listening import clashes, listening, public_url
from gateway.network.reaching import reach


def load(path: str | os.PathLike[str], *, secrets: bool = True, listen: str | None = None) -> Config:
    """Reads and checks a file; raises `ConfigurationError` with everything that is wrong with it.

    Without `secrets` the credentials that the file refers to are not resolved. `listen` replaces the file's.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: cannot be read: {unread(error)}"]) from None
    return parse(text, secrets=secrets, listen=listen, base=Path(path).parent)


def parse(text: str, *, secrets: bool = True, listen: str | None = None, base: Path | None = None) -> Config:
    """Checks the text of a configuration file; see `load`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"not TOML: {error}"]) from None
    except RecursionError:
        raise ConfigurationError(["not usable as TOML: it is nested too deeply"]) from None
    return _checked(Check(secrets, base or Path()), {**table, "listen": listen} if listen else table)


def _checked(check: Check, table: Mapping[str, Any]) -> Config:
    """The checked configuration of a whole file; raises `ConfigurationError`."""
    file = check.struct(File, table, "")
    check.public_url = public_url(check, file.public_url)
    own = _own_dialects(check, file.dialects) if file.dialects else {}
    check.known = ChainMap(own, check.known)  # type: ignore[arg-type]  # nobody writes to it
    check.described = frozenset(file.dialects)
    inbounds = {name: inbound_of(check, name, inner, file) for name, inner in file.inbound.items()}
    upstreams = {name: upstream_of(check, name, inner) for name, inner in file.upstreams.items()}
    known = {name: inbound for name, inbound in inbounds.items() if inbound}
    callers = {name: None if not one or one.keyring.directory else one.callers for name, one in inbounds.items()}
    chosen = {name: one.keys for name, one in upstreams.items() if one and one.keys and one.dialect.outbound.key}
    routes = Routes(check, check.base, callers, list(upstreams), chosen)
    where = listening(check, file, list(known.values()))
    if not file.inbound:
        check.say(
            "inbound",
            "no dialect is served: add a table such as [inbound.DIALECT], one of " + ", ".join(check.known),
        )
    clashes(check, list(known.values()))
    check_scopes(check, known)
    store, store_secret = _store(check, file.store)
    config = Config(
        listen=where.listen,
        admin=where.admin,
        admin_token=where.admin_token,
        tls=where.tls,
        store=store,
        store_secret=store_secret,
        retention=check.parsed(duration, file.retention, "retention", 1.0),
        reply_timeout=check.parsed(between(duration, "10ms", "10m"), file.reply_timeout, "reply_timeout", 1.0),
        max_body=check.parsed(between(size, "1KiB", "1GiB"), file.max_body, "max_body", 1),
        max_waiting=_waiting(check, file.max_waiting),
        inbounds=known,
        upstreams={name: upstream for name, upstream in upstreams.items() if upstream},
        routes=routes.all_of(file),
        tests=tests_of(check, file, routes, list(upstreams)),
        durable=file.durable,
        base=check.base,
        own=own,
        heartbeat=_heartbeat(check, file.heartbeat),
        alarms=_alarms(check, file.alarms, upstreams),
    )
    if check.problems:
        raise ConfigurationError(check.problems)
    return config


def _own_dialects(check: Check, tables: Mapping[str, dict[str, Any]]) -> dict[str, Dialect]:
    from gateway.own import dialects_in  # most configurations do not need it

    return dialects_in(check, tables, check.known)


# --- the smaller parts of the file ---------------------------------------------------------------------------


def _heartbeat(check: Check, table: dict[str, Any] | None) -> Heartbeat | None:
    if table is None:
        return None
    given = check.struct(HeartbeatFile, table, "heartbeat")
    faults, url = len(check.problems), check.secret(given.url, "heartbeat.url")
    is_known = check.resolve and len(check.problems) == faults
    if is_known and not re.match(r"https?://[^\s/?#]", url.value()):
        check.say("heartbeat.url", "is not an address such as https://hc.example.com/ping/…")
    return Heartbeat(
        url=url,
        every=check.parsed(between(duration, "10ms", "1d"), given.every, "heartbeat.every", 60.0),
        stall=check.parsed(between(duration, "100ms", "7d"), given.stall, "heartbeat.stall", 120.0),
        reach=reach(check, given, "heartbeat"),
    )


def _alarms(check: Check, table: dict[str, Any] | None, upstreams: Mapping[str, Upstream | None]) -> tuple[str, ...]:
    if table is None:
        return ()
    given = check.struct(AlarmsFile, table, "alarms")
    if not given.to:
        check.say("alarms.to", "names no upstream")
    for name in given.to:
        found = upstreams.get(name)
        if name not in upstreams:
            check.say("alarms.to", f"no upstream {name!r}{near(name, upstreams)}")
        elif found and found.key is None and found.keys:
            check.say("alarms.to", f"{name}: alarms have no caller, so its key needs an `else`")
    return tuple(given.to)


def _waiting(check: Check, given: int | dict[str, Any]) -> Waiting:
    table = {"deliveries": given} if isinstance(given, int) else given
    file = check.struct(WaitingFile, table, "max_waiting")
    return Waiting(
        deliveries=check.parsed(count, file.deliveries, "max_waiting.deliveries", 1),
        bytes=check.parsed(size, file.bytes, "max_waiting.bytes", 1),
    )


def _store(check: Check, url: str | None) -> tuple[str, Secret | None]:
    """The store's address, and the secret that it is where one is referred to."""
    secret = None
    try:
        url = default_store() if url is None else url
    except RuntimeError:  # no home directory: a container's user may have none
        check.say("store", 'no home directory for the default store; write store = "sqlite:///absolute/path"')
        return "", None
    if url.startswith(("env:", "file:")):
        url, secret = _secret_store(check, url)
    if url.startswith(("postgresql://", "postgres://")):
        if is_torn(url):
            check.say("store", "special characters in the password must be percent-encoded: %2F for /, %40 for @")
        return url, secret
    found = re.fullmatch(r"sqlite://(/[^?]*[^?/])", url)
    if found and not found[1].startswith("/~"):
        return found[1], secret
    if url.startswith("sqlite:"):
        say = "is not sqlite:// and an absolute path, such as sqlite:///var/lib/alert-gateway/gateway.db"
        check.say("store", f"{url!r} {say}" + ("; ~ is not expanded" if "/~" in url else ""))
    else:
        kind = repr(url.partition("://")[0])
        check.say(
            "store", f"{kind} is not a kind of store; write sqlite:///absolute/path or postgresql://user@host/name"
        )
    return "", secret


def _secret_store(check: Check, reference: str) -> tuple[str, Secret | None]:
    """The store's address from a reference to a secret, as it may contain a password. It is resolved even where
    other secrets are not."""
    secret = None
    try:
        secret = Secret(reference)
        return secret.value(), secret
    except ValueError as error:
        if check.resolve:
            check.say("store", str(error))
        return UNTOLD, secret
