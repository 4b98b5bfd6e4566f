"""Where the gateway can be reached: the callers' address and its certificate, the operators' address and its token,
and the host names at whose root a dialect is served alone.

Combinations that contradict each other are refused here. It must not know any vendor.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.config.file import Checker, File, TlsFile
from gateway.config.secrets import Secret
from gateway.config.values import is_address, is_loopback, without_secrets
from gateway.network.certificates import Following, Pair, not_valid, show, trust

if TYPE_CHECKING:
    from gateway.config.config import Config, Inbound

Address = tuple[str, int]
SHORTEST_TOKEN = 16
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")


@dataclass(frozen=True)
class Tls:
    """The server certificate, and the file with the authorities that callers' own certificates must be issued by."""

    pair: Pair
    client_ca: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are followed for changes."""
        return (self.pair.cert, self.pair.key, *([self.client_ca] if self.client_ca else []))

    def context(self, *, asks: bool = True) -> Following:
        """The context of a listener. Without `asks` no client certificate is required."""
        return Following(ssl.PROTOCOL_TLS_SERVER, self.files, lambda: self._made(asks))

    def _made(self, asks: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        show(context, self.pair)
        if self.client_ca and asks:
            trust(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass(frozen=True)
class Listening:
    """The checked addresses. `admin` is None where operators use the callers' address."""

    listen: Address
    admin: Address | None
    admin_token: Secret | None
    tls: Tls | None


def listening(check: Checker, file: File, inbounds: list[Inbound]) -> Listening:
    """The addresses of a file; invalid or contradictory ones are recorded as problems."""
    listen = _address(check, file.listen, "listen") or ("127.0.0.1", 8080)
    if not is_loopback(listen[0]):
        _keyless(check, listen[0], inbounds)
    admin = _address(check, file.admin, "admin") if file.admin is not None else None
    token = _token(check, file.admin_token) if file.admin_token is not None else None
    if admin and _is_same(admin, listen):
        check.say("admin", f"is the same as listen, {file.listen}; leave it out, or use another port")
    if admin and not is_loopback(admin[0]) and file.admin_token is None:
        check.say(
            "admin",
            f'{admin[0]} is reachable from other machines: add admin_token = "env:NAME", or listen on 127.0.0.1',
        )
    if token and not admin and not is_loopback(listen[0]):
        check.say(
            "admin_token",
            "has no effect: operators are refused on an address that callers on other machines share; "
            'add admin = "127.0.0.1:9092"',
        )
    return Listening(listen, admin, token, _tls(check, file.tls))


def public_url(check: Checker, text: str | None) -> str:
    """The base URL for links in pages, without a slash at its end; empty where pages have no links."""
    if text is not None and not is_address(text):
        check.say("public_url", f"{without_secrets(text)!r} is not an address such as https://alerts.example.com")
    return (text or "").rstrip("/")


def _token(check: Checker, text: str) -> Secret:
    before = len(check.problems)
    token = check.secret(text, "admin_token")
    if check.resolve and len(check.problems) == before and len(token.value()) < SHORTEST_TOKEN:
        check.say("admin_token", f"is shorter than {SHORTEST_TOKEN} characters; make one with: openssl rand -hex 32")
    return token


def _address(check: Checker, text: str, path: str) -> Address | None:
    if "://" in text or "/" in text:
        plain = re.sub(r"^\w+://|/.*$", "", text)
        check.say(path, f"{text!r} is not HOST:PORT; did you mean {plain!r}?")
        return None
    host, _, port = text.rpartition(":")
    is_bare = ":" in host and not (host.startswith("[") and host.endswith("]"))  # `::1` is no host and a port
    if not host or host == "*" or is_bare or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        check.say(path, f"{text!r} is not HOST:PORT{_meant(text, host, port)}")
        return None
    return host.strip("[]"), int(port)


def _meant(text: str, host: str, port: str) -> str:
    """A suggestion of what was probably meant, to be appended to a message."""
    if host == "*":
        return f"; did you mean '0.0.0.0:{port}'?"
    if not host and port.isdigit():
        return f"; did you mean '127.0.0.1:{port}', or '0.0.0.0:{port}' for callers on other machines?"
    return f"; write an IPv6 address in brackets, as '[{text}]:8080'" if text.count(":") > 1 and "[" not in text else ""


