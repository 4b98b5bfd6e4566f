"""The OpenAPI description is valid, complete and true: it names exactly what is served, and a gateway called
accordingly never fails and never answers with something unannounced."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

from gateway.config.loading import parse
from gateway.dialect import CREDENTIAL
from gateway.errors import Problem, ProblemKind
from gateway.examples import with_credential
from gateway.inbound.paths import Paths
from gateway.openapi import _sample, describe
from gateway.outcome import Request
from gateway.registry import dialects
from tests.harness import KEY, UPSTREAM_KEY, House, house, inbound_tables, upstream_table

# The gateway under test runs in a thread of this process and draws its own jitter meanwhile.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
EXAMPLES = 10
"""Test cases per operation."""


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with an upstream of every dialect, each the primary of another dialect's callers."""
    names = list(dialects())
    shifted = dict(zip(names, names[1:] + names[:1], strict=True))
    routes = "".join(f'[[routes]]\nfrom = ["{one}"]\nto = ["to_{other}"]\n' for one, other in shifted.items())
    upstreams = {f"to_{name}": name for name in names}
    directory = tmp_path_factory.mktemp("store")
    with house(directory, upstreams, routes, top='reply_timeout = "500ms"') as standing:
        yield standing


@pytest.fixture(scope="module")
def described(h: House) -> Any:
    """The description as it is served."""
    return h.client.get(h.url + "/-/openapi.json").json()


def operations(described: Any) -> Iterator[tuple[str, str, Any]]:
    """Every path, method and operation of a description."""
    for path, place in described["paths"].items():
        for method, operation in place.items():
            yield path, method.upper(), operation


