"""Hostile input: whatever arrives, the answer is a success or a 4xx in the vendor's shape, never an exception or a 5xx;
whatever an upstream answers, a call ends in an outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.canonical import Operation
from gateway.dialect import Dialect, Route
from gateway.examples import Example, examples, with_credential
from gateway.outcome import Call, Outcome, Response, Sending
from gateway.registry import dialects
from tests.conformance.errors import documented, is_error_of
from tests.conformance.samples import CREATES, NAMES, NOW, SAMPLES, route_of, sample_id
from tests.conformance.strategies import ODD, every_mutation, mutated
from tests.harness import KEY, House, house

# The gateway under test runs in a thread of this process and draws its own jitter meanwhile.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
HYPOTHESIS = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
WITH_BODY = tuple((name, example) for name, example in SAMPLES if example.request.body is not msgspec.UNSET)
DEEP = b'{"a":' * 100 + b"1" + b"}" * 100
NEVER_JSON = (
    b"{",
    b'{"a": 1,}',
    b"\xff\xfe{}",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": ' + b"9" * 400 + b"}",
    b'{"a": "\\ud80"}',
    b'{"a": "\x01"}',
    b"{'a': 1}",
    b"<xml/>",
    b"a=1&b=2",
    b"\x00" * 64,
    DEEP,
    b"[" * 70000,
)
NEVER_OBJECTS = (b"", b"   ", b"null", b"true", b"3", b'"text"', b"[]", b"[[]]", b"[{}]")


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Runs a gateway with an upstream of every dialect."""
    upstreams = {f"to_{name}": name for name in NAMES}
    to = ", ".join(f'"{name}"' for name in upstreams)
    with house(
        tmp_path_factory.mktemp("hostile"), upstreams, f"[[routes]]\nto = [{to}]", top='reply = "accepted"'
    ) as h:
        yield h


@pytest.fixture(scope="module")
def known(h: House) -> dict[str, str]:
    """Creates an alert of every dialect; returns their ids by dialect."""
    ids = {}
    for name in NAMES:
        example = next(example for origin, example in CREATES if origin == name)
        ready = with_credential(example.request.about(), dialects()[name], KEY)
        made = h.call("POST", f"/{name}{ready.path}", ready.body)
        assert made.status < 300
        ids[name] = dialects()[name].shown_id(int(made.headers["alert-gateway-id"]))
    return ids


def _post(h: House, name: str, example: Example, content: bytes, known: str) -> tuple[int, Any]:
    path = f"/{name}{with_credential(example.request.about(known, 1), dialects()[name], KEY).path}"
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    answer = h.client.request(example.request.method, h.url + path, content=content, headers=headers)
    return answer.status_code, answer.json() if answer.content else None


def _is_fine(name: str, status: int, body: Any, content: bytes) -> None:
    assert status < 500, f"{status} {body} for {content[:500]!r}"
    if status >= 400:
        assert is_error_of(name, body), f"{status} is not in the vendor's shape: {body}"


@pytest.mark.parametrize(("name", "example"), WITH_BODY, ids=sample_id)
def test_what_is_no_json_or_no_object_is_refused(name: str, example: Example, h: House, known: dict[str, str]) -> None:
    is_optional = route_of(dialects()[name], example).body_optional
    for content in (*NEVER_JSON, *NEVER_OBJECTS):
        status, body = _post(h, name, example, content, known[name])
        if is_optional and not content.strip():
            assert status == route_of(dialects()[name], example).success
            continue
        if isinstance(example.request.body, list) and content == b"[]":
            assert status < 300, "no alert at all is a list of alerts as well"
            continue
        _is_fine(name, status, body, content)
        assert status in (400, 401, 413, 422), f"{status} for {content[:60]!r}"


@pytest.mark.parametrize(("name", "example"), WITH_BODY, ids=sample_id)
def test_a_cut_body_is_refused(name: str, example: Example, h: House, known: dict[str, str]) -> None:
    ready = with_credential(example.request.about(known[name], 1), dialects()[name], KEY)
    whole = json.dumps(ready.body).encode()
    for length in range(1, len(whole), max(1, len(whole) // 12)):
        status, body = _post(h, name, example, whole[:length], known[name])
        _is_fine(name, status, body, whole[:length])
        assert status in (400, 401)


@pytest.mark.parametrize("name", NAMES)
@HYPOTHESIS
@given(data=st.data())
def test_a_body_with_something_odd_in_it_is_taken_or_refused(
    name: str, h: House, known: dict[str, str], data: st.DataObject
) -> None:
    example = data.draw(st.sampled_from([example for origin, example in WITH_BODY if origin == name]))
    ready = with_credential(example.request.about(known[name], 1), dialects()[name], KEY)
    body = data.draw(mutated(ready.body) | ODD)
    if isinstance(body, dict) and data.draw(st.booleans()):
        body = with_credential(msgspec.structs.replace(ready, body=body), dialects()[name], KEY).body
    content = json.dumps(body).encode()
    _is_fine(name, *_post(h, name, example, content, known[name]), content)


@pytest.mark.parametrize("name", NAMES)
@HYPOTHESIS
@given(data=st.data())
def test_odd_paths_and_queries_are_refused_or_answered(name: str, h: House, data: st.DataObject) -> None:
    route: Route = data.draw(st.sampled_from(dialects()[name].routes))
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    odd = data.draw(text.map(quote) | st.sampled_from(["%2e%2e", "%00", "%ff", "x" * 3000, "-1", str(2**70)]))
    names = [*route.query, "page", "from", "limit"]
    query = data.draw(st.dictionaries(st.sampled_from(names), text | st.integers().map(str), max_size=3))
    path = route.path.replace("{id}", odd)
    answer = h.client.request(
        route.method, f"{h.url}/{name}{path}", params=query, headers={"authorization": f"Bearer {KEY}"}
    )
    _is_fine(name, answer.status_code, answer.json() if answer.content else None, str(answer.request.url).encode())


# --- what upstreams answer -----------------------------------------------------------------------------------


def _calls(dialect: Dialect) -> list[Any]:
    outbound = dialect.outbound
    return [*outbound.calls.values(), *(call for call in (outbound.read, outbound.list) if call)]


def _sending() -> Sending:
    return Sending(
        operation=Operation.UPDATE,
        at=NOW,
        body={"name": "name"},
        patch={"name": "name"},
        key="key",
        ids={"id": "1"},
        seen={"version": 1},
        suffix="1",
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_call_ends_whatever_the_upstream_answers(name: str) -> None:
    """An upstream whose answers are not as documented must not cause an exception here."""
    bodies = [example.reply.body for example in examples(name) if example.reply and example.reply.body != msgspec.UNSET]
    bodies += [error["body"] for error in documented(name)]
    contents = {json.dumps(odd).encode() for body in bodies for odd in every_mutation(body)}
    broken = {b"", b"<html>", b'{"a'}
    for command in _calls(dialects()[name]):
        for content in contents | broken:
            _ends(command(_sending()), 200, content)
        for status in (404, 409, 422):
            for content in broken:
                _ends(command(_sending()), status, content)


def _ends(call: Call, status: int, content: bytes) -> None:
    """Runs a call, answering each request alike; fails if it raises or does not end."""
    ended = None
    try:
        request = next(call)
        for _ in range(200):
            answer = Response(status if status in request.accepts else 200, {}, content)
            request = call.send(answer)
    except StopIteration as stop:
        ended = stop.value
    except Exception as error:
        raise AssertionError(f"{status} {content[:300]!r} raises {error!r}") from error
    assert isinstance(ended, get_args(Outcome)), f"the call ends with {ended!r}"
