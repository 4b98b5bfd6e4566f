"""An OpenAPI 3.1 description of every route that is served, made from the same structs and routes that serve it.

Every dialect's routes stand below `/<dialect>`, and also at the root where no other dialect has taken the path. It
must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET

from gateway import __version__
from gateway.asked import Answer, Incoming, Inquired, Listing, Muted, Reply, Shown, Told
from gateway.canonical import Flat, Operation, unflatten
from gateway.config.config import Inbound
from gateway.dialect import Dialect, Route
from gateway.errors import Problem, ProblemKind
from gateway.examples import openings
from gateway.rehearsal import command_in

_NOT_OF_A_ROUTE = (ProblemKind.NO_SUCH_PATH,)
_HEADERS: dict[str, Any] = {
    "Alert-Gateway-Id": {
        "description": "The gateway's own id of the alert, or of the request where no alert is concerned.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "Alert-Gateway-Report": {
        "description": "One line for each upstream that could not hold something: "
        "`<upstream>; dead=<problem>; approximated=a,b; kept=c`, without what does not apply.",
        "schema": {"type": "string", "maxLength": 1024},
    },
    "Alert-Gateway-Stale": {
        "description": "Present if the upstream did not answer in time: the answer is the gateway's own record.",
        "schema": {"const": "true"},
    },
    "Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "string"}},
}

_SAMPLE: Flat = {
    "status": "firing",
    "enabled": True,
    "created_at": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "updated_at": datetime(2026, 1, 1, 12, tzinfo=UTC),
}
"""The fields of an alert that the gateway sets itself."""


def describe(inbounds: Sequence[Inbound]) -> dict[str, Any]:
    """The description of everything that these inbounds serve."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for inbound, path, route in _served(inbounds):
        place = paths.setdefault(path, {})
        place[route.method.lower()] = _operation(inbound, path, route, schemas)
    for inbound in inbounds:
        schemas[f"{inbound.dialect.name}.Problem"] = _problem_schema(inbound.dialect)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "alert-gateway",
            "version": __version__,
            "description": "Every vendor API that this gateway speaks to its callers, as each vendor documents it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": inbound.dialect.title, "externalDocs": {"url": inbound.dialect.source}} for inbound in inbounds
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": _HEADERS,
            "securitySchemes": {
                inbound.dialect.name: dict(inbound.dialect.scheme) for inbound in inbounds if inbound.dialect.scheme
            },
        },
    }


def _served(inbounds: Sequence[Inbound]) -> Iterator[tuple[Inbound, str, Route]]:
    """Every path and its route. At the root, side routes yield to others, and inbounds served under certain host names
    only are left out; paths that differ only in the names of variables are spelt alike."""
    spelt: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for side in (False, True):
        for inbound in inbounds:
            for route in inbound.dialect.routes:
                below = f"/{inbound.dialect.name}"
                for prefix in ("", below) if route.at_root and not inbound.hosts else (below,):
                    path = f"{prefix}{route.path}"
                    shape = re.sub(r"\{[^}]*\}", "{}", path)
                    if route.side is side and (route.method, shape) not in taken:
                        taken.add((route.method, shape))
                        yield inbound, spelt.setdefault(shape, path), route


def _operation(inbound: Inbound, path: str, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    dialect = inbound.dialect
    key_in_body = dialect.credential_in_body and route.body is not None
    needed: list[dict[str, Any]] = [] if key_in_body or not dialect.scheme else [{dialect.name: []}]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _named(route.method, path),
        "tags": [dialect.title],
        "externalDocs": {"url": route.source},
        "security": [{}, *needed] if needed and (inbound.anonymous or not inbound.keyring) else needed,
        "parameters": _parameters(path, route),
        "responses": _responses(dialect, route, schemas),
    }
    if key_in_body:
        operation["description"] = "The caller's key is a field of the body."
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": _schema(dialect, route.body, schemas)}},
        }
    return operation