def test_it_is_valid(described: Any) -> None:
    assert described["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(described).iter_errors()] == []
    assert len({operation["operationId"] for *_, operation in operations(described)}) == len(
        list(operations(described))
    )


@pytest.mark.parametrize("count", range(len(dialects()) + 1))
def test_it_names_every_route_that_is_served_and_no_other(count: int) -> None:
    """For the first `count` dialects, in both orders: which routes stand at the root depends on which dialects are
    served."""
    for names in (list(dialects())[:count], list(dialects())[::-1][:count]):
        text = inbound_tables(names) if names else ""
        if not names:
            assert describe([])["paths"] == {}
            continue
        config = parse('store = "sqlite:///nowhere.db"\n' + upstream_table("u", names[0], "http://u") + text)
        inbounds = list(config.inbounds.values())
        paths = Paths(inbounds)
        found = {}
        for path, method, operation in operations(describe(inbounds)):
            match = paths.match(method, re.sub(r"\{[^}]*\}", "some", path))
            found[id(match.route), match.inbound.dialect.name, path] = method
            assert operation["tags"] == [match.inbound.dialect.title]
            assert operation["summary"] == match.route.summary
            assert set(match.params) == set(re.findall(r"\{([^}]*)\}", path))
        served = [(shape, method) for shape, place in paths._usual._places.items() for method in place.by_method]
        assert len(found) == len(served)


def test_every_answer_that_a_dialect_can_give_is_described(described: Any) -> None:
    for path, _, operation in operations(described):
        for status, response in operation["responses"].items():
            assert response["description"], (path, status)
            assert "Alert-Gateway-Id" in response["headers"], (path, status)
            if status >= "400":
                assert response["content"]["application/json"]["examples"], (path, status)
        assert {"400", "404", "408", "409", "413", "429", "431", "500", "503"} <= set(operation["responses"])
        [dialect] = [one for one in dialects().values() if one.title in operation["tags"]]
        unauthorized = dialect.problem(Problem(ProblemKind.UNAUTHORIZED, "…")).status
        assert str(unauthorized) in operation["responses"], "not every vendor has a 401"


PREFIX = r"^/(alertmanager_webhook|alertmanager|grafana)(?=/)"
EMPTY = {
    *(("POST", path) for path in ("/", "/webhook", "/api/v2/alerts")),
    *(("PUT", path) for path in ("/", "/webhook")),
    ("DELETE", "/api/v2/silence/{id}"),
}
"""Routes of Alertmanager that answer 200 with an empty body."""


def test_every_body_that_comes_back_is_shown_as_the_dialect_words_it(described: Any) -> None:
    for path, method, operation in operations(described):
        [status] = [status for status in operation["responses"] if status < "300"]
        content = operation["responses"][status].get("content")
        is_empty = status == "204" or (method, re.sub(PREFIX, "", path)) in EMPTY
        assert (content is None) is is_empty, (method, path)
        if content:
            example = content["application/json"]["example"]
            schema = content["application/json"]["schema"]
            found = OAS31Validator({**schema, "components": described["components"]}).iter_errors(example)
            assert [error.message for error in found] == [], (method, path)


def test_what_is_announced_is_what_is_answered() -> None:
    for dialect in dialects().values():
        for route in dialect.routes:
            assert route.answer(_sample(dialect, route)).status == route.success, (dialect.name, route.path)


def test_it_says_where_a_credential_goes(described: Any) -> None:
    for path, _, operation in operations(described):
        name = path.split("/")[1]
        if name in dialects():
            in_body = dialects()[name].credential_in_body and "requestBody" in operation
            assert operation["security"] == ([] if in_body or f"{{{CREDENTIAL}}}" in path else [{name: []}])
            assert in_body == ("The caller's key" in operation.get("description", ""))
    assert all(scheme["scheme"] == "bearer" for scheme in described["components"]["securitySchemes"].values())


def test_callers_without_a_key_are_described_where_they_are_let_in() -> None:
    upstream = upstream_table("u", "ilert", "http://u")
    config = parse(f'store = "sqlite:///nowhere.db"\n{upstream}\n[inbound.uptinio]\n')
    assert [operation["security"] for *_, operation in operations(describe(list(config.inbounds.values())))] == [
        [{}, {"uptinio": []}]
    ] * 16


def test_no_credential_is_in_it(described: Any) -> None:
    text = json.dumps(described)
    assert KEY not in text and UPSTREAM_KEY not in text


# --- calling as it says ----------------------------------------------------------------------------------------

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BELOW = [(f"/{name}{route.path}", route.method) for name, dialect in dialects().items() for route in dialect.routes]


@pytest.fixture(scope="module")
def schema(described: Any) -> Any:
    """The description as schemathesis reads it."""
    return schemathesis.openapi.from_dict(described)


def ids(h: House, path: str) -> list[str]:
    """Ids of existing alerts, so that not every call ends at an unknown one."""
    if "{" not in path:
        return []
    found: list[str] = re.findall(
        r'"(?:id|alert_id)": ?"?([\w-]+)', json.dumps(h.call("GET", path.partition("/{")[0]).body)
    )
    return found[:5]


def calls_its_path(case: Any) -> bool:
    """Whether the path that is described is called: the HTTP client resolves an id that is `.` or `..` like a
    directory, and the gateway takes blanks at the end for a part of a pasted base address."""
    given = [unquote(str(value)) for value in (case.path_parameters or {}).values()]
    return not any(value in (".", "..") or not value.strip() for value in given)


@pytest.mark.parametrize(("path", "method"), BELOW, ids=[f"{method} {path}" for path, method in BELOW])
def test_a_gateway_that_is_called_as_it_says_keeps_to_it(h: House, schema: Any, path: str, method: str) -> None:
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    cases = st.one_of(*(schema[path][method].as_strategy(generation_mode=mode) for mode in modes))
    known = ids(h, path)
    dialect = dialects()[path.split("/")[1]]
    key_in_body = dialect.credential_in_body
    with_key: Any = with_credential(Request(method=method, path=path, body={}), dialect, KEY).body

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=cases, name=st.sampled_from(known or ["unknown"]), has_name=st.booleans())
    def keeps_to_it(case: Any, name: str, has_name: bool) -> None:
        if has_name and case.path_parameters:
            case.path_parameters = dict.fromkeys(case.path_parameters, name)
        assume(calls_its_path(case))
        if isinstance(case.body, dict) and key_in_body:
            case.body = {**case.body, **with_key}
        answer = case.call(base_url=h.url, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    keeps_to_it()
