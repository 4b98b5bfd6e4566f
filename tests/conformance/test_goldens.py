"""Compares what becomes of the documented samples with golden files: the canonical alert, the answer to the caller, the
requests to the vendor, and errors. Each golden file names its source; a dialect without golden files fails."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from gateway.asked import Answer, Command, Shown
from gateway.canonical import Operation, unflatten
from gateway.delivery.judging import judge
from gateway.dialect import Dialect
from gateway.examples import Example, examples, with_credential
from gateway.outcome import Request, Response, Sending
from gateway.registry import dialects
from tests.conformance.samples import (
    CREATES,
    NAMES,
    NOW,
    SAMPLES,
    alert_of,
    asked,
    bare,
    nested,
    route_of,
    sample_id,
)
from tests.harness import House, Sent, house
from tests.recorded import GOLDEN, Recorder, load, plain

MUTATING = tuple(op for op in Operation if op not in (Operation.READ, Operation.LIST))


# --- every dialect has its samples and goldens ---------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_has_documented_samples_that_name_their_source(name: str) -> None:
    found = examples(name)
    assert any(example.operation is Operation.CREATE for example in found), f"{name} has no documented create"
    assert all(example.source.startswith("https://") and example.title for example in found)
    folder = {file.stem for file in (GOLDEN / name).glob("*.json")}
    assert folder == {example.name for example in found} | {"errors", "operations"}


@pytest.mark.parametrize(("name", "example"), SAMPLES, ids=sample_id)
def test_a_sample_is_served_as_the_operation_it_documents(name: str, example: Example) -> None:
    route = route_of(dialects()[name], example)
    assert example.operation in route.operations
    wants = asked(name, example)
    if example.operation in MUTATING:
        assert isinstance(wants, Command)
        assert wants.operation is example.operation


# --- what a sample means -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "example"), SAMPLES, ids=sample_id)
def test_a_sample_becomes_the_recorded_question(name: str, example: Example, recorder: Recorder) -> None:
    wants = asked(name, example)
    if not isinstance(wants, Command):
        recorder.same(f"{name}/{example.name}.json", "asks", _question(wants), source=example.source)
        return
    said: dict[str, Any] = {"operation": wants.operation}
    if wants.ref:
        said["of"] = {"id": wants.ref.id} if wants.ref.id else {"key": wants.ref.key}
    said["alert"] = nested(alert_of(dialects()[name], wants) if wants.ref is None else wants.patch)
    said |= {"second_voices": list(wants.hints)} if wants.hints and wants.ref else {}
    said |= {"version": wants.version} if wants.version is not None else {}
    said |= {"comment": wants.comment} if wants.comment else {}
    said |= {"dropped": dict(wants.dropped)} if wants.dropped else {}
    recorder.same(f"{name}/{example.name}.json", "asks", said, source=example.source)


def _question(wants: Any) -> dict[str, Any]:
    fields = {field: getattr(wants, field) for field in wants.__dataclass_fields__}
    if "ref" in fields:
        return {"of": {"id": wants.ref.id}}
    said = {name: value for name, value in fields.items() if value not in (None, (), {}) and not callable(value)}
    return {name: value for name, value in said.items() if value is not False}


# --- what the caller is answered -----------------------------------------------------------------------------


def _key(name: str, example: Example) -> str:
    return f"key-of-{name}-{example.name}-0123456789"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Runs a gateway that forwards nothing, with a caller of its own for every sample."""
    tables = []
    for name in NAMES:
        keys = ", ".join(f'"{example.name}" = "{_key(name, example)}"' for example in examples(name))
        tables.append(f"[inbound.{name}]\nkeys = {{ {keys} }}")
    route = '[[routes]]\nto = []\nbecause = "it is only answered"'
    with house(tmp_path_factory.mktemp("alone"), config=lambda _: "\n".join([*tables, route])) as h:
        yield h


def _send(h: House, name: str, request: Request, key: str) -> Sent:
    ready = with_credential(request, dialects()[name], key)
    body = None if ready.body is UNSET else ready.body
    return h.call(request.method, f"/{name}{ready.path}", body, key=None, headers=dict(ready.headers))


@pytest.mark.parametrize(("name", "example"), SAMPLES, ids=sample_id)
def test_a_sample_is_answered_as_recorded(name: str, example: Example, alone: House, recorder: Recorder) -> None:
    dialect, key, shown = dialects()[name], _key(name, example), None
    if example.operation is not Operation.CREATE:
        first = next(other for origin, other in CREATES if origin == name)
        made = _send(alone, name, first.request.about(), key)
        assert made.status < 300
        shown = dialect.shown_id(int(made.headers["alert-gateway-id"]))
    answer = _send(alone, name, example.request.about(shown, 1), key)
    shown = shown or dialect.shown_id(int(answer.headers["alert-gateway-id"]))
    assert answer.status == route_of(dialect, example).success
    recorder.same(
        f"{name}/{example.name}.json",
        "answer",
        {"status": answer.status, "body": _masked(answer.body, shown, alone.url)},
        source=example.source,
    )
    if example.reply:
        documented = None if example.reply.body is UNSET else example.reply.body
        assert answer.status == example.reply.status
        differences = list(_differences(answer.body, plain(documented)))
        reason = load(f"{name}/{example.name}.json").get("deviates")
        assert bool(differences) == bool(reason), f"{differences} (stated deviation: {reason})"


_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+\d\d:\d\d)$")


