"""A client for a running gateway's operators' address, so that no second runtime is needed beside it.

It must not know what is asked for.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from gateway.admin.operating import NotAsAsked, storable
from gateway.config.secrets import Secret

PATIENCE = 120.0
UNVERIFIED_HINT = (
    "; write the host as the certificate has it, and name an authority that is not known here by --ca FILE"
)


class Remote:
    """The gateway whose operators' address is `url`. It is reached directly: proxies are for upstreams."""

    def __init__(self, url: str, token: Secret | None = None, ca: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._ca = ca

    def get(self, path: str, **asked: Any) -> Any:
        """Sends a GET request; raises `NotAsAsked` with what the gateway says, or why it cannot be reached."""
        given = {name: storable(str(value)) for name, value in asked.items() if value is not None}
        return self._ask("GET", path, params=given)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Sends a POST request; raises `NotAsAsked`, likewise."""
        given = {name: storable(value) if isinstance(value, str) else value for name, value in body.items()}
        return self._ask("POST", path, json=given)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self._token.value()}"} if self._token else {}
        try:
            with httpx.Client(trust_env=False, verify=self._trusted(), timeout=PATIENCE) as client:
                answer = client.request(method, self._url + path, headers=headers, **more)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            hint = UNVERIFIED_HINT if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""
            raise NotAsAsked(f"{self._url} cannot be reached: {error}{hint}") from None
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.status_code == 401:
            raise NotAsAsked(f"{self._url} requires a token, or another one: --token env:NAME")
        if "alert-gateway-id" in answer.headers:  # only answers to callers have this header
            raise NotAsAsked(f"{self._url} serves callers, not operators: use the admin address, without a path")
        if not answer.is_success or not isinstance(found, dict):
            said = found.get("message") if isinstance(found, dict) else None
            text = f"{self._url}{path} answered {answer.status_code}: {said or 'is this the admin address?'}"
            raise NotAsAsked(text, found if isinstance(found, dict) else None)
        return found

    def _trusted(self) -> ssl.SSLContext | bool:
        """The context that verifies the gateway's certificate; nothing is loaded for an `http:` address."""
        if not self._url.startswith("https:"):
            return False
        context = httpx.create_ssl_context()
        if self._ca:
            context.load_verify_locations(self._ca)
        return context
