"""Removes a caller's credential from what it says: some clients send their key a second time, in a field of another
name or in a link, and all that an alert says is stored, sent to other vendors, and shown. It must not know any vendor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from gateway.config.secrets import MASK

SHORTEST = 12
"""Characters of the shortest credential that is looked for: a shorter one may be a word that a text has anyway."""
KEYS = 256
"""Credentials whose forms are remembered."""


def masked(body: Any, credential: str, plain: bytes, *, told: int) -> Any:
    """Returns a decoded body with the credential masked wherever it stands, if its bytes have it more often than the
    `told` times that the vendor's API asks for."""
    if len(credential) < SHORTEST or _times(plain, credential) <= told:
        return body
    return _without(body, _forms(credential))


def masked_in_address(said: Any, credential: str) -> Any:
    """Returns what an address says, its path or the values in it, with the credential masked as in a body: an alert is
    asked for there by the key that its body gave it."""
    return _without(said, _forms(credential)) if len(credential) >= SHORTEST else said


@lru_cache(KEYS)
def _forms(credential: str) -> tuple[str, ...]:
    """The credential as it is, and as part of an address."""
    quoted = quote(credential, safe="")
    return (credential, quoted) if quoted != credential else (credential,)


def _times(plain: bytes, credential: str) -> int:
    """How often the bytes have the credential, as it is, as part of an address, or with slashes as some encode them."""
    said = plain.replace(b"\\/", b"/") if b"\\/" in plain else plain
    return sum(said.count(form.encode("utf8", "surrogateescape")) for form in _forms(credential))


def _without(value: Any, forms: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        for form in forms:
            value = value.replace(form, MASK)
        return value
    if isinstance(value, list):
        return [_without(item, forms) for item in value]
    if isinstance(value, dict):
        return {_without(name, forms): _without(item, forms) for name, item in value.items()}
    return value
