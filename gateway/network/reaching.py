"""How the gateway connects to one address: directly or through a proxy, which authorities it trusts beside the usual
ones, and which certificate it shows. It must not know what is sent there.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are read here, as the HTTP client in use does not read them.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import structlog

from gateway.config.file import Checker, PairFile
from gateway.config.secrets import Secret
from gateway.network.certificates import Following, Pair, digest, show, trust, usual

log = structlog.get_logger()
LOOK_EVERY = 1.0
"""Seconds between looks at certificate files that may have changed."""


class Reach:
    """How to connect to one address: of the upstream of this name, or the heartbeat's. Without settings, the proxies of
    the environment and the usual authorities are used."""

    def __init__(
        self,
        name: str = "",
        *,
        proxy: Secret | None = None,
        is_direct: bool = False,
        ca: str = "",
        client_cert: Pair | None = None,
    ) -> None:
        self._name = name
        self._proxy = proxy
        self._is_direct = is_direct
        self._ca = ca
        self.client_cert = client_cert
        self._looked = time.monotonic()
        self._files_then = b""

    @property
    def _files(self) -> tuple[str, ...]:
        pair = self.client_cert
        return tuple(path for path in (self._ca, pair and pair.cert, pair and pair.key) if path)

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """The TLS context for the address; raises `ValueError` where its files cannot be used."""
        if not self._files:
            return _usual()
        return Following(ssl.PROTOCOL_TLS_CLIENT, self._files, self._own)

    def _own(self) -> ssl.SSLContext:
        context = usual()
        if self._ca:
            trust(context, self._ca)
        if self.client_cert:
            show(context, self.client_cert)
        return context

    def look(self) -> None:
        """Loads certificate files that have changed, once in `LOOK_EVERY`; bad ones are logged and change nothing."""
        context = self.context
        if not isinstance(context, Following) or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        found = context.look()
        if found == "new":
            log.info("certificates.reloaded", upstream=self._name)
        elif found == "bad":
            log.error("certificates.refused", upstream=self._name, reason=context.fault)

    def fingerprint(self) -> bytes:
        """A digest that changes when the certificates or the proxy's address do."""
        files = digest(self._files)
        if files != self._files_then:  # a new attempt because of new files is to be made with these: `look` at once
            self._files_then, self._looked = files, -LOOK_EVERY
        return files + (hashlib.sha256(self._proxy.value().encode()).digest() if self._proxy else b"")

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy that a request to this address goes through; raises `ValueError` where it cannot be used."""
        if self._is_direct:
            return None
        if self._proxy:
            return _proxy(self._proxy.value(), "the setting `proxy`")
        return proxy_in(os.environ, url)

    def __repr__(self) -> str:
        return f"Reach(files={self._files})"


@functools.cache
def _usual() -> ssl.SSLContext:
    """One context for all: reading the usual authorities takes time and memory."""
    return usual()


# --- proxies in the environment ------------------------------------------------------------------------------


def proxy_in(environ: Mapping[str, str], url: str) -> Proxy | None:
    """The proxy that an environment names for an address. Lower case wins over upper case, as everywhere."""
    parts = urlsplit(url)
    name = f"{parts.scheme}_proxy"
    given = _variable(environ, name)
    if not given or is_exempt(parts.hostname or "", parts.port, _variable(environ, "no_proxy"), parts.scheme):
        return None
    return _proxy(given if "://" in given else f"http://{given}", name.upper())


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, environ.get(name.upper(), "")).strip()


def is_exempt(host: str, port: int | None, no_proxy: str, scheme: str = "https") -> bool:
    """Whether `NO_PROXY` names this host: its entries are `*`, a domain with everything below it, an address or a
    network, each with an optional port."""
    host = host.lower().rstrip(".")
    port = port or {"http": 80, "https": 443}.get(scheme)
    return any(_is_named(host, port, entry.strip().lower()) for entry in no_proxy.split(",") if entry.strip())


def _is_named(host: str, port: int | None, entry: str) -> bool:
    if entry == "*":
        return True
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.removeprefix("*").lstrip(".").rstrip(".")
        return host == domain or host.endswith(f".{domain}")
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


@dataclass(frozen=True)
class Proxy:
    """A proxy: its address without credentials, and the header that holds them, empty where it wants none."""

    url: str
    authorization: str = field(default="", repr=False)


def _proxy(text: str, where: str) -> Proxy:
    """Parses a proxy's address; raises `ValueError`, which does not quote it: it may hold a password."""
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_good = is_good and parts.path in ("", "/") and not (parts.query or parts.fragment)
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(
            f"{where} is not the address of a proxy such as http://proxy.example.com:3128; "
            "special characters in a password must be percent-encoded"
        )
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.username is None:
        return Proxy(url)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(url, "Basic " + base64.b64encode(pair.encode()).decode())


# --- the configuration ---------------------------------------------------------------------------------------


class _Written(Protocol):
    """The connection settings of a table of the configuration."""

    proxy: str
    ca: str | None
    client_cert: dict[str, Any] | None


def reach(check: Checker, given: _Written, path: str) -> Reach:
    """Builds the `Reach` of a table's settings; what is wrong with them is reported to `check`."""
    written = (
        check.struct(PairFile, given.client_cert, f"{path}.client_cert") if given.client_cert is not None else None
    )
    pair = Pair(written.cert, written.key) if written and written.cert and written.key else None
    if given.ca == "":
        check.say(f"{path}.ca", "is empty; leave it out if the default authorities are enough")
    if written and not pair and not {"cert", "key"} - (given.client_cert or {}).keys():
        check.say(f"{path}.client_cert", "names no files: write the paths of `cert` and `key`")
    if check.resolve and (pair or given.ca):
        _try(check, pair, given.ca or "", path)
    proxy = _checked_proxy(check, given.proxy, f"{path}.proxy")
    name = path.removeprefix("upstreams.")
    return Reach(name, proxy=proxy, is_direct=given.proxy == "off", ca=given.ca or "", client_cert=pair)


def _try(check: Checker, pair: Pair | None, ca: str, path: str) -> None:
    """Loads the files, and reports those that cannot be used."""
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca:
            trust(alone, ca)
    except ValueError as error:
        check.say(f"{path}.ca", str(error))
    try:
        if pair:
            show(alone, pair)
    except ValueError as error:
        check.say(f"{path}.client_cert", str(error))


def _checked_proxy(check: Checker, text: str, path: str) -> Secret | None:
    if text == "off":
        return None
    hint = 'write "env", "off", or an address'
    if text.lower() in _MEANT:
        check.say(path, f"{text!r} is not a proxy; did you mean {_MEANT[text.lower()]!r}?")
        return None
    try:
        if text == "env":
            for scheme in ("http", "https") if check.resolve else ():
                proxy_in(os.environ, f"{scheme}://host.invalid")
            return None
        secret = Secret(text, resolve=check.resolve)
        if check.resolve:
            _proxy(secret.value(), "this")
    except ValueError as error:
        check.say(path, f"{error}; {hint}")
        return None
    return secret


_MEANT = {"": "off", "none": "off", "no": "off", "false": "off", "direct": "off"} | {"on": "env", "environment": "env"}
