"""TLS contexts that follow their files: a certificate that is replaced on disk is used by the next connection.

Mounted secrets are replaced by switching a symbolic link, without a new modification time, so contents are compared.
New contents that cannot be used change nothing. It must not know who listens or connects, and no error contains any
part of a key.
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
    """A certificate, followed by its intermediates, and its key: two PEM files, which may be the same file."""

    cert: str
    key: str


class Following(ssl.SSLContext):
    """A context made of `files` by `make`, and made anew by `look` when their contents have changed. Established
    connections keep the context they began with. Raises `ValueError` where the files cannot be used."""

    def __new__(cls, protocol: int, files: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> Following:
        """`SSLContext` takes its protocol in `__new__`."""
        return super().__new__(cls, protocol)

    def __init__(self, protocol: int, files: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._seen = digest(files)
        self._current = make()
        self.fault = ""

    def look(self) -> Found:
        """Compares the files with their last contents. Returns "bad" once for contents that cannot be used; `fault`
        holds the reason for as long as they stay."""
        seen = digest(self._files)
        if seen == self._seen:
            return "same"
        self._seen = seen
        try:
            self._current = self._make()
        except ValueError as error:
            self.fault = str(error)
            return "bad"
        except OSError as error:  # the file vanished meanwhile
            self._seen, before = b"", self.fault
            self.fault = f"a certificate file cannot be read: {error.strerror or type(error).__name__}"
            return "same" if before == self.fault else "bad"
        self.fault = ""
        return "new"

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Begins a connection with the current context."""
        return self._current.wrap_bio(*args, **named)


def digest(files: tuple[str, ...]) -> bytes:
    """A digest of the contents of the files, or of the errors in reading them."""
    found = hashlib.sha256()
    for path in files:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            content = type(error).__name__.encode()
        found.update(len(content).to_bytes(8, "big") + content)
    return found.digest()


def not_after(path: str) -> float | None:
    """When the first certificate in a PEM file to expire does so, in seconds since 1970; None if that is unknown."""
    return min((end for _, end in _times(path)), default=None)


def not_valid(path: str, now: float) -> str:
    """Why a PEM file's certificates are not valid at `now`; empty where they are, or where that is unknown."""
    times = _times(path)
    begin, end = max((one for one, _ in times), default=now), min((one for _, one in times), default=now)
    if now > end:
        return f"expired on {datetime.fromtimestamp(end, UTC):%Y-%m-%d}"
    return f"is not valid before {datetime.fromtimestamp(begin, UTC):%Y-%m-%d %H:%MZ}" if now < begin else ""


def _times(path: str) -> list[tuple[float, float]]:
    """Start and end of the validity of each certificate in a PEM file; empty where the file cannot be read so."""
    try:
        texts = _PEM.findall(Path(path).read_text("ascii", "replace"))
        return [_validity_of(ssl.PEM_cert_to_DER_cert(one)) for one in texts]
    except (OSError, ValueError, IndexError):
        return []


def _validity_of(der: bytes) -> tuple[float, float]:
    """Start and end of a certificate's validity, read from the DER: Python gives it only for the certificate of a
    verified peer. It is the fourth element of the signed part, not counting the optional version."""
    signed = _parts(_parts(der)[0][1])[0][1]
    parts = [part for part in _parts(signed) if part[0] != _VERSION]
    tag, validity = parts[3]
    if tag != _SEQUENCE:
        raise ValueError("no certificate")
    begin, end = (_time(text.decode("ascii")) for _, text in _parts(validity))
    return begin, end


def _time(text: str) -> float:
    if len(text) == 13:  # UTCTime: a year of two digits, 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The consecutive DER values, each with its tag."""
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
    """A context that trusts the default authorities: those in `SSL_CERT_FILE` or `SSL_CERT_DIR`, else those of
    `certifi`."""
    import certifi  # it looks for its file when it is imported

    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or directory:
        return ssl.create_default_context(cafile=file or None, capath=None if file else directory)
    return ssl.create_default_context(cafile=certifi.where())


def show(context: ssl.SSLContext, pair: Pair) -> None:
    """Loads the context's own certificate and key; raises `ValueError` that says what is wrong with the pair."""
    for path in (pair.cert, pair.key):
        _readable(path)
    try:
        context.load_cert_chain(pair.cert, pair.key, password=_no_password)
    except ssl.SSLError as error:
        raise ValueError(_why(error, pair)) from None


def trust(context: ssl.SSLContext, path: str) -> None:
    """Makes the context trust further authorities; raises `ValueError` where the file has none."""
    _readable(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} contains no PEM certificate") from None


def _readable(path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None


def _no_password() -> str:
    raise ValueError("the private key is encrypted; write it without a password")


def _why(error: ssl.SSLError, pair: Pair) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {pair.key} does not belong to the certificate in {pair.cert}"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "EE_MD_TOO_WEAK"):
        return f"the certificate in {pair.cert} is too weak: {error.reason.lower().replace('_', ' ')}"
    return f"{pair.cert} and {pair.key} are not a certificate and its key in PEM"