def _differences(actual: Any, documented: Any, at: str = "") -> Iterator[str]:
    """Yields where an answer lacks what a client can rely on: the documented names, types of values and form of times.

    A documented `null`, empty list or word "string" says nothing about the value, so it matches anything.
    """
    if documented in (None, "string", []) or actual in (None, []):
        return
    if isinstance(documented, dict) and isinstance(actual, dict):
        yield from (f"{at}.{name} is missing" for name in documented if name not in actual)
        for name in documented.keys() & actual.keys():
            yield from _differences(actual[name], documented[name], f"{at}.{name}")
    elif isinstance(documented, list) and isinstance(actual, list):
        yield from _differences(actual[0], documented[0], f"{at}[0]")
    elif type(actual) is not type(documented):
        yield f"{at} is {actual!r}, documented as {documented!r}"
    elif isinstance(documented, str) and _TIME.match(documented) and _spelling(actual) != _spelling(documented):
        whole = "." not in documented
        if whole or _spelling(re.sub(r"\.\d+", "", actual)) != _spelling(re.sub(r"\.\d+", "", documented)):
            yield f"{at} is spelled {actual!r}, documented as {documented!r}"


def _spelling(time: str) -> str:
    return re.sub(r"\d", "0", time)


_OWN_NUMBER = re.compile(r"\d{12,16}|00000000-0000-0000-00[0-9a-f]{2}-(?!0{12})[0-9a-f]{12}")
"""An id of the gateway's own, as a number or in the form of a UUID."""


def _masked(value: Any, shown: str, host: str) -> Any:
    """Returns an answer with placeholders for what differs between runs: the gateway's ids, its address and times."""
    if isinstance(value, dict):
        return {name: _masked(inner, shown, host) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, shown, host) for inner in value]
    if isinstance(value, str) and value.startswith(host):
        return "<host>" + value.removeprefix(host)
    if str(value) == shown:
        return "<id>" if isinstance(value, str) else "<id as a number>"
    if isinstance(value, str) and _OWN_NUMBER.fullmatch(value):
        return "<number>"
    if isinstance(value, str) and _TIME.match(value):
        return "<time>"
    if isinstance(value, int) and abs(value) > 10**12:
        return "<milliseconds>"
    return value


@pytest.mark.parametrize(
    ("name", "example"),
    [(name, example) for name, example in SAMPLES if example.reply and example.operation is Operation.READ],
    ids=sample_id,
)
def test_an_alert_shown_by_the_vendor_is_shown_again_as_it_was(name: str, example: Example) -> None:
    """A caller of the upstream's own vendor sees exactly what the vendor shows."""
    dialect = dialects()[name]
    assert example.reply
    body = bare(dialect, example.reply.body)
    flat = {"kind": dialect.kind, **dialect.mapping.interpret(body, side="reply").whole()}
    shown = Shown(example.request.params["id"], body.get("version", 1), unflatten(flat))
    reply = route_of(dialect, example).answer(Answer(shown=shown))
    assert bare(dialect, plain(reply.body)) == body


# --- what the vendor is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("operation", MUTATING)
def test_every_operation_is_sent_or_degraded_as_documented(name: str, operation: Operation) -> None:
    """Each operation as method and path, with those fields that tell it where these do not: `state: closed`. A field
    that one operation of a vendor names is named by all that are sent with it."""
    held = load(f"{name}/operations.json")
    assert held["source"].startswith("https://")
    telling = list(dict.fromkeys(re.findall(r"(\w+): ", " ".join(held["sends"].values()))))
    assert _sent(dialects()[name], operation, telling) == held["sends"][operation.value]


def _sent(dialect: Dialect, operation: Operation, telling: Sequence[str]) -> str:
    """Returns the requests that an operation becomes at this vendor, with the `telling` fields; or `kept`."""
    outbound = dialect.outbound
    if operation is Operation.RESOLVE and outbound.on_resolve == "delete":
        operation = Operation.DELETE
    if operation not in outbound.calls and operation not in outbound.nearest:
        return "kept"
    command = outbound.calls[outbound.nearest.get(operation, operation)]
    call = command(
        Sending(
            operation=operation,
            at=NOW,
            body={"name": "N", "labels": {"alertname": "N"}},
            patch={},
            key="KEY",
            ids={"id": "ID"},
            seen={},
            comment="words",
        )
    )
    found: list[Request] = []
    with contextlib.suppress(StopIteration):
        found.append(next(call))
        while True:
            found.append(call.send(Response(200, {}, b'{"alert": {"id": 1, "version": 1}}')))
    return ", then ".join(_line(request, telling) for request in found)


def _line(request: Request, telling: Sequence[str]) -> str:
    body = request.body if isinstance(request.body, dict) else {}
    said = {**body, **(body.get("alert") or {}), **(body.get("data") or {})}
    told = {name.lower(): str(value).lower() for name, value in said.items()}
    return " ".join([request.method, request.path, *(f"{name}: {told[name]}" for name in telling if name in told)])


# --- errors --------------------------------------------------------------------------------------------------


def _errors(name: str) -> list[Mapping[str, Any]]:
    held = load(f"{name}/errors.json")
    found: list[Mapping[str, Any]] = held["errors"]
    assert found
    return found


@pytest.mark.parametrize("name", NAMES)
def test_documented_errors_are_understood(name: str) -> None:
    dialect = dialects()[name]
    for error in _errors(name):
        assert error["source"].startswith("https://")
        response = Response(error["status"], {}, msgspec.json.encode(error["body"]))
        assert dialect.outbound.reason(response) == error["reason"]
        assert judge(error["status"], dialect) == error["verdict"]
