"""Signatures of a described vendor's requests: an HMAC with SHA-256 of the body, in a header.

It must not know any vendor.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from gateway.asked import Incoming
from gateway.config.secrets import Secret
from gateway.errors import Problem, ProblemKind


class Signed(Struct, kw_only=True):
    """Further settings of `[inbound.NAME]` where a description has `signature`."""

    hmac: tuple[Secret, ...] = ()
    """The secret that every request must be signed with; a list of them while rotating."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The header of the signature, the prefix before it, and the form in which its bytes are written."""

    header: str
    prefix: str = ""
    form: str = "hex"

    def verify(self, incoming: Incoming, body: bytes, settings: Any, secrets: Sequence[str]) -> None:
        """Raises `Problem` unless the request is signed with one of the secrets."""
        given = incoming.headers.get(self.header.lower(), "").strip()
        if not given:
            raise Problem(ProblemKind.UNAUTHORIZED, f"the signature header {self.header} is missing", field="signature")
        said = given.encode("utf8", "replace")
        usable = [secret for secret in secrets if secret]  # anybody can sign with an empty one, as of an emptied file
        expected = [(self.prefix + self._written(secret, body)).encode() for secret in usable]
        if not sum(hmac.compare_digest(one, said) for one in expected):  # compares all: timing tells nothing
            text = f"the signature in {self.header} does not match the configured secret"
            raise Problem(ProblemKind.UNAUTHORIZED, text, field="signature")

    def _written(self, secret: str, body: bytes) -> str:
        digest = hmac.new(secret.encode(), body, hashlib.sha256)
        return digest.hexdigest() if self.form == "hex" else base64.b64encode(digest.digest()).decode()
