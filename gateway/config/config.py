"""The checked configuration: what the rest of the gateway works with.

The file as it is written is in `gateway.config.file`; `gateway.config.loading` reads and checks it. It must not know
any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.canonical import Flat
from gateway.config.choosing import Keys
from gateway.config.file import TestFile
from gateway.config.routing import Route
from gateway.config.secrets import ANONYMOUS, Keyring, Secret
from gateway.dialect import Dialect
from gateway.mapping.saying import Destination
from gateway.network.listening import Tls
from gateway.network.reaching import Reach

UNTOLD = "postgresql://(not told)"
"""Stands for the address of a store that is a secret which could not be resolved: it leads nowhere, so that no other
store is used by mistake."""


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
