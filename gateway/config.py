"""The configuration: one TOML file, checked whole, every problem at once with its path and a suggestion.

`Config` is what the rest of the gateway works with; the file as it is written is in `gateway.configfile`. A dialect's
own settings come from its declaration. It must not know any vendor.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields as struct_fields

from gateway.canonical import Flat
from gateway.configfile import (
    File,
    InboundFile,
    RetryFile,
    RouteFile,
    SeverityFile,
    UpstreamFile,
    WaitingFile,
    count,
    default_store,
    duration,
    flat_of,
    is_address,
    is_loopback,
    size,
    some_time,
)
from gateway.dialect import Dialect
from gateway.errors import ConfigurationError
from gateway.mapping import Mapping as Rows
from gateway.registry import dialects
from gateway.routing import Hop, Route, parse_matcher
from gateway.secrets import Keyring, Secret
from gateway.translation import Destination

S = TypeVar("S", bound=Struct)
ANONYMOUS = "anonymous"


# --- what the gateway works with -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Inbound:
    """A dialect that callers may speak: its keyring, the scope of each caller, when they are answered."""

    dialect: Dialect
    keyring: Keyring
    callers: frozenset[str]
    anonymous: bool
    scope: str | None
    reply: Literal["accepted", "delivered"]

    def scope_of(self, caller: str) -> str:
        """What the ids, keys and names of this caller belong to."""
        return self.scope if self.scope is not None else f"{self.dialect.name}/{caller}"


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Seconds: the first pause, the longest, and the age at which a delivery is given up."""

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
    """A configured destination: where it is, how to get in, and what its configuration says about content."""

    name: str
    destination: Destination
    url: str
    key: Secret | None = None
    is_exchanged: bool = False
    headers: Mapping[str, Secret] = field(default_factory=dict)
    timeout: float = 10.0
    retry: Retry = field(default_factory=Retry)
    concurrency: int = 8
    on_resolve: Literal["disable", "delete", "keep"] | None = None
    settings: Any = None

    @property
    def dialect(self) -> Dialect:
        """The dialect it speaks."""
        return self.destination.dialect


@dataclass(frozen=True, kw_only=True)
class Config:
    """A configuration that was checked. Only a stand-in for a vendor does not restore what was carried."""

    listen: tuple[str, int]
    store: str
    retention: float
    reply_timeout: float
    max_body: int
    max_waiting: Waiting
    inbounds: Mapping[str, Inbound]
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...]
    restores: bool = True


def shape_of(path: str) -> str:
    """A route's path with its variables blanked out: two of one shape cannot be told apart."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def load(path: str | os.PathLike[str], *, secrets: bool = True, listen: str | None = None) -> Config:
    """Reads and checks a file; raises `ConfigurationError` with everything that is wrong with it.

    Without `secrets` it does not look for the credentials that the file refers to. `listen` replaces the file's.
    """
    try:
        text = Path(path).read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: cannot be read: {error}"]) from None
    return parse(text, secrets=secrets, listen=listen)


def parse(text: str, *, secrets: bool = True, listen: str | None = None) -> Config:
    """Checks the text of a configuration file; see `load`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"not TOML: {error}"]) from None
    return _Check(secrets).config({**table, "listen": listen} if listen else table)