def _keyless(check: Checker, host: str, inbounds: list[Inbound]) -> None:
    for inbound in inbounds:
        if not inbound.keyring and not inbound.anonymous:
            check.say(
                f"inbound.{inbound.dialect.name}",
                f"has no keys, and {host} is reachable from other machines: add keys, or anonymous = true",
            )


def _is_same(one: Address, other: Address) -> bool:
    """Whether two listeners would conflict. Port 0 never does."""
    everywhere = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    is_near = one[0] == other[0] or one[0] in everywhere or other[0] in everywhere
    return is_near and one[1] == other[1] != 0


def in_the_clear(config: Config) -> Iterator[str]:
    """Warnings of `check` about an operators' token that travels unencrypted."""
    if config.admin and config.tls is None and not is_loopback(config.admin[0]):
        yield f"admin: {config.admin[0]} is served without TLS, so the token is sent unencrypted; add tls"


def outdated(config: Config) -> Iterator[str]:
    """Warnings of `check` about the gateway's own certificates that are not valid now."""
    shown = {f"upstreams.{name}.client_cert": one.reach.client_cert for name, one in config.upstreams.items()}
    shown |= {"heartbeat.client_cert": config.heartbeat.reach.client_cert if config.heartbeat else None}
    shown |= {"tls": config.tls.pair if config.tls else None}
    for place, pair in shown.items():
        if pair and (why := not_valid(pair.cert, time.time())):
            yield f"{place}: the certificate in {pair.cert} {why}"


def _tls(check: Checker, table: dict[str, Any] | None) -> Tls | None:
    if table is None:
        return None
    before = len(check.problems)
    given = check.struct(TlsFile, table, "tls")
    for name in ("cert", "key", "client_ca"):
        text = getattr(given, name)
        if text is not None and (not text or text.startswith(("env:", "file:", "-----BEGIN"))) and name in table:
            check.say(f"tls.{name}", "is not the path of a PEM file; write just the path: /etc/alert-gateway/tls.pem")
    tls = Tls(Pair(given.cert, given.key), given.client_ca)
    if check.resolve and len(check.problems) == before:
        _try(check, tls)
    return tls


def _try(check: Checker, tls: Tls) -> None:
    """Records what is wrong with the files."""
    try:
        Tls(tls.pair).context()
    except ValueError as error:
        check.say("tls", str(error))
    try:
        if tls.client_ca:
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.client_ca)
    except ValueError as error:
        check.say("tls.client_ca", str(error))


# --- names ---------------------------------------------------------------------------------------------------


def host_names(check: Checker, given: str | list[str], path: str) -> frozenset[str]:
    """The host names at whose root an inbound is served alone."""
    names = [given] if isinstance(given, str) else given
    for name in names:
        if not _NAME.fullmatch(name.lower().rstrip(".")):
            plain = re.sub(r"^\w+://|[:/].*$", "", name) if "/" in name or ":" in name else ""
            hint = f"; did you mean {plain!r}?" if _NAME.fullmatch(plain.lower()) else ""
            check.say(path, f"{name!r} is not a host name such as alerts.example.com{hint}")
    return frozenset(name.lower().rstrip(".") for name in names)


def host_in(header: str) -> str:
    """The name in a Host header, without its port."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def shape_of(path: str) -> str:
    """A route's path without the names of its variables: two routes of the same shape match the same requests."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def meet(one: Inbound, other: Inbound) -> bool:
    """Whether there is a host name at whose root both are served."""
    return bool(one.hosts & other.hosts) or not (one.hosts or other.hosts)


def clashes(check: Checker, inbounds: Iterable[Inbound]) -> None:
    """Refuses main routes of several dialects that have the same method and path at the root of the same host name."""
    holders: dict[tuple[str, str], list[Inbound]] = {}
    for inbound in inbounds:
        for route in inbound.dialect.routes:
            if route.side or not route.at_root:
                continue
            there = holders.setdefault((route.method, shape_of(route.path)), [])
            for other in there:
                if other is not inbound and meet(other, inbound):
                    check.say(
                        f"inbound.{inbound.dialect.name}",
                        f"{route.method} {route.path} is also a route of {other.dialect.name}; give one of them "
                        'a host name of its own, such as host = "alerts.example.com", or serve them from two gateways',
                    )
            there.append(inbound)
