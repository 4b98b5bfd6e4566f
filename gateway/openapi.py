"""An OpenAPI 3.1 description of every route that is served, made from the same structs and routes that serve it.

It must not know any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway import __version__
from gateway.config import Inbound
from gateway.dialect import Dialect, Reply, Route
from gateway.errors import Problem, ProblemKind

_ANSWERED_EVERYWHERE = (
    ProblemKind.INVALID,
    ProblemKind.UNAUTHORIZED,
    ProblemKind.NOT_FOUND,
    ProblemKind.TIMEOUT,
    ProblemKind.CONFLICT,
    ProblemKind.TOO_LARGE,
    ProblemKind.NAME_TAKEN,
    ProblemKind.RATE_LIMITED,
    ProblemKind.HEADERS_TOO_LARGE,
    ProblemKind.INTERNAL,
    ProblemKind.OVERLOADED,
)


def describe(inbounds: Sequence[Inbound]) -> dict[str, Any]:
    """The description of every dialect's routes below `/<dialect>`."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for inbound in inbounds:
        dialect = inbound.dialect
        for route in dialect.routes:
            place = paths.setdefault(f"/{dialect.name}{route.path}", {})
            place[route.method.lower()] = _operation(dialect, route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "alert-gateway",
            "version": __version__,
            "description": "Every vendor API that this gateway speaks to its callers, as each vendor documents it.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(dialect: Dialect, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {str(route.success): {"description": "as the vendor answers"}}
    for kind in _ANSWERED_EVERYWHERE:
        reply = dialect.problem(Problem(kind, "…"))
        responses.setdefault(str(reply.status), {"description": str(kind), "content": _example(reply)})
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{dialect.name}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}_{route.method.lower()}",
        "tags": [dialect.title],
        "externalDocs": {"url": route.source},
        "parameters": _parameters(route),
        "responses": responses,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": _schema(dialect, route.body, schemas)}},
        }
    return operation


def _example(reply: Reply) -> dict[str, Any]:
    return {"application/json": {"example": reply.body}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"\{([^}]+)\}", route.path)
    inside = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return inside + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query]


def _schema(dialect: Dialect, body: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The body's JSON Schema; names are kept apart by dialect."""
    (schema,), found = msgspec.json.schema_components(
        [body], ref_template=f"#/components/schemas/{dialect.name}.{{name}}"
    )
    schemas.update({f"{dialect.name}.{name}": part for name, part in found.items()})
    return schema
