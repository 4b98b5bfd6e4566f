"""The configuration: one TOML file, checked as a whole; all problems are reported at once, with path and suggestion.

`Config` is what the rest of the gateway works with; the file as it is written is in `gateway.config.file`. A dialect's
own settings come from its declaration. It must not know any vendor.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import tomllib
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.canonical import Flat
from gateway.config.choosing import Keys
from gateway.config.file import (
    AlarmsFile,
    File,
    HeartbeatFile,
    InboundFile,
    RetryFile,
    SeverityFile,
    TestFile,
    UpstreamFile,
    WaitingFile,
)
from gateway.config.following import Directory
from gateway.config.problems import near
from gateway.config.routes import Routes, flat, key_of, tests_of
from gateway.config.routing import Route
from gateway.config.secrets import ANONYMOUS, Keyring, Secret, unread
from gateway.config.settings import fields_of, secret_in, settings_of
from gateway.config.store_url import is_torn
from gateway.config.tables import Tables
from gateway.config.values import between, count, default_store, duration, is_address, is_header, size
from gateway.dialect import Dialect
from gateway.errors import ConfigurationError
from gateway.mapping.rescaling import with_scale
from gateway.mapping.saying import Destination
from gateway.mapping.table import Mapping as Rows
from gateway.network.listening import Tls, clashes, host_names, listening, public_url
from gateway.network.reaching import Reach, reach
from gateway.registry import dialects

_SALT = secrets.token_bytes(32)
IN_PATH_HINT = '; if part of the URL is secret, set auth = "path" in the dialect and give that part as `key`'
"""Hint for a `url` that was given as a reference to a secret."""
UNTOLD = "postgresql://(not told)"
"""Stands for the address of a store that is a secret which could not be resolved: it leads nowhere, so that no other
store is used by mistake."""


# --- what the gateway works with -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Inbound:
    """A dialect that callers may speak: its keyring, the scope of its callers (None: one each), when they are answered,
    the host names at whose root it is served alone, and the dialect's own settings."""

    dialect: Dialect
    keyring: Keyring
    callers: frozenset[str]
    anonymous: bool
    scope: str | None
    reply: Literal["accepted", "delivered"]
    hosts: frozenset[str] = frozenset()
    settings: Any = None

    def scope_of(self, caller: str) -> str:
        """The scope of this caller's ids, keys and names."""
        return self.scope if self.scope is not None else f"{self.dialect.name}/{caller}"

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of everybody who may call now."""
        anybody = [ANONYMOUS] if self.anonymous or not self.keyring else []
        return frozenset(self.scope_of(caller) for caller in (*self.keyring.names(), *anybody))


@dataclass(frozen=True, kw_only=True)
class Retry:
    """In seconds: the first and the longest pause, and the age after which a delivery's failing attempt is its last."""

    first: float = 1.0
    most: float = 60.0
    max_age: float = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How much may wait before requests are refused: deliveries, and bytes of the commands behind them."""

    deliveries: int = 1_000_000
    bytes: int = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A configured destination: its address, its credentials, and what its configuration says about content.

    `rate` is in requests a minute; `keys` is set where the key is chosen by caller or field; `written` is a keyed
    digest of what the file says of it, by which a reload sees what has changed."""

    name: str
    destination: Destination
    url: str
    key: Secret | None = None
    keys: Keys | None = None
    is_exchanged: bool = False
    headers: Mapping[str, Secret] = field(default_factory=dict)
    timeout: float = 10.0
    retry: Retry = field(default_factory=Retry)
    concurrency: int = 8
    on_resolve: Literal["disable", "delete", "keep"] | None = None
    on_backlog: Literal["fold", "deliver"] = "fold"
    rate: int | None = None
    settings: Any = None
    reach: Reach = field(default_factory=Reach)
    written: str = ""

    @property
    def dialect(self) -> Dialect:
        """The dialect it speaks."""
        return self.destination.dialect

    def entry(self, dialect: str, caller: str, flat: Flat | None = None) -> str:
        """The entry of the key for what is sent on behalf of this caller, and for this alert where one is given."""
        return self.keys.entry({**(flat or {}), "caller": caller, "dialect": dialect}) if self.keys else ""

    @property
    def has_many_keys(self) -> bool:
        """Whether there are several keys: a refused one then concerns only the deliveries that use it, not the whole
        upstream."""
        return self.keys is not None and self.keys.are_many

    def key_of(self, entry: str) -> str:
        """The credential of an entry, as it is now; `ValueError` where there is none."""
        if self.keys is not None:
            return self.keys.value(entry)
        return self.key.value() if self.key else ""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The heartbeat by which somebody else notices that the gateway is dead: an address that is requested each `every`
    seconds while all is well, and no longer once something has waited for `stall` seconds."""

    url: Secret
    every: float
    stall: float
    reach: Reach = field(default_factory=Reach)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checked configuration. `alarms` names the upstreams that get the alarms about the gateway itself. `restores`
    says whether carried fields are restored: only a stand-in for a vendor does not. `base` is the file's directory, to
    which paths of tables and samples are relative. `own` are the dialects that the file itself describes."""

    listen: tuple[str, int]
    store: str
    retention: float
    reply_timeout: float
    max_body: int
    max_waiting: Waiting
    inbounds: Mapping[str, Inbound]
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...]
    heartbeat: Heartbeat | None = None
    alarms: tuple[str, ...] = ()
    admin: tuple[str, int] | None = None
    admin_token: Secret | None = None
    tls: Tls | None = None
    restores: bool = True
    tests: tuple[TestFile, ...] = ()
    durable: Literal["disk", "container"] = "disk"
    base: Path = field(default_factory=Path)
    own: Mapping[str, Dialect] = field(default_factory=dict)
    store_secret: Secret | None = field(default=None, compare=False)

    @property
    def store_now(self) -> str:
        """The store's address, with the credential as it is now."""
        return self.store_secret.value() if self.store_secret else self.store

    @property
    def is_shared(self) -> bool:
        """Whether several gateways may serve from the store."""
        return "://" in self.store

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of everybody who may call now."""
        return frozenset().union(*(inbound.scopes for inbound in self.inbounds.values()))

    def fallback_after(self, route: str) -> float | None:
        """Seconds after which the fallback of this route is told; None where the route has none."""
        return next((one.after for one in self.routes if one.name == route and one.fallback), None)


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
    return _Check(secrets, base or Path()).config({**table, "listen": listen} if listen else table)


class _Check(Tables):
    """Checks the whole file and collects the problems instead of stopping at the first."""

    def __init__(self, secrets: bool, base: Path) -> None:
        super().__init__()
        self.resolve = secrets
        self.base = base
        self.public_url = ""
        self.store_secret: Secret | None = None
        self.known: Mapping[str, Dialect] = dialects()
        self.described: frozenset[str] = frozenset()

    def config(self, table: Mapping[str, Any]) -> Config:
        file = self.struct(File, table, "")
        self.public_url = public_url(self, file.public_url)
        own = self.own_dialects(file.dialects) if file.dialects else {}
        self.known = ChainMap(own, self.known)  # type: ignore[arg-type]  # nobody writes to it
        self.described = frozenset(file.dialects)
        inbounds = {name: self.inbound(name, inner, file) for name, inner in file.inbound.items()}
        upstreams = {name: self.upstream(name, inner) for name, inner in file.upstreams.items()}
        known = {name: inbound for name, inbound in inbounds.items() if inbound}
        callers = {name: None if not one or one.keyring.directory else one.callers for name, one in inbounds.items()}
        chosen = {name: one.keys for name, one in upstreams.items() if one and one.keys and one.dialect.outbound.key}
        routes = Routes(self, self.base, callers, list(upstreams), chosen)
        where = listening(self, file, list(known.values()))
        if not file.inbound:
            self.say(
                "inbound",
                "no dialect is served: add a table such as [inbound.DIALECT], one of " + ", ".join(self.known),
            )
        clashes(self, list(known.values()))
        self.scopes(known)
        config = Config(
            listen=where.listen,
            admin=where.admin,
            admin_token=where.admin_token,
            tls=where.tls,
            store=self.store(file.store),
            store_secret=self.store_secret,
            retention=self.parsed(duration, file.retention, "retention", 1.0),
            reply_timeout=self.parsed(between(duration, "10ms", "10m"), file.reply_timeout, "reply_timeout", 1.0),
            max_body=self.parsed(between(size, "1KiB", "1GiB"), file.max_body, "max_body", 1),
            max_waiting=self.waiting(file.max_waiting),
            inbounds=known,
            upstreams={name: upstream for name, upstream in upstreams.items() if upstream},
            routes=routes.all_of(file),
            tests=tests_of(self, file, routes, list(upstreams)),
            durable=file.durable,
            base=self.base,
            own=own,
            heartbeat=self.heartbeat(file.heartbeat),
            alarms=self.alarms(file.alarms, upstreams),
        )
        if self.problems:
            raise ConfigurationError(self.problems)
        return config

    def secret(self, text: str, path: str) -> Secret:
        try:
            return Secret(text, resolve=self.resolve)
        except ValueError as error:
            self.say(path, str(error))
            return Secret("unusable")

    def own_dialects(self, tables: Mapping[str, dict[str, Any]]) -> dict[str, Dialect]:
        from gateway.own import dialects_in  # most configurations do not need it

        return dialects_in(self, tables, self.known)

    # --- the parts of the file ---------------------------------------------------------------------------

    def inbound(self, name: str, table: Any, file: File) -> Inbound | None:
        path = f"inbound.{name}"
        dialect = self.dialect(name, path)
        if not dialect or not isinstance(table, dict):
            return None
        own = dialect.inbound_settings
        given = self.struct(InboundFile, table, path, fields_of(own))
        if table.get("keys") == {}:
            self.say(f"{path}.keys", "lists no caller: write one, or leave `keys` out if callers need none")
        keyring, callers = self.keyring(given.keys, f"{path}.keys")
        for caller in keyring.shared() if self.resolve and not self.problems else ():
            self.say(f"{path}.keys.{caller}", "is also the credential of another caller, so it identifies neither")
        auth = (dialect.description or {}).get("auth")
        if given.keys and name in self.described and auth in ("none", "path"):
            self.say(
                f"{path}.keys", f'callers send none, as dialects.{name} has auth = "{auth}"; write anonymous = true'
            )
        if name in self.described and (dialect.description or {}).get("signature") and not table.get("hmac"):
            self.say(f"{path}.hmac", f"is required, as dialects.{name} has `signature`: the secret that signs requests")
        for caller in callers:
            if caller == ANONYMOUS or "/" in caller or not caller:
                self.say(f"{path}.keys.{caller}", "cannot be a caller's name")
        return Inbound(
            dialect=dialect,
            keyring=keyring,
            callers=frozenset(callers),
            anonymous=given.anonymous,
            scope=given.scope,
            reply=given.reply or file.reply or dialect.reply,
            hosts=host_names(self, given.host, f"{path}.host"),
            settings=settings_of(self, own, table, path) if own else None,
        )

    def scopes(self, inbounds: Mapping[str, Inbound]) -> None:
        """Refuses a scope that has the name of a caller's own default scope: that caller would share its alerts without
        having been configured to."""
        for name, inbound in inbounds.items():
            dialect, slash, caller = (inbound.scope or "").partition("/")
            if slash and dialect in inbounds and inbounds[dialect].scope is None:
                self.say(
                    f"inbound.{name}.scope",
                    f"{inbound.scope!r} is the default scope of {dialect}'s caller {caller!r}; to share its alerts, "
                    f"set a scope for inbound.{dialect} too",
                )

    def keyring(self, given: Mapping[str, str | list[str]] | str, path: str) -> tuple[Keyring, list[str]]:
        """The keyring, from credentials that are listed or that are the files of a followed directory; and the names of
        the callers."""
        if isinstance(given, str):
            if not given.startswith("dir:"):
                self.say(path, 'must be { CALLER = "env:NAME" }, or "dir:PATH" with one file per caller')
                return Keyring({}), []
            at = given.removeprefix("dir:")
            directory = self.parsed(lambda text: Directory(text, resolve=self.resolve), at, path, None)
            for name, fault in directory.faults() if directory else ():
                self.say(f"{path}.{name}", f"the file {fault}")
            return Keyring({}, directory), sorted(directory.secrets()) if directory else []
        listed = {caller: [texts] if isinstance(texts, str) else texts for caller, texts in given.items()}
        for caller in (
            caller for caller, texts in listed.items() if not texts
        ):  # if it were the only caller, anybody could call
            self.say(f"{path}.{caller}", "lists no secret: write one, or leave the caller out")
        keys = {caller: [self.secret(text, f"{path}.{caller}") for text in texts] for caller, texts in listed.items()}
        return Keyring(keys), list(keys)

    def heartbeat(self, table: dict[str, Any] | None) -> Heartbeat | None:
        if table is None:
            return None
        given = self.struct(HeartbeatFile, table, "heartbeat")
        url = self.secret(given.url, "heartbeat.url")
        if self.resolve and not url.value().startswith(("http://", "https://")):
            self.say("heartbeat.url", "is not an address such as https://hc.example.com/ping/…")
        return Heartbeat(
            url=url,
            every=self.parsed(between(duration, "10ms", "1d"), given.every, "heartbeat.every", 60.0),
            stall=self.parsed(between(duration, "100ms", "7d"), given.stall, "heartbeat.stall", 120.0),
            reach=reach(self, given, "heartbeat"),
        )

    def alarms(self, table: dict[str, Any] | None, upstreams: Mapping[str, Upstream | None]) -> tuple[str, ...]:
        if table is None:
            return ()
        given = self.struct(AlarmsFile, table, "alarms")
        if table.get("to") == []:
            self.say("alarms.to", "names no upstream")
        for name in given.to:
            found = upstreams.get(name)
            if name not in upstreams:
                self.say("alarms.to", f"no upstream {name!r}{near(name, upstreams)}")
            elif found and found.key is None and found.keys:
                self.say("alarms.to", f"{name}: alarms have no caller, so its key needs an `else`")
        return tuple(given.to)

    def dialect(self, name: str, path: str) -> Dialect | None:
        found = self.known.get(name)
        if not found and name not in self.described:  # problems of a description are reported there
            self.say(path, f"no such dialect{near(name, self.known)}; known are {', '.join(self.known)}")
        return found

    def upstream(self, name: str, table: Any) -> Upstream | None:
        path = f"upstreams.{name}"
        if not isinstance(table, dict):
            self.say(path, "is not a table")
            return None
        dialect = self.dialect(table["dialect"], f"{path}.dialect") if isinstance(table.get("dialect"), str) else None
        own = dialect.settings if dialect else None
        given = self.struct(UpstreamFile, table, path, fields_of(own))
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            self.say(path, "an upstream's name may contain only letters, digits, dots, dashes and underscores")
        is_whole = dialect is not None and dialect.outbound.whole_url
        if not is_address(given.url or "", is_whole=is_whole):
            such_as = (dialect.url if dialect else "") or "https://example.com/alerts"
            is_own = dialect is not None and dialect.name in self.described
            hint = IN_PATH_HINT if is_own and (given.url or "").startswith(("env:", "file:")) else ""
            self.say(f"{path}.url", f"{given.url!r} is not an address such as {such_as}{hint}")
        if not dialect:
            return None
        key, keys = key_of(self, given.key, f"{path}.key", is_chosen=dialect.outbound.key is not None)
        settings = settings_of(self, own, table, path) if own else None
        exchanged = secret_in(settings)
        if given.key is None and exchanged is None and dialect.outbound.needs_key:
            self.say(f"{path}.key", 'is required: "env:NAME", "file:PATH" or the key itself')
        return Upstream(
            name=name,
            destination=self.destination(name, dialect, given, path),
            url=given.url if is_whole else given.url.rstrip("/"),
            key=key or exchanged,
            keys=keys,
            is_exchanged=given.key is None and exchanged is not None,
            headers={header: self.header(header, text, f"{path}.headers") for header, text in given.headers.items()},
            timeout=self.parsed(between(duration, "100ms", "10m"), given.timeout, f"{path}.timeout", 10.0),
            retry=self.retry(given, path),
            concurrency=self.parsed(between(count, 1, 1000), given.concurrency, f"{path}.concurrency", 1),
            on_resolve=given.on_resolve or dialect.outbound.on_resolve,
            on_backlog=given.on_backlog,
            rate=self.rate(given.rate, dialect, f"{path}.rate"),
            settings=settings,
            reach=reach(self, given, path),
            written=hmac.digest(
                _SALT, msgspec.json.encode((table, dialect.description, self.public_url), order="sorted"), "sha256"
            ).hex(),
        )

    def header(self, name: str, text: str, path: str) -> Secret:
        """The value of a configured header; reports a name that is not valid."""
        if not is_header(name):
            self.say(path, f"{name!r} is not a valid header name")
        return self.secret(text, f"{path}.{name}")

    def rate(self, given: int | str | None, dialect: Dialect, path: str) -> int | None:
        if given is None or isinstance(given, int):
            return None if given is None else self.parsed(between(count, 1, 1_000_000), given, path, 1)
        if given != "published":
            self.say(path, f'{given!r} is neither a number of requests per minute nor "published"')
        elif dialect.outbound.published_rate is None:
            self.say(path, f"{dialect.title} publishes no limit; write the allowed number of requests per minute")
        return dialect.outbound.published_rate

    def waiting(self, given: int | dict[str, Any]) -> Waiting:
        table = {"deliveries": given} if isinstance(given, int) else given
        file = self.struct(WaitingFile, table, "max_waiting")
        return Waiting(
            deliveries=self.parsed(count, file.deliveries, "max_waiting.deliveries", 1),
            bytes=self.parsed(size, file.bytes, "max_waiting.bytes", 1),
        )

    def retry(self, given: UpstreamFile, path: str) -> Retry:
        retry = self.struct(RetryFile, given.retry, f"{path}.retry")
        pause = between(duration, "1ms", "1d")
        read = Retry(
            first=self.parsed(pause, retry.first, f"{path}.retry.first", 1.0),
            most=self.parsed(pause, retry.most, f"{path}.retry.most", 86_400.0),
            max_age=self.parsed(duration, retry.max_age, f"{path}.retry.max_age", 1.0),
        )
        if "first" in given.retry and read.first > read.most:
            self.say(f"{path}.retry.first", f"{retry.first} is longer than `most`, which is {retry.most}")
        return read

    def destination(self, name: str, dialect: Dialect, given: UpstreamFile, path: str) -> Destination:
        return Destination(
            name=name,
            dialect=dialect,
            mapping=self.severity(dialect.mapping, given.severity, f"{path}.severity"),
            defaults=flat(self, given.defaults, f"{path}.defaults", dialect.name),
            metrics=given.metrics,
            rules=given.rules,
            carry=given.carry,
            public_url=self.public_url,
        )

    def severity(self, mapping: Rows, table: Mapping[str, Any], path: str) -> Rows:
        if not table:
            return mapping
        given = self.struct(SeverityFile, table, path)
        try:
            return with_scale(mapping, given.out, given.in_)
        except ValueError as error:
            self.say(path, str(error))
            return mapping

    def store(self, url: str | None) -> str:
        try:
            url = default_store() if url is None else url
        except RuntimeError:  # no home directory: a container's user may have none
            self.say("store", 'no home directory for the default store; write store = "sqlite:///absolute/path"')
            return ""
        if url.startswith(("env:", "file:")):
            url = self.secret_store(url)
        if url.startswith(("postgresql://", "postgres://")):
            if is_torn(url):
                self.say("store", "special characters in the password must be percent-encoded: %2F for /, %40 for @")
            return url
        found = re.fullmatch(r"sqlite://(/[^?]*[^?/])", url)
        if found and not found[1].startswith("/~"):
            return found[1]
        if url.startswith("sqlite:"):
            say = "is not sqlite:// and an absolute path, such as sqlite:///var/lib/alert-gateway/gateway.db"
            self.say("store", f"{url!r} {say}" + ("; ~ is not expanded" if "/~" in url else ""))
        else:
            kind = repr(url.partition("://")[0])
            self.say(
                "store", f"{kind} is not a kind of store; write sqlite:///absolute/path or postgresql://user@host/name"
            )
        return ""

    def secret_store(self, reference: str) -> str:
        """The store's address from a reference to a secret, as it may contain a password. It is resolved even where
        other secrets are not."""
        try:
            self.store_secret = Secret(reference)
            return self.store_secret.value()
        except ValueError as error:
            if self.resolve:
                self.say("store", str(error))
            return UNTOLD