def _named(method: str, path: str) -> str:
    """A unique `operationId`: a path that ends in a slash would otherwise get the same as the one without."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"{method.lower()}{path}").strip("_")
    return f"{name}_" if path.endswith("/") else name


def _parameters(path: str, route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"\{([^}]+)\}", path)
    inside = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return [{"name": name, **inside} for name in names] + [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query
    ]


def _responses(dialect: Dialect, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    """The responses by status: the success and every kind of problem, each with the vendor's words as an example."""
    success: dict[str, Any] = {"description": "The vendor's answer.", "headers": _refer(_HEADERS, but="Retry-After")}
    body = route.answer(_sample(dialect, route)).body
    if body is not UNSET:
        schema = {"type": _shape(body)["type"]} if route.returns is None else _schema(dialect, route.returns, schemas)
        success["content"] = {"application/json": {"schema": schema, "example": body}}
    responses = {str(route.success): success}
    for kind in ProblemKind:
        if kind in _NOT_OF_A_ROUTE or (kind is ProblemKind.METHOD_NOT_ALLOWED and "{" not in route.path):
            continue  # only on a path with a variable: a blank one makes it another route's path
        reply = dialect.problem(Problem(kind, "…"))
        status = str(reply.status)
        response = responses.setdefault(status, {"description": "", "headers": _refer(("Alert-Gateway-Id",))})
        response["description"] = ", ".join(filter(None, (response["description"], str(kind).replace("_", " "))))
        if reply.status in (429, 503):
            response["headers"] |= _refer(("Retry-After",))
        _add_example(dialect, response, str(kind), reply)
    return responses


_SAMPLE_ID = "6f1b3ae0-3f0c-4d6e-9d0d-2a1f0c8e7b5a"


def _sample(dialect: Dialect, route: Route) -> Answer:
    """An answer that a request to this route might get, for the dialect to word as an example."""
    asked = None
    if Operation.LIST in route.operations:
        asked = route.read(Incoming(params={}, query={}, headers={}, body=UNSET, now=_SAMPLE["created_at"]))
    patch = next((command_in(dialect, Operation.CREATE, body).patch for body in openings(dialect)), {})
    shown = Shown(dialect.shown_id(1_234_567), 1, unflatten({"kind": dialect.kind, **patch, **_SAMPLE}))
    created = _SAMPLE["created_at"]
    chosen = asked.choose(shown) if isinstance(asked, Listing) and asked.choose else None
    return Answer(
        shown=shown,
        listed=(shown,),
        worded=(chosen.worded,) if chosen and chosen.worded is not UNSET else (),
        total=1,
        listing=asked if isinstance(asked, Listing) else None,
        history=(Told(number=1, operation=Operation.COMMENT, at=created, caller="caller", comment="words"),),
        inquired=Inquired(operation=Operation.CREATE, was=Operation.CREATE, at=created),
        mutes=(Muted(id=_SAMPLE_ID, starts_at=created, ends_at=created, updated_at=created, body={}),),
    )


def _refer(names: Sequence[str] | dict[str, Any], but: str = "") -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names if name != but}


def _add_example(dialect: Dialect, response: dict[str, Any], name: str, reply: Reply) -> None:
    if reply.body is UNSET:
        return
    schema = {"$ref": f"#/components/schemas/{dialect.name}.Problem"}
    content = response.setdefault("content", {"application/json": {"schema": schema, "examples": {}}})
    content["application/json"].setdefault("examples", {})[name] = {"value": reply.body}


def _problem_schema(dialect: Dialect) -> dict[str, Any]:
    """The JSON Schema of the vendor's errors, derived from its words for every kind of problem."""
    shapes: list[dict[str, Any]] = []
    for kind in ProblemKind:
        body = dialect.problem(Problem(kind, "…")).body
        if body is not UNSET and (shape := _shape(body)) not in shapes:
            shapes.append(shape)
    return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}


def _shape(value: Any) -> dict[str, Any]:
    """A JSON Schema derived from an example value."""
    if isinstance(value, dict):
        properties = {name: _shape(inner) for name, inner in value.items()}
        return {"type": "object", "properties": properties, "required": list(value)}
    if isinstance(value, list):
        return {"type": "array", "items": _shape(value[0]) if value else {}}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names.get(type(value), "null")}


def _schema(dialect: Dialect, body: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the body's JSON Schema, added to `schemas` with names prefixed by the dialect's."""
    (schema,), found = msgspec.json.schema_components(
        [body], ref_template=f"#/components/schemas/{dialect.name}.{{name}}"
    )
    schemas.update({f"{dialect.name}.{name}": part for name, part in found.items()})
    return schema
