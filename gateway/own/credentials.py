"""A described vendor's credential: found in callers' requests, put into requests to upstreams.

It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.asked import Incoming
from gateway.asking import bearer, unpacked
from gateway.mapping.wire import copied, get, put
from gateway.outcome import Request


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """How a credential is found and put. `place` is its place in the body, if it is there; `scheme` is OpenAPI's
    description of where it is."""

    find: Callable[[Incoming], tuple[str, ...]]
    put: Callable[[Request, str], Request]
    place: str | None = None
    scheme: Mapping[str, str] = field(default_factory=lambda: {"type": "http", "scheme": "bearer"})


BEARER = Credentials(find=bearer, put=Request.with_bearer)


def _basic(incoming: Incoming) -> tuple[str, ...]:
    scheme, _, packed = incoming.headers.get("authorization", "").strip().partition(" ")
    pair = unpacked(packed) if scheme.lower() == "basic" else None
    return () if pair is None else (pair,)


BASIC = Credentials(find=_basic, put=Request.with_basic, scheme={"type": "http", "scheme": "basic"})


def _nowhere(request: Request, credential: str) -> Request:
    return request


NONE = Credentials(find=lambda incoming: (), put=_nowhere, scheme={})
"""No credential: callers show none, and whoever knows an upstream's address may post there."""


IN_PATH = "{credential}"
"""The placeholder for the credential in a path."""


def _with_path(request: Request, credential: str) -> Request:
    return msgspec.structs.replace(request, path=request.path.replace(IN_PATH, credential))


PATH = Credentials(find=lambda incoming: (), put=_with_path, scheme={})
"""The credential is a part of the address that an upstream is posted to, as it stands. Callers show none in their
paths, as paths are logged."""


def in_header(name: str, prefix: str = "") -> Credentials:
    """In a header of its own, after a prefix if there is one."""

    def find(incoming: Incoming) -> tuple[str, ...]:
        said = incoming.headers.get(name.lower(), "").strip()
        said = said.removeprefix(prefix.rstrip()).strip() if said.startswith(prefix.rstrip()) else ""
        return (said,) if said else ()

    def put_there(request: Request, credential: str) -> Request:
        return request.with_headers({name: prefix + credential})

    return Credentials(find=find, put=put_there, scheme={"type": "apiKey", "in": "header", "name": name})


def in_query(name: str) -> Credentials:
    """In a query parameter."""

    def put_there(request: Request, credential: str) -> Request:
        return msgspec.structs.replace(request, query={**request.query, name: credential})

    def find(incoming: Incoming) -> tuple[str, ...]:
        return tuple(filter(None, incoming.query.get(name, ())))

    return Credentials(find=find, put=put_there, scheme={"type": "apiKey", "in": "query", "name": name})


def in_body(place: str) -> Credentials:
    """In a field of the body."""

    def find(incoming: Incoming) -> tuple[str, ...]:
        said = get(incoming.body, place)
        return (said,) if isinstance(said, str) and said else ()

    def put_there(request: Request, credential: str) -> Request:
        body = copied(request.body) if isinstance(request.body, dict) else {}
        put(body, place, credential)
        return msgspec.structs.replace(request, body=body)

    return Credentials(find=find, put=put_there, place=place)
