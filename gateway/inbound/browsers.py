"""Web pages as callers: browsers let a page of another origin call only a vendor that says so (CORS), and ask before a
request with JSON. The headers are those of https://fetch.spec.whatwg.org/#http-cors-protocol, for pages of any origin:
what a caller may do depends on its key, which no browser adds by itself. Where callers need no key, none may. It must
not know any vendor.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from gateway.asked import Reply
from gateway.config.config import Inbound

ANYBODY = {"Access-Control-Allow-Origin": "*"}
ASKS = "access-control-request-method"


def asked_for(method: str, headers: Mapping[str, str]) -> str:
    """Returns the method that a browser asks to be allowed to use, if that is what the request is for."""
    return headers.get(ASKS, "") if method == "OPTIONS" else ""


def lets(inbound: Inbound, method: str) -> bool:
    """Returns whether pages may use a method."""
    return method in inbound.dialect.browsers and bool(inbound.keyring) and not inbound.anonymous


def allowed(method: str) -> Reply:
    """Answers a browser that asks. The asterisk stands for every header but that of the credential; older browsers do
    not know it."""
    more = {
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": "Authorization, Content-Type, *",
        "Access-Control-Max-Age": "600",
    }
    return Reply(204, headers={**ANYBODY, **more})


def readable(reply: Reply, inbound: Inbound | None, method: str) -> Reply:
    """Returns an answer that a page may read, if it may use the method."""
    if inbound is None or not inbound.dialect.browsers or not lets(inbound, method):
        return reply
    return structs.replace(reply, headers={**reply.headers, **ANYBODY})
