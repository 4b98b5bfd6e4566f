"""Secrets by reference: where a credential comes from, without ever showing what it is.

`env:NAME`, `file:PATH` (trailing newline stripped, read again when the file changes) or the literal itself. A
secret's value leaves this module only through `Secret.value`, never through `str`, `repr` or an error. While a file
cannot be read or used, the secret keeps the value it had, and that is logged once; while a file is empty, only for the
time that writing it may take.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from gateway.config.following import Directory

log = structlog.get_logger()
MASK = "•••"
ANONYMOUS = "anonymous"
"""The name of callers without a credential, where these are let in; no caller may be named so."""
FEW, LOOK_EVERY = 32, 1.0
"""Up to `FEW` files are checked for changes at each request. With more, that would cost a request more than all else:
they are checked once in `LOOK_EVERY` seconds, like those of a directory."""


BEING_WRITTEN = 10.0
"""Seconds for which the old value counts where a file was emptied: `vault read … >key` empties it before it asks. After
that the credential is taken to be withdrawn: an empty one is nobody's."""
SAID_AFTER = 2.0
"""Seconds after which a file that cannot be used is logged: many have been rewritten by then."""


def unread(error: Exception) -> str:
    """Why a file could not be read, without any of its content."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return getattr(error, "strerror", None) or type(error).__name__


EMPTY = "is empty"


def fault_of(secret: str) -> str:
    """Why a text cannot be a credential, or an empty text."""
    if not secret:
        return EMPTY
    if secret.isascii() and secret.isprintable():
        return ""
    return "has characters that are not allowed in a header" + (", including a line feed" if "\n" in secret else "")


class Secret:
    """A credential by reference. Raises `ValueError`, naming the reference, where it cannot be resolved."""

    __slots__ = ("_cached", "_fault", "_fault_since", "_is_said", "_literal", "_name", "_signature", "_source")

    def __init__(self, text: str, *, resolve: bool = True) -> None:
        if "${" in text or text.startswith("ENV:") or re.fullmatch(r"\$[A-Z][A-Z0-9_]*", text):
            name = text.removeprefix("ENV:").removeprefix("$").removeprefix("{").removesuffix("}")
            shown = name if name.isidentifier() and len(name) < 64 else "NAME"
            raise ValueError(f"to use an environment variable, write env:{shown} as the whole value")
        source, colon, name = text.partition(":")
        if colon and source not in ("env", "file") and source.lower() in ("env", "file"):
            raise ValueError(f"write {source.lower()}: in lower case")
        self._source = source if colon and source in ("env", "file") else "literal"
        self._name = name if self._source != "literal" else ""
        self._literal = text if self._source == "literal" else ""
        self._signature: tuple[int, int, int] | None = None
        self._cached = ""
        self._fault = ""
        self._fault_since = 0.0
        self._is_said = False
        if self._source == "env":
            self._literal = os.environ.get(name, "")
            if resolve and not self._literal:
                raise ValueError(f"the variable {name} is not set")
        elif self._source == "literal" and not text:
            raise ValueError("the secret is empty")
        elif resolve and self._source == "file" and not self.value():
            raise ValueError(f"the file {name} is empty")
        if resolve and (fault := fault_of(self.value())):
            raise ValueError(f"the secret {fault}")

    @property
    def is_followed(self) -> bool:
        """Whether it may change while the gateway runs."""
        return self._source == "file"

    def if_known(self) -> str | None:
        """The credential, or None where it cannot be had."""
        try:
            return self.value()
        except ValueError:
            return None

    def value(self) -> str:
        """The credential itself, as it is now."""
        if self._source != "file":
            return self._literal
        fault = self._follow()
        if self._signature is None:
            raise ValueError(f"the file {self._name} {fault}")
        if fault or self._fault:
            self._note(fault)
        is_emptied = fault == EMPTY and time.monotonic() - self._fault_since >= BEING_WRITTEN
        return "" if is_emptied else self._cached

    def _follow(self) -> str:
        """Reads the file if it has changed; returns why its content cannot be used, or an empty text."""
        try:
            found = os.stat(self._name)
            signature = (found.st_mtime_ns, found.st_ino, found.st_size)
            if signature == self._signature:
                return ""
            if self._signature is not None and not stat.S_ISREG(found.st_mode):
                return "is not a file any more"  # reading a pipe would stop everything until somebody writes
            text = Path(self._name).read_text("utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            return f"cannot be read: {unread(error)}"
        if self._signature is not None and (fault := fault_of(text)):
            return fault
        self._cached, self._signature = text, signature
        return ""

    def _note(self, fault: str) -> None:
        """Logs once what is wrong with the file, if it lasts, and once that it is usable again."""
        if fault != self._fault:
            if self._is_said and not fault:
                log.info("secret.usable", file=self._name)
            self._fault, self._fault_since, self._is_said = fault, time.monotonic(), False
        elif not self._is_said and time.monotonic() - self._fault_since >= SAID_AFTER:
            self._is_said = True
            log.error("secret.unusable", file=self._name, reason=fault)

    def __repr__(self) -> str:
        return f"Secret({self._source}:{self._name})" if self._name else "Secret(literal)"

    __str__ = __repr__


def stand_in() -> Secret:
    """A secret in the place of one that is wrong, so that checking can go on; each is another."""
    return Secret(secrets.token_hex(16))


class Keyring:
    """The credentials of one inbound's callers, and whose each is.

    Credentials are compared as digests under a random key of this process, so that timing tells nothing about them.
    """

    def __init__(self, keys: Mapping[str, Iterable[Secret]], directory: Directory | None = None) -> None:
        self._salt = secrets.token_bytes(32)
        self.directory = directory
        self._seen = -1
        self._keys = [(caller, secret) for caller, listed in keys.items() for secret in listed]
        self._digests: dict[bytes, str] = {}
        self._values: list[str] = []
        self._files = sum(secret.is_followed for _, secret in self._keys)
        self._looked: float | None = None

    def __bool__(self) -> bool:
        return bool(self._keys) or self.directory is not None  # an empty directory lets nobody in, not everybody

    def names(self) -> list[str]:
        """The callers that have a credential now."""
        listed = [caller for caller, _ in self._keys]
        return sorted({*listed, *(self.directory.secrets() if self.directory else ())})

    def shared(self) -> list[str]:
        """The callers whose credential another caller has too."""
        pairs = [(caller, secret.value()) for caller, secret in self._keys]
        return self._shared([*pairs, *(self.directory.secrets().items() if self.directory else ())])

    def held(self) -> list[tuple[str, str]]:
        """All credentials that can be had now, as pairs of caller and credential, sorted."""
        listed = [(caller, value) for caller, secret in self._keys if (value := secret.if_known()) is not None]
        return sorted([*listed, *(self.directory.secrets().items() if self.directory else ())])

    def _shared(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        holders: dict[bytes, set[str]] = {}
        for caller, value in pairs:
            holders.setdefault(self._digest(value), set()).add(caller)
        return sorted({caller for callers in holders.values() if len(callers) > 1 for caller in callers})

    def _digest(self, value: str) -> bytes:
        # None of OpenSSL's digests: those release the interpreter lock, and the request has to wait for it again.
        return hashlib.blake2b(value.encode("utf8", "surrogateescape"), key=self._salt).digest()

    def look(self) -> None:
        """Reads credentials that have changed. To be called regularly: how long a file has been empty or gone counts
        from the first look that found it so, whether anybody calls or not."""
        if self.directory is not None:
            self._follow(self.directory)
            return
        now = time.monotonic()
        if not self._is_to_look(now):
            return
        values = [secret.value() for _, secret in self._keys]
        if values != self._values:
            pairs = [(caller, value) for (caller, _), value in zip(self._keys, values, strict=True) if value]
            shared = self._shared(pairs)
            for caller in shared:
                log.error("secret.unusable", name=caller, reason="is also another caller's")
            self._digests = {self._digest(value): caller for caller, value in pairs if caller not in shared}
            self._values = values
        self._looked = now  # last: large bodies are read in threads, and one that comes meanwhile must look itself

    def _is_to_look(self, now: float) -> bool:
        """Whether a credential may have changed: at the first look, and then only if any is in a file."""
        if self._looked is not None and not self._files:
            return False
        return self._looked is None or self._files <= FEW or now - self._looked >= LOOK_EVERY

    def _follow(self, directory: Directory) -> None:
        """Reads what has changed in the directory; a credential that two callers share is accepted for neither."""
        directory.look()
        seen = directory.version  # before its secrets: another thread may find a change in between
        if seen == self._seen:
            return
        pairs = directory.secrets().items()
        shared = self._shared(pairs)
        for caller in shared:
            log.error("secret.unusable", directory=directory.path, name=caller, reason="is also another caller's")
        strangers = [caller for caller, _ in pairs if caller == ANONYMOUS]
        for caller in strangers:
            log.error("secret.unusable", directory=directory.path, name=caller, reason="cannot be a caller's name")
        unusable = {*shared, *strangers}
        self._digests = {self._digest(value): caller for caller, value in pairs if caller not in unusable}
        self._seen = seen

    def caller(self, credential: str) -> str | None:
        """The name of the caller whose credential this is, or None."""
        self.look()
        return self._digests.get(self._digest(credential))