class _Check:
    """Goes through the whole file and collects problems instead of stopping at the first."""

    def __init__(self, secrets: bool) -> None:
        self.resolve = secrets
        self.problems: list[str] = []

    def config(self, table: Mapping[str, Any]) -> Config:
        file = self.struct(File, table, "")
        inbounds = {name: self.inbound(name, inner, file) for name, inner in file.inbound.items()}
        upstreams = {name: self.upstream(name, inner) for name, inner in file.upstreams.items()}
        known = {name: inbound for name, inbound in inbounds.items() if inbound}
        routes = self.routes(file, known, list(upstreams))
        listen = self.listen(file.listen, list(known.values()))
        if not file.inbound:
            self.say("inbound", "nobody can call: add a table such as [inbound.DIALECT], one of " + _names())
        self.clashes(list(known.values()))
        config = Config(
            listen=listen,
            store=self.store(file.store),
            retention=self.parsed(duration, file.retention, "retention", 1.0),
            reply_timeout=self.parsed(some_time, file.reply_timeout, "reply_timeout", 1.0),
            max_body=self.parsed(size, file.max_body, "max_body", 1),
            max_waiting=self.waiting(file.max_waiting),
            inbounds=known,
            upstreams={name: upstream for name, upstream in upstreams.items() if upstream},
            routes=routes,
        )
        if self.problems:
            raise ConfigurationError(self.problems)
        return config

    def say(self, path: str, problem: str) -> None:
        self.problems.append(f"{path}: {problem}" if path else problem)

    def struct(self, kind: type[S], table: Mapping[str, Any], path: str, also: tuple[str, ...] = ()) -> S:
        """Converts a table field by field; what is wrong is said, and a harmless value stands in for it."""
        given: dict[str, Any] = {}
        described = {item.encode_name: item for item in struct_fields(kind)}
        for key in table:
            if key not in described and key not in also:
                close = difflib.get_close_matches(key, [*described, *also], 1, 0.5)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(described))}"
                self.say(_join(path, key), f"unknown key{hint}")
        hints = get_type_hints(kind)
        for name, item in described.items():
            if name in table:
                try:
                    given[item.name] = msgspec.convert(table[name], hints[item.name])
                    continue
                except msgspec.ValidationError as error:
                    self.say(_join(path, name), str(error).replace(" - at `$", " - at `").replace("`$`", "`"))
            elif item.default is not NODEFAULT or item.default_factory is not NODEFAULT:
                continue
            else:
                self.say(_join(path, name), "is required")
            if item.default is NODEFAULT and item.default_factory is NODEFAULT:
                given[item.name] = [] if name == "to" else ""
        return kind(**given)

    def parsed(self, parse_value: Any, value: Any, path: str, otherwise: Any) -> Any:
        try:
            return parse_value(value)
        except (ValueError, TypeError) as error:
            self.say(path, str(error))
            return otherwise

    def secret(self, text: str, path: str) -> Secret:
        try:
            return Secret(text, resolve=self.resolve)
        except ValueError as error:
            self.say(path, str(error))
            return Secret("unusable")

    # --- the parts of the file ---------------------------------------------------------------------------

    def inbound(self, name: str, table: Any, file: File) -> Inbound | None:
        path = f"inbound.{name}"
        dialect = self.dialect(name, path)
        if not dialect or not isinstance(table, dict):
            return None
        given = self.struct(InboundFile, table, path)
        keys = {
            caller: [
                self.secret(text, f"{path}.keys.{caller}") for text in ([listed] if isinstance(listed, str) else listed)
            ]
            for caller, listed in given.keys.items()
        }
        keyring = Keyring(keys)
        for caller in keyring.shared() if self.resolve and not self.problems else ():
            self.say(f"{path}.keys.{caller}", "is the credential of another caller too, so it names neither")
        for caller in keys:
            if caller == ANONYMOUS or "/" in caller or not caller:
                self.say(f"{path}.keys.{caller}", "cannot be a caller's name")
        return Inbound(
            dialect=dialect,
            keyring=keyring,
            callers=frozenset(keys),
            anonymous=given.anonymous,
            scope=given.scope,
            reply=given.reply or file.reply or dialect.reply,
        )

    def dialect(self, name: str, path: str) -> Dialect | None:
        found = dialects().get(name)
        if not found:
            close = difflib.get_close_matches(name, dialects(), 1)
            self.say(path, f"no such dialect{f'; did you mean {close[0]!r}?' if close else ''}; known are {_names()}")
        return found

    def upstream(self, name: str, table: Any) -> Upstream | None:
        path = f"upstreams.{name}"
        if not isinstance(table, dict):
            self.say(path, "is not a table")
            return None
        dialect = self.dialect(table["dialect"], f"{path}.dialect") if isinstance(table.get("dialect"), str) else None
        own = dialect.settings if dialect else None
        own_fields = tuple(item.encode_name for item in struct_fields(own)) if own else ()
        given = self.struct(UpstreamFile, table, path, own_fields)
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            self.say(path, "an upstream's name is made of letters, digits, dots, dashes and underscores")
        if not is_address(given.url or ""):
            self.say(
                f"{path}.url", f"{given.url!r} is not an address such as {dialect.url if dialect else 'https://…'}"
            )
        if not dialect:
            return None
        key = self.secret(given.key, f"{path}.key") if given.key is not None else None
        settings = self.settings(own, table, path) if own else None
        exchanged = _secret_in(settings)
        if key is None and exchanged is None:
            self.say(f"{path}.key", 'is required: "env:NAME", "file:PATH" or the key itself')
        return Upstream(
            name=name,
            destination=self.destination(name, dialect, given, path),
            url=given.url.rstrip("/"),
            key=key or exchanged,
            is_exchanged=key is None and exchanged is not None,
            headers={header: self.secret(text, f"{path}.headers.{header}") for header, text in given.headers.items()},
            timeout=self.parsed(some_time, given.timeout, f"{path}.timeout", 10.0),
            retry=self.retry(given, path),
            concurrency=self.parsed(count, given.concurrency, f"{path}.concurrency", 1),
            on_resolve=given.on_resolve or dialect.outbound.on_resolve,
            settings=settings,
        )

    def settings(self, kind: type[Struct], table: Mapping[str, Any], path: str) -> Any:
        """The dialect's own section; a field typed as a secret is resolved like every other secret."""
        described = {item.encode_name for item in struct_fields(kind)}
        hints = get_type_hints(kind)
        given: dict[str, Any] = {}
        for item in struct_fields(kind):
            if item.encode_name in table and item.encode_name in described:
                value = table[item.encode_name]
                if Secret in getattr(hints[item.name], "__args__", (hints[item.name],)):
                    given[item.name] = self.secret(str(value), _join(path, item.encode_name))
                else:
                    given[item.name] = self.parsed(
                        lambda value, wanted=hints[item.name]: msgspec.convert(value, wanted),
                        value,
                        _join(path, item.encode_name),
                        value,
                    )
        return kind(**given)

    def waiting(self, given: int | dict[str, Any]) -> Waiting:
        table = {"deliveries": given} if isinstance(given, int) else given
        file = self.struct(WaitingFile, table, "max_waiting")
        return Waiting(
            deliveries=self.parsed(count, file.deliveries, "max_waiting.deliveries", 1),
            bytes=self.parsed(size, file.bytes, "max_waiting.bytes", 1),
        )

    def retry(self, given: UpstreamFile, path: str) -> Retry:
        retry = self.struct(RetryFile, given.retry, f"{path}.retry")
        return Retry(
            first=self.parsed(some_time, retry.first, f"{path}.retry.first", 1.0),
            most=self.parsed(some_time, retry.most, f"{path}.retry.most", 1.0),
            max_age=self.parsed(duration, retry.max_age, f"{path}.retry.max_age", 1.0),
        )

    def destination(self, name: str, dialect: Dialect, given: UpstreamFile, path: str) -> Destination:
        return Destination(
            name=name,
            dialect=dialect,
            mapping=self.severity(dialect.mapping, given.severity, f"{path}.severity"),
            defaults=self.flat(given.defaults, f"{path}.defaults", dialect.name),
            metrics=given.metrics,
            rules=given.rules,
            carry=given.carry,
        )

    def severity(self, mapping: Rows, table: Mapping[str, Any], path: str) -> Rows:
        if not table:
            return mapping
        given = self.struct(SeverityFile, table, path)
        try:
            return mapping.with_scale(given.out, given.in_)
        except ValueError as error:
            self.say(path, str(error))
            return mapping

    def flat(self, table: Any, path: str, dialect: str = "") -> Flat:
        if not isinstance(table, dict):
            self.say(path, "is not a table of alert fields")
            return {}
        try:
            return flat_of(table, dialect)
        except KeyError as error:
            self.say(_join(path, str(error.args[0])), "is no field of an alert")
        except msgspec.ValidationError as error:
            self.say(path, str(error))
        return {}

    def routes(self, file: File, inbounds: Mapping[str, Inbound], upstreams: list[str]) -> tuple[Route, ...]:
        if not file.routes:
            if len(upstreams) == 1:
                return (Route(name="1", from_=(), when=(), to=(Hop(upstreams[0]),)),)
            self.say("routes", "are required, as there is not just one upstream: add [[routes]] with `to`")
        return tuple(self.route(number, table, inbounds, upstreams) for number, table in enumerate(file.routes, 1))

    def route(
        self, number: int, table: Mapping[str, Any], inbounds: Mapping[str, Inbound], upstreams: list[str]
    ) -> Route:
        path = f"routes[{number}]"
        given = self.struct(RouteFile, table, path)
        for who in given.from_:
            dialect, _, caller = who.partition("/")
            if dialect not in inbounds:
                self.say(f"{path}.from", f"{who!r} is no [inbound.…]; there are {', '.join(inbounds) or 'none'}")
            elif caller and caller not in inbounds[dialect].callers | {ANONYMOUS}:
                known = ", ".join(sorted(inbounds[dialect].callers)) or "none"
                self.say(f"{path}.from", f"{dialect} has no caller {caller!r}; there are {known}")
        matchers = [self.parsed(parse_matcher, text, f"{path}.when", None) for text in given.when]
        everywhere = self.flat(given.set, f"{path}.set")
        hops = [self.hop(entry, everywhere, path, upstreams) for entry in given.to]
        if not given.to and not given.because:
            self.say(f"{path}.to", 'throws alerts away; if that is meant, say why: because = "…"')
        return Route(
            name=given.name or str(number),
            from_=tuple(given.from_),
            when=tuple(matcher for matcher in matchers if matcher),
            to=tuple(hops),
            goes_on=given.continue_,
            because=given.because,
        )

    def hop(self, entry: str | dict[str, Any], everywhere: Flat, path: str, upstreams: list[str]) -> Hop:
        name = entry if isinstance(entry, str) else str(entry.get("upstream", ""))
        replaced = dict(everywhere)
        if isinstance(entry, dict):
            for key in entry:
                if key not in ("upstream", "set"):
                    self.say(f"{path}.to", f"unknown key {key!r}; known are upstream, set")
            replaced |= self.flat(entry.get("set", {}), f"{path}.to.set")
        if name not in upstreams:
            close = difflib.get_close_matches(name, upstreams, 1)
            self.say(f"{path}.to", f"no upstream {name!r}{f'; did you mean {close[0]!r}?' if close else ''}")
        return Hop(name, replaced)

    def listen(self, text: str, inbounds: list[Inbound]) -> tuple[str, int]:
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            self.say("listen", f"{text!r} is not HOST:PORT")
            return "127.0.0.1", 8080
        if not is_loopback(host):
            for inbound in inbounds:
                if not inbound.keyring and not inbound.anonymous:
                    self.say(
                        f"inbound.{inbound.dialect.name}",
                        f"has no keys, and {host} can be reached from elsewhere: add keys, or anonymous = true",
                    )
        return host.strip("[]"), int(port)

    def store(self, url: str | None) -> str:
        url = url or default_store()
        found = re.fullmatch(r"sqlite://(/.+)", url)
        if not found:
            self.say("store", f"{url.partition('://')[0]!r} is not a store here; write sqlite:///absolute/path")
            return ""
        return found[1]

    def clashes(self, inbounds: list[Inbound]) -> None:
        """Two main routes of one method and path at the root cannot both be served."""
        holders: dict[tuple[str, str], str] = {}
        for inbound in inbounds:
            for route in inbound.dialect.routes:
                shape = (route.method, shape_of(route.path))
                other = None if route.side else holders.setdefault(shape, inbound.dialect.name)
                if other and other != inbound.dialect.name:
                    self.say(
                        f"inbound.{inbound.dialect.name}",
                        f"{route.method} {route.path} is also a route of {other}; serve them from two gateways",
                    )


def _secret_in(settings: Any) -> Secret | None:
    """The credential in a dialect's own settings, which is exchanged for tokens."""
    names = settings.__struct_fields__ if settings is not None else ()
    return next((value for name in names if isinstance(value := getattr(settings, name), Secret)), None)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _names() -> str:
    return ", ".join(dialects())
