"""TLS contexts that follow their files: a certificate that is replaced on the disk is used by the next connection.

Mounted secrets change by a symbolic link, without a new time: contents are compared. New contents that cannot be used
change nothing. It must not know who listens or connects, and no error holds anything of a key.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Found = Literal["same", "new", "bad"]
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION = 0x30, 0xA0


@dataclass(frozen=True)
class Pair:
    """A certificate, with those that vouch for it behind it, and its key: two PEM files, which may be one."""

    cert: str
    key: str


class Following(ssl.SSLContext):
    """A context made of `files` by `make`, and made anew by `look` where their contents have changed. Connections that
    stand already keep what they began with. Raises `ValueError` where the files cannot be used."""

    def __new__(cls, protocol: int, files: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> Following:
        """A context's protocol is settled before anything else of it."""
        return super().__new__(cls, protocol)

    def __init__(self, protocol: int, files: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._seen = digest(files)
        self._current = make()
        self.fault = ""

    def look(self) -> Found:
        """Looks at the files. Contents that cannot be used are called bad once; `fault` says why for as long."""
        seen = digest(self._files)
        if seen == self._seen:
            return "same"
        self._seen = seen
        try:
            self._current = self._make()
        except ValueError as error:
            self.fault = str(error)
            return "bad"
        except OSError as error:  # it went while we looked
            self._seen, before = b"", self.fault
            self.fault = f"a certificate's file cannot be read: {error.strerror or type(error).__name__}"
            return "same" if before == self.fault else "bad"
        self.fault = ""
        return "new"

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Begins a connection, with what is current."""
        return self._current.wrap_bio(*args, **named)


def digest(files: tuple[str, ...]) -> bytes:
    """Changes when the contents of the files do."""
    found = hashlib.sha256()
    for path in files:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            content = type(error).__name__.encode()
        found.update(len(content).to_bytes(8, "big") + content)
    return found.digest()


def not_after(path: str) -> float | None:
    """When the first of the certificates in a PEM file ends, in seconds since 1970; None where that cannot be told."""
    return min((end for _, end in _times(path)), default=None)


def not_valid(path: str, now: float) -> str:
    """Why nobody accepts a PEM file's certificates at a time, or nothing where they are valid or cannot be told."""
    times = _times(path)
    begin, end = max((one for one, _ in times), default=now), min((one for _, one in times), default=now)
    if now > end:
        return f"ended on {datetime.fromtimestamp(end, UTC):%Y-%m-%d}"
    return f"is not valid before {datetime.fromtimestamp(begin, UTC):%Y-%m-%d %H:%MZ}" if now < begin else ""


def _times(path: str) -> list[tuple[float, float]]:
    """When each certificate in a PEM file begins and ends; none where that cannot be told."""
    try:
        texts = _PEM.findall(Path(path).read_text("ascii", "replace"))
        return [_validity_of(ssl.PEM_cert_to_DER_cert(one)) for one in texts]
    except (OSError, ValueError, IndexError):
        return []


def _validity_of(der: bytes) -> tuple[float, float]:
    """Python tells this only of what a connection was verified by: in DER it is the fourth part behind the version."""
    signed = _parts(_parts(der)[0][1])[0][1]
    parts = [part for part in _parts(signed) if part[0] != _VERSION]
    tag, validity = parts[3]
    if tag != _SEQUENCE:
        raise ValueError("no certificate")
    begin, end = (_time(text.decode("ascii")) for _, text in _parts(validity))
    return begin, end


def _time(text: str) -> float:
    if len(text) == 13:  # a year of two digits is one of 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The values that stand one behind the other, each with its tag."""
    found, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length > 127:
            more = length - 128
            length, at = int.from_bytes(der[at : at + more], "big"), at + more
        found.append((tag, der[at : at + length]))
        at += length
    return found


def usual() -> ssl.SSLContext:
    """A context that trusts the usual authorities: those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name, else those that
    come with `certifi`."""
    import certifi  # it looks for its file when it is imported

    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or directory:
        return ssl.create_default_context(cafile=file or None, capath=None if file else directory)
    return ssl.create_default_context(cafile=certifi.where())


def show(context: ssl.SSLContext, pair: Pair) -> None:
    """Has the context show a certificate; raises `ValueError` that says what is wrong with the pair."""
    for path in (pair.cert, pair.key):
        _readable(path)
    try:
        context.load_cert_chain(pair.cert, pair.key, password=_no_password)
    except ssl.SSLError as error:
        raise ValueError(_why(error, pair)) from None


def trust(context: ssl.SSLContext, path: str) -> None:
    """Has the context trust further authorities; raises `ValueError` where the file names none."""
    _readable(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificate in PEM") from None


def _readable(path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; nobody is here to type its password")


def _why(error: ssl.SSLError, pair: Pair) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {pair.key} does not belong to the certificate in {pair.cert}"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "EE_MD_TOO_WEAK"):
        return f"the certificate in {pair.cert} is too weak: {error.reason.lower().replace('_', ' ')}"
    return f"{pair.cert} and {pair.key} are no certificate and key in PEM"
