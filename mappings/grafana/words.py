"""Grafana as a caller: its credential, the check of its signature, what is refused and in which words.

Of a refusal Grafana shows the first 1,024 bytes beside the contact point, so what is to be done stands first. Sources:
https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
for the body and the signature, https://grafana.com/docs/grafana/latest/developers/http_api/ for the form of an error.
It must not know what stands behind the gateway.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct

from gateway.asked import Incoming, Reply
from gateway.asking import from_epoch
from gateway.config.secrets import Secret
from gateway.errors import USUAL_STATUS, Problem, ProblemKind
from gateway.outcome import Json
from mappings.alertmanager import words

PAGE = (
    "https://grafana.com/docs/grafana/latest/alerting/configure-notifications/"
    "manage-contact-points/integrations/webhook-notifier/"
)
WINDOW = timedelta(minutes=5)
"""How far the time of a signature may be from the gateway's."""
LONGEST_SAID = 800
"""The most characters of a message: the vendor shows 1,024 bytes of an answer."""


class Settings(Struct, kw_only=True):
    """Further settings of `[inbound.grafana]`: how requests are signed."""

    hmac: tuple[Secret, ...] = ()
    """The secret that every request must be signed with; a list of them while rotating. It does not say who the caller
    is: that still takes `keys`, or `anonymous`. Default: requests need not be signed."""
    hmac_header: str = "X-Grafana-Alerting-Signature"
    """The header with the signature."""
    hmac_timestamp_header: str | None = None
    """The header with the time that is signed too. Default: the body alone is signed."""

    def __post_init__(self) -> None:
        if self.hmac_timestamp_header and not self.hmac:
            raise ValueError("hmac_timestamp_header requires `hmac`, the secret of the signature")


# --- who calls ---------------------------------------------------------------------------------------------


def credentials(incoming: Incoming) -> tuple[str, ...]:
    """Returns what stands after the scheme, whichever that is; for Basic authentication `user:password`."""
    scheme, _, rest = incoming.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "basic":
        return words.credentials(incoming)
    found = rest.strip() or scheme
    return (found,) if found else ()


def verify(incoming: Incoming, body: bytes, settings: Settings, secrets: Sequence[str]) -> None:
    """Raises `Problem` unless the request was signed with one of the secrets, and recently."""
    if not secrets:
        return
    given = incoming.headers.get(settings.hmac_header.lower(), "").strip().lower()
    if not given:
        raise _unsigned(f"the signature is missing: the contact point must sign with HMAC, in {settings.hmac_header}")
    signed = body
    if settings.hmac_timestamp_header:
        at = incoming.headers.get(settings.hmac_timestamp_header.lower(), "").strip()
        _refuse_old(incoming, at, settings.hmac_timestamp_header)
        signed = at.encode("latin-1") + b":" + body
    usable = [secret for secret in secrets if secret]  # anybody can sign with the empty secret of an emptied file
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in usable]
    if not sum(hmac.compare_digest(one.encode(), given.encode("utf8", "replace")) for one in expected):
        raise _unsigned(
            "the signature does not match: compare the secret of the contact point with `hmac`, "
            "and its timestamp header with `hmac_timestamp_header`"
        )


def _refuse_old(incoming: Incoming, at: str, header: str) -> None:
    if not (at.isascii() and at.isdigit() and len(at) < 12):
        raise _unsigned(
            f"the signature's timestamp is missing: the contact point must name {header} as its timestamp header"
        )
    if abs(incoming.now - from_epoch(int(at))) > WINDOW:
        raise _unsigned(
            f"the signature's timestamp is off by more than {WINDOW.seconds // 60} minutes: compare the clocks"
        )


def _unsigned(text: str) -> Problem:
    return Problem(ProblemKind.UNAUTHORIZED, text, field="signature")


# --- what is refused ---------------------------------------------------------------------------------------


def refuse_others(body: Any) -> dict[str, Json]:
    """Returns the body that Grafana posts unless told otherwise; raises `Problem` for any other."""
    if not isinstance(body, dict) or not isinstance(body.get("alerts"), list):
        text = (
            "custom payload: remove it from the contact point, only Grafana's default payload is supported; "
            "this body has no list `alerts`"
        )
        raise Problem(ProblemKind.MALFORMED, text, field="alerts")
    version = body.get("version")
    if version == "4":
        text = "this is Alertmanager's webhook, version 4: post it to /alertmanager/webhook instead"
        raise Problem(ProblemKind.INVALID, text, field="version")
    if version not in (None, "1"):
        text = f"custom payload: version is {str(version)[:20]!r}, and only version 1 of Grafana's webhook is supported"
        raise Problem(ProblemKind.INVALID, text, field="version")
    return body


def problem(found: Problem) -> Reply:
    """A problem as Grafana's own API words it."""
    headers = {"WWW-Authenticate": "Basic"} if found.kind is ProblemKind.UNAUTHORIZED else {}
    return Reply(USUAL_STATUS[found.kind], {"message": found.message[:LONGEST_SAID]}, headers)
